"""The Python that stands for a function stack: written once at load, compiled, then only run.

A frame of the definition (endpoint, function, branch ...) is one coroutine function, or a plain one where nothing in it
waits and its caller knows; a variable is a local of it; control flow is Python's own. Beside each line stands its Site,
so that a traceback tells the author's file, line and expression without any cost while all goes well.

No text of a definition reaches the source but through `Code.literal` and, for the names of variables, `identifier`; the
compiled code is checked before it runs (`compile_source`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from streamstack.language import kinds
from streamstack.language.definition import Arguments, ConstantArgument, Entries, Items, Parameter, Stack, Step
from streamstack.language.expressions import ObjectValue, Read, Template, Text, Value
from streamstack.language.expressions.compile import LOCALS, compile_source, literal
from streamstack.language.graph import Block, Node, constant, values_in
from streamstack.language.kinds import Kind
from streamstack.language.kinds import convert as convert_constant
from streamstack.language.names import identifier
from streamstack.language.sql import assembled, statement_in
from streamstack.language.values import MISSING, to_text
from streamstack.runtime.concurrency import BREAK, CONTINUE, Signal
from streamstack.runtime.faults import Site
from streamstack.runtime.mutations import Mutator
from streamstack.runtime.probes import NONE, RUN, SKIPPED, Probes
from streamstack.runtime.values import ENDLESS
from streamstack.spec import Binds, Bound, Condition, Nesting, OneOf, StackOf, Type, Variable


@dataclass(slots=True)
class Loop:
    """The innermost loop around a step: the Python names of its index, from 0, and its source."""

    index: str
    source: str | None


@dataclass(slots=True)
class CompiledFunction:
    """One Python function being written. ``outlined``: it tells its caller by a Signal what to do."""

    outlined: bool = False
    waits: bool = False  # something in it is awaited
    loops: int = 0  # loops open within this function
    blocks: int = 0  # loops, `try` and `with` open within it, as Python counts them
    signals: set[str] = field(default_factory=set)  # break, continue, return: what it asks of its caller


@dataclass(slots=True)
class Frame:
    """One frame of the definition: which Python name each of its variables has."""

    names: dict[str, str]
    parent: Frame | None = None
    loop: Loop | None = None


RESERVED: Mapping[str, str] = {
    "request": "run.request()",
    "auth": "run.auth",
    "env": "run.context.env",
    "settings": "run.context.settings",
    "stream": "stream_object(sink)",
    "run": "run_object(run)",
    "experiment": "run.experiment",
}
PATHS: Mapping[tuple[str, str], str] = {
    ("stream", "count"): "sink.count",
    ("stream", "bytes"): "sink.bytes",
    ("run", "id"): "run.id",
    ("run", "elapsedMs"): "run.elapsed_ms",
    ("run", "startedAt"): "run.started",
    ("run", "outcome"): "run.outcome",
}
LOOP: Mapping[str, str] = {
    "index": "({loop.index} + 1)",
    "index0": "{loop.index}",
    "first": "({loop.index} == 0)",
    "last": "({loop.index} + 1 == {loop.source}.length)",
    "length": "{loop.source}.length",
}

#: All that generated code has of Python's builtins.
BUILTINS: Mapping[str, Any] = {"Exception": Exception, "NameError": NameError, "isinstance": isinstance, "range": range}
#: The other identifiers in generated code: parameters, and the attributes of what the engine hands in.
NAMES = frozenset(
    {
        *("run", "sink", "index", "stack", "headers", "cache_key"),
        *("emit", "drain", "done", "respond", "count", "bytes", "sent_at"),
        *("request", "sent", "auth", "context", "env", "settings", "id", "elapsed_ms", "started", "outcome"),
        *("after", "yield_to_loop", "slice_ends", "monotonic", "perf_counter"),
        *("batch", "close", "length", "schedule", "value", "experiment"),
    }
)

#: Functions without mutants: no test has to notice them.
_UNTESTED = frozenset({"log"})
#: Python nests at most 20 loops, `try` and `with` in one function; a stack deeper than this gets a function of its own.
MAX_BLOCKS = 12


def _reads_source(read: Read) -> bool:
    """Whether a name read is `loop` with a fact about its source, or `loop` as a whole."""
    return read.name == "loop" and (not read.path or read.path[0] in ("last", "length"))


class Code:
    """Writes the Python of one definition."""

    def __init__(self, title: str, *, notes_sending: bool = False, probes: Probes | None = None) -> None:
        self.title = title
        self._probes = probes
        self._mutator: Mutator | None = None  # of the present step
        self._conditions: dict[int, str] = {}  # of the present step: their names, by the id of the value
        self.notes_sending = notes_sending  # a step elsewhere asks when the last chunk left (delay)
        self.namespace: dict[str, Any] = {}
        self.step: Step | None = None
        self.section = ""  # of the definition, outside of its steps
        #: The functions of what is computed for each item of the present step, by parameter and expression.
        self.per_item: dict[tuple[str, str], str] = {}
        self._lines: list[str] = []
        self._sites: list[Site] = []
        self._bare = Site(None, "")  # of the lines that compute no value
        self._depth = 0
        self._serial = 0
        self._fresh: set[str] = set()
        self._constants: dict[int, str] = {}
        self._frame = Frame({})
        self._functions: list[CompiledFunction] = [CompiledFunction()]
        self._part_signals: set[str] = set()
        self._plain: set[str] = set()  # the functions in which nothing is awaited
        self._bound: tuple[str, ...] = ()  # what the bodies around bind: items, indexes, errors

    # -- lines ---------------------------------------------------------------------------------------------

    def line(self, text: str, *values: Value) -> None:
        """Write a line that belongs to the present step and computes these values."""
        # Where only an author's text holds the word, it is a coroutine function that never waits: slower, never wrong.
        if "await " in text or text.startswith(("async with", "async for")):
            self._function.waits = True
        self._lines.append(" " * self._depth + text)
        self._sites.append(self._site(values))

    def _site(self, values: tuple[Value, ...]) -> Site:
        if not values:
            bare = self._bare
            if bare.step is not self.step or bare.section != self.section:
                bare = self._bare = Site(self.step, self.section)
            return bare
        reads = [read for value in values for read in value.reads]
        names = {read.name: self.name(read.name) for read in reads}
        loop = self._loop()
        if loop is not None and "loop" in names and not any(map(_reads_source, reads)):
            # The loop may be around this function, which then does not know its source.
            names["loop"] = f"loop_object({loop.index}, None)"
        return Site(self.step, self.section, values, names)

    @contextmanager
    def indented(self, header: str, *values: Value, blocks: int = 0) -> Iterator[None]:
        """Write a header and indent what follows. ``blocks``: how many loops, `try` and `with` it opens."""
        self.line(header, *values)
        self._depth += 1
        self._function.blocks += blocks
        before = len(self._lines)
        yield
        if len(self._lines) == before:
            self.line("pass")
        self._function.blocks -= blocks
        self._depth -= 1

    @contextmanager
    def condition(self, keyword: str, source: str, *values: Value, blocks: int = 0) -> Iterator[None]:
        """Write `if`, `elif` or `while` with its condition on a line of its own, which is its Site."""
        self.line(f"{keyword} (")
        self.line(f" {source}", *values)
        with self.indented("):", blocks=blocks):
            yield

    def fresh(self, stem: str) -> str:
        """Return a Python name that nothing else has. No stem begins as the author's variables do (`v_`)."""
        self._serial += 1
        name = f"{stem}_{self._serial}"
        self._fresh.add(name)
        return name

    def named(self, name: str) -> str:
        """Take a name of the compiler's own, under which the compiled function is looked up."""
        self._fresh.add(name)
        return name

    def _own(self, variable: str) -> str:
        """Return a further Python name for a variable; none of the author's begins with a digit."""
        self._serial += 1
        return identifier(variable, f"v_{self._serial}_")

    def constant(self, value: object) -> str:
        """Return the name under which generated code finds a Python object."""
        known = self._constants.get(id(value))
        if known is None:
            name = getattr(value, "__name__", "")
            fit = name.isidentifier() and name.isascii() and not name.startswith("v_")
            known = self.fresh(name if fit else "c")
            self._constants[id(value)] = known
            self.namespace[known] = value
        return known

    def literal(self, value: Any) -> str:
        """Return Python source for plain data; other objects become constants."""
        if value is None or type(value) in (bool, int, str):
            return literal(value)
        if type(value) is float and isfinite(value):
            return literal(value)
        return self.constant(value)

    # -- names ---------------------------------------------------------------------------------------------

    def name(self, root: str) -> str:
        """Return Python source for a variable or a reserved name."""
        found = self._variable(root)
        if found is not None:
            return found
        if root == "loop":
            loop = self._loop()
            if loop is not None:
                return f"loop_object({loop.index}, {loop.source})"
        if root == "sent":
            return f"{self.name('input')}.sent()"
        return RESERVED.get(root) or identifier(root, "v_")

    def path(self, root: str, item: str) -> str | None:
        """Return a shorter source for an item of a reserved name."""
        if self._variable(root) is not None:
            return None
        if root == "loop":
            loop = self._loop()
            return LOOP[item].format(loop=loop) if loop is not None and item in LOOP else None
        return PATHS.get((root, item))

    def _variable(self, root: str) -> str | None:
        frame: Frame | None = self._frame
        while frame is not None:
            if root in frame.names:
                return frame.names[root]
            frame = frame.parent
        return None

    def _loop(self) -> Loop | None:
        frame: Frame | None = self._frame
        while frame is not None:
            if frame.loop is not None:
                return frame.loop
            frame = frame.parent
        return None

    def target(self, variable: str) -> str:
        """Return the Python name that an assignment to a variable writes."""
        return self._variable(variable) or identifier(variable, "v_")

    @contextmanager
    def binding(self, variable: str | None, *, loop: Loop | None = None) -> Iterator[str]:
        """Bind a variable for what is written inside only (`as` of a loop or a catch); gives its Python name."""
        python = self._own(variable) if variable is not None else ""
        names = {variable: python} if variable is not None else {}
        self._frame = Frame(names, self._frame, loop)
        before = self._bound
        self._bound = (*before, *names.values(), *([loop.index] if loop is not None else []))
        yield python
        self._bound = before
        parent = self._frame.parent
        assert parent is not None
        self._frame = parent

    @property
    def captured(self) -> str:
        """Parameters that keep for later what the bodies around have bound now."""
        parameters = ", ".join(f"{name}={name}" for name in dict.fromkeys(self._bound))
        return f"*, {parameters}" if parameters else ""

    # -- values --------------------------------------------------------------------------------------------

    def source(self, value: Value) -> str:
        """Return Python source for a value."""
        mutator = self._mutator
        if mutator is None:
            return value.source(self)
        what = self._conditions.get(id(value))
        if what is None:
            return mutator.source(value)
        source = value.source(self) if value.constant is not MISSING else mutator.source(value)
        return mutator.negate(value.mark, what, source)

    def scalar(self, value: Value, converted: Any) -> str:
        """Return Python source for a constant value that was converted."""
        source = self.literal(converted)
        return (
            source if self._mutator is None else self._mutator.constant(value.mark, converted, source, value.constant)
        )

    def drops(self, node: Node) -> str | None:
        """Return the condition that a mutant drops the step; None without mutants."""
        if self._probes is None or self._mutator is None:
            return None
        number = self._probes.mutant(node, node.mark, f"`{node.title}` was dropped")
        return f"{self.constant(self._probes.active)}[0] == {number}"

    # -- functions -----------------------------------------------------------------------------------------

    @property
    def _function(self) -> CompiledFunction:
        return self._functions[-1]

    @contextmanager
    def _writing(
        self, name: str, parameters: str, function: CompiledFunction, *, plain: bool = False
    ) -> Iterator[None]:
        """Write a function; with ``plain`` one that is not a coroutine function, where nothing in it is awaited."""
        header = len(self._lines)
        self._functions.append(function)
        with self.indented(f"async def {name}({parameters}):"):
            if parameters.rpartition(", ")[2] == "sink":
                self.line("emit = sink.emit; drain = sink.drain")
            yield
        self._functions.pop()
        if plain and not function.waits:
            self._lines[header] = self._lines[header].replace("async def", "def", 1)
            self._plain.add(name)

    def called(self, name: str) -> str:
        """Return Python source that calls a part or a definition, up to its arguments."""
        return name if name in self._plain else f"await {name}"

    def waits(self, name: str) -> bool:
        """Tell whether a part or a definition that was written is a coroutine function."""
        return name not in self._plain

    @contextmanager
    def definition(self, name: str, parameters: str, block: Block, *, plain: bool = False) -> Iterator[None]:
        """Write the function of a definition, with ``plain`` a plain one if it can be; its variables are its own."""
        outer, self._frame = (
            self._frame,
            Frame({variable: identifier(variable, "v_") for variable in sorted(block.bound)}),
        )
        with self._writing(name, parameters, CompiledFunction(), plain=plain):
            self._declare(self._frame.names.values())
            self._frame.names["input"] = "v_input"
            self.line("sink = run.sink if sink is None else sink")
            self.line("emit = sink.emit; drain = sink.drain")
            yield
        self._frame = outer

    def copy(self, stem: str, block: Block, parameters: str = "", *, signals: bool = False) -> str:
        """Write a stack as a coroutine function with its own copy of the variables; return its name.

        A `return` in it returns its value, as a Signal where ``signals`` is set. What it writes stays in it.
        Where `sink` is the last of its parameters, it emits into that.
        """
        name = self.fresh(stem)
        own = {variable: self._own(variable) for variable in sorted(block.bound)}
        outer = self._frame
        before = {variable: self._variable(variable) for variable in own}
        function = CompiledFunction(outlined=signals)
        with self._writing(name, parameters, function):
            self._declare(own.values())
            for variable, python in own.items():
                if before[variable] is not None:
                    self.line(f"try: {python} = {before[variable]}")
                    self.line("except NameError: pass")
            self._frame = Frame(own, outer)
            self.steps(block)
            self._frame = outer
        self._part_signals = function.signals - {"break", "continue"}
        return name

    def shared(self, stem: str, block: Block, parameters: str = "") -> str:
        """Write a stack as a coroutine function that shares the variables; a `return` in it returns its value."""
        name = self.fresh(stem)
        with self._writing(name, parameters, CompiledFunction()):
            self._share(block.bound, parameters)
            self.steps(block)
        return name

    def _share(self, bound: frozenset[str], parameters: str) -> None:
        """Let the function being written, with these parameters, rebind the frame's variables."""
        shared = {self.target(variable) for variable in bound} - {*parameters.split(", ")}
        if shared:
            self.line(f"nonlocal {', '.join(sorted(shared))}")

    @contextmanager
    def part(self, stem: str, bound: frozenset[str], parameters: str = "", *, coroutine: bool = False) -> Iterator[str]:
        """Write a part of the present frame as a function of its own; gives its name, to be `called`.

        What is written inside is its body. It shares the variables, and emits into its parameter `sink` where it has
        one. `propagate` must follow its call. With ``coroutine`` it is a coroutine function whatever is in it, for who
        knows no other.
        """
        name = self.fresh(stem)
        function = CompiledFunction(outlined=True)
        with self._writing(name, parameters, function, plain=not coroutine):
            self._share(bound, parameters)
            yield name
        self._part_signals = function.signals

    def propagate(self, signal: str) -> None:
        """After the call of a part: do what it asks for (break, continue, return)."""
        signals = self._part_signals
        if "break" in signals:
            self.line(f"if {signal} is BREAK: {self._jump('break')}")
        if "continue" in signals:
            self.line(f"if {signal} is CONTINUE: {self._jump('continue')}")
        if "return" in signals:
            returned = f"return {signal}" if self._function.outlined else f"return {signal}.value"
            if self._function.outlined:
                self._function.signals.add("return")
            self.line(f"if {signal} is not None: {returned}")

    def _jump(self, how: str) -> str:
        """Return the statement for `break` or `continue` of the innermost loop of the definition."""
        if self._function.loops:
            return how
        self._function.signals.add(how)
        return f"return {how.upper()}"

    def jump(self, how: str) -> None:
        """Write `break` or `continue`."""
        self.line(self._jump(how))

    def emit_return(self, source: str, *values: Value) -> None:
        """Write `return`: the value is what the present frame gives."""
        if self._function.outlined:
            self._function.signals.add("return")
            source = f"Signal({source})"
        self.line("return (")
        self.line(f" {source}", *values)
        self.line(")")

    @contextmanager
    def looping(self) -> Iterator[None]:
        """Mark what is written inside as the body of a Python loop."""
        self._function.loops += 1
        yield
        self._function.loops -= 1

    # -- steps ---------------------------------------------------------------------------------------------

    def block(self, block: Block) -> None:
        """Write a nested stack that runs in the present frame."""
        if self._function.blocks < MAX_BLOCKS:
            self.steps(block)
            return
        with self.part("part", block.bound) as name:
            self.steps(block)
        signal = self.fresh("signal")
        self.line(f"{signal} = {self.called(name)}()")
        self.propagate(signal)

    def steps(self, block: Block) -> None:
        """Write the steps of a stack one after the other."""
        if self._probes is not None:
            self._probe(self._probes.branch_of(block))
        for node in block.nodes:
            outer, self.step = self.step, node.step
            around = self._mutator, self._conditions
            self._mutator, self._conditions = None, {}
            if self._probes is not None and self._probes.mutates and node.step.function.name not in _UNTESTED:
                self._mutate(node, self._probes)
            write_step(self, node)
            self._mutator, self._conditions = around
            self.step = outer

    def _mutate(self, node: Node, probes: Probes) -> None:
        """Let the values of a step have mutants."""
        active = f"{self.constant(probes.active)}[0]"
        self._mutator = Mutator(self, active, lambda mark, change: probes.mutant(node, mark, change))
        self._conditions = {id(use.value): f"`{use.parameter}`" for use in node.uses if isinstance(use.form, Condition)}
        for each in node.per_item:
            declared = node.step.function.by_name.get(each.parameter)
            if declared is not None and any(isinstance(form, Condition) for form in _forms(declared.type)):
                self._conditions[id(each.value)] = f"`{each.parameter}`"
        if node.step.when is not None:
            self._conditions[id(node.step.when)] = "`when`"

    @property
    def has_probes(self) -> bool:
        """Whether it is counted how often steps run."""
        return self._probes is not None

    def probe(self, node: Node, branch: str = "") -> None:
        """Write that a step or one of its branches is reached, where that is counted."""
        if self._probes is not None:
            self._probe(self._probes.number(node, branch))

    def probe_otherwise(self, node: Node) -> None:
        """Write the `else` that counts how often none of a step's branches runs, where that is counted."""
        if self._probes is not None:
            with self.indented("else:"):
                self.probe(node, NONE)

    def _probe(self, number: int | None) -> None:
        if self._probes is not None and number is not None:
            self.line(f"{self.constant(self._probes.hits)}[{number}] += 1")

    def _declare(self, names: Iterable[str]) -> None:
        """Make names local to the function being written, without binding them."""
        if names := list(names):
            self.line(f"if 0: {' = '.join(names)} = None")

    def compile(self) -> dict[str, Any]:
        """Compile what was written; return its namespace.

        Raises:
            UnsafeSource: where the source holds an identifier that is neither the compiler's nor a variable's.
        """
        namespace = self.namespace
        namespace["BREAK"], namespace["CONTINUE"], namespace["Signal"] = BREAK, CONTINUE, Signal
        known = self._fresh.union(namespace, BUILTINS, NAMES, LOCALS)
        code = compile_source(self.text, self.title, "exec", known)
        namespace["__builtins__"], namespace["__sites__"] = BUILTINS, self._sites
        exec(code, namespace)
        return namespace

    def listing(self) -> str:
        """Return the Python for readers: indented by four, with the place of each step, and what the constants are."""
        lines = [f"# {_one_line(self.title)}"]
        for name, value in self.namespace.items():
            if name in self._fresh:
                lines.append(f"# {name}: {_described(value)}")
        previous: object = None
        for text, site in zip(self._lines, self._sites, strict=True):
            code = text.lstrip(" ")
            indent = "    " * (len(text) - len(code))
            about = site.step or site.section
            if about is not previous and isinstance(about, Step):
                place = f"{about.key_mark} {about.title} ({about.path})"
                lines.append(f"{indent}# {_one_line(place)}")
            previous = about
            lines.append(indent + code)
        return "\n".join(lines) + "\n"

    @property
    def text(self) -> str:
        """The Python as text."""
        return "\n".join(self._lines) + "\n"


