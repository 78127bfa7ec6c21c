"""Loops: forEach, while, repeat, break and continue."""

from __future__ import annotations

from math import inf
from typing import Any, Final

import structlog

from streamstack.errors import RunError
from streamstack.language.definition import Effects, Example, Parameter, function
from streamstack.language.expressions.compile import Expression
from streamstack.language.graph import Block, Node, constant, values_of
from streamstack.runtime.compiler import Code, Loop, source_of, value_of, values_given
from streamstack.runtime.concurrency import concurrently
from streamstack.runtime.faults import located
from streamstack.runtime.run import Run
from streamstack.runtime.values import ENDLESS, Turns, iterate
from streamstack.spec import Binds, Bound, Condition, Constant, Kind, Nesting, StackOf, Variable

log = structlog.get_logger("streamstack.run")

ON_LIMIT = Parameter(
    "onLimit",
    Constant(choices=("fail", "stop")),
    "Fail with the error `limit-reached` at the limit, or end the loop without an error.",
    default="fail",
)


def limit_reached(limit: int) -> RunError:
    """Return the error of a loop that went past its limit."""
    return RunError(
        "limit-reached", f"the loop reached its limit of {limit} turns: raise `limit`, or write `onLimit: stop`"
    )


def skipped(run: Run, error: Exception) -> None:
    """Log an iteration that failed under `onError: skip`."""
    fault = located(error)
    log.warning("item-skipped", run=run.id, code=fault.code, message=fault.message, place=str(fault.place))


def _yield_to_loop(code: Code) -> None:
    """Write code that yields to the event loop when the run has used up its time slice."""
    code.line("if clock.perf_counter() > run.slice_ends: await run.yield_to_loop()")


def _limit(code: Code, node: Node) -> str | None:
    """Write the limit of a loop before it; return its Python name, None without a limit."""
    source = source_of(code, node, "limit")
    if source == "None":
        return None
    name = code.fresh("limit")
    code.line(f"{name} = {source}", *values_given(node, "limit"))
    code.line(f"if {name} is None: {name} = {code.constant(inf)}")
    return name


def _stops(node: Node) -> bool:
    return bool(constant(node.arguments.get("onLimit"), "fail") == "stop")


def _check_limit(code: Code, node: Node, index: str, limit: str | None) -> None:
    """Write the check of a loop's limit at the start of its body. ``index`` is the current iteration's index."""
    if limit is None:
        return
    ends = "break" if _stops(node) else f"raise {code.constant(limit_reached)}({limit})"
    code.line(f"if {index} >= {limit}: {ends}")


@function(
    "forEach",
    Parameter("in", Bound(Kind.ITEMS), "List or stream to iterate over.", required=True),
    Parameter("as", Variable(), "Variable that holds the item in the body.", default="item"),
    Parameter(
        "do", StackOf(Nesting.LOOP, (Binds("as", "item"),), loop=True), "Steps to run for each item.", required=True
    ),
    Parameter(
        "concurrency",
        Bound(Kind.INTEGER, minimum=1, maximum=1000),
        "Number of items processed at the same time. Above 1, each has its own copy of the variables.",
        default=1,
    ),
    Parameter(
        "ordered",
        Constant(Kind.BOOLEAN),
        "With `concurrency`: send the chunks in the order of the items.",
        default=False,
    ),
    Parameter(
        "onError",
        Constant(choices=("fail", "skip")),
        "If an item fails: end the loop with the error, or log the error and continue.",
        default="fail",
    ),
    Parameter("limit", Bound(Kind.INTEGER, minimum=0), "Maximum number of items."),
    ON_LIMIT,
    effects=Effects(),
    examples=[
        Example(
            "each item in order",
            "- forEach:\n    in: [a, b]\n    as: letter\n    do:\n      - stream: << loop.index ~ letter >>",
            chunks=("1a", "2b"),
        ),
        Example(
            "leave a loop early",
            "- forEach:\n    in: << range(100) >>\n    do:\n      - if: {condition: << item == 2 >>, then: [break]}\n"
            "      - stream: << item >>",
            chunks=(0, 1),
        ),
        Example(
            "several items at once, chunks in order",
            "- forEach:\n    in: [30, 10]\n    as: ms\n    concurrency: 2\n    ordered: true\n    do:\n"
            "      - wait: << ms >>\n      - stream: << ms >>",
            chunks=(30, 10),
        ),
    ],
    compiled=True,
)
def for_each(node: Node, code: Code) -> None:
    """Run steps for each item of a list, or of a stream as items arrive.

    In the body, `loop.index` counts from 1 and `loop.index0` from 0. `loop.first` is true for the first item.
    For a list, `loop.last` and `loop.length` are available too. `break` ends the loop and closes the stream
    immediately. `continue` skips to the next item.
    """
    source, index = code.fresh("source"), code.fresh("index")
    values = values_given(node, "in")
    code.line(f"{source} = {code.constant(iterate)}(", *values)
    given = value_of(node, "in")
    # A loop counts without a list of all numbers: its memory does not grow with its turns.
    counted = given.numbers(code) if isinstance(given, Expression) else None
    code.line(f" {counted or source_of(code, node, 'in')},", *values)
    code.line(f" unchanged={code.literal(_hands_on(node))})")
    if constant(node.arguments.get("concurrency"), 1) == 1:
        _in_turn(node, code, source, index)
    else:
        _at_once(node, code, source, index)


