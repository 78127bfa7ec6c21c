"""A relay between a project and the databases of a test, which can lose a connection at a chosen statement."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from streamstack.server.replies import reset

#: Codes that a client sends in the place of a protocol version (PostgreSQL 18, section 54.7).
_SSL_REQUEST: Final = 80_877_103
_GSS_REQUEST: Final = 80_877_104
#: Messages that end what a client asks for at once: Query, Sync and Flush.
_ENDS: Final = (b"Q", b"S", b"H")
_HOST: Final = "127.0.0.1"
_PORT: Final = 5432


class DatabaseRelay:
    """Passes on what project and database say, and counts statements.

    A statement is whatever the project waits for an answer to, such as the preparation of one.

    Args:
        lost_at: The statement at which its connection is reset, counted from 1; 0 is none.
        lose_reply: The database gets that statement, and only its answer is lost.
        stays_down: Connections are refused from then on.
    """

    def __init__(self, lost_at: int = 0, *, lose_reply: bool = False, stays_down: bool = False) -> None:
        self.statements = 0
        self._lose_reply = lose_reply
        self._lost_at = lost_at
        self._stays_down = stays_down
        self._servers: dict[tuple[str, int], asyncio.Server] = {}
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        for server in self._servers.values():
            await server.wait_closed()

    def _close(self) -> None:
        for server in self._servers.values():
            server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def route(self, address: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments of asyncpg's `connect` that lead to a database through this relay."""
        host, port = _place(address)
        server = self._servers.get((host, port))
        if server is None:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with suppress(asyncio.CancelledError):  # the test is over
                    await self._serve(reader, writer, host, port)

            server = self._servers[host, port] = await asyncio.start_server(serve, _HOST, 0)
        return {**address, "host": _HOST, "port": self._port(server), "ssl": False}

    def _port(self, server: asyncio.Server) -> int:
        """Return the port of a server; of one that is closed, a port that refuses connections."""
        if server.sockets:
            return int(server.sockets[0].getsockname()[1])
        with socket.socket() as free:
            free.bind((_HOST, 0))
            return int(free.getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            if host.startswith("/"):
                answers, requests = await asyncio.open_unix_connection(Path(host) / f".s.PGSQL.{port}")
            else:
                answers, requests = await asyncio.open_connection(host, port)
            self._writers.add(requests)
            back = asyncio.create_task(_copy(answers, writer))
            try:
                await self._start(reader, writer, requests)
                while True:
                    head = await reader.readexactly(5)
                    message = head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
                    if not (head[:1] in _ENDS and self._is_lost()):
                        requests.write(message)
                        continue
                    back.cancel()
                    await asyncio.wait((back,))
                    if self._lose_reply:
                        requests.write(message)
                        await answers.read(1)
                    reset(writer.transport)
                    break
            finally:
                back.cancel()
                requests.close()
                self._writers.discard(requests)
        writer.close()
        self._writers.discard(writer)

    async def _start(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: asyncio.StreamWriter
    ) -> None:
        """Pass on the first message; refuse encryption, which would hide statements."""
        while True:
            head = await reader.readexactly(8)
            size, code = struct.unpack("!ii", head)
            if code not in (_SSL_REQUEST, _GSS_REQUEST):
                requests.write(head + await reader.readexactly(size - 8))
                return
            writer.write(b"N")

    def _is_lost(self) -> bool:
        self.statements += 1
        if self.statements != self._lost_at:
            return False
        if self._stays_down:
            self._close()
        return True


def _place(address: Mapping[str, Any]) -> tuple[str, int]:
    """Return the host, or the folder of the socket, and the port of a database."""
    url = urlsplit(address.get("dsn") or "")
    query = dict(parse_qsl(url.query))
    host = address.get("host") or query.get("host") or unquote(url.hostname or "") or "localhost"
    return str(host), int(address.get("port") or query.get("port") or url.port or _PORT)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
