"""Run tests: each one on a server, a context, a state and databases of its own, and record what happened."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import structlog

from streamstack import clock
from streamstack.connections.database.temporary import TemporaryDatabases, TestDatabase, TestDatabases
from streamstack.errors import Mark, RunError
from streamstack.functions.channels import open_channels
from streamstack.functions.db import open_databases
from streamstack.functions.email import open_mailer
from streamstack.language import nodes
from streamstack.language.cases import Case, CaseClient, CaseRequest, CaseTurn, Exchange, ExpectedRows, Publication
from streamstack.language.definition import Endpoint
from streamstack.language.filters import tests as filter_tests
from streamstack.language.mail import Address
from streamstack.language.masking import mask
from streamstack.language.nodes import Node
from streamstack.language.settings import default_database
from streamstack.runtime.run import Context, DeferredWork, Run
from streamstack.server.app import listening
from streamstack.server.context import make_context
from streamstack.server.endpoints import EndpointHandler, UnservableError, make_cors
from streamstack.server.request import Request
from streamstack.server.request_log import RequestLog
from streamstack.server.response import ResponseSink
from streamstack.server.resume.requests import PREFIX
from streamstack.server.service import Service
from streamstack.server.tasks import Scheduler, TaskHandler
from streamstack.testing.answers import Fault
from streamstack.testing.calls import Call
from streamstack.testing.channels import RecordedChannels
from streamstack.testing.client import ReceivedAnswer, send
from streamstack.testing.comparison import counted
from streamstack.testing.database_relay import DatabaseRelay
from streamstack.testing.recorder import Recorder, Recording
from streamstack.testing.session import Edition, TestProject
from streamstack.testing.upstreams import LocalUpstreams
from streamstack.testing.virtual_time import VirtualTimeError, virtual_time

#: Seconds of real time that a test may take.
LIMIT: Final = 10.0
#: The same of one that asks real upstreams.
_RECORDING_LIMIT: Final = 600.0
#: Seconds of real time in which something has to happen.
STALL_LIMIT: Final = 2.0
#: Seconds that runs have to end once their clients are done: of virtual time, or else of real time.
_DRAIN_LIMIT: Final = 24 * 3600.0
_REAL_DRAIN_LIMIT: Final = 5.0
#: Seconds until a server has surely noticed that a client has left, or has begun what it waits for.
_NOTICE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Injection:
    """What is changed in a run of a test.

    Args:
        answers: Faults of upstreams' answers, by the number of the call.
        clients: How clients behave in the place of those of the test, by exchange.
        mails: How mails are treated, by their number.
        statement: The statement at which the connection to the database is lost, counted from 1; 0 is none.
        lose_reply: The database gets that statement, and only its answer is lost.
        stays_down: The database stays away after that.
        client_timeout: Seconds after which clients leave whose answers have not ended.
        stored_chunks: How many chunks resumable streams store; None is what their endpoints say.
    """

    answers: Mapping[int, Fault] = field(default_factory=dict)
    clients: Mapping[int, CaseClient] = field(default_factory=dict)
    mails: Mapping[int, str] = field(default_factory=dict)
    statement: int = 0
    lose_reply: bool = False
    stays_down: bool = False
    client_timeout: float | None = None
    stored_chunks: int | None = None

    def change(self, endpoint: EndpointHandler) -> EndpointHandler:
        """Return an endpoint as it is served."""
        if self.stored_chunks is None or endpoint.resume is None:
            return endpoint
        return replace(endpoint, resume=replace(endpoint.resume, max_chunks=self.stored_chunks))


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended: one of `OUTCOMES`, and its error. Without a run, a request that no endpoint took."""

    outcome: str
    error: RunError | None = None
    endpoint: str = ""
    afters: Sequence[DeferredWork] = ()


