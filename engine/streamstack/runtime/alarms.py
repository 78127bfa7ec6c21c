"""Waiting for a time together with others: one timer for all that wake within two milliseconds.

Where thousands of runs are paced, a timer each is what they cost beside the writing: the loop turns, asks the system
for news and sends for every one of them. Who wakes together is sent together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from math import ceil, floor
from threading import local
from time import monotonic
from typing import Final

from streamstack.runtime.clocks import Clock, make_clock

#: Seconds within which all wake together, the last of them in time.
SLOT: Final = 0.002
#: Seconds up to which a wait is so short that a slot would be felt: those have shorter ones.
SHORT: Final = 0.04
_SHORT_SLOT: Final = 0.000_25
#: Seconds from which a wait has a timer of its own: what is cancelled stays in its slot until that rings.
_LONG: Final = 20.0
#: The part of a slot that makes no difference.
_ALIKE: Final = 0.01


class Alarms:
    """The waits of one event loop, by the slot of time in which they end."""

    __slots__ = ("_due", "_slots", "clock", "loop")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Clock] = make_clock,
    ) -> None:
        self.loop = loop
        self.clock = make(loop, self._ring)
        self._slots: dict[float, list[asyncio.Future[None]]] = {}
        self._due: list[float] = []  # a heap of the slots

    def wait(self, seconds: float) -> asyncio.Future[None]:
        """Return what is done after so many seconds, and a slot at most."""
        slot = SLOT if seconds > SHORT else _SHORT_SLOT
        # A little less: what sums of times are off by must not make one wake in its slot now and in the next one then.
        due = ceil((monotonic() + seconds) / slot - _ALIKE) * slot
        waiting = self._slots.get(due)
        if waiting is None:
            waiting = self._slots[due] = []
            heappush(self._due, due)
            if self._due[0] == due:
                self.clock.set(due)
        future = self.loop.create_future()
        waiting.append(future)
        return future

    def _ring(self) -> None:
        now = monotonic() + self.clock.early
        due = self._due
        while due and due[0] <= now:
            for future in self._slots.pop(heappop(due)):
                if not future.done():
                    future.set_result(None)
        if due:
            self.clock.set(due[0])
        else:
            self.clock.rest()


def begin(now: float, interval: float) -> float:
    """Return when a schedule of equal intervals begins that goes by slots: now, or up to a slot before.

    So what comes after an interval is not later than it, by the rest of a slot, each time.
    """
    slot = SLOT if interval > SHORT else _SHORT_SLOT
    return min(floor(now / slot + _ALIKE) * slot, now)


_here = local()


def sleep(seconds: float) -> Awaitable[None]:
    """Return what is to be awaited for so many seconds, and 2 milliseconds at most."""
    if not 0 < seconds < _LONG:
        return asyncio.sleep(seconds)
    loop = asyncio.get_running_loop()
    alarms: Alarms | None = getattr(_here, "alarms", None)
    if alarms is None or alarms.loop is not loop:
        alarms = _here.alarms = Alarms(loop)
    if seconds <= SHORT and not alarms.clock.exact:
        return asyncio.sleep(seconds)
    return alarms.wait(seconds)
