"""Request bodies: whole, forms, or read as they arrive."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_TYPE, EXPECT
from aiohttp.http_exceptions import HttpProcessingError
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from streamstack.errors import RunError
from streamstack.language.definition import Input
from streamstack.language.values import show_size
from streamstack.runtime.coercion import invalid_input
from streamstack.runtime.decoders import Options, decoded, decoder_for, format_of, read_content_type
from streamstack.runtime.decoders.decoder import OnInvalid
from streamstack.runtime.inputs import Body, Form, JsonText, Layout
from streamstack.runtime.operators import CLIENTS_FAULT
from streamstack.runtime.values import About, Batches, File, Stream
from streamstack.server.request import CodingError, Request

if TYPE_CHECKING:
    from streamstack.server.response import ResponseSink


#: How many fields a form or a query may have.
MOST_FIELDS: Final = 1000

_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii", None})
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "iso-8859-1", "windows-1252", "utf-16"})


#: What says of a body that it is JSON, as clients write it. None: the client named no type.
_JSON: Final = frozenset({"application/json", "application/json; charset=utf-8", None})


def json_at_hand(request: Request, most: int) -> bytes | None:
    """Return a body of JSON that is here as a whole, of at most so many bytes; None for all others.

    Those are to be looked at with more care, or waited for.
    """
    headers = request.headers
    whole = None if request.under is None else request.under.whole_body
    if whole is not None and headers.get(CONTENT_TYPE) in _JSON and len(whole) <= most:
        return None if CONTENT_ENCODING in headers or EXPECT in headers else whole
    content = request.wire
    if (
        not content.is_eof()
        or not 0 < content.total_bytes <= most
        or headers.get(CONTENT_TYPE) not in _JSON
        or CONTENT_ENCODING in headers
        or EXPECT in headers
        or content.exception() is not None
        or request.broke_off
    ):
        return None
    return content.read_nowait()


async def read_body(request: Request, layout: Layout, max_body: int, *, keep: bool) -> Body:
    """Read the body as far as the inputs need it; ``keep`` its bytes for the definition.

    ``max_body`` is in bytes; files that declare a `maxSize` have that instead. Raises RunError ``invalid-input`` with
    status 413 for a body that is too long, 415 for a type that is not taken, 400 for one that can't be read.
    """
    media, charset = read_content_type(request.headers.get(CONTENT_TYPE))
    whole = layout.whole
    data: bytes | None = None
    try:
        if keep:
            data = request.body_bytes = await read_all(request, max_body)
        if not layout.takes_body or (keep and not layout.declares_body):
            return None
        if whole is not None and whole.type == "file" and media != _MULTIPART:
            return await _read_file(request, data, media, whole.max_size or max_body)
        if media == _MULTIPART and not (whole is not None and whole.type == "file"):
            return await read_multipart(request, layout, max_body, data)
        if media not in ("", _FORM) and not _is_json(media) and not _takes_text(layout):
            if layout.declares_body:
                raise _unsupported(layout)
            return None
        if data is None:
            data = await read_all(request, max_body)
    except web.RequestPayloadError:
        raise _fault("can't be read: its Content-Encoding or its chunks are malformed") from None
    if media == _FORM:
        return read_form(data, "body")
    if not media or _is_json(media):
        # RFC 8259 has JSON in UTF-8; what says that it is not is believed.
        return JsonText(data if charset in _UTF_8 else _decode(data, charset).encode())
    return _decode(data, charset) if data else None


async def read_all(request: Request, most: int) -> bytes:
    """Return the whole body, of at most so many bytes; a longer one is refused as soon as that is known."""
    if (request.content_length or 0) > most:
        raise too_long(most)
    content = request.content
    data = await content.readany()
    if len(data) > most:
        raise too_long(most)
    if not content.at_eof():
        pieces = bytearray(data)
        while piece := await content.readany():
            pieces += piece
            if len(pieces) > most:
                raise too_long(most)
            request.hold(len(pieces))
        data = bytes(pieces)
    if request.broke_off:
        raise broken_off()
    return data


def broken_off() -> RunError:
    """Return the error of a body that ended before its end."""
    return RunError("invalid-input", "the body can't be read: it ended before its end, or is malformed")


def read_form(data: bytes, place: str) -> Form:
    """Return the fields of a form or of a query by name.

    Raises RunError ``invalid-input`` for what is not UTF-8, and for too many fields.
    """
    form: Form = {}
    try:
        text = data.decode()
        if b"%" in data or b"+" in data or data.count(b"&") >= MOST_FIELDS:
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
        else:  # most queries: there is nothing to decode
            pairs = [(name, value) for name, _, value in (field.partition("=") for field in text.split("&") if field)]
    except UnicodeDecodeError:
        raise _fault("must be percent-encoded UTF-8", place=place) from None
    except ValueError:
        raise _fault(f"must have at most {MOST_FIELDS} fields", place=place) from None
    for name, value in pairs:
        form.setdefault(field_name(name) if "[" in name else name, []).append(value)
    return form


def field_name(name: str) -> str:
    """Return the name of a field; `tags[0]`, as some clients write the items of a list, becomes `tags[]`."""
    return _INDEXED.sub("[]", name)


_INDEXED: Final = re.compile(r"\[[0-9]{1,4}\]$")


async def _read_file(request: Request, data: bytes | None, media: str, most: int) -> File | None:
    """Take the body itself as a file; an empty one is none."""
    if (request.content_length or 0) > most:
        raise too_long(most)
    file = File("", media or "application/octet-stream")
    try:
        if data is not None:
            await file.write(data)
        else:
            while piece := await request.content.readany():
                if file.size + len(piece) > most:
                    raise too_long(most)
                await file.write(piece)
                request.hold(file.in_memory)
            if request.broke_off:
                raise broken_off()
    except BaseException:
        file.close()
        raise
    return file if file.size else None


def _is_json(media: str) -> bool:
    return media == "application/json" or media.endswith("+json")


def _takes_text(layout: Layout) -> bool:
    whole = layout.whole
    return whole is not None and whole.type not in ("object", "list", "file")


def _decode(data: bytes, charset: str | None) -> str:
    if charset and charset not in _CHARSETS:
        raise _fault("must be UTF-8", status=415)
    try:
        return data.decode(charset or "utf-8")
    except UnicodeDecodeError:
        raise _fault(f"is not {(charset or 'UTF-8').upper()}") from None


def _fault(message: str, name: str = "", *, place: str = "body", status: int = 400) -> RunError:
    return invalid_input(place, name[:80], message, status=status)


def too_long(most: int, name: str = "") -> RunError:
    """Return the error of a body, or of a part of it, of more than so many bytes."""
    return _fault(f"must have at most {show_size(most)}", name, status=413)


def _unsupported(layout: Layout) -> RunError:
    whole = layout.whole
    if whole is not None and whole.type == "file":
        return _fault("must be sent as the file itself, not in a form", status=415)
    return _fault(f"must be sent as application/json, {_FORM} or {_MULTIPART}", status=415)


class StreamedBody:
    """The body of one request, to be read once. ``most`` and ``largest`` (record) are bytes.

    Nothing is read before the run asks for it, so a slow run holds its client back. ``lost`` tells that the body broke
    off: what had come is given, then the error `stream-lost`.
    """

    __slots__ = ("_answer", "_content", "_failed", "_most", "_received", "_request", "read", "size", "stream")

    def __init__(self, request: Request, declared: Input, *, most: int, largest: int) -> None:
        self._request = request
        self._content = request.content
        self._most = most
        self._answer: ResponseSink | None = None
        self._failed = False
        self._received = 0
        self.read = 0  # and decoded
        coding = request.headers.get("Content-Encoding", "").strip().lower()
        # The length is that of the body as it was sent.
        self.size = request.content_length if coding in ("", "identity") else None
        self.stream = self._stream(declared, largest)

    def _stream(self, declared: Input, largest: int) -> Stream:
        """Return the items of the body. Raises RunError ``invalid-input`` (415) for what can't be a stream."""
        header = self._request.headers.get("Content-Type", "")
        media, charset = read_content_type(header)
        if media.startswith("multipart/"):
            raise _fault("must be sent as the body itself, not in a form", status=415)
        name = declared.decode or format_of(media)
        options = Options(
            on_invalid=cast("OnInvalid", declared.on_invalid), largest=largest, charset=charset, status=CLIENTS_FAULT
        )
        try:
            decoder = decoder_for(name, options)
        except RunError as error:
            raise _fault(error.message, status=415) from None
        return Stream(
            lambda: decoded(self._pieces(), decoder, self),
            {"skipped": lambda: decoder.skipped, "bytes": lambda: self.read, "size": lambda: self.size},
            About(self.size, header if name == "bytes" else "", CLIENTS_FAULT),
        )

    def begin(self, answer: ResponseSink) -> None:
        """Let the body arrive: from now on the client may send it, and is heard."""
        self._answer = answer

    @property
    def lost(self) -> bool:
        """Whether the body broke off."""
        return self._failed or self._request.broke_off

    def end(self) -> None:
        """Take no more notice of the body."""
        self._request.ignore_body()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """Give the bytes as they come.

        Raises RunError ``stream-lost`` where they break off, ``invalid-input`` (413) for more than there may be.
        """
        answer = self._answer
        assert answer is not None
        now = asyncio.get_running_loop().time
        content = self._content
        try:
            while True:
                try:
                    answer.waits_since = now()
                    data = await content.readany()
                except (web.RequestPayloadError, ConnectionError, RuntimeError) as error:
                    if isinstance(error, CodingError) and not self.lost:
                        self._failed = True
                        raise _fault("can't be read: its Content-Encoding is malformed") from error
                    self._failed = True
                    raise _lost() from error
                finally:
                    answer.waits_since = 0.0
                if not data:
                    if self.lost:
                        raise _lost()
                    return
                answer.heard_at = now()
                self._received += len(data)
                if self._received > self._most:
                    raise too_long(self._most)
                yield data
        finally:
            self.end()


