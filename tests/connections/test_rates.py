from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.connections.redis import Redis
from streamstack.connections.redis_state import RedisRates
from streamstack.connections.state import MemoryRates, Quota, Rates, Verdict
from streamstack.language.environment import parse_redis
from tests.redis import RedisServer
from tests.waiting import StoppedClock


@pytest.fixture(params=["memory", "redis"])
async def rates(request: pytest.FixtureRequest) -> AsyncIterator[Rates]:
    """Each store there is, empty."""
    if request.param == "memory":
        yield MemoryRates(1000, 1 << 24)
        return
    redis = Redis(parse_redis(request.getfixturevalue("redis_url")), "rates")
    yield RedisRates(redis, 1000, 1 << 24)
    await redis.aclose()


async def hit(rates: Rates, *quotas: Quota) -> list[tuple[bool, int]]:
    """Count a call; return for each quota whether it had room, and what is left."""
    return [(each.admitted, each.remaining) for each in await rates.hit(quotas)]


@pytest.mark.parametrize("sliding", [False, True])
async def test_all_or_none(rates: Rates, sliding: bool) -> None:  # noqa: FBT001 (a column of the table)
    """Where one quota has no room, no other counts; each says so of itself."""
    wide, narrow = Quota(b"w", 5, 60_000, sliding), Quota(b"n", 1, 60_000, sliding)
    assert await hit(rates, wide, narrow) == [(True, 4), (True, 0)]
    assert await hit(rates, wide, narrow) == [(True, 4), (False, 0)]
    assert await hit(rates, wide) == [(True, 3)]


async def test_windows_begin_with_the_first_call(rates: Rates) -> None:
    """Its end is reported, and does not move; then there is a new one."""
    quota = Quota(b"k", 2, 2000)
    first = (await rates.hit([quota]))[0]
    assert first.reset <= 2000
    await asyncio.sleep(0.3)
    second = (await rates.hit([quota]))[0]
    assert second.reset <= first.reset - 290
    await asyncio.sleep(second.reset / 1000 + 0.02)
    assert await hit(rates, quota) == [(True, 1)]


async def test_what_is_over_is_forgotten_part_by_part(rates: Rates) -> None:
    """A call of a sliding window gives its room back when its own time is over."""
    quota = Quota(b"k", 2, 3000, sliding=True)
    assert await hit(rates, quota) == [(True, 1)]
    await asyncio.sleep(1)
    assert await hit(rates, quota) == [(True, 0)]
    refused = (await rates.hit([quota]))[0]
    assert not refused.admitted
    assert refused.reset <= 2100
    await asyncio.sleep(refused.reset / 1000 + 0.01)
    assert await hit(rates, quota) == [(True, 0)]
    assert await hit(rates, quota) == [(False, 0)]


async def test_redis_holds_little(redis_url: str) -> None:
    """A count takes sixty parts at most, and goes when it is over."""
    redis = Redis(parse_redis(redis_url))
    rates = RedisRates(redis, 10, 1 << 24)
    quota = Quota(b"k", 1_000_000, 120, sliding=True)
    for _ in range(200):
        await rates.hit([quota])
    key = redis.key("rate", b"k")
    parts = await redis.client.hlen(key)
    assert 1 < parts <= 62
    await rates.hit([Quota(b"w", 5, 100)])
    await asyncio.sleep(0.3)
    assert await redis.client.keys("*") == []
    await redis.aclose()


CALLS = st.lists(st.integers(0, 400), min_size=1, max_size=200)


@given(CALLS, st.integers(1, 7), st.integers(1, 2000))
async def test_never_more_in_any_time(pauses: list[int], limit: int, period: int) -> None:
    """Of a sliding window: whichever time of that length is looked at. What is refused would be too much, nearly."""
    with StoppedClock() as clock:
        rates = MemoryRates(10, 1 << 24)
        quota = Quota(b"k", limit, period, sliding=True)
        let: list[int] = []
        for pause in pauses:
            clock.now += pause / 1000
            now = int(clock.now * 1000)
            verdict = (await rates.hit([quota]))[0]
            recent = [each for each in let if now - each < period]
            lately = [each for each in let if now - each < period + quota.part]
            if verdict.admitted:
                assert len(recent) < limit
                let.append(now)
            else:
                assert len(lately) >= limit
            assert 0 < verdict.reset <= period + quota.part


@given(CALLS, st.integers(1, 7), st.integers(1, 2000))
async def test_windows_let_in_as_many_as_they_say(pauses: list[int], limit: int, period: int) -> None:
    """As many calls as were reported as left are admitted, up to the reported end."""
    with StoppedClock() as clock:
        rates = MemoryRates(10, 1 << 24)
        quota = Quota(b"k", limit, period)
        last: Verdict | None = None
        until = 0
        for pause in pauses:
            clock.now += pause / 1000
            now = int(clock.now * 1000)
            verdict = (await rates.hit([quota]))[0]
            if last is not None and now < until:
                assert verdict.admitted == (last.remaining > 0)
                assert now + verdict.reset == until
            else:
                assert (verdict.admitted, verdict.remaining) == (True, limit - 1)
            last, until = verdict, now + verdict.reset


async def test_memory_is_bounded() -> None:
    """What is over goes first, then what is oldest; those who are counted now stay."""
    with StoppedClock() as clock:
        rates = MemoryRates(100, 1 << 24)
        for number in range(100):
            await rates.hit([Quota(b"old%d" % number, 1, 1000)])
        clock.now += 2
        for number in range(100):
            await rates.hit([Quota(b"new%d" % number, 1, 1000, sliding=True)])
        assert len(rates) == 100
        assert await hit(rates, Quota(b"new0", 1, 1000, sliding=True)) == [(False, 0)]
        await rates.hit([Quota(b"one more", 1, 1000)])
        assert len(rates) == 95
        assert await hit(rates, Quota(b"new0", 1, 1000, sliding=True)) == [(True, 0)]
        assert await hit(rates, Quota(b"new99", 1, 1000, sliding=True)) == [(False, 0)]


async def test_all_processes_count_as_one(own_redis: RedisServer) -> None:
    """Two hundred calls of four processes: exactly so many are admitted."""
    redises = [Redis(parse_redis(own_redis.url)) for _ in range(4)]
    rates = [RedisRates(each, 100, 1 << 24) for each in redises]
    quotas = [Quota(b"a", 60, 60_000), Quota(b"b", 77, 60_000, sliding=True)]
    verdicts = await asyncio.gather(*(each.hit(quotas) for _ in range(50) for each in rates))
    admitted = [all(one.admitted for one in each) for each in verdicts]
    assert admitted.count(True) == 60
    assert await hit(rates[0], quotas[1]) == [(True, 16)]
    for each in redises:
        await each.aclose()


@pytest.mark.parametrize("sliding", [False, True])
async def test_keys_take_no_more_memory_than_allowed(*, sliding: bool) -> None:
    """Counts take no more memory than `state.maxSize`, however many keys there are."""
    with StoppedClock() as clock:
        tracemalloc.start()
        try:
            rates = MemoryRates(10**6, 500_000)
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(60):
                for number in range(400):
                    await rates.hit([Quota(b"key %d" % number, 1000, 60_000, sliding)])
                clock.now += 1
            held = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert held < 700_000
        assert len(rates) == 400 if not sliding else 100 < len(rates) < 200
