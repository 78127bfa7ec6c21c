"""The reference of expressions: their filters, functions and tests, from their declarations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streamstack.language.filters import (
    FILTERS,
    FUNCTIONS_OF_EXPRESSIONS,
    TESTS,
    Operation,
)
from streamstack.language.values import to_json, to_text

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
            f"Example: `<< {operation.example} >>` is {_result(operation)}.",
        )
    )


def expressions_reference() -> str:
    """Return the whole reference of expressions in Markdown."""
    parts = ["# Expressions"]
    for title, operations in OPERATIONS.items():
        rows = ["| written | gives | example |", "|---|---|---|"]
        rows += [_row(operations[name]) for name in sorted(operations, key=str.lower)]
        parts += [f"## {title}", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _row(operation: Operation) -> str:
    summary = f"The same as `{operation.same_as}`." if operation.same_as else operation.summary
    example = f"`{operation.example}` is {_result(operation)}"
    return f"| {_cell(operation.usage)} | {_cell(summary)} | {_cell(example)} |"


def _result(operation: Operation) -> str:
    result = operation.result
    text = to_json(result).decode() if isinstance(result, (dict, list, str)) else to_text(result)
    return f"`{text or 'null'}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
