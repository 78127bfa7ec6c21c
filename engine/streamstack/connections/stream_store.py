"""Streams in Redis: what each process writes of its own, and what all others read of them.

Of a stream there is a hash (where it comes from, how far it is, its head, its end), and a Redis stream whose entries
hold the chunks of one flush: the entry `<n>-0` ends before chunk n. A process has a lease, which it renews; without
it, what it was writing is lost. https://redis.io/docs/latest/develop/data-types/streams/
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import NoScriptError, RedisError, ResponseError

from streamstack.connections.redis import Client, Redis, Script, cancellations, execute_command

#: Seconds before a lost connection is opened again.
_PAUSE: Final = 0.2

Hear = Callable[[], object]
#: Seconds for which a process is taken to live, after it has said so.
LEASE: Final = 8.0
#: Entries that are read at once: each has a flush, 64 KB at most where chunks are small.
_ENTRIES: Final = 8
#: Messages to a process that are kept; of more, the oldest are dropped.
_MOST_MESSAGES: Final = 10_000

#: Keys: hash, stream, the key's own. Values: time to live, the key's value, what keys of streams begin with, fields.
#: Where a key began a stream that is kept, nothing is written, and that one's value is returned.
_OPEN: Final = Script("""
local found = redis.call('GET', KEYS[3])
if found then
  local name = string.match(found, '^%S+')
  if redis.call('EXISTS', ARGV[3] .. name) == 1 then return found end
end
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[1])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return -1
""")

#: Keys: hash, stream, and the key's own where there is one. Values: where it is to be, where it will be, what to keep
#: from, data, lengths, time to live, channel, end, how many values begin the stream where none is known, this process,
#: they, fields. Returns where it is: nothing was written where it was not where it was to be; -1 where there is none,
#: -2 where another has ended it, or goes on with it.
#: Chunks that outlived their hash (Redis makes room key by key) would have numbers that come again.
_WRITE: Final = Script("""
local known = redis.call('HMGET', KEYS[1], 'next', 'end', 'worker')
local begins = tonumber(ARGV[9])
if known[1] and known[3] ~= ARGV[10] then return -2 end
if not known[1] then
  if begins == 0 then return -1 end
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], unpack(ARGV, 11, 10 + begins))
  known[1] = ARGV[1]
end
if known[2] then
  if known[2] == ARGV[8] then return tonumber(ARGV[2]) end
  return -2
end
local have = tonumber(known[1])
if have ~= tonumber(ARGV[1]) then return have end
if ARGV[4] ~= '' then
  redis.call('XADD', KEYS[2], 'MINID', ARGV[3] .. '-0', ARGV[2] .. '-0', 'd', ARGV[4], 'l', ARGV[5])
end
redis.call('HSET', KEYS[1], 'next', ARGV[2], unpack(ARGV, 11 + begins))
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'end', ARGV[8]) end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[6]) end
redis.call('PUBLISH', ARGV[7], ARGV[2])
return tonumber(ARGV[2])
""")

#: Keys: hash, stream. Values: the entry to begin with, how many, what leases begin with. One moment for all of it.
_PEEK: Final = Script("""
local fields = redis.call('HMGET', KEYS[1], 'next', 'end', 'status', 'lines', 'worker')
if not fields[1] then return false end
local entries = redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2])
return {fields, entries, redis.call('EXISTS', ARGV[3] .. fields[5])}
""")

#: Keys: hash, stream. Values: what leases begin with, the end, time to live, channel. Ends a stream without a lease.
_LOSE: Final = Script("""
local fields = redis.call('HMGET', KEYS[1], 'end', 'worker')
if fields[1] or not fields[2] or redis.call('EXISTS', ARGV[1] .. fields[2]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'end', ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[3]) end
redis.call('PUBLISH', ARGV[4], 'end')
return 1
""")

#: Keys: hash, stream. Value: time to live.
_LINGER: Final = Script("""
if redis.call('HEXISTS', KEYS[1], 'end') == 1 then
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
end
return 1
""")

_SCRIPTS: Final = (_OPEN, _WRITE, _PEEK, _LOSE, _LINGER)


@dataclass(frozen=True, slots=True)
class Piece:
    """Chunks that follow one another: the number of the first, and their bytes."""

    first: int
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is of a stream at one moment. ``alive``: its process has a lease."""

    next: int
    end: bytes | None
    status: int
    lines: bytes | None  # None before the answer has begun
    pieces: list[Piece]
    alive: bool


@dataclass(frozen=True, slots=True)
class Writing:
    """What is to be written of a stream. ``have``: the chunk that the store is taken to need next.

    ``key``: what began it. ``begins``: what is known of it, where the store has none yet.
    """

    name: str
    have: int
    next: int
    first: int
    frames: Sequence[bytes]
    seconds: float
    fields: Mapping[str, bytes | str | int]
    end: bytes = b""
    key: bytes = b""
    begins: Mapping[str, bytes | str | int] | None = None


