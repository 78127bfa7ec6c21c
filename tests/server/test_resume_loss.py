"""A Redis that has lost what it had: streams, keys and readers are known again, and who asks meanwhile waits."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.redis import RedisServer
from tests.server.resuming import contents, counting, events, until
from tests.server.serving import Server
from tests.server.test_resume_shared import stored, two

SILENT = """
method: GET
path: /silent
streaming: {resume: true}
functionStack:
  - stream: first
  - wait: 1500ms
  - stream: last
"""
ONCE = """
method: POST
path: /once
streaming: {resume: true}
functionStack:
  - stream: first
  - wait: 1500ms
  - stream: last
"""


async def begin(server: Server, path: str) -> str:
    """Begin a stream and leave with its first chunk; return its id."""
    client = await server.connect()
    client.ask(path)
    name = re.findall(rb"X-Stream-Id: (\S+)", await client.head())[0].decode()
    await client.chunk()
    client.close()
    await stored(server)
    return name


async def lose(redis: RedisServer, how: str) -> None:
    """Let it lose its data: connections break, or nobody notices."""
    if how == "restart":
        await asyncio.to_thread(redis.kill)
        await asyncio.to_thread(redis.start, empty=True)
    else:
        await asyncio.to_thread(redis.query, "FLUSHALL")


@pytest.mark.parametrize("how", ["restart", "flush"])
async def test_streams_are_known_again(tmp_path: Path, own_redis: RedisServer, how: str) -> None:
    """One that has ended, and one that says nothing; asked for at once, at a server that has neither."""
    async with two(tmp_path, own_redis.url, counting() + "---" + SILENT) as (one, other):
        whole = await one.get("/count")
        silent = await begin(one, "/silent")
        await lose(own_redis, how)
        ended, rest = await asyncio.gather(
            other.get(f"/_streams/{whole.headers['x-stream-id']}"),
            other.get(f"/_streams/{silent}"),
        )
        assert ended.body == whole.body
        assert contents(rest.body) == ["first", "last", "done"]


@pytest.mark.parametrize("how", ["restart", "flush"])
async def test_a_key_still_belongs_to_its_run(
    tmp_path: Path, own_redis: RedisServer, how: str
) -> None:
    """Asked for at once, at another server: there is no second run."""
    async with two(tmp_path, own_redis.url, ONCE) as (one, other):
        first = asyncio.create_task(one.ask("POST", "/once", Idempotency_Key="k"))
        await until(lambda: len(one.service.streams) == 1)
        await stored(one)
        await lose(own_redis, how)
        second = await other.ask("POST", "/once", Idempotency_Key="k")
        assert contents(second.body) == ["first", "last", "done"]
        assert second.body == (await first).body
        # And when it has ended.
        await stored(one)
        await lose(own_redis, how)
        assert (await other.ask("POST", "/once", Idempotency_Key="k")).body == second.body
        assert not len(other.service.streams)


async def test_a_reader_elsewhere_is_not_cut_off(tmp_path: Path, own_redis: RedisServer) -> None:
    """While the store lacks his stream he waits."""
    definition = counting(times=60, delay="30ms")
    async with two(tmp_path, own_redis.url, definition) as (one, other):
        name = await begin(one, "/count")
        reading = asyncio.create_task(other.get(f"/_streams/{name}"))
        await until(lambda: bool(other.service.streams.followers))
        await asyncio.sleep(0.2)
        await lose(own_redis, "flush")
        assert contents((await reading).body) == [f"{{{n}}}" for n in range(1, 61)] + ["done"]


async def test_a_stream_that_never_was_is_unknown(tmp_path: Path, own_redis: RedisServer) -> None:
    """After a while: nobody has it, and that is known when all have written what they have."""
    async with two(tmp_path, own_redis.url, counting()) as (_, other):
        path = "/_streams/" + "a" * 22
        assert (await other.get(path)).status == 404
        await lose(own_redis, "flush")
        async with asyncio.timeout(15):
            assert (await other.get(path)).status == 404


async def test_a_reader_elsewhere_keeps_the_run_going(
    tmp_path: Path, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the store has lost that he is there: what he has told the server that runs it counts."""
    definition = counting(times=200, delay="10ms", streaming="resume: {keep: 600ms}")
    async with two(tmp_path, own_redis.url, definition) as (one, other):
        shared = other.service.streams.shared
        assert shared is not None

        async def lost(*_: Any) -> None:
            """Note nothing that lasts."""

        monkeypatch.setattr(shared.store, "read_at", lost)
        name = await begin(one, "/count")
        reply = await other.get(f"/_streams/{name}")
        assert events(reply.body)[-1]["event"] == "done"
        assert len(events(reply.body)) == 201
