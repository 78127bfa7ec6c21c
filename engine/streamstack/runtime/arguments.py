"""Looking into the arguments of steps: nested stacks, constants, what is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from streamstack.language.definition import Arguments, Entries, Given, Items, Stack
from streamstack.language.expressions import Value
from streamstack.language.values import MISSING


def written(stack: Stack) -> set[str]:
    """Return the variables that the steps of a stack write in its own frame."""
    found: set[str] = set()
    for step in stack.steps:
        if step.result is not None:
            found.add(step.result)
        effects = step.function.effects
        for parameter in step.function.parameters:
            argument = step.arguments.get(parameter.name)
            keys = (effects.sets and parameter.main) or effects.publishes == parameter.name
            if keys and isinstance(argument, Entries):
                found.update(entry.key for entry in argument.entries)
            if effects.rebinds == parameter.name and isinstance(argument, Given):
                found.add(argument.value)
        for nested in stacks(step.arguments.given.values()):
            found |= written(nested)
    return found


def stacks(arguments: Iterable[Any]) -> Iterator[Stack]:
    """Give every stack nested directly in some arguments."""
    for argument in arguments:
        if isinstance(argument, Stack):
            yield argument
        elif isinstance(argument, Entries):
            yield from stacks(entry.argument for entry in argument.entries)
        elif isinstance(argument, Items):
            yield from stacks(argument.items)
        elif isinstance(argument, Arguments):
            yield from stacks(argument.given.values())


def leaves(stack: Stack) -> bool:
    """Whether any step of a stack leaves a loop or a frame: break, continue, return."""
    return any(
        bool(step.function.effects.leaves)
        or any(map(leaves, stacks(step.arguments.given.values())))
        for step in stack.steps
    )


def constant_of(argument: Any, default: Any = MISSING) -> Any:
    """Return an argument's value where it is known at load, else MISSING; ``default`` where it isn't given."""
    if argument is None:
        return default
    if isinstance(argument, Given):
        return argument.value
    return argument.constant if isinstance(argument, Value) else MISSING
