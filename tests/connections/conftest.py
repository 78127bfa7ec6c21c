"""What reaches a database is tested on real ones."""

from __future__ import annotations

from tests.connections.embedded_processes import child
from tests.databases import (
    database_url,
    own_postgres,
    postgres,
    postgres_cluster,
    postgres_servers,
)

__all__ = [
    "child",
    "database_url",
    "own_postgres",
    "postgres",
    "postgres_cluster",
    "postgres_servers",
]
