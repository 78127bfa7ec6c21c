"""Keys that are published as a JWK Set: fetched through our own client, kept for a while, fetched anew."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final

import structlog
from multidict import CIMultiDict

from streamstack.connections.http import HttpClient, Request, parse_url
from streamstack.connections.tokens.keys import Key, read_keys
from streamstack.errors import RunError
from streamstack.language.authentication import Jwt

log = structlog.get_logger("streamstack.authentication")

#: Seconds that keys are taken for fresh: as the server says (`max-age`), within these bounds.
SHORTEST: Final = 60.0
USUAL: Final = 600.0
LONGEST: Final = 24 * 3600.0
#: Seconds from the last good answer for which keys are used while the server is away.
STALE: Final = 4 * 3600.0
#: Seconds between two attempts: a token that names an unknown key costs no more than this.
PAUSE: Final = 10.0
#: Seconds an answer may take, and bytes it may have.
PATIENCE: Final = 5.0
LARGEST: Final = 1024 * 1024

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:[\s,]|$)")


class KeyServer:
    """The keys at one address. ``clock`` gives seconds that only grow."""

    def __init__(
        self, method: Jwt, client: Callable[[], HttpClient], clock: Callable[[], float]
    ) -> None:
        self._name = method.name
        self._url = method.jwks_url or ""
        self._algorithms = method.algorithms
        self._client = client
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._fetching: asyncio.Task[None] | None = None
        self._published = b""
        self._fetched: float | None = None  # when keys came last
        self._fresh_until = 0.0
        self._tried: float | None = None  # when they were asked for last
        self.version = 0  # grows when other keys come

    async def keys(self, name: str | None) -> tuple[Key, ...]:
        """Return the keys there are; fetched anew where a token names one that is not among them.

        Raises RunError ``unauthorized`` with status 503 where there are none to be had.
        """
        unknown = name is not None and not any(key.name in (name, None) for key in self._keys)
        # Whoever can go on with what there is does not wait for another's fetch.
        waits = not self._usable() or self._fetching is None
        if unknown or (waits and self._clock() >= self._fresh_until):
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
        return self._fetched is not None and self._clock() < self._fetched + STALE

    async def _refresh(self) -> None:
        """Fetch the keys, or wait for who does, unless that was tried a moment ago."""
        if self._fetching is None:
            now = self._clock()
            if self._tried is not None and now < self._tried + PAUSE:
                return
            self._tried = now
            self._fetching = asyncio.create_task(self._try())
        # Who asked may leave: it is for all, and who comes and leaves must not have it begun again each time.
        await asyncio.shield(self._fetching)

    async def _try(self) -> None:
        """Fetch the keys. A failure is told to the log alone."""
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
        """Give up what is being fetched."""
        if (task := self._fetching) is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _fetch(self) -> None:
        headers = CIMultiDict({"Accept": "application/jwk-set+json, application/json"})
        # No redirects: where the keys are is the author's word, and nobody else's.
        request = Request("GET", parse_url(self._url), headers, redirects=0)
        answer = await self._client().send(request)
        try:
            if answer.status != 200:
                raise ValueError(f"{answer.host} answered with status {answer.status}")
            data = bytearray()
            while piece := await answer.read():
                data += piece
                if len(data) > LARGEST:
                    raise ValueError(f"the answer of {answer.host} has over {LARGEST} bytes")
            keys = read_keys(bytes(data), self._algorithms)
            age = _MAX_AGE.search(answer.headers.get("Cache-Control", "").lower())
        finally:
            answer.close()
        if not keys:
            # It is not away: it has taken its keys back, and what they signed is worth nothing from now on.
            self._fetched = None
            self._take(b"", ())
            raise ValueError(f"{answer.host} publishes no key for {', '.join(self._algorithms)}")
        self._fetched = self._clock()
        fresh = USUAL if age is None else min(max(float(age[1]), SHORTEST), LONGEST)
        self._fresh_until = self._fetched + fresh
        self._take(bytes(data), keys)

    def _take(self, published: bytes, keys: tuple[Key, ...]) -> None:
        """Use these keys. Where they are those that there were, what was found valid need not be checked anew."""
        if published != self._published:
            self._published, self._keys = published, keys
            self.version += 1
