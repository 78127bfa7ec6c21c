"""The HTTP client that a process has: responses, WebSockets, and the content codings it undoes."""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from io import BytesIO
from ssl import SSLContext
from threading import Thread
from typing import Any, Final, NotRequired, Protocol, TypedDict, TypeVar

import aiohttp
import brotli  # type: ignore[import-untyped]
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from streamstack import __version__, clock
from streamstack.connections.http import (
    ACCEPTED,
    REDIRECTS,
    TRANSIENT_STATUSES,
    NetworkGuard,
    RefusedAddressError,
    Route,
    UpstreamRequest,
    describe_status,
    follow,
    unlimit_reading,
)
from streamstack.errors import RunError
from streamstack.language.names import is_framing
from streamstack.language.settings import HttpSettings

#: Bytes of a piece, at most (br: about).
PIECE: Final = 64 * 1024
#: Bytes of a request that are written at once.
_IN_ONE_PIECE: Final = 256 * 1024
#: Codings one upon the other; no honest server uses more.
_MOST: Final = 3


class Coding(Protocol):
    """Undoes one coding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give what some bytes decode to, in pieces; they must all be taken before the next are fed.

        Raises RunError ``invalid-chunk`` for bytes that are not in this coding.
        """

    @property
    def complete(self) -> bool:
        """Whether the end of the coding has come."""


def decoders_for(header: str | None) -> list[Coding]:
    """Return what undoes a Content-Encoding, in the order to be used.

    Raises RunError ``invalid-chunk`` for a coding that was not asked for.
    """
    names = [name.strip().lower() for name in (header or "").split(",")]
    names = [name for name in names if name not in ("", "identity")]
    codings: list[Coding] = []
    for name in reversed(names):
        make = _CODINGS.get(name)
        if make is None or len(names) > _MOST:
            raise RunError(
                "invalid-chunk", f"the answer is encoded as {', '.join(names)[:60]}, which is not read: {ACCEPTED} are"
            )
        codings.append(make())
    return codings


def decode(codings: list[Coding], data: bytes) -> Iterator[bytes]:
    """Give what some bytes are once all codings are undone."""
    if not codings:
        yield data
        return
    for piece in codings[0].feed(data):
        yield from decode(codings[1:], piece)


