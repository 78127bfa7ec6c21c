"""Requests to endpoints with `resume`, and to `/_streams/{id}`: they begin, resume, read or stop a stream."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qsl, urlencode

from streamstack.errors import RunError, fast_dataclass
from streamstack.formats import BY_NAME
from streamstack.language.values import Opaque, to_json
from streamstack.runtime.coercion import invalid_input
from streamstack.runtime.run import Run
from streamstack.runtime.values import File
from streamstack.server.access import RateLimitTicket, owner_of
from streamstack.server.bodies import StreamedBody
from streamstack.server.deadlines import RunTimer
from streamstack.server.endpoints import EndpointHandler
from streamstack.server.headers import header_lines
from streamstack.server.replies import JSON, RefusalError, Sent, send
from streamstack.server.request import Request
from streamstack.server.request_log import error_of, fail, outcome_of
from streamstack.server.response import ResponseSink
from streamstack.server.response_options import takes
from streamstack.server.resume.log import (
    LAST,
    MOST_READERS,
    STREAM_ID,
    Origin,
    Position,
    ResumableSink,
    StreamLog,
    bad_position,
    read_position,
    unknown_stream,
)
from streamstack.server.resume.store import RemoteStream, Replication, SharedStore, ttl_of
from streamstack.server.resume.streams import LogReader, RemoteReader, ResumableStream, StreamRegistry, stop
from streamstack.server.websocket import (
    MessageStream,
    WebSocket,
    WebSocketOptions,
    check_origin,
    upgrade_required,
    wants_upgrade,
)

if TYPE_CHECKING:
    from streamstack.server.service import Service

#: The parameter of the query that stands for the header Last-Event-ID, which an EventSource can't set.
LAST_EVENT_ID: Final = "lastEventId"

_KEY: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
#: Methods that a key has no meaning for: to ask again is harmless.
_WITHOUT_KEY: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def last_event_id(request: Request) -> Position | None:
    """Return the last chunk that a request to an endpoint names; None where it starts a new stream.

    Raises RunError ``unknown-stream`` for an invalid id: a new run would send everything twice.
    """
    text = request.headers.get("Last-Event-ID", "").strip()
    if not text and LAST_EVENT_ID in request.rel_url.raw_query_string:
        text = _queried(request, LAST_EVENT_ID).strip()
    if not text:
        return None
    position = read_position(text)
    if position is None or not position.stream:
        raise unknown_stream()
    return position


def first_needed(request: Request, stream: str) -> int:
    """Return the number of the chunk that a reader of a stream needs first.

    The header counts before the query: an EventSource keeps the query it began with. Raises RunError
    ``invalid-input`` for what names no chunk, ``unknown-stream`` for another stream's.
    """
    for name, place, text in (
        ("Last-Event-ID", "header", request.headers.get("Last-Event-ID", "")),
        ("after", "query", _queried(request, "after")),
        (LAST_EVENT_ID, "query", _queried(request, LAST_EVENT_ID)),
    ):
        if not text.strip():
            continue
        position = read_position(text)
        if position is None:
            raise bad_position(name, place)
        if position.stream and position.stream != stream:
            raise unknown_stream()
        return position.number + 1
    return 0


def _queried(request: Request, name: str) -> str:
    query = request.rel_url.raw_query_string
    if name not in query:
        return ""
    found = [value for key, value in parse_qsl(query, keep_blank_values=True) if key == name]
    return found[-1] if found else ""


def key_of(request: Request) -> str | None:
    """Return the Idempotency-Key of a request, with or without its quotes.

    (https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/) Raises RunError ``invalid-input``.
    """
    if request.method in _WITHOUT_KEY:
        return None
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return None
    key = keys[0].strip()
    if len(key) > 1 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if len(keys) > 1 or not _KEY.fullmatch(key):
        raise invalid_key("must be one text of 1 to 255 visible characters")
    return key


def invalid_key(message: str) -> RunError:
    """Return the error of a key that can't be taken."""
    return invalid_input("header", "Idempotency-Key", message)


def name_of(owner: str, endpoint: str, key: str) -> bytes:
    """Return what a key is known by: it is its owner's, at one endpoint."""
    return hashlib.sha256(to_json([owner, endpoint, key])).digest()


async def fingerprint_of(request: Request, inputs: Mapping[str, Any]) -> str:
    """Return what two requests with one key have to have in common: their path, query and inputs.

    Of a file its content counts, not how its form was cut; of a body that is read as it arrives, nothing.
    """
    digest = hashlib.sha256()
    query = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
    rest = urlencode([pair for pair in query if pair[0] != LAST_EVENT_ID])
    digest.update(to_json([request.method, request.rel_url.raw_path, rest]))
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/"):
        digest.update(request.body_bytes)
    for name in sorted(inputs):
        digest.update(b"\0%b\0" % name.encode())
        await _add(digest, inputs[name])
    return digest.hexdigest()


