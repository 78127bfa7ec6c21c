"""The Python that stands for a function stack: written once at load, compiled, then only run.

A frame of the definition (endpoint, function, branch ...) is one coroutine function, or a plain one where nothing in it
waits and its caller knows; a variable is a local of it; control flow is Python's own. Beside each line stands its Site,
so that a traceback tells the author's file, line and expression without any cost while all goes well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

from streamstack.language.definition import Stack, Step
from streamstack.language.expressions.compile import LOCALS, compile_source, literal
from streamstack.language.names import identifier
from streamstack.runtime.arguments import written
from streamstack.runtime.frames import (
    BREAK,
    BUILTINS,
    CONTINUE,
    LOOP,
    NAMES,
    PATHS,
    RESERVED,
    Frame,
    Function,
    Loop,
    Signal,
)

if TYPE_CHECKING:
    from streamstack.language.expressions import Read, Value

#: Python nests at most 20 loops, `try` and `with` in one function; a stack deeper than this gets a function of its own.
MAX_BLOCKS = 12


@dataclass(frozen=True, slots=True)
class Site:
    """What a line of generated code stands for: a step, or a section of its definition (`response`).

    ``names`` spells the names its values read.
    """

    step: Step | None
    section: str
    values: tuple[Value, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


def _asks_for_source(read: Read) -> bool:
    """Whether a name read is `loop` and what it tells of its source, or `loop` as a whole."""
    return read.name == "loop" and (not read.path or read.path[0] in ("last", "length"))


class Code:
    """Writes the Python of one definition."""

    def __init__(
        self, title: str, write_step: Callable[[Code, Step], None], *, notes_sending: bool = False
    ) -> None:
        self.title = title
        self.notes_sending = notes_sending  # a step elsewhere asks when the last chunk left (delay)
        self._write_step = write_step
        self.namespace: dict[str, Any] = {}
        self.step: Step | None = None
        self.section = ""  # of the definition, outside of its steps
        #: The functions of what is computed for each item of the present step, by parameter and expression.
        self.per_item: dict[tuple[str, str], str] = {}
        self._lines: list[str] = []
        self._sites: list[Site | None] = []
        self._depth = 0
        self._serial = 0
        self._fresh: set[str] = set()
        self._constants: dict[int, str] = {}
        self._frame = Frame({})
        self._functions: list[Function] = [Function()]
        self._handed: set[str] = set()
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
        reads = [read for value in values for read in value.reads]
        names = {read.name: self.name(read.name) for read in reads}
        loop = self._loop()
        if loop is not None and "loop" in names and not any(map(_asks_for_source, reads)):
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
    def condition(
        self, keyword: str, source: str, *values: Value, blocks: int = 0
    ) -> Iterator[None]:
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
    def bound_here(self) -> str:
        """Parameters that keep for later what the bodies around have bound now."""
        kept = ", ".join(f"{name}={name}" for name in dict.fromkeys(self._bound))
        return f"*, {kept}" if kept else ""

    # -- values --------------------------------------------------------------------------------------------

    def source(self, value: Value) -> str:
        """Return Python source for a value."""
        return value.source(self)

    # -- functions -----------------------------------------------------------------------------------------

    @property
    def _function(self) -> Function:
        return self._functions[-1]

    @contextmanager
    def _writing(
        self, name: str, parameters: str, function: Function, *, plain: bool = False
    ) -> Iterator[None]:
        """Write a function; with ``plain`` one that is no coroutine function, where nothing in it is awaited."""
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
    def definition(
        self, name: str, parameters: str, stack: Stack, *, plain: bool = False
    ) -> Iterator[None]:
        """Write the function of a definition, with ``plain`` a plain one if it can be; its variables are its own."""
        outer, self._frame = (
            self._frame,
            Frame({variable: identifier(variable, "v_") for variable in sorted(written(stack))}),
        )
        with self._writing(name, parameters, Function(), plain=plain):
            self._declare(self._frame.names.values())
            self._frame.names["input"] = "v_input"
            self.line("sink = run.sink if sink is None else sink")
            self.line("emit = sink.emit; drain = sink.drain")
            yield
        self._frame = outer

    def copy(
        self,
        stem: str,
        stack: Stack,
        parameters: str = "",
        *,
        signals: bool = False,
    ) -> str:
        """Write a stack as a coroutine function with its own copy of the variables; return its name.

        A `return` in it returns its value, as a Signal where ``signals`` is set. What it writes stays in it.
        Where `sink` is the last of its parameters, it emits into that.
        """
        name = self.fresh(stem)
        own = {variable: self._own(variable) for variable in sorted(written(stack))}
        outer = self._frame
        before = {variable: self._variable(variable) for variable in own}
        function = Function(outlined=signals)
        with self._writing(name, parameters, function):
            self._declare(own.values())
            for variable, python in own.items():
                if before[variable] is not None:
                    self.line(f"try: {python} = {before[variable]}")
                    self.line("except NameError: pass")
            self._frame = Frame(own, outer)
            self.steps(stack)
            self._frame = outer
        self._handed = function.signals - {"break", "continue"}
        return name

    def shared(self, stem: str, stack: Stack, parameters: str = "") -> str:
        """Write a stack as a coroutine function that shares the variables; a `return` in it returns its value."""
        name = self.fresh(stem)
        with self._writing(name, parameters, Function()):
            self._share(stack, parameters)
            self.steps(stack)
        return name

    def _share(self, stack: Stack, parameters: str) -> None:
        """Let the function being written, with these parameters, rebind the frame's variables."""
        shared = {self.target(variable) for variable in written(stack)} - {*parameters.split(", ")}
        if shared:
            self.line(f"nonlocal {', '.join(sorted(shared))}")

    @contextmanager
    def part(
        self, stem: str, stack: Stack, parameters: str = "", *, handed: bool = False
    ) -> Iterator[str]:
        """Write a part of the present frame as a function of its own; gives its name, to be `called`.

        What is written inside is its body. It shares the variables, and emits into its parameter `sink` where it has
        one. `hand_on` must follow its call. With ``handed`` it is a coroutine function whatever is in it, for who
        knows no other.
        """
        name = self.fresh(stem)
        function = Function(outlined=True)
        with self._writing(name, parameters, function, plain=not handed):
            self._share(stack, parameters)
            yield name
        self._handed = function.signals

    def hand_on(self, signal: str) -> None:
        """After the call of a part: do what it asks for (break, continue, return)."""
        asked = self._handed
        if "break" in asked:
            self.line(f"if {signal} is BREAK: {self._leave('break')}")
        if "continue" in asked:
            self.line(f"if {signal} is CONTINUE: {self._leave('continue')}")
        if "return" in asked:
            returned = f"return {signal}" if self._function.outlined else f"return {signal}.value"
            if self._function.outlined:
                self._function.signals.add("return")
            self.line(f"if {signal} is not None: {returned}")

    def _leave(self, how: str) -> str:
        """Return the statement for `break` or `continue` of the innermost loop of the definition."""
        if self._function.loops:
            return how
        self._function.signals.add(how)
        return f"return {how.upper()}"

    def leave(self, how: str) -> None:
        """Write `break` or `continue`."""
        self.line(self._leave(how))

    def give_back(self, source: str, *values: Value) -> None:
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

    def stack(self, stack: Stack) -> None:
        """Write a nested stack that runs in the present frame."""
        if self._function.blocks < MAX_BLOCKS:
            self.steps(stack)
            return
        with self.part("part", stack) as name:
            self.steps(stack)
        signal = self.fresh("signal")
        self.line(f"{signal} = {self.called(name)}()")
        self.hand_on(signal)

    def steps(self, stack: Stack) -> None:
        """Write the steps of a stack one after the other."""
        for step in stack.steps:
            outer, self.step = self.step, step
            self._write_step(self, step)
            self.step = outer

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
        namespace["__builtins__"] = BUILTINS
        namespace["BREAK"], namespace["CONTINUE"], namespace["Signal"] = BREAK, CONTINUE, Signal
        known = self._fresh.union(namespace, BUILTINS, NAMES, LOCALS)
        code = compile_source(self.text, self.title, "exec", known)
        namespace["__sites__"] = self._sites
        exec(code, namespace)
        return namespace

    @property
    def text(self) -> str:
        """The Python as text."""
        return "\n".join(self._lines) + "\n"
