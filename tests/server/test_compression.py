"""Streams that are compressed: for whom, that nothing is held back, and that a cut one is seen to be cut."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import aiohttp
import pytest

from streamstack.server.response_options import accepts_gzip
from tests.server.declared import declared, small_reader
from tests.server.serving import Reply, parse

TEXT = """
method: GET
path: /s
streaming: {compress: true%s}
functionStack:
  - repeat: {times: 5, do: [{stream: {content: '<< "tick " ~ loop.index >>', delay: 30ms}}]}
"""

SLOW = """
method: GET
path: /s
streaming: {compress: true, format: %s}
functionStack:
  - stream: one
  - wait: 150ms
  - stream: two
  - throw: {code: out-of-tea, message: None left}
"""


def unpack(reply: Reply) -> tuple[bytes, bool]:
    """Return what a body decompresses to, and whether it came to its end."""
    work = zlib.decompressobj(31)
    return work.decompress(reply.body) + work.flush(), work.eof


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("x-gzip", True),
        ("*", True),
        ("br, deflate", False),
        ("br;q=1.0, gzip;q=0.2", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.000", False),
        ("*;q=0", False),
        ("GZIP", True),
        ("gzip;q=much", True),
        ("identity", False),
    ],
)
def test_for_whom(accepted: str | None, taken: bool) -> None:  # noqa: FBT001
    """Accept-Encoding decides; what it refuses is not sent."""
    assert accepts_gzip(accepted) is taken


async def test_not_where_the_author_has_encoded() -> None:
    """Content that says it is encoded already is sent as it is."""
    text = (TEXT % "").replace("path: /s", "path: /s\nheaders: {content-encoding: br}")
    async with declared(text) as (server, _):
        reply = await server.get(Accept_Encoding="gzip")
    assert reply.headers["content-encoding"] == "br"
    assert reply.body.count(b"tick") == 5


async def test_each_chunk_leaves_at_once() -> None:
    """What has arrived can be read, chunk by chunk, while the run goes on."""
    async with declared(TEXT % "") as (server, _):
        client = await server.connect()
        client.ask(extra="Accept-Encoding: gzip\r\nConnection: close\r\n")
        head = await client.head()
        assert b"Content-Encoding: gzip\r\n" in head
        assert b"Vary: Accept, Accept-Encoding\r\n" in head
        assert b"Cache-Control: no-cache, no-transform\r\n" in head
        work = zlib.decompressobj(31)
        for n in range(1, 6):
            got = work.decompress(await client.chunk())
            assert f"data: tick {n}\nid: {n - 1}\n\n".encode() in got
        while piece := await client.chunk():
            got += work.decompress(piece)
        assert b"event: done\n" in got
        assert work.eof


async def test_a_real_client_reads_it() -> None:
    """The client of aiohttp undoes it by itself, and the chunks come one by one."""
    async with declared(TEXT % "") as (server, _), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}/s"
        async with session.get(url, headers={"Accept": "text/plain"}) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            pieces = [piece async for piece in response.content.iter_any()]
    assert pieces == [b"tick %d" % n for n in range(1, 6)]


@pytest.mark.parametrize("extra", ["", "Accept-Encoding: br\r\n", "Accept-Encoding: gzip;q=0\r\n"])
async def test_who_takes_none_gets_none(extra: str) -> None:
    """The answer is as ever, and says that another reader's may differ."""
    async with declared(TEXT % "") as (server, _):
        raw = await server.raw(f"GET /s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{extra}\r\n".encode())
    reply = parse(raw)
    assert "content-encoding" not in reply.headers
    assert reply.headers["vary"] == "Accept, Accept-Encoding"
    assert reply.body.count(b"tick") == 5


async def test_off_by_default() -> None:
    """Without the key nothing is compressed, and nothing varies."""
    text = TEXT.replace("compress: true%s", "")
    async with declared(text) as (server, _):
        reply = await server.get(Accept_Encoding="gzip")
    assert "content-encoding" not in reply.headers
    assert reply.headers["vary"] == "Accept"


