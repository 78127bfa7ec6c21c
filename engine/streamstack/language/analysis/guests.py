"""Whether an endpoint that takes guests, too, reads of `auth` as if it were never null."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from streamstack.errors import Diagnostic
from streamstack.language.analysis.callees import called_by, reached
from streamstack.language.analysis.parts import take_apart, written
from streamstack.language.definition import Endpoint, FunctionDefinition, Stack, Step
from streamstack.language.expressions import Read, Value
from streamstack.language.findings import find
from streamstack.language.walk import all_values, steps_of, values_of
from streamstack.spec import Condition, Nesting

#: Asks whether a name is bound, which `auth` always is, if to null.
_IS_BOUND: Final = re.compile(r"\bauth\s+is\s+(?:not\s+)?(?:un)?defined\b")
#: What callers give who say who they are.
_SENT: Final = frozenset({"headers", "cookies", "query"})


def check_guests(
    endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]
) -> list[Diagnostic]:
    """Report where something is looked up in `auth`, which is null for guests, before that was ruled out.

    Whatever depends on `auth` counts as ruling it out, so that nobody is accused of what can't be seen here.
    """
    authentication = endpoint.authentication
    if authentication is None or not authentication.optional:
        return []
    return _Guests(endpoint, functions).found


class _Guests:
    """Follows an endpoint with a caller of whom nothing is known."""

    def __init__(self, endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]) -> None:
        self.found: list[Diagnostic] = []
        self._title = endpoint.title
        self._functions = functions
        self._witnesses: frozenset[str] = frozenset()
        # A variable made of one that tells who calls tells it, too.
        while (more := self._telling(endpoint.stack)) != self._witnesses:
            self._witnesses = more
        inside = {id(value) for step in steps_of(endpoint.stack) for value in values_of(step)}
        for value in all_values(endpoint):
            if id(value) not in inside and value is not endpoint.response:
                self._check(value)
        ruled_out = self._follow(endpoint.stack, known=False)
        if endpoint.response is not None and not ruled_out:
            self._check(endpoint.response)

    def _telling(self, stack: Stack) -> frozenset[str]:
        """Return the names bound by steps that depend on who calls, or in such."""
        return frozenset(
            each.name
            for step in steps_of(stack)
            if any(map(self._tells, values_of(step)))
            for inner in (step, *_below(step))
            for each in written(inner)
        )

    def _follow(self, stack: Stack, *, known: bool) -> bool:
        """Check steps one after the other; return whether it is known behind them who calls."""
        for step in stack.steps:
            if step.disabled:
                continue
            asked = step.when is not None and self._tells(step.when)
            if not known:
                for value in values_of(step):
                    if value is step.when or not asked:
                        self._check(value)
            tells = asked or any(map(self._tells, values_of(step)))
            parts = take_apart(step)
            caught = any(each.type.nesting is Nesting.HANDLER for each in parts.nested)
            ruled_out = (tells and _may_leave(step)) or self._asks_elsewhere(step)
            for nested in parts.nested:
                safe = known or tells or (caught and nested.type.nesting is Nesting.GUARDED)
                behind = self._follow(nested.stack, known=safe)
                ruled_out = ruled_out or (behind and not safe)
            known = known or ruled_out
        return known

    def _check(self, value: Value) -> None:
        """Report what one value looks up in `auth` without asking."""
        for each in value.bindings():
            if any(self._rules_out(read) for read in each.reads):
                continue
            for read in each.reads:
                if read.name == "auth" and read.path and not read.soft:
                    self.found.append(self._finding(read))

    def _finding(self, read: Read) -> Diagnostic:
        shown = ".".join(["auth", *map(str, read.path)])
        return find(
            "auth-may-be-null",
            read.mark,
            f"`{shown}` fails for who sends nothing: {self._title} takes guests, too, for whom `auth` is null",
            f"write `{shown} | default(...)`, or put `when: << {shown} is defined >>` beside the step",
        )

    def _rules_out(self, read: Read) -> bool:
        """Whether a read within an expression asks who calls, beside others of that expression."""
        if read.name == "auth":
            return (read.soft or not read.path) and not _asks_for_the_name(read)
        return self._is_witness(read)

    def _tells(self, value: Value) -> bool:
        """Whether a value depends on who calls."""
        return any(
            self._is_witness(read) or (read.name == "auth" and not _asks_for_the_name(read))
            for read in value.reads
        )

    def _is_witness(self, read: Read) -> bool:
        sent = read.name == "request" and bool(read.path) and read.path[0] in _SENT
        return sent or read.name in self._witnesses

    def _asks_elsewhere(self, step: Step) -> bool:
        """Whether a step calls a function of the project that reads `auth`, which may refuse guests."""
        return any(
            read.name == "auth"
            for name in called_by(step)
            for function in reached(name, self._functions)
            for value in all_values(function)
            for read in value.reads
        )


def _asks_for_the_name(read: Read) -> bool:
    """Whether a read only asks whether `auth` is bound: it is, also where it is null."""
    return read.soft and not read.path and _IS_BOUND.search(read.expression) is not None


def _may_leave(step: Step) -> bool:
    """Whether a step may keep those behind it from running: it is an end, a condition, or has one in it."""
    return any(
        each.function.effects.ends
        or (
            any(isinstance(parameter.type, Condition) for parameter in each.function.parameters)
            and not take_apart(each).nested
        )
        for each in (step, *_below(step))
    )


def _below(step: Step) -> Iterator[Step]:
    """Yield the steps nested in a step."""
    for nested in take_apart(step).nested:
        yield from steps_of(nested.stack)
