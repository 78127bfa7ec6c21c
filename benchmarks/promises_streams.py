"""Measure what is promised of many streams: `.venv/bin/python -m benchmarks.promises_streams`, about two minutes.

First 5,000 paced streams (or as many as the first argument says), a chunk a second each, in one server on one core,
plain and compressed: what one costs in resident memory and CPU, and how late its chunks come. Then 200 readers who take
nothing of an endless fast stream, for each way to treat a slow reader and two sizes of `buffer`, beside 500 readers of
paced streams: what a reader who does not read costs, in our memory and in the system's, and whether the others are on
time. A stream's own memory, without what it holds, is in both. How long the server waited for its core, because others
used it, is given beside: so much of the lateness is not its own.
"""

from __future__ import annotations

import os
import re
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HOST = "127.0.0.1"
#: Readers of paced streams beside those who do not read, and how many those are.
OTHERS, SLOW = 500, 200
PAGE = os.sysconf("SC_PAGE_SIZE")

PACED = """
method: GET
path: /paced
streaming: {compress: true}
functionStack:
  - repeat:
      times: 1000000
      do:
        - stream:
            content: Chunk << loop.index0 >> of a stream, as long as a line of text is.
            metadata: {chunkIndex: << stream.count >>, timestamp: << now() >>}
            pace: {mode: fixed, interval: 1s}
"""
ENDLESS = """
method: GET
path: /endless
streaming: {slowClient: %s, buffer: %s}
functionStack:
  - set: {filling: '<< "x" * 1000 >>'}
  - while:
      condition: true
      limit: 100000000
      do: [{stream: << filling >>}, {when: << stream.count %% 10 == 0 >>, wait: 20ms}]
"""


@contextmanager
def serving(*documents: str) -> Iterator[tuple[int, int]]:
    """Serve endpoints on the first core; give port and process."""
    with tempfile.TemporaryDirectory() as name:
        for number, text in enumerate(documents):
            (Path(name) / f"{number}.yaml").write_text(text, "utf-8")
        command = [sys.executable, "-c", "from streamstack.cli import main; main()", "serve", name]
        process = subprocess.Popen(
            [*command, "--port", "0"],
            stderr=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, {min(CORES)}),  # noqa: PLW1509  (no threads here)
        )
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(rb"127\.0\.0\.1:(\d+)\s*$", line):
                    break
            else:
                raise RuntimeError("it can't be served")
            yield int(found[1]), process.pid
        finally:
            process.terminate()
            process.communicate()


