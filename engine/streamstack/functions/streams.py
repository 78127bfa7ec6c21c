"""Stream operators: map, filter, batch, split, merge, take, intervals, rolling statistics, changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from streamstack.errors import RunError
from streamstack.language.definition import Choice, Effects, Example, Parameter, Property, function
from streamstack.language.kinds import Kind
from streamstack.runtime.aggregates import OPERATIONS
from streamstack.runtime.operators import (
    Skipped,
    gathered,
    gathered_within,
    merged,
    passed,
    split,
    taken,
    ticks,
    worked,
    worked_at_once,
)
from streamstack.runtime.run import Run
from streamstack.runtime.splitters import TEXT_UNITS, splitter
from streamstack.runtime.values import Batches, Stream, iterate
from streamstack.runtime.windows import Changes, Figure, Shape, Window, windowed, windowed_on_time
from streamstack.spec import Binds, Bound, Condition, Constant, Group, ListOf, Named, Nesting, OneOf, StackOf, Variable

#: Items in a batch that only a time ends: no stream may fill the memory.
LARGEST_BATCH = 10_000

_ITEM = Binds("as", "item")


def checked(value: Any) -> Any:
    """Return what can be iterated, unclaimed: a stream is claimed when what is made of it opens."""
    if not isinstance(value, Stream):
        iterate(value)
    return value


@function(
    "streams.interval",
    Parameter("every", Bound(Kind.DURATION, minimum=0.001), "Time between ticks.", required=True, main=True),
    Parameter("limit", Bound(Kind.INTEGER, minimum=0), "Number of ticks. Default: unlimited."),
    effects=Effects(gives="stream", result="stream of integer"),
    examples=[
        Example(
            "three ticks",
            "- streams.interval: {every: 5ms, limit: 3}\n  as: ticks\n"
            "- forEach: {in: << ticks >>, as: tick, do: [{stream: << tick >>}]}",
            chunks=(1, 2, 3),
        ),
        Example(
            "the first tick is immediate",
            "- streams.interval: 1h\n  as: ticks\n- forEach: {in: << ticks >>, as: tick, do: [{return: << tick >>}]}",
            result=1,
        ),
    ],
)
def interval(run: Run, every: float, limit: int | None = None) -> Stream:
    """Emit the numbers 1, 2, 3 ... at a fixed interval, starting immediately.

    The schedule does not drift, however long the work between ticks takes. If the work takes longer than
    `every`, missed ticks are merged into one. The stream ends after `limit` ticks.
    """
    return Stream(partial(ticks, every, limit))


@function(
    "streams.map",
    Parameter("in", Bound(Kind.ITEMS), "Stream or list.", required=True),
    Parameter("as", Variable(), "Variable that holds the item in `value` and `do`.", default="item"),
    Parameter("value", Bound(per_item=_ITEM), "New item, as an expression of the old one."),
    Parameter(
        "do",
        StackOf(Nesting.ITEM, (_ITEM,), loop=True),
        "Steps whose `return` is the new item. An alternative to `value`.",
    ),
    Parameter(
        "concurrency",
        Bound(Kind.INTEGER, minimum=1, maximum=1000),
        "With `do`: number of items processed at the same time.",
        default=1,
    ),
    Parameter(
        "onError",
        Constant(choices=("fail", "skip")),
        "If an item fails: end the stream with the error, or log and count the error and skip the item.",
        default="fail",
    ),
    choices=(Choice(("value", "do")),),
    effects=Effects(
        gives="stream",
        result="stream of (value | do)",
        properties=(Property("skipped", "Number of items skipped because of errors.", "integer"),),
    ),
    examples=[
        Example(
            "map with an expression",
            "- streams.map: {in: [1, 2, 3], as: n, value: << n * 2 >>}\n  as: doubled\n"
            "- collect: << doubled >>\n  as: all\n- return: << all >>",
            result=[2, 4, 6],
        ),
        Example(
            "map with steps, concurrently and in order",
            "- streams.map:\n    in: [20, 1]\n    as: ms\n    concurrency: 2\n    do:\n"
            "      - wait: << ms >>\n      - return: {waited: << ms >>}\n  as: waits\n"
            "- forEach: {in: << waits >>, do: [{stream: << item >>}]}",
            chunks=({"waited": 20}, {"waited": 1}),
        ),
        Example(
            "skip invalid items",
            '- streams.map: {in: ["1", "x", "3"], value: << item | toInteger >>, onError: skip}\n'
            "  as: numbers\n- collect: << numbers >>\n  as: all\n"
            "- return: << [all, numbers.skipped] >>",
            result=[[1, 3], 1],
        ),
    ],
)
def map_(
    run: Run,
    in_: Any,
    value: Callable[[Any], Any] | None = None,
    do: Callable[[Any, int], Awaitable[Any]] | None = None,
    concurrency: int = 1,
    on_error: str = "fail",
) -> Stream:
    """Transform each item with an expression or with steps.

    The order of the items is preserved. With `concurrency` above 1, up to that many items are processed at the
    same time, each with its own copy of the variables; closing the stream cancels them. Steps without `return`
    yield null.
    """
    if (value is None) == (do is None):
        raise RunError("template", "`streams.map` needs either `value` or `do`")
    items = checked(in_)
    skipped: Skipped | None = None

    def open_() -> Batches:
        nonlocal skipped
        source = iterate(items)
        skipped = Skipped(run)
        passing_over = skipped if on_error == "skip" else None
        if do is None:
            assert value is not None
            return passed(run, source, partial(map, value), passing_over)
        if concurrency > 1:
            return worked_at_once(source, do, concurrency, passing_over)
        return worked(run, source, do, passing_over)

    return Stream(open_, {"skipped": lambda: None if skipped is None else skipped.count})


@function(
    "streams.filter",
    Parameter("in", Bound(Kind.ITEMS), "Stream or list.", required=True),
    Parameter("as", Variable(), "Variable that holds the item in `where`.", default="item"),
    Parameter("where", Condition(per_item=_ITEM), "Condition that an item must meet.", required=True),
    effects=Effects(gives="stream", result="stream of items of in"),
    examples=[
        Example(
            "even numbers",
            "- streams.filter: {in: << range(6) >>, as: n, where: << n % 2 == 0 >>}\n  as: even\n"
            "- collect: << even >>\n  as: all\n- return: << all >>",
            result=[0, 2, 4],
        )
    ],
)
def filter_(run: Run, in_: Any, where: Any) -> Stream:
    """Return the items for which a condition is true, in order."""
    items = checked(in_)
    matches = where if callable(where) else lambda _: where
    return Stream(lambda: passed(run, iterate(items), partial(filter, matches)))


@function(
    "streams.batch",
    Parameter("in", Bound(Kind.ITEMS), "Stream or list.", required=True),
    Parameter(
        "size",
        Bound(Kind.INTEGER, minimum=1),
        f"Number of items per list. Without `size`, a list has at most {LARGEST_BATCH} items.",
    ),
    Parameter(
        "within",
        Bound(Kind.DURATION, minimum=0.001),
        "Maximum time that a batch waits, from its first item, before it is emitted.",
    ),
    choices=(Choice(("size", "within"), several=True),),
    effects=Effects(gives="stream", result="stream of [items of in]"),
    examples=[
        Example(
            "batches of two",
            "- streams.batch: {in: [1, 2, 3, 4, 5], size: 2}\n  as: pairs\n"
            "- forEach: {in: << pairs >>, as: pair, do: [{stream: << pair >>}]}",
            chunks=([1, 2], [3, 4], [5]),
        ),
        Example(
            "emit a partial batch after a time",
            "- streams.interval: {every: 40ms, limit: 2}\n  as: ticks\n"
            "- streams.batch: {in: << ticks >>, size: 10, within: 10ms}\n  as: lists\n"
            "- forEach: {in: << lists >>, as: list, do: [{stream: << list >>}]}",
            chunks=([1], [2]),
        ),
    ],
)
def batch(run: Run, in_: Any, size: int | None = None, within: float | None = None) -> Stream:
    """Group items into lists of a given size. The last list may be shorter.

    With `within`, a list is also emitted when that time has passed since its first item, so slow streams are
    not delayed. If the stream fails, the collected items are emitted before the error.
    """
    items = checked(in_)
    if within is not None:
        return Stream(lambda: gathered_within(iterate(items), size or LARGEST_BATCH, within))
    if size is None:
        raise RunError("template", "`streams.batch` needs `size`, or `within`, or both")
    return Stream(lambda: gathered(run, iterate(items), size))


@function(
    "streams.take",
    Parameter("in", Bound(Kind.ITEMS), "Stream or list.", required=True),
    Parameter("count", Bound(Kind.INTEGER, minimum=0), "Maximum number of items.", required=True),
    effects=Effects(gives="stream", result="stream of items of in", shortens=True),
    examples=[
        Example(
            "the first two of many",
            "- streams.interval: 1ms\n  as: ticks\n- streams.take: {in: << ticks >>, count: 2}\n"
            "  as: two\n- collect: << two >>\n  as: all\n- return: << all >>",
            result=[1, 2],
        )
    ],
)
def take(run: Run, in_: Any, count: int) -> Stream:
    """Return the first items, then close the source stream."""
    items = checked(in_)
    return Stream(lambda: taken(iterate(items), count))


@function(
    "streams.split",
    Parameter("in", Bound(Kind.ITEMS), "Stream of texts or of `llm.chat` items, or a list.", required=True),
    Parameter("by", Bound(Kind.TEXT, choices=TEXT_UNITS), "Unit to split by.", default="words"),
    Parameter("size", Bound(Kind.INTEGER, minimum=1), "Number of units per item.", default=1),
    effects=Effects(gives="stream", result="stream of text"),
    examples=[
        Example(
            "words, regardless of the incoming chunks",
            '- streams.split: {in: ["On", "e tw", "o three"], by: words, size: 2}\n  as: pieces\n'
            "- forEach: {in: << pieces >>, as: piece, do: [{stream: << piece >>}]}",
            chunks=("One two", " three"),
        ),
        Example(
            "sentences of an LLM response",
            "- streams.split:\n    in: << input.reply >>\n    by: sentences\n  as: sentences\n"
            "- forEach: {in: << sentences >>, as: sentence, do: [{stream: << sentence >>}]}",
            inputs={
                "reply": [
                    {"type": "text", "text": "Yes. It"},
                    {"type": "toolCall", "name": "look"},
                    {"type": "text", "text": " is!"},
                ]
            },
            chunks=("Yes.", " It is!"),
        ),
    ],
)
def split_(run: Run, in_: Any, by: str = "words", size: int = 1) -> Stream:
    """Split text that arrives in chunks into units. Each unit is emitted as soon as it is complete.

    The concatenated units are the text. Items may be texts, or objects with a `text` field, such as those of
    `llm.chat`; other items are skipped. Characters are user-perceived characters (grapheme clusters). A word or
    sentence includes the white space before it; a line includes its line break. A word is complete when the
    next one begins. If the stream fails, the remaining text is emitted before the error.
    """
    items = checked(in_)
    splitting = splitter(by, size)
    return Stream(lambda: split(run, iterate(items), splitting))


@function(
    "streams.merge",
    Parameter(
        "streams",
        OneOf((ListOf(Bound(Kind.ITEMS)), Named(Bound(Kind.ITEMS)))),
        "Streams to merge: a list, or a mapping by name.",
        required=True,
        main=True,
    ),
    effects=Effects(gives="stream"),
    examples=[
        Example(
            "merge a list of streams",
            "- streams.interval: {every: 30ms, limit: 2}\n  as: slow\n"
            "- streams.merge: [<< slow >>, [10, 20]]\n  as: both\n"
            "- collect: << both >>\n  as: all\n- return: << all | sort >>",
            result=[1, 2, 10, 20],
        ),
        Example(
            "merge named streams",
            "- streams.merge: {a: [1], b: [2]}\n  as: both\n"
            "- collect: << both >>\n  as: all\n- return: << all | sortBy('from') >>",
            result=[{"from": "a", "item": 1}, {"from": "b", "item": 2}],
        ),
    ],
)
def merge(run: Run, streams: Any) -> Stream:
    """Merge the items of several streams in the order of arrival.

    With named streams, an item is {from, item}, where `from` is the name. All streams are read concurrently,
    with at most one batch of read-ahead each. An error in one stream closes the others and ends the merge.
    """
    named: list[tuple[str | None, Any]]
    if isinstance(streams, Mapping):
        named = [(name, checked(items)) for name, items in streams.items()]
    else:
        named = [(None, checked(items)) for items in streams]
    return Stream(lambda: merged([(name, iterate(items)) for name, items in named]))


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
    effects=Effects(gives="stream", result="stream of {key?: by, ...compute}"),
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
    effects=Effects(
        gives="stream",
        result="stream of {key?: key, first: boolean, removed: [text], "
        "changed: {..., *: {value: any, previous: any, delta: number?, trend: text?}}}",
    ),
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


FUNCTIONS = (interval, map_, filter_, batch, take, split_, merge, window, changes)
