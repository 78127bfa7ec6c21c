"""Servers of the soak: each with two workers, started again after it was killed, and what its processes hold."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.redis import free_port
from tests.server.processes import ENGINE, gone, until

WORKERS = 2
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Told:
    """What a worker says of itself: its tasks by the names of their coroutines, and what it has allocated.

    ``blocks`` are those of Python's allocator, ``bytes`` what malloc gave beside them.
    """

    tasks: Counter[str]
    blocks: int
    bytes: int


@dataclass
class Machine:
    """A server of several workers, at a port that it keeps."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None
    said: list[str] = field(default_factory=list)

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        command = ["serve", str(self.folder), "--port", str(self.port), "--workers", str(WORKERS)]
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.soak_probe", *command),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": f"{ENGINE}:{ROOT}", "STREAMSTACK_SOAK": str(self.folder)},
        )
        assert self.process.stderr is not None
        begun: list[str] = []
        while "serving" not in (line := (await self.process.stderr.readline()).decode()):
            begun.append(line)
            assert line, "".join(begun)
        self.listening = asyncio.create_task(self._listen(self.process.stderr))
        await self.whole()

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        """Take down what must never be said."""
        async for line in stderr:
            text = line.decode(errors="replace")
            if "Traceback" in text or "never retrieved" in text or "never awaited" in text:
                self.said.append(text)

    async def end(self, how: signal.Signals) -> int:
        """Kill or stop it. Workers end with their supervisor, however it ends."""
        assert self.process is not None
        workers = self.workers()
        self.process.send_signal(how)
        code = await self.process.wait()
        await until(lambda: all(map(gone, workers)))
        await self.listening
        return code

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        assert self.process is not None
        pid = self.process.pid
        try:
            told = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        except OSError:
            return []
        return [int(each) for each in told if not gone(int(each))]

    async def whole(self) -> None:
        """Wait until it has all its workers."""
        await until(lambda: len(self.workers()) == WORKERS, 30)

    async def told(self) -> list[Told]:
        """Have each worker report on itself."""
        found = []
        for pid in self.workers():
            path = self.folder / f"{pid}.told"
            path.unlink(missing_ok=True)
            os.kill(pid, signal.SIGUSR1)
            await until(path.exists)
            told = json.loads(path.read_text())
            found.append(Told(Counter(told["tasks"]), told["blocks"], told["bytes"]))
        return found


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    (line,) = (each for each in status.splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def held(pid: int, own: int, others: dict[int, str]) -> Counter[str]:
    """Count what a process has open: its clients' connections, those to others by ports, Unix sockets, the rest."""
    kinds: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text("utf-8").splitlines()[1:]:
            part = line.split()
            here, there = (int(part[at].rpartition(":")[2], 16) for at in (1, 2))
            if here == own:
                kinds[part[9]] = "listening" if part[3] == "0A" else "clients"
            else:
                # One of a pool that the other side has closed is made again when it is needed next.
                state = "" if part[3] == "01" else ", closed"
                kinds[part[9]] = others.get(there, f"tcp to {there}") + state
    for line in Path(f"/proc/{pid}/net/unix").read_text("utf-8").splitlines()[1:]:
        kinds[line.split()[6]] = "unix"
    found: Counter[str] = Counter()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = str(each.readlink())
        except OSError:
            continue
        if name.startswith("socket:["):
            found[kinds.get(name[8:-1], "socket")] += 1
        else:
            found["files"] += 1
    return found
