"""Runs that no client waits for: those of tasks and of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

from streamstack.errors import RunError, forget_frames
from streamstack.language.values import MISSING
from streamstack.runtime.run import Run, Sink
from streamstack.server.replies import internal, report

if TYPE_CHECKING:
    from streamstack.server.service import Service

Stack = Callable[[Run, dict[str, Any]], Coroutine[Any, Any, Any]]

#: What a stack gives that found nothing to do: such a run is neither counted nor logged.
NOTHING_DONE: Final = object()
#: Why runs end that were not over when the server had to stop.
SHUTDOWN: Final = RunError("producer-lost", "the server is shutting down", status=503)


class SilentSink(Sink):
    """The sink of a run without a client: nothing can be emitted."""

    __slots__ = ()

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        """Raise RunError ``template``."""
        raise _cannot_emit()

    async def drain(self) -> None:
        """Do nothing: nothing is buffered."""

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        """Raise RunError ``template``."""
        raise _cannot_emit()

    def respond(self, status: int | None, headers: Mapping[str, str], cookies: Mapping[str, Any]) -> None:
        """Raise RunError ``template``."""
        raise _cannot_emit()


def _cannot_emit() -> RunError:
    return RunError("template", "a run without a client can't emit: use `log`, `channel.publish` or a database")


class BackgroundRun:
    """One run, which ends with one of `OUTCOMES`. ``row`` is where its figures are counted, 0 for nowhere.

    Args:
        title: The definition, as the log shows it: `task cleanup`.
        run: The run. What its stack gives is in ``value`` at the end.
        quiet: Errors are not logged; the caller does so.
        about: What the log line says beside the rest, `attempt` for example.
    """

    __slots__ = ("_task", "about", "error", "outcome", "quiet", "reason", "row", "run", "title", "value")

    def __init__(self, title: str, run: Run, *, row: int, quiet: bool, about: Mapping[str, Any]) -> None:
        self.title = title
        self.run = run
        self.row = row
        self.quiet = quiet
        self.about = about
        self.outcome = "completed"
        self.error: RunError | None = None
        self.value: Any = None
        self.reason: RunError | None = None  # it was stopped with
        self._task: asyncio.Task[None] | None = None

    def stop(self, reason: RunError) -> None:
        """End the run with an error, once: `SHUTDOWN`, or `stopped` for one that is cancelled."""
        if self.reason is None and self._task is not None and not self._task.done():
            self.reason = reason
            self._task.cancel()

    async def wait(self) -> None:
        """Wait until the run is over; what comes `after` it is not waited for. Being cancelled leaves it alone."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def execute(self, stack: Stack, inputs: dict[str, Any], timeout: float | None) -> None:
        """Run a stack within some seconds."""
        try:
            try:
                async with asyncio.timeout(timeout) as limit:
                    self.value = await stack(self.run, inputs)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                message = f"the run took longer than its timeout of {timeout:g} s"
                raise RunError("timeout", message) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            self.outcome = "shutdown" if self.reason in (None, SHUTDOWN) else "cancelled"
            self.error = self.reason
            if self.reason is None or task.uncancel() > 0:
                raise
        except RunError as error:
            self.outcome = "timeout" if error.code == "timeout" and limit.expired() else "failed"
            self.error = error
        except Exception as error:  # noqa: BLE001  (one failure must not end the group, and all others)
            self.outcome, self.error = "failed", internal(error)

    def begin(self, task: asyncio.Task[None]) -> None:
        """Take the task that executes the run."""
        self._task = task


class BackgroundRuns:
    """The runs of a service that no client waits for.

    They use the context that the service has when they begin, and end on it after a reload. At shutdown they have the
    time that running streams have, and then end with `SHUTDOWN`.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.active: set[BackgroundRun] = set()

    def start(
        self,
        title: str,
        stack: Stack,
        *,
        sink: Sink | None = None,
        inputs: dict[str, Any] | None = None,
        timeout: float | None = None,
        row: int = 0,
        quiet: bool = False,
        prepare: Callable[[Run], None] | None = None,
        **about: Any,
    ) -> BackgroundRun:
        """Start a run; it goes on by itself.

        Args:
            title: The definition, as the log and metrics show it.
            stack: What is run: that of a plan.
            sink: Takes what the run emits; without one it can't emit.
            inputs: The inputs of the stack.
            timeout: Seconds after which the run ends.
            row: Where figures are counted.
            quiet: The caller logs errors.
            prepare: Called with the run before it begins.
            about: What the log line says beside the rest.
        """
        service = self._service
        run = Run(sink or SilentSink(), service.context)
        if prepare is not None:
            prepare(run)
        started = BackgroundRun(title, run, row=row, quiet=quiet, about=about)
        self.active.add(started)
        started.begin(service.spawn(self._execute(started, stack, inputs or {}, timeout)))
        return started

    def stop(self) -> None:
        """End all runs, because the server stops."""
        for each in list(self.active):
            each.stop(SHUTDOWN)

    async def _execute(
        self, started: BackgroundRun, stack: Stack, inputs: dict[str, Any], timeout: float | None
    ) -> None:
        service, run = self._service, started.run
        try:
            await started.execute(stack, inputs, timeout)
        finally:
            self.active.discard(started)
            error = started.error
            if error is not None and error is not started.reason and not started.quiet:
                report(error, run=run.id, endpoint=started.title, sent=run.sink.count)
            done = started.value is not NOTHING_DONE
            if service.metrics is not None and started.row and done:
                service.metrics.finish_background(started.row, run, started.outcome)
            if service.request_log is not None and done:
                service.request_log.background(started.title, run, started.outcome, error, started.about)
            service.after(run, started.outcome, None)
            service.note_idle()
            forget_frames(error)
