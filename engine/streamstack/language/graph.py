"""The step graph of a definition: what runs after what, and why.

The analysis, the compiler and the commands that draw or show a definition all read this one object; none walks the
arguments of steps by itself.

A `Graph` has a `Block` for the definition's stack. A block has nodes, a `Node` stands for a step and has the blocks
nested in it. `Edge`s lead from node to node; they are derived from the blocks when they are first asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from streamstack.errors import Mark, fast_dataclass
from streamstack.language.definition import (
    Argument,
    Arguments,
    ConstantArgument,
    Definition,
    Endpoint,
    Entries,
    FunctionDefinition,
    Items,
    Stack,
    Step,
)
from streamstack.language.expressions import Value
from streamstack.language.kinds import Kind
from streamstack.language.values import MISSING
from streamstack.spec import Binds, Bound, Condition, Field, Group, ListOf, Named, Nesting, OneOf, StackOf, Type

#: Beside a LOOP or ITEM stack: how many turns run at once. Above 1 each has its own copy of the variables.
CONCURRENCY: Final = "concurrency"

#: Stacks that write to a copy of the variables.
_COPIES: Final = frozenset({Nesting.BRANCH, Nesting.DEFERRED, Nesting.FRAME})
#: Stacks that are a frame: `return` ends them.
FRAMES: Final = frozenset({Nesting.BRANCH, Nesting.ITEM, Nesting.DEFERRED, Nesting.FRAME})
#: What of `Block.exits` ends at a loop.
_OF_LOOPS: Final = frozenset({"loop", "turn"})


@fast_dataclass()
class Use:
    """A value of a step: what its parameter takes; None for a condition."""

    value: Value
    kind: Kind | None
    parameter: str
    entry: str | None = None  # the author's own key it stands under
    form: Bound | Condition | None = None  # how the parameter is declared
    field: Field | None = None  # the parameter, where the value is all of it


@fast_dataclass()
class PerItem:
    """A value evaluated for each item, which is bound under ``name``."""

    value: Value
    name: str
    parameter: str
    entry: str | None = None  # the author's own key it stands under


@fast_dataclass()
class Written:
    """A name that a step binds, and where; ``rebinds``: it must be bound before (`append`)."""

    name: str
    mark: Mark
    rebinds: bool = False


@dataclass(eq=False, slots=True, repr=False)
class Block:
    """The stack of a definition, or one nested in a step.

    Attributes:
        path: where it stands, such as `functionStack[2].forEach.do`.
        parameter: the parameters it stands under within its step: `do`, `elseIf[0].then`, `cases.a`.
        type: how it is declared to run; None for the stack of a definition.
        binds: the names that it sees beside those around it.
        label: the author's own name of it: of a branch, a case.
        copies: whether it writes to a copy of the variables.
        at_once: whether several copies of it, or others beside it, run at the same time.
        counted: whether the number of its turns is known when it begins.
    """

    stack: Stack
    path: str
    parameter: str
    type: StackOf | None = None
    owner: Node | None = None
    binds: tuple[tuple[str, Binds], ...] = ()
    label: str | None = None
    copies: bool = False
    at_once: bool = False
    counted: bool = False
    nodes: tuple[Node, ...] = ()
    bound: frozenset[str] = frozenset()  # the names that its steps bind outside of copies
    exits: frozenset[str] = frozenset()  # what in it leads out of it: "frame", "loop", "turn" (Effects.leaves)

    @property
    def nesting(self) -> Nesting | None:
        """How it runs; None for the stack of a definition."""
        return None if self.type is None else self.type.nesting

    @property
    def loop(self) -> bool:
        """Whether `loop` is bound in it."""
        return self.type is not None and self.type.loop

    @property
    def is_frame(self) -> bool:
        """Whether `return` ends it."""
        return self.type is None or self.type.nesting in FRAMES

    @property
    def title(self) -> str:
        """What pictures call it: the author's name, `then`, `else if 2`, `catch`."""
        if self.label is not None:
            return self.label
        name, _, rest = self.parameter.partition("[")
        if name == "elseIf":
            return f"else if {int(rest.partition(']')[0]) + 1}"
        return self.parameter.removesuffix(".do")

    def __repr__(self) -> str:
        return f"<Block {self.path}>"

    def walk(self) -> Iterator[Node]:
        """Yield its nodes, each before those nested in it."""
        for node in self.nodes:
            yield from node.walk()


