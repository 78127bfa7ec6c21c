"""Filters of objects."""

# An author passes an argument by position or by name, whatever it is.
# ruff: noqa: FBT002

from __future__ import annotations

from typing import Any

from streamstack.language.filters.expectations import at_path, items_of, object_of
from streamstack.language.filters.lists import sort
from streamstack.language.filters.operations import declare
from streamstack.language.operators import key_text


@declare("filter", "keys", '{"a": 1, "b": 2} | keys', ["a", "b"])
def keys(value: Any) -> list[str]:
    """Give the names of an object's entries."""
    return list(object_of(value, "keys"))


@declare("filter", "values", '{"a": 1, "b": 2} | values', [1, 2])
def values(value: Any) -> list[Any]:
    """Give the values of an object's entries."""
    return list(object_of(value, "values").values())


@declare(
    "filter",
    "entries",
    '{"a": 1} | entries',
    [{"key": "a", "value": 1}],
)
def entries(value: Any) -> list[dict[str, Any]]:
    """Give the entries of an object, each as {key, value}."""
    return [{"key": key, "value": one} for key, one in object_of(value, "entries").items()]


@declare(
    "filter",
    "items",
    '{"a": 1} | items',
    [["a", 1]],
)
def items(value: Any) -> list[list[Any]]:
    """Give the entries of an object, each as [key, value]; for `<% for key, value in x | items %>`.

    None of null.
    """
    return [] if value is None else [[k, one] for k, one in object_of(value, "items").items()]


@declare(
    "filter",
    "fromEntries",
    '[["a", 1], {"key": "b", "value": 2}] | fromEntries',
    {"a": 1, "b": 2},
)
def from_entries(value: Any) -> dict[str, Any]:
    """Give the object of a list of {key, value} or [key, value]: what `entries` and `items` undo."""
    found = {}
    for entry in items_of(value, "fromEntries"):
        pair = (0, 1) if isinstance(entry, list) else ("key", "value")
        found[key_text(at_path(entry, pair[0]))] = at_path(entry, pair[1])
    return found


@declare(
    "filter",
    "dictsort",
    '{"b": 1, "a": 2} | dictsort',
    [["a", 2], ["b", 1]],
)
def dict_sort(
    value: Any, case_sensitive: Any = False, by: Any = "key", reverse: Any = False
) -> list[list[Any]]:
    """Give the entries of an object as [key, value], in order of the keys, or `by` value."""
    return sort(items(object_of(value, "dictsort")), reverse, case_sensitive, int(by == "value"))


@declare(
    "filter",
    "pick",
    '{"a": 1, "b": 2, "c": 3} | pick("a", "c", "d")',
    {"a": 1, "c": 3},
)
def pick(value: Any, *names: Any) -> Any:
    """Give the object with only the entries of these names; of a list, each of its objects.

    Names that it has not are left out. They may stand in one list.
    """
    wanted = _names(names)
    if isinstance(value, list):
        return [pick(item, wanted) for item in value]
    known = object_of(value, "pick")
    return {name: known[name] for name in wanted if name in known}


@declare(
    "filter",
    "omit",
    '{"a": 1, "b": 2} | omit("b")',
    {"a": 1},
)
def omit(value: Any, *names: Any) -> Any:
    """Give the object without the entries of these names; of a list, each of its objects.

    They may stand in one list.
    """
    unwanted = _names(names)
    if isinstance(value, list):
        return [omit(item, unwanted) for item in value]
    return {name: one for name, one in object_of(value, "omit").items() if name not in unwanted}


def _names(names: tuple[Any, ...]) -> list[str]:
    flat = names[0] if len(names) == 1 and isinstance(names[0], list) else names
    return [key_text(name) for name in flat]
