"""One connection while somebody uses it: statements, cursors, transactions on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from streamstack.connections.postgres.encoding import as_json
from streamstack.connections.postgres.pool import Connection
from streamstack.connections.postgres.prepared import Forms, Prepared
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


class Catalogue:
    """The forms of a database's statements, shared by its connections."""

    def __init__(self) -> None:
        self._forms: dict[Statement, Forms] = {}
        #: The statements that give the rows of others as JSON, by the text of those; None where there is none.
        self.encoded: dict[str, str | None] = {}

    def forms(self, statement: Statement) -> Forms:
        """Return the forms of a statement."""
        found = self._forms.get(statement)
        if found is None:
            if len(self._forms) >= _KEPT:
                del self._forms[next(iter(self._forms))]  # the oldest
            found = self._forms[statement] = Forms(statement)
        return found

    def forget(self, statement: Statement) -> None:
        """Forget the forms of a statement, whose tables have changed."""
        self._forms.pop(statement, None)
        self.encoded.clear()


class Session:
    """A connection in use. Several branches of a run may share it in a transaction: they wait for one another."""

    __slots__ = ("_catalogue", "connection", "dirty", "lock", "touched")

    def __init__(self, connection: Connection, catalogue: Catalogue) -> None:
        self.connection = connection
        self._catalogue = catalogue
        self.lock = asyncio.Lock()
        self.dirty = False  # a statement may have changed the session's settings
        self.touched = False  # a statement was sent

    async def fit(self, statement: Statement, values: Sequence[Any]) -> tuple[Prepared, list[Any]]:
        """Return the form of a statement for some values, and its arguments."""
        fitted = await self._catalogue.forms(statement).fitting(self.connection, values)
        self.touched = True
        if not statement.reads_only and first_word(statement.pieces[0]) not in _CLEAN:
            self.dirty = True
        return fitted

    async def rows(
        self, statement: Statement, values: Sequence[Any], limit: int = 0
    ) -> list[dict[str, Any]]:
        """Run a statement and return its rows, at most ``limit`` of them (0: all)."""
        form, arguments = await self.fit(statement, values)
        try:
            # What asyncpg's own fetchrow does with a limit of one: the server stops there.
            records = await self.connection._execute(form.text, arguments, limit, None)  # noqa: SLF001
        except (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError):
            self._catalogue.forget(statement)
            raise
        return list(map(form.make, records))

    async def encoded(self, form: Prepared) -> str | None:
        """Return the statement that gives the rows of another as JSON; None where we would write them otherwise."""
        known = self._catalogue.encoded
        if form.text not in known:
            text = as_json(form.text, form.columns)
            if text is not None:
                try:
                    await self.connection.prepare(text)
                except asyncpg.PostgresError:
                    text = None  # such as WITH that changes rows, which can't stand within another statement
            if len(known) >= _KEPT:
                known.clear()
            known[form.text] = text
        return known[form.text]

    async def count(self, statement: Statement, values: Sequence[Any]) -> int:
        """Run a statement and return how many rows it changed, or gave."""
        form, arguments = await self.fit(statement, values)
        status = await self.connection.execute(form.text, *arguments)
        last = status.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0
