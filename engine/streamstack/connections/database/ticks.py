"""Claims of a task's ticks in a database: each is a row, written in the transaction of the task's own changes.

A tick is announced by the first server that finds it due. The run then locks the row, makes its changes and marks the
row as done, all in one transaction. If the server dies, PostgreSQL rolls all of it back and the row is announced and
not done, so another server takes the tick over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from streamstack.connections.database import Database
from streamstack.language.sql import Statement, statement_of

#: The key of the advisory lock under which one server at a time creates the table.
_LOCK: Final = statement_of(("SELECT pg_advisory_xact_lock(127978942524771)",))
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS streamstack_ticks (
    task text,
    tick timestamptz,
    announced timestamptz NOT NULL DEFAULT now(),
    done timestamptz,
    outcome text,
    PRIMARY KEY (task, tick)
)
"""
_INDEX: Final = "CREATE INDEX IF NOT EXISTS streamstack_ticks_open ON streamstack_ticks (task, tick) WHERE done IS NULL"
_CREATE: Final = (statement_of((_TABLE,)), statement_of((_INDEX,)))


def _statement(text: str) -> Statement:
    """Return the statement of a text with `?` for parameters."""
    return statement_of(tuple(text.split("?")))


_ANNOUNCE: Final = _statement(
    "INSERT INTO streamstack_ticks (task, tick) VALUES (?, ?) ON CONFLICT (task, tick) DO NOTHING"
)
#: Ticks that no run has locked, a while after they were announced.
_OPEN: Final = _statement("""
SELECT task, tick FROM streamstack_ticks
WHERE done IS NULL AND task = ANY(?)
AND announced < now() - interval '2 seconds' AND announced > now() - interval '1 day'
ORDER BY tick LIMIT 20 FOR UPDATE SKIP LOCKED
""")
_LATEST: Final = _statement("SELECT max(tick) AS tick FROM streamstack_ticks WHERE task = ?")
_TAKE: Final = _statement("""
SELECT 1 AS found FROM streamstack_ticks WHERE task = ? AND tick = ? AND done IS NULL FOR UPDATE SKIP LOCKED
""")
#: Whether no other tick of the task is being run; until the end of the transaction none will be.
_ALONE: Final = _statement("SELECT pg_try_advisory_xact_lock(hashtextextended('streamstack task ' || ?, 0)) AS alone")
_DONE: Final = _statement(
    "UPDATE streamstack_ticks SET done = clock_timestamp(), outcome = ? WHERE task = ? AND tick = ?"
)
#: The last tick of a task stays, since it tells which ones were missed.
_PRUNE: Final = _statement("""
DELETE FROM streamstack_ticks t WHERE done < now() - interval '1 day' AND task = ANY(?)
AND EXISTS (SELECT FROM streamstack_ticks n WHERE n.task = t.task AND n.tick > t.tick)
""")


@dataclass(slots=True)
class TakenTick:
    """A tick in the transaction of its run. ``alone``: no other tick of the task is being run."""

    alone: bool
    outcome: str = "completed"
    done: bool = True  # whether it counts as done at the end; else it is run later


class TickTable:
    """The ticks of tasks in one database. ``prefix`` keeps projects apart that share it. All raise RunError."""

    def __init__(self, database: Database, prefix: str = "") -> None:
        self._database = database
        self._prefix = prefix
        self._created = False

    def _name(self, task: str) -> str:
        return f"{self._prefix}{task}"

    async def create(self) -> None:
        """Create the table, where it does not exist."""
        if self._created:
            return
        async with self._database.transaction():
            await self._database.rows(_LOCK, [])
            for statement in _CREATE:
                await self._database.count(statement, [])
        self._created = True

    async def announce(self, task: str, tick: datetime) -> bool:
        """Announce a tick. Return whether this was the first to do so."""
        await self.create()
        return await self._database.count(_ANNOUNCE, [self._name(task), tick]) == 1

    async def unfinished(self, tasks: Sequence[str]) -> list[tuple[str, datetime]]:
        """Return ticks of some tasks that were announced, and that no run has locked."""
        await self.create()
        rows = await self._database.rows(_OPEN, [[self._name(each) for each in tasks]])
        return [(row["task"].removeprefix(self._prefix), row["tick"]) for row in rows]

    async def latest(self, task: str) -> datetime | None:
        """Return the latest tick of a task that was announced; None where there is none."""
        await self.create()
        rows = await self._database.rows(_LATEST, [self._name(task)])
        found: datetime | None = rows[0]["tick"]
        return found

    async def prune(self, tasks: Sequence[str]) -> None:
        """Delete ticks that were done more than a day ago."""
        await self._database.count(_PRUNE, [[self._name(each) for each in tasks]])

    @asynccontextmanager
    async def take(self, task: str, tick: datetime) -> AsyncIterator[TakenTick | None]:
        """Open the transaction of a tick's run; it is done when that is committed.

        Yields None where another server is at work on the tick, or has done it.
        """
        name, database = self._name(task), self._database
        async with database.transaction():
            if not await database.rows(_TAKE, [name, tick]):
                yield None
                return
            alone = (await database.rows(_ALONE, [name]))[0]["alone"]
            taken = TakenTick(alone)
            yield taken
            if taken.done:
                await database.count(_DONE, [taken.outcome, name, tick])

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Return the part of the transaction that an error rolls back, as an asynchronous context."""
        return self._database.transaction()
