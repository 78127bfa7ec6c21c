"""Commands that many runs send at once, sent together: most of what one costs alone is its way to a connection."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError, ResponseError

Command: TypeAlias = tuple[bytes | str | int | float, ...]
_Asked: TypeAlias = tuple[Command, "asyncio.Future[Any]"]

#: Commands that are sent in one go.
MOST: Final = 500


class Line:
    """One connection of a pool at a time, for short commands: while some are answered, the next ones gather."""

    __slots__ = ("_asked", "_pool", "_sending")

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._asked: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None

    async def ask(self, *command: bytes | str | float) -> Any:
        """Send a command and return its answer. Raises what redis-py raises.

        Who is cancelled takes no notice of the answer; the command may have been done.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._asked.append((command, future))
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        return await future

    async def _send(self) -> None:
        """Send what was asked, as long as there is something."""
        try:
            while self._asked:
                asked, self._asked = self._asked[:MOST], self._asked[MOST:]
                asked = [each for each in asked if not each[1].done()]
                if asked:
                    await self._exchange(asked)
        finally:
            self._sending = None
            _fail(self._asked, LostError("the connection was closed"))
            self._asked = []

    async def _exchange(self, asked: list[_Asked]) -> None:
        try:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # it has no types
            try:
                await _exchange_on(connection, asked)
            finally:
                await self._pool.release(connection)
        except (RedisError, OSError) as error:
            # Those who came meanwhile have waited as long: they are not to wait once more.
            _fail(asked + self._asked, error)
            self._asked = []
        finally:
            _fail(asked, LostError("the connection was closed"))

    async def aclose(self) -> None:
        """Send nothing more."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])


async def _exchange_on(connection: AbstractConnection, asked: list[_Asked]) -> None:
    """Send commands, and hand out their answers in the same order."""
    packed = connection.pack_commands(command for command, _ in asked)
    await connection.send_packed_command(packed)
    for _, future in asked:
        try:
            answer = await connection.read_response()
        except ResponseError as refusal:
            if not future.done():
                future.set_exception(refusal)
        else:
            if not future.done():
                future.set_result(answer)


def _fail(asked: list[_Asked], error: Exception) -> None:
    """Tell those who have no answer yet."""
    for _, future in asked:
        if not future.done():
            future.set_exception(error)
