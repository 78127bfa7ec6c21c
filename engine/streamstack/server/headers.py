"""Response headers, cookies and CORS."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from time import gmtime, strftime
from typing import Any

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.names import CONTROL_CHARACTERS, is_framing
from streamstack.language.values import kind, to_text

#: Headers that the server sets beside those of the connection and the framing.
RESERVED = frozenset({"date", "x-run-id", "x-stream-id"})

#: Status codes whose answers have no body (RFC 9110, section 6.4.1).
BODILESS = frozenset({204, 205, 304})

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

Headers = Iterable[tuple[str, str]]


def phrase(status: int) -> str:
    """Return the reason phrase of a status code, empty for one without."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def status_line(status: int) -> bytes:
    """Return the status line with its line end."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class _DateHeader:
    """The Date header, made once a second."""

    __slots__ = ("line", "second")

    def __init__(self) -> None:
        self.second = 0
        self.line = b""


_date_header = _DateHeader()


def date_line() -> bytes:
    """Return the Date header with its line end (RFC 9110, section 6.6.1)."""
    second = int(clock.time())
    if second != _date_header.second:
        _date_header.second = second
        # The C locale's names: strftime follows the process's locale, which we never set.
        _date_header.line = strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n", gmtime(second)).encode()
    return _date_header.line


def header_lines(headers: Headers) -> bytes:
    """Return headers as lines.

    Raises RunError ``template`` for a name or value that would break out of its line.
    """
    lines = []
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise RunError("template", f"{name!r} is not a valid header name: letters, digits and - only")
        if CONTROL_CHARACTERS.search(value):
            raise RunError(
                "template", f"the value of the header {name} holds a line break or another control character"
            )
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("utf-8", "replace")


def own_headers(written: Mapping[str, Any], *, bound: bool = False) -> list[tuple[str, str]]:
    """Return an author's headers as text, without those that only the server sets.

    The texts of a list are joined, those of `Set-Cookie` are headers of their own; null is none.

    In values that are ``bound`` while a request is answered, line breaks and other control characters become spaces
    (RFC 9110, section 5.5): a caller who sends some may neither add a header nor make the run fail.
    Raises RunError ``template`` for one that would break out of its line.
    """
    headers = []
    for key, value in written.items():
        name = str(key)
        if is_framing(name) or name.lower() in RESERVED:
            continue
        texts = [
            CONTROL_CHARACTERS.sub(" ", to_text(each)) if bound else to_text(each)
            for each in (value if isinstance(value, list) else [value])
            if each is not None
        ]
        if texts and name.lower() != "set-cookie":  # the one whose values can't be joined (RFC 9110, 5.3)
            texts = [", ".join(texts)]
        headers += [(name, text) for text in texts]
    header_lines(headers)  # told here, at the step that gives them
    return headers


def merge(defaults: Headers, *written: Headers) -> list[tuple[str, str]]:
    """Return the headers with later ones winning; the values of Vary are put together, all of Set-Cookie are sent."""
    merged = {name.lower(): (name, value) for name, value in defaults}
    cookies = []
    for headers in written:
        for name, value in headers:
            key = name.lower()
            if key == "set-cookie":
                cookies.append((name, value))
            elif key == "vary" and key in merged:
                merged[key] = (name, f"{merged[key][1]}, {value}")
            else:
                merged[key] = (name, value)
    return [*merged.values(), *cookies]


def check_status(status: Any) -> int:
    """Return a status an author gave.

    Raises RunError ``template`` for what is not a final HTTP status.
    """
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        shown = status if isinstance(status, int) else f"a {kind(status)}"
        raise RunError("template", f"{shown} is not an HTTP status: write a whole number from 200 to 599")
    return status


# What a value can't hold as it is: it is percent-encoded, as browsers' own libraries do.
_UNSAFE = re.compile(r"[^!#$&'()*+\-./0-9:<=>?@A-Z\[\]^_`a-z{|}~]")
_ATTRIBUTE_UNSAFE = re.compile(r"[\x00-\x1f\x7f;]")
_FLAGS = {"secure": "Secure", "httpOnly": "HttpOnly", "partitioned": "Partitioned"}
_KEYS = ("value", "path", "domain", "maxAge", "expires", "sameSite", *_FLAGS)


def cookie_headers(cookies: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return one Set-Cookie header for each cookie.

    A cookie is its value, or an object with value, path (default /), domain, maxAge (seconds),
    expires, sameSite, secure, httpOnly, partitioned; null deletes it.
    Raises RunError ``template`` for a name or attribute that can't stand in the header.
    """
    return [("Set-Cookie", _cookie(name, written)) for name, written in cookies.items()]


