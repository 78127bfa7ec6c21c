"""Names that are bound and read, and references to what a project has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from streamstack.errors import Diagnostic, Mark, fast_dataclass, replace_word
from streamstack.language import foreign
from streamstack.language.analysis.state import PLAIN, AnalysisState, Binding, Content, Reports
from streamstack.language.definition import (
    Argument,
    ConstantArgument,
    Definition,
    Endpoint,
    Entries,
    FunctionDefinition,
    GroupDefinition,
    Items,
    Step,
    Task,
)
from streamstack.language.expressions import Read, Value
from streamstack.language.filters.operations import FUNCTIONS_OF_EXPRESSIONS
from streamstack.language.findings import make_diagnostic
from streamstack.language.graph import Block, Graph, constant, steps_of
from streamstack.language.loading.inputs import mismatch
from streamstack.language.names import OF_REQUESTS, RESERVED, VARIABLE, nearest_and_sure, suggestion
from streamstack.language.settings import default_database
from streamstack.language.values import MISSING
from streamstack.spec import Nesting

#: Reserved names that are bound everywhere.
EVERYWHERE: Final = RESERVED - {"error", "loop"}


@fast_dataclass()
class Elsewhere:
    """A place that binds a name: where, and in which copy of the variables."""

    mark: Mark
    copy: str  # how messages call the copy; "" for the frame itself
    body: str = ""  # the stack that alone sees it: the body of a loop
    rebinds: bool = False  # it needs the name bound before: `append`


class Names:
    """Checks the names that one definition reads."""

    def __init__(self, graph: Graph, reports: Reports) -> None:
        self._graph = graph
        self._definition = definition = graph.definition
        self._reports = reports
        self._inputs = {each.name: each for each in getattr(definition, "inputs", ())}
        self.unread: frozenset[str] = frozenset()  # what may be bound by steps that could not be read
        self._elsewhere: dict[str, list[Elsewhere]] | None = None
        self.read_somewhere: set[str] = set()
        self.bound_at: dict[str, tuple[Mark, bool]] = {}  # where first, and whether to a stream
        self.stream_reads: dict[str, dict[str, Mark]] = {}  # properties of a function's streams that it reads, by input

    def read(self, value: Value, state: AnalysisState) -> None:
        """Check every name a value reads; what was read is bound from there on."""
        reads = value.reads
        tested = {read.name for read in reads if read.soft}
        for read in reads:
            self._read(read, state, soft=read.soft or (read.name in tested and not read.path))

    def tested(self, value: Value) -> Iterator[str]:
        """Yield the names whose being bound a value tests (`is defined`, `default`)."""
        for read in value.reads:
            if read.soft:
                yield read.name

    def _read(self, read: Read, state: AnalysisState, *, soft: bool) -> None:
        name = read.name
        binding = state.names.get(name)
        if binding is None:
            if name in OF_REQUESTS and isinstance(self._definition, Task):
                message = f"`{name}` is not bound: a task {OF_REQUESTS[name]}"
                self._reports.add("unbound-name", read.mark, message, "remove it; `run.tick` is the time of the run")
            elif name in EVERYWHERE:
                self._check_body(read)
                self._note_reads(read, None)
            elif not soft and name not in self.unread:
                self._unbound(read, state)
            return
        self.read_somewhere.add(name)
        if soft:
            return
        if not binding.sure:
            self._maybe_unbound(read, binding)
            state.assure((name,))
        if read.path:
            self._note_reads(read, binding)

    def _check_body(self, read: Read) -> None:
        """Report a look at the whole of a body that an input reads as it arrives."""
        if read.soft or not read.is_body or not read.path or not isinstance(self._definition, Endpoint):
            return
        stream = next((each.name for each in self._inputs.values() if each.type == "stream"), None)
        if stream is not None:
            message = f"`request.{read.path[0]}` is the body in one piece, and `input.{stream}` reads it as it arrives"
            hint = f"read `input.{stream}`, or declare the body as `{{type: json, in: wholeBody}}`"
            self._reports.add("bad-constraint", property_mark(read, 0), message, hint)

    def rebind(self, name: str, mark: Mark, state: AnalysisState) -> None:
        """Check a name that a step both reads and binds (`append`)."""
        binding = state.names.get(name)
        read = Read(name, (), False, False, mark, name)
        if name in self.unread:
            return
        if (binding is None or not binding.sure) and all(p.rebinds for p in self._places(name)):
            # In a loop the step itself seems to bind the name for the turns after the first, which fails.
            message = f"`{name}` is never set, so `append` has no list"
            hint = f"write `- set: {{{name}: []}}` before this step, outside of its loop"
            self._reports.add("unbound-name", mark, message, hint)
        elif binding is None:
            self._unbound(read, state)
        elif not binding.sure:
            self._maybe_unbound(read, binding)

    def content(self, value: Value, state: AnalysisState) -> tuple[str, Content]:
        """Return the name that a whole binding is, and what that may be; "" for any other value."""
        if not value.whole:
            return "", PLAIN
        reads = value.reads
        if len(reads) != 1:
            return "", PLAIN
        read = reads[0]
        name = read.name if read.whole else stream_input(read, value.text)
        binding = state.names.get(name) if name else None
        return (name, binding.content) if binding is not None else ("", PLAIN)

    # -- names that are not bound

    def _unbound(self, read: Read, state: AnalysisState) -> None:
        name = read.name
        places = self._places(name)
        hint: str | None = None
        if name == "loop":
            message = "`loop` is bound only in the body of a loop"
            hint = "move the step into the body of the loop"
        elif name == "error" and not places:
            message = "`error` is bound only in `catch`"
            hint = "move the step into `catch`"
        elif any(place.copy for place in places) and not any(not place.copy and not place.body for place in places):
            place = next(place for place in places if place.copy)
            message = f"`{name}` is bound only in {place.copy}, which has its own copy of the variables"
            hint = "give the value out with `return`"
        elif places and all(place.body for place in places):
            message = f"`{name}` belongs to {places[0].body} and is not bound here"
            hint = "`set` a variable in there, or move this step into it"
        elif places:
            later = next((p.mark for p in places if p.mark > read.mark), None)
            where = f"later, in line {later.line}" if later else f"in line {places[0].mark.line}"
            message = f"`{name}` is not bound here: it is bound {where}, on no path that leads here"
            hint = f"bind `{name}` before this step"
        else:
            self._report_unknown(read, state)
            return
        self.read_somewhere.add(name)
        self._reports.add("unbound-name", read.mark, message, hint)

    def _report_unknown(self, read: Read, state: AnalysisState) -> None:
        """Report a name that nothing in the definition binds, with the one that may be meant."""
        name = read.name
        if any(f"-{name}" in each and each in read.expression for each in self._inputs):
            return  # `input.user-name`: reported at `input`
        message, instead = f"`{name}` is not bound", ""
        hint: str | None = None
        function = FUNCTIONS_OF_EXPRESSIONS.get(name)
        known = [*state.names, *sorted(EVERYWHERE), *(f"input.{each}" for each in self._inputs)]
        advice = foreign.look_up(name, foreign.NAMES)
        meant, sure = nearest_and_sure(name, known)
        if name in self._inputs:
            message = f"`{name}` is not bound: an input is read as `input.{name}`"
            hint, instead = f"write `input.{name}`", f"input.{name}" if VARIABLE.fullmatch(name) else ""
        elif function is not None:
            message, hint = f"`{name}` is a function, and has to be called", f"write {function.usage}"
            instead = "" if function.minimum else f"{name}()"
        elif meant:
            self.read_somewhere.add(meant)
            message, hint, instead = f"{message}, did you mean `{meant}`?", f"write `{meant}`", meant if sure else ""
        elif advice is not None:
            hint, instead = advice.hint, advice.name if advice.exact else ""
        replacement = replace_word(read.mark, name, instead) if instead else None
        self._reports.add("unbound-name", read.mark, message, hint, replacement=replacement)

    def _maybe_unbound(self, read: Read, binding: Binding) -> None:
        name = read.name
        hint = f"`set` it before the paths part, or write `{name} | default(...)`"
        places = self._places(name)
        place = next(iter(places), None)
        if binding.in_turns and place is not None:
            later = next((each for each in places if each.mark > read.mark), place)
            message = (
                f"`{name}` is bound only by a later step of the loop, in line {later.mark.line}: "
                "in the first iteration it is not bound here"
            )
        else:
            where = f": the steps that bind it, from line {place.mark.line} on, may not run" if place else ""
            message = f"`{name}` is not bound on every path that leads here{where}"
        self._reports.add("maybe-unbound", read.mark, message, hint)

    def _places(self, name: str) -> list[Elsewhere]:
        if self._elsewhere is None:
            self._elsewhere = {}
            self._gather(self._graph.root, "", self._elsewhere)
        return self._elsewhere.get(name, [])

    def _gather(self, block: Block, copy: str, into: dict[str, list[Elsewhere]]) -> None:
        for node in block.nodes:
            function = node.step.function.name
            for each in node.written:
                place = Elsewhere(each.mark, copy, rebinds=each.rebinds)
                into.setdefault(each.name, []).append(place)
            for nested in node.blocks:
                inner = _copy_words(nested, function, node.step.mark) or copy
                for name, _ in nested.binds:
                    what = "`catch`" if nested.nesting is Nesting.HANDLER else "the body"
                    body = f"{what} of the `{function}` in line {node.step.mark.line}"
                    into.setdefault(name, []).append(Elsewhere(nested.stack.mark, "", body))
                self._gather(nested, inner, into)

    # -- properties of streams that a function is given

    def _note_reads(self, read: Read, binding: Binding | None) -> None:
        """Note which properties of the streams that it is given a function reads: its callers hand these over."""
        if binding is None:
            declared = self._inputs.get(str(read.path[0])) if read.name == "input" and len(read.path) > 1 else None
            if declared is not None and declared.type == "stream" and not isinstance(self._definition, Endpoint):
                self._note_stream_read(declared.name, read, 1)
        elif binding.content.is_stream:
            for made in binding.content.streams:
                if made.of_input is not None:
                    self._note_stream_read(made.of_input, read, 0)

    def _note_stream_read(self, name: str, read: Read, index: int) -> None:
        self.stream_reads.setdefault(name, {}).setdefault(str(read.path[index]), property_mark(read, index))


def _copy_words(nested: Block, function: str, mark: Mark) -> str:
    if not nested.copies:
        return ""
    if nested.label is not None:
        return f"the branch `{nested.label}` in line {nested.stack.mark.line}"
    if nested.at_once:
        return f"the iterations of the concurrent `{function}` in line {mark.line}"
    return f"the `{function}` in line {mark.line}"


def stream_input(read: Read, text: str) -> str:
    """Return the name under which the state keeps an input that a binding is: `input.upload`; else ""."""
    if read.name != "input" or len(read.path) != 1:
        return ""
    key = re.escape(str(read.path[0]))
    whole = re.fullmatch(rf"input\s*(\.\s*{key}|\[\s*([\"']){key}\2\s*\])", text.strip())
    return f"input.{read.path[0]}" if whole else ""


def property_mark(read: Read, index: int) -> Mark:
    """Return where an item of a read's path stands; the name itself where it is not written `a.b`."""
    before = ".".join([read.name, *map(str, read.path[:index])]) + "."
    if re.search(rf"(?<![\w.]){re.escape(before)}{re.escape(str(read.path[index]))}\b", read.expression):
        return Mark(read.mark.file, read.mark.line, read.mark.column + len(before))
    return read.mark


