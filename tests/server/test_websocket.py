"""WebSockets over real sockets, with the client of `websockets`: messages, duplex stacks, the handshake, the end."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from streamstack.server import websocket
from streamstack.server.headers import CorsHeaders
from tests.server import processes
from tests.server.authenticating import claims, project, signed
from tests.server.declared import declared, eventually, small_reader
from tests.server.serving import Server

ECHO = """
method: GET
path: /s
inputParameters:
  name: {type: text, default: you}
  messages: {type: stream, decode: json}
functionStack:
  - after: {do: [{test.note: << run.outcome >>}]}
  - stream: {content: "hello << input.name >>", event: greeting, metadata: {n: 0}}
  - forEach:
      in: << input.messages >>
      as: message
      do:
        - stream: << message >>
        - if: {condition: << message == "bye" >>, then: [{done: {metadata: {said: bye}}}, return: 1]}
"""
COUNT = """
method: GET
path: /s
functionStack:
  - forEach: {in: << range(3) >>, do: [{stream: << item >>}]}
"""


def url(server: Server, path: str = "/s") -> str:
    """Return the address of a WebSocket."""
    return f"ws://127.0.0.1:{server.port}{path}"


async def received(client: ClientConnection) -> tuple[list[Any], int | None]:
    """Read to the end; return the messages and the close code."""
    found = []
    try:
        while True:
            found.append(json.loads(await asyncio.wait_for(client.recv(), 10)))
    except ConnectionClosed as closed:
        return found, closed.rcvd.code if closed.rcvd else None


async def test_chunks_are_messages() -> None:
    """Each chunk is a JSON object; the clean end is 1000."""
    async with declared(COUNT) as (server, _), connect(url(server)) as client:
        assert await received(client) == ([{"content": 0}, {"content": 1}, {"content": 2}], 1000)
        assert client.response is not None
        assert client.response.headers["X-Run-Id"]
        assert "Content-Type" not in client.response.headers


async def test_duplex() -> None:
    """What the client sends is the input; `done` is a message, and both sides talk meanwhile."""
    async with declared(ECHO) as (server, noted):
        async with connect(url(server, "/s?name=Ada")) as client:
            assert json.loads(await client.recv()) == {
                "event": "greeting",
                "content": "hello Ada",
                "metadata": {"n": 0},
            }
            for value in ({"a": [1, "ü"]}, 2, False):
                await client.send(json.dumps(value))
                assert json.loads(await client.recv()) == {"content": value}
            await client.send('"bye"')
            messages, code = await received(client)
            assert messages[0] == {"content": "bye"}
            assert messages[1]["done"]["said"] == "bye"
            assert code == 1000
        await eventually(lambda: noted == ["completed"])


@pytest.mark.parametrize(
    ("stack", "sent", "message", "code"),
    [
        ("- throw: {code: teapot, message: no, status: 418}", [], {"code": "teapot", "message": "no"}, 1011),
        ("- forEach: {in: << input.m >>, do: [{stream: << item >>}]}", ["{"], {"code": "invalid-chunk"}, 1007),
        (
            "- forEach: {in: << input.m >>, do: [{stream: << item >>}]}",
            [str(n) for n in range(9)],
            {"code": "rate-limited"},
            1008,
        ),
        ("- forEach: {in: << input.m >>, do: [{stream: << item >>}]}", [f'"{"x" * 2000}"'], None, 1009),
        ("- wait: 20s", [str(n) for n in range(9)], {"code": "rate-limited"}, 1008),
    ],
)
async def test_failures_close_with_a_code(stack: str, sent: list[str], message: Any, code: int) -> None:
    """After the first chunk, an error is a message with its code, and the close code tells whose fault it is."""
    text = f"""
method: GET
path: /s
streaming: {{webSocket: {{maxMessageSize: 1KB, messageRate: 5/minute}}}}
inputParameters:
  m: {{type: stream, decode: json}}
functionStack:
  - stream: first
  {stack}
  - stream: last
"""
    async with declared(text) as (server, _), connect(url(server)) as client:
        for each in sent:
            await client.send(each)
        messages, closed = await received(client)
        assert closed == code
        assert messages[0] == {"content": "first"}
        if message is not None:
            assert messages[-1]["error"].items() >= message.items()


async def test_errors_before_the_first_chunk_are_statuses() -> None:
    """As long as the handshake is not answered, an error has its HTTP status."""
    text = """
