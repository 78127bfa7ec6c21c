"""Delays and paces of chunks, and the timers they share."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from heapq import heappop, heappush
from math import ceil, floor
from threading import local
from time import CLOCK_MONOTONIC
from typing import Any, Final

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.values import to_text
from streamstack.runtime.run import SLICE, Run

#: Seconds within which all wake together, the last of them in time.
SLOT: Final = 0.002
#: Seconds up to which a wait is so short that a slot would be felt: those have shorter slots, or a timer of their own.
SHORT: Final = 0.04
_SHORT_SLOT: Final = 0.000_25
#: Seconds from which a wait has a timer of its own: what is cancelled stays in its slot until that is over.
_LONG: Final = 20.0
#: The part of a slot that makes no difference.
_ALIKE: Final = 0.01
#: Seconds by which the loop's timer may be early: uvloop counts in whole milliseconds.
_RESOLUTION: Final = 0.001
_TFD_TIMER_ABSTIME: Final = 1


class KernelTimer:
    """A timer of Linux (timerfd_create(2)), exact to microseconds where the loop's own are up to a millisecond late.

    Raises OSError if the system has no file descriptor left, AttributeError if its C library has no such timers.
    """

    resolution = 0.0

    __slots__ = ("_descriptor", "_settime")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._descriptor = -1
        library = ctypes.CDLL(None, use_errno=True)  # `os` has these functions from Python 3.13 on
        self._settime = library.timerfd_settime
        self._descriptor = library.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._descriptor, callback)

    def set(self, due: float) -> None:
        """Call back at a time of the monotonic clock, and no longer at the one set before; at 0 never."""
        # struct itimerspec: the interval, which is none, then the time. Setting it also resets the descriptor's state.
        spec = (ctypes.c_long * 4)(0, 0, int(due), int(due % 1 * 1e9))
        self._settime(self._descriptor, _TFD_TIMER_ABSTIME, spec, None)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class LoopTimer:
    """The same by a timer of the event loop."""

    resolution = _RESOLUTION

    __slots__ = ("_callback", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def set(self, due: float) -> None:
        """Call back at a time of the monotonic clock, and no longer at the one set before; at 0 never."""
        if self._handle is not None:
            self._handle.cancel()
        # By the clock itself, in whole milliseconds as uvloop counts: the loop's own time is as old as its turn, which
        # would make the timer that much late.
        now = floor(clock.monotonic() / _RESOLUTION) * _RESOLUTION
        self._handle = self._loop.call_later(max(due - now, 0), self._callback) if due else None


class SlottedTimers:
    """The waits of one event loop, by the slot of time in which they end."""

    __slots__ = ("_due", "_slots", "loop", "timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.timer: KernelTimer | LoopTimer
        try:
            self.timer = KernelTimer(loop, self._wake)
        except (OSError, AttributeError):
            self.timer = LoopTimer(loop, self._wake)
        self._slots: dict[float, list[asyncio.Future[None]]] = {}
        self._due: list[float] = []  # a heap of the slots

    def wait(self, seconds: float) -> asyncio.Future[None]:
        """Return what is done after so many seconds, and a slot at most."""
        slot = _slot(seconds)
        # A little less: what sums of times are off by must not make one wake in its slot now and in the next one then.
        due = ceil((clock.monotonic() + seconds) / slot - _ALIKE) * slot
        waiting = self._slots.get(due)
        if waiting is None:
            waiting = self._slots[due] = []
            heappush(self._due, due)
            if self._due[0] == due:
                self.timer.set(due)
        future = self.loop.create_future()
        waiting.append(future)
        return future

    def _wake(self) -> None:
        now = clock.monotonic() + self.timer.resolution
        due = self._due
        while due and due[0] <= now:
            for future in self._slots.pop(heappop(due)):
                if not future.done():
                    future.set_result(None)
        self.timer.set(due[0] if due else 0)


def _slot(seconds: float) -> float:
    return SLOT if seconds > SHORT else _SHORT_SLOT


def schedule_start(now: float, interval: float) -> float:
    """Return when a schedule of equal intervals begins that goes by slots: now, or up to a slot before.

    So what comes after an interval is not later than it, by the rest of a slot, each time.
    """
    if clock.exact:
        return now
    slot = _slot(interval)
    return min(floor(now / slot + _ALIKE) * slot, now)


_of_thread = local()


def sleep(seconds: float) -> Awaitable[None]:
    """Return what is to be awaited for so many seconds, and 2 milliseconds at most."""
    if clock.exact or not 0 < seconds < _LONG:
        return asyncio.sleep(seconds)
    loop = asyncio.get_running_loop()
    timers: SlottedTimers | None = getattr(_of_thread, "timers", None)
    if timers is None or timers.loop is not loop:
        timers = _of_thread.timers = SlottedTimers(loop)
    if seconds <= SHORT and timers.timer.resolution:
        return asyncio.sleep(seconds)
    return timers.wait(seconds)


MODES: Final = ("burst", "fixed", "adaptive", "natural")
#: Seconds between chunks where the author gives no interval: 20 a second.
INTERVAL: Final = 0.05
#: How uneven the natural pace is where the author gives no jitter.
NATURAL_JITTER: Final = 0.3

#: Seconds of lateness that are the event loop's, not the reader's; short intervals make them up.
_TOLERANCE: Final = 0.004
_SHORTEST, _LONGEST = 0.25, 4.0  # of the interval, by length
#: How many intervals the natural pace rests after what a text ends in.
_RESTS: Final = {**dict.fromkeys(".!?…。！？", 2.5), **dict.fromkeys(",;:—–、，；：", 1.6)}  # noqa: RUF001
_QUOTES: Final = " \t\r\n\"'”’»)]*_」』）"  # noqa: RUF001
_LINE_REST, _PARAGRAPH_REST = 2.0, 3.0

#: Seconds that sums of times may be off by.
_ROUNDING: Final = 1e-9
#: The key in `run.state` of what `delay` knows: the chunks that had left, and when the last did.
_SENT: Final = "remaining"


class Pacer:
    """The pace of one step in one run. Its turns may be awaited from several tasks at once."""

    __slots__ = ("_chance", "_count", "_due", "_interval", "_jitter", "_last", "_mode", "_settings", "_total")

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        """``chance`` gives numbers from 0 to 1 for the jitter."""
        self._chance = chance
        self._settings: tuple[Any, ...] = ()
        self._mode = "burst"
        self._interval = 0.0
        self._jitter = 0.0
        self._due: float | None = None  # when the last chunk's turn was
        self._last: Any = ""  # the last chunk's content
        self._total = 0  # the length of all contents, in characters
        self._count = 0

    def configure(self, mode: Any, interval: Any, jitter: Any) -> None:
        """Take what the step asks for this time; seconds, null for the defaults.

        Raises RunError ``template`` for what is not a pace.
        """
        settings = (mode, interval, jitter)
        if settings == self._settings:
            return
        if mode not in MODES:
            raise RunError("template", f"unknown pace {to_text(mode)}: write one of {', '.join(MODES)}")
        if interval is None:
            interval = INTERVAL
        if jitter is None:
            jitter = NATURAL_JITTER if mode == "natural" else 0.0
        if not _is_number(interval) or interval < 0:
            raise RunError("template", f"a pace's interval can't be {to_text(interval)}")
        if not _is_number(jitter) or not 0 <= jitter <= 1:
            raise RunError("template", f"a pace's jitter must be between 0 and 1, not {to_text(jitter)}")
        self._mode, self._interval, self._jitter = mode, float(interval), float(jitter)
        self._settings = settings

    def schedule(self, run: Run, content: Any) -> Awaitable[None] | None:
        """Return what is to be awaited until this content may leave, None where it may at once, as the step's first.

        After the wait, `resume` has to be called. Not a coroutine itself: of thousands of paced runs, each level of
        calls that a chunk has to wake is felt.
        """
        if self._mode == "burst" or not self._interval:
            return None
        now = clock.monotonic()
        if self._due is None:
            due = self._begin(now)
        else:
            interval = self._next_interval(content)
            due = self._due + interval
            if now - due > max(interval / 2, _TOLERANCE):
                due = self._begin(now)
        # Taken before waiting, so that steps that run side by side get turns of their own.
        self._due = due
        self._last = content
        if self._mode != "fixed":
            self._total += _length(content)
            self._count += 1
        if due > now:
            # A timer may be early by its resolution. The schedule does not drift by it: that is cheaper than to wake
            # again.
            return sleep(due - now)
        _note(run)
        return None

    def _begin(self, now: float) -> float:
        """Return when a schedule begins that is to leave a chunk now."""
        return schedule_start(now, self._interval) if self._mode == "fixed" and not self._jitter else now

    def _next_interval(self, content: Any) -> float:
        interval = self._interval
        if self._mode != "fixed":
            if self._total:
                factor = _length(self._last) * self._count / self._total
                interval *= min(max(factor, _SHORTEST), _LONGEST)
            if self._mode == "natural":
                interval *= _rest(self._last, content)
        if self._jitter:
            interval *= 1 + self._jitter * (2 * self._chance() - 1)
        return interval


def resume(run: Run) -> None:
    """Record that the run goes on after a wait, and that its next chunk leaves now."""
    run.slice_ends = clock.perf_counter() + SLICE  # a sleep has let others run: no need to do so again at once
    run.sent_at = now = clock.monotonic()
    run.state[_SENT] = (run.sink.count + 1, now)


def pacer(run: Run, key: Any, mode: Any, interval: Any = None, jitter: Any = None) -> Pacer:
    """Return the pace that the step ``key`` keeps in this run, set to what it asks for this time.

    Raises RunError ``template`` for what is not a pace.
    """
    found: Pacer | None = run.state.get(key)
    if found is None:
        found = run.state[key] = Pacer()
    found.configure(mode, interval, jitter)
    return found


async def delay(run: Run, seconds: float | None) -> None:
    """Wait until ``seconds`` after the previous chunk of the run; before the first, not at all.

    A chunk that left without a pace or a delay left no time behind: it counts from now.
    """
    if seconds is not None and seconds > 0 and run.sink.count:
        # Asked again after each wait: another task's chunk may have left meanwhile.
        least = 0.0
        while (remaining := _previous(run) + seconds - clock.monotonic()) > _ROUNDING:
            await sleep(max(remaining, least))
            run.slice_ends = clock.perf_counter() + SLICE
            least = _RESOLUTION
    _note(run)


def _previous(run: Run) -> float:
    """Return when the run's last chunk left; now, if unknown."""
    count, noted = run.state.get(_SENT, (0, None))
    if run.sent_at is None or (run.sent_at == noted and count != run.sink.count):
        _note(run, coming=0)
    assert run.sent_at is not None
    return run.sent_at


def _note(run: Run, coming: int = 1) -> None:
    """Note that a chunk leaves now, or (none coming) that the last has left by now."""
    run.sent_at = clock.monotonic()
    run.state[_SENT] = (run.sink.count + coming, run.sent_at)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _length(content: Any) -> int:
    """Return how much there is to read: characters of a text or a JSON, items of a list."""
    return len(content) if isinstance(content, (str, list, bytes)) else len(to_text(content))


def _rest(last: Any, content: Any) -> float:
    """Return how many intervals a reader rests between two chunks."""
    if not isinstance(last, str) or not isinstance(content, str):
        return 1.0
    text = last.rstrip(_QUOTES)
    rest = _RESTS.get(text[-1:], 1.0)
    between = last[len(text) :] + content[: len(content) - len(content.lstrip())]
    breaks = between.count("\n")
    if breaks:
        rest = max(rest, _LINE_REST if breaks == 1 else _PARAGRAPH_REST)
    return rest
