"""From Jinja2's tree to Python: what an expression reads, what is wrong with it, and the source that computes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from keyword import iskeyword
from typing import Any, Final, Protocol

from jinja2 import nodes

from streamstack.language import operators
from streamstack.language.expressions.syntax import Problem, too_deep
from streamstack.language.filters import (
    DROPPED,
    FILTERS,
    FUNCTIONS_OF_EXPRESSIONS,
    NAMING,
    TESTS,
    Operation,
)
from streamstack.language.filters.tests import range_of
from streamstack.language.suggest import did_you_mean
from streamstack.records import record

#: Operators inside operators: each is at most two brackets of Python, which allows 200.
MAX_DEPTH: Final = 50
SOFT_FILTERS: Final = frozenset({"default", "d"})
SOFT_TESTS: Final = frozenset({"defined", "undefined"})
_CHAINS: Final = (nodes.And, nodes.Or)


@record()
class Reading:
    """A root name read, at an offset of the text."""

    name: str
    path: tuple[str | int, ...]
    soft: bool
    offset: int


@record()
class Scope:
    """Names a template binds itself: surely, perhaps, and as macros that can be called."""

    bound: frozenset[str] = frozenset()
    perhaps: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()


NO_SCOPE: Final = Scope()


def is_path(node: nodes.Node) -> bool:
    """Tell whether a node is a name or look-ups in something, down to a name."""
    return isinstance(path_base(node), nodes.Name)


def path_base(node: nodes.Node) -> nodes.Node:
    """Return what a path's look-ups begin with."""
    while isinstance(node, (nodes.Getattr, nodes.Getitem)) and not isinstance(
        getattr(node, "arg", None), nodes.Slice
    ):
        node = node.node
    return node


def constant_of(node: nodes.Node | None) -> object:
    """Return the constant a node is, or the node itself."""
    if isinstance(node, nodes.Const):
        return node.value
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const):
        value = node.node.value
        return -value if type(value) in (int, float) else node
    return node


