"""Channels over Redis, for all processes and machines that share it.

Of a channel there is a hash (the number and the token of its last message, the version of its presence), a Redis stream
with the newest messages (the entry `<number>-<token>` is a message), and, for `history: {by: key}`, the last message of
each key. PUBLISH only announces that there is something: each process then reads what it does not have. So nothing
depends on what a lost connection did not deliver.

Tokens are random, and each message has that of the message before it. They tell a message from another one with its
number, of a Redis that has lost its data.

Presence: each process has a hash of its members in a channel, and a lease. The members of a process without a lease do
not count, and are removed by the process that notices first.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from time import time
from typing import Any, Final
from uuid import uuid4

import structlog

from streamstack import clock
from streamstack.connections.channels import (
    LAST,
    Entry,
    LocalChannel,
    Since,
    Subscription,
    check_name,
    check_size,
    first_entries,
    gap_entry,
    member_key,
    message,
    presence_entry,
)
from streamstack.connections.redis import Redis, Script, execute_command
from streamstack.connections.serialization import dumps, loads
from streamstack.connections.stream_store import StreamNews
from streamstack.errors import RunError
from streamstack.language import channels

log = structlog.get_logger("streamstack.state")

#: Seconds for which a process counts as alive after the last renewal of its lease, and between renewals.
LEASE: Final = 6.0
_RENEWAL: Final = 1.5
#: Seconds between two looks at a channel that no message announces, and until its presence is written again.
_POLL: Final = 10.0
_REPEAT: Final = 600.0
#: Seconds before a failed read is tried again.
_PAUSE: Final = 0.2
#: Messages that are stored at least, for processes that are behind, and for how many seconds.
_LEAST_STORED: Final = 256
_LEAST_SECONDS: Final = 60.0
#: Seconds that a channel is known for after its last message, and presence without being written again.
_KNOWN: Final = 3600.0
#: Seconds for Redis to confirm a subscription.
_CONFIRMED_WITHIN: Final = 5.0
#: Messages that are read at once, and those of a channel that a process remembers having read.
_AT_ONCE: Final = 500
_REMEMBERED: Final = 2000

#: KEYS: the hash, the stream, the messages by key, the numbers by key. ARGV: the token, what is published, the most
#: messages, milliseconds for which they are stored, milliseconds for which the channel is known, where it is announced,
#: the key or "", the most keys. Returns the number of the message.
_PUBLISH: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local n = redis.call('HINCRBY', KEYS[1], 'n', 1)
if n == 1 then redis.call('DEL', KEYS[2], KEYS[3], KEYS[4]) end
local number, at = string.format('%.0f', n), string.format('%.0f', now)
local before = redis.call('HGET', KEYS[1], 'r') or ''
redis.call('HSET', KEYS[1], 'r', ARGV[1])
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], number .. '-' .. ARGV[1], 't', at, 'b', before, 'd', ARGV[2])
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 2)) do
  if tonumber(entry[2][2]) <= now - ARGV[4] then redis.call('XDEL', KEYS[2], entry[1]) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[7], number .. '-' .. ARGV[1] .. ' ' .. at .. ' ' .. ARGV[2])
  redis.call('ZADD', KEYS[4], number, ARGV[7])
  if redis.call('ZCARD', KEYS[4]) > tonumber(ARGV[8]) then
    redis.call('HDEL', KEYS[3], redis.call('ZPOPMIN', KEYS[4])[1])
  end
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
  redis.call('PEXPIRE', KEYS[4], ARGV[4])
end
redis.call('PUBLISH', ARGV[6], '')
return number
""")