class Digest(Protocol):
    """What takes bytes, as the hashes of hashlib do."""

    def update(self, data: bytes, /) -> None: ...


async def _add(digest: Digest, value: Any) -> None:
    if isinstance(value, File):
        digest.update(to_json([value.name, value.content_type, value.size]))
        async for piece in value.pieces():
            digest.update(piece)
    elif isinstance(value, list):
        digest.update(b"[%d" % len(value))
        for item in value:
            await _add(digest, item)
    elif isinstance(value, dict):
        digest.update(b"{%d" % len(value))
        for key in sorted(value):
            digest.update(to_json(key))
            await _add(digest, value[key])
    elif not isinstance(value, Opaque):
        digest.update(to_json(value))


#: Where streams are read and stopped: this path and the stream's id.
PREFIX = "/_streams/"
METHODS = ["DELETE", "GET", "HEAD", "OPTIONS"]


class StreamCopy(Protocol):
    """A stream, copied to one reader."""

    async def copy(self) -> Sent:
        """Copy it to its end. Cancelled when the reader leaves."""


class NoContent:
    """A stream that was read to its end: 204, which tells an EventSource to stop asking."""

    __slots__ = ("_cors", "_request")

    def __init__(self, request: Request, cors: bytes) -> None:
        self._request = request
        self._cors = cors

    async def copy(self) -> Sent:
        """Say so."""
        return send(self._request, 204, b"Cache-Control: no-store\r\n" + self._cors, b"")


async def find_resumed(service: Service, served: EndpointHandler, run: Run, answer: ResponseSink) -> StreamCopy | None:
    """Return the stream that a request to an endpoint resumes; None where it starts a new one.

    Raises RunError ``unknown-stream``, ``not-acceptable``, and ``invalid-input`` for a key that nothing could go on
    from.
    """
    request = answer.request
    position = last_event_id(request)
    if position is None:
        if not answer.resumable and key_of(request) is not None:
            raise invalid_key("needs an answer that can be read again: text/event-stream or NDJSON")
        return None
    stream = await find(service.streams, position.stream)
    if stream is None or stream.origin.endpoint != served.title:
        raise unknown_stream()
    _check_owner(stream.origin, owner_of(run.auth))
    return read(service, stream, request, answer.cors, position.number + 1)


async def find(streams: StreamRegistry, name: str) -> ResumableStream | RemoteStream | None:
    """Return a stream by its id, wherever it is; None where there is none.

    Raises RunError ``state-unreachable``.
    """
    stream, shared = streams.find(name), streams.shared
    if stream is not None or shared is None or not STREAM_ID.fullmatch(name):
        return stream
    return await shared.find(name)


async def answer_streams(service: Service, request: Request, path: str) -> Sent:
    """Answer a request to `/_streams/{id}`. Raises RunError as `find_resumed` does."""
    cors = service.cors.lines(request.headers.get("Origin"))
    if request.method == "OPTIONS":
        lines = header_lines([("Allow", ", ".join(METHODS))])
        requested = request.headers.get("Access-Control-Request-Headers")
        preflight = service.cors.preflight(request.headers.get("Origin"), METHODS, requested)
        return send(request, 204, lines + preflight, b"")
    if request.method not in METHODS:
        raise RefusalError(
            "method-not-allowed",
            f"this path takes {', '.join(METHODS)}",
            lines=header_lines([("Allow", ", ".join(METHODS))]),
        )
    name = path.removeprefix(PREFIX)
    service.share()  # another process may have it, though no endpoint here keeps any
    stream = await find(service.streams, name)
    if stream is None:
        raise unknown_stream()
    await _authorize(service, request, stream.origin)  # whatever is served there by now
    if request.method == "DELETE":
        if await (service.jobs.cancel(name) if stream.origin.job else stop(service.streams, stream)) is not False:
            return send(request, 204, cors, b"")
        return send(request, 202, JSON + cors, b'{"status":"stopping"}')
    source = read(service, stream, request, cors, first_needed(request, name))
    if request.method == "HEAD" and not isinstance(source, NoContent):
        return send(request, *_head(stream, cors), None)
    return await source.copy()


def _head(stream: ResumableStream | RemoteStream, cors: bytes) -> tuple[int, bytes]:
    """Return the status and the header lines of an answer; of one that has not begun, what is known."""
    if isinstance(stream, RemoteStream):
        return stream.status, (stream.lines or b"") + cors
    head = stream.log.head
    return (200, cors) if head is None else (head.status, head.lines + cors)


async def _authorize(service: Service, request: Request, origin: Origin) -> None:
    """Admit only the caller that began the stream. Raises RunError ``unknown-stream`` for all others."""
    claims = None
    guard = origin.policy.guard(service.context.authentication)
    if guard is not None:
        try:
            claims = await guard.admit(request, service.context, service.cors)
        except RunError as error:
            if error.code in ("unauthorized", "forbidden"):
                raise unknown_stream() from error
            raise
    _check_owner(origin, owner_of(claims))


