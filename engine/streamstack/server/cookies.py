"""Set-Cookie headers from what `respond` was given (RFC 6265, section 4.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from streamstack.errors import RunError
from streamstack.language.values import to_text

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
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
    return [("Set-Cookie", _cookie(name, given)) for name, given in cookies.items()]


def _cookie(name: str, given: Any) -> str:
    if not _NAME.fullmatch(name):
        raise RunError("template", f"{name!r} is no cookie name: letters, digits, - and _ only")
    if given is None:
        return f'{name}=""; Path=/; Max-Age=0'
    options = given if isinstance(given, Mapping) else {"value": given}
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


def _seconds(name: str, given: Any) -> int:
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return int(given)
    raise RunError("template", f"maxAge of the cookie {name} is a number of seconds")


def _date(given: Any) -> str:
    if isinstance(given, datetime):
        aware = given if given.tzinfo else given.replace(tzinfo=UTC)
        return format_datetime(aware.astimezone(UTC), usegmt=True)
    return to_text(given)
