"""Evaluate an expression at once, and explain in its author's words why one failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import nodes

from streamstack.errors import RunError
from streamstack.language.expressions.compile import LOCALS, Expression, Value, compile_expression, compile_source
from streamstack.language.expressions.grammar import SOFT_FILTERS, SOFT_TESTS, constant_of, is_path
from streamstack.language.foreign import PROPERTIES, look_up
from streamstack.language.names import did_you_mean
from streamstack.language.operators import a_kind
from streamstack.language.values import Opaque


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

    def evaluate(self, source: str) -> Any:
        """Return the value of source that was written with this spelling; raises what Python raises."""
        known = {*self.space, *self.roots.values(), *LOCALS}
        # Checked source, without builtins.
        return eval(compile_source(source, "expression", "eval", known), self.space)  # noqa: S307


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
    return spelling.evaluate(source)


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
        return f"{where} has no item {shown}{hint}"
    if isinstance(container, Opaque):
        return f"a {container.kind} has no property {shown}; {container.remedy}"
    if isinstance(container, (list, tuple, str, bytes)):
        if type(key) is int:
            size = len(container)
            return f"{where} has no item {shown}: {a_kind(container)} of {size}"
        advice = look_up(str(key), PROPERTIES)
        instead = f"; write `{place or 'x'} | {advice.name}`" if advice is not None else ""
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
        name = re.sub(r"v_(\d+_)?", "", error.name or "", count=1)  # as runtime/compiler.py spells it
        return f"the name `{name or '?'}` is not bound here"
    if isinstance(error, KeyError):
        return f"item `{error.args[0] if error.args else '?'}` not found"
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


def evaluate(value: Value, variables: Mapping[str, Any]) -> Any:
    """Return a value's data with these variables bound.

    Raises RunError ``template``, in the author's words, for whatever goes wrong.
    """
    spelling = Direct(variables)
    try:
        return spelling.evaluate(value.source(spelling))
    except RunError:
        raise
    except Exception as error:
        raise RunError("template", explain(error, value, variables)) from error
