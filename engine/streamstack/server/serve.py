"""Serve in one process: start, listen, stop gracefully."""

from __future__ import annotations

import asyncio
import gc
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from streamstack.errors import RunError
from streamstack.functions.state import open_redis
from streamstack.language.findings import write_text
from streamstack.runtime.run import Context
from streamstack.server.alerts import AlertMonitor, watching
from streamstack.server.api_document import ApiDocument
from streamstack.server.connection import HttpServer
from streamstack.server.context import (
    AuthenticationError,
    DatabaseError,
    make_context,
    prepare_callers,
    prepare_databases,
)
from streamstack.server.deadlines import LoopFaults
from streamstack.server.endpoints import make_cors
from streamstack.server.metrics import MetricsAccess, SharedCounters, WorkerMetrics
from streamstack.server.reloading import BrokenError, Edition, FileChanges, Read, next_edition
from streamstack.server.request_log import RequestLog
from streamstack.server.service import ABORT_TIMEOUT, Service
from streamstack.server.signals import HANGUP, START_ABORTED, Early, exit_on_signal, on_terminal
from streamstack.server.sockets import (
    BACKLOG,
    AddressError,
    ServerTls,
    TlsError,
    allow_connections,
    bind,
    explain,
    shown,
    url_of,
)
from streamstack.server.tasks import Scheduler

#: Seconds that a connection which was just made has for its one request, when the server no longer listens.
GRACE = 1.0


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loops, where it is installed."""
    try:
        import uvloop  # noqa: PLC0415  (not on every system)
    except ImportError:
        return None
    return uvloop.new_event_loop


def keep_out_of_collections() -> None:
    """Let the garbage collector pass over what was loaded: it stays."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def run_to_end(
    work: Coroutine[Any, Any, object], make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> None:
    """Run what ends with the process, in an event loop that stays open.

    To close it would wait for the threads in which names are looked up: some 40 seconds for a slow name server.
    """
    runner = asyncio.Runner(loop_factory=make_loop)
    try:
        runner.run(work)
    except BaseException:
        runner.close()
        raise


class ServerProcess:
    """Serves on sockets. ``stop_requested`` is set once it shall stop."""

    def __init__(self, task: ServeOptions, service: Service, sockets: Sequence[socket.socket]) -> None:
        self.service = service
        self.stop_requested = asyncio.Event()
        self._hurried = asyncio.Event()
        self._sockets = sockets
        self._settings = task.edition.checked.settings.server
        self._tls = task.tls
        self._http: HttpServer
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Begin to listen. Raises OSError where that can't be."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(LoopFaults())
        settings = self._settings
        most, _ = allow_connections(settings.max_connections)
        self._http = HttpServer(self.service, most=most, head_timeout=settings.head_timeout)
        address = self._sockets[0].getsockname()
        if self._tls is None:
            listening = [loop.create_server(self._http, sock=each, backlog=BACKLOG) for each in self._sockets]
        else:
            patience = settings.head_timeout or None
            listening = [
                loop.create_server(
                    self._http, sock=each, backlog=BACKLOG, ssl=self._tls.context, ssl_handshake_timeout=patience
                )
                for each in self._sockets
            ]
            # What definitions call of their own server they call here: the certificate need not name this machine.
            (own,) = bind("127.0.0.1", 0)[0]
            address = own.getsockname()
            listening.append(loop.create_server(self._http, sock=own))
        self._servers = [await each for each in listening]
        self.service.context.address.url = url_of(*address[:2])

    def stop(self) -> None:
        """Ask for its end: running streams have some time."""
        self.stop_requested.set()

    def stop_now(self) -> None:
        """Ask for its end at once."""
        self.stop_requested.set()
        self._hurried.set()
        self.service.stop_now()

    async def close(self, *, delay: bool = True, followed: bool = False) -> None:
        """Stop in good order; return when everything is sent and done, or its time is over.

        With ``delay``, requests are taken for `shutdownDelay` still, while health checks report the shutdown.
        ``followed``: another process listens on the same sockets.
        """
        loop = asyncio.get_running_loop()
        self.service.ready = False
        self.service.scheduler.stop()
        self._http.close_after_response()
        if delay and self._settings.shutdown_delay:
            await self._wait(self._settings.shutdown_delay)
        began = loop.time()
        if not followed:
            await self._empty_doors()
        await self._close_doors()
        while self._http.fresh and loop.time() < began + GRACE and not self._hurried.is_set():
            await self._wait(0.02)
        await _yield_to_loop()
        remaining = began + self._settings.shutdown_timeout - loop.time()
        await self.service.drain(0.0 if self._hurried.is_set() else max(remaining, 0.0))
        self._http.pre_shutdown()
        await self._http.shutdown(1.0)
        await self._http.flushed(ABORT_TIMEOUT)
        await self.service.settle()

    async def _empty_doors(self) -> None:
        """Accept waiting connections: with the sockets they would be closed."""
        for each in self._sockets:
            with suppress(OSError):
                each.listen(0)  # the system brings no connection here, where another socket has the port
        # The loop accepts one at a time; as many as may wait is enough.
        for _ in range(2 * BACKLOG):
            if not _waited_for(self._sockets):
                break
            await asyncio.sleep(0)

    async def _close_doors(self) -> None:
        """Listen no more; who was connected already is heard."""
        await _yield_to_loop()
        for server in self._servers:
            server.close()
        self._http.close_idle()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()


