"""Connections kept for use: the free one that was used last is the first to be used again.

asyncpg's own pool starts a task and two timers for each use, which costs as much as a small statement does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, Final, TypeAlias

import asyncpg

Connection: TypeAlias = asyncpg.Connection

#: Seconds that a connection stays without use.
IDLE: Final = 300.0
#: Seconds to bring a connection back into order after a statement was stopped.
_ORDER_WITHIN: Final = 5.0


class Pool:
    """At most ``most`` connections, made by ``connect`` when they are needed."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], most: int) -> None:
        self._connect = connect
        self._most = most
        self._size = 0
        self._idle: list[tuple[Connection, float]] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._empty = asyncio.Event()

    async def take(self, within: float) -> Connection:
        """Return a connection that is free, or a new one.

        Raises TimeoutError where none becomes free in some seconds, and what asyncpg raises where none can be made.
        """
        deadline = monotonic() + within
        while True:
            if self._closed:
                raise asyncpg.InterfaceError("the pool is closed: the server is shutting down")
            while self._idle:
                connection, _ = self._idle.pop()
                if not connection.is_closed():
                    return connection
                self._size -= 1
            if self._size < self._most:
                return await self._make()
            handed = await self._wait(max(0.0, deadline - monotonic()))
            if handed is not None and not handed.is_closed():
                return handed
            if handed is not None:
                self._size -= 1

    async def _make(self) -> Connection:
        self._size += 1
        try:
            return await self._connect()
        except BaseException:
            self._lose()
            raise

    async def _wait(self, within: float) -> Connection | None:
        """Wait for a connection; None means that there is room for a new one."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(within):
                return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                # It came too late: somebody else is to have it.
                handed = waiter.result()
                if handed is not None:
                    self.give_back(handed)
                else:
                    self._hand_on(None)
            raise

    def give_back(self, connection: Connection, *, reset: bool = False) -> None:
        """Let others have a connection. One in a transaction, or to be ``reset``, is brought into order first."""
        if connection.is_closed():
            self._lose()
        elif self._closed:
            self._spawn(self._end(connection))
        elif reset or connection.is_in_transaction():
            self._spawn(self._order(connection))
        else:
            self._offer(connection)

    def _offer(self, connection: Connection) -> None:
        if self._hand_on(connection):
            return
        self._idle.append((connection, monotonic()))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(IDLE, self._sweep)

    def _hand_on(self, connection: Connection | None) -> bool:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _lose(self) -> None:
        """Take note that a connection is gone: who waits may make a new one."""
        self._size -= 1
        self._hand_on(None)
        if not self._size:
            self._empty.set()

    async def _order(self, connection: Connection) -> None:
        try:
            # Waits for the end of a statement that is being cancelled, then rolls back.
            async with asyncio.timeout(_ORDER_WITHIN):
                await connection.reset()
                await connection.execute("DISCARD TEMP")
        except Exception:  # noqa: BLE001  (whatever is wrong with it, it is of no use any more)
            connection.terminate()
        if connection.is_closed():
            self._lose()
        elif self._closed:
            await self._end(connection)
        else:
            self._offer(connection)

    async def _end(self, connection: Connection) -> None:
        try:
            await connection.close(timeout=1.0)
        except Exception:  # noqa: BLE001  (it is to go in any case)
            connection.terminate()
        self._lose()

    def _sweep(self) -> None:
        """Close what nobody used for long."""
        now = monotonic()
        old = [connection for connection, since in self._idle if now - since >= IDLE]
        self._idle = [each for each in self._idle if now - each[1] < IDLE]
        for connection in old:
            self._spawn(self._end(connection))
        self._sweeper = (
            asyncio.get_running_loop().call_later(IDLE, self._sweep) if self._idle else None
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self, patience: float) -> None:
        """Close all connections; those in use have some seconds to come back."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        while self._hand_on(None):
            pass  # they are told that it is closed
        self._empty.clear()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(self._end(connection) for connection, _ in idle))
        if self._size:
            try:
                async with asyncio.timeout(patience):
                    await self._empty.wait()
            except TimeoutError:
                pass
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
