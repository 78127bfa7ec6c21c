"""The supervisor: forks the workers, replaces those that die, and is the one that signals are sent to.

It does nothing else while they work: no loop, no threads. So it can fork at any time, and a worker begins with all that
was read and compiled once, in memory that they share.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final

from streamstack.connections.database.embedded import Embedded, EmbeddedError
from streamstack.server.bell import Bell
from streamstack.server.callers import AuthenticationError
from streamstack.server.context import make_context
from streamstack.server.databases import WARM_WITHIN, DatabaseError, embedded_of
from streamstack.server.forking import SIGNALS, fork, unblock
from streamstack.server.metrics.board import RESTARTS, Board
from streamstack.server.places import LONGEST_PAUSE, Process, Slot
from streamstack.server.ports import bind, url_of
from streamstack.server.reloading import BrokenError, Edition, Watch, next_edition
from streamstack.server.serve import (
    KEPT,
    STOPPING,
    Task,
    anew_text,
    prepare,
    tell,
    tell_shortage,
)
from streamstack.server.service import LAST_WORDS, LATER
from streamstack.server.serving import GRACE, keep_out_of_collections, loop_factory
from streamstack.server.sharing import unshared
from streamstack.server.signals import GIVEN_UP, HANGUP, stops
from streamstack.server.worker import Line, Worker

#: Seconds within which the end of a new worker counts as one of a row: after more it was at work.
AT_ONCE: Final = 1.0
#: How many workers in a row may end at once, none being at work each time, before this is given up.
ROW: Final = 5
#: Seconds between looks at the embedded database.
_LOOK: Final = 0.25
#: Seconds beyond all others after which a worker that should have stopped is killed.
_MARGIN: Final = 5.0


class SupervisorError(Exception):
    """Workers can't be kept alive, or did not stop."""


@dataclass(slots=True)
class _State:
    """What has happened so far."""

    row: int = 0  # workers that ended at once, one after another
    told: bool = False  # where it is served
    stopping: bool = False
    deadline: float = float("inf")
    failed: str = ""


