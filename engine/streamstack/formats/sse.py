"""Server-sent events (WHATWG HTML, section 9.2).

`id` is the last field of an event. A connection that is cut within one then leaves no id with clients that take an id
as soon as they have read its line (`@microsoft/fetch-event-source`): they ask for that event again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.formats.spec import (
    LINE_BREAKS,
    REMEMBERED,
    Encoder,
    EncoderOptions,
    Format,
    ResponseContext,
    end_marker,
    refuse_id,
    to_utf8,
)
from streamstack.language.values import to_json, to_text

#: The numbers of the first chunks, ready made.
_DIGITS: Final = tuple(b"%d" % number for number in range(4096))

_REFUSED: Final = re.compile(r"[\r\n\x00]")


class SseEncoder(Encoder):
    """Encodes each chunk as one event. Ids are the index of the chunk, as `stream.count` is."""

    __slots__ = ("_heads", "_id", "_numbered", "_stream")

    def __init__(self, options: EncoderOptions, response: ResponseContext) -> None:
        super().__init__(options, response)
        # Event name -> what stands before the data, and whether that is an object with metadata.
        self._heads: dict[Any, tuple[bytes, bool]] = options.cache
        self._stream = response.stream
        self._id = f"\nid: {response.stream}/".encode() if response.stream else b"\nid: "
        self._numbered = options.ids or bool(response.stream)

    def opening(self) -> bytes:
        # `retry` stands inside the first event.
        retry = self.options.retry
        return b"" if retry is None else b"retry: %d\n" % retry

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        try:
            head, shaped = self._heads[event]
        except (KeyError, TypeError):  # a new name, or one that is not a text
            head, shaped = self._learn(event)
        if shaped or metadata is not None:
            data = to_json({"content": content, "metadata": metadata})
        elif type(content) is str:
            if "\n" in content or "\r" in content:
                content = LINE_BREAKS.sub("\ndata: ", content)
            try:
                data = content.encode()
            except UnicodeEncodeError:
                data = to_utf8(content)
        else:
            data = _data(content)
        if id is not None:
            return self._with_own_id(event, id, data)
        if self._numbered:
            digits = _DIGITS[number] if number < 4096 else b"%d" % number
            return b"".join((head, data, self._id, digits, b"\n\n"))
        return b"".join((head, data, b"\n\n"))

    def shared_chunk(self, content: Any, event: Any, id: Any) -> tuple[bytes, bool] | None:  # noqa: A002
        if self._stream:
            return None
        data = self.chunk(content, event, id, None, 0)
        if id is not None or not self._numbered:
            return data, False
        return data[: -len(b"0\n\n")], True

    def numbered(self, data: bytes, number: int) -> bytes:
        return b"%b%d\n\n" % (data, number)

    def _learn(self, event: Any) -> tuple[bytes, bool]:
        name = to_text(event) if event is not None else None
        known = (_name(name) + b"data: ", self.options.shapes.has_metadata(name or None))
        if len(self._heads) < REMEMBERED and (event is None or type(event) is str):
            self._heads[event] = known
        return known

    def _with_own_id(self, event: Any, own_id: Any, data: bytes) -> bytes:
        if self._stream:
            raise refuse_id()
        return b"%bdata: %b\nid: %b\n\n" % (_name(event), data, _one_line(to_text(own_id), "id"))

    def done(self, content: Any, metadata: Any, summary: Mapping[str, Any], number: int) -> bytes:
        return self._own(b"done", end_marker(content, metadata, summary), number)

    def end(self, summary: Mapping[str, Any], number: int, *, marked: bool) -> bytes:
        if marked or not self.options.done:
            return b""
        return self._own(b"done", summary, number)

    def error_end(self, error: RunError, fields: Mapping[str, Any], number: int) -> bytes:
        return self._own(b"error", fields, number)

    @property
    def ends_alike(self) -> bool:
        # Clients that know no `event: error` (Google's for npm) would take the end for a good one.
        return not self.options.done

    def gap(self, missing: Mapping[str, Any], number: int) -> bytes:
        return self._own(b"gap", missing, number)

    def heartbeat(self) -> bytes:
        # One line, no block of its own: an empty block is an event to some SDKs (STREAMING).
        return b":\n"

    def _own(self, name: bytes, data: Any, number: int) -> bytes:
        """Return an event of the stream itself."""
        if self._stream:
            return b"event: %b\ndata: %b%b%d\n\n" % (name, _data(data), self._id, number)
        return b"event: %b\ndata: %b\n\n" % (name, _data(data))


def _name(event: Any) -> bytes:
    text = to_text(event)  # null is empty
    return b"event: %b\n" % _one_line(text, "event") if text else b""


def _data(content: Any) -> bytes:
    """Return content without metadata: text as it is, anything else as JSON."""
    if isinstance(content, str):
        return to_utf8(LINE_BREAKS.sub("\ndata: ", content))
    return to_json(content)


def _one_line(text: str, field: str) -> bytes:
    if _REFUSED.search(text):
        raise RunError("template", f"the {field} of a chunk is one line: it holds a line break or NUL")
    return to_utf8(text)


SSE: Final = Format(
    name="sse",
    content_type="text/event-stream; charset=utf-8",
    encoder=SseEncoder,
    media_types=("text/event-stream",),
    allowed_types=("text/event-stream",),
    carries=frozenset({"event", "id", "metadata", "done.content", "done.metadata"}),
    raw_json=True,
    numbered=True,
    done_event=True,
    heartbeats=True,
    gaps=True,
    resumable=True,
)
