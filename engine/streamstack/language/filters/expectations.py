"""What a filter needs of the values it is given, said in the author's words."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.operators import MAX_ITEMS, a_kind
from streamstack.language.values import Opaque, to_text

#: How many characters a filter that repeats a text may add: what callers send must not fill the memory.
MAX_ADDED: Final = 10_000_000


def wrong(name: str, needs: str, value: Any) -> RunError:
    """Return the error of a filter that was given another kind than it needs."""
    message = f"`{name}` needs {needs}, got {a_kind(value)}"
    if isinstance(value, Opaque):
        message += "; use `collect` to read it into a variable first"
    elif value is None:
        message += "; write `| default(...)` before it"
    return RunError("template", message)


def failed(name: str, why: str) -> RunError:
    """Return the error of a filter that can't do its work on this value."""
    return RunError("template", f"`{name}`: {why}")


def limit_added(characters: int, name: str) -> None:
    """Refuse to make a text by so many characters longer than what it is made of, where they are too many."""
    if characters > MAX_ADDED:
        raise failed(
            name, f"the result would be too long: more than {MAX_ADDED:,} characters are added"
        )


def text_of(value: Any, name: str) -> str:
    """Return the text a text filter works on: a text, or a number, boolean or timestamp as text.

    Null, lists, objects and streams are no text.
    """
    if type(value) is str:
        return value
    if value is None or isinstance(value, (list, dict, tuple, bytes, Opaque)):
        raise wrong(name, "a text", value)
    return to_text(value)


def text_argument(value: Any, name: str, argument: str) -> str:
    """Return an argument that must be a text."""
    if isinstance(value, str):
        return value
    raise RunError("template", f"`{argument}` of `{name}` must be a text, got {a_kind(value)}")


def integer_argument(value: Any, name: str, argument: str, low: int, high: int = MAX_ITEMS) -> int:
    """Return an argument that must be an integer within bounds."""
    if type(value) is not int:
        raise RunError(
            "template", f"`{argument}` of `{name}` must be an integer, got {a_kind(value)}"
        )
    if not low <= value <= high:
        raise RunError(
            "template", f"`{argument}` of `{name}` must be from {low} to {high:,}, got {value}"
        )
    return value


def number_of(value: Any, name: str) -> Any:
    """Return a number; a text that holds one is not a number."""
    if type(value) in (int, float, Decimal):
        return value
    hint = "; write `x | toDecimal` first" if isinstance(value, str) else ""
    raise RunError("template", wrong(name, "numbers", value).message + hint)


def items_of(value: Any, name: str) -> Sequence[Any]:
    """Return the items of a list. Of an object they are its keys, as in Jinja2."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, dict):
        return list(value)
    raise wrong(name, "a list", value)


def sequence_of(value: Any, name: str) -> Sequence[Any]:
    """Return the items of a list, or the characters of a text."""
    return value if isinstance(value, str) else items_of(value, name)


def object_of(value: Any, name: str) -> dict[str, Any]:
    """Return an object."""
    if isinstance(value, dict):
        return value
    raise wrong(name, "an object", value)


def at_path(value: Any, path: Any) -> Any:
    """Return what stands at "a.b.0" in an item; null where nothing does.

    `sortBy`, `map(attribute=...)`, `selectattr` and their like find their field with it.
    """
    if type(path) is int:
        return value[path] if isinstance(value, list) and -len(value) <= path < len(value) else None
    for step in str(path).split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, (list, tuple)) and step.lstrip("-").isdecimal():
            index = int(step)
            value = value[index] if -len(value) <= index < len(value) else None
        elif isinstance(value, Opaque):
            raise wrong("a path", "data", value)
        else:
            return None
    return value
