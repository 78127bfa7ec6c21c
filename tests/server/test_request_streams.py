"""Request bodies as streams: read as they arrive, answered meanwhile, over real sockets and by real clients."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from textwrap import dedent
from typing import Any

import aiohttp
import pytest

from streamstack.functions import REGISTRY
from streamstack.language.definition import Endpoint, Project
from streamstack.language.loading.documents import load
from streamstack.language.settings import Server as ServerSettings
from streamstack.language.settings import Settings, Streaming
from streamstack.language.source import read
from streamstack.runtime.plan import compile_project
from streamstack.runtime.run import Run
from streamstack.server.endpoints import make_endpoints
from tests.server.serving import Client, Server, serving

TOTALS = """
method: POST
path: /s
streaming: {format: ndjson}
inputParameters:
  events: {type: stream, decode: ndjson, required: true}
  factor: {type: integer, default: 1}
functionStack:
  - set: {total: 0}
  - forEach:
      in: << input.events >>
      as: event
      do:
        - set: {total: << total + event.v * input.factor >>}
        - stream: << total >>
"""

NOTED = """
  - after: {do: [{test.note: << run.outcome >>}]}
"""


@asynccontextmanager
async def served(
    text: str, *, max_body: int = 1_000_000, change: Callable[[Any], Any] = lambda each: each
) -> AsyncIterator[Server]:
    """Serve an endpoint written in YAML."""
    documents, findings = read(dedent(text), "test.yaml")
    assert findings == []
    definition, findings = load(documents[0], REGISTRY, Streaming())
    assert findings == []
    assert isinstance(definition, Endpoint)
    plans = compile_project(Project((definition,), {}))
    settings = Settings(server=ServerSettings(max_body_size=max_body))
    async with serving(*map(change, make_endpoints(plans, settings, dev=False))) as server:
        yield server


def piece(data: bytes) -> bytes:
    """Return one chunk of HTTP."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def value(number: int) -> bytes:
    """Return a record."""
    return b'{"v": %d}\n' % number


async def begin(server: Server, path: str = "/s", extra: str = "Transfer-Encoding: chunked\r\n") -> Client:
    """Send the head of a request."""
    client = await server.connect()
    client.ask(path, "POST", extra=extra)
    return client


async def line(client: Client) -> Any:
    """Read one chunk of HTTP that is one line of NDJSON."""
    return json.loads(await client.chunk())


async def rest(client: Client) -> bytes:
    """Read until the server closes."""
    return await asyncio.wait_for(client.reader.read(), 10)


async def answer_of(client: Client) -> bytes:
    """Read an answer of known length: the server waits a while for what the client was about to send."""
    head = await client.head()
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
    return head + await asyncio.wait_for(client.reader.readexactly(length), 10)


def problem(raw: bytes) -> tuple[int, dict[str, Any]]:
    """Return status and document of an error."""
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


async def test_is_answered_while_it_arrives() -> None:
    """Each record is answered before the next is sent, on one connection that then takes another request."""
    async with served(TOTALS) as server:
        client = await begin(server, "/s?factor=10")
        for number, total in ((1, 10), (2, 30), (3, 60)):
            client.writer.write(piece(value(number)))
            if number == 1:
                assert b" 200 OK" in await client.head()
            assert await line(client) == total
        client.writer.write(b"0\r\n\r\n")
        assert await client.chunk() == b""
        client.ask("/s", "POST", extra="Content-Length: 9\r\n")
        client.writer.write(value(7))
        assert b" 200 OK" in await client.head()
        assert await line(client) == 7


async def test_is_read_however_it_is_cut() -> None:
    """A body that is cut at any byte is the same records, chunked or not."""
    body = b"".join(map(value, range(1, 4)))
    async with served(TOTALS) as server:
        for at in range(len(body) + 1):
            parts = [each for each in (body[:at], body[at:]) if each]
            client = await begin(server)
            for part in parts:
                client.writer.write(piece(part))
                await asyncio.sleep(0)
            client.writer.write(b"0\r\n\r\n")
            await client.head()
            answer = b""
            while data := await client.chunk():
                answer += data
            assert answer == b"1\n3\n6\n", at
            client.close()


