"""The log of a resumable stream: its chunks as they were encoded, numbered; how it began and ended; its readers.

A run appends to it through its sink, readers copy from it. It keeps the newest chunks within its bounds.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Final, NamedTuple

from streamstack import clock
from streamstack.connections.jobs import STRIDE
from streamstack.errors import RunError
from streamstack.formats.spec import Encoder
from streamstack.language.authentication import Methods
from streamstack.language.definition import Authentication
from streamstack.language.settings import Resume
from streamstack.runtime.coercion import invalid_input
from streamstack.server.access import Guard
from streamstack.server.replies import KEEP, Sent, error_lines, problem, problem_lines, status_of
from streamstack.server.request import Request
from streamstack.server.response import StreamSink
from streamstack.server.response_options import PATIENCE, ResponseOptions

if TYPE_CHECKING:
    from streamstack.server.resume.store import SharedStore
    from streamstack.server.resume.streams import LogReader, ResumableStream

#: An id of ours: 128 random bits.
STREAM_ID = re.compile(r"[A-Za-z0-9_-]{22}")
#: The number of what stands after everything: 15 digits, as many as are read.
LAST: Final = 999_999_999_999_999
#: The error that readers receive for a stream whose server is gone.
LOST: Final = "The server that ran this stopped before its end."
# More digits than any stream has chunks can't be a chunk number.
_NUMBER = re.compile(r"[0-9]{1,15}")


class Position(NamedTuple):
    """The last chunk that a reader has: its stream, "" where it does not say, and its number."""

    stream: str
    number: int


def new_stream_id() -> str:
    """Return an unguessable stream id (128 random bits)."""
    return token_urlsafe(16)


def read_position(text: str) -> Position | None:
    """Read `<stream>/<n>`, or a number alone; None for what is neither."""
    stream, slash, number = text.strip().rpartition("/")
    if not _NUMBER.fullmatch(number) or (slash and not STREAM_ID.fullmatch(stream)):
        return None
    return Position(stream, int(number))


def unknown_stream() -> RunError:
    """Return the error for a stream that does not exist, belongs to another caller, or has an invalid id."""
    return RunError("unknown-stream", "the stream does not exist or has expired")


def bad_position(name: str, place: str) -> RunError:
    """Return the error of a position that is neither a chunk id nor a number."""
    message = "must be the id of a chunk of this stream, or its number"
    return invalid_input(place, name, message)


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """The rules by which an endpoint's streams are read. They are stored with each stream.

    ``authentication``: None admits everybody. ``keep_alive``: seconds of silence before a heartbeat, 0 is never.
    ``idle``: seconds a reader may take nothing. ``compress``: gzip, for clients that accept it.
    """

    authentication: Authentication | None = None
    keep_alive: float = 15.0
    idle: float = PATIENCE
    compress: bool = False

    @classmethod
    def of(cls, wire: ResponseOptions, keep_alive: float, guard: Guard | None) -> StreamPolicy:
        """Return the policy of an endpoint."""
        return cls(
            None if guard is None else guard.authentication,
            keep_alive,
            # A reader that was disconnected for being slow may resume.
            wire.grace if wire.slow == "disconnect" else wire.patience,
            wire.compress,
        )

    def guard(self, methods: Methods) -> Guard | None:
        """Return the guard of the stream, None without authentication.

        Raises RunError ``unknown-stream`` where this process lacks one of its authentication methods.
        """
        if self.authentication is None:
            return None
        if any(way.name not in methods for way in self.authentication.ways):
            raise unknown_stream()
        return Guard(self.authentication, methods)


#: Readers that one stream may have at once.
MOST_READERS = 100
#: Dropped chunks whose list slots are kept before the list is compacted.
_SPARE = 512
#: Bytes that a chunk takes beside its own.
_OVERHEAD = 48


@dataclass(frozen=True, slots=True)
class Head:
    """The head of the response: status, and header lines without those of one connection or origin."""

    status: int
    lines: bytes


@dataclass(frozen=True, slots=True)
class End:
    """How the stream ended.

    ``cut``: it failed, and the format cannot say so, so the response must look cut short. ``whole``: nothing of the
    stream had been sent, and this body is the response, with the head's status. ``lost``: its process is gone.
    """

    cut: bool = False
    whole: bytes | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stream comes from, and how it is written.

    ``owner`` identifies the caller, "" without authentication; ``endpoint`` is the endpoint's title. ``cancels``: the
    run is cancelled when it has had no reader for `keep`. ``buffer``: bytes a reader may be behind. ``job``: it is the
    progress of a job, which waits for no reader, and which another process may go on with.
    """

    id: str
    endpoint: str
    owner: str
    format: str
    run: str
    resume: Resume
    cancels: bool = True
    buffer: int = 256 * 1024
    policy: StreamPolicy = field(default_factory=StreamPolicy)
    job: bool = False

    def restarts_at(self, number: int) -> bool:
        """Whether a chunk is the first of another process, which says so: none is missing before it."""
        return self.job and number > 0 and number % STRIDE == 0


