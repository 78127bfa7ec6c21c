"""State that runs share (cached values, counters, slots, rate limits): the interfaces, and all of them in memory.

One store a process; its keys are bytes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from heapq import heapify, heappop, heappush
from itertools import islice
from math import ceil, inf
from sys import getsizeof
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.settings import StateSettings
from streamstack.language.values import MISSING, Opaque

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

    async def claim(self, key: bytes, ttl: float, owner: bytes) -> bool:
        """Claim a key for ``ttl`` seconds: of all who do, one receives True, in one atomic step.

        ``owner`` names who claims: a claim that is repeated, since its reply was lost, succeeds again.
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
            f"the value takes about {size:,} bytes, and `state.maxSize` is {most:,}: raise it, or cache less",
        )


#: Levels that a value may have, as in Redis.
_DEEPEST: Final = 1000


def size_in_memory(value: Any) -> int:
    """Return the bytes that a value takes in memory, about. Names of properties, which objects share, count once.

    Raises RunError ``template`` for a stream or a file, and for what is nested too deeply.
    """
    size, depth, names = 0, 0, set[str]()
    level: list[Any] = [value]
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise RunError("template", "the value is nested too deeply to be stored")
        inner: list[Any] = []
        for each in level:
            kind = type(each)
            if kind is str or kind is float:
                size += getsizeof(each)
            elif kind is int:
                if not -5 <= each <= 256:  # those are shared (https://docs.python.org/3/c-api/long.html)
                    size += getsizeof(each)
            elif kind is dict:
                size += getsizeof(each)
                names.update(each)
                inner.extend(each.values())
            elif kind is list or kind is tuple:
                size += getsizeof(each)
                inner.extend(each)
            elif isinstance(each, Opaque):
                raise RunError("template", f"a {each.kind} can't be stored: use `collect` to read it first")
            elif each is not None and kind is not bool:
                size += getsizeof(each)
        level = inner
    return size + sum(map(getsizeof, names))


#: Claims in memory before those that are over are looked for.
_FEWEST_CLAIMS: Final = 1000


@dataclass(slots=True)
class _Entry:
    value: Any
    size: int
    expires: float


