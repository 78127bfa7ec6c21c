"""From the types of parameters to JSON Schema (draft-07), with bindings wherever one may stand."""

from __future__ import annotations

from typing import Any, Final

from streamstack.language.loading.forms import main_takes_mapping
from streamstack.language.names import RESERVED, VARIABLE
from streamstack.language.parameters import (
    Bound,
    Condition,
    Constant,
    Group,
    Kind,
    ListOf,
    Named,
    OneOf,
    Parameter,
    ParameterType,
    StackOf,
    Variable,
    shown_default,
)

Schema = dict[str, Any]

#: A text that holds a binding or a template.
BINDING: Final = "<<|<%"
DURATION: Final = r"^\s*[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)?\s*$"
SIZE: Final = r"^\s*[0-9]+(\.[0-9]+)? ?([KkMmGgTt]?[Bb])?\s*$"
#: Rates as the engine reads them.
RATE: Final = (
    r"^\s*[0-9]{1,12} ?(/|per) ?([0-9]{1,6}(\.[0-9]{1,3})? ?)?"
    r"([Ss]econds?|[Mm]inutes?|[Hh]ours?|[Dd]ays?|ms|s|m|h|d)\s*$"
)

#: Refuses keys that YAML made of an unquoted binding.
SOUND_KEYS: Final[Schema] = {"not": {"pattern": "<<|>>"}}

_SCALARS: Final = ("boolean", "number", "string", "null")
_ALL: Final = ("array", *_SCALARS, "object")

#: JSON Schema's types of each kind of constant.
_TYPES: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.TEXT: ("string",),
    Kind.URL: ("string",),
    Kind.SQL: ("string",),
    Kind.INTEGER: ("integer",),
    Kind.NUMBER: ("number",),
    Kind.BOOLEAN: ("boolean",),
    Kind.LIST: ("array",),
    Kind.ITEMS: ("array",),
    Kind.OBJECT: ("object",),
    Kind.HEADERS: ("object",),
    Kind.DURATION: ("number", "string"),
    Kind.SIZE: ("integer", "string"),
    Kind.EVERY: ("integer", "string"),
    Kind.RATE: ("string",),
    Kind.KEY: ("array", "number", "string"),
    Kind.STREAM: (),
}

#: The definitions that every schema of a definition has: any value, and its parts.
VALUE: Final[Schema] = {
    "description": "Any value, with or without bindings.",
    "propertyNames": SOUND_KEYS,
    "additionalProperties": {"$ref": "#/definitions/value"},
    "items": {"$ref": "#/definitions/value"},
}


def type_schema(wanted: ParameterType) -> Schema:
    """Return the schema of what stands to the right of a parameter's colon."""
    match wanted:
        case Bound():
            return _bound(wanted)
        case Condition():
            return {"type": ["boolean", "string", "null"], "pattern": "<<"}
        case Constant():
            return _constant(wanted)
        case Variable():
            return {
                "type": ["string", "null"],
                "pattern": f"^{VARIABLE.pattern}$",
                "not": {"enum": sorted(RESERVED - {"error"})},
            }
        case StackOf():
            return {"type": ["array", "null"], "items": {"$ref": "#/definitions/step"}}
        case Group():
            return parameters_schema(wanted.parameters)
        case ListOf():
            return {"type": ["array", "null"], "items": type_schema(wanted.item)}
        case Named():
            return {
                "type": ["object", "null"],
                "propertyNames": {"pattern": f"^{VARIABLE.pattern}$"}
                if wanted.keys_are_variables
                else SOUND_KEYS,
                "additionalProperties": type_schema(wanted.item),
            }
        case OneOf():
            return {"anyOf": [type_schema(form) for form in wanted.forms]}


def parameters_schema(parameters: tuple[Parameter, ...]) -> Schema:
    """Return the schema of a mapping of parameters."""
    schema: Schema = {
        "type": ["object", "null"],
        "propertyNames": SOUND_KEYS,
        "properties": {parameter.name: parameter_schema(parameter) for parameter in parameters},
        "additionalProperties": False,
    }
    required = [parameter.name for parameter in parameters if parameter.required]
    if required:
        schema["required"] = required
        schema["type"] = "object"
    return schema


def parameter_schema(parameter: Parameter) -> Schema:
    """Return the schema of one parameter, with its documentation and default."""
    schema = documented(type_schema(parameter.type), parameter.description)
    default = shown_default(parameter)
    if isinstance(default, (bool, int, float, str)):
        schema["default"] = default
    return schema