@dataclass(eq=False, slots=True, repr=False)
class Node:
    """A step: what it reads, what it binds, the stacks nested in it.

    ``number`` counts the nodes of the graph from 1, in written order.
    """

    step: Step
    block: Block
    number: int
    uses: list[Use] = field(default_factory=list)
    per_item: list[PerItem] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    written: tuple[Written, ...] = ()  # the names it binds itself, apart from its blocks
    bound: frozenset[str] = frozenset()  # with those of its blocks that are not copies

    @property
    def arguments(self) -> Arguments:
        """The arguments of its function."""
        return self.step.arguments

    @property
    def title(self) -> str:
        """How traces, errors and pictures call the step."""
        return self.step.title

    @property
    def path(self) -> str:
        """Where it stands, such as `functionStack[2].forEach.do[0]`."""
        return self.step.path

    @property
    def mark(self) -> Mark:
        """Where its function's key stands."""
        return self.step.key_mark

    @property
    def emits(self) -> bool:
        """Whether it sends chunks itself."""
        return self.step.function.effects.emits

    @property
    def values(self) -> Iterator[Value]:
        """Its values, without those of the steps nested in it."""
        yield from (use.value for use in self.uses)
        yield from (each.value for each in self.per_item)
        if self.step.when is not None:
            yield self.step.when
        if isinstance(self.step.timeout, Value):
            yield self.step.timeout

    def walk(self) -> Iterator[Node]:
        """Yield it and the nodes nested in it."""
        yield self
        for block in self.blocks:
            yield from block.walk()

    def __repr__(self) -> str:
        return f"<Node {self.number} {self.title} {self.path}>"

    def nested(self, *nestings: Nesting) -> list[Block]:
        """Return its blocks that run in one of these ways."""
        return [block for block in self.blocks if block.nesting in nestings]

    def block_of(self, stack: Stack) -> Block:
        """Return the block of a stack among its arguments."""
        return next(block for block in self.blocks if block.stack is stack)

    def inner(self, parameter: str = "do") -> Block:
        """Return the block under a parameter, such as `catch.do`. Raises KeyError where there is none."""
        found = self.find(parameter)
        if found is None:
            raise KeyError(parameter)
        return found

    def find(self, parameter: str) -> Block | None:
        """Return the block under a parameter, None where it was not given."""
        return next((block for block in self.blocks if block.parameter == parameter), None)


class EdgeKind(Enum):
    """Why one step runs after another."""

    NEXT = "next"
    BRANCH = "branch"  # then, else, a case, default; also past a step whose `when` is false
    BODY = "body"  # into a nested stack: a loop's, a try's, a transaction's
    BACK = "back"  # to the next turn of a loop
    PARALLEL = "parallel"  # into a branch that runs beside others
    ERROR = "error"  # to `catch`, or out of the definition
    FINALLY = "finally"
    AFTER = "after"  # into what runs when the run has ended
    RETURN = "return"
    BREAK = "break"
    CONTINUE = "continue"
    RETRY = "retry"


@fast_dataclass()
class Edge:
    """From one node to another. None is the start of the definition, as a target its end.

    ``crosses``: the paths of the blocks that an exit leaves on its way (return, break, continue, error).
    """

    source: Node | None
    target: Node | None
    kind: EdgeKind
    label: str = ""
    crosses: tuple[str, ...] = ()