class _LruCache:
    """Entries in the order of their last use, bounded in number and bytes."""

    __slots__ = ("_due", "_entries", "_max_entries", "max_size", "size")

    def __init__(self, max_entries: int, max_size: int) -> None:
        self._max_entries = max_entries
        self.max_size = max_size
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
        if entry.expires <= clock.monotonic():
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
        self.make_room()
        if len(self._due) > 2 * len(self._entries) + 64:
            self._due = [(e.expires, k) for k, e in self._entries.items() if e.expires != inf]
            heapify(self._due)

    def make_room(self) -> None:
        """Drop entries that were not used for longest, while there are too many."""
        while len(self._entries) > self._max_entries or self.size > self.max_size:
            _, entry = self._entries.popitem(last=False)
            self.size -= entry.size

    def drop(self, key: bytes) -> bool:
        """Drop an entry; tell whether there was one."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self.size -= entry.size
        return True

    def _expire(self) -> None:
        now = clock.monotonic()
        while self._due and self._due[0][0] <= now:
            expires, key = heappop(self._due)
            entry = self._entries.get(key)
            if entry is not None and entry.expires == expires:
                self.drop(key)


class MemoryStore:
    """A store in the memory of this process: bounded, gone when it ends.

    Past the bounds, what was not used for longest goes first. Counters are kept apart: no cached value drives one out,
    and what they take is not there for values.
    """

    def __init__(self, settings: StateSettings) -> None:
        self._max_size = settings.max_size
        self.values = _LruCache(settings.max_entries, settings.max_size)
        self.counters = _LruCache(settings.max_entries, settings.max_size)
        self._sweep_at = _FEWEST_CLAIMS
        self._claims: dict[bytes, tuple[bytes, float]] = {}  # owners, and until when

    async def get(self, key: bytes) -> Any:
        """Return a value; MISSING where there is none, or its time is over."""
        entry = self.values.get(key)
        return MISSING if entry is None else entry.value

    async def set(self, key: bytes, value: Any, ttl: float | None) -> None:
        """Keep a value as it is: values don't change in place, so no step can change it from outside."""
        size = size_in_memory(value) + len(key) + _OVERHEAD
        refuse_size(size, self._max_size)
        self.values.put(key, value, size, self._until(ttl))

    async def delete(self, key: bytes) -> bool:
        """Drop a value; tell whether there was one."""
        there = self.values.get(key) is not None
        return there and self.values.drop(key)

    async def add(self, key: bytes, by: Number, ttl: float | None) -> Number:
        """Add to a counter; nothing else happens meanwhile."""
        entry, counters = self.counters.get(key), self.counters
        if entry is None:
            counters.put(key, by, getsizeof(by) + len(key) + _OVERHEAD, self._until(ttl))
            total = by
        else:
            total = operators.add(entry.value, by)
            grown = getsizeof(total) - getsizeof(entry.value)
            entry.value = total
            entry.size += grown
            counters.size += grown
            counters.make_room()
        self.values.max_size = max(self._max_size - counters.size, 0)
        self.values.make_room()
        return total

    async def claim(self, key: bytes, ttl: float, owner: bytes) -> bool:
        """Claim a key; nothing else happens meanwhile. Claims are not bounded, but for their time."""
        now = clock.monotonic()
        held = self._claims.get(key)
        if held is not None and held[1] > now:
            return held[0] == owner
        if len(self._claims) >= self._sweep_at:
            self._claims = {name: claim for name, claim in self._claims.items() if claim[1] > now}
            self._sweep_at = 2 * len(self._claims) + _FEWEST_CLAIMS
        self._claims[key] = owner, now + ttl
        return True

    async def alone(self, key: bytes, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do the work: no other process has this memory."""
        return await work()

    def _until(self, ttl: float | None) -> float:
        return inf if ttl is None else clock.monotonic() + ttl

    async def aclose(self) -> None:
        """Do nothing: the memory goes with the process."""


# ------------------------------------------------------------------------------------ slots


class Slots(Protocol):
    """Slots by key: the number of runs that may be active at once."""

    async def acquire(self, key: bytes, most: int) -> bool:
        """Acquire one of the ``most`` slots of a key; return whether one was free."""

    async def release(self, key: bytes) -> None:
        """Release a slot."""

    async def aclose(self) -> None:
        """Release all slots."""


class MemorySlots:
    """The slots of this process alone."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[bytes, int] = {}

    async def acquire(self, key: bytes, most: int) -> bool:
        """Acquire a slot; return whether one was free."""
        held = self._held.get(key, 0)
        if held >= most:
            return False
        self._held[key] = held + 1
        return True

    async def release(self, key: bytes) -> None:
        """Release a slot."""
        self.release_now(key)

    def release_now(self, key: bytes) -> None:
        """Release a slot without waiting."""
        remaining = self._held.get(key, 0) - 1
        if remaining > 0:
            self._held[key] = remaining
        else:
            self._held.pop(key, None)

    async def aclose(self) -> None:
        """Do nothing: the memory goes with the process."""


# ------------------------------------------------------------------------------ rate limits

#: In how many parts a sliding window is counted. A call counts until its part is over, never for a shorter time.
PARTS: Final = 60
#: Bits that hold the count of a part: more than any limit allows.
_BITS: Final = 32
_MASK: Final = (1 << _BITS) - 1


class Quota(NamedTuple):
    """How often something may be done in how many milliseconds, and the key of its count."""

    key: bytes
    limit: int
    period: int
    sliding: bool = False

    @property
    def part(self) -> int:
        """Milliseconds in which calls of a sliding window are counted together."""
        return ceil(self.period / PARTS)


class Verdict(NamedTuple):
    """Whether a quota has room, how much is left of it, and in how many milliseconds there is more."""

    admitted: bool
    remaining: int
    reset: int


class Rates(Protocol):
    """Counts calls against quotas.

    The library `limits` decides and reports what is left in two steps, so that they may disagree; it counts refused
    calls, takes each client's clock for a moving window, and knows no list of limits of which all or none are used.
    """

    async def hit(self, quotas: Sequence[Quota]) -> list[Verdict]:
        """Count a call against quotas: against all of them where all have room, else against none."""

    async def aclose(self) -> None:
        """Stop counting."""


class _Windowed:
    """A count of windows that follow one another; the first begins with the first call."""

    __slots__ = ("count", "ends")

    def __init__(self) -> None:
        self.count = 0
        self.ends = 0

    def peek(self, quota: Quota, now: int) -> tuple[int, int]:
        """Return how many count now, and when there are fewer."""
        if now >= self.ends:
            self.count, self.ends = 0, now + quota.period
        return self.count, self.ends

    def add(self, quota: Quota, now: int) -> None:
        self.count += 1


class _Sliding:
    """Counts of the parts of the time that has just passed."""

    __slots__ = ("count", "ends", "parts")

    def __init__(self) -> None:
        self.count = 0
        self.ends = 0  # when all of it is forgotten
        # When each is forgotten, and how many it counts, in one number: there may be many of them.
        self.parts: deque[int] = deque()

    def peek(self, quota: Quota, now: int) -> tuple[int, int]:
        """Return how many count now, and when there are fewer."""
        parts = self.parts
        while parts and parts[0] >> _BITS <= now:
            self.count -= parts.popleft() & _MASK
        return self.count, parts[0] >> _BITS if parts else self._end_of(quota, now)

    def add(self, quota: Quota, now: int) -> None:
        self.count += 1
        self.ends = self._end_of(quota, now)
        if self.parts and self.parts[-1] >> _BITS == self.ends:
            self.parts[-1] += 1
        else:
            self.parts.append((self.ends << _BITS) + 1)

    def _end_of(self, quota: Quota, now: int) -> int:
        part = quota.part
        return (now // part + 1) * part + quota.period


#: Bytes that the count of a key takes, about: of a sliding window once each of its parts has been used.
_WINDOWED_SIZE: Final = 200
_SLIDING_SIZE: Final = 3600


class MemoryRates:
    """Counts in the memory of this process: what is over goes first, then the oldest.

    ``most`` is the number of keys, ``max_size`` the bytes that they may take.
    """

    def __init__(self, most: int, max_size: int) -> None:
        self._most = most
        self._max_size = max_size
        self._counts: dict[bytes, _Windowed | _Sliding] = {}
        self._sliding = 0  # how many of them are of sliding windows

    def __len__(self) -> int:
        return len(self._counts)

    async def hit(self, quotas: Sequence[Quota]) -> list[Verdict]:
        """Count a call. Nothing else happens meanwhile."""
        now = int(clock.monotonic() * 1000)
        if len(quotas) == 1:
            return [self._hit(quotas[0], now)]
        counts = [self._count(quota) for quota in quotas]
        counted = [count.peek(quota, now) for count, quota in zip(counts, quotas, strict=True)]
        room = [used < quota.limit for (used, _), quota in zip(counted, quotas, strict=True)]
        taken = 1 if all(room) else 0
        if taken:
            for count, quota in zip(counts, quotas, strict=True):
                count.add(quota, now)
        return [
            Verdict(free, max(0, quota.limit - used - taken), more - now)
            for free, quota, (used, more) in zip(room, quotas, counted, strict=True)
        ]

    def _hit(self, quota: Quota, now: int) -> Verdict:
        """Count a call against one quota, which is by far the most often."""
        count = self._count(quota)
        used, more = count.peek(quota, now)
        if used >= quota.limit:
            return Verdict(False, 0, more - now)
        count.add(quota, now)
        return Verdict(True, quota.limit - used - 1, more - now)

    def _count(self, quota: Quota) -> _Windowed | _Sliding:
        found = self._counts.get(quota.key)
        if found is None:
            if self._full:
                self._make_room()
            found = self._counts[quota.key] = _Sliding() if quota.sliding else _Windowed()
            self._sliding += quota.sliding
        return found

    @property
    def _full(self) -> bool:
        size = len(self._counts) * _WINDOWED_SIZE + self._sliding * (_SLIDING_SIZE - _WINDOWED_SIZE)
        return len(self._counts) >= self._most or size >= self._max_size

    def _make_room(self) -> None:
        now = int(clock.monotonic() * 1000)
        self._drop(list(self._over(now)))
        if self._full:
            self._drop(list(islice(self._counts, max(1, len(self._counts) // 16))))

    def _drop(self, keys: list[bytes]) -> None:
        for key in keys:
            self._sliding -= isinstance(self._counts.pop(key), _Sliding)

    def _over(self, now: int) -> Iterator[bytes]:
        return (key for key, count in self._counts.items() if count.ends <= now)

    async def aclose(self) -> None:
        """Do nothing: the memory goes with the process."""
