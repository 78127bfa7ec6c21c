"""The load: connections kept busy by one epoll loop, lean enough never to be what is measured."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from machine import busy_seconds, cores, cpu_seconds
from servers import Server
from wire import PATIENCE, AnswerError, connect

#: Whether an answer is whole: given the buffer and how much of it is filled. Raises AnswerError.
Whole = Callable[[bytearray, int], bool]


@dataclass(frozen=True, slots=True)
class Load:
    """What a window of load gave. CPU times are of the window."""

    answers: float  # those begun count for the part that came
    seconds: float
    server_cpu: float
    client_cpu: float
    foreign_cpu: float  # what others took of both cores

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


class _Lane:
    """One connection: a request, its answer, the next request."""

    __slots__ = ("buffer", "connection", "filled", "idle", "view")

    def __init__(self, connection: socket.socket, size: int) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.buffer = bytearray(size)
        self.view = memoryview(self.buffer)
        self.filled = 0
        self.idle = False


def drive(server: Server, request: bytes, whole: Whole, *, lanes: int, seconds: float, size: int) -> Load:
    """Keep ``lanes`` connections asking, for some seconds; ``size`` is the largest answer in bytes.

    Answers that were begun are read to their end, so that the next measurement finds a server at rest.
    Raises AnswerError for an answer that is wrong, too long, or does not come.
    """
    poll = select.epoll()
    open_lanes: dict[int, _Lane] = {}
    try:
        for _ in range(lanes):
            lane = _Lane(connect(server.port), size)
            open_lanes[lane.connection.fileno()] = lane
            poll.register(lane.connection, select.EPOLLIN)
        before = _clocks(server)
        for lane in open_lanes.values():
            lane.connection.send(request)
        full, received = _run(poll, open_lanes, request, whole, before[0] + seconds)
        after = _clocks(server)
        rest = sum(lane.filled for lane in open_lanes.values())
        _let_end(poll, open_lanes, whole)
    finally:
        for lane in open_lanes.values():
            lane.connection.close()
        poll.close()
    if not full:
        raise AnswerError(f"{server.name} gave no whole answer in {seconds:g} s")
    lasted, used, client, busy = (b - a for a, b in zip(before, after, strict=True))
    return Load(
        answers=full + rest / ((received - rest) / full),
        seconds=lasted,
        server_cpu=used,
        client_cpu=client,
        foreign_cpu=max(0.0, busy - used - client),
    )


def _clocks(server: Server) -> tuple[float, float, float, float]:
    return (time.perf_counter(), cpu_seconds(server.process), time.process_time(), sum(map(busy_seconds, set(cores()))))


def _run(poll: select.epoll, lanes: dict[int, _Lane], request: bytes, whole: Whole, until: float) -> tuple[int, int]:
    """Keep the lanes busy; return the whole answers and the bytes that came."""
    full = received = 0
    clock = time.perf_counter
    # A slow server on a busy machine may need longer for the first answer; without one there is no figure.
    while (now := clock()) < until or (not full and now < until + PATIENCE):
        ready = poll.poll(max(until - now, 0.05))
        for number, _ in ready:
            lane = lanes[number]
            count = lane.connection.recv_into(lane.view[lane.filled :])
            received += count
            if _take(lane, count, whole):
                full += 1
                lane.filled = 0
                lane.connection.send(request)
    return full, received


def _take(lane: _Lane, count: int, whole: Whole) -> bool:
    if not count:
        raise AnswerError(f"closed, or over the size, after {bytes(lane.view[:200])!r}")
    lane.filled += count
    return whole(lane.buffer, lane.filled)


def _let_end(poll: select.epoll, lanes: dict[int, _Lane], whole: Whole) -> None:
    """Read the answers that were begun to their end."""
    until = time.perf_counter() + PATIENCE
    waiting = len(lanes)
    while waiting:
        if time.perf_counter() > until:
            raise AnswerError("an answer did not come to its end")
        for number, _ in poll.poll(1.0):
            lane = lanes[number]
            if lane.idle:
                raise AnswerError("more came than was asked for")
            if _take(lane, lane.connection.recv_into(lane.view[lane.filled :]), whole):
                lane.idle = True
                waiting -= 1
