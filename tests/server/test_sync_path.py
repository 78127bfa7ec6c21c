"""Requests whose run never waits: answered where they arrive, in order, and with the same care as all others."""

from __future__ import annotations

import asyncio
import gc
import json
from contextvars import ContextVar
from typing import Any

import pytest
import structlog
from aiohttp import StreamReader

from streamstack.server import connection
from streamstack.server.response_options import ResponseOptions
from tests.server.declared import declared, eventually, small_reader
from tests.server.serving import Client, endpoint, parse, serving

QUOTE = """
method: POST
path: /quote
responseType: json
inputParameters:
  quantity: {type: integer, required: true, maximum: 1000}
functionStack:
  - set: {total: << input.quantity * 12.5 >>}
  - if:
      condition: << input.quantity > 100 >>
      then:
        - set: {total: << total * 0.9 >>}
response: {total: << total >>}
"""
WAITING = """
method: POST
path: /waiting
responseType: json
inputParameters:
  quantity: {type: integer, required: true}
functionStack:
  - wait: 1ms
response: << input.quantity >>
"""


def post(path: str, body: Any, extra: str = "") -> bytes:
    """Return a request with JSON."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{extra}"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


async def answer(client: Client) -> tuple[int, Any]:
    """Read one answer of JSON: its status and its value."""
    head = await client.head()
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = await asyncio.wait_for(client.reader.readexactly(size), 10)
    return int(head.split(b" ")[1]), json.loads(body)


async def test_no_task_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has the one task that aiohttp makes for it, whether or not its stack waits."""
    loop = asyncio.get_running_loop()
    async with declared(f"{QUOTE}---{WAITING}") as (server, _):
        client = await server.connect()
        tasks: list[Any] = []
        create = loop.create_task

        def counted(work: Any, **named: Any) -> Any:
            tasks.append(work.__qualname__)
            return create(work, **named)

        monkeypatch.setattr(loop, "create_task", counted)
        for path in ("/quote", "/waiting"):
            tasks.clear()
            for _ in range(20):
                client.writer.write(post(path, {"quantity": 2}))
                assert (await answer(client))[0] == 200
            ours = [each for each in tasks if not each.startswith("StreamReader.")]
            assert ours == ["RequestHandler._handle_request"] * 20


@pytest.mark.parametrize(
    ("steps", "at_once"),
    [
        ("- set: {a: 1}", True),
        ("- try:\n    do:\n      - set: {a: 1}\n    finally:\n      - return: 1", True),
        ("- return: << 1 + 1 >>", True),
        ("- wait: 1ms", False),
        ("- repeat: {times: 3, do: [{set: {a: 1}}]}", False),
        ("- set: {a: 1}\n  timeout: 1s", False),
        ("- set: {a: 1}\n  retry: {times: 2}", False),
        ("- if:\n    condition: << input.deep >>\n    then:\n      - wait: 1ms", False),
    ],
)
async def test_what_waits_is_known_ahead(steps: str, at_once: bool) -> None:  # noqa: FBT001
    """A stack in which anything may be awaited, at any depth, is none of those."""
    text = "method: GET\npath: /s\nresponseType: json\ninputParameters:\n  deep: {type: boolean}\nfunctionStack:\n"
    indented = "\n".join(f"  {line}" for line in steps.split("\n"))
    async with declared(text + indented + "\n") as (server, _):
        found = server.service.routes.find("GET", "/s")
        assert found is not None
        assert (found[0].at_once is not None) is at_once
        assert (await server.get("/s")).status in (200, 204)


@pytest.mark.parametrize(
    ("more", "at_once"), [("", True), (", sensitive: true", False), ("}\n  file: {type: file", True)]
)
async def test_inputs_that_need_a_task_are_known_ahead(more: str, at_once: bool) -> None:  # noqa: FBT001
    """What is secret is hidden in the run's own task; a form is read by one where it comes."""
    text = QUOTE.replace("maximum: 1000}", f"maximum: 1000{more}}}")
    async with declared(text) as (server, _):
        found = server.service.routes.find("POST", "/quote")
        assert found is not None
        assert (found[0].at_once is not None) is at_once
        client = await server.connect()
        client.writer.write(post("/quote", {"quantity": 2}))
        assert await answer(client) == (200, {"total": 25.0})


