"""The tests of expressions, used after `is`, and the functions."""

from __future__ import annotations

import os
import random as generator
import uuid as identifiers
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from streamstack import clock
from streamstack.language import operators
from streamstack.language.filters.operations import declare, failed, integer_argument, whole, wrong
from streamstack.language.operators import MAX_ITEMS
from streamstack.language.values import Opaque

#: The random bytes of `uuid()`; tests of definitions put repeatable ones in their place.
random_bytes: Callable[[int], bytes] = os.urandom


@declare("test", "defined", "{}.a is defined", False)
def is_defined(value: Any) -> bool:
    """Check that the name is bound and the path exists."""
    return True


@declare("test", "undefined", "{}.a is undefined", True)
def is_undefined(value: Any) -> bool:
    """Check that the name is not bound or the path does not exist."""
    return False


@declare("test", "none", "null is none", True, aliases=("null",))
def is_none(value: Any) -> bool:
    """Check that the value is null."""
    return value is None


@declare("test", "true", "1 is true", False)
def is_true(value: Any) -> bool:
    """Check that the value is true."""
    return value is True


@declare("test", "false", "0 is false", False)
def is_false(value: Any) -> bool:
    """Check that the value is false."""
    return value is False


@declare("test", "boolean", "false is boolean", True)
def is_boolean(value: Any) -> bool:
    """Check that the value is true or false."""
    return isinstance(value, bool)


@declare("test", "integer", "true is integer", False)
def is_integer(value: Any) -> bool:
    """Check that the value is an integer. Booleans are not integers."""
    return type(value) is int


@declare("test", "float", "1.5 is float", True, aliases=("decimal",))
def is_float(value: Any) -> bool:
    """Check that the value is a float or a decimal."""
    return isinstance(value, (float, Decimal))


@declare("test", "number", '"1" is number', False)
def is_number(value: Any) -> bool:
    """Check that the value is a number."""
    return type(value) in (int, float, Decimal)


@declare("test", "string", '"a" is string', True, aliases=("text",))
def is_string(value: Any) -> bool:
    """Check that the value is a text."""
    return isinstance(value, str)


@declare("test", "mapping", '{"a": 1} is mapping', True, aliases=("object",))
def is_mapping(value: Any) -> bool:
    """Check that the value is an object."""
    return isinstance(value, dict)


@declare("test", "list", "[1] is list", True)
def is_list(value: Any) -> bool:
    """Check that the value is a list."""
    return isinstance(value, (list, tuple))


@declare("test", "iterable", "1 is iterable", False)
def is_iterable(value: Any) -> bool:
    """Check that `for` can iterate over the value: a list, an object or a text."""
    return isinstance(value, (list, tuple, dict, str))


@declare("test", "sequence", '"abc" is sequence', True)
def is_sequence(value: Any) -> bool:
    """Check that the value is a list or a text."""
    return isinstance(value, (list, tuple, str))


@declare("test", "timestamp", "now() is timestamp", True)
def is_timestamp(value: Any) -> bool:
    """Check that the value is a timestamp."""
    return isinstance(value, datetime)


@declare("test", "date", "today() is date", True)
def is_date(value: Any) -> bool:
    """Check that the value is a date without a time."""
    return isinstance(value, date) and not isinstance(value, datetime)


@declare("test", "stream", "[1] is stream", False)
def is_stream(value: Any) -> bool:
    """Check that the value is a stream."""
    return isinstance(value, Opaque) and value.kind == "stream"


@declare("test", "empty", "[] is empty", True)
def is_empty(value: Any) -> bool:
    """Check that the value is null, or an empty text, list or object."""
    operators.refuse_stream(value)
    return value is None or (isinstance(value, (str, list, tuple, dict, bytes)) and not value)


@declare("test", "even", "4 is even", True, shape="integer -> boolean")
def is_even(value: Any) -> bool:
    """Check that an integer is even."""
    return _integer(value, "even") % 2 == 0


@declare("test", "odd", "4 is odd", False, shape="integer -> boolean")
def is_odd(value: Any) -> bool:
    """Check that an integer is odd."""
    return _integer(value, "odd") % 2 == 1


@declare(
    "test",
    "divisibleby",
    "9 is divisibleby 3",
    True,
    takes={"number": whole(-(2**63), 2**63)},
    shape="integer -> boolean",
)
def is_divisible(value: Any, number: Any) -> bool:
    """Check that an integer is divisible by another."""
    divisor: int = number
    if divisor == 0:
        raise failed("divisibleby", "division by zero")
    return bool(_integer(value, "divisibleby") % divisor == 0)


