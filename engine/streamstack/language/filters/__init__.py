"""All filters, functions and tests of expressions there are."""

from __future__ import annotations

from typing import Final

# Each family registers what it declares.
from streamstack.language.filters import collections, convert, numbers, tests, text, time
from streamstack.language.filters.operations import DROPPED, FILTERS, FUNCTIONS_OF_EXPRESSIONS, NAMING, TESTS, Operation

#: In the order of the reference.
FAMILIES: Final = (convert, text, numbers, collections, time, tests)

__all__ = ["DROPPED", "FAMILIES", "FILTERS", "FUNCTIONS_OF_EXPRESSIONS", "NAMING", "TESTS", "Operation"]
