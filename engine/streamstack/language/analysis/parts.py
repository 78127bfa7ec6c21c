"""What a step holds, sorted by what it means: values, values per item, nested stacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from streamstack.errors import Mark
from streamstack.language.definition import (
    Argument,
    Arguments,
    Entries,
    Given,
    Items,
    Stack,
    Step,
)
from streamstack.language.expressions import Value
from streamstack.language.values import MISSING
from streamstack.records import record
from streamstack.spec import (
    Binds,
    Bound,
    Condition,
    Group,
    Kind,
    ListOf,
    Named,
    Nesting,
    OneOf,
    StackOf,
    Type,
)

#: Beside a LOOP or ITEM stack: how many turns run at once. Above 1 each has its own copy of the variables.
CONCURRENCY = "concurrency"

#: Stacks that write to a copy of the variables.
COPIES = frozenset({Nesting.BRANCH, Nesting.DEFERRED, Nesting.FRAME})


@record()
class Use:
    """A value of a step: what its parameter takes; None for a condition."""

    value: Value
    kind: Kind | None
    parameter: str
    entry: str | None = None  # the author's own key it stands under


@record()
class PerItem:
    """A value evaluated for each item, which is bound under ``name``."""

    value: Value
    name: str


@record()
class Nested:
    """A nested stack, with the names it binds."""

    stack: Stack
    type: StackOf
    binds: tuple[tuple[str, Binds], ...]
    label: str | None  # the author's name of it: the branch
    copies: bool  # it writes to a copy of the variables
    at_once: bool  # several copies of it, or others beside it, run at the same time
    counted: bool  # the number of its turns is known when it begins


@dataclass(slots=True)
class Parts:
    """Everything in a step's arguments, in the order of the function's parameters."""

    uses: list[Use] = field(default_factory=list)
    per_item: list[PerItem] = field(default_factory=list)
    nested: list[Nested] = field(default_factory=list)


def take_apart(step: Step) -> Parts:
    """Sort what a step holds."""
    sorter = _Sorter(step)
    given = step.arguments.given
    for parameter in step.function.parameters:
        argument = given.get(parameter.name)
        if argument is not None:
            sorter.sort(parameter.name, parameter.type, argument, step.arguments, None)
    return sorter.parts


_CONTAINERS = frozenset({Arguments, Items, Entries})


class _Sorter:
    """Walks down the arguments of a step and the types of its function's parameters at once."""

    __slots__ = ("parts", "step")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.parts = Parts()

    def sort(
        self,
        parameter: str,
        wanted: Type,
        argument: Argument,
        group: Arguments,
        entry: str | None,
    ) -> None:
        """Sort one argument. ``group`` holds it; ``entry`` is the author's own key above it."""
        kind = type(argument)
        if kind is Given:
            return
        if isinstance(argument, Stack):
            form = _form(wanted, (StackOf,))
            if isinstance(form, StackOf):
                self.parts.nested.append(_nest(self.step, form, argument, group, entry))
        elif kind not in _CONTAINERS and isinstance(argument, Value):
            self._value(parameter, _form(wanted, (Bound, Condition)), argument, group, entry)
        else:
            for name, inner_type, inner, inner_group, inner_entry in _inside(wanted, argument):
                self.sort(
                    name or parameter, inner_type, inner, inner_group or group, inner_entry or entry
                )

    def _value(
        self,
        parameter: str,
        form: Type | None,
        value: Value,
        group: Arguments,
        entry: str | None,
    ) -> None:
        if not isinstance(form, (Bound, Condition)):
            return
        if form.per_item is not None:
            name = _bound_name(form.per_item, group, self.step)
            self.parts.per_item.append(PerItem(value, name))
        else:
            kind = form.kind if isinstance(form, Bound) else None
            self.parts.uses.append(Use(value, kind, parameter, entry))


def _inside(
    wanted: Type, argument: Argument
) -> Iterator[tuple[str, Type, Argument, Arguments | None, str | None]]:
    """Yield what a group, a list or a mapping holds: parameter, type, argument, group, entry."""
    if isinstance(argument, Arguments):
        form = _form(wanted, (Group,))
        for inner in form.parameters if isinstance(form, Group) else ():
            given = argument.given.get(inner.name)
            if given is not None:
                yield inner.name, inner.type, given, argument, None
    elif isinstance(argument, Items):
        form = _form(wanted, (ListOf,))
        if isinstance(form, ListOf):
            for item in argument.items:
                yield "", form.item, item, None, None
    elif isinstance(argument, Entries):
        form = _form(wanted, (Named,))
        if isinstance(form, Named):
            for each in argument.entries:
                yield "", form.item, each.argument, None, each.key


