"""Header fields that belong to one connection or one message, and are never copied to another (RFC 9110, 7.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: Fields of the connection or of the framing of a body. `proxy-` and anything after it belongs to them too.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: What no value of a field may hold (RFC 9110, 5.5).
CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: Fields of the opening handshake of a WebSocket that only its client may choose (RFC 6455, 4.1).
_HANDSHAKE: Final = frozenset(
    {"sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-version"}
)
#: Fields that are true of the message that they came with alone: its target, and how its body was encoded.
_OF_MESSAGE: Final = frozenset({"accept-encoding", "content-encoding", "host", "sec-websocket-protocol"})
#: Fields that are true of the bytes of one body alone (RFC 9110, 8.8.3 and 14.4; RFC 9530).
_OF_BYTES: Final = frozenset(
    {"content-digest", "content-md5", "content-range", "digest", "etag", "last-modified", "repr-digest"}
)


def is_framing(name: str) -> bool:
    """Tell whether only the HTTP implementation itself may send a field."""
    name = name.lower()
    return name in HOP_BY_HOP or name in _HANDSHAKE or name.startswith("proxy-")


class ForwardedHeaders(dict[str, Any]):
    """Headers that an author took from a mapping instead of writing them by name."""


def forward(headers: Mapping[str, Any]) -> ForwardedHeaders:
    """Return the headers of a mapping that may be sent in another message.

    Left out are the framing and hop-by-hop fields, those that `Connection` names, the target (`Host`) and the
    encodings: bodies are decoded when they are read, and of a body that was, also its digests and validators.
    """
    decoded = any(name.lower() == "content-encoding" for name in headers)
    named = {
        option.strip().lower()
        for name, value in headers.items()
        if name.lower() == "connection"
        for option in _texts(value)
    }
    return ForwardedHeaders(
        (name, value)
        for name, value in headers.items()
        if not is_framing(name)
        and name.lower() not in _OF_MESSAGE
        and name.lower() not in named
        and not (decoded and name.lower() in _OF_BYTES)
    )


def without_body(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers of a mapping without those that describe its own body: its type, digests and validators."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _OF_BYTES and name.lower() != "content-type"
    }


def _texts(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        yield from str(each).split(",")
