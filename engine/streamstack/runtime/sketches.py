"""Percentiles and numbers of different values, in bounded memory: exact while there are few, then estimated."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable, Mapping
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from math import ceil, exp, inf, isfinite, log, sqrt
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

_PLAIN: Final = frozenset({str, int, float, bool, Decimal, type(None)})
_NUMBERS: Final = frozenset({int, float})
#: Numbers up to here are calculated with as they are: nothing can be too large.
_PLENTY: Final = 1e15
_GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_SCALE: Final = 1 / log(_GAMMA)
#: The bins of positive numbers lie above 0, those of negative ones below: a float has no exponent beyond.
_MIDDLE: Final = 40_000


_KINDS: Final = frozenset({int, float, Decimal})


def number_of(value: Any, wanted: str) -> Any:
    """Return a finite number.

    Raises RunError ``template`` for anything else; ``wanted`` says what needs it.
    """
    if type(value) in _KINDS:
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
        left = self._counts[place] - 1
        if left:
            self._counts[place] = left
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
            if (
                type(low) in _NUMBERS
                and type(high) in _NUMBERS
                and low > -_PLENTY
                and high < _PLENTY
            ):
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


@lru_cache(maxsize=8192)
def _value_of(place: int) -> float:
    if not place:
        return 0.0
    # The middle of a bin: as far, in relation, from its least number as from its largest.
    size = min(exp((abs(place) - _MIDDLE) / _SCALE + _CENTRE), 1.7976931348623157e308)
    return size if place > 0 else -size


_CENTRE: Final = log(2 / (_GAMMA + 1))


def identity(value: Any) -> Hashable:
    """Return what tells a value from others: equal values have the same."""
    kept: Hashable = value
    if type(value) in _PLAIN:
        large = type(value) is int and not -SMALL < value < SMALL
        return _number(value) if large or type(value) is Decimal else kept
    return (canonical_json(value),) if isinstance(value, (list, tuple, Mapping)) else kept


def _number(value: int | Decimal) -> Hashable:
    """Return what a number and the float that equals it share, with a hash that nobody can choose."""
    try:
        near = float(value)
    except (OverflowError, ValueError):  # a signalling NaN is no float
        return number_key(value)
    return near if near == value else number_key(value)


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
        left = self._counts[known] - 1
        if left:
            self._counts[known] = left
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
            self._note(value)
            return
        known.add(identity(value))
        if len(known) > EXACT_DISTINCT:
            self._known = None
            self._registers = bytearray(1 << self._BITS)
            self._zeros = [1 << self._BITS] + [0] * (65 - self._BITS)
            for each in known:
                self._note(each)

    def _note(self, value: Any) -> None:
        word = int.from_bytes(blake2b(_bytes_of(value), digest_size=8).digest(), "big")
        place = word >> (64 - self._BITS)
        rest = word & ((1 << (64 - self._BITS)) - 1)
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


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, tuple):  # what `identity` made of a number, or of a list or an object
        if len(value) == 2:
            return b"v" + canonical_json(Decimal(value[1]))
        (value,) = value
        return b"j" + bytes(value)
    if isinstance(value, bytes):
        return b"b" + value
    if isinstance(value, (list, Mapping)):
        return b"j" + canonical_json(value)
    return b"v" + canonical_json(value)


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
