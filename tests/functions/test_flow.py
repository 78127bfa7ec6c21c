"""Loops that count."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.stacks import run_stack


async def test_a_loop_over_a_range_holds_no_list() -> None:
    """Its memory does not grow with its turns."""
    stack = "- forEach: {in: << range(%d) >>, as: n, do: [{set: {last: << n >>}}]}\n- return: << last >>"
    peaks = []
    for turns in (1_000, 300_000):
        tracemalloc.start()
        outcome = await run_stack("- set: {last: 0}\n" + stack % turns)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert outcome.result == turns - 1
    assert peaks[1] - peaks[0] < 1_000_000, "a list of 300,000 integers takes 11 MB"


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_loop_over_a_range_knows_its_length(concurrency: int) -> None:
    """`loop` is as over a list; the arguments of `range` are any expressions."""
    outcome = await run_stack(
        f"""
        - set: {{first: 2}}
        - forEach:
            in: << range(first, 9, first + 1) >>
            concurrency: {concurrency}
            ordered: {str(concurrency > 1).lower()}
            do: [{{stream: '<< [item, loop.index, loop.length, loop.last] >>'}}]
        """
    )
    assert outcome.contents == [[2, 1, 3, False], [5, 2, 3, False], [8, 3, 3, True]]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("range(1, 5, 0)", "the step can't be 0"),
        ("range(99999999999)", "the list would hold more than"),
        ('range("x")', "range"),
    ],
)
async def test_a_range_that_can_not_be_is_told(expression: str, told: str) -> None:
    """The error is at the step, with its expression."""
    outcome = await run_stack(f"- forEach: {{in: '<< {expression} >>', do: [{{stream: x}}]}}")
    assert outcome.error is not None
    assert told in outcome.error.message
    assert outcome.error.place is not None
    assert outcome.error.place.expression == expression


async def test_a_range_elsewhere_is_a_list() -> None:
    """What is set, sent or filtered is a list as ever."""
    outcome = await run_stack(
        "- set: {all: '<< range(3) >>'}\n- stream: '<< range(3) >>'\n"
        "- forEach: {in: '<< all + range(1) >>', do: [{stream: << item >>}]}\n"
        "- forEach: {in: << range(4) | list >>, do: [{stream: << item >>}]}"
    )
    assert outcome.contents == [[0, 1, 2], 0, 1, 2, 0, 0, 1, 2, 3]
