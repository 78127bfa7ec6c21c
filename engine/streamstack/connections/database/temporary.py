"""Databases that live as long as a test: copies of a template, on the embedded server or on another one.

Their names begin with `streamstack_test_`, and no other database is ever written to or dropped.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from streamstack import clock
from streamstack.connections.database import Databases
from streamstack.connections.database.embedded import NAME, Embedded, EmbeddedError
from streamstack.connections.database.pool import Connection, failure_of
from streamstack.connections.database.postgres import PostgresDatabase, apply_setup
from streamstack.connections.database.values import row_maker
from streamstack.errors import RunError
from streamstack.language.settings import Database as Settings

T = TypeVar("T")

#: How the names of all databases begin that are made here.
PREFIX: Final = "streamstack_test_"
#: What is written need not survive anything.
_HASTY: Final = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
_FOLDER: Final = "streamstack-tests-"
#: A folder in memory, where a database is made ten times as fast, if it has room for that many bytes.
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  (the folder in it has a name of its own, and is closed to others)
_ROOM: Final = 1 << 30
#: Copies of a template that are made before they are asked for.
_AHEAD: Final = 2
_numbers = count(1)


class TestServer:
    """The server of the tests' databases: an embedded PostgreSQL in a folder of its own, or another one.

    Args:
        url: The URL of another server, None for an embedded one.
        bin_folder: Where the embedded one's programs are, None for those of the package.
    """

    __test__ = False

    def __init__(self, url: str | None = None, bin_folder: Path | None = None) -> None:
        self._bin_folder = bin_folder
        self._address: Mapping[str, Any] | None = None if url is None else {"dsn": url}
        self._folder: Path | None = None
        self._embedded: Embedded | None = None
        self._owner = 0  # the process that has started it

    def start(self) -> Mapping[str, Any]:
        """Start it unless it runs; return the arguments of asyncpg's `connect`. Raises EmbeddedError."""
        if self._address is None:
            memory = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM
            parent = _MEMORY if memory else Path(tempfile.gettempdir())
            _remove_stale(parent)
            self._owner = os.getpid()
            self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{self._owner}-", dir=parent))
            self._embedded = Embedded(self._folder, bin_folder=self._bin_folder, settings=_HASTY)
            self._address = asyncio.run(self._embedded.start())
        return self._address

    def stop(self) -> None:
        """Stop it, if this process has started it, and remove its folder."""
        if self._owner != os.getpid() or self._embedded is None or self._folder is None:
            return
        self._owner, self._address = 0, None
        try:
            asyncio.run(self._embedded.stop())
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    """Remove the folders of sessions that were killed."""
    for folder in parent.glob(f"{_FOLDER}*-*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        with suppress(ValueError, PermissionError):
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)


class TestDatabases:
    """Makes databases for tests, on a thread of its own, before they are needed. Close it.

    Args:
        server: Where they are made. It is started when the first one is asked for.
    """

    __test__ = False

    def __init__(self, server: TestServer) -> None:
        self._server = server
        self._address: Mapping[str, Any] = {}  # until the server is started
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="test-databases")
        self._thread.start()
        self._administrator: asyncpg.Connection | None = None
        self._locked = asyncio.Lock()
        self._templates: dict[tuple[Path, ...], asyncio.Task[str]] = {}
        self._ready: dict[tuple[Path, ...], deque[asyncio.Task[str]]] = {}
        self._made: set[str] = set()

    def claim(self, setup: tuple[Path, ...]) -> Future[str]:
        """Return the name of a new database in which setup files were run. It may raise RunError ``database``."""
        return self._submit(self._claim(setup))

    def release(self, name: str) -> None:
        """Drop a database, in the background."""
        self._submit(self._drop(name))

    def address(self, name: str) -> Mapping[str, Any]:
        """Return the arguments of asyncpg's `connect` for one of the databases."""
        url = self._address.get("dsn")
        if url is None:
            return {**self._address, "database": name}
        return {"dsn": urlunsplit(urlsplit(url)._replace(path=f"/{name}"))}

    def close(self) -> None:
        """Drop all databases, and disconnect."""
        try:
            self._submit(self._close()).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _claim(self, setup: tuple[Path, ...]) -> str:
        async with self._locked:
            if not self._address:
                try:
                    self._address = await asyncio.to_thread(self._server.start)
                except EmbeddedError as error:
                    raise RunError("database", str(error), final=True) from error
        ready = self._ready.setdefault(setup, deque())
        while len(ready) <= _AHEAD:
            ready.append(self._loop.create_task(self._copy(setup)))
        return await ready.popleft()

    async def _copy(self, setup: tuple[Path, ...]) -> str:
        template = self._templates.get(setup)
        if template is None:
            template = self._templates[setup] = self._loop.create_task(self._make_template(setup))
        return await self._create(f'TEMPLATE "{await template}" STRATEGY file_copy' if setup else "")

    async def _make_template(self, setup: tuple[Path, ...]) -> str:
        name = await self._create("")
        try:
            connection = await asyncpg.connect(**self.address(name), connection_class=Connection)
            try:
                await apply_setup(connection, setup)
            finally:
                await connection.close()
        except Exception as error:
            raise failure_of(error, "of the tests") from error
        return name

    async def _create(self, how: str) -> str:
        name = f"{PREFIX}{os.getpid()}_{next(_numbers)}"
        owner = "" if "dsn" in self._address else f"OWNER {NAME}"
        self._made.add(name)
        await self._administer(f'CREATE DATABASE "{name}" {owner} {how}')
        return name

    async def _drop(self, name: str) -> None:
        if name in self._made:
            await self._administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            self._made.discard(name)

    async def _administer(self, statement: str) -> None:
        async with self._locked:
            try:
                if self._administrator is None:
                    user = {} if "dsn" in self._address else {"user": "postgres", "database": "postgres"}
                    self._administrator = await asyncpg.connect(**{**self._address, **user})
                await self._administrator.execute(statement)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                reason = f"no database can be made for the tests: {str(error) or type(error).__name__}"
                raise RunError("database", reason, final=True) from error

    async def _close(self) -> None:
        waiting = [*self._templates.values(), *(task for ready in self._ready.values() for task in ready)]
        if waiting:
            await asyncio.gather(*waiting, return_exceptions=True)
        for name in sorted(self._made):
            with suppress(RunError):
                await self._drop(name)
        if self._administrator is not None:
            await self._administrator.close()


