"""What must hold of streams whatever is between a client and the server: TLS, or a reverse proxy."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import time

from websockets.asyncio.client import connect as websocket

from tests.server.processes import Process, until
from tests.server.serving import Client, parse

Connect = Callable[[], Awaitable[Client]]

TICKS = """
method: GET
path: /ticks
functionStack:
  - repeat:
      times: 6
      do:
        - stream: {content: "<< now() | toDecimal >>", delay: 150ms}
"""
#: The definitions that the checks call, by the names of their files.
PROJECT = {
    "ticks": TICKS,
    "echo": """
method: POST
path: /echo
inputParameters: {lines: {type: stream, decode: lines, required: true}}
functionStack:
  - forEach: {in: << input.lines >>, as: line, do: [{stream: << line >>}]}
""",
    "talk": """
method: GET
path: /talk
inputParameters: {messages: {type: stream, decode: json}}
functionStack:
  - stream: ready
  - forEach: {in: << input.messages >>, as: message, do: [{stream: << message >>}]}
""",
    "endless": """
method: GET
path: /endless
functionStack:
  - stream: begun
  - wait: 10m
""",
    "report": """
method: GET
path: /report
streaming: {resume: true}
functionStack:
  - repeat:
      times: 20
      do:
        - stream: {content: "<< loop.index >>", delay: 50ms}
""",
}
#: Seconds that a chunk may take from the server to the client: haproxy without `option http-no-delay` takes 0.2.
_LATE = 0.15


def write_project(folder: Path) -> None:
    """Write the definitions into a folder."""
    for name, text in PROJECT.items():
        (folder / f"{name}.yaml").write_text(text)


async def read_until(client: Client, pattern: bytes) -> bytes:
    """Read a response until a pattern is in it; return what came."""
    raw = b""
    async with asyncio.timeout(20):
        while not re.search(pattern, raw):
            piece = await client.reader.read(65536)
            assert piece, raw
            raw += piece
    return raw


async def check_websocket(port: int) -> None:
    """A WebSocket is opened, both sides talk, and the close code arrives."""
    async with websocket(f"ws://127.0.0.1:{port}/talk", open_timeout=20) as opened:
        assert json.loads(await opened.recv()) == {"content": "ready"}
        for value in ("a", {"b": "ü" * 1000}):
            await opened.send(json.dumps(value))
            assert json.loads(await opened.recv()) == {"content": value}
        await opened.close()
    assert opened.close_code == 1000


async def check_chunks(connect: Connect) -> None:
    """Chunks arrive one by one, each as soon as it was sent, and the end is a good one."""
    for accept in ("text/event-stream", "application/x-ndjson", "text/plain"):
        for attempt in range(3):  # a busy machine may be late once, a proxy is always
            late = sorted(await _delays(connect, accept))
            if late[-2] < _LATE or attempt == 2:
                break
        assert late[-2] < _LATE, (accept, late)


async def _delays(connect: Connect, accept: str) -> list[float]:
    """Return how long each chunk was on its way, in seconds."""
    client = await connect()
    client.ask("/ticks", extra=f"Accept: {accept}\r\nConnection: close\r\n")
    raw, late = b"", []
    async with asyncio.timeout(20):
        while piece := await client.reader.read(65536):
            raw += piece
            late += [time() - float(stamp) for stamp in re.findall(rb"1[0-9]{9}\.[0-9]+", piece)]
    client.close()
    assert len(late) == 6, raw
    assert parse(raw).complete, raw
    return late


async def check_upload(connect: Connect) -> None:
    """A body that is sent in pieces is answered while it arrives."""
    client = await connect()
    extra = "Accept: text/event-stream\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n"
    client.ask("/echo", "POST", extra=extra)
    for text in (b"one", b"two", b"three"):
        client.writer.write(b"%x\r\n%b\n\r\n" % (len(text) + 1, text))
        await read_until(client, b"data: " + text)
    client.writer.write(b"0\r\n\r\n")
    await read_until(client, rb'event: done\ndata: \{"chunks":3,')
    client.close()


async def check_leave(connect: Connect, server: Process) -> None:
    """The run of a client that disconnects is cancelled."""
    before = len(server.lines)
    client = await connect()
    client.ask("/endless", extra="Accept: text/event-stream\r\n")
    await read_until(client, b"data: begun")
    client.close()

    def cancelled() -> bool:
        lines = [json.loads(line) for line in server.lines[before:] if line.startswith("{")]
        return any((line.get("endpoint"), line.get("outcome")) == ("GET /endless", "cancelled") for line in lines)

    await until(cancelled, 5)


async def check_resume(connect: Connect) -> None:
    """A client whose connection broke gets the rest: no chunk twice, none missing."""
    client = await connect()
    client.ask("/report", extra="Accept: text/event-stream\r\n")
    raw = await read_until(client, rb"data: 4\n")
    client.close()
    last = re.findall(rb"^id: (\S+)", raw, re.MULTILINE)[-1].decode()
    seen = int(last.partition("/")[2])
    client = await connect()
    client.ask("/report", extra=f"Accept: text/event-stream\r\nLast-Event-ID: {last}\r\n")
    rest = await read_until(client, b"event: done")
    client.close()
    assert re.findall(rb"^data: (\d+)$", rest, re.MULTILINE) == [b"%d" % (n + 1) for n in range(seen + 1, 20)]


async def check_cut(connect: Connect, server: Process) -> None:
    """A server that is killed in the middle of a stream looks like no good end."""
    client = await connect()
    client.ask("/endless", extra="Accept: text/event-stream\r\nConnection: close\r\n")
    raw = await read_until(client, b"data: begun")
    server.process.kill()
    try:
        async with asyncio.timeout(20):
            raw += await client.reader.read()
    except ConnectionError:
        pass
    client.close()
    assert not parse(raw).complete, raw
