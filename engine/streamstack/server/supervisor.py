"""The supervisor of worker processes, and the worker."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from time import monotonic
from typing import Any, Final, NoReturn

from streamstack.connections.database.embedded import Embedded, EmbeddedError
from streamstack.server.alerts import AlertMonitor, Notice, deliver
from streamstack.server.context import WARM_WITHIN, AuthenticationError, DatabaseError, embedded_of, warm_databases
from streamstack.server.metrics import SharedCounters
from streamstack.server.reloading import BrokenError, Edition, FileChanges, next_edition, unshared
from streamstack.server.replies import log
from streamstack.server.serve import (
    GRACE,
    STILL_SERVED,
    STOPPING,
    ServeOptions,
    ServerProcess,
    announce_addresses,
    announce_shortage,
    keep_out_of_collections,
    loop_factory,
    prepare,
    reload,
    reload_message,
    run_to_end,
    unless,
)
from streamstack.server.service import ABORT_TIMEOUT, LATER
from streamstack.server.signals import HANGUP, START_ABORTED, stops
from streamstack.server.sockets import TlsError, bind

#: Seconds between two beats of a worker's heart.
HEARTBEAT_INTERVAL: Final = 0.5
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
    """The work of one process, forked off its supervisor.

    ``number`` is its slot of the counters. The ``first`` worker alone runs tasks, where state is in memory.
    """

    def __init__(
        self,
        task: ServeOptions,
        sockets: list[socket.socket],
        channel: Channel,
        counters: SharedCounters,
        number: int,
        *,
        first: bool,
    ) -> None:
        self._task = task
        self._edition = task.edition
        self._counters = counters
        self._number = number
        self._channel = channel
        self._sockets = sockets
        self._stopped = False  # by the supervisor
        self._orphaned = False  # the supervisor is gone
        self._service = task.service(task.context(joins=True, starts=False), counters, number, first=first)
        self._reloads: asyncio.Queue[list[str]] = asyncio.Queue()

    async def run(self) -> None:
        """Serve until the supervisor or SIGTERM says stop, or the supervisor is gone."""
        task, service = self._task, self._service
        serving = ServerProcess(task, service, self._sockets)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, serving.stop)
        loop.add_reader(self._channel.fileno(), self._receive, serving)
        faulthandler.register(WHERE)
        _unblock_signals()
        self._send_heartbeat()
        async with service:
            await warm_databases(self._edition.checked.project, service.context)
            await serving.start()
            self._channel.send(ready=True)
            service.scheduler.begin()
            reloads = asyncio.ensure_future(self._reload())
            try:
                await serving.stop_requested.wait()
            finally:
                reloads.cancel()
            if not self._stopped and not self._orphaned:
                self._channel.send(retiring=True)
                await asyncio.sleep(_PASSED_ON)
            followed = not self._stopped and not self._orphaned
            await serving.close(delay=not self._orphaned, followed=followed)
        loop.remove_reader(self._channel.fileno())

    def _send_heartbeat(self) -> None:
        """Let the supervisor see that the loop turns."""
        self._counters.heartbeat(self._number)
        asyncio.get_running_loop().call_later(HEARTBEAT_INTERVAL, self._send_heartbeat)

    def _receive(self, serving: ServerProcess) -> None:
        messages = self._channel.receive()
        if messages is None:
            # No other process would ever end this one.
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._orphaned = True
            serving.stop()
            return
        for each in messages:
            match each["do"]:
                case "stop":
                    self._stopped = True
                    serving.stop()
                case "stop_now":
                    serving.stop_now()
                case "certificate" if self._task.tls is not None:
                    with suppress(TlsError):  # the supervisor reports it
                        self._task.tls.reload()
                case "reload":
                    self._reloads.put_nowait(each["titles"])
                case "notify":
                    self._service.spawn(self._notify(each["notice"]))

    async def _notify(self, notice: Mapping[str, Any]) -> None:
        """Send that an alert was raised, and tell the supervisor, which else lets another worker do it."""
        await deliver(self._service.context, Notice(**notice))
        self._channel.send(notified=notice["id"])

    async def _reload(self) -> None:
        while True:
            titles = await self._reloads.get()
            if not self._reloads.empty():
                continue  # a newer edition is there already
            try:
                self._edition = await reload(
                    self._task, self._service, self._counters, self._edition, titles, self._number
                )
            except BrokenError as error:
                # It was sound when the supervisor read it: it has changed since, and that is reported by itself.
                log.info("reload-passed-over", reason=str(error))


#: Seconds within which the end of a new worker counts as one of a row: after more it was at work.
AT_ONCE: Final = 1.0
#: How many workers in a row may end at once, none being at work each time, before this is given up.
ROW: Final = 5
#: Seconds before a worker is replaced that ended at once: doubled each time, up to the most.
PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0
#: Seconds between looks at the embedded database.
_DATABASE_CHECK: Final = 0.25
#: Seconds that a worker which hangs has to write where it stands.
_TRACE_WITHIN: Final = 0.3
#: Seconds beyond all others after which a worker that should have stopped is killed.
_MARGIN: Final = 5.0
#: What wakes a supervisor; held back from a child until it knows what to do with it.
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class SupervisorError(Exception):
    """Workers can't be kept alive, or did not stop."""


