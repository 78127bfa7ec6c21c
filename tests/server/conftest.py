"""What depends on the loop is tested on both: the standard one, and the one production takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

#: Tests of sockets: how bytes leave, how connections end.
ON_BOTH = {
    "test_commit",
    "test_compression",
    "test_connection",
    "test_relay",
    "test_life",
    "test_request_streams",
    "test_resume",
    "test_resume_bounds",
    "test_service",
    "test_slow_readers",
    "test_stream",
    "test_uploads",
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, LoopFactory]:
    """Give the loops that a test runs on."""
    standard: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.path.stem in ON_BOTH:
        return standard | {"uvloop": uvloop.new_event_loop}
    return standard
