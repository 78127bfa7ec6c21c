"""The formats of `decode`, which decoder reads each, and which one a Content-Type asks for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from typing import Any, Final, Protocol

from streamstack.errors import RunError
from streamstack.runtime.decoders.csv import CsvDecoder
from streamstack.runtime.decoders.decoder import LARGEST, Decoder, OnInvalid, transcoder
from streamstack.runtime.decoders.json import JsonDecoder
from streamstack.runtime.decoders.lines import BytesDecoder, LinesDecoder, NdjsonDecoder, TextDecoder
from streamstack.runtime.decoders.sse import SseDecoder
from streamstack.runtime.values import PIECE, Batches


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said about a format.

    ``largest`` is in bytes; ``path`` is for json, ``last_id`` for sse, the rest for csv. ``status`` is what a failure
    answers, None for that of its code.
    """

    on_invalid: OnInvalid = "fail"
    largest: int = LARGEST
    path: tuple[str, ...] = ()
    header: bool = True
    delimiter: str = ","
    columns: tuple[str, ...] = ()
    charset: str | None = None
    last_id: str = ""
    status: int | None = None


def _csv(options: Options) -> Decoder:
    return CsvDecoder(
        options.on_invalid, options.largest, header=options.header, delimiter=options.delimiter, columns=options.columns
    )


_DECODERS: Final[dict[str, Callable[[Options], Decoder]]] = {
    "sse": lambda options: SseDecoder(options.on_invalid, options.largest, last_id=options.last_id),
    "sseJson": lambda options: SseDecoder(options.on_invalid, options.largest, data="json", last_id=options.last_id),
    "ndjson": lambda options: NdjsonDecoder(options.on_invalid, options.largest),
    "json": lambda options: JsonDecoder(options.on_invalid, options.largest, options.path),
    "csv": _csv,
    "lines": lambda options: LinesDecoder(options.on_invalid, options.largest),
    "text": lambda options: TextDecoder(options.on_invalid, options.largest),
    "bytes": lambda options: BytesDecoder(options.on_invalid, options.largest),
}

#: What `decode` may be, beside `auto`.
FORMATS: Final = tuple(_DECODERS)
#: Formats that may come in another charset than UTF-8.
_OF_TEXT: Final = frozenset({"csv", "json", "lines", "ndjson", "text"})
#: Their items are the bytes or texts as they come.
_AS_IT_COMES: Final = (BytesDecoder, TextDecoder)
#: Bytes that are decoded at once at least, however small their source is.
_SMALLEST: Final = 64
_UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


def decoder_for(name: str, options: Options = Options()) -> Decoder:
    """Return a new decoder of a format.

    Raises RunError ``invalid-chunk`` for a charset that is not known.
    """
    decoder = _DECODERS[name](options)
    decoder.status = options.status
    if options.charset and name in _OF_TEXT and options.charset.lower() not in _UTF_8:
        try:
            decoder.transcode = transcoder(options.charset)
        except LookupError:
            raise RunError(
                "invalid-chunk", f"the charset {options.charset[:40]!r} is not known", status=options.status
            ) from None
    return decoder


def to_utf_8(data: bytes, charset: str | None) -> bytes:
    """Return a whole text in UTF-8.

    Raises RunError ``invalid-chunk`` for a charset that is not known.
    """
    if not charset or charset.lower() in _UTF_8:
        return data
    try:
        return transcoder(charset)(data, True)
    except LookupError:
        raise RunError("invalid-chunk", f"the charset {charset[:40]!r} is not known") from None


_BY_TYPE: Final = {
    "text/event-stream": "sse",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonl": "ndjson",
    "application/jsonlines": "ndjson",
    "application/x-jsonlines": "ndjson",
    "application/json": "json",
    "text/json": "json",
    "text/csv": "csv",
    "application/csv": "csv",
    "application/xml": "text",
    "application/javascript": "text",
    "application/x-www-form-urlencoded": "text",
}


@lru_cache(maxsize=256)  # a server's answers have the same one again and again
def read_content_type(header: str | None) -> tuple[str, str | None]:
    """Return the media type, in small letters and empty where there is none, and the charset."""
    if not header:
        return "", None
    message = Message()
    message["Content-Type"] = header
    media = header.partition(";")[0].strip().lower()
    return media, message.get_content_charset()


def format_of(media: str) -> str:
    """Return the format that a media type stands for; `bytes` for what is not known."""
    found = _BY_TYPE.get(media)
    if found is not None:
        return found
    if media.endswith("+json"):
        return "json"
    return "text" if media.startswith("text/") or media.endswith("+xml") else "bytes"


#: Types that say little of a file: what its name ends in says more. The last is what Windows calls CSV.
_VAGUE: Final = frozenset({"", "application/octet-stream", "text/plain", "application/vnd.ms-excel"})
_BY_ENDING: Final = {
    "csv": "csv",
    "ndjson": "ndjson",
    "jsonl": "ndjson",
    "json": "json",
    "geojson": "json",
    "txt": "text",
    "log": "text",
    "md": "text",
    "xml": "text",
    "html": "text",
}


def format_of_file(media: str, name: str) -> str:
    """Return the format of a file, by its media type, and by its name where that says more."""
    if media in _VAGUE:
        found = _BY_ENDING.get(name.rpartition(".")[2].lower()) if "." in name else None
        if found is not None:
            return found
    return format_of(media)


class Counted(Protocol):
    """Counts the bytes of a source that were decoded. ``size`` is how many there are, None if unknown."""

    read: int
    size: int | None


async def decoded(source: AsyncGenerator[bytes, None], decoder: Decoder, counted: Counted | None = None) -> Batches:
    """Give the items of a source of bytes as they come, and close it however the reading ends.

    Raises RunError ``invalid-chunk`` where the decoder fails.
    """
    size = counted.size if counted is not None else None
    # So a client sees the progress to one per cent, also of a file that came at once.
    step = PIECE if size is None or isinstance(decoder, _AS_IT_COMES) else max(_SMALLEST, size // 100)
    async with aclosing(source):
        async for data in source:
            for piece in (data,) if len(data) <= step else _cut(data, step):
                if counted is not None:
                    counted.read += len(piece)
                items: list[Any] = decoder.feed(piece)
                if items:
                    yield items
                if decoder.failure is not None:
                    raise decoder.failure
                if decoder.ended:
                    return
    items = decoder.finish()
    if items:
        yield items
    if decoder.failure is not None:
        raise decoder.failure


def _cut(data: bytes, step: int) -> Iterator[bytes]:
    for at in range(0, len(data), step):
        yield data[at : at + step]
