"""Loops, conditions, branches, calls, waiting, errors, and steps that run after the response."""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError
from collections.abc import Mapping
from math import inf
from typing import Any, Final

import structlog

from streamstack.errors import RunError
from streamstack.language.definition import Arguments, Effects, Entries, Example, Items, Parameter, function
from streamstack.language.expressions import Value
from streamstack.language.expressions.compile import Expression, Read
from streamstack.language.graph import Block, Node, constant, values_of
from streamstack.language.kinds import Kind
from streamstack.language.names import did_you_mean
from streamstack.language.values import to_text
from streamstack.runtime.compiler import Code, Loop, source_of, value_of, values_among
from streamstack.runtime.concurrency import concurrently, together
from streamstack.runtime.faults import caught, located
from streamstack.runtime.run import Run
from streamstack.runtime.values import ENDLESS, Iterations, RelayedFields, Unchanged, batches_of, iterate
from streamstack.spec import Binds, Bound, Condition, Constant, Group, ListOf, Named, Nesting, OneOf, StackOf, Variable

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
    code.line(f"{name} = {source}", *values_among(node, "limit"))
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
    values = values_among(node, "in")
    code.line(f"{source} = {code.constant(iterate)}(", *values)
    argument = value_of(node, "in")
    # A loop counts without a list of all numbers: its memory does not grow with its turns.
    counted = argument.numbers(code) if isinstance(argument, Expression) else None
    code.line(f" {counted or source_of(code, node, 'in')},", *values)
    code.line(f" unchanged={code.literal(_hands_on(node))})")
    if constant(node.arguments.get("concurrency"), 1) == 1:
        _sequential(node, code, source, index)
    else:
        _at_once(node, code, source, index)


#: What a `stream` step may have beside its content without looking into it.
_BESIDE: Final = frozenset({"content", "event", "id", "metadata", "delay"})


def _hands_on(node: Node) -> Unchanged:
    """Return what the body sends as it is and looks at nowhere else: each item, its `content`, or neither."""
    if constant(node.arguments.get("concurrency"), 1) != 1:
        return False
    body, name = node.inner(), str(constant(node.arguments.get("as"), "item"))
    if any(name in each.bound for each in body.walk()):
        return False
    items = contents = True
    for each in (inner.step for inner in body.walk()):
        sends = each.function.name == "stream" and each.arguments.by_name.keys() <= _BESIDE
        content = each.arguments.get("content")
        for value in values_of(each):
            reads = [read for read in value.reads if read.name == name]
            sent = sends and value is content
            if reads and not (sent and value.reads[0].whole):
                items = False
            if not all((sent and _is_content(value, read)) or _is_beside(read) for read in reads):
                contents = False
    return items or ("content" if contents else False)


def _relayed(node: Node, code: Code) -> RelayedFields | None:
    """Return the fields of each item that the body sends, where it does nothing else."""
    body, name = node.inner(), str(constant(node.arguments.get("as"), "item"))
    if code.has_probes or _hands_on(node) != "content" or len(body.stack.steps) != 1:
        return None
    if node.arguments.get("limit") is not None or constant(node.arguments.get("onError"), "fail") != "fail":
        return None
    step = body.stack.steps[0]
    if step.function.name != "stream" or step.disabled or step.when or step.timeout or step.retry:
        return None
    fields: dict[str, str] = {}
    for parameter, value in step.arguments.by_name.items():
        start, dot, field = value.text.strip().partition(".") if isinstance(value, Value) and value.whole else ("",) * 3
        if parameter not in ("content", "event", "id") or start != name or not dot or not field.isidentifier():
            return None
        fields[parameter] = field
    return RelayedFields(**fields)


def _is_content(value: Value, read: Read) -> bool:
    """Return whether a value is the `content` of an item, and nothing else."""
    return value.whole and value.text.strip() == f"{read.name}.content"


def _is_beside(read: Read) -> bool:
    """Return whether an item is read at something other than its `content`."""
    return len(read.path) > 0 and isinstance(read.path[0], str) and read.path[0] != "content"


