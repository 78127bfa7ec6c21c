"""The resumable streams of a process, those that run and those that have ended, and their readers.

A reader copies one stream, of this process or of another, to one connection.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from streamstack import clock
from streamstack.connections.stream_store import Seen
from streamstack.errors import RunError
from streamstack.formats import BY_NAME
from streamstack.formats.spec import EncoderOptions, ResponseContext
from streamstack.language.values import to_json
from streamstack.server.headers import status_line
from streamstack.server.replies import CLOSE, Sent, in_band, send, send_problem
from streamstack.server.request import Request
from streamstack.server.response import make_writer
from streamstack.server.response_options import GATHERED
from streamstack.server.resume.log import LAST, LOST, End, Head, Origin, StreamLog, unknown_stream
from streamstack.server.resume.store import LeaseMonitor, RemoteStream, SharedStore, grace_of, read_end

if TYPE_CHECKING:
    from streamstack.server.deadlines import RunTimer
    from streamstack.server.service import Service


#: More chunks than any stream has.
_ANY: Final = 1 << 62


def stop_error(message: str) -> RunError:
    """Return the error that a run is stopped with."""
    return RunError("stopped", message)


@dataclass(eq=False, slots=True)
class ResumableStream:
    """One stream of this process: its log, and its run while there is one.

    ``key`` is what its run was begun by (`Idempotency-Key`), and ``fingerprint`` the request that did.
    """

    streams: StreamRegistry
    log: StreamLog
    key: bytes | None = None
    fingerprint: str = ""
    run_timer: RunTimer | None = None
    task: asyncio.Task[None] | None = None
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    _ended_at: float = field(default=0.0, init=False)

    @property
    def origin(self) -> Origin:
        """Where it comes from."""
        return self.log.origin

    def stop(self, reason: RunError) -> None:
        """End the run, if it has not ended."""
        if self.run_timer is not None:
            self.run_timer.stop(reason)

    async def stop_and_wait(self, reason: RunError, patience: float) -> bool:
        """Stop the run, and wait for its end, for ``patience`` seconds at most; return whether it has ended."""
        self.stop(reason)
        if self.task is not None and self.log.end is None:
            await asyncio.wait({self.task}, timeout=patience)
        return self.log.end is not None

    # ------------------------------------------------------------- what the log calls

    def reader_arrived(self) -> None:
        """Let the run go on, or keep the ended stream, as long as there is a reader."""
        self.streams.read.add(self)
        if self.log.end is None:
            self.set_timer(None)
        else:
            self._extend()

    def on_readers_gone(self) -> None:
        """Wait for a reader to come back; end the run where none can, or does."""
        self.streams.mark_unread(self)
        stream_log = self.log
        if stream_log.end is not None:
            self.set_timer(self.origin.resume.keep)
            if asyncio.get_running_loop().time() > self._ended_at + grace_of(self.origin.resume):
                self.streams.linger(self)
            return
        if not self.origin.cancels:
            return
        if stream_log.head is None and self.key is None:
            # No client knows the stream's id, so none can resume it.
            self.stop(stop_error("the reader left before the stream began"))
            return
        self.set_timer(self.origin.resume.keep)

    def ended(self) -> None:
        """Keep what was written for a while."""
        self._ended_at = asyncio.get_running_loop().time()
        # Where there are readers, it is kept from when the last of them leaves.
        keep = self.origin.resume.keep
        shared = self.streams.shared is not None
        self.set_timer(keep if not self.log.readers else keep / 2 if shared else None)
        self.streams.mark_ended(self)

    def grew(self, size: int) -> None:
        """Count what all streams keep."""
        self.streams.grow(size, self)

    def set_timer(self, seconds: float | None) -> None:
        """Look in some seconds whether there is a reader; None for never."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._over)

    def _over(self) -> None:
        self._timer = None
        if self.log.readers:
            if self.log.end is not None:
                self._extend()
            return
        if self.log.end is not None:
            self.streams.forget(self)
        else:
            self.streams.expire(self)

    def _extend(self) -> None:
        """Extend the stream in the store while it is read after its end: the client may resume at another server."""
        if self.streams.shared is not None:
            self.streams.linger(self)
            self.set_timer(self.origin.resume.keep / 2)


