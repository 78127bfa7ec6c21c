from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from streamstack.errors import RunError
from streamstack.functions.streams import FUNCTIONS, LARGEST_BATCH
from streamstack.language.definition import Registry
from streamstack.runtime import operators
from streamstack.runtime.run import Context, Run
from streamstack.runtime.values import Batches, Stream, iterate
from tests.collector import Collector
from tests.stacks import run_stack

REGISTRY = Registry(FUNCTIONS)


class Source:
    """A stream that records what was read of it, and that it was closed."""

    def __init__(self, *batches: list[Any], gap: float = 0, fails: Exception | None = None, ends: bool = True) -> None:
        self.batches = batches
        self.gap = gap
        self.fails = fails
        self.ends = ends
        self.opened = self.read = self.closed = 0
        self.stream = Stream(self._open)

    async def _open(self) -> Batches:
        self.opened += 1
        try:
            for batch in self.batches:
                if self.gap:
                    await asyncio.sleep(self.gap)
                self.read += 1
                yield batch
            if self.fails is not None:
                raise self.fails
            if not self.ends:
                await asyncio.Event().wait()
        finally:
            # Closing takes a moment, as it does with a socket.
            await asyncio.sleep(0)
            self.closed += 1


def made(name: str, **parameters: Any) -> Stream:
    """What a function gives, called as compiled code calls it."""
    code = REGISTRY[name].run
    assert code is not None
    result = code(Run(Collector(), Context()), **parameters)
    assert isinstance(result, Stream)
    return result


async def batches_of(stream: Stream) -> AsyncIterator[list[Any]]:
    """The batches of a stream, as a loop reads them."""
    source = iterate(stream)
    try:
        while batch := await source.batch():
            yield list(batch)
    finally:
        await source.close()


async def items_of(stream: Stream, got: list[Any] | None = None) -> list[Any]:
    """All items; in ``got`` also those before an error."""
    got = [] if got is None else got
    async for batch in batches_of(stream):
        got += batch
    return got


async def echo(item: Any, index: int) -> Any:
    """Give the item back."""
    return item


async def slow_echo(item: Any, index: int) -> Any:
    """Give the item back, later."""
    await asyncio.sleep(0.001)
    return item


