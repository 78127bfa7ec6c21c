from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.functions.state import SingleFlight
from streamstack.language.environment import parse_redis
from streamstack.language.project import validate
from streamstack.language.settings import StateSettings, Streaming
from streamstack.runtime.plan import Plan
from streamstack.runtime.run import Context, Run
from tests.collector import Collector
from tests.redis import free_port
from tests.stacks import plan_of, run_stack
from tests.waiting import eventually


@pytest.fixture(params=["memory", "redis"])
def state(request: pytest.FixtureRequest) -> StateSettings:
    """Each store there is, empty: what follows holds for all of them."""
    if request.param == "memory":
        return StateSettings()
    return StateSettings(parse_redis(request.getfixturevalue("redis_url")), "functions")


@pytest.fixture
async def context(state: StateSettings) -> AsyncIterator[Context]:
    """What runs share."""
    made = Context(state=state)
    yield made
    await made.aclose()


async def ran(plan: Plan, context: Context, inputs: Mapping[str, Any] | None = None) -> Any:
    """Run a plan in a context that others share; return what it returns."""
    return await plan.start(Run(Collector(), context), dict(inputs or {}))


USE = """
- cache.use:
    key: << input.key | default("k") >>
    ttl: 1m
    do:
      - counter.add:
          key: << ["made", input.key | default("k")] >>
        as: times
      - wait: 100ms
      - throw: {code: sold-out, details: << times >>}
        when: << input.fails | default(false) and times == 1 >>
      - return: << ["made", times] >>
  as: value
- return: << value >>
"""


async def test_runs_that_miss_at_once_have_it_made_once(context: Context) -> None:
    """Of fifty runs one makes the value, for each key; the others wait for it, and those that come later find it."""
    plan = plan_of(USE)
    values = await asyncio.gather(*(ran(plan, context, {"key": key}) for key in "ab" for _ in range(50)))
    assert values == [["made", 1]] * 100
    assert await ran(plan, context, {"key": "a"}) == ["made", 1]


async def test_an_error_goes_to_all_and_is_not_kept(context: Context) -> None:
    """Each run fails by itself, with its code and details; the next one tries again."""
    plan = plan_of(USE)
    errors = await asyncio.gather(*(ran(plan, context, {"fails": True}) for _ in range(5)), return_exceptions=True)
    assert [(type(e), getattr(e, "code", ""), getattr(e, "details", 0)) for e in errors] == [
        (RunError, "sold-out", 1)
    ] * 5
    assert len({id(error) for error in errors}) == 5
    steps = [e.place.step for e in errors if isinstance(e, RunError) and e.place is not None]
    assert steps == ["throw"] * 5
    assert await ran(plan, context, {"fails": True}) == ["made", 2]


async def test_a_run_that_is_stopped_hands_over(context: Context) -> None:
    """One of those who wait makes the value then, once; one who waits may be stopped without harm to others."""
    plan = plan_of(USE)
    leader = asyncio.create_task(ran(plan, context))
    made = plan_of("- counter.add: {key: [made, k], by: 0}\n  as: n\n- return: << n >>")

    async def under_way() -> bool:
        return bool(await ran(made, context))

    await eventually(under_way)
    quitter, *others = [asyncio.create_task(ran(plan, context)) for _ in range(5)]
    await asyncio.sleep(0.01)
    leader.cancel()
    quitter.cancel()
    assert await asyncio.gather(*others) == [["made", 2]] * 4
    assert leader.cancelled()
    assert quitter.cancelled()


async def test_a_leader_s_timeout_is_its_own(context: Context) -> None:
    """The step's time-out stops who makes the value; one who waits takes over."""
    slow = plan_of("- cache.use: {key: k, do: [{wait: 10s}]}\n  timeout: 200ms")
    quick = plan_of("- cache.use: {key: k, do: [{return: 5}]}\n  as: v\n- return: << v >>")
    leader = asyncio.create_task(ran(slow, context))
    await asyncio.sleep(0.1)
    follower = asyncio.create_task(ran(quick, context))
    with pytest.raises(RunError) as raised:
        await leader
    assert raised.value.code == "timeout"
    assert await follower == 5


