"""The sinks of resumable streams: chunks go into a journal, with ids that tell how far a reader is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from streamstack.errors import RunError
from streamstack.language.values import MISSING, to_json, to_text
from streamstack.runtime.chunk import check_content, check_open
from streamstack.server.heads import BODILESS
from streamstack.server.problems import problem
from streamstack.server.replies import KEEP, Sent, error_lines, problem_lines, status_of
from streamstack.server.request import Request
from streamstack.server.resuming.frames import frame, pulse
from streamstack.server.resuming.ids import new_stream_id
from streamstack.server.resuming.journal import End, Head, Journal
from streamstack.server.wire import GATHERED, Wire
from streamstack.server.writers.answer import PLAIN, Answer
from streamstack.server.writers.ndjson import NdjsonSink, shape
from streamstack.server.writers.sse import SseSink
from streamstack.server.writers.stream import StreamSink

if TYPE_CHECKING:
    from streamstack.server.turn import Turn

#: Seconds after which a run that is held back is noted to be alive still.
_HELD: Final = 1.0


class Kept(StreamSink):
    """Writes into a journal, which readers copy from.

    Until it has one (`keep_in`) the request it came with is answered as always: that is how one that is refused before
    its run begins is told. After that the request is only what the run sees of it.
    """

    keeps = True
    # No __slots__: two bases with some could not be put together.

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        # Not StreamSink's own: no connection is listened to, and none is written to.
        Answer.__init__(self, wire, request, cors)
        self.stream = new_stream_id()
        self._journal: Journal | None = None
        self._loop = asyncio.get_running_loop()
        self._turn: Turn = request.turn
        self._parts = []
        self._opening = b"" if wire.retry is None else b"retry: %d\n" % wire.retry
        self._scheduled = False
        self._flushed = 0
        self._limit = 0
        self._gathered = min(GATHERED, wire.buffer // 2) or 1
        self._backlog = None  # each reader's own affair, as compression is
        self._compress = None

    @property
    def journal(self) -> Journal:
        """What it writes into, once the run has begun."""
        assert self._journal is not None
        return self._journal

    def keep_in(self, journal: Journal) -> None:
        """Write into this journal from now on."""
        self._journal = journal

    # ------------------------------------------------------------- the way of a chunk

    def _refuse_id(self) -> RunError:
        return RunError(
            "template",
            "the chunk has an id of its own, and readers come back with the ids that `resume` gives: "
            "take `id` out of the step `stream`",
        )

    def _tell(self, name: str, data: Any) -> bytes:
        number = self.journal.next + len(self._parts)
        return frame(self.wire.format, self.stream, number, name, data)

    def _settle(self) -> bool:
        maximum = self.wire.max_bytes
        if maximum and self.bytes > maximum:
            raise self._withdraw(
                RunError("limit-reached", f"the stream has more bytes than maxBytes ({maximum})")
            )
        if not self.first_at:
            self.first_at = perf_counter()
        journal = self.journal
        if not self.committed:
            try:
                self._commit()
            except RunError as error:
                raise self._withdraw(error) from error.__cause__
            self._open()
            self.flush()
            return journal.holds()
        self._open()
        if self.bytes - self._flushed >= self._gathered or journal.holds(len(self._parts)):
            return True
        self._schedule()
        if journal.readers:
            limit = self._flushed + self._gathered
            self._limit = min(limit, maximum + 1) if maximum else limit
        return False

    def _open(self) -> None:
        if self._opening and self._parts:
            self._parts[0] = self._opening + self._parts[0]  # each part is one event
            self._opening = b""

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._turn.flush(self)

    def _commit(self) -> None:
        if self.status in BODILESS:
            raise RunError("template", f"an answer with status {self.status} has no chunks")
        self.journal.begin(self._head_lines())
        self.committed = True

    def _head_lines(self) -> Head:
        lines = self.lines()
        lines = lines[: len(lines) - len(self.cors)]  # those are for one origin only
        return Head(self.status, b"%bX-Stream-Id: %b\r\n" % (lines, self.stream.encode()))

    def flush(self) -> None:
        """Hand what is gathered to the journal, and so to the readers who are there."""
        self._scheduled = False
        self._limit = 0
        if self._parts:
            self.sent_at = self._loop.time()
            self.journal.append(self._parts)
            self._parts.clear()
        if self._flushed != self.bytes:
            self._flushed = self.bytes
            self.emitted_at = self.sent_at

    async def drain(self) -> None:
        journal = self.journal
        self.flush()
        while journal.holds():
            # The silence is not the run's: it must not end for it.
            self.heard_at = self._loop.time()
            await journal.room(_HELD)

    # ------------------------------------------------------------- silences and ends

    def heartbeat(self) -> None:
        if self.ended or self._parts:
            return
        if not self.committed:
            try:
                self._commit()
            except RunError:
                return  # the first chunk will raise it again, where it can be answered
        self.journal.beat()

    def beat(self) -> bytes:
        return pulse(self.wire.format)

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        check_open(self)
        if not self.committed:
            self._commit()
        self._parts.append(self.end_marker(content, metadata))
        self._open()
        self._schedule()
        self.ended = True

    def end_marker(self, content: Any, metadata: Any) -> bytes:
        return self._tell("done", self.marker(content, metadata))

    def error_end(self, error: RunError) -> bytes:
        return self._tell("error", self.told(error))

    def finish(self, value: Any) -> Sent:
        if not self.committed and self.status in BODILESS:
            self.journal.begin(self._head_lines())
            return self._close(End(whole=b""))
        if not self.committed:
            self._commit()
        self._end_with(self.closing())
        return self._close(End())

    def fail(self, error: RunError) -> Sent:
        if self._journal is None:
            return Answer.fail(self, error)
        if not self.committed:
            self.status, self.refused = status_of(error), True
            lines = problem_lines(self.run.id) + error_lines(error)
            self.journal.begin(Head(self.status, lines))
            return self._close(
                End(whole=problem(error, self.run.id, self.status, dev=self.wire.dev))
            )
        self._end_with(self.error_end(error))
        return self._close(End(cut=self.unmarked()))

    def _close(self, end: End) -> Sent:
        parts, self._parts = self._parts, []
        if parts:
            self.sent_at = self._loop.time()
        self.ended = True
        self.journal.finish(end, parts)
        self.flush()
        return KEEP

    def abort(self) -> None:
        if self._journal is None:
            Answer.abort(self)
        else:
            self._close(End(cut=True))


class KeptSse(Kept, SseSink):
    """Writes events."""

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self._heads = {}  # with the stream's own id, so of no use to others
        self._ids = True

    def _learn(self, event: Any) -> tuple[bytes, bool]:
        name = to_text(event) if event is not None else None
        head = b"%bid: %b/" % (self._name(name), self.stream.encode())
        known = (head, self.wire.shapes.has_metadata(name or None))
        if len(self._heads) < 256 and (event is None or type(event) is str):
            self._heads[event] = known
        return known

    def _own_id(self, given: Any) -> bytes:
        raise self._refuse_id()

    def clean_end(self) -> bytes:
        return self._tell("done", self.summary(None))


class KeptNdjson(Kept, NdjsonSink):
    """Writes one object a line: beside what it holds, each has its id."""

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self._shaped = wire.learnt

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        if self.ended or type(content) not in PLAIN:
            check_content(self, content)
        if id is not None:
            raise self._refuse_id()
        if event is not None:
            event = to_text(event) or None
        shaped = self._shaped.get(event)
        if shaped is None:
            shaped = self._learn(event)
        shaped = shaped or metadata is not None
        name = f"{self.stream}/{self.count}"
        line = to_json(shape(content, event, name, metadata, shaped=shaped)) + b"\n"
        self._parts.append(line)
        self.count += 1
        self.bytes = total = self.bytes + len(line)
        if total >= self._limit:
            return self._settle()
        return False


#: What writes the formats whose readers can come back.
KEPT: Final[Mapping[str, type[Answer]]] = {
    "sse": KeptSse,
    "ndjson": KeptNdjson,
    "jsonl": KeptNdjson,
}
