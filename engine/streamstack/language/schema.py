"""JSON Schemas for editors (draft-07, which yaml-language-server reads) and for models, made from the declarations.

All functions are keys of one object, since a choice between objects hides the real message. Only that a step has one
function is a choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

from streamstack.language import keys
from streamstack.language.definition import Function, Input, Registry
from streamstack.language.kinds import FACTS, Kind
from streamstack.language.names import RESERVED, VARIABLE
from streamstack.language.reference import markdown_of
from streamstack.language.settings import SETTINGS
from streamstack.language.shapes import ANY, Shape
from streamstack.language.test_files import TESTS
from streamstack.language.values import MISSING
from streamstack.spec import (
    Bound,
    Condition,
    Constant,
    Custom,
    Field,
    Group,
    ListOf,
    Named,
    OneOf,
    SchemaOf,
    StackOf,
    Tagged,
    Type,
    Variable,
    shown_default,
    takes_mapping,
)

Schema = dict[str, Any]
Mode = Literal["definition", "settings", "streaming"]

#: A text that holds a binding or a template.
BINDING: Final = "<<|<%"
#: Refuses keys that YAML made of an unquoted binding.
_SOUND_KEYS: Final[Schema] = {"not": {"pattern": "<<|>>"}}
_VALUE_REFERENCE: Final[Schema] = {"$ref": "#/definitions/value"}
#: Editors propose a value of the first type, and a list wherever `items` stands beside it.
_ANY_VALUE: Final[Schema] = {
    "type": ["string", "number", "boolean", "object", "array", "null"],
    "allOf": [_VALUE_REFERENCE],
}
_DRAFT: Final = "http://json-schema.org/draft-07/schema#"

#: What is inside any value. It has no description, which would hide that of the key.
_VALUE: Final[Schema] = {
    "propertyNames": _SOUND_KEYS,
    "additionalProperties": _VALUE_REFERENCE,
    "items": _VALUE_REFERENCE,
}

# ------------------------------------------------------------------------------------------- files


def make_schemas(registry: Registry) -> dict[str, Schema]:
    """Return every schema by the name of its file."""
    definitions = {"value": _VALUE, "input": _input(), "step": _step(registry)}
    schemas: dict[str, Schema] = {
        f"{kind}.schema.json": {
            "$schema": _DRAFT,
            "title": f"streamstack {kind}",
            **_fields(fields),
            "definitions": definitions,
        }
        for kind, fields in keys.DOCUMENTS.items()
    }
    # Tasks are refused by this version.
    function, group, endpoint = (_fields(keys.DOCUMENTS[kind]) for kind in ("function", "group", "endpoint"))
    schemas["streamstack.schema.json"] = {
        "$schema": _DRAFT,
        "title": "streamstack definition",
        "type": "object",
        "properties": {
            "kind": {
                "description": "Kind of the document. Default: `endpoint`.",
                "enum": ["endpoint", "function", "group", None],
            }
        },
        "if": _has_kind("function"),
        "then": function,
        "else": {"if": _has_kind("group"), "then": group, "else": endpoint},
        "definitions": definitions,
    }
    schemas["settings.schema.json"] = {
        "$schema": _DRAFT,
        "title": "streamstack.yaml",
        "description": "The settings of a project.",
        **_fields(SETTINGS, mode="settings"),
    }
    schemas["test.schema.json"] = {
        "$schema": _DRAFT,
        "title": "streamstack tests",
        "description": "Tests of definitions.",
        **_fields(TESTS),
        "definitions": {"value": _VALUE},
    }
    return schemas


def _has_kind(kind: str) -> Schema:
    return {"required": ["kind"], "properties": {"kind": {"const": kind}}}


def _step(registry: Registry) -> Schema:
    alone = [
        name for name, function in registry.items() if not any(parameter.required for parameter in function.parameters)
    ]
    chosen = [{"type": "object", "required": [name]} for name in registry]
    properties: Schema = {each.name: _field(each) for each in keys.MODIFIERS}
    for name, function in registry.items():
        properties[name] = _described(_below_function(function), function.summary, markdown_of(function))
    return {
        "description": "A step: one function and its modifiers.",
        "type": ["object", "string"],
        "pattern": f"^({'|'.join(name.replace('.', '[.]') for name in sorted(alone))})$",
        "propertyNames": _SOUND_KEYS,
        "properties": properties,
        "additionalProperties": False,
        # Two functions match two of these; a step without one is reported by the message for its unknown key.
        "oneOf": [*chosen, {"not": {"anyOf": chosen}}],
    }


def _input() -> Schema:
    """Return the schema of a declared input."""
    schema = _fields((*keys.INPUT_KEYS, *keys.INPUT_CONSTRAINTS))
    return _described(
        schema | {"type": ["object", "string", "null"]},
        "A declaration; a text alone is the type, or else the description.",
    )


# ------------------------------------------------------------------------------------------- types


def _fields(fields: tuple[Field, ...], *, mode: Mode = "definition") -> Schema:
    """Return the schema of a mapping with these keys.

    Settings, and the keys of `streaming` alike, may be written as environment variables hold them; in the file of the
    settings they may be bound to one.
    """
    schema: Schema = {
        "type": ["object", "null"],
        "propertyNames": _SOUND_KEYS,
        "properties": {each.name: _field(each, mode=mode) for each in fields},
        "additionalProperties": False,
    }
    required = [each.name for each in fields if each.required]
    if required and mode == "definition":
        schema["required"] = required
        schema["type"] = "object"
    return schema


def _field(field: Field, *, mode: Mode = "definition") -> Schema:
    """Return the schema of one field, with its documentation and default."""
    schema = _described(_type(field.type, mode=mode), field.description)
    if field.name in keys.REJECTABLE and "pattern" in schema:
        schema["pattern"] = f"^none$|{schema['pattern']}"
    default = shown_default(field)
    if isinstance(default, (bool, int, float, str)) and default != "":
        schema["default"] = default
    # Null counts as not given.
    return _without_null(schema) if field.required and mode == "definition" else schema


def _described(schema: Schema, description: str, markdown: str = "") -> Schema:
    """Return a schema with its documentation before its rules."""
    described: Schema = {"description": description}
    if markdown:
        described["markdownDescription"] = markdown
    return described | {key: each for key, each in schema.items() if key not in described}


def _without_null(schema: Schema) -> Schema:
    found = dict(schema)
    types = _types(schema)
    if "null" in types:
        types.remove("null")
        found["type"] = types[0] if len(types) == 1 else types
    if "enum" in schema:
        found["enum"] = [each for each in schema["enum"] if each is not None]
    return found


def _types(schema: Schema) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else list(types)


def _type(wanted: Type, *, mode: Mode = "definition") -> Schema:
    """Return the schema of what stands to the right of a colon."""
    match wanted:
        case Bound() if mode == "settings":
            return {}
        case Condition():
            return {"type": ["boolean", "string", "null"], "pattern": "<<"}
        case Bound() | Constant():
            return _value(wanted, mode=mode)
        case Variable():
            return {
                "type": ["string", "null"],
                "pattern": f"^{VARIABLE.pattern}$",
                "not": {"enum": sorted(RESERVED - {"error"})},
            }
        case StackOf():
            return {"type": ["array", "null"], "items": {"$ref": "#/definitions/step"}}
        case Group():
            return _group(wanted, mode=mode)
        case Tagged():
            return _tagged(wanted, mode=mode)
        case ListOf():
            return _list(wanted, mode=mode)
        case Named():
            return {
                "type": ["object", *(["string"] if wanted.bare else []), "null"],
                "propertyNames": {"pattern": f"^{VARIABLE.pattern}$"} if wanted.keys_are_variables else _SOUND_KEYS,
                "additionalProperties": _type(wanted.item, mode=mode),
            }
        case OneOf():
            return {"anyOf": [_type(form, mode=mode) for form in wanted.forms]}
        case SchemaOf():
            return {"type": ["object", "boolean", "null"], "propertyNames": _SOUND_KEYS}
        case Custom():
            return dict(wanted.schema)


def _list(wanted: ListOf, *, mode: Mode) -> Schema:
    item = _without_null(_type(wanted.item, mode=mode))
    schema: Schema = {"type": ["array", "null"]}
    if wanted.alone or mode != "definition":
        # What is said of one holds for one that stands alone, too: of a list it says nothing.
        schema = {key: each for key, each in item.items() if key not in ("enum", "anyOf")}
        schema["type"] = list(dict.fromkeys(["array", *(_types(item) or ["string"]), "null"]))
    bounds = {"minItems": wanted.least, "maxItems": wanted.most}
    return schema | {"items": item} | {key: each for key, each in bounds.items() if each is not None}


def _tagged(wanted: Tagged, *, mode: Mode) -> Schema:
    """Return the schema of all variants together: which keys go with which is `validate`'s."""
    tag = {"description": wanted.description, "enum": list(wanted.groups)}
    properties: Schema = {wanted.key: tag}
    for group in wanted.groups.values():
        properties |= _fields(group.parameters, mode=mode)["properties"]
    return _fields(()) | {"properties": properties}


