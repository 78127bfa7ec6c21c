from __future__ import annotations

import math
import random
import statistics
from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.runtime.aggregates import Spread, Total

FLOATS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e150, max_value=1e150)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9)
INTEGERS = st.integers(-(10**30), 10**30)


@given(st.lists(FLOATS), st.data())
def test_a_sum_of_floats_is_exact_whatever_left(numbers: list[float], data: st.DataObject) -> None:
    """It is the true sum of what is there, rounded once: also after others came and went."""
    gone = data.draw(st.integers(0, len(numbers)))
    total = Total()
    for each in numbers:
        total.add(each)
    for each in numbers[:gone]:
        total.remove(each)
    assert total.sum() == float(sum(map(Fraction, numbers[gone:]), Fraction(0)))


@given(st.lists(st.one_of(INTEGERS, DECIMALS)), st.integers(0, 50))
def test_integers_stay_integers_and_decimals_keep_their_digits(numbers: list[Any], gone: int) -> None:
    """The sum is what exact addition gives; of integers only it is an integer."""
    total = Total()
    for each in numbers:
        total.add(each)
    for each in numbers[:gone]:
        total.remove(each)
    left = numbers[gone:]
    expected = sum(map(Fraction, left), Fraction(0))
    assert Fraction(total.sum()) == expected
    assert type(total.sum()) is (Decimal if any(type(n) is Decimal for n in left) else int)


def test_digits_are_kept() -> None:
    """0.10 and 0.20 are 0.30, and 1 is still a decimal when it meets one."""
    total = Total()
    for each in (Decimal("0.10"), Decimal("0.20"), 1):
        total.add(each)
    assert str(total.sum()) == "1.30"
    total.add(0.5)
    assert str(total.sum()) == "1.80"
    total.remove(Decimal("0.10"))
    total.remove(Decimal("0.20"))
    assert total.sum() == 1.5
    assert type(total.sum()) is float


def test_a_large_integer_does_not_swallow_a_float() -> None:
    """Integers beyond the digits of a float, and a float, are summed before they are rounded."""
    total = Total()
    for each in (2**60, 0.75, -(2**60), 2**53 + 1):
        total.add(each)
    total.remove(2**53 + 1)
    assert total.sum() == 0.75


def test_a_huge_number_that_leaves_leaves_no_trace() -> None:
    """What a plain running sum loses beside 1e300 is there again when that has left."""
    total = Total()
    total.add(0.1)
    total.add(1e300)
    assert total.sum() == 1e300
    total.remove(0.1)
    total.add(0.1)
    total.remove(1e300)
    assert total.sum() == 0.1


def naive_deviation(numbers: list[float]) -> float | None:
    """Return the deviation, computed from all values."""
    return statistics.stdev(numbers) if len(numbers) > 1 else None


NEAR = st.floats(-1e6, 1e6)


@given(st.lists(NEAR, max_size=60), st.integers(1, 20))
def test_the_deviation_of_a_window_is_that_of_its_numbers(numbers: list[float], size: int) -> None:
    """Whatever left, it is as if only those in the window had ever come."""
    sliding, lasting = Spread(sliding=True), Spread(sliding=False)
    window: deque[float] = deque()
    for at, number in enumerate(numbers, 1):
        if len(window) == size:
            sliding.remove(window.popleft())
        window.append(number)
        sliding.add(number)
        lasting.add(number)
        for spread, expected in ((sliding, naive_deviation(list(window))), (lasting, naive_deviation(numbers[:at]))):
            if expected is None:
                assert spread.deviation() is None
            else:
                assert spread.deviation() == pytest.approx(expected, rel=1e-9, abs=1e-7)


def test_a_million_items_drift_by_less_than_a_billionth() -> None:
    """Sum, mean and deviation of the last thousand of 10^6 numbers around a million, against exact ones."""
    rng = random.Random(7)  # noqa: S311  (no secret)
    total, running, sliding, lasting = Total(), Total(), Spread(sliding=True), Spread(sliding=False)
    window: deque[float] = deque()
    numbers = [1e6 + rng.gauss(0, 1) for _ in range(1_000_000)]
    for number in numbers:
        if len(window) == 1000:
            old = window.popleft()
            total.remove(old)
            sliding.remove(old)
        window.append(number)
        for each in (total, running, sliding, lasting):
            each.add(number)
    assert total.sum() == math.fsum(window)
    assert running.sum() == math.fsum(numbers)
    assert total.mean() == pytest.approx(statistics.fmean(window), rel=1e-15)
    assert sliding.deviation() == pytest.approx(statistics.stdev(window), rel=1e-9)
    exact = math.fsum(numbers) / len(numbers)
    squares = math.fsum((number - exact) ** 2 for number in numbers)
    deviation = math.sqrt(squares / (len(numbers) - 1))
    assert lasting.deviation() == pytest.approx(deviation, rel=1e-9)


@pytest.mark.parametrize("bad", ["5", True, [1], math.nan, math.inf, Decimal("NaN"), {}])
def test_what_is_no_finite_number_is_refused(bad: Any) -> None:
    """The message says what was there."""
    for made in (Total, lambda: Spread(sliding=False), lambda: Spread(sliding=True)):
        with pytest.raises(RunError, match=r"needs numbers, (not an?|and one is not finite)"):
            made().add(bad)


def test_too_large_is_told() -> None:
    """A sum or a deviation beyond what a float holds is an error, no null."""
    total = Total()
    total.add(1e308)
    total.add(1e308)
    with pytest.raises(RunError, match="too large"):
        total.sum()
    with pytest.raises(RunError, match="too large"):
        Spread(sliding=False).add(10**400)
    for sliding in (False, True):
        spread = Spread(sliding=sliding)
        spread.add(1e300)
        spread.add(-1e300)
        with pytest.raises(RunError, match="too large"):
            spread.deviation()
    assert operators.is_finite(1e308)
