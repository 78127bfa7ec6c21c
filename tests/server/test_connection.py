"""What is not HTTP, too long, or arrives oddly: always a clear 4xx, never a traceback."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from streamstack.runtime.run import Run
from streamstack.server import connection, replies
from streamstack.server.response import FlushQueue
from streamstack.server.response_options import Limits
from tests.server.declared import eventually, small_reader
from tests.server.serving import Emitting, endpoint, parse, serving


async def hello(run: Run, inputs: dict[str, Any]) -> None:
    """Send one chunk."""
    await Emitting(run)(f"got {inputs.get('size', 0)}")


async def read_all(request: web.BaseRequest, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Read the whole body."""
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
    return {"size": size}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /s HTTP/9.9\r\n\r\n", 400),
        (b"GET /s HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n", 400),
        (b"GET /s HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n", 400),
        (b"GET /s HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET /s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n", 400),
        (b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /s HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /s HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /%ff%fe/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        (b"GET /%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"POST /p HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 3\r\n\r\n", 417),
        (b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413),
    ],
)
async def test_malformed_request(request_: bytes, status: int) -> None:
    """What can't be read is answered with a problem document, and the connection closed."""
    served = [endpoint(hello), endpoint(hello, "/p", "POST", read=read_all, max_body=1000), endpoint(hello, "/{x}/x")]
    async with serving(*served) as server:
        client = await server.connect()
        client.writer.write(request_)
        raw = await client.reader.read(65536)
        if b"\r\n\r\n{" not in raw:
            raw += await client.reader.read(65536)
    reply = parse(raw)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert json.loads(reply.body)["status"] == status
    assert "aiohttp" not in raw.decode("latin-1")
    assert "Traceback" not in raw.decode("latin-1")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("GET /s?q=ü HTTP/1.1\r\nHost: x\r\n\r\n".encode(), "must be percent-encoded"),
        ("GET /ü HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"), "must be percent-encoded"),
        (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", "the request line is not valid"),
    ],
)
async def test_reasons_are_named(request_: bytes, reason: str) -> None:
    """What is not valid HTTP gets an error that says what is wrong."""
    async with serving(endpoint(hello)) as server:
        reply = parse(await server.raw(request_))
    assert reply.status == 400
    assert reason in json.loads(reply.body)["detail"]


@pytest.mark.parametrize("cut", [0, 6])
@pytest.mark.parametrize(
    ("line", "status", "detail"),
    [
        (b"GET * HTTP/1.1", 400, "the target `*` is for OPTIONS only"),
        (b"M-SEARCH * HTTP/1.1", 400, "the target `*` is for OPTIONS only"),
        (b"GET f/a HTTP/1.1", 400, "the path of a request begins with `/`"),
        (b"GET ?x=1 HTTP/1.1", 400, "the path of a request begins with `/`"),
        (b"get /s HTTP/1.1", 405, "methods are written in capital letters: GET"),
        (b"FOO /s HTTP/1.1", 405, "the method FOO is not known"),
        (b"QUERY /s HTTP/1.1", 405, "this path takes GET, HEAD, OPTIONS"),
        (b"TRACE /s HTTP/1.1", 405, "this path takes GET, HEAD, OPTIONS"),
        (b"CONNECT x:443 HTTP/1.1", 405, "this server is not a proxy"),
        (b"GET /s HTTP/3.0", 400, "the version of HTTP must be 1.1 or 1.0"),
        (b"GET /s HTTP/1.2", 400, "the version of HTTP must be 1.1 or 1.0"),
        (b"GET /a b HTTP/1.1", 400, "with blanks in the path as %20"),
        (b"/s HTTP/1.1", 400, "the request line is not valid"),
    ],
)
async def test_request_lines_are_refused_by_what_is_wrong(line: bytes, status: int, detail: str, cut: int) -> None:
    """The status and the cause of a request line that can't be answered (RFC 9110), in one piece and in two."""
    async with serving(endpoint(hello)) as server:
        client = await server.connect()
        data = line + b"\r\nHost: x\r\nConnection: close\r\n\r\n"
        client.writer.write(data[:cut])
        raw = b""
        try:
            raw = await asyncio.wait_for(client.reader.read(65536), 0.05)  # some are refused by their beginning
        except TimeoutError:
            client.writer.write(data[cut:])
        reply = parse(raw + await asyncio.wait_for(client.reader.read(), 5))
    assert (reply.status, detail in json.loads(reply.body)["detail"]) == (status, True), reply
    assert ("allow" in reply.headers) is (status == 405)


