"""Values of the language as PostgreSQL's types, and back.

Types that asyncpg decodes too narrowly are read from PostgreSQL's binary forms: times before the year 1, after 9999
and infinite ones, intervals of months, the decimal that a `float4` means. Where the language has no value for one, it
is the text that PostgreSQL reads back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from struct import Struct, error
from typing import Any, Final

import asyncpg
import orjson

from streamstack.connections.database.pool import database_error
from streamstack.errors import RunError
from streamstack.language.values import Opaque, kind, load_json, parse_exactly, to_json, to_text

Convert = Callable[[Any], Any]


class Recast(Exception):  # noqa: N818  (asks for another form of the statement; never seen outside)
    """A value has another type than the statement expects: PostgreSQL itself is to convert it."""


#: Types whose values are texts to us.
TEXTUAL: Final = frozenset({"text", "varchar", "bpchar", "name", "citext", "unknown", "xml", "cstring"})
JSON: Final = frozenset({"json", "jsonb"})
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
#: The greatest number of 32 bits.
_LARGEST_FLOAT4: Final = 3.4028234663852886e38
#: Bits of the integer types, beside their sign.
_INTEGERS: Final = {"int2": 15, "int4": 31, "int8": 63, "oid": 32}


def encoder_for(type_: asyncpg.Type) -> Convert:
    """Return what makes an argument of a value, for a parameter of a type.

    It raises Recast where the type is not the value's own, RunError ``template`` for what no database can hold.
    """
    if type_.kind == "array":
        element = encoder_of(type_.name.removesuffix("[]"))

        def encode_items(value: Any) -> Any:
            if not isinstance(value, (list, tuple)):
                raise Recast
            return [
                None if item is None else encode_items(item) if isinstance(item, (list, tuple)) else element(item)
                for item in value
            ]

        return encode_items
    if type_.kind == "scalar":
        return encoder_of(type_.name)
    return _as_text


def encoder_of(name: str) -> Convert:
    """Return what makes an argument of a value that is not null, by the name of a scalar type."""
    if name in TEXTUAL:
        return _text
    if name in JSON:
        return _as_it_is
    if name in _INTEGERS:
        return _integer_of(2 ** _INTEGERS[name])
    return _ENCODERS.get(name, _as_text)


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise Recast


def _as_it_is(value: Any) -> Any:
    return value


def _integer_of(end: int) -> Convert:
    def encode(value: Any) -> int:
        if type(value) is int and -end <= value < end:
            return value
        if isinstance(value, (float, Decimal)):
            try:
                if value == int(value) and -end <= value < end:
                    return int(value)
            except (OverflowError, ValueError, InvalidOperation):
                pass
        raise Recast  # PostgreSQL says what is wrong with it

    return encode


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int or isinstance(value, Decimal):
        try:
            return float(value)
        except OverflowError:
            pass
    raise Recast


def _float4(value: Any) -> float:
    number = _float(value)
    if math.isfinite(number) and abs(number) > _LARGEST_FLOAT4:
        raise Recast  # PostgreSQL says what is wrong with it
    return number


def _numeric(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if type(value) is int:
        return Decimal(value)
    if type(value) is float:
        return Decimal(repr(value))  # the digits that are seen, not those of its binary fraction
    raise Recast


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise Recast


def _timestamptz(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise Recast


def _timestamp_without_zone(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, date):
        return datetime.combine(value, time())
    raise Recast


def _date(value: Any) -> date:
    if isinstance(value, datetime):
        return value.astimezone(UTC).date() if value.tzinfo is not None else value.date()
    if isinstance(value, date):
        return value
    raise Recast


def _bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise Recast


def _uuid(value: Any) -> str:
    if type(value) is str and _UUID.fullmatch(value):
        return value
    raise Recast


def _char(value: Any) -> bytes:
    if type(value) is str:
        return value.encode()[:1] or b"\0"  # as PostgreSQL does with a text
    raise Recast


def _as_text(value: Any) -> Any:
    """Leave a type that only PostgreSQL knows to itself: it reads a text."""
    raise Recast


_ENCODERS: Final[dict[str, Convert]] = {
    "float4": _float4,
    "float8": _float,
    "numeric": _numeric,
    "bool": _boolean,
    "timestamptz": _timestamptz,
    "timestamp": _timestamp_without_zone,
    "date": _date,
    "bytea": _bytes,
    "uuid": _uuid,
    "char": _char,
}


def cast_of(value: Any) -> str:
    """Return the type of PostgreSQL that a value has by itself; "" for null, whose type is unknown.

    Raises RunError ``template`` for a stream or a file.
    """
    if value is None:
        return ""
    if isinstance(value, Opaque):
        raise RunError("template", f"a {value.kind} can't be a value of a statement: {value.remedy}", final=True)
    if isinstance(value, (list, tuple)):
        return _cast_of_list(value)
    if type(value) is int and not -(2**63) <= value < 2**63:
        return "numeric"
    return _CASTS.get(kind(value), "text")


_CASTS: Final = {
    "boolean": "bool",
    "integer": "int8",
    "text": "text",
    "object": "jsonb",
    "timestamp": "timestamptz",
    "date": "date",
    "bytes": "bytea",
}


def _cast_of_list(items: list[Any] | tuple[Any, ...]) -> str:
    """Return an array's type where all items have one type, else that of JSON."""
    casts = {_decimal_cast(item) or cast_of(item) for item in items if item is not None}
    if len(casts) == 1:
        (cast,) = casts
        if cast != "jsonb" and not cast.endswith("[]"):
            return f"{cast}[]"
    return "jsonb"


