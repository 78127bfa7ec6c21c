"""Streams that one server runs and another reads, by the Redis that both have."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from streamstack.connections.stream_store import Writing
from tests.redis import RedisServer
from tests.server.authenticating import BY_SECRET, claims, project, signed
from tests.server.resuming import EIGHT, contents, counting, drop_after, events, until
from tests.server.serving import Server

RUNS = """
---
method: GET
path: /runs
responseType: json
functionStack: [{counter.add: {key: runs, by: 0}, as: n}, {return: << n >>}]
"""


@asynccontextmanager
async def two(folder: Path, url: str, definitions: str, more: str = "") -> AsyncIterator[tuple[Server, Server]]:
    """Serve a project twice, as two machines would."""
    settings = f"state: {{url: '{url}'}}\n{more}"
    for name in ("a", "b"):
        (folder / name).mkdir()
    async with (
        project(folder / "a", settings, definitions) as one,
        project(folder / "b", settings, definitions) as other,
    ):
        yield one, other


async def begin(server: Server, path: str = "/count", headers: str = "") -> tuple[str, str]:
    """Begin a stream, read its first chunk, and leave; return its id and the id of that chunk."""
    had = await drop_after(server, path, 1 << 7, headers)
    last = events(had)[-1]["id"]
    return last.partition("/")[0], last


async def stored(server: Server) -> None:
    """Wait until all that a server has written is in the store."""
    shared = server.service.streams.shared
    assert shared is not None
    await until(lambda: shared.settled)


async def test_a_reader_comes_back_to_another_server(tmp_path: Path, redis_url: str) -> None:
    """Wherever the bytes broke off, the rest is had from the other server, once."""
    async with two(tmp_path, redis_url, counting()) as (one, other):
        whole = await one.get("/count")
        name = whole.headers["x-stream-id"]
        assert contents(whole.body) == EIGHT
        await stored(one)
        for cut in range(0, len(whole.body) + 1, 3):
            had = events(whole.body[:cut])
            if not had:
                continue
            for path in (f"/_streams/{name}", "/count"):
                rest = await other.get(path, Last_Event_ID=had[-1]["id"])
                if had[-1].get("event") == "done":
                    assert (rest.status, rest.body) == (204, b"")
                else:
                    assert rest.complete
                    assert had + events(rest.body) == events(whole.body)
        head = await other.ask("HEAD", f"/_streams/{name}")
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert rest.headers.get("x-run-id") in (None, whole.headers["x-run-id"])


async def test_a_stream_is_followed_while_it_runs(tmp_path: Path, redis_url: str) -> None:
    """Chunks reach readers of the other server as they come, not at the end."""
    async with two(tmp_path, redis_url, counting(times=20, delay="50ms")) as (one, other):
        client = await one.connect()
        client.ask("/count", extra="Connection: close\r\n")
        name = re.findall(rb"X-Stream-Id: (\S+)", await client.head())[0].decode()
        follower = await other.connect()
        follower.ask(f"/_streams/{name}", extra="Connection: close\r\n")
        body = b""
        while b"X-Run-Id" not in (head := await follower.head()):
            raise AssertionError(head)
        while b"data: {5}" not in body:
            body += await follower.chunk()
        assert one.service.timers, "the run goes on"
        own = await client.rest()
        body += await follower.rest()
        assert body == own
        assert len(contents(body)) == 21


async def messages(client: ClientConnection) -> AsyncIterator[str | bytes]:
    """Yield messages until the server closes, however it does."""
    with suppress(ConnectionClosed):
        while True:
            yield await client.recv()


async def test_websockets_are_followed_elsewhere(tmp_path: Path, redis_url: str) -> None:
    """A WebSocket goes on at another server, with pings, to the same close code: of a good end, and of an error."""
    text = """
method: GET
path: /count
streaming: {resume: {keep: 5s}, keepAlive: 100ms}
inputParameters: {fails: {type: boolean, default: false}}
functionStack:
  - forEach: {in: << range(5) >>, do: [{stream: << item >>}, {wait: 60ms}]}
  - if: {condition: << input.fails >>, then: [{throw: {code: broken, status: 500}}]}
