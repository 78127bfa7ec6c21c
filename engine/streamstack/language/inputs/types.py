"""The types of inputs, and the keys their declarations may have."""

from __future__ import annotations

from typing import Final

#: The types of inputs, with what the reference and the editor say of them.
TYPES: Final = {
    "text": "Text.",
    "integer": "A whole number.",
    "decimal": "A number that keeps its digits.",
    "boolean": "true or false.",
    "timestamp": "A moment, as RFC 3339 writes it: 2026-01-31T12:00:00Z.",
    "date": "A day: 2026-01-31.",
    "uuid": "A UUID.",
    "email": "An e-mail address.",
    "url": "An absolute URL.",
    "object": "A mapping; `properties` declares what it holds.",
    "list": "A list; `items` declares what it holds.",
    "enum": "One of `values`.",
    "json": "Any JSON value.",
    "file": "An uploaded file.",
    "stream": "The request body, read as it arrives.",
}

LOCATIONS: Final = ("path", "query", "body", "header", "cookie", "wholeBody")
FILTERS: Final = ("trim", "lower", "upper")
#: What the items of a stream may be, and what becomes of one that can't be decoded.
STREAM_FORMATS: Final = ("ndjson", "sse", "csv", "json", "lines", "text", "bytes")
ON_INVALID: Final = ("fail", "skip", "give")

#: The keys that every declaration may have.
KEYS: Final = (
    "type",
    "required",
    "default",
    "nullable",
    "description",
    "in",
    "aliases",
    "sensitive",
)

#: The types each constraint belongs to.
CONSTRAINTS: Final = {
    "minLength": ("text",),
    "maxLength": ("text",),
    "pattern": ("text",),
    "filters": ("text",),
    "minimum": ("integer", "decimal"),
    "maximum": ("integer", "decimal"),
    "values": ("enum",),
    "properties": ("object",),
    "items": ("list",),
    "minItems": ("list",),
    "maxItems": ("list",),
    "maxSize": ("file", "stream"),
    "contentTypes": ("file",),
    "decode": ("stream",),
    "onInvalid": ("stream",),
}

#: What other languages call our types.
COMMON: Final = {
    "string": "text",
    "str": "text",
    "int": "integer",
    "float": "decimal",
    "double": "decimal",
    "number": "decimal",
    "bool": "boolean",
    "datetime": "timestamp",
    "array": "list",
    "dict": "object",
    "map": "object",
    "any": "json",
}


#: What other languages call our keys: the one that belongs to the type is meant.
COMMON_KEYS: Final = {
    "min": ("minimum", "minLength", "minItems"),
    "max": ("maximum", "maxLength", "maxItems"),
    "optional": ("required",),
    "regex": ("pattern",),
    "regexp": ("pattern",),
    "enum": ("values",),
    "options": ("values",),
    "choices": ("values",),
}


def constraints_of(type_: str) -> tuple[str, ...]:
    """Return the constraints that belong to a type."""
    return tuple(name for name, types in CONSTRAINTS.items() if type_ in types)
