"""The kinds of data that a field can take: how each is called, written and shown, and what a bound value must be.

The functions from `required` on are called with bound values. Null passes them: it counts as not given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any, Final
from urllib.parse import quote

from streamstack.errors import RunError
from streamstack.language.names import forward, listed, nearest
from streamstack.language.values import (
    MISSING,
    Opaque,
    Rate,
    kind,
    parse_duration,
    parse_every,
    parse_rate,
    parse_size,
    show_duration,
    show_size,
    to_text,
)


class Kind(Enum):
    """The kinds of data that a value may have; ANY takes all but a stream."""

    ANY = "any"
    TEXT = "text"
    URL = "url"  # a text; bindings inside its path or query are percent-encoded
    PROSE = "prose"  # a text for people: a number or a boolean is taken as it is written
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LIST = "list"
    OBJECT = "object"
    HEADERS = "headers"  # an object of header fields; one that is bound as a whole is forwarded in part
    DURATION = "duration"
    EVERY = "every"  # a number of items, or a duration
    SIZE = "size"
    RATE = "rate"  # how many in which time
    PART = "part"  # from 0% to 100%
    KEY = "key"  # what names something: a text, a number, a list of such
    STREAM = "stream"  # a stream only
    ITEMS = "items"  # a list or a stream
    ANY_OR_STREAM = "anyOrStream"  # a whole binding may hand over a stream
    SQL = "sql"  # a statement: a text whose bindings become its parameters


@dataclass(frozen=True, slots=True)
class KindFacts:
    """What readers, messages, schemas and the reference need to know about a kind.

    Args:
        phrase: How messages name a value of the kind, with its article.
        short: How the reference names it.
        example: What a hint tells the author to write.
        types: The types in JSON Schema.
        fits: The Python types of a constant; empty allows any.
        parse: Reads a value that is written with a unit; raises ValueError that says what to write.
        code: The finding for a value that `parse` refuses.
        pattern: What a text of the kind looks like, for editors.
        limits: Bounds in JSON Schema, where those of a field count in other units.
    """

    phrase: str
    short: str
    example: str
    types: tuple[str, ...] = ()
    fits: tuple[type, ...] = ()
    parse: Callable[[object], Any] | None = None
    code: str = "wrong-type"
    pattern: str = ""
    limits: Mapping[str, float] | None = None


_UNITS: Final = r"^\s*[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)?\s*$"


def _part(value: object) -> float:
    """Return a part from 0 to 1, of `10%` or a number."""
    text = str(value).strip()
    try:
        part = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        part = -1.0
    if isinstance(value, bool) or not 0 <= part <= 1:
        raise ValueError("it must be a part, from 0% to 100%: write 10% or 0.1")
    return part


FACTS: Final = {
    Kind.ANY: KindFacts("a value", "any value", "write any value"),
    Kind.TEXT: KindFacts(
        "a text", "text", "write a text, or a binding around the value: << ... >>", ("string",), (str,)
    ),
    Kind.URL: KindFacts("a text", "text", "write a URL, or a binding around the value: << ... >>", ("string",), (str,)),
    Kind.PROSE: KindFacts("a text", "text", "write a text", ("string", "number", "boolean"), (str, int, float, bool)),
    Kind.INTEGER: KindFacts("an integer", "integer", "write a whole number, such as 5", ("integer",), (int,)),
    Kind.NUMBER: KindFacts("a number", "number", "write a number, such as 0.5", ("number",), (int, float)),
    Kind.BOOLEAN: KindFacts("true or false", "true or false", "write true or false", ("boolean",), (bool,)),
    Kind.LIST: KindFacts("a list", "list", "write a list, such as [a, b]", ("array",), (list,)),
    Kind.OBJECT: KindFacts("a mapping", "object", "write a mapping, such as {name: value}", ("object",), (dict,)),
    Kind.HEADERS: KindFacts("a mapping", "object", "write a mapping, such as {X-Name: value}", ("object",), (dict,)),
    Kind.DURATION: KindFacts(
        "a duration like 200ms, 5s, 10m",
        "duration",
        "write it like 200ms or 5s",
        ("string", "number"),
        parse=parse_duration,
        code="bad-duration",
        pattern=_UNITS,
        limits={"minimum": 0},
    ),
    Kind.SIZE: KindFacts(
        "a size like 64KB, 10MB",
        "size",
        "write it like 64KB or 10MB",
        ("string", "integer"),
        parse=parse_size,
        code="bad-size",
        pattern=r"^\s*[0-9]+(\.[0-9]+)? ?([KkMmGgTt]?[Bb])?\s*$",
        limits={"minimum": 0},
    ),
    Kind.EVERY: KindFacts(
        "a number of items, or a duration like 10s",
        "number of items or duration",
        "write a number of items, such as 10, or a duration, such as 10s",
        ("integer", "string"),
        parse=parse_every,
        code="bad-duration",
        pattern=_UNITS,
        limits={"minimum": 1},
    ),
    Kind.RATE: KindFacts(
        "a rate like 60/minute",
        "rate",
        "write it like 60/minute or 20/10s",
        ("string",),
        parse=parse_rate,
        code="bad-rate",
        pattern=(
            r"^\s*[0-9]{1,12} ?(/|per) ?([0-9]{1,6}(\.[0-9]{1,3})? ?)?"
            r"([Ss]econds?|[Mm]inutes?|[Hh]ours?|[Dd]ays?|ms|s|m|h|d)\s*$"
        ),
    ),
    Kind.PART: KindFacts(
        "a part, from 0% to 100%",
        "part from 0% to 100%",
        "write 10% or 0.1",
        ("string", "number"),
        parse=_part,
        code="bad-setting",
        limits={"minimum": 0, "maximum": 1},
    ),
    Kind.KEY: KindFacts(
        "a text, a number or a list",
        "text, number or list",
        "write a text, or a list such as [rate, EUR]",
        ("string", "number", "array"),
        (str, int, float, list),
    ),
    Kind.STREAM: KindFacts(
        "a stream, as in <<name>>",
        "stream",
        "write the name of a stream as a whole binding: <<name>>",
        fits=(type(MISSING),),  # no constant is one
    ),
    Kind.ITEMS: KindFacts(
        "a list or a stream",
        "list or stream",
        "write a list, such as [a, b], or a binding: <<name>>",
        ("array",),
        (list,),
    ),
    Kind.ANY_OR_STREAM: KindFacts("a value", "any value or stream", "write any value"),
    Kind.SQL: KindFacts(
        "a statement of SQL", "SQL", "write SQL, with << bindings >> for its values", ("string",), (str,)
    ),
}
#: Kinds written as numbers with units.
MEASURES: Final = frozenset(kind for kind, facts in FACTS.items() if facts.parse)

#: More choices than these are not listed one by one in messages.
FEW: Final = 16


def suits(wanted: Kind, value: Any) -> bool:
    """Tell whether a constant is of a kind."""
    fits = FACTS[wanted].fits
    return not fits or type(value) in fits


def convert(wanted: Kind, value: Any) -> Any:
    """Return a constant as the engine takes it: a duration in seconds, a size in bytes.

    Raises ValueError with what to write.
    """
    parse = FACTS[wanted].parse
    return value if parse is None else parse(value)


def out_of_range(value: Any, minimum: float | None, maximum: float | None, wanted: Kind = Kind.NUMBER) -> str:
    """Say which bound a number breaks, or nothing; those of durations and sizes have units."""
    if type(value) not in (int, float):
        return ""
    if minimum is not None and value < minimum:
        return f"at least {shown(wanted, minimum)}"
    if maximum is not None and value > maximum:
        return f"at most {shown(wanted, maximum)}"
    return ""


def not_chosen(value: Any, choices: Collection[str]) -> tuple[str, str] | None:
    """Say which words are allowed where ``value`` is none of them, and which may be meant."""
    if not choices or not isinstance(value, str) or value in choices:
        return None
    near = nearest(value, choices)
    few = len(choices) <= FEW
    words = listed(choices) if few else "one of its words"
    return words, f"did you mean `{near}`?" if near else f"write {listed(choices)}" if few else ""


def shown(kind: Kind, number: float) -> Any:
    """Return a number of a kind as authors write it: seconds and bytes have units."""
    if kind is Kind.DURATION:
        return show_duration(number)
    if kind is Kind.PART:
        return f"{number * 100:g}%"
    if kind is Kind.SIZE:
        return show_size(number)
    return int(number) if number == int(number) else number


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
