"""One connection: aiohttp's protocol, with our error pages, and word of room and of the end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from streamstack.errors import RunError
from streamstack.server.coded import CODINGS, Decoded
from streamstack.server.replies import problem_alone, send_problem
from streamstack.server.sockets import UNSENT, Socket
from streamstack.server.wire import PATIENCE

log = structlog.get_logger("streamstack.server")

#: Bytes of the request line and of one header; what is longer is answered with 431.
LINE_SIZE = 16_384
#: How many headers a request may have.
HEADERS = 128
#: Seconds a connection may stay without a request. Longer than proxies keep theirs (60 s).
KEEP_ALIVE = 75.0
#: Seconds the head of a request may take, where the settings say nothing; 0 is for ever.
HEAD_TIMEOUT = 30.0
#: How many connections there may be at once, where the settings say nothing.
CONNECTIONS = 10_000
#: Seconds a reader has for the rest, once the connection is being closed.
LAST_BYTES = 30.0
#: Seconds between two lines of the log that say the same of many connections.
_QUIET = 10.0


class Listener(Protocol):
    """What wants to know that its reader has gone."""

    def lost(self) -> None:
        """Take note that nothing written arrives any more."""

    def resumed(self) -> None:
        """Take note that the transport takes more again."""


class Gathering(Protocol):
    """What has gathered bytes for its reader."""

    def flush(self) -> None:
        """Hand them to the transport."""


class Turn:
    """What leaves when the event loop next turns, for all connections together.

    Where many streams wake at one moment, their writes follow one another closely: to write between the work of two
    runs wakes the readers' side again and again, which costs more than the write.
    """

    __slots__ = ("_gathered", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._gathered: list[Gathering] = []

    def flush(self, gathering: Gathering) -> None:
        """Flush it at the next turn of the loop."""
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(gathering)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        for each in gathered:
            try:
                each.flush()
            except Exception as error:  # one must not keep the others from their readers
                log.exception("flush-failed", reason=str(error))


class Breakable(Protocol):
    """What wants to know that the client sends no more, though it should."""

    def break_off(self) -> bool:
        """Take note of it; False lets the connection be closed."""


class Connection(web.RequestHandler):
    """A client's connection. All of one server have their ``turn`` together."""

    __slots__ = (
        "_ended",
        "_head",
        "_latest",
        "_partial",
        "_waiting",
        "arriving",
        "listener",
        "socket",
        "turn",
    )

    def __init__(self, *args: Any, turn: Turn, **options: Any) -> None:
        super().__init__(*args, **options)
        self.turn = turn
        self._head: asyncio.TimerHandle | None = None  # ends the wait for a request's head
        self._partial = False  # some of the head is there
        self.listener: Listener | None = None
        self.arriving: Breakable | None = None  # the body of the present request, as a stream
        self._ended = False  # the client sends no more, in the middle of a request
        self._latest: StreamReader | None = (
            None  # the body of the last request that began to arrive
        )
        self._waiting: list[asyncio.Future[None]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.socket = Socket(transport)
        self.socket.suit(UNSENT, PATIENCE)
        server = cast("Listening", self._manager)
        stream = cast("asyncio.Transport", transport)
        task = self._task_handler
        assert task is not None
        task.add_done_callback(partial(bound_the_rest, self._loop, stream))
        if len(server._connections) > server.most:  # noqa: SLF001  (`connections` would copy them all)
            server.tell_full()
            stream.write(problem_alone(_FULL))
            self.force_close()
        elif server.head_timeout:
            self._head = self._loop.call_later(server.head_timeout, self._give_up_head)

    def _give_up_head(self) -> None:
        """Close a connection whose request does not come; tell the client if some of it has."""
        self._head = None
        if self._waiter is None or self._waiter.done() or self.transport is None:
            return
        if self._partial:
            log.info("request-malformed", reason="headTimeout", status=_SLOW.status)
            self.transport.write(problem_alone(_SLOW))
        self.force_close()

    async def room(self) -> None:
        """Wait until the transport takes more, or the reader has gone.

        Unlike aiohttp's own drain, several may wait, and one of them may be cancelled alone.
        """
        while self.writing_paused and self.transport is not None:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.listener is not None:
            self.listener.resumed()
        self._wake()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            if self._head is not None:
                self._head.cancel()
                self._head = None
            self._partial = False
            message, self._latest = self._messages[-1]
            if self.arriving is not None and isinstance(message, _ErrInfo):
                # Its chunks are malformed: aiohttp forgets the body then, and nobody would ever hear of it.
                self.arriving.break_off()
        elif self._waiter is not None and not self._waiter.done() and data.strip(b"\r\n"):
            self._partial = True
            seconds = cast("Listening", self._manager).head_timeout
            if self._head is None and seconds:
                self._head = self._loop.call_later(seconds, self._give_up_head)

    # Its own says nothing, and so lets every connection be closed.
    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection where the client ended in the middle of a body, so that it can be told."""
        if self.arriving is not None:
            return True if self.arriving.break_off() else None
        latest = self._latest
        if self._current_request is None and latest is not None and not latest.is_eof():
            # Before anybody knows what is to become of the body: who takes it asks `broke_off`.
            self._ended = True
            latest.feed_eof()
            self.close()  # when the answer is sent
            return True
        return None

    def broke_off(self, body: StreamReader) -> bool:
        """Tell whether the client ended in the middle of this body, before its request was looked at."""
        return self._ended and body is self._latest

    @property
    def fresh(self) -> bool:
        """Whether no request has come yet."""
        return self._latest is None and self._current_request is None

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._head is not None:
            self._head.cancel()
            self._head = None
        self._wake()
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.lost()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what goes wrong outside of a run, but not the rest of a malformed body, which was answered with 400."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or what went wrong outside of a run, with a problem document."""
        if status >= 500:
            log.error("request-failed", exc_info=exc)
            error = RunError("internal", "the request failed", status=status)
        else:
            status = _status_of(exc, status)
            log.info("request-malformed", reason=type(exc).__name__, status=status)
            error = RunError("invalid-input", _advice(status), status=status)
        return send_problem(request, error, keep=False)


def _status_of(exc: BaseException | None, status: int) -> int:
    """Tell a line that is too long from what is malformed (RFC 6585, section 5)."""
    if isinstance(exc, LineTooLong) or "Too many headers" in str(exc):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value
    return status


def _advice(status: int) -> str:
    if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return (
            f"the request line and each header may have {LINE_SIZE} bytes, "
            f"and there may be {HEADERS} headers"
        )
    return "the request is no valid HTTP"


def bound_the_rest(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, _: asyncio.Task[None]
) -> None:
    """Drop a connection that is closed, where its reader leaves the rest where it is."""
    if transport.get_write_buffer_size():
        loop.call_later(LAST_BYTES, transport.abort)


_FULL = RunError("unavailable", "the server has as many connections as it takes", status=503)
_SLOW = RunError("timeout", "the head of the request took too long to arrive", status=408)


class Listening(web.Server):
    """aiohttp's low-level server, making our connections. Its handler is cancelled with its reader.

    ``most`` is how many connections there may be at once: more are answered with 503. ``head_timeout`` is in seconds.
    """

    def __init__(
        self,
        handler: Any,
        *,
        most: int = CONNECTIONS,
        head_timeout: float = HEAD_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(
            handler, request_factory=self._make_unlimited, handler_cancellation=True, **options
        )
        self.most = most
        self.head_timeout = head_timeout
        self._turn = Turn(self._loop)
        self._told_full = float("-inf")
        self._open: set[Connection] = set()  # until their last bytes have left
        self._empty = asyncio.Event()
        self.leaving = False

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
            keepalive_timeout=KEEP_ALIVE,
            max_line_size=LINE_SIZE,
            max_field_size=LINE_SIZE,
            max_headers=HEADERS,
            auto_decompress=False,
            turn=self._turn,
        )

    def _make_unlimited(
        self,
        message: Any,
        payload: Any,
        protocol: web.RequestHandler,
        writer: Any,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if self.leaving:
            message = message._replace(should_close=True)
        if message.compression in CODINGS and payload is not EMPTY_PAYLOAD:
            payload = Decoded(payload, message.compression, self._loop)
        # The endpoint's own limit is checked while the body is read; aiohttp's would come before.
        return web.BaseRequest(
            message, payload, protocol, writer, task, self._loop, client_max_size=0
        )
