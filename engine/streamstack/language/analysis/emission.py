"""What is emitted, after what, and whether anything waits for a whole stream before the first chunk."""

from __future__ import annotations

from dataclasses import replace

from streamstack.errors import Mark
from streamstack.language.analysis.state import Emissions, Event, Made, Reports, State, Wait
from streamstack.language.definition import Step


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
        who = (
            f"`{title}`"
            if source is None
            else f"the function `{title}`, in line {source.line} of {source.file},"
        )
        words = {
            "emits-in-after": f"{who} sends chunks in `after`, when the response is over",
            "emits-in-json": f"{who} sends chunks, and the endpoint answers with JSON",
            "emits-in-transaction": f"{who} sends chunks while a transaction is open: a slow reader would hold it open",
        }
        for code in self.places:
            self._reports.add(code, mark, words[code])

    def send(self, state: State, event: Event) -> None:
        """Note that a chunk is sent."""
        self.any = True
        self.events.append(event)
        if state.done is not None:
            self.refuse_after_done(event, state.done)
        if state.may_be_unsent and state.pending:
            self.late += [(wait, event.mark) for wait in state.pending]
        state.may_be_unsent, state.may_be_sent, state.pending = False, True, ()

    def refuse_after_done(
        self, event: Event, done: Event, *, next_turn: bool = False, beside: bool = False
    ) -> None:
        """Report a chunk, or another end marker, after the end marker."""
        title, end = event.title, f"the `{done.title}` in line {done.mark.line}"
        hint = None
        if event is done:
            message = (
                f"`{title}` comes again on the next turn of the loop: the end can be marked once"
            )
            hint = "move it behind the loop"
        elif next_turn:
            message = f"on the next turn of the loop, `{title}` comes after {end}"
            hint = f"move `{done.title}` behind the loop"
        elif beside:
            message = f"`{title}` may come after {end}, which is in another branch"
            hint = f"move `{done.title}` behind the branches"
        else:
            message = f"`{title}` comes after {end}: nothing may follow the end"
        sure = not beside and (next_turn or done.meets(event.conditions))
        self._reports.add("after-done", event.mark, message, hint, sure=sure)

    def close(self, state: State, event: Event) -> None:
        """Note the end marker."""
        if state.done is not None:
            self.refuse_after_done(event, state.done)
        state.done = event

    def wait(self, state: State, wait: Wait) -> None:
        """Note that a step waits for a whole stream."""
        if state.may_be_unsent and not self._reports.allows("buffers-stream"):
            state.pending = (*state.pending, wait)

    def apply(self, state: State, emissions: Emissions, event: Event) -> None:
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

    def apply_one_of(self, state: State, parts: list[Emissions], event: Event) -> None:
        """Note what one of several parts emits and waits for, as it runs here."""
        if len(parts) == 1:
            self.apply(state, parts[0], event)
            return
        emissions = parts[0]
        for other in parts[1:]:
            together = both(emissions, other)
            emissions = replace(
                together, may_be_unsent=emissions.may_be_unsent or other.may_be_unsent
            )
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
        advice = (
            f"let `{function}` emit while it reads, or return the stream instead of what it held"
        )
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