#: KEYS: the hash, the stream, the messages by key. ARGV: the number to begin with, how many, milliseconds for which the
#: channel is known, 1 for the messages by key. Returns the number and token of the last message, the version of the
#: presence, the time, messages, and those by key.
_READ: Final = Script("""
local time = redis.call('TIME')
local fields = redis.call('HMGET', KEYS[1], 'n', 'r', 'p')
local entries, keyed = {}, {}
if fields[1] then
  entries = redis.call('XRANGE', KEYS[2], ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])
  if ARGV[4] == '1' then keyed = redis.call('HVALS', KEYS[3]) end
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
local now = time[1] .. '.' .. string.format('%06d', time[2])
return {fields[1] or '0', fields[2] or '', fields[3] or '', now, entries, keyed}
""")

#: Writes and removes members. KEYS: the channel's hash, the members of the process, the processes, the counts of
#: members, the channels of the process, the leases. ARGV: the process, the name of the channel, milliseconds, where it
#: is announced, milliseconds of a lease, then for each member its key and what is written of it, "" to remove it.
#: Returns whether the process had a lease.
_PRESENCE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local had = tonumber(redis.call('ZSCORE', KEYS[6], ARGV[1]) or 0) > now
redis.call('ZADD', KEYS[6], now + ARGV[5], ARGV[1])
local changed = false
for i = 6, #ARGV, 2 do
  local key, written = ARGV[i], ARGV[i + 1]
  if written ~= '' then
    if redis.call('HSETNX', KEYS[2], key, written) == 1 then
      changed = redis.call('HINCRBY', KEYS[4], key, 1) == 1 or changed
    end
  elseif redis.call('HDEL', KEYS[2], key) == 1 and redis.call('HINCRBY', KEYS[4], key, -1) <= 0 then
    redis.call('HDEL', KEYS[4], key)
    changed = true
  end
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('SADD', KEYS[3], ARGV[1])
  redis.call('SADD', KEYS[5], ARGV[2])
else
  redis.call('SREM', KEYS[3], ARGV[1])
  redis.call('SREM', KEYS[5], ARGV[2])
end
for i = 2, 5 do redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
if changed then
  redis.call('HINCRBY', KEYS[1], 'p', 1)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PUBLISH', ARGV[4], '')
end
return had and 1 or 0
""")

#: Removes the members of a process without a lease. KEYS: the channel's hash, the members of the process, the
#: processes, the counts of members, the leases. ARGV: the process, where it is announced, milliseconds. Returns 0 where
#: it has a lease.
_REMOVE: Final = Script("""
local time = redis.call('TIME')
local lease = redis.call('ZSCORE', KEYS[5], ARGV[1])
if lease and tonumber(lease) > time[1] * 1000 + math.floor(time[2] / 1000) then return 0 end
for _, key in ipairs(redis.call('HKEYS', KEYS[2])) do
  if redis.call('HINCRBY', KEYS[4], key, -1) <= 0 then redis.call('HDEL', KEYS[4], key) end
end
redis.call('DEL', KEYS[2])
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'p', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[2], '')
return 1
""")

#: Forgets a process without a lease. KEYS: the leases, its channels. ARGV: the process.
_FORGET: Final = Script("""
local time = redis.call('TIME')
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if lease and tonumber(lease) > time[1] * 1000 + math.floor(time[2] / 1000) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1
""")

#: KEYS: the processes of a channel, the leases. ARGV: what the keys of members begin with. Returns what is written of
#: each member of the processes that have a lease.
_MEMBERS: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
for _, process in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local lease = redis.call('ZSCORE', KEYS[2], process)
  if lease and tonumber(lease) > now then
    found[#found + 1] = redis.call('HVALS', ARGV[1] .. process)
  end
end
return found
""")

