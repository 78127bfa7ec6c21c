"""What a bound value must be where a function takes it. Null passes: it counts as not given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from math import isfinite
from typing import Any, Final
from urllib.parse import quote

from streamstack.errors import RunError
from streamstack.language.names import forward
from streamstack.language.values import Opaque, Rate, kind, parse_duration, parse_every, parse_rate, parse_size, to_text


def _refuse(name: str, wanted: str, value: Any) -> RunError:
    return RunError("template", f"`{name}` must be {wanted}, not {_article(kind(value))}", parameter=name)


def _article(noun: str) -> str:
    if noun == "null":
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def required(value: Any, name: str) -> Any:
    """Return a value that is not null."""
    if value is None:
        raise RunError("template", f"`{name}` is required, but is null: write `| default(...)`")
    return value


def default(value: Any, otherwise: Any) -> Any:
    """Return a value, or what stands for it where it is null."""
    return otherwise if value is None else value


def text(value: Any, name: str) -> str | None:
    """Return a text; numbers, booleans and timestamps are written as one."""
    if value is None or type(value) is str:
        return value
    if isinstance(value, (list, Mapping, Opaque, bytes)):
        raise _refuse(name, "a text", value)
    return to_text(value)


def url_part(value: Any, name: str, in_path: bool) -> str:  # noqa: FBT001  (called by generated code)
    """Return the text of a binding inside a URL, percent-encoded (RFC 3986, 2.4).

    Raises RunError ``invalid-input`` for a segment of a path that leads out of it: such a value is a caller's.
    """
    part = text(value, name) or ""
    if in_path and part in (".", ".."):
        raise RunError(
            "invalid-input", f"a value in the path of `{name}` is `{part}`, which stands for another path", status=400
        )
    return quote(part.encode("utf-8", "replace"), safe="")


#: What may be bound inside a host that an author has begun, by what follows it there.
_HOST_PARTS: Final = {
    "labels": re.compile(r"[A-Za-z0-9_.-]*"),
    "label": re.compile(r"[A-Za-z0-9_-]*"),
    "end": re.compile(r"(?::?[0-9]{1,5})?(?:[/?#].*)?", re.DOTALL),
}


def url_host(value: Any, name: str, kind: str) -> str:
    """Return the text of a binding inside the host of a URL (RFC 3986, 3.2).

    Args:
        value: The bound value.
        name: The parameter, for messages.
        kind: What it may be: `labels` of the host, one `label`, or at its `end` a port and the path.

    Raises:
        RunError: ``invalid-input`` for what would lead to another host: such a value is a client's.
    """
    part = text(value, name) or ""
    if _HOST_PARTS[kind].fullmatch(part) is None:
        raise RunError("invalid-input", f"a value in the host of `{name}` would lead to another host", status=400)
    return part


def integer(value: Any, name: str) -> int | None:
    """Return an integer; a decimal without a fraction is one."""
    if value is None or type(value) is int:
        return value
    if isinstance(value, (float, Decimal)) and isfinite(value) and value == int(value):
        return int(value)
    raise _refuse(name, "an integer", value)


def number(value: Any, name: str) -> int | float | Decimal | None:
    """Return an integer or a decimal."""
    if value is None or (isinstance(value, (int, float, Decimal)) and value is not True and value is not False):
        return value
    raise _refuse(name, "a number", value)


def boolean(value: Any, name: str) -> bool | None:
    """Return a boolean."""
    if value is None or value is True or value is False:
        return value
    raise _refuse(name, "true or false", value)


def items(value: Any, name: str) -> list[Any] | None:
    """Return a list."""
    if value is None or isinstance(value, list):
        return value
    raise _refuse(name, "a list", value)


def mapping(value: Any, name: str) -> Mapping[str, Any] | None:
    """Return an object."""
    if value is None or isinstance(value, Mapping):
        return value
    raise _refuse(name, "an object", value)


def forwarded_headers(value: Any, name: str) -> Mapping[str, Any] | None:
    """Return the headers of an object that may be sent on, without framing and hop-by-hop fields."""
    headers = mapping(value, name)
    return None if headers is None else forward(headers)


#: Milliseconds.
_DAY = 86_400_000


def duration(value: Any, name: str) -> float | None:
    """Return a duration in seconds, from `200ms`, `5s` or a number of milliseconds."""
    if type(value) is int and 0 <= value <= _DAY:
        return value / 1000  # asked with each chunk that is paced
    return None if value is None else _measured(parse_duration, value, name, "a duration such as 200ms or 5s")


def size(value: Any, name: str) -> int | None:
    """Return a size in bytes, from `64KB` or a number of bytes."""
    return None if value is None else _measured(parse_size, value, name, "a size such as 64KB")


def every(value: Any, name: str) -> int | float | None:
    """Return a number of items as an integer, or a duration as seconds."""
    wanted = "a number of items, or a duration with its unit such as 10s"
    return None if value is None else _measured(parse_every, value, name, wanted)


def rate(value: Any, name: str) -> Rate | None:
    """Return a rate, from `60/minute`."""
    return None if value is None else _measured(parse_rate, value, name, "a rate such as 60/minute")


def _measured(parse: Any, value: Any, name: str, wanted: str) -> Any:
    try:
        return parse(float(value) if isinstance(value, Decimal) else value)
    except (ValueError, TypeError):
        raise _refuse(name, wanted, value) from None


def within(value: Any, name: str, minimum: float | None, maximum: float | None) -> Any:
    """Return a number that lies within its bounds."""
    if value is None:
        return value
    if minimum is not None and value < minimum:
        raise RunError("template", f"`{name}` must be at least {minimum:g}, not {value}", parameter=name)
    if maximum is not None and value > maximum:
        raise RunError("template", f"`{name}` must be at most {maximum:g}, not {value}", parameter=name)
    return value


def choice(value: Any, name: str, choices: tuple[str, ...]) -> Any:
    """Return one of the words a parameter allows."""
    if value is None or value in choices:
        return value
    raise RunError("template", f"`{name}` must be one of {', '.join(choices)}, not {value!r}", parameter=name)