async def test_who_would_wait_for_himself_does_the_work() -> None:
    """A value made of itself, and two made of each other by two runs, end all the same."""
    flights = SingleFlight()

    async def inner() -> str:
        return "inner"

    async def outer() -> str:
        return "outer of " + await flights.do(b"a", inner)

    assert await asyncio.wait_for(flights.do(b"a", outer), 2) == "outer of inner"

    both = asyncio.Event()

    async def first() -> str:
        await both.wait()
        return "a of " + await flights.do(b"b", inner)

    async def second() -> str:
        both.set()
        await asyncio.sleep(0.01)
        return "b of " + await flights.do(b"a", inner)

    got = await asyncio.wait_for(asyncio.gather(flights.do(b"a", first), flights.do(b"b", second)), 2)
    assert list(got) == ["a of b of inner", "b of inner"]


async def test_return_ends_the_body_only(state: StateSettings) -> None:
    """The steps after it run; variables set inside stay inside; null is kept."""
    outcome = await run_stack(
        """
        - set: {n: 0}
        - repeat:
            times: 2
            do:
              - cache.use: {key: nothing, do: [{set: {n: << n + 1 >>}}, {counter.add: ran}]}
                as: value
        - counter.add: {key: ran, by: 0}
          as: ran
        - return: << [value, n, ran] >>
        """,
        state=state,
    )
    assert outcome.result == [None, 0, 1]


async def test_what_is_cached_does_not_change(state: StateSettings) -> None:
    """A list that was cached, or came from the cache, grows as a copy; so does an object's."""
    outcome = await run_stack(
        """
        - set: {list: []}
        - append: {to: list, value: 1}
        - cache.set: {key: k, value: << list >>}
        - append: {to: list, value: 2}
        - cache.get: k
          as: mine
        - append: {to: mine, value: 3}
        - cache.use: {key: k, do: [{return: 0}]}
          as: again
        - append: {to: again, value: 4}
        - cache.get: k
          as: last
        - return: << [list, mine, again, last] >>
        """,
        state=state,
    )
    assert outcome.result == [[1, 2], [1, 3], [1, 4], [1]]


async def test_keys(state: StateSettings) -> None:
    """Equal keys are one, however they are written; a text is not a number, a counter not a value."""
    outcome = await run_stack(
        """
        - cache.set: {key: << 1 >>, value: number}
        - cache.set: {key: "1", value: text}
        - cache.set:
            key: '<< [1.0, {"b": 1, "a": 2}] >>'
            value: list
        - counter.add: << 1 >>
        - cache.get: << 1.0 >>
          as: number
        - cache.get: "1"
          as: text
        - cache.get: '<< [1, {"a": 2, "b": 1}] >>'
          as: list
        - return: << [number, text, list] >>
        """,
        state=state,
    )
    assert outcome.result == ["number", "text", "list"]


@pytest.mark.parametrize(
    ("stack", "code", "told"),
    [
        ("- cache.get: << input.none >>", "template", "`key` is required, but is null"),
        ("- cache.set: {key: a, value: << input.none >>, ttl: << -5 >>}", "template", "`ttl`"),
        ("- counter.add: {key: a, by: << 'x' >>}", "template", "`by` must be a number"),
        (
            "- streams.interval: 1s\n  as: s\n- cache.use: {key: a, do: [{return: << s >>}]}\n  as: v",
            "template",
            "a stream can't be cached: use `collect`",
        ),
    ],
)
async def test_what_a_run_refuses(stack: str, code: str, told: str) -> None:
    """The message says what is wrong."""
    outcome = await run_stack(stack, {"none": None})
    assert outcome.error is not None
    assert (outcome.error.code, told in outcome.error.message) == (code, True), outcome.error


