"""Responses that stream: the sink of each request, framing, backpressure."""

from __future__ import annotations

import asyncio
import zlib
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Final, Protocol

import orjson

from streamstack import clock
from streamstack.errors import RunError
from streamstack.formats.spec import Encoder, ResponseContext
from streamstack.language.names import ForwardedHeaders, without_body
from streamstack.language.values import MISSING, to_json
from streamstack.runtime.run import Run, SharedChunk, Sink, check_content, check_open
from streamstack.server.headers import BODILESS, check_status, cookie_headers, date_line, own_headers, status_line
from streamstack.server.replies import (
    CLOSE,
    JSON,
    KEEP,
    Sent,
    connection_line,
    in_band,
    log,
    reset,
    send,
    send_problem,
    status_of,
)
from streamstack.server.request import Request
from streamstack.server.response_options import GATHERED, LARGEST_DOCUMENT, ResponseOptions, accepts_gzip


class ResponseSink(Sink):
    """What the server needs of a sink beyond what a run needs. ``cors`` are header lines."""

    __slots__ = (
        "blocked",
        "cached",
        "committed",
        "cookies",
        "cors",
        "dropped",
        "emitted_at",
        "first_at",
        "headers",
        "heard_at",
        "refused",
        "request",
        "row",
        "run",
        "sent_at",
        "status",
        "waits_since",
        "wire",
    )
    run: Run  # set before anything is emitted

    #: Whether the response can be resumed.
    resumable: ClassVar[bool] = False
    #: Whether what the run was given is not the request's to close any more.
    handed: bool = False

    def __init__(self, wire: ResponseOptions, request: Request, cors: bytes = b"") -> None:
        super().__init__()
        self.wire = wire
        self.request = request
        self.cors = cors
        self.row = 0  # where its figures are counted: of its endpoint, or of a variant of an experiment
        self.committed = False  # the status line is sent
        self.refused = False  # an error was answered with its own status
        self.first_at = 0.0  # `clock.monotonic` when the first chunk left
        self.status = 200
        self.headers: list[tuple[str, str]] = []  # of this run: from bindings and `respond`
        self.cookies: dict[str, Any] = {}
        self.blocked = False  # waiting for the reader
        self.cached = ""  # what the cache of the endpoint had
        self.dropped = 0  # of the chunks, those that their reader was too slow for
        self.emitted_at = 0.0  # loop time of the last chunk
        self.sent_at = 0.0  # loop time of the last byte
        self.heard_at = 0.0  # loop time of the last bytes of a body that is read as it arrives
        self.waits_since = 0.0  # loop time since when more of it is waited for, 0 where it is not

    def respond(self, status: int | None, headers: Mapping[str, str], cookies: Mapping[str, Any]) -> None:
        if self.committed:
            raise RunError("template", "the status line has been sent: `respond` must come before the first chunk")
        if status is not None:
            self.status = check_status(status)
        if isinstance(headers, ForwardedHeaders) and self.wire.format not in ("text", "bytes"):
            # They describe another body: JSON sent as text/html would run in browsers, and a digest would be wrong.
            headers = without_body(headers)
        self.headers += own_headers(headers, bound=True)
        cookie_headers(cookies)  # told here, at the step that gives them
        self.cookies.update(cookies)

    def lines(self) -> bytes:
        """Return the header lines but those of the connection."""
        wire = self.wire
        lines = wire.lines(self.headers) if self.headers else wire.plain
        if self.cookies:
            lines += b"".join(f"{name}: {value}\r\n".encode() for name, value in cookie_headers(self.cookies))
        return b"%bX-Run-Id: %b\r\n%b" % (lines, self.run.id.encode(), self.cors)

    @abstractmethod
    def finish(self, value: Any) -> Sent:
        """End the answer in good order. ``value`` is what the stack returned."""

    def fail(self, error: RunError) -> Sent:
        """Answer with an error, in the way that is still open."""
        self.status, self.refused = status_of(error), True
        return send_problem(self.request, error, run=self.run.id, lines=self.cors, dev=self.wire.dev)

    def abort(self) -> None:
        """Close the connection at once."""
        if (transport := self.request.transport) is not None:
            reset(transport)

    def drop_reader(self) -> None:
        """Disconnect a client that is too slow. The run ends as if the client had left."""
        log.warning(
            "reader-dropped",
            code="slow-client",
            run=self.run.id,
            method=self.request.method,
            path=self.request.path,
            chunks=self.count,
        )
        self.abort()

    def heartbeat(self) -> None:
        """Keep proxies from closing an idle connection, where the format has a way to."""

    def accept(self) -> None:
        """Begin the response of a WebSocket, so that its client can send."""

    def summary(self) -> dict[str, Any]:
        """Return the figures that the end of a stream tells."""
        summary: dict[str, Any] = {"chunks": self.count, "elapsedMs": self.run.elapsed_ms}
        if self.dropped:
            summary["dropped"] = self.dropped
        return summary

    def error_fields(self, error: RunError) -> dict[str, Any]:
        """Return the error that the client receives after the commit point."""
        return in_band(error, self.run.id, dev=self.wire.dev)


