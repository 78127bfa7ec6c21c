"""What depends on the loop is tested on both: the standard one, and the one production takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Loops = Callable[[pytest.Config, pytest.Item], Mapping[str, LoopFactory]]


def on_both(*modules: str) -> Loops:
    """Return what a conftest tells pytest-asyncio: these modules run on both loops, others on the standard one."""

    def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
        standard: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
        if item.path.stem in modules:
            return standard | {"uvloop": uvloop.new_event_loop}
        return standard

    return pytest_asyncio_loop_factories