class Analysis:
    """Collects the readings and the problems of one expression."""

    def __init__(self, scope: Scope = NO_SCOPE) -> None:
        self.scope = scope
        self.readings: list[Reading] = []
        self.problems: list[Problem] = []

    def visit(self, node: nodes.Node, depth: int = 0, *, soft: bool = False) -> None:
        """Collect what a node and all below it read; raise Problem when it is too deep."""
        if depth > MAX_DEPTH:
            raise too_deep(node.lineno)
        if isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)):
            self._path(node, depth, soft=soft)
        elif isinstance(node, nodes.Filter):
            self._filter(node, depth)
        elif isinstance(node, nodes.Test):
            self._test(node, depth)
        elif isinstance(node, nodes.Call):
            self._call(node, depth)
        elif isinstance(node, _CHAINS) and isinstance(node.left, type(node)):
            # `a and b and c` becomes one Python expression of one level.
            self.visit(node.left, depth, soft=soft)
            self.visit(node.right, depth + 1, soft=soft)
        else:
            for child in node.iter_child_nodes():
                self.visit(child, depth + 1, soft=soft)

    def _path(self, node: nodes.Node, depth: int, *, soft: bool) -> None:
        base = path_base(node)
        named = isinstance(base, nodes.Name)
        items: list[str | int] = []
        while node is not base:
            # A look-up by a constant text in a name is Python's own; every other one is a call.
            if isinstance(node, nodes.Getattr):
                items.append(node.attr)
                depth += not named
            else:
                assert isinstance(node, nodes.Getitem)
                depth += 1
                key = constant_of(node.arg)
                if type(key) is str or type(key) is int:
                    items.append(key)
                else:
                    items.clear()
                    if isinstance(key, nodes.Tuple):
                        self._wrong("a look-up takes one item", node.lineno, "write `a[0][1]`")
                    self.visit(node.arg, depth, soft=soft)
            node = node.node
            if depth > MAX_DEPTH:
                raise too_deep(node.lineno)
        if not isinstance(node, nodes.Name):
            if isinstance(node, nodes.Getitem):
                self.visit(node.node, depth + 1)
                self.visit(node.arg, depth + 1)
            else:
                self.visit(node, depth + 1)
        elif node.name != "null" and node.name not in self.scope.bound:
            soft = soft or node.name in self.scope.perhaps
            self.readings.append(Reading(node.name, tuple(reversed(items)), soft, node.lineno))

    def _filter(self, node: nodes.Filter, depth: int) -> None:
        soft = node.name in SOFT_FILTERS and node.node is not None and is_path(node.node)
        if node.node is not None:
            self.visit(node.node, depth + 1, soft=soft)
        operation = FILTERS.get(node.name)
        if operation is None:
            hint = DROPPED.get(node.name, "")
            message = f"there is no filter `{node.name}`"
            if not hint:
                message += did_you_mean(node.name, FILTERS)
            self._add("unknown-filter", message, node.lineno, hint)
        else:
            self._count(operation, node, "filter", node.lineno)
        self._arguments(node, depth)
        if node.name in NAMING:
            self._named(node)

    def _test(self, node: nodes.Test, depth: int) -> None:
        soft = node.name in SOFT_TESTS and is_path(node.node)
        self.visit(node.node, depth + 1, soft=soft)
        operation = TESTS.get(node.name)
        if operation is None:
            message = f"there is no test `is {node.name}`{did_you_mean(node.name, TESTS)}"
            self._add("unknown-test", message, node.lineno)
        else:
            self._count(operation, node, "test", node.lineno)
        self._arguments(node, depth)

    def _call(self, node: nodes.Call, depth: int) -> None:
        called = node.node
        self._arguments(node, depth)
        if isinstance(called, nodes.Name):
            if called.name in self.scope.called:
                self._refuse_names(node)
                return
            operation = FUNCTIONS_OF_EXPRESSIONS.get(called.name)
            if operation is not None:
                self._count(operation, node, "function", called.lineno)
                return
            message, hint = f"there is no function `{called.name}`", ""
            known = called.name if called.name in FILTERS else _CALLED.get(called.name, "")
            if known:
                hint = f"write `value | {known}`: it is a filter"
            else:
                message += did_you_mean(called.name, FUNCTIONS_OF_EXPRESSIONS)
            self._add("unknown-function", message, called.lineno, hint)
        elif isinstance(called, nodes.Getattr):
            self.visit(called.node, depth + 1)
            known = called.attr if called.attr in FILTERS else _METHODS.get(called.attr, "")
            hint = f"write `value | {known}`" if known else ""
            message = f"`.{called.attr}(...)`: a value has no methods, only items; use a filter"
            if not known:
                message += did_you_mean(called.attr, FILTERS)
            self._add("unknown-function", message, called.lineno, hint)
        else:
            self.visit(called, depth + 1)
            self._wrong("only the functions of the language can be called", node.lineno)

    def _arguments(self, node: nodes.Filter | nodes.Test | nodes.Call, depth: int) -> None:
        for argument in node.args:
            self.visit(argument, depth + 1)
        for keyword in node.kwargs:
            self.visit(keyword.value, depth + 1)
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self._wrong("`*` and `**` can't spread arguments here", node.lineno)

    def _refuse_names(self, node: nodes.Filter | nodes.Test | nodes.Call) -> None:
        """Report names of arguments that Python has no argument of."""
        for keyword in node.kwargs:
            key = str(keyword.key)
            if iskeyword(key) or key == "__debug__" or not key.isascii():
                self._wrong(f"an argument can't be named `{key}`", keyword.lineno)

    def _count(
        self,
        operation: Operation,
        node: nodes.Filter | nodes.Test | nodes.Call,
        what: str,
        offset: int,
    ) -> None:
        given = len(node.args)
        named = [str(keyword.key) for keyword in node.kwargs]
        name = operation.name
        if operation.any_keyword:
            self._refuse_names(node)
        if operation.maximum is not None and given > operation.maximum:
            most = operation.maximum
            words = "no argument" if most == 0 else f"at most {most}"
            self._wrong(f"the {what} `{name}` takes {words}, got {given}", offset)
            return
        for key in named:
            if key not in operation.keywords and not operation.any_keyword:
                close = did_you_mean(key, operation.keywords)
                self._wrong(f"the {what} `{name}` has no argument `{key}`{close}", offset)
            elif key in operation.keywords and operation.keywords.index(key) < given:
                self._wrong(f"the {what} `{name}` got `{key}` twice", offset)
        if len(set(named)) < len(named):
            self._wrong(f"the {what} `{name}` got an argument twice", offset)
        missing = [key for key in operation.keywords[given : operation.minimum] if key not in named]
        if missing:
            words = ", ".join(f"`{key}`" for key in missing)
            hint = f"write {operation.usage}"
            self._wrong(f"the {what} `{name}` needs {words}", offset, hint)
        elif operation.check is not None:
            constants = [constant_of(argument) for argument in node.args]
            for keyword in node.kwargs:
                if keyword.key in operation.keywords:
                    index = operation.keywords.index(keyword.key)
                    constants += [node] * (index + 1 - len(constants))
                    constants[index] = constant_of(keyword.value)
            found = operation.check(constants)
            if found is not None:
                self._add(*found[:2], offset, found[2])

    def _named(self, node: nodes.Filter) -> None:
        """Check the filter that `map` names and the test that `select` names."""
        index, what = NAMING[node.name]
        name = constant_of(node.args[index]) if len(node.args) > index else None
        if not isinstance(name, str):
            return
        known = FILTERS if what == "filter" else TESTS
        if name not in known or name in SOFT_FILTERS:
            message = (
                f"there is no {what} `{name}` for `{node.name}`{did_you_mean(str(name), known)}"
            )
            self._add(f"unknown-{what}", message, node.args[index].lineno)

    def _wrong(self, message: str, offset: int, hint: str = "") -> None:
        self._add("bad-template", message, offset, hint)

    def _add(self, code: str, message: str, offset: int, hint: str = "") -> None:
        self.problems.append(Problem(code, message, offset, hint))


