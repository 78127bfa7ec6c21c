"""The section `authentication` of streamstack.yaml: the ways to tell callers, by names of the author's own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping as Entries
from dataclasses import dataclass, field
from typing import Final

from streamstack.errors import Mark

#: How a key stands in the file: not itself, but its hash.
HASH: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
#: One scope (RFC 6749, section 3.3).
SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")

#: The keys of each type, and what each is for.
JWT_KEYS: Final = {
    "type": "jwt: signed tokens.",
    "algorithms": "Which signatures are taken; else what fits the key.",
    "secret": "What tokens are signed with, where one secret does both; empty: one is made and kept in .streamstack/.",
    "publicKey": "The key that signatures are checked with: PEM, or the name of its file.",
    "jwksUrl": "Where the keys that signatures are checked with are published (a JWK Set).",
    "issuer": "Who must have issued a token (`iss`): one, or a list of which any will do.",
    "audience": "Whom a token must be meant for (`aud`): one, or a list of which any will do.",
    "from": "Where tokens are sent: header, {header: name}, {cookie: name}, {query: name}; the first found counts.",
    "clockSkew": "How far the issuer's clock may be off.",
    "expiry": "`required`: tokens without `exp` are refused. `optional`: they are valid for ever.",
}
API_KEY_KEYS: Final = {
    "type": "apiKey: keys that you hand out.",
    "header": "The header they are sent in.",
    "query": "The name they are sent under in the query, instead.",
    "keys": "The keys, by name or as a list: << env.NAME >>, or sha256:... of the key.",
}
TYPES: Final = {"jwt": JWT_KEYS, "apiKey": API_KEY_KEYS}
EXPIRY: Final = ("required", "optional")
#: Seconds that clocks may be apart by rule, and at most.
CLOCK_SKEW: Final = 30.0
MOST_SKEW: Final = 600.0
API_KEY_HEADER: Final = "X-API-Key"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a caller sends what it proves itself with: `where` is header, cookie or query."""

    where: str
    name: str


#: Where tokens are sent by rule (RFC 6750, section 2.1).
BEARER: Final = Place("header", "Authorization")


@dataclass(frozen=True, slots=True)
class Jwt:
    """Signed tokens. ``clock_skew`` is in seconds.

    One of ``secret``, ``public_key`` (PEM) and ``jwks_url`` says what signatures are checked with; none of them, where
    the environment lacks it: then no token is valid. ``own``: the secret is one that the project makes and keeps.
    ``lasting``: tokens without `exp` are taken.
    """

    name: str
    algorithms: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)
    own: bool = False
    public_key: str | None = None
    jwks_url: str | None = None
    issuers: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    places: tuple[Place, ...] = (BEARER,)
    clock_skew: float = CLOCK_SKEW
    lasting: bool = False
    mark: Mark | None = None

    type = "jwt"

    @property
    def own_claims(self) -> dict[str, str]:
        """The claims that a token of ours has for that alone."""
        named = (("iss", self.issuers), ("aud", self.audiences))
        return {claim: names[0] for claim, names in named if names}


@dataclass(frozen=True, slots=True)
class Key:
    """One API key: who has it, its SHA-256 (the key itself is kept nowhere), and what it may."""

    name: str
    digest: bytes = field(repr=False)
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Keys that were handed out."""

    name: str
    keys: tuple[Key, ...]
    place: Place = Place("header", API_KEY_HEADER)
    mark: Mark | None = None

    type = "apiKey"


Method = Jwt | ApiKey
Methods = Entries[str, Method]


def digest_of(key: str) -> bytes:
    """Return the hash that stands for an API key.

    A plain hash is enough: keys are random and long, unlike passwords, so that none can be found by trying.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
