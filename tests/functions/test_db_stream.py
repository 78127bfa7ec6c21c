"""db.stream: in batches, released at once, never held for a slow reader, and encoded as we would encode it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from streamstack.connections.database.statements import _COLUMNS
from streamstack.functions.db import db_stream, open_databases
from streamstack.language.settings import Database
from streamstack.language.sql import statement_of
from streamstack.language.values import to_json
from streamstack.runtime.run import Context, Run
from streamstack.server.service import Service
from tests.collector import Collector
from tests.functions.test_db_faults import project
from tests.postgres import query
from tests.server.serving import endpoint, serving
from tests.stacks import plan_of

BUSY = (
    "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()"
    " AND datname = current_database() AND $1"
)
ENDLESS = "SELECT n, repeat('x', 1000) AS t FROM generate_series(1, 10000000) n"


async def busy(url: str) -> int:
    """Return how many connections to the database do something."""
    return int((await asyncio.to_thread(query, url, BUSY, True))[0][0])


async def released(url: str) -> None:
    """Wait until no connection does anything."""
    async with asyncio.timeout(10):
        while await busy(url):  # noqa: ASYNC110  (the server tells by being asked)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("leave", ["{return: 1}", "{break: }", "{throw: {code: no, message: no}}"])
async def test_a_loop_that_is_left_lets_go_at_once(postgres: str, leave: str) -> None:
    """The cursor is closed while the run goes on, and one connection serves the next statement."""
    leave = "break" if "break" in leave else leave
    stack = f"""
    - db.stream: {{sql: "{ENDLESS}", batch: 10}}
      as: rows
    - try:
        do: [{{forEach: {{in: << rows >>, as: row, do: [{leave}]}}}}]
        catch: {{do: [{{set: {{x: 1}}}}]}}
    - db.value: SELECT count(*) FROM pg_cursors
      as: open
    - return: << open >>
    """  # noqa: S608  (the text is ours)
    async with project(postgres, pool_size=1) as runs:
        outcome = await runs.run(stack)
        assert outcome.error is None, outcome.error.message
        await released(postgres)


async def test_a_run_that_is_stopped_in_the_midst_of_a_fetch_lets_go(postgres: str) -> None:
    """The statement is cancelled on the server."""
    stack = "- db.stream: SELECT pg_sleep(30)\n  as: r\n- forEach: {in: << r >>, as: x, do: [stream: 1]}"
    async with project(postgres, pool_size=1) as runs:
        task = asyncio.create_task(runs.run(stack))
        while not await busy(postgres):  # noqa: ASYNC110  (the server tells by being asked)
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait((task,), timeout=5)
        assert task.cancelled()
        await released(postgres)
        assert (await runs.run("- db.value: SELECT 3\n  as: v\n- return: << v >>")).result == 3


@pytest.mark.parametrize("encoded", [True, False], ids=["encoded", "as objects"])
async def test_a_slow_loop_does_not_hold_the_connection(postgres: str, encoded: bool) -> None:  # noqa: FBT001
    """After `hold` what is left goes to a file: the connection is free, and every row still comes, in order."""
    context = Context(databases={"main": Database(url=postgres, pool_size=1, hold=0.1)})

    class Encoding(Collector):
        takes_json = encoded

    sink = Encoding()
    statement = statement_of(("SELECT n FROM generate_series(1, 3000) n",))
    assert db_stream.run is not None
    try:
        stream = db_stream.run(Run(sink, context), sql=(statement, []), batch=50)
        stream.consume(unchanged=True)
        items = await stream.batch()
        assert (type(items[0]) is orjson.Fragment) is encoded
        await asyncio.sleep(0.3)
        await released(postgres)
        while more := await stream.batch():
            items += more
        assert orjson.loads(orjson.dumps(items)) == [{"n": n} for n in range(1, 3001)]
    finally:
        await context.aclose()


@pytest.mark.parametrize("transaction", [False, True])
@pytest.mark.parametrize("width", [10, 5_000, 100_000])
async def test_a_batch_has_a_bounded_size_whatever_a_row_has(postgres: str, width: int, transaction: bool) -> None:  # noqa: FBT001
    """A stream that is not read further holds two batches: each of rows of some hundred KB together."""
    context = Context(databases={"main": Database(url=postgres, hold=0.05)})
    sql = "SELECT n, repeat('x', WIDTH) AS t FROM generate_series(1, 2000) n"
    statement = statement_of((sql.replace("WIDTH", str(width)),))
    run = Run(Collector(), context)
    assert db_stream.run is not None
    try:
        async with AsyncExitStack() as stack:
            if transaction:
                await stack.enter_async_context(context.resource(open_databases)["main"].transaction())
            stream = db_stream.run(run, sql=(statement, []))
            stream.consume()
            sizes: list[int] = []
            numbers: list[int] = []
            while (batch := await stream.batch()) and len(numbers) < 2000:
                sizes.append(len(batch) * (width + 300))
                numbers += [row["n"] for row in batch]
                if len(sizes) == 3:
                    await asyncio.sleep(0.2)  # what is left goes to a file
            assert numbers == list(range(1, 2001))
            assert max(sizes[1:]) <= 300_000
            assert sizes[0] <= 16 * (width + 300)
            if width == 10:
                assert len(sizes) <= 5
    finally:
        await context.aclose()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_file_of_rows_is_gone_with_its_reader(postgres: str) -> None:
    """Also where it was never read: nothing stays open."""
    stack = """
    - db.stream: {sql: 'SELECT n FROM generate_series(1, 3000) n', batch: 50}
      as: rows
    - forEach: {in: << rows >>, as: row, do: [{wait: 400ms}, {return: << row.n >>}]}
    """
    files = _open_files()
    async with project(postgres, hold=0.05) as runs:
        assert (await runs.run(stack)).result == 1
    assert _open_files() <= files


async def test_more_than_the_disk_may_hold_is_an_error_behind_what_came(postgres: str) -> None:
    """Rows are given up to there, then `limit-reached`: never a part as if it were all."""
    stack = """
    - db.stream: {sql: "SELECT n, repeat('x', 1000) AS t FROM generate_series(1, 5000) n", batch: 50}
      as: rows
    - forEach: {in: << rows >>, as: row, do: [{stream: << row.n >>}, {wait: << 400 if row.n == 1 else 0 >>}]}
    """
    async with project(postgres, hold=0.05, spool=200_000) as runs:
        outcome = await runs.run(stack)
        assert outcome.error is not None
        assert outcome.error.code == "limit-reached"
        assert "databases.main.spool" in outcome.error.message
        assert outcome.contents == list(range(1, len(outcome.contents) + 1))


async def test_to_leave_a_loop_in_a_transaction_does_not_end_it(postgres: str) -> None:
    """The next rows are not on their way already: what follows works, and is committed."""
    query(postgres, "CREATE TABLE t (id integer)")
    stack = """
    - db.transaction:
        do:
          - db.execute: INSERT INTO t VALUES (1)
          - db.stream: {sql: 'SELECT n, pg_sleep(CASE WHEN n > 1 THEN 0.2 ELSE 0 END) FROM generate_series(1, 50) n', batch: 1}
            as: rows
          - forEach: {in: << rows >>, as: row, do: [break]}
          - db.stream: SELECT 1 AS a UNION ALL SELECT 2
            as: one
          - db.stream: SELECT 10 AS a UNION ALL SELECT 20
            as: two
          - forEach:
              in: << one >>
              as: x
              do: [{db.execute: INSERT INTO t VALUES (<< x.a >>)}]
          - forEach: {in: << two >>, as: x, do: [{db.transaction: {do: [{db.execute: INSERT INTO t VALUES (<< x.a >>)}]}}]}
    """  # noqa: E501  (a stack, or a table, reads better so)
    async with project(postgres) as runs:
        outcome = await runs.run(stack)
        assert outcome.error is None, outcome.error.message
    found = query(postgres, "SELECT id FROM t WHERE $1 ORDER BY id", True)
    assert [row[0] for row in found] == [1, 1, 2, 10, 20]


async def test_an_error_within_the_rows_comes_after_them(postgres: str) -> None:
    """And belongs to the loop that reads; `retry` and `timeout` are for up to the first row."""
    stack = """
    - db.stream: {sql: 'SELECT 10 / (4 - n) AS q FROM generate_series(1, 9) n', batch: 1}
      as: rows
      retry: {times: 3, delay: 1ms}
    - forEach: {in: << rows >>, as: row, do: [stream: << row.q >>]}
    """
    async with project(postgres) as runs:
        outcome = await runs.run(stack)
        assert outcome.contents == [3, 5, 10]
        assert outcome.error is not None
        assert outcome.error.details["code"] == "22012"
        slow = "- db.stream: SELECT pg_sleep(5)\n  as: r\n  timeout: 80ms\n- forEach: {in: << r >>, as: x, do: [stream: 1]}"  # noqa: E501  (a stack, or a table, reads better so)
        outcome = await runs.run(slow)
        assert outcome.error is not None
        assert outcome.error.code == "timeout"
        await released(postgres)


VALUES = {
    "int2": ["-1"], "int4": ["0", "2147483647"], "int8": ["9007199254740993"],
    "text": ["''", "E'a\"\\\\\\n\\t\\u00e9\\U0001F600/<>'", "null"], "varchar": ["'x'"], "bpchar": ["'x'"],
    "bool": ["true", "false"], "uuid": ["'6f1c2a70-0000-4000-8000-00000000abcd'"],
    "date": ["'2026-05-04'", "'infinity'", "'0044-03-15 BC'", "'12026-01-02'"],
    "jsonb": ["'{\"b\": [1, null, \"x\"], \"a\": 1.5}'", "'null'", "'\"t\"'"],
    "float4": ["0.1", "'NaN'", "1e-7", "3.4028235e38"], "float8": ["0.1", "'Infinity'", "'-Infinity'", "25", "1e22"],
    "numeric": ["1.10", "'NaN'", "1e-9", "123456789012345678901234567890.5"],
    "timestamptz": ["'2026-05-04T03:02:01+02'", "'2026-05-04T03:02:01.0005+00'", "'infinity'", "'0044-03-15 BC'", "'12026-01-02'"],  # noqa: E501  (a stack, or a table, reads better so)
    "timestamp": ["'2026-05-04T03:02:01'", "'2026-05-04T03:02:01.0005'", "'-infinity'", "'0044-03-15 BC'"],
}  # fmt: skip


def test_every_type_that_the_database_encodes_is_compared() -> None:
    """The table below has them all."""
    assert set(VALUES) == set(_COLUMNS)


async def test_encoded_rows_are_those_that_we_would_write(database_url: str) -> None:
    """As NDJSON, SSE and JSON over a socket, byte by byte the JSON of the values that the language reads."""
    from aiohttp import web  # noqa: PLC0415

    from streamstack.server.connection import HttpServer  # noqa: PLC0415

    selects = [f'SELECT {each}::{name} AS "the ""{name}"' for name, all_ in VALUES.items() for each in all_]
    context = Context(databases={"main": Database(url=database_url)})
    stack, plain = "", ""
    for number, select in enumerate(selects):
        escaped = select.replace("\\", "\\\\").replace('"', '\\"')
        stack += f'- db.stream: "{escaped}"\n  as: r{number}\n'
        stack += f"- forEach: {{in: << r{number} >>, as: row, do: [{{stream: << row >>}}]}}\n"
        plain += f'- db.stream: "{escaped}"\n  as: r{number}\n'
        plain += (
            f"- forEach: {{in: << r{number} >>, as: row, do: [{{set: {{copy: << row >>}}}}, {{stream: << copy >>}}]}}\n"
        )
    plans = {"/s": plan_of(stack), "/p": plan_of(plain)}
    endpoints = [endpoint(plan.start, path) for path, plan in plans.items()]
    try:
        async with Service(endpoints, context=context) as service:
            runner = web.ServerRunner(HttpServer(service), shutdown_timeout=1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            for accept in ("application/x-ndjson", "text/event-stream", "application/json"):
                got = {}
                for path in plans:
                    import aiohttp  # noqa: PLC0415

                    async with (
                        aiohttp.ClientSession() as session,
                        session.get(f"http://127.0.0.1:{site.port}{path}", headers={"Accept": accept}) as reply,
                    ):
                        got[path] = await reply.text()
                one, other = ([_numbers(line) for line in got[path].splitlines()] for path in plans)
                assert len(one) >= (1 if accept == "application/json" else len(selects))
                for left, right in zip(one, other, strict=True):
                    assert left == right or "elapsedMs" in str(left)
            await runner.cleanup()
    finally:
        await context.aclose()


def _numbers(line: str) -> Any:
    """Return what a line of JSON holds; 25 and 25.0 are one number."""
    try:
        found = orjson.loads(line.removeprefix("data: "))
    except orjson.JSONDecodeError:
        return line
    if isinstance(found, dict) and "metadata" in found:
        found = found["chunks"]
    return orjson.loads(to_json(found))


async def test_a_reader_who_leaves_lets_go_of_the_cursor(postgres: str) -> None:
    """Over a real socket: the server's cursor is gone soon after the reader is."""
    context = Context(databases={"main": Database(url=postgres)})
    plan = plan_of(
        f'- db.stream: "{ENDLESS}"\n  as: rows\n- forEach: {{in: << rows >>, as: row, do: [stream: << row >>]}}'
    )

    async def start(run: Any, inputs: Any) -> Any:
        object.__setattr__(run, "context", context)
        return await plan.start(run, inputs)

    try:
        async with serving(endpoint(start)) as server:
            client = await server.connect()
            client.ask(extra="Accept: application/x-ndjson\r\n")
            await client.head()
            assert b'"n":1' in await client.chunk()
            assert await busy(postgres) == 1
            client.close()
            await released(postgres)
    finally:
        await context.aclose()
