"""db.listen: the notices of a database as a stream."""

from __future__ import annotations

from typing import Any

import orjson

from streamstack.connections.postgres.listening import Subscription
from streamstack.errors import RunError
from streamstack.functions.db_use import CONFIGURED, DATABASE, database_of
from streamstack.language.declare import Effects, Example, Parameter, Property, function
from streamstack.runtime.run import Run
from streamstack.runtime.values import Batches, Stream
from streamstack.spec import Bound, Constant, Kind


@function(
    "db.listen",
    Parameter(
        "channel",
        Bound(Kind.TEXT),
        "The channel, as in `NOTIFY channel`; small letters unless NOTIFY quotes it.",
        required=True,
        main=True,
    ),
    Parameter(
        "onGap",
        Constant(choices=("pass", "give", "fail")),
        "What becomes of a lost connection, while which notices may have been missed: nothing, an item with `gap`, or "
        "the error `stream-lost`.",
        default="pass",
    ),
    DATABASE,
    effects=Effects(
        gives="stream",
        configured=CONFIGURED,
        properties=(Property("gaps", "How often the connection was lost; null before it opens."),),
    ),
    examples=[
        Example(
            "wait for a notice",
            "- parallel:\n    branches:\n      reader:\n"
            "        - db.listen: orders\n          as: notices\n"
            "        - streams.take: {in: << notices >>, count: 1}\n          as: one\n"
            "        - forEach: {in: << one >>, as: notice, do: [{stream: << notice.payload.id >>}]}\n"
            "      writer:\n        - wait: 200ms\n"
            "        - db.query: SELECT pg_notify('orders', '{\"id\":7}')\n          as: sent",
            chunks=(7,),
        ),
    ],
)
def db_listen(run: Run, channel: str, on_gap: str = "pass", database: str | None = None) -> Stream:
    """Give the notices of a channel (`NOTIFY`), from when the stream is first read: {channel, payload, gap}.

    The payload is JSON where it parses, else text; `gap` is false. All who listen to a database share one connection
    beside the pool. When it is lost it is made again, first after 100ms, at the latest each 10s. PostgreSQL keeps no
    notices, so what was sent meanwhile is lost: `onGap` says what then. A loop that falls 10,000 notices behind ends
    with `limit-reached`.
    """
    listening = database_of(run, database).listening
    subscription: Subscription | None = None

    async def open_() -> Batches:
        nonlocal subscription
        subscription = await listening.subscribe(channel)
        try:
            while True:
                items = [_item(channel, payload) for payload in await subscription.take()]
                lost = next((at for at, item in enumerate(items) if item["gap"]), None)
                if lost is not None and on_gap == "fail":
                    if lost:
                        yield items[:lost]
                    raise RunError(
                        "stream-lost", f"the connection to listen on `{channel}` was lost"
                    )
                if on_gap != "give":
                    items = [item for item in items if not item["gap"]]
                if items:
                    yield items
        finally:
            await listening.unsubscribe(subscription)

    return Stream(open_, {"gaps": lambda: None if subscription is None else subscription.gaps})


def _item(channel: str, payload: str | None) -> dict[str, Any]:
    if payload is None:
        return {"channel": channel, "payload": None, "gap": True}
    try:
        return {"channel": channel, "payload": orjson.loads(payload), "gap": False}
    except orjson.JSONDecodeError:
        return {"channel": channel, "payload": payload, "gap": False}
