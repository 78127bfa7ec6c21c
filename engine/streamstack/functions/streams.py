"""Stream operators: map, filter, batch, split, merge, take, and intervals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from streamstack.errors import RunError
from streamstack.language.definition import Choice, Effects, Example, Parameter, Property, function
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
from streamstack.spec import Binds, Bound, Condition, Constant, Kind, ListOf, Named, Nesting, OneOf, StackOf, Variable

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
        properties=(Property("skipped", "Number of items skipped because of errors."),),
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
    keeps = where if callable(where) else lambda _: where
    return Stream(lambda: passed(run, iterate(items), partial(filter, keeps)))


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


FUNCTIONS = (interval, map_, filter_, batch, take, split_, merge)
