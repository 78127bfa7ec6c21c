"""The analysis of one definition: its names, its streams, its chunks, on every path through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Final

from streamstack.errors import Diagnostic, Mark, fast_dataclass
from streamstack.language.analysis.blocks import Blocks
from streamstack.language.analysis.state import (
    NO_EMISSIONS,
    OF_A_BODY,
    OF_EVERY_STREAM,
    PLAIN,
    AnalysisState,
    Binding,
    Content,
    Emissions,
    Event,
    Made,
    Region,
    Wait,
    join,
)
from streamstack.language.analysis.streams import READS, both, called, describe, of_streams
from streamstack.language.analysis.types import Results, check_types
from streamstack.language.definition import (
    ConstantArgument,
    Definition,
    Effects,
    Endpoint,
    FunctionDefinition,
    Items,
    Step,
)
from streamstack.language.expressions import Value
from streamstack.language.graph import Block, Node, PerItem, called_by, constant, steps_of
from streamstack.language.kinds import Kind
from streamstack.language.names import listed
from streamstack.language.shapes import ANY, Shape
from streamstack.language.values import MISSING


@fast_dataclass()
class Summary:
    """What a caller must know of a function.

    ``emits`` is the first step in it that does. ``stream_emissions``: how the stream it gives emits and
    waits while it is read. ``stream_reads``: the properties that it reads of its streams, by input, and where.
    ``hands_back``: the inputs whose streams it may give.
    """

    name: str
    emissions: Emissions = NO_EMISSIONS
    emits: Mark | None = None
    closes: bool = False
    comes_back: bool = True
    gives_stream: bool = False
    gives_plain: bool = True
    properties: frozenset[str] = OF_EVERY_STREAM
    stream_emissions: Emissions = NO_EMISSIONS
    brief: bool = False
    stream_reads: Mapping[str, Mapping[str, Mark]] = field(default_factory=dict)
    hands_back: frozenset[str] = frozenset()


class Callees:
    """The functions of a project, summed up when they are first called.

    ``sum_up`` follows one function. A function that calls itself, directly or through others, is
    taken to emit as it goes while it is being summed up: the proof accuses no one of what it can't see.
    """

    __slots__ = ("_functions", "_known", "_sum_up", "results")

    def __init__(
        self,
        functions: Mapping[str, FunctionDefinition],
        sum_up: Callable[[FunctionDefinition, Callees], Summary],
        experiment: Shape = ANY,
    ) -> None:
        self._functions = functions
        self._sum_up = sum_up
        self._known: dict[str, Summary] = {}
        self.results = Results(functions, experiment)

    def summary(self, name: str) -> Summary | None:
        """Return what a function does; None where there is none of that name."""
        known = self._known.get(name)
        if known is not None or name not in self._functions:
            return known
        # Those it calls come first, so that a long chain of calls is not a deep recursion here.
        order: list[str] = []
        open_calls = [(name, self._calls(name))]
        met = {name}
        while open_calls:
            present, calls = open_calls[-1]
            inner = next(calls, None)
            if inner is None:
                open_calls.pop()
                order.append(present)
            elif inner not in met and inner not in self._known:
                met.add(inner)
                open_calls.append((inner, self._calls(inner)))
        for each in order:
            if each not in self._known:
                waiting = [other for other in order if other not in self._known]
                for other in waiting:
                    self._known[other] = Summary(other, Emissions(may_be_unsent=False))
                summary = self._sum_up(self._functions[each], self)
                for other in waiting:
                    del self._known[other]
                self._known[each] = summary
        return self._known.get(name)

    def _calls(self, name: str) -> Iterator[str]:
        """Yield the functions of the project that a function calls."""
        for step in steps_of(self._functions[name].stack):
            yield from (each for each in called_by(step) if each in self._functions)


class Walker(Blocks):
    """Follows a definition from its first step on."""

    def __init__(self, definition: Definition, callees: Callees) -> None:
        super().__init__(definition)
        self._callees = callees
        self._answers_json = False

    def follow(self, block: Block, state: AnalysisState) -> AnalysisState | None:
        """Follow the steps of a block; return the state behind them, None where no path leads there."""
        for index, node in enumerate(block.nodes):
            after = self._step(node, state)
            if after is None:
                rest = block.nodes[index + 1 :]
                if rest and not self.dead:
                    self._unreachable(node.step, rest[0].step)
                with self.dead_code():
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

    def _step(self, node: Node, state: AnalysisState) -> AnalysisState | None:
        if node.step.allow:
            with self.reports.within((*self.reports.allowed, node.step.allow)):
                return self._modified(node, state)
        return self._modified(node, state)

    def _modified(self, node: Node, state: AnalysisState) -> AnalysisState | None:
        """Follow a step with its modifiers."""
        step = node.step
        if self.guards and not self._is_harmless(node):
            self.guards[-1].note(state)
        if step.disabled:
            with self.dead_code():
                self._run(node, state.fork())
            self._bind_result(step, state, PLAIN)
            return state
        if step.when is None:
            return self._retried(node, state)
        self.names.read(step.when, state)
        self.streams.check_condition(step.when, step, state)
        skipped = state.fork()
        tested = frozenset(self.names.tested(step.when))
        state.assure(tested)
        with self.around(condition=node):
            after = self._retried(node, state)
        if after is None:
            skipped.assure(tested)
        if step.result is not None:
            skipped.names[step.result] = Binding(sure=True)
        return join((after, skipped))

    def _is_harmless(self, node: Node) -> bool:
        """Tell whether a step surely does not fail: it only sets constants."""
        if node.step.when is not None or not node.step.function.effects.sets:
            return False
        return all(use.value.constant is not MISSING for use in node.uses)

    def _retried(self, node: Node, state: AnalysisState) -> AnalysisState | None:
        step = node.step
        if step.retry is None:
            return self._run(node, state)
        with self.around(region=Region(f"the retried `{step.title}`", step.key_mark, turns=False)):
            return self._run(node, state)

    def _run(self, node: Node, state: AnalysisState) -> AnalysisState | None:
        step, effects = node.step, node.step.function.effects
        if isinstance(step.timeout, Value):
            self.names.read(step.timeout, state)
            self.streams.check_condition(step.timeout, step, state)
        if effects.sets:
            self._set(node, state)
            return state
        read, contents, tested = self._read(node, state)
        emissions = of_streams(read) if read else NO_EMISSIONS
        event = Event(step.key_mark, step.title, self.streams.conditions)
        lazy = effects.gives == "stream"
        if read and not lazy and not self.dead:
            self.emission.apply(state, emissions, event)
            if effects.waits_for_stream:
                self.wait_for(node, read, state)
        returned: dict[str, Content] = {}
        if node.blocks:
            after, own, returned = self.follow_nested(node, tested, read, state)
            if after is None:
                return None
            state, emissions = after, both(emissions, own) if own is not NO_EMISSIONS else emissions
            if own is not NO_EMISSIONS and not lazy and not self.dead:
                self.emission.apply(state, own, event)
        elif tested:
            state.assure(tested)
        content = PLAIN
        if lazy:
            content = Content((self._make(node, read, emissions),), plain=False)
        elif effects.calls and effects.gives == "either":  # what a job emits is not sent here
            found = self._call(step, contents, event, state)
            if found is None:
                return None
            content = found
        if content.is_stream and step.result is None and not self.dead:
            message = f"`{step.title}` returns a stream that is never read: add `as`"
            self.reports.add("unread-stream", step.key_mark, message)
        if effects.emits and not self.dead:
            self._emit(effects, event, state)
        if effects.opens and state.may_be_sent and not state.may_be_unsent and not self.dead:
            message = f"`{step.title}` comes after the first chunk, when status, headers and cookies are already sent"
            self.reports.add("after-chunk", step.key_mark, message)
        self._bind(node, returned, content, state)
        return self._leave(node, contents, state) if effects.ends else state

    # -- what a step reads

    def _read(self, node: Node, state: AnalysisState) -> tuple[tuple[Made, ...], dict[str, Content], frozenset[str]]:
        """Check the values of a step.

        Return the streams it reads, what it hands over by the author's keys, and the names its conditions ask for.
        """
        step, effects = node.step, node.step.function.effects
        read: tuple[Made, ...] = ()
        contents: dict[str, Content] = {}
        tested: set[str] = set()
        for use in node.uses:
            if not use.value.reads:
                continue
            outer = state.names.get("loop")
            turns = use.kind is None and next((b for b in node.blocks if b.loop), None)
            if turns:
                self.bind(turns, state)  # the condition of `while` is tested in each turn
            self.names.read(use.value, state)
            if turns and outer is not None:
                state.names["loop"] = outer
            elif turns:
                del state.names["loop"]
            content = self.streams.evaluate(use, step, state, dead=bool(self.dead))
            if use.kind is Kind.ANY_OR_STREAM and (effects.calls or effects.ends):
                contents[use.entry or use.parameter] = content
            elif content.streams:
                read += tuple(made for made in content.streams if made not in read)
            elif use.kind is None:
                tested.update(self.names.tested(use.value))
        for each in node.per_item:
            self._read_per_item(each, step, state)
        return read, contents, frozenset(tested)

    def _read_per_item(self, each: PerItem, step: Step, state: AnalysisState) -> None:
        """Check a value that is computed later, for each item."""
        inner = AnalysisState(dict(state.names))
        inner.unsure(self.late_names())
        inner.names[each.name] = Binding(sure=True)
        self.names.read(each.value, inner)
        self.streams.check_condition(each.value, step, inner)

    def _set(self, node: Node, state: AnalysisState) -> None:
        """Follow `set`: each value sees the names before it; a stream moves to its new name."""
        step = node.step
        places = {each.name: each.mark for each in node.written}
        for use in node.uses:
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

    def _make(self, node: Node, read: tuple[Made, ...], emissions: Emissions) -> Made:
        step, effects = node.step, node.step.function.effects
        properties = frozenset(each.name for each in effects.properties) | OF_EVERY_STREAM
        name = f"`{step.result}`" if step.result else f"what `{step.title}` gives"
        made = self.streams.make(name, step.key_mark, properties)
        at_hand = any(use.kind in READS for use in node.uses) and not node.blocks
        made.brief = effects.shortens or (at_hand and all(each.brief for each in read))
        if effects.waits_for_stream:
            advice = "put this step behind the first chunk, or send the items as they come"
            waits = tuple(
                Wait(step.title, step.key_mark, each.title, advice, only_with=each.maybe_input)
                for each in read
                if not each.brief and not each.of_one_item and not self.reports.allows("buffers-stream")
            )
            emissions = both(emissions, Emissions(pending=waits))
        made.emissions = emissions
        return made

    def _call(self, step: Step, contents: dict[str, Content], event: Event, state: AnalysisState) -> Content | None:
        """Follow a call of a function of the project; None where it never comes back."""
        summaries = [self._callees.summary(name) for name in _called_names(step)]
        known = [summary for summary in summaries if summary is not None]
        passed = tuple(made for content in contents.values() for made in content.streams)
        emissions = of_streams(passed) if passed else NO_EMISSIONS
        if not known or len(known) < len(summaries):
            if not self.dead:
                # A function that can't be seen may emit.
                self.emission.any = True
                state.may_be_unsent, state.pending = False, ()
            return PLAIN
        streams = frozenset(name for name, content in contents.items() if content.streams)
        content, comes_back = self._combine(step, known, contents, emissions)
        for summary in known:
            self._check_stream_reads(step, summary, contents)
        if not self.dead:
            for summary in known:
                if summary.emits is not None:
                    self.emission.check_place(step.key_mark, summary.name, summary.emits)
                    break
            if not content.streams:
                self.emission.apply(state, emissions, event)
            parts = [called(each.emissions, each.name, step, streams) for each in known]
            self.emission.apply_one_of(state, parts, event)
            if any(each.closes for each in known):
                self.emission.close(state, event)
        return content if comes_back else None

    def _check_stream_reads(self, step: Step, summary: Summary, contents: dict[str, Content]) -> None:
        """Report what a function reads of a stream that is handed to it and hasn't such a property."""
        for name, reads in summary.stream_reads.items():
            content = contents.get(name, PLAIN)
            for made in content.streams:
                for key, mark in reads.items():
                    if made.of_input is not None:
                        self.names.stream_reads.setdefault(made.of_input, {}).setdefault(key, mark)
                    elif key not in made.properties:
                        self.reports.add(
                            "unknown-property",
                            step.key_mark,
                            f"`{summary.name}` reads `input.{name}.{key}` in line {mark.line} of {mark.file}, and the "
                            f"stream {made.title} has no `{key}`",
                            f"{made.title} has {listed(sorted(made.properties), 'and')}",
                        )

    def _combine(
        self, step: Step, known: list[Summary], contents: dict[str, Content], passed: Emissions
    ) -> tuple[Content, bool]:
        """Return what one of several functions gives, and whether any comes back."""
        plain = any(each.gives_plain for each in known)
        giving = [each for each in known if each.gives_stream]
        if not giving:
            return PLAIN, any(each.comes_back for each in known)
        properties = frozenset[str]().union(*(each.properties for each in giving))
        streams = frozenset(name for name, content in contents.items() if content.streams)
        back = frozenset[str]().union(*(each.hands_back for each in giving)) & streams
        handed = [made for name in sorted(back) for made in contents[name].streams]
        properties = properties.union(*(each.properties for each in handed))
        name = f"`{step.result}`" if step.result else f"what `{step.title}` gives"
        made = self.streams.make(name, step.key_mark, properties)
        for each in giving:
            passed = both(passed, called(each.stream_emissions, each.name, step, streams))
        made.emissions = passed
        made.of_input = next((each.of_input for each in handed if each.of_input is not None), None)
        made.brief = all(each.brief for each in giving)
        return Content((made,), plain), any(each.comes_back for each in known)

    def _emit(self, effects: Effects, event: Event, state: AnalysisState) -> None:
        self.emission.check_place(event.mark, event.title)
        if effects.closes:
            self.emission.close(state, event)
        else:
            self.emission.send(state, event)

    # -- what a step binds, and where it leaves

    def _bind(self, node: Node, returned: dict[str, Content], content: Content, state: AnalysisState) -> None:
        step, effects = node.step, node.step.function.effects
        if effects.rebinds is not None or effects.publishes is not None:
            for each in node.written:
                if each.name == step.result and each.mark == step.result_mark:
                    continue
                if effects.rebinds is not None:
                    self.names.rebind(each.name, each.mark, state)
                what = self._published(step, each.name, returned.get(each.name, PLAIN))
                self.write(each.name, each.mark, what, state)
        self._bind_result(step, state, content)

    def _published(self, step: Step, name: str, content: Content) -> Content:
        """Return a branch's result as what its name holds after the branches: a stream of its own."""
        if not content.streams:
            return content
        first = content.streams[0]
        made = self.streams.make(f"`{name}`", step.key_mark, first.properties)
        made.emissions, made.brief = of_streams(content.streams), first.brief
        return Content((made,), content.plain)

    def _bind_result(self, step: Step, state: AnalysisState, content: Content) -> None:
        if step.result is not None:
            mark = step.result_mark or step.mark
            self.write(step.result, mark, content, state)
            if not step.disabled:
                self.note_bound(step.result, mark, content)

    def _leave(self, node: Node, contents: dict[str, Content], state: AnalysisState) -> AnalysisState | None:
        step, effects = node.step, node.step.function.effects
        frame = self.frames[-1]
        if effects.leaves == "frame":
            content = next(iter(contents.values()), PLAIN)
            if content.is_stream and self._answers_json and len(self.frames) == 1:
                self.refuse_answer(node, content)
            if not self.dead:
                frame.returns.append(state.fork())
                frame.returned.append(content)
        elif effects.leaves in ("loop", "turn"):
            if not frame.loops:
                words = "is outside a loop"
                if len(self.frames) > 1:
                    words += " of its own frame: it can't leave one from inside a branch, `after` or work per item"
                message = f"`{step.function.name}` {words}"
                self.reports.add("outside-loop", step.key_mark, message)
                return state
            if not self.dead:
                loop = frame.loops[-1]
                (loop.breaks if effects.leaves == "loop" else loop.turns).append(state.fork())
        return None

    def refuse_answer(self, node: Node, content: Content) -> None:
        """Report a stream as the answer of an endpoint that answers with JSON."""
        made = content.streams[0]
        reads = (read for use in node.uses for read in use.value.reads)
        read = next(reads, None)
        self.reports.add(
            "stream-in-expression",
            read.mark if read is not None else node.mark,
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
        argument = step.arguments.by_name.get(parameter)
        if argument is None:
            continue
        items = argument.items if isinstance(argument, Items) else (argument,)
        names = [constant(item) for item in items if isinstance(item, (ConstantArgument, Value))]
        names = [name for each in names for name in (each if isinstance(each, list) else [each])]
        if names and all(isinstance(name, str) for name in names):
            return [str(name) for name in names]
    return []


def callees_of(functions: Mapping[str, FunctionDefinition], experiment: Shape = ANY) -> Callees:
    """Return what `analyse` knows of functions, to be shared by the definitions of a project.

    ``experiment`` is the shape of the reserved name `experiment`.
    """
    return Callees(functions, _sum_up, experiment)


#: What is wrong whatever the steps would do that could not be read.
_ANYHOW: Final = frozenset({"unbound-name", "unknown-property"})


def analyse(
    definition: Definition, functions: Mapping[str, FunctionDefinition] | Callees, unread: frozenset[str] | None = None
) -> list[Diagnostic]:
    """Report what is wrong with names, streams and chunks on any path through a definition.

    It never raises. The time is linear in the size of the definition.

    Args:
        definition: The definition.
        functions: Those it may call; given as `callees_of` returns them, each is followed once for all definitions.
        unread: The words of steps that were left out; None without any. With them only names and paths are reported.
    """
    callees = functions if isinstance(functions, Callees) else callees_of(functions)
    walker = Walker(definition, callees)
    walker.names.unread = unread or frozenset()
    walker.sure_loops = check_types(definition, walker.graph, walker.reports, callees.results, walker.names.unread)
    end, _ = _follow(walker)
    if isinstance(definition, Endpoint):
        _check_endpoint(walker, definition, end)
    _report_unused(walker)
    found = sorted(walker.reports.found.values())
    return found if unread is None else [each for each in found if each.code in _ANYHOW and each.severity == "error"]


def _follow(walker: Walker) -> tuple[AnalysisState | None, Content]:
    """Follow a whole definition; return the state in which it ends, and what it gives."""
    definition = walker.definition
    state = AnalysisState({})
    for declared in getattr(definition, "inputs", ()):
        is_function = isinstance(definition, FunctionDefinition)
        if declared.type == "stream" or (is_function and declared.type == "json"):
            properties = OF_EVERY_STREAM if is_function else OF_A_BODY
            of_input = declared.name if is_function else None
            made = Made(f"`input.{declared.name}`", declared.mark, properties=properties, of_input=of_input)
            if declared.type == "json":
                made.maybe_input = declared.name
            content = Content((made,), plain=declared.type == "json")
            state.names[f"input.{declared.name}"] = Binding(sure=True, content=content)
    if isinstance(definition, Endpoint):
        for value in definition.bindings:
            walker.names.read(value, state)
        if definition.response_type == "json":
            walker.answer_json()
    end, returned = walker.leave_frame(walker.follow(walker.graph.root, state))
    walker.finish(walker.copies[0].deferred, end)
    return end, returned


def _sum_up(function: FunctionDefinition, callees: Callees) -> Summary:
    """Follow a function for what its callers must know."""
    walker = Walker(function, callees)
    end, returned = _follow(walker)
    emission, streams = walker.emission, returned.streams
    first = min((event.mark for event in emission.events), default=None)
    may_be_unsent = end is None or end.may_be_unsent or not emission.any
    pending = end.pending if end is not None else ()
    return Summary(
        function.name,
        Emissions(emission.any, may_be_unsent, pending, tuple(emission.late)),
        emits=first,
        closes=end is not None and end.done is not None,
        comes_back=end is not None,
        gives_stream=bool(streams) and any(made.maybe_input is None for made in streams),
        gives_plain=returned.plain,
        properties=frozenset[str]().union(*(made.properties for made in streams)) | OF_EVERY_STREAM,
        stream_emissions=of_streams(streams) if streams else Emissions(),
        brief=bool(streams) and all(made.brief for made in streams),
        stream_reads=walker.names.stream_reads,
        hands_back=frozenset(made.of_input for made in streams if made.of_input is not None),
    )


def _check_endpoint(walker: Walker, endpoint: Endpoint, end: AnalysisState | None) -> None:
    """Report what concerns the answer of an endpoint."""
    reports, emission = walker.reports, walker.emission
    if endpoint.response is not None and endpoint.response_type == "json" and end is not None:
        _check_response(walker, endpoint.response, end)
    if endpoint.response_type == "json":
        return
    if endpoint.response is not None:
        reports.add("response-in-stream", endpoint.response.mark, "a streaming endpoint never sends its `response`")
    if not emission.any:
        reports.add("no-chunks", endpoint.stack.mark, f"no path through {endpoint.title} sends a chunk")
    for wait, chunk in emission.late:
        reports.add("buffers-stream", wait.mark, describe(wait, chunk), wait.advice)
    if endpoint.streaming.format == "json" and emission.any:
        reports.add(
            "buffers-stream",
            endpoint.mark,
            "`format: json` keeps all chunks and answers with one document at the end",
            "remove `format`: the client then chooses by `Accept`, and can still ask for JSON",
        )


def _check_response(walker: Walker, value: Value, end: AnalysisState) -> None:
    walker.names.read(value, end)
    name, content = walker.names.content(value, end)
    if content.is_stream:
        line = content.streams[0].mark.line
        walker.reports.add(
            "stream-in-expression",
            value.mark,
            f"`{name}` is a stream (made in line {line}), which JSON can't hold",
            "`collect` it and answer the list, or write `responseType: streaming`",
        )


def _report_unused(walker: Walker) -> None:
    names = walker.names
    for name, (mark, is_stream) in names.bound_at.items():
        if name in names.read_somewhere or name.startswith("_"):
            continue
        words = ", so that nothing of the stream is ever fetched" if is_stream else ""
        walker.reports.add("unused-variable", mark, f"`{name}` is never read{words}")
