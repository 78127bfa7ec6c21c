"""A statement whose rows are fetched in batches, on a connection that is held meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from operator import itemgetter
from typing import Any

from streamstack.connections.postgres.database import Database
from streamstack.connections.postgres.failures import failure_of
from streamstack.connections.postgres.session import Session
from streamstack.language.sql import Statement


class Cursor:
    """The rows of a statement. ``shared``: its connection is that of a transaction around it."""

    __slots__ = ("_cursor", "_database", "_make", "_session", "ended", "shared")

    def __init__(
        self,
        database: Database,
        session: Session,
        cursor: Any,
        make: Callable[[Any], Any],
        *,
        shared: bool,
    ) -> None:
        self._database = database
        self._session = session
        self._cursor = cursor
        self._make = make
        self.shared = shared
        self.ended = False

    async def fetch(self, count: int) -> list[Any]:
        """Return the next rows; fewer than asked for, or none, is the end. Raises RunError ``database``."""
        try:
            async with self._session.lock:
                records = await self._cursor.fetch(count)
        except Exception as error:
            raise failure_of(error, self._database.name) from error
        self.ended = len(records) < count
        return list(map(self._make, records))


@asynccontextmanager
async def cursor(
    database: Database, statement: Statement, values: Sequence[Any], *, encoded: bool = False
) -> AsyncIterator[Cursor]:
    """Open a cursor on a statement, in the transaction around it or in one of its own.

    With ``encoded`` the database writes the rows as JSON, where that is as we would write it: they are texts then.
    Raises what asyncpg raises, and RunError ``database``.
    """
    held = database.held
    async with AsyncExitStack() as stack:
        session = held if held is not None else await stack.enter_async_context(database.session())
        async with session.lock:
            form, arguments = await session.fit(statement, values)
            text = None
            if encoded and held is None and statement.reads_only:
                text = await session.encoded(form)
        if held is None:
            await stack.enter_async_context(session.connection.transaction())
        async with session.lock:
            opened = await session.connection.cursor(text or form.text, *arguments)
        make: Callable[[Any], Any] = form.make if text is None else itemgetter(0)
        yield Cursor(database, session, opened, make, shared=held is not None)
