"""Cutting a text that arrives in parts into sentences (the rules: pieces)."""
# ruff: noqa: RUF001  (look-alike punctuation of many scripts is what this is about)

from __future__ import annotations

import re
from typing import Final

from streamstack.runtime.letters import JOINED, JOINED_HIGH
from streamstack.runtime.words import SPACE

_FULL: Final = r"。！？｡．"  # needs no white space after it
_STOPS: Final = rf".!?…؟۔।॥։።{_FULL}"
#: Belongs to the stop before it.
_CLOSING: Final = JOINED + r"\"'”’»)\]}」』）】》"
#: The number of the group is the class: white space, stops, what may close them, other text.
_RUNS: Final = re.compile(
    rf"([{SPACE}]+)|([{_STOPS}]+)|((?:[{_CLOSING}]|{JOINED_HIGH})+)"
    rf"|([^{SPACE}{_STOPS}]++(?>(?:[ \t]++[^{SPACE}{_STOPS}]++)*))"
)
_GAP, _STOP, _CLOSE = 1, 2, 3
#: Before a single `.` these end no sentence: an initial (but the English I), a title, a letter of an
#: abbreviation, the number of a list's item.
_ABBREVIATED: Final = re.compile(
    r"(?:^|\W)(?:(?!I)[^\W\d_]|Mrs?|Ms|Dr|Prof|St|vs)$|(?:^|\n)\s*\d{1,3}$"
)
_REMEMBERED: Final = 16  # code points before a stop, enough for _ABBREVIATED


class Sentences:
    """A cutter into pieces of ``size`` sentences."""

    __slots__ = (
        "_before",
        "_begun",
        "_closed",
        "_count",
        "_gap",
        "_parts",
        "_recent",
        "_size",
        "_stop",
    )

    def __init__(self, size: int) -> None:
        self._size = size
        self._reset()

    def _reset(self) -> None:
        self._parts: list[str] = []
        self._gap: list[str] = []  # white space after the parts: whose it is, the next text shows
        self._count = 0  # sentences ended in the parts
        self._begun = False  # whether the sentence has more than white space
        self._stop = ""  # the stops that it may end in
        self._closed = False  # whether something closes them
        self._before = ""  # what stands before the stops
        self._recent = ""  # the last of the sentence

    def feed(self, text: str) -> list[str]:
        pieces: list[str] = []
        for run in _RUNS.finditer(text):
            found = run.lastindex
            part = run[0]
            if found == _GAP:
                self._gap.append(part)
                continue
            if self._gap or (self._stop and found is not None and found > _CLOSE):
                self._decide(part[0], pieces)
            if found == _STOP:
                if not self._stop:
                    self._before = self._recent
                self._stop = (self._stop + part)[:_REMEMBERED]
            elif self._stop and found == _CLOSE:
                self._closed = True
            self._recent = (self._recent + part[-_REMEMBERED:])[-_REMEMBERED:]
            self._begun = True
            self._parts.append(part)
        return pieces

    def _decide(self, first: str, pieces: list[str]) -> None:
        """Settle, now that text goes on with ``first``, whether a sentence ended before the gap."""
        gap = "".join(self._gap)
        if self._begun and self._ends(first, gap):
            self._begun = False
            self._recent = ""
            self._count += 1
            if self._count == self._size:
                pieces.append("".join(self._parts))
                self._parts = []
                self._count = 0
        if gap:
            self._parts.append(gap)
            self._recent = (self._recent + gap[-_REMEMBERED:])[-_REMEMBERED:]
            self._gap = []
        self._stop = ""
        self._closed = False

    def _ends(self, first: str, gap: str) -> bool:
        if gap.count("\n") > 1:
            return True
        stop = self._stop
        if not stop:
            return False
        if not gap or stop[-1] in _FULL:
            return stop[-1] in _FULL
        if stop.strip(".…"):  # more than dots
            return not (self._closed and first.islower())
        if first.islower():
            return False
        return stop != "." or self._closed or _ABBREVIATED.search(self._before) is None

    def end(self) -> list[str]:
        rest = "".join((*self._parts, *self._gap))
        self._reset()
        return [rest] if rest else []
