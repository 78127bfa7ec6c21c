"""What is asked of the system for a client's connection: how much it holds, and when a peer is dead."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

#: Bytes that the system takes before it has sent them; beyond, they stay with us, where `buffer` bounds them. Without
#: it the system would take megabytes for a reader who does not read, and nobody would see that it is slow.
UNSENT: Final = 128 * 1024
_LEAST: Final = 16 * 1024
#: Seconds of silence after which the system asks whether the peer still lives, seconds between such questions, and how
#: many may stay unanswered (tcp(7)).
_PROBES: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
#: Seconds that a network may be away in any case.
_SHORTEST: Final = 30.0


class Socket:
    """The socket of a client's connection; what a system does not have is left out."""

    __slots__ = ("_patience", "_socket", "_unsent")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._socket: Any = transport.get_extra_info("socket")
        if getattr(self._socket, "family", None) not in {socket.AF_INET, socket.AF_INET6}:
            self._socket = None
        self._unsent = 0
        self._patience = 0.0
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            self._set(name, value)

    def suit(self, buffer: int, patience: float) -> None:
        """Hold so many bytes unsent; give up when the peer takes nothing for so many seconds (RFC 5482)."""
        unsent = max(min(buffer, UNSENT), _LEAST)
        if unsent != self._unsent:
            self._unsent = unsent
            self._set("TCP_NOTSENT_LOWAT", unsent)
        if patience != self._patience:
            self._patience = patience
            milliseconds = int(max(patience, _SHORTEST) * 1000)
            self._set("TCP_USER_TIMEOUT", min(milliseconds, 2**31 - 1))

    def _set(self, name: str, value: int) -> None:
        option = getattr(socket, name, None)
        if self._socket is not None and option is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
