"""Streams held open: many readers at once, and when each of their chunks came."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from figures import percentile
from machine import cpu_seconds, resident
from servers import Server
from wire import AnswerError, connect, fetch, get

_EVENT = b"data: "


@dataclass(frozen=True, slots=True)
class Held:
    """What holding streams open took. Times are seconds, memory is bytes."""

    seconds: float
    chunks: int
    server_cpu: float
    client_cpu: float
    memory: int  # that the streams added
    late: Sequence[float]  # how late each chunk was

    def late_by(self, part: float) -> float:
        """Return how late the chunks of a part (0 to 1) were at most."""
        return percentile(self.late, part)


class _Reader:
    """One open stream. ``came`` are the times of its chunks."""

    __slots__ = ("came", "connection")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.came: list[float] = []


def hold(server: Server, streams: int, *, interval: float, window: float) -> Held:
    """Open streams evenly over two intervals, let them settle for one, then watch them for a window.

    A chunk is late against the schedule that its stream's own most punctual chunk sets, so that a pace
    which drifts is late too. Raises AnswerError where a stream ends, or a chunk is missing.
    """
    fetch(server.port, get("/paced?count=2&interval=1"))
    request = get(f"/paced?count=100000&interval={int(interval * 1000)}")
    before = resident(server.process)
    poll = select.epoll()
    readers: dict[int, _Reader] = {}
    clock = time.perf_counter
    try:
        start = clock()
        for number in range(streams):
            reader = _Reader(connect(server.port))
            reader.connection.setblocking(False)
            readers[reader.connection.fileno()] = reader
            poll.register(reader.connection, select.EPOLLIN)
            reader.connection.send(request)
            _read(poll, readers, start + 2 * interval * (number + 1) / streams)
        _read(poll, readers, clock() + interval)
        opened, used, own = clock(), cpu_seconds(server.process), time.process_time()
        _read(poll, readers, opened + window)
        closed = clock()
        used = cpu_seconds(server.process) - used
        own = time.process_time() - own
        memory = resident(server.process) - before
    finally:
        for reader in readers.values():
            reader.connection.close()
        poll.close()
    late = [each for reader in readers.values() for each in _lateness(reader.came, interval, opened, closed)]
    if len(late) < streams * (window / interval - 1):
        raise AnswerError(f"{len(late)} chunks came to {streams} readers in {window:g} s")
    return Held(closed - opened, len(late), used, own, memory, late)


def _read(poll: select.epoll, readers: dict[int, _Reader], until: float) -> None:
    """Note the chunks that come until then."""
    clock = time.perf_counter
    while (left := until - clock()) > 0:
        for number, _ in poll.poll(left):
            reader = readers[number]
            data = reader.connection.recv(1 << 16)
            if not data:
                raise AnswerError("a stream ended")
            reader.came += [clock()] * data.count(_EVENT)


def _lateness(came: Sequence[float], interval: float, opened: float, closed: float) -> list[float]:
    """Return how late the chunks within the window were."""
    phases = [at - number * interval for number, at in enumerate(came)]
    punctual = min(phases, default=0.0)
    return [phase - punctual for phase, at in zip(phases, came, strict=True) if opened <= at < closed]
