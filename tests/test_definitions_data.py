"""The definitions that use the database, each on an empty one: from YAML and SQL to bytes on a socket."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import shutil
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from click.testing import CliRunner

from streamstack.cli import main
from tests.models.asking import send_events
from tests.postgres import query
from tests.server.serving import Client
from tests.server.test_serve import Process, serving
from tests.test_definitions import DEFINITIONS, events
from tests.test_definitions_models import FIRST, LEADING, chat
from tests.upstreams import Upstream, Wire, answer

NDJSON = "Accept: application/x-ndjson\r\n"


@pytest.fixture(autouse=True)
def machine(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name an empty database, and no model: the simulator answers."""
    for name in LEADING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", postgres)


@pytest_asyncio.fixture
async def server(machine: None) -> AsyncIterator[Process]:
    """Serve definitions/ as `make serve` does."""
    async with serving(DEFINITIONS) as process:
        yield process


async def lines(server: Process, path: str) -> list[Any]:
    """Return the lines of a whole NDJSON answer."""
    reply = await server.ask("GET", path, extra=NDJSON)
    assert (reply.status, reply.complete) == (200, True), reply.body[:500]
    return [json.loads(line, parse_float=Decimal) for line in reply.body.splitlines()]


async def document(server: Process, path: str, status: int = 200) -> Any:
    """Return a JSON answer."""
    reply = await server.ask("GET", path)
    assert reply.status == status, reply.body
    return json.loads(reply.body)


# -------------------------------------------------------------------------------------- records


async def test_pages_and_cursor_send_the_same_ten_thousand(server: Process, postgres: str) -> None:
    """A loop over pages and a cursor give the same records in the same order: those of the table."""
    *pages, paged = await lines(server, "/api/products/pages")
    *rows, ended = await lines(server, "/api/products/cursor")
    told = [page["metadata"] for page in pages]
    assert [each["batch"] for each in told] == list(range(1, 21))
    assert [each["offset"] for each in told] == list(range(0, 10_000, 500))
    assert {each["records"] for each in told} == {500}
    assert [each["hasMore"] for each in told] == [True] * 19 + [False]
    assert [record for page in pages for record in page["content"]] == rows
    assert (paged["done"]["batches"], paged["done"]["records"]) == (20, 10_000)
    assert (ended["done"]["chunks"], ended["done"]["records"]) == (10_000, 10_000)
    stored = query(postgres, "SELECT * FROM products WHERE id > $1 ORDER BY id", 0)
    assert rows == [dict(row) | {"added": row["added"].isoformat()} for row in stored]


async def test_pages_end_where_the_caller_says(server: Process) -> None:
    """Offset and limit choose the part; the last page is as long as what is left."""
    *pages, done = await lines(server, "/api/products/pages?offset=9990&limit=100&pageSize=4")
    found = [[record["id"] for record in page["content"]] for page in pages]
    assert found == [[9991, 9992, 9993, 9994], [9995, 9996, 9997, 9998], [9999, 10_000]]
    assert [page["metadata"]["hasMore"] for page in pages] == [True, True, False]
    assert done["done"]["records"] == 10
    *pages, done = await lines(server, "/api/products/pages?offset=20000")
    assert (pages, done["done"]["batches"], done["done"]["records"]) == ([], 0, 0)
    assert (await server.ask("GET", "/api/products/pages?pageSize=0")).status == 400


async def test_first_page_leaves_before_the_last_is_asked_for(
    server: Process, postgres: str
) -> None:
    """What is changed behind the first page is on the later ones: they were not fetched yet."""
    client = await server.connect()
    client.ask("/api/products/pages?pageSize=4", extra=NDJSON)
    await client.head()
    text = await client.chunk()
    query(postgres, "UPDATE products SET name = 'Changed meanwhile' WHERE id = 10000")
    while chunk := await client.chunk():
        text += chunk
    client.close()
    *pages, _ = [json.loads(line) for line in text.splitlines() if line.strip()]
    assert len(pages) == 2500
    assert pages[-1]["content"][-1]["name"] == "Changed meanwhile"


