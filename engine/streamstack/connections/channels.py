"""Channels: publish and subscribe with history and presence. The interface, and channels in memory.

A subscriber has no queue of its own. It has a position in the messages that its process holds for a channel, so all it
costs the publisher is the call that wakes it.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal, Protocol

import orjson

from streamstack import clock
from streamstack.connections.state import size_in_memory
from streamstack.errors import RunError
from streamstack.language import channels
from streamstack.language.channels import ChannelHistory
from streamstack.language.settings import StateSettings
from streamstack.language.values import canonical_json, to_json

#: Bytes of one message, and of one member, at most.
LARGEST_MESSAGE: Final = 1024 * 1024
LARGEST_MEMBER: Final = 4096
#: Messages, and their bytes, that a subscriber may be behind. Twice as many are held before the oldest are dropped.
MOST_BEHIND: Final = 1000
MOST_BYTES_BEHIND: Final = 8 * 1024 * 1024
#: Subscriptions that are served before others have the event loop.
_RELAYED_AT_ONCE: Final = 200
#: Bytes that a message takes beside its content, and a channel beside its messages, about.
_OVERHEAD: Final = 600


@dataclass(frozen=True, slots=True)
class Since:
    """Where a subscription begins: with the stored messages after an id, of some seconds, or the last few of them.

    "last" begins with the next message, "start" with the oldest one that is stored.
    """

    kind: Literal["last", "start", "id", "seconds", "count"] = "last"
    value: Any = None


LAST: Final = Since()


class Entry:
    """What subscribers receive: a message, a join or leave, or a gap. All subscribers share it.

    ``number`` counts the messages of a channel; it is 0 for all else. ``event`` is that of the item.
    """

    __slots__ = ("_encoded", "at", "item", "number", "shared", "size")

    def __init__(self, item: dict[str, Any], number: int = 0, at: float = 0.0, size: int = 0) -> None:
        self.item = item
        self.number = number
        self.at = at
        self.size = size
        self._encoded: dict[str, Any] | None = None
        #: What is sent of it, by the fields that are sent.
        self.shared: dict[Any, Any] = {}

    @property
    def encoded(self) -> dict[str, Any]:
        """The item for those who send its content: objects and lists are encoded once for all of them."""
        encoded = self._encoded
        if encoded is None:
            content = self.item["content"]
            encoded = self.item
            if isinstance(content, (dict, list, tuple)):
                encoded = {**encoded, "content": orjson.Fragment(to_json(content))}
            self._encoded = encoded
        return encoded


def message(number: int, token: str, content: Any, event: str | None, key: Any, at: float, size: int) -> Entry:
    """Return a message; its id is its number and a token that tells it from others that have the same number."""
    item = {"id": f"{number}-{token}", "event": event, "content": content, "key": key, "member": None}
    return Entry(item, number, at, size + _OVERHEAD)


def presence_entry(event: str, member: Any) -> Entry:
    """Return a join or leave."""
    return Entry({"id": None, "event": event, "content": member, "key": None, "member": member})


def gap_entry(missed: int | None) -> Entry:
    """Return a gap of some messages; None where their number is unknown."""
    return Entry({"id": None, "event": "gap", "content": {"missed": missed}, "key": None, "member": None})


def is_gap(entry: Entry) -> bool:
    """Return whether an entry reports missing messages."""
    return not entry.number and entry.item["member"] is None and entry.item["event"] == "gap"


def parse_id(text: str) -> tuple[int, str] | None:
    """Return the number and the token of an id; None for any other text."""
    number, dash, token = text.partition("-")
    if not dash or not token or len(number) > 18 or not (number.isascii() and number.isdigit()):
        return None
    return int(number), token


def check_name(name: str) -> None:
    """Raise RunError ``invalid-input`` for what can't be the name of a channel: such a name is a client's."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= channels.LONGEST_NAME or "\0" in name:
        reason = f"the name of a channel has 1 to {channels.LONGEST_NAME} bytes of UTF-8, and no NUL"
        raise RunError("invalid-input", reason, status=400)


def check_size(size: int) -> None:
    """Raise RunError ``limit-reached`` for a message of too many bytes."""
    if size > LARGEST_MESSAGE:
        raise RunError(
            "limit-reached",
            f"the message takes about {size:,} bytes, and a channel takes {LARGEST_MESSAGE:,}: publish less, such as "
            "a URL of the content",
        )


