"""Filters of lists and objects."""

# An author passes an argument by position or by name, whatever it is.
# ruff: noqa: FBT002
from __future__ import annotations

import random as generator
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.filters.operations import (
    FILTERS,
    ROWS,
    TESTS,
    Operation,
    at_path,
    declare,
    failed,
    items_of,
    object_of,
    sequence_of,
    text_argument,
    values_at,
    whole,
    wrong,
)
from streamstack.language.names import did_you_mean
from streamstack.language.operators import key_text
from streamstack.language.values import number_key, to_text


@declare(
    "filter",
    "length",
    '[[1, 2] | length, "Zoë" | length]',
    [2, 3],
    aliases=("count",),
    shape=f"text | {ROWS} | bytes -> integer",
)
def length(value: Any) -> int:
    """Return the number of items of a list, entries of an object, characters of a text, or bytes."""
    if isinstance(value, (str, list, tuple, dict, bytes)):
        return len(value)
    raise wrong("length", "a list, an object or a text", value)


@declare(
    "filter",
    "first",
    "[[3, 1] | first, [] | first, [1, 2, 3] | first(2)]",
    [3, None, [1, 2]],
    takes={"count": whole()},
    shape=f"{ROWS} | text -> items of it?",
)
def first(value: Any, count: Any = None) -> Any:
    """Return the first item of a list, or character of a text; null if it is empty.

    With a number, return a list of that many items from the start.
    """
    items = sequence_of(value, "first")
    if count is not None:
        return _list(items[:count])
    return items[0] if items else None


@declare("filter", "last", "[1, 2, 3] | last", 3, takes={"count": whole()}, shape=f"{ROWS} | text -> items of it?")
def last(value: Any, count: Any = None) -> Any:
    """Return the last item of a list, or character of a text; null if it is empty.

    With a number, return a list of that many items from the end.
    """
    items = sequence_of(value, "last")
    if count is not None:
        return _list(items[max(0, len(items) - count) :])
    return items[-1] if items else None


def _list(items: Sequence[Any]) -> Any:
    return items if isinstance(items, str) else list(items)


@declare("filter", "reverse", "[1, 2, 3] | reverse", [3, 2, 1], shape=f"{ROWS} | text -> it")
def reverse(value: Any) -> Any:
    """Reverse a list or a text."""
    items = sequence_of(value, "reverse")
    return items[::-1] if isinstance(items, str) else list(reversed(items))


@declare("filter", "sort", '["b", "A", "c"] | sort(reverse=true)', ["c", "b", "A"], shape=f"{ROWS} -> [items of it]")
def sort(value: Any, reverse: Any = False, case_sensitive: Any = False, attribute: Any = None) -> list[Any]:
    """Sort a list, optionally by an attribute of its items.

    Text comparison ignores case unless `case_sensitive` is set; null is last.
    """
    return _sorted(items_of(value, "sort"), attribute, reverse, folded=not case_sensitive)


@declare(
    "filter", "sortBy", '[{"n": 2}, {"n": 1}] | sortBy("n")', [{"n": 1}, {"n": 2}], shape=f"{ROWS} -> [items of it]"
)
def sort_by(value: Any, field: Any, reverse: Any = False) -> list[Any]:
    """Sort a list by a field of its items. "a.b" is a nested field.

    The sort is stable; null is last. Text comparison is case-sensitive.
    """
    return _sorted(items_of(value, "sortBy"), field, reverse, folded=False)


def _sorted(items: Sequence[Any], path: Any, reverse: Any, *, folded: bool) -> list[Any]:
    keys = items if path is None else values_at(items, path)
    if folded and str in set(map(type, keys)):
        keys = [key.casefold() if isinstance(key, str) else key for key in keys]
    known = [place for place, key in enumerate(keys) if key is not None]
    ordering = operators.order_key(keys if len(known) == len(keys) else [keys[place] for place in known])
    if keys is items and len(known) == len(items):
        return sorted(items, key=ordering, reverse=bool(reverse))
    known.sort(key=keys.__getitem__ if ordering is None else lambda at: ordering(keys[at]), reverse=bool(reverse))
    return [items[place] for place in known] + [item for item, key in zip(items, keys, strict=True) if key is None]


