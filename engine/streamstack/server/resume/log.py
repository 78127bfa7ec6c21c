"""The log of a resumable stream: its chunks as they were encoded, numbered; how it began and ended; its readers.

A run appends to it, readers copy from it. It keeps the newest chunks within its bounds.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from secrets import token_urlsafe
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from streamstack.errors import Mark, RunError
from streamstack.language.authentication_settings import Methods
from streamstack.language.definition import Authentication, Way
from streamstack.language.streaming_settings import Resume
from streamstack.runtime.input_faults import invalid
from streamstack.server.authentication import Guard
from streamstack.server.wire import PATIENCE, Wire

#: An id of ours: 128 random bits.
STREAM_ID = re.compile(r"[A-Za-z0-9_-]{22}")
#: The number of what stands after everything: 15 digits, as many as are read.
LAST: Final = 999_999_999_999_999
#: What readers are told of a stream whose server is gone.
LOST: Final = "The server that ran this stopped before its end."
# More digits than any stream has chunks are no number of one.
_NUMBER = re.compile(r"[0-9]{1,15}")


class Position(NamedTuple):
    """The last chunk that a reader has: its stream, "" where it does not say, and its number."""

    stream: str
    number: int


def new_stream_id() -> str:
    """Return an id that nobody can guess."""
    return token_urlsafe(16)


def read_position(text: str) -> Position | None:
    """Read `<stream>/<n>`, or a number alone; None for what is neither."""
    stream, slash, number = text.strip().rpartition("/")
    if not _NUMBER.fullmatch(number) or (slash and not STREAM_ID.fullmatch(stream)):
        return None
    return Position(stream, int(number))


def unknown_stream() -> RunError:
    """Return the one answer for what there is not, for what is another's, and for what is no id."""
    return RunError("unknown-stream", "there is no such stream, or it was kept long enough")


def bad_position(name: str, place: str) -> RunError:
    """Return the error of a position that can't be read."""
    message = "must be the id of a chunk of this stream, or its number"
    return invalid([{"in": place, "name": name, "message": message}])


#: Where a way in was written, of a stream that another process began.
_FAR = Mark("", 1, 1)


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """The policy of an endpoint's streams.

    ``authentication``: who may ask for them, None for everybody. ``keep_alive``: the seconds of silence before a
    heartbeat, 0 is never. ``idle``: the seconds a reader may take nothing. ``compress``: for readers who take that.
    """

    authentication: Authentication | None = None
    keep_alive: float = 15.0
    idle: float = PATIENCE
    compress: bool = False
    text: str = field(init=False, repr=False)  # as the store has them

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", json.dumps(self._told(), separators=(",", ":")))

    @classmethod
    def of(cls, wire: Wire, keep_alive: float, guard: Guard | None) -> StreamPolicy:
        """Return the policy of an endpoint."""
        return cls(
            None if guard is None else guard.authentication,
            keep_alive,
            # Who is cut off for being slow may come back.
            wire.grace if wire.slow == "disconnect" else wire.patience,
            wire.compress,
        )

    def guard(self, methods: Methods) -> Guard | None:
        """Return who stands before it, None where nobody does.

        Raises RunError ``unknown-stream`` where one of the authentications is not known here.
        """
        if self.authentication is None:
            return None
        if any(way.name not in methods for way in self.authentication.ways):
            raise unknown_stream()
        return Guard(self.authentication, methods)

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "keepAlive": self.keep_alive,
            "idle": self.idle,
            "compress": self.compress,
        }
        if self.authentication is not None:
            told["ways"] = [[way.name, *way.scopes] for way in self.authentication.ways]
            told["optional"] = self.authentication.optional
        return told


def read_policy(text: str) -> StreamPolicy:
    """Return the policy that the store has of a stream. Raises ValueError, KeyError, TypeError for what are none."""
    told = json.loads(text)
    authentication = None
    if "ways" in told:
        ways = tuple(
            Way(str(name), tuple(map(str, scopes)), _FAR) for name, *scopes in told["ways"]
        )
        authentication = Authentication(ways, bool(told["optional"]))
    return StreamPolicy(
        authentication, float(told["keepAlive"]), float(told["idle"]), bool(told["compress"])
    )


