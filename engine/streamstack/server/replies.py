"""Whole responses: errors as problem documents, small answers."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from streamstack.errors import ERRORS, INTERNAL, Place, RunError
from streamstack.language.keys import METHODS
from streamstack.language.masking import masked
from streamstack.language.values import to_json
from streamstack.server.headers import BODILESS, date_line, header_lines, phrase, status_line

if TYPE_CHECKING:
    from streamstack.server.request import Request
    from streamstack.server.response import ResponseSink


log = structlog.get_logger("streamstack.server")

CONTENT_TYPE = "application/problem+json"


class RefusalError(RunError):
    """An error whose answer has header lines of its own: `WWW-Authenticate`, `Retry-After`."""

    def __init__(self, code: str, message: str, *, status: int | None = None, lines: bytes = b"") -> None:
        super().__init__(code, message, status=status)
        self.lines = lines


def problem(error: RunError, run: str | None, status: int, *, dev: bool = False) -> bytes:
    """Return the problem document of an error: inside knowledge only with ``dev``."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": phrase(status) or "Error",
        "status": status,
        "detail": _message(error, dev=dev),
        "code": error.code,
    }
    if run is not None:
        document["run"] = run
    if error.code == "invalid-input" and isinstance(error.details, list):
        document["errors"] = error.details
    if dev and error.place is not None:
        document["place"] = place_of(error.place)
    return _safe(document)


def in_band(error: RunError, run: str, *, dev: bool = False) -> dict[str, Any]:
    """Return the error that a client receives after the commit point."""
    fields: dict[str, Any] = {"code": error.code, "message": _message(error, dev=dev), "run": run}
    if dev and error.place is not None:
        fields["place"] = place_of(error.place)
    return fields


def _message(error: RunError, *, dev: bool) -> str:
    """Return what a client reads of an error, without secrets; an author's own words may look like some."""
    return masked(error.full if dev else error.public, forms=error.code in ERRORS)


def place_of(place: Place) -> dict[str, Any]:
    """Return a place of a definition as an object, for its author."""
    return {
        "file": place.mark.file,
        "line": place.mark.line,
        "column": place.mark.column,
        "step": place.step,
        "path": place.path,
        "expression": place.expression,
        "types": place.types,
    }


def report(error: RunError, *, run: str, endpoint: str, sent: int, **about: Any) -> None:
    """Log an error of a run with its place, and more ``about`` it. ``sent`` is the chunks that went before."""
    if isinstance(error, RefusalError) and error.code == "unavailable":
        return  # what is out of reach has told so itself, once for all whom it keeps out
    place = error.place
    fields: dict[str, Any] = {
        "run": run,
        "endpoint": endpoint,
        "code": error.code,
        "message": error.full,
        "chunks": sent,
        **about,
    }
    fields |= error.about
    if place is not None:
        fields |= {"place": str(place.mark), "step": place.step, "path": place.path}
        if place.expression:
            fields["expression"] = place.expression
        if place.types:
            fields["types"] = place.types
    if error.code == "internal":
        log.error("run-failed", exc_info=error.__cause__, **fields)
    elif is_fault(error):
        log.error("run-failed", **fields)
    else:
        log.debug("run-refused", **fields)


def is_fault(error: RunError) -> bool:
    """Tell whether an error is the server's or its author's fault, not that of who asked, nor the author's `throw`."""
    return error.status >= 500 or error.code in INTERNAL