@pytest.mark.parametrize(
    ("declared", "media", "body", "items"),
    [
        ("", "application/x-ndjson", b"1\n2\n", [1, 2]),
        ("", "text/csv", b"a,b\n1,2\n", [{"a": "1", "b": "2"}]),
        ("", "text/csv; charset=windows-1252", b"a\n\xe9\n", [{"a": "é"}]),
        ("", "application/json", b"[1, 2]", [1, 2]),
        (", decode: lines", "application/x-www-form-urlencoded", b"x\r\ny", ["x", "y"]),
        (", decode: csv", "", b"a\n1\n", [{"a": "1"}]),
        ("", "text/event-stream", b"event: e\ndata: 1\n\n", [{"event": "e", "id": None, "data": "1"}]),
        (", decode: ndjson, onInvalid: skip", "", b"1\nx\n2\n", [1, 2]),
        (
            ", decode: csv, onInvalid: give",
            "",
            b"a\n\n1,2\n",
            [{"invalid": {"number": 1, "line": 3, "text": "1,2", "message": "has 2 fields, and there are 1 columns"}}],
        ),
        ("", "application/x-ndjson", b"", []),
    ],
)
async def test_is_decoded(declared: str, media: str, body: bytes, items: list[Any]) -> None:
    """As `decode` says, else as the Content-Type does; without a body there are no items."""
    text = f"""
    method: POST
    path: /s
    responseType: json
    inputParameters: {{items: {{type: stream{declared}}}}}
    functionStack:
      - collect: << input.items >>
        as: all
    response: << all >>
    """
    async with served(text) as server:
        reply = await server.ask("POST", "/s", body, Content_Type=media)
        assert reply.status == 200, reply.body
        assert json.loads(reply.body) == items


async def test_bad_record_is_the_clients_fault() -> None:
    """Before the first chunk it is a 400, after it an error event; both tell the record."""
    async with served(TOTALS) as server:
        reply = await server.ask("POST", "/s", b"x\n")
        assert reply.status == 400
        assert json.loads(reply.body)["code"] == "invalid-chunk"
        client = await begin(server)
        client.writer.write(piece(value(1)) + piece(b"x\n"))
        await client.head()
        assert await line(client) == 1
        assert "chunk 2" in (await line(client))["error"]["message"]


async def test_body_that_breaks_off_is_an_error() -> None:
    """What had come is given, then the error `stream-lost`; the connection is closed."""
    async with served(TOTALS) as server:
        client = await begin(server)
        client.writer.write(piece(value(1)) + b"fff\r\n" + value(2) + b'{"v":')
        await client.head()
        assert await line(client) == 1
        client.writer.write_eof()
        raw = await rest(client)
        assert b"\n3\n" in b"\n" + raw
        assert b'"stream-lost"' in raw


async def test_broken_framing_is_an_error() -> None:
    """Chunks that are none end the body at once, as one that breaks off; before an answer it is a 400."""
    async with served(TOTALS) as server:
        client = await begin(server)
        client.writer.write(piece(value(1)))
        await client.head()
        assert await line(client) == 1
        client.writer.write(b"zz\r\n")
        assert b'"stream-lost"' in await rest(client)
        client = await begin(server)
        await asyncio.sleep(0.05)
        client.writer.write(b"zz\r\n")
        status, document = problem(await answer_of(client))
        assert (status, document["code"]) == (400, "stream-lost")


async def test_lost_body_can_be_caught() -> None:
    """`catch` sees it, and the answer can still be sent to a client that has closed its side only."""
    text = """
    method: POST
    path: /s
    responseType: json
    inputParameters: {lines: {type: stream, decode: lines}}
    functionStack:
      - set: {count: 0}
      - try:
          do:
            - forEach: {in: << input.lines >>, do: [{set: {count: << count + 1 >>}}]}
          catch:
            on: [stream-lost]
            do: [{return: '<< {"whole": false, "lines": count} >>'}]
      - return: '<< {"whole": true, "lines": count} >>'
    """
    async with served(text) as server:
        client = await begin(server, extra="Content-Length: 100\r\n")
        client.writer.write(b"one\ntwo\nthr")
        client.writer.write_eof()
        head, _, body = (await rest(client)).partition(b"\r\n\r\n")
        assert b"200 OK" in head
        assert json.loads(body) == {"whole": False, "lines": 2}


async def test_reader_who_leaves_ends_the_run() -> None:
    """A client that is gone while its body arrives ends the run, whatever the run waits for."""
    ended = asyncio.Event()

    def watched(each: Any) -> Any:
        async def start(run: Run, inputs: dict[str, Any]) -> Any:
            try:
                return await each.start(run, inputs)
            finally:
                ended.set()

        return replace(each, start=start)

    async with served(TOTALS, change=watched) as server:
        client = await begin(server)
        client.writer.write(piece(value(1)))
        await client.head()
        client.close()
        await asyncio.wait_for(ended.wait(), 10)


