"""The values of the language: their kinds, text and JSON, and literals with a form of their own."""

from __future__ import annotations

import base64
import json
import re
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from math import isinf
from typing import Any, Final
from urllib.parse import urlsplit

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
    #: What to write where a value is needed.
    remedy = "use `collect` to read it into a variable first"

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


#: The powers of ten up to which decimals are written without an exponent.
_PLAIN: Final = 400


def decimal_text(value: Decimal) -> str:
    """Return a decimal with all its digits, in a form that is also a JSON number."""
    if not value.is_finite():
        raise RunError("template", f"the decimal {value} is not a number")
    text = str(value)
    return f"{value:f}" if "E" in text and -_PLAIN <= value.adjusted() <= _PLAIN else text


def _encode_other(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(decimal_text(value).encode()) if value.is_finite() else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Opaque):
        raise RunError("template", f"a {value.kind} can't be written as JSON: {value.remedy}")
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
    if isinstance(value, float):
        text = repr(value)
        if "e" not in text and "n" not in text:  # as a decimal writes it, which is slow to make
            return ("number", text)
        exact = Decimal(text)
    else:
        exact = Decimal(value)
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
    """Encode what orjson refuses: integers over 64 bits, halves of surrogate pairs."""
    try:
        return orjson.dumps(_encodable(value), _encode_other, _OPTIONS)
    except (RecursionError, TypeError) as error:
        if isinstance(error.__cause__, RunError):
            raise error.__cause__ from None
        raise RunError("template", "the value is nested too deeply to be written as JSON") from None


def _encodable(value: Any) -> Any:
    if type(value) is int:
        in_64_bits = -(2**63) <= value < 2**64
        # `str` of an integer has a limit of digits.
        return value if in_64_bits else orjson.Fragment(str(Decimal(value)).encode())
    if isinstance(value, str):
        # Halves of a surrogate pair that belong together are joined; a lone one becomes U+FFFD.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_encodable(str(key)): _encodable(each) for key, each in value.items()}
    return [_encodable(each) for each in value] if isinstance(value, (list, tuple)) else value


#: What a JSON text holds, once the characters of its numbers are zeros, if one of them may lose digits as a 64-bit
#: integer or float, which have 15 at least. A regular expression would take ten times as long as this.
_LONG: Final = b"0" * 17
_TO_ZEROS: Final = bytes(48 if byte in b"0123456789.eE" else 32 for byte in range(256))
#: What may be a number that is larger than any float.
_HUGE: Final = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{309}")
#: Digits of the longest number that keeps them: with more, arithmetic takes time.
_MOST_DIGITS: Final = 4000


def has_long_numbers(data: bytes | bytearray) -> bool:
    """Tell whether a JSON text may hold a number that loses digits as a 64-bit integer or float."""
    return _LONG in data.translate(_TO_ZEROS)


def load_json(data: bytes | bytearray) -> Any:
    """Return the value of a JSON text; numbers that no 64-bit integer or float holds keep their digits.

    Raises:
        orjson.JSONDecodeError: It is not JSON.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        # One that no float is large enough for. A half of a surrogate pair is for the caller to mend.
        if _HUGE.search(data) is not None and b"\\ud" not in data.lower():
            with suppress(ValueError, RecursionError):
                return parse_exactly(data.decode())
        raise
    if has_long_numbers(data):
        with suppress(RecursionError):  # nested deeper than Python's parser goes
            return parse_exactly(data.decode())
    return value


def parse_exactly(text: str) -> Any:
    """Return the value of a JSON text as `load_json` does, in more time; halves of surrogate pairs stay.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    return _EXACT.decode(text)


def shorten(exact: Decimal, number: float | None = None) -> float | Decimal:
    """Return a number as a float if that has the same digits, or if they are too many."""
    if number is None:
        number = float(exact)
    if isinf(number):
        return exact
    return number if Decimal(repr(number)) == exact or len(str(exact)) > _MOST_DIGITS else exact