def _one_line(text: str) -> str:
    """Return text that can stand in a comment: control characters and line ends are escaped."""
    return "".join(char if char.isprintable() else literal(char)[1:-1] for char in text)


def _described(value: object) -> str:
    """Say what a constant of generated code is: a function of the engine by its name, data as it is."""
    name, module = getattr(value, "__qualname__", None), getattr(value, "__module__", "")
    shown = f"{module}.{name}" if name else repr(value)
    shown = _one_line(shown)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."


def write_step(code: Code, node: Node) -> None:
    """Write a step with its modifiers, the outermost first: disabled, when, retry, timeout."""
    if node.step.disabled:
        _null_result(code, node)
        return
    dropped = code.drops(node)
    if dropped is None:
        _write_present(code, node)
        return
    with code.indented(f"if {dropped}:"):
        _null_result(code, node)
    with code.indented("else:"):
        _write_present(code, node)


def _write_present(code: Code, node: Node) -> None:
    if node.step.when is None:
        code.probe(node)
        _write_retried(code, node)
        return
    with code.condition("if", code.source(node.step.when), node.step.when):
        code.probe(node)
        code.probe(node, RUN)
        _write_retried(code, node)
    if node.step.result is not None or code.has_probes:
        with code.indented("else:"):
            code.probe(node, SKIPPED)
            _null_result(code, node)