def _sequential(node: Node, code: Code, source: str, index: str) -> None:
    body = node.inner()
    variable = str(constant(node.arguments.get("as"), "item"))
    batch = code.fresh("batch")
    limit = _limit(code, node)
    with code.indented("try:", blocks=1), code.binding(variable, loop=Loop(index, source)) as item:
        code.line(f"{index} = -1")
        # A loop that stops at its limit does not wait for the item after.
        more = f"{index} + 1 < {limit} and " if limit is not None and _stops(node) else ""
        next_batch = f"{source}.batch"
        if (fields := _relayed(node, code)) is not None:
            next_batch = code.fresh("next")
            code.line(f"{next_batch} = {code.constant(batches_of)}({source}, {code.constant(fields)})")
        more_batches = f"{more}({batch} := await {next_batch}())"
        with code.indented(f"while {more_batches}:", blocks=1), code.looping():
            with code.indented(f"for {item} in {batch}:", blocks=1):
                _yield_to_loop(code)
                code.line(f"{index} += 1")
                _check_limit(code, node, index, limit)
                _iteration(node, code, body)
            # The inner loop was left by `break`: leave the outer one too.
            code.line("else: continue")
            code.line("break")
    with code.indented("finally:"):
        code.line(f"await {source}.close()")


def _iteration(node: Node, code: Code, body: Block) -> None:
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
        body_name = code.copy("iteration", body, f"{item}, {index}, sink", signals=True)
    signal = code.fresh("signal")
    code.line(f"{signal} = await {code.constant(concurrently)}(run, {source}, {body_name}, sink,")
    for name in ("concurrency", "limit"):
        source_text = source_of(code, node, name) if node.arguments.get(name) is not None else "None"
        code.line(f" {name}={source_text},", *values_among(node, name))
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
    iterations = code.fresh("iterations")
    code.line(f"{iterations} = range({source_of(code, node, 'times')})", *values_among(node, "times"))
    with (
        code.binding(None, loop=Loop(index, f"{code.constant(Iterations)}({iterations})")),
        code.indented(f"for {index} in {iterations}:", blocks=1),
        code.looping(),
    ):
        _yield_to_loop(code)
        code.block(body)


def _jump_function(name: str, documentation: str, example: Example) -> Any:
    def write(node: Node, code: Code) -> None:
        code.jump(name)

    write.__doc__ = documentation
    leaves = "loop" if name == "break" else "turn"
    return function(name, effects=Effects(ends=True, leaves=leaves), examples=[example], compiled=True)(write)


break_ = _jump_function(
    "break",
    "End the innermost loop. The stream that it reads is closed immediately.",
    Example("stop after the first item", "- forEach: {in: [1, 2], do: [{stream: << item >>}, break]}", chunks=(1,)),
)
continue_ = _jump_function(
    "continue",
    "Skip to the next iteration of the innermost loop.",
    Example(
        "skip an item",
        "- forEach:\n    in: [1, 2, 3]\n    do:\n      - continue:\n        when: << item == 2 >>\n"
        "      - stream: << item >>",
        chunks=(1, 3),
    ),
)


@function(
    "if",
    Parameter("condition", Condition(), "Condition to evaluate.", required=True),
    Parameter("then", StackOf(Nesting.ALTERNATIVE), "Steps to run if it is true.", required=True),
    Parameter(
        "elseIf",
        ListOf(
            Group(
                (
                    Parameter(
                        "condition", Condition(), "Evaluated if all conditions before it are false.", required=True
                    ),
                    Parameter("then", StackOf(Nesting.ALTERNATIVE), "Steps to run if it is true.", required=True),
                )
            )
        ),
        "More conditions, evaluated in order.",
    ),
    Parameter("else", StackOf(Nesting.OTHERWISE), "Steps to run if no condition is true."),
    examples=[
        Example(
            "one of three branches",
            "- if:\n    condition: << input.n > 9 >>\n    then: [{return: many}]\n"
            "    elseIf: [{condition: << input.n > 1 >>, then: [{return: some}]}]\n    else: [{return: few}]",
            inputs={"n": 5},
            result="some",
        )
    ],
    compiled=True,
)
def if_(node: Node, code: Code) -> None:
    """Run the steps of the first condition that is true."""
    more = node.arguments.get("elseIf")
    choices = [node.arguments, *(more.items if isinstance(more, Items) else ())]
    blocks = node.nested(Nesting.ALTERNATIVE)
    for number, (choice, then) in enumerate(zip(choices, blocks, strict=True)):
        assert isinstance(choice, Arguments)
        condition = choice.get("condition")
        assert isinstance(condition, Value)
        with code.condition("elif" if number else "if", code.source(condition), condition):
            code.block(then)
    otherwise = node.find("else")
    if otherwise is not None:
        with code.indented("else:"):
            code.block(otherwise)
    else:
        code.probe_otherwise(node)


