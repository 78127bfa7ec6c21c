"""What steps, modifiers and loops do, from YAML to what a run emits and gives."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest

from streamstack.language.definition import Effects, Parameter, function
from streamstack.runtime.run import Run
from streamstack.runtime.values import Batches, Stream
from streamstack.spec import Bound
from tests.stacks import run_stack

CLOSED: list[str] = []


@function("test.live", effects=Effects(gives="stream"))
def live(run: Run) -> Stream:
    """Give 0, 1, 2 and so on without end, and note when it is closed."""

    async def numbers() -> Batches:
        try:
            for number in range(1_000_000):
                await asyncio.sleep(0)
                yield [number]
        finally:
            CLOSED.append("live")

    return Stream(numbers)


async def test_break_closes_the_stream_at_once() -> None:
    """The stream is closed before the step after the loop runs."""
    CLOSED.clear()
    outcome = await run_stack(
        """
        - test.live:
          as: numbers
        - forEach:
            in: << numbers >>
            do:
              - break:
                when: << item == 3 >>
              - stream: << item >>
        - return: << numbers.count >>
        """,
        functions=[live],
    )
    assert outcome.contents == [0, 1, 2]
    assert outcome.result == 4
    assert CLOSED == ["live"]


async def test_an_error_closes_the_stream() -> None:
    """So does an error in the body."""
    CLOSED.clear()
    outcome = await run_stack(
        """
        - test.live:
          as: numbers
        - forEach: {in: << numbers >>, do: [{throw: enough}]}
        """,
        functions=[live],
    )
    assert outcome.error is not None
    assert outcome.error.code == "enough"
    assert CLOSED == ["live"]


async def test_a_stream_is_consumed_once() -> None:
    """Reading it again is an error that says what to do."""
    outcome = await run_stack(
        """
        - test.live:
          as: numbers
        - set: {pair: 2}
        - while:
            condition: << pair > 0 >>
            do:
              - forEach: {in: << numbers >>, do: [break]}
              - set: {pair: << pair - 1 >>}
        """,
        functions=[live],
    )
    assert outcome.error is not None
    assert "collect" in outcome.error.message


async def test_passed_over_gives_null() -> None:
    """`when` that is false binds null; so does `disabled`."""
    outcome = await run_stack(
        """
        - collect: [1]
          as: a
          when: false
        - collect: [1]
          as: b
          disabled: true
        - return: << [a, b] >>
        """
    )
    assert outcome.result == [None, None]


async def test_timeout_is_an_error_that_can_be_caught() -> None:
    """The step is stopped after its time."""
    began = perf_counter()
    outcome = await run_stack(
        """
        - try:
            do:
              - name: Too slow
                wait: 10s
                timeout: 20ms
            catch:
              on: [timeout]
              do: [{return: << error >>}]
        """
    )
    assert outcome.result["code"] == "timeout"
    assert outcome.result["step"] == "Too slow"
    assert perf_counter() - began < 5


async def test_retry_runs_a_step_again_until_it_works() -> None:
    """`times` is how often it is tried again."""
    outcome = await run_stack(
        """
        - set: {tries: 0}
        - if:
            condition: true
            then:
              - set: {tries: << tries + 1 >>}
              - throw: {code: busy}
                when: << tries < 3 >>
          retry: {times: 5, delay: 1ms}
        - return: << tries >>
        """
    )
    assert outcome.result == 3


async def test_retry_gives_up() -> None:
    """After `times` more the error is what the last try raised."""
    outcome = await run_stack(
        """
        - set: {tries: 0}
        - try:
            do:
              - if:
                  condition: true
                  then: [{set: {tries: << tries + 1 >>}}, {throw: {code: busy}}]
                retry: {times: 2, delay: 1ms}
            catch: {do: [{return: "<< [tries, error.code] >>"}]}
        """
    )
    assert outcome.result == [3, "busy"]


async def test_retry_ends_with_the_first_chunk() -> None:
    """What was sent can't be taken back, so a step that emitted is not run again."""
    outcome = await run_stack(
        """
        - if:
            condition: true
            then: [{stream: once}, {throw: {code: busy}}]
          retry: {times: 5, delay: 1ms}
        """
    )
    assert outcome.contents == ["once"]
    assert outcome.error is not None