#: Renews the lease of a process. KEYS: the leases. ARGV: the process, milliseconds. Returns whether it had one, and the
#: processes whose leases have expired.
_RENEW: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local had = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0) > now
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return {had and 1 or 0, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)}
""")


class _SharedChannel(LocalChannel):
    """What this process has of a channel in Redis. It is in order as Redis has it, up to ``number``."""

    __slots__ = (
        "_confirmed",
        "_ready",
        "changed",
        "member_version",
        "members",
        "number",
        "polled",
        "present",
        "read",
        "reading",
        "settles_at",
        "shows_presence",
        "token",
        "version",
    )

    def __init__(self, name: str, settings: channels.ChannelSettings) -> None:
        super().__init__(name, settings)
        self.number = -1  # of the last message that was read; -1 before the first look
        self.token = ""
        #: Messages that were read, by number: a Redis that comes back with older data has them still.
        self.read: dict[int, str] = {}
        self.reading: asyncio.Task[None] | None = None
        self.changed = asyncio.Event()  # there may be something to read
        self.polled = 0.0
        #: Members of this process by their keys, each with the number of its subscriptions.
        self.members: dict[bytes, tuple[Any, int]] = {}
        #: Whether a subscriber receives joins and leaves. Then: all members, and their version.
        self.shows_presence = False
        self.present: dict[bytes, Any] | None = None
        self.member_version = b""
        self.version = b""
        self.settles_at = 0.0
        self._confirmed = False
        self._ready: set[asyncio.Future[None]] = set()

    def hear(self) -> None:
        """Note that Redis sends what is published, and that there may be something to read."""
        self._confirmed = True
        self.changed.set()

    async def followed(self) -> None:
        """Wait until all that is published now has been read. Raises RunError ``state-unreachable``."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ready.add(ready)
        self.changed.set()
        try:
            async with asyncio.timeout(_CONFIRMED_WITHIN):
                await ready
        except TimeoutError:
            raise RunError("state-unreachable", "Redis does not confirm the subscription to a channel") from None
        finally:
            self._ready.discard(ready)

    def take_ready(self) -> list[asyncio.Future[None]]:
        """Return what waits for the next read; nothing before Redis has confirmed."""
        return list(self._ready) if self._confirmed else []

    def fail(self, error: RunError) -> None:
        """Fail what waits for a read."""
        for each in self._ready:
            if not each.done():
                each.set_exception(RunError(error.code, error.message))

    def add(self, entries: list[Entry]) -> None:
        """Add messages that were read."""
        for entry in entries:
            self.number = entry.number
            self.token = self.read[entry.number] = _token_of(entry)
            self.append(entry)
        if len(self.read) > 2 * _REMEMBERED:
            self.read = dict(sorted(self.read.items())[-_REMEMBERED:])


