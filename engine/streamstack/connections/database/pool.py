"""Connections of PostgreSQL: a pool of them, one that listens to notices, and the errors they meet.

The idle connection that was used last is the first to be used again. asyncpg's own pool starts a task and two timers
for each use, which costs as much as a small statement does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import asyncpg
import structlog

from streamstack import clock
from streamstack.connections.database import Subscription
from streamstack.errors import RunError

#: Classes of SQLSTATE that may pass by themselves (PostgreSQL, Appendix A): a conflict with another transaction, a
#: lock, resources, a server that stops or starts. All others are caused by the statement.
PASSING: Final = ("40", "55P03", "53", "57", "58", "08")
#: The server closed the connection, and rolled back what was not committed.
_ENDED: Final = frozenset({"57P01", "57P05"})
#: The server can't be reached, or accepts no connection now.
_AWAY: Final = frozenset({"57P03", "53300"})
#: What asyncpg raises.
RAISED: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
#: Errors of a connection that is gone, or could not be made.
_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,  # the server has closed it, and asyncpg has not noticed yet
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    OSError,
)
#: Statuses and messages that clients see, by SQLSTATE or its class. They name nothing of the database.
_PUBLIC: Final = {
    "23505": (409, "a row with the same key exists already"),
    "23P01": (409, "the row conflicts with another one"),
    "23503": (400, "a row that this one refers to does not exist, or others still refer to it"),
    "23502": (400, "a required value is missing"),
    "23514": (400, "a value is not allowed"),
    "22021": (400, "a text holds the character U+0000, which can't be stored"),
    "22P05": (400, "a text holds the character U+0000, which can't be stored"),
    "22": (400, "a value is malformed or out of range"),
    "54023": (400, "the statement has too many values"),
    "25P02": (None, "an error before this ended the transaction"),
    "40": (None, "the statement conflicted with another one: it may work when tried again"),
    "55P03": (None, "another transaction holds a lock on the rows"),
    "57014": (None, "the statement was cancelled"),
    "08": (503, "the database is out of reach"),
    "57P": (503, "the database is out of reach"),
    "53300": (503, "the database is out of reach"),
}
#: What the author should know, beyond the database's own words.
_HINTS: Final = {
    "22021": "take U+0000 out with `replace`",
    "22P05": "take U+0000 out with `replace`",
    "25P02": "a step before failed in this transaction: give one that may fail a `db.transaction` of its own",
    **dict.fromkeys(
        ("26000", "42P05"),
        "behind a pooler that shares connections between transactions (PgBouncer, Supabase, Neon), set `poolMode:"
        " transaction` for the database",
    ),
}
#: Parameters that one statement may have (the protocol counts them in 16 bits).
MOST_PARAMETERS: Final = 32_767


class NotSentError(ConnectionError):
    """The connection was closed before the statement was sent."""


def is_lost(error: BaseException) -> bool:
    """Return whether an error means that the connection is gone, or could not be made."""
    return isinstance(error, _LOST)


def ran_surely_not(error: BaseException) -> bool:
    """Return whether a statement that met this error has surely left no trace.

    It has not where the server says that it closed the connection (what was not committed is rolled back), nor where
    nothing was sent. Where the connection broke, or the server crashed (57P02), it is unknown.
    """
    error = _server_message(error)
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate in _ENDED | _AWAY
    return isinstance(error, (ConnectionRefusedError, FileNotFoundError, NotSentError))


def _server_message(error: BaseException) -> BaseException:
    """Return what the server said before it closed the connection, which asyncpg gives as the cause of the loss."""
    if isinstance(error, asyncpg.InterfaceError) and error.__context__ is not None and is_lost(error.__context__):
        error = error.__context__  # the end of a savepoint, on a connection that was lost within it
    cause: BaseException | None = error.__cause__
    lost = isinstance(error, asyncpg.PostgresConnectionError)
    return cause if lost and isinstance(cause, asyncpg.PostgresError) else error


def is_ours(error: BaseException) -> bool:
    """Return whether asyncpg itself refused a value, before anything was sent."""
    return type(error) is asyncpg.DataError and getattr(error, "severity", None) is None


def database_error(
    code: str, reason: str, *, final: bool | None = None, details: dict[str, Any] | None = None
) -> RunError:
    """Return the error ``database`` for a SQLSTATE; its message is fit for clients.

    Args:
        code: The SQLSTATE.
        reason: What the database, or the driver, says.
        final: Trying again can't help; None decides by the code.
        details: More for `error.details`.
    """
    status, message = next(
        (_PUBLIC[key] for key in (code, code[:3], code[:2]) if key in _PUBLIC),
        (None, "the database refused the statement"),
    )
    shown: dict[str, Any] = {"code": code, "message": reason, **(details or {})}
    if code in _HINTS:
        shown["hint"] = "; ".join(filter(None, (shown.get("hint"), _HINTS[code])))
    if final is None:
        final = not code.startswith(PASSING)
    # An unknown column may be a property of an object that a client sent.
    parameter = "*" if code == "42703" else ""
    return RunError("database", message, status=status, details=shown, final=final, parameter=parameter)


def failure_of(error: BaseException, database: str) -> RunError:
    """Return the error ``database`` for what asyncpg raised; raise again what is none of its errors.

    Its details hold `code` (SQLSTATE), `message`, `database`, and what the server tells: `detail`, `hint`, `table`,
    `column`, `constraint`. A database out of reach has the status 503.
    """
    if isinstance(error, RunError):
        return error
    if isinstance(error.__cause__, RunError) and is_ours(error):
        return error.__cause__  # a value within JSON that has no JSON
    error = _server_message(error)
    details: dict[str, Any] = {"database": database}
    if is_ours(error):
        return database_error("22000", str(error), details=details)
    if isinstance(error, asyncpg.PostgresError):
        shown = {
            "detail": error.detail,
            "hint": error.hint,
            "table": getattr(error, "table_name", None),
            "column": getattr(error, "column_name", None),
            "constraint": getattr(error, "constraint_name", None),
        }
        details |= {name: value for name, value in shown.items() if value}
        return database_error(error.sqlstate or "XX000", error.message or str(error), details=details)
    if is_lost(error) or isinstance(error, TimeoutError):
        return database_error("08006", str(error) or type(error).__name__, details=details)
    if isinstance(error, asyncpg.InterfaceError):
        return database_error("0A000", str(error), details=details)
    raise error


# -------------------------------------------------------------------------------- connections

log = structlog.get_logger("streamstack.database")

#: Seconds that a connection stays without use.
IDLE: Final = 300.0
#: Seconds to bring a connection back into order after a statement was stopped.
_RESET_WITHIN: Final = 5.0
#: Seconds before the first new try to connect, and at most.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
#: Seconds after which a silent connection is asked whether it is still there.
_PING_INTERVAL: Final = 30.0
#: Seconds that `UNLISTEN` may take.
_UNLISTEN_WITHIN: Final = 5.0


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection with its prepared statements: each with what makes a row of its records, by its text.

    Behind a transaction pooler (``pooled``) statements have no names, since they would stay on others' connections.
    """

    __slots__ = ("pooled", "statements")

    pooled: bool
    statements: dict[str, tuple[Any, Callable[[Any], dict[str, Any]]]]

    async def parse(self, text: str) -> Any:
        """Prepare a statement."""
        return await self.prepare(text, name="" if self.pooled else None)


