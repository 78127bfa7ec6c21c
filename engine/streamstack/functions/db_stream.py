"""db.stream: the rows of a statement as they come, in bounded memory."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson
import structlog

from streamstack.connections.postgres.cursor import Cursor, cursor
from streamstack.connections.postgres.database import PAUSES, Database
from streamstack.connections.postgres.failures import RAISED, failure_of, is_lost
from streamstack.connections.postgres.session import Outdated
from streamstack.connections.postgres.spool import Spool
from streamstack.errors import RunError
from streamstack.functions.db_use import CONFIGURED, DATABASE, SQL, Query, database_of
from streamstack.language.declare import Effects, Example, Parameter, function
from streamstack.runtime.feed import Feed
from streamstack.runtime.run import Run
from streamstack.runtime.values import Batches, Stream
from streamstack.spec import Bound, Kind

log = structlog.get_logger("streamstack.database")

#: Rows of the first batch: few, so that the first row is sent soon.
_FIRST: Final = 50


@function(
    "db.stream",
    SQL,
    Parameter(
        "batch",
        Bound(Kind.INTEGER, minimum=1, maximum=100_000),
        "How many rows are fetched at once.",
        default=1000,
    ),
    DATABASE,
    effects=Effects(gives="stream", configured=CONFIGURED),
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
            "the first of ten million",
            "- db.stream: {sql: 'SELECT generate_series(1, 10000000) AS n', batch: 100}\n  as: rows\n"
            "- forEach: {in: << rows >>, as: row, do: [{return: << row.n >>}]}",
            result=1,
        ),
    ],
)
def db_stream(run: Run, sql: Query, batch: int = 1000, database: str | None = None) -> Stream:
    """Give the rows of a statement as they come, by a cursor: memory stays flat however many there are.

    The statement is sent when the stream is first read. The connection is released when the last row was fetched, when
    the loop ends, or when the reader leaves. A slow loop does not hold it: once the next rows have waited for `hold`
    (of the settings, 5s), those that are left are moved to a file on disk, up to `spool` (1GB, else `limit-reached`).
    In a `db.transaction` it is that transaction's connection, which is held anyway. What a statement writes is kept
    when its rows were read to the end, and undone when the loop ends before.

    Where each row is sent unchanged (`stream: << row >>`) as NDJSON, SSE or JSON, the database writes the JSON itself.
    """
    statement, values = sql
    reading = database_of(run, database)

    def read(*, encoded: bool) -> Batches:
        return _Reading(run, reading, (statement, values), batch, encoded=encoded).batches()

    return Stream(lambda: read(encoded=False), encoded=lambda: read(encoded=run.sink.takes_json))


class _Reading:
    """One reading of a statement: a task fetches ahead by one batch, and lets go of the connection in time."""

    def __init__(
        self, run: Run, database: Database, query: Query, size: int, *, encoded: bool
    ) -> None:
        self._run = run
        self._database = database
        self._statement, self._values = query
        self._size = size
        self._encoded = encoded
        self._given = False
        self._spool: Spool | None = None

    async def batches(self) -> Batches:
        """Give the rows."""
        if self._database.held is not None:
            async for rows in self._in_turn():
                yield rows
            return
        try:
            async with Feed(self._fetch) as feed:
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

    async def _in_turn(self) -> Batches:
        """Give the rows of a cursor in a transaction, each batch when it is asked for.

        Nothing is fetched ahead: to leave the loop in the midst of a fetch would cancel it, and end the transaction.
        """
        size = min(_FIRST, self._size)
        try:
            async with cursor(self._database, self._statement, self._values) as opened:
                while rows := await opened.fetch(size):
                    yield rows
                    if opened.ended:
                        return
                    size = self._size
        except (RunError, Outdated, *RAISED) as error:
            raise _failure_of(error, self._database) from error.__cause__

    async def _fetch(self, feed: Feed) -> None:
        """Fetch until the end. A connection that is lost before there was any row is replaced."""
        for pause in PAUSES:
            if pause:
                await asyncio.sleep(pause)
            try:
                async with cursor(
                    self._database, self._statement, self._values, encoded=self._encoded
                ) as opened:
                    await self._hand_over(feed, opened)
            except Exception as error:  # noqa: BLE001  (failure_of raises what is none of the database's)
                failure = _failure_of(error, self._database)
                again = isinstance(error, Outdated) or (
                    is_lost(error.__cause__ or error) and self._statement.reads_only
                )
                if not again or self._given or pause == PAUSES[-1]:
                    raise failure from error.__cause__
                log.info("database-again", database=self._database.name, reason=failure.message)
            else:
                return

    async def _hand_over(self, feed: Feed, opened: Cursor) -> None:
        taken: asyncio.Future[None] | None = None
        size = min(_FIRST, self._size)
        while rows := await opened.fetch(size):
            self._given = True
            if taken is not None and not await self._is_taken(taken):
                await self._move(feed, opened, rows)
                return
            taken = feed.put(rows)
            if opened.ended:
                return
            size = self._size

    async def _is_taken(self, taken: asyncio.Future[None]) -> bool:
        """Wait until the batch before is taken; False where that lasts too long for a connection to be held."""
        await asyncio.wait((taken,), timeout=self._database.settings.hold)
        return taken.done()

    async def _move(self, feed: Feed, opened: Cursor, rows: list[Any]) -> None:
        """Move what is left to the disk, so that the connection is free."""
        spool = self._spool = Spool(self._database.settings.spool)
        feed.put([spool])
        try:
            while rows:
                if not await spool.put(rows):
                    most = self._database.settings.spool
                    raise RunError(
                        "limit-reached",
                        f"the rows that wait for a slow loop have more than {most} bytes: raise "
                        f"`databases.{self._database.name}.spool`, or read less",
                    )
                rows = [] if opened.ended else await opened.fetch(self._size)
        except OSError as error:
            raise RunError(
                "internal", f"the rows that wait for a slow loop can't be kept on disk: {error}"
            ) from error
        finally:
            spool.end()


def _ready(rows: list[Any]) -> list[Any]:
    """Return rows for the reader: a text is JSON that the database has written."""
    return list(map(orjson.Fragment, rows)) if type(rows[0]) is str else rows


def _failure_of(error: Exception, database: Database) -> RunError:
    told = error.__cause__ if isinstance(error, Outdated) and error.__cause__ else error
    return failure_of(told, database.name)
