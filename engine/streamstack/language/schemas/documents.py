"""The JSON Schemas that editors complete and check with: made from the functions' declarations.

Draft-07, which yaml-language-server reads. All functions stand as keys of one object; that a step has exactly one is
`validate`'s to say, since a choice of alternatives drowns the real message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamstack.language.declare import Function, Registry
from streamstack.language.findings import FINDINGS
from streamstack.language.inputs.types import (
    CONSTRAINTS,
    FILTERS,
    LOCATIONS,
    ON_INVALID,
    STREAM_FORMATS,
    TYPES,
)
from streamstack.language.loading import modifiers
from streamstack.language.loading.keys import KEYS, RESPONSE_TYPES, UNKNOWN_INPUTS
from streamstack.language.loading.limits import BY, LIMIT_KEYS, MOST
from streamstack.language.loading.paths import METHODS
from streamstack.language.names import DEFINITION
from streamstack.language.rates import ALGORITHMS
from streamstack.language.reference import markdown_of
from streamstack.language.schemas.settings import (
    settings_schema,
    streaming_schema,
)
from streamstack.language.schemas.tests import tests_schema
from streamstack.language.schemas.types import (
    BINDING,
    RATE,
    SOUND_KEYS,
    VALUE,
    Schema,
    below_function,
    documented,
    parameter_schema,
)

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_TEXT: Final[Schema] = {"type": ["string", "number", "boolean", "null"]}
_FLAG: Final[Schema] = {"type": ["boolean", "null"], "default": False}
_TEXTS: Final[Schema] = {"type": ["array", "null"], "items": {"type": ["string", "number"]}}
_COUNT: Final[Schema] = {"type": ["integer", "null"], "minimum": 0}
_STACK: Final[Schema] = {"type": "array", "items": {"$ref": "#/definitions/step"}}

#: What makes each kind of document whole.
_REQUIRED: Final = {
    "endpoint": ["method", "path", "functionStack"],
    "function": ["kind", "name", "functionStack"],
    "task": ["kind", "name", "schedule", "functionStack"],
}

_ABOUT: Final = {
    "type": "What it must be.",
    "required": "Whether a caller must send it.",
    "default": "What it is when nobody sends it.",
    "nullable": "Whether null may be sent.",
    "description": "What it is for.",
    "in": "Where it is sent: by rule in the path, the query or the body.",
    "aliases": "Other names it may be sent under.",
    "sensitive": "true: never written to a log.",
    "minLength": "The fewest characters.",
    "maxLength": "The most characters.",
    "pattern": "A regular expression, in RE2's syntax, that is found in it.",
    "filters": "What is done with the text first.",
    "minimum": "The least number.",
    "maximum": "The greatest number.",
    "values": "The values allowed.",
    "properties": "What the object holds, by name.",
    "items": "What each item is.",
    "minItems": "The fewest items.",
    "maxItems": "The most items.",
    "maxSize": "The largest size.",
    "contentTypes": "The content types allowed.",
    "decode": "What the items of the stream are; without it, what the Content-Type says.",
    "onInvalid": "What becomes of an item that can't be decoded: fail (the default), skip or give.",
}


def make_schemas(registry: Registry) -> dict[str, Schema]:
    """Return every schema by the name of its file."""
    schemas = {f"{kind}.schema.json": _kind_schema(kind, registry) for kind in KEYS}
    schemas["streamstack.schema.json"] = _definition_schema(registry)
    schemas["settings.schema.json"] = settings_schema()
    schemas["test.schema.json"] = tests_schema()
    return schemas


def _kind_schema(kind: str, registry: Registry) -> Schema:
    """Return the schema of documents of one kind."""
    return {
        "$schema": _DRAFT,
        "title": f"streamstack {kind}",
        **_document(kind),
        "definitions": _definitions(registry),
    }


def _definition_schema(registry: Registry) -> Schema:
    """Return the schema of any definition: its `kind` decides."""
    return {
        "$schema": _DRAFT,
        "title": "streamstack definition",
        "type": "object",
        "if": _has_kind("function"),
        "then": _document("function"),
        "else": {
            "if": _has_kind("task"),
            "then": _document("task"),
            "else": _document("endpoint"),
        },
        "definitions": _definitions(registry),
    }


def _has_kind(kind: str) -> Schema:
    return {"required": ["kind"], "properties": {"kind": {"const": kind}}}


def _document(kind: str) -> Schema:
    keys = {
        key: documented(rules, KEYS[kind][key])
        for key, rules in _rules(kind).items()
        if key in KEYS[kind]
    }
    return {
        "type": "object",
        "propertyNames": SOUND_KEYS,
        "properties": keys,
        "required": _REQUIRED[kind],
        "additionalProperties": False,
    }


def _rules(kind: str) -> Mapping[str, Schema]:
    """Return what each key of a document may hold."""
    return {
        "kind": {"enum": [kind, None]} if kind == "endpoint" else {"const": kind},
        "method": {"enum": list(METHODS)},
        "path": {"type": "string", "pattern": r"^/([^/?#<>]+(/[^/?#<>]+)*)?$"},
        "name": {"type": "string", "pattern": f"^{DEFINITION.pattern}$"},
        "summary": _TEXT,
        "description": _TEXT,
        "tags": _TEXTS,
        "responseType": {"enum": [*RESPONSE_TYPES, None], "default": RESPONSE_TYPES[0]},
        "streaming": streaming_schema(),
        "authentication": _authentication(),
        "rateLimit": _rate_limit(),
        "cache": {},
        "headers": {
            "type": ["object", "null"],
            "propertyNames": {"pattern": r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"},
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        },
        "inputParameters": _inputs(),
        "unknownInputs": {"enum": [*UNKNOWN_INPUTS, None], "default": UNKNOWN_INPUTS[0]},
        "functionStack": _STACK,
        "response": {"allOf": [{"$ref": "#/definitions/value"}]},
        "schedule": {
            "type": "object",
            "properties": {
                "every": documented({"type": ["string", "number"]}, "The time between two runs."),
                "cron": documented({"type": "string"}, "When it runs, as cron writes it."),
                "timezone": documented({"type": "string"}, "Where `cron` reads the clock."),
            },
            "additionalProperties": False,
        },
        "disabled": _FLAG,
        "allow": {"type": ["array", "null"], "items": {"enum": list(FINDINGS)}},
    }


def _authentication() -> Schema:
    scopes: Schema = {"type": ["array", "string", "null"], "items": {"type": "string"}}
    ways: Schema = {
        "type": ["object", "string"],
        "propertyNames": SOUND_KEYS,
        "additionalProperties": {
            "type": ["object", "null"],
            "properties": {
                "scopes": documented(scopes, "What the caller must have been given: all of them."),
                "optional": documented(
                    _FLAG, "Whether who sends nothing may call too; `auth` is then null."
                ),
            },
            "additionalProperties": False,
        },
    }
    return {**ways, "type": ["object", "array", "string", "null"], "items": ways}


def _rate_limit() -> Schema:
    rate = f"{RATE}|{BINDING}"
    rules: Schema = {
        "limit": {"type": ["string", "null"], "pattern": rate},
        "by": {"anyOf": [{"enum": [*BY, None]}, {"type": "string", "pattern": "<<"}]},
        "algorithm": {"enum": [*ALGORITHMS, None], "default": ALGORITHMS[0]},
        "concurrent": {"type": ["integer", "string", "null"], "minimum": 1, "pattern": "<<"},
    }
    one: Schema = {
        "type": ["object", "string"],
        "pattern": rate,
        "propertyNames": SOUND_KEYS,
        "properties": {key: documented(rule, LIMIT_KEYS[key]) for key, rule in rules.items()},
        "additionalProperties": False,
    }
    several: Schema = {"minItems": 1, "maxItems": MOST, "items": one}
    return {**one, **several, "type": ["object", "array", "string", "null"]}


def _inputs() -> Schema:
    return {
        "type": ["object", "null"],
        "propertyNames": SOUND_KEYS,
        "additionalProperties": {"$ref": "#/definitions/input"},
    }


def _definitions(registry: Registry) -> Schema:
    return {
        "value": VALUE,
        "input": _input(),
        "step": _step(registry),
    }


def _step(registry: Registry) -> Schema:
    alone = [name for name, function in registry.items() if not _needs_parameters(function)]
    keys: Schema = {each.name: parameter_schema(each) for each in modifiers.MODIFIERS}
    for name, function in registry.items():
        keys[name] = documented(
            below_function(function.parameters), function.summary, markdown_of(function)
        )
    return {
        "description": "A step: one function, and what may stand beside it.",
        "type": ["object", "string"],
        "pattern": f"^({'|'.join(name.replace('.', '[.]') for name in sorted(alone))})$",
        "propertyNames": SOUND_KEYS,
        "properties": keys,
        "additionalProperties": False,
    }


def _needs_parameters(function: Function) -> bool:
    return any(parameter.required for parameter in function.parameters)


def _input() -> Schema:
    """Return the schema of a declared input."""
    rules: Schema = {
        "type": {"enum": [*TYPES, None]},
        "required": _FLAG,
        "default": {},
        "nullable": _FLAG,
        "description": _TEXT,
        "in": {"enum": [*LOCATIONS, None]},
        "aliases": _TEXTS,
        "sensitive": _FLAG,
        "minLength": _COUNT,
        "maxLength": _COUNT,
        "pattern": {"type": ["string", "null"]},
        "filters": {"type": ["array", "null"], "items": {"enum": list(FILTERS)}},
        "minimum": {"type": ["number", "null"]},
        "maximum": {"type": ["number", "null"]},
        "values": {"type": ["array", "null"], "minItems": 1, "uniqueItems": True},
        "properties": _inputs(),
        "items": {"allOf": [{"$ref": "#/definitions/input"}]},
        "minItems": _COUNT,
        "maxItems": _COUNT,
        "maxSize": {"type": ["integer", "string", "null"]},
        "contentTypes": _TEXTS,
        "decode": {"enum": [*STREAM_FORMATS, None]},
        "onInvalid": {"enum": [*ON_INVALID, None]},
    }
    return {
        "description": "A declaration; a text alone is the type, or else the description.",
        "type": ["object", "string", "null"],
        "propertyNames": SOUND_KEYS,
        "properties": {key: documented(rule, _about(key)) for key, rule in rules.items()},
        "additionalProperties": False,
    }


def _about(key: str) -> str:
    types = CONSTRAINTS.get(key)
    return f"{_ABOUT[key]} For {' and '.join(types)}." if types else _ABOUT[key]


def descriptions(schema: Any) -> Iterator[str]:
    """Yield every description in a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("description"), str):
            yield schema["description"]
        for each in schema.values():
            yield from descriptions(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from descriptions(each)