def _cookie(name: str, written: Any) -> str:
    if not _NAME.fullmatch(name):
        raise RunError("template", f"{name!r} is not a valid cookie name: letters, digits, - and _ only")
    if written is None:
        return f'{name}=""; Path=/; Max-Age=0'
    options = written if isinstance(written, Mapping) else {"value": written}
    for key in options:
        if key not in _KEYS:
            raise RunError("template", f"a cookie has no {key!r}: it has {', '.join(_KEYS)}")
    value = to_text(options.get("value"))
    parts = [f"{name}={_UNSAFE.sub(_percent, value)}", f"Path={options.get('path') or '/'}"]
    if options.get("domain"):
        parts.append(f"Domain={options['domain']}")
    if options.get("maxAge") is not None:
        parts.append(f"Max-Age={_seconds(name, options['maxAge'])}")
    if options.get("expires") is not None:
        parts.append(f"Expires={_date(options['expires'])}")
    if options.get("sameSite"):
        parts.append(f"SameSite={str(options['sameSite']).capitalize()}")
    parts += [flag for key, flag in _FLAGS.items() if options.get(key)]
    for part in parts[1:]:
        if _ATTRIBUTE_UNSAFE.search(part):
            raise RunError("template", f"the cookie {name} has an attribute with ; or a line break")
    return "; ".join(parts)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace"))


def _seconds(name: str, written: Any) -> int:
    if isinstance(written, (int, float)) and not isinstance(written, bool):
        return int(written)
    raise RunError("template", f"maxAge of the cookie {name} is a number of seconds")


def _date(written: Any) -> str:
    if isinstance(written, datetime):
        aware = written if written.tzinfo else written.replace(tzinfo=UTC)
        return format_datetime(aware.astimezone(UTC), usegmt=True)
    return to_text(written)


#: Request headers that a page of another origin may always send.
ALLOWED_HEADERS = ("Content-Type", "Authorization", "Last-Event-ID", "Idempotency-Key")
#: Answer headers, beyond the few of the standard, that such a page may always read.
EXPOSED_HEADERS = (
    "X-Run-Id",
    "X-Stream-Id",
    "Retry-After",
    "Date",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)


def is_of_host(origin: str, host: str) -> bool:
    """Tell whether an origin is a host. Proxies pass on hosts without their port: then any port will do."""
    theirs = origin.partition("://")[2].lower()
    return host.lower() in {theirs, theirs.rpartition(":")[0]} - {""}


_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z, -]{1,1000}")


def _join(*lists: Iterable[str]) -> str:
    """Join names, each once whatever its spelling, without the star."""
    names = {name.lower(): name for listed in lists for name in listed if name != "*"}
    return ", ".join(names.values())


@dataclass(frozen=True, slots=True)
class CorsHeaders:
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
        return origin is not None and (origin.lower() in self.origins or ("*" in self.origins and not self.credentials))

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

    def preflight(self, origin: str | None, methods: list[str], requested: str | None = None) -> bytes:
        """Return the header lines of the answer to a preflight that asks for some headers."""
        if not self.origins:
            return b""
        if not self.allows(origin):
            return b"Vary: Origin\r\n"
        wanted: list[str] = []
        if requested and "*" in self.headers and _NAMES.fullmatch(requested):
            wanted = [name.strip() for name in requested.split(",") if name.strip()]
        return (
            f"{self._allowed(origin)}"
            f"Access-Control-Allow-Methods: {', '.join(methods)}\r\n"
            f"Access-Control-Allow-Headers: {_join(ALLOWED_HEADERS, self.headers, wanted)}\r\n"
            f"Access-Control-Max-Age: {self.max_age}\r\n"
        ).encode("utf-8", "replace")

    def _allowed(self, origin: str | None) -> str:
        named = self.names(origin)
        credentials = "Access-Control-Allow-Credentials: true\r\n" if self.credentials else ""
        return f"Access-Control-Allow-Origin: {origin if named else '*'}\r\n{credentials}Vary: Origin\r\n"
