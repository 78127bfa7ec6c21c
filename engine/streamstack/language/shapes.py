"""Shapes: what is known of a value before it exists, and the notation in which functions and filters declare it.

A shape says of which kinds a value can be, whether and why it may be null, what a list or stream holds and which fields
an object has. `ANY` is the unknown shape, such as that of a body or a row. The notation:

    text, integer, decimal, number, boolean, timestamp, date, bytes, file, null, object, list, any
    T | T           one of several
    T?              T, or null
    T~              T; it may be null or missing, which is not worth a finding
    [T]             a list of T
    stream of T     a stream of T
    {a: T, b: T}    an object with these fields and no others
    {a: T, ...}     an object that has these fields, and perhaps others
    {..., * : T}    an object whose other fields are T
    {a?: NAME}      an object that has this field where the parameter is given
    {...NAME}       an object with what a parameter computes, such as the figures of a window
    items of NAME   what the list or stream in a parameter holds
    NAME            the shape of a parameter's value; `it` is what a filter is applied to
    T if NAME = word else T    depends on the constant of a parameter; (T) as usual
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from streamstack.language.values import MISSING, kind

#: The kinds of values, apart from null.
KINDS: Final = frozenset(
    {"boolean", "bytes", "date", "decimal", "file", "integer", "list", "object", "stream", "text", "timestamp"}
)
NUMBERS: Final = frozenset({"integer", "decimal"})
_GROUPS: Final = {"number": NUMBERS, **{each: frozenset({each}) for each in KINDS}}
#: How deep shapes are kept apart: below, all is `ANY`.
_DEEPEST: Final = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a value.

    Attributes:
        kinds: The kinds it can have, null aside; None where that is not known. No kinds: it is surely null.
        null: Why it may be null, for messages; "" where nothing says that it may.
        absent: Whether it may be missing rather than null: looking it up fails.
        items: What a list or stream holds.
        fields: The fields of an object, or the properties of a stream or file; None where they are not known.
        rest: The shape of other fields; None where there are none.
        filled: Whether a list surely has an item.
        constant: The value itself, where it is known.
        low, high: The bounds of a number; None where they are not known.
        title: How messages call what has the fields, where its path alone does not say it.
        tells: A condition that the value stands for.
        unless: A condition under which it is not null.
        loose: Whether it may be null or missing without a finding: schemas alone tell.
    """

    kinds: frozenset[str] | None = None
    null: str = ""
    absent: bool = False
    items: Shape | None = None
    fields: Mapping[str, Shape] | None = None
    rest: Shape | None = None
    filled: bool = False
    constant: Any = MISSING
    low: float | None = None
    high: float | None = None
    title: str = ""
    condition: Any = None
    unless: Any = None
    loose: bool = False

    @property
    def is_null(self) -> bool:
        """Whether it is null on every path."""
        return self.kinds is not None and not self.kinds

    @property
    def sure(self) -> Shape:
        """What it is where it is not null."""
        if not self.null:
            return replace(self, loose=False) if self.loose else self
        return ANY if self.is_null else replace(self, null="", absent=False, unless=None, loose=False)

    def may_be(self, kinds: Collection[str]) -> bool:
        """Tell whether it can have one of some kinds."""
        return self.kinds is None or not self.kinds.isdisjoint(kinds)

    def is_only(self, *kinds: str) -> bool:
        """Tell whether it has one of some kinds on every path, null aside."""
        return bool(self.kinds) and self.kinds.issubset(kinds)  # type: ignore[union-attr]

    def or_null(self, why: str) -> Shape:
        """Return the shape of this or null."""
        return self if self.null else replace(self, null=why, constant=MISSING)

    def missing(self, why: str) -> Shape:
        """Return the shape of this, or of what is not there."""
        return replace(self.or_null(why), absent=True)

    def item(self) -> Shape:
        """Return what it holds, as a list or stream; the characters of a text are texts."""
        if self.items is not None:
            return self.items
        return TEXT if self.is_only("text") else ANY

    def field(self, key: str) -> Shape | None:
        """Return the shape of a field; None where there is none."""
        if self.fields is None:
            return ANY
        return self.fields.get(key, self.rest)

    def with_field(self, keys: tuple[str, ...], change: Callable[[Shape], Shape]) -> Shape:
        """Return the shape with a field, at a path, changed."""
        if not keys:
            return change(self)
        first = self.fields.get(keys[0], self.rest or ANY) if self.fields is not None else ANY
        changed = first.with_field(keys[1:], change)
        if self.fields is None:
            return replace(self, fields=MappingProxyType({keys[0]: changed}), rest=self.rest or ANY)
        return replace(self, fields=MappingProxyType({**self.fields, keys[0]: changed}))

    def only(self, kinds: frozenset[str], *, without: bool = False) -> Shape:
        """Return the shape of those of its values that have (``without``: do not have) one of some kinds."""
        if without:
            return self if self.kinds is None else replace(self, kinds=self.kinds - kinds)
        left = kinds if self.kinds is None else (self.kinds & kinds or kinds)
        return replace(self, kinds=left, null="", absent=False, unless=None)

    def __or__(self, other: Shape) -> Shape:
        """Return the shape of what is either."""
        return self if self is other or self == other else _join(self, other)


