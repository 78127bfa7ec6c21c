"""Passwords: hashed with Argon2id by argon2-cffi, in threads of their own, since a hash is slow on purpose."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import Type

from streamstack.errors import RunError

#: Cost of a hash (OWASP's Password Storage Cheat Sheet): 19 MB and two passes, 20 to 40 ms.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
#: Maximum cost of a hash from elsewhere: KiB, passes and lanes.
_MOST_MEMORY: Final = 262_144
_MOST_PASSES: Final = 16
_MOST_LANES: Final = 99
#: Hashes that are computed at once: each takes a core and its memory.
_AT_ONCE: Final = 2
#: Maximum length of a password in bytes.
_LONGEST: Final = 4096
#: A hash that no password has: verified where there is no account, so that it takes the same time.
_NOBODY: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$c3RyZWFtc3RhY2stbm9uZQ"
    "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


class Passwords:
    """Hashes and verifies passwords, a few at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="passwords")

    async def aclose(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Return the hash of a password in the PHC string format, with its salt and cost.

        Raises:
            RunError: ``invalid-input`` for a password that is too long.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _HASHER.hash, _encode(password)
        )

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Return whether a password has a hash; None is the hash of no password.

        Raises:
            RunError: ``invalid-input`` for a password that is too long, ``template`` for a text that is no such hash.
        """
        if hashed is not None:
            _check_cost(hashed)
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _verify, _encode(password), hashed
        )


def _encode(password: str) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    if len(data) > _LONGEST:
        raise RunError("invalid-input", f"the password has more than {_LONGEST} bytes")
    return data


def _no_hash() -> RunError:
    return RunError(
        "template", "`hash` is not what `password.hash` gives: $argon2id$...", final=True
    )


def _check_cost(hashed: str) -> None:
    try:
        cost = extract_parameters(hashed)
    except (InvalidHashError, ValueError):
        raise _no_hash() from None
    if (
        cost.type is not Type.ID
        or cost.memory_cost > _MOST_MEMORY
        or cost.time_cost > _MOST_PASSES
        or cost.parallelism > _MOST_LANES
    ):
        raise _no_hash()


def _verify(password: bytes, hashed: str | None) -> bool:
    try:
        _HASHER.verify(hashed or _NOBODY, password)
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError):
        raise _no_hash() from None
    return hashed is not None
