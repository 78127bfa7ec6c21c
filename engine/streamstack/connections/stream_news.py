"""News of streams from other processes: one connection that listens, for all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisError

from streamstack.connections.redis import Client, Redis, cancellations

#: Seconds before a lost connection is made anew.
_PAUSE: Final = 0.2

Hear = Callable[[], object]


class StreamNews:
    """Listens on channels and wakes who waits.

    What is told while it is not connected is missed: who waits looks from time to time all the same. ``lost`` is called
    when there was no connection.
    """

    def __init__(self, redis: Redis, lost: Hear = bool) -> None:
        self._redis = redis
        self._lost = lost
        self._heard: dict[bytes, set[Hear]] = {}
        self._changed = asyncio.Event()

    def listen(self, channel: bytes, hear: Hear) -> None:
        """Call ``hear`` when there is news on a channel."""
        self._heard.setdefault(channel, set()).add(hear)
        self._changed.set()

    def leave(self, channel: bytes, hear: Hear) -> None:
        """Call it no more."""
        heard = self._heard.get(channel, set())
        heard.discard(hear)
        if not heard:
            self._heard.pop(channel, None)
            self._changed.set()

    async def run(self) -> None:
        """Listen until cancelled."""
        before = cancellations()
        while True:
            client: Client = self._redis.listener()
            try:
                await self._follow(client, before)
            except (RedisError, OSError):
                self._lost()
                await asyncio.sleep(_PAUSE)
            finally:
                await client.aclose()

    async def _follow(self, client: Client, before: int) -> None:
        pubsub = client.pubsub()
        known: set[bytes] = set()
        async with pubsub:
            while True:
                wanted = set(self._heard)
                if wanted - known:
                    await pubsub.subscribe(*(wanted - known))
                    for channel in wanted - known:
                        self._wake(channel)  # it may have been told just before
                if known - wanted:
                    await pubsub.unsubscribe(*(known - wanted))
                known = wanted
                if cancellations() > before:
                    raise asyncio.CancelledError
                self._changed.clear()
                if not known:
                    await self._changed.wait()
                    continue
                message: Any = await self._next(pubsub)
                if message is not None and message.get("type") == "message":
                    self._wake(message["channel"])

    async def _next(self, pubsub: Any) -> Any:
        """Return the next message; None where the channels have changed meanwhile."""
        if self._changed.is_set():
            return None
        return await pubsub.get_message(ignore_subscribe_messages=True, timeout=0.05)

    def _wake(self, channel: bytes) -> None:
        for hear in tuple(self._heard.get(channel, ())):
            hear()
