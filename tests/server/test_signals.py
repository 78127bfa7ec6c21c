"""Signals that come while the server starts: what asks for the end ends it in good order, nothing else does."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamstack.server.signals import START_ABORTED
from tests.server.declarations import HELLO, both
from tests.server.processes import Process, settled, start, until

STORED = """
path: /stored
method: GET
responseType: json
functionStack:
  - db.value: SELECT 1
    as: one
  - return: << one >>
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


@asynccontextmanager
async def starting(
    folder: Path, *options: str, stdin: int = asyncio.subprocess.DEVNULL, prelude: str = ""
) -> AsyncIterator[Process]:
    """Start a server; ``prelude`` is what a shell does before it becomes the server."""
    server = Process(await start(str(folder), "--port", "0", *options, stdin=stdin, prelude=prelude))
    listening = asyncio.ensure_future(server.listen())
    try:
        yield server
    finally:
        if server.process.returncode is None:
            server.process.kill()
        await server.process.wait()
        await asyncio.wait_for(listening, 30)


class HeldFile:
    """A file of the project that holds up the process that opens it, by a lease (fcntl(2)).

    It says `Before` to that process; a later reader finds another one in its place.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "late.yaml"
        self._path.write_text(HELLO.replace("Hello", "Before"))
        self._descriptor = os.open(self._path, os.O_RDWR)
        # The kernel announces an opener by a signal: one that is ignored.
        fcntl.fcntl(self._descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    async def is_read(self) -> None:
        """Wait until a process opens it."""
        await until(self._is_wanted)
        other = self._path.with_suffix(".new")
        other.write_text(HELLO)
        other.replace(self._path)

    def _is_wanted(self) -> bool:
        return fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def let_go(self) -> None:
        """Let the process go on that opened it."""
        fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def close(self) -> None:
        """End the lease."""
        os.close(self._descriptor)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[HeldFile]:
    """The only file of a project."""
    made = HeldFile(tmp_path)
    yield made
    made.close()


async def taken(server: Process) -> None:
    """Wait until no signal waits for the server to handle it."""

    def none() -> bool:
        lines = Path(f"/proc/{server.process.pid}/status").read_text("ascii").splitlines()
        words = [line.split() for line in lines]
        return all(int(word[1], 16) == 0 for word in words if word[0] in ("SigPnd:", "ShdPnd:"))

    await until(none)


@both
async def test_hangup_is_kept_for_later(tmp_path: Path, held: HeldFile, workers: str) -> None:
    """SIGHUP while files are read does not end the start: they are read again as soon as the server is up."""
    async with starting(tmp_path, "--workers", workers) as server:
        await held.is_read()
        server.process.send_signal(signal.SIGHUP)
        await taken(server)
        held.let_go()
        server.port = int((await server.said(r"http://127\.0\.0\.1:(\d+)$", 30))[1])
        await server.said("reloaded: 1 endpoint")

        async def anew() -> bool:
            return b"Hello" in (await server.ask("GET", "/hello")).body

        await settled(anew)
        assert await server.stop() == 0


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_who_asks_for_the_end_gets_it(
    tmp_path: Path, held: HeldFile, workers: str, number: signal.Signals
) -> None:
    """SIGTERM or Ctrl-C while files are read ends the start, as if it had been a server already."""
    async with starting(tmp_path, "--workers", workers) as server:
        await held.is_read()
        server.process.send_signal(number)
        assert await asyncio.wait_for(server.process.wait(), 10) == 0
        await server.said(START_ABORTED)
        assert "Traceback" not in "".join(server.lines)


@both
async def test_the_end_of_a_terminal_is_one(tmp_path: Path, held: HeldFile, workers: str) -> None:
    """Where the terminal goes while the server starts, so does the server."""
    leader, terminal = os.openpty()
    try:
        async with starting(tmp_path, "--workers", workers, stdin=terminal) as server:
            await held.is_read()
            server.process.send_signal(signal.SIGHUP)
            assert await asyncio.wait_for(server.process.wait(), 10) == 0
            await server.said(START_ABORTED)
    finally:
        os.close(leader)
        os.close(terminal)


@both
async def test_under_nohup_there_is_no_hangup(tmp_path: Path, held: HeldFile, workers: str) -> None:
    """A server that was told to ignore SIGHUP ignores it, while it starts and later."""
    options = ("--workers", workers)
    async with starting(tmp_path, *options, prelude="trap '' HUP") as server:
        await held.is_read()
        server.process.send_signal(signal.SIGHUP)
        held.let_go()
        server.port = int((await server.said(r"http://127\.0\.0\.1:(\d+)$", 30))[1])
        server.process.send_signal(signal.SIGHUP)
        assert (await server.ask("GET", "/hello")).status == 200
        assert await server.stop() == 0
        assert "reloaded" not in "".join(server.lines)


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_nobody_waits_for_a_database(tmp_path: Path, workers: str, number: signal.Signals) -> None:
    """A database that does not answer holds the start up, and not the end of it."""
    asked = asyncio.Event()
    left = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()
        left.set()

    silent = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    settings = f"databases: {{main: {{url: postgresql://me@127.0.0.1:{port}/data}}}}"
    (tmp_path / "streamstack.yaml").write_text(settings)
    (tmp_path / "stored.yaml").write_text(STORED)
    async with silent, starting(tmp_path, "--workers", workers) as server:
        await asyncio.wait_for(asked.wait(), 30)
        server.process.send_signal(number)
        assert await asyncio.wait_for(server.process.wait(), 5) == 0
        await server.said(START_ABORTED)
        assert "Traceback" not in "".join(server.lines)
        await asyncio.wait_for(left.wait(), 10)
