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
from streamstack.spec import (
    Binds,
    Bound,
    Condition,
    Constant,
    Group,
    Kind,
    ListOf,
    Nesting,
    StackOf,
    Variable,
)

_CODE = Parameter(
    "code",
    Bound(Kind.TEXT, code=True),
    "What `catch` and the client tell it by: words-with-hyphens.",
)
_STATUS = "The HTTP status, when it is not caught and nothing was sent yet."


@function(
    "try",
    Parameter("do", StackOf(Nesting.GUARDED), "The steps that may fail.", required=True),
    Parameter(
        "catch",
        Group(
            (
                Parameter("as", Variable(), "The variable that holds the error.", default="error"),
                Parameter(
                    "on", ListOf(Constant(Kind.TEXT)), "The codes it catches; all, when not given."
                ),
                Parameter(
                    "do",
                    StackOf(Nesting.HANDLER, (Binds("as", "error"),)),
                    "The steps then.",
                    required=True,
                ),
            )
        ),
        "What to do with an error.",
    ),
    Parameter(
        "finally",
        StackOf(Nesting.FINALLY),
        "Steps that run in any case, also when the reader has left.",
    ),
    examples=[
        Example(
            "go on after an error",
            "- try:\n    do: [{throw: {code: too-much, message: No more}}]\n    catch:\n"
            "      do: [{return: '<< error.code ~ \": \" ~ error.message >>'}]",
            result="too-much: No more",
        ),
        Example(
            "only some codes",
            "- try:\n    do: [{throw: {code: other, message: x}}]\n    catch: {on: [timeout], do: [{return: 1}]}",
            fails="other",
        ),
        Example(
            "in any case",
            "- try:\n    do: [{stream: 1}]\n    finally: [{stream: 2}]",
            chunks=(1, 2),
        ),
    ],
    compiled=True,
)
def try_(node: Node, code: Code) -> None:
    """Run steps, and others when they fail.

    `error` has `code`, `message`, `status`, `step` and `details`. Chunks already sent stay sent.
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
    # Whoever stops a run, or a step whose time is over, is not stopped by a `return`; an error is.
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
            code.line(
                f"if {error}['code'] not in {code.constant(wanted)}: raise {code.constant(located)}({raised})"
            )
        code.block(block)


def thrown(code: Any, message: Any, status: int | None, details: Any) -> RunError:
    """Return the author's own error."""
    return RunError(
        str(code or "internal"),
        str(message if message is not None else code),
        status=status,
        details=details,
    )


@function(
    "throw",
    Parameter("code", _CODE.type, _CODE.description, required=True, main=True),
    Parameter("message", Bound(Kind.TEXT), "What the client reads; the code, when not given."),
    Parameter(
        "status",
        Bound(Kind.INTEGER, minimum=400, maximum=599),
        _STATUS
        + " When not given: that of the code, such as 404 for `not-found`; 500 for your own.",
    ),
    Parameter("details", Bound(), "More for who catches it."),
    effects=Effects(ends=True),
    examples=[
        Example(
            "an error of your own",
            "- throw: {code: sold-out, message: None left, status: 409}",
            fails="sold-out",
        ),
    ],
    compiled=True,
)
def throw(node: Node, code: Code) -> None:
    """Fail with an error of your own: its code, its message, its status."""
    code.line(f"raise {code.constant(thrown)}(")
    _write_error(node, code, "code", "message", "status", "details")
    code.line(")")


def _write_error(node: Node, code: Code, *names: str) -> None:
    for name in names:
        code.line(f" {source_of(code, node, name)},", *values_given(node, name))


@function(
    "precondition",
    Parameter("that", Condition(), "What must be true.", required=True, main=True),
    Parameter("code", _CODE.type, _CODE.description, default="invalid-input"),
    Parameter(
        "message",
        Bound(Kind.TEXT),
        "What the client reads.",
        default="A precondition of this request is not met.",
    ),
    Parameter("status", Bound(Kind.INTEGER, minimum=400, maximum=599), _STATUS, default=400),
    examples=[
        Example(
            "refuse",
            "- precondition: {that: << input.n < 5 >>, code: too-many, message: At most four}",
            inputs={"n": 9},
            fails="too-many",
        ),
        Example(
            "go on", "- precondition: << input.n < 5 >>\n- return: 1", inputs={"n": 1}, result=1
        ),
    ],
    compiled=True,
)
def precondition(node: Node, code: Code) -> None:
    """Fail unless a condition is true; as a rule before the first chunk, so that the client gets the status."""
    condition = value_of(node, "that")
    assert condition is not None
    with code.condition("if not", code.source(condition), condition):
        code.line(f"raise {code.constant(thrown)}(")
        _write_error(node, code, "code", "message", "status")
        code.line(" None)")


FUNCTIONS = (try_, throw, precondition)
