"""What the service answers beside runs: HEAD, OPTIONS, CORS, health, and the end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streamstack.runtime.run import Run
from streamstack.server.headers import CorsHeaders
from streamstack.server.response_options import ResponseOptions
from tests.server.serving import Emitting, endpoint, serving

OURS = "https://app.example"


async def hello(run: Run, inputs: dict[str, Any]) -> None:
    """Send one chunk."""
    await Emitting(run)("hello")


async def never(run: Run, inputs: dict[str, Any]) -> None:
    """Fail the test that runs it."""
    raise AssertionError("this stack must not run")


async def test_head_does_not_run_the_stack() -> None:
    """HEAD answers with GET's head: the format that Accept chooses, and no body."""
    async with serving(endpoint(never)) as server:
        reply = await server.ask("HEAD", "/s", Accept="text/csv")
        wrong = await server.ask("HEAD", "/s", Accept="image/png")
        missing = await server.ask("HEAD", "/nope")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.headers["vary"] == "Accept"
    assert "transfer-encoding" not in reply.headers
    assert (wrong.status, wrong.body) == (406, b"")
    assert (missing.status, missing.body) == (404, b"")


@pytest.mark.parametrize("wire", [ResponseOptions("sse"), ResponseOptions("value")])
async def test_head_that_is_declared_runs_and_has_no_body(wire: ResponseOptions) -> None:
    """An endpoint with `method: HEAD` runs its stack; whatever it emits is not sent."""

    async def stack(run: Run, inputs: dict[str, Any]) -> Any:
        run.sink.respond(203, {"X-Seen": "yes"}, {})
        if wire.format == "sse":
            await Emitting(run)("hello")
            await asyncio.sleep(0.01)
            await Emitting(run)("again")
        return 1

    async with serving(endpoint(stack, method="HEAD", wire=wire)) as server:
        client = await server.connect()
        client.ask(method="HEAD")
        head = await client.head()
        client.ask("/_health")
        next_head = await client.head()
    assert b" 203 " in head
    assert b"X-Seen: yes" in head
    assert next_head.startswith(b"HTTP/1.1 200 ")


async def test_options() -> None:
    """OPTIONS tells the methods, also where CORS is off."""
    async with serving(endpoint(never), endpoint(never, method="POST")) as server:
        reply = await server.ask("OPTIONS", "/s")
        star = await server.ask("OPTIONS", "*")
        missing = await server.ask("OPTIONS", "/nope")
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert (star.status, missing.status) == (204, 404)


async def test_other_methods() -> None:
    """For a wrong method the response says which the path takes."""
    async with serving(endpoint(never)) as server:
        reply = await server.ask("DELETE", "/s")
        odd = await server.ask("PROPFIND", "/s")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert json.loads(reply.body)["code"] == "method-not-allowed"
    assert odd.status == 405


async def test_unknown_path() -> None:
    """A path without endpoint is a problem document."""
    async with serving(endpoint(never)) as server:
        reply = await server.get("/nope")
    assert (reply.status, json.loads(reply.body)["code"]) == (404, "not-found")


async def test_query_is_no_part_of_the_path() -> None:
    """Routes see the path alone; an absolute address, as proxies send it, has one too."""
    async with serving(endpoint(hello)) as server:
        assert (await server.get("/s?a=/b")).status == 200
        assert (await server.get("http://elsewhere.example/s?x")).status == 200


@pytest.mark.parametrize(("path", "status"), [("/s", 200), ("/nope", 404), ("/fails", 500), ("/v", 200)])
async def test_cors_on_every_answer(path: str, status: int) -> None:
    """A page of an allowed origin may read every answer, errors too."""

    async def fails(run: Run, inputs: dict[str, Any]) -> None:
        raise ValueError

    served = [endpoint(hello), endpoint(fails, "/fails"), endpoint(hello, "/v", wire=ResponseOptions("json"))]
    async with serving(*served, cors=CorsHeaders(frozenset({OURS}))) as server:
        reply = await server.get(path, Origin=OURS)
        other = await server.get(path, Origin="https://evil.example")
        none = await server.get(path)
    assert reply.status == status
    assert reply.headers["access-control-allow-origin"] == OURS
    assert "X-Run-Id" in reply.headers["access-control-expose-headers"]
    for each in (reply, other, none):
        assert "Origin" in each.headers["vary"]
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-origin" not in none.headers


