"""What is known at one point of a definition, on all paths that lead there; and the findings on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from streamstack.errors import Diagnostic, Mark, Replacement, fast_dataclass
from streamstack.language.findings import make_diagnostic

#: Properties that every stream has.
OF_EVERY_STREAM: Final = frozenset({"count", "finished"})
#: Properties of a request body that is read as it arrives.
OF_A_BODY: Final = OF_EVERY_STREAM | {"skipped", "bytes", "size"}


@dataclass(eq=False, slots=True)
class Region:
    """A part of the definition that may run more than once: a loop, a retried step, work per item.

    ``name`` is what messages call it. ``suspects`` are consumptions of streams from outside, which fail if the region
    comes round with the same stream.
    """

    name: str
    mark: Mark
    turns: bool  # a loop, whose body may rebind the name before the next turn
    per_item: bool = (
        False  # work that gives one item of a stream: what it holds of its own streams delays that item alone
    )
    suspects: list[tuple[str, Made, Mark]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """A step that reads a whole stream before it goes on."""

    step: str
    mark: Mark
    stream: str  # how messages call the stream
    advice: str
    inside: Wait | None = None  # the step of a called function that waits
    only_with: str | None = None  # in a function: waits only if this input is a stream

    @property
    def source(self) -> Wait:
        """The step that waits itself, however deep in called functions."""
        return self if self.inside is None else self.inside.source


@fast_dataclass()
class Emissions:
    """How a part that runs elsewhere (a function, a lazy stream) emits and waits.

    ``pending``: waits on a path through it that emits nothing. ``late``: waits before its own first chunk.
    """

    emits: bool = False
    may_be_unsent: bool = True
    pending: tuple[Wait, ...] = ()
    late: tuple[tuple[Wait, Mark], ...] = ()


NO_EMISSIONS: Final = Emissions()


@dataclass(eq=False, slots=True)
class Made:
    """A place where streams are made: the step, an input, a function's result.

    ``brief``: it is cut short, or made of a list: holding all of it causes no wait.
    """

    title: str
    mark: Mark
    regions: tuple[Region, ...] = ()
    tries: tuple[Mark, ...] = ()
    properties: frozenset[str] = OF_EVERY_STREAM
    emissions: Emissions = NO_EMISSIONS
    brief: bool = False
    maybe_input: str | None = None  # an input of a function, which may be a stream
    of_input: str | None = None  # an input of a function: the caller decides what properties it has

    @property
    def of_one_item(self) -> bool:
        """Whether it is made by the work for one item of another stream."""
        return any(region.per_item for region in self.regions)


@fast_dataclass()
class Content:
    """What a value can be: streams made at these places, and (``plain``) anything else."""

    streams: tuple[Made, ...] = ()
    plain: bool = True

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream on every path."""
        return bool(self.streams) and not self.plain

    def join(self, other: Content) -> Content:
        """Return what it is when it may be either."""
        if self is other:
            return self
        streams = self.streams + tuple(m for m in other.streams if m not in self.streams)
        return Content(streams, self.plain or other.plain)


PLAIN: Final = Content()


@fast_dataclass()
class Binding:
    """What is known of a name: bound on every path (``sure``) or on some, and to what."""

    sure: bool
    content: Content = PLAIN
    moved: Mark | None = None  # `set` gave its stream another name there
    inner: bool = False  # a body binds it: `loop`, the error of a `catch`
    in_turns: bool = False  # bound by an earlier turn of the loop only

    def join(self, other: Binding) -> Binding:
        if self is other:
            return self
        return Binding(
            self.sure and other.sure,
            self.content.join(other.content),
            self.moved or other.moved,
            self.inner or other.inner,
        )


@fast_dataclass()
class Event:
    """Something that must happen once: where it happened, and under which conditions."""

    mark: Mark
    title: str
    conditions: tuple[object, ...]

    def meets(self, conditions: tuple[object, ...]) -> bool:
        """Tell whether something under other conditions surely follows it on some path.

        It does where one of the two stands under no condition but those of the other. Where each has one of its own,
        these may exclude one another.
        """
        shared = min(len(conditions), len(self.conditions))
        return self.conditions[:shared] == conditions[:shared]


