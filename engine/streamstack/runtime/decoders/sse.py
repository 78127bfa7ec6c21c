"""Server-sent events, as WHATWG HTML reads them (https://html.spec.whatwg.org/#parsing-an-event-stream)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, Literal

from streamstack.errors import RunError
from streamstack.runtime.decoders.decoder import LARGEST, Halted, NotJsonError, OnInvalid, excerpt, parse_json
from streamstack.runtime.decoders.lines import LineDecoder, LineEnds

#: What ends a stream of JSON data.
DONE: Final = b"[DONE]"
_JSON_BEGINS: Final = frozenset({b"{", b"["})
#: Bytes of lines that belong to no event which are looked at for an error, before the first event.
_MOST_STRAY: Final = 64 * 1024


class SseDecoder(LineDecoder):
    """Gives each event as {event, id, data}: its name or null, the last id that was set or null, its data.

    ``data`` is "auto": a value where it is a JSON object or array, else text; "json": what does not parse is invalid,
    no data is nothing, and `[DONE]` ends the stream; or "text". A server that sends an error in place of events, as a
    field `error:` or as JSON, makes the stream fail. ``last_id`` is what a reconnection sends as Last-Event-ID, and
    what the stream after it goes on with; ``retry`` are the milliseconds to wait before it that the server asked for.
    """

    def __init__(
        self,
        on_invalid: OnInvalid = "fail",
        largest: int = LARGEST,
        *,
        data: Literal["auto", "json", "text"] = "auto",
        last_id: str = "",
    ) -> None:
        super().__init__(on_invalid, largest)
        self._ends = LineEnds()
        self._kind = data
        self._data: list[bytes] = []
        self._size = 0
        self._passing = False  # over the rest of an event that is too large
        self._event: str | None = None
        self._stray = bytearray()  # lines that belong to no event
        self._id = last_id
        self.last_id = last_id
        self.retry: int | None = None

    def _take(self, data: bytes, items: list[Any]) -> None:
        data = self._ends.feed(data)
        if data:
            super()._take(data, items)

    def _read(self, whole: bytes, items: list[Any]) -> None:
        if len(whole) > self.largest:
            self._read_lines(whole[:-1].split(b"\n"), items)
            return
        fresh = not (self._data or self._passing or self._event) and self._id == self.last_id
        if fresh and whole.endswith(b"\n\n") and whole.startswith(b"data: "):
            # Most events are one line of data: then there is nothing to remember.
            datas = whole[6:-2].split(b"\n\ndata: ")
            if whole.count(b"\n") == 2 * len(datas):
                self._give_all(datas, items)
                return
        blocks = whole.split(b"\n\n")
        rest = blocks.pop()
        for block in blocks:
            if fresh and block.startswith(b"data: ") and b"\n" not in block:
                self._give(block[6:], items)
            else:
                self._read_lines(block.split(b"\n"), items)
                self._read_lines([b""], items)
                fresh = True
            if self.ended:
                return
        if rest:
            self._read_lines(rest[:-1].split(b"\n"), items)

    def _give_all(self, datas: list[bytes], items: list[Any]) -> None:
        """Give events that have nothing but these data."""
        for data in datas:
            self._give(data, items)
            if self.ended:
                return

    def _read_lines(self, lines: list[bytes], items: list[Any]) -> None:
        data = self._data
        for line in lines:
            if not line:
                self.last_id = self._id
                if data:
                    value = data[0] if len(data) == 1 else b"\n".join(data)
                    data.clear()
                    self._give(value, items)
                    if self.ended:
                        return
                self._event = None
                self._passing = False
                self._size = 0
            elif len(line) > self.largest:
                self._drop(line, items)
            elif line[:5] == b"data:" or line == b"data":
                value = line[6:] if line[5:6] == b" " else line[5:]
                self._size += len(value) + 1
                if self._size > self.largest:
                    self._drop(line, items)
                else:
                    data.append(value)
            else:
                self._read_field(line)

    def _read_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self.retry = int(value[:15])  # a wait of ages stays one
        elif name == b"error" and value:
            self._fail(value)
        elif name and self.yielded == 0 and len(self._stray) < _MOST_STRAY:
            self._stray += line + b"\n"

    def _end(self, items: list[Any]) -> None:
        """Look at what came instead of events: servers that fail may send their error as plain JSON."""
        if self.yielded == 0 and not items and self._kind != "text":
            stray = bytes(self._stray + self._lines.finish())
            if stray.lstrip()[:1] == b"{":
                with suppress(NotJsonError):
                    if "error" in parse_json(stray):
                        self._fail(stray)

    def _fail(self, data: bytes) -> None:
        """Fail with an error that a server sent in place of an event. What it says is for the log."""
        try:
            body = parse_json(data)
        except NotJsonError:
            body = excerpt(data)
        message = "the stream holds an error in place of an event"
        self.failure = RunError("http-status", message, details={"body": body}, final=True)
        raise Halted

    def _give(self, data: bytes, items: list[Any]) -> None:
        value: Any
        if self._kind == "auto":
            value = self._parse_any(data)
        elif self._kind == "text":
            value = data.decode("utf-8", "replace")
        elif data == DONE:
            self.ended = True
            return
        elif not data.strip():
            return
        else:
            try:
                value = self._parse(data)
            except NotJsonError as error:
                self._refuse(items, data, str(error))
                return
        items.append({"event": self._event or None, "id": self.last_id or None, "data": value})

    def _parse_any(self, data: bytes) -> Any:
        """Return an event's data: the value of a JSON object or array, else its text unchanged."""
        if data.lstrip()[:1] in _JSON_BEGINS:
            with suppress(NotJsonError):
                return self._parse(data)
        return data.decode("utf-8", "replace")

    def _drop(self, text: bytes, items: list[Any]) -> None:
        """Refuse the present event, once, and pass over the rest of it."""
        if self.ended:
            return
        self._data.clear()
        self._size = self.largest  # whatever data still comes is over it
        if not self._passing:
            self._passing = True
            self._refuse_length(items, text, "an event")
