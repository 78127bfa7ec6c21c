"""What is written when the event loop next turns: for all connections of a server together."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

log = structlog.get_logger("streamstack.server")


class Gathering(Protocol):
    """What has gathered bytes for its reader."""

    def flush(self) -> None:
        """Hand them to the transport."""


class Turn:
    """What leaves when the event loop next turns, for all connections together.

    Where many streams wake at one moment, their writes follow one another closely: to write between the work of two
    runs wakes the readers' side again and again, which costs more than the write.
    """

    __slots__ = ("_gathered",)

    def __init__(self) -> None:
        self._gathered: list[Gathering] = []

    def flush(self, gathering: Gathering) -> None:
        """Flush it at the next turn of the loop."""
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._flush)
        self._gathered.append(gathering)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        for each in gathered:
            try:
                each.flush()
            except Exception as error:  # one must not keep the others from their readers
                log.exception("flush-failed", reason=str(error))
