"""The commit point: true statuses before it, errors in band after it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streamstack.errors import Mark, Place, RunError
from streamstack.runtime.run import Run
from streamstack.server.response_options import Limits, ResponseOptions
from tests.server.serving import AUTO, Emitting, endpoint, serving

ACCEPTS = {
    "sse": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "text": "text/plain",
    "csv": "text/csv",
    "json": "application/json",
}


def failure() -> RunError:
    """Return an error that an author threw, with its place."""
    error = RunError("out-of-ink", "no ink", status=409)
    error.place = Place(Mark("poem.yaml", 3, 5), "write", "functionStack[1]", "x", "x is null")
    return error


async def fails_first(run: Run, inputs: dict[str, Any]) -> None:
    """Fail before anything was emitted."""
    raise failure()


async def fails_later(run: Run, inputs: dict[str, Any]) -> None:
    """Fail after a chunk."""
    await Emitting(run)("one")
    await asyncio.sleep(0.01)
    raise failure()


@pytest.mark.parametrize("format_", ACCEPTS)
async def test_error_before_the_first_chunk_is_a_status(format_: str) -> None:
    """Before the commit point an error is a problem document with its own status."""
    async with serving(endpoint(fails_first)) as server:
        reply = await server.get(Accept=ACCEPTS[format_])
    assert reply.status == 409
    assert reply.headers["content-type"] == "application/problem+json"
    problem = json.loads(reply.body)
    assert problem.pop("run") == reply.headers["x-run-id"]
    assert problem == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "no ink",
        "code": "out-of-ink",
    }


async def test_error_after_the_first_chunk_is_an_event() -> None:
    """Over SSE it is `event: error`, then the end."""
    async with serving(endpoint(fails_later)) as server:
        reply = await server.get()
    first, last, _ = reply.body.split(b"\n\n")
    assert (reply.status, first, reply.complete) == (200, b"data: one\nid: 0", True)
    name, data = last.split(b"\n")
    assert name == b"event: error"
    assert json.loads(data[6:]) == {"code": "out-of-ink", "message": "no ink", "run": reply.headers["x-run-id"]}


async def test_error_after_the_first_line_is_a_line() -> None:
    """In NDJSON it is the last line."""
    async with serving(endpoint(fails_later)) as server:
        reply = await server.get(Accept="application/x-ndjson")
    assert json.loads(reply.body.splitlines()[-1])["error"]["code"] == "out-of-ink"
    assert reply.complete


@pytest.mark.parametrize("format_", ["text", "csv", "bytes"])
async def test_error_without_words_cuts_the_answer_short(format_: str) -> None:
    """Text, CSV and bytes end without the final chunk, after all that was emitted."""
    async with serving(endpoint(fails_later, wire=ResponseOptions(format_))) as server:
        reply = await server.get()
    assert reply.body.endswith((b"one", b"one\r\n"))
    assert not reply.complete


async def test_old_client_sees_the_cut_too() -> None:
    """An HTTP/1.0 answer ends with its connection, so a failed one is reset."""
    async with serving(endpoint(fails_later, wire=ResponseOptions("text"))) as server:
        client = await server.connect()
        client.ask(version="1.0")
        head = await client.head()
        assert b"Connection: close\r\n" in head
        assert b"Transfer-Encoding" not in head
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client.reader.read(), 5)
        client.close()


async def test_old_client_gets_plain_bytes() -> None:
    """An HTTP/1.0 answer that ends well has no chunk sizes."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("a")
        await asyncio.sleep(0.01)
        await Emitting(run)("b")

    async with serving(endpoint(stack, wire=ResponseOptions("text"))) as server:
        raw = await server.raw(b"GET /s HTTP/1.0\r\n\r\n")
    assert raw.endswith(b"\r\n\r\nab")