def resident(process: int) -> int:
    """Return the bytes of memory a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text("utf-8").split()[1]) * PAGE


def cpu(process: int) -> float:
    """Return the CPU time of a process, in seconds."""
    return time.clock_gettime((~process << 3) | 2)


def waited(process: int) -> float:
    """Return how long a process was ready and others had its core, in seconds (proc(5), schedstat)."""
    return int(Path(f"/proc/{process}/schedstat").read_text("utf-8").split()[1]) / 1e9


def kernel() -> int:
    """Return the bytes that the system holds for all TCP sockets."""
    found = re.search(r"TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text("utf-8"))
    return int(found[1]) * PAGE if found is not None else 0


class Readers:
    """Readers of paced streams, and when each chunk came to whom."""

    def __init__(self, port: int, *, compressed: bool = False) -> None:
        self.port = port
        extra = b"Accept-Encoding: gzip\r\n" if compressed else b""
        # What each chunk has once: a late reader finds several at once. Compressed, it is what a flush ends with.
        self.mark = b"\x00\x00\xff\xff" if compressed else b"\ndata: "
        self.request = b"GET /paced HTTP/1.1\r\nHost: x\r\n%b\r\n" % extra
        self.poll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.came: dict[int, list[float]] = {}

    def open(self, count: int, seconds: float) -> None:
        """Open streams evenly over a time."""
        began = time.perf_counter()
        for number in range(count):
            each = socket.create_connection((HOST, self.port))
            each.setblocking(False)
            self.sockets[each.fileno()] = each
            self.came[each.fileno()] = []
            self.poll.register(each, select.EPOLLIN)
            each.send(self.request)
            self.read(began + seconds * (number + 1) / count)

    def read(self, until: float) -> None:
        """Note what comes until then."""
        while (left := until - time.perf_counter()) > 0:
            for number, _ in self.poll.poll(left):
                data = self.sockets[number].recv(1 << 16)
                if not data:
                    raise RuntimeError("a stream ended")
                self.came[number] += [time.perf_counter()] * data.count(self.mark)

    def late(self, since: float) -> list[float]:
        """Return how late chunks were against the most punctual of their stream, in order."""
        found = []
        for times in self.came.values():
            phases = [at - number for number, at in enumerate(times)]
            punctual = min(phases, default=0.0)
            found += [phase - punctual for phase, at in zip(phases, times, strict=True) if at >= since]
        return sorted(found)

    def close(self) -> None:
        """Leave."""
        for each in self.sockets.values():
            each.close()
        self.poll.close()


def told(late: Sequence[float]) -> str:
    """Return the median, the 99th percentile and the largest, in milliseconds."""
    parts = [late[len(late) // 2], late[int(len(late) * 0.99)], late[-1]]
    return "late by {:.1f} ms (median), {:.1f} (p99), {:.1f} (largest)".format(*(1000 * each for each in parts))


def paced(streams: int, *, compressed: bool) -> None:
    """Measure many paced streams."""
    with serving(PACED) as (port, process):
        readers, warm = (Readers(port, compressed=compressed) for _ in range(2))
        warm.open(20, 0.2)
        warm.close()
        time.sleep(0.3)
        before = resident(process)
        readers.open(streams, streams / 1000)
        readers.read(time.perf_counter() + 2)
        began, used, kept_off = time.perf_counter(), cpu(process), waited(process)
        readers.read(began + 10)
        used = (cpu(process) - used) / (time.perf_counter() - began)
        kept_off = waited(process) - kept_off
        memory = (resident(process) - before) / streams / 1024
        late = readers.late(began)
        readers.close()
    kind = "compressed" if compressed else "plain"
    print(
        f"{streams} streams, {kind}: {memory:.1f} KB resident each, {100 * used:.0f} % of a core "
        f"({1e6 * used / streams:.0f} us a chunk), {told(late)}; waited {kept_off:.2f} s for the core"
    )


def slow(mode: str, buffer: str) -> None:
    """Measure readers who do not read, beside readers who do."""
    with serving(PACED, ENDLESS % (mode, buffer)) as (port, process):
        others = Readers(port)
        others.open(OTHERS, 1.0)
        others.read(time.perf_counter() + 2)
        before, system = resident(process), kernel()
        lazy = []
        for _ in range(SLOW):
            each = socket.socket()
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.connect((HOST, port))
            each.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            lazy.append(each)
            others.read(time.perf_counter() + 0.005)
        others.read(time.perf_counter() + 4)
        began, used, kept_off = time.perf_counter(), cpu(process), waited(process)
        others.read(began + 8)
        used = (cpu(process) - used) / (time.perf_counter() - began)
        kept_off = waited(process) - kept_off
        memory = (resident(process) - before) / SLOW / 1024
        system = (kernel() - system) // SLOW // 1024
        late = others.late(began)
        others.close()
        for each in lazy:
            each.close()
    print(
        f"{SLOW} readers who do not read, {mode}, buffer {buffer}: {memory:.0f} KB resident each, {system} KB the "
        f"system's, {100 * used:.0f} % of a core; {OTHERS} others {told(late)}; waited {kept_off:.2f} s for the core"
    )


def main() -> None:
    """Measure all of it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {max(CORES)})
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    paced(streams, compressed=False)
    paced(streams, compressed=True)
    for mode in ("block", "dropOldest", "disconnect"):
        for buffer in ("64KB", "256KB"):
            slow(mode, buffer)


#: The cores there are, before this process binds itself to one.
CORES = os.sched_getaffinity(0)

if __name__ == "__main__":
    main()
