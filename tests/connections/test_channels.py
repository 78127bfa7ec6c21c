"""Channels in memory and over Redis: order, history, gaps, presence, and a Redis that loses its data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from streamstack.connections import channels as channels_module
from streamstack.connections import redis_channels
from streamstack.connections.channels import Channels, MemoryChannels, Since, Subscription
from streamstack.connections.redis import Redis
from streamstack.connections.redis_channels import RedisChannels
from streamstack.errors import RunError
from streamstack.language.channels import ChannelHistory, ChannelSettings, settings_of
from streamstack.language.environment import parse_redis
from streamstack.language.settings import StateSettings
from tests.redis import RedisServer
from tests.waiting import StoppedClock, eventually

SETTINGS = {
    "few-*": ChannelSettings(ChannelHistory(size=3)),
    "none": ChannelSettings(ChannelHistory(size=0)),
    "keyed": ChannelSettings(ChannelHistory(size=2, by="key")),
    "short": ChannelSettings(ChannelHistory(seconds=0.2)),
}


@pytest.fixture(params=["memory", "redis"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Channels, Channels]]:
    """The channels of who publishes and of who subscribes: over Redis, in two processes."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            both: Channels = MemoryChannels(SETTINGS, StateSettings())
            yield both, both
            return
        made = [await opened(stack, request.getfixturevalue("redis_url")) for _ in range(2)]
        yield made[0], made[1]


async def opened(stack: AsyncExitStack, url: str) -> RedisChannels:
    """Return the channels of one more process."""
    redis = Redis(parse_redis(url), "channels")
    stack.push_async_callback(redis.aclose)
    made = RedisChannels(redis, SETTINGS)
    stack.push_async_callback(made.aclose)
    return made


async def items(subscription: Subscription, count: int) -> list[Any]:
    """Return what a subscription receives: contents, `gap` with how many, and who joined or left."""
    found: list[Any] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            for entry in await subscription.take():
                item = entry.item
                if entry.number:
                    found.append(item["content"])
                else:
                    what = item["member"] if item["member"] is not None else item["content"]["missed"]
                    found.append((item["event"], what))
    assert len(found) == count
    return found


async def silent(subscription: Subscription) -> None:
    """Assert that a subscription receives nothing."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.15):
            raise AssertionError([each.item for each in await subscription.take()])


async def publish(channels: Channels, name: str, *contents: Any, key: Any = None) -> list[str]:
    """Publish messages and return their ids."""
    return [await channels.publish(name, content, key=key) for content in contents]


VALUES = [1, "two", {"three": [Decimal("3.0"), None]}, None, b"four"]


async def test_subscribers_receive_what_is_published_from_then_on(pair: tuple[Channels, Channels]) -> None:
    """Each of them everything, in order and as the values they are; who has left is forgotten."""
    here, there = pair
    await publish(here, "news", "before")
    first, second = await there.subscribe("news"), await here.subscribe("news")
    ids = await publish(here, "news", *VALUES)
    assert len(set(ids)) == len(ids)
    third = await there.subscribe("news")
    await publish(there, "news", "last")
    assert await items(first, 6) == [*VALUES, "last"]
    assert await items(second, 6) == [*VALUES, "last"]
    assert await items(third, 1) == ["last"]
    await first.close()
    await first.close()
    await publish(here, "news", "more")
    assert await items(third, 1) == ["more"]


async def test_parallel_publishers_are_heard_in_one_order(pair: tuple[Channels, Channels]) -> None:
    """All subscribers receive the messages of several publishers in the same order."""
    here, there = pair
    first, second = await there.subscribe("news"), await here.subscribe("news")
    await asyncio.gather(*(each.publish("news", [name, n]) for n in range(40) for name, each in enumerate(pair)))
    heard = await items(first, 80)
    assert heard == await items(second, 80)
    assert sorted(heard) == sorted([name, n] for n in range(40) for name in range(2))


#: Where to begin, of five published messages whose ids are in `ids`; what a history of 3 then gives.
BEGINNINGS: dict[str, tuple[Callable[[list[str]], Since], list[Any]]] = {
    "last": (lambda _: Since(), []),
    "start": (lambda _: Since("start"), [3, 4, 5]),
    "two": (lambda _: Since("count", 2), [4, 5]),
    "none": (lambda _: Since("count", 0), []),
    "more": (lambda _: Since("count", 9), [3, 4, 5]),
    "hour": (lambda _: Since("seconds", 3600.0), [3, 4, 5]),
    "head": (lambda ids: Since("id", ids[4]), []),
    "known": (lambda ids: Since("id", ids[2]), [4, 5]),
    "oldest": (lambda ids: Since("id", ids[1]), [3, 4, 5]),
    "foreign": (lambda ids: Since("id", ids[4].partition("-")[0] + "-12ab"), [("gap", None), 3, 4, 5]),
    "future": (lambda ids: Since("id", "99-" + ids[4].partition("-")[2]), [("gap", None), 3, 4, 5]),
    "garbage": (lambda _: Since("id", "\u0663-x"), [("gap", None), 3, 4, 5]),
    "number": (lambda _: Since("id", "4"), [("gap", None), 3, 4, 5]),
}


@pytest.mark.parametrize("begins", BEGINNINGS)
async def test_a_subscription_begins_where_it_shall(pair: tuple[Channels, Channels], begins: str) -> None:
    """With stored messages and then what is published, or with a gap where it can't be known what is missing."""
    here, there = pair
    ids = await publish(here, "few-1", 1, 2, 3, 4, 5)
    since, expected = BEGINNINGS[begins]
    subscription = await there.subscribe("few-1", since(ids))
    await publish(here, "few-1", "next")
    assert await items(subscription, len(expected) + 1) == [*expected, "next"]


