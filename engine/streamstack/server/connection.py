"""One connection: aiohttp's protocol, with our own way from request to request, and word of room and of the end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import ERROR, PayloadAccessError, _ErrInfo

from streamstack.errors import RunError
from streamstack.server.coded import CODINGS, Decoded, wire_of
from streamstack.server.replies import CLOSE, KEEP, Sent, problem_alone, send_problem
from streamstack.server.request import Request
from streamstack.server.sockets import UNSENT, Socket
from streamstack.server.turn import Turn
from streamstack.server.wire import PATIENCE

if TYPE_CHECKING:
    from streamstack.server.listening import Listening

log = structlog.get_logger("streamstack.server")

#: Bytes of the request line and of one header; what is longer is answered with 431.
LINE_SIZE = 16_384
#: How many headers a request may have.
HEADERS = 128
#: Seconds a connection may stay without a request. Longer than proxies keep theirs (60 s).
KEEP_ALIVE = 75.0
#: Seconds a reader has for the rest, once the connection is being closed.
LAST_BYTES = 30.0


class Listener(Protocol):
    """What wants to know that its reader has gone."""

    def lost(self) -> None:
        """Take note that nothing written arrives any more."""

    def resumed(self) -> None:
        """Take note that the transport takes more again."""


class Breakable(Protocol):
    """What wants to know that the client sends no more, though it should."""

    def break_off(self) -> bool:
        """Take note of it; False lets the connection be closed."""


class Connection(web.RequestHandler):
    """A client's connection. All of one server have their ``turn`` together.

    aiohttp's waits for requests in a task, and answers each in a task of its own. Here nothing waits: bytes that
    complete a request call for its answer, and only an answer that takes a while becomes a task.
    """

    __slots__ = (
        "_due",
        "_early",
        "_ended",
        "_head",
        "_latest",
        "_looked",
        "_partial",
        "_waiting",
        "arriving",
        "listener",
        "server",
        "socket",
        "turn",
    )

    def __init__(self, server: Listening, *, turn: Turn, **options: Any) -> None:
        super().__init__(server, **options)
        self.server = server
        self.turn = turn
        self._head: asyncio.TimerHandle | None = None  # ends the wait for a request's head
        self._partial = False  # some of the head is there
        self._due = False  # the next request is answered when the loop next turns
        self._early = False  # the present request was begun before its body was here
        self.listener: Listener | None = None
        self.arriving: Breakable | None = None  # the body of the present request, as a stream
        self._looked = False  # the present request's body was asked for
        self._ended = False  # the client sends no more, in the middle of a request
        # The body of the last request that began to arrive.
        self._latest: StreamReader | None = None
        self._waiting: list[asyncio.Future[None]] = []

    # ------------------------------------------------------------- the connection

    # Instead of aiohttp's, which would begin to wait in a task.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        BaseProtocol.connection_made(self, transport)
        stream = cast("asyncio.Transport", transport)
        server = self.server
        server.connection_made(self, stream)
        self.socket = Socket(transport)
        self.socket.suit(UNSENT, PATIENCE)
        self._rest()
        if server.crowded:
            server.tell_full()
            stream.write(problem_alone(_FULL))
            self.force_close()
        elif server.head_timeout:
            self._head = self._loop.call_later(server.head_timeout, self._give_up_head)

    def _give_up_head(self) -> None:
        """Close a connection whose request does not come; tell the client if some of it has."""
        self._head = None
        if not self._idle or self.transport is None:
            return
        if self._partial:
            log.info("request-malformed", reason="headTimeout", status=_SLOW.status)
            self.transport.write(problem_alone(_SLOW))
        self.force_close()

    @property
    def _idle(self) -> bool:
        """Whether nothing is being answered, and nothing waits for it."""
        return self._current_request is None and not self._messages

    @property
    def fresh(self) -> bool:
        """Whether no request has come yet."""
        return self._latest is None and self._current_request is None

    def _rest(self) -> None:
        """Wait for a request, for as long as a connection may stay without one."""
        self._next_keepalive_close_time = self._loop.time() + KEEP_ALIVE
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_later(KEEP_ALIVE, self._process_keepalive)

    def _process_keepalive(self) -> None:
        self._keepalive_handle = None
        # Requests may also wait for a reader who takes nothing: that is no better than none.
        if self._current_request is not None or self._due or self._force_close:
            return  # the next answer sees to it
        if self._loop.time() < self._next_keepalive_close_time:
            due = self._next_keepalive_close_time
            self._keepalive_handle = self._loop.call_at(due, self._process_keepalive)
            return
        self.force_close()

    def close(self) -> None:
        """Close the connection; what is being answered is sent before."""
        self._close = True
        if self._current_request is None:
            self._hang_up()

    def force_close(self) -> None:
        """Close the connection; what is being answered is sent no further."""
        self._hang_up()
        super().force_close()

    def _hang_up(self) -> None:
        if self.transport is not None:
            hang_up(self._loop, self.transport)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Give the present answer so many seconds, then end it; close the connection."""
        self._force_close = True
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        task = self._task_handler
        if task is not None:
            await asyncio.wait({task}, timeout=timeout)
            task.cancel()
        self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._head is not None:
            self._head.cancel()
            self._head = None
        self._wake()
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.lost()

    # ------------------------------------------------------------- room for what is written

    async def room(self) -> None:
        """Wait until the transport takes more, or the reader has gone.

        Unlike aiohttp's own drain, several may wait, and one of them may be cancelled alone.
        """
        while self.writing_paused and self.transport is not None:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002  (aiohttp's)
        # aiohttp asks for it with each piece of a body that is read, though nothing was paused.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.listener is not None:
            self.listener.resumed()
        self._wake()
        self._go_on()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------------------- requests

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
            if self._current_request is None and not self._due:
                self._begin()
        elif self._idle and data.strip(b"\r\n") and not (self._close or self._force_close):
            self._partial = True
            seconds = self.server.head_timeout
            if self._head is None and seconds:
                self._head = self._loop.call_later(seconds, self._give_up_head)

    # Its own says nothing, and so lets every connection be closed.
    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection where the client ended in the middle of a body, so that it can be told."""
        if self.arriving is not None:
            return True if self.arriving.break_off() else None
        request, latest = self._current_request, self._latest
        if (
            request is None
            or latest is None
            or latest.is_eof()
            or self._looked
            or wire_of(request.content) is not latest  # it ended in a request behind: it has gone
        ):
            return None
        # Before anybody knows what is to become of the body: who takes it asks `broke_off`.
        self._ended = True
        latest.feed_eof()
        self.close()  # when the answer is sent
        return True

    def broke_off(self, body: StreamReader) -> bool:
        """Tell whether the client ended in the middle of this body, before it was asked for: which is now."""
        self._looked = True
        return self._ended and body is self._latest

    def _go_on(self) -> None:
        """Answer the next request when the loop next turns: others have their turn in between."""
        if self._messages and self._current_request is None and not self._due:
            self._due = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Begin to answer the next request, once its client has taken the answers before."""
        self._due = False
        if self._paused or self._close or self._force_close or not self._messages:
            return
        message, payload = self._messages.popleft()
        self._early = not payload.is_eof()
        malformed = None
        if isinstance(message, _ErrInfo):
            malformed, message = message, ERROR
        if self.server.leaving:
            message = message._replace(should_close=True)
        coding = message.compression
        if coding is not None and coding in CODINGS and payload is not EMPTY_PAYLOAD:
            payload = Decoded(payload, coding, self._loop)
        self._current_request = request = Request(message, payload, self, self._loop)
        self._looked = False
        if self._parser is not None and not self._early:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        try:
            sent = self._refuse(request, malformed) if malformed else self.server.answer(request)
        except Exception as error:  # noqa: BLE001  (whatever it is, this connection alone has it)
            sent = self._fail(request, error)
        if sent is KEEP or sent is CLOSE:
            self._finish(request, sent)
            return
        self._wait(sent)

    def _wait(self, work: Coroutine[Any, Any, Sent]) -> None:
        """Let some work decide how the connection goes on; it is cancelled when the reader leaves."""
        task = self._loop.create_task(work)
        self._task_handler = cast("asyncio.Task[None]", task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[Sent]) -> None:
        """Take note that the answer which took a while is over."""
        self._task_handler = None
        request = cast("Request", self._current_request)
        if task.cancelled():
            self._current_request = None
            self.force_close()
            return
        error = task.exception()
        self._finish(request, task.result() if error is None else self._fail(request, error))

    def _finish(self, request: Request, sent: Sent) -> None:
        """Go on after an answer, or end the connection."""
        body = wire_of(request.content)
        if self._upgraded and not self._messages and self._payload_parser is None:
            self._decline_upgrade()
        if not body.is_eof() and self.transport is not None and not self._force_close:
            self._wait(self._linger(body, sent))
            return
        if self._early and self._parser is not None:
            # The parser counts a request that waits once it is complete, so this one takes itself off only now. At its
            # most the parser stops, also where fewer wait here than have the transport paused: it is to go on.
            self._parser.message_consumed()
            self.data_received(b"")
        if self._latest is body:
            self._latest = EMPTY_PAYLOAD  # what nobody has read of it is not kept
        self._current_request = None
        if sent is CLOSE or self._close or self._force_close:
            self.close()
            return
        self._rest()
        if self._messages:
            self._go_on()

    async def _linger(self, body: StreamReader, sent: Sent) -> Sent:
        """Read the rest of a body, for some seconds; return whether the connection goes on.

        Were it closed at once, the client might lose the answer to what it has not sent yet (RFC 9112, section 9.6).
        What comes to read the body later is told that it is too late.
        """
        with suppress(TimeoutError, web.RequestPayloadError):
            async with asyncio.timeout(self._lingering_time):
                while not body.is_eof():
                    await body.readany()
                body.set_exception(_TOO_LATE)
                return sent
        body.feed_eof()  # nobody waits for it any more
        return CLOSE

    def _decline_upgrade(self) -> None:
        """Read what follows a request for another protocol, which nobody took up, as requests."""
        if self._parser is None:
            return
        self._parser.set_upgraded(False)
        self._upgraded = False
        tail, self._message_tail = self._message_tail, b""
        if tail:
            self.data_received(tail)
        if self._buffer_paused:
            self._resume_reading_if_drained()

    # ------------------------------------------------------------- what goes wrong outside of a run

    def _fail(self, request: Request, error: BaseException) -> Sent:
        """Answer where an answer failed, if it can still be told."""
        log.error("request-failed", exc_info=error)
        failure = RunError("internal", "the request failed", status=500)
        return send_problem(request, failure, keep=False)

    def _refuse(self, request: Request, malformed: _ErrInfo) -> Sent:
        """Answer what is no HTTP."""
        status = _status_of(malformed.exc, malformed.status)
        log.info("request-malformed", reason=type(malformed.exc).__name__, status=status)
        error = RunError("invalid-input", _advice(status), status=status)
        return send_problem(request, error, keep=False)


def hang_up(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
    """Close a connection once all is sent, and drop it where its reader leaves the rest where it is."""
    transport.close()
    if transport.get_write_buffer_size():
        loop.call_later(LAST_BYTES, transport.abort)


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


_FULL = RunError("unavailable", "the server has as many connections as it takes", status=503)
_SLOW = RunError("timeout", "the head of the request took too long to arrive", status=408)


#: What reading a body meets once its request was answered.
_TOO_LATE = PayloadAccessError()
