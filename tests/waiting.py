"""Waiting for what comes about by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

import pytest

from streamstack import clock


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Ask again and again until something holds. Raises TimeoutError where it does not in some seconds."""
    async with asyncio.timeout(seconds):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


class StoppedClock:
    """The engine's clock, which stands still until it is moved, in a `with`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        self._patch.setattr(clock, "monotonic", lambda: self.now)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