#: Each way to make a stream of one, so that for "a", "b", "c" it gives one thing an item.
WAYS: dict[str, Callable[[Any], Stream]] = {
    "map value": lambda given: made("streams.map", in_=given, value=str.upper),
    "map do": lambda given: made("streams.map", in_=given, do=echo),
    "map do at once": lambda given: made("streams.map", in_=given, do=slow_echo, concurrency=3),
    "filter": lambda given: made("streams.filter", in_=given, where=bool),
    "batch size": lambda given: made("streams.batch", in_=given, size=1),
    "batch within": lambda given: made("streams.batch", in_=given, size=1, within=5.0),
    "take": lambda given: made("streams.take", in_=given, count=100),
    "split": lambda given: made("streams.split", in_=given, by="lines"),
    "merge": lambda given: made("streams.merge", streams=[given]),
    "merge named": lambda given: made("streams.merge", streams={"x": given, "y": []}),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@ways
async def test_a_source_is_read_only_when_somebody_reads(way: Callable[[Any], Stream]) -> None:
    """Making a stream of a stream opens nothing; closing it unread does neither."""
    source = Source(["a\n"])
    stream = way(source.stream)
    await asyncio.sleep(0)
    assert source.opened == 0
    await stream.consume().close()
    assert source.opened == 0


@ways
async def test_a_source_is_claimed_once(way: Callable[[Any], Stream]) -> None:
    """What two streams are made of fails for the second that is read."""
    source = Source(["a\n"])
    first, second = way(source.stream), way(source.stream)
    assert len(await items_of(first)) == 1
    with pytest.raises(RunError, match="consumed before"):
        await items_of(second)


@ways
async def test_a_source_is_closed_at_its_end(way: Callable[[Any], Stream]) -> None:
    """All items come, then the source is closed, and the stream knows it has ended."""
    source = Source(["a\n", "b\n"], ["c\n"])
    stream = way(source.stream)
    assert len(await items_of(stream)) == 3
    assert source.closed == 1
    assert stream["finished"]
    assert stream["count"] == 3


@ways
async def test_a_source_is_closed_when_the_reader_leaves(way: Callable[[Any], Stream]) -> None:
    """Closing after the first item closes the source before `close` is back, and no task is left."""
    source = Source(["a\n"], ["b\n"], ends=False)
    stream = way(source.stream).consume()
    assert await stream.batch()
    await stream.close()
    assert source.closed == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await stream.close()
    assert await stream.batch() == []


@ways
async def test_a_source_is_closed_when_the_reader_is_cancelled(way: Callable[[Any], Stream]) -> None:
    """A reader cancelled while it waits has closed everything when it ends."""
    source = Source(["a\n"], ends=False)

    async def reader() -> None:
        await items_of(way(source.stream))

    task = asyncio.create_task(reader())
    await asyncio.sleep(0.01)
    assert source.opened == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


@ways
async def test_a_timeout_around_one_read_closes_the_source(way: Callable[[Any], Stream]) -> None:
    """A time limit is a TimeoutError for the reader, not a cancelled run."""
    source = Source(["a\n"], ends=False)
    stream = way(source.stream).consume()
    await stream.batch()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await stream.batch()
    await stream.close()
    assert source.closed == 1


@ways
async def test_what_came_before_an_error_is_given_before_it(way: Callable[[Any], Stream]) -> None:
    """A source that fails gives its items first; then its own error is raised, and it is closed."""
    failure = RunError("stream-lost", "gone")
    source = Source(["a\n", "b\n"], ["c\n"], fails=failure)
    got: list[Any] = []
    with pytest.raises(RunError) as caught:
        await items_of(way(source.stream), got)
    assert caught.value is failure
    assert len(got) == 3
    assert source.closed == 1


@ways
async def test_an_item_is_not_held_back_for_the_next(way: Callable[[Any], Stream]) -> None:
    """On a live stream each item is there before the source goes on."""
    source = Source(["a\n"], ["b\n"], ends=False)
    stream = way(source.stream).consume()
    async with asyncio.timeout(1):
        got = await stream.batch()
        while len(got) < 2:
            got += await stream.batch()
    await stream.close()


@ways
async def test_a_reader_who_stops_stops_the_source(way: Callable[[Any], Stream]) -> None:
    """Without a reader only a few batches are read ahead."""
    source = Source(*(["x\n"] for _ in range(1000)))
    stream = way(source.stream).consume()
    await stream.batch()
    await asyncio.sleep(0.02)
    assert source.read <= 8
    await stream.close()


@ways
async def test_a_list_may_stand_for_a_stream(way: Callable[[Any], Stream]) -> None:
    """A list gives its items, and an empty one none."""
    assert len(await items_of(way(["a\n", "b\n", "c\n"]))) == 3
    assert await items_of(way([])) == []


@ways
async def test_a_long_list_is_taken_in_parts(way: Callable[[Any], Stream]) -> None:
    """Leaving after the first items of a long list has not worked through all of it."""
    stream = way(["a\n"] * 100_000).consume()
    first = await stream.batch()
    await stream.close()
    assert len(first) <= 100_000 if way is WAYS["take"] else len(first) <= operators.SLICE


@ways
def test_what_cannot_be_iterated_is_refused_where_it_stands(way: Callable[[Any], Stream]) -> None:
    """The step itself fails, not the one that reads."""
    with pytest.raises(RunError, match="can't be iterated"):
        way(None)


async def test_a_run_that_only_computes_lets_others_run() -> None:
    """A filter that keeps nothing of a long list shares the event loop."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    stream = made("streams.filter", in_=list(range(500_000)), where=lambda item: item < 0)
    assert await items_of(stream) == []
    task.cancel()
    assert turns > 3


# ------------------------------------------------------------------------------------ filter, map


async def test_filter_keeps_what_is_true() -> None:
    """The order stays; a constant condition is allowed."""
    stream = made("streams.filter", in_=[1, 2, 3, 4], where=lambda item: item % 2 == 0)
    assert await items_of(stream) == [2, 4]
    assert await items_of(made("streams.filter", in_=[1, 2], where=True)) == [1, 2]
    assert await items_of(made("streams.filter", in_=[1, 2], where=False)) == []


def inverse(item: int) -> float:
    """Divide by the item."""
    if item == 0:
        raise RunError("template", "division by zero")
    return 1 / item


async def inverse_later(item: int, index: int) -> float:
    """Divide by the item, later."""
    await asyncio.sleep(0.001)
    return inverse(item)


MAPS = pytest.mark.parametrize(
    "way",
    [{"value": inverse}, {"do": inverse_later}, {"do": inverse_later, "concurrency": 3}],
    ids=["value", "do", "at once"],
)


@MAPS
async def test_an_item_that_fails_ends_the_map_after_those_before(way: dict[str, Any]) -> None:
    """What was made of the items before it is given; the items after it are not."""
    got: list[Any] = []
    with pytest.raises(RunError, match="division by zero"):
        await items_of(made("streams.map", in_=[1, 2, 4, 0, 5], **way), got)
    assert got == [1, 0.5, 0.25]


@MAPS
async def test_an_item_that_fails_can_be_passed_over(way: dict[str, Any]) -> None:
    """It is counted, and logged with its index and code."""
    stream = made("streams.map", in_=[0, 1, 0, 2, 0], on_error="skip", **way)
    assert stream["skipped"] is None
    with capture_logs() as logs:
        assert await items_of(stream) == [1, 0.5]
    assert stream["skipped"] == 3
    assert sorted((line["event"], line["index"], line["code"]) for line in logs) == [
        ("item-skipped", 0, "template"),
        ("item-skipped", 2, "template"),
        ("item-skipped", 4, "template"),
    ]


async def test_the_log_is_not_filled_with_skipped_items() -> None:
    """All are counted, the first are logged, and the last line says that there are more."""
    stream = made("streams.map", in_=[0] * 5000, value=inverse, on_error="skip")
    with capture_logs() as logs:
        assert await items_of(stream) == []
    assert stream["skipped"] == 5000
    assert len(logs) == operators.Skipped.LOGGED
    assert logs[-1]["more"]


async def test_a_failing_source_is_not_skipped() -> None:
    """`onError: skip` is for items; a lost source ends the stream."""
    for way in ({"value": inverse}, {"do": inverse_later}, {"do": inverse_later, "concurrency": 2}):
        source = Source([1], fails=RunError("stream-lost", "gone"))
        stream = made("streams.map", in_=source.stream, on_error="skip", **way)
        with pytest.raises(RunError, match="gone"):
            await items_of(stream)


@pytest.mark.parametrize("given", [{}, {"value": inverse, "do": inverse_later}])
def test_map_needs_one_of_value_and_do(given: dict[str, Any]) -> None:
    """Neither or both is the author's error."""
    with pytest.raises(RunError, match="either `value` or `do`"):
        made("streams.map", in_=[], **given)


async def test_bodies_run_at_once_but_never_too_many() -> None:
    """As many bodies as asked for run at a time, and their results come in the items' order."""
    running, most = 0, 0

    async def body(item: int, index: int) -> tuple[int, int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02 if index % 3 == 0 else 0.001)
        running -= 1
        return index, item

    stream = made("streams.map", in_=list(range(100, 130)), do=body, concurrency=4)
    assert await items_of(stream) == [(at, 100 + at) for at in range(30)]
    assert most == 4


async def test_a_result_is_given_when_those_before_it_are() -> None:
    """The first result does not wait for the second; the second waits for the first."""
    gates = [asyncio.Event() for _ in range(3)]

    async def body(item: int, index: int) -> int:
        await gates[index].wait()
        return item

    stream = made("streams.map", in_=[0, 1, 2], do=body, concurrency=3).consume()
    gates[1].set()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reading := asyncio.ensure_future(stream.batch())), 0.02)
    gates[0].set()
    assert await reading + await stream.batch() == [0, 1]
    gates[2].set()
    assert await stream.batch() == [2]
    assert await stream.batch() == []