#: What a `stream` step may have beside its content without looking into it.
_BESIDE: Final = frozenset({"content", "event", "id", "metadata", "delay"})


def _hands_on(node: Node) -> bool:
    """Whether the body sends each item as it is, and looks at it nowhere else."""
    if constant(node.arguments.get("concurrency"), 1) != 1:
        return False
    body, name = node.inner(), str(constant(node.arguments.get("as"), "item"))
    if any(name in each.bound for each in body.walk()):
        return False
    for each in (inner.step for inner in body.walk()):
        sends = each.function.name == "stream" and each.arguments.given.keys() <= _BESIDE
        content = each.arguments.get("content")
        for value in values_of(each):
            if any(read.name == name for read in value.reads) and not (
                sends and value is content and value.reads[0].whole
            ):
                return False
    return True


def _in_turn(node: Node, code: Code, source: str, index: str) -> None:
    body = node.inner()
    variable = str(constant(node.arguments.get("as"), "item"))
    batch = code.fresh("batch")
    limit = _limit(code, node)
    with code.indented("try:", blocks=1), code.binding(variable, loop=Loop(index, source)) as item:
        code.line(f"{index} = -1")
        # A loop that stops at its limit does not wait for the item after.
        more = f"{index} + 1 < {limit} and " if limit is not None and _stops(node) else ""
        more_batches = f"{more}({batch} := await {source}.batch())"
        with code.indented(f"while {more_batches}:", blocks=1), code.looping():
            with code.indented(f"for {item} in {batch}:", blocks=1):
                _yield_to_loop(code)
                code.line(f"{index} += 1")
                _check_limit(code, node, index, limit)
                _turn(node, code, body)
            # The inner loop was left by `break`: leave the outer one too.
            code.line("else: continue")
            code.line("break")
    with code.indented("finally:"):
        code.line(f"await {source}.close()")


def _turn(node: Node, code: Code, body: Block) -> None:
    if constant(node.arguments.get("onError"), "fail") == "fail":
        code.block(body)
        return
    with code.indented("try:", blocks=1):
        code.block(body)
    error = code.fresh("error")
    with code.indented(f"except Exception as {error}:"):
        code.line(f"{code.constant(skipped)}(run, {error})")