async def test_continue_is_sent_when_the_inputs_are_good() -> None:
    """Who expects it hears it before it sends a byte; where another input is bad, the refusal comes instead."""
    async with served(TOTALS) as server:
        extra = "Content-Length: 9\r\nExpect: 100-continue\r\n"
        client = await begin(server, extra=extra)
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(value(4))
        assert b" 200 OK" in await client.head()
        assert await line(client) == 4
        client = await begin(server, "/s?factor=x", extra)
        assert problem(await answer_of(client))[0] == 400


async def test_sizes_are_limited() -> None:
    """`server.maxBodySize` holds unless `maxSize` says otherwise: for a known length, and for what comes."""
    async with served(TOTALS, max_body=20) as server:
        client = await begin(server, extra="Content-Length: 21\r\nExpect: 100-continue\r\n")
        assert problem(await answer_of(client))[0] == 413
        client = await begin(server)
        client.writer.write(piece(b" " * 21))
        assert problem(await answer_of(client))[0] == 413
    more = TOTALS.replace("required: true", "required: true, maxSize: 1KB")
    async with served(more, max_body=20) as server:
        reply = await server.ask("POST", "/s", value(1) * 50)
        assert (reply.status, reply.complete) == (200, True)
        client = await begin(server, extra="Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n")
        client.writer.write(piece(gzip.compress(b" " * 2000)) + b"0\r\n\r\n")
        assert problem(await answer_of(client))[0] == 413


async def test_a_body_that_is_not_compressed_as_it_says_is_told() -> None:
    """It did not break off: the client learns what is wrong with it."""
    async with served(TOTALS) as server:
        reply = await server.ask("POST", "/s", b"not gzip--", Content_Encoding="gzip")
        assert reply.status == 400
        assert b"Content-Encoding is malformed" in reply.body


async def test_compressed_body_is_read_as_it_arrives() -> None:
    """Compressed pieces are undone one by one."""
    async with served(TOTALS) as server:
        client = await begin(server, extra="Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n")
        squeeze = zlib.compressobj(wbits=31)
        for number, total in ((1, 1), (2, 3)):
            client.writer.write(piece(squeeze.compress(value(number)) + squeeze.flush(zlib.Z_SYNC_FLUSH)))
            if number == 1:
                await client.head()
            assert await line(client) == total


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "multipart/form-data; boundary=x"},
        {"Content_Encoding": "compress"},
        {"Content_Type": "text/csv; charset=klingon"},
    ],
)
async def test_what_is_no_stream_is_refused(headers: dict[str, str]) -> None:
    """A form, a coding that is not undone, an unknown charset: 415."""
    text = TOTALS.replace(", decode: ndjson", "")
    async with served(text) as server:
        reply = await server.ask("POST", "/s", b"x", **headers)
        assert reply.status == 415, reply.body


async def test_required_body_must_be_sent() -> None:
    """No body at all is a 400 that names the input."""
    async with served(TOTALS) as server:
        reply = await server.ask("POST", "/s")
        assert reply.status == 400
        assert json.loads(reply.body)["errors"] == [{"in": "body", "name": "events", "message": "is required"}]


async def test_slow_stack_holds_its_client_back() -> None:
    """What the run does not ask for is not read: the client's send blocks, and memory stays small."""
    text = """
    method: POST
    path: /s
    streaming: {format: ndjson}
    inputParameters: {lines: {type: stream, decode: lines, maxSize: 1GB}}
    functionStack:
      - streams.take: {in: << input.lines >>, count: 1}
        as: first
      - forEach:
          in: << first >>
          do:
            - stream: begun
            - wait: 10s
    """
    async with served(text) as server:
        client = await begin(server)
        sent = 0
        block = piece(b"x" * 65535 + b"\n")

        async def send() -> None:
            nonlocal sent
            while sent < 64_000_000:
                client.writer.write(block)
                await client.writer.drain()
                sent += len(block)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send(), 1)
        assert sent < 16_000_000


async def test_answer_arrives_though_the_body_was_not_read() -> None:
    """A stack that ends early answers whole; what is still being sent is read and dropped, so nothing is reset."""
    text = """
    method: POST
    path: /s
    responseType: json
    inputParameters: {lines: {type: stream, decode: lines, maxSize: 1GB}}
    functionStack:
      - streams.take: {in: << input.lines >>, count: 1}
        as: first
      - collect: << first >>
        as: all
    response: << all >>
    """
    async with served(text) as server:
        client = await begin(server, extra="Content-Length: 8000002\r\n")
        client.writer.write(b"1\n")
        for _ in range(80):
            client.writer.write(b"x" * 100_000)
            await client.writer.drain()
        raw = await answer_of(client)
        assert b" 200 OK" in raw
        assert b"Connection: close" in raw
        assert raw.endswith(b'["1"]')


