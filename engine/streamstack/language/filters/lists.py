"""Filters of lists. None changes the list it is given."""

# An author passes an argument by position or by name, whatever it is.
# ruff: noqa: FBT002

from __future__ import annotations

import random as generator
from collections.abc import Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any

from streamstack.language import operators
from streamstack.language.filters.expectations import (
    at_path,
    integer_argument,
    items_of,
    object_of,
    sequence_of,
    text_argument,
    wrong,
)
from streamstack.language.filters.operations import declare
from streamstack.language.values import number_key, to_text


@declare(
    "filter",
    "length",
    '[[1, 2] | length, "Zoë" | length]',
    [2, 3],
    aliases=("count",),
)
def length(value: Any) -> int:
    """Tell how many items a list has, entries an object, characters a text, bytes."""
    if isinstance(value, (str, list, tuple, dict, bytes)):
        return len(value)
    raise wrong("length", "a list, an object or a text", value)


@declare(
    "filter",
    "first",
    "[[3, 1] | first, [] | first, [1, 2, 3] | first(2)]",
    [3, None, [1, 2]],
)
def first(value: Any, count: Any = None) -> Any:
    """Give the first item of a list, or character of a text; null if there is none.

    With a number, the list of so many first ones.
    """
    items = sequence_of(value, "first")
    if count is not None:
        return _list(items[: integer_argument(count, "first", "count", 0)])
    return items[0] if items else None


@declare(
    "filter",
    "last",
    "[1, 2, 3] | last",
    3,
)
def last(value: Any, count: Any = None) -> Any:
    """Give the last item of a list, or character of a text; null if there is none.

    With a number, the list of so many last ones.
    """
    items = sequence_of(value, "last")
    if count is not None:
        count = integer_argument(count, "last", "count", 0)
        return _list(items[max(0, len(items) - count) :])
    return items[-1] if items else None


def _list(items: Sequence[Any]) -> Any:
    return items if isinstance(items, str) else list(items)


@declare(
    "filter",
    "reverse",
    "[1, 2, 3] | reverse",
    [3, 2, 1],
)
def reverse(value: Any) -> Any:
    """Give the list, or the text, from its end to its beginning."""
    items = sequence_of(value, "reverse")
    return items[::-1] if isinstance(items, str) else list(reversed(items))


@declare(
    "filter",
    "sort",
    '["b", "A", "c"] | sort(reverse=true)',
    ["c", "b", "A"],
)
def sort(
    value: Any, reverse: Any = False, case_sensitive: Any = False, attribute: Any = None
) -> list[Any]:
    """Give the list in order, by an attribute of its items if given.

    Texts are compared without regard to case unless `case_sensitive`; null comes last.
    """
    return _sorted(items_of(value, "sort"), attribute, reverse, folded=not case_sensitive)


@declare(
    "filter",
    "sortBy",
    '[{"n": 2}, {"n": 1}] | sortBy("n")',
    [{"n": 1}, {"n": 2}],
)
def sort_by(value: Any, field: Any, reverse: Any = False) -> list[Any]:
    """Give the list in order of a field of its items ("a.b" goes deeper).

    Equal ones keep their order, null comes last. Texts are compared as they are.
    """
    return _sorted(items_of(value, "sortBy"), field, reverse, folded=False)


def _sorted(items: Sequence[Any], path: Any, reverse: Any, *, folded: bool) -> list[Any]:
    def key(item: Any) -> Any:
        found = item if path is None else at_path(item, path)
        return found.casefold() if folded and isinstance(found, str) else found

    keyed = [(key(item), item) for item in items]
    known = [pair for pair in keyed if pair[0] is not None]
    ordering = operators.order_key([found for found, _ in known])
    known.sort(
        key=itemgetter(0) if ordering is None else lambda pair: ordering(pair[0]),
        reverse=bool(reverse),
    )
    return [item for _, item in known] + [item for found, item in keyed if found is None]


@declare(
    "filter",
    "unique",
    '[1, 2, 1, 1.0, "a"] | unique',
    [1, 2, "a"],
)
def unique(value: Any, case_sensitive: Any = True, attribute: Any = None) -> list[Any]:
    """Give the list without repetitions, each item where it is first; by an attribute of the items if given.

    Texts that differ in case only are the same if `case_sensitive` is false.
    """
    seen: set[Any] = set()
    found = []
    for item in items_of(value, "unique"):
        key = item if attribute is None else at_path(item, attribute)
        if not case_sensitive and isinstance(key, str):
            key = key.casefold()
        mark = identity(key)
        if mark not in seen:
            seen.add(mark)
            found.append(item)
    return found


def identity(value: Any) -> Any:
    """Return what is the same for equal values and can stand in a set."""
    if isinstance(value, bool) or value is None:
        return (type(value).__name__, value)
    if isinstance(value, (int, float, Decimal)):
        return number_key(value)
    if isinstance(value, (list, tuple)):
        return ("list", *map(identity, value))
    if isinstance(value, dict):
        return ("object", frozenset((str(key), identity(one)) for key, one in value.items()))
    operators.refuse_stream(value)
    return value