def _waited_for(sockets: Sequence[socket.socket]) -> bool:
    """Return whether a connection waits to be accepted."""
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ)
        return bool(selector.select(0))


async def _yield_to_loop() -> None:
    """Let the loop turn until every request that has come is accepted, read, and has its task."""
    for _ in range(5):
        await asyncio.sleep(0)


Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What is to be served, and how. ``read`` reads the project again; ``reload``: whenever its files change.

    ``early`` is what signals have asked for so far.
    """

    edition: Edition
    host: str
    port: int
    announce: Announce
    read: Read
    dev: bool = False
    reload: bool = False
    early: Early = field(default_factory=Early)
    tls: ServerTls | None = None

    def reload_certificate(self) -> None:
        """Read the certificate again; where it can't be used, the one before stays."""
        if self.tls is not None:
            try:
                self.tls.reload()
            except TlsError as error:
                self.announce(f"{error}; the certificate that was read last stays in use")

    def context(self, *, joins: bool = False, starts: bool = True) -> Context:
        """Return the context of runs, as `make_context` does."""
        checked = self.edition.checked
        return make_context(checked, checked.environment, dev=self.dev, joins=joins, starts=starts)

    def service(self, context: Context, counters: SharedCounters, slot: int = 0, *, first: bool = True) -> Service:
        """Return the service of one process, which counts in a slot of the counters. ``first``: the first worker's."""
        server, log = self.edition.checked.settings.server, self.edition.checked.settings.log
        access = MetricsAccess(server.metrics, dev=self.dev)
        counts = access.possible or self.edition.counts
        return Service(
            self.edition.endpoints,
            context=context,
            cors=make_cors(server.cors),
            access=access,
            metrics=WorkerMetrics(counters, slot) if counts else None,
            request_log=RequestLog(text=log.is_text(sys.stderr)) if log.access else None,
            max_memory=server.max_memory,
            api=ApiDocument(self.edition.checked, dev=self.dev),
            scheduler=partial(Scheduler, handlers=self.edition.tasks, counters=counters, slot=slot, first=first),
        )


def serve(task: ServeOptions) -> None:
    """Serve in this process until SIGTERM or SIGINT; return when all is closed.

    Raises AddressError for an address that can't be had, AuthenticationError, DatabaseError.
    """
    keep_out_of_collections()
    run_to_end(_Alone(task).run(), loop_factory())


class _Alone:
    """The one process."""

    def __init__(self, task: ServeOptions) -> None:
        self._task = task
        self._counters = SharedCounters(task.edition.counted)
        self._edition = task.edition
        self._service = task.service(task.context(), self._counters)
        self._reload_requested = asyncio.Event()
        self._alerts = AlertMonitor(self._counters, task.edition.checked.settings.alerts)

    async def run(self) -> None:
        """Serve until a signal says stop."""
        task, service = self._task, self._service
        sockets = bind(task.host, task.port)[0]
        port = sockets[0].getsockname()[1]
        serving = ServerProcess(task, service, sockets)
        self._install_signal_handlers(serving)
        try:
            async with service:
                if not await unless(serving.stop_requested, self._prepare(self._edition)):
                    task.announce(START_ABORTED)
                    return
                try:
                    await serving.start()
                except OSError as error:
                    raise AddressError(explain(error, task.host, port)) from error
                announce_shortage(self._edition, task.announce)
                announce_addresses(task, port)
                async with watching(self._alerts, service):
                    service.scheduler.begin()
                    await self._keep_fresh(serving)
                task.announce(STOPPING)
                await serving.close()
        finally:
            for each in sockets:
                each.close()
            self._remove_signal_handlers()

    def _install_signal_handlers(self, serving: ServerProcess) -> None:
        def take_signal() -> None:
            if serving.stop_requested.is_set():
                serving.stop_now()  # the second signal: its sender does not want to wait
            serving.stop()

        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, take_signal)
        if HANGUP is not None:
            loop.add_signal_handler(HANGUP, take_signal if on_terminal() else self._reload_requested.set)
        if self._task.early.reload:
            self._reload_requested.set()

    def _remove_signal_handlers(self) -> None:
        """Take signals from the loop, which would give them back their defaults when it is closed."""
        loop = asyncio.get_running_loop()
        signals = [signal.SIGTERM, signal.SIGINT, *([] if HANGUP is None else [HANGUP])]
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # it gives them back now, for a moment
        for each in signals:
            loop.remove_signal_handler(each)
        exit_on_signal()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    async def _prepare(self, edition: Edition) -> None:
        await prepare(edition, self._service.context, self._task.announce)

    async def _keep_fresh(self, serving: ServerProcess) -> None:
        """Reload the files when they change or a signal says so, until the server stops."""
        files = FileChanges(self._edition.checked) if self._task.reload else None
        while not serving.stop_requested.is_set():
            await unless(serving.stop_requested, self._wait_for_changes(files))

    async def _wait_for_changes(self, files: FileChanges | None) -> None:
        """Wait until a signal says so or files have changed, and serve them."""
        changed: list[str] = []
        while not changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if files is None else files.pause):
                    await self._reload_requested.wait()
                    break
            if files is not None:
                changed = await asyncio.to_thread(files.take)
        self._reload_requested.clear()
        await self._reload_files(changed)

    async def _reload_files(self, changed: list[str]) -> None:
        task, service = self._task, self._service
        task.reload_certificate()
        before = self._edition
        try:
            self._edition = edition = await reload(task, service, self._counters, before)
        except BrokenError as error:
            task.announce(f"{error}\n{STILL_SERVED}")
            return
        self._alerts.replace(edition.checked.settings.alerts)
        if news := edition.news(before):
            task.announce(news)
        task.announce(reload_message(edition, changed))
        try:
            await self._prepare(edition)
        except (AuthenticationError, DatabaseError) as error:
            task.announce(str(error))  # the rest is served; requests that need this fail with the reason


