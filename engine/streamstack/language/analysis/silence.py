"""What `allow` silences: findings of a document, or within one of its steps."""

from __future__ import annotations

from collections.abc import Iterable

from streamstack.errors import Diagnostic, Mark
from streamstack.language.definition import Definition
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.walk import steps_of


def silence(findings: Iterable[Diagnostic], definition: Definition, root: Node) -> list[Diagnostic]:
    """Leave out the findings of a document that its author allows."""
    ranges = _ranges(definition, root)
    return [
        finding
        for finding in findings
        if finding.code not in definition.allow
        and not any(
            finding.code in codes and begin <= finding.mark <= end for codes, begin, end in ranges
        )
    ]


def _ranges(definition: Definition, root: Node) -> list[tuple[frozenset[str], Mark, Mark]]:
    """Return the codes that steps allow, each with the first and last place of its step."""
    allowing = {step.mark: step.allow for step in steps_of(definition.stack) if step.allow}
    if not allowing:
        return []
    return [
        (allowing[node.mark], node.mark, _end(node))
        for node in _mappings(root)
        if node.mark in allowing
    ]


def _mappings(node: Node) -> Iterable[Mapping]:
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _mappings(item)
    elif isinstance(node, Mapping):
        yield node
        for _, item in node.items:
            yield from _mappings(item)


def _end(node: Node) -> Mark:
    """Return the last place of a node."""
    if isinstance(node, Scalar):
        return max(node.mark, node.mark_at(len(node.text)))
    inner = (
        node.items if isinstance(node, Sequence) else [each for pair in node.items for each in pair]
    )
    return max((_end(each) for each in inner), default=node.mark)
