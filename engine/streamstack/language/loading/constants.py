"""Whether a value known when the file is loaded suits what is declared for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Final

from streamstack.language.definition import Input
from streamstack.language.inputs import formats
from streamstack.language.inputs.patterns import compile_pattern
from streamstack.language.loading.wording import listed
from streamstack.language.parameters import Kind, shown
from streamstack.language.rates import parse_rate
from streamstack.language.suggest import nearest
from streamstack.language.units import parse_duration, parse_every, parse_size
from streamstack.language.values import kind

#: The integers that JSON and databases hold; the digits a decimal may have on either side.
_LARGEST: Final = 2**63 - 1
_FILTERS: Final[dict[str, Callable[[str], str]]] = {
    "trim": str.strip,
    "lower": str.lower,
    "upper": str.upper,
}


def suits(wanted: Kind, value: Any) -> bool:
    """Tell whether a constant is of a kind."""
    match wanted:
        case Kind.TEXT | Kind.URL | Kind.SQL:
            return isinstance(value, str)
        case Kind.INTEGER:
            return type(value) is int
        case Kind.NUMBER:
            return type(value) in (int, float)
        case Kind.BOOLEAN:
            return isinstance(value, bool)
        case Kind.LIST | Kind.ITEMS:
            return isinstance(value, list)
        case Kind.OBJECT | Kind.HEADERS:
            return isinstance(value, dict)
        case Kind.KEY:
            return type(value) in (str, int, float, list)
        case Kind.STREAM:
            return False
    return True


def convert(wanted: Kind, value: Any) -> Any:
    """Return a constant as the engine takes it: a duration in seconds, a size in bytes.

    Raises ValueError with what to write.
    """
    if wanted is Kind.DURATION:
        return parse_duration(value)
    if wanted is Kind.SIZE:
        return parse_size(value)
    if wanted is Kind.EVERY:
        return parse_every(value)
    if wanted is Kind.RATE:
        return parse_rate(value)
    return value


def out_of_range(
    value: Any, minimum: float | None, maximum: float | None, wanted: Kind = Kind.NUMBER
) -> str:
    """Say which bound a number breaks, or nothing; those of durations and sizes have units."""
    if type(value) not in (int, float):
        return ""
    for bound, words, broken in (
        (minimum, "at least", minimum is not None and value < minimum),
        (maximum, "at most", maximum is not None and value > maximum),
    ):
        if bound is not None and broken:
            units = wanted in (Kind.DURATION, Kind.SIZE)
            return f"{words} {shown(wanted, bound)}" if units else f"{words} {bound:g}"
    return ""


def not_chosen(value: Any, choices: Collection[str]) -> tuple[str, str] | None:
    """Say which words are allowed where ``value`` is none of them, and which may be meant."""
    if not choices or not isinstance(value, str) or value in choices:
        return None
    near = nearest(value, choices)
    few = len(choices) <= 16
    words = listed(choices) if few else "one of its words"
    return words, f"did you mean `{near}`?" if near else f"write {listed(choices)}" if few else ""


def mismatch(declared: Input, value: Any, name: str = "") -> str:
    """Say how a constant breaks the declaration of an input, or nothing.

    ``name`` is how the message calls the value: `streamOptions.chunkSize`.
    """
    name = name or declared.name
    if value is None:
        return (
            "" if declared.nullable else f"`{name}` is null; declare `nullable: true` to allow it"
        )
    if isinstance(value, float) and not math.isfinite(value):
        return f"`{name}` is no number that JSON could hold"
    check = _CHECKS.get(declared.type)
    return check(declared, value, name) if check else ""


def _text(declared: Input, value: Any, name: str) -> str:
    if not isinstance(value, str):
        return _not(name, "a text", value)
    for each in declared.filters:
        value = _FILTERS[each](value)
    if declared.min_length is not None and len(value) < declared.min_length:
        return f"`{name}` has fewer than {declared.min_length} characters"
    if declared.max_length is not None and len(value) > declared.max_length:
        return f"`{name}` has more than {declared.max_length} characters"
    if declared.pattern is not None and not compile_pattern(declared.pattern, declared.max_length)(
        value
    ):
        return f"`{name}` does not match the pattern {declared.pattern}"
    return ""


def _number(declared: Input, value: Any, name: str) -> str:
    if declared.type == "integer" and type(value) is not int:
        return _not(name, "an integer", value)
    if type(value) not in (int, float):
        return _not(name, "a number", value)
    if declared.type == "integer" and not -_LARGEST <= value <= _LARGEST:
        return f"`{name}` is an integer beyond 64 bits"
    bound = out_of_range(value, declared.minimum, declared.maximum)
    return f"`{name}` must be {bound}" if bound else ""


def _boolean(_: Input, value: Any, name: str) -> str:
    return "" if isinstance(value, bool) else _not(name, "true or false", value)


def _enum(declared: Input, value: Any, name: str) -> str:
    if any(value == allowed and type(value) is type(allowed) for allowed in declared.values):
        return ""
    return f"`{name}` must be {listed(str(allowed) for allowed in declared.values)}"


def _list(declared: Input, value: Any, name: str) -> str:
    if not isinstance(value, list):
        return _not(name, "a list", value)
    if declared.min_items is not None and len(value) < declared.min_items:
        return f"`{name}` has fewer than {declared.min_items} items"
    if declared.max_items is not None and len(value) > declared.max_items:
        return f"`{name}` has more than {declared.max_items} items"
    if declared.items is not None:
        for index, item in enumerate(value):
            fault = mismatch(declared.items, item, f"{name}[{index}]")
            if fault:
                return fault
    return ""


def _object(declared: Input, value: Any, name: str) -> str:
    if not isinstance(value, dict):
        return _not(name, "a mapping", value)
    if declared.properties is None:
        return ""
    known = {inner.name: inner for inner in declared.properties}
    for key, item in value.items():
        if key not in known:
            near = nearest(key, known)
            meant = f"; did you mean `{near}`?" if near else ""
            return f"`{name}` has no property `{key}`{meant}"
        fault = mismatch(known[key], item, f"{name}.{key}")
        if fault:
            return fault
    missing = [
        inner.name for inner in declared.properties if inner.required and inner.name not in value
    ]
    return f"`{name}` lacks the required property `{missing[0]}`" if missing else ""


def _parsed(word: str, parse: Callable[[str], Any]) -> Callable[[Input, Any, str], str]:
    def check(_: Input, value: Any, name: str) -> str:
        sound = isinstance(value, str) and parse(value) is not None
        return "" if sound else _not(name, word, value)

    return check


def _unwritten(declared: Input, value: Any, name: str) -> str:
    return f"`{name}` is a {declared.type}, which can't be written in a definition"


def _not(name: str, wanted: str, value: Any) -> str:
    shown = f'the text "{value}"' if isinstance(value, str) else f"of type {kind(value)}"
    return f"`{name}` must be {wanted}, and this is {shown}"


_CHECKS: Final[dict[str, Callable[[Input, Any, str], str]]] = {
    "text": _text,
    "integer": _number,
    "decimal": _number,
    "boolean": _boolean,
    "timestamp": _parsed(f"a timestamp like {formats.TIMESTAMP_EXAMPLE}", formats.parse_timestamp),
    "date": _parsed("a date like 2026-01-31", formats.parse_date),
    "uuid": _parsed("a UUID", formats.parse_uuid),
    "email": _parsed("an e-mail address", formats.parse_email),
    "url": _parsed("a URL like https://example.com/", formats.parse_url),
    "object": _object,
    "list": _list,
    "enum": _enum,
    "file": _unwritten,
    "stream": _unwritten,
}
