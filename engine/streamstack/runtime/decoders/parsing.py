"""One JSON value from bytes: its digits, its depth, and halves of surrogate pairs."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import orjson

#: Levels that a document may nest: what can be written again (orjson writes 254 of them).
DEEPEST: Final = 250
TOO_DEEP: Final = f"is nested more than {DEEPEST} deep"
#: Shorter documents can't be too deep: each level has two brackets.
SHALLOW: Final = 2 * DEEPEST

_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
#: Levels that are taken off to see whether anything is left; most documents have fewer.
_PASSES: Final = 16
#: Numbers that a 64-bit integer or float may not hold: over 19 digits, or over 17 with a fraction.
_LONG: Final = re.compile(rb"[0-9]{20}|[1-9](?=[0-9.]{18})[0-9]*\.[0-9]|\.0*[1-9][0-9]{17}")
_HIGH: Final = range(0xD800, 0xDC00)
_LOW: Final = range(0xDC00, 0xE000)
_NOTHING: Final = object()


class NotJsonError(ValueError):
    """What was read is no JSON that is taken. Its text goes on a sentence: "is not JSON: ..."."""


def is_deep(data: bytes | bytearray, value: Any) -> bool:
    """Tell whether a document nests more than DEEPEST levels.

    Args:
        data: Its text, or the texts of several documents.
        value: What orjson made of it.
    """
    if len(data) <= SHALLOW:
        return False
    # Taking the innermost pairs off is several times as fast as writing the value; brackets in texts only hinder it.
    brackets = data.translate(None, _NO_BRACKETS)
    for level in range(_PASSES):
        if len(brackets) <= DEEPEST - level:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    try:
        orjson.dumps([[[[value]]]])  # its writer stops at 254 levels
    except TypeError:
        return True
    return False


def load_json(data: bytes | bytearray) -> Any:
    """Return the value of a JSON text; integers and decimals that no 64-bit number holds keep their digits.

    Raises:
        orjson.JSONDecodeError: It is no JSON.
    """
    value = orjson.loads(data)
    if _LONG.search(data):
        with suppress(
            RecursionError
        ):  # nested deeper than Python's parser goes: `is_deep` finds it
            return _EXACT.decode(bytes(data).decode())
    return value


def parse_halves(data: bytes | bytearray, error: orjson.JSONDecodeError) -> Any:
    r"""Parse what orjson refused if that was for a half of a surrogate pair alone, such as `\ud83d`.

    Raises:
        NotJsonError: It is no JSON all the same.
    """
    if "depth" in error.msg:
        raise NotJsonError(TOO_DEEP) from None
    if b"\\ud" in data or b"\\uD" in data:
        try:
            return _EXACT.decode(data.decode())
        except (ValueError, RecursionError):
            pass
    raise NotJsonError(f"is not JSON: {error}") from None


def parse_json(data: bytes | bytearray) -> Any:
    """Parse a document; halves of surrogate pairs become U+FFFD.

    Raises:
        NotJsonError: It is no JSON, or nested too deeply.
    """
    try:
        value = load_json(data)
    except orjson.JSONDecodeError as error:
        value = _mend(parse_halves(data, error), None, None)
    if is_deep(data, value):
        raise NotJsonError(TOO_DEEP)
    return value


def _parse_decimal(text: str) -> float | Decimal:
    value = float(text)
    try:
        exact = Decimal(text)
    except InvalidOperation:  # an exponent that no decimal has
        return value
    return value if exact == Decimal(repr(value)) else exact


def _parse_integer(text: str) -> int | Decimal:
    # Python refuses to make an integer of more than 4300 digits.
    return int(text) if len(text) < 4000 else Decimal(text)


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)


_EXACT: Final = json.JSONDecoder(
    parse_float=_parse_decimal, parse_int=_parse_integer, parse_constant=_refuse_constant
)


class SurrogateJoiner:
    """Joins the halves of surrogate pairs where two values of a stream meet.

    Streams of texts are cut between any two characters of JavaScript or Java, also within one of Unicode's. A value
    with a text that ends in the first half waits for the next one: if the text at the same place there begins with the
    second half, the character goes there. A half that nothing completes is U+FFFD.
    """

    __slots__ = ("_before", "_held")

    def __init__(self) -> None:
        self._before: Any = None
        self._held: Any = _NOTHING

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return self._held is _NOTHING

    def add(self, value: Any) -> list[Any]:
        """Take the next value; return those that are complete by now."""
        ready = self.end(value)
        if _ends_in_half(value):
            self._held = value
        else:
            ready.append(_mend(value, self._before, None))
            self._before = None
        return ready

    def end(self, after: Any = None) -> list[Any]:
        """Return the value that waits, if any, given what comes after it."""
        held, self._held = self._held, _NOTHING
        if held is _NOTHING:
            return []
        before, self._before = self._before, held
        return [_mend(held, before, after)]


def _ends_in_half(value: Any) -> bool:
    if type(value) is str:
        return value != "" and ord(value[-1]) in _HIGH
    if type(value) is dict:
        return any(map(_ends_in_half, value.values()))
    return type(value) is list and any(map(_ends_in_half, value))


def _mend(value: Any, before: Any, after: Any) -> Any:
    """Return a value without halves, given what stands at the same place before and after it."""
    if type(value) is str:
        if not value:
            return value
        if type(before) is str and before and ord(before[-1]) in _HIGH and ord(value[0]) in _LOW:
            value = before[-1] + value
        if type(after) is str and after and ord(after[0]) in _LOW and ord(value[-1]) in _HIGH:
            value = value[:-1]
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if type(value) is dict:
        before = before if type(before) is dict else {}
        after = after if type(after) is dict else {}
        return {
            _mend(name, None, None): _mend(one, before.get(name), after.get(name))
            for name, one in value.items()
        }
    if type(value) is list:
        before = before if type(before) is list else ()
        after = after if type(after) is list else ()
        return [
            _mend(one, _at(before, index), _at(after, index)) for index, one in enumerate(value)
        ]
    return value


def _at(values: Any, index: int) -> Any:
    return values[index] if index < len(values) else None