@declare("filter", "unique", '[1, 2, 1, 1.0, "a"] | unique', [1, 2, "a"], shape=f"{ROWS} -> [items of it]")
def unique(value: Any, case_sensitive: Any = True, attribute: Any = None) -> list[Any]:
    """Remove duplicates from a list, optionally by an attribute. The first of equal items stays.

    With `case_sensitive=false`, texts that differ only in case are equal.
    """
    items = items_of(value, "unique")
    keys = items if attribute is None else values_at(items, attribute)
    if not case_sensitive:
        keys = [key.casefold() if isinstance(key, str) else key for key in keys]
    marks = keys if set(map(type, keys)) <= {str} else map(identity, keys)
    first: dict[Any, Any] = {}
    for mark, item in zip(marks, items, strict=True):
        first.setdefault(mark, item)
    return list(first.values())


def identity(value: Any) -> Any:
    """Return a hashable key that is the same for equal values."""
    if type(value) is str:
        return value
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
    takes={"levels": whole(0, 100)},
    shape=f"{ROWS} -> list",
)
def flatten(value: Any, levels: Any = 1) -> list[Any]:
    """Flatten nested lists by one level, or by the given number of levels."""
    items = list(items_of(value, "flatten"))
    for _ in range(levels):
        if not any(isinstance(item, list) for item in items):
            break
        items = [one for item in items for one in (item if isinstance(item, list) else [item])]
    return items


@declare(
    "filter",
    "batch",
    "[1, 2, 3] | batch(2, 0)",
    [[1, 2], [3, 0]],
    takes={"linecount": whole(1)},
    shape=f"{ROWS} -> [[any]]",
)
def batch(value: Any, linecount: Any, fill_with: Any = None) -> list[list[Any]]:
    """Split a list into lists of a given size. The last one is padded with `fill_with` unless that is null."""
    items = list(items_of(value, "batch"))
    found = [items[start : start + linecount] for start in range(0, len(items), linecount)]
    if found and fill_with is not None:
        found[-1] += [fill_with] * (linecount - len(found[-1]))
    return found


@declare(
    "filter",
    "slice",
    "[1, 2, 3, 4, 5] | slice(2)",
    [[1, 2, 3], [4, 5]],
    takes={"slices": whole(1, 100_000)},
    shape=f"{ROWS} -> [[any]]",
)
def slices(value: Any, slices: Any, fill_with: Any = None) -> list[list[Any]]:
    """Split a list into a number of lists of about equal size.

    Shorter ones are padded with `fill_with` unless that is null.
    """
    items = list(items_of(value, "slice"))
    each, more = divmod(len(items), slices)
    found, start = [], 0
    for index in range(slices):
        stop = start + each + (index < more)
        part = items[start:stop]
        if fill_with is not None and index >= more and more:
            part.append(fill_with)
        found.append(part)
        start = stop
    return found


@declare("filter", "random", "[7] | random", 7, shape=f"{ROWS} | text -> items of it?")
def random_item(value: Any) -> Any:
    """Return a random item of a list; null if it is empty."""
    items = sequence_of(value, "random")
    return generator.choice(items) if items else None  # noqa: S311


@declare(
    "filter",
    "groupBy",
    '[{"t": "a", "n": 1}, {"t": "b"}, {"t": "a"}] | groupBy("t")',
    {"a": [{"t": "a", "n": 1}, {"t": "a"}], "b": [{"t": "b"}]},
    shape=f"{ROWS} -> object",
)
def group_by(value: Any, field: Any) -> dict[str, list[Any]]:
    """Group items by a field: an object of lists, by the text of the field's value.

    Keys are in order of first appearance; the key for null is "".
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
    shape=f"{ROWS} -> [{{grouper: any, list: [items of it]}}]",
)
def group_in_order(
    value: Any, attribute: Any, default: Any = None, case_sensitive: Any = False
) -> list[dict[str, Any]]:
    """Group items by a field: a list of {grouper, list}, sorted by the field, as in Jinja2.

    For use in `<% for %>`.
    """

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
    "filter", "indexBy", '[{"id": 7, "n": "a"}] | indexBy("id")', {"7": {"id": 7, "n": "a"}}, shape=f"{ROWS} -> object"
)
def index_by(value: Any, field: Any) -> dict[str, Any]:
    """Return an object of a list's items by the text of a field. Of items with the same key, the last one stays."""
    return {to_text(at_path(item, field)): item for item in items_of(value, "indexBy")}


