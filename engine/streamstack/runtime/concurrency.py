"""Task groups, branches and feeds of a run."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.definition import Retry
from streamstack.language.values import MISSING
from streamstack.runtime.faults import located
from streamstack.runtime.run import Run, Sink, check_content
from streamstack.runtime.values import Batches, Items, Stream, Unchanged

T = TypeVar("T")


class TaskGroup:
    """Tasks that are started one by one, also by one another, and waited for with `finish`.

    asyncio.TaskGroup raises its first error in place of a cancellation that comes at the same time, and before Python
    3.13 leaves the task's count of cancellations changed (https://github.com/python/cpython/issues/116720).
    """

    __slots__ = ("_failure", "_tasks", "_wake")

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if self._failure is None:
            self._failure = failure
        if self._failure is not None or not self._tasks:
            self._wake.set()

    async def finish(self) -> None:
        """Wait for all tasks; raise the first error as it is, once the others have ended too."""
        try:
            if self._tasks:
                await self._wake.wait()
        finally:
            while running := [task for task in self._tasks if not task.done()]:
                await stop(*running)
        if self._failure is not None:
            raise self._failure


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have cleaned up, also when cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    running = {task for task in tasks if not task.done()}
    for task in running:
        task.cancel()
    while running:
        try:
            _, running = await asyncio.wait(running)
        except asyncio.CancelledError as again:
            cancelled = again
            running = {task for task in running if not task.done()}
            for task in running:
                task.cancel()
    if cancelled is not None:
        raise cancelled


log = structlog.get_logger("streamstack.run")


class Signal:
    """How a part of a stack that runs in a function of its own asks its caller to break, continue or return."""

    __slots__ = ("value", "what")

    def __init__(self, value: Any = None, what: str = "return") -> None:
        self.value = value
        self.what = what


BREAK = Signal(what="break")
CONTINUE = Signal(what="continue")


#: Codes that trying again can't mend, unless the author names them under `on`.
FINAL = frozenset({"invalid-input", "unauthorized", "forbidden", "not-found", "template", "limit-reached", "internal"})


def _text(seconds: float) -> str:
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"


@asynccontextmanager
async def limited(seconds: float | None) -> AsyncIterator[None]:
    """Limit what runs inside to some seconds; None means no limit.

    Raises RunError ``timeout``.
    """
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            yield
    except TimeoutError:
        if timer.expired() and seconds is not None:
            raise RunError("timeout", f"the step took longer than its timeout of {_text(seconds)}") from None
        raise


def pause(policy: Retry, attempt: int, error: RunError | None = None) -> float:
    """Return the seconds to wait before an attempt (counted from 0), with full jitter where that is asked for.

    It is never less than what the upstream asked for in its error.
    """
    delay = policy.delay * (2**attempt if policy.backoff == "exponential" else 1)
    delay = min(delay, policy.max_delay)
    if policy.jitter and not clock.exact:
        delay = random.uniform(0, delay)  # noqa: S311  (no secret)
    retry_after = error.retry_after if error is not None else None
    return delay if retry_after is None else max(delay, retry_after)


def should_retry(policy: Retry, error: RunError, attempt: int) -> bool:
    """Whether a failed attempt (counted from 0) is to be followed by another.

    It is not where the upstream asks to be left alone for longer than the policy's longest delay: sooner is in vain.
    """
    if attempt >= policy.times or error.final:
        return False
    if error.retry_after is not None and error.retry_after > policy.max_delay:
        return False
    return error.code in policy.on if policy.on else error.code not in FINAL


class AttemptSink(Sink):
    """The sink of one attempt at a step: it tells whether this step, and no other beside it, has emitted."""

    __slots__ = ("_sink", "emitted")

    def __init__(self, sink: Sink) -> None:
        # Count, bytes and end are those of the sink itself.
        self._sink = sink
        self.emitted = False

    @property
    def count(self) -> int:  # type: ignore[override]
        return self._sink.count

    @property
    def bytes(self) -> int:  # type: ignore[override]
        return self._sink.bytes

    @property
    def ended(self) -> bool:  # type: ignore[override]
        return self._sink.ended

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        full = self._sink.emit(content, event, id, metadata)
        self.emitted = True
        return full

    async def drain(self) -> None:
        await self._sink.drain()

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        self._sink.done(content, metadata)
        self.emitted = True

    def respond(self, status: int | None, headers: Mapping[str, str], cookies: Mapping[str, Any]) -> None:
        self._sink.respond(status, headers, cookies)


async def retried(run: Run, policy: Retry, attempt: Callable[[Sink], Awaitable[Any]], sink: Sink) -> Any:
    """Run a step again after an error, up to ``times`` more; never once it has emitted."""
    number = 0
    while True:
        watched = AttemptSink(sink)
        try:
            return await attempt(watched)
        except Exception as error:  # noqa: BLE001  (raised again, with its place)
            fault = located(error)
            if watched.emitted or not should_retry(policy, fault, number):
                raise fault from fault.__cause__
            log.info("retry", run=run.id, code=fault.code, attempt=number + 1, place=str(fault.place))
            wait = pause(policy, number, fault)
        await asyncio.sleep(wait)
        number += 1


def guarded(
    run: Run,
    policy: Retry | None,
    timeout: float | None,
    make: Callable[..., Stream],
    /,  # the arguments are those of any function, which may have a `timeout` of its own
    **arguments: Any,
) -> Stream:
    """Make a stream whose opening, up to its first item, is limited in time and tried again."""
    present = make(run, **arguments)

    async def open_(*, unchanged: Unchanged = False) -> Batches:
        nonlocal present
        number = 0
        while True:
            try:
                async with limited(timeout):
                    batch = await present.consume(unchanged=unchanged).batch()
                break
            except RunError as error:
                await present.close()
                if policy is None or not should_retry(policy, error, number):
                    raise
                log.info("retry", run=run.id, code=error.code, attempt=number + 1)
                await asyncio.sleep(pause(policy, number, error))
                number += 1
                present = make(run, **arguments)
        try:
            while batch:
                yield batch
                batch = await present.batch()
        finally:
            await present.close()

    def reader(name: str) -> Callable[[], Any]:
        return lambda: present[name]

    properties = {name: reader(name) for name in present.property_names}
    return Stream(open_, properties, encoded=lambda: open_(unchanged=True), contents=lambda: open_(unchanged="content"))


async def together(tasks: Mapping[str, Callable[[], Coroutine[Any, Any, Any]]], limit: int | None) -> list[Any]:
    """Run branches at once, at most ``limit`` of them; the first error cancels the others and is raised."""
    gate = asyncio.Semaphore(limit or len(tasks) or 1)

    async def one(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async with gate:
            return await work()

    group = TaskGroup()
    running = [group.start(one(work)) for work in tasks.values()]
    await group.finish()
    return [task.result() for task in running]


class _Stop(Exception):  # noqa: N818  (not an error)
    """Leaves a concurrent loop from one of its iterations."""

    def __init__(self, signal: Signal) -> None:
        self.signal = signal


async def concurrently(  # noqa: PLR0913  (a loop has that many parts)
    run: Run,
    source: Stream | Items,
    body: Callable[[Any, int, Sink], Awaitable[Signal | None]],
    sink: Sink,
    *,
    concurrency: int,
    ordered: bool,
    skip: bool,
    limit: int | None,
    stop: bool,
) -> Signal | None:
    """Run the body of a loop for several items at once.

    ``ordered``: chunks leave in the order of the items. ``skip``: an error ends its iteration only, and is logged.
    Past ``limit`` items the loop ends where ``stop`` is set, else RunError ``limit-reached`` is raised.
    Return what an iteration's `return` asks for.
    """
    gate = asyncio.Semaphore(max(1, concurrency))
    group = TaskGroup()

    async def one(item: Any, index: int, mine: asyncio.Event, next_ready: asyncio.Event) -> None:
        own = OrderedSink(sink, mine) if ordered else sink
        try:
            signal = await body(item, index, own)
            if isinstance(own, OrderedSink):
                await own.finish()
        except Exception as error:  # noqa: BLE001  (raised again, with its place)
            fault = located(error)
            if not skip:
                raise fault from fault.__cause__
            log.warning("item-skipped", run=run.id, index=index, code=fault.code, message=fault.message)
            if isinstance(own, OrderedSink):
                await own.finish()
            signal = None
        finally:
            gate.release()
        next_ready.set()
        if signal is not None and signal.what != "continue":
            raise _Stop(signal)

    async def all_of_them() -> None:
        index = 0
        ready = asyncio.Event()
        ready.set()
        # A loop that stops at its limit does not wait for the item after.
        while (not stop or limit is None or index < limit) and (batch := await source.batch()):
            for item in batch:
                if limit is not None and index >= limit:
                    if stop:
                        return
                    raise RunError("limit-reached", f"the loop has more than {limit} items")
                await gate.acquire()
                next_ready = asyncio.Event()
                group.start(one(item, index, ready, next_ready))
                ready = next_ready
                index += 1

    group.start(all_of_them())
    try:
        await group.finish()
    except _Stop as error:
        return error.signal if error.signal is not BREAK else None
    finally:
        await source.close()
    return None


class OrderedSink(Sink):
    """The sink of one iteration of an ordered loop: it holds chunks back until the iterations before it are done."""

    __slots__ = ("_first", "_held", "_sink")

    #: Chunks held back before the iteration itself must wait.
    MOST = 256

    def __init__(self, sink: Sink, first: asyncio.Event) -> None:
        super().__init__()
        self._sink = sink
        self._first = first
        self._held: deque[tuple[Any, str | None, Any, Any]] = deque()
        self.count = sink.count

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        if self._first.is_set() and not self._held:
            full = self._sink.emit(content, event, id, metadata)
            self.count, self.bytes = self._sink.count, self._sink.bytes
            return full
        check_content(self._sink, content)  # now, while the step that sends it is known
        self._held.append((content, event, id, metadata))
        self.count += 1
        return len(self._held) >= self.MOST or self._first.is_set()

    async def drain(self) -> None:
        await self._first.wait()
        while self._held:  # what comes meanwhile goes behind
            if self._sink.emit(*self._held.popleft()):
                await self._sink.drain()
        await self._sink.drain()

    async def finish(self) -> None:
        """Wait for the turn and send what was held back."""
        await self._first.wait()
        if self._held:
            await self.drain()

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        if self._held or not self._first.is_set():
            raise RunError("template", "`done` can't stand in a concurrent loop: write it after the loop")
        self._sink.done(content, metadata)

    def respond(self, status: int | None, headers: Mapping[str, str], cookies: Mapping[str, Any]) -> None:
        self._sink.respond(status, headers, cookies)


class Channel:
    """A task that does ``work``, and what it has put for the reader. Enter it to start the task.

    An error of the work reaches the reader after what was put before it.
    """

    __slots__ = ("_bell", "_ended", "_failure", "_queue", "_task", "_work")

    def __init__(self, work: Callable[[Channel], Awaitable[None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._queue: deque[tuple[list[Any], asyncio.Future[None]]] = deque()
        self._bell = asyncio.Event()
        self._ended = False
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            await stop(self._task)

    async def _run(self) -> None:
        try:
            await self._work(self)
        except Exception as error:  # noqa: BLE001  (the reader raises it)
            self._failure = error
            while isinstance(self._failure, ExceptionGroup):
                self._failure = self._failure.exceptions[0]
        finally:
            self._ended = True
            self._bell.set()

    def put(self, items: list[Any]) -> asyncio.Future[None]:
        """Hand items over; what is returned is done when the reader has taken them."""
        taken = asyncio.get_running_loop().create_future()
        self._queue.append((items, taken))
        self._bell.set()
        return taken

    async def take(self, until: float | None = None) -> list[Any] | None:
        """Wait for items and return all there are; an empty list is the end.

        ``until`` is a time of the event loop's clock, after which None is returned; whatever the
        work waits for is not disturbed by it.
        """
        loop = asyncio.get_running_loop()
        while not self._queue:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return []
            if until is not None and loop.time() >= until:
                return None
            self._bell.clear()
            timer = loop.call_at(until, self._bell.set) if until is not None else None
            try:
                await self._bell.wait()
            finally:
                if timer is not None:
                    timer.cancel()
        items, taken = self._queue.popleft()
        settle(taken)
        if self._queue:
            items = list(items)
            while self._queue:
                more, taken = self._queue.popleft()
                items += more
                settle(taken)
        return items


def settle(future: asyncio.Future[None]) -> None:
    """Let go on who waits for this, unless it did or was cancelled."""
    if not future.done():
        future.set_result(None)
