"""The Databases family: choosing the database, SQL statements, transactions, streams of rows, and notifications."""

from __future__ import annotations

import asyncio
import pickle
import tempfile
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final

import orjson
import structlog

from streamstack.connections.database import ISOLATION, PAUSES, Cursor, Database, Databases
from streamstack.errors import RunError
from streamstack.language.definition import Configured, Effects, Example, Parameter, Property, function
from streamstack.language.graph import Node, constant
from streamstack.language.kinds import Kind
from streamstack.language.names import did_you_mean
from streamstack.language.settings import default_database
from streamstack.language.sql import Statement
from streamstack.language.values import to_json
from streamstack.runtime.compiler import Code
from streamstack.runtime.concurrency import Channel
from streamstack.runtime.decoders.decoder import NotJsonError, parse_json
from streamstack.runtime.run import Context, Run
from streamstack.runtime.values import Batches, Stream
from streamstack.spec import Bound, Constant, Nesting, StackOf

#: Rows that are held whole, unless the author says otherwise.
MOST_ROWS: Final = 10_000

#: A statement, and the values of its parameters.
Query = tuple[Statement, list[Any]]

DATABASE: Final = Parameter(
    "database",
    Constant(),
    "Name of the database under `databases` in streamstack.yaml. Default: the only one, or `main`.",
)
SQL: Final = Parameter(
    "sql",
    Bound(Kind.SQL),
    "SQL statement. Each << binding >> becomes a bound parameter, never part of the SQL text.",
    required=True,
    main=True,
)
LIMIT: Final = Parameter(
    "limit",
    Bound(Kind.INTEGER, minimum=1),
    "Maximum number of rows. A larger result fails with `limit-reached`.",
    default=MOST_ROWS,
)
CONFIGURED: Final = (Configured("database", "databases"),)


def gives_value(result: str) -> Effects:
    """Return the effects of a statement that gives a value of a shape."""
    return Effects(gives="value", result=result, configured=CONFIGURED)


def open_databases(context: Context) -> Databases:
    """Make the databases of a project; each connects when it is first used."""
    return Databases(context.databases, context.folder, joins=context.joins, starts=context.starts)


def database_of(run: Run, name: str | None) -> Database:
    """Return the database that a step means.

    Raises RunError ``template`` where there is none of that name, or more than one to choose from.
    """
    databases = run.context.resource(open_databases)
    known = run.context.databases
    chosen = name if name is not None else default_database(known)
    if chosen is None:
        raise RunError("template", f"say which `database` is meant: {', '.join(known)}", final=True)
    if chosen not in databases:
        message = f"the settings have no database `{chosen}`{did_you_mean(chosen, known)}"
        raise RunError("template", message, final=True)
    return databases[chosen]


async def held_rows(run: Run, database: str | None, query: Query, limit: int) -> list[dict[str, Any]]:
    """Run a statement and return all its rows.

    Raises RunError ``limit-reached`` for more than ``limit``, ``database``.
    """
    statement, values = query
    rows = await database_of(run, database).rows(statement, values, limit + 1)
    if len(rows) > limit:
        raise RunError(
            "limit-reached", f"the statement gives more than {limit} rows: raise `limit`, or read them with `db.stream`"
        )
    return rows


@function(
    "db.query",
    SQL,
    DATABASE,
    LIMIT,
    effects=gives_value("[{...}]"),
    examples=[
        Example(
            "rows as a list of objects",
            "- db.query: SELECT n, n * n AS square FROM generate_series(1, << input.upTo >>) n\n"
            "  as: rows\n- return: << rows >>",
            inputs={"upTo": 2},
            result=[{"n": 1, "square": 1}, {"n": 2, "square": 4}],
        ),
        Example(
            "match any value of a list",
            "- db.query: SELECT n FROM generate_series(1, 9) n WHERE n = ANY(<< input.wanted >>)\n"
            "  as: rows\n- return: << rows | map(attribute='n') >>",
            inputs={"wanted": [2, 3, 12]},
            result=[2, 3],
        ),
        Example(
            "a value never changes the statement",
            "- db.query: SELECT count(*) AS found FROM pg_class WHERE relname = << input.name >>\n"
            "  as: rows\n- return: << rows[0].found >>",
            inputs={"name": "x' OR '1'='1"},
            result=0,
        ),
    ],
)
async def db_query(
    run: Run, sql: Query, database: str | None = None, limit: int = LIMIT.default
) -> list[dict[str, Any]]:
    """Run a statement and return its rows as a list of objects, with the column names as keys.

    The result must fit in memory; use `db.stream` for large results. A binding is a bound parameter, converted
    to the type that the statement expects: a text to a timestamp, a uuid or a number, a list to an array, an
    object to jsonb. For a list write `= ANY(<< ids >>)`. `<% if %>` can select parts of the statement.

    Errors have the code `database`, with PostgreSQL's code in `error.details.code`. Outside a transaction, a
    statement that only reads is retried if its connection was lost.
    """
    return await held_rows(run, database, sql, limit)


