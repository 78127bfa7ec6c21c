"""What comes back from an endpoint, taken apart as it arrives: events, lines, text, or one document."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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
    """Reads server-sent events (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._began = False
        self._return = False  # the last line ended with CR, which a LF may belong to
        self._data: list[str] = []
        self._event = ""

    def feed(self, data: bytes) -> list[Part]:
        text = self._decoder.decode(data)
        if text and not self._began:
            self._began = True
            text = text.removeprefix("\ufeff")
        if text and self._return:
            self._return = False
            text = text.removeprefix("\n")
        if text.endswith("\r"):
            self._return = True
        self._rest += text.replace("\r\n", "\n").replace("\r", "\n")
        if "\n" not in text and "\r" not in text:
            return []
        *lines, self._rest = self._rest.split("\n")
        parts = [self._take(line) for line in lines]
        return [part for part in parts if part is not None]

    def close(self) -> list[Part]:
        return []  # an event without its empty line never happened

    def _take(self, line: str) -> Part | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        return None

    def _dispatch(self) -> Part | None:
        data, self._data = self._data, []
        event, self._event = self._event, ""
        if not data:
            return None
        text = "\n".join(data)
        if event == "error":
            return Part("error", text, event)
        if event in ("done", "message_stop") or text == "[DONE]":
            return Part("done", text, event)
        return Part("chunk", text, event)


class LineReader:
    """Reads NDJSON: a JSON value a line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Part]:
        if b"\n" not in data:
            self._rest += data
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._part(line) for line in lines if line.strip()]

    def close(self) -> list[Part]:
        last, self._rest = self._rest, b""
        return [self._part(last)] if last.strip() else []

    def _part(self, line: bytes) -> Part:
        text = line.decode("utf-8", "replace").strip()
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
