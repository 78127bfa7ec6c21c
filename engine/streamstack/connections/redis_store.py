"""Cached values and counters in a Redis, shared by every process that has the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, Final

from streamstack.connections.kept_values import pack, unpack
from streamstack.connections.redis import Redis, Script, ask
from streamstack.connections.slots import Slots
from streamstack.connections.state import Number, refuse_size
from streamstack.errors import RunError
from streamstack.language import operators
from streamstack.language.values import MISSING

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

    __slots__ = ("_adding", "_max_size", "_redis", "_slots")

    def __init__(self, redis: Redis, slots: Slots, max_size: int) -> None:
        self._redis = redis
        self._slots = slots
        self._max_size = max_size
        #: Who calculates with a counter of fractions, key by key: of one process one at a time.
        self._adding: dict[bytes, _Line] = {}

    async def get(self, key: bytes) -> Any:
        """Return a value; MISSING where there is none, or its time is over. Raises as `Redis.run` does."""
        name = self._redis.key("cache", key)
        data = await self._redis.run(lambda client: ask(client, "GET", name), again=True)
        return MISSING if data is None else unpack(data)

    async def set(self, key: bytes, value: Any, ttl: float | None) -> None:
        """Keep a value. Raises as the protocol says, and as `Redis.run` does."""
        name, data = self._redis.key("cache", key), pack(value)
        refuse_size(len(data) + len(key), self._max_size)
        command: tuple[bytes | str | int, ...] = ("SET", name, data)
        if ttl is not None:
            command += ("PX", _milliseconds(ttl))
        await self._redis.run(lambda client: ask(client, *command), again=True)

    async def delete(self, key: bytes) -> bool:
        """Drop a value; tell whether there was one. Raises as `Redis.run` does."""
        name = self._redis.key("cache", key)
        return bool(await self._redis.run(lambda client: ask(client, "DEL", name)))

    async def add(self, key: bytes, by: Number, ttl: float | None) -> Number:
        """Add to a counter: one step for all who count, whatever kind of number it is. Raises as `Redis.run` does."""
        name = self._redis.key("counter", key)
        lives = "" if ttl is None else str(_milliseconds(ttl))
        there = b""
        if type(by) is int and abs(by) < 2**63:
            done, there = await self._redis.call(_ADD, [name], [by, lives])
            if done:
                return int(there)
        line = self._adding.setdefault(name, _Line())
        line.waiting += 1
        try:
            async with line.lock:
                there = line.latest or there
                while True:
                    total = by if not there else operators.add(_number(there), by)
                    done, there = await self._redis.call(
                        _SWAP, [name], [there, _text(total), lives]
                    )
                    if done:
                        line.latest = there
                        return total
        finally:
            line.waiting -= 1
            if not line.waiting:
                del self._adding[name]

    async def alone(self, key: bytes, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do work that leaves a value, unless another process is at it: then wait for its value.

        Where that one ends without a value, or is killed, the next one does the work.
        """
        pause = _SOON
        name = b"making:" + key
        while not await self._slots.take(name, 1):
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
            await self._slots.give(name)

    async def aclose(self) -> None:
        """Do nothing: the connections are closed by who has them."""


class _Line:
    """Those of this process who wait to calculate with one counter; ``latest`` is what the last one left."""

    __slots__ = ("latest", "lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
        self.latest = b""


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
        raise RunError("template", "what is kept under this key is no counter") from None