def _decimal_cast(value: Any) -> str:
    if isinstance(value, Decimal):
        return "numeric"
    return "float8" if type(value) is float else ""


def cast_for(value: Any) -> str:
    """Return the cast behind a parameter whose type the database can't tell; "" for null."""
    cast = _decimal_cast(value) or cast_of(value)
    return f"::{cast}" if cast else ""


# ------------------------------------------------------------------------------------ what comes back


def row_maker(attributes: tuple[asyncpg.Attribute, ...]) -> Callable[[Any], dict[str, Any]]:
    """Return what makes an object of a row, for the columns of a statement.

    It raises RunError ``database`` where two columns have one name: one of them would be lost in silence.
    """
    names = [each.name for each in attributes]
    if len(set(names)) < len(names):
        return _refuse_twins(next(name for name in names if names.count(name) > 1))
    special = [(each.name, convert) for each in attributes if (convert := _decoder_for(each.type)) is not None]
    if not special:
        return dict

    def make(record: Any) -> dict[str, Any]:
        row = dict(record)
        for name, convert in special:
            held = row[name]
            if held is not None:
                row[name] = convert(held)
        return row

    return make


def _refuse_twins(name: str) -> Callable[[Any], dict[str, Any]]:
    def refuse(record: Any) -> dict[str, Any]:
        reason = f'two columns of the statement are called "{name}": name one of them otherwise, with AS'
        raise database_error("42701", reason, final=True)

    return refuse


def _decoder_for(type_: asyncpg.Type) -> Convert | None:
    """Return what makes a value of the language of what asyncpg gives; None where that is one already."""
    if type_.kind == "array":
        name = type_.name.removesuffix("[]")
        if name in _AS_IT_IS:
            return None
        inner = _DECODERS.get(name, plain)
        return lambda items: [_decode_item(item, inner) for item in items]
    if type_.kind == "scalar":
        return None if type_.name in _AS_IT_IS else _DECODERS.get(type_.name, plain)
    return plain


def _decode_item(item: Any, inner: Convert) -> Any:
    if item is None:
        return None
    return [_decode_item(each, inner) for each in item] if isinstance(item, list) else inner(item)


