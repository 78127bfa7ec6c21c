"""What becomes of streams in Redis where it drops some of it, takes what it does not answer, or is slow."""

from __future__ import annotations

import asyncio
import gc
import re
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from streamstack.server.resume.log import StreamLog
from tests.redis import RedisServer
from tests.server.authenticating import project
from tests.server.resume.test_shared import stored, two
from tests.server.resuming import EIGHT, contents, counting, until


async def test_what_redis_drops_of_a_stream(tmp_path: Path, redis_url: str) -> None:
    """It goes on at its own server, is unknown elsewhere, and holds up no other stream."""
    definition = counting(times=60, delay="20ms").replace("{<< loop.index >>}", "<< loop.index ~ 'x' * 20000 >>")
    async with two(tmp_path, redis_url, definition + "---" + counting("/small")) as (one, other):
        reading = asyncio.create_task(one.get("/count"))
        await until(lambda: len(one.service.streams) == 1)
        (stream,) = one.service.streams
        name = stream.origin.id
        await until(lambda: stream.log.written > 500_000)  # more than is written at once
        with Redis.from_url(redis_url) as redis:
            assert redis.delete(f"streamstack:stream:{name}") == 1
        small = await one.get("/small")
        await stored(one)
        rest = await other.get(f"/_streams/{small.headers['x-stream-id']}")
        assert rest.body == small.body
        whole = await reading
        assert len(contents(whole.body)) == 61
        await stored(one)
        assert (await one.get(f"/_streams/{name}")).body == whole.body
        assert (await other.get(f"/_streams/{name}")).status == 404


async def test_a_key_that_redis_took_without_answering_is_free_again(tmp_path: Path, own_redis: RedisServer) -> None:
    """The first request got a 503, though Redis had done what it was asked: the next one begins the run, anywhere."""
    async with two(tmp_path, own_redis.url, counting().replace("GET", "POST")) as (one, other):
        await one.ask("POST", "/count", Idempotency_Key="before")
        own_redis.pause()
        try:
            refused = await one.ask("POST", "/count", Idempotency_Key="k")
        finally:
            own_redis.resume()
        assert refused.status == 503
        shared = one.service.streams.shared
        assert shared is not None
        await until(lambda: not shared.doubtful)
        for server in (other, one):
            async with asyncio.timeout(5):
                reply = await server.ask("POST", "/count", Idempotency_Key="k")
            assert contents(reply.body) == EIGHT


async def test_a_key_that_redis_was_told_twice_begins_its_run(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the connection broke before the answer came."""
    async with two(tmp_path, redis_url, counting().replace("GET", "POST")) as (one, _):
        shared = one.service.streams.shared
        assert shared is not None
        once = shared.store.open

        async def twice(*given: Any) -> bytes | None:
            await once(*given)
            return await once(*given)

        monkeypatch.setattr(shared.store, "open", twice)
        async with asyncio.timeout(5):
            reply = await one.ask("POST", "/count", Idempotency_Key="k")
        assert contents(reply.body) == EIGHT


async def test_a_server_that_stops_writes_all_it_has(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on its way to a slow store when the last answer has been given, too."""
    settings = f"state: {{url: '{redis_url}'}}\n"
    definition = counting(delay="0ms").replace("{<< loop.index >>}", "<< 'x' * 200000 >>")
    for each in ("a", "b"):
        (tmp_path / each).mkdir()
    async with project(tmp_path / "b", settings, definition) as other:
        async with project(tmp_path / "a", settings, definition) as one:
            shared = one.service.streams.shared
            assert shared is not None
            write = shared.store.write

            async def slowly(*given: Any) -> list[int | Exception]:
                await asyncio.sleep(0.1)
                return await write(*given)

            monkeypatch.setattr(shared.store, "write", slowly)
            whole = await one.get("/count")
        rest = await other.get(f"/_streams/{whole.headers['x-stream-id']}")
        assert rest.body == whole.body


async def test_a_stop_is_heard_among_many_messages(tmp_path: Path, redis_url: str) -> None:
    """However many readers elsewhere have just told that they are there."""
    async with two(tmp_path, redis_url, counting(times=100_000)) as (one, other):
        client = await one.connect()
        client.ask("/count")
        name = re.findall(rb"X-Stream-Id: (\S+)", await client.head())[0].decode()
        shared = one.service.streams.shared
        assert shared is not None
        await stored(one)
        with Redis.from_url(redis_url) as redis:
            redis.rpush(shared.store.inbox(shared.store.worker), *[b"{}"] * 2000)
        assert (await other.ask("DELETE", f"/_streams/{name}")).status == 204
        assert not one.service.timers
        client.close()


async def test_what_is_forgotten_takes_no_memory(tmp_path: Path, redis_url: str) -> None:
    """What was written last is not held while nothing more is to be written."""
    definition = counting(streaming="resume: {keep: 100ms}")
    async with two(tmp_path, redis_url, definition) as (one, _):
        reading = asyncio.create_task(one.get("/count"))
        await until(lambda: len(one.service.streams) == 1)
        (name,) = (each.origin.id for each in one.service.streams)
        await reading
        await until(lambda: not len(one.service.streams))
        await stored(one)
        gc.collect()
        found = [each for each in gc.get_objects() if isinstance(each, StreamLog)]
        assert name not in [each.origin.id for each in found]
