"""Follow streams and emissions through a stack: the proof that an endpoint streams."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streamstack.errors import Mark
from streamstack.language.analysis.names import Names, stream_input
from streamstack.language.analysis.state import (
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
)
from streamstack.language.definition import Step
from streamstack.language.expressions import Read, Value
from streamstack.language.graph import Use
from streamstack.language.kinds import Kind

#: Parameters that iterate a stream, and those that only take it over.
READS: Final = frozenset({Kind.STREAM, Kind.ITEMS})
TAKES: Final = READS | {Kind.ANY_OR_STREAM}


class StreamAnalysis:
    """Follows the streams of one definition.

    ``regions``: what may run again around the present step; ``tries``: the `try` blocks whose errors are caught around
    it; ``conditions``: what the step depends on.
    """

    def __init__(self, reports: Reports, names: Names) -> None:
        self._reports = reports
        self._names = names
        self.regions: tuple[Region, ...] = ()
        self.tries: tuple[Mark, ...] = ()
        self.conditions: tuple[object, ...] = ()

    def make(self, title: str, mark: Mark, properties: frozenset[str]) -> Made:
        """Return the stream that a step makes."""
        return Made(title, mark, self.regions, self.tries, properties)

    def evaluate(self, use: Use, step: Step, state: AnalysisState, *, dead: bool = False) -> Content:
        """Check where the streams stand that a value reads; return what the value is.

        A stream that the parameter takes is consumed, unless `set` moves it.
        """
        value = use.value
        if not value.reads:
            return PLAIN
        name, content = self._names.content(value, state)
        if content.streams and use.kind in TAKES:
            if not step.function.effects.sets and not dead:
                self.consume(name, content, value.reads[0].mark, step, state)
            return content
        for read in value.reads:
            self._refuse(read, value, step, state)
        return PLAIN

    def check_condition(self, value: Value, step: Step, state: AnalysisState) -> None:
        """Check that an expression reads no stream."""
        for read in value.reads:
            self._refuse(read, value, step, state)

    def _refuse(self, read: Read, value: Value, step: Step, state: AnalysisState) -> None:
        name = read.name
        if read.path:
            name = stream_input(read, _path_text(read)) if len(read.path) == 1 else ""
        binding = state.names.get(name) if name and not read.soft else None
        if binding is None or not binding.content.is_stream:
            return
        if value.whole and read.whole and step.function.effects.emits:
            hint = f"write `forEach: {{in: <<{name}>>, do: [...]}}` and send each item in it"
        elif "length" in read.expression or "count" in read.expression:
            hint = f"`{name}.count` is how many items have come so far; for more, `collect` it first"
        else:
            hint = f"read `{name}` with `forEach`, or hold it whole with `collect` and use that"
        words = "here: only data is allowed" if value.whole and read.whole else "in an expression"
        message = (
            f"`{name}` is a stream (made in line {binding.content.streams[0].mark.line}) and can't be used {words}"
        )
        self._reports.add("stream-in-expression", read.mark, message, hint)

    def move(self, old: str, new: str, mark: Mark, state: AnalysisState) -> None:
        """Let `set` give a stream another name: the old one can't be consumed any more."""
        binding = state.names.get(old)
        if old != new and binding is not None:
            self._refuse_moved(old, binding, mark)
            state.names[old] = replace(binding, moved=mark)

    def _refuse_moved(self, name: str, binding: Binding, mark: Mark) -> bool:
        if binding.moved is None or binding.moved == mark:
            return False
        self._reports.add(
            "consumed-twice",
            mark,
            f"`{name}` no longer holds its stream: `set` gave it another name in line {binding.moved.line}",
            "use the new name",
        )
        return True

    def consume(self, name: str, content: Content, mark: Mark, step: Step, state: AnalysisState) -> None:
        """Check that streams are consumed for the first time, and remember that they are."""
        binding = state.names.get(name)
        if binding is not None and self._refuse_moved(name, binding, mark):
            return
        for made in content.streams:
            before = state.consumed.get(made)
            if before is not None:
                self._refuse_again(name, before, mark)
            else:
                self._check_regions(name, made, mark)
            state.consumed[made] = Event(mark, step.title, self.conditions)
            escaped = [at for at in made.tries if at not in self.tries]
            if escaped:
                self._reports.add(
                    "error-escapes-try",
                    mark,
                    f"`{name}` is made in the `try` in line {escaped[0].line}, but opens here, outside of it: "
                    "its errors are not caught there",
                    "read the stream inside the `try`, or put a `try` around this step",
                )

    def _refuse_again(self, name: str, before: Event, mark: Mark) -> None:
        self._reports.add(
            "consumed-twice",
            mark,
            f"the stream `{name}` was already consumed by `{before.title}` in line {before.mark.line}",
            f"`collect` it once and use the list, or do both in one `forEach` over `{name}`",
            sure=before.meets(self.conditions),
        )

    def _check_regions(self, name: str, made: Made, mark: Mark) -> None:
        """Find the regions entered since the stream was made, which may consume it again."""
        inner = [region for region in self.regions if region not in made.regions]
        for region in inner:
            if not region.turns:
                self._refuse_in(region, name, made, mark)
                return
        if not self._reports.allows("consumed-twice"):
            for region in inner:
                region.suspects.append((name, made, mark))

    def _refuse_in(self, region: Region, name: str, made: Made, mark: Mark) -> None:
        self._reports.add(
            "consumed-twice",
            mark,
            f"the stream `{name}` is made outside (line {made.mark.line}) and consumed inside "
            f"{region.name} in line {region.mark.line}, which may run more than once",
            "make the stream inside, or `collect` it before",
        )

    def close(self, region: Region, again: list[AnalysisState]) -> None:
        """Report the streams that a loop would consume again, given the states it comes round in."""
        for name, made, mark in region.suspects:
            for state in again:
                binding = state.names.get(name)
                if binding is not None and made in binding.content.streams:
                    self._refuse_in(region, name, made, mark)
                    break


