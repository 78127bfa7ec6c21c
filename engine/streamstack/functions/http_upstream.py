"""Upstreams that give items over time: their limits, and the connections that follow one that was lost."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from yarl import URL

from streamstack.connections.http import loggable
from streamstack.errors import RunError
from streamstack.language.declare import Parameter
from streamstack.language.settings import HttpSettings
from streamstack.runtime.run import Run
from streamstack.runtime.values import Batches
from streamstack.spec import Bound, Constant, Group, Kind

log = structlog.get_logger("streamstack.run")

T = TypeVar("T")

#: Errors that a new connection may mend.
_MENDABLE: Final = frozenset({"http-connection", "http-status", "stream-lost", "timeout"})

RECONNECT: Final = Parameter(
    "reconnect",
    Group(
        (
            Parameter(
                "times",
                Bound(Kind.INTEGER, minimum=1),
                "How often in a row, without an item in between.",
                default=10,
            ),
            Parameter(
                "delay",
                Bound(Kind.DURATION, minimum=0),
                "The wait before the first; the server's own `retry:` goes before it.",
                default=1.0,
            ),
            Parameter(
                "backoff",
                Constant(choices=("fixed", "exponential")),
                "Whether the delay stays as it is or doubles each time, then as a random part of it.",
                default="exponential",
            ),
            Parameter(
                "maxDelay", Bound(Kind.DURATION, minimum=0), "The longest delay.", default=30.0
            ),
        )
    ),
    "Connect again when the connection is lost, after it was open once.",
)
LIMITS: Final = (
    Parameter(
        "firstChunkTimeout",
        Bound(Kind.DURATION),
        "How long the first item may take, from the request on. Else `http.timeouts.firstChunk` of the settings, 60s.",
    ),
    Parameter(
        "idleTimeout",
        Bound(Kind.DURATION),
        "How long the next item may take; bytes that are none, such as heartbeats, don't count. "
        "Else `http.timeouts.idle` of the settings, 5m.",
    ),
    Parameter(
        "timeout",
        Bound(Kind.DURATION),
        "How long the whole stream may take; else as long as it lasts.",
    ),
)


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a lost connection is made again. Delays are seconds."""

    times: int = 10
    delay: float = 1.0
    backoff: str = "exponential"
    max_delay: float = 30.0

    def wait(self, attempt: int, asked: float | None, retry_after: float | None) -> float:
        """Return the seconds before an attempt, counted from 0; ``asked`` by the server's `retry:`."""
        delay = min(self.delay if asked is None else asked, self.max_delay)
        if attempt and self.backoff == "exponential":
            delay = min(delay * 2 ** min(attempt, 30), self.max_delay)
            delay *= random.random()  # noqa: S311  (no secret)
        return delay if retry_after is None else max(delay, retry_after)


@dataclass(frozen=True, slots=True)
class Times:
    """The limits of a stream in seconds, None for none: to the first item, between items, in all."""

    first: float | None
    idle: float | None
    total: float | None

    @classmethod
    def of(
        cls,
        settings: HttpSettings,
        first: float | None,
        idle: float | None,
        total: float | None,
    ) -> Times:
        """Return what a step says, else the settings; 0 is no limit."""
        return cls(
            (settings.first_chunk if first is None else first) or None,
            (settings.idle if idle is None else idle) or None,
            total or None,
        )


class Upstream(ABC):
    """One stream: its connection, and those that follow it."""

    def __init__(
        self,
        run: Run,
        url: URL,
        times: Times,
        reconnect: Mapping[str, Any] | None,
        **about: Any,
    ) -> None:
        self.run = run
        self.host = url.host or ""
        self._about = {"url": loggable(url), **about}
        self.asked: float | None = None  # seconds to wait, by the server's `retry:`
        self._times = times
        self._reconnect = Reconnect(**reconnect) if reconnect is not None else None
        self._opened = False
        self._attempts = 0  # connections in a row that gave nothing
        self._deadline: float | None = None

    @abstractmethod
    async def open(self) -> None:
        """Connect; raise a RunError where that fails."""

    @abstractmethod
    async def items(self) -> list[Any]:
        """Return the next items, none at the end of the connection; raise a RunError where that is no end."""

    @abstractmethod
    def goes_on(self) -> bool:
        """Whether a connection that has come to its end is to be followed by another."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection, if there is one."""

    async def batches(self) -> Batches:
        """Give the items, over as many connections as it takes."""
        clock = asyncio.get_running_loop().time
        started = clock()
        if self._times.total is not None:
            self._deadline = started + self._times.total
        first, idle = self._times.first, self._times.idle
        try:
            while True:
                lost = None
                try:
                    await self._limited(self.open, first, clock())
                    # The first item of all has what the head left of its time.
                    limit, since = (first, started) if not self._opened else (idle, clock())
                    self._opened = True
                    while batch := await self._limited(self.items, limit, since):
                        self._attempts = 0
                        yield batch
                        limit, since = idle, clock()
                except RunError as error:
                    if self._is_final(error):
                        raise
                    lost = error
                await self.close()
                if lost is None and not self._may_follow():
                    return
                await self._pause(lost)
        except RunError as error:
            error.about = self._about | error.about
            raise
        finally:
            await self.close()

    async def _limited(
        self, work: Callable[[], Awaitable[T]], seconds: float | None, since: float
    ) -> T:
        """Do some work within some seconds since a moment, and within the time of the whole stream.

        Raises RunError ``timeout``.
        """
        due = None if seconds is None else since + seconds
        total = self._deadline is not None and (due is None or self._deadline < due)
        if total:
            due = self._deadline
        if due is None:
            return await work()
        try:
            async with asyncio.timeout_at(due):
                return await work()
        except TimeoutError:
            if total:
                told = f"the stream of {self.host} took longer than {self._times.total:g} s"
            else:
                told = f"{self.host} gave nothing within {seconds:g} s"
            raise RunError("timeout", told) from None

    def _is_final(self, error: RunError) -> bool:
        """Whether an error ends the stream; else another connection follows."""
        policy = self._reconnect
        if policy is None or not self._opened or error.final or error.code not in _MENDABLE:
            return True
        if error.retry_after is not None and error.retry_after > policy.max_delay:
            return True
        late = self._deadline is not None and asyncio.get_running_loop().time() >= self._deadline
        return late or self._attempts >= policy.times

    def _may_follow(self) -> bool:
        policy = self._reconnect
        return policy is not None and self._attempts < policy.times and self.goes_on()

    async def _pause(self, lost: RunError | None) -> None:
        assert self._reconnect is not None
        retry_after = lost.retry_after if lost is not None else None
        wait = self._reconnect.wait(self._attempts, self.asked, retry_after)
        self._attempts += 1
        log.info(
            "reconnect",
            run=self.run.id,
            host=self.host,
            attempt=self._attempts,
            reason=lost.message if lost is not None else "the answer ended",
        )
        await self._limited(lambda: asyncio.sleep(wait), None, 0.0)