@function(
    "db.first",
    SQL,
    DATABASE,
    effects=gives_value("{...}?"),
    examples=[
        Example(
            "a row, or null",
            "- db.first: SELECT 1 AS one\n  as: row\n- db.first: SELECT 1 WHERE false\n  as: nothing\n"
            "- return: << [row.one, nothing] >>",
            result=[1, None],
        )
    ],
)
async def db_first(run: Run, sql: Query, database: str | None = None) -> dict[str, Any] | None:
    """Run a statement and return its first row as an object; null if there is none. Other rows are not fetched."""
    return await _first_row(run, sql, database)


async def _first_row(run: Run, query: Query, database: str | None) -> dict[str, Any] | None:
    statement, values = query
    rows = await database_of(run, database).rows(statement, values, 1)
    return rows[0] if rows else None


@function(
    "db.value",
    SQL,
    DATABASE,
    effects=gives_value("any?"),
    examples=[
        Example(
            "a single value",
            "- db.value: SELECT count(*) FROM generate_series(1, 5)\n  as: count\n- return: << count >>",
            result=5,
        )
    ],
)
async def db_value(run: Run, sql: Query, database: str | None = None) -> Any:
    """Run a statement and return the first column of its first row; null if there is no row."""
    row = await _first_row(run, sql, database)
    return next(iter(row.values()), None) if row is not None else None


@function(
    "db.execute",
    SQL,
    DATABASE,
    effects=gives_value("integer"),
    examples=[
        Example(
            "number of rows",
            "- db.transaction:\n    do:\n      - db.execute: CREATE TEMPORARY TABLE box (id integer) ON COMMIT DROP\n"
            "      - db.execute: INSERT INTO box VALUES (1), (2)\n        as: count\n- return: << count >>",
            result=2,
        )
    ],
)
async def db_execute(run: Run, sql: Query, database: str | None = None) -> int:
    """Run a statement and return the number of affected rows.

    Session settings (`SET`) do not outlive the step, or the transaction around it.
    """
    statement, values = sql
    return await database_of(run, database).count(statement, values)


@function(
    "db.transaction",
    Parameter("do", StackOf(Nesting.ONCE, transaction=True), "Steps to run in the transaction.", required=True),
    DATABASE,
    Parameter(
        "isolation", Constant(choices=tuple(ISOLATION)), "Isolation level. PostgreSQL's default is readCommitted."
    ),
    effects=Effects(configured=CONFIGURED),
    examples=[
        Example(
            "roll back on an error",
            "- try:\n    do:\n      - db.transaction:\n          do:\n"
            "            - db.execute: CREATE TABLE moved (id integer)\n"
            "            - throw: {code: changed-my-mind, message: no}\n"
            "    catch: {do: [{log: undone}]}\n"
            "- db.value: SELECT to_regclass('moved') IS NULL\n  as: undone\n- return: << undone >>",
            result=True,
        )
    ],
    compiled=True,
)
def db_transaction(node: Node, code: Code) -> None:
    """Run steps in a database transaction.

    The transaction includes the functions that the steps call. It is committed if the steps end, or leave with
    `return`, `break` or `continue`, and rolled back on an error. A nested transaction is a savepoint: an error
    rolls back only its own changes. Branches of `parallel` in it run their statements one at a time. The
    transaction holds a connection until it ends, so send chunks after it, not in it. Use `retry` for conflicts
    with other transactions (the codes 40001 and 40P01).
    """
    database = constant(node.arguments.get("database"), None)
    isolation = constant(node.arguments.get("isolation"), None)
    opened = code.constant(transaction)
    with code.indented(f"async with {opened}(run, {code.literal(database)}, {code.literal(isolation)}):", blocks=1):
        code.block(node.inner())


