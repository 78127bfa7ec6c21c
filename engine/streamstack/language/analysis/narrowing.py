"""What is known where a condition is true, or false: names that are not null, their kinds, their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from jinja2 import nodes

from streamstack.language.expressions.grammar import SOFT_FILTERS, constant_of, path_base
from streamstack.language.shapes import NUMBERS, Shape
from streamstack.language.values import MISSING

#: The shapes of the names that can be read at one place.
Env = dict[str, Shape]
ShapeOf = Callable[[nodes.Node, Env], Shape]

_MIRRORED: Final = {"lt": "gt", "lteq": "gteq", "gt": "lt", "gteq": "lteq"}
_OPPOSITE: Final = {
    "lt": "gteq",
    "lteq": "gt",
    "gt": "lteq",
    "gteq": "lt",
    "eq": "ne",
    "ne": "eq",
    "in": "notin",
    "notin": "in",
}
#: The kinds that a test for a type lets through.
TYPE_TESTS: Final = {
    "boolean": frozenset({"boolean"}),
    "integer": frozenset({"integer"}),
    "float": frozenset({"decimal"}),
    "decimal": frozenset({"decimal"}),
    "number": NUMBERS,
    "string": frozenset({"text"}),
    "text": frozenset({"text"}),
    "mapping": frozenset({"object"}),
    "object": frozenset({"object"}),
    "list": frozenset({"list"}),
    "iterable": frozenset({"list", "object", "text"}),
    "sequence": frozenset({"list", "text"}),
    "timestamp": frozenset({"timestamp"}),
    "date": frozenset({"date"}),
}


def narrow(  # noqa: C901  (one branch a kind of node)
    node: nodes.Node, env: Env, shape_of: ShapeOf, *, truth: bool
) -> Env:
    """Return what is known where an expression is true (or false).

    Args:
        node: The condition.
        env: What is known before.
        shape_of: Returns the shape of an expression in an environment, without findings.
        truth: Whether it is true.
    """
    result = dict(env)
    if truth:
        for name, shape in env.items():
            if shape.unless is not None and shape.unless == node:
                result[name] = shape.sure
    if isinstance(node, nodes.Not):
        return narrow(node.node, result, shape_of, truth=not truth)
    if isinstance(node, (nodes.And, nodes.Or)):
        both = isinstance(node, nodes.And) == truth
        first = narrow(node.left, result, shape_of, truth=truth)
        if both:
            return narrow(node.right, first, shape_of, truth=truth)
        second = narrow(node.right, narrow(node.left, result, shape_of, truth=not truth), shape_of, truth=truth)
        return join_env(first, second) or result
    if isinstance(node, nodes.Test):
        _narrow_test(node, result, truth=truth)
    elif isinstance(node, nodes.Compare):
        _narrow_compare(node, result, truth=truth)
    elif isinstance(node, nodes.Filter) and node.name in ("length", "count") and node.node is not None:
        if truth:
            change(result, node.node, lambda shape: replace(shape.sure, filled=True))
    elif isinstance(node, nodes.Filter) and node.name in SOFT_FILTERS and node.node is not None:
        if truth and not _default_of(node, default=True):
            _reached(node.node, result)
    elif path_of(node) is not None:
        shape = shape_of(node, result)
        if isinstance(shape.condition, nodes.Node):
            result = narrow(shape.condition, result, shape_of, truth=truth)
        if truth:
            change(result, node, lambda shape: replace(shape.sure, filled=True))
        else:
            change(result, node, lambda shape: replace(shape, condition=None))
    return result


def _reached(node: nodes.Node, env: Env) -> None:
    """Note that a path leads to something: neither it nor what it passes is null."""
    while isinstance(node, (nodes.Getattr, nodes.Getitem, nodes.Name, nodes.Or)):
        if isinstance(node, nodes.Or):  # (auth or {}).sub
            node = node.left
            continue
        change(env, node, lambda shape: shape.sure)
        if isinstance(node, nodes.Name):
            return
        node = node.node


def _narrow_test(node: nodes.Test, env: Env, *, truth: bool) -> None:
    name, about = node.name, node.node
    if name in ("none", "null"):
        if truth:
            change(env, about, lambda shape: replace(shape, kinds=frozenset(), null=shape.null or "it is null"))
        else:
            _reached(about, env)
    elif name in ("defined", "undefined"):
        if truth == (name == "defined"):
            change(env, about, lambda shape: shape.sure if shape.absent else shape)
            if isinstance(about, (nodes.Getattr, nodes.Getitem)):
                _reached(about.node, env)
    elif name in TYPE_TESTS:
        kinds = TYPE_TESTS[name]
        if truth:
            _reached(about, env)
            change(env, about, lambda shape: shape.only(kinds))
        else:
            change(env, about, lambda shape: shape.only(kinds, without=True))
    elif name == "empty":
        if not truth:
            _reached(about, env)
            change(env, about, lambda shape: replace(shape.sure, filled=True))
    elif truth and name not in ("false", "even", "odd"):
        _reached(about, env)


def _narrow_compare(node: nodes.Compare, env: Env, *, truth: bool) -> None:
    if len(node.ops) != 1:
        left = node.expr
        for operand in node.ops if truth else ():
            _narrow_pair(left, operand.op, operand.expr, env)
            left = operand.expr
        return
    operand = node.ops[0]
    op = operand.op
    if not truth:
        op = _OPPOSITE[op]
    _narrow_pair(node.expr, op, operand.expr, env)


def _narrow_pair(left: nodes.Node, op: str, right: nodes.Node, env: Env) -> None:
    if op == "in":
        key = constant_of(left)
        if isinstance(key, str) and path_of(right) is not None:
            change(env, nodes.Getattr(right, key, "load"), lambda shape: shape.sure)
            if path_of(right) == ("sent",):
                sent = nodes.Getattr(nodes.Name("input", "load"), key, "load")
                change(env, sent, lambda shape: shape.sure)
        if isinstance(right, (nodes.List, nodes.Tuple)) and not any(_is_null(each) for each in right.items):
            _reached(left, env)
        return
    if op == "notin":
        return
    for one, way, other in ((left, op, right), (right, _MIRRORED.get(op, op), left)):
        _narrow_side(one, way, constant_of(other), env, null=_is_null(other))


def _narrow_side(node: nodes.Node, op: str, constant: Any, env: Env, *, null: bool) -> None:
    if null:
        if op == "eq":
            change(env, node, lambda shape: replace(shape, kinds=frozenset(), null=shape.null or "it is null"))
        elif op == "ne":
            _reached(node, env)
        return
    known = not isinstance(constant, nodes.Node) and constant is not None
    if isinstance(node, nodes.Filter) and node.node is not None:
        if node.name in ("length", "count") and known and type(constant) in (int, float):
            least = {"gt": constant + 1, "gteq": constant, "eq": constant}.get(
                op, 1 if (op, constant) == ("ne", 0) else 0
            )
            if least >= 1:
                change(env, node.node, lambda shape: replace(shape.sure, filled=True))
        elif node.name in SOFT_FILTERS and known and not _holds(_default_of(node, default=MISSING), op, constant):
            _reached(node.node, env)
        return
    if op in _MIRRORED or (op == "eq" and known):
        _reached(node, env)
    if not known:
        if op == "ne" or op in _MIRRORED:
            change(env, node, lambda shape: replace(shape, low=None, high=None))
        return
    if type(constant) in (int, float):
        change(env, node, lambda shape: _bounded(shape, op, constant))


def change(env: Env, node: nodes.Node, changed: Callable[[Shape], Shape]) -> None:
    """Replace the shape of a path in an environment; other expressions have none to replace."""
    path = path_of(node)
    if path is not None and path[0] in env and all(isinstance(key, str) for key in path):
        env[str(path[0])] = env[str(path[0])].with_field(tuple(map(str, path[1:])), changed)


def _bounded(shape: Shape, op: str, constant: float) -> Shape:
    """Return the shape of a number that compares like this with a constant."""
    low, high = shape.low, shape.high
    step = 1 if shape.is_only("integer") else 0
    if op in ("gt", "gteq"):
        least = constant + (step if op == "gt" else 0)
        if op == "gt" and not step and constant == 0:
            return replace(shape, low=None)
        low = least if low is None else max(low, least)
    elif op in ("lt", "lteq"):
        most = constant - (step if op == "lt" else 0)
        high = most if high is None else min(high, most)
    elif op == "eq":
        low = high = constant
    elif constant == 0:  # it is not 0, which is all that a division asks
        return replace(shape, low=None, high=None)
    return replace(shape, low=low, high=high)


def _holds(value: Any, op: str, constant: Any) -> bool:
    """Tell whether the default of a value may pass a comparison: then nothing is known of the value."""
    if value is MISSING or isinstance(value, nodes.Node):
        return True
    try:
        found: dict[str, bool] = {
            "eq": value == constant, "ne": value != constant, "lt": value < constant, "lteq": value <= constant,
            "gt": value > constant, "gteq": value >= constant,
        }  # fmt: skip
        return found.get(op, True)
    except TypeError:
        return value == constant if op == "eq" else value != constant if op == "ne" else True


def _default_of(node: nodes.Filter, *, default: Any) -> Any:
    """Return the constant that `default` puts in place of null."""
    other = node.args[0] if node.args else next((each.value for each in node.kwargs if each.key == "other"), None)
    found = "" if other is None else None if _is_null(other) else constant_of(other)
    return default if isinstance(found, nodes.Node) else found


def _is_null(node: nodes.Node) -> bool:
    return (isinstance(node, nodes.Name) and node.name == "null") or (
        isinstance(node, nodes.Const) and node.value is None
    )


def path_of(node: nodes.Node) -> tuple[str | int, ...] | None:
    """Return the name and the constant keys that a path consists of; None for any other expression."""
    base = path_base(node)
    if not isinstance(base, nodes.Name):
        return None
    keys: list[str | int] = []
    while node is not base:
        if isinstance(node, nodes.Getattr):
            keys.append(node.attr)
        else:
            assert isinstance(node, nodes.Getitem)
            key = constant_of(node.arg)
            if type(key) is not str and type(key) is not int:
                return None
            keys.append(key)
        node = node.node
    return (base.name, *reversed(keys))


def names_in(condition: Any) -> set[str]:
    """Return the names that a condition is about."""
    if not isinstance(condition, nodes.Node):
        return set()
    return {each.name for each in (condition, *condition.find_all(nodes.Name)) if isinstance(each, nodes.Name)}


def join_env(one: Env | None, other: Env | None) -> Env | None:
    """Return what is known where two paths meet."""
    if one is None or other is None or one is other:
        return other if one is None else one
    result = {}
    for name, shape in one.items():
        same = other.get(name)
        result[name] = shape if same is None else shape | same
    return {**other, **result}
