"""Headers that an author copies from one message to another: nothing of them frames or routes the other one."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamstack.functions import REGISTRY
from streamstack.language.loading.documents import load
from streamstack.language.settings import Streaming
from streamstack.language.source import read
from tests.functions.calling import call, run_calling
from tests.server.declared import declared

#: What a client may send along, each with a name that an upstream must not see.
HOSTILE = {
    "Content-Length": "3",
    "content-length": "0",
    "Transfer-Encoding": "chunked",
    "Connection": "close, X-Secret-Hop",
    "X-Secret-Hop": "1",
    "Host": "other.example",
    "Expect": "100-continue",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA",
    "TE": "trailers",
    "Trailer": "X-Sum",
    "Keep-Alive": "timeout=5",
    "Proxy-Authorization": "Basic eDp5",
    "Proxy-Connection": "keep-alive",
    "Proxy-Anything": "1",
    "Accept-Encoding": "zstd",
    "Content-Encoding": "gzip",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "8",
    "Sec-WebSocket-Extensions": "permessage-deflate",
}
#: What a client may send along and an upstream shall see.
HARMLESS = {"X-Kept": "yes", "Authorization": "Bearer t", "Accept-Language": "de"}


@dataclass
class Recorder:
    """A raw socket that writes down every byte of each connection, and answers each with the same bytes."""

    reply: bytes
    port: int = 0
    received: list[bytearray] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = bytearray()
        self.received.append(data)
        answered = False
        try:
            while piece := await reader.read(65536):
                data += piece
                head, blank, body = bytes(data).partition(b"\r\n\r\n")
                if blank and not answered and _is_whole(head, body):
                    answered = True
                    writer.write(self.reply)
                    await asyncio.sleep(0.05)  # whatever else would come of this request has come
                    data += await _rest(reader)
                    break
        finally:
            writer.close()


def _is_whole(head: bytes, body: bytes) -> bool:
    lines = dict(_fields(head))
    if b"transfer-encoding" in lines:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(lines.get(b"content-length", b"0"))


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(65536), 0.01)
    except TimeoutError:
        return b""


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """Return the fields of a head, names in small letters."""
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return [(name.strip().lower(), value.strip()) for name, _, value in lines]


@asynccontextmanager
async def recorder(reply: bytes) -> AsyncIterator[Recorder]:
    """Listen on a port of this machine."""
    recording = Recorder(reply)
    server = await asyncio.start_server(recording.serve, "127.0.0.1", 0)
    recording.port = server.sockets[0].getsockname()[1]
    try:
        yield recording
    finally:
        server.close()


REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 11\r\n"
    b"Connection: close\r\n\r\ndata: 1\n\n\n\n"
)
STEPS = {
    "http.request": """
    - http.request: {url: << input.url >>, method: POST, headers: << input.headers >>, body: hello}
      as: reply
    """,
    "http.stream": """
    - http.stream: {url: << input.url >>, method: POST, headers: << input.headers >>, body: hello}
      as: items
    - forEach: {in: << items >>, do: [{stream: << item.data >>}]}
    """,
    "websocket.stream": """
    - websocket.stream:
        url: << input.url | replace("http", "ws") >>
        headers: << input.headers >>
      as: items
    - forEach: {in: << items >>, do: [{stream: << item >>}]}
    """,
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("alone", [None, *HOSTILE])
async def test_forwarded_headers_frame_nothing(step: str, alone: str | None) -> None:
    """One hostile header, or all at once: the bytes are one request, whose length and target are the author's."""
    hostile = HOSTILE if alone is None else {alone: HOSTILE[alone]}
    async with recorder(REPLY) as upstream:
        await run_calling(STEPS[step], {"url": upstream.url, "headers": {**hostile, **HARMLESS}})
    (received,) = upstream.received
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    fields = _fields(head)
    names = [name for name, _ in fields]
    sent = dict(fields)
    assert len(names) == len(set(names))
    assert sent[b"host"] == f"127.0.0.1:{upstream.port}".encode()
    for name, value in HARMLESS.items():
        assert sent[name.lower().encode()] == value.encode()
    for name, value in hostile.items():
        if name == "X-Secret-Hop" and "Connection" not in hostile:
            continue  # a header like any other
        assert sent.get(name.lower().encode()) != value.encode()
    if step == "websocket.stream":
        assert sent[b"connection"].lower() == b"upgrade"
        assert sent[b"upgrade"] == b"websocket"
        assert body == b""
    else:
        assert sent[b"content-length"] == b"5"
        assert b"transfer-encoding" not in sent
        assert b"connection" not in sent
        assert body == b"hello"


