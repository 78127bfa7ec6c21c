"""From definitions to plans: compiled once when they are loaded, then only run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language import experiments, kinds
from streamstack.language.analysis.emissions import MetadataEvents, metadata_events, reachable
from streamstack.language.definition import Definition, Endpoint, FunctionDefinition, Project, RateLimit
from streamstack.language.expressions import Read, Value
from streamstack.language.expressions.parse import use_filters
from streamstack.language.graph import JOB_START, Graph, Node
from streamstack.language.values import MISSING, Rate
from streamstack.runtime.compiler import Code
from streamstack.runtime.concurrency import guarded, limited, retried
from streamstack.runtime.faults import located
from streamstack.runtime.inputs import Checker, Inputs, compile_inputs
from streamstack.runtime.probes import Probes
from streamstack.runtime.run import Run, Sink, begin_call, end_call

T = TypeVar("T")
Start = Callable[..., Coroutine[Any, Any, Any]]
#: What a limit comes to for a request: its rate, its key, its concurrency; None where a part is not a binding.
LimitValues = tuple[Rate | None, Any, int | None]


@dataclass(frozen=True, slots=True)
class Plan:
    """An endpoint, ready to run."""

    endpoint: Endpoint
    checker: Checker
    shapes: MetadataEvents
    reads_body: bool
    experiments: frozenset[str]  # those that it reads; "" where it reads `experiment` as a whole
    source: str
    #: The stack as a plain function, where nothing in it ever waits. What it raises has no place yet (`located`).
    at_once: Callable[[Run, dict[str, Any]], Any] | None
    _stack: Callable[..., Any]
    _headers: Callable[[Run, dict[str, Any]], dict[str, Any]]
    _limits: tuple[Callable[[Run, dict[str, Any]], LimitValues], ...] = ()
    #: The functions of the project by name, where any step of it starts jobs.
    jobs: Mapping[str, Callee] | None = None
    _cache_key: Callable[[Run, dict[str, Any]], Any] | None = None
    #: Tells the answers of this definition from those of an earlier one, which may still be cached.
    version: str = ""

    async def start(self, run: Run, inputs: dict[str, Any]) -> Any:
        """Run the stack; return what a json endpoint answers.

        Raises RunError with its place for whatever goes wrong, but for being cancelled.
        """
        try:
            if self.at_once is not None:
                return self.at_once(run, inputs)
            return await self._stack(run, inputs)
        except Exception as error:  # noqa: BLE001  (raised again, with its place)
            fault = located(error)
            raise fault from fault.__cause__

    def headers(self, run: Run, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the endpoint's own response headers."""
        return _placed(self._headers, run, inputs)

    def limit(self, index: int, run: Run, inputs: dict[str, Any]) -> LimitValues:
        """Return the rate, the key and the concurrency of one of the endpoint's limits, for a request."""
        return _placed(self._limits[index], run, inputs)

    def cache_key(self, run: Run, inputs: dict[str, Any]) -> Any:
        """Return what `by` of the cache comes to for a request; MISSING without one."""
        return MISSING if self._cache_key is None else _placed(self._cache_key, run, inputs)


def _placed(code: Callable[[Run, dict[str, Any]], T], run: Run, inputs: dict[str, Any]) -> T:
    """Call compiled code outside of the stack. Raises RunError with its place for whatever goes wrong."""
    try:
        return code(run, inputs)
    except Exception as error:  # noqa: BLE001  (raised again, with its place)
        fault = located(error)
        raise fault from fault.__cause__


@dataclass(frozen=True, slots=True)
class Callee:
    """A `kind: function`, ready to be called."""

    definition: FunctionDefinition
    checker: Checker
    shapes: MetadataEvents
    source: str
    _stack: Start

    async def call(self, run: Run, arguments: Mapping[str, Any], sink: Sink) -> Any:
        """Check the inputs and run the stack; return what it returns.

        Raises RunError ``template`` for inputs that don't fit: the caller is the definition, not the client.
        """
        values = self.check(arguments)
        begin_call()
        try:
            return await self._stack(run, values, sink)
        finally:
            end_call()

    def check(self, arguments: Mapping[str, Any]) -> Inputs:
        """Return the inputs converted and checked. Raises RunError ``template``."""
        try:
            return self.checker.check(arguments)
        except RunError as error:
            message = f"the inputs of `{self.definition.name}` don't fit: {error.message}"
            raise RunError("template", message, details=error.details, parameter="with") from None


