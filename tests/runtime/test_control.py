"""Limits, attempts, stops and what comes after: what Python has no statement for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamstack.language.definition import Effects, Function, Parameter, function
from streamstack.runtime.run import Context, Run
from streamstack.runtime.values import Batches, Stream
from streamstack.spec import Bound
from tests.collector import Collector
from tests.stacks import plan_of, run_stack


@dataclass
class Notes:
    """What steps told, through `test.note`."""

    taken: list[object] = field(default_factory=list)

    def function(self) -> Function:
        @function("test.note", Parameter("value", Bound(), "It.", main=True))
        def note(run: Run, value: object = None) -> None:
            """Note a value."""
            self.taken.append(value)

        return note


@function("test.once", effects=Effects(gives="stream"))
def once(run: Run) -> Stream:
    """Give 0, 1 and then nothing, without an end."""

    async def numbers() -> Batches:
        yield [0]
        yield [1]
        await asyncio.sleep(3600)

    return Stream(numbers)


async def stopped(stack: str, after: float = 0.02) -> list[object]:
    """Cancel a run while it waits; return what its steps noted."""
    notes = Notes()
    plan = plan_of(stack, functions=[notes.function()])
    task = asyncio.create_task(plan.start(Run(Collector(), Context()), {}))
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    return notes.taken


async def test_a_retry_looks_at_its_own_chunks_only() -> None:
    """What another branch sends does not keep a step from being tried again."""
    outcome = await run_stack(
        """
        - parallel:
            branches:
              a: [{wait: 2ms}, {stream: a}]
              b:
                - set: {tries: 0}
                - if:
                    condition: true
                    then:
                      - set: {tries: << tries + 1 >>}
                      - wait: 10ms
                      - throw: busy
                        when: << tries < 2 >>
                      - stream: << tries ~ "-" ~ stream.count >>
                  retry: {times: 3, delay: 1ms}
        """
    )
    assert outcome.error is None
    assert outcome.contents == ["a", "2-1"]


@pytest.mark.parametrize(
    "emits",
    [
        "{call: say}",
        "{parallel: {branches: {a: [{stream: hi}]}}}",
        "{forEach: {in: [1], concurrency: 2, do: [{stream: hi}]}}",
        "{forEach: {in: [1], concurrency: 2, ordered: true, do: [{stream: hi}]}}",
        "{if: {condition: true, then: [{stream: hi}], }, retry: {times: 1}}",
    ],
)
async def test_a_retry_sees_chunks_however_they_are_sent(emits: str) -> None:
    """A step that emitted is not run again, whichever code emitted for it."""
    outcome = await run_stack(
        f"""
        - if: {{condition: true, then: [{emits}, {{throw: busy}}]}}
          retry: {{times: 3, delay: 1ms}}
        """,
        also="kind: function\nname: say\nfunctionStack:\n- stream: hi\n",
    )
    assert outcome.contents == ["hi"]
    assert outcome.error is not None


async def test_calls_side_by_side_are_not_deep() -> None:
    """The limit is on how deep functions call one another, not on how many run at once."""
    say = "kind: function\nname: say\nfunctionStack:\n- wait: 2ms\n- stream: hi\n"
    outcome = await run_stack(
        "- forEach: {in: << range(100) >>, concurrency: 100, do: [{call: say}]}".replace(
            "<< range(100) >>", "'<< range(100) >>'"
        ),
        also=say,
    )
    assert outcome.error is None
    assert len(outcome.contents) == 100


async def test_calls_of_calls_have_a_limit() -> None:
    """Also where each is made in a branch of its own."""
    outcome = await run_stack(
        "- call: again",
        also="kind: function\nname: again\nfunctionStack:\n- parallel: {branches: {a: [{call: again}]}}\n",
    )
    assert outcome.error is not None
    assert outcome.error.code == "limit-reached"


async def test_a_limit_of_null_is_none() -> None:
    """As for every parameter, null counts as not given."""
    for concurrency in (1, 2):
        outcome = await run_stack(
            f"""
            - forEach:
                in: [1, 2]
                limit: << input.most >>
                concurrency: {concurrency}
                do: [{{stream: << item >>}}]
            """,
            {"most": None},
        )
        assert outcome.contents == [1, 2]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_loop_that_stops_at_its_limit_waits_for_nothing(concurrency: int) -> None:
    """The item after the last may never come."""
    async with asyncio.timeout(5):
        outcome = await run_stack(
            f"""
            - test.once:
              as: numbers
            - forEach:
                in: << numbers >>
                limit: 2
                onLimit: stop
                concurrency: {concurrency}
                do: [{{stream: << item >>}}]
            """,
            functions=[once],
        )
    assert outcome.contents == [0, 1]


async def test_a_chunk_held_back_is_refused_where_it_is_sent() -> None:
    """In an ordered loop an error of a chunk belongs to the step that sends it, and can be caught there."""
    outcome = await run_stack(
        """
        - forEach:
            in: [20, 1]
            as: ms
            concurrency: 2
            ordered: true
            do:
              - wait: << ms >>
              - try:
                  do: [{stream: << null if ms == 1 else ms >>}]
                  catch: {do: [{stream: << error.step >>}]}
        """
    )
    assert outcome.contents == [20, "stream"]


@pytest.mark.parametrize("leave", ["return", "break", "continue"])
async def test_no_finally_undoes_a_stop(leave: str) -> None:
    """A run whose reader has left ends, though a `finally` leaves its loop."""
    taken = await stopped(
        f"""
        - forEach:
            in: [1, 2, 3]
            do:
              - try:
                  do: [{{wait: 1h}}]
                  finally:
                    - forEach: {{in: [1, 2], do: [break]}}
                    - test.note: last
                    - {leave}
        - test.note: never
        """
    )
    assert taken == ["last"]


async def test_no_finally_undoes_a_timeout() -> None:
    """The step whose time is over fails."""
    outcome = await run_stack(
        """
        - if:
            condition: true
            then: [{try: {do: [{wait: 1h}], finally: [{return: 1}]}}]
          timeout: 5ms
        """
    )
    assert outcome.error is not None
    assert outcome.error.code == "timeout"


async def test_a_finally_may_leave_after_an_error() -> None:
    """As everywhere, what `finally` says last holds."""
    outcome = await run_stack(
        """
        - forEach:
            in: [1, 2, 3]
            do:
              - try: {do: [{throw: x}], finally: [{stream: << item >>}, continue]}
        - try: {do: [{throw: x}], finally: [{return: 5}]}
        """
    )
    assert outcome.contents == [1, 2, 3]
    assert outcome.result == 5


@pytest.mark.parametrize(
    "around",
    [
        "- try: {do: [*], catch: {do: [{test.note: caught}]}}",
        "- if: {condition: true, then: [*]}\n  retry: {times: 3, delay: 0}",
        "- forEach: {in: [1, 2], onError: skip, do: [*]}",
        "- forEach: {in: [1, 2], concurrency: 2, onError: skip, do: [*]}",
    ],
)
async def test_no_error_undoes_a_stop(around: str) -> None:
    """An error of a `finally`, while a run is stopped, is neither caught nor tried again."""
    failing = "{try: {do: [{wait: 1h}], finally: [{test.note: last}, {throw: x}]}}"
    taken = await stopped(around.replace("*", failing) + "\n- test.note: never")
    assert set(taken) == {"last"}
    assert len(taken) == (2 if "concurrency" in around else 1)


async def test_after_in_after_runs() -> None:
    """It is registered when it is reached, at the end of the run, and runs then."""
    notes = Notes()
    await run_stack(
        """
        - after: {do: [{after: {do: [{test.note: inner}]}}, {test.note: outer}]}
        """,
        functions=[notes.function()],
    )
    assert notes.taken == ["outer", "inner"]


async def test_after_in_a_body_keeps_what_the_body_bound() -> None:
    """The item, the index and the error are the body's; the variables are as they are at the end."""
    notes = Notes()
    await run_stack(
        """
        - set: {total: 0}
        - forEach:
            in: [a, b]
            do:
              - set: {total: << total + 1 >>}
              - try:
                  do: [{throw: << item >>}]
                  catch:
                    do:
                      - after: {do: [{test.note: "<< item ~ loop.index ~ error.code ~ total >>"}]}
        """,
        functions=[notes.function()],
    )
    assert notes.taken == ["a1a2", "b2b2"]


