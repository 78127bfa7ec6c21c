"""Stacks in frames of their own: branches, work per item, what is put off to the end of the run."""

from __future__ import annotations

from dataclasses import replace

from streamstack.language.analysis.context import Context, Deferred, Frame
from streamstack.language.analysis.emission import merge
from streamstack.language.analysis.names import AT_THE_END, ERROR, LOOP
from streamstack.language.analysis.parts import Nested, take_apart
from streamstack.language.analysis.state import (
    PLAIN,
    Binding,
    Content,
    Event,
    Made,
    Region,
    Shape,
    State,
    Voice,
    join,
)
from streamstack.language.definition import Stack, Step
from streamstack.spec import Nesting

#: Stacks that `return` ends.
_FRAMES = frozenset({Nesting.BRANCH, Nesting.ITEM, Nesting.DEFERRED, Nesting.FRAME})


class Frames(Context):
    """Follows the stacks that `return` ends."""

    def bind(self, nested: Nested, state: State, read: tuple[Made, ...] = ()) -> None:
        """Bind the names that a nested stack sees."""
        for name, _ in nested.binds:
            handler = nested.type.nesting is Nesting.HANDLER
            state.names[name] = Binding(True, shape=Shape("an error", ERROR) if handler else None)
        if nested.type.loop:
            known = LOOP if nested.counted else LOOP - AT_THE_END
            state.names["loop"] = Binding(True, shape=Shape("a loop", known, bool(read)))

    def unbind(self, nested: Nested, before: State, after: State) -> None:
        """Give the names that a nested stack saw the meaning back that they had before."""
        for name in (*(name for name, _ in nested.binds), *(("loop",) if nested.type.loop else ())):
            binding = before.names.get(name)
            if binding is not None:
                after.names[name] = binding
            else:
                after.names.pop(name, None)

    def frame(self, nested: Nested, state: State, words: str) -> tuple[State | None, Content]:
        """Follow a stack that is a frame; return the state behind it and what it gives."""
        self.frames.append(Frame())
        if nested.copies:
            with self.copy(nested, state, words) as copy:
                end = self.stack(nested.stack, state)
                after, given = self.leave_frame(end)
                self.finish(copy.deferred, after)
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

    def follow_branches(
        self, nested: list[Nested], entry: State
    ) -> tuple[State | None, dict[str, Content]]:
        emission = self.emission
        ends: list[State | None] = []
        given: dict[str, Content] = {}
        sent: list[Event | None] = []
        late, emission.late = emission.late, []
        consumed, prompt = dict(entry.consumed), False
        for each in nested:
            branch = entry.fork()
            branch.spoken, branch.consumed = False, dict(consumed)
            before, met = len(emission.late), len(emission.met)
            words = f"the branch `{each.label}`"
            end, content = self.frame(each, branch, words)
            ends.append(end)
            given[each.label or ""] = content
            sent.append(emission.met[met] if len(emission.met) > met else None)
            if end is not None:
                consumed.update(end.consumed)
                prompt = prompt or (not end.silent and len(emission.late) == before)
        # What one branch sends does not wait for what another one reads.
        emission.late = late if prompt else late + emission.late
        self._check_done_beside(entry, ends, sent)
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

    def _check_done_beside(
        self, entry: State, ends: list[State | None], sent: list[Event | None]
    ) -> None:
        """Report a chunk of one branch that may come after the `done` of another."""
        for number, end in enumerate(ends):
            if end is not None and end.done is not None and entry.done is None:
                for other, event in enumerate(sent):
                    if event is not None and other != number:
                        self.emission.refuse_after_done(event, end.done, beside=True)

    def follow_own_frame(self, step: Step, nested: Nested, state: State) -> State | None:
        inner = state.fork()
        self.bind(nested, inner)
        with self.around(condition=id(nested.stack)):
            end, given = self.frame(nested, inner, f"this `{step.function.name}`")
        if given.is_stream:
            made = given.streams[0]
            self.reports.add(
                "stream-in-expression",
                step.key_mark,
                f"`{step.function.name}` can't keep {made.title}, which is a stream (made in line {made.mark.line})",
                "`collect` it and return the list",
            )
        if end is not None:
            if step.result is not None and not self.ghost and not _returns(nested.stack):
                self._refuse_null(step, nested)
            end.names = dict(state.names)
        return join((state, end))

    def _refuse_null(self, step: Step, nested: Nested) -> None:
        """Report steps that are to make a value and never return one."""
        last = nested.stack.steps[-1].result if nested.stack.steps else None
        self.reports.add(
            "caches-null",
            step.key_mark,
            f"`{step.result}` is always null: no step of this `{step.function.name}` returns a value",
            f"write `- return: << {last} >>` at the end of its `do`" if last else None,
        )

    def follow_per_item(self, step: Step, nested: Nested, state: State) -> Voice:
        emission = self.emission
        inner = state.fork()
        inner.silent, inner.spoken, inner.pending, inner.done = True, False, (), None
        inner.unsure(self.late_names())
        self.bind(nested, inner)
        late, emission.late = emission.late, []
        met = len(emission.met)
        region = Region(f"the `{step.function.name}`", step.key_mark, turns=False)
        with self.around(region=region, condition=id(nested.stack)):
            words = f"the work of this concurrent `{step.function.name}`"
            end, _ = self.frame(nested, inner, words)
        within, emission.late = tuple(emission.late), late
        if not nested.copies:
            state.unsure(self.steps.bound(nested.stack))
        emits = len(emission.met) > met
        if end is not None and end.done is not None:
            emission.refuse_after_done(end.done, end.done, next_turn=True)
        if end is None:
            return Voice(emits, silent=True, late=within)
        return Voice(emits, end.silent, end.pending, within)

    def follow_defer(self, nested: Nested, state: State) -> None:
        if self.ghost:
            self.finish([self._deferred(nested, state)], state)
        else:
            self.copies[-1].deferred.append(self._deferred(nested, state))

    def _deferred(self, nested: Nested, state: State) -> Deferred:
        streams = self.streams
        return Deferred(
            nested, dict(state.names), self.reports.allowed, streams.regions, streams.conditions
        )

    def finish(self, deferred: list[Deferred], end: State | None) -> None:
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
            state.unsure(self.late_names())
            before = streams.regions, streams.conditions, streams.tries
            streams.regions, streams.conditions, streams.tries = each.regions, each.conditions, ()
            heard = emission.places, emission.late, emission.any
            emission.places, emission.late = ("emits-in-after",), []
            with self.reports.within(each.allowed):
                self.frame(each.nested, state, "`after`")
            emission.places, emission.late, emission.any = heard
            streams.regions, streams.conditions, streams.tries = before


def _returns(stack: Stack) -> bool:
    """Tell whether a stack has a `return` that ends its own frame."""
    return any(
        step.function.effects.leaves == "frame"
        or any(
            _returns(nested.stack)
            for nested in take_apart(step).nested
            if nested.type.nesting not in _FRAMES
        )
        for step in stack.steps
        if not step.disabled
    )


def _last(first: Binding, last: Binding) -> Binding:
    """Return what a name is at the end, as sure as it was before; the names of a body stay what they were."""
    if first.shape is not None:
        return first
    return Binding(first.sure or last.sure, last.content.join(first.content), last.moved)