def plain(value: Any) -> Any:
    """Return a value of the language for anything that asyncpg makes of a column."""
    if value is None or isinstance(value, (str, int, float, Decimal, datetime, date, bytes)):
        return value
    if isinstance(value, asyncpg.Record):
        if all(name.startswith("f") and name[1:].isdigit() for name in value.keys()):  # noqa: SIM118
            return [plain(item) for item in value.values()]
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, asyncpg.Path):
        return [plain(item) for item in value]
    if isinstance(value, asyncpg.BitString):
        return value.as_string().replace(" ", "")
    if isinstance(value, asyncpg.Range):
        if value.isempty:
            return "empty"
        lower, upper = ("" if end is None else to_text(end) for end in (value.lower, value.upper))
        return f"{'[' if value.lower_inc else '('}{lower},{upper}{']' if value.upper_inc else ')'}"
    return str(value)


_AS_IT_IS: Final = (
    TEXTUAL
    | JSON
    | {*_INTEGERS, "float4", "float8", "numeric", "bool", "timestamptz", "timestamp", "date", "time", "timetz"}
    | {"interval", "bytea"}
)
_DECODERS: Final[dict[str, Convert]] = {"uuid": str, "char": lambda data: data.rstrip(b"\0").decode("latin-1")}


# ------------------------------------------------------------------------------- binary forms

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


def read_timestamptz(data: bytes) -> datetime | str:
    """Read a time, in UTC."""
    return _timestamp(_number(data), _EPOCH, "Z")


def read_timestamp(data: bytes) -> datetime | str:
    """Read a time without a zone."""
    return _timestamp(_number(data), _EPOCH.replace(tzinfo=None), "")


def _timestamp(microseconds: int, epoch: datetime, zone: str) -> datetime | str:
    try:
        return epoch + timedelta(microseconds=microseconds)
    except OverflowError:
        days, clock = divmod(microseconds, _DAY)
        endless = _endless(microseconds, 64)
        if endless is not None:
            return endless
        day, era = _far_day(days)
        return f"{day}T{_clock(clock)}{zone}{era}"


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


_NO_END: Final = {(2**63 - 1, 2**31 - 1, 2**31 - 1): "infinity", (-(2**63), -(2**31), -(2**31)): "-infinity"}


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
        return load_json(data)
    except orjson.JSONDecodeError:
        return parse_exactly(data.decode())


def _timestamp_bytes(value: datetime) -> bytes:
    epoch = _EPOCH if value.tzinfo is not None else _EPOCH.replace(tzinfo=None)
    return ((value - epoch) // _MICROSECOND).to_bytes(8, "big", signed=True)


def _never(value: Any) -> bytes:
    """Refuse: values of such a type are handed over as texts."""
    raise TypeError(f"{value!r} is not a text")


#: By the name of a type: how its values are encoded and decoded, both in PostgreSQL's binary form. That of `jsonb` is
#: the text, after the number of its version.
_CODECS: Final[dict[str, tuple[Convert, Convert]]] = {
    "json": (to_json, read_json),
    "jsonb": (lambda value: b"\x01" + to_json(value), lambda data: read_json(data[1:])),
    "date": (lambda value: (value.toordinal() - _FIRST_DAY).to_bytes(4, "big", signed=True), read_date),
    "timestamp": (_timestamp_bytes, read_timestamp),
    "timestamptz": (_timestamp_bytes, read_timestamptz),
    "time": (_never, read_time),
    "timetz": (_never, read_timetz),
    "interval": (_never, read_interval),
    "float4": (_FLOAT4.pack, read_float4),
}


async def register_codecs(connection: asyncpg.Connection) -> None:
    """Make a connection encode and decode these types so."""
    for name, (encode, decode) in _CODECS.items():
        await connection.set_type_codec(name, schema="pg_catalog", encoder=encode, decoder=decode, format="binary")