class Graph:
    """The steps of one definition, and how they follow one another."""

    __slots__ = ("_edges", "_nodes", "definition", "nodes", "root")

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.nodes: list[Node] = []
        self._nodes: dict[int, Node] = {}
        self._edges: tuple[Edge, ...] | None = None
        self.root = Block(definition.stack, "functionStack", "functionStack")
        self._fill(self.root)

    def _fill(self, block: Block) -> None:
        nodes: list[Node] = []
        bound: set[str] = set()
        exits: set[str] = set()
        for step in block.stack.steps:
            node = Node(step, block, len(self.nodes) + 1)
            self.nodes.append(node)
            self._nodes[id(step)] = node
            _Sorter(node).sort_all()
            node.written = tuple(_written(step))
            names = {each.name for each in node.written}
            if step.function.effects.leaves and not step.disabled:
                exits.add(step.function.effects.leaves)
            for inner in node.blocks:
                self._fill(inner)
                if not step.disabled and not inner.is_frame:
                    exits |= inner.exits - (_OF_LOOPS if inner.nesting is Nesting.LOOP else set())
                if not inner.copies:
                    names |= inner.bound
            node.bound = frozenset(names)
            bound |= names
            nodes.append(node)
        block.nodes, block.bound, block.exits = tuple(nodes), frozenset(bound), frozenset(exits)

    def node(self, step: Step) -> Node:
        """Return the node of a step."""
        return self._nodes[id(step)]

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges."""
        if self._edges is None:
            linker = _Linker()
            linker.definition(self.root)
            self._edges = tuple(dict.fromkeys(linker.edges))
        return self._edges


# -- what a step holds

_CONTAINERS: Final = frozenset({Arguments, Items, Entries})


class _Sorter:
    """Walks down the arguments of a step and the types of its function's parameters at once."""

    __slots__ = ("node", "step")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.step = node.step

    def sort_all(self) -> None:
        """Sort all arguments, in the order of the function's parameters."""
        arguments = self.step.arguments
        for parameter in self.step.function.parameters:
            argument = arguments.by_name.get(parameter.name)
            if argument is not None:
                self._sort(parameter.name, parameter.type, argument, arguments, None, parameter.name, parameter)

    def _sort(
        self,
        parameter: str,
        wanted: Type,
        argument: Argument,
        group: Arguments,
        entry: str | None,
        path: str,
        field: Field | None = None,
    ) -> None:
        """Sort one argument. ``group`` holds it; ``entry`` is the author's own key above it."""
        kind = type(argument)
        if kind is ConstantArgument:
            return
        if isinstance(argument, Stack):
            form = _form(wanted, (StackOf,))
            if isinstance(form, StackOf):
                self.node.blocks.append(self._nest(form, argument, group, entry, path))
        elif kind not in _CONTAINERS and isinstance(argument, Value):
            self._value(parameter, _form(wanted, (Bound, Condition)), argument, group, entry, field)
        elif isinstance(argument, Arguments):
            form = _form(wanted, (Group,))
            for inner in form.parameters if isinstance(form, Group) else ():
                held = argument.by_name.get(inner.name)
                if held is not None:
                    self._sort(inner.name, inner.type, held, argument, entry, f"{path}.{inner.name}", inner)
        elif isinstance(argument, Items):
            form = _form(wanted, (ListOf,))
            if isinstance(form, ListOf):
                for index, item in enumerate(argument.items):
                    self._sort(parameter, form.item, item, group, entry, f"{path}[{index}]")
        elif isinstance(argument, Entries):
            form = _form(wanted, (Named,))
            if isinstance(form, Named):
                for each in argument.entries:
                    where = f"{path}.{each.key}"
                    self._sort(parameter, form.item, each.argument, group, each.key, where)

    def _value(
        self, parameter: str, form: Type | None, value: Value, group: Arguments, entry: str | None, field: Field | None
    ) -> None:
        if not isinstance(form, (Bound, Condition)):
            return
        if form.per_item is not None:
            name = _bound_name(form.per_item, group, self.step)
            self.node.per_item.append(PerItem(value, name, parameter, entry))
        else:
            kind = form.kind if isinstance(form, Bound) else None
            self.node.uses.append(Use(value, kind, parameter, entry, form, field))

    def _nest(self, form: StackOf, stack: Stack, group: Arguments, label: str | None, path: str) -> Block:
        step, nesting = self.step, form.nesting
        binds = tuple((_bound_name(each, group, step), each) for each in form.binds)
        several = nesting in (Nesting.LOOP, Nesting.ITEM) and not _one_by_one(step)
        conditional = any(isinstance(p.type, Condition) for p in step.function.parameters)
        return Block(
            stack,
            f"{step.path}.{step.function.name}.{path}",
            path,
            form,
            self.node,
            binds,
            label,
            copies=several or nesting in _COPIES,
            at_once=several or nesting is Nesting.BRANCH,
            counted=bool(binds) or not conditional,
        )


def _form(wanted: Type, types: tuple[type, ...]) -> Type | None:
    if isinstance(wanted, OneOf):
        return next((f for form in wanted.forms if (f := _form(form, types)) is not None), None)
    return wanted if isinstance(wanted, types) else None


