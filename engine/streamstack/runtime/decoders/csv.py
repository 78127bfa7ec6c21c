"""CSV (RFC 4180): the standard library's reader, strict, given whole records only.

Where the last whole record of some lines ends is guessed by counting quotes; the reader decides. A record that has not
come whole yet, and whatever the reader refuses, is gone through line by line.
"""

from __future__ import annotations

import csv
import re
from functools import lru_cache
from io import StringIO
from itertools import repeat
from operator import itemgetter
from typing import Any, Final

from streamstack.runtime.decoders.decoder import LARGEST, OnInvalid
from streamstack.runtime.decoders.lines import LineDecoder

# The library's own limit holds for the whole process and is 128 KB; ours is `largest`.
csv.field_size_limit(2**31 - 1)

#: What Excel writes as the first line to name the delimiter.
_SEPARATOR: Final = re.compile(rb'"?sep=([\x20-\x7e\t])"?\r?')
_BREAK_OR_QUOTE: Final = re.compile(rb'[\r\n"]')


class CsvDecoder(LineDecoder):
    """Gives each record: an object by the header's names, or by ``columns``; a list where there are neither.

    With a header, ``columns`` are those that are given, in that order. Every value is a text. A quoted field may hold
    delimiters, doubled quotes and line breaks; with more text after its closing quote the record is invalid. Empty
    lines are skipped; a record with more or fewer fields than there are names is invalid. The first line, which
    may be the header, is line 1. Lines end in LF or CR LF, or all of them in CR. A first line such as `sep=;` names the
    delimiter. An input without records, and without a header, is empty.
    """

    def __init__(
        self,
        on_invalid: OnInvalid = "fail",
        largest: int = LARGEST,
        *,
        header: bool = True,
        delimiter: str = ",",
        columns: tuple[str, ...] = (),
    ) -> None:
        super().__init__(on_invalid, largest)
        self._sniffs = True
        self._awaits_header = header
        self._columns = columns
        self._names: tuple[str, ...] | None = None  # None: a record is a list
        self._pick: Any = None  # takes the fields that are wanted; None: all
        self._width = 0
        if columns and not header:
            self._names, self._width = columns, len(columns)
        self._ends_in_cr: bool | None = None  # None: not known yet
        self._held = b""  # a CR at the end of what has come
        self._record: list[bytes] = []  # the lines of a record that has not come whole
        self._size = 0
        self._quoted = False
        self._passed = 0  # how many lines
        self._delimit(delimiter)

    def _delimit(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._whole, self._continued = _patterns(delimiter.encode())

    def _take(self, data: bytes, items: list[Any]) -> None:
        if self._ends_in_cr is None:
            data = self._find_line_end(data)
        if self._ends_in_cr:
            data = data.replace(b"\r", b"\n")
        super()._take(data, items)

    def _find_line_end(self, data: bytes) -> bytes:
        """Look whether the first line ends in a CR alone; return what may be read by now."""
        data, self._held = self._held + data, b""
        found = _BREAK_OR_QUOTE.search(data)
        if found is None:
            return data
        if found[0] == b"\r" and found.end() == len(data):
            self._held = b"\r"
            return data[:-1]
        self._ends_in_cr = found[0] == b"\r" and data[found.end()] != 10
        return data

    def _end(self, items: list[Any]) -> None:
        super()._end(items)
        if self._record:
            text = b"\n".join(self._record)
            self._record.clear()
            self._refuse_record(items, text, "is not CSV: a quoted field has no end")

    def _read(self, whole: bytes, items: list[Any]) -> None:
        """Read lines: one by one up to the end of a record that was begun before, then at once."""
        at, tried = 0, len(whole) > self.largest
        while at < len(whole):
            if not (tried or self._awaits_header or self._record or not self._passed):
                tried = True
                at += self._read_at_once(whole[at:] if at else whole, items)
                continue
            end = whole.index(b"\n", at)
            self._pass_line()
            self._read_line(whole[at:end], items)
            at = end + 1

    def _pass_line(self) -> None:
        self._passed += 1
        if not self._record:
            self.line = self._passed

    def _read_line(self, line: bytes, items: list[Any]) -> None:
        if len(line) > self.largest:
            self._refuse_large(line, items)
            return
        if self._passed == 1 and (named := _SEPARATOR.fullmatch(line)) is not None:
            self._delimit(named[1].decode())
            return
        if self._quoted:
            closed = self._continued.fullmatch(line) is not None
        else:
            closed = b'"' not in line or self._whole.fullmatch(line) is not None
        self._record.append(line)
        self._size += len(line) + 1
        if closed:
            self._complete(items)
        elif self._size > self.largest:
            self._refuse_large(self._record[0], items)
        else:
            self._quoted = True

    def _read_at_once(self, whole: bytes, items: list[Any]) -> int:
        """Read the records that are complete; return how many bytes these are, 0 where each must be looked at."""
        whole = whole[: _closed(whole)]
        try:
            text = whole.decode()
            if b'"' in whole or b"\r" in (plain := whole.replace(b"\r\n", b"\n")):
                rows = [row for row in self._reader(StringIO(text, newline="\n")) if row]
            else:
                # Without quotes the reader does the same, and slower.
                delimiter = self._delimiter
                rows = [line.split(delimiter) for line in plain.decode().split("\n") if line]
        except (UnicodeDecodeError, csv.Error):
            return 0
        if self._names is None:
            items += rows
        elif any(map(self._width.__ne__, map(len, rows))):
            self._read_singly(text, items)
            return len(whole)
        else:
            items += self._make(rows)
        self._passed += text.count("\n")
        return len(whole)

    def _read_singly(self, text: str, items: list[Any]) -> None:
        """Read records of which some have more or fewer fields than they should."""
        lines = text.split("\n")
        before = self._passed
        # The reader takes one line after the other: at each record, the next one has not been taken yet.
        reader = self._reader(StringIO(text, newline="\n"))
        begin = 0
        for row in reader:
            begin, end = reader.line_num, begin
            self.line = before + end + 1
            self._passed = before + begin
            if row:
                self._give(row, "\n".join(lines[end:begin]).encode(), items)
        self._passed = before + len(lines) - 1

    def _reader(self, lines: Any) -> Any:
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    def _make(self, rows: list[list[str]]) -> list[dict[str, str]]:
        names, pick = self._names or (), self._pick
        return list(map(dict, map(zip, repeat(names), rows if pick is None else map(pick, rows))))

    def _refuse_record(self, items: list[Any], text: bytes, message: str) -> None:
        """Refuse a record; without its header, nothing of the input can be read."""
        if self._awaits_header:
            message += ", and it is the header"
        self._refuse(items, text, message, final=self._awaits_header)

    def _drop(self, text: bytes, items: list[Any]) -> None:
        self._pass_line()
        self._refuse_large(text, items)

    def _refuse_large(self, text: bytes, items: list[Any]) -> None:
        """Refuse a record that is too large, and go on with the next line."""
        self._begin_record()
        self._refuse_length(items, text, "a record", final=self._awaits_header)

    def _begin_record(self) -> None:
        self._record.clear()
        self._size = 0
        self._quoted = False

    def _complete(self, items: list[Any]) -> None:
        text = b"\n".join(self._record)
        self._begin_record()
        if len(text) > self.largest:
            self._refuse_large(text, items)
            return
        try:
            lines = [line + "\n" for line in text.decode().split("\n")]
            row = next(self._reader(lines))
        except UnicodeDecodeError:
            self._refuse_record(items, text, self._not_in_charset)
        except csv.Error as error:
            self._refuse_record(items, text, f"is not CSV: {error}")
        else:
            if row:
                self._give(row, text, items)

    def _give(self, row: list[str], text: bytes, items: list[Any]) -> None:
        if self._awaits_header:
            self._read_header(row, text, items)
        elif self._names is None:
            items.append(row)
        elif len(row) != self._width:
            fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
            self._refuse(items, text, f"has {fields}, and there are {self._width} columns")
        else:
            items += self._make([row])

    def _read_header(self, row: list[str], text: bytes, items: list[Any]) -> None:
        self._awaits_header = False
        twice = next((name for name in row if row.count(name) > 1), None)
        if self._columns:
            missing = [name for name in self._columns if name not in row]
            if missing:
                self._refuse(items, text, f"has no column {missing[0]} in its header", final=True)
            places = [row.index(name) for name in self._columns]
            self._names = self._columns
            self._pick = _picker(places)
        elif twice is not None:
            self._refuse(
                items,
                text,
                f"names the column {twice or '(empty)'} twice in its header: choose with `columns`",
                final=True,
            )
        else:
            self._names = tuple(row)
        self._width = len(row)


def _picker(places: list[int]) -> Any:
    if len(places) == 1:
        place = places[0]
        return lambda row: (row[place],)
    return itemgetter(*places)


def _closed(lines: bytes) -> int:
    """Return how many bytes of some lines are whole records, going by their quotes."""
    end = len(lines)
    is_open = lines.count(b'"') % 2
    while is_open:
        start = lines.rfind(b"\n", 0, lines.rfind(b'"', 0, end)) + 1
        is_open ^= lines.count(b'"', start, end) % 2
        end = start
    return end


@lru_cache(maxsize=64)
def _patterns(delimiter: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Compile what a line is that ends outside of quotes: from its beginning, and from within a quoted field.

    The rules are those of the standard library: a quote opens a field
    only where that begins.
    """
    # Atomic groups: a group that is repeated possessively misses matches before Python 3.11.5 (CPython issue 106052).
    end = re.escape(delimiter)
    rest = rb"[^%s\n]*+" % end if len(delimiter) == 1 else rb"(?>(?:(?!%s)[^\n])*)" % end
    closing = rb'(?>(?:[^"]++|"")*)"(?!")' + rest
    field = rb'(?:"' + closing + rb'|(?!")' + rest + rb")"
    more = rb"(?>(?:" + end + field + rb")*)"
    line = field + more
    return re.compile(line), re.compile(closing + more)
