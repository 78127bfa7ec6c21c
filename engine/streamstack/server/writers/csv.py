"""Comma-separated values (RFC 4180)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from typing import Any

from streamstack.errors import RunError
from streamstack.language.values import to_text
from streamstack.runtime.chunk import check_content
from streamstack.server.request import Request
from streamstack.server.wire import Wire
from streamstack.server.writers.answer import PLAIN
from streamstack.server.writers.stream import StreamSink
from streamstack.server.writers.text import encode

_AS_THEY_ARE = frozenset({str, int, float})


class _Lines(list[str]):
    """What the standard writer writes into."""

    write = list.append


class CsvSink(StreamSink):
    """Writes records as rows, after a header of the first record's names.

    A list is rows: each a record, or a list of cells, which has no names. Anything else is a
    record with the one column `content`. A later record may lack columns; one more is an error,
    since nothing is left out in silence. Metadata, event and id have no place in it.
    """

    __slots__ = ("_columns", "_lines", "_row")

    def __init__(self, wire: Wire, request: Request, cors: bytes = b"") -> None:
        super().__init__(wire, request, cors)
        self._columns: tuple[str, ...] | None = None
        self._lines = _Lines()
        self._row = csv.writer(self._lines, lineterminator="\r\n").writerow

    def emit(self, content: Any, event: str | None, id: Any, metadata: Any) -> bool:  # noqa: A002
        if self.ended or type(content) not in PLAIN:
            check_content(self, content)
        lines = self._lines
        columns = self._columns
        try:
            if isinstance(content, (list, tuple)):
                for row in content:
                    self._add(row)
            else:
                self._add(content)
        except BaseException:
            lines.clear()
            self._columns = columns
            raise
        data = encode("".join(lines))
        lines.clear()
        self._parts.append(data)
        self.count += 1
        self.bytes = total = self.bytes + len(data)
        if total >= self._limit:
            return self._settle()
        return False

    def _add(self, row: Any) -> None:
        if isinstance(row, Mapping):
            self._record(row)
        elif isinstance(row, (list, tuple)):
            self._cells(row)
        else:
            self._record({"content": row})

    def _record(self, record: Mapping[str, Any]) -> None:
        columns = self._columns
        if columns is None:
            columns = self._columns = tuple(record)
            self._cells(columns)
        if tuple(record) == columns:
            self._cells(record.values())
            return
        unknown = [name for name in record if name not in columns]
        if unknown:
            raise RunError(
                "template",
                f"the record has {unknown[0]!r}, which the header, made from the first record, "
                "lacks: give every record the same names, with `pick`",
            )
        self._cells(record.get(column) for column in columns)

    def _cells(self, cells: Iterable[Any]) -> None:
        # The standard writer gives numbers their digits; all else has the language's text.
        self._row([cell if type(cell) in _AS_THEY_ARE else to_text(cell) for cell in cells])

    def error_end(self, error: RunError) -> None:
        return None