async def test_loops_are_left_from_a_retried_step() -> None:
    """break, continue and return pass through the modifiers of the steps around them."""
    outcome = await run_stack(
        """
        - forEach:
            in: << range(10) >>
            do:
              - if: {condition: << item == 1 >>, then: [continue]}
                retry: {times: 1}
              - if: {condition: << item == 4 >>, then: [{return: << item >>}]}
                retry: {times: 1}
              - stream: << item >>
        """
    )
    assert outcome.contents == [0, 2, 3]
    assert outcome.result == 4


async def test_stacks_nest_deeper_than_python_blocks() -> None:
    """Python nests 20 blocks; a definition may nest its loops deeper than that allows."""
    stack = "- stream: << i1 ~ i7 >>\n- break"
    for level in range(7, 0, -1):
        inner = "\n".join("      " + line for line in stack.split("\n"))
        stack = f"- forEach:\n    in: [1, 2]\n    as: i{level}\n    do:\n{inner}"
    outcome = await run_stack(stack)
    assert len(outcome.contents) == 2**6
    assert set(outcome.contents) == {"11", "21"}


async def test_branches_have_their_own_copy() -> None:
    """A branch sees what was set before it, and what it writes stays in it."""
    outcome = await run_stack(
        """
        - set: {x: 1}
        - parallel:
            branches:
              a: [{set: {x: << x + 1 >>}}, {return: << x >>}]
              b: [{wait: 5ms}, {return: << x >>}]
              c: [{log: nothing}]
        - return: << [x, a, b, c] >>
        """
    )
    assert outcome.result == [1, 2, 1, None]


async def test_an_error_in_a_branch_cancels_the_others() -> None:
    """The step fails with the branch's own error, at its place."""
    began = perf_counter()
    outcome = await run_stack(
        """
        - parallel:
            branches:
              a: [{wait: 10s}]
              b: [{throw: {code: broken, message: b broke}}]
        """
    )
    assert outcome.error is not None
    assert outcome.error.code == "broken"
    assert outcome.error.place is not None
    assert outcome.error.place.path == "functionStack[0].parallel.branches.b[0]"
    assert perf_counter() - began < 5


@pytest.mark.parametrize("ordered", ["true", "false"])
async def test_concurrent_items_keep_their_copies(ordered: str) -> None:
    """Iterations at once don't see one another's variables; `ordered` keeps the order of chunks."""
    outcome = await run_stack(
        f"""
        - set: {{seen: 0}}
        - forEach:
            in: [40, 20, 1]
            as: ms
            concurrency: 3
            ordered: {ordered}
            do:
              - set: {{seen: << seen + 1 >>}}
              - wait: << ms >>
              - stream: << [ms, seen, loop.index] >>
        - return: << seen >>
        """
    )
    expected = [[40, 1, 1], [20, 1, 2], [1, 1, 3]]
    assert outcome.contents == (expected if ordered == "true" else expected[::-1])
    assert outcome.result == 0


async def test_concurrency_is_bounded() -> None:
    """No more bodies run at once than asked for."""
    outcome = await run_stack(
        """
        - forEach:
            in: << range(9) >>
            concurrency: 3
            do:
              - stream: in
              - wait: 5ms
              - stream: out
        """
    )
    open_, most = 0, 0
    for content in outcome.contents:
        open_ += 1 if content == "in" else -1
        most = max(most, open_)
    assert most == 3


async def test_leaving_a_concurrent_loop_stops_the_others() -> None:
    """`break` and `return` end the whole loop."""
    outcome = await run_stack(
        """
        - forEach:
            in: [10000, 1]
            as: ms
            concurrency: 2
            do: [{wait: << ms >>}, {return: << ms >>}]
        """
    )
    assert outcome.result == 1


