"""Serving a project until a signal says stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
from collections.abc import Callable, Mapping

from aiohttp import web

from streamstack.language.project import Checked
from streamstack.language.report import write_text
from streamstack.runtime.plan import compile_project
from streamstack.server.callers import prepare_callers
from streamstack.server.connection import Listening
from streamstack.server.context import make_context
from streamstack.server.databases import prepare_databases
from streamstack.server.descriptors import allow_connections
from streamstack.server.endpoints import make_cors, make_endpoints
from streamstack.server.faults import LoopFaults
from streamstack.server.served import Served
from streamstack.server.service import Service

#: Connections that the system keeps waiting for us.
BACKLOG = 1024


class AddressError(Exception):
    """An address that can't be listened on."""


def serve(
    checked: Checked,
    host: str,
    port: int,
    announce: Callable[[str], None],
    *,
    dev: bool = False,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Serve a checked project until SIGTERM or SIGINT; return when all is closed.

    Raises AddressError for an address that can't be had, UnservableError for a definition,
    AuthenticationError, DatabaseError.
    """
    settings = checked.settings
    endpoints = make_endpoints(compile_project(checked.project), settings, dev=dev)
    context = make_context(checked, os.environ if environment is None else environment, dev=dev)
    service = Service(endpoints, context=context, cors=make_cors(settings.server.cors))
    # What was loaded stays to the end: the collector need not look at it again with each request.
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_listen(checked, service, endpoints, (host, port), announce))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loops, where it is installed."""
    try:
        import uvloop  # noqa: PLC0415  (not on every system)
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _listen(
    checked: Checked,
    service: Service,
    endpoints: list[Served],
    address: tuple[str, int],
    announce: Callable[[str], None],
) -> None:
    host, port = address
    stop = asyncio.Event()

    def take_signal() -> None:
        if stop.is_set():
            service.hurry()  # the second signal: whoever sends it does not want to wait
        stop.set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(LoopFaults())
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, take_signal)
    async with service:
        prepare_callers(checked.project, service.context, announce)
        lacking = await prepare_databases(checked.project, service.context, announce)
        if lacking:
            announce(write_text(lacking, checked.sources).rstrip())
        most, short = allow_connections(checked.settings.server.max_connections)
        if short:
            announce(short)
        head_timeout = checked.settings.server.head_timeout
        listening = Listening(service.handle, most=most, head_timeout=head_timeout)
        runner = web.ServerRunner(listening, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, host, port, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise AddressError(_explain(error, host, port)) from error
        service.context.address.url = _url(host, site.port)
        _tell(endpoints, host, site.port, announce)
        await stop.wait()
        announce("stopping: no new requests; running streams may finish (again to stop at once)")
        service.draining = True
        await site.stop()
        await service.drain(checked.settings.server.shutdown_timeout)
        await runner.cleanup()
        await service.settle()


def _explain(error: OSError, host: str, port: int) -> str:
    """Say what to do about an address that can't be had."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use already: stop what uses it, or choose another with --port"
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user: choose one from 1024 on with --port"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is no address of this machine: choose another with --host"
    return f"can't listen on {host}, port {port}: {error.strerror or error}"


def _url(host: str, port: int) -> str:
    """Return where this machine reaches what listens on a host of it."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


def _tell(endpoints: list[Served], host: str, port: int, announce: Callable[[str], None]) -> None:
    """List the routes with their files, and say where they are."""
    shown = {"0.0.0.0": "localhost", "::": "localhost", "": "localhost"}.get(host, host)  # noqa: S104
    address = f"[{shown}]" if ":" in shown else shown
    method = max((len(each.method) for each in endpoints), default=0)
    path = max((len(each.path) for each in endpoints), default=0)
    for each in sorted(endpoints, key=lambda served: (served.path, served.method)):
        announce(f"  {each.method:<{method}}  {each.path:<{path}}  {each.file}")
    count = f"{len(endpoints)} endpoint{'s' if len(endpoints) != 1 else ''}"
    announce(f"serving {count} on http://{address}:{port}")
