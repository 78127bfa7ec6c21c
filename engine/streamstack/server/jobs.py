"""Background jobs: they wait in a queue, run with no client, and write their progress into resumable streams."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import structlog

from streamstack.connections.jobs import ENDED, MOST_LOSSES, Job, JobQueue, MemoryJobs
from streamstack.connections.serialization import dumps, loads
from streamstack.connections.stream_store import LEASE
from streamstack.errors import Mark, RunError
from streamstack.language.definition import Authentication, Way
from streamstack.language.settings import Resume
from streamstack.runtime.concurrency import pause, should_retry
from streamstack.runtime.faults import located
from streamstack.runtime.jobs import JobOrder, open_jobs
from streamstack.runtime.run import MAX_DEPTH, Run, check_content
from streamstack.server.access import owner_of
from streamstack.server.deadlines import RunTimer
from streamstack.server.replies import in_band, report
from streamstack.server.request import Request
from streamstack.server.request_log import error_of, outcome_of
from streamstack.server.response_options import Limits, ResponseOptions
from streamstack.server.resume.log import End, Head, Origin, ResumableSink, StreamLog, StreamPolicy, new_stream_id
from streamstack.server.resume.store import Replication, fields_of, ttl_of
from streamstack.server.resume.streams import STOPPING, ResumableStream, stop, stop_error

if TYPE_CHECKING:
    from streamstack.runtime.plan import Callee
    from streamstack.server.service import Service

log = structlog.get_logger("streamstack.jobs")

#: Seconds between two looks at the queue that all processes share.
_INTERVAL: Final = 1.0
#: Seconds between two heartbeats for the readers of a job.
_HEARTBEAT: Final = 15.0
#: The most chunks that are stored of the progress of a job.
_MOST_CHUNKS: Final = 100_000
#: Where a run keeps the job that it is of.
_OF_RUN: Final = "job"
#: The place in a definition of the authentication of a job's caller: it is none of the definition's.
_NOWHERE: Final = Mark("", 1, 1)


class _NoRequest(Request):
    """The request of a run that has no client."""

    __slots__ = ()

    def __init__(self, service: Service, path: str) -> None:
        self.flush_queue = service.flush_queue
        self.method, self.raw_path = "GET", path
        self.body_bytes = b""

    @property
    def transport(self) -> None:
        return None

    @property
    def path(self) -> str:
        return self.raw_path


class JobSink(ResumableSink):
    """Writes the progress of a job. The head of its answers stands before it runs."""

    __slots__ = ()

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        check_content(self, content)
        # Its number in the log: another process may have sent chunks before.
        data = self.encoder.chunk(content, event, id, metadata, self._number())
        self._parts.append(data)
        self.count += 1
        self.bytes += len(data)
        return self._settle()

    def head(self) -> Head:
        """Return the head of the answers to its readers, and have it be sent already."""
        self.committed = True
        return self._head()

    def withdraw(self) -> None:
        """Let readers in this process come back: another process goes on with the stream."""
        self._close(End(cut=True))


class _Slot:
    """One of the places of a process for jobs that run; ``held`` from the beginning where it was acquired already."""

    __slots__ = ("_held", "_slots")

    def __init__(self, slots: asyncio.Semaphore, *, held: bool) -> None:
        self._slots = slots
        self._held = held

    async def acquire(self) -> None:
        await self._slots.acquire()
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._slots.release()


class JobRunner:
    """The jobs of one process: it starts them, runs as many as it may, and takes over those of dead processes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.context.jobs
        self.functions: Mapping[str, Callee] = {}
        self._slots = asyncio.Semaphore(self._settings.concurrency)
        self._running: dict[str, Job] = {}
        self._waiting = 0  # as far as it is known here
        self._news = asyncio.Event()
        self._changed = asyncio.Event()  # how many run or wait
        self._loops: list[asyncio.Task[None]] = []
        self._queue: JobQueue | None = None
        service.context.provide(open_jobs, self)

    @property
    def queue(self) -> JobQueue:
        """The queue of this process, or of all that share its state."""
        if self._queue is None:
            service, settings = self._service, self._settings
            service.share()
            if (shared := service.streams.shared) is None:
                self._queue = MemoryJobs(settings.max_queued, settings.keep, service.context.state)
            else:
                from streamstack.connections.redis_jobs import RedisJobs  # noqa: PLC0415  (as redis-py: where it is used)

                silence = ttl_of(self._resume, (0.0,))
                self._queue = RedisJobs(shared.store.redis, shared.store, settings.max_queued, settings.keep, silence)
        return self._queue

    @property
    def _resume(self) -> Resume:
        return Resume(self._settings.keep, _MOST_CHUNKS, self._settings.max_progress)

    @property
    def busy(self) -> bool:
        """Whether anything runs, or waits for what runs here."""
        return bool(self._running or (self._waiting and isinstance(self._queue, MemoryJobs)))

    # ------------------------------------------------------------- what steps ask for

    async def start(self, run: Run, order: JobOrder) -> str:
        """Start a job for a run, as `Jobs` says."""
        data = dumps(dict(order.arguments))
        if len(data) > self._settings.max_size:
            raise RunError(
                "limit-reached",
                f"the inputs of `{order.function}` take {len(data):,} bytes, and `jobs.maxSize` is "
                f"{self._settings.max_size:,}: store the data, and pass its key",
            )
        before = run.state.get(_OF_RUN)
        depth = 0 if before is None else before.depth + 1
        if depth > MAX_DEPTH:
            raise RunError("limit-reached", f"jobs start one another more than {MAX_DEPTH} deep")
        owner = owner_of(run.auth)
        key = b""
        if order.key is not None:
            key = hashlib.sha256(dumps([owner, order.function, order.key])).digest()
        job = Job(
            new_stream_id(),
            uuid4().hex,
            order.function,
            data,
            owner=owner,
            auth=run.auth,
            key=key,
            retry=order.retry,
            restarts=order.restarts,
            depth=depth,
        )
        queue, sink = self.queue, self._sink(job)
        head, stream_log = sink.head(), StreamLog(self._origin(job))
        shared = self._service.streams.shared
        fields = {} if shared is None else fields_of(Replication(stream_log, 0.0), "")
        found = await queue.add(job, {**fields, "status": head.status, "lines": head.lines})
        if found == job.id:
            self._count("started")
            log.info("job-queued", job=job.id, function=job.function, run=job.run, by=run.id)
            if isinstance(queue, MemoryJobs):
                self._open(job, sink, stream_log)
                self._waiting += 1
            self._news.set()
        return found

    async def status(self, name: str) -> dict[str, Any] | None:
        """Return the state of a job, as `Jobs` says."""
        job = await self.queue.find(name)
        if job is None:
            return None
        status = {"id": job.id, "function": job.function, "state": job.state, "attempt": job.attempt}
        ended = loads(job.result) if job.state in ENDED and job.result else None
        completed = job.state == "completed"
        return status | {"result": ended if completed else None, "error": None if completed else ended}

    async def cancel(self, name: str) -> bool | None:
        """Stop a job, as `Jobs` says."""
        worker = await self.queue.cancel(name)
        if worker is None:
            return None
        streams = self._service.streams
        if not worker and (job := await self.queue.claim(name)) is not None:
            self._launch(job, waited=True)
        if (stream := streams.find(name)) is not None:
            return await stream.stop_and_wait(stop_error("the job was cancelled"), STOPPING)
        remote = None if streams.shared is None else await streams.shared.find(name)
        return True if remote is None else await stop(streams, remote)

    async def finish(self) -> None:
        """Wait until all jobs of this process have ended."""
        while self.busy:
            self._changed.clear()
            await self._changed.wait()

    async def aclose(self) -> None:
        """Do nothing: the server ends its jobs itself."""

    # ------------------------------------------------------------- streams

    def _sink(self, job: Job) -> JobSink:
        function = self.functions.get(job.function)
        options = ResponseOptions("sse", dev=self._service.context.dev)
        if function is not None:
            options = ResponseOptions("sse", shapes=function.shapes, dev=options.dev)
        sink = JobSink(options, _NoRequest(self._service, f"/_streams/{job.id}"))
        sink.stream = job.id
        sink.run = Run(sink, self._service.context, auth=job.auth)
        sink.run.id = job.run
        return sink

    def _origin(self, job: Job) -> Origin:
        access = None
        if job.auth is not None:
            access = Authentication((Way(str(job.auth.get("method", "")), (), _NOWHERE),), optional=False)
        policy = StreamPolicy(access, _HEARTBEAT)
        title = _title(job)
        return Origin(job.id, title, job.owner, "sse", job.run, self._resume, cancels=False, policy=policy, job=True)

    def _open(self, job: Job, sink: JobSink, stream_log: StreamLog) -> ResumableStream:
        """Open the stream of a job in this process."""
        streams = self._service.streams
        stream_log.begin(sink.head())
        stream = ResumableStream(streams, stream_log)
        streams.add(stream)
        self._beat(stream)
        return stream

    def _beat(self, stream: ResumableStream) -> None:
        """Send heartbeats to the readers of a job that waits."""
        if stream.task is None and stream.log.end is None:
            stream.log.heartbeat()
            asyncio.get_running_loop().call_later(_HEARTBEAT, self._beat, stream)

    # ------------------------------------------------------------- the process

    def begin(self) -> None:
        """Run jobs from now on, and look after those of other processes, where there are any."""
        if self._loops:
            return
        queue, group = self.queue, asyncio.create_task
        self._loops = [group(self._run_next(queue))]
        if not isinstance(queue, MemoryJobs):
            shared = self._service.streams.shared
            assert shared is not None
            shared.news.listen(queue.channel, self._news.set)  # type: ignore[attr-defined]
            self._loops.append(group(self._look_after(queue)))

    async def begin_shutdown(self) -> None:
        """Begin no more jobs. Those that wait in memory end here; others wait for another process."""
        for each in self._loops:
            each.cancel()
        if self._loops:
            await asyncio.wait(self._loops)
        self._loops = []
        if isinstance(self._queue, MemoryJobs):
            while (job := await self._queue.claim()) is not None:
                self._launch(job, waited=True, lost=True)

    async def _run_next(self, queue: JobQueue) -> None:
        """Run one job after the other, as many at once as there may be."""
        while True:
            await self._slots.acquire()
            job = None
            self._news.clear()
            try:
                job = await queue.claim()
            except RunError:
                pass  # Redis is out of reach, which was logged
            except Exception as error:
                log.exception("job-not-claimed", reason=str(error))
            if job is not None:
                self._launch(job)
                continue
            self._slots.release()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if isinstance(queue, MemoryJobs) else _INTERVAL):
                    await self._news.wait()

    async def _look_after(self, queue: JobQueue) -> None:
        """Hold the jobs that run here, and look for those of processes that died."""
        while True:
            try:
                for name in await queue.check(list(self._running.values())):
                    if (stream := self._service.streams.find(name)) is not None and name in self._running:
                        stream.stop(RunError("job-moved", "another process has claimed this job"))
                self._waiting = await queue.count()
                self._show()
            except RunError:
                pass  # as above
            except Exception as error:
                log.exception("jobs-not-checked", reason=str(error))
            await asyncio.sleep(_INTERVAL)

    def _launch(self, job: Job, *, waited: bool = False, lost: bool = False) -> None:
        """Run a claimed job. ``waited``: it takes no slot; ``lost``: it is only to end."""
        streams = self._service.streams
        sink = self._sink(job)
        stream = streams.find(job.id)
        if stream is None or streams.shared is not None:
            if stream is not None:
                streams.forget(stream)
            stream_log = StreamLog(self._origin(job))
            stream_log.continue_from(job.first)
            stream = self._open(job, sink, stream_log)
            if streams.shared is not None:
                ttl = ttl_of(self._resume, (0.0,))
                streams.shared.replicate(Replication(stream_log, ttl, opened=True, headed=True, have=job.first))
        else:
            self._waiting -= 1
        sink.head()
        sink.attach_log(stream.log)
        self._running[job.id] = job
        self._show()
        if job.claims > 1:
            self._count("taken_over")
        log.info("job-started", job=job.id, function=job.function, run=job.run, attempt=job.attempt, losses=job.losses)
        slot = _Slot(self._slots, held=not waited)
        stream.task = self._service.spawn(self._work(job, sink, stream, slot=slot, lost=lost))

    # ------------------------------------------------------------- one job

    async def _work(self, job: Job, sink: JobSink, stream: ResumableStream, *, slot: _Slot, lost: bool) -> None:
        """Run a claimed job, and end it whatever happens."""
        service = self._service
        limits = Limits(_HEARTBEAT, 0, 0, self._settings.max_duration)
        timer = stream.run_timer = RunTimer(sink, limits, service.timers)
        timer.begin_running()
        outcome, value, error = "failed", None, None
        try:
            try:
                value = await self._attempts(job, sink, lost=lost, slot=slot)
                outcome = "completed"
            except asyncio.CancelledError:
                error = timer.stopped() or RunError("producer-lost", "the server is shutting down", status=503)
            except Exception as raised:  # noqa: BLE001  (one job must not end the service's group)
                error = error_of(raised)
            if error is not None:
                outcome = _outcome(error, sink, timer)
            if not await self._moves(job, sink, error):
                await self._end(job, sink, outcome, value, error)
        except Exception as failure:
            log.exception("job-not-ended", job=job.id, reason=str(failure))
        finally:
            timer.end()
            stream.run_timer = None
            if stream.log.end is None:
                sink.withdraw()
            del self._running[job.id]
            slot.release()
            self._show()
            service.discard(timer)

    async def _attempts(self, job: Job, sink: JobSink, *, lost: bool, slot: _Slot) -> Any:
        """Run the function of a job, again after errors as it says; return what it returned.

        Raises RunError with its place.
        """
        if job.state in ENDED:  # its process died before it had told readers
            return _end_of(job)
        if job.cancelled:
            raise stop_error("the job was cancelled")
        if lost or (job.claims > 1 and not job.restarts):
            raise RunError("producer-lost", "the server that ran this job stopped before its end", status=503)
        if job.losses > MOST_LOSSES:
            raise RunError("producer-lost", f"{job.losses} servers stopped while they ran this job", status=503)
        arguments = loads(job.arguments)
        while True:
            if job.attempt > 1 and sink.emit({"attempt": job.attempt}, "restarted", None, None):
                await sink.drain()
            try:
                return await self._attempt(job, arguments, sink)
            except Exception as raised:  # noqa: BLE001  (raised again, with its place)
                fault = located(raised)
                if job.retry is None or sink.ended or not should_retry(job.retry, fault, job.failures):
                    raise fault from fault.__cause__
            seconds = pause(job.retry, job.failures, fault)
            job.failures += 1
            self._count("retried")
            log.info("job-retry", job=job.id, run=job.run, code=fault.code, attempt=job.attempt, place=str(fault.place))
            with suppress(RunError):  # one that is taken over may then be tried once more
                await self.queue.note_failure(job)
            slot.release()
            await asyncio.sleep(seconds)
            await slot.acquire()

    async def _attempt(self, job: Job, arguments: Mapping[str, Any], sink: JobSink) -> Any:
        """Call the function of a job."""
        function = self.functions.get(job.function)
        if function is None:
            raise RunError("template", f"the project has no function `{job.function}` any more", final=True)
        run = Run(sink, self._service.context, auth=job.auth)
        run.id, run.state[_OF_RUN], sink.run = job.run, job, run
        outcome = "failed"
        try:
            value = await function.call(run, arguments, sink)
            size = len(dumps(value))  # a stream, or a file, has no later
            if size > self._settings.max_size:
                raise RunError("limit-reached", f"the result takes {size:,} bytes: see `jobs.maxSize`", final=True)
            outcome = "completed"
            return value
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._service.after(run, outcome, None)

    # ------------------------------------------------------------- its end

    async def _moves(self, job: Job, sink: JobSink, error: RunError | None) -> bool:
        """Leave a job to another process, where that has it, or can have it because this one stops."""
        if error is None or isinstance(self.queue, MemoryJobs):
            return False
        if error.code == "producer-lost" and self._service.draining and job.restarts and not job.cancelled:
            shared = self._service.streams.shared
            assert shared is not None
            sink.flush()
            await shared.flush(sink.log)
            try:
                if not await self.queue.release(job):
                    error = RunError("job-moved", error.message)
            except RunError:
                pass  # its lease runs out, and then it is taken over
            log.info("job-handed-back", job=job.id, function=job.function, run=job.run)
            shared.withdraw(sink.log)
            self._leave(job, sink)
            return True
        if error.code == "job-moved":
            log.warning("job-lost", job=job.id, function=job.function, run=job.run, reason=error.message)
            self._leave(job, sink)
            return True
        return False

    def _leave(self, job: Job, sink: JobSink) -> None:
        """End the stream of a job in this process alone."""
        streams = self._service.streams
        if streams.shared is not None:
            streams.shared.withdraw(sink.log)
        sink.withdraw()
        if (stream := streams.find(job.id)) is not None:
            streams.forget(stream)

    async def _end(self, job: Job, sink: JobSink, outcome: str, value: Any, error: RunError | None) -> None:
        """Store how a job ended, tell its readers, and log it."""
        if job.state not in ENDED:
            job.state = {"completed": "completed", "cancelled": "cancelled"}.get(outcome, "failed")
            fields = None if error is None else in_band(error, job.run, dev=sink.wire.dev)
            job.result = dumps(value if fields is None else {key: fields[key] for key in ("code", "message")})
        if not await self._settle(job):
            self._leave(job, sink)
            return
        title = _title(job)
        if error is not None:
            report(error, run=job.run, endpoint=title, sent=sink.count)
            sink.fail(error)
        else:
            if value is not None and not sink.ended:
                sink.done(value)
            sink.finish(None)
        if (shared := self._service.streams.shared) is not None:
            await shared.flush(sink.log)
        with suppress(RunError):  # where the state is away, the next process that looks at the job does so
            await self.queue.forget(job)
        self._count(job.state)
        if self._service.request_log is not None:
            about = {"id": job.id, "attempt": job.attempt, "chunks": sink.count}
            self._service.request_log.background(title, sink.run, outcome, error, about)

    async def _settle(self, job: Job) -> bool:
        """Store the end of a job, for as long as another process leaves it to this one; return whether it does."""
        for _ in range(round(LEASE)):
            try:
                return await self.queue.settle(job)
            except RunError:
                await asyncio.sleep(1.0)
        return True  # readers get the end in any case

    # ------------------------------------------------------------- figures

    def _count(self, name: str) -> None:
        if self._service.metrics is not None:
            self._service.metrics.count_job(name)

    def _show(self) -> None:
        """Report how many jobs run and wait, and wake who waits for them."""
        if self._service.metrics is not None:
            self._service.metrics.show_jobs(len(self._running), self._waiting)
        self._changed.set()
        self._service.note_idle()


def _title(job: Job) -> str:
    return f"job {job.function}"


def _outcome(error: RunError, sink: JobSink, timer: RunTimer) -> str:
    if error.code == "stopped":
        return "cancelled"
    return outcome_of(error, sink, timer.reason)


def _end_of(job: Job) -> Any:
    """Return what an ended job returned. Raises RunError with what it ended by."""
    value = loads(job.result)
    if job.state == "completed":
        return value
    raise RunError(value["code"], value["message"])
