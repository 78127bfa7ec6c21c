"""An error of a run tells its author file, line, column, step, expression and the types met."""

from __future__ import annotations

import pytest

from streamstack.errors import RunError, forget_frames
from streamstack.language.definition import function
from streamstack.language.values import to_json
from streamstack.runtime.run import Run
from tests.stacks import run_stack

# The stack begins at line 6 of the file, indented by two.
CASES = [
    ("- set: {a: << nope >>}", 14, "nope", ["`nope` is not bound"]),
    ("- set: {a: << input.x.y >>}", 14, "input.x.y", ["`input.x` is null", "default"]),
    ("- stream: << input.x + 1 >>", 13, "input.x + 1", ["null"]),
    ("- forEach: {in: << 5 >>, do: [break]}", 19, "5", ["list or a stream"]),
    ("- stream: << input.missing >>", 13, "input.missing", ["missing"]),
    ("- wait: << 'soon' >>", 11, "'soon'", ["duration"]),
    ("- stream: Hello << 1 / 0 >>", 19, "1 / 0", ["zero"]),
]


@pytest.mark.parametrize(("stack", "column", "expression", "words"), CASES)
async def test_an_error_is_located(stack: str, column: int, expression: str, words: list[str]) -> None:
    """The place points at the expression in the file; the message says what to write."""
    outcome = await run_stack(stack, {"x": None})
    error = outcome.error
    assert error is not None
    assert error.code == "template"
    place = error.place
    assert place is not None
    assert place.expression == expression
    assert (place.mark.file, place.mark.line) == ("test.yaml", 6)
    assert abs(place.mark.column - column) <= 3, place
    assert all(word in error.message for word in words), error.message
    assert not any(word in error.message for word in ("NoneType", "dict", "Traceback", "object has"))


async def test_the_types_met_are_told() -> None:
    """A place names the variables an expression read and what kind they were."""
    outcome = await run_stack("- set: {a: 1, b: x}\n- set: {c: << a + b >>}")
    assert outcome.error is not None
    assert outcome.error.place is not None
    assert outcome.error.place.types == "a is integer, b is text"


async def test_an_error_inside_a_called_function_points_into_it() -> None:
    """The innermost place is the one that helps."""
    outcome = await run_stack(
        "- call: inner",
        also="kind: function\nname: inner\nfunctionStack:\n  - name: Divide\n    set: {a: << 1 / 0 >>}\n",
    )
    assert outcome.error is not None
    assert outcome.error.place is not None
    assert outcome.error.place.step == "Divide"
    assert outcome.error.place.mark.line > 6


async def test_a_fault_of_the_engine_is_internal() -> None:
    """What a function's own code raises is not a fault of the expression beside it."""

    @function("test.broken")
    def broken(run: Run) -> None:
        """Raise what no function should."""
        raise KeyError("secret")

    outcome = await run_stack("- name: Broken\n  test.broken:", functions=[broken])
    assert outcome.error is not None
    assert outcome.error.code == "internal"
    assert outcome.error.place is not None
    assert outcome.error.place.step == "Broken"
    assert "secret" not in outcome.error.public


@pytest.mark.parametrize(
    ("thrown", "status"),
    [("not-found", 404), ("timeout", 504), ("sold-out", 500), ("{code: not-found, status: 410}", 410)],
)
async def test_a_thrown_code_has_its_own_status(thrown: str, status: int) -> None:
    """A code of the language answers as the language does, unless the author says otherwise."""
    outcome = await run_stack(f"- throw: {thrown}")
    assert outcome.error is not None
    assert outcome.error.status == status


def test_errors_in_a_circle_are_forgotten() -> None:
    """An error may lead back to itself: one that was raised again while its own consequence was handled."""
    with pytest.raises(RunError) as raised:
        to_json(object())
    context = raised.value.__context__
    assert context is not None
    assert context.__cause__ is raised.value
    forget_frames(raised.value)
    assert context.__traceback__ is None
