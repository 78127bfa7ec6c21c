"""Many readers and many faults at once: each has the right sequence or an explicit error, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.redis import RedisServer
from tests.server.authenticating import project
from tests.server.processes import Process, serving
from tests.server.random_streams import DEFINITIONS, Upstream
from tests.server.readers_at_random import Seen, read_at_random
from tests.server.resuming import NONE, counting, until
from tests.server.serving import Server


async def nothing_is_left(server: Server) -> None:
    """Check that a server runs nothing, keeps nothing, and holds no connection."""
    service = server.service
    await until(lambda: not service.timers)
    await until(lambda: not len(service.streams))
    await until(lambda: not server.runner.server.connections)  # type: ignore[union-attr]
    assert service.streams.size == 0
    assert not service.streams.followers
    shared = service.streams.shared
    assert shared is None or shared.settled


@pytest.mark.parametrize("store", ["memory", "redis"])
async def test_readers_at_random(tmp_path: Path, request: pytest.FixtureRequest, store: str) -> None:
    """Breaking off, slow readers, upstreams that are lost, a store that goes and comes back."""
    chance = random.Random(7)  # noqa: S311 (a test's)
    seen = Seen()
    upstream = Upstream(chance)
    await upstream.start()
    redis: RedisServer | None = None
    settings, folders = NONE, ["a"]
    if store == "redis":
        redis = request.getfixturevalue("own_redis")
        settings, folders = f"state: {{url: '{redis.url}'}}\n", ["a", "b"]
    async with AsyncExitStack() as stack:
        servers = []
        for name in folders:
            (tmp_path / name).mkdir()
            text = DEFINITIONS.replace("KEEP", "3s")
            servers.append(await stack.enter_async_context(project(tmp_path / name, settings, text)))
        before = len(asyncio.all_tasks())
        ports = [server.port for server in servers]
        reading = asyncio.create_task(read_at_random(lambda: ports, 50, chance, seen, upstream.port, longest=140))
        if redis is not None:
            for _ in range(2):
                await asyncio.sleep(0.7)
                await asyncio.to_thread(redis.kill)
                await asyncio.sleep(0.2)
                await asyncio.to_thread(redis.start)
        await asyncio.wait_for(reading, 60)
        assert seen.faults == []
        assert seen.breaks > 10
        assert sum(seen.endings.values()) == 50
        assert not seen.endings.keys() - {"done", "read", "stream-lost", "status 502", "http-connection"}
        assert seen.endings["done"] > 15
        for server in servers:
            await nothing_is_left(server)
        await until(lambda: len(asyncio.all_tasks()) <= before)
        gc.collect()
    await upstream.stop()


async def test_a_server_is_stopped_while_many_read(tmp_path: Path, redis_url: str) -> None:
    """SIGTERM to one of two, in the middle of many streams: its readers receive an error, or go on elsewhere."""
    chance = random.Random(11)  # noqa: S311 (a test's)
    seen = Seen()
    upstream = Upstream(chance)
    await upstream.start()
    settings = f"state: {{url: '{redis_url}'}}\nserver: {{shutdownTimeout: 500ms}}\n"
    text = DEFINITIONS.replace("KEEP", "10s")
    async with AsyncExitStack() as stack:
        servers: list[Process] = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            context = serving(tmp_path / name, streamstack=settings, endpoints=text)
            servers.append(await stack.enter_async_context(context))
        ports = [server.port for server in servers]
        reading = asyncio.create_task(read_at_random(lambda: ports, 60, chance, seen, upstream.port, longest=140))
        await asyncio.sleep(1)
        seen.lose(ports[0], "it was stopped")
        servers[0].process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(servers[0].process.wait(), 20) == 0
        del ports[0]
        await asyncio.wait_for(reading, 60)
    await upstream.stop()
    assert seen.faults == []
    assert sum(seen.endings.values()) == 60
    assert seen.endings["done"] > 15


async def test_a_slow_reader_keeps_what_has_ended(tmp_path: Path, redis_url: str) -> None:
    """Who reads at another server for longer than `keep` gets all of it: it is kept from when he leaves."""
    settings = f"state: {{url: '{redis_url}'}}\n"
    definition = counting(times=3000, delay="0ms", streaming="resume: {keep: 1s}")
    definition = definition.replace("{<< loop.index >>}", "<< loop.index >>" + "x" * 4000)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with (
        project(tmp_path / "a", settings, definition) as one,
        project(tmp_path / "b", settings, definition) as other,
    ):
        whole = await one.get("/count")
        client = await other.connect(limit=2048)
        client.ask(f"/_streams/{whole.headers['x-stream-id']}")
        await client.head()
        pieces = [await client.chunk()]
        while b"event: done" not in pieces[-1]:
            await asyncio.sleep(0.4 if len(pieces) < 7 else 0)
            pieces.append(await client.chunk())
        assert b"".join(pieces) == whole.body
        client.close()
