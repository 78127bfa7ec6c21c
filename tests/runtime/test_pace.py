from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise
from statistics import mean
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.runtime import pace
from streamstack.runtime.pace import INTERVAL, Pacer, delay, pacer, resume
from streamstack.runtime.run import Context, Run
from tests.collector import Collector


class Clock:
    """Time that passes only while a task sleeps, or is made to pass."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleepers: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Let the time pass up to the first who wants to be woken."""
        until = self.now + seconds
        self.sleepers.append(until)
        await asyncio.sleep(0)  # others may be about to sleep less
        while self.now < until:
            if until == min(self.sleepers):
                self.now = until
            else:
                await asyncio.sleep(0)
        self.sleepers.remove(until)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that paces go by."""
    clock = Clock()
    monkeypatch.setattr("streamstack.clock.monotonic", lambda: clock.now)
    monkeypatch.setattr(pace, "sleep", clock.sleep)
    return clock


@pytest.fixture
def run() -> Run:
    """A run whose chunks are kept."""
    return Run(Collector(), Context())


async def turn(pacing: Pacer, run: Run, content: Any) -> None:
    """Wait as a compiled stack does."""
    waiting = pacing.schedule(run, content)
    if waiting is not None:
        await waiting
        resume(run)


async def times_of(
    clock: Clock, run: Run, pacing: Pacer, contents: list[Any], works: dict[int, float] | None = None
) -> list[float]:
    """When each content leaves, in seconds from the first; ``works`` takes time after some."""
    began = clock.now
    times = []
    for index, content in enumerate(contents):
        await turn(pacing, run, content)
        run.sink.emit(content, None, None, None)
        times.append(round(clock.now - began, 6))
        clock.now += (works or {}).get(index, 0)
    return times


def gaps(times: list[float]) -> list[float]:
    """The time between each and the next."""
    return [round(b - a, 6) for a, b in pairwise(times)]


def paced(mode: str, interval: float | None = 1.0, jitter: float | None = 0.0) -> Pacer:
    """A pace whose chance is always the same."""
    pacing = Pacer(random.Random(7).random)  # noqa: S311  (no secret)
    pacing.configure(mode, interval, jitter)
    return pacing


async def test_burst_never_waits(clock: Clock, run: Run) -> None:
    """All leave at once."""
    assert await times_of(clock, run, paced("burst"), ["a"] * 5) == [0] * 5


async def test_fixed_sends_one_each_interval(clock: Clock, run: Run) -> None:
    """The first leaves at once, the rest evenly, whatever their length."""
    times = await times_of(clock, run, paced("fixed"), ["a", "b" * 500, "c", [1, 2]])
    assert times == [0, 1, 2, 3]


async def test_fixed_does_not_drift(clock: Clock, run: Run) -> None:
    """What each chunk costs is not added to the interval."""
    times = await times_of(clock, run, paced("fixed"), ["a"] * 100, dict.fromkeys(range(100), 0.4))
    assert times == [float(at) for at in range(100)]


async def test_a_little_lateness_is_made_up(clock: Clock, run: Run) -> None:
    """Less than half an interval late: the next keeps to the schedule."""
    assert await times_of(clock, run, paced("fixed"), ["a"] * 4, {1: 1.3}) == [0, 1, 2.3, 3]


@pytest.mark.parametrize(
    ("interval", "late", "expected"),
    [
        # Half an interval late, exactly: it is made up. A little more: the schedule starts again.
        (1.0, 0.5, [1.0, 1.5, 0.5]),
        (1.0, 0.51, [1.0, 1.51, 1.0]),
        # Of short intervals, 4 ms are made up, though they are longer than half of them.
        (0.004, 0.004, [0.004, 0.008, 0.0]),
        (0.004, 0.0045, [0.004, 0.0085, 0.004]),
        (0.002, 0.004, [0.002, 0.006, 0.0]),
    ],
)
async def test_how_late_a_chunk_may_be(
    clock: Clock, run: Run, interval: float, late: float, expected: list[float]
) -> None:
    """The lateness from which on nothing is made up any more."""
    pacing = paced("adaptive", interval)  # its first chunk leaves at once, whenever that is
    clock.now = 0.0  # small numbers are exact enough
    times = await times_of(clock, run, pacing, ["a"] * 4, {1: interval + late})
    assert gaps(times) == expected


@pytest.mark.parametrize("mode", ["fixed", "adaptive", "natural"])
async def test_a_slow_reader_gets_no_burst(clock: Clock, run: Run, mode: str) -> None:
    """After a long wait for the reader, the next chunk leaves at once and the rest in their pace."""
    times = await times_of(clock, run, paced(mode), ["aaaa"] * 6, {2: 60})
    assert gaps(times) == [1, 1, 60, 1, 1]


async def test_adaptive_waits_by_the_length_of_the_chunk_before(clock: Clock, run: Run) -> None:
    """Twice the average length is twice the interval; never under a quarter or over four times."""
    times = await times_of(clock, run, paced("adaptive"), ["aaaa", "aa", "a" * 12, "a" * 1000, "a"])
    assert gaps(times) == [1, round(2 / 3, 6), 2, round(1000 / (1018 / 4), 6)]
    times = await times_of(clock, run, paced("adaptive"), [*["a"] * 30, "a" * 1000, "a", "a"])
    assert gaps(times)[-2:] == [4.0, 0.25]


async def test_adaptive_keeps_its_interval_on_average(clock: Clock, run: Run) -> None:
    """The interval says how fast the stream is, whatever the chunks."""
    lengths = random.Random(1)  # noqa: S311  (no secret)
    words = ["x" * lengths.randint(1, 12) for _ in range(2000)]
    times = await times_of(clock, run, paced("adaptive", 0.05), words)
    assert 0.045 < mean(gaps(times)) < 0.055


@pytest.mark.parametrize("content", [[1, 2, 3], {"a": 1}, 17, b"abc", None, True])
async def test_any_content_can_be_paced(clock: Clock, run: Run, content: Any) -> None:
    """Lists count their items, other values their JSON."""
    pacing = paced("natural")
    for _ in range(3):
        await turn(pacing, run, content)
    assert clock.now == 1002.0


@pytest.mark.parametrize(
    ("before", "after", "rest"),
    [
        ("word", " next", 1.0),
        ("word,", " next", 1.6),
        ("word.", " Next", 2.5),
        ('"Why?"', " he", 2.5),
        ("词。", "词", 2.5),
        ("word ", "next", 1.0),
        ("word. ", "next", 2.5),
        ("word", "\nnext", 2.0),
        ("word:\n", "next", 2.0),
        ("word.\n", "next", 2.5),
        ("word.", "\n\nNext", 3.0),
        ("word\n", "\nnext", 3.0),
        ("\n\n", "next", 3.0),
    ],
)
async def test_natural_rests_where_a_reader_does(clock: Clock, run: Run, before: str, after: str, rest: float) -> None:
    """Longer after a comma, a sentence, a line, a paragraph; between two of the same length."""
    times = await times_of(clock, run, paced("natural"), [before, after])
    assert gaps(times) == [rest]


async def test_natural_is_uneven_and_can_be_repeated(clock: Clock, run: Run) -> None:
    """Without a jitter given it has one of its own; the same chance gives the same times."""
    first = await times_of(clock, run, paced("natural", 1.0, None), ["word"] * 50)
    again = await times_of(clock, run, paced("natural", 1.0, None), ["word"] * 50)
    assert first == again
    assert len(set(gaps(first))) > 40
    assert all(0.7 <= gap <= 1.3 for gap in gaps(first))
    assert 0.9 < mean(gaps(first)) < 1.1


@pytest.mark.parametrize("jitter", [0.2, 1.0])
async def test_jitter_varies_each_interval_by_its_part(clock: Clock, run: Run, jitter: float) -> None:
    """Each gap is within the jitter of the interval, and their mean is the interval."""
    times = await times_of(clock, run, paced("fixed", 1.0, jitter), ["a"] * 2000)
    assert all(1 - jitter <= gap <= 1 + jitter for gap in gaps(times))
    assert max(gaps(times)) > 1 + jitter * 0.9
    assert 0.96 < mean(gaps(times)) < 1.04


async def test_a_pace_is_kept_per_step_and_run(clock: Clock, run: Run) -> None:
    """A step goes on with its own pace; another step, and another run, begin theirs."""
    first = pacer(run, 1, "fixed", 1.0, 0)
    assert pacer(run, 1, "fixed", 1.0, 0) is first
    assert pacer(run, 2, "fixed", 1.0, 0) is not first
    assert pacer(Run(Collector(), Context()), 1, "fixed", 1.0, 0) is not first
    await turn(first, run, "a")
    await turn(pacer(run, 2, "fixed", 1.0, 0), run, "a")
    assert clock.now == 1000
    await turn(pacer(run, 1, "fixed", 1.0, 0), run, "b")
    assert clock.now == 1001


async def test_what_a_pace_asks_for_may_change(clock: Clock, run: Run) -> None:
    """Its parameters may be bindings: the last ones count."""
    for interval, time in ((1.0, 0.0), (1.0, 1.0), (3.0, 4.0), (None, 4.05), (0, 4.05)):
        await turn(pacer(run, 1, "fixed", interval, 0), run, "a")
        assert clock.now == pytest.approx(1000 + time)
    assert INTERVAL == 0.05


@pytest.mark.parametrize(
    ("mode", "interval", "jitter", "says"),
    [
        ("quick", 1, 0, "write one of burst, fixed, adaptive, natural"),
        (None, 1, 0, "write one of"),
        ("fixed", -1, 0, "can't be -1"),
        ("fixed", "1s", 0, "can't be 1s"),
        ("fixed", 1, 2, "between 0 and 1, not 2"),
        ("fixed", 1, True, "between 0 and 1, not true"),
    ],
)
def test_what_is_no_pace_says_what_to_write(run: Run, mode: Any, interval: Any, jitter: Any, says: str) -> None:
    """The error is the author's."""
    with pytest.raises(RunError, match=says):
        pacer(run, 1, mode, interval, jitter)


