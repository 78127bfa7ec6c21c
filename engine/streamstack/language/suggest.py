"""What a misspelt word may have meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS: Final = re.compile(r"[\s_-]+")


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ", did you mean `x`?" for the nearest candidate, or "" where none is near."""
    found = nearest(word, candidates)
    return f", did you mean `{found}`?" if found else ""


def suggestion(word: str, candidates: Iterable[str], otherwise: str = "") -> str:
    """Return "did you mean `x`?" for the nearest candidate, or what to say where none is near."""
    found = nearest(word, candidates)
    return f"did you mean `{found}`?" if found else otherwise


#: Slips from which two words are not alike, and what stands for more.
_MOST: Final = 3
_MANY: Final = 99


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate nearest to a misspelt word.

    Case, and camel, snake or kebab spelling, count for nothing; two letters swapped count as one
    slip. A beginning that fits, or the last part of a dotted name, is near too.
    """
    folded = _fold(word)
    if not folded or len(word) > 100:
        return None
    best: tuple[float, str] | None = None
    for candidate in candidates:
        if candidate == word:
            continue
        other = _fold(candidate)
        distance = _distance(folded, other)
        score: float = distance
        if distance > _allowed(folded, other):
            if other.rpartition(".")[2] == folded:
                score = 1.5
            elif len(folded) >= 3 and (other.startswith(folded) or (len(other) >= 3 and folded.startswith(other))):
                score = 2.5
            else:
                continue
        if best is None or (score, candidate) < best:
            best = (score, candidate)
    return best[1] if best else None


def misspelt(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that a word can hardly not mean, where any word could stand.

    Nearer than ``nearest``: a short word is begun like it or has its letters in another order, a
    longer one has a slip or, from seven letters on, two.
    """
    folded = _fold(word)
    if len(folded) < 3 or len(word) > 100:
        return None
    found: list[tuple[int, str]] = []
    for candidate in candidates:
        other = _fold(candidate)
        distance = _distance(folded, other)
        if len(folded) <= 4:
            near = other.startswith(folded) or sorted(other) == sorted(folded)
        else:
            near = distance <= (1 if len(folded) < 7 else 2) and len(other) > 3
        if near:
            found.append((distance, candidate))
    return min(found)[1] if found else None


@lru_cache(maxsize=8192)
def _fold(word: str) -> str:
    return _SEPARATORS.sub("", _HUMP.sub("", word)).lower()


def _allowed(word: str, other: str) -> int:
    longest = max(len(word), len(other))
    most = 1 if longest <= 4 else 2 if longest <= 9 else 3
    return min(most, len(word) - 1)


@lru_cache(maxsize=8192)
def _letters(word: str) -> int:
    """Return which letters a word has, as bits."""
    bits = 0
    for letter in word:
        bits |= 1 << ord(letter) % 64
    return bits


def _distance(word: str, other: str) -> int:
    """Count the slips between two words: a letter added, left out, changed, or two swapped; up to three."""
    if word == other:
        return 0
    # Most words are told apart by their letters: a slip changes two of them at most.
    if abs(len(word) - len(other)) > _MOST or (_letters(word) ^ _letters(other)).bit_count() > 2 * _MOST:
        return _MANY
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(word, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and word[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > _MOST and min(last) > _MOST:
            return _MANY
        before, last = last, row
    return last[-1]
