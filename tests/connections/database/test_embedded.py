"""The embedded PostgreSQL: how it starts, how it ends, and who may have it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvloop

from streamstack.connections.database import embedded as module
from streamstack.connections.database.embedded import Embedded, EmbeddedError, running
from tests.connections.embedded_processes import Child, connect, gone, mode_of, wait_for
from tests.postgres import HASTY

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no PostgreSQL comes for Windows")


@pytest.fixture
def folder(tmp_path: Path, postgres_cluster: Path) -> Path:
    """The `.streamstack` folder of a project that has run before: a start there is fast."""
    made = tmp_path / "project" / ".streamstack"
    shutil.copytree(postgres_cluster / "postgres", made / "postgres")
    return made


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[Embedded]:
    """A server that is stopped afterwards; the test starts it."""
    embedded = Embedded(folder, settings=HASTY)
    yield embedded
    await embedded.stop()


async def query(connection: Mapping[str, Any], sql: str) -> Any:
    """Return one value."""
    async with connect(connection) as opened:
        return await opened.fetchval(sql)


async def test_first_start_makes_the_database(tmp_path: Path) -> None:
    """Where nothing is, a database comes to be: UTF-8, UTC, durable, for this machine's server alone."""
    project = tmp_path / "project"
    project.mkdir()
    embedded = Embedded(project / ".streamstack")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    try:
        connection = await embedded.start()
        ticking.cancel()
        assert ticks > 10, "the loop stood still"
        expected = {
            "server_encoding": "UTF8",
            "timezone": "UTC",
            "fsync": "on",
            "listen_addresses": "",
            "max_connections": "100",
        }
        async with connect(connection) as opened:
            for name, value in expected.items():
                assert await opened.fetchval(f"SHOW {name}") == value, name
            assert await opened.fetchval("SELECT current_user") == "streamstack"
            assert await opened.fetchval("SELECT current_database()") == "streamstack"
            assert await opened.fetchval("SELECT upper('grün')") == "GRÜN"
            await opened.execute("CREATE TABLE mine (id int)")
        made = project / ".streamstack"
        assert (made / ".gitignore").read_text() == "*\n"
        assert "ready to accept" in (made / "postgres.log").read_text()
        assert mode_of(made / "postgres") == 0o700
        assert mode_of(connection["host"]) == 0o700
    finally:
        ticking.cancel()
        await embedded.stop()


async def test_later_starts_find_what_was_written(server: Embedded) -> None:
    """What was committed is there after a stop and a start."""
    async with connect(await server.start()) as opened:
        await opened.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")
    await server.stop()
    assert await query(await server.start(), "SELECT id FROM kept") == 7


async def test_concurrent_starts_are_one(server: Embedded) -> None:
    """All who need it at once get the same server."""
    connections = await asyncio.gather(*(server.start() for _ in range(50)))
    assert all(each == connections[0] for each in connections)
    started = server.pid
    await server.start()
    assert server.pid == started


async def test_stop_is_idempotent_and_cuts_clients_off(server: Embedded) -> None:
    """Stopping what does not run is not an error; a client that stays connected keeps nothing from ending."""
    await server.stop()
    connection = await asyncpg.connect(**await server.start())
    postmaster = server.pid
    assert postmaster is not None
    await asyncio.gather(server.stop(), server.stop())
    await server.stop()
    assert gone(postmaster)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    connection.terminate()


async def test_given_up_start_leaves_nothing_behind(server: Embedded, folder: Path) -> None:
    """A start that is cancelled in its middle is ended by the stop that follows."""
    starting = asyncio.create_task(server.start())
    await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await server.stop()
    assert await running(folder) is None
    assert await query(await server.start(), "SELECT 1") == 1


def test_server_outlives_the_thread_that_started_it(folder: Path) -> None:
    """It ends with the process, not with a thread or a loop of it; uvloop starts it as well."""
    embedded = Embedded(folder)
    connections: list[Mapping[str, Any]] = []
    thread = threading.Thread(target=lambda: connections.append(uvloop.run(embedded.start())))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert asyncio.run(query(connections[0], "SELECT 1")) == 1
    asyncio.run(embedded.stop())


def test_killed_server_leaves_nothing(folder: Path, child: Callable[..., Child]) -> None:
    """When the server is killed, PostgreSQL ends cleanly: no process, no shared memory, nothing to recover."""
    killed = child(folder)
    asyncio.run(query(killed.connection, "CREATE TABLE kept AS SELECT 7 AS id"))
    killed.kill()
    wait_for(lambda: gone(killed.postmaster))
    segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    assert str(killed.postmaster) not in {line.split()[4] for line in segments}
    assert not (folder / "postgres" / "postmaster.pid").exists()
    assert asyncio.run(query(child(folder).connection, "SELECT id FROM kept")) == 7
    assert "not properly shut down" not in (folder / "postgres.log").read_text()