async def at_once(*waits: Callable[[], Any]) -> None:
    """Wait for several things side by side."""
    async with asyncio.TaskGroup() as group:
        for wait in waits:
            group.create_task(wait())


async def test_tasks_side_by_side_take_turns(clock: Clock, run: Run) -> None:
    """Two tasks that use one step's pace get turns of their own."""
    times = []

    async def send() -> None:
        for _ in range(3):
            await turn(pacer(run, 1, "fixed", 1.0, 0), run, "a")
            times.append(clock.now - 1000)

    await at_once(send, send)
    assert times == [0, 1, 2, 3, 4, 5]


# ----------------------------------------------------------------------------------------- delay


async def emit(run: Run, seconds: float | None = None) -> None:
    """A chunk with a delay, or without."""
    if seconds is not None:
        await delay(run, seconds)
    run.sink.emit("x", None, None, None)


async def test_delay_lets_the_first_chunk_leave_at_once(clock: Clock, run: Run) -> None:
    """There is no chunk before it."""
    await emit(run, 5)
    assert clock.now == 1000


async def test_delay_counts_from_the_chunk_before(clock: Clock, run: Run) -> None:
    """The work between two chunks is part of the delay."""
    await emit(run, 5)
    clock.now += 2
    await emit(run, 5)
    assert clock.now == 1005
    clock.now += 20
    await emit(run, 5)
    assert clock.now == 1025
    await emit(run, 0)
    assert clock.now == 1025


