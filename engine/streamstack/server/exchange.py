"""Answer one request: authentication, limits, inputs, the run, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from aiohttp import hdrs

from streamstack.errors import RunError, forget_frames
from streamstack.runtime.faults import located
from streamstack.runtime.run import Run
from streamstack.server.access import RateLimitTicket
from streamstack.server.bodies import broken_off
from streamstack.server.deadlines import RunTimer, begun
from streamstack.server.endpoints import AtOnce, EndpointHandler
from streamstack.server.replies import CLOSE, RefusalError, Sent, Whole
from streamstack.server.request import CODINGS, Request
from streamstack.server.request_log import TOLD, error_of, fail, outcome_of
from streamstack.server.response import ResponseSink
from streamstack.server.resume.requests import NOTHING, RunInputs, StreamCopy, begin, find_resumed

if TYPE_CHECKING:
    from streamstack.server.resume.log import ResumableSink
    from streamstack.server.service import Service


#: What a body may be encoded in (RFC 9110, section 12.5.3).
_ACCEPTED: Final = b"Accept-Encoding: gzip, deflate, br\r\n"


#: Why a request is given up whose body takes memory that others need.
_NO_MEMORY: Final = RefusalError(
    "unavailable", "the server holds too many unfinished requests: try again", status=503, lines=b"Retry-After: 1\r\n"
)


async def exchange(  # noqa: C901  (the way of a request, in one piece)
    service: Service, served: EndpointHandler, request: Request, parameters: Mapping[str, str], answer: ResponseSink
) -> Sent:
    """Run an endpoint's stack for one request and answer it. Never raises but for cancellation."""
    run = Run(answer, service.context, request=lambda: served.show(request, parameters))
    answer.run = run
    life = RunTimer(answer, served.limits, service.lives, served.row)
    outcome = ended = "failed"
    reason: RunError | None = None
    given = NOTHING
    let: RateLimitTicket | None = None
    source: StreamCopy | None = None  # a stream that is copied from elsewhere
    sent: Sent = CLOSE
    try:
        try:
            if served.guard is not None:
                admitted = served.guard.admit(request, service.context, service.cors)
                run.auth = await begun(admitted, life.begin_reading)
            if served.resume is not None:
                source = await find_resumed(service, served, run, answer)
            if source is None:
                if served.limiter is not None:
                    let = RateLimitTicket(served.limiter, run, request, service.spawn)
                    await begun(let.ask(), life.begin_reading)
                # Limits may ask for what depends on the inputs, before anything else is done with them.
                inputs = served.take(request, parameters) if let is None else None
                given = (
                    await _take_in(service, served, request, parameters, life, answer, let)
                    if inputs is None
                    else RunInputs(inputs, None)
                )
                if answer.keeps:
                    source = await begin(service, served, run, cast("ResumableSink", answer), given)
                else:
                    if served.headers is not None:
                        answer.headers += served.headers(run, given.inputs)
                    value = await life.attend(served.start(run, given.inputs))
                    sent = answer.finish(value)
            outcome = ended = "completed"
        except (Exception, asyncio.CancelledError) as error:
            reason = _reason(error, request, life)
            ended = outcome_of(reason, answer, life.reason, draining=service.draining)
            if reason is None:
                outcome = "cancelled"
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise asyncio.CancelledError from error
            sent = fail(served, run, answer, reason, let)
        if source is not None:
            # How long a reader takes is not the request's affair any more: others see to it.
            life.end()
            service.leave(life)
            if not answer.handed:
                _release(given, let)  # it began no run: it reads another's
                given = given.with_files_closed()
                return await service.logged(request, source.copy())
            return await source.copy()
        lost = given.arriving is not None and given.arriving.lost
        if isinstance(sent, Whole):
            sent.leave, sent.answer = partial(leave, service, served, answer), answer
            sent.keep = sent.keep and not lost
            return sent
        if request.writing_paused:
            life.begin_closing()
            await request.room()
        return CLOSE if lost else sent
    finally:
        life.end()
        if request.budget is not None:
            request.budget.release(request)
        service.leave(life)
        if source is None:
            service.ended(served, answer, ended, reason, life)
        # A run that goes on in a task of its own sees to its end itself.
        if not answer.handed:
            _release(given, let)
            service.after(run, outcome, given.close)
        forget_frames(reason)


def _release(given: RunInputs, let: RateLimitTicket | None) -> None:
    """Give back what a request holds beside its inputs. What was given back before is left alone."""
    if given.arriving is not None:
        given.arriving.end()
    if let is not None:
        let.leave()


