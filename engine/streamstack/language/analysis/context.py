"""What stands around a step: frames, loops, copies of the variables, `try` blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from streamstack.errors import Mark
from streamstack.language.analysis.emission import Emission
from streamstack.language.analysis.names import Names
from streamstack.language.analysis.parts import Nested, Steps
from streamstack.language.analysis.reports import Reports
from streamstack.language.analysis.state import Binding, Content, Event, Made, Region, State
from streamstack.language.analysis.streams import Streams
from streamstack.language.definition import Definition, Stack
from streamstack.records import record


@dataclass(slots=True)
class Loop:
    """The states in which a loop is left (`break`) or goes on with its next turn (`continue`)."""

    breaks: list[State] = field(default_factory=list)
    turns: list[State] = field(default_factory=list)


@dataclass(slots=True)
class Frame:
    """What `return` ends: the states in which it did, and what it gave."""

    returns: list[State] = field(default_factory=list)
    given: list[Content] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)


@record()
class Deferred:
    """A stack that runs when the run has ended, and what stood around it where it was registered."""

    nested: Nested
    names: Mapping[str, Binding]
    allowed: tuple[frozenset[str], ...]
    regions: tuple[Region, ...]
    conditions: tuple[object, ...]


@dataclass(slots=True)
class Copy:
    """A copy of the variables, and the stack that works on it.

    ``outer`` are the names it has from outside. ``at_once``: what messages call it where a write to
    one of these is lost.
    """

    stack: Stack
    outer: frozenset[str] = frozenset()
    at_once: str = ""
    deferred: list[Deferred] = field(default_factory=list)


@dataclass(slots=True)
class Guard:
    """What may have happened in a `try` when it fails: up to the step before the one that does."""

    spoken: bool = False
    done: Event | None = None
    consumed: dict[Made, Event] = field(default_factory=dict)

    def note(self, state: State) -> None:
        """Note the state before a step that may fail."""
        if state.consumed:
            self.consumed.update(state.consumed)
        self.spoken = self.spoken or state.spoken
        self.done = self.done or state.done


class Context(ABC):
    """One definition while it is followed, and what stands around the present step.

    ``ghost`` counts the reasons why the present step never runs: only its names are checked then.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.reports = Reports(definition.allow)
        self.names = Names(definition, self.reports)
        self.streams = Streams(self.reports, self.names)
        self.emission = Emission(self.reports)
        self.steps = Steps()
        self.frames = [Frame()]
        self.copies = [Copy(definition.stack)]
        self.guards: list[Guard] = []
        self.ghost = 0

    @abstractmethod
    def stack(self, stack: Stack, state: State) -> State | None:
        """Follow steps one after the other; return the state behind them, None where none leads there."""

    @contextmanager
    def around(
        self,
        *,
        region: Region | None = None,
        condition: object = None,
        caught_at: Mark | None = None,
        place: str = "",
    ) -> Iterator[None]:
        """Follow what stands inside a region, under a condition, in a `try`, where nothing may be sent."""
        streams, emission = self.streams, self.emission
        before = streams.regions, streams.conditions, streams.tries, emission.places
        if region is not None:
            streams.regions = (*streams.regions, region)
        if condition is not None:
            streams.conditions = (*streams.conditions, condition)
        if caught_at is not None:
            streams.tries = (*streams.tries, caught_at)
        if place:
            emission.places = (*emission.places, place)
        yield
        streams.regions, streams.conditions, streams.tries, emission.places = before

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Follow what never runs."""
        self.ghost += 1
        yield
        self.ghost -= 1

    @contextmanager
    def copy(self, nested: Nested, state: State, words: str) -> Iterator[Copy]:
        """Follow a stack that works on a copy of the variables; ``words`` is what messages call it."""
        inner = {name for name, _ in nested.binds}
        copy = Copy(nested.stack, frozenset(state.names) - inner, words if nested.at_once else "")
        self.copies.append(copy)
        yield copy
        self.copies.pop()

    def late_names(self) -> set[str]:
        """Return the names that what runs later may find bound: all that the frames around bind."""
        return {name for copy in self.copies for name in self.steps.bound(copy.stack)}

    def write(self, name: str, mark: Mark, content: Content, state: State) -> None:
        """Bind a name."""
        copy = self.copies[-1]
        if copy.at_once and name in copy.outer:
            self.reports.add(
                "shared-write",
                mark,
                f"`{name}` comes from outside of {copy.at_once}, which writes only to its own copy of it",
            )
        state.names[name] = Binding(sure=True, content=content)

    def note_bound(self, name: str, mark: Mark, content: Content) -> None:
        """Remember where a name is bound first, to tell whether it is ever read."""
        if not self.ghost and not self.reports.silences("unused-variable"):
            self.names.bound_at.setdefault(name, (mark, content.is_stream))
