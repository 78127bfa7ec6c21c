"""Servers in processes of their own, and looking after what becomes of processes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("embedded_child.py")


class Child:
    """A process that starts an embedded PostgreSQL on a folder."""

    def __init__(self, folder: Path, *, before: Sequence[str] = (), **task: Any) -> None:
        task["folder"] = str(folder)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "engine")}
        environment |= task.pop("environment", {})
        self._process = subprocess.Popen(
            [*before, sys.executable, str(PROGRAM), json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline() or "{}")
        self.error: str | None = said.get("error")
        self.connection: Mapping[str, Any] = said.get("connection", {})
        self.postmaster: int = said.get("postmaster", 0)
        self.worker: int | None = said.get("worker")

    def kill(self) -> None:
        """Kill the server alone."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Let it stop its database and end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(40)
        self._process.stdout.close()


@asynccontextmanager
async def connect(connection: Mapping[str, Any]) -> AsyncIterator[asyncpg.Connection]:
    """Connect as the engine does."""
    opened = await asyncpg.connect(**connection)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    """Start servers in processes of their own, which end with the test."""
    children: list[Child] = []

    def start(folder: Path, **task: Any) -> Child:
        children.append(Child(folder, **task))
        return children[-1]

    yield start
    for each in children:
        each.end()
        if each.worker is not None:
            os.kill(each.worker, signal.SIGKILL)


def mode_of(path: Path | str) -> int | None:
    """Return who may do what with a file, None where there is none."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116 (for text too)
    except FileNotFoundError:
        return None


def gone(pid: int) -> bool:
    """Tell whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for(fact: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
