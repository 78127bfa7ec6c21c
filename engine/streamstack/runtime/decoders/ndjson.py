"""NDJSON: one JSON value a line (https://github.com/ndjson/ndjson-spec)."""

from __future__ import annotations

from typing import Any

import orjson

from streamstack.runtime.decoders.decoder import LARGEST, Decoder, OnInvalid
from streamstack.runtime.decoders.lines import Lines
from streamstack.runtime.decoders.parsing import SHALLOW, NotJsonError, is_deep, load_json


class NdjsonDecoder(Decoder):
    """Gives the value of each line; lines that are empty are passed over."""

    __slots__ = ("_lines",)

    def __init__(self, on_invalid: OnInvalid = "fail", largest: int = LARGEST) -> None:
        super().__init__(on_invalid, largest)
        self._lines = Lines(largest)

    def _take(self, data: bytes, items: list[Any]) -> None:
        whole = self._lines.feed(data)
        if whole:
            self._read(whole, items)
        if self._lines.too_long is not None:
            text, self._lines.too_long = self._lines.too_long, None
            self._refuse_length(items, text, "a line")

    def _end(self, items: list[Any]) -> None:
        last = self._lines.finish()
        if last:
            self._read(last, items)

    def _read(self, whole: bytes, items: list[Any]) -> None:
        lines = whole.split(b"\n")
        if len(whole) <= self.largest:
            try:
                # Most often all is well: then nothing is looked at twice.
                values = [load_json(line) for line in lines if line]
            except orjson.JSONDecodeError:
                pass
            else:
                if len(whole) <= SHALLOW or not is_deep(whole, values):
                    items += values
                    return
        for line in lines:
            if len(line) > self.largest:
                self._refuse_length(items, line, "a line")
                continue
            if not line or line.isspace():
                continue
            try:
                items.append(self._parse(line))
            except NotJsonError as error:
                self._refuse(items, line, str(error))