@pytest.mark.parametrize("at", range(1, 24))
async def test_http_2_is_refused_at_once(at: int) -> None:
    """Wherever its preface is cut, and also behind another request."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    async with serving(endpoint(hello)) as server:
        client = await server.connect()
        client.writer.write(preface[:at])
        await asyncio.sleep(0.01)
        client.writer.write(preface[at:])
        reply = parse(await asyncio.wait_for(client.reader.read(), 5))
        assert (reply.status, "HTTP/2" in json.loads(reply.body)["detail"]) == (400, True)
        raw = await server.raw(b"GET /s HTTP/1.1\r\nHost: x\r\n\r\n" + preface)
    assert [int(each[:3]) for each in raw.split(b"HTTP/1.1 ")[1:]] == [200, 400]


@pytest.mark.parametrize("reset", [False, True])
async def test_reader_who_leaves_behind_many_requests(reset: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """A client that is not read from, since much of it waits, is noticed when it leaves."""
    monkeypatch.setattr(connection, "_CHECK_INTERVAL", 0.05)

    async def wait(run: Run, inputs: dict[str, Any]) -> None:
        await asyncio.sleep(60)

    async with serving(endpoint(wait)) as server:
        client = await server.connect()
        client.ask()
        client.writer.write(b"GET /s HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000)
        await eventually(lambda: server.service.timers)
        await asyncio.sleep(0.2)
        assert server.service.timers
        if reset:
            replies.reset(client.writer.transport)
        else:
            client.writer.close()
        await eventually(lambda: not server.service.timers)


async def test_body_asked_for() -> None:
    """A client that waits for `100 Continue` gets it, once its body is known to be taken."""
    served = endpoint(hello, "/p", "POST", read=read_all)
    async with serving(served) as server:
        client = await server.connect()
        client.ask("/p", "POST", extra="Expect: 100-continue\r\nContent-Length: 5\r\n")
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(b"12345")
        assert b"200 OK" in await client.head()
        assert b"got 5" in await client.chunk()


async def test_body_that_is_too_large_is_not_asked_for() -> None:
    """It is refused at once instead, and the connection closed."""
    served = endpoint(hello, "/p", "POST", read=read_all, max_body=4)
    async with serving(served) as server:
        client = await server.connect()
        client.ask("/p", "POST", extra="Expect: 100-continue\r\nContent-Length: 5\r\n")
        head = await client.head()
    assert b" 413 " in head
    assert b"Connection: close\r\n" in head


async def test_body_that_does_not_come() -> None:
    """A body that stalls is ended by the limit for the first chunk: 408."""
    served = endpoint(hello, "/p", "POST", read=read_all, limits=Limits(first_chunk=0.1))
    async with serving(served) as server:
        client = await server.connect()
        client.ask("/p", "POST", extra="Content-Length: 5\r\n")
        client.writer.write(b"12")
        head = await client.head()
    assert b" 408 " in head


async def test_reader_who_leaves_while_sending() -> None:
    """A client that goes in the middle of its body leaves nothing behind."""
    served = endpoint(hello, "/p", "POST", read=read_all)
    async with serving(served) as server:
        client = await server.connect()
        client.ask("/p", "POST", extra="Content-Length: 5\r\n")
        client.writer.write(b"12")
        await asyncio.sleep(0.05)
        assert len(server.service.timers) == 1
        client.close()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if not server.service.timers:
                break
        assert not server.service.timers


async def test_reader_who_leaves_while_sending_the_next() -> None:
    """A client that goes in the middle of the request behind ends the run before, as any that goes."""

    async def wait(run: Run, inputs: dict[str, Any]) -> None:
        await asyncio.sleep(60)

    async with serving(endpoint(wait), endpoint(hello, "/p", "POST", read=read_all)) as server:
        client = await server.connect()
        client.ask()
        client.writer.write(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n12345")
        await eventually(lambda: server.service.timers)
        await asyncio.sleep(0.05)
        client.writer.close()
        await eventually(lambda: not server.service.timers)


@pytest.mark.parametrize("line", ["HEAD /s", "GET /_streams/x", "GET /s", "POST /finish"])
async def test_reader_who_leaves_before_anything_began(line: str) -> None:
    """A run begins, and is cancelled where it first waits; what outlives its reader is done."""
    done = []

    async def note(run: Run, inputs: dict[str, Any]) -> None:
        done.append(line)

    async with serving(endpoint(note), endpoint(note, "/finish", "POST", outlives=True)) as server:
        await server.connect()
        listening = server.runner.server
        assert isinstance(listening, connection.HttpServer)
        await eventually(lambda: listening.opened)
        (connected,) = listening.opened
        connected.data_received(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connected.connection_lost(None)
        await asyncio.sleep(0.05)
        gc.collect()  # what was never awaited warns when it goes
        assert done == ([line] if line in ("GET /s", "POST /finish") else [])


async def test_requests_behind_a_body_that_came_late() -> None:
    """However many come in one go behind it, all are answered: more than the parser hands out at a time."""
    head, body = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", b"12345"
    async with serving(endpoint(hello), endpoint(hello, "/p", "POST", read=read_all)) as server:
        client = await server.connect()
        for _ in range(3):
            client.writer.write(head)
            await asyncio.sleep(0.02)
            client.writer.write(body + b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
            for n in range(101):
                told = await client.head()
                assert (b" 200 " if n == 0 else b" 404 ") in told
                if n == 0:
                    while await client.chunk():
                        pass
                    await client.reader.readexactly(2)
                else:
                    await client.reader.readuntil(b"}")


async def test_the_rest_of_an_encoded_body_is_let_in_too() -> None:
    """It is read as it comes, whatever it says: who is refused can send on, and read why."""
    told = "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2000000\r\n\r\n"
    async with serving(endpoint(hello)) as server:
        for begun in (b"no gzip at all", gzip.compress(b"all there is")):
            client = await server.connect()
            client.writer.write(told.encode() + begun)
            assert b" 404 " in await client.head()
            await client.reader.readuntil(b"}")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.2)
            client.writer.write(b"x" * (2_000_000 - len(begun)))
            await client.writer.drain()
            assert await asyncio.wait_for(client.reader.read(), 10) == b""


async def test_answers_without_an_endpoint_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks and asks and takes none of them is let go, as who asks nothing is."""
    monkeypatch.setattr(replies, "UNREAD", 0.3)
    async with serving(endpoint(hello)) as server:
        client = await small_reader(server, "/nowhere")
        client.writer.write(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000)
        listening = server.runner.server
        assert listening is not None
        await eventually(lambda: listening.connections)
        await eventually(lambda: not listening.connections)


