"""B5: 2,000 open streams, a chunk a second each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from held import hold
from results import Metric, Options, Target, nothing
from servers import OURS, Server
from wire import events, fetch, get, timeless

STREAMS = 2000


class OpenStreams:
    """Many readers of slow streams: what one costs in CPU time and memory, and whether it is on time."""

    key = "B5"
    title = f"{STREAMS:,} open SSE streams, a chunk a second each"
    method = (
        "A fresh server a round; the streams are opened evenly over two seconds. A chunk is late against "
        "the schedule of its own stream. Memory is what the streams added, divided by their number."
    )
    peers = (OURS, "aiohttp", "Node http")
    metrics = (
        Metric("CPU", "% of a core"),
        Metric("memory", "KB/stream"),
        Metric("p99 lateness", "ms"),
        Metric("p50 lateness", "ms"),
        Metric("load busy", "% of its core"),
    )
    targets = (Target("CPU", "aiohttp", 1), Target("memory", "aiohttp", 1.5), Target("p99 lateness", "aiohttp", 1))
    fresh = True

    behind = staticmethod(nothing)

    def content(self, server: Server) -> Any:
        return timeless(events(fetch(server.port, get("/paced?count=3&interval=20")).body))

    def measure(self, server: Server, options: Options) -> Mapping[str, float]:
        held = hold(server, STREAMS, interval=1.0, window=3.0 if options.quick else 10.0)
        return {
            "CPU": held.server_cpu / held.seconds * 100,
            "memory": held.memory / STREAMS / 1024,
            "p99 lateness": held.late_by(0.99) * 1000,
            "p50 lateness": held.late_by(0.5) * 1000,
            "load busy": held.client_cpu / held.seconds * 100,
        }
