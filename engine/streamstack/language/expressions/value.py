"""Values of a definition: constants, expressions, templates; their evaluation, and errors that say what was wrong."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import nodes

from streamstack.errors import Mark, RunError
from streamstack.language.expressions.compile import (
    SOFT_FILTERS,
    SOFT_TESTS,
    Spelling,
    compile_expression,
    compile_numbers,
    constant_of,
    is_path,
    literal,
)
from streamstack.language.operators import a_kind
from streamstack.language.suggest import did_you_mean
from streamstack.language.values import MISSING, Opaque, to_text
from streamstack.records import record


@record()
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


@record()
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


@record()
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


@record()
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

    def numbers(self, names: Spelling) -> str | None:
        """Return source of the integers of a whole `range(...)`, one by one; None for any other expression."""
        return compile_numbers(self.node, names)

    def bindings(self) -> Iterator[Value]:
        yield self


@record()
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
        sources = [
            repr(part) if isinstance(part, str) else f"{to}({part.source(names)})"
            for part in self.parts
        ]
        if len(sources) <= 4:
            return f"({' + '.join(sources)})"
        return f"''.join(({', '.join(sources)}))"

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


@record()
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
        return f"[{', '.join(item.source(names) for item in self.items)}]"

    def bindings(self) -> Iterator[Value]:
        for item in self.items:
            yield from item.bindings()


@record()
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
        inside = ", ".join(f"{key!r}: {entry.source(names)}" for key, entry in self.entries)
        return "{" + inside + "}"

    def bindings(self) -> Iterator[Value]:
        for _, entry in self.entries:
            yield from entry.bindings()


# ----------------------------------------------------------------------------------------- explain


@dataclass(slots=True)
class Direct:
    """Spelling for evaluating one expression over given values."""

    values: Mapping[str, Any]
    space: dict[str, Any] = field(default_factory=lambda: {"__builtins__": {}})
    roots: dict[str, str] = field(default_factory=dict)

    def name(self, root: str) -> str:
        name = self.roots.get(root)
        if name is None:
            name = self.roots[root] = f"v{len(self.roots)}"
            if root in self.values:
                self.space[name] = self.values[root]
        return name

    def path(self, root: str, item: str) -> str | None:
        return None

    def constant(self, value: object) -> str:
        name = f"c{len(self.space)}"
        self.space[name] = value
        return name


def explain(error: BaseException, value: Value, values: Mapping[str, Any]) -> str:
    """Return what went wrong in a value's expressions, and what to write instead.

    ``values`` are those of the names the value reads, without the unbound ones. Expressions have
    no effects, so the failing part is found by evaluating the parts again.
    """
    if isinstance(error, RunError):
        return error.message
    for binding in value.bindings():
        if isinstance(binding, Expression):
            found = _failing(binding.node, values)
            if found is not None:
                return _describe(*found, values)
    return _general(error)


def failing_expression(value: Value, values: Mapping[str, Any]) -> Expression | None:
    """Return the first expression of a value that fails over these values."""
    for binding in value.bindings():
        if isinstance(binding, Expression) and _failure(binding.node, values) is not None:
            return binding
    return None


def explain_node(error: BaseException, node: nodes.Node, values: Mapping[str, Any]) -> str:
    """Return what went wrong in one expression's tree (see explain)."""
    found = _failing(node, values)
    return _describe(*found, values) if found is not None else _general(error)


def evaluate_node(node: nodes.Node, values: Mapping[str, Any]) -> Any:
    """Return the value of an expression's tree; raises what Python raises."""
    spelling = Direct(values)
    source = compile_expression(node, spelling)
    # Source that we have written ourselves, without builtins.
    return eval(source, spelling.space)  # noqa: S307


def _failure(node: nodes.Node, values: Mapping[str, Any]) -> Exception | None:
    try:
        evaluate_node(node, values)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is what is looked for)
        return error
    return None


def _failing(node: nodes.Node, values: Mapping[str, Any]) -> tuple[nodes.Node, Exception] | None:
    """Return the innermost failing part of a tree, with its error."""
    error = _failure(node, values)
    if error is None:
        return None
    for child in _evaluated(node, values):
        found = _failing(child, values)
        if found is not None:
            return found
    return node, error


