"""Whether the chunks of a resumable endpoint have ids of their author's, which would hide where readers are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streamstack.errors import Diagnostic
from streamstack.language.analysis.callees import called_itself, reached
from streamstack.language.definition import Definition, Endpoint, FunctionDefinition
from streamstack.language.expressions import Value
from streamstack.language.findings import find
from streamstack.language.walk import steps_of

_HINT = "take `id` out, or write `resume: false`: put your own id into the content or the metadata"


def check_resume(
    endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]
) -> list[Diagnostic]:
    """Report `id` on the chunks of an endpoint that gives them ids itself.

    Of a function that it calls, the finding stands at the call.
    """
    if endpoint.streaming.resume is None:
        return []
    why = "readers come back with the ids that `resume` gives"
    found = [
        find("not-resumable", value.mark, f"the chunk has an id of its own, and {why}", _HINT)
        for value in _ids(endpoint)
    ]
    for step in steps_of(endpoint.stack):
        found += [
            find(
                "not-resumable",
                step.key_mark,
                f"`{name}` is called, and {value.mark} gives a chunk an id of its own: {why}",
                _HINT,
            )
            for name in called_itself(step)
            for callee in reached(name, functions)
            for value in _ids(callee)
        ]
    return found


def _ids(definition: Definition) -> Iterator[Value]:
    for step in steps_of(definition.stack):
        if step.function.name == "stream":
            value = step.arguments.get("id")
            if isinstance(value, Value) and value.constant is not None:
                yield value
