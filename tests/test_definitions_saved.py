"""The definitions that write to a database: chats that are saved, orders that are announced, as bytes on a socket."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import query
from tests.runtime.providers.asking import send_events
from tests.server.processes import Process, serving
from tests.server.serving import Client
from tests.test_definitions import DEFINITIONS, events
from tests.test_definitions_data import NDJSON, document, lines, machine, server
from tests.test_definitions_models import FIRST, chat
from tests.upstreams import Upstream, Wire, answer

__all__ = ["machine", "server"]

# ------------------------------------------------------------------------------------ the chat


async def saved(server: Process, conversation: str) -> list[dict[str, Any]]:
    """Return the messages of a conversation, as soon as there are any: they are saved after the answer."""
    for _ in range(100):
        reply = await server.ask("GET", f"/api/conversations/{conversation}")
        if reply.status == 200:
            messages: list[dict[str, Any]] = json.loads(reply.body)["messages"]
            return messages
        await asyncio.sleep(0.05)
    raise AssertionError(reply.body)


async def test_chat_is_saved_with_its_whole_reply(server: Process) -> None:
    """What was sent is what is saved, letter by letter; a second question goes on with the conversation."""
    reply = await chat(server, message="Why?")
    *chunks, done = events(reply.body)
    conversation = reply.headers["x-conversation"]
    end = json.loads(done["data"])["metadata"]
    assert end["conversation"] == conversation
    (message,) = await saved(server, conversation)
    assert message["question"] == "Why?"
    assert message["answer"] == "".join(json.loads(each["data"])["content"] for each in chunks)
    assert message["outcome"] == "completed"
    assert (message["model"], message["usage"]) == ("chat", end["usage"])
    assert message["milliseconds"] > 0

    again = await chat(server, "text/plain", message="And then?", conversation=conversation)
    assert again.headers["x-conversation"] == conversation
    for _ in range(100):
        messages = await saved(server, conversation)
        if len(messages) == 2:
            break
        await asyncio.sleep(0.05)
    assert [each["question"] for each in messages] == ["Why?", "And then?"]
    assert messages[1]["answer"] == again.body.decode()

    other = await chat(server, message="Hello")
    await saved(server, other.headers["x-conversation"])
    listed = await document(server, "/api/conversations?limit=5")
    assert [(each["messages"], each["firstQuestion"], each["lastOutcome"]) for each in listed] == [
        (1, "Hello", "completed"),
        (2, "Why?", "completed"),
    ]


async def test_chat_whose_reader_left_is_saved_as_cancelled(server: Process) -> None:
    """With what had come until then: more than nothing, less than the whole."""
    whole = await chat(server, "text/plain", message="Hi")
    client = await server.connect()
    body = b'{"message": "Hi", "streamOptions": {"chunkSize": 1}}'
    client.ask(
        "/api/stream-chat",
        "POST",
        extra=f"Accept: text/plain\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n",
    )
    client.writer.write(body)
    head = (await client.head()).decode()
    read = [await client.chunk() for _ in range(3)]
    client.close()
    found = re.search(r"(?i)x-conversation: (\S+)", head)
    assert found is not None
    (message,) = await saved(server, found[1])
    assert message["outcome"] == "cancelled"
    assert message["answer"].startswith(b"".join(read).decode())
    assert len(message["answer"]) < len(whole.body.decode())
    assert whole.body.decode().startswith(message["answer"])
    assert message["usage"] is None


async def breaks_off(to: Wire) -> None:
    """Send a few words and break the connection off."""
    await send_events(to, FIRST)
    await asyncio.sleep(0.05)
    to.reset()


async def test_chat_that_fails_is_saved_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the words that came before the failure; with none where the model refused."""
    refusal = answer("{}", "Content-Type: application/json", status="401 No")
    async with Upstream(breaks_off, refusal) as upstream:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
        monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
        async with serving(DEFINITIONS) as server:
            conversation = "0d9c3aab-31c6-4b1c-8a0e-0a4c47b5a2d1"
            midway = await chat(server, conversation=conversation)
            assert midway.status == 200
            assert midway.body.count(b"event: error") == 1
            (message,) = await saved(server, conversation)
            assert (message["outcome"], message["answer"]) == ("failed", "One two three four five six ")
            other = "9e1ce8e9-7c2e-4aaf-94ae-1a1d4b8e6ad2"
            assert (await chat(server, conversation=other)).status == 502
            (message,) = await saved(server, other)
            assert (message["outcome"], message["answer"]) == ("failed", "")


