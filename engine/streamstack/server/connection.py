"""Connections below aiohttp: limits, and one request at a time."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from http import HTTPMethod
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from aiohttp import HttpVersion10, HttpVersion11, StreamReader, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import BadStatusLine, HttpProcessingError, InvalidURLError, LineTooLong

from streamstack.errors import RunError
from streamstack.server.replies import problem_alone
from streamstack.server.request import Request
from streamstack.server.response_options import PATIENCE
from streamstack.server.sockets import UNSENT, Socket

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]

    from aiohttp.http_parser import RawRequestMessage

    from streamstack.server.service import Service


log = structlog.get_logger("streamstack.server")

#: Bytes of the request line and of one header; what is longer is answered with 431.
LINE_SIZE: Final = 16_384
#: How many headers a request may have.
HEADERS: Final = 128
#: Bytes of a whole head; what is longer is answered with 431.
HEAD_SIZE: Final = 64 * 1024
#: Bytes of a head of which more is to come that are not counted.
_SMALL_HEAD: Final = 4096
#: Seconds a connection may stay without a request. Longer than proxies keep theirs (60 s).
KEEP_ALIVE = 75.0
#: Seconds the head of a request may take, where the settings say nothing; 0 is for ever.
HEAD_TIMEOUT: Final = 30.0
#: How many connections there may be at once, where the settings say nothing.
CONNECTIONS: Final = 10_000
#: Bytes that are held back while a request before them is answered; beyond, the client is not read from.
_HELD: Final = 64 * 1024
#: What HTTP/2 begins with (RFC 9113, section 3.4).
_PREFACE: Final = b"PRI "
#: So many bytes of a head are kept, while it comes in pieces, to say what is wrong with it.
_OPENING: Final = 256
#: Seconds between looks at whether a client has left that is not read from.
_CHECK_INTERVAL: Final = 1.0
_END_OF_HEAD: Final = b"\r\n\r\n"
#: Seconds between two lines of the log that say the same of many connections.
_QUIET: Final = 10.0

_FULL = RunError("unavailable", "the server has as many connections as it takes", status=503)
_HTTP_2 = RunError("invalid-input", "the request is not HTTP/1.1: this server does not speak HTTP/2", status=400)
_LARGE = RunError("invalid-input", f"the head of the request may have {HEAD_SIZE} bytes", status=431)
_NO_MEMORY = RunError("unavailable", "the server holds too many unfinished requests: try again", status=503)
_SLOW = RunError("timeout", "the head of the request took too long to arrive", status=408)


# Where in a request a connection is; numbers, since each piece that arrives asks for it.
_HEAD: Final = 0  # between requests, or in the head of one
_BEGINNING: Final = 1  # the head was handed on, and aiohttp has not taken it up yet
_BODY: Final = 2
_BEHIND: Final = 3  # the request is complete, and being answered
_END: Final = 4  # nothing that comes is of interest
_UPGRADED: Final = 5  # the connection has left HTTP


class ClientConnection(asyncio.Protocol):
    """A client's connection. ``awaited``: a task may wait for the body of the present request."""

    __slots__ = (
        "_at",
        "_body",
        "_content",
        "_dropped",
        "_end_of_head",
        "_from",
        "_head",
        "_held",
        "_lines",
        "_opening",
        "_protocol",
        "_remaining",
        "_responding",
        "_seen",
        "_server",
        "_size",
        "_tail",
        "awaited",
        "broken",
        "ended",
        "request",
        "socket",
        "transport",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._protocol: web.RequestHandler | None = None
        self._at = _HEAD
        self._tail = b""  # the last bytes of a head of which more is to come, ...
        self._opening = b""  # ... its first, ...
        self._size = 0  # ... and how many have come
        self._lines = 0  # of the head, as far as it has come
        self._head = b""  # the piece in which the head ended, ...
        self._end_of_head = -1  # ... and where, if nothing but one request is in it
        self._held = b""  # what has come behind the present request, ...
        self._from = 0  # ... from here on
        self._dropped = False  # what came behind was dropped: the connection ends with the present response
        self._body: ChunkedBody | None = None
        self._remaining = 0  # bytes of a body with a length
        self._content: StreamReader | None = None
        self._responding = False
        self._seen = False  # a request has come
        self.awaited = False
        self.broken = False  # the body of the present request ended before its end
        self.ended = False  # the client sends no more
        self.request: Request | None = None
        self.transport: asyncio.Transport
        self.socket: Socket

    @property
    def fresh(self) -> bool:
        """Whether no request has come yet."""
        return not self._seen

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered, and nothing waits for it."""
        return self._at == _HEAD and not self._responding

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        server = self._server
        if len(server.opened) >= server.most:
            server.report_full()
            self._at = _END
            self.transport.write(problem_alone(_FULL))
            self.transport.close()
            return
        self.socket = Socket(transport)
        self.socket.configure(UNSENT, PATIENCE)
        self._protocol = server.make_protocol()
        server.add(self, self._protocol)
        self._protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._protocol is not None:
            hops = 3 if self._at == _BEGINNING else 0  # what came as a whole is begun all the same
            self._later(hops, lambda: self._lose(exc))

    def _later(self, hops: int, work: Any) -> None:
        """Do some work after so many turns of the event loop."""
        if hops:
            asyncio.get_running_loop().call_soon(self._later, hops - 1, work)
        else:
            work()

    def _lose(self, exc: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        self._at = _END
        if protocol is not None:
            self._server.discard(self, protocol)
            protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def eof_received(self) -> bool:
        """Keep the connection where the client ended in the middle of a body, so that it can be told.

        TLS ends both ways at once.
        """
        return self._end_input() and self.transport.get_extra_info("sslcontext") is None

    def _end_input(self) -> bool:
        self.ended = True
        if self._at == _BEGINNING:
            return True
        if self._at == _BODY and self._responding and self.awaited:
            self._break_off()
            return True
        if self.broken:
            return True  # the response says so, and ends the connection
        if self._responding:
            # What is answered at once is answered; all else ends as it does with a reader who leaves.
            self._later(2, self.transport.close)
            return True
        return False

    def _break_off(self, *, paused: bool = False) -> None:
        """End an incomplete body: its reader gets what came before.

        Where the parser is ``paused`` it has some of that still, and has to find the body open.
        """
        content = self._content
        self.broken = True
        self._at = _END
        if not self._responding:
            self.transport.close()  # the response has left, and no request can follow
        if content is None or content.is_eof():
            return
        if not paused:
            content.feed_eof()
        else:
            content.set_exception(web.RequestPayloadError("the body broke off"))

    # ------------------------------------------------------------- what arrives

    def data_received(self, data: bytes) -> None:
        if self._held:
            self._hold(self._held[self._from :] + data)
        elif self._at == _HEAD:
            self._take_head(data, 0)
        elif self._at == _BODY:
            self._take_body(data, 0)
        elif self._at == _UPGRADED:
            if self._protocol is not None:
                self._protocol.data_received(data)
        elif self._at != _END:
            self._hold(data)

    def _hold(self, data: bytes, start: int = 0) -> None:
        """Keep what comes behind the present request; read no more where that is much."""
        if start >= len(data) or self._dropped:
            return
        self._held, self._from = data, start
        if self._at == _BEHIND:
            self._count_held()
        if len(data) - start > _HELD and self.transport.is_reading():
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(_CHECK_INTERVAL, self._check)

    def _count_held(self) -> None:
        """Count further requests in the memory of the process, where they are more than a few."""
        size = len(self._held) - self._from
        if size > _SMALL_HEAD:
            self._server.memory.hold(self, size, self._drop_held)

    def _drop_held(self) -> None:
        """Take up no further request of this connection: its client sends them again."""
        log.info("requests-dropped", reason="maxMemory")
        self._take_held()
        self._dropped = True
        if self.request is not None:
            self.request.keep_alive = False

    def _check(self) -> None:
        """Notice that the client has left, while it is not read from."""
        if self._protocol is None or len(self._held) - self._from <= _HELD:
            return
        if self.socket.peer_ended:
            self.eof_received()
        else:
            asyncio.get_running_loop().call_later(_CHECK_INTERVAL, self._check)

    def _take_held(self) -> tuple[bytes, int]:
        """Return what was held, and where in it to go on."""
        held = self._held, self._from
        if self._at == _BEHIND:
            self._server.memory.release(self)
        if len(held[0]) - held[1] > _HELD:
            self.transport.resume_reading()
        self._held, self._from = b"", 0
        return held

    def _take_head(self, data: bytes, start: int) -> None:
        protocol, tail = self._protocol, self._tail
        if protocol is None:
            return
        if tail:
            if len(self._opening) < _OPENING:
                self._opening += data[:_OPENING]
            joint = (tail + data[:3]).find(_END_OF_HEAD)
            end = joint + 4 - len(tail) if joint >= 0 else data.find(_END_OF_HEAD) + 4
            complete = joint >= 0 or end > 3
        else:
            while start < len(data) and data[start] in b"\r\n":
                start += 1  # empty lines before a request (RFC 9112, section 2.2)
            if start == len(data):
                return
            self._lines = self._size = 0
            end = data.find(_END_OF_HEAD, start) + 4
            complete = end > 3
            self._opening = b"" if complete else data[start : start + _OPENING]
        if self._opening.startswith(_PREFACE) if self._opening else data.startswith(_PREFACE, start):
            self._refuse(_HTTP_2, "HTTP/2")
            return
        self._size += (end if complete else len(data)) - start
        if self._size > HEAD_SIZE:
            self._refuse(_LARGE, "HeadTooLarge")
            return
        if not complete:
            self._server.watch(self)
            if self._size > _SMALL_HEAD:
                self._server.memory.hold(self, self._size, self._give_up)
            self._tail = (tail + data[start:])[-3:]
            self._lines += data.count(b"\n", start)
            protocol.data_received(data[start:] if start else data)
            return
        self._tail = b""
        self._at = _BEGINNING
        size = len(data)
        if start == 0 and (end == size or _length(data, end) == size - end):
            self._end_of_head = end  # by far the most often: one request, and all of it
        else:
            self._end_of_head = -1
            self._hold(data, end)
            data = data[start:end]
        self._head = data
        protocol.data_received(data)

    def begin(self, message: RawRequestMessage, content: StreamReader) -> None:
        """Record that aiohttp has taken up the request."""
        self._server.unwatch(self)
        self._tail = b""
        self._seen = self._responding = self.awaited = True
        self.broken = False
        self._content = content
        if content.is_eof():
            self._at = _BEHIND
            self._count_held()
        else:
            self._at = _BODY
            self._head = b""
            if message.chunked:
                self._body = ChunkedBody()
            else:
                self._body = None
                self._remaining = int(message.headers.get(hdrs.CONTENT_LENGTH, 0))
                if self._end_of_head > 0:
                    self._remaining -= content.total_bytes
            if self._held:
                self._take_body(*self._take_held())
        if self.ended:
            self._end_input()

    @property
    def complete(self) -> bool:
        """Whether all of the present request has come."""
        return self._at == _BEHIND and not self.broken

    @property
    def whole_body(self) -> bytes | None:
        """The body, where it came in one piece with its head."""
        head, end = self._head, self._end_of_head
        return head[end:] if 0 < end < len(head) else None

    def _take_body(self, data: bytes, start: int) -> None:
        protocol, content = self._protocol, self._content
        if protocol is None or content is None:
            return
        if self._body is None:
            end = start + min(self._remaining, len(data) - start)
            self._remaining -= end - start
            part = data if start == 0 and end == len(data) else data[start:end]
            complete = not self._remaining
        else:
            try:
                part, end = self._body.feed(data, start)
            except MalformedError:
                self._break_off(paused=not self.transport.is_reading())
                return
            complete = self._body.complete
        if part:
            protocol.data_received(part)
        if not complete:
            return
        if not content.is_eof() and self.transport.is_reading():
            self._break_off()  # aiohttp does not take it for one: its trailers are malformed
            return
        self._at = _BEHIND
        self._hold(data, end)
        if not self._responding:
            self._go_on()

    def upgrade(self) -> None:
        """Pass on what comes from now on, and has come behind the request, as it is."""
        data, start = self._take_held()
        self._at = _UPGRADED
        if data and self._protocol is not None:
            self._protocol.data_received(data[start:])

    def end(self) -> None:
        """Record that the response was written."""
        self._responding = False
        if self.broken:
            if self._content is not None and not self._content.is_eof():
                self._content.feed_eof()  # aiohttp would wait for the rest
            self._later(2, self.transport.close)  # also where the head did not say so
        if self._at == _BEHIND:
            self._go_on()

    def _go_on(self) -> None:
        """Take up the next request."""
        held = self._take_held()
        self._at = _HEAD
        self._content = self._body = self.request = None
        self._head = b""
        if self._dropped:
            self._at = _END
            self.transport.close()
        elif held[0]:
            self._take_head(*held)
        elif self.ended:
            self.transport.close()

    def end_head(self) -> None:
        """Close a connection whose request does not come; tell the client if some of it has."""
        if self._at <= _BEGINNING and not self._responding and self._protocol is not None:
            if self._tail or self._lines:
                self._refuse(_SLOW, "headTimeout")
            self._at = _END
            self.transport.close()

    def _give_up(self) -> None:
        self._refuse(_NO_MEMORY, "maxMemory")

    def _refuse(self, error: RunError, reason: str) -> None:
        """Answer a head that is given up, and close the connection."""
        log.info("request-malformed", reason=reason, status=error.status)
        self.transport.write(problem_alone(error))
        self._at = _END
        self.transport.close()

    @property
    def request_line(self) -> bytes:
        """The line that the head begins with, or its beginning."""
        return (self._opening or self._head[:_OPENING]).lstrip(b"\r\n").partition(b"\r\n")[0]

    @property
    def many_headers(self) -> bool:
        """Whether the head has more headers than a request may have."""
        end = self._end_of_head if self._end_of_head > 0 else len(self._head)
        return self._lines + self._head.count(b"\n", 0, end) > HEADERS + 2

    def close_idle(self) -> None:
        """Close the connection unless a request is being answered, or none has come yet."""
        if self.idle and self._seen:
            self.transport.close()


def _length(head: bytes, end: int) -> int:
    """Return the length of the body by its header, as most clients write it; -1 for all others."""
    found = _LENGTH.search(head, 0, end)
    return -1 if found is None else int(found[1])


#: aiohttp's parser decides what is a body, and whether this is one; here it only tells whether all may have come.
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,9})\r\n")


class MalformedError(Exception):
    """Chunks that are none."""


class ChunkedBody:
    """Follows a body in chunks to its end (RFC 9112, section 7.1). ``complete`` says that the end has come."""

    __slots__ = ("_line", "_remaining", "_room", "_trailers", "complete")

    def __init__(self) -> None:
        self.complete = False
        self._line = b""  # the beginning of a line
        self._remaining = 0  # bytes of the present chunk, its line end included
        self._trailers = False  # the last chunk has come
        self._room = LINE_SIZE  # bytes that its trailers may have

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        """Return what belongs to the body, and where its end is, or that of the data.

        Extensions of chunks and trailers are left out: aiohttp's parser refuses some that are valid, and would not say
        that it refuses one. Raises MalformedError.
        """
        at, end = start, len(data)
        parts: list[bytes] = []  # what was passed on before `since`, where something was left out
        since = start
        while at < end:
            if self._remaining > 2:
                step = min(self._remaining - 2, end - at)
                self._remaining -= step
                at += step
                continue
            if self._remaining:
                if data[at] != (13 if self._remaining == 2 else 10):
                    raise MalformedError
                self._remaining -= 1
                at += 1
                continue
            found = data.find(b"\n", at)
            stop = end if found < 0 else found + 1
            line = self._line + data[at:stop]
            if len(line) > LINE_SIZE:
                raise MalformedError
            if found < 0:
                self._line = line
                # A line is passed on once it is complete, without what may stand behind a size.
                parts.append(data[since:at])
                since = at = end
                break
            held, self._line = self._line, b""
            if self._trailers:
                if line == b"\r\n":
                    if held:
                        parts += (data[since:at], line)
                        since = stop
                    at = stop
                    self.complete = True
                    break
                self._room -= len(line)
                if self._room < 0 or _TRAILER.fullmatch(line) is None:
                    raise MalformedError
                parts.append(data[since:at])
                since = at = stop
                continue
            size = _SIZE.fullmatch(line)
            if size is None:
                raise MalformedError
            if held or size[2]:
                parts += (data[since:at], size[1], b"\r\n")
                since = stop
            at = stop
            length = int(size[1], 16)
            if length:
                self._remaining = length + 2
            else:
                self._trailers = True
        if parts:
            return b"".join(parts) + data[since:at], at
        return data if start == 0 and at == end else data[start:at], at


#: A chunk's size and its extensions (RFC 9112, section 7.1.1).
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)\r\n")
#: A field behind the last chunk (RFC 9112, sections 5 and 7.1.2).
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n")


class HttpServer(web.Server):
    """aiohttp's low-level server on our connections. What takes a while is cancelled with its client.

    ``most`` is how many connections there may be at once: more are answered with 503. ``head_timeout`` is in seconds.
    """

    def __init__(self, service: Service, *, most: int = CONNECTIONS, head_timeout: float = HEAD_TIMEOUT) -> None:
        super().__init__(
            service.handle,
            request_factory=self.make_request,
            handler_cancellation=True,
            access_log=None,
            logger=_logger,
            keepalive_timeout=KEEP_ALIVE,
            max_line_size=LINE_SIZE,
            max_field_size=LINE_SIZE,
            max_headers=HEADERS,
            auto_decompress=False,
        )
        self.most = most
        self.head_timeout = head_timeout
        #: The connections, until their last bytes have left.
        self.opened: set[ClientConnection] = set()
        self._heads: dict[ClientConnection, float] = {}  # when each is given up, the next one first
        self._timer: asyncio.TimerHandle | None = None
        self._reported_full = float("-inf")
        self._empty = asyncio.Event()
        self._service = service
        self.memory = service.memory
        self._of = service.connections

    def make_protocol(self) -> web.RequestHandler:
        """Return aiohttp's protocol for a connection."""
        return super().__call__()

    # A factory of protocols, whatever they are, is all that the event loop wants.
    def __call__(self) -> ClientConnection:  # type: ignore[override]
        return ClientConnection(self)

    def make_request(
        self,
        message: RawRequestMessage,
        content: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """Return a request of aiohttp's; one that stands for what could not be read is answered as a problem."""
        connection = self._of.get(protocol)
        if connection is None:
            return web.BaseRequest(message, content, protocol, writer, task, task.get_loop())
        connection.begin(message, content)
        headers: object = message.headers
        if isinstance(headers, dict) and protocol.transport is not None:
            writer = _Refusal(protocol.transport, connection)
        raw = web.BaseRequest(message, content, protocol, writer, task, task.get_loop())
        service = self._service
        connection.request = Request(raw, service.flush_queue, connection, message, last=service.closing)
        return raw

    # ------------------------------------------------------------- all connections

    def add(self, connection: ClientConnection, protocol: web.RequestHandler) -> None:
        """Record a connection."""
        self.opened.add(connection)
        self._of[protocol] = connection
        self.watch(connection)

    def discard(self, connection: ClientConnection, protocol: web.RequestHandler) -> None:
        """Forget a connection."""
        self.opened.discard(connection)
        self._of.pop(protocol, None)
        self.unwatch(connection)
        if not self.opened:
            self._empty.set()

    def report_full(self) -> None:
        """Log that there are too many connections, now and then."""
        now = asyncio.get_running_loop().time()
        if now >= self._reported_full + _QUIET:
            self._reported_full = now
            log.warning("connections-full", most=self.most, hint="server.maxConnections")

    def close_after_response(self) -> None:
        """Let each connection end with its next response, which says so."""
        self._service.closing = True

    def close_idle(self) -> None:
        """Close the connections on which nothing is being answered, but for those from which nothing came yet."""
        for connection in list(self.opened):
            connection.close_idle()

    @property
    def fresh(self) -> bool:
        """Whether there are connections from which no request came yet."""
        return any(connection.fresh for connection in self.opened)

    async def flushed(self, patience: float) -> None:
        """Wait until what was written has left and all connections are closed, for some seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self.opened:
                    self._empty.clear()
                    await self._empty.wait()

    # ------------------------------------------------------------- heads that take too long

    def watch(self, connection: ClientConnection) -> None:
        """Give a head its time from now on, unless it has some already."""
        if not self.head_timeout or connection in self._heads:
            return
        loop = asyncio.get_running_loop()
        due = self._heads[connection] = loop.time() + self.head_timeout
        if self._timer is None:
            self._timer = loop.call_at(due, self._end_heads)

    def unwatch(self, connection: ClientConnection) -> None:
        """Record that a head has come, or will not."""
        self._heads.pop(connection, None)
        self.memory.release(connection)

    def _end_heads(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now = loop.time() + 0.001
        # All have the same time, so the first to come is due first.
        while self._heads:
            connection, due = next(iter(self._heads.items()))
            if due > now:
                self._timer = loop.call_at(due, self._end_heads)
                return
            del self._heads[connection]
            connection.end_head()


#: What is wrong with a request that aiohttp can't read.
_REASONS: Final[dict[type[BaseException], str]] = {
    BadStatusLine: "the request line is not valid: it is written `GET /path HTTP/1.1`, with blanks in the path as %20",
    InvalidURLError: "the path or the query has characters that must be percent-encoded: ü is written %C3%BC",
}


_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSIONS: Final = (b"HTTP/1.1", b"HTTP/1.0")


def _explain(line: bytes, failure: BaseException | None) -> tuple[int, str] | None:
    """Return the status and the message for a request line that aiohttp can't read; None where nothing else is known.

    It may be the beginning of one. An unknown method is a 405, not a 501 (RFC 9110, section 9.1): what a client sends
    must not count as a fault of the server.
    """
    method, _, rest = line.partition(b" ")
    target, _, version = rest.strip().partition(b" ")
    if not target or _METHOD.fullmatch(method) is None or b" " in version:
        return None
    name = method[:20].decode()
    if version.startswith(b"HTTP/") and version not in _VERSIONS:
        return 400, "the version of HTTP must be 1.1 or 1.0"
    if name.upper() in HTTPMethod.__members__ and name.upper() != name:
        return 405, f"methods are written in capital letters: {name.upper()}"
    if target == b"*":
        return 400, "the target `*` is for OPTIONS only: write a path such as /api/orders"
    if isinstance(failure, BadStatusLine) and name not in HTTPMethod.__members__ and line.isascii():
        return 405, f"the method {name} is not known to this server"
    if not target.startswith(b"/") and b"://" not in target:
        return 400, "the path of a request begins with `/`"
    return None


class _Refusal(AbstractStreamWriter):
    """Writes a problem document in place of what aiohttp says of a request that it can't read."""

    def __init__(self, transport: asyncio.Transport, connection: ClientConnection) -> None:
        self._transport = transport
        self._connection = connection

    async def write(self, chunk: Buffer) -> None:
        """Leave aiohttp's words out."""

    async def write_eof(self, chunk: bytes = b"") -> None:
        """Write the problem document."""
        failure = _failures.take()
        status, message = 400, "the request is not valid HTTP"
        for kind, reason in _REASONS.items():
            if isinstance(failure, kind):
                status, message = _explain(self._connection.request_line, failure) or (400, reason)
        if isinstance(failure, LineTooLong) or self._connection.many_headers:
            status = 431
            message = f"the request line and each header may have {LINE_SIZE} bytes, and there may be {HEADERS} headers"
        log.info("request-malformed", reason=type(failure).__name__, status=status)
        if not self._transport.is_closing():
            error = RunError("method-not-allowed" if status == 405 else "invalid-input", message, status=status)
            self._transport.write(problem_alone(error))

    async def drain(self) -> None:
        """Wait for nothing."""

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        """Do nothing."""

    def enable_chunking(self) -> None:
        """Do nothing."""

    async def write_headers(self, status_line: str, headers: object) -> None:
        """Leave aiohttp's head out."""


class _Failures(logging.Handler):
    """Hears from aiohttp's log why a request could not be read, and passes on what else there is."""

    def __init__(self) -> None:
        super().__init__()
        self._last: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            self._last = error
        elif record.levelno >= logging.WARNING:
            log.error("request-failed", message=record.getMessage(), exc_info=error)

    def take(self) -> BaseException | None:
        """Return the last reason, once."""
        last, self._last = self._last, None
        return last


_failures = _Failures()
_logger = logging.getLogger("streamstack.http")
_logger.setLevel(logging.DEBUG)
_logger.propagate = False
_logger.addHandler(_failures)


#: A host with its port: a name, an IPv4 address, or an IPv6 address in brackets (RFC 3986, section 3.2.2).
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
#: Hosts that were looked at, so that each is looked at once; at most so many.
_known: set[str] = set()
_MOST: Final = 1000


def check_framing(request: Request) -> None:
    """Refuse a request that others may understand in another way.

    Raises RunError ``invalid-input``.
    """
    host, version = request.headers.get(hdrs.HOST), request.version
    if version == HttpVersion11 and host in _known and hdrs.TRANSFER_ENCODING not in request.headers:
        return
    if version not in (HttpVersion10, HttpVersion11):
        raise RunError("invalid-input", "the request is not HTTP/1.1")
    if host is not None and host not in _known:
        if not _HOST.fullmatch(host):
            raise RunError("invalid-input", "Host must be a host with its port")
        if len(_known) < _MOST:
            _known.add(host)
    codings = [each.strip().lower() for each in request.headers.getall(hdrs.TRANSFER_ENCODING, ())]
    if codings and version == HttpVersion10:
        raise RunError("invalid-input", "HTTP/1.0 has no Transfer-Encoding")
    if codings not in ([], ["chunked"]):
        raise RunError("invalid-input", "Transfer-Encoding can be chunked only")
