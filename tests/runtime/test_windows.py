from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.errors import RunError
from streamstack.language.filters.numbers import percentile
from streamstack.runtime.aggregates import OPERATIONS
from streamstack.runtime.windows import Figure, Shape, Window

FIGURES = tuple(Figure(each, each, None) for each in OPERATIONS)


def window(
    *figures: Figure,
    size: int | None = None,
    within: float | None = None,
    every: float = 1,
    by: Any = None,
    groups: int = 100,
    limit: int = 1000,
) -> Window:
    """A window that opens at the time 0."""
    return Window(figures or FIGURES, by, Shape(size, within, every, groups, limit), 0.0)


def naive(values: list[Any], covered: float) -> dict[str, Any]:
    """All figures of some values, computed from the beginning."""
    some = [value for value in values if value is not None]
    return {
        "count": len(some),
        "sum": math.fsum(some) if any(type(v) is float for v in some) else sum(some),
        "mean": statistics.fmean(some) if some else None,
        "min": min(some, default=None),
        "max": max(some, default=None),
        "first": some[0] if some else None,
        "last": some[-1] if some else None,
        "rate": len(some) / covered if covered > 0 else None,
        "distinct": len(set(some)),
        **{f"p{p}": percentile(some, p) for p in (50, 90, 95, 99)},
        "stddev": statistics.stdev(some) if len(some) > 1 else None,
    }


def agree(told: dict[str, Any], values: list[Any], covered: float) -> None:
    """Check figures against those of some values over some seconds."""
    expected = naive(values, covered)
    assert list(told) == list(OPERATIONS)
    for name, value in told.items():
        if isinstance(value, float):
            assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-6), name
        else:
            assert value == expected[name], name


NUMBERS = st.lists(st.one_of(st.integers(-1000, 1000), st.floats(-1e6, 1e6), st.none()), max_size=40)
#: How long after the one before it each item comes, in halves of seconds.
GAPS = st.lists(st.integers(0, 8).map(lambda n: n / 2), min_size=40, max_size=40)


def feed(made: Window, numbers: list[Any], gaps: list[float]) -> list[tuple[float, list[Any]]]:
    """Feed items one by one; return the figures of each, with its time."""
    now, told = 0.0, []
    for number, gap in zip(numbers, gaps, strict=False):
        now += gap
        given: list[Any] = []
        made.feed([number], now, given)
        told.append((now, given))
    return told


def times(gaps: list[float]) -> list[float]:
    """Return when each item comes."""
    now, found = 0.0, []
    for gap in gaps:
        now += gap
        found.append(now)
    return found


@given(NUMBERS, GAPS, st.integers(1, 12))
def test_the_last_items(numbers: list[Any], gaps: list[float], size: int) -> None:
    """After each item the figures are those of the last ones, computed from them alone."""
    at = times(gaps)
    for index, (now, got) in enumerate(feed(window(size=size, every=1), numbers, gaps)):
        begin = max(0, index + 1 - size)
        since = at[begin - 1] if begin else 0.0
        if size == 1:  # a tumbling window
            since = at[index - 1] if index else 0.0
        (told,) = got
        agree(told, numbers[begin : index + 1], now - since)


@given(NUMBERS, GAPS, st.integers(1, 10))
def test_the_items_of_the_last_while(numbers: list[Any], gaps: list[float], within: int) -> None:
    """After each item the figures are those of the items that came within the time, computed from them alone."""
    at = times(gaps)
    told_all = feed(window(within=float(within)), numbers, gaps)
    for index, (now, got) in enumerate(told_all):
        inside = [n for n, when in zip(numbers[: index + 1], at, strict=False) if when > now - within]
        (told,) = got
        agree(told, inside, min(now, within))


@given(NUMBERS, GAPS)
def test_all_since_the_beginning(numbers: list[Any], gaps: list[float]) -> None:
    """Without a size or a time the figures are running ones."""
    for index, (now, got) in enumerate(feed(window(), numbers, gaps)):
        (told,) = got
        agree(told, numbers[: index + 1], now)


@given(NUMBERS, st.integers(1, 9), st.integers(1, 9))
def test_figures_come_after_a_number_of_items(numbers: list[Any], size: int, every: int) -> None:
    """`every` the same as `size` puts each item in one window; the rest comes at the end."""
    made = window(Figure("sum", "sum", None), size=size, every=every)
    given: list[Any] = []
    made.feed(numbers, 1.0, given)
    given += made.rest(1.0)
    ends = [*range(every, len(numbers) + 1, every)]
    if len(numbers) % every:
        ends.append(len(numbers))
    expected = []
    for end in ends:
        # The last of windows that stand side by side is shorter; one that slides is as long as ever.
        begin = (end - 1) // size * size if size == every else max(0, end - size)
        expected.append(naive(numbers[begin:end], 0)["sum"])
    assert [told["sum"] for told in given] == pytest.approx(expected, abs=1e-6)


ITEMS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=40)


