"""One step as Python: its modifiers, its call, its result."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from streamstack.language.definition import Arguments, Entries, Given, Items, Stack, Step
from streamstack.language.expressions import ObjectValue, Template, Text, Value
from streamstack.language.parameters import (
    Binds,
    Bound,
    Condition,
    Kind,
    Nesting,
    OneOf,
    Parameter,
    ParameterType,
    StackOf,
)
from streamstack.language.rates import parse_rate
from streamstack.language.sql import assembled, statement_in
from streamstack.language.units import parse_duration, parse_every, parse_size
from streamstack.language.values import MISSING, to_text
from streamstack.runtime import conversions
from streamstack.runtime.arguments import constant_of
from streamstack.runtime.code import Code
from streamstack.runtime.frames import Loop
from streamstack.runtime.values import ENDLESS


def write_step(code: Code, step: Step) -> None:
    """Write a step with its modifiers, the outermost first: disabled, when, retry, timeout."""
    if step.disabled:
        _null_result(code, step)
        return
    if step.when is None:
        _write_retried(code, step)
        return
    with code.condition("if", code.source(step.when), step.when):
        _write_retried(code, step)
    if step.result is not None:
        with code.indented("else:"):
            _null_result(code, step)


def _null_result(code: Code, step: Step) -> None:
    code.line(f"{code.target(step.result)} = None" if step.result is not None else "pass")


def opens_later(step: Step) -> bool:
    """Whether the step only makes a stream: its retry and timeout apply when that opens."""
    return step.function.effects.gives == "stream"


def _write_retried(code: Code, step: Step) -> None:
    if step.retry is None or opens_later(step):
        _write_timed(code, step)
        return
    with code.part("attempt", Stack((step,), step.mark), "sink", handed=True) as name:
        _write_timed(code, step)
    signal = code.fresh("signal")
    code.line(f"{signal} = await retried(run, {code.constant(step.retry)}, {name}, sink)")
    code.hand_on(signal)


def timeout_source(step: Step, code: Code) -> str:
    """Return Python source for a step's time-out in seconds; `None` where it has none."""
    if step.timeout is None:
        return "None"
    if isinstance(step.timeout, Value):
        return f"{code.constant(conversions.duration)}({code.source(step.timeout)}, 'timeout')"
    return code.literal(float(step.timeout))


def _write_timed(code: Code, step: Step) -> None:
    if step.timeout is None or opens_later(step):
        _write_call(code, step)
        return
    values = (step.timeout,) if isinstance(step.timeout, Value) else ()
    with code.indented(f"async with limited({timeout_source(step, code)}):", *values, blocks=1):
        _write_call(code, step)


def _write_call(code: Code, step: Step) -> None:
    """Write what the function itself stands for."""
    function = step.function
    if function.compile is not None:
        function.compile(step, code)
        return
    run = function.run
    assert run is not None
    around, code.per_item = code.per_item, {}
    arguments = list(_arguments(code, step))
    code.per_item = around
    if function.sees_functions:
        arguments.append(("functions", "functions", ()))
    call = code.constant(run)
    if opens_later(step) and (step.retry is not None or step.timeout is not None):
        with _result(code, step) as target:
            code.line(
                f"{target}guarded(run, {code.constant(step.retry)}, {timeout_source(step, code)}, {call},"
            )
            _write_arguments(code, arguments)
            code.line(")")
        return
    awaited = "await " if inspect.iscoroutinefunction(run) else ""
    with _result(code, step) as target:
        code.line(f"{target}{awaited}{call}(run,")
        _write_arguments(code, arguments)
        code.line(")")


@contextmanager
def _result(code: Code, step: Step) -> Iterator[str]:
    yield f"{code.target(step.result)} = " if step.result is not None else ""


def _write_arguments(code: Code, arguments: list[tuple[str, str, tuple[Value, ...]]]) -> None:
    for name, source, values in arguments:
        code.line(f" {name}={source},", *values)


def _arguments(code: Code, step: Step) -> Iterator[tuple[str, str, tuple[Value, ...]]]:
    """Give the keyword, the source and the values of each argument that was given."""
    for parameter in step.function.parameters:
        argument = step.arguments.get(parameter.name)
        if argument is None or _names_a_variable(parameter):
            continue
        source = argument_source(code, step, parameter.type, argument, parameter)
        yield parameter.python_name, source, tuple(values_of(argument))


