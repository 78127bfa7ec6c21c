"""Text and bytes as they come."""

from __future__ import annotations

import codecs
from typing import Any

from streamstack.runtime.decoders.decoder import LARGEST, Decoder, OnInvalid


class TextDecoder(Decoder):
    """Gives what came as texts; a character that is cut in two waits for its rest. What is not UTF-8 is U+FFFD."""

    __slots__ = ("_decoder",)

    def __init__(self, on_invalid: OnInvalid = "fail", largest: int = LARGEST) -> None:
        super().__init__(on_invalid, largest)
        self._sniffs = True
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
