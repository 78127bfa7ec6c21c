"""Tasks: they start when they are due, each tick once for all servers that share their state.

There is no leader. All servers wait for the same ticks (`language.schedules`), and each tick is claimed by one atomic
write: in Redis, in the memory that the workers of a server share, or, with `once: effect`, in the task's database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import structlog

from streamstack import clock
from streamstack.connections.channels import LAST, Since
from streamstack.connections.database.ticks import TickTable
from streamstack.errors import RunError
from streamstack.functions.channels import open_channels
from streamstack.functions.db import notification, open_databases
from streamstack.functions.state import open_slots, open_state
from streamstack.language.names import did_you_mean
from streamstack.language.schedules import Schedule, database_of
from streamstack.runtime.concurrency import pause, should_retry
from streamstack.runtime.plan import TaskPlan
from streamstack.runtime.run import Run
from streamstack.server.background import NOTHING_DONE, BackgroundRun, Stack
from streamstack.server.replies import report

if TYPE_CHECKING:
    from streamstack.server.metrics import SharedCounters
    from streamstack.server.service import Service

log = structlog.get_logger("streamstack.tasks")

#: Seconds after which a tick counts as missed that no server has started. Claims are held for longer.
GRACE: Final = 20.0
_CLAIM: Final = 60.0
#: The same of ticks that wait for their turn, and how long they may wait.
_QUEUED_CLAIM: Final = 3600.0
_LONGEST_WAIT: Final = 3000.0
#: Seconds before its start for which a server looks for unclaimed ticks, of tasks that have run before.
_LOOK_BACK: Final = 5.0
#: Seconds for which a server that starts tries to learn what has run before.
_CATCH_UP: Final = 600.0
#: Seconds after which a start is counted as late.
LATE: Final = 1.0
#: Seconds between looks at the clock, which may be set, or stand still while the machine sleeps.
_LOOK: Final = 10.0
#: Ticks, or messages, of a task that wait for its run to end.
_MOST_WAITING: Final = 1000
#: Seconds between looks for ticks whose server has died, for a slot that is free, and between claims that failed.
SWEEP: Final = 2.0
_POLL: Final = 0.25
_LONGEST_POLL: Final = 5.0
#: Seconds between deletions of old claims in databases.
_PRUNE: Final = 3600.0
#: Seconds between two reports of the same error of a task, and for which a message stays claimed.
_QUIET: Final = 60.0
_MESSAGE_CLAIM: Final = 3600.0
#: Tasks that are started before the event loop goes on with other work.
_BURST: Final = 50


class TaskHandler:
    """A task as the server holds it. ``row`` is where its figures are counted."""

    __slots__ = ("plan", "row")

    def __init__(self, plan: TaskPlan) -> None:
        self.plan = plan
        self.row = 0

    @property
    def row_titles(self) -> list[str]:
        """The title of the row in which its figures are kept."""
        return [self.title]

    def take_rows(self, row_of: Callable[[str], int]) -> None:
        """Count in this row from now on."""
        self.row = row_of(self.title)

    @property
    def name(self) -> str:
        return self.plan.task.name

    @property
    def title(self) -> str:
        return self.plan.task.title

    @property
    def schedule(self) -> Schedule:
        return self.plan.task.schedule

    @property
    def overlap(self) -> str:
        """What to do while the previous run goes on: messages wait, where the author does not say."""
        events = not self.schedule.timed and self.schedule.on is not None and self.schedule.on.kind != "start"
        return self.schedule.overlap or ("queue" if events else "skip")


class _Entry:
    """A task that is scheduled, until it is removed or its schedule changes."""

    def __init__(self, handler: TaskHandler) -> None:
        self.handler = handler
        self.live = True
        self.ticks: Iterator[datetime] = iter(())
        self.listener: asyncio.Task[None] | None = None
        self.lock = asyncio.Lock()  # held while it runs, in the order of the ticks
        self.running: BackgroundRun | None = None
        self.waiting: deque[datetime] = deque()
        self.error: tuple[str, str] | None = None  # reported last
        self.quiet_until = 0.0
        self.repeated = 0  # times that the error was not reported


class Scheduler:
    """Starts the tasks of a service.

    Args:
        service: Whose runs they are.
        handlers: The tasks.
        counters: The counters of the server, which also hold the claims of its workers; None without other workers.
        slot: The slot of this process in them.
        first: Whether this is the first worker of its server: it runs what no other one may.
    """

    def __init__(
        self,
        service: Service,
        handlers: Iterable[TaskHandler] = (),
        *,
        counters: SharedCounters | None = None,
        slot: int = 0,
        first: bool = True,
    ) -> None:
        self._service = service
        self._counters = counters
        self._slot = slot
        self._first = first
        self._owner = uuid4().bytes
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[float, int, _Entry, datetime]] = []
        self._order = count()
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._idle: set[asyncio.Task[None]] = set()  # that have no run: they end at once when the server stops
        self._stopping = False
        self._claimed: dict[str, datetime] = {}  # by task, where no counters are shared
        self._tables: dict[str, TickTable] = {}
        #: Ticks whose transaction was lost: how often, and when they are tried again.
        self._failures: dict[tuple[str, datetime], tuple[int, float]] = {}
        self.started = datetime.fromtimestamp(counters.started / 1000, UTC) if counters is not None else clock.now()
        self.replace(handlers)

    # ---------------------------------------------------------------------- what is scheduled

    @property
    def jobs(self) -> Mapping[str, Any] | None:
        """The functions of the project, where any step starts jobs."""
        return next((each.handler.plan.jobs for each in self._entries.values()), None)

    def replace(self, handlers: Iterable[TaskHandler]) -> None:
        """Schedule these tasks. One with another schedule starts over; one that is gone starts no more runs."""
        before, self._entries = self._entries, {}
        for handler in handlers:
            entry = before.pop(handler.name, None)
            if entry is not None and entry.handler.schedule != handler.schedule:
                self._drop(entry)
                entry = None
            if entry is None:
                entry = _Entry(handler)
                if self._loop is not None and not self._stopping:
                    self._begin(entry)
            entry.handler = handler
            self._entries[handler.name] = entry
        for entry in before.values():
            self._drop(entry)
        self._begin_sweeping()

    def _drop(self, entry: _Entry) -> None:
        entry.live = False
        if entry.listener is not None:
            entry.listener.cancel()

    def begin(self, names: Container[str] | None = None) -> None:
        """Begin to start tasks; called once the server listens, since they may call its endpoints.

        ``names`` are those that are started; None for all.
        """
        if self._loop is not None or not (self._first or self._service.context.state.shared):
            return
        self._loop = self._spawn(self._run())
        for name, entry in self._entries.items():
            if names is None or name in names:
                self._begin(entry)
        self._begin_sweeping()

    def stop(self) -> None:
        """Start nothing more. Runs go on; what waits for its turn is given up."""
        self._stopping = True
        for task in list(self._idle):
            task.cancel()

    def _begin(self, entry: _Entry) -> None:
        trigger = entry.handler.schedule.on
        if trigger is None:
            self._plan(entry, clock.now())
            self._spawn(self._catch_up(entry))
        elif trigger.kind != "start":
            entry.listener = self._spawn(self._listen(entry))
        elif self._first:
            self._spawn(self._attempt(entry, self.started, clock.time()))

    def _plan(self, entry: _Entry, moment: datetime) -> None:
        """Wait for the ticks after a moment."""
        entry.ticks = entry.handler.schedule.after(moment)
        self._push(entry)

    def _push(self, entry: _Entry) -> None:
        tick = next(entry.ticks, None)
        if tick is not None:
            heappush(self._heap, (self._due(entry, tick), next(self._order), entry, tick))
            self._wake.set()

    def _due(self, entry: _Entry, tick: datetime) -> float:
        """Return when a tick is to be started (seconds since 1970): all servers agree on the delay of `jitter`."""
        handler, at = entry.handler, tick.timestamp()
        if not handler.schedule.jitter or clock.exact:
            return at
        digest = sha256(f"{handler.name} {at}".encode()).digest()
        return at + handler.schedule.jitter * int.from_bytes(digest[:8]) / 2**64

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do some work until the server stops."""
        task = self._service.spawn(self._guarded(work))
        self._idle.add(task)
        task.add_done_callback(self._idle.discard)
        task.add_done_callback(lambda _: work.close())  # it may be cancelled before it begins
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            pass
        except RunError as error:
            log.warning("task-scheduling-failed", code=error.code, reason=error.full)
        except Exception as error:
            log.exception("task-scheduling-failed", reason=str(error))

    # ---------------------------------------------------------------------- time

    async def _run(self) -> None:
        while True:
            now, fired = clock.time(), 0
            while self._heap and self._heap[0][0] <= now:
                due, _, entry, tick = heappop(self._heap)
                if entry.live:
                    self._fire(entry, tick, due, now)
                    fired += 1
                    if fired % _BURST == 0:
                        await asyncio.sleep(0)
            self._wake.clear()
            look = inf if clock.exact else _LOOK
            wait = min(self._heap[0][0] - clock.time(), look) if self._heap else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait if wait is None else max(wait, 0.0)):
                    await self._wake.wait()

    def _fire(self, entry: _Entry, tick: datetime, due: float, now: float) -> None:
        """Start a tick that is due, and wait for the next one."""
        schedule = entry.handler.schedule
        if now - due <= GRACE:
            self._spawn(self._attempt(entry, tick, due))
            self._push(entry)
            return
        # The process stood still, or the clock was set forward.
        moment = datetime.fromtimestamp(now, UTC)
        latest = schedule.latest(moment)
        log.warning("task-ticks-missed", task=entry.handler.name, since=tick.isoformat(), missed=schedule.missed)
        self._count(entry, "missed")
        if schedule.missed == "once" and latest is not None:
            self._spawn(self._attempt(entry, latest, now))
        self._plan(entry, moment)

    async def _catch_up(self, entry: _Entry) -> None:
        """Start what other servers have left: ticks of the last seconds, and with `missed: once` the latest one."""
        handler, moment = entry.handler, clock.now()
        schedule = handler.schedule
        last = await self._patiently(partial(self._last, handler), clock.time() + _CATCH_UP)
        if last is None or not entry.live:
            return  # it has never run
        for tick in schedule.after(moment - timedelta(seconds=_LOOK_BACK)):
            if tick > moment:
                break
            due = self._due(entry, tick)
            await asyncio.sleep(max(due - clock.time(), 0.0))
            await self._attempt(entry, tick, due, patient=True)
        latest = schedule.latest(moment)
        if schedule.missed == "once" and latest is not None and latest > last:
            log.info("task-caught-up", task=handler.name, tick=latest.isoformat())
            await self._attempt(entry, latest, clock.time())

    async def _last(self, handler: TaskHandler) -> datetime | None:
        """Return the latest tick of a task that is known to have been started; None where none is."""
        if handler.schedule.once == "effect":
            return await self._table(handler).latest(handler.name)
        if not self._service.context.state.shared:
            tick = 0 if self._counters is None else self._counters.last_tick(handler.row)
            return datetime.fromtimestamp(tick / 1000, UTC) if tick else None
        record = await self.record(handler.name)
        return None if record is None else record["tick"]

    async def _patiently(self, work: Callable[[], Awaitable[Any]], until: float | None = None) -> Any:
        """Return what some work on shared state gives, trying again while that is out of reach; None if it is too late.

        ``until`` is in seconds since 1970.
        """
        wait = _POLL
        while True:
            try:
                return await work()
            except RunError as error:
                if self._stopping or (until is not None and clock.time() + wait > until):
                    log.warning("task-not-claimed", code=error.code, reason=error.message)
                    return None
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_POLL)

    # ---------------------------------------------------------------------- claims

    async def _attempt(self, entry: _Entry, tick: datetime, due: float, *, patient: bool = False) -> None:
        """Start a tick, unless another server does. One that is ``patient`` is not skipped."""
        handler = entry.handler
        until = max(due, clock.time()) + GRACE
        if handler.schedule.once == "effect":
            table = self._table(handler)
            if await self._patiently(partial(table.announce, handler.name, tick), until):
                await self._start(entry, tick, due=due, patient=patient)
            return
        claim = partial(self._patiently, partial(self._claim, handler, tick), until)
        if handler.overlap == "queue" and self._service.context.state.shared and handler.schedule.timed:
            # It is claimed when its turn has come: all servers wait, so that none takes it along when it is killed.
            claim = partial(self._patiently, partial(self._claim, handler, tick), inf)
            await self._start(entry, tick, due=due, claim=claim)
        elif await claim():
            await self._start(entry, tick, due=due, patient=patient)

    async def _claim(self, handler: TaskHandler, tick: datetime) -> bool:
        """Claim a tick for this process, in one atomic write."""
        context, at_start = self._service.context, handler.schedule.on is not None
        if not context.state.shared or at_start:
            if self._counters is not None and handler.row:
                return self._counters.claim_tick(self._slot, handler.row, int(tick.timestamp() * 1000))
            latest = self._claimed.get(handler.name)
            if latest is not None and latest >= tick:
                return False
            self._claimed[handler.name] = tick
            return True
        # While this is the latest tick, another server may take it for missed.
        following = next(handler.schedule.after(tick), tick)
        held = max(2 * (following - tick).total_seconds(), _QUEUED_CLAIM if handler.overlap == "queue" else _CLAIM)
        store = context.resource(open_state).store
        claimed = await store.claim(_key(handler.name, tick.isoformat()), held, self._owner)
        if claimed and self._counters is not None and handler.row:
            self._counters.claim_tick(self._slot, handler.row, int(tick.timestamp() * 1000))  # for the metrics
        return claimed

    def _table(self, handler: TaskHandler) -> TickTable:
        context = self._service.context
        name = database_of(handler.schedule, context.databases)
        if name is None or name not in context.databases:
            raise RunError("template", f"the task `{handler.name}` needs a `database`", final=True)
        table = self._tables.get(name)
        if table is None:
            databases = context.resource(open_databases)
            table = self._tables[name] = TickTable(databases[name], context.state.prefix)
        return table

    def _begin_sweeping(self) -> None:
        if self._loop is None or self._sweeper is not None or clock.exact or self._stopping:
            return
        if any(each.handler.schedule.once == "effect" for each in self._entries.values()):
            self._sweeper = self._spawn(self._sweep())

    async def _sweep(self) -> None:
        """Take over ticks of databases whose server has died, and those that wait for the run of another server."""
        prune_at = clock.monotonic() + _PRUNE
        while True:
            await asyncio.sleep(SWEEP)
            tables: dict[TickTable, list[str]] = {}
            with suppress(RunError):  # out of reach: the next look may go better
                for entry in self._entries.values():
                    if entry.handler.schedule.once == "effect":
                        tables.setdefault(self._table(entry.handler), []).append(entry.handler.name)
                for table, names in tables.items():
                    for name, tick in await table.unfinished(names):
                        _, again_at = self._failures.get((name, tick), (0, 0.0))
                        if clock.monotonic() >= again_at and (found := self._entries.get(name)) is not None:
                            self._spawn(self._start(found, tick, due=clock.time(), taken_over=True))
                    if clock.monotonic() > prune_at:
                        await table.prune(names)
            if clock.monotonic() > prune_at:
                prune_at = clock.monotonic() + _PRUNE
                self._failures.clear()

    # ---------------------------------------------------------------------- runs

    async def _start(
        self,
        entry: _Entry,
        tick: datetime,
        event: Any = None,
        *,
        due: float,
        taken_over: bool = False,
        patient: bool = False,
        claim: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        """Run a tick as soon as `overlap` allows it: one that is claimed, or that ``claim`` claims in its turn."""
        handler, overlap = entry.handler, entry.handler.overlap
        if taken_over and entry.lock.locked():
            return
        if entry.lock.locked() and ((overlap == "skip" and not patient) or len(entry.waiting) >= _MOST_WAITING):
            await self._skip(entry, tick)
            return
        if overlap == "cancel" and entry.running is not None:
            entry.running.stop(_replaced())
        entry.waiting.append(tick)
        try:
            await entry.lock.acquire()
        finally:
            entry.waiting.remove(tick)
        try:
            if overlap == "cancel" and any(each > tick for each in entry.waiting):
                await self._skip(entry, tick)
            elif handler.schedule.once == "effect":
                await self._run_once(entry, tick, due, self._in_transaction(handler, tick, taken_over=taken_over))
            else:
                await self._run_alone(entry, tick, event, due, patient=patient, claim=claim)
        finally:
            entry.lock.release()

    async def _run_alone(
        self,
        entry: _Entry,
        tick: datetime,
        event: Any,
        due: float,
        *,
        patient: bool,
        claim: Callable[[], Awaitable[Any]] | None,
    ) -> None:
        """Run a tick when no other server runs the task."""
        context, handler = self._service.context, entry.handler
        slots, key = context.resource(open_slots), b"task:" + handler.name.encode()
        watched = handler.overlap == "cancel" and context.state.shared
        if watched:
            await self._write_record(handler, {"tick": tick})
        wait, until = _POLL, clock.monotonic() + GRACE
        while not await slots.acquire(key, 1):
            if (handler.overlap == "skip" and not patient) or (watched and clock.monotonic() > until):
                await self._skip(entry, tick)
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, LATE)
        watcher = self._spawn(self._watch(entry, tick)) if watched else None
        try:
            if claim is not None and (clock.time() - due > _LONGEST_WAIT or not await claim()):
                return
            await self._run_once(entry, tick, due, handler.plan.start, event)
        finally:
            if watcher is not None:
                watcher.cancel()
            await slots.release(key)

    async def _watch(self, entry: _Entry, tick: datetime) -> None:
        """Stop a run when another server has a newer tick of the task."""
        while True:
            await asyncio.sleep(LATE)
            with suppress(RunError):
                record = await self.record(entry.handler.name)
                if record is not None and record["tick"] > tick and entry.running is not None:
                    entry.running.stop(_replaced())
                    return

    async def run(self, name: str, tick: datetime, event: Any = None) -> BackgroundRun:
        """Run a task now, whatever its schedule says, and return its last run. Raises ValueError for another name."""
        entry = self._entries.get(name)
        if entry is None:
            raise ValueError(f"the project has no task `{name}`{did_you_mean(name, self._entries)}")
        handler = entry.handler
        stack: Stack = handler.plan.start
        if handler.schedule.once == "effect":
            stack = self._in_transaction(handler, tick, announce=True)
        return await self._run_once(entry, tick, clock.time(), stack, event)

    async def _run_once(
        self, entry: _Entry, tick: datetime, due: float, stack: Stack, event: Any = None
    ) -> BackgroundRun:
        """Run a stack for a tick, again where `retry` says so, and record how that went."""
        handler = entry.handler
        task = handler.plan.task
        own = task.schedule.once == "effect"  # which retries within its transaction
        late = clock.time() - due
        if late > LATE:
            self._count(entry, "late")
        me = asyncio.current_task()
        for attempt in count():
            started = self._start_run(handler, tick, event, stack, {"attempt": attempt} if attempt else {})
            entry.running = started
            spawned = me is not None and me in self._idle
            if me is not None and spawned:
                self._idle.discard(me)  # it is to note how the run ends, when the server stops
            await started.wait()
            entry.running = None
            if me is not None and spawned:
                self._idle.add(me)
            error = started.error
            if error is None or error is started.reason:
                break
            self._report(entry, started, error)
            retry = None if own else task.retry
            if self._stopping or retry is None or not should_retry(retry, error, attempt):
                break
            await asyncio.sleep(pause(retry, attempt, error))
        if started.value is not NOTHING_DONE and self._service.context.state.shared:
            record = {"tick": tick, "startedAt": started.run.started, "outcome": started.outcome}
            record |= {"ms": started.run.elapsed_ms}
            if isinstance(event, Mapping) and "id" in event:
                record["message"] = event["id"]
            await self._write_record(handler, record)
        return started

    def _start_run(
        self, handler: TaskHandler, tick: datetime, event: Any, stack: Stack, about: Mapping[str, Any]
    ) -> BackgroundRun:
        task = handler.plan.task

        def prepare(run: Run) -> None:
            run.tick, run.event = tick, event

        return self._service.background.start(
            task.title,
            stack,
            timeout=None if task.schedule.once == "effect" else task.timeout,
            row=handler.row,
            quiet=True,
            prepare=prepare,
            tick=tick.isoformat().replace("+00:00", "Z"),
            **about,
        )

    def _in_transaction(
        self, handler: TaskHandler, tick: datetime, *, taken_over: bool = False, announce: bool = False
    ) -> Stack:
        """Return the stack of a task within the transaction that holds the claim of a tick.

        A run that fails is rolled back, and its tick is done all the same. One that is cancelled, because the server
        stops, leaves the tick to others.
        """
        task = handler.plan.task

        async def attempt(run: Run, inputs: dict[str, Any], table: TickTable) -> Any:
            try:
                async with asyncio.timeout(task.timeout) as limit, table.savepoint():
                    return await handler.plan.start(run, inputs)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                message = f"the run took longer than its timeout of {task.timeout:g} s"
                raise RunError("timeout", message) from error

        async def stack(run: Run, inputs: dict[str, Any]) -> Any:
            table = self._table(handler)
            failure: RunError | None = None
            value: Any = NOTHING_DONE
            if announce:
                await table.announce(handler.name, tick)
            lost, _ = self._failures.get((handler.name, tick), (0, 0.0))
            self._failures[handler.name, tick] = lost + 1, clock.monotonic() + min(2.0**lost, _QUIET)
            async with table.take(handler.name, tick) as taken:
                if taken is None or not taken.alone:
                    self._failures.pop((handler.name, tick), None)
                if taken is None:
                    return NOTHING_DONE
                if not taken.alone:
                    taken.done, taken.outcome = handler.overlap == "skip" and not taken_over, "skipped"
                    return NOTHING_DONE
                for number in count():
                    try:
                        value, failure = await attempt(run, inputs, table), None
                        break
                    except RunError as error:
                        failure = error
                        if task.retry is None or not should_retry(task.retry, error, number):
                            break
                        await asyncio.sleep(pause(task.retry, number, error))
                taken.outcome = "completed" if failure is None else "failed"
            self._failures.pop((handler.name, tick), None)
            if failure is not None:
                raise failure
            return value

        return stack

    async def _skip(self, entry: _Entry, tick: datetime) -> None:
        """Pass a tick over, because the previous run goes on."""
        self._count(entry, "skipped")
        log.info("task-skipped", task=entry.handler.name, tick=tick.isoformat(), reason="the previous run goes on")
        if entry.handler.schedule.once == "effect":
            async with self._table(entry.handler).take(entry.handler.name, tick) as taken:
                if taken is not None:
                    taken.outcome = "skipped"

    def _count(self, entry: _Entry, what: str) -> None:
        if self._counters is not None and entry.handler.row:
            self._counters.count_task(self._slot, entry.handler.row, what)

    def _report(self, entry: _Entry, started: BackgroundRun, error: RunError) -> None:
        """Log why a run failed; the same error again and again, once a minute."""
        key = error.code, str(error.place)
        now = clock.monotonic()
        if key == entry.error and now < entry.quiet_until:
            entry.repeated += 1
            return
        about = {"repeated": entry.repeated} if key == entry.error and entry.repeated else {}
        entry.error, entry.quiet_until, entry.repeated = key, now + _QUIET, 0
        report(error, run=started.run.id, endpoint=started.title, sent=0, **about)

    # ---------------------------------------------------------------------- what is known of runs

    async def record(self, name: str) -> dict[str, Any] | None:
        """Return what the shared state holds of the last run of a task; None in memory. Raises RunError."""
        context = self._service.context
        if not context.state.shared:
            return None
        found = await context.resource(open_state).store.get(_key(name, "last"))
        return found if isinstance(found, dict) else None

    async def _write_record(self, handler: TaskHandler, record: Mapping[str, Any]) -> None:
        with suppress(RunError):  # it is for people, and for servers that start later
            await self._service.context.resource(open_state).store.set(_key(handler.name, "last"), dict(record), None)

    # ---------------------------------------------------------------------- events

    async def _listen(self, entry: _Entry) -> None:
        """Start the task for each message, and listen again after the connection was lost."""
        trigger = entry.handler.schedule.on
        assert trigger is not None
        receive = self._receive_messages if trigger.kind == "channel" else self._receive_notifications
        wait = _POLL
        while entry.live:
            began = clock.monotonic()
            try:
                await receive(entry)
            except RunError as error:
                log.warning("task-not-listening", task=entry.handler.name, code=error.code, reason=error.full)
            wait = _POLL if clock.monotonic() - began > _QUIET else min(2 * wait, _LONGEST_POLL)
            await asyncio.sleep(wait)

    async def _receive_messages(self, entry: _Entry) -> None:
        """Start the task for the messages of a channel: each is claimed by its id."""
        context, handler = self._service.context, entry.handler
        trigger = handler.schedule.on
        assert trigger is not None
        record = await self.record(handler.name)
        since = Since("id", record["message"]) if record is not None and "message" in record else LAST
        subscription = await context.resource(open_channels).subscribe(trigger.channel, since)
        try:
            while True:
                for message in await subscription.take():
                    if not message.number:
                        log.warning("task-messages-missed", task=handler.name, channel=trigger.channel)
                        continue
                    key = _key(handler.name, message.item["id"])
                    if context.state.shared and not await context.resource(open_state).store.claim(
                        key, _MESSAGE_CLAIM, self._owner
                    ):
                        continue
                    event = {name: message.item[name] for name in ("id", "event", "content")}
                    self._spawn(self._start(entry, clock.now(), event, due=clock.time()))
                    await asyncio.sleep(0)  # so that they take their turns in this order
        finally:
            await subscription.close()

    async def _receive_notifications(self, entry: _Entry) -> None:
        """Start the task for notifications of PostgreSQL. They have no ids, so one server at a time listens."""
        context, handler = self._service.context, entry.handler
        trigger = handler.schedule.on
        assert trigger is not None
        slots, key = context.resource(open_slots), b"task listener:" + handler.name.encode()
        while not await slots.acquire(key, 1):  # noqa: ASYNC110  (another process has it)
            await asyncio.sleep(SWEEP)
        try:
            name = trigger.database or database_of(Schedule(), context.databases)
            database = context.resource(open_databases)[str(name)]
            subscription = await database.subscribe(trigger.channel)
            try:
                while True:
                    for payload in await subscription.take():
                        event = notification(trigger.channel, payload)
                        self._spawn(self._start(entry, clock.now(), event, due=clock.time()))
                        await asyncio.sleep(0)
            finally:
                await database.unsubscribe(subscription)
        finally:
            await slots.release(key)


def _replaced() -> RunError:
    return RunError("stopped", "the next tick took the place of this run")


def _key(task: str, rest: str) -> bytes:
    return f"task:{task}:{rest}".encode()
