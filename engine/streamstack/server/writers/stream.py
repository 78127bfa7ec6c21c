"""The sinks of streams: what encodes chunks, gathers their bytes, and hands them on."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable
from time import perf_counter
from typing import Any, Final

import orjson

from streamstack.errors import RunError
from streamstack.formats.spec import Encoder, ResponseContext
from streamstack.language.values import MISSING
from streamstack.runtime.chunk import check_content, check_open
from streamstack.server.heads import BODILESS, status_line
from streamstack.server.replies import JSON, Sent, send
from streamstack.server.request import Request
from streamstack.server.wire import GATHERED, LARGEST_DOCUMENT, Wire
from streamstack.server.writers.answer import Answer
from streamstack.server.writers.response import ChunkedResponseWriter

#: Types of content that every format carries, told without a look at their ancestors.
_PLAIN: Final = frozenset({str, dict, list, int, float, bool, bytes, orjson.Fragment})


class StreamSink(Answer):
    """Encodes chunks and gathers their bytes: they are handed on once a turn of the event loop, or when they are many.

    The first chunk is handed on at once, with the status line, in one piece. A response that is sent whole is kept by
    its encoder until the end.
    """

    __slots__ = (
        "_encoder",
        "_flushed",
        "_gathered",
        "_limit",
        "_loop",
        "_opening",
        "_parts",
        "_scheduled",
        "_turn",
        "takes_json",
    )

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self.takes_json = wire.spec.raw_json
        self._loop = asyncio.get_running_loop()
        self._turn = request.turn
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
        """Tell whether somebody is there to take what is gathered."""
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
            body = self.request.kept_body if spec.dialect else b""
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
            raise self._withdraw(
                RunError("limit-reached", f"the stream has more bytes than maxBytes ({maximum})")
            )
        if not self.first_at:
            self.first_at = perf_counter()
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
            raise RunError(
                "limit-reached",
                f"an answer kept whole may have {largest} bytes (maxBytes): {other}",
            )
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
            self._turn.flush(self)

    def flush(self) -> None:
        """Hand on what is gathered, in one piece."""
        self._scheduled = False
        self._limit = 0
        if self._parts:
            self._hand_on()
        if self._flushed != self.bytes:
            self._flushed = self.bytes
            self.emitted_at = self.sent_at

    # ------------------------------------------------------------- silences and ends

    def _commit_quietly(self) -> bool:
        """Begin the response for a heartbeat, where it can be; the first chunk tells of what is wrong."""
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

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self._writer = ChunkedResponseWriter(request)
        self._backlog: Backlog | None = None
        if wire.slow == "dropOldest" and wire.spec.gaps:
            # The run does not wait. What the transport has can't be dropped any more, so it gets little: twice what is
            # gathered. That, what is being gathered and what is held for later are the buffer.
            self._gathered = min(GATHERED, wire.buffer // 8) or 1
            self._backlog = Backlog(wire.buffer - 3 * self._gathered)

    # ------------------------------------------------------------- the way of a chunk

    def _commit(self) -> None:
        wire = self.wire
        if self.status in BODILESS:
            raise RunError("template", f"an answer with status {self.status} has no chunks")
        if self.headers or self.cookies or self.status != 200:
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
        told = self.told(error)
        if not self.committed:
            body = encoder.problem(error, told)
            if body is None:
                return super().fail(error)
            lines = b"%bX-Run-Id: %b\r\n%b" % (JSON, self.run.id.encode(), self.cors)
            return send(self.request, error.status, lines, body)
        tail = encoder.error_end(error, told, self._number())
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
