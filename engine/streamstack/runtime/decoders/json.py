"""JSON, record by record: the items of an array while the rest of it is still on its way.

A scanner finds where records end, and orjson reads them: so numbers are what they are everywhere else. Once two
records have shown what stands between them, whole runs of records are read at once, up to the last such seam that has
come: if orjson takes the text before a seam for a list, then it is one, since no value of JSON that ends before a comma
is the beginning of another. That is several times as fast as ijson, which also refuses integers over 64 bits. What a
path passes over is checked for its brackets and strings only.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, Final

import orjson

from streamstack.language.values import load_json
from streamstack.runtime.decoders.decoder import LARGEST, SHALLOW, Decoder, NotJsonError, OnInvalid, is_deep

#: A part of the work: it yields when it needs more bytes.
Scan = Generator[None, None, None]

_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
#: Up to the next bracket, or to a string that has no end yet.
_FLAT: Final = re.compile(rb'(?>(?:[^"{}\[\]]++|"[^"\\]*+(?>(?:\\.[^"\\]*+)*)")*)', re.DOTALL)
#: The rest of a string with its closing quote, if that has come; never half an escape.
_STRING: Final = re.compile(rb'[^"\\]*+(?>(?:\\.[^"\\]*+)*)("?)', re.DOTALL)
_SCALAR: Final = re.compile(rb'[^,\]}\s"\[{:]*+')
_QUOTE, _COMMA, _COLON = b'",:'
_LIST, _LIST_END, _OBJECT, _OBJECT_END = b"[]{}"
_OPEN: Final = frozenset(b"[{")
_CLOSED: Final = frozenset(b'[{"')  # begin what ends in a byte of its own
#: The beginning of an object, with its first name.
_FIRST_NAME: Final = re.compile(rb'\{[ \t\n\r]*+"[^"\\]{0,100}"[ \t\n\r]*+:')
#: Seams that are tried in a run of records; where they mislead, the records are read one by one.
_TRIES: Final = 3


class JsonDecoder(Decoder):
    """Gives each item of an array: the document itself, or what stands at a path in it (`data`, `items`).

    A value there that is not an array is the one item; null is none. A record that orjson refuses is an invalid chunk.
    A document that is broken between records always fails, since the records after that can't be separated.
    """

    def __init__(self, on_invalid: OnInvalid = "fail", largest: int = LARGEST, path: tuple[str, ...] = ()) -> None:
        super().__init__(on_invalid, largest)
        self._path = path
        self._buffer = bytearray()
        self._at = 0  # what is looked at next
        self._from = -1  # where the text that is kept begins; -1: none is
        self._found = False
        self._complete = False
        self._feeds = 0  # each moves what is in the buffer
        self._seam: tuple[bytes, int] | None = None  # between records; how much is the first one's
        self._singly_to = 0  # up to where a run of records could not be read
        self._items: list[Any] = []
        self._parser = self._document()
        next(self._parser)

    def _take(self, data: bytes, items: list[Any]) -> None:
        done = self._at if self._from < 0 else self._from
        del self._buffer[:done]
        self._at -= done
        self._singly_to -= done
        self._from = min(self._from, 0)
        self._feeds += 1
        self._buffer += data
        self._items = items
        next(self._parser)

    def _end(self, items: list[Any]) -> None:
        if not self._complete:
            self._take(b" ", items)  # ends a number that stands alone
        if not self._complete:
            self._break("ends before its JSON does")

    def _document(self) -> Scan:
        yield
        yield from self._descend(self._path)
        if not self._found:
            message = f"has nothing at the path {'.'.join(self._path)}"
            self._refuse(self._items, b"", message, final=True)
        self._complete = True
        while True:
            self._skip_space()
            if self._at < len(self._buffer):
                self._break("goes on after the end of its JSON")
            yield

    def _descend(self, path: tuple[str, ...]) -> Scan:
        """Follow the rest of a path into the value that comes next."""
        byte = yield from self._next()
        if not path:
            self._found = True
            yield from self._records() if byte == _LIST else self._value(keep=True, null=False)
        elif byte == _OBJECT:
            yield from self._members(path[0], path[1:])
        elif byte == _LIST and path[0].isdecimal():
            yield from self._elements(int(path[0][:18]), path[1:])
        else:
            yield from self._value(keep=False)

    def _members(self, name: str, path: tuple[str, ...]) -> Scan:
        self._at += 1
        byte = yield from self._next()
        while byte != _OBJECT_END:
            if byte != _QUOTE:
                self._break("is not JSON: a name is missing")
            key = yield from self._name()
            if (yield from self._next()) != _COLON:
                self._break("is not JSON: a colon is missing")
            self._at += 1
            if key == name and not self._found:
                yield from self._descend(path)
            else:
                yield from self._value(keep=False)
            byte = yield from self._separator(_OBJECT_END)
        self._at += 1

    def _name(self) -> Generator[None, None, str]:
        self._from = self._at
        self._at += 1
        yield from self._string()
        try:
            key = orjson.loads(self._buffer[self._from : self._at]) if self._from >= 0 else ""
        except orjson.JSONDecodeError as error:
            self._break(f"is not JSON: {error}")
        self._from = -1
        return str(key)

    def _elements(self, index: int, path: tuple[str, ...]) -> Scan:
        self._at += 1
        byte = yield from self._next()
        number = 0
        while byte != _LIST_END:
            yield from self._descend(path) if number == index else self._value(keep=False)
            number += 1
            byte = yield from self._separator(_LIST_END)
        self._at += 1

    def _records(self) -> Scan:
        self._at += 1
        byte = yield from self._next()
        while byte != _LIST_END:
            if self._seam is not None and self._at >= self._singly_to and self._run(self._seam):
                byte = yield from self._separator(_LIST_END)
                continue
            first, feeds = byte, self._feeds
            yield from self._value(keep=True)
            end = self._at
            byte = yield from self._separator(_LIST_END)
            if self._seam is None and feeds == self._feeds:
                self._learn(first, end)
        self._at += 1

    def _learn(self, first: int, end: int) -> None:
        """Take what stands between the record that ended and the next one for the seam of all."""
        start = self._at
        following = self._buffer[start]
        if following != first and (first in _CLOSED or following in _CLOSED):
            return
        if first not in _CLOSED:
            self._seam = bytes(self._buffer[end:start]), 0
            return
        stop = start + 1
        if first == _OBJECT:
            named = _FIRST_NAME.match(self._buffer, start)
            if named is None:
                return
            stop = named.end()
        self._seam = bytes(self._buffer[end - 1 : stop]), 1

    def _run(self, seam: tuple[bytes, int]) -> bool:
        """Read the records up to the last seam at once; False where that can't be done."""
        text, own = seam
        end = min(len(self._buffer), self._at + self.largest)
        for _ in range(_TRIES):
            end = self._buffer.rfind(text, self._at, end)
            if end < 0:
                return False
            run = b"[%b]" % bytes(self._buffer[self._at : end + own])
            try:
                records = load_json(run)
            except orjson.JSONDecodeError:
                self._singly_to = max(self._singly_to, end)
                continue
            if len(run) > SHALLOW and is_deep(run, records):
                self._singly_to = max(self._singly_to, end)
                return False
            if not records:
                return False  # two commas: the value that is missing is found one by one
            self._items += records
            self._at = end + own
            return True
        return False

    def _separator(self, end: int) -> Generator[None, None, int]:
        """Return the end, or what follows the comma."""
        byte = yield from self._next()
        if byte == _COMMA:
            self._at += 1
            byte = yield from self._next()
            if byte == end:
                self._break("is not JSON: a comma before the end")
        elif byte != end:
            self._break("is not JSON: a comma is missing")
        return byte

    def _value(self, *, keep: bool, null: bool = True) -> Scan:
        """Pass a value; give it where it is to be kept, but a null only with ``null``."""
        byte = yield from self._next()
        if keep:
            self._from = self._at
        if byte in _OPEN:
            yield from self._nested()
        elif byte == _QUOTE:
            self._at += 1
            yield from self._string()
        else:
            yield from self._scalar()
        if self._from >= 0:
            self._give(null=null)

    def _give(self, *, null: bool) -> None:
        text = self._buffer[self._from : self._at]
        self._from = -1
        if len(text) > self.largest:
            self._refuse_length(self._items, text, "a record")
            return
        try:
            value = self._parse(text)
        except NotJsonError as error:
            self._refuse(self._items, bytes(text), str(error))
            return
        if value is not None or null:
            self._items.append(value)

    def _nested(self) -> Scan:
        """Pass a list or an object, whatever is in it."""
        depth = 0
        while True:
            self._at = self._match(_FLAT)
            if self._at == len(self._buffer):
                yield from self._wait()
                continue
            byte = self._buffer[self._at]
            self._at += 1
            if byte == _QUOTE:
                yield from self._string()
            elif byte in _OPEN:
                depth += 1
            else:
                depth -= 1
                if not depth:
                    return

    def _string(self) -> Scan:
        """Pass the rest of a string."""
        while True:
            found = _STRING.match(self._buffer, self._at)
            assert found is not None
            self._at = found.end()
            if found[1]:
                return
            yield from self._wait()

    def _scalar(self) -> Scan:
        begin = self._at - max(self._from, 0)
        while (end := self._match(_SCALAR)) == len(self._buffer):
            self._at = end
            yield from self._wait()
            begin = -1
        if end == begin + max(self._from, 0):
            self._break("is not JSON: a value is missing")
        self._at = end

    def _next(self) -> Generator[None, None, int]:
        """Return the next byte that is not a space; it is not passed."""
        while True:
            self._skip_space()
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            yield

    def _skip_space(self) -> None:
        self._at = self._match(_SPACE)

    def _match(self, pattern: re.Pattern[bytes]) -> int:
        found = pattern.match(self._buffer, self._at)
        assert found is not None  # it matches nothing, too
        return found.end()

    def _wait(self) -> Scan:
        """Wait for more bytes; what is kept must not become too large meanwhile."""
        if self._from >= 0 and len(self._buffer) - self._from > self.largest:
            text = self._buffer[self._from : self._from + 1000]
            self._from = -1
            self._refuse_length(self._items, text, "a record")
        yield

    def _break(self, message: str) -> None:
        """Fail: the document can't be followed any further. Raises Halted."""
        self._refuse(self._items, bytes(self._buffer[self._at : self._at + 1]), message, final=True)
