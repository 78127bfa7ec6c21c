"""Work that several runs ask for at once, done by one of them for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from streamstack.errors import RunError
from streamstack.language.values import MISSING
from streamstack.runtime.faults import located

Work = Callable[[], Awaitable[Any]]


class _Flight:
    """Work under way: its end, and what came of it. A leader who was stopped leaves neither value nor error."""

    __slots__ = ("awaits", "ended", "error", "value")

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.value: Any = MISSING
        self.error: RunError | None = None
        self.awaits: list[_Flight] = []  # what its leader waits for

    def depends_on(self, others: tuple[_Flight, ...]) -> bool:
        """Whether this can't end before one of some others does."""
        return self in others or any(each.depends_on(others) for each in self.awaits)


#: The flights that the present task is at work for, the outermost first.
_leading: ContextVar[tuple[_Flight, ...]] = ContextVar("leading", default=())


class SingleFlight:
    """Lets one do the work for a key, while the others who ask for it wait."""

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight] = {}

    @property
    def nested(self) -> bool:
        """Whether the present task is at work for more keys than one, the one within the other."""
        return len(_leading.get()) > 1

    async def do(self, key: bytes, work: Work) -> Any:
        """Return what the work gives, done here or by the one who asked first.

        An error goes to all who wait. One who is stopped hands over to another. Work that would have to wait for itself
        is done on the spot instead.
        """
        mine = _leading.get()
        while (flight := self._flights.get(key)) is not None:
            if mine and flight.depends_on(mine):
                return await work()
            for each in mine:
                each.awaits.append(flight)
            try:
                await flight.ended.wait()
            finally:
                for each in mine:
                    each.awaits.remove(flight)
            if flight.error is not None:
                raise _copy(flight.error)
            if flight.value is not MISSING:
                return flight.value
        return await self._lead(key, work, mine)

    async def _lead(self, key: bytes, work: Work, mine: tuple[_Flight, ...]) -> Any:
        flight = self._flights[key] = _Flight()
        token = _leading.set((*mine, flight))
        try:
            flight.value = await work()
        except Exception as error:
            flight.error = located(error)
            raise
        finally:
            _leading.reset(token)
            del self._flights[key]
            flight.ended.set()
        return flight.value


def _copy(error: RunError) -> RunError:
    """Return an error for one more run: each adds to its own as it passes through."""
    copy = RunError(
        error.code,
        error.message,
        status=error.status,
        details=error.details,
        final=error.final,
        retry_after=error.retry_after,
    )
    copy.place = error.place
    return copy
