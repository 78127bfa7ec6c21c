"""CSV (RFC 4180): the standard library's reader, given whole records only.

Records that came whole are read at once; lines without quotes are split, which is faster than that reader and the same.
What is not as it should be is then looked at record by record.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import lru_cache, partial
from io import StringIO
from typing import Any, Final

from streamstack.runtime.decoders.decoder import LARGEST, Decoder, OnInvalid
from streamstack.runtime.decoders.lines import Lines

# The library's own limit holds for the whole process and is 128 KB; ours is `largest`.
csv.field_size_limit(2**31 - 1)

#: Makes records of rows. Raises ValueError for a row of another width.
Make = Callable[[list[list[str]]], list[Any]]

#: Columns of which records are made by code of their own.
_MOST_MADE: Final = 200


class CsvDecoder(Decoder):
    """Gives each record: an object by the header's names, or by ``columns``; a list where there are neither.

    With a header, ``columns`` are those that are given, in that order. Every value is a text. A quoted field may hold
    delimiters, doubled quotes and line breaks. Empty lines are passed over; a record with more or fewer fields than
    there are names is invalid. The first line, which may be the header, is line 1.
    """

    __slots__ = (
        "_awaits_header",
        "_block",
        "_columns",
        "_continued",
        "_delimiter",
        "_lines",
        "_make",
        "_names",
        "_passed",
        "_quoted",
        "_record",
        "_size",
        "_whole",
        "_width",
    )

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
        self._lines = Lines(largest)
        self._awaits_header = header
        self._columns = columns
        self._delimiter = delimiter
        self._names: tuple[str, ...] | None = None
        self._make: Make | None = None  # None: a record is a list
        self._width = 0
        if columns and not header:
            self._name(columns, tuple(range(len(columns))), len(columns))
        self._record: list[bytes] = []
        self._size = 0
        self._quoted = False
        self._passed = 0  # how many lines
        self._whole, self._continued, self._block = _patterns(delimiter.encode())

    def _name(self, names: tuple[str, ...], picked: tuple[int, ...], width: int) -> None:
        self._names = names
        self._width = width
        self._make = _maker(names, picked, width)

    def _take(self, data: bytes, items: list[Any]) -> None:
        whole = self._lines.feed(data)
        if whole:
            self._read(whole, items)
        if self._lines.too_long is not None:
            text, self._lines.too_long = self._lines.too_long, None
            self._pass_line()
            self._drop(text, items)

    def _end(self, items: list[Any]) -> None:
        last = self._lines.finish()
        if last:
            self._read(last + b"\n", items)
        if self._record:
            text = b"\n".join(self._record)
            self._record.clear()
            self._refuse(items, text, "is not CSV: a quoted field has no end")
        if self._awaits_header:
            self._refuse(items, b"", "has no header", final=True)

    def _read(self, whole: bytes, items: list[Any]) -> None:
        """Read lines: one by one up to the end of a record that was begun before, then at once."""
        at, tried = 0, len(whole) > self.largest
        while at < len(whole):
            if not (tried or self._awaits_header or self._record):
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
            self._drop(line, items)
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
            self._drop(self._record[0], items)
        else:
            self._quoted = True

    def _read_at_once(self, whole: bytes, items: list[Any]) -> int:
        """Read the records that are complete; return how many bytes these are, 0 where each must be looked at."""
        quotes = b'"' in whole
        if quotes:
            block = self._block.match(whole)
            assert block is not None  # it matches nothing, too
            whole = block[0]
        try:
            text = whole.decode()
            if quotes:
                rows = [row for row in self._reader(StringIO(text, newline="\n")) if row]
            else:
                plain = text.replace("\r\n", "\n") if "\r" in text else text
                if "\r" in plain:
                    return 0
                delimiter = self._delimiter
                rows = [line.split(delimiter) for line in plain.split("\n") if line]
        except (UnicodeDecodeError, csv.Error):
            return 0
        try:
            items += rows if self._make is None else self._make(rows)
        except ValueError:
            self._read_singly(text, items)
        else:
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
        return csv.reader(lines, delimiter=self._delimiter)

    def _drop(self, text: bytes, items: list[Any]) -> None:
        """Refuse a record that is too large, and go on with the next line."""
        self._begin_record()
        self._refuse_length(items, text, "a record")

    def _begin_record(self) -> None:
        self._record.clear()
        self._size = 0
        self._quoted = False

    def _complete(self, items: list[Any]) -> None:
        text = b"\n".join(self._record)
        self._begin_record()
        if len(text) > self.largest:
            self._refuse_length(items, text, "a record")
            return
        try:
            lines = [line + "\n" for line in text.decode().split("\n")]
            row = next(self._reader(lines))
        except UnicodeDecodeError:
            self._refuse(items, text, "is not UTF-8")
        except csv.Error as error:
            self._refuse(items, text, f"is not CSV: {error}")
        else:
            if row:
                self._give(row, text, items)

    def _give(self, row: list[str], text: bytes, items: list[Any]) -> None:
        if self._awaits_header:
            self._read_header(row, text, items)
        elif self._make is None:
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
            self._name(self._columns, tuple(map(row.index, self._columns)), len(row))
        elif twice is not None:
            self._refuse(
                items,
                text,
                f"names the column {twice or '(empty)'} twice in its header: choose with `columns`",
                final=True,
            )
        else:
            self._name(tuple(row), tuple(range(len(row))), len(row))


def _maker(names: tuple[str, ...], picked: tuple[int, ...], width: int) -> Make:
    """Return what makes objects with these names of the fields that are picked."""
    if width <= _MOST_MADE:
        return partial(_compiled(picked, width), names)

    def make(rows: list[list[str]]) -> list[Any]:
        if any(len(row) != width for row in rows):
            raise ValueError
        return [dict(zip(names, [row[at] for at in picked], strict=True)) for row in rows]

    return make


@lru_cache(maxsize=64)
def _compiled(picked: tuple[int, ...], width: int) -> Callable[..., list[Any]]:
    """Compile what makes objects of rows: a display with all its keys is three times as fast as `dict(zip())`.

    Its source has numbers only: the names, which others wrote, are values.
    """
    names = "".join(f"n{index}, " for index in range(len(picked)))
    fields = "".join(f"f{index}, " for index in range(width))
    pairs = ", ".join(f"n{index}: f{at}" for index, at in enumerate(picked))
    source = (
        f"def make(names, rows):\n [{names}] = names\n return [{{{pairs}}} for [{fields}] in rows]"
    )
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102  (made of numbers, see above)
    made: Callable[..., list[Any]] = namespace["make"]
    return made


def _patterns(
    delimiter: bytes,
) -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    """Compile what a line is that ends outside of quotes: from its beginning, and from within a quoted field.

    The third is as many whole records as there are. The rules are those of the standard library: a quote opens a field
    only where that begins.
    """
    # Atomic groups: a group that is repeated possessively misses matches before Python 3.11.5 (CPython issue 106052).
    end = re.escape(delimiter)
    rest = rb"[^%s\n]*+" % end if len(delimiter) == 1 else rb"(?>(?:(?!%s)[^\n])*)" % end
    closing = rb'(?>(?:[^"]++|"")*)"(?!")' + rest
    field = rb'(?:"' + closing + rb'|(?!")' + rest + rb")"
    more = rb"(?>(?:" + end + field + rb")*)"
    line = field + more
    block = rb"(?>(?:" + line + rb"\n)*)"
    return re.compile(line), re.compile(closing + more), re.compile(block)
