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
from streamstack.server.ending import error_of, fail, tell
from streamstack.server.life import Life
from streamstack.server.limits import Pass
from streamstack.server.resuming.sinks import ResumableSink
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
    sink: ResumableSink,
    stream: Stream,
    given: Given,
) -> None:
    """Run an endpoint's stack, write into the journal, and end it whatever happens."""
    life = stream.life = Life(sink, served.limits, service.lives, served.row)
    outcome = "failed"
    try:
        try:
            if served.headers is not None:
                sink.headers += served.headers(run, given.inputs)
            sink.finish(await life.attend(served.start(run, given.inputs)))
            outcome = "completed"
        except asyncio.CancelledError:
            reason = life.stopped()
            if reason is None:
                outcome = "cancelled"
                fail(served, run, sink, RunError("producer-lost", "the server is shutting down"))
                raise
            if reason.code == "stopped":
                outcome = "cancelled"
            fail(served, run, sink, reason)
        except Exception as error:  # noqa: BLE001  (one run must not end the service's group)
            fail(served, run, sink, error_of(error))
    finally:
        life.end()
        stream.life = None
        given.hear_no_more()
        service.leave(life, outcome)
        service.after(run, outcome, given.close)
        if service.context.dev:
            tell(served, sink, outcome)
