"""Types and null, followed through the bindings of a definition, on every path through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from streamstack.errors import Mark
from streamstack.language import shapes
from streamstack.language.analysis.evaluate import Evaluator, an
from streamstack.language.analysis.narrowing import Env, join_env, names_in
from streamstack.language.analysis.state import Reports
from streamstack.language.definition import (
    Arguments,
    ConstantArgument,
    Definition,
    Endpoint,
    Entries,
    FunctionDefinition,
    Input,
    JsonSchema,
    Step,
    Task,
)
from streamstack.language.expressions import Value
from streamstack.language.expressions.compile import Expression
from streamstack.language.graph import (
    JOB_START,
    Block,
    Graph,
    Node,
    Use,
    all_values,
    called_by,
    constant,
    reached,
    runs_once_at_least,
)
from streamstack.language.kinds import FACTS, Kind, shown
from streamstack.language.paths import parameters
from streamstack.language.shapes import ANY, BOOLEAN, COUNT, INTEGER, KINDS, NULL, NUMBER, NUMBERS, TEXT, Shape, record
from streamstack.language.sql import statement_in
from streamstack.language.values import MISSING
from streamstack.spec import Bound, Nesting

#: What a parameter of a kind takes; all others take any data.
_TAKES: Final[Mapping[Kind, frozenset[str]]] = {
    **dict.fromkeys(
        (Kind.TEXT, Kind.URL, Kind.PROSE), frozenset({"text", "integer", "decimal", "boolean", "timestamp", "date"})
    ),
    Kind.INTEGER: frozenset({"integer"}),
    Kind.NUMBER: NUMBERS,
    Kind.BOOLEAN: frozenset({"boolean"}),
    Kind.LIST: frozenset({"list"}),
    Kind.OBJECT: frozenset({"object"}),
    Kind.HEADERS: frozenset({"object"}),
    Kind.DURATION: frozenset({"integer", "decimal", "text"}),
    Kind.SIZE: frozenset({"integer", "text"}),
    Kind.EVERY: frozenset({"integer", "text"}),
    Kind.RATE: frozenset({"text"}),
    Kind.STREAM: frozenset({"stream"}),
    Kind.ITEMS: frozenset({"list", "stream"}),
}
_HINTS: Final = {
    (Kind.INTEGER, "decimal"): "write `x | round`, or `//` to divide whole numbers",
    (Kind.INTEGER, "text"): "write `x | toInteger`",
    (Kind.NUMBER, "text"): "write `x | toDecimal`",
    (Kind.ITEMS, "object"): "write `x | entries` for {key, value} items",
    (Kind.ITEMS, "text"): "write `x | lines`, `x | split` or `x | chars`",
    (Kind.TEXT, "list"): "write `x | join` or `x | toJson`",
    (Kind.TEXT, "object"): "write `x | toJson`",
}
#: How often a loop's body is followed until nothing new is known, and how deep loops in loops are.
_ROUNDS: Final = 4
_LOOPS: Final = 3

_LOOP: Final = {"index": replace(INTEGER, low=1), "index0": COUNT, "first": BOOLEAN}
_COUNTED: Final = {**_LOOP, "last": BOOLEAN, "length": COUNT}
_MISSING_FIELD: Final = ANY.missing("a request need not have it")
_SENT: Final = record({}, TEXT.missing("a client need not send it"))
_INPUT_KINDS: Final = {
    "text": TEXT, "uuid": TEXT, "email": TEXT, "url": TEXT, "boolean": BOOLEAN, "date": shapes.parse("date"),
    "timestamp": shapes.parse("timestamp"),
}  # fmt: skip
#: Properties that every stream has, and those of a request body that is read as it arrives.
OF_EVERY_STREAM: Final = {"count": COUNT, "finished": BOOLEAN}
OF_A_BODY: Final = {**OF_EVERY_STREAM, "skipped": COUNT, "bytes": COUNT, "size": shapes.parse("integer~")}
#: Registered claims (RFC 7519, section 4.1), and what every method of authentication adds.
_AUTH: Final = shapes.parse(
    "{method: text, scopes: [text], sub: text~, iss: text~, exp: number~, iat: number~, nbf: number~, ...}"
)
_FILE: Final = Shape(frozenset({"file"}), fields={"name": TEXT, "contentType": TEXT, "size": COUNT}, title="a file")


def shape_of_input(declared: Input, *, called: bool = False, sent: bool = False, built: bool = False) -> Shape:
    """Return the shape of a declared input.

    Args:
        declared: The declaration.
        called: It is an input of a function, which may be a stream.
        sent: It is a part of the path, so that each request has it.
        built: It is a property of an object that is built of defaults where a client sends none.
    """
    built = built or not (declared.required or sent)
    shape = _declared_shape(declared, called=called, built=built)
    if declared.nullable and declared.type != "json":
        shape = shape.or_null("it is declared `nullable`")
    elif declared.type == "stream" or (declared.type == "object" and declared.properties is not None):
        return shape
    elif declared.default in (MISSING, None) and built:
        why = "it is optional and has no default" if not declared.required else "what it is a property of is optional"
        shape = shape.or_null(why)
    return shape


def _declared_shape(declared: Input, *, called: bool, built: bool = False) -> Shape:
    type_ = declared.type
    if type_ in ("integer", "decimal") and called:
        return INTEGER if type_ == "integer" else NUMBER  # what other steps give, not clients
    if type_ in ("integer", "decimal"):
        low = float("-inf") if declared.minimum is None else declared.minimum
        high = float("inf") if declared.maximum is None else declared.maximum
        return replace(INTEGER if type_ == "integer" else NUMBER, low=low, high=high, title=type_)
    if type_ == "enum":
        return replace(shapes.unite(map(shapes.of_constant, declared.values)), constant=MISSING, title="enum")
    if type_ == "object":
        if declared.properties is None:
            return record({}, ANY)
        return record({each.name: shape_of_input(each, called=called, built=built) for each in declared.properties})
    if type_ == "list":
        items = ANY if declared.items is None else _declared_shape(declared.items, called=called)
        if declared.items is not None and declared.items.nullable:
            items = items.or_null("it is declared `nullable`")
        return shapes.listing(items, filled=bool(declared.min_items))
    if type_ == "file":
        return _FILE
    if declared.schema is not None:
        return declared.schema.shape
    if type_ == "stream":
        return Shape(frozenset({"stream"}), fields=None if called else OF_A_BODY)  # of a function, the caller knows
    return replace(_INPUT_KINDS[type_], title=type_) if type_ in _INPUT_KINDS else ANY


def _fitting(declared: Shape, passed: Shape) -> Shape:
    """Return the shape of an input of a function: that of the value which a call passes, where it says more."""
    more = passed.kinds and not passed.null and (declared.kinds is None or passed.kinds <= declared.kinds)
    return passed if more else declared


@dataclass(slots=True)
class _Loop:
    """The states in which the innermost loop is left, or goes on with its next turn."""

    breaks: list[Env] = field(default_factory=list)
    turns: list[Env] = field(default_factory=list)


class Results:
    """What the functions of a project give, worked out when they are first called."""

    def __init__(self, functions: Mapping[str, FunctionDefinition], experiment: Shape = ANY) -> None:
        self.functions = functions
        self.experiment = experiment  # what `experiment` is, by the settings
        self._known: dict[str, Shape] = {}
        self._working: list[str] = []

    def of(self, name: str) -> Shape:
        """Return the shape of what a function gives; ANY for one that is being worked out."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = ANY
            function = self.functions.get(name)
            if function is not None and len(self._working) < _DEEP_CALLS:
                self._working.append(name)
                walker = TypeWalker(function, Graph(function), Reports(frozenset()), self)
                known = self._known[name] = walker.follow()
                self._working.pop()
        return known


