"""What requests to an endpoint hold: parameters, and the request body."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from streamstack.formats import BY_NAME
from streamstack.language.definition import Endpoint, Input, place_of
from streamstack.language.paths import parameters, parse_path
from streamstack.language.schema import DATA_KEYWORDS, NAMED_KEYWORDS, Definitions, Schema, input_schema, inputs_schema
from streamstack.language.values import show_size

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
#: The media type of a request stream, by `decode`, and whether it is a sequence of items.
_STREAMS: Final = {
    "ndjson": ("application/x-ndjson", True),
    "sse": ("text/event-stream", True),
    "csv": ("text/csv", False),
    "json": (JSON, False),
    "lines": ("text/plain", False),
    "text": ("text/plain", False),
    "bytes": ("application/octet-stream", False),
}
_PATH_PARAMETER: Final = re.compile(r"\{([^{}:]+)(?::path)?\}")
#: What RE2 reads and ECMA-262, whose syntax JSON Schema has, does not.
_RE2: Final = re.compile(r"\(\?(?![:=!<])|\(\?P|\\[AzZCpPQE]|\[\[:")
#: Integers that a request can hold, where its declaration says nothing.
_LARGEST: Final = 2**63 - 1


def template_of(path: str) -> str:
    """Return a path as OpenAPI has it: `{rest:path}` is `{rest}`."""
    return _PATH_PARAMETER.sub(r"{\1}", path)


def make_parameters(endpoint: Endpoint, definitions: Definitions) -> list[Schema]:
    """Return the parameters of the path, the query, the headers and the cookies."""
    route = parameters(endpoint.path)
    rests = {segment.names[0] for segment in parse_path(endpoint.path) if segment.rest}
    whole = any(_is_whole(each) for each in endpoint.inputs)
    found = []
    for declared in endpoint.inputs:
        place = place_of(declared, endpoint.method, route, whole=whole)
        if declared.type == "stream" or place not in ("path", "query", "header", "cookie"):
            continue
        parameter = _parameter(declared, place, definitions, rest=declared.name in rests)
        if place == "query" and not declared.required and endpoint.input_rules.skips_empty_text(declared):
            parameter["allowEmptyValue"] = True
        found.append(parameter)
    return found


def _is_whole(declared: Input) -> bool:
    return declared.location == "wholeBody" or declared.type == "stream"


def _parameter(declared: Input, place: str, definitions: Definitions, *, rest: bool) -> Schema:
    schema = client_schema(declared, definitions)
    description = _described(declared, "It may contain slashes." if rest else "")
    found: Schema = {"name": declared.name, "in": place, "required": place == "path" or declared.required}
    if description:
        found["description"] = description
    if place == "path" and schema.get("type") == "string":
        schema.setdefault("minLength", 1)
    if declared.type in ("object", "json"):
        return found | {"content": {JSON: {"schema": schema}}}
    if declared.type == "list" and declared.items is not None and declared.items.type in ("object", "json", "list"):
        item = {"type": "string", "contentMediaType": JSON, "contentSchema": schema["items"]}
        schema = schema | {"items": item}
    return found | {"schema": schema}


def client_schema(declared: Input, definitions: Definitions, *, opened: bool = False) -> Schema:
    """Return the schema of an input as clients send it, without its description, which stands beside the schema.

    Args:
        declared: The input.
        definitions: Takes the schemas that have references.
        opened: Whether unknown properties are ignored.
    """
    schema = input_schema(declared, definitions)
    schema.pop("description", None)
    schema = portable(schema)
    opening: Schema = _opened(schema) if opened else schema
    return opening


def portable(schema: Any) -> Any:
    """Return a schema with what else is known of its types, and without patterns that only RE2 reads."""
    if isinstance(schema, list):
        return [portable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found: Schema = {
        key: _properties(each) if key in NAMED_KEYWORDS else each if key in DATA_KEYWORDS else portable(each)
        for key, each in schema.items()
    }
    types = found.get("type", ())
    if "integer" in ((types,) if isinstance(types, str) else types):
        found.setdefault("minimum", -_LARGEST - 1)
        found.setdefault("maximum", _LARGEST)
        found["format"] = "int64"
    if "pattern" in found and _RE2.search(found["pattern"]):
        pattern = found.pop("pattern")
        found["description"] = f"{found.get('description', '')} It matches the RE2 pattern {pattern}".strip()
    return found


def _properties(properties: Schema) -> Schema:
    return {name: portable(each) for name, each in properties.items()}


def _opened(schema: Any) -> Any:
    """Return a schema that takes properties which it does not name."""
    if not isinstance(schema, dict):
        return schema
    found = {key: each for key, each in schema.items() if (key, each) != ("additionalProperties", False)}
    if "properties" in found:
        found["properties"] = {name: _opened(each) for name, each in found["properties"].items()}
    if "items" in found:
        found["items"] = _opened(found["items"])
    return found


def _described(declared: Input, more: str = "") -> str:
    names = ", ".join(f"`{each}`" for each in declared.aliases)
    parts = [declared.description.rstrip("."), f"Also accepted as {names}" if names else "", more.rstrip(".")]
    return ". ".join(each for each in parts if each)


def make_body(endpoint: Endpoint, definitions: Definitions) -> Schema | None:
    """Return the request body; None where requests have none."""
    if endpoint.upgrades:
        return None  # what a client sends are messages
    route = parameters(endpoint.path)
    stream = next((each for each in endpoint.inputs if each.type == "stream"), None)
    if stream is not None:
        media, items = _STREAMS.get(stream.decode or "", ("*/*", False))
        content: Schema = {media: {"itemSchema": {}} if items else {}}
        return _body(content, _with_size(stream), required=stream.required)
    whole = next((each for each in endpoint.inputs if each.location == "wholeBody"), None)
    if whole is not None:
        return _body(_whole(endpoint, whole, definitions), _with_size(whole), required=whole.required)
    inside = tuple(each for each in endpoint.inputs if place_of(each, endpoint.method, route, whole=False) == "body")
    spec = BY_NAME.get(endpoint.streaming.format) if endpoint.response_type == "streaming" else None
    reads = dict(spec.schemas.reads) if spec is not None and spec.schemas is not None else {}
    if not inside and not reads:
        return None
    content = _parts(endpoint, inside, reads, definitions)
    return _body(content, "", required=any(each.required for each in inside))


def _body(content: Schema, description: str, *, required: bool) -> Schema:
    found: Schema = {"description": description} if description else {}
    return found | {"required": required, "content": content}


def _with_size(declared: Input) -> str:
    size = f"At most {show_size(declared.max_size)}" if declared.max_size is not None else ""
    return _described(declared, size)


def _whole(endpoint: Endpoint, whole: Input, definitions: Definitions) -> Schema:
    if whole.type == "file":
        return {media: {} for media in whole.content_types or ("*/*",)}
    opened = endpoint.input_rules.unknown == "ignore"
    schema = client_schema(whole, definitions, opened=opened)
    content: Schema = {JSON: {"schema": schema}}
    if whole.type == "object":
        content[FORM] = content[MULTIPART] = {"schema": schema}
    elif whole.type != "list":
        content["text/plain"] = {"schema": schema}
    return content


def _parts(endpoint: Endpoint, inputs: Iterable[Input], reads: Schema, definitions: Definitions) -> Schema:
    """Return the content of a body whose properties are inputs: JSON, or a form."""
    opened = endpoint.input_rules.unknown == "ignore"
    listed = tuple(inputs)
    files = {each.name: _file(each) for each in listed if _is_file(each)}
    rest = tuple(each for each in listed if each.name not in files)
    schema = portable(inputs_schema(rest, definitions))
    for each in rest:
        if description := _described(each):
            schema["properties"][each.name]["description"] = description
    schema["properties"] = {**reads, **schema["properties"]}
    if opened:
        schema = _opened(schema)
    content: Schema = {JSON: {"schema": schema}}
    fields = {name: {"contentType": JSON} for name in _json_fields(rest, reads)}
    if not fields:  # tools write objects in forms of this type in ways of their own
        content[FORM] = {"schema": schema}
    if not files:
        return content
    required = [*schema.get("required", ()), *(each.name for each in listed if each.name in files and each.required)]
    form = schema | {"properties": schema["properties"] | {name: each for name, (each, _) in files.items()}}
    if required:
        form["required"] = required
    encoding = fields | {name: {"contentType": ", ".join(types)} for name, (_, types) in files.items() if types}
    multipart = {MULTIPART: {"schema": form} | ({"encoding": encoding} if encoding else {})}
    return multipart if any(each.required for each in listed if each.name in files) else content | multipart


def _json_fields(inputs: Iterable[Input], reads: Schema) -> Iterator[str]:
    """Yield the fields of forms that hold JSON: objects, and lists of what is not a text or a number."""
    yield from (name for name, each in reads.items() if "object" in each.get("type", ()))
    for each in inputs:
        item = each.items if each.type == "list" else each
        if item is None or item.type in ("object", "json", "list"):
            yield each.name


def _is_file(declared: Input) -> bool:
    item = declared.items
    return declared.type == "file" or (declared.type == "list" and item is not None and item.type == "file")


def _file(declared: Input) -> tuple[Schema, tuple[str, ...]]:
    """Return the schema of a part that is a file, and the media types that it may have."""
    one = declared if declared.items is None else declared.items
    schema: Schema = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    if len(one.content_types) == 1:
        schema["contentMediaType"] = one.content_types[0]
    if declared is not one:
        bounds = {"minItems": declared.min_items, "maxItems": declared.max_items}
        schema = {"type": "array", "items": schema} | {key: each for key, each in bounds.items() if each is not None}
    if description := _with_size(one if declared is one else declared):
        schema["description"] = description
    return schema, one.content_types