"""
    async with two(tmp_path, redis_url, text) as (one, other):
        for fails, code in (("false", 1000), ("true", 1011)):
            first = await connect(f"ws://127.0.0.1:{one.port}/count?fails={fails}")
            last = json.loads(await first.recv())["id"]
            first.transport.abort()
            name = last.partition("/")[0]
            for path in (f"/_streams/{name}?after={last}", f"/count?fails={fails}&lastEventId={last}"):
                async with connect(f"ws://127.0.0.1:{other.port}{path}") as again:
                    found = [json.loads(message) async for message in messages(again)]
                    assert [each["content"] for each in found if "content" in each] == [1, 2, 3, 4]
                    assert ("error" in found[-1]) is (fails == "true")
                    assert again.close_code == code
            assert (await other.get(f"/_streams/{name}")).status == 426


async def test_many_follow_in_ndjson(tmp_path: Path, redis_url: str) -> None:
    """Readers of both servers have the same bytes."""
    definition = counting(times=50, streaming="resume: true, format: ndjson")
    async with two(tmp_path, redis_url, definition) as (one, other):
        first = asyncio.create_task(one.get("/count"))
        await until(lambda: len(one.service.streams) == 1)
        (stream,) = one.service.streams
        path = f"/_streams/{stream.origin.id}"
        await stored(one)
        rest = await asyncio.gather(*(each.get(path) for each in (one, other) for _ in range(5)))
        body = (await first).body
        assert {each.body for each in rest} == {body}
        assert len(body.splitlines()) == 50


async def test_a_stream_is_stopped_from_elsewhere(tmp_path: Path, redis_url: str) -> None:
    """DELETE reaches the server that runs it; the answer comes when it has ended."""
    async with two(tmp_path, redis_url, counting(times=100_000)) as (one, other):
        client = await one.connect()
        client.ask("/count", extra="Connection: close\r\n")
        name = re.findall(rb"X-Stream-Id: (\S+)", await client.head())[0].decode()
        await stored(one)
        reply = await other.ask("DELETE", f"/_streams/{name}")
        assert reply.status == 204
        assert not one.service.timers
        body = await client.rest()
        assert json.loads(events(body)[-1]["data"])["code"] == "stopped"
        late = await other.get(f"/_streams/{name}")
        assert events(late.body)[-1] == events(body)[-1]


async def test_a_server_that_keeps_no_streams_has_those_of_others(tmp_path: Path, redis_url: str) -> None:
    """As one from which the last such endpoint was removed: what still runs elsewhere is read and stopped there."""
    settings = f"state: {{url: '{redis_url}'}}\n"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with (
        project(tmp_path / "a", settings, counting(times=200, delay="50ms")) as one,
        project(tmp_path / "b", settings, RUNS) as other,
    ):
        assert other.service.streams.shared is None
        name, last = await begin(one)
        assert (await other.ask("HEAD", f"/_streams/{name}")).status == 200
        follower = await other.connect()
        follower.ask(f"/_streams/{name}", extra=f"Last-Event-ID: {last}\r\nConnection: close\r\n")
        assert b" 200 " in await follower.head()
        assert (await other.ask("DELETE", f"/_streams/{name}")).status == 204
        assert b"stopped" in await asyncio.wait_for(follower.reader.read(), 10)


async def test_only_the_owner_has_it_elsewhere_too(tmp_path: Path, redis_url: str) -> None:
    """The caller is asked for at every server; there is no stream for anyone else."""
    definition = counting().replace("path:", "authentication: jwt\npath:")
    async with two(tmp_path, redis_url, definition, BY_SECRET) as (one, other):
        ann, bob = (f"Bearer {signed(claims(sub=name))}" for name in ("ann", "bob"))
        whole = await one.get("/count", Authorization=ann)
        path = f"/_streams/{whole.headers['x-stream-id']}"
        await stored(one)
        unknown = await other.get("/_streams/" + "A" * 22)
        for headers in ({"Authorization": bob}, {}):
            for method in ("GET", "DELETE"):
                reply = await other.ask(method, path, b"", **headers)
                assert (reply.status, reply.body) == (404, unknown.body)
        assert (await other.get(path, Authorization=ann)).body == whole.body


async def test_a_stream_whose_terms_are_not_known_is_nobodys(tmp_path: Path, redis_url: str) -> None:
    """Where a server can't tell who may read it (an authentication it lacks, a strange record) there is none."""
    definition = counting().replace("path:", "authentication: jwt\npath:")
    ann = f"Bearer {signed(claims(sub='ann'))}"
    async with two(tmp_path, redis_url, definition, BY_SECRET) as (one, other):
        name = (await one.get("/count", Authorization=ann)).headers["x-stream-id"]
        path = f"/_streams/{name}"
        await stored(one)
        assert (await other.get(path, Authorization=ann)).status == 200
        unknown = await other.get("/_streams/" + "A" * 22)
        known = other.service.context
        other.service.context = replace(known, authentication={})
        assert (await other.get(path, Authorization=ann)).body == unknown.body
        other.service.context = known
        shared = one.service.streams.shared
        assert shared is not None
        key = shared.store.redis.key("stream", name)
        with Redis.from_url(redis_url) as redis:
            fields = redis.hgetall(key)
            for strange in (
                {"origin": "{}"},
                {"origin": "null"},
                {"origin": fields[b"origin"].replace(b'["jwt"]', b'["jwt",[7]]')},
                {"origin": fields[b"origin"].replace(b'"ways":', b'"Ways":')},
                {"origin": fields[b"origin"].replace(b"15.0", b'"soon"')},
                {"next": "many"},
                {"end": "?"},
            ):
                assert strange.get("origin") != fields[b"origin"]
                redis.hset(key, mapping=strange)
                assert (await other.get(path, Authorization=ann)).body == unknown.body
                redis.hset(key, mapping=fields)
            for lacking in ("origin", "next"):
                redis.hdel(key, lacking)
                assert (await other.get(path, Authorization=ann)).body == unknown.body
                redis.hset(key, mapping=fields)
            assert (await other.get(path, Authorization=ann)).status == 200
        assert (await one.get(path, Authorization=ann)).status == 200


