"""Filters that apply another filter or a test to each item: Jinja2's map, select and their kin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamstack.errors import RunError
from streamstack.language.filters.expectations import at_path, failed, items_of
from streamstack.language.filters.operations import FILTERS, TESTS, Operation, declare
from streamstack.language.suggest import did_you_mean


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
        raise failed(name, f"there is no {what} of that name{near}")
    return operation


def _apply(
    operation: Operation, item: Any, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    try:
        return operation.call(item, *arguments, **named)
    except TypeError:
        # Its arguments came through a list, where nothing has counted them before.
        raise RunError("template", f"these are not the arguments of {operation.usage}") from None
