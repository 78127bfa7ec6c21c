"""B1: a burst of 1,000 chunks over server-sent events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from load import drive
from results import Metric, Options, Target, nothing
from servers import OURS, Server
from wire import LAST, AnswerError, events, fetch, get, timeless

CHUNKS = 1000
#: Bursts asked for at once.
LANES = 8


class Burst:
    """A burst of chunks with metadata, as many readers as keep the server busy."""

    key = "B1"
    title = "Burst of 1,000 chunks, with metadata, over SSE"
    method = (
        f"{LANES} kept connections ask for burst after burst; every answer is counted through. "
        "µs/chunk is the server's CPU time, so it holds where the machine was not ours alone."
    )
    peers = (OURS, "aiohttp", "FastAPI", "sse-starlette", "Node http")
    metrics = (
        Metric("throughput", "chunks/s", more=True),
        Metric("server CPU", "µs/chunk"),
        Metric("server busy", "% of its core"),
        Metric("load busy", "% of its core"),
    )
    targets = (
        Target("throughput", "aiohttp", 3),
        Target("throughput", "FastAPI", 3),
        Target("throughput", "sse-starlette", 8),
        Target("throughput", "Node http", 1.2),
    )
    fresh = False
    _request = get(f"/burst?count={CHUNKS}")

    behind = staticmethod(nothing)

    def content(self, server: Server) -> Any:
        return timeless(events(fetch(server.port, self._request).body))

    def measure(self, server: Server, options: Options) -> Mapping[str, float]:
        seconds = 1.0 if options.quick else 4.0
        drive(server, self._request, whole, lanes=LANES, seconds=0.3, size=1 << 20)
        load = drive(server, self._request, whole, lanes=LANES, seconds=seconds, size=1 << 20)
        return {
            "throughput": load.rate * CHUNKS,
            "server CPU": load.server_cpu / (load.answers * CHUNKS) * 1e6,
            "server busy": load.server_cpu / load.seconds * 100,
            "load busy": load.client_cpu / load.seconds * 100,
            "others on both cores": load.foreign_cpu / load.seconds * 100,
        }


def whole(buffer: bytearray, filled: int) -> bool:
    """Whether a burst is complete. Raises AnswerError where it has not all its events."""
    if not buffer.endswith(LAST, 0, filled):
        return False
    count = buffer.count(b"data: ", 0, filled)
    if count != CHUNKS + 1:  # and the end marker
        raise AnswerError(f"{count} events came, not {CHUNKS + 1}")
    return True