async def test_one_key_begins_one_run_on_all_servers(tmp_path: Path, redis_url: str) -> None:
    """However many requests come to both at once; another request by that key is refused everywhere."""
    definition = (
        counting()
        .replace("GET", "POST")
        .replace(
            "functionStack:", "inputParameters: {item: {type: text}}\nfunctionStack:\n  - counter.add: {key: runs}"
        )
    )
    async with two(tmp_path, redis_url, definition + RUNS) as (one, other):
        headers = {"Content_Type": "application/json", "Idempotency_Key": "k"}
        replies = await asyncio.gather(
            *(server.ask("POST", "/count", b'{"item": "tea"}', **headers) for server in (one, other) for _ in range(10))
        )
        assert {contents(reply.body)[-1] for reply in replies} == {"done"}
        assert len({reply.body for reply in replies}) == 1
        assert (await one.get("/runs")).body == b"1"
        for server in (one, other):
            wrong = await server.ask("POST", "/count", b'{"item": "coffee"}', **headers)
            assert wrong.status == 422
        await stored(one)
        await stored(other)


async def test_a_run_goes_on_for_a_reader_elsewhere(tmp_path: Path, redis_url: str) -> None:
    """While a client reads it from the other server it is not cancelled; `keep` begins when that one leaves."""
    definition = counting(times=100_000, streaming="resume: {keep: 400ms}")
    async with two(tmp_path, redis_url, definition) as (one, other):
        name, last = await begin(one)
        client = await other.connect()
        client.ask(f"/_streams/{name}", extra=f"Last-Event-ID: {last}\r\n")
        assert b" 200 " in await client.head()
        for _ in range(6):
            await asyncio.sleep(0.2)
            assert one.service.timers
        client.close()
        await asyncio.sleep(0.2)
        assert one.service.timers
        await until(lambda: not one.service.timers)
        late = await other.get(f"/_streams/{name}", Last_Event_ID=last)
        assert json.loads(events(late.body)[-1]["data"])["code"] == "stopped"


async def test_a_run_goes_on_for_a_slow_reader_elsewhere(tmp_path: Path, redis_url: str) -> None:
    """One who takes nothing for longer than `keep` has not left, as little as at the run's own server."""
    definition = counting(times=100_000, delay="1ms", streaming="resume: {keep: 1500ms}, buffer: 8KB")
    definition = definition.replace("{<< loop.index >>}", "<< 'x' * 4000 >>")
    async with two(tmp_path, redis_url, definition) as (one, other):
        first = await one.connect()
        first.ask("/count")
        name = re.findall(rb"X-Stream-Id: (\S+)", await first.head())[0].decode()
        client = await other.connect(limit=2048)
        client.ask(f"/_streams/{name}")
        assert b" 200 " in await client.head()
        first.close()
        await asyncio.sleep(5)
        assert one.service.timers
        client.close()
        await until(lambda: not one.service.timers)