async def test_cursor_takes_a_filter_and_writes_a_table(server: Process) -> None:
    """The same endpoint answers a category as CSV, a row a line."""
    reply = await server.ask(
        "GET", "/api/products/cursor?category=kitchen", extra="Accept: text/csv\r\n"
    )
    rows = list(csv.DictReader(io.StringIO(reply.body.decode())))
    assert list(rows[0]) == ["id", "name", "category", "price", "stock", "added"]
    assert len(rows) == 2000
    assert {row["category"] for row in rows} == {"kitchen"}
    ids = [int(row["id"]) for row in rows]
    assert ids == sorted(ids)
    wrong = await server.ask("GET", "/api/products/cursor?category=x' OR true --".replace(" ", "+"))
    assert wrong.status == 400


def resident(pid: int) -> int:
    """Return the most memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


async def read_all(client: Client, path: str) -> int:
    """Read an NDJSON answer without keeping it; return the bytes of its content."""
    client.ask(path, extra=NDJSON)
    await client.head()
    size = 0
    while chunk := await client.chunk():
        size += len(chunk)
    return size


async def test_cursor_needs_no_more_memory_for_more_rows(server: Process, postgres: str) -> None:
    """Forty times the rows, forty times the bytes, and the server stays as large as it was."""
    client = await server.connect()
    small = await read_all(client, "/api/products/cursor")
    before = resident(server.process.pid)
    query(
        postgres,
        "INSERT INTO products SELECT id + 10000 * times, name, category, price, stock, added"
        " FROM products, generate_series(1, 39) AS times",
    )
    large = await read_all(client, "/api/products/cursor")
    grown = resident(server.process.pid) - before
    client.close()
    assert large > 39 * small > 39_000_000
    assert grown < large / 3, f"{grown} bytes"


async def test_reader_who_leaves_frees_the_connection(server: Process, postgres: str) -> None:
    """More readers leave in mid-stream than there are connections, and the next one is served."""
    for _ in range(12):
        client = await server.connect()
        client.ask("/api/products/cursor", extra=NDJSON)
        await client.head()
        await client.chunk()
        client.close()
    assert len(await lines(server, "/api/products/cursor")) == 10_001
    # PostgreSQL's own word on it: nobody is left in the middle of a transaction.
    for _ in range(50):
        busy = query(
            postgres,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            " AND state LIKE $1 AND pid <> pg_backend_pid()",
            "idle in transaction%",
        )
        if not busy:
            break
        await asyncio.sleep(0.1)
    assert busy == []


# --------------------------------------------------------------------------------------- search


async def search(server: Process, **asked: Any) -> Any:
    """Search for products."""
    return await document(server, f"/api/products/search?{urlencode(asked)}")


async def test_search_filters_sorts_and_counts(server: Process) -> None:
    """Each filter narrows, all of them hold; the total counts what is found, not what is shown."""
    found = await search(
        server, text=" oak ", category="home", maxPrice=100, sort="cheapest", pageSize=100
    )
    products = found["products"]
    assert len(products) == found["total"] == 30
    assert found["pages"] == 1
    assert all("Oak" in each["name"] and each["category"] == "home" for each in products)
    assert all(each["price"] <= 100 for each in products)
    prices = [each["price"] for each in products]
    assert prices == sorted(prices)
    assert list(products[0]) == ["id", "name", "category", "price", "stock", "added"]

    dearest = (await search(server, sort="dearest", pageSize=50))["products"]
    assert [each["price"] for each in dearest] == sorted(
        (each["price"] for each in dearest), reverse=True
    )
    newest = (await search(server, sort="newest", pageSize=50))["products"]
    assert [each["added"] for each in newest] == sorted(
        (each["added"] for each in newest), reverse=True
    )
    assert date.fromisoformat(newest[0]["added"]) == date(2025, 11, 30)
    assert (await search(server, text="lamp", minPrice=0))["total"] == 400


async def test_pages_of_a_search_meet_without_overlap(server: Process) -> None:
    """All pages together are what is found, each product once; past the last page there is none."""
    asked: dict[str, Any] = {"text": "Copper Coat", "sort": "cheapest", "pageSize": 7}
    pages = [await search(server, **asked, page=page) for page in (1, 2, 3)]
    assert [len(each["products"]) for each in pages] == [7, 7, 6]
    assert len({product["id"] for each in pages for product in each["products"]}) == 20
    beyond = await search(server, **asked, page=4)
    assert (beyond["products"], beyond["total"], beyond["pages"]) == ([], 20, 3)


async def test_what_a_caller_writes_is_only_looked_for(server: Process) -> None:
    """SQL and the signs of patterns are letters like others: no product has them in its name."""
    for text in ("'; DROP TABLE products; --", "%", "_", "' OR 'a' = 'a", "\\"):
        found = await search(server, text=text)
        assert found == {"products": [], "total": 0, "page": 1, "pages": 0}, text
    assert (await search(server))["total"] == 10_000


async def test_search_refuses_what_it_does_not_know(server: Process) -> None:
    """An order is one of a list, never SQL; a range has a beginning below its end."""
    for asked in ("sort=price%3BDROP", "category=toys", "page=0", "minPrice=-1"):
        await document(server, f"/api/products/search?{asked}", 400)
    told = await document(server, "/api/products/search?minPrice=5&maxPrice=1", 400)
    assert told["detail"] == "minPrice is above maxPrice"


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
            assert (message["outcome"], message["answer"]) == (
                "failed",
                "One two three four five six ",
            )
            other = "9e1ce8e9-7c2e-4aaf-94ae-1a1d4b8e6ad2"
            assert (await chat(server, conversation=other)).status == 502
            (message,) = await saved(server, other)
            assert (message["outcome"], message["answer"]) == ("failed", "")


async def test_chat_answers_though_it_can_not_be_saved(server: Process, postgres: str) -> None:
    """What fails after the answer is logged, and the reader has it all the same."""
    query(postgres, "ALTER TABLE messages RENAME TO elsewhere")
    reply = await chat(server, "text/plain")
    assert (reply.status, reply.complete) == (200, True)
    assert reply.body.endswith(b"waited for the end.")
    await server.stop()
    await server.process.wait()


async def test_unknown_conversation(server: Process) -> None:
    """It is not found; what is no id is refused."""
    await document(server, "/api/conversations/0d9c3aab-31c6-4b1c-8a0e-0a4c47b5a2d1", 404)
    await document(server, "/api/conversations/1%20OR%20true", 400)


# -------------------------------------------------------------------------------------- orders


async def listening(postgres: str, count: int) -> None:
    """Wait until the server listens for that many readers; they share one connection."""
    statement = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1"
    )
    for _ in range(100):
        if len(query(postgres, statement, "LISTEN%")) == count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("nobody listens")


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
        text = b""
        while chunk := await reader.chunk():
            text += chunk
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
    """The connection to the database is cut: an event tells of the gap, and the feed goes on."""
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


# --------------------------------------------------------------------------------------- setup


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


async def test_schema_can_be_run_again(postgres: str) -> None:
    """It is written so that a change of it can be run on what is there: nothing is lost, nothing doubled."""
    text = (DEFINITIONS / "schema.sql").read_text("utf-8")
    query(postgres, text)
    query(postgres, "UPDATE products SET price = 1 WHERE id = 1")
    query(postgres, text)
    count = query(postgres, "SELECT count(*), count(DISTINCT name) FROM products WHERE id > $1", 0)
    assert tuple(count[0]) == (10_000, 10_000)
    assert query(postgres, "SELECT price FROM products WHERE id = $1", 1)[0][0] == 1
    assert query(postgres, "SELECT min(price) > $1 FROM products", 0)[0][0]


def test_definitions_fit_the_database() -> None:
    """`validate --database` finds nothing: tables, columns and statements are those of schema.sql."""
    result = CliRunner().invoke(main, ["validate", str(DEFINITIONS), "--database", "--strict"])
    assert result.output.startswith("nothing found in ")
    assert result.exit_code == 0
