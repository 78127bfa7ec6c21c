"""Readers of resumable streams: what copies from a log to one connection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from streamstack.formats import BY_NAME
from streamstack.formats.spec import Encoder, EncoderOptions, ResponseContext
from streamstack.server.headers import status_line
from streamstack.server.replies import CLOSE, Sent, send
from streamstack.server.request import Request
from streamstack.server.response import ChunkedResponseWriter
from streamstack.server.response_options import GATHERED, PATIENCE
from streamstack.server.resume.log import End, Head, Origin, StreamLog


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """How a stream is sent to its readers: its format, bytes a reader may be behind, seconds it may take nothing.

    ``compress``: gzip, for clients that accept it.
    """

    format: str
    stream: str
    buffer: int
    idle: float = PATIENCE
    compress: bool = False

    @classmethod
    def of(cls, origin: Origin) -> DeliveryOptions:
        """Return how a stream is sent."""
        policy = origin.policy
        return cls(origin.format, origin.id, origin.buffer, policy.idle, policy.compress)

    @property
    def encoder(self) -> Encoder:
        """What encodes the events that a reader alone needs: gaps, heartbeats, the loss of the stream."""
        return BY_NAME[self.format].encoder(EncoderOptions(), ResponseContext(stream=self.stream))

    @property
    def batch(self) -> int:
        """The bytes that are copied at once."""
        return min(GATHERED, self.buffer // 2) or 1


class Delivery:
    """One response that copies a stream: the head it began with, chunks, what is missing, its end."""

    __slots__ = ("_cors", "_request", "options", "writer")

    def __init__(self, request: Request, cors: bytes, options: DeliveryOptions) -> None:
        self._request = request
        self._cors = cors
        self.options = options
        self.writer = ChunkedResponseWriter(request)

    @property
    def full(self) -> bool:
        """Whether the connection takes no more for now."""
        return self.writer.full

    async def room(self) -> bool:
        """Wait until the connection takes more; False where it took nothing for too long, and was given up."""
        return await self.writer.room(self.options.idle)

    def begin(self, head: Head) -> None:
        """Send the head, where nothing was sent yet, so that a client that resumes does not wait for a chunk."""
        if not self.writer.begun:
            self.write(head, b"")

    def write(self, head: Head, data: bytes) -> None:
        """Write data, after the head where it was not sent yet."""
        self._open(head)
        self.writer.write(data)

    def _open(self, head: Head) -> None:
        if self.writer.begun:
            return
        options = self.options
        self.writer.begin(
            status_line(head.status) + head.lines + self._cors,
            keep=self._request.reusable,
            compress=options.compress,
            buffer=options.buffer,
            unsent=options.buffer - options.batch,
            patience=options.idle,
        )

    def finish(self, head: Head, end: End, data: bytes = b"") -> Sent:
        """Write the last data, and end the answer as the stream ended."""
        if end.whole is not None and not self.writer.begun:
            return send(self._request, head.status, head.lines + self._cors, end.whole)
        self._open(head)
        return self.writer.cut(data) if end.cut else self.writer.finish(data)

    def cut(self, head: Head | None = None) -> Sent:
        """End the answer without its last chunk, so that every client sees it cut short."""
        if head is not None:
            self._open(head)
        return self.writer.cut()


class LogReader:
    """A reader of a log in this process.

    While it has had everything (it is *live*), what the run writes goes to its connection at once, without a turn of
    this reader's task; else the task copies what is missing, as fast as the connection takes it.
    """

    __slots__ = ("_batch", "_delivery", "_encoder", "_log", "_sent", "_waiter", "allowance", "offset", "position")

    def __init__(
        self, stream_log: StreamLog, request: Request, cors: bytes, options: DeliveryOptions, position: int
    ) -> None:
        self._log = stream_log
        self._delivery = Delivery(request, cors, options)
        self._waiter: asyncio.Future[None] | None = None
        self._sent: Sent | None = None  # how the answer ended
        self._batch = options.batch
        self._encoder = options.encoder
        self.position = position
        self.offset = 0
        self.allowance = 0

    # ------------------------------------------------------------- what the log calls

    def push(self, data: bytes, count: int) -> None:
        """Write chunks that were just appended."""
        stream_log = self._log
        assert stream_log.head is not None
        self._write(stream_log.head, data, last=stream_log.end is not None)
        self.position += count
        self.offset += len(data)
        if self._delivery.full:
            stream_log.mark_slow(self)
            self.wake()

    def _write(self, head: Head, data: bytes, *, last: bool) -> None:
        """Write data; with the last of it the end, which then needs no write of its own."""
        if last:
            assert self._log.end is not None
            self._sent = self._delivery.finish(head, self._log.end, data)
        else:
            self._delivery.write(head, data)

    def wake(self) -> None:
        """Wake the task."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def heartbeat(self) -> None:
        """Send a heartbeat."""
        head = self._log.head
        if head is not None and not self._delivery.full:
            self._delivery.write(head, self._encoder.heartbeat())

    # ------------------------------------------------------------- the task

    async def copy(self) -> Sent:
        """Copy the stream to the connection until it has ended. Cancelled when the reader leaves."""
        stream_log, delivery = self._log, self._delivery
        stream_log.attach(self)
        try:
            while True:
                if not await delivery.room():
                    return CLOSE
                if self._sent is not None:
                    return self._sent
                if stream_log.withheld:
                    await self._wait()
                    continue
                if self.position < stream_log.next:
                    self._copy_some()
                    continue
                if stream_log.end is not None:
                    assert stream_log.head is not None
                    self._sent = delivery.finish(stream_log.head, stream_log.end)
                    continue
                if stream_log.head is not None:
                    delivery.begin(stream_log.head)
                if not delivery.full:
                    await self._wait()
        except asyncio.CancelledError:
            delivery.writer.stop()
            raise
        finally:
            stream_log.detach(self)

    async def _wait(self) -> None:
        """Wait for what the task has to see to: its connection is full, the stream has ended."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._log.mark_live(self)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._log.mark_slow(self)

    def _copy_some(self) -> None:
        """Copy what is kept from where the reader is; tell it where something is kept no more."""
        stream_log = self._log
        head = stream_log.head
        assert head is not None
        before = b""
        if self.position < stream_log.first:
            before = self._encoder.gap({"from": self.position, "to": stream_log.first - 1}, stream_log.first - 1)
            self.position = stream_log.first
        frames = stream_log.read(self.position, self._batch)
        data = b"".join(frames)
        self.position += len(frames)
        last = stream_log.end is not None and self.position >= stream_log.next
        self._write(head, before + data, last=last)
        self.offset = stream_log.offset_of(self.position) if before else self.offset + len(data)
        stream_log.wake_writer()
