"""Notices of a database (LISTEN and NOTIFY): one connection for all who wait for them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from streamstack.connections.postgres.failures import failure_of, is_lost
from streamstack.errors import RunError

if TYPE_CHECKING:
    from streamstack.connections.postgres.database import Database

log = structlog.get_logger("streamstack.database")

#: Notices that may wait for one reader.
MOST: Final = 10_000
#: Seconds before the first new try to connect, and at most.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
#: Seconds after which a silent connection is asked whether it is still there.
_ASK_EVERY: Final = 30.0
#: Seconds that the server may take to be told that nobody listens to a channel any more.
_TELL_WITHIN: Final = 5.0


class Subscription:
    """What one reader waits for. ``gaps`` counts the connections that were lost meanwhile."""

    __slots__ = ("_bell", "_waiting", "channel", "failure", "gaps")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.gaps = 0
        self.failure: RunError | None = None
        self._waiting: deque[str | None] = deque()
        self._bell = asyncio.Event()

    def put(self, payload: str | None) -> None:
        """Take a notice; None is a gap, in which others may have been missed."""
        if self.failure is not None:
            return  # what came after the hole is not given as if there were none
        if payload is None:
            self.gaps += 1
        if len(self._waiting) >= MOST:
            self.fail(
                RunError(
                    "limit-reached",
                    f"more than {MOST} notices of `{self.channel}` wait for a loop that is too slow",
                )
            )
            return
        self._waiting.append(payload)
        self._bell.set()

    def fail(self, failure: RunError) -> None:
        """End it with an error."""
        self.failure = self.failure or failure
        self._bell.set()

    async def take(self) -> list[str | None]:
        """Wait for notices and return all there are. Raises the error that ended it, after what came before."""
        while not self._waiting:
            if self.failure is not None:
                raise self.failure
            self._bell.clear()
            await self._bell.wait()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class Listening:
    """The connection of a database on which notices come. It is there as long as somebody waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._channels: dict[str, set[Subscription]] = {}
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # to begin and to end listening
        self._use = asyncio.Lock()  # of the connection: one statement at a time

    async def subscribe(self, channel: str) -> Subscription:
        """Begin to listen. Raises RunError ``database`` where the database can't be reached."""
        subscription = Subscription(channel)
        async with self._turn:
            readers = self._channels.setdefault(channel, set())
            readers.add(subscription)
            try:
                if self._connection is None and self._task is None:
                    await self._open()
                    self._task = asyncio.create_task(self._watch())
                elif len(readers) == 1 and self._connection is not None:
                    await self._listen(channel)
            except Exception as error:
                if is_lost(error) and self._task is not None:
                    return subscription  # it is told of the gap when the connection is there again
                self._leave(subscription)
                raise failure_of(error, self._database.name) from error
            except BaseException:
                self._leave(subscription)
                if not self._channels:
                    await self._stop()
                raise
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End listening; the last to leave closes the connection."""
        async with self._turn:
            self._leave(subscription)
            if not self._channels:
                await self._stop()
            elif subscription.channel not in self._channels and self._connection is not None:
                # A connection that is gone listens to nothing anyway.
                with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    async with self._use, asyncio.timeout(_TELL_WITHIN):
                        await self._connection.remove_listener(subscription.channel, self._tell)

    def _leave(self, subscription: Subscription) -> None:
        readers = self._channels.get(subscription.channel)
        if readers is not None:
            readers.discard(subscription)
            if not readers:
                del self._channels[subscription.channel]

    async def _open(self) -> None:
        connection = await self._database.connect()
        try:
            # Whoever subscribes meanwhile waits for the connection, then asks by himself.
            async with self._use:
                self._connection = connection
                for channel in list(self._channels):
                    await connection.add_listener(channel, self._tell)
        except BaseException:
            self._connection = None
            connection.terminate()
            raise

    async def _listen(self, channel: str) -> None:
        async with self._use:
            if self._connection is not None:  # else it is lost, and made again with this channel
                await self._connection.add_listener(channel, self._tell)

    def _tell(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        for subscription in self._channels.get(channel, ()):
            subscription.put(payload)

    async def _watch(self) -> None:
        """Connect again whenever the connection is lost."""
        while True:
            await self._lost()
            pause = _FIRST_PAUSE
            self._connection = None
            log.info("database-listening-lost", database=self._database.name)
            while True:
                await asyncio.sleep(pause)
                try:
                    await self._open()
                except Exception as error:  # noqa: BLE001  (whatever it is, the next try may go better)
                    log.info("database-away", database=self._database.name, reason=str(error))
                    self._connection = None
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    continue
                break
            for readers in self._channels.values():
                for subscription in readers:
                    subscription.put(None)

    async def _lost(self) -> None:
        """Return when the connection is gone. One that is silent is asked, since a dead peer says nothing."""
        connection = self._connection
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        while not connection.is_closed():
            try:
                async with asyncio.timeout(_ASK_EVERY):
                    await gone.wait()
                    return
            except TimeoutError:
                pass
            try:
                async with self._use:
                    await connection.execute("SELECT 1", timeout=_ASK_EVERY)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                connection.terminate()
                return

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()

    async def aclose(self) -> None:
        """End all that listens."""
        for readers in self._channels.values():
            for subscription in readers:
                subscription.fail(RunError("database", "the server is shutting down", status=503))
        self._channels.clear()
        await self._stop()