class ValueSink(ResponseSink):
    """Answers with the value of the stack. Nothing can be emitted into it."""

    __slots__ = ()

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        raise RunError("template", "this endpoint answers one JSON value: write `responseType: streaming` to stream")

    async def drain(self) -> None:
        return None

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        self.emit(content, None, None, metadata)

    def finish(self, value: Any) -> Sent:
        body = to_json(value)
        lines = self.lines()
        self.committed = True
        return send(self.request, self.status, lines, body)


#: How far back it looks for what it has seen (2 to this power, bytes), and the memory of its tables: 18 KB a
#: stream, where zlib's own choice takes 123 KB. It costs little: in a stream what is alike stands close together.
_WINDOW: Final = 11
_MEMORY: Final = 3
_LEVEL: Final = 6
_GZIP: Final = 16  # added to the window: gzip's head and tail (zlib manual, deflateInit2)

#: The last chunk of a body (RFC 9112, section 7.1).
_LAST: Final = b"0\r\n\r\n"


def chunk_of(data: bytes) -> bytes:
    """Return data as one chunk of HTTP (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkedResponseWriter:
    """Writes one response of HTTP: in chunks, or until the connection is closed where the client speaks HTTP/1.0.

    The head is sent together with the first data. What has no transport any more is not written.
    """

    __slots__ = ("_bare", "_chunked", "_compression", "_head", "_keep", "_request", "_transport", "begun", "complete")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._transport = request.transport
        self._chunked = request.version >= (1, 1)
        self._bare = request.method == "HEAD"  # no body, whatever is written
        self._compression: Compression | None = None
        self._head = b""  # made, and not sent yet
        self._keep = False
        self.begun = False  # the head is made: the status stands
        self.complete = False  # all of it was written, with a good end

    @property
    def full(self) -> bool:
        """Whether the connection takes no more for now."""
        return self._request.writing_paused

    @property
    def pending(self) -> bool:
        """Whether the head is made, and not sent yet."""
        return bool(self._head)

    def begin(self, start: bytes, *, keep: bool, compress: bool, buffer: int, unsent: int, patience: float) -> None:
        """Make the head, and set how much may wait in it for the client.

        Args:
            start: the status line and the header lines, but those of the connection.
            keep: whether the connection is of further use after the response.
            compress: whether the body is compressed for a client that takes it.
            buffer: bytes that may wait for a slow client altogether.
            unsent: those of them that wait in the transport.
            patience: seconds that the client may take nothing.
        """
        request = self._request
        framing = b""
        if self._chunked and not self._bare:
            framing = b"Transfer-Encoding: chunked\r\n"
            if (
                compress
                and accepts_gzip(request.headers.get("Accept-Encoding"))
                and b"\r\ncontent-encoding:" not in start.lower()  # the author's own
            ):
                self._compression = Compression()
                framing = b"Content-Encoding: gzip\r\n" + framing
        self._keep = keep and self._chunked and request.keep_alive
        connection = connection_line(request, keep=self._keep)
        self._head = b"".join((start, framing, date_line(), connection, request.extra, b"\r\n"))
        self._bound(buffer, unsent, patience)

    def _bound(self, buffer: int, unsent: int, patience: float) -> None:
        """Set how much may wait for the client."""
        self.begun = True
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.set_write_buffer_limits(high=max(unsent, 1))
            self._request.bound_unsent(buffer, patience)

    def write(self, data: bytes, end: bytes = b"") -> None:
        """Write data as one chunk of HTTP (RFC 9112, section 7.1); ``end`` is the last chunk."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        head, self._head = self._head, b""
        if self._compression is not None and (data or end):
            data = self._compression(data, last=bool(end))
        if self._bare:
            data = head
        elif not self._chunked:
            data = head + data
        elif data:
            data = b"%b%x\r\n%b\r\n%b" % (head, len(data), data, end)
        else:
            data = head + end
        if data:
            transport.write(data)

    def write_frame(self, frame: bytes) -> bool:
        """Write one chunk of HTTP that is framed already; return whether this response is made of such."""
        transport = self._transport
        if self._head or self._bare or not self._chunked or self._compression is not None:
            return False
        if transport is None or transport.is_closing():
            return False
        transport.write(frame)
        return True

    def finish(self, data: bytes = b"") -> Sent:
        """Write the last data, and end the response well."""
        self.write(data, _LAST)
        self.complete = True
        return KEEP if self._keep else CLOSE

    def cut(self, data: bytes = b"") -> Sent:
        """End the response without its last chunk, so that every client sees it cut short."""
        if data or self._head:
            self.write(data)
        if self._transport is not None and not self._transport.is_closing():
            self.stop()
        return CLOSE

    def stop(self) -> None:
        """Let a response that the server takes no further be seen to be cut short, though its connection is closed."""
        if not self._chunked and not self.complete and self._transport is not None:
            # Such a response ends with its connection: only a reset tells that it failed.
            reset(self._transport)

    def abort(self) -> None:
        """Give the connection up, so that its client sees a failure, in HTTP/1.0 too."""
        if self._transport is not None:
            reset(self._transport)

    async def room(self, patience: float) -> bool:
        """Wait until the connection takes more; False where it took nothing for some seconds, and was given up."""
        if not self.full:
            return True
        try:
            async with asyncio.timeout(patience):
                await self._request.room()
        except TimeoutError:
            self.abort()
            return False
        return True


