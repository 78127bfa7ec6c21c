"""A worker: a process that serves on its socket, and is told by its supervisor what to do."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from streamstack.server.context import make_context
from streamstack.server.databases import warm_databases
from streamstack.server.metrics.board import Board
from streamstack.server.ports import url_of
from streamstack.server.problems import log
from streamstack.server.reloading import BrokenError, next_edition
from streamstack.server.serve import Task
from streamstack.server.serving import Serving, keep_out_of_collections

#: Seconds in which whoever is at the other end of a line takes what is said.
_LISTENS_WITHIN: Final = 2.0


#: Seconds after which word of a signal that went to all processes has come from the supervisor, too.
_HEARD: Final = 0.05


class Line:
    """One end of the line between a supervisor and a worker: a JSON object a line."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = b""
        end.setblocking(False)

    def fileno(self) -> int:
        return self._end.fileno()

    def say(self, **what: Any) -> None:
        """Tell the other side, if it is there. One that does not listen is as good as gone: the line is cut."""
        if self.fileno() < 0:
            return  # it is known to be gone
        self._end.settimeout(_LISTENS_WITHIN)
        try:
            self._end.sendall(json.dumps(what).encode() + b"\n")
        except OSError:
            with suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)
        finally:
            self._end.setblocking(False)

    def heard(self) -> list[Mapping[str, Any]] | None:
        """Return what the other side has said; None once it is gone."""
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
    """The work of one process, forked off its supervisor."""

    def __init__(
        self,
        task: Task,
        sockets: list[socket.socket],
        line: Line,
        board: Board | None,
        chair: int,
    ) -> None:
        self._task = task
        self._edition = task.edition
        self._board = board
        self._line = line
        self._sockets = sockets
        self._told = False  # by the supervisor, to stop
        self._alone = False  # the supervisor is gone
        context = make_context(
            task.edition.checked, task.environment, dev=task.dev, joins=True, starts=False
        )
        self._service = task.service(context, board, chair)
        self._anew: asyncio.Queue[list[str]] = asyncio.Queue()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until the supervisor or SIGTERM says stop, or the supervisor is gone."""
        task, service = self._task, self._service
        serving = Serving(service, self._sockets, self._edition.checked.settings.server)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, serving.stop)
        loop.add_reader(self._line.fileno(), self._hear, serving)
        ready()
        service.context.address.url = url_of(task.host, task.port)
        async with service:
            await warm_databases(self._edition.checked.project, service.context)
            await serving.start()
            self._line.say(ready=True)
            reloads = asyncio.ensure_future(self._reload())
            try:
                await serving.asked.wait()
            finally:
                reloads.cancel()
            if not self._told and not self._alone:
                self._line.say(leaving=True)
                await asyncio.sleep(_HEARD)
            followed = not self._told and not self._alone
            await serving.close(delay=not self._alone, followed=followed)
        loop.remove_reader(self._line.fileno())

    def _hear(self, serving: Serving) -> None:
        said = self._line.heard()
        if said is None:
            # Nobody else would ever end this process.
            asyncio.get_running_loop().remove_reader(self._line.fileno())
            self._alone = True
            serving.stop()
            return
        for each in said:
            match each["do"]:
                case "stop":
                    self._told = True
                    serving.stop()
                case "hurry":
                    serving.hurry()
                case "reload":
                    self._anew.put_nowait(each["titles"])

    async def _reload(self) -> None:
        while True:
            titles = await self._anew.get()
            if not self._anew.empty():
                continue  # a newer edition is there already
            try:
                edition = await asyncio.to_thread(
                    next_edition, self._task.read, self._edition, dev=self._task.dev
                )
            except BrokenError as error:
                # It was sound when the supervisor read it: it has changed since, and there will be word of that.
                log.info("reload-passed-over", reason=str(error))
                continue
            if self._board is not None:
                self._board.name(titles)
                self._board.seat(edition.endpoints)
            service = self._service
            service.replace(edition.endpoints, edition.context(service.context))
            self._edition = edition
            keep_out_of_collections()
