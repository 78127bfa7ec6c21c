"""Authentications of the settings: what proves who a client is, and the keys that prove it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from multidict import CIMultiDict

from streamstack import clock
from streamstack.connections.http import UpstreamRequest, parse_url
from streamstack.connections.tokens import (
    Key,
    Rules,
    find_keys,
    parse_token,
    public_key,
    read_keys,
    secret_key,
    unauthorized,
    verify,
)
from streamstack.errors import RunError
from streamstack.language.authentication import ApiKey, Jwt, Methods, digest_of

if TYPE_CHECKING:
    from streamstack.connections.http_client import HttpClient

log = structlog.get_logger("streamstack.authentication")

#: Tokens whose verification is cached, and for how many seconds.
REMEMBERED: Final = 4096
REMEMBERED_FOR: Final = 300.0

#: Seconds that published keys count as fresh: as `max-age` says, within these bounds.
SHORTEST: Final = 60.0
USUAL: Final = 600.0
LONGEST: Final = 24 * 3600.0
#: Seconds after the last successful fetch for which keys are used while their server is down.
STALE: Final = 4 * 3600.0
#: Minimum seconds between two fetches: tokens with unknown key IDs can't cause more.
PAUSE: Final = 10.0
#: Time-out of a fetch in seconds, and maximum size of a key set in bytes.
PATIENCE: Final = 5.0
LARGEST: Final = 1024 * 1024
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:[\s,]|$)")
#: Random bytes of a generated secret.
_SECRET_BYTES: Final = 48

Claims = Mapping[str, Any]


class TokenVerifier:
    """Verifies the tokens of one authentication."""

    def __init__(self, method: Jwt, client: Callable[[], HttpClient], folder: Path) -> None:
        self.method = method
        self.rules = Rules(method.issuers, method.audiences, method.clock_skew, lasting=method.lasting)
        self._folder = folder
        self._jwks = None if method.jwks_url is None else JwksCache(method, client)
        self._own: tuple[Key, ...] | None = None
        # By the hash of a token: its claims, until when they are valid (seconds since 1970), the version of the keys.
        self._valid: dict[bytes, tuple[Claims, float, int]] = {}

    @property
    def remembered(self) -> int:
        """The number of cached verifications."""
        return len(self._valid)

    def signing_key(self) -> Key:
        """Return the secret, which signs as well as verifies.

        Raises:
            RunError: ``template`` where the authentication has no secret.
        """
        if self.method.secret is None and not self.method.own:
            raise RunError(
                "template",
                f"`authentication.{self.method.name}` has no secret to sign with: it checks what others have signed",
                final=True,
            )
        return self._configured_keys()[0]

    def _configured_keys(self) -> tuple[Key, ...]:
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
        """Cancel a fetch of keys."""
        if self._jwks is not None:
            await self._jwks.aclose()

    async def verify(self, text: str) -> Claims:
        """Return the claims of a token.

        Raises:
            RunError: ``unauthorized`` for an invalid token, ``unavailable`` while there are no keys.
        """
        # Verifying a signature takes 30 to 200 µs, a look-up by hash 2 µs; hashing reveals nothing to timing.
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        version = 0 if self._jwks is None else self._jwks.version
        known = self._valid.get(digest)
        now = clock.time()
        if known is not None and known[2] == version and now < known[1]:
            return known[0]
        token = parse_token(text)
        if token.algorithm not in self.method.algorithms:
            raise unauthorized("the token is signed in a way that is not taken here")
        if self._jwks is None:
            keys = self._configured_keys()
        else:
            keys = await self._jwks.keys(token.kid)
            version = self._jwks.version
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


class ApiKeyVerifier:
    """Verifies the API keys of one authentication."""

    def __init__(self, method: ApiKey) -> None:
        self.method = method
        self._claims = [
            (key.digest, {"sub": key.name, "scopes": list(key.scopes), "method": method.name}) for key in method.keys
        ]

    async def verify(self, text: str) -> Claims:
        """Return the claims of an API key. All keys are compared in constant time.

        Raises:
            RunError: ``unauthorized`` for an unknown key.
        """
        digest = digest_of(text)
        found = None
        for known, claims in self._claims:
            if hmac.compare_digest(known, digest):
                found = claims
        if found is None:
            raise unauthorized("the API key is not known")
        return found


class Authenticators:
    """All authentications of a project, by name; keys are read when they are first needed."""

    def __init__(self, methods: Methods, client: Callable[[], HttpClient], folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._verifiers: dict[str, TokenVerifier | ApiKeyVerifier] = {}
        self.replace(methods)

    def replace(self, methods: Methods) -> None:
        """Use the authentications of changed settings.

        One that has not changed keeps its cached keys and tokens. One that is gone stays for requests under way: no
        others can name it.
        """
        for name, method in methods.items():
            known = self._verifiers.get(name)
            if known is not None and replace(method, mark=None) == replace(known.method, mark=None):
                continue
            self._verifiers[name] = (
                TokenVerifier(method, self._client, self._folder) if isinstance(method, Jwt) else ApiKeyVerifier(method)
            )

    def __getitem__(self, name: str) -> TokenVerifier | ApiKeyVerifier:
        return self._verifiers[name]

    def tokens(self, name: str) -> TokenVerifier:
        """Return an authentication of type jwt.

        Raises:
            RunError: ``template`` where there is none of that name.
        """
        found = self._verifiers.get(name)
        if not isinstance(found, TokenVerifier):
            reason = "has no tokens: it is of type apiKey" if found else "is not in the settings"
            raise RunError("template", f"the authentication `{name}` {reason}", final=True)
        return found

    async def aclose(self) -> None:
        """Cancel all fetches of keys."""
        for each in self._verifiers.values():
            if isinstance(each, TokenVerifier):
                await each.aclose()


class JwksCache:
    """The keys that a URL publishes as a JWK Set, cached and refreshed."""

    def __init__(self, method: Jwt, client: Callable[[], HttpClient]) -> None:
        self._name = method.name
        self._url = method.jwks_url or ""
        self._algorithms = method.algorithms
        self._client = client
        self._keys: tuple[Key, ...] = ()
        self._fetching: asyncio.Task[None] | None = None
        self._published = b""
        self._fetched: float | None = None  # time of the last successful fetch
        self._fresh_until = 0.0
        self._tried: float | None = None  # time of the last attempt
        self.version = 0  # grows when the keys change

    async def keys(self, kid: str | None) -> tuple[Key, ...]:
        """Return the keys, fetched again where a token names an unknown one.

        Raises:
            RunError: ``unavailable`` (503) while there are none.
        """
        unknown = kid is not None and not any(key.kid in (kid, None) for key in self._keys)
        # A request that can use the cached keys does not wait for another one's fetch.
        waits = not self._usable() or self._fetching is None
        if unknown or (waits and clock.monotonic() >= self._fresh_until):
            await self._refresh()
        if not self._usable():
            raise RunError(
                "unavailable",
                "tokens can't be checked at the moment: try again in a few seconds",
                status=503,
                retry_after=PAUSE,
            )
        return self._keys

    def _usable(self) -> bool:
        return self._fetched is not None and clock.monotonic() < self._fetched + STALE

    async def _refresh(self) -> None:
        """Fetch the keys, or join a running fetch, unless one was tried a moment ago."""
        if self._fetching is None:
            now = clock.monotonic()
            if self._tried is not None and now < self._tried + PAUSE:
                return
            self._tried = now
            self._fetching = asyncio.create_task(self._try())
        # All requests share the fetch: one that is cancelled must not cancel it for the others.
        await asyncio.shield(self._fetching)

    async def _try(self) -> None:
        """Fetch the keys; log a failure."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._fetch()
        except (RunError, TimeoutError, ValueError) as error:
            log.warning(
                "keys-not-fetched",
                authentication=self._name,
                reason=str(error) or "the server took too long to answer",
                usable=self._usable(),
            )
        finally:
            self._fetching = None

    async def aclose(self) -> None:
        """Cancel a running fetch."""
        if (task := self._fetching) is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _fetch(self) -> None:
        headers = CIMultiDict({"Accept": "application/jwk-set+json, application/json"})
        # No redirects: only the author decides where keys come from.
        request = UpstreamRequest("GET", parse_url(self._url), headers, redirects=0)
        response = await self._client().send(request)
        try:
            if response.status != 200:
                raise ValueError(f"{response.host} answered with status {response.status}")
            data = bytearray()
            while piece := await response.read():
                data += piece
                if len(data) > LARGEST:
                    raise ValueError(f"the answer of {response.host} has over {LARGEST} bytes")
            keys = read_keys(bytes(data), self._algorithms)
            age = _MAX_AGE.search(response.headers.get("Cache-Control", "").lower())
        finally:
            response.close()
        if not keys:
            # The server is up and has withdrawn its keys: tokens signed with them are no longer valid.
            self._fetched = None
            self._replace(b"", ())
            raise ValueError(f"{response.host} publishes no key for {', '.join(self._algorithms)}")
        self._fetched = clock.monotonic()
        fresh = USUAL if age is None else min(max(float(age[1]), SHORTEST), LONGEST)
        self._fresh_until = self._fetched + fresh
        self._replace(bytes(data), keys)

    def _replace(self, published: bytes, keys: tuple[Key, ...]) -> None:
        """Use these keys. The same keys as before leave cached verifications valid."""
        if published != self._published:
            self._published, self._keys = published, keys
            self.version += 1