def test_start_right_after_a_kill_waits(folder: Path, child: Callable[..., Child]) -> None:
    """A server that starts again immediately gets the database when the killed one's has ended."""
    killed = child(folder)
    killed.kill()
    assert asyncio.run(query(child(folder).connection, "SELECT 1")) == 1


def test_temporary_sockets_of_a_killed_server_are_removed(folder: Path, child: Callable[..., Child]) -> None:
    """A socket folder outside of the project does not stay behind."""
    folder = folder.rename(folder.parent / ("long" * 25))
    killed = child(folder)
    killed.kill()
    wait_for(lambda: gone(killed.postmaster))
    again = child(folder)
    assert asyncio.run(query(again.connection, "SELECT 1")) == 1
    assert again.connection["host"] != killed.connection["host"]
    assert mode_of(killed.connection["host"]) is None


async def test_log_is_bounded(server: Embedded, folder: Path) -> None:
    """A long log is put aside at a start, and errors of statements, which streamstack logs itself, are not in it."""
    (folder / "postgres.log").write_text("x" * 5_000_000)
    connection = await server.start()
    assert (folder / "postgres.log.1").stat().st_size == 5_000_000
    with pytest.raises(asyncpg.UndefinedTableError):
        await query(connection, "SELECT * FROM no_such_table")
    log = (folder / "postgres.log").read_text()
    assert "ready to accept" in log
    assert "no_such_table" not in log


@pytest.mark.parametrize("how", ["end", "kill"])
def test_forked_workers_hold_nothing(folder: Path, child: Callable[..., Child], how: str) -> None:
    """A worker forked off the server has its files, but keeps no database from ending, nor the next server out."""
    first = child(folder, worker=True)
    getattr(first, how)()
    assert asyncio.run(query(child(folder).connection, "SELECT 1")) == 1
    wait_for(lambda: gone(first.postmaster))


async def test_killed_database_recovers(server: Embedded) -> None:
    """After PostgreSQL was killed, the next start has every row that was committed, and no old process."""
    busy = await asyncpg.connect(**await server.start())
    await busy.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")
    backend = await busy.fetchval("SELECT pg_backend_pid()")
    # This one does not look up from its work, whichever process dies.
    working = asyncio.ensure_future(busy.fetchval("SELECT count(*) FROM generate_series(1, 2000000000)"))
    await asyncio.sleep(0.1)
    postmaster = server.pid
    assert postmaster is not None
    os.kill(postmaster, signal.SIGKILL)
    wait_for(lambda: not server.alive())
    assert await query(await server.start(), "SELECT id FROM kept") == 7
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await working
    busy.terminate()
    wait_for(lambda: gone(backend))


