"""JSON Schemas of authors: what is refused at load, the faults of values, and the bounds of a check."""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from streamstack.language.definition import JsonSchema
from streamstack.language.json_schema import MOST_FAULTS, read_schema
from streamstack.language.source import read


def compiled(schema: Any) -> JsonSchema:
    """Return a schema, which must be valid."""
    documents, _ = read(json.dumps({"schema": schema}), "test.yaml")
    node = documents[0].root.get("schema")  # type: ignore[union-attr]
    assert node is not None
    found, findings = read_schema(node, "`schema`")
    assert found is not None, findings
    return found


CIRCLE = {"type": "object", "required": ["r"], "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}}}
SQUARE = {"type": "object", "required": ["w"], "properties": {"kind": {"const": "square"}, "w": {"type": "number"}}}
TREE = {
    "$ref": "#/$defs/t",
    "$defs": {"t": {"properties": {"c": {"allOf": [{"$ref": "#/$defs/t"}]}}, "type": "object"}},
}
BUNDLE = {
    "$ref": "item.json",
    "$defs": {"i": {"$id": "item.json", "$ref": "#/$defs/n", "$defs": {"n": {"type": "null"}}}},
}


@pytest.mark.parametrize(
    ("schema", "value", "faults"),
    [
        ({"type": "integer"}, 5.0, []),
        ({"type": "integer"}, 5.5, [("", "must be an integer, without a fraction")]),
        ({"type": ["string", "null"]}, 1, [("", "must be a text or null, not an integer")]),
        ({"type": "boolean"}, 1, [("", "must be true or false, not an integer")]),
        ({"const": {"a": 1}}, {"a": 1.0}, []),
        ({"const": 1}, True, [("", "must be 1")]),
        ({"enum": ["a", None]}, "b", [("", 'must be one of "a", null')]),
        ({"multipleOf": 0.01}, 0.07, []),
        ({"multipleOf": 0.01}, 0.075, [("", "must be a multiple of 0.01")]),
        ({"minimum": 1, "exclusiveMaximum": 2}, 2, [("", "must be under 2")]),
        ({"maximum": 1, "exclusiveMinimum": 0}, 0, [("", "must be over 0")]),
        ({"minLength": 1}, "", [("", "must not be empty")]),
        ({"maxLength": 1}, "ab", [("", "must have at most 1 character")]),
        ({"minItems": 2, "uniqueItems": True}, [1], [("", "must have at least 2 items")]),
        ({"uniqueItems": True}, [{"a": 1, "b": 2}, {"b": 2, "a": 1.0}], [("", "must not have the same item twice")]),
        ({"uniqueItems": True}, [1, True, "1", [1]], []),
        ({"items": {"minimum": 3}}, [3, 1, 5, 2], [("[1]", "must be at least 3"), ("[3]", "must be at least 3")]),
        ({"prefixItems": [{}], "items": False}, [1, 2, 3], [("", "must have at most 1 item")]),
        (
            {"contains": {"const": 1}, "maxContains": 1},
            [1, 1],
            [("", "must have at most 1 item that its schema asks for, not 2")],
        ),
        ({"contains": {"const": 1}}, [], [("", "must have at least 1 item that its schema asks for, not 0")]),
        ({"required": ["a", "b"]}, {"c": 1}, [("a", "is required"), ("b", "is required")]),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, [("b", "is required beside `a`")]),
        (
            {"properties": {"price": {}}, "additionalProperties": False},
            {"prize": 1},
            [("prize", "is not known here, did you mean `price`?")],
        ),
        (
            {"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False},
            {"x-a": 1, "b": 1},
            [("x-a", "must be a text, not an integer"), ("b", "is not known here")],
        ),
        (
            {"propertyNames": {"maxLength": 2}},
            {"abc": 1},
            [("abc", "can't be a name here: it must have at most 2 characters")],
        ),
        ({"properties": {"a": False}}, {"a": 1}, [("a", "is not allowed")]),
        ({"not": {"type": "string"}}, "a", [("", "is a value that its schema excludes")]),
        (
            {"properties": {"a": {}}, "unevaluatedProperties": False},
            {"b": 1},
            [("", "has a property that no part of its schema allows")],
        ),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}, [("b", "is required")]),
        (
            {"anyOf": [{"type": "string"}, {"items": {"type": "string"}, "type": "array"}]},
            1,
            [("", "must be a text or a list, not an integer")],
        ),
        (
            {"anyOf": [{"type": "string"}, {"items": {"type": "string"}, "type": "array"}]},
            ["a", 1],
            [("[1]", "must be a text, not an integer")],
        ),
        ({"oneOf": [CIRCLE, SQUARE]}, {"kind": "square"}, [("w", "is required")]),
        ({"oneOf": [CIRCLE, SQUARE]}, {"kind": "oval"}, [("kind", 'must be "circle" or "square"')]),
        ({"oneOf": [CIRCLE, SQUARE]}, {"r": 1, "w": 1}, [("", "fits 2 of its alternatives, and must fit exactly one")]),
        (
            {"oneOf": [{"minimum": 3}, {"multipleOf": 2}]},
            1,
            [("", "fits none of its 2 alternatives: must be at least 3")],
        ),
        (BUNDLE, 1, [("", "must be null, not an integer")]),
        (
            {"$schema": "https://json-schema.org/draft/2020-12/schema", "pattern": "^a+$"},
            "b",
            [("", "must match the pattern ^a+$")],
        ),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["n"]}, {"n": 1, "a": {}}, [("a.n", "is required")]),
        *(
            ({"format": name}, "?", [("", f"must be {words}")])
            for name, words in {
                "date-time": "a timestamp such as 2026-01-31T12:00:00Z",
                "date": "a date such as 2026-01-31",
                "time": "a time such as 12:00:00Z",
                "email": "an e-mail address",
                "uri": "an absolute URI",
                "uuid": "a UUID",
                "hostname": "a host name",
                "ipv4": "an IPv4 address",
                "ipv6": "an IPv6 address",
                "regex": "a regular expression",
            }.items()
        ),
        *(
            ({"format": name}, text, [])
            for name, text in {
                "date-time": "2026-01-31T12:00:00Z",
                "date": "2026-01-31",
                "time": "12:00:00+01:00",
                "email": "a@b.org",
                "uri": "mailto:a@b.org",
                "uuid": "0b8e5d1c-3f6a-4c57-9d0e-2f4b8a6c1e90",
                "hostname": "a-b.example",
                "ipv4": "10.0.0.1",
                "ipv6": "::1",
                "regex": "a+",
            }.items()
        ),
    ],
)
def test_faults_name_the_part_and_what_to_send(schema: Any, value: Any, faults: list[tuple[str, str]]) -> None:
    """Each keyword: the path of what is wrong, and what to send instead."""
    assert compiled(schema).find_faults(value) == faults


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "", "a", "ab"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
SCHEMAS: st.SearchStrategy[Any] = st.deferred(
    lambda: (
        st.booleans()
        | st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(
                    ["string", "integer", "number", "boolean", "object", "array", "null", ["object", "array"]]
                ),
                "enum": st.lists(VALUES, min_size=1, max_size=3),
                "minimum": st.integers(-2, 2),
                "minLength": st.integers(0, 2),
                "pattern": st.sampled_from(["^a", "b$"]),
                "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
                "uniqueItems": st.booleans(),
                "maxItems": st.integers(0, 2),
                "items": SCHEMAS,
                "contains": SCHEMAS,
                "properties": st.dictionaries(st.sampled_from("abc"), SCHEMAS, max_size=2),
                "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), SCHEMAS, max_size=1),
                "additionalProperties": SCHEMAS,
                "propertyNames": st.sampled_from([{"pattern": "a"}, True]),
                "anyOf": st.lists(SCHEMAS, min_size=1, max_size=2),
                "oneOf": st.lists(SCHEMAS, min_size=1, max_size=2),
                "not": SCHEMAS,
                "if": SCHEMAS,
                "then": SCHEMAS,
                "$defs": st.just({"x": {"type": "integer"}}),
            },
        )
    )
)