async def test_garbage_never_is_our_fault() -> None:
    """Whatever bytes arrive, there is no 5xx and the service lives on."""
    seeds = [
        b"GET /s HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream;q=0.5\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345",
        b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nOrigin: a\r\n\r\n",
        b"GET /%C3%A4/x?a=%ff HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nUpgrade: h2c\r\n\r\n",
    ]
    dice = random.Random(7)  # noqa: S311  (repeatable)
    served = [endpoint(hello), endpoint(hello, "/p", "POST", read=read_all, max_body=1000), endpoint(hello, "/{x}/x")]
    async with serving(*served) as server:

        async def throw(data: bytes) -> bytes:
            client = await server.connect()
            client.writer.write(data)
            client.writer.write_eof()
            try:
                return await asyncio.wait_for(client.reader.read(), 5)
            except ConnectionError:
                return b""
            finally:
                client.close()

        for _ in range(20):
            thrown = []
            for _ in range(20):
                data = bytearray(dice.choice(seeds))
                for _ in range(dice.randint(1, 4)):
                    at = dice.randrange(len(data))
                    if dice.random() < 0.5:
                        data[at] = dice.randrange(256)
                    elif dice.random() < 0.5:
                        del data[at : at + dice.randint(1, 6)]
                    else:
                        data[at:at] = dice.choice([b"\r\n", b"\0", b"\xff", b" ", b":", b"x" * 50])
                    if not data:
                        data = bytearray(b"\n")
                thrown.append(bytes(data))
            for sent, raw in zip(thrown, await asyncio.gather(*map(throw, thrown)), strict=True):
                assert not raw.startswith(b"HTTP/1.1 5"), sent
                assert b"Traceback" not in raw, sent
        assert (await server.get()).status == 200


