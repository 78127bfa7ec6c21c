"""What goes wrong in the event loop itself, outside of any request, told in the log."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

log = structlog.get_logger("streamstack.server")

#: Seconds between two lines that say the same: a loop without file descriptors tells so a thousand times a second.
QUIET: Final = 10.0


class LoopFaults:
    """The exception handler of an event loop."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log a fault; one that comes again and again, now and then only."""
        message = str(context.get("message", "a fault of the event loop"))
        now = loop.time()
        if now < self._told.get(message, float("-inf")) + QUIET:
            return
        if len(self._told) >= 100:
            self._told.clear()
        self._told[message] = now
        error = context.get("exception")
        if isinstance(error, OSError):
            log.error("loop-failed", message=message, reason=error.strerror or str(error))
        else:
            log.error("loop-failed", message=message, exc_info=error)
