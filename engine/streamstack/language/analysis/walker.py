"""One step after the other: what it reads, takes, binds, emits, and where it leaves."""

from __future__ import annotations

from streamstack.language.analysis.blocks import Blocks
from streamstack.language.analysis.callees import Callees, Summary
from streamstack.language.analysis.emission import both, called, of_streams
from streamstack.language.analysis.parts import Parts, PerItem, constant, written
from streamstack.language.analysis.state import (
    OF_EVERY_STREAM,
    PLAIN,
    SILENT,
    Binding,
    Content,
    Event,
    Made,
    Region,
    State,
    Voice,
    Wait,
    join,
)
from streamstack.language.analysis.streams import READS
from streamstack.language.declare import Effects
from streamstack.language.definition import Definition, Given, Items, Stack, Step
from streamstack.language.expressions import Value
from streamstack.language.values import MISSING
from streamstack.spec import Kind


class Walker(Blocks):
    """Follows a definition from its first step on."""

    def __init__(self, definition: Definition, callees: Callees) -> None:
        super().__init__(definition)
        self._callees = callees
        self._answers_json = False

    def stack(self, stack: Stack, state: State) -> State | None:
        """Follow steps one after the other; return the state behind them, None where none leads there."""
        steps = stack.steps
        for index, step in enumerate(steps):
            after = self._step(step, state)
            if after is None:
                rest = steps[index + 1 :]
                if rest and not self.ghost:
                    self._unreachable(step, rest[0])
                with self.unheard():
                    for each in rest:
                        state = self._step(each, state) or state
                return None
            state = after
        return state

    def _unreachable(self, leaving: Step, step: Step) -> None:
        with self.reports.within((*self.reports.allowed, step.allow)):
            self.reports.add(
                "unreachable",
                step.mark,
                f"`{step.title}` never runs: `{leaving.title}` in line {leaving.key_mark.line} always leaves before it",
            )

    def _step(self, step: Step, state: State) -> State | None:
        if step.allow:
            with self.reports.within((*self.reports.allowed, step.allow)):
                return self._modified(step, state)
        return self._modified(step, state)

    def _modified(self, step: Step, state: State) -> State | None:
        """Follow a step with its modifiers."""
        if self.guards and not self._is_harmless(step):
            self.guards[-1].note(state)
        if step.disabled:
            with self.unheard():
                self._run(step, state.fork())
            self._bind_result(step, state, PLAIN)
            return state
        if step.when is None:
            return self._retried(step, state)
        self.names.read(step.when, state)
        self.streams.check_condition(step.when, step, state)
        skipped = state.fork()
        asked = frozenset(self.names.asked(step.when))
        state.assure(asked)
        with self.around(condition=id(step)):
            after = self._retried(step, state)
        if after is None:
            skipped.assure(asked)
        if step.result is not None:
            skipped.names[step.result] = Binding(sure=True)
        return join((after, skipped))

    def _is_harmless(self, step: Step) -> bool:
        """Tell whether a step surely does not fail: it only sets constants."""
        if step.when is not None or not step.function.effects.sets:
            return False
        return all(use.value.constant is not MISSING for use in self.steps.parts(step).uses)

    def _retried(self, step: Step, state: State) -> State | None:
        if step.retry is None:
            return self._run(step, state)
        with self.around(region=Region(f"the retried `{step.title}`", step.key_mark, turns=False)):
            return self._run(step, state)

    def _run(self, step: Step, state: State) -> State | None:
        effects, parts = step.function.effects, self.steps.parts(step)
        if isinstance(step.timeout, Value):
            self.names.read(step.timeout, state)
            self.streams.check_condition(step.timeout, step, state)
        if effects.sets:
            self._set(step, parts, state)
            return state
        read, handed, asked = self._read(step, parts, state)
        voice = of_streams(read) if read else SILENT
        event = Event(step.key_mark, step.title, self.streams.conditions)
        lazy = effects.gives == "stream"
        if read and not lazy and not self.ghost:
            self.emission.apply(state, voice, event)
            if effects.waits_for_stream:
                self.wait_for(step, read, state)
        given: dict[str, Content] = {}
        if parts.nested:
            after, own, given = self.follow_nested(step, parts.nested, asked, read, state)
            if after is None:
                return None
            state, voice = after, both(voice, own) if own is not SILENT else voice
            if own is not SILENT and not lazy and not self.ghost:
                self.emission.apply(state, own, event)
        elif asked:
            state.assure(asked)
        content = PLAIN
        if lazy:
            content = Content((self._make(step, effects, read, voice),), plain=False)
        elif effects.calls:
            found = self._call(step, handed, event, state)
            if found is None:
                return None
            content = found
        if content.is_stream and step.result is None and not self.ghost:
            message = f"`{step.title}` gives a stream that is never read: it has no `as`"
            self.reports.add("unread-stream", step.key_mark, message)
        if effects.emits and not self.ghost:
            self._emit(effects, event, state)
        self._bind(step, effects, given, content, state)
        return self._leave(step, effects, handed, state) if effects.ends else state

    # -- what a step reads

    def _read(
        self, step: Step, parts: Parts, state: State
    ) -> tuple[tuple[Made, ...], dict[str, Content], frozenset[str]]:
        """Check the values of a step.

        Return the streams it reads, what it hands over by the author's keys, and the names its conditions ask for.
        """
        effects = step.function.effects
        read: tuple[Made, ...] = ()
        handed: dict[str, Content] = {}
        asked: set[str] = set()
        for use in parts.uses:
            if not use.value.reads:
                continue
            outer = state.names.get("loop")
            turns = use.kind is None and next((n for n in parts.nested if n.type.loop), None)
            if turns:
                self.bind(turns, state)  # the condition of `while` is asked in each turn
            self.names.read(use.value, state)
            if turns and outer is not None:
                state.names["loop"] = outer
            elif turns:
                del state.names["loop"]
            content = self.streams.evaluate(use, step, state, ghost=bool(self.ghost))
            if use.kind is Kind.ANY_OR_STREAM and (effects.calls or effects.ends):
                handed[use.entry or use.parameter] = content
            elif content.streams:
                read += tuple(made for made in content.streams if made not in read)
            elif use.kind is None:
                asked.update(self.names.asked(use.value))
        for each in parts.per_item:
            self._read_per_item(each, step, state)
        return read, handed, frozenset(asked)

    def _read_per_item(self, each: PerItem, step: Step, state: State) -> None:
        """Check a value that is computed later, for each item."""
        inner = State(dict(state.names))
        inner.unsure(self.late_names())
        inner.names[each.name] = Binding(sure=True)
        self.names.read(each.value, inner)
        self.streams.check_condition(each.value, step, inner)

    def _set(self, step: Step, parts: Parts, state: State) -> None:
        """Follow `set`: each value sees the names before it; a stream moves to its new name."""
        places = {each.name: each.mark for each in written(step)}
        for use in parts.uses:
            self.names.read(use.value, state)
            content = self.streams.evaluate(use, step, state)
            name = use.entry or ""
            mark = places.get(name, step.key_mark)
            if content.streams:
                old, _ = self.names.content(use.value, state)
                self.streams.move(old, name, use.value.mark, state)
            self.write(name, mark, content, state)
            self.note_bound(name, mark, content)

    # -- what a step makes, calls, emits

    def _make(self, step: Step, effects: Effects, read: tuple[Made, ...], voice: Voice) -> Made:
        properties = frozenset(each.name for each in effects.properties) | OF_EVERY_STREAM
        name = f"`{step.result}`" if step.result else f"what `{step.title}` gives"
        made = self.streams.make(name, step.key_mark, properties)
        parts = self.steps.parts(step)
        at_hand = any(use.kind in READS for use in parts.uses) and not parts.nested
        made.brief = effects.shortens or (at_hand and all(each.brief for each in read))
        if effects.waits_for_stream:
            advice = "put this step behind the first chunk, or send the items as they come"
            waits = tuple(
                Wait(step.title, step.key_mark, each.title, advice, only_with=each.maybe_input)
                for each in read
                if not each.brief and not self.reports.silences("buffers-stream")
            )
            voice = both(voice, Voice(pending=waits))
        made.voice = voice
        return made

    def _call(
        self, step: Step, handed: dict[str, Content], event: Event, state: State
    ) -> Content | None:
        """Follow a call of a function of the project; None where it never comes back."""
        summaries = [self._callees.summary(name) for name in _called_names(step)]
        known = [summary for summary in summaries if summary is not None]
        passed = tuple(made for content in handed.values() for made in content.streams)
        voice = of_streams(passed) if passed else SILENT
        if not known or len(known) < len(summaries):
            if not self.ghost:
                # A function that can't be seen may emit.
                self.emission.any = True
                state.silent, state.pending = False, ()
            return PLAIN
        streams = frozenset(name for name, content in handed.items() if content.streams)
        content, comes_back = self._combine(step, known, streams, voice)
        if not self.ghost:
            for summary in known:
                if summary.emits is not None:
                    self.emission.check_place(step.key_mark, summary.name, summary.emits)
                    break
            if not content.streams:
                self.emission.apply(state, voice, event)
            heard = [called(each.voice, each.name, step, streams) for each in known]
            self.emission.apply_one_of(state, heard, event)
            if any(each.closes for each in known):
                self.emission.close(state, event)
        return content if comes_back else None

    def _combine(
        self, step: Step, known: list[Summary], streams: frozenset[str], passed: Voice
    ) -> tuple[Content, bool]:
        """Return what one of several functions gives, and whether any comes back."""
        plain = any(each.gives_plain for each in known)
        giving = [each for each in known if each.gives_stream]
        if not giving:
            return PLAIN, any(each.comes_back for each in known)
        properties = frozenset[str]().union(*(each.properties for each in giving))
        name = f"`{step.result}`" if step.result else f"what `{step.title}` gives"
        made = self.streams.make(name, step.key_mark, properties)
        for each in giving:
            passed = both(passed, called(each.stream_voice, each.name, step, streams))
        made.voice = passed
        made.brief = all(each.brief for each in giving)
        return Content((made,), plain), any(each.comes_back for each in known)

    def _emit(self, effects: Effects, event: Event, state: State) -> None:
        self.emission.check_place(event.mark, event.title)
        if effects.closes:
            self.emission.close(state, event)
        else:
            self.emission.say(state, event)

    # -- what a step binds, and where it leaves

    def _bind(
        self,
        step: Step,
        effects: Effects,
        given: dict[str, Content],
        content: Content,
        state: State,
    ) -> None:
        if effects.rebinds is not None or effects.publishes is not None:
            for each in written(step):
                if each.name == step.result and each.mark == step.result_mark:
                    continue
                if effects.rebinds is not None:
                    self.names.rebind(each.name, each.mark, state)
                what = self._published(step, each.name, given.get(each.name, PLAIN))
                self.write(each.name, each.mark, what, state)
        self._bind_result(step, state, content)

    def _published(self, step: Step, name: str, content: Content) -> Content:
        """Return a branch's result as what its name holds after the branches: a stream of its own."""
        if not content.streams:
            return content
        first = content.streams[0]
        made = self.streams.make(f"`{name}`", step.key_mark, first.properties)
        made.voice, made.brief = of_streams(content.streams), first.brief
        return Content((made,), content.plain)

    def _bind_result(self, step: Step, state: State, content: Content) -> None:
        if step.result is not None:
            mark = step.result_mark or step.mark
            self.write(step.result, mark, content, state)
            if not step.disabled:
                self.note_bound(step.result, mark, content)

    def _leave(
        self, step: Step, effects: Effects, handed: dict[str, Content], state: State
    ) -> State | None:
        frame = self.frames[-1]
        if effects.leaves == "frame":
            content = next(iter(handed.values()), PLAIN)
            if content.is_stream and self._answers_json and len(self.frames) == 1:
                self.refuse_answer(step, content)
            if not self.ghost:
                frame.returns.append(state.fork())
                frame.given.append(content)
        elif effects.leaves in ("loop", "turn"):
            if not frame.loops:
                words = "stands in no loop"
                if len(self.frames) > 1:
                    words += " of its own frame: it can't leave one from inside a branch, `after` or work per item"
                message = f"`{step.function.name}` {words}"
                self.reports.add("outside-loop", step.key_mark, message)
                return state
            if not self.ghost:
                loop = frame.loops[-1]
                (loop.breaks if effects.leaves == "loop" else loop.turns).append(state.fork())
        return None

    def refuse_answer(self, step: Step, content: Content) -> None:
        """Report a stream as the answer of an endpoint that answers with JSON."""
        made = content.streams[0]
        reads = (read for use in self.steps.parts(step).uses for read in use.value.reads)
        read = next(reads, None)
        self.reports.add(
            "stream-in-expression",
            read.mark if read is not None else step.key_mark,
            f"{made.title} is a stream (made in line {made.mark.line}), which JSON can't hold",
            "`collect` it and return the list, or write `responseType: streaming` and `forEach` over it",
        )

    def answer_json(self) -> None:
        """Take the definition as an endpoint that answers with JSON."""
        self._answers_json = True
        self.emission.places = ("emits-in-json",)


def _called_names(step: Step) -> list[str]:
    """Return the functions a step may call: the one it names, else those it lists."""
    for parameter in step.function.effects.calls:
        argument = step.arguments.given.get(parameter)
        if argument is None:
            continue
        items = argument.items if isinstance(argument, Items) else (argument,)
        names = [constant(item) for item in items if isinstance(item, (Given, Value))]
        names = [name for each in names for name in (each if isinstance(each, list) else [each])]
        if names and all(isinstance(name, str) for name in names):
            return [str(name) for name in names]
    return []