@declare("filter", "merge", '[{"a": 1, "b": 1}, {"b": 2}] | merge', {"a": 1, "b": 2}, shape=f"{ROWS} -> object")
def merge(value: Any) -> dict[str, Any]:
    """Merge a list of objects into one. Later values overwrite earlier ones.

    Null items are ignored.
    """
    found: dict[str, Any] = {}
    for item in items_of(value, "merge"):
        if item is not None:
            found.update(object_of(item, "merge"))
    return found


@declare("filter", "indexOf", '["a", "b"] | indexOf("b")', 1, shape=f"{ROWS} | text -> integer?")
def index_of(value: Any, item: Any) -> int | None:
    """Return the index of the first occurrence of an item in a list, or of a text in a text.

    The index counts from 0; it is null without an occurrence.
    """
    if isinstance(value, str):
        at = value.find(text_argument(item, "indexOf", "item"))
        return at if at >= 0 else None
    for index, one in enumerate(items_of(value, "indexOf")):
        if operators.equal(one, item):
            return index
    return None


# ----------------------------------------------------------------------------------------- objects


@declare("filter", "keys", '{"a": 1, "b": 2} | keys', ["a", "b"], shape="object -> [text]")
def keys(value: Any) -> list[str]:
    """Return the keys of an object."""
    return list(object_of(value, "keys"))


@declare("filter", "values", '{"a": 1, "b": 2} | values', [1, 2], shape="object -> list")
def values(value: Any) -> list[Any]:
    """Return the values of an object."""
    return list(object_of(value, "values").values())


@declare(
    "filter", "entries", '{"a": 1} | entries', [{"key": "a", "value": 1}], shape="object -> [{key: text, value: any}]"
)
def entries(value: Any) -> list[dict[str, Any]]:
    """Return the entries of an object, each as {key, value}."""
    return [{"key": key, "value": one} for key, one in object_of(value, "entries").items()]


@declare("filter", "items", '{"a": 1} | items', [["a", 1]], shape="object? -> [[any]]")
def items(value: Any) -> list[list[Any]]:
    """Return the entries of an object, each as [key, value]. For `<% for key, value in x | items %>`.

    Null has no entries.
    """
    return [] if value is None else [[k, one] for k, one in object_of(value, "items").items()]


@declare(
    "filter",
    "fromEntries",
    '[["a", 1], {"key": "b", "value": 2}] | fromEntries',
    {"a": 1, "b": 2},
    shape=f"{ROWS} -> object",
)
def from_entries(value: Any) -> dict[str, Any]:
    """Create an object from a list of {key, value} or [key, value]. The inverse of `entries` and `items`."""
    found = {}
    for entry in items_of(value, "fromEntries"):
        pair = (0, 1) if isinstance(entry, list) else ("key", "value")
        found[key_text(at_path(entry, pair[0]))] = at_path(entry, pair[1])
    return found


@declare("filter", "dictsort", '{"b": 1, "a": 2} | dictsort', [["a", 2], ["b", 1]], shape="object -> [[any]]")
def dict_sort(value: Any, case_sensitive: Any = False, by: Any = "key", reverse: Any = False) -> list[list[Any]]:
    """Return the entries of an object as [key, value], sorted by key, or by value with `by`."""
    return sort(items(object_of(value, "dictsort")), reverse, case_sensitive, int(by == "value"))


@declare(
    "filter",
    "pick",
    '{"a": 1, "b": 2, "c": 3} | pick("a", "c", "d")',
    {"a": 1, "c": 3},
    shape="object | list -> object | list",
)
def pick(value: Any, *names: Any) -> Any:
    """Return an object with only the given keys; for a list, apply that to each object.

    Keys that the object does not have are ignored. Keys can also be given as one list.
    """
    wanted = _names(names)
    if isinstance(value, list):
        return [pick(item, wanted) for item in value]
    known = object_of(value, "pick")
    return {name: known[name] for name in wanted if name in known}


@declare("filter", "omit", '{"a": 1, "b": 2} | omit("b")', {"a": 1}, shape="object | list -> object | list")
def omit(value: Any, *names: Any) -> Any:
    """Return an object without the given keys; for a list, apply that to each object.

    Keys can also be given as one list.
    """
    unwanted = _names(names)
    if isinstance(value, list):
        return [omit(item, unwanted) for item in value]
    return {name: one for name, one in object_of(value, "omit").items() if name not in unwanted}


