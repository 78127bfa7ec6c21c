"""Measure what the project promises of its own definitions: `.venv/bin/python -m benchmarks.promises`.

The first chunk of the poem, the reads of a paced poem, the writes of a burst, the answers of others beside a run
that only computes, and how soon a run ends after its reader has left. Prints medians and spreads.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, time

ROOT = Path(__file__).parent.parent
FILES = {
    "burst": """
method: GET
path: /burst
functionStack: [{repeat: {times: 10000, do: [{stream: << loop.index0 >>}]}}]
""",
    "turns": """
method: GET
path: /turns
responseType: json
functionStack:
  - set: {n: 0}
  - while: {condition: << n < 1000000 >>, limit: 1000000, do: [{set: {n: << n + 1 >>}}]}
response: << n >>
""",
    "quick": """
method: GET
path: /quick
responseType: json
functionStack: []
response: ok
""",
    "endless": """
method: GET
path: /endless
functionStack:
  - after: {do: [{log: {message: left, fields: {at: << (now() | toDecimal) >>}}}]}
  - while: {condition: true, limit: 100000000, do: [{stream: {content: tick, delay: 20ms}}]}
""",
}


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[int, asyncio.StreamReader, int]]:
    """Serve a folder in a process of its own; give its port, its log and its number."""
    command = [sys.executable, "-c", "from streamstack.cli import main; main()", "serve"]
    process = await asyncio.create_subprocess_exec(
        *command, str(folder), "--port", "0", stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while not (found := re.search(rb"127\.0\.0\.1:(\d+)\s*$", await process.stderr.readline())):
            pass
        yield int(found[1]), process.stderr, process.pid
    finally:
        process.terminate()
        await process.communicate()


async def read(port: int, request: bytes) -> tuple[list[float], bytes]:
    """Send a request on a connection of its own; return the seconds to each read, and all bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    began = perf_counter()
    writer.write(request)
    times, data = [], b""
    while piece := await reader.read(1 << 20):
        times.append(perf_counter() - began)
        data += piece
    writer.close()
    return times, data


def get(path: str) -> bytes:
    """Return a GET request that closes its connection."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def post(path: str, body: object) -> bytes:
    """Return a POST request with a JSON body that closes its connection."""
    data = json.dumps(body).encode()
    head = "Connection: close\r\nContent-Type: application/json\r\n"
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(data)}\r\n\r\n".encode()
        + data
    )


def told(what: str, seconds: list[float]) -> None:
    """Print the median, the 99th percentile and the largest, in milliseconds."""
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    figures = [f"{1000 * each:.2f}" for each in (median(ordered), last, ordered[-1])]
    print(
        f"{what}: median {figures[0]} ms, p99 {figures[1]} ms, largest {figures[2]} ms ({len(ordered)})"
    )


async def poem() -> None:
    """Measure the first chunk, and count the reads of a paced poem."""
    async with serving(ROOT / "definitions") as (port, _, _):
        firsts, reads = [], []
        for _ in range(200):
            times, _ = await read(port, post("/api/stream-poem", {}))
            firsts.append(times[0])
        for _ in range(10):
            times, _ = await read(port, post("/api/stream-poem", {"options": {"delay": 20}}))
            reads.append(len(times))
    told("first chunk of the poem", firsts)
    print(f"reads of nine paced chunks and the end: {min(reads)} to {max(reads)}")


async def others() -> None:
    """Measure the burst, the fairness and the end of a run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, text in FILES.items():
            (folder / f"{stem}.yaml").write_text(text, "utf-8")
        async with serving(folder) as (port, log, _):
            _, data = await read(port, get("/burst"))
            frames = (
                len(re.findall(rb"(?:^|\r\n)[0-9a-f]+\r\n", data.partition(b"\r\n\r\n")[2])) - 1
            )
            print(f"a burst of 10,000 chunks: {frames} writes")
            turning = asyncio.create_task(read(port, get("/turns")))
            beside = []
            while not turning.done():
                beside.append((await read(port, get("/quick")))[0][-1])
                await asyncio.sleep(0.002)
            told("an answer beside a million turns", beside)
            ends = []
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(get("/endless"))
                await reader.readuntil(b"id: 3")
                writer.close()
                left = time()
                while b'"left"' not in (line := await log.readline()):
                    pass
                ends.append(float(json.loads(line)["at"]) - left)
            told("from a reader's leaving to the run's end", ends)


if __name__ == "__main__":
    asyncio.run(poem())
    asyncio.run(others())