def below_function(parameters: tuple[Parameter, ...]) -> Schema:
    """Return the schema of what stands below a function: its parameters, or its main one's value.

    One flat schema, since a choice of alternatives would hide what is really wrong: the keywords for mappings hold for
    mappings only, those for texts and numbers for these only.
    """
    if not parameters:
        return {"type": "null"}
    main = next((parameter for parameter in parameters if parameter.main), None)
    if main is not None and main_takes_mapping(parameters):
        return type_schema(main.type)
    schema = parameters_schema(parameters)
    alone = main is not None and not any(each.required and not each.main for each in parameters)
    if main is not None and alone:
        value = type_schema(main.type)
        if "anyOf" in value:
            schema["anyOf"] = [{"type": "object"}, *value.pop("anyOf")]
        types = value.pop("type", list(_ALL))
        types = [types] if isinstance(types, str) else types
        value.pop("allOf", None)
        schema["type"] = sorted({"object", *types} - (set() if not main.required else {"null"}))
        for keyword in ("pattern", "minimum", "maximum", "items"):
            if keyword in value:
                schema[keyword] = value[keyword]
        if "array" in types:
            schema.setdefault("items", {"$ref": "#/definitions/value"})
    return schema


def documented(schema: Schema, description: str, markdown: str = "") -> Schema:
    """Return a schema with its documentation before its rules."""
    described: Schema = {"description": description}
    if markdown:
        described["markdownDescription"] = markdown
    return described | {key: each for key, each in schema.items() if key not in described}


def _bound(wanted: Bound) -> Schema:
    if wanted.kind in (Kind.ANY, Kind.ANY_OR_STREAM):
        return {"allOf": [{"$ref": "#/definitions/value"}]}
    types = {*_TYPES[wanted.kind], "string", "null"}
    if wanted.kind is Kind.KEY:
        return {"type": sorted(types), "items": {"$ref": "#/definitions/value"}}
    if wanted.kind in (Kind.TEXT, Kind.URL):
        if not wanted.choices:
            return {"type": ["string", "null"]}
        return {
            "anyOf": [{"enum": [*wanted.choices, None]}, {"type": "string", "pattern": BINDING}]
        }
    if wanted.kind is Kind.SQL:
        return {"type": "string"}
    schema: Schema = {"type": sorted(types), "pattern": BINDING}
    if wanted.kind is Kind.DURATION:
        schema["pattern"] = f"{DURATION}|{BINDING}"
    elif wanted.kind is Kind.SIZE:
        schema["pattern"] = f"{SIZE}|{BINDING}"
    elif wanted.kind is Kind.EVERY:
        schema["pattern"] = f"{DURATION}|{BINDING}"
    elif wanted.kind is Kind.RATE:
        schema["pattern"] = f"{RATE}|{BINDING}"
    elif wanted.kind in (Kind.LIST, Kind.ITEMS):
        schema["items"] = {"$ref": "#/definitions/value"}
    elif wanted.kind in (Kind.OBJECT, Kind.HEADERS):
        schema["propertyNames"] = SOUND_KEYS
        schema["additionalProperties"] = {"$ref": "#/definitions/value"}
    return schema | _bounds(wanted)


def _constant(wanted: Constant) -> Schema:
    if wanted.choices:
        return {"enum": [*wanted.choices, None]}
    if wanted.kind in (Kind.ANY, Kind.ANY_OR_STREAM):
        return {"allOf": [{"$ref": "#/definitions/value"}]}
    schema: Schema = {"type": sorted({*_TYPES[wanted.kind], "null"})}
    if wanted.kind is Kind.DURATION:
        schema["pattern"] = DURATION
    elif wanted.kind is Kind.SIZE:
        schema["pattern"] = SIZE
    return schema | _bounds(wanted)


def _bounds(wanted: Bound | Constant) -> Schema:
    """Return the bounds of a number; those of durations and sizes count in other units."""
    if wanted.kind in (Kind.DURATION, Kind.SIZE):
        return {"minimum": 0}
    if wanted.kind is Kind.EVERY:
        return {"minimum": 1}
    bounds = {"minimum": wanted.minimum, "maximum": wanted.maximum}
    return {key: bound for key, bound in bounds.items() if bound is not None}