async def test_leaving_cancels_the_bodies_under_way() -> None:
    """None of them runs on when the stream is closed, and those that clean up are waited for."""
    cleaned = []

    async def body(item: int, index: int) -> int:
        if item == 0:
            return item
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.001)
            cleaned.append(item)
        return item

    stream = made("streams.map", in_=list(range(10)), do=body, concurrency=3).consume()
    assert await stream.batch() == [0]
    await asyncio.sleep(0.001)
    await stream.close()
    assert sorted(cleaned) == [1, 2, 3]


async def test_one_body_that_fails_cancels_those_after_it() -> None:
    """The error reaches the reader at once when its turn has come, not when all bodies are done."""

    async def body(item: int, index: int) -> int:
        if index == 1:
            raise RunError("database", "down")
        await asyncio.sleep(0.005 if index == 0 else 10)
        return item

    stream = made("streams.map", in_=[0, 1, 2, 3], do=body, concurrency=4).consume()
    async with asyncio.timeout(1):
        assert await stream.batch() == [0]
        with pytest.raises(RunError, match="down"):
            await stream.batch()
        await stream.close()


async def test_a_body_that_cancels_itself_holds_nobody_up() -> None:
    """A stray cancellation loses its own item, never the stream."""

    async def body(item: int, index: int) -> int:
        await asyncio.sleep(0)
        if index == 1:
            raise asyncio.CancelledError
        return item

    stream = made("streams.map", in_=[0, 1, 2, 3], do=body, concurrency=2)
    async with asyncio.timeout(1):
        assert await items_of(stream) == [0, 2, 3]


