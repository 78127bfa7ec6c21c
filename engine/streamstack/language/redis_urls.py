"""The URL of a Redis: what may stand in it, told apart without ever showing its password."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

#: How the URL of a Redis begins.
REDIS: Final = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where a Redis is, and who asks it. ``path`` is a Unix socket's; ``options`` are TLS's, as redis-py has them.

    ``str()`` shows the place, and nothing that is secret.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    database: int = 0
    tls: bool = False
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}"


def parse_redis(url: str) -> RedisUrl:
    """Return what the URL of a Redis says.

    Raises ValueError, saying what to write, for one that is malformed. Its text is in no message: it may hold a
    password.
    """
    if any(character.isspace() for character in url):
        raise ValueError("there is white space in the URL: write %20 for a space in a password")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            "the URL can't be read: write redis://localhost:6379; in a password, write / as %2F, @ as %40, "
            ": as %3A and # as %23"
        ) from None
    if parts.fragment:
        raise ValueError("nothing may follow a #: in a password, write it as %23")
    options = _options(parts)
    user = unquote(parts.username) if parts.username else options.pop("username", None)
    password = unquote(parts.password) if parts.password else options.pop("password", None)
    database = options.pop("db", None)
    if parts.scheme == "unix":
        return _socket(parts, user, password, database or 0)
    if not parts.hostname:
        raise ValueError("the URL names no host: write redis://localhost:6379")
    if parts.path.strip("/"):
        database = _database(unquote(parts.path.strip("/")))
    return RedisUrl(
        parts.hostname,
        port or 6379,
        database=database or 0,
        tls=parts.scheme == "rediss",
        user=user,
        password=password,
        options=options,
    )


def _socket(parts: SplitResult, user: str | None, password: str | None, database: int) -> RedisUrl:
    path = unquote(parts.path)
    if not path.strip("/") or parts.hostname:
        raise ValueError("a socket is named by its whole path: write unix:///run/redis/redis.sock")
    return RedisUrl(path=path, database=database, user=user, password=password)


def _options(parts: SplitResult) -> dict[str, Any]:
    """Return what stands after the question mark. Raises ValueError for an unknown option."""
    known = _SHARED if parts.scheme != "rediss" else _SHARED | _TLS
    given: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            told = ", ".join(known)
            raise ValueError(f"after the ? there is a name it does not know: it knows {told}")
        given[name] = known[name](value)
    return given


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise ValueError("a database of Redis is a number: write redis://localhost:6379/0")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false", "yes", "no"}:
        raise ValueError("`ssl_check_hostname` is true or false")
    return text.lower() in {"true", "yes"}


def _requirement(text: str) -> str:
    if text not in {"none", "optional", "required"}:
        raise ValueError("`ssl_cert_reqs` is none, optional or required")
    return text


_SHARED: Final[dict[str, Callable[[str], Any]]] = {"db": _database, "username": str, "password": str}
_TLS: Final[dict[str, Callable[[str], Any]]] = {
    "ssl_ca_certs": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_cert_reqs": _requirement,
    "ssl_check_hostname": _flag,
}