class _Zlib:
    """gzip (RFC 1952, several members too) and deflate, with or without zlib's frame (RFC 1950, 1951)."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._inflate = zlib.decompressobj(31) if gzip else None
        self._opening = b""
        self._drained = True  # nothing is held back for want of room
        self.complete = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            self._opening += data
            if len(self._opening) < 2:
                return
            data, self._opening = self._opening, b""
            framed = data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0
            self._inflate = zlib.decompressobj(15 if framed else -15)
        while data or not self._drained:
            if self.complete:
                if not (self._gzip and data[:1] == b"\x1f"):
                    return  # padding after the end
                self._inflate = zlib.decompressobj(31)
                self.complete = False
            try:
                piece = self._inflate.decompress(data, PIECE)
            except zlib.error as error:
                raise _broken("gzip" if self._gzip else "deflate") from error
            self._drained = len(piece) < PIECE
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:
                self.complete = True
                data = self._inflate.unused_data
            if piece:
                yield piece


class _Brotli:
    """br (RFC 7932)."""

    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()

    @property
    def complete(self) -> bool:
        return bool(self._decompressor.is_finished())

    def feed(self, data: bytes) -> Iterator[bytes]:
        process = self._decompressor.process
        try:
            piece = process(data, output_buffer_limit=PIECE)
            # It says that it can take more while it still holds some back: so it is asked until it is empty.
            while piece or not self._decompressor.can_accept_more_data():
                yield piece
                piece = process(b"", output_buffer_limit=PIECE)
        except brotli.error as error:
            raise _broken("br") from error


def _broken(name: str) -> RunError:
    return RunError("invalid-chunk", f"the answer says that it is encoded as {name}, and is not")


_CODINGS: Final[dict[str, Callable[[], Coding]]] = {
    "gzip": lambda: _Zlib(gzip=True),
    "x-gzip": lambda: _Zlib(gzip=True),
    "deflate": lambda: _Zlib(gzip=False),
    "br": _Brotli,
}


T = TypeVar("T")

#: Bytes that are read ahead of the consumer, about.
READ_AHEAD: Final = 64 * 1024


class _RedirectError(Exception):
    """An answer that asks to follow a redirect."""

    def __init__(self, status: int, location: str) -> None:
        super().__init__(status, location)
        self.status = status
        self.location = location


#: Names that are looked up at the same time; further ones wait for their turn, within the time to connect.
LOOKUPS: Final = 64


class Resolver(AbstractResolver):
    """Looks names up, each in a thread of its own.

    The event loop has a few threads for that, which it needs for every connection, and waits for when it ends: one slow
    name server would stop all calls and delay the shutdown.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def finish(infos: list[Any], error: Exception | None) -> None:
            self._free.release()  # not earlier, though no request waits any more: the thread is still there
            if found.done():
                return
            if error is None:
                found.set_result(infos)
            else:
                found.set_exception(error)

        def look_up() -> None:
            infos: list[Any] = []
            error: Exception | None = None
            try:
                infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            except OSError as raised:
                error = raised
            except UnicodeError as raised:
                error = OSError(f"not a host name: {raised}")
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(finish, infos, error)

        await self._free.acquire()
        try:
            Thread(target=look_up, name="resolver", daemon=True).start()
        except RuntimeError as error:
            self._free.release()
            raise OSError("the system has no thread left") from error
        with clock.outside():
            infos = await found
        return [
            ResolveResult(
                hostname=host,
                host=f"{address[0]}%{address[3]}" if len(address) > 3 and address[3] else address[0],
                port=address[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in infos
        ]

    async def close(self) -> None:
        """Do nothing: threads that still wait hold nothing up."""


class _Sending(TypedDict):
    """Arguments of aiohttp: where a request goes, and which host is verified there."""

    url: URL
    headers: CIMultiDict[str]
    proxy: URL | None
    ssl: NotRequired[SSLContext]
    server_hostname: NotRequired[str]


class HttpClient:
    """Sends requests. It is opened when first used, and closed with the server."""

    def __init__(self, settings: HttpSettings, *, dev: bool = False) -> None:
        self.settings = settings
        self._guard = NetworkGuard(settings, dev=dev)
        self._proxy = None if settings.proxy is None else URL(settings.proxy)
        self._guard.proxy_port = None if self._proxy is None else self._proxy.port
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pool itself; no cookie is kept, since it is shared by all runs."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, socket_factory=self._guard.make_socket, resolver=Resolver()),
                cookie_jar=aiohttp.DummyCookieJar(),
                # What follows the head is timed by its reader: events count there, not bytes.
                timeout=aiohttp.ClientTimeout(total=None, connect=self.settings.connect or None),
                headers={"User-Agent": f"streamstack/{__version__}"},
                middlewares=(self._check,),
                auto_decompress=False,
                read_bufsize=READ_AHEAD,
                max_line_size=64 * 1024,
                max_field_size=64 * 1024,
            )
        return self._session

    async def _check(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Judge the host of every outgoing request."""
        self._guard.check_host(request.url.host or "", request.url.port or 0)
        response = await handler(request)
        if response.connection is not None:
            unlimit_reading(response.connection.transport)
        # aiohttp would follow the redirect of a WebSocket with all its headers, to any host.
        location = response.headers.get("Location")
        if "Upgrade" in request.headers and response.status in REDIRECTS and location is not None:
            response.close()
            raise _RedirectError(response.status, location)
        return response

    async def _prepare(self, request: UpstreamRequest) -> _Sending:
        """Return how a request is sent: no header frames a body or is of the connection.

        Every request leaves through here. An author's `Content-Length` would cut its body or begin another request.

        Raises RunError ``http-connection`` for a host that is not allowed.
        """
        url = request.url
        self._guard.check_host(url.host or "", url.port or 0)
        headers = CIMultiDict((name, value) for name, value in request.headers.items() if not is_framing(name))
        if request.length is not None:  # else it would be sent in chunks, which not every server takes
            headers["Content-Length"] = str(request.length)
        if self.settings.redirect is None:
            return {"url": url, "headers": headers, "proxy": self._proxy_for(url)}
        self._guard.check_literal(url.host or "")
        route: Route | None = await self.settings.redirect(request)
        if route is None:
            return {"url": url, "headers": headers, "proxy": None}
        self._guard.trusted.add((route.url.host or "", route.url.port or 0))
        headers.setdefault("Host", url.authority if url.explicit_port else url.raw_host or "")
        headers.update(route.headers)
        sending: _Sending = {"url": route.url, "headers": headers, "proxy": None}
        if route.tls is not None:
            sending |= {"ssl": route.tls, "server_hostname": url.host or ""}
        return sending

    def _proxy_for(self, url: URL) -> URL | None:
        """Return the proxy that a request goes through; calls of this machine go without.

        Raises RunError ``http-connection`` for an address that is not allowed.
        """
        if self._proxy is None:
            return None
        host = url.host or ""
        self._guard.check_literal(host)
        local = host == "localhost" or host.startswith("127.") or host == "::1"
        return None if local else self._proxy

    async def connect(self, request: UpstreamRequest, largest: int) -> WebSocket:
        """Open a WebSocket whose messages have ``largest`` bytes at most, following redirects as `send` does.

        Raises RunError as `send`, and ``http-status`` for an answer that is not a WebSocket.
        """

        async def open_once(request: UpstreamRequest) -> WebSocket:
            sending = await self._prepare(request)
            host = request.url.host or ""
            try:
                connection = await self.session.ws_connect(
                    **sending,
                    max_msg_size=largest,
                    timeout=aiohttp.ClientWSTimeout(ws_close=GOODBYE),
                    decode_text=False,
                )
            except aiohttp.WSServerHandshakeError as error:
                raise _refused(error.status, host) from error
            except _RedirectError:
                raise
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise fault_of(error, host, self.settings.connect) from error
            return WebSocket(connection, host, largest)

        return await self._through_redirects(request, open_once)

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request, follow its redirects, and return the answer once its head has come.

        Raises RunError ``http-connection`` where there is none, ``timeout`` where no connection came about.
        """

        async def send_once(request: UpstreamRequest) -> UpstreamResponse:
            sending = await self._prepare(request)
            host = request.url.host or ""
            body = request.body
            try:
                response = await self.session.request(
                    request.method,
                    **sending,
                    # A large body is written in pieces, so that it does not hold up the loop.
                    data=BytesIO(body) if isinstance(body, bytes) and len(body) > _IN_ONE_PIECE else body,
                    allow_redirects=False,
                )
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise fault_of(error, host, self.settings.connect) from error
            try:
                location = response.headers.get("Location")
                if request.redirects and response.status in REDIRECTS and location is not None:
                    raise _RedirectError(response.status, location)
                return UpstreamResponse(response, host)
            except BaseException:
                response.close()
                raise

        return await self._through_redirects(request, send_once)

    async def _through_redirects(self, request: UpstreamRequest, once: Callable[[UpstreamRequest], Awaitable[T]]) -> T:
        original = request
        for _ in range(request.redirects + 1):
            try:
                return await once(request)
            except _RedirectError as redirect:
                request = follow(request, redirect.status, redirect.location)
            except RunError as error:
                if request is original or error.code != "template":
                    raise
                # The address is the upstream's word, not the author's.
                raise RunError(
                    "http-connection", f"{original.url.host} redirects to what can't be asked", final=True
                ) from error
        raise RunError("http-status", f"{request.url.host} redirects more than {request.redirects} times", final=True)


def _refused(status: int, host: str) -> RunError:
    """Return the error of an answer that opened no WebSocket."""
    if status == 101:
        return RunError("http-connection", f"{host} answered in something that is not a WebSocket")
    return RunError(
        "http-status",
        f"{host} answered {describe_status(status)}",
        details={"status": status},
        final=status not in TRANSIENT_STATUSES,
    )


#: Seconds that a peer has to close a connection that we leave.
GOODBYE: Final = 0.02
#: Codes that end a stream well (RFC 6455, 7.4.1): it is done, or no reason was given.
_WELL: Final = frozenset({1000, 1005})
_TOO_BIG: Final = 1009


class WebSocket:
    """An open WebSocket."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse[bool], host: str, largest: int) -> None:
        self._connection = connection
        self._host = host
        self._largest = largest

    async def send(self, messages: list[str | bytes]) -> None:
        """Send messages. Raises RunError ``stream-lost``."""
        try:
            for message in messages:
                if isinstance(message, bytes):
                    await self._connection.send_bytes(message)
                else:
                    await self._connection.send_str(message)
        except (aiohttp.ClientError, OSError) as error:
            raise RunError("stream-lost", f"{self._host} broke off") from error

    async def receive(self) -> tuple[bytes, bool] | None:
        """Return the next message and whether it is a text; None where the server has ended the stream well.

        Raises RunError ``stream-lost`` for any other end, ``invalid-chunk`` for a message that is too large.
        """
        message = await self._connection.receive()
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            return message.data, message.type is aiohttp.WSMsgType.TEXT
        code = self._connection.close_code
        if code in _WELL:
            return None
        if code == _TOO_BIG and message.type is aiohttp.WSMsgType.ERROR:
            reason = f"a message of {self._host} has more than {self._largest} bytes, the largest that is read"
            raise RunError("invalid-chunk", reason)
        reason = "broke off" if code in (None, 1006) else f"closed the connection with code {code}"
        raise RunError("stream-lost", f"{self._host} {reason}", details={"code": code})

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


class UpstreamResponse:
    """The head of an answer, and its body as it comes. Close it, whatever happens.

    ``waited`` tells whether the last piece was not there yet when it was asked for: others have run meanwhile.
    """

    def __init__(self, response: aiohttp.ClientResponse, host: str) -> None:
        self.waited = False
        self.status = response.status
        self.reason = response.reason or ""
        self.headers = response.headers
        self.host = host
        self._response = response
        self._codings: list[Coding] = decoders_for(response.headers.get("Content-Encoding"))
        self._pieces: Iterator[bytes] = iter(())
        self._received = False
        self._fault: RunError | None = None
        # A body that ends with its connection ends well only if the connection does.
        self._bounded = "Content-Length" in response.headers or "chunked" in response.headers.get(
            "Transfer-Encoding", ""
        )
        connection = response.connection
        protocol = connection.protocol if connection is not None else None
        self._closed = protocol.closed if protocol is not None else None
        if self._closed is not None:
            self._closed.add_done_callback(self._wake)
            # Once only, however many answers come over this connection.
            self._closed.remove_done_callback(_see)
            self._closed.add_done_callback(_see)

    def _wake(self, closed: asyncio.Future[None]) -> None:
        """Wake the reader when the connection has gone: after some broken bodies aiohttp lets him wait for ever."""
        content = self._response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection was closed"))

    async def read(self) -> bytes:
        """Return what comes next, decoded; nothing at the end.

        Raises RunError ``stream-lost`` where the body breaks off, ``invalid-chunk`` where it is not encoded as it says.
        """
        while True:
            for piece in self._pieces:
                if piece:
                    return piece
            data = await self._receive()
            if not data:
                if self._received and not all(coding.complete for coding in self._codings):
                    raise self._lost("ended in the middle of its encoding")
                return b""
            if not self._codings:
                return data
            self._received = True
            self._pieces = decode(self._codings, data)

    async def _receive(self) -> bytes:
        if self._fault is not None:
            raise self._fault
        content = self._response.content
        try:
            data = content.read_nowait()
            self.waited = not data
            if self.waited:
                data = await content.readany()
        except Exception as error:
            self._fault = self._lost("broke off")
            self._fault.__cause__ = error
            # What came before the break counts: aiohttp would keep it to itself.
            content.set_exception(None)  # type: ignore[arg-type]
            data = content.read_nowait()
            if not data:
                raise self._fault from error
            return data
        closed = self._closed
        if not data and not self._bounded and closed is not None and closed.done() and _see(closed):
            raise self._lost("broke off")
        return data

    def _lost(self, what: str) -> RunError:
        return RunError("stream-lost", f"the answer of {self.host} {what}")

    def close(self) -> None:
        """Close the connection at once, unless the body has been read to its end."""
        if self._closed is not None:
            self._closed.remove_done_callback(self._wake)
        self._response.close()


def _see(closed: asyncio.Future[None]) -> BaseException | None:
    """Return what a connection broke off with; once it is seen, asyncio does not report it."""
    return None if closed.cancelled() else closed.exception()


def fault_of(error: Exception, host: str, connect: float) -> RunError:
    """Return the error that an author sees for what aiohttp raised before an answer came."""
    if isinstance(error, aiohttp.ConnectionTimeoutError | TimeoutError):
        return RunError("timeout", f"{host} took no connection within {connect:g} s")
    if isinstance(error, aiohttp.InvalidURL):
        return RunError("template", "`url` must be a URL such as https://api.example.org/path", final=True)
    if isinstance(error, ValueError) and not isinstance(error, aiohttp.ClientError):
        return RunError(
            "template",
            "the request can't be sent: a header's name or value, or the method, has characters that HTTP forbids",
            final=True,
        )
    final = False
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        message = f"no connection to {host} came about through the proxy of `http.proxy`"
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        message = f"the name {host} can't be resolved"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        message, final = f"the certificate of {host} is not valid", True
    elif isinstance(error, aiohttp.ClientSSLError):
        message = f"no secure connection to {host} came about"
    elif isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, RefusedAddressError):
            message, final = f"the address of {host} is in a network that is not allowed", True
        elif isinstance(error.os_error, ConnectionRefusedError):
            message = f"{host} refused the connection"
        else:
            message = f"no connection to {host} came about"
    elif isinstance(error, aiohttp.ClientResponseError | aiohttp.http.HttpProcessingError):
        message = f"{host} answered in something that is not HTTP"
    else:
        message = f"{host} broke off before it answered"
    return RunError("http-connection", message, final=final)
