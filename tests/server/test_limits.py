"""How often an endpoint may be called, and how many of its runs may be under way: on both stores, by sockets."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from streamstack.connections.state import Verdict
from streamstack.functions.state import quota_of, tightest
from streamstack.language.values import Rate
from tests.redis import RedisServer
from tests.server.authenticating import BY_SECRET, bearer, claims, project, signed
from tests.server.serving import Client, Reply, Server
from tests.waiting import eventually

HELD = """
  - stream: first
  - wait: 30s
  - stream: last
"""


@pytest.fixture(params=["memory", "redis"])
def state(request: pytest.FixtureRequest) -> str:
    """Each store there is, empty, as the settings name it."""
    if request.param == "memory":
        return "state: {url: memory://}\n"
    url: str = request.getfixturevalue("redis_url")
    return f"state: {{url: '{url}', prefix: limits}}\n"


def endpoint(limit: str, rest: str = "", path: str = "/l") -> str:
    """Return an endpoint that answers 1 under a limit."""
    return (
        f"path: {path}\nmethod: GET\nresponseType: json\nrateLimit: {limit}\n{rest}\nfunctionStack: [{{return: 1}}]\n"
    )


def figures(reply: Reply) -> tuple[str, str, int]:
    """Return limit, what remains, and the seconds until there is more."""
    headers = reply.headers
    return (headers["ratelimit-limit"], headers["ratelimit-remaining"], int(headers["ratelimit-reset"]))


def problem(reply: Reply) -> dict[str, Any]:
    """Return the JSON of an answer."""
    document: dict[str, Any] = json.loads(reply.body)
    return document


@asynccontextmanager
async def limited(folder: Path, state: str, limit: str, rest: str = "", settings: str = "") -> AsyncIterator[Server]:
    """Serve one endpoint under a limit."""
    async with project(folder, state + settings, endpoint(limit, rest), {}) as server:
        yield server


# ------------------------------------------------------------- rates


@pytest.mark.parametrize("algorithm", ["fixed", "sliding"])
async def test_so_many_calls_are_let_in(tmp_path: Path, state: str, algorithm: str) -> None:
    """Each learns what is left; the next one gets 429, and when to come again."""
    limit = f"{{limit: 3/minute, algorithm: {algorithm}}}"
    async with limited(tmp_path, state, limit) as server:
        replies = [await server.get("/l") for _ in range(4)]
    assert [each.status for each in replies] == [200, 200, 200, 429]
    told = [figures(each) for each in replies]
    assert [each[:2] for each in told] == [("3", "2"), ("3", "1"), ("3", "0"), ("3", "0")]
    assert all(55 <= each[2] <= 61 for each in told)
    last = replies[-1]
    assert int(last.headers["retry-after"]) == told[-1][2]
    assert last.headers["content-type"] == "application/problem+json"
    document = problem(last)
    assert (document["status"], document["code"]) == (429, "rate-limited")
    assert document["title"] == "Too Many Requests"
    assert document["detail"].startswith("the limit of 3/minute is used up: try again in ")
    assert document["run"] == last.headers["x-run-id"]


@pytest.mark.parametrize("algorithm", ["fixed", "sliding"])
async def test_when_the_time_is_over_there_is_room(tmp_path: Path, state: str, algorithm: str) -> None:
    """A client that waits for `Retry-After` is admitted; refused calls did not count."""
    async with limited(tmp_path, state, f"{{limit: 2/1s, algorithm: {algorithm}}}") as server:
        first = [(await server.get("/l")).status for _ in range(5)]
        await asyncio.sleep(1.1)
        then = [(await server.get("/l")).status for _ in range(3)]
    assert first == [200, 200, 429, 429, 429]
    assert then == [200, 200, 429]


@pytest.mark.parametrize("algorithm", ["fixed", "sliding"])
async def test_never_more_than_the_limit_at_once(tmp_path: Path, state: str, algorithm: str) -> None:
    """Of two hundred that come together, exactly so many are admitted."""
    async with limited(tmp_path, state, f"{{limit: 60/minute, algorithm: {algorithm}}}") as server:
        replies = await asyncio.gather(*(server.get("/l") for _ in range(200)))
    statuses = [each.status for each in replies]
    assert (statuses.count(200), statuses.count(429)) == (60, 140)
    left = sorted(int(figures(each)[1]) for each in replies if each.status == 200)
    assert left == list(range(60)), "each was told another remainder"


async def test_of_several_limits_all_must_have_room(tmp_path: Path, state: str) -> None:
    """The tightest is reported; what one refuses, the others do not count."""
    limits = "[5/minute, {limit: 2/1s, by: all}]"
    async with limited(tmp_path, state, limits) as server:
        first = [await server.get("/l") for _ in range(4)]
        await asyncio.sleep(1.1)
        then = [await server.get("/l") for _ in range(2)]
        await asyncio.sleep(1.1)
        last = [await server.get("/l") for _ in range(2)]
    assert [each.status for each in first] == [200, 200, 429, 429]
    assert [figures(each)[:2] for each in first[:3]] == [("2", "1"), ("2", "0"), ("2", "0")]
    assert [each.status for each in then] == [200, 200]
    assert [each.status for each in last] == [200, 429]
    assert figures(last[1])[:2] == ("5", "0")


def test_of_two_limits_with_the_same_left_the_slower_is_told() -> None:
    """As many calls are left in both: what counts is the one that takes longer to admit more, refused or not."""
    quick, slow = (quota_of(Rate(5, seconds), "fixed", b"k") for seconds in (10, 60))
    for admitted, left in ((True, 2), (False, 0)):
        soon, late = (Verdict(admitted, left, reset) for reset in (4_000, 50_000))
        assert tightest([quick, slow], [soon, late]) == (slow, late)
        assert tightest([slow, quick], [late, soon]) == (slow, late)
    # The one that has to be waited for is reported before one that admits no more later.
    refused, empty = Verdict(False, 0, 1_000), Verdict(True, 0, 50_000)
    assert tightest([quick, slow], [refused, empty]) == (quick, refused)
    one, two = Verdict(True, 1, 1_000), Verdict(True, 2, 50_000)
    assert tightest([slow, quick], [two, one]) == (quick, one)


async def test_endpoints_count_apart(tmp_path: Path, state: str) -> None:
    """One that is used up leaves the others alone; one without a limit reports none."""
    texts = [endpoint("1/minute", path="/a"), endpoint("1/minute", path="/b"), endpoint("", path="/c")]
    async with project(tmp_path, state, "\n---\n".join(texts), {}) as server:
        statuses = [(await server.get(path)).status for path in ("/a", "/a", "/b", "/c", "/c")]
        free = await server.get("/c")
        head = await server.ask("HEAD", "/a")
    assert statuses == [200, 429, 200, 200, 200]
    assert not [name for name in free.headers if name.startswith("ratelimit")]
    assert head.status == 200, "a HEAD runs nothing, and is not counted"


async def test_callers_count_apart(tmp_path: Path, state: str) -> None:
    """Who has a subject, by it; of an optional authentication the others by address."""
    rest = "authentication: {jwt: {optional: true}}"
    ada, bob = (bearer(signed(claims(sub=name))) for name in ("ada", "bob"))
    other = bearer(signed(claims(sub="ada", jti="another token")))
    settings = state + BY_SECRET
    async with project(tmp_path, settings, endpoint("1/minute", rest)) as server:
        statuses = [(await server.get("/l", **headers)).status for headers in (ada, ada, other, bob, bob, {}, {})]
        forged = await server.get("/l", Authorization="Bearer forged")
    assert statuses == [200, 429, 429, 200, 429, 200, 429]
    assert forged.status == 401, "a client refused by the guard is not counted"
    assert "ratelimit-limit" not in forged.headers


@pytest.mark.parametrize(
    ("by", "statuses"),
    [
        ("all", [200, 429, 429, 429]),
        ("ip", [200, 429, 429, 429]),
        ("<< input.team >>", [200, 429, 200, 429]),
        ("'<< [auth.sub, input.team] >>'", [200, 429, 200, 200]),
        ("<< auth.plan | default(null) >>", [200, 429, 429, 200]),
    ],
)
async def test_what_counts_as_one(tmp_path: Path, state: str, by: str, statuses: list[int]) -> None:
    """All together, an address, or what a binding gives; where that is null, the caller."""
    rest = "authentication: jwt\ninputParameters: {team: {type: text, required: true}}"
    callers = [("ada", "x"), ("ada", "x"), ("ada", "y"), ("bob", "x")]
    limit = f"{{limit: 1/minute, by: {by}}}"
    async with project(tmp_path, state + BY_SECRET, endpoint(limit, rest)) as server:
        replies = [await server.get(f"/l?team={team}", **bearer(signed(claims(sub=sub)))) for sub, team in callers]
        refused = await server.get("/l", **bearer(signed(claims(sub="eve"))))
    assert [each.status for each in replies] == statuses
    assert refused.status == (400 if "input" in by else 429 if by in ("all", "ip") else 400)


async def test_a_limit_may_be_a_binding(tmp_path: Path, state: str) -> None:
    """Of the caller's plan, say; null means no limit; what is not a rate is the author's fault, with its place."""
    limit = """
      limit: '<< {"pro": "2/minute", "free": "1/minute", "odd": "x"}[auth.plan] if auth.plan is defined else null >>'
    """
    rest = "authentication: jwt"
    async with project(tmp_path, state + BY_SECRET, endpoint(limit, rest)) as server:

        async def ask(sub: str, plan: str | None) -> int:
            return (await server.get("/l", **bearer(signed(claims(sub=sub, plan=plan))))).status

        assert [await ask("a", "pro") for _ in range(3)] == [200, 200, 429]
        assert [await ask("b", "free") for _ in range(2)] == [200, 429]
        assert [await ask("c", None) for _ in range(3)] == [200, 200, 200]
        with capture_logs() as logs:
            assert await ask("d", "odd") == 500
    (told,) = [each for each in logs if each["event"] == "run-failed"]
    assert told["code"] == "template"
    assert "`limit` must be a rate" in told["message"]
    assert "endpoints.yaml:" in told["place"]


async def test_bad_requests_count(tmp_path: Path, state: str) -> None:
    """What is refused for its inputs was a call, and tells what is left."""
    rest = "inputParameters: {n: {type: integer, required: true}}"
    async with limited(tmp_path, state, "2/minute", rest) as server:
        replies = [await server.get(path) for path in ("/l", "/l?n=1", "/l?n=1")]
    assert [each.status for each in replies] == [400, 200, 429]
    assert [figures(each)[1] for each in replies] == ["1", "0", "0"]


async def test_a_body_is_not_read_where_there_is_no_room(tmp_path: Path, state: str) -> None:
    """A client that asks before sending gets 429 in place of 100."""
    text = (
        "path: /l\nmethod: POST\nresponseType: json\nrateLimit: 1/minute\n"
        "inputParameters: {a: {type: text}}\nfunctionStack: [{return: 1}]\n"
    )
    async with project(tmp_path, state, text, {}) as server:
        assert (await server.ask("POST", "/l", b'{"a":"b"}', Content_Type="application/json")).status == 200
        client = await server.connect()
        extra = "Content-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n"
        client.ask("/l", "POST", extra=extra)
        assert (await client.head()).startswith(b"HTTP/1.1 429 ")


async def test_a_dialect_tells_it_as_its_api_does(tmp_path: Path, state: str) -> None:
    """The error has the shape that SDKs expect, the headers are the same."""
    text = "path: /l\nmethod: POST\nrateLimit: 1/minute\nstreaming: {format: openai}\nfunctionStack: [{stream: a}]\n"
    async with project(tmp_path, state, text, {}) as server:
        first, then = [await server.ask("POST", "/l") for _ in range(2)]
    assert (first.status, figures(first)[:2]) == (200, ("1", "0"))
    assert then.status == 429
    assert problem(then)["error"]["type"] == "rate_limit_error"
    assert int(then.headers["retry-after"]) == figures(then)[2]


async def test_files_of_a_refused_call_are_deleted(tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the limit is asked after the inputs were read."""
    kept = tmp_path / "uploads"
    kept.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(kept))
    text = """
path: /l
method: POST
responseType: json
rateLimit: {limit: 1/minute, by: << input.name >>}
inputParameters: {name: {type: text}, file: {type: file, maxSize: 10MB}}
functionStack: [{return: << input.file.size >>}]
"""
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % part
        for part in [(b"name", b"", b"a"), (b"file", b'; filename="f"', b"z" * 3_000_000)]
    )
    content = "multipart/form-data; boundary=x"
    async with project(tmp_path, state, text, {}) as server:
        replies = [await server.ask("POST", "/l", body + b"--x--\r\n", Content_Type=content) for _ in range(3)]
        assert [each.status for each in replies] == [200, 429, 429]
        assert list(kept.iterdir()) == []


