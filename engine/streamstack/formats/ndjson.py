"""Newline-delimited JSON: one value a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.formats.spec import REMEMBERED, Encoder, EncoderOptions, Format, ResponseContext, end_marker, refuse_id
from streamstack.language.values import to_json, to_text


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

    def _learn(self, event: str | None) -> bool:
        shaped = self.options.shapes.has_metadata(event)
        if len(self._shaped) < REMEMBERED:
            self._shaped[event] = shaped
        return shaped

    def done(self, content: Any, metadata: Any, summary: Mapping[str, Any], number: int) -> bytes:
        return self._own("done", end_marker(content, metadata, summary), number)

    def error_end(self, error: RunError, told: Mapping[str, Any], number: int) -> bytes:
        return self._own("error", told, number)

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
