"""Nested stacks: where their paths part, meet again, come round, or run in a frame of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from streamstack.errors import Mark, fast_dataclass
from streamstack.language.analysis.names import Names
from streamstack.language.analysis.state import (
    NO_EMISSIONS,
    PLAIN,
    AnalysisState,
    Binding,
    Content,
    Emissions,
    Event,
    Made,
    Region,
    Reports,
    Wait,
    join,
)
from streamstack.language.analysis.streams import Emission, StreamAnalysis, both, merge
from streamstack.language.definition import Definition
from streamstack.language.graph import Block, Graph, Node, runs_once_at_least
from streamstack.spec import Group, Nesting, StackOf


@dataclass(slots=True)
class LoopStates:
    """The states in which a loop is left (`break`) or goes on with its next turn (`continue`)."""

    breaks: list[AnalysisState] = field(default_factory=list)
    turns: list[AnalysisState] = field(default_factory=list)


@dataclass(slots=True)
class FrameStates:
    """What `return` ends: the states in which it did, and what it gave."""

    returns: list[AnalysisState] = field(default_factory=list)
    returned: list[Content] = field(default_factory=list)
    loops: list[LoopStates] = field(default_factory=list)


@fast_dataclass()
class Deferred:
    """A stack that runs when the run has ended, and what stood around it where it was registered."""

    block: Block
    names: Mapping[str, Binding]
    allowed: tuple[frozenset[str], ...]
    regions: tuple[Region, ...]
    conditions: tuple[object, ...]


@dataclass(slots=True)
class Copy:
    """A copy of the variables, and the block that works on it.

    ``outer`` are the names it has from outside. ``at_once``: what messages call it where a write to
    one of these is lost.
    """

    block: Block
    outer: frozenset[str] = frozenset()
    at_once: str = ""
    deferred: list[Deferred] = field(default_factory=list)


@dataclass(slots=True)
class TryStates:
    """What may have happened in a `try` when it fails: up to the step before the one that does."""

    may_be_sent: bool = False
    done: Event | None = None
    consumed: dict[Made, Event] = field(default_factory=dict)

    def note(self, state: AnalysisState) -> None:
        """Note the state before a step that may fail."""
        if state.consumed:
            self.consumed.update(state.consumed)
        self.may_be_sent = self.may_be_sent or state.may_be_sent
        self.done = self.done or state.done


class AnalysisContext(ABC):
    """One definition while it is followed, and what stands around the present step.

    ``dead`` counts the reasons why the present step never runs: only its names are checked then.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.reports = Reports(definition.allow)
        self.graph = Graph(definition)
        self.names = Names(self.graph, self.reports)
        self.streams = StreamAnalysis(self.reports, self.names)
        self.emission = Emission(self.reports)
        self.frames = [FrameStates()]
        self.copies = [Copy(self.graph.root)]
        self.guards: list[TryStates] = []
        self.dead = 0
        self.sure_loops: frozenset[Node] = frozenset()  # whose first turn the types prove

    @abstractmethod
    def follow(self, block: Block, state: AnalysisState) -> AnalysisState | None:
        """Follow the steps of a block; return the state behind them, None where no path leads there."""

    @contextmanager
    def around(
        self, *, region: Region | None = None, condition: object = None, caught_at: Mark | None = None, place: str = ""
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
    def dead_code(self) -> Iterator[None]:
        """Follow what never runs."""
        self.dead += 1
        yield
        self.dead -= 1

    @contextmanager
    def copy(self, block: Block, state: AnalysisState, words: str) -> Iterator[Copy]:
        """Follow a stack that works on a copy of the variables; ``words`` is what messages call it."""
        inner = {name for name, _ in block.binds}
        copy = Copy(block, frozenset(state.names) - inner, words if block.at_once else "")
        self.copies.append(copy)
        yield copy
        self.copies.pop()

    def late_names(self) -> set[str]:
        """Return the names that what runs later may find bound: all that the frames around bind."""
        return {name for copy in self.copies for name in copy.block.bound}

    def write(self, name: str, mark: Mark, content: Content, state: AnalysisState) -> None:
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
        if not self.dead and not self.reports.allows("unused-variable"):
            self.names.bound_at.setdefault(name, (mark, content.is_stream))


class Frames(AnalysisContext):
    """Follows the stacks that `return` ends."""

    def bind(self, block: Block, state: AnalysisState) -> None:
        """Bind the names that a nested stack sees."""
        for name, _ in block.binds:
            state.names[name] = Binding(True, inner=block.nesting is Nesting.HANDLER)
        if block.loop:
            state.names["loop"] = Binding(True, inner=True)

    def unbind(self, block: Block, before: AnalysisState, after: AnalysisState) -> None:
        """Give the names that a nested stack saw the meaning back that they had before."""
        for name in (*(name for name, _ in block.binds), *(("loop",) if block.loop else ())):
            binding = before.names.get(name)
            if binding is not None:
                after.names[name] = binding
            else:
                after.names.pop(name, None)

    def frame(self, block: Block, state: AnalysisState, words: str) -> tuple[AnalysisState | None, Content]:
        """Follow a stack that is a frame; return the state behind it and what it gives."""
        self.frames.append(FrameStates())
        if block.copies:
            with self.copy(block, state, words) as copy:
                end = self.follow(block, state)
                after, returned = self.leave_frame(end)
                self.finish(copy.deferred, after)
            return after, returned
        return self.leave_frame(self.follow(block, state))

    def leave_frame(self, end: AnalysisState | None) -> tuple[AnalysisState | None, Content]:
        """Return the state in which the innermost frame ends, and what it gives."""
        frame = self.frames.pop()
        returned = list(frame.returned) if end is None else [*frame.returned, PLAIN]
        content = returned[0] if returned else PLAIN
        for each in returned[1:]:
            content = content.join(each)
        return join([*(each.fork() for each in frame.returns), end]), content

    def follow_branches(
        self, blocks: list[Block], entry: AnalysisState
    ) -> tuple[AnalysisState | None, dict[str, Content]]:
        emission = self.emission
        ends: list[AnalysisState | None] = []
        returned: dict[str, Content] = {}
        sent: list[Event | None] = []
        late, emission.late = emission.late, []
        consumed, prompt = dict(entry.consumed), False
        for each in blocks:
            branch = entry.fork()
            branch.may_be_sent, branch.consumed = False, dict(consumed)
            before, met = len(emission.late), len(emission.events)
            words = f"the branch `{each.label}`"
            end, content = self.frame(each, branch, words)
            ends.append(end)
            returned[each.label or ""] = content
            sent.append(emission.events[met] if len(emission.events) > met else None)
            if end is not None:
                consumed.update(end.consumed)
                prompt = prompt or (not end.may_be_unsent and len(emission.late) == before)
        # What one branch sends does not wait for what another one reads.
        emission.late = late if prompt else late + emission.late
        self._check_done_beside(entry, ends, sent)
        reached = [end for end in ends if end is not None]
        if len(reached) < len(ends):
            return None, returned
        entry.consumed = consumed
        entry.may_be_unsent = all(end.may_be_unsent for end in reached)
        entry.may_be_sent = entry.may_be_sent or any(end.may_be_sent for end in reached)
        for end in reached:
            entry.pending = merge(entry.pending, end.pending) if entry.may_be_unsent else ()
            entry.done = entry.done or end.done
        return entry, returned

    def _check_done_beside(
        self, entry: AnalysisState, ends: list[AnalysisState | None], sent: list[Event | None]
    ) -> None:
        """Report a chunk of one branch that may come after the `done` of another."""
        for number, end in enumerate(ends):
            if end is not None and end.done is not None and entry.done is None:
                for other, event in enumerate(sent):
                    if event is not None and other != number:
                        self.emission.refuse_after_done(event, end.done, beside=True)

    def follow_own_frame(self, node: Node, block: Block, state: AnalysisState) -> AnalysisState | None:
        inner = state.fork()
        self.bind(block, inner)
        with self.around(condition=block):
            end, returned = self.frame(block, inner, f"this `{node.step.function.name}`")
        if returned.is_stream:
            made = returned.streams[0]
            self.reports.add(
                "stream-in-expression",
                node.mark,
                f"`{node.step.function.name}` can't keep {made.title}, which is a stream "
                f"(made in line {made.mark.line})",
                "`collect` it and return the list",
            )
        if end is not None:
            if node.step.result is not None and not self.dead and "frame" not in block.exits:
                self._refuse_null(node, block)
            end.names = dict(state.names)
        return join((state, end))

    def _refuse_null(self, node: Node, block: Block) -> None:
        """Report steps that are to make a value and never return one."""
        last = block.nodes[-1].step.result if block.nodes else None
        self.reports.add(
            "caches-null",
            node.mark,
            f"`{node.step.result}` is always null: no step of this `{node.step.function.name}` returns a value",
            f"write `- return: << {last} >>` at the end of its `do`" if last else None,
        )

    def follow_per_item(self, node: Node, block: Block, state: AnalysisState) -> Emissions:
        emission = self.emission
        inner = state.fork()
        inner.may_be_unsent, inner.may_be_sent, inner.pending, inner.done = True, False, (), None
        inner.unsure(self.late_names())
        self.bind(block, inner)
        late, emission.late = emission.late, []
        met = len(emission.events)
        region = Region(f"the `{node.step.function.name}`", node.mark, turns=False, per_item=True)
        with self.around(region=region, condition=block):
            words = f"the work of this concurrent `{node.step.function.name}`"
            end, _ = self.frame(block, inner, words)
        within, emission.late = tuple(emission.late), late
        if not block.copies:
            state.unsure(block.bound)
        emits = len(emission.events) > met
        if end is not None and end.done is not None:
            emission.refuse_after_done(end.done, end.done, next_turn=True)
        if end is None:
            return Emissions(emits, may_be_unsent=True, late=within)
        return Emissions(emits, end.may_be_unsent, end.pending, within)

    def follow_defer(self, block: Block, state: AnalysisState) -> None:
        if self.dead:
            self.finish([self._deferred(block, state)], state)
        else:
            self.copies[-1].deferred.append(self._deferred(block, state))

    def _deferred(self, block: Block, state: AnalysisState) -> Deferred:
        streams = self.streams
        return Deferred(block, dict(state.names), self.reports.allowed, streams.regions, streams.conditions)

    def finish(self, deferred: list[Deferred], end: AnalysisState | None) -> None:
        """Follow what was put off to the end of a run, with the variables as they are then."""
        emission, streams = self.emission, self.streams
        for each in deferred:
            state = AnalysisState(dict(each.names), dict(end.consumed) if end is not None else {})
            for name, last in end.names.items() if end is not None else ():
                first = state.names.get(name)
                sure = first is not None and first.sure
                state.names[name] = replace(last, sure=sure) if first is None else _last(first, last)
            state.unsure(self.late_names())
            before = streams.regions, streams.conditions, streams.tries
            streams.regions, streams.conditions, streams.tries = each.regions, each.conditions, ()
            parts = emission.places, emission.late, emission.any
            emission.places, emission.late = ("emits-in-after",), []
            with self.reports.within(each.allowed):
                self.frame(each.block, state, "`after`")
            emission.places, emission.late, emission.any = parts
            streams.regions, streams.conditions, streams.tries = before


def _last(first: Binding, last: Binding) -> Binding:
    """Return what a name is at the end, as sure as it was before; the names of a body stay what they were."""
    if first.inner:
        return first
    return Binding(first.sure or last.sure, last.content.join(first.content), last.moved)


_ALTERNATIVES = frozenset({Nesting.ALTERNATIVE, Nesting.OTHERWISE})
_OF_TRY = frozenset({Nesting.GUARDED, Nesting.HANDLER, Nesting.FINALLY})


class Blocks(Frames):
    """Follows the nested stacks of a step, by how each is declared to run."""

    def follow_nested(
        self, node: Node, tested: frozenset[str], read: tuple[Made, ...], state: AnalysisState
    ) -> tuple[AnalysisState | None, Emissions, dict[str, Content]]:
        """Follow the blocks of a step.

        ``tested``: names whose being bound its conditions test. ``read``: the streams it iterates. Return the state
        behind it, how its work per item emits, and what its branches give.
        """
        emissions, returned = NO_EMISSIONS, dict[str, Content]()
        after: AnalysisState | None = state
        alternatives = node.nested(Nesting.ALTERNATIVE, Nesting.OTHERWISE)
        if alternatives:
            after = self._alternatives(alternatives, tested, state)
        elif tested:
            state.assure(tested)
        guarded = node.nested(*_OF_TRY)
        if guarded and after is not None:
            after = self._try(node, after)
        branches = node.nested(Nesting.BRANCH)
        if branches and after is not None:
            after, returned = self.follow_branches(branches, after)
        for each in node.blocks:
            if after is None:
                break
            match each.nesting:
                case Nesting.ONCE:
                    place = "emits-in-transaction" if each.type and each.type.transaction else ""
                    with self.around(place=place):
                        after = self.follow(each, after)
                case Nesting.LOOP:
                    after = self._loop(node, each, read, after)
                case Nesting.ITEM:
                    emissions = both(emissions, self.follow_per_item(node, each, after))
                case Nesting.FRAME:
                    after = self.follow_own_frame(node, each, after)
                case Nesting.DEFERRED:
                    self.follow_defer(each, after)
                case _:
                    pass
        return after, emissions, returned

    # -- in the step's own frame

    def _alternatives(self, blocks: list[Block], tested: frozenset[str], state: AnalysisState) -> AnalysisState | None:
        ends: list[AnalysisState | None] = []
        for each in blocks:
            inner = state.fork()
            inner.assure(tested)
            with self.around(condition=each):
                ends.append(self.follow(each, inner))
        if not any(each.nesting is Nesting.OTHERWISE for each in blocks):
            if None in ends:
                state.assure(tested)
            ends.append(state)
        return join(ends)

    def _try(self, node: Node, entry: AnalysisState) -> AnalysisState | None:
        by = {nesting: node.nested(nesting) for nesting in _OF_TRY}
        guard, caught = TryStates(entry.may_be_sent, entry.done), _catches(node)
        self.guards.append(guard)
        end: AnalysisState | None = entry
        failed = entry.fork()
        for each in by[Nesting.GUARDED]:
            with self.around(caught_at=node.mark if caught else None):
                end = self.follow(each, entry.fork())
            self._fail(each, end, failed)
        failed.may_be_sent, failed.done = guard.may_be_sent, guard.done
        failed.consumed.update(guard.consumed)
        ends = [end]
        for each in by[Nesting.HANDLER]:
            inner = failed.fork()
            self.bind(each, inner)
            with self.around(condition=each):
                handled = self.follow(each, inner)
            if handled is not None:
                self.unbind(each, failed, handled)
            ends.append(handled)
        if caught and not by[Nesting.HANDLER]:
            ends.append(failed.fork())
        self.guards.pop()
        failed.done = guard.done  # the handler may fail too
        failed.consumed.update(guard.consumed)
        if self.guards:
            self.guards[-1].note(failed)
        after = join(ends)
        if after is not None and end is not None:
            # What only a failure sends does not make a loop around one that sends as it goes.
            after.may_be_sent = end.may_be_sent
        for each in by[Nesting.FINALLY]:
            after = self._finally(each, failed, after)
        return after

    def _fail(self, block: Block, end: AnalysisState | None, failed: AnalysisState) -> None:
        """Let a state hold what may have been bound and consumed when a guarded stack fails."""
        for name in block.bound:
            bound = failed.names.get(name)
            made = end.names.get(name) if end is not None else None
            if made is not None:
                known = made.join(bound) if bound is not None else made
                failed.names[name] = replace(known, sure=bound is not None and bound.sure)
        failed.unsure(block.bound)
        if end is not None:
            failed.consumed.update(end.consumed)

    def _finally(self, block: Block, failed: AnalysisState, normal: AnalysisState | None) -> AnalysisState | None:
        either = join((failed, normal))
        end = self.follow(block, (either or failed).fork())
        if end is not None and self.guards:
            # The failure goes on from here.
            self.guards[-1].note(end)
        if end is None or normal is None:
            return None
        for name in block.bound:
            if name in end.names:
                normal.names[name] = end.names[name]
        if not end.may_be_unsent:
            normal.may_be_unsent, normal.pending = False, ()
        elif normal.may_be_unsent:
            normal.pending = merge(normal.pending, end.pending)
        normal.may_be_sent = normal.may_be_sent or end.may_be_sent
        normal.done = normal.done or end.done
        normal.consumed.update(end.consumed)
        return normal

    def _loop(self, node: Node, block: Block, read: tuple[Made, ...], entry: AnalysisState) -> AnalysisState | None:
        frame, loop = self.frames[-1], LoopStates()
        region = Region(f"the `{node.step.function.name}`", node.mark, turns=True)
        frame.loops.append(loop)
        met, returns = len(self.emission.events), len(frame.returns)
        body = entry.fork()
        body.may_be_sent = False
        self.bind(block, body)
        with self.around(region=region, condition=block):
            if block.copies:
                words = f"the iterations of this concurrent `{node.step.function.name}`"
                with self.copy(block, entry, words) as copy:
                    end = self.follow(block, body)
                    self.finish(copy.deferred, end)
            else:
                body.unsure(block.bound, in_turns=True)
                end = self.follow(block, body)
        frame.loops.pop()
        again = [each for each in (end, *loop.turns) if each is not None]
        if block.binds and not again and not loop.breaks and not self.dead:
            self._refuse_one_turn(node, block)
        self.streams.close(region, [entry] if block.copies else again)
        self._check_next_turn(entry, again, met)
        exits = again + loop.breaks
        sent = any(each.may_be_sent for each in exits)
        if block.copies:
            for each in exits:
                each.names = dict(entry.names)
        after = join(exits if self.runs_at_least_once(node, block) else [*exits, entry.fork()])
        if after is None:
            return None
        self.unbind(block, entry, after)
        after.may_be_sent = sent or entry.may_be_sent
        if sent:
            after.may_be_unsent, after.pending = False, ()
        elif not loop.breaks and len(frame.returns) == returns:
            self.wait_for(node, read, after, loop=True)
        return after

    def runs_at_least_once(self, node: Node, block: Block) -> bool:
        """Tell whether a loop surely has a first turn: by how it is written, or by what is known of its values."""
        return node in self.sure_loops or runs_once_at_least(node, block)

    def _refuse_one_turn(self, node: Node, block: Block) -> None:
        """Report a loop over items that `return` always leaves at the first one."""
        leaving = next((each for each in block.nodes if each.step.function.effects.leaves == "frame"), None)
        if leaving is not None and leaving.step.when is None:
            self.reports.add(
                "unreachable",
                leaving.mark,
                f"the `{node.step.function.name}` in line {node.mark.line} never comes to a second item: this always "
                "leaves at the first",
                "write `x | first` or `streams.take` for the first item, or put `when` beside it",
            )

    def _check_next_turn(self, entry: AnalysisState, again: list[AnalysisState], met: int) -> None:
        """Report a chunk that comes after the `done` of the turn before."""
        done = next((s.done for s in again if s.done is not None), None)
        if done is not None and entry.done is None:
            first = self.emission.events[met] if len(self.emission.events) > met else done
            self.emission.refuse_after_done(first, done, next_turn=True)

    def wait_for(self, node: Node, read: tuple[Made, ...], state: AnalysisState, *, loop: bool = False) -> None:
        """Note that a step reads streams to their end, unless they are short or emit by themselves."""
        for made in read:
            if made.brief or made.of_one_item or made.emissions.emits or self.dead:
                continue
            if loop:
                advice = (
                    f"emit inside the loop in line {node.mark.line}, or give the items on with `streams.map` "
                    "and loop over these once"
                )
            else:
                advice = (
                    f"write `forEach` over {made.title} and emit inside it, or move this step behind the first chunk"
                )
            only_with = made.maybe_input
            self.emission.wait(state, Wait(node.title, node.mark, made.title, advice, only_with=only_with))


def _catches(node: Node) -> bool:
    """Tell whether a step has the group that holds its handler."""
    for parameter in node.step.function.parameters:
        kind = parameter.type
        inner = kind.parameters if isinstance(kind, Group) else (parameter,)
        if node.step.arguments.get(parameter.name) is not None:
            types = [each.type for each in inner]
            if any(isinstance(t, StackOf) and t.nesting is Nesting.HANDLER for t in types):
                return True
    return False
