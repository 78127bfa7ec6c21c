"""A request, and the way back to its client: what the server uses of aiohttp's `web.BaseRequest`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import structlog
from aiohttp import StreamReader, hdrs, web

from streamstack.connections.http_client import Coding, decoders_for
from streamstack.errors import RunError
from streamstack.language.settings import FORWARDED, Network
from streamstack.server.sockets import Socket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import HttpVersion
    from aiohttp.http import WebSocketReader
    from aiohttp.http_parser import RawRequestMessage
    from multidict import CIMultiDictProxy
    from yarl import URL

    from streamstack.server.bodies import StreamedBody
    from streamstack.server.connection import ClientConnection
    from streamstack.server.response import FlushQueue
    from streamstack.server.websocket import MessageStream, WebSocket


log = structlog.get_logger("streamstack.server")

#: The codings that are undone; one at a time, since each on top of another multiplies what a small body can become.
CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate", "br"})


class CodingError(web.RequestPayloadError):
    """A body that is not encoded as it says, or that ends in the middle of its coding."""


class DecodedBody:
    """Reads what a body says once its coding is undone; ``wire`` is the body as it arrives.

    Where aiohttp has undone the coding already, as in most host applications, the bytes pass as they are.
    """

    __slots__ = ("_begun", "_coding", "_data", "_error", "_name", "_over", "_pieces", "_wire")

    def __init__(self, wire: StreamReader, coding: str) -> None:
        self._data = bytearray()
        self._wire = wire
        self._name = coding
        self._coding: Coding | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._begun = False
        self._over = False
        self._error: CodingError | None = None

    async def readany(self) -> bytes:
        """Return what is there, waiting for something; nothing at the end."""
        while not self._data and await self.more():
            pass
        return self._take(len(self._data))

    async def read(self, size: int = -1) -> bytes:
        """Return up to so many bytes, waiting for some; nothing at the end."""
        while (size < 0 or not self._data) and await self.more():
            pass
        return self._take(len(self._data) if size < 0 else size)

    async def more(self) -> bool:
        """Add one piece to read. Raises CodingError, and what breaks the body off."""
        if self._over:
            return False
        if self._error is not None:
            raise self._error
        try:
            piece = next(self._pieces, None)
            if piece is not None:
                await asyncio.sleep(0)  # much may come of little: others have their turn
                self._data += piece
                return True
            data = await self._wire.readany()
            if data:
                if not self._begun:
                    self._begin()
                if self._coding is None:
                    self._data += data
                    return True
                self._pieces = self._coding.feed(data)
                self._data += next(self._pieces, b"")
                return True
        except RunError as error:
            raise self._broken() from error
        if self._coding is not None and not self._coding.complete:
            raise self._broken()
        self._over = True
        return False

    def _begin(self) -> None:
        self._begun = True
        if self._wire.total_compressed_bytes is None:
            self._coding = decoders_for(self._name)[0]

    def at_eof(self) -> bool:
        """Return whether everything was read."""
        return self._over and not self._data

    def _broken(self) -> CodingError:
        self._error = CodingError("the body is not encoded as it says")
        return self._error

    def _take(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken


#: A body that can be read: aiohttp's, or one whose Content-Encoding is undone as it is read.
Body = StreamReader | DecodedBody

_HTTP_10: Final = (1, 0)


#: Bytes that unfinished requests of a process may hold, where the settings say nothing.
MAX_MEMORY: Final = 256 * 1024 * 1024
#: Seconds between two lines of the log that say that there were more.
_QUIET: Final = 10.0


class MemoryBudget:
    """Bounds what the requests of a process hold that are still arriving: heads, and bodies that are read whole.

    Where they hold more than ``limit`` bytes, those that have taken longest are given up.
    """

    __slots__ = ("_holders", "_logged", "limit", "used")

    def __init__(self, limit: int = MAX_MEMORY) -> None:
        self.limit = limit
        self.used = 0
        self._holders: dict[object, tuple[int, Callable[[], object]]] = {}  # the oldest first
        self._logged = float("-inf")

    def hold(self, holder: object, size: int, give_up: Callable[[], object]) -> None:
        """Note how many bytes a holder has by now; ``give_up`` is called, once, where it has to let go of them."""
        before = self._holders.get(holder)
        self.used += size - (before[0] if before else 0)
        self._holders[holder] = (size, give_up)
        while self.used > self.limit and self._holders:
            oldest, (_, give_up) = next(iter(self._holders.items()))
            self.release(oldest)
            self._log()
            give_up()

    def release(self, holder: object) -> None:
        """Note that a holder has arrived, or is gone."""
        held = self._holders.pop(holder, None)
        if held is not None:
            self.used -= held[0]

    def _log(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._logged + _QUIET:
            self._logged = now
            log.warning("requests-given-up", limit=self.limit, hint="server.maxMemory, server.maxBodySize")


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
        "body_bytes",
        "extra",
        "flush_queue",
        "headers",
        "hosted",
        "keep_alive",
        "method",
        "note_held",
        "protocol",
        "raw",
        "raw_path",
        "streamed_body",
        "under",
        "version",
        "websocket",
    )

    def __init__(
        self,
        raw: web.BaseRequest,
        flush_queue: FlushQueue,
        connection: ClientConnection | None = None,
        message: RawRequestMessage | None = None,
        *,
        prefix: str = "",
        last: bool = False,
    ) -> None:
        self.raw = raw
        self.flush_queue = flush_queue
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
        if prefix:  # it may be written with percent-encoded characters, so its segments are counted
            path = "/" + "/".join(path.split("/")[prefix.count("/") + 1 :])
        #: The path as it was sent, without the prefix and the query.
        self.raw_path = path
        self.body_bytes = b""  # the bytes of the body, where the definition reads them
        self.note_held: Callable[[int], None] | None = None  # counts what is kept of the body until all of it is here
        self.streamed_body: StreamedBody | MessageStream | None = None  # the body, where it is read as it arrives
        self.websocket: WebSocket | None = None  # what it asks for, where its endpoint has one
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

    def hold(self, size: int) -> None:
        """Note how many bytes are kept of the body, of which more is to come."""
        if self.note_held is not None:
            self.note_held(size)

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

    def upgrade(self, websocket: WebSocket) -> None:
        """Hand all that arrives from now on to a WebSocket."""
        # aiohttp asks for nothing but `feed_data` and `feed_eof` of a parser.
        self.protocol.set_parser(cast("WebSocketReader", websocket))
        if self.under is not None:
            self.under.upgrade()

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


Address: TypeAlias = IPv4Address | IPv6Address

#: The pairs of an element of Forwarded: cut at the semicolons that are not in quotes (RFC 7239, section 4).
_PAIR: Final = re.compile(r'(?:[^;"]|"[^"]*")+')
#: `for`: a token, or a text in quotes.
_FOR: Final = re.compile(r'\s*for\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)
#: The elements of Forwarded: cut at the commas that are not in quotes.
_ELEMENT: Final = re.compile(r'(?:[^,"]|"[^"]*")+')
#: How many proxies are looked at.
_MOST: Final = 50


class Addresses:
    """Tells the addresses of callers: the peer's, or what proxies that are trusted say of theirs.

    The header is read from its end, where the nearest proxy wrote: an address counts if the one after it is trusted.
    So what a caller itself put into the header is never believed.
    """

    __slots__ = ("_header", "_trusted")

    def __init__(self, trusted: tuple[Network, ...] = (), header: str = FORWARDED[0]) -> None:
        self._trusted = trusted
        self._header = header

    def of(self, request: Request) -> str | None:
        """Return the address of who called; None where the peer has none (a Unix socket)."""
        peer = request.remote
        if not self._trusted or not peer:
            return peer.removeprefix("::ffff:") if peer else None
        address = _parse(peer)
        if address is None:
            return peer
        if not self._trusts(address):
            return str(address)
        for hop in self._hops(request):
            found = _parse(hop)
            if found is None:
                break  # `unknown`, or a name: the proxy that wrote it is the last one known
            address = found
            if not self._trusts(address):
                break
        return str(address)

    def _trusts(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._trusted)

    def _hops(self, request: Request) -> Iterator[str]:
        """Yield what the proxies wrote, the nearest first."""
        text = ",".join(request.headers.getall(self._header, ()))
        if self._header == FORWARDED[0]:
            yield from text.split(",")[: -_MOST - 1 : -1]
            return
        # Cut from the end as well: a quote that a caller left open would take in what the proxies wrote after it.
        for element in islice(_ELEMENT.finditer(text[::-1]), _MOST):
            yield _for(element[0][::-1])


def _for(element: str) -> str:
    for pair in _PAIR.findall(element):
        if (found := _FOR.match(pair)) is not None:
            return found[1] or found[2] or ""
    return ""


def _parse(text: str) -> Address | None:
    """Return an address, which may have a port or be in brackets; None for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
