"""Cutting a text that arrives in parts into words (the rules: pieces)."""
# ruff: noqa: RUF001  (look-alike punctuation of many scripts is what this is about)

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from streamstack.runtime.letters import JOINED, JOINED_HIGH

#: White space that separates; the no-break spaces do not.
SPACE: Final = r"\t-\r\x1c-\x20\x85\u1680\u2000-\u2006\u2008-\u200a\u2028\u2029\u205f\u3000"
#: Han, kana, bopomofo: written without spaces between words.
_IDEOGRAPH: Final = (
    r"\u3041-\u3096\u30a1-\u30fa\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
_OPENING: Final = r"「『（【《〈〔［｛"
#: Stays with the word before it: marks, closing punctuation, small kana and sound marks.
_TRAILING: Final = (
    JOINED
    + r"、。，．！？：；」』）】》〉〕］｝…—～·ー々ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ"
    r"!%'\"),.:;?\]}”’»"
)
#: White space, then a run of one class, the number of whose group is the class; or the end.
_RUNS: Final = re.compile(
    rf"([{SPACE}]*+)"
    rf"(?:((?:[{_TRAILING}]|{JOINED_HIGH})+)|([{_IDEOGRAPH}])|([{_OPENING}]+)|([^{SPACE}{_IDEOGRAPH}{_OPENING}]+)|\Z)"
)
_NOTHING, _TRAIL, _IDEO, _OPEN, _OTHER = 1, 2, 3, 4, 5
#: The classes between which a word begins although there is no white space.
_BEGINS: Final = frozenset(
    {(_IDEO, _IDEO), (_OTHER, _IDEO), (_IDEO, _OPEN), (_OTHER, _OPEN), (_IDEO, _OTHER)}
)
_SPACELESS: Final = re.compile(f"[{_IDEOGRAPH}{_OPENING}]")


@lru_cache(64)
def _spaced(size: int) -> re.Pattern[str]:
    """Return what matches ``size`` words of spaced writing with one more after them."""
    return re.compile(rf"(?:[{SPACE}]*+[^{SPACE}]++){{{size}}}(?=[{SPACE}]++[^{SPACE}])")


class Words:
    """A cutter into pieces of ``size`` words."""

    __slots__ = ("_count", "_gap", "_last", "_parts", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[str] = []
        self._gap: list[str] = []  # white space after the parts: whose it is, the next text shows
        self._count = 0  # words begun in the parts
        self._last = _NOTHING  # the class that the last word ends in

    def feed(self, text: str) -> list[str]:
        pieces: list[str] = []
        if (
            self._last == _NOTHING
            and not self._gap
            and (text.isascii() or _SPACELESS.search(text) is None)
        ):
            match, at = _spaced(self._size).match, 0
            while found := match(text, at):
                pieces.append(found[0])
                at = found.end()
            text = text[at:]
        self._scan(text, pieces)
        return pieces

    def _scan(self, text: str, pieces: list[str]) -> None:
        size, count, last = self._size, self._count, self._last
        start = 0  # of what follows the parts
        for run in _RUNS.finditer(text):
            found = run.lastindex or _NOTHING
            at = run.start()
            if found == _NOTHING:
                if start < at:
                    self._parts.append(text[start:at])
                if at < len(text):
                    self._gap.append(text[at:])
                start = len(text)
                break
            if self._gap or run.end(1) > at or last == _NOTHING or (last, found) in _BEGINS:
                if count == size:
                    piece = text[start:at]
                    if self._parts:
                        piece = "".join((*self._parts, piece))
                    pieces.append(piece)
                    self._parts, self._gap = self._gap, []
                    start = at
                    count = 0
                count += 1
                last = _OTHER if found == _TRAIL else found
            elif found != _TRAIL:
                last = found
            if self._gap:
                self._parts += self._gap
                self._gap = []
        self._count, self._last = count, last
        if start < len(text):
            self._parts.append(text[start:])

    def end(self) -> list[str]:
        rest = "".join((*self._parts, *self._gap))
        self._parts, self._gap = [], []
        self._count, self._last = 0, _NOTHING
        return [rest] if rest else []
