"""JSON that a client sent: parsed fast, numbers kept exact where a decimal is declared, depth bounded."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import orjson

from streamstack.records import record
from streamstack.runtime.decoders.parsing import DEEPEST, is_deep
from streamstack.runtime.input_faults import Check, Faults, InexactError


@record()
class JsonText:
    """Bytes that are said to be JSON."""

    data: bytes


def check_json(data: bytes, check: Check, faults: Faults) -> Any:
    """Parse a document and check it.

    Numbers are parsed as floats first; where one meets a declared decimal, all are parsed again with their digits.
    """
    before = len(faults.found)
    value = parse_json(data, faults)
    if len(faults.found) != before:
        return None
    if faults.exact:
        return check(value, faults)
    try:
        return check(value, faults)
    except InexactError:
        pass
    del faults.found[before:]
    faults.exact = True
    try:
        return check(_parse_exactly(data), faults)
    finally:
        faults.exact = False


def parse_json(data: bytes, faults: Faults) -> Any:
    """Return the value of a document; what is wrong with it goes to the faults."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if data.startswith(b"\xef\xbb\xbf"):
            return parse_json(data[3:], faults)
        if "depth" in error.msg or "recursion" in error.msg.lower():
            return faults.add(f"must not be nested more than {DEEPEST} deep")
        return faults.add(f"must be JSON: {_reason(error, data)}")
    if is_deep(data, value):
        return faults.add(f"must not be nested more than {DEEPEST} deep")
    return value


def _reason(error: orjson.JSONDecodeError, data: bytes) -> str:
    if not data.strip():
        return "it is empty"
    if "UTF-8" in error.msg:
        return "it is not UTF-8"
    return f"{error.msg}, at line {error.lineno}, column {error.colno}"


def _parse_exactly(data: bytes) -> Any:
    """Parse again what was parsed before, numbers with a fraction or an exponent as decimals."""
    return _EXACT.decode(data.decode("utf-8-sig"))


def _parse_integer(text: str) -> int | Decimal:
    # Python refuses to make an integer of more than 4300 digits; a decimal of them is cheap, and out of all bounds.
    return int(text) if len(text) < 400 else Decimal(text)


def parse_decimal(text: str) -> Decimal:
    """Return a number with its digits; one whose exponent no decimal can have is out of all bounds, too."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return _ENDLESS


#: What is refused wherever a decimal is declared.
_ENDLESS: Final = Decimal("1e-999999")
_EXACT: Final = json.JSONDecoder(parse_float=parse_decimal, parse_int=_parse_integer)
