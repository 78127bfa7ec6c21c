"""What attacks sockets."""

from __future__ import annotations

from tests.loops import on_both

pytest_asyncio_loop_factories = on_both("test_hostile", "test_slow", "test_connections", "test_at_random")