async def test_gathered_chunks_leave_in_one_turn() -> None:
    """All that gathered in a turn is flushed in the next, in that order; a failure delays no other."""
    flushed: list[int] = []

    class Gathering:
        def __init__(self, number: int) -> None:
            self.number = number

        def flush(self) -> None:
            flushed.append(self.number)
            if self.number == 1:
                raise OSError("broken")

    turn = FlushQueue()
    for number in range(3):
        turn.flush(Gathering(number))
    assert flushed == []
    await asyncio.sleep(0)
    assert flushed == [0, 1, 2]
    turn.flush(Gathering(3))
    await asyncio.sleep(0)
    assert flushed == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "bad",
    [
        b"GET /s HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"hello\r\n\r\n",
        b"\0\0\0",
        b"GET /s HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20_000,
    ],
)
@pytest.mark.parametrize(
    "good",
    [
        b"GET /s HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\nPOST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\nA: b\r\n\r\n",
    ],
)
async def test_bad_request_behind_good_ones(good: bytes, bad: bytes) -> None:
    """In one packet: the good ones are answered, and then the bad one."""
    async with serving(endpoint(hello), endpoint(hello, "/p", "POST", read=read_all)) as server:
        raw = await server.raw(good * 3 + bad)
    statuses = [int(each.split(b" ")[0]) for each in raw.split(b"HTTP/1.1 ")[1:]]
    assert statuses[:3] == [200] * 3
    assert len(statuses) == 4
    assert statuses[3] in (400, 431)


EXTENDED = b'5\r\nHello\r\n1 ; a = b\r\n \r\n00a;x="y;z"\r\n0123456789\r\n0;last\r\nTrailer: yes\r\n\r\nGET /next'
PLAIN = b"5\r\nHello\r\n1\r\n \r\n00a\r\n0123456789\r\n0\r\n\r\n"


def test_body_in_chunks_is_followed_wherever_it_is_cut() -> None:
    """Its extensions and trailers are left out, its end is found, and what is behind it is left alone."""
    for first in range(len(EXTENDED)):
        for second in range(first, len(EXTENDED), 7):
            body = connection.ChunkedBody()
            passed = b""
            pieces = (EXTENDED[:first], EXTENDED[first:second], EXTENDED[second:])
            rest = b""
            for piece in pieces:
                if body.complete:
                    rest += piece
                    continue
                part, end = body.feed(b"??" + piece, 2)
                passed += part
                rest += piece[end - 2 :]
            assert passed == PLAIN, (first, second)
            assert rest == b"GET /next"


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"5\r\nHello!\r\n",
        b"5\nHello\r\n",
        b"5 \r\n",
        b"\r\n",
        b"-1\r\n",
        b"f" * 17 + b"\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n",
        b"0\r\nA: \0\r\n\r\n",
        b"0\r\nA b\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 3000,
    ],
)
def test_no_chunks(data: bytes) -> None:
    """An invalid chunked body is refused, wherever it is cut."""
    for at in range(min(len(data), 50)):
        body = connection.ChunkedBody()
        with pytest.raises(connection.MalformedError):
            _feed(body, data[:at], data[at:])


def _feed(body: connection.ChunkedBody, *pieces: bytes) -> None:
    for piece in pieces:
        body.feed(piece)


async def test_chunk_extensions_are_read_over() -> None:
    """Also with blanks before the semicolon, which aiohttp's parser alone refuses."""
    async with serving(endpoint(hello, "/p", "POST", read=read_all)) as server:
        head = b"POST /p HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw = await server.raw(head + EXTENDED)
    assert b"got 16" in raw


async def test_malformed_trailer_that_comes_in_pieces() -> None:
    """The body ends there: aiohttp would read no more of a connection on which it finds many faults, and wait."""
    async with serving(endpoint(hello, "/p", "POST", read=read_all)) as server:
        client = await server.connect()
        client.ask("/p", "POST", extra="Transfer-Encoding: chunked\r\n")
        for piece in (b"2\r\n{}\r\n0\r\nA: \0", *[b"x"] * 50, b"\r\n\r\n"):
            client.writer.write(piece)
            await asyncio.sleep(0.002)
        async with asyncio.timeout(5):
            assert await client.head()


async def test_body_that_turns_out_malformed_behind_its_response() -> None:
    """The connection is closed: no other request can follow."""
    async with serving(endpoint(hello, "/p", "POST")) as server:
        client = await server.connect()
        client.ask("/p", "POST", extra="Transfer-Encoding: chunked\r\n")
        assert b"200 OK" in await client.head()
        client.writer.write(b"zz\r\n")
        async with asyncio.timeout(5):
            assert b"got 0" in await client.reader.read()
