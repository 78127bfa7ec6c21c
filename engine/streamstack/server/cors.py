"""Which other origins' pages may read our answers (Fetch standard, CORS protocol)."""

from __future__ import annotations

from dataclasses import dataclass

#: Request headers that a page of another origin may send.
ALLOWED_HEADERS = "Content-Type, Authorization, Last-Event-ID, Idempotency-Key"
#: Answer headers, beyond the few of the standard, that such a page may read.
EXPOSED_HEADERS = (
    "X-Run-Id, X-Stream-Id, Retry-After, "
    "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"
)


@dataclass(frozen=True, slots=True)
class Cors:
    """The origins that may read. ``*`` among them means every origin, without credentials.

    ``max_age`` is the seconds a browser may remember a preflight.
    """

    origins: frozenset[str] = frozenset()
    credentials: bool = False
    max_age: int = 600

    def __bool__(self) -> bool:
        return bool(self.origins)

    def allows(self, origin: str | None) -> bool:
        """Whether pages of this origin may read answers."""
        return origin is not None and (
            origin in self.origins or ("*" in self.origins and not self.credentials)
        )

    def lines(self, origin: str | None) -> bytes:
        """Return the header lines of an ordinary answer, without any where CORS is off."""
        if not self.origins:
            return b""
        if not self.allows(origin):
            # Told apart by origin all the same: a cache must not hand this answer to another.
            return b"Vary: Origin\r\n"
        allowed = self._allowed(origin)
        return f"{allowed}Access-Control-Expose-Headers: {EXPOSED_HEADERS}\r\n".encode()

    def preflight(self, origin: str | None, methods: list[str]) -> bytes:
        """Return the header lines of the answer to a preflight."""
        if not self.origins:
            return b""
        if not self.allows(origin):
            return b"Vary: Origin\r\n"
        return (
            f"{self._allowed(origin)}"
            f"Access-Control-Allow-Methods: {', '.join(methods)}\r\n"
            f"Access-Control-Allow-Headers: {ALLOWED_HEADERS}\r\n"
            f"Access-Control-Max-Age: {self.max_age}\r\n"
        ).encode()

    def _allowed(self, origin: str | None) -> str:
        any_origin = "*" in self.origins and origin not in self.origins
        credentials = "Access-Control-Allow-Credentials: true\r\n" if self.credentials else ""
        return (
            f"Access-Control-Allow-Origin: {'*' if any_origin else origin}\r\n"
            f"{credentials}Vary: Origin\r\n"
        )
