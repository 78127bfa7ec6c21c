"""The run of a resumable stream: a task of the service, which no connection takes with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamstack.errors import RunError
from streamstack.records import record
from streamstack.runtime.run import Run
from streamstack.server.arriving import Arriving
from streamstack.server.ending import error_of, fail
from streamstack.server.life import Life
from streamstack.server.limits import Pass
from streamstack.server.request_log import outcome_of
from streamstack.server.resuming.sinks import Kept
from streamstack.server.resuming.streams import Stream
from streamstack.server.served import Served

if TYPE_CHECKING:
    from streamstack.server.service import Service


@record()
class Given:
    """What a run was given: its inputs, what deletes the files among them, its body where that still arrives.

    ``let`` holds its places among the runs that may be under way at once.
    """

    inputs: dict[str, Any]
    close: Callable[[], None] | None
    arriving: Arriving | None = None
    let: Pass | None = None

    def hear_no_more(self) -> None:
        """Take no more notice of a body that still arrives, and give the places back."""
        if self.arriving is not None:
            self.arriving.end()
        if self.let is not None:
            self.let.leave()

    def closed(self) -> Given:
        """Delete the files now."""
        if self.close is not None:
            self.close()
        return replace(self, close=None)


#: What a run is given that was not asked for anything yet.
NOTHING = Given({}, None)


async def produce(
    service: Service,
    served: Served,
    run: Run,
    sink: Kept,
    stream: Stream,
    given: Given,
) -> None:
    """Run an endpoint's stack, write into the journal, and end it whatever happens."""
    life = stream.life = Life(sink, served.limits, service.lives, served.row)
    outcome = ended = "failed"
    error: RunError | None = None
    try:
        try:
            if served.headers is not None:
                sink.headers += served.headers(run, given.inputs)
            sink.finish(await life.attend(served.start(run, given.inputs)))
            outcome = ended = "completed"
        except asyncio.CancelledError:
            error = life.stopped()
            if error is None:
                outcome, ended = "cancelled", "shutdown"
                error = RunError("producer-lost", "the server is shutting down")
                fail(served, run, sink, error)
                raise
            if error.code == "stopped":
                outcome = "cancelled"
            ended = outcome_of(error, sink, life.reason)
            fail(served, run, sink, error)
        except Exception as raised:  # noqa: BLE001  (one run must not end the service's group)
            error = error_of(raised)
            ended = outcome_of(error, sink, None)
            fail(served, run, sink, error)
    finally:
        life.end()
        stream.life = None
        given.hear_no_more()
        service.leave(life)
        service.ended(served, sink, ended, error, life)
        service.after(run, outcome, given.close)
