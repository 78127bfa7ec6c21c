"""Which other origins' pages may read our answers (Fetch standard, CORS protocol)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

#: Request headers that a page of another origin may always send.
ALLOWED_HEADERS = ("Content-Type", "Authorization", "Last-Event-ID", "Idempotency-Key")
#: Answer headers, beyond the few of the standard, that such a page may always read.
EXPOSED_HEADERS = (
    "X-Run-Id",
    "X-Stream-Id",
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)

_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z, -]{1,1000}")


def _join(*lists: Iterable[str]) -> str:
    """Join names, each once whatever its spelling, without the star."""
    names = {name.lower(): name for listed in lists for name in listed if name != "*"}
    return ", ".join(names.values())


@dataclass(frozen=True, slots=True)
class Cors:
    """The origins that may read. ``*`` among them means every origin, without credentials.

    ``headers`` are further ones a page may send, ``*`` what it asks for; ``exposed`` further ones
    it may read. ``max_age`` is the seconds a browser may remember a preflight.
    """

    origins: frozenset[str] = frozenset()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 600
    _expose: str = field(init=False)

    def __post_init__(self) -> None:
        line = f"Access-Control-Expose-Headers: {_join(EXPOSED_HEADERS, self.exposed)}\r\n"
        object.__setattr__(self, "_expose", line)

    def allows(self, origin: str | None) -> bool:
        """Whether pages of this origin may read answers."""
        return origin is not None and (
            origin.lower() in self.origins or ("*" in self.origins and not self.credentials)
        )

    def names(self, origin: str | None) -> bool:
        """Whether an origin stands in the list itself, so that its pages may use what is ours."""
        return origin is not None and origin.lower() in self.origins

    def lines(self, origin: str | None) -> bytes:
        """Return the header lines of an ordinary answer; none where CORS is off."""
        if not self.origins:
            return b""
        if not self.allows(origin):
            # Told apart by origin all the same: a cache must not hand this answer to another.
            return b"Vary: Origin\r\n"
        return (self._allowed(origin) + self._expose).encode("utf-8", "replace")

    def preflight(self, origin: str | None, methods: list[str], asked: str | None = None) -> bytes:
        """Return the header lines of the answer to a preflight that asks for some headers."""
        if not self.origins:
            return b""
        if not self.allows(origin):
            return b"Vary: Origin\r\n"
        wanted: list[str] = []
        if asked and "*" in self.headers and _NAMES.fullmatch(asked):
            wanted = [name.strip() for name in asked.split(",") if name.strip()]
        return (
            f"{self._allowed(origin)}"
            f"Access-Control-Allow-Methods: {', '.join(methods)}\r\n"
            f"Access-Control-Allow-Headers: {_join(ALLOWED_HEADERS, self.headers, wanted)}\r\n"
            f"Access-Control-Max-Age: {self.max_age}\r\n"
        ).encode("utf-8", "replace")

    def _allowed(self, origin: str | None) -> str:
        named = self.names(origin)
        credentials = "Access-Control-Allow-Credentials: true\r\n" if self.credentials else ""
        return (
            f"Access-Control-Allow-Origin: {origin if named else '*'}\r\n"
            f"{credentials}Vary: Origin\r\n"
        )
