"""The aggregates of a window: what each needs to know of the values, kept up to date item by item.

Sums never drift: they are exact whatever is added and taken away again, and so is the spread around their mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from math import fsum, isfinite, sqrt
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.operators import a_kind
from streamstack.runtime.sketches import Distinct, Quantiles, SlidingDistinct, as_float, number_of

_EXACT: Final = operators.exact_context(200)
_ORDERED: Final = frozenset({int, float, Decimal, str})


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


class Ends:
    """The first and the last value; of those that leave, the oldest goes first."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: deque[Any] = deque()

    def add(self, value: Any) -> None:
        """Add a value."""
        self._values.append(value)

    def remove(self, value: Any) -> None:
        """Let the oldest value go."""
        self._values.popleft()

    def first(self) -> Any:
        """Return the oldest value; null of nothing."""
        return self._values[0] if self._values else None

    def last(self) -> Any:
        """Return the newest value; null of nothing."""
        return self._values[-1] if self._values else None


class LastingEnds:
    """The first and the last value of those that stay."""

    __slots__ = ("_first", "_last", "_some")

    def __init__(self) -> None:
        self._some = False
        self._first: Any = None
        self._last: Any = None

    def add(self, value: Any) -> None:
        """Add a value."""
        if not self._some:
            self._some, self._first = True, value
        self._last = value

    def first(self) -> Any:
        """Return the oldest value; null of nothing."""
        return self._first

    def last(self) -> Any:
        """Return the newest value; null of nothing."""
        return self._last


def _check_order(value: Any, word: str) -> None:
    """Raise RunError ``template`` for a value that has no order."""
    kind = type(value)
    if kind is float:
        if value != value:  # noqa: PLR0124  (NaN)
            raise RunError("template", f"`{word}` needs numbers, and one is not finite")
    elif kind not in _ORDERED and not isinstance(value, date):
        raise RunError(
            "template", f"`{word}` needs numbers, texts or timestamps, and this is {a_kind(value)}"
        )


class Extreme:
    """The least or greatest value of those that stay."""

    __slots__ = ("_best", "_greatest", "_some")

    def __init__(self, *, greatest: bool) -> None:
        self._greatest = greatest
        self._some = False
        self._best: Any = None

    def add(self, value: Any) -> None:
        """Add a value. Raises RunError ``template`` for one that can't be compared with the others."""
        _check_order(value, "max" if self._greatest else "min")
        if not self._some:
            self._some, self._best = True, value
            return
        best = self._best
        if operators.less(best, value) if self._greatest else operators.less(value, best):
            self._best = value

    def best(self) -> Any:
        """Return it; null of nothing."""
        return self._best


class SlidingExtreme:
    """The least or greatest value of those that come, and leave in the same order.

    Only values that can still become it are kept, in a queue that is in order.
    """

    __slots__ = ("_added", "_greatest", "_left", "_values")

    def __init__(self, *, greatest: bool) -> None:
        self._greatest = greatest
        self._values: deque[tuple[int, Any]] = deque()
        self._added = 0
        self._left = 0

    def add(self, value: Any) -> None:
        """Add a value. Raises RunError ``template`` for one that can't be compared with the others."""
        _check_order(value, "max" if self._greatest else "min")
        values = self._values
        before = operators.less if self._greatest else operators.greater
        while values and not before(value, values[-1][1]):
            values.pop()
        values.append((self._added, value))
        self._added += 1

    def remove(self, value: Any) -> None:
        """Let the oldest value go."""
        self._left += 1
        if self._values[0][0] < self._left:
            self._values.popleft()

    def best(self) -> Any:
        """Return it; null of nothing."""
        return self._values[0][1] if self._values else None


#: What an operation needs, and how the figure is read of it; `count` and `rate` need none.
_NEEDS: Final[dict[str, str]] = {
    "sum": "total",
    "mean": "total",
    "stddev": "spread",
    "min": "least",
    "max": "greatest",
    "first": "ends",
    "last": "ends",
    "distinct": "distinct",
    "p50": "quantiles",
    "p90": "quantiles",
    "p95": "quantiles",
    "p99": "quantiles",
}
OPERATIONS: Final = (
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "first",
    "last",
    "rate",
    "distinct",
    "p50",
    "p90",
    "p95",
    "p99",
    "stddev",
)
_SLIDING: Final[dict[str, Callable[[], Any]]] = {
    "total": Total,
    "spread": SlidingSpread,
    "least": lambda: SlidingExtreme(greatest=False),
    "greatest": lambda: SlidingExtreme(greatest=True),
    "ends": Ends,
    "distinct": SlidingDistinct,
    "quantiles": Quantiles,
}
_LASTING: Final[dict[str, Callable[[], Any]]] = {
    "total": Total,
    "spread": Spread,
    "least": lambda: Extreme(greatest=False),
    "greatest": lambda: Extreme(greatest=True),
    "ends": LastingEnds,
    "distinct": Distinct,
    "quantiles": Quantiles,
}
_READ: Final[dict[str, str]] = {
    "sum": "sum",
    "mean": "mean",
    "stddev": "deviation",
    "min": "best",
    "max": "best",
    "first": "first",
    "last": "last",
    "distinct": "number",
}


class Series:
    """The values of one expression in one window, and all that is kept of them for its figures."""

    __slots__ = ("_kept", "adds", "count", "removes")

    def __init__(self, operations: tuple[str, ...], *, sliding: bool) -> None:
        made = _SLIDING if sliding else _LASTING
        needed = dict.fromkeys(_NEEDS[each] for each in operations if each in _NEEDS)
        self.count = 0
        self._kept = {need: made[need]() for need in needed}
        self.adds = [each.add for each in self._kept.values()]
        self.removes = [each.remove for each in self._kept.values()] if sliding else []

    def reader(self, operation: str) -> Callable[[], Any]:
        """Return what reads a figure; not for `rate`, which asks for the time."""
        if operation == "count":
            return self._count
        kept = self._kept[_NEEDS[operation]]
        if operation[0] == "p":
            return _percentile(kept, int(operation[1:]))
        read: Callable[[], Any] = getattr(kept, _READ[operation])
        return read

    def _count(self) -> int:
        return self.count


def _percentile(quantiles: Quantiles, percent: int) -> Callable[[], Any]:
    return lambda: quantiles.at(percent)