method: GET
path: /s
inputParameters:
  n: {type: integer, required: true}
functionStack:
  - precondition: {that: << input.n > 1 >>, code: too-small, status: 409}
  - stream: << input.n >>
"""
    async with declared(text) as (server, _):
        for query, status in (("", 400), ("?n=x", 400), ("?n=1", 409)):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url(server, f"/s{query}"))
            assert refused.value.response.status_code == status
            assert b'"code"' in refused.value.response.body


HANDSHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        (("Version: 13", "Version: 8"), 400),
        (("Connection: Upgrade", "Connection: keep-alive"), 426),
        (("Upgrade: websocket", "Upgrade: websocket\r\nContent-Length: 2"), 400),
        (("", ""), 101),
    ],
)
async def test_handshakes(change: tuple[str, str], status: int) -> None:
    """A malformed handshake is refused over HTTP."""
    async with declared(COUNT) as (server, _):
        client = await server.connect()
        client.ask(extra=HANDSHAKE.replace(*change) if change[0] else HANDSHAKE)
        assert f" {status} ".encode() in await client.head()
        client.close()


async def test_fixed_format() -> None:
    """`format: websocket` answers nothing but WebSockets: 426 says so. Other formats ignore the upgrade."""
    fixed = COUNT.replace("functionStack", "streaming: {format: websocket}\nfunctionStack")
    async with declared(fixed) as (server, _):
        reply = await server.get()
        assert (reply.status, reply.headers["upgrade"]) == (426, "websocket")
        async with connect(url(server)) as client:
            assert (await received(client))[1] == 1000
    async with declared(COUNT.replace("functionStack", "streaming: {format: ndjson}\nfunctionStack")) as (server, _):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(server))
        assert refused.value.response.status_code == 200
    async with declared(COUNT) as (server, _):
        assert (await server.get()).headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("origins", "headers", "status"),
    [
        ((), {}, 101),
        ((), {"Origin": "http://test"}, 101),
        ((), {"Origin": "http://evil.example"}, 403),
        ((), {"Origin": "null"}, 403),
        ((), {"Origin": "http://test", "Sec-Fetch-Site": "cross-site"}, 403),
        ((), {"Origin": "https://inside.example", "Sec-Fetch-Site": "same-origin"}, 101),
        (("https://app.example",), {"Origin": "https://app.example", "Cookie": "a=b"}, 101),
        (("https://app.example",), {"Origin": "https://other.example"}, 403),
        (("*",), {"Origin": "https://other.example"}, 101),
        (("*",), {"Origin": "https://other.example", "Cookie": "a=b"}, 403),
    ],
)
async def test_origins(origins: tuple[str, ...], headers: dict[str, str], status: int) -> None:
    """A page of another site opens no WebSocket unless `server.cors` names it (cross-site WebSocket hijacking)."""
    async with declared(COUNT, cors=CorsHeaders(frozenset(origins))) as (server, _):
        client = await server.connect()
        client.ask(extra=HANDSHAKE + "".join(f"{name}: {value}\r\n" for name, value in headers.items()))
        assert f" {status} ".encode() in await client.head()
        client.close()


async def test_subprotocols_and_compression() -> None:
    """The first common subprotocol is chosen; `compress` is permessage-deflate, both ways."""
    text = ECHO.replace(
        "functionStack", "streaming: {compress: true, webSocket: {subprotocols: [v2, v1]}}\nfunctionStack"
    )
    async with declared(text) as (server, _):
        async with connect(url(server), subprotocols=[Subprotocol("v1"), Subprotocol("v2")]) as client:
            assert client.subprotocol == "v2"
            assert client.response is not None
            assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
            await client.recv()
            for size in (10, 100_000):
                await client.send(json.dumps("x" * size))
                assert json.loads(await client.recv()) == {"content": "x" * size}
        async with connect(url(server), subprotocols=[Subprotocol("other")], compression=None) as client:
            assert client.subprotocol is None
            assert json.loads(await client.recv())["content"] == "hello you"


# ------------------------------------------------------------------------------------- hostile clients


def frame(
    opcode: int, payload: bytes = b"", *, mask: bool = True, first: int = 0x80, length: int | None = None
) -> bytes:
    """Return a frame; ``first`` has FIN and the reserved bits, ``length`` is what it says of itself."""
    size = len(payload) if length is None else length
    bit = 0x80 if mask else 0
    head = bytes([first | opcode])
    if size < 126:
        head += bytes([size | bit])
    elif size < 65536:
        head += bytes([126 | bit]) + size.to_bytes(2)
    else:
        head += bytes([127 | bit]) + size.to_bytes(8)
    return head + (bytes(4) if mask else b"") + payload


HOSTILE = {
    "unmasked": (frame(1, b'"a"', mask=False), 1002),
    "bad opcode": (frame(3), 1002),
    "bad control opcode": (frame(11), 1002),
    "reserved bits": (frame(1, b"1", first=0xC0), 1002),
    "reserved bit 2": (frame(1, b"1", first=0xA0), 1002),
    "large control frame": (frame(9, b"x" * 126), 1002),
    "fragmented control frame": (frame(9, b"x", first=0), 1002),
    "continuation of nothing": (frame(0, b"x"), 1002),
    "message within a message": (frame(1, b"1", first=0) + frame(1, b"1"), 1002),
    "too large": (frame(1, length=5000), 1009),
    "too large for any": (frame(1, length=(1 << 63) - 1), 1009),
    "too large in parts": (frame(1, b"1" * 600, first=0) + frame(0, b"1" * 600, first=0), 1009),
    "fragments without end": (frame(1, first=0) + frame(0, first=0) * 10_001, 1008),
    "invalid UTF-8": (frame(1, b"\xff\xfe"), 1007),
    "invalid UTF-8 in parts": (frame(1, b"\xc3", first=0) + frame(0, b"("), 1007),
    "close code of none": (frame(8, (999).to_bytes(2)), 1002),
    "close with half a code": (frame(8, b"\x03"), 1002),
    "close reason of invalid UTF-8": (frame(8, (1000).to_bytes(2) + b"\xff"), 1007),
}


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Take apart what the server sent."""
    found, at = [], 0
    while at + 1 < len(data):
        size, start = data[at + 1], at + 2
        if size > 125:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : start])
        if start + size > len(data):
            break
        found.append((data[at] & 15, data[start : start + size]))
        at = start + size
    return found


