"""Places that are taken for a while, counted over all processes: those of one that was killed are free again soon."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from time import monotonic
from typing import Final
from uuid import uuid4

import structlog

from streamstack.connections.redis import Client, Redis, Script, ask
from streamstack.errors import RunError

log = structlog.get_logger("streamstack.state")

#: Seconds after its last sign of life for which a process counts; it gives one each BEAT.
LEASE: Final = 5.0
BEAT: Final = 1.25
#: Seconds that the count of a key outlives the last time its process said so, and how often it does.
_KEPT: Final = 180.0
_REPEAT: Final = 45.0
#: Keys whose counts are said in one go.
_AT_ONCE: Final = 200

#: Takes a place. A key holds, for each process, how many places it has; one whose lease is over has none.
#: KEYS: the key, the leases of processes. ARGV: the most, the process, milliseconds to keep, milliseconds of a lease.
#: Returns 1, or 0 where all are taken.
_TAKE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HGETALL', KEYS[1])
local all = 0
for i = 1, #held, 2 do
  local lease = redis.call('ZSCORE', KEYS[2], held[i])
  if held[i] == ARGV[2] or (lease and tonumber(lease) > now) then
    all = all + held[i + 1]
  else
    redis.call('HDEL', KEYS[1], held[i])
  end
end
if all >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[2])
return 1
""")

#: Gives a place back. KEYS: the key. ARGV: the process.
_GIVE: Final = Script("""
if tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0) > 1 then
  redis.call('HINCRBY', KEYS[1], ARGV[1], -1)
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 1
""")

#: Renews the lease of a process; forgets those that are over. KEYS: the leases. ARGV: the process, milliseconds.
#: Returns 1, or 0 where it had none any more: then others may have taken it for gone.
_LIVE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local had = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return had and 1 or 0
""")


class RedisSlots:
    """The places that this process has, by key, and its sign of life while it has any.

    While Redis is out of reach, the process counts its own places; what it has is told when Redis is back. ``beats`` is
    what gives the signs of life; None while there is nothing to tell.
    """

    __slots__ = (
        "_doubtful",
        "_held",
        "_leases",
        "_moved",
        "_name",
        "_redis",
        "_under_way",
        "beats",
    )

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._name = uuid4().hex
        self._leases = redis.key("processes")
        self._held: dict[bytes, int] = {}
        #: Keys that are asked about right now, that were since the last word, and whose count in Redis may not be ours.
        self._under_way: Counter[bytes] = Counter()
        self._moved: set[bytes] = set()
        self._doubtful: set[bytes] = set()
        self.beats: asyncio.Task[None] | None = None

    async def take(self, key: bytes, most: int) -> bool:
        """Take a place of a key that has ``most`` for all processes; tell whether one was free.

        Where Redis is out of reach, the places of this process alone count.
        """
        key = self._redis.key("slots", key)
        self._held[key] = mine = self._held.get(key, 0) + 1
        values = [most, self._name, int(_KEPT * 1000), int(LEASE * 1000)]
        taken = False
        try:
            with self._asking(key):
                taken = bool(await self._redis.call(_TAKE, [key, self._leases], values))
        except RunError:
            taken = mine <= most
        finally:
            if not taken:
                self._release(key)
            if self.beats is None and (self._held or self._doubtful):
                self.beats = asyncio.get_running_loop().create_task(self._beat())
        return taken

    async def give(self, key: bytes) -> None:
        """Give a place back."""
        key = self._redis.key("slots", key)
        self._release(key)
        with suppress(RunError), self._asking(key):
            await self._redis.call(_GIVE, [key], [self._name])

    def _release(self, key: bytes) -> None:
        left = self._held.get(key, 0) - 1
        if left > 0:
            self._held[key] = left
        else:
            self._held.pop(key, None)

    @contextmanager
    def _asking(self, key: bytes) -> Iterator[None]:
        """Note that a key's count changes, and whether it surely did."""
        self._under_way[key] += 1
        try:
            yield
        except BaseException:
            self._doubtful.add(key)
            raise
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
            self._moved.add(key)

    async def _beat(self) -> None:
        """Give signs of life while there is something to count; say what Redis may not know any more."""
        said = monotonic()
        while self._held or self._doubtful:
            await asyncio.sleep(BEAT)
            try:
                values = [self._name, int(LEASE * 1000)]
                known = await self._redis.call(_LIVE, [self._leases], values, again=True)
                if not known or monotonic() - said > _REPEAT:
                    self._doubtful.update(self._held)
                    said = monotonic()
                await self._say()
            except RunError:
                self._doubtful.update(self._held)
            except Exception as error:  # whatever it is, the signs of life must go on
                log.exception("places-not-told", reason=str(error))
        self.beats = None

    async def _say(self) -> None:
        """Tell Redis how many places this process has of the keys that are in doubt."""
        doubtful = iter(list(self._doubtful))
        while keys := list(islice(doubtful, _AT_ONCE)):
            self._moved.clear()
            await self._redis.run(partial(self._put, keys=keys))
            # What changed meanwhile may have come before the count that it changed.
            self._doubtful.difference_update(set(keys) - self._moved - self._under_way.keys())

    async def _put(self, client: Client, keys: list[bytes]) -> None:
        async with client.pipeline(transaction=True) as pipeline:
            for key in keys:
                count = self._held.get(key, 0)
                if count:
                    pipeline.hset(key, self._name, str(count))
                    pipeline.pexpire(key, int(_KEPT * 1000))
                else:
                    pipeline.hdel(key, self._name)
            await pipeline.execute()

    async def aclose(self) -> None:
        """Give no more signs of life, and be gone at once."""
        beats, self.beats = self.beats, None
        if beats is None:
            return
        beats.cancel()
        with suppress(asyncio.CancelledError):
            await beats
        with suppress(RunError):
            await self._redis.run(lambda client: ask(client, "ZREM", self._leases, self._name))
