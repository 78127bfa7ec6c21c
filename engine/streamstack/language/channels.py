"""The section `channels` of streamstack.yaml: how much of a channel is stored, and for how many subscribers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streamstack.language.kinds import Kind
from streamstack.spec import Constant, Named, group_of, setting

#: Bytes of the name of a channel (UTF-8), at most.
LONGEST_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class ChannelHistory:
    """Which messages are stored for later subscribers. ``seconds``: for how long."""

    size: int = setting(
        Constant(Kind.INTEGER, 0, 100_000), "Maximum number of stored messages. 0 stores none.", 100, example="100"
    )
    seconds: float = setting(Constant(Kind.DURATION, positive=True), "How long a message is stored.", 300.0, key="for")
    by: str = setting(
        Constant(choices=("message", "key")),
        "`message`: the last messages. `key`: the last message of each `key`, such as the state of each device.",
        "message",
    )


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """What holds for the channels whose names match."""

    history: ChannelHistory = setting(
        group_of(ChannelHistory, short="size", example="{size: 100, for: 5m}"),
        "Messages that are stored for subscribers who come later or reconnect.",
        factory=ChannelHistory,
    )
    max_subscribers: int | None = setting(
        Constant(Kind.INTEGER, 1), "Maximum number of subscribers of one channel, of all processes together.", None
    )


def _refuse_pattern(pattern: str) -> tuple[str, str] | None:
    """Return why a pattern matches no channel, and what to write."""
    if pattern and "\0" not in pattern and len(pattern.encode()) <= LONGEST_NAME:
        return None
    return f"`{pattern}` is not the name of a channel: a name has 1 to {LONGEST_NAME} bytes", "write a shorter name"


Channels = Mapping[str, ChannelSettings]

CHANNELS: Final = Named(group_of(ChannelSettings, example="{history: {size: 100, for: 5m}}"), refuses=_refuse_pattern)

_DEFAULT: Final = ChannelSettings()


def settings_of(channels: Channels, name: str) -> ChannelSettings:
    """Return the settings of a channel: those of its name, or else of the first pattern that matches."""
    if (found := channels.get(name)) is not None:
        return found
    for pattern, settings in channels.items():
        if "*" in pattern:
            start, *middle, end = pattern.split("*")
            parts = ".*".join(re.escape(each) for each in (start, *middle, end))
            if re.fullmatch(parts, name, re.DOTALL):
                return settings
    return _DEFAULT
