"""Requests to resumable streams: those that begin one, that come back to one, and that stop one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from streamstack.errors import RunError
from streamstack.functions.state_use import open_redis
from streamstack.runtime.run import Context, Run
from streamstack.server.heads import header_lines
from streamstack.server.negotiation import takes
from streamstack.server.problems import RefusalError
from streamstack.server.replies import JSON, Sent, send
from streamstack.server.request import Request
from streamstack.server.resuming.asked import (
    bad_key,
    key_of,
    last_seen,
    owner_of,
    resumed_at,
)
from streamstack.server.resuming.elsewhere import Elsewhere
from streamstack.server.resuming.follower import Follower
from streamstack.server.resuming.ids import LAST, STREAM_ID, unknown_stream
from streamstack.server.resuming.journal import MOST_READERS, Origin
from streamstack.server.resuming.reader import Reader
from streamstack.server.resuming.shared import Shared
from streamstack.server.resuming.stopping import stop
from streamstack.server.resuming.streams import Stream, Streams
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

    def __init__(self, request: Request, cors: bytes) -> None:
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
    stream = await find(service.streams, position.stream)
    if stream is None or stream.origin.endpoint != served.title:
        raise unknown_stream()
    _check_owner(stream.origin, owner_of(run.auth))
    return read(service, stream, request, answer.cors, position.number + 1)


async def find(streams: Streams, name: str) -> Stream | Elsewhere | None:
    """Return a stream by its id, wherever it is; None where there is none.

    Raises RunError ``state-unreachable``.
    """
    stream, shared = streams.find(name), streams.shared
    if stream is not None or shared is None or not STREAM_ID.fullmatch(name):
        return stream
    return await shared.find(name)


async def answer_streams(service: Service, request: Request, path: str) -> Sent:
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
    service.share()  # another process may have it, though no endpoint here keeps any
    stream = await find(service.streams, name)
    if stream is None:
        raise unknown_stream()
    await _admit(service, request, stream.origin)  # whatever is served there by now
    if request.method == "DELETE":
        if await stop(service.streams, stream):
            return send(request, 204, cors, b"")
        return send(request, 202, JSON + cors, b'{"status":"stopping"}')
    source = read(service, stream, request, cors, resumed_at(request, name))
    if request.method == "HEAD" and not isinstance(source, Nothing):
        return send(request, *_head(stream, cors), None)
    return await source.copy()


def _head(stream: Stream | Elsewhere, cors: bytes) -> tuple[int, bytes]:
    """Return the status and the header lines of an answer; of one that has not begun, what is known."""
    if isinstance(stream, Elsewhere):
        return stream.status, (stream.lines or b"") + cors
    head = stream.journal.head
    return (200, cors) if head is None else (head.status, head.lines + cors)


async def _admit(service: Service, request: Request, origin: Origin) -> None:
    """Let in the caller who began the stream; to all others there is none. Raises RunError ``unknown-stream``."""
    claims = None
    guard = origin.terms.guard(service.context.authentication)
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
    service: Service,
    stream: Stream | Elsewhere,
    request: Request,
    cors: bytes,
    position: int,
) -> Source:
    """Return a reader of a stream from a chunk on.

    Raises RunError ``not-acceptable`` where the request takes another format only, ``rate-limited`` where the stream
    has readers enough.
    """
    origin = stream.origin
    if not takes(request.headers.get("Accept"), origin.format):
        raise RunError("not-acceptable", f"this stream was begun as {origin.format}", status=406)
    end, next_ = (
        (stream.end, stream.next)
        if isinstance(stream, Elsewhere)
        else (stream.journal.end, stream.journal.next)
    )
    if end is not None and end.whole is None:
        # The word of a stream that was lost has a number beyond all others.
        last = LAST if end.lost else next_ - 1
        if position > max(last, 0):
            return Nothing(request, cors)
    if isinstance(stream, Elsewhere):
        assert service.streams.shared is not None
        if service.streams.count_followers(origin.id) >= MOST_READERS:
            raise _crowded()
        shared = service.streams.shared
        return Follower(service, shared, stream, request, cors, position)
    if len(stream.journal.readers) >= MOST_READERS:
        raise _crowded()
    return Reader(stream.journal, request, cors, stream.manner, position)


def _crowded() -> RunError:
    return RunError("rate-limited", f"this stream has {MOST_READERS} readers already")


def share(
    streams: Streams,
    context: Context,
    group: asyncio.TaskGroup,
    spawn: Callable[[Coroutine[Any, Any, None]], object],
) -> None:
    """Let the processes that share a store read one another's streams."""
    streams.share(Shared(context.resource(open_redis)), group, spawn)
