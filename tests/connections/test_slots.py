from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from streamstack.connections import redis_state
from streamstack.connections.redis import Redis
from streamstack.connections.redis_state import RedisSlots
from streamstack.connections.state import MemorySlots, Slots
from streamstack.language.environment import parse_redis
from tests.redis import RedisServer
from tests.waiting import eventually


class Process:
    """The places of one process; killed, it says nothing any more."""

    def __init__(self, url: str) -> None:
        self.redis = Redis(parse_redis(url))
        self.slots = RedisSlots(self.redis)

    async def kill(self) -> None:
        if self.slots.heartbeat_task is not None:
            self.slots.heartbeat_task.cancel()
        await self.redis.aclose()

    async def stop(self) -> None:
        await self.slots.aclose()
        await self.redis.aclose()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that end soon, so that tests need not wait."""
    monkeypatch.setattr(redis_state, "LEASE", 0.4)
    monkeypatch.setattr(redis_state, "HEARTBEAT_INTERVAL", 0.1)


@pytest.fixture(params=["memory", "redis"])
async def slots(request: pytest.FixtureRequest) -> AsyncIterator[Slots]:
    """Each store there is, empty."""
    if request.param == "memory":
        yield MemorySlots()
        return
    process = Process(request.getfixturevalue("redis_url"))
    yield process.slots
    await process.stop()


async def test_so_many_places(slots: Slots) -> None:
    """No more than allowed; one that is given back is free; another key has its own."""
    assert [await slots.acquire(b"k", 2) for _ in range(3)] == [True, True, False]
    assert await slots.acquire(b"other", 1)
    await slots.release(b"k")
    assert [await slots.acquire(b"k", 2) for _ in range(2)] == [True, False]
    assert await slots.acquire(b"k", 3), "who may have more gets one"
    assert not await slots.acquire(b"k", 1)


async def test_of_many_at_once_exactly_so_many(slots: Slots) -> None:
    """However they come."""
    taken = await asyncio.gather(*(slots.acquire(b"k", 7) for _ in range(100)))
    assert taken.count(True) == 7
    await asyncio.gather(*(slots.release(b"k") for _ in range(7)))
    taken = await asyncio.gather(*(slots.acquire(b"k", 7) for _ in range(100)))
    assert taken.count(True) == 7


async def test_processes_share_places(redis_url: str, quick: None) -> None:
    """Those of one that was killed are free when its lease is over, not before; of one that lives they stay taken."""
    first, second, third = (Process(redis_url) for _ in range(3))
    assert await first.slots.acquire(b"k", 3)
    assert await first.slots.acquire(b"k", 3)
    assert await second.slots.acquire(b"k", 3)
    assert not await third.slots.acquire(b"k", 3)
    await first.kill()
    assert not await third.slots.acquire(b"k", 3)

    async def free() -> bool:
        return await third.slots.acquire(b"k", 3)

    await eventually(free, 3)
    assert await third.slots.acquire(b"k", 3)
    await asyncio.sleep(1)
    assert not await third.slots.acquire(b"k", 3), "the second one lives"
    await second.stop()
    assert await third.slots.acquire(b"k", 3), "who stops is gone at once"
    await third.stop()


async def test_a_redis_that_forgot_is_told(own_redis: RedisServer, quick: None) -> None:
    """After a restart without its data the places are the same again; what ended meanwhile is free."""
    first, second = Process(own_redis.url), Process(own_redis.url)
    for _ in range(3):
        assert await first.slots.acquire(b"k", 3)
    own_redis.kill()
    await first.slots.release(b"k")
    await asyncio.to_thread(own_redis.start, empty=True)

    async def known() -> bool:
        return bool(own_redis.query("HVALS", "streamstack:slots:k") == [b"2"])

    await eventually(known)
    assert [await second.slots.acquire(b"k", 3) for _ in range(2)] == [True, False]
    await first.stop()
    await second.stop()


async def test_without_redis_a_process_counts_its_own(own_redis: RedisServer, quick: None) -> None:
    """It admits as many as are allowed, those included that it has already."""
    process = Process(own_redis.url)
    assert await process.slots.acquire(b"k", 2)
    own_redis.kill()
    assert [await process.slots.acquire(b"k", 2) for _ in range(2)] == [True, False]
    await process.slots.release(b"k")
    assert await process.slots.acquire(b"k", 2)
    await asyncio.to_thread(own_redis.start)

    async def known() -> bool:
        return bool(own_redis.query("HVALS", "streamstack:slots:k") == [b"2"])

    await eventually(known)
    await process.stop()


async def test_whatever_is_cancelled_the_count_comes_right(redis_url: str, quick: None) -> None:
    """Calls that are broken off anywhere leave no place taken for ever, and none counted that is held."""
    process = Process(redis_url)
    chance = random.Random(7)  # noqa: S311 (chance, not secrets)
    held = 0
    for _ in range(150):
        task = asyncio.create_task(process.slots.acquire(b"k", 1000))
        await asyncio.sleep(chance.choice([0, 0, 0.0001, 0.0005, 0.002]))
        task.cancel()
        with suppress(asyncio.CancelledError):
            held += await task
        if held and chance.random() < 0.4:
            held -= 1
            await process.slots.release(b"k")
    key = "streamstack:slots:k"

    async def right() -> bool:
        values = await process.redis.client.hvals(key)
        return [int(each) for each in values] == ([held] if held else [])

    await eventually(right)
    await process.stop()


async def test_who_holds_nothing_says_nothing(redis_url: str, quick: None) -> None:
    """A process without places gives no signs of life, and leaves nothing behind."""
    process = Process(redis_url)
    assert await process.slots.acquire(b"k", 1)
    await process.slots.release(b"k")
    await asyncio.sleep(0.3)
    assert process.slots.heartbeat_task is None
    assert await process.slots.acquire(b"k", 1)
    assert process.slots.heartbeat_task is not None
    await process.slots.release(b"k")
    await process.stop()
    assert [key for key in await process.redis.client.keys("*") if b"processes" not in key] == []
    await process.redis.aclose()
