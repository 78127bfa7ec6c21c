"""Channels over HTTP: what subscribers receive as bytes, on each way that a published chunk can take."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamstack.runtime.run import SharedChunk
from streamstack.server.response import LiveSink
from tests.server.authenticating import project
from tests.server.serving import Client, Reply, Server

PUBLISH = """
method: POST
path: /publish/{channel}
responseType: json
inputParameters:
  channel: text
  content: json
  event: text
functionStack:
  - channel.publish: {channel: << input.channel >>, content: << input.content >>, event: << input.event >>}
    as: id
  - return: << id >>
---
method: GET
path: /members/{channel}
responseType: json
inputParameters: {channel: text}
functionStack:
  - channel.presence: << input.channel >>
    as: present
  - return: << present >>
"""
SUBSCRIBE = """
---
method: GET
path: /room/{channel}
responseType: streaming
%s
inputParameters:
  channel: text
  name: text
functionStack:
  - channel.subscribe:
      channel: << input.channel >>
      since: << request.headers["last-event-id"] | default("last") >>
      presence: << input.name >>
      %s
    as: messages
  - forEach:
      in: << messages >>
      as: message
      do:
        - stream: %s
"""
#: What is sent of a message: relayed without the loop, or by the loop.
CONTENT = "<< message.content >>"
ALL = "{content: << message.content >>, event: << message.event >>, id: << message.id >>}"
LOOPED = "{content: << message.content | default('') >>, event: << message.event >>, id: << message.id >>}"
SETTINGS = "channels: {few: {history: 2, maxSubscribers: 2}}\n"


@asynccontextmanager
async def serving(
    folder: Path, sends: str = ALL, streaming: str = "", more: str = "", settings: str = SETTINGS
) -> AsyncIterator[Server]:
    """Serve who publishes and who subscribes."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240  (nothing runs yet)
    definitions = PUBLISH + SUBSCRIBE % (f"streaming: {{{streaming}}}", more, sends)
    async with project(folder, settings, definitions, {}) as server:
        yield server


async def publish(server: Server, content: Any, channel: str = "room", event: str | None = None) -> Reply:
    """Publish a message."""
    body = json.dumps({"content": content} | ({"event": event} if event else {})).encode()
    return await server.ask("POST", f"/publish/{channel}", body, Content_Type="application/json")


async def subscribed(server: Server, path: str = "/room/room", extra: str = "", version: str = "1.1") -> Client:
    """Subscribe; the response begins at once."""
    client = await server.connect()
    client.ask(path, version=version, extra=extra)
    assert b" 200 " in await client.head()
    return client


async def received(client: Client, until: str) -> str:
    """Read the chunks of a response until a text has come, and return what came before and with it."""
    text = ""
    while until not in text:
        text += (await client.chunk()).decode()
    return text.replace(":\n", "")


FORMATS = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}


@pytest.mark.parametrize("accepts", FORMATS)
@pytest.mark.parametrize("sends", [ALL, LOOPED])
async def test_the_loop_and_the_relay_send_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sends: str, accepts: str
) -> None:
    """Objects, texts with line breaks, numbers and events: each subscriber receives all of them, in order."""
    emit_shared, relayed = LiveSink.emit_shared, []

    def counted(sink: LiveSink, chunk: SharedChunk) -> bool:
        relayed.append(emit_shared(sink, chunk))
        return relayed[-1]

    monkeypatch.setattr(LiveSink, "emit_shared", counted)
    contents = [{"n": 1, "list": [None, True]}, "a\r\nb", "\u00e9\u2603", 7, 1.5, False, ["x"]]
    async with serving(tmp_path, sends) as server:
        clients = [await subscribed(server, extra=f"Accept: {FORMATS[accepts]}\r\n") for _ in range(3)]
        ids = [json.loads((await publish(server, each, event=f"e{n}")).body) for n, each in enumerate(contents)]
        ids.append(json.loads((await publish(server, "the end")).body))
        texts = [await received(client, "the end") for client in clients]
        assert texts[0] == texts[1] == texts[2]
    assert sum(relayed) == (3 * len(contents) if sends == ALL else 0)  # the loop sends the first one
    if accepts == "ndjson":
        lines = [json.loads(line) for line in texts[0].splitlines()]
        assert [line["content"] for line in lines] == [*contents, "the end"]
        assert [line["id"] for line in lines] == ids
        return
    assert re.findall(r"^id: (.*)$", texts[0], re.MULTILINE) == ids
    assert 'event: e0\ndata: {"n":1,"list":[null,true]}\n' in texts[0]
    assert "event: e1\ndata: a\ndata: b\n" in texts[0]