def compile_project(project: Project, probes: Probes | None = None) -> tuple[Plan, ...]:
    """Compile every endpoint that is not disabled, and the functions they call; with ``probes``, which count steps."""
    use_filters(project.filters)
    functions: dict[str, Callee] = {}
    graphs = {name: Graph(each) for name, each in project.functions.items()}
    endpoints = [Graph(each) for each in project.endpoints]
    nodes = [node for graph in [*endpoints, *graphs.values()] for node in graph.nodes]
    delayed = any(map(_delays, nodes))
    for definition in project.functions.values():
        functions[definition.name] = _callee(definition, graphs, functions, probes, delayed=delayed)
    jobs = functions if any(node.step.function.name == JOB_START for node in nodes) else None
    return tuple(
        _plan(endpoint, graph, functions, graphs, probes, jobs)
        for endpoint, graph in zip(project.endpoints, endpoints, strict=True)
        if not endpoint.disabled
    )


def _delays(node: Node) -> bool:
    return node.step.function.name == "stream" and node.arguments.get("delay") is not None


def _callee(
    definition: FunctionDefinition,
    graphs: Mapping[str, Graph],
    functions: Mapping[str, Callee],
    probes: Probes | None,
    *,
    delayed: bool,
) -> Callee:
    graph = graphs[definition.name]
    code = _written(graph, functions, probes, notes_sending=delayed)
    shapes = metadata_events(reachable(graph, graphs))
    return Callee(definition, compile_inputs(definition.inputs), shapes, code.text, code.compile()["stack"])


def _plan(
    endpoint: Endpoint,
    graph: Graph,
    functions: Mapping[str, Callee],
    graphs: Mapping[str, Graph],
    probes: Probes | None,
    jobs: Mapping[str, Callee] | None,
) -> Plan:
    nodes = reachable(graph, graphs)
    reads = _reads(endpoint, nodes)
    code = _written(graph, functions, probes, notes_sending=any(map(_delays, nodes)))
    compiled = code.compile()
    version = hashlib.sha256()
    if endpoint.cache is not None:
        for text in (code.text, *(each.source for _, each in sorted(functions.items()))):
            version.update(text.encode("utf-8", "replace"))
    return Plan(
        endpoint=endpoint,
        checker=compile_inputs(endpoint.inputs, endpoint.input_rules),
        shapes=metadata_events(nodes),
        reads_body=any(read.is_body for read in reads),
        experiments=frozenset(
            str(read.path[0]) if read.path else "" for read in reads if read.name == experiments.EXPERIMENT
        ),
        source=code.text,
        at_once=None if code.waits("stack") else compiled["stack"],
        _stack=compiled["stack"],
        _headers=compiled["headers"],
        _limits=tuple(compiled[f"limit_{index}"] for index, _ in enumerate(endpoint.rate_limits)),
        jobs=jobs,
        _cache_key=compiled.get("cache_key"),
        version=version.hexdigest()[:16],
    )


