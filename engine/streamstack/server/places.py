"""Places for workers, and who is in them, as the supervisor knows it."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from streamstack.server.worker import Line

#: Seconds before a worker is replaced that ended at once: doubled each time, up to the most.
PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0


@dataclass(slots=True, eq=False)
class Process:
    """A worker, as its supervisor knows it."""

    pid: int
    chair: int
    line: Line
    began: float
    ready: bool = False
    leaving: bool = False
    hurried: bool = False

    def hurry(self) -> None:
        """Let it end at once; one word of that is enough."""
        if not self.hurried:
            self.hurried = True
            self.line.say(do="hurry")

    def end(self, code: int) -> str:
        """Return how it ended, as text."""
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"(process {self.pid}) died: {how}"


@dataclass(slots=True)
class Slot:
    """A place for a worker: its sockets stay when it dies, with those who wait to be let in."""

    number: int
    sockets: list[socket.socket]
    process: Process | None = None
    failures: int = 0
    due: float | None = 0.0  # when its next worker is to be started

    @property
    def pause(self) -> float:
        """Seconds until the next worker is started, after those that failed."""
        return min(PAUSE * 2 ** (self.failures - 1), LONGEST_PAUSE) if self.failures > 1 else 0.0

    def close(self) -> None:
        """Let go of the sockets; who has them still listens on."""
        for each in self.sockets:
            each.close()

    def turn_away(self) -> None:
        """Listen no more, and keep the address; whoever listens on it later begins anew."""
        for each in self.sockets:
            with suppress(OSError):
                # Where nobody listens, it would stay half closed, and so would all that it lets in later.
                if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    each.shutdown(socket.SHUT_RD)
