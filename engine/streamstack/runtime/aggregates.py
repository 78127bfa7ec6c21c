"""Aggregates of values that come and go: sums, spread, extremes; sketches of percentiles and of distinct values."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from datetime import date
from decimal import Decimal
from functools import lru_cache, partial
from hashlib import blake2b
from math import ceil, exp, fsum, inf, isfinite, log, sqrt
from operator import itemgetter
from types import MethodType
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.operators import a_kind
from streamstack.language.values import SMALL, canonical_json, number_key

#: Numbers of which percentiles are exact.
EXACT: Final = 1000
#: The relative error of percentiles of more numbers.
ACCURACY: Final = 0.01
#: Different values that are counted exactly where nothing leaves.
EXACT_DISTINCT: Final = 10_000

_PLAIN: Final = frozenset({str, int, float, Decimal, type(None)})
_MACHINE: Final = frozenset({int, float})
#: Numbers up to here are calculated with as they are: nothing can be too large.
_PLENTY: Final = 1e15
_GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_SCALE: Final = 1 / log(_GAMMA)
#: The bins of positive numbers lie above 0, those of negative ones below: a float has no exponent beyond.
_MIDDLE: Final = 40_000


NUMBERS: Final = frozenset({int, float, Decimal})


def number_of(value: Any, wanted: str) -> Any:
    """Return a finite number.

    Raises RunError ``template`` for anything else; ``wanted`` says what needs it.
    """
    if type(value) in NUMBERS:
        if type(value) is int or operators.is_finite(value):
            return value
        raise RunError("template", f"{wanted} needs numbers, and one is not finite")
    raise RunError("template", f"{wanted} needs numbers, not {a_kind(value)}")


def as_float(value: Any, wanted: str) -> float:
    """Return a number as a float. Raises RunError ``template`` where it is none, or too large."""
    if type(value) is float and isfinite(value):
        return value
    try:
        return float(number_of(value, wanted))
    except OverflowError:
        raise RunError("template", f"{wanted}: the number is too large") from None


class Quantiles:
    """Percentiles of numbers that come and go.

    Up to EXACT numbers at once they lie sorted, and a percentile is exact, between two numbers in proportion. Then they
    are counted in bins whose bounds grow by a constant factor (DDSketch: Masson, Rim, Lee, VLDB 2019): each number that
    is given is within 1 % of the exact one. Whatever the numbers are, there are at most 145,000 bins; from a
    thousandth to a million there are about a thousand. When all have left, it is exact again.
    """

    __slots__ = ("_bins", "_count", "_counts", "_cursors", "_sorted")

    def __init__(self) -> None:
        self._sorted: list[Any] | None = []
        self._count = 0
        self._counts: dict[int, int] = {}
        self._bins: list[int] = []
        self._cursors: dict[int, list[int]] = {}  # per cent: a bin, and how many lie before it

    def add(self, value: Any) -> None:
        """Add a number. Raises RunError ``template`` for what is none."""
        ordered = self._sorted
        if ordered is not None:
            insort(ordered, number_of(value, "a percentile"))
            self._count += 1
            if self._count > EXACT:
                self._sorted = None
                for each in ordered:
                    self._put(_bin_of(each))
            return
        self._put(_bin_of(value))
        self._count += 1

    def _put(self, place: int) -> None:
        counts = self._counts
        if place in counts:
            counts[place] += 1
        else:
            counts[place] = 1
            insort(self._bins, place)
        for cursor in self._cursors.values():
            if place < cursor[0]:
                cursor[1] += 1

    def remove(self, value: Any) -> None:
        """Take a number away that was added."""
        self._count -= 1
        ordered = self._sorted
        if ordered is not None:
            del ordered[bisect_left(ordered, value)]
            return
        if not self._count:
            self.__init__()  # type: ignore[misc]  # as new: exact again
            return
        place = _bin_of(value)
        remaining = self._counts[place] - 1
        if remaining:
            self._counts[place] = remaining
        else:
            del self._counts[place]
            del self._bins[bisect_left(self._bins, place)]
        for cursor in self._cursors.values():
            if place < cursor[0]:
                cursor[1] -= 1

    @property
    def bins(self) -> int:
        """How many bins are in use."""
        return len(self._bins)

    def at(self, percent: int) -> Any:
        """Return the number below which so many per cent of the numbers lie; null of nothing."""
        if not self._count:
            return None
        below, rest = divmod((self._count - 1) * percent, 100)
        ordered = self._sorted
        if ordered is not None:
            low = ordered[below]
            if not rest:
                return low
            high = ordered[below + 1]
            if type(low) in _MACHINE and type(high) in _MACHINE and low > -_PLENTY and high < _PLENTY:
                return low + (high - low) * (rest / 100)
            step = operators.subtract(high, low)
            part = Decimal(rest).scaleb(-2) if type(step) is Decimal else rest / 100
            return operators.add(low, operators.multiply(step, part))
        low_bin, next_bin = self._bins_at(percent, below)
        value = _value_of(low_bin)
        if next_bin == low_bin:
            return value
        return value * ((100 - rest) / 100) + _value_of(next_bin) * (rest / 100)

    def _bins_at(self, percent: int, rank: int) -> tuple[int, int]:
        """Return the bins of the number with this rank (from 0) and of the one after it.

        The cursor stays where a percentile was found: the next time it is close by.
        """
        bins, counts = self._bins, self._counts
        cursor = self._cursors.get(percent)
        if cursor is None:
            cursor = self._cursors[percent] = [bins[0], 0]
        place, before = cursor
        while rank < before:
            place = bins[bisect_left(bins, place) - 1]
            before -= counts[place]
        while rank >= before + (held := counts.get(place, 0)):
            before += held
            place = bins[bisect_right(bins, place)]
        cursor[0], cursor[1] = place, before
        if rank + 1 < before + held or rank + 1 >= self._count:
            return place, place
        return place, bins[bisect_right(bins, place)]


def _bin_of(value: Any) -> int:
    number = as_float(value, "a percentile")
    if number > 0:
        return ceil(log(number) * _SCALE) + _MIDDLE
    return -(ceil(log(-number) * _SCALE) + _MIDDLE) if number else 0


def _percentile(percent: int, quantiles: Quantiles) -> Any:
    return quantiles.at(percent)


@lru_cache(maxsize=8192)
def _value_of(place: int) -> float:
    if not place:
        return 0.0
    # The middle of a bin: as far, in relation, from its least number as from its largest.
    size = min(exp((abs(place) - _MIDDLE) / _SCALE + _CENTRE), 1.7976931348623157e308)
    return size if place > 0 else -size


_CENTRE: Final = log(2 / (_GAMMA + 1))


def identity(value: Any) -> Hashable:
    """Return what tells a value from others: values that are equal in the language have the same, true and 1 apart."""
    exact: Hashable = value
    if type(value) in _PLAIN:
        large = type(value) is int and not -SMALL < value < SMALL
        return _number(value) if large or type(value) is Decimal else exact
    if type(value) is bool:  # which Python takes for 0 and 1
        return ("boolean", value)
    if isinstance(value, (list, tuple)):
        return ("list", *map(identity, value))
    if isinstance(value, Mapping):
        return ("object", *sorted(((str(name), identity(each)) for name, each in value.items()), key=itemgetter(0)))
    operators.refuse_stream(value)
    return exact


def _number(value: int | Decimal) -> Hashable:
    """Return what a number and the float that equals it share, with a hash that a client can't choose."""
    try:
        near = float(value)
    except (OverflowError, ValueError):  # a signalling NaN has no float
        return number_key(value)
    if near == value or (type(value) is Decimal and Decimal(repr(near)) == value):  # 0.1 is the decimal 0.1
        return near
    return number_key(value)