async def test_head_and_http_1_0_are_never_compressed() -> None:
    """The one has no body; the end of the other's is the end of the connection."""
    async with declared(TEXT % "") as (server, _):
        ask = b"%b /s HTTP/1.%d\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n"
        head = parse(await server.raw(ask % (b"HEAD", 1)))
        assert "content-encoding" not in head.headers
        assert head.headers["vary"] == "Accept, Accept-Encoding"
        assert head.body == b""
        old = parse(await server.raw(ask % (b"GET", 0)))
        assert "content-encoding" not in old.headers
        assert old.body.count(b"tick") == 5


async def test_an_endpoint_of_head_has_no_body() -> None:
    """A run for HEAD has nothing to compress."""
    async with declared(TEXT.replace("GET", "HEAD") % "") as (server, _):
        reply = await server.ask("HEAD", "/s", Accept_Encoding="gzip")
    assert "content-encoding" not in reply.headers
    assert reply.body == b""


async def test_no_body_no_compression() -> None:
    """An answer without a body has no encoding either."""
    text = """
    method: GET
    path: /s
    streaming: {compress: true}
    functionStack:
      - respond: {status: 204}
      - when: << "x" in input >>
        stream: never
    """
    async with declared(text.replace("functionStack", "inputParameters: {x: {}}\n    functionStack")) as (server, _):
        reply = await server.get(Accept_Encoding="gzip")
    assert reply.status == 204
    assert "content-encoding" not in reply.headers


async def test_an_error_before_the_first_chunk_is_plain() -> None:
    """A problem document is not compressed."""
    text = """
    method: GET
    path: /s
    streaming: {compress: true}
    inputParameters: {n: {type: integer, required: true}}
    functionStack: [{stream: '<< input.n >>'}]
    """
    async with declared(text) as (server, _):
        reply = await server.get(Accept_Encoding="gzip")
    assert reply.status == 400
    assert "content-encoding" not in reply.headers
    assert b'"code":"invalid-input"' in reply.body


async def test_heartbeats_and_the_error_are_in_it() -> None:
    """What is sent in silence and at the end is compressed like the rest; a told error ends in good order."""
    async with declared(SLOW % "sse, keepAlive: 40ms") as (server, _):
        reply = await server.get(Accept_Encoding="gzip")
    body, ended = unpack(reply)
    assert ended
    assert reply.complete
    assert body.count(b":\n") >= 2
    assert body.replace(b":\n", b"").startswith(b"data: one\nid: 0\n\ndata: two\nid: 1\n\n")
    assert b'event: error\ndata: {"code":"out-of-tea"' in body
    assert len(reply.chunks) >= 5


async def test_a_cut_answer_is_cut_in_both_ways() -> None:
    """Neither the compression nor the body comes to its end, and all that was sent can be read."""
    async with declared(SLOW % "text") as (server, _):
        reply = await server.get(Accept_Encoding="gzip")
        assert unpack(reply) == (b"onetwo", False)
        assert not reply.complete
        url = f"http://127.0.0.1:{server.port}/s"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


async def test_keep_alive_goes_on() -> None:
    """The next request on the connection is answered, each answer complete by itself."""
    async with declared(TEXT % ", format: ndjson, keepAlive: 0") as (server, _):
        client = await server.connect()
        for _ in range(3):
            client.ask(extra="Accept-Encoding: gzip\r\n")
            await client.head()
            data = await client.rest()
            assert gzip.decompress(data).count(b"\n") == 5


async def test_chunks_are_dropped_before_they_are_compressed() -> None:
    """A reader of a compressed stream that drops receives its gaps in a stream that stays whole."""
    text = """
    method: GET
    path: /s
    streaming: {compress: true, slowClient: dropOldest, buffer: 16KB, format: ndjson}
    functionStack:
      - repeat: {times: 300, do: [{stream: '<< random() ~ ("x" | hash("sha512")) ~ loop.index >>'}]}
      - repeat:
          times: 3000
          do: [{stream: '<< ([uuid(), uuid(), uuid(), uuid(), uuid(), uuid(), uuid(), uuid()] | join) >>'}]
      - test.note: over
      - done
    """
    async with declared(text) as (server, noted):
        client = await small_reader(server, "/s", "Accept-Encoding: gzip\r\nConnection: close\r\n")
        for _ in range(1000):
            if noted:
                break
            await asyncio.sleep(0.01)
        reply = parse(await asyncio.wait_for(client.reader.read(), 20))
    body, ended = unpack(reply)
    assert ended
    assert b'{"gap":{"dropped":' in body
    assert b'"chunks":3300,' in body.splitlines()[-1]
