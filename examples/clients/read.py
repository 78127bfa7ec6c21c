"""Read a stream with httpx, a line of JSON a chunk.

    python read.py 'http://localhost:8080/api/steps?steps=5'

Exits with 0 when all came, 1 when the server told an error, 2 when the stream was cut.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx


def read_values(answer: httpx.Response) -> Iterator[Any]:
    """Give each line as a value; httpx's `iter_lines` also cuts at characters that JSON may hold."""
    rest = b""
    for piece in answer.iter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line) for line in lines if line.strip())


def read(url: str) -> int:
    """Print each chunk as it comes."""
    # No chunk for 30 seconds is too long. Heartbeats count as something that came.
    timeout = httpx.Timeout(10, read=30)
    headers = {"Accept": "application/x-ndjson"}
    try:
        with httpx.stream("GET", url, headers=headers, timeout=timeout) as answer:
            if answer.is_error:
                problem = json.loads(answer.read())
                print(f"failed: {problem['code']}: {problem['detail']}", file=sys.stderr)
                return 1
            for value in read_values(answer):
                if "error" in value:
                    error = value["error"]
                    print(f"failed: {error['code']}: {error['message']}", file=sys.stderr)
                    return 1
                if "done" in value:
                    return 0
                print(f"step {value['step']} of {value['of']}", flush=True)
    except httpx.TransportError as error:
        print(f"lost: {error}", file=sys.stderr)
        return 2
    print("lost: the stream ended before its end", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(read(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080/api/steps"))
