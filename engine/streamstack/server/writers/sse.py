"""Server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from typing import Any

from streamstack.errors import RunError
from streamstack.language.values import to_json, to_text
from streamstack.runtime.chunk import check_content
from streamstack.server.request import Request
from streamstack.server.wire import Wire
from streamstack.server.writers.answer import PLAIN
from streamstack.server.writers.stream import StreamSink
from streamstack.server.writers.text import encode

#: Event names a writer remembers; more than these are an author's mistake, and only slower.
_LEARNT = 256

#: The ids of the first chunks, ready made.
_DIGITS = tuple(b"%d" % number for number in range(4096))

_BREAKS = re.compile(r"\r\n|\r|\n")
_REFUSED = re.compile(r"[\r\n\x00]")


class SseSink(StreamSink):
    """Writes each chunk as one event. Ids are the index of the chunk, as `stream.count` is."""

    takes_json = True
    tells_gaps = True
    __slots__ = ("_heads", "_ids")

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        # Event name -> the lines before the id's digits or the data, and whether it has metadata.
        self._heads: dict[str | None, tuple[bytes, bool]] = wire.learnt
        self._ids = wire.ids
        if wire.retry is not None:
            self._opening = b"retry: %d\n" % wire.retry

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        if self.ended or type(content) not in PLAIN:
            check_content(self, content)
        try:
            head, shaped = self._heads[event]
        except (KeyError, TypeError):  # a new name, or one that is no text
            head, shaped = self._learn(event)
        if shaped or metadata is not None:
            data = to_json({"content": content, "metadata": metadata})
        elif type(content) is str:
            if "\n" in content or "\r" in content:
                content = _BREAKS.sub("\ndata: ", content)
            try:
                data = content.encode()
            except UnicodeEncodeError:
                data = encode(content)
        else:
            data = _plain(content)
        count = self.count
        if id is not None:
            event_bytes = b"%bid: %b\ndata: %b\n\n" % (self._name(event), self._own_id(id), data)
        elif self._ids:
            digits = _DIGITS[count] if count < 4096 else b"%d" % count
            event_bytes = b"".join((head, digits, b"\ndata: ", data, b"\n\n"))
        else:
            event_bytes = b"".join((head, data, b"\n\n"))
        self._parts.append(event_bytes)
        self.count = count + 1
        self.bytes = total = self.bytes + len(event_bytes)
        if total >= self._limit:
            return self._settle()
        return False

    def _learn(self, event: Any) -> tuple[bytes, bool]:
        name = to_text(event) if event is not None else None
        head = self._name(name) + (b"id: " if self._ids else b"data: ")
        known = (head, self.wire.shapes.has_metadata(name or None))
        if len(self._heads) < _LEARNT and (event is None or type(event) is str):
            self._heads[event] = known
        return known

    def _name(self, event: Any) -> bytes:
        text = to_text(event)  # null is empty
        if not text:
            return b""
        return b"event: %b\n" % _one_line(text, "event")

    def _own_id(self, given: Any) -> bytes:
        return _one_line(to_text(given), "id")

    def end_marker(self, content: Any, metadata: Any) -> bytes:
        return _event(b"done", self.marker(content, metadata))

    def clean_end(self) -> bytes:
        return _event(b"done", self.summary(None))

    def unmarked(self) -> bool:
        # Clients that know no `event: error` (Google's for npm) would take the end for a good one.
        return not self.wire.done

    def error_end(self, error: RunError) -> bytes:
        return _event(b"error", self.told(error))

    def gap(self, dropped: int) -> bytes:
        return _event(b"gap", {"dropped": dropped})

    def beat(self) -> bytes:
        # One line, no block of its own: an empty block is an event to some SDKs (STREAMING).
        return b":\n"


def _plain(content: Any) -> bytes:
    """Return content without metadata: text as it is, anything else as JSON."""
    if isinstance(content, str):
        return encode(_BREAKS.sub("\ndata: ", content))
    return to_json(content)


def _event(name: bytes, data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, _plain(data))


def _one_line(text: str, field: str) -> bytes:
    if _REFUSED.search(text):
        raise RunError(
            "template", f"the {field} of a chunk is one line: it holds a line break or NUL"
        )
    return encode(text)
