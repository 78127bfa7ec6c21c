"""`streamstack serve` in a process of its own, as tests start it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.server.serving import Client, Reply, parse

ENGINE = Path(__file__).parent.parent.parent / "engine"


@dataclass
class Process:
    """A server in a process of its own. ``lines`` are what it has said so far."""

    process: asyncio.subprocess.Process
    port: int = 0
    lines: list[str] = field(default_factory=list)

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, method: str, path: str, body: bytes = b"", extra: str = "") -> Reply:
        client = await self.connect()
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        client.ask(path, method, extra=f"Connection: close\r\n{length}{extra}")
        client.writer.write(body)
        try:
            return parse(await asyncio.wait_for(client.reader.read(), 10))
        finally:
            client.close()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 10)

    async def said(self, pattern: str, seconds: float = 20.0) -> re.Match[str]:
        """Wait until it has said a line with this pattern."""
        found = None
        async with asyncio.timeout(seconds):
            while found is None:
                await asyncio.sleep(0.02)
                found = next(filter(None, (re.search(pattern, line) for line in self.lines)), None)
        return found

    async def listen(self) -> None:
        """Take down what it says, so that it can always go on talking."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode().rstrip())

    def workers(self) -> list[int]:
        """Return the process ids of its workers, the oldest first."""
        pid = self.process.pid
        try:
            told = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        except OSError:
            return []
        return [int(each) for each in told if _is_worker(int(each))]


def _is_worker(pid: int) -> bool:
    """Tell a worker from the embedded database, and from one that has ended."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return bool(command) and b"postgres" not in command


def gone(pid: int) -> bool:
    """Tell whether a process is no more, or waits for nothing but to be taken note of."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")")[1].split()[0] == "Z"
    except OSError:
        return True


async def settled(condition: Callable[[], Awaitable[object]], seconds: float = 30.0) -> None:
    """Wait for something that has to be asked for to become true."""
    for _ in range(round(seconds * 10)):
        if await condition():
            return
        await asyncio.sleep(0.1)
    raise TimeoutError


async def until(condition: Callable[[], object], seconds: float = 20.0, pause: float = 0.02) -> None:
    """Wait for something to become true."""
    for _ in range(round(seconds / pause)):
        if condition():
            return
        await asyncio.sleep(pause)
    raise TimeoutError


async def start(
    *arguments: str, stdin: int = asyncio.subprocess.DEVNULL, prelude: str = "", before: str = ""
) -> asyncio.subprocess.Process:
    """Start `streamstack serve`.

    ``prelude`` is what a shell does before it becomes that, ``before`` what Python does.
    """
    return await asyncio.create_subprocess_exec(
        *(["sh", "-c", f'{prelude}; exec "$@"', "sh"] if prelude else []),
        sys.executable,
        "-c",
        f"{before}\nfrom streamstack.cli import main; main()",
        "serve",
        *arguments,
        stdin=stdin,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ENGINE)},
    )


@asynccontextmanager
async def serving(folder: Path, *options: str, port: int = 0, before: str = "", **files: str) -> AsyncIterator[Process]:
    """Serve files, given by their names without `.yaml`, on a free port."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    server = Process(await start(str(folder), "--port", str(port), *options, before=before))
    listening = asyncio.ensure_future(server.listen())
    served = asyncio.ensure_future(server.said(r"https?://127\.0\.0\.1:(\d+)$", 30))
    try:
        await asyncio.wait({listening, served}, return_when=asyncio.FIRST_COMPLETED)
        assert served.done(), server.lines
        server.port = int((await served)[1])
        yield server
    finally:
        served.cancel()
        if server.process.returncode is None:
            server.process.kill()
        await server.process.wait()
        # Its workers have the pipe, too: this is over when the last of them is.
        await asyncio.wait_for(listening, 30)


async def refused(folder: Path, *options: str, **files: str) -> tuple[int, str]:
    """Try to serve files; return the exit code and what was said."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    process = await start(str(folder), *options)
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, said.decode()
