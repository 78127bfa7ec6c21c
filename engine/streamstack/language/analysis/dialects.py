"""What an endpoint that speaks a provider's dialect sends, as far as it is known without running."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamstack.errors import Diagnostic
from streamstack.formats import DIALECTS
from streamstack.formats.items import refuse
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


def check_dialect(
    endpoint: Endpoint, functions: Mapping[str, FunctionDefinition]
) -> list[Diagnostic]:
    """Report the steps that surely send what the endpoint's dialect can't carry.

    Of a function that it calls, the finding stands at the call.
    """
    if endpoint.response_type != "streaming" or endpoint.streaming.format not in DIALECTS:
        return []
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
