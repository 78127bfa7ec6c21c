"""Nested stacks: where their paths part, meet again, come round, or run at another time."""

from __future__ import annotations

from dataclasses import replace

from streamstack.language.analysis.context import Context, Deferred, Frame, Guard, Loop
from streamstack.language.analysis.emission import both, merge
from streamstack.language.analysis.names import ERROR, LOOP
from streamstack.language.analysis.parts import Nested, runs_once_at_least
from streamstack.language.analysis.state import (
    PLAIN,
    SILENT,
    Binding,
    Content,
    Made,
    Region,
    Shape,
    State,
    Voice,
    Wait,
    join,
)
from streamstack.language.definition import Step
from streamstack.language.parameters import Group, Nesting, StackOf

_ALTERNATIVES = frozenset({Nesting.ALTERNATIVE, Nesting.OTHERWISE})
_OF_TRY = frozenset({Nesting.GUARDED, Nesting.HANDLER, Nesting.FINALLY})


class Blocks(Context):
    """Follows the nested stacks of a step, by how each is declared to run."""

    def follow_nested(
        self,
        step: Step,
        nested: list[Nested],
        asked: frozenset[str],
        read: tuple[Made, ...],
        state: State,
    ) -> tuple[State | None, Voice, dict[str, Content]]:
        """Follow the nested stacks of a step.

        ``asked``: names whose being bound its conditions ask for. ``read``: the streams it iterates. Return the state
        behind it, how its work per item emits, and what its branches give.
        """
        voice, given = SILENT, dict[str, Content]()
        after: State | None = state
        alternatives = [each for each in nested if each.type.nesting in _ALTERNATIVES]
        if alternatives:
            after = self._alternatives(alternatives, asked, state)
        elif asked:
            state.assure(asked)
        guarded = [each for each in nested if each.type.nesting in _OF_TRY]
        if guarded and after is not None:
            after = self._try(step, guarded, after)
        branches = [each for each in nested if each.type.nesting is Nesting.BRANCH]
        if branches and after is not None:
            after, given = self._branches(branches, after)
        for each in nested:
            if after is None:
                break
            match each.type.nesting:
                case Nesting.ONCE:
                    place = "emits-in-transaction" if each.type.transaction else ""
                    with self.around(place=place):
                        after = self.stack(each.stack, after)
                case Nesting.LOOP:
                    after = self._loop(step, each, read, after)
                case Nesting.ITEM:
                    voice = both(voice, self._per_item(step, each, after))
                case Nesting.FRAME:
                    after = self._own_frame(step, each, after)
                case Nesting.DEFERRED:
                    self._defer(each, after)
                case _:
                    pass
        return after, voice, given

    def bind(self, nested: Nested, state: State, read: tuple[Made, ...] = ()) -> None:
        """Bind the names that a nested stack sees."""
        for name, _ in nested.binds:
            handler = nested.type.nesting is Nesting.HANDLER
            state.names[name] = Binding(True, shape=Shape("an error", ERROR) if handler else None)
        if nested.type.loop:
            state.names["loop"] = Binding(True, shape=Shape("a loop", LOOP, bool(read)))

    def unbind(self, nested: Nested, before: State, after: State) -> None:
        """Give the names that a nested stack saw the meaning back that they had before."""
        for name in (*(name for name, _ in nested.binds), *(("loop",) if nested.type.loop else ())):
            binding = before.names.get(name)
            if binding is not None:
                after.names[name] = binding
            else:
                after.names.pop(name, None)

    # -- in the step's own frame

    def _alternatives(
        self, nested: list[Nested], asked: frozenset[str], state: State
    ) -> State | None:
        ends: list[State | None] = []
        for each in nested:
            inner = state.fork()
            inner.assure(asked)
            with self.around(condition=id(each.stack)):
                ends.append(self.stack(each.stack, inner))
        if not any(each.type.nesting is Nesting.OTHERWISE for each in nested):
            if None in ends:
                state.assure(asked)
            ends.append(state)
        return join(ends)

    def _try(self, step: Step, nested: list[Nested], entry: State) -> State | None:
        by = {kind: [n for n in nested if n.type.nesting is kind] for kind in _OF_TRY}
        guard, caught = Guard(entry.spoken, entry.done), _catches(step)
        self.guards.append(guard)
        end: State | None = entry
        failed = entry.fork()
        for each in by[Nesting.GUARDED]:
            with self.around(caught_at=step.key_mark if caught else None):
                end = self.stack(each.stack, entry.fork())
            self._fail(each, end, failed)
        self.guards.pop()
        failed.spoken, failed.done = guard.spoken, guard.done
        if self.guards:
            self.guards[-1].note(failed)
        ends = [end]
        for each in by[Nesting.HANDLER]:
            inner = failed.fork()
            self.bind(each, inner)
            with self.around(condition=id(each.stack)):
                handled = self.stack(each.stack, inner)
            if handled is not None:
                self.unbind(each, failed, handled)
            ends.append(handled)
        if caught and not by[Nesting.HANDLER]:
            ends.append(failed.fork())
        after = join(ends)
        for each in by[Nesting.FINALLY]:
            after = self._finally(each, failed, after)
        return after

    def _fail(self, nested: Nested, end: State | None, failed: State) -> None:
        """Let a state hold what may have been bound and consumed when a guarded stack fails."""
        for name in self.bound.of(nested.stack):
            bound = failed.names.get(name)
            made = end.names.get(name) if end is not None else None
            if made is not None:
                known = made.join(bound) if bound is not None else made
                failed.names[name] = replace(known, sure=bound is not None and bound.sure)
        failed.unsure(self.bound.of(nested.stack))
        if end is not None:
            failed.consumed.update(end.consumed)

    def _finally(self, nested: Nested, failed: State, normal: State | None) -> State | None:
        either = join((failed, normal))
        end = self.stack(nested.stack, (either or failed).fork())
        if end is None or normal is None:
            return None
        for name in self.bound.of(nested.stack):
            if name in end.names:
                normal.names[name] = end.names[name]
        if not end.silent:
            normal.silent, normal.pending = False, ()
        normal.spoken = normal.spoken or end.spoken
        normal.done = normal.done or end.done
        normal.consumed.update(end.consumed)
        return normal

    def _loop(
        self, step: Step, nested: Nested, read: tuple[Made, ...], entry: State
    ) -> State | None:
        frame, loop = self.frames[-1], Loop()
        region = Region(f"the `{step.function.name}`", step.key_mark, turns=True)
        frame.loops.append(loop)
        met, returns = len(self.emission.met), len(frame.returns)
        body = entry.fork()
        body.spoken = False
        self.bind(nested, body, tuple(made for made in read if made.maybe_input is None))
        with self.around(region=region, condition=id(nested.stack)):
            if nested.copies:
                words = f"the turns of this concurrent `{step.function.name}`"
                with self.copy(nested, entry, words) as copy:
                    end = self.stack(nested.stack, body)
                    self._finish(copy.deferred, nested, end)
            else:
                body.unsure(self.bound.of(nested.stack), in_turns=True)
                end = self.stack(nested.stack, body)
        frame.loops.pop()
        again = [each for each in (end, *loop.turns) if each is not None]
        self.streams.close(region, [entry] if nested.copies and again else again)
        self._check_next_turn(entry, again, met)
        exits = again + loop.breaks
        spoken = any(each.spoken for each in exits)
        if nested.copies:
            for each in exits:
                each.names = dict(entry.names)
        after = join(exits if runs_once_at_least(step, nested) else [*exits, entry.fork()])
        if after is None:
            return None
        self.unbind(nested, entry, after)
        after.spoken = spoken or entry.spoken
        if spoken:
            after.silent, after.pending = False, ()
        elif not loop.breaks and len(frame.returns) == returns:
            self.wait_for(step, read, after, loop=True)
        return after

    def _check_next_turn(self, entry: State, again: list[State], met: int) -> None:
        """Report a chunk that comes after the `done` of the turn before."""
        done = next((s.done for s in again if s.done is not None), None)
        if done is not None and entry.done is None and len(self.emission.met) > met:
            self.emission.refuse_after_done(self.emission.met[met], done, next_turn=True)

    def wait_for(
        self, step: Step, read: tuple[Made, ...], state: State, *, loop: bool = False
    ) -> None:
        """Note that a step reads streams to their end, unless they are short or emit by themselves."""
        for made in read:
            if made.shortened or made.voice.emits or self.ghost:
                continue
            if loop:
                advice = (
                    f"emit inside the loop in line {step.key_mark.line}, or give the items on with `streams.map` "
                    "and loop over these once"
                )
            else:
                advice = f"write `forEach` over {made.title} and emit inside it, or move this step behind the first chunk"
            only_with = made.maybe_input
            self.emission.wait(
                state, Wait(step.title, step.key_mark, made.title, advice, only_with=only_with)
            )

    # -- in frames of their own

    def frame(self, nested: Nested, state: State, words: str) -> tuple[State | None, Content]:
        """Follow a stack that is a frame; return the state behind it and what it gives."""
        self.frames.append(Frame())
        if nested.copies:
            with self.copy(nested, state, words) as copy:
                end = self.stack(nested.stack, state)
                after, given = self.leave_frame(end)
                self._finish(copy.deferred, nested, after)
            return after, given
        return self.leave_frame(self.stack(nested.stack, state))

    def leave_frame(self, end: State | None) -> tuple[State | None, Content]:
        """Return the state in which the innermost frame ends, and what it gives."""
        frame = self.frames.pop()
        given = list(frame.given) if end is None else [*frame.given, PLAIN]
        content = given[0] if given else PLAIN
        for each in given[1:]:
            content = content.join(each)
        return join([*(each.fork() for each in frame.returns), end]), content

    def _branches(
        self, nested: list[Nested], entry: State
    ) -> tuple[State | None, dict[str, Content]]:
        emission = self.emission
        ends: list[State | None] = []
        given: dict[str, Content] = {}
        late, emission.late = emission.late, []
        consumed, prompt = dict(entry.consumed), False
        for each in nested:
            branch = entry.fork()
            branch.spoken, branch.consumed = False, dict(consumed)
            before = len(emission.late)
            words = f"the branch `{each.label}`"
            end, content = self.frame(each, branch, words)
            ends.append(end)
            given[each.label or ""] = content
            if end is not None:
                consumed.update(end.consumed)
                prompt = prompt or (not end.silent and len(emission.late) == before)
        # What one branch sends does not wait for what another one reads.
        emission.late = late if prompt else late + emission.late
        reached = [end for end in ends if end is not None]
        if len(reached) < len(ends):
            return None, given
        entry.consumed = consumed
        entry.silent = all(end.silent for end in reached)
        entry.spoken = entry.spoken or any(end.spoken for end in reached)
        for end in reached:
            entry.pending = merge(entry.pending, end.pending) if entry.silent else ()
            entry.done = entry.done or end.done
        return entry, given

    def _own_frame(self, step: Step, nested: Nested, state: State) -> State | None:
        inner = state.fork()
        self.bind(nested, inner)
        with self.around(condition=id(nested.stack)):
            end, _ = self.frame(nested, inner, f"this `{step.function.name}`")
        if end is not None:
            end.names = dict(state.names)
        return join((state, end))

    def _per_item(self, step: Step, nested: Nested, state: State) -> Voice:
        emission = self.emission
        inner = state.fork()
        inner.silent, inner.spoken, inner.pending, inner.done = True, False, (), None
        if not nested.copies:
            inner.unsure(self.bound.of(nested.stack), in_turns=True)
        self.bind(nested, inner)
        late, emission.late = emission.late, []
        met = len(emission.met)
        region = Region(f"the `{step.function.name}`", step.key_mark, turns=False)
        with self.around(region=region, condition=id(nested.stack)):
            words = f"the work of this concurrent `{step.function.name}`"
            end, _ = self.frame(nested, inner, words)
        within, emission.late = tuple(emission.late), late
        if not nested.copies:
            state.unsure(self.bound.of(nested.stack))
        emits = len(emission.met) > met
        if end is None:
            return Voice(emits, silent=True, late=within)
        return Voice(emits, end.silent, end.pending, within)

    def _defer(self, nested: Nested, state: State) -> None:
        if self.ghost:
            self._finish([self._deferred(nested, state)], nested, state)
        else:
            self.copies[-1].deferred.append(self._deferred(nested, state))

    def _deferred(self, nested: Nested, state: State) -> Deferred:
        streams = self.streams
        return Deferred(
            nested, dict(state.names), self.reports.allowed, streams.regions, streams.conditions
        )

    def _finish(self, deferred: list[Deferred], around: Nested, end: State | None) -> None:
        self.finish(deferred, end, self.bound.of(around.stack))

    def finish(self, deferred: list[Deferred], end: State | None, bound: frozenset[str]) -> None:
        """Follow what was put off to the end of a run, with the variables as they are then."""
        emission, streams = self.emission, self.streams
        for each in deferred:
            state = State(dict(each.names), dict(end.consumed) if end is not None else {})
            for name, last in end.names.items() if end is not None else ():
                first = state.names.get(name)
                sure = first is not None and first.sure
                state.names[name] = (
                    replace(last, sure=sure) if first is None else _last(first, last)
                )
            state.unsure(bound)
            before = streams.regions, streams.conditions, streams.tries
            streams.regions, streams.conditions, streams.tries = each.regions, each.conditions, ()
            heard = emission.places, emission.late, emission.any
            emission.places, emission.late = ("emits-in-after",), []
            with self.reports.within(each.allowed):
                self.frame(each.nested, state, "`after`")
            emission.places, emission.late, emission.any = heard
            streams.regions, streams.conditions, streams.tries = before


def _last(first: Binding, last: Binding) -> Binding:
    """Return what a name is at the end, as sure as it was before; the names of a body stay what they were."""
    if first.shape is not None:
        return first
    return Binding(first.sure or last.sure, last.content.join(first.content), last.moved)


def _catches(step: Step) -> bool:
    """Tell whether a step has the group that holds its handler."""
    for parameter in step.function.parameters:
        kind = parameter.type
        inner = kind.parameters if isinstance(kind, Group) else (parameter,)
        if step.arguments.get(parameter.name) is not None:
            types = [each.type for each in inner]
            if any(isinstance(t, StackOf) and t.nesting is Nesting.HANDLER for t in types):
                return True
    return False
