"""The service: it finds the endpoint of each request, answers the request, and counts the runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

from aiohttp import hdrs, web

from streamstack.errors import RunError, forget_frames
from streamstack.functions.state import open_redis
from streamstack.language.masking import masked
from streamstack.runtime.faults import located
from streamstack.runtime.run import Context, Run
from streamstack.server.access import RateLimitTicket
from streamstack.server.api_document import ApiDocument
from streamstack.server.assets import ASSETS, send_asset
from streamstack.server.background import BackgroundRuns
from streamstack.server.bodies import broken_off
from streamstack.server.connection import check_framing
from streamstack.server.deadlines import RunTimer, begun
from streamstack.server.endpoints import AtOnce, EndpointHandler, Routes
from streamstack.server.headers import CorsHeaders, header_lines, is_of_host
from streamstack.server.jobs import JobRunner
from streamstack.server.metrics import CONTENT_TYPE, MetricsAccess, WorkerMetrics, exposition, open_metrics
from streamstack.server.replies import (
    ALLOW,
    CLOSE,
    JSON,
    KEEP,
    RefusalError,
    Sent,
    Streamed,
    Whole,
    cookie_lines,
    log,
    send,
    send_problem,
)
from streamstack.server.request import CODINGS, MAX_MEMORY, MemoryBudget, Request
from streamstack.server.request_log import CLIENT_ERRORS, RequestLog, error_of, fail, outcome_of
from streamstack.server.response import FlushQueue, ResponseSink
from streamstack.server.resume.requests import (
    NOTHING,
    PREFIX,
    RunInputs,
    StreamCopy,
    answer_streams,
    begin,
    find_resumed,
)
from streamstack.server.resume.store import SharedStore
from streamstack.server.resume.streams import StreamRegistry

if TYPE_CHECKING:
    from streamstack.server.connection import ClientConnection
    from streamstack.server.resume.log import ResumableSink


T = TypeVar("T")

#: Seconds that stopped runs have to tell their readers so.
ABORT_TIMEOUT = 2.0
#: Seconds that work after the answer has, once the service stops.
LATER = 10.0

#: Paths of the service itself; no endpoint can take them.
_OWN = ("/_health", "/_ready", "/_metrics", "/_openapi.json", *ASSETS)
#: Seconds between looks at what runs have sent so far.
_SAMPLE_INTERVAL = 1.0
#: Refused origins that are logged, and characters of each.
_ORIGINS = 100
_ORIGIN_SIZE = 200
#: Seconds between looks at whether clients have left, where nothing else tells.
_DISCONNECT_CHECK = 0.5


class Service:
    """Answers requests. An asynchronous context: runs' later work must end before it does."""

    def __init__(
        self,
        endpoints: Iterable[EndpointHandler] = (),
        *,
        context: Context | None = None,
        cors: CorsHeaders | None = None,
        access: MetricsAccess | None = None,
        metrics: WorkerMetrics | None = None,
        request_log: RequestLog | None = None,
        max_memory: int = MAX_MEMORY,
        api: ApiDocument | None = None,
    ) -> None:
        self.api = api or ApiDocument()
        self.context = context or Context()
        self.cors = cors or CorsHeaders()
        self.access = access or MetricsAccess(None, dev=False)
        self.metrics = metrics
        if metrics is not None:
            self.context.provide(open_metrics, metrics)
        self.request_log = request_log
        self.memory = MemoryBudget(max_memory)
        self.timers: set[RunTimer] = set()
        self._later: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._hurried = False
        self._sampling: asyncio.TimerHandle | None = None
        self.flush_queue = FlushQueue()
        self.background = BackgroundRuns(self)
        self._watched: dict[asyncio.Task[Any], web.BaseRequest] = {}
        self._watching: asyncio.TimerHandle | None = None
        #: Our side of each connection, by aiohttp's; empty where another server listens.
        self.connections: dict[web.RequestHandler, ClientConnection] = {}
        self._refused_origins: set[str] = set()  # those that were logged
        self.closing = False  # connections end with their next response
        self.ready = True
        self.draining = False
        self.streams = StreamRegistry(self.context.state.max_size, self._idle.set)
        self.routes: Routes[EndpointHandler] = Routes(())
        self._endpoints: list[EndpointHandler] = []
        self._group = asyncio.TaskGroup()
        self._entered = False
        self.jobs = JobRunner(self)
        self.replace(endpoints)

    def replace(
        self,
        endpoints: Iterable[EndpointHandler],
        context: Context | None = None,
        cors: CorsHeaders | None = None,
        api: ApiDocument | None = None,
    ) -> None:
        """Serve these endpoints from the next request on, in another context; running ones end on the old."""
        self.api = api or self.api
        self.context = context or self.context
        self.cors = cors or self.cors
        self._endpoints = list(endpoints)
        self.routes = Routes([(each.method, each.path, each) for each in self._endpoints])
        self.jobs.functions = next((each.jobs for each in self._endpoints if each.jobs is not None), {})
        if self._entered:
            self._begin_work()

    def _begin_work(self) -> None:
        """Begin what endpoints need that runs beside them: shared streams, jobs."""
        if any(each.resume for each in self._endpoints):
            self.share()
        if self.jobs.functions:
            self.jobs.begin()

    def share(self) -> None:
        """Share streams with other processes, where there are any: once one is kept here, or asked for here."""
        if self.streams.shared is None and self.context.state.shared:
            self.streams.share(SharedStore(self.context.resource(open_redis)), self._group, self.spawn)

    def count(self, metrics: WorkerMetrics) -> None:
        """Count requests from the next one on."""
        self.metrics = metrics
        self.context.provide(open_metrics, metrics)
        if self._entered:
            self._sample(metrics)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        if self.metrics is not None:
            self._sample(self.metrics)
        self._entered = True
        self._begin_work()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sampling is not None:
            self._sampling.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if error is not None:
            self.abandon()
        await self.jobs.begin_shutdown()
        await self.streams.close()
        # An error of what was done inside passes as it is; the group would wrap it.
        await self._group.__aexit__(None, None, None)
        await self.context.aclose()

    # ------------------------------------------------------------- requests

    async def handle(self, raw: web.BaseRequest) -> web.StreamResponse:
        """Answer a request that came to `streamstack serve`: aiohttp's handler, called by its low-level server."""
        connection = self.connections.get(raw.protocol)
        request = None if connection is None else connection.request
        if request is None:
            request = Request(raw, self.flush_queue, last=self.closing)  # its client has left
        try:
            sent = self.answer(request)
            if not isinstance(sent, Sent):
                sent = await sent
            if request.websocket is not None:
                await request.websocket.wait_closed()
        except Exception as error:  # noqa: BLE001  (whatever it is, this connection alone has it)
            sent = _fail(request, error)
        return sent if isinstance(sent, Whole) else Streamed(request, 200, keep=sent is KEEP)

    async def handle_hosted(self, raw: web.Request, prefix: str) -> web.StreamResponse:
        """Answer a request to an application that gunicorn or another application runs."""
        request = Request(raw, self.flush_queue, prefix=prefix, last=self.closing)
        request.hosted = True
        task = asyncio.current_task()
        assert task is not None
        self._watched[task] = raw
        if self._watching is None:
            self._watch()
        try:
            if any(each.on_response_prepare for each in raw.match_info.apps):
                request.extra = await _announce(raw)
            sent = self.answer(request)
            if not isinstance(sent, Sent):
                sent = await sent
            if request.websocket is not None:
                await request.websocket.wait_closed()
        except Exception as error:  # noqa: BLE001  (whatever it is, this connection alone has it)
            sent = _fail(request, error)
        finally:
            del self._watched[task]
        if not isinstance(sent, Whole):
            return Streamed(request, 200, keep=sent is KEEP)
        sent.show_headers()
        return sent

    def _watch(self) -> None:
        """Cancel the handlers of clients who have left, now and again: not every server does so."""
        self._watching = None
        for task, raw in self._watched.items():
            if raw.transport is None and not task.cancelling():
                task.cancel()
        if self._watched:
            self._watching = asyncio.get_running_loop().call_later(_DISCONNECT_CHECK, self._watch)

    def answer(self, request: Request) -> Sent | Coroutine[Any, Any, Sent]:
        """Answer one request: at once, or with what answers it when it is awaited."""
        try:
            check_framing(request)
        except RunError as error:
            self._note_refusal(request, error)
            return send_problem(request, error, keep=False)
        path = request.raw_path
        if path in _OWN or self.draining:
            return self._answer_own(request, path)
        if path.startswith(PREFIX):
            return self._answered(request, partial(answer_streams, self, request, path))
        try:
            found = self.routes.find(request.method, path)
            if found is None:
                found = self.routes.find("GET", path) if request.method == "HEAD" else None
                if found is not None and found[0].cache is None:
                    return self._answered(request, partial(self._answer_head, request, found[0]))
            if found is None:
                return self._answer_unfound(request, path)
            served, parameters = found
            if self.cors.origins:
                self._note_origin(request)
            answer = served.open(request, self.cors)
        except RunError as error:
            return self._refuse(request, error)
        if served.at_once is not None:
            sent = answer_at_once(self, served, served.at_once, request, parameters, answer)
            if sent is not None:
                return sent
        work = exchange(self, served, request, parameters, answer)
        # What outlives its reader begins by itself: he may have gone before anybody waits for it.
        return _outliving(self.spawn(work)) if served.outlives and not answer.resumable else work

    async def _answered(self, request: Request, work: Callable[[], Coroutine[Any, Any, Sent]]) -> Sent:
        """Answer with what some work gives, or with the error it ends by."""
        try:
            return await self.logged(request, work())
        except RunError as error:
            return self._refuse(request, error)

    async def logged(self, request: Request, work: Coroutine[Any, Any, Sent]) -> Sent:
        """Do what answers a request that has no run of its own, and log how that ended, unless by an error."""
        outcome = ""
        try:
            sent = await work
            outcome = "completed"
            return sent
        except asyncio.CancelledError:
            outcome = "shutdown" if self.draining and request.transport is not None else "cancelled"
            raise
        finally:
            if outcome and self.request_log is not None:
                self.request_log.answered(request, outcome)

    def ended(
        self,
        served: EndpointHandler,
        answer: ResponseSink,
        outcome: str,
        error: RunError | None,
        timer: RunTimer | None = None,
    ) -> None:
        """Count a request whose run is over, and log it: called once for each run.

        Args:
            served: Its endpoint.
            answer: Its answer.
            outcome: How it ended, one of `OUTCOMES`.
            error: What it ended by, if it was an error.
            life: What watched the run, if anything did.
        """
        if self.metrics is not None:
            self.metrics.finish(answer, outcome, timer)
        if self.request_log is not None:
            self.request_log.ended(served.title, answer, outcome, error)

    def discard(self, timer: RunTimer) -> None:
        """Record that a request has its answer."""
        self.timers.discard(timer)
        if not self.timers:
            self._idle.set()

    def note_idle(self) -> None:
        """Let `idle` look again at what is running."""
        self._idle.set()

    def after(self, run: Run, outcome: str, close: Callable[[], None] | None) -> None:
        """Let a run do what it registered for its end, beside the answers to others.

        ``close`` deletes what the run's inputs hold open, when that is done.
        """
        if run.has_after:
            self.spawn(_finish(run, outcome, close))
            return
        run.outcome = outcome
        if close is not None:
            close()

    def _cors_lines(self, request: Request) -> bytes:
        """Return the header lines of CORS for an ordinary answer."""
        if self.cors.origins:
            self._note_origin(request)
        return self.cors.lines(request.headers.get("Origin"))

    def _note_origin(self, request: Request) -> None:
        """Log an origin whose pages may not read answers, once."""
        origin = request.headers.get("Origin")
        if origin is None or self.cors.allows(origin) or is_of_host(origin, request.host):
            return
        if origin not in self._refused_origins and len(self._refused_origins) < _ORIGINS:
            self._refused_origins.add(origin)
            shown = masked(origin[:_ORIGIN_SIZE].encode("utf-8", "replace").decode())
            log.warning("origin-refused", origin=shown, hint="add it to server.cors.origins")

    def _refuse(self, request: Request, error: RunError, lines: bytes = b"") -> Sent:
        cors = self._cors_lines(request)
        if isinstance(error, RefusalError):
            lines += error.lines
        if hdrs.UPGRADE in request.headers:
            request.keep_alive = False  # some clients of WebSockets wait for the end of a connection that is refused
        self._note_refusal(request, error)
        return send_problem(request, error, lines=lines + cors, dev=self.context.dev)

    def _note_refusal(self, request: Request, error: RunError) -> None:
        """Count and log a request that no endpoint took."""
        if self.metrics is not None:
            self.metrics.refuse(error.status)
        if self.request_log is not None:
            self.request_log.refused(request, error)

    def _note_options(self, request: Request) -> None:
        if self.request_log is not None:
            self.request_log.answered(request, "completed")

    def _answer_own(self, request: Request, path: str) -> Sent:
        if path not in _OWN:
            error = RunError("unavailable", "the server is shutting down", status=503)
            self._note_refusal(request, error)
            cors = self._cors_lines(request)
            lines = b"Retry-After: 1\r\n" + cors
            return send_problem(request, error, lines=lines, dev=self.context.dev, keep=False)
        if path == "/_metrics" and not self.access.admits(request):
            return self._refuse_metrics(request)
        if path == "/_console" and not (self.access.needs_token or self.access.admits(request)):
            return self._answer_unfound(request, path)
        if path == "/_openapi.json" and not self.api.admits(request):
            return self._answer_unfound(request, path)
        if request.method not in {"GET", "HEAD"}:
            return self._wrong_method(request, ["GET", "HEAD"])
        if path == "/_metrics":
            return self._answer_metrics(request)
        if path == "/_openapi.json":
            return send(request, 200, JSON + self._cors_lines(request), self.api.data)
        if path in ASSETS:
            return send_asset(request, path)
        if path == "/_ready" and not self.ready:
            return send(request, 503, JSON, b'{"status":"draining"}', keep=False)
        return send(request, 200, JSON, b'{"status":"ok"}')

    def _answer_metrics(self, request: Request) -> Sent:
        assert self.metrics is not None
        self.metrics.sample(self.timers)
        lines = b"Content-Type: %b\r\nCache-Control: no-store\r\n" % CONTENT_TYPE
        return send(request, 200, lines, exposition(self.metrics.counters))

    def _refuse_metrics(self, request: Request) -> Sent:
        """Answer a client that may not read the metrics: 404, unless a token would open them."""
        if not self.access.needs_token:
            return self._answer_unfound(request, request.path)
        error = RunError("unauthorized", "the token of `server.metrics` is required", status=401)
        return self._refuse(request, error, b"WWW-Authenticate: Bearer\r\n")

    def _sample(self, metrics: WorkerMetrics) -> None:
        """Count what runs have sent so far, now and again."""
        metrics.sample(self.timers)
        self._sampling = asyncio.get_running_loop().call_later(_SAMPLE_INTERVAL, self._sample, metrics)

    def _answer_unfound(self, request: Request, path: str) -> Sent:
        """Answer OPTIONS, which no definition has to name, and what has no route."""
        methods = self.routes.methods(path)
        if not methods:
            if request.method == "OPTIONS" and path == "*":
                self._note_options(request)
                return send(request, 204, b"Allow: GET, HEAD, POST, OPTIONS\r\n", b"")
            if request.method == "CONNECT":
                error = RunError("method-not-allowed", "this server is not a proxy", status=405)
                return self._refuse(request, error, ALLOW)
            return self._refuse(request, RunError("not-found", "no endpoint has this path"))
        if request.method == "OPTIONS":
            self._note_options(request)
            origin = request.headers.get("Origin")
            lines = header_lines([("Allow", ", ".join(methods))])
            if "Access-Control-Request-Method" in request.headers:
                self._note_origin(request)
            requested = request.headers.get("Access-Control-Request-Headers")
            return send(request, 204, lines + self.cors.preflight(origin, methods, requested), b"")
        return self._wrong_method(request, methods)

    async def _answer_head(self, request: Request, served: EndpointHandler) -> Sent:
        """Answer with the head that a GET would have, to whom it would be given, without running the stack."""
        if served.guard is not None:
            await served.guard.admit(request, self.context, self.cors)
        wire = served.wire_for(request)
        cors = self._cors_lines(request)
        return send(request, 200, wire.plain + cors, None)

    def _wrong_method(self, request: Request, methods: list[str]) -> Sent:
        error = RunError("method-not-allowed", f"this path takes {', '.join(methods)}", status=405)
        return self._refuse(request, error, header_lines([("Allow", ", ".join(methods))]))

    # ------------------------------------------------------------- the end of the service

    async def drain(self, patience: float) -> None:
        """Take no more requests; give running ones some seconds, then the error event."""
        self.ready = False
        self.draining = True
        self.streams.begin_shutdown()
        await self.jobs.begin_shutdown()
        await self.idle(patience)
        for timer in list(self.timers):
            timer.stop(RunError("producer-lost", "the server is shutting down", status=503))
        self.background.stop()
        self._hurried = False
        await self.idle(ABORT_TIMEOUT)

    def stop_now(self) -> None:
        """Wait no longer for what is running."""
        self._hurried = True
        self._idle.set()
        self.abandon()

    async def idle(self, patience: float) -> None:
        """Wait until nothing runs: no request, no copy of a stream, nothing in the background; some seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while (
                    self.timers or self.streams.read or self.background.active or self.jobs.busy
                ) and not self._hurried:
                    self._idle.clear()
                    await self._idle.wait()

    async def settle(self, patience: float = LATER) -> None:
        """Give what runs do after their answers some seconds, then end it."""
        if self._later:
            await asyncio.wait(self._later, timeout=patience)
        self.abandon()

    def abandon(self) -> None:
        """Cancel what runs still do after their answers."""
        for task in list(self._later):
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do some work that no request waits for; the service waits for it, when it ends."""
        task = self._group.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)
        return task


