"""Decoders of lines, text and NDJSON, and of what has neither."""

from __future__ import annotations

import codecs
from abc import abstractmethod
from typing import Any

import orjson

from streamstack.language.values import has_long_numbers, load_json
from streamstack.runtime.decoders.decoder import LARGEST, SHALLOW, Decoder, NotJsonError, OnInvalid, is_deep


class LineEnds:
    """Makes every line end, CR, LF or CR LF, one LF; a CR LF may be cut in two."""

    __slots__ = ("_after_cr",)

    def __init__(self) -> None:
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        """Return the bytes, with the line ends changed. They are never none."""
        if self._after_cr:
            self._after_cr = False
            if data[0] == 10:  # the LF of a CR LF whose CR has been an end already
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data[-1] == 13
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data


class Lines:
    """Cuts bytes after the last LF and holds the rest, up to ``largest`` bytes.

    A line over that is skipped up to its end; its beginning is in ``too_long`` until the caller takes it out.
    """

    __slots__ = ("_held", "_largest", "_passing", "too_long")

    def __init__(self, largest: int) -> None:
        self._held = bytearray()
        self._largest = largest
        self._passing = False
        self.too_long: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the lines that are complete, with their ends; empty if none is."""
        if self._passing:
            end = data.find(b"\n")
            if end < 0:
                return b""
            self._passing = False
            data = data[end + 1 :]
        end = data.rfind(b"\n") + 1
        if not end:
            self._hold(data)
            return b""
        if self._held:
            self._held += data[:end]
            whole = bytes(self._held)
            self._held = bytearray()
        else:
            whole = data if end == len(data) else data[:end]
        if end < len(data):
            self._hold(data[end:])
        return whole

    def finish(self) -> bytes:
        """Return the last line, which has no end; empty if there is none."""
        held, self._held = bytes(self._held), bytearray()
        return held

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > self._largest:
            self.too_long = bytes(self._held[:1000])
            self._held = bytearray()
            self._passing = True


class LineDecoder(Decoder):
    """A decoder of what stands in lines; `_read` gets those that are complete, with their ends."""

    def __init__(self, on_invalid: OnInvalid = "fail", largest: int = LARGEST) -> None:
        super().__init__(on_invalid, largest)
        self._lines = Lines(largest)

    def _take(self, data: bytes, items: list[Any]) -> None:
        whole = self._lines.feed(data)
        if whole:
            self._read(whole, items)
        if self._lines.too_long is not None:
            text, self._lines.too_long = self._lines.too_long, None
            self._drop(text, items)

    def _end(self, items: list[Any]) -> None:
        last = self._lines.finish()
        if last:
            self._read(last + b"\n", items)

    @abstractmethod
    def _read(self, whole: bytes, items: list[Any]) -> None:
        """Decode lines, each with its end."""

    def _drop(self, text: bytes, items: list[Any]) -> None:
        """Refuse what is too large, of which ``text`` is the beginning."""
        self._refuse_length(items, text, "a line")


class LinesDecoder(LineDecoder):
    """Gives each line as a text without its end, which is CR, LF or CR LF."""

    def __init__(self, on_invalid: OnInvalid = "fail", largest: int = LARGEST) -> None:
        super().__init__(on_invalid, largest)
        self._sniffs = True
        self._ends = LineEnds()

    def _take(self, data: bytes, items: list[Any]) -> None:
        data = self._ends.feed(data)
        if data:
            super()._take(data, items)

    def _read(self, whole: bytes, items: list[Any]) -> None:
        if len(whole) <= self.largest:
            try:
                items += whole[:-1].decode().split("\n")
            except UnicodeDecodeError:
                pass
            else:
                return
        for line in whole[:-1].split(b"\n"):
            if len(line) > self.largest:
                self._drop(line, items)
                continue
            try:
                items.append(line.decode())
            except UnicodeDecodeError:
                self._refuse(items, line, self._not_in_charset)


class TextDecoder(Decoder):
    """Gives what came as texts; a character that is cut in two waits for its rest. What is not UTF-8 is U+FFFD."""

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

    def __init__(self, on_invalid: OnInvalid = "fail", largest: int = LARGEST) -> None:
        super().__init__(on_invalid, largest)
        self._begun = True  # a byte order mark is bytes like others

    def _take(self, data: bytes, items: list[Any]) -> None:
        items.append(data)


class NdjsonDecoder(LineDecoder):
    """Gives the value of each line; lines that are empty are skipped."""

    def _read(self, whole: bytes, items: list[Any]) -> None:
        lines = whole.split(b"\n")
        if len(whole) <= self.largest:
            try:
                # Most often all is well: then nothing is looked at twice.
                load = load_json if has_long_numbers(whole) else orjson.loads
                values = [load(line) for line in lines if line]
            except orjson.JSONDecodeError:
                pass
            else:
                if len(whole) <= SHALLOW or not is_deep(whole, values):
                    items += values
                    return
        for line in lines:
            if len(line) > self.largest:
                self._drop(line, items)
                continue
            if not line or line.isspace():
                continue
            try:
                items.append(self._parse(line))
            except NotJsonError as error:
                self._refuse(items, line, str(error))
