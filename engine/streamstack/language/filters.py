"""All filters, functions and tests of expressions there are."""

from __future__ import annotations

from typing import Final

# Each family registers what it declares.
from streamstack.language import (
    filters_codes,
    filters_convert,
    filters_lists,
    filters_numbers,
    filters_objects,
    filters_patterns,
    filters_select,
    filters_text,
    filters_time,
    functions_of_expressions,
    tests_of_expressions,
)
from streamstack.language.operations import (
    DROPPED,
    FILTERS,
    FUNCTIONS_OF_EXPRESSIONS,
    NAMING,
    TESTS,
    Operation,
)

#: In the order of the reference.
FAMILIES: Final = (
    filters_convert,
    filters_text,
    filters_patterns,
    filters_numbers,
    filters_lists,
    filters_select,
    filters_objects,
    filters_codes,
    filters_time,
    functions_of_expressions,
    tests_of_expressions,
)

__all__ = [
    "DROPPED",
    "FAMILIES",
    "FILTERS",
    "FUNCTIONS_OF_EXPRESSIONS",
    "NAMING",
    "TESTS",
    "Operation",
]
