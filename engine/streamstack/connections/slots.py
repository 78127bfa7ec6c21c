"""Places that are taken for a while, counted in the memory of this process."""

from __future__ import annotations

from typing import Protocol


class Slots(Protocol):
    """Places by key: so many runs may be under way."""

    async def take(self, key: bytes, most: int) -> bool:
        """Take a place of a key that has ``most``; tell whether one was free."""

    async def give(self, key: bytes) -> None:
        """Give a place back."""

    async def aclose(self) -> None:
        """Give all places back."""


class MemorySlots:
    """The places of this process alone."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[bytes, int] = {}

    async def take(self, key: bytes, most: int) -> bool:
        """Take a place; tell whether one was free."""
        held = self._held.get(key, 0)
        if held >= most:
            return False
        self._held[key] = held + 1
        return True

    async def give(self, key: bytes) -> None:
        """Give a place back."""
        self.release(key)

    def release(self, key: bytes) -> None:
        """Give a place back, at once."""
        left = self._held.get(key, 0) - 1
        if left > 0:
            self._held[key] = left
        else:
            self._held.pop(key, None)

    async def aclose(self) -> None:
        """Do nothing: the memory goes with the process."""
