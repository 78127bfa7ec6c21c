"""JSON values from upstreams and files: numbers keep their digits, and half a surrogate pair is no fault."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import orjson

#: Numbers that a 64-bit integer or float may not hold: over 19 digits, or over 17 with a fraction.
_LONG: Final = re.compile(rb"[0-9]{20}|[1-9](?=[0-9.]{18})[0-9]*\.[0-9]|\.0*[1-9][0-9]{17}")
_HALF: Final = re.compile(r"[\ud800-\udfff]")
_HALF_ESCAPED: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(data: bytes | bytearray) -> Any:
    """Return the value of a JSON text; integers and decimals that no float holds keep their digits.

    Half of a surrogate pair, which other languages write where a text was cut, is U+FFFD.

    Raises orjson.JSONDecodeError, a ValueError, for what is not JSON.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        if not _HALF_ESCAPED.search(data):
            raise
        try:
            return _without_halves(_EXACT.decode(bytes(data).decode()))
        except (ValueError, RecursionError):
            pass
        raise
    if _LONG.search(data):
        with suppress(RecursionError):  # nested deeper than Python's parser goes
            return _EXACT.decode(bytes(data).decode())
    return value


def _number(text: str) -> float | Decimal:
    value = float(text)
    try:
        exact = Decimal(text)
    except InvalidOperation:  # an exponent that no decimal has
        return value
    return value if exact == Decimal(repr(value)) else exact


def _integer(text: str) -> int | Decimal:
    # Python refuses to make an integer of more than 4300 digits.
    return int(text) if len(text) < 4000 else Decimal(text)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _without_halves(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_halves(each) for each in value]
    if isinstance(value, dict):
        return {_without_halves(key): _without_halves(each) for key, each in value.items()}
    return value


_EXACT: Final = json.JSONDecoder(parse_float=_number, parse_int=_integer, parse_constant=_refuse)
