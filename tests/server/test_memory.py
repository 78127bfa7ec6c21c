"""What unfinished requests hold: bounded over all connections, and let go of when they break off."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
import zlib
from pathlib import Path

import pytest

from tests.server.authenticating import project
from tests.server.declared import declared, eventually
from tests.server.serving import Client, Server, parse

DEFINITIONS = """
method: POST
path: /json
responseType: json
inputParameters: {b: {type: json, in: wholeBody}}
functionStack: []
response: << input.b | length >>
---
method: POST
path: /form
responseType: json
inputParameters: {t: text}
functionStack: []
response: << input.t | length >>
---
method: POST
path: /kept
responseType: json
inputParameters: {b: {type: json, in: wholeBody}}
functionStack: []
response: << request.body | length >>
---
method: POST
path: /file
responseType: json
inputParameters: {f: file}
functionStack: []
response: << input.f.size >>
---
method: POST
path: /stream
responseType: json
inputParameters: {b: {type: stream, decode: bytes}}
functionStack:
  - forEach: {in: << input.b >>, do: [continue]}
response: 1
"""
JSON, PARTS, FORM = "application/json", "multipart/form-data; boundary=B", "application/x-www-form-urlencoded"
HEAD = b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n'
MEGABYTE = 1_000_000
SETTINGS = "server: {maxMemory: 4MB, maxBodySize: 3MB}"


def body_of(content_type: str, name: bytes, size: int) -> bytes:
    """Return the beginning of a body."""
    return {JSON: b'"', PARTS: HEAD % name, FORM: b"t="}[content_type] + b"x" * size


async def begin(server: Server, path: str, content_type: str, data: bytes, *, gzip: bool = False) -> Client:
    """Send the beginning of a request that has more to come."""
    client = await server.connect()
    extra = f"Content-Type: {content_type}\r\nContent-Length: {len(data) + 10}\r\n"
    if gzip:
        work = zlib.compressobj(1, zlib.DEFLATED, 31)
        data = work.compress(data) + work.flush(zlib.Z_SYNC_FLUSH)
        extra += "Content-Encoding: gzip\r\n"
    client.ask(path, "POST", extra=extra)
    client.writer.write(data)
    await client.writer.drain()
    return client


@pytest.mark.parametrize(
    ("path", "content_type", "name", "gzip"),
    [
        ("/json", JSON, b"", False),
        ("/json", JSON, b"", True),
        ("/kept", JSON, b"", False),
        ("/form", PARTS, b"t", False),
        ("/form", FORM, b"", True),
    ],
)
async def test_oldest_bodies_are_given_up(
    path: str,
    content_type: str,
    name: bytes,
    gzip: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """Where unfinished bodies hold more than `maxMemory`, the oldest get 503; the others can be completed."""
    async with project(tmp_path, SETTINGS, DEFINITIONS, {}) as server:
        memory = server.service.memory
        data = body_of(content_type, name, MEGABYTE)
        clients = []
        for number in range(6):
            clients.append(await begin(server, path, content_type, data, gzip=gzip))
            least = min(number + 1, 3) * 0.9 * MEGABYTE
            await eventually(lambda least=least: memory.used > least)  # type: ignore[misc]
            await asyncio.sleep(0.05)
        assert memory.used <= memory.limit
        for client in clients[:2]:
            reply = parse(await asyncio.wait_for(client.reader.readuntil(b"}"), 5))
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert json.loads(reply.body)["code"] == "unavailable"
        if content_type == JSON and not gzip:
            clients[-1].writer.write(b'xxxxxxxxx"')
            assert b" 200 OK" in await clients[-1].head()
        for client in clients:
            client.close()
        await eventually(lambda: not server.service.timers)
        assert memory.used == 0


async def test_files_count_as_far_as_they_are_in_memory(tmp_path: Path) -> None:
    """What is on disk does not count: many uploads at once are taken."""
    async with project(tmp_path, "server: {maxMemory: 12MB, maxBodySize: 30MB}", DEFINITIONS, {}) as server:
        head = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        clients = [await begin(server, "/file", PARTS, head + b"x" * 5 * MEGABYTE) for _ in range(8)]
        await asyncio.sleep(0.2)
        assert len(server.service.timers) == 8
        assert server.service.memory.used < 9 * MEGABYTE
        for client in clients:
            client.writer.write(b"\r\n--B--\r\n ")
            assert b" 200 OK" in await client.head()


async def test_oldest_heads_are_given_up(tmp_path: Path) -> None:
    """So do unfinished heads: the oldest gets 503, and each may have 64 KB."""
    async with project(tmp_path, "server: {maxMemory: 100KB}", DEFINITIONS, {}) as server:
        lines = b"".join(b"X-%d: %b\r\n" % (number, b"y" * 10_000) for number in range(4))
        clients = [await server.connect() for _ in range(4)]
        for client in clients:
            client.writer.write(b"GET /json HTTP/1.1\r\nHost: x\r\n" + lines)
            await asyncio.sleep(0.05)
        for client in clients[:2]:
            assert parse(await asyncio.wait_for(client.reader.read(), 5)).status == 503
        clients[3].writer.write(b"\r\n")
        assert b" 405 " in await clients[3].head()
        clients[2].writer.write(lines)
        assert parse(await asyncio.wait_for(clients[2].reader.read(), 5)).status == 431
        assert server.service.memory.used == 0


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize(
    ("path", "content_type", "name"),
    [("/json", JSON, b""), ("/kept", JSON, b""), ("/form", PARTS, b"t"), ("/form", FORM, b""), ("/stream", JSON, b"")],
)
async def test_broken_off_bodies_leave_nothing_behind(
    path: str,
    content_type: str,
    name: bytes,
    gzip: bool,  # noqa: FBT001
) -> None:
    """No cycle holds what had come of a body, so that it is gone without the garbage collector."""
    async with declared(DEFINITIONS) as (server, _):
        data = body_of(content_type, name, MEGABYTE)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(8):
                client = await begin(server, path, content_type, data, gzip=gzip)
                await eventually(lambda: server.service.timers)
                await asyncio.sleep(0.05)
                client.writer.close()
                await eventually(lambda: not server.service.timers)
            server.clients.clear()
            del client
            await asyncio.sleep(0.1)
            assert tracemalloc.get_traced_memory()[0] - before < 2 * MEGABYTE
        finally:
            tracemalloc.stop()
            gc.enable()


async def test_oldest_pipelined_requests_are_dropped(tmp_path: Path) -> None:
    """What comes behind a request that is being answered counts too; its connection ends with the present response."""
    slow = "method: GET\npath: /slow\nresponseType: json\nfunctionStack: [wait: 1s]\nresponse: 1\n"
    one = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    another = b"GET /unknown HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"y" * 10_000)
    async with project(tmp_path, "server: {maxMemory: 100KB}", slow, {}) as server:
        clients = [await server.connect() for _ in range(4)]
        for client in clients:
            client.writer.write(one + another * 2 + another.replace(b"X: ", b"Connection: close\r\nX: "))
            await asyncio.sleep(0.05)
        assert server.service.memory.used <= 100_000
        for number, client in enumerate(clients):
            raw = await asyncio.wait_for(client.reader.read(), 5)
            assert raw.count(b" 200 OK\r\n") == 1
            assert raw.count(b" 404 ") == (0 if number == 0 else 3), number
        assert server.service.memory.used == 0
