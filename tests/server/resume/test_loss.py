"""A Redis that has lost what it had: streams go on where they run, no reader is misled elsewhere, and nothing hangs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.redis import RedisServer
from tests.server.resume.test_processes import rest as rest_of
from tests.server.resume.test_shared import stored, two
from tests.server.resuming import contents, counting, events, until
from tests.server.serving import Client, Server

#: Seconds in which everything here has its answer.
SOON = 8
BOTH_WAYS = pytest.mark.parametrize("how", ["restart", "flush"])


async def begin(server: Server, path: str = "/count") -> tuple[Client, str]:
    """Begin a stream; return its client and its id, once the store knows it."""
    client = await server.connect()
    client.ask(path, extra="Connection: close\r\n")
    name = re.findall(rb"X-Stream-Id: (\S+)", await client.head())[0].decode()
    await client.chunk()
    await stored(server)
    return client, name


async def lose(redis: RedisServer, how: str) -> None:
    """Let it lose its data: connections break, or stay."""
    if how == "restart":
        await asyncio.to_thread(redis.kill)
        await asyncio.to_thread(redis.start, empty=True)
    else:
        await asyncio.to_thread(redis.query, "FLUSHALL")


@BOTH_WAYS
async def test_streams_are_unknown_elsewhere(tmp_path: Path, own_redis: RedisServer, how: str) -> None:
    """One that runs, and one that has ended: 404 at the other server, all of it at their own; new ones are shared."""
    definition = counting(times=100, delay="20ms") + "---" + counting("/short")
    async with two(tmp_path, own_redis.url, definition) as (one, other):
        ended = await one.get("/short")
        client, name = await begin(one)
        await lose(own_redis, how)
        short = ended.headers["x-stream-id"]
        async with asyncio.timeout(SOON):
            replies = await asyncio.gather(*(other.get(f"/_streams/{each}") for each in (short, name)))
        assert [each.status for each in replies] == [404, 404]
        assert (await other.ask("DELETE", f"/_streams/{name}")).status == 404
        assert (await one.get(f"/_streams/{short}")).body == ended.body
        whole = await one.get(f"/_streams/{name}")
        assert contents(whole.body) == [f"{{{n}}}" for n in range(1, 101)] + ["done"]
        client.close()
        again = await one.get("/short")
        await stored(one)
        assert (await other.get(f"/_streams/{again.headers['x-stream-id']}")).body == again.body


@BOTH_WAYS
async def test_a_reader_elsewhere_is_cut_off(tmp_path: Path, own_redis: RedisServer, how: str) -> None:
    """His answer has no good end, so that he comes back: what he lacks is at the stream's own server."""
    async with two(tmp_path, own_redis.url, counting(times=150, delay="20ms")) as (one, other):
        client, name = await begin(one)
        follower = await other.connect()
        follower.ask(f"/_streams/{name}", extra="Connection: close\r\n")
        assert b" 200 " in await follower.head()
        had = await follower.chunk()
        await lose(own_redis, how)
        body, complete = await asyncio.wait_for(rest_of(follower), SOON)
        had += body
        assert not complete
        assert "event" not in events(had)[-1]
        rest = await one.get(f"/_streams/{name}", Last_Event_ID=events(had)[-1]["id"])
        whole = await one.get(f"/_streams/{name}")
        assert events(had) + events(rest.body) == events(whole.body)
        assert contents(whole.body)[-1] == "done"
        client.close()


@BOTH_WAYS
async def test_a_key_is_forgotten(tmp_path: Path, own_redis: RedisServer, how: str) -> None:
    """Its run stays at the server that has it; elsewhere the key begins a new one, at once."""
    definition = counting(times=8).replace("GET", "POST")
    async with two(tmp_path, own_redis.url, definition) as (one, other):
        first = await one.ask("POST", "/count", Idempotency_Key="k")
        await stored(one)
        assert (await other.ask("POST", "/count", Idempotency_Key="k")).body == first.body
        await lose(own_redis, how)
        async with asyncio.timeout(SOON):
            assert (await one.ask("POST", "/count", Idempotency_Key="k")).body == first.body
            second = await other.ask("POST", "/count", Idempotency_Key="k")
        assert second.headers["x-stream-id"] != first.headers["x-stream-id"]
        assert contents(second.body) == contents(first.body)


@BOTH_WAYS
async def test_a_run_without_readers_ends(tmp_path: Path, own_redis: RedisServer, how: str) -> None:
    """It is cancelled after `keep`, as ever, and its server ends in good order."""
    definition = counting(times=100_000, streaming="resume: {keep: 500ms}")
    async with two(tmp_path, own_redis.url, definition) as (one, _):
        client, _ = await begin(one)
        await lose(own_redis, how)
        client.close()
        await until(lambda: not one.service.timers)
        await until(lambda: not len(one.service.streams))
        await stored(one)


async def test_a_stream_that_never_was_is_unknown_soon(tmp_path: Path, own_redis: RedisServer) -> None:
    """Also just after the store was away, when what began meanwhile is waited for."""
    async with two(tmp_path, own_redis.url, counting()) as (_, other):
        path = "/_streams/" + "a" * 22
        assert (await other.get(path)).status == 404
        await lose(own_redis, "restart")
        async with asyncio.timeout(SOON):
            assert (await other.get(path)).status == 404


async def test_what_began_while_the_store_was_away_is_found(tmp_path: Path, own_redis: RedisServer) -> None:
    """Who comes back to another server in the first moment waits until it is written."""
    async with two(tmp_path, own_redis.url, counting(times=60, delay="20ms")) as (one, other):
        await asyncio.to_thread(own_redis.kill)
        reading = asyncio.create_task(one.get("/count"))
        await until(lambda: len(one.service.streams) == 1)
        (stream,) = one.service.streams
        await until(lambda: stream.log.next > 5)
        await asyncio.to_thread(own_redis.start)
        rest = await other.get(f"/_streams/{stream.origin.id}?after=1")
        assert events(rest.body) == events((await reading).body)[2:]