def case_of(value: Any) -> str:
    """Return the text under which `switch` looks a value up."""
    return "null" if value is None else to_text(value)


@function(
    "switch",
    Parameter("value", Bound(), "Value to compare.", required=True),
    Parameter(
        "cases",
        Named(StackOf(Nesting.ALTERNATIVE)),
        "Steps for each value. A number, true, false or null matches its text form.",
        required=True,
    ),
    Parameter("default", StackOf(Nesting.OTHERWISE), "Steps to run if no case matches."),
    examples=[
        Example(
            "match a number",
            "- switch:\n    value: << input.status >>\n    cases:\n      200: [{return: fine}]\n"
            "      404: [{return: gone}]\n    default: [{return: odd}]",
            inputs={"status": 404},
            result="gone",
        )
    ],
    compiled=True,
)
def switch(node: Node, code: Code) -> None:
    """Run the steps of the case that matches a value."""
    blocks, default = node.nested(Nesting.ALTERNATIVE), node.find("default")
    case = code.fresh("case")
    code.line(f"{case} = {code.constant(case_of)}({source_of(code, node, 'value')})", *values_among(node, "value"))
    for number, block in enumerate(blocks):
        with code.indented(f"{'elif' if number else 'if'} {case} == {code.literal(block.label)}:"):
            code.block(block)
    if default is not None:
        with code.indented("else:" if blocks else "if True:"):
            code.block(default)
    elif blocks:
        code.probe_otherwise(node)


@function(
    "parallel",
    Parameter(
        "branches",
        Named(StackOf(Nesting.BRANCH), keys_are_variables=True),
        "Branches by name, each a list of steps.",
        required=True,
        main=False,
    ),
    Parameter(
        "concurrency",
        Bound(Kind.INTEGER, minimum=1),
        "Maximum number of branches that run at the same time. Default: all.",
    ),
    effects=Effects(publishes="branches"),
    examples=[
        Example(
            "two branches",
            "- parallel:\n    branches:\n      a: [{wait: 5ms}, {return: 1}]\n      b: [{return: 2}]\n"
            "- return: << [a, b] >>",
            result=[1, 2],
        )
    ],
    compiled=True,
)
def parallel(node: Node, code: Code) -> None:
    """Run branches concurrently, each with its own copy of the variables.

    After the step, a variable with the branch's name holds the value of the branch's `return` (null without
    one). An error in one branch cancels the others. Chunks are sent as the branches emit them.
    """
    names = [(str(block.label), code.copy("branch", block)) for block in node.blocks]
    results = code.fresh("results")
    listed = ", ".join(f"{code.literal(key)}: {name}" for key, name in names)
    concurrency = source_of(code, node, "concurrency")
    code.line(
        f"{results} = await {code.constant(together)}({{{listed}}}, {concurrency})", *values_among(node, "concurrency")
    )
    for number, (key, _) in enumerate(names):
        code.line(f"{code.target(key)} = {results}[{number}]")


@function(
    "return",
    Parameter("value", Bound(Kind.ANY_OR_STREAM), "Value to return.", required=False, main=True),
    effects=Effects(ends=True, leaves="frame"),
    examples=[
        Example("return a value", "- return: {sum: << 1 + 2 >>}", result={"sum": 3}),
        Example("return without a value", "- return\n- stream: never", result=None, chunks=()),
    ],
    compiled=True,
)
def return_(node: Node, code: Code) -> None:
    """End the current run, function or body and return a value.

    `return` ends the innermost of: the run, a called function, a branch of `parallel`, the body of
    `streams.map`, the body of `after`. A `responseType: json` endpoint responds with the value, unless it has a
    `response`.
    """
    code.emit_return(source_of(code, node, "value"), *values_among(node, "value"))


