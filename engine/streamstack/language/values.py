"""The values a definition works with: their names, their text, their JSON."""

from __future__ import annotations

import base64
import json
import math
from abc import ABC, abstractmethod
from datetime import UTC, date, datetime, timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Any, Final
from uuid import UUID

import orjson

from streamstack.errors import RunError


class Missing:
    """The type of MISSING, which stands for "not given" where null is a value."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()


class Opaque(ABC):
    """A value that is not data: a stream or a file. It has properties, but no text and no JSON."""

    kind = "stream"

    @abstractmethod
    def __getitem__(self, name: str) -> Any:
        """Return a property by its name; raise KeyError where there is none."""


_KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "decimal",
    Decimal: "decimal",
    str: "text",
    list: "list",
    tuple: "list",
    dict: "object",
    datetime: "timestamp",
    date: "date",
    bytes: "bytes",
}


def kind(value: Any) -> str:
    """Return the language's name for a value's type, as an author knows it."""
    found = _KINDS.get(type(value))
    if found is not None:
        return found
    if isinstance(value, Opaque):
        return value.kind
    for base, name in _KINDS.items():
        if isinstance(value, base):
            return name
    return "value"


def timestamp_text(value: datetime) -> str:
    """Return a timestamp as RFC 3339, with Z for UTC; one without a zone has none."""
    text = value.isoformat()
    return text[:-6] + "Z" if value.utcoffset() == timedelta(0) else text


def to_text(value: Any) -> str:
    """Return a value as it stands inside a text (LANGUAGE: bindings, rule 2).

    Raises RunError ``template`` for a stream or a file, which have no text.
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if type(value) is int:
        return str(value)
    if isinstance(value, (datetime, date)):
        return timestamp_text(value) if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return to_json(value).decode()


def decimal_text(value: Decimal) -> str:
    """Return a decimal with all its digits, in a form that is also a JSON number."""
    if not value.is_finite():
        raise RunError("template", f"the decimal {value} is not a number")
    return str(value)


def _encode_other(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(decimal_text(value).encode()) if value.is_finite() else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Opaque):
        raise RunError("template", f"a {value.kind} can't be written as JSON: use `collect` to read it first")
    if isinstance(value, int):
        return orjson.Fragment(str(value).encode())
    raise RunError("template", f"a {kind(value)} can't be written as JSON")


_OPTIONS: Final = orjson.OPT_UTC_Z


def to_json(value: Any) -> bytes:
    """Return compact JSON in UTF-8. NaN and infinities become null.

    Raises RunError ``template`` for a value that has no JSON.
    """
    try:
        return orjson.dumps(value, _encode_other, _OPTIONS)
    except RunError:
        raise
    except TypeError as error:
        if isinstance(error.__cause__, RunError):
            raise error.__cause__ from None
        return _to_json_slowly(value)


#: From here on a float doesn't hold every integer.
_EXACT_FLOAT: Final = 2.0**53
#: Integers below it are their own hash, so that no two of them share one.
SMALL: Final = 10**18
_WHOLE: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def number_key(value: float | Decimal) -> int | tuple[str, str]:
    """Return what equal numbers share; a float is what it is written as, 0.1 being the decimal 0.1.

    Its hash can't be chosen by a client: Python's own of a number is its remainder by 2**61 - 1 ("Hashing of numeric
    types"), so that thousands of large numbers which share it would make each look-up in a set a walk through all.
    """
    if type(value) is float and -_EXACT_FLOAT < value < _EXACT_FLOAT and value.is_integer():
        return int(value)
    if type(value) is int and -SMALL < value < SMALL:
        return value
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if exact.is_finite() and exact.adjusted() < 18 and exact == exact.to_integral_value():
        return int(exact)
    return ("number", str(exact.normalize(_WHOLE)))


def canonical_json(value: Any) -> bytes:
    """Return the JSON that all equal values have: keys sorted, `1.0` written as `1`.

    Raises RunError ``template`` for a value that has no JSON.
    """
    if type(value) is str:
        return to_json(value)
    try:
        return to_json(_canonical(value))
    except RecursionError:
        raise RunError("template", "the value is nested too deeply to be written as JSON") from None


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Decimal) and value.is_finite():
        plain = value.normalize(Context(prec=len(value.as_tuple().digits)))
        # Written out as an integer is, unless that would fill the memory.
        return int(plain) if plain.adjusted() < 400 and plain == int(plain) else plain
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


def _to_json_slowly(value: Any) -> bytes:
    """Encode what orjson refuses: integers over 64 bits, deep nesting, lone surrogates."""

    def other(item: Any) -> Any:
        if isinstance(item, (datetime, date)):
            return to_text(item)
        if isinstance(item, UUID):
            return str(item)
        if isinstance(item, bytes):
            return base64.b64encode(item).decode()
        if isinstance(item, Decimal):
            # The standard encoder has no hook for raw numbers; a float keeps the shape.
            return float(item) if item.is_finite() else None
        raise RunError("template", f"a {kind(item)} can't be written as JSON")

    def finite(item: Any) -> Any:
        if isinstance(item, float) and not math.isfinite(item):
            return None
        if isinstance(item, dict):
            return {str(key): finite(inner) for key, inner in item.items()}
        if isinstance(item, (list, tuple)):
            return [finite(inner) for inner in item]
        return item

    try:
        text = json.dumps(finite(value), default=other, ensure_ascii=False, separators=(",", ":"))
    except (RecursionError, ValueError):
        raise RunError("template", "the value is nested too deeply to be written as JSON") from None
    # Halves of a surrogate pair that belong together are joined; a lone one becomes U+FFFD.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
