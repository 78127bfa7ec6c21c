"""Cached answers, from YAML to the bytes on a socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from streamstack import clock
from streamstack.server.metrics import SharedCounters, WorkerMetrics, exposition
from streamstack.server.request_log import RequestLog
from tests.redis import RedisServer
from tests.server.authenticating import BY_SECRET, claims, project, signed
from tests.server.serving import Reply, Server

#: Counts its runs, and sends that number in some chunks.
STREAM = """
method: GET
path: /s
{cache}
inputParameters: {{n: {{type: integer, default: 3}}, delay: {{type: integer, default: 0}}}}
functionStack:
  - counter.add: runs
    as: run
  - after: {{do: [{{counter.add: <<run.outcome>>}}]}}
  - repeat:
      times: <<input.n>>
      do:
        - stream: {{content: run <<run2>>, delay: <<input.delay>>}}
  - done: {{metadata: {{all: true}}}}
"""
STREAM = STREAM.replace("as: run\n", "as: run2\n")
VALUE = """
method: GET
path: /v
responseType: json
{cache}
{more}
functionStack:
  - counter.add: runs
    as: n
  - return: {{n: <<n>>}}
"""
COUNTS = """
method: GET
path: /count/{of}
responseType: json
inputParameters: {of: text}
functionStack: [{counter.add: {key: <<input.of>>, by: 0}, as: n}, {return: <<n>>}]
"""


def stream(cache: str = "cache: 1m", more: str = "") -> str:
    """Return the definitions of `STREAM`."""
    return "\n---\n".join((STREAM.format(cache=cache) + more, COUNTS))


def value(cache: str = "cache: 1m", more: str = "") -> str:
    """Return the definitions of `VALUE`."""
    return "\n---\n".join((VALUE.format(cache=cache, more=more), COUNTS))


async def count(server: Server, of: str = "runs") -> int:
    """Return how many runs there were, or how many ended in some way."""
    return int((await server.get(f"/count/{of}")).body)


def status(reply: Reply) -> str:
    """Return what the cache says of an answer."""
    return reply.headers["cache-status"].removeprefix("streamstack; ")


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what is added to the clock."""
    by = [0.0]
    now, monotonic = time.time, time.monotonic
    monkeypatch.setattr(clock, "time", lambda: now() + by[0])
    monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + by[0])
    return by


async def test_finished_streams_are_replayed_in_any_format(tmp_path: Path) -> None:
    """The chunks are stored, and not their bytes; `done` and its metadata come again."""
    async with project(tmp_path, "{}", stream()) as server:
        first = await server.get("/s", Accept="text/event-stream")
        replies = {
            each: await server.get("/s", Accept=each)
            for each in ("text/event-stream", "application/x-ndjson", "text/plain", "application/json")
        }
        assert status(first) == "fwd=uri-miss"
        assert {status(each).partition(";")[0] for each in replies.values()} == {"hit"}
        assert {each.headers["age"] for each in replies.values()} == {"0"}
        assert replies["text/event-stream"].body.partition(b'"elapsedMs"')[0] == first.body.partition(b'"elapsedMs"')[0]
        assert b'"all":true' in replies["text/event-stream"].body
        assert replies["application/x-ndjson"].body.startswith(b'"run 1"\n' * 3 + b'{"done"')
        assert replies["text/plain"].body == b"run 1" * 3
        assert json.loads(replies["application/json"].body)["chunks"] == ["run 1"] * 3
        assert [await count(server), await count(server, "completed")] == [1, 1]


async def test_one_run_for_all_who_ask_at_once(tmp_path: Path) -> None:
    """Fifty clients begin one run; who comes later gets what was sent, and then each chunk when it is sent."""
    async with project(tmp_path, "{}", stream()) as server:
        begun = asyncio.get_running_loop().time()
        waiting = [asyncio.create_task(server.get("/s?n=4&delay=150")) for _ in range(50)]
        await asyncio.sleep(0.2)
        late = await server.connect()
        late.ask("/s?n=4&delay=150")
        head = await late.head()
        assert b"collapsed" in head
        assert b"data: run 1" in await late.chunk()
        assert asyncio.get_running_loop().time() - begun < 0.4  # long before the end
        assert (await late.rest()).count(b"data: run 1") >= 2
        replies = await asyncio.gather(*waiting)
        assert {each.body.count(b"data: run 1\n") for each in replies} == {4}
        assert sorted(map(status, replies)) == ["fwd=uri-miss"] + ["fwd=uri-miss; collapsed"] * 49
        assert await count(server) == 1
        assert status(await server.get("/s?n=4&delay=150")).startswith("hit")
        assert status(await server.get("/s?n=3")) == "fwd=uri-miss"  # another key