async def test_internals_stay_inside() -> None:
    """What the engine or an upstream says of itself is for the log, and for `--dev`."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        raise ValueError("/etc/secret of <class 'int'>")

    async with serving(endpoint(stack)) as server:
        reply = await server.get()
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert b"Error" not in json.loads(reply.body)["detail"].encode()


@pytest.mark.parametrize("stack", [fails_first, fails_later])
async def test_author_sees_the_place(stack: Any) -> None:
    """Under `--dev` the answer names file, line, step, expression and types."""
    async with serving(endpoint(stack, wire=ResponseOptions("sse", dev=True)), dev=True) as server:
        reply = await server.get()
    data = reply.body.split(b"data: ")[-1]
    assert json.loads(data)["place"] == {
        "file": "poem.yaml",
        "line": 3,
        "column": 5,
        "step": "write",
        "path": "functionStack[1]",
        "expression": "x",
        "types": "x is null",
    }


async def test_faults_of_inputs_are_listed() -> None:
    """A bad request names every fault; no other code shows its details."""
    faults = [{"in": "query", "name": "n", "message": "is required"}]

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        raise RunError("invalid-input", "1 fault", details=faults)

    async def other(run: Run, inputs: dict[str, Any]) -> None:
        raise RunError("http-status", "upstream", details=[{"secret": 1}])

    async with serving(endpoint(stack), endpoint(other, "/other")) as server:
        reply = await server.get()
        hidden = await server.get("/other")
    assert (reply.status, json.loads(reply.body)["errors"]) == (400, faults)
    assert (hidden.status, "secret" in hidden.body.decode()) == (502, False)


async def test_first_chunk_brings_the_head_in_one_piece() -> None:
    """Head and first chunk are one write; nothing is sent before."""
    go = asyncio.Event()

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await go.wait()
        await Emitting(run)("first")
        await asyncio.sleep(5)

    async with serving(endpoint(stack)) as server:
        client = await server.connect()
        client.ask()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.05)
        go.set()
        data = await asyncio.wait_for(client.reader.read(1 << 16), 5)
        client.close()
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.endswith(b"\r\n\r\n13\r\ndata: first\nid: 0\n\n\r\n")


@pytest.mark.parametrize("format_", ["sse", "ndjson", "text", "json", "value"])
async def test_respond(format_: str) -> None:
    """`respond` sets status, headers and cookies of whatever answers."""

    async def stack(run: Run, inputs: dict[str, Any]) -> Any:
        run.sink.respond(201, {"X-Kind": "new", "Connection": "upgrade"}, {"seen": "yes"})
        if format_ != "value":
            await Emitting(run)("x")

    async with serving(endpoint(stack, wire=ResponseOptions(format_))) as server:
        reply = await server.get()
    assert reply.status == 201
    assert reply.headers["x-kind"] == "new"
    assert reply.headers["set-cookie"] == "seen=yes; Path=/"
    assert reply.headers["connection"] == "close"


async def test_respond_after_the_first_chunk() -> None:
    """Once the status line is sent, `respond` is an error."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("x")
        run.sink.respond(201, {}, {})

    async with serving(endpoint(stack)) as server:
        reply = await server.get()
    assert b"event: error\n" in reply.body


async def test_status_without_body() -> None:
    """204 has no body and no events, and can't have chunks."""

    async def empty(run: Run, inputs: dict[str, Any]) -> None:
        run.sink.respond(204, {}, {})

    async def full(run: Run, inputs: dict[str, Any]) -> None:
        run.sink.respond(204, {}, {})
        await Emitting(run)("x")

    async with serving(endpoint(empty), endpoint(full, "/full")) as server:
        reply = await server.get()
        wrong = await server.get("/full")
    assert (reply.status, reply.body) == (204, b"")
    assert "content-length" not in reply.headers
    assert wrong.status == 500


@pytest.mark.parametrize("format_", ["sse", "value", "json"])
async def test_header_can_not_be_injected(format_: str) -> None:
    """A line break in a header's value is two spaces, never another header."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        run.sink.respond(None, {"X-A": "1\r\nSet-Cookie: evil=1"}, {})
        if format_ != "value":
            await Emitting(run)("x")

    async with serving(endpoint(stack, wire=ResponseOptions(format_))) as server:
        reply = await server.get()
    assert (reply.status, reply.headers["x-a"]) == (200, "1  Set-Cookie: evil=1")
    assert "set-cookie" not in reply.headers
    assert b"evil" not in reply.body


async def test_own_headers_win() -> None:
    """The endpoint's headers replace ours; those with bindings are evaluated for each run."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("x")

    wire = ResponseOptions("sse", negotiated=True, headers=(("Cache-Control", "no-store"), ("Vary", "Cookie")))
    served = endpoint(stack, wire=wire, prepare=lambda run, _: [("X-Run", run.id)])
    async with serving(served, endpoint(stack, "/plain", wire=AUTO)) as server:
        reply = await server.get()
        plain = await server.get("/plain")
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["vary"] == "Accept, Cookie"
    assert reply.headers["x-run"] == reply.headers["x-run-id"]
    assert plain.headers["cache-control"] == "no-cache, no-transform"
    assert plain.headers["x-accel-buffering"] == "no"


async def test_heartbeat_commits() -> None:
    """A heartbeat before the first chunk sends the status; the error that follows is in band."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await asyncio.sleep(0.12)
        raise failure()

    limits = Limits(keep_alive=0.05)
    async with serving(
        endpoint(stack, limits=limits), endpoint(stack, "/t", wire=ResponseOptions("text"), limits=limits)
    ) as server:
        reply = await server.get()
        text = await server.get("/t")
    assert reply.status == 200
    assert reply.body.startswith(b":\n")
    assert b"event: error\n" in reply.body
    assert text.status == 409, "text has no heartbeat, so nothing commits it"


async def test_error_never_looks_like_success() -> None:
    """An error whose status is none for errors answers 500."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        raise RunError("odd", "odd", status=204)

    async with serving(endpoint(stack)) as server:
        reply = await server.get()
    assert (reply.status, json.loads(reply.body)["status"]) == (500, 500)
