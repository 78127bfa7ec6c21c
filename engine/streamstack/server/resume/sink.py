"""The sink of resumable streams: chunks go into a log, with ids that tell how far a reader is."""

from __future__ import annotations

from typing import Final

from streamstack.errors import RunError
from streamstack.formats.spec import Encoder
from streamstack.server.headers import BODILESS
from streamstack.server.replies import KEEP, Sent, error_lines, problem, problem_lines, status_of
from streamstack.server.request import Request
from streamstack.server.response import StreamSink
from streamstack.server.response_options import ResponseOptions
from streamstack.server.resume.log import End, Head, StreamLog, new_stream_id

#: Seconds after which a run that is held back is noted to be alive still.
_HELD: Final = 1.0


class ResumableSink(StreamSink):
    """Writes into a log, which readers copy from.

    Until it has one (`attach_log`) errors answer the request directly, as those before the run begins do. After that
    the response is written by readers of the log.
    """

    keeps = True

    __slots__ = ("_log", "handed", "stream")

    def __init__(self, wire: ResponseOptions, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self.stream = new_stream_id()
        self.handed = False
        self._log: StreamLog | None = None

    @property
    def log(self) -> StreamLog:
        """What it writes into, once the run has begun."""
        assert self._log is not None
        return self._log

    def attach_log(self, stream_log: StreamLog) -> None:
        """Write into this log from now on."""
        self._log = stream_log

    # ------------------------------------------------------------- the way of a chunk

    def _stream_id(self) -> str:
        return self.stream

    def _number(self) -> int:
        return self.log.next + len(self._parts)

    def _commit(self) -> None:
        if self.status in BODILESS:
            raise RunError("template", f"an answer with status {self.status} has no chunks")
        self.log.begin(self._head())
        self.committed = True

    def _head(self) -> Head:
        lines = self.lines()
        lines = lines[: len(lines) - len(self.cors)]  # those are for one origin only
        return Head(self.status, b"%bX-Stream-Id: %b\r\n" % (lines, self.stream.encode()))

    def _blocks(self, more: int = 0) -> bool:
        return self.log.must_wait(more)

    def _has_readers(self) -> bool:
        return bool(self.log.readers)

    def _hand_on(self) -> None:
        self.sent_at = self._loop.time()
        self.log.append(self._parts)
        self._parts.clear()

    async def drain(self) -> None:
        stream_log = self.log
        self.flush()
        while stream_log.must_wait():
            # The silence is not the run's: it must not end for it.
            self.heard_at = self._loop.time()
            await stream_log.wait_for_room(_HELD)

    # ------------------------------------------------------------- silences and ends

    def heartbeat(self) -> None:
        if not self.ended and not self._parts and self._commit_quietly():
            self.log.heartbeat()

    def _send_whole(self, encoder: Encoder) -> Sent:
        self.log.begin(self._head())
        return self._close(End(whole=b""))

    def _send_end(self, tail: bytes) -> Sent:
        self._append(tail)
        return self._close(End())

    def fail(self, error: RunError) -> Sent:
        if self._log is None:
            return super().fail(error)
        if not self.committed:
            self.status, self.refused = status_of(error), True
            lines = problem_lines(self.run.id) + error_lines(error)
            self.log.begin(Head(self.status, lines))
            return self._close(End(whole=problem(error, self.run.id, self.status, dev=self.wire.dev)))
        encoder = self.encoder
        self._append(encoder.error_end(error, self.told(error), self._number()))
        return self._close(End(cut=encoder.ends_alike))

    def _close(self, end: End) -> Sent:
        parts, self._parts = self._parts, []
        if parts:
            self.sent_at = self._loop.time()
        self.ended = True
        self.log.finish(end, parts)
        self.flush()
        return KEEP

    def abort(self) -> None:
        if self._log is None:
            super().abort()
        else:
            self._close(End(cut=True))
