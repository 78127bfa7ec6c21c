"""The schemas of what an endpoint sends: its chunks by event name, in each format that carries them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streamstack.formats.schemas import json_text, record
from streamstack.language.analysis.emissions import Emission, MetadataEvents, Sent
from streamstack.language.analysis.promises import OTHERS, UNNAMED
from streamstack.language.definition import Endpoint, Input
from streamstack.language.openapi.components import SCHEMAS, Components
from streamstack.language.schema import Definitions, Schema, input_schema, shape_schema
from streamstack.language.shapes import Shape

_KINDS: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("text", "email", "url", "uuid"), frozenset({"text"})),
    "integer": frozenset({"integer"}),
    "decimal": frozenset({"decimal"}),
    "boolean": frozenset({"boolean"}),
    "object": frozenset({"object"}),
    "list": frozenset({"list"}),
}
_TEXT: Final[Schema] = {"type": "string"}
_NULL: Final[Schema] = {"type": "null"}


@dataclass(frozen=True, slots=True)
class Value:
    """The schema of a value, and whether it can be a text, which SSE sends unchanged."""

    schema: Schema
    text: bool
    other: bool

    @property
    def data(self) -> Schema:
        """The schema of the value as the data of an event."""
        if not self.text:
            return json_text(self.schema)
        return {"anyOf": [_TEXT, json_text(self.schema)]} if self.other else self.schema


def value_of(shape: Shape) -> Value:
    """Return the schema of a value that has a shape."""
    return Value(shape_schema(shape), shape.may_be(("text",)), not shape.is_only("text") or bool(shape.null))


def declared_value(declared: Input, definitions: Definitions) -> Value:
    """Return the schema of a value that an author promises."""
    kinds = _KINDS.get(declared.type)
    if declared.type == "enum" and all(isinstance(each, str) for each in declared.values):
        kinds = _KINDS["text"]
    text = kinds is None or "text" in kinds
    return Value(output_schema(declared, definitions), text, kinds is None or not text or declared.nullable)


def output_schema(declared: Input, definitions: Definitions) -> Schema:
    """Return the schema of what a declaration promises; defaults are for inputs alone."""
    schema: Schema = _without_defaults(input_schema(declared, definitions))
    return schema


def _without_defaults(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_defaults(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: each if key in ("enum", "properties") else _without_defaults(each) for key, each in schema.items()}
    if "properties" in found:
        found["properties"] = {name: _without_defaults(each) for name, each in found["properties"].items()}
    found.pop("default", None)
    return found


def one_of(schemas: Iterable[Schema]) -> Schema:
    """Return the schema of what fits one of several."""
    found: list[Schema] = []
    for each in schemas:
        if each not in found:
            found.append(each)
    if len(found) == 1:
        return found[0]
    return {} if {} in found else {"anyOf": found}


def either(values: Iterable[Value]) -> Value:
    """Return what is one of several values."""
    listed = list(values)
    return Value(
        one_of(each.schema for each in listed), any(each.text for each in listed), any(each.other for each in listed)
    )


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunks of one event name; of all names that are not known where it is OTHERS."""

    name: str | None
    content: Value
    metadata: Schema | None
    own_id: bool

    @property
    def value(self) -> Value:
        """What the data of an event holds."""
        if self.metadata is None:
            return self.content
        return Value(_closed(content=self.content.schema, metadata=self.metadata), text=False, other=True)


def _closed(**properties: Schema) -> Schema:
    return record(**properties) | {"additionalProperties": False}