class Supervisor:
    """Looks after the workers of a project."""

    def __init__(self, task: Task, workers: int) -> None:
        sockets = bind(task.host, task.port, workers)
        self._task = replace(task, port=sockets[0][0].getsockname()[1])
        self._slots = [Slot(number, each) for number, each in enumerate(sockets)]
        self._leaving: list[Process] = []
        self._state = _State()
        # Each worker's successor may be there before it has gone.
        self._board = Board(task.edition.endpoints, workers * 2) if task.access().possible else None
        self._free = list(range(workers * 2))
        self._selector = selectors.DefaultSelector()
        self._bell = Bell()
        self._watch = Watch(task.edition.checked.root) if task.reload else None
        self._look_at = 0.0
        self._context = make_context(
            task.edition.checked, task.environment, dev=task.dev, joins=True, starts=False
        )
        self._embedded: Embedded | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; return when the last worker is gone.

        Raises AuthenticationError, DatabaseError, and SupervisorError where workers can't be kept alive.
        """
        self._heed()
        try:
            self._start_embedded(self._task.edition)
            self._prepare(self._task.edition)
            if self._bell.stops:
                self._task.announce(GIVEN_UP)
                return
            keep_out_of_collections()
            while True:
                self._start_due()
                if self._state.stopping and not self._processes():
                    break
                self._turn()
        finally:
            self._end()
        if self._state.failed:
            raise SupervisorError(self._state.failed)

    # ------------------------------------------------------------------ one turn after another

    def _turn(self) -> None:
        """Wait for something to happen, and see to it."""
        state = self._state
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is self._bell:
                self._bell.hear()
            else:
                self._hear(key.data)
        for number in self._bell.taken():
            if stops(number):
                self._stop()
            elif number == HANGUP and not state.stopping:
                self._serve_anew([])
        self._reap()
        now = monotonic()
        if now > state.deadline:
            self._kill()
        if not state.stopping and now >= self._look_at:
            self._look()

    def _patience(self) -> float:
        """Return the seconds until something is due."""
        state, now = self._state, monotonic()
        if self._bell.rung:
            return 0.0  # they came while something was made ready
        # Without a free chair it is the end of a process that is waited for.
        dues = [slot.due for slot in self._slots if slot.due is not None and self._free]
        if state.stopping:
            dues = [state.deadline]
        elif self._watch is not None or self._embedded is not None:
            dues.append(self._look_at)
        return max(0.0, min([*dues, now + 60.0]) - now)

    def _look(self) -> None:
        """Look for what tells nothing by itself: changed files, and a database that is gone."""
        pause = _LOOK
        if self._watch is not None:
            changed = self._watch.changed()
            pause = self._watch.pause
            if changed:
                self._serve_anew(changed)
        if self._embedded is not None and not self._embedded.alive():
            try:
                self._bell.do(self._embedded.start())
            except Exception as error:  # noqa: BLE001  (whatever it is, the workers go on)
                self._task.announce(str(error))
                pause = LONGEST_PAUSE
        self._look_at = monotonic() + pause

    # ---------------------------------------------------------------------------- workers

    def _processes(self) -> list[Process]:
        return [slot.process for slot in self._slots if slot.process is not None] + self._leaving

    def _start_due(self) -> None:
        now, lacking = monotonic(), 0
        for slot in self._slots:
            if slot.due is None or slot.due > now or self._state.stopping:
                continue
            if not self._free:
                lacking += 1
                continue
            slot.due = None
            try:
                self._fork(slot)
            except OSError as error:  # the system is short of something: what runs must go on
                what = f"worker {slot.number + 1} can't be started: {error.strerror}"
                self._replace(slot, what, at_once=True)
        # Rather some old streams that end than nobody who takes new ones.
        for process in self._leaving[:lacking]:
            process.hurry()

    def _fork(self, slot: Slot) -> None:
        """Start a worker. Raises OSError where the system does not let us."""
        ours, theirs = socket.socketpair()
        chair = min(self._free)

        def work() -> None:
            ours.close()
            self._become(slot, Line(theirs), chair)

        try:
            pid = fork(work)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._free.remove(chair)
        slot.process = process = Process(pid, chair, Line(ours), monotonic())
        self._selector.register(process.line, selectors.EVENT_READ, process)

    def _become(self, slot: Slot, line: Line, chair: int) -> None:
        """Be a worker: let go of all that is the supervisor's."""
        # Ctrl-C in a terminal reaches all processes; it is the supervisor's to answer.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for process in self._processes():
            process.line.close()
        for other in self._slots:
            if other is not slot:
                other.close()
        self._selector.close()
        self._bell.close()
        if self._embedded is not None:
            self._embedded.disown()
        worker = Worker(self._task, slot.sockets, line, self._board, chair)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(worker.run(unblock))

    def _hear(self, process: Process) -> None:
        said = process.line.heard()
        if said is None:
            # It is about to end; SIGCHLD tells when it has.
            self._selector.unregister(process.line)
            process.line.close()
            return
        for each in said:
            if each.get("ready"):
                process.ready = True
                self._announce()
            if each.get("leaving"):
                self._let_leave(process)

    def _announce(self) -> None:
        """Say where it is served, once all workers are ready."""
        task = self._task
        if not self._state.told and all(
            slot.process is not None and slot.process.ready for slot in self._slots
        ):
            self._state.told = True
            tell_shortage(task.edition, task.announce)
            tell(task.edition.endpoints, task.host, task.port, task.announce, len(self._slots))

    def _let_leave(self, process: Process) -> None:
        """Have another worker at once in place of one that was asked to stop by somebody else."""
        process.leaving = True
        for slot in self._slots:
            if slot.process is process:
                slot.process, slot.due = None, monotonic()
                self._leaving.append(process)

    def _reap(self) -> None:
        for process in self._processes():
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                self._bury(process, os.waitstatus_to_exitcode(status))

    def _bury(self, process: Process, code: int) -> None:
        """See to the place of a worker that is gone."""
        if process.line.fileno() >= 0:
            self._selector.unregister(process.line)
            process.line.close()
        if self._board is not None:
            self._board.clear(process.chair)
        self._free.append(process.chair)
        if process in self._leaving:
            self._leaving.remove(process)
            return
        slot = next(each for each in self._slots if each.process is process)
        slot.process = None
        if self._state.stopping:
            return
        if self._board is not None:
            self._board.words[RESTARTS] += 1
        at_once = not process.ready or monotonic() - process.began < AT_ONCE
        self._replace(slot, f"worker {slot.number + 1} {process.end(code)}", at_once=at_once)

    def _replace(self, slot: Slot, what: str, *, at_once: bool) -> None:
        """Plan the next worker of a slot, or give up."""
        state = self._state
        slot.failures = slot.failures + 1 if at_once else 0
        at_work = any(each.process is not None and each.process.ready for each in self._slots)
        state.row = state.row + 1 if at_once and not at_work else 0
        if state.row >= ROW:
            state.failed = (
                f"{what}; workers die as soon as they start: given up after {state.row} of them"
            )
            self._stop_all()
            return
        pause = slot.pause
        if pause and at_work:
            slot.turn_away()  # others take the connections meanwhile
        slot.due = monotonic() + pause
        self._task.announce(f"{what}; another takes its place{f' in {pause:g} s' if pause else ''}")

    # --------------------------------------------------------------------------- the project

    def _start_embedded(self, edition: Edition) -> None:
        """Start the embedded database where definitions need it. Raises DatabaseError."""
        embedded = embedded_of(edition.checked.project, self._context)
        if embedded is not None:
            try:
                self._bell.do(embedded.start())
            except EmbeddedError as error:
                raise DatabaseError(str(error)) from error
            self._embedded = embedded

    def _prepare(self, edition: Edition, within: float | None = None) -> None:
        """Make ready what definitions need, in a loop that ends again; ``within`` some seconds, as far as that goes."""

        async def work() -> None:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(within):
                        await prepare(edition, self._context, self._task.announce)
            finally:
                await self._context.aclose()

        self._bell.do(work())
        self._context.address.url = url_of(self._task.host, self._task.port)

    def _serve_anew(self, changed: list[str]) -> None:
        """Read the project again, and let the workers do so if it is sound."""
        task = self._task
        try:
            edition = next_edition(task.read, task.edition, dev=task.dev)
            if refused := unshared(edition.checked)[0]:
                raise BrokenError("\n".join(refused))
        except BrokenError as error:
            task.announce(f"{error}\n{KEPT}")
            return
        titles: list[str] = []
        if self._board is not None:
            self._board.seat(edition.endpoints)
            titles = self._board.titles
        if news := edition.news(task.edition):
            task.announce(news)
        self._task = replace(task, edition=edition)
        self._context = edition.context(self._context)
        try:
            if self._embedded is None:
                self._start_embedded(edition)
        except DatabaseError as error:
            task.announce(str(error))
        for process in self._processes():
            process.line.say(do="reload", titles=titles)
        task.announce(anew_text(edition, changed))
        try:
            self._prepare(edition, WARM_WITHIN)
        except (AuthenticationError, DatabaseError) as error:
            task.announce(str(error))  # the rest is served; whoever needs this is told, too
        keep_out_of_collections()

    # ------------------------------------------------------------------------------- the end

    def _heed(self) -> None:
        """Let signals wake the selector."""
        self._bell.hang(each for each in SIGNALS if each != signal.SIGHUP or HANGUP is not None)
        self._selector.register(self._bell, selectors.EVENT_READ)
        if self._task.early.anew:
            self._bell.ring(signal.SIGHUP)

    def _stop(self) -> None:
        """Let all workers stop; when asked again, at once."""
        state = self._state
        if state.stopping:
            for process in self._processes():
                process.hurry()
            return
        self._task.announce(STOPPING)
        self._stop_all()

    def _stop_all(self) -> None:
        state, server = self._state, self._task.edition.checked.settings.server
        state.stopping = True
        patience = server.shutdown_delay + GRACE + server.shutdown_timeout
        state.deadline = monotonic() + patience + 2 * LAST_WORDS + LATER + _MARGIN
        for slot in self._slots:
            slot.due = None
            # From here on each worker alone has its socket, and closes it when it lets nobody in any more.
            slot.close()
        for process in self._processes():
            process.line.say(do="stop")

    def _kill(self) -> None:
        for process in self._processes():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._state.failed = self._state.failed or "workers did not stop in time, and were killed"
        self._state.deadline = float("inf")

    def _end(self) -> None:
        """Let nothing behind: neither workers, nor the database."""
        for process in self._processes():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)
            process.line.close()
        for slot in self._slots:
            slot.close()
        self._selector.close()
        self._bell.close()
        if self._embedded is not None:
            asyncio.run(self._embedded.stop())