def internal(cause: BaseException) -> RunError:
    """Wrap an exception that no part of the engine should have let out."""
    error = RunError("internal", f"{type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error


def _safe(document: dict[str, Any]) -> bytes:
    try:
        return to_json(document)
    except RunError:
        # Details that have no JSON must not hide the error itself.
        document.pop("errors", None)
        return to_json(document)


#: Seconds a client may take nothing of an answer, where its endpoint says nothing.
UNREAD = 75.0
#: Seconds a client has for the rest, once the connection is being closed.
LAST_BYTES = 30.0

_HTTP_10 = (1, 0)
#: Bytes of a body that may stay where they are until the next request comes.
_SMALL: Final = 4096
#: Headers of the connection and the framing, which are always ours.
_OURS: Final = frozenset({"connection", "content-length", "date", "transfer-encoding"})
#: What stands above a document of JSON that tells how things are just now.
JSON: Final = b"Content-Type: application/json; charset=utf-8\r\nCache-Control: no-store\r\n"
#: What stands above every problem document.
_PROBLEM = b"Content-Type: %b\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n" % CONTENT_TYPE.encode()


class Sent:
    """How a request was answered: what was written already, or what is still to be written."""

    __slots__ = ()


class _Written(Sent):
    """An answer that was written; how the connection goes on after it."""


#: The connection goes on with the next request.
KEEP: Final = _Written()
#: The connection is closed once everything is sent.
CLOSE: Final = _Written()


class Response(web.StreamResponse):
    """What aiohttp is given for an answer whose bytes we write ourselves, head and framing included."""

    def __init__(self, request: Request, status: int, *, keep: bool) -> None:
        super().__init__(status=status)
        self.request = request
        self.keep = keep
        self.written = 0  # bytes of the body
        self.ended = False

    # The parent's are properties, too.
    @property
    def keep_alive(self) -> bool:
        return self.keep

    def force_close(self) -> None:
        """Have the connection closed after the response."""
        self.keep = False

    @property
    def prepared(self) -> bool:
        return self.ended

    @property
    def body_length(self) -> int:
        return self.written

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do nothing: the head leaves with the body."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Refuse to send more: the response is complete."""
        raise RuntimeError("this response can't be written to")

    async def write_eof(self, data: bytes | bytearray | memoryview = b"") -> None:
        """End the response."""
        if self.ended:
            return
        self.ended = True
        request = self.request
        protocol = request.protocol
        transport = protocol.transport
        if transport is None:
            self.keep = False
        else:
            self.send(transport)
            if protocol.writing_paused:
                await self.settle()
            if not self.keep and transport.get_write_buffer_size():
                # Closed once all is sent; a reader who leaves the rest where it is does not hold it open.
                asyncio.get_running_loop().call_later(LAST_BYTES, transport.abort)
        wire = request.raw.content
        if wire.total_bytes > _SMALL and wire.is_eof() and wire.exception() is None:
            wire.read_nowait()  # an unread body is dropped before the next request
        if request.under is not None:
            request.under.end()

    def send(self, transport: asyncio.Transport) -> None:
        """Write what is not written yet."""

    async def settle(self) -> None:
        """Wait until the client has taken what was written; one that takes nothing is dropped."""
        try:
            async with asyncio.timeout(UNREAD):
                await self.request.room()
        except TimeoutError:
            self.keep = False
            if (transport := self.request.transport) is not None:
                reset(transport)


class Streamed(Response):
    """An answer that was written while its run went on."""

    @property
    def prepared(self) -> bool:
        return True


class Whole(Response, Sent):
    """An answer in one piece. ``lines`` are header lines; without a body it has no length either."""

    def __init__(self, request: Request, status: int, lines: bytes, body: bytes | None, *, keep: bool) -> None:
        super().__init__(request, status, keep=keep)
        self.lines = lines
        self.content = body
        self.wait_for_reader: Callable[[], Awaitable[None]] | None = None  # waits for a slow reader
        self.answer: ResponseSink | None = None  # what made it

    def show_headers(self) -> None:
        """Put the header lines where middlewares look for headers, and may change them."""
        lines, self.lines = self.lines, b""
        for line in lines.decode("utf-8", "replace").split("\r\n")[:-1]:
            name, _, value = line.partition(": ")
            self.headers.add(name, value)

    def send(self, transport: asyncio.Transport) -> None:
        """Write the answer. What has no transport any more is not written: the reader has gone."""
        request, body, status = self.request, self.content, self.status
        # After an unread body the connection can't be used again.
        keep = self.keep = self.keep and request.reusable
        if transport.is_closing():
            self.keep = False
            return
        bare = body is None or status in BODILESS
        own = self.own_lines() if request.hosted else b""
        data = b"".join(
            (
                status_line(status),
                self.lines,
                own,
                b"" if body is None or bare else b"Content-Length: %d\r\n" % len(body),
                date_line(),
                connection_line(request, keep=keep),
                b"\r\n",
                b"" if body is None or bare or request.method == "HEAD" else body,
            )
        )
        self.written = len(data)
        transport.write(data)

    def own_lines(self) -> bytes:
        """Return the header lines that the host application has added or changed."""
        headers = [each for each in self.headers.items() if each[0].lower() not in _OURS]
        return self.request.extra + header_lines(headers) + cookie_lines(self)

    async def write_eof(self, data: bytes | bytearray | memoryview = b"") -> None:
        """Send the response."""
        await super().write_eof(data)
        answer, self.answer, self.wait_for_reader = self.answer, None, None
        if answer is not None:
            # It and its run hold each other: none of this is to wait for the garbage collector.
            del answer.run

    async def settle(self) -> None:
        await (super().settle() if self.wait_for_reader is None else self.wait_for_reader())


def cookie_lines(response: web.StreamResponse) -> bytes:
    """Return the cookies that a middleware or a signal has set, as header lines."""
    return b"".join(f"Set-Cookie: {each.OutputString()}\r\n".encode() for each in response.cookies.values())


def connection_line(request: Request, *, keep: bool) -> bytes:
    """Return the Connection header, where the version's own rule has to be overridden."""
    if keep:
        return b"Connection: keep-alive\r\n" if request.version == _HTTP_10 else b""
    return b"Connection: close\r\n"


def send(request: Request, status: int, lines: bytes, body: bytes | None, *, keep: bool = True) -> Whole:
    """Return a whole answer: status, header lines, body. A HEAD request gets no body.

    Without a body the length is left out: it is unknown.
    """
    return Whole(request, status, lines, body, keep=keep)


def error_lines(error: RunError) -> bytes:
    """Return the header lines that an error has of its own."""
    lines = error.lines if isinstance(error, RefusalError) else b""
    # A busy upstream knows when to try again: the client learns it, too.
    if error.code in ("rate-limited", "http-status") and error.retry_after is not None:
        lines += b"Retry-After: %d\r\n" % max(1, ceil(error.retry_after))
    return lines


def problem_lines(run: str | None) -> bytes:
    """Return the header lines of a problem document."""
    head = _PROBLEM
    return head if run is None else head + b"X-Run-Id: %b\r\n" % run.encode()


def send_problem(
    request: Request,
    error: RunError,
    *,
    run: str | None = None,
    lines: bytes = b"",
    dev: bool = False,
    keep: bool = True,
) -> Whole:
    """Return an error as a problem document, with further header lines."""
    head = problem_lines(run)
    status = status_of(error)
    return send(request, status, head + lines, problem(error, run, status, dev=dev), keep=keep)


def status_of(error: RunError) -> int:
    """Return the status of an error, which never looks like success."""
    return error.status if 400 <= error.status <= 599 else 500


#: The methods that endpoints can have, where the path is not known.
ALLOW: Final = b"Allow: %b\r\n" % ", ".join(METHODS).encode()


def problem_alone(error: RunError) -> bytes:
    """Return a problem document as the whole answer on a connection that is then closed, whatever was asked."""
    body = problem(error, None, error.status)
    return b"".join(
        (
            status_line(error.status),
            _PROBLEM,
            b"Retry-After: 1\r\n" if error.status == HTTPStatus.SERVICE_UNAVAILABLE else b"",
            ALLOW if error.status == HTTPStatus.METHOD_NOT_ALLOWED else b"",
            b"Content-Length: %d\r\n" % len(body),
            date_line(),
            b"Connection: close\r\n\r\n",
            body,
        )
    )


def reset(transport: Any) -> None:
    """Close a connection so that the reader sees a failure, whatever it knows of the length."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # Linger for 0 seconds: close by RST instead of FIN (SO_LINGER, socket(7)). It may be closed already.
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
