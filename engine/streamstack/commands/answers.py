"""What comes back from an endpoint, taken apart as it arrives: events, lines, text, or one document."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from streamstack.runtime.decoders.lines import LinesDecoder
from streamstack.runtime.decoders.sse import SseDecoder

#: Bytes of an event or line: whoever calls asked for it, and is shown it whole.
_LARGEST: Final = 1 << 40

#: How the errors of dialects begin, whose events have no names: OpenAI's, the AI SDK's.
_ERRORS: Final = ('{"error":{"message":', '{"type":"error","errorText":')

#: What a part of an answer is: a chunk, the end marker, or an error in place of it.
Kind = Literal["chunk", "done", "error"]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an answer, as it is shown."""

    kind: Kind
    text: str
    event: str = ""


class Reader(Protocol):
    """Takes an answer apart.

    Any cut of the bytes gives the same parts, but for plain text, whose cuts are its parts.
    """

    def feed(self, data: bytes) -> list[Part]:
        """Take bytes, give the parts that they complete."""

    def close(self) -> list[Part]:
        """Give the parts that the end completes."""


class EventReader:
    """Reads server-sent events."""

    def __init__(self) -> None:
        self._decoder = SseDecoder(largest=_LARGEST, data="text")

    def feed(self, data: bytes) -> list[Part]:
        return [self._part(item) for item in self._decoder.feed(data)]

    def close(self) -> list[Part]:
        return []  # an event without its empty line never happened

    def _part(self, item: dict[str, Any]) -> Part:
        text, event = item["data"], item["event"] or ""
        if event == "error" or (not event and text.startswith(_ERRORS)):
            return Part("error", text, event)
        if event in ("done", "message_stop") or text == "[DONE]":
            return Part("done", text, event)
        return Part("chunk", text, event)


class LineReader:
    """Reads NDJSON: a JSON value a line."""

    def __init__(self) -> None:
        self._decoder = LinesDecoder("give", _LARGEST)

    def feed(self, data: bytes) -> list[Part]:
        return self._parts(self._decoder.feed(data))

    def close(self) -> list[Part]:
        return self._parts(self._decoder.finish())

    def _parts(self, lines: list[Any]) -> list[Part]:
        texts = (line if isinstance(line, str) else line["invalid"]["text"] for line in lines)
        return [self._part(text.strip()) for text in texts if text.strip()]

    def _part(self, text: str) -> Part:
        value = _parsed(text)
        if isinstance(value, dict) and len(value) == 1:
            if "error" in value:
                return Part("error", _compact(value["error"]))
            if "done" in value:
                return Part("done", _compact(value["done"]))
        return Part("chunk", value if isinstance(value, str) else text)


class TextReader:
    """Reads plain text: each piece that arrives is a chunk."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> list[Part]:
        text = self._decoder.decode(data)
        return [Part("chunk", text)] if text else []

    def close(self) -> list[Part]:
        text = self._decoder.decode(b"", final=True)
        return [Part("chunk", text)] if text else []


class DocumentReader:
    """Reads an answer that is one JSON document; the chunks in it are shown one by one."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Part]:
        self._data += data
        return []

    def close(self) -> list[Part]:
        text = self._data.decode("utf-8", "replace")
        if not text.strip():
            return []
        value = _parsed(text)
        if not (isinstance(value, dict) and isinstance(value.get("chunks"), list)):
            return [Part("chunk", text.strip())]
        parts = [
            Part("chunk", chunk if isinstance(chunk, str) else _compact(chunk))
            for chunk in value["chunks"]
        ]
        return [*parts, Part("done", _compact(value.get("metadata")))]


def reader_for(content_type: str) -> Reader:
    """Return the reader of a Content-Type; what is not known is text."""
    media = content_type.partition(";")[0].strip().lower()
    if media == "text/event-stream":
        return EventReader()
    if media in ("application/x-ndjson", "application/jsonl", "application/ndjson"):
        return LineReader()
    if media == "application/json" or media.endswith("+json"):
        return DocumentReader()
    return TextReader()


def shown(part: Part) -> str:
    """Return a part on one line: JSON as it is, text in quotes, so that its white space is seen."""
    if isinstance(_parsed(part.text), (dict, list)):
        return part.text.replace("\n", " ")
    return json.dumps(part.text, ensure_ascii=False)


def problem_lines(body: bytes) -> list[str]:
    """Return an error answer for people: its code and detail, then a line a fault."""
    text = body.decode("utf-8", "replace").strip()
    value = _parsed(text)
    if not isinstance(value, dict):
        return [text[:2000]] if text else []
    code, detail = value.get("code"), value.get("detail") or value.get("title")
    if code is None and detail is None:
        return [text[:2000]]
    lines = [": ".join(str(each) for each in (code, detail) if each)]
    faults = value.get("errors")
    for fault in faults if isinstance(faults, list) else []:
        if isinstance(fault, dict):
            place, name = fault.get("in", "request"), fault.get("name")
            told = f"{name} (in the {place})" if name else f"the {place}"
            lines.append(f"  {told} {fault.get('message', '')}")
    place = value.get("place")
    if isinstance(place, dict):
        lines.append("  at {file}:{line}:{column}, step {step}".format_map(_Known(place)))
    return lines


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
