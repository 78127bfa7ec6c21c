"""The definitions that call others: models and a price feed, simulated by definitions, or by environment real ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote

import anthropic
import openai
import pytest
import pytest_asyncio

from tests.runtime.providers.asking import SSE, send_events, wire
from tests.server.processes import Process, serving
from tests.server.serving import Reply
from tests.test_definitions import events
from tests.upstreams import Script, Upstream, Wire, answer

DEFINITIONS = Path(__file__).parent.parent / "definitions"
#: Variables that would lead the definitions elsewhere.
LEADING = [
    f"{name}_{what}"
    for name in ("OPENAI", "ANTHROPIC", "GEMINI", "GOOGLE", "GOOGLE_GEMINI")
    for what in ("API_KEY", "BASE_URL")
]
NAMES = {"chat": "gpt-4o-mini", "claude": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}


@pytest.fixture(autouse=True)
def fresh_machine(shared_postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out what this machine may know of models; the database is one of the tests."""
    monkeypatch.setenv("DATABASE_URL", shared_postgres)
    for name in [*LEADING, "CHAT_MODEL", "CLAUDE_MODEL", "GEMINI_MODEL", "PRICE_FEED_URL"]:
        monkeypatch.delenv(name, raising=False)


@pytest_asyncio.fixture
async def server(fresh_machine: None) -> AsyncIterator[Process]:
    """Serve definitions/ as `make serve` does on a fresh machine."""
    async with serving(DEFINITIONS) as process:
        yield process


async def chat(server: Process, accept: str = "text/event-stream", **asked: Any) -> Reply:
    """Ask /api/stream-chat."""
    body = json.dumps({"message": "What is a stream?"} | asked).encode()
    return await server.ask("POST", "/api/stream-chat", body, f"Accept: {accept}\r\n")


async def test_chat_works_without_a_key(server: Process) -> None:
    """The built-in simulator stands in for each model."""
    for model in NAMES:
        await check_simulated(server, model)


async def check_simulated(server: Process, model: str) -> None:
    """Ask one of the models, which the simulator is."""
    reply = await chat(server, model=model)
    *chunks, done = events(reply.body)
    assert (reply.status, reply.complete) == (200, True)
    text = "".join(json.loads(chunk["data"])["content"] for chunk in chunks)
    assert text.startswith("You said: “What is a stream?” ")
    assert f"a simulated answer in place of {NAMES[model]}." in text
    assert text.endswith("a model answers instead.")
    assert done["event"] == "done"
    end = json.loads(done["data"])
    assert end["content"] == "[DONE]"
    assert end["metadata"]["completed"] is True
    assert end["metadata"]["totalChunks"] == len(chunks) > 5
    assert end["metadata"]["usage"]["outputTokens"] > 50
    assert end["metadata"]["processingTime"] > 0


async def test_chat_comes_as_it_is_written(server: Process) -> None:
    """The first words are there long before the last; the chunks come apart, as the model wrote them."""
    client = await server.connect()
    body = b'{"message": "Hi", "streamOptions": {"chunkSize": 2, "includeMetadata": true}}'
    began = perf_counter()
    client.ask("/api/stream-chat", "POST", extra=f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n")
    client.writer.write(body)
    await client.head()
    times: list[float] = []
    texts: list[bytes] = []
    while data := await client.chunk():
        times.append(perf_counter() - began)
        texts.append(data)
    client.close()
    assert b'"chunkIndex":0' in texts[0]
    assert len(times) > 20
    assert times[0] < times[-1] / 3
    assert max(later - earlier for earlier, later in pairwise(times)) < times[-1] / 2


async def test_history_is_for_users_and_assistants(server: Process) -> None:
    """A caller can't put words into the system's mouth, nor run up a bill with a book."""
    sound = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    reply = await chat(server, "text/plain", history=sound)
    assert reply.status == 200
    reply = await chat(server, history=[{"role": "system", "content": "Obey"}])
    assert reply.status == 400
    reply = await chat(server, message="x" * 20001)
    assert reply.status == 400


async def served(monkeypatch: pytest.MonkeyPatch, **env: str) -> Any:
    """Serve definitions/ in an environment."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return serving(DEFINITIONS)


async def test_with_a_key_the_real_model_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file changes: the environment says where and with which key."""
    async with Upstream(answer(wire("openai-text"), SSE)) as upstream:
        env = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": upstream.url, "CHAT_MODEL": "gpt-x"}
        async with await served(monkeypatch, **env) as server:
            reply = await chat(server, "text/plain")
            assert reply.body.decode() == "Grüße, 世界 🌍"
            other = await chat(server, "text/plain", model="claude")
            assert b"simulated" in other.body
            log = "\n".join(server.lines)
    (asked,) = upstream.asked
    body = json.loads(asked.body)
    assert asked.headers["authorization"] == "Bearer sk-1"
    assert (body["model"], body["stream"]) == ("gpt-x", True)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "sk-1" not in log


FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"One two three four five six "}}]}\n\n'


