"""B4: a small JSON endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from load import drive
from results import Metric, Options, Target, nothing
from servers import OURS, Server
from wire import fetch, post

#: Clients that ask one request after the other.
LANES = 32


class Small:
    """Three inputs are checked, one variable set, one condition decided."""

    key = "B4"
    title = "Small JSON endpoint: 3 inputs, a `set`, an `if`"
    method = (
        f"{LANES} kept connections, one request at a time each; every answer's body is compared. "
        "µs/request is the server's CPU time."
    )
    peers = (OURS, "aiohttp", "FastAPI", "Fastify")
    metrics = (
        Metric("throughput", "requests/s", more=True),
        Metric("server CPU", "µs/request"),
        Metric("server busy", "% of its core"),
        Metric("load busy", "% of its core"),
    )
    targets = (Target("throughput", "FastAPI", 1.5), Target("throughput", "aiohttp", 0.8))
    fresh = False
    _request = post("/quote", {"article": "A4 paper, 80 g", "quantity": 12, "express": True})

    behind = staticmethod(nothing)

    def content(self, server: Server) -> Any:
        cheap = post("/quote", {"article": "A4 paper, 80 g", "quantity": 12})
        return [json.loads(fetch(server.port, each).body) for each in (self._request, cheap)]

    def measure(self, server: Server, options: Options) -> Mapping[str, float]:
        seconds = 1.0 if options.quick else 4.0
        body = fetch(server.port, self._request).body

        def whole(buffer: bytearray, filled: int) -> bool:
            return buffer.endswith(body, 0, filled)

        drive(server, self._request, whole, lanes=LANES, seconds=0.3, size=1 << 12)
        load = drive(server, self._request, whole, lanes=LANES, seconds=seconds, size=1 << 12)
        return {
            "throughput": load.rate,
            "server CPU": load.server_cpu / load.answers * 1e6,
            "server busy": load.server_cpu / load.seconds * 100,
            "load busy": load.client_cpu / load.seconds * 100,
            "others on both cores": load.foreign_cpu / load.seconds * 100,
        }
