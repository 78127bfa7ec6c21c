"""JSON Schemas that authors write (2020-12): checked when the file is loaded, compiled once, applied to values.

Only this module imports jsonschema and referencing. Import it where a definition has a schema: that takes as long as
checking a small project.

What differs from the library's own validator:

- `pattern` and `patternProperties` are matched by RE2 (`language.patterns`), in linear time.
- `format` is checked for the names in `FORMATS`; other formats say nothing about a value.
- `$ref` leads to a schema inside the same document. Nothing is fetched.
- Numbers are compared by what is written: 0.07 is a multiple of 0.01.
- Messages don't repeat the value, and say what to send.
- Checking a value takes a bounded time (`_MAX_SECONDS`), and names a bounded number of faults (`MOST_FAULTS`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from time import thread_time
from typing import Any, Final

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from streamstack.errors import Diagnostic, Mark
from streamstack.language import shapes
from streamstack.language.definition import JsonSchema
from streamstack.language.findings import make_diagnostic
from streamstack.language.names import did_you_mean, listed, misspelt
from streamstack.language.nodes import Mapping as MappingNode
from streamstack.language.nodes import Node, Scalar, Sequence, plain
from streamstack.language.patterns import compile_pattern
from streamstack.language.values import (
    canonical_json,
    kind,
    load_json,
    parse_date,
    parse_email,
    parse_timestamp,
    parse_uuid,
    to_json,
)

#: How many faults of a value are named.
MOST_FAULTS: Final = 50
#: Characters of a fault's message, and of a value of the schema inside it.
_LONGEST: Final = 300
_LONGEST_VALUE: Final = 60
#: Seconds of processor time for checking one value: the library checks about 1.5 MB of JSON in one.
_MAX_SECONDS: Final = 1.0
#: Keywords that are evaluated between two looks at the clock.
_SLICE: Final = 256
#: Python frames for a value of 250 levels, each of which may pass several references.
_FRAMES: Final = 5_000
#: Findings of one schema.
_MOST_FINDINGS: Final = 20
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

#: Where a part of a value or of a schema is.
_Path = tuple[str | int, ...]

# --------------------------------------------------------------------------------------- formats

_TIME_DATE: Final = "2000-01-01T"
_HOST: Final = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*", re.ASCII)
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#-;=?-Z\[\]_a-z~%]*", re.ASCII)


def _converts(convert: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            convert(text)
        except ValueError:
            return False
        return True

    return check


#: The formats that are checked: how messages call a value, and whether a text is one.
FORMATS: Final[Mapping[str, tuple[str, Callable[[str], bool]]]] = {
    "date-time": ("a timestamp such as 2026-01-31T12:00:00Z", lambda text: parse_timestamp(text) is not None),
    "date": ("a date such as 2026-01-31", lambda text: parse_date(text) is not None),
    "time": ("a time such as 12:00:00Z", lambda text: parse_timestamp(_TIME_DATE + text) is not None),
    "email": ("an e-mail address", lambda text: parse_email(text) is not None),
    "uri": ("an absolute URI", lambda text: _URI.fullmatch(text) is not None),
    "uuid": ("a UUID", lambda text: parse_uuid(text) is not None),
    "hostname": ("a host name", lambda text: _HOST.fullmatch(text) is not None),
    "ipv4": ("an IPv4 address", _converts(IPv4Address)),
    "ipv6": ("an IPv6 address", _converts(IPv6Address)),
    "regex": ("a regular expression", _converts(compile_pattern)),
}

# -------------------------------------------------------------------------------------- keywords


class _TooLongError(Exception):
    """Checking a value takes too much time."""


class _Clock:
    """The time that checking the present value takes: it runs without interruption, so that one clock is enough."""

    until = float("inf")
    count = 0

    def tick(self) -> None:
        """Count a keyword. Raises _TooLongError."""
        self.count += 1
        if self.count % _SLICE == 0 and thread_time() > self.until:
            raise _TooLongError


_CLOCK: Final = _Clock()
_Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


def _counted(keyword: _Keyword) -> _Keyword:
    def check(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError] | None:
        _CLOCK.tick()
        return keyword(validator, wanted, value, schema)

    return check


def _rule(type_: str, broken: Callable[[Any, Any], bool], message: Callable[[Any, Any], str]) -> _Keyword:
    """Return a keyword that applies to values of one type ("" for all) and has no schema inside."""

    def check(validator: Any, wanted: Any, value: Any, _: Any) -> Iterator[ValidationError]:
        if (not type_ or validator.is_type(value, type_)) and broken(value, wanted):
            yield ValidationError(message(wanted, value))

    return check


_WORDS: Final = {
    "string": "a text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


def _named(value: Any) -> str:
    """Return the kind of a value with its article."""
    name = kind(value)
    return name if name == "null" else f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _shown(value: Any) -> str:
    text = to_json(value).decode()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _many(count: int, noun: str) -> str:
    return f"{count} {noun if count == 1 else 'properties' if noun == 'property' else noun + 's'}"


def _at_least(noun: str) -> Callable[[Any, Any], str]:
    return lambda least, _: "must not be empty" if least == 1 else f"must have at least {_many(least, noun)}"


def _at_most(noun: str) -> Callable[[Any, Any], str]:
    return lambda most, _: f"must have at most {_many(most, noun)}"


def _is_multiple(value: Any, of: Any) -> bool:
    try:
        return not Context(prec=1000).remainder(Decimal(str(value)), Decimal(str(of)))
    except InvalidOperation:
        return False


def _matches(pattern: str, text: str) -> bool:
    try:
        return compile_pattern(pattern).matches(text)
    except ValueError:  # the text is too long for the pattern
        return False


def _type(validator: Any, types: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    types = [types] if isinstance(types, str) else types
    if not any(validator.is_type(value, each) for each in types):
        wanted = listed(_WORDS[each] for each in types)
        if type(value) is float and "integer" in types:
            yield ValidationError("must be an integer, without a fraction")
        else:
            yield ValidationError(f"must be {wanted}, not {_named(value)}")


def _required(validator: Any, names: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "object"):
        for name in names:
            if name not in value:
                yield ValidationError("is required", path=(name,))


def _dependent_required(validator: Any, names: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "object"):
        for present, needed in names.items():
            for name in needed if present in value else ():
                if name not in value:
                    yield ValidationError(f"is required beside `{present}`", path=(name,))


def _inside(
    validator: Any, value: Any, inner: Any, path: str | int | None = None, place: str | int | None = None
) -> Iterator[ValidationError]:
    """Check a value by a schema inside another; the library leaves the path out where that is `false`."""
    if inner is False:
        paths = ((path,) if path is not None else (), (place,) if place is not None else ())
        yield ValidationError("is not allowed", path=paths[0], schema_path=paths[1])
    else:
        yield from validator.descend(value, inner, path=path, schema_path=place)


def _properties(validator: Any, properties: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "object"):
        for name, inner in properties.items():
            if name in value:
                yield from _inside(validator, value[name], inner, name, name)


def _additional_properties(validator: Any, inner: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(value, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, one in value.items():
        if name in known or any(_matches(pattern, name) for pattern in patterns):
            continue
        if inner is False:
            yield ValidationError(f"is not known here{did_you_mean(name, known)}", path=(name,))
        else:
            yield from validator.descend(one, inner, path=name)


def _pattern_properties(validator: Any, patterns: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    if not validator.is_type(value, "object"):
        return
    for pattern, inner in patterns.items():
        for name, one in value.items():
            if _matches(pattern, name):
                yield from _inside(validator, one, inner, name, pattern)


def _property_names(validator: Any, inner: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    for name in value if validator.is_type(value, "object") else ():
        for error in _inside(validator, name, inner):
            yield ValidationError(f"can't be a name here: it {error.message}", path=(name,))
            break


def _contains(validator: Any, inner: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(value, "array"):
        return
    least, most = schema.get("minContains", 1), schema.get("maxContains")
    fitting = validator.evolve(schema=inner)
    count = sum(1 for each in value if fitting.is_valid(each))
    if count < least:
        yield ValidationError(f"must have at least {_many(int(least), 'item')} that its schema asks for, not {count}")
    elif most is not None and count > most:
        yield ValidationError(f"must have at most {_many(int(most), 'item')} that its schema asks for, not {count}")


def _not(validator: Any, inner: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    if validator.evolve(schema=inner).is_valid(value):
        yield ValidationError("is a value that its schema excludes")


def _any_of(validator: Any, alternatives: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    context: list[ValidationError] = []
    for index, inner in enumerate(alternatives):
        errors = list(islice(_inside(validator, value, inner, None, index), MOST_FAULTS))
        if not errors:
            return
        context += errors
    yield ValidationError("fits none of its alternatives", context=context)


def _one_of(validator: Any, alternatives: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    count = sum(1 for each in alternatives if validator.evolve(schema=each).is_valid(value))
    if count > 1:
        yield ValidationError(f"fits {count} of its alternatives, and must fit exactly one")
    elif not count:
        yield from _any_of(validator, alternatives, value, schema)


def _is_unlike(value: Any, wanted: Any) -> bool:
    return canonical_json(value) != canonical_json(wanted)


def _is_none_of(value: Any, wanted: Any) -> bool:
    # A large value is compared by its text, which is made once.
    text = canonical_json(value)
    return all(canonical_json(each) != text for each in wanted)


def _has_twins(value: Any, wanted: Any) -> bool:
    return bool(wanted) and len({canonical_json(each) for each in value}) != len(value)


def _one_of_values(wanted: Any, _: Any) -> str:
    return f"must be one of {', '.join(map(_shown, wanted[:20]))}{', ...' if len(wanted) > 20 else ''}"


def _format_message(wanted: Any, _: Any) -> str:
    return f"must be {FORMATS[wanted][0]}"


_KEYWORDS: Final[dict[str, _Keyword]] = {
    "type": _type,
    "const": _rule("", _is_unlike, lambda wanted, _: f"must be {_shown(wanted)}"),
    "enum": _rule("", _is_none_of, _one_of_values),
    "minimum": _rule("number", lambda value, least: value < least, lambda least, _: f"must be at least {least}"),
    "maximum": _rule("number", lambda value, most: value > most, lambda most, _: f"must be at most {most}"),
    "exclusiveMinimum": _rule(
        "number", lambda value, bound: value <= bound, lambda wanted, _: f"must be over {wanted}"
    ),
    "exclusiveMaximum": _rule(
        "number", lambda value, bound: value >= bound, lambda wanted, _: f"must be under {wanted}"
    ),
    "multipleOf": _rule(
        "number", lambda value, of: not _is_multiple(value, of), lambda of, _: f"must be a multiple of {of}"
    ),
    "minLength": _rule("string", lambda value, least: len(value) < least, _at_least("character")),
    "maxLength": _rule("string", lambda value, most: len(value) > most, _at_most("character")),
    "pattern": _rule(
        "string",
        lambda value, wanted: not _matches(wanted, value),
        lambda wanted, _: f"must match the pattern {wanted}",
    ),
    "format": _rule("string", lambda value, name: name in FORMATS and not FORMATS[name][1](value), _format_message),
    "minItems": _rule("array", lambda value, least: len(value) < least, _at_least("item")),
    "maxItems": _rule("array", lambda value, most: len(value) > most, _at_most("item")),
    "uniqueItems": _rule("array", _has_twins, lambda *_: "must not have the same item twice"),
    "minProperties": _rule("object", lambda value, least: len(value) < least, _at_least("property")),
    "maxProperties": _rule("object", lambda value, most: len(value) > most, _at_most("property")),
    "properties": _properties,
    "required": _required,
    "dependentRequired": _dependent_required,
    "additionalProperties": _additional_properties,
    "patternProperties": _pattern_properties,
    "propertyNames": _property_names,
    "contains": _contains,
    "not": _not,
    "anyOf": _any_of,
    "oneOf": _one_of,
}


def _is_integer(_: Any, value: Any) -> bool:
    if isinstance(value, (float, Decimal)):
        return value == value // 1  # False for infinities and NaN
    return isinstance(value, int) and not isinstance(value, bool)


_LIBRARY: Final[Mapping[str, _Keyword]] = Draft202012Validator.VALIDATORS
_Validator: Final[Any] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {name: _counted(keyword) for name, keyword in {**_LIBRARY, **_KEYWORDS}.items()},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)

# ---------------------------------------------------------------------------------------- values


@contextmanager
def _bounded() -> Iterator[None]:
    """Give a check its time and its frames: those that the library needs for 250 levels are over Python's limit."""
    frames = sys.getrecursionlimit()
    _CLOCK.until = thread_time() + _MAX_SECONDS
    sys.setrecursionlimit(max(frames, _FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(frames)


def _faults_of(validator: Any) -> Callable[[Any], list[tuple[str, str]]]:
    """Return what finds the faults of a value: the name of each part, "" for the value itself, and a message."""

    def find(value: Any) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        try:
            with _bounded():
                # Decimals, timestamps and other values of the language as the JSON that they are written as.
                for error in validator.iter_errors(load_json(to_json(value))):
                    for path, message in _leaves(error, _message):
                        fault = (_name_of(path), message[:_LONGEST])
                        if fault not in found:
                            found.append(fault)
                    if len(found) >= MOST_FAULTS:
                        break
        except _TooLongError:
            found.append(("", "is too large to be checked"))
        except RecursionError:
            found.append(("", "is nested too deeply to be checked"))
        return found[:MOST_FAULTS]

    return find


def _name_of(path: tuple[str | int, ...]) -> str:
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _leaves(error: ValidationError, message: Callable[[ValidationError], str]) -> list[tuple[_Path, str]]:
    """Return the faults behind an error: of several alternatives those of the one that was meant, if that is clear."""
    path = tuple(error.absolute_path)
    if not error.context:
        return [(path, message(error))]
    alternatives: dict[Any, list[ValidationError]] = {}
    for each in error.context:
        alternatives.setdefault(each.relative_schema_path[0], []).append(each)
    meant = [each for each in alternatives.values() if not _is_of_another_type(each[0])]
    if len(meant) > 1:
        # One property tells the alternatives apart: `type: {const: circle}`.
        specific = [each for each in meant if not any(fault.validator in ("const", "enum") for fault in each)]
        meant = specific or meant
    if len(meant) == 1:
        return [leaf for each in meant[0] for leaf in _leaves(each, message)]
    if not meant:
        wanted = dict.fromkeys(_shown_values(each[0]) for each in alternatives.values())
        return [(path, f"must be {listed(list(wanted)[:20])}, not {_named(error.instance)}")]
    values = [
        {tuple(fault.relative_path): fault for fault in each if fault.validator in ("const", "enum")} for each in meant
    ]
    if shared := set.intersection(*(set(each) for each in values)):
        place = min(shared, key=len)
        wanted = dict.fromkeys(_shown_values(each[place]) for each in values)
        return [((*path, *place), f"must be {listed(list(wanted)[:20])}")]
    nearest = min(meant, key=len)[0]
    inner, fault = _leaves(nearest, message)[0]
    where = _name_of(inner[len(path) :])
    return [(path, f"fits none of its {len(alternatives)} alternatives: {where} {fault}".replace(":  ", ": "))]


def _shown_values(error: ValidationError) -> str:
    """Return the types or values that a `type`, `const` or `enum` asks for."""
    wanted: Any = error.validator_value
    if error.validator == "type":
        return listed(_WORDS[name] for name in ([wanted] if isinstance(wanted, str) else wanted))
    return listed(map(_shown, [wanted] if error.validator == "const" else wanted[:20]))


def _is_of_another_type(error: ValidationError) -> bool:
    return error.validator in ("type", "const", "enum") and not error.relative_path


def _message_of_meta(error: ValidationError) -> str:
    """Return the message of an error that the library's own validator found."""
    keyword = _KEYWORDS.get(str(error.validator), _counted(lambda *_: None))
    ours = next(iter(keyword(_Validator(True), error.validator_value, error.instance, error.schema) or ()), None)
    return _message(error) if ours is None else ours.message


def _message(error: ValidationError) -> str:
    """Return the message of an error; the keywords that the library checks itself have none of ours."""
    schema: Any = error.schema
    if error.validator in _KEYWORDS or error.validator == "contentSchema":
        return error.message
    if error.validator == "items":
        return _at_most("item")(len(schema.get("prefixItems", ())), None)
    if error.validator == "unevaluatedProperties":
        return "has a property that no part of its schema allows"
    if error.validator == "unevaluatedItems":
        return "has an item that no part of its schema allows"
    return "is not allowed"


# ---------------------------------------------------------------------------------------- schemas

_ONE: Final = (
    "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_SEVERAL: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_BY_NAME: Final = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_REFERENCES: Final = ("$ref", "$dynamicRef")
#: Keywords whose schemas apply to the same value as the schema around them.
_IN_PLACE: Final = frozenset({"allOf", "anyOf", "dependentSchemas", "else", "if", "not", "oneOf", "then"})
_ANNOTATIONS: Final = (
    "$anchor", "$comment", "$dynamicAnchor", "$id", "$schema", "$vocabulary", "contentEncoding", "contentMediaType",
    "default", "deprecated", "description", "example", "examples", "maxContains", "minContains", "readOnly", "title",
    "writeOnly",
)  # fmt: skip
_KNOWN: Final = frozenset({*_KEYWORDS, *_ONE, *_SEVERAL, *_BY_NAME, *_REFERENCES, *_ANNOTATIONS})
#: Keywords of other versions and tools, and what 2020-12 has in their place.
_FOREIGN: Final = {
    "$recursiveRef": "write `$dynamicRef`, or `$ref`",
    "additionalItems": "write `items` beside `prefixItems`",
    "dependencies": "write `dependentRequired` or `dependentSchemas`",
    "nullable": 'write `type: [..., "null"]`',
    "optional": "leave the name out of `required`",
    "values": "write `enum`",
}
#: What the language and others call the types.
_TYPES: Final = {
    "any": "", "bool": "boolean", "date": "string", "decimal": "number", "dict": "object", "enum": "string",
    "float": "number", "int": "integer", "list": "array", "map": "object", "str": "string", "text": "string",
    "timestamp": "string", "uuid": "string", "email": "string", "url": "string",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Part:
    """A schema inside a schema, with the references seen from there."""

    schema: dict[str, Any]
    path: _Path
    resolver: Any
    in_place: bool  # whether it applies to the same value as the schema around it
    around: int  # identity of that schema; 0 for the outermost


class _SchemaReader:
    """Reads one schema."""

    def __init__(self, node: Node, owner: str) -> None:
        self.found: list[Diagnostic] = []
        self._node = node
        self._owner = owner
        self._refers = False

    def read(self) -> JsonSchema | None:
        node = self._node
        if not isinstance(node, MappingNode) and not (isinstance(node, Scalar) and isinstance(node.value, bool)):
            mark = self._node.mark
            self.found.append(make_diagnostic("bad-schema", mark, f"{self._owner} must be a mapping"))
            return None
        self._refuse_bindings(node, ())
        source = plain(node)
        if not self.found:
            self._check_form(source)
        if not self.found and isinstance(source, dict):
            self._check_parts(source)
        if any(each.severity == "error" for each in self.found):
            return None
        shape = shapes.of_schema(source)
        if isinstance(source, dict):
            source.pop("$schema", None)  # it would lead to the library's own validator
        else:
            source = {} if source else {"not": {}}
        validator = _Validator(source, registry=Registry())
        return JsonSchema(source, self._refers, shape, _faults_of(validator))

    def _add(self, path: _Path, message: str, hint: str = "", *, key: bool = False, code: str = "bad-schema") -> None:
        place, mark = _place_of(self._node, path, key=key)
        if len(self.found) < _MOST_FINDINGS:
            where = f"{self._owner}: `{_name_of(path)}`" if path else self._owner
            self.found.append(make_diagnostic(code, place or mark, f"{where} {message}", hint or None))

    def _refuse_bindings(self, node: Node, path: _Path) -> None:
        if isinstance(node, MappingNode):
            for key, inner in node.items:
                self._refuse_bindings(inner, (*path, key.text))
        elif isinstance(node, Sequence):
            for index, inner in enumerate(node.items):
                self._refuse_bindings(inner, (*path, index))
        elif isinstance(node.value, str) and "<<" in node.value and ">>" in node.value:
            self._add(path, "holds a binding", "write the value itself: a schema is compiled when the file is loaded",
                      code="constant-required")  # fmt: skip

    def _check_form(self, source: Any) -> None:
        """Report what the meta-schema does not allow."""
        seen = set()
        with _bounded():
            meta = Draft202012Validator(Draft202012Validator.META_SCHEMA, registry=Registry())
            for error in meta.iter_errors(source):
                for path, message in _leaves(error, _message_of_meta):
                    if path not in seen:
                        seen.add(path)
                        self._add(path, *_explain(path, message, source))

    def _check_parts(self, source: dict[str, Any]) -> None:
        """Report what the meta-schema allows and this server does not, or what can hardly be meant."""
        resolver = Registry().resolver_with_root(DRAFT202012.create_resource(source))
        parts = list(_walk(source, (), resolver, in_place=False, around=0))
        known = {id(part.schema) for part in parts}
        edges: dict[Hashable, list[int]] = {}
        unevaluated = any("unevaluatedProperties" in part.schema for part in parts)
        for part in parts:
            if part.in_place:
                edges.setdefault(part.around, []).append(id(part.schema))
            self._check_keywords(part, unevaluated=unevaluated)
            for keyword in _REFERENCES:
                if keyword in part.schema:
                    self._refers = True
                    target = self._follow(part, keyword, known)
                    edges.setdefault(id(part.schema), []).append(target)
        for part in parts:
            if _reaches_itself(id(part.schema), edges):
                self._add(part.path, "refers to itself for the same value, without end", "remove one of the references")
                break

    def _check_keywords(self, part: _Part, *, unevaluated: bool) -> None:
        for keyword, value in part.schema.items():
            path = (*part.path, keyword)
            if keyword == "$schema" and (part.path or str(value).rstrip("#") != _DIALECT):
                self._add(path, f"is not {_DIALECT}", "remove it: schemas are of that version")
            elif keyword in ("pattern", "patternProperties"):
                for pattern in [value] if isinstance(value, str) else value:
                    try:
                        compile_pattern(pattern)
                    except ValueError as error:
                        self._add(
                            path if keyword == "pattern" else (*path, pattern),
                            f"is refused: {error}",
                            code="bad-pattern",
                        )
                if keyword == "patternProperties" and unevaluated:
                    hint = "write `additionalProperties` in place of `unevaluatedProperties`"
                    self._add(path, "can't stand in one schema with `unevaluatedProperties`", hint, key=True)
            elif keyword == "format" and value not in FORMATS:
                hint = f"these are checked: {listed(FORMATS, 'and')}"
                self._add(path, f"has no effect: the format `{value}` is not checked", hint, code="no-effect")
            elif keyword not in _KNOWN:
                self._check_unknown(path, keyword)

    def _check_unknown(self, path: _Path, keyword: str) -> None:
        near = misspelt(keyword, _KNOWN)
        hint = f"did you mean `{near}`?" if near else _FOREIGN.get(keyword, "")
        if hint:
            message = f"has no effect: JSON Schema 2020-12 has no keyword `{keyword}`"
            self._add(path, message, hint, key=True, code="no-effect")

    def _follow(self, part: _Part, keyword: str, known: set[int]) -> int:
        """Return the identity of the schema that a reference leads to, 0 for none."""
        path, target = (*part.path, keyword), part.schema[keyword]
        try:
            found = part.resolver.lookup(target).contents
        except (Unresolvable, ValueError):
            found = None
        if isinstance(found, bool) or id(found) in known:
            return id(found)
        shown = target if len(target) <= _LONGEST_VALUE else target[: _LONGEST_VALUE - 3] + "..."
        self._add(path, f"leads to no schema in this document: {shown}", "write `#/$defs/name`: nothing is fetched")
        return 0


def _walk(schema: Any, path: _Path, resolver: Any, *, in_place: bool, around: int) -> Iterator[_Part]:
    if not isinstance(schema, dict):
        return
    if path:
        resolver = resolver.in_subresource(DRAFT202012.create_resource(schema))
    yield _Part(schema, path, resolver, in_place, around)
    for keyword, value in schema.items():
        inner: list[tuple[_Path, Any]] = []
        if keyword in _ONE:
            inner = [((keyword,), value)]
        elif keyword in _SEVERAL:
            inner = [((keyword, index), each) for index, each in enumerate(value)]
        elif keyword in _BY_NAME:
            inner = [((keyword, name), each) for name, each in value.items()]
        for place, each in inner:
            yield from _walk(each, (*path, *place), resolver, in_place=keyword in _IN_PLACE, around=id(schema))


def _reaches_itself(start: int, edges: Mapping[Hashable, list[int]]) -> bool:
    seen, open_ = set[int](), list(edges.get(start, ()))
    while open_:
        each = open_.pop()
        if each == start:
            return True
        if each not in seen:
            seen.add(each)
            open_ += edges.get(each, ())
    return False


def _place_of(node: Node, path: _Path, *, key: bool) -> tuple[Mark | None, Mark]:
    """Return the place of a part of a schema, and the nearest place around it."""
    around = node.mark
    for index, part in enumerate(path):
        inner: Node | None = None
        if isinstance(node, MappingNode) and isinstance(part, str):
            found = node.key(part)
            inner = node.get(part)
            if key and index == len(path) - 1 and found is not None:
                return found.mark, around
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            inner = node.items[part]
        if inner is None:
            return None, around
        node, around = inner, inner.mark
    return node.mark, around


def _explain(path: _Path, message: str, source: Any) -> tuple[str, str]:
    """Return the message and the hint for what the meta-schema refuses at a place."""
    value: Any = source
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return message, ""
    keyword = next((each for each in reversed(path) if isinstance(each, str)), "")
    if keyword == "type" and value is None:
        return "must be the name of a type, not null", 'write "null", in quotes'
    if keyword == "type" and isinstance(value, str):
        meant = _TYPES.get(value) or misspelt(value, _WORDS)
        types = f"JSON Schema has the types {listed(sorted(_WORDS), 'and')}"
        return f"must be the name of a type, not `{value[:40]}`", f"did you mean `{meant}`?" if meant else types
    if keyword == "required" and isinstance(value, bool):
        return "must be a list of names", "write `required: [name]` in the object's schema, beside `properties`"
    if keyword == "items" and isinstance(value, list):
        return message, "write `prefixItems` for a list with a schema for each place"
    if keyword in ("exclusiveMinimum", "exclusiveMaximum") and isinstance(value, bool):
        return message, f"write the bound itself, as in `{keyword}: 0`"
    return message, ""


def read_schema(node: Node, owner: str) -> tuple[JsonSchema | None, list[Diagnostic]]:
    """Return a schema that an author wrote, None where it is not valid, and what was found in it.

    Args:
        node: The schema.
        owner: How messages call it: `schema` of `order`.
    """
    reader = _SchemaReader(node, owner)
    return reader.read(), reader.found


def _content_schema(validator: Any, inner: Any, value: Any, _: Any) -> Iterator[ValidationError]:
    """Check what a text holds, which JSON Schema leaves to applications."""
    if not validator.is_type(value, "string"):
        return
    try:
        content = load_json(value.encode("utf-8", "surrogatepass"))
    except ValueError:
        yield ValidationError("must be JSON")
    else:
        yield from _inside(validator, content, inner)


_ContentValidator: Final[Any] = extend(_Validator, {"contentSchema": _counted(_content_schema)})  # type: ignore[no-untyped-call]


def compile_schema(schema: dict[str, Any]) -> Callable[[Any], list[tuple[str, str]]]:
    """Return what finds the faults of a value by a schema of the server's own, `contentSchema` included."""
    return _faults_of(_ContentValidator(schema, registry=Registry()))