#: Readers that one stream may have at once.
MOST_READERS = 100
#: Places of dropped chunks that a log may have before it closes up.
_SPARE = 512
#: Bytes that a chunk takes beside its own.
_OVERHEAD = 48


@dataclass(frozen=True, slots=True)
class Head:
    """How the answer begins: its status, and its header lines but those of one connection or origin."""

    status: int
    lines: bytes


@dataclass(frozen=True, slots=True)
class End:
    """How the stream ended.

    ``cut``: not well, and the format has no mark of a good end, so the answer must look cut short. ``whole``: nothing
    of the stream had been sent, and this body answers in its place, with the head's status. ``lost``: who wrote it is
    gone, so nobody knows how it would have ended.
    """

    cut: bool = False
    whole: bytes | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stream comes from, and how it is written.

    ``owner`` tells who began it, "" for nobody in particular; ``endpoint`` is the title of what it began at.
    ``cancels``: the run is not to go on for long without a reader. ``buffer``: the bytes a reader may be behind.
    ``policy``: how it is read, and by whom.
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


class LogSubscriber(Protocol):
    """A reader, as its log sees it."""

    position: int  # the number of the chunk it needs next
    offset: int  # the bytes it has had, as `StreamLog.written` counts them
    allowance: int  # the bytes it may be behind before it holds the run back

    def push(self, data: bytes, count: int) -> None:
        """Take what was written just now; only of one that has had everything before."""

    def wake(self) -> None:
        """Look at the log again."""

    def beat(self) -> None:
        """Send a heartbeat, unless something is on its way."""

    def drop(self) -> None:
        """Give the reader up."""


class LogObserver(Protocol):
    """What wants to know who reads a stream, and how much it keeps."""

    def came(self) -> None:
        """Take note of the first reader after there was none."""

    def left(self) -> None:
        """Take note that the last reader has gone."""

    def ended(self) -> None:
        """Take note that the stream has ended."""

    def grown(self, size: int) -> None:
        """Take note that it keeps so many bytes more."""


class Replicator(Protocol):
    """What keeps logs beyond this process."""

    def note(self, stream_log: StreamLog) -> None:
        """Take note that something was written."""

    def behind(self, stream_log: StreamLog) -> bool:
        """Whether so much is not kept yet that the run has to wait."""