def _null_result(code: Code, node: Node) -> None:
    code.line(f"{code.target(node.step.result)} = None" if node.step.result is not None else "pass")


def opens_later(node: Node) -> bool:
    """Whether the step only makes a stream: its retry and timeout apply when that opens. A coroutine opens it."""
    function = node.step.function
    return function.effects.gives == "stream" and not inspect.iscoroutinefunction(function.run)


def _write_retried(code: Code, node: Node) -> None:
    if node.step.retry is None or opens_later(node):
        _write_timed(code, node)
        return
    with code.part("attempt", node.bound, "sink", coroutine=True) as name:
        _write_timed(code, node)
    signal = code.fresh("signal")
    code.line(f"{signal} = await retried(run, {code.constant(node.step.retry)}, {name}, sink)")
    code.propagate(signal)


def timeout_source(node: Node, code: Code) -> str:
    """Return Python source for a step's time-out in seconds; `None` where it has none."""
    if node.step.timeout is None:
        return "None"
    if isinstance(node.step.timeout, Value):
        return f"{code.constant(kinds.duration)}({code.source(node.step.timeout)}, 'timeout')"
    return code.literal(float(node.step.timeout))


def _write_timed(code: Code, node: Node) -> None:
    if node.step.timeout is None or opens_later(node):
        _write_call(code, node)
        return
    values = (node.step.timeout,) if isinstance(node.step.timeout, Value) else ()
    with code.indented(f"async with limited({timeout_source(node, code)}):", *values, blocks=1):
        _write_call(code, node)