class StreamStore:
    """The streams in one Redis, as one process sees them. ``worker`` is this process's name there."""

    def __init__(self, redis: Redis, worker: str) -> None:
        self.redis = redis
        self.worker = worker
        self._leases = redis.key("stream-worker")
        self._lease = self._leases + worker.encode()

    def _keys(self, name: str) -> tuple[bytes, bytes]:
        return self.redis.key("stream", name), self.redis.key("stream-chunks", name)

    def channel(self, name: str) -> bytes:
        """Return the channel for news of a stream."""
        return self.redis.key("stream-news", name)

    def inbox(self, worker: str) -> bytes:
        """Return the name of a process's inbox: a list of messages, and the channel that announces them."""
        return self.redis.key("stream-inbox", worker)

    # ------------------------------------------------------------- what is written

    async def open(
        self, name: str, fields: Mapping[str, bytes | str | int], seconds: float, key: bytes, value: str
    ) -> bytes | None:
        """Begin a stream, unless its key has begun another, whose value is returned.

        Raises RunError ``state-unreachable``.
        """
        keys = [*self._keys(name), self.redis.key("stream-key", key.hex())]
        arguments = [int(seconds * 1000), value, self.redis.key("stream")]
        (found,) = await self._run([[_OPEN, len(keys), *keys, *arguments, *_flat(fields)]])
        return found if isinstance(found, bytes) else None

    async def write(self, writings: Sequence[Writing]) -> list[int | Exception]:
        """Begin streams and write, all in one go; return how far the store is with each.

        Raises RunError ``state-unreachable``.
        """
        return await self._run([self._write(each) for each in writings])

    def _write(self, each: Writing) -> list[Any]:
        keys = list(self._keys(each.name))
        if each.key:
            keys.append(self.redis.key("stream-key", each.key.hex()))
        begins = _flat(each.begins or {})
        arguments = [
            each.have,
            each.next,
            each.first + 1,
            b"".join(each.frames),
            struct.pack(f"<{len(each.frames)}I", *map(len, each.frames)),
            int(each.seconds * 1000),
            self.channel(each.name),
            each.end,
            len(begins),
            self.worker,
            *begins,
            *(_flat(each.fields) or ["worker", self.worker]),
        ]
        return [_WRITE, len(keys), *keys, *arguments]

    async def _run(self, commands: list[list[Any]]) -> list[Any]:
        """Run scripts, one after the other, in one go. All may be run twice."""

        async def work(client: Client) -> list[Any]:
            async with client.pipeline(transaction=False) as pipe:
                for script, *arguments in commands:
                    pipe.execute_command("EVALSHA", script.digest, *arguments)
                return await pipe.execute(raise_on_error=False)

        found = await self.redis.run(work, again=True)
        if any(isinstance(each, NoScriptError) for each in found):
            await self.redis.run(_load, again=True)
            found = await self.redis.run(work, again=True)
        for each in found:
            if isinstance(each, ResponseError):
                raise self.redis.fault(each) from each
        return found

    # ------------------------------------------------------------- what is read

    async def fields(self, name: str) -> dict[str, bytes]:
        """Return what is known of a stream, empty where there is none. Raises RunError ``state-unreachable``."""
        key = self._keys(name)[0]
        flat = await self.redis.run(lambda client: execute_command(client, "HGETALL", key), again=True)
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        return {field.decode(): value for field, value in pairs}

    async def peek(self, name: str, position: int) -> Seen | None:
        """Return what there is of a stream from a chunk on; None where there is none.

        Raises RunError ``state-unreachable``.
        """
        (found,) = await self._run([[_PEEK, 2, *self._keys(name), f"{position + 1}-0", _ENTRIES, self._leases]])
        if not found:
            return None
        (next_, end, status, lines, _), entries, alive = found
        return Seen(
            int(next_),
            end,
            int(status or 200),
            lines,
            [piece for entry in entries if (piece := _piece(entry, position)) is not None],
            bool(alive),
        )

    async def lose(self, name: str, end: bytes, seconds: float) -> bool:
        """End a stream whose process has no lease. Raises RunError ``state-unreachable``."""
        arguments = [self._leases, end, int(seconds * 1000), self.channel(name)]
        (lost,) = await self._run([[_LOSE, 2, *self._keys(name), *arguments]])
        return bool(lost)

    async def linger(self, name: str, seconds: float) -> None:
        """Keep a stream that has ended for some seconds from now. Raises RunError ``state-unreachable``."""
        await self._run([[_LINGER, 2, *self._keys(name), int(seconds * 1000)]])

    async def forget(self, names: Sequence[str]) -> None:
        """Forget streams of which nothing was written. Raises RunError ``state-unreachable``."""
        keys = [self._keys(name)[0] for name in names]
        await self.redis.run(lambda client: execute_command(client, "DEL", *keys), again=True)

    # ------------------------------------------------------------- leases and messages

    async def renew(self) -> list[bytes]:
        """Say that this process lives, and return what it was told to do. Raises RunError ``state-unreachable``."""
        inbox = self.inbox(self.worker)

        async def work(client: Client) -> Any:
            async with client.pipeline(transaction=False) as pipe:
                pipe.execute_command("SET", self._lease, 1, "PX", int(LEASE * 1000))
                pipe.execute_command("LPOP", inbox, 100)
                return await pipe.execute()

        _, messages = await self.redis.run(work, again=True)
        return messages or []

    async def unregister(self) -> None:
        """Say that this process is gone. Raises RunError ``state-unreachable``."""
        await self.redis.run(lambda client: execute_command(client, "DEL", self._lease), again=True)

    async def send(self, worker: str, message: bytes) -> None:
        """Tell a process what to do. It may be told twice. Raises RunError ``state-unreachable``."""
        inbox = self.inbox(worker)

        async def work(client: Client) -> None:
            async with client.pipeline(transaction=False) as pipe:
                pipe.execute_command("RPUSH", inbox, message)
                pipe.execute_command("LTRIM", inbox, -_MOST_MESSAGES, -1)
                pipe.execute_command("PEXPIRE", inbox, 60_000)
                pipe.execute_command("PUBLISH", inbox, b"")
                await pipe.execute()

        await self.redis.run(work, again=True)