#: The parameter that hands over inputs, beside the one that names the function.
INPUTS = "with"
#: The parameter that lists what a bound name may mean.
CHOICES = "oneOf"


def check_calls(
    definition: Definition | GroupDefinition, functions: Mapping[str, FunctionDefinition], unread: Collection[str]
) -> list[Diagnostic]:
    """Check every step of a definition that calls functions of the project.

    ``unread`` are the names of functions that exist, and whose declaration could not be read.
    """
    found: list[Diagnostic] = []
    for step in steps_of(definition.stack):
        if step.function.effects.calls:
            _check_step(step, functions, unread, found)
    return found


def _check_step(
    step: Step, functions: Mapping[str, FunctionDefinition], unread: Collection[str], found: list[Diagnostic]
) -> None:
    targets = []
    for parameter in step.function.effects.calls:
        for name, mark in _names(step.arguments.get(parameter)):
            if name in unread:
                continue
            target = functions.get(name)
            if target is None or target.disabled:
                found.append(_unknown(name, mark, functions))
            else:
                targets.append(target)
    main = step.function.main
    named = None if main is None else step.arguments.get(main.name)
    if main is None or main.name not in step.function.effects.calls or named is None:
        return
    if isinstance(named, Value) and named.constant is MISSING:
        if CHOICES in step.function.by_name and step.arguments.get(CHOICES) is None:
            found.append(
                make_diagnostic(
                    "missing-parameter",
                    step.key_mark,
                    f"`{step.function.name}` with a bound name requires `{CHOICES}`",
                    f"add `{CHOICES}: [...]` with the functions that it may call",
                )
            )
    elif len(targets) == 1:
        _check_inputs(step, targets[0], found)


