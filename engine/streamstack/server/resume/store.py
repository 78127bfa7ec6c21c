"""Streams that several processes share: each log is replicated as it grows, and read there by the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final

import orjson

from streamstack import clock
from streamstack.connections.stream_store import Seen, StreamNews, StreamStore, Writing
from streamstack.errors import Mark, RunError
from streamstack.language.definition import Authentication, Way
from streamstack.language.settings import Resume
from streamstack.server.replies import log
from streamstack.server.resume.log import End, Origin, StreamLog, StreamPolicy, new_stream_id

if TYPE_CHECKING:
    from streamstack.connections.redis import Redis


def write_end(end: End) -> bytes:
    """Return an end as the store has it."""
    whole = None if end.whole is None else end.whole.decode()
    return orjson.dumps({"cut": end.cut, "whole": whole, "lost": end.lost})


def read_end(data: bytes) -> End:
    """Return the end that the store has."""
    fields = orjson.loads(data)
    whole = fields["whole"]
    return End(fields["cut"], None if whole is None else whole.encode(), fields["lost"])


@dataclass(frozen=True, slots=True)
class RemoteStream:
    """A stream of another process. ``worker`` is that process, ``value`` what its idempotency key stands for."""

    origin: Origin
    worker: str
    value: str = ""
    next: int = 0
    end: End | None = None
    status: int = 200
    lines: bytes | None = None

    @property
    def fingerprint(self) -> str:
        """The request that its key stands for."""
        return self.value.partition(" ")[2]


def write_origin(origin: Origin) -> bytes:
    """Return an origin as the store has it."""
    policy, resume = origin.policy, origin.resume
    access = policy.authentication
    fields = {
        "endpoint": origin.endpoint,
        "owner": origin.owner,
        "format": origin.format,
        "run": origin.run,
        "cancels": origin.cancels,
        "buffer": origin.buffer,
        "job": origin.job,
        "resume": [resume.keep, resume.max_chunks, resume.max_size],
        "ways": None if access is None else [[way.name, *way.scopes] for way in access.ways],
        "optional": access is not None and access.optional,
        "reading": [policy.keep_alive, policy.idle, policy.compress],
    }
    return orjson.dumps(fields)


#: The place in a definition of an authentication method, for a stream of another process.
_FAR: Final = Mark("", 1, 1)


def read_origin(name: str, data: bytes) -> Origin:
    """Return the origin that the store has. Raises ValueError, KeyError or TypeError for an invalid one."""
    fields = orjson.loads(data)
    access = None
    if fields["ways"] is not None:
        ways = tuple(Way(str(name), tuple(map(str, scopes)), _FAR) for name, *scopes in fields["ways"])
        access = Authentication(ways, bool(fields["optional"]))
    keep, chunks, size = fields["resume"]
    keep_alive, idle, compress = fields["reading"]
    policy = StreamPolicy(access, float(keep_alive), float(idle), bool(compress))
    return Origin(
        name,
        str(fields["endpoint"]),
        str(fields["owner"]),
        str(fields["format"]),
        str(fields["run"]),
        Resume(float(keep), int(chunks), int(size)),
        bool(fields["cancels"]),
        int(fields["buffer"]),
        policy,
        bool(fields.get("job")),
    )


def read_fields(name: str, fields: Mapping[str, bytes]) -> RemoteStream | None:
    """Return a stream as the store has it; None where it has none that can be read here."""
    try:
        return RemoteStream(
            read_origin(name, fields["origin"]),
            fields["worker"].decode(),
            fields["key"].decode(),
            int(fields["next"]),
            read_end(fields["end"]) if "end" in fields else None,
            int(fields.get("status", 200)),
            fields.get("lines"),
        )
    except (ValueError, KeyError, TypeError):
        return None  # there is none, or another version wrote it: who may read it is not known


#: Seconds a stream that is neither written nor ended is kept, beyond what its limits allow.
_SPARE: Final = 900.0


@dataclass(eq=False, slots=True)
class Replication:
    """How far the store is with one log. ``have``: the chunk it needs next; ``offset``: the bytes it has had.

    ``ttl`` are the seconds that the stream may be silent.
    """

    log: StreamLog
    ttl: float
    key: bytes = b""
    value: str = ""
    opened: bool = False
    headed: bool = False
    waiting: asyncio.TimerHandle | None = None  # when its first chunk has waited long enough
    have: int = 0
    offset: int = 0

    @property
    def due(self) -> bool:
        """Whether there is something to write."""
        stream_log = self.log
        return (
            not self.opened
            or self.have < stream_log.next
            or stream_log.end is not None
            or (stream_log.head is not None and not self.headed)
        )


def fields_of(record: Replication, worker: str) -> Mapping[str, bytes | str | int]:
    """Return the fields of a new stream; ``worker`` is the process that runs it."""
    return {"origin": write_origin(record.log.origin), "worker": worker, "key": record.value, "next": record.have}


def ttl_of(resume: Resume, silences: tuple[float, ...]) -> float:
    """Return the seconds that a stream is kept without a word of it; ``silences`` are its limits, 0 for none."""
    if not all(silences):
        return 7 * 86_400.0
    return max(silences) + 2 * resume.keep + _SPARE


def grace_of(resume: Resume) -> float:
    """Return the seconds that the store keeps a stream longer than it is to be kept from its end on.

    Most readers leave within them: from then on it is kept, and need not be written for each.
    """
    return min(1.0, resume.keep / 8)


#: Seconds between two times that this process says that it lives.
RENEWAL: Final = 2.0
#: Bytes of one stream that are written at once, and streams.
_AT_ONCE: Final = 256 * 1024
_STREAMS: Final = 64
#: Seconds between two attempts to reach a store that is away.
_PAUSE: Final = 0.25
#: Seconds after which all processes have written what a store lacks that was away.
_SETTLING: Final = 2 * RENEWAL
#: Seconds that a first chunk waits at most for the store to know its stream. One that does not answer is given up
#: sooner; one that is only slow, or a process that has too much to do, is not reported as lost.
_OPENING: Final = 10.0
#: Seconds to write what is left, when the service ends.
FLUSH_TIMEOUT: Final = 3.0
#: Streams that may have begun while the store was away, and are remembered: of more, few can have reached it.
_DOUBTFUL: Final = 100_000


class SharedStore:
    """The store as this process uses it: one task writes, one says that it lives, one listens.

    ``doubtful`` are streams that may be in the store, and have no run.
    """

    def __init__(self, redis: Redis) -> None:
        self.store = StreamStore(redis, new_stream_id())
        self.news = StreamNews(redis, self._note_outage)
        self._outage_at = -inf  # when the store was last found to be away
        self._records: dict[StreamLog, Replication] = {}
        self._due: dict[Replication, None] = {}
        self._wanted = asyncio.Event()
        self._reached = True
        self._renew = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._deliver: Callable[[dict[str, Any]], None] = _ignore
        self.doubtful: list[str] = []

    def start(self, group: asyncio.TaskGroup, on_message: Callable[[dict[str, Any]], None]) -> None:
        """Begin to write, to live, to listen. ``on_message`` is called with what other processes say."""
        self._deliver = on_message
        self.news.listen(self.store.inbox(self.store.worker), self._renew.set)
        works: list[Coroutine[Any, Any, None]] = [self._write_loop(), self._renew_lease(), self.news.run()]
        self._tasks = [group.create_task(work) for work in works]

    async def close(self) -> None:
        """Write what is left, for some seconds, and say that this process is gone."""
        for _ in range(int(FLUSH_TIMEOUT / 0.05)):
            if self.settled or not self._reached:
                break
            await asyncio.sleep(0.05)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
            self._tasks = []
            with suppress(RunError):
                await self.store.unregister()

    @property
    def settled(self) -> bool:
        """Whether the store has all that was written, for now."""
        return not any(record.due for record in self._records.values())

    # ------------------------------------------------------------- what is written

    async def claim(self, record: Replication) -> str | None:
        """Begin a stream by its key; return what another was begun by it with, which is to be read in its place.

        Raises RunError ``state-unreachable``: without the store it is not known whether the run has begun.
        """
        origin = record.log.origin
        try:
            found = await self.store.open(
                origin.id, fields_of(record, self.store.worker), record.ttl, record.key, record.value
            )
        except RunError:
            # The store may have the claim all the same: requests with that key would wait for a run that never begins.
            if len(self.doubtful) < _DOUBTFUL:
                self.doubtful.append(origin.id)
                self._renew.set()
            raise
        # Where it was asked twice, its own word is what it finds.
        if found is not None and found != record.value.encode():
            return found.decode()
        record.opened = True
        return None

    def replicate(self, record: Replication) -> None:
        """Write a log to the store from now on."""
        self._records[record.log] = record
        record.log.replicator = self
        record.log.withheld = self._reached and not record.opened and record.log.end is None
        self._schedule(record)

    def changed(self, stream_log: StreamLog) -> None:
        """Schedule replication of what was appended."""
        record = self._records[stream_log]
        if stream_log.withheld and record.waiting is None:
            loop = asyncio.get_running_loop()
            record.waiting = loop.call_later(_OPENING, stream_log.publish)
        self._schedule(record)

    def lags(self, stream_log: StreamLog) -> bool:
        """Whether so much is not in the store yet that the run has to wait. One that is away is not waited for."""
        return self._reached and stream_log.written - self._records[stream_log].offset > max(
            _AT_ONCE, stream_log.origin.buffer
        )

    def _schedule(self, record: Replication) -> None:
        self._due[record] = None
        self._wanted.set()

    async def _write_loop(self) -> None:
        while True:
            await self._wanted.wait()
            # Streams that begin in one turn of the loop, and their chunks of the next turn, are written together.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self._wanted.clear()
            while self._due:
                await self._write_some()

    async def _write_some(self) -> None:
        """Write what is due, of some streams: in a frame of its own, which holds no log while nothing is."""
        records = [record for record, _ in zip(self._due, range(_STREAMS), strict=False)]
        for record in records:
            del self._due[record]
        try:
            await self._write(records)
        except RunError as error:
            self._mark_unreachable(records, error)
            await asyncio.sleep(_PAUSE)
        except Exception as error:  # noqa: BLE001  (streams go on without the store)
            log.exception("streams-not-kept", reason=str(error))
            self._mark_unreachable(records, None)
            await asyncio.sleep(_PAUSE)

    def _mark_unreachable(self, records: list[Replication], error: RunError | None) -> None:
        """Let runs go on without the store; what it lacks is written when it is back."""
        if self._reached and error is not None:
            log.warning("streams-not-kept", reason=error.message)
        self._reached = False
        for record in records:
            self._due[record] = None
            record.log.wake_writer()
        for record in self._records.values():
            _open(record)

    async def _write(self, records: list[Replication]) -> None:
        """Write what is new of some logs, in one go."""
        writings = []
        heads: list[bool] = []
        for record in records:
            if not record.opened:
                record.have = record.log.first
                record.headed = False
            writings.append(self._writing(record))
            heads.append("status" in writings[-1].fields)
        found = await self.store.write(writings)
        if not self._reached:
            self._reached = True
            self._renew.set()  # our lease may have been over
        for record, writing, headed, have in zip(records, writings, heads, found, strict=True):
            self._apply_result(record, writing, have, headed=headed)

    def _writing(self, record: Replication) -> Writing:
        stream_log = record.log
        start = max(record.have, stream_log.first)
        frames = stream_log.read(start, _AT_ONCE)
        fields: dict[str, bytes | str | int] = {}
        if stream_log.head is not None and not record.headed:
            fields |= {"status": stream_log.head.status, "lines": stream_log.head.lines}
        next_ = start + len(frames)
        end = b""
        if stream_log.end is not None and next_ == stream_log.next:
            end = write_end(stream_log.end)
        resume = stream_log.origin.resume
        seconds = resume.keep + grace_of(resume) if end else record.ttl
        return Writing(
            stream_log.origin.id,
            record.have,
            next_ if frames else record.have,
            stream_log.first,
            frames,
            seconds,
            fields,
            end,
            record.key,
            None if record.opened else fields_of(record, self.store.worker),
        )

    def _apply_result(self, record: Replication, writing: Writing, have: object, *, headed: bool) -> None:
        stream_log = record.log
        if not isinstance(have, int):
            self._schedule(record)
            return
        if have == -1 and stream_log.origin.job:
            record.opened = False  # its job is stored again, too
            self._schedule(record)
            return
        if have < 0:
            # Another process ended it as lost, and remote readers were told; or the store has lost it. It goes on for
            # the readers of this process alone.
            reason = "the store has lost it" if have == -1 else "it was taken for lost"
            origin = stream_log.origin
            log.warning("stream-given-up", stream=origin.id, run=origin.run, reason=reason)
            self._drop(record)
            return
        record.opened = True
        _open(record)
        if have == writing.next:
            record.headed = record.headed or headed
            if writing.end:
                self._drop(record)
                return
        else:
            record.headed = False  # it went back: whatever it had since is to be written again
        record.have = have
        record.offset = stream_log.offset_of(have)
        stream_log.wake_writer()
        if record.due:
            self._schedule(record)

    def withdraw(self, stream_log: StreamLog) -> None:
        """Write no more of a log: another process goes on with the stream."""
        if (record := self._records.get(stream_log)) is not None:
            self._drop(record)

    async def flush(self, stream_log: StreamLog) -> None:
        """Wait until the store has all of a log, for some seconds."""
        for _ in range(int(FLUSH_TIMEOUT / 0.02)):
            record = self._records.get(stream_log)
            if record is None or not record.due or not self._reached:
                break
            await asyncio.sleep(0.02)

    def _drop(self, record: Replication) -> None:
        self._due.pop(record, None)
        self._records.pop(record.log, None)
        record.log.replicator = None
        record.log.wake_writer()
        _open(record)

    # ------------------------------------------------------------- leases and messages

    async def _renew_lease(self) -> None:
        """Renew the lease of this process again and again, and handle the messages to it."""
        while True:
            self._renew.clear()
            try:
                for message in await self.store.renew():
                    self._on_message(message)
                    self._renew.set()  # there may be more: some are read at a time
                await self._discard_doubtful()
            except RunError:
                self._note_outage()
                await asyncio.sleep(_PAUSE)
                continue
            except Exception as error:  # noqa: BLE001  (the next time may go well)
                log.exception("lease-not-renewed", reason=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEWAL):
                    await self._renew.wait()

    def _note_outage(self) -> None:
        """Record that the store is, or was, out of reach."""
        self._outage_at = clock.monotonic()
        self._renew.set()

    async def find(self, name: str) -> RemoteStream | None:
        """Return a stream that another process writes, or wrote. Raises RunError ``state-unreachable``.

        Just after the store was away, what began meanwhile is waited for: its process is about to write it.
        """
        while True:
            found = read_fields(name, await self.store.fields(name))
            if found is not None or clock.monotonic() > self._outage_at + _SETTLING:
                return found
            await asyncio.sleep(_PAUSE)

    async def linger(self, origin: Origin) -> None:
        """Keep a stream that has ended from now on for as long as it is kept."""
        with suppress(RunError):
            await self.store.linger(origin.id, origin.resume.keep)

    async def _discard_doubtful(self) -> None:
        """Delete streams that were claimed by a key while the store did not answer: they have no run."""
        while names := self.doubtful[:_STREAMS]:
            await self.store.forget(names)
            del self.doubtful[: len(names)]

    def _on_message(self, data: bytes) -> None:
        try:
            message = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        if isinstance(message, dict):
            self._deliver(message)


def _open(record: Replication) -> None:
    """Let readers have what was appended: others can find the stream, or the store is out of reach."""
    if record.waiting is not None:
        record.waiting.cancel()
        record.waiting = None
    record.log.publish()


def _ignore(message: dict[str, Any]) -> None:
    """Hear nothing, before there is anybody to."""


#: Seconds without a lease before a process counts as lost: after an outage of the store all leases are renewed first.
GRACE: Final = 3.0


class LeaseMonitor:
    """Watches whether the process that writes a stream is there."""

    __slots__ = ("_shared", "_since", "_stream")

    def __init__(self, shared: SharedStore, stream: RemoteStream) -> None:
        self._shared = shared
        self._stream = stream
        self._since = 0.0

    def reset(self) -> None:
        """Restart the count: there was a lease, or the store could not be asked."""
        self._since = 0.0

    async def expired(self, seen: Seen) -> bool:
        """Tell whether the process is gone. The first that notices ends the stream for all."""
        if seen.alive or self._stream.origin.job:  # another process takes a job over
            self._since = 0.0
            return False
        self._since = self._since or clock.monotonic()
        if clock.monotonic() - self._since < GRACE:
            return False
        origin = self._stream.origin
        with suppress(RunError):
            # Later readers find this end; where the stream has got another meanwhile, that counts.
            end = write_end(End(lost=True))
            if not await self._shared.store.lose(origin.id, end, origin.resume.keep):
                self._since = 0.0
                return False
        log.warning("stream-lost", stream=origin.id, run=origin.run, worker=self._stream.worker)
        return True