async def test_content_type_of_another_body_is_not_forwarded() -> None:
    """A body that the step makes says itself what it is."""
    async with recorder(REPLY) as upstream:
        await run_calling(
            "- http.request: {url: << input.url >>, method: POST, headers: << input.headers >>, json: {a: 1}}\n"
            "  as: reply",
            {"url": upstream.url, "headers": {"content-type": "text/html"}},
        )
    head, _, body = bytes(upstream.received[0]).partition(b"\r\n\r\n")
    assert dict(_fields(head))[b"content-type"] == b"application/json"
    assert body == b'{"a":1}'


async def test_host_that_is_written_by_name_is_sent() -> None:
    """The author's own Host counts, bindings in it or not; the framing is not the author's even then."""
    async with recorder(REPLY) as upstream:
        await run_calling(
            "- http.request:\n    url: << input.url >>\n    headers: {Host: << input.host >>}\n  as: reply",
            {"url": upstream.url, "host": "tenant.example"},
        )
        await call(
            "http.request",
            url=upstream.url,
            method="POST",
            body="hello",
            headers={"Content-Length": "3", "Transfer-Encoding": "chunked", "Host": "tenant.example"},
        )
    for received in upstream.received:
        assert dict(_fields(bytes(received).partition(b"\r\n\r\n")[0]))[b"host"] == b"tenant.example"
    assert bytes(upstream.received[1]).endswith(b"\r\n\r\nhello")
    assert b"Content-Length: 5" in upstream.received[1]


@pytest.mark.parametrize("name", [each for each in HOSTILE if each[:3] not in ("X-S", "Hos")])
@pytest.mark.parametrize(
    "step",
    [
        "http.request: {{url: 'http://x.example', headers: {{{name}: a}}}}",
        "http.stream: {{url: 'http://x.example', headers: {{{name}: << input >>}}}}",
        "websocket.stream: {{url: 'ws://x.example', headers: {{{name}: a}}}}",
        "respond: {{headers: {{{name}: a}}}}",
    ],
)
def test_framing_that_is_written_by_name_is_found_at_load(name: str, step: str) -> None:
    """It is an error with a place and a hint, unless it says how the author encoded a body."""
    text = "method: GET\npath: /x\nfunctionStack:\n  - " + step.format(name=name)
    (document,), _ = read(text, "test.yaml")
    _, findings = load(document, REGISTRY, Streaming())
    found = [(each.code, each.hint != "") for each in findings if name in each.message]
    code = "no-effect" if name == "Keep-Alive" else "bad-name"  # the server sends it itself, so it does no harm
    assert found == ([] if name.endswith("-Encoding") and name[0] in "AC" else [(code, True)])


RELAY = """
method: POST
path: /relay
responseType: json
functionStack:
  - http.request:
      url: {url}
      method: POST
      headers: << request.headers >>
      body: << request.body >>
    as: reply
  - respond: {{headers: << reply.headers >>}}
  - return: << reply.body >>
"""


async def test_relay_both_ways() -> None:
    """A request goes through an endpoint that copies headers both ways; each side's framing stays its own."""
    packed = gzip.compress(b'{"n": 1}')
    reply = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/hal+json\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: %d\r\nSet-Cookie: a=1; Expires=Thu, 01 Jan 2032 00:00:00 GMT\r\nSet-Cookie: b=2\r\n"
        b"X-One: 1\r\nX-One: 2\r\nKeep-Alive: timeout=5\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n%b"
        % (len(packed), packed)
    )
    async with recorder(reply) as upstream, declared(RELAY.format(url=upstream.url)) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST /relay HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"
            b"Connection: close, X-Mine\r\nX-Mine: 1\r\nX-Kept: yes\r\nTE: trailers\r\n\r\n"
            b"5\r\nhello\r\n0\r\n\r\n"
        )
        data = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    asked, _, body = bytes(upstream.received[0]).partition(b"\r\n\r\n")
    sent: dict[bytes, Any] = dict(_fields(asked))
    assert body == b"hello"
    assert sent[b"content-length"] == b"5"
    assert sent[b"host"] == f"127.0.0.1:{upstream.port}".encode()
    assert sent[b"x-kept"] == b"yes"
    assert not {b"transfer-encoding", b"te", b"x-mine", b"connection"} & set(sent)
    head, _, answered = data.partition(b"\r\n\r\n")
    fields = _fields(head)
    given = dict(fields)
    assert answered == b'{"n":1}'
    assert given[b"content-length"] == b"7"
    assert given[b"content-type"] == b"application/json; charset=utf-8"
    assert given[b"x-one"] == b"1, 2"
    assert not {b"content-encoding", b"keep-alive", b"x-hop"} & set(given)
    assert [value for name, value in fields if name == b"set-cookie"] == [
        b"a=1; Expires=Thu, 01 Jan 2032 00:00:00 GMT",
        b"b=2",
    ]