async def test_pace_is_a_step_s_own_in_every_definition() -> None:
    """A step of a called function does not wait for one of the caller's."""
    paced = "stream: {content: a, pace: {mode: fixed, interval: 5s}}"
    async with asyncio.timeout(4):
        outcome = await run_stack(
            f"- {paced}\n- call: say", also=f"kind: function\nname: say\nfunctionStack:\n- {paced}\n"
        )
    assert outcome.contents == ["a", "a"]


async def test_log_takes_fields_of_any_name() -> None:
    """They may come from a request."""
    outcome = await run_stack(
        """
        - log: {message: hello, fields: << input.all >>}
        - return: 1
        """,
        {"all": dict.fromkeys(("self", "event", "level", "exc_info", "stack_info", "log", "a b"), 1)},
    )
    assert outcome.result == 1


async def test_a_caught_error_leaves_no_stop_behind() -> None:
    """After branches have failed, the run's task is as it was: who stops the run later is heard."""
    cancelling: list[int] = []

    @function("test.look")
    def look(run: Run) -> None:
        """Note how often the task is being cancelled."""
        task = asyncio.current_task()
        assert task is not None
        cancelling.append(task.cancelling())

    await run_stack(
        """
        - try: {do: [{parallel: {branches: {a: [{wait: 1ms}, {throw: x}]}}}], catch: {do: []}}
        - test.look
        - forEach: {in: [1, 2], concurrency: 2, do: [{wait: 1ms}, break]}
        - test.look
        """,
        functions=[look],
    )
    assert cancelling == [0, 0]