async def test_requests_in_one_go_are_answered_in_order() -> None:
    """Those that wait and those that don't, mixed, as they came."""
    paths = [("/quote", "/waiting")[n % 3 == 1] for n in range(60)]
    async with declared(f"{QUOTE}---{WAITING}") as (server, _):
        client = await server.connect()
        client.writer.write(b"".join(post(path, {"quantity": n}) for n, path in enumerate(paths, 1)))
        for n, path in enumerate(paths, 1):
            expected = n if path == "/waiting" else {"total": n * 12.5}
            assert await answer(client) == (200, expected)


async def test_many_requests_in_one_go_leave_others_their_turn() -> None:
    """Between two answers of one connection the event loop turns."""
    async with declared(QUOTE) as (server, _):
        client = await server.connect()
        client.writer.write(post("/quote", {"quantity": 1}) * 300)
        turns = answered = 0
        pending = asyncio.ensure_future(_answers(client, 300))
        while not pending.done():
            await asyncio.sleep(0)
            turns += 1
        answered = await pending
        assert answered == 300
        assert turns >= 300


async def _answers(client: Client, count: int) -> int:
    for _ in range(count):
        assert (await answer(client))[0] == 200
    return count


async def test_who_reads_nothing_is_answered_no_more() -> None:
    """Requests of a reader who does not read wait for room; read, they are all answered."""
    text = """
    method: GET
    path: /large
    responseType: json
    inputParameters:
      n: {type: integer}
    functionStack:
      - test.note: << input.n >>
    response: << "x" * 100000 >>
    """
    async with declared(text) as (server, noted):
        client = await small_reader(server, "/large?n=0")
        for n in range(1, 100):
            client.ask(f"/large?n={n}")
        await eventually(lambda: noted)
        await asyncio.sleep(0.1)
        assert len(noted) < 60
        for _ in range(100):
            assert (await answer(client))[0] == 200
        assert noted == list(range(100))


async def test_a_failure_is_told_with_its_place() -> None:
    """As of every run: a problem for the caller, the line of the definition in the log, and the connection goes on."""
    text = """
    method: GET
    path: /half
    responseType: json
    inputParameters:
      of: {type: json}
    functionStack:
      - set: {half: << input.of / 2 >>}
    response: << half >>
    """
    async with declared(text) as (server, _):
        client = await server.connect()
        with structlog.testing.capture_logs() as logged:
            client.ask("/half?of=text")
            status, told = await answer(client)
        assert (status, told["code"]) == (500, "template")
        (line,) = [each for each in logged if each.get("code") == "template"]
        assert "test.yaml:8:" in str(line)
        client.ask("/half?of=4")
        assert await answer(client) == (200, 2.0)


async def test_faults_of_inputs_are_named() -> None:
    """What does not fit is refused with 400, and the connection goes on."""
    async with declared(QUOTE) as (server, _):
        client = await server.connect()
        client.writer.write(post("/quote", {"quantity": "many", "other": 1}))
        status, told = await answer(client)
        assert status == 400
        assert {each["name"] for each in told["errors"]} == {"quantity", "other"}
        client.writer.write(post("/quote", {"quantity": 200}))
        assert await answer(client) == (200, {"total": 2250.0})


@pytest.mark.parametrize("cut", [1, 60, 130, -1])
async def test_a_body_may_come_in_pieces(cut: int) -> None:
    """Wherever it is cut, the answer is the same."""
    whole = post("/quote", {"quantity": 2})
    async with declared(QUOTE) as (server, _):
        client = await server.connect()
        for _ in range(3):
            client.writer.write(whole[:cut])
            await asyncio.sleep(0.02)
            client.writer.write(whole[cut:])
            assert await answer(client) == (200, {"total": 25.0})


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/json;charset=UTF-8\r\n", 200),
        ("Content-Type: application/vnd.api+json\r\n", 200),
        ("Content-Type: application/json\r\nContent-Encoding: zstd\r\n", 415),
        ("Content-Type: application/json\r\nExpect: 200-ok\r\n", 417),
    ],
)
async def test_what_is_said_of_a_body_counts(extra: str, status: int) -> None:
    """Its type, its coding and what is expected of the server are looked at as for every endpoint."""
    body = b'{"quantity": 2}'
    head = f"POST /quote HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{extra}"
    async with declared(QUOTE) as (server, _):
        raw = await server.raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert parse(raw).status == status