async def test_a_run_follows_the_pace_of_a_reader_elsewhere(tmp_path: Path, redis_url: str) -> None:
    """Without another reader, what is stored is not outrun: the reader elsewhere misses nothing."""
    definition = counting(times=3000, delay="0ms", streaming="resume: {maxChunks: 100, keep: 5s}")
    definition = definition.replace("{<< loop.index >>}", "<< loop.index >>" + "x" * 1000)
    async with two(tmp_path, redis_url, definition) as (one, other):
        client = await one.connect(limit=2048)
        client.ask("/count")
        name = re.findall(rb"X-Stream-Id: (\S+)", await client.head())[0].decode()
        client.close()
        await asyncio.sleep(0.1)
        (stream,) = one.service.streams
        assert stream.log.end is None
        await stored(one)
        start = stream.log.first
        reply = await other.get(f"/_streams/{name}?after={start}")
        numbers = [int(each["id"].rpartition("/")[2]) for each in events(reply.body)]
        assert numbers == list(range(start + 1, 3001))
        assert events(reply.body)[-1]["event"] == "done"


async def test_a_run_that_finishes_waits_for_a_reader_elsewhere(tmp_path: Path, redis_url: str) -> None:
    """`finish` outruns no connected reader, at whatever server; it goes on when he has left."""
    definition = counting(times=3000, delay="0ms", streaming="onDisconnect: finish, resume: {maxChunks: 100}")
    definition = definition.replace("{<< loop.index >>}", "<< loop.index >>" + "x" * 4000)
    async with two(tmp_path, redis_url, definition) as (one, other):
        here = await one.connect(limit=2048)
        here.ask("/count")
        name = re.findall(rb"X-Stream-Id: (\S+)", await here.head())[0].decode()
        (stream,) = one.service.streams
        there = await other.connect(limit=2048)
        await stored(one)
        there.ask(f"/_streams/{name}?after={stream.log.first}")
        start = stream.log.first
        await there.head()
        await until(lambda: stream.log.remote_reader_until > 0)
        here.close()
        await asyncio.sleep(0.3)
        assert stream.log.end is None
        pieces = [await there.chunk()]
        while b"event: done" not in pieces[-1]:
            pieces.append(await there.chunk())
        numbers = [int(each["id"].rpartition("/")[2]) for each in events(b"".join(pieces))]
        assert numbers == list(range(start + 1, 3001))


async def test_a_gap_is_told_elsewhere(tmp_path: Path, redis_url: str) -> None:
    """What the store no longer has is reported by its numbers."""
    definition = counting(times=50, delay="1ms", streaming="resume: {maxChunks: 10}")
    async with two(tmp_path, redis_url, definition) as (one, other):
        whole = await one.get("/count")
        await stored(one)
        reply = await other.get(f"/_streams/{whole.headers['x-stream-id']}")
        first, *rest = events(reply.body)
        assert first["event"] == "gap"
        told = json.loads(first["data"])
        assert told["from"] == 0
        assert rest == events(whole.body)[told["to"] + 1 :]
        assert 5 <= len(rest) <= 30


async def test_what_failed_before_it_began_is_told_elsewhere(tmp_path: Path, redis_url: str) -> None:
    """By its key: the same problem, the same status."""
    definition = """
method: POST
path: /fails
streaming: {resume: true}
functionStack:
  - throw: {code: sold-out, status: 409, message: All gone}
    when: << true >>
  - stream: never
"""
    async with two(tmp_path, redis_url, definition) as (one, other):
        first = await one.ask("POST", "/fails", Idempotency_Key="k")
        await stored(one)
        again = await other.ask("POST", "/fails", Idempotency_Key="k")
        assert (first.status, again.status) == (409, 409)
        assert again.body == first.body


async def test_the_store_goes_and_comes_back(tmp_path: Path, own_redis: RedisServer) -> None:
    """Readers go on without it; when it is back it gets what it lacks."""
    definition = counting(times=150, delay="20ms")
    async with two(tmp_path, own_redis.url, definition) as (one, other):
        reading = asyncio.create_task(one.get("/count"))
        await until(lambda: len(one.service.streams) == 1)
        (stream,) = one.service.streams
        name = stream.origin.id
        await until(lambda: stream.log.next > 20)
        await asyncio.to_thread(own_redis.kill)
        written = stream.log.next
        await until(lambda: stream.log.next > written + 30)
        await asyncio.to_thread(own_redis.start)
        whole = await reading
        assert len(contents(whole.body)) == 151
        assert contents(whole.body)[-1] == "done"
        await stored(one)
        assert (await other.get(f"/_streams/{name}")).body == whole.body
        rest = await other.get(f"/_streams/{name}?after=17")
        assert events(rest.body) == events(whole.body)[18:]


