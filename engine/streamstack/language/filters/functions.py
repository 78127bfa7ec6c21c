"""The functions of expressions: what does not begin with a value."""

from __future__ import annotations

import random as generator
import uuid as identifiers
from datetime import UTC, date, datetime
from typing import Any

from streamstack.language.filters.expectations import failed, integer_argument
from streamstack.language.filters.operations import declare
from streamstack.language.operators import MAX_ITEMS


@declare("function", "now", "now() | date | length", 10)
def now() -> datetime:
    """Give the time now, a timestamp in UTC."""
    return datetime.now(UTC)


@declare("function", "today", "today() == (now() | toDate)", True)
def today() -> date:
    """Give the date today, in UTC."""
    return datetime.now(UTC).date()


@declare("function", "uuid", "uuid() | length", 36)
def uuid() -> str:
    """Give a new random UUID (version 4), as text."""
    return str(identifiers.uuid4())


@declare(
    "function",
    "random",
    "0 <= random() < 1",
    True,
)
def random() -> float:
    """Give a random number from 0 up to, but without, 1. Not for secrets."""
    return generator.random()  # noqa: S311


@declare(
    "function",
    "randomInteger",
    "1 <= randomInteger(1, 6) <= 6",
    True,
)
def random_integer(first: Any, last: Any) -> int:
    """Give a random integer from the first to the last given, both included. Not for secrets."""
    low = integer_argument(first, "randomInteger", "first", -(2**63), 2**63)
    high = integer_argument(last, "randomInteger", "last", -(2**63), 2**63)
    if low > high:
        raise failed("randomInteger", f"the first, {low}, is above the last, {high}")
    return generator.randint(low, high)  # noqa: S311


@declare(
    "function",
    "range",
    "range(2, 10, 3)",
    [2, 5, 8],
)
def range_list(start: Any, stop: Any = None, step: Any = 1) -> list[int]:
    """Give the list of integers from 0, or from the first given, up to but without the last.

    A third argument is the step.
    """
    return list(range_of(start, stop, step))


def range_of(start: Any, stop: Any = None, step: Any = 1) -> range:
    """Give the same integers without holding them: for loops."""
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
