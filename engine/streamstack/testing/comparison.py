"""Compare a value with what an author expects of it.

Values are equal where they stand. Objects may have more keys than are expected; where null is expected, a key may be
absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.cases import Expected
from streamstack.language.values import MISSING, to_json, to_text

#: Characters of a value that are shown.
_WIDEST: Final = 160
#: Differences of a value that are shown.
_MOST: Final = 8


def differs(expected: Any, actual: Any, path: str = "") -> str:
    """Return how a value differs from the expected one, "" where it does not: all differences, up to `_MOST`."""
    found = list(islice(_differences(expected, actual, path), _MOST + 1))
    return "; ".join([*found[:_MOST], "…"] if len(found) > _MOST else found)


def _differences(expected: Any, actual: Any, path: str) -> Iterator[str]:
    where = f"`{path}`: " if path else ""
    if isinstance(expected, Expected):
        try:
            if not expected.matches(actual):
                yield f"{where}{expected.text} does not hold for {shown(actual)}"
        except RunError as error:
            yield f"{where}{expected.text} fails: {error.message}; the value is {shown(actual)}"
    elif isinstance(expected, Mapping):
        if not isinstance(actual, Mapping):
            yield f"{where}expected an object, received {shown(actual)}"
            return
        for name, value in expected.items():
            inner = f"{path}.{name}" if path else str(name)
            if name in actual:
                yield from _differences(value, actual[name], inner)
            elif value is not None:
                yield f"`{inner}` is missing; expected {shown(value)}"
    elif isinstance(expected, (list, tuple)):
        if not isinstance(actual, (list, tuple)):
            yield f"{where}expected a list, received {shown(actual)}"
        elif len(expected) != len(actual):
            yield f"{where}expected {counted(len(expected), 'item')}, received {len(actual)}: {shown(actual)}"
        else:
            for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
                yield from _differences(one, other, f"{path}[{index}]")
    elif not _same(expected, actual):
        yield f"{where}expected {shown(expected)}, received {shown(actual)}"


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
