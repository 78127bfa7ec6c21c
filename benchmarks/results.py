"""What a case has, and what its measurements are compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from servers import HERE, Server


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that a measurement gives. ``more`` says that more is better."""

    name: str
    unit: str
    more: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What must be reached against a peer: a ratio of medians, or with ``difference`` our excess.

    Without a peer it is our own figure that is judged.
    """

    metric: str
    peer: str | None
    limit: float
    difference: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to measure."""

    rounds: int = 5
    quick: bool = False
    peers: frozenset[str] = frozenset()  # none named: all


class LeftOutError(Exception):
    """A case can't be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Behind:
    """What stands behind the servers of a case.

    ``environment`` tells them where it is, ``definitions`` is the folder that we serve.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    definitions: Path = HERE / "definitions"


def nothing(_: ExitStack) -> Behind:
    """Start nothing: for servers that answer out of themselves."""
    return Behind()


class Compared(Protocol):
    """A case that ourselves and peers are measured in, in turns.

    ``method`` tells readers how it is measured. The first of the ``metrics`` is the main one. With
    ``fresh`` each measurement has a server of its own.
    """

    @property
    def key(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def peers(self) -> Sequence[str]: ...
    @property
    def metrics(self) -> Sequence[Metric]: ...
    @property
    def targets(self) -> Sequence[Target]: ...
    @property
    def fresh(self) -> bool: ...

    def behind(self, stack: ExitStack) -> Behind:
        """Start what the servers ask themselves, until the stack is closed. Raises LeftOutError."""

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

    @property
    def key(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def method(self) -> str: ...

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
