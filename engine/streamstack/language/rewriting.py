"""Write values into YAML files in place of others: layout, comments and what still holds stay."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from streamstack.errors import Replacement
from streamstack.language import nodes
from streamstack.language.nodes import Node, Scalar, SourceText
from streamstack.language.source import resolve
from streamstack.language.values import show_duration, to_json, to_text

_BREAK: Final = re.compile(r"\r\n|\r|\n")
#: Where a line of YAML is broken, if it can be.
_WIDTH: Final = 120
#: Pairs of items that are compared where lists differ in their middle.
_MOST_COMPARED: Final = 40_000
#: A text that needs no quotes wherever it stands.
_PLAIN: Final = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.;=()+*%-]*(?: [A-Za-z0-9_/.;=()+*%-]+)*")
#: Characters that a double-quoted text can't hold as they are, beside those that JSON escapes.
_ESCAPED: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
#: What begins a binding or a template.
_OPENING: Final = re.compile(r"<(?=[<%#])")

#: Tells whether an actual value is what was expected.
Holds = Callable[[Any, Any], bool]
#: Returns what an item of a list is compared with and written as, given its node (None for a new one), the expected
#: item and the actual one.
View = Callable[[Node | None, Any, Any], tuple[Any, Any]]


class Duration(float):
    """Seconds that are written as a duration: 0.02 is `20ms`."""


class Content(dict[str, Any]):
    """An object that is the content of a chunk, and written below that key since it looks like a chunk."""


class UnwritableError(Exception):
    """A value that can't be written in its place: an alias, or something that has an anchor."""


def apply(text: str, replacements: Iterable[Replacement]) -> str:
    """Return a text with its replacements written; of two that overlap, the first."""
    offset = len(text) - len(text.removeprefix("\ufeff"))  # columns do not count it
    starts = [offset, *(found.end() for found in _BREAK.finditer(text))]
    pieces: list[str] = []
    end = 0
    for each in sorted(replacements, key=lambda one: (one.line, one.column, -one.end_line, -one.end_column)):
        first, last = starts[each.line - 1] + each.column - 1, starts[each.end_line - 1] + each.end_column - 1
        if first >= end:
            pieces += (text[end:first], each.text)
            end = last
    return "".join([*pieces, text[end:]])


def to_yaml(value: Any) -> str:
    """Return a value on one line of YAML, as it can stand anywhere in a test file."""
    if isinstance(value, Duration):
        return show_duration(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Content):
        return f"{{content: {to_yaml(dict(value))}}}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(str(name))}: {to_yaml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_yaml, value)) + "]"
    if value is None or isinstance(value, (bool, int, float, Decimal)):
        return to_json(value).decode()
    return _quoted(to_text(value))


def _quoted(text: str) -> str:
    # What YAML would read as something else is quoted, and so is the word that asks for an update.
    if _PLAIN.fullmatch(text) and isinstance(resolve(text), str) and text != "update":
        return text
    text = escaped(text)
    if "'" not in text and ('"' in text or "\\" in text) and text.isprintable():
        return f"'{text}'"
    return double_quoted(text)


def escaped(text: str) -> str:
    """Return a text in which what begins a binding or a template is escaped."""
    return _OPENING.sub(r"\\<", text)


