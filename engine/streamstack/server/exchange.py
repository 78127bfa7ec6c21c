"""One request and its run: from the inputs to the last byte."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from streamstack.errors import RunError
from streamstack.runtime.run import Run
from streamstack.server.arriving import Arriving
from streamstack.server.connection import Connection
from streamstack.server.inputs import ARRIVING
from streamstack.server.life import Life, begun
from streamstack.server.limits import Pass
from streamstack.server.problems import RefusalError, internal, log, report
from streamstack.server.replies import CLOSE, Sent
from streamstack.server.served import Served
from streamstack.server.writers.answer import Answer

if TYPE_CHECKING:
    from streamstack.server.service import Service


async def exchange(
    service: Service,
    served: Served,
    request: web.BaseRequest,
    parameters: Mapping[str, str],
    answer: Answer,
) -> Sent:
    """Run an endpoint's stack for one request and answer it. Never raises but for cancellation."""
    run = Run(answer, service.context, request=lambda: served.show(request, parameters))
    answer.run = run
    life = Life(answer, served.limits, service.lives)
    outcome = "failed"
    close = None
    arriving: Arriving | None = None
    let: Pass | None = None
    try:
        try:
            if served.guard is not None:
                admitted = served.guard.admit(request, service.context, service.cors)
                run.auth = await begun(admitted, life.begin_reading)
            if served.limiter is not None:
                let = Pass(served.limiter, run, request)
                await begun(let.ask(), life.begin_reading)
            if request.body_exists:
                _look_at_body(served, request)
            inputs = await begun(served.read(request, parameters), life.begin_reading)
            if served.close is not None:
                close = partial(served.close, inputs)
            if let is not None:
                await begun(let.ask_with(inputs), life.begin_reading)
                answer.cors += let.lines()
            if served.receives and (arriving := request.get(ARRIVING)) is not None:
                arriving.begin(answer)
                let_send(request)
            if served.headers is not None:
                answer.headers += served.headers(run, inputs)
            value = await begun(served.start(run, inputs), life.begin_running)
            sent = answer.finish(value)
            outcome = "completed"
        except (Exception, asyncio.CancelledError) as error:
            reason = _reason(error, request, life)
            if reason is None:
                outcome = "cancelled"
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise asyncio.CancelledError from error
            sent = _fail(served, run, answer, reason, let)
        if request.protocol.writing_paused:
            await _leave(request, life)
        return CLOSE if arriving is not None and arriving.lost else sent
    finally:
        life.end()
        if arriving is not None:
            arriving.end()
        service.leave(life)
        if let is not None:
            let.leave(service.later)
        service.after(run, outcome, close)
        if service.context.dev:
            log.info(
                "answered",
                endpoint=served.title,
                outcome=outcome,
                chunks=answer.count,
                ms=run.elapsed_ms,
                run=run.id,
            )


def _reason(error: BaseException, request: web.BaseRequest, life: Life) -> RunError | None:
    """Return what a run failed by; None where its reader has gone."""
    if isinstance(error, asyncio.CancelledError):
        return life.stopped()
    if isinstance(error, RunError):
        return error
    if isinstance(error, web.RequestPayloadError):
        return _malformed(error)
    return None if request.transport is None else internal(error)


def _fail(
    served: Served, run: Run, answer: Answer, error: RunError, let: Pass | None = None
) -> Sent:
    """Log an error and tell the client of it, in the way that is still open."""
    report(error, run=run.id, endpoint=served.title, sent=answer.count)
    if isinstance(error, RefusalError):
        answer.cors += error.lines
    if let is not None:
        answer.cors += let.lines()
    if error.code == "rate-limited" and error.retry_after is not None:
        answer.cors += b"Retry-After: %d\r\n" % max(1, ceil(error.retry_after))
    try:
        return answer.fail(error)
    except Exception as failure:  # noqa: BLE001  (whatever it is, the reader must not hang)
        log.exception("answer-failed", run=run.id, endpoint=served.title, reason=str(failure))
        answer.abort()
        return CLOSE


def _look_at_body(served: Served, request: web.BaseRequest) -> None:
    """Refuse a body that can't be taken, before anything of it is read. Raises RunError ``invalid-input``."""
    expect(request, served.max_body, now=not served.receives)
    connection = cast("Connection", request.protocol)
    if not served.receives and connection.broke_off(request.content):
        raise _malformed(ConnectionError())  # nobody waits for a rest that does not come


def expect(request: web.BaseRequest, max_body: int, *, now: bool = True) -> None:
    """Refuse a body that is too large, before it is sent where the client asks first; let it be sent ``now``.

    Raises RunError ``invalid-input``: 413, or 417 for an expectation nobody has defined.
    """
    length = request.content_length
    if length is not None and length > max_body:
        raise RunError(
            "invalid-input", f"the body has {length} bytes: up to {max_body} are read", status=413
        )
    expectation = request.headers.get("Expect")
    if expectation is None or request.version < (1, 1):
        return
    if expectation.lower() != "100-continue":
        raise RunError("invalid-input", "Expect can be 100-continue only", status=417)
    if now:
        let_send(request)


def let_send(request: web.BaseRequest) -> None:
    """Tell a client that asked before that it may send its body."""
    if request.headers.get("Expect") is None or request.version < (1, 1):
        return
    if request.transport is not None and not request.content.is_eof():
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _malformed(error: Exception) -> RunError:
    cause = error.__cause__ or error
    return RunError("invalid-input", f"the body can't be read: {type(cause).__name__}")


async def _leave(request: web.BaseRequest, life: Life) -> None:
    """Stay until the transport has room again, so that a slow reader's rest is bounded in time."""
    life.begin_closing()
    connection: Any = request.protocol
    await connection.room()
