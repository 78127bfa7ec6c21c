"""Filters of texts by regular expressions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from streamstack.language.filters.operations import (
    MAX_ADDED,
    declare,
    failed,
    integer_argument,
    limit_added,
    text_argument,
    text_of,
)
from streamstack.language.filters.patterns import checked, compile_pattern
from streamstack.language.values import to_text


def _check_pattern(arguments: Sequence[object]) -> tuple[str, str, str] | None:
    """Find a constant pattern that is none."""
    if arguments and isinstance(arguments[0], str):
        try:
            compile_pattern(arguments[0])
        except ValueError as error:
            return "bad-pattern", str(error), ""
    return None


@declare(
    "filter",
    "regexMatch",
    '"Order 66" | regexMatch("^order \\\\d+$", "i")',
    True,
    check=_check_pattern,
)
def regex_match(value: Any, pattern: Any, flags: Any = "") -> bool:
    """Tell whether a regular expression is found in the text.

    Flags: i (any case), m (^ and $ at each line), s (a dot is any character).
    """
    return _search("regexMatch", value, pattern, flags) is not None


@declare(
    "filter",
    "regexFind",
    '"Order 66" | regexFind("(\\\\d)(\\\\d)", 2)',
    "6",
    check=_check_pattern,
)
def regex_find(value: Any, pattern: Any, group: Any = 0, flags: Any = "") -> str | None:
    """Give the first match of a regular expression, or of its group (a number or name); null where there is none."""
    found = _search("regexFind", value, pattern, flags)
    if found is None:
        return None
    try:
        part: str | None = found[group]
    except (IndexError, TypeError):
        raise failed("regexFind", f"the pattern has no group {to_text(group)}") from None
    return part


@declare(
    "filter",
    "regexReplace",
    '"2026-01-31" | regexReplace("(\\\\d+)-(\\\\d+)-(\\\\d+)", "\\\\3.\\\\2.\\\\1")',
    "31.01.2026",
    check=_check_pattern,
)
def regex_replace(
    value: Any, pattern: Any, replacement: Any, flags: Any = "", count: Any = 0
) -> str:
    r"""Give the text with each match of a regular expression replaced; \1 or \g<name> is a group of it."""
    text = text_of(value, "regexReplace")
    compiled = checked(
        text_argument(pattern, "regexReplace", "pattern"),
        text_argument(flags, "regexReplace", "flags"),
        text,
        "regexReplace",
    )
    count = integer_argument(count, "regexReplace", "count", 0)
    replacement = text_argument(replacement, "regexReplace", "replacement")
    if len(replacement) * (len(text) + 1) > MAX_ADDED:
        # A reference to a group adds at most what was matched; the matches together, at most the text.
        matches = sum(1 for _ in islice(compiled.finditer(text), count or None))
        added = len(replacement) * matches + replacement.count("\\") * len(text)
        limit_added(added, "regexReplace")
    try:
        return compiled.sub(replacement, text, count)
    except (re.error, IndexError) as error:
        raise failed("regexReplace", f"the replacement is not valid: {error}") from None


def _search(name: str, value: Any, pattern: Any, flags: Any) -> re.Match[str] | None:
    text = text_of(value, name)
    pattern, flags = text_argument(pattern, name, "pattern"), text_argument(flags, name, "flags")
    return checked(pattern, flags, text, name).search(text)