# ------------------------------------------------------------------------------------ batch, take


async def test_batch_gathers_across_what_arrives() -> None:
    """Lists have the size asked for, however the items came; the last may be shorter."""
    source = Source([1], [2, 3, 4], [5, 6, 7, 8, 9])
    assert await items_of(made("streams.batch", in_=source.stream, size=2)) == [[1, 2], [3, 4], [5, 6], [7, 8], [9]]


async def test_batch_gives_what_it_has_when_the_time_is_over() -> None:
    """The time counts from the first item; the read it interrupts goes on and loses nothing."""
    reads = [asyncio.Event() for _ in range(3)]

    async def open_() -> Batches:
        for number, event in enumerate(reads):
            await event.wait()
            yield [number]

    stream = made("streams.batch", in_=Stream(open_), size=10, within=0.03).consume()
    loop = asyncio.get_running_loop()
    reads[0].set()
    began = loop.time()
    assert await stream.batch() == [[0]]
    assert 0.025 < loop.time() - began < 1
    reads[1].set()
    reads[2].set()
    assert await stream.batch() == [[1, 2]]
    assert await stream.batch() == []


async def test_a_full_batch_does_not_wait_for_the_time() -> None:
    """Size and time together: what comes first."""
    source = Source([1, 2, 3], ends=False)
    stream = made("streams.batch", in_=source.stream, size=2, within=0.02).consume()
    assert await stream.batch() == [[1, 2]]
    assert await stream.batch() == [[3]]
    await stream.close()
    assert source.closed == 1


async def test_a_batch_by_time_alone_is_bounded() -> None:
    """A flood is given in lists of the largest size, not kept until the time is over."""
    source = Source(*([0] * 5000 for _ in range(5)), ends=False)
    stream = made("streams.batch", in_=source.stream, within=30).consume()
    async with asyncio.timeout(5):
        first = await stream.batch()
    assert [len(items) for items in first] == [LARGEST_BATCH]
    await stream.close()


