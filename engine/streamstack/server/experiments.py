"""Experiments on live traffic: the variants that a run is assigned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streamstack.functions.state import key_of
from streamstack.language.experiments import Experiment, combinations
from streamstack.language.expressions import Value
from streamstack.runtime.plan import compile_binding
from streamstack.runtime.run import Run
from streamstack.server.access import caller_key
from streamstack.server.response import ResponseSink

Key = Callable[[Run, dict[str, Any]], bytes]


class Assignment:
    """Assigns runs of one endpoint the variants of its experiments, and counts them apart.

    Nothing is stored: a variant follows from the key and the weights, so it is the same on every machine.
    ``titles`` are the titles of the rows in which metrics count its combinations of variants.
    """

    __slots__ = ("_experiments", "_rows", "titles")

    def __init__(self, endpoint: str, experiments: Sequence[Experiment]) -> None:
        names = ",".join(each.name for each in experiments)
        self.titles = {label: f"{endpoint}\t{names}\t{label}" for label in combinations(experiments)}
        self._rows: dict[str, int] = {}
        self._experiments = [
            (each, _key_by(each.by), {name: each.bound(name) for name in each.variants}) for each in experiments
        ]

    def take_rows(self, row_of: Callable[[str], int]) -> None:
        """Count in these rows from now on, by their titles."""
        self._rows = {label: row_of(title) for label, title in self.titles.items()}

    def assign(self, run: Run, inputs: dict[str, Any]) -> str:
        """Bind `experiment` for a run; return the title of the row in which it is counted.

        Raises RunError ``template`` where a key can't be evaluated.
        """
        assigned = {}
        variants = []
        for experiment, key, bound in self._experiments:
            variant = experiment.choose(key(run, inputs))
            assigned[experiment.name] = bound[variant]
            variants.append(variant)
        run.experiment = assigned
        label = ",".join(variants)
        sink = run.sink
        if self._rows and isinstance(sink, ResponseSink):
            sink.row = self._rows[label]
        return self.titles[label]


def _key_by(by: str | Value) -> Key:
    if isinstance(by, Value):
        binding = compile_binding(by, "experiments")

        def bound(run: Run, inputs: dict[str, Any]) -> bytes:
            value = binding(run, inputs)
            return run.id.encode() if value is None else key_of(value)

        return bound

    def caller(run: Run, _: dict[str, Any]) -> bytes:
        return caller_key(run.auth if by == "caller" else None, run.request().get("ip"))

    return caller
