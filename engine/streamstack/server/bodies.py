"""The body of a request, read within its limit and taken apart by its Content-Type."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_TYPE, EXPECT

from streamstack.errors import RunError
from streamstack.language.units import show_size
from streamstack.runtime.files import File
from streamstack.runtime.input_faults import invalid
from streamstack.runtime.inputs import Body, Form, JsonText, Layout
from streamstack.server.multipart import read_multipart
from streamstack.server.request import Request

#: How many fields a form or a query may have.
MOST_FIELDS: Final = 1000

_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "iso-8859-1", "windows-1252", "utf-16"})


#: What says of a body that it is JSON, as clients write it. None is no word of it at all.
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


async def read_body(
    request: Request, layout: Layout, max_body: int, keep: list[bytes] | None
) -> Body:
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
        raise _malformed(
            "can't be read: its Content-Encoding or its chunks are malformed"
        ) from None
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
    return RunError(
        "invalid-input", "the body can't be read: it ended before its end, or is malformed"
    )


def read_form(data: bytes, place: str) -> Form:
    """Return the fields of a form or of a query by name.

    Raises RunError ``invalid-input`` for what is no UTF-8, and for too many fields.
    """
    form: Form = {}
    try:
        text = data.decode()
        if b"%" in data or b"+" in data or data.count(b"&") >= MOST_FIELDS:
            pairs = parse_qsl(
                text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
            )
        else:  # most queries: there is nothing to decode
            pairs = [
                (name, value)
                for name, _, value in (field.partition("=") for field in text.split("&") if field)
            ]
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
        raise _malformed(f"is no {charset.upper() or 'UTF-8'}") from None


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
