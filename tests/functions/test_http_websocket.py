from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from streamstack.errors import RunError
from streamstack.functions.http import websocket_stream
from streamstack.language.settings import HttpSettings
from streamstack.runtime.run import Run
from tests.collector import Collector
from tests.functions.calling import context_of, run_calling, take
from tests.upstreams import Upstream, Wire, answer

Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


@dataclass
class Peer:
    """A WebSocket server whose connections each go as a talk says, the last one again and again."""

    talks: list[Talk]
    port: int = 0
    heads: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/feed"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        talk = self.talks[min(len(self.heads), len(self.talks) - 1)]
        self.heads.append({name.lower(): value for name, value in request.headers.items()})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await talk(socket)
        return socket


@asynccontextmanager
async def peer_of(*talks: Talk) -> AsyncIterator[Peer]:
    """Serve some talks."""
    peer = Peer(list(talks))
    runner = web.ServerRunner(web.Server(peer.handle, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    peer.port = site.port
    try:
        yield peer
    finally:
        await runner.cleanup()


async def three(socket: web.WebSocketResponse) -> None:
    """Send three messages and close."""
    await socket.send_str('{"n": 1}')
    await socket.send_str("two")
    await socket.send_bytes(b"\xff3")


async def cut(socket: web.WebSocketResponse) -> None:
    """Send a message and break off without a goodbye."""
    await socket.send_str("1")
    assert socket._req is not None  # noqa: SLF001  (there is no other way to be rude)
    transport = socket._req.transport  # noqa: SLF001
    assert transport is not None
    transport.abort()


async def open_(socket: web.WebSocketResponse) -> None:
    """Send a message and stay."""
    await socket.send_str("1")
    await socket.receive()


def closes(code: int) -> Talk:
    """Return a talk that ends with a code."""

    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_str("1")
        await socket.close(code=code)

    return talk


async def test_messages_come_as_they_are_sent() -> None:
    """From YAML to the wire: what is sent first, and each message as an item."""
    heard: list[Any] = []

    async def talk(socket: web.WebSocketResponse) -> None:
        heard.extend([(await socket.receive()).data for _ in range(3)])
        await three(socket)

    async with peer_of(talk) as peer:
        ran = await run_calling(
            """
            - websocket.stream:
                url: << input.url >>
                headers: {X-Key: k}
                send: [{subscribe: [a, b]}, hello, 5]
              as: messages
            - forEach: {in: << messages >>, as: m, do: [{stream: << m.n | default(m) >>}]}
            - return: << [messages.count, messages.skipped, messages.finished] >>
            """,
            {"url": peer.url},
        )
    assert ran.error is None
    assert ran.contents == [1, "two", b"\xff3"]
    assert ran.result == [3, 0, True]
    assert heard == ['{"subscribe":["a","b"]}', "hello", "5"]
    assert peer.heads[0]["x-key"] == "k"


@pytest.mark.parametrize(
    ("arguments", "items", "skipped", "code"),
    [
        ({"decode": "text", "on_invalid": "skip"}, ['{"n": 1}', "two"], 1, None),
        ({"decode": "bytes"}, [b'{"n": 1}', b"two", b"\xff3"], 0, None),
        ({"decode": "json"}, [{"n": 1}], 0, "invalid-chunk"),
        ({"decode": "json", "on_invalid": "skip"}, [{"n": 1}], 2, None),
        ({"max_event_size": 5}, [], 0, "invalid-chunk"),
    ],
)
async def test_messages_are_decoded(
    arguments: dict[str, Any], items: list[Any], skipped: int, code: str | None
) -> None:
    """As JSON, text or bytes; what is none of it as the author says."""
    async with peer_of(three) as peer:
        taken = await take("websocket.stream", url=peer.url, **arguments)
    assert (taken.items, taken.stream["skipped"], taken.code) == (items, skipped, code)


async def test_invalid_messages_can_be_given() -> None:
    """With their number and text."""
    async with peer_of(three) as peer:
        taken = await take("websocket.stream", url=peer.url, decode="json", on_invalid="give")
    assert [item["invalid"]["number"] for item in taken.items[1:]] == [2, 3]
    assert taken.items[1]["invalid"]["text"] == "two"


@pytest.mark.parametrize(
    ("talk", "told"),
    [
        (cut, "127.0.0.1 broke off"),
        (closes(1011), "127.0.0.1 closed the connection with code 1011"),
        (closes(1001), "127.0.0.1 closed the connection with code 1001"),
    ],
)
async def test_end_that_is_none_is_a_loss(talk: Talk, told: str) -> None:
    """Only code 1000, or none, ends a stream well."""
    async with peer_of(talk) as peer:
        taken = await take("websocket.stream", url=peer.url)
        assert taken.error is not None
        assert (taken.items, taken.code, taken.error.message) == ([1], "stream-lost", told)
    async with peer_of(closes(1000)) as peer:
        taken = await take("websocket.stream", url=peer.url)
        assert (taken.items, taken.error, taken.stream.finished) == ([1], None, True)


async def test_lost_connection_is_made_again() -> None:
    """What is to be sent is sent again; a good end is the end."""
    heard: list[str] = []

    async def talk(socket: web.WebSocketResponse) -> None:
        heard.append((await socket.receive()).data)
        await (cut if len(heard) < 3 else closes(1000))(socket)

    async with peer_of(talk) as peer:
        taken = await take("websocket.stream", url=peer.url, send="hi", reconnect={"times": 2, "delay": 0.01})
    assert (taken.error, taken.items) == (None, [1, 1, 1])
    assert heard == ["hi", "hi", "hi"]


@pytest.mark.parametrize(("status", "code"), [("401 Unauthorized", "http-status"), ("200 OK", "http-status")])
async def test_server_that_speaks_no_websocket_is_told(status: str, code: str) -> None:
    """An answer in place of a handshake is an error by its status."""
    async with Upstream(answer("no", status=status)) as upstream:
        taken = await take("websocket.stream", url=upstream.url.replace("http", "ws", 1))
    assert taken.error is not None
    assert taken.code == code
    assert taken.error.message.startswith(f"127.0.0.1 answered {status[:3]}")


async def test_faults_of_the_connection_are_told() -> None:
    """Refused, silent, forbidden, no URL."""
    async with Upstream(answer("")) as upstream:
        url = upstream.url.replace("http", "ws", 1)
    assert (await take("websocket.stream", url=url)).code == "http-connection"

    async def silent(wire: Wire) -> None:
        await wire.left()

    async with Upstream(silent) as upstream:
        url = upstream.url.replace("http", "ws", 1)
        taken = await take("websocket.stream", url=url, first_chunk_timeout=0.1)
        assert taken.code == "timeout"
    async with peer_of(open_) as peer:
        taken = await take("websocket.stream", url=peer.url, idle_timeout=0.1)
        assert (taken.items, taken.code) == ([1], "timeout")
        taken = await take("websocket.stream", HttpSettings(deny_private_networks=True), url=peer.url)
        assert taken.code == "http-connection"
    with pytest.raises(RunError, match="must be a URL such as wss:"):
        await take("websocket.stream", url="http://api.example.org")


async def test_redirect_is_judged_like_any_request() -> None:
    """A handshake that is sent elsewhere gets nowhere that is not allowed."""
    async with Upstream(answer("")) as other:
        moved = answer("", f"Location: http://localhost:{other.port}/", status="302 F")
        async with Upstream(moved) as upstream:
            taken = await take(
                "websocket.stream", HttpSettings(allow_hosts=("127.0.0.1",)), url=upstream.url.replace("http", "ws", 1)
            )
    assert taken.error is not None
    assert "localhost are not allowed" in taken.error.message
    assert other.asked == []


@pytest.mark.parametrize("first", [True, False])
async def test_leaving_closes_the_connection_at_once(first: bool) -> None:  # noqa: FBT001
    """Whether the loop is left or the run is cancelled: the server sees it within 50 ms."""
    gone: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def talk(socket: web.WebSocketResponse) -> None:
        if first:
            await socket.send_str("1")
        try:
            message = await socket.receive()
            assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)
        finally:
            gone.set_result(perf_counter())

    async with peer_of(talk) as peer, context_of() as context:
        assert websocket_stream.run is not None
        stream = websocket_stream.run(Run(Collector(), context), url=peer.url).consume()
        task = asyncio.create_task(stream.batch())
        await asyncio.sleep(0.1)
        left = perf_counter()
        if first:
            assert await task == [1]
            await stream.close()
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert perf_counter() - left < 0.05
        assert await asyncio.wait_for(gone, 5) - left < 0.05
