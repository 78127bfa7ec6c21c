"""Responses as a client reads them: taken apart by their media type into chunks, the end marker and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from streamstack.runtime.decoders import format_of, read_content_type
from streamstack.runtime.decoders.decoder import Decoder
from streamstack.runtime.decoders.lines import LinesDecoder, TextDecoder
from streamstack.runtime.decoders.sse import SseDecoder

#: Bytes of an event or a line, at most: the caller asked for it, and sees it whole.
_LARGEST: Final = 1 << 40
#: How the errors of dialects begin whose events have no names: OpenAI's, the AI SDK's.
_ERRORS: Final = ('{"error":{"message":', '{"type":"error","errorText":')
#: What is not JSON.
NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A part of an answer: a chunk, the end marker, or an error in place of it. ``json``: its text is JSON."""

    kind: Literal["chunk", "done", "error"]
    text: str
    event: str = ""
    json: bool = False
    id: str = field(default="", compare=False)  # the last that was sent, as SSE has it


class AnswerReader:
    """Takes an answer apart by its media type: events, lines of JSON, one JSON document, else text as it comes.

    Any cut of the bytes gives the same parts, except for plain text, whose pieces are its parts.
    """

    def __init__(self, content_type: str) -> None:
        media, _ = read_content_type(content_type)
        self.format = format_of(media)
        self._document = bytearray()
        self._decoder: Decoder
        if self.format == "sse":
            self._decoder = SseDecoder(largest=_LARGEST, data="text")
        elif self.format == "ndjson":
            self._decoder = LinesDecoder("give", _LARGEST)
        else:
            self._decoder = TextDecoder()

    def feed(self, data: bytes) -> list[AnswerPart]:
        """Feed bytes and return the parts that they complete."""
        if self.format == "json":
            self._document += data
            return []
        return [part for item in self._decoder.feed(data) for part in self._parts(item)]

    def close(self) -> list[AnswerPart]:
        """Return the parts that the end of the response completes."""
        if self.format == "json":
            return list(_document_parts(self._document.decode("utf-8", "replace").strip()))
        return [part for item in self._decoder.finish() for part in self._parts(item)]

    def _parts(self, item: Any) -> Iterator[AnswerPart]:
        if self.format == "sse":
            text, event, number = item["data"], item["event"] or "", item["id"] or ""
            if event == "error" or (not event and text.startswith(_ERRORS)):
                yield AnswerPart("error", text, event, id=number)
            elif event in ("done", "message_stop") or text == "[DONE]":
                yield AnswerPart("done", text, event, id=number)
            else:
                yield AnswerPart("chunk", text, event, id=number)
        elif self.format == "ndjson":
            # A line that is not UTF-8 is shown with its bad bytes replaced.
            text = (item if isinstance(item, str) else item["invalid"]["text"]).strip()
            value = parsed(text)
            own = isinstance(value, dict) and (len(value) == 1 or (len(value) == 2 and "id" in value))
            if own and "error" in value:
                yield AnswerPart("error", _compact(value["error"]), json=True, id=value.get("id", ""))
            elif own and "done" in value:
                yield AnswerPart("done", _compact(value["done"]), json=True, id=value.get("id", ""))
            elif text:
                yield AnswerPart("chunk", text, json=True)
        else:
            yield AnswerPart("chunk", item)


#: The event of a part that is a chunk of a WebSocket, whose content is always below `content`.
MESSAGE: Final = "websocket"


def parts_of_message(text: str) -> Iterator[AnswerPart]:
    """Yield the part that a message of a WebSocket is."""
    value = parsed(text)
    if isinstance(value, dict) and "content" in value:
        yield AnswerPart("chunk", text, MESSAGE, json=True, id=value.get("id", ""))
        return
    own = value if isinstance(value, dict) else {}
    name = next((name for name in ("done", "error") if name in own), "")
    if name:
        kind: Literal["done", "error"] = "done" if name == "done" else "error"
        yield AnswerPart(kind, _compact(own[name]), json=True, id=own.get("id", ""))
    else:
        yield AnswerPart("chunk", text, json=True)


def _document_parts(text: str) -> Iterator[AnswerPart]:
    """Yield the chunks of a JSON document; any other document is a single chunk."""
    value = parsed(text)
    if isinstance(value, dict) and isinstance(value.get("chunks"), list):
        for chunk in value["chunks"]:
            yield AnswerPart("chunk", _compact(chunk), json=True)
        yield AnswerPart("done", _compact(value.get("metadata")), json=True)
    elif text:
        yield AnswerPart("chunk", text, json=True)


def parsed(text: str) -> Any:
    """Return the value of a JSON text; `NOTHING` for any other text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return NOTHING


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
