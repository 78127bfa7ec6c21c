"""What functions need of a database, whichever engine is behind it; the engines by the scheme of their URL.

A second engine is a module with a class that fulfils `Database`, a line in `ENGINES`, and its scheme among those that
the settings accept (`SCHEMES` in `language/settings.py`). The SQL that `db.get` and its kin write is PostgreSQL's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from streamstack.errors import Diagnostic, Mark, RunError
from streamstack.language.definition import ConstantArgument, Definition, Project, Step
from streamstack.language.graph import steps_of
from streamstack.language.settings import Database as Settings
from streamstack.language.settings import default_database
from streamstack.language.shapes import Shape
from streamstack.language.sql import Statement

#: The class of each engine, by the scheme of a URL; "" is the engine of a database without a URL.
ENGINES: Final = dict.fromkeys(
    ("", "postgresql", "postgres"), "streamstack.connections.database.postgres:PostgresDatabase"
)
#: Isolation levels of a transaction.
ISOLATION: Final = ("readCommitted", "repeatableRead", "serializable")
#: Seconds before each new try with another connection, after one was lost.
PAUSES: Final = (0.0, 0.1, 0.4, 1.0)
#: Notices that may wait for one reader.
MOST_NOTICES: Final = 10_000


class Cursor(Protocol):
    """The rows of a statement, fetched in batches."""

    @property
    def ended(self) -> bool:
        """Whether the last row was fetched."""

    async def fetch(self, count: int) -> list[Any]:
        """Return the next rows; fewer than asked for, or none, is the end. Raises RunError ``database``."""


class Database(Protocol):
    """One database of a project. All methods raise RunError ``database``."""

    settings: Settings

    @property
    def name(self) -> str:
        """The name that definitions use."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction on it is open around the present task."""

    @property
    def is_open(self) -> bool:
        """Whether it was connected to."""

    async def set_up(self) -> None:
        """Run the setup files that have changed since it was opened. Raises RunError ``database``."""

    async def open(self) -> Any:
        """Connect, and run new setup files; only the first call does anything."""

    async def rows(self, statement: Statement, values: Sequence[Any], limit: int = 0) -> list[dict[str, Any]]:
        """Run a statement and return its rows; at most ``limit`` of them, unless that is 0."""

    async def count(self, statement: Statement, values: Sequence[Any]) -> int:
        """Run a statement and return how many rows it changed, or returned."""

    def cursor(
        self, statement: Statement, values: Sequence[Any], *, encoded: bool = False
    ) -> AbstractAsyncContextManager[Cursor]:
        """Open a cursor, in the transaction around it or in one of its own.

        With ``encoded`` rows may be JSON texts that the database has written, where they read as ours do.
        """

    def may_retry(self, error: Exception, statement: Statement) -> bool:
        """Return whether a cursor that failed before its first row may be opened again."""

    def transaction(self, isolation: str | None = None) -> AbstractAsyncContextManager[None]:
        """Run all that the present task does on the database in one transaction, or savepoint."""

    async def subscribe(self, channel: str) -> Subscription:
        """Start to listen to a channel."""

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening."""

    async def check(self, uses: Iterable[tuple[Definition, Step]]) -> list[Diagnostic]:
        """Return what steps name that the database does not have."""

    async def describe(self, uses: Iterable[tuple[Definition, Step]]) -> dict[Mark, Shape]:
        """Return the shapes of the rows that steps read, by the place of their functions."""

    async def aclose(self) -> None:
        """Close all connections."""


class Subscription:
    """The notices that one reader waits for. ``gaps`` counts the connections that were lost meanwhile."""

    __slots__ = ("_arrived", "_waiting", "channel", "failure", "gaps")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.gaps = 0
        self.failure: RunError | None = None
        self._waiting: deque[str | None] = deque()
        self._arrived = asyncio.Event()

    def put(self, payload: str | None) -> None:
        """Add a notice; None is a gap, in which others may have been missed."""
        if self.failure is not None:
            return  # a notice after the gap would hide it
        if payload is None:
            self.gaps += 1
        if len(self._waiting) >= MOST_NOTICES:
            reason = f"more than {MOST_NOTICES} notices of `{self.channel}` wait for a loop that is too slow"
            self.fail(RunError("limit-reached", reason))
            return
        self._waiting.append(payload)
        self._arrived.set()

    def fail(self, failure: RunError) -> None:
        """End it with an error."""
        self.failure = self.failure or failure
        self._arrived.set()

    async def take(self) -> list[str | None]:
        """Wait for notices and return all there are. Raises the error that ended it, after what came before."""
        while not self._waiting:
            if self.failure is not None:
                raise self.failure
            self._arrived.clear()
            await self._arrived.wait()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class Databases:
    """The databases of a project, by name; each connects when it is first used.

    Args:
        settings: By name.
        folder: The `.streamstack` folder, for the embedded server.
        joins: Use an embedded server that another process runs.
        starts: Start the embedded server where none runs.
    """

    def __init__(
        self, settings: Mapping[str, Settings], folder: Path, *, joins: bool = False, starts: bool = True
    ) -> None:
        self._all: dict[str, Database] = {}
        for name, each in settings.items():
            scheme = "" if each.url is None else urlsplit(each.url).scheme
            module, _, engine = ENGINES[scheme].partition(":")
            made: Database = getattr(import_module(module), engine)(each, folder, joins=joins, starts=starts)
            self._all[name] = made

    def __getitem__(self, name: str) -> Database:
        return self._all[name]

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    async def aclose(self) -> None:
        """Close them all."""
        for each in self._all.values():
            await each.aclose()


def uses_of(project: Project, names: Collection[str]) -> dict[str, list[tuple[Definition, Step]]]:
    """Return the steps that use each database, by its name."""
    used: dict[str, list[tuple[Definition, Step]]] = {}
    usual = default_database(dict.fromkeys(names))
    definitions: list[Definition] = [*project.endpoints, *project.functions.values()]
    for task in project.tasks:
        schedule = task.schedule
        name = schedule.database or usual
        if schedule.on is not None:
            name = (schedule.on.database or usual) if schedule.on.kind == "database" else None
        elif schedule.once != "effect":
            name = None
        if name is not None and name in names:
            used.setdefault(name, [])
    for definition in [*definitions, *project.tasks]:
        for step in steps_of(definition.stack):
            if not any(each.section == "databases" for each in step.function.effects.configured):
                continue
            argument = step.arguments.get("database")
            name = str(argument.value) if isinstance(argument, ConstantArgument) else usual
            if name is not None and name in names:
                used.setdefault(name, []).append((definition, step))
    return used
