"""Serving hand-written stacks on a real socket, by the runner that production uses."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from streamstack.runtime.run import Context, Run, Sink
from streamstack.server.connection import HttpServer
from streamstack.server.endpoints import EndpointHandler
from streamstack.server.headers import CorsHeaders
from streamstack.server.response_options import Limits, ResponseOptions
from streamstack.server.service import Service

Stack = Callable[[Run, dict[str, Any]], Coroutine[Any, Any, Any]]

AUTO = ResponseOptions("sse", negotiated=True)


class Emitting:
    """What a compiled stack does with its sink, in short."""

    def __init__(self, run: Run) -> None:
        self.sink: Sink = run.sink

    async def __call__(
        self,
        content: Any,
        event: str | None = None,
        id: Any = None,  # noqa: A002
        metadata: Any = None,
    ) -> None:
        if self.sink.emit(content, event, id, metadata):
            await self.sink.drain()


def endpoint(stack: Stack, path: str = "/s", method: str = "GET", **options: Any) -> EndpointHandler:
    """Return an endpoint that streams, the format being the request's choice."""
    options.setdefault("wire", AUTO)
    options.setdefault("limits", Limits())
    return EndpointHandler(method, path, stack, **options)


@dataclass
class Server:
    """A server that listens."""

    service: Service
    port: int
    runner: web.ServerRunner = field(repr=False)
    clients: list[Client] = field(default_factory=list, repr=False)

    async def connect(self, limit: int = 1 << 22) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def raw(self, request: bytes, seconds: float = 10.0) -> bytes:
        """Send bytes, read until the server closes."""
        client = await self.connect()
        try:
            client.writer.write(request)
            return await asyncio.wait_for(client.reader.read(), seconds)
        except ConnectionError:
            return b""
        finally:
            client.close()

    async def get(self, path: str = "/s", **headers: str) -> Reply:
        """Ask with GET, on a connection of its own; header names have _ for -."""
        return await self.ask("GET", path, b"", **headers)

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        lines = [f"{method} {path} HTTP/1.1", "Host: test", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        raw = await self.raw("\r\n".join([*lines, "", ""]).encode() + body)
        return parse(raw)


@dataclass
class Client:
    """One raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def ask(self, path: str = "/s", method: str = "GET", version: str = "1.1", extra: str = "") -> None:
        self.writer.write(f"{method} {path} HTTP/{version}\r\nHost: test\r\n{extra}\r\n".encode())

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)

    async def chunk(self) -> bytes:
        """Read one chunk of HTTP: b"" is the last."""
        size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), 10), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def rest(self) -> bytes:
        """Read what is left of an answer in chunks, to the last of them."""
        chunks = []
        while chunk := await self.chunk():
            chunks.append(chunk)
        return b"".join(chunks)

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class Reply:
    """An answer, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    chunks: list[bytes]


def parse(raw: bytes) -> Reply:
    """Take an answer apart; `complete` is what a careful client would say of it."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    status = int(first.split(" ")[1])
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    if headers.get("transfer-encoding") != "chunked":
        length = headers.get("content-length")
        return Reply(status, headers, rest, length is None or len(rest) == int(length), [])
    chunks: list[bytes] = []
    while match := re.match(rb"([0-9a-fA-F]+)\r\n", rest):
        size = int(match[1], 16)
        data = rest[match.end() : match.end() + size]
        rest = rest[match.end() + size + 2 :]
        if not size:
            return Reply(status, headers, b"".join(chunks), True, chunks)
        chunks.append(data)
    return Reply(status, headers, b"".join(chunks), False, chunks)


@asynccontextmanager
async def serving(
    *endpoints: EndpointHandler, dev: bool = False, cors: CorsHeaders | None = None
) -> AsyncIterator[Server]:
    """Serve endpoints on a free port."""
    async with Service(endpoints, context=Context(dev=dev), cors=cors) as service:
        runner = web.ServerRunner(HttpServer(service), shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server = Server(service, site.port, runner)
        try:
            yield server
        finally:
            for client in server.clients:
                client.close()
            await runner.cleanup()
            service.abandon()
            await asyncio.sleep(0.01)  # closed connections are informed in the loop's next iterations
