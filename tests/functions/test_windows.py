from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import pytest

from streamstack.functions import REGISTRY
from streamstack.language.project import validate
from streamstack.language.settings import Streaming
from streamstack.runtime.run import Context, Run
from streamstack.runtime.values import Stream
from tests.collector import Collector
from tests.functions.test_streams import Source, items_of
from tests.stacks import run_stack

COUNT = {"n": {"op": "count"}}


def made(name: str, **parameters: Any) -> Stream:
    """What a function gives, called as compiled code calls it."""
    code = REGISTRY[name].run
    assert code is not None
    stream: Stream = code(Run(Collector(), Context()), **parameters)
    return stream


async def figures(stack: str, inputs: dict[str, Any] | None = None) -> list[Any]:
    """All figures of a window that a stack binds as `w`."""
    outcome = await run_stack(stack + "- forEach: {in: << w >>, do: [{stream: << item >>}]}", inputs)
    assert outcome.error is None, outcome.error
    return outcome.contents


async def test_expressions_see_the_item_and_the_variables() -> None:
    """`by` and `of` see the item under its name, inputs, and what the stack has set; op may be a binding."""
    contents = await figures(
        """\
- set: {factor: 10}
- forEach: {in: [1], as: outer, do: [{set: {more: << outer >>}}]}
- streams.window:
    in: << input.rows >>
    as: row
    by: << row.of ~ input.suffix >>
    compute:
      sum: {op: << input.op >>, of: << row.n * factor + more >>}
      n: {op: count, of: << row.n * factor + more >>}
      text: {op: last, of: "<< row.of >>!"}
  as: w
""",
        {"rows": [{"of": "a", "n": 1}, {"of": "b", "n": 2}], "suffix": "-x", "op": "sum"},
    )
    assert contents == [
        {"key": "a-x", "sum": 11, "n": 1, "text": "a!"},
        {"key": "b-x", "sum": 21, "n": 1, "text": "b!"},
    ]


