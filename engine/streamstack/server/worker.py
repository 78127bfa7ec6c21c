"""A worker: a process that serves on its sockets, and is told by its supervisor what to do."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from streamstack.server.context import make_context
from streamstack.server.databases import warm_databases
from streamstack.server.endpoints import make_cors
from streamstack.server.metrics import SharedCounters
from streamstack.server.ports import url_of
from streamstack.server.problems import log
from streamstack.server.reloading import BrokenError, next_edition
from streamstack.server.serve import Task
from streamstack.server.serving import Serving, keep_out_of_collections

#: Seconds between two beats of a worker's heart.
BEAT: Final = 0.5
#: The signal upon which a worker writes where it stands, though it answers nothing any more.
WHERE: Final = signal.SIGUSR2
#: Seconds in which a message must be taken at the other end of a channel.
_TAKEN_WITHIN: Final = 2.0
#: Seconds after which the supervisor has passed on a signal that went to all processes.
_PASSED_ON: Final = 0.05


class Channel:
    """One end of the channel between a supervisor and another process: a JSON object a line."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = b""
        end.setblocking(False)

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, **message: Any) -> None:
        """Send a message, if there is anybody. One that is not taken in time cuts the channel."""
        if self.fileno() < 0:
            return
        self._end.settimeout(_TAKEN_WITHIN)
        try:
            self._end.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            with suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)
        finally:
            self._end.setblocking(False)

    def receive(self) -> list[Mapping[str, Any]] | None:
        """Return the messages that have come; None once the other end is gone."""
        try:
            data = self._end.recv(1 << 20)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self._end.close()


class Worker:
    """The work of one process, forked off its supervisor. ``number`` is its slot of the counters."""

    def __init__(
        self,
        task: Task,
        sockets: list[socket.socket],
        channel: Channel,
        counters: SharedCounters,
        number: int,
    ) -> None:
        self._task = task
        self._edition = task.edition
        self._counters = counters
        self._number = number
        self._channel = channel
        self._sockets = sockets
        self._stopped = False  # by the supervisor
        self._orphaned = False  # the supervisor is gone
        context = make_context(
            task.edition.checked,
            task.edition.checked.environment,
            dev=task.dev,
            joins=True,
            starts=False,
        )
        self._service = task.service(context, counters, number)
        self._reloads: asyncio.Queue[list[str]] = asyncio.Queue()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until the supervisor or SIGTERM says stop, or the supervisor is gone."""
        task, service = self._task, self._service
        serving = Serving(service, self._sockets, self._edition.checked.settings.server)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, serving.stop)
        loop.add_reader(self._channel.fileno(), self._receive, serving)
        faulthandler.register(WHERE)
        ready()
        self._beat()
        service.context.address.url = url_of(task.host, task.port)
        async with service:
            await warm_databases(self._edition.checked.project, service.context)
            await serving.start()
            self._channel.send(ready=True)
            reloads = asyncio.ensure_future(self._reload())
            try:
                await serving.asked.wait()
            finally:
                reloads.cancel()
            if not self._stopped and not self._orphaned:
                self._channel.send(leaving=True)
                await asyncio.sleep(_PASSED_ON)
            followed = not self._stopped and not self._orphaned
            await serving.close(delay=not self._orphaned, followed=followed)
        loop.remove_reader(self._channel.fileno())

    def _beat(self) -> None:
        """Let the supervisor see that the loop turns."""
        self._counters.beat(self._number)
        asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _receive(self, serving: Serving) -> None:
        messages = self._channel.receive()
        if messages is None:
            # Nobody else would ever end this process.
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._orphaned = True
            serving.stop()
            return
        for each in messages:
            match each["do"]:
                case "stop":
                    self._stopped = True
                    serving.stop()
                case "hurry":
                    serving.hurry()
                case "reload":
                    self._reloads.put_nowait(each["titles"])

    async def _reload(self) -> None:
        while True:
            titles = await self._reloads.get()
            if not self._reloads.empty():
                continue  # a newer edition is there already
            try:
                edition = await asyncio.to_thread(
                    next_edition, self._task.read, self._edition, dev=self._task.dev
                )
            except BrokenError as error:
                # It was sound when the supervisor read it: it has changed since, and there will be word of that.
                log.info("reload-passed-over", reason=str(error))
                continue
            self._counters.register_titles(titles)
            self._counters.register(edition.endpoints)
            service = self._service
            cors = make_cors(edition.checked.settings.server.cors)
            service.replace(edition.endpoints, edition.context(service.context), cors)
            self._edition = edition
            keep_out_of_collections()
