"""One connection while somebody uses it: statements, cursors, transactions on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import asyncpg

from streamstack.connections.postgres.failures import failure_of, is_lost, is_ours, ran_surely_not
from streamstack.connections.postgres.pool import Connection
from streamstack.connections.postgres.prepared import Forms, Prepared, same_columns
from streamstack.connections.postgres.values import row_maker
from streamstack.errors import RunError
from streamstack.language.sql import Statement, first_word

#: Statements whose forms are kept, for a database.
_KEPT: Final = 2000
#: Statements that leave the session as it was.
_CLEAN: Final = frozenset(
    {
        "select",
        "insert",
        "update",
        "delete",
        "merge",
        "values",
        "with",
        "table",
        "explain",
        "notify",
    }
)

#: Words of statements that leave something in the session all the same.
_LEAVING: Final = frozenset(
    {
        "set_config",
        "temp",
        "temporary",
        "pg_advisory_lock",
        "pg_advisory_lock_shared",
        "pg_try_advisory_lock",
        "pg_try_advisory_lock_shared",
    }
)
#: What says that a statement was prepared for tables or types that have changed since.
_OUTDATED: Final = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.UndefinedFunctionError,
    asyncpg.DatatypeMismatchError,
    asyncpg.UndefinedObjectError,
    asyncpg.DataError,
)
#: Seconds that a rollback may take; then the connection is given up, and the server rolls back by itself.
_ROLLBACK_WITHIN: Final = 5.0

ISOLATION: Final[Mapping[str, Any]] = {
    "readCommitted": "read_committed",
    "repeatableRead": "repeatable_read",
    "serializable": "serializable",
}


class Catalogue:
    """The forms of a database's statements, shared by its connections."""

    def __init__(self, name: str) -> None:
        self.name = name  # of the database, for messages
        self._forms: dict[Statement, Forms] = {}

    def forms(self, statement: Statement) -> Forms:
        """Return the forms of a statement."""
        found = self._forms.get(statement)
        if found is None:
            if len(self._forms) >= _KEPT:
                del self._forms[next(iter(self._forms))]  # the oldest
            found = self._forms[statement] = Forms(statement)
        return found

    def knows(self, statement: Statement) -> bool:
        """Whether a statement was prepared before."""
        return statement in self._forms

    def forget(self, statement: Statement) -> None:
        """Forget the forms of a statement, whose tables have changed."""
        self._forms.pop(statement, None)


class Outdated(Exception):  # noqa: N818  (asks for the statement to be sent again; never seen outside)
    """A statement was refused that may have been prepared for tables as they were: its cause says what was said."""


