"""The server's side of all connections: it makes them, counts them, and lets them go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, cast

import structlog
from aiohttp import web

from streamstack.server.connection import HEADERS, LINE_SIZE, Connection
from streamstack.server.replies import Sent
from streamstack.server.request import Request
from streamstack.server.turn import Turn

log = structlog.get_logger("streamstack.server")

#: Seconds the head of a request may take, where the settings say nothing; 0 is for ever.
HEAD_TIMEOUT: Final = 30.0
#: How many connections there may be at once, where the settings say nothing.
CONNECTIONS: Final = 10_000
#: Seconds between two lines of the log that say the same of many connections.
_QUIET: Final = 10.0

#: Answers a request: at once, or with what has to be waited for.
Handler = Callable[[Request], Sent | Coroutine[Any, Any, Sent]]


class Listening(web.Server):
    """aiohttp's low-level server, making our connections. What takes a while is cancelled with its reader.

    ``most`` is how many connections there may be at once: more are answered with 503. ``head_timeout`` is in seconds.
    """

    def __init__(
        self, handler: Handler, *, most: int = CONNECTIONS, head_timeout: float = HEAD_TIMEOUT
    ) -> None:
        super().__init__(cast("Any", handler), handler_cancellation=True)
        self.answer = handler
        self.most = most
        self.head_timeout = head_timeout
        self._turn = Turn(self._loop)
        self._told_full = float("-inf")
        self._open: set[Connection] = set()  # until their last bytes have left
        self._empty = asyncio.Event()
        self.leaving = False

    @property
    def crowded(self) -> bool:
        """Whether there are more connections than there may be."""
        return len(self._connections) > self.most  # `connections` would copy them all

    def tell_full(self) -> None:
        """Log that there are too many connections, now and then."""
        now = self._loop.time()
        if now >= self._told_full + _QUIET:
            self._told_full = now
            log.warning("connections-full", most=self.most, hint="server.maxConnections")

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open.add(cast("Connection", handler))

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        self._open.discard(cast("Connection", handler))
        if not self._open:
            self._empty.set()

    def leave(self) -> None:
        """Let each connection end with its next answer, which says so."""
        self.leaving = True

    def close_idle(self) -> None:
        """Close the connections on which nothing is being answered, but for those from which nothing came yet."""
        for connection in list(self._open):
            if not connection.fresh:
                connection.close()

    @property
    def fresh(self) -> bool:
        """Whether there are connections from which no request came yet."""
        return any(connection.fresh for connection in self._open)

    async def flushed(self, patience: float) -> None:
        """Wait until what was written has left and all connections are closed, for some seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._open:
                    self._empty.clear()
                    await self._empty.wait()

    def __call__(self) -> Connection:
        return Connection(
            self,
            loop=self._loop,
            access_log=None,
            max_line_size=LINE_SIZE,
            max_field_size=LINE_SIZE,
            max_headers=HEADERS,
            auto_decompress=False,
            turn=self._turn,
        )
