"""The shapes of expressions: what a binding gives, where it looks up nothing, where it fails on null or on a kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from jinja2 import nodes

from streamstack.errors import Mark, Replacement, RunError, replace_word
from streamstack.language import foreign, shapes
from streamstack.language.analysis.names import property_mark
from streamstack.language.analysis.narrowing import TYPE_TESTS, Env, change, narrow, path_of
from streamstack.language.analysis.state import Reports
from streamstack.language.expressions import Read, Template, Text, Value
from streamstack.language.expressions.compile import BINARY, COMPARE, Expression, ListValue, ObjectValue
from streamstack.language.expressions.grammar import SOFT_FILTERS, SOFT_TESTS, constant_of
from streamstack.language.filters import FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS, Operation
from streamstack.language.kinds import Kind
from streamstack.language.names import did_you_mean, listed, nearest_and_sure
from streamstack.language.shapes import ANY, BOOLEAN, COUNT, KINDS, NULL, NUMBERS, TEXT, Shape, listing, record
from streamstack.language.values import MISSING
from streamstack.spec import Constant

#: What clients send who say who they are.
_SENT: Final = frozenset({("headers",), ("cookies",), ("query",)})
_SCALARS: Final = KINDS - {"object", "list", "stream", "file"}
_MOMENTS: Final = frozenset({"timestamp", "date"})
#: How messages write the operators.
_SIGNS: Final[dict[type[nodes.Node], str]] = {
    nodes.Add: "+",
    nodes.Sub: "-",
    nodes.Mul: "*",
    nodes.Div: "/",
    nodes.FloorDiv: "//",
    nodes.Mod: "%",
    nodes.Pow: "**",
}
_COMPARES: Final = {"lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in"}
#: What a task lacks, by the reserved name that is read.
_NOT_IN_TASKS: Final = {
    "input": "has no inputs",
    "sent": "has no inputs",
    "request": "has no request",
    "experiment": "takes part in no experiment",
}
_LENGTHS: Final = frozenset({"length", "size", "count", "len"})
#: Filters whose attribute names a field of the items, by the position of that argument.
_ATTRIBUTES: Final = {
    "map": -1, "sort": 2, "sortBy": 0, "groupBy": 0, "groupby": 0, "indexBy": 0, "selectattr": 0, "rejectattr": 0,
    "unique": 1, "sum": 0, "mean": 0, "min": 0, "max": 0, "join": 1,
}  # fmt: skip
_OF_NUMBERS: Final = frozenset({"sum", "mean", "percentile"})
#: Filters whose null comes of an empty list only.
_OF_EMPTY: Final = frozenset({"first", "last", "min", "max", "mean", "percentile", "random"})
#: Filters of these that pass null over.
_PASS_NULL: Final = frozenset({"sort", "sortBy", "merge"})
_ORDERED: Final = frozenset({"min", "max", "sort", "sortBy"})
#: Filters that read a number or a time from a text, which need not be one.
_READ: Final = {
    "toInteger": "number", "int": "number", "toDecimal": "number", "float": "number",
    "date": "timestamp or date", "addTime": "timestamp or date", "toDate": "timestamp or date",
    "toTimestamp": "timestamp or date",
}  # fmt: skip
_KEEP_FILLED: Final = frozenset({"sort", "sortBy", "unique", "reverse", "map"})


def _kinds_of(left: str, right: str, operator: type[nodes.Node]) -> frozenset[str]:
    """Return the kinds of the result of an operator on two kinds; none where it fails."""
    if left in NUMBERS and right in NUMBERS:
        if operator is nodes.Div:
            return frozenset({"decimal"})
        if operator is nodes.Pow:
            return NUMBERS
        return frozenset({"integer"}) if left == right == "integer" else frozenset({"decimal"})
    if operator is nodes.Add and left == right and left in ("text", "list"):
        return frozenset({left})
    if operator is nodes.Mul and "integer" in (left, right):
        thing = right if left == "integer" else left
        return frozenset({thing}) if thing in ("text", "list") else frozenset()
    return frozenset()


def _comparable(left: str, right: str) -> bool:
    if left in NUMBERS and right in NUMBERS:
        return True
    if left in _MOMENTS and right in _MOMENTS:
        return True
    return left == right and left in ("text", "boolean", "bytes", "list")


class Evaluator:
    """Works out shapes of the values of one definition, and reports what fails in them.

    ``env`` has the shapes of the names at the present step; what was reported once is assumed to hold from there on.
    """

    def __init__(
        self, reports: Reports, *, is_task: bool = False, unsent: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.env: Env = {}
        self.dead = False  # the present step never runs: only its paths are checked
        self.caught = False  # what fails here is handled: only what surely fails is reported
        self._reports = reports
        self._is_task = is_task
        self._unsent = unsent  # inputs that `sent` does not have, and where they are
        self._value: Value | None = None
        self._names: list[nodes.Expr] = []  # the positional arguments of the present filter

    # -- values

    def value(self, value: Value, env: Env) -> Shape:
        """Return the shape of a value."""
        constant = value.constant
        if constant is not MISSING:
            return shapes.of_constant(constant)
        if isinstance(value, ListValue):
            return listing(shapes.unite([self.value(each, env) for each in value.items]), filled=bool(value.items))
        if isinstance(value, ObjectValue):
            return record({key: self.value(each, env) for key, each in value.entries})
        with self.at(value, env):
            if isinstance(value, Expression):
                return self.of(value.node)
            if isinstance(value, Text):
                for part in value.bindings():
                    self._value = part
                    if isinstance(part, Expression):
                        self._as_text(part.node)
            elif isinstance(value, Template):
                for read in value.reads:
                    self._follow(read)
        return TEXT

    def narrowed(self, value: Value, env: Env, *, truth: bool) -> Env:
        """Return what is known where a condition is true, or false."""
        if not isinstance(value, Expression):
            return dict(env)
        with self.at(value, env):
            result = narrow(value.node, env, self._soft_shape, truth=truth)
        if "auth" in result:
            # A client that sends credentials is not anonymous, and a look-up that did not fail has found something.
            sent = truth and any(read.name == "request" and read.path[:1] in _SENT for read in value.reads)
            if sent or any(read.name == "auth" and read.path and not read.soft for read in value.reads):
                result["auth"] = result["auth"].sure
        return result

    def narrowed_by_case(self, value: Value, label: str, env: Env) -> Env:
        """Return what is known in a case of `switch`."""
        if not isinstance(value, Expression) or label == "null":
            return dict(env)
        equal = nodes.Compare(value.node, [nodes.Operand("eq", nodes.Const(label))])
        return narrow(equal, env, self._soft_shape, truth=True)

    @contextmanager
    def at(self, value: Value, env: Env) -> Iterator[None]:
        """Work on the expressions of a value, in a state."""
        before = self._value, self.env
        self._value, self.env = value, env
        yield
        self._value, self.env = before

    def _soft_shape(self, node: nodes.Node, env: Env) -> Shape:
        """Return the shape of an expression a second time, without findings."""
        before, self._reports = self._reports, Reports(frozenset())
        with self._within(env):
            shape = self.of(node, soft=True)
        self._reports = before
        return shape

    @contextmanager
    def _within(self, env: Env) -> Iterator[None]:
        before, self.env = self.env, env
        yield
        self.env = before

    # -- findings

    def show(self, node: nodes.Node) -> str:
        """Return how messages call an expression."""
        path = path_of(node)
        if path is not None:
            return str(path[0]) + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path[1:])
        if isinstance(node, nodes.Filter) and node.node is not None:
            inner = self.show(node.node)
            return f"{inner} | {node.name}" if inner else ""
        return ""

    def mark(self, node: nodes.Node) -> Mark:
        """Return where an expression stands: at the first name in it, else at the value."""
        assert self._value is not None
        name = next((n for n in (node, *node.find_all(nodes.Name)) if isinstance(n, nodes.Name)), None)
        if name is not None:
            path = path_of(node)
            reads = [read for read in self._value.reads if read.name == name.name]
            same = [read for read in reads if path is not None and read.path[: len(path) - 1] == path[1:]]
            for read in (*same, *reads):
                return read.mark
        return self._value.mark

    def may_be_null(self, node: nodes.Node, shape: Shape, what: str, *, sure: bool = False) -> None:
        """Report a value that may be null where that fails; from here on it is taken not to be."""
        shown = self.show(node)
        verb = "is" if shape.is_null else "may be"
        named = f"`{shown}`" if shown else "this value"
        hint = f"write `{shown or '(...)'} | default(...)`"
        if path_of(node) is not None:
            hint += f", or put `when: << {shown} is not none >>` beside the step"
        if not self.dead and not self.caught:
            self._reports.add("may-be-null", self.mark(node), f"{named} {verb} null, and {what}: {shape.null}", hint)
        self.assume(node)

    def _auth_may_be_null(self, node: nodes.Node, shape: Shape) -> None:
        """Report a look-up in `auth`, which is null for anonymous clients."""
        shown = self.show(node)
        if not self.dead:
            self._reports.add(
                "auth-may-be-null",
                self.mark(node),
                f"`{shown}` fails for anonymous clients: {shape.null}, so `auth` may be null",
                f"write `{shown} | default(...)`, or put `when: << {shown} is defined >>` beside the step",
            )

    def wrong(self, node: nodes.Node, message: str, hint: str = "", *, sure: bool = True) -> None:
        """Report a value of a wrong kind: an error where no value fits, else a warning."""
        if not self.dead and (sure or not self.caught):
            self._reports.add("wrong-type", self.mark(node), message, hint or None, sure=sure)

    def assume(self, node: nodes.Node) -> None:
        """Take a path as not null from here on."""
        change(self.env, node, lambda shape: shape.sure)

    def not_null(self, node: nodes.Node, what: str) -> Shape:
        """Return the shape of an operand that must not be null."""
        shape = self.of(node)
        if shape.null:
            self.may_be_null(node, shape, what)
        return shape.sure

    def fits(self, node: nodes.Node, shape: Shape, kinds: Collection[str], what: str, hint: str = "") -> Shape:
        """Check that a value has one of some kinds; return its shape as far as it does."""
        # Streams have findings of their own.
        if shape.kinds is None or not shape.kinds or shape.kinds <= {*kinds, "stream"}:
            return shape
        wrong = sorted(shape.kinds - set(kinds) - {"stream"})
        sure = shape.kinds.isdisjoint(kinds)
        shown = self.show(node)
        named = f"`{shown}`" if shown else "this value"
        self.wrong(node, f"{named} {'is' if sure else 'may be'} {an(wrong)}, and {what}", hint, sure=sure)
        return ANY if sure else shape.only(frozenset(kinds))

    # -- expressions

    def of(self, node: nodes.Node, *, soft: bool = False) -> Shape:
        """Return the shape of an expression; ``soft`` where a path may lead nowhere."""
        if isinstance(node, nodes.Const):
            return shapes.of_constant(node.value)
        if isinstance(node, nodes.Name):
            return NULL if node.name == "null" else self.env.get(node.name, ANY)
        handler = _HANDLERS.get(type(node))
        if handler is not None:
            return handler(self, node)  # type: ignore[no-any-return]
        if isinstance(node, (nodes.Getattr, nodes.Getitem)):
            return self._look_up(node, soft=soft)
        if isinstance(node, nodes.BinExpr):
            return self._operate(node)
        return ANY

    def _look_up(self, node: nodes.Getattr | nodes.Getitem, *, soft: bool) -> Shape:
        if isinstance(node, nodes.Getattr):
            return self.item(self.of(node.node, soft=soft), node.attr, node, soft=soft)
        container = self.of(node.node, soft=soft)
        if isinstance(node.arg, nodes.Slice):
            for bound in (node.arg.start, node.arg.stop, node.arg.step):
                if bound is not None:
                    self.fits(
                        bound, self.not_null(bound, "a slice needs integers"), {"integer"}, "a slice needs integers"
                    )
            container = self._container(container, node, soft=soft)
            kinds = {"text", "list", "bytes"}
            return replace(
                self.fits(node.node, container, kinds, "a slice needs a text or a list"), filled=False, constant=MISSING
            )
        key = constant_of(node.arg)
        if type(key) is str or type(key) is int:
            return self.item(container, key, node, soft=soft)
        self.not_null(node.arg, "a look-up with null fails")
        container = self._container(container, node, soft=soft)
        return container.items or ANY if container.is_only("list") else ANY

    def _container(self, container: Shape, node: nodes.Getattr | nodes.Getitem, *, soft: bool) -> Shape:
        if container.null and not soft and path_of(node.node) == ("auth",):
            self._auth_may_be_null(node, container)
        elif container.null and not soft:
            self.may_be_null(node.node, container, "looking something up in null fails")
        return container.sure

    def item(self, container: Shape, key: str | int, node: nodes.Getattr | nodes.Getitem, *, soft: bool) -> Shape:
        """Return the shape of an item of a value; report one that it does not have."""
        was_null = container.null
        if container.is_null and soft:
            return container
        known = container.kinds is None or not container.kinds.isdisjoint({"object", "stream", "file"})
        if known or isinstance(key, int):
            container = self._container(container, node, soft=soft)
        found = self._found(container.sure, key, node, soft=soft)
        if found.absent and not soft:
            shown = self.show(node)
            if not self.dead and not self.caught:
                hint = f"write `{shown} | default(...)`" if shown else ""
                named = f"`{shown}`" if shown else "what is looked up here"
                message = f"{named} may be missing: {found.null}"
                self._reports.add("may-be-null", self.mark(node), message, hint or None)
            self.assume(node)
            return found.sure
        return found.or_null(was_null) if was_null and soft else found

    def _found(self, container: Shape, key: str | int, node: nodes.Getattr | nodes.Getitem, *, soft: bool) -> Shape:
        if isinstance(key, int):
            if container.is_only("list", "text") and not soft and not container.filled:
                return (container.items or ANY).missing("the list may be empty")
            if container.kinds and container.kinds.isdisjoint({"list", "text", "bytes", "object"}):
                shown = self.show(node.node)
                message = (
                    f"{f'`{shown}`' if shown else 'this value'} is {an(sorted(container.kinds))}, which has no items"
                )
                self.wrong(node, message, "look up an item in a list, a text or an object")
            return container.items or ANY if container.is_only("list") else ANY
        kinds = container.kinds
        if kinds is None:
            return container.field(key) or ANY
        if kinds.isdisjoint({"object", "stream", "file"}):
            if not soft or container.title:
                self._no_item(container, key, node)
            return ANY
        field = container.field(key)
        if field is not None:
            return field
        self._no_field(container, key, node, soft=soft)
        return ANY

    def _read_at(self, node: nodes.Node) -> tuple[Read | None, int]:
        path = path_of(node)
        assert self._value is not None
        for read in self._value.reads if path is not None else ():
            if path is not None and read.name == path[0] and read.path[: len(path) - 1] == path[1:]:
                return read, len(path) - 2
        return None, 0

    def _key_mark(self, node: nodes.Node) -> Mark:
        read, index = self._read_at(node)
        return property_mark(read, index) if read is not None else self.mark(node)

    def _no_item(self, container: Shape, key: str, node: nodes.Getattr | nodes.Getitem) -> None:
        """Report a look-up by name in a value that is not an object."""
        shown = self.show(node.node)
        owner = f"`{shown}`" if shown else "this value"
        if container.is_only("list"):
            message = f"{owner} is a list, which has no `{key}`"
            hint = "write " + (
                f"`{shown} | length`" if key in _LENGTHS else f"`{shown}[0]` for an item, or loop over it"
            )
        elif container.is_only("text") and key in _LENGTHS:
            message, hint = f"{owner} is a text, which has no `{key}`", f"write `{shown} | length`"
        else:
            kinds = container.title or listed(sorted(container.kinds or ()))
            message = f"{owner} is a value of type {kinds}, which has no `{key}`"
            hint = f"read {owner} itself"
        replacement: Replacement | None = None
        advice = foreign.look_up(key, foreign.PROPERTIES) if shown else None
        if advice is not None:
            hint = f"write `{shown} | {advice.name}`"
            read, index = self._read_at(node)
            mark = self._key_mark(node)
            if read is not None and index == len(read.path) - 1 and mark != read.mark:
                dot = Mark(mark.file, mark.line, mark.column - 1)
                replacement = replace_word(dot, f".{key}", f" | {advice.name}")
        self._reports.add("unknown-property", self._key_mark(node), message, hint, replacement=replacement)

    def _no_field(self, container: Shape, key: str, node: nodes.Getattr | nodes.Getitem, *, soft: bool) -> None:
        """Report a field that an object does not have."""
        path = path_of(node)
        if soft and (path is None or path[0] not in ("input", "sent")):
            return  # asking whether there is one is what `is defined` is for
        shown = self.show(node.node)
        known = sorted(container.fields or ())
        if self._is_task and path is not None and path[0] in _NOT_IN_TASKS:
            words = f"a task {_NOT_IN_TASKS[path[0]]}"
            self._reports.add(
                "unknown-property", self._key_mark(node), f"`{'.'.join(map(str, path))}`: {words}", "remove it"
            )
            return
        if container.title == "a loop" and key in ("last", "length"):
            over = container.condition == "stream"
            if over:
                self._reports.add(
                    "length-of-stream",
                    self._key_mark(node),
                    f"`{shown}.{key}` is not known over a stream until it has ended",
                    "`collect` the stream first, or count with `loop.index`",
                )
                return
        owner = f"`{shown}`" if shown else "this object"
        if container.title:
            owner += f" ({container.title})"
        elif container.is_only("stream"):
            owner = f"the stream {owner}" if shown else "this stream"
        near, certain = nearest_and_sure(key, known)
        message = f"{owner} has no `{key}`" + (f", did you mean `{near}`?" if near else "")
        hint = f"{owner} has {listed(known, 'and')}" if known else None
        if path is not None and len(path) == 2 and path[0] in ("input", "sent"):
            if self._with_hyphen(str(key)):
                return
            if key in self._unsent and path[0] == "sent":
                message, hint = f"`sent` has no `{key}`, which is {self._unsent[key]}", f"read `input.{key}`"
            elif not known:
                hint = "declare it under `inputParameters`"
        elif path is not None and len(path) == 2 and path[0] == "experiment" and not near:
            hint = "declare it under `experiments` in streamstack.yaml"
        mark = self._key_mark(node)
        replacement = replace_word(mark, key, near) if certain and near and mark != self.mark(node) else None
        self._reports.add("unknown-property", mark, message, hint, replacement=replacement)

    def _with_hyphen(self, key: str) -> bool:
        """Report an input with a hyphen in its name that is read without quotes: a subtraction."""
        assert self._value is not None
        fields = self.env["input"].fields or {} if "input" in self.env else {}
        for read in self._value.reads:
            names = [each for each in fields if "-" in each and f"input.{each}" in read.expression]
            name = next((each for each in names if each.startswith(f"{key}-")), "")
            if name:
                message = f"`input.{name}` is a subtraction: `-` is an operator"
                replacement = replace_word(read.mark, f"input.{name}", f'input["{name}"]')
                hint = f'write `input["{name}"]`, or give the input a name without `-`, and `aliases: [{name}]`'
                self._reports.add("unknown-property", read.mark, message, hint, replacement=replacement)
                return True
        return False

    def _follow(self, read: Read) -> None:
        """Check the path of a read in a template, whose conditions are not followed."""
        node: nodes.Node = nodes.Name(read.name, "load")
        for key in read.path:
            node = nodes.Getitem(node, nodes.Const(key), "load")
        if read.path:
            before, self.dead = self.dead, True
            self.of(node, soft=read.soft)
            self.dead = before

    def _operate(self, node: nodes.BinExpr) -> Shape:
        sign = _SIGNS[type(node)]
        what = f"`{sign}` fails on null"
        left, right = self.not_null(node.left, what), self.not_null(node.right, what)
        if left.constant is not MISSING and right.constant is not MISSING:
            return self._worked_out(node, lambda: BINARY[type(node)](left.constant, right.constant))
        results: set[str] = set()
        failing: set[tuple[str, str]] = set()
        for one in left.kinds or KINDS:
            for other in right.kinds or KINDS:
                found = _kinds_of(one, other, type(node))
                results |= found
                if not found:
                    failing.add((one, other))
        known = left.kinds is not None and right.kinds is not None
        streams = left.may_be(("stream",)) or right.may_be(("stream",))
        if not results or (known and failing and not streams):
            self._cannot(node, sign, left, right, failing, sure=not results)
        if isinstance(node, (nodes.Div, nodes.FloorDiv, nodes.Mod)):
            self._divided(node, sign, right)
        low, high = _bounds_of(node, left, right)
        if not results or (not known and len(results) > 1):
            return ANY
        items = (left | right).items if results == {"list"} and isinstance(node, nodes.Add) else None
        filled = results == {"list"} and (left.filled or right.filled) and isinstance(node, nodes.Add)
        return Shape(frozenset(results), items=items, filled=filled, low=low, high=high)

    def _divided(self, node: nodes.BinExpr, sign: str, right: Shape) -> None:
        if right.low is None or right.high is None or not right.low <= 0 <= right.high:
            return
        shown = self.show(node.right)
        sure = right.low == right.high == 0
        named = f"`{shown}`" if shown else "the divisor"
        hint = "declare `minimum: 1`" if shown.startswith("input.") else "check it first"
        self.wrong(node.right, f"{named} {'is' if sure else 'may be'} 0, and `{sign}` fails on it", hint, sure=sure)

    def _cannot(
        self, node: nodes.Node, sign: str, left: Shape, right: Shape, failing: set[tuple[str, str]], *, sure: bool
    ) -> None:
        one, other = (listed(sorted(each.kinds)) if each.kinds else "" for each in (left, right))
        if not sure:
            one, other = min(failing)
        kinds = {one, other}
        hint = ""
        if "text" in kinds and sign == "+":
            hint = "write `~` to join texts, or `x | toInteger` to calculate"
        elif "text" in kinds:
            hint = "write `x | toInteger` or `x | toDecimal`"
        elif kinds & _MOMENTS:
            hint = 'write `x | addTime("7 days")`, or `x | toDecimal` for seconds since 1970'
        elif "object" in kinds and sign == "+":
            hint = "write `[a, b] | merge`"
        named = " and ".join(an([each]) for each in (one, other) if each) or "these"
        self.wrong(node, f"`{sign}` {'fails' if sure else 'may fail'}: it can't take {named}", hint, sure=sure)

    # -- parts of expressions

    def list_of(self, node: nodes.List | nodes.Tuple) -> Shape:
        items = [self.of(each) for each in node.items]
        values = [each.constant for each in items]
        if not any(value is MISSING for value in values):
            return shapes.of_constant(values)
        return listing(shapes.unite(items), filled=True)

    def dict_of(self, node: nodes.Dict) -> Shape:
        fields: dict[str, Shape] = {}
        rest: Shape | None = None
        for pair in node.items:
            key, shape = constant_of(pair.key), self.of(pair.value)
            if isinstance(key, str):
                fields[key] = shape
            else:
                if isinstance(key, nodes.Node):
                    self.not_null(pair.key, "null can't be the key of an object")
                rest = ANY
        return record(fields, rest)

    def condition_of(self, node: nodes.CondExpr) -> Shape:
        self.of(node.test)
        true, false = (narrow(node.test, self.env, self._soft_shape, truth=truth) for truth in (True, False))
        with self._within(true):
            first = self.of(node.expr1)
        if node.expr2 is None:
            return first.or_null("the expression has no `else`")
        with self._within(false):
            return first | self.of(node.expr2)

    def junction_of(self, node: nodes.And | nodes.Or) -> Shape:
        """Return the shape of `and` or `or`: an operand is read only where those before it were true, or false."""
        both = isinstance(node, nodes.And)
        parts = [node.right]
        left: nodes.Node = node.left
        while type(left) is type(node):
            parts.append(left.right)
            left = left.left
        result, env = self.of(left), dict(self.env)
        before: nodes.Node = left
        for part in reversed(parts):
            env = narrow(before, env, self._soft_shape, truth=both)
            with self._within(env):
                other = self.of(part)
            earlier = replace(result, filled=False) if both else result.sure
            result = other if result.is_null and not both else earlier | other
            before = part
        return replace(result, constant=MISSING)

    def not_of(self, node: nodes.Not) -> Shape:
        inner = self.of(node.node)
        if type(inner.constant) is bool:
            return replace(shapes.of_constant(not inner.constant), condition=node)
        return replace(BOOLEAN, condition=node)

    def sign_of(self, node: nodes.Neg | nodes.Pos) -> Shape:
        value = constant_of(node)
        if not isinstance(value, nodes.Node):
            return shapes.of_constant(value)
        shape = self.fits(
            node.node, self.not_null(node.node, "a sign before null fails"), NUMBERS, "only a number has a sign"
        )
        if isinstance(node, nodes.Pos):
            return shape
        constant = -shape.constant if type(shape.constant) in (int, float) else MISSING
        low, high = (None if each is None else -each for each in (shape.high, shape.low))
        return replace(shape, low=low, high=high, constant=constant)

    def _worked_out(self, node: nodes.Node, work: Callable[[], Any]) -> Shape:
        """Return the result of constants; report where that fails."""
        try:
            result = work()
        except RunError as error:
            self.wrong(node, f"this always fails: {error.message}")
            return ANY
        return replace(shapes.of_constant(result), condition=node if isinstance(result, bool) else None)

    def _as_text(self, node: nodes.Node) -> None:
        shape = self.of(node)
        self.fits(node, shape, KINDS - {"file"}, "a file has no text", "read it with `file.read`, or write `.name`")

    def concat_of(self, node: nodes.Concat) -> Shape:
        for each in node.nodes:
            self._as_text(each)
        return TEXT

    def compare_of(self, node: nodes.Compare) -> Shape:
        left = node.expr
        if len(node.ops) == 1:
            one, other = self.of(left), self.of(node.ops[0].expr)
            if one.constant is not MISSING and other.constant is not MISSING:
                return self._worked_out(node, lambda: COMPARE[node.ops[0].op](one.constant, other.constant))
        for operand in node.ops:
            if operand.op in ("eq", "ne"):
                self.of(left)
                self.of(operand.expr)
            elif operand.op in ("in", "notin"):
                item = self.of(left)
                what = f"`{_COMPARES[operand.op]}` fails on null"
                container = self.not_null(operand.expr, what)
                kinds = {"object", "text", "list"}
                self.fits(
                    operand.expr, container, kinds, f"`{_COMPARES[operand.op]}` looks into a text, list or object"
                )
                if container.is_only("text"):
                    if item.null:
                        self.may_be_null(left, item, "a text holds no null")
                    self.fits(left, item.sure, {"text"}, "only a text can be in a text", "write `x | toText in ...`")
            else:
                sign = _COMPARES[operand.op]
                what = f"`{sign}` fails on null"
                one, other = self.not_null(left, what), self.not_null(operand.expr, what)
                pairs = {(a, b) for a in one.kinds or KINDS for b in other.kinds or KINDS}
                failing = {pair for pair in pairs if not _comparable(*pair)}
                known = one.kinds is not None and other.kinds is not None
                streams = one.may_be(("stream",)) or other.may_be(("stream",))
                if pairs and (failing == pairs or (known and failing and not streams)):
                    self._cannot(node, sign, one, other, failing, sure=failing == pairs)
            left = operand.expr
        return replace(BOOLEAN, condition=node)

    # -- operations

    def _arguments(self, operation: Operation, node: nodes.Filter | nodes.Test | nodes.Call) -> dict[str, nodes.Node]:
        """Check the arguments; return those that are given, by name."""
        arguments: dict[str, nodes.Node] = dict(zip(operation.keywords, node.args, strict=False))
        arguments |= {str(each.key): each.value for each in node.kwargs}
        for extra in node.args[len(operation.keywords) :]:
            self.of(extra)
        wanted = operation.arguments
        for index, field in enumerate(operation.fields):
            argument = arguments.get(field.name)
            if argument is None:
                continue
            shape = self.of(argument)
            notation = wanted[index] if index < len(wanted) else ""
            takes = shapes.parse(notation)
            if isinstance(field.type, Constant):
                kinds = frozenset({"integer"} if field.type.kind is Kind.INTEGER else {"text"})
                takes = Shape(kinds, "allowed" if not field.required and field.default is None else "")
            elif not notation:
                continue
            what = f"`{field.name}` of `{operation.name}` can't be that"
            if shape.null and not takes.null:
                self.may_be_null(argument, shape, f"`{field.name}` of `{operation.name}` can't be null")
            if takes.kinds is not None:
                self.fits(argument, shape.sure, takes.kinds, what)
                self._in_bounds(argument, shape.sure, field, operation)
        return arguments

    def _in_bounds(self, node: nodes.Node, shape: Shape, field: Any, operation: Operation) -> None:
        wanted = field.type
        if not isinstance(wanted, Constant) or wanted.minimum is None or shape.constant is not MISSING:
            return
        if shape.low is not None and shape.low < wanted.minimum:
            shown = self.show(node)
            named = f"`{shown}`" if shown else "this"
            message = f"{named} may be less than {wanted.minimum}, the least `{field.name}` of `{operation.name}`"
            self.wrong(node, message, f"declare `minimum: {wanted.minimum}`", sure=False)

    def filter_of(self, node: nodes.Filter) -> Shape:
        assert node.node is not None
        name = node.name
        if name in SOFT_FILTERS:
            return self._default(node)
        operation = FILTERS.get(name)
        value = self.of(node.node)
        if operation is None:
            return ANY
        wanted = shapes.parse(operation.takes)
        with_default = name in ("toInteger", "int", "toDecimal", "float") and bool(node.args or node.kwargs)
        if value.null and operation.takes and not wanted.null and not with_default:
            self.may_be_null(node.node, value, f"the filter `{name}` fails on null")
        value = value.sure
        if wanted.kinds is not None or name in ("toJson", "tojson", "toText", "string"):
            kinds = KINDS - {"file"} if wanted.kinds is None else wanted.kinds
            hint = "write `x | toDecimal` first" if wanted.is_only(*NUMBERS) and value.is_only("text") else ""
            if not with_default:
                value = self.fits(node.node, value, kinds, f"the filter `{name}` can't take it", hint)
        arguments = self._arguments(operation, node)
        constants = [value.constant, *(constant_of(each) for each in arguments.values())]
        changes = name == "random" or operation.plugin  # what a plug-in gives may differ each time
        if not changes and not any(each is MISSING or isinstance(each, nodes.Node) for each in constants):
            return self._computed(node, operation, value.constant, arguments)
        if name in _READ and value.is_only("text") and not with_default:
            shown = self.show(node.node)
            hint = (
                f"write `{name}(0)` for a default" if _READ[name] == "number" else "declare it as `timestamp` or `date`"
            )
            self.wrong(
                node.node, f"`{shown or 'this text'}` may be no {_READ[name]}, which `{name}` needs", hint, sure=False
            )
        self._names = node.args
        return self._result(node, operation, value, arguments)

    def _computed(
        self, node: nodes.Filter, operation: Operation, value: Any, arguments: Mapping[str, nodes.Node]
    ) -> Shape:
        """Apply a filter to constants."""
        try:
            named = {key: constant_of(each) for key, each in arguments.items()}
            result = operation.code(
                value,
                *(constant_of(each) for each in node.args),
                **{str(each.key): named[str(each.key)] for each in node.kwargs},
            )
        except (RunError, TypeError, ValueError) as error:
            if isinstance(error, RunError):
                self.wrong(node, f"this always fails: {error.message}")
            return ANY
        return shapes.of_constant(result)

    def _default(self, node: nodes.Filter) -> Shape:
        assert node.node is not None
        value = self.of(node.node, soft=True)
        named = {str(each.key): each.value for each in node.kwargs}
        other = node.args[0] if node.args else named.get("other")
        otherwise = TEXT if other is None else self.of(other)
        if value.kinds and not value.null:
            return value
        return otherwise if value.is_null else replace(value.sure | otherwise, constant=MISSING)

    def _result(
        self, node: nodes.Filter, operation: Operation, value: Shape, arguments: Mapping[str, nodes.Node]
    ) -> Shape:
        """Return the shape of what a filter gives."""
        assert node.node is not None
        name = operation.name
        items = value.item() if value.may_be(("list", "text")) else ANY
        position = _ATTRIBUTES.get(name)
        attribute = arguments.get("attribute", arguments.get("field")) if position is not None else None
        if attribute is not None:
            items = self._attribute(node, items, attribute)
        if name in _OF_NUMBERS or name == "merge" or (name in _ORDERED and not value.is_only("text")):
            self._numbers(node, name, replace(items, null="") if name in _PASS_NULL else items)
        special = _RESULTS.get(name)
        shape = special(self, value, items, arguments) if special is not None else None
        if shape is None:
            why = f"`{name}` gives null " + ("for an empty list" if name in _OF_EMPTY else "where it finds nothing")
            shape = shapes.parse(operation.gives, lambda _: value, why)
        if name in _OF_EMPTY and value.filled and not value.item().null:
            shape = shape.sure
        return replace(shape, filled=True) if name in _KEEP_FILLED and value.filled else shape

    def result_of_map(self, value: Shape, items: Shape, arguments: Mapping[str, nodes.Node]) -> Shape:
        """Return the list of a field of each item, or of what a filter gives for each."""
        if "filter" in arguments:
            applied = FILTERS.get(str(constant_of(arguments["filter"])))
            return listing(ANY if applied is None or "it" in applied.gives else shapes.parse(applied.gives))
        if arguments.get("default") is not None:
            items = items.sure | self.of(arguments["default"])
        return listing(items)

    def result_of_pick(self, value: Shape, arguments: Mapping[str, nodes.Node], *, picks: bool) -> Shape | None:
        """Return the object with some of its fields, or without them."""
        if not value.is_only("object") or value.fields is None:
            return None
        keys = {constant_of(each) for each in self._names}
        if not all(isinstance(key, str) for key in keys):
            return record({}, ANY)
        return record({key: each for key, each in value.fields.items() if (key in keys) == picks}, value.rest)

    def _numbers(self, node: nodes.Filter, name: str, items: Shape) -> None:
        """Check the items of a list that a filter calculates with or compares."""
        assert node.node is not None
        shown = self.show(node.node)
        named = f"the items of `{shown}`" if shown else "the items"
        hint = """write `| reject("none")` before it"""
        if items.null and not self.dead and not self.caught:
            message = f"{named} may be null, and `{name}` fails on null: {items.null}"
            self._reports.add("may-be-null", self.mark(node), message, hint)
        kinds = items.kinds
        if not kinds:
            return
        if name in _OF_NUMBERS:
            wrong, sure = kinds - NUMBERS, kinds.isdisjoint(NUMBERS)
        elif name == "merge":
            wrong, sure = kinds - {"object"}, "object" not in kinds
        else:
            pairs = [(a, b) for a in kinds for b in kinds if not _comparable(a, b)]
            wrong, sure = frozenset(a for a, _ in pairs), False
        if wrong:
            what = (
                "needs numbers" if name in _OF_NUMBERS else "needs objects" if name == "merge" else "can't compare them"
            )
            verb = "are" if sure else "may be"
            message = f"{named} {verb} {listed(sorted(wrong))}, and `{name}` {what}"
            self.wrong(node, message, 'write `| map("toDecimal")` before it' if sure else "", sure=sure)

    def _attribute(self, node: nodes.Filter, items: Shape, attribute: nodes.Node) -> Shape:
        """Return what a field of the items is; report one that they do not have."""
        assert node.node is not None
        key = constant_of(attribute)
        shown = self.show(node.node)
        if items.is_only("file", "stream"):
            what = f"`{node.name}` can't look into it"
            self.wrong(node, f"the items of `{shown}` are files, and {what}", "loop over them, and read `item.name`")
            return ANY
        if not isinstance(key, str) or "." in key:
            return ANY
        if items.is_only("object") and items.field(key) is None:
            known = sorted(items.fields or ())
            message = f"the items of `{shown}` have no `{key}`{did_you_mean(key, known)}"
            self._reports.add("unknown-property", self.mark(node), message, f"they have {listed(known, 'and')}")
            return ANY
        field = (items.field(key) if items.fields is not None else ANY) or ANY
        return replace(field, absent=False)

    def test_of(self, node: nodes.Test) -> Shape:
        soft = node.name in SOFT_TESTS
        value = self.of(node.node, soft=soft)
        operation = TESTS.get(node.name)
        if operation is not None:
            if operation.takes:
                if value.null:
                    self.may_be_null(node.node, value, f"the test `{node.name}` fails on null")
                wanted = shapes.parse(operation.takes).kinds or KINDS
                self.fits(node.node, value.sure, wanted, f"the test `{node.name}` needs an integer")
            self._arguments(operation, node)
        if node.name in ("none", "null") and value.kinds is not None and (value.is_null or not value.null):
            return replace(shapes.of_constant(value.is_null), condition=node)
        return replace(BOOLEAN, condition=node)

    def call_of(self, node: nodes.Call) -> Shape:
        name = node.node.name if isinstance(node.node, nodes.Name) else ""
        operation = FUNCTIONS_OF_EXPRESSIONS.get(name)
        if operation is None:
            return ANY
        arguments = self._arguments(operation, node)
        shape = shapes.parse(operation.gives)
        if name == "range" and arguments:
            shape = replace(shape, items=replace(shapes.INTEGER, low=0 if len(arguments) == 1 else None))
        return shape


def _bounds_of(node: nodes.BinExpr, left: Shape, right: Shape) -> tuple[float | None, float | None]:
    """Return the bounds of a sum, a difference or a product; None where they are not known."""
    if isinstance(node, nodes.Mul):
        if left.low is None or right.low is None or min(left.low, right.low) < 0:
            unbounded = _INFINITE & {left.low, left.high, right.low, right.high}
            return (float("-inf"), float("inf")) if unbounded else (None, None)
        return left.low * right.low, None
    if isinstance(node, nodes.Sub):
        right = replace(right, low=_negated(right.high), high=_negated(right.low))
    elif not isinstance(node, nodes.Add):
        return None, None
    return _sum(left.low, right.low), _sum(left.high, right.high)


_INFINITE: Final = frozenset({float("inf"), float("-inf")})


def _negated(bound: float | None) -> float | None:
    return None if bound is None else -bound


def _sum(one: float | None, other: float | None) -> float | None:
    """Return the sum of two bounds; one that is infinite leaves the sum so, whatever the other is."""
    if one is None or other is None:
        return one if one in _INFINITE else other if other in _INFINITE else None
    return one + other


def an(kinds: Iterable[str]) -> str:
    """Name one of some kinds, with an article."""
    return listed(f"an {each}" if each[0] in "aeio" else f"a {each}" for each in kinds)


def _merged(items: Shape) -> Shape:
    """Return what objects merged into one are: each adds its fields, so that none is missing."""
    if items.fields is None:
        return record({}, ANY)
    return record({key: each.sure if each.absent else each for key, each in items.fields.items()}, items.rest)


def _chosen(value: Shape, test: object, *, keeps: bool) -> Shape:
    """Return the list of the items that pass a test, or that don't."""
    items = value.item()
    if isinstance(test, str) and test in TYPE_TESTS:
        return listing(items.only(TYPE_TESTS[test], without=not keeps))
    ruled_out = (keeps and test is None) or (not keeps and test in ("none", "null"))
    return listing(items.sure if ruled_out else items)