def _write_call(code: Code, node: Node) -> None:
    """Write what the function itself stands for."""
    function = node.step.function
    if function.compile is not None:
        function.compile(node, code)
        return
    run = function.run
    assert run is not None
    around, code.per_item = code.per_item, {}
    arguments = list(_arguments(code, node))
    code.per_item = around
    if function.sees_functions:
        arguments.append(("functions", "functions", ()))
    call = code.constant(run)
    if opens_later(node) and (node.step.retry is not None or node.step.timeout is not None):
        with _result(code, node) as target:
            code.line(f"{target}guarded(run, {code.constant(node.step.retry)}, {timeout_source(node, code)}, {call},")
            _write_arguments(code, arguments)
            code.line(")")
        return
    awaited = "await " if inspect.iscoroutinefunction(run) else ""
    with _result(code, node) as target:
        code.line(f"{target}{awaited}{call}(run,")
        _write_arguments(code, arguments)
        code.line(")")


@contextmanager
def _result(code: Code, node: Node) -> Iterator[str]:
    yield f"{code.target(node.step.result)} = " if node.step.result is not None else ""


def _write_arguments(code: Code, arguments: list[tuple[str, str, tuple[Value, ...]]]) -> None:
    for name, source, values in arguments:
        code.line(f" {name}={source},", *values)