async def test_a_value_too_large_is_given_and_not_kept(state: StateSettings) -> None:
    """`cache.use` says so in the log; `cache.set` fails."""
    context = Context(state=replace(state, max_size=1000))
    large = plan_of("- cache.use: {key: k, do: [{return: << 'x' * 2000 >>}]}\n  as: v\n- return: << v >>")
    with capture_logs() as logs:
        assert len(await ran(large, context)) == 2000
    assert [each["event"] for each in logs] == ["not-cached"]
    with pytest.raises(RunError, match=r"state\.maxSize") as raised:
        await ran(plan_of("- cache.set: {key: k, value: << 'x' * 2000 >>}"), context)
    assert raised.value.code == "limit-reached"
    assert await ran(plan_of("- cache.get: k\n  as: v\n- return: << v >>"), context) is None
    await context.aclose()


async def test_a_counter_counts_every_run(context: Context) -> None:
    """A thousand runs at once make a thousand."""
    plan = plan_of("- counter.add: visits\n  as: n\n- return: << n >>")
    numbers = await asyncio.gather(*(ran(plan, context) for _ in range(1000)))
    assert sorted(numbers) == list(range(1, 1001))


HEAD = "method: GET\npath: /t\nresponseType: json\nfunctionStack:\n"


@pytest.mark.parametrize(
    ("stack", "code", "told"),
    [
        ("  - cache.get: {}\n    as: v", "missing-parameter", "requires `key`"),
        ("  - cache.get: {key: {a: b}}\n    as: v", "wrong-type", "a text, a number or a list"),
        ("  - cache.get: {name: a, key: b}\n    as: v", "unknown-parameter", "`name`"),
        ("  - cache.get: true\n    as: v", "wrong-type", "a text, a number or a list"),
        ("  - cache.set: {key: a, value: 1}\n    as: v", "no-result", "cache.set"),
        ("  - cache.set: {key: a}", "missing-parameter", "requires `value`"),
        ("  - cache.set: {key: a, value: 1, ttl: soon}", "bad-duration", "`ttl`"),
        ("  - cache.use: {key: a}\n    as: v", "missing-parameter", "requires `do`"),
        ("  - counter.add: {key: a, by: one}\n    as: v", "wrong-type", "`by`"),
        ("  - counter.add: {key: a, ttl: 0}\n    as: v", "wrong-type", "at least 1ms"),
        (
            "  - streams.interval: 1s\n    as: s\n  - cache.set: {key: a, value: << s >>}",
            "stream-in-expression",
            "`s` is a stream",
        ),
        (
            "  - streams.interval: 1s\n    as: s\n  - cache.use: {key: a, do: [{return: << s >>}]}\n    as: v",
            "stream-in-expression",
            "`cache.use` can't keep `s`",
        ),
        ("  - forEach: {in: [1], do: [{cache.use: {key: a, do: [break]}}]}", "outside-loop", "`break`"),
    ],
)
def test_misuse_is_found(stack: str, code: str, told: str) -> None:
    """Each fault is found when the file is checked."""
    text = HEAD + stack + "\nresponse: 1\n"
    findings = validate({"t.yaml": text}, REGISTRY, Streaming(), {}, {})[1]
    errors = [(each.code, each.message) for each in findings if each.severity == "error"]
    assert [each for each, _ in errors] == [code], findings
    assert told in errors[0][1]


async def test_without_its_redis_a_value_is_made_and_not_kept() -> None:
    """`cache.use` goes on; what has no other way is an error that can be caught."""
    context = Context(state=StateSettings(parse_redis(f"redis://127.0.0.1:{free_port()}")))
    plan = plan_of("- cache.use: {key: k, do: [{return: made}]}\n  as: v\n- return: << v >>")
    with capture_logs() as logs:
        values = await asyncio.gather(*(ran(plan, context) for _ in range(5)))
    assert values == ["made"] * 5
    assert [each["event"] for each in logs] == ["state-unreachable"], "told once"
    caught = plan_of(
        """
        - try:
            do: [{counter.add: k}]
            catch: {on: [state-unreachable], do: [{return: << error.status >>}]}
        """
    )
    assert await ran(caught, context) == 503
    for step in ("cache.get: k", "cache.delete: k", "cache.set: {key: k, value: 1}"):
        with pytest.raises(RunError) as raised:
            await ran(plan_of(f"- {step}"), context)
        assert raised.value.code == "state-unreachable"
    await context.aclose()