async def test_a_gap_counts_the_messages_that_are_no_longer_stored(pair: tuple[Channels, Channels]) -> None:
    """Ids of another channel are unknown, be they of a message with the same number."""
    here, there = pair
    ids = await publish(here, "few-1", 1, 2, 3, 4, 5, 6)
    others = await publish(here, "few-2", 1, 2)
    late = await there.subscribe("few-1", Since("id", ids[0]))
    gap = (await items(late, 4))[0]
    assert gap in (("gap", 2), ("gap", None))  # Redis can't tell a message it has dropped from one it never had
    other = await there.subscribe("few-1", Since("id", others[1]))
    assert await items(other, 4) == [("gap", None), 4, 5, 6]
    assert await items(await there.subscribe("none", Since("start")), 0) == []
    ids = await publish(here, "none", 1, 2)
    assert await items(await there.subscribe("none", Since("id", ids[0])), 1) in ([("gap", 1)], [("gap", None)])


async def test_history_by_key_holds_the_last_message_of_each_key(pair: tuple[Channels, Channels]) -> None:
    """A later message replaces that of the same key; the oldest keys go first."""
    here, there = pair
    (first,) = await publish(here, "keyed", "a1", key="a")
    await publish(here, "keyed", "b1", key=["b", 1])
    await publish(here, "keyed", "a2", key="a")
    assert await items(await there.subscribe("keyed", Since("start")), 2) == ["b1", "a2"]
    assert await items(await there.subscribe("keyed", Since("id", first)), 2) == ["b1", "a2"]
    await publish(here, "keyed", "c1", key="c")
    assert await items(await there.subscribe("keyed", Since("start")), 2) == ["a2", "c1"]


async def test_history_ends_after_its_time(pair: tuple[Channels, Channels]) -> None:
    """What is over is not given to later subscribers, and its absence is a gap for who had less."""
    here, there = pair
    ids = await publish(here, "short", 1, 2)
    await asyncio.sleep(0.25)
    assert await items(await there.subscribe("short", Since("id", ids[1])), 0) == []
    assert (await items(await there.subscribe("short", Since("id", ids[0])), 1))[0][0] == "gap"
    subscription = await there.subscribe("short", Since("start"))
    await publish(here, "short", 3)
    assert await items(subscription, 1) == [3]