@pytest.mark.parametrize(("leave", "outcome"), [(1, "completed"), (2, "cancelled")])
async def test_a_run_goes_on_while_anybody_follows_it(tmp_path: Path, leave: int, outcome: str) -> None:
    """Its first client may leave; when the last one has left, it is cancelled, and nothing is stored."""
    async with project(tmp_path, "{}", stream()) as server:
        clients = [await server.connect() for _ in range(2)]
        for client in clients:
            client.ask("/s?n=4&delay=80")
            await client.head()
            await client.chunk()
        for client in clients[:leave]:
            client.close()
        if leave == 1:
            assert (await clients[1].rest()).count(b"data: run 1") == 3
        await asyncio.sleep(0.15)
        assert await count(server, outcome) == 1
        again = await server.get("/s?n=4&delay=80")
        assert status(again).partition(";")[0] == ("hit" if leave == 1 else "fwd=uri-miss")


async def test_a_slow_follower_holds_nobody_back(tmp_path: Path) -> None:
    """It gets all chunks all the same. An answer larger than `maxSize` is not stored, and its run waits for it."""
    big = stream("cache: {ttl: 1m}").replace("content: run <<run2>>", "content: << 'x' * 60000 >>")
    for definitions, stored in ((big, True), (big.replace("ttl: 1m", "ttl: 1m, maxSize: 200KB"), False)):
        async with project(tmp_path, "{}", definitions) as server:
            slow = await server.connect(limit=1 << 16)
            slow.ask("/s?n=120")
            await slow.head()
            await asyncio.sleep(0.2)
            assert await count(server, "completed") == (1 if stored else 0)
            assert (await slow.rest()).count(b"data: xxx") == 120
            await asyncio.sleep(0.05)
            assert await count(server, "completed") == 1
            assert status(await server.get("/s?n=120")).startswith("hit" if stored else "fwd")


async def test_answers_that_failed_are_not_stored(tmp_path: Path) -> None:
    """All who follow get the error of the one run; the next request begins another. Other statuses likewise."""
    failing = stream(more="  - wait: 50ms\n  - throw: {code: broken, status: 409}\n")
    failing = failing.replace("  - done: {metadata: {all: true}}\n", "")
    async with project(tmp_path, "{}", failing) as server:
        replies = await asyncio.gather(*(server.get("/s?n=0&delay=1") for _ in range(3)))
        assert {(each.status, json.loads(each.body)["code"]) for each in replies} == {(409, "broken")}
        assert await count(server) == 1
        late = await server.get("/s")
        assert late.body.count(b"event: error") == 1
        assert b'"code":"broken"' in late.body
        assert await count(server) == 2
    found = value("cache: {ttl: 1m, statuses: [200, 404]}").replace("- return", "- respond: {status: 404}\n  - return")
    for definitions, runs in ((found, 1), (found.replace("[200, 404]", "200"), 2)):
        async with project(tmp_path, "{}", definitions) as server:
            assert [(await server.get("/v")).status for _ in range(2)] == [404, 404]
            assert await count(server) == runs


async def test_stale_answers_while_one_run_refreshes(tmp_path: Path, moved: list[float]) -> None:
    """After `ttl` the old answer is sent at once, and one run makes a new one; after `staleWhile` it is gone."""
    async with project(tmp_path, "{}", value("cache: {ttl: 10s, staleWhile: 50s}")) as server:
        assert status(await server.get("/v")) == "fwd=uri-miss"
        moved[0] = 12
        stale = await asyncio.gather(*(server.get("/v") for _ in range(5)))
        assert {each.body for each in stale} == {b'{"n":1}'}
        assert {status(each) for each in stale} <= {"hit; ttl=-3", "hit; ttl=-2"}
        await asyncio.sleep(0.05)
        fresh = await server.get("/v")
        assert (fresh.body, fresh.headers["age"]) == (b'{"n":2}', "0")
        moved[0] = 100
        assert (await server.get("/v")).body == b'{"n":3}'


