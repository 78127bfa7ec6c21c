"""Filters of timestamps and dates."""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from streamstack.language.filters.operations import MOMENT, TEXT, ArgumentFault, declare, failed, text_argument, wrong
from streamstack.language.foreign import date_format
from streamstack.language.operators import aware, is_finite

_UNITS: Final = {
    "ms": 0.001, "millisecond": 0.001, "s": 1, "sec": 1, "second": 1, "m": 60, "min": 60,
    "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400, "w": 604800, "week": 604800,
}  # fmt: skip
_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
_STEP: Final = re.compile(r"\s*([+-]?)\s*(\d{1,12}(?:\.\d{1,9})?)\s*([A-Za-z]+)\s*(?:,|and)?", re.ASCII)


def moment_of(value: Any, name: str) -> datetime:
    """Return the timestamp a value stands for, with its zone (UTC where it has none)."""
    if isinstance(value, datetime):
        return aware(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, str):
        try:
            return aware(datetime.fromisoformat(value.strip()))
        except (ValueError, OverflowError):
            short = value if len(value) <= 40 else value[:37] + "..."
            raise failed(name, f'"{short}" is not a timestamp like 2026-01-31T10:00:00Z') from None
    if type(value) in (int, float, Decimal) and is_finite(value):
        try:
            return datetime.fromtimestamp(float(value), UTC)
        except (ValueError, OverflowError, OSError):
            raise failed(name, "the number of seconds since 1970 is out of range") from None
    raise wrong(name, "a timestamp, a date or their text", value)


def _check_format(arguments: Sequence[object]) -> ArgumentFault | None:
    """Return the problem with a constant date format of another language."""
    if arguments and isinstance(arguments[0], str) and (meant := date_format(arguments[0])):
        message = f"`{arguments[0]}` is written as it is: a date format has signs such as %Y, %m and %d"
        return ArgumentFault("bad-template", message, f'write `date("{meant}")`', 0, json.dumps(meant))
    return None


@declare(
    "filter",
    "date",
    '"2026-01-31T23:30:00Z" | date("%d.%m.%Y %H:%M", "Europe/Berlin")',
    "01.02.2026 00:30",
    takes={"format": TEXT, "timezone": TEXT},
    check=_check_format,
    shape=f"{MOMENT} -> text",
)
def format_date(value: Any, format: str = "%Y-%m-%d", timezone: str = "") -> str:  # noqa: A002
    """Format a timestamp or date (or its text).

    %Y year, %m month, %d day, %H hour, %M minute, %S second, %B and %b month name, %A and %a day name, %j day
    of the year, %s seconds since 1970. The second argument is a time zone, such as Europe/Berlin.
    """
    moment = moment_of(value, "date")
    if timezone:
        try:
            moment = moment.astimezone(ZoneInfo(timezone))
        except (KeyError, ValueError, OSError, OverflowError):
            raise failed("date", f"unknown time zone `{timezone}`") from None
    if len(format) > 1000:
        raise failed("date", "the format is too long")
    try:
        # The platform's %s would read the time as a local one.
        return moment.strftime(format.replace("%s", str(int(moment.timestamp() // 1))))
    except (ValueError, UnicodeError):
        raise failed("date", f'"{format}" is not a date format') from None


@declare(
    "filter",
    "addTime",
    '"2026-01-31T10:00:00Z" | addTime("1 month") | toText',
    "2026-02-28T10:00:00Z",
    shape=f"{MOMENT} -> timestamp | date",
    arguments=("text | number",),
)
def add_time(value: Any, time: Any) -> datetime | date:
    """Add a duration to a timestamp or date, or subtract it.

    The duration is a text such as "7 days", "-2h 30m" or "1 month" (limited to the last day of a shorter
    month), or a number of milliseconds. A date stays a date if whole days are added.
    """
    moment = moment_of(value, "addTime")
    try:
        if type(time) in (int, float, Decimal):
            moved = moment + timedelta(milliseconds=float(time))
        else:
            moved = _moved(moment, text_argument(time, "addTime", "time"))
    except (OverflowError, ValueError):
        raise failed("addTime", "the result is not between the years 1 and 9999") from None
    whole_days = (moved.hour, moved.minute, moved.second, moved.microsecond) == (0, 0, 0, 0)
    if whole_days and isinstance(value, date) and not isinstance(value, datetime):
        return moved.date()
    return moved


def _moved(moment: datetime, time: str) -> datetime:
    position, sign = 0, ""
    while position < len(time.rstrip()):
        step = _STEP.match(time, position)
        if step is None:
            break
        # One sign holds for all that follows it: "-2h 30m" is two and a half hours ago.
        sign = step.group(1) or sign
        count, unit = Decimal(sign + step.group(2)), step.group(3)
        name = unit.lower().removesuffix("s") if len(unit) > 2 else unit.lower()
        if name in _MONTHS and count == int(count):
            moment = _add_months(moment, int(count) * _MONTHS[name])
        elif name in _UNITS:
            moment += timedelta(seconds=float(count) * _UNITS[name])
        else:
            break
        position = step.end()
    if position == 0 or position < len(time.rstrip()):
        raise failed("addTime", f'"{time[:40]}" is not a time span like "7 days" or "-2h 30m"')
    return moment


def _add_months(moment: datetime, months: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise OverflowError
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)


@declare("filter", "toDate", '"2026-01-31T10:00:00Z" | toDate | toText', "2026-01-31", shape=f"{MOMENT} -> date")
def to_date(value: Any) -> date:
    """Return the date of a timestamp, or of a text that begins with a date (2026-01-31)."""
    return moment_of(value, "toDate").date()


@declare("filter", "toTimestamp", "0 | toTimestamp | toText", "1970-01-01T00:00:00Z", shape=f"{MOMENT} -> timestamp")
def to_timestamp(value: Any) -> datetime:
    """Return the timestamp of an RFC 3339 text, a date, or seconds since 1970."""
    return moment_of(value, "toTimestamp")
