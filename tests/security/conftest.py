"""What attacks sockets is tested on both loops: the standard one, and the one production takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

ON_BOTH = {"test_hostile", "test_slow", "test_connections", "test_at_random"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, LoopFactory]:
    """Give the loops that a test runs on."""
    standard: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.path.stem in ON_BOTH:
        return standard | {"uvloop": uvloop.new_event_loop}
    return standard
