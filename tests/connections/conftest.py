"""What reaches a database is tested on real ones."""

from __future__ import annotations

from tests.databases import (
    database_url,
    own_postgres,
    postgres,
    postgres_cluster,
    postgres_servers,
)

__all__ = ["database_url", "own_postgres", "postgres", "postgres_cluster", "postgres_servers"]
