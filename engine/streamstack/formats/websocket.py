"""WebSocket messages (RFC 6455): the frames of a server, which are not masked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.formats.spec import REMEMBERED, Encoder, EncoderOptions, Format, ResponseContext, end_marker, refuse_id
from streamstack.language.values import to_json, to_text

# Close codes (RFC 6455, section 7.4.1, and the registry of IANA).
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
INVALID_DATA: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011

#: The first bytes of a final text frame, and of a close frame with a code and no reason.
_TEXT: Final = b"\x81"
_CLOSE: Final = b"\x88\x02"


def text_frame(payload: bytes) -> bytes:
    """Return a message of text in one frame (section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"%b%c%b" % (_TEXT, size, payload)
    if size < 65_536:
        return b"%b\x7e%b%b" % (_TEXT, size.to_bytes(2), payload)
    return b"%b\x7f%b%b" % (_TEXT, size.to_bytes(8), payload)


def payloads(data: bytes) -> Iterator[bytes]:
    """Yield the payloads of complete frames that `text_frame` made."""
    at = 0
    while at < len(data):
        size, start = data[at + 1], at + 2
        if size > 125:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : start])
        at = start + size
        yield data[start:at]


def split_close(data: bytes) -> tuple[bytes, int | None]:
    """Return frames without the close frame at their end, and its code.

    JSON has no byte 2, so no message ends like a close frame.
    """
    if data[-4:-2] == _CLOSE:
        return data[:-4], int.from_bytes(data[-2:])
    return data, None


def close_code(error: RunError) -> int:
    """Return the close code of a stream that fails."""
    if error.code == "producer-lost":
        return GOING_AWAY
    if error.status == 413:
        return TOO_BIG
    if 400 <= error.status < 500:
        if error.code == "invalid-chunk":
            return INVALID_DATA
        if error.code in ("invalid-input", "rate-limited"):
            return POLICY_VIOLATION
    return INTERNAL_ERROR


class WebSocketEncoder(Encoder):
    """Encodes each chunk as one message, a JSON object with `content`.

    Messages of the stream itself have no `content`: `{"done": ...}`, `{"error": ...}`, `{"gap": ...}`. The clean end
    is the close code 1000, which the connection sends, as it sends pings.
    """

    __slots__ = ("_shaped", "_stream")

    def __init__(self, options: EncoderOptions, response: ResponseContext) -> None:
        super().__init__(options, response)
        self._shaped: dict[str | None, bool] = options.cache
        self._stream = response.stream

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        if event is not None:
            event = to_text(event) or None
        shaped = self._shaped.get(event)
        if shaped is None:
            shaped = self._learn(event)
        if self._stream:
            if id is not None:
                raise refuse_id()
            id = f"{self._stream}/{number}"  # noqa: A001
        message: dict[str, Any] = {}
        if event is not None:
            message["event"] = event
        if id is not None:
            message["id"] = to_text(id)
        message["content"] = content
        if shaped or metadata is not None:
            message["metadata"] = metadata
        return text_frame(to_json(message))

    def _learn(self, event: str | None) -> bool:
        shaped = self.options.shapes.has_metadata(event)
        if len(self._shaped) < REMEMBERED:
            self._shaped[event] = shaped
        return shaped

    def done(self, content: Any, metadata: Any, summary: Mapping[str, Any], number: int) -> bytes:
        return self._own("done", end_marker(content, metadata, summary), number)

    def error_end(self, error: RunError, fields: Mapping[str, Any], number: int) -> bytes:
        return self._own("error", fields, number) + _CLOSE + close_code(error).to_bytes(2)

    def gap(self, missing: Mapping[str, Any], number: int) -> bytes:
        return self._own("gap", missing, number)

    def _own(self, name: str, data: Any, number: int) -> bytes:
        """Return a message of the stream itself."""
        message = {name: data}
        if self._stream:
            message["id"] = f"{self._stream}/{number}"
        return text_frame(to_json(message))


WEBSOCKET: Final = Format(
    name="websocket",
    content_type="",
    encoder=WebSocketEncoder,
    carries=frozenset({"event", "id", "metadata", "done.content", "done.metadata"}),
    raw_json=True,
    heartbeats=True,
    gaps=True,
    resumable=True,
    upgrade=True,
)
