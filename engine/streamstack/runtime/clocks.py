"""What rings at a time: the system's own timer where there is one, to the microsecond; else the event loop's."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from time import CLOCK_MONOTONIC, monotonic
from typing import Final, Protocol

if sys.platform == "linux":
    import ctypes

    _LIBC: Final = ctypes.CDLL(None, use_errno=True)
    _ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME

    class _Times(ctypes.Structure):
        """The kernel's `itimerspec`: an interval, which stays 0, and when it is over."""

        _fields_ = (
            ("interval", ctypes.c_long),
            ("interval_rest", ctypes.c_long),
            ("seconds", ctypes.c_long),
            ("nanoseconds", ctypes.c_long),
        )


class Clock(Protocol):
    """Calls its owner at one time, the one that was set last; times are those of the monotonic clock, in seconds.

    ``early`` is by how much it may be early, ``exact`` whether what it is late by is not felt.
    """

    early: float
    exact: bool

    def set(self, at: float) -> None:
        """Ring at this time, and at no other."""

    def rest(self) -> None:
        """Ring no more."""


class SystemClock:
    """A timer of Linux (timerfd_create(2)): a loop's own goes by whole milliseconds, and is up to one late.

    Raises OSError where the system has none left.
    """

    early = 0.0
    exact = True

    __slots__ = ("_descriptor", "_times")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._descriptor = -1
        self._times = _Times()
        # `os` has them from Python 3.13 on.
        self._descriptor = _LIBC.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._descriptor, ring)

    def set(self, at: float) -> None:
        """Ring at this time, and at no other."""
        seconds = int(at)
        self._times.seconds = seconds
        # All zeros would be no time at all.
        self._times.nanoseconds = max(int((at - seconds) * 1e9), 1)
        self._arm()

    def rest(self) -> None:
        """Ring no more."""
        self._times.seconds = self._times.nanoseconds = 0
        self._arm()

    def _arm(self) -> None:
        # It also takes back that the timer has rung, which nobody has to read then.
        _LIBC.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(self._times), None)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class LoopClock:
    """A timer of the event loop."""

    early = 0.001
    exact = False

    __slots__ = ("_handle", "_loop", "_ring")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Ring at this time, and at no other."""
        self.rest()
        # By the clock itself, in whole milliseconds as uvloop counts: the loop's own time is as old as its turn, which
        # would make it ring that much late.
        now = int(monotonic() * 1000) / 1000
        self._handle = self._loop.call_later(max(at - now, 0), self._ring)

    def rest(self) -> None:
        """Ring no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def make_clock(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Clock:
    """Return the best clock there is for a loop."""
    if sys.platform == "linux":
        try:
            return SystemClock(loop, ring)
        except (OSError, AttributeError):  # no descriptor is left, or the C library has no timers
            pass
    return LoopClock(loop, ring)