def _fail(request: Request, error: Exception) -> Whole:
    """Answer where an answer failed."""
    log.error("request-failed", exc_info=error)
    failure = RunError("internal", "the request failed", status=500)
    return send_problem(request, failure, keep=False)


async def _announce(raw: web.Request) -> bytes:
    """Send the signals of host applications, and return the header lines that they add."""
    response = web.StreamResponse()
    for application in raw.match_info.apps:
        await application.on_response_prepare.send(raw, response)
    return header_lines(response.headers.items()) + cookie_lines(response)


async def _outliving(task: asyncio.Task[Sent]) -> Sent:
    """Wait for a task that goes on when its reader leaves."""
    return await asyncio.shield(task)


async def _finish(run: Run, outcome: str, close: Callable[[], None] | None) -> None:
    try:
        await run.finish(outcome)
    except Exception as error:  # noqa: BLE001  (one failure must not end the group, and all others)
        log.exception("after-failed", run=run.id, reason=str(error))
    finally:
        if close is not None:
            close()


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
    timer = RunTimer(answer, served.limits, service.timers)
    outcome = ended = "failed"
    reason: RunError | None = None
    run_inputs = NOTHING
    ticket: RateLimitTicket | None = None
    source: StreamCopy | None = None  # a stream that is copied from elsewhere
    sent: Sent = CLOSE
    try:
        try:
            if served.guard is not None:
                admitted = served.guard.admit(request, service.context, service.cors)
                run.auth = await begun(admitted, timer.begin_reading)
            if served.resume is not None:
                source = await find_resumed(service, served, run, answer)
            if source is None:
                if served.limiter is not None:
                    ticket = RateLimitTicket(served.limiter, run, request, service.spawn)
                    await begun(ticket.acquire(), timer.begin_reading)
                # Limits may ask for what depends on the inputs, before anything else is done with them.
                inputs = served.take(request, parameters) if ticket is None else None
                run_inputs = (
                    await _take_in(service, served, request, parameters, timer, answer, ticket)
                    if inputs is None
                    else RunInputs(inputs, None)
                )
                if request.websocket is not None:
                    keeps = answer.resumable or served.outlives
                    request.websocket.begin(answer, None if keeps else timer.stop)
                if answer.resumable:
                    source = await begin(service, served, run, cast("ResumableSink", answer), run_inputs)
                else:
                    if served.prepare is not None:
                        answer.headers += served.prepare(run, run_inputs.inputs)
                    value = await timer.attend(served.begin(service, run, run_inputs.inputs))
                    sent = answer.finish(value)
            outcome = ended = "completed"
        except (Exception, asyncio.CancelledError) as error:
            reason = _reason(error, request, timer)
            ended = outcome_of(reason, answer, timer.reason, draining=service.draining)
            if reason is None:
                outcome = "cancelled"
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise asyncio.CancelledError from error
            if reason.code == "stopped":
                outcome = "cancelled"
            sent = fail(served, run, answer, reason, ticket)
        if source is not None:
            # How long a reader takes is not the request's affair any more: others see to it.
            timer.end()
            service.discard(timer)
            if not answer.handed:
                _release(run_inputs, ticket)  # it began no run: it reads another's
                run_inputs = run_inputs.with_files_closed()
                return await service.logged(request, source.copy())
            return await source.copy()
        lost = run_inputs.streamed_body is not None and run_inputs.streamed_body.lost
        if isinstance(sent, Whole):
            sent.wait_for_reader, sent.answer = partial(finish_sending, service, served, answer), answer
            sent.keep = sent.keep and not lost
            return sent
        if request.writing_paused:
            timer.begin_closing()
            await request.room()
        return CLOSE if lost else sent
    finally:
        timer.end()
        if request.note_held is not None:
            service.memory.release(request)
        if request.websocket is not None:
            request.websocket.end()
        service.discard(timer)
        if source is None:
            service.ended(served, answer, ended, reason, timer)
        # A run that goes on in a task of its own sees to its end itself.
        if not answer.handed:
            _release(run_inputs, ticket)
            service.after(run, outcome, run_inputs.close)
        forget_frames(reason)


