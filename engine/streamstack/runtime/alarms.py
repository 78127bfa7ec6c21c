"""Waiting for a time together with others: one timer for all that wake within two milliseconds.

Where thousands of runs are paced, a timer each is what they cost beside the writing: the loop turns, asks the system
for news and sends for every one of them. Who wakes together is sent together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import ceil, floor
from threading import local
from time import monotonic
from typing import Final

#: Seconds within which all wake together, the last of them in time.
SLOT: Final = 0.002
#: Seconds up to which a wait has a timer of its own: there a slot would be felt.
SHORT: Final = 0.04
#: Seconds from which it has, too: what is cancelled stays in its slot until that rings.
_LONG: Final = 20.0
#: The part of a slot that makes no difference.
_ALIKE: Final = 0.01


class Alarms:
    """The waits of one event loop, by the slot of time in which they end.

    The loop's time is that of the monotonic clock, as asyncio's and uvloop's are.
    """

    __slots__ = ("_slots", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._slots: dict[int, list[asyncio.Future[None]]] = {}

    def wait(self, seconds: float) -> asyncio.Future[None]:
        """Return what is done after so many seconds, and a slot at most."""
        loop = self.loop
        # A little less: the loop's times are whole milliseconds, and what sums of them are off by must not make one
        # wake in its slot now and in the next one then.
        slot = ceil((loop.time() + seconds) / SLOT - _ALIKE)
        waiting = self._slots.get(slot)
        if waiting is None:
            waiting = self._slots[slot] = []
            # By the clock itself, in whole milliseconds as uvloop counts: its own time is as old as its turn, which
            # would make the slot ring that much late.
            now = int(monotonic() * 1000) / 1000
            loop.call_later(max(slot * SLOT - now, 0), self._ring, slot)
        future = loop.create_future()
        waiting.append(future)
        return future

    def _ring(self, slot: int) -> None:
        for future in self._slots.pop(slot):
            if not future.done():
                future.set_result(None)


def begin(now: float, interval: float) -> float:
    """Return when a schedule of equal intervals begins that goes by slots: now, or up to a slot before.

    So what comes after an interval is not later than it, by the rest of a slot, each time.
    """
    return floor(now / SLOT + _ALIKE) * SLOT if interval > SHORT else now


_here = local()


def sleep(seconds: float) -> Awaitable[None]:
    """Return what is to be awaited for so many seconds, and 2 milliseconds at most."""
    if not SHORT < seconds < _LONG:
        return asyncio.sleep(seconds)
    loop = asyncio.get_running_loop()
    alarms: Alarms | None = getattr(_here, "alarms", None)
    if alarms is None or alarms.loop is not loop:
        alarms = _here.alarms = Alarms(loop)
    return alarms.wait(seconds)