def _bound_name(binds: Binds, group: Arguments, step: Step) -> str:
    named = group.by_name.get(binds.parameter) or step.arguments.by_name.get(binds.parameter)
    return str(named.value) if isinstance(named, ConstantArgument) else (binds.default or binds.parameter)


def _one_by_one(step: Step) -> bool:
    argument = step.arguments.by_name.get(CONCURRENCY)
    return argument is None or constant(argument) == 1


def _written(step: Step) -> Iterator[Written]:
    """Yield the names a step binds itself, apart from its nested stacks."""
    effects = step.function.effects
    if effects.sets or effects.rebinds is not None or effects.publishes is not None:
        for parameter in step.function.parameters:
            argument = step.arguments.by_name.get(parameter.name)
            keys = (effects.sets and parameter.main) or effects.publishes == parameter.name
            if keys and isinstance(argument, Entries):
                for entry in argument.entries:
                    yield Written(entry.key, entry.mark)
            elif effects.rebinds == parameter.name and isinstance(argument, ConstantArgument):
                yield Written(str(argument.value), argument.mark, rebinds=True)
    if step.result is not None:
        yield Written(step.result, step.result_mark or step.mark)


def constant(argument: Argument | None, default: Any = MISSING) -> Any:
    """Return an argument's value where it is known at load, else MISSING; ``default`` where it was not given."""
    if argument is None:
        return default
    if isinstance(argument, ConstantArgument):
        return argument.value
    return argument.constant if isinstance(argument, Value) else MISSING


def runs_once_at_least(node: Node, block: Block) -> bool:
    """Tell whether a loop surely has a first turn: over a list that is written out, a number of times, while true."""
    for parameter in node.step.function.parameters:
        argument = node.step.arguments.by_name.get(parameter.name)
        if argument is None or not parameter.required:
            continue
        kind = parameter.type.kind if isinstance(parameter.type, Bound) else None
        value = constant(argument)
        if block.binds:
            if kind is Kind.ITEMS:
                return isinstance(value, (list, tuple)) and bool(value)
        elif isinstance(parameter.type, Condition):
            return value is True
        elif kind is Kind.INTEGER:
            return isinstance(value, int) and value > 0
    return False


# -- steps and values in written order


def steps_of(stack: Stack) -> Iterator[Step]:
    """Yield the steps of a stack, each before the steps nested in it."""
    for step in stack.steps:
        yield step
        for inner in _leaves_of(step.arguments):
            if type(inner) is Stack:
                yield from steps_of(inner)


def values_of(step: Step) -> Iterator[Value]:
    """Yield the values of a step, without those of the steps nested in it."""
    yield from values_in(step.arguments)
    if step.when is not None:
        yield step.when
    if isinstance(step.timeout, Value):
        yield step.timeout


def values_in(argument: Argument) -> Iterator[Value]:
    """Yield the values in an argument, without those of nested stacks."""
    for each in _leaves_of(argument):
        if not isinstance(each, (ConstantArgument, Stack)):
            yield each


def all_values(definition: Definition) -> Iterator[Value]:
    """Yield every value of a definition."""
    if isinstance(definition, Endpoint):
        yield from definition.bindings
    for step in steps_of(definition.stack):
        yield from values_of(step)
    if isinstance(definition, Endpoint) and definition.response is not None:
        yield definition.response


def _leaves_of(argument: Argument) -> list[Value | ConstantArgument | Stack]:
    """Return what stands in an argument, however deep in groups, lists and mappings."""
    found: list[Value | ConstantArgument | Stack] = []
    _gather(argument, found)
    return found


def _gather(argument: Argument, found: list[Value | ConstantArgument | Stack]) -> None:
    # The classes themselves are compared, since a large project has a hundred thousand arguments.
    kind = type(argument)
    if kind is Arguments:
        for inner in argument.by_name.values():  # type: ignore[union-attr]
            _gather(inner, found)
    elif kind is Items:
        for inner in argument.items:  # type: ignore[union-attr]
            _gather(inner, found)
    elif kind is Entries:
        for entry in argument.entries:  # type: ignore[union-attr]
            _gather(entry.argument, found)
    else:
        found.append(argument)  # type: ignore[arg-type]


# -- calls of functions of the project

