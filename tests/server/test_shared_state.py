"""Several servers, each a process of its own, that share one Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from streamstack.connections.redis_state import LEASE
from tests.redis import RedisServer, free_port
from tests.server.processes import Process, refused, serving
from tests.server.serving import Client
from tests.waiting import eventually

DEFINITIONS = """
path: /limited
method: GET
responseType: json
rateLimit: {limit: 60/minute, by: all}
functionStack: [{return: 1}]
---
path: /held
method: GET
rateLimit: {concurrent: 4}
functionStack:
  - stream: first
  - wait: 60s
---
path: /count
method: GET
responseType: json
functionStack:
  - counter.add: {key: visits, by: << 0.1 | toDecimal >>}
    as: visits
response: << visits >>
---
path: /made
method: GET
responseType: json
inputParameters: {key: {type: text, default: a}, wait: {type: text, default: 200ms}}
functionStack:
  - cache.use:
      key: << input.key >>
      do:
        - wait: << input.wait >>
        - counter.add: [made, << input.key >>]
          as: times
        - return: {times: << times >>, at: << now() >>}
    as: value
response: << value >>
"""


@asynccontextmanager
async def servers(folder: Path, url: str, count: int) -> AsyncIterator[list[Process]]:
    """Serve the definitions in some processes."""
    (folder / "streamstack.yaml").write_text(
        f"state: {{url: '{url}', prefix: shop}}\nserver: {{shutdownTimeout: 200ms}}\n"
    )
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serving(folder, definitions=DEFINITIONS)) for _ in range(count)]


class Readers:
    """Those who read streams: admitted ones stay."""

    def __init__(self) -> None:
        self.clients: list[Client] = []

    async def open(self, server: Process) -> int:
        """Ask for a stream, and return the status."""
        client = await server.connect()
        self.clients.append(client)
        client.ask("/held")
        return int((await client.head()).split(b" ")[1])

    def leave(self) -> None:
        """Close all connections."""
        for each in self.clients:
            each.close()


@pytest.fixture
async def readers() -> AsyncIterator[Readers]:
    """Readers who leave when the test is over."""
    made = Readers()
    yield made
    made.leave()
    await asyncio.sleep(0.01)


async def test_they_count_as_one(tmp_path: Path, redis_url: str) -> None:
    """Of two hundred calls to three servers exactly sixty are admitted; counters miss nothing, to the last digit."""
    async with servers(tmp_path, redis_url, 3) as three:
        replies = await asyncio.gather(*(three[n % 3].ask("GET", "/limited") for n in range(200)))
        counts = await asyncio.gather(*(three[n % 3].ask("GET", "/count") for n in range(90)))
        stopped = [await each.stop() for each in three]
    statuses = [each.status for each in replies]
    assert (statuses.count(200), statuses.count(429)) == (60, 140)
    assert sorted(float(each.body) for each in counts) == [n / 10 for n in range(1, 91)]
    assert stopped == [0, 0, 0]


async def test_a_value_is_made_once_for_all(tmp_path: Path, redis_url: str) -> None:
    """However many ask which server; where the one at work is killed, another one makes it."""
    async with servers(tmp_path, redis_url, 2) as (one, two):
        replies = await asyncio.gather(*((one, two)[n % 2].ask("GET", "/made") for n in range(40)))
        assert len({each.body for each in replies}) == 1
        assert json.loads(replies[0].body)["times"] == 1
        leader = asyncio.create_task(one.ask("GET", "/made?key=b&wait=60s"))
        await asyncio.sleep(0.5)
        follower = asyncio.create_task(two.ask("GET", "/made?key=b&wait=1ms"))
        await asyncio.sleep(0.5)
        assert not follower.done()
        one.process.kill()
        reply = await asyncio.wait_for(follower, LEASE + 5)
        assert (reply.status, json.loads(reply.body)["times"]) == (200, 1)
        leader.cancel()


async def test_streams_of_a_killed_server_are_free_again(tmp_path: Path, redis_url: str, readers: Readers) -> None:
    """Within seconds; those of one that is stopped at once; those of one that lives stay taken."""
    async with servers(tmp_path, redis_url, 3) as (one, two, three):
        opened = [await readers.open(each) for each in (one, one, two, three)]
        assert opened == [200] * 4
        assert [await readers.open(each) for each in (one, two, three)] == [429] * 3
        one.process.kill()
        assert await readers.open(two) == 429

        async def free() -> bool:
            return await readers.open(two) == 200

        await eventually(free, LEASE + 5)
        assert await readers.open(two) == 200
        assert await readers.open(two) == 429, "the third one lives"
        assert await three.stop() == 0
        assert await readers.open(two) == 200


async def test_it_starts_without_its_redis(tmp_path: Path) -> None:
    """What is out of reach is named, without its password; the server serves what it can, and finds it later."""
    redis = RedisServer(tmp_path / "redis", ("--requirepass", "hush"), free_port())
    url = f"redis://:hush@127.0.0.1:{redis.port}/1"
    async with servers(tmp_path, url, 1) as (one,):
        told = [each for each in one.lines if "out of reach" in each]
        assert told
        assert f"the state at redis://127.0.0.1:{redis.port} is out of reach" in told[0]
        assert "it is tried again when it is needed" in told[-1]
        limited, count = await one.ask("GET", "/limited"), await one.ask("GET", "/count")
        assert (limited.status, limited.headers["ratelimit-remaining"]) == (200, "59")
        assert (count.status, json.loads(count.body)["code"]) == (503, "state-unreachable")
        assert b"127.0.0.1" not in count.body
        made = await one.ask("GET", "/made?wait=1ms&key=c")
        assert made.status == 503, "its steps count"
        await asyncio.to_thread(redis.start)
        try:
            count = await one.ask("GET", "/count")
            assert (count.status, count.body) == (200, b"0.1")
            await one.stop()
        finally:
            redis.stop()
    assert "hush" not in "\n".join(one.lines)


@pytest.mark.parametrize("url", ["redis://:hush@h:p", "reddis://:hush@h"])
async def test_a_malformed_url_is_no_start(tmp_path: Path, url: str) -> None:
    """It is named with its line, which is not shown: it may hold a password."""
    text = f"state:\n  url: '{url}'\n"
    code, said = await refused(tmp_path, streamstack=text, definitions=DEFINITIONS)
    assert code == 1
    assert "streamstack.yaml:2:8: error: bad-url: `state.url`: " in said
    assert "write redis://localhost:6379" in said
    assert "hush" not in said