def double_quoted(text: str) -> str:
    """Return a text between double quotes, as JSON and YAML read it alike."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


class Rewriter:
    """Collect the replacements that write other values into a file.

    Args:
        text: The text of the file.
        holds: Returns whether an actual value meets an expected one, as it was read. What does is left as it is.
        trees: Keys whose items or keys have lines of their own where they are written for the first time.
    """

    def __init__(self, text: str, holds: Holds, trees: Collection[str] = ()) -> None:
        self._text = text.removeprefix("\ufeff")
        self._source = SourceText("", self._text)
        self._starts = [0, *(found.end() for found in _BREAK.finditer(self._text))]
        self._break = "\r\n" if "\r\n" in self._text else "\n"
        self._holds = holds
        self._trees = trees
        self.replacements: list[Replacement] = []

    # ------------------------------------------------------------------------------- places in the text

    def _index(self, node: Node) -> int:
        if isinstance(node, Scalar) and node.source is not None:
            return node.source.origin(node.start)
        return self._starts[node.mark.line - 1] + node.mark.column - 1

    def _end(self, node: Node) -> int:
        """Return the index after a value. Raises UnwritableError for one that is not where it is written."""
        start = self._index(node)
        if isinstance(node, Scalar):
            if node.source is None or node.end <= node.start:
                return start
            end = node.source.origin(node.end - 1) + 1
            if node.style in ("literal", "folded"):
                end = start + len(self._text[start:end].rstrip())
            return end
        if self._text[start : start + 1] in ("&", "!", "*"):
            raise UnwritableError
        children = node.items if isinstance(node, nodes.Sequence) else [each for pair in node.items for each in pair]
        end = start + self.is_flow(node)
        for child in children:
            if self._index(child) < end:
                raise UnwritableError  # an alias
            end = self._end(child)
        return self._skip(end, ",") + 1 if self.is_flow(node) else end

    def is_flow(self, node: Node) -> bool:
        """Return whether a list or mapping is written between brackets."""
        return not isinstance(node, Scalar) and self._text[self._index(node) : self._index(node) + 1] in ("[", "{")

    def _skip(self, at: int, more: str = "") -> int:
        """Return the index of what comes after white space, comments and some characters ``more``."""
        text = self._text
        while at < len(text):
            if text[at] in " \t\r\n" or text[at] in more:
                at += 1
            elif text[at] == "#" and text[at - 1] in " \t\r\n":
                found = _BREAK.search(text, at)
                at = found.start() if found else len(text)
            else:
                break
        return at

    def _line_start(self, at: int) -> int:
        return max(self._text.rfind("\n", 0, at), self._text.rfind("\r", 0, at)) + 1

    def _line_end(self, at: int) -> int:
        found = _BREAK.search(self._text, at)
        return found.start() if found else len(self._text)

    def _put(self, start: int, end: int, text: str) -> None:
        self.replacements.append(self._source.replacement(start, end, text))

    # ------------------------------------------------------------------------------------------- values

    def rewrite(
        self, key: Scalar, node: Node, expected: Any, actual: Any, *, flow: bool, view: View | None = None
    ) -> None:
        """Write an actual value in the place of an expected one; what holds inside it stays.

        Raises UnwritableError, with nothing written, where that can't be done.

        Args:
            key: The key, whose value it is.
            node: The value.
            expected: The value as it was read.
            actual: What to write.
            flow: Whether the key stands between braces.
            view: Of a list, what its items are compared and written as.
        """
        before = len(self.replacements)
        try:
            self._value(self._end(key) + 1, node, expected, actual, view)
        except UnwritableError:
            del self.replacements[before:]
            raise
        lines = isinstance(node, Scalar) or (isinstance(node, nodes.Sequence) and not node.items)
        if lines and not flow and _is_list(actual) and actual and len(self.replacements) > before:
            del self.replacements[before:]
            self.write(
                key, node, actual if view is None else [view(None, None, each)[1] for each in actual], flow=False
            )

    def write(self, key: Scalar, node: Node, actual: Any, *, flow: bool) -> None:
        """Write the value of a key that has none to keep. Unless between braces, items and keys have lines."""
        start, end = self._end(key) + 1, self._end(node)
        if flow or not _is_tree(actual):
            self._put(start, max(start, end), f" {to_yaml(actual)}")
            return
        first = self._index(key)
        self._put(start, max(start, end), "")
        at = self._line_end(end)
        self._put(at, at, self._lines(" " * (first - self._line_start(first) + 2), actual))

    def insert(self, node: nodes.Mapping, values: Mapping[str, Any]) -> None:
        """Write further keys at the end of a mapping that has some."""
        self._end(node)
        end = self._end(node.items[-1][1])
        if self.is_flow(node):
            self._put(end, end, "".join(f", {name}: {to_yaml(value)}" for name, value in values.items()))
            return
        first = self._index(node.items[0][0])
        at = self._line_end(end)
        self._put(at, at, self._lines(" " * (first - self._line_start(first)), values))

    def _lines(self, indent: str, tree: Any) -> str:
        """Return the items of a list, or the keys of a mapping with theirs, on lines of their own."""
        if not _is_mapping(tree):
            return "".join(f"{self._break}{indent}- {to_yaml(each)}" for each in tree)
        return "".join(
            f"{self._break}{indent}{name}:"
            + (self._lines(f"{indent}  ", each) if name in self._trees and _is_tree(each) else f" {to_yaml(each)}")
            for name, each in tree.items()
        )

    def _value(self, after: int, node: Node, expected: Any, actual: Any, view: View | None = None) -> None:
        """``after`` is the index after the colon or dash before the value."""
        if view is None and self._holds(expected, actual):
            return
        end = self._end(node)
        if isinstance(node, nodes.Mapping) and node.items and _has_keys(actual, expected):
            for key, value in node.items:
                self._value(self._end(key) + 1, value, expected.get(key.text), actual.get(key.text))
        elif isinstance(node, nodes.Sequence) and _is_list(expected) and _is_list(actual):
            self._list(after, node, expected, actual, view or (lambda _, wanted, value: (wanted, value)))
        else:
            self._replace(after, node, end, actual)

    def _replace(self, after: int, node: Node, end: int, actual: Any) -> None:
        start = self._index(node)
        text = to_yaml(actual)
        if isinstance(node, Scalar) and node.style == "literal":
            text = self._block(start, actual) or text
        elif not isinstance(node, Scalar) and not self.is_flow(node):
            start = after
        touches = self._text[start - 1 : start] in (":", "-") or start == after
        self._put(start, end, f" {text}" if touches else text)

    def _block(self, start: int, actual: Any) -> str:
        """Return a text as a block like the one that begins there, or "" for what a block can't hold."""
        body = actual.removesuffix("\n") if isinstance(actual, str) else ""
        if body.strip() != body or not body or _OPENING.search(body) or not body.replace("\n", "").isprintable():
            return ""
        content = self._skip(self._line_end(start))
        indent = " " * (content - self._line_start(content))
        lines = [indent + line if line else "" for line in body.split("\n")]
        return self._break.join(["|" if actual.endswith("\n") else "|-", *lines])

    # ------------------------------------------------------------------------------------------- lists

    def _list(
        self, after: int, node: nodes.Sequence, expected: Sequence[Any], actual: Sequence[Any], view: View
    ) -> None:
        items, size, count = node.items, len(node.items), len(actual)
        if len(expected) != size:
            raise UnwritableError

        if not size or not count:
            self._replace(after, node, self._end(node), [view(None, None, each)[1] for each in actual])
            return
        matches = _align(
            size, count, lambda index, other: self._holds(*view(items[index], expected[index], actual[other]))
        )
        at = before = 0
        for index, other in [*matches, (size, count)]:
            paired = min(index - at, other - before)  # items between two that hold, which are rewritten
            for offset in range(paired):
                item = items[at + offset]
                start = -1 if self.is_flow(node) else self._dash(item) + 1
                self._value(start, item, *view(item, expected[at + offset], actual[before + offset]))
            if index - at > paired:
                self._remove(node, at + paired, index)
            elif other - before > paired:
                fresh = actual[before + paired : other]
                self._insert(node, at + paired - 1, [view(None, None, each)[1] for each in fresh])
            at, before = index + 1, other + 1

    def _dash(self, item: Node) -> int:
        """Return the index of the dash before an item, which stands on a line of its own."""
        dash = self._text.rfind("-", 0, self._index(item))
        if self._text[self._line_start(dash) : dash].strip():
            raise UnwritableError
        return dash

    def _remove(self, node: nodes.Sequence, begin: int, end: int) -> None:
        """Remove items, but not all of them; of lines of their own, with these lines."""
        items = node.items
        if self.is_flow(node) and end == len(items):
            start, stop = self._end(items[begin - 1]), self._end(items[-1])
            if "\n" not in self._text[start:stop]:  # nor a comment
                self._put(start, stop, "")
                return
        for index in range(begin, end):
            start, stop = self._index(items[index]), self._end(items[index])
            if not self.is_flow(node):
                start, stop = self._line_start(self._dash(items[index])), self._line_end(stop)
                self._put(start, stop + self._break_at(stop), "")
                continue
            comma = self._skip(stop)
            if self._text[comma : comma + 1] == ",":
                stop = comma + 1
                stop += len(self._text[stop:]) - len(self._text[stop:].lstrip(" \t"))
                line, line_end = self._line_start(start), self._line_end(stop)
                if not self._text[line:start].strip() and stop == line_end:
                    start, stop = line, line_end + self._break_at(line_end)
            else:
                comma = self._skip(self._end(items[begin - 1]))
                if self._text[comma + 1 : start].strip(" \t"):
                    self._put(comma, comma + 1, "")
                else:
                    start = comma
            self._put(start, stop, "")

    def _break_at(self, at: int) -> int:
        """Return the number of characters of the line break at a place."""
        found = _BREAK.match(self._text, at)
        return len(found[0]) if found else 0

    def _insert(self, node: nodes.Sequence, before: int, values: list[Any]) -> None:
        """Put items behind the one at an index; -1 puts them first."""
        items = node.items
        first = self._index(items[0])
        if self.is_flow(node):
            if before < 0:
                self._put(first, first, "".join(f"{to_yaml(each)}, " for each in values))
                return
            at = self._end(items[before])
            indent, column, text = " " * (first - self._line_start(first)), at - self._line_start(at), ""
            for each in map(to_yaml, values):
                column += len(each) + 2
                wraps = column > _WIDTH
                text += f",{self._break}{indent}{each}" if wraps else f", {each}"
                column = len(indent) + len(each) if wraps else column
            self._put(at, at, text)
            return
        dash = self._dash(items[0])
        indent = self._text[self._line_start(dash) : dash]
        if before >= 0:
            at = self._line_end(self._end(items[before]))
            self._put(at, at, self._lines(indent, values))
        else:
            at = self._line_start(dash)
            self._put(at, at, "".join(f"{indent}- {to_yaml(each)}{self._break}" for each in values))