#: The step that starts a function in the background.
JOB_START: Final = "job.start"


def called_by(step: Step) -> Iterator[str]:
    """Yield the names of the functions that a step calls, as far as they are constant."""
    for parameter in step.function.effects.calls:
        argument = step.arguments.by_name.get(parameter)
        for item in argument.items if isinstance(argument, Items) else (argument,):
            called = constant(item)
            for each in called if isinstance(called, list) else (called,):
                if isinstance(each, str):
                    yield each


def called_itself(step: Step) -> Iterator[str]:
    """Yield what a step calls itself; the functions that `llm.chat` tells a model of are not."""
    if step.function.name == "call":
        yield from called_by(step)


def reached(name: str, functions: Mapping[str, FunctionDefinition]) -> Iterator[FunctionDefinition]:
    """Yield a function and those it calls, each once."""
    waiting, met = [name], {name}
    while waiting:
        function = functions.get(waiting.pop())
        if function is None:
            continue
        yield function
        for step in steps_of(function.stack):
            for each in called_itself(step):
                if each not in met:
                    met.add(each)
                    waiting.append(each)


def steps_with_called(stack: Stack, functions: Mapping[str, FunctionDefinition]) -> Iterator[Step]:
    """Yield the steps of a stack, and those of the functions that it calls."""
    for step in steps_of(stack):
        yield step
        for name in called_by(step):
            for function in reached(name, functions):
                yield from steps_of(function.stack)


# -- edges


@dataclass(slots=True)
class _Out:
    """An end that no target has been found for yet."""

    source: Node | None
    kind: EdgeKind = EdgeKind.NEXT
    label: str = ""
    crosses: tuple[str, ...] = ()


@dataclass(slots=True)
class _Scope:
    """What stands around a step and changes where exits lead: a frame, a loop, a `catch`, a `finally`."""

    block: Block
    loop: Node | None = None
    ends: list[_Out] = field(default_factory=list)  # of `return` in a frame, `break`, errors that are caught
    catches: bool = False
    last: Block | None = None  # the `finally` that every exit passes
    passing: dict[EdgeKind, None] = field(default_factory=dict)  # the exits that pass it


#: Exits that end at a loop.
_LOOP_EXITS: Final = (EdgeKind.BREAK, EdgeKind.CONTINUE)
_LEAVES: Final = {"frame": EdgeKind.RETURN, "loop": EdgeKind.BREAK, "turn": EdgeKind.CONTINUE, "": EdgeKind.ERROR}


