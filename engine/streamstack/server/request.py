"""A request, and the way back to its client: what the server uses of aiohttp's `web.BaseRequest`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aiohttp import StreamReader, hdrs, web

from streamstack.server.content_decoding import CODINGS, DecodedBody
from streamstack.server.sockets import Socket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import HttpVersion
    from aiohttp.http_parser import RawRequestMessage
    from multidict import CIMultiDictProxy
    from yarl import URL

    from streamstack.server.bodies import Arriving
    from streamstack.server.connection import ClientConnection
    from streamstack.server.response import FlushQueue

#: A body that can be read: aiohttp's, or one whose Content-Encoding is undone as it is read.
Body = StreamReader | DecodedBody

_HTTP_10: Final = (1, 0)


class Request:
    """One request.

    Args:
        raw: aiohttp's request.
        turn: gathers what is written until the event loop next turns.
        connection: our protocol below aiohttp's; None where another server (gunicorn, a host application) listens.
        message: what aiohttp has read of the head, where it gives that: it is quicker to ask.
        prefix: the path under which the application is mounted.
        last: whether the connection is closed after the response.
    """

    __slots__ = (
        "_content",
        "_draining",
        "_socket",
        "arriving",
        "extra",
        "headers",
        "hosted",
        "keep_alive",
        "kept_body",
        "method",
        "protocol",
        "raw",
        "raw_path",
        "turn",
        "under",
        "version",
    )

    def __init__(
        self,
        raw: web.BaseRequest,
        turn: FlushQueue,
        connection: ClientConnection | None = None,
        message: RawRequestMessage | None = None,
        *,
        prefix: str = "",
        last: bool = False,
    ) -> None:
        self.raw = raw
        self.turn = turn
        self.under = connection
        head = raw if message is None else message
        self.method: str = head.method
        self.version: HttpVersion = head.version
        self.headers: CIMultiDictProxy[str] = head.headers
        if message is None:
            self.keep_alive: bool = raw.keep_alive and not last
            path: str = raw.raw_path
        else:
            self.keep_alive = not (message.should_close or last)
            path = message.path
        self.protocol = raw.protocol
        if not path.startswith("/"):
            path = raw.rel_url.raw_path if path != "*" else path  # the absolute form of a proxy's request
        elif "?" in path:
            path = path[: path.index("?")]
        #: The path as it was sent, without the prefix and the query.
        self.raw_path: str = path.removeprefix(prefix) or "/" if prefix else path
        self.kept_body = b""  # the bytes of the body, where the definition reads them
        self.arriving: Arriving | None = None  # the body, where it is read as it arrives
        self.hosted = False  # by a `web.Application`, which may have middlewares
        self.extra = b""  # header lines that the signals of a host application have added
        self._content: Body | None = None
        self._draining: asyncio.Task[None] | None = None
        self._socket: Socket | None = None

    # ------------------------------------------------------------- what was sent

    @property
    def path(self) -> str:
        return self.raw.path

    @property
    def rel_url(self) -> URL:
        return self.raw.rel_url

    @property
    def host(self) -> str:
        return self.raw.host

    @property
    def remote(self) -> str | None:
        return self.raw.remote

    @property
    def cookies(self) -> Mapping[str, str]:
        return self.raw.cookies

    @property
    def body_exists(self) -> bool:
        return self.raw.body_exists

    @property
    def content_length(self) -> int | None:
        return self.raw.content_length

    @property
    def wire(self) -> StreamReader:
        """The body as it arrives."""
        return self.raw.content

    @property
    def content(self) -> Body:
        """The body, its Content-Encoding undone."""
        content = self._content
        if content is None:
            content = self.raw.content
            coding = self.headers.get(hdrs.CONTENT_ENCODING)
            if coding is not None and coding.strip().lower() in CODINGS and self.raw.body_exists:
                content = DecodedBody(content, coding)
            self._content = content
        return content

    @property
    def broke_off(self) -> bool:
        """Whether the body ended before its end: it is malformed, or the client sends no more."""
        return self.under is not None and self.under.broken

    def ignore_body(self) -> None:
        """Take a client that ends in the middle of its body for one that has left, from now on."""
        if self.under is not None:
            self.under.awaited = False

    @property
    def reusable(self) -> bool:
        """Whether the connection can take another request after the response."""
        under = self.under
        return self.keep_alive and (self.raw.content.is_eof() if under is None else under.complete)

    # ------------------------------------------------------------- the way back

    @property
    def transport(self) -> asyncio.Transport | None:
        return self.protocol.transport

    @property
    def writing_paused(self) -> bool:
        """Whether the transport holds as much as it may."""
        return self.protocol.writing_paused and self.protocol.transport is not None

    async def room(self) -> None:
        """Wait until the transport takes more, or the client has gone.

        Several may wait, and each can be cancelled alone.
        """
        while self.writing_paused:
            if self._draining is None or self._draining.done():
                self._draining = asyncio.ensure_future(self._drain())
            await asyncio.shield(self._draining)

    async def _drain(self) -> None:
        with suppress(ConnectionError):
            await self.raw.writer.drain()

    def when_writable(self, callback: Callable[[], None]) -> asyncio.Task[None]:
        """Call back once the transport takes more, or the client has gone."""

        async def wait() -> None:
            await self.room()
            callback()

        return asyncio.ensure_future(wait())

    def bound_unsent(self, buffer: int, patience: float) -> None:
        """Have the system hold so many bytes, and give up when the peer takes nothing for so many seconds."""
        sock = self._socket
        if sock is None:
            if self.under is not None:
                sock = self.under.socket
            elif (transport := self.transport) is not None:
                sock = Socket(transport)
            self._socket = sock
        if sock is not None:
            sock.configure(buffer, patience)