def _reason(error: BaseException, request: Request, life: RunTimer) -> RunError | None:
    """Return what a run failed by; None where its reader has gone."""
    if isinstance(error, asyncio.CancelledError):
        return life.stopped()
    if request.transport is None and not isinstance(error, TOLD):
        return None
    return error_of(error)


async def _take_in(
    service: Service,
    served: EndpointHandler,
    request: Request,
    parameters: Mapping[str, str],
    life: RunTimer,
    answer: ResponseSink,
    let: RateLimitTicket | None,
) -> RunInputs:
    """Read what a run is given. Raises RunError ``invalid-input``, and ``rate-limited``."""
    if request.body_exists:
        _look_at_body(served, request)
        request.budget, request.give_up = service.memory, partial(life.stop, _NO_MEMORY)
    inputs = await begun(served.read(request, parameters), life.begin_reading)
    if request.budget is not None:
        request.budget.release(request)
    close = None if served.close is None else partial(served.close, inputs)
    if let is not None:
        try:
            await begun(let.ask_with(inputs), life.begin_reading)
        except BaseException:
            if close is not None:
                close()
            raise
        answer.cors += let.lines()
    arriving = request.arriving if served.receives else None
    if arriving is not None:
        arriving.begin(answer)
        let_send(request)
    else:
        request.ignore_body()
    return RunInputs(inputs, close, arriving, let)


def _look_at_body(served: EndpointHandler, request: Request) -> None:
    """Refuse a body that can't be taken, before anything of it is read. Raises RunError ``invalid-input``."""
    refuse_coding(request)
    expect(request, served.max_body, now=not served.receives)
    if not served.receives and request.broke_off:
        raise broken_off()  # the rest will not come


def refuse_coding(request: Request) -> None:
    """Refuse a body in an unsupported content coding. Raises RefusalError (RFC 9110, section 15.5.16)."""
    headers = request.headers
    if hdrs.CONTENT_ENCODING not in headers:
        return
    codings = headers.getall(hdrs.CONTENT_ENCODING)
    if len(codings) == 1 and codings[0].strip().lower() in CODINGS:
        return
    if any(each.strip().lower() not in ("", "identity") for each in codings):
        raise RefusalError(
            "invalid-input",
            "the body must be sent with one Content-Encoding, gzip, deflate or br, or with none",
            status=415,
            lines=_ACCEPTED,
        )


def expect(request: Request, max_body: int, *, now: bool = True) -> None:
    """Refuse a body that is too large, before it is sent where the client asks first; let it be sent ``now``.

    Raises RunError ``invalid-input``: 413, or 417 for an unknown expectation.
    """
    length = request.content_length
    if length is not None and length > max_body:
        raise RunError("invalid-input", f"the body has {length} bytes: up to {max_body} are read", status=413)
    expectation = request.headers.get("Expect")
    if expectation is None or request.version < (1, 1):
        return
    if expectation.lower() != "100-continue":
        raise RunError("invalid-input", "Expect can be 100-continue only", status=417)
    if now:
        let_send(request)


def let_send(request: Request) -> None:
    """Tell a client that asked before that it may send its body."""
    if request.headers.get("Expect") is None or request.version < (1, 1):
        return
    if request.transport is not None and not request.wire.is_eof():
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def leave(service: Service, served: EndpointHandler, answer: ResponseSink) -> None:
    """Stay until the client has taken a whole answer, within the time that its endpoint allows."""
    life = RunTimer(answer, served.limits, service.lives, served.row)
    life.begin_closing()
    try:
        await answer.request.room()
    finally:
        life.end()
        service.leave(life)


def answer_at_once(
    service: Service,
    served: EndpointHandler,
    stack: AtOnce,
    request: Request,
    parameters: Mapping[str, str],
    answer: ResponseSink,
) -> Sent | None:
    """Run a stack in which nothing waits, and answer; None where the request is not wholly here."""
    answer.run = run = Run(answer, service.context, request=lambda: served.show(request, parameters))
    outcome = ended = "completed"
    reason: RunError | None = None
    try:
        inputs = served.take(request, parameters)
        if inputs is None:
            return None
        if served.headers is not None:
            answer.headers += served.headers(run, inputs)
        sent = answer.finish(stack(run, inputs))
    except Exception as error:  # noqa: BLE001  (whatever it is, it is reported)
        outcome, reason = "failed", located(error)
        ended = outcome_of(reason, answer, None)
        sent = fail(served, run, answer, reason)
    service.ended(served, answer, ended, reason)
    service.after(run, outcome, None)
    if isinstance(sent, Whole):
        sent.leave, sent.answer = partial(leave, service, served, answer), answer
    return sent