class TestDatabase(PostgresDatabase):
    """A database of a test: made when it is first connected to, dropped when it is closed."""

    __test__ = False

    def __init__(self, settings: Settings, folder: Path, source: TestDatabases) -> None:
        super().__init__(replace(settings, url=f"postgresql:///{PREFIX}", setup=(), bin=None), folder)
        self._setup = settings.setup
        self._source = source
        self._claimed: Future[str] | None = None
        self._connection: Connection | None = None
        self._use = asyncio.Lock()
        #: Leads the connections of the project another way.
        self.relay: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]] | None = None

    async def address(self) -> Mapping[str, Any]:
        address = await self._own_address()
        return address if self.relay is None else await self.relay(address)

    async def _own_address(self) -> Mapping[str, Any]:
        if self._claimed is None:
            self._claimed = self._source.claim(self._setup)
        with clock.outside():
            # A run that is cancelled meanwhile must not cancel it for the others.
            name = await asyncio.shield(asyncio.wrap_future(self._claimed))
        return self._source.address(name)

    async def aclose(self) -> None:
        await super().aclose()
        if self._connection is not None:
            await self._connection.close()
        if self._claimed is not None and self._claimed.done() and not self._claimed.exception():
            self._source.release(self._claimed.result())

    async def fill(self, sql: str, rows: Mapping[str, tuple[Mapping[str, Any], ...]]) -> None:
        """Run SQL, then insert rows by table. Raises RunError ``database``."""
        async with self._connected() as connection:
            if sql:
                await connection.execute(sql)
            for table, listed in rows.items():
                for row in listed:
                    await _insert(connection, table, row)

    async def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows that a query gives. Raises RunError ``database``."""
        async with self._connected() as connection:
            prepared = await connection.prepare(sql)
            return list(map(row_maker(prepared.get_attributes()), await prepared.fetch()))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """Yield the test's own connection, which is not one of the project. Raises RunError ``database``."""
        try:
            async with self._use:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self.connect_to(await self._own_address())
                with clock.outside():
                    await self._connection.reset()
                    yield self._connection
        except Exception as error:
            raise failure_of(error, self.name) from error


async def _insert(connection: Connection, table: str, row: Mapping[str, Any]) -> None:
    """Insert a row. PostgreSQL converts its values, as those of JSON, to the types of the columns."""
    name = ".".join(map(_quoted, table.split(".")))
    columns = ", ".join(map(_quoted, row))
    if not row:
        await connection.execute(f"INSERT INTO {name} DEFAULT VALUES")
        return
    await connection.execute(
        f"INSERT INTO {name} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{name}, $1)",  # noqa: S608
        row,
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class TemporaryDatabases(Databases):
    """The databases of a project in one test."""

    def __init__(self, settings: Mapping[str, Settings], folder: Path, source: TestDatabases) -> None:
        super().__init__({}, folder)
        self._all.update({name: TestDatabase(each, folder, source) for name, each in settings.items()})

    def __getitem__(self, name: str) -> TestDatabase:
        found = self._all[name]
        assert isinstance(found, TestDatabase)
        return found
