"""B9: one published chunk to 5,000 subscribers."""

from __future__ import annotations

import json
import resource
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from figures import median, percentile
from machine import cpu_seconds, resident
from results import Metric, Options, Target, nothing
from servers import NCHAN, OURS, Server
from wire import HOST, PATIENCE, AnswerError, connect, get

SUBSCRIBERS = 5000
#: Subscribers whose memory is measured, as far as this process may have as many connections.
HELD = 20_000
#: Of the subscribers, those that stop to read.
STALLED = 500
#: The last character of each message; it stands nowhere else in a response.
_LAST = b"~"
_TEXT = "A chunk to all of them, as long as a line of text is."
#: Messages that fill the buffers of those who do not read, and their bytes.
_FILLERS = 16
_FILLER = 16_384


class Fanout:
    """What is published reaches all subscribers: how late, at what rate, and what the subscribers cost."""

    key = "B9"
    title = f"one published chunk to {SUBSCRIBERS:,} subscribers"
    method = (
        f"A fresh server a round. Messages are published one after the other, each when all {SUBSCRIBERS:,} have the "
        "one before. Latency counts from the request to publish to when a subscriber has the message, read by one "
        f"process. Memory is what up to {HELD:,} subscribers added, divided by their number. The cost of slow "
        f"subscribers is the server's CPU time a message once {STALLED} more have stopped to read, against before."
    )
    peers = (OURS, "sse-starlette, a queue each", "Node ws", NCHAN)
    metrics = (
        Metric("rate", "deliveries/s", more=True),
        Metric("p99 latency", "ms"),
        Metric("p50 latency", "ms"),
        Metric("server CPU", "us/delivery"),
        Metric("memory", "KB/subscriber"),
        Metric("slow subscribers", "% of CPU"),
        Metric("load busy", "% of its core"),
    )
    targets = (
        Target("p99 latency", None, 250),
        Target("rate", "sse-starlette, a queue each", 3),
        Target("memory", None, 12),
        Target("slow subscribers", None, 2),
    )
    fresh = True

    behind = staticmethod(nothing)

    def content(self, server: Server) -> Any:
        with _Subscribers(server) as subscribers:
            subscribers.open(1)
            subscribers.publish(1, _TEXT)
            received = bytes(subscribers.readers[0].received)
        start = received.rindex(b"{")
        return json.loads(received[start : received.rindex(b"}") + 1])

    def measure(self, server: Server, options: Options) -> Mapping[str, float]:
        count = 10 if options.quick else 30
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        held = min(HELD, (limit - 800) * 2 // 3)  # our server leaves a third of the files to what runs open
        before = resident(server.process)
        with _Subscribers(server) as subscribers:
            subscribers.open(held)
            memory = (resident(server.process) - before) / held
            subscribers.close(held - SUBSCRIBERS)
            subscribers.rounds(3)
            usual = subscribers.rounds(count)
            subscribers.stall(STALLED)
            slow = subscribers.rounds(count)
        return {
            "rate": count * SUBSCRIBERS / usual.seconds,
            "p99 latency": percentile(usual.latencies, 0.99) * 1000,
            "p50 latency": percentile(usual.latencies, 0.5) * 1000,
            "server CPU": sum(usual.server_cpu) / count / SUBSCRIBERS * 1e6,
            "memory": memory / 1024,
            "slow subscribers": (median(slow.server_cpu) / median(usual.server_cpu) - 1) * 100,
            "load busy": usual.client_cpu / usual.seconds * 100,
        }


@dataclass(slots=True)
class _Rounds:
    """What some messages took, in seconds."""

    seconds: float = 0.0
    client_cpu: float = 0.0
    server_cpu: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


class _Reader:
    """One subscriber. ``received`` is kept of the first one only."""

    __slots__ = ("connection", "messages", "received")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.messages = 0
        self.received = bytearray()


class _Subscribers:
    """Connections to a server that have subscribed, and one to publish."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._request = _upgrade() if server.name == "Node ws" else get("/fanout")
        self._poll = select.epoll()
        self._stalled: list[socket.socket] = []
        self._sender = connect(server.port)
        self._number = 0
        self.readers: list[_Reader] = []
        self._by_number: dict[int, _Reader] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (self._sender, *self._stalled, *(each.connection for each in self.readers)):
            connection.close()
        self._poll.close()

    def open(self, count: int) -> None:
        """Open subscriptions, and wait until each has begun."""
        for _ in range(count):
            connection = connect(self._server.port)
            connection.send(self._request)
            reader = _Reader(connection)
            self.readers.append(reader)
            connection.setblocking(False)
            self._by_number[connection.fileno()] = reader
            self._poll.register(connection, select.EPOLLIN)
        waiting = set(self._by_number)
        until = time.perf_counter() + PATIENCE
        while waiting:
            if time.perf_counter() > until:
                raise AnswerError(f"{len(waiting)} subscriptions did not begin")
            for number, _ in self._poll.poll(1.0):
                if not self._by_number[number].connection.recv(1 << 16):
                    raise AnswerError("a subscription ended")
                waiting.discard(number)

    def close(self, count: int) -> None:
        """Close the newest subscriptions, and give the server time to notice."""
        for reader in self.readers[len(self.readers) - count :]:
            del self._by_number[reader.connection.fileno()]
            self._poll.unregister(reader.connection)
            reader.connection.close()
        del self.readers[len(self.readers) - count :]
        self._settle()

    def _settle(self) -> None:
        """Wait until the server does nothing."""
        while True:
            before = cpu_seconds(self._server.process)
            time.sleep(0.5)
            if cpu_seconds(self._server.process) - before < 0.02:
                return

    def stall(self, count: int) -> None:
        """Open subscriptions that are never read, and fill their buffers."""
        for _ in range(count):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((HOST, self._server.port))
            connection.send(self._request)
            self._stalled.append(connection)
        self._settle()
        for _ in range(_FILLERS):
            self.publish(len(self.readers), "x" * _FILLER)
        self._settle()

    def publish(self, count: int, text: str) -> list[float]:
        """Publish a message, and return when each of the subscribers had it, from then on."""
        self._number += 1
        body = b'{"number":%d,"text":"%b~"}' % (self._number, text.encode())
        head = b"POST /fanout HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        clock = time.perf_counter
        began = clock()
        self._sender.sendall(head % (HOST.encode(), len(body)) + body)
        latencies: list[float] = []
        by_number = self._by_number
        first = self.readers[0]
        while len(latencies) < count:
            ready = self._poll.poll(PATIENCE)
            if not ready:
                raise AnswerError(f"{count - len(latencies)} subscribers did not receive a message")
            for number, _ in ready:
                reader = by_number[number]
                data = reader.connection.recv(1 << 16)
                if not data:
                    raise AnswerError("a subscription ended")
                if reader is first:
                    reader.received += data
                if _LAST in data:
                    latencies.append(clock() - began)
        if b" 20" not in self._sender.recv(1 << 16)[:15]:
            raise AnswerError("the message was not published")
        return latencies

    def rounds(self, count: int) -> _Rounds:
        """Publish messages one after the other."""
        done = _Rounds()
        began, own = time.perf_counter(), time.process_time()
        for _ in range(count):
            before = cpu_seconds(self._server.process)
            done.latencies += self.publish(len(self.readers), _TEXT)
            done.server_cpu.append(cpu_seconds(self._server.process) - before)
        done.seconds = time.perf_counter() - began
        done.client_cpu = time.process_time() - own
        return done


def _upgrade() -> bytes:
    """Return the request that opens a WebSocket (RFC 6455, section 4.1)."""
    return (
        f"GET /fanout HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