def make_writer(request: Request) -> ChunkedResponseWriter:
    """Return what writes the response of a request: over HTTP, or over the WebSocket that it asks for."""
    return ChunkedResponseWriter(request) if request.websocket is None else request.websocket.writer()


class Compression:
    """One answer, compressed (RFC 1952). What is not ended is seen to be cut short."""

    __slots__ = ("_work",)

    def __init__(self) -> None:
        self._work = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP + _WINDOW, _MEMORY)

    def __call__(self, data: bytes, *, last: bool) -> bytes:
        """Return data compressed, as far as a reader needs it to have all of it; with ``last``, the end."""
        return self._work.compress(data) + self._work.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


#: Types of content that every format carries, told without a look at their ancestors.
_PLAIN: Final = frozenset({str, dict, list, int, float, bool, bytes, orjson.Fragment})


class StreamSink(ResponseSink):
    """Encodes chunks and gathers their bytes: they are handed on once a turn of the event loop, or when they are many.

    The first chunk is handed on at once, with the status line, in one piece. A response that is sent whole is kept by
    its encoder until the end.
    """

    __slots__ = (
        "_encoder",
        "_flush_queue",
        "_flushed",
        "_gathered",
        "_limit",
        "_loop",
        "_opening",
        "_parts",
        "_scheduled",
        "takes_json",
    )

    def __init__(self, wire: ResponseOptions, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self.takes_json = wire.spec.raw_json
        self._loop = asyncio.get_running_loop()
        self._flush_queue = request.flush_queue
        self._encoder: Encoder | None = None
        self._parts: list[bytes] = []
        self._opening = b""  # what stands inside the first event
        self._scheduled = False
        self._flushed = 0  # of `bytes`, those that were handed on
        # The chunk that brings `bytes` here goes through `_settle`: 0 when no flush is
        # scheduled, so that the way through `emit` needs one comparison only.
        self._limit = 0
        self._gathered = min(GATHERED, wire.buffer // 2) or 1

    # ------------------------------------------------------------- what a kind of stream fills in

    @abstractmethod
    def _commit(self) -> None:
        """Begin the response: from here on the status stands."""

    @abstractmethod
    def _blocks(self, more: int = 0) -> bool:
        """Tell whether the run has to wait; ``more`` chunks were not handed on yet."""

    @abstractmethod
    def _hand_on(self) -> None:
        """Hand on what is gathered."""

    @abstractmethod
    def _send_end(self, tail: bytes) -> Sent:
        """End the response well."""

    def _has_readers(self) -> bool:
        """Return whether a client is connected to take what is gathered."""
        return True

    def _number(self) -> int:
        """Return the index of an event of the stream itself."""
        return self.count

    # ------------------------------------------------------------- the way of a chunk

    @property
    def encoder(self) -> Encoder:
        """What encodes the response; made once the inputs of the run have been read."""
        encoder = self._encoder
        if encoder is None:
            wire = self.wire
            spec, run = wire.spec, self.run
            body = self.request.body_bytes if spec.dialect else b""
            response = ResponseContext(run.id, run.started, self._stream_id(), body)
            encoder = self._encoder = spec.encoder(wire, response)
            self._opening = encoder.opening()
            if spec.id_header:
                self.cors += b"%b: %b\r\n" % (spec.id_header, run.id.encode())
        return encoder

    def _stream_id(self) -> str:
        return ""

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        if self.ended or type(content) not in _PLAIN:
            check_content(self, content)
        data = (self._encoder or self.encoder).chunk(content, event, id, metadata, self.count)
        self._parts.append(data)
        self.count += 1
        self.bytes = total = self.bytes + len(data)
        if total >= self._limit:
            return self._settle()
        return False

    def _settle(self) -> bool:
        """Commit, schedule a flush, or ask for a `drain`, after a chunk was appended."""
        if self.encoder.whole:
            return self._keep()
        if not self._parts[-1] and self.wire.spec.dialect:
            self._parts.pop()  # an item of which the end tells
            return False
        maximum = self.wire.max_bytes
        if maximum and self.bytes > maximum:
            raise self._withdraw(RunError("limit-reached", f"the stream has more bytes than maxBytes ({maximum})"))
        if not self.first_at:
            self.first_at = clock.monotonic()
        if not self.committed:
            try:
                self._commit()
            except RunError as error:
                raise self._withdraw(error) from error.__cause__
            self._open()
            self.flush()
            return self._blocks()
        self._open()
        if self.bytes - self._flushed >= self._gathered or self._blocks(len(self._parts)):
            return True
        self._schedule()
        if self._has_readers():
            limit = self._flushed + self._gathered
            self._limit = min(limit, maximum + 1) if maximum else limit
        return False

    def _withdraw(self, error: RunError) -> RunError:
        """Take back the chunk that was appended last; it is not sent."""
        self.bytes -= len(self._parts.pop())
        self.count -= 1
        self.encoder.undo()
        return error

    def _keep(self) -> bool:
        """Leave a chunk to the encoder, which returns all of them at the end."""
        self._parts.clear()
        encoder = self.encoder
        largest = self.wire.max_bytes or LARGEST_DOCUMENT
        if encoder.held > largest:
            encoder.undo()
            self.count -= 1
            other = (
                "ask with `stream: true`"
                if self.wire.spec.dialect
                else "ask for text/event-stream or application/x-ndjson"
            )
            raise RunError("limit-reached", f"a buffered response may have {largest} bytes (maxBytes): {other}")
        self.bytes = encoder.held
        self.emitted_at = self._loop.time()
        return False

    def _open(self) -> None:
        """Put what stands inside the first event before the first part."""
        if self._opening and self._parts:
            self._parts[0] = self._opening + self._parts[0]
            self._opening = b""

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._flush_queue.flush(self)

    def flush(self) -> None:
        """Hand on what is gathered, in one piece."""
        self._scheduled = False
        self._limit = 0
        if self._parts:
            self._hand_on()
        if self._flushed != self.bytes:
            self._flushed = self.bytes
            self.emitted_at = self.sent_at

    def _check_status(self) -> None:
        """Refuse to begin a stream whose status has no body, or is none of a WebSocket."""
        if self.wire.spec.upgrade:
            if self.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise RunError("template", f"a WebSocket can't have the status {self.status}: use `throw`")
            self.status = HTTPStatus.SWITCHING_PROTOCOLS
        elif self.status in BODILESS:
            raise RunError("template", f"an answer with status {self.status} has no chunks")

    # ------------------------------------------------------------- silences and ends

    def _commit_quietly(self) -> bool:
        """Begin the response for a heartbeat, where it can be; the first chunk reports what is wrong."""
        if not self.committed:
            try:
                self._commit()
            except RunError:
                return False
        return True

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        check_open(self)
        data = self.encoder.done(content, metadata, self.summary(), self._number())
        if data:
            if not self.committed:
                self._commit()
            self._append(data)
            self._schedule()
        self.ended = True

    def finish(self, value: Any) -> Sent:
        encoder = self.encoder
        if not self.committed:
            if self.status in BODILESS or encoder.whole:
                return self._send_whole(encoder)
            self._commit()
        return self._send_end(encoder.end(self.summary(), self._number(), marked=self.ended))

    @abstractmethod
    def _send_whole(self, encoder: Encoder) -> Sent:
        """Send a response that has no chunks: with no body, or with all of it in one piece."""

    def _append(self, data: bytes | None) -> None:
        if data:
            self._parts.append(data)
            self._open()


class LiveSink(StreamSink):
    """Writes to the connection of the request. Its client can't resume it."""

    __slots__ = ("_backlog", "_resuming", "_writer")

    def __init__(self, wire: ResponseOptions, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self._writer = make_writer(request)
        self._backlog: Backlog | None = None
        if wire.slow == "dropOldest" and wire.spec.gaps:
            # The run does not wait. What the transport has can't be dropped any more, so it gets little: twice what is
            # gathered. That, what is being gathered and what is held for later are the buffer.
            self._gathered = min(GATHERED, wire.buffer // 8) or 1
            self._backlog = Backlog(wire.buffer - 3 * self._gathered)

    # ------------------------------------------------------------- the way of a chunk

    def _commit(self) -> None:
        wire = self.wire
        self._check_status()
        if self.headers or self.cookies or self.status not in (200, 101):
            start = status_line(self.status) + self.lines()
        else:
            start = b"%bX-Run-Id: %b\r\n%b" % (wire.head, self.run.id.encode(), self.cors)
        self._writer.begin(
            start,
            keep=True,
            compress=wire.compress,
            buffer=wire.buffer,
            unsent=self._gathered if self._backlog is not None else wire.buffer - self._gathered,
            patience=wire.patience,
        )
        self.committed = True

    def emit_shared(self, chunk: SharedChunk) -> bool:
        """Take a chunk that other sinks take, too: its bytes are encoded and framed once for all of them."""
        if not self.first_at or self._parts or self.ended or self.request.writing_paused:
            return False
        made = chunk.encoded.get(id(self.wire))
        if made is None:
            shared = self.encoder.shared_chunk(chunk.content, chunk.event, chunk.id)
            if shared is None:
                return False
            data, lacks_number = shared
            made = chunk.encoded[id(self.wire)] = (
                self.wire,
                len(data),
                data if lacks_number else chunk_of(data),
                lacks_number,
            )
        _, size, frame, lacks_number = made
        if lacks_number:
            data = self.encoder.numbered(frame, self.count)
            size, frame = len(data), chunk_of(data)
        maximum = self.wire.max_bytes
        if (maximum and self.bytes + size > maximum) or not self._writer.write_frame(frame):
            return False
        self.count += 1
        self.bytes += size
        self._flushed = self.bytes
        self._limit = 0
        self.emitted_at = self.sent_at = self._loop.time()
        return True

    def _blocks(self, more: int = 0) -> bool:
        return self.request.writing_paused and self._backlog is None

    def _hand_on(self) -> None:
        if self._backlog is not None and self.request.writing_paused and not self._writer.pending:
            self.dropped += self._backlog.hold(self._parts)
            self._parts.clear()
            self._flushed = self.bytes
            if not self.blocked:
                self.blocked = True
                self._resuming = self.request.when_writable(self.resumed)
        else:
            self._write(self._take())

    def _write(self, data: bytes) -> None:
        self.sent_at = self._loop.time()
        self._writer.write(data)

    def _take(self) -> bytes:
        """Return all that was not handed to the transport, after word of what is missing."""
        data = b"".join(self._parts)
        self._parts.clear()
        backlog = self._backlog
        if backlog is not None and self.blocked:
            self.blocked = False
            gap = b""
            if backlog.lately:
                gap = self.encoder.gap({"dropped": backlog.lately}, self._number())
            data = gap + backlog.take() + data
        return data

    def resumed(self) -> None:
        """Send what was held back, once the transport takes more."""
        if self._backlog is not None and self.blocked:
            self._write(self._take())
            self.emitted_at = self.sent_at

    async def drain(self) -> None:
        self.flush()
        if not self.request.writing_paused:
            return
        if self._backlog is not None:
            # The reader may be as fast as it likes: only the loop's next turn hands the bytes to the system.
            await asyncio.sleep(0)
            return
        self.blocked = True
        cut = None
        if self.wire.slow == "disconnect":
            cut = self._loop.call_later(self.wire.grace, self.drop_reader)
        try:
            await self.request.room()
        finally:
            self.blocked = False
            if cut is not None:
                cut.cancel()

    # ------------------------------------------------------------- silences and ends

    def heartbeat(self) -> None:
        if self.ended or self._parts or self.request.writing_paused:
            return
        beat = self.encoder.heartbeat()
        if beat and self._commit_quietly():
            self._write(beat)

    def accept(self) -> None:
        if not self.ended and not self.committed and self._commit_quietly():
            self._write(b"")

    def _send_whole(self, encoder: Encoder) -> Sent:
        if self.status in BODILESS:
            lines, body = self.lines(), b""
        else:
            if not self.wire.spec.whole:  # a dialect, whose body asked for one object
                self.wire = self.wire.whole
                self.headers = [each for each in self.headers if each[0].lower() != "content-type"]
            lines = self.lines()
            body = encoder.end(self.summary(), self._number(), marked=self.ended)
            self.committed = True
        return send(self.request, self.status, lines, body)

    def _send_end(self, tail: bytes) -> Sent:
        self._append(tail)
        self._flushed = self.bytes
        data = self._take()
        self.sent_at = self._loop.time()
        self.ended = True
        return self._writer.finish(data)

    def fail(self, error: RunError) -> Sent:
        encoder = self.encoder
        fields = self.error_fields(error)
        if not self.committed:
            body = encoder.problem(error, fields)
            if body is None:
                return super().fail(error)
            lines = b"%bX-Run-Id: %b\r\n%b" % (JSON, self.run.id.encode(), self.cors)
            return send(self.request, error.status, lines, body)
        tail = encoder.error_end(error, fields, self._number())
        if tail is not None and not encoder.ends_alike:
            return self._send_end(tail)
        self._append(tail)
        return self._writer.cut(self._take())


#: Bytes that a chunk in a backlog takes beside its own.
_EACH: Final = 48


class Backlog:
    """What waits for a reader whose run does not: the newest chunks, and how many older ones were dropped.

    ``size`` bounds them, in bytes; the newest stays however large it is.
    """

    __slots__ = ("_chunks", "_held", "_size", "lately")

    def __init__(self, size: int) -> None:
        self._size = size
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self.lately = 0  # since the reader was last told

    def hold(self, chunks: Iterable[bytes]) -> int:
        """Add chunks; drop the oldest where they are too many, and return how many those were."""
        held = self._chunks
        before = self.lately
        for chunk in chunks:
            held.append(chunk)
            self._held += len(chunk) + _EACH
        while self._held > self._size and len(held) > 1:
            self._held -= len(held.popleft()) + _EACH
            self.lately += 1
        return self.lately - before

    def take(self) -> bytes:
        """Return all that is held, and forget it."""
        data = b"".join(self._chunks)
        self.clear()
        return data

    def clear(self) -> None:
        """Forget what is held."""
        self._chunks.clear()
        self._held = 0
        self.lately = 0


class Gathering(Protocol):
    """What has gathered bytes for its reader."""

    def flush(self) -> None:
        """Hand them to the transport."""


class FlushQueue:
    """What leaves when the event loop next turns, for all connections together.

    Where many streams wake at one moment, their writes follow one another closely: to write between the work of two
    runs wakes the readers' side again and again, which costs more than the write.
    """

    __slots__ = ("_gathered",)

    def __init__(self) -> None:
        self._gathered: list[Gathering] = []

    def flush(self, gathering: Gathering) -> None:
        """Flush it at the next turn of the loop."""
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._flush)
        self._gathered.append(gathering)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        for each in gathered:
            try:
                each.flush()
            except Exception as error:  # noqa: BLE001  (one must not keep the others from their readers)
                log.exception("flush-failed", reason=str(error))
