"""Text and bytes as they come, and other charsets as UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any

from streamstack.runtime.decoders.decoder import LARGEST, Decoder, OnInvalid


class TextDecoder(Decoder):
    """Gives what came as texts; a character that is cut in two waits for its rest. What is not UTF-8 is U+FFFD."""

    __slots__ = ("_decoder",)

    def __init__(self, on_invalid: OnInvalid = "fail", largest: int = LARGEST) -> None:
        super().__init__(on_invalid, largest)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def _take(self, data: bytes, items: list[Any]) -> None:
        text = self._decoder.decode(data)
        if text:
            items.append(text)

    def _end(self, items: list[Any]) -> None:
        text = self._decoder.decode(b"", final=True)
        if text:
            items.append(text)


class BytesDecoder(Decoder):
    """Gives what came as it is."""

    __slots__ = ()

    def __init__(self, on_invalid: OnInvalid = "fail", largest: int = LARGEST) -> None:
        super().__init__(on_invalid, largest)
        self._begun = True  # a byte order mark is bytes like others

    def _take(self, data: bytes, items: list[Any]) -> None:
        items.append(data)


def transcoder(charset: str) -> Callable[[bytes, bool], bytes]:
    """Return what turns bytes of a charset, as they come, into UTF-8; its flag tells the end of the input.

    Raises LookupError for a charset that is not known.
    """
    try:
        b"aaaa".decode(charset, "replace")  # refuses codecs that are no charset, such as base64
    except ValueError:
        raise LookupError(charset) from None
    decoder = codecs.getincrementaldecoder(charset)("replace")

    def transcode(data: bytes, final: bool) -> bytes:  # noqa: FBT001
        nonlocal decoder
        held = bytes(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final)
        except UnicodeError:
            # UTF-16 or UTF-32 without a mark of its byte order: little-endian, as the Encoding Standard has it.
            name = f"{codecs.lookup(charset).name}-le"
            decoder = codecs.getincrementaldecoder(name)("replace")
            text = decoder.decode(held + data, final)
        return text.encode("utf-8", "replace")

    return transcode
