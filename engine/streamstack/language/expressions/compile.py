"""Values of a definition, and the line of Python that each becomes.

Names become what the stack's compiler calls them, look-ups Python's own subscription where that
says exactly the same, operators and filters calls of objects that `Spelling.constant` names. No
attribute of a value is ever reached: the source holds no attribute access at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field
from math import isfinite
from types import CodeType
from typing import Any, Final, Literal, Protocol

from jinja2 import nodes

from streamstack.errors import Mark, fast_dataclass
from streamstack.language import operators
from streamstack.language.expressions.grammar import SOFT_FILTERS, SOFT_TESTS, constant_of, is_path, path_base
from streamstack.language.filters import FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS, Operation
from streamstack.language.filters.tests import range_of
from streamstack.language.names import identifier
from streamstack.language.operators import bounded_text
from streamstack.language.values import MISSING, to_text


class Spelling(Protocol):
    """How the stack's compiler writes what an expression refers to."""

    def name(self, root: str) -> str:
        """Return the source of a variable's or reserved name's value."""

    def path(self, root: str, item: str) -> str | None:
        """Return a faster source for an item of a name, or None to look it up."""

    def constant(self, value: object) -> str:
        """Return the name under which generated code finds an object."""


BINARY: Final[dict[type[nodes.Node], Callable[..., Any]]] = {
    nodes.Add: operators.add,
    nodes.Sub: operators.subtract,
    nodes.Mul: operators.multiply,
    nodes.Div: operators.divide,
    nodes.FloorDiv: operators.divide_whole,
    nodes.Mod: operators.remain,
    nodes.Pow: operators.power,
}
COMPARE: Final[dict[str, Callable[..., Any]]] = {
    "eq": operators.equal,
    "ne": operators.unequal,
    "lt": operators.less,
    "lteq": operators.less_equal,
    "gt": operators.greater,
    "gteq": operators.greater_equal,
    "in": operators.contains,
    "notin": operators.lacks,
}
#: Nodes whose value may be a list or object with others in it.
_COLLECTIONS: Final = (
    nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Call, nodes.CondExpr, nodes.List, nodes.Tuple,
    nodes.Dict, nodes.Or, nodes.And, nodes.Add, nodes.Mul,
)  # fmt: skip
_INLINE_TESTS: Final = {
    "none": "({} is None)",
    "null": "({} is None)",
    "true": "({} is True)",
    "false": "({} is False)",
}


#: What the source of an expression has beside names and constants: a parameter, a method of texts.
LOCALS: Final = frozenset({"_b", "join"})


def compile_expression(node: nodes.Node, names: Spelling, called: frozenset[str] = frozenset()) -> str:
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
    """Return the source of null, a boolean, a number or a text.

    Every text of an author gets into generated code through here, and as nothing but a literal.

    Raises:
        TypeError: for anything else, whose `repr` could be any source.
    """
    if isinstance(value, str):
        return str.__repr__(value)
    if value is None or type(value) is bool:
        return repr(value)
    if type(value) is int or (type(value) is float and isfinite(value)):
        return f"({value!r})" if value < 0 else repr(value)
    raise TypeError(f"no literal for a {type(value).__name__}")


class UnsafeSource(Exception):  # noqa: N818  (raised at load; it means a bug of ours, never an author's mistake)
    """Generated source holds an identifier that the compiler does not write."""


def compile_source(source: str, title: str, mode: Literal["exec", "eval"], known: Iterable[str]) -> CodeType:
    """Compile generated Python and check every identifier in it, before any of it runs.

    It is the wall behind `literal` and `identifier`: had a text of a definition got into the source unquoted, its
    names, attributes and imports would be none of ``known``.

    Args:
        source: what was generated.
        title: the file name in tracebacks.
        mode: as `compile` takes it.
        known: the identifiers that the compiler writes, those of variables (`v_...`) aside.

    Raises:
        UnsafeSource: for source that does not compile or holds another identifier.
    """
    try:
        code = compile(source, f"<{title}>", mode)
    except (SyntaxError, ValueError) as error:
        raise UnsafeSource(f"{title}: the generated source is not Python: {error}") from error
    names: set[str] = set()
    for part in _parts_of(code):
        names.update(part.co_names, part.co_varnames, part.co_freevars, part.co_cellvars)
    for name in names.difference(known):
        if not name.startswith("v_"):
            raise UnsafeSource(f"{title}: the generated source holds the name {name!r}")
    return code


