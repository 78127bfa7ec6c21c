"""Readers of resumable streams: what copies from a journal, or from the store, to one connection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from streamstack.server.heads import date_line, status_line
from streamstack.server.replies import CLOSE, KEEP, Sent, connection_line, reset, send
from streamstack.server.request import Request
from streamstack.server.resuming.frames import gap, pulse
from streamstack.server.resuming.journal import End, Head, Journal, Origin
from streamstack.server.wire import GATHERED, PATIENCE
from streamstack.server.writers.compression import Compression, compresses


@dataclass(frozen=True, slots=True)
class Manner:
    """How a stream is sent to its readers: its format, bytes a reader may be behind, seconds it may take nothing.

    ``compress``: in gzip, for readers who take that.
    """

    format: str
    stream: str
    buffer: int
    idle: float = PATIENCE
    compress: bool = False

    @classmethod
    def of(cls, origin: Origin) -> Manner:
        """Return how a stream is sent."""
        terms = origin.terms
        return cls(origin.format, origin.id, origin.buffer, terms.idle, terms.compress)

    @property
    def batch(self) -> int:
        """The bytes that are copied at once."""
        return min(GATHERED, self.buffer // 2) or 1


class Spout:
    """Writes a stream to one connection, as one answer of HTTP."""

    __slots__ = (
        "_bare",
        "_begun",
        "_chunked",
        "_compress",
        "_cors",
        "_manner",
        "_request",
        "_transport",
        "_whole",
    )

    def __init__(self, request: Request, cors: bytes, manner: Manner) -> None:
        self._request = request
        self._transport = request.transport
        self._cors = cors
        self._manner = manner
        self._begun = False
        self._whole = False  # all of it was written
        self._chunked = request.version >= (1, 1)
        self._bare = request.method == "HEAD"
        self._compress: Compression | None = None

    @property
    def full(self) -> bool:
        """Whether the connection takes no more for now."""
        return self._request.writing_paused

    def write(self, head: Head, data: bytes, end: bytes = b"") -> None:
        """Write data as one chunk of HTTP, after the head where it was not sent yet. ``end`` is the last chunk."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        start = b"" if self._begun else self._head(head)
        if not self._begun:
            self._begun = True
            manner = self._manner
            transport.set_write_buffer_limits(high=max(manner.buffer - manner.batch, 1))
            self._request.bound_unsent(manner.buffer, manner.idle)
        if self._compress is not None and (data or end):
            data = self._compress(data, last=bool(end))
        if self._bare:
            data = start
        elif not self._chunked:
            data = start + data
        elif data:
            data = b"%b%x\r\n%b\r\n%b" % (start, len(data), data, end)
        else:
            data = start + end
        if data:
            transport.write(data)

    def begin(self, head: Head) -> None:
        """Send the head, where nothing was sent yet: who comes back need not wait for a chunk to know that he may."""
        if not self._begun:
            self.write(head, b"")

    def _head(self, head: Head) -> bytes:
        request = self._request
        framed = self._chunked and not self._bare
        framing = b"Transfer-Encoding: chunked\r\n" if framed else b""
        coded = b"content-encoding:" in head.lines.lower()  # by the author
        accepted = request.headers.get("Accept-Encoding") if self._manner.compress else None
        if framed and not coded and compresses(accepted, ()):
            self._compress = Compression()
            framing = b"Content-Encoding: gzip\r\n" + framing
        keep = self._chunked and request.reusable
        return b"".join(
            (
                status_line(head.status),
                head.lines,
                self._cors,
                framing,
                date_line(),
                connection_line(request, keep=keep),
                request.extra,
                b"\r\n",
            )
        )

    async def room(self) -> bool:
        """Wait until the connection takes more; False where it took nothing for too long, and was given up."""
        if not self.full:
            return True
        try:
            async with asyncio.timeout(self._manner.idle):
                await self._request.room()
        except TimeoutError:
            self.abort()
            return False
        return True

    def finish(self, head: Head, end: End, data: bytes = b"") -> Sent:
        """Write the last data, and end the answer as the stream ended."""
        request = self._request
        self._whole = not end.cut
        if end.whole is not None and not self._begun:
            return send(request, head.status, head.lines + self._cors, end.whole)
        if end.cut:
            self.write(head, data)
            return self.cut()
        self.write(head, data, b"0\r\n\r\n")
        keep = self._chunked and request.reusable
        return KEEP if keep else CLOSE

    def cut(self, head: Head | None = None) -> Sent:
        """End the answer without its last chunk, so that every client sees it cut short."""
        if head is not None:
            self.write(head, b"")
        transport = self._transport
        if not self._chunked and transport is not None and not transport.is_closing():
            reset(transport)
        return CLOSE

    def stop(self) -> None:
        """Let an answer that the server takes no further look cut short, though its connection is being closed."""
        if not self._chunked and not self._whole and self._transport is not None:
            reset(self._transport)

    def abort(self) -> None:
        """Give the connection up, so that its reader sees a failure, in HTTP/1.0 too."""
        if self._transport is not None:
            reset(self._transport)