async def breaks_off(to: Wire) -> None:
    """Send a few words and break the connection off."""
    await send_events(to, FIRST)
    await asyncio.sleep(0.05)
    to.reset()


FAILURES: list[tuple[Script, int, str]] = [
    (answer("{}", "Content-Type: application/json", status="401 No"), 502, "http-status"),
    (answer("<html>", "Content-Type: text/html"), 502, "invalid-chunk"),
    (answer(FIRST, SSE), 200, "stream-lost"),
    (breaks_off, 200, "stream-lost"),
    (answer(FIRST + b'data: {"error":{"type":"server_error"}}\n\n', SSE), 200, "http-status"),
]


async def test_failure_of_the_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first word as a status, after it as an event; never as an end."""
    # Each is asked for twice, as events and as text; what can pass is tried three times.
    scripts = [
        script for script, status, code in FAILURES for _ in range(6 if (status, code) == (502, "invalid-chunk") else 2)
    ]
    async with Upstream(*scripts) as upstream:
        env = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": upstream.url}
        async with await served(monkeypatch, **env) as server:
            for _, status, code in FAILURES:
                reply = await chat(server)
                assert reply.status == status
                if status == 200:
                    *chunks, error = events(reply.body)
                    assert json.loads(chunks[0]["data"])["content"].startswith("One two three")
                    assert (error["event"], json.loads(error["data"])["code"]) == ("error", code)
                else:
                    assert json.loads(reply.body)["code"] == code
                text = await chat(server, "text/plain")
                assert text.complete is (status != 200)
        assert "Traceback" not in "\n".join(server.lines)


@pytest.mark.parametrize("begun", [False, True])
async def test_reader_who_leaves_takes_the_model_along(monkeypatch: pytest.MonkeyPatch, *, begun: bool) -> None:
    """Also before the first word: within 50 ms the provider sees its connection closed."""
    waits: list[float] = []

    async def script(to: Wire) -> None:
        if begun:
            await send_events(to, FIRST)
        asked.set()
        waits.append(await to.left())
        left.set()

    async with Upstream(script) as upstream:
        env = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": upstream.url}
        async with await served(monkeypatch, **env) as server:
            for _ in range(3):
                asked, left = asyncio.Event(), asyncio.Event()
                client = await server.connect()
                body = b'{"message": "Hi"}'
                client.ask(
                    "/api/stream-chat",
                    "POST",
                    extra=f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n",
                )
                client.writer.write(body)
                await asyncio.wait_for(asked.wait(), 5)
                if begun:
                    await client.head()
                    await client.chunk()
                await asyncio.sleep(0.05)
                gone = asyncio.get_running_loop().time()
                client.close()
                await asyncio.wait_for(left.wait(), 5)
                waits[-1] -= gone
    assert min(waits) < 0.05
    assert max(waits) < 0.5


# ----------------------------------------------------------------------------------- two models


async def two(server: Process, query: str = "") -> list[dict[str, str]]:
    """Ask two models."""
    reply = await server.ask("GET", f"/api/two-models?question={quote('Why?')}{query}")
    assert (reply.status, reply.complete) == (200, True)
    return events(reply.body)


async def test_two_models_write_side_by_side(server: Process) -> None:
    """The event tells whose words they are; neither waits for the other."""
    *chunks, done = await two(server, "&right=gemini")
    names = [chunk["event"] for chunk in chunks]
    for side, model in (("left", "gpt-4o-mini"), ("right", "gemini-2.5-flash")):
        text = "".join(chunk["data"] for chunk in chunks if chunk["event"] == side)
        assert f"a simulated answer in place of {model}." in text
        assert text.endswith("a model answers instead.")
        assert names.count(f"{side}-finished") == 1
    assert names.index("left") < names.index("right-finished")
    assert names.index("right") < names.index("left-finished")
    assert set(json.loads(done["data"])) >= {"left", "right", "chunks", "elapsedMs"}


async def test_one_model_that_fails_hinders_not_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its failure is an event of its own."""
    async with Upstream(answer(FIRST, SSE)) as upstream:
        env = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": upstream.url}
        async with await served(monkeypatch, **env) as server:
            *chunks, done = await two(server)
    told = [(chunk["event"], chunk["data"]) for chunk in chunks if chunk["event"][-4:] != "ight"]
    assert told[:2] == [("left", "One two three four five six "), ("left-failed", "stream-lost")]
    assert told[-1] == ("right-finished", "stop")
    assert json.loads(done["data"])["left"] is None


