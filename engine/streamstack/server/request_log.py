"""Log each request when it ends, and report why a run failed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
import structlog
from aiohttp import web

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.masking import masked
from streamstack.runtime.run import Run
from streamstack.server.access import RateLimitTicket
from streamstack.server.replies import CLOSE, Sent, error_lines, internal, is_fault, log, report
from streamstack.server.request import Request
from streamstack.server.response import ResponseSink

if TYPE_CHECKING:
    from streamstack.server.endpoints import EndpointHandler

#: How a request can end. `rejected`: answered with a 4xx before anything else was sent. `cancelled`: the client closed
#: the connection, or stopped the stream. `shutdown`: the server stopped. `timeout`: a limit on the request's body or
#: its run was reached; the timeout of a step is a failure.
OUTCOMES: Final = ("completed", "failed", "rejected", "cancelled", "shutdown", "timeout")
#: Characters of a path that are logged.
_MOST: Final = 200


def outcome_of(
    error: RunError | None, answer: ResponseSink, stopped: RunError | None, *, draining: bool = False
) -> str:
    """Return how a request ended whose run did not complete.

    Args:
        error: What it ended by; None where its task was cancelled.
        answer: Its answer, before the error is written to it.
        stopped: The error that the run was stopped with from outside, if it was.
        draining: Whether the server stops.
    """
    if error is None:
        return "shutdown" if draining and answer.request.transport is not None else "cancelled"
    if stopped is not None and error is stopped:
        return _STOPPED.get(error.code, "shutdown")
    if answer.committed or answer.count or is_fault(error):
        return "failed"
    return "rejected"


#: How a request ended, by the error that its run was stopped with; the last two are of what its client sent.
_STOPPED: Final = {
    "timeout": "timeout",
    "stopped": "cancelled",
    "unavailable": "failed",
    "invalid-chunk": "failed",
    "invalid-input": "failed",
    "rate-limited": "failed",
}


class RequestLog:
    """Writes the request log."""

    def __init__(self, *, text: bool) -> None:
        people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if text else None
        self._people = people

    def ended(self, endpoint: str, answer: ResponseSink, outcome: str, error: RunError | None) -> None:
        """Log a request with a run. ``error`` is what it ended by, if it was one."""
        run = answer.run
        line: dict[str, Any] = {
            "endpoint": endpoint,
            "outcome": outcome,
            "status": answer.status if answer.committed or answer.refused else None,
            "chunks": answer.count,
            "bytes": answer.bytes,
            "ms": run.elapsed_ms,
            "run": run.id,
        }
        if answer.cached:
            line["cache"] = answer.cached
        if run.experiment:
            line["experiment"] = {name: bound["variant"] for name, bound in run.experiment.items()}
        self._write(line | _about(error))

    def background(self, title: str, run: Run, outcome: str, error: RunError | None, about: Mapping[str, Any]) -> None:
        """Log a run without a client. ``title`` is its kind and name, as in `task cleanup`."""
        kind, _, name = title.partition(" ")
        line = {kind: name, "outcome": outcome, "ms": run.elapsed_ms, "run": run.id, **about}
        self._write(line | _about(error), event="run")

    def answered(self, request: Request, outcome: str) -> None:
        """Log a request that had no run of its own: HEAD, OPTIONS, a client that came back to a stream."""
        path = masked(request.raw_path.partition("?")[0][:_MOST])
        self._write({"method": request.method, "path": path, "outcome": outcome})

    def refused(self, request: Request, error: RunError) -> None:
        """Log a request that no endpoint took."""
        path = masked(request.raw_path.partition("?")[0][:_MOST])
        status, code = error.status, error.code
        self._write({"method": request.method, "path": path, "outcome": "rejected", "status": status, "code": code})

    def _write(self, line: Mapping[str, Any], event: str = "request") -> None:
        """Write a line as the rest of the log is written, but not through structlog.

        That would take ten times as long, most of it to look for secrets. No value of these lines can hold one: they
        are names of definitions, numbers and codes.
        """
        time = clock.now().isoformat().replace("+00:00", "Z")
        whole = {**line, "event": event, "level": "info", "timestamp": time}
        if self._people is None:
            text = orjson.dumps(whole, option=orjson.OPT_APPEND_NEWLINE)
        else:
            text = f"{self._people(None, 'info', whole)}\n".encode()
        with suppress(OSError):  # a full disk, or a closed pipe
            os.write(sys.stderr.fileno(), text)


def _about(error: RunError | None) -> dict[str, Any]:
    """Return what a line says of the error that a run ended by."""
    if error is None:
        return {}
    place = {} if error.place is None else {"place": f"{error.place.mark.file}:{error.place.mark.line}"}
    return {"code": error.code, **place}


#: What went wrong with a request or its run, connected or not.
CLIENT_ERRORS = (RunError, web.RequestPayloadError)


def fail(
    served: EndpointHandler, run: Run, answer: ResponseSink, error: RunError, ticket: RateLimitTicket | None = None
) -> Sent:
    """Log an error and tell the client of it, in the way that is still open."""
    report(error, run=run.id, endpoint=served.title, sent=answer.count)
    if ticket is not None:
        answer.cors += ticket.lines()
    answer.cors += error_lines(error)
    try:
        return answer.fail(error)
    except Exception as failure:  # noqa: BLE001  (whatever it is, the reader must not hang)
        log.exception("answer-failed", run=run.id, endpoint=served.title, reason=str(failure))
        answer.abort()
        return CLOSE


def error_of(error: BaseException) -> RunError:
    """Return what the log says of an error."""
    if isinstance(error, RunError):
        return error
    if isinstance(error, web.RequestPayloadError):
        return malformed(error)
    return internal(cast("Exception", error))


def malformed(error: Exception) -> RunError:
    """Return the error of a body that is not valid HTTP."""
    cause = error.__cause__ or error
    return RunError("invalid-input", f"the body can't be read: {type(cause).__name__}")
