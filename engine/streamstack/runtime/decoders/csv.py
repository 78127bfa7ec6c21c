"""CSV (RFC 4180): the standard library's reader, given whole records only."""

from __future__ import annotations

import csv
import re
from typing import Any, Final

from streamstack.runtime.decoders.decoder import LARGEST, Decoder, OnInvalid
from streamstack.runtime.decoders.lines import Lines

# The library's own limit holds for the whole process and is 128 KB; ours is `largest`.
csv.field_size_limit(2**31 - 1)

_FIRST_WIDTH: Final = -1


class CsvDecoder(Decoder):
    """Gives each record: an object by the header's names, or by ``columns``; a list where there are neither.

    With a header, ``columns`` are those that are given, in that order. Every value is a text. A quoted field may hold
    delimiters, doubled quotes and line breaks. Empty lines are passed over; a record with more or fewer fields than
    there are names is invalid.
    """

    __slots__ = (
        "_awaits_header",
        "_columns",
        "_continued",
        "_delimiter",
        "_lines",
        "_names",
        "_picked",
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
        self._names: tuple[str, ...] | None = columns if columns and not header else None
        self._picked: tuple[int, ...] | None = None
        self._width = len(columns)
        self._record: list[bytes] = []
        self._size = 0
        self._quoted = False
        self._whole, self._continued = _patterns(delimiter.encode())

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
        if self._record:
            text = b"\n".join(self._record)
            self._record.clear()
            self._refuse(items, text, "is not CSV: a quoted field has no end")
        if self._awaits_header:
            self._refuse(items, b"", "has no header", final=True)

    def _read(self, whole: bytes, items: list[Any]) -> None:
        if (
            not self._awaits_header
            and not self._record
            and b'"' not in whole
            and len(whole) <= self.largest
            and self._read_at_once(whole, items)
        ):
            return
        for line in whole[:-1].split(b"\n"):
            if len(line) > self.largest:
                self._drop(line, items)
                continue
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

    def _read_at_once(self, whole: bytes, items: list[Any]) -> bool:
        """Read lines without a quote, which are records; False where one of them is not as it should be."""
        try:
            lines = whole[:-1].decode().split("\n")
            rows = [row for row in csv.reader(lines, delimiter=self._delimiter) if row]
        except (UnicodeDecodeError, csv.Error):
            return False
        names = self._names
        if names is None:
            items += rows
            return True
        if any(len(row) != self._width for row in rows):
            return False
        if self._picked is None:
            items += [dict(zip(names, row, strict=True)) for row in rows]
        else:
            items += [self._pick(row) for row in rows]
        return True

    def _pick(self, row: list[str]) -> dict[str, str]:
        assert self._names is not None
        assert self._picked is not None
        return {name: row[index] for name, index in zip(self._names, self._picked, strict=True)}

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
            row = next(csv.reader(lines, delimiter=self._delimiter))
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
        elif self._names is None:
            items.append(row)
        elif len(row) != self._width:
            fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
            self._refuse(items, text, f"has {fields}, and there are {self._width} columns")
        elif self._picked is None:
            items.append(dict(zip(self._names, row, strict=True)))
        else:
            items.append(self._pick(row))

    def _read_header(self, row: list[str], text: bytes, items: list[Any]) -> None:
        self._awaits_header = False
        self._width = len(row)
        twice = next((name for name in row if row.count(name) > 1), None)
        if self._columns:
            missing = [name for name in self._columns if name not in row]
            if missing:
                self._refuse(items, text, f"has no column {missing[0]} in its header", final=True)
            self._names = self._columns
            self._picked = tuple(row.index(name) for name in self._columns)
        elif twice is not None:
            self._refuse(
                items,
                text,
                f"names the column {twice or '(empty)'} twice in its header: choose with `columns`",
                final=True,
            )
        else:
            self._names = tuple(row)


def _patterns(delimiter: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Compile what a line is that ends outside of quotes: from its beginning, and from within a quoted field.

    The rules are those of the standard library: a quote opens a field only where that begins.
    """
    end = re.escape(delimiter)
    rest = rb"[^%s]*+" % end if len(delimiter) == 1 else rb"(?:(?!%s).)*+" % end
    closing = rb'(?:[^"]|"")*+"(?!")' + rest
    field = rb'(?:"' + closing + rb'|(?!")' + rest + rb")"
    more = rb"(?:" + end + field + rb")*+"
    return re.compile(field + more, re.DOTALL), re.compile(closing + more, re.DOTALL)
