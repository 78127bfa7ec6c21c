"""Mutants of definitions: steps that are dropped, conditions that are negated, constants that are changed.

All mutants of a plan are compiled into it, and one at a time is chosen by its number, so that a plan is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streamstack.errors import Mark
from streamstack.language import operators
from streamstack.language.expressions import Constant, Expression, ListValue, ObjectValue, Spelling, Text, Value
from streamstack.language.expressions.compile import literal
from streamstack.language.expressions.variants import changed, describe_change, variants
from streamstack.language.values import MISSING, to_text


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one step.

    Args:
        mark: The place of what is changed.
        step: The place of the step's function.
        path: Where the step stands in its definition.
        change: What is changed, in words.
    """

    mark: Mark
    step: Mark
    path: str
    change: str


class Mutator:
    """Write the source of the values of a step with its mutants.

    Args:
        names: How sources refer to names and constants.
        active: The source of the number of the mutant that is chosen.
        number: Returns the number of a mutant, given its place and its change.
    """

    def __init__(self, names: Spelling, active: str, number: Callable[[Mark, str], int]) -> None:
        self._names = names
        self._active = active
        self._number = number

    def switch(self, mark: Mark, change: str, source: str, other: str) -> str:
        """Return source that is another where a mutant is chosen."""
        return f"({source} if {self._active} != {self._number(mark, change)} else {other})"

    def negate(self, mark: Mark, what: str, source: str) -> str:
        """Return the source of a condition that is negated where a mutant is chosen."""
        return self.switch(mark, f"{what} was negated", source, f"not {source}")

    def constant(self, mark: Mark, data: Any, source: str, written: Any = MISSING) -> str:
        """Return the source of a constant that is another one where a mutant is chosen.

        ``written`` is what the author wrote, of a constant that was converted: `5ms` of 0.005.
        """
        other = changed(data)
        if other is MISSING:
            return source
        text = repr(other) if isinstance(other, (list, dict)) else literal(other)
        return self.switch(mark, describe_change(data if written is MISSING else written, other), source, text)

    def source(self, value: Value) -> str:
        """Return the source of a value in which each constant may be another one."""
        if isinstance(value, ListValue):
            return self._bounded(f"[{', '.join(map(self.source, value.items))}]")
        if isinstance(value, ObjectValue):
            entries = (f"{literal(key)}: {self.source(entry)}" for key, entry in value.entries)
            return self._bounded("{" + ", ".join(entries) + "}")
        if isinstance(value, Text):
            to = self._names.constant(to_text)
            parts = [
                self._part(value.mark, part) if isinstance(part, str) else f"{to}({self.source(part)})"
                for part in value.parts
            ]
            return f"''.join(({', '.join(parts)},))"
        if isinstance(value, Constant):
            return self.constant(value.mark, value.data, value.source(self._names))
        source = value.source(self._names)
        if isinstance(value, Expression):
            for change, other in variants(value, self._names):
                source = self.switch(value.mark, change, source, other)
        return source

    def _part(self, mark: Mark, text: str) -> str:
        """Return the source of a part of a text; white space and punctuation alone have no mutant."""
        if not any(map(str.isalnum, text)):
            return literal(text)
        return self.constant(mark, text, literal(text))

    def _bounded(self, source: str) -> str:
        return f"{self._names.constant(operators.bounded)}({source})"
