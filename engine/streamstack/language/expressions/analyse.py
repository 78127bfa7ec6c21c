"""What an expression reads and calls, checked against what there is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from keyword import iskeyword
from typing import Final

from jinja2 import nodes

from streamstack.language.expressions.scan import Problem, too_deep
from streamstack.language.filters import DROPPED, FILTERS, FUNCTIONS_OF_EXPRESSIONS, NAMING, TESTS, Operation
from streamstack.language.suggest import did_you_mean
from streamstack.records import fast_dataclass

#: Operators inside operators: each is at most two brackets of Python, which allows 200.
MAX_DEPTH: Final = 50
SOFT_FILTERS: Final = frozenset({"default", "d"})
SOFT_TESTS: Final = frozenset({"defined", "undefined"})
_CHAINS: Final = (nodes.And, nodes.Or)


@fast_dataclass()
class Reading:
    """A root name read, at an offset of the text."""

    name: str
    path: tuple[str | int, ...]
    soft: bool
    offset: int


@fast_dataclass()
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
    while isinstance(node, (nodes.Getattr, nodes.Getitem)) and not isinstance(getattr(node, "arg", None), nodes.Slice):
        node = node.node
    return node


def passes_on(node: nodes.Node) -> bool:
    """Tell whether an expression gives what it reads as it is: a path, a list that has it, another one behind it."""
    if isinstance(node, (nodes.Const, nodes.Name)) or is_path(node):
        return True
    if isinstance(node, nodes.Filter):
        return node.name in SOFT_FILTERS and node.node is not None and passes_on(node.node)
    if isinstance(node, nodes.Dict):
        return all(passes_on(pair.value) for pair in node.items)
    if isinstance(node, (nodes.Add, nodes.List)):
        return all(map(passes_on, node.iter_child_nodes()))
    return False


def constant_of(node: nodes.Node | None) -> object:
    """Return the constant a node is, or the node itself."""
    if isinstance(node, nodes.Const):
        return node.value
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const):
        value = node.node.value
        return -value if type(value) in (int, float) else node
    return node


def unfit_name(node: nodes.Name | nodes.Macro) -> Problem:
    """Return the problem of a name that is no variable's: Python takes several spellings of a letter for one."""
    return Problem(
        "bad-template",
        f"`{node.name}` can't be a variable's name",
        node.lineno,
        "a name has letters (a to z), digits and _; what is looked up in it may have any: a.größe",
    )


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
        elif not node.name.isascii():
            self.problems.append(unfit_name(node))
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
            message = f"unknown filter `{node.name}`"
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
            message = f"unknown test `is {node.name}`{did_you_mean(node.name, TESTS)}"
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
            message, hint = f"unknown function `{called.name}`", ""
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
        self, operation: Operation, node: nodes.Filter | nodes.Test | nodes.Call, what: str, offset: int
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
            message = f"unknown {what} `{name}` for `{node.name}`{did_you_mean(str(name), known)}"
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
