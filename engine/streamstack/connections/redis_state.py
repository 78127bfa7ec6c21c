"""State in Redis: values, counters, rate limits and slots."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any, Final
from uuid import uuid4

import structlog

from streamstack import clock
from streamstack.connections.redis import Client, Redis, Script, execute_command
from streamstack.connections.serialization import dumps, loads
from streamstack.connections.state import MemoryRates, Number, Quota, Slots, Verdict, refuse_size
from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.values import MISSING

log = structlog.get_logger("streamstack.state")

#: Seconds between two looks whether another process is done, at first and at last.
_SOON, _LATER = 0.005, 0.2

#: Adds whole numbers, as long as Redis can; its time to live stays that of the first.
#: KEYS: the counter. ARGV: how much, its milliseconds to live or "". Returns [1, new] or [0, what is there].
_ADD: Final = Script("""
local there = redis.call('GET', KEYS[1])
if there and not string.find(there, '^%-?%d+$') then
  return {0, there}
end
local added = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(added) == 'table' then
  return {0, there or '0'}
end
if not there and ARGV[2] ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {1, redis.call('GET', KEYS[1])}
""")

#: Puts a counter that was calculated outside in place of the one that it was calculated from.
#: KEYS: the counter. ARGV: what was there, or ""; what shall be; its milliseconds to live, or "".
_SWAP: Final = Script("""
local there = redis.call('GET', KEYS[1])
if (there or '') ~= ARGV[1] then
  return {0, there or ''}
