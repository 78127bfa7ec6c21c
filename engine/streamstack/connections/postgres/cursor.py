"""A statement whose rows are fetched in batches, on a connection that is held meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from operator import itemgetter
from typing import Any

import asyncpg

from streamstack.connections.postgres.database import Database
from streamstack.connections.postgres.encoding import as_json
from streamstack.connections.postgres.failures import failure_of
from streamstack.connections.postgres.session import Session
from streamstack.connections.postgres.values import row_maker
from streamstack.language.sql import Statement


class Cursor:
    """The rows of a statement."""

    __slots__ = ("_cursor", "_database", "_make", "_session", "ended")

    def __init__(
        self,
        database: Database,
        session: Session,
        cursor: Any,
        make: Callable[[Any], Any],
    ) -> None:
        self._database = database
        self._session = session
        self._cursor = cursor
        self._make = make
        self.ended = False

    async def fetch(self, count: int) -> list[Any]:
        """Return the next rows; fewer than asked for, or none, is the end. Raises RunError ``database``."""
        try:
            async with self._session.lock:
                records = await self._cursor.fetch(count)
        except Exception as error:
            self._session.doubtful = True
            raise failure_of(error, self._database.name) from error
        except BaseException:
            self._session.doubtful = True
            raise
        self.ended = len(records) < count
        return list(map(self._make, records))


@asynccontextmanager
async def cursor(
    database: Database, statement: Statement, values: Sequence[Any], *, encoded: bool = False
) -> AsyncIterator[Cursor]:
    """Open a cursor on a statement, in the transaction around it or in one of its own.

    With ``encoded`` the database writes the rows as JSON, where that is as we would write it: each item is a text then.
    Raises what asyncpg raises, and RunError ``database``.
    """
    held = database.held
    async with AsyncExitStack() as stack:
        session = held if held is not None else await stack.enter_async_context(database.session())
        if held is None:
            prepared, arguments, make = await _prepared(
                session, statement, values, encoded=encoded and statement.selects
            )
            await stack.enter_async_context(session.transaction())
            opened = await prepared.cursor(*arguments)
        else:
            async with session.lock:
                with session.sending(statement):
                    form, arguments = await session.fit(statement, values)
                    make = form.make
                    opened = await session.connection.cursor(form.text, *arguments)
            stack.push_async_callback(_close, session, opened)
        yield Cursor(database, session, opened, make)


async def _prepared(
    session: Session, statement: Statement, values: Sequence[Any], *, encoded: bool
) -> tuple[Any, list[Any], Callable[[Any], Any]]:
    """Prepare a statement for its cursor; return its arguments, and what makes an item of a row.

    It is prepared anew each time, since its tables may have changed.
    """
    while True:
        with session.sending(statement):
            form, arguments = await session.fit(statement, values)
            fresh = await session.connection.prepare(form.text)
        if fresh.get_parameters() == form.types:
            break
        session.outdated(statement)
    columns = fresh.get_attributes()
    text = as_json(form.text, columns) if encoded else None
    if text is not None:
        try:
            return await session.connection.prepare(text), arguments, itemgetter(0)
        except asyncpg.PostgresError:
            pass  # such as WITH that changes rows, which can't stand within another statement
    return fresh, arguments, row_maker(columns)


async def _close(session: Session, opened: Any) -> None:
    """Close a cursor of a transaction that goes on, if it still can be."""
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        async with session.lock:
            if not session.connection.is_closed():
                await opened._close_portal(None)  # noqa: SLF001  (there is no other way)
