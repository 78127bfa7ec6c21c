"""Comma-separated values (RFC 4180)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.formats.spec import Encoder, EncoderOptions, Format, ResponseContext, to_utf8
from streamstack.language.values import to_text

_AS_THEY_ARE: Final = frozenset({str, int, float})


class _Lines(list[str]):
    """What the standard writer writes into."""

    write = list.append


class CsvEncoder(Encoder):
    """Encodes records as rows, after a header of the first record's names.

    A list is rows: each a record, or a list of cells, which has no names. Anything else is a
    record with the one column `content`. A later record may lack columns; one more is an error,
    since nothing is left out in silence. Metadata, event and id have no place in it.
    """

    __slots__ = ("_before", "_columns", "_lines", "_row")

    def __init__(self, options: EncoderOptions, response: ResponseContext) -> None:
        super().__init__(options, response)
        self._columns: tuple[str, ...] | None = None
        self._before: tuple[str, ...] | None = None  # what the columns were before the last chunk
        self._lines = _Lines()
        self._row = csv.writer(self._lines, lineterminator="\r\n").writerow

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        lines = self._lines
        self._before = self._columns
        try:
            if isinstance(content, (list, tuple)):
                for row in content:
                    self._add(row)
            else:
                self._add(content)
            return to_utf8("".join(lines))
        except BaseException:
            self.undo()
            raise
        finally:
            lines.clear()

    def undo(self) -> None:
        self._columns = self._before

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


CSV: Final = Format(
    name="csv",
    content_type="text/csv; charset=utf-8",
    encoder=CsvEncoder,
    media_types=("text/csv",),
    allowed_types=("text/csv",),
)
