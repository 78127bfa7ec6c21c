"""Request bodies: whole, or read as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_TYPE, EXPECT

from streamstack.errors import RunError
from streamstack.language.definition import Input
from streamstack.language.units import show_size
from streamstack.runtime.coercion import invalid
from streamstack.runtime.decoders.decoder import OnInvalid
from streamstack.runtime.decoders.formats import Options, decoded, decoder_for, format_of, read_content_type
from streamstack.runtime.files import File
from streamstack.runtime.inputs import Body, Form, JsonText, Layout
from streamstack.runtime.operators import CLIENTS_FAULT
from streamstack.runtime.values import About, Batches, Stream
from streamstack.server.content_decoding import CodingError
from streamstack.server.multipart import read_multipart
from streamstack.server.request import Request

if TYPE_CHECKING:
    from streamstack.server.request import Request
    from streamstack.server.response import ResponseSink


#: How many fields a form or a query may have.
MOST_FIELDS: Final = 1000

_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
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


async def read_body(request: Request, layout: Layout, max_body: int, keep: list[bytes] | None) -> Body:
    """Read the body as far as the inputs need it; its bytes are added to ``keep`` if there is one.

    ``max_body`` is in bytes; files that declare a `maxSize` have that instead. Raises RunError ``invalid-input`` with
    status 413 for a body that is too long, 415 for a type that is not taken, 400 for one that can't be read.
    """
    media, charset = _content_type(request)
    whole = layout.whole
    data: bytes | None = None
    try:
        if keep is not None:
            data = await read_all(request, max_body)
            keep.append(data)
        if not layout.takes_body or (keep is not None and not layout.declares_body):
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
        raise _malformed("can't be read: its Content-Encoding or its chunks are malformed") from None
    if media == _FORM:
        return read_form(data, "body")
    if not media or _is_json(media):
        return JsonText(data)
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
        raise _malformed("must be percent-encoded UTF-8", place) from None
    except ValueError:
        raise _malformed(f"must have at most {MOST_FIELDS} fields", place) from None
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form


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
            if request.broke_off:
                raise broken_off()
    except BaseException:
        file.close()
        raise
    return file if file.size else None


def _content_type(request: Request) -> tuple[str, str]:
    """Return the media type of the body and its charset in small letters; "" where there is none."""
    media, _, rest = request.headers.get("Content-Type", "").partition(";")
    charset = ""
    for parameter in rest.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return media.strip().lower(), charset


def _is_json(media: str) -> bool:
    return media == "application/json" or media.endswith("+json")


def _takes_text(layout: Layout) -> bool:
    whole = layout.whole
    return whole is not None and whole.type not in ("object", "list", "file")


def _decode(data: bytes, charset: str) -> str:
    if charset and charset not in _CHARSETS:
        raise invalid([_fault("must be UTF-8")], status=415)
    try:
        return data.decode(charset or "utf-8")
    except UnicodeDecodeError:
        raise _malformed(f"is not {charset.upper() or 'UTF-8'}") from None


def _fault(message: str, place: str = "body") -> dict[str, Any]:
    return {"in": place, "name": "", "message": message}


def _malformed(message: str, place: str = "body") -> RunError:
    return invalid([_fault(message, place)])


def too_long(most: int) -> RunError:
    """Return the error of a body of more than so many bytes."""
    return invalid([_fault(f"must have at most {show_size(most)}")], status=413)


def _unsupported(layout: Layout) -> RunError:
    whole = layout.whole
    if whole is not None and whole.type == "file":
        wanted = "as the file itself, not in a form"
    else:
        wanted = f"as application/json, {_FORM} or {_MULTIPART}"
    return invalid([_fault(f"must be sent {wanted}")], status=415)


class Arriving:
    """The body of one request, to be read once. ``most`` and ``largest`` (record) are bytes.

    Nothing is read before the run asks for it, so a slow run holds its client back. ``lost`` tells that the body broke
    off: what had come is given, then the error `stream-lost`.
    """

    __slots__ = ("_answer", "_content", "_failed", "_most", "_request", "read", "size", "stream")

    def __init__(self, request: Request, declared: Input, *, most: int, largest: int) -> None:
        self._request = request
        self._content = request.content
        self._most = most
        self._answer: ResponseSink | None = None
        self._failed = False
        self.read = 0
        coding = request.headers.get("Content-Encoding", "").strip().lower()
        # The length is that of the body as it was sent.
        self.size = request.content_length if coding in ("", "identity") else None
        self.stream = self._stream(declared, largest)

    def _stream(self, declared: Input, largest: int) -> Stream:
        """Return the items of the body. Raises RunError ``invalid-input`` (415) for what can't be a stream."""
        header = self._request.headers.get("Content-Type", "")
        media, charset = read_content_type(header)
        if media.startswith("multipart/"):
            raise _arriving_unsupported("must be sent as the body itself, not in a form")
        name = declared.decode or format_of(media)
        options = Options(
            on_invalid=cast("OnInvalid", declared.on_invalid), largest=largest, charset=charset, status=CLIENTS_FAULT
        )
        try:
            decoder = decoder_for(name, options)
        except RunError as error:
            raise _arriving_unsupported(error.message) from None
        return Stream(
            lambda: decoded(self._pieces(), decoder),
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
                        told = "can't be read: its Content-Encoding is malformed"
                        raise invalid([{"in": "body", "name": "", "message": told}]) from error
                    self._failed = True
                    raise _lost() from error
                finally:
                    answer.waits_since = 0.0
                if not data:
                    if self.lost:
                        raise _lost()
                    return
                answer.heard_at = now()
                self.read += len(data)
                if self.read > self._most:
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


def _arriving_unsupported(message: str) -> RunError:
    return invalid([{"in": "body", "name": "", "message": message}], status=415)
