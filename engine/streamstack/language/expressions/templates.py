"""Text templates: `<% for %>`, `<% if %>` and bindings inside text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from time import thread_time
from typing import Any, Final, Literal

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.lexer import Token
from jinja2.runtime import Context, LoopContext, Undefined, new_context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

from streamstack.errors import RunError, fast_dataclass
from streamstack.language.expressions.compile import (
    LOCALS,
    Read,
    Spelling,
    Value,
    compile_expression,
    compile_source,
    literal,
)
from streamstack.language.expressions.evaluate import explain_node
from streamstack.language.expressions.grammar import (
    Analysis,
    Problem,
    Reading,
    Scope,
    TokenParser,
    bind,
    next_opening,
    reword,
    scan,
    too_deep,
    unclosed,
    unfit_name,
)
from streamstack.language.operators import MAX_TEXT, a_kind, refuse_stream
from streamstack.language.values import Opaque, to_text


class Generator(CodeGenerator):
    """Jinja2's compiler of statements, for trees whose expressions are ours."""

    def visit_Call(  # noqa: N802  (Jinja2's name)
        self,
        node: nodes.Call,
        frame: Frame,
        forward_caller: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        if not isinstance(node.node, nodes.Const):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self._write_ours(node.node.value, node.args, frame)

    def visit_Filter(self, node: nodes.Filter, frame: Frame) -> None:  # noqa: N802
        # Only `<% filter %>` and `<% set %>` blocks still have one: of the block's own text.
        self._write_ours(node.name, node.args, frame, f"concat({frame.buffer})")

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:  # noqa: N802
        before, after = (f"{frame.buffer}.append(", ")") if frame.buffer else ("yield ", "")
        for child in node.nodes:
            self.writeline(before, child)
            if isinstance(child, nodes.TemplateData):
                self.write(f"counted({literal(child.data)}){after}")
            else:
                self.write("written(")
                self.visit(child, frame)
                self.write(f"){after}")

    def _write_ours(self, name: str, arguments: list[nodes.Expr], frame: Frame, *first: str) -> None:
        names = [frame.symbols.ref(a.name) for a in arguments if isinstance(a, nodes.Name)]
        self.write(f"{name}({', '.join([*first, *names])})")


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = Generator


TEMPLATES: Final = _Environment(autoescape=False)
# Nothing of Jinja2's own (range, dict, lipsum, ...) is a name of the language.
TEMPLATES.globals.clear()


#: Renders over variables; under "bound", what << >> writes stays a Bound.
Render = Callable[[Mapping[str, Any], Literal["text", "bound"]], Iterable[Any]]

#: What an expression and an iteration cost, as if they wrote so many characters; cost between two looks at the clock.
_STEP: Final = 20
_EACH: Final = 100_000
#: Seconds of processor time that a rendering may take.
_MAX_SECONDS: Final = 2.0
_MOST_SPENT: Final = 2 * MAX_TEXT

_LOOP: Final = frozenset(
    ["index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "depth", "depth0"]
)
#: Each is a level of what Python's compiler goes down into.
_MOST_ELIFS: Final = 500
#: The name of what a `<% filter %>` or `<% set x | ... %>` block has written.
_BODY: Final = "__body__"


@fast_dataclass()
class Bound:
    """A value that a template writes, not yet text: a parameter of a SQL statement."""

    value: Any


class _Budget:
    """What one rendering may cost. The server does nothing else meanwhile, so it has to end by itself."""

    __slots__ = ("_next", "_spent", "_until")

    def begin(self) -> None:
        """Begin a rendering."""
        self._spent = 0
        self._next = _EACH
        self._until = 0.0

    def spend(self, cost: int) -> None:
        """Count characters that were written, or as many for the work; raise RunError for too much."""
        self._spent += cost
        if self._spent > self._next:
            self._look()

    def _look(self) -> None:
        self._next = self._spent + _EACH
        now = thread_time()
        self._until = self._until or now + _MAX_SECONDS
        if self._spent > _MOST_SPENT:
            raise RunError("template", f"the template would write more than {MAX_TEXT:,} characters")
        if now > self._until:
            raise RunError("template", f"the template takes more than {_MAX_SECONDS:g} seconds")

    def counted(self, text: str) -> str:
        """Count a text of the author's own, and return it."""
        self.spend(len(text))
        return text

    def write(self, value: Any) -> str:
        """Return a value's text, counted."""
        text = to_text(value)
        self.spend(len(text))
        return text


class _Counted:
    """What a `<% for %>` goes through, each item at the cost of a few characters."""

    __slots__ = ("_items", "_spend")

    def __init__(self, items: Collection[Any], spend: Callable[[int], None]) -> None:
        self._items = items
        self._spend = spend

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self._spend(_STEP)
            yield item


class _Loop(Opaque):
    """`loop` inside a template's own `<% for %>`."""

    kind = "loop"

    def __init__(self, context: LoopContext) -> None:
        self._context = context

    def __getitem__(self, name: str) -> Any:
        if name not in _LOOP:
            raise KeyError(name)
        value = getattr(self._context, name)
        return None if isinstance(value, Undefined) else value


class _Cells(Namespace):
    """`namespace(...)`: what a template changes from inside a loop."""

    def __getitem__(self, name: str) -> Any:
        return object.__getattribute__(self, "_Namespace__attrs")[name]


@dataclass(slots=True)
class _Arguments:
    """Spelling of names as the parameters of an expression's function."""

    roots: dict[str, str] = field(default_factory=dict)
    objects: dict[str, object] = field(default_factory=dict)

    def name(self, root: str) -> str:
        parameter = self.roots.setdefault(root, f"a{len(self.roots)}")
        return f"bound({parameter}, {literal(root)})"

    def path(self, root: str, item: str) -> str | None:
        return None

    def constant(self, value: object) -> str:
        for name, known in self.objects.items():
            if known is value:
                return name
        name = f"c{len(self.objects)}"
        self.objects[name] = value
        return name


def _bound(value: Any, name: str) -> Any:
    if value is missing:
        raise NameError(f"name {name!r} is not defined", name=name)
    return _Loop(value) if type(value) is LoopContext else value


@dataclass(slots=True)
class Found:
    """What the walk through a template found out."""

    readings: list[Reading] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    #: The first tag that makes text of what it holds, such as `<% filter %>`.
    captures: str = ""


def compile_statements(tree: nodes.Template, found: Found) -> Render:
    """Compile a parsed template, noting what was found.

    Raises Problem for what is not a part of templates.
    """
    budget = _Budget()
    walk = _Statements(found, budget)
    walk.block(tree.body, Scope())
    tree.set_environment(TEMPLATES)
    if any(problem.fatal for problem in found.problems):
        return render_nothing
    try:
        code = TEMPLATES.compile(tree)
    except SyntaxError:
        # Python allows 20 blocks in one another.
        raise too_deep(0) from None
    except TemplateSyntaxError as error:
        raise Problem("bad-template", error.message or "", error.lineno) from None
    return _program(code, walk.functions, budget)


def render_nothing(variables: Mapping[str, Any], way: Literal["text", "bound"]) -> Iterable[Any]:
    """Stand for a template that has findings."""
    return []


def _program(code: Any, functions: Mapping[str, Callable[..., Any]], budget: _Budget) -> Render:
    def load(write: Callable[[Any], Any]) -> Callable[[Context], Iterable[Any]]:
        namespace: dict[str, Any] = {
            "__file__": "<template>",
            "environment": TEMPLATES,
            "written": write,
            "counted": budget.counted,
            **functions,
        }
        # Jinja2's source for the statements, and in it calls of what we compiled.
        exec(code, namespace)  # noqa: S102
        root: Callable[[Context], Iterable[Any]] = namespace["root"]
        return root

    texts, pieces = load(budget.write), load(Bound)

    def render(variables: Mapping[str, Any], way: Literal["text", "bound"]) -> Iterable[Any]:
        context = new_context(TEMPLATES, None, {}, dict(variables), False, {})
        budget.begin()
        try:
            # A list, since the generator would raise outside of this `try`.
            return list(texts(context) if way == "text" else pieces(context))
        except RunError:
            raise
        except RecursionError:
            raise RunError("template", "a macro calls itself too often") from None
        except (TypeError, ValueError):
            # Expressions explain themselves: what is left is between them.
            raise RunError("template", _MISFIT) from None
        except TemplateError as error:
            raise RunError("template", str(error)) from None

    return render


class _Statements:
    """Walks the statements with their scopes and takes the expressions out."""

    def __init__(self, found: Found, budget: _Budget) -> None:
        self.found = found
        self._budget = budget
        self.functions: dict[str, Callable[..., Any]] = {}

    def block(self, body: list[nodes.Node], scope: Scope) -> Scope:
        """Replace the expressions of statements; return the scope behind them."""
        for statement in body:
            walk = _WALKS.get(type(statement))
            if walk is None:
                name = type(statement).__name__.lower()
                raise Problem(
                    "bad-template",
                    f"`<% {_TAGS.get(name, name)} %>` is not supported in templates",
                    statement.lineno,
                    "a template has for, if, set, with, filter, macro, call and raw",
                )
            self.found.captures = self.found.captures or _CAPTURES.get(type(statement), "")
            scope = walk(self, statement, scope)
        return scope

    def _take(self, node: nodes.Node | None, scope: Scope, wrap: Any = None) -> nodes.Expr:
        """Return the call that stands for an expression from now on."""
        assert isinstance(node, nodes.Expr)
        name, roots = self._function(node, scope, wrap)
        arguments: list[nodes.Expr] = [nodes.Name(root, "load") for root in roots]
        return nodes.Call(nodes.Const(name), arguments, [], None, None, lineno=node.lineno)

    def _function(self, node: nodes.Expr, scope: Scope, wrap: Any = None, first: str = "") -> tuple[str, list[str]]:
        analysis = Analysis(bind(scope, [first]) if first else scope)
        analysis.visit(node)
        self.found.readings += analysis.readings
        self.found.problems += analysis.problems
        if any(problem.fatal for problem in analysis.problems):
            return "", []
        spelling = _Arguments()
        if first:
            spelling.roots[first] = "body"
        source = compile_expression(node, spelling, scope.called)
        roots = [root for root in spelling.roots if root != first]
        parameters = ", ".join(spelling.roots.values())
        space = {"__builtins__": {}, "bound": _bound, **spelling.objects}
        known = {*space, *spelling.roots.values(), *LOCALS}
        # Checked source, without builtins.
        code = eval(  # noqa: S307
            compile_source(f"lambda {parameters}: {source}", "template", "eval", known), space
        )
        name = f"_e{len(self.functions)}"
        self.functions[name] = _run(code, node, list(spelling.roots), wrap, self._budget.spend)
        return name, roots

    def output(self, node: nodes.Output, scope: Scope) -> Scope:
        node.nodes = [one if isinstance(one, nodes.TemplateData) else self._take(one, scope) for one in node.nodes]
        return scope

    def loop(self, node: nodes.For, scope: Scope) -> Scope:
        if node.recursive:
            raise Problem("bad-template", "`recursive` is not supported in templates", node.lineno)
        node.iter = self._take(node.iter, scope, lambda value: _Counted(_items(value), self._budget.spend))
        inside = bind(scope, _targets(node.target))
        if node.test is not None:
            node.test = self._take(node.test, inside)
        targets = [each.target for each in node.find_all(nodes.Assign)]
        targets += [each.target for each in node.find_all(nodes.AssignBlock)]
        names = frozenset(name for target in targets for name in _targets(target))
        # What a `set` before the loop began, one in the loop is meant to carry on.
        self.block(node.body, replace(bind(inside, ["loop"]), lost=inside.lost | (names & scope.bound)))
        self.block(node.else_, scope)
        return replace(scope, lost=scope.lost | names)

    def condition(self, node: nodes.If, scope: Scope) -> Scope:
        if len(node.elif_) > _MOST_ELIFS:
            message = f"`<% if %>` has {len(node.elif_):,} `<% elif %>`, and may have {_MOST_ELIFS}"
            hint = "look the value up in an object, as in `<< prices[name] >>`"
            raise Problem("bad-template", message, node.lineno, hint)
        node.test = self._take(node.test, scope)
        ends = [self.block(node.body, scope)]
        for other in node.elif_:
            other.test = self._take(other.test, scope)
            ends.append(self.block(other.body, scope))
        ends.append(self.block(node.else_, scope))
        # What only some branches set may still be the name from outside.
        bound = frozenset.intersection(*(end.bound for end in ends))
        some = frozenset().union(*(end.bound | end.perhaps for end in ends))
        called = frozenset.intersection(*(end.called for end in ends))
        lost = frozenset().union(*(end.lost for end in ends))
        return Scope(bound, some - bound, called, lost)

    def assign(self, node: nodes.Assign, scope: Scope) -> Scope:
        value = node.node
        if _calls_namespace(value):
            assert isinstance(value, nodes.Call)
            cells = nodes.Dict([nodes.Pair(nodes.Const(k.key), k.value) for k in value.kwargs], lineno=value.lineno)
            node.node = self._take(cells, scope, _Cells)
        else:
            node.node = self._take(value, scope)
        return bind(scope, _targets(node.target))

    def assign_block(self, node: nodes.AssignBlock, scope: Scope) -> Scope:
        self.block(node.body, scope)
        if node.filter is not None:
            node.filter = self._filters(node.filter, scope)
        return bind(scope, _targets(node.target))

    def filter_block(self, node: nodes.FilterBlock, scope: Scope) -> Scope:
        self.block(node.body, scope)
        node.filter = self._filters(node.filter, scope)
        return scope

    def _filters(self, outer: nodes.Filter, scope: Scope) -> nodes.Filter:
        inner = outer
        while isinstance(inner.node, nodes.Filter):
            inner = inner.node
        inner.node = nodes.Name(_BODY, "load", lineno=inner.lineno)
        name, roots = self._function(outer, scope, None, _BODY)
        arguments: list[nodes.Expr] = [nodes.Name(root, "load") for root in roots]
        return nodes.Filter(None, name, arguments, [], None, None, lineno=outer.lineno)

    def with_(self, node: nodes.With, scope: Scope) -> Scope:
        node.values = [self._take(value, scope) for value in node.values]
        self.block(node.body, bind(scope, [n for t in node.targets for n in _targets(t)]))
        return scope

    def macro(self, node: nodes.Macro, scope: Scope) -> Scope:
        if not node.name.isascii():
            raise unfit_name(node)
        node.defaults = [self._take(value, scope) for value in node.defaults]
        names = [name for target in node.args for name in _targets(target)]
        outside = bind(scope, [node.name], [node.name])
        self.block(node.body, bind(outside, [*names, "caller"], ["caller"]))
        return outside

    def call_block(self, node: nodes.CallBlock, scope: Scope) -> Scope:
        call = node.call
        if not isinstance(call.node, nodes.Name) or call.node.name not in scope.called:
            message = "`<% call %>` needs a macro of this template"
            raise Problem("bad-template", message, call.lineno)
        call.args = [self._take(value, scope) for value in call.args]
        for keyword in call.kwargs:
            keyword.value = self._take(keyword.value, scope)
        node.defaults = [self._take(value, scope) for value in node.defaults]
        names = [name for target in node.args for name in _targets(target)]
        self.block(node.body, bind(scope, names))
        return scope


def _run(
    code: Callable[..., Any],
    node: nodes.Expr,
    roots: list[str],
    wrap: Callable[[Any], Any] | None,
    spend: Callable[[int], None],
) -> Callable[..., Any]:
    """Return the function of an expression, whose errors are in the author's words."""

    def run(*arguments: Any) -> Any:
        spend(_STEP)
        try:
            return code(*arguments)
        except RunError:
            raise
        except Exception as error:  # noqa: BLE001  (re-raised, explained)
            values = {
                root: _bound(value, root) for root, value in zip(roots, arguments, strict=True) if value is not missing
            }
            raise RunError("template", explain_node(error, node, values)) from None

    if wrap is None:
        return run
    return lambda *arguments: wrap(run(*arguments))


def _items(value: Any) -> Any:
    """Return what `<% for %>` goes through."""
    if isinstance(value, (list, tuple, dict, str)):
        return value
    refuse_stream(value)
    hint = "; write `| default([])` where it may be null" if value is None else ""
    raise RunError("template", f"`for` needs a list, got {a_kind(value)}{hint}")


def _targets(target: nodes.Node) -> list[str]:
    """Return the names that a target binds. Raises Problem for what can't be one."""
    found = [node for node in (target, *target.find_all(nodes.Name)) if isinstance(node, nodes.Name)]
    for node in found:
        if not node.name.isascii():
            raise unfit_name(node)
    return [node.name for node in found]


def _calls_namespace(node: nodes.Node) -> bool:
    return (
        isinstance(node, nodes.Call)
        and isinstance(node.node, nodes.Name)
        and node.node.name == "namespace"
        and not node.args
        and node.dyn_args is None
        and node.dyn_kwargs is None
    )


_MISFIT: Final = (
    "the items of a `for` or `set` can't be unpacked into its names, or a macro was called with "
    "arguments that it has not"
)
_CAPTURES: Final[dict[type[nodes.Node], str]] = {
    nodes.AssignBlock: "set",
    nodes.FilterBlock: "filter",
    nodes.Macro: "macro",
    nodes.CallBlock: "call",
}
_TAGS: Final = {"fromimport": "from", "scope": "autoescape", "exprstmt": "do"}
_WALKS: Final[dict[type[nodes.Node], Callable[[_Statements, Any, Scope], Scope]]] = {
    nodes.Output: _Statements.output,
    nodes.For: _Statements.loop,
    nodes.If: _Statements.condition,
    nodes.Assign: _Statements.assign,
    nodes.AssignBlock: _Statements.assign_block,
    nodes.FilterBlock: _Statements.filter_block,
    nodes.With: _Statements.with_,
    nodes.Macro: _Statements.macro,
    nodes.CallBlock: _Statements.call_block,
}


_RAW: Final = re.compile(r"[-+]?\s*raw\s*([-+]?)%>")
_END_RAW: Final = re.compile(r"<%([-+]?)\s*endraw\s*([-+]?)%>")


@fast_dataclass()
class Program:
    """A compiled template. It knows no file, so equal texts share it."""

    names: tuple[str, ...]
    readings: tuple[tuple[Reading, str], ...]
    render: Render
    captures: str = ""
    written: tuple[str, ...] = ("",)  # the author's own text, cut where the << >> stand

    def text(self, *variables: Callable[[], Any]) -> str:
        """Return the text; there is a function for each of ``names``, in that order."""
        return "".join(self.render(self._bound(variables), "text"))

    def pieces(self, *variables: Callable[[], Any]) -> list[str | Bound]:
        """Return the author's own text, and what stands for each << >> as Bound."""
        if self.captures:
            message = f"`<% {self.captures} %>` makes text of values, which can't be kept apart then"
            raise RunError("template", message)
        return list(self.render(self._bound(variables), "bound"))

    def _bound(self, variables: tuple[Callable[[], Any], ...]) -> Mapping[str, Any]:
        bound = {}
        for name, read in zip(self.names, variables, strict=True):
            try:
                bound[name] = read()
            except NameError:
                # Not bound (yet). It is an error where the template reads it, if it does.
                continue
        return bound


@fast_dataclass()
class Template(Value):
    """A text with `<% %>` or `<# #>` in it; always a text."""

    program: Program
    found: tuple[Read, ...]

    @property
    def reads(self) -> tuple[Read, ...]:
        return self.found

    @property
    def text(self) -> str:
        return self.found[0].expression if self.found else ""

    def source(self, names: Spelling) -> str:
        return self._source(names, self.program.text)

    @property
    def captures(self) -> str:
        """The tag that keeps `source_of_pieces` from working, such as "filter", or ""."""
        return self.program.captures

    def source_of_pieces(self, names: Spelling) -> str:
        """Return the source of a list of texts and Bounds, as a SQL statement needs it."""
        return self._source(names, self.program.pieces)

    def _source(self, names: Spelling, code: Callable[..., Any]) -> str:
        reads = ", ".join(f"lambda: {names.name(name)}" for name in self.program.names)
        return f"{names.constant(code)}({reads})"


def compile_template(text: str) -> tuple[Program, list[Problem]]:
    """Compile a text template. With problems, its program reads its names and gives no text."""
    tokens: list[Token] = []
    spans: list[tuple[int, str]] = []
    found = Found()
    try:
        _scan_template(text, tokens, spans, found.problems)
        render = compile_statements(_parse(tokens), found)
    except Problem as problem:
        render = render_nothing
        found.problems.append(problem)
    except RecursionError:
        render = render_nothing
        found.problems.append(too_deep(0))
    shown = tuple((reading, _written(reading, spans)) for reading in found.readings)
    names = tuple(dict.fromkeys(reading.name for reading in found.readings))
    return Program(names, shown, render, found.captures, _own_text(tokens)), found.problems


def _own_text(tokens: list[Token]) -> tuple[str, ...]:
    """Return the text that is the author's own, whatever the statements choose of it, cut at each << >>."""
    pieces = [""]
    for token in tokens:
        if token.type == "data":
            pieces[-1] += token.value
        elif token.type == "variable_begin":
            pieces.append("")
    return tuple(pieces)


def _written(reading: Reading, spans: list[tuple[int, str]]) -> str:
    at = bisect_right(spans, (reading.offset, "\U0010ffff")) - 1
    return spans[at][1] if at >= 0 else ""


def _parse(tokens: list[Token]) -> nodes.Template:
    try:
        parser = TokenParser(tokens)
        return parser.parse()
    except TemplateSyntaxError as error:
        raise reword(error, tokens) from None


def _scan_template(text: str, tokens: list[Token], spans: list[tuple[int, str]], problems: list[Problem]) -> None:
    """Append the tokens of a whole template, and where each binding or statement begins."""
    position = 0
    #: White space is cut from the front of the next text, after `-%>`.
    cut = False

    def data(start: int, words: str, *, cut_end: bool = False) -> None:
        if cut:
            words = words.lstrip()
        if cut_end:
            words = words.rstrip()
        if words:
            tokens.append(Token(start, "data", words))

    while (opening := next_opening(text, position)) is not None:
        at, sign = opening
        before = text[position:at]
        if sign[0] == "\\":
            data(position, before + sign[1:])
            cut = False
            position = at + 3
            continue
        minus = sign != "<<" and text[at + 2 : at + 3] == "-"
        data(position, before, cut_end=minus)
        if sign == "<#":
            end = text.find("#>", at + 2)
            if end < 0:
                raise unclosed("#>", at)
            cut = text[end - 1] == "-" and end - 1 > at + 1
            position = end + 2
        elif sign == "<<":
            tokens.append(Token(at, "variable_begin", "<<"))
            position = scan(text, at + 2, ">>", tokens, problems)
            tokens.append(Token(position - 2, "variable_end", ">>"))
            spans.append((at, text[at + 2 : position - 2].strip()))
            cut = False
        elif (raw := _RAW.match(text, at + 2)) is not None:
            end_raw = _END_RAW.search(text, raw.end())
            if end_raw is None:
                raise Problem("bad-template", "`<% raw %>` has no `<% endraw %>`", at)
            cut = raw.group(1) == "-"
            data(raw.end(), text[raw.end() : end_raw.start()], cut_end=end_raw.group(1) == "-")
            cut = end_raw.group(2) == "-"
            position = end_raw.end()
        else:
            tokens.append(Token(at, "block_begin", "<%"))
            start = at + 3 if text[at + 2 : at + 3] in ("-", "+") else at + 2
            first = len(tokens)
            position = _scan_block(text, start, at, tokens, problems)
            if len(tokens) == first:
                raise Problem("bad-template", "the statement between `<%` and `%>` is missing", at)
            cut = tokens[-1].type == "sub"
            if tokens[-1].type in ("sub", "add"):
                tokens.pop()
            tokens.append(Token(position - 2, "block_end", "%>"))
            spans.append((at, text[start : position - 2].strip(" \t\n-+")))
    data(position, text[position:])


def _scan_block(text: str, start: int, at: int, tokens: list[Token], problems: list[Problem]) -> int:
    try:
        return scan(text, start, "%>", tokens, problems)
    except Problem as problem:
        if "is never closed with" in problem.message:
            raise unclosed("%>", at) from None
        raise