async def test_preflight() -> None:
    """The preflight tells the methods and headers that a page may use."""
    cors = CorsHeaders(frozenset({OURS}), headers=("X-Own",), credentials=True)
    async with serving(endpoint(never, method="POST"), cors=cors) as server:
        reply = await server.ask("OPTIONS", "/s", Origin=OURS, Access_Control_Request_Method="POST")
        other = await server.ask("OPTIONS", "/s", Origin="https://evil.example")
    assert reply.status == 204
    assert reply.headers["access-control-allow-methods"] == "OPTIONS, POST"
    assert reply.headers["access-control-allow-headers"] == (
        "Content-Type, Authorization, Last-Event-ID, Idempotency-Key, X-Own"
    )
    assert reply.headers["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in other.headers


def test_any_origin() -> None:
    """`*` lets every origin in, and what it asks to send; never with credentials."""
    cors = CorsHeaders(frozenset({"*"}), headers=("*",))
    assert b"Access-Control-Allow-Origin: *\r\n" in cors.lines("https://x.example")
    asked = cors.preflight("https://x.example", ["GET"], "x-one, X-Two")
    assert b"Idempotency-Key, x-one, X-Two\r\n" in asked
    assert b"evil" not in cors.preflight("https://x.example", ["GET"], "x\r\nevil: 1")
    assert not CorsHeaders(frozenset({"*"}), credentials=True).allows("https://x.example")
    assert CorsHeaders(frozenset({OURS})).allows(OURS.upper())


async def test_health() -> None:
    """`/_health` and `/_ready` answer without an endpoint."""
    async with serving() as server:
        for path in ("/_health", "/_ready"):
            reply = await server.get(path)
            assert (reply.status, json.loads(reply.body)) == (200, {"status": "ok"})
            assert (await server.ask("HEAD", path)).body == b""
            assert (await server.ask("POST", path)).status == 405


async def test_routes_are_replaced_at_once() -> None:
    """A reload serves the next request; a stream that runs ends on the old definition."""
    go = asyncio.Event()

    async def old(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("old")
        await go.wait()
        await Emitting(run)("still old")

    async with serving(endpoint(old)) as server:
        client = await server.connect()
        client.ask()
        await client.head()
        server.service.replace([endpoint(hello)])
        assert b"hello" in (await server.get()).body
        go.set()
        assert b"old" in await client.chunk()
        assert b"still old" in await client.chunk()


async def test_connection_is_used_again() -> None:
    """After a stream, an error and a value the same connection takes the next request."""

    async def fails(run: Run, inputs: dict[str, Any]) -> None:
        raise ValueError

    served = [endpoint(hello), endpoint(fails, "/fails")]
    async with serving(*served) as server:
        client = await server.connect()
        for _ in range(3):
            client.ask()
            await client.head()
            await client.rest()
            client.ask("/fails")
            head = await client.head()
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await client.reader.readexactly(length)


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent in one go get their answers one after the other."""

    async def echo(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)(run.request()["path"])

    served = [endpoint(echo, "/e/{n}", wire=ResponseOptions("text"))]
    requests = "".join(f"GET /e/{n} HTTP/1.1\r\nHost: x\r\n\r\n" for n in range(40))
    last = "GET /e/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with serving(*served) as server:
        raw = await server.raw((requests + last).encode())
    places = [raw.index(f"\r\n/e/{n}\r\n".encode()) for n in [*range(40), "x"]]
    assert places == sorted(places)


async def test_draining() -> None:
    """While the service ends, running streams finish; nothing new is taken."""
    go = asyncio.Event()

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("a")
        await go.wait()
        await Emitting(run)("b")

    async with serving(endpoint(stack)) as server:
        client = await server.connect()
        client.ask()
        await client.head()
        draining = asyncio.create_task(server.service.drain(5))
        await asyncio.sleep(0)
        refused = await server.get()
        ready = await server.get("/_ready")
        health = await server.get("/_health")
        assert not draining.done()
        go.set()
        await asyncio.wait_for(draining, 1)
        assert b"data: a" in await client.chunk()
        assert b"event: done" in await client.chunk()
    assert (refused.status, json.loads(refused.body)["code"]) == (503, "unavailable")
    assert refused.headers["retry-after"] == "1"
    assert (ready.status, health.status) == (503, 200)


async def test_end_of_patience() -> None:
    """Streams that don't finish in time get the error event; what sent nothing yet, a 503."""

    async def sends(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("a")
        await asyncio.sleep(60)

    async def waits(run: Run, inputs: dict[str, Any]) -> None:
        await asyncio.sleep(60)

    async with serving(endpoint(sends), endpoint(waits, "/w")) as server:
        asked = [asyncio.create_task(server.get(path)) for path in ("/s", "/w")]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(server.service.drain(0.1), 3)
        stream, value = await asyncio.gather(*asked)
    assert b'event: error\ndata: {"code":"producer-lost"' in stream.body
    assert stream.complete
    assert value.status == 503
    assert json.loads(value.body)["code"] == "producer-lost"


async def test_hurry() -> None:
    """A second signal ends the patience."""

    async def waits(run: Run, inputs: dict[str, Any]) -> None:
        await asyncio.sleep(60)

    async with serving(endpoint(waits)) as server:
        asked = asyncio.create_task(server.get())
        await asyncio.sleep(0.1)
        draining = asyncio.create_task(server.service.drain(60))
        await asyncio.sleep(0.05)
        server.service.stop_now()
        await asyncio.wait_for(draining, 3)
        assert (await asked).status == 503


async def test_failure_after_the_answer_hurts_nobody() -> None:
    """What breaks in a run's later work is logged; the service goes on."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        async def breaks() -> None:
            raise KeyError("x")

        run.after(breaks, 1)
        await Emitting(run)("x")

    async with serving(endpoint(stack)) as server:
        for _ in range(2):
            assert (await server.get()).status == 200
            await asyncio.sleep(0.01)
