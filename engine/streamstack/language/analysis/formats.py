"""What the format of an endpoint can't carry of what its steps send, as far as it is known without running."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamstack.errors import Diagnostic
from streamstack.formats import BY_NAME
from streamstack.formats.items import refuse
from streamstack.formats.spec import Format
from streamstack.language.analysis.callees import called_itself, reached
from streamstack.language.definition import (
    Arguments,
    Definition,
    Endpoint,
    FunctionDefinition,
    Given,
    Input,
    Step,
)
from streamstack.language.expressions import Value
from streamstack.language.expressions.value import ListValue, ObjectValue
from streamstack.language.findings import find
from streamstack.language.values import MISSING
from streamstack.language.walk import steps_of

#: Inputs whose values are no text, by type, and one such value.
_SAMPLES: Final[Mapping[str, Any]] = {
    "integer": 0,
    "decimal": 0.5,
    "boolean": True,
    "list": [],
}

#: By function: its parameters that not every format has a place for, and what the specs call that.
_PLACES: Final[Mapping[str, Mapping[str, str]]] = {
    "stream": {"event": "event", "id": "id", "metadata": "metadata"},
    "done": {"content": "done.content", "metadata": "done.metadata"},
}


def check_format(
    endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]
) -> list[Diagnostic]:
    """Report the steps that surely send what the endpoint's fixed format can't carry."""
    spec = BY_NAME.get(endpoint.streaming.format)
    if endpoint.response_type != "streaming" or spec is None:
        return []
    found = list(_left_out(endpoint, spec))
    return found + _check_dialect(endpoint, functions) if spec.dialect else found


def _left_out(endpoint: Endpoint, spec: Format) -> Iterator[Diagnostic]:
    """Report what has no place beside the content. Functions that are called may be for other formats, too."""
    for step in steps_of(endpoint.stack):
        for name, key in _PLACES.get(step.function.name, {}).items():
            value = step.arguments.get(name)
            if key in spec.carries or not isinstance(value, Value) or value.constant is None:
                continue
            message = f"`{name}` has no effect: `format: {spec.name}` sends {_sent(key, spec)}"
            hint = "take it out, or write another format"
            yield find("no-effect", value.mark, message, hint)


def _sent(key: str, spec: Format) -> str:
    if not key.startswith("done"):
        return "the content alone"
    return "what its SDKs wait for at the end" if spec.dialect else "nothing of `done`"


def _check_dialect(
    endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]
) -> list[Diagnostic]:
    """Report the steps that surely send what the endpoint's dialect can't carry.

    Of a function that it calls, the finding stands at the call.
    """
    format_ = f"`format: {endpoint.streaming.format}`"
    found = [
        find("not-in-dialect", value.mark, f"the content {fault}", _hint(format_))
        for value, fault in _faults(endpoint)
    ]
    for step in steps_of(endpoint.stack):
        for name in called_itself(step):
            found += [
                find(
                    "not-in-dialect",
                    step.key_mark,
                    f"`{name}` is called, and {value.mark} sends content that {fault}",
                    _hint(format_),
                )
                for callee in reached(name, functions)
                for value, fault in _faults(callee)
            ]
    return found


def _hint(format_: str) -> str:
    return f"{format_} carries text, and the items that `llm.chat` gives"


def _faults(definition: Definition) -> Iterator[tuple[Value, str]]:
    inputs = {each.name: each for each in getattr(definition, "inputs", ())}
    for step in steps_of(definition.stack):
        value = _content(step)
        if value is not None and (fault := refuse(_known(value, inputs))) is not None:
            yield value, fault


def _content(step: Step) -> Value | None:
    """Return what a step sends as it is; pieces of a text are text, whatever was cut."""
    if step.function.name != "stream":
        return None
    value = step.arguments.get("content")
    split = step.arguments.get("split")
    if split is not None and not _cuts_records(split):
        return None
    return value if isinstance(value, Value) else None


def _cuts_records(split: Any) -> bool:
    if not isinstance(split, Arguments):
        return False
    by = split.get("by")
    return (by.value if isinstance(by, Given) else getattr(by, "constant", None)) == "records"


def _known(value: Value, inputs: Mapping[str, Input]) -> Any:
    """Return what is known of a value: its type, or the parts of an object; MISSING for nothing."""
    if value.constant is not MISSING:
        return value.constant
    if isinstance(value, ListValue):
        return []
    if isinstance(value, ObjectValue):
        return {key: _known(inner, inputs) for key, inner in value.entries}
    name = value.text.strip().removeprefix("input.") if value.whole else ""
    if name in inputs and len(value.reads) == 1 and value.reads[0].path == (name,):
        return _SAMPLES.get(inputs[name].type, MISSING)
    return MISSING