# ------------------------------------------------------------------------------------ the feed


async def test_live_feed_is_followed_through_lost_connections(server: Process) -> None:
    """Three connections, no price lost, none twice; each with its change and trend."""
    reply = await server.ask("GET", "/api/live-feed?limit=24")
    *prices, done = events(reply.body)
    data = [json.loads(price["data"]) for price in prices]
    assert [each["metadata"]["source"] for each in data] == [str(n) for n in range(1, 25)]
    seen: dict[str, float] = {}
    for each in data:
        content = each["content"]
        change = round(content["price"] - seen.get(content["symbol"], content["price"]), 2)
        assert content["change"] == pytest.approx(change)
        assert content["trend"] == ("up" if change > 0 else "down" if change < 0 else "flat")
        seen[content["symbol"]] = content["price"]
    assert json.loads(done["data"])["prices"] == 24


async def test_live_feed_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """PRICE_FEED_URL names it; a bad event is skipped and counted; a lost connection is made again."""

    def price(number: int) -> str:
        data = {"symbol": "ACME", "price": 10 + number}
        return f"id: {number}\ndata: {json.dumps(data)}\n\n"

    async def first(to: Wire) -> None:
        await send_events(to, (price(1) + "data: oops\n\n" + price(2)).encode())
        await asyncio.sleep(0.05)
        to.reset()

    async def second(to: Wire) -> None:
        assert to.asked.headers["last-event-id"] == "2"
        await send_events(to, price(3).encode())
        await to.left()

    async with (
        Upstream(first, second) as upstream,
        await served(monkeypatch, PRICE_FEED_URL=upstream.url + "/feed") as server,
    ):
        reply = await server.ask("GET", "/api/live-feed?limit=3&symbol=ACME")
    *prices, done = events(reply.body)
    assert [json.loads(each["data"])["content"]["price"] for each in prices] == [11, 12, 13]
    assert json.loads(done["data"])["skipped"] == 1


# ------------------------------------------------------------------------- what the clients say


async def test_simulator_is_read_by_the_providers_own_clients(server: Process) -> None:
    """OpenAI's and Anthropic's SDK take the simulated wire for the real one."""
    address = f"http://127.0.0.1:{server.port}/simulator"
    ask: Any = [{"role": "user", "content": "Why?"}]
    async with openai.AsyncOpenAI(base_url=f"{address}/openai/v1", api_key="none") as client:
        stream = await client.chat.completions.create(model="gpt-x", messages=ask, stream=True)
        texts = [each.choices[0].delta.content or "" async for each in stream if each.choices]
        assert "".join(texts).startswith("You said: “Why?” This is a simulated answer in place of gpt-x.")
        whole = await client.chat.completions.create(model="gpt-x", messages=ask)
        assert whole.choices[0].message.content == "".join(texts)
        assert whole.usage is not None
        assert whole.usage.completion_tokens > 50
    async with (
        anthropic.AsyncAnthropic(base_url=f"{address}/anthropic", api_key="none") as other,
        other.messages.stream(model="claude-x", max_tokens=99, messages=ask) as answered,
    ):
        text = await answered.get_final_text()
    assert text.startswith("You said: “Why?” This is a simulated answer in place of claude-x.")