class StreamLog:
    """What is kept of one stream. ``first`` to ``next`` are the numbers of the chunks it has."""

    __slots__ = (
        "_base",
        "_departed_next",
        "_departed_written",
        "_frames",
        "_waiting",
        "end",
        "first",
        "head",
        "live",
        "next",
        "observer",
        "origin",
        "readers",
        "remote_reader_until",
        "replicator",
        "size",
        "slow",
        "withheld",
        "written",
    )

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._frames: list[bytes] = []
        self._base = 0  # the number of the first of them; those before `first` are empty
        self.first = 0
        self.next = 0
        self.size = 0  # bytes that the chunks it has take
        self.written = 0  # bytes of all chunks there ever were
        self.head: Head | None = None
        self.end: End | None = None
        self.readers: set[LogReader] = set()
        self.live: set[LogReader] = set()  # readers that have had everything
        self.slow: set[LogReader] = set()  # the others
        self.replicator: SharedStore | None = None
        self.withheld = False  # readers wait until other servers can find the stream
        self.observer: ResumableStream | None = None
        self._departed_next = 0  # how far it was when the last reader left
        self._departed_written = 0
        self.remote_reader_until = 0.0  # till when a reader in another process is taken to be there
        self._waiting: list[asyncio.Future[None]] = []

    # ------------------------------------------------------------- what the run writes

    def begin(self, head: Head) -> None:
        """Set the head of the response."""
        self.head = head
        if self.replicator is not None:
            self.replicator.changed(self)

    def continue_from(self, number: int) -> None:
        """Give the chunks of an empty log numbers from this one on."""
        self._base = self.first = self.next = number

    def append(self, parts: list[bytes]) -> None:
        """Append encoded chunks, and push them to live readers."""
        data = b"".join(parts)
        count = len(parts)
        self._frames.extend(parts)
        self.next += count
        before = self.size
        self.size += len(data) + count * _OVERHEAD
        self.written += len(data)
        if self.live:
            for reader in tuple(self.live):
                reader.push(data, count)
        resume = self.origin.resume
        if self.next - self.first > resume.max_chunks or self.size > resume.max_size:
            self.trim(resume.max_chunks, resume.max_size)
        if self.observer is not None:
            self.observer.grew(self.size - before)
        if self.replicator is not None:
            self.replicator.changed(self)

    def trim(self, chunks: int, size: int) -> None:
        """Drop the oldest chunks past these bounds, but none that a connected reader still needs."""
        needed = () if self.origin.job else self.slow
        floor = min((reader.position for reader in needed), default=self.next)
        frames, at = self._frames, self.first - self._base
        end, most = floor - self._base, self.next - self._base - chunks
        while at < end and (at < most or self.size > size):
            self.size -= len(frames[at]) + _OVERHEAD
            frames[at] = b""
            at += 1
        self.first = self._base + at
        if at > _SPARE and at > len(frames) // 2:
            del frames[:at]
            self._base = self.first

    def finish(self, end: End, parts: list[bytes]) -> None:
        """Append the last chunks, and set how the stream ended."""
        if self.end is not None:
            return
        self.end = end  # before they are handed on, so that the end leaves together with them
        if end.whole is not None:
            self.withheld = False  # such a response does not name the stream
        if parts:
            self.append(parts)
        self.wake_readers()
        self.wake_writer()
        if self.replicator is not None:
            self.replicator.changed(self)
        if self.observer is not None:
            self.observer.ended()

    def publish(self) -> None:
        """Let readers have what was appended."""
        if self.withheld:
            self.withheld = False
            self.wake_readers()

    def wake_readers(self) -> None:
        """Let readers look at the head, the end, and what they could not have before."""
        for reader in tuple(self.readers):
            reader.wake()

    def heartbeat(self) -> None:
        """Send a heartbeat to all live readers."""
        for reader in tuple(self.live):
            reader.heartbeat()

    # ------------------------------------------------------------- how far it may run ahead

    def must_wait(self, more: int = 0) -> bool:
        """Whether the run has to wait: for a slow reader, for one to come back, for the store.

        ``more``: the chunks that it has not handed over yet.
        """
        if self.origin.job:
            pass
        elif self.slow:
            resume = self.origin.resume
            full = self.next - self.first >= resume.max_chunks or self.size >= resume.max_size
            for reader in self.slow:
                if self.written - reader.offset > reader.allowance:
                    return True
                if full and reader.position <= self.first:
                    return True
        elif not self.readers and (self.origin.cancels or clock.monotonic() < self.remote_reader_until):
            # Half of what is kept is for what the last reader may not have got.
            resume = self.origin.resume
            if self.next + more - self._departed_next >= max(resume.max_chunks // 2, 1):
                return True
            if self.written - self._departed_written >= resume.max_size // 2:
                return True
        return self.replicator is not None and self.replicator.lags(self)

    async def wait_for_room(self, seconds: float) -> None:
        """Wait until `must_wait` may have changed, for ``seconds`` at most."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        handle = waiter.get_loop().call_later(seconds, _settle, waiter)
        try:
            await waiter
        finally:
            handle.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def wake_writer(self) -> None:
        """Let the run check `must_wait` again."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            _settle(waiter)

    def note_remote_reader(self, position: int, seconds: float = 0.0) -> None:
        """Record the position of a reader in another process, who counts as connected for ``seconds``."""
        self.remote_reader_until = clock.monotonic() + seconds
        if position > self._departed_next:
            offset = self.offset_of(min(position, self.next))
            self._departed_next, self._departed_written = position, max(offset, self._departed_written)
            self.wake_writer()

    # ------------------------------------------------------------- what readers take

    def attach(self, reader: LogReader) -> None:
        """Attach a reader, which is slow until it has had everything."""
        reader.position = min(reader.position, self.next)
        reader.offset = self.offset_of(reader.position)
        reader.allowance = self.written - reader.offset + self.origin.buffer
        self.readers.add(reader)
        self.slow.add(reader)
        if len(self.readers) == 1 and self.observer is not None:
            self.observer.reader_arrived()

    def mark_live(self, reader: LogReader) -> None:
        """Mark a reader live: it has had everything. While the log is withheld no reader is."""
        if self.withheld:
            return
        self.slow.discard(reader)
        self.live.add(reader)
        reader.allowance = self.origin.buffer
        self.wake_writer()

    def mark_slow(self, reader: LogReader) -> None:
        """Mark a reader slow: its connection takes no more for now."""
        self.live.discard(reader)
        if reader in self.readers:
            self.slow.add(reader)

    def detach(self, reader: LogReader) -> None:
        """Detach a reader."""
        if reader not in self.readers:
            return
        self.readers.discard(reader)
        self.live.discard(reader)
        self.slow.discard(reader)
        if not self.readers:
            self._departed_next = max(self._departed_next, min(reader.position, self.next))
            self._departed_written = max(self._departed_written, min(reader.offset, self.written))
            if self.observer is not None:
                self.observer.on_readers_gone()
        self.wake_writer()

    def offset_of(self, position: int) -> int:
        """Return the bytes of all chunks before one; of those that are gone, all."""
        if position >= self.next:
            return self.written
        position = max(position, self.first)
        return self.written - sum(map(len, self._frames[position - self._base :]))

    def read(self, position: int, size: int) -> list[bytes]:
        """Return chunks from a number on that is kept, of about so many bytes, one at least where there is one."""
        frames, start = self._frames, max(position, self.first) - self._base
        end = start
        while end < len(frames) and size > 0:
            size -= len(frames[end])
            end += 1
        return frames[start:end]


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


#: Seconds after which a run that is held back is noted to be alive still.
_HELD: Final = 1.0


class ResumableSink(StreamSink):
    """Writes into a log, which readers copy from.

    Until it has one (`attach_log`) errors answer the request directly, as those before the run begins do. After that
    the response is written by readers of the log.
    """

    resumable = True

    __slots__ = ("_log", "handed", "stream")

    def __init__(self, wire: ResponseOptions, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self.stream = new_stream_id()
        self.handed = False
        self._log: StreamLog | None = None

    @property
    def log(self) -> StreamLog:
        """What it writes into, once the run has begun."""
        assert self._log is not None
        return self._log

    def attach_log(self, stream_log: StreamLog) -> None:
        """Write into this log from now on."""
        self._log = stream_log

    # ------------------------------------------------------------- the way of a chunk

    def _stream_id(self) -> str:
        return self.stream

    def _number(self) -> int:
        return self.log.next + len(self._parts)

    def _commit(self) -> None:
        self._check_status()
        self.log.begin(self._head())
        self.committed = True

    def _head(self) -> Head:
        lines = self.lines()
        lines = lines[: len(lines) - len(self.cors)]  # those are for one origin only
        return Head(self.status, b"%bX-Stream-Id: %b\r\n" % (lines, self.stream.encode()))

    def _blocks(self, more: int = 0) -> bool:
        return self.log.must_wait(more)

    def _has_readers(self) -> bool:
        return bool(self.log.readers)

    def _hand_on(self) -> None:
        self.sent_at = self._loop.time()
        self.log.append(self._parts)
        self._parts.clear()

    async def drain(self) -> None:
        stream_log = self.log
        self.flush()
        while stream_log.must_wait():
            # The silence is not the run's: it must not end for it.
            self.heard_at = self._loop.time()
            await stream_log.wait_for_room(_HELD)

    # ------------------------------------------------------------- silences and ends

    def heartbeat(self) -> None:
        if not self.ended and not self._parts and self._commit_quietly():
            self.log.heartbeat()

    def accept(self) -> None:
        if not self.ended and not self.committed and self._commit_quietly():
            self.log.wake_readers()

    def _send_whole(self, encoder: Encoder) -> Sent:
        self.log.begin(self._head())
        return self._close(End(whole=b""))

    def _send_end(self, tail: bytes) -> Sent:
        self._append(tail)
        return self._close(End())

    def fail(self, error: RunError) -> Sent:
        if self._log is None:
            return super().fail(error)
        if not self.committed:
            self.status, self.refused = status_of(error), True
            lines = problem_lines(self.run.id) + error_lines(error)
            self.log.begin(Head(self.status, lines))
            return self._close(End(whole=problem(error, self.run.id, self.status, dev=self.wire.dev)))
        encoder = self.encoder
        self._append(encoder.error_end(error, self.error_fields(error), self._number()))
        return self._close(End(cut=encoder.ends_alike))

    def _close(self, end: End) -> Sent:
        parts, self._parts = self._parts, []
        if parts:
            self.sent_at = self._loop.time()
        self.ended = True
        self.log.finish(end, parts)
        self.flush()
        return KEEP

    def abort(self) -> None:
        if self._log is None:
            super().abort()
        else:
            self._close(End(cut=True))
