"""B6: how soon the first chunk of a paced stream is there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from figures import percentile
from results import Metric, Options, Target, nothing
from servers import OURS, Server
from wire import LAST, AnswerError, connect, events, fetch, get, timeless

WARM_UP = 20


class FirstChunk:
    """One client at a time: from the request to the first chunk."""

    key = "B6"
    title = "First chunk of a paced stream, one client"
    method = (
        "One kept connection asks for three chunks, 4 ms apart, again and again; the time runs from before "
        "the request is sent until the first event is read."
    )
    peers = (OURS, "aiohttp", "FastAPI", "Node http")
    metrics = (Metric("p50", "ms"), Metric("p99", "ms"))
    targets = (Target("p50", "aiohttp", 0.3, difference=True), Target("p99", "aiohttp", 1.0, difference=True))
    fresh = False
    _request = get("/paced?count=3&interval=4")

    behind = staticmethod(nothing)

    def content(self, server: Server) -> Any:
        return timeless(events(fetch(server.port, self._request).body))

    def measure(self, server: Server, options: Options) -> Mapping[str, float]:
        with connect(server.port) as connection:
            times = []
            for _ in range(WARM_UP + (100 if options.quick else 300)):
                data = bytearray()
                first = 0.0
                before = time.perf_counter()
                connection.sendall(self._request)
                while not data.endswith(LAST):
                    piece = connection.recv(1 << 16)
                    if not piece:
                        raise AnswerError("the connection was closed")
                    data += piece
                    if not first and b"data: " in data:
                        first = time.perf_counter()
                times.append((first - before) * 1000)
        measured = times[WARM_UP:]
        return {"p50": percentile(measured, 0.5), "p99": percentile(measured, 0.99)}
