"""What generated code calls for a look-up that is not Python's own, and for soft paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.operators import a_kind, refuse_stream

#: What a path that leads nowhere raises; softened under `default` and `is defined`.
NOWHERE: Final = (NameError, KeyError, IndexError, TypeError)


def item(container: Any, key: Any) -> Any:
    """Return `container[key]` for a key known only at run time, or an integer.

    Raises KeyError, IndexError or TypeError where there is none, as Python does.
    """
    kind_of_key = type(key)
    if kind_of_key is str:
        return container[key]
    if kind_of_key is int:
        if type(container) is dict:
            return container[key] if key in container else container[str(key)]
        if isinstance(container, (list, str, tuple, bytes)):
            return container[key]
    raise TypeError("no such look-up")


def part(value: Any, start: Any, stop: Any, step: Any) -> Any:
    """Return `value[start:stop:step]` of a text, a list or bytes."""
    if not isinstance(value, (str, list, tuple, bytes)):
        refuse_stream(value)
        raise RunError("template", f"can't take a slice of {a_kind(value)}")
    for bound in (start, stop, step):
        if bound is not None and type(bound) is not int:
            raise RunError("template", f"a slice needs integers, got {a_kind(bound)}")
    if step == 0:
        raise RunError("template", "the step of a slice can't be 0")
    return value[start:stop:step]


def default(path: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """Return what the path leads to, or other() if it leads nowhere or to null."""
    try:
        value = path()
    except NOWHERE:
        return other()
    return other() if value is None else value


def default_value(path: Callable[[], Any], other: Any) -> Any:
    """Return what the path leads to, or a constant if it leads nowhere or to null."""
    try:
        value = path()
    except NOWHERE:
        return other
    return other if value is None else value


def default_empty(path: Callable[[], Any], other: Callable[[], Any], empty: Any) -> Any:
    """Return what the path leads to, or other() for null and, if asked, for any empty value."""
    value = default_value(path, None)
    return other() if value is None or (empty and not value) else value


def defined(path: Callable[[], Any]) -> bool:
    """Tell whether a path leads somewhere. Null is somewhere."""
    try:
        path()
    except NOWHERE:
        return False
    return True


def undefined(path: Callable[[], Any]) -> bool:
    """Tell whether a path leads nowhere."""
    return not defined(path)