def _release(run_inputs: RunInputs, ticket: RateLimitTicket | None) -> None:
    """Give back what a request holds beside its inputs. What was given back before is left alone."""
    if run_inputs.streamed_body is not None:
        run_inputs.streamed_body.end()
    if ticket is not None:
        ticket.release()


def _reason(error: BaseException, request: Request, timer: RunTimer) -> RunError | None:
    """Return what a run failed by; None where its reader has gone."""
    if isinstance(error, asyncio.CancelledError):
        return timer.stopped()
    if request.transport is None and not isinstance(error, CLIENT_ERRORS):
        return None
    return error_of(error)


async def _take_in(
    service: Service,
    served: EndpointHandler,
    request: Request,
    parameters: Mapping[str, str],
    timer: RunTimer,
    answer: ResponseSink,
    ticket: RateLimitTicket | None,
) -> RunInputs:
    """Read what a run is given. Raises RunError ``invalid-input``, and ``rate-limited``."""
    if request.body_exists:
        _check_body(served, request)
        request.note_held = partial(service.memory.hold, request, give_up=partial(timer.stop, _NO_MEMORY))
    inputs = await begun(served.read(request, parameters), timer.begin_reading)
    if request.note_held is not None:
        service.memory.release(request)
    close = None if served.close is None else partial(served.close, inputs)
    if ticket is not None:
        try:
            await begun(ticket.acquire_with(inputs), timer.begin_reading)
        except BaseException:
            if close is not None:
                close()
            raise
        answer.cors += ticket.lines()
    streamed_body = request.streamed_body if served.receives else None
    if streamed_body is not None:
        streamed_body.begin(answer)
        send_continue(request)
    else:
        request.ignore_body()
    return RunInputs(inputs, close, streamed_body, ticket)


def _check_body(served: EndpointHandler, request: Request) -> None:
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
        send_continue(request)


def send_continue(request: Request) -> None:
    """Tell a client that asked before that it may send its body."""
    if request.headers.get("Expect") is None or request.version < (1, 1):
        return
    if request.transport is not None and not request.wire.is_eof():
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def finish_sending(service: Service, served: EndpointHandler, answer: ResponseSink) -> None:
    """Stay until the client has taken a whole answer, within the time that its endpoint allows."""
    timer = RunTimer(answer, served.limits, service.timers)
    timer.begin_closing()
    try:
        await answer.request.room()
    finally:
        timer.end()
        service.discard(timer)


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
        if served.prepare is not None:
            answer.headers += served.prepare(run, inputs)
        sent = answer.finish(stack(run, inputs))
    except Exception as error:  # noqa: BLE001  (whatever it is, it is reported)
        outcome, reason = "failed", located(error)
        ended = outcome_of(reason, answer, None)
        sent = fail(served, run, answer, reason)
    service.ended(served, answer, ended, reason)
    service.after(run, outcome, None)
    if isinstance(sent, Whole):
        sent.wait_for_reader, sent.answer = partial(finish_sending, service, served, answer), answer
    return sent
