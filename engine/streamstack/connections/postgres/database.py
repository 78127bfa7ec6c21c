"""A database: its pool of connections, opened when first needed; what becomes of lost connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import structlog

from streamstack.connections.database.embedded import Embedded, EmbeddedError, running
from streamstack.connections.postgres.binary import teach
from streamstack.connections.postgres.failures import RAISED, failure_of, is_lost, ran_surely_not
from streamstack.connections.postgres.listening import Listening
from streamstack.connections.postgres.pool import Connection, Pool
from streamstack.connections.postgres.session import Catalogue, Outdated, Session
from streamstack.connections.postgres.setup import apply_setup
from streamstack.errors import RunError
from streamstack.language.database_settings import Database as Settings

log = structlog.get_logger("streamstack.database")

T = TypeVar("T")

#: Seconds to wait for a connection of the pool to become free, and for a new one to be made.
FREE_WITHIN: Final = 10.0
CONNECT_WITHIN: Final = 10.0
#: Seconds that connections in use have to come back when the server stops.
LAST: Final = 2.0
#: Seconds before each new try with another connection, after one was lost.
PAUSES: Final = (0.0, 0.1, 0.4, 1.0)
#: What every session has: times are read and written in UTC.
SESSION: Final[Mapping[str, str]] = {"TimeZone": "UTC", "application_name": "streamstack"}

#: The sessions of the transactions that are open around the present task, by database.
_open: ContextVar[Mapping[Database, Session]] = ContextVar("transactions", default={})  # noqa: B039


class Database:
    """One database of the project."""

    def __init__(
        self, settings: Settings, folder: Path, *, joins: bool = False, starts: bool = True
    ) -> None:
        self.settings = settings
        self._folder = folder
        self._joins = joins
        self._starts = starts
        self.catalogue = Catalogue(settings.name)
        self._embedded = Embedded(folder, bin_folder=settings.bin) if settings.url is None else None
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self.listening = Listening(self)

    @property
    def name(self) -> str:
        """The name that definitions call it by."""
        return self.settings.name

    async def open(self) -> Pool:
        """Connect, and run the setup files that are new; only the first call does anything.

        Raises RunError ``database``.
        """
        if self._pool is not None:
            return self._pool
        async with self._opening:
            if self._pool is None:
                if self._closed:
                    raise RunError("database", "the server is shutting down", status=503)
                try:
                    self._pool = await self._connect()
                except (*RAISED, TimeoutError) as error:
                    raise failure_of(error, self.name) from error
        return self._pool

    async def address(self) -> Mapping[str, Any]:
        """Return what asyncpg needs to connect; the embedded server is started."""
        if self._embedded is None:
            return {"dsn": self.settings.url}
        if self._joins and (other := await running(self._folder)) is not None:
            return other
        if not self._starts:
            # Whoever runs it sees that, too, and starts it again.
            raise ConnectionRefusedError("the embedded PostgreSQL is not running")
        try:
            return await self._embedded.start()
        except EmbeddedError as error:
            raise RunError("database", str(error), status=503, final=True) from error

    async def _connect(self) -> Pool:
        if self._embedded is not None and self._starts:
            # The first start takes some seconds: whoever watches should know for what.
            log.info("database-embedded", database=self.name, folder=str(self._folder))
        connection = await self.connect()
        pool = Pool(self.connect, self.settings.pool_size)
        try:
            for file in await apply_setup(connection, self.settings.setup):
                log.info("database-setup", database=self.name, file=str(file))
        finally:
            await connection.close(timeout=1.0)
        return pool

    async def connect(self) -> Connection:
        """Make a connection of its own. Raises what asyncpg raises, and RunError ``database``."""
        connection: Connection = await asyncpg.connect(
            **await self.address(),
            timeout=CONNECT_WITHIN,
            statement_cache_size=500,
            max_cached_statement_lifetime=0,
            server_settings=dict(SESSION),
        )
        teach(connection)
        return connection

    @property
    def held(self) -> Session | None:
        """The session of the transaction that is open around the present task, if any."""
        return _open.get().get(self)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Take a connection of the pool for a while. Raises RunError ``database`` where none is to be had."""
        pool = await self.open()
        try:
            connection = await pool.take(FREE_WITHIN)
        except TimeoutError:
            raise self._busy() from None
        session = Session(connection, self.catalogue)
        stopped = True
        try:
            yield session
            stopped = False
        finally:
            pool.give_back(connection, reset=session.dirty or stopped)

    def _busy(self) -> RunError:
        most = self.settings.pool_size
        return RunError(
            "database",
            f"all {most} connections to `{self.name}` are in use since {FREE_WITHIN:g} s: raise "
            f"`databases.{self.name}.poolSize`, or hold them for less long",
            status=503,
            details={"code": "53300", "message": "no connection is free"},
        )

    async def run(self, work: Callable[[Session], Awaitable[T]], *, repeatable: bool) -> T:
        """Do some work on the session of the transaction around it, else on a connection of the pool.

        Outside of a transaction, work that met a lost connection is done again on another one, where it was surely not
        done or is ``repeatable``. Raises RunError ``database``.
        """
        held = self.held
        if held is not None:
            async with held.lock:
                try:
                    return await work(held)
                except RunError:
                    raise
                except Exception as error:  # noqa: BLE001  (failure_of raises what is none of the database's)
                    cause = _told(error)
                    raise failure_of(cause, self.name) from cause
        pauses = list(PAUSES)
        while True:
            touched = False
            try:
                async with self.session() as session:
                    try:
                        return await work(session)
                    except Outdated:
                        # Again on this connection: others of the pool may still remember the tables as they were.
                        await session.connection.reload_schema_state()
                        return await work(session)
                    finally:
                        touched = session.touched
            except Exception as error:  # noqa: BLE001  (failure_of raises what is none of the database's)
                cause = _told(error)
                failure = failure_of(cause if isinstance(error, Outdated) else error, self.name)
                again = is_lost(cause) and (repeatable or not touched or ran_surely_not(cause))
                if not again or len(pauses) == 1:
                    raise failure from (None if cause is failure else cause)
                log.info("database-again", database=self.name, reason=failure.message)
                pauses.pop(0)
                await asyncio.sleep(pauses[0])
                await self._revive()

    async def _revive(self) -> None:
        """Start the embedded server again where it is that which is gone."""
        if self._embedded is not None and self._starts:
            await self.address()

    @asynccontextmanager
    async def transaction(self, isolation: str | None = None) -> AsyncIterator[None]:
        """Let everything that the present task does on this database be one transaction.

        Raises RunError ``database``.
        """
        held = self.held
        async with AsyncExitStack() as stack:
            if held is not None:
                if isolation not in (None, held.isolation):
                    message = "`isolation` belongs to the outermost `db.transaction`: this is one within another"
                    raise RunError("template", message, final=True)
                # Whoever is outside of the savepoint waits, or its rollback would undo his work too.
                await stack.enter_async_context(held.lock)
                session = held.within()
                try:
                    await stack.enter_async_context(session.transaction())
                except Exception as error:
                    held.doubtful = True
                    raise failure_of(error, self.name) from error
            else:
                session = await self._begin(stack, isolation)
            token = _open.set({**_open.get(), self: session})
            try:
                yield
            finally:
                _open.reset(token)

    async def _begin(self, stack: AsyncExitStack, isolation: str | None) -> Session:
        """Begin a transaction on a connection of the pool; on another one where that is lost."""
        for pause in PAUSES:
            if pause:
                await asyncio.sleep(pause)
            try:
                async with AsyncExitStack() as attempt:
                    session = await attempt.enter_async_context(self.session())
                    await attempt.enter_async_context(session.transaction(isolation))
                    stack.push_async_exit(attempt.pop_all())
                    return session
            except Exception as error:  # noqa: BLE001  (failure_of raises what is none of the database's)
                cause = _told(error)
                failure = failure_of(error, self.name)
                if not is_lost(cause) or pause == PAUSES[-1]:
                    raise failure from (None if cause is failure else cause)
                log.info("database-again", database=self.name, reason=failure.message)
                await self._revive()
        raise AssertionError  # the last pause raises

    async def aclose(self) -> None:
        """Close all connections, then the embedded server."""
        self._closed = True
        await self.listening.aclose()
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose(LAST)
        if self._embedded is not None:
            await self._embedded.stop()


def _told(error: Exception) -> Exception:
    """Return what asyncpg raised, be it that the error has been told already."""
    cause = error.__cause__
    return cause if isinstance(error, (RunError, Outdated)) and isinstance(cause, RAISED) else error


class Databases:
    """The databases of a project, by name; each is connected when it is first used."""

    def __init__(
        self,
        settings: Mapping[str, Settings],
        folder: Path,
        *,
        joins: bool = False,
        starts: bool = True,
    ) -> None:
        self._all = {
            name: Database(each, folder, joins=joins, starts=starts)
            for name, each in settings.items()
        }

    def __getitem__(self, name: str) -> Database:
        return self._all[name]

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def __iter__(self) -> Any:
        return iter(self._all)

    async def aclose(self) -> None:
        """Close them all."""
        for each in self._all.values():
            await each.aclose()