def _names_a_variable(parameter: Parameter) -> bool:
    return type(parameter.type).__name__ == "Variable"


def values_of(argument: Any) -> Iterator[Value]:
    """Give the values in an argument, but for those of nested stacks."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, Entries):
        for entry in argument.entries:
            yield from values_of(entry.argument)
    elif isinstance(argument, Items):
        for item in argument.items:
            yield from values_of(item)
    elif isinstance(argument, Arguments):
        for inner in argument.given.values():
            yield from values_of(inner)


def argument_source(
    code: Code, step: Step, declared: ParameterType, argument: Any, parameter: Parameter
) -> str:
    """Return Python source for one argument of a plain function."""
    if isinstance(argument, Given):
        return code.literal(argument.value)
    if isinstance(argument, Stack):
        return _stack_source(code, step, declared, argument)
    if isinstance(argument, Entries):
        inner = [
            f"{entry.key!r}: {argument_source(code, step, _item(declared), entry.argument, parameter)}"
            for entry in argument.entries
        ]
        return "{" + ", ".join(inner) + "}"
    if isinstance(argument, Items):
        items = [
            argument_source(code, step, _item(declared), item, parameter) for item in argument.items
        ]
        return "[" + ", ".join(items) + "]"
    if isinstance(argument, Arguments):
        group = _form(declared, "parameters")
        entries = [
            f"{inner.python_name!r}: {argument_source(code, step, inner.type, given, inner)}"
            for inner in group.parameters
            if (given := argument.get(inner.name)) is not None
        ]
        source = "{" + ", ".join(entries) + "}"
        return source if group.make is None else f"{code.constant(group.make)}({source})"
    return value_source(code, step, declared, argument, parameter)


def values_given(step: Step, *names: str) -> tuple[Value, ...]:
    """Return the values among some parameters, for the line that computes them."""
    return tuple(value for name in names if (value := value_of(step, name)) is not None)


def value_of(step: Step, name: str) -> Value | None:
    """Return a parameter's value where it was given as one."""
    argument = step.arguments.get(name)
    return argument if isinstance(argument, Value) else None


def source_of(code: Code, step: Step, name: str) -> str:
    """Return Python source for a parameter: what was given, converted, or its default."""
    parameter = step.function.by_name[name]
    argument = step.arguments.get(name)
    if argument is None:
        return code.literal(parameter.default)
    return argument_source(code, step, parameter.type, argument, parameter)


def _form(declared: ParameterType, attribute: str) -> Any:
    """Return the form of a parameter type that has an attribute; of OneOf, the first that has."""
    if isinstance(declared, OneOf):
        return next(form for form in declared.forms if hasattr(form, attribute))
    return declared


def _item(declared: ParameterType) -> ParameterType:
    form: ParameterType = _form(declared, "item").item
    return form


def value_source(
    code: Code, step: Step, declared: ParameterType, value: Value, parameter: Parameter
) -> str:
    """Return Python source for a value, converted to what its parameter expects.

    One that is evaluated for each item becomes a function, written before the step.
    """
    bound = next((f for f in _forms(declared) if isinstance(f, (Bound, Condition))), None)
    per_item = bound.per_item if bound is not None else None
    if per_item is not None:
        # One function for what is written several times: what its users ask for is computed once.
        written = (parameter.name, value.text) if value.whole else (parameter.name, code.fresh(""))
        known = code.per_item.get(written)
        if known is not None:
            return known
        name = code.per_item[written] = code.fresh("each")
        with code.binding(item_name(step, per_item)) as item, code.indented(f"def {name}({item}):"):
            code.line("return (")
            code.line(f" {_converted(code, bound, value, parameter)}", value)
            code.line(")")
        return name
    return _converted(code, bound, value, parameter)


def _forms(declared: ParameterType) -> tuple[ParameterType, ...]:
    return declared.forms if isinstance(declared, OneOf) else (declared,)


def item_name(step: Step, binds: Binds) -> str:
    """Return the variable that a nested stack or expression sees each item as."""
    return str(constant_of(step.arguments.get(binds.parameter), binds.default))


_CONVERT: dict[Kind, Callable[[Any, str], Any]] = {
    Kind.TEXT: conversions.text,
    Kind.URL: conversions.text,
    Kind.INTEGER: conversions.integer,
    Kind.NUMBER: conversions.number,
    Kind.BOOLEAN: conversions.boolean,
    Kind.LIST: conversions.items,
    Kind.OBJECT: conversions.mapping,
    Kind.HEADERS: conversions.mapping,
    Kind.DURATION: conversions.duration,
    Kind.SIZE: conversions.size,
    Kind.EVERY: conversions.every,
    Kind.RATE: conversions.rate,
}