def member_key(member: Any) -> bytes:
    """Return what tells a member from others. Raises RunError ``limit-reached`` for one that is too large."""
    key = canonical_json(member)
    if len(key) > LARGEST_MEMBER:
        raise RunError("limit-reached", f"a member has {len(key):,} bytes, and may have {LARGEST_MEMBER:,}")
    return key


class LocalChannel:
    """What this process holds of a channel: the newest entries, for subscribers who are a little behind."""

    __slots__ = ("_base", "_buffer", "_relaying", "_size", "_waiting", "name", "relays", "settings", "subscribers")

    def __init__(self, name: str, settings: channels.ChannelSettings) -> None:
        self.name = name
        self.settings = settings
        self.subscribers = 0
        self._buffer: list[Entry] = []
        self._base = 0  # the position of the first of them
        self._size = 0
        self._waiting: set[asyncio.Future[None]] = set()
        #: Subscriptions whose entries are handed over as they come.
        self.relays: dict[Subscription, asyncio.Future[None]] = {}
        self._relaying = False

    @property
    def end(self) -> int:
        """The position of the next entry."""
        return self._base + len(self._buffer)

    def append(self, entry: Entry) -> None:
        """Add an entry, and wake the subscribers."""
        if not self.subscribers:
            return
        buffer = self._buffer
        buffer.append(entry)
        self._size += entry.size
        if len(buffer) >= 2 * MOST_BEHIND or self._size >= 2 * MOST_BYTES_BEHIND:
            self._trim()
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            if not each.done():
                each.set_result(None)
        if self.relays and not self._relaying:
            self._relaying = True
            asyncio.get_running_loop().call_soon(self._relay, list(self.relays), 0, self.end)

    def _relay(self, relays: list[Subscription], begin: int, end: int) -> None:
        """Hand the new entries to some subscriptions, then to the next ones: others have the event loop between."""
        for subscription in relays[begin : begin + _RELAYED_AT_ONCE]:
            future = self.relays.get(subscription)
            if future is not None and not future.done() and not subscription.hand_over():
                future.set_result(None)
        begin += _RELAYED_AT_ONCE
        if begin >= len(relays):
            if end == self.end:
                self._relaying = False
                return
            relays, begin, end = list(self.relays), 0, self.end
        asyncio.get_running_loop().call_soon(self._relay, relays, begin, end)

    def _trim(self) -> None:
        drop = max(0, len(self._buffer) - MOST_BEHIND)
        size = self._size - sum(each.size for each in self._buffer[:drop])
        while size > MOST_BYTES_BEHIND and drop < len(self._buffer) - 1:
            size -= self._buffer[drop].size
            drop += 1
        del self._buffer[:drop]
        self._base += drop
        self._size = size

    def entries(self, position: int) -> tuple[list[Entry], bool]:
        """Return the entries from a position on, and whether older ones are no longer there."""
        first = position - self._base
        return self._buffer[max(first, 0) :], first < 0

    async def wait(self, position: int) -> None:
        """Wait for an entry at a position."""
        if position < self.end:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def leave(self) -> None:
        """Count one subscriber less; the last one needs no entries."""
        self.subscribers -= 1
        if not self.subscribers:
            self._base = self.end
            self._buffer.clear()
            self._size = 0