class _Linker:
    """Finds the edges of a graph, block by block."""

    def __init__(self) -> None:
        self.edges: list[Edge] = []
        self._scopes: list[_Scope] = []

    def definition(self, root: Block) -> None:
        """Link the stack of a definition, from its start to its end."""
        ends = self._in_frame(root, [_Out(None)])
        self._connect(ends, None)

    def _connect(self, outs: Sequence[_Out], target: Node | None, kind: EdgeKind | None = None) -> None:
        for out in outs:
            self.edges.append(Edge(out.source, target, kind or out.kind, out.label, out.crosses))

    def _in_frame(self, block: Block, ins: list[_Out]) -> list[_Out]:
        """Link a block that `return` ends; return its ends, those of its returns too."""
        self._scopes.append(_Scope(block))
        outs = self._block(block, ins)
        return outs + self._scopes.pop().ends

    def _block(self, block: Block, ins: list[_Out]) -> list[_Out]:
        for node in block.nodes:
            self._connect(ins, node)
            ins = self._node(node)
        return ins

    def _node(self, node: Node) -> list[_Out]:
        step = node.step
        if step.disabled:
            return [_Out(node)]
        if step.retry is not None:
            label = f"retry up to {step.retry.times} times"
            self.edges.append(Edge(node, node, EdgeKind.RETRY, label))
        passed = [_Out(node, EdgeKind.BRANCH, "when false")] if step.when is not None else []
        if step.function.effects.ends:
            self._leave(_Out(node, _LEAVES[step.function.effects.leaves]), len(self._scopes))
            return passed
        if not node.blocks:
            return [_Out(node)]
        outs = self._nested(node)
        # A step that goes on by itself already has an edge past its blocks.
        return outs if any(out.source is node for out in outs) else outs + passed

    def _nested(self, node: Node) -> list[_Out]:
        outs: list[_Out] = []
        choices = node.nested(Nesting.ALTERNATIVE, Nesting.OTHERWISE)
        for block in choices:
            outs += self._block(block, [_Out(node, EdgeKind.BRANCH, block.title)])
        if choices and choices[-1].nesting is not Nesting.OTHERWISE:
            outs.append(_Out(node, EdgeKind.BRANCH, "otherwise"))
        if node.nested(Nesting.GUARDED):
            outs += self._try(node)
        for block in node.blocks:
            match block.nesting:
                case Nesting.ONCE:
                    outs += self._block(block, [_Out(node, EdgeKind.BODY)])
                case Nesting.BRANCH:
                    outs += self._in_frame(block, [_Out(node, EdgeKind.PARALLEL, block.title)])
                case Nesting.LOOP:
                    outs += self._loop(node, block)
                case Nesting.ITEM:
                    ends = self._in_frame(block, [_Out(node, EdgeKind.BODY, "each item, when it is read")])
                    self._connect(ends, node, EdgeKind.BACK)
                    outs.append(_Out(node))
                case Nesting.FRAME:
                    outs += self._in_frame(block, [_Out(node, EdgeKind.BRANCH, "to make the value")])
                    outs.append(_Out(node))
                case Nesting.DEFERRED:
                    ends = self._in_frame(block, [_Out(node, EdgeKind.AFTER, "when the run has ended")])
                    self._connect([end for end in ends if end.source is not node], None, EdgeKind.AFTER)
                    outs.append(_Out(node))
                case _:
                    pass
        return outs

    def _loop(self, node: Node, block: Block) -> list[_Out]:
        self._scopes.append(_Scope(block, loop=node))
        ends = self._block(block, [_Out(node, EdgeKind.BODY, "each turn")])
        self._connect(ends, node, EdgeKind.BACK)
        return [_Out(node, EdgeKind.NEXT, "at the end"), *self._scopes.pop().ends]

    def _try(self, node: Node) -> list[_Out]:
        handlers = node.nested(Nesting.HANDLER)
        last = next((block for block in node.nested(Nesting.FINALLY) if block.nodes), None)
        passing: dict[EdgeKind, None] = {}
        if last is not None:
            self._scopes.append(_Scope(last, last=last, passing=passing))
        outs: list[_Out] = []
        thrown: list[_Out] = []
        for block in node.nested(Nesting.GUARDED):
            self._scopes.append(_Scope(block, catches=bool(handlers)))
            outs += self._block(block, [_Out(node, EdgeKind.BODY)])
            thrown += self._scopes.pop().ends
        for block in handlers:
            outs += self._block(block, [_Out(node, EdgeKind.ERROR, "an error in `do`"), *thrown])
        if last is None:
            return outs
        self._scopes.pop()
        passing[EdgeKind.ERROR] = None
        label = "an error in `catch`" if handlers else "an error in `do`"
        self._connect([_Out(node, EdgeKind.ERROR, label)], last.nodes[0])
        # Those that came by an exit are connected to the `finally` already.
        ends = self._block(last, [_Out(o.source, EdgeKind.FINALLY, o.label, o.crosses) for o in outs])
        for kind in passing:
            for end in ends:
                self._leave(_Out(end.source, kind, end.label), len(self._scopes))
        return ends if outs else []

    def _leave(self, out: _Out, depth: int) -> None:
        """Lead an exit outwards, through the scopes below ``depth``, to where it ends."""
        for scope in reversed(self._scopes[:depth]):
            out.crosses = (*out.crosses, scope.block.path)
            if scope.last is not None:
                scope.passing[out.kind] = None
                self._connect([out], scope.last.nodes[0])
                return
            if out.kind is EdgeKind.ERROR and scope.catches:
                scope.ends.append(out)
                return
            if out.kind in _LOOP_EXITS and scope.loop is not None:
                if out.kind is EdgeKind.CONTINUE:
                    self._connect([out], scope.loop)
                else:
                    scope.ends.append(out)
                return
            if out.kind is not EdgeKind.ERROR and scope.block.is_frame:
                # A `break` that no loop of its frame is for was found by the analysis.
                if out.kind is EdgeKind.RETURN:
                    scope.ends.append(out)
                return
        self._connect([out], None)
