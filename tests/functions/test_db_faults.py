"""A server that dies: what is documented comes to pass, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from streamstack.errors import RunError
from streamstack.functions.db import open_databases
from streamstack.language.settings import Database
from streamstack.runtime.run import Context, Run
from tests.collector import Collector
from tests.postgres import Server, query
from tests.stacks import Outcome, plan_of


class Project:
    """Runs that share their databases, as those of a server do."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.sink = Collector()

    async def run(self, stack: str, inputs: Mapping[str, Any] | None = None) -> Outcome:
        plan = plan_of(stack)
        self.sink = sink = Collector()
        run = Run(sink, self.context)
        result, error = None, None
        try:
            result = await plan.start(run, dict(inputs or {}))
        except RunError as raised:
            error = raised
        await run.finish("failed" if error else "completed")
        return Outcome(result, error, sink, run, plan, [each.content for each in sink.chunks])

    async def chunks(self, count: int) -> None:
        """Wait until the run under way has sent so many."""
        async with asyncio.timeout(40):
            while len(self.sink.chunks) < count:  # noqa: ASYNC110  (what is waited for has no event)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def project(url: str, **settings: Any) -> AsyncIterator[Project]:
    """Give a project; at its end no task of it may be left."""
    before = asyncio.all_tasks()
    context = Context(databases={"main": Database(url=url, **settings)})
    try:
        yield Project(context)
    finally:
        await context.aclose()
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() - before == set()


CURSOR = """
- db.stream: {sql: 'SELECT n FROM generate_series(1, 100000) n', batch: 10}
  as: rows
- forEach: {in: << rows >>, as: row, do: [{stream: << row.n >>}, {wait: 2ms}]}
"""
TRANSACTION = """
- db.transaction:
    do:
      - db.execute: INSERT INTO t VALUES (1)
      - stream: written
      - db.execute: SELECT pg_sleep(20)
"""


async def test_a_server_killed_in_the_middle_of_a_cursor(own_postgres: Server) -> None:
    """Rows that were sent stay sent; the run then fails with `database`, 503, and goes on nowhere else."""
    async with project(own_postgres.url) as runs:
        task = asyncio.create_task(runs.run(CURSOR))
        await asyncio.sleep(0)
        await runs.chunks(3)
        await asyncio.to_thread(own_postgres.kill)
        outcome = await asyncio.wait_for(task, 40)
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.status) == ("database", 503)
        assert outcome.contents == list(range(1, len(outcome.contents) + 1))
        assert len(outcome.contents) < 100_000


async def test_a_server_killed_in_a_transaction_keeps_nothing_of_it(own_postgres: Server) -> None:
    """What it wrote is gone, the error says so, nothing is sent again; the next run works once the server is back."""
    query(own_postgres.url, "CREATE TABLE t (id integer)")
    async with project(own_postgres.url) as runs:
        task = asyncio.create_task(runs.run(TRANSACTION))
        await asyncio.sleep(0)
        await runs.chunks(1)
        await asyncio.to_thread(own_postgres.kill)
        outcome = await asyncio.wait_for(task, 40)
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.status) == ("database", 503), outcome.error.details
        away = await runs.run("- db.value: SELECT 1\n  as: v\n- return: << v >>")
        assert away.error is not None
        assert (away.error.status, away.error.details["code"]) == (503, "08006")
        await asyncio.to_thread(own_postgres.start)
        count = "- db.value: SELECT count(*) FROM t\n  as: v\n- return: << v >>"
        assert (await runs.run(count)).result == 0


async def test_a_server_that_restarts_between_two_runs(own_postgres: Server) -> None:
    """The connections that were lost are replaced unseen: for reads, for writes, and for transactions."""
    query(own_postgres.url, "CREATE TABLE t (id integer)")
    insert = "- db.execute: INSERT INTO t VALUES (1)\n- return: 1"
    within = "- db.transaction: {do: [{db.execute: INSERT INTO t VALUES (2)}]}\n- return: 1"
    read = "- db.value: SELECT count(*) FROM t\n  as: v\n- return: << v >>"
    async with project(own_postgres.url) as runs:
        for number, stack in enumerate((insert, within, read)):
            await runs.run("- db.value: SELECT 1\n  as: v")
            await asyncio.to_thread(own_postgres.stop)
            await asyncio.to_thread(own_postgres.start)
            outcome = await runs.run(stack)
            assert outcome.error is None, (number, outcome.error.message)
        assert outcome.result == 2