@dataclass(slots=True)
class AnalysisState:
    """What is known at a point that can be reached.

    ``may_be_unsent``: some path to it has emitted nothing; ``pending`` are the waits on such paths.
    ``may_be_sent``: some path has emitted.
    """

    names: dict[str, Binding]
    consumed: dict[Made, Event] = field(default_factory=dict)
    may_be_unsent: bool = True
    may_be_sent: bool = False
    pending: tuple[Wait, ...] = ()
    done: Event | None = None

    def fork(self) -> AnalysisState:
        """Return a copy, for another path."""
        return AnalysisState(
            dict(self.names), dict(self.consumed), self.may_be_unsent, self.may_be_sent, self.pending, self.done
        )

    def unsure(self, names: Iterable[str], *, in_turns: bool = False) -> None:
        """Bind names that are unknown here, perhaps."""
        for name in names:
            if name not in self.names:
                self.names[name] = Binding(sure=False, in_turns=in_turns)

    def assure(self, names: Iterable[str]) -> None:
        """Take names as bound: they were read, or the author tested whether they are."""
        for name in names:
            binding = self.names.get(name)
            if binding is not None and not binding.sure:
                self.names[name] = replace(binding, sure=True)


def join(states: Iterable[AnalysisState | None]) -> AnalysisState | None:
    """Return what is known where paths meet; None where no path leads."""
    result: AnalysisState | None = None
    for state in states:
        if state is None or state is result:
            continue
        result = state if result is None else _join(result, state)
    return result


def _join(one: AnalysisState, other: AnalysisState) -> AnalysisState:
    names: dict[str, Binding] = {}
    for name, binding in one.names.items():
        same = other.names.get(name)
        if same is binding:
            names[name] = binding
        elif same is not None:
            names[name] = binding.join(same)
        else:
            names[name] = replace(binding, sure=False) if binding.sure else binding
    for name, binding in other.names.items():
        if name not in names:
            names[name] = replace(binding, sure=False) if binding.sure else binding
    pending = one.pending
    if other.pending and other.pending is not pending:
        pending += tuple(wait for wait in other.pending if wait not in pending)
    return AnalysisState(
        names,
        {**other.consumed, **one.consumed},
        one.may_be_unsent or other.may_be_unsent,
        one.may_be_sent or other.may_be_sent,
        pending,
        one.done or other.done,
    )


class Reports:
    """Gathers findings, each once, but for those that `allow` silences."""

    __slots__ = ("_allowed", "found")

    def __init__(self, allowed: frozenset[str]) -> None:
        self.found: dict[tuple[str, Mark], Diagnostic] = {}
        self._allowed: tuple[frozenset[str], ...] = (allowed,)

    def allows(self, code: str) -> bool:
        """Tell whether a code is allowed here."""
        return any(code in codes for codes in self._allowed)

    def add(
        self,
        code: str,
        mark: Mark,
        message: str,
        hint: str | None = None,
        *,
        sure: bool = True,
        replacement: Replacement | None = None,
    ) -> None:
        """Add a finding; one that is not ``sure`` is a warning, whatever its code is else."""
        if self.allows(code) or (code, mark) in self.found:
            return
        finding = make_diagnostic(code, mark, message, hint, replacement)
        self.found[code, mark] = finding if sure else replace(finding, severity="warning")

    @property
    def allowed(self) -> tuple[frozenset[str], ...]:
        """What is allowed here, to be given to `within` later."""
        return self._allowed

    @contextmanager
    def within(self, allowed: tuple[frozenset[str], ...]) -> Iterator[None]:
        """Silence these codes in what is followed inside."""
        before, self._allowed = self._allowed, allowed
        yield
        self._allowed = before
