from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.connections.redis import Redis
from streamstack.connections.redis_state import RedisSlots, RedisStore
from streamstack.connections.serialization import dumps, loads
from streamstack.connections.state import MemoryStore, Number, Store
from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.environment import parse_redis
from streamstack.language.settings import StateSettings
from streamstack.language.values import MISSING
from streamstack.runtime.values import Stream
from tests.redis import RedisServer

SETTINGS = StateSettings(max_size=100_000)


def redis_store(redis: Redis) -> RedisStore:
    """Make a store, as another process would."""
    return RedisStore(redis, RedisSlots(redis), SETTINGS.max_size)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Each store there is, empty."""
    if request.param == "memory":
        yield MemoryStore(SETTINGS)
        return
    redis = Redis(parse_redis(request.getfixturevalue("redis_url")), "stores")
    made = redis_store(redis)
    yield made
    await made.aclose()
    await redis.aclose()


VALUES: list[Any] = [
    None,
    True,
    0,
    2**63 - 1,
    -(2**63),
    2**63,
    -(10**40),
    1.5,
    -0.0,
    float("inf"),
    1e308,
    Decimal("1.10"),
    Decimal("1E+400"),
    "",
    "größe 😀 \x00 \ud800",
    b"",
    bytes(range(256)),
    date(2026, 2, 28),
    datetime(2026, 2, 28, 12, 30, 15, 123456, UTC),
    datetime(2026, 2, 28, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2026, 2, 28),  # noqa: DTZ001 (the language has such, and takes them for UTC)
    UUID(int=5),
    [],
    {},
    [1, [2.5, {"a": [Decimal("3.30"), b"x", None]}]],
    {"$": 1, "b": {"$": ["decimal", "1"]}},
    {"$": ["decimal", "1"]},
    {1: "a", "1": "b"},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_value_comes_back_as_it_was(store: Store, value: Any) -> None:
    """Of its kind, with all digits; also deep inside of others."""
    for each in (value, [value, "x"], {"a": {"b": value}}):
        await store.set(b"k", each, None)
        kept = await store.get(b"k")
        assert kept == each
        assert type(kept) is type(each)
        assert repr(kept) == repr(each)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.text(),
    st.binary(),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0)),
)
NESTED = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(NESTED)
def test_whatever_is_packed_is_unpacked(value: Any) -> None:
    """The bytes in Redis hold the whole value; what is plain JSON stays readable there."""
    kept = loads(dumps(value))
    assert kept == value
    assert repr(kept) == repr(value)
    assert dumps({"a": [1, "b"]}) == b'j{"a":[1,"b"]}'


@pytest.mark.parametrize("data", [b"", b"5", b"j{", b'm{"$":["what","1"]}', b'm{"$":5}', b'm{"$":["decimal","x"]}'])
def test_what_others_wrote_is_refused(data: bytes) -> None:
    """No bytes in Redis can make more than an error."""
    with pytest.raises(RunError, match="not stored by streamstack"):
        loads(data)


async def test_what_can_t_be_kept_is_refused(store: Store) -> None:
    """Streams, what is nested without end, and what is larger than allowed; what was there stays."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    stream = Stream("s", lambda: None)  # type: ignore[arg-type]  # never opened
    await store.set(b"k", 1, None)
    for value, code in [([stream], "template"), (deep, "template"), ("x" * 100_000, "limit-reached")]:
        with pytest.raises(RunError) as raised:
            await store.set(b"k", value, None)
        assert raised.value.code == code
    assert await store.get(b"k") == 1


async def test_deep_values_are_kept(store: Store) -> None:
    """Three hundred levels, which are more than some libraries go."""
    deep: list[Any] = [Decimal("1.0")]
    for _ in range(300):
        deep = [deep]
    await store.set(b"k", deep, None)
    assert await store.get(b"k") == deep


async def test_values_have_their_time(store: Store) -> None:
    """It is over after its time; a later value has its own; deleting tells whether there was one."""
    await store.set(b"a", "first", 0.05)
    await store.set(b"b", "first", 0.05)
    await store.set(b"b", "second", None)
    await store.set(b"c", "kept", 60)
    assert await store.get(b"a") == "first"
    await asyncio.sleep(0.08)
    assert await store.get(b"a") is MISSING
    assert await store.get(b"b") == "second"
    assert await store.get(b"c") == "kept"
    assert [await store.delete(key) for key in (b"a", b"b", b"b")] == [False, True, False]


