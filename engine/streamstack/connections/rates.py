"""How often something may be done: counted in the memory of this process, or in a Redis by all of them as one.

The library `limits` would be another way; it decides and tells what is left in two steps, so that what it tells need
not be what it decided, counts refused calls, takes the clock of each caller for a moving window, and knows no list of
limits that are used up all or none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import ceil
from time import monotonic
from typing import Final, NamedTuple, Protocol

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
    """What counts."""

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

    def look(self, quota: Quota, now: int) -> tuple[int, int]:
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

    def look(self, quota: Quota, now: int) -> tuple[int, int]:
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


class MemoryRates:
    """Counts in the memory of this process, for a bounded number of keys: what is over goes first, then the oldest."""

    def __init__(self, most: int, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._clock = clock
        self._counts: dict[bytes, _Windowed | _Sliding] = {}

    def __len__(self) -> int:
        return len(self._counts)

    async def hit(self, quotas: Sequence[Quota]) -> list[Verdict]:
        """Count a call. Nothing else happens meanwhile."""
        now = int(self._clock() * 1000)
        if len(quotas) == 1:
            return [self._hit(quotas[0], now)]
        counts = [self._count(quota) for quota in quotas]
        looks = [count.look(quota, now) for count, quota in zip(counts, quotas, strict=True)]
        room = [used < quota.limit for (used, _), quota in zip(looks, quotas, strict=True)]
        taken = 1 if all(room) else 0
        if taken:
            for count, quota in zip(counts, quotas, strict=True):
                count.add(quota, now)
        return [
            Verdict(free, max(0, quota.limit - used - taken), more - now)
            for free, quota, (used, more) in zip(room, quotas, looks, strict=True)
        ]

    def _hit(self, quota: Quota, now: int) -> Verdict:
        """Count a call against one quota, which is by far the most often."""
        count = self._count(quota)
        used, more = count.look(quota, now)
        if used >= quota.limit:
            return Verdict(False, 0, more - now)
        count.add(quota, now)
        return Verdict(True, quota.limit - used - 1, more - now)

    def _count(self, quota: Quota) -> _Windowed | _Sliding:
        found = self._counts.get(quota.key)
        if found is None:
            if len(self._counts) >= self._most:
                self._make_room()
            found = self._counts[quota.key] = _Sliding() if quota.sliding else _Windowed()
        return found

    def _make_room(self) -> None:
        now = int(self._clock() * 1000)
        for key in list(self._over(now)):
            del self._counts[key]
        if len(self._counts) >= self._most:
            for key in list(islice(self._counts, max(1, self._most // 16))):
                del self._counts[key]

    def _over(self, now: int) -> Iterator[bytes]:
        return (key for key, count in self._counts.items() if count.ends <= now)

    async def aclose(self) -> None:
        """Do nothing: the memory goes with the process."""