async def test_who_sends_no_more_is_answered() -> None:
    """A client that closes its side behind a request has its answer all the same."""
    async with declared(QUOTE) as (server, _):
        client = await server.connect()
        client.writer.write(post("/quote", {"quantity": 2}))
        client.writer.write_eof()
        assert await answer(client) == (200, {"total": 25.0})


async def test_another_protocol_is_declined() -> None:
    """A request that asks for WebSocket is answered as any other, and so is what came behind it."""
    async with declared(QUOTE) as (server, _):
        client = await server.connect()
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        client.writer.write(post("/quote", {"quantity": 1}, upgrade))
        client.writer.write(post("/quote", {"quantity": 2}) * 2)
        totals = [(await answer(client))[1]["total"] for _ in range(3)]
        assert totals == [12.5, 25.0, 25.0]


async def test_what_comes_after_is_done() -> None:
    """`after` runs behind the answer, though the run had no task."""
    text = """
    method: GET
    path: /later
    responseType: json
    functionStack:
      - after:
          do:
            - wait: 10ms
            - test.note: << run.outcome >>
      - return: now
    """
    async with declared(text) as (server, noted):
        reply = await server.get("/later")
        assert (reply.status, reply.body) == (200, b'"now"')
        await eventually(lambda: noted == ["completed"])


async def test_idle_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a request is closed after a while, one with requests is not."""
    monkeypatch.setattr(connection, "KEEP_ALIVE", 0.3)
    async with declared(QUOTE) as (server, _):
        client = await server.connect()
        for _ in range(6):
            client.writer.write(post("/quote", {"quantity": 2}))
            assert (await answer(client))[0] == 200
            await asyncio.sleep(0.1)
        assert await asyncio.wait_for(client.reader.read(), 10) == b""


async def test_the_rest_of_a_body_is_let_in_before_the_end() -> None:
    """Who is refused in the middle of sending can send on and read the answer; then the connection ends."""
    async with declared(QUOTE) as (server, _):
        client = await server.connect()
        client.writer.write(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n")
        client.writer.write(b"x" * 1000)
        assert (await answer(client))[0] == 404
        client.writer.write(b"x" * 299_000)
        assert await asyncio.wait_for(client.reader.read(), 10) == b""


async def test_what_a_run_sets_in_its_context_is_its_own() -> None:
    """The next request sees nothing of it, on the same connection or on another."""
    seen: ContextVar[int] = ContextVar("seen", default=0)

    async def waiting(run: Any, inputs: Any) -> Any:
        raise AssertionError("a stack in which nothing waits was run as one that does")

    def take(request: Any, parameters: Any) -> dict[str, Any]:
        return {}

    def count(run: Any, inputs: Any) -> int:
        seen.set(seen.get() + 1)
        return seen.get()

    served = endpoint(waiting, wire=ResponseOptions("value"), at_once=count, take=take)
    async with serving(served) as server:
        for _ in range(2):
            client = await server.connect()
            for _ in range(2):
                client.ask()
                assert await answer(client) == (200, 1)


async def test_an_idle_connection_keeps_no_body() -> None:
    """What a request brought is not held until the next one comes."""

    def bodies() -> list[StreamReader]:
        return [each for each in gc.get_objects() if isinstance(each, StreamReader) and each.total_bytes > 40_000]

    async with declared(QUOTE) as (server, _):
        before = bodies()  # of connections that other tests broke off: held here, so that none of them can be mistaken
        client = await server.connect()
        client.writer.write(post("/quote", {"quantity": 2, "x": "y" * 40_000}))
        assert (await answer(client))[0] == 400
        kept = [each for each in bodies() if not any(each is other for other in before)]
        assert [each for each in kept if not each.at_eof()] == []