def nothing() -> Stream:
    """Return the stream that a request without a body is: one without items."""

    async def batches() -> Batches:
        none: list[list[Any]] = []
        for items in none:
            yield items

    return Stream(batches, {"skipped": lambda: 0, "bytes": lambda: 0, "size": lambda: 0}, About(size=0))


def _lost() -> RunError:
    return RunError("stream-lost", "the request's body broke off", status=CLIENTS_FAULT)


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
        raise too_long(most)
    boundary = parse_options_header(request.headers.get("Content-Type", ""))[1].get("boundary", "")
    if not boundary:
        raise _fault("must have a boundary in its Content-Type: let the client write that header")
    try:
        with PushMultipartParser(boundary, max_header_size=_MOST_LINE, max_header_count=_MOST_HEADERS) as parser:
            if data is not None:
                _check_opening(data, boundary)
                await form.take(parser.parse(data))
            else:
                received = 0
                while not parser.closed and (piece := await request.content.read(_PIECE)):
                    if not received:
                        _check_opening(piece, boundary)
                    received += len(piece)
                    if received > most + _WRAPPING:
                        raise too_long(most)
                    await form.take(parser.parse(piece))
                    request.hold(form.in_memory)
    except (MultipartError, HttpProcessingError) as error:
        form.close()
        # The error of a part's header that is not UTF-8 would repeat its bytes.
        undecodable = isinstance(error.__context__, UnicodeDecodeError)
        reason = "the header of a part is not UTF-8" if undecodable else str(error)
        raise _fault(f"is not well-formed multipart/form-data: {reason}") from None
    except BaseException:
        form.close()
        raise
    return form.fields


