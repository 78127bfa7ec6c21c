"""Fixtures: a real Redis for a test. A `conftest.py` takes them in by name.

``STREAMSTACK_TEST_REDIS`` (a URL) is used in place of a server of the tests' own, where a test shares it: its first
databases are emptied.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from tests.redis import RedisServer

#: A server that is given: its URL.
GIVEN = os.environ.get("STREAMSTACK_TEST_REDIS")

__all__ = ["own_redis", "redis_server", "redis_url", "shared_redis"]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The session's server; no test may stop it."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_redis(request: pytest.FixtureRequest) -> str:
    """The URL of one Redis for all tests; each takes keys of its own (`state.prefix`)."""
    if GIVEN:
        # The processes of a test run have a database each.
        number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
        return urlunsplit(urlsplit(GIVEN)._replace(path=f"/{number}"))
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture
def redis_url(shared_redis: str) -> str:
    """The URL of a Redis that is empty when the test begins."""
    with redis.Redis.from_url(shared_redis) as client:
        client.flushdb()
    return shared_redis


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running server of the test's own, which it may kill, stop and start, with its data or without."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()
