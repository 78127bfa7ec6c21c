"""The reference of filters, functions and tests of expressions, written from their declarations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any, Final

from streamstack.language import filters
from streamstack.language.operations import FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS, Operation
from streamstack.language.values import to_text

#: The chapters, with the module that declares what stands in each.
_TITLES: Final = {
    "filters_convert": "Filters that convert",
    "filters_text": "Filters of texts",
    "filters_patterns": "Filters by regular expressions",
    "filters_numbers": "Filters of numbers",
    "filters_lists": "Filters of lists",
    "filters_select": "Filters that apply others",
    "filters_objects": "Filters of objects",
    "filters_codes": "Filters that encode and sign",
    "filters_time": "Filters of time",
    "functions_of_expressions": "Functions",
    "tests_of_expressions": "Tests",
}


def chapters() -> Mapping[str, tuple[Operation, ...]]:
    """Return every operation of expressions but the other names, by the title of its chapter."""
    modules = [family.__name__.rpartition(".")[2] for family in filters.FAMILIES]
    found: dict[str, list[Operation]] = {_TITLES[module]: [] for module in modules}
    for registry in (FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS):
        for operation in registry.values():
            if not operation.same_as:
                module = operation.call.__module__.rpartition(".")[2]
                found[_TITLES[module]].append(operation)
    return {title: tuple(operations) for title, operations in found.items()}


def find_operations(name: str) -> list[Operation]:
    """Return what has a name: a filter, a function, a test, or several of them."""
    registries = (FILTERS, FUNCTIONS_OF_EXPRESSIONS, TESTS)
    return [registry[name] for registry in registries if name in registry]


def markdown_of_operation(operation: Operation, heading: str = "") -> str:
    """Return an operation's documentation in Markdown; ``heading`` is `###` or nothing."""
    parts = [f"{heading} `{operation.name}`"] if heading else []
    parts.append(f"{operation.usage}: {operation.summary}")
    others = _other_names(operation)
    if others:
        parts.append(f"Other names: {', '.join(f'`{name}`' for name in others)}.")
    parts.append(f"```text\n<< {operation.example} >>  gives  {_shown(operation.result)}\n```")
    return "\n\n".join(parts)


def expressions_reference() -> str:
    """Return the whole reference of expressions in Markdown, a chapter a family."""
    parts = [
        "# Filters, functions and tests of expressions",
        (
            "What can stand in `<< ... >>`. A filter follows a value and `|`; arguments are given by "
            "position or by name. A test follows `is` or `is not`. [Bindings](../bindings.md) "
            "explains expressions."
        ),
    ]
    for title, operations in chapters().items():
        parts.append(f"## {title}")
        parts += [markdown_of_operation(operation, "###") for operation in operations]
    return "\n\n".join(parts) + "\n"


def _other_names(operation: Operation) -> Iterable[str]:
    registry = {"filter": FILTERS, "function": FUNCTIONS_OF_EXPRESSIONS, "test": TESTS}
    return [
        name
        for name, each in registry[operation.what].items()
        if each.same_as == operation.name and name.isidentifier()
    ]


def _shown(value: Any) -> str:
    """Return a value as an expression would write it; what has no JSON as its text."""
    if isinstance(value, (datetime, date, bytes)):
        return to_text(value)
    return json.dumps(value, default=to_text, ensure_ascii=False)