async def reload(
    task: ServeOptions,
    service: Service,
    counters: SharedCounters,
    before: Edition,
    titles: Sequence[str] = (),
    slot: int = 0,
) -> Edition:
    """Serve the files as they are now. ``titles`` have their rows in the counters already, in this order.

    ``slot`` is that of this process in the counters.

    Raises BrokenError for what can't be served in place of the edition before.
    """
    edition = await asyncio.to_thread(next_edition, task.read, before, dev=task.dev)
    counters.register_titles(titles)
    counters.register(edition.counted)
    cors = make_cors(edition.checked.settings.server.cors)
    api = ApiDocument(edition.checked, dev=task.dev)
    service.replace(edition.endpoints, edition.context(service.context), cors, api, edition.tasks)
    if service.metrics is None and edition.counts:
        service.count(WorkerMetrics(counters, slot))
    keep_out_of_collections()
    return edition


async def unless(stop_requested: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Do some work, and give it up on shutdown, which does not wait for an unreachable database.

    Return whether the server shall go on.
    """
    waiting = asyncio.ensure_future(stop_requested.wait())
    working = asyncio.ensure_future(work)
    await asyncio.wait({waiting, working}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not working.done():
        working.cancel()
    with suppress(asyncio.CancelledError):
        await working
    return not stop_requested.is_set()


STOPPING = "stopping: no new requests; running streams may finish (again to stop at once)"
STILL_SERVED = "not served: what was served last stays"


async def prepare(edition: Edition, context: Context, announce: Announce) -> None:
    """Make ready what the definitions of an edition need. Raises AuthenticationError, DatabaseError."""
    checked = edition.checked
    prepare_callers(checked.project, context, announce)
    if context.state.shared:
        try:
            await context.resource(open_redis).reach()
        except RunError as error:
            announce(f"{error.message}; it is tried again when it is needed")
    lacking = await prepare_databases(checked.project, context, announce)
    if lacking:
        announce(write_text(lacking, checked.sources).rstrip())


def reload_message(edition: Edition, changed: list[str]) -> str:
    """Return the message for files that were reloaded."""
    names = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return f"reloaded: {counted(edition)}{f' ({names})' if names else ''}"


def counted(edition: Edition) -> str:
    """Return how many endpoints and tasks there are, as text."""
    numbers = {"endpoint": len(edition.endpoints), "task": len(edition.tasks)}
    words = [f"{number} {what}{'s' if number != 1 else ''}" for what, number in numbers.items() if number]
    return " and ".join(words) or "0 endpoints"


def announce_shortage(edition: Edition, announce: Announce) -> None:
    """Say so where the system lets a process have fewer connections than it shall take."""
    _, short = allow_connections(edition.checked.settings.server.max_connections)
    if short:
        announce(short)


def announce_addresses(task: ServeOptions, port: int, workers: int = 1) -> None:
    """List the routes with their files, and say where they are."""
    endpoints, announce = task.edition.endpoints, task.announce
    method = max((len(each.method) for each in endpoints), default=0)
    path = max((len(each.path) for each in endpoints), default=0)
    for each in sorted(endpoints, key=lambda served: (served.path, served.method)):
        announce(f"  {each.method:<{method}}  {each.path:<{path}}  {each.file}")
    for handler in task.edition.tasks:
        announce(f"  task {handler.name}: {handler.schedule}  {handler.plan.task.mark.file}")
    by = f" by {workers} workers" if workers > 1 else ""
    address = shown(task.host, port, "http" if task.tls is None else "https")
    announce(f"serving {counted(task.edition)}{by} on {address}")
