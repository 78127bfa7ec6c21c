"""What an endpoint sends: the event names and the shapes of its chunks, its end marker and its JSON response.

The steps of called functions are followed with the shapes of the values that each call passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Final

from jinja2 import nodes

from streamstack.errors import Mark, fast_dataclass
from streamstack.language.analysis.evaluate import Evaluator
from streamstack.language.analysis.narrowing import Env
from streamstack.language.analysis.state import Reports
from streamstack.language.analysis.types import Results, TypeWalker
from streamstack.language.definition import Arguments, Endpoint, FunctionDefinition
from streamstack.language.expressions import Text, Value
from streamstack.language.expressions.compile import Expression
from streamstack.language.graph import Graph, Node, called_itself, constant
from streamstack.language.shapes import ANY, TEXT, Shape
from streamstack.language.values import MISSING, to_text

#: Event names that one step may have; more are not told apart.
_MOST_NAMES: Final = 20
#: How deep calls are followed.
_DEEPEST: Final = 20

Names = frozenset[str | None]


@fast_dataclass()
class Emission:
    """A step that sends a chunk or the end marker, on one way to it.

    ``events`` are the names that its event may have, None for a chunk without one; with ``others`` it may have further
    names. ``metadata`` and ``content`` are None where the step has none. ``called`` is the step that calls the function
    in which it stands; None for a step of the endpoint.
    """

    mark: Mark
    content: Shape | None
    metadata: Shape | None
    events: Names = frozenset((None,))
    others: bool = False
    closes: bool = False
    own_id: bool = False
    called: Mark | None = None


@fast_dataclass()
class Sent:
    """All that an endpoint sends. ``response`` is the value of a `json` endpoint."""

    emissions: tuple[Emission, ...]
    response: Shape | None = None

    @property
    def chunks(self) -> tuple[Emission, ...]:
        """The chunks, without end markers."""
        return tuple(each for each in self.emissions if not each.closes)

    @property
    def ends(self) -> tuple[Emission, ...]:
        """The end markers."""
        return tuple(each for each in self.emissions if each.closes)


@fast_dataclass()
class MetadataEvents:
    """Which events carry `{"content", "metadata"}`: those of a name where any step of that name gives metadata."""

    names: Names
    every: bool  # a step whose event is a binding gives metadata

    def has_metadata(self, event: str | None) -> bool:
        """Whether the events of this name have the shape with metadata."""
        return self.every or event in self.names


def metadata_events(steps: Iterable[Node]) -> MetadataEvents:
    """Return which events of an endpoint carry metadata. ``steps`` are all that it may reach."""
    names: set[str | None] = set()
    every = False
    for node in steps:
        if node.step.function.name == "stream" and node.arguments.get("metadata") is not None:
            event = constant(node.arguments.get("event"), None)
            every = every or event is MISSING
            names.add(None if event is MISSING else event)
    return MetadataEvents(frozenset(names), every)


def reachable(graph: Graph, functions: Mapping[str, Graph]) -> list[Node]:
    """Return every step that a run may reach, through the functions it calls; in these by their graphs."""
    found: list[Node] = []
    waiting, met = [graph], set[str]()
    while waiting:
        steps = waiting.pop().nodes
        found += steps
        for node in steps:
            if node.step.function.name == "call":
                name = constant(node.arguments.get("function"))
                new = (functions.keys() if name is MISSING else {name} & functions.keys()) - met
                met |= new
                waiting += [functions[each] for each in new]
    return found


def follow_emissions(endpoint: Endpoint, functions: Mapping[str, FunctionDefinition], results: Results) -> Sent:
    """Return what an endpoint sends, on every path through it."""
    walker = TypeWalker(endpoint, Graph(endpoint), Reports(frozenset()), results)
    returned = walker.follow()
    emissions = tuple(_emissions(walker, functions, results, ()))
    if endpoint.response_type != "json":
        return Sent(emissions)
    return Sent((), returned if endpoint.response is None else walker.response)


def _emissions(
    walker: TypeWalker, functions: Mapping[str, FunctionDefinition], results: Results, calls: tuple[str, ...]
) -> Iterator[Emission]:
    for node, (shapes, env) in walker.reached.items():
        if node.emits:
            yield _emission(node, shapes, env, walker.evaluate)
        for name in called_itself(node.step):
            function = functions.get(name)
            if function is None or name in calls or len(calls) >= _DEEPEST:
                continue
            passed = {use.entry: _passed(use.value, env, walker.evaluate) for use in node.uses if use.entry is not None}
            inner = TypeWalker(function, Graph(function), Reports(frozenset()), results, passed)
            inner.follow()
            for each in _emissions(inner, functions, results, (*calls, name)):
                yield replace(each, called=node.mark)


def _passed(value: Value, env: Env, evaluate: Evaluator) -> Shape:
    """Return the shape of a value that is passed to a function, with its constant where it can be only one text."""
    shape = evaluate.value(value, dict(env))
    texts = _texts(value, env, evaluate) if shape.is_only("text") else None
    if texts is not None and len(texts) == 1 and (text := next(iter(texts))) is not None:
        return replace(TEXT, constant=text)
    return shape


def _emission(node: Node, shapes: Mapping[str, Shape], env: Env, evaluate: Evaluator) -> Emission:
    arguments = node.arguments
    if node.step.function.effects.closes:
        content = shapes.get("content")
        return Emission(
            node.mark, None if content is None or content.is_null else content, shapes.get("metadata"), closes=True
        )
    event = arguments.get("event")
    names: Names | None = frozenset((None,))
    if isinstance(event, Value):
        names = _texts(event, env, evaluate)
    own_id = isinstance(arguments.get("id"), Value)
    content = shapes.get("content", ANY).sure  # null is refused
    if (split := arguments.get("split")) is not None:
        content = _pieces(content, split)
    known = names
    if known is None:  # any name, and none where the value may be null
        null = isinstance(event, Value) and evaluate.value(event, dict(env)).null
        known = frozenset((None,)) if null else frozenset()
    return Emission(node.mark, content, shapes.get("metadata"), known, names is None, own_id=own_id)


def _pieces(content: Shape, split: object) -> Shape:
    """Return the shape of the pieces that a content is split into: those of a list are lists."""
    unit = constant(split.get("by")) if isinstance(split, Arguments) else MISSING
    return content if unit == "records" else TEXT | content if unit is MISSING else TEXT


# -- the texts that an expression may have


def _texts(value: Value, env: Env, evaluate: Evaluator) -> Names | None:
    """Return the texts that a value may be, None for null or an empty text; None where they are not known."""
    if value.constant is not MISSING:
        return frozenset((_name(value.constant),))
    if isinstance(value, Expression):
        return _limited(_texts_of(value.node, value, env, evaluate))
    if not isinstance(value, Text):
        return None
    parts = [frozenset((part,)) if isinstance(part, str) else _texts(part, env, evaluate) for part in value.parts]
    return _joined(parts)


def _texts_of(node: nodes.Node, value: Value, env: Env, evaluate: Evaluator) -> Names | None:
    if isinstance(node, nodes.Const):
        return frozenset((_name(node.value),))
    if isinstance(node, nodes.CondExpr):
        first = _texts_of(node.expr1, value, env, evaluate)
        second = frozenset((None,)) if node.expr2 is None else _texts_of(node.expr2, value, env, evaluate)
        return None if first is None or second is None else first | second
    if isinstance(node, nodes.Concat):
        return _joined([_texts_of(each, value, env, evaluate) for each in node.nodes])
    with evaluate.at(value, dict(env)):
        shape = evaluate.of(node, soft=True)
    if shape.is_null:
        return frozenset((None,))
    return None if shape.constant is MISSING else frozenset((_name(shape.constant),))


def _joined(parts: list[Names | None]) -> Names | None:
    """Return the texts that the parts make when they are put together."""
    count = 1
    known: list[Names] = []
    for part in parts:
        if part is None or (count := count * len(part)) > _MOST_NAMES:
            return None
        known.append(part)
    return frozenset(_name("".join(each or "" for each in texts)) for texts in product(*known))


def _limited(names: Names | None) -> Names | None:
    return None if names is None or len(names) > _MOST_NAMES else names


def _name(value: object) -> str | None:
    return (to_text(value) or None) if value is not None else None