@dataclass(slots=True)
class Observation:
    """What happened in a test.

    Args:
        answers: What the client received, by exchange.
        ends: How runs ended, by their id.
        calls: What upstreams were asked.
        recordings: What real upstreams answered.
        mails: What was sent by mail.
        published: What definitions published to channels.
        log: What was logged.
        rows: What each query of `database` gave, or the error that it ended by, by exchange.
        statements: How many statements the databases got.
        contract: What of each answer the OpenAPI document of the project does not allow.
        unhandled: Errors that nothing in the server has handled.
        failure: Why the test could not be run, and where: None is the test itself.
    """

    answers: list[ReceivedAnswer] = field(default_factory=list)
    ends: dict[str, RunEnd] = field(default_factory=dict)
    calls: Sequence[Call] = ()
    recordings: Sequence[Recording] = ()
    mails: Sequence[Mapping[str, Any]] = ()
    published: Sequence[Mapping[str, Any]] = ()
    log: list[dict[str, Any]] = field(default_factory=list)
    rows: list[list[list[dict[str, Any]] | RunError]] = field(default_factory=list)
    statements: int = 0
    contract: list[list[str]] = field(default_factory=list)
    unhandled: list[str] = field(default_factory=list)
    failure: str = ""
    failed_at: Mark | None = None
    seconds: float = 0.0

    def end_of(self, answer: ReceivedAnswer) -> RunEnd | None:
        """Return how the run of an answer ended. A client that left before the head has the only run there was."""
        found = self.ends.get(answer.run)
        if found is None and answer.status is None and len(self.answers) == 1:
            return next(iter(self.ends.values()), None)
        return found


class _RunEnds(RequestLog):
    """Records how runs end, instead of logging it."""

    def __init__(self, ends: dict[str, RunEnd]) -> None:
        super().__init__(text=False)
        self._ends = ends

    def ended(self, endpoint: str, answer: ResponseSink, outcome: str, error: RunError | None) -> None:
        self._ends[answer.run.id] = RunEnd(outcome, error, endpoint, answer.run.afters)

    def background(self, title: str, run: Run, outcome: str, error: RunError | None, about: Mapping[str, Any]) -> None:
        self._ends[run.id] = RunEnd(outcome, error, title, run.afters)

    def answered(self, request: Request, outcome: str) -> None:
        """Record nothing: the request had no run."""

    def refused(self, request: Request, error: RunError) -> None:
        """Record nothing: the answer says it."""


def run_case(
    project: TestProject,
    case: Case,
    databases: TestDatabases,
    folder: Path,
    injection: Injection | None = None,
    *,
    record: bool = False,
    limit: float | None = None,
) -> Observation:
    """Run a test and return what happened.

    Args:
        project: The project under test.
        case: The test.
        databases: Makes its databases.
        folder: Where the project keeps what it makes itself, in place of `.streamstack`.
        injection: The faults of this run. With one, statements are counted.
        record: Calls that no upstream of the test answers are answered by the hosts that they name.
        limit: Seconds of real time that it may take, instead of the usual ones.
    """
    seen = Observation()
    received: list[ReceivedAnswer] = []
    began = perf_counter()
    limit = limit or (_RECORDING_LIMIT if record else LIMIT)
    try:
        edition = _edition(project, case)
        with _logging_to(seen.log), _seeded(case.seed), _loop(case, limit) as run:
            run(
                lambda: _CaseRun(
                    project, edition, case, seen, databases, folder, received, injection, record=record
                ).run()
            )
        if injection is None:
            seen.contract += [
                _contract_violations(edition, *each) for each in zip(case.exchanges, seen.answers, strict=True)
            ]
    except (UnservableError, ValueError) as error:
        seen.failure = str(error)
    except RunError as error:
        seen.failure = error.full
    except ExceptionGroup as group:
        known, others = group.split((RunError, ValueError))
        if known is None or others is not None:
            raise
        seen.failure = "; ".join(map(_reason, known.exceptions))
    except VirtualTimeError as error:
        seen.failure = f"{error}{_so_far(received)}"
    except TimeoutError:
        waits = f"the test took longer than {limit:g} s: something waits for what never comes"
        seen.failure = f"{waits}{_so_far(received)}"
    seen.seconds = perf_counter() - began
    return seen


