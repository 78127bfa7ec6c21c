"""Functions that call others: how bytes come, how connections end."""

from __future__ import annotations

from tests.loops import on_both

pytest_asyncio_loop_factories = on_both("test_email", "test_http", "test_http_stream", "test_http_websocket")