def _arguments(code: Code, node: Node) -> Iterator[tuple[str, str, tuple[Value, ...]]]:
    """Give the keyword, the source and the values of each argument that was given."""
    for parameter in node.step.function.parameters:
        argument = node.arguments.get(parameter.name)
        if argument is None or isinstance(parameter.type, Variable):
            continue
        source = argument_source(code, node, parameter.type, argument, parameter)
        yield parameter.python_name, source, tuple(values_in(argument))


def argument_source(code: Code, node: Node, declared: Type, argument: Any, parameter: Parameter) -> str:
    """Return Python source for one argument of a plain function."""
    if isinstance(argument, ConstantArgument):
        return code.literal(argument.value)
    if isinstance(argument, Stack):
        return _stack_source(code, node, declared, node.block_of(argument))
    if isinstance(argument, Entries):
        inner = [
            f"{code.literal(entry.key)}: {argument_source(code, node, _item(declared), entry.argument, parameter)}"
            for entry in argument.entries
        ]
        return "{" + ", ".join(inner) + "}"
    if isinstance(argument, Items):
        items = [argument_source(code, node, _item(declared), item, parameter) for item in argument.items]
        return "[" + ", ".join(items) + "]"
    if isinstance(argument, Arguments):
        group = _form(declared, "parameters")
        entries = [
            f"{code.literal(inner.python_name)}: {argument_source(code, node, inner.type, inner_argument, inner)}"
            for inner in group.parameters
            if (inner_argument := argument.get(inner.name)) is not None
        ]
        source = "{" + ", ".join(entries) + "}"
        return source if group.make is None else f"{code.constant(group.make)}({source})"
    return value_source(code, node, declared, argument, parameter)


