"""What all decoders of byte streams share: charsets, JSON values, invalid items."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal

import orjson

from streamstack.errors import RunError
from streamstack.language.values import load_json, parse_exactly, to_json

#: Turns bytes of a charset, as they come, into UTF-8; the flag tells the end of the input.
Transcode = Callable[[bytes, bool], bytes]

#: Name of the codec error handler that leaves a byte which is never UTF-8 where bytes are not valid in a charset.
_INVALID: Final = "streamstack.invalid"


def _handle_invalid(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    assert isinstance(error, UnicodeEncodeError)
    return b"\xff" * (error.end - error.start), error.end


codecs.register_error(_INVALID, _handle_invalid)

#: What stands for: UTF-8 if the first characters beyond ASCII are, else what Windows writes in the West.
AUTO: Final = "auto"


def transcoder(charset: str) -> Transcode:
    """Return what turns bytes of a charset into UTF-8. Bytes that are not valid in it are not valid UTF-8 either.

    Raises LookupError for a charset that is not known.
    """
    if charset.lower() == AUTO:
        return _guess()
    try:
        b"aaaa".decode(charset, "replace")  # refuses codecs that are not charsets, such as base64
    except ValueError:
        raise LookupError(charset) from None
    decoder = codecs.getincrementaldecoder(charset)(_INVALID)

    def transcode(data: bytes, final: bool) -> bytes:  # noqa: FBT001
        nonlocal decoder
        held = bytes(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final)
        except UnicodeError:
            # UTF-16 or UTF-32 without a mark of its byte order: little-endian, as the Encoding Standard has it.
            name = f"{codecs.lookup(charset).name}-le"
            decoder = codecs.getincrementaldecoder(name)(_INVALID)
            text = decoder.decode(held + data, final)
        return text.encode("utf-8", _INVALID)

    return transcode


def _guess() -> Transcode:
    """Return what turns UTF-8 or windows-1252 into UTF-8: the first character beyond ASCII decides."""
    utf_8 = codecs.getincrementaldecoder("utf-8")()
    found: Transcode | None = None

    def transcode(data: bytes, final: bool) -> bytes:  # noqa: FBT001
        nonlocal found
        if found is None:
            held = bytes(utf_8.getstate()[0])
            data = held + data
            if data.isascii():
                return data
            try:
                utf_8.reset()
                text = utf_8.decode(data, final)
            except UnicodeDecodeError as error:
                # What is valid before the fault decides: one bad byte makes no other file of UTF-8.
                is_utf_8 = not data[: error.start].isascii()
                found = (lambda data, _: data) if is_utf_8 else transcoder("windows-1252")
            else:
                if text.isascii():
                    return text.encode()
                found = lambda data, _: data  # noqa: E731
        return found(data, final)

    return transcode


#: Levels that a document may nest: what can be written again (orjson writes 254 of them).
DEEPEST: Final = 250
TOO_DEEP: Final = f"is nested more than {DEEPEST} deep"
#: Shorter documents can't be too deep: each level has two brackets.
SHALLOW: Final = 2 * DEEPEST

_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
#: Levels that are taken off to see whether anything is left; most documents have fewer.
_PASSES: Final = 16
_HIGH: Final = range(0xD800, 0xDC00)
_LOW: Final = range(0xDC00, 0xE000)
_NOTHING: Final = object()


class NotJsonError(ValueError):
    """What was read is not JSON that is taken. Its text goes on a sentence: "is not JSON: ..."."""


def is_deep(data: bytes | bytearray, value: Any) -> bool:
    """Tell whether a document nests more than DEEPEST levels.

    Args:
        data: Its text, or the texts of several documents.
        value: What orjson made of it.
    """
    if len(data) <= SHALLOW:
        return False
    # Taking the innermost pairs off is several times as fast as writing the value; brackets in texts only hinder it.
    brackets = data.translate(None, _NO_BRACKETS)
    for level in range(_PASSES):
        if len(brackets) <= DEEPEST - level:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    try:
        orjson.dumps([[[[value]]]])  # its writer stops at 254 levels
    except TypeError:
        return True
    return False


def parse_halves(data: bytes | bytearray, error: orjson.JSONDecodeError) -> Any:
    r"""Parse what orjson refused if that was for a half of a surrogate pair alone, such as `\ud83d`.

    Raises:
        NotJsonError: It is not JSON after all.
    """
    if "depth" in error.msg:
        raise NotJsonError(TOO_DEEP) from None
    if b"\\ud" in data or b"\\uD" in data:
        try:
            return parse_exactly(data.decode())
        except (ValueError, RecursionError):
            pass
    raise NotJsonError(f"is not JSON: {error}") from None


def parse_json(data: bytes | bytearray) -> Any:
    """Parse a document; halves of surrogate pairs become U+FFFD.

    Raises:
        NotJsonError: It is not JSON, or nested too deeply.
    """
    try:
        value = load_json(data)
    except orjson.JSONDecodeError as error:
        value = _mend(parse_halves(data, error), None, None)
    if is_deep(data, value):
        raise NotJsonError(TOO_DEEP)
    return value


class SurrogateJoiner:
    """Joins the halves of surrogate pairs where two values of a stream meet.

    Streams of texts are cut between any two characters of JavaScript or Java, also within one of Unicode's. A value
    with a text that ends in the first half waits for the next one: if the text at the same place there begins with the
    second half, the character goes there. A half that nothing completes is U+FFFD.
    """

    __slots__ = ("_before", "_held")

    def __init__(self) -> None:
        self._before: Any = None
        self._held: Any = _NOTHING

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return self._held is _NOTHING

    def add(self, value: Any) -> list[Any]:
        """Take the next value; return those that are complete by now."""
        ready = self.end(value)
        if _ends_in_half(value):
            self._held = value
        else:
            ready.append(_mend(value, self._before, None))
            self._before = None
        return ready

    def end(self, after: Any = None) -> list[Any]:
        """Return the value that waits, if any, given what comes after it."""
        held, self._held = self._held, _NOTHING
        if held is _NOTHING:
            return []
        before, self._before = self._before, held
        return [_mend(held, before, after)]


def _ends_in_half(value: Any) -> bool:
    if type(value) is str:
        return value != "" and ord(value[-1]) in _HIGH
    if type(value) is dict:
        return any(map(_ends_in_half, value.values()))
    return type(value) is list and any(map(_ends_in_half, value))


def _mend(value: Any, before: Any, after: Any) -> Any:
    """Return a value without halves, given what stands at the same place before and after it."""
    if type(value) is str:
        if not value:
            return value
        if type(before) is str and before and ord(before[-1]) in _HIGH and ord(value[0]) in _LOW:
            value = before[-1] + value
        if type(after) is str and after and ord(after[0]) in _LOW and ord(value[-1]) in _HIGH:
            value = value[:-1]
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if type(value) is dict:
        before = before if type(before) is dict else {}
        after = after if type(after) is dict else {}
        return {_mend(name, None, None): _mend(one, before.get(name), after.get(name)) for name, one in value.items()}
    if type(value) is list:
        before = before if type(before) is list else ()
        after = after if type(after) is list else ()
        return [_mend(one, _at(before, index), _at(after, index)) for index, one in enumerate(value)]
    return value


def _at(values: Any, index: int) -> Any:
    return values[index] if index < len(values) else None


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
    ``check``, where it is set, returns what is wrong with an item.
    ``transcode``, where it is set, makes UTF-8 of another charset; its flag tells the end. ``line``, where a format has
    records and lines, is the one that the present record begins in. ``status`` is what a failure answers, None for that
    of its code.
    """

    def __init__(self, on_invalid: OnInvalid = "fail", largest: int = LARGEST) -> None:
        self.on_invalid = on_invalid
        self.largest = largest
        self.skipped = 0
        self.yielded = 0
        self.ended = False
        self.failure: RunError | None = None
        self.status: int | None = None
        self.line: int | None = None
        self.check: Callable[[Any], list[str]] | None = None
        self.transcode: Transcode | None = None
        self._opening = b""  # what may be the beginning of a byte order mark
        self._begun = False
        self._sniffs = False  # whether a byte order mark may announce UTF-16
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
            if self.check is not None:
                items = self._fitting(items, self.check)
            self.yielded += len(items)
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
        if self.check is not None:
            last = self._fitting(last, self.check)
        self.yielded += len(last)
        if self._joiner is not None:
            last = self._join(last, self._joiner, final=True)
        return last

    def _fitting(self, items: list[Any], check: Callable[[Any], list[str]]) -> list[Any]:
        """Return the items that pass the check; the others are invalid chunks."""
        fitting: list[Any] = []
        with suppress(Halted):
            for item in items:
                already = self.on_invalid == "give" and type(item) is dict and item.keys() == {"invalid"}
                faults = [] if already else check(item)
                if faults:
                    self._refuse(fitting, to_json(item), "is not what was expected", faults=faults)
                else:
                    fitting.append(item)
        return fitting

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

    def _refuse(
        self, items: list[Any], text: bytes, message: str, *, final: bool = False, faults: list[str] | None = None
    ) -> None:
        """Deal with an invalid chunk as the author asked.

        Args:
            items: The items before it.
            text: The chunk.
            message: What is wrong with it, for clients.
            final: Whether nothing after it can be read.
            faults: What is wrong inside it, for the author and the log.

        Raises:
            Halted: It is a failure.
        """
        number = self._count_with(items) + self.skipped + 1
        if self.on_invalid == "skip" and not final:
            self.skipped += 1
            return
        place: dict[str, Any] = {"number": number}
        if self.line is not None:
            place["line"] = self.line
        if faults:
            place["faults"] = faults
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
        if faults:
            self.failure.about["faults"] = faults
        raise Halted

    @property
    def _not_in_charset(self) -> str:
        return "is not UTF-8" if self.transcode is None else "has bytes that are not valid in its charset"

    def _count_with(self, items: list[Any]) -> int:
        """Return how many chunks have been given, the items of the present feeding included."""
        return self.yielded + len(items)

    def _refuse_length(self, items: list[Any], text: bytes | bytearray, what: str, *, final: bool = False) -> None:
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
