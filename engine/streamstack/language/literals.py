"""The written forms of timestamps, dates, UUIDs, e-mail addresses, URLs and media types."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Final
from urllib.parse import urlsplit

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
        each.lower() in (found, "*/*")
        or (each.endswith("/*") and found.startswith(each[:-1].lower()))
        for each in allowed
    )