def _group(wanted: Group, *, mode: Mode) -> Schema:
    if wanted.make is not None and mode == "definition" and any(each.attribute for each in wanted.parameters):
        mode = "streaming"
    schema = _fields(wanted.parameters, mode=mode)
    return _with_short(wanted, schema, mode=mode)


def _with_short(wanted: Group, schema: Schema, *, mode: Mode) -> Schema:
    """Return the schema of a mapping, or of the value that may stand for it."""
    if wanted.switch:
        schema["type"] = ["object", "boolean", "null"]
    if not wanted.short:
        return schema
    field = wanted.short_field
    value = _type(field.type, mode=mode)
    words = value.pop("enum", None) or value.pop("anyOf", [{}])[0].get("enum")
    if words:
        # An enumeration would hold for the mapping, too.
        words = [word for word in words if word is not None]
        pattern = f"^({'|'.join(words)})$" + (f"|{BINDING}" if mode == "settings" else "")
        value |= {"type": ["string", "null"], "pattern": pattern, "examples": words}
    types = _types(schema)
    short: Schema = {"type": [*(each for each in _types(value) if each not in types), *types]}
    value.pop("type")
    found = short | value | {key: each for key, each in schema.items() if key != "type"}
    if field.name in keys.REJECTABLE and "pattern" in schema:
        schema["pattern"] = f"^none$|{schema['pattern']}"
    default = shown_default(field)
    if isinstance(default, (bool, int, float, str)):
        found["default"] = default
    return found