def _check_opening(data: bytes, boundary: str) -> None:
    """Refuse a form that begins with another boundary than its header names. Raises RunError ``invalid-input``."""
    begins, expected = data.lstrip(b"\r\n"), b"--" + boundary.encode("utf-8", "surrogateescape")
    if begins.startswith(b"--") and not begins.startswith(expected) and not expected.startswith(begins):
        raise _fault(
            "begins with another boundary than its Content-Type names: let the client write that header with the body"
        )


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
        self.remaining = max_body
        self.allowances = _allowances(layout, max_body)
        self.count = 0
        # The present part.
        self.name = self.media = ""
        self.text = bytearray()
        self.file: File | None = None
        self.limit: int | None = None
        self.in_memory = 0  # bytes

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
            raise _fault(f"must have at most {MOST_PARTS} parts")
        if not self.count % _AT_ONCE:
            await asyncio.sleep(0)  # others have their turn
        name = self.name = field_name(part.name or "")
        if not name or _CONTROL.search(name + (part.filename or "")):
            raise MultipartError("a part has no name, or control characters in it")
        headers = dict(part.headerlist)
        names = [each.lower() for each in _PARAMETER.findall(headers["Content-Disposition"])]
        if len(headers) != len(part.headerlist) or len(names) != len(set(names)):
            raise MultipartError("a part says something twice")  # others may take the other one
        if (part.content_type or "").startswith("multipart/"):
            raise MultipartError("a part holds parts")
        if headers.get("Content-Transfer-Encoding", "binary").lower() not in _PLAIN:
            raise _fault("must be sent without Content-Transfer-Encoding", name)
        self.media = part.content_type or ""
        self.text = bytearray()
        self.file = None
        declared = self.layout.files.get(name)
        # What a browser sends for a Blob has a file's name, be it JSON or text.
        blob = part.filename is not None and (part.filename == "blob" or _is_json(self.media))
        if declared is not None or (part.filename is not None and not blob):
            self.limit = None if declared is None else _size_of(declared)
            self.file = File(part.filename or "", headers.get("Content-Type", "application/octet-stream"))
            # Known to the form from now on, and so deleted with it.
            self.fields.setdefault(name, []).append(self.file)

    async def _add(self, piece: bytes | bytearray) -> None:
        file = self.file
        if file is None:
            self._spend(self.name, len(piece))
            self.text += piece
            self.in_memory += len(piece)
            return
        if self.limit is not None and file.size + len(piece) > self.limit:
            raise too_long(self.limit, self.name)
        self._spend(self.name, len(piece))
        self.in_memory -= file.in_memory
        await file.write(bytes(piece))
        self.in_memory += file.in_memory

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
                raise _fault("must be UTF-8", name) from None
        values.setdefault(name, []).append(value)

    def _spend(self, name: str, size: int) -> None:
        if name in self.allowances:
            self.allowances[name] -= size
            if self.allowances[name] < 0:
                raise too_long(_allowance(self.layout.files[name], self.max_body), name)
            return
        self.remaining -= size
        if self.remaining < 0:
            raise too_long(self.max_body)

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