@declare("test", "lower", '"abc" is lower', True)
def is_lower(value: Any) -> bool:
    """Check that a text is lower case."""
    return isinstance(value, str) and value.islower()


@declare("test", "upper", '"aBC" is upper', False)
def is_upper(value: Any) -> bool:
    """Check that a text is upper case."""
    return isinstance(value, str) and value.isupper()


@declare("test", "in", "2 is in [1, 2]", True)
def is_in(value: Any, container: Any) -> bool:
    """Check that the value is an item of a list, a key of an object or a part of a text."""
    return operators.contains(value, container)


@declare("test", "eq", "1 is eq 1.0", True, aliases=("equalto", "sameas", "=="))
def is_equal(value: Any, other: Any) -> bool:
    """Check that the value equals another."""
    return operators.equal(value, other)


@declare("test", "ne", "1 is ne 2", True, aliases=("!=",))
def is_unequal(value: Any, other: Any) -> bool:
    """Check that the value does not equal another."""
    return operators.unequal(value, other)


@declare("test", "lt", "1 is lt 2", True, aliases=("lessthan", "<"))
def is_less(value: Any, other: Any) -> bool:
    """Check that the value is less than another."""
    return operators.less(value, other)


@declare("test", "le", "2 is le 2", True, aliases=("<=",))
def is_less_or_equal(value: Any, other: Any) -> bool:
    """Check that the value is less than or equal to another."""
    return operators.less_equal(value, other)


@declare("test", "gt", "1 is gt 2", False, aliases=("greaterthan", ">"))
def is_greater(value: Any, other: Any) -> bool:
    """Check that the value is greater than another."""
    return operators.greater(value, other)


@declare("test", "ge", "2 is ge 3", False, aliases=(">=",))
def is_greater_or_equal(value: Any, other: Any) -> bool:
    """Check that the value is greater than or equal to another."""
    return operators.greater_equal(value, other)


def _integer(value: Any, name: str) -> int:
    if type(value) is int:
        return value
    raise wrong(f"is {name}", "an integer", value)


# --------------------------------------------------------------------------------------- functions


@declare("function", "now", "now() | date | length", 10, shape="timestamp")
def now() -> datetime:
    """Return the current time as a timestamp in UTC."""
    return clock.now()


@declare("function", "today", "today() == (now() | toDate)", True, shape="date")
def today() -> date:
    """Return the current date in UTC."""
    return clock.now().date()


@declare("function", "uuid", "uuid() | length", 36, shape="text")
def uuid() -> str:
    """Return a random UUID (version 4), as text."""
    return str(identifiers.UUID(bytes=random_bytes(16), version=4))


@declare("function", "random", "0 <= random() < 1", True, shape="decimal")
def random() -> float:
    """Return a random number from 0 up to, but not including, 1. Not for secrets."""
    return generator.random()  # noqa: S311


@declare(
    "function",
    "randomInteger",
    "1 <= randomInteger(1, 6) <= 6",
    True,
    takes={"first": whole(-(2**63), 2**63), "last": whole(-(2**63), 2**63)},
    shape="integer",
)
def random_integer(first: Any, last: Any) -> int:
    """Return a random integer between two integers, both included. Not for secrets."""
    if first > last:
        raise failed("randomInteger", f"the first, {first}, is above the last, {last}")
    return generator.randint(first, last)  # noqa: S311


@declare(
    "function", "range", "range(2, 10, 3)", [2, 5, 8], shape="[integer]", arguments=("integer", "integer?", "integer")
)
def range_list(start: Any, stop: Any = None, step: Any = 1) -> list[int]:
    """Return a list of integers from 0, or from a start, up to but not including the end.

    The third argument is the step.
    """
    return list(range_of(start, stop, step))


def range_of(start: Any, stop: Any = None, step: Any = 1) -> range:
    """Return the same integers as a lazy range, for loops."""
    low, high = (0, start) if stop is None else (start, stop)
    low = integer_argument(low, "range", "start", -(2**63), 2**63)
    high = integer_argument(high, "range", "stop", -(2**63), 2**63)
    step = integer_argument(step, "range", "step", -(2**63), 2**63)
    if step == 0:
        raise failed("range", "the step can't be 0")
    numbers = range(low, high, step)
    if (high - low) // step > MAX_ITEMS:
        raise failed("range", f"the list would hold more than {MAX_ITEMS:,} integers")
    return numbers
