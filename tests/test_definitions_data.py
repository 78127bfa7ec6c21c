"""The definitions that read a database, each on an empty one: from YAML and SQL to bytes on a socket."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
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
from tests.postgres import query
from tests.server.processes import Process, serving
from tests.server.serving import Client
from tests.test_definitions import DEFINITIONS
from tests.test_definitions_models import LEADING

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


async def test_first_page_leaves_before_the_last_is_asked_for(server: Process, postgres: str) -> None:
    """What is changed behind the first page is on the later ones: they were not fetched yet."""
    client = await server.connect()
    client.ask("/api/products/pages?pageSize=4", extra=NDJSON)
    await client.head()
    text = await client.chunk()
    query(postgres, "UPDATE products SET name = 'Changed meanwhile' WHERE id = 10000")
    text += await client.rest()
    client.close()
    *pages, _ = [json.loads(line) for line in text.splitlines() if line.strip()]
    assert len(pages) == 2500
    assert pages[-1]["content"][-1]["name"] == "Changed meanwhile"


async def test_cursor_takes_a_filter_and_writes_a_table(server: Process) -> None:
    """The same endpoint answers a category as CSV, a row a line."""
    reply = await server.ask("GET", "/api/products/cursor?category=kitchen", extra="Accept: text/csv\r\n")
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
    # PostgreSQL's own word on it: no connection is left in the middle of a transaction.
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
    found = await search(server, text=" oak ", category="home", maxPrice=100, sort="cheapest", pageSize=100)
    products = found["products"]
    assert len(products) == found["total"] == 30
    assert found["pages"] == 1
    assert all("Oak" in each["name"] and each["category"] == "home" for each in products)
    assert all(each["price"] <= 100 for each in products)
    prices = [each["price"] for each in products]
    assert prices == sorted(prices)
    assert list(products[0]) == ["id", "name", "category", "price", "stock", "added"]

    dearest = (await search(server, sort="dearest", pageSize=50))["products"]
    assert [each["price"] for each in dearest] == sorted((each["price"] for each in dearest), reverse=True)
    newest = (await search(server, sort="newest", pageSize=50))["products"]
    assert [each["added"] for each in newest] == sorted((each["added"] for each in newest), reverse=True)
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
    for text, told in (("a%00b", "U+0000"), ("%ed%a0%80", "UTF-8")):
        assert told in (await document(server, f"/api/products/search?text={text}", 400))["detail"]
    answer = await document(server, "/api/products/search?minPrice=5&maxPrice=1", 400)
    assert answer["detail"] == "minPrice is above maxPrice"


# --------------------------------------------------------------------------------------- setup


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
    assert result.output.endswith(" files checked, no problems\n")
    assert result.exit_code == 0
