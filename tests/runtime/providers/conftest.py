"""What is asked over sockets."""

from __future__ import annotations

from tests.loops import on_both

pytest_asyncio_loop_factories = on_both("test_faults")
