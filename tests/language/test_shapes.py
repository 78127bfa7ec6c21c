"""What is declared of values that do not exist yet, against the values that come."""

from __future__ import annotations

from typing import Any

import pytest

from streamstack.functions import REGISTRY
from streamstack.language import shapes
from streamstack.language.analysis.state import Reports
from streamstack.language.analysis.types import Results, TypeWalker
from streamstack.language.filters import FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS
from streamstack.language.graph import Graph
from streamstack.language.schema import shape_schema
from streamstack.language.shapes import ANY, KINDS, Shape
from streamstack.language.values import kind
from tests.stacks import run_stack

#: A value of each kind that filters can be applied to.
SAMPLES: dict[str, Any] = {
    "boolean": True,
    "bytes": b"a",
    "decimal": 1.5,
    "integer": 3,
    "list": [],
    "object": {},
    "text": "",
}


def fits(value: Any, shape: Shape) -> bool:
    """Tell whether a value is what a shape says."""
    if value is None:
        return shape.kinds is None or bool(shape.null)
    if shape.kinds is not None and kind(value) not in shape.kinds:
        return False
    if isinstance(value, list):
        return all(fits(each, shape.items) for each in value) if shape.items is not None else True
    if isinstance(value, dict) and shape.fields is not None:
        known = all(name in value for name in shape.fields)
        return known and all(
            (found := shape.field(name)) is not None and fits(each, found) for name, each in value.items()
        )
    return True


@pytest.mark.parametrize("name", sorted({*FILTERS} - {"d", "default"}))
def test_a_filter_takes_the_kinds_of_its_shape_and_no_others(name: str) -> None:
    """Other kinds are refused for what they are; null too, unless the shape has it."""
    operation = FILTERS[name]
    shape = shapes.parse(operation.takes)
    if operation.minimum:
        return  # its arguments may fail before
    for each, value in {**SAMPLES, "null": None}.items():
        allowed = shape.kinds is None or each in shape.kinds or (each == "null" and bool(shape.null))
        try:
            operation.code(value)
        except Exception as error:  # noqa: BLE001
            refused = " needs " in str(error) or "can't be" in str(error)
        else:
            refused = False
        assert not (allowed and refused), (name, each)
        assert allowed or refused, (name, each)


def test_each_filter_and_function_declares_its_shape() -> None:
    """What it gives is known, also where it takes anything; only `default` gives one of two values."""
    assert {each for each in FILTERS if not FILTERS[each].shape} == {"d", "default"}
    assert all(each.gives for each in FUNCTIONS_OF_EXPRESSIONS.values())
    for each in (*FILTERS.values(), *FUNCTIONS_OF_EXPRESSIONS.values(), *TESTS.values()):
        assert len(each.arguments) <= len(each.fields), each.name
        assert not any(shapes.parse(text).is_null for text in each.arguments), each.name


def test_declared_results_are_in_the_notation_and_name_parameters() -> None:
    """Each function that gives something says what, or can't know."""
    for function in REGISTRY.values():
        named = shapes.parameters_in(function.effects.result)
        assert named <= {*function.by_name}, function.name
        for each in function.effects.properties:
            shapes.parse(each.shape)


_REMOTE = ("db", "email", "http", "llm", "webhook", "websocket")
IN_PROCESS = [
    (function.name, example)
    for function in REGISTRY.values()
    for example in function.examples
    if function.name.partition(".")[0] not in _REMOTE and example.fails is None
]


@pytest.mark.parametrize(("name", "example"), IN_PROCESS, ids=[f"{name}-{each.title}" for name, each in IN_PROCESS])
async def test_results_are_of_the_shape_that_is_worked_out(name: str, example: Any) -> None:
    """What each example returns is what the analysis says that it returns, declarations of functions included."""
    outcome = await run_stack(example.stack, example.inputs)
    assert outcome.error is None
    endpoint = outcome.plan.endpoint
    predicted = TypeWalker(endpoint, Graph(endpoint), Reports(frozenset()), Results({})).follow()
    assert fits(outcome.result, predicted), (name, outcome.result, predicted)


@pytest.mark.parametrize(
    ("text", "value", "other"),
    [
        ("text", "a", 1),
        ("number?", None, "a"),
        ("[integer]", [1, 2], [1, "a"]),
        ("{a: text, b: integer?}", {"a": "x", "b": None}, {"a": "x"}),
        ("{a: text, ...}", {"a": "x", "c": 1}, {"c": 1}),
        ("{..., *: text}", {"x": "a"}, {"x": 1}),
        ("text | list", [], {}),
    ],
)
def test_the_notation(text: str, value: Any, other: Any) -> None:
    """A shape says which values it has."""
    shape = shapes.parse(text, None, "it may be null")
    assert fits(value, shape)
    assert not fits(other, shape)
    assert shape.kinds is None or shape.kinds <= KINDS


CLOSED = {"additionalProperties": False}


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("{a: integer~}", {"properties": {"a": {"type": ["integer", "null"]}}, "additionalProperties": False}),
        (
            "{a?: none, b?: given}",
            {"properties": {"b": {"type": "string"}}, "required": ["b"], "additionalProperties": False},
        ),
        ("{a: none}", {"properties": {"a": {}}, "required": ["a"], "additionalProperties": False}),
        ("{...computed}", {"properties": {"c": {"type": "boolean"}}, "required": ["c"], "additionalProperties": False}),
        ("{...none}", {}),
        ("{..., *: date?}", {"additionalProperties": {"type": ["string", "null"], "format": "date"}}),
    ],
)
def test_what_depends_on_parameters_is_in_schemas(text: str, schema: dict[str, Any]) -> None:
    """Fields of parameters that are not given, what they compute, and what may be missing without a finding."""
    known = {"given": shapes.TEXT, "computed": shapes.record({"c": shapes.BOOLEAN})}
    assert shape_schema(shapes.parse(text, known.get)) == {"type": "object", **schema}


@pytest.mark.parametrize("text", ["nothing at all", "[text", "{a text}", "text ]"])
def test_what_is_not_in_the_notation_is_refused(text: str) -> None:
    """A misspelt declaration is an error of ours, found when it is read."""
    with pytest.raises(ValueError, match="expected"):
        shapes._Parser(text, lambda _: ANY, "").all()  # noqa: SLF001


def test_a_shape_of_either_holds_what_both_hold() -> None:
    """What is known where two paths meet is true on each."""
    one, other = shapes.of_constant({"a": 1, "b": [1]}), shapes.of_constant({"a": None, "b": []})
    either = one | other
    assert (either.field("a") or ANY).null
    assert (either.field("b") or ANY).item().kinds == frozenset({"integer"})
    missing = (one | shapes.of_constant({"a": 1})).field("b")
    assert missing is not None
    assert missing.absent
