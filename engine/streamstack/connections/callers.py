"""Who calls: what proves it, against the authentications of the settings."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, time
from typing import Any, Final

from streamstack.connections.http import HttpClient
from streamstack.connections.tokens.key_server import KeyServer
from streamstack.connections.tokens.keys import Key, public_key, secret_key
from streamstack.connections.tokens.own_secret import own_secret
from streamstack.connections.tokens.tokens import Rules, find_keys, parse_token, refused, verify
from streamstack.errors import RunError
from streamstack.language.authentication import ApiKey, Jwt, Methods, digest_of

#: Tokens that are remembered as valid, and the seconds for which they are.
REMEMBERED: Final = 4096
REMEMBERED_FOR: Final = 300.0

Claims = Mapping[str, Any]


class Tokens:
    """The tokens of one authentication."""

    def __init__(self, method: Jwt, client: Callable[[], HttpClient], folder: Path) -> None:
        self.method = method
        self.rules = Rules(
            method.issuers, method.audiences, method.clock_skew, lasting=method.lasting
        )
        self._folder = folder
        self._server = None if method.jwks_url is None else KeyServer(method, client, monotonic)
        self._own: tuple[Key, ...] | None = None
        # By the hash of a token: its claims, until when they hold (seconds since 1970), which keys said so.
        self._valid: dict[bytes, tuple[Claims, float, int]] = {}

    @property
    def remembered(self) -> int:
        """How many tokens are remembered as valid."""
        return len(self._valid)

    def signing_key(self) -> Key:
        """Return the secret, which signs what it checks.

        Raises RunError ``template`` where signatures are checked with another key than they are made with.
        """
        if self.method.secret is None and not self.method.own:
            raise RunError(
                "template",
                f"`authentication.{self.method.name}` has no secret to sign with: it checks what others have signed",
                final=True,
            )
        return self._given()[0]

    def _given(self) -> tuple[Key, ...]:
        """Return the keys that the settings hold themselves."""
        if self._own is None:
            method = self.method
            if method.public_key is not None:
                self._own = (public_key(method.public_key, method.algorithms),)
            else:
                secret = method.secret
                if secret is None and method.own:
                    secret = own_secret(self._folder, method.name)
                self._own = () if secret is None else (secret_key(secret, method.algorithms),)
        return self._own

    async def aclose(self) -> None:
        """Give up what is being fetched."""
        if self._server is not None:
            await self._server.aclose()

    async def verify(self, text: str) -> Claims:
        """Return the claims of a token.

        Raises RunError ``unauthorized`` for one that is not valid, ``unavailable`` where no key can be had.
        """
        # Checking a signature takes 20 to 170 µs, finding its hash 2; a hash tells a listener to times nothing.
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        version = 0 if self._server is None else self._server.version
        known = self._valid.get(digest)
        now = time()
        if known is not None and known[2] == version and now < known[1]:
            return known[0]
        token = parse_token(text)
        if token.algorithm not in self.method.algorithms:
            raise refused("the token is signed in a way that is not taken here")
        if self._server is None:
            keys = self._given()
        else:
            keys = await self._server.keys(token.key_name)
            version = self._server.version
        claims = verify(token, find_keys(token, keys), self.rules)
        claims["method"] = self.method.name
        expires = claims.get("exp")
        until = now + REMEMBERED_FOR
        if expires is not None:
            until = min(until, expires + self.method.clock_skew)
        if len(self._valid) >= REMEMBERED:
            del self._valid[next(iter(self._valid))]
        self._valid[digest] = (claims, until, version)
        return claims


class Keys:
    """The API keys of one authentication."""

    def __init__(self, method: ApiKey) -> None:
        self.method = method
        self._claims = [
            (
                key.digest,
                {"sub": key.name, "scopes": list(key.scopes), "method": method.name},
            )
            for key in method.keys
        ]

    async def verify(self, text: str) -> Claims:
        """Return whose key it is. Each is compared, in constant time, so that times tell nothing.

        Raises RunError ``unauthorized`` for one that was not handed out.
        """
        digest = digest_of(text)
        found = None
        for known, claims in self._claims:
            if hmac.compare_digest(known, digest):
                found = claims
        if found is None:
            raise refused("the API key is not known")
        return found


class Callers:
    """All authentications of a project, by name; their keys are read when they are first needed."""

    def __init__(self, methods: Methods, client: Callable[[], HttpClient], folder: Path) -> None:
        self._verifiers: dict[str, Tokens | Keys] = {
            name: Tokens(method, client, folder) if isinstance(method, Jwt) else Keys(method)
            for name, method in methods.items()
        }

    def __getitem__(self, name: str) -> Tokens | Keys:
        return self._verifiers[name]

    def tokens(self, name: str) -> Tokens:
        """Return an authentication by tokens.

        Raises RunError ``template`` where there is none of that name.
        """
        found = self._verifiers.get(name)
        if not isinstance(found, Tokens):
            told = "has no tokens: it is of type apiKey" if found else "is not in the settings"
            raise RunError("template", f"the authentication `{name}` {told}", final=True)
        return found

    async def aclose(self) -> None:
        """Give up the keys that are being fetched."""
        for each in self._verifiers.values():
            if isinstance(each, Tokens):
                await each.aclose()
