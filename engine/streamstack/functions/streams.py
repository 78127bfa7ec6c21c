"""Streams made of other streams: mapped, filtered, batched, split, merged, cut short; and of time."""

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
from streamstack.spec import (
    Binds,
    Bound,
    Condition,
    Constant,
    Kind,
    ListOf,
    Named,
    Nesting,
    OneOf,
    StackOf,
    Variable,
)

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
    Parameter(
        "every",
        Bound(Kind.DURATION, minimum=0.001),
        "The time from one tick to the next.",
        required=True,
        main=True,
    ),
    Parameter(
        "limit",
        Bound(Kind.INTEGER, minimum=0),
        "How many ticks there are; without it they never end.",
    ),
    effects=Effects(gives="stream"),
    examples=[
        Example(
            "three ticks",
            "- streams.interval: {every: 5ms, limit: 3}\n  as: ticks\n"
            "- forEach: {in: << ticks >>, as: tick, do: [{stream: << tick >>}]}",
            chunks=(1, 2, 3),
        ),
        Example(
            "the first comes at once",
            "- streams.interval: 1h\n  as: ticks\n"
            "- forEach: {in: << ticks >>, as: tick, do: [{return: << tick >>}]}",
            result=1,
        ),
    ],
)
def interval(run: Run, every: float, limit: int | None = None) -> Stream:
    """Give the numbers 1, 2, 3 ... at even times, the first at once.

    The times don't drift, whatever the work between them takes. Work that takes longer than `every` gets
    one tick for all that passed meanwhile. After `limit` ticks the stream ends.
    """
    return Stream(partial(ticks, every, limit))


