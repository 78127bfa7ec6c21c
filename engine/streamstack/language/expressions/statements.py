"""The statements of a template, compiled by Jinja2; its expressions, compiled by us.

Each expression is replaced in Jinja2's tree by a call of the function it was compiled to, with
the names it reads as arguments. A name that Jinja2 finds unbound arrives as ``missing`` and is
Python's NameError where it is read, as everywhere in the language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from jinja2 import nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.runtime import Context, LoopContext, Undefined, new_context
from jinja2.utils import Namespace, missing

from streamstack.errors import RunError
from streamstack.language.expressions.analyse import Analysis, Reading, Scope, bind
from streamstack.language.expressions.compile import compile_expression
from streamstack.language.expressions.explain import explain_node
from streamstack.language.expressions.generator import TEMPLATES
from streamstack.language.expressions.scan import Problem, too_deep
from streamstack.language.operators import a_kind, refuse_stream
from streamstack.language.values import Opaque, to_text
from streamstack.records import record

#: Renders over variables; under "bound", what << >> writes stays a Bound.
Render = Callable[[Mapping[str, Any], Literal["text", "bound"]], Iterable[Any]]

_LOOP: Final = frozenset(
    [
        "index",
        "index0",
        "revindex",
        "revindex0",
        "first",
        "last",
        "length",
        "previtem",
        "nextitem",
        "depth",
        "depth0",
    ]
)
#: The name of what a `<% filter %>` or `<% set x | ... %>` block has written.
_BODY: Final = "__body__"


@record()
class Bound:
    """A value that a template writes, not yet text: a parameter of a SQL statement."""

    value: Any


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
        return f"bound({parameter}, {root!r})"

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

    Raises Problem for what is no part of templates.
    """
    walk = _Statements(found)
    walk.block(tree.body, Scope())
    tree.set_environment(TEMPLATES)
    if found.problems:
        return render_nothing
    try:
        code = TEMPLATES.compile(tree)
    except SyntaxError:
        # Python allows 20 blocks in one another.
        raise too_deep(0) from None
    except TemplateSyntaxError as error:
        raise Problem("bad-template", error.message or "", error.lineno) from None
    return _program(code, walk.functions)


def render_nothing(variables: Mapping[str, Any], way: Literal["text", "bound"]) -> Iterable[Any]:
    """Stand for a template that has findings."""
    return []


def _program(code: Any, functions: Mapping[str, Callable[..., Any]]) -> Render:
    def load(write: Callable[[Any], Any]) -> Callable[[Context], Iterable[Any]]:
        namespace: dict[str, Any] = {
            "__file__": "<template>",
            "environment": TEMPLATES,
            "written": write,
            **functions,
        }
        # Jinja2's source for the statements, and in it calls of what we compiled.
        exec(code, namespace)  # noqa: S102
        root: Callable[[Context], Iterable[Any]] = namespace["root"]
        return root

    texts, pieces = load(to_text), load(Bound)

    def render(variables: Mapping[str, Any], way: Literal["text", "bound"]) -> Iterable[Any]:
        context = new_context(TEMPLATES, None, {}, dict(variables), False, {})
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

    def __init__(self, found: Found) -> None:
        self.found = found
        self.functions: dict[str, Callable[..., Any]] = {}

    def block(self, body: list[nodes.Node], scope: Scope) -> Scope:
        """Replace the expressions of statements; return the scope behind them."""
        for statement in body:
            walk = _WALKS.get(type(statement))
            if walk is None:
                name = type(statement).__name__.lower()
                raise Problem(
                    "bad-template",
                    f"`<% {_TAGS.get(name, name)} %>` is no part of templates here",
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

    def _function(
        self, node: nodes.Expr, scope: Scope, wrap: Any = None, first: str = ""
    ) -> tuple[str, list[str]]:
        analysis = Analysis(bind(scope, [first]) if first else scope)
        analysis.visit(node)
        self.found.readings += analysis.readings
        self.found.problems += analysis.problems
        if analysis.problems:
            return "", []
        spelling = _Arguments()
        if first:
            spelling.roots[first] = "body"
        source = compile_expression(node, spelling, scope.called)
        roots = [root for root in spelling.roots if root != first]
        parameters = ", ".join(spelling.roots.values())
        # Source that we have written ourselves, without builtins.
        code = eval(  # noqa: S307
            f"lambda {parameters}: {source}",
            {"__builtins__": {}, "bound": _bound, **spelling.objects},
        )
        name = f"_e{len(self.functions)}"
        self.functions[name] = _run(code, node, list(spelling.roots), wrap)
        return name, roots

    def output(self, node: nodes.Output, scope: Scope) -> Scope:
        node.nodes = [
            one if isinstance(one, nodes.TemplateData) else self._take(one, scope)
            for one in node.nodes
        ]
        return scope

    def loop(self, node: nodes.For, scope: Scope) -> Scope:
        if node.recursive:
            raise Problem("bad-template", "`recursive` is no part of templates here", node.lineno)
        node.iter = self._take(node.iter, scope, _items)
        inside = bind(scope, _targets(node.target))
        if node.test is not None:
            node.test = self._take(node.test, inside)
        self.block(node.body, bind(inside, ["loop"]))
        self.block(node.else_, scope)
        return scope

    def condition(self, node: nodes.If, scope: Scope) -> Scope:
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
        return Scope(bound, some - bound, called)

    def assign(self, node: nodes.Assign, scope: Scope) -> Scope:
        value = node.node
        if _calls_namespace(value):
            assert isinstance(value, nodes.Call)
            cells = nodes.Dict(
                [nodes.Pair(nodes.Const(k.key), k.value) for k in value.kwargs],
                lineno=value.lineno,
            )
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
    code: Callable[..., Any], node: nodes.Expr, roots: list[str], wrap: Callable[[Any], Any] | None
) -> Callable[..., Any]:
    """Return the function of an expression, whose errors are told in the author's words."""

    def run(*arguments: Any) -> Any:
        try:
            return code(*arguments)
        except RunError:
            raise
        except Exception as error:  # noqa: BLE001  (re-raised, explained)
            values = {
                root: _bound(value, root)
                for root, value in zip(roots, arguments, strict=True)
                if value is not missing
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
    found = [target, *target.find_all(nodes.Name)]
    return [node.name for node in found if isinstance(node, nodes.Name)]


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
