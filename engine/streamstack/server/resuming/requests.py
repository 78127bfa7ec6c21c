"""Requests to resumable streams: those that begin one, that come back to one, and that stop one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from streamstack.errors import RunError
from streamstack.runtime.run import Run
from streamstack.server.heads import header_lines
from streamstack.server.negotiation import takes
from streamstack.server.problems import RefusalError
from streamstack.server.replies import Sent, send
from streamstack.server.resuming.asked import (
    bad_key,
    fingerprint_of,
    key_of,
    last_seen,
    name_of,
    owner_of,
    resumed_at,
)
from streamstack.server.resuming.ids import STREAM_ID, unknown_stream
from streamstack.server.resuming.journal import MOST_READERS, Journal, Origin
from streamstack.server.resuming.producing import Given, produce
from streamstack.server.resuming.reader import Manner, Reader
from streamstack.server.resuming.sinks import Kept
from streamstack.server.resuming.streams import Stream, stopped
from streamstack.server.served import Served
from streamstack.server.writers.answer import Answer

if TYPE_CHECKING:
    from streamstack.server.service import Service

#: Where streams are read and stopped: this path and the stream's id.
PREFIX = "/_streams/"
METHODS = ["DELETE", "GET", "HEAD", "OPTIONS"]


class Source(Protocol):
    """A stream, copied to one reader."""

    async def copy(self) -> Sent:
        """Copy it to its end. Cancelled when the reader leaves."""


class Nothing:
    """A stream that was read to its end: 204, which tells an EventSource to stop asking."""

    __slots__ = ("_cors", "_request")

    def __init__(self, request: web.BaseRequest, cors: bytes) -> None:
        self._request = request
        self._cors = cors

    async def copy(self) -> Sent:
        """Say so."""
        return send(self._request, 204, b"Cache-Control: no-store\r\n" + self._cors, b"")


async def come_back(service: Service, served: Served, run: Run, answer: Answer) -> Source | None:
    """Return the stream that a request to its endpoint goes on with; None where it begins anew.

    Raises RunError ``unknown-stream``, ``not-acceptable``, and ``invalid-input`` for a key that nothing could go on
    from.
    """
    request = answer.request
    position = last_seen(request)
    if position is None:
        if not answer.keeps and key_of(request) is not None:
            raise bad_key("needs an answer that can be read again: text/event-stream or NDJSON")
        return None
    stream = service.streams.find(position.stream)
    if stream is None or stream.origin.endpoint != served.title:
        raise unknown_stream()
    _check_owner(stream.origin, owner_of(run.auth))
    return _read(stream, request, answer.cors, position.number + 1)


async def begin(
    service: Service, served: Served, run: Run, sink: Kept, given: Given
) -> tuple[Source, bool]:
    """Begin a stream and its run, or go on with the one that the request's key began; tell whether it is new.

    Raises RunError ``idempotency-key-reused``.
    """
    request = sink.request
    owner = owner_of(run.auth)
    key = key_of(request)
    name, fingerprint = None, b""
    if key is not None:
        name = name_of(owner, served.title, key)
        fingerprint = await fingerprint_of(request, given.inputs)
        known = service.streams.begun_by(name)
        if known is not None:
            if known.fingerprint != fingerprint:
                raise RunError(
                    "idempotency-key-reused",
                    "this Idempotency-Key began a run with another request: take a new key",
                )
            return _read(known, request, sink.cors, 0), False
    assert served.resume is not None
    origin = Origin(
        sink.stream,
        served.title,
        owner,
        sink.wire.format,
        run.id,
        served.resume,
        not served.outlives,
        sink.wire.buffer,
    )
    manner = Manner(origin.format, origin.id, origin.buffer, served.limits.idle)
    stream = Stream(service.streams, Journal(origin), served.guard, manner, name, fingerprint)
    sink.keep_in(stream.journal)
    service.streams.add(stream)
    reader = Reader(stream.journal, request, sink.cors, manner, 0)
    stream.task = service.spawn(produce(service, served, run, sink, stream, given))
    return reader, True


async def answer_streams(service: Service, request: web.BaseRequest, path: str) -> Sent:
    """Answer a request to `/_streams/{id}`. Raises RunError as `come_back` does."""
    cors = service.cors.lines(request.headers.get("Origin"))
    if request.method == "OPTIONS":
        lines = header_lines([("Allow", ", ".join(METHODS))])
        asked = request.headers.get("Access-Control-Request-Headers")
        preflight = service.cors.preflight(request.headers.get("Origin"), METHODS, asked)
        return send(request, 204, lines + preflight, b"")
    if request.method not in METHODS:
        raise RefusalError(
            "method-not-allowed",
            f"this path takes {', '.join(METHODS)}",
            lines=header_lines([("Allow", ", ".join(METHODS))]),
        )
    name = path.removeprefix(PREFIX)
    stream = service.streams.find(name) if STREAM_ID.fullmatch(name) else None
    if stream is None:
        raise unknown_stream()
    await _admit(service, request, stream)
    if request.method == "DELETE":
        await stream.stop_and_wait(stopped("the stream was stopped by its reader"))
        return send(request, 204, cors, b"")
    source = _read(stream, request, cors, resumed_at(request, name))
    if request.method == "HEAD" and isinstance(source, Reader):
        head = stream.journal.head
        lines = b"" if head is None else head.lines
        return send(request, 200 if head is None else head.status, lines + cors, None)
    return await source.copy()


async def _admit(service: Service, request: web.BaseRequest, stream: Stream) -> None:
    """Let in the caller who began the stream; to all others there is none. Raises RunError ``unknown-stream``."""
    claims = None
    if stream.guard is not None:
        try:
            claims = await stream.guard.admit(request, service.context, service.cors)
        except RunError as error:
            if error.code in ("unauthorized", "forbidden"):
                raise unknown_stream() from error
            raise
    _check_owner(stream.origin, owner_of(claims))


def _check_owner(origin: Origin, owner: str) -> None:
    if origin.owner and origin.owner != owner:
        raise unknown_stream()


def _read(stream: Stream, request: web.BaseRequest, cors: bytes, position: int) -> Source:
    """Return a reader of a stream from a chunk on.

    Raises RunError ``not-acceptable`` where the request takes another format only, ``rate-limited`` where the stream
    has readers enough.
    """
    journal = stream.journal
    if not takes(request.headers.get("Accept"), stream.origin.format):
        raise RunError("not-acceptable", f"this stream was begun as {stream.origin.format}")
    if journal.drained and position >= journal.next and position:
        return Nothing(request, cors)
    if len(journal.readers) >= MOST_READERS:
        raise RunError("rate-limited", f"this stream has {MOST_READERS} readers already")
    return Reader(journal, request, cors, stream.manner, position)