def test_batch_needs_a_size_or_a_time() -> None:
    """Without either there would be no end to a batch."""
    with pytest.raises(RunError, match="`size`, or `within`"):
        made("streams.batch", in_=[])


async def test_take_closes_its_source_with_the_last_item() -> None:
    """The source is closed before the last item is worked on, and read no further."""
    source = Source([1, 2], [3, 4], [5])
    stream = made("streams.take", in_=source.stream, count=3).consume()
    assert await stream.batch() == [1, 2]
    assert source.closed == 0
    assert await stream.batch() == [3]
    assert source.closed == 1
    assert await stream.batch() == []
    assert source.read == 2


async def test_take_nothing_opens_nothing() -> None:
    """A count of 0 leaves the source alone."""
    source = Source([1])
    assert await items_of(made("streams.take", in_=source.stream, count=0)) == []
    assert source.opened == 0


# ----------------------------------------------------------------------------------- split, merge


async def test_split_takes_the_text_of_what_has_one() -> None:
    """Texts and the text items of a model count; other items are skipped."""
    items = [
        "One ",
        {"type": "text", "text": "two"},
        {"type": "toolCall", "text": "no"},
        {"text": " three"},
        {"type": "text", "text": None},
        7,
        None,
        " four",
    ]
    assert await items_of(made("streams.split", in_=items, by="words", size=2)) == ["One two", " three four"]
    assert await items_of(made("streams.split", in_=["a b"])) == ["a", " b"]


def test_split_refuses_records() -> None:
    """Gathering items is what `streams.batch` does."""
    with pytest.raises(RunError, match=r"streams\.batch"):
        made("streams.split", in_=[], by="records")


async def test_merge_gives_items_as_they_come() -> None:
    """A slow stream does not hold a quick one back, and each keeps its order."""
    slow, quick = Source([1], [2], gap=0.05), Source(["a"], ["b"], ["c"], gap=0.001)
    stream = made("streams.merge", streams=[slow.stream, quick.stream])
    assert await items_of(stream) == ["a", "b", "c", 1, 2]
    assert (slow.closed, quick.closed) == (1, 1)


async def test_merge_tells_named_streams_apart() -> None:
    """With names each item says where it is from."""
    stream = made("streams.merge", streams={"a": [1], "b": Source([2], gap=0.01).stream})
    assert await items_of(stream) == [{"from": "a", "item": 1}, {"from": "b", "item": 2}]


async def test_merge_of_nothing_ends() -> None:
    """No streams, no items."""
    assert await items_of(made("streams.merge", streams=[])) == []