def _fields(value: Shape) -> Shape:
    """Return what any field of an object is."""
    if value.fields is None or value.rest is not None or not value.is_only("object"):
        return ANY
    return shapes.unite([each.sure if each.absent else each for each in value.fields.values()])


_RARE: Final = "no item may have that value"
#: The results of filters that depend on more than the notation says; None leaves it to that.
_RESULTS: Final[dict[str, Callable[[Evaluator, Shape, Shape, Mapping[str, nodes.Node]], Shape | None]]] = {
    "map": Evaluator.result_of_map,
    "pick": lambda self, value, _, arguments: self.result_of_pick(value, arguments, picks=True),
    "omit": lambda self, value, _, arguments: self.result_of_pick(value, arguments, picks=False),
    "round": lambda _, value, __, arguments: replace(
        shapes.NUMBER if arguments else shapes.INTEGER, low=value.low, high=value.high
    ),
    "first": lambda _, value, items, arguments: (
        listing(items) if "count" in arguments and value.is_only("list") else None
    ),
    "last": lambda _, value, items, arguments: (
        listing(items) if "count" in arguments and value.is_only("list") else None
    ),
    "length": lambda _, value, __, ___: replace(COUNT, low=int(value.filled)),
    "count": lambda _, value, __, ___: replace(COUNT, low=int(value.filled)),
    "lines": lambda _, __, ___, ____: listing(TEXT, filled=True),
    "split": lambda _, __, ___, arguments: listing(TEXT, filled=bool(arguments)),
    "abs": lambda _, value, __, ___: replace(value, low=0, high=None, constant=MISSING),
    "reverse": lambda _, value, __, ___: replace(value, constant=MISSING),
    "list": lambda _, value, __, ___: replace(value, constant=MISSING) if value.is_only("list") else None,
    "batch": lambda _, value, __, arguments: (
        None if "fill_with" in arguments else listing(listing(value.item(), filled=True))
    ),
    "min": lambda _, value, __, ___: value.item().or_null("`min` gives null for an empty list"),
    "max": lambda _, value, __, ___: value.item().or_null("`max` gives null for an empty list"),
    "select": lambda _, value, __, arguments: _chosen(value, constant_of(arguments.get("test")), keeps=True),
    "reject": lambda _, value, __, arguments: _chosen(value, constant_of(arguments.get("test")), keeps=False),
    "merge": lambda _, value, __, ___: _merged(value.item()),
    "groupBy": lambda _, value, __, ___: record({}, listing(value.item(), filled=True).missing(_RARE)),
    "indexBy": lambda _, value, __, ___: record({}, value.item().missing(_RARE)),
    "values": lambda _, value, __, ___: listing(_fields(value)),
    "entries": lambda _, value, __, ___: listing(record({"key": TEXT, "value": _fields(value)})),
}
_HANDLERS: Final[dict[type[nodes.Node], Any]] = {
    nodes.List: Evaluator.list_of,
    nodes.Tuple: Evaluator.list_of,
    nodes.Dict: Evaluator.dict_of,
    nodes.CondExpr: Evaluator.condition_of,
    nodes.And: Evaluator.junction_of,
    nodes.Or: Evaluator.junction_of,
    nodes.Not: Evaluator.not_of,
    nodes.Neg: Evaluator.sign_of,
    nodes.Pos: Evaluator.sign_of,
    nodes.Concat: Evaluator.concat_of,
    nodes.Compare: Evaluator.compare_of,
    nodes.Filter: Evaluator.filter_of,
    nodes.Test: Evaluator.test_of,
    nodes.Call: Evaluator.call_of,
}