@given(ITEMS, st.integers(1, 5))
def test_groups_know_nothing_of_one_another(items: list[tuple[str, int]], size: int) -> None:
    """Each has the last items of its own, and figures are given for the one whose item came."""
    made = window(Figure("sum", "sum", lambda item: item[1]), size=size, by=lambda item: item[0], every=1)
    given: list[Any] = []
    made.feed(items, 1.0, given)
    for index, (told, (key, _)) in enumerate(zip(given, items, strict=True)):
        mine = [number for of, number in items[: index + 1] if of == key]
        assert told == {"key": key, "sum": sum(mine[-size:])}


@given(ITEMS, GAPS, st.integers(1, 6))
def test_on_a_timer_every_item_is_in_one_window(items: list[tuple[str, int]], gaps: list[float], every: int) -> None:
    """Tumbling by time, the sums of all windows of a group are the sum of its items."""
    made = window(
        Figure("sum", "sum", lambda item: item[1]), within=float(every), every=float(every), by=lambda item: item[0]
    )
    now, due, told = 0.0, float(every), list[Any]()
    for item, gap in zip(items, gaps, strict=False):
        now += gap
        while now >= due:
            told += made.tick(due)
            due += every
        made.feed([item], now, told)
    told += made.rest(now)
    for key in "abc":
        assert sum(each["sum"] for each in told if each["key"] == key) == sum(
            number for of, number in items if of == key
        )


def test_an_empty_group_tells_it_once() -> None:
    """A window by time without items is news once; then the group is forgotten, until an item comes."""
    for every in (2.0, 1.0):  # tumbling, sliding
        made = window(Figure("n", "count", None), within=2.0, every=every, by=lambda item: item, groups=1)
        made.feed(["a"], 0.5, [])
        assert made.tick(2.0) == [{"key": "a", "n": 1}]
        assert made.tick(4.0) == [{"key": "a", "n": 0}]
        assert made.tick(6.0) == []
        made.feed(["b"], 6.5, [])  # its place is free
        assert made.tick(7.0) == [{"key": "b", "n": 1}]


def test_a_window_of_all_goes_on_when_nothing_comes() -> None:
    """Without groups an empty window is reported at each time; figures since the beginning stay."""
    made = window(Figure("n", "count", None), within=1.0, every=1.0)
    assert made.tick(1.0) == made.tick(2.0) == [{"n": 0}]
    made = window(Figure("n", "count", None), every=1.0)
    made.feed([5], 0.5, [])
    assert made.tick(1.0) == made.tick(2.0) == [{"n": 1}]


def test_groups_are_bounded() -> None:
    """One too many is an error that says what to write; in a window by time those that are over make room."""
    made = window(Figure("n", "count", None), by=lambda item: item, groups=2)
    given: list[Any] = []
    with pytest.raises(RunError, match="more than 2 groups: raise `groups`") as raised:
        made.feed(["a", "b", "a", "c"], 0.0, given)
    assert raised.value.code == "limit-reached"
    assert [told["key"] for told in given] == ["a", "b", "a"]
    made = window(Figure("n", "count", None), by=lambda item: item, groups=2, within=1.0)
    for at in range(10):
        made.feed([f"first of {at}", f"second of {at}"], float(at), [])


def test_items_held_are_bounded() -> None:
    """Over all groups; a window in which each item is once, and running figures, hold none."""
    many = [[n % 3, n] for n in range(500)]
    for shape in ({"size": 400}, {"within": 10.0}):
        made = window(Figure("n", "count", None), by=lambda item: item[0], limit=100, **shape)
        with pytest.raises(RunError, match="more than 100 items: raise `limit`") as raised:
            made.feed(many, 0.0, [])
        assert raised.value.code == "limit-reached"
    for shape in ({"size": 400, "every": 400}, {"within": 10.0, "every": 10.0}, {}):
        window(limit=100, **shape).feed([n for _, n in many], 0.0, [])
    made = window(within=1.0, limit=100)
    for at in range(20):  # what has left counts no more
        made.feed(list(range(90)), float(at), [])


def test_an_item_that_fails_comes_after_the_figures_before_it() -> None:
    """The figures of the items before it were given."""
    given: list[Any] = []
    with pytest.raises(RunError, match="needs numbers, not a text"):
        window(Figure("s", "sum", None)).feed([1, 2, "3"], 0.0, given)
    assert given == [{"s": 1}, {"s": 3}]


@pytest.mark.parametrize("size", [None, 2])
def test_texts_and_timestamps_have_an_order(size: int | None) -> None:
    """`min` and `max` take them; what can't be compared is an error."""
    ends = (Figure("min", "min", None), Figure("max", "max", None))
    given: list[Any] = []
    window(*ends, size=size).feed(["b", "a", "c"], 0.0, given)
    assert given[1] == {"min": "a", "max": "b"}
    for bad in (["a", 1], [True], [[1]], [math.nan]):
        with pytest.raises(RunError, match=r"compare|needs numbers"):
            window(*ends, size=size).feed(bad, 0.0, [])
