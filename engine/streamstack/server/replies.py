"""Whole answers, written in one piece."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from math import ceil
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.server.heads import BODILESS, date_line, status_line
from streamstack.server.problems import CONTENT_TYPE, RefusalError, problem
from streamstack.server.request import Request

_HTTP_10 = (1, 0)
#: What stands above a document of JSON that tells how things are just now.
JSON: Final = b"Content-Type: application/json; charset=utf-8\r\nCache-Control: no-store\r\n"
#: What stands above every problem document.
_PROBLEM = (
    b"Content-Type: %b\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
    % CONTENT_TYPE.encode()
)


class Sent(Enum):
    """How the connection goes on after an answer was written."""

    KEEP = "keep"
    CLOSE = "close"


#: The connection goes on with the next request.
KEEP: Final = Sent.KEEP
#: The connection is closed once everything is sent.
CLOSE: Final = Sent.CLOSE


def connection_line(request: Request, *, keep: bool) -> bytes:
    """Return the Connection header, where the version's own rule has to be overridden."""
    if keep:
        return b"Connection: keep-alive\r\n" if request.version == _HTTP_10 else b""
    return b"Connection: close\r\n"


def send(
    request: Request, status: int, lines: bytes, body: bytes | None, *, keep: bool = True
) -> Sent:
    """Write a whole answer: status, header lines, body. A HEAD request gets no body.

    Without a body there is no length either: nobody knows it.

    What has no transport any more is not written: the reader has gone.
    """
    # A body that nobody reads to its end leaves the connection of no further use.
    keep = keep and request.keep_alive and request.content.is_eof()
    transport = request.connection.transport
    if transport is None or transport.is_closing():
        return CLOSE
    bare = body is None or status in BODILESS
    parts = (
        status_line(status),
        lines,
        b"" if body is None or bare else b"Content-Length: %d\r\n" % len(body),
        date_line(),
        connection_line(request, keep=keep),
        b"\r\n",
        b"" if body is None or bare or request.method == "HEAD" else body,
    )
    transport.write(b"".join(parts))
    return KEEP if keep else CLOSE


def error_lines(error: RunError) -> bytes:
    """Return the header lines that an error has of its own."""
    lines = error.lines if isinstance(error, RefusalError) else b""
    # An upstream that is busy knows when it will not be: so does then whoever asked us.
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
) -> Sent:
    """Write an error as a problem document, with further header lines."""
    head = problem_lines(run)
    status = status_of(error)
    return send(request, status, head + lines, problem(error, run, status, dev=dev), keep=keep)


def status_of(error: RunError) -> int:
    """Return the status that tells of an error, which never looks like success."""
    return error.status if 400 <= error.status <= 599 else 500


def problem_alone(error: RunError) -> bytes:
    """Return a problem document as the whole answer on a connection that is then closed, whatever was asked."""
    body = problem(error, None, error.status)
    return b"".join(
        (
            status_line(error.status),
            _PROBLEM,
            b"Retry-After: 1\r\n" if error.status == HTTPStatus.SERVICE_UNAVAILABLE else b"",
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