def _below_function(function: Function) -> Schema:
    """Return the schema of what stands below a function: its parameters, or its main one's value.

    One flat schema, since a choice of alternatives would hide what is really wrong: the keywords for mappings hold for
    mappings only, those for texts and numbers for these only.
    """
    parameters, main = function.parameters, function.main
    if not parameters:
        return {"type": "null"}
    if main is not None and takes_mapping(parameters):
        return _type(main.type)
    schema = _fields(parameters)
    if main is None or any(each.required and not each.main for each in parameters):
        return schema
    value = _type(main.type)
    if "anyOf" in value:
        schema["anyOf"] = [{"type": "object"}, *value.pop("anyOf")]
    types = _types(value)
    schema["type"] = [each for each in dict.fromkeys(["object", *types]) if each != "null" or not main.required]
    schema |= {keyword: value[keyword] for keyword in ("pattern", "minimum", "maximum") if keyword in value}
    if "array" in types:
        schema["allOf"] = [{"items": value.get("items", _VALUE_REFERENCE)}]
    return schema


def _value(wanted: Bound | Constant, *, mode: Mode) -> Schema:
    """Return the schema of a value of a kind, with whatever else may be written in its place.

    A binding may stand for a Bound and in streamstack.yaml; text, as environment variables hold it, for a setting.
    """
    kind, facts = wanted.kind, FACTS[wanted.kind]
    if kind in (Kind.ANY, Kind.ANY_OR_STREAM):
        return dict(_ANY_VALUE)
    setting = isinstance(wanted, Constant) and mode != "definition"
    bindable = isinstance(wanted, Bound) or mode == "settings"
    if wanted.choices:
        words: Schema = {"enum": [*wanted.choices, None]}
        return {"anyOf": [words, {"type": "string", "pattern": BINDING}]} if bindable else words
    types, text = list(facts.types), "string" in facts.types
    pattern = (wanted.pattern if isinstance(wanted, Constant) else "") or facts.pattern
    if setting and kind is Kind.INTEGER:
        text, pattern = True, "^[0-9]+$"
    elif setting and kind is Kind.BOOLEAN and bindable:
        text, pattern = True, "^(true|false)$"
    elif setting and kind is Kind.PROSE:
        types.remove("boolean")
    if bindable and (pattern or not text):  # otherwise every text is valid
        text, pattern = True, f"{pattern}|{BINDING}".removeprefix("|")
    if text and "string" not in types:
        # A stream is a binding more often than a list.
        types.insert(0 if kind is Kind.ITEMS else len(types), "string")
    off = isinstance(wanted, Constant) and wanted.off
    schema: Schema = {"type": [*types, *(["boolean"] if off else []), "null"] if kind is not Kind.SQL else "string"}
    if off:
        schema["not"] = {"const": True}
    if pattern:
        schema["pattern"] = pattern
    if "array" in types:
        items: Schema = {"items": _VALUE_REFERENCE}
        schema |= {"allOf": [items]} if types[0] == "string" else items
    if "object" in types:
        schema |= {"propertyNames": _SOUND_KEYS, "additionalProperties": _VALUE_REFERENCE}
    bounds = {"minimum": wanted.minimum, "maximum": wanted.maximum} if facts.limits is None else facts.limits
    return schema | {key: bound for key, bound in bounds.items() if bound is not None}


