"""What a case has, and what its measurements are compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from servers import Server


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that a measurement gives. ``more`` says that more is better."""

    name: str
    unit: str
    more: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What must be reached against a peer: a ratio of medians, or with ``difference`` our excess."""

    metric: str
    peer: str
    limit: float
    difference: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to measure."""

    rounds: int = 5
    quick: bool = False
    peers: frozenset[str] = frozenset()  # none named: all


class Compared(Protocol):
    """A case that ourselves and peers are measured in, in turns."""

    key: str
    title: str
    method: str  # how it is measured, for readers
    peers: Sequence[str]
    metrics: Sequence[Metric]  # the first is the main one
    targets: Sequence[Target]
    fresh: bool  # each measurement has a server of its own

    def content(self, server: Server) -> Any:
        """Return what a server answers, in a form that must be equal over all."""

    def measure(self, server: Server, options: Options) -> Mapping[str, float]:
        """Measure a server once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a case that is measured for itself: a figure, and what it must keep."""

    name: str
    figure: str
    must: str
    kept: bool


class Alone(Protocol):
    """A case that only we are measured in."""

    key: str
    title: str
    method: str

    def run(self, options: Options) -> tuple[list[dict[str, Any]], list[Finding]]:
        """Measure; return rows of figures, and what they show."""


@dataclass(slots=True)
class Samples:
    """The measurements of one case: peer -> metric -> a figure a round."""

    by_peer: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, peer: str, measured: Mapping[str, float]) -> None:
        """Take one measurement."""
        of_peer = self.by_peer.setdefault(peer, {})
        for name, value in measured.items():
            of_peer.setdefault(name, []).append(value)
