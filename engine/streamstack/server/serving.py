"""One process that serves: it listens, answers, and stops in good order once it is asked to."""

from __future__ import annotations

import asyncio
import gc
import selectors
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from aiohttp import web

from streamstack.language.settings import Server
from streamstack.server.connection import HttpServer
from streamstack.server.descriptors import allow_connections
from streamstack.server.faults import LoopFaults
from streamstack.server.ports import BACKLOG
from streamstack.server.service import LAST_WORDS, Service

#: Seconds that a connection which was just made has for its one request, when nobody listens any more.
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


class Serving:
    """Serves on sockets. ``asked`` is set once it shall stop."""

    def __init__(
        self, service: Service, sockets: Sequence[socket.socket], settings: Server
    ) -> None:
        self.service = service
        self.asked = asyncio.Event()
        self._hurried = asyncio.Event()
        self._sockets = sockets
        self._settings = settings
        self._http: HttpServer
        self._runner: web.ServerRunner
        self._sites: list[web.SockSite] = []

    async def start(self) -> None:
        """Begin to listen. Raises OSError where that can't be."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(LoopFaults())
        settings = self._settings
        most, _ = allow_connections(settings.max_connections)
        self._http = HttpServer(self.service, most=most, head_timeout=settings.head_timeout)
        self._runner = web.ServerRunner(self._http, shutdown_timeout=1.0)
        await self._runner.setup()
        for each in self._sockets:
            site = web.SockSite(self._runner, each, backlog=BACKLOG)
            await site.start()
            self._sites.append(site)

    def stop(self) -> None:
        """Ask for its end: running streams have some time."""
        self.asked.set()

    def hurry(self) -> None:
        """Ask for its end at once."""
        self.asked.set()
        self._hurried.set()
        self.service.hurry()

    async def close(self, *, delay: bool = True, followed: bool = False) -> None:
        """Stop in good order; return when everything is sent and done, or its time is over.

        With ``delay``, requests are taken for `shutdownDelay` still, while whoever asks is told not to send more.
        ``followed``: another process listens on the same sockets.
        """
        loop = asyncio.get_running_loop()
        self.service.ready = False
        self._http.leave()
        if delay and self._settings.shutdown_delay:
            await self._wait(self._settings.shutdown_delay)
        began = loop.time()
        if not followed:
            await self._empty_doors()
        await self._close_doors()
        while self._http.fresh and loop.time() < began + GRACE and not self._hurried.is_set():
            await self._wait(0.02)
        await _turns()
        left = began + self._settings.shutdown_timeout - loop.time()
        await self.service.drain(0.0 if self._hurried.is_set() else max(left, 0.0))
        await self._runner.cleanup()
        await self._http.flushed(LAST_WORDS)
        await self.service.settle()

    async def _empty_doors(self) -> None:
        """Let in who waits: with the sockets they would be closed."""
        for each in self._sockets:
            with suppress(OSError):
                each.listen(
                    0
                )  # the system brings nobody else here, where another socket has the port
        # The loop lets in one at a time; as many as may wait is enough, were there ever more to come.
        for _ in range(2 * BACKLOG):
            if not _waited_for(self._sockets):
                break
            await asyncio.sleep(0)

    async def _close_doors(self) -> None:
        """Listen no more; who was connected already is heard."""
        await _turns()
        for site in self._sites:
            await site.stop()
        self._http.close_idle()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()


def _waited_for(sockets: Sequence[socket.socket]) -> bool:
    """Tell whether anybody waits to be let in."""
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ)
        return bool(selector.select(0))


async def _turns() -> None:
    """Let the loop turn until what has come is in the hands of whoever answers: accepted, read, given a task, begun."""
    for _ in range(5):
        await asyncio.sleep(0)