class Subscription:
    """One subscriber's way through a channel. ``number`` is that of the last message that it needs no more."""

    __slots__ = ("_channel", "_closing", "_initial", "_number", "_position", "_send", "relayed")

    def __init__(
        self,
        channel: LocalChannel,
        initial: list[Entry],
        number: int,
        position: int,
        closing: Callable[[], Awaitable[None]],
    ) -> None:
        self._channel = channel
        self._initial = initial
        self._number = number
        self._position = position
        self._closing: Callable[[], Awaitable[None]] | None = closing
        self._send: Callable[[Entry], bool] | None = None
        self.relayed = 0  # entries that were handed over

    @property
    def idle(self) -> bool:
        """Whether there is nothing to take yet."""
        return not self._initial and self._position >= self._channel.end

    async def take(self) -> list[Entry]:
        """Wait for entries and return them: at least one, in order."""
        entries, self._initial = self._initial, []
        while not entries:
            channel = self._channel
            await channel.wait(self._position)
            entries, late = channel.entries(self._position)
            self._position = channel.end
            if late:
                first = next((each.number for each in entries if each.number), 0)
                entries.insert(0, gap_entry(max(first - self._number - 1, 0) if first else None))
            entries = self._new(entries)
        return entries

    def _new(self, entries: list[Entry]) -> list[Entry]:
        """Return the entries without messages that the subscription began with."""
        number = self._number
        new = []
        for entry in entries:
            if entry.number:
                if entry.number <= number:
                    continue
                number = entry.number
            elif is_gap(entry):
                number = 0  # after it, messages may be counted from 1
            new.append(entry)
        self._number = number
        return new

    async def relay(self, send: Callable[[Entry], bool]) -> None:
        """Hand entries to a callback as they come, until it returns False for one; `take` returns that one.

        This costs the channel one call for each subscriber, and no turn of the event loop.
        """
        if not self.idle:
            return
        self._send = send
        future = self._channel.relays[self] = asyncio.get_running_loop().create_future()
        try:
            await future
        finally:
            del self._channel.relays[self]

    def hand_over(self) -> bool:
        """Hand the new entries over; return whether all of them were taken."""
        entries, late = self._channel.entries(self._position)
        if late or self._send is None:
            return False
        for entry in entries:
            if entry.number > self._number or not entry.number:
                try:
                    if not self._send(entry):
                        return False
                except Exception:  # noqa: BLE001  (it is raised where the entry is taken)
                    return False
                self._number = entry.number or (0 if is_gap(entry) else self._number)
                self.relayed += 1
            self._position += 1
        return True

    async def close(self) -> None:
        """Unsubscribe. Does nothing the second time."""
        closing, self._closing = self._closing, None
        if closing is not None:
            await closing()


def first_entries(
    since: Since,
    stored: list[Entry],
    head: int,
    history: ChannelHistory,
    is_known: Callable[[int, str], bool],
    now: float,
) -> list[Entry]:
    """Return the messages with which a subscription begins, after a gap where some of them are missing.

    Args:
        since: Where it begins.
        stored: The messages of the history, the oldest first.
        head: The number of the channel's last message.
        history: The settings of the history.
        is_known: Tells whether a number and a token are those of a message of this channel.
        now: The time on the clock that `Entry.at` is of.
    """
    match since.kind:
        case "last":
            return []
        case "start":
            return stored
        case "seconds":
            return [each for each in stored if each.at >= now - since.value]
        case "count":
            return stored[max(0, len(stored) - since.value) :]
    known = parse_id(since.value)
    if known is None or not is_known(*known):
        return [gap_entry(None), *stored]
    after = [each for each in stored if each.number > known[0]]
    if history.by == "key":
        return after  # what was replaced is not missing
    missed = (after[0].number if after else head + 1) - known[0] - 1
    return [gap_entry(missed), *after] if missed else after


class Channels(Protocol):
    """The channels of a project."""

    async def publish(self, name: str, content: Any, *, event: str | None = None, key: Any = None) -> str:
        """Publish a message and return its id.

        Raises RunError ``invalid-input`` for a bad name, ``template`` for content that can't be stored,
        ``limit-reached`` for content that is too large, ``state-unreachable``.
        """

    async def subscribe(self, name: str, since: Since = LAST, *, member: Any = None) -> Subscription:
        """Subscribe to a channel, with a member as present in it.

        Raises RunError ``invalid-input``, ``limit-reached``, ``state-unreachable``.
        """

    async def members(self, name: str) -> list[Any]:
        """Return who is present, in the order in which they joined. Raises as `subscribe` does."""

    async def aclose(self) -> None:
        """End all subscriptions."""


# -------------------------------------------------------------------------------------- in memory


class History:
    """The messages of a channel that are stored."""

    __slots__ = ("_entries", "_settings", "size")

    def __init__(self, settings: ChannelHistory) -> None:
        self._settings = settings
        self._entries: OrderedDict[Any, Entry] = OrderedDict()
        self.size = 0  # bytes

    def add(self, entry: Entry) -> None:
        """Store a message."""
        if not self._settings.size:
            return
        key: Any = canonical_json(entry.item["key"]) if self._settings.by == "key" else entry.number
        replaced = self._entries.pop(key, None)
        if replaced is not None:
            self.size -= replaced.size
        self._entries[key] = entry
        self.size += entry.size
        if len(self._entries) > self._settings.size:
            self._drop()
        self.expire()

    def _drop(self) -> None:
        self.size -= self._entries.popitem(last=False)[1].size

    def expire(self) -> None:
        """Drop what was stored for long enough."""
        oldest = clock.monotonic() - self._settings.seconds
        while self._entries and next(iter(self._entries.values())).at <= oldest:
            self._drop()

    def clear(self) -> None:
        """Drop all messages."""
        self._entries.clear()
        self.size = 0

    def entries(self) -> list[Entry]:
        """Return the messages, the oldest first."""
        self.expire()
        return list(self._entries.values())