def values_among(node: Node, *names: str) -> tuple[Value, ...]:
    """Return the values among some parameters, for the line that computes them."""
    return tuple(value for name in names if (value := value_of(node, name)) is not None)


def value_of(node: Node, name: str) -> Value | None:
    """Return a parameter's value where it was given as one."""
    argument = node.arguments.get(name)
    return argument if isinstance(argument, Value) else None


def source_of(code: Code, node: Node, name: str) -> str:
    """Return Python source for a parameter: what was given, converted, or its default."""
    parameter = node.step.function.by_name[name]
    argument = node.arguments.get(name)
    if argument is None:
        return code.literal(parameter.default)
    return argument_source(code, node, parameter.type, argument, parameter)


def _form(declared: Type, attribute: str) -> Any:
    """Return the form of a parameter type that has an attribute; of OneOf, the first that has."""
    if isinstance(declared, OneOf):
        return next(form for form in declared.forms if hasattr(form, attribute))
    return declared


def _item(declared: Type) -> Type:
    form: Type = _form(declared, "item").item
    return form


def value_source(code: Code, node: Node, declared: Type, value: Value, parameter: Parameter) -> str:
    """Return Python source for a value, converted to what its parameter expects.

    One that is evaluated for each item becomes a function, written before the step.
    """
    bound = next((f for f in _forms(declared) if isinstance(f, (Bound, Condition))), None)
    per_item = bound.per_item if bound is not None else None
    if per_item is not None:
        # One function for what is written several times: what its users ask for is computed once.
        written = (parameter.name, value.text) if value.whole else (parameter.name, code.fresh(""))
        known = code.per_item.get(written)
        if known is not None:
            return known
        name = code.per_item[written] = code.fresh("each")
        with code.binding(item_name(node, per_item)) as item, code.indented(f"def {name}({item}):"):
            code.line("return (")
            code.line(f" {_converted(code, bound, value, parameter)}", value)
            code.line(")")
        return name
    return _converted(code, bound, value, parameter)


