"""PostgreSQL by asyncpg: sessions on pooled connections, transactions, cursors, notices, setup files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from hashlib import sha256
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import structlog

from streamstack import clock
from streamstack.connections.database import ISOLATION, PAUSES, Subscription
from streamstack.connections.database.columns import describe_rows
from streamstack.connections.database.embedded import Embedded, EmbeddedError, running
from streamstack.connections.database.pool import (
    MOST_PARAMETERS,
    RAISED,
    Connection,
    Listener,
    NotSentError,
    Pool,
    database_error,
    failure_of,
    is_lost,
    is_ours,
    ran_surely_not,
)
from streamstack.connections.database.statements import Forms, Prepared, as_json, check_steps, same_columns
from streamstack.connections.database.values import register_codecs, row_maker
from streamstack.errors import Diagnostic, Mark, RunError
from streamstack.language.definition import Definition, Step
from streamstack.language.settings import Database as Settings
from streamstack.language.shapes import Shape
from streamstack.language.sql import Statement, first_words

log = structlog.get_logger("streamstack.database")

T = TypeVar("T")

#: Seconds to wait for a connection of the pool to become free, and for a new one to be made.
FREE_WITHIN: Final = 10.0
CONNECT_WITHIN: Final = 10.0
#: Seconds that connections in use have to come back when the server stops.
_CLOSE_WITHIN: Final = 2.0
#: Seconds that a rollback may take; then the connection is closed, and the server rolls back by itself.
_ROLLBACK_WITHIN: Final = 5.0
#: Prepared statements that a connection keeps, and statements whose forms a database keeps.
_MOST_PREPARED: Final = 500
_MOST_FORMS: Final = 2000
#: What every session has: times are read and written in UTC.
_SESSION: Final[Mapping[str, str]] = {"TimeZone": "UTC", "application_name": "streamstack"}
#: Bytes of a name (PostgreSQL 18, section 4.1.1).
_LONGEST_NAME: Final = 63
#: asyncpg's names of isolation levels.
_LEVELS: Final[Mapping[str, Any]] = dict(
    zip(ISOLATION, ("read_committed", "repeatable_read", "serializable"), strict=True)
)
#: Errors of a statement that was prepared for tables or types that have changed since.
_OUTDATED: Final = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.UndefinedFunctionError,
    asyncpg.DatatypeMismatchError,
    asyncpg.UndefinedObjectError,
    asyncpg.DataError,
)
#: The key of the advisory lock under which one server at a time runs setup files.
_SETUP_LOCK: Final = 0x73747265616D  # "stream"
#: What would end the transaction that a setup file is run in.
_ENDING: Final = frozenset({"commit", "rollback", "abort"})
_SETUP_TABLE: Final = """
CREATE TABLE IF NOT EXISTS streamstack_setup (
    file text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""

#: The sessions of the transactions that are open around the present task, by database.
_open: ContextVar[Mapping[PostgresDatabase, Session]] = ContextVar("transactions", default={})  # noqa: B039
_cursors: Final = count(1)


class OutdatedError(Exception):
    """A statement was refused that may have been prepared for tables as they were: its cause says what was said."""


class Session:
    """A connection in use. Branches of a run may share it in a transaction: they wait for one another."""

    __slots__ = ("_database", "_forms", "_pool", "connection", "dirty", "doubtful", "isolation", "lock", "touched")

    def __init__(
        self,
        connection: Connection,
        forms: dict[Statement, Forms],
        database: str,
        isolation: str | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.connection = connection
        self._pool = pool
        self._forms = forms  # of the database's statements, shared by its connections
        self._database = database
        self.isolation = isolation  # of the open transaction
        self.lock = asyncio.Lock()
        self.dirty = False  # a statement may have changed the session's settings
        self.touched = False  # a statement was sent
        self.doubtful = False  # a statement failed, which may have ended the transaction around it

    def release(self, *, reset: bool) -> None:
        """Give the connection back to its pool. ``reset``: a statement may have been stopped."""
        if self._pool is not None:
            self._pool.release(self.connection, reset=self.dirty or reset)

    def within(self) -> Session:
        """Return the session inside a savepoint; who is outside waits for this one's lock."""
        return Session(self.connection, self._forms, self._database, self.isolation)

    async def fit(self, statement: Statement, values: Sequence[Any]) -> tuple[Prepared, list[Any]]:
        """Return the form of a statement for some values, and its arguments."""
        if len(values) > MOST_PARAMETERS:
            reason = (
                f"the statement has {len(values)} parameters, and at most {MOST_PARAMETERS} are possible: pass a list"
                " as one, with = ANY(<<...>>) or unnest(<<...>>)"
            )
            raise database_error("54023", reason, details={"database": self._database})
        forms = self._forms.get(statement)
        if forms is None:
            if len(self._forms) >= _MOST_FORMS:
                del self._forms[next(iter(self._forms))]  # the oldest
            forms = self._forms[statement] = Forms(statement)
        fitted = await forms.fitting(self.connection, values)
        self.touched = True
        self.dirty = self.dirty or forms.changes_settings
        return fitted

    def sending(self, statement: Statement) -> _Sending:
        """Return the context to send a statement in."""
        return _Sending(self, statement, known=statement in self._forms)

    def failed(self, statement: Statement, error: BaseException, *, known: bool) -> None:
        """Record that sending a statement failed; raise OutdatedError where that may be since its tables changed."""
        self.doubtful = True
        if not isinstance(error, _OUTDATED):
            return
        # Data errors of the server have classes of their own.
        refused = isinstance(error, asyncpg.DataError) and not is_ours(error)
        if isinstance(error, asyncpg.InvalidCachedStatementError) or (known and not refused):
            self._forms.pop(statement, None)
            self.connection.statements.clear()
            raise OutdatedError from error

    async def _prepared(
        self, statement: Statement, values: Sequence[Any], *, limit: bool
    ) -> tuple[Any, Callable[[Any], Any], list[Any]]:
        """Return the connection's prepared statement, what makes a row of its records, and its arguments.

        With ``limit`` its last parameter is the number of rows.
        """
        statements = self.connection.statements
        while True:
            form, arguments = await self.fit(statement, values)
            text = form.limited if limit else form.text
            found = statements.pop(text, None)
            if found is not None:
                statements[text] = found  # the last is the one used last
                return *found, arguments
            prepared = await self.connection.parse(text)
            if prepared.get_parameters()[: len(form.types)] == form.types:
                break
            self._forms.pop(statement, None)
        columns = prepared.get_attributes()
        found = prepared, form.make if same_columns(columns, form.columns) else row_maker(columns)
        if prepared.get_name():  # behind a transaction pooler statements have none, and can't be stored
            if len(statements) >= _MOST_PREPARED:
                del statements[next(iter(statements))]
            statements[text] = found
        return *found, arguments

    async def rows(self, statement: Statement, values: Sequence[Any], limit: int = 0) -> list[dict[str, Any]]:
        """Run a statement and return its rows, at most ``limit`` of them where the server can stop there (0: all)."""
        stops = limit > 1 and statement.selects and statement.first != "show"
        with self.sending(statement):
            prepared, make, arguments = await self._prepared(statement, values, limit=stops)
            if limit == 1:
                record = await prepared.fetchrow(*arguments)
                return [] if record is None else [make(record)]
            records = await prepared.fetch(*arguments, *([limit] if stops else ()))
            return list(map(make, records))

    async def count(self, statement: Statement, values: Sequence[Any]) -> int:
        """Run a statement and return how many rows it changed, or returned."""
        with self.sending(statement):
            form, arguments = await self.fit(statement, values)
            status = await self.connection.execute(form.text, *arguments)
        last = status.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0

    async def cursor(
        self, statement: Statement, values: Sequence[Any], *, encoded: bool
    ) -> tuple[Any, Callable[[Any], Any]]:
        """Prepare a statement for a cursor; return what opens it, and what makes an item of a row.

        It is prepared each time, since its tables may have changed.
        """
        connection = self.connection
        while True:
            with self.sending(statement):
                form, arguments = await self.fit(statement, values)
                fresh = await connection.parse(form.text)
            if fresh.get_parameters() == form.types:
                break
            self._forms.pop(statement, None)
        columns = fresh.get_attributes()
        text = as_json(form.text, columns) if encoded and statement.selects else None
        if text is not None:
            # A statement that can't stand within another one, such as WITH that changes rows, is refused.
            with suppress(asyncpg.PostgresError), clock.outside():
                prepared = await connection.parse(text)
                return lambda: prepared.cursor(*arguments), itemgetter(0)
        return lambda: fresh.cursor(*arguments), row_maker(columns)

    @asynccontextmanager
    async def transaction(self, isolation: str | None = None) -> AsyncIterator[None]:
        """Open a transaction, or a savepoint within one; only an error rolls it back.

        Raises what asyncpg raises where it can't begin, RunError ``database`` where it can't be committed.
        """
        level = None if isolation is None else _LEVELS[isolation]
        opened = self.connection.transaction(isolation=level)
        async with self.lock:
            with clock.outside():
                await opened.start()
        self.isolation = isolation or self.isolation
        self.doubtful = False
        try:
            yield
        except BaseException:
            await self._rollback(opened)
            raise
        if self.doubtful and await self._has_ended():
            await self._rollback(opened)
            raise database_error(
                "25P02",
                "an error that was caught within the transaction has ended it, so nothing of it is kept: put what may "
                "fail into a `db.transaction` of its own, inside the `try`",
                final=True,
            )
        async with self.lock:
            if self.connection.is_closed():
                reason = "the connection was lost in the transaction, and with it all it wrote"
                raise database_error("08006", reason)
            try:
                with clock.outside():
                    await opened.commit()
            except Exception as error:
                if is_lost(error) and not ran_surely_not(error):
                    reason = "the connection was lost during the commit: whether it was done is unknown"
                    raise database_error("08007", reason, final=True) from error
                raise failure_of(error, self._database) from error

    async def _rollback(self, opened: Any) -> None:
        """Roll back. A connection on which that fails is closed, which is a rollback too."""
        async with self.lock:
            if self.connection.is_closed():
                return
            try:
                async with asyncio.timeout(_ROLLBACK_WITHIN):
                    with clock.outside():
                        await opened.rollback()
            except Exception:  # noqa: BLE001  (the error that led here is the one to be told)
                self.connection.terminate()

    async def _has_ended(self) -> bool:
        """Return whether an error has ended the transaction, which COMMIT would not tell."""
        async with self.lock:
            if self.connection.is_closed():
                return False
            try:
                with clock.outside():
                    await self.connection.execute("SELECT 1")
            except asyncpg.InFailedSQLTransactionError:
                return True
            except Exception:  # noqa: BLE001  (the commit tells it)
                return False
        return False


class _Sending:
    """Sends a statement on a session. A class, since each statement has one, and generators cost three times as much.

    Raises OutdatedError for what may be refused only since the statement was prepared for tables as they were.
    """

    __slots__ = ("_known", "_outside", "_session", "_statement")

    def __init__(self, session: Session, statement: Statement, *, known: bool) -> None:
        self._session = session
        self._statement = statement
        self._known = known
        self._outside = clock.outside()

    def __enter__(self) -> None:
        if self._session.connection.is_closed():
            raise NotSentError("the connection was closed")
        self._outside.__enter__()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._outside.__exit__(None, None, None)
        if error is not None:
            self._session.failed(self._statement, error, known=self._known)


class PostgresCursor:
    """The rows of a statement, fetched in batches."""

    __slots__ = ("_cursor", "_database", "_make", "_session", "ended")

    def __init__(self, database: str, session: Session, cursor: Any, make: Callable[[Any], Any]) -> None:
        self._database = database
        self._session = session
        self._cursor = cursor
        self._make = make
        self.ended = False

    async def fetch(self, count: int) -> list[Any]:
        """Return the next rows; fewer than asked for, or none, is the end. Raises RunError ``database``."""
        try:
            async with self._session.lock:
                if self._session.connection.is_closed():
                    raise NotSentError("the connection was closed")
                with clock.outside():
                    records = await self._cursor.fetch(count)
        except Exception as error:
            self._session.doubtful = True
            raise failure_of(error, self._database) from error
        except BaseException:
            self._session.doubtful = True
            raise
        self.ended = len(records) < count
        return list(map(self._make, records))


class PostgresDatabase:
    """One PostgreSQL database of the project: its pool, opened when first needed; the embedded server behind it."""

    def __init__(self, settings: Settings, folder: Path, *, joins: bool = False, starts: bool = True) -> None:
        self.settings = settings
        self._folder = folder
        self._joins = joins
        self._starts = starts
        self._forms: dict[Statement, Forms] = {}
        self._embedded = Embedded(folder, bin_folder=settings.bin) if settings.url is None else None
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._listener = Listener(self.connect, settings.name)

    @property
    def name(self) -> str:
        """The name that definitions use."""
        return self.settings.name

    # ----------------------------------------------------------------------------- connecting

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
                    self._pool = await self._open()
                except (*RAISED, TimeoutError) as error:
                    raise failure_of(error, self.name) from error
        return self._pool

    async def _open(self) -> Pool:
        if self._embedded is not None and self._starts:
            # The first start takes some seconds: the log should say for what.
            log.info("database-embedded", database=self.name, folder=str(self._folder))
        await self._set_up()
        return Pool(self.connect, self.settings.pool_size, resets=not self.settings.pooled)

    @property
    def is_open(self) -> bool:
        return self._pool is not None

    async def set_up(self) -> None:
        try:
            await self._set_up()
        except (*RAISED, TimeoutError) as error:
            raise failure_of(error, self.name) from error

    async def _set_up(self) -> None:
        connection = await self.connect()
        with clock.outside():
            try:
                for file in await apply_setup(connection, self.settings.setup):
                    log.info("database-setup", database=self.name, file=str(file))
            finally:
                await connection.close(timeout=1.0)

    async def address(self) -> Mapping[str, Any]:
        """Return the arguments of asyncpg's `connect`; the embedded server is started."""
        if self._embedded is None:
            return {"dsn": self.settings.url}
        if self._joins and (other := await running(self._folder)) is not None:
            return other
        if not self._starts:
            # The process that runs it notices, too, and starts it again.
            raise ConnectionRefusedError("the embedded PostgreSQL is not running")
        try:
            return await self._embedded.start()
        except EmbeddedError as error:
            details = {"code": "08001", "message": str(error)}
            raise RunError("database", "the database can't start", status=503, details=details, final=True) from error

    async def connect(self) -> Connection:
        """Make a connection. Raises what asyncpg raises, and RunError ``database``."""
        return await self.connect_to(await self.address())

    async def connect_to(self, address: Mapping[str, Any]) -> Connection:
        """Make a connection with some arguments of asyncpg's `connect`. Raises what asyncpg raises."""
        with clock.outside():
            connection: Connection = await asyncpg.connect(
                **address,
                connection_class=Connection,
                timeout=CONNECT_WITHIN,
                # `Session` keeps statements. 0 makes asyncpg use unnamed ones, which transaction poolers need.
                statement_cache_size=0 if self.settings.pooled else 100,
                max_cached_statement_lifetime=0,
                server_settings=dict(_SESSION),
            )
            connection.pooled = self.settings.pooled
            connection.statements = {}
            await register_codecs(connection)
        return connection

    async def check(self, uses: Iterable[tuple[Definition, Step]]) -> list[Diagnostic]:
        """Return what steps name that the database does not have.

        Setup files that are new are run for the checks, and rolled back. Raises RunError ``database`` where it can't be
        reached, or a setup file fails.
        """
        async with self._trial() as connection:
            return await check_steps(connection, self.name, uses)

    async def describe(self, uses: Iterable[tuple[Definition, Step]]) -> dict[Mark, Shape]:
        """Return the shapes of the rows of steps, by the place of their functions. As `check`."""
        async with self._trial() as connection:
            return await describe_rows(connection, (step for _, step in uses))

    @asynccontextmanager
    async def _trial(self) -> AsyncIterator[Connection]:
        """Yield a connection on which setup files that are new were run; what is done on it is rolled back."""
        try:
            connection = await self.connect()
            try:
                opened = connection.transaction()
                await opened.start()
                await apply_setup(connection, self.settings.setup)
                yield connection
                await opened.rollback()
            finally:
                await connection.close(timeout=1.0)
        except Exception as error:
            raise failure_of(error, self.name) from error

    async def aclose(self) -> None:
        """Close all connections, then the embedded server."""
        self._closed = True
        await self._listener.aclose()
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose(_CLOSE_WITHIN)
        if self._embedded is not None:
            await self._embedded.stop()

    # ----------------------------------------------------------------------------- statements

    @property
    def _held(self) -> Session | None:
        """The session of the transaction that is open around the present task, if any."""
        return _open.get().get(self)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open around the present task."""
        return self._held is not None

    async def rows(self, statement: Statement, values: Sequence[Any], limit: int = 0) -> list[dict[str, Any]]:
        """Run a statement and return its rows. Raises RunError ``database``."""
        return await self._run(lambda session: session.rows(statement, values, limit), repeatable=statement.reads_only)

    async def count(self, statement: Statement, values: Sequence[Any]) -> int:
        """Run a statement and return how many rows it changed. Raises RunError ``database``."""
        return await self._run(lambda session: session.count(statement, values), repeatable=False)

    async def _acquire(self) -> Session:
        """Take a connection of the pool. Raises RunError ``database`` where none is to be had."""
        pool = self._pool or await self.open()
        try:
            connection = await pool.acquire(FREE_WITHIN)
        except TimeoutError:
            reason = (
                f"all {self.settings.pool_size} connections to `{self.name}` are in use since {FREE_WITHIN:g} s: raise"
                f" `databases.{self.name}.poolSize`, or hold them for less long"
            )
            details = {"code": "53300", "message": reason}
            raise RunError(
                "database", "all connections to the database are busy", status=503, details=details
            ) from None
        return Session(connection, self._forms, self.name, pool=pool)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Take a connection of the pool for a while. Raises RunError ``database`` where none is to be had."""
        session = await self._acquire()
        stopped = True
        try:
            yield session
            stopped = False
        finally:
            session.release(reset=stopped)

    async def _run(self, work: Callable[[Session], Awaitable[T]], *, repeatable: bool) -> T:
        """Do some work on the session of the transaction around it, else on a connection of the pool.

        Outside of a transaction, work that met a lost connection is repeated on another one, where it was surely not
        done or is ``repeatable``. Raises RunError ``database``.
        """
        held = self._held
        if held is not None:
            async with held.lock:
                try:
                    return await work(held)
                except RunError:
                    raise
                except Exception as error:  # noqa: BLE001  (failure_of raises what is none of the database's)
                    cause = _cause_of(error)
                    raise failure_of(cause, self.name) from cause
        for tries in count(1):
            session = None
            stopped = True
            try:
                session = await self._acquire()
                try:
                    made = await work(session)
                except OutdatedError:
                    # On this connection: others of the pool may still remember the tables as they were.
                    with clock.outside():
                        await session.connection.reload_schema_state()
                    made = await work(session)
                stopped = False
            except Exception as error:  # noqa: BLE001  (failure_of raises what is none of the database's)
                cause = _cause_of(error)
                failure = failure_of(cause if isinstance(error, OutdatedError) else error, self.name)
                touched = session is not None and session.touched
                again = is_lost(cause) and (repeatable or not touched or ran_surely_not(cause))
                if not again or tries == len(PAUSES):
                    raise failure from (None if cause is failure else cause)
                log.info("database-again", database=self.name, reason=str(cause))
            else:
                return made
            finally:
                if session is not None:
                    session.release(reset=stopped)
            await asyncio.sleep(PAUSES[tries])
            await self._revive()
        raise AssertionError  # the last try raises

    async def _revive(self) -> None:
        """Start the embedded server again where it is that which is gone."""
        if self._embedded is not None and self._starts:
            await self.address()

    @asynccontextmanager
    async def transaction(self, isolation: str | None = None) -> AsyncIterator[None]:
        """Run all that the present task does on this database in one transaction. Raises RunError ``database``."""
        held = self._held
        async with AsyncExitStack() as stack:
            if held is not None:
                if isolation not in (None, held.isolation):
                    message = "`isolation` belongs to the outermost `db.transaction`: this is one within another"
                    raise RunError("template", message, final=True)
                # Work outside of the savepoint waits, or its rollback would undo that too.
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
                cause = _cause_of(error)
                failure = failure_of(error, self.name)
                if not is_lost(cause) or pause == PAUSES[-1]:
                    raise failure from (None if cause is failure else cause)
                log.info("database-again", database=self.name, reason=str(cause))
                await self._revive()
        raise AssertionError  # the last pause raises

    # -------------------------------------------------------------------------------- cursors

    @asynccontextmanager
    async def cursor(
        self, statement: Statement, values: Sequence[Any], *, encoded: bool = False
    ) -> AsyncIterator[PostgresCursor]:
        """Open a cursor on a statement, in the transaction around it or in one of its own.

        Args:
            encoded: Let the database write the rows as JSON texts, where they read as ours do.

        Raises:
            RunError: ``database``.
        """
        held = self._held
        try:
            async with AsyncExitStack() as stack:
                session = held if held is not None else await stack.enter_async_context(self.session())
                if held is None:
                    opens, make = await session.cursor(statement, values, encoded=encoded)
                    await stack.enter_async_context(session.transaction())
                    with clock.outside():
                        opened = await opens()
                else:
                    async with session.lock:
                        with session.sending(statement):
                            form, arguments = await session.fit(statement, values)
                            # The number tells its cursor from others of the same statement.
                            text = f"{form.text}\n-- {next(_cursors)}"
                            prepared = await session.connection.parse(text)
                            opened, make = await prepared.cursor(*arguments), form.make
                    stack.push_async_callback(_close_cursor, session, text)
                yield PostgresCursor(self.name, session, opened, make)
        except (OutdatedError, *RAISED) as error:
            raise failure_of(_cause_of(error), self.name) from error

    def may_retry(self, error: Exception, statement: Statement) -> bool:
        """Return whether a cursor that failed before its first row may be opened again."""
        cause = error.__cause__ or error
        return isinstance(cause, OutdatedError) or (is_lost(cause) and statement.reads_only)

    # -------------------------------------------------------------------------------- notices

    async def subscribe(self, channel: str) -> Subscription:
        """Start to listen to a channel. Raises RunError ``database``."""
        if self.settings.pooled:
            reason = (
                "behind a transaction pooler no connection is one's own, so nothing can be listened to:"
                " give `db.listen` a database whose `url` leads past the pooler"
            )
            raise database_error("0A000", reason, details={"database": self.name}, final=True)
        if not channel or "\0" in channel or len(channel.encode()) > _LONGEST_NAME:
            reason = f"the name of a channel has 1 to {_LONGEST_NAME} bytes, none of them zero"
            raise database_error("22023", reason, details={"database": self.name}, final=True)
        return await self._listener.subscribe(channel)

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening."""
        await self._listener.unsubscribe(subscription)


def _cause_of(error: Exception) -> Exception:
    """Return what asyncpg raised, also behind an error that says it in our words."""
    cause = error.__cause__
    ours = isinstance(error, (RunError, OutdatedError))
    return cause if ours and isinstance(cause, RAISED) else error


async def _close_cursor(session: Session, text: str) -> None:
    """Close the cursor of a statement, in a transaction that goes on, where it is still open."""
    with suppress(*RAISED):
        async with session.lock:
            if session.connection.is_closed():
                return
            with clock.outside():
                for row in await session.connection.fetch("SELECT name FROM pg_cursors WHERE statement = $1", text):
                    quoted = row["name"].replace('"', '""')
                    await session.connection.execute(f'CLOSE "{quoted}"')


# ---------------------------------------------------------------------------------- setup files


async def apply_setup(connection: Connection, files: Iterable[Path]) -> list[Path]:
    """Run the files whose content the database has not seen yet, each in a transaction; return them.

    What was run is recorded in the table `streamstack_setup`, by the file's name. Raises RunError ``database`` with the
    line of the file where PostgreSQL refuses it.
    """
    applied: list[Path] = []
    for file in files:
        text = await asyncio.to_thread(file.read_text, "utf-8")
        digest = sha256(text.encode()).hexdigest()
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _SETUP_LOCK)
            await connection.execute(_SETUP_TABLE)
            seen = await connection.fetchval("SELECT sha256 FROM streamstack_setup WHERE file = $1", file.name)
            if seen == digest:
                continue
            await _apply(connection, file, text)
            await connection.execute(
                "INSERT INTO streamstack_setup (file, sha256) VALUES ($1, $2) "
                "ON CONFLICT (file) DO UPDATE SET sha256 = excluded.sha256, applied_at = now()",
                file.name,
                digest,
            )
        applied.append(file)
    return applied


async def _apply(connection: Connection, file: Path, text: str) -> None:
    for keyword, start in first_words(text):
        if keyword in _ENDING:
            line = text.count("\n", 0, start) + 1
            reason = f"{file}:{line}: {keyword.upper()} in a setup file, which is run in one transaction: remove it"
            raise RunError("database", reason, final=True)
    try:
        await connection.execute(text)
    except asyncpg.PostgresError as error:
        position = getattr(error, "position", None)
        line = text.count("\n", 0, int(position) - 1) + 1 if position else 1
        raise RunError(
            "database",
            f"{file}:{line}: {error.message or error} ({error.sqlstate})",
            details={"code": error.sqlstate},
            final=True,
        ) from error
