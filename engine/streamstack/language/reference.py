"""The reference of functions and of expressions, written from their declarations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from streamstack.language import keys, test_files
from streamstack.language.definition import Example, Function
from streamstack.language.filters import FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS, Operation
from streamstack.language.settings import Settings
from streamstack.language.values import to_json, to_text
from streamstack.spec import Field, Group, ListOf, Named, Tagged, fields_of, shown_default

_GIVES: Final = {
    "nothing": "Returns nothing.",
    "value": "Returns a value.",
    "stream": "Returns a stream.",
    "either": "Returns a value or a stream.",
}


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
            "Properties of the stream, available at any time:\n\n"
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


def table(fields: tuple[Field, ...], title: str = "parameter", prefix: str = "", *, nested: bool = True) -> str:
    """Return fields as a table in Markdown, with those of ``nested`` mappings by their path."""
    rows = [f"| {title} | takes | meaning |", "|---|---|---|"]
    rows += _rows(fields, prefix, nested=nested)
    return "\n".join(rows)


def definitions_reference() -> str:
    """Return the reference of the keys of documents, and of what stands in them."""
    parts = ["# Definitions"]
    for kind, fields in keys.DOCUMENTS.items():
        # The block has a table of its own, in the settings.
        listed = tuple(replace(each, type=Group(())) if each.name == "streaming" else each for each in fields)
        parts += [f"## kind: {kind}", _constants(table(listed, "key"))]
        if kind == "endpoint":
            parts.append("The keys of `streaming` are those of [the settings](settings.md#streaming).")
    inputs = (*keys.INPUT_KEYS, *keys.INPUT_CONSTRAINTS)
    types = [f"| `{name}` | {each.description} |" for name, each in keys.TYPES.items()]
    parts += [
        "## Inputs",
        "A declaration is a mapping with these keys, or the name of a type.",
        _constants(table(inputs, "key")),
        "\n".join(["| type | meaning |", "|---|---|", *types]),
    ]
    return "\n\n".join(parts) + "\n"


def tests_reference() -> str:
    """Return the reference of the keys of test files: a chapter for each mapping in them, by the keys that hold it."""
    chapters: dict[int, tuple[list[str], Group]] = {}
    waiting = [Group(test_files.TESTS)]
    while waiting:
        for field in waiting.pop(0).parameters:
            for group in field.type.inner_groups:
                names, _ = chapters.setdefault(id(group), ([], group))
                if not names:
                    waiting.append(group)
                if field.name not in names:
                    names.append(field.name)
    parts = ["# Tests", "## Test files", _constants(table(test_files.TESTS, "key", nested=False))]
    for names, group in chapters.values():
        heading = ", ".join(f"`{name}`" for name in names)
        parts += [f"## {heading}", _constants(table(group.parameters, "key", nested=False))]
    return "\n\n".join(parts) + "\n"


def settings_reference() -> str:
    """Return the reference of streamstack.yaml."""
    parts = ["# Settings"]
    for field in fields_of(Settings):
        parts += [f"## {field.name}", field.description]
        wanted = field.type
        prefix = ""
        if isinstance(wanted, Named):
            wanted, prefix = wanted.item, "NAME."
        elif isinstance(wanted, ListOf):
            wanted = wanted.item
        if isinstance(wanted, Group):
            parts.append(_constants(table(wanted.parameters, "setting", prefix)))
        elif isinstance(wanted, Tagged):
            for tag, group in wanted.groups.items():
                parts += [f"### {wanted.key}: {tag}", _constants(table(group.parameters, "setting", prefix))]
    return "\n\n".join(parts) + "\n"


def _constants(text: str) -> str:
    """Leave out what is true of all: they are constants."""
    return text.replace(", constant", "")


def _rows(parameters: tuple[Field, ...], prefix: str, *, nested: bool) -> list[str]:
    rows = []
    for parameter in parameters:
        marks = "\\*" if parameter.main else ""
        meaning = parameter.description
        if parameter.required:
            meaning += " Required."
        elif parameter.default not in (None, "", ()) and "Default:" not in meaning:
            meaning += f" Default: {_shown(shown_default(parameter))}."
        words = parameter.type.words.replace("|", "\\|")
        rows.append(f"| `{prefix}{parameter.name}`{marks} | {words} | {_cell(meaning)} |")
        for group in parameter.type.inner_groups if nested else ():
            rows += _rows(group.parameters, f"{prefix}{parameter.name}.", nested=True)
    return rows


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{json.dumps(value, default=str, ensure_ascii=False)}`"


def _effects(function: Function) -> str:
    effects = function.effects
    words = [] if effects.ends or effects.sets else [_GIVES[effects.gives]]
    if words and effects.result:
        words = [f"{words[0].removesuffix('.')}: `{effects.result}`."]
    if effects.emits:
        words.append("Emits chunks.")
    if effects.waits_for_stream:
        words.append("Reads the whole stream before it returns.")
    for choice in function.choices:
        names = ", ".join(f"`{name}`" for name in choice.names)
        count = "at least" if choice.several else "exactly" if choice.required else "at most"
        words.append(f"Set {count} one of {names}.")
    if any(parameter.main for parameter in function.parameters):
        words.append("The parameter marked \\* can be written without its name.")
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
        outcome.append(f"returns {_shown(example.result)}")
    if not outcome:
        return text
    sentence = ", ".join(outcome)
    return f"{text}\n\n{sentence[0].upper()}{sentence[1:]}."


# --------------------------------------------------------------------------- reference expressions


#: What there is, by the title of its chapter.
OPERATIONS: Final[Mapping[str, Mapping[str, Operation]]] = {
    "Filters": FILTERS,
    "Functions of expressions": FUNCTIONS_OF_EXPRESSIONS,
    "Tests": TESTS,
}


def find_operations(name: str) -> list[Operation]:
    """Return the filter, function and test of a name, as far as there are."""
    return [operations[name] for operations in OPERATIONS.values() if name in operations]


def markdown_of_operation(operation: Operation, heading: str) -> str:
    """Return the documentation of one in Markdown."""
    same = f" The same as `{operation.same_as}`." if operation.same_as else ""
    return "\n\n".join(
        (
            f"{heading} {operation.usage}",
            operation.summary + same,
            f"Declared in {operation.plugin}."
            if operation.plugin
            else f"Example: `<< {operation.example} >>` is {_result(operation)}.",
        )
    )


def expressions_reference() -> str:
    """Return the whole reference of expressions in Markdown."""
    parts = ["# Expressions"]
    for title, operations in OPERATIONS.items():
        rows = ["| usage | meaning | example |", "|---|---|---|"]
        rows += [_row(operations[name]) for name in sorted(operations, key=str.lower)]
        parts += [f"## {title}", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _row(operation: Operation) -> str:
    summary = f"The same as `{operation.same_as}`." if operation.same_as else operation.summary
    example = "" if operation.plugin else f"`{operation.example}` is {_result(operation)}"
    return f"| {_cell(operation.usage)} | {_cell(summary)} | {_cell(example)} |"


def _result(operation: Operation) -> str:
    result = operation.result
    text = to_json(result).decode() if isinstance(result, (dict, list, str)) else to_text(result)
    return f"`{text or 'null'}`"
