"""YAML documents as nodes, each with its mark."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import field
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final, Literal

from streamstack.errors import Mark, Replacement, fast_dataclass

_BREAK: Final = re.compile(r"\r\n|\r|\n")
_WHITE: Final = " \t\r\n"
_ESCAPE: Final = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|\r\n|[\s\S])")
_HEADER: Final = re.compile(r"[|>][-+0-9]*[ \t]*(?:#[^\r\n]*)?(?:\r\n|\r|\n|$)")


class SourceText:
    """The text of a file as it is parsed, and where its characters stand in what was written.

    The two differ only where a YAML trap was repaired: quotes put in so that the rest can be read.
    """

    __slots__ = ("_origin", "_starts", "file", "text", "written")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.written = text
        self.text = text
        self._origin: list[int] | None = None
        self._starts: list[int] | None = None

    @property
    def repaired(self) -> bool:
        return self._origin is not None

    def quote(self, start: int, end: int, quoted: str, shed: int = 0) -> SourceText:
        """Return the source with text[start:end] put in quotes, once it has shed its own."""
        old = self._origin if self._origin is not None else list(range(len(self.text) + 1))
        places: list[int] = []
        at, sign, second = start + shed, "'" if quoted[0] == "'" else "\\", False
        for char in quoted[1:-1]:
            places.append(old[at])
            if shed and sign == "\\":  # escapes were there before, some were put in
                at += char == self.text[at]
            else:  # of a pair that escapes one character, both stand for it
                second = char == sign and not second
                at += not second
        made = SourceText(self.file, self.written)
        made.text = self.text[:start] + quoted + self.text[end:]
        made._origin = [*old[:start], old[start], *places, old[max(end - 1, start)], *old[end:]]
        made._starts = self._starts
        return made

    def blank(self, end: int) -> SourceText:
        """Return the source with everything before ``end`` blanked, lines kept."""
        made = SourceText(self.file, self.written)
        made.text = re.sub(r"[^\r\n]", " ", self.text[:end]) + self.text[end:]
        made._origin = self._origin
        made._starts = self._starts
        return made

    def origin(self, index: int) -> int:
        """Return the index in what the author wrote."""
        if self._origin is None:
            return index
        return self._origin[min(index, len(self._origin) - 1)]

    def mark(self, index: int) -> Mark:
        """Return the place of a character of ``text``."""
        return self.mark_written(self.origin(index))

    def mark_written(self, index: int) -> Mark:
        """Return the place of a character of ``written``."""
        starts = self._starts
        if starts is None:
            starts = self._starts = [0, *(m.end() for m in _BREAK.finditer(self.written))]
        line = bisect_right(starts, index)
        return Mark(self.file, line, index - starts[line - 1] + 1)

    def is_written(self, start: int, end: int) -> bool:
        """Tell whether text[start:end] stands in the file as it is, without a repair in it."""
        return self.text[start:end] == self.written[self.origin(start) : self.origin(end - 1) + 1]

    def replacement(self, start: int, end: int, text: str) -> Replacement:
        """Return what puts a text in the place of text[start:end], where that was written."""
        first = self.mark(start)
        last = self.mark_written(self.origin(end - 1) + 1) if end > start else first
        return Replacement(first.line, first.column, last.line, last.column, text)

    def line(self, index: int) -> tuple[int, int]:
        """Return start and end of the line of ``text`` around a character, without its break."""
        index = min(max(index, 0), len(self.text))
        start = max(self.text.rfind("\n", 0, index), self.text.rfind("\r", 0, index)) + 1
        found = _BREAK.search(self.text, index)
        return start, found.start() if found else len(self.text)


def locate(text: str, start: int, end: int, style: str, value: str, offset: int) -> int:
    """Return the index in ``text`` of character ``offset`` of a scalar's value.

    Every style of YAML keeps the characters that are not white space, and their order, so these are
    counted; white space stands beside them.
    """
    offset = min(max(offset, 0), len(value))
    inside = start + (style in ("single", "double"))
    if inside + len(value) <= end and text.startswith(value, inside):
        return inside + offset  # as most are: on one line, and without escapes
    places = _places(text, start, end, style)
    wanted = _counts(value)[offset]
    if offset < len(value) and value[offset] not in _WHITE:
        return places[wanted][0] if wanted < len(places) else start
    if wanted:
        back = offset - 1
        while value[back] in _WHITE:
            back -= 1
        after = sum(places[wanted - 1]) if wanted <= len(places) else start
        return min(after + offset - 1 - back, max(end, start))
    lead = len(value) - len(value.lstrip(_WHITE))
    return max(start, places[0][0] - (lead - offset)) if places else start


# A text with many bindings asks for many places in it, one after the other.
@lru_cache(maxsize=4)
def _places(text: str, start: int, end: int, style: str) -> list[tuple[int, int]]:
    """List the index and width, in ``text``, of a scalar's characters that are not white space."""
    if style == "plain":
        return list(_blackness(text, start, end))
    if style == "single":
        return list(_single(text, start + 1, end - 1))
    if style == "double":
        return list(_double(text, start + 1, end - 1))
    header = _HEADER.match(text, start)
    return list(_blackness(text, header.end() if header else start, end))


