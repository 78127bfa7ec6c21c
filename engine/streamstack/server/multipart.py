"""Forms with files (RFC 7578), read part by part, each within its limit."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any, Final

from aiohttp import (
    BadContentDispositionHeader,
    BadContentDispositionParam,
    BodyPartReader,
    MultipartReader,
)
from aiohttp.http_exceptions import HttpProcessingError

from streamstack.errors import RunError
from streamstack.language.definition import Input
from streamstack.language.units import show_size
from streamstack.runtime.files import File
from streamstack.runtime.input_faults import invalid
from streamstack.runtime.inputs import Form, JsonText, Layout
from streamstack.server.content_decoding import BufferedBody
from streamstack.server.request import Request

#: How many parts a form may have.
MOST_PARTS: Final = 1000
#: How many of them are taken apart before others have the event loop.
_AT_ONCE: Final = 10
_PIECE: Final = 64 * 1024
#: Bytes of boundaries and headers that a form may have beside its parts.
_WRAPPING: Final = 256 * 1024

# aiohttp warns of each malformed header of a part; Python remembers each warning's text, and so what clients send, for
# ever. The form is refused where it matters.
for _each in (BadContentDispositionHeader, BadContentDispositionParam):
    warnings.simplefilter("ignore", _each)


async def read_multipart(
    request: Request, layout: Layout, max_body: int, data: bytes | None
) -> Form:
    """Read a form: texts, JSON where a part says it is JSON, and files.

    All parts together have ``max_body`` bytes, but a file with a `maxSize` has that for itself. ``data`` is the body
    if it was read before. Raises RunError ``invalid-input`` with status 413 past a limit, 400 for a malformed form.
    """
    form = _Reading(layout, max_body)
    most = most_bytes(layout, max_body)
    if (request.content_length or 0) > most:
        raise _too_long("", most)
    # Read by the methods that both kinds of bodies have.
    content: Any = request.content if data is None else BufferedBody(data)
    try:
        await form.read(MultipartReader(request.headers, content))
    except (ValueError, AssertionError, RuntimeError, LookupError, HttpProcessingError):
        form.close()
        raise _fault("", "is no well-formed multipart/form-data") from None
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

    async def read(self, reader: MultipartReader) -> None:
        """Read all parts."""
        count = 0
        while (part := await reader.next()) is not None:
            count += 1
            if count > MOST_PARTS:
                raise _fault("", f"must have at most {MOST_PARTS} parts")
            if not count % _AT_ONCE:
                await asyncio.sleep(
                    0
                )  # a part costs about half a millisecond: others have their turn
            # A multipart within a part has no name, nor has a part without Content-Disposition.
            if not isinstance(part, BodyPartReader) or not part.name:
                raise ValueError("a part without a name")
            if part.headers.get("Content-Transfer-Encoding", "binary").lower() not in _PLAIN:
                raise _fault(part.name, "must be sent without Content-Transfer-Encoding")
            if part.filename is not None or part.name in self.layout.files:
                await self._read_file(part.name, part)
            else:
                await self._read_text(part.name, part)

    async def _read_file(self, name: str, part: BodyPartReader) -> None:
        declared = self.layout.files.get(name)
        limit = None if declared is None else _size_of(declared)
        media = part.headers.get("Content-Type", "application/octet-stream")
        file = File(part.filename or "", media)
        # Known to the form from now on, and so deleted with it.
        self.fields.setdefault(name, []).append(file)
        while piece := await part.read_chunk(_PIECE):
            if limit is not None and file.size + len(piece) > limit:
                raise _too_long(name, limit)
            self._spend(name, len(piece))
            await file.write(piece)
        if not part.filename and not file.size:
            # What a browser sends for a file nobody chose.
            self.fields[name].pop()
            if not self.fields[name]:
                del self.fields[name]

    async def _read_text(self, name: str, part: BodyPartReader) -> None:
        data = bytearray()
        while piece := await part.read_chunk(_PIECE):
            self._spend(name, len(piece))
            data += piece
        media = part.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        value: Any
        if media == "application/json" or media.endswith("+json"):
            value = JsonText(bytes(data))
        else:
            try:
                value = data.decode()
            except UnicodeDecodeError:
                raise _fault(name, "must be UTF-8") from None
        self.fields.setdefault(name, []).append(value)

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


def _fault(name: str, message: str) -> RunError:
    return invalid([{"in": "body", "name": name[:80], "message": message}])


def _too_long(name: str, most: int) -> RunError:
    message = f"must have at most {show_size(most)}"
    return invalid([{"in": "body", "name": name[:80], "message": message}], status=413)