class Pool:
    """At most ``most`` connections, made by ``connect`` when they are needed.

    Without ``resets`` a connection in disorder is closed: behind a transaction pooler its settings are others', too.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], most: int, *, resets: bool = True) -> None:
        self._connect = connect
        self._most = most
        self._resets = resets
        self._size = 0
        self._idle: list[tuple[Connection, float]] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._empty = asyncio.Event()

    async def acquire(self, within: float) -> Connection:
        """Return a connection that is free, or a new one.

        Raises TimeoutError where none becomes free in time, RunError where the pool is closed, and what asyncpg raises
        where none can be made.
        """
        deadline = clock.monotonic() + within
        while True:
            if self._closed:
                raise RunError("database", "the server is shutting down", status=503)
            while self._idle:
                connection, _ = self._idle.pop()
                if not connection.is_closed():
                    return connection
                self._size -= 1
            if self._size < self._most:
                return await self._make()
            handed = await self._wait(max(0.0, deadline - clock.monotonic()))
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
                # It came too late: another step gets it.
                handed = waiter.result()
                if handed is not None:
                    self.release(handed)
                else:
                    self._offer_to_waiter(None)
            raise

    def release(self, connection: Connection, *, reset: bool = False) -> None:
        """Let others have a connection. One in a transaction, or to be ``reset``, is brought into order first."""
        disordered = reset or (not connection.is_closed() and connection.is_in_transaction())
        if disordered and not self._resets:
            connection.terminate()
        if connection.is_closed():
            self._lose()
        elif self._closed:
            self._spawn(self._end(connection))
        elif disordered:
            self._spawn(self._reset(connection))
        else:
            self._offer(connection)

    def _offer(self, connection: Connection) -> None:
        if self._offer_to_waiter(connection):
            return
        self._idle.append((connection, clock.monotonic()))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(IDLE, self._sweep)

    def _offer_to_waiter(self, connection: Connection | None) -> bool:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _lose(self) -> None:
        """Record that a connection is gone: who waits may make a new one."""
        self._size -= 1
        self._offer_to_waiter(None)
        if not self._size:
            self._empty.set()

    async def _reset(self, connection: Connection) -> None:
        try:
            # Waits for the end of a statement that is being cancelled, then rolls back.
            async with asyncio.timeout(_RESET_WITHIN):
                with clock.outside():
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
            with clock.outside():
                await connection.close(timeout=1.0)
        except Exception:  # noqa: BLE001  (it is to go in any case)
            connection.terminate()
        self._lose()

    def _sweep(self) -> None:
        """Close connections that were idle for long."""
        now = clock.monotonic()
        old = [connection for connection, since in self._idle if now - since >= IDLE]
        self._idle = [each for each in self._idle if now - each[1] < IDLE]
        for connection in old:
            self._spawn(self._end(connection))
        self._sweeper = asyncio.get_running_loop().call_later(IDLE, self._sweep) if self._idle else None

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
        while self._offer_to_waiter(None):
            pass  # they learn that it is closed
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


class Listener:
    """The connection of a database on which notices come. It is open as long as a step listens."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], database: str) -> None:
        self._connect = connect
        self._database = database
        self._channels: dict[str, set[Subscription]] = {}
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()  # to begin and to end listening
        self._use = asyncio.Lock()  # of the connection: one statement at a time

    async def subscribe(self, channel: str) -> Subscription:
        """Begin to listen. Raises RunError ``database`` where the database can't be reached."""
        subscription = Subscription(channel)
        async with self._lock:
            readers = self._channels.setdefault(channel, set())
            readers.add(subscription)
            try:
                if self._connection is None and self._task is None:
                    await self._open()
                    self._task = asyncio.create_task(self._watch())
                    clock.round_trips.add(self._make_round_trip)
                elif len(readers) == 1 and self._connection is not None:
                    await self._listen(channel)
            except Exception as error:
                if is_lost(error) and self._task is not None:
                    return subscription  # it learns of the gap when the connection is there again
                self._remove(subscription)
                raise failure_of(error, self._database) from error
            except BaseException:
                self._remove(subscription)
                if not self._channels:
                    await self._stop()
                raise
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End listening; the last to leave closes the connection."""
        async with self._lock:
            self._remove(subscription)
            if not self._channels:
                await self._stop()
            elif subscription.channel not in self._channels and self._connection is not None:
                # A connection that is gone listens to nothing anyway.
                with suppress(*RAISED):
                    async with self._use, asyncio.timeout(_UNLISTEN_WITHIN):
                        with clock.outside():
                            await self._connection.remove_listener(subscription.channel, self._deliver)

    def _remove(self, subscription: Subscription) -> None:
        readers = self._channels.get(subscription.channel)
        if readers is not None:
            readers.discard(subscription)
            if not readers:
                del self._channels[subscription.channel]

    async def _open(self) -> None:
        connection = await self._connect()
        try:
            # Subscribers meanwhile wait for the connection, then ask themselves.
            async with self._use:
                self._connection = connection
                with clock.outside():
                    for channel in list(self._channels):
                        await connection.add_listener(channel, self._deliver)
        except BaseException:
            self._connection = None
            connection.terminate()
            raise

    async def _listen(self, channel: str) -> None:
        async with self._use:
            if self._connection is not None:  # else it is lost, and made again with this channel
                with clock.outside():
                    await self._connection.add_listener(channel, self._deliver)

    def _deliver(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        for subscription in self._channels.get(channel, ()):
            subscription.put(payload)

    async def _watch(self) -> None:
        """Connect again whenever the connection is lost."""
        while True:
            await self._lost()
            pause = _FIRST_PAUSE
            self._connection = None
            log.info("database-listening-lost", database=self._database)
            while True:
                await asyncio.sleep(pause)
                try:
                    await self._open()
                except Exception as error:  # noqa: BLE001  (whatever it is, the next try may go better)
                    log.info("database-away", database=self._database, reason=str(error))
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
                async with asyncio.timeout(_PING_INTERVAL):
                    await gone.wait()
                    return
            except TimeoutError:
                pass
            await self._make_round_trip()

    async def _make_round_trip(self) -> None:
        """Ask the server for an answer, before which all notices come that were sent. A dead connection is closed."""
        connection = self._connection
        if connection is None:
            return
        try:
            async with self._use:
                with clock.outside():
                    await connection.execute("SELECT 1", timeout=_PING_INTERVAL)
        except (*RAISED, TimeoutError):
            connection.terminate()

    async def _stop(self) -> None:
        clock.round_trips.discard(self._make_round_trip)
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