def _forms(declared: Type) -> tuple[Type, ...]:
    return declared.forms if isinstance(declared, OneOf) else (declared,)


def item_name(node: Node, binds: Binds) -> str:
    """Return the variable that a nested stack or expression sees each item as."""
    return str(constant(node.arguments.get(binds.parameter), binds.default))


_CONVERT: dict[Kind, Callable[[Any, str], Any]] = {
    Kind.TEXT: kinds.text,
    Kind.URL: kinds.text,
    Kind.INTEGER: kinds.integer,
    Kind.NUMBER: kinds.number,
    Kind.BOOLEAN: kinds.boolean,
    Kind.LIST: kinds.items,
    Kind.OBJECT: kinds.mapping,
    Kind.HEADERS: kinds.mapping,
    Kind.DURATION: kinds.duration,
    Kind.SIZE: kinds.size,
    Kind.EVERY: kinds.every,
    Kind.RATE: kinds.rate,
}


def _converted(code: Code, bound: Any, value: Value, parameter: Parameter) -> str:
    """Return source that converts a value; a constant is converted now, null gives way to the default."""
    kind = bound.kind if isinstance(bound, Bound) else Kind.ANY
    if kind is Kind.SQL:
        return _statement_source(code, value)
    if value.constant is not MISSING:
        constant = convert_constant(kind, value.constant)
        if isinstance(constant, (list, dict)):
            return code.source(value)
        chosen = isinstance(bound, Bound) and bool(bound.choices)
        return code.literal(constant) if chosen else code.scalar(value, constant)
    source = _url_source(code, value, parameter.name) if kind is Kind.URL else code.source(value)
    convert = _CONVERT.get(kind)
    if kind is Kind.HEADERS and not isinstance(value, ObjectValue):
        convert = kinds.forwarded_headers
    if convert is not None:
        source = f"{code.constant(convert)}({source}, {code.literal(parameter.name)})"
        if isinstance(bound, Bound) and (bound.minimum is not None or bound.maximum is not None):
            source = (
                f"{code.constant(kinds.within)}({source}, {code.literal(parameter.name)}, "
                f"{code.literal(bound.minimum)}, {code.literal(bound.maximum)})"
            )
        if isinstance(bound, Bound) and bound.choices:
            choices = code.constant(bound.choices)
            source = f"{code.constant(kinds.choice)}({source}, {code.literal(parameter.name)}, {choices})"
    if parameter.required and kind is not Kind.ANY:
        return f"{code.constant(kinds.required)}({source}, {code.literal(parameter.name)})"
    if parameter.default is not None:
        default = code.literal(parameter.default)
        return f"{code.constant(kinds.default)}({source}, {default})"
    return source


