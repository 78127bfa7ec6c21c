"""The schema of files of tests."""

from __future__ import annotations

from typing import Final

from streamstack.language.loading.paths import METHODS
from streamstack.language.schemas.settings import duration
from streamstack.language.schemas.types import SOUND_KEYS, VALUE, Schema, documented

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_VALUE: Final[Schema] = {"allOf": [{"$ref": "#/definitions/value"}]}
_TEXT: Final[Schema] = {"type": ["string", "null"]}
_COUNT: Final[Schema] = {"type": ["integer", "null"], "minimum": 0}
_STATUS: Final[Schema] = {"type": ["integer", "null"], "minimum": 100, "maximum": 599}
_NAMED: Final[Schema] = {
    "type": ["object", "null"],
    "propertyNames": SOUND_KEYS,
    "additionalProperties": {"$ref": "#/definitions/value"},
}


def tests_schema() -> Schema:
    """Return the schema of `*.test.yaml`."""
    return {
        "$schema": _DRAFT,
        "title": "streamstack tests",
        "description": "Tests of definitions.",
        **_mapping({"tests": (_list(_case()), "The tests, run one after the other.")}, "tests"),
        "definitions": {"value": VALUE},
    }


def _mapping(keys: dict[str, tuple[Schema, str]], *required: str) -> Schema:
    schema: Schema = {
        "type": "object" if required else ["object", "null"],
        "propertyNames": SOUND_KEYS,
        "properties": {key: documented(rule, about) for key, (rule, about) in keys.items()},
        "additionalProperties": False,
    }
    return schema | {"required": list(required)} if required else schema


def _list(item: Schema) -> Schema:
    return {"type": ["array", "null"], "items": item}


def _case() -> Schema:
    return _mapping(
        {
            "name": ({"type": "string"}, "What the test shows."),
            "request": (_request(), "What is sent."),
            "env": (_NAMED, "Environment variables."),
            "upstreams": (_list(_upstream()), "Servers that stand for others."),
            "client": (_client(), "A reader who leaves, or is slow."),
            "expect": (_expect(), "What must come back."),
        },
        "name",
        "request",
        "expect",
    )


def _request() -> Schema:
    return _mapping(
        {
            "method": ({"enum": list(METHODS)}, "The method; GET where it is left out."),
            "path": ({"type": "string", "pattern": "^/"}, "The path."),
            "query": (_NAMED, "Query parameters, by name."),
            "headers": (_NAMED, "Headers, by name."),
            "body": (_VALUE, "The body: JSON, or a text as it is."),
            "auth": (_NAMED, "The claims of the caller."),
        },
        "path",
    )


def _upstream() -> Schema:
    match = _mapping(
        {
            "method": ({"enum": [*METHODS, None]}, "The method."),
            "url": (_TEXT, "The address it stands for."),
            "body": (_VALUE, "What the body must hold."),
        }
    )
    cut = _mapping(
        {"events": (_COUNT, "After so many events."), "bytes": (_COUNT, "After so many bytes.")}
    )
    respond = _mapping(
        {
            "status": (_STATUS, "The status."),
            "headers": (_NAMED, "Headers, by name."),
            "body": (_VALUE, "The body."),
            "file": (_TEXT, "A file with the body, from the folder of the test."),
            "delay": (duration(), "The wait before each chunk."),
            "cutAfter": (cut, "Where the connection is lost."),
        }
    )
    return _mapping(
        {"match": (match, "Which calls it answers."), "respond": (respond, "What it answers.")},
        "match",
    )


def _client() -> Schema:
    return _mapping(
        {
            "leaveAfter": (_COUNT, "How many chunks it reads before it leaves."),
            "readDelay": (duration(), "The wait before each read."),
        }
    )


def _expect() -> Schema:
    call = _mapping(
        {
            "method": (_TEXT, "The method."),
            "url": (_TEXT, "The address."),
            "count": (_COUNT, "How often."),
            "body": (_VALUE, "What the body must hold."),
        }
    )
    return _mapping(
        {
            "status": (_STATUS, "The status."),
            "headers": (_NAMED, "Headers, by name."),
            "text": (_TEXT, "The content of all chunks, joined."),
            "body": (_VALUE, "The answer of a json endpoint."),
            "chunks": (_list(_VALUE), "What the chunks hold, in turn."),
            "streamed": (
                {"type": ["boolean", "null"]},
                "The first chunk left before the upstream had ended.",
            ),
            "error": (_VALUE, "The error that ended it."),
            "calls": (_list(call), "The calls that were made."),
        }
    )