def _parse_decimal(text: str) -> float | Decimal:
    number = float(text)
    endless = isinf(number)
    if not endless and (len(text) < len(_LONG) or repr(number) == text):
        return number
    try:
        exact = Decimal(text)
    except InvalidOperation:  # an exponent that no decimal has
        exact = _ENDLESS
    if endless and exact.adjusted() > _MOST_DIGITS:
        raise ValueError(f"a number has more than {_MOST_DIGITS:,} digits")
    return shorten(exact, number)


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)


_ENDLESS: Final = Decimal("1e999999")
_EXACT: Final = json.JSONDecoder(parse_float=_parse_decimal, parse_constant=_refuse_constant)


# -------------------------------------- literals: durations, sizes, rates, dates, e-mail addresses


#: Seconds in each unit of a duration.
DURATIONS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
#: Bytes in each unit of a size; 1 KB is 1024 bytes.
SIZES: Final = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}

_MOST_SECONDS: Final = 100 * 365 * 86400.0
_MOST_BYTES: Final = 2**60
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")


def parse_duration(value: object) -> float:
    """Return seconds, from `200ms`, `5s`, `10m`, `1h`, `2d` or a number of milliseconds.

    Raises ValueError with what to write.
    """
    number, unit = _split(value, "write a duration like 200ms, 5s, 10m, 1h, 2d or as a number of milliseconds")
    if unit not in ("", *DURATIONS):
        raise ValueError(f"the unit `{unit}` is not known: write ms, s, m (minutes), h or d, as in 5s")
    seconds = number * DURATIONS[unit or "ms"]
    if seconds > _MOST_SECONDS:
        raise ValueError("the duration is longer than 100 years: write a shorter one, such as 1h")
    return seconds


def parse_every(value: object) -> int | float:
    """Return a number of items as an integer, a duration with its unit as seconds.

    Raises ValueError with what to write.
    """
    hint = "write a number of items, such as 10, or a duration with its unit, such as 10s"
    if isinstance(value, str) and not value.strip()[-1:].isdigit():
        seconds = parse_duration(value)
        if seconds < 0.001:
            raise ValueError("the duration is too short: write at least 1ms")
        return seconds
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or value < 1:
        raise ValueError(hint)
    return value


def parse_size(value: object) -> int:
    """Return a size in bytes, from `64KB`, `10MB` (1 KB is 1024 bytes) or a number of bytes.

    Raises ValueError with what to write.
    """
    number, unit = _split(value, "write a size like 64KB, 10MB or as a number of bytes")
    unit = unit.upper() or "B"
    if unit not in SIZES:
        raise ValueError(f"the unit `{unit}` is not known: write B, KB, MB, GB or TB, as in 10MB")
    size = number * SIZES[unit]
    if size > _MOST_BYTES:
        raise ValueError("the size is too large: write a smaller one, such as 10MB")
    if size != int(size):
        raise ValueError("a size is a whole number of bytes: write it like 64KB or 10MB")
    return int(size)


def show_duration(seconds: float) -> str:
    """Return a duration as authors write it, in the largest unit that makes it a whole number."""
    thousandths = round(seconds * 1000, 6)
    for unit in reversed(DURATIONS):
        each = round(DURATIONS[unit] * 1000)
        if thousandths and not thousandths % each:
            return f"{thousandths / each:.0f}{unit}"
    return f"{thousandths:.15g}ms" if thousandths else "0s"


def show_size(size: float) -> str:
    """Return a size as authors write it, in the largest unit that makes it a whole number."""
    for unit in reversed(SIZES):
        if size and not size % SIZES[unit]:
            return f"{size / SIZES[unit]:.0f}{unit}"
    return f"{size:.15g}B"


def _split(value: object, hint: str) -> tuple[float, str]:
    """Return number and unit, "" for a bare number. Raises ValueError with the hint."""
    if isinstance(value, str) and len(value) < 100 and (found := _PART.fullmatch(value.strip())):
        return float(found[1]), found[2]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return (float(value) if value <= _MOST_BYTES else _MOST_BYTES * 2.0), ""
    raise ValueError(_negative(str(value)[:9], hint))


def _negative(value: str, hint: str) -> str:
    return f"it can't be negative; {hint}" if value.strip().startswith("-") else hint


