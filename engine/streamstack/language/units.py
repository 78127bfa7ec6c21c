"""Literals with a form of their own: durations, sizes, rates, dates, e-mail addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final
from urllib.parse import urlsplit

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