@pytest.mark.parametrize("case", HOSTILE)
async def test_hostile_frames(case: str) -> None:
    """Whatever breaks the protocol ends the connection with the code that RFC 6455 has for it, and the run."""
    sent, code = HOSTILE[case]
    text = ECHO.replace("functionStack", "streaming: {webSocket: {maxMessageSize: 1KB}}\nfunctionStack")
    async with declared(text) as (server, noted):
        client = await server.connect()
        client.ask(extra=HANDSHAKE)
        await client.head()
        client.writer.write(sent)
        data = b""
        while not (found := frames(data)) or found[-1][0] != 8:
            data += await asyncio.wait_for(client.reader.readexactly(1), 5)
        assert int.from_bytes(found[-1][1][:2]) == code
        await eventually(lambda: noted)


# ------------------------------------------------------------------------------------- the end

NOTED = """
method: GET
path: /s
{streaming}
inputParameters:
  messages: {{type: stream, decode: text}}
functionStack:
  - after: {{do: [{{test.note: << run.outcome >>}}]}}
  - stream: first
  {stack}
"""
COLLECTS = "- collect: {in: << input.messages >>}\n    as: all\n  - test.note: << all >>\n  - wait: 30s"
IGNORES = "- wait: 30s\n  - test.note: late"
STOPS_READING = "- forEach: {in: << input.messages >>, as: m, do: [{test.note: << m >>}, break]}\n  - wait: 30s"


@pytest.mark.parametrize(
    ("stack", "close", "noted"),
    [
        (COLLECTS, 1000, [["a", "b"], "cancelled"]),
        (COLLECTS, 1001, ["cancelled"]),
        (COLLECTS, None, ["cancelled"]),
        (IGNORES, 1001, ["cancelled"]),
        (STOPS_READING, 1000, ["a", "cancelled"]),
    ],
)
async def test_clients_that_close(stack: str, close: int | None, noted: list[Any]) -> None:
    """A client that closes with 1000 has sent all, and the run reads it; any other end cancels the run at once."""
    async with declared(NOTED.format(streaming="", stack=stack)) as (server, seen):
        client = await connect(url(server))
        await client.recv()
        await client.send("a")
        await client.send("b")
        if close is None:
            client.transport.abort()
        else:
            await client.close(close)
            assert client.close_code == close
        await eventually(lambda: seen == noted)


