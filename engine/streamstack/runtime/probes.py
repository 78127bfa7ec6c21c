"""Probes of compiled definitions: how often their steps and branches run.

A plan is compiled with probes for tests whose coverage is measured. Without them not one line of it is different.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamstack.errors import Mark
from streamstack.language.graph import Block, Node
from streamstack.runtime.mutations import Mutant
from streamstack.spec import Nesting

#: Stacks that a step may run or not, each a branch of it.
BRANCHES: Final = frozenset({Nesting.ALTERNATIVE, Nesting.OTHERWISE, Nesting.HANDLER})
#: What branches are called that have no steps of their own.
SKIPPED: Final = "when is false"
RUN: Final = "when is true"
NONE: Final = "no branch"


@dataclass(frozen=True, slots=True)
class Point:
    """A step, or one of its branches.

    Args:
        mark: The place of the step's function.
        path: Where it stands in its definition.
        title: How messages name the step.
        branch: The name of the branch, "" for the step.
    """

    mark: Mark
    path: str
    title: str
    branch: str = ""


class Probes:
    """Count how often each point is reached. A definition that is compiled again has the same points.

    With ``mutates``, plans also have mutants: ``active[0]`` is the number of the one that is chosen, -1 for none.
    """

    def __init__(self, *, mutates: bool = False) -> None:
        self.mutates = mutates
        self.mutants: list[Mutant] = []
        self.active = [-1]
        self._mutants: dict[Mutant, int] = {}
        self.points: list[Point] = []
        self.hits: list[int] = []
        self._numbers: dict[Point, int] = {}

    def number(self, node: Node, branch: str = "") -> int:
        """Return the number of a point, which is made where it is new."""
        point = Point(node.mark, node.path, node.title, branch)
        number = self._numbers.setdefault(point, len(self.points))
        if number == len(self.points):
            self.points.append(point)
            self.hits.append(0)
        return number

    def branch_of(self, block: Block) -> int | None:
        """Return the number of the branch that a stack is; None for one that is none."""
        if block.owner is None or block.nesting not in BRANCHES:
            return None
        return self.number(block.owner, block.title)

    def mutant(self, node: Node, mark: Mark, change: str) -> int:
        """Return the number of a mutant, which is made where it is new."""
        mutant = Mutant(mark, node.mark, node.path, change)
        number = self._mutants.setdefault(mutant, len(self.mutants))
        if number == len(self.mutants):
            self.mutants.append(mutant)
        return number

    def take(self) -> dict[int, int]:
        """Return how often points were reached since the last call, by number, without those that were not."""
        taken = {number: count for number, count in enumerate(self.hits) if count}
        self.hits[:] = [0] * len(self.hits)
        return taken
