"""Filters of texts by regular expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamstack.language.filters.operations import (
    MAX_ADDED,
    declare,
    failed,
    integer_argument,
    text_argument,
    text_of,
)
from streamstack.language.patterns import Pattern, compile_pattern
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
    """Tell whether a regular expression (RE2 syntax) is found in the text.

    Flags: i (any case), m (^ and $ at each line), s (a dot is any character).
    """
    try:
        return _compile("regexMatch", pattern, flags).matches(text_of(value, "regexMatch"))
    except ValueError as error:
        raise failed("regexMatch", str(error)) from None


@declare(
    "filter",
    "regexFind",
    '"Order 66" | regexFind("(\\\\d)(\\\\d)", 2)',
    "6",
    check=_check_pattern,
)
def regex_find(value: Any, pattern: Any, group: Any = 0, flags: Any = "") -> str | None:
    """Give the first match of a regular expression, or of its group (a number or name); null where there is none."""
    text = text_of(value, "regexFind")
    compiled = _compile("regexFind", pattern, flags)
    if not isinstance(group, (int, str)):
        raise failed("regexFind", f"the pattern has no group {to_text(group)}")
    try:
        return compiled.find(text, group)
    except (ValueError, IndexError) as error:
        raise failed("regexFind", str(error)) from None


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
    compiled = _compile("regexReplace", pattern, flags)
    count = integer_argument(count, "regexReplace", "count", 0)
    replacement = text_argument(replacement, "regexReplace", "replacement")
    try:
        return compiled.replace(text, replacement, count, MAX_ADDED)
    except ValueError as error:
        raise failed("regexReplace", str(error)) from None


def _compile(name: str, pattern: Any, flags: Any) -> Pattern:
    pattern, flags = text_argument(pattern, name, "pattern"), text_argument(flags, name, "flags")
    try:
        return compile_pattern(pattern, flags)
    except ValueError as error:
        raise failed(name, str(error)) from None
