"""Waits that end together."""

from __future__ import annotations

import asyncio
import time

import pytest

from streamstack.runtime.pace import SlottedTimers, schedule_start, sleep


async def test_waits_that_end_together_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many of one slot cost one timer, and wake in the order in which they came."""
    timers: list[float] = []
    set_timer = SlottedTimers._set  # noqa: SLF001

    def counted(self: SlottedTimers, due: float) -> None:
        timers.append(due)
        set_timer(self, due)

    monkeypatch.setattr(SlottedTimers, "_set", counted)
    woken: list[int] = []
    together = SlottedTimers(asyncio.get_running_loop())

    async def wait(number: int) -> None:
        await together.wait(0.05)
        woken.append(number)

    began = time.perf_counter()
    await asyncio.gather(*(wait(number) for number in range(500)))
    assert woken == list(range(500))
    assert time.perf_counter() - began >= 0.049
    assert 1 <= len(timers) <= 25, "all that were made within two milliseconds share one"


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
    """Once nobody waits any more, no timer is set."""
    timers = SlottedTimers(asyncio.get_running_loop())
    await timers.wait(0.01)
    monkeypatch.setattr(SlottedTimers, "_set", None)
    await asyncio.sleep(0.02)
    assert timers._handle is None  # noqa: SLF001


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