def _unknown(name: str, mark: Mark, functions: Mapping[str, FunctionDefinition]) -> Diagnostic:
    if name in functions:
        return make_diagnostic(
            "unknown-function",
            mark,
            f"the function `{name}` is disabled",
            f"take `disabled` out of {functions[name].mark}, or this call",
        )
    known = [each.name for each in functions.values() if not each.disabled]
    return make_diagnostic(
        "unknown-function",
        mark,
        f"the project has no function `{name}`",
        suggestion(name, known, "declare it in a document with `kind: function`"),
    )


def _names(argument: Argument | None) -> list[tuple[str, Mark]]:
    """Return the constant names that an argument holds."""
    if isinstance(argument, ConstantArgument):
        return [(argument.value, argument.mark)] if isinstance(argument.value, str) else []
    if isinstance(argument, Value):
        constant = argument.constant
        if isinstance(constant, str):
            return [(constant, argument.mark)]
        if isinstance(constant, list):
            return [(each, argument.mark) for each in constant if isinstance(each, str)]
        return []
    if isinstance(argument, Items):
        return [pair for item in argument.items for pair in _names(item)]
    return []


def _check_inputs(step: Step, target: FunctionDefinition, found: list[Diagnostic]) -> None:
    argument = step.arguments.get(INPUTS)
    if argument is not None and not isinstance(argument, Entries):
        return
    entries = argument.entries if argument is not None else ()
    by_name = {name: declared for declared in target.inputs for name in (declared.name, *declared.aliases)}
    sent = set()
    for entry in entries:
        declared = by_name.get(entry.key)
        if declared is None:
            found.append(
                make_diagnostic(
                    "unknown-parameter",
                    entry.mark,
                    f"the function `{target.name}` has no input `{entry.key}`",
                    suggestion(entry.key, by_name, f"declare it in {target.mark.file}"),
                )
            )
            continue
        value = entry.argument.constant if isinstance(entry.argument, Value) else MISSING
        if value is None:
            continue
        sent.add(declared.name)
        if value is not MISSING and isinstance(entry.argument, Value):
            fault = mismatch(declared, value)
            if fault:
                where = f"`{declared.name}` is declared in {declared.mark}"
                found.append(make_diagnostic("wrong-type", entry.argument.mark, f"`{target.name}`: {fault}", where))
    found.extend(
        make_diagnostic(
            "missing-parameter",
            step.key_mark,
            f"the function `{target.name}` needs the input `{declared.name}`",
            f"add `{declared.name}` under `{INPUTS}`",
        )
        for declared in target.inputs
        if declared.required and declared.name not in sent
    )