def _path_text(read: Read) -> str:
    return f"{read.name}.{read.path[0]}" if len(read.path) == 1 else ""


class Emission:
    """Follows the chunks of one definition.

    ``places``: why nothing may be sent at the present step, by the code of the finding. ``late``: the
    waits that a chunk came after on a path that had sent none, with the place of that chunk.
    """

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self.places: tuple[str, ...] = ()
        self.late: list[tuple[Wait, Mark]] = []
        self.any = False  # whether any path emits
        self.events: list[Event] = []  # the emissions met, in written order

    def check_place(self, mark: Mark, title: str, source: Mark | None = None) -> None:
        """Report an emission where none may be. ``source``: the step of a called function that emits."""
        if not self.places:
            return
        who = f"`{title}`" if source is None else f"the function `{title}`, in line {source.line} of {source.file},"
        words = {
            "emits-in-after": f"{who} sends chunks in `after`, when the response is over",
            "emits-in-task": f"{who} sends chunks, and a task has no client",
            "emits-in-json": f"{who} sends chunks, but the endpoint responds with JSON",
            "emits-in-transaction": f"{who} sends chunks while a transaction is open: a slow client would keep it open",
        }
        for code in self.places:
            self._reports.add(code, mark, words[code])

    def send(self, state: AnalysisState, event: Event) -> None:
        """Note that a chunk is sent."""
        self.any = True
        self.events.append(event)
        if state.done is not None:
            self.refuse_after_done(event, state.done)
        if state.may_be_unsent and state.pending:
            self.late += [(wait, event.mark) for wait in state.pending]
        state.may_be_unsent, state.may_be_sent, state.pending = False, True, ()

    def refuse_after_done(self, event: Event, done: Event, *, next_turn: bool = False, beside: bool = False) -> None:
        """Report a chunk, or another end marker, after the end marker."""
        title, end = event.title, f"the `{done.title}` in line {done.mark.line}"
        hint = None
        if event is done:
            message = f"`{title}` runs again in the next iteration of the loop, but the end can be marked only once"
            hint = "move it behind the loop"
        elif next_turn:
            message = f"in the next iteration of the loop, `{title}` comes after {end}"
            hint = f"move `{done.title}` behind the loop"
        elif beside:
            message = f"`{title}` may come after {end}, which is in another branch"
            hint = f"move `{done.title}` behind the branches"
        else:
            message = f"`{title}` comes after {end}: nothing may follow the end"
        sure = not beside and (next_turn or done.meets(event.conditions))
        self._reports.add("after-done", event.mark, message, hint, sure=sure)

    def close(self, state: AnalysisState, event: Event) -> None:
        """Note the end marker."""
        if state.done is not None:
            self.refuse_after_done(event, state.done)
        state.done = event

    def wait(self, state: AnalysisState, wait: Wait) -> None:
        """Note that a step waits for a whole stream."""
        if state.may_be_unsent and not self._reports.allows("buffers-stream"):
            state.pending = (*state.pending, wait)

    def apply(self, state: AnalysisState, emissions: Emissions, event: Event) -> None:
        """Note what a part that runs elsewhere emits and waits for, as it runs here."""
        if state.may_be_unsent and not self._reports.allows("buffers-stream"):
            self.late += emissions.late
            state.pending = merge(state.pending, emissions.pending if not emissions.emits else ())
        if emissions.emits:
            was = state.may_be_unsent
            before = state.pending
            self.send(state, event)
            if emissions.may_be_unsent and was:
                state.may_be_unsent = True
                state.pending = merge(before, emissions.pending)
        elif not emissions.may_be_unsent:
            state.may_be_unsent, state.pending = False, ()

    def apply_one_of(self, state: AnalysisState, parts: list[Emissions], event: Event) -> None:
        """Note what one of several parts emits and waits for, as it runs here."""
        if len(parts) == 1:
            self.apply(state, parts[0], event)
            return
        emissions = parts[0]
        for other in parts[1:]:
            together = both(emissions, other)
            emissions = replace(together, may_be_unsent=emissions.may_be_unsent or other.may_be_unsent)
        self.apply(state, emissions, event)


