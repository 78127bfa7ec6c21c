"""What reaches a database is tested on real ones."""

from __future__ import annotations

from tests.connections.embedded_processes import child

__all__ = ["child"]
