"""What every sink of the server has in common: status, headers, cookies, and how it ends."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from streamstack.errors import RunError
from streamstack.language.values import MISSING, to_json
from streamstack.runtime.chunk import Sink
from streamstack.runtime.run import Run
from streamstack.server.cookies import cookie_headers
from streamstack.server.heads import check_status, own_headers
from streamstack.server.problems import in_band, log
from streamstack.server.replies import Sent, reset, send, send_problem, status_of
from streamstack.server.request import Request
from streamstack.server.wire import Wire


class Answer(Sink):
    """What the server needs of a sink beyond what a run needs. ``cors`` are header lines."""

    __slots__ = (
        "blocked",
        "committed",
        "cookies",
        "cors",
        "dropped",
        "emitted_at",
        "first_at",
        "headers",
        "heard_at",
        "refused",
        "request",
        "run",
        "sent_at",
        "status",
        "waits_since",
        "wire",
    )
    run: Run  # set before anything is emitted

    #: Whether the response can be resumed.
    keeps: ClassVar[bool] = False
    #: Whether what the run was given is not the request's to close any more.
    handed: bool = False

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__()
        self.wire = wire
        self.request = request
        self.cors = cors
        self.committed = False  # the status line is sent
        self.refused = False  # an error was answered with its own status
        self.first_at = 0.0  # `perf_counter` when the first chunk left
        self.status = 200
        self.headers: list[tuple[str, str]] = []  # of this run: from bindings and `respond`
        self.cookies: dict[str, Any] = {}
        self.blocked = False  # waiting for the reader
        self.dropped = 0  # of the chunks, those that their reader was too slow for
        self.emitted_at = 0.0  # loop time of the last chunk
        self.sent_at = 0.0  # loop time of the last byte
        self.heard_at = 0.0  # loop time of the last bytes of a body that is read as it arrives
        self.waits_since = 0.0  # loop time since when more of it is waited for, 0 where it is not

    def respond(
        self, status: int | None, headers: Mapping[str, str], cookies: Mapping[str, Any]
    ) -> None:
        if self.committed:
            raise RunError(
                "template",
                "the status line has been sent: `respond` must come before the first chunk",
            )
        if status is not None:
            self.status = check_status(status)
        self.headers += own_headers(headers, bound=True)
        cookie_headers(cookies)  # told here, at the step that gives them
        self.cookies.update(cookies)

    def lines(self) -> bytes:
        """Return the header lines but those of the connection."""
        wire = self.wire
        lines = wire.lines(self.headers) if self.headers else wire.plain
        if self.cookies:
            lines += b"".join(
                f"{name}: {value}\r\n".encode() for name, value in cookie_headers(self.cookies)
            )
        return b"%bX-Run-Id: %b\r\n%b" % (lines, self.run.id.encode(), self.cors)

    @abstractmethod
    def finish(self, value: Any) -> Sent:
        """End the answer in good order. ``value`` is what the stack returned."""

    def fail(self, error: RunError) -> Sent:
        """Answer with an error, in the way that is still open."""
        self.status, self.refused = status_of(error), True
        return send_problem(
            self.request, error, run=self.run.id, lines=self.cors, dev=self.wire.dev
        )

    def abort(self) -> None:
        """Close the connection at once."""
        if (transport := self.request.transport) is not None:
            reset(transport)

    def drop_reader(self) -> None:
        """Disconnect a client that is too slow. The run ends as if the client had left."""
        log.warning(
            "reader-dropped",
            code="slow-client",
            run=self.run.id,
            method=self.request.method,
            path=self.request.path,
            chunks=self.count,
        )
        self.abort()

    def heartbeat(self) -> None:
        """Keep proxies from closing an idle connection, where the format has a way to."""

    def summary(self) -> dict[str, Any]:
        """Return the figures that the end of a stream tells."""
        summary: dict[str, Any] = {"chunks": self.count, "elapsedMs": self.run.elapsed_ms}
        if self.dropped:
            summary["dropped"] = self.dropped
        return summary

    def told(self, error: RunError) -> dict[str, Any]:
        """Return what the client is told of an error after the commit point."""
        return in_band(error, self.run.id, dev=self.wire.dev)


class ValueSink(Answer):
    """Answers with the value of the stack. Nothing can be emitted into it."""

    __slots__ = ()

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        raise RunError(
            "template",
            "this endpoint answers one JSON value: write `responseType: streaming` to stream",
        )

    async def drain(self) -> None:
        return None

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        self.emit(content, None, None, metadata)

    def finish(self, value: Any) -> Sent:
        body = to_json(value)
        lines = self.lines()
        self.committed = True
        return send(self.request, self.status, lines, body)