@function(
    "streams.map",
    Parameter("in", Bound(Kind.ITEMS), "The stream, or a list.", required=True),
    Parameter(
        "as", Variable(), "The variable that holds each item in `value` and `do`.", default="item"
    ),
    Parameter("value", Bound(per_item=_ITEM), "The new item, an expression of the old one."),
    Parameter(
        "do",
        StackOf(Nesting.ITEM, (_ITEM,), loop=True),
        "Steps whose `return` is the new item, in place of `value`.",
    ),
    Parameter(
        "concurrency",
        Bound(Kind.INTEGER, minimum=1, maximum=1000),
        "With `do`: how many items are worked on at once.",
        default=1,
    ),
    Parameter(
        "onError",
        Constant(choices=("fail", "skip")),
        "An item's error ends the stream, or is logged and counted, and the item passed over.",
        default="fail",
    ),
    choices=(Choice(("value", "do")),),
    effects=Effects(
        gives="stream",
        properties=(Property("skipped", "How many items were passed over for their errors."),),
    ),
    examples=[
        Example(
            "an expression",
            "- streams.map: {in: [1, 2, 3], as: n, value: << n * 2 >>}\n  as: doubled\n"
            "- collect: << doubled >>\n  as: all\n- return: << all >>",
            result=[2, 4, 6],
        ),
        Example(
            "steps, several at once, in order",
            "- streams.map:\n    in: [20, 1]\n    as: ms\n    concurrency: 2\n    do:\n"
            "      - wait: << ms >>\n      - return: {waited: << ms >>}\n  as: waits\n"
            "- forEach: {in: << waits >>, do: [{stream: << item >>}]}",
            chunks=({"waited": 20}, {"waited": 1}),
        ),
        Example(
            "a bad item is passed over",
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
    """Give a new item for each item: an expression of it, or what steps return.

    The order is kept. With `concurrency` above 1 that many items at most are worked on, each with its own
    copy of the variables; leaving the stream cancels them. Steps without `return` give null.
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
    Parameter("in", Bound(Kind.ITEMS), "The stream, or a list.", required=True),
    Parameter("as", Variable(), "The variable that holds each item in `where`.", default="item"),
    Parameter("where", Condition(per_item=_ITEM), "Which items to keep.", required=True),
    effects=Effects(gives="stream"),
    examples=[
        Example(
            "the even ones",
            "- streams.filter: {in: << range(6) >>, as: n, where: << n % 2 == 0 >>}\n  as: even\n"
            "- collect: << even >>\n  as: all\n- return: << all >>",
            result=[0, 2, 4],
        ),
    ],
)
def filter_(run: Run, in_: Any, where: Any) -> Stream:
    """Give the items for which a condition is true, in their order."""
    items = checked(in_)
    keeps = where if callable(where) else lambda _: where
    return Stream(lambda: passed(run, iterate(items), partial(filter, keeps)))


@function(
    "streams.batch",
    Parameter("in", Bound(Kind.ITEMS), "The stream, or a list.", required=True),
    Parameter(
        "size",
        Bound(Kind.INTEGER, minimum=1),
        f"How many items a list holds; {LARGEST_BATCH} at most, where only `within` is given.",
    ),
    Parameter(
        "within",
        Bound(Kind.DURATION, minimum=0.001),
        "How long after its first item a list is given, full or not.",
    ),
    effects=Effects(gives="stream"),
    examples=[
        Example(
            "by two",
            "- streams.batch: {in: [1, 2, 3, 4, 5], size: 2}\n  as: pairs\n"
            "- forEach: {in: << pairs >>, as: pair, do: [{stream: << pair >>}]}",
            chunks=([1, 2], [3, 4], [5]),
        ),
        Example(
            "what there is when the time is over",
            "- streams.interval: {every: 40ms, limit: 2}\n  as: ticks\n"
            "- streams.batch: {in: << ticks >>, size: 10, within: 10ms}\n  as: lists\n"
            "- forEach: {in: << lists >>, as: list, do: [{stream: << list >>}]}",
            chunks=([1], [2]),
        ),
    ],
)
def batch(run: Run, in_: Any, size: int | None = None, within: float | None = None) -> Stream:
    """Gather items into lists of a size, the last of which may be shorter.

    With `within` a list is also given when that time since its first item is over, so that slow streams
    are not held back. Before an error, what was gathered is given.
    """
    items = checked(in_)
    if within is not None:
        return Stream(lambda: gathered_within(iterate(items), size or LARGEST_BATCH, within))
    if size is None:
        raise RunError("template", "`streams.batch` needs `size`, or `within`, or both")
    return Stream(lambda: gathered(run, iterate(items), size))


@function(
    "streams.take",
    Parameter("in", Bound(Kind.ITEMS), "The stream, or a list.", required=True),
    Parameter("count", Bound(Kind.INTEGER, minimum=0), "How many items, at most.", required=True),
    effects=Effects(gives="stream", shortens=True),
    examples=[
        Example(
            "the first of many",
            "- streams.interval: 1ms\n  as: ticks\n- streams.take: {in: << ticks >>, count: 2}\n"
            "  as: two\n- collect: << two >>\n  as: all\n- return: << all >>",
            result=[1, 2],
        ),
    ],
)
def take(run: Run, in_: Any, count: int) -> Stream:
    """Give the first items, then close the stream they come from."""
    items = checked(in_)
    return Stream(lambda: taken(iterate(items), count))


@function(
    "streams.split",
    Parameter(
        "in",
        Bound(Kind.ITEMS),
        "A stream of texts or of `llm.chat`'s items, or a list.",
        required=True,
    ),
    Parameter("by", Bound(Kind.TEXT, choices=TEXT_UNITS), "What to count.", default="words"),
    Parameter("size", Bound(Kind.INTEGER, minimum=1), "How many a piece holds.", default=1),
    effects=Effects(gives="stream"),
    examples=[
        Example(
            "words, however the text came",
            '- streams.split: {in: ["On", "e tw", "o three"], by: words, size: 2}\n  as: pieces\n'
            "- forEach: {in: << pieces >>, as: piece, do: [{stream: << piece >>}]}",
            chunks=("One two", " three"),
        ),
        Example(
            "sentences of a model's answer",
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
    """Cut a text that comes in parts into pieces, each given as soon as it is complete.

    Pieces joined are the text. Items may be texts, or objects like those of `llm.chat`, whose `text` counts;
    others are passed over. Characters are what a reader sees as one; a word or a sentence has the white space
    before it; a line ends with its line break. A word is complete when the next begins. Before an error, what
    there is of the text is given.
    """
    items = checked(in_)
    splitting = splitter(by, size)
    return Stream(lambda: split(run, iterate(items), splitting))


@function(
    "streams.merge",
    Parameter(
        "streams",
        OneOf((ListOf(Bound(Kind.ITEMS)), Named(Bound(Kind.ITEMS)))),
        "The streams: a list, or by name.",
        required=True,
        main=True,
    ),
    effects=Effects(gives="stream"),
    examples=[
        Example(
            "a list of streams",
            "- streams.interval: {every: 30ms, limit: 2}\n  as: slow\n"
            "- streams.merge: [<< slow >>, [10, 20]]\n  as: both\n"
            "- collect: << both >>\n  as: all\n- return: << all | sort >>",
            result=[1, 2, 10, 20],
        ),
        Example(
            "by name",
            "- streams.merge: {a: [1], b: [2]}\n  as: both\n"
            "- collect: << both >>\n  as: all\n- return: << all | sortBy('from') >>",
            result=[{"from": "a", "item": 1}, {"from": "b", "item": 2}],
        ),
    ],
)
def merge(run: Run, streams: Any) -> Stream:
    """Give the items of several streams as they come.

    Streams given by name give {from, item}, so that their items can be told apart. All are read at once, each
    no further ahead than one batch; an error in one closes the others and ends the merge.
    """
    named: list[tuple[str | None, Any]]
    if isinstance(streams, Mapping):
        named = [(name, checked(items)) for name, items in streams.items()]
    else:
        named = [(None, checked(items)) for items in streams]
    return Stream(lambda: merged([(name, iterate(items)) for name, items in named]))


FUNCTIONS = (interval, map_, filter_, batch, take, split_, merge)