def _so_far(received: Sequence[ReceivedAnswer]) -> str:
    """Return what clients of a test had received before it was given up."""
    return f"\n  the client had received {counted(len(received[-1].chunks), 'chunk')}" if received else ""


def _reason(error: Exception) -> str:
    return error.full if isinstance(error, RunError) else str(error)


def _contract_violations(edition: Edition, exchange: Exchange, answer: ReceivedAnswer) -> list[str]:
    """Return what of an answer the OpenAPI document does not allow."""
    endpoint = edition.endpoint(exchange.request.method, exchange.request.path)
    return [] if endpoint is None or answer.status is None else edition.contract.violations(endpoint, answer)


def _edition(project: TestProject, case: Case) -> Edition:
    edition = project.edition(case.env, variants=case.experiments)
    keys = set()
    for index, exchange in enumerate(case.exchanges):
        request = exchange.request
        if request.auth is not None:
            key = project.caller_key(edition, _endpoint_of(edition, case, index), request.auth)
            if key is not None:
                keys.add(key)
    return project.edition(case.env, frozenset(keys), case.experiments) if keys else edition


async def _never_sent() -> ReceivedAnswer:
    """Return the answer to a request that depends on one which a fault has cut off."""
    return ReceivedAnswer(left=True)


def _endpoint_of(edition: Edition, case: Case, index: int) -> Endpoint | None:
    """Return the endpoint of a request; of one to `/_streams`, that of the last one before, which began the stream."""
    while index and case.exchanges[index].request.path.startswith(PREFIX):
        index -= 1
    request = case.exchanges[index].request
    return edition.endpoint(request.method, request.path)


