"""Filters of lists and objects."""

# An author passes an argument by position or by name, whatever it is.
# ruff: noqa: FBT002
from __future__ import annotations

import random as generator
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any

from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.filters.operations import (
    FILTERS,
    TESTS,
    Operation,
    at_path,
    declare,
    failed,
    items_of,
    object_of,
    sequence_of,
    text_argument,
    whole,
    wrong,
)
from streamstack.language.operators import key_text
from streamstack.language.suggest import did_you_mean
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
    takes={"count": whole()},
)
def first(value: Any, count: Any = None) -> Any:
    """Give the first item of a list, or character of a text; null if there is none.

    With a number, the list of so many first ones.
    """
    items = sequence_of(value, "first")
    if count is not None:
        return _list(items[:count])
    return items[0] if items else None


@declare("filter", "last", "[1, 2, 3] | last", 3, takes={"count": whole()})
def last(value: Any, count: Any = None) -> Any:
    """Give the last item of a list, or character of a text; null if there is none.

    With a number, the list of so many last ones.
    """
    items = sequence_of(value, "last")
    if count is not None:
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
    "filter", "flatten", "[1, [2, [3]]] | flatten", [1, 2, [3]], takes={"levels": whole(0, 100)}
)
def flatten(value: Any, levels: Any = 1) -> list[Any]:
    """Give the list with the items of lists in it in their place, one level deep or as many as given."""
    items = list(items_of(value, "flatten"))
    for _ in range(levels):
        if not any(isinstance(item, list) for item in items):
            break
        items = [one for item in items for one in (item if isinstance(item, list) else [item])]
    return items


@declare(
    "filter", "batch", "[1, 2, 3] | batch(2, 0)", [[1, 2], [3, 0]], takes={"linecount": whole(1)}
)
def batch(value: Any, linecount: Any, fill_with: Any = None) -> list[list[Any]]:
    """Give the list in lists of a size; the last one is filled up with `fill_with` unless that is null."""
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
)
def slices(value: Any, slices: Any, fill_with: Any = None) -> list[list[Any]]:
    """Give the list in a number of lists of about one size; shorter ones get `fill_with` unless null."""
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


# ----------------------------------------------------------------------------------------- objects


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


# ------------------------------------------------------------------------------------------ select


@declare(
    "filter",
    "map",
    '[[{"n": 1}, {}] | map(attribute="n", default=0), ["a"] | map("upper")]',
    [[1, 0], ["A"]],
)
def map_items(value: Any, filter: Any = None, *arguments: Any, **named: Any) -> list[Any]:  # noqa: A002
    """Give a filter's results for each item of a list, or one field of each item.

    With `attribute` it is the field: null, or `default`, where an item has none.
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
    "filter",
    "select",
    '[1, 2, 3, null] | select("number") | select("odd")',
    [1, 3],
)
def select(value: Any, test: Any = None, *arguments: Any) -> list[Any]:
    """Give the items of a list that pass a test, or, without one, that are true."""
    passes = _test(test, arguments, "select")
    return [item for item in items_of(value, "select") if passes(item)]


@declare(
    "filter",
    "reject",
    '[1, null, 2] | reject("none")',
    [1, 2],
)
def reject(value: Any, test: Any = None, *arguments: Any) -> list[Any]:
    """Give the items of a list that do not pass a test, or, without one, that are not true."""
    passes = _test(test, arguments, "reject")
    return [item for item in items_of(value, "reject") if not passes(item)]


@declare(
    "filter",
    "selectattr",
    '[{"n": 1}, {"n": 5}] | selectattr("n", "gt", 2)',
    [{"n": 5}],
)
def select_by_field(value: Any, attribute: Any, test: Any = None, *arguments: Any) -> list[Any]:
    """Give the items of a list whose field passes a test, or, without one, is true.

    Where an item has no such field, it is null.
    """
    passes = _test(test, arguments, "selectattr")
    items = items_of(value, "selectattr")
    return [item for item in items if passes(at_path(item, attribute))]


@declare(
    "filter",
    "rejectattr",
    '[{"done": true}, {"done": false}] | rejectattr("done")',
    [{"done": False}],
)
def reject_by_field(value: Any, attribute: Any, test: Any = None, *arguments: Any) -> list[Any]:
    """Give the items of a list whose field does not pass a test, or, without one, is not true."""
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


def _apply(
    operation: Operation, item: Any, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    try:
        return operation.call(item, *arguments, **named)
    except TypeError:
        # Its arguments came through a list, where nothing has counted them before.
        raise RunError("template", f"these are not the arguments of {operation.usage}") from None