def transaction(run: Run, database: str | None, isolation: str | None) -> Any:
    """Return the transaction as an asynchronous context. Raises RunError ``database``."""
    if isolation is not None and isolation not in ISOLATION:
        raise RunError("template", f"unknown isolation `{isolation}`")
    return database_of(run, database).transaction(isolation)


log = structlog.get_logger("streamstack.database")

#: Rows of the first batch: few, so that the first row is sent soon.
_FIRST: Final = 16
#: Bytes of memory that a batch should take, which is fewer rows than `batch` if they are long.
_BATCH_BYTES: Final = 256 * 1024
#: Rows that are weighed to estimate that, and how many times as many rows a batch may have as the one before.
_SAMPLE: Final = 10
_GROWTH: Final = 8
#: Seconds to end listening at the end of a run.
_UNSUBSCRIBE_WITHIN: Final = 10.0


@function(
    "db.stream",
    SQL,
    Parameter(
        "batch",
        Bound(Kind.INTEGER, minimum=1, maximum=100_000),
        "Maximum number of rows per fetch; fewer if they are large.",
        default=1000,
    ),
    DATABASE,
    effects=Effects(gives="stream", result="stream of {...}", configured=CONFIGURED),
    examples=[
        Example(
            "row by row",
            "- db.stream: SELECT n, n % 2 = 0 AS even FROM generate_series(1, << input.upTo >>) n\n  as: rows\n"
            "- forEach: {in: << rows >>, as: row, do: [{stream: << row >>}]}\n- return: << rows.count >>",
            inputs={"upTo": 2},
            chunks=({"n": 1, "even": False}, {"n": 2, "even": True}),
            result=2,
        ),
        Example(
            "the first of ten million rows",
            "- db.stream: {sql: 'SELECT generate_series(1, 10000000) AS n', batch: 100}\n  as: rows\n"
            "- forEach: {in: << rows >>, as: row, do: [{return: << row.n >>}]}",
            result=1,
        ),
    ],
)
def db_stream(run: Run, sql: Query, batch: int = 1000, database: str | None = None) -> Stream:
    """Stream the rows of a statement with a cursor, in constant memory for any number of rows.

    The statement is sent when the stream is first read. The connection is released when the last row has been
    fetched, when the loop ends, or when the client disconnects. A stream holds two batches of about 256 KB at
    most. A slow consumer does not block it: if fetched
    rows wait for longer than `hold` (of the settings, 5s), the remaining rows are moved to a temporary file of
    at most `spool` (1GB; more fails with `limit-reached`). In a `db.transaction` the stream uses the
    transaction's connection. Changes made by the statement are committed if all rows were read, and rolled back
    if the loop ends before.

    If each row is sent unchanged (`stream: << row >>`) as NDJSON, SSE or JSON, the database serializes the JSON
    itself.
    """
    statement, values = sql
    reading = database_of(run, database)

    def read(*, encoded: bool) -> Batches:
        return _Reading(run, reading, (statement, values), batch, encoded=encoded).batches()

    return Stream(lambda: read(encoded=False), encoded=lambda: read(encoded=run.sink.takes_json))