async def test_on_disconnect_finish() -> None:
    """With `onDisconnect: finish` the run goes on, and ends well, when its client has closed or was lost."""
    text = NOTED.format(streaming="streaming: {onDisconnect: finish}", stack="- wait: 300ms\n  - stream: last")
    async with declared(text) as (server, noted):
        for lost in (True, False):
            client = await connect(url(server))
            await client.recv()
            if lost:
                client.transport.abort()
            else:
                await client.close(1001)
            await eventually(lambda: noted == ["completed"])
            noted.clear()


async def test_resume() -> None:
    """A client that was lost reads on by `/_streams/{id}?after=`, or by the endpoint, after the last it has."""
    text = """
method: GET
path: /s
streaming: {resume: {keep: 5s}}
functionStack:
  - forEach: {in: << range(6) >>, do: [{stream: << item >>}, {wait: 30ms}]}
  - done
"""
    async with declared(text) as (server, _):
        client = await connect(url(server))
        assert client.response is not None
        stream = client.response.headers["X-Stream-Id"]
        assert json.loads(await client.recv()) == {"id": f"{stream}/0", "content": 0}
        client.transport.abort()
        for address in (f"/_streams/{stream}?after=0", f"/s?lastEventId={stream}/0"):
            async with connect(url(server, address)) as again:
                messages, code = await received(again)
            assert [each.get("content") for each in messages[:-1]] == [1, 2, 3, 4, 5]
            assert ("done" in messages[-1], code) == (True, 1000)
        async with connect(url(server, f"/_streams/{stream}?after=6")) as again:
            assert await received(again) == ([], 1000)
        assert (await server.get(f"/_streams/{stream}")).status == 426
        for path, status in ((f"/_streams/{'x' * 22}", 404), (f"/_streams/{stream}?after=x", 400)):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url(server, path))
            assert refused.value.response.status_code == status


async def test_pings_and_dead_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent connection gets pings; a client that answers none of them is given up."""
    monkeypatch.setattr(websocket, "PONG_TIMEOUT", 0.2)
    async with declared(NOTED.format(streaming="streaming: {keepAlive: 100ms}", stack="- wait: 30s")) as (
        server,
        noted,
    ):
        alive = await connect(url(server))
        client = await server.connect()
        client.ask(extra=HANDSHAKE)
        await client.head()
        data = await asyncio.wait_for(client.reader.read(), 5)
        assert (9, b"") in frames(data)
        await eventually(lambda: noted == ["cancelled"])
        assert json.loads(await alive.recv()) == {"content": "first"}
        await alive.close(1001)


async def test_no_close_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not answer the close frame is disconnected after a while."""
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.2)
    async with declared(COUNT) as (server, _):
        client = await server.connect()
        client.ask(extra=HANDSHAKE)
        await client.head()
        assert frames(await asyncio.wait_for(client.reader.read(), 5))[-1] == (8, (1000).to_bytes(2))


async def test_shutdown() -> None:
    """At shutdown running streams get the error and the code 1001."""
    async with declared(NOTED.format(streaming="", stack="- wait: 30s")) as (server, noted):
        async with connect(url(server)) as client:
            await client.recv()
            draining = asyncio.create_task(server.service.drain(0.1))
            messages, code = await received(client)
            assert (messages[-1]["error"]["code"], code) == ("producer-lost", 1001)
            await draining
        assert noted == ["failed"]


