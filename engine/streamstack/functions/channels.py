"""The Channels family: publish and subscribe, with history and presence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import orjson

from streamstack.connections.channels import LAST, Channels, Entry, MemoryChannels, Since, Subscription, is_gap
from streamstack.errors import RunError
from streamstack.functions.state import key_of, open_redis, open_slots
from streamstack.language.channels import settings_of
from streamstack.language.definition import Effects, Example, Parameter, function
from streamstack.language.kinds import Kind
from streamstack.language.values import kind, parse_duration, to_json
from streamstack.runtime.run import Context, Run, SharedChunk
from streamstack.runtime.values import Batches, RelayedFields, Stream, Unchanged
from streamstack.spec import Binds, Bound, Condition, Constant, Variable


def open_channels(context: Context) -> Channels:
    """Make the channels of a process, or of all that share its Redis. Use it as `context.resource(open_channels)`."""
    if not context.state.shared:
        return MemoryChannels(context.channels, context.state)
    from streamstack.connections.redis_channels import RedisChannels  # noqa: PLC0415  (see open_redis)

    return RedisChannels(context.resource(open_redis), context.channels)


_CHANNEL: Final = Parameter(
    "channel", Bound(Kind.TEXT), "Name of the channel, of up to 256 bytes.", required=True, main=True
)
_SINCE: Final = "write last, start, a duration such as 10m, {last: 20}, or a binding to the id of a message"
#: Seconds to unsubscribe at the end of a run.
_UNSUBSCRIBE_WITHIN: Final = 10.0


@function(
    "channel.publish",
    _CHANNEL,
    Parameter("content", Bound(), "Content of the message. Default: null."),
    Parameter("event", Bound(Kind.TEXT), "Event name of the message, such as `message` or `typing`."),
    Parameter("key", Bound(Kind.KEY), "What the message is about, for `history: {by: key}`."),
    effects=Effects(gives="value", result="text"),
    examples=[
        Example(
            "publish, and read what was stored",
            "- channel.publish: {channel: news, content: {title: Rain}}\n"
            "- channel.publish: {channel: news, content: {title: Sun}}\n"
            "- channel.subscribe: {channel: news, since: start}\n  as: messages\n"
            "- forEach:\n    in: << messages >>\n    as: message\n    limit: 2\n    do:\n"
            "      - stream: << message.content.title >>\n"
            "      - if: {condition: << loop.index == 2 >>, then: [break]}",
            chunks=("Rain", "Sun"),
        )
    ],
)
async def publish(run: Run, channel: str, content: Any = None, event: str | None = None, key: Any = None) -> str:
    """Send a message to all subscribers of a channel, and return its id.

    Channels need no declaration: a name is enough. The message is stored as the `history` of the channel declares in
    `streamstack.yaml`; without subscribers that is all that happens. The step does not wait for subscribers, and
    slow ones do not delay it. All subscribers receive the messages of a channel in the same order. A message has up to
    1 MB.

    With `state.url` at Redis, the subscribers of all processes and machines receive the message. If Redis is
    unreachable, the step fails with `state-unreachable`, and the message may or may not have been published.

    Publishing is not part of a `db.transaction`: subscribers receive the message even if the transaction is rolled
    back. Publish after it.
    """
    return await run.context.resource(open_channels).publish(channel, content, event=event, key=key)


def _bad_since(value: Any) -> tuple[str, str] | None:
    """Return what a constant `since` must be instead, and what to write."""
    try:
        parsed = parse_since(value)
    except RunError:
        parsed = None
    return ("last, start, a duration or {last: n}", _SINCE) if parsed is None or parsed.kind == "id" else None


def parse_since(value: Any) -> Since:
    """Return where a subscription begins. Any other text is taken for an id, which may be unknown.

    Raises RunError ``template`` for a value of another type.
    """
    if value is None or value == "last":
        return LAST
    if value == "start":
        return Since("start")
    if isinstance(value, Mapping):
        count = value.get("last")
        if len(value) == 1 and type(count) is int and count >= 0:
            return Since("count", count)
    elif isinstance(value, str) and (value.isdigit() or "-" in value):
        return Since("id", value)
    elif isinstance(value, (str, int, float)) and value is not True and value is not False:
        try:
            return Since("seconds", parse_duration(value))
        except ValueError:
            if isinstance(value, str):
                return Since("id", value)
    raise RunError("template", f"`since` can't be this {kind(value)}: {_SINCE}", parameter="since")


@function(
    "channel.subscribe",
    _CHANNEL,
    Parameter(
        "since",
        Bound(refuses=_bad_since),
        "First message. `last`: the next one that is published. `start`: the oldest stored one. A duration, such as "
        "`10m`: those of this time. `{last: 20}`: the last 20. The id of a message: those after it, such as "
        '`<< request.headers["last-event-id"] | default("last") >>`.',
        default="last",
    ),
    Parameter("as", Variable(), "Variable that holds the message in `where`.", default="message"),
    Parameter("where", Condition(per_item=Binds("as", "message")), "Condition that a message must meet."),
    Parameter(
        "presence",
        Bound(),
        "The subscriber, such as a user name or {id, name}: it is present in the channel as long as it is subscribed, "
        "and receives `join` and `leave` of others. Up to 4 KB.",
    ),
    Parameter(
        "onGap",
        Constant(choices=("give", "pass", "fail")),
        "What to do where messages are missing. `give`: return an item with the event `gap`. `pass`: continue. "
        "`fail`: fail with the error `stream-lost`.",
        default="give",
    ),
    effects=Effects(
        gives="stream", result="stream of {id: text?, event: text?, content: any, key: any?, member: any?}"
    ),
    examples=[
        Example(
            "the messages that others publish",
            "- channel.subscribe: {channel: room-1, where: << message.event != 'typing' >>}\n  as: messages\n"
            "- parallel:\n    branches:\n      reader:\n"
            "        - forEach:\n            in: << messages >>\n            as: message\n            do:\n"
            "              - stream: << message.content >>\n"
            "              - if: {condition: << message.content == 'bye' >>, then: [break]}\n"
            "      writer:\n        - channel.publish: {channel: room-1, content: hello}\n"
            "        - channel.publish: {channel: room-1, event: typing}\n"
            "        - channel.publish: {channel: room-1, content: bye}",
            chunks=("hello", "bye"),
        ),
        Example(
            "an id that the channel does not know",
            "- channel.publish: {channel: news, content: Rain}\n"
            "- channel.subscribe: {channel: news, since: << '7-0a1b' >>}\n  as: messages\n"
            "- streams.take: {in: << messages >>, count: 2}\n  as: first\n"
            "- forEach: {in: << first >>, as: message, do: [{stream: << message.event or message.content >>}]}",
            chunks=("gap", "Rain"),
        ),
    ],
)
async def subscribe(
    run: Run,
    channel: str,
    since: Any = "last",
    as_: str = "message",
    where: Any = None,
    presence: Any = None,
    on_gap: str = "give",
) -> Stream:
    """Subscribe to a channel and stream its messages as {id, event, content, key, member}.

    The subscription begins with this step and ends with the loop or the run, so nothing published after this step is
    missed. The stream has no end: leave the loop with `break`, or let the client disconnect.

    If messages are missing, the subscriber receives an item with the event `gap` in their place. Its content is
    {missed}: the number of messages, or null if that is unknown. Messages are missing after an id that the channel
    does not know or whose successors are no longer stored, if a subscriber is more than 1,000 messages behind, and
    after Redis has lost its data. After a gap, all stored messages follow.

    With `presence`, items with the event `join` or `leave` tell who else comes and goes: their `member` and their
    `content` are that subscriber. A member that is subscribed several times counts once. `where` applies to messages
    only.

    While a run is subscribed, neither `firstChunkTimeout` nor `idleTimeout` ends its response: `keepAlive` sends
    heartbeats, and detects clients that are gone. `maxDuration` still ends it.

    Above `maxSubscribers` of the channel, the step fails with `rate-limited` (429).

    The contents are encoded once for all subscribers that send them unchanged (`stream: << message.content >>`).
    """
    begin = parse_since(since)
    release = await _take_slot(run, channel)
    try:
        subscription = await run.context.resource(open_channels).subscribe(channel, begin, member=presence)
    except BaseException:
        if release is not None:
            await release()
        raise
    matches = where if callable(where) or where is None else lambda _: where
    messages = _Messages(run, channel, subscription, release, matches, presence, on_gap)
    run.after(messages.unsubscribe, _UNSUBSCRIBE_WITHIN)  # an unread stream is not closed
    return messages


def _unread() -> Batches:
    """Stand for what opens a subscription, which opens itself."""
    raise NotImplementedError


class _Messages(Stream):
    """The stream of a subscription. One object holds all of it: there may be many thousands."""

    relays = True

    __slots__ = ("_channel", "_matches", "_member", "_on_gap", "_release", "_run", "_subscription")

    def __init__(
        self,
        run: Run,
        channel: str,
        subscription: Subscription,
        release: Callable[[], Awaitable[None]] | None,
        matches: Callable[[Any], Any] | None,
        member: Any,
        on_gap: str,
    ) -> None:
        super().__init__(_unread)
        self._run = run
        self._channel = channel
        self._subscription = subscription
        self._release = release
        self._matches = matches
        self._member = member
        self._on_gap = on_gap

    def consume(self, *, unchanged: Unchanged = False) -> Stream:
        show = _item
        if unchanged and self._run.sink.takes_json:
            show = _whole if unchanged is True else _encoded
        if self._open is not None:
            self._open = partial(self._read, show)
        return super().consume()

    async def _read(self, show: Callable[[Entry], Any]) -> Batches:
        run, subscription = self._run, self._subscription
        run.sink.subscriptions += 1
        try:
            if subscription.idle:
                run.sink.heartbeat()  # the client learns that it is subscribed, whenever the first message comes
            while True:
                waits = subscription.idle
                entries = await subscription.take()
                if waits:
                    run.begin_slice()
                if items := [show(each) for each in entries if self._chooses(each)]:
                    yield items
        finally:
            run.sink.subscriptions -= 1
            await self.unsubscribe()

    def _chooses(self, entry: Entry) -> Any:
        """Return whether an entry becomes an item. Raises RunError ``stream-lost`` for a gap with `onGap: fail`."""
        if entry.number:
            return self._matches is None or self._matches(entry.item)
        if not is_gap(entry):
            return self._member is not None and entry.item["member"] != self._member  # others, not itself
        if self._on_gap == "fail":
            raise RunError("stream-lost", f"messages of the channel `{self._channel}` are missing")
        return self._on_gap == "give"

    async def relay(self, fields: RelayedFields) -> None:
        if not self.count:
            return  # it begins with the loop
        sink, subscription = self._run.sink, self._subscription

        def send(entry: Entry) -> bool:
            if not self._chooses(entry):
                return True
            chunk = entry.shared.get(fields)
            if chunk is None:
                item = entry.encoded if sink.takes_json else entry.item
                event, own_id = item.get(fields.event), item.get(fields.id)
                chunk = entry.shared[fields] = SharedChunk(item[fields.content], event, own_id)
            if chunk.content is None or not sink.emit_shared(chunk):
                return False
            self.count += 1
            return True

        await subscription.relay(send)

    async def unsubscribe(self) -> None:
        """End the subscription. Does nothing the second time."""
        release, self._release = self._release, None
        try:
            await self._subscription.close()
        finally:
            if release is not None:
                await release()


def _item(entry: Entry) -> Any:
    return entry.item


def _encoded(entry: Entry) -> Any:
    return entry.encoded


def _whole(entry: Entry) -> Any:
    return orjson.Fragment(to_json(entry.encoded))


async def _take_slot(run: Run, channel: str) -> Callable[[], Awaitable[None]] | None:
    """Count a subscriber where their number is limited, and return what counts it off.

    Raises RunError ``rate-limited`` where there are as many as may be.
    """
    most = settings_of(run.context.channels, channel).max_subscribers
    if most is None:
        return None
    slots, key = run.context.resource(open_slots), key_of(["channel", channel])
    if not await slots.acquire(key, most):
        raise RunError("rate-limited", f"the channel has {most} subscribers, which is the maximum")
    return partial(slots.release, key)


@function(
    "channel.presence",
    _CHANNEL,
    effects=Effects(gives="value", result="{count: integer, members: [any]}"),
    examples=[
        Example(
            "who is there",
            "- channel.subscribe: {channel: room-1, presence: ada}\n  as: messages\n"
            "- channel.presence: room-1\n  as: present\n- return: << present >>",
            result={"count": 1, "members": ["ada"]},
        )
    ],
)
async def presence(run: Run, channel: str) -> dict[str, Any]:
    """Return who is present in a channel: the members that are subscribed with `presence`, in the order they joined.

    With `state.url` at Redis, these are the members of all processes. The members of a process that was killed leave
    within 12 seconds.
    """
    members = await run.context.resource(open_channels).members(channel)
    return {"count": len(members), "members": members}


FUNCTIONS = (publish, subscribe, presence)