ANY: Final = Shape()
NULL: Final = Shape(frozenset(), "it is null")
TEXT: Final = Shape(frozenset({"text"}))
INTEGER: Final = Shape(frozenset({"integer"}))
DECIMAL: Final = Shape(frozenset({"decimal"}))
NUMBER: Final = Shape(NUMBERS)
BOOLEAN: Final = Shape(frozenset({"boolean"}))
COUNT: Final = Shape(frozenset({"integer"}), low=0)


def listing(items: Shape, *, filled: bool = False) -> Shape:
    """Return the shape of a list."""
    return Shape(frozenset({"list"}), items=items, filled=filled)


def record(fields: Mapping[str, Shape], rest: Shape | None = None, title: str = "") -> Shape:
    """Return the shape of an object."""
    return Shape(frozenset({"object"}), fields=MappingProxyType(dict(fields)), rest=rest, title=title)


def _join(one: Shape, other: Shape, depth: int = 0) -> Shape:
    if depth > _DEEPEST:
        return ANY
    null = one.null or other.null
    unless = one.unless if one.null and (not other.null or one.unless == other.unless) else None
    if other.null and not one.null:
        unless = other.unless
    if one.is_null or other.is_null:
        held = other if one.is_null else one
        absent, loose = one.absent or other.absent, one.loose or other.loose
        return replace(held, null=null, absent=absent, unless=unless, constant=MISSING, condition=None, loose=loose)
    inner = [each.items for each in (one, other) if each.items is not None]
    # An empty list says nothing of the items that the other holds.
    bare = [
        each for each in (one, other) if each.items is None and each.may_be(("list", "stream")) and each.constant != []
    ]
    items = None if bare or not inner else inner[0] if len(inner) == 1 else _join(inner[0], inner[1], depth + 1)
    fields, rest = _join_fields(one, other, depth)
    same = one.constant is not MISSING and type(one.constant) is type(other.constant) and one.constant == other.constant
    return Shape(
        None if one.kinds is None or other.kinds is None else one.kinds | other.kinds,
        null,
        one.absent or other.absent,
        items,
        fields,
        rest,
        one.filled and other.filled,
        one.constant if same else MISSING,
        None if one.low is None or other.low is None else min(one.low, other.low),
        None if one.high is None or other.high is None else max(one.high, other.high),
        one.title if one.title == other.title else "",
        one.condition if one.condition == other.condition else None,
        unless,
        one.loose or other.loose,
    )