end
if there then
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
elseif ARGV[3] ~= '' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return {1, ARGV[2]}
""")


class RedisStore:
    """A store in Redis. How much it holds in all is Redis's to say (`maxmemory`); ``max_size`` is of one value."""

    __slots__ = ("_max_size", "_redis", "_slots")

    def __init__(self, redis: Redis, slots: Slots, max_size: int) -> None:
        self._redis = redis
        self._slots = slots
        self._max_size = max_size

    async def get(self, key: bytes) -> Any:
        """Return a value; MISSING where there is none, or its time is over. Raises as `Redis.run` does."""
        name = self._redis.key("cache", key)
        data = await self._redis.run(lambda client: execute_command(client, "GET", name), again=True)
        return MISSING if data is None else loads(data)

    async def set(self, key: bytes, value: Any, ttl: float | None) -> None:
        """Keep a value. Raises as the protocol says, and as `Redis.run` does."""
        name, data = self._redis.key("cache", key), dumps(value)
        refuse_size(len(data) + len(key), self._max_size)
        command: tuple[bytes | str | int, ...] = ("SET", name, data)
        if ttl is not None:
            command += ("PX", _milliseconds(ttl))
        await self._redis.run(lambda client: execute_command(client, *command), again=True)

    async def delete(self, key: bytes) -> bool:
        """Drop a value; tell whether there was one. Raises as `Redis.run` does."""
        name = self._redis.key("cache", key)
        return bool(await self._redis.run(lambda client: execute_command(client, "DEL", name)))

    async def add(self, key: bytes, by: Number, ttl: float | None) -> Number:
        """Add to a counter: one step for all who count, whatever kind of number it is. Raises as `Redis.run` does."""
        name = self._redis.key("counter", key)
        expiry = "" if ttl is None else str(_milliseconds(ttl))
        there = b""
        if type(by) is int and abs(by) < 2**63:
            done, there = await self._redis.call(_ADD, [name], [by, expiry])
            if done:
                return int(there)
        while True:
            total = by if not there else operators.add(_number(there), by)
            done, there = await self._redis.call(_SWAP, [name], [there, _text(total), expiry])
            if done:
                return total

    async def alone(self, key: bytes, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do work that leaves a value, unless another process is at it: then wait for its value.

        Where that one ends without a value, or is killed, the next one does the work.
        """
        pause = _SOON
        name = b"making:" + key
        while not await self._slots.acquire(name, 1):
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, _LATER)
            value = await self.get(key)
            if value is not MISSING:
                return value
        try:
            # Made by another between the look and the turn, perhaps.
            value = await self.get(key)
            return await work() if value is MISSING else value
        finally:
            await self._slots.release(name)

    async def aclose(self) -> None:
        """Do nothing: the connections are closed by who has them."""


def _milliseconds(ttl: float) -> int:
    return max(1, round(ttl * 1000))


def _text(number: Number) -> str:
    """Return a counter as Redis holds it: whole numbers as its own, others with a letter before them."""
    if isinstance(number, Decimal):
        return f"d{number}"
    if isinstance(number, float):
        return f"f{number!r}"
    return str(number)


def _number(text: bytes) -> Number:
    """Return the number of a counter. Raises RunError ``template`` for what is none of ours."""
    try:
        if text[:1] == b"d":
            return Decimal(text[1:].decode())
        return float(text[1:]) if text[:1] == b"f" else int(text)
    except (ValueError, ArithmeticError):
        raise RunError("template", "the value under this key is not a counter") from None


# ------------------------------------------------------------------------------------ slots

#: Seconds after its last sign of life for which a process counts; it gives one each BEAT.
LEASE: Final = 5.0
HEARTBEAT_INTERVAL: Final = 1.25
#: Seconds that the count of a key outlives the last time its process said so, and how often it does.
_SLOT_TTL: Final = 180.0
_REPEAT: Final = 45.0
#: Keys whose counts are said in one go.
_AT_ONCE: Final = 200

#: Acquires a slot. A key holds, for each process, how many places it has; one whose lease is over has none.
#: KEYS: the key, the leases of processes. ARGV: the most, the process, milliseconds to keep, milliseconds of a lease.
#: Returns 1, or 0 where all are taken.
_ACQUIRE: Final = Script("""
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

#: Releases a slot. KEYS: the key. ARGV: the process.
_RELEASE: Final = Script("""
if tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0) > 1 then
  redis.call('HINCRBY', KEYS[1], ARGV[1], -1)
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 1
""")

#: Renews the lease of a process; forgets those that are over. KEYS: the leases. ARGV: the process, milliseconds.
#: Returns 1, or 0 where it had none any more: then others may have taken it for gone.
_RENEW: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local had = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return had and 1 or 0
""")


class RedisSlots:
    """The places that this process has, by key, and its sign of life while it has any.

    While Redis is unreachable, the process counts its own places and writes them when Redis is back. ``heartbeat_task``
    gives the signs of life; None without places.
    """

    __slots__ = ("_doubtful", "_held", "_leases", "_moved", "_name", "_redis", "_under_way", "heartbeat_task")

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._name = uuid4().hex
        self._leases = redis.key("processes")
        self._held: dict[bytes, int] = {}
        #: Keys that are asked about right now, that were since the last word, and whose count in Redis may not be ours.
        self._under_way: Counter[bytes] = Counter()
        self._moved: set[bytes] = set()
        self._doubtful: set[bytes] = set()
        self.heartbeat_task: asyncio.Task[None] | None = None

    async def acquire(self, key: bytes, most: int) -> bool:
        """Take a place of a key that has ``most`` for all processes; tell whether one was free.

        Where Redis is out of reach, the places of this process alone count.
        """
        key = self._redis.key("slots", key)
        self._held[key] = mine = self._held.get(key, 0) + 1
        values = [most, self._name, int(_SLOT_TTL * 1000), int(LEASE * 1000)]
        taken = False
        try:
            with self._changing(key):
                taken = bool(await self._redis.call(_ACQUIRE, [key, self._leases], values))
        except RunError:
            taken = mine <= most
        finally:
            if not taken:
                self._forget(key)
            if self.heartbeat_task is None and (self._held or self._doubtful):
                self.heartbeat_task = asyncio.get_running_loop().create_task(self._heartbeat())
        return taken

    async def release(self, key: bytes) -> None:
        """Release a slot."""
        key = self._redis.key("slots", key)
        self._forget(key)
        with suppress(RunError), self._changing(key):
            await self._redis.call(_RELEASE, [key], [self._name])

    def _forget(self, key: bytes) -> None:
        remaining = self._held.get(key, 0) - 1
        if remaining > 0:
            self._held[key] = remaining
        else:
            self._held.pop(key, None)

    @contextmanager
    def _changing(self, key: bytes) -> Iterator[None]:
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

    async def _heartbeat(self) -> None:
        """Give signs of life while there is something to count; say what Redis may not know any more."""
        said = clock.monotonic()
        while self._held or self._doubtful:
            await asyncio.sleep(HEARTBEAT_INTERVAL)
            try:
                values = [self._name, int(LEASE * 1000)]
                known = await self._redis.call(_RENEW, [self._leases], values, again=True)
                if not known or clock.monotonic() - said > _REPEAT:
                    self._doubtful.update(self._held)
                    said = clock.monotonic()
                await self._say()
            except RunError:
                self._doubtful.update(self._held)
            except Exception as error:  # whatever it is, the signs of life must go on
                log.exception("places-not-told", reason=str(error))
        self.heartbeat_task = None

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
                    pipeline.pexpire(key, int(_SLOT_TTL * 1000))
                else:
                    pipeline.hdel(key, self._name)
            await pipeline.execute()

    async def aclose(self) -> None:
        """Give no more signs of life, and be gone at once."""
        task, self.heartbeat_task = self.heartbeat_task, None
        if task is None:
            return
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(RunError):
            await self._redis.run(lambda client: execute_command(client, "ZREM", self._leases, self._name))


# ------------------------------------------------------------------------------ rate limits

#: Counts a call against quotas, where all have room.
#: KEYS: one for each. ARGV: for each its limit, its period, the length of a part or 0 for windows; milliseconds.
#: Returns for each: 1 where it has room, how many are left, in how many milliseconds there is more.
_HIT: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local free = true
local used, more, fresh = {}, {}, {}
for i, key in ipairs(KEYS) do
  local limit, period, part = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
  if part == 0 then
    used[i] = tonumber(redis.call('GET', key) or 0)
    more[i] = redis.call('PTTL', key)
    if more[i] < 0 then
      used[i], more[i], fresh[i] = 0, period, true
    end
  else
    used[i] = 0
    more[i] = (math.floor(now / part) + 1) * part + period
    local parts = redis.call('HGETALL', key)
    for j = 1, #parts, 2 do
      local ends = tonumber(parts[j])
      if ends <= now then
        redis.call('HDEL', key, parts[j])
      else
        used[i] = used[i] + parts[j+1]
        more[i] = math.min(more[i], ends)
      end
    end
    more[i] = more[i] - now
  end
  free = free and used[i] < limit
end
local told = {}
for i, key in ipairs(KEYS) do
  local limit, period, part = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
  told[3*i-2] = used[i] < limit and 1 or 0
  if free then
    used[i] = used[i] + 1
    if part == 0 then
      if fresh[i] then
        redis.call('SET', key, 1, 'PX', period)
      else
        redis.call('INCR', key)
      end
    else
      redis.call('HINCRBY', key, string.format('%.0f', (math.floor(now / part) + 1) * part + period), 1)
      redis.call('PEXPIRE', key, period + part)
    end
  end
  told[3*i-1] = math.max(0, limit - used[i])
  told[3*i] = more[i]
end
return told
""")


class RedisRates:
    """Counts in Redis. While it is out of reach, the process counts by itself: a limit then holds for each of them."""

    __slots__ = ("_meanwhile", "_redis")

    def __init__(self, redis: Redis, most: int, max_size: int) -> None:
        self._redis = redis
        self._meanwhile = MemoryRates(most, max_size)

    async def hit(self, quotas: Sequence[Quota]) -> list[Verdict]:
        """Count a call."""
        keys = [self._redis.key("rate", quota.key) for quota in quotas]
        values: list[Any] = []
        for quota in quotas:
            values += (quota.limit, quota.period, quota.part if quota.sliding else 0)
        try:
            reply = await self._redis.call(_HIT, keys, values)
        except RunError:
            return await self._meanwhile.hit(quotas)
        return [Verdict(reply[at] == 1, reply[at + 1], reply[at + 2]) for at in range(0, len(reply), 3)]

    async def aclose(self) -> None:
        """Do nothing: the connections are closed by who has them."""