class StreamLog:
    """What is kept of one stream. ``first`` to ``next`` are the numbers of the chunks it has."""

    __slots__ = (
        "_base",
        "_frames",
        "_left_next",
        "_left_written",
        "_waiting",
        "end",
        "first",
        "head",
        "live",
        "next",
        "observer",
        "origin",
        "read_until",
        "readers",
        "replicator",
        "shut",
        "size",
        "slow",
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
        self.readers: set[LogSubscriber] = set()
        self.live: set[LogSubscriber] = set()  # those who have had everything
        self.slow: set[LogSubscriber] = set()  # the others
        self.replicator: Replicator | None = None
        self.shut = False  # nobody is told of it yet, since another server would not find it
        self.observer: LogObserver | None = None
        self._left_next = 0  # how far it was when the last reader left
        self._left_written = 0
        self.read_until = 0.0  # till when a reader in another process is taken to be there
        self._waiting: list[asyncio.Future[None]] = []

    # ------------------------------------------------------------- what the run writes

    def begin(self, head: Head) -> None:
        """Set how the answer begins."""
        self.head = head
        if self.replicator is not None:
            self.replicator.note(self)

    def append(self, parts: list[bytes]) -> None:
        """Write chunks, each as it is sent, and hand them to those who wait for them."""
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
            self.observer.grown(self.size - before)
        if self.replicator is not None:
            self.replicator.note(self)

    def trim(self, chunks: int, size: int) -> None:
        """Drop the oldest chunks past these bounds, but none that a reader who is here has not had."""
        floor = min((reader.position for reader in self.slow), default=self.next)
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
        """Write the last chunks, and set how the stream ended."""
        if self.end is not None:
            return
        self.end = end  # before they are handed on, so that the end leaves together with them
        if end.whole is not None:
            self.shut = False  # it tells nobody the stream's id
        if parts:
            self.append(parts)
        for reader in tuple(self.readers):
            reader.wake()
        self.let_go()
        if self.replicator is not None:
            self.replicator.note(self)
        if self.observer is not None:
            self.observer.ended()

    def open(self) -> None:
        """Let readers have what is written."""
        if self.shut:
            self.shut = False
            for reader in tuple(self.readers):
                reader.wake()

    def beat(self) -> None:
        """Let those who have had everything know that the stream lives."""
        for reader in tuple(self.live):
            reader.beat()

    # ------------------------------------------------------------- how far it may run ahead

    def holds(self, more: int = 0) -> bool:
        """Whether the run has to wait: for a slow reader, for one to come back, for the store.

        ``more``: the chunks that it has not handed over yet.
        """
        if self.slow:
            resume = self.origin.resume
            full = self.next - self.first >= resume.max_chunks or self.size >= resume.max_size
            for reader in self.slow:
                if self.written - reader.offset > reader.allowance:
                    return True
                if full and reader.position <= self.first:
                    return True
        elif not self.readers and (self.origin.cancels or monotonic() < self.read_until):
            # Half of what is kept is for what the last reader may not have got.
            resume = self.origin.resume
            if self.next + more - self._left_next >= max(resume.max_chunks // 2, 1):
                return True
            if self.written - self._left_written >= resume.max_size // 2:
                return True
        return self.replicator is not None and self.replicator.behind(self)

    async def room(self, seconds: float) -> None:
        """Wait until something has changed about `holds`, for some seconds at most."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        handle = waiter.get_loop().call_later(seconds, _settle, waiter)
        try:
            await waiter
        finally:
            handle.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def let_go(self) -> None:
        """Let the run look at `holds` again."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            _settle(waiter)

    def read_elsewhere(self, position: int, seconds: float = 0.0) -> None:
        """Take note of how far a reader in another process has come, and for how long he is taken to be there."""
        self.read_until = monotonic() + seconds
        if position > self._left_next:
            offset = self.offset_of(min(position, self.next))
            self._left_next, self._left_written = position, max(offset, self._left_written)
            self.let_go()

    # ------------------------------------------------------------- what readers take

    def attach(self, reader: LogSubscriber) -> None:
        """Take a reader in, who is slow until he has had everything."""
        reader.position = min(reader.position, self.next)
        reader.offset = self.offset_of(reader.position)
        reader.allowance = self.written - reader.offset + self.origin.buffer
        self.readers.add(reader)
        self.slow.add(reader)
        if len(self.readers) == 1 and self.observer is not None:
            self.observer.came()

    def catch_up(self, reader: LogSubscriber) -> None:
        """Take note that a reader has had everything, unless there may be more that nobody is given yet."""
        if self.shut:
            return
        self.slow.discard(reader)
        self.live.add(reader)
        reader.allowance = self.origin.buffer
        self.let_go()

    def fall_behind(self, reader: LogSubscriber) -> None:
        """Take note that a reader takes no more for now."""
        self.live.discard(reader)
        if reader in self.readers:
            self.slow.add(reader)

    def detach(self, reader: LogSubscriber) -> None:
        """Let a reader go."""
        if reader not in self.readers:
            return
        self.readers.discard(reader)
        self.live.discard(reader)
        self.slow.discard(reader)
        if not self.readers:
            self._left_next = max(self._left_next, min(reader.position, self.next))
            self._left_written = max(self._left_written, min(reader.offset, self.written))
            if self.observer is not None:
                self.observer.left()
        self.let_go()

    def offset_of(self, position: int) -> int:
        """Return the bytes of all chunks before one; of those that are gone, all."""
        if position >= self.next:
            return self.written
        position = max(position, self.first)
        return self.written - sum(map(len, self._frames[position - self._base :]))

    def take(self, position: int, size: int) -> list[bytes]:
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
