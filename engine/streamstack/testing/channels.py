"""Channels of a test: in memory, with a record of what definitions publish."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from streamstack.connections.channels import MemoryChannels
from streamstack.language.cases import Publication
from streamstack.language.channels import Channels
from streamstack.language.settings import StateSettings


class RecordedChannels(MemoryChannels):
    """Keeps what definitions publish in ``published``."""

    def __init__(self, settings: Channels, state: StateSettings) -> None:
        super().__init__(settings, state)
        self.published: list[dict[str, Any]] = []

    async def publish(self, name: str, content: Any, *, event: str | None = None, key: Any = None) -> str:
        message = await super().publish(name, content, event=event, key=key)
        self.published.append({"channel": name, "content": content, "event": event, "key": key})
        return message

    async def publish_all(self, publications: Sequence[Publication], notice: float) -> None:
        """Publish the messages of a test, each after its time; the first one not before a server has noticed a request.

        Raises RunError for what can't be published.
        """
        for number, each in enumerate(publications):
            await asyncio.sleep(each.after or (0.0 if number else notice))
            await super().publish(each.channel, each.content, event=each.event, key=each.key)