def _check_owner(origin: Origin, owner: str) -> None:
    if origin.owner and origin.owner != owner:
        raise unknown_stream()


def read(
    service: Service, stream: ResumableStream | RemoteStream, request: Request, cors: bytes, position: int
) -> StreamCopy:
    """Return a reader of a stream from a chunk on.

    Raises RunError ``not-acceptable`` where the request takes another format only, ``rate-limited`` where the stream
    has readers enough.
    """
    origin = stream.origin
    upgrades = BY_NAME[origin.format].upgrade
    if upgrades:
        _upgrade(service, request, origin)
    elif request.websocket is not None or not takes(request.headers.get("Accept"), origin.format):
        raise RunError("not-acceptable", f"this stream was begun as {origin.format}", status=406)
    end, next_ = (stream.end, stream.next) if isinstance(stream, RemoteStream) else (stream.log.end, stream.log.next)
    if end is not None and end.whole is None and not upgrades:
        # The word of a stream that was lost has a number beyond all others.
        last = LAST if end.lost else next_ - 1
        if position > max(last, 0):
            return NoContent(request, cors)
    if isinstance(stream, RemoteStream):
        assert service.streams.shared is not None
        if service.streams.count_followers(origin.id) >= MOST_READERS:
            raise _too_many_readers()
        shared = service.streams.shared
        if service.metrics is not None:
            service.metrics.reconnect(origin.endpoint)
        return RemoteReader(service, shared, stream, request, cors, position)
    if len(stream.log.readers) >= MOST_READERS:
        raise _too_many_readers()
    if service.metrics is not None:
        service.metrics.reconnect(origin.endpoint)
    return LogReader(stream.log, request, cors, position)


def _upgrade(service: Service, request: Request, origin: Origin) -> None:
    """Have a stream read over a WebSocket. Raises RefusalError."""
    if request.websocket is not None:
        return  # of the endpoint itself
    if not wants_upgrade(request):
        raise upgrade_required()
    check_origin(request, service.cors)
    policy = origin.policy
    guard = policy.guard(service.context.authentication)
    subprotocols = guard.subprotocols if guard is not None else ()
    request.websocket = WebSocket(
        request, WebSocketOptions(policy.keep_alive, subprotocols=subprotocols, compress=policy.compress)
    )


def _too_many_readers() -> RunError:
    return RunError("rate-limited", f"this stream has {MOST_READERS} readers already")


# -------------------------------------------------------------------------------------------------- runs


@fast_dataclass()
class RunInputs:
    """What a run is given: its inputs, what deletes the files among them, its body where that still arrives.

    ``ticket`` holds its places among the runs that may be under way at once.
    """

    inputs: dict[str, Any]
    close: Callable[[], None] | None
    streamed_body: StreamedBody | MessageStream | None = None
    ticket: RateLimitTicket | None = None

    def release(self) -> None:
        """Take no more notice of a body that still arrives, and give the places back."""
        if self.streamed_body is not None:
            self.streamed_body.end()
        if self.ticket is not None:
            self.ticket.release()

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
    timer = stream.run_timer = RunTimer(sink, served.limits, service.timers)
    outcome = ended = "failed"
    error: RunError | None = None
    try:
        try:
            if served.prepare is not None:
                sink.headers += served.prepare(run, run_inputs.inputs)
            sink.finish(await timer.attend(served.begin(service, run, run_inputs.inputs)))
            outcome = ended = "completed"
        except asyncio.CancelledError:
            error = timer.stopped()
            if error is None:
                outcome, ended = "cancelled", "shutdown"
                error = RunError("producer-lost", "the server is shutting down")
                fail(served, run, sink, error)
                raise
            if error.code == "stopped":
                outcome = "cancelled"
            ended = outcome_of(error, sink, timer.reason)
            fail(served, run, sink, error)
        except Exception as raised:  # noqa: BLE001  (one run must not end the service's group)
            error = error_of(raised)
            ended = outcome_of(error, sink, None)
            fail(served, run, sink, error)
    finally:
        timer.end()
        stream.run_timer = None
        run_inputs.release()
        service.discard(timer)
        service.ended(served, sink, ended, error, timer)
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
        stream = ResumableStream(streams, stream_log, self.name or None, self.fingerprint)
        sink.attach_log(stream_log)
        sink.handed = True
        streams.add(stream)
        if streams.shared is not None:
            streams.shared.replicate(record or self._record(stream_log))
        stream.task = service.spawn(produce(service, self.served, self.run, sink, stream, self.run_inputs))
        if self.name:
            stream.on_readers_gone()  # until its reader is attached: the client may have gone meanwhile
        return self._reader(stream_log)

    def _reader(self, stream_log: StreamLog) -> StreamCopy:
        sink = self.sink
        return LogReader(stream_log, sink.request, sink.cors, 0)

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
