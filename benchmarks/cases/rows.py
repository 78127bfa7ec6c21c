"""B3: a table as NDJSON."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from machine import cores, cpu_seconds
from postgres import ROWS, copy, programs, start
from results import Behind, LeftOutError, Metric, Options, Target
from servers import HERE, OURS, Server, streamstack
from wire import LAST, AnswerError, connect, fetch, get

_DEFINITIONS = HERE / "readings"


class Rows:
    """A whole table goes through the server as it comes."""

    key = "B3"
    title = f"{ROWS:,} rows of 6 columns from PostgreSQL as NDJSON"
    method = (
        "One client downloads the table again and again; PostgreSQL runs beside the load. µs/row is the server's CPU "
        "time. *of psql* is the throughput against `COPY (SELECT row_to_json(...)) TO STDOUT` by psql on the servers' "
        "core, measured beside each."
    )
    peers = (OURS, "FastAPI + asyncpg", "aiohttp + asyncpg", "Node + pg-cursor")
    metrics = (
        Metric("throughput", "rows/s", more=True),
        Metric("server CPU", "µs/row"),
        Metric("of psql", "x", more=True),
        Metric("server busy", "% of its core"),
        Metric("load busy", "% of its core"),
    )
    targets = (
        Target("throughput", "FastAPI + asyncpg", 3),
        Target("throughput", "Node + pg-cursor", 1.5),
        Target("of psql", None, 0.4),
    )
    fresh = False
    _request = get("/rows").replace(b"text/event-stream", b"application/x-ndjson")

    def __init__(self) -> None:
        self._programs = Path()
        self._url = ""

    def behind(self, stack: ExitStack) -> Behind:
        _validate(_DEFINITIONS)
        found = programs()
        if found is None:
            raise LeftOutError("there is no PostgreSQL (on Debian: apt-get install postgresql)")
        self._programs = found
        self._url = start(stack, found, cores()[1])
        return Behind({"DATABASE_URL": self._url}, _DEFINITIONS)

    def content(self, server: Server) -> Any:
        lines = fetch(server.port, self._request).body.splitlines()
        if len(lines) != ROWS:
            raise AnswerError(f"{server.name} gave {len(lines)} rows of {ROWS}")
        return [_plain(json.loads(line)) for line in (*lines[:3], lines[-1])]

    def measure(self, server: Server, options: Options) -> Mapping[str, float]:
        times = 1 if options.quick else 4
        copied = copy(self._programs, self._url, cores()[0])
        with connect(server.port) as connection:
            _download(connection, self._request)
            before, used, own = (time.perf_counter(), cpu_seconds(server.process), time.process_time())
            for _ in range(times):
                _download(connection, self._request)
            seconds = time.perf_counter() - before
            used = cpu_seconds(server.process) - used
            own = time.process_time() - own
        rate = ROWS * times / seconds
        return {
            "throughput": rate,
            "server CPU": used / (ROWS * times) * 1e6,
            "of psql": rate / (ROWS / copied),
            "server busy": used / seconds * 100,
            "load busy": own / seconds * 100,
        }


def _validate(folder: Path) -> None:
    """Raise LeftOutError where our definition is none, as where no function reads databases."""
    done = subprocess.run([streamstack(), "validate", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LeftOutError(f"the definition is not valid here:\n{done.stdout}{done.stderr}")


def _download(connection: socket.socket, request: bytes) -> None:
    """Read one answer and count its lines, keeping none of it."""
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    connection.sendall(request)
    found, last = 0, b""
    while not last.endswith(LAST):
        count = connection.recv_into(view)
        if not count:
            raise AnswerError("the connection was closed")
        found += buffer.count(b'{"id":', 0, count)
        # Of what is cut in two by the end of a read, the end stands in the next one's beginning.
        joint = last[-5:] + view[: min(count, 5)].tobytes()
        found += len(last) > 0 and b'{"id":' in joint
        last = (last + view[max(count - 16, 0) : count].tobytes())[-16:]
    if found != ROWS:
        raise AnswerError(f"{found} rows of {ROWS}")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its time as one, however it is written."""
    return {**row, "at": datetime.fromisoformat(row["at"]).timestamp()}
