"""Waits that end together."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from streamstack.runtime import pace
from streamstack.runtime.pace import SHORT, KernelTimer, LoopTimer, SlottedTimers, schedule_start, sleep


@pytest.fixture(params=["kernel", "loop"], autouse=True)
def timer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test with the timers of Linux, and as where there are none."""

    def unavailable(loop: asyncio.AbstractEventLoop, callback: object) -> None:
        raise OSError

    if request.param == "loop":
        monkeypatch.setattr(pace, "KernelTimer", unavailable)
    elif sys.platform != "linux":
        pytest.skip("timerfd_create(2) is a system call of Linux")
    return str(request.param)


async def test_waits_that_end_together_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many of one slot cost one timer, and wake in the order in which they came."""
    together = SlottedTimers(asyncio.get_running_loop())
    set_timer = together.timer.set
    settings: list[float] = []

    def counted(_: object, due: float) -> None:
        settings.append(due)
        set_timer(due)

    monkeypatch.setattr(type(together.timer), "set", counted)
    woken: list[int] = []

    async def wait(number: int) -> None:
        await together.wait(0.05)
        woken.append(number)

    began = time.perf_counter()
    await asyncio.gather(*(wait(number) for number in range(500)))
    assert woken == list(range(500))
    assert time.perf_counter() - began >= 0.049
    assert 1 <= len(settings) <= 25, "all that were made within two milliseconds share one"


async def test_waits_end_in_the_order_of_their_times() -> None:
    """However they were asked for: long and short ones, the shortest last; and again once all is quiet."""
    timers = SlottedTimers(asyncio.get_running_loop())
    for _ in range(2):
        woken: list[float] = []

        async def wait(seconds: float, woken: list[float] = woken) -> None:
            await timers.wait(seconds)
            woken.append(seconds)

        await asyncio.gather(*map(wait, [0.2, 0.12, 0.06, 0.03, 0.01]))
        assert woken == [0.01, 0.03, 0.06, 0.12, 0.2]


async def test_the_loop_is_not_woken_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once no run waits any more, no timer is set."""
    woken: list[int] = []
    wake = SlottedTimers._wake  # noqa: SLF001

    def counted(self: SlottedTimers) -> None:
        woken.append(1)
        wake(self)

    monkeypatch.setattr(SlottedTimers, "_wake", counted)
    timers = SlottedTimers(asyncio.get_running_loop())
    await timers.wait(0.01)
    await asyncio.sleep(0.05)
    assert len(woken) == 1


async def test_short_waits_are_punctual(timer: str) -> None:
    """With the kernel's timer no short wait is early, and some are late by less than a loop's timer would be."""
    late = []
    for _ in range(60):
        began = time.monotonic()
        await sleep(0.005)
        late.append(time.monotonic() - began - 0.005)
    assert min(late) >= (-0.000_1 if timer == "kernel" else -0.001)
    assert sorted(late)[3] < (0.000_5 if timer == "kernel" else 0.003)


async def test_without_a_descriptor_the_loop_has_the_timers(timer: str) -> None:
    """Where the system has no timers of its own, or none left, paced streams go on."""
    kind = {"kernel": KernelTimer, "loop": LoopTimer}[timer]
    assert type(SlottedTimers(asyncio.get_running_loop()).timer) is kind
    await sleep(SHORT + 0.01)


async def test_one_who_is_stopped_stops_nobody_else() -> None:
    """A cancelled wait ends at once; the others of its slot ring in time."""
    waits = [asyncio.ensure_future(sleep(0.1)) for _ in range(3)]
    await asyncio.sleep(0)
    waits[1].cancel()
    await asyncio.gather(waits[0], waits[2])
    assert [each.cancelled() for each in waits] == [False, True, False]


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.03, 0.06])
async def test_nobody_wakes_early(seconds: float) -> None:
    """A wait takes as long as it says, less the resolution of a timer."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await sleep(seconds)
    assert loop.time() - began >= seconds - 0.001


@pytest.mark.parametrize("interval", [0.01, 1.0])
def test_a_schedule_begins_at_once(interval: float) -> None:
    """Never later than now, so that the first chunk waits for nothing, and a slot before at most."""
    for step in range(1000):
        now = 5000 + step * 0.000_013
        assert now - 0.002 <= schedule_start(now, interval) <= now


def test_each_loop_has_its_own() -> None:
    """A wait in a second loop of the same thread is that loop's."""
    for _ in range(2):
        asyncio.run(_slept())


async def _slept() -> None:
    waiting = sleep(0.05)
    assert isinstance(waiting, asyncio.Future)
    assert waiting.get_loop() is asyncio.get_running_loop()
    await waiting
