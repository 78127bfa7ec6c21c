"""One JSON document: an endpoint's one value, or a whole stream for who can't read streams."""

from __future__ import annotations

from asyncio import get_running_loop
from typing import Any

from streamstack.errors import RunError
from streamstack.language.values import MISSING, to_json, to_text
from streamstack.runtime.chunk import check_content, check_open
from streamstack.server.replies import Sent, send
from streamstack.server.request import Request
from streamstack.server.wire import LARGEST_DOCUMENT, Wire
from streamstack.server.writers.answer import PLAIN, Answer
from streamstack.server.writers.ndjson import shape


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


class DocumentSink(Answer):
    """Keeps the chunks of a stream, encoded, and answers with them at the end.

    Nothing is sent before, so an error keeps its own status however late it comes.
    RunError ``limit-reached`` past `maxBytes`, or 16 MB.
    """

    takes_json = True
    __slots__ = ("_body", "_done", "_largest", "_loop", "_metadata")

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self._body = bytearray()
        self._largest = wire.max_bytes or LARGEST_DOCUMENT
        self._loop = get_running_loop()
        self._done: Any = MISSING
        self._metadata: Any = None

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        if self.ended or type(content) not in PLAIN:
            check_content(self, content)
        event = (to_text(event) or None) if event is not None else None
        shaped = metadata is not None or self.wire.shapes.has_metadata(event)
        data = to_json(shape(content, event, id, metadata, shaped=shaped))
        if self.bytes + len(data) > self._largest:
            raise RunError(
                "limit-reached",
                f"an answer kept whole may have {self._largest} bytes (maxBytes): "
                "ask for text/event-stream or application/x-ndjson",
            )
        if self.count:
            self._body += b","
        self._body += data
        self.count += 1
        self.bytes += len(data) + 1
        self.emitted_at = self._loop.time()
        return False

    async def drain(self) -> None:
        return None

    def done(self, content: Any = MISSING, metadata: Any = None) -> None:
        check_open(self)
        self.ended = True
        self._done = content
        self._metadata = metadata

    def finish(self, value: Any) -> Sent:
        parts: list[bytes | bytearray] = [
            b'{"chunks":[',
            self._body,
            b'],"metadata":',
            to_json(self.summary(self._metadata)),
        ]
        if self._done is not MISSING and self._done is not None:
            parts += [b',"done":', to_json(self._done)]
        parts.append(b"}")
        lines = self.lines()
        self.committed = True
        return send(self.request, self.status, lines, b"".join(parts))
