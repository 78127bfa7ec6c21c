"""Upstreams of the tests' own: real servers on a socket, whose every byte, pause and reset is written down."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

#: Ends the body of a chunked answer.
END = b"0\r\n\r\n"


@dataclass
class Asked:
    """A request as it arrived; names of headers are in small letters."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Wire:
    """One connection of a client, with its first request."""

    asked: Asked
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    left_at: float | None = None  # when the client closed, by the loop's clock
    gone: asyncio.Future[float] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def send(self, data: bytes) -> None:
        """Send bytes as they are, and wait until the system has taken them."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, *lines: str, status: str = "200 OK", chunked: bool = True) -> None:
        """Send a head. Without ``chunked``, the body ends with the connection unless a line says otherwise."""
        told = [f"HTTP/1.1 {status}", *lines, *(["Transfer-Encoding: chunked"] if chunked else [])]
        await self.send(("\r\n".join(told) + "\r\n\r\n").encode())

    async def chunk(self, data: bytes | str) -> None:
        """Send one chunk of a chunked body."""
        data = data.encode() if isinstance(data, str) else data
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def events(self, *datas: str, head: bool = True) -> None:
        """Send a head for events, unless it is sent already, and an event for each data."""
        if head:
            await self.head("Content-Type: text/event-stream")
        for data in datas:
            await self.chunk(f"data: {data}\n\n")

    async def next(self) -> Asked:
        """Read the next request on the same connection."""
        return await read_request(self.reader)

    def reset(self) -> None:
        """Break the connection off with RST."""
        plug = self.writer.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def left(self) -> float:
        """Wait until the client has closed; return when that was, by the loop's clock."""
        try:
            while await self.reader.read(65536):
                pass
        except OSError:
            pass
        self.left_at = asyncio.get_running_loop().time()
        self.gone.set_result(self.left_at)
        return self.left_at


Script = Callable[[Wire], Awaitable[None]]


class Upstream:
    """A server that answers each connection as a script says, the last script again and again."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._scripts = list(scripts)
        self._server: asyncio.Server | None = None
        self.asked: list[Asked] = []
        self.wires: list[Wire] = []
        self.failures: list[BaseException] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for wire in self.wires:
            wire.writer.close()
        if error is None:
            assert self.failures == []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await read_request(reader)
            script = self._scripts[min(len(self.wires), len(self._scripts) - 1)]
            wire = Wire(asked, reader, writer)
            self.asked.append(asked)
            self.wires.append(wire)
            await script(wire)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        except BaseException as failure:  # noqa: BLE001  (the test sees it at its end)
            self.failures.append(failure)
        finally:
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Asked:
    """Read a request with its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = b""
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return Asked(method, target, headers, body)


def answers(*parts: bytes, every: float = 0.0) -> Script:
    """Return a script that sends some bytes, part by part with a pause between, and closes."""

    async def script(wire: Wire) -> None:
        for part in parts:
            await wire.send(part)
            await asyncio.sleep(every)

    return script


def answer(body: bytes | str, *lines: str, status: str = "200 OK") -> Script:
    """Return a script that sends a whole answer with its Content-Length."""
    data = body.encode() if isinstance(body, str) else body
    head = "\r\n".join([f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(data)}", "Connection: close"])
    return answers(head.encode() + b"\r\n\r\n" + data)
