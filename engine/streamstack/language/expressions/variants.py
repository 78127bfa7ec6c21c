"""Expressions with one of their constants changed, for tests of tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from jinja2 import nodes

from streamstack.language.expressions.compile import Expression, Spelling, compile_expression
from streamstack.language.values import MISSING, to_json

#: Longer constants are cut in descriptions.
_WIDEST: Final = 30
#: Filters whose text arguments are values, and not patterns, formats or names.
_VALUES: Final = frozenset({"default", "d", "join", "replace"})


def changed(value: Any) -> Any:
    """Return another constant of the same type; MISSING for what has none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, (list, dict)) and value:
        return type(value)()
    return MISSING


def describe_change(before: Any, after: Any) -> str:
    """Say which constant became which; of a text, which was changed."""
    return f"{_shown(before)} was changed" if isinstance(before, str) else f"{_shown(before)} became {_shown(after)}"


def _shown(value: Any) -> str:
    text = to_json(value).decode()
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def variants(expression: Expression, names: Spelling) -> Iterator[tuple[str, str]]:
    """Yield what is changed, and the source of the expression with that change, for each of its constants."""
    for constant in _constants(expression.node):
        before, after = constant.value, changed(constant.value)
        if after is MISSING:
            continue
        # The tree is the one that other plans are compiled from: it has its own constant again at once.
        constant.value = after
        try:
            source = compile_expression(expression.node, names)
        finally:
            constant.value = before
        yield describe_change(before, after), source


def _constants(node: nodes.Node) -> Iterator[nodes.Const]:
    """Yield the constants that are values: no names of items, and no patterns or formats of filters."""
    if isinstance(node, nodes.Const):
        yield node
    elif isinstance(node, nodes.Getitem):
        yield from _constants(node.node)
        if not isinstance(node.arg, nodes.Const):
            yield from _constants(node.arg)
    elif isinstance(node, (nodes.Filter, nodes.Test, nodes.Call)):
        texts = isinstance(node, nodes.Filter) and node.name in _VALUES
        for child in node.iter_child_nodes():
            if texts or not (isinstance(child, nodes.Const) and isinstance(child.value, str)) or child is node.node:
                yield from _constants(child)
    elif isinstance(node, nodes.Pair):
        yield from _constants(node.value)
    elif not isinstance(node, nodes.Keyword):
        for child in node.iter_child_nodes():
            yield from _constants(child)