def _names(names: tuple[Any, ...]) -> list[str]:
    flat = names[0] if len(names) == 1 and isinstance(names[0], list) else names
    return [key_text(name) for name in flat]


# ------------------------------------------------------------------------------------------ select


@declare(
    "filter",
    "map",
    '[[{"n": 1}, {}] | map(attribute="n", default=0), ["a"] | map("upper")]',
    [[1, 0], ["A"]],
    shape=f"{ROWS} -> [any]",
)
def map_items(value: Any, filter: Any = None, *arguments: Any, **named: Any) -> list[Any]:  # noqa: A002
    """Apply a filter to each item of a list, or return one field of each item.

    With `attribute`, an item without the field yields null, or `default`.
    """
    items = items_of(value, "map")
    if filter is None:
        attribute, default = named.pop("attribute", None), named.pop("default", None)
        if attribute is None or named:
            raise failed("map", 'write `map("name of a filter")` or `map(attribute="field")`')
        found = [at_path(item, attribute) for item in items]
        return [default if one is None else one for one in found]
    operation = _named("filter", filter, FILTERS, "map")
    return [_apply(operation, item, arguments, named) for item in items]


@declare(
    "filter", "select", '[1, 2, 3, null] | select("number") | select("odd")', [1, 3], shape=f"{ROWS} -> [items of it]"
)
def select(value: Any, test: Any = None, *arguments: Any) -> list[Any]:
    """Return the items of a list that pass a test, or, without a test, are true."""
    passes = _test(test, arguments, "select")
    return [item for item in items_of(value, "select") if passes(item)]


@declare("filter", "reject", '[1, null, 2] | reject("none")', [1, 2], shape=f"{ROWS} -> [items of it]")
def reject(value: Any, test: Any = None, *arguments: Any) -> list[Any]:
    """Return the items of a list that don't pass a test, or, without a test, are not true."""
    passes = _test(test, arguments, "reject")
    return [item for item in items_of(value, "reject") if not passes(item)]


@declare(
    "filter",
    "selectattr",
    '[{"n": 1}, {"n": 5}] | selectattr("n", "gt", 2)',
    [{"n": 5}],
    shape=f"{ROWS} -> [items of it]",
)
def select_by_field(value: Any, attribute: Any, test: Any = None, *arguments: Any) -> list[Any]:
    """Return the items of a list whose field passes a test, or, without a test, is true.

    A missing field is null.
    """
    passes = _test(test, arguments, "selectattr")
    items = items_of(value, "selectattr")
    return [item for item in items if passes(at_path(item, attribute))]


@declare(
    "filter",
    "rejectattr",
    '[{"done": true}, {"done": false}] | rejectattr("done")',
    [{"done": False}],
    shape=f"{ROWS} -> [items of it]",
)
def reject_by_field(value: Any, attribute: Any, test: Any = None, *arguments: Any) -> list[Any]:
    """Return the items of a list whose field doesn't pass a test, or, without a test, is not true."""
    passes = _test(test, arguments, "rejectattr")
    items = items_of(value, "rejectattr")
    return [item for item in items if not passes(at_path(item, attribute))]


def _test(test: Any, arguments: tuple[Any, ...], name: str) -> Callable[[Any], bool]:
    if test is None:
        return bool
    operation = _named("test", test, TESTS, name)
    if operation.name in ("defined", "undefined"):
        # A field that is not there is null here.
        return lambda item: (item is not None) == (operation.name == "defined")
    return lambda item: bool(_apply(operation, item, arguments, {}))


def _named(what: str, word: Any, known: dict[str, Operation], name: str) -> Operation:
    operation = known.get(word) if isinstance(word, str) else None
    if operation is None:
        near = did_you_mean(word, known) if isinstance(word, str) else ""
        raise failed(name, f"unknown {what}{near}")
    return operation


def _apply(operation: Operation, item: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        return operation.call(item, *arguments, **named)
    except TypeError:
        # Its arguments came through a list, where nothing has counted them before.
        raise RunError("template", f"these are not the arguments of {operation.usage}") from None
