"""How bytes leave, how connections end."""

from __future__ import annotations

from tests.loops import on_both

pytest_asyncio_loop_factories = on_both(
    "test_commit",
    "test_compression",
    "test_connection",
    "test_relay",
    "test_deadlines",
    "test_request_streams",
    "test_resume",
    "test_bounds",
    "test_service",
    "test_slow_readers",
    "test_stream",
    "test_uploads",
)