@declare(
    "filter",
    "flatten",
    "[1, [2, [3]]] | flatten",
    [1, 2, [3]],
)
def flatten(value: Any, levels: Any = 1) -> list[Any]:
    """Give the list with the items of lists in it in their place, one level deep or as many as given."""
    items = list(items_of(value, "flatten"))
    for _ in range(integer_argument(levels, "flatten", "levels", 0, 100)):
        if not any(isinstance(item, list) for item in items):
            break
        items = [one for item in items for one in (item if isinstance(item, list) else [item])]
    return items


@declare(
    "filter",
    "batch",
    "[1, 2, 3] | batch(2, 0)",
    [[1, 2], [3, 0]],
)
def batch(value: Any, linecount: Any, fill_with: Any = None) -> list[list[Any]]:
    """Give the list in lists of a size; the last one is filled up with `fill_with` unless that is null."""
    items = list(items_of(value, "batch"))
    size = integer_argument(linecount, "batch", "linecount", 1)
    found = [items[start : start + size] for start in range(0, len(items), size)]
    if found and fill_with is not None:
        found[-1] += [fill_with] * (size - len(found[-1]))
    return found


@declare(
    "filter",
    "slice",
    "[1, 2, 3, 4, 5] | slice(2)",
    [[1, 2, 3], [4, 5]],
)
def slices(value: Any, slices: Any, fill_with: Any = None) -> list[list[Any]]:
    """Give the list in a number of lists of about one size; shorter ones get `fill_with` unless null."""
    items = list(items_of(value, "slice"))
    count = integer_argument(slices, "slice", "slices", 1, 100_000)
    each, more = divmod(len(items), count)
    found, start = [], 0
    for index in range(count):
        stop = start + each + (index < more)
        part = items[start:stop]
        if fill_with is not None and index >= more and more:
            part.append(fill_with)
        found.append(part)
        start = stop
    return found


@declare("filter", "random", "[7] | random", 7)
def random_item(value: Any) -> Any:
    """Give one item of a list by chance; null of an empty one."""
    items = sequence_of(value, "random")
    return generator.choice(items) if items else None  # noqa: S311


@declare(
    "filter",
    "groupBy",
    '[{"t": "a", "n": 1}, {"t": "b"}, {"t": "a"}] | groupBy("t")',
    {"a": [{"t": "a", "n": 1}, {"t": "a"}], "b": [{"t": "b"}]},
)
def group_by(value: Any, field: Any) -> dict[str, list[Any]]:
    """Give an object of the lists of items that share a field, under its text.

    They are in order of first appearance; null is under "".
    """
    found: dict[str, list[Any]] = {}
    for item in items_of(value, "groupBy"):
        found.setdefault(to_text(at_path(item, field)), []).append(item)
    return found


@declare(
    "filter",
    "groupby",
    '[{"t": "b"}, {"t": "a"}, {"t": "b"}] | groupby("t") | map(attribute="grouper")',
    ["a", "b"],
)
def group_in_order(
    value: Any, attribute: Any, default: Any = None, case_sensitive: Any = False
) -> list[dict[str, Any]]:
    """Give a list of {grouper, list} by a field of the items, in its order, as in Jinja2; for use in `<% for %>`."""

    def key(item: Any) -> Any:
        found = at_path(item, attribute)
        found = default if found is None else found
        return found.casefold() if isinstance(found, str) and not case_sensitive else found

    keyed = [{"key": key(item), "item": item} for item in items_of(value, "groupby")]
    groups: list[dict[str, Any]] = []
    last_key: Any = None
    for pair in _sorted(keyed, "key", reverse=False, folded=False):
        if not groups or not operators.equal(pair["key"], last_key):
            shown = at_path(pair["item"], attribute)
            groups.append({"grouper": default if shown is None else shown, "list": []})
            last_key = pair["key"]
        groups[-1]["list"].append(pair["item"])
    return groups


@declare(
    "filter",
    "indexBy",
    '[{"id": 7, "n": "a"}] | indexBy("id")',
    {"7": {"id": 7, "n": "a"}},
)
def index_by(value: Any, field: Any) -> dict[str, Any]:
    """Give an object of a list's items under the text of a field; of equal ones the last stays."""
    return {to_text(at_path(item, field)): item for item in items_of(value, "indexBy")}


@declare(
    "filter",
    "merge",
    '[{"a": 1, "b": 1}, {"b": 2}] | merge',
    {"a": 1, "b": 2},
)
def merge(value: Any) -> dict[str, Any]:
    """Give one object of a list of objects; what comes later wins.

    A null among them counts for nothing.
    """
    found: dict[str, Any] = {}
    for item in items_of(value, "merge"):
        if item is not None:
            found.update(object_of(item, "merge"))
    return found


@declare(
    "filter",
    "indexOf",
    '["a", "b"] | indexOf("b")',
    1,
)
def index_of(value: Any, item: Any) -> int | None:
    """Tell where in a list an item, or in a text a text, is first, counted from 0; null if it is not."""
    if isinstance(value, str):
        at = value.find(text_argument(item, "indexOf", "item"))
        return at if at >= 0 else None
    for index, one in enumerate(items_of(value, "indexOf")):
        if operators.equal(one, item):
            return index
    return None