async def test_a_stream_tells_it_in_its_head(tmp_path: Path, state: str) -> None:
    """Also by CORS, so that a page can read it."""
    text = "path: /l\nmethod: GET\nrateLimit: 1/minute\nfunctionStack: [{stream: a}]\n"
    settings = state + "server: {cors: 'https://a.example'}\n"
    async with project(tmp_path, settings, text, {}) as server:
        first, then = [await server.get("/l", Origin="https://a.example") for _ in range(2)]
    assert (first.status, figures(first)[:2]) == (200, ("1", "0"))
    assert then.status == 429
    for each in (first, then):
        exposed = each.headers["access-control-expose-headers"].lower().split(", ")
        assert {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"} <= set(exposed)
        assert "retry-after" in exposed


async def test_the_function_limits_what_an_author_likes(tmp_path: Path, state: str) -> None:
    """It gives what is left; uncaught it answers 429 with `Retry-After`, caught it is an error like others."""
    text = """
path: /mail
method: GET
responseType: json
inputParameters: {to: {type: text, required: true}}
functionStack:
  - rateLimit: {key: [mail, << input.to >>], limit: 2/hour}
    as: left
response: << left >>
---
path: /soft
method: GET
responseType: json
functionStack:
  - try:
      do:
        - rateLimit: {key: [mail, ada], limit: 2/hour}
        - return: sent
      catch:
        on: [rate-limited]
        do: [{return: << error.code >>}]
"""
    async with project(tmp_path, state, text, {}) as server:
        replies = [await server.get(f"/mail?to={to}") for to in ("ada", "ada", "ada", "bob")]
        soft = await server.get("/soft")
    assert [each.status for each in replies] == [200, 200, 429, 200]
    assert problem(replies[0]) == {"limit": 2, "remaining": 1, "reset": 3600}
    assert problem(replies[3])["remaining"] == 1
    assert 3500 < int(replies[2].headers["retry-after"]) <= 3600
    assert soft.body == b'"rate-limited"'


# ------------------------------------------------------------- how many at once


async def opened(server: Server, path: str = "/s", extra: str = "") -> Client:
    """Begin a stream and read its head."""
    client = await server.connect()
    client.ask(path, extra=extra)
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 200 "), head
    return client


async def status(server: Server, path: str = "/s", extra: str = "") -> int:
    """Ask for a stream, read the status line, and leave."""
    client = await server.connect()
    client.ask(path, extra=extra)
    head = await client.head()
    client.close()
    return int(head.split(b" ")[1])


async def until(server: Server, wanted: int, seconds: float = 10.0, extra: str = "") -> None:
    """Ask again and again until a stream has some status."""

    async def has() -> bool:
        return await status(server, extra=extra) == wanted

    await eventually(has, seconds)


STREAM = "path: /s\nmethod: GET\nrateLimit: {limit}\nfunctionStack:\n" + HELD


async def test_so_many_streams_are_open_at_once(tmp_path: Path, state: str) -> None:
    """The next one is refused, and told to come again; when one of them has ended, there is room."""
    text = STREAM.format(limit="{concurrent: 3}")
    async with project(tmp_path, state, text, {}) as server:
        clients = [await opened(server) for _ in range(3)]
        refused = await server.get("/s")
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert problem(refused)["detail"] == "3 are under way already, which is the most at once"
        assert "ratelimit-limit" not in refused.headers
        clients[0].close()
        await until(server, 200)


async def test_a_run_that_ends_gives_its_place_back(tmp_path: Path, state: str) -> None:
    """However it ends: completed, failed, refused for its inputs."""
    text = """
path: /s
method: GET
rateLimit: {concurrent: 1}
inputParameters: {fail: {type: boolean, default: false}}
functionStack:
  - throw: {code: broken, when: << input.fail >>}
  - stream: a
"""
    text = text.replace(", when: << input.fail >>}", "}\n    when: << input.fail >>")
    async with project(tmp_path, state, text, {}) as server:
        for query, expected in [("", 200), ("?fail=true", 500), ("?fail=x", 400)] * 5:

            async def answers(query: str = query, expected: int = expected) -> bool:
                found = (await server.get(f"/s{query}")).status
                assert found in (expected, 429)
                return found == expected

            await eventually(answers)
        await until(server, 200)


async def test_streams_of_callers_count_apart(tmp_path: Path, state: str) -> None:
    """Each has its own; `all` counts them together."""
    limits = "[{concurrent: 1}, {concurrent: 2, by: all}]"
    text = STREAM.format(limit=limits).replace("rateLimit", "authentication: jwt\nrateLimit")
    a, b, c = (f"Authorization: Bearer {signed(claims(sub=sub))}\r\n" for sub in "abc")
    async with project(tmp_path, state + BY_SECRET, text) as server:
        first = await opened(server, extra=a)
        assert await status(server, extra=a) == 429
        await opened(server, extra=b)
        assert await status(server, extra=c) == 429
        first.close()
        await until(server, 200, extra=c)


async def test_a_refused_rate_holds_no_place(tmp_path: Path, state: str) -> None:
    """A call that the rate refuses leaves its place to others, and one without a place counts for no rate."""
    text = STREAM.format(limit="[{concurrent: 1}, {limit: 2/minute}]")
    async with project(tmp_path, state, text, {}) as server:
        first = await opened(server)
        assert [await status(server) for _ in range(5)] == [429] * 5
        first.close()
        await until(server, 200)
        await asyncio.sleep(0.1)
        refused = await server.get("/s")
        assert "is used up" in problem(refused)["detail"]


async def test_never_more_streams_than_allowed(tmp_path: Path, state: str) -> None:
    """Of a hundred that come together."""
    text = STREAM.format(limit="{concurrent: 7, by: all}")
    async with project(tmp_path, state, text, {}) as server:
        clients = [await server.connect() for _ in range(100)]
        for each in clients:
            each.ask("/s")
        heads = await asyncio.gather(*(each.head() for each in clients))
    statuses = [int(head.split(b" ")[1]) for head in heads]
    assert (statuses.count(200), statuses.count(429)) == (7, 93)


async def test_whatever_readers_do_no_place_is_lost(tmp_path: Path, state: str) -> None:
    """Hundreds who leave at any moment, before their head, with it, later: in the end all places are free."""
    chance = random.Random(5)  # noqa: S311 (chance, not secrets)
    text = STREAM.format(limit="[{concurrent: 5, by: all}, {limit: 100000/minute}]")

    async def come_and_go(server: Server) -> None:
        client = await server.connect()
        client.ask("/s")
        await client.writer.drain()
        await asyncio.sleep(chance.choice([0, 0.0003, 0.001, 0.003, 0.02]))
        if chance.random() < 0.3:
            await client.head()
        client.close()

    async with project(tmp_path, state, text, {}) as server:
        for _ in range(8):
            await asyncio.gather(*(come_and_go(server) for _ in range(40)))

        async def all_free() -> bool:
            clients = [await server.connect() for _ in range(6)]
            for each in clients:
                each.ask("/s")
            heads = [await each.head() for each in clients]
            for each in clients:
                each.close()
            return [head.split(b" ")[1] for head in heads].count(b"200") == 5

        await eventually(all_free, 15)


# ------------------------------------------------------------- Redis, away and back


async def test_without_its_redis_each_server_counts_by_itself(tmp_path: Path, own_redis: RedisServer) -> None:
    """Calls are admitted up to the limit, streams too; it is logged once; when Redis is back, it counts."""
    state = f"state: {{url: '{own_redis.url}'}}\n"
    texts = endpoint("3/minute") + "---\n" + STREAM.format(limit="{concurrent: 2}")
    async with project(tmp_path, state, texts, {}) as server:
        assert figures(await server.get("/l"))[1] == "2"
        client = await opened(server)
        own_redis.kill()
        with capture_logs() as logs:
            replies = [await server.get("/l") for _ in range(5)]
            assert [each.status for each in replies] == [200, 200, 200, 429, 429]
            second = await opened(server)
            assert await status(server) == 429
        assert [each["event"] for each in logs if "state" in each["event"]] == ["state-unreachable"]
        await asyncio.to_thread(own_redis.start, empty=True)
        assert figures(await server.get("/l"))[1] == "2"
        # Redis lost the places: who has them says so again.

        async def known() -> bool:
            keys = own_redis.query("KEYS", "streamstack:slots:*")
            return [own_redis.query("HVALS", key) for key in keys] == [[b"2"]]

        await eventually(known)
        assert await status(server) == 429
        client.close()
        second.close()
        await until(server, 200)


async def test_the_function_refuses_as_well_where_readers_may_come_back(tmp_path: Path, state: str) -> None:
    """The 429 tells when to try again, of a resumable stream too; so it does to who comes by its key later."""
    definition = """
path: /f
method: POST
streaming: {resume: true}
functionStack:
  - rateLimit: {key: all, limit: 1/hour}
  - stream: first
"""
    async with project(tmp_path, state, definition) as server:
        assert (await server.ask("POST", "/f")).status == 200
        for headers in ({}, {"Idempotency_Key": "k"}, {"Idempotency_Key": "k"}):
            reply = await server.ask("POST", "/f", b"", **headers)
            assert (reply.status, problem(reply)["code"]) == (429, "rate-limited")
            assert 3500 < int(reply.headers["retry-after"]) <= 3600


async def test_who_reads_the_run_of_a_key_holds_no_place(tmp_path: Path, state: str) -> None:
    """Its run has one; a request that is sent again needs one until it learns which run is its own."""
    text = STREAM.format(limit="{concurrent: 2}").replace("GET", "POST\nstreaming: {resume: true}")

    async def post(key: str) -> Client:
        client = await server.connect()
        client.ask("/s", method="POST", extra=f"Content-Length: 0\r\nIdempotency-Key: {key}\r\n")
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")
        return client

    async with project(tmp_path, state, text, {}) as server:
        for _ in range(4):
            await post("one")
        await post("another")
        assert (await server.ask("POST", "/s")).status == 429
