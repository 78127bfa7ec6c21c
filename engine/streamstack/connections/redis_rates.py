"""How often something may be done, counted in a Redis: one step for all processes, by the clock of Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from streamstack.connections.rates import MemoryRates, Quota, Verdict
from streamstack.connections.redis import Redis, Script
from streamstack.errors import RunError

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

    def __init__(self, redis: Redis, most: int) -> None:
        self._redis = redis
        self._meanwhile = MemoryRates(most)

    async def hit(self, quotas: Sequence[Quota]) -> list[Verdict]:
        """Count a call."""
        keys = [self._redis.key("rate", quota.key) for quota in quotas]
        values: list[Any] = []
        for quota in quotas:
            values += (quota.limit, quota.period, quota.part if quota.sliding else 0)
        try:
            told = await self._redis.call(_HIT, keys, values)
        except RunError:
            return await self._meanwhile.hit(quotas)
        return [Verdict(told[at] == 1, told[at + 1], told[at + 2]) for at in range(0, len(told), 3)]

    async def aclose(self) -> None:
        """Do nothing: the connections are closed by who has them."""
