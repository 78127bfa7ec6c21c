"""What each declared type takes: one check a type, compiled when the definition is loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import orjson

from streamstack.language import literals
from streamstack.language.definition import Input
from streamstack.language.patterns import LONGEST, compile_pattern
from streamstack.language.units import show_size
from streamstack.runtime.files import File
from streamstack.runtime.input_faults import Check, Faults, InexactError, unlike
from streamstack.runtime.values import Stream

#: The integers that databases and clients hold without loss, where the declaration sets no bounds.
SMALLEST: Final = -(2**63)
LARGEST: Final = 2**63 - 1
#: The powers of ten a decimal may span: what a float of JSON can have too, and no more.
_EXPONENT: Final = 400
#: The digits it may have in all: each operation on a number goes through all of them.
_DIGITS: Final = 10_000
#: From here on a float doesn't hold every integer.
_EXACT_FLOAT: Final = 2.0**53

_FILTERS: Final[dict[str, Callable[[str], str]]] = {
    "trim": str.strip,
    "lower": str.lower,
    "upper": str.upper,
}


def text(declared: Input, *, call: bool) -> Check:
    """Take a text; its filters are applied before its length is looked at."""
    low = declared.min_length or 0
    high = sys.maxsize if declared.max_length is None else declared.max_length
    filters = tuple(_FILTERS[name] for name in declared.filters)
    matches = None if declared.pattern is None else compile_pattern(declared.pattern).matches
    if matches is not None:
        high = min(high, LONGEST if declared.max_length is None else high)
    refuse = unlike("a text", nullable=declared.nullable)

    def explain(value: str) -> str:
        if len(value) < low:
            return "must not be empty" if low == 1 else f"must have at least {low} characters"
        if len(value) > high:
            return f"must have at most {high} character{'' if high == 1 else 's'}"
        return f"must match the pattern {declared.pattern}"

    def check_any(value: Any, faults: Faults) -> Any:
        if type(value) is str:
            return value
        return str(value) if call and isinstance(value, str) else refuse(value, faults)

    def check(value: Any, faults: Faults) -> Any:
        if type(value) is not str:
            if not (call and isinstance(value, str)):
                return refuse(value, faults)
            value = str(value)
        for change in filters:
            value = change(value)
        if low <= len(value) <= high and (matches is None or matches(value)):
            return value
        return faults.add(explain(value))

    return check if filters or matches or low or high != sys.maxsize else check_any


def _bounds(low: Any, high: Any) -> str:
    if low is not None and high is not None:
        return f"must be between {low} and {high}"
    return f"must be at least {low}" if low is not None else f"must be at most {high}"


def integer(declared: Input, *, call: bool) -> Check:
    """Take an integer. As in JSON Schema, 5.0 is one."""
    low = SMALLEST if declared.minimum is None else declared.minimum
    high = LARGEST if declared.maximum is None else declared.maximum
    refuse = unlike("an integer", nullable=declared.nullable)

    def check(value: Any, faults: Faults) -> Any:
        if type(value) is int:
            if low <= value <= high:
                return value
        elif type(value) is float or type(value) is Decimal:
            # Bounds before int(): they keep out infinities, and numbers of a million digits.
            if value != value or (low <= value <= high and value != int(value)):  # noqa: PLR0124
                return faults.add("must be an integer, without a fraction")
            if low <= value <= high:
                if (
                    type(value) is float
                    and not -_EXACT_FLOAT < value < _EXACT_FLOAT
                    and not faults.exact
                ):
                    raise InexactError
                return int(value)
        else:
            return refuse(value, faults)
        if value < SMALLEST or value > LARGEST:
            return faults.add(_bounds(low, high))
        return faults.add(_bounds(declared.minimum, declared.maximum))

    return check


def decimal(declared: Input, *, call: bool) -> Check:
    """Take a number and keep its digits."""
    low = None if declared.minimum is None else Decimal(repr(declared.minimum))
    high = None if declared.maximum is None else Decimal(repr(declared.maximum))
    refuse = unlike("a decimal", nullable=declared.nullable)

    def check(value: Any, faults: Faults) -> Any:
        if type(value) is int:
            number = Decimal(value)
        elif type(value) is Decimal:
            number = value
        elif type(value) is float:
            if not faults.exact:
                raise InexactError
            number = Decimal(repr(value))
        else:
            return refuse(value, faults)
        if not number.is_finite() or not -_EXPONENT <= number.adjusted() <= _EXPONENT:
            return faults.add(
                f"must be a decimal with at most {_EXPONENT} digits before or after the point"
            )
        if len(str(number)) > _DIGITS and len(number.as_tuple().digits) > _DIGITS:
            return faults.add(f"must be a decimal with at most {_DIGITS} digits")
        if (low is not None and number < low) or (high is not None and number > high):
            return faults.add(_bounds(declared.minimum, declared.maximum))
        return number

    return check


def boolean(declared: Input, *, call: bool) -> Check:
    """Take true or false."""
    refuse = unlike("true or false", nullable=declared.nullable)

    def check(value: Any, faults: Faults) -> Any:
        return value if value is True or value is False else refuse(value, faults)

    return check


def timestamp(declared: Input, *, call: bool) -> Check:
    """Take a timestamp as RFC 3339 writes it; its offset is kept."""
    refuse = unlike(f"a timestamp such as {literals.TIMESTAMP_EXAMPLE}", nullable=declared.nullable)

    def check(value: Any, faults: Faults) -> Any:
        if type(value) is str:
            found = literals.parse_timestamp(value)
            if found is None:
                return faults.add(
                    f"must be a timestamp with its offset from UTC, such as {literals.TIMESTAMP_EXAMPLE}"
                )
            return found
        if call and isinstance(value, datetime):
            return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return refuse(value, faults)

    return check


def day(declared: Input, *, call: bool) -> Check:
    """Take a date."""
    refuse = unlike("a date such as 2026-01-31", nullable=declared.nullable)

    def check(value: Any, faults: Faults) -> Any:
        if type(value) is str:
            found = literals.parse_date(value)
            return found if found is not None else faults.add("must be a date such as 2026-01-31")
        if call and isinstance(value, date) and not isinstance(value, datetime):
            return value
        return refuse(value, faults)

    return check


def _format(parse: Callable[[str], str | None], wanted: str) -> Callable[..., Check]:
    """Make the check of a text in a format; ``parse`` gives it as it is written at best, None where it isn't one."""

    def compile_check(declared: Input, *, call: bool) -> Check:
        refuse = unlike(wanted, nullable=declared.nullable)

        def check(value: Any, faults: Faults) -> Any:
            if type(value) is not str:
                return refuse(value, faults)
            found = parse(value)
            return found if found is not None else faults.add(f"must be {wanted}")

        return check

    return compile_check


