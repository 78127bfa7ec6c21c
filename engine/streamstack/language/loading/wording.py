"""How messages call values and say how they are written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from streamstack.language.names import VARIABLE
from streamstack.language.parameters import Kind
from streamstack.language.reading.nodes import Mapping, Node, Scalar, Sequence
from streamstack.language.values import kind

#: What each kind is called in a message.
KINDS: Final = {
    Kind.ANY: "a value",
    Kind.TEXT: "a text",
    Kind.URL: "a text",
    Kind.INTEGER: "an integer",
    Kind.NUMBER: "a number",
    Kind.BOOLEAN: "true or false",
    Kind.LIST: "a list",
    Kind.OBJECT: "a mapping",
    Kind.HEADERS: "a mapping",
    Kind.DURATION: "a duration like 200ms, 5s, 10m",
    Kind.SIZE: "a size like 64KB, 10MB",
    Kind.EVERY: "a number of items, or a duration like 10s",
    Kind.RATE: "a rate like 60/minute",
    Kind.KEY: "a text, a number or a list",
    Kind.STREAM: "a stream, as in <<name>>",
    Kind.ITEMS: "a list or a stream",
    Kind.ANY_OR_STREAM: "a value",
    Kind.SQL: "a statement of SQL",
}

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_BOOLEANS: Final = {
    "yes": "true",
    "on": "true",
    "true": "true",
    "no": "false",
    "off": "false",
    "false": "false",
}


def is_null(node: Node | None) -> bool:
    """Tell whether a value counts as not given."""
    return node is None or (isinstance(node, Scalar) and node.value is None)


def describe(node: Node) -> str:
    """Say what a value is, as its author would: `the text "5"`, `a list`."""
    if isinstance(node, Sequence):
        return "a list" if node.items else "an empty list"
    if isinstance(node, Mapping):
        return "a mapping" if node.items else "an empty mapping"
    if node.value == "":
        return "an empty text"
    if isinstance(node.value, str):
        shown = node.value if len(node.value) <= 40 else node.value[:37] + "..."
        return f'the text "{shown}"'
    if node.value is None:
        return "null"
    if isinstance(node.value, bool):
        return "true" if node.value else "false"
    return f"the {kind(node.value)} {node.value}"


def listed(words: Iterable[str], last: str = "or") -> str:
    """Join words as a sentence does: a, b or c."""
    words = list(words)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def how_to_write(wanted: Kind, node: Node) -> str:
    """Say how the value that is meant is written, or at least one of its kind."""
    if isinstance(node, Scalar) and node.value is not None:
        text = node.text.strip()
        if wanted in (Kind.TEXT, Kind.URL):
            return f'write "{text}", in quotes'
        if wanted is Kind.NUMBER and _NUMBER.fullmatch(text):
            return f"write {text}, without quotes"
        if wanted is Kind.INTEGER and text.isdigit():
            return f"write {text}, without quotes"
        if wanted is Kind.BOOLEAN and text.lower() in _BOOLEANS:
            return f"write {_BOOLEANS[text.lower()]}"
        if wanted in (Kind.LIST, Kind.ITEMS) and text:
            return f"write [{text}] for a list of one"
        if wanted is Kind.STREAM and VARIABLE.fullmatch(text):
            return f"write <<{text}>>"
    return _SUCH_AS[wanted]


_SUCH_AS: Final = {
    Kind.ANY: "write any value",
    Kind.URL: "write a URL, or a binding around the value: << ... >>",
    Kind.TEXT: "write a text, or a binding around the value: << ... >>",
    Kind.INTEGER: "write a whole number, such as 5",
    Kind.NUMBER: "write a number, such as 0.5",
    Kind.BOOLEAN: "write true or false",
    Kind.LIST: "write a list, such as [a, b]",
    Kind.OBJECT: "write a mapping, such as {name: value}",
    Kind.HEADERS: "write a mapping, such as {X-Name: value}",
    Kind.DURATION: "write it like 200ms or 5s",
    Kind.SIZE: "write it like 64KB or 10MB",
    Kind.EVERY: "write a number of items, such as 10, or a duration, such as 10s",
    Kind.RATE: "write it like 60/minute or 20/10s",
    Kind.KEY: "write a text, or a list such as [rate, EUR]",
    Kind.STREAM: "write the name of a stream as a whole binding: <<name>>",
    Kind.ITEMS: "write a list, such as [a, b], or a binding: <<name>>",
    Kind.ANY_OR_STREAM: "write any value",
    Kind.SQL: "write SQL, with << bindings >> for its values",
}
