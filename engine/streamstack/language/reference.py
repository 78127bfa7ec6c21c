"""The reference of functions, written from their declarations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from streamstack.language.declare import Example, Function
from streamstack.language.parameters import (
    Bound,
    Condition,
    Constant,
    Group,
    Kind,
    ListOf,
    Named,
    OneOf,
    Parameter,
    ParameterType,
    StackOf,
    Variable,
    shown,
    shown_default,
)

_KINDS: Final = {
    Kind.ANY: "any value",
    Kind.TEXT: "text",
    Kind.URL: "text",
    Kind.INTEGER: "integer",
    Kind.NUMBER: "number",
    Kind.BOOLEAN: "true or false",
    Kind.LIST: "list",
    Kind.OBJECT: "object",
    Kind.HEADERS: "object",
    Kind.DURATION: "duration",
    Kind.SIZE: "size",
    Kind.EVERY: "number of items or duration",
    Kind.RATE: "rate",
    Kind.KEY: "text, number or list",
    Kind.STREAM: "stream",
    Kind.ITEMS: "list or stream",
    Kind.ANY_OR_STREAM: "any value or stream",
    Kind.SQL: "SQL",
}

#: More choices than these are not listed one by one.
_MOST_CHOICES: Final = 12

_GIVES: Final = {
    "nothing": "Gives nothing.",
    "value": "Gives a value.",
    "stream": "Gives a stream.",
    "either": "Gives a value or a stream.",
}


def type_words(wanted: ParameterType) -> str:
    """Return what a parameter takes, in words."""
    match wanted:
        case Bound() | Constant():
            few = wanted.choices if len(wanted.choices) <= _MOST_CHOICES else ()
            words = " or ".join(f"`{each}`" for each in few) or _KINDS[wanted.kind]
            words += _bounds(wanted)
            return words if isinstance(wanted, Bound) else f"{words}, constant"
        case Condition():
            return "condition"
        case Variable():
            return "name of a variable"
        case StackOf():
            return "steps"
        case Group():
            return "mapping"
        case ListOf():
            return f"list of: {type_words(wanted.item)}"
        case Named():
            return f"mapping from names to: {type_words(wanted.item)}"
        case OneOf():
            return ", or ".join(type_words(form) for form in wanted.forms)


def markdown_of(function: Function, heading: str = "") -> str:
    """Return a function's documentation in Markdown; ``heading`` is `###` or nothing."""
    parts = [f"{heading} `{function.name}`"] if heading else []
    parts.append(function.description)
    if function.parameters:
        parts.append(table(function.parameters))
    parts.append(_effects(function))
    properties = function.effects.properties
    if properties:
        parts.append(
            "Properties of its stream, which can be read at any time:\n\n"
            + "\n".join(f"- `{each.name}`: {each.description}" for each in properties)
        )
    parts += [_example(each) for each in function.examples]
    return "\n\n".join(part for part in parts if part)


def reference(families: Mapping[str, Iterable[Function]]) -> str:
    """Return the whole reference in Markdown, a chapter for each family."""
    parts = ["# Functions"]
    for title, functions in families.items():
        parts.append(f"## {title}")
        parts += [markdown_of(function, "###") for function in functions]
    return "\n\n".join(parts) + "\n"


def _bounds(wanted: Bound | Constant) -> str:
    least, most = (
        f"{shown(wanted.kind, bound)}"
        if wanted.kind in (Kind.DURATION, Kind.SIZE)
        else f"{bound:g}"
        for bound in (wanted.minimum or 0, wanted.maximum or 0)
    )
    if wanted.minimum is not None and wanted.maximum is not None:
        return f" from {least} to {most}"
    if wanted.minimum is not None:
        return f" of at least {least}"
    return f" of at most {most}" if wanted.maximum is not None else ""


def table(parameters: tuple[Parameter, ...], title: str = "parameter") -> str:
    """Return parameters as a table in Markdown, those of nested mappings by their path."""
    rows = [f"| {title} | takes | meaning |", "|---|---|---|"]
    rows += _rows(parameters, "")
    return "\n".join(rows)


def _rows(parameters: tuple[Parameter, ...], prefix: str) -> list[str]:
    rows = []
    for parameter in parameters:
        marks = "\\*" if parameter.main else ""
        meaning = parameter.description
        if parameter.required:
            meaning += " Required."
        elif parameter.default is not None:
            meaning += f" Default: {_shown(shown_default(parameter))}."
        words = type_words(parameter.type).replace("|", "\\|")
        rows.append(f"| `{prefix}{parameter.name}`{marks} | {words} | {_cell(meaning)} |")
        for group in _groups(parameter.type):
            rows += _rows(group.parameters, f"{prefix}{parameter.name}.")
    return rows


def _groups(wanted: ParameterType) -> list[Group]:
    """Return the mappings with parameters of their own inside a type."""
    match wanted:
        case Group():
            return [wanted]
        case ListOf() | Named():
            return _groups(wanted.item)
        case OneOf():
            return [group for form in wanted.forms for group in _groups(form)]
    return []


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{json.dumps(value, default=str, ensure_ascii=False)}`"


def _effects(function: Function) -> str:
    effects = function.effects
    words = [] if effects.ends or effects.sets else [_GIVES[effects.gives]]
    if effects.emits:
        words.append("Emits chunks.")
    if effects.waits_for_stream:
        words.append("Waits for the whole stream.")
    for choice in function.choices:
        names = " and ".join(f"`{name}`" for name in choice.names)
        words.append(f"{'Exactly' if choice.required else 'At most'} one of {names} is given.")
    if any(parameter.main for parameter in function.parameters):
        words.append("The parameter marked \\* may be written alone.")
    return " ".join(words)


def _example(example: Example) -> str:
    text = f"Example: {example.title}\n\n```yaml\n{example.stack.strip()}\n```"
    outcome = []
    if example.inputs:
        outcome.append(f"With `input` {_shown(dict(example.inputs))}")
    if example.chunks:
        outcome.append("emits " + ", ".join(_shown(chunk) for chunk in example.chunks))
    if example.fails:
        outcome.append(f"fails with `{example.fails}`")
    elif example.result is not None:
        outcome.append(f"gives {_shown(example.result)}")
    if not outcome:
        return text
    sentence = ", ".join(outcome)
    return f"{text}\n\n{sentence[0].upper()}{sentence[1:]}."
