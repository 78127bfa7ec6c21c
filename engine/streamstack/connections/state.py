"""Where state is kept between runs: cached values and counters. One store a process; its keys are bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from heapq import heapify, heappop, heappush
from math import inf
from time import monotonic
from typing import Any, Final, Protocol, TypeAlias

from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.settings import StateSettings
from streamstack.language.values import MISSING, to_json

Number: TypeAlias = int | float | Decimal

#: Bytes that an entry takes beside its key and value, about.
_OVERHEAD: Final = 300


class Store(Protocol):
    """What cached values and counters need of a store. Times to live are seconds, None for no end."""

    async def get(self, key: bytes) -> Any:
        """Return a value; MISSING where there is none, or its time is over."""

    async def set(self, key: bytes, value: Any, ttl: float | None) -> None:
        """Keep a value, in place of the one that was there.

        Raises RunError ``template`` for what can't be kept, ``limit-reached`` for what is too large.
        """

    async def delete(self, key: bytes) -> bool:
        """Drop a value; tell whether there was one."""

    async def add(self, key: bytes, by: Number, ttl: float | None) -> Number:
        """Add to a counter, which begins at 0, and return its new value: one step for all who count.

        ``ttl`` counts from when the counter begins.
        """

    async def alone(self, key: bytes, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do work that leaves a value, unless another process is at it: then return what that one leaves."""

    async def aclose(self) -> None:
        """Close it."""


def refuse_size(size: int, most: int) -> None:
    """Raise RunError ``limit-reached`` for a value of more bytes than are kept."""
    if size > most:
        raise RunError(
            "limit-reached",
            f"the value takes about {size:,} bytes, and `state.maxSize` is {most:,}: "
            "raise it, or cache less",
        )


@dataclass(slots=True)
class _Entry:
    value: Any
    size: int
    expires: float


class _Shelf:
    """Entries in the order of their last use, bounded in number and bytes."""

    __slots__ = ("_clock", "_due", "_entries", "_max_entries", "_max_size", "size")

    def __init__(self, max_entries: int, max_size: float, clock: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._max_size = max_size
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        #: When which entry is over, the soonest first; what was replaced since is still in it.
        self._due: list[tuple[float, bytes]] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> _Entry | None:
        """Return an entry that is not over, as the one used last."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= self._clock():
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, value: Any, size: int, expires: float) -> None:
        """Keep an entry; those that are over make room, then those not used for longest."""
        self.drop(key)
        self._entries[key] = _Entry(value, size, expires)
        self.size += size
        if expires != inf:
            heappush(self._due, (expires, key))
        self._expire()
        while len(self._entries) > self._max_entries or self.size > self._max_size:
            _, entry = self._entries.popitem(last=False)
            self.size -= entry.size
        if len(self._due) > 2 * len(self._entries) + 64:
            self._due = [(e.expires, k) for k, e in self._entries.items() if e.expires != inf]
            heapify(self._due)

    def drop(self, key: bytes) -> bool:
        """Drop an entry; tell whether there was one."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self.size -= entry.size
        return True

    def _expire(self) -> None:
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            expires, key = heappop(self._due)
            entry = self._entries.get(key)
            if entry is not None and entry.expires == expires:
                self.drop(key)


class MemoryStore:
    """A store in the memory of this process: bounded, gone when it ends.

    Past the bounds, what was not used for longest goes first. Counters are kept apart: no cached value drives one out.
    """

    def __init__(self, settings: StateSettings, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._max_size = settings.max_size
        self.values = _Shelf(settings.max_entries, settings.max_size, clock)
        self.counters = _Shelf(settings.max_entries, inf, clock)

    async def get(self, key: bytes) -> Any:
        """Return a value; MISSING where there is none, or its time is over."""
        entry = self.values.get(key)
        return MISSING if entry is None else entry.value

    async def set(self, key: bytes, value: Any, ttl: float | None) -> None:
        """Keep a value as it is: values don't change in place, so nobody can change it from outside."""
        size = len(to_json(value)) + len(key) + _OVERHEAD
        refuse_size(size, self._max_size)
        self.values.put(key, value, size, self._until(ttl))

    async def delete(self, key: bytes) -> bool:
        """Drop a value; tell whether there was one."""
        there = self.values.get(key) is not None
        return there and self.values.drop(key)

    async def add(self, key: bytes, by: Number, ttl: float | None) -> Number:
        """Add to a counter; nothing else happens meanwhile."""
        entry = self.counters.get(key)
        if entry is None:
            self.counters.put(key, by, len(key) + _OVERHEAD, self._until(ttl))
            return by
        total: Number = operators.add(entry.value, by)
        entry.value = total
        return total

    async def alone(self, key: bytes, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do the work: no other process has this memory."""
        return await work()

    def _until(self, ttl: float | None) -> float:
        return inf if ttl is None else self._clock() + ttl

    async def aclose(self) -> None:
        """Do nothing: the memory goes with the process."""