async def _load(client: Client) -> None:
    for script in _SCRIPTS:
        await execute_command(client, "SCRIPT", "LOAD", script.source)


def _flat(fields: Mapping[str, bytes | str | int]) -> list[bytes | str | int]:
    return [part for pair in fields.items() for part in pair]


def _piece(entry: Any, position: int) -> Piece | None:
    """Take an entry apart, without the chunks before a position."""
    name, flat = entry
    values = dict(zip(flat[::2], flat[1::2], strict=True))
    data, packed = values[b"d"], values[b"l"]
    lengths = struct.unpack(f"<{len(packed) // 4}I", packed)
    first = int(name.partition(b"-")[0]) - len(lengths)
    frames, at = [], 0
    for number, length in enumerate(lengths, first):
        if number >= position:
            frames.append(data[at : at + length])
        at += length
    return Piece(max(first, position), frames) if frames else None


class StreamNews:
    """Listens on channels and calls what waits for news.

    What is published while it is not connected is missed, so readers also poll. ``lost`` is called
    when there was no connection.
    """

    def __init__(self, redis: Redis, lost: Hear = bool) -> None:
        self._redis = redis
        self._lost = lost
        self._heard: dict[bytes, set[Hear]] = {}
        #: Channels that Redis has confirmed.
        self._confirmed: set[bytes] = set()
        self._changed = asyncio.Event()

    def listen(self, channel: bytes, hear: Hear) -> None:
        """Call ``hear`` once Redis sends what is published on a channel, and when there is news on it."""
        self._heard.setdefault(channel, set()).add(hear)
        if channel in self._confirmed:
            hear()
        self._changed.set()

    def unlisten(self, channel: bytes, hear: Hear) -> None:
        """Call it no more."""
        heard = self._heard.get(channel, set())
        heard.discard(hear)
        if not heard:
            self._heard.pop(channel, None)
            self._changed.set()

    async def run(self) -> None:
        """Listen until cancelled."""
        before = cancellations()
        while True:
            client: Client = self._redis.listener()
            try:
                await self._follow(client, before)
            except (RedisError, OSError):
                self._confirmed.clear()
                self._lost()
                await asyncio.sleep(_PAUSE)
            finally:
                await client.aclose()

    async def _follow(self, client: Client, before: int) -> None:
        pubsub = client.pubsub()
        known: set[bytes] = set()
        async with pubsub:
            while True:
                wanted = set(self._heard)
                if wanted - known:
                    await pubsub.subscribe(*(wanted - known))
                if known - wanted:
                    self._confirmed -= known - wanted
                    await pubsub.unsubscribe(*(known - wanted))
                known = wanted
                if cancellations() > before:
                    raise asyncio.CancelledError
                self._changed.clear()
                if not known:
                    await self._changed.wait()
                    continue
                message: Any = await self._next(pubsub)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    self._confirmed.add(message["channel"])
                if message["type"] in ("subscribe", "message"):
                    self._wake(message["channel"])  # before it was confirmed, something may have been published

    async def _next(self, pubsub: Any) -> Any:
        """Return the next message; None where the channels have changed meanwhile."""
        if self._changed.is_set():
            return None
        return await pubsub.get_message(timeout=0.05)

    def _wake(self, channel: bytes) -> None:
        for hear in tuple(self._heard.get(channel, ())):
            hear()
