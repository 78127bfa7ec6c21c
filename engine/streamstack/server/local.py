"""A project served on a free port of this machine, for as long as one command needs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from streamstack.language.definition import Project
from streamstack.language.project import Checked
from streamstack.runtime.plan import compile_project
from streamstack.server.connection import HttpServer
from streamstack.server.context import make_context
from streamstack.server.databases import prepare_databases
from streamstack.server.endpoints import make_cors, make_endpoints
from streamstack.server.problems import log
from streamstack.server.service import Service


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
def serving_locally(
    checked: Checked, environment: Mapping[str, str], *, dev: bool = True
) -> Iterator[str]:
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
