"""The times of an answer: to its first chunk, between its chunks, in all."""

from __future__ import annotations

from itertools import pairwise
from statistics import median


class Timing:
    """When chunks came. Times are seconds of `perf_counter`; ``bytes`` are those of the body."""

    def __init__(self, asked: float) -> None:
        self.asked = asked
        self.end = asked
        self.bytes = 0
        self._at: list[float] = []

    def chunk(self, now: float) -> None:
        """Take note of a chunk."""
        self._at.append(now)

    def offset(self, now: float) -> str:
        """Return the time since the request, as it is shown beside a chunk."""
        return f"{(now - self.asked) * 1000:.1f} ms"

    def lines(self) -> list[str]:
        """Return the summary."""
        at = self._at
        told = []
        if at:
            told.append(f"first chunk  {_duration(at[0] - self.asked)}")
        gaps = [after - before for before, after in pairwise(at)]
        if any(gaps):  # chunks of one document all come at once
            told.append(
                f"intervals    median {_duration(median(gaps))}, max {_duration(max(gaps))}"
            )
        told.append(f"total        {_duration(self.end - self.asked)}")
        told.append(f"chunks       {len(at)} ({_size(self.bytes)})")
        return told


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _size(size: int) -> str:
    if size < 10_000:
        return f"{size} bytes"
    return f"{size / 1024:.1f} KB" if size < 10_000_000 else f"{size / 1024**2:.1f} MB"