@lru_cache(maxsize=4)
def _counts(value: str) -> list[int]:
    """Count, before each character and at the end, those that are not white space."""
    return list(accumulate((char not in _WHITE for char in value), initial=0))


def _blackness(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    return ((at, 1) for at in range(start, end) if text[at] not in _WHITE)


def _single(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    at = start
    while at < end:
        width = 2 if text.startswith("''", at) else 1
        if text[at] not in _WHITE:
            yield at, width
        at += width


def _double(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    at = start
    while at < end:
        width = 1
        black = text[at] not in _WHITE
        if text[at] == "\\" and (found := _ESCAPE.match(text, at)):
            width = found.end() - at
            black = not _writes_white(found.group()[1:])
        if black:
            yield at, width
        at += width


def _writes_white(escape: str) -> bool:
    """Tell whether an escape sequence (without its backslash) stands for white space or nothing."""
    if escape[0] in "xuU" and len(escape) > 1:
        return int(escape[1:], 16) in (9, 10, 13, 32)
    return escape[0] in "tnr \t\r\n"


# ------------------------------------------------------------------------------------------- nodes


Style = Literal["plain", "single", "double", "literal", "folded"]


@fast_dataclass()
class Scalar:
    """One value that is not a collection. ``text`` is its text before YAML made a number of it.

    ``start`` and ``end`` are its place in the text of ``source``; a scalar made by hand has none.
    """

    value: bool | int | float | str | None
    mark: Mark
    text: str = ""
    style: Style = "plain"
    source: SourceText | None = field(default=None, repr=False, compare=False)
    start: int = field(default=0, repr=False, compare=False)
    end: int = field(default=0, repr=False, compare=False)

    def mark_at(self, offset: int) -> Mark:
        """Return the place in the file of character ``offset`` of the text, whatever its style."""
        if self.source is None:
            return Mark(self.mark.file, self.mark.line, self.mark.column + offset)
        return self.source.mark(self.index_at(offset))

    def replacement(self, start: int, end: int, text: str) -> Replacement | None:
        """Return what puts a text in the place of the characters from one offset of the text up to another.

        None where that can't be written: in a value whose quotes are not in the file.
        """
        source = self.source
        if source is None or (source.repaired and not source.is_written(self.start, self.end)):
            return None
        if self.style == "single":
            text = text.replace("'", "''")
        elif self.style == "double":
            text = text.replace("\\", "\\\\").replace('"', '\\"')
        elif self.style == "plain" and (": " in text or " #" in text):
            return None
        return source.replacement(self.index_at(start), self.index_at(end), text)

    def rewrite(self, text: str) -> Replacement | None:
        """Return what puts YAML in the place of the whole value, quotes included; None where that can't be written."""
        source = self.source
        if source is None or self.style not in ("plain", "single", "double"):
            return None
        if source.repaired and not source.is_written(self.start, self.end):
            return None
        return source.replacement(self.start, self.end, text)

    def index_at(self, offset: int) -> int:
        """Return the index in the source's text of character ``offset`` of the text."""
        if self.source is None:
            return offset
        text = self.source.text
        return locate(text, self.start, self.end, self.style, self.text, offset)


@fast_dataclass()
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    mark: Mark


@fast_dataclass()
class Mapping:
    """An object. Its keys are text as written; each stands once."""

    items: tuple[tuple[Scalar, Node], ...]
    mark: Mark

    def get(self, key: str) -> Node | None:
        """Return the value under a key, None where there is none."""
        for name, node in self.items:
            if name.text == key:
                return node
        return None

    def key(self, key: str) -> Scalar | None:
        """Return the key itself, for its place."""
        for name, _ in self.items:
            if name.text == key:
                return name
        return None


Node = Scalar | Sequence | Mapping


@fast_dataclass()
class Document:
    """One document of a file; ``index`` counts them from 0."""

    file: str
    root: Node
    index: int


def plain(node: Node) -> Any:
    """Return a node as bare Python data."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key.text: plain(value) for key, value in node.items}


def build(value: Any, mark: Mark) -> Node:
    """Return bare Python data as a node, the opposite of `plain`; every part of it has the same place."""
    if isinstance(value, dict):
        return Mapping(tuple((Scalar(name, mark, name), build(each, mark)) for name, each in value.items()), mark)
    if isinstance(value, (list, tuple)):
        return Sequence(tuple(build(each, mark) for each in value), mark)
    return Scalar(value, mark, str(value))