async def test_an_expression_written_twice_is_computed_once() -> None:
    """Each item is asked once for what several figures are of; in a nested stack it is another one's."""
    calls = []

    class Loud(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            calls.append(name)
            return super().__getitem__(name)

    stack = """\
- streams.window:
    in: << input.rows >>
    compute: {a: {op: sum, of: << item.n >>}, b: {op: max, of: << item.n >>}, c: {op: min, of: << -item.n >>}}
  as: w
"""
    contents = await figures(stack, {"rows": [Loud(n=1), Loud(n=3)]})
    assert contents[1] == {"a": 4, "b": 3, "c": -3}
    assert len(calls) == 4


async def test_null_is_passed_over() -> None:
    """An item without the value takes its place in the window, and counts for nothing."""
    contents = await figures(
        """\
- streams.window:
    in: [{n: 4}, {n: null}, {n: 6}]
    size: 2
    compute: {mean: {op: mean, of: << item.n >>}, n: {op: count, of: << item.n >>}, items: {op: count}}
  as: w
"""
    )
    assert contents == [
        {"mean": 4.0, "n": 1, "items": 1},
        {"mean": 4.0, "n": 1, "items": 2},
        {"mean": 6.0, "n": 1, "items": 2},
    ]


async def test_a_timer_gives_figures_though_nothing_comes() -> None:
    """At even times, also before the first item; at the end those of what came since."""
    source = Source([1], [2], gap=0.12)
    began = perf_counter()
    told = await items_of(made("streams.window", in_=source.stream, compute=COUNT, within=0.05, every=0.05))
    assert perf_counter() - began >= 0.24
    assert sum(each["n"] for each in told) == 2
    assert [each["n"] for each in told[:2]] == [0, 0]
    assert 4 <= len(told) <= 6
    assert source.closed == 1


async def test_a_late_reader_gets_one_for_all_that_passed() -> None:
    """What came meanwhile is in it, and the times after it are even again."""
    source = Source([1, 2, 3], ends=False)
    stream = made("streams.window", in_=source.stream, compute=COUNT, every=0.02).consume()
    assert (await stream.batch())[-1]["n"] == 3
    await asyncio.sleep(0.2)
    assert len(await stream.batch()) == 1
    began = perf_counter()
    for _ in range(5):
        await stream.batch()
    assert perf_counter() - began < 1  # not one for each that was missed, and not one an hour
    await stream.close()
    assert source.closed == 1


@pytest.mark.parametrize("every", [1, 3, 10.0])
async def test_figures_before_an_error_are_given_before_it(every: float) -> None:
    """Of an error of the source, the last partial figures come first."""
    source = Source([1], [2], fails=ValueError("lost"))
    got: list[Any] = []
    with pytest.raises(ValueError, match="lost"):
        await items_of(made("streams.window", in_=source.stream, compute=COUNT, every=every), got)
    assert got[-1] == {"n": 2}
    assert source.closed == 1


@pytest.mark.parametrize("every", [1, 10.0])
async def test_the_source_is_opened_late_and_closed_at_once(every: float) -> None:
    """Nothing is read before the figures are read; leaving closes the source."""
    source = Source([1], ends=False)
    stream = made("streams.window", in_=source.stream, compute=COUNT, every=every)
    await asyncio.sleep(0)
    assert source.opened == 0
    stream.consume()
    if every == 1:
        assert await stream.batch() == [{"n": 1}]
        await stream.close()
    else:
        task = asyncio.create_task(stream.batch())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.close()
    assert (source.opened, source.closed) == (1, 1)


async def test_of_nothing_there_is_nothing() -> None:
    """An empty stream has no figures, and no changes."""
    for every in (1, 5, 1.0):
        assert await items_of(made("streams.window", in_=[], compute=COUNT, every=every)) == []
    assert await items_of(made("streams.changes", in_=[])) == []


async def test_a_long_list_keeps_nobody_waiting() -> None:
    """Another task runs while figures of a hundred thousand items are computed."""
    turns = 0

    async def beside() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(beside())
    stream = made("streams.window", in_=list(range(100_000)), compute=COUNT, every=1000)
    assert len(await items_of(stream)) == 100
    task.cancel()
    assert turns > 3  # it would not have had one


async def test_changes_of_a_feed() -> None:
    """Only what changed is streamed, with its trend; an error of the feed comes after what was before it."""
    rows = [{"s": "a", "p": 1}, {"s": "b", "p": 1}, {"s": "a", "p": 2}, {"s": "a", "p": 2}]
    source = Source(rows, fails=ValueError("lost"))
    got: list[Any] = []
    stream = made("streams.changes", in_=source.stream, key=lambda row: row["s"], fields=["p"])
    with pytest.raises(ValueError, match="lost"):
        await items_of(stream, got)
    assert [(each["key"], each["changed"]["p"]["trend"]) for each in got] == [("a", "flat"), ("b", "flat"), ("a", "up")]


INPUTS = "inputParameters: {rows: {type: list, default: []}}\n"
HEAD = f"method: GET\npath: /t\nresponseType: streaming\n{INPUTS}functionStack:\n"
TAIL = "    as: w\n  - forEach: {in: << w >>, do: [{stream: << item >>}]}\n"


def found(window: str, function: str = "streams.window") -> list[tuple[str, str, str]]:
    """Return code, message and hint of each finding of a step."""
    text = HEAD + f"  - {function}: {{in: << input.rows >>, {window}}}\n" + TAIL
    findings = validate({"t.yaml": text}, REGISTRY, Streaming(), {}, {})[1]
    return [(each.code, each.message, each.hint) for each in findings]


@pytest.mark.parametrize(
    "window",
    [
        "compute: {a: {op: sum, of: << item.n >>}}",
        "compute: {a: {op: p99}}, size: 5, every: 5",
        "compute: {a: {op: p99}}, within: 1m, every: 10s, as: row, by: << row.shop >>",
        "compute: {key: {op: count}}, every: '<< 5 >>'",
        "compute: {a: {op: last, of: 'no. << item.n >>'}}",
    ],
)
def test_what_is_right_is_let_alone(window: str) -> None:
    """The shapes of the guide have no findings, but for the name `key`."""
    wanted = [("bad-name", "`streams.window`: `key` has a meaning of its own here: choose another name")]
    assert [each[:2] for each in found(window)] == (wanted if "{key:" in window else [])


@pytest.mark.parametrize(
    ("window", "code", "told", "hint"),
    [
        ("compute: {a: {op: average}}", "wrong-type", "must be count, sum", "write count, sum"),
        ("compute: {a: {op: p95s}}", "wrong-type", "must be count, sum", "did you mean `p95`?"),
        ("compute: {a: {of: << item >>}}", "missing-parameter", "requires `op`", "add `op`"),
        ("compute: {a: {op: sum, off: << item >>}}", "unknown-parameter", "no parameter `off`", "`of`"),
        ("compute: {a: sum}", "wrong-type", "must be a mapping", "{op: sum}"),
        ("compute: [sum]", "wrong-type", "must be a mapping", "compute"),
        ("size: 5", "missing-parameter", "requires `compute`", "add `compute`"),
        ("compute: {}", "missing-parameter", "is empty", "write compute: {name: ...}"),
        ("compute: {a: {op: sum, of: price}}", "not-an-expression", "computed for each item", "<< item.price >>"),
        ("compute: {a: {op: sum}}, by: shop", "not-an-expression", "`by`", "<< item.shop >>"),
        ("compute: {a: {op: sum, of: << row.n >>}}", "unbound-name", "`row` is not bound", ""),
        ("compute: {a: {op: sum, of: << row.n >>}}, as: rov", "unbound-name", "did you mean `rov`", ""),
        ("compute: {a: {op: sum}}, by: << rowe.n >>, as: row", "unbound-name", "did you mean `row`", ""),
        ("compute: {a: {op: sum}}, size: 5, within: 5s", "conflicting-parameters", "`size`", ""),
        ("compute: {a: {op: sum}}, size: 0", "wrong-type", "at least 1", ""),
        ("compute: {a: {op: sum}}, within: soon", "bad-duration", "`within`", ""),
        ("compute: {a: {op: sum}}, every: 0", "bad-duration", "`every`", ""),
        ("compute: {a: {op: sum}}, every: 0ms", "bad-duration", "at least 1ms", ""),
        ("compute: {a: {op: sum}}, every: 5x", "bad-duration", "unit `x`", ""),
        (
            "compute: {a: {op: sum}}, every: '10'",
            "bad-duration",
            "a number of items, such as 10",
            "write a number of items",
        ),
        ("compute: {a: {op: sum}}, every: [1]", "wrong-type", "a number of items", ""),
        ("compute: {a: {op: sum}}, every: true", "bad-duration", "a number of items", ""),
    ],
)
def test_misuse_of_a_window_is_found(window: str, code: str, told: str, hint: str) -> None:
    """Each fault is one finding, which says what to write."""
    ((got, message, advice), *more) = found(window)
    assert (got, more) == (code, [])
    assert told in message
    assert hint in advice


@pytest.mark.parametrize(
    ("window", "code", "told"),
    [
        ("key: symbol", "not-an-expression", "`key`"),
        ("key: << row.s >>", "unbound-name", "`row`"),
        ("fields: price", "wrong-type", "must be a list"),
        ("fields: [1]", "wrong-type", "a text"),
        ("onLimit: stop", "wrong-type", "fail or forget"),
        ("limit: 0", "wrong-type", "at least 1"),
    ],
)
def test_misuse_of_changes_is_found(window: str, code: str, told: str) -> None:
    """Each fault is one finding."""
    ((got, message, _), *more) = found(window, "streams.changes")
    assert (got, more) == (code, [])
    assert told in message


@pytest.mark.parametrize(
    ("window", "told"),
    [
        ("compute: {a: {op: << input.op >>}}", "`op` must be one of count, sum"),
        ("compute: {a: {op: count}}, every: << input.op >>", "`every` must be a number of items"),
        ("compute: {a: {op: count}}, every: << 0 >>", "`every` must be a number of items"),
        ("compute: {a: {op: sum}}", "a sum or a mean needs numbers, not a text"),
    ],
)
async def test_misuse_that_only_a_run_can_see(window: str, told: str) -> None:
    """The run fails with a message that names the parameter."""
    outcome = await run_stack(f"- streams.window: {{in: ['x'], {window}}}\n  as: w\n- collect: << w >>", {"op": "mode"})
    assert outcome.error is not None
    assert outcome.error.code == ("invalid-input" if "input.op" in window else "template")
    assert told in outcome.error.message


async def test_a_value_that_a_figure_can_not_take_is_told_where_the_figure_stands() -> None:
    """The error names the figure, and its place is the expression's, not that of the step that reads."""
    outcome = await run_stack(
        "- streams.window:\n    in: [{n: 1}, {n: x}]\n    compute:\n      most: {op: count}\n"
        "      average: {op: mean, of: << item.n >>}\n  as: w\n- collect: << w >>"
    )
    assert outcome.error is not None
    assert outcome.error.message.startswith("`average` of the window: a sum or a mean")
    assert outcome.error.place is not None
    assert outcome.error.place.expression == "item.n"
    assert outcome.error.place.step == "streams.window"
