"""What all decoders share: how much they hold, and what becomes of what can't be decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, Final, Literal

import orjson

from streamstack.errors import RunError
from streamstack.runtime.decoders.charsets import Transcode, transcoder
from streamstack.runtime.decoders.parsing import (
    SHALLOW,
    TOO_DEEP,
    NotJsonError,
    SurrogateJoiner,
    is_deep,
    load_json,
    parse_halves,
)

OnInvalid = Literal["skip", "fail", "give"]

#: Bytes of the largest event, line or record, unless the author says otherwise.
LARGEST: Final = 10 * 1024 * 1024
#: Characters of an invalid chunk that an error's details show.
SHOWN: Final = 200
_BOM: Final = b"\xef\xbb\xbf"
_BOMS_OF_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


class Halted(Exception):  # noqa: N818  (leaves a decoder's loops; never seen outside)
    """Ends a decoder's work on what it was fed: `failure` says why."""


class Decoder(ABC):
    """Turns bytes into items. `feed` it what arrives, then call `finish`.

    What is invalid is skipped and counted in ``skipped``, given as an item, or a failure (``on_invalid``). A failure
    is kept in ``failure`` for the caller to raise, so that the items before it are not lost. ``ended`` tells that the
    format's own end marker was read: nothing after it counts. Both feed and finish give nothing from then on.
    ``transcode``, where it is set, makes UTF-8 of another charset; its flag tells the end. ``line``, where a format has
    records and lines, is the one that the present record begins in. ``status`` is what a failure answers, None for that
    of its code.
    """

    __slots__ = (
        "_begun",
        "_joiner",
        "_opening",
        "_sniffs",
        "ended",
        "failure",
        "given",
        "largest",
        "line",
        "on_invalid",
        "skipped",
        "status",
        "transcode",
    )

    def __init__(self, on_invalid: OnInvalid = "fail", largest: int = LARGEST) -> None:
        self.on_invalid = on_invalid
        self.largest = largest
        self.skipped = 0
        self.given = 0
        self.ended = False
        self.failure: RunError | None = None
        self.status: int | None = None
        self.line: int | None = None
        self.transcode: Transcode | None = None
        self._opening = b""  # what may be the beginning of a byte order mark
        self._begun = False
        self._sniffs = False  # whether a byte order mark may tell of UTF-16
        self._joiner: SurrogateJoiner | None = None  # while halves of surrogate pairs come

    def feed(self, data: bytes) -> list[Any]:
        """Take the bytes that came; return the items that are complete by now."""
        items: list[Any] = []
        if self.ended or self.failure is not None:
            return items
        if not self._begun:
            data = self._open(data)
        if self.transcode is not None:
            data = self.transcode(data, False)
        if data:
            with suppress(Halted):
                self._take(data, items)
            self.given += len(items)
            if self._joiner is not None:
                items = self._join(items, self._joiner, final=False)
        return items

    def finish(self) -> list[Any]:
        """Return what the end of the input completes."""
        last: list[Any] = []
        if self.ended or self.failure is not None:
            return last
        data, self._opening, self._begun = self._opening, b"", True
        if self.transcode is not None:
            data = self.transcode(data, True)
        with suppress(Halted):
            if data:
                self._take(data, last)
            self._end(last)
        self.given += len(last)
        if self._joiner is not None:
            last = self._join(last, self._joiner, final=True)
        return last

    def _join(self, items: list[Any], joiner: SurrogateJoiner, *, final: bool) -> list[Any]:
        """Join the halves of surrogate pairs where items meet; one may have to wait for the next."""
        joined = [ready for item in items for ready in joiner.add(item)]
        if final or self.failure is not None or self.ended:
            joined += joiner.end()
        if joiner.is_empty:
            self._joiner = None
        return joined

    def _parse(self, data: bytes | bytearray) -> Any:
        """Parse JSON. Raises NotJsonError."""
        try:
            value = load_json(data)
        except orjson.JSONDecodeError as error:
            value = parse_halves(data, error)
            if self._joiner is None:
                self._joiner = SurrogateJoiner()
        if len(data) > SHALLOW and is_deep(data, value):
            raise NotJsonError(TOO_DEEP)
        return value

    def _open(self, data: bytes) -> bytes:
        """Take a byte order mark off the beginning, though it may come in parts.

        It counts for more than the charset that was said (https://encoding.spec.whatwg.org/#decode).
        """
        data = self._opening + data
        marks = (_BOM, *_BOMS_OF_UTF_16) if self._sniffs else (_BOM,)
        if any(len(data) < len(mark) and mark.startswith(data) for mark in marks):
            self._opening = data
            return b""
        self._opening = b""
        self._begun = True
        if data.startswith(_BOM):
            self.transcode = None
            return data.removeprefix(_BOM)
        if self._sniffs and data.startswith(_BOMS_OF_UTF_16):
            self.transcode = transcoder("utf-16")
        return data

    @abstractmethod
    def _take(self, data: bytes, items: list[Any]) -> None:
        """Decode bytes, never none, and add the complete items."""

    def _end(self, items: list[Any]) -> None:  # noqa: B027  (most formats need nothing there)
        """Add what the end of the input completes."""

    def _refuse(self, items: list[Any], text: bytes, message: str, *, final: bool = False) -> None:
        """Deal with an invalid chunk as the author asked; ``final`` where nothing after it can be read.

        Raises Halted where it is a failure.
        """
        number = self._given(items) + self.skipped + 1
        if self.on_invalid == "skip" and not final:
            self.skipped += 1
            return
        place: dict[str, Any] = {"number": number}
        if self.line is not None:
            place["line"] = self.line
        if self.on_invalid == "give" and not final:
            shown = text.decode("utf-8", "replace")
            items.append({"invalid": {**place, "text": shown, "message": message}})
            return
        where = f" (line {self.line})" if self.line is not None else ""
        self.failure = RunError(
            "invalid-chunk",
            f"chunk {number} of the stream{where} {message}",
            status=self.status,
            details={**place, "text": excerpt(text), "message": message},
        )
        raise Halted

    def _given(self, items: list[Any]) -> int:
        """Return how many chunks have been given, the items of the present feeding included."""
        return self.given + len(items)

    def _refuse_length(
        self, items: list[Any], text: bytes | bytearray, what: str, *, final: bool = False
    ) -> None:
        """Refuse a chunk that is over the largest; only its beginning is kept."""
        self._refuse(
            items,
            excerpt(text[: self.largest]).encode(),
            f"is {what} of more than {self.largest} bytes, the largest that is read",
            final=final,
        )


def excerpt(text: bytes | bytearray, characters: int = SHOWN) -> str:
    """Return the beginning of some bytes as text, for an error's details."""
    return bytes(text[: characters * 4]).decode("utf-8", "replace")[:characters]