class _Reading:
    """One read of a statement: a task prefetches one batch, and releases the connection in time."""

    def __init__(self, run: Run, database: Database, query: Query, size: int, *, encoded: bool) -> None:
        self._run = run
        self._database = database
        self._statement, self._values = query
        self._size = size
        self._encoded = encoded
        self._yielded = False
        self._spool: Spool | None = None

    async def batches(self) -> Batches:
        """Yield the rows."""
        if self._database.in_transaction:
            async for rows in self._sequential():
                yield rows
            return
        try:
            async with Channel(self._fetch) as feed:
                while rows := await feed.take() or []:
                    spool = rows.pop() if isinstance(rows[-1], Spool) else None
                    if rows:
                        yield _ready(rows)
                    if spool is not None:
                        async for more in spool.batches():
                            yield _ready(more)
        finally:
            if self._spool is not None:
                self._spool.close()

    async def _sequential(self) -> Batches:
        """Yield the rows of a cursor in a transaction, fetching each batch on demand.

        Nothing is prefetched: leaving the loop in the middle of a fetch would cancel it, and end the
        transaction.
        """
        size = min(_FIRST, self._size)
        async with self._database.cursor(self._statement, self._values) as opened:
            while rows := await opened.fetch(size):
                yield rows
                if opened.ended:
                    return
                size = self._next_size(rows)

    async def _fetch(self, feed: Channel) -> None:
        """Fetch until the end. A connection that is lost before there was any row is replaced."""
        for pause in PAUSES:
            if pause:
                await asyncio.sleep(pause)
            try:
                async with self._database.cursor(self._statement, self._values, encoded=self._encoded) as opened:
                    await self._hand_over(feed, opened)
            except RunError as error:
                again = self._database.may_retry(error, self._statement)
                if not again or self._yielded or pause == PAUSES[-1]:
                    raise
                log.info("database-again", database=self._database.name, reason=error.message)
            else:
                return

    async def _hand_over(self, feed: Channel, opened: Cursor) -> None:
        size = min(_FIRST, self._size)
        while rows := await opened.fetch(size):
            self._yielded = True
            taken = feed.put(rows)
            if opened.ended:
                return
            size = self._next_size(rows)
            # Only then is more fetched: an unread stream holds the batch in the loop and the one that waits.
            if not await self._is_taken(taken):
                await self._move(feed, opened, size)
                return

    def _next_size(self, rows: list[Any]) -> int:
        """Return how many rows to fetch next, so that a batch has a bounded size whatever a row has."""
        some = rows[:: len(rows) // _SAMPLE + 1]
        average = sum(map(_weight, some)) // len(some)
        return max(1, min(self._size, _GROWTH * len(rows), _BATCH_BYTES // average))

    async def _is_taken(self, taken: asyncio.Future[None]) -> bool:
        """Wait until the batch before is taken; False where that lasts too long for a connection to be held."""
        await asyncio.wait((taken,), timeout=self._database.settings.hold)
        return taken.done()

    async def _move(self, feed: Channel, opened: Cursor, size: int) -> None:
        """Move what is left to the disk, so that the connection is free."""
        spool = self._spool = Spool(self._database.settings.spool)
        feed.put([spool])
        try:
            while not opened.ended and (rows := await opened.fetch(size)):
                if not await spool.put(rows):
                    most = self._database.settings.spool
                    raise RunError(
                        "limit-reached",
                        f"the rows that wait for a slow loop have more than {most} bytes: raise "
                        f"`databases.{self._database.name}.spool`, or read less",
                    )
                size = self._next_size(rows)
        except OSError as error:
            raise RunError(
                "internal", f"the rows that wait for a slow loop can't be stored on disk: {error}"
            ) from error
        finally:
            spool.end()


def _weight(row: Any) -> int:
    """Return about how many bytes of memory a row takes: a text, or an object of some values."""
    return len(row) + 100 if type(row) is str else len(to_json(row)) + 100 * len(row) + 100


def _ready(rows: list[Any]) -> list[Any]:
    """Return rows for the reader: a text is JSON that the database has written."""
    return list(map(orjson.Fragment, rows)) if type(rows[0]) is str else rows


class Spool:
    """A file of batches, read while it is still being written. It has no name: it is gone with the process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._file = tempfile.TemporaryFile(prefix="streamstack-rows-")  # noqa: SIM115
        self._end = 0
        self._sizes: deque[int] = deque()  # of the batches that were not read yet
        self._ended = False
        self._bell = asyncio.Event()
        self._lock = asyncio.Lock()

    async def put(self, rows: list[Any]) -> bool:
        """Add a batch; False where the file would have more bytes than it may."""
        data = await asyncio.to_thread(pickle.dumps, rows, pickle.HIGHEST_PROTOCOL)
        if self._end + len(data) > self._most:
            return False
        async with self._lock:
            await asyncio.to_thread(self._write, self._end, data)
        self._end += len(data)
        self._sizes.append(len(data))
        self._bell.set()
        return True

    def end(self) -> None:
        """Mark the end of the batches."""
        self._ended = True
        self._bell.set()

    async def batches(self) -> AsyncGenerator[list[Any], None]:
        """Yield the batches in order as they become available, then close the file."""
        at = 0
        try:
            while True:
                while not self._sizes:
                    if self._ended:
                        return
                    self._bell.clear()
                    await self._bell.wait()
                size = self._sizes.popleft()
                async with self._lock:
                    data = await asyncio.to_thread(self._read, at, size)
                at += size
                # Our own rows, from a file that no other process can open.
                yield pickle.loads(data)  # noqa: S301
        finally:
            self.close()

    def _write(self, at: int, data: bytes) -> None:
        self._file.seek(at)
        self._file.write(data)

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        return self._file.read(size)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


@function(
    "db.listen",
    Parameter(
        "channel",
        Bound(Kind.TEXT),
        "Channel name, as in `NOTIFY channel`. Lower case unless NOTIFY quotes it.",
        required=True,
        main=True,
    ),
    Parameter(
        "onGap",
        Constant(choices=("pass", "give", "fail")),
        "What to do after the connection was lost and notifications may have been missed. `pass`: continue. "
        "`give`: return an item with `gap`. `fail`: fail with the error `stream-lost`.",
        default="pass",
    ),
    DATABASE,
    effects=Effects(
        gives="stream",
        result="stream of {channel: text?, payload: any, gap: boolean}",
        configured=CONFIGURED,
        properties=(Property("gaps", "Number of times the connection was lost.", "integer"),),
    ),
    examples=[
        Example(
            "wait for a notification",
            "- parallel:\n    branches:\n      reader:\n"
            "        - db.listen: orders\n          as: notices\n"
            "        - streams.take: {in: << notices >>, count: 1}\n          as: one\n"
            "        - forEach: {in: << one >>, as: notice, do: [{stream: << notice.payload.id >>}]}\n"
            "      writer:\n        - wait: 200ms\n"
            "        - db.query: SELECT pg_notify('orders', '{\"id\":7}')\n          as: notified",
            chunks=(7,),
        )
    ],
)
async def db_listen(run: Run, channel: str, on_gap: str = "pass", database: str | None = None) -> Stream:
    """Listen to a channel (`NOTIFY`) and stream its notifications as {channel, payload, gap}.

    Listening begins with this step and ends with the loop or the run. Notifications that are sent before the
    stream is read wait in it: listen first, then query what happened before, and none is missed. `retry` and
    `timeout` of the step apply to the connection.

    The payload is a value if it is a JSON object or array, otherwise the unchanged text; `gap` is false. All
    listeners of a database share one connection outside the pool. A lost connection is reopened, first after
    100ms, then at intervals of up to 10s. PostgreSQL does not store notifications, so those sent in the meantime
    are lost: `onGap` decides what happens then. A consumer that falls 10,000 notifications behind fails with
    `limit-reached`.
    """
    listening = database_of(run, database)
    subscription = await listening.subscribe(channel)

    async def unsubscribe() -> None:
        await listening.unsubscribe(subscription)

    run.after(unsubscribe, _UNSUBSCRIBE_WITHIN)  # an unread stream is not closed

    async def open_() -> Batches:
        try:
            while True:
                items = [notification(channel, payload) for payload in await subscription.take()]
                lost = next((at for at, item in enumerate(items) if item["gap"]), None)
                if lost is not None and on_gap == "fail":
                    if lost:
                        yield items[:lost]
                    raise RunError("stream-lost", f"the connection to listen on `{channel}` was lost")
                if on_gap != "give":
                    items = [item for item in items if not item["gap"]]
                if items:
                    yield items
        finally:
            await unsubscribe()

    return Stream(open_, {"gaps": lambda: subscription.gaps})


def notification(channel: str, payload: str | None) -> dict[str, Any]:
    """Return the item of a notification; one without a payload is a gap."""
    value: Any = payload
    if payload is not None and payload.lstrip()[:1] in ("{", "["):  # any other text stays as it is: 1.10, null, "a"
        with suppress(NotJsonError):
            value = parse_json(payload.encode())
    return {"channel": channel, "payload": value, "gap": payload is None}


FUNCTIONS = (db_query, db_first, db_value, db_execute, db_transaction)
STREAMS = (db_stream, db_listen)
