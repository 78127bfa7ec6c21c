"""The sink of a stream: gathers encoded chunks and hands them to the transport."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from time import perf_counter
from typing import Any, ClassVar

from streamstack.errors import RunError
from streamstack.language.values import MISSING
from streamstack.runtime.chunk import check_open
from streamstack.server.heads import BODILESS, date_line, status_line
from streamstack.server.replies import CLOSE, KEEP, Sent, connection_line, reset, send
from streamstack.server.request import Request
from streamstack.server.wire import GATHERED, Wire
from streamstack.server.writers.answer import Answer
from streamstack.server.writers.backlog import Backlog
from streamstack.server.writers.compression import Compression, compresses


class StreamSink(Answer):
    """Sends chunks as they come: one write a turn of the event loop, or a full gathering.

    The first chunk leaves at once, with the status line, in one piece. A subclass encodes: its
    `emit` appends to `_parts`, counts, adds to `bytes`, and calls `_settle` from `_limit` bytes on.
    """

    #: Whether a reader can be told that chunks were dropped.
    tells_gaps: ClassVar[bool] = False

    __slots__ = (
        "_backlog",
        "_bare",
        "_chunked",
        "_compress",
        "_flushed",
        "_gathered",
        "_head",
        "_limit",
        "_loop",
        "_opening",
        "_parts",
        "_resuming",
        "_scheduled",
        "_transport",
    )

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self._loop = asyncio.get_running_loop()
        self._transport = request.transport
        self._parts: list[bytes] = []
        self._head = b""  # made, and not sent yet
        self._opening = b""  # what stands inside the first event
        self._chunked = request.version >= (1, 1)
        self._bare = request.method == "HEAD"  # no body, whatever is emitted
        self._scheduled = False
        self._flushed = 0  # of `bytes`, those that were handed to the transport
        # The chunk that brings `bytes` here goes through `_settle`: 0 when no flush is
        # scheduled, so that the way through `emit` needs one comparison only.
        self._limit = 0
        self._gathered = min(GATHERED, wire.buffer // 2) or 1
        self._backlog: Backlog | None = None
        if wire.slow == "dropOldest" and self.tells_gaps:
            # The run does not wait. What the transport has can't be dropped any more, so it gets little: twice what is
            # gathered. That, what is being gathered and what is held for later are the buffer.
            self._gathered = min(GATHERED, wire.buffer // 8) or 1
            self._backlog = Backlog(wire.buffer - 3 * self._gathered)
        self._compress: Compression | None = None

    # ------------------------------------------------------------- what a format fills in

    def end_marker(self, content: Any, metadata: Any) -> bytes:
        """Return the author's `done` as the format writes it."""
        return b""

    def clean_end(self) -> bytes:
        """Return the last bytes of a stream that ended well without `done`."""
        return b""

    def closing(self) -> bytes:
        """Return the last bytes of a stream that ended well."""
        return self.clean_end() if not self.ended and self.wire.done else b""

    @abstractmethod
    def error_end(self, error: RunError) -> bytes | None:
        """Return the last bytes of a failed stream; None where the format can't tell of it."""

    def gap(self, dropped: int) -> bytes:
        """Return what tells that chunks were dropped, where the format can."""
        return b""

    def beat(self) -> bytes:
        """Return the bytes of a heartbeat; none where the format has no room for one."""
        return b""

    # ------------------------------------------------------------- the way of a chunk

    def _settle(self) -> bool:
        """Commit, schedule a flush, or ask for a `drain`, after a chunk was appended."""
        maximum = self.wire.max_bytes
        if maximum and self.bytes > maximum:
            raise self._withdraw(
                RunError("limit-reached", f"the stream has more bytes than maxBytes ({maximum})")
            )
        if not self.first_at:
            self.first_at = perf_counter()
        first = not self.committed
        if first:
            try:
                self._commit()
            except RunError as error:
                raise self._withdraw(error) from error.__cause__
        if self._opening:
            self._open()
        if first:
            self.flush()
            return self.request.writing_paused
        if self.bytes - self._flushed >= self._gathered or (
            self.request.writing_paused and self._backlog is None
        ):
            return True
        self._schedule()
        limit = self._flushed + self._gathered
        self._limit = min(limit, maximum + 1) if maximum else limit
        return False

    def _withdraw(self, error: RunError) -> RunError:
        """Take back the chunk that was appended last; it is not sent."""
        self.bytes -= len(self._parts.pop())
        self.count -= 1
        return error

    def _open(self) -> None:
        self._parts.insert(0, self._opening)
        self._opening = b""

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.request.turn.flush(self)

    def _commit(self) -> None:
        """Make the head: from here on the status stands."""
        wire, request = self.wire, self.request
        if self.status in BODILESS:
            raise RunError("template", f"an answer with status {self.status} has no chunks")
        if self.headers or self.cookies or self.status != 200:
            start = status_line(self.status) + self.lines()
        else:
            start = b"%bX-Run-Id: %b\r\n%b" % (wire.head, self.run.id.encode(), self.cors)
        keep = request.keep_alive and self._chunked
        framed = self._chunked and not self._bare
        framing = b"Transfer-Encoding: chunked\r\n" if framed else b""
        if wire.compress and framed:
            accepted = request.headers.get("Accept-Encoding")
            if compresses(accepted, (*wire.headers, *self.headers)):
                self._compress = Compression()
                framing = b"Content-Encoding: gzip\r\n" + framing
        self._head = b"".join(
            (
                start,
                framing,
                date_line(),
                connection_line(request, keep=keep),
                request.extra,
                b"\r\n",
            )
        )
        self.committed = True
        transport = self._transport
        if transport is not None and not transport.is_closing():
            held = wire.buffer - self._gathered if self._backlog is None else self._gathered
            transport.set_write_buffer_limits(high=max(held, 1))
            self.request.bound_unsent(wire.buffer, wire.patience)

    def flush(self) -> None:
        """Hand what is gathered to the transport, in one write."""
        self._scheduled = False
        self._limit = 0
        if self._parts:
            if self._backlog is not None and self.request.writing_paused and not self._head:
                self.dropped += self._backlog.hold(self._parts)
                self._parts.clear()
                self._flushed = self.bytes
                if not self.blocked:
                    self.blocked = True
                    self._resuming = self.request.when_writable(self.resumed)
                return
            self._write(self._take())
        if self._flushed != self.bytes:
            self._flushed = self.bytes
            self.emitted_at = self.sent_at

    def _take(self) -> bytes:
        """Return all that was not handed to the transport, after word of what is missing."""
        data = b"".join(self._parts)
        self._parts.clear()
        backlog = self._backlog
        if backlog is not None and self.blocked:
            self.blocked = False
            gap = self.gap(backlog.lately) if backlog.lately else b""
            data = gap + backlog.take() + data
        return data

    def resumed(self) -> None:
        """Send what was held back, once the transport takes more."""
        if self._backlog is not None and self.blocked:
            self._write(self._take())
            self.emitted_at = self.sent_at

    def _write(self, data: bytes, end: bytes = b"") -> None:
        """Write data as one chunk of HTTP (RFC 9112, section 7.1); ``end`` is the last chunk."""
        self.sent_at = self._loop.time()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        head, self._head = self._head, b""
        if self._compress is not None and (data or end):
            data = self._compress(data, last=bool(end))
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
        beat = self.beat()
        if not beat or self.ended or self._parts or self.request.writing_paused:
            return
        if not self.committed:
            try:
                self._commit()
            except RunError:
                return  # the first chunk will raise it again, where it can be answered
        self._write(beat)

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        check_open(self)
        data = self.end_marker(content, metadata)
        if data:
            if not self.committed:
                self._commit()
            self._parts.append(data)
            if self._opening:
                self._open()
            self._schedule()
        self.ended = True

    def finish(self, value: Any) -> Sent:
        if not self.committed:
            if self.status in BODILESS:
                return send(self.request, self.status, self.lines(), b"")
            self._commit()
        self._end_with(self.closing())
        return self._end()

    def fail(self, error: RunError) -> Sent:
        if not self.committed:
            return super().fail(error)
        tail = self.error_end(error)
        if tail is None:
            return self.cut()
        self._end_with(tail)
        return self.cut() if self.unmarked() else self._end()

    def unmarked(self) -> bool:
        """Whether a good end has no mark of its own, so that a failed stream must not end like one."""
        return False

    def _end_with(self, tail: bytes) -> None:
        if tail:
            self._parts.append(tail)
            if self._opening:
                self._open()

    def _end(self) -> Sent:
        self._flushed = self.bytes
        self._write(self._take(), b"0\r\n\r\n")
        self.ended = True
        return KEEP if self._chunked and self.request.keep_alive else CLOSE

    def cut(self) -> Sent:
        """End without the final chunk, so that every client sees an answer cut short."""
        if data := self._take():
            self._write(data)
        transport = self._transport
        if not self._chunked and transport is not None and not transport.is_closing():
            # Such an answer ends with its connection: only a reset tells that it failed.
            reset(transport)
        return CLOSE