def _parts_of(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts_of(constant)


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
        helper = BINARY.get(kind)
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
            return self._call(operators.item, self.write(container), literal(key))
        return f"{self.write(container)}[{literal(key)}]"

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
        return self._bounded(f"[{', '.join(map(self.write, node.items))}]", node.items)

    def dict_of(self, node: nodes.Dict) -> str:
        source = "{" + ", ".join(self._pair(pair) for pair in node.items) + "}"
        return self._bounded(source, [pair.value for pair in node.items])

    def _bounded(self, source: str, items: Sequence[nodes.Node]) -> str:
        """Return the source of a list or object, whose size is checked where two of its items may be such."""
        several = sum(isinstance(item, _COLLECTIONS) and _reads(item) for item in items) > 1
        return self._call(operators.bounded, source) if several else source

    def _pair(self, pair: nodes.Pair) -> str:
        key = constant_of(pair.key)
        if isinstance(key, (bool, int, float)):
            source = literal(operators.key_text(key))
        elif isinstance(key, str):
            source = literal(key)
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
                rest.append(self.names.constant(COMPARE[operand.op]))
                rest.append(f"lambda: {self.write(operand.expr)}")
            return self._call(operators.chain, first, *rest)
        operand = node.ops[0]
        second = self.write(operand.expr)
        if operand.op in ("eq", "ne") and (_exact(node.expr) or _exact(operand.expr)):
            return f"({first} {'==' if operand.op == 'eq' else '!='} {second})"
        return self._call(COMPARE[operand.op], first, second)

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
                keys.append(literal(node.attr))
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
        return self._operation(FILTERS[node.name], node, self.write(node.node))

    def _operation(self, operation: Operation, node: nodes.Filter | nodes.Test | nodes.Call, *first: str) -> str:
        arguments = (*node.args, *(keyword.value for keyword in node.kwargs))
        # Constant arguments were checked when the expression was analysed.
        checked = not any(isinstance(constant_of(each), nodes.Node) for each in arguments)
        code = operation.code if checked else operation.call
        return self._call(code, *first, *self._arguments(node))

    def _arguments(self, node: nodes.Filter | nodes.Test | nodes.Call) -> list[str]:
        named = [f"{identifier(str(keyword.key), '')}={self.write(keyword.value)}" for keyword in node.kwargs]
        return [*map(self.write, node.args), *named]

    def call_of(self, code: Callable[..., Any], node: nodes.Call) -> str:
        """Return a call of this code with the arguments of another."""
        return self._call(code, *self._arguments(node))

    def test_of(self, node: nodes.Test) -> str:
        if node.name in SOFT_TESTS:
            helper = operators.defined if node.name == "defined" else operators.undefined
            return self._call(helper, self._soft(node.node))
        inline = _INLINE_TESTS.get(node.name)
        if inline is not None and not _is_literal(node.node):
            return inline.format(self.write(node.node))
        return self._operation(TESTS[node.name], node, self.write(node.node))

    def function_of(self, node: nodes.Call) -> str:
        assert isinstance(node.node, nodes.Name)
        name = node.node.name
        if name in self.called:
            return f"{self.names.name(name)}({', '.join(self._arguments(node))})"
        return self._operation(FUNCTIONS_OF_EXPRESSIONS[name], node)


def _exact(node: nodes.Node) -> bool:
    """Tell whether Python's own == with this constant is the language's."""
    value = constant_of(node)
    return value is None or type(value) in (str, int, bool) or _is_null(node)


def _reads(node: nodes.Node) -> bool:
    """Tell whether a node reads a name."""
    return any(not _is_null(each) for each in (node, *node.find_all(nodes.Name)) if isinstance(each, nodes.Name))


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


# ------------------------------------------------------------------------------------------ values


@fast_dataclass()
class Read:
    """A root name that an expression reads.

    ``path`` holds the constant items looked up in it. ``soft`` is set under `default` and
    `is defined`, where the name need not be bound. ``whole`` is set when the binding is just that
    name. ``mark`` is where the name stands in the file, ``expression`` what stands between << >>.
    """

    name: str
    path: tuple[str | int, ...]
    soft: bool
    whole: bool
    mark: Mark
    expression: str

    @property
    def is_body(self) -> bool:
        """Whether it reads the body of the request, or the request as a whole."""
        return self.name == "request" and (not self.path or self.path[0] in ("body", "text"))


@fast_dataclass()
class Value(ABC):
    """A value of a definition, with or without bindings."""

    mark: Mark

    @property
    def constant(self) -> Any:
        """The plain data, or MISSING when the value has bindings."""
        return MISSING

    @property
    def reads(self) -> tuple[Read, ...]:
        """Every root name it reads."""
        return ()

    @property
    def whole(self) -> bool:
        """Whether it is one whole << expression >>."""
        return False

    @property
    def text(self) -> str:
        """The expression as messages show it: what stands between << >>, or ""."""
        return ""

    @abstractmethod
    def source(self, names: Spelling) -> str:
        """Return Python source of one line, which may stand inside a larger expression."""

    def bindings(self) -> Iterator[Value]:
        """Yield the expressions and templates inside, in written order."""
        return iter(())


@fast_dataclass()
class Constant(Value):
    """Data without bindings. It is shared by all runs: nothing changes a value in place."""

    data: Any
    keys: tuple[Mark, ...] = field(default=(), compare=False)  # where those of an object stand

    @property
    def constant(self) -> Any:
        return self.data

    def source(self, names: Spelling) -> str:
        data = self.data
        if data is None or type(data) in (bool, int, str):
            return literal(data)
        return names.constant(data)


@fast_dataclass()
class Expression(Value):
    """One whole << expression >>, whose value keeps its type.

    ``start`` is the offset of the expression's text in the value's; its tree counts from there.
    """

    written: str
    node: nodes.Expr
    found: tuple[Read, ...]

    @property
    def reads(self) -> tuple[Read, ...]:
        return self.found

    @property
    def whole(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return self.written

    def source(self, names: Spelling) -> str:
        return compile_expression(self.node, names)

    @property
    def last_filter(self) -> str:
        """The name of the filter whose result it is, "" for none."""
        return self.node.name if isinstance(self.node, nodes.Filter) else ""

    def numbers(self, names: Spelling) -> str | None:
        """Return source of the integers of a whole `range(...)`, one by one; None for any other expression."""
        return compile_numbers(self.node, names)

    def bindings(self) -> Iterator[Value]:
        yield self


@fast_dataclass()
class Text(Value):
    """A text with bindings in it; always a text. ``parts`` are texts and Expressions in turn."""

    parts: tuple[str | Expression, ...]

    @property
    def reads(self) -> tuple[Read, ...]:
        return tuple(read for part in self.bindings() for read in part.reads)

    @property
    def text(self) -> str:
        return next(self.bindings()).text

    def source(self, names: Spelling) -> str:
        to = names.constant(to_text)
        sources = [literal(part) if isinstance(part, str) else f"{to}({part.source(names)})" for part in self.parts]
        source = f"({' + '.join(sources)})" if len(sources) <= 4 else f"''.join(({', '.join(sources)}))"
        several = sum(not isinstance(part, str) for part in self.parts) > 1
        return f"{names.constant(bounded_text)}({source})" if several else source

    def bindings(self) -> Iterator[Value]:
        return (part for part in self.parts if isinstance(part, Expression))

    @property
    def pieces(self) -> tuple[str, ...]:
        """The author's own text, cut where the bindings stand."""
        pieces = [""]
        for part in self.parts:
            if isinstance(part, str):
                pieces[-1] += part
            else:
                pieces.append("")
        return tuple(pieces)


def _bounded(source: str, items: Sequence[Value], names: Spelling) -> str:
    """Return the source of a list or object, whose size is checked where two of its items may be such."""
    several = sum(not isinstance(item, (Constant, Text)) for item in items) > 1
    return f"{names.constant(operators.bounded)}({source})" if several else source


@fast_dataclass()
class ListValue(Value):
    """A list with bindings somewhere inside."""

    items: tuple[Value, ...]

    @property
    def reads(self) -> tuple[Read, ...]:
        return tuple(read for item in self.items for read in item.reads)

    @property
    def text(self) -> str:
        return next((item.text for item in self.items if item.text), "")

    def source(self, names: Spelling) -> str:
        return _bounded(f"[{', '.join(item.source(names) for item in self.items)}]", self.items, names)

    def bindings(self) -> Iterator[Value]:
        for item in self.items:
            yield from item.bindings()


@fast_dataclass()
class ObjectValue(Value):
    """An object with bindings somewhere inside. Its keys are constant texts."""

    entries: tuple[tuple[str, Value], ...]
    keys: tuple[Mark, ...] = field(default=(), compare=False)  # where they stand

    @property
    def reads(self) -> tuple[Read, ...]:
        return tuple(read for _, entry in self.entries for read in entry.reads)

    @property
    def text(self) -> str:
        return next((entry.text for _, entry in self.entries if entry.text), "")

    def get(self, key: str) -> Value | None:
        """Return the value under a key, None where there is none."""
        return next((entry for name, entry in self.entries if name == key), None)

    def source(self, names: Spelling) -> str:
        inside = ", ".join(f"{literal(key)}: {entry.source(names)}" for key, entry in self.entries)
        return _bounded("{" + inside + "}", [value for _, value in self.entries], names)

    def bindings(self) -> Iterator[Value]:
        for _, entry in self.entries:
            yield from entry.bindings()