# ------------------------------------------------------------------------- schemas of inputs for models


#: Keywords that hold data, and those that hold schemas by name.
DATA_KEYWORDS: Final = frozenset({"default", "enum", "const", "examples", "required"})
NAMED_KEYWORDS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_IDENTITIES: Final = frozenset({"$id", "$anchor", "$dynamicAnchor", "$dynamicRef"})


class Definitions:
    """Schemas of authors that have references: a document holds each in one place, and refers to it.

    Args:
        base: The reference to where the document holds them, with a slash at its end.
        found: The schemas by name.
        owner: The beginning of their names.
    """

    def __init__(self, base: str, found: dict[str, Schema], owner: str = "") -> None:
        self._base = base
        self._owner = owner
        self.found = found
        self.left_out: list[Input] = []

    def add(self, declared: Input, source: Schema) -> Schema:
        """Add the schema of an input and return the reference to it, or what allows any value if it can't be moved."""
        made = re.sub(r"[^A-Za-z0-9._-]", "_", self._owner + declared.name) or "value"
        name, number = made, 2
        while True:
            try:
                root = {key: each for key, each in source.items() if key not in ("$id", "$schema")}
                moved = _moved(root, str(source.get("$id", "")), self._base + name)
            except ValueError:
                self.left_out.append(declared)
                return {}
            if self.found.setdefault(name, moved) == moved:
                return {"$ref": self._base + name}
            name, number = f"{made}_{number}", number + 1


