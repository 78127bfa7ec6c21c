"""News of streams from other processes."""

from __future__ import annotations

import asyncio
from typing import Any, Self, cast

import pytest

from streamstack.connections.redis import Redis
from streamstack.connections.stream_store import StreamNews


class Forgetful:
    """A client whose commands forget a cancellation that comes as they end, as redis-py's do before Python 3.12."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.closed = False

    def listener(self) -> Forgetful:
        return self

    pubsub = listener

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def subscribe(self, *_: bytes) -> None:
        self.asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    async def get_message(self, *, timeout: float, **_: Any) -> None:
        await asyncio.sleep(timeout)

    async def aclose(self) -> None:
        self.closed = True


async def test_who_is_cancelled_stops_listening() -> None:
    """Also where the client forgets of it: else the server that waits for this task would never end."""
    client = Forgetful()
    news = StreamNews(cast("Redis", client))
    news.listen(b"channel", lambda: None)
    listening = asyncio.create_task(news.run())
    await client.asked.wait()
    listening.cancel()
    done, _ = await asyncio.wait([listening], timeout=5)
    if not done:
        listening.cancel()
        pytest.fail("it listens on")
    assert listening.cancelled()
    assert client.closed