@dataclass(slots=True, eq=False)
class Process:
    """A worker process. ``number`` is its slot of the counters, ``heartbeats`` the last that was seen of its heart."""

    pid: int
    number: int
    channel: Channel
    began: float
    ready: bool = False
    hurried: bool = False
    heartbeats: int = 0
    heartbeat_at: float = 0.0
    hung: bool = False

    def stop_now(self) -> None:
        """Let it end at once."""
        if not self.hurried:
            self.hurried = True
            self.channel.send(do="stop_now")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@dataclass(slots=True)
class Slot:
    """A place for a worker: its sockets stay when it dies, with the connections that wait to be accepted."""

    number: int
    sockets: list[socket.socket]
    process: Process | None = None
    failures: int = 0
    due: float | None = 0.0  # when its next worker is to be started

    @property
    def pause(self) -> float:
        """Seconds until the next worker is started, after those that failed."""
        return min(PAUSE * 2 ** (self.failures - 1), LONGEST_PAUSE) if self.failures > 1 else 0.0

    def close(self) -> None:
        """Close the sockets here; processes that have them still listen."""
        for each in self.sockets:
            each.close()

    def stop_listening(self) -> None:
        """Listen no more, and keep the address; the next worker listens again."""
        for each in self.sockets:
            with suppress(OSError):
                # Without a listener it would stay half closed, and so would all connections of later.
                if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    each.shutdown(socket.SHUT_RD)


class SignalQueue:
    """Signals that have come, until they are taken. Readable (``fileno``) when there are any."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self.waiting: list[int] = []

    def fileno(self) -> int:
        return self._reader.fileno()

    def handle(self) -> None:
        """Queue the supervisor's signals from now on."""
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for each in _SIGNALS:
            if each != signal.SIGHUP or HANGUP is not None:
                signal.signal(each, lambda *_: None)

    def receive(self) -> None:
        with suppress(BlockingIOError):
            self.waiting += self._reader.recv(4096)

    def take(self) -> list[int]:
        """Return the signals that have come since the last time."""
        waiting, self.waiting = self.waiting, []
        return waiting

    @property
    def stops(self) -> bool:
        """Whether one of them asks for the end."""
        return any(map(stops, self.waiting))

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        """Run some work in a loop that ends again; a signal that asks for the end cancels it."""

        async def watched() -> None:
            stop_requested = asyncio.Event()

            def receive() -> None:
                self.receive()
                if self.stops:
                    stop_requested.set()

            receive()
            asyncio.get_running_loop().add_reader(self, receive)
            await unless(stop_requested, work)

        with asyncio.Runner() as runner:
            runner.run(watched())
            # To close the loop waits for its threads, also for those that a slow name server keeps waiting.
            runner.get_loop().set_default_executor(ThreadPoolExecutor(1))

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