def _form(wanted: Type, types: tuple[type, ...]) -> Type | None:
    if isinstance(wanted, OneOf):
        return next((f for form in wanted.forms if (f := _form(form, types)) is not None), None)
    return wanted if isinstance(wanted, types) else None


def _bound_name(binds: Binds, group: Arguments, step: Step) -> str:
    named = group.given.get(binds.parameter) or step.arguments.given.get(binds.parameter)
    return str(named.value) if isinstance(named, Given) else (binds.default or binds.parameter)


def _nest(step: Step, form: StackOf, stack: Stack, group: Arguments, label: str | None) -> Nested:
    binds = tuple((_bound_name(each, group, step), each) for each in form.binds)
    nesting = form.nesting
    counted = bool(binds) or not any(
        isinstance(p.type, Condition) for p in step.function.parameters
    )
    several = nesting in (Nesting.LOOP, Nesting.ITEM) and not _one_by_one(step)
    copies = several or nesting in COPIES
    at_once = several or nesting is Nesting.BRANCH
    return Nested(stack, form, binds, label, copies, at_once, counted)


def _one_by_one(step: Step) -> bool:
    given = step.arguments.given.get(CONCURRENCY)
    return given is None or constant(given) == 1


def constant(argument: Argument) -> object:
    """Return the constant an argument is, or MISSING."""
    if isinstance(argument, Given):
        return argument.value
    return argument.constant if isinstance(argument, Value) else MISSING


def runs_once_at_least(step: Step, nested: Nested) -> bool:
    """Tell whether a loop surely has a first turn: over a list that is written out, a number of times, while true."""
    for parameter in step.function.parameters:
        given = step.arguments.given.get(parameter.name)
        if given is None or not parameter.required:
            continue
        kind = parameter.type.kind if isinstance(parameter.type, Bound) else None
        value = constant(given)
        if nested.binds:
            if kind is Kind.ITEMS:
                return isinstance(value, (list, tuple)) and bool(value)
        elif isinstance(parameter.type, Condition):
            return value is True
        elif kind is Kind.INTEGER:
            return isinstance(value, int) and value > 0
    return False


@record()
class Written:
    """A name that a step binds, and where."""

    name: str
    mark: Mark


def written(step: Step) -> Iterator[Written]:
    """Yield the names a step binds itself, apart from its nested stacks."""
    effects = step.function.effects
    if effects.sets or effects.rebinds is not None or effects.publishes is not None:
        for parameter in step.function.parameters:
            argument = step.arguments.given.get(parameter.name)
            keys = (effects.sets and parameter.main) or effects.publishes == parameter.name
            if keys and isinstance(argument, Entries):
                for entry in argument.entries:
                    yield Written(entry.key, entry.mark)
            elif effects.rebinds == parameter.name and isinstance(argument, Given):
                yield Written(str(argument.value), argument.mark)
    if step.result is not None:
        yield Written(step.result, step.result_mark or step.mark)


class Steps:
    """The steps of one definition, each taken apart once."""

    __slots__ = ("_bound", "_parts")

    def __init__(self) -> None:
        self._bound: dict[int, frozenset[str]] = {}
        self._parts: dict[int, Parts] = {}

    def parts(self, step: Step) -> Parts:
        """Return what a step holds."""
        known = self._parts.get(id(step))
        if known is None:
            known = self._parts[id(step)] = take_apart(step)
        return known

    def bound(self, stack: Stack) -> frozenset[str]:
        """Return the names that a stack binds outside of copies."""
        known = self._bound.get(id(stack))
        if known is None:
            found: set[str] = set()
            for step in stack.steps:
                found.update(each.name for each in written(step))
                for nested in self.parts(step).nested:
                    if not nested.copies:
                        found |= self.bound(nested.stack)
            known = self._bound[id(stack)] = frozenset(found)
        return known
