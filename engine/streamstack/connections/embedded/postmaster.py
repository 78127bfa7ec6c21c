"""PostgreSQL's first process, from its start to the end of the last process that it leaves behind.

Part of the launcher: the standard library only.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from streamstack.connections.embedded.cluster import INSTEAD, Programs, last_lines, shared_memory
from streamstack.connections.embedded.faults import EmbeddedError
from streamstack.connections.embedded.identity import LINUX, adopt_orphans
from streamstack.connections.embedded.logfile import Logfile

#: Seconds for a start, which may have to recover from a crash first.
START: Final = 120.0
#: Seconds after which a shutdown is tried by harder means: fast, immediate, killed.
SHUTDOWN: Final = (
    (0.0, signal.SIGINT),
    (10.0, signal.SIGQUIT),
    (15.0, signal.SIGKILL),
)
#: Seconds between looks at what tells nothing by itself: is the parent there, is the server ready.
_LOOK: Final = 1.0
_LOOK_STARTING: Final = 0.01


class Postmaster:
    """A running PostgreSQL."""

    def __init__(
        self,
        programs: Programs,
        data: Path,
        sockets: Path,
        *,
        log: Logfile,
        lock: int,
        settings: Mapping[str, str],
    ) -> None:
        self._data = data
        self._log = log
        self._wake, wake = socket.socketpair()
        self._wake.setblocking(False)
        wake.setblocking(False)
        self._waker = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        adopt_orphans()
        _forget_crash(data, sockets)
        quoted = str(sockets).replace('"', '""')
        held = {
            "unix_socket_directories": f'"{quoted}"',
            "unix_socket_permissions": "0700",
            "listen_addresses": "",
            "port": "5432",
            "logging_collector": "off",
            "log_destination": "stderr",
            "dynamic_shared_memory_type": shared_memory(),
        }
        command = [str(programs.folder / "postgres"), "-D", str(data)]
        for name, value in {**held, **settings}.items():
            command += ["-c", f"{name}={value}"]
        self._output, output = os.pipe()
        os.set_blocking(self._output, False)
        try:
            # The lock goes on to every process of the server: it is free when the last one is gone.
            process = programs.identity.spawn(command, output=output, keep=(lock,))
        except OSError as error:
            raise EmbeddedError(f"PostgreSQL can't be started: {error}; {INSTEAD}") from error
        finally:
            os.close(output)
        self.pid = process.pid
        process.returncode = 0  # It is waited for here, with the orphans.
        self._ended = False

    def wait_until_ready(self, leaving: Callable[[], bool]) -> bool:
        """Wait until it takes connections; tell whether it does. ``leaving`` says that nobody needs it any more.

        Raises EmbeddedError, with the end of its log, where it does not.
        """
        deadline = time.monotonic() + START
        while not self._ended:
            self._turn(_LOOK_STARTING)
            with suppress(OSError):
                # As pg_ctl does: the eighth line says so, and the first whose file it is.
                lines = (self._data / "postmaster.pid").read_text("utf-8").splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready" and lines[0] == str(self.pid):
                    return True
            if leaving():
                return False
            if time.monotonic() > deadline:
                self.shut_down()
                raise EmbeddedError(
                    f"PostgreSQL was not ready after {START:g} seconds: {self._tail()}"
                )
        self._clear()
        raise EmbeddedError(f"PostgreSQL did not start: {self._tail()}")

    def watch(self, leaving: Callable[[], bool], inlet: int) -> None:
        """Copy its log until it ends by itself or ``leaving`` says so. ``inlet`` wakes for the latter."""
        while not self._ended and not leaving():
            self._turn(_LOOK, inlet)

    def shut_down(self) -> None:
        """End it, gently at first, and return when all of its processes are gone."""
        begun = time.monotonic()
        steps = list(SHUTDOWN)
        while not self._ended:
            if steps and time.monotonic() - begun >= steps[0][0]:
                _signal(self.pid, steps.pop(0)[1])
            self._turn(0.1)
        self._clear()

    def _turn(self, seconds: float, *inlets: int) -> None:
        """Wait a while for something to happen; copy the log, and see who has ended."""
        watched = [*inlets, self._wake.fileno()]
        if self._output >= 0:
            watched.append(self._output)
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._wake.fileno() in ready:
            with suppress(BlockingIOError):
                self._wake.recv(4096)
        if self._output in ready:
            self._copy()
        self._reap()

    def _copy(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._output, 65536):
                self._log.write(data)
            os.close(self._output)
            self._output = -1

    def _reap(self) -> bool:
        """Collect those who have ended; tell whether anybody is left."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                self._ended = self._ended or ended == self.pid
        except ChildProcessError:
            self._ended = True
            return False
        return True

    def _clear(self) -> None:
        """End what a killed server leaves behind: a process in a long query does not look for its parent."""
        begun = time.monotonic()
        asked: set[int] = set()
        while self._reap():
            for orphan in _children():
                if orphan not in asked:
                    asked.add(orphan)
                    _signal(orphan, signal.SIGQUIT)
                elif time.monotonic() - begun > 2:
                    _signal(orphan, signal.SIGKILL)
            self._turn(0.02)
        if self._output >= 0:
            self._copy()

    def _tail(self) -> str:
        return f"its log ends so:\n{last_lines(self._log.recent())}\nElse {INSTEAD}"


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _children() -> Iterator[int]:
    if LINUX:
        with suppress(OSError):
            for name in Path("/proc/thread-self/children").read_text("ascii").split():
                yield int(name)


def _forget_crash(data: Path, sockets: Path) -> None:
    """Remove what a killed server left: in a container another process soon has the number in it.

    We hold the lock, so it is none of ours. Raises EmbeddedError for one that somebody else started.
    """
    path = data / "postmaster.pid"
    with suppress(OSError, ValueError, IndexError):
        pid = int(path.read_text("utf-8").split()[0])
        if _is_postgres(pid, data):
            raise EmbeddedError(
                f"a PostgreSQL that streamstack did not start (process {pid}) uses {data}: stop it"
            )
    path.unlink(missing_ok=True)
    for stale in sockets.glob(".s.PGSQL.*"):
        stale.unlink()


def _is_postgres(pid: int, data: Path) -> bool:
    try:
        os.kill(pid, 0)
        started = Path(f"/proc/{pid}/cmdline").read_bytes()
    except ProcessLookupError:
        return False
    except OSError:
        # Without /proc: PostgreSQL itself judges by its file, so leave it that.
        return not LINUX
    return b"postgres" in started and os.fsencode(data) in started