def _written(
    graph: Graph, functions: Mapping[str, Callee], probes: Probes | None = None, *, notes_sending: bool
) -> Code:
    """Write the Python of a definition: `stack` (of an endpoint a plain function, where it may be), and `headers`."""
    definition, root = graph.definition, graph.root
    code = Code(definition.title, notes_sending=notes_sending, probes=probes)
    endpoint = isinstance(definition, Endpoint)
    code.namespace.update(_FIXED, functions=functions, __of_endpoint__=endpoint)
    response = definition.response if isinstance(definition, Endpoint) else None
    with code.definition("stack", "run, v_input, sink=None", root, plain=endpoint):
        if response is None:
            code.steps(root)
        else:
            # A `return` ends the steps; what is answered is the response.
            with code.part("steps", root.bound) as name:
                code.steps(root)
            code.line(f"{code.called(name)}()")
            code.section = "response"
            code.line("return (")
            code.line(f" {code.source(response)}", response)
            code.line(")")
    if isinstance(definition, Endpoint):
        code.section = "headers"
        with code.indented("def headers(run, v_input):"):
            code.line("sink = run.sink")
            code.line("return {")
            for name, value in definition.headers:
                code.line(f" {code.literal(name)}: {code.source(value)},", value)
            code.line("}")
        for index, limit in enumerate(definition.rate_limits):
            _write_limit(code, index, limit)
        if definition.cache is not None and (by := definition.cache.by) is not None:
            code.section = "cache"
            with code.indented("def cache_key(run, v_input):"):
                code.line("sink = run.sink")
                code.line("return (")
                code.line(f" {code.source(by)}", by)
                code.line(")")
    return code


def listing(definition: Definition, project: Project) -> str:
    """Return the Python that a definition becomes, for reading: with the place of each step beside its lines."""
    graph = Graph(definition)
    graphs = {name: Graph(each) for name, each in project.functions.items()}
    delayed = any(map(_delays, reachable(graph, graphs)))
    return _written(graph, {}, notes_sending=delayed).listing()


def _write_limit(code: Code, index: int, limit: RateLimit) -> None:
    """Write the Python that evaluates the bindings of a limit."""
    code.section = "rateLimit"
    parts = (("limit", limit.rate, kinds.rate), ("by", limit.by, None), ("concurrent", limit.concurrent, kinds.integer))
    with code.indented(f"def {code.named(f'limit_{index}')}(run, v_input):"):
        code.line("sink = run.sink")
        code.line("return (")
        for name, value, convert in parts:
            if not isinstance(value, Value):
                code.line(" None,")
            elif convert is None:
                code.line(f" {code.source(value)},", value)
            else:
                code.line(f" {code.constant(convert)}({code.source(value)}, {code.literal(name)}),", value)
        code.line(")")


def stream_object(sink: Sink) -> dict[str, Any]:
    """Return `stream` as a value."""
    return {"count": sink.count, "bytes": sink.bytes}


def run_object(run: Run) -> dict[str, Any]:
    """Return `run` as a value."""
    return {"id": run.id, "startedAt": run.started, "elapsedMs": run.elapsed_ms, "outcome": run.outcome}


def loop_object(index: int, source: Any) -> dict[str, Any]:
    """Return `loop` as a value; without last and length where they are not known."""
    loop = {"index": index + 1, "index0": index, "first": index == 0}
    if isinstance(length := getattr(type(source), "length", None), property) or length is None:
        return loop
    return {**loop, "last": index + 1 == source.length, "length": source.length}


_FIXED: Mapping[str, Any] = {
    "clock": clock,
    "MISSING": MISSING,
    "limited": limited,
    "retried": retried,
    "guarded": guarded,
    "stream_object": stream_object,
    "run_object": run_object,
    "loop_object": loop_object,
}


def _reads(endpoint: Endpoint, nodes: Iterable[Node]) -> list[Read]:
    """Return what an endpoint reads, itself and in the functions that it calls."""
    values = [value for node in nodes for value in node.values]
    values += endpoint.bindings
    if endpoint.response is not None:
        values.append(endpoint.response)
    return [read for value in values for read in value.reads]


def compile_binding(value: Value, title: str) -> Callable[[Run, dict[str, Any]], Any]:
    """Return what evaluates a binding outside of a stack, for a run with its inputs.

    It raises RunError, with the place, for whatever goes wrong. ``title`` is how errors call what the binding is for.
    """
    code = Code(title)
    code.namespace.update(_FIXED)
    code.section = title
    with code.indented(f"def {code.named('binding')}(run, v_input):"):
        code.line("sink = run.sink")
        code.line("return (")
        code.line(f" {code.source(value)}", value)
        code.line(")")
    return partial(_placed, code.compile()["binding"])
