"""Streams that other processes can read: each journal of this one is written to the store as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import orjson

from streamstack.connections.stream_news import StreamNews
from streamstack.connections.stream_store import StreamStore, Writing
from streamstack.errors import RunError
from streamstack.server.problems import log
from streamstack.server.resuming.elsewhere import Elsewhere, read_fields, write_end
from streamstack.server.resuming.ids import new_stream_id
from streamstack.server.resuming.journal import Journal
from streamstack.server.resuming.recording import Record, fields_of, spare_of

if TYPE_CHECKING:
    from streamstack.connections.redis import Redis

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
#: sooner; one that is only slow, or a process that has too much to do, is no reason to tell of what others don't find.
_OPENING: Final = 10.0
#: Seconds to write what is left, when the service ends.
LAST_WORDS: Final = 3.0
#: Streams that may have begun while the store was away, and are remembered: of more, few can have reached it.
_DOUBTFUL: Final = 100_000


class Shared:
    """The store as this process uses it: one task writes, one says that it lives, one listens.

    ``doubtful`` are streams that may be in the store, and have no run.
    """

    def __init__(self, redis: Redis) -> None:
        self.store = StreamStore(redis, new_stream_id())
        self.news = StreamNews(redis, self._miss)
        self._missed_at = -inf  # when the store was last found to be away
        self._records: dict[Journal, Record] = {}
        self._due: dict[Record, None] = {}
        self._wanted = asyncio.Event()
        self._reached = True
        self._renew = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._told: Callable[[dict[str, Any]], None] = _ignore
        self.doubtful: list[str] = []

    def start(self, group: asyncio.TaskGroup, told: Callable[[dict[str, Any]], None]) -> None:
        """Begin to write, to live, to listen. ``told`` is called with what other processes say."""
        self._told = told
        self.news.listen(self.store.inbox(self.store.worker), self._renew.set)
        works: list[Coroutine[Any, Any, None]] = [self._write_on(), self._live(), self.news.run()]
        self._tasks = [group.create_task(work) for work in works]

    async def close(self) -> None:
        """Write what is left, for some seconds, and say that this process is gone."""
        for _ in range(int(LAST_WORDS / 0.05)):
            if self.settled or not self._reached:
                break
            await asyncio.sleep(0.05)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
            self._tasks = []
            with suppress(RunError):
                await self.store.leave()

    @property
    def settled(self) -> bool:
        """Whether the store has all that was written, for now."""
        return not any(record.due for record in self._records.values())

    # ------------------------------------------------------------- what is written

    async def claim(self, record: Record) -> str | None:
        """Begin a stream by its key; return what another was begun by it with, which is to be read in its place.

        Raises RunError ``state-unreachable``: without the store nobody knows whether the run has begun.
        """
        origin = record.journal.origin
        try:
            found = await self.store.open(
                origin.id,
                fields_of(record, self.store.worker),
                record.lasting,
                record.key,
                record.value,
            )
        except RunError:
            # It may have been done all the same: whoever came with that key would wait for a run that never begins.
            if len(self.doubtful) < _DOUBTFUL:
                self.doubtful.append(origin.id)
                self._renew.set()
            raise
        # Where it was asked twice, its own word is what it finds.
        if found is not None and found != record.value.encode():
            return found.decode()
        record.opened = True
        return None

    def keep(self, record: Record) -> None:
        """Write a journal to the store from now on."""
        self._records[record.journal] = record
        record.journal.keeper = self
        record.journal.shut = self._reached and not record.opened and record.journal.end is None
        self._note(record)

    def note(self, journal: Journal) -> None:
        """Take note that something was written."""
        record = self._records[journal]
        if journal.shut and record.waiting is None:
            loop = asyncio.get_running_loop()
            record.waiting = loop.call_later(_OPENING, journal.open)
        self._note(record)

    def behind(self, journal: Journal) -> bool:
        """Whether so much is not in the store yet that the run has to wait. One that is away is not waited for."""
        return self._reached and journal.written - self._records[journal].offset > max(
            _AT_ONCE, journal.origin.buffer
        )

    def _note(self, record: Record) -> None:
        self._due[record] = None
        self._wanted.set()

    async def _write_on(self) -> None:
        while True:
            await self._wanted.wait()
            # Those who begin in one turn of the loop, and what they write in the next, go together.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self._wanted.clear()
            while self._due:
                await self._write_some()

    async def _write_some(self) -> None:
        """Write what is due, of some streams: in a frame of its own, which holds no journal while nothing is."""
        records = [record for record, _ in zip(self._due, range(_STREAMS), strict=False)]
        for record in records:
            del self._due[record]
        try:
            await self._write(records)
        except RunError as error:
            self._lose_reach(records, error)
            await asyncio.sleep(_PAUSE)
        except Exception as error:  # noqa: BLE001  (streams go on without the store)
            log.exception("streams-not-kept", reason=str(error))
            self._lose_reach(records, None)
            await asyncio.sleep(_PAUSE)

    def _lose_reach(self, records: list[Record], error: RunError | None) -> None:
        """Let the runs go on without the store; what is missing there is written when it is back."""
        if self._reached and error is not None:
            log.warning("streams-not-kept", reason=error.message)
        self._reached = False
        for record in records:
            self._due[record] = None
            record.journal.let_go()
        for record in self._records.values():
            _open(record)

    async def _write(self, records: list[Record]) -> None:
        """Write what is new of some journals, in one go."""
        writings = []
        heads: list[bool] = []
        for record in records:
            if not record.opened:
                record.have = record.journal.first
                record.headed = False
            writings.append(self._writing(record))
            heads.append("status" in writings[-1].fields)
        found = await self.store.write(writings)
        if not self._reached:
            self._reached = True
            self._renew.set()  # our lease may have been over
        for record, writing, headed, have in zip(records, writings, heads, found, strict=True):
            self._take_note(record, writing, have, headed=headed)

    def _writing(self, record: Record) -> Writing:
        journal = record.journal
        start = max(record.have, journal.first)
        frames = journal.take(start, _AT_ONCE)
        fields: dict[str, bytes | str | int] = {}
        if journal.head is not None and not record.headed:
            fields |= {"status": journal.head.status, "lines": journal.head.lines}
        next_ = start + len(frames)
        end = b""
        if journal.end is not None and next_ == journal.next:
            end = write_end(journal.end)
        resume = journal.origin.resume
        seconds = resume.keep + spare_of(resume) if end else record.lasting
        return Writing(
            journal.origin.id,
            record.have,
            next_ if frames else record.have,
            journal.first,
            frames,
            seconds,
            fields,
            end,
            record.key,
            None if record.opened else fields_of(record, self.store.worker),
        )

    def _take_note(self, record: Record, writing: Writing, have: object, *, headed: bool) -> None:
        journal = record.journal
        if not isinstance(have, int):
            self._note(record)
            return
        if have < 0:
            # It was taken for lost, and its readers elsewhere were told so; or the store has lost it, and nobody there
            # knows of it any more. Nothing is to be added: it goes on for the readers of this process.
            reason = "the store has lost it" if have == -1 else "it was taken for lost"
            origin = journal.origin
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
        record.offset = journal.offset_of(have)
        journal.let_go()
        if record.due:
            self._note(record)

    def _drop(self, record: Record) -> None:
        self._due.pop(record, None)
        self._records.pop(record.journal, None)
        record.journal.keeper = None
        record.journal.let_go()
        _open(record)

    # ------------------------------------------------------------- who is there

    async def _live(self) -> None:
        """Say again and again that this process lives, and hear what it is told."""
        while True:
            self._renew.clear()
            try:
                for message in await self.store.renew():
                    self._hear(message)
                    self._renew.set()  # there may be more: some are read at a time
                await self._take_back()
            except RunError:
                self._miss()
                await asyncio.sleep(_PAUSE)
                continue
            except Exception as error:  # noqa: BLE001  (the next time may go well)
                log.exception("lease-not-renewed", reason=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEWAL):
                    await self._renew.wait()

    def _miss(self) -> None:
        """Take note that the store is, or was, away."""
        self._missed_at = monotonic()
        self._renew.set()

    async def find(self, name: str) -> Elsewhere | None:
        """Return a stream that another process writes, or wrote. Raises RunError ``state-unreachable``.

        Just after the store was away, what began meanwhile is waited for: its process is about to write it.
        """
        while True:
            found = read_fields(name, await self.store.fields(name))
            if found is not None or monotonic() > self._missed_at + _SETTLING:
                return found
            await asyncio.sleep(_PAUSE)

    async def _take_back(self) -> None:
        """Forget streams that were to begin by a key, and nobody knows whether the store has them: no run is theirs."""
        while names := self.doubtful[:_STREAMS]:
            await self.store.forget(names)
            del self.doubtful[: len(names)]

    def _hear(self, message: bytes) -> None:
        try:
            told = orjson.loads(message)
        except orjson.JSONDecodeError:
            return
        if isinstance(told, dict):
            self._told(told)


def _open(record: Record) -> None:
    """Let the readers of a journal have what is written: others can find it, or the store is away."""
    if record.waiting is not None:
        record.waiting.cancel()
        record.waiting = None
    record.journal.open()


def _ignore(told: dict[str, Any]) -> None:
    """Hear nothing, before there is anybody to."""