async def test_an_error_in_one_closes_the_others() -> None:
    """The others are closed when the error is raised, whatever they wait for."""
    failing = Source([1], fails=RunError("stream-lost", "gone"))
    waiting = Source([2], ends=False)
    stream = made("streams.merge", streams=[failing.stream, waiting.stream])
    got: list[Any] = []
    with pytest.raises(RunError, match="gone"):
        await items_of(stream, got)
    assert sorted(got) == [1, 2]
    assert (failing.closed, waiting.closed) == (1, 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_merge_reads_each_stream_one_batch_ahead() -> None:
    """A reader who is slow holds back all of them, evenly."""
    sources = [Source(*([name] for _ in range(100))) for name in "abc"]
    stream = made("streams.merge", streams=[source.stream for source in sources]).consume()
    await stream.batch()
    await asyncio.sleep(0.01)
    assert [source.read for source in sources] == [2, 2, 2]
    await stream.close()
    assert [source.closed for source in sources] == [1, 1, 1]


async def test_a_source_that_is_slow_to_close_is_waited_for() -> None:
    """Cancelling the reader again while it closes does not leave a task behind."""
    closed = False

    async def open_() -> Batches:
        nonlocal closed
        try:
            yield [1]
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            closed = True

    async def reader() -> None:
        await items_of(made("streams.merge", streams=[Stream(open_)]))

    task = asyncio.create_task(reader())
    await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.sleep(0.005)
    assert not task.done()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed


async def test_a_pipeline_closes_from_end_to_end() -> None:
    """Leaving the last of several streams closes the first."""
    sources = [Source([1, 2], [3, 4], ends=False), Source([5], ends=False)]
    merged = made("streams.merge", streams=[source.stream for source in sources])
    mapped = made("streams.map", in_=merged, do=slow_echo, concurrency=2)
    kept = made("streams.filter", in_=mapped, where=bool)
    gathered = made("streams.batch", in_=kept, size=2, within=0.005)
    first = made("streams.take", in_=gathered, count=1)
    assert len(await items_of(first)) == 1
    assert [source.closed for source in sources] == [1, 1]
    assert asyncio.all_tasks() == {asyncio.current_task()}


# -------------------------------------------------------------------------- in a definition's stack


async def test_an_expression_that_fails_on_an_item_can_be_passed_over() -> None:
    """What fails in a compiled expression or body is the author's error, with its place."""
    for way in ("value: << item.n * 2 >>", "do: [{return: << item.n * 2 >>}]"):
        with capture_logs() as logs:
            outcome = await run_stack(
                f"""
                - streams.map:
                    in: [{{n: 1}}, {{}}, {{n: 3}}]
                    onError: skip
                    {way}
                  as: doubled
                - forEach: {{in: << doubled >>, do: [{{stream: << item >>}}]}}
                - return: << doubled.skipped >>
                """
            )
        assert outcome.error is None
        assert (outcome.contents, outcome.result) == ([2, 6], 1)
        assert [(line["index"], line["code"]) for line in logs] == [(1, "template")]
        assert "item.n" in logs[0]["place"]


async def test_leaving_a_loop_closes_all_that_feeds_it() -> None:
    """`break` after the first of endless items ends the run, with no task left behind."""
    outcome = await run_stack(
        """
        - streams.interval: 1ms
          as: ticks
        - streams.map:
            in: << ticks >>
            as: tick
            concurrency: 4
            do:
              - wait: 1ms
              - return: << tick * 10 >>
          as: tens
        - streams.merge: {tens: << tens >>, none: []}
          as: merged
        - forEach:
            in: << merged >>
            do:
              - stream: << item >>
              - break
        """
    )
    assert outcome.error is None
    assert outcome.contents == [{"from": "tens", "item": 10}]
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --------------------------------------------------------------------------------------- interval


class Clock:
    """Time that passes only while a task sleeps or works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("streamstack.clock.monotonic", lambda: self.now)
        monkeypatch.setattr(operators, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def ticks_of(stream: Stream, clock: Clock, works: list[float]) -> list[tuple[int, float]]:
    """The ticks and their times, to a reader who works so long after each."""
    got = []
    async for batch in batches_of(stream):
        got.append((batch[0], round(clock.now - 1000, 3)))
        clock.now += works[len(got) - 1]
    return got


async def test_an_interval_does_not_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work between ticks takes nothing from the time; the first tick comes at once."""
    clock = Clock(monkeypatch)
    stream = made("streams.interval", every=1.0, limit=4)
    assert await ticks_of(stream, clock, [0.9, 0.3, 0, 0]) == [(1, 0), (2, 1), (3, 2), (4, 3)]


async def test_ticks_that_passed_are_one_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that takes too long gets one tick at once, then the even times again."""
    clock = Clock(monkeypatch)
    stream = made("streams.interval", every=1.0, limit=4)
    assert await ticks_of(stream, clock, [3.5, 0.1, 1.2, 0]) == [(1, 0), (2, 3.5), (3, 4), (4, 5.2)]


async def test_an_interval_without_limit_goes_on() -> None:
    """Without a limit it ends when the reader leaves; a limit of 0 gives nothing."""
    stream = made("streams.interval", every=0.001).consume()
    assert [await stream.batch() for _ in range(5)] == [[1], [2], [3], [4], [5]]
    await stream.close()
    assert await items_of(made("streams.interval", every=0.001, limit=0)) == []