async def test_a_statement_whose_connection_is_cut(own_postgres: Server) -> None:
    """One that only reads is sent again. One that may have written is not, unless the server says it did nothing."""
    query(
        own_postgres.url,
        "CREATE TABLE t (id integer); CREATE FUNCTION f() RETURNS integer LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO t VALUES (1); PERFORM pg_sleep(0.3); RETURN 5; END $$",
    )
    async with project(own_postgres.url) as runs:
        for stack in ("SELECT 5 FROM pg_sleep(0.3)", "SELECT f()"):
            task = asyncio.create_task(runs.run(f"- db.value: {stack}\n  as: v\n- return: << v >>"))
            await asyncio.sleep(0.15)
            await asyncio.to_thread(own_postgres.terminate_backends)
            assert (await task).result == 5
        assert query(own_postgres.url, "SELECT count(*) FROM t WHERE $1", True)[0][0] == 1
        task = asyncio.create_task(runs.run("- db.value: SELECT f()\n  as: v\n- return: << v >>"))
        await asyncio.sleep(0.15)
        await asyncio.to_thread(own_postgres.kill)  # what it did is unknown
        await asyncio.to_thread(own_postgres.start)
        outcome = await task
        assert outcome.error is not None
        assert outcome.error.status == 503
        assert query(own_postgres.url, "SELECT count(*) FROM t WHERE $1", True)[0][0] == 1


@contextmanager
def without_the_end(url: str) -> Iterator[str]:
    """Give an address at which what the server says arrives, but never that it has closed the connection.

    A caller there is served by another loop, so that the tasks of this one can be counted.
    """
    (folder,) = parse_qs(urlsplit(url).query)["host"]
    goodbye = b"X\0\0\0\4"  # Terminate (PostgreSQL 18, section 54.7)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while data != goodbye and (data := await reader.read(65536)):
            writer.write(data)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, before = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        answers = asyncio.create_task(pass_on(behind, writer))
        await pass_on(reader, before)
        answers.cancel()
        for each in (before, writer):
            each.close()

    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    begun = asyncio.run_coroutine_threadsafe(asyncio.start_server(relay, "127.0.0.1", 0), loop)
    server = begun.result(10)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.call_later, 0.1, loop.stop)
        thread.join(10)
        loop.close()


async def test_a_connection_on_which_the_server_has_said_its_last_words(own_postgres: Server) -> None:
    """Asyncpg refuses to send on it: reads and writes go over another one, once; a transaction is over, with 503."""
    query(own_postgres.url, "CREATE TABLE t (id integer)")
    with without_the_end(own_postgres.url) as url:
        async with project(url) as runs:
            for stack in (
                "- db.value: SELECT 5\n  as: v",
                "- db.execute: INSERT INTO t VALUES (1)\n  as: v",
                "- db.transaction: {do: [{db.execute: INSERT INTO t VALUES (2)}]}",
                "- db.stream: SELECT 5\n  as: rows\n- collect: << rows >>\n  as: all",
            ):
                await runs.run("- db.value: SELECT 1\n  as: v")
                await asyncio.to_thread(own_postgres.terminate_backends)
                await asyncio.sleep(0.2)
                outcome = await runs.run(stack)
                assert outcome.error is None, (stack, outcome.error.message)
            task = asyncio.create_task(
                runs.run(
                    "- db.transaction:\n    do:\n      - db.execute: INSERT INTO t VALUES (3)\n      - stream: a\n"
                    "      - wait: 500ms\n      - db.execute: INSERT INTO t VALUES (4)"
                )
            )
            await asyncio.sleep(0)
            await runs.chunks(1)
            await asyncio.to_thread(own_postgres.terminate_backends)
            error = (await task).error
            assert error is not None
            assert (error.code, error.status) == ("database", 503)
            rows = query(own_postgres.url, "SELECT id FROM t WHERE $1 ORDER BY id", True)
            assert [each[0] for each in rows] == [1, 2]


async def test_a_server_killed_while_notices_are_awaited(own_postgres: Server) -> None:
    """Listening goes on by itself when the server is back; the gap is reported as `onGap` says."""
    stack = """
    - db.listen: {channel: orders, onGap: give}
      as: notices
    - forEach:
        in: << notices >>
        as: notice
        do:
          - stream: << notice >>
          - if: {condition: << notice.payload == "last" >>, then: [return: << notices.gaps >>]}
    """
    failing = """
    - db.listen: {channel: orders, onGap: fail}
      as: n
    - forEach: {in: << n >>, as: x, do: [stream: << x >>]}
    """
    async with project(own_postgres.url) as runs, project(own_postgres.url) as others:
        task = asyncio.create_task(runs.run(stack))
        other = asyncio.create_task(others.run(failing))
        await _listening(own_postgres.url, 2)
        query(own_postgres.url, "NOTIFY orders, 'first'")
        await runs.chunks(1)
        await asyncio.to_thread(own_postgres.kill)
        await asyncio.to_thread(own_postgres.start)
        await runs.chunks(2)
        query(own_postgres.url, "NOTIFY orders, 'last'")
        outcome = await asyncio.wait_for(task, 40)
        assert outcome.error is None
        assert [(each["payload"], each["gap"]) for each in outcome.contents] == [
            ("first", False), (None, True), ("last", False),
        ]  # fmt: skip
        assert outcome.result == 1
        failed = await asyncio.wait_for(other, 40)
        assert failed.error is not None
        assert failed.error.code == "stream-lost"


