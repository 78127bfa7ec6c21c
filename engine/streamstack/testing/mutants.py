"""Mutants: small changes of the definitions, each of which a test should notice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from streamstack.errors import Mark
from streamstack.runtime.mutations import Mutant
from streamstack.runtime.probes import Probes


@dataclass(frozen=True, slots=True)
class Trial:
    """A mutant, and the numbers of the tests that reach its step, the fastest first."""

    number: int
    mutant: Mutant
    probes: Probes
    tests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: the name of the test that noticed it, or "" for one that survived."""

    mutant: Mutant
    killed_by: str
    tests: int

    @property
    def passed(self) -> bool:
        """Whether a test noticed it."""
        return bool(self.killed_by)

    @property
    def file(self) -> str:
        """The file of the definition."""
        return self.mutant.mark.file

    def __str__(self) -> str:
        """Return the mutant as a line: its place, the change, and how many tests did not notice it."""
        if not self.tests:
            return f"{self.mutant.mark}: not reached: {self.mutant.change}: no test reaches it"
        missed = f"{self.tests} {_plural(self.tests)} not notice it"
        return f"{self.mutant.mark}: survived: {self.mutant.change}: {missed}"


def _plural(count: int) -> str:
    return "test does" if count == 1 else "tests do"


def trials(probes: Iterable[Probes], hits: Sequence[tuple[Probes, Mapping[int, int], float]]) -> Iterator[Trial]:
    """Yield every mutant with the tests that reach its step.

    Args:
        probes: Those of the projects.
        hits: Of each test: the probes of its project, what it reached, and its seconds.
    """
    order = sorted(range(len(hits)), key=lambda index: hits[index][2])
    for each in probes:
        reaching: dict[tuple[Mark, str], list[int]] = {}
        for index in order:
            own, reached, _ = hits[index]
            places = {(own.points[number].mark, own.points[number].path) for number in reached} if own is each else ()
            for place in places:
                reaching.setdefault(place, []).append(index)
        for number, mutant in enumerate(each.mutants):
            yield Trial(number, mutant, each, tuple(reaching.get((mutant.step, mutant.path), ())))


def try_out(trial: Trial, notices: Callable[[int], str]) -> Verdict:
    """Run the tests of a mutant until one notices it.

    ``notices`` runs a test by its number, and returns its name if it fails, else "".
    """
    trial.probes.active[0] = trial.number
    try:
        killer = next(filter(None, map(notices, trial.tests)), "")
    finally:
        trial.probes.active[0] = -1
    return Verdict(trial.mutant, killer, len(trial.tests))


def report(verdicts: Iterable[Verdict]) -> list[str]:
    """Return the mutants that survived, a line each, those that no test reaches, and how many were noticed.

    Coverage shows the steps that no test runs: their mutants don't count.
    """
    ordered = sorted(verdicts, key=lambda verdict: (verdict.mutant.mark, verdict.mutant.change))
    reached = [each for each in ordered if each.tests]
    survived = [str(each) for each in reached if not each.passed]
    missed = [str(each) for each in ordered if not each.tests]
    killed = len(reached) - len(survived)
    part = f" ({100 * killed // len(reached)} %)" if reached else ""
    others = f"; no test reaches {len(missed)} more" if missed else ""
    return [*survived, *missed, f"{killed} of {len(reached)} mutants were noticed{part}{others}"]
