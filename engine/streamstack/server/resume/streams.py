"""The resumable streams of a process: those that run, and those that are kept after their end."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from streamstack import clock
from streamstack.errors import RunError
from streamstack.server.resume.log import Origin, StreamLog
from streamstack.server.resume.store import grace_of

if TYPE_CHECKING:
    from streamstack.server.deadlines import RunTimer
    from streamstack.server.resume.readers import RemoteReader
    from streamstack.server.resume.store import SharedStore

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
    life: RunTimer | None = None
    task: asyncio.Task[None] | None = None
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    _ended_at: float = field(default=0.0, init=False)

    @property
    def origin(self) -> Origin:
        """Where it comes from."""
        return self.log.origin

    def stop(self, reason: RunError) -> None:
        """End the run, if it has not ended."""
        if self.life is not None:
            self.life.stop(reason)

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

    def readers_left(self) -> None:
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

    def _on_message(self, told: dict[str, Any]) -> None:
        """Handle a message of another process."""
        if (stream := self._all.get(str(told.get("stop")))) is not None:
            stream.stop(stop_error("the stream was stopped by its reader"))
        if (stream := self._all.get(str(told.get("read")))) is not None:
            stream.log.note_remote_reader(int(told.get("at", 0)), float(told.get("for", 0.0)))

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
        left = stream.log.remote_reader_until - clock.monotonic()
        if left > 0:
            stream.set_timer(left)
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

    def leave(self) -> None:
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
