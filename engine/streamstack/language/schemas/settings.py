"""The schemas of streamstack.yaml and of `streaming:`."""

from __future__ import annotations

from typing import Any, Final

from streamstack.language.schemas.types import (
    BINDING,
    DURATION,
    SIZE,
    SOUND_KEYS,
    Schema,
    documented,
)
from streamstack.language.settings import SETTINGS
from streamstack.language.streaming_settings import Streaming
from streamstack.spec import (
    Bound,
    Constant,
    Custom,
    Field,
    Group,
    Kind,
    ListOf,
    Named,
    Tagged,
    Type,
    fields_of,
    shown_default,
)

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"


def settings_schema() -> Schema:
    """Return the schema of streamstack.yaml."""
    return {
        "$schema": _DRAFT,
        "title": "streamstack.yaml",
        "description": "The settings of a project.",
        **_mapping(SETTINGS, bound=True),
    }


def streaming_schema() -> Schema:
    """Return the schema of `streaming:` on an endpoint, where no variable can stand."""
    return _mapping(fields_of(Streaming), bound=False)


def duration() -> Schema:
    """Return the schema of a duration."""
    return _constant(Constant(Kind.DURATION), bound=False)


def setting_schema(wanted: Type, *, bound: bool) -> Schema:
    """Return the schema of a setting; where it may be ``bound``, variables of the environment can stand in it."""
    match wanted:
        case Constant():
            return _constant(wanted, bound=bound)
        case Group():
            return _group(wanted, bound=bound)
        case Tagged():
            keys: Schema = {
                wanted.key: {"description": wanted.description, "enum": list(wanted.groups)}
            }
            for group in wanted.groups.values():
                keys |= _mapping(group.parameters, bound=bound)["properties"]
            return _mapping((), bound=bound) | {"properties": keys, "additionalProperties": False}
        case ListOf():
            item = setting_schema(wanted.item, bound=bound)
            types = item.get("type", "string")
            types = (
                [types] if isinstance(types, str) else [each for each in types if each != "null"]
            )
            if "type" in item:
                item = item | {"type": types[0] if len(types) == 1 else types}
            return {"type": ["array", *types, "null"], "items": item}
        case Named():
            return {
                "type": ["object", "null"],
                "propertyNames": SOUND_KEYS,
                "additionalProperties": setting_schema(wanted.item, bound=bound),
            }
        case Custom():
            return dict(wanted.schema)
        case Bound():
            return {}
    raise TypeError(f"{wanted} is no type of settings")


def _mapping(fields: tuple[Field, ...], *, bound: bool) -> Schema:
    keys: Schema = {}
    for field in fields:
        schema: Schema = documented(setting_schema(field.type, bound=bound), field.description)
        default = shown_default(field)
        if isinstance(default, (bool, int, float, str)):
            schema["default"] = default
        keys[field.name] = schema
    return {
        "type": ["object", "null"],
        "propertyNames": SOUND_KEYS,
        "properties": keys,
        "additionalProperties": False,
    }


def _group(wanted: Group, *, bound: bool) -> Schema:
    schema: Schema = _mapping(wanted.parameters, bound=bound)
    if wanted.switch:
        schema["type"] = ["object", "boolean", "null"]
    if wanted.short:
        field = next(each for each in wanted.parameters if each.name == wanted.short)
        value = setting_schema(field.type, bound=bound)
        words = value.pop("enum", None) or value.pop("anyOf", [{}])[0].get("enum")
        if words:
            # An enumeration would hold for the mapping, too.
            words = [word for word in words if word is not None]
            pattern = f"^({'|'.join(words)})$" + (f"|{BINDING}" if bound else "")
            value |= {"type": ["string", "null"], "pattern": pattern, "examples": words}
        types = [each for each in value.pop("type") if each not in schema["type"]]
        short: Schema = {"type": [*types, *schema.pop("type")]}
        schema = short | value | schema
        default = shown_default(field)
        if isinstance(default, (bool, int, float, str)):
            schema["default"] = default
    return schema


def _constant(wanted: Constant, *, bound: bool) -> Schema:
    binding = f"|{BINDING}" if bound else ""
    if wanted.choices:
        words: Schema = {"enum": [*wanted.choices, None]}
        return {"anyOf": [words, {"type": "string", "pattern": BINDING}]} if bound else words
    schema: Schema
    match wanted.kind:
        case Kind.BOOLEAN if bound:
            schema = {
                "type": ["boolean", "string", "null"],
                "pattern": f"^(true|false)${binding}",
            }
        case Kind.BOOLEAN:
            schema = {"type": ["boolean", "null"]}
        case Kind.INTEGER:
            schema = {"type": ["integer", "string", "null"], "pattern": f"^[0-9]+${binding}"}
        case Kind.DURATION:
            schema = {"type": ["number", "string", "null"], "minimum": 0}
            schema["pattern"] = f"{DURATION}{binding}"
        case Kind.SIZE:
            schema = {"type": ["integer", "string", "null"], "minimum": 0}
            schema["pattern"] = f"{SIZE}{binding}"
        case Kind.PART:
            schema = {"type": ["number", "string", "null"], "minimum": 0, "maximum": 1}
        case Kind.PROSE:
            schema = {"type": ["string", "number", "null"]}
        case _:
            schema = {"type": ["string", "null"]}
            if wanted.pattern:
                schema["pattern"] = f"{wanted.pattern}{binding}"
    bounds: dict[str, Any] = {}
    if wanted.kind is Kind.INTEGER:
        bounds = {"minimum": wanted.minimum, "maximum": wanted.maximum}
    return schema | {key: each for key, each in bounds.items() if each is not None}