async def test_relayed_chunks_are_numbered_as_others_are(tmp_path: Path) -> None:
    """The ids that an endpoint gives by itself count the chunks of one response."""
    async with serving(tmp_path, CONTENT) as server:
        first = await subscribed(server)
        await publish(server, 1)
        await publish(server, 2)
        assert "data: 2\nid: 1\n\n" in await received(first, "id: 1\n\n")
        second = await subscribed(server)
        await publish(server, 3)
        await publish(server, 4)
        assert await received(first, "id: 3\n\n") == "data: 3\nid: 2\n\ndata: 4\nid: 3\n\n"
        assert await received(second, "id: 1\n\n") == "data: 3\nid: 0\n\ndata: 4\nid: 1\n\n"


async def test_a_client_comes_back_with_the_id_of_its_last_message(tmp_path: Path, redis_url: str) -> None:
    """It receives what it has missed, or a gap and all that is stored; from another server, too, by their Redis."""
    settings = f"{SETTINGS}state: {{url: '{redis_url}', prefix: back}}\n"
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(serving(tmp_path / "a", settings=settings))
        other = await stack.enter_async_context(serving(tmp_path / "b", settings=settings))
        ids = [json.loads((await publish(one, n, "few")).body) for n in range(4)]
        client = await subscribed(other, "/room/few", f"Last-Event-ID: {ids[2]}\r\n")
        await publish(one, "next", "few")
        assert re.findall(r"data: (.*)\n", await received(client, "next")) == ["3", "next"]
        client.close()
        for last in (ids[0], "1-99", "5", "%0a", "99999999999999999999-1"):
            client = await subscribed(other, "/room/few", f"Last-Event-ID: {last}\r\n")
            text = await received(client, "next")
            assert text.startswith("event: gap\ndata: {"), text
            assert re.findall(r"data: (.*)\n", text)[1:] == ["3", "next"]
            client.close()


@pytest.mark.parametrize("way", ["gzip", "HTTP/1.0", "dropOldest", "resume", "maxBytes", "filter"])
async def test_responses_that_can_not_share_bytes(tmp_path: Path, way: str) -> None:
    """Compressed, unframed, dropping, resumable, bounded and filtering responses receive the same messages."""
    streaming = {
        "gzip": "compress: true",
        "dropOldest": "slowClient: dropOldest",
        "resume": "resume: true",
        "maxBytes": "maxBytes: 150",
    }.get(way, "")
    more = "where: << message.content != 3 >>" if way == "filter" else ""
    extra = "Accept-Encoding: gzip\r\n" if way == "gzip" else ""
    sends = CONTENT if way == "resume" else ALL  # a resumable stream has ids of its own
    async with serving(tmp_path, sends, streaming, more) as server:
        client = await subscribed(server, extra=extra, version="1.0" if way == "HTTP/1.0" else "1.1")
        for n in range(10):
            await publish(server, n)
        if way == "HTTP/1.0":
            text = (await client.reader.readuntil(b"data: 9\n")).decode()
        elif way == "gzip":
            inflate, text = zlib.decompressobj(31), ""
            while "data: 9\n" not in text:
                text += inflate.decompress(await client.chunk()).decode()
        elif way == "maxBytes":
            text = (await client.rest()).decode()
            assert "event: error\n" in text
            assert len(text) < 700
            return
        else:
            text = await received(client, "data: 9\n")
        expected = [str(n) for n in range(10) if way != "filter" or n != 3]
        assert re.findall(r"data: (\d)\n", text) == expected


