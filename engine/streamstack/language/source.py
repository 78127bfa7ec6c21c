"""YAML text to documents: data in which every key and value knows its place.

The only module that imports yaml. It reads the parser's events and not its nodes, so that the nesting, the aliases and the
types are decided here (YAML 1.2's core schema), and what came before an error is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml
from yaml import events

from streamstack.errors import Diagnostic, Mark
from streamstack.language import traps
from streamstack.language.findings import find
from streamstack.language.nodes import Document, Mapping, Node, Scalar, Sequence, Style, plain
from streamstack.language.positions import SourceText
from streamstack.language.repairs import Reading, repair
from streamstack.language.syntax import refuse_characters, syntax_fault

__all__ = ["Document", "Mapping", "Node", "Scalar", "Sequence", "plain", "read"]

#: Bounds of a file: characters, levels of nesting, values that aliases may stand for, documents that may be broken.
MOST_CHARACTERS: Final = 1_000_000
MOST_LEVELS: Final = 50
MOST_ALIASED: Final = 1000
MOST_BROKEN: Final = 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STYLES: Final[dict[str | None, Style]] = {
    "'": "single",
    '"': "double",
    "|": "literal",
    ">": "folded",
}
_WORDS: Final[dict[str, bool | float | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NEXT_DOCUMENT: Final = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_NUMERIC: Final = frozenset("+-.0123456789")
_LONGEST_NUMBER: Final = 400


def read(text: str, file: str) -> tuple[list[Document], list[Diagnostic]]:
    """Return the documents of a YAML text, and what is wrong with it, in the order of the text.

    Never raises, whatever the text. A document that is broken is left out; one with a YAML trap is read as if the
    quotes it needs were there. ``file`` is the name that places carry.
    """
    source = SourceText(file, text.removeprefix("\ufeff"))
    if len(text) > MOST_CHARACTERS:
        return [], [
            find(
                "file-too-large",
                source.mark(0),
                f"The file has more than {MOST_CHARACTERS:,} characters.",
            )
        ]
    refused = refuse_characters(source)
    if refused is not None:
        return [], [refused]
    reading = _Reader(source).read()
    findings: list[Diagnostic] = []
    if reading.traps or reading.faults:
        reading, findings = repair(reading, lambda repaired: _Reader(repaired).read())
    return reading.documents, sorted({*findings, *reading.findings})


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come."""

    mark: Mark
    start: int
    flow: bool
    mapping: bool
    anchor: str | None
    count: int
    items: list[Any] = field(default_factory=list)
    keys: dict[str, Mark] = field(default_factory=dict)
    key: Scalar | None = None
    dropped: bool = False
    valueless: list[Scalar] = field(default_factory=list)
    previous: Scalar | None = None

    @property
    def awaits_key(self) -> bool:
        return self.mapping and self.key is None


def _parse(text: str) -> Iterator[Any]:
    """Give the parser's events (yaml.parse asks the parser twice for each)."""
    loader = _LOADER(text)
    try:
        event = loader.get_event()
        while event is not None:
            yield event
            event = loader.get_event()
    finally:
        loader.dispose()