async def test_a_refresh_that_fails_keeps_the_old_answer(tmp_path: Path, moved: list[float]) -> None:
    """It is tried again with the next request; its error is not sent until the old answer is gone."""
    failing = value("cache: {ttl: 10s, staleWhile: 50s}").replace(
        "  - return", "  - precondition: {that: '<< n != 2 and n < 4 >>', code: broken, status: 409}\n  - return"
    )
    async with project(tmp_path, "{}", failing) as server:
        bodies = []
        for moved[0] in (0, 12, 13, 30, 100):
            reply = await server.get("/v")
            bodies.append(reply.body if reply.status == 200 else reply.status)
            await asyncio.sleep(0.03)
        assert bodies == [b'{"n":1}', b'{"n":1}', b'{"n":1}', b'{"n":3}', 409]


async def test_entity_tags(tmp_path: Path) -> None:
    """A client that has the answer gets 304 and no body; HEAD is answered from the cache, too."""
    async with project(tmp_path, "{}", value() + "\n---\n" + STREAM.format(cache="cache: 1m")) as server:
        first = await server.get("/v")
        tag = first.headers["etag"]
        for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            reply = await server.get("/v", If_None_Match=sent)
            assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", tag)
        assert (await server.get("/v", If_None_Match='"other"')).body == b'{"n":1}'
        head = await server.ask("HEAD", "/v")
        assert (head.status, head.body, head.headers["etag"], head.headers["content-length"]) == (200, b"", tag, "7")
        assert (await server.ask("HEAD", "/v", If_None_Match=tag)).status == 304
        assert "etag" not in (await server.get("/s")).headers
        document = await server.get("/s", Accept="application/json")
        weak = document.headers["etag"]
        assert weak.startswith('W/"')
        assert (await server.get("/s", Accept="application/json", If_None_Match=weak)).status == 304
        head = await server.ask("HEAD", "/s", Accept="text/event-stream")
        assert (head.status, head.body, head.headers["age"]) == (200, b"", "0")
        assert (await server.ask("HEAD", "/s?n=9")).status == 200
        assert await count(server) == 2  # no run for the head of a stream


async def test_clients_do_not_share_what_depends_on_them(tmp_path: Path) -> None:
    """The caller is part of the key where there is authentication, headers where they are named, `by` replaces all."""
    mine = value("cache: {ttl: 1m, headers: [Accept-Language]}", "authentication: jwt")
    async with project(tmp_path, BY_SECRET, mine) as server:
        tokens = [{"Authorization": f"Bearer {signed(claims(**each))}"} for each in ({}, {"sub": "bob"}, {"iat": 1})]
        bodies = [(await server.get("/v", **each)).body for each in tokens]
        assert bodies == [b'{"n":1}', b'{"n":2}', b'{"n":1}']
        german = await server.get("/v", **tokens[0], Accept_Language="de")
        assert (german.body, german.headers["vary"]) == (b'{"n":3}', "Accept-Language")
        assert (await server.get("/v")).status == 401
    keyed = value(
        "cache: {ttl: 1m, by: << input.q if input.q != 'live' else null >>}",
        "inputParameters: {q: {type: text, required: true}, other: text}",
    )
    async with project(tmp_path, "{}", keyed) as server:
        paths = ("/v?q=a", "/v?q=a&other=1", "/v?q=b", "/v?q=live", "/v?q=live")
        replies = [await server.get(each) for each in paths]
        assert [each.body for each in replies] == [b'{"n":%d}' % n for n in (1, 1, 2, 3, 4)]
        assert status(replies[-1]) == "fwd=bypass"


async def test_answers_with_cookies_are_private(tmp_path: Path) -> None:
    """They are not stored, and who asks at the same time gets a run of his own."""
    cookies = value().replace("- return", "- respond: {cookies: {n: <<n>>}}\n  - wait: 50ms\n  - return")
    async with project(tmp_path, "{}", cookies) as server:
        replies = await asyncio.gather(*(server.get("/v") for _ in range(3)))
        assert {each.headers["set-cookie"].partition(";")[0] for each in replies} == {"n=1", "n=2", "n=3"}
        assert {status(each) for each in replies} == {"fwd=uri-miss"}
        assert (await server.get("/v")).body == b'{"n":4}'


