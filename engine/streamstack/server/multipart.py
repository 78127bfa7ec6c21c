"""Forms with files (RFC 7578), read part by part, each within its limit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any, Final

from aiohttp.http_exceptions import HttpProcessingError
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from streamstack.errors import RunError
from streamstack.language.definition import Input
from streamstack.language.units import show_size
from streamstack.runtime.coercion import invalid
from streamstack.runtime.files import File
from streamstack.runtime.inputs import Form, JsonText, Layout
from streamstack.server.request import Request

#: How many parts a form may have.
MOST_PARTS: Final = 1000
#: How many of them are taken apart before others have the event loop.
_AT_ONCE: Final = 50
_PIECE: Final = 64 * 1024
#: Bytes of boundaries and headers that a form may have beside its parts.
_WRAPPING: Final = 256 * 1024
#: The longest line of a part's headers, and how many it may have.
_MOST_LINE: Final = 8190
_MOST_HEADERS: Final = 32

#: A parameter of a header, with its name.
_PARAMETER: Final = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^;"]*)')
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


async def read_multipart(request: Request, layout: Layout, max_body: int, data: bytes | None) -> Form:
    """Read a form: texts, JSON where a part says it is JSON, and files.

    All parts together have ``max_body`` bytes, but a file with a `maxSize` has that for itself. ``data`` is the body
    if it was read before. Raises RunError ``invalid-input`` with status 413 past a limit, 400 for a malformed form.
    """
    form = _Reading(layout, max_body)
    most = most_bytes(layout, max_body)
    if (request.content_length or 0) > most:
        raise _too_long("", most)
    boundary = parse_options_header(request.headers.get("Content-Type", ""))[1].get("boundary", "")
    if not boundary:
        raise _fault("", "must have a boundary in its Content-Type: let the client write that header")
    try:
        with _parser(boundary) as parser:
            if data is not None:
                await form.take(parser.parse(data))
            else:
                received = 0
                while not parser.closed and (piece := await request.content.read(_PIECE)):
                    received += len(piece)
                    if received > most + _WRAPPING:
                        raise _too_long("", most)
                    await form.take(parser.parse(piece))
    except (MultipartError, HttpProcessingError) as error:
        form.close()
        raise _fault("", f"is not well-formed multipart/form-data: {error}") from None
    except BaseException:
        form.close()
        raise
    return form.fields


def most_bytes(layout: Layout, max_body: int) -> int:
    """Return how many bytes a body may have in all: files with a `maxSize` come on top of ``max_body``.

    A stream or a file that is the whole body has its own `maxSize` alone.
    """
    if layout.stream is not None:
        return layout.stream.max_size or max_body
    whole = layout.whole
    if whole is not None and whole.type == "file":
        return whole.max_size or max_body
    allowances = _allowances(layout, max_body)
    return max_body + sum(allowances.values()) + _WRAPPING if allowances else max_body


def close_files(form: Form) -> None:
    """Delete the files of a form."""
    for values in form.values():
        for value in values:
            if isinstance(value, File):
                value.close()


class _Reading:
    """A form as it is read. ``allowances`` are the bytes left to files that have their own, by name."""

    def __init__(self, layout: Layout, max_body: int) -> None:
        self.fields: Form = {}
        self.layout = layout
        self.max_body = max_body
        self.left = max_body
        self.allowances = _allowances(layout, max_body)
        self.count = 0
        # The present part.
        self.name = self.media = ""
        self.text = bytearray()
        self.file: File | None = None
        self.limit: int | None = None

    async def take(self, events: Iterable[MultipartSegment | bytes | bytearray | None]) -> None:
        """Take what some bytes hold: heads of parts, pieces of what is in them, ends of parts."""
        for event in events:
            if isinstance(event, MultipartSegment):
                await self._begin(event)
            elif event is None:
                self._finish()
            else:
                await self._add(event)

    async def _begin(self, part: MultipartSegment) -> None:
        self.count += 1
        if self.count > MOST_PARTS:
            raise _fault("", f"must have at most {MOST_PARTS} parts")
        if not self.count % _AT_ONCE:
            await asyncio.sleep(0)  # others have their turn
        name = self.name = part.name or ""
        if not name or _CONTROL.search(name + (part.filename or "")):
            raise MultipartError("a part has no name, or control characters in it")
        headers = dict(part.headerlist)
        names = [each.lower() for each in _PARAMETER.findall(headers["Content-Disposition"])]
        if len(headers) != len(part.headerlist) or len(names) != len(set(names)):
            raise MultipartError("a part says something twice")  # others may take the other one
        if (part.content_type or "").startswith("multipart/"):
            raise MultipartError("a part holds parts")
        if headers.get("Content-Transfer-Encoding", "binary").lower() not in _PLAIN:
            raise _fault(name, "must be sent without Content-Transfer-Encoding")
        self.media = part.content_type or ""
        self.text = bytearray()
        self.file = None
        if part.filename is not None or name in self.layout.files:
            declared = self.layout.files.get(name)
            self.limit = None if declared is None else _size_of(declared)
            self.file = File(part.filename or "", headers.get("Content-Type", "application/octet-stream"))
            # Known to the form from now on, and so deleted with it.
            self.fields.setdefault(name, []).append(self.file)

    async def _add(self, piece: bytes | bytearray) -> None:
        file = self.file
        if file is None:
            self._spend(self.name, len(piece))
            self.text += piece
            return
        if self.limit is not None and file.size + len(piece) > self.limit:
            raise _too_long(self.name, self.limit)
        self._spend(self.name, len(piece))
        await file.write(bytes(piece))

    def _finish(self) -> None:
        name, values = self.name, self.fields
        if self.file is not None:
            if not self.file.name and not self.file.size:
                # What a browser sends for an empty file field.
                values[name].pop()
                if not values[name]:
                    del values[name]
            return
        value: Any
        if self.media == "application/json" or self.media.endswith("+json"):
            value = JsonText(bytes(self.text))
        else:
            try:
                value = self.text.decode()
            except UnicodeDecodeError:
                raise _fault(name, "must be UTF-8") from None
        values.setdefault(name, []).append(value)

    def _spend(self, name: str, size: int) -> None:
        if name in self.allowances:
            self.allowances[name] -= size
            if self.allowances[name] < 0:
                raise _too_long(name, _allowance(self.layout.files[name], self.max_body))
            return
        self.left -= size
        if self.left < 0:
            raise _too_long("", self.max_body)

    def close(self) -> None:
        close_files(self.fields)


_PLAIN: Final = frozenset({"binary", "8bit", "7bit"})


def _allowances(layout: Layout, max_body: int) -> dict[str, int]:
    return {
        name: _allowance(declared, max_body)
        for name, declared in layout.files.items()
        if _size_of(declared) is not None
    }


def _size_of(declared: Input) -> int | None:
    if declared.type == "list" and declared.items is not None:
        return declared.items.max_size
    return declared.max_size


def _allowance(declared: Input, max_body: int) -> int:
    """Return the bytes that all files under one name may have together."""
    size = _size_of(declared) or 0
    if declared.type != "list":
        return size
    return max(size, max_body) if declared.max_items is None else size * declared.max_items


def _parser(boundary: str) -> PushMultipartParser:
    return PushMultipartParser(boundary, max_header_size=_MOST_LINE, max_header_count=_MOST_HEADERS)


def _fault(name: str, message: str) -> RunError:
    return invalid([{"in": "body", "name": name[:80], "message": message}])


def _too_long(name: str, most: int) -> RunError:
    message = f"must have at most {show_size(most)}"
    return invalid([{"in": "body", "name": name[:80], "message": message}], status=413)
