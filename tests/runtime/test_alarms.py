"""Waits that end together."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from streamstack.runtime.alarms import Alarms, sleep


async def test_waits_that_end_together_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many of one slot cost one timer of the loop, and wake in the order in which they came."""
    loop = asyncio.get_running_loop()
    timers: list[float] = []
    call_later = loop.call_later

    def counted(delay: float, *args: Any, **named: Any) -> asyncio.TimerHandle:
        timers.append(delay)
        return call_later(delay, *args, **named)

    monkeypatch.setattr(loop, "call_later", counted)
    woken: list[int] = []
    together = Alarms(loop)

    async def wait(number: int) -> None:
        await together.wait(0.05)
        woken.append(number)

    began = time.perf_counter()
    await asyncio.gather(*(wait(number) for number in range(500)))
    assert woken == list(range(500))
    assert time.perf_counter() - began >= 0.049
    assert 1 <= len(timers) <= 25, "all that were made within two milliseconds share one"


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


def test_each_loop_has_its_own() -> None:
    """A wait in a second loop of the same thread is that loop's."""
    for _ in range(2):
        asyncio.run(_slept())


async def _slept() -> None:
    waiting = sleep(0.05)
    assert isinstance(waiting, asyncio.Future)
    assert waiting.get_loop() is asyncio.get_running_loop()
    await waiting
