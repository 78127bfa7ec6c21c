"""What tests of resumable streams share: an endpoint that counts, and readers who take its answers apart."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable

from tests.server.serving import Server

NONE = "settings: {}\n"
EIGHT = [f"{{{n}}}" for n in range(1, 9)] + ["done"]


def counting(path: str = "/count", times: int = 8, delay: str = "5ms", streaming: str = "resume: true") -> str:
    """An endpoint that counts from 1."""
    return f"""
method: GET
path: {path}
streaming: {{{streaming}}}
functionStack:
  - repeat:
      times: {times}
      do:
        - stream: {{content: "{{<< loop.index >>}}", delay: {delay}}}
"""


def events(body: bytes) -> list[dict[str, str]]:
    """Take SSE apart, as a client does: an event that has not ended is none."""
    found = []
    *blocks, _ = re.sub(r"(?m)^:\n", "", body.decode()).split("\n\n")
    for block in blocks:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            if name:
                fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        if fields:
            found.append(fields)
    return found


def contents(body: bytes) -> list[str]:
    """Return the data of the chunks, and the names of what is none."""
    return [each.get("event") or each["data"] for each in events(body)]


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to hold")


async def drop_after(server: Server, path: str, size: int, headers: str = "") -> bytes:
    """Ask, read some bytes of the body, and break the connection off; return them."""
    client = await server.connect()
    client.ask(path, extra=headers)
    await client.head()
    body = b""
    while len(body) < size and (piece := await client.chunk()):
        body += piece
    client.close()
    return body[:size]


async def in_pieces(server: Server, accept: str, size: int) -> tuple[list[int], list[str]]:
    """Read a stream, each connection for some bytes only; return the numbers and what they hold."""
    client = await server.connect()
    client.ask("/count", extra=f"Accept: {accept}\r\n")
    head = await client.head()
    found = re.search(rb"X-Stream-Id: (\S+)", head)
    assert found is not None
    name = found[1].decode()
    numbers: list[int] = []
    texts: list[str] = []
    last = ""
    while True:
        body = b""
        complete = False
        while len(body) < size:
            piece = await client.chunk()
            complete = not piece
            if complete:
                break
            body += piece
        client.close()
        for number, text in told(accept, body):
            numbers.append(number)
            texts.append(text)
            last = f"{name}/{number}"
        if complete:
            return numbers, texts
        client = await server.connect()
        size += 7 if not body else 1  # in the end one is long enough for a chunk
        extra = f"Last-Event-ID: {last}\r\n" if last else ""
        client.ask(f"/_streams/{name}", extra=extra)
        if b" 204 " in (await client.head()).split(b"\r\n")[0]:
            return numbers, texts


def told(accept: str, body: bytes) -> list[tuple[int, str]]:
    """Return the number and the content of each whole chunk."""
    if accept == "text/event-stream":
        return [(int(e["id"].rpartition("/")[2]), e.get("event") or e["data"]) for e in events(body)]
    *lines, _ = body.decode().split("\n")
    objects = [json.loads(line) for line in lines]
    return [(int(o["id"].rpartition("/")[2]), o.get("content", "done")) for o in objects]
