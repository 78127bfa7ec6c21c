"""Settings of the WebSockets of an endpoint: `streaming.webSocket`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from streamstack.language.kinds import Kind
from streamstack.language.values import Rate, parse_rate
from streamstack.spec import Constant, ListOf, setting

#: A token (RFC 9110, section 5.6.2), as RFC 6455, section 4.1, wants a subprotocol.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _subprotocol(value: Any) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("write a name without blanks, such as chat.v1")
    return value


@dataclass(frozen=True, slots=True)
class WebSocketSettings:
    """Limits of what a client sends over a WebSocket, and the subprotocols of an endpoint."""

    max_message_size: int = setting(
        Constant(Kind.SIZE, positive=True), "Maximum size of a message from the client.", 1024 * 1024
    )
    message_rate: Rate | None = setting(
        Constant(parse=parse_rate),
        "Maximum rate of messages from one client, such as 20/second. The connection of a faster client is closed.",
        None,
    )
    subprotocols: tuple[str, ...] = setting(
        ListOf(Constant(parse=_subprotocol), alone=True),
        "Subprotocols that a client can choose from; the first common one is used.",
        (),
    )