class SlidingDistinct:
    """How many different values there are among those that come and go: exact."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}

    def add(self, value: Any) -> None:
        """Add a value."""
        known = identity(value)
        self._counts[known] = self._counts.get(known, 0) + 1

    def remove(self, value: Any) -> None:
        """Take a value away that was added."""
        known = identity(value)
        remaining = self._counts[known] - 1
        if remaining:
            self._counts[known] = remaining
        else:
            del self._counts[known]

    def number(self) -> int:
        """Return how many there are."""
        return len(self._counts)


class Distinct:
    """How many different values have come: exact up to EXACT_DISTINCT, then estimated.

    The estimate is HyperLogLog's (Flajolet et al., 2007) with 16,384 registers of one byte, read by Ertl's
    estimator (2017), which has no bias at any size. Its standard error is 0.8 %: two of three times it is closer than
    that, and hardly ever further off than 2.5 %.
    """

    __slots__ = ("_highest", "_known", "_number", "_registers", "_zeros")
    _BITS: Final = 14

    def __init__(self) -> None:
        self._known: set[Hashable] | None = set()
        self._registers = bytearray()
        self._zeros: list[int] = []  # how many registers hold 0, 1, 2 ...
        self._number: int | None = None
        self._highest = 0

    def add(self, value: Any) -> None:
        """Add a value."""
        known = self._known
        if known is None:
            self._note(identity(value))
            return
        known.add(identity(value))
        if len(known) > EXACT_DISTINCT:
            self._known = None
            self._registers = bytearray(1 << self._BITS)
            self._zeros = [1 << self._BITS] + [0] * (65 - self._BITS)
            for each in known:
                self._note(each)

    def _note(self, known: Hashable) -> None:
        data = b"b" + known if isinstance(known, bytes) else b"v" + canonical_json(known)
        hashed = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
        place = hashed >> (64 - self._BITS)
        rest = hashed & ((1 << (64 - self._BITS)) - 1)
        rank = 64 - self._BITS - rest.bit_length() + 1
        before = self._registers[place]
        if rank > before:
            self._registers[place] = rank
            self._zeros[before] -= 1
            self._zeros[rank] += 1
            self._highest = max(rank, self._highest)
            self._number = None

    def number(self) -> int:
        """Return how many there are, or about how many."""
        if self._known is not None:
            return len(self._known)
        if self._number is None:
            self._number = round(self._estimate())
        return self._number

    def _estimate(self) -> float:
        registers = 1 << self._BITS
        counts = self._zeros
        last = 64 - self._BITS
        total = registers * _tau(1 - counts[last + 1] / registers)
        # Where nothing is counted above, halving 0 leaves 0.
        for rank in range(last if total else min(last, self._highest), 0, -1):
            total = 0.5 * (total + counts[rank])
        total += registers * _sigma(counts[0] / registers)
        return registers * registers / (2 * log(2) * total)


def _sigma(share: float) -> float:
    if share == 1:
        return inf
    factor, total = 1.0, share
    while True:
        share *= share
        before = total
        total += share * factor
        factor += factor
        if total == before:
            return total


def _tau(share: float) -> float:
    if share in (0, 1):
        return 0.0
    factor, total = 1.0, 1 - share
    while True:
        share = sqrt(share)
        before = total
        factor *= 0.5
        total -= (1 - share) ** 2 * factor
        if total == before:
            return total / 3


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
        exact = 0
        for part in parts:
            high = value + part
            # Knuth's sum of two: no order of the two is asked for, nothing is lost.
            other = high - value
            low = (value - (high - other)) + (part - other)
            if low:
                parts[exact] = low
                exact += 1
            value = high
        parts[exact:] = [value]

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
    """The standard deviation (of a sample: n - 1) of numbers that come and, if ``sliding``, leave in the same order.

    Numbers are gathered by Welford's method ("Note on a method for calculating corrected sums of squares and products",
    1962): no difference of large sums is ever taken. Where they leave again, there are two stacks (Tangwongsan et al.,
    "General incremental sliding-window aggregation", 2015): the older half holds, for each number, what it and all
    after it amount to. Nothing is subtracted, so no error outlives the window. Each number is looked at twice.
    """

    __slots__ = ("_back", "_count", "_front", "_mean", "_squares")

    def __init__(self, *, sliding: bool) -> None:
        self._front: list[tuple[int, float, float]] = []  # the oldest is the last
        self._back: list[float] | None = [] if sliding else None
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, value: Any) -> None:
        """Add a number. Raises RunError ``template`` for what is none."""
        number = as_float(value, "a standard deviation")
        if self._back is not None:
            self._back.append(number)
        self._count += 1
        off = number - self._mean
        self._mean += off / self._count
        self._squares += off * (number - self._mean)

    def remove(self, value: Any) -> None:
        """Let the oldest number go."""
        if not self._front:
            newer, self._back = self._back or [], []
            self._count, self._mean, self._squares = 0, 0.0, 0.0
            for number in reversed(newer):
                self.add(number)
                self._front.append((self._count, self._mean, self._squares))
            self._back.clear()
            self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._front.pop()

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
        if not isfinite(squares):
            raise RunError("template", "the standard deviation is of numbers that are too large")
        return sqrt(squares / (count - 1)) if count > 1 else None


class Ends:
    """The first and the last value; of those that leave, if ``sliding``, the oldest goes first."""

    __slots__ = ("_sliding", "_values")

    def __init__(self, *, sliding: bool) -> None:
        self._sliding = sliding
        self._values: deque[Any] = deque()

    def add(self, value: Any) -> None:
        """Add a value."""
        if len(self._values) == 2 and not self._sliding:
            self._values.pop()
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


def _check_order(value: Any, operation: str) -> None:
    """Raise RunError ``template`` for a value that has no order."""
    kind = type(value)
    if kind is float:
        if value != value:  # noqa: PLR0124  (NaN)
            raise RunError("template", f"`{operation}` needs numbers, and one is not finite")
    elif kind not in _ORDERED and not isinstance(value, date):
        raise RunError("template", f"`{operation}` needs numbers, texts or timestamps, not {a_kind(value)}")


class Extreme:
    """The least or greatest value of those that come and, if ``sliding``, leave in the same order.

    Only values that can still become it are kept, in a queue that is in order.
    """

    __slots__ = ("_added", "_greatest", "_removed", "_sliding", "_values")

    def __init__(self, *, greatest: bool, sliding: bool) -> None:
        self._greatest = greatest
        self._sliding = sliding
        self._values: deque[tuple[int, Any]] = deque()
        self._added = 0
        self._removed = 0

    def add(self, value: Any) -> None:
        """Add a value. Raises RunError ``template`` for one that can't be compared with the others."""
        _check_order(value, "max" if self._greatest else "min")
        values = self._values
        before = operators.less if self._greatest else operators.greater
        if values and not self._sliding:
            if before(values[0][1], value):
                values[0] = (0, value)
            return
        while values and not before(value, values[-1][1]):
            values.pop()
        values.append((self._added, value))
        self._added += 1

    def remove(self, value: Any) -> None:
        """Let the oldest value go."""
        self._removed += 1
        if self._values[0][0] < self._removed:
            self._values.popleft()

    def best(self) -> Any:
        """Return it; null of nothing."""
        return self._values[0][1] if self._values else None


