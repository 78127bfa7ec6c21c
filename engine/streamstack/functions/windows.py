"""Streams of figures: rolling statistics over a stream, and what changed from item to item."""

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
    Parameter("in", Bound(Kind.ITEMS), "The stream, or a list.", required=True),
    Parameter(
        "as", Variable(), "The variable that holds each item in `by` and `of`.", default="item"
    ),
    Parameter(
        "size",
        Bound(Kind.INTEGER, minimum=1, maximum=_MOST),
        "The window is the last items, this many.",
    ),
    Parameter(
        "within",
        Bound(Kind.DURATION, minimum=0.001),
        "The window is the items of the last while, this long. Without it and `size` it is all since the beginning.",
    ),
    Parameter(
        "every",
        Bound(Kind.EVERY),
        "When figures are given: after this many items, or at even times whether items came or not. "
        "The same as `size` or `within`: each item is in one window only.",
        default=1,
    ),
    Parameter(
        "by",
        Bound(per_item=_ITEM, expression=True),
        "A key, an expression of the item: each key has a window and figures of its own.",
    ),
    Parameter(
        "compute",
        Named(
            Group(
                (
                    Parameter(
                        "op", Bound(Kind.TEXT, choices=OPERATIONS), "The operation.", required=True
                    ),
                    Parameter(
                        "of",
                        Bound(per_item=_ITEM, expression=True),
                        "Of what, an expression of the item; without it of the item itself. Null is passed over.",
                    ),
                )
            ),
            taken=("key",),
            least=1,
        ),
        "The figures, by names of your own.",
        required=True,
    ),
    Parameter(
        "groups",
        Bound(Kind.INTEGER, minimum=1, maximum=_MOST),
        "The most groups there may be at once.",
        default=10_000,
    ),
    Parameter(
        "limit",
        Bound(Kind.INTEGER, minimum=1, maximum=_MOST),
        "The most items that may be held at once, in all groups.",
        default=100_000,
    ),
    choices=(Choice(("size", "within"), required=False),),
    effects=Effects(gives="stream"),
    examples=[
        Example(
            "the last three",
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
            "for each key, since the beginning",
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
            "each item in one window, the last of which is shorter",
            "- streams.window:\n    in: [1, 2, 3, 4, 5]\n    size: 2\n    every: 2\n    compute:\n"
            "      sum: {op: sum}\n      median: {op: p50}\n  as: pairs\n"
            "- forEach: {in: << pairs >>, do: [{stream: << item >>}]}",
            chunks=(
                {"sum": 3, "median": 1.5},
                {"sum": 7, "median": 3.5},
                {"sum": 5, "median": 5},
            ),
        ),
        Example(
            "on a timer, though nothing comes",
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
    """Give figures of the last items, again and again: rolling statistics.

    An item of the stream is {name: figure, ...}; with `by` also the `key`, for the group whose item came. The
    operations:

    - `count`: how many values; `rate`: how many a second, over the time that the window covers so far.
    - `sum`, `mean`: of numbers, without drift. Sums of integers are integers, those of decimals keep all digits.
    - `stddev`: the standard deviation of a sample (n - 1); null of fewer than two numbers.
    - `min`, `max`: of numbers, of texts, or of timestamps. `first`, `last`: of any values.
    - `p50`, `p90`, `p95`, `p99`: percentiles. Exact while the window has up to 1,000 numbers, between two of them in
      proportion, as the filter `percentile` is; of more within 1 % of the number.
    - `distinct`: how many different values. Exact where items leave the window one by one, and up to 10,000 different
      values elsewhere; then an estimate whose standard error is 0.8 %.

    Values that are null are passed over. Of nothing, `count`, `rate`, `sum` and `distinct` are 0, the others null.

    At the end of the stream the last figures are given, if items came since those before. With `every` a time they are
    also given for a window in which nothing came; a group gives its figures of nothing once, and is forgotten until an
    item comes. In a window by time, a group without items in it is forgotten; other groups stay. Items that come
    together have the same time, that at which they come here.

    A window that is the same as `every`, or goes back to the beginning, holds no items. Others hold them: more than
    `limit` in all are the error `limit-reached`, as are more groups than `groups`.
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
    Parameter("in", Bound(Kind.ITEMS), "The stream, or a list.", required=True),
    Parameter("as", Variable(), "The variable that holds each item in `key`.", default="item"),
    Parameter(
        "key",
        Bound(per_item=_ITEM, expression=True),
        "What tells which item is compared with which, an expression of the item; without it all are of one kind.",
    ),
    Parameter(
        "fields",
        ListOf(Bound(Kind.TEXT)),
        "The fields that are compared, and given; without it all are.",
    ),
    Parameter(
        "limit",
        Bound(Kind.INTEGER, minimum=1, maximum=_MOST),
        "The most keys that are remembered.",
        default=10_000,
    ),
    Parameter(
        "onLimit",
        Constant(choices=("fail", "forget")),
        "What happens at the limit: the error `limit-reached`, or the key that had no item for longest is forgotten.",
        default="fail",
    ),
    effects=Effects(gives="stream"),
    examples=[
        Example(
            "prices",
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
                    "changed": {
                        "price": {"value": 10, "previous": None, "delta": None, "trend": "flat"}
                    },
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
            "numbers",
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
    """Give only what changed: each item is compared with the last one of the same key.

    An item of the stream is {key, first, changed, removed}; `key` only where it is asked for. `changed` has, by
    name, the fields with another value than before, each as {value, previous, delta, trend}: for numbers `delta` is
    the difference and `trend` is `up` or `down`. `removed` lists the fields that are gone.

    The first item of a key has all its fields in `changed`, and `first` is true: there `previous` and `delta` are
    null, and the `trend` of numbers is `flat`, as for every number that had none before it. For other values `delta`
    and `trend` are null. An item in which nothing changed gives nothing. Items that are no objects are compared as
    one field, `value`.
    """
    compared = Changes(key, fields, limit, forgets=on_limit == "forget")

    def through(items: Iterator[Any]) -> Iterator[Any]:
        return filter(None, map(compared.of, items))

    def open_() -> Batches:
        return passed(run, iterate(source), through)

    source = checked(in_)
    return Stream(open_)


FUNCTIONS = (window, changes)
