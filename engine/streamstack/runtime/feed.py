"""Batches that other tasks make, handed to one reader: what merging and working ahead stand on.

An asynchronous generator can't hold a TaskGroup open across its yields: the group would cancel
whatever its reader does at that moment. So the group lives in a task of the feed's own, which the
feed starts, and on leaving cancels and awaits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from streamstack.runtime.concurrency import stop


class Feed:
    """A task that does ``work``, and what it has put for the reader. Enter it to start the task.

    An error of the work reaches the reader after what was put before it.
    """

    __slots__ = ("_bell", "_ended", "_failure", "_queue", "_task", "_work")

    def __init__(self, work: Callable[[Feed], Awaitable[None]]) -> None:
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
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
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