_DEEP_CALLS: Final = 20
#: What aggregations give; all others give one of their values.
_FIGURES: Final = {
    **dict.fromkeys(("count", "distinct"), COUNT),
    **dict.fromkeys(("sum", "rate"), NUMBER),
    **dict.fromkeys(("mean", "stddev", "p50", "p90", "p95", "p99"), shapes.parse("number~")),
}


def _figures(entries: Entries, arguments: Mapping[str, Shape]) -> Shape:
    """Return the shape of what is aggregated of the items of a window."""
    found: dict[str, Shape] = {}
    for each in entries.entries:
        op = constant(each.argument.get("op"), "") if isinstance(each.argument, Arguments) else MISSING
        value = arguments.get(f"of.{each.key}", arguments.get("in", ANY).item())
        one = replace(value.sure, constant=MISSING, loose=True)
        found[each.key] = _FIGURES.get(op, one) if isinstance(op, str) else ANY
    return record(found)


class TypeWalker:
    """Follows the shapes of one definition's names from its first step on."""

    def __init__(
        self,
        definition: Definition,
        graph: Graph,
        reports: Reports,
        results: Results,
        passed: Mapping[str, Shape] = MappingProxyType({}),
    ) -> None:
        self._definition = definition
        self._passed = passed
        self._graph = graph
        self._reports = reports
        self._results = results
        self._inputs = {each.name: each for each in getattr(definition, "inputs", ())}
        self._path = parameters(definition.path) if isinstance(definition, Endpoint) else []
        in_path = {
            name: "in the path"
            for name, each in self._inputs.items()
            if each.location == "path" or (each.location is None and name in self._path)
        }
        self._unsent = in_path | {name: "a stream" for name, each in self._inputs.items() if each.type == "stream"}
        self.evaluate = self._evaluate = Evaluator(reports, is_task=isinstance(definition, Task), unsent=self._unsent)
        self._frames: list[list[Shape]] = [[]]
        self._loops: list[_Loop | None] = []
        self._guards: list[Env] = []
        self._depth = 0
        self._ends: list[Env] = []  # the states in which the outermost frame is left
        self.unread: frozenset[str] = frozenset()
        self.sure_loops: set[Node] = set()  # that have a first turn whenever they are reached
        self._unsure_loops: set[Node] = set()
        self._answers_json = isinstance(definition, Endpoint) and definition.response_type == "json"
        #: The steps that send or call, with the shapes of their parameters and of the names that they see.
        self.reached: dict[Node, tuple[Mapping[str, Shape], Env]] = {}
        self.response: Shape = ANY
        self._writers = Counter(each.name for node in graph.nodes for each in node.written)

    # -- a whole definition

    def follow(self) -> Shape:
        """Follow the definition; return the shape of what it gives."""
        env = self._start()
        if isinstance(self._definition, Endpoint):
            for value in self._definition.bindings:
                self._evaluate.value(value, env)
        end = self._block(self._graph.root, env)
        returned = self._returned_by(end)
        response = self._definition.response if isinstance(self._definition, Endpoint) else None
        for each in self._ends:
            end = join_env(end, each)
        if response is not None and end is not None:
            self.response = self._evaluate.value(response, end)
            self._check_answer(response, self.response)
        return returned

    def _start(self) -> Env:
        called = isinstance(self._definition, FunctionDefinition)
        input_ = record(
            {
                name: _fitting(
                    shape_of_input(each, called=called, sent=name in self._path), self._passed.get(name, ANY)
                )
                for name, each in self._inputs.items()
            }
        )
        sent = {name: shape.sure for name, shape in (input_.fields or {}).items() if name not in self._unsent}
        optional = "a client need not send it"
        sent = {name: e if self._inputs[name].required else e.missing(optional) for name, e in sent.items()}
        env: Env = {
            "input": input_,
            "sent": record(sent),
            "request": record(
                {
                    **dict.fromkeys(("method", "path", "id", "ip"), TEXT),
                    **dict.fromkeys(("query", "headers", "cookies"), _SENT),
                    "body": ANY,
                    "text": ANY,
                }
            ),
            "run": record({"id": TEXT, "startedAt": shapes.parse("timestamp"), "elapsedMs": COUNT, "outcome": ANY}),
            "stream": record({"count": COUNT, "bytes": COUNT}),
            "experiment": self._results.experiment,
        }
        if isinstance(self._definition, Task):
            env["request"] = env["experiment"] = record({})
        authentication = self._definition.authentication if isinstance(self._definition, Endpoint) else None
        if authentication is not None:
            why = f"authentication is optional in {self._definition.title}"
            env["auth"] = _AUTH.or_null(why) if authentication.optional else _AUTH
        return env

    def _returned_by(self, end: Env | None) -> Shape:
        returned = self._frames[-1]
        return shapes.unite(returned if end is None and returned else [*returned, NULL])

    # -- steps

    def _block(self, block: Block, env: Env | None) -> Env | None:
        """Follow the steps of a block; return the state behind them, None where no path leads there."""
        for node in block.nodes:
            if env is None:
                break
            after = self._step(node, env)
            if after is None:
                self._dead(block.nodes[block.nodes.index(node) + 1 :], env)
            env = after
        return env

    def _dead(self, rest: tuple[Node, ...], env: Env) -> None:
        """Check only the paths of steps that never run."""
        with self._never():
            for node in rest:
                env = self._step(node, dict(env)) or env

    @contextmanager
    def _never(self) -> Iterator[None]:
        before, self._evaluate.dead = self._evaluate.dead, True
        frames, loops, guards, ends = self._frames, self._loops, self._guards, self._ends
        self._frames, self._loops, self._guards, self._ends = [*frames, []], [*loops, _Loop()], [], []
        yield
        self._frames, self._loops, self._guards, self._ends = frames, loops, guards, ends
        self._evaluate.dead = before

    def _step(self, node: Node, env: Env) -> Env | None:
        step = node.step
        if step.allow:
            with self._reports.within((*self._reports.allowed, step.allow)):
                return self._modified(node, env)
        return self._modified(node, env)

    def _modified(self, node: Node, env: Env) -> Env | None:
        step = node.step
        if step.disabled:
            with self._never():
                self._run(node, dict(env))
            self._bind(step.result, NULL, env)
            return env
        if step.when is None or step.when.constant is True:
            return self._run(node, env)
        self._evaluate.value(step.when, env)
        skipped = self._evaluate.narrowed(step.when, env, truth=False)
        after = self._run(node, self._evaluate.narrowed(step.when, env, truth=True))
        if step.result is not None:
            condition = step.when.node if isinstance(step.when, Expression) else None
            why = f"the step in line {step.key_mark.line} runs only `when` its condition is true"
            self._bind(step.result, replace(NULL, null=why, unless=condition), skipped)
        return join_env(after, skipped)

    def _run(self, node: Node, env: Env) -> Env | None:
        step, effects = node.step, node.step.function.effects
        if isinstance(step.timeout, Value):
            shape = self._evaluate.value(step.timeout, env)
            self._check_kind(step.timeout, shape, Kind.DURATION, "timeout")
        if effects.sets:
            for use in node.uses:
                self._bind(use.entry, self._meaning(use.value, self._evaluate.value(use.value, env)), env)
            return env
        arguments = self._read(node, env)
        if (effects.emits or effects.calls) and not self._evaluate.dead:
            self.reached[node] = arguments, dict(env)
        after = env
        if node.blocks:
            nested = self._nested(node, arguments, env)
            if nested is None:
                return None
            after = nested
        elif (that := next((use.value for use in node.uses if use.kind is None), None)) is not None:
            after = self._evaluate.narrowed(that, env, truth=True)  # precondition
        return self._finish(node, arguments, after)

    def _meaning(self, value: Value, shape: Shape) -> Shape:
        """Remember which condition a variable stands for."""
        is_condition = shape.is_only("boolean") and isinstance(value, Expression)
        return replace(shape, condition=value.node) if is_condition else replace(shape, condition=None)  # type: ignore[attr-defined]

    def _finish(self, node: Node, arguments: dict[str, Shape], env: Env) -> Env | None:
        step, effects = node.step, node.step.function.effects
        if effects.rebinds is not None:
            for each in node.written:
                if each.rebinds:
                    self._append(node, each.name, arguments, env)
        if effects.leaves == "frame":
            value = arguments.get(step.function.main.name if step.function.main is not None else "", NULL)
            self._frames[-1].append(replace(value, condition=None, unless=None))
            if len(self._frames) == 1:
                self._ends.append(env)
                if self._answers_json:
                    for use in node.uses:
                        self._check_answer(use.value, value)
        elif effects.leaves in ("loop", "turn") and self._loops and self._loops[-1] is not None:
            loop = self._loops[-1]
            (loop.breaks if effects.leaves == "loop" else loop.turns).append(env)
        if effects.ends:
            return None
        if step.result is not None:
            self._bind(step.result, self._result(node, arguments), env)
        if effects.calls:
            self._after_call(step, env)
        return env

    def _append(self, node: Node, name: str, arguments: Mapping[str, Shape], env: Env) -> None:
        before, item = env.get(name, ANY), arguments.get("value", ANY)
        mark = next(each.mark for each in node.written if each.name == name)
        if before.kinds is not None and not before.may_be(("list",)) and not self._evaluate.dead:
            what = "null" if before.is_null else an(sorted(before.kinds))
            message = f"`{name}` is {what}, and `{node.step.function.name}` needs a list"
            self._reports.add("wrong-type", mark, message, f"write `- set: {{{name}: []}}` before this step")
        empty = before.constant == [] or not before.is_only("list")
        items = item if empty else before.item() | item
        env_shape = shapes.listing(items if before.is_only("list") else ANY, filled=True)
        self._bind(name, env_shape, env)

    def _check_answer(self, value: Value, shape: Shape) -> None:
        """Report a file as the answer of an endpoint that answers with JSON."""
        if self._answers_json and not self._evaluate.dead and (where := _file_in(shape)) is not None:
            message = f"the answer holds a file{where}, which JSON can't hold"
            hint = "read it with `file.read` and `collect`, or answer with its `name`, `contentType` and `size`"
            self._reports.add("wrong-type", _mark_of(value), message, hint)

    def _bind(self, name: str | None, shape: Shape, env: Env) -> None:
        """Bind a name; conditions that are about its old value no longer hold."""
        if name is None:
            return
        for other, known in env.items():
            conditional = known.condition is not None or known.unless is not None
            if conditional and other != name and name in names_in(known.condition) | names_in(known.unless):
                env[other] = replace(known, condition=None, unless=None)
        if name in self.unread:
            shape = ANY
        env[name] = shape
        for guard in self._guards:
            guard[name] = guard[name] | shape if name in guard else shape

    # -- what a step reads and gives

    def _read(self, node: Node, env: Env) -> dict[str, Shape]:
        """Check the values of a step; return their shapes by parameter."""
        arguments: dict[str, Shape] = {}
        step = node.step
        conditions = bool(node.nested(Nesting.ALTERNATIVE, Nesting.LOOP))
        for use in node.uses:
            if use.kind is None and conditions:
                continue  # followed with the block that it leads to
            shape = self._evaluate.value(use.value, env)
            if use.kind is not None:
                self._check(use, shape, step)
            if use.entry is None:
                arguments[use.parameter] = arguments[use.parameter] | shape if use.parameter in arguments else shape
            elif step.function.effects.calls:
                self._check_input(step, use, shape)
        source = arguments.get("in", ANY)
        for each in node.per_item:
            inner = self._late(env)
            self._outer_loop(inner)
            inner[each.name] = source.item()
            name = each.parameter if each.entry is None else f"{each.parameter}.{each.entry}"
            arguments[name] = self._evaluate.value(each.value, inner)
        return arguments

    def _outer_loop(self, env: Env) -> None:
        env["loop"] = record(_LOOP, title="a loop")

    def _check(self, use: Use, shape: Shape, step: Step) -> None:
        form, field_ = use.form, use.field
        if not isinstance(form, Bound) or self._evaluate.dead:
            return
        name = use.parameter
        if shape.null and field_ is not None and use.entry is None:
            fails = (field_.required and form.kind is not Kind.ANY) or form.not_null
            if fails:
                self._null(use.value, shape, f"`{name}` of `{step.function.name}` can't be null")
        self._check_kind(use.value, shape.sure, form.kind, f"{name}` of `{step.function.name}", sent=form.not_null)
        self._check_bounds(use.value, shape.sure, form, f"`{name}` of `{step.function.name}`")

    def _null(self, value: Value, shape: Shape, what: str) -> None:
        if isinstance(value, Expression):
            with self._evaluate.at(value, self._evaluate.env):
                self._evaluate.may_be_null(value.node, shape, what)
        elif not self._evaluate.caught:
            self._reports.add("may-be-null", value.mark, f"this is null, and {what}")

    def _check_kind(self, value: Value, shape: Shape, kind: Kind, name: str, *, sent: bool = False) -> None:
        takes = _TAKES.get(kind)
        if takes is None:
            takes = KINDS - {"file"} if sent else KINDS
        if value.constant is not MISSING or shape.kinds is None or not shape.kinds or self._evaluate.dead:
            return
        wrong = shape.kinds - takes - {"stream"}
        if kind is Kind.STREAM and not shape.may_be(("stream",)):
            wrong = shape.kinds
        if not wrong:
            return
        sure = shape.kinds <= wrong and wrong != {"decimal"}
        hint = next((_HINTS[kind, each] for each in sorted(wrong) if (kind, each) in _HINTS), FACTS[kind].example)
        wanted = "no file" if takes == KINDS - {"file"} else FACTS[kind].phrase
        shown_ = value.text if isinstance(value, Expression) else ""
        what = f"`{shown_}` is" if shown_ and len(shown_) <= 60 else "this is"
        if not sure:
            what = what.removesuffix("is") + "may be"
        message = f"`{name}` must be {wanted}, and {what} {an(sorted(wrong))}"
        if sure or not self._evaluate.caught:
            self._reports.add("wrong-type", _mark_of(value), message, hint, sure=sure)

    def _check_bounds(self, value: Value, shape: Shape, form: Bound, name: str) -> None:
        if value.constant is not MISSING or not shape.kinds or shape.kinds.isdisjoint(NUMBERS):
            return
        scale = 1000 if form.kind is Kind.DURATION else 1  # a number is milliseconds, a bound seconds
        for bound, known, other, word, sign in (
            (form.minimum, shape.low, shape.high, "at least", 1),
            (form.maximum, shape.high, shape.low, "at most", -1),
        ):
            if bound is None or known is None or sign * known >= sign * bound * scale:
                continue
            sure = other is not None and sign * other < sign * bound * scale
            if sign < 0 and known == float("inf") and not sure:
                continue  # an input without a maximum: not each is declared with one
            limit = shown(form.kind, bound)
            text = value.text if isinstance(value, Expression) else "this"
            message = f"{name} must be {word} {limit}, and `{text}` {'is not' if sure else 'may not be'}"
            key = "minimum" if sign > 0 else "maximum"
            declared = int(bound * scale) if bound * scale == int(bound * scale) else bound * scale
            hint = (
                f"declare `{key}: {declared}` for the input" if text.startswith("input.") else f"write {word} {limit}"
            )
            self._reports.add("wrong-type", _mark_of(value), message, hint, sure=sure)

    def _check_input(self, step: Step, use: Use, shape: Shape) -> None:
        """Check a value that a function of the project is called with."""
        names = list(called_by(step)) if step.function.name in ("call", JOB_START) else []
        function = self._results.functions.get(names[0]) if len(names) == 1 else None
        declared = next(
            (each for each in getattr(function, "inputs", ()) if use.entry in (each.name, *each.aliases)), None
        )
        if declared is None or use.value.constant is not MISSING or self._evaluate.dead:
            return
        assert function is not None
        wanted = _declared_shape(declared, called=True)
        if shape.null and declared.required and not declared.nullable:
            self._null(use.value, shape, f"the function `{function.name}` needs the input `{declared.name}`")
        if wanted.kinds is None or not shape.kinds:
            return
        wrong = shape.kinds - wanted.kinds - {"stream"}
        if wrong:
            sure = shape.kinds <= wrong
            verb = "is" if sure else "may be"
            message = f"the input `{declared.name}` of `{function.name}` is of type {declared.type}, and this {verb} "
            hint = f"`{declared.name}` is declared in {declared.mark}"
            self._reports.add("wrong-type", _mark_of(use.value), message + an(sorted(wrong)), hint, sure=sure)

    def _result(self, node: Node, arguments: Mapping[str, Shape]) -> Shape:
        step = node.step
        effects = step.function.effects
        if effects.calls and effects.gives == "either":
            names = list(called_by(step))
            return shapes.unite(self._results.of(name) for name in names) if names else ANY
        line = step.key_mark.line

        def shape_of_parameter(name: str) -> Shape | None:
            if name in arguments:
                return arguments[name]
            argument = step.arguments.by_name.get(name)
            if argument is None:
                parameter = step.function.by_name.get(name)
                default = parameter.default if parameter is not None else None
                return shapes.of_constant(default) if default is not None else None
            if isinstance(argument, ConstantArgument):
                value = argument.value
                return value.shape if isinstance(value, JsonSchema) else shapes.of_constant(value)
            return _figures(argument, arguments) if isinstance(argument, Entries) else ANY

        why = f"`{step.function.name}` in line {line} may give null"
        shape = shapes.parse(effects.result, shape_of_parameter, why) if effects.result else ANY
        sql = step.arguments.by_name.get("sql")
        if shape.null and isinstance(sql, Value) and (statement := statement_in(sql)) and statement.gives_a_value:
            shape = shape.sure
        if effects.gives == "stream":
            properties = {
                each.name: shapes.parse(each.shape, None, "it is null until it is known") for each in effects.properties
            }
            items = shape.items if shape.is_only("stream") else None
            return Shape(frozenset({"stream"}), items=items, fields={**OF_EVERY_STREAM, **properties})
        for name in effects.proves:
            argument = step.arguments.by_name.get(name)
            if isinstance(argument, Expression):
                shape = replace(shape, condition=argument.node)
        return replace(shape, constant=MISSING)

    def _after_call(self, step: Step, env: Env) -> None:
        """Take `auth` as known behind a function that reads it: it may refuse anonymous clients."""
        functions = self._results.functions

        if "auth" in env and any(
            read.name == "auth"
            for name in (() if step.function.name == JOB_START else called_by(step))
            for function in reached(name, functions)
            for value in all_values(function)
            for read in value.reads
        ):
            env["auth"] = env["auth"].sure

    # -- nested stacks

    def _late(self, env: Env) -> Env:
        """Return what is known where a stack runs later: nothing of names that are bound more than once."""
        return {name: ANY if self._writers[name] > 1 else shape for name, shape in env.items()}

    def _nested(self, node: Node, arguments: dict[str, Shape], env: Env) -> Env | None:
        after: Env | None = env
        if node.nested(Nesting.ALTERNATIVE, Nesting.OTHERWISE):
            after = self._alternatives(node, env)
        if node.nested(Nesting.GUARDED) and after is not None:
            after = self._try(node, after)
        if (branches := node.nested(Nesting.BRANCH)) and after is not None:
            after = self._branches(branches, after)
        for block in node.blocks:
            if after is None:
                return None
            match block.nesting:
                case Nesting.ONCE:
                    after = self._block(block, after)
                case Nesting.LOOP:
                    after = self._loop(node, block, arguments, after)
                case Nesting.ITEM | Nesting.FRAME | Nesting.DEFERRED:
                    arguments[block.parameter] = self._later(block, arguments, after)
                case _:
                    pass
        return after

    def _alternatives(self, node: Node, env: Env) -> Env | None:
        conditions = [use.value for use in node.uses if use.kind is None]
        ends: list[Env | None] = []
        present = env
        chosen = next((use.value for use in node.uses if use.kind is not None), None)
        for index, block in enumerate(node.nested(Nesting.ALTERNATIVE)):
            condition = conditions[index] if index < len(conditions) else None
            inner = dict(present)
            if chosen is not None and condition is None:
                inner = self._evaluate.narrowed_by_case(chosen, block.label or "", env)
            elif condition is not None:
                self._evaluate.value(condition, present)
                inner = self._evaluate.narrowed(condition, present, truth=True)
                present = self._evaluate.narrowed(condition, present, truth=False)
            ends.append(self._block(block, inner))
        otherwise = node.nested(Nesting.OTHERWISE)
        ends.append(self._block(otherwise[0], dict(present)) if otherwise else present)
        after: Env | None = None
        for end in ends:
            after = join_env(after, end)
        return after

    def _try(self, node: Node, env: Env) -> Env | None:
        guard: Env = {}
        self._guards.append(guard)
        end: Env | None = env
        for block in node.nested(Nesting.GUARDED):
            inner = dict(env)
            before, self._evaluate.caught = self._evaluate.caught, self._evaluate.caught or _catches_all(node)
            if node.nested(Nesting.HANDLER) and "auth" in inner:
                inner["auth"] = inner["auth"].sure  # an anonymous client is handled in `catch`
            end = self._block(block, inner)
            self._evaluate.caught = before
        self._guards.pop()
        failed = {**env, **{name: env[name] | shape if name in env else shape for name, shape in guard.items()}}
        after = end
        for block in node.nested(Nesting.HANDLER):
            inner = dict(failed)
            for name, _ in block.binds:
                inner[name] = _ERROR
            handled = self._block(block, inner)
            if handled is not None:
                self._unbind([name for name, _ in block.binds], env, handled)
            after = join_env(after, handled)
        for block in node.nested(Nesting.FINALLY):
            last = self._block(block, dict(join_env(after, failed) or failed))
            if last is None:
                return None
            if after is not None:
                for name in block.bound:
                    if name in last:
                        self._bind(name, last[name], after)
        return after

    def _unbind(self, names: list[str], before: Env, after: Env) -> None:
        for name in names:
            if name in before:
                after[name] = before[name]
            else:
                after.pop(name, None)

    def _branches(self, branches: list[Block], env: Env) -> Env | None:
        results: dict[str, Shape] = {}
        for block in branches:
            self._frames.append([])
            self._loops.append(None)
            end = self._block(block, dict(env))
            self._loops.pop()
            results[block.label or ""] = self._returned_by(end)
            returned = self._frames.pop()
            if end is None and not returned:
                return None
        for name, shape in results.items():
            self._bind(name, shape, env)
        return env

    def _later(self, block: Block, arguments: Mapping[str, Shape], env: Env) -> Shape:
        """Follow a stack that is a frame of its own; return what it gives."""
        now = block.nesting is Nesting.FRAME
        inner = dict(env) if now else self._late(env)
        for name, _ in block.binds:
            inner[name] = arguments.get("in", ANY).item()
        if block.loop or block.nesting is Nesting.ITEM:
            self._outer_loop(inner)
        self._frames.append([])
        self._loops.append(None)
        guards, self._guards = self._guards, []
        end = self._block(block, inner)
        self._guards = guards
        self._loops.pop()
        result = self._returned_by(end)
        self._frames.pop()
        if not block.copies:
            for name in block.bound:
                env[name] = ANY
        return result

    def _bind_turn(self, block: Block, source: Shape, env: Env) -> None:
        for name, _ in block.binds:
            env[name] = source.item()
        over = "stream" if source.may_be(("stream",)) and source.kinds is not None else None
        known = _COUNTED if block.counted and not over else _LOOP
        env["loop"] = replace(record(known, title="a loop"), condition=over)

    def _note_first_turn(self, node: Node, *, runs: bool) -> None:
        """Note whether a loop surely has a first turn; one that is followed several times must have it each time."""
        if runs and node not in self._unsure_loops:
            self.sure_loops.add(node)
        elif not runs:
            self._unsure_loops.add(node)
            self.sure_loops.discard(node)

    def _loop(self, node: Node, block: Block, arguments: Mapping[str, Shape], env: Env) -> Env | None:
        source = arguments.get("in", ANY)
        condition = next((use.value for use in node.uses if use.kind is None), None)
        entry = env
        names = [name for name, _ in block.binds]
        self._depth += 1
        rounds = _ROUNDS if self._depth <= _LOOPS else 1
        if rounds == 1:
            entry = {**env, **dict.fromkeys(block.bound, ANY)}
        loop = _Loop()
        end: Env | None = None
        surely = False
        for number in range(rounds):
            loop, inner = _Loop(), dict(entry)
            self._bind_turn(block, source, inner)
            runs = source.filled
            if condition is not None:
                runs = self._evaluate.value(condition, inner).constant is True
                inner = self._evaluate.narrowed(condition, inner, truth=True)
            surely = surely or (number == 0 and (runs or (arguments.get("times", ANY).low or 0) >= 1))
            self._loops.append(loop)
            end = self._block(block, inner)
            self._loops.pop()
            if block.copies:
                break
            back = end
            for turn in loop.turns:
                back = join_env(back, turn)
            again = _again(entry, back, block.bound, widen=number >= 1, give_up=number >= rounds - 2)
            if again == entry or number == rounds - 1:
                break
            entry = again
        self._depth -= 1
        self._note_first_turn(node, runs=surely)
        if block.copies:
            return dict(env)
        after: Env | None = None
        for each in (end, *loop.turns):
            after = join_env(after, each)
        if not surely and not runs_once_at_least(node, block):
            after = join_env(after, dict(entry))
        if condition is not None and after is not None and isinstance(condition, Expression):
            after = self._evaluate.narrowed(condition, after, truth=False)
        for each in loop.breaks:
            after = join_env(after, each)
        if after is not None:
            after = dict(after)
            self._unbind([*names, "loop"], env, after)
        return after


