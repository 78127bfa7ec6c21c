"""What waits for a reader whose run does not: the newest chunks, and how many older ones were dropped."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

#: Bytes that a chunk takes beside its own.
_EACH: Final = 48


class Backlog:
    """Whole chunks in their order. ``size`` bounds them, in bytes; the newest stays however large it is."""

    __slots__ = ("_chunks", "_held", "_size", "lately")

    def __init__(self, size: int) -> None:
        self._size = size
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self.lately = 0  # since the reader was last told

    def hold(self, chunks: Iterable[bytes]) -> int:
        """Add chunks; drop the oldest where they are too many, and return how many those were."""
        held = self._chunks
        before = self.lately
        for chunk in chunks:
            held.append(chunk)
            self._held += len(chunk) + _EACH
        while self._held > self._size and len(held) > 1:
            self._held -= len(held.popleft()) + _EACH
            self.lately += 1
        return self.lately - before

    def take(self) -> bytes:
        """Return all that is held, and forget it."""
        data = b"".join(self._chunks)
        self.clear()
        return data

    def clear(self) -> None:
        """Forget what is held."""
        self._chunks.clear()
        self._held = 0
        self.lately = 0