#: Functions that authors of Python or JavaScript reach for, and the filter that does it.
_CALLED: Final = {
    "len": "length",
    "str": "toText",
    "String": "toText",
    "parseInt": "toInteger",
    "Number": "toDecimal",
    "sorted": "sort",
    "reversed": "reverse",
}

#: Methods that authors of Python or JavaScript reach for, and the filter that does it.
_METHODS: Final = {
    "strip": "trim",
    "toLowerCase": "lower",
    "toUpperCase": "upper",
    "length": "length",
    "size": "length",
    "get": 'default("...")',
    "substring": "truncate",
    "includes": "select",
    "push": "flatten",
    "append": "flatten",
    "filter": "selectattr",
    "toString": "toText",
    "startswith": 'regexMatch("^...")',
    "startsWith": 'regexMatch("^...")',
    "strftime": 'date("%Y-%m-%d")',
    "isoformat": "toText",
    "match": "regexMatch",
}


def bind(scope: Scope, names: Iterable[str], called: Collection[str] = ()) -> Scope:
    """Return a scope in which names are bound."""
    bound = scope.bound | frozenset(names)
    return Scope(bound, scope.perhaps - bound, scope.called | frozenset(called))


# ----------------------------------------------------------------------------------------- compile


class Spelling(Protocol):
    """How the stack's compiler writes what an expression refers to."""

    def name(self, root: str) -> str:
        """Return the source of a variable's or reserved name's value."""

    def path(self, root: str, item: str) -> str | None:
        """Return a faster source for an item of a name, or None to look it up."""

    def constant(self, value: object) -> str:
        """Return the name under which generated code finds an object."""


_BINARY: Final[dict[type[nodes.Node], Callable[..., Any]]] = {
    nodes.Add: operators.add,
    nodes.Sub: operators.subtract,
    nodes.Mul: operators.multiply,
    nodes.Div: operators.divide,
    nodes.FloorDiv: operators.divide_whole,
    nodes.Mod: operators.remain,
    nodes.Pow: operators.power,
}
_COMPARE: Final[dict[str, Callable[..., Any]]] = {
    "eq": operators.equal,
    "ne": operators.unequal,
    "lt": operators.less,
    "lteq": operators.less_equal,
    "gt": operators.greater,
    "gteq": operators.greater_equal,
    "in": operators.contains,
    "notin": operators.lacks,
}
_INLINE_TESTS: Final = {
    "none": "({} is None)",
    "null": "({} is None)",
    "true": "({} is True)",
    "false": "({} is False)",
}


def compile_expression(
    node: nodes.Node, names: Spelling, called: frozenset[str] = frozenset()
) -> str:
    """Return the Python source of an analysed expression; it may stand anywhere in a larger one.

    ``called`` are names that can be called where they stand: the macros of a template.
    """
    return _Writer(names, called).write(node)


def compile_numbers(node: nodes.Node, names: Spelling) -> str | None:
    """Return source of what a whole `range(...)` counts, made one by one; None for any other expression."""
    if not isinstance(node, nodes.Call) or not isinstance(node.node, nodes.Name):
        return None
    if node.node.name != "range":
        return None
    return _Writer(names, frozenset()).call_of(range_of, node)


def literal(value: Any) -> str:
    """Return the source of null, a boolean, a number or a text."""
    if type(value) in (int, float) and value < 0:
        return f"({value!r})"
    return repr(value)