async def test_on_error_skip_goes_on() -> None:
    """A bad item ends its own turn only."""
    outcome = await run_stack(
        """
        - forEach:
            in: [1, 0, 2]
            onError: skip
            do: [{stream: << 2 / item >>}]
        """
    )
    assert outcome.contents == [2.0, 1.0]


async def test_limit_stops_or_fails() -> None:
    """`onLimit: stop` ends the loop; without it the limit is an error."""
    loop = "- forEach: {in: << range(5) >>, limit: 2%s, do: [{stream: << item >>}]}"
    failing = await run_stack(loop % "")
    stopping = await run_stack(loop % ", onLimit: stop")
    assert failing.error is not None
    assert failing.error.code == "limit-reached"
    assert failing.contents == stopping.contents == [0, 1]
    assert stopping.error is None


async def test_catch_sees_only_its_codes() -> None:
    """An error of another code goes on, and `finally` runs all the same."""
    outcome = await run_stack(
        """
        - try:
            do: [{throw: {code: a, message: m, details: {n: 1}}}]
            catch: {on: [b], do: [{stream: caught}]}
            finally: [{stream: last}]
        """
    )
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.message, outcome.error.details) == ("a", "m", {"n": 1})
    assert outcome.contents == ["last"]


async def test_after_runs_when_all_is_over() -> None:
    """`after` sees the variables as they are at the end, and the outcome."""
    seen: list[object] = []

    @function("test.see")
    def see(run: Run) -> None:
        """Note the run's outcome."""
        seen.append(run.outcome)

    outcome = await run_stack(
        """
        - after: {do: [{test.see: null, when: << total == 2 >>}]}
        - set: {total: 1}
        - set: {total: 2}
        - throw: late
        """,
        functions=[see],
    )
    assert outcome.error is not None
    assert seen == ["failed"]


async def test_a_run_that_never_waits_lets_others_run() -> None:
    """A loop of a million turns yields to the event loop by time."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await run_stack(
        """
        - set: {n: 0}
        - while:
            condition: << n < 300000 >>
            limit: 1000000
            do: [{set: {n: << n + 1 >>}}]
        """
    )
    task.cancel()
    assert turns > 5


async def test_appending_is_linear_and_keeps_values_apart() -> None:
    """A list that two names hold is not changed under the other; a loop of appends is quick."""
    outcome = await run_stack(
        """
        - set: {all: []}
        - forEach: {in: << range(100000) >>, do: [{append: {to: all, value: << item >>}}]}
        - set: {before: << all >>}
        - append: {to: all, value: x}
        - return: << [all | length, before | length] >>
        """
    )
    assert outcome.result == [100001, 100000]


async def test_shapes_are_decided_by_event() -> None:
    """Metadata on one step of a name gives every event of that name the shape with metadata."""
    outcome = await run_stack(
        """
        - stream: {content: a, event: one, metadata: {n: 1}}
        - stream: {content: b, event: one}
        - stream: {content: c, event: two}
        - stream: d
        """
    )
    shapes = outcome.plan.shapes
    assert [shapes.has_metadata(name) for name in ("one", "two", None)] == [True, False, False]


async def test_after_in_a_loop_keeps_the_item_of_its_turn() -> None:
    """The item is that of the turn which registered it; a variable is as it is in the end."""
    seen: list[object] = []

    @function("test.see", Parameter("value", Bound(), "What to note.", main=True))
    def see(run: Run, value: object) -> None:
        """Note a value."""
        seen.append(value)

    await run_stack(
        """
        - set: {n: 0}
        - forEach:
            in: [a, b]
            do:
              - set: {n: << n + 1 >>}
              - after: {do: [{test.see: "<< [item, loop.index, n] >>"}]}
        """,
        functions=[see],
    )
    assert seen == [["a", 1, 2], ["b", 2, 2]]
