"""Write what was observed in tests into their files, in place of what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from streamstack.language import nodes
from streamstack.language.cases import Case, Expect
from streamstack.language.nodes import Node, Scalar
from streamstack.language.rewriting import Content, Duration, Holds, Rewriter, UnwritableError, apply
from streamstack.language.test_files import CHUNK_KEYS, UPDATE
from streamstack.spec import is_null

#: What is written of a chunk unless others of its list have more, or less.
_USUAL: Final = frozenset({"content", "event", "metadata"})
#: Keys of lists, which the word `update` asks for.
_LISTS: Final = ("chunks", "events")

#: By key of `expect`: its values; of chunks, mappings with what they have of `content event id metadata at`.
Observed = Mapping[str, Any]


def updated(text: str, changes: Iterable[tuple[Case, Sequence[Observed]]], holds: Holds) -> str:
    """Return the text of a test file with what was observed; comments, layout and what holds stay.

    Args:
        text: The text that the tests were read from.
        changes: Tests with the values to write, for each of their exchanges. Times are seconds.
        holds: Returns whether an observed value meets an expected one.
    """
    rewriter = Rewriter(text, holds, trees=("expect", *_LISTS))
    for case, observed in changes:
        written = case.node.get("requests") if isinstance(case.node, nodes.Mapping) else None
        holders = written.items if isinstance(written, nodes.Sequence) else (case.node,)
        for exchange, holder, values in zip(case.exchanges, holders, observed, strict=True):
            if values and isinstance(holder, nodes.Mapping):
                _update(rewriter, holder, exchange.expect, values, flow=rewriter.is_flow(holder))
    return apply(text, rewriter.replacements)


def _update(rewriter: Rewriter, holder: nodes.Mapping, expect: Expect, values: Observed, *, flow: bool) -> None:
    key, node = holder.key("expect"), holder.get("expect")
    whole = {name: _fresh_list(value) if name == "chunks" else _timed(name, value) for name, value in values.items()}
    if key is None or node is None:
        rewriter.insert(holder, {"expect": whole})
        return
    if not isinstance(node, nodes.Mapping) or not node.items:
        rewriter.write(key, node, whole, flow=flow)
        return
    flow = flow or rewriter.is_flow(node)
    added = {name: value for name, value in whole.items() if node.key(name) is None}
    for name, value in values.items():
        inner, old = node.key(name), node.get(name)
        if inner is None or old is None:
            continue
        if is_null(old) or (name in _LISTS and isinstance(old, Scalar) and old.value == UPDATE):
            rewriter.write(inner, old, whole[name], flow=flow)
            continue
        try:
            _rewrite(rewriter, inner, old, name, getattr(expect, name), value, flow=flow)
        except UnwritableError:
            continue  # an alias: what it stands for is written elsewhere, and may hold there
    if added:
        rewriter.insert(node, added)


def _rewrite(rewriter: Rewriter, key: Scalar, node: Node, name: str, expected: Any, actual: Any, *, flow: bool) -> None:
    if name == "chunks" and isinstance(node, nodes.Sequence):
        keys = _keys_of(node)

        def view(item: Node | None, wanted: Any, chunk: Any) -> tuple[Any, Any]:
            if item is None:
                return None, _fresh(chunk, keys)
            if not isinstance(item, nodes.Mapping) or not _is_chunk(item):
                return wanted["content"], _content(chunk)
            parts = _USUAL | {part.text for part, _ in item.items}
            return wanted, {part: _timed(part, each) for part, each in chunk.items() if part in parts}

        rewriter.rewrite(key, node, expected, actual, flow=flow, view=view)
        return
    if name == "error" and isinstance(node, Scalar):
        expected = expected.get("code") if isinstance(expected, Mapping) and "code" in expected else expected
        actual = actual["code"] if isinstance(actual, Mapping) else False
    rewriter.rewrite(key, node, expected, _fresh_list(actual) if name == "chunks" else _timed(name, actual), flow=flow)


def _timed(name: str, value: Any) -> Any:
    return Duration(value) if name in ("at", "elapsed") else value


def _is_chunk(node: nodes.Mapping) -> bool:
    keys = {key.text for key, _ in node.items}
    return bool(keys) and keys <= CHUNK_KEYS


def _keys_of(node: nodes.Sequence) -> frozenset[str]:
    """Return what the chunks of a list are written with."""
    if not node.items:
        return _USUAL
    found = [[key.text for key, _ in each.items] for each in node.items if isinstance(each, nodes.Mapping)]
    return frozenset({"content"}.union(*(keys for keys in found if {*keys} <= CHUNK_KEYS)))


def _fresh_list(chunks: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [_fresh(chunk, _USUAL) for chunk in chunks]


def _fresh(chunk: Mapping[str, Any], keys: frozenset[str]) -> Any:
    """Return what is written of a chunk: its content alone, where it has nothing else that is written."""
    shown = {part: _timed(part, value) for part, value in chunk.items() if part in keys}
    return _content(chunk) if shown.keys() == {"content"} else shown


def _content(chunk: Mapping[str, Any]) -> Any:
    content = chunk.get("content")
    if isinstance(content, Mapping) and content and content.keys() <= CHUNK_KEYS:
        return Content(content)
    return content