class _MemoryChannel(LocalChannel):
    """A channel in the memory of this process. ``used``: when it was last used."""

    __slots__ = ("head", "history", "members", "token", "used")

    def __init__(self, name: str, settings: channels.ChannelSettings) -> None:
        super().__init__(name, settings)
        self.token = os.urandom(6).hex()
        self.head = 0
        self.history = History(settings.history)
        #: Members by their keys, each with the number of its subscriptions.
        self.members: dict[bytes, tuple[Any, int]] = {}
        self.used = 0.0

    def knows(self, number: int, token: str) -> bool:
        """Return whether a number and a token are those of a message."""
        return token == self.token and number <= self.head


class MemoryChannels:
    """The channels of this process alone.

    They are bounded as cached values are: those without a subscriber that were not used for longest are dropped, then
    the histories of others.
    """

    def __init__(self, settings: channels.Channels, state: StateSettings) -> None:
        self._settings = settings
        self._state = state
        self._channels: OrderedDict[str, _MemoryChannel] = OrderedDict()
        self._size = 0  # bytes of all histories

    async def publish(self, name: str, content: Any, *, event: str | None = None, key: Any = None) -> str:
        """Publish a message and return its id."""
        check_name(name)
        size = size_in_memory([content, key, event])
        check_size(size)
        channel = self._use(name)
        channel.head += 1
        entry = message(channel.head, channel.token, content, event, key, clock.monotonic(), size)
        before = channel.history.size
        channel.history.add(entry)
        self._size += channel.history.size - before
        channel.append(entry)
        self._make_room()
        return str(entry.item["id"])

    async def subscribe(self, name: str, since: Since = LAST, *, member: Any = None) -> Subscription:
        """Subscribe to a channel."""
        check_name(name)
        key = None if member is None else member_key(member)
        channel = self._use(name)
        before = channel.history.size
        initial = first_entries(
            since, channel.history.entries(), channel.head, channel.settings.history, channel.knows, clock.monotonic()
        )
        self._size += channel.history.size - before
        channel.subscribers += 1
        if key is not None:
            known, count = channel.members.get(key, (member, 0))
            channel.members[key] = known, count + 1
            if not count:
                channel.append(presence_entry("join", member))

        async def close() -> None:
            self._unsubscribe(channel, key)

        return Subscription(channel, initial, channel.head, channel.end, close)

    def _unsubscribe(self, channel: _MemoryChannel, key: bytes | None) -> None:
        channel.leave()
        channel.used = clock.monotonic()
        if key is not None:
            member, count = channel.members[key]
            if count > 1:
                channel.members[key] = member, count - 1
            else:
                del channel.members[key]
                channel.append(presence_entry("leave", member))

    async def members(self, name: str) -> list[Any]:
        """Return who is present."""
        check_name(name)
        channel = self._channels.get(name)
        return [] if channel is None else [member for member, _ in channel.members.values()]

    def _use(self, name: str) -> _MemoryChannel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _MemoryChannel(name, channels.settings_of(self._settings, name))
        channel.used = clock.monotonic()
        self._channels.move_to_end(name)
        return channel

    def _make_room(self) -> None:
        """Drop what has expired of the channels not used for longest, and what exceeds the bounds."""
        now = clock.monotonic()
        for name, channel in list(islice(self._channels.items(), 16)):
            full = len(self._channels) > self._state.max_entries
            if not full and channel.used + channel.settings.history.seconds > now:
                break
            if channel.subscribers:
                self._channels.move_to_end(name)
            else:
                self._drop(name)
        if self._size > self._state.max_size:
            for channel in self._channels.values():
                self._size -= channel.history.size
                channel.history.clear()
                if self._size <= self._state.max_size:
                    break

    def _drop(self, name: str) -> None:
        self._size -= self._channels.pop(name).history.size

    async def aclose(self) -> None:
        """Do nothing: the memory goes with the process."""