async def test_delay_is_never_shorter_than_said(clock: Clock, run: Run) -> None:
    """After a chunk that left without one, the time is unknown: the delay counts from now."""
    await emit(run)
    clock.now += 2
    await emit(run, 5)
    assert clock.now == 1007
    await emit(run)
    await emit(run, 5)
    assert clock.now == 1012


async def test_delay_trusts_a_time_that_others_noted(clock: Clock, run: Run) -> None:
    """Where `run.sent_at` was set by the one who emits, that is the time."""
    await emit(run, 5)
    clock.now += 1
    await emit(run)
    run.sent_at = clock.now
    clock.now += 4
    await emit(run, 5)
    assert clock.now == 1006


async def test_delay_counts_from_a_paced_chunk(clock: Clock, run: Run) -> None:
    """A chunk that another step paced is the one before."""
    await turn(pacer(run, 1, "fixed", 1.0, 0), run, "x")
    await emit(run)
    clock.now += 3
    await emit(run, 5)
    assert clock.now == 1005


async def test_delayed_chunks_side_by_side_keep_their_distance(clock: Clock, run: Run) -> None:
    """Tasks that delay at the same time don't send at the same time."""
    times = []

    async def send() -> None:
        for _ in range(3):
            await emit(run, 1.0)
            times.append(clock.now - 1000)

    await at_once(send, send)
    assert times == [0, 1, 2, 3, 4, 5]


async def test_real_time_is_what_is_waited_for(run: Run) -> None:
    """Without a clock of the test's own, an interval takes its time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(4):
        await turn(pacer(run, 1, "fixed", 0.01, 0), run, "a")
        await emit(run, 0.001)
    assert loop.time() - began > 0.028