def _join_fields(one: Shape, other: Shape, depth: int) -> tuple[Mapping[str, Shape] | None, Shape | None]:
    objects = [each for each in (one, other) if each.may_be(("object", "stream", "file"))]
    if not objects or any(each.fields is None for each in objects):
        return None, None
    if len(objects) == 1:
        return objects[0].fields, objects[0].rest
    rest = (
        one.rest if other.rest is None else other.rest if one.rest is None else _join(one.rest, other.rest, depth + 1)
    )
    fields: dict[str, Shape] = {}
    for name in {**(one.fields or {}), **(other.fields or {})}:
        first, second = one.field(name), other.field(name)
        if first is None or second is None:
            fields[name] = (first or second or ANY).missing("not every path that leads here sets it")
        else:
            fields[name] = first if first == second else _join(first, second, depth + 1)
    return MappingProxyType(fields), rest


def of_constant(value: Any, depth: int = 0) -> Shape:
    """Return the shape of data that is written out."""
    if value is None:
        return NULL
    if depth > _DEEPEST:
        return ANY
    if isinstance(value, (list, tuple)):
        items = unite(of_constant(each, depth + 1) for each in value[:100]) if value else None
        return Shape(frozenset({"list"}), items=items, filled=bool(value), constant=value)
    if isinstance(value, Mapping):
        return replace(record({str(k): of_constant(v, depth + 1) for k, v in value.items()}), constant=value)
    number = value if type(value) in (int, float) else None
    return Shape(frozenset({kind(value)}), constant=value, low=number, high=number)


#: The kinds of values that each type of JSON Schema allows, null aside.
_SCHEMA_KINDS: Final = {
    "string": frozenset({"text"}),
    "integer": frozenset({"integer", "decimal"}),
    "number": NUMBERS,
    "boolean": frozenset({"boolean"}),
    "object": frozenset({"object"}),
    "array": frozenset({"list"}),
    "null": frozenset[str](),
}


def of_schema(schema: Any, root: Any = None, depth: int = 0) -> Shape:
    """Return the shape of a value that fits a JSON Schema, as far as its plain keywords say it.

    Args:
        schema: The schema, which is valid.
        root: The schema that its references are in.
        depth: How deep it is in that schema.
    """
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return ANY
    path = str(schema.get("$ref", "")).split("/")
    if len(path) == 3 and path[:2] == ["#", "$defs"]:
        return of_schema(root.get("$defs", {}).get(path[2]), root, depth + 1)
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if choices:
        return replace(unite(map(of_constant, choices)), constant=MISSING)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema and "type" not in schema:
            return unite(of_schema(each, root, depth + 1) for each in schema[keyword])
    types = schema.get("type")
    if types is None:
        return ANY
    types = [types] if isinstance(types, str) else types
    shape = Shape(frozenset[str]().union(*(_SCHEMA_KINDS[each] for each in types)))
    if "array" in types and "items" in schema and "prefixItems" not in schema:
        items = of_schema(schema["items"], root, depth + 1)
        shape = replace(shape, items=items, filled=schema.get("minItems", 0) > 0)
    if "object" in types and ("properties" in schema or schema.get("additionalProperties") is False):
        required = schema.get("required", ())
        fields = {name: of_schema(each, root, depth + 1) for name, each in schema.get("properties", {}).items()}
        optional = "its schema does not require it"
        fields = {name: each if name in required else each.missing(optional) for name, each in fields.items()}
        closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
        shape = replace(shape, fields=MappingProxyType(fields), rest=None if closed else ANY)
    return shape.or_null("its schema allows null") if "null" in types else shape


def unite(shapes: Iterable[Shape]) -> Shape:
    """Return the shape of what is one of several; `ANY` for none."""
    found: Shape | None = None
    for each in shapes:
        found = each if found is None else found | each
    return ANY if found is None else found


# ---------------------------------------------------------------------------------------- notation

#: What a declaration refers to: the shape of a parameter's value, and its constant.
ShapeOfParameter = Callable[[str], "Shape | None"]

_TOKEN: Final = re.compile(r"\s*(stream of|items of|\.\.\.|[A-Za-z_][A-Za-z0-9_]*|.)")