async def test_chat_answers_though_it_can_not_be_saved(server: Process, postgres: str) -> None:
    """What fails after the answer is logged, and the reader has it all the same."""
    query(postgres, "ALTER TABLE messages RENAME TO elsewhere")
    reply = await chat(server, "text/plain")
    assert (reply.status, reply.complete) == (200, True)
    assert reply.body.endswith(b"and a model answers instead.")
    await server.stop()
    await server.process.wait()


async def test_unknown_conversation(server: Process) -> None:
    """It is not found; what is not an id is refused."""
    await document(server, "/api/conversations/0d9c3aab-31c6-4b1c-8a0e-0a4c47b5a2d1", 404)
    await document(server, "/api/conversations/1%20OR%20true", 400)


# -------------------------------------------------------------------------------------- orders


async def listening(postgres: str, count: int) -> None:
    """Wait until the server listens for that many readers; they share one connection."""
    statement = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1"
    for _ in range(100):
        if len(query(postgres, statement, "LISTEN%")) == count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no listener")


async def order(server: Process, product: int, quantity: int = 1) -> tuple[int, Any]:
    """Place an order; return the status and the answer."""
    body = json.dumps({"product": product, "quantity": quantity}).encode()
    reply = await server.ask("POST", "/api/orders", body)
    return reply.status, json.loads(reply.body)


async def follow(server: Process, limit: int) -> Client:
    """Begin to read the live feed."""
    client = await server.connect()
    client.ask(f"/api/orders/live?limit={limit}", extra="Connection: close\r\n" + NDJSON)
    return client


async def test_orders_are_told_to_all_who_listen(server: Process, postgres: str) -> None:
    """Each order that was placed, in their order, to each reader; one that was refused is not told."""
    readers = [await follow(server, 3) for _ in range(4)]
    await listening(postgres, 1)
    placed = [await order(server, product, 2) for product in (7, 8)]
    assert (await order(server, 1))[0] == 409  # out of stock
    assert (await order(server, 123_456))[0] == 409  # no such product
    placed.append(await order(server, 9))
    assert [status for status, _ in placed] == [201] * 3
    told = [each for _, each in placed]
    for reader in readers:
        await reader.head()
        text = await reader.rest()
        *notices, done = [json.loads(line) for line in text.splitlines() if line.strip()]
        assert notices == [{"event": "order", "content": each} for each in told]
        assert done["done"]["orders"] == 3
        reader.close()


async def test_order_is_placed_wholly_or_not_at_all(server: Process, postgres: str) -> None:
    """Many at once never sell more than there is: as many orders as the stock allows, and nothing half done."""
    stock = query(postgres, "SELECT stock FROM products WHERE id = $1", 2)[0][0]
    answers = await asyncio.gather(*(order(server, 2, 5) for _ in range(12)))
    taken = [told for status, told in answers if status == 201]
    assert len(taken) == stock // 5 == 6
    assert sorted(told["left"] for told in taken) == [1, 6, 11, 16, 21, 26]
    assert {told["code"] for status, told in answers if status == 409} == {"out-of-stock"}
    assert query(postgres, "SELECT stock FROM products WHERE id = $1", 2)[0][0] == stock - 30
    assert query(postgres, "SELECT count(*) FROM orders WHERE product = $1", 2)[0][0] == 6


async def test_feed_says_when_orders_may_have_been_missed(server: Process, postgres: str) -> None:
    """The connection to the database is cut: an event reports the gap, and the feed goes on."""
    reader = await follow(server, 1)
    await listening(postgres, 1)
    query(
        postgres,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%'",
    )
    await reader.head()
    gap = json.loads(await reader.chunk())
    assert gap == {"event": "gap", "content": "Orders may have been missed."}
    status, placed = await order(server, 10)
    assert status == 201
    assert json.loads(await reader.chunk()) == {"event": "order", "content": placed}
    reader.close()


# ------------------------------------------------------------------------------ a fresh machine


async def test_nothing_has_to_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fresh machine an embedded PostgreSQL is started, which the log tells; it keeps what was saved."""
    monkeypatch.delenv("DATABASE_URL")
    folder = tmp_path / "definitions"
    shutil.copytree(DEFINITIONS, folder, ignore=shutil.ignore_patterns(".streamstack"))
    async with serving(folder) as server:
        told = [json.loads(line) for line in server.lines if line.startswith("{")]
        assert [each["event"] for each in told] == ["database-embedded", "database-setup"]
        assert told[0]["folder"] == str(folder / ".streamstack")
        reply = await chat(server, message="Remember this")
        await saved(server, reply.headers["x-conversation"])
        assert await server.stop() == 0
    async with serving(folder) as server:
        assert not [line for line in server.lines if "database-setup" in line]
        (listed,) = await document(server, "/api/conversations")
        assert listed["firstQuestion"] == "Remember this"
        assert len(await lines(server, "/api/products/cursor")) == 10_001
        assert await server.stop() == 0