LISTENS = (
    # While it is active, a notice would come too early.
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE $1 AND state = 'idle' AND datname = current_database()"
)


async def _listening(url: str, count: int) -> None:
    async with asyncio.timeout(40):
        while True:
            found = query(url, LISTENS, "LISTEN%")
            if found[0][0] >= count:
                return
            await asyncio.sleep(0.02)


async def test_many_listen_on_one_connection(postgres: str) -> None:
    """Each gets every notice of its channel; the connection ends with the last of them."""
    reader = """
    - db.listen: << input.c >>
      as: all
    - streams.take: {in: << all >>, count: 2}
      as: two
    - collect: << two >>
      as: got
    - return: << got | map(attribute='payload') >>
    """
    async with project(postgres) as runs:
        tasks = [asyncio.create_task(runs.run(reader, {"c": each})) for each in ("a", "a", "B c")]
        await _listening(postgres, 1)
        database: Any = runs.context.resource(open_databases)["main"]
        listening = database._listener  # noqa: SLF001
        while len(listening._channels) < 2:  # noqa: ASYNC110, SLF001  (nothing else tells when they all listen)  # noqa: ASYNC110  (the server tells by being asked)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        query(postgres, "NOTIFY a, '1.10'; NOTIFY \"B c\", '{\"x\":1}'; NOTIFY a, 'two'; NOTIFY \"B c\"")
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks), 40)
        assert [each.result for each in outcomes] == [["1.10", "two"], ["1.10", "two"], [{"x": 1}, ""]]
        assert listening._connection is None  # noqa: SLF001
    assert query(postgres, LISTENS, "%LISTEN%")[0][0] == 0


async def test_listening_begins_with_its_step(postgres: str) -> None:
    """What is sent between the step and the loop waits in the stream; one that is never read ends with its run."""
    query(postgres, "CREATE TABLE log (n integer); INSERT INTO log VALUES (1), (2)")
    stack = """
    - db.listen: log
      as: news
      retry: {times: 2}
      timeout: 20s
    - db.stream: SELECT n FROM log ORDER BY n
      as: history
    - forEach: {in: << history >>, as: row, do: [{stream: << row.n >>}]}
    - db.execute: INSERT INTO log VALUES (3)
    - db.execute: SELECT pg_notify('log', '3')
    - wait: 50ms
    - streams.take: {in: << news >>, count: 1}
      as: first
    - forEach: {in: << first >>, as: notice, do: [{stream: << notice.payload >>}]}
    - return: << news.gaps >>
    """
    async with project(postgres) as runs:
        outcome = await runs.run(stack)
        assert (outcome.error, outcome.contents, outcome.result) == (None, [1, 2, "3"], 0)
        unread = await runs.run("- db.listen: log\n  as: news\n- throw: {code: enough, message: x}")
        assert unread.error is not None
        assert unread.error.code == "enough"
        assert runs.context.resource(open_databases)["main"]._listener._connection is None  # type: ignore[attr-defined]  # noqa: SLF001
    async with project("postgresql://127.0.0.1:1/none") as runs:
        caught = "- try: {do: [{db.listen: a, as: n}], catch: {do: [{return: << error.code >>}]}}"
        assert (await runs.run(caught)).result == "database"


async def test_a_loop_that_falls_behind_is_ended(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets what came before the hole, then `limit-reached`, and nothing from behind the hole."""
    monkeypatch.setattr("streamstack.connections.database.MOST_NOTICES", 3)
    stack = """
    - db.listen: a
      as: all
    - forEach: {in: << all >>, as: one, do: [{stream: << one.payload >>}, {wait: << 1000 if loop.first else 0 >>}]}
    """
    async with project(postgres) as runs:
        task = asyncio.create_task(runs.run(stack))
        await _listening(postgres, 1)
        query(postgres, "NOTIFY a, '0'")
        await runs.chunks(1)
        query(postgres, "; ".join(f"NOTIFY a, '{number}'" for number in range(1, 9)))
        outcome = await asyncio.wait_for(task, 40)
        assert outcome.error is not None
        assert outcome.error.code == "limit-reached"
        assert outcome.contents == ["0", "1", "2", "3"]