#: What gathers values, by its name; each is made for values that leave again, or stay.
_GATHERERS: Final[dict[str, Callable[[bool], Any]]] = {
    "total": lambda _: Total(),
    "spread": lambda sliding: Spread(sliding=sliding),
    "least": lambda sliding: Extreme(greatest=False, sliding=sliding),
    "greatest": lambda sliding: Extreme(greatest=True, sliding=sliding),
    "ends": lambda sliding: Ends(sliding=sliding),
    "distinct": lambda sliding: SlidingDistinct() if sliding else Distinct(),
    "quantiles": lambda _: Quantiles(),
}
#: Of each operation, what gathers its values and how the figure is read; `count` and `rate` need the number alone.
_READ: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "sum": ("total", Total.sum),
    "mean": ("total", Total.mean),
    "min": ("least", Extreme.best),
    "max": ("greatest", Extreme.best),
    "first": ("ends", Ends.first),
    "last": ("ends", Ends.last),
    "distinct": ("distinct", lambda distinct: distinct.number()),
    "stddev": ("spread", Spread.deviation),
    **{f"p{percent}": ("quantiles", partial(_percentile, percent)) for percent in (50, 90, 95, 99)},
}
#: In the order of the reference.
OPERATIONS: Final = (
    *("count", "sum", "mean", "min", "max", "first", "last", "rate"),
    *("distinct", "p50", "p90", "p95", "p99", "stddev"),
)


class Series:
    """The values of one expression in one window: how many there are, and what is gathered of them for its figures."""

    __slots__ = ("_gathered", "adds", "count", "removes")

    def __init__(self, operations: tuple[str, ...], *, sliding: bool) -> None:
        names = dict.fromkeys(_READ[each][0] for each in operations if each in _READ)
        self.count = 0
        self._gathered = {name: _GATHERERS[name](sliding) for name in names}
        self.adds = [each.add for each in self._gathered.values()]
        self.removes = [each.remove for each in self._gathered.values()] if sliding else []

    def reader(self, operation: str) -> Callable[[], Any]:
        """Return what reads a figure; not for `rate`, which asks for the time."""
        if operation == "count":
            return lambda: self.count
        name, read = _READ[operation]
        return MethodType(read, self._gathered[name])