class Payloads:
    """What one endpoint sends.

    Args:
        operation: The operationId, which names the schemas.
        endpoint: The endpoint.
        sent: Its emissions.
        shapes: Which of its events carry metadata.
        marked: Whether each good end is marked by the author's `done`.
        components: Takes the schemas of contents.
        definitions: Takes the schemas of authors that have references.
    """

    def __init__(
        self,
        operation: str,
        endpoint: Endpoint,
        sent: Sent,
        shapes: MetadataEvents,
        components: Components,
        definitions: Definitions,
        *,
        marked: bool,
    ) -> None:
        self._operation = operation
        self._streaming = endpoint.streaming
        self._promised = {each.name: each for each in endpoint.chunks}
        self._sent = sent
        self._shapes = shapes
        self._marked = marked
        self._components = components
        self._definitions = definitions
        self.resumable = endpoint.streaming.resume is not None
        self.gaps = self.resumable or endpoint.streaming.slow_client == "dropOldest"
        self.chunks = list(self._gather())

    def reference(self, name: str, schema: Schema) -> Schema:
        """Return the reference to a schema of this endpoint, or the schema itself where it is short."""
        if not schema.keys() & {"properties", "items", "anyOf", "oneOf"}:
            return schema
        return self._components.add("schemas", f"{self._operation}.{component_name(name)}", schema)

    def _gather(self) -> Iterator[Chunks]:
        names = dict.fromkeys(name for each in self._sent.chunks for name in sorted(each.events, key=str))
        for name in names:
            yield self._chunks(name, [each for each in self._sent.chunks if name in each.events])
        if others := [each for each in self._sent.chunks if each.others]:
            yield self._chunks(OTHERS, others)

    def _chunks(self, name: str | None, steps: list[Emission]) -> Chunks:
        promise = self._promised.get(name or UNNAMED)
        content = either(value_of(each.content) for each in steps if each.content is not None)
        if promise is not None:
            promised = declared_value(promise, self._definitions)
            known = all(each.content is not None and each.content.kinds is not None for each in steps)
            content = Value(promised.schema, content.text, content.other) if known else promised
        label = "other" if name == OTHERS else name or UNNAMED
        content = Value(self.reference(label, content.schema), content.text, content.other)
        metadata = None
        if self._shapes.every or self._shapes.has_metadata(name):
            metadata = one_of(_NULL if each.metadata is None else shape_schema(each.metadata) for each in steps)
        return Chunks(name, content, metadata, any(each.own_id for each in steps))

    # -- ends

    def _summary(self, metadata: Shape | None) -> Schema:
        """Return the schema of the figures at the end, together with the author's metadata."""
        summary = self._components.schema("StreamSummary")
        if metadata is None or metadata.is_null:
            return summary
        schema = shape_schema(metadata)
        if not metadata.is_only("object") or metadata.null or metadata.fields is None:
            if metadata.may_be(("object",)):
                return summary
            return {"allOf": [summary, {"properties": {"metadata": schema}}]}
        figures = SCHEMAS["StreamSummary"]
        merged = {**figures["properties"], **schema.get("properties", {})}
        required = [*figures["required"], *schema.get("required", ())]
        return {"type": "object", "properties": merged, "required": list(dict.fromkeys(required))}

    def _end(self, end: Emission) -> Value:
        if end.content is None:
            return Value(self._summary(end.metadata), text=False, other=True)
        content = value_of(end.content.sure)
        if end.metadata is None or end.metadata.is_null:
            found = content
        else:
            schema = _closed(content=content.schema, metadata=shape_schema(end.metadata))
            found = Value(schema, text=False, other=True)
        if not end.content.null:
            return found
        return either([found, Value(self._summary(end.metadata), text=False, other=True)])

    # -- formats

    def event(self) -> Schema:
        """Return the schema of a server-sent event: each name is tied to its data."""
        components = self._components
        own = self._own_events()
        data: dict[str, list[Schema]] = {}
        for each in self.chunks:
            data.setdefault(each.name or UNNAMED, []).append(each.value.data)
        others = data.get(OTHERS, [])  # which may have any name, also those that are known
        known = [name for name in dict.fromkeys((*data, *own)) if name != OTHERS]
        numbered = ["id"] if self._streaming.ids or self.resumable else []
        branches = []
        for name in (*known, *data.keys() & {OTHERS}):
            mine = [*data.get(name, ()), *(others if name != OTHERS else ())]
            if name in own and not mine and not own[name]:
                branches.append(components.schema(f"{name.capitalize()}Event"))
                continue
            if name in own:
                mine += own[name] or [json_text(components.schema(_OWN[name]))]
            required = numbered if self.resumable or name not in own else []
            optional = name == UNNAMED and any(each.name is None for each in self.chunks)
            branches.append(_branch(name, one_of(mine), known, required, optional=optional))
        return {"allOf": [components.schema("ServerSentEvent")], "oneOf": branches}

    def _own_events(self) -> dict[str, list[Schema]]:
        """Return the events of the stream itself, with the data that its author gives them; none for the usual data."""
        found: dict[str, list[Schema]] = {}
        if self._sent.ends:
            found["done"] = [self._end(each).data for each in self._sent.ends]
            if self._streaming.done and not self._marked:
                found["done"].append(json_text(self._components.schema("StreamSummary")))
        elif self._streaming.done:
            found["done"] = []
        found["error"] = []
        if self.gaps:
            found["gap"] = []
        return found

    def line(self, *, document: bool = False) -> Schema:
        """Return the schema of a line of NDJSON, or of a chunk in a JSON document."""
        resumable = self.resumable and not document
        lines = [self._line(each, resumable=resumable) for each in self.chunks]
        if document:
            return one_of(lines)
        if self._sent.ends:
            lines.append(_own_line("done", one_of(self._end(each).schema for each in self._sent.ends)))
        lines.append(_own_line("error", self._components.schema("StreamError")))
        if self.gaps:
            lines.append(_own_line("gap", self._components.schema("StreamGap")))
        return one_of(lines)

    def _line(self, chunks: Chunks, *, resumable: bool) -> Schema:
        content, metadata = chunks.content.schema, chunks.metadata
        properties: Schema = {}
        if chunks.name is not None:
            properties["event"] = _TEXT if chunks.name == OTHERS else {"const": chunks.name}
        if resumable or chunks.own_id:
            properties["id"] = _TEXT
        if not properties and metadata is None:
            return content
        properties["content"] = content
        if metadata is not None:
            properties["metadata"] = metadata
        schema = _closed(**properties)
        if chunks.own_id and not resumable:
            schema["required"] = [name for name in properties if name != "id"]
            if chunks.name is None and metadata is None:
                return one_of([content, schema])
        return schema

    def document(self) -> Schema:
        """Return the schema of the whole answer as one JSON document."""
        ends = self._sent.ends
        figures = [self._summary(each.metadata) for each in ends]
        if not (ends and self._marked):
            figures.append(self._components.schema("StreamSummary"))
        schema = record(chunks={"type": "array", "items": self.line(document=True)}, metadata=one_of(figures))
        marks = [value_of(each.content.sure).schema for each in ends if each.content is not None]
        if marks:
            schema["properties"]["done"] = one_of(marks)
        return schema


_OWN: Final = {"done": "StreamSummary", "error": "StreamError", "gap": "StreamGap"}


def _own_line(name: str, schema: Schema) -> Schema:
    """Return the schema of a line of the stream itself; those of resumable streams have an id."""
    return {
        "type": "object",
        "properties": {name: schema, "id": _TEXT},
        "required": [name],
        "additionalProperties": False,
    }


def _branch(name: str, data: Schema, known: Sequence[str], required: list[str], *, optional: bool) -> Schema:
    """Return the schema of the events of a name, which their data is tied to.

    ``optional``: they need not have it. Clients call those without a name `message`.
    """
    event: Schema = {"type": "string", "not": {"enum": known}} if name == OTHERS else {"const": name}
    named = [] if optional else ["event"]
    return {"properties": {"event": event, "data": data}, "required": [*named, "data", *required]}


def component_name(text: str) -> str:
    """Return a text as it can be in the name of a component."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)
