"""The tests' own servers do what tests of faults rely on."""

from __future__ import annotations

import asyncpg
import pytest

from tests.postgres import Server, query


async def test_each_test_has_an_empty_database(database_url: str) -> None:
    """A test finds a database of its own, in UTF-8, on each server of the machine."""
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        assert await connection.fetchval("SHOW timezone") == "UTC"
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        await connection.execute("CREATE TABLE seen (id int)")
    finally:
        await connection.close()


async def test_databases_differ(postgres: str) -> None:
    """What one test creates is not there for the next."""
    connection = await asyncpg.connect(postgres)
    try:
        assert await connection.fetchval("SELECT to_regclass('seen')") is None
    finally:
        await connection.close()


async def test_own_server_is_killed_and_recovers(own_postgres: Server) -> None:
    """A killed server breaks its connections; started again it has every row that was committed."""
    connection = await asyncpg.connect(own_postgres.url)
    await connection.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")
    own_postgres.kill()
    # A connection that breaks in the very moment of a call is an internal error of asyncpg.
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
        await connection.fetchval("SELECT 1")
    connection.terminate()
    own_postgres.start()
    assert query(own_postgres.url, "SELECT id FROM kept WHERE id = $1", 7)[0]["id"] == 7


async def test_own_server_cuts_off_its_clients(own_postgres: Server) -> None:
    """Backends can be ended one and all, while the server goes on."""
    connection = await asyncpg.connect(own_postgres.url)
    own_postgres.terminate_backends()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    connection.terminate()
    assert query(own_postgres.url, "SELECT $1::int AS it", 1)[0]["it"] == 1