# ------------------------------------------------------------------------------------------- rates


#: The ways to count: in windows that follow one another, or in the time that has just passed.
ALGORITHMS: Final = ("fixed", "sliding")

_WORDS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_RATE: Final = re.compile(r"([0-9]{1,12}) ?(?:/|per) ?(?:([0-9]{1,6}(?:\.[0-9]{1,3})?) ?)?([A-Za-z]+)")
_MOST: Final = 1_000_000_000
_LONGEST: Final = 366 * 86400.0
_SHORTEST: Final = 0.01
_HINT: Final = "write a rate like 60/minute, 10/second, 1000/hour, 5000/day or 20/10s"


@dataclass(frozen=True, slots=True)
class Rate:
    """How many in how many seconds."""

    limit: int
    seconds: float

    def __str__(self) -> str:
        word = next((word for word, seconds in _WORDS.items() if seconds == self.seconds), None)
        return f"{self.limit}/{word or show_duration(self.seconds)}"


def parse_rate(value: object) -> Rate:
    """Return the rate that `60/minute`, `20/10s` and the like say.

    Raises ValueError with what to write.
    """
    if isinstance(value, Rate):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{value} in which time? Write it like {max(1, value)}/minute")  # noqa: TRY004 - as for every value
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(_HINT)
    limit, count, unit = int(found[1]), float(found[2] or 1), found[3]
    each = _WORDS.get(unit.lower().removesuffix("s")) or DURATIONS.get(unit)
    if each is None:
        raise ValueError(f"the time `{unit}` is not known: {_HINT}")
    if not 1 <= limit <= _MOST:
        raise ValueError(f"the number of a rate is from 1 to {_MOST}")
    seconds = count * each
    if not _SHORTEST <= seconds <= _LONGEST:
        raise ValueError("the time of a rate is from 10ms to 366d")
    return Rate(limit, seconds)


TIMESTAMP_EXAMPLE: Final = "2026-01-31T12:00:00Z"

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,40})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# What browsers take for <input type=email> (WHATWG HTML, 4.10.5.1.5): ASCII, without quotes and comments.
_LABEL: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_EMAIL: Final = re.compile(rf"[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")
_NOT_IN_URL: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff\\<>\"^`{|}]")
_SCHEMES: Final = frozenset({"http", "https", "ws", "wss"})


def parse_timestamp(text: str) -> datetime | None:
    """Return a timestamp of RFC 3339, None for anything else. Digits past microseconds are cut off."""
    if len(text) > 80 or _TIMESTAMP.fullmatch(text) is None:
        return None
    try:
        found = datetime.fromisoformat(text.upper())
        found.astimezone(UTC)  # the first and last hours of the calendar have no place in UTC
    except (ValueError, OverflowError):
        return None
    return found


def parse_date(text: str) -> date | None:
    """Return a date of RFC 3339, None for anything else."""
    if _DATE.fullmatch(text) is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def parse_uuid(text: str) -> str | None:
    """Return a UUID in small letters (RFC 9562), None for anything else."""
    return text.lower() if _UUID.fullmatch(text) is not None else None


def parse_email(text: str) -> str | None:
    """Return an e-mail address as it is, None for anything else. At most 254 characters (RFC 5321)."""
    return text if len(text) <= 254 and _EMAIL.fullmatch(text) is not None else None


def parse_url(text: str) -> str | None:
    """Return an absolute URL of the web as it is, None for anything else."""
    if len(text) > 8192 or _NOT_IN_URL.search(text) is not None:
        return None
    try:
        parts = urlsplit(text)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        return None
    return text if parts.scheme in _SCHEMES and parts.hostname and port_is_one else None


def is_one_of(content_type: str, allowed: tuple[str, ...]) -> bool:
    """Tell whether a media type is among those allowed; `image/*` allows all images. Parameters don't count."""
    found = content_type.partition(";")[0].strip().lower()
    return any(
        each.lower() in (found, "*/*") or (each.endswith("/*") and found.startswith(each[:-1].lower()))
        for each in allowed
    )