async def test_a_subscriber_that_is_too_far_behind_is_told_of_a_gap(
    pair: tuple[Channels, Channels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher does not wait for it."""
    monkeypatch.setattr(channels_module, "MOST_BEHIND", 5)
    here, there = pair
    slow, fast = await there.subscribe("news"), await there.subscribe("news")
    for n in range(25):
        await here.publish("news", n)
        assert await items(fast, 1) == [n]
    async with asyncio.timeout(5):
        entries = await slow.take()
    first = entries[1].item["content"]
    assert entries[0].item["content"] == {"missed": first}
    assert [entry.item["content"] for entry in entries[1:]] == list(range(first, 25))


async def test_members_join_and_leave(pair: tuple[Channels, Channels]) -> None:
    """Members are told apart by their values; one that is there twice joins and leaves once."""
    here, there = pair
    watcher = await there.subscribe("room", member="watcher")
    ada = await here.subscribe("room", member={"id": 1, "name": "Ada"})
    assert await items(watcher, 1) == [("join", {"id": 1, "name": "Ada"})]
    again = await there.subscribe("room", member={"name": "Ada", "id": 1.0})
    assert await there.members("room") == ["watcher", {"id": 1, "name": "Ada"}]
    await ada.close()
    await publish(here, "room", "still there")
    assert await items(watcher, 1) == ["still there"]
    await again.close()
    assert await items(watcher, 1) == [("leave", {"id": 1, "name": "Ada"})]
    assert await here.members("room") == ["watcher"]
    await watcher.close()
    assert await here.members("room") == []
    assert await here.members("empty") == []


@pytest.mark.parametrize("name", ["", "a" * 257, "\u00e9" * 129, "a\0b", "\ud800"])
async def test_names_that_can_not_be_are_refused_as_inputs(pair: tuple[Channels, Channels], name: str) -> None:
    """Such a name is a client's: it is answered with 400."""
    for attempt in (pair[0].publish(name, 1), pair[0].subscribe(name), pair[0].members(name)):
        with pytest.raises(RunError) as raised:
            await attempt
        assert (raised.value.code, raised.value.status) == ("invalid-input", 400)


async def test_any_other_name_is_one_channel(pair: tuple[Channels, Channels]) -> None:
    """No name reaches the messages of another one."""
    names = ["a", "a*", "a:b", "a b", "*", "\u00e9", "e\u0301", "a\nb", "{a}", "a" * 256]
    subscriptions = [await pair[1].subscribe(name) for name in names]
    for name in names:
        await publish(pair[0], name, name)
    for name, subscription in zip(names, subscriptions, strict=True):
        assert await items(subscription, 1) == [name]
        await subscription.close()


async def test_what_is_too_large_is_refused(pair: tuple[Channels, Channels]) -> None:
    """A message has up to 1 MB, a member up to 4 KB; what is refused disturbs nothing."""
    here, there = pair
    subscription = await there.subscribe("news")
    for attempt in (here.publish("news", "x" * 2_000_000), here.subscribe("news", member="x" * 5000)):
        with pytest.raises(RunError, match=r"may have|takes") as raised:
            await attempt
        assert raised.value.code == "limit-reached"
    await publish(here, "news", "x" * 900_000)
    assert await items(subscription, 1) == ["x" * 900_000]


def test_settings_are_those_of_the_name_or_of_the_first_pattern() -> None:
    """An exact name goes first, whatever stands before it."""
    first, second = ChannelSettings(max_subscribers=1), ChannelSettings(max_subscribers=2)
    settings = {"room-*-a": first, "room-*": second, "room-x": first}
    assert [settings_of(settings, name).max_subscribers for name in ("room-1-a", "room-1-b", "room-x", "roomx")] == [
        1,
        2,
        1,
        None,
    ]


async def test_memory_is_bounded() -> None:
    """Channels without subscribers go first, then the histories of others."""
    channels = MemoryChannels({}, StateSettings(max_entries=10, max_size=100_000))
    subscription = await channels.subscribe("watched")
    with StoppedClock():
        for n in range(100):
            await channels.publish(f"room-{n}", "x" * 5000)
    assert len(channels._channels) <= 11  # noqa: SLF001
    assert channels._size <= 100_000  # noqa: SLF001
    (found,) = await publish(channels, "watched", "y")
    assert found.startswith("1-")
    assert await items(subscription, 1) == ["y"]


# ---------------------------------------------------------------------------------- faults of Redis


@pytest.mark.parametrize("loss", ["flush", "restart", "restart-empty", "rollback"])
async def test_a_redis_that_comes_back_is_followed(tmp_path: Path, loss: str) -> None:
    """With its data nothing is missing. Without it, or with older data, there is a gap, and no message comes twice."""
    server = RedisServer(tmp_path / "redis").start()
    try:
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url), await opened(stack, server.url)
            subscription = await there.subscribe("news", member="ada")
            before = await publish(here, "news", 1, 2)
            assert await items(subscription, 2) == [1, 2]
            if loss == "flush":
                server.query("FLUSHALL")
            else:
                server.kill()
                server.start(empty=loss == "restart-empty")
            if loss == "rollback":
                last = server.query("XREVRANGE", "streamstack:channels:channel-messages:news", "+", "-", "COUNT", "1")
                name = last[0][0].decode()
                server.query("XDEL", "streamstack:channels:channel-messages:news", name)
                number, token = before[0].split("-")
                server.query("HSET", "streamstack:channels:channel-head:news", "n", number, "r", token)
            await eventually(lambda: published(here, 3))
            kept = loss == "restart"
            heard = await items(subscription, 1 if kept else 2)
            assert heard == ([3] if kept else [("gap", None), 3])
            late = await there.subscribe("news", Since("id", before[1]))
            assert await items(late, 1 if kept else len(heard) + (loss == "rollback")) == (
                [3] if kept else [("gap", None), *([1] if loss == "rollback" else []), 3]
            )

            async def present() -> bool:
                return await here.members("news") == ["ada"]

            await eventually(present)
    finally:
        server.stop()


async def published(channels: Channels, content: Any) -> bool:
    """Publish a message; return whether Redis took it."""
    try:
        await channels.publish("news", content)
    except RunError as error:
        assert error.code == "state-unreachable"  # noqa: PT017
        return False
    return True


async def test_the_members_of_a_process_that_died_leave(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not listed once its lease is over, and others receive `leave`; those of a paused process come back."""
    monkeypatch.setattr(redis_channels, "LEASE", 0.6)
    monkeypatch.setattr(redis_channels, "_RENEWAL", 0.15)
    async with AsyncExitStack() as stack:
        here, there = await opened(stack, redis_url), await opened(stack, redis_url)
        watcher = await here.subscribe("crowd", member="watcher")
        await there.subscribe("crowd", member="ada")
        await there.subscribe("crowd", member="bob")
        assert sorted(await items(watcher, 2)) == [("join", "ada"), ("join", "bob")]
        renewal = there._tasks[1]  # noqa: SLF001
        renewal.cancel()
        assert sorted(await items(watcher, 2)) == [("leave", "ada"), ("leave", "bob")]
        assert await here.members("crowd") == ["watcher"]
        there._tasks[1] = asyncio.create_task(there._renew())  # noqa: SLF001
        assert sorted(await items(watcher, 2)) == [("join", "ada"), ("join", "bob")]
        await silent(watcher)


async def test_a_member_that_joins_first_brings_back_the_others(tmp_path: Path) -> None:
    """After Redis has lost its data, all members are written again, also if a new one renews the lease first."""
    server = RedisServer(tmp_path / "redis").start()
    try:
        async with AsyncExitStack() as stack:
            here = await opened(stack, server.url)
            for name in ("one", "two", "news"):
                await here.subscribe(name, member="ada")
            server.query("FLUSHALL")
            await here.subscribe("news", member="bob")

            async def present() -> bool:
                return [await here.members(name) for name in ("one", "two")] == [["ada"], ["ada"]] and len(
                    await here.members("news")
                ) == 2

            await eventually(present)
    finally:
        server.stop()


async def test_an_unreachable_redis_refuses(tmp_path: Path) -> None:
    """A failed subscription leaves nothing behind."""
    server = RedisServer(tmp_path / "redis").start()
    async with AsyncExitStack() as stack:
        here = await opened(stack, server.url)
        await here.subscribe("news")
        server.kill()
        for attempt in (here.publish("news", 1), here.subscribe("other", member="ada"), here.members("news")):
            with pytest.raises(RunError) as raised:
                await attempt
            assert raised.value.code == "state-unreachable"
        assert "other" not in here._channels  # noqa: SLF001
