"""Bodies of requests and answers that tests write in YAML, as bytes with their Content-Type."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from streamstack.language.cases import Piece
from streamstack.language.values import to_json, to_text

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
TEXT: Final = "text/plain; charset=utf-8"
EVENTS: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
BYTES: Final = "application/octet-stream"

_BY_SUFFIX: Final = {
    ".sse": EVENTS,
    ".ndjson": NDJSON,
    ".jsonl": NDJSON,
    ".json": JSON,
    ".csv": "text/csv; charset=utf-8",
    ".txt": TEXT,
}
#: Begins the lines of Server-Sent Events.
_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
#: Always the same, so that a test sends the same bytes in each run.
_BOUNDARY: Final = "streamstack-boundary-5d2c0a8e"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a multipart body; one with a ``filename`` is a file."""

    data: bytes
    filename: str = ""
    type: str = ""


def media_of(file: Path) -> str:
    """Return the Content-Type of a file, by its name."""
    return _BY_SUFFIX.get(file.suffix.lower()) or mimetypes.guess_type(file.name)[0] or BYTES


def media_of_pieces(pieces: Iterable[Piece], *, json: bool) -> str:
    """Return the Content-Type of a body in pieces: NDJSON if all are ``json``, else by how it begins."""
    if json:
        return NDJSON
    first = next((piece.data for piece in pieces if piece.data), b"")
    return EVENTS if first.startswith(_FIELDS) else TEXT


def encode_form(fields: Mapping[str, Any]) -> bytes:
    """Return the fields of a form, URL-encoded. A list repeats its name, an object is JSON."""
    pairs = [(name, to_text(each)) for name, value in fields.items() for each in _repeated(value)]
    return urlencode(pairs).encode()


def _repeated(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def encode_multipart(fields: Iterable[tuple[str, Part]]) -> tuple[bytes, str]:
    """Return a multipart body and its Content-Type."""
    body = b""
    for name, part in fields:
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{quoted(name)}"'
        if part.filename:
            head += f'; filename="{quoted(part.filename)}"'
        if part.type:
            head += f"\r\nContent-Type: {part.type}"
        body += f"{head}\r\n\r\n".encode() + part.data + b"\r\n"
    return body + f"--{_BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={_BOUNDARY}"


def quoted(name: str) -> str:
    """Return the name of a field or file as multipart headers hold it (WHATWG HTML, multipart/form-data)."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def encode_event(data: Any, event: str = "", identifier: str = "") -> bytes:
    """Return a Server-Sent Event: text as it is, in as many `data:` lines as it has lines; other values as JSON."""
    text = data if isinstance(data, str) else to_json(data).decode()
    lines = [f"event: {event}"] if event else []
    lines += [f"data: {line}" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    lines += [f"id: {identifier}"] if identifier else []
    return ("\n".join(lines) + "\n\n").encode()
