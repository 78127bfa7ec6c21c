"""The beginning of a resumable stream: once for each request, or for each key that requests have."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamstack.errors import RunError
from streamstack.runtime.run import Run
from streamstack.server.ending import error_of
from streamstack.server.resuming.asked import fingerprint_of, key_of, name_of, owner_of
from streamstack.server.resuming.elsewhere import Elsewhere
from streamstack.server.resuming.journal import Journal, Origin
from streamstack.server.resuming.producing import Given, produce
from streamstack.server.resuming.reader import Manner, Reader
from streamstack.server.resuming.recording import Record, lasting_of
from streamstack.server.resuming.requests import Source, find, read
from streamstack.server.resuming.shared import Shared
from streamstack.server.resuming.sinks import ResumableSink
from streamstack.server.resuming.streams import Stream
from streamstack.server.served import Served

if TYPE_CHECKING:
    from streamstack.server.service import Service


async def begin(
    service: Service, served: Served, run: Run, sink: ResumableSink, given: Given
) -> Source:
    """Begin a stream and its run, or go on with the one that the request's key began.

    Raises RunError ``idempotency-key-reused``, and ``state-unreachable`` for a key that can't be looked up.
    """
    beginning = _Beginning(service, served, run, sink, given)
    key = key_of(sink.request)
    return beginning.start() if key is None else await beginning.start_once(key)


@dataclass(slots=True)
class _Beginning:
    """A request that begins a stream. ``name`` is what its key is known by, ``fingerprint`` what it asks for."""

    service: Service
    served: Served
    run: Run
    sink: ResumableSink
    given: Given
    name: bytes = b""
    fingerprint: str = ""

    async def start_once(self, key: str) -> Source:
        """Begin the run of a key, or read the one that it began."""
        sink, streams = self.sink, self.service.streams
        self.name = name_of(owner_of(self.run.auth), self.served.title, key)
        self.fingerprint = await fingerprint_of(sink.request, self.given.inputs)
        known: Stream | Elsewhere | None = streams.begun_by(self.name)
        if known is None:
            if streams.shared is None:
                return self.start()
            # Whether or not the reader stays: what was claimed has to be run.
            sink.handed = True
            claiming = self.service.spawn(self._claim(streams.shared))
            claimed = await asyncio.shield(claiming)
            if claimed is None:
                return self._reader(sink.journal)
            if isinstance(claimed, RunError):
                raise claimed
            known = claimed
        if known.fingerprint != self.fingerprint:
            raise RunError(
                "idempotency-key-reused",
                "this Idempotency-Key began a run with another request: take a new key",
            )
        return read(self.service, known, sink.request, sink.cors, 0)

    async def _claim(self, shared: Shared) -> Stream | Elsewhere | RunError | None:
        """Begin the run, or return the stream of the one that another process began, or why neither is to be had."""
        record = self._record(self._journal())
        started = False
        try:
            found = await shared.claim(record)
            if found is None:
                started = True
                self.start(record)
                return None
            other = await find(self.service.streams, found.partition(" ")[0])
            if other is None:
                return RunError("unavailable", "the run of this key is over: ask again", status=503)
            return other
        except Exception as error:  # noqa: BLE001  (it would end the service's group)
            return error_of(error)
        finally:
            if not started:
                self.given.hear_no_more()
                self.given.closed()

    def start(self, record: Record | None = None) -> Source:
        """Begin a stream and its run; return its first reader."""
        service, sink = self.service, self.sink
        streams = service.streams
        journal = self._journal() if record is None else record.journal
        stream = Stream(
            streams,
            journal,
            Manner.of(journal.origin),
            self.name or None,
            self.fingerprint,
        )
        sink.keep_in(journal)
        sink.handed = True
        streams.add(stream)
        if streams.shared is not None:
            streams.shared.keep(record or self._record(journal))
        stream.task = service.spawn(
            produce(service, self.served, self.run, sink, stream, self.given)
        )
        if self.name:
            stream.left()  # until its reader is there: he may have gone meanwhile
        return self._reader(journal)

    def _reader(self, journal: Journal) -> Source:
        sink = self.sink
        return Reader(journal, sink.request, sink.cors, Manner.of(journal.origin), 0)

    def _journal(self) -> Journal:
        served, sink = self.served, self.sink
        assert served.resume is not None
        owner = owner_of(self.run.auth)
        origin = Origin(
            sink.stream,
            served.title,
            owner,
            sink.wire.format,
            self.run.id,
            served.resume,
            not served.outlives,
            sink.wire.buffer,
            served.terms,
        )
        return Journal(origin)

    def _record(self, journal: Journal) -> Record:
        limits, resume = self.served.limits, journal.origin.resume
        lasting = lasting_of(resume, (limits.first_chunk, limits.idle))
        value = f"{journal.origin.id} {self.fingerprint}" if self.name else ""
        return Record(journal, lasting, self.name, value)