def _again(entry: Env, back: Env | None, bound: frozenset[str], *, widen: bool, give_up: bool) -> Env:
    """Return what is known where a loop begins its next turn."""
    if back is None:
        return entry
    result = dict(entry)
    for name in bound:
        if name not in back:
            continue
        before, after = entry.get(name), back[name]
        joined = after if before is None else before | after
        if before is not None and joined == before:
            continue
        if give_up and before is not None:
            joined = replace(ANY, null=joined.null)
        elif widen:
            joined = replace(joined, low=None, high=None, constant=MISSING)
        result[name] = joined
    return result


def _catches_all(node: Node) -> bool:
    """Tell whether a `try` handles each error, whatever its code."""
    handler = node.arguments.get("catch")
    return isinstance(handler, Arguments) and handler.get("on") is None


def _file_in(shape: Shape, path: str = "") -> str | None:
    """Return where in an answer a file stands; None where there is none."""
    if shape.is_only("file"):
        return f" under `{path}`" if path else ""
    if shape.is_only("list"):
        return _file_in(shape.item(), path)
    if shape.is_only("object"):
        for name, each in (shape.fields or {}).items():
            found = _file_in(each, f"{path}.{name}" if path else name)
            if found is not None:
                return found
    return None


def _mark_of(value: Value) -> Mark:
    return next((read.mark for read in value.reads), value.mark)


_ERROR: Final = record(
    {
        "code": TEXT,
        "message": TEXT,
        "status": INTEGER,
        "step": TEXT.or_null("an error outside of a step has none"),
        "details": ANY,
    },
    title="an error",
)


def check_types(
    definition: Definition, graph: Graph, reports: Reports, results: Results, unread: frozenset[str] = frozenset()
) -> frozenset[Node]:
    """Report what surely or possibly fails in a definition: paths that lead nowhere, null, values of wrong kinds.

    ``unread`` are names that steps may change which could not be read. Return the loops that surely have a first turn.
    """
    walker = TypeWalker(definition, graph, reports, results)
    walker.unread = unread
    walker.follow()
    return frozenset(walker.sure_loops)