def enum(declared: Input, *, call: bool) -> Check:
    """Take one of the declared values; a text is never a number."""
    texts = frozenset(value for value in declared.values if type(value) is str)
    booleans = frozenset(value for value in declared.values if type(value) is bool)
    numbers = {
        Decimal(repr(value)): value for value in declared.values if type(value) in (int, float)
    }
    if declared.sensitive:
        wanted = "one of its values"
    else:
        shown = [orjson.dumps(value).decode() for value in declared.values]
        wanted = f"one of {', '.join(shown[:20])}{', ...' if len(shown) > 20 else ''}"
    refuse = unlike(wanted, nullable=declared.nullable)

    def check(value: Any, faults: Faults) -> Any:
        if type(value) is str:
            if value in texts:
                return value
        elif type(value) is bool:
            if value in booleans:
                return value
        elif type(value) in (int, float, Decimal):
            found = numbers.get(value if type(value) is Decimal else Decimal(repr(value)))
            if found is not None:
                return found
        else:
            return refuse(value, faults)
        return faults.add(f"must be {wanted}")

    return check


def file(declared: Input, *, call: bool) -> Check:
    """Take an uploaded file."""
    most = declared.max_size
    refuse = unlike("a file: send the body as multipart/form-data", nullable=declared.nullable)

    def check(value: Any, faults: Faults) -> Any:
        if not isinstance(value, File):
            return refuse(value, faults)
        if most is not None and value.size > most:
            return faults.add(f"must have at most {show_size(most)}")
        if declared.content_types and not literals.is_one_of(
            value.content_type, declared.content_types
        ):
            return faults.add(f"must be of type {' or '.join(declared.content_types)}")
        return value

    return check


def stream(declared: Input, *, call: bool) -> Check:
    """Take a stream or a list, where one stack calls another."""
    if not call:
        raise ValueError("a stream is the whole request body, and no part of another input")
    refuse = unlike("a stream or a list", nullable=declared.nullable)

    def check(value: Any, faults: Faults) -> Any:
        return value if isinstance(value, (Stream, list)) else refuse(value, faults)

    return check


#: The check of each type that holds nothing declared inside; `input_nesting` has the others.
SIMPLE: Final[dict[str, Callable[..., Check]]] = {
    "text": text,
    "integer": integer,
    "decimal": decimal,
    "boolean": boolean,
    "timestamp": timestamp,
    "date": day,
    "uuid": _format(literals.parse_uuid, "a UUID such as 0b8e5d1c-3f6a-4c57-9d0e-2f4b8a6c1e90"),
    "email": _format(literals.parse_email, "an e-mail address such as ada@example.com"),
    "url": _format(literals.parse_url, "an absolute URL such as https://example.com/page"),
    "enum": enum,
    "file": file,
    "stream": stream,
}