async def test_stale_files_keep_nobody_out(server: Embedded, folder: Path) -> None:
    """A file left by a crash may name a process that is another one by now, as it often is in a container."""
    lines = [str(os.getpid()), str(folder / "postgres"), "1700000000", "5432", "", "", "", "ready"]
    (folder / "postgres" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
        (folder / "postgres" / name).write_text(f"{os.getpid()}\n")
    (folder / "postgres.lock").write_text(json.dumps({"pid": os.getpid(), "host": "/nowhere"}))
    assert await query(await server.start(), "SELECT 1") == 1


async def test_second_server_is_told(server: Embedded, folder: Path, child: Callable[..., Child]) -> None:
    """Another server on the folder says who has it and what to do, in another process and in this one."""
    first = child(folder)
    with pytest.raises(EmbeddedError, match=rf"process {first.pid}\b.*stop that one, or") as raised:
        await server.start()
    assert str(folder) in str(raised.value)
    first.end()
    await server.start()
    with pytest.raises(EmbeddedError, match=rf"process {os.getpid()}\b"):
        await Embedded(folder).start()


async def test_other_commands_find_the_running_one(folder: Path, child: Callable[..., Child]) -> None:
    """A command beside a running server connects to its database; there is none before and after."""
    assert await running(folder) is None
    other = child(folder)
    found = await running(folder)
    assert found == other.connection
    assert await query(found, "SELECT current_database()") == "streamstack"
    other.end()
    assert await running(folder) is None


async def test_long_path_has_its_socket_elsewhere(tmp_path: Path, postgres_cluster: Path) -> None:
    """Where the project's path is too long for a socket, it lies in a temporary folder, closed to others."""
    folder = tmp_path / ("long" * 25) / ".streamstack"
    shutil.copytree(postgres_cluster / "postgres", folder / "postgres")
    embedded = Embedded(folder)
    connection = await embedded.start()
    sockets = Path(connection["host"])
    try:
        assert not sockets.is_relative_to(folder)
        assert mode_of(sockets) == 0o700
        assert await running(folder) == connection
        assert await query(connection, "SELECT 1") == 1
    finally:
        await embedded.stop()
    assert mode_of(sockets) is None


async def test_odd_names_of_folders(tmp_path: Path, postgres_cluster: Path) -> None:
    """Spaces, quotes, commas and other letters in a path are supported."""
    folder = tmp_path / "a, \"b\" 'c' ü" / ".streamstack"
    shutil.copytree(postgres_cluster / "postgres", folder / "postgres")
    embedded = Embedded(folder)
    try:
        assert await query(await embedded.start(), "SELECT 1") == 1
    finally:
        await embedded.stop()


async def test_data_of_another_version(server: Embedded, folder: Path) -> None:
    """Data that these programs can't read is left alone, and both versions are named."""
    (folder / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedError, match=r"initialized by PostgreSQL version 15.* version 18\.\d+"):
        await server.start()
    (folder / "postgres" / "PG_VERSION").write_text("18\n")
    assert await query(await server.start(), "SELECT 1") == 1


async def test_folder_that_holds_something_else(server: Embedded, folder: Path) -> None:
    """What is not data of PostgreSQL is never written over."""
    shutil.rmtree(folder / "postgres")
    (folder / "postgres").mkdir()
    (folder / "postgres" / "letters.txt").write_text("mine")
    with pytest.raises(EmbeddedError, match="move it away"):
        await server.start()
    assert (folder / "postgres" / "letters.txt").read_text() == "mine"


async def test_links_are_not_followed(tmp_path: Path) -> None:
    """A user who can write into the project must not get other folders from root, which gives them to PostgreSQL."""
    folder = tmp_path / ".streamstack"
    folder.mkdir()
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    (folder / "postgres").symlink_to(other)
    with pytest.raises(EmbeddedError, match="symbolic link"):
        await Embedded(folder).start()
    assert other.stat().st_uid == os.geteuid()
    assert mode_of(other) == 0o755


async def test_programs_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without programs the message names both ways out."""
    with pytest.raises(EmbeddedError, match=r"`postgres` is missing in .*url: postgresql://.*bin: "):
        await Embedded(tmp_path / ".streamstack", bin_folder=tmp_path).start()
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedError, match=r"on this platform.*url: postgresql://.*bin: "):
        await Embedded(tmp_path / ".streamstack").start()


def test_full_disk_is_told_and_leaves_no_half_database(tmp_path: Path, child: Callable[..., Child]) -> None:
    """Where no database can be written, the end of what initdb said is shown, and the next try begins afresh."""
    folder = tmp_path / ".streamstack"
    failed = child(folder, limit=1_000_000)
    assert failed.error is not None
    assert "no database could be made" in failed.error
    assert "File too large" in failed.error
    assert not (folder / "postgres").exists()
    assert not (folder / "postgres.new").exists()
    failed.end()
    assert child(folder).error is None


async def test_folder_that_can_not_be_made(tmp_path: Path) -> None:
    """A project folder that nothing can be written to is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match=r"can't be made: Not a directory"):
        await Embedded(tmp_path / "file" / ".streamstack").start()


async def test_start_that_fails_shows_the_log(folder: Path) -> None:
    """A setting that PostgreSQL refuses is said in its own words, and nothing keeps running."""
    embedded = Embedded(folder, settings={"shared_buffers": "much"})
    with pytest.raises(EmbeddedError, match=r'did not start.*\n.*"shared_buffers": "much"'):
        await embedded.start()
    assert await running(folder) is None


async def test_environment_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables and files for clients of other servers have no say, nor has a home that is not there."""
    for name, value in {
        "PGPORT": "1",
        "PGHOST": "nowhere.invalid",
        "PGDATA": "/nowhere",
        "PGOPTIONS": "-c nonsense=1",
        "PGSSLMODE": "verify-full",
        "PGPASSWORD": "other",
        "HOME": "/nonexistent",
        "LC_ALL": "nonsense",
        "TZ": "Asia/Tokyo",
    }.items():
        monkeypatch.setenv(name, value)
    embedded = Embedded(folder)
    try:
        assert await query(await embedded.start(), "SHOW log_timezone") == "UTC"
    finally:
        await embedded.stop()
