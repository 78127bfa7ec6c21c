"""Compare a value with what an author expects of it.

Values are equal where they stand. Objects may have more keys than are expected; where null is expected, a key may be
absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.cases import Expected
from streamstack.language.values import MISSING, to_json, to_text

#: Characters of a value that are shown.
_WIDEST: Final = 160


def differs(expected: Any, actual: Any, path: str = "") -> str:
    """Return how a value differs from the expected one, "" where it does not."""
    where = f"`{path}`: " if path else ""
    if isinstance(expected, Expected):
        try:
            matched = expected.matches(actual)
        except RunError as error:
            return f"{where}{expected.text} fails: {error.message}; the value is {shown(actual)}"
        return "" if matched else f"{where}{expected.text} does not hold for {shown(actual)}"
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping):
            return f"{where}expected an object, received {shown(actual)}"
        for name, value in expected.items():
            inner = f"{path}.{name}" if path else str(name)
            if name not in actual:
                if value is not None:
                    return f"`{inner}` is missing; expected {shown(value)}"
            elif reason := differs(value, actual[name], inner):
                return reason
        return ""
    if isinstance(expected, (list, tuple)):
        if not isinstance(actual, (list, tuple)):
            return f"{where}expected a list, received {shown(actual)}"
        if len(expected) != len(actual):
            return f"{where}expected {counted(len(expected), 'item')}, received {len(actual)}: {shown(actual)}"
        found = (differs(one, other, f"{path}[{index}]") for index, (one, other) in enumerate(zip(expected, actual)))  # noqa: B905
        return next((reason for reason in found if reason), "")
    if _same(expected, actual):
        return ""
    return f"{where}expected {shown(expected)}, received {shown(actual)}"


def _same(expected: Any, actual: Any) -> bool:
    if isinstance(expected, bool) or isinstance(actual, bool) or expected is None or actual is None:
        return expected is actual
    if expected == actual:
        return True
    if isinstance(expected, str) == isinstance(actual, str) or any(
        each is MISSING or isinstance(each, (Mapping, list, tuple)) for each in (expected, actual)
    ):
        return False
    # In server-sent events, CSV and text a number is a text; dates, UUIDs and decimals are texts in JSON.
    return to_text(expected) == to_text(actual)


def shown(value: Any) -> str:
    """Return a value on one line, as JSON where it has one."""
    if value is MISSING:
        return "nothing"
    if isinstance(value, Expected):
        return value.text
    try:
        text = to_json(_plain(value)).decode()
    except RunError:
        text = repr(value)
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, Expected):
        return value.text
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