async def test_the_rest_of_an_endpoint_holds(tmp_path: Path) -> None:
    """Limits count each request, CORS is of each origin, compression of each client, resuming of each stream."""
    limited = value("cache: 1m\nrateLimit: 3/minute")
    async with project(tmp_path, 'server: {cors: ["https://a.example", "https://b.example"]}', limited) as server:
        for origin in ("https://a.example", "https://b.example"):
            assert (await server.get("/v", Origin=origin)).headers["access-control-allow-origin"] == origin
        assert [(await server.get("/v")).status for _ in range(2)] == [200, 429]
    options = "cache: 1m\nstreaming: {compress: true, resume: true, format: sse}"
    async with project(tmp_path, "{}", stream(options)) as server:
        replies = [await server.get("/s", Accept_Encoding="gzip") for _ in range(2)]
        assert {gzip.decompress(each.body).count(b"data: run 1\n") for each in replies} == {3}
        ids = [each.headers["x-stream-id"] for each in replies]
        assert ids[0] != ids[1]
        assert (await server.get(f"/_streams/{ids[1]}?after=1")).body.count(b"data: run 1\n") == 1
        assert await count(server) == 1


async def test_metrics_and_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each request is counted by what the cache had for it."""
    async with project(
        tmp_path, "{}", value("cache: {ttl: 1m, by: << null if input.x else 1 >>}", "inputParameters: {x: boolean}")
    ) as server:
        found = server.service.routes.find("GET", "/v")
        assert found is not None
        server.service.metrics = WorkerMetrics(SharedCounters(found[:1]))
        server.service.request_log = RequestLog(text=False)
        for path in ("/v", "/v", "/v", "/v?x=true"):
            await server.get(path)
        text = exposition(server.service.metrics.counters).decode()
    for result, times in (("hit", 2), ("miss", 1), ("bypass", 1)):
        assert f'streamstack_cache_requests_total{{endpoint="GET /v",result="{result}"}} {times}' in text
    lines = [json.loads(each) for each in capfd.readouterr().err.splitlines() if '"request"' in each]
    assert [each["cache"] for each in lines] == ["miss", "hit", "hit", "bypass"]


async def test_over_websocket(tmp_path: Path) -> None:
    """What was sent to a client of SSE is replayed over a WebSocket."""
    async with project(tmp_path, "{}", stream()) as server:
        await server.get("/s")
        async with connect(f"ws://127.0.0.1:{server.port}/s") as client:
            assert [json.loads(await client.recv())["content"] for _ in range(3)] == ["run 1"] * 3
        assert await count(server) == 1


@asynccontextmanager
async def two(folder: Path, own_redis: RedisServer, definitions: str) -> AsyncIterator[tuple[Server, Server]]:
    """Serve a project twice, with one Redis."""
    settings = f"state: {{url: '{own_redis.url}'}}"
    folders = [folder / name for name in ("one", "two")]
    for each in folders:
        each.mkdir()
    async with project(folders[0], settings, definitions) as one, project(folders[1], settings, definitions) as other:
        yield one, other


async def test_servers_share_answers(tmp_path: Path, own_redis: RedisServer, moved: list[float]) -> None:
    """What one has stored the other replays; a JSON answer is made once for both. Without Redis nothing is cached."""
    plain = "method: GET\npath: /p\nresponseType: json\ncache: 1m\nfunctionStack: [{return: 1}]"
    both = "\n---\n".join(
        (
            plain,
            STREAM.format(cache="cache: 1m"),
            VALUE.format(cache="cache: {ttl: 1m, staleWhile: 1h}", more=""),
            COUNTS,
        )
    )
    async with two(tmp_path, own_redis, both.replace("- return: {n", "- wait: 100ms\n  - return: {n")) as (one, other):
        first, second = await one.get("/s"), await other.get("/s")
        assert second.body.count(b"data: run 1\n") == first.body.count(b"data: run 1\n") == 3
        assert b'"all":true' in second.body
        replies = await asyncio.gather(one.get("/v"), other.get("/v"), one.get("/v"), other.get("/v"))
        assert {each.body for each in replies} == {b'{"n":2}'}
        assert len({each.headers["etag"] for each in replies}) == 1
        # One refreshes for both; the other does not wait.
        moved[0] = 65
        stale = await asyncio.gather(*(each.get("/v") for each in (one, other, one, other)))
        assert {each.body for each in stale} == {b'{"n":2}'}
        await asyncio.sleep(0.3)
        assert [(await each.get("/v")).body for each in (one, other)] == [b'{"n":3}'] * 2
        own_redis.kill()
        lost = [await one.get("/p") for _ in range(2)]
        assert [(each.body, status(each)) for each in lost] == [(b"1", "fwd=uri-miss")] * 2
