"""The components that all documents have in common, of which a document holds those that it refers to."""

from __future__ import annotations

from typing import Any, Final

from streamstack.formats.schemas import json_text, record
from streamstack.language.schema import Schema

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}

PROBLEM: Final = "application/problem+json"


def _optional(schema: Schema, **properties: Schema) -> Schema:
    return schema | {"properties": {**schema["properties"], **properties}}


def _event(name: str, component: str) -> Schema:
    data = json_text({"$ref": f"#/components/schemas/{component}"})
    return {"properties": {"event": {"const": name}, "data": data}, "required": ["event", "data"]}


SCHEMAS: Final[dict[str, Schema]] = {
    "Problem": {
        "description": "An error (RFC 9457).",
        **_optional(
            record(type=_TEXT, title=_TEXT, status={"type": "integer"}, detail=_TEXT, code=_TEXT),
            run=_TEXT | {"description": "Id of the run, as in `X-Run-Id`."},
            errors={
                "description": "Every problem of an invalid request.",
                "type": "array",
                "items": record(**{"in": _TEXT, "name": _TEXT, "message": _TEXT}),
            },
        ),
    },
    "StreamError": {"description": "An error after the first chunk.", **record(code=_TEXT, message=_TEXT, run=_TEXT)},
    "StreamSummary": {
        "description": "Figures of a stream that has ended.",
        **_optional(record(chunks=_COUNT, elapsedMs=_COUNT), dropped=_COUNT),
    },
    "StreamGap": {
        "description": "Chunks that the client has missed: how many, or from which number to which.",
        "anyOf": [record(dropped=_COUNT), record(**{"from": _COUNT, "to": _COUNT})],
    },
    "ServerSentEvent": {
        "description": "An event as an SSE client receives it.",
        "type": "object",
        "properties": {"data": _TEXT, "event": _TEXT, "id": _TEXT, "retry": _COUNT},
        "required": ["data"],
    },
    "ErrorEvent": _event("error", "StreamError"),
    "GapEvent": _event("gap", "StreamGap"),
    "DoneEvent": _event("done", "StreamSummary"),
    "StreamStatus": record(status={"const": "stopping"}),
}
HEADERS: Final[dict[str, Schema]] = {
    "X-Run-Id": {"description": "Id of the run.", "schema": _TEXT},
    "X-Stream-Id": {"description": "Id of the resumable stream.", "schema": _TEXT},
    "Retry-After": {"description": "Seconds after which the request may be repeated.", "schema": _COUNT},
    "WWW-Authenticate": {"description": "How a client authenticates.", "schema": _TEXT},
    "Age": {"description": "Seconds since the cached answer was made.", "schema": _COUNT},
    "Cache-Status": {"description": "What the cache of the server had (RFC 9211).", "schema": _TEXT},
    "ETag": {"description": "Identifies the content, for `If-None-Match`.", "schema": _TEXT},
    "RateLimit-Limit": {"description": "Requests in the time window.", "schema": _COUNT},
    "RateLimit-Remaining": {"description": "Requests left in the time window.", "schema": _COUNT},
    "RateLimit-Reset": {"description": "Seconds until the time window ends.", "schema": _COUNT},
}
RATE_HEADERS: Final = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
PARAMETERS: Final[dict[str, Schema]] = {
    "LastEventId": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "Id of the last chunk that the client has received: the stream is resumed after it.",
        "schema": _TEXT,
    },
    "LastEventIdInQuery": {
        "name": "lastEventId",
        "in": "query",
        "description": "The same as `Last-Event-ID`, for clients that can't set headers.",
        "schema": _TEXT,
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A request with the key of an earlier one attaches to the run of that one.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "pattern": "^[\\x21-\\x7e]([\\x20-\\x7e]*[\\x21-\\x7e])?$",
        },
    },
}


class Components:
    """The components that a document refers to."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Any]] = {}

    def add(self, section: str, name: str, value: Any) -> Schema:
        """Add a component and return the reference to it."""
        self._found.setdefault(section, {}).setdefault(name, value)
        return {"$ref": f"#/components/{section}/{name}"}

    def schema(self, name: str) -> Schema:
        """Return the reference to a schema that all documents have in common."""
        known = name in self._found.get("schemas", {})
        reference = self.add("schemas", name, SCHEMAS[name])
        if not known:
            self._add_inner(SCHEMAS[name])
        return reference

    def _add_inner(self, schema: Any) -> None:
        if isinstance(schema, dict):
            if isinstance(named := schema.get("$ref"), str):
                self.schema(named.rpartition("/")[2])
            for each in schema.values():
                self._add_inner(each)
        elif isinstance(schema, list):
            for each in schema:
                self._add_inner(each)

    def headers(self, *names: str) -> Schema:
        """Return references to response headers, by their names."""
        return {name: self.add("headers", name, HEADERS[name]) for name in names}

    def parameter(self, name: str) -> Schema:
        """Return the reference to a parameter that all documents have in common."""
        return self.add("parameters", name, PARAMETERS[name])

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """All components by their section, in alphabetical order."""
        return {name: dict(sorted(found.items())) for name, found in sorted(self._found.items())}
