"""The service: what listens for requests, finds their endpoint, and keeps count of the runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from streamstack.errors import RunError
from streamstack.runtime.run import Context, Run
from streamstack.server.at_once import answer_at_once
from streamstack.server.cors import Cors
from streamstack.server.exchange import exchange
from streamstack.server.framing import check_framing
from streamstack.server.heads import header_lines
from streamstack.server.life import Life
from streamstack.server.metrics.exposition import CONTENT_TYPE, Access, exposition
from streamstack.server.metrics.tally import Tally
from streamstack.server.problems import RefusalError, log
from streamstack.server.replies import JSON, Sent, send, send_problem
from streamstack.server.request import Request
from streamstack.server.resume.request import PREFIX, answer_streams, share
from streamstack.server.resume.streams import Streams
from streamstack.server.routes import Routes
from streamstack.server.served import Served

T = TypeVar("T")

#: Seconds that stopped runs have to tell their readers so.
LAST_WORDS = 2.0
#: Seconds that work after the answer has, once the service stops.
LATER = 10.0

#: Paths of the service itself; no endpoint can take them.
_OWN = ("/_health", "/_ready", "/_metrics")
#: Seconds between looks at what runs have sent so far.
_LOOK = 1.0


class Service:
    """Answers requests. An asynchronous context: runs' later work must end before it does."""

    def __init__(
        self,
        endpoints: Iterable[Served] = (),
        *,
        context: Context | None = None,
        cors: Cors | None = None,
        access: Access | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.context = context or Context()
        self.cors = cors or Cors()
        self.access = access or Access(None, dev=False)
        self.tally = tally
        self.lives: set[Life] = set()
        self._later: set[asyncio.Task[Any]] = set()
        self._left = asyncio.Event()
        self._hurried = False
        self._looking: asyncio.TimerHandle | None = None
        self.ready = True
        self.draining = False
        self.streams = Streams(self.context.state.max_size, self._left.set)
        self.routes: Routes[Served] = Routes(())
        self._endpoints: list[Served] = []
        self._group = asyncio.TaskGroup()
        self._entered = False
        self.replace(endpoints)

    def replace(self, endpoints: Iterable[Served], context: Context | None = None) -> None:
        """Serve these endpoints from the next request on, in another context; running ones end on the old."""
        if context is not None:
            self.context = context
        self._endpoints = list(endpoints)
        self.routes = Routes([(each.method, each.path, each) for each in self._endpoints])
        if self._entered:
            self._share_kept()

    def _share_kept(self) -> None:
        if any(each.resume for each in self._endpoints):
            self.share()

    def share(self) -> None:
        """Share streams with other processes, where there are any: once one is kept here, or asked for here."""
        if self.streams.shared is None and self.context.state.shared:
            share(self.streams, self.context, self._group, self.spawn)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        if self.tally is not None:
            self._look(self.tally)
        self._entered = True
        self._share_kept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if error is not None:
            self.abandon()
        await self.streams.close()
        # An error of what was done inside passes as it is; the group would wrap it.
        await self._group.__aexit__(None, None, None)
        await self.context.aclose()

    def answer(self, request: Request) -> Sent | Coroutine[Any, Any, Sent]:
        """Answer one request: at once, or with what answers it in a task of its own."""
        try:
            check_framing(request)
        except RunError as error:
            return send_problem(request, error, keep=False)
        path = request.raw_path
        if "?" in path:
            path = path[: path.index("?")]
        if not path.startswith("/"):
            path = request.rel_url.raw_path  # the absolute form of a proxy's request
        if path in _OWN or self.draining:
            return self._answer_own(request, path)
        if path.startswith(PREFIX):
            return self._told(request, partial(answer_streams, self, request, path))
        try:
            found = self.routes.find(request.method, path)
            if found is None:
                if request.method == "HEAD" and (read := self.routes.find("GET", path)) is not None:
                    return self._told(request, partial(self._answer_head, request, read[0]))
                return self._answer_unfound(request, path)
            served, parameters = found
            cors = self.cors.lines(request.headers.get("Origin")) if self.cors.origins else b""
            answer = served.open(request, cors)
        except RunError as error:
            return self._refuse(request, error)
        if served.at_once is not None:
            # As a task would: what a plug-in sets in its context is not the next request's.
            sent = copy_context().run(
                answer_at_once, self, served, served.at_once, request, parameters, answer
            )
            if sent is not None:
                return sent
        work = exchange(self, served, request, parameters, answer)
        # What outlives its reader begins by itself: he may have gone before anybody waits for it.
        return _outliving(self.spawn(work)) if served.outlives and not answer.keeps else work

    async def _told(self, request: Request, work: Callable[[], Coroutine[Any, Any, Sent]]) -> Sent:
        """Answer with what some work gives, or with the error it ends by."""
        try:
            return await work()
        except RunError as error:
            return self._refuse(request, error)

    def leave(self, life: Life, outcome: str | None = None) -> None:
        """Take note that a request has its answer; without an ``outcome`` its run is another's affair."""
        self.lives.discard(life)
        if self.tally is not None and outcome is not None:
            self.tally.finish(life.row, life.answer, outcome, life)
        if not self.lives:
            self._left.set()

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

    def _refuse(self, request: Request, error: RunError, lines: bytes = b"") -> Sent:
        cors = self.cors.lines(request.headers.get("Origin"))
        if isinstance(error, RefusalError):
            lines += error.lines
        if self.tally is not None:
            self.tally.refuse(error.status)
        return send_problem(request, error, lines=lines + cors, dev=self.context.dev)

    def _answer_own(self, request: Request, path: str) -> Sent:
        if path not in _OWN:
            error = RunError("unavailable", "the server is shutting down", status=503)
            cors = self.cors.lines(request.headers.get("Origin"))
            lines = b"Retry-After: 1\r\n" + cors
            return send_problem(request, error, lines=lines, dev=self.context.dev, keep=False)
        if path == "/_metrics" and not self.access.admits(request):
            return self._refuse_figures(request)
        if request.method not in {"GET", "HEAD"}:
            return self._wrong_method(request, ["GET", "HEAD"])
        if path == "/_metrics":
            return self._answer_figures(request)
        if path == "/_ready" and not self.ready:
            return send(request, 503, JSON, b'{"status":"draining"}', keep=False)
        return send(request, 200, JSON, b'{"status":"ok"}')

    def _answer_figures(self, request: Request) -> Sent:
        assert self.tally is not None
        self.tally.look(self.lives)
        lines = b"Content-Type: %b\r\nCache-Control: no-store\r\n" % CONTENT_TYPE
        return send(request, 200, lines, exposition(self.tally.board))

    def _refuse_figures(self, request: Request) -> Sent:
        """Answer whoever may not see the figures; where nobody may by a token, nothing tells that they are there."""
        if not self.access.asks:
            return self._answer_unfound(request, request.path)
        error = RunError("unauthorized", "the token of `server.metrics` is needed here", status=401)
        return self._refuse(request, error, b"WWW-Authenticate: Bearer\r\n")

    def _look(self, tally: Tally) -> None:
        """Count what runs have sent so far, now and again."""
        tally.look(self.lives)
        self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look, tally)

    def _answer_unfound(self, request: Request, path: str) -> Sent:
        """Answer OPTIONS, which no definition has to name, and what has no route."""
        methods = self.routes.methods(path)
        if not methods:
            if request.method == "OPTIONS" and path == "*":
                return send(request, 204, b"Allow: GET, HEAD, POST, OPTIONS\r\n", b"")
            return self._refuse(request, RunError("not-found", "no endpoint has this path"))
        if request.method == "OPTIONS":
            origin = request.headers.get("Origin")
            lines = header_lines([("Allow", ", ".join(methods))])
            asked = request.headers.get("Access-Control-Request-Headers")
            return send(request, 204, lines + self.cors.preflight(origin, methods, asked), b"")
        return self._wrong_method(request, methods)

    async def _answer_head(self, request: Request, served: Served) -> Sent:
        """Answer with the head that a GET would have, to whom it would be given, without running the stack."""
        if served.guard is not None:
            await served.guard.admit(request, self.context, self.cors)
        wire = served.wire_for(request)
        cors = self.cors.lines(request.headers.get("Origin"))
        return send(request, 200, wire.plain + cors, None)

    def _wrong_method(self, request: Request, methods: list[str]) -> Sent:
        error = RunError("method-not-allowed", f"this path takes {', '.join(methods)}", status=405)
        return self._refuse(request, error, header_lines([("Allow", ", ".join(methods))]))

    # ------------------------------------------------------------- the end of the service

    async def drain(self, patience: float) -> None:
        """Take no more requests; give running ones some seconds, then the error event."""
        self.ready = False
        self.draining = True
        self.streams.leave()
        await self._empty(patience)
        for life in list(self.lives):
            life.stop(RunError("producer-lost", "the server is shutting down", status=503))
        self._hurried = False
        await self._empty(LAST_WORDS)

    def hurry(self) -> None:
        """Wait no longer for what is running."""
        self._hurried = True
        self._left.set()
        self.abandon()

    async def _empty(self, patience: float) -> None:
        """Wait until no request is being answered, and no stream copied, for some seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while (self.lives or self.streams.read) and not self._hurried:
                    self._left.clear()
                    await self._left.wait()

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