def _moved(schema: Any, identity: str, place: str) -> Any:
    """Return a schema whose references lead to its new place. Raises ValueError where that can't be."""
    if isinstance(schema, list):
        return [_moved(each, identity, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found: Schema = {}
    for key, each in schema.items():
        if key == "$ref":
            inner = each.removeprefix(identity) or "#"
            if inner != "#" and not inner.startswith("#/"):
                raise ValueError(f"the reference {each} is not a JSON pointer")
            found[key] = place + inner[1:]
        elif key in _IDENTITIES:
            raise ValueError(f"{key} has another meaning in another place")
        elif key in NAMED_KEYWORDS:
            found[key] = {name: _moved(one, identity, place) for name, one in each.items()}
        else:
            found[key] = each if key in DATA_KEYWORDS else _moved(each, identity, place)
    return found


def inputs_schema(inputs: Iterable[Input], definitions: Definitions | None = None) -> Schema:
    """Return the schema of an object with these inputs.

    Args:
        inputs: The inputs.
        definitions: Takes the authors' schemas that have references; without it, these allow any value.

    Raises ValueError for one that JSON can't hold, a file or a stream.
    """
    listed = tuple(inputs)
    schema: Schema = {
        "type": "object",
        "properties": {each.name: input_schema(each, definitions) for each in listed},
        "additionalProperties": False,
    }
    required = [each.name for each in listed if each.required]
    if required:
        schema["required"] = required
    return schema


def input_schema(declared: Input, definitions: Definitions | None = None) -> Schema:
    """Return the schema of one input. Raises ValueError as `inputs_schema` does."""
    if keys.TYPES[declared.type].raw:
        raise ValueError(f"the input `{declared.name}` is a {declared.type}")
    schema: Schema = {"description": declared.description} if declared.description else {}
    schema |= keys.TYPES[declared.type].schema
    if declared.schema is not None:
        source = declared.schema.source
        if declared.schema.refers:  # references are to the outermost schema, which it is not here
            source = definitions.add(declared, source) if definitions is not None else {}
        schema = source | schema
    if declared.properties is not None:
        schema |= inputs_schema(declared.properties, definitions)
    if declared.items is not None:
        schema["items"] = input_schema(declared.items, definitions)
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
    if "$ref" in schema:
        schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"type": "null"}]
    if "type" in schema:
        types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        schema["type"] = list(dict.fromkeys([*types, "null"]))
    if "enum" in schema:
        schema["enum"] = [*schema["enum"], None]
    return schema


# --------------------------------------------------------------------- schemas of what endpoints send

#: How the kinds of values are written in JSON.
_KINDS: Final[dict[str, Schema]] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "decimal": {"type": "number"},
    "text": {"type": "string"},
    "timestamp": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "list": {"type": "array"},
    "object": {"type": "object"},
}


def shape_schema(shape: Shape) -> Schema:
    """Return the schema of the JSON of a value, as far as its shape is known."""
    if shape.kinds is None:
        return {}
    found: list[Schema] = []
    for kind in sorted(shape.kinds & _KINDS.keys()):
        schema = dict(_KINDS[kind])
        if kind == "list" and shape.items is not None:
            schema["items"] = shape_schema(shape.items)
        elif kind == "object":
            schema |= _record_schema(shape)
        elif kind == "text":
            schema |= keys.TYPES[shape.title].schema if shape.title in keys.TYPES else {}
        found.append(schema)
    types = [each["type"] for each in found]
    if "number" in types and "integer" in types:
        found = [each for each in found if each["type"] != "integer"]
    strings = [each for each in found if each["type"] == "string"]
    if len(strings) > 1:
        found = [each for each in found if each["type"] != "string"] + [{"type": "string"}]
    if shape.null or shape.loose:
        found.append({"type": "null"})
    names = [each["type"] for each in found]
    merged = {key: value for each in found for key, value in each.items()}
    return merged | {"type": names[0] if len(names) == 1 else names} if names else {}


def _record_schema(shape: Shape) -> Schema:
    if shape.fields is None:
        return {}
    schema: Schema = {}
    if shape.fields:
        schema["properties"] = {name: shape_schema(each) for name, each in shape.fields.items()}
    if required := [name for name, each in shape.fields.items() if not (each.absent or each.loose)]:
        schema["required"] = required
    if shape.rest is None:
        schema["additionalProperties"] = False
    elif shape.rest.kinds is not None:
        schema["additionalProperties"] = shape_schema(shape.rest)
    return schema


def unknown_parts(shape: Shape, path: str = "") -> Iterator[str]:
    """Yield the parts of a value that have no known type, as paths within it."""
    if shape.kinds is None:
        yield path
        return
    if "list" in shape.kinds and shape.constant != []:
        yield from unknown_parts(shape.items or ANY, f"{path}[]")
    if "object" in shape.kinds:
        if not shape.fields and shape.constant is MISSING and (shape.rest is None or shape.rest.kinds is None):
            yield f"{path}.*".removeprefix(".")
        for name, each in (shape.fields or {}).items():
            yield from unknown_parts(each, f"{path}.{name}" if path else name)