@given(SCHEMAS, VALUES)
def test_a_value_is_taken_as_by_the_library(schema: Any, value: Any) -> None:
    """A value has no faults exactly if the library's own validator takes it."""
    assert (compiled(schema).find_faults(value) == []) == Draft202012Validator(schema).is_valid(value)


def deep(levels: int) -> Any:
    """Return an object in an object, and so on, with a fault in the innermost."""
    value: Any = 5
    for _ in range(levels):
        value = {"c": value}
    return value


WIDE = {"items": {"anyOf": [{"required": ["a"]}, {"type": "string"}]}}
DOUBLING = {
    "$ref": "#/$defs/0",
    "$defs": {
        **{str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}, {"$ref": f"#/$defs/{n + 1}"}]} for n in range(30)},
        "30": {"type": "null"},
    },
}


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 5_000 + "b", "must match the pattern"),
        ({"patternProperties": {"^(a|a)*$": False}}, {"a" * 5_000 + "b": 1}, ""),
        ({"uniqueItems": True}, [{"a": n} for n in range(20_000)], ""),
        (WIDE, [{}] * 300_000, "is required"),
        ({"items": {"properties": {"a": {"minimum": 0}}}}, [{"a": 1}] * 300_000, "is too large to be checked"),
        (DOUBLING, 5, "is too large to be checked"),
        (TREE, deep(249), "must be an object, not an integer"),
        ({"enum": [[1] * 1000]}, [1] * 100_000, "must be one of"),
    ],
)
def test_a_check_is_bounded(schema: Any, value: Any, message: str) -> None:
    """Hostile values, and schemas that multiply, take a bounded time, and give a bounded number of short faults."""
    checked = compiled(schema)
    frames = sys.getrecursionlimit()
    before = perf_counter()
    faults = checked.find_faults(value)
    assert perf_counter() - before < 10
    assert sys.getrecursionlimit() == frames
    assert len(faults) <= MOST_FAULTS
    assert all(len(text) <= 300 for _, text in faults)
    assert (message in faults[-1][1]) if message else not faults
