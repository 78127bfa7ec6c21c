"""Inputs that arrive as text: from the path, the query, headers, cookies and forms."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from streamstack.language.definition import Input
from streamstack.language.values import MISSING, to_text
from streamstack.runtime.files import File
from streamstack.runtime.input_faults import Check, Faults
from streamstack.runtime.input_json import JsonText, check_json, parse_json
from streamstack.runtime.input_nesting import build, check_items, count_fault

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,400}")
_DECIMAL: Final = re.compile(
    r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?"
)
_SPACED_OFFSET: Final = re.compile(r" (?=[0-9]{2}:[0-9]{2}$)")
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


def build_texts(declared: Input, unknown: str, *, commas: bool = False) -> Check:
    """Compile the check of all texts sent under one name; it gives MISSING where they count as not sent.

    A text may be a JsonText (a part of a form that says it is JSON) or a File too. With ``commas`` they part the items
    of a list, as in headers (RFC 9110, section 5.3).
    """
    check_one = _one(declared, unknown)
    if declared.type == "list":
        return _list(declared, check_one, commas=commas)
    keeps_empty = declared.type in ("text", "file") or (
        declared.type == "enum" and "" in declared.values
    )

    def check(texts: list[Any], faults: Faults) -> Any:
        if len(texts) > 1:
            return faults.add(f"is sent {len(texts)} times: send it once")
        text = texts[0]
        # A form sends every field, also those that nobody filled in.
        if text == "" and not keeps_empty:
            return MISSING
        return check_one(text, faults)

    return check


def _list(declared: Input, check_whole: Check, *, commas: bool) -> Check:
    low = declared.min_items or 0
    high = sys.maxsize if declared.max_items is None else declared.max_items
    item = declared.items if declared.items is not None else Input("items", "json", declared.mark)
    check_item = _one(item, "refuse")
    split = commas and item.type not in ("object", "list", "json")

    def check(texts: list[Any], faults: Faults) -> Any:
        if split:
            texts = [part.strip(" \t") for text in texts for part in text.split(",")]
        if len(texts) == 1 and isinstance(texts[0], JsonText):
            return check_whole(texts[0], faults)
        if item.type not in ("text", "enum") and "" in texts:
            texts = [text for text in texts if text != ""]
            if not texts:
                return MISSING
        if not low <= len(texts) <= high:
            return faults.add(count_fault(low, high, len(texts)))
        return check_items(check_item, texts, faults)

    return check


def _one(declared: Input, unknown: str) -> Check:
    """Compile the check of one text."""
    check_typed = build(declared, unknown, call=False)
    convert = _CONVERSIONS.get(declared.type)
    if declared.type == "enum":
        convert = _enum(declared)
    whole = declared.type in ("object", "list", "json")

    def check(text: Any, faults: Faults) -> Any:
        if type(text) is not str:
            if isinstance(text, JsonText):
                return check_json(text.data, check_typed, faults)
            if isinstance(text, File) and declared.type != "file":
                return faults.add(f"must be {_WANTED.get(declared.type, 'a text')}, not a file")
            return check_typed(text, faults)
        if not text.isascii() and not _is_unicode(text):
            return faults.add("must be UTF-8")
        if whole:
            return _json(text, declared, check_typed, faults)
        return check_typed(text if convert is None else convert(text), faults)

    return check


def _is_unicode(text: str) -> bool:
    """Tell whether a text is free of the lone surrogates that stand for bytes that weren't UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(text: str, declared: Input, check: Check, faults: Faults) -> Any:
    if declared.type == "json":
        # As with the data of server-sent events: JSON where it is JSON, else a text.
        inner = Faults()
        value = parse_json(text.encode(), inner)
        return check(text if inner.found else value, faults)
    return check_json(text.encode(), check, faults)


def _integer(text: str) -> Any:
    stripped = text.strip(" ")
    return int(stripped) if _INTEGER.fullmatch(stripped) is not None else _Unreadable(text)


def _decimal(text: str) -> Any:
    stripped = text.strip(" ")
    return Decimal(stripped) if _DECIMAL.fullmatch(stripped) is not None else _Unreadable(text)


def _boolean(text: str) -> Any:
    return _BOOLEANS.get(text.strip(" ").lower(), _Unreadable(text))


def _timestamp(text: str) -> str:
    # The + of an offset, not escaped in a query, arrives as a space.
    return _SPACED_OFFSET.sub("+", text.strip(" "), count=1) if " " in text else text


def _stripped(text: str) -> str:
    return text.strip(" ")


def _enum(declared: Input) -> Callable[[str], Any]:
    values = {to_text(value): value for value in declared.values}
    return lambda text: values.get(text, text)


class _Unreadable(str):
    """A text that is not what it should be: the typed check refuses it as the text it is."""

    __slots__ = ()


_CONVERSIONS: Final[dict[str, Callable[[str], Any]]] = {
    "integer": _integer,
    "decimal": _decimal,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "date": _stripped,
    "uuid": _stripped,
    "email": _stripped,
    "url": _stripped,
}

_WANTED: Final = {"object": "an object", "list": "a list", "json": "a value"}
