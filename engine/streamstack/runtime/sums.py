"""Sums that never drift: exact whatever is added and taken away again; and the spread around their mean."""

from __future__ import annotations

from decimal import Decimal
from math import fsum, isfinite, sqrt
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.operators import a_kind

_NUMBERS: Final = frozenset({int, float, Decimal})
_EXACT: Final = operators.exact_context(200)


def number_of(value: Any, wanted: str) -> Any:
    """Return a finite number.

    Raises RunError ``template`` for anything else; ``wanted`` says what needs it.
    """
    if type(value) in _NUMBERS:
        if type(value) is int or operators.is_finite(value):
            return value
        raise RunError("template", f"{wanted} needs numbers, and one is not finite")
    raise RunError("template", f"{wanted} needs numbers, and this is {a_kind(value)}")


def as_float(value: Any, wanted: str) -> float:
    """Return a number as a float. Raises RunError ``template`` where it is none, or too large."""
    if type(value) is float and isfinite(value):
        return value
    try:
        return float(number_of(value, wanted))
    except OverflowError:
        raise RunError("template", f"{wanted}: the number is too large") from None


class Total:
    """The sum of numbers: of integers an integer, of decimals a decimal with all digits.

    The sum of floats is kept without any rounding, as parts that don't overlap (Shewchuk, "Adaptive precision
    floating-point arithmetic", 1997); what is read is rounded once. So it can't drift, also where numbers leave again.
    """

    __slots__ = ("_decimal", "_decimals", "_floats", "_integer", "_parts", "count")

    def __init__(self) -> None:
        self.count = 0
        self._integer = 0
        self._decimal = Decimal(0)
        self._decimals = 0
        self._floats = 0
        self._parts: list[float] = []

    def add(self, value: Any) -> None:
        """Add a number. Raises RunError ``template`` for what is none."""
        kind = type(value)
        if kind is float:
            if value - value != 0.0:  # not finite
                number_of(value, "the sum")
            self._floats += 1
            self._grow(value)
        elif kind is int:
            self._integer += value
        else:
            number_of(value, "a sum or a mean")
            self._decimals += 1
            self._decimal = _EXACT.add(self._decimal, value)
        self.count += 1

    def remove(self, value: Any) -> None:
        """Take a number away that was added."""
        kind = type(value)
        if kind is float:
            self._floats -= 1
            if self._floats:
                self._grow(-value)
            else:
                self._parts.clear()
        elif kind is int:
            self._integer -= value
        else:
            self._decimals -= 1
            self._decimal = _EXACT.subtract(self._decimal, value) if self._decimals else Decimal(0)
        self.count -= 1

    def _grow(self, value: float) -> None:
        """Add a float to the parts, the smallest of which comes first."""
        parts = self._parts
        kept = 0
        for part in parts:
            high = value + part
            # Knuth's sum of two: no order of the two is asked for, nothing is lost.
            other = high - value
            low = (value - (high - other)) + (part - other)
            if low:
                parts[kept] = low
                kept += 1
            value = high
        parts[kept:] = [value]

    def sum(self) -> Any:
        """Return the sum; 0 of nothing. A float that meets a decimal becomes one."""
        if self._floats:
            parts = self._parts
            total: Any = parts[0] if len(parts) == 1 else fsum(parts)
            if not isfinite(total):
                raise RunError("template", "the sum is too large a number")
            if self._integer:
                total = fsum((*parts, *_floats_of(self._integer)))
            return operators.add(self._decimal, total) if self._decimals else total
        if self._decimals:
            return _EXACT.add(self._decimal, Decimal(self._integer))
        return self._integer

    def mean(self) -> Any:
        """Return the mean; null of nothing."""
        count = self.count
        if not count:
            return None
        total = self.sum()
        return total / count if type(total) is float else operators.divide(total, count)


def _floats_of(number: int) -> list[float]:
    """Return floats whose sum is an integer, exactly."""
    floats = []
    while number:
        try:
            high = float(number)
        except OverflowError:
            raise RunError("template", "the sum is too large a number") from None
        floats.append(high)
        number -= int(high)
    return floats


class Spread:
    """The standard deviation (of a sample: n - 1) of numbers that only come.

    Welford's method ("Note on a method for calculating corrected sums of squares and products", 1962): no difference of
    large sums is ever taken.
    """

    __slots__ = ("_count", "_mean", "_squares")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, value: Any) -> None:
        """Add a number. Raises RunError ``template`` for what is none."""
        number = as_float(value, "a standard deviation")
        self._count += 1
        off = number - self._mean
        self._mean += off / self._count
        self._squares += off * (number - self._mean)

    def deviation(self) -> float | None:
        """Return the standard deviation; null of fewer than two numbers."""
        return sqrt(self._squares / (self._count - 1)) if self._count > 1 else None


class SlidingSpread:
    """The standard deviation of numbers that come, and leave in the same order.

    Two stacks (Tangwongsan et al., "General incremental sliding-window aggregation", 2015): the newer half is
    gathered by Welford's method; the older half holds, for each number, what it and all after it amount to. Nothing
    is subtracted, so no error outlives the window. Each number is looked at twice.
    """

    __slots__ = ("_back", "_count", "_front", "_mean", "_squares")

    def __init__(self) -> None:
        self._front: list[tuple[int, float, float]] = []  # the oldest is the last
        self._back: list[float] = []
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, value: Any) -> None:
        """Add a number. Raises RunError ``template`` for what is none."""
        number = as_float(value, "a standard deviation")
        self._back.append(number)
        self._count += 1
        off = number - self._mean
        self._mean += off / self._count
        self._squares += off * (number - self._mean)

    def remove(self, value: Any) -> None:
        """Let the oldest number go."""
        if not self._front:
            self._turn()
        self._front.pop()

    def _turn(self) -> None:
        front, mean, squares = self._front, 0.0, 0.0
        for count, number in enumerate(reversed(self._back), 1):
            off = number - mean
            mean += off / count
            squares += off * (number - mean)
            front.append((count, mean, squares))
        self._back.clear()
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def deviation(self) -> float | None:
        """Return the standard deviation; null of fewer than two numbers."""
        count, squares = self._count, self._squares
        if self._front:
            older, mean, more = self._front[-1]
            off = self._mean - mean
            squares += more
            if count:
                squares += off * off * older * count / (older + count)
            count += older
        return sqrt(squares / (count - 1)) if count > 1 else None