@pytest.mark.parametrize(
    "beside",
    [
        "parallel: {branches: {a: [{wait: 1h}], b: [*]}}",
        "forEach: {in: [1, 2], concurrency: 2, do: [*]}",
        "forEach: {in: [1, 2], concurrency: 2, do: [{try: {do: [{wait: 1h}], finally: [return]}}]}",
    ],
)
async def test_no_error_beside_others_undoes_a_stop(beside: str) -> None:
    """A branch that fails while the run is stopped does not keep the run going."""
    failing = "{try: {do: [{wait: 1h}], finally: [{throw: x}]}}"
    taken = await stopped(
        f"""
        - try: {{do: [{{{beside.replace("*", failing)}}}], catch: {{do: [{{test.note: caught}}]}}}}
        - test.note: never
        """
    )
    assert taken == []


async def test_a_map_is_left_though_its_bodies_fail_on_the_way_out() -> None:
    """Leaving the stream ends the bodies under way, and waits for none of them in vain."""
    async with asyncio.timeout(5):
        outcome = await run_stack(
            """
            - streams.map:
                in: [1, 2, 3]
                concurrency: 3
                do:
                  - return: first
                    when: << item == 1 >>
                  - try: {do: [{wait: 1h}], finally: [{throw: x}]}
              as: made
            - forEach: {in: << made >>, do: [{return: << item >>}]}
            """
        )
    assert outcome.result == "first"


class Slow(Collector):
    """A sink whose reader takes a while for each chunk."""

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        super().emit(content, event, id, metadata)
        return True

    async def drain(self) -> None:
        await asyncio.sleep(0)


async def test_chunks_held_back_stay_in_order() -> None:
    """What branches of an iteration send while its held chunks leave goes behind them."""
    plan = plan_of(
        """
        - forEach:
            in: [50, 0]
            as: ms
            concurrency: 2
            ordered: true
            do:
              - wait: << ms >>
              - parallel:
                  branches:
                    a: [{repeat: {times: 300, do: [{stream: "<< 'a' ~ loop.index0 >>"}]}}]
                    b: [{repeat: {times: 300, do: [{stream: "<< 'b' ~ loop.index0 >>"}]}}]
        """
    )
    sink = Slow()
    await plan.start(Run(sink, Context()), {})
    sent = [chunk.content for chunk in sink.chunks]
    for branch in "ab":
        assert [text for text in sent if text[0] == branch] == [
            f"{branch}{number}" for number in [*range(300), *range(300)]
        ]