def merge(one: tuple[Wait, ...], other: tuple[Wait, ...]) -> tuple[Wait, ...]:
    """Return the waits of both."""
    return one + tuple(wait for wait in other if wait not in one) if other else one


def of_streams(streams: tuple[Made, ...]) -> Emissions:
    """Return how streams emit and wait while they are read."""
    if len(streams) == 1:
        return streams[0].emissions
    emissions = Emissions()
    for made in streams:
        emissions = both(emissions, made.emissions)
    return emissions


def both(one: Emissions, other: Emissions) -> Emissions:
    """Return how two parts emit and wait that run together."""
    return Emissions(
        one.emits or other.emits,
        one.may_be_unsent and other.may_be_unsent,
        merge(one.pending, other.pending),
        one.late + tuple(each for each in other.late if each not in one.late),
    )


def called(emissions: Emissions, function: str, step: Step, streams: frozenset[str]) -> Emissions:
    """Return how a function emits and waits, as its caller sees it.

    ``streams``: the inputs that are given a stream; waits for others don't count.
    """

    def wrap(wait: Wait) -> Wait:
        advice = f"let `{function}` emit while it reads, or return the stream instead of what it held"
        title = step.name or f"{step.function.name} {function}"
        return Wait(title, step.key_mark, wait.stream, advice, wait)

    def real(wait: Wait) -> bool:
        return wait.only_with is None or wait.only_with in streams

    return replace(
        emissions,
        pending=tuple(wrap(wait) for wait in emissions.pending if real(wait)),
        late=tuple((wrap(wait), at) for wait, at in emissions.late if real(wait)),
    )


def describe(wait: Wait, chunk: Mark) -> str:
    """Say what waits, and for what."""
    source = wait.source
    first = f"the first chunk, sent in line {chunk.line}"
    if chunk.file != wait.mark.file:
        first += f" of {chunk.file}"
    if wait.inside is None:
        return f"`{wait.step}` in line {wait.mark.line} waits for the whole of {wait.stream} before {first}"
    where = f"`{source.step}` in line {source.mark.line} of {source.mark.file}"
    return f"`{wait.step}` in line {wait.mark.line} waits for the whole of {source.stream} ({where}) before {first}"