def parse(text: str, parameter: ShapeOfParameter | None = None, why: str = "") -> Shape:
    """Return the shape that a declaration writes.

    Args:
        text: The notation; "" is `ANY`.
        given: Returns the shape of a parameter by its name. What depends on it is worked out for each step.
        why: Why a value may be null, for messages.

    Raises:
        ValueError: for what is not in the notation.
    """
    if not text:
        return ANY
    if parameter is None:
        return _parse_alone(text, why)
    return _Parser(text, parameter, why).all() or ANY


@lru_cache(maxsize=1024)
def _parse_alone(text: str, why: str) -> Shape:
    return _Parser(text, lambda _: ANY, why).all() or ANY


def parameters_in(text: str) -> frozenset[str]:
    """Return the parameters that a declaration refers to."""
    named: set[str] = set()

    def note(name: str) -> Shape:
        named.add(name)
        return ANY

    if text:
        _Parser(text, note, "").all()
    return frozenset(named)


class _Parser:
    """Reads the notation from left to right."""

    def __init__(self, text: str, parameter: ShapeOfParameter, why: str) -> None:
        self._text = text
        self._tokens: Iterator[str] = (found[1] for found in _TOKEN.finditer(text.rstrip()))
        self._next = next(self._tokens, "")
        self._parameter = parameter
        self._why = why or "it may be null"

    def all(self) -> Shape | None:
        """Return the shape of all of it; None for a parameter that is not given."""
        shape = self._type()
        if self._next:
            raise ValueError(f"{self._text}: `{self._next}` is not expected")
        return shape

    def _take(self, wanted: str = "") -> str:
        token = self._next
        if wanted and token != wanted:
            raise ValueError(f"{self._text}: `{wanted}` is expected, not `{token}`")
        self._next = next(self._tokens, "")
        return token

    def _type(self) -> Shape | None:
        shape = self._suffixed()
        while self._next == "|":
            self._take()
            other = self._suffixed()
            shape = other if shape is None else shape if other is None else shape | other
        if self._next != "if":
            return shape
        self._take()
        name = self._take()
        self._take("=")
        wanted = self._take()
        self._take("else")
        other = self._type()
        parameter = self._parameter(name)
        if parameter is None or parameter.constant is MISSING:
            return (shape or ANY) | (other or ANY) if parameter is not None else other
        return shape if parameter.constant == wanted else other

    def _suffixed(self) -> Shape | None:
        shape = self._primary()
        if self._next == "?":
            self._take()
            shape = (shape or ANY).or_null(self._why)
        elif self._next == "~":
            self._take()
            shape = replace(shape or ANY, loose=True)
        return shape

    def _primary(self) -> Shape | None:
        word = self._take()
        if word == "[":
            shape = listing(self._type() or ANY)
            self._take("]")
            return shape
        if word == "{":
            return self._record()
        if word == "(":
            inner = self._type()
            self._take(")")
            return inner
        if word == "stream of":
            return Shape(frozenset({"stream"}), items=self._suffixed() or ANY)
        if word == "items of":
            parameter = self._parameter(self._take())
            return None if parameter is None else parameter.item()
        if word in ("any", "null"):
            return ANY if word == "any" else NULL
        if word in _GROUPS:
            return Shape(_GROUPS[word])
        if word.isidentifier():
            return self._parameter(word)
        raise ValueError(f"{self._text}: `{word}` is not expected")

    def _record(self) -> Shape:
        fields: dict[str, Shape] = {}
        rest: Shape | None = None
        while self._next != "}":
            name = self._take()
            if name == "..." and self._next.isidentifier():
                parameter = self._parameter(self._take())
                if parameter is None or parameter.fields is None:
                    rest = rest or ANY
                else:
                    fields.update(parameter.fields)
            elif name == "...":
                rest = rest or ANY
            else:
                optional = self._next == "?"
                if optional:
                    self._take()
                self._take(":")
                shape = self._type()
                if name == "*":
                    rest = shape or ANY
                elif shape is not None or not optional:
                    fields[name] = shape or ANY
            if self._next != "}":
                self._take(",")
        self._take("}")
        return record(fields, rest)
