"""Servers as processes of their own, with one Redis: what becomes of streams when one of them ends."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from contextlib import AsyncExitStack
from pathlib import Path

from redis import Redis

from tests.server.processes import Process, serving, until
from tests.server.resuming import contents, counting, events
from tests.server.serving import Client


async def two(stack: AsyncExitStack, folder: Path, url: str, definition: str) -> list[Process]:
    """Start two servers of one project, in folders of their own."""
    settings = f"state: {{url: '{url}'}}\nserver: {{shutdownTimeout: 300ms}}\n"
    servers = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        context = serving(folder / name, streamstack=settings, count=definition)
        servers.append(await stack.enter_async_context(context))
    return servers


async def begin(server: Process, path: str = "/count", extra: str = "") -> tuple[Client, str]:
    """Ask for a stream; return its reader and its id."""
    client = await server.connect()
    client.ask(path, extra=f"Connection: close\r\n{extra}")
    found = re.search(rb"X-Stream-Id: (\S+)", await client.head())
    assert found is not None
    return client, found[1].decode()


async def endless(stack: AsyncExitStack, folder: Path, url: str) -> tuple[Process, Process, Client, str]:
    """Begin a long stream at one of two servers; return both, its reader and its id, once the other knows it."""
    one, other = await two(stack, folder, url, counting(times=100_000, delay="10ms"))
    client, name = await begin(one)
    await client.chunk()
    assert (await other.ask("HEAD", f"/_streams/{name}")).status == 200
    return one, other, client, name


async def rest(client: Client) -> tuple[bytes, bool]:
    """Read to the end; tell whether it came in good order."""
    body = b""
    try:
        while piece := await client.chunk():
            body += piece
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return body, False
    finally:
        client.close()
    return body, True


async def test_a_server_that_is_killed_ends_its_streams_explicitly(tmp_path: Path, redis_url: str) -> None:
    """Its readers come back elsewhere, get what the store has, and then `producer-lost`; so do those that follow."""
    async with AsyncExitStack() as stack:
        definition = counting(times=100_000, delay="10ms", streaming="resume: true, keepAlive: 1s")
        one, other = await two(stack, tmp_path, redis_url, definition)
        client, name = await begin(one)
        had = b""
        while had.count(b"\n\n") < 30:
            had += await client.chunk()
        follower = await other.connect()
        follower.ask(f"/_streams/{name}", extra="Connection: close\r\n")
        assert b" 200 " in await follower.head()
        await asyncio.sleep(0.1)
        one.process.kill()
        had += (await rest(client))[0]
        last = events(had)[-1]["id"]
        back = await other.connect()
        back.ask(f"/_streams/{name}", extra=f"Connection: close\r\nLast-Event-ID: {last}\r\n")
        assert b" 200 " in await asyncio.wait_for(back.head(), 30)
        body, complete = await asyncio.wait_for(rest(back), 30)
        assert complete
        whole = events(had) + events(body)
        assert whole[-1]["event"] == "error"
        assert json.loads(whole[-1]["data"])["code"] == "producer-lost"
        numbers = [int(each["id"].rpartition("/")[2]) for each in whole[:-1]]
        assert numbers == list(range(len(numbers)))
        followed = events((await asyncio.wait_for(rest(follower), 30))[0])
        assert followed[-1] == whole[-1]
        assert followed[:-1] == whole[: len(followed) - 1]
        # Who was told so has nothing more to ask for.
        told = whole[-1]["id"]
        again = await other.ask("GET", f"/_streams/{name}", extra=f"Last-Event-ID: {told}\r\n")
        assert again.status == 204
        late = await other.ask("GET", f"/_streams/{name}")
        assert events(late.body) == followed


async def test_a_stop_that_nobody_hears_is_no_success(tmp_path: Path, redis_url: str) -> None:
    """Where the server that has the run hangs, DELETE tells that it was asked for; it counts once that one goes on."""
    async with AsyncExitStack() as stack:
        one, other, client, name = await endless(stack, tmp_path, redis_url)
        one.process.send_signal(signal.SIGSTOP)
        asked = await other.ask("DELETE", f"/_streams/{name}")
        assert asked.status == 202
        assert json.loads(asked.body) == {"status": "stopping"}
        assert asked.headers["content-type"].startswith("application/json")
        one.process.send_signal(signal.SIGCONT)
        body, complete = await asyncio.wait_for(rest(client), 30)
        assert complete
        assert json.loads(events(body)[-1]["data"])["code"] == "stopped"
        assert (await other.ask("DELETE", f"/_streams/{name}")).status == 204


async def test_a_stop_that_the_store_has_lost_is_no_success(tmp_path: Path, redis_url: str) -> None:
    """A Redis that is empty does not tell that the run has ended; its own server still stops it."""
    async with AsyncExitStack() as stack:
        one, other, client, name = await endless(stack, tmp_path, redis_url)
        one.process.send_signal(signal.SIGSTOP)
        asking = asyncio.ensure_future(other.ask("DELETE", f"/_streams/{name}"))
        with Redis.from_url(redis_url) as redis:
            await until(lambda: redis.keys("*stream-inbox*"))
            redis.flushdb()
        assert (await asyncio.wait_for(asking, 10)).status == 202
        one.process.send_signal(signal.SIGCONT)
        assert (await other.ask("DELETE", f"/_streams/{name}")).status == 404
        assert (await one.ask("DELETE", f"/_streams/{name}")).status == 204
        body, complete = await asyncio.wait_for(rest(client), 30)
        assert complete
        assert json.loads(events(body)[-1]["data"])["code"] == "stopped"


async def test_a_run_whose_server_is_gone_is_stopped(tmp_path: Path, redis_url: str) -> None:
    """Once that server is taken for lost DELETE says that the run is over, though no client had asked for the rest."""
    async with AsyncExitStack() as stack:
        one, other, client, name = await endless(stack, tmp_path, redis_url)
        one.process.kill()
        client.close()
        answers: list[int] = []
        async with asyncio.timeout(40):
            while not answers or answers[-1] == 202:
                answers.append((await other.ask("DELETE", f"/_streams/{name}")).status)
        assert (answers[0], answers[-1]) == (202, 204)
        late = await other.ask("GET", f"/_streams/{name}")
        assert json.loads(events(late.body)[-1]["data"])["code"] == "producer-lost"


async def test_a_server_that_is_stopped_tells_its_readers(tmp_path: Path, redis_url: str) -> None:
    """SIGTERM: what does not end in time gets `producer-lost`, here and elsewhere; readers of others are sent away."""
    async with AsyncExitStack() as stack:
        one, other = await two(stack, tmp_path, redis_url, counting(times=400, delay="10ms"))
        client, name = await begin(one)
        first = await client.chunk()
        follower = await other.connect()
        follower.ask(f"/_streams/{name}", extra="Connection: close\r\n")
        own, own_name = await begin(other)
        guest = await one.connect()
        guest.ask(f"/_streams/{own_name}", extra="Connection: close\r\n")
        assert b" 200 " in await follower.head()
        assert b" 200 " in await guest.head()
        one.process.send_signal(signal.SIGTERM)
        # The guest's run goes on where it is: its reader is cut off, so that it comes back there.
        had, complete = await asyncio.wait_for(rest(guest), 10)
        assert not complete
        last = events(had)[-1]["id"]
        told, complete = await asyncio.wait_for(rest(client), 10)
        assert complete
        assert contents(told)[-1] == "error"
        assert json.loads(events(told)[-1]["data"])["code"] == "producer-lost"
        followed, _ = await asyncio.wait_for(rest(follower), 10)
        assert followed == first + told
        assert await asyncio.wait_for(one.process.wait(), 10) == 0
        back = await other.connect()
        back.ask(f"/_streams/{own_name}", extra=f"Connection: close\r\nLast-Event-ID: {last}\r\n")
        assert b" 200 " in await back.head()
        body, complete = await asyncio.wait_for(rest(back), 30)
        assert complete
        whole = (await asyncio.wait_for(rest(own), 30))[0]
        assert events(had) + events(body) == events(whole)
        assert len(contents(whole)) == 401