class _Writer:
    """Writes the source of one expression."""

    __slots__ = ("called", "names")

    def __init__(self, names: Spelling, called: frozenset[str]) -> None:
        self.names = names
        self.called = called

    def write(self, node: nodes.Node) -> str:
        kind = type(node)
        if kind is nodes.Name:
            return self._name(node)  # type: ignore[arg-type]
        if kind is nodes.Getattr:
            return self._getattr(node)  # type: ignore[arg-type]
        if kind is nodes.Const:
            return literal(node.value)  # type: ignore[attr-defined]
        helper = _BINARY.get(kind)
        if helper is not None:
            assert isinstance(node, nodes.BinExpr)
            return self._call(helper, self.write(node.left), self.write(node.right))
        writer = _WRITERS[kind]
        return writer(self, node)

    def _call(self, helper: Callable[..., Any], *arguments: str) -> str:
        return f"{self.names.constant(helper)}({', '.join(arguments)})"

    def _name(self, node: nodes.Name) -> str:
        return "None" if node.name == "null" else self.names.name(node.name)

    def _getattr(self, node: nodes.Getattr) -> str:
        return self._item(node.node, node.attr)

    def _item(self, container: nodes.Node, key: str) -> str:
        if type(container) is nodes.Name and container.name != "null":
            faster = self.names.path(container.name, key)
            if faster is not None:
                return faster
        if _is_literal(container):
            # Python warns of such source when it compiles it, before it fails.
            return self._call(operators.item, self.write(container), repr(key))
        return f"{self.write(container)}[{key!r}]"

    def getitem_of(self, node: nodes.Getitem) -> str:
        if isinstance(node.arg, nodes.Slice):
            bounds = (node.arg.start, node.arg.stop, node.arg.step)
            sources = ["None" if bound is None else self.write(bound) for bound in bounds]
            return self._call(operators.part, self.write(node.node), *sources)
        key = constant_of(node.arg)
        if type(key) is str:
            return self._item(node.node, key)
        return self._call(operators.item, self.write(node.node), self.write(node.arg))

    def and_of(self, node: nodes.Node) -> str:
        return self._chained(node, nodes.And, " and ")

    def or_of(self, node: nodes.Node) -> str:
        return self._chained(node, nodes.Or, " or ")

    def _chained(self, node: nodes.Node, kind: type[nodes.BinExpr], word: str) -> str:
        parts = []
        while isinstance(node, kind):
            parts.append(self.write(node.right))
            node = node.left
        parts.append(self.write(node))
        return f"({word.join(reversed(parts))})"

    def not_of(self, node: nodes.Not) -> str:
        return f"(not {self.write(node.node)})"

    def negative_of(self, node: nodes.Neg) -> str:
        value = constant_of(node)
        if value is not node:
            return literal(value)
        return self._call(operators.negate, self.write(node.node))

    def positive_of(self, node: nodes.Pos) -> str:
        return self._call(operators.affirm, self.write(node.node))

    def concat_of(self, node: nodes.Concat) -> str:
        return self._call(operators.join_texts, *map(self.write, node.nodes))

    def list_of(self, node: nodes.List | nodes.Tuple) -> str:
        return f"[{', '.join(map(self.write, node.items))}]"

    def dict_of(self, node: nodes.Dict) -> str:
        return "{" + ", ".join(self._pair(pair) for pair in node.items) + "}"

    def _pair(self, pair: nodes.Pair) -> str:
        key = constant_of(pair.key)
        if isinstance(key, (bool, int, float)):
            source = repr(operators.key_text(key))
        elif isinstance(key, str):
            source = repr(key)
        else:
            source = self._call(operators.key_text, self.write(pair.key))
        return f"{source}: {self.write(pair.value)}"

    def inline_if_of(self, node: nodes.CondExpr) -> str:
        other = "None" if node.expr2 is None else self.write(node.expr2)
        return f"({self.write(node.expr1)} if {self.write(node.test)} else {other})"

    def compare_of(self, node: nodes.Compare) -> str:
        first = self.write(node.expr)
        if len(node.ops) > 1:
            rest: list[str] = []
            for operand in node.ops:
                rest.append(self.names.constant(_COMPARE[operand.op]))
                rest.append(f"lambda: {self.write(operand.expr)}")
            return self._call(operators.chain, first, *rest)
        operand = node.ops[0]
        second = self.write(operand.expr)
        if operand.op in ("eq", "ne") and (_exact(node.expr) or _exact(operand.expr)):
            return f"({first} {'==' if operand.op == 'eq' else '!='} {second})"
        return self._call(_COMPARE[operand.op], first, second)

    def _soft(self, node: nodes.Node) -> str:
        """Return the source of a function without arguments that walks a path.

        What a path begins with, when that is more than a name, is evaluated before: an error in
        it stays an error.
        """
        if is_path(node):
            return f"lambda: {self.write(node)}"
        base = path_base(node)
        if base is node:
            return f"(lambda _b: lambda: _b)({self.write(node)})"
        keys: list[str] = []
        while node is not base:
            if isinstance(node, nodes.Getattr):
                keys.append(repr(node.attr))
            else:
                assert isinstance(node, nodes.Getitem)
                keys.append(self.write(node.arg))
            node = node.node
        path = "_b"
        for key in reversed(keys):
            path = f"{self.names.constant(operators.item)}({path}, {key})"
        return f"(lambda _b: lambda: {path})({self.write(base)})"

    def _default(self, node: nodes.Filter) -> str:
        assert node.node is not None
        keywords: dict[str, nodes.Expr] = {str(k.key): k.value for k in node.kwargs}
        other = node.args[0] if node.args else keywords.get("other", nodes.Const(""))
        boolean = node.args[1] if len(node.args) > 1 else keywords.get("boolean")
        path = self._soft(node.node)
        if boolean is not None:
            lazily = f"lambda: {self.write(other)}"
            return self._call(operators.default_empty, path, lazily, self.write(boolean))
        if type(other) is nodes.Const or constant_of(other) is not other:
            return self._call(operators.default_value, path, self.write(other))
        return self._call(operators.default, path, f"lambda: {self.write(other)}")

    def filter_of(self, node: nodes.Filter) -> str:
        if node.name in SOFT_FILTERS:
            return self._default(node)
        assert node.node is not None
        return self._operation(FILTERS[node.name].call, node, self.write(node.node))

    def _operation(
        self, code: Callable[..., Any], node: nodes.Filter | nodes.Test | nodes.Call, *first: str
    ) -> str:
        return self._call(code, *first, *self._arguments(node))

    def _arguments(self, node: nodes.Filter | nodes.Test | nodes.Call) -> list[str]:
        named = [f"{keyword.key}={self.write(keyword.value)}" for keyword in node.kwargs]
        return [*map(self.write, node.args), *named]

    def call_of(self, code: Callable[..., Any], node: nodes.Call) -> str:
        """Return a call of this code with the arguments of another."""
        return self._operation(code, node)

    def test_of(self, node: nodes.Test) -> str:
        if node.name in SOFT_TESTS:
            helper = operators.defined if node.name == "defined" else operators.undefined
            return self._call(helper, self._soft(node.node))
        inline = _INLINE_TESTS.get(node.name)
        if inline is not None and not _is_literal(node.node):
            return inline.format(self.write(node.node))
        return self._operation(TESTS[node.name].call, node, self.write(node.node))

    def function_of(self, node: nodes.Call) -> str:
        assert isinstance(node.node, nodes.Name)
        name = node.node.name
        if name in self.called:
            return f"{self.names.name(name)}({', '.join(self._arguments(node))})"
        return self._operation(FUNCTIONS_OF_EXPRESSIONS[name].call, node)


def _exact(node: nodes.Node) -> bool:
    """Tell whether Python's own == with this constant is the language's."""
    value = constant_of(node)
    return value is None or type(value) in (str, int, bool) or _is_null(node)


def _is_null(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "null"


def _is_literal(node: nodes.Node) -> bool:
    return _is_null(node) or isinstance(node, (nodes.Const, nodes.Neg, nodes.List, nodes.Tuple))


_WRITERS: Final[dict[type[nodes.Node], Callable[[_Writer, Any], str]]] = {
    nodes.Getitem: _Writer.getitem_of,
    nodes.And: _Writer.and_of,
    nodes.Or: _Writer.or_of,
    nodes.Not: _Writer.not_of,
    nodes.Neg: _Writer.negative_of,
    nodes.Pos: _Writer.positive_of,
    nodes.Concat: _Writer.concat_of,
    nodes.List: _Writer.list_of,
    nodes.Tuple: _Writer.list_of,
    nodes.Dict: _Writer.dict_of,
    nodes.CondExpr: _Writer.inline_if_of,
    nodes.Compare: _Writer.compare_of,
    nodes.Filter: _Writer.filter_of,
    nodes.Test: _Writer.test_of,
    nodes.Call: _Writer.function_of,
}
