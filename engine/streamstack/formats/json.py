"""One JSON document: a whole stream for clients that can't read one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamstack.formats.ndjson import shape
from streamstack.formats.spec import Encoder, EncoderOptions, Format, ResponseContext, summarize
from streamstack.language.values import MISSING, to_json, to_text


class JsonEncoder(Encoder):
    """Keeps the chunks, encoded, for one object `{"chunks", "metadata", "done"}`."""

    whole = True

    __slots__ = ("_body", "_done", "_metadata", "_start")

    def __init__(self, options: EncoderOptions, response: ResponseContext) -> None:
        super().__init__(options, response)
        self._body = bytearray()
        self._start = 0  # where the last chunk begins
        self._done: Any = MISSING
        self._metadata: Any = None

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        event = (to_text(event) or None) if event is not None else None
        shaped = metadata is not None or self.options.shapes.has_metadata(event)
        data = to_json(shape(content, event, id, metadata, shaped=shaped))
        body = self._body
        self._start = len(body)
        body += b"," + data
        self.held = len(body) - 1  # without the comma before the first
        return b""

    def undo(self) -> None:
        del self._body[self._start :]
        self.held = max(self._start - 1, 0)

    def done(self, content: Any, metadata: Any, summary: Mapping[str, Any], number: int) -> bytes:
        self._done = content
        self._metadata = metadata
        return b""

    def end(self, summary: Mapping[str, Any], number: int, *, marked: bool) -> bytes:
        parts: list[bytes | memoryview] = [
            b'{"chunks":[',
            memoryview(self._body)[1:],
            b'],"metadata":',
            to_json(summarize(self._metadata, summary)),
        ]
        if self._done is not MISSING and self._done is not None:
            parts += [b',"done":', to_json(self._done)]
        return b"".join((*parts, b"}"))


JSON: Final = Format(
    name="json",
    content_type="application/json; charset=utf-8",
    encoder=JsonEncoder,
    media_types=("application/json",),
    allowed_types=("application/json",),
    carries=frozenset({"event", "id", "metadata", "done.content", "done.metadata"}),
    raw_json=True,
    whole=True,
)
