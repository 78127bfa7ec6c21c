"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.databases import database_url, own_postgres, postgres, postgres_cluster, postgres_servers, shared_postgres
from tests.stores import own_redis, redis_server, redis_url, shared_redis

__all__ = [
    "database_url",
    "own_postgres",
    "own_redis",
    "postgres",
    "postgres_cluster",
    "postgres_servers",
    "redis_server",
    "redis_url",
    "shared_postgres",
    "shared_redis",
]

# The same cases each time, so that a change is judged and not chance; `make fuzz` looks further.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.register_profile("fuzz", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