async def test_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dropOldest` leaves chunks out and says so, `block` makes the run wait, and pings are ignored."""
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.2)
    text = """
method: GET
path: /s
streaming: {slowClient: dropOldest, buffer: 64KB}
functionStack:
  - repeat: {times: 3000, do: [{stream: << "x" * 2000 >>}]}
  - test.note: << stream.count >>
"""
    async with declared(text) as (server, noted):
        client = await small_reader(server, "/s", HANDSHAKE)
        await eventually(lambda: noted == [3000])
        await client.head()
        data = await asyncio.wait_for(client.reader.read(), 10)
        found = [json.loads(payload) for code, payload in frames(data) if code == 1]
        assert sum(each["gap"]["dropped"] for each in found if "gap" in each) + len(found) > 3000 > len(found)
    block = text.replace("slowClient: dropOldest", "slowClient: block")
    async with declared(block) as (server, noted):
        client = await small_reader(server, "/s", HANDSHAKE)
        for _ in range(200):
            client.writer.write(frame(9, b"x" * 125) * 50)
        await asyncio.sleep(0.3)
        assert noted == []
        await client.head()
        data = await asyncio.wait_for(client.reader.read(), 10)
        assert sum(code == 1 for code, _ in frames(data)) == 3000
        assert len(data) < 8_000_000


async def test_backpressure() -> None:
    """A run that does not read holds its client back."""
    collect = "- collect: {in: << input.messages >>, into: text, limit: 100000}\n    as: all"
    stack = f"- wait: 400ms\n  {collect}\n  - test.note: << all | length >>"
    text = NOTED.format(streaming="", stack=stack)
    async with declared(text) as (server, noted):
        async with connect(url(server)) as client:
            await client.recv()
            sending = asyncio.create_task(send_many(client, 200, 100_000))
            await asyncio.sleep(0.2)
            assert not sending.done()
            await asyncio.wait_for(sending, 10)
        await eventually(lambda: noted[:1] == [20_000_000])


async def send_many(client: ClientConnection, count: int, size: int) -> None:
    """Send messages of some bytes."""
    for _ in range(count):
        await client.send("x" * size)


async def test_request_log_and_metrics(tmp_path: Path) -> None:
    """Each WebSocket has a line in the request log; open ones are counted, whatever worker has them."""
    settings = "server: {metrics: {open: true}}"
    echo = ECHO.replace("test.note", "log")
    async with processes.serving(tmp_path, "--workers", "2", streamstack=settings, echo=echo) as server:
        address = f"ws://127.0.0.1:{server.port}/s"
        clients = [await connect(address) for _ in range(4)]
        for client in clients:
            await client.recv()

        async def is_counted() -> bool:
            text = (await server.ask("GET", "/_metrics")).body.decode()
            return re.search(r"^streamstack_open_streams\{[^}]*GET /s[^}]*\} 4$", text, re.MULTILINE) is not None

        await processes.settled(is_counted)
        await clients[0].send('"bye"')
        assert (await received(clients[0]))[1] == 1000
        await processes.until(lambda: any('"endpoint":"GET /s"' in line for line in server.lines))
        line = next(json.loads(line) for line in server.lines if '"endpoint":"GET /s"' in line)
        assert (line["outcome"], line["status"], line["chunks"]) == ("completed", 101, 2)
        stopping = asyncio.create_task(server.stop())
        for client in clients[1:]:
            await client.close()
        assert await stopping == 0


CHAT = """
method: GET
path: /s
authentication: jwt
streaming: {resume: true, webSocket: {subprotocols: [chat]}}
functionStack:
  - stream: << auth.sub >>
  - wait: 30s
"""


async def test_authentication(tmp_path: Path) -> None:
    """Browsers send a token in the query or as a subprotocol; a stream belongs to the caller that began it."""
    places = "[header, {query: token}, {subprotocol: bearer}]"
    settings = f"authentication: {{jwt: {{type: jwt, secret: << env.JWT_SECRET >>, from: {places}}}}}"
    ann, bob = (signed(claims(sub=name)) for name in ("ann", "bob"))
    async with project(tmp_path, settings, CHAT) as server:
        for address, offered, chosen in (
            (f"/s?token={ann}", [], None),
            ("/s", ["bearer", ann], "bearer"),
            ("/s", ["bearer", ann, "chat"], "chat"),
        ):
            subprotocols = [Subprotocol(each) for each in offered] or None
            async with connect(url(server, address), subprotocols=subprotocols) as client:
                assert json.loads(await client.recv())["content"] == "ann"
                assert client.subprotocol == chosen
                assert client.response is not None
                stream = client.response.headers["X-Stream-Id"]
        for address, offered, status in (
            ("/s", [], 401),
            ("/s", ["bearer"], 401),
            ("/s", ["bearer", f"{ann}x"], 401),
            (f"/_streams/{stream}", ["bearer", bob], 404),
        ):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url(server, address), subprotocols=[Subprotocol(each) for each in offered] or None)
            assert refused.value.response.status_code == status
        again = [Subprotocol("bearer"), Subprotocol(ann)]
        async with connect(url(server, f"/_streams/{stream}"), subprotocols=again) as client:
            assert (json.loads(await client.recv())["content"], client.subprotocol) == ("ann", "bearer")
            await client.close(1001)
