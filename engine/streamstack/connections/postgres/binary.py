"""What asyncpg reads too narrowly, read from PostgreSQL's binary forms instead, so that every value of a column is one.

Times before the year 1, after 9999 and without end, intervals of months, the `float4` that is meant: where the
language has no value for one, it is the text that PostgreSQL reads back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from struct import Struct, error
from typing import Any, Final

import orjson

from streamstack.language.values import to_json

Convert = Callable[[Any], Any]

#: PostgreSQL counts from here (its manual, section 54.1; src/include/datatype/timestamp.h).
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST_DAY: Final = _EPOCH.toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = 86_400_000_000
#: The calendar comes round in so many years, of so many days.
_ROUND: Final = (400, 146_097)
_FLOAT4: Final = Struct("!f")
_INTERVAL: Final = Struct("!qii")
_TIMETZ: Final = Struct("!qi")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _endless(number: int, bits: int) -> str | None:
    """Return how PostgreSQL writes the least and the greatest number where they mean no time at all."""
    end = 2 ** (bits - 1)
    return "infinity" if number == end - 1 else "-infinity" if number == -end else None


def _far_day(days: int) -> tuple[str, str]:
    """Return a day that Python has no date for, and its era."""
    years, round_ = _ROUND
    turns, rest = divmod(days + _FIRST_DAY - 1, round_)
    found = date.fromordinal(rest + 1)
    year = found.year + turns * years
    shown, era = (year, "") if year > 0 else (1 - year, " BC")
    return f"{shown:04}-{found.month:02}-{found.day:02}", era


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds % 3600 // 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}" if fraction else text


def read_date(data: bytes) -> date | str:
    """Read a day."""
    days = _number(data)
    try:
        return date.fromordinal(days + _FIRST_DAY)
    except (ValueError, OverflowError):
        return _endless(days, 32) or "".join(_far_day(days))


def read_timestamp(data: bytes) -> datetime | str:
    """Read a time, which is in UTC with and without its zone."""
    microseconds = _number(data)
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        days, clock = divmod(microseconds, _DAY)
        endless = _endless(microseconds, 64)
        if endless is not None:
            return endless
        day, era = _far_day(days)
        return f"{day}T{_clock(clock)}Z{era}"


def read_time(data: bytes) -> str:
    """Read a time of the day; 24:00:00 is one."""
    return _clock(_number(data))


def read_timetz(data: bytes) -> str:
    """Read a time of the day with its zone."""
    clock, west = _TIMETZ.unpack(data)
    sign, zone = ("-", west) if west > 0 else ("+", -west)
    shown = f"{sign}{zone // 3600:02}:{zone % 3600 // 60:02}"
    return _clock(clock) + (f"{shown}:{zone % 60:02}" if zone % 60 else shown)


def read_interval(data: bytes) -> str:
    """Read an interval as ISO 8601 writes a duration, with the signs that PostgreSQL gives its parts: `P1M2DT-3H`.

    A month stays a month and a day a day: neither is a number of hours.
    """
    clock, days, months = _INTERVAL.unpack(data)
    if (clock, days, months) in _NO_END:
        return _NO_END[clock, days, months]
    years, months = _parts(months, 12)
    text = "".join(f"{n}{unit}" for n, unit in ((years, "Y"), (months, "M"), (days, "D")) if n)
    seconds, fraction = _parts(clock, 1_000_000)
    minutes, seconds = _parts(seconds, 60)
    hours, minutes = _parts(minutes, 60)
    time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M")) if n)
    if seconds or fraction:
        sign = "-" if clock < 0 else ""
        after = f".{abs(fraction):06}".rstrip("0") if fraction else ""
        time += f"{sign}{abs(seconds)}{after}S"
    return f"P{text}{'T' if time else ''}{time}" if text or time else "PT0S"


def _parts(number: int, size: int) -> tuple[int, int]:
    """Divide, both parts with the sign of the number."""
    whole, rest = divmod(abs(number), size)
    return (-whole, -rest) if number < 0 else (whole, rest)


_NO_END: Final = {
    (2**63 - 1, 2**31 - 1, 2**31 - 1): "infinity",
    (-(2**63), -(2**31), -(2**31)): "-infinity",
}


def read_float4(data: bytes) -> float:
    """Read a number of 32 bits as the decimal that is meant: 0.1, not 0.10000000149011612."""
    (number,) = _FLOAT4.unpack(data)
    for digits in (6, 7, 8):
        short = float(f"{number:.{digits}g}")
        try:
            if _FLOAT4.pack(short) == data:
                return short
        except (OverflowError, error):
            continue
    return float(f"{number:.9g}")


def read_json(data: bytes) -> Any:
    """Read JSON; PostgreSQL holds numbers that no float does."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data, parse_float=Decimal)


def _date_bytes(value: date) -> bytes:
    return (value.toordinal() - _FIRST_DAY).to_bytes(4, "big", signed=True)


def _timestamp_bytes(value: datetime) -> bytes:
    return ((value - _EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True)


def _float4_bytes(value: float) -> bytes:
    return _FLOAT4.pack(value)


def _never(value: Any) -> bytes:
    """Refuse: values of such a type are handed over as texts."""
    raise TypeError(f"{value!r} is not a text")


#: By a type's name and its number, which never changes: how its values are written and read, both in PostgreSQL's
#: binary form. That of `jsonb` is the text, after a number of its version.
_CODECS: Final[dict[tuple[str, int], tuple[Convert, Convert]]] = {
    ("json", 114): (to_json, read_json),
    ("jsonb", 3802): (lambda value: b"\x01" + to_json(value), lambda data: read_json(data[1:])),
    ("date", 1082): (_date_bytes, read_date),
    ("timestamp", 1114): (_timestamp_bytes, read_timestamp),
    ("timestamptz", 1184): (_timestamp_bytes, read_timestamp),
    ("time", 1083): (_never, read_time),
    ("timetz", 1266): (_never, read_timetz),
    ("interval", 1186): (_never, read_interval),
    ("float4", 700): (_float4_bytes, read_float4),
    ("char", 18): (
        lambda value: value.encode()[:1],
        lambda data: data.rstrip(b"\0").decode("latin-1"),
    ),
}


def teach(connection: Any) -> None:
    """Let a connection of asyncpg read and write these types so.

    Its own `set_type_codec` asks the database for each type, which makes a new connection take several times as long.
    """
    settings = connection._protocol.get_settings()  # noqa: SLF001
    for (name, number), (encode, decode) in _CODECS.items():
        settings.add_python_codec(
            number, name, "pg_catalog", [], "scalar", encode, decode, "binary"
        )