def _evaluated(node: nodes.Node, values: Mapping[str, Any]) -> list[nodes.Node]:
    """Return the parts of a failing expression that were evaluated, in order."""
    if isinstance(node, nodes.CondExpr):
        if _failure(node.test, values) is not None:
            return [node.test]
        taken = node.expr1 if evaluate_node(node.test, values) else node.expr2
        return [] if taken is None else [taken]
    if isinstance(node, nodes.Pair):
        return [node.key, node.value]
    if isinstance(node, (nodes.Filter, nodes.Test)):
        soft = node.name in (SOFT_FILTERS if isinstance(node, nodes.Filter) else SOFT_TESTS)
        first = [] if node.node is None or (soft and is_path(node.node)) else [node.node]
        return [*first, *node.args, *(keyword.value for keyword in node.kwargs)]
    if isinstance(node, nodes.Call):
        return [*node.args, *(keyword.value for keyword in node.kwargs)]
    parts: list[nodes.Node] = []
    for child in node.iter_child_nodes():
        if isinstance(child, nodes.Operand):
            parts.append(child.expr)
        elif isinstance(child, nodes.Pair):
            parts += [child.key, child.value]
        elif isinstance(child, nodes.Slice):
            parts += [one for one in (child.start, child.stop, child.step) if one is not None]
        else:
            parts.append(child)
    return parts


def _describe(node: nodes.Node, error: Exception, values: Mapping[str, Any]) -> str:
    if isinstance(error, RunError):
        return error.message
    if isinstance(node, nodes.Name):
        return f"the name `{node.name}` is not bound here{did_you_mean(node.name, values)}"
    if isinstance(node, (nodes.Getattr, nodes.Getitem)):
        key = node.attr if isinstance(node, nodes.Getattr) else evaluate_node(node.arg, values)
        return _describe_look_up(node.node, evaluate_node(node.node, values), key)
    if isinstance(node, (nodes.Filter, nodes.Test)):
        what = "filter" if isinstance(node, nodes.Filter) else "test"
        if node.node is not None:
            left = a_kind(evaluate_node(node.node, values))
            return f"the {what} `{node.name}` can't work on {left} with these arguments"
    return _general(error)


def _describe_look_up(node: nodes.Node, container: Any, key: Any) -> str:
    place = written(node)
    where = f"`{place}`" if place else "the value before it"
    shown = f"`{key}`" if isinstance(key, (str, int)) else a_kind(key)
    if container is None:
        return f"{where} is null, so it has no item {shown}; write `| default(...)`"
    if isinstance(container, dict):
        if not isinstance(key, (str, int)):
            return f"{a_kind(key)} can't be the name of an item in {where}"
        close = did_you_mean(str(key), [name for name in container if isinstance(name, str)])
        hint = close or ("; it is empty" if not container else "")
        return f"there is no item {shown} in {where}{hint}"
    if isinstance(container, Opaque):
        return f"a {container.kind} has no property {shown}; use `collect` to read its items"
    if isinstance(container, (list, tuple, str, bytes)):
        if type(key) is int:
            size = len(container)
            return f"there is no item {shown} in {where}: {a_kind(container)} of {size}"
        instead = ""
        if key in ("length", "size", "count", "first", "last"):
            instead = f"; write `{place or 'x'} | {'length' if key in ('size', 'count') else key}`"
        return f"{where} is {a_kind(container)}, so it has no item {shown}{instead}"
    return f"{where} is {a_kind(container)}, so it has no item {shown}"


def written(node: nodes.Node) -> str:
    """Return a path as its author wrote it, or "" for anything else."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{inside}.{node.attr}" if (inside := written(node.node)) else ""
    if isinstance(node, nodes.Getitem):
        inside, key = written(node.node), constant_of(node.arg)
        if not inside:
            return ""
        if isinstance(key, (str, int)):
            return f'{inside}["{key}"]' if isinstance(key, str) else f"{inside}[{key}]"
        return f"{inside}[{index}]" if (index := written(node.arg)) else ""
    return ""


def _general(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "the value is nested too deeply"
    if isinstance(error, NameError):
        name = re.sub(r"v_(\d+_)?", "", error.name or "", count=1)  # as runtime/code.py spells it
        return f"the name `{name or '?'}` is not bound here"
    if isinstance(error, KeyError):
        return f"there is no item `{error.args[0] if error.args else '?'}`"
    if isinstance(error, IndexError):
        return "the list or text is shorter than that"
    return f"the expression can't be evaluated ({kind_of_error(error)})"


def kind_of_error(error: BaseException) -> str:
    """Return a word for an error of Python's that nothing better is known about."""
    words = {TypeError: "kinds that don't go together", ValueError: "a value out of range"}
    for known, word in words.items():
        if isinstance(error, known):
            return word
    return "an internal error"


# ---------------------------------------------------------------------------------------- evaluate


def evaluate(value: Value, variables: Mapping[str, Any]) -> Any:
    """Return a value's data with these variables bound.

    Raises RunError ``template``, in the author's words, for whatever goes wrong.
    """
    spelling = Direct(variables)
    try:
        # Source that we have written ourselves, without builtins.
        return eval(value.source(spelling), spelling.space)  # noqa: S307
    except RunError:
        raise
    except Exception as error:
        raise RunError("template", explain(error, value, variables)) from error
