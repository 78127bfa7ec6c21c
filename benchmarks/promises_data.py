"""Measure what the project promises of data: `.venv/bin/python -m benchmarks.promises_data`.

Ten million rows of a database: how much the server's memory grows, and how soon the first row is there.
The database is the embedded one.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from asyncio.subprocess import Process
from pathlib import Path
from time import perf_counter

from benchmarks.promises import get, resident, running, told

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
FILES = {
    "rows.yaml": """
method: GET
path: /rows
inputParameters: {count: {type: integer, required: true}}
functionStack:
  - db.stream: SELECT generate_series(1, << input.count >>) AS n, 'a row' AS name, now() AS at
    as: rows
  - forEach: {in: << rows >>, as: row, do: [{stream: << row >>}]}
---
method: GET
path: /changed
inputParameters: {count: {type: integer, required: true}}
functionStack:
  - db.stream: SELECT generate_series(1, << input.count >>) AS n, 'a row' AS name, now() AS at
    as: rows
  - forEach: {in: << rows >>, as: row, do: [{stream: << row.n >>}]}
"""
}


def project(name: str) -> Path:
    """Write the definitions into a folder that the database's own user can reach."""
    folder = Path(name)
    folder.chmod(0o755)
    for file, text in FILES.items():
        (folder / file).write_text(text, "utf-8")
    return folder


async def drain(port: int, path: str, process: Process) -> tuple[int, float, float]:
    """Read an answer to its end; return its lines, the most memory meanwhile in MB, and the seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    began = perf_counter()
    writer.write(get(path).replace(b"Host: x", b"Host: x\r\nAccept: application/x-ndjson"))
    lines, most, looked, last = 0, 0.0, 0.0, b""
    while piece := await reader.read(1 << 20):
        # The lines of HTTP's own framing end in CR LF, which may be cut in two.
        lines += piece.count(b"\n") - (last + piece).count(b"\r\n")
        last = piece[-1:]
        if perf_counter() - looked > 0.1:
            most, looked = max(most, resident(process)), perf_counter()
    writer.close()
    return lines, most, perf_counter() - began


async def first_byte(port: int, path: str) -> float:
    """Return the seconds to the first bytes of an answer, and leave."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = perf_counter()
    writer.write(get(path))
    await reader.read(1)
    seconds = perf_counter() - began
    writer.transport.abort()
    return seconds


async def ten_million_rows() -> None:
    """Measure the growth of memory and the first row."""
    with tempfile.TemporaryDirectory() as name:
        async with running(project(name)) as (port, process):
            for path in ("/rows", "/changed"):
                await drain(port, f"{path}?count=1000", process)
                before = resident(process)
                lines, most, seconds = await drain(port, f"{path}?count={ROWS}", process)
                print(
                    f"{path}: {lines:,} lines in {seconds:.1f} s, memory from {before:.1f} "
                    f"to at most {most:.1f} MB (+{most - before:.1f})"
                )
                firsts = [await first_byte(port, f"{path}?count={ROWS}") for _ in range(30)]
                told(f"{path}: first row of {ROWS:,}", firsts)


if __name__ == "__main__":
    sys.exit(asyncio.run(ten_million_rows()))