@pytest.mark.parametrize(
    ("steps", "totals"),
    [
        ([1, 1, -5], [1, 2, -3]),
        ([2**62, 2**62, 1, -(2**63)], [2**62, 2**63, 2**63 + 1, 1]),
        ([10**30, 1], [10**30, 10**30 + 1]),
        ([1, 0.5, 1], [1, 1.5, 2.5]),
        ([Decimal("0.1"), Decimal("0.2"), 1], [Decimal("0.1"), Decimal("0.3"), Decimal("1.3")]),
        (
            [Decimal("12345678901234567890.123456789"), Decimal("1E-9")],
            [Decimal("12345678901234567890.123456789"), Decimal("12345678901234567890.123456790")],
        ),
        ([0.1, Decimal("0.2")], [0.1, Decimal("0.3")]),
        ([0], [0]),
    ],
    ids=repr,
)
async def test_counters_count_any_number(store: Store, steps: list[Number], totals: list[Number]) -> None:
    """As the operator + does, with all digits; a cached value of that key is something else."""
    await store.set(b"k", "value", None)
    found = [await store.add(b"k", step, None) for step in steps]
    assert found == totals
    assert [type(each) for each in found] == [type(each) for each in totals]
    assert [str(each) for each in found] == [str(each) for each in totals]
    assert await store.get(b"k") == "value"


@pytest.mark.parametrize("by", [1, Decimal("0.1"), 0.5])
async def test_a_counter_s_time_counts_from_its_beginning(store: Store, by: Number) -> None:
    """Adding does not lengthen it; when it is over the counter begins again."""
    assert await store.add(b"k", by, 0.15) == by
    await asyncio.sleep(0.05)
    assert await store.add(b"k", by, 60) == by + by  # type: ignore[operator]  # of one kind
    await asyncio.sleep(0.12)
    assert await store.add(b"k", by, None) == by


@pytest.mark.parametrize("by", [1, Decimal("0.1"), 10**20])
async def test_all_who_count_are_counted(redis_url: str, by: Number) -> None:
    """Two hundred at once, in four processes: each total is there once, whatever kind of number it is."""
    redises = [Redis(parse_redis(redis_url), "count") for _ in range(4)]
    stores = [redis_store(each) for each in redises]
    totals = await asyncio.gather(*(each.add(b"k", by, None) for _ in range(50) for each in stores))
    assert len(set(totals)) == 200
    ordered = sorted(totals)
    assert ordered[0] == by
    assert {str(operators.subtract(after, before)) for before, after in pairwise(ordered)} == {str(by)}
    for each in redises:
        await each.aclose()


async def test_of_all_processes_one_makes_a_value(redis_url: str) -> None:
    """The others wait for it, however often they are asked."""
    made: list[int] = []
    redises = [Redis(parse_redis(redis_url), "alone") for _ in range(4)]
    stores = [redis_store(each) for each in redises]

    async def make(number: int) -> str:
        made.append(number)
        await asyncio.sleep(0.05)
        await stores[number].set(b"k", "made", None)
        return "made"

    got = await asyncio.gather(
        *(store.alone(b"k", lambda n=n: make(n)) for n, store in enumerate(stores))  # type: ignore[misc]
    )
    assert got == ["made"] * 4
    assert len(made) == 1
    for each in redises:
        await each.aclose()


async def test_a_process_that_fails_leaves_it_to_the_next(redis_url: str) -> None:
    """Its error is its own; the next one is not kept waiting."""
    redises = [Redis(parse_redis(redis_url), "alone") for _ in range(2)]
    first, second = [redis_store(each) for each in redises]
    began = asyncio.Event()

    async def fail() -> None:
        began.set()
        await asyncio.sleep(0.05)
        raise RunError("sold-out", "none left")

    async def make() -> str:
        return "made"

    failing = asyncio.create_task(first.alone(b"k", fail))
    await began.wait()
    assert await asyncio.wait_for(second.alone(b"k", make), 2) == "made"
    with pytest.raises(RunError, match="none left"):
        await failing
    for each in redises:
        await each.aclose()


async def test_counters_survive_a_restart_of_redis(own_redis: RedisServer) -> None:
    """What Redis keeps, it keeps; what it does not, begins again."""
    redis = Redis(parse_redis(own_redis.url))
    store = redis_store(redis)
    assert await store.add(b"k", Decimal("1.5"), None) == Decimal("1.5")
    own_redis.kill()
    await asyncio.to_thread(own_redis.start)
    assert await store.add(b"k", 1, None) == Decimal("2.5")
    own_redis.kill()
    await asyncio.to_thread(own_redis.start, empty=True)
    assert await store.add(b"k", 1, None) == 1
    await redis.aclose()
