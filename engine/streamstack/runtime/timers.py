"""Waiting for a time together with others: one timer of the event loop for all that wake within two milliseconds.

Where thousands of runs are paced, a timer each is what they cost beside the writing: the loop turns, asks the system
for news and sends for every one of them. Runs that wake together are sent together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from heapq import heappop, heappush
from math import ceil, floor
from threading import local
from time import monotonic
from typing import Final

#: Seconds within which all wake together, the last of them in time.
SLOT: Final = 0.002
#: Seconds up to which a wait is so short that a slot would be felt: those have a timer of their own.
SHORT: Final = 0.04
#: Seconds from which a wait has a timer of its own: what is cancelled stays in its slot until that is over.
_LONG: Final = 20.0
#: The part of a slot that makes no difference.
_ALIKE: Final = 0.01
#: Seconds by which the loop's timer may be early: uvloop counts in whole milliseconds.
_RESOLUTION: Final = 0.001


class SlottedTimers:
    """The waits of one event loop, by the slot of time in which they end."""

    __slots__ = ("_due", "_handle", "_slots", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self._slots: dict[float, list[asyncio.Future[None]]] = {}
        self._due: list[float] = []  # a heap of the slots

    def wait(self, seconds: float) -> asyncio.Future[None]:
        """Return what is done after so many seconds, and a slot at most."""
        # A little less: what sums of times are off by must not make one wake in its slot now and in the next one then.
        due = ceil((monotonic() + seconds) / SLOT - _ALIKE) * SLOT
        waiting = self._slots.get(due)
        if waiting is None:
            waiting = self._slots[due] = []
            heappush(self._due, due)
            if self._due[0] == due:
                if self._handle is not None:
                    self._handle.cancel()
                self._set(due)
        future = self.loop.create_future()
        waiting.append(future)
        return future

    def _set(self, due: float) -> None:
        # By the clock itself, in whole milliseconds as uvloop counts: the loop's own time is as old as its turn, which
        # would make the timer that much late.
        now = floor(monotonic() / _RESOLUTION) * _RESOLUTION
        self._handle = self.loop.call_later(max(due - now, 0), self._wake)

    def _wake(self) -> None:
        self._handle = None
        now = monotonic() + _RESOLUTION
        due = self._due
        while due and due[0] <= now:
            for future in self._slots.pop(heappop(due)):
                if not future.done():
                    future.set_result(None)
        if due:
            self._set(due[0])


def schedule_start(now: float, interval: float) -> float:
    """Return when a schedule of equal intervals begins that goes by slots: now, or up to a slot before.

    So what comes after an interval is not later than it, by the rest of a slot, each time.
    """
    if interval <= SHORT:
        return now
    return min(floor(now / SLOT + _ALIKE) * SLOT, now)


_of_thread = local()


def sleep(seconds: float) -> Awaitable[None]:
    """Return what is to be awaited for so many seconds, and 2 milliseconds at most."""
    if not SHORT < seconds < _LONG:
        return asyncio.sleep(seconds)
    loop = asyncio.get_running_loop()
    timers: SlottedTimers | None = getattr(_of_thread, "timers", None)
    if timers is None or timers.loop is not loop:
        timers = _of_thread.timers = SlottedTimers(loop)
    return timers.wait(seconds)
