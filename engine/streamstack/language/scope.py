"""The analysis of one definition: its names, its streams, its chunks, on every path through it."""

from __future__ import annotations

from collections.abc import Mapping

from streamstack.errors import Diagnostic
from streamstack.language.analysis.callees import Callees, Summary
from streamstack.language.analysis.emission import describe, of_streams
from streamstack.language.analysis.state import (
    OF_A_BODY,
    OF_EVERY_STREAM,
    Binding,
    Content,
    Made,
    State,
    Voice,
)
from streamstack.language.analysis.walker import Walker
from streamstack.language.definition import Definition, Endpoint, FunctionDefinition
from streamstack.language.expressions import Value


def callees_of(functions: Mapping[str, FunctionDefinition]) -> Callees:
    """Return what `analyse` knows of functions, to be shared by the definitions of a project."""
    return Callees(functions, _sum_up)


def analyse(
    definition: Definition, functions: Mapping[str, FunctionDefinition] | Callees
) -> list[Diagnostic]:
    """Report what is wrong with names, streams and chunks on any path through a definition.

    ``functions`` are those it may call; given as `callees_of` returns them, each is followed once for all definitions.
    It never raises. The time is linear in the size of the definition.
    """
    callees = functions if isinstance(functions, Callees) else callees_of(functions)
    walker = Walker(definition, callees)
    end, _ = _follow(walker)
    if isinstance(definition, Endpoint):
        _check_endpoint(walker, definition, end)
    _report_unused(walker)
    return sorted(walker.reports.found.values())


def _follow(walker: Walker) -> tuple[State | None, Content]:
    """Follow a whole definition; return the state in which it ends, and what it gives."""
    definition = walker.definition
    state = State({})
    for declared in getattr(definition, "inputs", ()):
        is_function = isinstance(definition, FunctionDefinition)
        if declared.type == "stream" or (is_function and declared.type == "json"):
            properties = OF_EVERY_STREAM if is_function else OF_A_BODY
            made = Made(f"`input.{declared.name}`", declared.mark, properties=properties)
            if declared.type == "json":
                made.maybe_input = declared.name
            content = Content((made,), plain=declared.type == "json")
            state.names[f"input.{declared.name}"] = Binding(sure=True, content=content)
    if isinstance(definition, Endpoint):
        for _, value in definition.headers:
            walker.names.read(value, state)
        for limit in definition.rate_limits:
            for value in limit.bindings:
                walker.names.read(value, state)
        if definition.response_type == "json":
            walker.answer_json()
    end, given = walker.leave_frame(walker.stack(definition.stack, state))
    walker.finish(walker.copies[0].deferred, end)
    return end, given


def _sum_up(function: FunctionDefinition, callees: Callees) -> Summary:
    """Follow a function for what its callers must know."""
    walker = Walker(function, callees)
    end, given = _follow(walker)
    emission, streams = walker.emission, given.streams
    first = min((event.mark for event in emission.met), default=None)
    silent = end is None or end.silent or not emission.any
    pending = end.pending if end is not None else ()
    return Summary(
        function.name,
        Voice(emission.any, silent, pending, tuple(emission.late)),
        emits=first,
        closes=end is not None and end.done is not None,
        comes_back=end is not None,
        gives_stream=bool(streams) and any(made.maybe_input is None for made in streams),
        gives_plain=given.plain,
        properties=frozenset[str]().union(*(made.properties for made in streams)) | OF_EVERY_STREAM,
        stream_voice=of_streams(streams) if streams else Voice(),
        brief=bool(streams) and all(made.brief for made in streams),
    )


def _check_endpoint(walker: Walker, endpoint: Endpoint, end: State | None) -> None:
    """Report what concerns the answer of an endpoint."""
    reports, emission = walker.reports, walker.emission
    if endpoint.response is not None and endpoint.response_type == "json" and end is not None:
        _check_response(walker, endpoint.response, end)
    if endpoint.response_type == "json":
        return
    if endpoint.response is not None:
        reports.add(
            "response-in-stream",
            endpoint.response.mark,
            "a streaming endpoint sends chunks; nothing sends its `response`",
        )
    if not emission.any:
        reports.add(
            "no-chunks",
            endpoint.stack.mark,
            f"no path through {endpoint.title} sends a chunk",
        )
    for wait, chunk in emission.late:
        reports.add("buffers-stream", wait.mark, describe(wait, chunk), wait.advice)
    if endpoint.streaming.format == "json" and emission.any:
        reports.add(
            "buffers-stream",
            endpoint.mark,
            "`format: json` keeps all chunks and answers with one document at the end",
            "leave `format` out: then the reader chooses by Accept, and JSON is there for who asks for it",
        )


def _check_response(walker: Walker, value: Value, end: State) -> None:
    walker.names.read(value, end)
    name, content = walker.names.content(value, end)
    if content.is_stream:
        line = content.streams[0].mark.line
        walker.reports.add(
            "stream-in-expression",
            value.mark,
            f"`{name}` is a stream (made in line {line}), which JSON can't hold",
            "`collect` it and answer the list, or write `responseType: streaming`",
        )


def _report_unused(walker: Walker) -> None:
    names = walker.names
    for name, (mark, is_stream) in names.bound_at.items():
        if name in names.read_somewhere or name.startswith("_"):
            continue
        words = ", so that nothing of the stream is ever fetched" if is_stream else ""
        walker.reports.add("unused-variable", mark, f"`{name}` is never read{words}")
