"""The run of a resumable stream: how it begins, once for each request or idempotency key, and the task it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from streamstack.errors import RunError
from streamstack.records import fast_dataclass
from streamstack.runtime.run import Run
from streamstack.server.access import RateLimitTicket
from streamstack.server.bodies import Arriving
from streamstack.server.deadlines import RunTimer
from streamstack.server.endpoints import EndpointHandler
from streamstack.server.request_log import error_of, fail, outcome_of
from streamstack.server.resume.log import Origin, StreamLog
from streamstack.server.resume.reader import DeliveryOptions, LogReader
from streamstack.server.resume.request import StreamCopy, find, fingerprint_of, key_of, name_of, owner_of, read
from streamstack.server.resume.sink import ResumableSink
from streamstack.server.resume.store import RemoteStream, Replication, SharedStore, ttl_of
from streamstack.server.resume.streams import ResumableStream

if TYPE_CHECKING:
    from streamstack.server.service import Service


@fast_dataclass()
class RunInputs:
    """What a run is given: its inputs, what deletes the files among them, its body where that still arrives.

    ``let`` holds its places among the runs that may be under way at once.
    """

    inputs: dict[str, Any]
    close: Callable[[], None] | None
    arriving: Arriving | None = None
    let: RateLimitTicket | None = None

    def release(self) -> None:
        """Take no more notice of a body that still arrives, and give the places back."""
        if self.arriving is not None:
            self.arriving.end()
        if self.let is not None:
            self.let.leave()

    def with_files_closed(self) -> RunInputs:
        """Delete the files now."""
        if self.close is not None:
            self.close()
        return replace(self, close=None)


#: The inputs of a run that has not asked for any yet.
NOTHING = RunInputs({}, None)


async def produce(
    service: Service,
    served: EndpointHandler,
    run: Run,
    sink: ResumableSink,
    stream: ResumableStream,
    run_inputs: RunInputs,
) -> None:
    """Run an endpoint's stack, write into the log, and end it whatever happens."""
    life = stream.life = RunTimer(sink, served.limits, service.lives, served.row)
    outcome = ended = "failed"
    error: RunError | None = None
    try:
        try:
            if served.headers is not None:
                sink.headers += served.headers(run, run_inputs.inputs)
            sink.finish(await life.attend(served.start(run, run_inputs.inputs)))
            outcome = ended = "completed"
        except asyncio.CancelledError:
            error = life.stopped()
            if error is None:
                outcome, ended = "cancelled", "shutdown"
                error = RunError("producer-lost", "the server is shutting down")
                fail(served, run, sink, error)
                raise
            if error.code == "stopped":
                outcome = "cancelled"
            ended = outcome_of(error, sink, life.reason)
            fail(served, run, sink, error)
        except Exception as raised:  # noqa: BLE001  (one run must not end the service's group)
            error = error_of(raised)
            ended = outcome_of(error, sink, None)
            fail(served, run, sink, error)
    finally:
        life.end()
        stream.life = None
        run_inputs.release()
        service.leave(life)
        service.ended(served, sink, ended, error, life)
        service.after(run, outcome, run_inputs.close)


async def begin(
    service: Service, served: EndpointHandler, run: Run, sink: ResumableSink, run_inputs: RunInputs
) -> StreamCopy:
    """Begin a stream and its run, or go on with the one that the request's key began.

    Raises RunError ``idempotency-key-reused``, and ``state-unreachable`` for a key that can't be looked up.
    """
    beginning = _Start(service, served, run, sink, run_inputs)
    key = key_of(sink.request)
    return beginning.start() if key is None else await beginning.start_once(key)


@dataclass(slots=True)
class _Start:
    """A request that begins a stream. ``name`` is what its key is known by, ``fingerprint`` what it asks for."""

    service: Service
    served: EndpointHandler
    run: Run
    sink: ResumableSink
    run_inputs: RunInputs
    name: bytes = b""
    fingerprint: str = ""

    async def start_once(self, key: str) -> StreamCopy:
        """Begin the run of a key, or read the one that it began."""
        sink, streams = self.sink, self.service.streams
        self.name = name_of(owner_of(self.run.auth), self.served.title, key)
        self.fingerprint = await fingerprint_of(sink.request, self.run_inputs.inputs)
        known: ResumableStream | RemoteStream | None = streams.begun_by(self.name)
        if known is None:
            if streams.shared is None:
                return self.start()
            # Whether or not the reader stays: what was claimed has to be run.
            sink.handed = True
            claiming = self.service.spawn(self._claim(streams.shared))
            claimed = await asyncio.shield(claiming)
            if claimed is None:
                return self._reader(sink.log)
            if isinstance(claimed, RunError):
                raise claimed
            known = claimed
        if known.fingerprint != self.fingerprint:
            raise RunError(
                "idempotency-key-reused", "this Idempotency-Key began a run with another request: take a new key"
            )
        return read(self.service, known, sink.request, sink.cors, 0)

    async def _claim(self, shared: SharedStore) -> ResumableStream | RemoteStream | RunError | None:
        """Begin the run, or return the stream of the one that another process began, or why neither is to be had."""
        record = self._record(self._new_log())
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
                self.run_inputs.release()
                self.run_inputs.with_files_closed()

    def start(self, record: Replication | None = None) -> StreamCopy:
        """Begin a stream and its run; return its first reader."""
        service, sink = self.service, self.sink
        streams = service.streams
        stream_log = self._new_log() if record is None else record.log
        stream = ResumableStream(
            streams, stream_log, DeliveryOptions.of(stream_log.origin), self.name or None, self.fingerprint
        )
        sink.attach_log(stream_log)
        sink.handed = True
        streams.add(stream)
        if streams.shared is not None:
            streams.shared.replicate(record or self._record(stream_log))
        stream.task = service.spawn(produce(service, self.served, self.run, sink, stream, self.run_inputs))
        if self.name:
            stream.readers_left()  # until its reader is attached: the client may have gone meanwhile
        return self._reader(stream_log)

    def _reader(self, stream_log: StreamLog) -> StreamCopy:
        sink = self.sink
        return LogReader(stream_log, sink.request, sink.cors, DeliveryOptions.of(stream_log.origin), 0)

    def _new_log(self) -> StreamLog:
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
            served.policy,
        )
        return StreamLog(origin)

    def _record(self, stream_log: StreamLog) -> Replication:
        limits, resume = self.served.limits, stream_log.origin.resume
        ttl = ttl_of(resume, (limits.first_chunk, limits.idle))
        value = f"{stream_log.origin.id} {self.fingerprint}" if self.name else ""
        return Replication(stream_log, ttl, self.name, value)