async def test_an_error_in_the_loop_is_reported_where_it_is(tmp_path: Path) -> None:
    """A condition that fails, and a content that can't be sent, end this response as in any other stream."""
    async with serving(tmp_path, more="where: << message.content.n > 0 >>") as server:
        client = await subscribed(server)
        await publish(server, {"n": 1})
        await publish(server, {"n": "x"})
        assert "event: error\n" in (await client.rest()).decode()
    async with serving(tmp_path) as server:
        client = await subscribed(server)
        await publish(server, 1)
        await publish(server, None)
        assert "event: error\n" in (await client.rest()).decode()


async def test_a_slow_subscriber_delays_nobody_and_misses_nothing(tmp_path: Path) -> None:
    """It gets what waited for it, whole and in order, when it reads again."""
    async with serving(tmp_path, streaming="buffer: 16KB") as server:
        slow, fast = await subscribed(server), await subscribed(server)
        for n in range(120):
            await publish(server, f"{n} {'x' * 30_000}")
            await received(fast, f"data: {n} ")
        await publish(server, "end")
        text = await received(slow, "data: end")
        assert re.findall(r"data: (\d+) ", text) == [str(n) for n in range(120)]


async def test_subscribers_are_limited(tmp_path: Path) -> None:
    """More than `maxSubscribers` get 429; who leaves makes room."""
    async with serving(tmp_path) as server:
        first, _ = await subscribed(server, "/room/few"), await subscribed(server, "/room/few")
        assert (await server.get("/room/few")).status == 429
        first.close()

        async with asyncio.timeout(5):
            while True:
                client = await server.connect()
                client.ask("/room/few")
                if b" 200 " in await client.head():
                    break
                await asyncio.sleep(0.02)


async def test_names_from_inputs_are_checked(tmp_path: Path) -> None:
    """What can't be the name of a channel is the client's error."""
    async with serving(tmp_path) as server:
        for name in ("a" * 300, "%00"):
            assert (await publish(server, 1, name)).status == 400
            assert (await server.get(f"/room/{name}")).status == 400
            assert (await server.get(f"/members/{name}")).status == 400
        assert (await publish(server, "x" * 1_100_000)).status == 500


async def test_heartbeats_hold_an_idle_subscriber(tmp_path: Path) -> None:
    """Neither `firstChunkTimeout` nor `idleTimeout` ends its response, before the first message and after it."""
    times = "firstChunkTimeout: 100ms, idleTimeout: 100ms, keepAlive: 50ms, maxDuration: 1s"
    async with serving(tmp_path, streaming=times) as server:
        client = await subscribed(server)
        await asyncio.sleep(0.3)
        await publish(server, 1)
        await received(client, "data: 1\n")
        await asyncio.sleep(0.3)
        await publish(server, 2)
        await received(client, "data: 2\n")
        assert "maxDuration" in (await client.rest()).decode()


async def test_presence_follows_connections(tmp_path: Path) -> None:
    """A member is present as long as its connection."""
    async with serving(tmp_path) as server:
        ada = await subscribed(server, "/room/room?name=ada")
        bob = await subscribed(server, "/room/room?name=bob")
        assert "event: join\n" in await received(ada, "data: bob\n")
        assert json.loads((await server.get("/members/room")).body) == {"count": 2, "members": ["ada", "bob"]}
        bob.close()
        assert "event: leave\n" in await received(ada, "data: bob\n")
        assert json.loads((await server.get("/members/room")).body) == {"count": 1, "members": ["ada"]}
