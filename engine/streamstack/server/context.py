"""What a process opens for its runs: databases, the client to itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from aiohttp import web

from streamstack.connections.database import uses_of
from streamstack.connections.database.embedded import Embedded
from streamstack.errors import Diagnostic, RunError
from streamstack.functions.db import open_databases
from streamstack.language.authentication import Jwt
from streamstack.language.definition import Project
from streamstack.language.masking import learn
from streamstack.language.project import Checked
from streamstack.language.settings import Settings
from streamstack.runtime.plan import compile_project
from streamstack.runtime.run import Context
from streamstack.server.connection import HttpServer
from streamstack.server.endpoints import make_cors, make_endpoints
from streamstack.server.replies import log
from streamstack.server.service import Service


def make_context(
    checked: Checked, environment: Mapping[str, str], *, dev: bool, joins: bool = False, starts: bool = True
) -> Context:
    """Return the context of a project's runs.

    ``joins``: its embedded database may be one that another process runs; it always is without ``starts``.
    """
    settings = checked.settings
    learn(environment, secrets_of(settings))
    return Context(
        env=environment,
        settings=settings.settings,
        dev=dev,
        models=settings.models,
        http=settings.http,
        state=settings.state,
        databases=settings.databases,
        authentication=settings.authentication,
        folder=checked.folder,
        joins=joins,
        starts=starts,
    )


def secrets_of(settings: Settings) -> Iterator[str]:
    """Yield what settings hold that nobody may read in the log."""
    for model in settings.models.values():
        yield model.api_key or ""
        yield model.base_url or ""
    for database in settings.databases.values():
        yield database.url or ""
    for method in settings.authentication.values():
        if isinstance(method, Jwt):
            yield method.secret or ""
    if settings.state.redis is not None:
        yield settings.state.redis.password or ""


#: Seconds that a worker waits for its databases before it takes requests all the same.
WARM_WITHIN = 5.0


class DatabaseError(Exception):
    """A database that no waiting would mend."""


async def prepare_databases(project: Project, context: Context, tell: Callable[[str], None]) -> list[Diagnostic]:
    """Connect to the databases that definitions use, run their setup, and report what they lack.

    ``tell`` is told of a database that is out of reach: it may be there when it is needed. Raises DatabaseError where
    waiting would not help: the embedded server can't start, or a setup file fails.
    """
    uses = uses_of(project, context.databases)
    if not uses:
        return []
    databases = context.resource(open_databases)
    found: list[Diagnostic] = []
    for name, steps in uses.items():
        try:
            was_open = databases[name].is_open
            await databases[name].open()
            if was_open and databases[name].settings.setup:
                await databases[name].set_up()  # the files are reloaded
            found += await databases[name].check(steps)
        except RunError as error:
            if error.final:
                raise DatabaseError(error.full) from error
            tell(f"{error.full}; it is tried again when it is needed")
    return found


async def warm_databases(project: Project, context: Context) -> None:
    """Connect to the databases that definitions use, where that is soon done."""
    databases = context.resource(open_databases)
    with suppress(TimeoutError):
        async with asyncio.timeout(WARM_WITHIN):
            for name in uses_of(project, context.databases):
                try:
                    await databases[name].open()
                except Exception as error:  # noqa: BLE001  (it is told, and tried again, when it is needed)
                    log.info("database-not-ready", database=name, reason=str(error))


def embedded_of(project: Project, context: Context) -> Embedded | None:
    """Return the embedded server that the definitions need, not started yet; None where they need none."""
    for name in uses_of(project, context.databases):
        settings = context.databases[name]
        if settings.url is None:
            return Embedded(context.folder, bin_folder=settings.bin)
    return None


@dataclass
class _Serving:
    """A server in a thread of its own; ``port`` is known once it is ``ready``."""

    service: Service
    project: Project
    port: int = 0
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
            runner = web.ServerRunner(HttpServer(self.service), shutdown_timeout=1.0)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = site.port
            self.service.context.address.url = f"http://127.0.0.1:{site.port}"
            self.ready.set()
            await self.stop.wait()
            await site.stop()
            await self.service.drain(0)
            await runner.cleanup()
            await self.service.settle()


@contextmanager
def serving_locally(checked: Checked, environment: Mapping[str, str], *, dev: bool = True) -> Iterator[str]:
    """Serve a checked project, give its address, and stop it; what runs do `after` is waited for.

    With ``dev`` errors are told as with `--dev`. Raises UnservableError for a definition that can't be served, and
    DatabaseError.
    """
    settings = checked.settings
    endpoints = make_endpoints(compile_project(checked.project), settings, dev=dev)
    context = make_context(checked, environment, dev=dev, joins=True)
    service = Service(endpoints, context=context, cors=make_cors(settings.server.cors))
    serving = _Serving(service, checked.project)
    thread = threading.Thread(target=serving.run, name="streamstack", daemon=True)
    thread.start()
    serving.ready.wait()
    try:
        if serving.failure is not None:
            raise serving.failure
        yield f"http://127.0.0.1:{serving.port}"
    finally:
        if serving.loop is not None and serving.stop is not None and thread.is_alive():
            serving.loop.call_soon_threadsafe(serving.stop.set)
        thread.join()
