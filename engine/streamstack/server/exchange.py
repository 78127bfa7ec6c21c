"""One request and its run: from the inputs to the last byte."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from streamstack.errors import RunError
from streamstack.runtime.run import Run
from streamstack.server.arriving import Arriving
from streamstack.server.coded import Decoded, wire_of
from streamstack.server.connection import Connection
from streamstack.server.inputs import ARRIVING
from streamstack.server.life import Life, begun
from streamstack.server.problems import RefusalError, internal, log, report
from streamstack.server.replies import CLOSE, Sent
from streamstack.server.served import Served
from streamstack.server.writers.answer import Answer

#: What a body may be encoded in (RFC 9110, section 12.5.3).
_ACCEPTED: Final = b"Accept-Encoding: gzip, deflate, br\r\n"

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
    try:
        try:
            if served.guard is not None:
                admitted = served.guard.admit(request, service.context, service.cors)
                run.auth = await begun(admitted, life.begin_reading)
            if request.body_exists:
                _look_at_body(served, request)
            inputs = await begun(served.read(request, parameters), life.begin_reading)
            if served.receives and (arriving := request.get(ARRIVING)) is not None:
                arriving.begin(answer)
                let_send(request)
            if served.close is not None:
                close = partial(served.close, inputs)
            if served.headers is not None:
                answer.headers += served.headers(run, inputs)
            value = await begun(served.start(run, inputs), life.begin_running)
            sent = answer.finish(value)
            outcome = "completed"
        except asyncio.CancelledError:
            reason = life.stopped()
            if reason is None:
                outcome = "cancelled"
                raise
            sent = _fail(served, run, answer, reason)
        except RunError as error:
            sent = _fail(served, run, answer, error)
        except web.RequestPayloadError as error:
            sent = _fail(served, run, answer, _malformed(error))
        except Exception as error:
            if request.transport is None:
                outcome = "cancelled"
                raise asyncio.CancelledError from error
            sent = _fail(served, run, answer, internal(error))
        if request.protocol.writing_paused:
            await _leave(request, life)
        return CLOSE if arriving is not None and arriving.lost else sent
    finally:
        life.end()
        if arriving is not None:
            arriving.end()
        service.leave(life)
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


def _fail(served: Served, run: Run, answer: Answer, error: RunError) -> Sent:
    """Log an error and tell the client of it, in the way that is still open."""
    report(error, run=run.id, endpoint=served.title, sent=answer.count)
    if isinstance(error, RefusalError):
        answer.cors += error.lines
    try:
        return answer.fail(error)
    except Exception as failure:  # noqa: BLE001  (whatever it is, the reader must not hang)
        log.exception("answer-failed", run=run.id, endpoint=served.title, reason=str(failure))
        answer.abort()
        return CLOSE


def _look_at_body(served: Served, request: web.BaseRequest) -> None:
    """Refuse a body that can't be taken, before anything of it is read. Raises RunError ``invalid-input``."""
    refuse_coding(request)
    expect(request, served.max_body, now=not served.receives)
    connection = cast("Connection", request.protocol)
    if not served.receives and connection.broke_off(wire_of(request.content)):
        raise _malformed(ConnectionError())  # nobody waits for a rest that does not come


def refuse_coding(request: web.BaseRequest) -> None:
    """Refuse a body in a coding that nobody undoes here. Raises RefusalError (RFC 9110, section 15.5.16)."""
    codings = request.headers.getall("Content-Encoding", ())
    if not codings or isinstance(request.content, Decoded):
        return
    if any(each.strip().lower() not in ("", "identity") for each in codings):
        raise RefusalError(
            "invalid-input",
            "the body must be sent with one Content-Encoding, gzip, deflate or br, or with none",
            status=415,
            lines=_ACCEPTED,
        )


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