#: What is true of an upstream's bytes alone.
OF_BYTES = {
    "Content-Type": "text/html",
    "Content-Range": "bytes 0-9/100",
    "Content-Digest": "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
    "Repr-Digest": "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
    "Digest": "sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=",
    "Content-MD5": "Q2hlY2sgSW50ZWdyaXR5IQ==",
    "ETag": '"abc"',
    "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT",
}


@pytest.mark.parametrize(
    ("format_", "coding", "forwarded"),
    [("sse", "", set()), ("ndjson", "", set()), ("bytes", "", set(OF_BYTES)), ("bytes", "gzip", {"Content-Type"})],
)
async def test_headers_of_other_bytes_are_not_forwarded(format_: str, coding: str, forwarded: set[str]) -> None:
    """Types, digests and validators of an upstream's body go on only with its very bytes."""
    body = gzip.compress(b"hello") if coding else b"hello"
    lines = {**OF_BYTES, "Content-Encoding": coding, "X-Kept": "yes"} if coding else {**OF_BYTES, "X-Kept": "yes"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    text = f"""
    method: GET
    path: /x
    responseType: streaming
    streaming: {{format: {format_}}}
    functionStack:
      - http.request: {{url: %s, decode: bytes}}
        as: reply
      - respond: {{headers: << reply.headers >>}}
      - stream: << {"reply.body" if format_ == "bytes" else "1"} >>
    """
    async with (
        recorder(f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body) as upstream,
        declared(text % upstream.url) as (server, _),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        sent = dict(_fields((await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")[0]))
        writer.close()
    assert {name for name, value in OF_BYTES.items() if sent.get(name.lower().encode()) == value.encode()} == forwarded
    assert sent[b"x-kept"] == b"yes"
    assert b"content-encoding" not in sent


async def test_cookies_of_an_upstream_are_handed_on_as_a_list() -> None:
    """`cookies` takes the texts of `set-cookie`, each of which is a header of its own."""
    text = """
    method: GET
    path: /x
    responseType: json
    functionStack:
      - respond:
          cookies: << ["a=1; Path=/", "b=2"] >>
          headers: {X-List: [1, '<< "two" >>']}
    """
    async with declared(text) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        fields = _fields((await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")[0])
        writer.close()
    assert [value for name, value in fields if name == b"set-cookie"] == [b"a=1; Path=/", b"b=2"]
    assert dict(fields)[b"x-list"] == b"1, two"


@pytest.mark.parametrize(
    "given",
    [
        {"method": "CONNECT"},
        {"method": "GET / HTTP/1.1\r\nX: 1"},
        {"headers": {"X-A": "a\x0bb"}},
        {"headers": {"X-A": ["fine", "a\nb"]}},
        {"headers": {"X-A\r\nB": "a"}},
        {"headers": {"": "a"}},
    ],
)
async def test_what_would_break_out_of_a_head_is_refused(given: dict[str, Any]) -> None:
    """Methods, names and values; nothing is sent."""
    async with recorder(REPLY) as upstream:
        for name in ("http.request", "http.stream"):
            ran = await run_calling(
                f"- {name}: {{url: << input.url >>, method: << input.method >>, headers: << input.headers >>}}\n"
                "  as: reply\n" + ("- forEach: {in: << reply >>, do: [{log: x}]}" if name[5:] == "stream" else ""),
                {"url": upstream.url, "method": "GET", "headers": {}} | given,
            )
            assert ran.error is not None
            assert (ran.error.code, ran.error.status) == ("invalid-input", 400)
    assert upstream.received == []


@pytest.mark.parametrize("char", ["\r", "\n", "\t", "\0", "\x1f", "\x7f"])
async def test_control_characters_in_a_url_are_refused(char: str) -> None:
    """They are neither dropped in silence nor sent."""
    async with recorder(REPLY) as upstream:
        ran = await run_calling("- http.request: << input.url >>\n  as: reply", {"url": f"{upstream.url}/a{char}b"})
        assert ran.error is not None
        assert (ran.error.code, ran.error.status) == ("invalid-input", 400)
    assert upstream.received == []


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_websocket_does_not_take_keys_along_a_redirect(scheme: str) -> None:
    """Another host sees none of the author's own headers, the same host sees all of them."""
    async with recorder(REPLY) as other:
        location = f"{scheme}://127.0.0.1:{other.port}/there"
        moved = f"HTTP/1.1 307 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        async with recorder(moved) as first:
            await run_calling(
                "- websocket.stream: {url: << input.url >>, headers: {X-Api-Key: secret, Accept-Language: de}}\n"
                "  as: items\n- forEach: {in: << items >>, do: [{stream: x}]}",
                {"url": first.url.replace("http", "ws")},
            )
    assert b"X-Api-Key: secret" in first.received[0]
    (received,) = other.received
    assert received.startswith(b"GET /there HTTP/1.1\r\n")
    assert b"secret" not in received
    assert b"Accept-Language: de" in received
