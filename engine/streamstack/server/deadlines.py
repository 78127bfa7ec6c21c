"""Time limits of runs."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from functools import partial
from random import random
from typing import Any, Final, TypeVar

import structlog

from streamstack import clock
from streamstack.errors import RunError
from streamstack.server.response import ResponseSink
from streamstack.server.response_options import PATIENCE, Limits

T = TypeVar("T")


def _text(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


class RunTimer:
    """Watches one run, and can end it from outside.

    To end a run is to cancel its task with a reason: the task finds the reason in `reason`,
    None where the reader has gone.
    """

    __slots__ = (
        "_handle",
        "_limits",
        "_longest",
        "_loop",
        "_phase",
        "_started",
        "_task",
        "_timers",
        "answer",
        "reason",
    )

    def __init__(self, answer: ResponseSink, limits: Limits, timers: set[RunTimer]) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = asyncio.current_task()
        self.answer = answer
        self._limits = limits
        self._timers = timers  # where it stands while it watches
        self._phase = "reading"
        self._started = 0.0
        # Streams that were opened together must not end, and be asked for again, together.
        jitter = limits.jitter * random() if limits.jitter and not clock.exact else 0.0  # noqa: S311  (no secret)
        self._longest = limits.longest * (1 - jitter)
        self._handle: asyncio.TimerHandle | None = None
        self.reason: RunError | None = None

    def begin_reading(self) -> None:
        """Limit how long the request's body may take."""
        self._begin("reading")

    def begin_running(self) -> None:
        """Limit the run."""
        self._begin("running")

    def attend(self, stack: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Return what runs a stack within its limits.

        A stream waits, most likely, and often: what stands between the loop and its stack would be gone through each
        time.
        """
        if not self._limits.keep_alive:
            return begun(stack, self.begin_running)
        self.begin_running()
        return stack

    def begin_closing(self) -> None:
        """Limit how long the reader may take for the rest."""
        self._begin("closing")

    def end(self) -> None:
        """Let the run alone."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def stop(self, reason: RunError) -> None:
        """End the run with an error, once."""
        if self.reason is None and self._task is not None:
            self.reason = reason
            self._task.cancel()

    def stopped(self) -> RunError | None:
        """Take back the cancellation of `stop`; None where the task was cancelled by another."""
        if self.reason is None or self._task is None or self._task.uncancel() > 0:
            return None
        return self.reason

    def _begin(self, phase: str) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._timers.add(self)
        self._phase = phase
        self._started = now = self._loop.time()
        if phase == "running":
            # By far the most often: nothing was sent yet, so the first due is known ahead.
            if self._limits.soonest:
                self._handle = self._loop.call_at(now + self._limits.soonest, self._tick)
            return
        self._plan(now)

    def _plan(self, now: float) -> None:
        due = min((due for due, _ in self._dues()), default=None)
        self._handle = None if due is None else self._loop.call_at(max(due, now), self._tick)

    def _dues(self) -> Iterator[tuple[float, Callable[[], bool]]]:
        """Yield when something is due (loop time), and what to do then, which returns whether that ends the watch."""
        limits, answer, started = self._limits, self.answer, self._started
        if self._phase == "reading":
            allowed = limits.first_chunk if limits.body is None else limits.body
            if allowed:
                yield started + allowed, partial(self._expire, "the request's body took too long to arrive", 408)
            return
        if self._phase == "closing":
            yield started + (limits.closing or limits.idle or PATIENCE), self._drop_reader
            return
        heard = max(started, answer.heard_at)  # what arrives is a sign of life, as what is sent is
        converses = bool(answer.waits_since) and answer.request.websocket is not None
        if self._longest:
            yield started + self._longest, partial(self._over, "maxDuration", self._longest)
        if limits.arrival:
            message = f"nothing of the request's body came for its idleTimeout of {_text(limits.arrival)}"
            waits_since = answer.waits_since or self._loop.time()
            yield waits_since + limits.arrival, partial(self._expire, message, 408)
        if answer.subscriptions and not answer.blocked:
            # It waits for what others publish. Should it wait for something else later, that is noticed.
            if limits.idle or limits.first_chunk:
                yield self._loop.time() + (limits.idle or limits.first_chunk), lambda: False
        elif not answer.count:
            if limits.first_chunk:
                due = (self._loop.time() if converses else heard) + limits.first_chunk
                yield due, partial(self._over, "firstChunkTimeout", limits.first_chunk)
            if limits.idle:
                yield self._loop.time() + limits.idle, lambda: False  # were a chunk to come right now
        elif limits.idle:
            # Where the reader is idle, not the run, nothing would reach it.
            silent = self._drop_reader if answer.blocked else partial(self._over, "idleTimeout", limits.idle)
            yield max(answer.emitted_at, heard) + limits.idle, silent
        if limits.keep_alive:
            yield max(answer.sent_at, started) + limits.keep_alive, self._heartbeat

    def _tick(self) -> None:
        self._handle = None
        # A timer may ring a little early (the clock's resolution).
        now = self._loop.time() + 0.001
        if not any(act() for due, act in self._dues() if due <= now):
            self._plan(now)

    def _heartbeat(self) -> bool:
        self.answer.heartbeat()
        # Where nothing could be sent, the silence begins again all the same.
        self.answer.sent_at = self._loop.time()
        return False

    def _drop_reader(self) -> bool:
        self.answer.drop_reader()
        return True

    def _expire(self, message: str, status: int | None = None) -> bool:
        self.stop(RunError("timeout", message, status=status))
        return True

    def _over(self, key: str, seconds: float) -> bool:
        return self._expire(f"the stream went over its {key} of {_text(seconds)}")


@types.coroutine
def begun(work: Coroutine[Any, Any, T], waits: Callable[[], None]) -> Generator[Any, Any, T]:
    """Await a coroutine; call ``waits`` when it first has to wait, if it ever does.

    Many runs are over before they wait for anything: they need no timer.
    """
    try:
        waiting = work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    waits()
    while True:
        try:
            yield waiting
            break
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001  (whatever it is, it is the work's)
            try:
                waiting = work.throw(error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
    # From here on nothing stands between the loop and the coroutine.
    return (yield from work)  # type: ignore[no-any-return]  # types.coroutine lets a generator do so


log = structlog.get_logger("streamstack.server")

#: Seconds between two lines that say the same: a loop without file descriptors tells so a thousand times a second.
QUIET: Final = 10.0


class LoopFaults:
    """The exception handler of an event loop."""

    __slots__ = ("_reported",)

    def __init__(self) -> None:
        self._reported: dict[str, float] = {}

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log a fault; one that comes again and again, now and then only."""
        message = str(context.get("message", "a fault of the event loop"))
        now = loop.time()
        if now < self._reported.get(message, float("-inf")) + QUIET:
            return
        if len(self._reported) >= 100:
            self._reported.clear()
        self._reported[message] = now
        error = context.get("exception")
        if isinstance(error, OSError):
            log.error("loop-failed", message=message, reason=error.strerror or str(error))
        else:
            log.error("loop-failed", message=message, exc_info=error)
