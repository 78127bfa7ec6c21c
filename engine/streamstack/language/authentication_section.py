"""One authentication of the settings while it is read: its values, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from streamstack.errors import Diagnostic, Mark
from streamstack.language.authentication_settings import HASH, TYPES
from streamstack.language.findings import find
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.suggest import did_you_mean
from streamstack.language.units import parse_duration

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DEFAULT: Final = re.compile(r"default\(\s*(?:\"[^\"]|'[^'])")


class Section:
    """Reads values. ``written`` is ``node`` before the environment was put in; files are found from ``folder``."""

    def __init__(self, name: str, node: Mapping, written: Mapping, folder: Path) -> None:
        self.name = name
        self.node = node
        self.written = written
        self.folder = folder
        self.found: list[Diagnostic] = []

    def refuse_unknown(self, kind: str) -> None:
        """Report keys that a type does not have."""
        for key, _ in self.node.items:
            if key.text not in TYPES[kind]:
                message = f"`authentication.{self.name}` has no `{key.text}`{did_you_mean(key.text, TYPES[kind])}"
                hint = f"it takes {', '.join(TYPES[kind])}"
                self.add("unknown-setting", key.mark, message, hint)

    def is_written(self, key: str) -> bool:
        """Tell whether a key is given in the file, whatever the environment holds."""
        node = self.written.get(key)
        return node is not None and not is_null(node)

    def text(self, key: str, *, empty: bool = False) -> str | None:
        """Return a text; None where none is given or it is none."""
        node = self.node.get(key)
        if node is None or is_null(node):
            return None
        value = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, str) or not (empty or value.strip()):
            self.refuse(key, "a text is needed here")
            return None
        return value.strip()

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a text, or a list of texts, as a tuple."""
        node = self.node.get(key)
        return () if node is None or is_null(node) else self.list(key, node)

    def list(self, key: str, node: Node) -> tuple[str, ...]:
        """Return the texts of a node."""
        texts = []
        for item in node.items if isinstance(node, Sequence) else (node,):
            value = item.value if isinstance(item, Scalar) else None
            if isinstance(value, str) and value.strip():
                texts.append(value.strip())
            elif value is not None or not isinstance(item, Scalar):
                message = f"`authentication.{self.name}.{key}`: a text is needed here"
                self.add("bad-setting", item.mark, message, "write a text, or a list of texts")
        return tuple(texts)

    def duration(self, key: str, default: float) -> float:
        """Return seconds."""
        node = self.node.get(key)
        if node is None or is_null(node):
            return default
        try:
            return parse_duration(node.value if isinstance(node, Scalar) else None)
        except ValueError as error:
            message = f"`authentication.{self.name}.{key}`: {error}"
            self.add("bad-duration", node.mark, message)
            return default

    def tell_plain(self, key: str, written: Node | None) -> None:
        """Tell of a secret that stands in the file, be it as the default of a variable."""
        if not isinstance(written, Scalar) or not isinstance(written.value, str):
            return
        text = written.value.strip()
        if not text or HASH.fullmatch(text) or ("<<" in text and not _DEFAULT.search(text)):
            return
        message = (
            f"the value of `authentication.{self.name}.{key}` stands in the file in plain text"
        )
        self.add("secret-in-definition", written.mark, message)

    def mark(self, key: str) -> Mark:
        """Return the place of a value, or of the whole."""
        node = self.node.get(key)
        return self.node.mark if node is None else node.mark

    def refuse(self, key: str, message: str) -> None:
        """Report a value that can't be."""
        self.add("bad-setting", self.mark(key), f"`authentication.{self.name}.{key}`: {message}")

    def add(self, code: str, mark: Mark, message: str, hint: str | None = None) -> None:
        """Report something."""
        self.found.append(find(code, mark, message, hint))


def is_null(node: Node) -> bool:
    """Tell whether nothing is given."""
    return isinstance(node, Scalar) and node.value is None


def fits(where: str, name: str) -> bool:
    """Tell whether a name can stand in a place of a request."""
    if where == "query":
        return name.isprintable()
    return _TOKEN.fullmatch(name) is not None
