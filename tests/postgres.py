"""Real PostgreSQL servers for tests; they need no loop, since those of a session outlive the loops of its tests."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from streamstack.connections.database.embedded import Embedded, EmbeddedError, find_programs

#: What a test writes need not survive a power cut; it does survive a kill.
HASTY = {"fsync": "off", "full_page_writes": "off"}
#: A server that is given: its URL, of a user who may create databases.
GIVEN = os.environ.get("STREAMSTACK_TEST_POSTGRES")

_numbers = itertools.count(1)
T = TypeVar("T")


def programs() -> dict[str, Path]:
    """Find PostgreSQL's programs on this machine, by name and version: Debian's newest, and the package's."""
    found = {}
    debian = Path("/usr/lib/postgresql")
    versions = sorted(int(each.parent.parent.name) for each in debian.glob("[0-9]*/bin/initdb"))
    if versions:
        found[f"debian-{versions[-1]}"] = debian / str(versions[-1]) / "bin"
    with suppress(EmbeddedError):
        found["embedded-18"] = find_programs(None)
    return found


def query(url: str, sql: str, *values: Any) -> list[Any]:
    """Run a statement and return its rows, on a loop of its own: a test's loop may be running."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            if values:
                return list(await connection.fetch(sql, *values))
            # The simple protocol: several statements, and those that refuse a transaction.
            await connection.execute(sql)
            return []
        finally:
            await connection.close()

    return on_a_loop(run())


def on_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine, run on a loop of its own in a thread: a test's loop may be running."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, work).result()


@dataclass(slots=True)
class Server:
    """A PostgreSQL of the tests' own. ``url`` stays the same over restarts."""

    folder: Path
    bin_folder: Path
    settings: Mapping[str, str] = field(default_factory=lambda: HASTY)
    _embedded: Embedded | None = None
    _host: str = ""

    def start(self) -> Server:
        """Start it; after ``kill`` it recovers."""
        if self._embedded is None:
            self._embedded = Embedded(self.folder, bin_folder=self.bin_folder, settings=self.settings)
        self._host = on_a_loop(self._embedded.start())["host"]
        return self

    @property
    def url(self) -> str:
        """Its first database, as its superuser."""
        assert self._host, "the server does not run"
        return f"postgresql://postgres@/postgres?host={quote(self._host, safe='')}&port=5432&sslmode=disable"

    def stop(self) -> None:
        """Shut it down cleanly, disconnecting all clients."""
        if self._embedded is not None:
            on_a_loop(self._embedded.stop())

    def kill(self) -> None:
        """Kill it as a crash would: nothing is written any more, connections break."""
        assert self._embedded is not None
        assert self._embedded.pid is not None
        os.kill(self._embedded.pid, signal.SIGKILL)
        self.stop()

    def terminate_backends(self) -> None:
        """Cut off all who are connected; the server goes on."""
        query(
            self.url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = $1 AND pid <> pg_backend_pid()",
            "client backend",
        )


def create_database(url: str) -> str:
    """Make an empty database on a server and return its URL."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    query(url, f"CREATE DATABASE {name}")
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def drop_database(url: str, made: str) -> None:
    """Drop a database that ``create_database`` made, also while a client is connected."""
    name = urlsplit(made).path.lstrip("/")
    query(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
