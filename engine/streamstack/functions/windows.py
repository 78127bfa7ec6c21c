"""Aggregation over streams: rolling statistics, and changes from item to item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from streamstack.errors import RunError
from streamstack.functions.streams import checked
from streamstack.language.definition import Choice, Effects, Example, Parameter, function
from streamstack.runtime.aggregates import OPERATIONS
from streamstack.runtime.operators import passed
from streamstack.runtime.run import Run
from streamstack.runtime.values import Batches, Stream, iterate
from streamstack.runtime.windows import Changes, Figure, Shape, Window, windowed, windowed_on_time
from streamstack.spec import Binds, Bound, Constant, Group, Kind, ListOf, Named, Variable

_ITEM = Binds("as", "item")
_MOST = 10_000_000


@function(
    "streams.window",
    Parameter("in", Bound(Kind.ITEMS), "Stream or list.", required=True),
    Parameter("as", Variable(), "Variable that holds the item in `by` and `of`.", default="item"),
    Parameter("size", Bound(Kind.INTEGER, minimum=1, maximum=_MOST), "Window over the last N items."),
    Parameter(
        "within",
        Bound(Kind.DURATION, minimum=0.001),
        "Window over a period of time. Without `within` and `size`, the window covers all items since the beginning.",
    ),
    Parameter(
        "every",
        Bound(Kind.EVERY),
        "When to emit results: after this many items, or at a fixed interval (whether or not items arrive). If "
        "it equals `size` or `within`, windows don't overlap.",
        default=1,
    ),
    Parameter(
        "by",
        Bound(per_item=_ITEM, expression=True),
        "Grouping key, an expression of the item. Each key has its own window and results.",
    ),
    Parameter(
        "compute",
        Named(
            Group(
                (
                    Parameter("op", Bound(Kind.TEXT, choices=OPERATIONS), "Aggregation to compute.", required=True),
                    Parameter(
                        "of",
                        Bound(per_item=_ITEM, expression=True),
                        "Value to aggregate, an expression of the item. Default: the item itself. Null is ignored.",
                    ),
                )
            ),
            taken=("key",),
            least=1,
        ),
        "Results by name.",
        required=True,
    ),
    Parameter(
        "groups",
        Bound(Kind.INTEGER, minimum=1, maximum=_MOST),
        "Maximum number of groups at the same time.",
        default=10_000,
    ),
    Parameter(
        "limit",
        Bound(Kind.INTEGER, minimum=1, maximum=_MOST),
        "Maximum number of items in memory, over all groups.",
        default=100_000,
    ),
    choices=(Choice(("size", "within"), required=False),),
    effects=Effects(gives="stream", result="stream of {...}"),
    examples=[
        Example(
            "mean of the last three",
            "- streams.window:\n    in: [5, 1, 3, 9]\n    size: 3\n    compute:\n"
            "      mean: {op: mean}\n      highest: {op: max}\n  as: rolling\n"
            "- forEach: {in: << rolling >>, do: [{stream: << item >>}]}",
            chunks=(
                {"mean": 5.0, "highest": 5},
                {"mean": 3.0, "highest": 5},
                {"mean": 3.0, "highest": 5},
                {"mean": 13 / 3, "highest": 9},
            ),
        ),
        Example(
            "totals per key",
            "- streams.window:\n    in: << input.sales >>\n    as: sale\n    by: << sale.shop >>\n    compute:\n"
            "      total: {op: sum, of: << sale.amount >>}\n      sales: {op: count}\n  as: totals\n"
            "- forEach: {in: << totals >>, do: [{stream: << item >>}]}",
            inputs={
                "sales": [
                    {"shop": "north", "amount": 5},
                    {"shop": "south", "amount": 2},
                    {"shop": "north", "amount": 4},
                ]
            },
            chunks=(
                {"key": "north", "total": 5, "sales": 1},
                {"key": "south", "total": 2, "sales": 1},
                {"key": "north", "total": 9, "sales": 2},
            ),
        ),
        Example(
            "windows that don't overlap",
            "- streams.window:\n    in: [1, 2, 3, 4, 5]\n    size: 2\n    every: 2\n    compute:\n"
            "      sum: {op: sum}\n      median: {op: p50}\n  as: pairs\n"
            "- forEach: {in: << pairs >>, do: [{stream: << item >>}]}",
            chunks=({"sum": 3, "median": 1.5}, {"sum": 7, "median": 3.5}, {"sum": 5, "median": 5}),
        ),
        Example(
            "a fixed interval",
            "- streams.interval: {every: 35ms, limit: 2}\n  as: ticks\n"
            "- streams.window: {in: << ticks >>, within: 10ms, every: 10ms, compute: {came: {op: count}}}\n"
            "  as: counts\n- streams.take: {in: << counts >>, count: 3}\n  as: three\n"
            "- forEach: {in: << three >>, do: [{stream: << item.came >>}]}",
            chunks=(1, 0, 0),
        ),
    ],
)
def window(  # noqa: PLR0913  (a window has that many parts)
    run: Run,
    *,
    in_: Any,
    compute: Mapping[str, Mapping[str, Any]],
    size: int | None = None,
    within: float | None = None,
    every: float = 1,
    by: Callable[[Any], Any] | None = None,
    groups: int = 10_000,
    limit: int = 100_000,
) -> Stream:
    """Compute rolling statistics over the items of a stream.

    An item of the result is {name: value, ...}. With `by` it also has the `key` of the group that received an
    item. Aggregations:

    - `count`: number of values; `rate`: values per second, over the period that the window covers so far.
    - `sum`, `mean`: of numbers, without rounding drift. The sum of integers is an integer, the sum of decimals
      is exact.
    - `stddev`: sample standard deviation (n - 1); null for fewer than two numbers.
    - `min`, `max`: of numbers, texts or timestamps. `first`, `last`: of any values.
    - `p50`, `p90`, `p95`, `p99`: percentiles. Exact up to 1,000 numbers in the window, with linear
      interpolation as in the filter `percentile`; within 1 % of the number above that.
    - `distinct`: number of distinct values. Exact if items leave the window one by one, and otherwise up to
      10,000 distinct values; above that an estimate with a standard error of 0.8 %.

    Null values are ignored. For an empty window, `count`, `rate`, `sum` and `distinct` are 0, the others null.

    At the end of the stream, a final result is emitted if items arrived since the last one. If `every` is a
    duration, results are also emitted for an empty window; a group emits one empty result and is then removed
    until its next item. In a window by time, a group without items is removed; other groups stay. Items that
    arrive together have the same time, the time of arrival.

    A window without overlap, or one that covers all items since the beginning, does not store items. Other
    windows do: more than `limit` items in total fail with `limit-reached`, and so do more groups than `groups`.
    """
    if size is not None and within is not None:
        raise RunError("template", "`streams.window` takes `size` or `within`, not both")
    figures = [Figure(name, each["op"], each.get("of")) for name, each in compute.items()]
    shape = Shape(size, within, every, groups, limit)
    make = partial(Window, figures, by, shape)
    items = checked(in_)
    if shape.timed:
        return Stream(lambda: windowed_on_time(iterate(items), make, every))
    return Stream(lambda: windowed(run, iterate(items), make))


@function(
    "streams.changes",
    Parameter("in", Bound(Kind.ITEMS), "Stream or list.", required=True),
    Parameter("as", Variable(), "Variable that holds the item in `key`.", default="item"),
    Parameter(
        "key",
        Bound(per_item=_ITEM, expression=True),
        "Key of the item, an expression. Items with the same key are compared. Default: all items have the same key.",
    ),
    Parameter("fields", ListOf(Bound(Kind.TEXT)), "Fields to compare and return. Default: all."),
    Parameter(
        "limit", Bound(Kind.INTEGER, minimum=1, maximum=_MOST), "Maximum number of keys in memory.", default=10_000
    ),
    Parameter(
        "onLimit",
        Constant(choices=("fail", "forget")),
        "Fail with the error `limit-reached` at the limit, or drop the key that was not updated for longest.",
        default="fail",
    ),
    effects=Effects(gives="stream", result="stream of {first: boolean, changed: {...}, removed: [text], ...}"),
    examples=[
        Example(
            "price changes",
            "- streams.changes:\n    in: << input.prices >>\n    key: << item.symbol >>\n    fields: [price]\n"
            "  as: changes\n- forEach: {in: << changes >>, do: [{stream: << item >>}]}",
            inputs={
                "prices": [
                    {"symbol": "ACME", "price": 10, "at": 1},
                    {"symbol": "ACME", "price": 10, "at": 2},
                    {"symbol": "ACME", "price": 12, "at": 3},
                ]
            },
            chunks=(
                {
                    "key": "ACME",
                    "first": True,
                    "changed": {"price": {"value": 10, "previous": None, "delta": None, "trend": "flat"}},
                    "removed": [],
                },
                {
                    "key": "ACME",
                    "first": False,
                    "changed": {"price": {"value": 12, "previous": 10, "delta": 2, "trend": "up"}},
                    "removed": [],
                },
            ),
        ),
        Example(
            "changes of a number",
            "- streams.changes: {in: [3, 3, 2]}\n  as: changes\n"
            "- forEach: {in: << changes >>, do: [{stream: << item.changed.value.trend >>}]}",
            chunks=("flat", "down"),
        ),
    ],
)
def changes(
    run: Run,
    in_: Any,
    key: Callable[[Any], Any] | None = None,
    fields: list[str] | None = None,
    limit: int = 10_000,
    on_limit: str = "fail",
) -> Stream:
    """Emit only changes: each item is compared with the previous item of the same key.

    An item of the result is {key, first, changed, removed}, with `key` only if the parameter `key` is set. `changed`
    contains the fields whose value changed, by name, each as {value, previous, delta, trend}. For numbers,
    `delta` is the difference and `trend` is `up` or `down`. `removed` lists the fields that are gone.

    The first item of a key has all fields in `changed`, and `first` is true: `previous` and `delta` are null,
    and the `trend` of numbers is `flat`, as for any number without a previous number. For other values, `delta`
    and `trend` are null. An item without changes emits nothing. Items that are not objects are compared as one
    field, `value`.
    """
    compared = Changes(key, fields, limit, forgets=on_limit == "forget")

    def through(items: Iterator[Any]) -> Iterator[Any]:
        return filter(None, map(compared.of, items))

    def open_() -> Batches:
        return passed(run, iterate(source), through)

    source = checked(in_)
    return Stream(open_)


FUNCTIONS = (window, changes)
