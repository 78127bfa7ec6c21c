"""What endpoints inherit from the groups of their folders, and the calls around their steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Final

from streamstack.errors import Mark
from streamstack.language.definition import GroupDefinition, Stack
from streamstack.language.keys import DOCUMENTS, INHERITED, REJECTABLE
from streamstack.language.loading.arguments import ArgumentReader, Faults, describe
from streamstack.language.loading.steps import StepReader
from streamstack.language.nodes import Document, Mapping, Node, Scalar, Sequence
from streamstack.language.settings import Streaming, parse_streaming
from streamstack.spec import Group, ListOf, fields_by_name, is_null

_NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a document inherits.

    Args:
        streaming: Defaults of `streaming`: those of the settings, changed by each group from the outermost on.
        prefix: Joined prefixes of the path.
        keys: Keys with their values, as the nearest group has them.
        groups: The groups themselves.
    """

    streaming: Streaming
    prefix: str = ""
    keys: tuple[tuple[Scalar, Node], ...] = ()
    groups: tuple[GroupDefinition, ...] = field(default=(), compare=False)

    def of(self, file: str, groups: Iterable[GroupDefinition]) -> Inheritance:
        """Return what a file inherits from the groups of the folders around it."""
        folder = PurePath(file).parent
        around = [each for each in groups if folder.is_relative_to(PurePath(each.mark.file).parent)]
        inherited = self
        for group in sorted(around, key=lambda each: len(PurePath(each.mark.file).parts)):
            inherited = inherited._below(group)
        return inherited

    def _below(self, group: GroupDefinition) -> Inheritance:
        node = group.root.get("streaming")
        streaming = parse_streaming(node, self.streaming)[0] if isinstance(node, Mapping) else self.streaming
        own = tuple((key, value) for key, value in group.root.items if key.text in INHERITED and not is_null(value))
        keys = inherit(Mapping(own, group.mark), self.keys).items
        return Inheritance(streaming, self.prefix + group.path, keys, (*self.groups, group))

    def apply(self, root: Mapping) -> Mapping:
        """Return the keys of an endpoint with those that it inherits, without those that it rejects."""
        return without_rejections(inherit(root, self.keys) if self.keys else root)


def is_group(document: Document) -> bool:
    """Return whether a document is a group: groups are read before what inherits from them."""
    kind = document.root.get("kind") if isinstance(document.root, Mapping) else None
    return isinstance(kind, Scalar) and kind.text == GroupDefinition.kind


def inherit(root: Mapping, keys: Iterable[tuple[Scalar, Node]]) -> Mapping:
    """Return a mapping with those keys that it lacks, and with those headers."""
    items = {key.text: (key, value) for key, value in root.items if not is_null(value) or key.text not in INHERITED}
    for key, value in keys:
        own = items.setdefault(key.text, (key, value))[1]
        if key.text == "headers" and own is not value and isinstance(own, Mapping) and isinstance(value, Mapping):
            names = {name.text.lower() for name, _ in own.items}
            others = tuple(pair for pair in value.items if pair[0].text.lower() not in names)
            items["headers"] = (key, replace(own, items=own.items + others))
    return replace(root, items=tuple(items.values()))


def without_rejections(root: Mapping) -> Mapping:
    """Return a mapping without the keys whose value is `none`, where that is not read elsewhere."""
    items = tuple((key, value) for key, value in root.items if not _rejects(key, value))
    return root if len(items) == len(root.items) else replace(root, items=items)


def _rejects(key: Scalar, value: Node) -> bool:
    return key.text in REJECTABLE and isinstance(value, Scalar) and value.value == _NONE


class CallReader:
    """Reads `before` and `after`: as the steps that they stand for, with their own places in the file."""

    def __init__(self, faults: Faults, arguments: ArgumentReader, steps: StepReader) -> None:
        self._faults = faults
        self._arguments = arguments
        self._steps = steps

    def around(self, root: Mapping, own: Stack) -> Stack:
        """Return a stack with the calls before it, those of `after` first: they run however the others end."""
        after = [
            _mapping(call.mark, after=_mapping(call.mark, do=Sequence((call,), call.mark)))
            for call in self._calls(root, "after")
        ]
        before = self._calls(root, "before")
        added = [
            self._steps.read_stack(Sequence(tuple(calls), root.mark), path)
            for calls, path in ((after, "after"), (before, "before"))
            if calls
        ]
        steps = tuple(step for stack in added if stack is not None for step in stack.steps)
        return replace(own, steps=steps + own.steps) if steps else own

    def _calls(self, root: Mapping, name: str) -> list[Mapping]:
        node = root.get(name)
        if is_null(node) or node is None:
            return []
        return [
            call for item in (node.items if isinstance(node, Sequence) else (node,)) if (call := self._call(item, name))
        ]

    def _call(self, node: Node, name: str) -> Mapping | None:
        """Return the step that a function's name, or a mapping with it, stands for."""
        if isinstance(node, Scalar) and isinstance(node.value, str) and "<<" not in node.text:
            return _mapping(node.mark, call=node)
        if not isinstance(node, Mapping):
            message = f"`{name}` names functions, and can't hold {describe(node)}"
            hint = "write [name, name], or [{function: name, with: {...}}]"
            self._faults.add("wrong-type", node.mark, message, hint)
            return None
        form = fields_by_name(DOCUMENTS["group"])[name].type
        assert isinstance(form, ListOf)
        assert isinstance(form.item, Group)
        known, _ = self._arguments.as_meant(form.item.parameters, node, f"`{name}`")
        self._arguments.require(form.item.parameters, {key.text for key, _ in known.items}, node.mark, f"`{name}`")
        called = Mapping(tuple(pair for pair in known.items if pair[0].text != "as"), node.mark)
        step = _mapping(node.mark, call=called)
        beside = tuple(pair for pair in known.items if pair[0].text == "as")
        if beside:  # not each endpoint has to read it
            silent = Scalar("unused-variable", node.mark, "unused-variable")
            beside += _mapping(node.mark, allow=Sequence((silent,), node.mark)).items
        return replace(step, items=step.items + beside) if called.get("function") is not None else None


def _mapping(mark: Mark, **items: Node) -> Mapping:
    return Mapping(tuple((Scalar(key, value.mark, key), value) for key, value in items.items()), mark)