class Supervisor:
    """Looks after the workers of a project."""

    def __init__(self, task: ServeOptions, workers: int) -> None:
        sockets = bind(task.host, task.port, workers)
        self._task = replace(task, port=sockets[0][0].getsockname()[1])
        self._slots = [Slot(number, each) for number, each in enumerate(sockets)]
        self._retiring: list[Process] = []  # others take their places already
        # Each worker's successor may be there before it has gone.
        self._counters = SharedCounters(task.edition.counted, workers * 2)
        self._free = list(range(workers * 2))
        self._failed_in_row = 0  # workers that ended at once, one after another
        self._announced = False  # where it is served
        self._stopping = False
        self._deadline = float("inf")
        self._failure = ""
        self._selector = selectors.DefaultSelector()
        self._signals = SignalQueue()
        self._files = FileChanges(task.edition.checked) if task.reload else None
        self._worker_timeout = task.edition.checked.settings.server.worker_timeout
        self._check_at = self._checked_at = 0.0
        self._context = task.context(joins=True, starts=False)
        self._embedded: Embedded | None = None
        self._alerts = AlertMonitor(self._counters, task.edition.checked.settings.alerts)
        self._notices: dict[str, tuple[Notice, Process | None]] = {}  # those that are not sent yet, with who does it

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; return when the last worker is gone.

        Raises AuthenticationError, DatabaseError, and SupervisorError where workers can't be kept alive.
        """
        self._signals.handle()
        self._selector.register(self._signals, selectors.EVENT_READ)
        if self._task.early.reload:
            self._signals.waiting.append(signal.SIGHUP)
        try:
            self._start_embedded(self._task.edition)
            self._prepare(self._task.edition)
            if self._signals.stops:
                self._task.announce(START_ABORTED)
                return
            keep_out_of_collections()
            while not self._stopping or self._processes():
                self._start_due()
                self._wait()
        finally:
            self._clean_up()
        if self._failure:
            raise SupervisorError(self._failure)

    def _wait(self) -> None:
        """Wait for something to happen, and see to it."""
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is self._signals:
                self._signals.receive()
            else:
                self._receive(key.data)
        for number in self._signals.take():
            if stops(number):
                self._stop()
            elif number == HANGUP and not self._stopping:
                self._reload([])
        self._reap()
        now = monotonic()
        if now > self._deadline:
            self._kill_all()
        if now >= self._check_at:
            self._check(now)

    def _patience(self) -> float:
        """Return the seconds until something is due."""
        if self._signals.waiting:
            return 0.0  # they came while something was made ready
        dues = [self._check_at, self._deadline]
        if not self._stopping and self._free:
            dues += [slot.due for slot in self._slots if slot.due is not None]
        return max(0.0, min(dues) - monotonic())

    def _check(self, now: float) -> None:
        """Look for what tells nothing by itself: workers that hang, files that change, a database that is gone."""
        pause = 60.0
        if self._worker_timeout:
            pause = self._check_heartbeats(now)
        self._checked_at = now
        if self._files is not None and not self._stopping:
            if changed := self._files.take():
                self._reload(changed)
            pause = min(pause, self._files.pause)
        if self._embedded is not None and not self._stopping:
            pause = min(pause, _DATABASE_CHECK)
            if not self._embedded.alive():
                try:
                    self._signals.run(self._embedded.start())
                except Exception as error:  # noqa: BLE001  (whatever it is, the workers go on)
                    self._task.announce(str(error))
                    pause = LONGEST_PAUSE
        self._notify()
        self._check_at = monotonic() + min(pause, self._alerts.pause())

    def _notify(self) -> None:
        """Look at the figures, and let a worker send each notice; one that has died has its notices sent by another."""
        for notice in self._alerts.look():
            self._notices[notice.id] = (notice, None)
        if self._stopping:
            return
        ready = [slot.process for slot in self._slots if slot.process is not None and slot.process.ready]
        for notice, sender in list(self._notices.values()):
            if ready and sender not in self._processes():
                self._notices[notice.id] = (notice, ready[0])
                ready[0].channel.send(do="notify", notice=asdict(notice))

    # ---------------------------------------------------------------------------- workers

    def _processes(self) -> list[Process]:
        return [slot.process for slot in self._slots if slot.process is not None] + self._retiring

    def _start_due(self) -> None:
        now, lacking = monotonic(), 0
        for slot in self._slots:
            if slot.due is None or slot.due > now or self._stopping:
                continue
            if not self._free:
                lacking += 1
                continue
            slot.due = None
            try:
                self._start_worker(slot)
            except OSError as error:  # the system is short of something: what runs must go on
                what = f"worker {slot.number + 1} can't be started: {error.strerror}"
                self._replace(slot, what, at_once=True)
        # Rather end some old streams than have no worker that takes new ones.
        for process in self._retiring[:lacking]:
            process.stop_now()

    def _start_worker(self, slot: Slot) -> None:
        """Fork a worker. Raises OSError where the system has no room for another process."""
        number = min(self._free)
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._run_worker(slot, Channel(theirs), number)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            _unblock_signals()
        self._free.remove(number)
        now = monotonic()
        slot.process = Process(pid, number, Channel(ours), now, heartbeat_at=now)
        self._selector.register(slot.process.channel, selectors.EVENT_READ, slot.process)

    def _run_worker(self, slot: Slot, channel: Channel, number: int) -> NoReturn:
        """Be a worker, which has nothing of the supervisor but the sockets of its slot, and end this process."""
        code = 1
        try:
            # Ctrl-C in a terminal reaches all processes; the supervisor answers it.
            for each in (signal.SIGINT, signal.SIGHUP):
                signal.signal(each, signal.SIG_IGN)
            for each in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(each, signal.SIG_DFL)
            for process in self._processes():
                process.channel.close()
            for other in self._slots:
                if other is not slot:
                    other.close()
            self._selector.close()
            self._signals.close()
            if self._embedded is not None:
                self._embedded.disown()
            worker = Worker(self._task, slot.sockets, channel, self._counters, number, first=slot is self._slots[0])
            run_to_end(worker.run(), loop_factory())
            code = 0
        except BaseException:  # noqa: BLE001  (it must not go on as a supervisor)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _receive(self, process: Process) -> None:
        messages = process.channel.receive()
        if messages is None:
            # It is about to end; SIGCHLD tells when it has.
            self._selector.unregister(process.channel)
            process.channel.close()
            return
        for each in messages:
            if each.get("ready"):
                process.ready = True
                self._announce()
            if each.get("retiring"):
                self._replace_leaving(process)
            if "notified" in each:
                self._notices.pop(each["notified"], None)

    def _announce(self) -> None:
        """Say where it is served, once all workers are ready."""
        task = self._task
        if not self._announced and all(slot.process is not None and slot.process.ready for slot in self._slots):
            self._announced = True
            announce_shortage(task.edition, task.announce)
            announce_addresses(task, task.port, len(self._slots))

    def _replace_leaving(self, process: Process) -> None:
        """Start another worker at once in place of one that another process has asked to stop."""
        for slot in self._slots:
            if slot.process is process:
                slot.process, slot.due = None, monotonic()
                self._retiring.append(process)

    def _check_heartbeats(self, now: float) -> float:
        """Kill workers whose heart has not beaten for too long; return the seconds until the next look."""
        pause = min(max(self._worker_timeout / 4, HEARTBEAT_INTERVAL), 5.0)
        # This process itself was stopped, or had no CPU: so had they, perhaps.
        late = now > self._checked_at + 2 * pause + 1.0
        for process in self._processes():
            heartbeats = self._counters.heartbeats(process.number)
            if process.hung:
                process.kill()
            elif heartbeats != process.heartbeats or late:
                process.heartbeats, process.heartbeat_at = heartbeats, now
            elif now > process.heartbeat_at + self._worker_timeout:
                process.hung = True
                self._counters.count("hangs")
                self._task.announce(
                    f"worker (process {process.pid}) hangs: no sign of life for "
                    f"{self._worker_timeout:g} s (server.workerTimeout); it is killed"
                )
                with suppress(ProcessLookupError):
                    os.kill(process.pid, WHERE)
                pause = _TRACE_WITHIN
        return pause

    def _reap(self) -> None:
        for process in self._processes():
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                self._on_exit(process, os.waitstatus_to_exitcode(status))

    def _on_exit(self, process: Process, code: int) -> None:
        """Free what a worker had that is gone, and have it replaced."""
        if process.channel.fileno() >= 0:
            self._selector.unregister(process.channel)
            process.channel.close()
        self._counters.release(process.number)
        self._free.append(process.number)
        if process in self._retiring:
            self._retiring.remove(process)
            return
        slot = next(each for each in self._slots if each.process is process)
        slot.process = None
        if self._stopping:
            return
        self._counters.count("restarts")
        at_once = not process.ready or monotonic() - process.began < AT_ONCE
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        what = f"worker {slot.number + 1} (process {process.pid}) died: {how}"
        self._replace(slot, what, at_once=at_once)

    def _replace(self, slot: Slot, what: str, *, at_once: bool) -> None:
        """Plan the next worker of a slot, or give up."""
        slot.failures = slot.failures + 1 if at_once else 0
        at_work = any(each.process is not None and each.process.ready for each in self._slots)
        self._failed_in_row = self._failed_in_row + 1 if at_once and not at_work else 0
        if self._failed_in_row >= ROW:
            self._failure = f"{what}; workers die as soon as they start: given up after {ROW} of them"
            self._stop_all()
            return
        pause = slot.pause
        if pause and at_work:
            slot.stop_listening()  # others take the connections meanwhile
        slot.due = monotonic() + pause
        self._task.announce(f"{what}; another takes its place{f' in {pause:g} s' if pause else ''}")

    # --------------------------------------------------------------------------- the project

    def _start_embedded(self, edition: Edition) -> None:
        """Start the embedded database where definitions need it. Raises DatabaseError."""
        embedded = embedded_of(edition.checked.project, self._context)
        if embedded is not None:
            try:
                self._signals.run(embedded.start())
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

        self._signals.run(work())

    def _reload(self, changed: list[str]) -> None:
        """Read the project again, and let the workers do so if it is sound."""
        task = self._task
        if task.tls is not None:
            task.reload_certificate()
            for process in self._processes():
                process.channel.send(do="certificate")
        try:
            edition = next_edition(task.read, task.edition, dev=task.dev)
            if refused := unshared(edition.checked)[0]:
                raise BrokenError("\n".join(refused))
        except BrokenError as error:
            task.announce(f"{error}\n{STILL_SERVED}")
            return
        self._counters.register(edition.counted)
        self._alerts.replace(edition.checked.settings.alerts)
        self._check_at = 0.0
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
            process.channel.send(do="reload", titles=self._counters.titles)
        task.announce(reload_message(edition, changed))
        try:
            self._prepare(edition, WARM_WITHIN)
        except (AuthenticationError, DatabaseError) as error:
            task.announce(str(error))  # the rest is served; requests that need this fail with the reason
        keep_out_of_collections()

    # ------------------------------------------------------------------------------- the end

    def _stop(self) -> None:
        """Let all workers stop; when asked again, at once."""
        if self._stopping:
            for process in self._processes():
                process.stop_now()
            return
        self._task.announce(STOPPING)
        self._stop_all()

    def _stop_all(self) -> None:
        server = self._task.edition.checked.settings.server
        self._stopping = True
        patience = server.shutdown_delay + GRACE + server.shutdown_timeout
        self._deadline = monotonic() + patience + 2 * ABORT_TIMEOUT + LATER + _MARGIN
        for slot in self._slots:
            slot.due = None
            # From here on each worker alone has its socket, and closes it when it accepts nothing any more.
            slot.close()
        for process in self._processes():
            process.channel.send(do="stop")

    def _kill_all(self) -> None:
        for process in self._processes():
            process.kill()
        self._failure = self._failure or "workers did not stop in time, and were killed"
        self._deadline = float("inf")

    def _clean_up(self) -> None:
        """Leave nothing behind: neither processes, nor the database."""
        for process in self._processes():
            process.kill()
            os.waitpid(process.pid, 0)
            process.channel.close()
        for slot in self._slots:
            slot.close()
        self._selector.close()
        self._signals.close()
        if self._embedded is not None:
            asyncio.run(self._embedded.stop())