#: The beginning of a URL up to its path or query. What is bound before that is a base: it is sent as it is.
_URL_BASE = re.compile(r"(?>(?:[^/?#]*://)?)[^/?#]*[/?#]")
#: A URL that ends within a host of which some text is the author's: what is bound there must not lead to another host.
_HOST_BEGUN = re.compile(r"[^/?#]*://[^/?#]+")
#: Filters whose result stands in a URL as it is.
_ENCODED = frozenset({"safe", "urlEncode", "urlencode"})


def _url_source(code: Code, value: Value, name: str) -> str:
    """Return Python source for a URL: bindings in path and query are percent-encoded, those in the host checked."""
    if not isinstance(value, Text):
        return code.source(value)
    to_part, before, sources = code.constant(kinds.url_part), "", []
    for index, part in enumerate(value.parts):
        if isinstance(part, str):
            sources.append(code.literal(part))
            before += part
            continue
        if _URL_BASE.match(before) and part.last_filter not in _ENCODED:
            in_path = "?" not in before and "#" not in before
            inner = f"{code.literal(name)}, {code.literal(in_path)}"
            sources.append(f"{to_part}({part.source(code)}, {inner})")
        elif _HOST_BEGUN.fullmatch(before):
            kind = _host_kind(value.parts[index + 1 :])
            inner = f"{code.literal(name)}, {code.literal(kind)}"
            sources.append(f"{code.constant(kinds.url_host)}({part.source(code)}, {inner})")
        else:
            sources.append(f"{code.constant(to_text)}({part.source(code)})")
        before += "x"
    return f"''.join(({', '.join(sources)},))"


def _host_kind(following: Sequence[object]) -> str:
    """Return what may be bound inside a host, given what follows: labels, one label, or only its end."""
    written = "".join(part for part in following if isinstance(part, str))
    rest = re.split(r"[/?#]", written, maxsplit=1)[0].partition(":")[0]
    return "labels" if "." in rest else "label" if rest else "end"


def _statement_source(code: Code, value: Value) -> str:
    """Return Python source for a statement with the values of its parameters."""
    if isinstance(value, Template):
        return f"{code.constant(assembled)}({value.source_of_pieces(code)})"
    values = "".join(f"{code.source(each)}, " for each in value.bindings())
    return f"({code.constant(statement_in(value))}, [{values}])"


def _stack_source(code: Code, node: Node, declared: Type, block: Block) -> str:
    """Write a nested stack of a plain function as a coroutine function; return its name.

    It is called with the item and its index from 0 where its Nesting is ITEM, else without arguments.
    """
    form = next(f for f in _forms(declared) if isinstance(f, StackOf))
    own = form.nesting is not Nesting.ITEM or constant(node.arguments.get("concurrency"), 1) != 1
    binds = form.binds[0] if form.binds else None
    loop = Loop("index", code.constant(ENDLESS)) if form.nesting is Nesting.ITEM else None
    with code.binding(item_name(node, binds) if binds is not None else None, loop=loop) as item:
        parameters = f"{item}, index" if form.nesting is Nesting.ITEM else ""
        return code.copy("body", block, parameters) if own else code.shared("body", block, parameters)
