"""The nodes of a YAML document: data in which every key and value knows its place."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from streamstack.errors import Mark
from streamstack.language.reading.positions import SourceText, locate
from streamstack.records import record

Style = Literal["plain", "single", "double", "literal", "folded"]


@record()
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

    def index_at(self, offset: int) -> int:
        """Return the index in the source's text of character ``offset`` of the text."""
        if self.source is None:
            return offset
        text = self.source.text
        return locate(text, self.start, self.end, self.style, self.text, offset)


@record()
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    mark: Mark


@record()
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


@record()
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
