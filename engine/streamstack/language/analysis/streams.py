"""Where streams are made, moved and consumed: each once, and each where it may stand."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streamstack.errors import Mark
from streamstack.language.analysis.names import Names, stream_input
from streamstack.language.analysis.state import (
    PLAIN,
    Binding,
    Content,
    Event,
    Made,
    Region,
    Reports,
    State,
)
from streamstack.language.definition import Step
from streamstack.language.expressions import Read, Value
from streamstack.language.graph import Use
from streamstack.spec import Kind

#: Parameters that iterate a stream, and those that only take it over.
READS: Final = frozenset({Kind.STREAM, Kind.ITEMS})
TAKES: Final = READS | {Kind.ANY_OR_STREAM}


class Streams:
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

    def evaluate(self, use: Use, step: Step, state: State, *, dead: bool = False) -> Content:
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

    def check_condition(self, value: Value, step: Step, state: State) -> None:
        """Check that an expression reads no stream."""
        for read in value.reads:
            self._refuse(read, value, step, state)

    def _refuse(self, read: Read, value: Value, step: Step, state: State) -> None:
        name = read.name
        if read.path:
            name = stream_input(read, _path_text(read)) if len(read.path) == 1 else ""
        binding = state.names.get(name) if name and not read.soft else None
        if binding is None or not binding.content.is_stream:
            return
        if value.whole and read.whole and step.function.effects.emits:
            hint = f"write `forEach: {{in: <<{name}>>, do: [...]}}` and send each item in it"
        elif "length" in read.expression or "count" in read.expression:
            hint = (
                f"`{name}.count` is how many items have come so far; for more, `collect` it first"
            )
        else:
            hint = f"read `{name}` with `forEach`, or hold it whole with `collect` and use that"
        words = (
            "here, where only data can stand" if value.whole and read.whole else "in an expression"
        )
        message = f"`{name}` is a stream (made in line {binding.content.streams[0].mark.line}) and stands {words}"
        self._reports.add("stream-in-expression", read.mark, message, hint)

    def move(self, old: str, new: str, mark: Mark, state: State) -> None:
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

    def consume(self, name: str, content: Content, mark: Mark, step: Step, state: State) -> None:
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
            f"the stream `{name}` was consumed before, by `{before.title}` in line {before.mark.line}",
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

    def close(self, region: Region, again: list[State]) -> None:
        """Report the streams that a loop would consume again, given the states it comes round in."""
        for name, made, mark in region.suspects:
            for state in again:
                binding = state.names.get(name)
                if binding is not None and made in binding.content.streams:
                    self._refuse_in(region, name, made, mark)
                    break


def _path_text(read: Read) -> str:
    return f"{read.name}.{read.path[0]}" if len(read.path) == 1 else ""
