"""Many streams in one server, in a process of its own: what one costs, and what a reader who takes nothing does.

`benchmarks/promises_streams.py` measures the same with thousands, and how punctual they are.
"""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ENGINE = Path(__file__).parent.parent.parent / "engine"
PACED = """
method: GET
path: /paced
streaming: {compress: true}
functionStack:
  - repeat: {times: 100000, do: [{stream: {content: tick, pace: {mode: fixed, interval: 100ms}}}]}
"""
ENDLESS = """
method: GET
path: /endless
streaming: {slowClient: %s, buffer: 64KB}
functionStack:
  - set: {filling: '<< "x" * 1000 >>'}
  - while:
      condition: true
      limit: 100000000
      do: [{stream: << filling >>}, {when: << stream.count %% 20 == 0 >>, wait: 5ms}]
"""
_MAIN = "from streamstack.cli import main; main()"
#: Streams, and bytes that each may take.
STREAMS, MOST = 400, 40 * 1024
SLOW, BUFFER = 60, 64 * 1024

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")


@contextmanager
def served(folder: Path, *documents: str) -> Iterator[tuple[int, int]]:
    """Serve endpoints; give port and process."""
    for number, text in enumerate(documents):
        (folder / f"{number}.yaml").write_text(text, "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, "serve", str(folder), "--port", "0"],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ENGINE)},
    )
    try:
        assert process.stderr is not None
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line, "it does not serve"
            found = re.search(rb"127\.0\.0\.1:(\d+)\s*$", line)
        yield int(found[1]), process.pid
    finally:
        process.kill()
        process.communicate()


def resident(process: int) -> int:
    """Return the bytes of memory a process holds."""
    pages = Path(f"/proc/{process}/statm").read_text("utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Readers:
    """Readers of paced streams, and what came."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.poll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.came: dict[int, bytes] = {}

    def open(self, count: int, extra: str = "") -> None:
        """Open streams, and wait for the first chunk of each."""
        request = f"GET /paced HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode()
        opened = []
        for _ in range(count):
            each = socket.create_connection(("127.0.0.1", self.port))
            each.setblocking(False)
            each.send(request)
            self.sockets[each.fileno()] = each
            self.came[each.fileno()] = b""
            self.poll.register(each, select.EPOLLIN)
            opened.append(each.fileno())
        for _ in range(100):
            self.read(0.1)
            if all(self.came[number] for number in opened):
                return
        raise AssertionError("some stream does not begin")

    def read(self, seconds: float) -> None:
        """Take what comes for some time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for number, _ in self.poll.poll(left):
                data = self.sockets[number].recv(1 << 16)
                assert data, "a stream ended"
                self.came[number] += data

    def bodies(self) -> list[bytes]:
        """Return the bodies so far, without the framing of HTTP."""
        found = []
        for raw in self.came.values():
            rest, body = raw.partition(b"\r\n\r\n")[2], b""
            while match := re.match(rb"([0-9a-f]+)\r\n", rest):
                end = match.end() + int(match[1], 16)
                body += rest[match.end() : end]
                rest = rest[end + 2 :]
            found.append(body)
        return found

    def close(self) -> None:
        """Leave."""
        for each in self.sockets.values():
            each.close()
        self.poll.close()


def in_order(body: bytes) -> int:
    """Return how many chunks a body has, none of them missing."""
    numbers = [int(number) for number in re.findall(rb"data: tick\nid: (\d+)\n\n", body)]
    assert numbers == list(range(len(numbers)))
    return len(numbers)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_stream_among_many_takes_little(tmp_path: Path, compressed: bool) -> None:  # noqa: FBT001
    """No more than 40 KB each; all go on, none loses a chunk, compressed or not."""
    with served(tmp_path, PACED) as (port, process):
        readers = Readers(port)
        try:
            extra = "Accept-Encoding: gzip\r\n" if compressed else ""
            readers.open(50, extra)  # what the process takes for itself is taken
            before = resident(process)
            readers.open(STREAMS, extra)
            readers.read(1.5)
            grown = resident(process) - before
            bodies = readers.bodies()
        finally:
            readers.close()
    assert grown <= STREAMS * MOST, f"{grown / STREAMS:.0f} bytes a stream"
    if compressed:
        bodies = [zlib.decompressobj(31).decompress(body) for body in bodies]
    assert min(map(in_order, bodies)) >= 3


@pytest.mark.parametrize("mode", ["block", "dropOldest"])
def test_readers_who_do_not_read_cost_their_buffer(tmp_path: Path, mode: str) -> None:
    """And what any stream takes; those who read miss nothing meanwhile."""
    with served(tmp_path, PACED, ENDLESS % mode) as (port, process):
        readers, lazy = Readers(port), []
        try:
            readers.open(50)
            before = resident(process)
            for _ in range(SLOW):
                each = socket.socket()
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                each.connect(("127.0.0.1", port))
                each.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
                lazy.append(each)
            readers.read(3)
            grown = resident(process) - before
            bodies = readers.bodies()
        finally:
            readers.close()
            for each in lazy:
                each.close()
    assert grown <= SLOW * (BUFFER + MOST), f"{grown / SLOW:.0f} bytes a reader"
    assert min(map(in_order, bodies)) >= 5