@dataclass(slots=True)
class _CaseRun:
    """One test, while it runs."""

    project: TestProject
    edition: Edition
    case: Case
    seen: Observation
    databases: TestDatabases
    folder: Path
    received: list[ReceivedAnswer]
    injection: Injection | None = None
    record: bool = False

    def _note(self, _: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Record what a task or a callback has left behind: asyncio would log it. Errors of sockets don't count."""
        error = context.get("exception")
        if isinstance(error, OSError):
            return
        self.seen.unhandled.append(f"{context['message']}: {error!r}" if error is not None else str(context["message"]))

    async def run(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._note)
        async with AsyncExitStack() as stack:
            upstreams = await stack.enter_async_context(self._upstreams())
            self.seen.calls = upstreams.calls
            context = self._context(upstreams)
            upstreams.address = context.address
            injection = self.injection or Injection()
            for number, fault in injection.answers.items():
                upstreams.overlay(number, fault)
            opened = TemporaryDatabases(context.databases, context.folder, self.databases)
            context.provide(open_databases, opened)
            channels = RecordedChannels(context.channels, context.state)
            self.seen.published = channels.published
            context.provide(open_channels, channels)
            if self.project.sends_mail:  # whose library most tests don't need
                self._catch_mails(context, injection)
            settings = self.edition.checked.settings.server
            service = await stack.enter_async_context(
                Service(
                    tuple(map(injection.change, self.edition.endpoints)),
                    context=context,
                    cors=make_cors(settings.cors),
                    request_log=_RunEnds(self.seen.ends),
                    max_memory=settings.max_memory,
                    scheduler=partial(Scheduler, handlers=map(TaskHandler, self.edition.plans.tasks)),
                )
            )
            if self.case.sql:
                await self._fill(self._database(opened, context), self.case.sql, {}, self.case.node)
            if self.case.rows:
                await self._fill(self._database(opened, context), "", self.case.rows, self.case.node)
            relay = await stack.enter_async_context(
                DatabaseRelay(injection.statement, lose_reply=injection.lose_reply, stays_down=injection.stays_down)
            )
            if self.injection is not None:
                for name in context.databases:
                    opened[name].relay = relay.route
            async with listening(service) as address:
                if tasks := self.case.tasks:
                    service.scheduler.begin(None if isinstance(tasks, bool) else tasks)
                sent: list[asyncio.Task[ReceivedAnswer]] = []
                async with asyncio.TaskGroup() as group:
                    for index, exchange in enumerate(self.case.exchanges):
                        client = injection.clients.get(index, exchange.client)
                        if exchange.sql:
                            await self._fill(self._database(opened, context), exchange.sql, {}, self._node(index))
                        request = self._bound(exchange.request)
                        credentials = self._credentials(index)
                        self.received.append(ReceivedAnswer())
                        if request is None:
                            sent.append(group.create_task(_never_sent()))
                            continue
                        work = self._turn(service, request) or send(
                            address,
                            request,
                            client,
                            credentials,
                            self._format(request),
                            client_timeout=injection.client_timeout,
                            answer=self.received[-1],
                        )
                        sent.append(group.create_task(work))
                        if exchange.publish:
                            group.create_task(self._publish(channels, exchange.publish))
                        if client.background:
                            await asyncio.sleep(_NOTICE)
                            continue
                        answer = await sent[-1]
                        if answer.left or not answer.whole:
                            await asyncio.sleep(_NOTICE)
                self.seen.answers += [task.result() for task in sent]
                service.scheduler.stop()
                await service.idle(_REAL_DRAIN_LIMIT if self.case.real_time else _DRAIN_LIMIT)
                await service.settle()
            self.seen.statements = relay.statements
            for exchange in self.case.exchanges:
                queries = exchange.expect.database or ()
                self.seen.rows.append([await self._query(opened, context, each) for each in queries])

    async def _publish(self, channels: RecordedChannels, publications: Sequence[Publication]) -> None:
        try:
            await channels.publish_all(publications, _NOTICE)
        except RunError as error:
            self.seen.failed_at = publications[0].mark
            raise ValueError(f"the test's own `publish` failed: {error.full}") from error

    def _catch_mails(self, context: Context, injection: Injection) -> None:
        from streamstack.testing.mails import CaughtMails  # noqa: PLC0415

        sender = context.email.sender or Address("sender", "test.invalid")
        caught = CaughtMails(replace(context.email, sender=sender), injection.mails)
        context.provide(open_mailer, caught)
        self.seen.mails = caught.mails

    def _turn(self, service: Service, request: CaseRequest) -> Coroutine[Any, Any, ReceivedAnswer] | None:
        """Return what runs a task, or waits, in place of a request; None for a request."""
        return None if request.turn is None else _take_turn(service, request.turn, self.received[-1])

    def _upstreams(self) -> LocalUpstreams:
        if not self.record:
            return LocalUpstreams(self.case.upstreams)
        recorder = Recorder(self.case.upstreams, self.edition.checked.settings.http)
        self.seen.recordings = recorder.recordings
        return recorder

    def _context(self, upstreams: LocalUpstreams) -> Context:
        context = make_context(self.edition.checked, self.case.env, dev=False, folder=self.folder)
        return replace(context, http=replace(context.http, redirect=upstreams.redirect))

    def _bound(self, request: CaseRequest) -> CaseRequest | None:
        """Return a request with the path that it has after the answers so far; None where a fault has left none."""
        if request.bind is None:
            return request
        try:
            return replace(request, path=request.bind([each.shown() for each in self.received]))
        except RunError:
            if self.injection is None:
                raise
            return None

    def _credentials(self, index: int) -> Mapping[str, str]:
        request = self.case.exchanges[index].request
        if request.auth is None:
            return {}
        endpoint = _endpoint_of(self.edition, self.case, index)
        return self.project.credentials(self.edition, endpoint, request.auth)

    def _format(self, request: CaseRequest) -> str:
        """Return the format of the endpoint that is called, "" of one that does not stream."""
        endpoint = self.edition.endpoint(request.method, request.path)
        streams = endpoint is not None and endpoint.response_type == "streaming"
        return str(endpoint.streaming.format) if streams and endpoint is not None else ""

    def _database(self, opened: TemporaryDatabases, context: Context, name: str | None = None) -> TestDatabase:
        name = name or default_database(dict.fromkeys(context.databases))
        if name is None or name not in opened:
            known = ", ".join(context.databases)
            raise ValueError(f"unknown database `{name}`; known are {known}" if name else f"name one of {known}")
        return opened[name]

    def _node(self, index: int) -> Node:
        """Return what one of the `requests` is written as."""
        listed = self.case.node.get("requests") if isinstance(self.case.node, nodes.Mapping) else None
        return listed.items[index] if isinstance(listed, nodes.Sequence) else self.case.node

    async def _fill(
        self, database: TestDatabase, sql: str, rows: Mapping[str, tuple[Mapping[str, Any], ...]], node: Node
    ) -> None:
        """Run the SQL of a test, or insert its rows, which ``node`` has. Raises ValueError where they are wrong."""
        try:
            await database.fill(sql, rows)
        except RunError as error:
            name = "sql" if sql else "rows"
            key = node.key(name) if isinstance(node, nodes.Mapping) else None
            self.seen.failed_at = key.mark if key is not None else None
            raise ValueError(f"the test's own `{name}` failed: {error.full}") from error

    async def _query(
        self, opened: TemporaryDatabases, context: Context, expected: ExpectedRows
    ) -> list[dict[str, Any]] | RunError:
        try:
            rows: list[dict[str, Any]] = await self._database(opened, context, expected.database).query(expected.sql)
        except RunError as error:
            return error
        return rows


async def _take_turn(service: Service, turn: CaseTurn, answer: ReceivedAnswer) -> ReceivedAnswer:
    """Run a task, or wait, and record how that ended. Raises ValueError where the project has no such task."""
    answer.began = asyncio.get_running_loop().time()
    if turn.task:
        ended = await service.scheduler.run(turn.task, turn.at or clock.now(), turn.event)
        answer.headers["X-Run-Id"] = ended.run.id
        if (error := ended.error) is not None:
            answer.error = {"code": error.code, "message": error.public, "status": error.status}
    else:
        await asyncio.sleep(turn.wait)
    answer.ended = asyncio.get_running_loop().time() - answer.began
    answer.whole = True
    if turn.wait:
        await asyncio.sleep(_NOTICE)  # tasks that are due at the end have begun
    return answer


# ------------------------------------------------------------------------------- what surrounds a test


@contextmanager
def _logging_to(lines: list[dict[str, Any]]) -> Iterator[None]:
    """Record what is logged, as the log would show it."""
    before = structlog.get_config()

    def record(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        lines.append(dict(line))
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, mask, record],
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let the random functions of the language give the same values each time; secrets never come from there."""
    before, bytes_before = random.getstate(), filter_tests.random_bytes
    random.seed(seed)
    filter_tests.random_bytes = random.randbytes
    try:
        yield
    finally:
        random.setstate(before)
        filter_tests.random_bytes = bytes_before


@contextmanager
def _loop(case: Case, limit: float) -> Iterator[Callable[[Callable[[], Coroutine[Any, Any, None]]], None]]:
    """Yield what runs a coroutine function by the clock of a test, for no longer than its limit."""
    if case.real_time:
        with asyncio.Runner() as runner:
            yield lambda work: runner.run(asyncio.wait_for(work(), limit))
    else:
        with virtual_time(case.now, stall_limit=STALL_LIMIT, limit=limit) as runner:
            yield lambda work: runner.run(work())
