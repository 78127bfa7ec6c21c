"""The JSON Schema of declared inputs: what a model is told of a function it may call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from streamstack.language.definition import Input
from streamstack.language.schemas.types import Schema
from streamstack.language.values import MISSING

_TYPES: Final[dict[str, Schema]] = {
    "text": {"type": "string"},
    "integer": {"type": "integer"},
    "decimal": {"type": "number"},
    "boolean": {"type": "boolean"},
    "timestamp": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "uuid": {"type": "string", "format": "uuid"},
    "email": {"type": "string", "format": "email"},
    "url": {"type": "string", "format": "uri"},
    "object": {"type": "object"},
    "list": {"type": "array"},
    "enum": {},
    "json": {},
}
#: Inputs that are no JSON.
RAW: Final = ("file", "stream")


def inputs_schema(inputs: Iterable[Input]) -> Schema:
    """Return the schema of an object with these inputs.

    Raises ValueError for one that JSON can't hold, a file or a stream.
    """
    listed = tuple(inputs)
    schema: Schema = {
        "type": "object",
        "properties": {each.name: input_schema(each) for each in listed},
        "additionalProperties": False,
    }
    required = [each.name for each in listed if each.required]
    if required:
        schema["required"] = required
    return schema


def input_schema(declared: Input) -> Schema:
    """Return the schema of one input. Raises ValueError as `inputs_schema` does."""
    if declared.type in RAW:
        raise ValueError(f"the input `{declared.name}` is a {declared.type}")
    schema: Schema = {"description": declared.description} if declared.description else {}
    schema |= _TYPES[declared.type]
    if declared.properties is not None:
        schema |= inputs_schema(declared.properties)
    if declared.items is not None:
        schema["items"] = input_schema(declared.items)
    limits: dict[str, Any] = {
        "minLength": declared.min_length,
        "maxLength": declared.max_length,
        "pattern": declared.pattern,
        "minimum": declared.minimum,
        "maximum": declared.maximum,
        "minItems": declared.min_items,
        "maxItems": declared.max_items,
    }
    schema |= {name: limit for name, limit in limits.items() if limit is not None}
    if declared.type == "enum":
        schema["enum"] = list(declared.values)
        if all(isinstance(each, str) for each in declared.values):
            schema["type"] = "string"
    if declared.default is not MISSING and declared.default is not None:
        schema["default"] = declared.default
    return _or_null(schema) if declared.nullable else schema


def _or_null(schema: Schema) -> Schema:
    if "type" in schema:
        schema["type"] = [schema["type"], "null"]
    if "enum" in schema:
        schema["enum"] = [*schema["enum"], None]
    return schema