class RedisChannels:
    """The channels in one Redis, as one process sees them."""

    def __init__(self, redis: Redis, settings: channels.Channels) -> None:
        self._redis = redis
        self._settings = settings
        self._process = uuid4().hex
        self._leases = redis.key("channel-processes")
        self._channels: dict[str, _SharedChannel] = {}
        self._news = StreamNews(redis)
        self._tasks: list[asyncio.Task[None]] = []
        #: Members whose presence may not be what Redis has, by channel.
        self._doubtful: dict[str, set[bytes]] = {}

    def _key(self, kind: str, name: str, process: str | None = None) -> bytes:
        """Return a key of a channel: the names of channels have no NUL."""
        return self._redis.key(f"channel-{kind}", name if process is None else f"{name}\0{process}")

    def _keys(self, name: str) -> list[bytes]:
        return [self._key(kind, name) for kind in ("head", "messages", "keyed", "key-numbers")]

    # ------------------------------------------------------------- messages

    async def publish(self, name: str, content: Any, *, event: str | None = None, key: Any = None) -> str:
        """Publish a message and return its id."""
        check_name(name)
        data = dumps([content, event, key])
        check_size(len(data))
        history = channels.settings_of(self._settings, name).history
        token = str(random.SystemRandom().getrandbits(60))
        seconds = max(history.seconds, _LEAST_SECONDS)
        values = [
            token,
            data,
            max(history.size, _LEAST_STORED),
            int(seconds * 1000),
            int((seconds + _KNOWN) * 1000),
            self._key("news", name),
            member_key([key]) if history.by == "key" and history.size else "",
            history.size,
        ]
        number = await self._redis.call(_PUBLISH, self._keys(name), values)
        return f"{number.decode()}-{token}"

    async def _read(self, channel: _SharedChannel, begin: int, count: int, *, keyed: bool = False) -> Any:
        seconds = max(channel.settings.history.seconds, _LEAST_SECONDS) + _KNOWN
        values = [max(begin, 0), count, int(seconds * 1000), int(keyed)]
        return await self._redis.call(_READ, self._keys(channel.name)[:3], values, again=True)

    async def subscribe(self, name: str, since: Since = LAST, *, member: Any = None) -> Subscription:
        """Subscribe to a channel, with a member as present in it."""
        check_name(name)
        key = None if member is None else member_key(member)
        self._start()
        channel = self._channels.get(name)
        if channel is None:
            settings = channels.settings_of(self._settings, name)
            channel = self._channels[name] = _SharedChannel(name, settings)
            channel.reading = asyncio.create_task(self._follow(channel))
            self._news.listen(self._key("news", name), channel.hear)
        channel.subscribers += 1
        try:
            if key is not None:
                channel.shows_presence = True
                await self._enter(channel, key, member)
            await channel.followed()
            position = channel.end
            initial, number = await self._begin(channel, since)
        except BaseException:
            await asyncio.shield(self._unsubscribe(channel, key))
            raise
        return Subscription(channel, initial, number, position, partial(self._unsubscribe, channel, key))

    async def _begin(self, channel: _SharedChannel, since: Since) -> tuple[list[Entry], int]:
        """Return the entries that a subscription begins with, and the number of the last message before the rest."""
        if since.kind == "last":
            return [], max(channel.number, 0)
        history = channel.settings.history
        by_key = history.by == "key"
        reply = await self._read(channel, 0, max(history.size, _LEAST_STORED), keyed=by_key)
        head, token, now = int(reply[0]), reply[1].decode(), float(reply[3])
        entries = [_entry_of(each) for each in reply[4]]
        known = {entry.item["id"] for entry in entries} | {f"{head}-{token}"}
        if entries:
            known.add(f"{entries[0].number - 1}-{reply[4][0][1][3].decode()}")
        if by_key:
            entries = sorted((_keyed_entry_of(each) for each in reply[5]), key=lambda entry: entry.number)
        stored = [entry for entry in entries if entry.at > now - history.seconds]
        stored = stored[max(0, len(stored) - history.size) :]
        return first_entries(since, stored, head, history, lambda number, of: f"{number}-{of}" in known, now), head

    async def _unsubscribe(self, channel: _SharedChannel, key: bytes | None) -> None:
        channel.leave()
        gone: list[bytes] = []
        if key is not None and key in channel.members:
            member, count = channel.members[key]
            if count == 1:
                del channel.members[key]
                gone.append(key)
            else:
                channel.members[key] = member, count - 1
        if not channel.subscribers and self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            self._news.unlisten(self._key("news", channel.name), channel.hear)
            if channel.reading is not None:
                channel.reading.cancel()
        if gone:
            with suppress(RunError):  # it is tried again
                await self._write_members(channel.name, gone)

    # ------------------------------------------------------------- what is read

    async def _follow(self, channel: _SharedChannel) -> None:
        """Read what is new in a channel, each time that there may be something."""
        while True:
            await channel.changed.wait()
            channel.changed.clear()
            ready = channel.take_ready()
            try:
                await self._catch_up(channel)
                await self._update_presence(channel)
            except RunError as error:
                channel.fail(error)
                await asyncio.sleep(_PAUSE)
                channel.changed.set()
            except Exception as error:  # whatever it is, the subscribers must be served
                log.exception("channel-not-read", channel=channel.name, reason=str(error))
                await asyncio.sleep(_PAUSE)
                channel.changed.set()
            else:
                for each in ready:
                    if not each.done():
                        each.set_result(None)

    async def _catch_up(self, channel: _SharedChannel) -> None:
        """Read the messages after the last one that was read; report a gap where they do not follow it."""
        channel.polled = clock.monotonic()
        while True:
            reply = await self._read(channel, channel.number + 1, _AT_ONCE if channel.number >= 0 else 1)
            head, token, channel.version = int(reply[0]), reply[1].decode(), reply[2]
            if channel.number < 0:
                channel.number, channel.token = head, token
                channel.read[head] = token
            if (head, token) == (channel.number, channel.token):
                return
            found = [(_entry_of(each), each[1][3].decode()) for each in reply[4]]
            if not found or (found[0][0].number, found[0][1]) != (channel.number + 1, channel.token):
                await self._catch_up_after_loss(channel)
                return
            channel.add([entry for entry, _ in found])

    async def _catch_up_after_loss(self, channel: _SharedChannel) -> None:
        """Report a gap, and add the messages that are there and were not read.

        Those between are too old to be stored, or Redis has lost its data, be it a part of it.
        """
        reply = await self._read(channel, 0, max(channel.settings.history.size, _LEAST_STORED))
        entries = [_entry_of(each) for each in reply[4]]
        new = [each for each in entries if channel.read.get(each.number) != _token_of(each)]
        channel.append(gap_entry(None))
        channel.read = {each.number: _token_of(each) for each in entries}
        channel.add(new)
        channel.number, channel.token = int(reply[0]), reply[1].decode()

    # ------------------------------------------------------------- presence

    async def members(self, name: str) -> list[Any]:
        """Return who is present."""
        check_name(name)
        return list((await self._members(name)).values())

    async def _members(self, name: str) -> dict[bytes, Any]:
        """Return the members of all processes by their keys, in the order in which they joined."""
        keys = [self._key("processes", name), self._leases]
        found = await self._redis.call(_MEMBERS, keys, [self._key("members", name, "")], again=True)
        written = sorted((loads(each) for process in found for each in process), key=lambda each: each[0])
        members: dict[bytes, Any] = {}
        for _, member in written:
            members.setdefault(member_key(member), member)
        return members

    async def _update_presence(self, channel: _SharedChannel) -> None:
        """Report who has joined and left since the last look."""
        if not channel.shows_presence:
            return
        version = channel.version
        if channel.present is not None:
            if version == channel.member_version:
                return
            if int(version or 0) < int(channel.member_version or 0):
                # Redis has lost its data: the processes write their members again.
                channel.member_version = b"0"
                channel.settles_at = clock.monotonic() + LEASE
            if (left := channel.settles_at - clock.monotonic()) > 0:
                asyncio.get_running_loop().call_later(left, channel.changed.set)
                return
        present = await self._members(channel.name)
        before, channel.present, channel.member_version = channel.present, present, version
        if before is not None:
            for event, these, those in (("leave", before, present), ("join", present, before)):
                for key in these.keys() - those.keys():
                    channel.append(presence_entry(event, these[key]))

    async def _enter(self, channel: _SharedChannel, key: bytes, member: Any) -> None:
        """Add a subscription of a member. Raises RunError ``state-unreachable``."""
        known, count = channel.members.get(key, (member, 0))
        channel.members[key] = known, count + 1
        if not count:
            await self._write_members(channel.name, [key])

    def _members_here(self, name: str) -> dict[bytes, tuple[Any, int]]:
        channel = self._channels.get(name)
        return {} if channel is None else channel.members

    async def _write_members(self, name: str, changed: Iterable[bytes]) -> None:
        """Write which of some members are present here. What fails is tried again with the next lease."""
        doubtful = self._doubtful.setdefault(name, set())
        doubtful.update(changed)
        here = self._members_here(name)
        written = {key: dumps([time(), here[key][0]]) if key in here else b"" for key in changed}
        keys = [
            self._key("head", name),
            self._key("members", name, self._process),
            self._key("processes", name),
            self._key("member-counts", name),
            self._key("of-process", self._process),
            self._leases,
        ]
        values = [self._process, name, int(_KNOWN * 1000), self._key("news", name), int(LEASE * 1000)]
        values += [part for pair in written.items() for part in pair]
        had = await self._redis.call(_PRESENCE, keys, values, again=True)
        here = self._members_here(name)
        doubtful.difference_update(key for key, data in written.items() if (key in here) == bool(data))
        if not had:
            self._doubt_all()
        if not doubtful and self._doubtful.get(name) is doubtful:
            del self._doubtful[name]

    def _doubt_all(self) -> None:
        """Note that Redis may have lost the members of this process."""
        for name, channel in self._channels.items():
            if channel.members:
                self._doubtful.setdefault(name, set()).update(channel.members)

    # ------------------------------------------------------------- leases

    def _start(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._news.run()), asyncio.create_task(self._renew())]

    async def _renew(self) -> None:
        """Renew the lease of this process, write members that are in doubt, and remove those of dead processes."""
        written = clock.monotonic()
        while True:
            try:
                values = [self._process, int(LEASE * 1000)]
                had, expired = await self._redis.call(_RENEW, [self._leases], values, again=True)
                if not had or clock.monotonic() - written > _REPEAT:
                    written = clock.monotonic()
                    self._doubt_all()
                for name, doubtful in list(self._doubtful.items()):
                    await self._write_members(name, list(doubtful))
                for process in expired:
                    await self._remove(process.decode())
                self._poll()
            except RunError:
                pass  # the log has it
            except Exception as error:  # whatever it is, the lease must be renewed
                log.exception("channels-not-renewed", reason=str(error))
            await asyncio.sleep(_RENEWAL)

    def _poll(self) -> None:
        """Look at channels of which nothing was heard for a while."""
        before = clock.monotonic() - _POLL
        for channel in self._channels.values():
            if channel.polled < before:
                channel.changed.set()

    async def _remove(self, process: str) -> None:
        """Remove the members of a process without a lease."""
        channels_of = self._key("of-process", process)
        names = await self._redis.run(lambda client: execute_command(client, "SMEMBERS", channels_of), again=True)
        for each in names:
            name = each.decode()
            keys = [self._key("head", name), self._key("members", name, process), self._key("processes", name)]
            keys += [self._key("member-counts", name), self._leases]
            values = [process, self._key("news", name), int(_KNOWN * 1000)]
            if not await self._redis.call(_REMOVE, keys, values, again=True):
                return
        await self._redis.call(_FORGET, [self._leases, channels_of], [process], again=True)

    async def aclose(self) -> None:
        """End all subscriptions, and leave with all members."""
        tasks = [*self._tasks, *(each.reading for each in self._channels.values() if each.reading is not None)]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        members = {name: list(channel.members) for name, channel in self._channels.items()}
        self._channels.clear()
        if not tasks:
            return
        with suppress(RunError):
            for name, keys in members.items():
                if keys:
                    await self._write_members(name, keys)
            await self._redis.run(lambda client: execute_command(client, "ZREM", self._leases, self._process))


def _entry_of(found: Any) -> Entry:
    """Return a message of the Redis stream."""
    name, (_, at, _, _, _, data) = found
    return _message(name, float(at) / 1000, data)


def _keyed_entry_of(found: bytes) -> Entry:
    """Return a message that is stored by its key."""
    name, at, data = found.split(b" ", 2)
    return _message(name, float(at) / 1000, data)


def _message(name: bytes, at: float, data: bytes) -> Entry:
    number, _, token = name.decode().partition("-")
    content, event, key = loads(data)
    return message(int(number), token, content, event, key, at, len(data))


def _token_of(entry: Entry) -> str:
    return str(entry.item["id"]).partition("-")[2]