def _align(size: int, count: int, holds: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Return which items of one list hold for which of another, in order: as many as there can be."""
    least = min(size, count)
    first = next((each for each in range(least) if not holds(each, each)), least)
    rest = range(1, least - first + 1)
    last = next((each for each in rest if not holds(size - each, count - each)), least - first + 1) - 1
    begin, rows, columns = first, size - first - last, count - first - last
    pairs: list[tuple[int, int]] = []
    if rows * columns <= _MOST_COMPARED:
        equal = [[holds(begin + row, begin + column) for column in range(columns)] for row in range(rows)]
        longest = [[0] * (columns + 1) for _ in range(rows + 1)]  # from a row and a column on
        for row in range(rows - 1, -1, -1):
            for column in range(columns - 1, -1, -1):
                beside = max(longest[row + 1][column], longest[row][column + 1])
                longest[row][column] = longest[row + 1][column + 1] + 1 if equal[row][column] else beside
        row = column = 0
        while row < rows and column < columns:
            if equal[row][column]:
                pairs.append((begin + row, begin + column))
                row, column = row + 1, column + 1
            elif longest[row + 1][column] >= longest[row][column + 1]:
                row += 1
            else:
                column += 1
    ends = [(size - each, count - each) for each in range(last, 0, -1)]
    return [*((each, each) for each in range(first)), *pairs, *ends]


def _is_tree(value: Any) -> bool:
    return bool(value) and (_is_list(value) or _is_mapping(value))


def _has_keys(actual: Any, expected: Any) -> bool:
    """Return whether an object has all keys that are expected to have a value."""
    if not _is_mapping(expected) or not _is_mapping(actual):
        return False
    return all(key in actual or value is None for key, value in expected.items())


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)