def _at_once(node: Node, code: Code, source: str, index: str) -> None:
    body = node.inner()
    variable = str(constant(node.arguments.get("as"), "item"))
    with code.binding(variable, loop=Loop(index, source)) as item:
        turn = code.copy("turn", body, f"{item}, {index}, sink", signals=True)
    signal = code.fresh("signal")
    code.line(f"{signal} = await {code.constant(concurrently)}(run, {source}, {turn}, sink,")
    for name in ("concurrency", "limit"):
        given = source_of(code, node, name) if node.arguments.get(name) is not None else "None"
        code.line(f" {name}={given},", *values_given(node, name))
    ordered = constant(node.arguments.get("ordered"), default=False)
    code.line(f" ordered={code.literal(ordered)},")
    skip = constant(node.arguments.get("onError"), "fail") == "skip"
    code.line(f" skip={code.literal(skip)},")
    code.line(f" stop={code.literal(_stops(node))})")
    code.propagate(signal)


@function(
    "while",
    Parameter(
        "condition",
        Condition(),
        "Condition, evaluated before each iteration. The loop runs while it is true.",
        required=True,
    ),
    Parameter("do", StackOf(Nesting.LOOP, loop=True), "Steps of each iteration.", required=True),
    Parameter("limit", Bound(Kind.INTEGER, minimum=0), "Maximum number of iterations.", default=10_000),
    ON_LIMIT,
    examples=[
        Example(
            "count down",
            "- set: {n: 3}\n- while:\n    condition: << n > 0 >>\n"
            "    do:\n      - stream: << n >>\n      - set: {n: << n - 1 >>}",
            chunks=(3, 2, 1),
        ),
        Example("exceed the limit", "- while: {condition: true, limit: 5, do: [{log: turn}]}", fails="limit-reached"),
    ],
    compiled=True,
)
def while_(node: Node, code: Code) -> None:
    """Run steps repeatedly while a condition is true.

    A loop that exceeds `limit` iterations fails with `limit-reached`, which stops accidental infinite loops.
    """
    body, index = node.inner(), code.fresh("index")
    condition = value_of(node, "condition")
    assert condition is not None
    limit = _limit(code, node)
    code.line(f"{index} = -1")
    with (
        code.binding(None, loop=Loop(index, code.constant(ENDLESS))),
        code.condition("while", code.source(condition), condition, blocks=1),
        code.looping(),
    ):
        code.line(f"{index} += 1")
        _check_limit(code, node, index, limit)
        _yield_to_loop(code)
        code.block(body)


@function(
    "repeat",
    Parameter("times", Bound(Kind.INTEGER, minimum=0, maximum=100_000_000), "Number of iterations.", required=True),
    Parameter("do", StackOf(Nesting.LOOP, loop=True), "Steps of each iteration.", required=True),
    examples=[Example("three times", "- repeat: {times: 3, do: [{stream: << loop.index >>}]}", chunks=(1, 2, 3))],
    compiled=True,
)
def repeat(node: Node, code: Code) -> None:
    """Run steps a number of times. `loop.index` counts the iterations from 1."""
    body, index = node.inner(), code.fresh("index")
    turns = code.fresh("turns")
    code.line(f"{turns} = range({source_of(code, node, 'times')})", *values_given(node, "times"))
    with (
        code.binding(None, loop=Loop(index, f"{code.constant(Turns)}({turns})")),
        code.indented(f"for {index} in {turns}:", blocks=1),
        code.looping(),
    ):
        _yield_to_loop(code)
        code.block(body)


def _leaves(name: str, documentation: str, example: Example) -> Any:
    def write(node: Node, code: Code) -> None:
        code.leave(name)

    write.__doc__ = documentation
    leaves = "loop" if name == "break" else "turn"
    return function(name, effects=Effects(ends=True, leaves=leaves), examples=[example], compiled=True)(write)


break_ = _leaves(
    "break",
    "End the innermost loop. The stream that it reads is closed immediately.",
    Example("stop after the first item", "- forEach: {in: [1, 2], do: [{stream: << item >>}, break]}", chunks=(1,)),
)
continue_ = _leaves(
    "continue",
    "Skip to the next iteration of the innermost loop.",
    Example(
        "skip an item",
        "- forEach:\n    in: [1, 2, 3]\n    do:\n      - continue:\n        when: << item == 2 >>\n"
        "      - stream: << item >>",
        chunks=(1, 3),
    ),
)

FUNCTIONS = (for_each, while_, repeat, break_, continue_)
