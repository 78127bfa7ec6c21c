"""The tally: what one process counts, in its chair at the board."""

from __future__ import annotations

import os
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from time import perf_counter
from typing import Final

from streamstack.server.life import Life
from streamstack.server.metrics.board import (
    BUCKETS,
    BYTES,
    CHUNKS,
    CPU,
    ENDED,
    FIRST,
    FIRST_SUM,
    MEMORY,
    OPEN,
    OUTCOMES,
    PID,
    STATUSES,
    WIDTH,
    Board,
)
from streamstack.server.writers.answer import Answer

if sys.platform != "win32":
    import resource

_OUTCOMES: Final = {name: ENDED + place * len(STATUSES) for place, name in enumerate(OUTCOMES)}
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Tally:
    """Counts the answers of this process. Only whole answers cost something, chunks do not."""

    def __init__(self, board: Board, chair: int = 0) -> None:
        self.board = board
        self._words = board.words
        self._head = board.chair(chair)
        self._rows = board.row(chair, 0)
        self._earlier = self._words[self._head + CPU]  # of who had the chair before
        self._used = _used()
        # Of runs that `look` has met: how much of what they sent is counted.
        self._counted: dict[Life, tuple[int, int]] = {}
        self._open: Counter[int] = Counter()
        self._words[self._head + PID] = os.getpid()

    def refuse(self, status: int) -> None:
        """Count an answer without an endpoint."""
        self._words[self._rows + _OUTCOMES["failed"] + status // 100] += 1

    def finish(self, row: int, answer: Answer, outcome: str, life: Life | None = None) -> None:
        """Count an answer that is over. ``life`` is what `look` may have met."""
        words, at = self._words, self._rows + row * WIDTH
        place = at + _OUTCOMES[outcome]
        if answer.committed or answer.refused:
            place += answer.status // 100
        words[place] += 1
        chunks, size = answer.count, answer.bytes
        if life is not None and (counted := self._counted.pop(life, None)) is not None:
            chunks, size = chunks - counted[0], size - counted[1]
        # Chunks that were taken back are no reason to go down.
        if chunks > 0:
            words[at + CHUNKS] += chunks
        if size > 0:
            words[at + BYTES] += size
        first = answer.first_at
        if not first and outcome == "completed":
            first = perf_counter()  # a whole answer, or one without chunks
        if first:
            took = first - answer.run.clock
            words[at + FIRST + bisect_left(BUCKETS, took)] += 1
            words[at + FIRST_SUM] += int(took * 1_000_000)

    def look(self, lives: Iterable[Life]) -> None:
        """Count what running answers have sent since the last look, and what this process uses."""
        words = self._words
        now: Counter[int] = Counter()
        for life in lives:
            now[life.row] += 1
            answer = life.answer
            chunks, size = self._counted.get(life, (0, 0))
            at = self._rows + life.row * WIDTH
            if answer.count > chunks:
                words[at + CHUNKS] += answer.count - chunks
                chunks = answer.count
            if answer.bytes > size:
                words[at + BYTES] += answer.bytes - size
                size = answer.bytes
            self._counted[life] = (chunks, size)
        for row in self._open.keys() | now.keys():
            words[self._rows + row * WIDTH + OPEN] = now[row]
        self._open = now
        words[self._head + MEMORY] = _memory()
        words[self._head + CPU] = self._earlier + _used() - self._used


def _used() -> int:
    """Return the microseconds of CPU that this process has used."""
    times = os.times()
    return int((times.user + times.system) * 1_000_000)


def _memory() -> int:
    """Return the bytes that this process has in memory; where that can't be told, the most that it ever had."""
    try:
        with open("/proc/self/statm", "rb") as told:  # noqa: PTH123 (read each second: a Path costs more than the read)
            return int(told.read().split()[1]) * _PAGE
    except OSError:
        if sys.platform == "win32":
            return 0
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