class StreamRegistry:
    """All streams of a process, by id, and those that a key began, by that.

    ``max_size`` bounds the bytes that they keep together: past it, what has ended longest goes first, then the oldest
    chunks of the stream that grows. ``read`` are those that have a reader in this process; ``unread`` is called where
    there is none any more.
    """

    def __init__(self, max_size: int, unread: Callable[[], object] = bool) -> None:
        self._max_size = max_size
        self._unread = unread
        self.read: set[ResumableStream] = set()
        self._all: dict[str, ResumableStream] = {}
        self._keys: dict[bytes, ResumableStream] = {}
        self._ended: OrderedDict[str, ResumableStream] = OrderedDict()
        self.size = 0
        self.followers: set[RemoteReader] = set()  # readers of what others write
        self.shared: SharedStore | None = None
        self._spawn: Callable[[Coroutine[Any, Any, None]], object] | None = None

    def share(
        self, shared: SharedStore, group: asyncio.TaskGroup, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        """Share all streams with other processes."""
        self.shared = shared
        self._spawn = spawn
        shared.start(group, self._on_message)

    def _on_message(self, message: dict[str, Any]) -> None:
        """Handle a message of another process."""
        if (stream := self._all.get(str(message.get("stop")))) is not None:
            stream.stop(stop_error("the stream was stopped by its reader"))
        if (stream := self._all.get(str(message.get("read")))) is not None:
            stream.log.note_remote_reader(int(message.get("at", 0)), float(message.get("for", 0.0)))

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[ResumableStream]:
        return iter(list(self._all.values()))

    def count_followers(self, name: str) -> int:
        """Return how many readers a stream of another process has here."""
        return sum(each.name == name for each in self.followers)

    def find(self, name: str) -> ResumableStream | None:
        """Return a stream by its id."""
        return self._all.get(name)

    def begun_by(self, key: bytes) -> ResumableStream | None:
        """Return the stream whose run this key began."""
        return self._keys.get(key)

    def add(self, stream: ResumableStream) -> None:
        """Take in a stream that begins."""
        self._all[stream.origin.id] = stream
        if stream.key is not None:
            self._keys[stream.key] = stream
        stream.log.observer = stream

    def mark_unread(self, stream: ResumableStream) -> None:
        """Record that a stream has no readers in this process."""
        self.read.discard(stream)
        if not self.read:
            self._unread()

    def mark_ended(self, stream: ResumableStream) -> None:
        """Record that a stream has ended."""
        if self._all.get(stream.origin.id) is stream:
            self._ended[stream.origin.id] = stream

    def forget(self, stream: ResumableStream) -> None:
        """Drop a stream. Connected readers still read it to its end."""
        stream.set_timer(None)
        if self._all.pop(stream.origin.id, None) is None:
            return
        self._ended.pop(stream.origin.id, None)
        if stream.key is not None and self._keys.get(stream.key) is stream:
            del self._keys[stream.key]
        self.size -= stream.log.size
        stream.log.observer = None
        self.mark_unread(stream)

    def expire(self, stream: ResumableStream) -> None:
        """End a run whose readers did not come back, to no process."""
        remaining = stream.log.remote_reader_until - clock.monotonic()
        if remaining > 0:
            stream.set_timer(remaining)
        else:
            stream.stop(stop_error("no reader came back in time"))

    def linger(self, stream: ResumableStream) -> None:
        """Keep a stream that has ended from now on for as long as it is kept: its last reader has just gone."""
        if self.shared is not None and self._spawn is not None:
            self._spawn(self.shared.linger(stream.origin))

    def grow(self, size: int, stream: ResumableStream) -> None:
        """Count what a stream keeps more, and make room."""
        self.size += size
        while self.size > self._max_size and self._ended:
            self.forget(next(iter(self._ended.values())))
        if self.size > self._max_size:
            before = stream.log.size
            stream.log.trim(_ANY, max(before - (self.size - self._max_size), 0))
            self.size -= before - stream.log.size

    def begin_shutdown(self) -> None:
        """Send readers of others' streams elsewhere, and end the runs that wait for a reader: none can come."""
        for follower in list(self.followers):
            follower.stop()
        for stream in self:
            stream_log = stream.log
            if self.shared is not None:
                continue  # a reader of another process may have it
            if stream_log.end is None and stream.origin.cancels and not stream_log.readers:
                stream.stop(stop_error("the server is shutting down"))

    async def close(self) -> None:
        """Write what is left to the store, and keep nothing more."""
        if self.shared is not None:
            await self.shared.close()
        for stream in self:
            self.forget(stream)


class Delivery:
    """One response that copies a stream: the head it began with, chunks, what is missing, its end."""

    __slots__ = ("_cors", "_origin", "_request", "batch", "encoder", "writer")

    def __init__(self, request: Request, cors: bytes, origin: Origin) -> None:
        self._request = request
        self._cors = cors
        self._origin = origin
        self.writer = make_writer(request)
        #: The bytes that are copied at once.
        self.batch = min(GATHERED, origin.buffer // 2) or 1
        #: Encodes the events that one reader alone needs: gaps, heartbeats, the loss of the stream.
        self.encoder = BY_NAME[origin.format].encoder(EncoderOptions(), ResponseContext(stream=origin.id))

    @property
    def full(self) -> bool:
        """Whether the connection takes no more for now."""
        return self.writer.full

    async def room(self) -> bool:
        """Wait until the connection takes more; False where it took nothing for too long, and was given up."""
        return await self.writer.room(self._origin.policy.idle)

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
        origin = self._origin
        self.writer.begin(
            status_line(head.status) + head.lines + self._cors,
            keep=self._request.reusable,
            compress=origin.policy.compress,
            buffer=origin.buffer,
            unsent=origin.buffer - self.batch,
            patience=origin.policy.idle,
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

    __slots__ = ("_delivery", "_log", "_sent", "_waiter", "allowance", "offset", "position")

    def __init__(self, stream_log: StreamLog, request: Request, cors: bytes, position: int) -> None:
        self._log = stream_log
        self._delivery = Delivery(request, cors, stream_log.origin)
        self._waiter: asyncio.Future[None] | None = None
        self._sent: Sent | None = None  # how the answer ended
        self.position = position  # the number of the chunk it needs next
        self.offset = 0  # the bytes it has had, as `StreamLog.written` counts them
        self.allowance = 0  # the bytes it may be behind before it holds the run back

    # ------------------------------------------------------------- what the log calls

    def push(self, data: bytes, count: int) -> None:
        """Write chunks that were just appended; called only while the reader is live."""
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
            self._delivery.write(head, self._delivery.encoder.heartbeat())

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
        if self.position < stream_log.first and stream_log.origin.restarts_at(stream_log.first):
            self.position = stream_log.first
        if self.position < stream_log.first:
            before = self._delivery.encoder.gap(
                {"from": self.position, "to": stream_log.first - 1}, stream_log.first - 1
            )
            self.position = stream_log.first
        frames = stream_log.read(self.position, self._delivery.batch)
        data = b"".join(frames)
        self.position += len(frames)
        last = stream_log.end is not None and self.position >= stream_log.next
        self._write(head, before + data, last=last)
        self.offset = stream_log.offset_of(self.position) if before else self.offset + len(data)
        stream_log.wake_writer()


#: Seconds between two looks at the store where no news came: they may have been missed.
_CHECK_INTERVAL: Final = 1.0
#: Seconds that a store may be away before a reader is sent to try again.
_AWAY: Final = 20.0


class RemoteReader:
    """Copies a stream from the store to one connection."""

    def __init__(
        self, service: Service, shared: SharedStore, stream: RemoteStream, request: Request, cors: bytes, position: int
    ) -> None:
        self._service = service
        self._shared = shared
        self._stream = stream
        self._request = request
        self._cors = cors
        self._position = position
        self._keep_alive = stream.origin.policy.keep_alive
        self._delivery = Delivery(request, cors, stream.origin)
        self._encoder = self._delivery.encoder
        self._news = asyncio.Event()
        self._stopped = False
        self._silent_since = clock.monotonic()
        self._lease = LeaseMonitor(shared, stream)
        self._away_since = 0.0
        self._reported_at = 0.0  # when the position was last reported, and which
        self._reported = position
        self._unreported = 0  # bytes since
        self._ended = stream.end is not None
        self._extended_at = 0.0  # when the lifetime of an ended stream was extended

    @property
    def name(self) -> str:
        """The id of its stream."""
        return self._stream.origin.id

    def stop(self) -> None:
        """End the answer without a good end: its client may come back, elsewhere."""
        self._stopped = True
        self._news.set()

    async def copy(self) -> Sent:
        """Copy the stream to its end. Cancelled when the reader leaves."""
        channel = self._shared.store.channel(self._stream.origin.id)
        self._shared.news.listen(channel, self._news.set)
        self._service.streams.followers.add(self)
        try:
            sent = await self._follow()
            return sent if await self._delivery.room() else CLOSE
        except asyncio.CancelledError:
            self._delivery.writer.stop()
            raise
        finally:
            self._service.streams.followers.discard(self)
            self._shared.news.unlisten(channel, self._news.set)
            if not self._service.draining:
                # From now on it is kept, and its run waits, for a client to reconnect.
                self._service.spawn(self._detach())

    async def _follow(self) -> Sent:
        head: Head | None = None
        while not self._stopped:
            if not await self._room():
                return CLOSE
            self._news.clear()
            try:
                await self._report_position()
                seen = await self._shared.store.peek(self.name, self._position)
            except RunError as error:
                if head is None:
                    return self._refuse(error)
                if self._is_store_gone():
                    return self._delivery.cut(head)
                await self._wait(head)
                continue
            self._away_since = 0.0
            if seen is None:
                if head is None:
                    return self._refuse(unknown_stream())
                return self._delivery.cut(head)  # it was kept long enough, or the store has lost it
            if seen.lines is not None:
                head = Head(seen.status, seen.lines)
            if seen.pieces and head is not None:
                self._write(head, seen)
                if seen.end is None:
                    continue
                if self._position < seen.next:
                    await self._extend()
                    continue
            if seen.end is not None:
                self._ended = True
                return self._finish(head, seen)
            if await self._lease.expired(seen):
                return self._end_as_lost(head)
            if head is not None:
                self._delivery.begin(head)
            await self._wait(head)
        return self._delivery.cut(head)

    def _write(self, head: Head, seen: Seen) -> None:
        """Copy what was seen, and report what is missing."""
        parts: list[bytes] = []
        for piece in seen.pieces:
            if piece.first > self._position and not self._stream.origin.restarts_at(piece.first):
                parts.append(self._gap(piece.first))
            skip = max(self._position - piece.first, 0)
            parts += piece.frames[skip:]
            self._position = max(self._position, piece.first + len(piece.frames))
        data = b"".join(parts)
        self._unreported += len(data)
        self._delivery.write(head, data)
        self._silent_since = clock.monotonic()
        self._lease.reset()

    def _gap(self, until: int) -> bytes:
        return self._encoder.gap({"from": self._position, "to": until - 1}, until - 1)

    def _finish(self, head: Head | None, seen: Seen) -> Sent:
        assert seen.end is not None
        end = read_end(seen.end)
        if head is None:  # it was lost before its answer had begun
            return self._refuse(_lost())
        if end.whole is None and self._position < seen.next:
            self._delivery.write(head, self._gap(seen.next))
        return self._end_as_lost(head) if end.lost else self._delivery.finish(head, end)

    async def _room(self) -> bool:
        """Wait until the connection takes more; False where it was given up. A slow reader counts as connected."""
        if not self._delivery.full:
            return True
        waiting = asyncio.ensure_future(self._delivery.room())
        try:
            while not (await asyncio.wait({waiting}, timeout=_CHECK_INTERVAL))[0]:
                with suppress(RunError):
                    await self._report_position()
            return await waiting
        finally:
            waiting.cancel()

    async def _wait(self, head: Head | None) -> None:
        """Wait for news, and keep the connection alive meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_CHECK_INTERVAL, self._keep_alive or _CHECK_INTERVAL)):
                await self._news.wait()
        if (
            head is not None
            and self._keep_alive
            and not self._delivery.full
            and clock.monotonic() - self._silent_since >= self._keep_alive
        ):
            self._delivery.write(head, self._encoder.heartbeat())
            self._silent_since = clock.monotonic()

    def _is_store_gone(self) -> bool:
        """Whether the store has been away for so long that its reader is to try again."""
        self._away_since = self._away_since or clock.monotonic()
        self._lease.reset()
        return clock.monotonic() - self._away_since > _AWAY

    # ------------------------------------------------------------- the process that runs it

    async def _report_position(self) -> None:
        """Report the reader's position to the process that runs the stream."""
        origin = self._stream.origin
        if self._ended:
            return
        now, resume = clock.monotonic(), origin.resume
        far = self._position - self._reported >= max(resume.max_chunks // 8, 1)
        far = far or self._unreported >= resume.max_size // 8
        seconds = min(resume.keep / 3, 10)
        if not far and now - self._reported_at < seconds:
            return
        self._reported_at, self._reported, self._unreported = now, self._position, 0
        await self._notify(resume.keep if origin.cancels else 2 * seconds)

    async def _notify(self, seconds: float) -> None:
        """Tell the process of the run how far this reader is, and for how long it counts as connected."""
        message = to_json({"read": self.name, "at": self._position, "for": seconds})
        await self._shared.store.send(self._stream.worker, message)

    async def _extend(self) -> None:
        """Have the store keep what has ended, while it is read."""
        now, origin = clock.monotonic(), self._stream.origin
        if now - self._extended_at >= origin.resume.keep / 3:
            self._extended_at = now
            await self._shared.linger(origin)

    async def _detach(self) -> None:
        origin = self._stream.origin
        with suppress(RunError):
            await self._shared.store.linger(origin.id, origin.resume.keep)
            if not self._ended:
                # The run waits for a client to reconnect, or goes on alone.
                await self._notify(origin.resume.keep if origin.cancels else 0)

    def _end_as_lost(self, head: Head | None) -> Sent:
        if head is None:
            return self._refuse(_lost())
        error = _lost()
        fields = in_band(error, self._stream.origin.run)
        self._delivery.write(head, self._encoder.error_end(error, fields, LAST) or b"")
        return self._delivery.finish(head, End())

    def _refuse(self, error: RunError) -> Sent:
        return send_problem(self._request, error, lines=self._cors, dev=self._service.context.dev)


def _lost() -> RunError:
    return RunError("producer-lost", LOST, status=503)


#: Seconds that a run which is stopped has to end.
STOPPING: Final = 5.0
#: Seconds between two looks at the store.
_POLL: Final = 0.05


async def stop(streams: StreamRegistry, stream: ResumableStream | RemoteStream) -> bool:
    """Stop a run, and wait a few seconds for its end; return whether it has ended.

    A run whose server is gone has ended. Raises RunError ``state-unreachable`` where its server can't be told.
    """
    if isinstance(stream, ResumableStream):
        return await stream.stop_and_wait(stop_error("the stream was stopped by its reader"), STOPPING)
    if streams.shared is None or stream.end is not None:
        return True
    await streams.shared.store.send(stream.worker, to_json({"stop": stream.origin.id}))
    try:
        async with asyncio.timeout(STOPPING):
            await _wait(streams.shared, stream)
    except TimeoutError:
        return False
    return True


async def _wait(shared: SharedStore, stream: RemoteStream) -> None:
    lease = LeaseMonitor(shared, stream)
    while True:
        try:
            seen = await shared.store.peek(stream.origin.id, LAST)  # no chunks
        except RunError:
            lease.reset()  # it was told: what becomes of that can't be seen now
        else:
            # A store that has lost the stream does not tell that its run has ended.
            if seen is not None and (seen.end is not None or await lease.expired(seen)):
                return
        await asyncio.sleep(_POLL)