def _converted(code: Code, bound: Any, value: Value, parameter: Parameter) -> str:
    """Return source that converts a value; a constant is converted now, null gives way to the default."""
    kind = bound.kind if isinstance(bound, Bound) else Kind.ANY
    if kind is Kind.SQL:
        return _statement_source(code, value)
    if value.constant is not MISSING:
        constant = value.constant
        if kind is Kind.DURATION:
            constant = parse_duration(constant)
        elif kind is Kind.SIZE:
            constant = parse_size(constant)
        elif kind is Kind.EVERY:
            constant = parse_every(constant)
        elif kind is Kind.RATE:
            constant = parse_rate(constant)
        if not isinstance(constant, (list, dict)):
            return code.literal(constant)
        return code.source(value)
    source = _url_source(code, value, parameter.name) if kind is Kind.URL else code.source(value)
    convert = _CONVERT.get(kind)
    if kind is Kind.HEADERS and not isinstance(value, ObjectValue):
        convert = conversions.forwarded_headers
    if convert is not None:
        source = f"{code.constant(convert)}({source}, {parameter.name!r})"
        if isinstance(bound, Bound) and (bound.minimum is not None or bound.maximum is not None):
            source = (
                f"{code.constant(conversions.within)}({source}, {parameter.name!r}, "
                f"{code.literal(bound.minimum)}, {code.literal(bound.maximum)})"
            )
        if isinstance(bound, Bound) and bound.choices:
            choices = code.constant(bound.choices)
            source = f"{code.constant(conversions.choice)}({source}, {parameter.name!r}, {choices})"
    if parameter.required and kind is not Kind.ANY:
        return f"{code.constant(conversions.given)}({source}, {parameter.name!r})"
    if parameter.default is not None:
        default = code.literal(parameter.default)
        return f"{code.constant(conversions.default)}({source}, {default})"
    return source


#: The beginning of a URL up to its path or query. What is bound before that is a base: it is sent as it is.
_URL_BASE = re.compile(r"(?>(?:[^/?#]*://)?)[^/?#]*[/?#]")
#: Filters that make of a value what stands in a URL as it is.
_ENCODED = frozenset({"safe", "urlEncode", "urlencode"})


def _url_source(code: Code, value: Value, name: str) -> str:
    """Return Python source for a URL whose bindings inside path and query are percent-encoded."""
    if not isinstance(value, Text):
        return code.source(value)
    to_part, before, sources = code.constant(conversions.url_part), "", []
    for part in value.parts:
        if isinstance(part, str):
            sources.append(repr(part))
            before += part
            continue
        if _URL_BASE.match(before) and part.last_filter not in _ENCODED:
            in_path = "?" not in before and "#" not in before
            sources.append(f"{to_part}({part.source(code)}, {name!r}, {in_path})")
        else:
            sources.append(f"{code.constant(to_text)}({part.source(code)})")
        before += "x"
    return f"''.join(({', '.join(sources)},))"


def _statement_source(code: Code, value: Value) -> str:
    """Return Python source for a statement with the values of its parameters."""
    if isinstance(value, Template):
        return f"{code.constant(assembled)}({value.source_of_pieces(code)})"
    values = "".join(f"{code.source(each)}, " for each in value.bindings())
    return f"({code.constant(statement_in(value))}, [{values}])"


def _stack_source(code: Code, step: Step, declared: ParameterType, stack: Stack) -> str:
    """Write a nested stack of a plain function as a coroutine function; return its name.

    It is called with the item and its index from 0 where its Nesting is ITEM, else without arguments.
    """
    form = next(f for f in _forms(declared) if isinstance(f, StackOf))
    own = form.nesting is not Nesting.ITEM or constant_of(step.arguments.get("concurrency"), 1) != 1
    binds = form.binds[0] if form.binds else None
    loop = Loop("index", code.constant(ENDLESS)) if form.nesting is Nesting.ITEM else None
    with code.binding(item_name(step, binds) if binds is not None else None, loop=loop) as item:
        parameters = f"{item}, index" if form.nesting is Nesting.ITEM else ""
        return (
            code.copy("body", stack, parameters) if own else code.shared("body", stack, parameters)
        )
