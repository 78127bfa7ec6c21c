"""How a run that fails is told of: in the log, and to its client."""

from __future__ import annotations

from typing import cast

from aiohttp import web

from streamstack.errors import RunError
from streamstack.runtime.run import Run
from streamstack.server.limits import Pass
from streamstack.server.problems import internal, log, report
from streamstack.server.replies import CLOSE, Sent, error_lines
from streamstack.server.served import Served
from streamstack.server.writers.answer import Answer

#: What went wrong with a request or its run, whoever is there to be told.
TOLD = (RunError, web.RequestPayloadError)


def fail(
    served: Served, run: Run, answer: Answer, error: RunError, let: Pass | None = None
) -> Sent:
    """Log an error and tell the client of it, in the way that is still open."""
    report(error, run=run.id, endpoint=served.title, sent=answer.count)
    if let is not None:
        answer.cors += let.lines()
    answer.cors += error_lines(error)
    try:
        return answer.fail(error)
    except Exception as failure:  # noqa: BLE001  (whatever it is, the reader must not hang)
        log.exception("answer-failed", run=run.id, endpoint=served.title, reason=str(failure))
        answer.abort()
        return CLOSE


def error_of(error: BaseException) -> RunError:
    """Return what is told of whatever went wrong."""
    if isinstance(error, RunError):
        return error
    if isinstance(error, web.RequestPayloadError):
        return malformed(error)
    return internal(cast("Exception", error))


def malformed(error: Exception) -> RunError:
    """Return the error of a body that is no valid HTTP."""
    cause = error.__cause__ or error
    return RunError("invalid-input", f"the body can't be read: {type(cause).__name__}")