async def test_silence_of_the_body_is_limited() -> None:
    """Where neither side sends, the run ends with `timeout`: 504 where the stack streams, 408 where it answers JSON."""
    text = TOTALS.replace("format: ndjson", "format: ndjson, firstChunkTimeout: 300ms, idleTimeout: 300ms")
    async with served(text) as server:
        client = await begin(server)
        status, document = problem(await answer_of(client))
        assert (status, document["code"]) == (504, "timeout")
        client = await begin(server)
        client.writer.write(piece(value(1)))
        await client.head()
        assert await line(client) == 1
        assert (await line(client))["error"]["code"] == "timeout"


JSON_SUM = """
method: POST
path: /s
responseType: json
streaming: {idleTimeout: 400ms, firstChunkTimeout: 400ms}
inputParameters: {events: {type: stream, decode: ndjson}}
functionStack:
  - set: {total: 0}
  - forEach: {in: << input.events >>, as: event, do: [{set: {total: << total + event.v >>}}]}
response: << total >>
"""


@pytest.mark.parametrize("kind", ["json", "streaming"])
async def test_bytes_that_arrive_keep_a_silent_run_alive(kind: str) -> None:
    """A run that only receives outlasts its time-outs as long as bytes come, and answers at the end."""
    text = JSON_SUM
    if kind == "streaming":
        text = text.replace("responseType: json\n", "").replace("idleTimeout", "format: text, idleTimeout")
        text = text.replace("response: << total >>", "  - stream: << total >>")
    async with served(text) as server:
        client = await begin(server)
        for number in range(12):
            client.writer.write(piece(value(number)))
            await asyncio.sleep(0.1)
        client.writer.write(b"0\r\n\r\n")
        head = await client.head()
        assert b" 200 OK" in head
        assert b"66" in await asyncio.wait_for(client.reader.read(100), 10)
        if kind == "json":
            client = await begin(server)
            client.writer.write(piece(value(1)))
            status, document = problem(await answer_of(client))
            assert (status, document["code"]) == (408, "timeout")


async def test_aiohttp_sends_and_reads_at_once() -> None:
    """A generator as the body, each item sent when the answer to the last has come."""
    async with served(TOTALS) as server:
        answers: asyncio.Queue[int] = asyncio.Queue()
        seen = []

        async def body() -> AsyncIterator[bytes]:
            for number in (1, 2, 3):
                yield value(number)
                seen.append(await asyncio.wait_for(answers.get(), 10))

        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{server.port}/s", data=body()) as response,
        ):
            async for each in response.content:
                answers.put_nowait(json.loads(each))
        assert seen == [1, 3, 6]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
async def test_curl_sends_its_standard_input() -> None:
    """`curl -N -T .` sends what it is given, and shows the answer meanwhile."""
    async with served(TOTALS) as server:
        curl = await asyncio.create_subprocess_exec(
            *("curl", "-sN", "-X", "POST", "-T", ".", f"http://127.0.0.1:{server.port}/s"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert curl.stdin is not None
        assert curl.stdout is not None
        for number, total in ((1, 1), (2, 3)):
            curl.stdin.write(value(number))
            await curl.stdin.drain()
            assert json.loads(await asyncio.wait_for(curl.stdout.readline(), 10)) == total
        curl.stdin.close()
        assert await asyncio.wait_for(curl.wait(), 10) == 0


async def test_progress_counts_what_was_given() -> None:
    """Of a body that came at once, each record tells at most one per cent more than was decoded, the last all of it."""
    text = """
    method: POST
    path: /s
    responseType: json
    inputParameters: {rows: {type: stream, decode: ndjson}}
    functionStack:
      - streams.map: {in: << input.rows >>, value: << input.rows.bytes / input.rows.size >>}
        as: progress
      - collect: << progress >>
        as: all
    response: << all >>
    """
    body = b"".join(b"%09d\n" % (n + 10**8) for n in range(1000))
    async with served(text) as server:
        reply = await server.ask("POST", "/s", body, Content_Type="application/x-ndjson")
    shares = json.loads(reply.body)
    assert len(shares) == 1000
    assert all((n + 1) / 1000 <= share <= (n + 1) / 1000 + 0.011 for n, share in enumerate(shares))
    assert shares[-1] == 1