class _Abandoned(Exception):
    """A document that can't be read on; ``at`` is where in the text."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


class _Reader:
    """One pass over a source."""

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.documents: list[Document] = []
        self.findings: list[Diagnostic] = []
        self.traps: list[traps.Trap] = []
        self.faults: list[int] = []
        self._exact = not source.repaired
        self._index = 0

    def read(self) -> Reading:
        """Read all documents; after a broken one, go on with the next."""
        begin = 0
        for _ in range(MOST_BROKEN):
            following = self._read_from(begin)
            if following is None:
                break
            begin = following
            self._index += 1
        return Reading(self.source, self.documents, self.findings, self.traps, self.faults)

    def _read_from(self, begin: int) -> int | None:
        """Read documents from an index on; return where to go on after a broken one, None at the end."""
        source = self.source.blank(begin) if begin else self.source
        try:
            self._read_documents(_parse(source.text))
            return None
        except _Abandoned as abandoned:
            at = abandoned.at
        except yaml.MarkedYAMLError as error:
            mark: Any = error.problem_mark or error.context_mark
            at = min(mark.index if mark else 0, len(source.text))
            begun: Any = error.context_mark
            opened = self.source.mark(begun.index) if begun else None
            self.faults.append(at)
            self.findings.append(
                syntax_fault(self.source, at, error.problem or "", error.context or "", opened)
            )
        found = _NEXT_DOCUMENT.search(source.text, max(at, begin + 3 if begin else 0))
        return found.start() if found else None

    def _mark(self, mark: Any) -> Mark:
        if self._exact:
            return Mark(self.source.file, mark.line + 1, mark.column + 1)
        return self.source.mark(mark.index)

    def _read_documents(self, stream: Iterator[Any]) -> None:
        opened: list[_Open] = []
        anchors: dict[str, tuple[Node, int] | None] = {}
        count = aliased = 0
        node: Node | None = None
        for event in stream:
            kind = type(event)
            top = opened[-1] if opened else None
            if kind is events.ScalarEvent:
                count += 1
                node = self._scalar(event, top)
                if event.anchor is not None:
                    anchors[event.anchor] = (node, 1)
                if top is not None and top.awaits_key:
                    self._take_key(top, node)
                    continue
            elif kind is events.MappingStartEvent or kind is events.SequenceStartEvent:
                count += 1
                self._open(event, opened, count)
                if event.anchor is not None:
                    anchors[event.anchor] = None
                continue
            elif kind is events.MappingEndEvent or kind is events.SequenceEndEvent:
                closed = opened.pop()
                top = opened[-1] if opened else None
                node = self._close(closed, top)
                if closed.anchor is not None:
                    anchors[closed.anchor] = (node, count - closed.count + 1)
                if top is not None and top.awaits_key:
                    self._refuse_key(top, closed)
                    continue
            elif kind is events.AliasEvent:
                node, size = self._alias(event, anchors)
                count += size
                aliased += size
                if aliased > MOST_ALIASED:
                    self._abandon(
                        "too-many-aliases",
                        event,
                        f"The aliases stand for more than {MOST_ALIASED} values.",
                    )
                if len(opened) + _height(node) > MOST_LEVELS + 1:
                    self._abandon(
                        "too-deep", event, f"This alias nests values more than {MOST_LEVELS} deep."
                    )
                if top is not None and top.awaits_key:
                    top.key = Scalar("", node.mark)
                    self._drop(
                        top,
                        find("bad-key", self._mark(event.start_mark), "An alias can't be a key."),
                    )
                    continue
            elif kind is events.DocumentEndEvent:
                if node is not None and not (
                    isinstance(node, Scalar) and node.style == "plain" and not node.text
                ):
                    self.documents.append(Document(self.source.file, node, self._index))
                self._index += 1
                continue
            else:
                anchors, count, aliased, node = {}, 0, 0, None
                continue
            if top is None:
                continue
            if top.mapping:
                self._take_value(top, node)
            else:
                top.items.append(node)

    def _open(self, event: Any, opened: list[_Open], count: int) -> None:
        mapping = type(event) is events.MappingStartEvent
        mark = self._mark(event.start_mark)
        if event.tag is not None:
            self._refuse_tag(event)
        if len(opened) >= MOST_LEVELS:
            self._abandon("too-deep", event, f"Values are nested more than {MOST_LEVELS} deep.")
        opened.append(
            _Open(
                mark, event.start_mark.index, bool(event.flow_style), mapping, event.anchor, count
            )
        )

    def _close(self, top: _Open, parent: _Open | None) -> Node:
        if not top.mapping:
            return Sequence(tuple(top.items), top.mark)
        if top.valueless and not (parent is not None and parent.flow and parent.awaits_key):
            self._refuse_valueless(top)
        return Mapping(tuple(top.items), top.mark)

    def _scalar(self, event: Any, top: _Open | None) -> Scalar:
        text: str = event.value
        style = _STYLES.get(event.style, "plain")
        mark = self._mark(event.start_mark)
        if event.tag is not None:
            self._refuse_tag(event)
        value: bool | int | float | str | None = text
        is_key = top is not None and top.awaits_key
        if style == "plain" and not is_key:
            value = self._resolve(text, mark)
        start, end = event.start_mark.index, event.end_mark.index
        scalar = Scalar(value, mark, text, style, self.source, start, end)
        if style == "plain" and not is_key and "<<" in text:
            self._trap(traps.cut_value(self.source, scalar, flow=top is not None and top.flow))
        return scalar

    def _resolve(self, text: str, mark: Mark) -> bool | int | float | str | None:
        """Return the value of a plain scalar by YAML 1.2's core schema."""
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in _NUMERIC:
            return text
        if len(text) > _LONGEST_NUMBER:
            if _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text):
                self.findings.append(
                    find("yaml-syntax", mark, "The number is too long.", "put quotes around it")
                )
            return text
        if _INTEGER.fullmatch(text):
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        return float(text.replace(".", "", 1)) if _INFINITE.fullmatch(text) else text

    def _take_key(self, top: _Open, key: Scalar) -> None:
        """Begin an entry of a mapping; one whose key is refused is dropped when its value comes."""
        top.key = key
        text, style = key.text, key.style
        before = top.keys.get(text)
        if before is not None:
            message = f"The key `{text}` stands twice here; the first is in line {before.line}."
            self._drop(top, find("duplicate-key", key.mark, message))
            return
        top.keys[text] = key.mark
        if style == "plain" and text == "<<" and traps.has_colon(self.source, key):
            self._drop(
                top, find("merge-key", key.mark, "The merge key `<<:` is not part of the language.")
            )
        elif "<<" in text or ">>" in text:
            cut = traps.cut_value(self.source, key, flow=top.flow) if style == "plain" else None
            self._trap(cut or traps.binding_key(self.source, key, flow=top.flow))
            top.dropped = True
        elif not text and style == "plain":
            self._drop(top, find("bad-key", key.mark, "The key before the `:` is missing."))

    def _take_value(self, top: _Open, node: Node) -> None:
        key, top.key = top.key, None
        if top.dropped or key is None:
            top.dropped = False
            return
        if top.flow:
            text = node if isinstance(node, Scalar) and node.style == "plain" else None
            if text is not None and not text.text and not traps.has_colon(self.source, key):
                top.valueless.append(key)
                return
            if top.valueless:
                self._refuse_valueless(top)
            top.previous = text if text is not None and isinstance(text.value, str) else None
        top.items.append((key, node))

    def _refuse_valueless(self, top: _Open) -> None:
        message = traps.describe_valueless(self.source, top.previous, top.valueless)
        hint = "give the key a value, or quote the text it belongs to"
        self.findings.append(find("yaml-quotes", top.valueless[0].mark, message, hint))
        top.valueless = []

    def _refuse_key(self, parent: _Open, key: _Open) -> None:
        """Refuse a collection that stands where a key must, such as the inner braces of `{{name}}`."""
        told = (
            traps.describe_mustache(self.source, parent.start)
            if parent.flow and key.mapping
            else None
        )
        parent.key = Scalar("", key.mark)
        if told:
            self._drop(
                parent, find("yaml-quotes", parent.mark, told, "write a binding as <<name>>")
            )
        else:
            what = "mapping" if key.mapping else "list"
            self._drop(parent, find("bad-key", key.mark, f"A {what} can't be a key."))

    def _drop(self, top: _Open, finding: Diagnostic) -> None:
        self.findings.append(finding)
        top.dropped = True

    def _trap(self, trap: traps.Trap | None) -> None:
        if trap is not None:
            self.traps.append(trap)

    def _alias(self, event: Any, anchors: dict[str, tuple[Node, int] | None]) -> tuple[Node, int]:
        name = event.anchor
        known = anchors.get(name)
        if known is not None:
            return known
        mark = self._mark(event.start_mark)
        if name in anchors:
            message = f"The alias `*{name}` stands inside the value that it names."
            self.findings.append(find("recursive-alias", mark, message))
        else:
            self.findings.append(
                find("unknown-alias", mark, f"No anchor `&{name}` stands before this alias.")
            )
        return Scalar(None, mark), 1

    def _refuse_tag(self, event: Any) -> None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!", 1)
        message = f"The tag `{tag[:60]}` is not part of the language."
        self.findings.append(find("yaml-tag", self._mark(event.start_mark), message))

    def _abandon(self, code: str, event: Any, message: str) -> NoReturn:
        self.findings.append(find(code, self._mark(event.start_mark), message))
        raise _Abandoned(event.start_mark.index)


def _height(node: Node) -> int:
    """Count the levels of a node; a scalar has one."""
    if isinstance(node, Scalar):
        return 1
    inner = node.items if isinstance(node, Sequence) else [value for _, value in node.items]
    return 1 + max(map(_height, inner), default=0)
