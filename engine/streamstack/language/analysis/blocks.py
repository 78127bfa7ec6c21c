"""Nested stacks: where their paths part, meet again, come round, or run at another time."""

from __future__ import annotations

from dataclasses import replace

from streamstack.language.analysis.context import Guard, Loop
from streamstack.language.analysis.emission import both, merge
from streamstack.language.analysis.frames import Frames
from streamstack.language.analysis.parts import Nested, runs_once_at_least
from streamstack.language.analysis.state import (
    SILENT,
    Content,
    Made,
    Region,
    State,
    Voice,
    Wait,
    join,
)
from streamstack.language.definition import Step
from streamstack.spec import Group, Nesting, StackOf

_ALTERNATIVES = frozenset({Nesting.ALTERNATIVE, Nesting.OTHERWISE})
_OF_TRY = frozenset({Nesting.GUARDED, Nesting.HANDLER, Nesting.FINALLY})


class Blocks(Frames):
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
            after, given = self.follow_branches(branches, after)
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
                    voice = both(voice, self.follow_per_item(step, each, after))
                case Nesting.FRAME:
                    after = self.follow_own_frame(step, each, after)
                case Nesting.DEFERRED:
                    self.follow_defer(each, after)
                case _:
                    pass
        return after, voice, given

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
        failed.spoken, failed.done = guard.spoken, guard.done
        failed.consumed.update(guard.consumed)
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
        self.guards.pop()
        failed.done = guard.done  # the handler may fail too
        failed.consumed.update(guard.consumed)
        if self.guards:
            self.guards[-1].note(failed)
        after = join(ends)
        if after is not None and end is not None:
            # What only a failure sends does not make a loop around one that sends as it goes.
            after.spoken = end.spoken
        for each in by[Nesting.FINALLY]:
            after = self._finally(each, failed, after)
        return after

    def _fail(self, nested: Nested, end: State | None, failed: State) -> None:
        """Let a state hold what may have been bound and consumed when a guarded stack fails."""
        for name in self.steps.bound(nested.stack):
            bound = failed.names.get(name)
            made = end.names.get(name) if end is not None else None
            if made is not None:
                known = made.join(bound) if bound is not None else made
                failed.names[name] = replace(known, sure=bound is not None and bound.sure)
        failed.unsure(self.steps.bound(nested.stack))
        if end is not None:
            failed.consumed.update(end.consumed)

    def _finally(self, nested: Nested, failed: State, normal: State | None) -> State | None:
        either = join((failed, normal))
        end = self.stack(nested.stack, (either or failed).fork())
        if end is not None and self.guards:
            # The failure goes on from here.
            self.guards[-1].note(end)
        if end is None or normal is None:
            return None
        for name in self.steps.bound(nested.stack):
            if name in end.names:
                normal.names[name] = end.names[name]
        if not end.silent:
            normal.silent, normal.pending = False, ()
        elif normal.silent:
            normal.pending = merge(normal.pending, end.pending)
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
                    self.finish(copy.deferred, end)
            else:
                body.unsure(self.steps.bound(nested.stack), in_turns=True)
                end = self.stack(nested.stack, body)
        frame.loops.pop()
        again = [each for each in (end, *loop.turns) if each is not None]
        self.streams.close(region, [entry] if nested.copies else again)
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
        if done is not None and entry.done is None:
            first = self.emission.met[met] if len(self.emission.met) > met else done
            self.emission.refuse_after_done(first, done, next_turn=True)

    def wait_for(
        self, step: Step, read: tuple[Made, ...], state: State, *, loop: bool = False
    ) -> None:
        """Note that a step reads streams to their end, unless they are short or emit by themselves."""
        for made in read:
            if made.brief or made.voice.emits or self.ghost:
                continue
            if loop:
                advice = (
                    f"emit inside the loop in line {step.key_mark.line}, or give the items on with `streams.map` "
                    "and loop over these once"
                )
            else:
                advice = (
                    f"write `forEach` over {made.title} and emit inside it, "
                    "or move this step behind the first chunk"
                )
            only_with = made.maybe_input
            self.emission.wait(
                state, Wait(step.title, step.key_mark, made.title, advice, only_with=only_with)
            )


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
