"""Text, bytes, CSV, NDJSON and JSON: the formats that have no protocol of their own."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.formats.spec import (
    REMEMBERED,
    Encoder,
    EncoderOptions,
    Format,
    ResponseContext,
    end_marker,
    refuse_id,
    summarize,
    to_utf8,
)
from streamstack.language.values import MISSING, kind, to_json, to_text


class TextEncoder(Encoder):
    """Encodes contents one after the other, with `separator` between them and `end` after them.

    Metadata, event and id have no place in it. A failed response has no `end`: it is cut short.
    """

    __slots__ = ("_separator",)

    def __init__(self, options: EncoderOptions, response: ResponseContext) -> None:
        super().__init__(options, response)
        self._separator = options.separator

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        text: str = content if type(content) is str else to_text(content)
        if number and self._separator:
            text = self._separator + text
        try:
            return text.encode()
        except UnicodeEncodeError:
            return to_utf8(text)

    def end(self, summary: Mapping[str, Any], number: int, *, marked: bool) -> bytes:
        return to_utf8(self.options.end)


TEXT: Final = Format(
    name="text",
    content_type="text/plain; charset=utf-8",
    encoder=TextEncoder,
    media_types=("text/plain",),
    raw_json=True,
    separated=True,
)


class BytesEncoder(Encoder):
    """Encodes bytes as they are, and text as UTF-8; anything else has no bytes."""

    __slots__ = ()

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        if isinstance(content, str):
            return to_utf8(content)
        if isinstance(content, (bytes, bytearray, memoryview)):
            return bytes(content)
        raise RunError(
            "template",
            f"`format: bytes` sends bytes or text, and the content is a {kind(content)}: "
            "write `| toJson`, or choose another format",
        )


BYTES: Final = Format(name="bytes", content_type="application/octet-stream", encoder=BytesEncoder)


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


def shape(content: Any, event: Any, id: Any, metadata: Any, *, shaped: bool) -> Any:  # noqa: A002
    """Return a chunk as one JSON value: its content, or an object where there is more to say."""
    if event is None and id is None:
        return {"content": content, "metadata": metadata} if shaped else content
    value: dict[str, Any] = {}
    if event is not None:
        value["event"] = event
    if id is not None:
        value["id"] = to_text(id)
    value["content"] = content
    if shaped:
        value["metadata"] = metadata
    return value


class NdjsonEncoder(Encoder):
    """Encodes one JSON value a line; in a resumable stream each is an object with its id."""

    __slots__ = ("_shaped", "_stream")

    def __init__(self, options: EncoderOptions, response: ResponseContext) -> None:
        super().__init__(options, response)
        self._shaped: dict[str | None, bool] = options.cache
        self._stream = response.stream

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        if event is not None:
            event = to_text(event) or None
        shaped = self._shaped.get(event)
        if shaped is None:
            shaped = self._learn(event)
        if self._stream:
            if id is not None:
                raise refuse_id()
            id = f"{self._stream}/{number}"  # noqa: A001
        elif event is None and id is None and not shaped and metadata is None:
            return to_json(content) + b"\n"
        shaped = shaped or metadata is not None
        return to_json(shape(content, event, id, metadata, shaped=shaped)) + b"\n"

    def shared_chunk(self, content: Any, event: Any, id: Any) -> tuple[bytes, bool] | None:  # noqa: A002
        return None if self._stream else (self.chunk(content, event, id, None, 0), False)

    def _learn(self, event: str | None) -> bool:
        shaped = self.options.shapes.has_metadata(event)
        if len(self._shaped) < REMEMBERED:
            self._shaped[event] = shaped
        return shaped

    def done(self, content: Any, metadata: Any, summary: Mapping[str, Any], number: int) -> bytes:
        return self._own("done", end_marker(content, metadata, summary), number)

    def error_end(self, error: RunError, fields: Mapping[str, Any], number: int) -> bytes:
        return self._own("error", fields, number)

    def gap(self, missing: Mapping[str, Any], number: int) -> bytes:
        return self._own("gap", missing, number)

    def heartbeat(self) -> bytes:
        # A blank before a value is JSON's own white space: the next line stays one value.
        return b" "

    def _own(self, name: str, data: Any, number: int) -> bytes:
        """Return a line of the stream itself."""
        line = {name: data}
        if self._stream:
            line["id"] = f"{self._stream}/{number}"
        return to_json(line) + b"\n"


NDJSON: Final = Format(
    name="ndjson",
    content_type="application/x-ndjson; charset=utf-8",
    encoder=NdjsonEncoder,
    media_types=("application/x-ndjson",),
    allowed_types=("application/x-ndjson", "application/jsonl", "application/json-lines"),
    carries=frozenset({"event", "id", "metadata", "done.content", "done.metadata"}),
    raw_json=True,
    heartbeats=True,
    gaps=True,
    resumable=True,
)

JSONL: Final = replace(
    NDJSON,
    name="jsonl",
    content_type="application/jsonl; charset=utf-8",
    media_types=("application/jsonl",),
    alias_of="ndjson",
)


class JsonEncoder(Encoder):
    """Keeps the chunks, encoded, for one object `{"chunks", "metadata", "done"}`."""

    whole = True

    __slots__ = ("_body", "_done", "_metadata", "_start")

    def __init__(self, options: EncoderOptions, response: ResponseContext) -> None:
        super().__init__(options, response)
        self._body = bytearray()
        self._start = 0  # where the last chunk begins
        self._done: Any = MISSING
        self._metadata: Any = None

    def chunk(self, content: Any, event: Any, id: Any, metadata: Any, number: int) -> bytes:  # noqa: A002
        event = (to_text(event) or None) if event is not None else None
        shaped = metadata is not None or self.options.shapes.has_metadata(event)
        data = to_json(shape(content, event, id, metadata, shaped=shaped))
        body = self._body
        self._start = len(body)
        body += b"," + data
        self.held = len(body) - 1  # without the comma before the first
        return b""

    def undo(self) -> None:
        del self._body[self._start :]
        self.held = max(self._start - 1, 0)

    def done(self, content: Any, metadata: Any, summary: Mapping[str, Any], number: int) -> bytes:
        self._done = content
        self._metadata = metadata
        return b""

    def end(self, summary: Mapping[str, Any], number: int, *, marked: bool) -> bytes:
        parts: list[bytes | memoryview] = [
            b'{"chunks":[',
            memoryview(self._body)[1:],
            b'],"metadata":',
            to_json(summarize(self._metadata, summary)),
        ]
        if self._done is not MISSING and self._done is not None:
            parts += [b',"done":', to_json(self._done)]
        return b"".join((*parts, b"}"))


JSON: Final = Format(
    name="json",
    content_type="application/json; charset=utf-8",
    encoder=JsonEncoder,
    media_types=("application/json",),
    allowed_types=("application/json",),
    carries=frozenset({"event", "id", "metadata", "done.content", "done.metadata"}),
    raw_json=True,
    whole=True,
)
