"""Filters that turn one kind of value into another."""

# An author passes an argument by position or by name, whatever it is.
# ruff: noqa: FBT001, FBT002

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.filters.expectations import failed, wrong
from streamstack.language.filters.operations import declare
from streamstack.language.operators import MAX_BITS, aware, is_finite
from streamstack.language.values import Opaque, to_json, to_text

_INTEGER: Final = re.compile(r"\s*[+-]?\d(?:_?\d)*\s*", re.ASCII)
_DECIMAL: Final = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?\s*", re.ASCII)


@declare(
    "filter",
    "default",
    '{"a": null}.a.b | default("none")',
    "none",
    aliases=("d",),
)
def default(value: Any, other: Any = "", boolean: bool = False) -> Any:
    """Give the value, or another one where it is null or not there.

    A name that is not bound, a missing item and a look-up in null are all "not there": it
    covers the whole path to its left, and evaluates its argument only if needed. A second
    argument `true` replaces false, 0 and empty values too.
    """
    return other if value is None or (boolean and not value) else value


@declare(
    "filter",
    "toJson",
    '{"name": "Zoë", "tags": [1, null]} | toJson',
    '{"name":"Zoë","tags":[1,null]}',
    aliases=("tojson",),
)
def to_json_text(value: Any, indent: int | None = None) -> str:
    """Give the value as compact JSON text, or indented by some spaces.

    Decimals keep their digits.
    """
    text = to_json(value).decode()
    if not indent or type(indent) is not int:
        return text
    # Numbers stay the text they are: 1.10 must not become 1.1.
    plain = json.loads(text, parse_float=_Digits, parse_int=_Digits)
    return _indented(plain, " " * min(indent, 16), "\n")


class _Digits(str):
    """A JSON number's own text."""

    __slots__ = ()


def _indented(value: Any, step: str, line: str) -> str:
    if isinstance(value, _Digits):
        return str(value)
    inner = line + step
    if isinstance(value, dict) and value:
        entries = (
            f"{to_json(key).decode()}: {_indented(one, step, inner)}" for key, one in value.items()
        )
        return "{" + inner + ("," + inner).join(entries) + line + "}"
    if isinstance(value, list) and value:
        return (
            "[" + inner + ("," + inner).join(_indented(v, step, inner) for v in value) + line + "]"
        )
    return to_json(value).decode()


@declare(
    "filter",
    "fromJson",
    "'{\"a\": [1, true]}' | fromJson",
    {"a": [1, True]},
)
def from_json(value: Any) -> Any:
    """Give the value that a JSON text holds.

    A number with a point becomes a decimal that keeps its digits where a binary fraction would
    not.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise failed("fromJson", "the bytes are not UTF-8") from None
    if not isinstance(value, str):
        raise wrong("fromJson", "a text", value)
    try:
        return json.loads(value, parse_float=_fraction, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, InvalidOperation) as error:
        if isinstance(error, json.JSONDecodeError):
            where = f"line {error.lineno} column {error.colno}: {error.msg.lower()}"
        elif isinstance(error, RecursionError):
            where = "it is nested too deeply"
        else:
            known = str(error).endswith("is not allowed")
            where = str(error) if known else "a number in it has too many digits"
        raise failed("fromJson", f"the text is no JSON ({where})") from None


def _fraction(digits: str) -> float | Decimal:
    number = float(digits)
    return number if repr(number) == digits else Decimal(digits)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not allowed")


@declare(
    "filter",
    "toInteger",
    '["42", 2.9, true, "x"] | map("toInteger", 0)',
    [42, 2, 1, 0],
    aliases=("int",),
)
def to_integer(value: Any, default: Any = None) -> Any:
    """Give the whole number of a text, number or boolean.

    A fraction is cut off (2.9 gives 2); a timestamp gives whole seconds since 1970. With a
    default, what is no number gives that.
    """
    try:
        return _integer(value)
    except RunError:
        if default is not None and not isinstance(value, Opaque):
            return default
        raise


def _integer(value: Any) -> int:
    if isinstance(value, str):
        if len(value) <= 4000 and _INTEGER.fullmatch(value):
            return int(value)
        value = _decimal_of_text(value, "toInteger")
    if type(value) in (int, bool):
        return int(value)
    if type(value) in (float, Decimal):
        if not is_finite(value):
            raise failed("toInteger", "the number is not finite")
        if type(value) is Decimal and value and value.adjusted() > MAX_BITS // 4:
            raise failed("toInteger", "the number is too large")
        return int(value)
    if isinstance(value, datetime):
        return int(aware(value).timestamp() // 1)
    raise wrong("toInteger", "a text or number", value)


def _decimal_of_text(value: str, name: str) -> Decimal:
    if len(value) <= 4000 and _DECIMAL.fullmatch(value):
        try:
            return Decimal(value.strip())
        except InvalidOperation:
            pass
    short = value if len(value) <= 40 else value[:37] + "..."
    raise failed(name, f'"{short}" is no number')


@declare(
    "filter",
    "toDecimal",
    '"1.10" | toDecimal | toText',
    "1.10",
)
def to_decimal(value: Any, default: Any = None) -> Any:
    """Give the decimal of a text, number or boolean, with exactly its digits.

    Of a timestamp, the seconds since 1970. With a default, what is no number gives that.
    """
    try:
        return _decimal(value)
    except RunError:
        if default is not None and not isinstance(value, Opaque):
            return default
        raise


def _decimal(value: Any) -> Decimal:
    if isinstance(value, str):
        return _decimal_of_text(value, "toDecimal")
    if isinstance(value, Decimal):
        return value
    if type(value) in (int, bool):
        return Decimal(int(value))
    if type(value) is float:
        if not is_finite(value):
            raise failed("toDecimal", "the number is not finite")
        return Decimal(repr(value))
    if isinstance(value, datetime):
        return Decimal(repr(aware(value).timestamp()))
    raise wrong("toDecimal", "a text or number", value)


@declare(
    "filter",
    "float",
    '"2.5" | float',
    2.5,
)
def to_float(value: Any, default: Any = None) -> Any:
    """Give the number of a text or number as a binary fraction.

    With a default, what is no number gives that.
    """
    number = to_decimal(value, default)
    if not isinstance(number, Decimal):
        return number
    fraction = float(number)
    if not is_finite(fraction):
        raise failed("float", "the number is too large")
    return fraction


@declare(
    "filter",
    "toText",
    "[1, true, null] | toText",
    "[1,true,null]",
    aliases=("string",),
)
def to_text_filter(value: Any) -> str:
    """Give the value as it stands inside a text.

    Booleans are true and false, null is empty, lists and objects are compact JSON, timestamps
    RFC 3339.
    """
    return to_text(value)


@declare(
    "filter",
    "list",
    '"abc" | list',
    ["a", "b", "c"],
)
def to_list(value: Any) -> list[Any]:
    """Give the items of a list, the characters of a text, the keys of an object."""
    if isinstance(value, (list, tuple, str, dict)):
        return list(value)
    raise wrong("list", "a list, a text or an object", value)
