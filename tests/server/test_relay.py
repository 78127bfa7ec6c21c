"""An endpoint that relays an upstream: what its reader does reaches the upstream, and nothing piles up between."""

from __future__ import annotations

import asyncio
import resource
import socket

import pytest
from structlog.testing import capture_logs

from streamstack.server.endpoints import EndpointHandler
from tests.server.serving import Server, endpoint, serving
from tests.stacks import plan_of
from tests.upstreams import Upstream, Wire

RELAY = """
- http.stream: {{url: "{url}", decode: {decode}}}
  as: events
- forEach: {{in: << events >>, as: e, do: [{{stream: << e >>}}]}}
"""


def relay(url: str, decode: str = "sse") -> EndpointHandler:
    """Return an endpoint that relays what it reads."""
    return endpoint(plan_of(RELAY.format(url=url, decode=decode)).start)


async def silent(wire: Wire) -> None:
    """Say nothing, not even a head."""
    await wire.left()


async def one(wire: Wire) -> None:
    """Send one event, and stay."""
    await wire.events("0")
    await wire.left()


@pytest.mark.parametrize("first", [True, False])
async def test_reader_who_leaves_takes_the_upstream_along(*, first: bool) -> None:
    """Before the first token and after it, the upstream sees within 50 ms that the client has gone."""
    async with Upstream(one if first else silent) as upstream, serving(relay(upstream.url)) as server:
        client = await server.connect()
        client.ask()
        if first:
            await client.head()
            await client.chunk()
        else:
            while not upstream.wires:  # noqa: ASYNC110  (the upstream knows nothing of this test)
                await asyncio.sleep(0.005)
        left = asyncio.get_running_loop().time()
        client.close()
        assert await asyncio.wait_for(upstream.wires[0].gone, 5) - left < 0.05


async def test_each_event_goes_on_at_once() -> None:
    """A chunk is with the reader while the upstream has not sent the next one."""
    turn = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.events("0")
        async with asyncio.timeout(5):
            await turn.wait()
        await wire.events("1", head=False)
        await wire.left()

    async with Upstream(script) as upstream, serving(relay(upstream.url)) as server:
        client = await server.connect()
        client.ask()
        await client.head()
        assert b'"data":"0"' in await client.chunk()
        turn.set()
        assert b'"data":"1"' in await client.chunk()


async def test_failure_is_told_before_and_after_the_commit_point() -> None:
    """An upstream that refuses is a status; one that breaks off in the middle is an event."""

    async def refusing(wire: Wire) -> None:
        await wire.head("Content-Length: 0", status="503 Busy", chunked=False)

    async def breaking(wire: Wire) -> None:
        await wire.events("0")
        await asyncio.sleep(0.02)
        wire.reset()

    async with Upstream(refusing) as upstream, serving(relay(upstream.url)) as server:
        reply = await server.get()
        assert reply.status == 502
        assert b'"code":"http-status"' in reply.body
    async with Upstream(breaking) as upstream, serving(relay(upstream.url)) as server:
        reply = await server.get()
        assert reply.status == 200
        assert b"event: error" in reply.body
        assert b'"code":"stream-lost"' in reply.body


async def read_slowly(server: Server, seconds: float) -> int:
    """Read 1 KB/s with small buffers; return the bytes that came."""
    loop = asyncio.get_running_loop()
    plug = socket.socket()
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plug.setblocking(False)
    with plug:
        await loop.sock_connect(plug, ("127.0.0.1", server.port))
        await loop.sock_sendall(plug, b"GET /s HTTP/1.1\r\nHost: test\r\nAccept: text/plain\r\n\r\n")
        read = 0
        end = loop.time() + seconds
        while loop.time() < end:
            read += len(await loop.sock_recv(plug, 100))
            await asyncio.sleep(0.1)
    return read


@pytest.mark.parametrize("decode", ["bytes", "lines", "ndjson"])
async def test_memory_is_flat_while_a_reader_takes_a_kilobyte_a_second(decode: str) -> None:
    """An upstream that offers all it can is held back, not stored."""
    sent = 0

    async def pouring(wire: Wire) -> None:
        nonlocal sent
        await wire.head()
        block = (b'"' + b"x" * 1000 + b'"\n') * 60
        while True:
            await wire.chunk(block)
            sent += len(block)

    stack = RELAY.replace("<< e >>", "<< e | base64 >>") if decode == "bytes" else RELAY
    async with Upstream(pouring) as upstream:
        plan = plan_of(stack.format(url=upstream.url, decode=decode))
        async with serving(endpoint(plan.start)) as server:
            reading = asyncio.create_task(read_slowly(server, 3))
            await asyncio.sleep(1)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            read = await reading
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read < 10_000
    assert after - before < 4 * 1024  # kilobytes
    # The buffers of both systems, which grow now and then. An upstream that is not held back sends 100 times as much.
    assert sent < 16 << 20


async def test_retry_after_of_a_busy_upstream_is_handed_on() -> None:
    """The client learns when it is worth asking again."""

    async def busy(wire: Wire) -> None:
        await wire.head("Content-Length: 0", "Retry-After: 7", status="429 Busy", chunked=False)

    async with Upstream(busy) as upstream, serving(relay(upstream.url)) as server:
        reply = await server.get()
    assert (reply.status, reply.headers["retry-after"]) == (502, "7")


READ = "\n- forEach: {in: << x >>, do: [{stream: << item >>}]}"
CALLS = {
    "http.request": "- http.request: {url: '%s?key=secret'}\n  as: x\n- stream: << x.body >>",
    "http.stream": "- http.stream: {url: '%s?key=secret'}\n  as: x" + READ,
    "websocket.stream": "- websocket.stream: {url: '%s?key=secret'}\n  as: x" + READ,
    "llm.chat": "- llm.chat: {provider: openai, model: m1, messages: hi, apiKey: secret, baseUrl: '%s'}\n  as: x"
    + READ,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("ends", ["status", "reset"])
async def test_log_says_which_call_failed(call: str, ends: str) -> None:
    """An error of an upstream is logged with its URL, without keys, its step or stream, and the model asked."""

    async def failing(wire: Wire) -> None:
        if ends == "reset":
            wire.reset()
        else:
            await wire.head("Content-Length: 0", status="503 Busy", chunked=False)

    async with Upstream(failing) as upstream:
        url = upstream.url.replace("http", "ws") if call == "websocket.stream" else upstream.url
        plan = plan_of(CALLS[call] % url)
        async with serving(endpoint(plan.start)) as server:
            with capture_logs() as logs:
                reply = await server.get()
    assert reply.status == 502
    (line,) = [each for each in logs if each["event"] == "run-failed"]
    assert line["url"].startswith(url)
    assert "secret" not in str(line)
    assert line.get("stream", line["step"]) == call
    assert line.get("model") == ("m1" if call == "llm.chat" else None)
