"""A project as an ordinary aiohttp application: to be mounted, wrapped, tested, and run by gunicorn."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from yarl import URL

from streamstack.errors import ProjectError
from streamstack.functions import REGISTRY
from streamstack.language.definition import Project
from streamstack.language.findings import write_text
from streamstack.language.project import Checked, read_project
from streamstack.runtime.plan import compile_project
from streamstack.server.alerts import AlertMonitor, watching
from streamstack.server.api_document import ApiDocument
from streamstack.server.connection import HEADERS, LINE_SIZE, HttpServer
from streamstack.server.context import make_context, prepare_databases
from streamstack.server.endpoints import UnservableError, make_cors, make_endpoints
from streamstack.server.metrics import MetricsAccess, SharedCounters, WorkerMetrics
from streamstack.server.reloading import first_edition
from streamstack.server.replies import log
from streamstack.server.request_log import RequestLog
from streamstack.server.serve import prepare
from streamstack.server.service import Service

#: The service of an application that `make_application` has made.
SERVICE: Final = web.AppKey("streamstack", Service)


def make_application(
    folder: str | os.PathLike[str], *, environment: Mapping[str, str] | None, dev: bool, url: str | None
) -> web.Application:
    """Make an application of the definitions below a folder, as `streamstack.application` tells.

    Raises ProjectError, and OSError for files that can't be read.
    """
    variables = os.environ if environment is None else environment
    checked = read_project(Path(folder), REGISTRY, variables, check_environment=True)
    if checked.failed:
        text = write_text(checked.findings, checked.sources).rstrip()
        raise ProjectError(text, checked.findings)
    if not checked.project.endpoints:
        raise ProjectError(f"no endpoints found in {folder}", checked.findings)
    for each in checked.findings:
        log.warning(each.message, code=each.code, place=str(each.mark))
    return _application(checked, dev=dev, url=url)


def _application(checked: Checked, *, dev: bool, url: str | None) -> web.Application:
    try:
        edition = first_edition(checked, dev=dev)
    except UnservableError as error:
        raise ProjectError(str(error), checked.findings) from error
    settings, log_settings = checked.settings.server, checked.settings.log
    access = MetricsAccess(settings.metrics, dev=dev)
    context = make_context(checked, checked.environment, dev=dev, joins=True)
    context.address.url = url
    counters = SharedCounters(edition.endpoints)
    alerts = AlertMonitor(counters, checked.settings.alerts)
    service = Service(
        edition.endpoints,
        context=context,
        cors=make_cors(settings.cors),
        access=access,
        metrics=WorkerMetrics(counters) if access.possible or edition.counts else None,
        request_log=RequestLog(text=log_settings.is_text(sys.stderr)) if log_settings.access else None,
        max_memory=settings.max_memory,
        api=ApiDocument(checked, dev=dev),
    )

    async def lifespan(_: web.Application) -> AsyncIterator[None]:
        async with service:
            await prepare(edition, service.context, log.warning)
            async with watching(alerts, service):
                yield
            await service.settle()

    async def drain(_: web.Application) -> None:
        service.closing = True
        await service.drain(settings.shutdown_timeout)

    application = web.Application(
        handler_args={
            "handler_cancellation": True,
            "auto_decompress": False,
            "max_line_size": LINE_SIZE,
            "max_field_size": LINE_SIZE,
            "max_headers": HEADERS,
        }
    )
    application[SERVICE] = service
    application.router.register_resource(_Everything(service))
    application.cleanup_ctx.append(lifespan)
    application.on_shutdown.append(drain)
    return application


class _Everything(web.AbstractResource):
    """All paths of an application, for the service to find their endpoints.

    Paths that the host adds to the application beside it are found first: aiohttp looks for the longest.
    """

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service
        self._mount("")

    def _mount(self, prefix: str) -> None:
        self._prefix = prefix
        handler = partial(self._service.handle_hosted, prefix=prefix)
        self._route = web.ResourceRoute("*", handler, self, expect_handler=_expect)

    @property
    def canonical(self) -> str:
        return self._prefix or "/"

    def url_for(self, **_: str) -> URL:
        """Return where the application is mounted."""
        return URL.build(path=self.canonical, encoded=True)

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo, set[str]]:
        """Return the one route there is: what has no endpoint is answered by the service, too."""
        return web.UrlMappingMatchInfo({}, self._route), set()

    def add_prefix(self, prefix: str) -> None:
        """Record where the application is mounted."""
        self._mount(prefix + self._prefix)

    def get_info(self) -> Any:
        """Return what tells this resource from others."""
        return {"prefix": self._prefix}

    def raw_match(self, path: str) -> bool:
        """Return whether a path is this resource's own."""
        return path == self.canonical

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter((self._route,))


async def _expect(request: web.Request) -> None:
    """Leave `Expect: 100-continue` to the endpoint, which may refuse the body."""


@dataclass
class _Serving:
    """A server in a thread of its own; ``address`` is known once it is ``ready``."""

    service: Service
    project: Project
    address: str = ""
    failure: BaseException | None = None
    ready: threading.Event = field(default_factory=threading.Event)
    loop: asyncio.AbstractEventLoop | None = None
    stop: asyncio.Event | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  (raised again where the thread was started)
            self.failure = error
        finally:
            self.ready.set()

    async def _serve(self) -> None:
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        async with self.service:
            await prepare_databases(self.project, self.service.context, log.warning)
            async with listening(self.service) as self.address:
                self.ready.set()
                await self.stop.wait()
                await self.service.jobs.finish()


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[str]:
    """Listen on a free port of this machine, in the running loop; yield the address.

    At the end running requests are stopped, and what runs do `after` is waited for. ``service`` is entered already.
    """
    runner = web.ServerRunner(HttpServer(service), shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        service.context.address.url = f"http://127.0.0.1:{site.port}"
        yield service.context.address.url
        await site.stop()
        await service.drain(0)
    finally:
        await runner.cleanup()
    await service.settle()


@contextmanager
def serving_locally(checked: Checked, environment: Mapping[str, str], *, dev: bool = True) -> Iterator[str]:
    """Serve a checked project, give its address, and stop it; what runs do `after` is waited for.

    With ``dev`` errors are reported as with `--dev`. Raises UnservableError for a definition that can't be served, and
    DatabaseError.
    """
    settings = checked.settings
    endpoints = make_endpoints(compile_project(checked.project), settings, dev=dev)
    context = make_context(checked, environment, dev=dev, joins=True)
    api = ApiDocument(checked, dev=dev)
    service = Service(endpoints, context=context, cors=make_cors(settings.server.cors), api=api)
    serving = _Serving(service, checked.project)
    thread = threading.Thread(target=serving.run, name="streamstack", daemon=True)
    thread.start()
    serving.ready.wait()
    try:
        if serving.failure is not None:
            raise serving.failure
        yield serving.address
    finally:
        if serving.loop is not None and serving.stop is not None and thread.is_alive():
            serving.loop.call_soon_threadsafe(serving.stop.set)
        thread.join()
