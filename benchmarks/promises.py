"""Measure what the project promises of its own definitions: `.venv/bin/python -m benchmarks.promises`.

The first chunk of the poem, the reads of a paced poem, the writes of a burst, the answers of others beside a run
that only computes, and how soon a run ends after its reader has left; then how fast, and in how much memory, CSV of
2 GB (or of as many MB as the argument says) is read from an upload and from a request body as it arrives, and how soon
a body is answered. Prints medians and spreads.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from asyncio.subprocess import Process
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


#: Endpoints that count the rows of CSV, and one that answers each line.
RECEIVING = {
    name: f"""
method: POST
path: /{name}
responseType: json
inputParameters: {{csv: {{{declared}, required: true, maxSize: 8GB}}}}
functionStack:
{read}
  - set: {{count: 0}}
  - forEach: {{in: << {rows} >>, as: row, do: [{{set: {{count: << count + 1 >>}}}}]}}
response: << count >>
"""
    for name, declared, read, rows in (
        ("upload", "type: file", "  - csv.read: << input.csv >>\n    as: rows", "rows"),
        ("body", "type: stream, decode: csv", "", "input.csv"),
    )
} | {
    "echo": """
method: POST
path: /echo
inputParameters: {lines: {type: stream, decode: lines}}
functionStack: [{forEach: {in: << input.lines >>, do: [{stream: << item >>}]}}]
"""
}


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[int, Process]]:
    """Serve a folder in a process of its own; give its port and the process, whose log is a pipe."""
    command = [sys.executable, "-c", "from streamstack.cli import main; main()", "serve"]
    process = await asyncio.create_subprocess_exec(*command, str(folder), "--port", "0", stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        while line := await process.stderr.readline():
            if found := re.search(rb"127\.0\.0\.1:(\d+)\s*$", line):
                break
        else:
            raise RuntimeError(f"{folder} can't be served")
        yield int(found[1]), process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """Serve a folder in a process of its own; give its port and its log."""
    async with running(folder) as (port, process):
        assert process.stderr is not None
        yield port, process.stderr


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
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def told(what: str, seconds: list[float]) -> None:
    """Print the median, the 99th percentile and the largest, in milliseconds."""
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    figures = [f"{1000 * each:.2f}" for each in (median(ordered), last, ordered[-1])]
    print(f"{what}: median {figures[0]} ms, p99 {figures[1]} ms, largest {figures[2]} ms ({len(ordered)})")


async def poem() -> None:
    """Measure the first chunk, and count the reads of a paced poem."""
    async with serving(ROOT / "definitions") as (port, _):
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
        async with serving(folder) as (port, log):
            _, data = await read(port, get("/burst"))
            frames = len(re.findall(rb"(?:^|\r\n)[0-9a-f]+\r\n", data.partition(b"\r\n\r\n")[2])) - 1
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


def resident(process: Process) -> float:
    """Return the resident memory of a process, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found is not None else 0.0


async def send_csv(port: int, path: str, size: int) -> tuple[float, int]:
    """Send CSV of about so many bytes; return the seconds to the answer, and the rows that were sent."""
    row = b"%d,customer %d,2026-01-01,%d.50,some description here,EUR\n"
    block = b"".join(row % (number, number, number % 1000) for number in range(5000))
    blocks = max(size // len(block), 1)
    head, tail, media = b"id,name,date,amount,text,currency\n", b"", b"text/csv"
    if path == "/upload":
        part = b'--X\r\nContent-Disposition: form-data; name="csv"; filename="a.csv"\r\n\r\n'
        head, tail, media = part + head, b"\r\n--X--\r\n", b"multipart/form-data; boundary=X"
    length = len(head) + blocks * len(block) + len(tail)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = perf_counter()
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: %b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), media, length, head)
    )
    for _ in range(blocks):
        writer.write(block)
        await writer.drain()
    writer.write(tail)
    answer = await reader.read()
    took = perf_counter() - began
    writer.close()
    rows = blocks * 5000
    if not answer.endswith(b"\r\n\r\n%d" % rows):
        raise RuntimeError(answer[:1000].decode("utf-8", "replace"))
    return took, rows


async def files(megabytes: int) -> None:
    """Measure speed and memory of large CSV, uploaded and as it arrives; and the first answer to a body."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, text in RECEIVING.items():
            (folder / f"{stem}.yaml").write_text(text, "utf-8")
        for path in ("/upload", "/body"):
            async with running(folder) as (port, process):
                await send_csv(port, path, 1_000_000)
                before = highest = resident(process)
                sending = asyncio.create_task(send_csv(port, path, megabytes * 1_000_000))
                while not sending.done():
                    highest = max(highest, resident(process))
                    await asyncio.sleep(0.05)
                took, rows = await sending
            print(
                f"{megabytes} MB of CSV, {path[1:]}: {took:.1f} s, {megabytes / took:.0f} MB/s, {rows} rows, "
                f"memory {before:.0f} MB and at most {highest - before:.0f} MB more"
            )
        async with running(folder) as (port, _):
            answers = []
            for _ in range(200):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                await asyncio.sleep(0.002)
                began = perf_counter()
                writer.write(b"2\r\na\n\r\n")
                await reader.readuntil(b"data: a")
                answers.append(perf_counter() - began)
                writer.close()
        told("from the first piece of a body to the first chunk", answers)


if __name__ == "__main__":
    asyncio.run(poem())
    asyncio.run(others())
    asyncio.run(files(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
