"""Errors: try, throw, precondition."""

from __future__ import annotations

import sys
from asyncio import CancelledError
from typing import Any

from streamstack.errors import RunError
from streamstack.language.definition import Arguments, Effects, Example, Items, Parameter, function
from streamstack.language.graph import Block, Node, constant
from streamstack.runtime.compiler import Code, source_of, value_of, values_given
from streamstack.runtime.faults import caught, located
from streamstack.spec import Binds, Bound, Condition, Constant, Group, Kind, ListOf, Nesting, StackOf, Variable

_CODE = Parameter(
    "code",
    Bound(Kind.TEXT, code=True),
    "Error code, used by `catch` and sent to the client: lower-case words joined by hyphens.",
)
_STATUS = "HTTP status of the response if the error is not caught and no chunk has been sent."


@function(
    "try",
    Parameter("do", StackOf(Nesting.GUARDED), "Steps that may fail.", required=True),
    Parameter(
        "catch",
        Group(
            (
                Parameter("as", Variable(), "Variable that holds the error.", default="error"),
                Parameter("on", ListOf(Constant(Kind.TEXT)), "Error codes to catch. Default: all."),
                Parameter(
                    "do",
                    StackOf(Nesting.HANDLER, (Binds("as", "error"),)),
                    "Steps that handle the error.",
                    required=True,
                ),
            )
        ),
        "Error handler.",
    ),
    Parameter("finally", StackOf(Nesting.FINALLY), "Steps that always run, also after the client disconnects."),
    examples=[
        Example(
            "continue after an error",
            "- try:\n    do: [{throw: {code: too-much, message: No more}}]\n    catch:\n"
            "      do: [{return: '<< error.code ~ \": \" ~ error.message >>'}]",
            result="too-much: No more",
        ),
        Example(
            "catch some codes only",
            "- try:\n    do: [{throw: {code: other, message: x}}]\n    catch: {on: [timeout], do: [{return: 1}]}",
            fails="other",
        ),
        Example("always run", "- try:\n    do: [{stream: 1}]\n    finally: [{stream: 2}]", chunks=(1, 2)),
    ],
    compiled=True,
)
def try_(node: Node, code: Code) -> None:
    """Run steps and handle their errors.

    The error variable has `code`, `message`, `status`, `step` and `details`. Chunks that were already sent are
    not withdrawn.
    """
    body, handler, last = node.inner(), node.find("catch.do"), node.find("finally")
    if handler is None and last is None:
        code.block(body)
        return
    # Python has a block for `finally`, around another for `except`, which has two while it runs.
    around = int(last is not None)
    with code.indented("try:", blocks=around + (handler is not None)):
        code.block(body)
    if handler is not None:
        _write_catch(code, node, handler, blocks=around + 2)
    if last is not None:
        with code.indented("finally:", blocks=1):
            _write_finally(code, last)


def _write_finally(code: Code, last: Block) -> None:
    if not last.exits:
        code.block(last)
        return
    with code.part("last", last.bound) as name:
        code.steps(last)
    signal = code.fresh("signal")
    code.line(f"{signal} = {code.called(name)}()")
    # A `return` does not stop a cancellation or a time-out; it does stop an error.
    code.line(
        f"if {signal} is not None and "
        f"isinstance({code.constant(sys.exception)}(), {code.constant(CancelledError)}): raise"
    )
    code.propagate(signal)


def _write_catch(code: Code, node: Node, block: Block, blocks: int) -> None:
    handler = node.arguments.get("catch")
    assert isinstance(handler, Arguments)
    codes = handler.get("on")
    raised = code.fresh("raised")
    with (
        code.indented(f"except Exception as {raised}:", blocks=blocks),
        code.binding(str(constant(handler.get("as"), "error"))) as error,
    ):
        code.line(f"{error} = {code.constant(caught)}({raised})")
        if isinstance(codes, Items):
            wanted = frozenset(constant(item) for item in codes.items)
            code.line(f"if {error}['code'] not in {code.constant(wanted)}: raise {code.constant(located)}({raised})")
        code.block(block)


def thrown(code: Any, message: Any, status: int | None, details: Any) -> RunError:
    """Return the author's own error."""
    return RunError(
        str(code or "internal"), str(message if message is not None else code), status=status, details=details
    )


@function(
    "throw",
    Parameter("code", _CODE.type, _CODE.description, required=True, main=True),
    Parameter("message", Bound(Kind.TEXT), "Message for the client. Default: the code."),
    Parameter(
        "status",
        Bound(Kind.INTEGER, minimum=400, maximum=599),
        _STATUS + " Default: the status of a predefined code, such as 404 for `not-found`, or 500 for your own codes.",
    ),
    Parameter("details", Bound(), "Additional data for the handler that catches the error."),
    effects=Effects(ends=True),
    examples=[
        Example("a custom error", "- throw: {code: sold-out, message: None left, status: 409}", fails="sold-out")
    ],
    compiled=True,
)
def throw(node: Node, code: Code) -> None:
    """Fail with an error code, message and status of your own."""
    code.line(f"raise {code.constant(thrown)}(")
    _write_error(node, code, "code", "message", "status", "details")
    code.line(")")


def _write_error(node: Node, code: Code, *names: str) -> None:
    for name in names:
        code.line(f" {source_of(code, node, name)},", *values_given(node, name))


@function(
    "precondition",
    Parameter("that", Condition(), "Condition that must be true.", required=True, main=True),
    Parameter("code", _CODE.type, _CODE.description, default="invalid-input"),
    Parameter(
        "message", Bound(Kind.TEXT), "Message for the client.", default="A precondition of this request is not met."
    ),
    Parameter("status", Bound(Kind.INTEGER, minimum=400, maximum=599), _STATUS, default=400),
    examples=[
        Example(
            "a condition that fails",
            "- precondition: {that: << input.n < 5 >>, code: too-many, message: At most four}",
            inputs={"n": 9},
            fails="too-many",
        ),
        Example("a condition that holds", "- precondition: << input.n < 5 >>\n- return: 1", inputs={"n": 1}, result=1),
    ],
    compiled=True,
)
def precondition(node: Node, code: Code) -> None:
    """Fail unless a condition is true.

    Use it before the first chunk, so that the client receives the error's status.
    """
    condition = value_of(node, "that")
    assert condition is not None
    with code.condition("if not", code.source(condition), condition):
        code.line(f"raise {code.constant(thrown)}(")
        _write_error(node, code, "code", "message", "status")
        code.line(" None)")


FUNCTIONS = (try_, throw, precondition)
