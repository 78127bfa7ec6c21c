"""The board: memory that all processes of a server share, in which each counts for itself.

Each process has a chair: a part of the board in which only it writes. So nothing is locked, nobody has to be asked, and
what a process that died had counted stays. A chair has a row for each endpoint; row 0 is for what has no endpoint.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from typing import Final

from streamstack.server.served import Served

#: Seconds that a first chunk took: the upper ends of the buckets.
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
#: Classes of status. `none`: the reader left before there was one.
STATUSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
OUTCOMES: Final = ("completed", "failed", "cancelled")

# The places of a row. The first ones count answers: for each outcome, each class of status. One increment an answer.
ENDED: Final = 0
OPEN: Final = ENDED + len(OUTCOMES) * len(STATUSES)
CHUNKS: Final = OPEN + 1
BYTES: Final = CHUNKS + 1
FIRST_SUM: Final = BYTES + 1  # microseconds
FIRST: Final = FIRST_SUM + 1
WIDTH: Final = FIRST + len(BUCKETS) + 1  # the last bucket has no upper end

# The head of a chair.
PID: Final = 0
MEMORY: Final = 1  # bytes
CPU: Final = 2  # microseconds, of all who had the chair
_HEAD: Final = 4

# The head of the board.
RESTARTS: Final = 0
_BOARD: Final = 4

_WORD: Final = 8
#: Rows for endpoints that come while it is served.
_SPARE: Final = 64


class Board:
    """Shared memory for a number of chairs. Made before processes are forked."""

    def __init__(self, endpoints: Iterable[Served], chairs: int = 1) -> None:
        self.titles: list[str] = [""]
        self._rows: dict[str, int] = {}
        wanted = list(endpoints)
        self.rows = len({each.title for each in wanted}) + 1 + _SPARE
        self.chairs = chairs
        self._chair = _HEAD + self.rows * WIDTH
        # Anonymous and shared; a page that nobody writes takes no memory.
        self._memory = mmap.mmap(-1, (_BOARD + chairs * self._chair) * _WORD)
        self.words = memoryview(self._memory).cast("Q")
        self.seat(wanted)

    def seat(self, endpoints: Iterable[Served]) -> None:
        """Tell endpoints their rows; one that is known by its title keeps the row that it has.

        All processes name the same endpoints in the same order, so they agree. When no row is left, what is new is
        counted in row 0.
        """
        for each in endpoints:
            title = each.title
            row = self._rows.get(title)
            if row is None:
                if len(self.titles) >= self.rows:
                    each.take_row(0)
                    continue
                row = self._rows[title] = len(self.titles)
                self.titles.append(title)
            each.take_row(row)

    def name(self, titles: Iterable[str]) -> None:
        """Give rows to titles in this order, as another process has given them."""
        for title in titles:
            if title and title not in self._rows and len(self.titles) < self.rows:
                self._rows[title] = len(self.titles)
                self.titles.append(title)

    def chair(self, number: int) -> int:
        """Return where a chair's head stands."""
        return _BOARD + number * self._chair

    def row(self, chair: int, row: int) -> int:
        """Return where a row of a chair stands."""
        return _BOARD + chair * self._chair + _HEAD + row * WIDTH

    def sums(self) -> Iterator[tuple[str, list[int]]]:
        """Yield the rows in which something was counted, by their titles, all chairs together."""
        for row, title in enumerate(self.titles):
            found = [0] * WIDTH
            for chair in range(self.chairs):
                at = self.row(chair, row)
                for place, value in enumerate(self.words[at : at + WIDTH]):
                    found[place] += value
            if any(found):
                yield title, found

    def clear(self, chair: int) -> None:
        """Take note that whoever sat on a chair is gone: what it counted stays, what it had open does not."""
        head = self.chair(chair)
        self.words[head + PID] = self.words[head + MEMORY] = 0
        for row in range(len(self.titles)):
            self.words[self.row(chair, row) + OPEN] = 0
