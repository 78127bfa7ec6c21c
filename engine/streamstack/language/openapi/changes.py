"""Compare two OpenAPI documents: what breaks clients of the earlier one, and what only adds to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any, Final
from urllib.parse import unquote

from streamstack.errors import fast_dataclass

_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")
_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
#: Keywords that bound values from below, and from above.
_LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
#: Keywords that hold another schema, and how it is called.
#: Keywords of requests that are not compared in detail: another value may refuse what was accepted.
_WHOLE: Final = (
    *("multipleOf", "uniqueItems", "not", "if", "then", "else", "contains", "minContains", "maxContains"),
    *("propertyNames", "patternProperties", "prefixItems", "dependentRequired", "dependentSchemas"),
    *("unevaluatedProperties", "unevaluatedItems"),
)
_INNER: Final = (("items", "items of "), ("additionalProperties", "other properties of "), ("contentSchema", ""))

Data = dict[str, Any]
#: The schema that allows any value.
_ANY: Final[Data] = {}


@fast_dataclass(order=True)
class Change:
    """One difference. ``place`` is the operation, such as `GET /api/orders`."""

    place: str
    message: str
    breaking: bool

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def compare(old: Data, new: Data) -> list[Change]:
    """Return how a document differs from an earlier one: breaking changes first.

    One that several formats have in common is one change, which names them.
    """
    formats: dict[Change, list[str]] = {}
    for change, media in _compare(_inlined(old, old), _inlined(new, new)):
        named = formats.setdefault(change, [])
        if media and media not in named:
            named.append(media)
    found = [
        replace(each, message=f"{each.message} ({', '.join(named)})") if named else each
        for each, named in formats.items()
    ]
    return sorted(found, key=lambda each: (not each.breaking, each))


def _compare(old: Data, new: Data) -> Iterator[tuple[Change, str]]:
    """Yield each change, and the media type that it belongs to."""
    before, after = dict(_operations(old)), dict(_operations(new))
    for key, (title, _) in before.items():
        if key not in after:
            yield Change(title, "removed", breaking=True), ""
    for key, (title, operation) in after.items():
        if key not in before:
            yield Change(title, "added", breaking=False), ""
            continue
        comparison = _Comparison(title, old, new)
        comparison.operation(before[key][1], operation)
        yield from comparison.found


def _operations(document: Data) -> Iterator[tuple[tuple[str, str], tuple[str, Data]]]:
    """Yield the operations by method and path, whatever its parameters are called."""
    for path, item in document.get("paths", {}).items():
        for method in _METHODS:
            if method in item:
                shared = item.get("parameters", [])
                operation = {"security": document.get("security", []), **item[method]}
                operation["parameters"] = [*shared, *operation.get("parameters", [])]
                yield (method, re.sub(r"\{[^}]*\}", "{}", path)), (f"{method.upper()} {path}", operation)


class _Comparison:
    """Compares one operation in two documents."""

    def __init__(self, title: str, old: Data, new: Data) -> None:
        self._title = title
        self._old = old
        self._new = new
        self._media = ""
        self.found: list[tuple[Change, str]] = []

    def _report(self, message: str, *, breaking: bool) -> None:
        self.found.append((Change(self._title, message, breaking), self._media))

    def operation(self, old: Data, new: Data) -> None:
        """Compare the two."""
        self._security(old["security"], new["security"])
        self._parameters(old["parameters"], new["parameters"])
        self._body(old.get("requestBody"), new.get("requestBody"))
        self._responses(old.get("responses", {}), new.get("responses", {}))

    # -- requests

    def _security(self, old: list[Data], new: list[Data]) -> None:
        if not new or {} in new:
            if old and {} not in old:
                self._report("authentication is no longer required", breaking=False)
            return
        if not old or {} in old:
            self._report("authentication is now required", breaking=True)
            return
        accepted = [self._ways(self._new, each) for each in new]
        for each in old:
            way = self._ways(self._old, each)
            same = [other for other in accepted if other.keys() <= way.keys()]
            if not same:
                self._report(f"no longer accepts the authentication {_words(each)}", breaking=True)
            elif not any(all(other[name] <= way[name] for name in other) for other in same):
                missing = sorted(set().union(*(same[0][name] - way[name] for name in same[0])))
                self._report(f"the authentication {_words(each)} now needs the scope {_words(missing)}", breaking=True)

    @staticmethod
    def _ways(document: Data, requirement: Mapping[str, list[str]]) -> dict[str, set[str]]:
        schemes = document.get("components", {}).get("securitySchemes", {})
        return {repr(sorted(schemes.get(name, {"name": name}).items())): set(s) for name, s in requirement.items()}

    def _parameters(self, old: list[Data], new: list[Data]) -> None:
        before, after = (
            {(each["in"], each["name"].lower() if each["in"] == "header" else each["name"]): each for each in listed}
            for listed in (old, new)
        )
        # Parameters of the path are matched by their position.
        places = [[key for key in each if key[0] == "path"] for each in (before, after)]
        renamed = dict(zip(places[1], places[0], strict=False))
        for key, parameter in after.items():
            known = before.get(renamed.get(key, key))
            named = f"{parameter['in']} parameter `{parameter['name']}`"
            if known is None:
                required = parameter.get("required", False)
                self._report(f"new {'required ' if required else ''}{named}", breaking=required)
                continue
            if parameter.get("required") and not known.get("required"):
                self._report(f"the {named} is now required", breaking=True)
            self._schema(_schema_of(known), _schema_of(parameter), f"the {named}", sent=False)
        for key, parameter in before.items():
            if key not in after and key not in renamed.values():
                self._report(f"the {parameter['in']} parameter `{parameter['name']}` was removed", breaking=True)

    def _body(self, old: Data | None, new: Data | None) -> None:
        if new is None:
            if old is not None:
                self._report("the request body was removed", breaking=True)
            return
        if old is None:
            required = new.get("required", False)
            self._report(f"new {'required ' if required else ''}request body", breaking=required)
            return
        if new.get("required") and not old.get("required"):
            self._report("the request body is now required", breaking=True)
        self._contents(old.get("content", {}), new.get("content", {}), "the request body", sent=False)

    # -- responses

    def _responses(self, old: Data, new: Data) -> None:
        for status, response in old.items():
            if not status.startswith("2"):
                continue
            other = new.get(status, new.get("default"))
            if other is None:
                self._report(f"the response {status} was removed", breaking=True)
                continue
            for name in response.get("headers", {}):
                if name not in other.get("headers", {}):
                    self._report(f"the response header `{name}` was removed", breaking=True)
            for name in other.get("headers", {}):
                if name not in response.get("headers", {}):
                    self._report(f"new response header `{name}`", breaking=False)
            self._contents(response.get("content", {}), other.get("content", {}), f"the response {status}", sent=True)
        for status in new:
            if status not in old:
                self._report(f"new response {status}", breaking=False)

    def _contents(self, old: Data, new: Data, where: str, *, sent: bool) -> None:
        for media in old:
            if media not in new and "*/*" not in new:
                self._report(f"{where} no longer {'has' if sent else 'accepts'} the format {media}", breaking=True)
        for media, content in new.items():
            if media not in old:
                self._report(f"{where} has the new format {media}", breaking=False)
                continue
            self._media = media
            self._schema(_schema_of(old[media]), _schema_of(content), where, sent=sent)
        self._media = ""

    # -- schemas

    def _schema(self, old: Any, new: Any, where: str, *, sent: bool) -> None:
        """Compare two schemas; ``sent`` by the server, which may say less: else by clients, which may say less."""
        if old == new or not isinstance(old, dict) or not isinstance(new, dict):
            return
        self._types(old, new, where, sent=sent)
        self._values(old, new, where, sent=sent)
        if not sent:
            self._bounds(old, new, where)
            self._limits(old, new, where)
        self._properties(old, new, where, sent=sent)
        self._alternatives(old, new, where, sent=sent)
        for before, after in zip_longest(old.get("allOf", ()), new.get("allOf", ()), fillvalue=_ANY):
            self._schema(before, after, where, sent=sent)
        for keyword, what in _INNER:
            if keyword in old and keyword in new:
                self._schema(old[keyword], new[keyword], f"{what}{where}", sent=sent)

    def _types(self, old: Data, new: Data, where: str, *, sent: bool) -> None:
        before, after = _types(old), _types(new)
        narrow, wide = (after, before) if sent else (before, after)
        extra = narrow - wide - ({"integer"} if "number" in wide else set())
        if extra:
            was = "any value" if before == _TYPES else _words(before)
            now = "any value" if after == _TYPES else _words(after)
            self._report(f"the type of {where} changed from {was} to {now}", breaking=True)
        elif before != after:
            self._report(f"the type of {where} is now {_words(after)}", breaking=False)
        if "string" in before & after and (was_json := "contentSchema" in old) is not ("contentSchema" in new):
            changed = "from JSON to text" if was_json else "from text to JSON"
            self._report(f"the type of {where} changed {changed}", breaking=True)
        first, second = old.get("format"), new.get("format")
        if first != second and (first if sent else second) and "string" in before & after:
            self._report(f"the format of {where} changed from {first or 'any'} to {second or 'any'}", breaking=True)

    def _values(self, old: Data, new: Data, where: str, *, sent: bool) -> None:
        before, after = _enum(old), _enum(new)
        if before == after or sent:
            return
        if after is not None and (before is None or not set(before) <= set(after)):
            gone = [each for each in before or () if each not in after]
            change = f"no longer takes {_words(gone)}" if gone else f"now takes only {_words(after)}"
            self._report(f"{where} {change}", breaking=True)
        elif before is not None:
            more = [each for each in after or () if each not in before]
            self._report(f"{where} now takes {_words(more) if more else 'any value'}", breaking=False)

    def _bounds(self, old: Data, new: Data, where: str) -> None:
        for keywords, is_tighter in ((_LOWER, _above), (_UPPER, _below)):
            for keyword in keywords:
                before, after = old.get(keyword), new.get(keyword)
                if before == after:
                    continue
                tighter = after is not None and (before is None or is_tighter(after, before))
                change = f"{keyword} of {where} changed from {_shown(before)} to {_shown(after)}"
                self._report(change, breaking=tighter)
        before, after = old.get("pattern"), new.get("pattern")
        if before != after:
            self._report(
                f"pattern of {where} changed from {_shown(before)} to {_shown(after)}", breaking=after is not None
            )

    def _limits(self, old: Data, new: Data, where: str) -> None:
        """Compare the keywords of requests whose values are not looked into."""
        for keyword in _WHOLE:
            if old.get(keyword) != new.get(keyword):
                verb = "changed" if keyword in old and keyword in new else "is new" if keyword in new else "was removed"
                self._report(f"{keyword} of {where} {verb}", breaking=keyword in new)
        if new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
            self._report(f"{where} can no longer have other properties", breaking=True)

    def _properties(self, old: Data, new: Data, where: str, *, sent: bool) -> None:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        of = f" of {where}"
        for name in before:
            if name not in after and not (sent and new.get("additionalProperties", True) is not False and not after):
                self._report(f"the {'field' if sent else 'property'} `{name}`{of} was removed", breaking=True)
            elif name in after and sent and name in needed - needs:
                self._report(f"the field `{name}`{of} may now be missing", breaking=True)
            elif name in after and not sent and name in needs - needed:
                self._report(f"the property `{name}`{of} is now required", breaking=True)
        for name in () if sent else sorted(needs - needed - before.keys() - after.keys()):
            self._report(f"the property `{name}`{of} is now required", breaking=True)
        for name in after:
            if name not in before:
                required = not sent and name in needs
                kind = "field" if sent else "required property" if required else "property"
                self._report(f"new {kind} `{name}`{of}", breaking=required)
            else:
                is_data = name == "data" and where.startswith("the event")
                self._schema(before[name], after[name], where if is_data else f"`{name}`{of}", sent=sent)

    def _alternatives(self, old: Data, new: Data, where: str, *, sent: bool) -> None:
        before = {_label(each): each for each in _branches(old)}
        after = {_label(each): each for each in _branches(new)}
        if not before or not after:
            if before or after:
                self._single(old, new, before or after, where, sent=sent)
            return
        for label, branch in after.items():
            if label in before:
                self._schema(
                    before[label], branch, f"{label} in {where}" if label.startswith("the ") else where, sent=sent
                )
            else:
                # Clients pass over events that they do not know, but not over a value of another type.
                breaking = sent and not label.startswith("the event")
                self._report(f"{where} may now be {label}", breaking=breaking)
        for label in before:
            if label not in after and (not sent or label.startswith("the ")):
                self._report(f"{where} {'is never' if sent else 'can no longer be'} {label}", breaking=True)

    def _single(self, old: Data, new: Data, branches: Mapping[str, Any], where: str, *, sent: bool) -> None:
        """Compare one schema with several that one may be chosen of."""
        now_more = bool(_branches(new))
        one = old if now_more else new
        if one in branches.values():
            self._report(f"{where} has {'more' if now_more else 'fewer'} alternatives", breaking=now_more == sent)
            return
        same = branches.get(_label(one))
        for each in [same] if same is not None else branches.values():
            before, after = (one, each) if now_more else (each, one)
            self._schema(before, after, where, sent=sent)


def _above(one: Any, other: Any) -> bool:
    return bool(one > other)


def _below(one: Any, other: Any) -> bool:
    return bool(one < other)


def _schema_of(holder: Data) -> Any:
    """Return the schema of a parameter or of a media type."""
    for name in ("itemSchema", "schema"):
        if name in holder:
            schema = holder[name]
            # A document of 3.1 has one that holds the schema of an item.
            inside = schema.keys() == {"description", "allOf"} and len(schema["allOf"]) == 1
            return schema["allOf"][0] if inside else schema
    inner: Data = next(iter(holder.get("content", {}).values()), {})
    return inner.get("schema", {})


def _inlined(document: Data, value: Any, open_: tuple[str, ...] = ()) -> Any:
    """Return a part of a document with what its references lead to; one that leads to itself stays."""
    if isinstance(value, list):
        return [_inlined(document, each, open_) for each in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/") or reference in open_:
        return {key: _inlined(document, each, open_) for key, each in value.items()}
    target: Any = document
    for part in reference[2:].split("/"):
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(target, list):
            target = target[int(name)] if name.isdecimal() and int(name) < len(target) else {}
        else:
            target = target.get(name, {}) if isinstance(target, dict) else {}
    found = _inlined(document, target, (*open_, reference))
    beside = {key: _inlined(document, each, open_) for key, each in value.items() if key != "$ref"}
    if not beside or not isinstance(found, dict):
        return found
    annotated = beside.keys() <= {"description", "summary", "title", "default", "deprecated"}
    return found | beside if annotated or not found.keys() & beside.keys() else beside | {"allOf": [found]}


def _types(schema: Data) -> frozenset[str]:
    """Return the types of a schema; all where it does not limit them."""
    types = schema.get("type")
    if types is None and (known := _enum(schema)) is not None:
        return frozenset(_type_of(each) for each in known)
    return _TYPES if types is None else frozenset({types} if isinstance(types, str) else types)


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _enum(schema: Data) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _branches(schema: Data) -> list[Any]:
    return [*schema.get("oneOf", ()), *schema.get("anyOf", ())]


def _label(schema: Any) -> str:
    """Return what tells an alternative from others: the name of its event, its constant, or its type."""
    if not isinstance(schema, dict):
        return str(schema)
    properties = schema.get("properties", {})
    event = properties.get("event")
    if isinstance(event, dict):
        return f"the event `{event['const']}`" if "const" in event else "the event of another name"
    kind = properties.get("type")
    if isinstance(kind, dict) and "const" in kind:
        return f"the event `{kind['const']}`"
    for name in ("error", "done", "gap"):
        if list(properties)[:1] == [name]:
            return f"the event `{name}`"
    if (known := _enum(schema)) is not None:
        return f"one of {_words(known)}"
    return _words(_types(schema)) if _types(schema) != _TYPES else "any value"


def _words(values: Any) -> str:
    return ", ".join(f"`{each}`" for each in (sorted(values) if isinstance(values, (set, frozenset)) else values))


def _shown(value: Any) -> str:
    return "none" if value is None else f"`{value}`"