def own_secret(folder: Path, name: str) -> str:
    """Return the secret that a project keeps in its `.streamstack` folder; generate it if there is none.

    Raises:
        RunError: ``template`` where it can't be read or written; the message is for the author only.
    """
    file = folder / "secrets" / name
    try:
        if not file.exists():
            _make_secret(file)
        _restrict(file)
        # Keeps the folder out of version control. It may exist already, or be read-only.
        with suppress(OSError), (folder / ".gitignore").open("x", encoding="utf-8") as ignored:
            ignored.write("*\n")
        secret = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RunError(
            "template",
            f"the secret of `authentication.{name}` can't be stored in {file} ({reason}): "
            "give it one, from the environment",
            final=True,
        ) from None
    if len(secret) < _SECRET_BYTES:
        raise RunError("template", f"{file} holds no secret: delete it, and another one is made", final=True)
    return secret


def _restrict(file: Path) -> None:
    """Make a secret readable by its owner only: a copied file may be open to all."""
    mode = file.stat().st_mode
    if not mode & 0o077:
        return
    file.chmod(0o600)
    log.warning(
        "secret-was-open",
        file=str(file),
        mode=f"{mode & 0o777:o}",
        hint="others on this machine could read it: delete it, and another one is made",
    )


def _make_secret(file: Path) -> None:
    """Write a new secret, unless another process was faster: its secret stays."""
    folder = file.parent.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(opened, "w") as written:
            written.write(secrets.token_urlsafe(_SECRET_BYTES) + "\n")
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()
