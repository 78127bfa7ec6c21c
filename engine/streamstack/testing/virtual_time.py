"""Virtual time: an event loop over real sockets whose clock jumps to the next timer when everything waits."""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, Final, TypeVar

from streamstack import clock
from streamstack.runtime.faults import step_under_way

T = TypeVar("T")

#: What the virtual clock begins with: small, so that sums of times stay exact, and no time that means "never".
_BEGIN: Final = 10_000.0
#: Decimal places of the virtual clock: less than the resolution of the event loop.
_PLACES: Final = 9
#: Seconds of virtual CPU time that each look at it takes.
_POLL: Final = 1e-5
#: Real seconds that messages of other processes have to arrive after an answer that was sent together with them.
_ARRIVAL: Final = 0.001


class VirtualTimeError(Exception):
    """Virtual time can't go on: nothing will ever happen, or too much happens at one moment."""


class VirtualSelector(selectors.DefaultSelector):
    """Polls real sockets. Where nothing is ready, the clock jumps instead of waiting.

    Threads and other processes, such as a database, need real time: the clock stands still while any of their work is
    under way, which ``outside`` counts. Such work may also send messages to connections that wait for no answer
    (NOTIFY). So ``_worked`` remembers that there was some since the last jump, and before the next one each of these
    connections makes a round trip (``clock.round_trips``), which brings the messages. ``_trips`` has the tasks of the
    round trips: they count as work outside too, but don't set ``_worked``, or each would lead to another one.
    """

    def __init__(self, stall_limit: float, limit: float) -> None:
        super().__init__()
        self.now = _BEGIN
        self.polls = 0  # at the time of the CPU
        self.outside = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stall_limit = stall_limit
        self._limit = limit
        self._ends = time.monotonic() + limit
        self._worked = False
        self._trips: list[asyncio.Task[None]] = []
        self._probe = _connected_pair()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the loop that this selector works for."""
        self._loop = loop

    def close(self) -> None:
        for end in self._probe:
            end.close()
        super().close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; move the clock by the time-out if nothing is, and nothing can become so.

        Raises:
            VirtualTimeError: Nothing is ready, and there is no timer to jump to; or the real time is over.
        """
        if time.monotonic() > self._ends:
            self._ends = inf
            raise VirtualTimeError(f"the test was still at work after {self._limit:g} s of real time{self._waiting()}")
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.outside:
            self._worked |= self.outside > sum(not trip.done() for trip in self._trips)
            # Where it takes very long, it may wait for what needs time itself, such as the lock of a transaction.
            if (ready := super().select(self._stall_limit)) or not self.outside:
                return ready
        elif ready := self._arrived():
            return ready
        elif self._worked:
            self._worked = False
            if clock.round_trips:
                assert self._loop is not None
                self._trips = [self._loop.create_task(each()) for each in clock.round_trips]
                return []
        if timeout is None:
            if ready := super().select(self._stall_limit):
                return ready
            raise VirtualTimeError(f"nothing will happen any more: no timer is set{self._waiting()}")
        # Sums of times may end a little after a rounded one: the clock moves on all the same.
        self.now = max(round(self.now + timeout, _PLACES), round(self.now + 10**-_PLACES, _PLACES))
        return []

    def _arrived(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready once everything has arrived that was sent up to now.

        The loopback device delivers in order: what was sent before a byte is there when that byte is.
        """
        end, other = self._probe
        end.send(b".")
        other.recv(1)
        return super().select(_ARRIVAL if self._worked else 0)

    def _waiting(self) -> str:
        """Return the virtual time, and the steps of definitions that wait; where there are none, all tasks."""
        tasks = asyncio.all_tasks(self._loop) if self._loop is not None else ()
        steps = [step_under_way(task) for task in tasks]
        lines = sorted({f"\n  {step.mark}: step `{step.step}`" for step in steps if step is not None})
        lines = lines or sorted(f"\n  {task.get_name()}: {_place_of(task)}" for task in tasks)
        return f", at {self.now - _BEGIN:.6g} s of virtual time{'; waiting are:' if lines else ''}{''.join(lines)}"


def _place_of(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack()
    return " > ".join(f"{each.f_code.co_qualname}:{each.f_lineno}" for each in frames) or "nowhere"


def _connected_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        end = socket.create_connection(server.getsockname(), timeout=10)
        other, _ = server.accept()
    other.settimeout(10)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return end, other


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is virtual; threads that it starts count as work outside."""

    def __init__(self, *, stall_limit: float = 5.0, limit: float = 60.0) -> None:
        """``stall_limit`` and ``limit`` are real seconds: without any event, and of the whole loop."""
        self.clock = VirtualSelector(stall_limit, limit)
        super().__init__(self.clock)
        self.clock.attach(self)

    def time(self) -> float:
        return self.clock.now

    def cpu_time(self) -> float:
        """Return the time that slices of the CPU end by: it counts calls, so that they end at the same places."""
        self.clock.polls += 1
        return self.clock.now + self.clock.polls * _POLL

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Let the clock stand still."""
        self.clock.outside += 1
        try:
            yield
        finally:
            self.clock.outside -= 1

    def run_in_executor(  # type: ignore[override]  # typeshed's has unpacked types
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self.clock.outside += 1
        future.add_done_callback(self._returned)
        return future

    def _returned(self, future: asyncio.Future[Any]) -> None:
        self.clock.outside -= 1


@contextmanager
def virtual_time(
    start: datetime | None = None, *, stall_limit: float = 5.0, limit: float = 60.0
) -> Iterator[asyncio.Runner]:
    """Install virtual time, and yield the runner of an event loop that goes by it.

    Args:
        start: The moment at which the clock starts; None is the present second.
        stall_limit: Real seconds without any event, after which an endless wait is reported.
        limit: Real seconds that all may take.
    """
    began = start or datetime.now(UTC).replace(microsecond=0)

    def factory() -> VirtualLoop:
        return VirtualLoop(stall_limit=stall_limit, limit=limit)

    with asyncio.Runner(loop_factory=factory) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)

        def now() -> datetime:
            return began + timedelta(microseconds=round((loop.time() - _BEGIN) * 1e6))

        with _installed(
            monotonic=loop.time,
            perf_counter=loop.cpu_time,
            time=lambda: now().timestamp(),
            now=now,
            exact=True,
            outside=loop.outside,
        ):
            yield runner


@contextmanager
def _installed(**functions: Any) -> Iterator[None]:
    """Replace functions of the engine's clock for a while."""
    before = {name: getattr(clock, name) for name in functions}
    try:
        vars(clock).update(functions)
        yield
    finally:
        vars(clock).update(before)