class Reader:
    """A reader of a journal in this process.

    While it has had everything (it is *live*), what the run writes goes to its connection at once, without a turn of
    this reader's task; else the task copies what is missing, as fast as the connection takes it.
    """

    __slots__ = (
        "_journal",
        "_sent",
        "_spout",
        "_stopped",
        "_told",
        "_waiter",
        "allowance",
        "offset",
        "position",
    )

    def __init__(
        self, journal: Journal, request: Request, cors: bytes, manner: Manner, position: int
    ) -> None:
        self._journal = journal
        self._spout = Spout(request, cors, manner)
        self._waiter: asyncio.Future[None] | None = None
        self._stopped = False
        self._sent: Sent | None = None  # how the answer ended
        self._told = manner
        self.position = position
        self.offset = 0
        self.allowance = 0

    # ------------------------------------------------------------- what the journal calls

    def push(self, data: bytes, count: int) -> None:
        """Take what was written just now."""
        journal = self._journal
        assert journal.head is not None
        self._write(journal.head, data, last=journal.end is not None)
        self.position += count
        self.offset += len(data)
        if self._spout.full:
            journal.fall_behind(self)
            self.wake()

    def _write(self, head: Head, data: bytes, *, last: bool) -> None:
        """Write data; with the last of it the end, which then needs no write of its own."""
        if last:
            assert self._journal.end is not None
            self._sent = self._spout.finish(head, self._journal.end, data)
        else:
            self._spout.write(head, data)

    def wake(self) -> None:
        """Let the task look at the journal."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def beat(self) -> None:
        """Send a heartbeat."""
        head = self._journal.head
        if head is not None and not self._spout.full:
            self._spout.write(head, pulse(self._told.format))

    def drop(self) -> None:
        """End the answer without a good end: its client may come back."""
        self._stopped = True
        self.wake()

    # ------------------------------------------------------------- the task

    async def copy(self) -> Sent:
        """Copy the stream to the connection until it has ended. Cancelled when the reader leaves."""
        journal, spout = self._journal, self._spout
        journal.attach(self)
        try:
            while not self._stopped:
                if not await spout.room():
                    return CLOSE
                if self._sent is not None:
                    return self._sent
                if journal.shut:
                    await self._wait()
                    continue
                if self.position < journal.next:
                    self._copy_some()
                    continue
                if journal.end is not None:
                    assert journal.head is not None
                    self._sent = spout.finish(journal.head, journal.end)
                    continue
                if journal.head is not None:
                    spout.begin(journal.head)
                if not spout.full:
                    await self._wait()
            return spout.cut()
        except asyncio.CancelledError:
            spout.stop()
            raise
        finally:
            journal.detach(self)

    async def _wait(self) -> None:
        """Wait for what the task has to see to: its connection is full, the stream has ended."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._journal.catch_up(self)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._journal.fall_behind(self)

    def _copy_some(self) -> None:
        """Copy what is kept from where the reader is; tell it where something is kept no more."""
        journal = self._journal
        head = journal.head
        assert head is not None
        before = b""
        if self.position < journal.first:
            before = gap(self._told.format, self._told.stream, self.position, journal.first - 1)
            self.position = journal.first
        frames = journal.take(self.position, self._told.batch)
        data = b"".join(frames)
        self.position += len(frames)
        last = journal.end is not None and self.position >= journal.next
        self._write(head, before + data, last=last)
        self.offset = journal.offset_of(self.position) if before else self.offset + len(data)
        journal.let_go()