async def called(run: Run, functions: Mapping[str, Any], name: str, arguments: Mapping[str, Any], sink: Any) -> Any:
    """Call a `kind: function` with its inputs checked.

    Raises RunError ``template`` for inputs that don't fit, ``limit-reached`` past the depth.
    """
    return await find_function(functions, name).call(run, arguments, sink)


def find_function(functions: Mapping[str, Any], name: str) -> Any:
    """Return a `kind: function` by its name. Raises RunError ``template``."""
    target = functions.get(name)
    if target is None:
        raise RunError("template", f"unknown function `{name}`{did_you_mean(name, functions)}")
    return target


def allowed(name: Any, names: tuple[str, ...], step: str = "call") -> str:
    """Return the name of a function to call, when it is among those the author allows."""
    if name not in names:
        raise RunError("template", f"`{step}` may call {', '.join(names)} here, not `{name}`")
    return str(name)


@function(
    "call",
    Parameter("function", Bound(Kind.TEXT), "Name of the function.", required=True, main=True),
    Parameter(
        "with",
        OneOf((Named(Bound(Kind.ANY_OR_STREAM)), Bound(Kind.OBJECT))),
        "Inputs by name, or a binding that yields them, such as a tool call's `arguments`.",
    ),
    Parameter(
        "oneOf", ListOf(Constant(Kind.TEXT)), "Functions that may be called. Required if `function` is a binding."
    ),
    effects=Effects(gives="either", calls=("function", "oneOf")),
    compiled=True,
)
def call(node: Node, code: Code) -> None:
    """Call a function of the project (`kind: function`) and get the value it returns.

    The function can access only its inputs and the reserved names. Chunks that it emits are sent to the
    caller's stream.
    """
    argument, names = node.arguments.get("with"), node.arguments.get("oneOf")
    source = source_of(code, node, "function")
    if isinstance(names, Items):
        allowed_names = tuple(str(getattr(item, "value", "")) for item in names.items)
        source = f"{code.constant(allowed)}({source}, {code.constant(allowed_names)})"
    result = f"{code.target(node.step.result)} = " if node.step.result is not None else ""
    code.line(f"{result}await {code.constant(called)}(run, functions,")
    code.line(f" {source},", *values_among(node, "function"))
    if isinstance(argument, Value):
        code.line(f" ({source_of(code, node, 'with')}) or {{}}, sink)", argument)
        return
    code.line(" {")
    for entry in argument.entries if isinstance(argument, Entries) else ():
        assert isinstance(entry.argument, Value)
        code.line(f"  {code.literal(entry.key)}: {code.source(entry.argument)},", entry.argument)
    code.line(" }, sink)")


@function(
    "wait",
    Parameter("duration", Bound(Kind.DURATION, minimum=0), "How long to wait.", required=True, main=True),
    examples=[Example("wait 5 ms", "- wait: 5ms\n- return: 1", result=1)],
)
async def wait(run: Run, duration: float) -> None:
    """Wait for some time. Chunks emitted before are sent immediately, and other runs continue."""
    await asyncio.sleep(duration)


@function(
    "after",
    Parameter("do", StackOf(Nesting.DEFERRED), "Steps to run.", required=True),
    Parameter("timeout", Bound(Kind.DURATION, minimum=0), "Time limit for all steps together.", default=60.0),
    examples=[Example("log the outcome", "- after: {do: [{log: << run.outcome >>}]}\n- return: 1", result=1)],
    compiled=True,
)
def after(node: Node, code: Code) -> None:
    """Register steps that run once, after the run has ended and the response is closed.

    The steps run regardless of the outcome: `run.outcome` is `completed`, `failed` or `cancelled` (the client
    disconnected). They see the final values of the variables. The item and `loop` of an enclosing loop are
    those of the iteration that registered the steps. The steps can't send chunks.
    """
    name = code.copy("after", node.inner(), code.captured)
    code.line(f"run.after({name}, {source_of(code, node, 'timeout')})", *values_among(node, "timeout"))


# -- errors

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
        code.line(f" {source_of(code, node, name)},", *values_among(node, name))


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


FUNCTIONS = (
    *(for_each, while_, repeat, break_, continue_),
    *(if_, switch, parallel, return_, call, wait, after, try_, throw, precondition),
)
