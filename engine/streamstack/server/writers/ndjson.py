"""Newline-delimited JSON: one value a line."""

from __future__ import annotations

from typing import Any

from streamstack.errors import RunError
from streamstack.language.values import to_json, to_text
from streamstack.runtime.chunk import check_content
from streamstack.server.request import Request
from streamstack.server.wire import Wire
from streamstack.server.writers.answer import PLAIN
from streamstack.server.writers.stream import StreamSink

#: Event names a writer remembers.
_LEARNT = 256


def shape(content: Any, event: Any, id: Any, metadata: Any, *, shaped: bool) -> Any:  # noqa: A002
    """Return a chunk as one JSON value: its content, or an object where there is more to say."""
    if event is None and id is None:
        return {"content": content, "metadata": metadata} if shaped else content
    told: dict[str, Any] = {}
    if event is not None:
        told["event"] = event
    if id is not None:
        told["id"] = to_text(id)
    told["content"] = content
    if shaped:
        told["metadata"] = metadata
    return told


class NdjsonSink(StreamSink):
    """Writes one JSON value a line."""

    takes_json = True
    tells_gaps = True
    __slots__ = ("_shaped",)

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self._shaped: dict[str | None, bool] = wire.learnt

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        if self.ended or type(content) not in PLAIN:
            check_content(self, content)
        if event is not None:
            event = to_text(event) or None
        shaped = self._shaped.get(event)
        if shaped is None:
            shaped = self._learn(event)
        if event is None and id is None and not shaped and metadata is None:
            line = to_json(content) + b"\n"
        else:
            shaped = shaped or metadata is not None
            line = to_json(shape(content, event, id, metadata, shaped=shaped)) + b"\n"
        self._parts.append(line)
        self.count += 1
        self.bytes = total = self.bytes + len(line)
        if total >= self._limit:
            return self._settle()
        return False

    def _learn(self, event: str | None) -> bool:
        shaped = self.wire.shapes.has_metadata(event)
        if len(self._shaped) < _LEARNT:
            self._shaped[event] = shaped
        return shaped

    def end_marker(self, content: Any, metadata: Any) -> bytes:
        return to_json({"done": self.marker(content, metadata)}) + b"\n"

    def error_end(self, error: RunError) -> bytes:
        return to_json({"error": self.told(error)}) + b"\n"

    def gap(self, dropped: int) -> bytes:
        return to_json({"gap": {"dropped": dropped}}) + b"\n"

    def beat(self) -> bytes:
        # A blank before a value is JSON's own white space: the next line stays one value.
        return b" "
