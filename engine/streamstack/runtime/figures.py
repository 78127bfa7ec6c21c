"""The figures of a window: what each needs to know of the values, kept up to date item by item."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.operators import a_kind
from streamstack.runtime.sketches import Distinct, Quantiles, SlidingDistinct
from streamstack.runtime.sums import SlidingSpread, Spread, Total

_ORDERED: Final = frozenset({int, float, Decimal, str})


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
