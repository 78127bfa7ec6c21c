"""Tokens: taken apart, checked and made (RFC 7515, RFC 7519, and the advice of RFC 8725).

Nothing in a token says how it is to be checked. Its header names an algorithm, which must be one of the key's own, and
the name of a key, which is looked up in a mapping and nowhere else. Keys and addresses in it (`jwk`, `jku`, `x5c`,
`x5u`) are not read at all.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import time
from typing import Any, Final

import orjson

from streamstack.connections.tokens.keys import Key
from streamstack.errors import RunError
from streamstack.language.values import to_json

#: Characters of a token, at most.
LONGEST: Final = 16 * 1024
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
#: What a token may call itself: anything else is made for another purpose (RFC 8725, section 3.11).
_TYPES: Final = frozenset({"jwt", "at+jwt"})
#: Keys that are tried for a token which names none.
_MOST_TRIES: Final = 10


@dataclass(frozen=True, slots=True)
class Rules:
    """What the claims of a token are held against; ``clock_skew`` is in seconds."""

    issuers: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    clock_skew: float = 30.0
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A token, taken apart and not yet believed. ``payload`` is bytes of JSON, as it says."""

    algorithm: str
    key_name: str | None
    signed: bytes
    payload: bytes
    signature: bytes


def refused(reason: str) -> RunError:
    """Return the error of a token that is not valid. The reason repeats nothing of the token."""
    return RunError("unauthorized", reason)


def parse_token(text: str) -> Token:
    """Take a token apart.

    Raises RunError ``unauthorized`` for what is none, and for what asks to be understood in another way.
    """
    if len(text) > LONGEST:
        raise refused(f"the token has more than {LONGEST} characters")
    parts = _COMPACT.fullmatch(text)
    if parts is None:
        raise refused(
            "this is no signed token: it has three parts, in base64url, with dots between"
        )
    try:
        header = orjson.loads(_decode(parts[1]))
        payload, signature = _decode(parts[2]), _decode(parts[3])
    except ValueError:
        raise refused("the token can't be read") from None
    if not isinstance(header, dict):
        raise refused("the token can't be read")
    algorithm, name, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or not (name is None or isinstance(name, str)):
        raise refused("the token can't be read")
    if "crit" in header:
        raise refused("the token asks for an extension that is not known here (`crit`)")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise refused("the token is made for another purpose (`typ`)")
    if str(header.get("cty", "")).lower().endswith("jwt"):
        raise refused("the token holds another token")
    signed = f"{parts[1]}.{parts[2]}".encode()
    return Token(algorithm, name, signed, payload, signature)


def find_keys(token: Token, keys: Iterable[Key]) -> list[Key]:
    """Return the keys that may have signed a token: the one it names, else all that fit its algorithm."""
    fitting = [key for key in keys if token.algorithm in key.algorithms]
    if token.key_name is None:
        return fitting[:_MOST_TRIES]
    named = [key for key in fitting if key.name == token.key_name]
    # A key that has no name itself is whatever a token calls it.
    return (named or [key for key in fitting if key.name is None])[:_MOST_TRIES]


def verify(
    token: Token, keys: Iterable[Key], rules: Rules, now: float | None = None
) -> dict[str, Any]:
    """Return the claims of a token that one of the keys has signed and that is valid now.

    ``now`` is in seconds since 1970. Raises RunError ``unauthorized``.
    """
    if not any(key.verify(token.algorithm, token.signed, token.signature) for key in keys):
        raise refused("the token's signature is not valid")
    try:
        claims = orjson.loads(token.payload)
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise refused("the token holds no claims")
    _check_times(claims, rules, time() if now is None else now)
    _check_names(claims, rules)
    claims["scopes"] = scopes_of(claims)
    return claims


def _check_times(claims: Mapping[str, Any], rules: Rules, now: float) -> None:
    expires, begins, issued = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None and not rules.lasting:
        raise refused("the token does not say when it expires (`exp`)")
    if expires is not None and now >= expires + rules.clock_skew:
        raise refused("the token has expired")
    if (begins is not None and begins - rules.clock_skew > now) or (
        issued is not None and issued - rules.clock_skew > now
    ):
        raise refused("the token is not valid yet")


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise refused(f"the token's `{name}` is no number of seconds")
    return float(value)


def _check_names(claims: Mapping[str, Any], rules: Rules) -> None:
    if "sub" in claims and not isinstance(claims["sub"], str):
        raise refused("the token's `sub` is no text")
    issuer = claims.get("iss")
    if rules.issuers and not (isinstance(issuer, str) and issuer in rules.issuers):
        raise refused("the token comes from another issuer")
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(each, str) for each in named) and "aud" in claims:
        raise refused("the token's `aud` is no text, and no list of texts")
    if rules.audiences and not any(each in rules.audiences for each in named):
        raise refused("the token is meant for another audience")
    if not rules.audiences and "aud" in claims:
        # RFC 7519, section 4.1.3: who does not find itself in it must refuse the token.
        raise refused("the token is meant for an audience, and the settings name none (`audience`)")


def scopes_of(claims: Mapping[str, Any]) -> list[str]:
    """Return the scopes that claims give: `scope` (RFC 8693), `scopes` or `scp`, a text with spaces or a list."""
    scopes: dict[str, None] = {}
    for name in ("scope", "scopes", "scp"):
        given = claims.get(name)
        listed = given.split(" ") if isinstance(given, str) else given
        for scope in listed if isinstance(listed, list) else ():
            if isinstance(scope, str) and scope:
                scopes[scope] = None
    return list(scopes)


def sign(claims: Mapping[str, Any], key: Key, algorithm: str) -> str:
    """Return a token with these claims. Moments among the registered ones are seconds since 1970."""
    header = _encode(orjson.dumps({"alg": algorithm, "typ": "JWT"}))
    content = b"%b.%b" % (header, _encode(to_json(claims)))
    return (content + b"." + _encode(key.sign(algorithm, content))).decode()


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
