"""Tasks that belong together: the first error ends them all, and none outlives who started them.

asyncio's TaskGroup cancels the task that waits for it, in order to wake it, and before Python 3.13 takes that back only
sometimes; an error it has goes before a cancellation from outside, which is lost then. A run must be stoppable whatever
its branches do, so a crew wakes by an event instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Crew:
    """Tasks that are started one by one, also by one another, and waited for with `finish`."""

    __slots__ = ("_bell", "_failure", "_tasks")

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bell = asyncio.Event()
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
            self._bell.set()

    async def finish(self) -> None:
        """Wait for all tasks; raise the first error as it is, once the others have ended too."""
        try:
            if self._tasks:
                await self._bell.wait()
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
