"""WebSockets (RFC 6455): the handshake, the messages of the client, pings, the end of the connection.

The protocol is that of the library `websockets`, without its I/O. What the server sends are the frames that the encoder
of the format makes; only control frames and compressed messages are made by the library.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import hdrs
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from streamstack.errors import RunError
from streamstack.formats.websocket import GOING_AWAY, NORMAL, close_code, payloads, split_close
from streamstack.language.values import Rate
from streamstack.runtime.decoders import Options
from streamstack.runtime.decoders.decoder import OnInvalid
from streamstack.runtime.decoders.messages import MessageDecoder
from streamstack.runtime.operators import CLIENTS_FAULT
from streamstack.runtime.values import About, Batches, Stream
from streamstack.server.headers import CorsHeaders, date_line, is_of_host
from streamstack.server.replies import CLOSE, RefusalError, Sent, log
from streamstack.server.response import ChunkedResponseWriter

if TYPE_CHECKING:
    from streamstack.language.definition import Input
    from streamstack.server.request import Request
    from streamstack.server.response import ResponseSink

#: Seconds after which the handshake is answered, though nothing was sent or read yet.
ACCEPT_AFTER: Final = 1.0
#: Seconds that a client may take, beyond the interval of pings, to answer one.
PONG_TIMEOUT: Final = 10.0
#: Seconds that a client has to answer a close frame.
CLOSE_TIMEOUT: Final = 5.0
#: Seconds that a run has to read what was sent before the close frame of its client, from one message to the next.
_LINGER: Final = 10.0
#: Seconds that it has once it has read all of it.
_LAST: Final = 1.0
#: Bytes of messages that wait to be read; beyond, the client is not read from.
_WAITING: Final = 64 * 1024
#: Bytes that each of them takes beside its own.
_OVERHEAD: Final = 128
#: Frames that one message may have.
_MOST_FRAMES: Final = 10_000
#: Bytes that wait to be sent, beyond which pings are not answered.
_UNSENT: Final = 64 * 1024
#: Close codes by which a client says that it has sent everything; 1005 stands for none.
_COMPLETE: Final = frozenset({1000, 1005})

#: As in a compressed HTTP response (`server.response.Compression`): little memory for each connection.
_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_max_window_bits=11, client_max_window_bits=11, compress_settings={"level": 6, "memLevel": 3}
)


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """What an endpoint says about its WebSockets.

    ``keep_alive``: seconds between pings, 0 is never. ``largest``: bytes of a message. ``rate``: of messages.
    """

    keep_alive: float = 15.0
    largest: int = 1024 * 1024
    rate: Rate | None = None
    subprotocols: tuple[str, ...] = ()
    compress: bool = False


def wants_upgrade(request: Request) -> bool:
    """Tell whether a request asks for a WebSocket."""
    return request.headers.get(hdrs.UPGRADE, "").strip().lower() == "websocket"


def upgrade_required() -> RefusalError:
    """Return the refusal of a request that has to ask for a WebSocket."""
    return RefusalError(
        "invalid-input",
        "this is a WebSocket: open it with a WebSocket client (Upgrade: websocket)",
        status=426,
        lines=b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    )


def check_origin(request: Request, cors: CorsHeaders) -> None:
    """Refuse a page of another site that `server.cors` does not name (cross-site WebSocket hijacking).

    The same-origin policy of browsers does not apply to WebSockets, so the server has to. A page of any site may come
    where `origins` has `*`, but not with the cookies of its visitor. What is not a browser sends no Origin.
    Raises RunError ``forbidden``.
    """
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or cors.names(origin):
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site == "same-origin" or (site is None and is_of_host(origin, request.host)):
        return
    if is_of_host(origin, request.host) and site != "cross-site":
        return
    if not cors.allows(origin):
        raise RunError("forbidden", "pages of this origin may not open the WebSocket: see server.cors.origins")
    if hdrs.COOKIE in request.headers:
        raise RunError("forbidden", "a page of another site may not use this cookie: name it in server.cors.origins")


class WebSocket:
    """The WebSocket that a request asks for. Until `accept` the request can still be answered over HTTP.

    Raises RefusalError ``invalid-input`` for a malformed handshake.
    """

    def __init__(self, request: Request, options: WebSocketOptions) -> None:
        self._request = request
        request.keep_alive = False  # some clients wait for the end of a connection that is refused
        self._options = options
        self._loop = asyncio.get_running_loop()
        handshake = ServerProtocol(
            extensions=[_DEFLATE] if options.compress else None,
            subprotocols=[Subprotocol(each) for each in options.subprotocols],
            select_subprotocol=_select,
        )
        headers = Headers()
        for name, value in request.headers.items():
            headers[name] = value
        self._response = handshake.accept(Handshake(request.raw_path, headers))
        if self._response.status_code == 426:
            raise upgrade_required()
        if self._response.status_code != 101:
            raise RefusalError("invalid-input", f"the WebSocket handshake is malformed: {handshake.handshake_exc}")
        if request.body_exists:
            raise RefusalError("invalid-input", "the request of a WebSocket has no body")
        # The handshake was read by aiohttp, so this one begins with what follows it.
        self._protocol = ServerProtocol(state=OPEN, max_size=options.largest)
        self._protocol.extensions = handshake.extensions
        self.accepted = False
        self.messages: MessageStream | None = None
        self._answer: ResponseSink | None = None
        self._on_end: Callable[[RunError], None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # the next ping, or when the handshake is answered
        self._linger: asyncio.TimerHandle | None = None
        self._closed = asyncio.Event()
        self._parts: list[bytes] = []  # of a message of which more is to come
        self._size = 0
        self._frames = 0
        self._is_text = False
        self._heard_at = 0.0
        self._paused = False
        self._replying = False  # the client has begun to close, and waits for the answer
        self._done = False  # nothing that arrives is of interest any more
        self._budget = float(options.rate.limit) if options.rate else 0.0
        self._counted_at = 0.0

    # ------------------------------------------------------------- the run

    def writer(self) -> WebSocketWriter:
        """Return what sends messages."""
        return WebSocketWriter(self._request, self)

    def receive(self, declared: Input) -> MessageStream:
        """Return the messages of the client as the stream of an input."""
        self.messages = MessageStream(self, declared, self._options.largest)
        return self.messages

    def begin(self, answer: ResponseSink, on_end: Callable[[RunError], None] | None) -> None:
        """Record which response it is; ``on_end`` ends its run where the client ends the connection."""
        self._answer = answer
        self._on_end = on_end
        if not self.accepted:
            seconds = min(ACCEPT_AFTER, self._options.keep_alive or ACCEPT_AFTER)
            self._timer = self._loop.call_later(seconds, answer.accept)

    # ------------------------------------------------------------- the handshake

    def accept(self, lines: bytes) -> bytes:
        """Return the head of the response, with more header lines. Call `open` once it is written."""
        del self._response.headers["Date"]
        return self._response.serialize().removesuffix(b"\r\n") + lines + date_line() + b"\r\n"

    def open(self) -> None:
        """Read the connection from now on."""
        self.accepted = True
        self._heard_at = self._counted_at = self._loop.time()
        self._set_timer()
        self._request.upgrade(self)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent: also until the close frame of the client is answered."""
        return self._protocol.state is OPEN or self._replying

    @property
    def compresses(self) -> bool:
        """Whether messages are compressed (RFC 7692)."""
        return bool(self._protocol.extensions)

    def encode(self, data: bytes) -> bytes:
        """Return frames with their messages compressed."""
        extensions = self._protocol.extensions
        frames = (Frame(Opcode.TEXT, payload) for payload in payloads(data))
        return b"".join(frame.serialize(mask=False, extensions=extensions) for frame in frames)

    # ------------------------------------------------------------- what arrives

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes of the client: aiohttp's protocol calls this."""
        protocol = self._protocol
        self._heard_at = self._loop.time()
        with suppress(EOFError):
            protocol.receive_data(data)
        for frame in protocol.events_received():
            if not self._done and isinstance(frame, Frame):
                self._take(frame)
        if self._replying:
            return False, b""
        if self._done:
            if protocol.close_rcvd is not None or protocol.parser_exc is not None:
                self._closed.set()
        elif protocol.close_rcvd is not None:
            self._begin_reply(protocol.close_rcvd.code)
        elif protocol.parser_exc is not None and protocol.close_sent is not None:
            self._break(protocol.close_sent.code, protocol.close_sent.reason)
        else:
            self._flush()
        return False, b""

    def feed_eof(self) -> None:
        """Take the end of the connection: aiohttp's protocol calls this."""
        self.end()
        if self.messages is not None:
            self.messages.lose()
        self._done = True
        self._closed.set()

    def _take(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = opcode is Opcode.TEXT
            self._parts, self._size, self._frames = [], 0, 0
        elif opcode is not Opcode.CONT:
            return
        self._frames += 1
        if self._frames > _MOST_FRAMES:
            self.fail(RunError("invalid-input", f"a message has more than {_MOST_FRAMES} frames", status=CLIENTS_FAULT))
            return
        if frame.data:
            self._parts.append(bytes(frame.data))
        if frame.fin:
            message, self._parts = b"".join(self._parts), []
            self._take_message(message)

    def _take_message(self, message: bytes) -> None:
        if not self._allow():
            rate = self._options.rate
            self.fail(RunError("rate-limited", f"more messages than {rate} were sent", status=429))
            return
        if self._is_text:
            try:
                message.decode()
            except UnicodeDecodeError:
                self.fail(RunError("invalid-chunk", "a text message is not UTF-8", status=CLIENTS_FAULT))
                return
        if self.messages is None:
            self.fail(RunError("invalid-input", "this endpoint takes no messages", status=CLIENTS_FAULT))
            return
        self.messages.add(message, is_text=self._is_text)

    def _allow(self) -> bool:
        """Count a message against the rate: a bucket of tokens that fills steadily."""
        rate = self._options.rate
        if rate is None:
            return True
        now = self._loop.time()
        self._budget = min(self._budget + (now - self._counted_at) * rate.limit / rate.seconds, rate.limit)
        self._counted_at = now
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

    def pause(self) -> None:
        """Read no more of the client until the run has read what waits."""
        transport = self._request.transport
        if transport is not None and not self._paused:
            self._paused = True
            transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        transport = self._request.transport
        if transport is not None and self._paused:
            self._paused = False
            self._heard_at = self._loop.time()
            transport.resume_reading()

    # ------------------------------------------------------------- pings

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        keep_alive = self._options.keep_alive
        self._timer = self._loop.call_later(keep_alive, self._beat) if keep_alive else None

    def _beat(self) -> None:
        """Send a ping; give a client up that did not answer."""
        transport = self._request.transport
        if transport is None or self._protocol.state is not OPEN:
            return
        if self._paused:
            under = self._request.under
            if under is not None and under.socket.peer_ended:
                transport.close()
                return
        elif self._loop.time() - self._heard_at > self._options.keep_alive + PONG_TIMEOUT:
            log.info("websocket-dead", path=self._request.raw_path, silent=round(self._loop.time() - self._heard_at))
            transport.abort()
            return
        if not self._request.writing_paused:
            self._protocol.send_ping(b"")
            self._flush()
        self._set_timer()

    def _flush(self) -> None:
        """Write what the protocol has to say; pongs only while the client takes them."""
        data = b"".join(self._protocol.data_to_send())
        transport = self._request.transport
        if data and transport is not None and not transport.is_closing():
            if transport.get_write_buffer_size() > _UNSENT and self._protocol.state is OPEN:
                return
            transport.write(data)

    # ------------------------------------------------------------- the end

    def close(self, code: int) -> None:
        """Send a close frame, unless one was sent or the answer to the client's is due."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(code)
        self._replying = False
        self._flush()
        if self._protocol.close_rcvd is not None:
            self._closed.set()
        self._stop_reading()

    def fail(self, error: RunError) -> None:
        """End the run with an error that the client made; without a run, the connection."""
        log.info("websocket-refused", path=self._request.raw_path, code=error.code, reason=error.message)
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end(error)
            self._stop_reading()
            return
        self.close(close_code(error))
        self._hang_up(CLOSE_TIMEOUT)

    def _break(self, code: int, reason: str) -> None:
        """End a connection whose client broke the protocol; the close frame is made."""
        log.info("websocket-refused", path=self._request.raw_path, close=int(code), reason=reason)
        self._flush()
        self._stop_reading()
        self._end_run(RunError("invalid-chunk", f"the client broke the protocol: {reason}", status=CLIENTS_FAULT))

    def _begin_reply(self, code: int) -> None:
        """Take the close frame of a client. What it sent before is still read, where it says that this is all."""
        self._replying = True
        if self.messages is not None and code in _COMPLETE and self.messages.complete():
            self._wait_for_run(_LINGER)
        else:
            self._reply()

    def progress(self, *, complete: bool) -> None:
        """Note that the run has read a message, or all of them."""
        if self._replying:
            self._wait_for_run(_LAST if complete else _LINGER)

    def _wait_for_run(self, seconds: float) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._linger = self._loop.call_later(seconds, self._reply)

    def _reply(self) -> None:
        """Answer the close frame of the client, whose run ends as if it had left."""
        self._replying = False
        self._flush()
        self._end_run(RunError("stopped", "the client closed the WebSocket"))

    def _end_run(self, error: RunError) -> None:
        self._closed.set()
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end(error)
        else:
            self._hang_up(_LAST)

    def _hang_up(self, seconds: float) -> None:
        """Close the connection, when the client has had a moment to read the close frame."""
        transport = self._request.transport
        if transport is not None:
            self._loop.call_later(seconds, transport.close)

    def _stop_reading(self) -> None:
        """Drop what arrives from now on, which has to be read all the same for the close frame to arrive."""
        self._done = True
        if self.messages is not None:
            self.messages.clear()
        self.resume()

    def end(self) -> None:
        """Stop all timers: the run is over."""
        for timer in (self._timer, self._linger):
            if timer is not None:
                timer.cancel()
        self._on_end = None

    async def wait_closed(self) -> None:
        """Wait until the client has answered the close frame, or left, for some seconds at most."""
        self.end()
        if not self.accepted:
            return
        self._stop_reading()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._closed.wait()
        if self._protocol.parser_exc is not None and self._request.transport is not None:
            # What is not read resets the connection, and the close frame would be lost with it.
            await asyncio.sleep(_LAST)


def _select(protocol: ServerProtocol, offered: Any) -> Subprotocol | None:
    """Choose a subprotocol; without a common one the connection has none."""
    return next((each for each in protocol.available_subprotocols or () if each in offered), None)


class WebSocketWriter(ChunkedResponseWriter):
    """Writes messages. ``lines`` of the head are those of an HTTP response, without its status."""

    __slots__ = ("_code", "_websocket")

    def __init__(self, request: Request, websocket: WebSocket) -> None:
        super().__init__(request)
        self._websocket = websocket
        self._code = NORMAL

    def begin(self, start: bytes, *, keep: bool, compress: bool, buffer: int, unsent: int, patience: float) -> None:
        """Make the head, as `ChunkedResponseWriter.begin` does."""
        self._head = self._websocket.accept(start.partition(b"\r\n")[2] + self._request.extra)
        self.begun = True
        self._bound(buffer, unsent, patience)

    def write(self, data: bytes, end: bytes = b"") -> None:
        """Write frames; a close frame at their end is sent by `finish`."""
        transport, websocket = self._transport, self._websocket
        if transport is None or transport.is_closing():
            return
        data, code = split_close(data)
        if code is not None:
            self._code = code
        head, self._head = self._head, b""
        if not head and not (data and websocket.is_open):
            return
        transport.write(head + (websocket.encode(data) if websocket.compresses else data))
        if head:
            websocket.open()

    def finish(self, data: bytes = b"") -> Sent:
        """Write the last data, and close the connection with its code."""
        self.write(data)
        self.complete = True
        self._websocket.close(self._code)
        return CLOSE

    def cut(self, data: bytes = b"") -> Sent:
        """End a response that is continued elsewhere, or not at all."""
        if self.begun:
            self._code = GOING_AWAY
            return self.finish(data)
        return CLOSE

    def stop(self) -> None:
        """Do nothing: without a close frame, every client sees that the connection was lost."""


class MessageStream:
    """What a client sends, as the stream of an input; in place of `StreamedBody`, which is a body of HTTP."""

    def __init__(self, websocket: WebSocket, declared: Input, largest: int) -> None:
        self._websocket = websocket
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._complete = False  # no more will come
        self._unread = True  # the run has not stopped reading
        self._answer: ResponseSink | None = None
        self.lost = False
        self.read = 0  # bytes
        self.size: int | None = None
        options = Options(on_invalid=cast("OnInvalid", declared.on_invalid), largest=largest, status=CLIENTS_FAULT)
        self._decoder = MessageDecoder(declared.decode or "auto", options, "the client")
        self.stream = Stream(
            self._items,
            {"skipped": lambda: self._decoder.skipped, "bytes": lambda: self.read, "size": lambda: self.size},
            About(None, "", CLIENTS_FAULT),
        )

    def begin(self, answer: ResponseSink) -> None:
        """Record which response it belongs to."""
        self._answer = answer

    # ------------------------------------------------------------- what the connection calls

    def add(self, message: bytes, *, is_text: bool) -> None:
        """Add a message that arrived."""
        if not self._unread or self._complete:
            return
        self._waiting.append((message, is_text))
        self._size += len(message) + _OVERHEAD
        self._arrived.set()
        if self._size > _WAITING:
            self._websocket.pause()

    def complete(self) -> bool:
        """Take the end of what the client sends; return whether the run may still read."""
        self._complete = True
        self._arrived.set()
        return self._unread

    def lose(self) -> None:
        """Take the loss of the connection."""
        if not self._complete:
            self.lost = True
            self.complete()

    def clear(self) -> None:
        """Drop what waits."""
        self._unread = False
        self._waiting.clear()
        self._size = 0

    # ------------------------------------------------------------- the run

    async def _items(self) -> Batches:
        """Give the items of the messages as they come.

        Raises RunError ``stream-lost`` where the connection was lost, ``invalid-chunk`` for an invalid message.
        """
        answer, now = self._answer, asyncio.get_running_loop().time
        assert answer is not None
        answer.accept()  # a client sends nothing before
        try:
            while True:
                while not self._waiting:
                    if self._complete:
                        if self.lost:
                            raise RunError("stream-lost", "the client's connection broke off", status=CLIENTS_FAULT)
                        return
                    self._arrived.clear()
                    answer.waits_since = now()
                    try:
                        await self._arrived.wait()
                    finally:
                        answer.waits_since = 0.0
                    answer.heard_at = now()
                message, is_text = self._waiting.popleft()
                self._size -= len(message) + _OVERHEAD
                if self._size <= _WAITING // 2:
                    self._websocket.resume()
                self.read += len(message)
                self._websocket.progress(complete=False)
                items = self._decoder.feed(message, is_text=is_text)
                if items:
                    yield items
        finally:
            self.end()

    def end(self) -> None:
        """Take no more notice of messages."""
        if self._unread:
            self.clear()
            self._websocket.resume()
            self._websocket.progress(complete=True)
