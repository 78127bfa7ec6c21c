from __future__ import annotations

import random
from collections import deque
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstack.language.filters.numbers import percentile
from streamstack.runtime import aggregates
from streamstack.runtime.aggregates import (
    ACCURACY,
    EXACT,
    EXACT_DISTINCT,
    Distinct,
    Quantiles,
    SlidingDistinct,
    identity,
)

PERCENTS = (50, 90, 95, 99)


@given(st.lists(st.one_of(st.integers(-100, 100), st.floats(-1e6, 1e6)), min_size=1, max_size=80), st.integers(1, 30))
def test_of_few_numbers_percentiles_are_the_filters(numbers: list[Any], size: int) -> None:
    """Of a window of the last numbers, each is what `percentile` gives of them."""
    quantiles, window = Quantiles(), deque[Any]()
    for number in numbers:
        if len(window) == size:
            quantiles.remove(window.popleft())
        window.append(number)
        quantiles.add(number)
        for percent in PERCENTS:
            assert quantiles.at(percent) == pytest.approx(percentile(list(window), percent), rel=1e-12, abs=1e-12)


def test_decimals_keep_their_digits() -> None:
    """Between two decimals lies a decimal."""
    quantiles = Quantiles()
    quantiles.add(Decimal("1.10"))
    quantiles.add(Decimal("1.20"))
    assert quantiles.at(50) == Decimal("1.15")
    assert type(quantiles.at(50)) is Decimal


def sound(quantiles: Quantiles, ordered: list[float]) -> None:
    """Check that each percentile is within its error of the numbers on either side of it."""
    for percent in PERCENTS:
        below, rest = divmod((len(ordered) - 1) * percent, 100)
        low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
        exact = low + (high - low) * rest / 100
        bound = ACCURACY * max(abs(low), abs(high)) * (1 + 1e-9) + 1e-300
        assert abs(quantiles.at(percent) - exact) <= bound, (percent, exact)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.lognormvariate(0, 2),
        lambda rng: rng.gauss(0, 1),
        lambda rng: rng.choice([1.0, 1e6]) * rng.random(),
        lambda rng: -rng.expovariate(1),
        lambda rng: float(rng.randrange(3)),
        lambda rng: 10 ** rng.uniform(-300, 300),
    ],
    ids=["latencies", "around zero", "two heaps", "negative", "three values", "every size"],
)
def test_of_many_numbers_percentiles_are_within_one_per_cent(draw: Any) -> None:
    """So they are while the window grows, slides and shrinks; when nothing is left, it is exact again."""
    rng = random.Random(3)  # noqa: S311  (no secret)
    quantiles, window = Quantiles(), deque[float]()
    for count in range(12_000):
        if len(window) == 5000:
            quantiles.remove(window.popleft())
        window.append(draw(rng))
        quantiles.add(window[-1])
        if count % 977 == 0:
            sound(quantiles, sorted(window))
    while len(window) > 1:
        quantiles.remove(window.popleft())
        if len(window) % 499 == 0:
            sound(quantiles, sorted(window))
    quantiles.remove(window.popleft())
    assert quantiles.at(50) is None
    for number in (1, 2):
        quantiles.add(number)
    assert quantiles.at(50) == 1.5


def test_a_million_numbers_take_a_bounded_number_of_bins() -> None:
    """From a thousandth to a million there are about a thousand bins, and the error holds."""
    rng = random.Random(5)  # noqa: S311  (no secret)
    quantiles = Quantiles()
    numbers = [10 ** rng.uniform(-3, 6) for _ in range(1_000_000)]
    for number in numbers:
        quantiles.add(number)
    sound(quantiles, sorted(numbers))
    assert quantiles.bins < 1100


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=60), st.integers(1, 20))
@settings(max_examples=60)
def test_the_sketch_alone_keeps_its_bound(numbers: list[int], size: int) -> None:
    """Also of the few numbers that are exact otherwise: the bins are asked from the first on."""
    before, aggregates.EXACT = EXACT, 0  # type: ignore[misc]  # every number goes to the bins
    try:
        quantiles, window = Quantiles(), deque[int]()
        for number in numbers:
            if len(window) == size:
                quantiles.remove(window.popleft())
            window.append(number)
            quantiles.add(number)
            sound(quantiles, sorted(map(float, window)))
    finally:
        aggregates.EXACT = before  # type: ignore[misc]


VALUES = st.one_of(st.integers(0, 5), st.text("ab", max_size=2), st.lists(st.integers(0, 2), max_size=2), st.none())


@given(st.lists(VALUES, max_size=50), st.integers(1, 10))
def test_different_values_are_counted(values: list[Any], size: int) -> None:
    """Exactly, those of a window and those of all; lists by what they hold."""
    sliding, lasting, window = SlidingDistinct(), Distinct(), deque[Any]()
    for at, value in enumerate(values, 1):
        if len(window) == size:
            sliding.remove(window.popleft())
        window.append(value)
        sliding.add(value)
        lasting.add(value)
        assert sliding.number() == len({repr(each) for each in window})
        assert lasting.number() == len({repr(each) for each in values[:at]})


def test_equal_numbers_are_one_value() -> None:
    """1, 1.0 and the decimal 1 are the same, as `==` says; an object's order of keys is none of its value."""
    distinct = Distinct()
    for value in (1, 1.0, Decimal(1), {"a": 1, "b": 2}, {"b": 2.0, "a": 1}):
        distinct.add(value)
    assert distinct.number() == 2


def test_numbers_are_told_apart_with_hashes_that_nobody_chooses() -> None:
    """20,000 decimals that are the same to Python's hash: each has one of its own, and equal numbers share theirs."""
    chosen = [Decimal((2**61 - 1) * number) for number in range(1, 20_001)]
    assert len({hash(each) for each in chosen}) == 1
    assert len({hash(identity(each)) for each in chosen}) > 19_990
    for same in (
        (2**70, 2.0**70, Decimal(2**70)),
        (2**60 + 1, Decimal(2**60 + 1), Decimal(f"{2**60 + 1}.00")),
        (0.5, Decimal("0.50")),
        (0.1, Decimal("0.1")),
        ([1, {"a": 0.1}], [1.0, {"a": Decimal("0.10")}]),
        (3, 3.0, Decimal("3.00")),
        (10**400, Decimal("1e400")),
    ):
        assert len({identity(each) for each in same}) == 1
    assert len({identity(each) for each in (True, 1, "1", [1], {"1": 1}, None, "true")}) == 7
    distinct = Distinct()
    for each in chosen:
        distinct.add(each)
    assert abs(distinct.number() / 20_000 - 1) < 0.025
    before = distinct.number()
    for each in chosen[:100]:
        distinct.add(int(each))
    assert distinct.number() == before


def test_many_different_values_are_estimated() -> None:
    """Exact up to the bound, then within three standard errors of 0.8 %, at every size; repeats count once."""
    distinct = Distinct()
    worst = 0.0
    for number in range(1, 200_001):
        distinct.add(f"user-{number}")
        if number <= EXACT_DISTINCT:
            if number % 500 == 0:
                assert distinct.number() == number
        elif number % 5000 == 0:
            worst = max(worst, abs(distinct.number() / number - 1))
    assert 0 < worst < 0.025
    before = distinct.number()
    for number in range(1, 20_001):
        distinct.add(f"user-{number}")
    assert distinct.number() == before
