"""Every step and every value of a definition, in written order."""

from __future__ import annotations

from collections.abc import Iterator

from streamstack.language.definition import (
    Argument,
    Arguments,
    Definition,
    Endpoint,
    Entries,
    Items,
    Stack,
    Step,
)
from streamstack.language.expressions import Value


def steps_of(stack: Stack) -> Iterator[Step]:
    """Yield the steps of a stack, each before the steps nested in it."""
    for step in stack.steps:
        yield step
        for argument in step.arguments.given.values():
            for inner in _stacks_in(argument):
                yield from steps_of(inner)


def values_of(step: Step) -> Iterator[Value]:
    """Yield the values of a step, without those of the steps nested in it."""
    for argument in step.arguments.given.values():
        yield from _values_in(argument)
    if step.when is not None:
        yield step.when
    if isinstance(step.timeout, Value):
        yield step.timeout


def all_values(definition: Definition) -> Iterator[Value]:
    """Yield every value of a definition."""
    if isinstance(definition, Endpoint):
        for _, value in definition.headers:
            yield value
        for limit in definition.rate_limits:
            yield from limit.bindings
    for step in steps_of(definition.stack):
        yield from values_of(step)
    if isinstance(definition, Endpoint) and definition.response is not None:
        yield definition.response


def _stacks_in(argument: Argument) -> Iterator[Stack]:
    if isinstance(argument, Stack):
        yield argument
    else:
        for inner in _inside(argument):
            yield from _stacks_in(inner)


def _values_in(argument: Argument) -> Iterator[Value]:
    if isinstance(argument, Value):
        yield argument
    else:
        for inner in _inside(argument):
            yield from _values_in(inner)


def _inside(argument: Argument) -> Iterator[Argument]:
    if isinstance(argument, Arguments):
        yield from argument.given.values()
    elif isinstance(argument, Items):
        yield from argument.items
    elif isinstance(argument, Entries):
        for entry in argument.entries:
            yield entry.argument