class Session:
    """A connection in use. Several branches of a run may share it in a transaction: they wait for one another."""

    __slots__ = ("_catalogue", "connection", "dirty", "doubtful", "isolation", "lock", "touched")

    def __init__(
        self, connection: Connection, catalogue: Catalogue, isolation: str | None = None
    ) -> None:
        self.connection = connection
        self._catalogue = catalogue
        self.isolation = isolation  # of the transaction that is open
        self.lock = asyncio.Lock()
        self.dirty = False  # a statement may have changed the session's settings
        self.touched = False  # a statement was sent
        self.doubtful = False  # a statement failed, which may have ended the transaction around it

    def within(self) -> Session:
        """Return the session for what is inside a savepoint; who is outside waits for this one's lock."""
        return Session(self.connection, self._catalogue, self.isolation)

    async def fit(self, statement: Statement, values: Sequence[Any]) -> tuple[Prepared, list[Any]]:
        """Return the form of a statement for some values, and its arguments."""
        fitted = await self._catalogue.forms(statement).fitting(self.connection, values)
        self.touched = True
        if first_word(statement.pieces[0]) not in _CLEAN or statement.words & _LEAVING:
            self.dirty = True
        return fitted

    def outdated(self, statement: Statement) -> None:
        """Forget what is known of a statement, since its tables have changed."""
        self._catalogue.forget(statement)

    @contextmanager
    def sending(self, statement: Statement) -> Iterator[None]:
        """Send a statement in this context.

        Raises Outdated for what may be refused only since the statement was prepared for tables as they were.
        """
        known = self._catalogue.knows(statement)
        try:
            yield
        except _OUTDATED as error:
            self.doubtful = True
            # Those that the server refuses are DataErrors of a class of their own.
            if not known or (isinstance(error, asyncpg.DataError) and not is_ours(error)):
                raise
            self._catalogue.forget(statement)
            raise Outdated from error
        except BaseException:
            self.doubtful = True
            raise

    async def rows(
        self, statement: Statement, values: Sequence[Any], limit: int = 0
    ) -> list[dict[str, Any]]:
        """Run a statement and return its rows, at most ``limit`` of them (0: all)."""
        with self.sending(statement):
            form, arguments = await self.fit(statement, values)
            connection = self.connection
            # What asyncpg's own fetchrow does with a limit of one: the server stops there. It also tells the statement
            # that was run: asyncpg prepares it anew by itself where the tables have changed.
            with connection._stmt_exclusive_section:  # noqa: SLF001
                records, ran = await connection._Connection__execute(  # noqa: SLF001
                    form.text, arguments, limit, None
                )
        if ran.name and ran.name in form.known:
            return list(map(form.make, records))
        columns = ran._get_attributes()  # noqa: SLF001
        if same_columns(columns, form.columns):
            form.known.add(ran.name)
            return list(map(form.make, records))
        self._catalogue.forget(statement)
        return list(map(row_maker(columns), records))

    async def count(self, statement: Statement, values: Sequence[Any]) -> int:
        """Run a statement and return how many rows it changed, or gave."""
        with self.sending(statement):
            form, arguments = await self.fit(statement, values)
            status = await self.connection.execute(form.text, *arguments)
        last = status.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0

    @asynccontextmanager
    async def transaction(self, isolation: str | None = None) -> AsyncIterator[None]:
        """Open a transaction, or a savepoint within one; it is rolled back by an error only.

        Raises what asyncpg raises where it can't begin, RunError ``database`` where it can't be committed.
        """
        level = None if isolation is None else ISOLATION[isolation]
        opened = self.connection.transaction(isolation=level)
        async with self.lock:
            await opened.start()
        self.isolation = isolation or self.isolation
        self.doubtful = False
        try:
            yield
        except BaseException:
            await self._undo(opened)
            raise
        if self.doubtful and await self._ended():
            await self._undo(opened)
            raise RunError(
                "database",
                "an error that was caught within the transaction has ended it, so nothing of it is kept: put what may "
                "fail into a `db.transaction` of its own, inside the `try`",
                details={"code": "25P02", "message": "the transaction was ended by an error"},
                final=True,
            )
        async with self.lock:
            if self.connection.is_closed():
                raise RunError(
                    "database",
                    "the connection was lost in the transaction, and with it all it wrote",
                    status=503,
                    details={"code": "08006", "message": "connection lost"},
                )
            try:
                await opened.commit()
            except Exception as error:
                if is_lost(error) and not ran_surely_not(error):
                    raise RunError(
                        "database",
                        "the connection was lost while the transaction was committed: whether it was is not known",
                        status=503,
                        details={"code": "08007", "message": str(error)},
                        final=True,
                    ) from error
                raise failure_of(error, self._catalogue.name) from error

    async def _undo(self, opened: Any) -> None:
        """Roll back. A connection on which that fails is closed, which is a rollback too."""
        async with self.lock:
            if self.connection.is_closed():
                return
            try:
                async with asyncio.timeout(_ROLLBACK_WITHIN):
                    await opened.rollback()
            except Exception:  # noqa: BLE001  (the error that led here is the one to be told)
                self.connection.terminate()

    async def _ended(self) -> bool:
        """Whether an error has ended the transaction: PostgreSQL answers COMMIT without a complaint even then."""
        async with self.lock:
            if self.connection.is_closed():
                return False
            try:
                await self.connection.execute("SELECT 1")
            except asyncpg.InFailedSQLTransactionError:
                return True
            except Exception:  # noqa: BLE001  (the commit tells it)
                return False
        return False