async def test_a_follower_outlasts_the_store(tmp_path: Path, own_redis: RedisServer) -> None:
    """A reader of the other server waits while the store is away, and misses nothing."""
    definition = counting(times=150, delay="20ms")
    async with two(tmp_path, own_redis.url, definition) as (one, other):
        reading = asyncio.create_task(one.get("/count"))
        await until(lambda: len(one.service.streams) == 1)
        (stream,) = one.service.streams
        await until(lambda: stream.log.next > 5)
        await stored(one)
        following = asyncio.create_task(other.get(f"/_streams/{stream.origin.id}"))
        await until(lambda: stream.log.next > 20)
        await asyncio.to_thread(own_redis.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_redis.start)
        whole = await reading
        assert (await following).body == whole.body


def watched(server: Server, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> list[tuple[int, int]]:
    """Let each write to the store take some seconds; return how many streams each has begun and ended, once over."""
    shared = server.service.streams.shared
    assert shared is not None
    write, over = shared.store.write, []

    async def watch(writings: Sequence[Writing]) -> list[int | Exception]:
        await asyncio.sleep(seconds)
        found = await write(writings)
        over.append((sum(bool(w.begins) for w in writings), sum(bool(w.end) for w in writings)))
        return found

    monkeypatch.setattr(shared.store, "write", watch)
    return over


async def test_short_streams_take_one_write(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not wait is begun, written and ended in one go; what begins meanwhile goes together with the next."""
    definition = counting(delay="0ms")
    async with project(tmp_path, f"state: {{url: '{redis_url}'}}\n", definition) as server:
        over = watched(server, monkeypatch, 0.05)
        assert contents((await server.get("/count")).body) == EIGHT
        assert over == [(1, 1)]
        replies = await asyncio.gather(*(server.get("/count") for _ in range(20)))
        assert all(contents(each.body) == EIGHT for each in replies)
        assert len(over) < 12
        assert sum(begun for begun, _ in over) == 21


async def test_no_reader_is_told_of_what_the_store_does_not_know(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer begins when another server would find the stream, however slow; its run goes on meanwhile."""
    definition = counting(delay="0ms")
    async with project(tmp_path, f"state: {{url: '{redis_url}'}}\n", definition) as server:
        over = watched(server, monkeypatch, 1.5)
        client = await server.connect()
        client.ask("/count")
        await until(lambda: len(server.service.streams) == 1)
        (stream,) = server.service.streams
        await until(lambda: stream.log.end is not None)
        assert not over
        await client.head()
        assert over == [(1, 1)]
        client.close()


async def test_last_words_arrive(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is stopped waits for what it is writing to the store."""
    settings = f"state: {{url: '{redis_url}'}}\n"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with project(tmp_path / "b", settings, counting()) as other:
        async with project(tmp_path / "a", settings, counting()) as one:
            client = await one.connect()
            client.ask("/count")
            name = re.findall(rb"X-Stream-Id: (\S+)", await client.head())[0].decode()
            watched(one, monkeypatch, 0.5)
            (stream,) = one.service.streams
            await until(lambda: stream.log.end is not None)
            client.close()
        assert contents((await other.get(f"/_streams/{name}")).body) == EIGHT


async def test_without_the_store(tmp_path: Path, own_redis: RedisServer) -> None:
    """Streams begin and are read where they run; what only the store could tell is refused with 503."""
    definition = counting() + "---" + counting("/post").replace("GET", "POST")
    async with two(tmp_path, own_redis.url, definition) as (one, other):
        await asyncio.to_thread(own_redis.kill)
        whole = await one.get("/count")
        assert contents(whole.body) == EIGHT
        name = whole.headers["x-stream-id"]
        assert (await one.get(f"/_streams/{name}")).body == whole.body
        away = await other.get(f"/_streams/{name}")
        assert (away.status, json.loads(away.body)["code"]) == (503, "state-unreachable")
        key = await one.ask("POST", "/post", Idempotency_Key="k")
        assert key.status == 503
        await asyncio.to_thread(own_redis.start)
        await stored(one)
        assert (await other.get(f"/_streams/{name}")).body == whole.body