#: The code of a name that a section lacks, and what the section holds one of.
_CODES = {
    "models": ("unknown-model", "model"),
    "databases": ("unknown-database", "database"),
    "authentication": ("unknown-authentication", "authentication"),
}


def check_configured(definition: Definition, configured: Mapping[str, Collection[str]]) -> list[Diagnostic]:
    """Report the constant names that the settings lack; ``configured`` are those they have, by section."""
    found = []
    for step in steps_of(definition.stack):
        for each in step.function.effects.configured:
            argument = step.arguments.get(each.parameter)
            if each.unless is not None and step.arguments.get(each.unless) is not None:
                continue
            known = configured.get(each.section)
            if known is None:
                continue
            if argument is None and each.section == "databases":
                if known and default_database(dict.fromkeys(known)) is None:
                    message = f"which database is meant? The settings have {', '.join(known)}"
                    hint = "write `database: name`, or call one of them `main`"
                    found.append(make_diagnostic("unknown-database", step.key_mark, message, hint))
                continue
            if not isinstance(argument, (ConstantArgument, Value)):
                continue
            name = constant(argument)
            if not isinstance(name, str) or name in known:
                continue
            code, noun = _CODES[each.section]
            hint = f"declare it under `{each.section}` in streamstack.yaml"
            if each.unless is not None:
                hint += f", or give `{each.unless}`"
            message = f"the settings have no {noun} `{name}`"
            found.append(make_diagnostic(code, argument.mark, message, suggestion(name, known, hint)))
    return found
