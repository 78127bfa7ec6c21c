"""Passwords: hashed with Argon2id, in threads of their own, since a hash is made to be slow."""

from __future__ import annotations

import asyncio
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from streamstack.errors import RunError

#: What a hash costs (OWASP's Password Storage Cheat Sheet): 19 MB and two passes, 20 to 40 ms.
MEMORY: Final = 19_456  # KiB
PASSES: Final = 2
#: Hashes that are made at once: each takes a core and the memory.
AT_ONCE: Final = 2
#: Bytes of a password, at most.
LONGEST: Final = 4096
_HASH: Final = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,2}),p=([0-9]{1,2})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)
#: What a hash from elsewhere may cost, at most: KiB and passes.
_MOST_MEMORY: Final = 262_144
_MOST_PASSES: Final = 16
#: The hash of no password: compared where there is none, so that a missing account takes the time of another.
_NOBODY: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$c3RyZWFtc3RhY2stbm9uZQ"
    "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


class Passwords:
    """Hashes and checks passwords, a few at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="passwords")

    async def aclose(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Return the hash of a password, with its salt and its cost in it (the PHC string format).

        Raises RunError ``invalid-input`` for one that is too long.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _hash, _bytes_of(password)
        )

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Tell whether a password is the one of a hash; None is nobody's.

        Raises RunError ``invalid-input`` for a password that is too long, ``template`` for what is no such hash.
        """
        if hashed is not None:
            cost = _HASH.fullmatch(hashed)
            if cost is None or int(cost[1]) > _MOST_MEMORY or int(cost[2]) > _MOST_PASSES:
                raise RunError(
                    "template",
                    "`hash` is not what `password.hash` gives: $argon2id$...",
                    final=True,
                )
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _verify, _bytes_of(password), hashed
        )


def _bytes_of(password: str) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    if len(data) > LONGEST:
        raise RunError("invalid-input", f"the password has more than {LONGEST} bytes")
    return data


def _hash(password: bytes) -> str:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # noqa: PLC0415  (seldom needed)

    salt = os.urandom(16)
    made = Argon2id(salt=salt, length=32, iterations=PASSES, lanes=1, memory_cost=MEMORY)
    return made.derive_phc_encoded(password)


def _verify(password: bytes, hashed: str | None) -> bool:
    from cryptography.exceptions import InvalidKey  # noqa: PLC0415  (seldom needed)
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # noqa: PLC0415

    try:
        Argon2id.verify_phc_encoded(password, hashed or _NOBODY)
    except (InvalidKey, ValueError):
        return False
    return hashed is not None
