"""On what terms a stream is read: they come with it, to whatever process it is read at, whatever that serves by now."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from streamstack.errors import Mark
from streamstack.language.authentication import Methods
from streamstack.language.definition import Authentication, Way
from streamstack.server.authentication import Guard
from streamstack.server.resuming.ids import unknown_stream
from streamstack.server.wire import PATIENCE, Wire

#: Where a way in was written, of a stream that another process began.
_FAR = Mark("", 1, 1)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of an endpoint's streams.

    ``authentication``: who may ask for them, None for everybody. ``keep_alive``: the seconds of silence before a
    heartbeat, 0 is never. ``idle``: the seconds a reader may take nothing. ``compress``: for readers who take that.
    """

    authentication: Authentication | None = None
    keep_alive: float = 15.0
    idle: float = PATIENCE
    compress: bool = False
    text: str = field(init=False, repr=False)  # as the store has them

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", json.dumps(self._told(), separators=(",", ":")))

    @classmethod
    def of(cls, wire: Wire, keep_alive: float, guard: Guard | None) -> Terms:
        """Return the terms of an endpoint."""
        return cls(
            None if guard is None else guard.authentication,
            keep_alive,
            # Who is cut off for being slow may come back.
            wire.grace if wire.slow == "disconnect" else wire.patience,
            wire.compress,
        )

    def guard(self, methods: Methods) -> Guard | None:
        """Return who stands before it, None where nobody does.

        Raises RunError ``unknown-stream`` where one of the authentications is not known here.
        """
        if self.authentication is None:
            return None
        if any(way.name not in methods for way in self.authentication.ways):
            raise unknown_stream()
        return Guard(self.authentication, methods)

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "keepAlive": self.keep_alive,
            "idle": self.idle,
            "compress": self.compress,
        }
        if self.authentication is not None:
            told["ways"] = [[way.name, *way.scopes] for way in self.authentication.ways]
            told["optional"] = self.authentication.optional
        return told


def read_terms(text: str) -> Terms:
    """Return the terms that the store has of a stream. Raises ValueError, KeyError, TypeError for what are none."""
    told = json.loads(text)
    authentication = None
    if "ways" in told:
        ways = tuple(
            Way(str(name), tuple(map(str, scopes)), _FAR) for name, *scopes in told["ways"]
        )
        authentication = Authentication(ways, bool(told["optional"]))
    return Terms(
        authentication, float(told["keepAlive"]), float(told["idle"]), bool(told["compress"])
    )
