"""The pool: how many connections, who gets them, what becomes of those that are lost or in disorder."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamstack.connections.database.pool import Pool
from streamstack.connections.database.postgres import PostgresDatabase as Database
from streamstack.errors import RunError
from streamstack.language.settings import Database as Settings
from tests.postgres import query


class Fake:
    """A connection as far as the pool sees it."""

    def __init__(self) -> None:
        self.closed = self.reset_ = self.within = False

    def is_closed(self) -> bool:
        return self.closed

    def is_in_transaction(self) -> bool:
        return self.within

    async def reset(self) -> None:
        await asyncio.sleep(0)
        self.reset_ = True

    async def execute(self, sql: str) -> None:
        assert sql == "DISCARD TEMP"

    async def close(self, timeout: float) -> None:
        self.closed = True

    def terminate(self) -> None:
        self.closed = True


def pool_of(most: int) -> tuple[Pool, list[Any]]:
    """Return a pool of fakes, and the list of those it makes."""
    made: list[Any] = []

    async def connect() -> Any:
        await asyncio.sleep(0)
        made.append(Fake())
        return made[-1]

    return Pool(connect, most), made


async def test_no_more_than_allowed_and_the_last_is_the_next() -> None:
    """Connections are made when needed; the one used last is used again."""
    pool, made = pool_of(2)
    one, two = await pool.acquire(1), await pool.acquire(1)
    with pytest.raises(TimeoutError):
        await pool.acquire(0.01)
    pool.release(one)
    pool.release(two)
    assert await pool.acquire(1) is two
    assert len(made) == 2


async def test_who_waits_is_served_in_turn_and_a_cancelled_one_passes_on() -> None:
    """A waiter that is cancelled, even as it was being served, costs no connection."""
    pool, made = pool_of(1)
    held = await pool.acquire(1)
    waiting = [asyncio.create_task(pool.acquire(5)) for _ in range(4)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    pool.release(held)  # served to the second
    waiting[1].cancel()  # before it ran: to the third
    got = await asyncio.wait_for(waiting[2], 1)
    assert got is held
    pool.release(got)
    assert await asyncio.wait_for(waiting[3], 1) is held
    assert len(made) == 1


async def test_a_lost_connection_makes_room() -> None:
    """Who waits makes a new one in its place; idle ones that were lost are skipped."""
    pool, made = pool_of(1)
    held = await pool.acquire(1)
    waiting = asyncio.create_task(pool.acquire(5))
    await asyncio.sleep(0)
    held.closed = True
    pool.release(held)
    fresh = await asyncio.wait_for(waiting, 1)
    assert fresh is not held
    pool.release(fresh)
    fresh.closed = True
    assert await pool.acquire(1) is made[2]


async def test_one_that_cant_be_made_is_not_counted() -> None:
    """Every try is free to fail, and the next to succeed."""
    failing = True

    async def connect() -> Any:
        if failing:
            raise ConnectionRefusedError
        return Fake()

    pool = Pool(connect, 1)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await pool.acquire(1)
    failing = False
    assert isinstance(await pool.acquire(1), Fake)


async def test_what_is_in_disorder_is_brought_into_order() -> None:
    """A connection in a transaction, or after an error, is reset before anyone else has it."""
    pool, _ = pool_of(1)
    held: Any = await pool.acquire(1)
    held.within = True
    pool.release(held)
    assert await pool.acquire(1) is held
    assert held.reset_


async def test_the_end_waits_for_those_in_use_and_takes_no_more() -> None:
    """Waiting steps fail; what comes back is closed, also where all were lost once before."""
    pool, made = pool_of(1)
    lost: Any = await pool.acquire(1)
    lost.closed = True
    pool.release(lost)
    held = await pool.acquire(1)
    waiting = asyncio.create_task(pool.acquire(5))
    await asyncio.sleep(0)
    end = asyncio.create_task(pool.aclose(5))
    await asyncio.sleep(0.02)
    assert not end.done()
    with pytest.raises(RunError, match="shutting down"):
        await waiting
    pool.release(held)
    await asyncio.wait_for(end, 1)
    assert all(each.closed for each in made)


async def test_a_real_session_leaves_nothing_behind(postgres: str) -> None:
    """Settings, temporary tables, locks and open transactions of one use are gone in the next, on one connection."""
    database = Database(Settings(url=postgres, pool_size=1), folder=None)  # type: ignore[arg-type]  # not embedded
    from streamstack.language.sql import statement_of  # noqa: PLC0415  (here only)

    async def value(sql: str) -> Any:
        rows = await database.rows(statement_of((sql,)), [])
        return next(iter(rows[0].values())) if rows else None

    try:
        pid = await value("SELECT pg_backend_pid()")
        await value("SET statement_timeout = '77s'")
        await value("SELECT set_config('work_mem', '1234kB', false)")
        await value("CREATE TEMPORARY TABLE pg_class_of_mine (id int)")
        await value("SELECT pg_advisory_lock(5)")
        await value("BEGIN")
        assert await value("SELECT current_setting('statement_timeout')") == "0"
        assert await value("SELECT current_setting('work_mem')") != "1234kB"
        assert await value("SELECT to_regclass('pg_class_of_mine')") is None
        assert await value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        assert await value("SELECT current_setting('TimeZone')") == "UTC"
        assert await value("SELECT pg_backend_pid()") == pid
    finally:
        await database.aclose()


async def test_a_cancelled_statement_frees_its_connection(postgres: str) -> None:
    """It is cancelled on the server too, and the connection serves the next."""
    database = Database(Settings(url=postgres, pool_size=1), folder=None)  # type: ignore[arg-type]  # not embedded
    try:
        async with database.session() as session:
            pid = session.connection.get_server_pid()

        async def sleep() -> None:
            async with database.session() as session:
                await session.connection.execute("SELECT pg_sleep(60)")

        task = asyncio.create_task(sleep())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait((task,))
        async with database.session() as session:
            assert session.connection.get_server_pid() == pid
            assert await session.connection.fetchval("SELECT 7") == 7
        assert (
            query(postgres, "SELECT 1 FROM pg_stat_activity WHERE query LIKE $1 AND state = 'active'", "%pg_sleep(60)")
            == []
        )
    finally:
        await database.aclose()


async def test_all_in_use_is_a_clear_error(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the setting to raise, and answers 503."""
    monkeypatch.setattr("streamstack.connections.database.postgres.FREE_WITHIN", 0.05)
    database = Database(Settings(url=postgres, pool_size=1), folder=None)  # type: ignore[arg-type]  # not embedded
    try:
        async with database.session():
            with pytest.raises(RunError, match="busy") as raised:
                async with database.session():
                    pass
        assert (raised.value.status, raised.value.details["code"]) == (503, "53300")
        assert "`databases.main.poolSize`" in raised.value.details["message"]
    finally:
        await database.aclose()
