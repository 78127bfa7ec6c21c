"""What a reader sees as one character: the code points that are never torn apart.

A practical reading of Unicode's grapheme clusters (UAX #29): a base with its combining marks,
variation selectors, skin tones and tags; emoji joined by ZWJ; a pair of regional indicators (a
flag); conjoining Hangul; CR LF. Not covered, since they are rare and harmless when cut: prepended
Arabic number signs and Indic conjuncts without a joiner.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Final
from unicodedata import category

#: Code points in one cluster. More marks than that on one letter is noise (UAX #15 allows 30),
#: and a bound keeps what waits for the next input small.
LONGEST: Final = 128

_ZWJ: Final = "\u200d"


def _marks(low: int, high: int) -> str:
    """Return all combining marks of this Python's Unicode in a range, for a character class."""
    found = (c for c in range(low, high) if category(chr(c))[0] == "M")
    ranges = []
    for _, run in groupby(enumerate(found), lambda pair: pair[1] - pair[0]):
        points = [point for _, point in run]
        ranges.append(f"{chr(points[0])}-{chr(points[-1])}")
    return "".join(ranges)


#: What never stands first in a piece, since it belongs to what is before it: a character class
#: without its brackets. Between the ranges that are asked for marks there are none, but syllables
#: and ideographs.
JOINED: Final = (
    _marks(0x300, 0x3100) + _marks(0xA600, 0xAC00) + _marks(0xFA00, 0x10000) + "\u200c\u200d"
    "\u0e33\u0eb3\uff9e\uff9f"  # vowels and sound marks that are letters by category
    "\u1160-\u11ff\ud7b0-\ud7fb"  # Hangul vowels and finals
)
#: The same beyond the basic plane: a pattern, whose look-ahead spares other text a hundred ranges.
JOINED_HIGH: Final = (
    "(?=[\U00010000-\U0010ffff])["
    + (_marks(0x10000, 0x12000) + _marks(0x16A00, 0x1F000))
    + "\U0001f3fb-\U0001f3ff"  # skin tones
    "\U000e0020-\U000e007f\U000e0100-\U000e01ef]"  # tags, variation selectors
)
_CONTROL: Final = "\x00-\x1f\x7f-\x9f\u2028\u2029"
_FLAG: Final = "\U0001f1e6-\U0001f1ff"
_INITIAL: Final = "\u1100-\u115f\ua960-\ua97c"
_PICTURE: Final = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u27bf\u2900-\u2bff\u3030\u303d"
    "\u3297\u3299\U0001f000-\U0001f1e5\U0001f200-\U0001f3fa\U0001f400-\U0001fbff"
)

_CLUSTERS: Final = re.compile(
    rf"\r\n|[{_CONTROL}]"
    rf"|(?:[{_FLAG}]{{2}}|[{_INITIAL}]{{1,8}}[\uac00-\ud7a3]?|.)"
    rf"(?:{_ZWJ}[{_PICTURE}]|[{JOINED}]|{JOINED_HIGH}){{0,{LONGEST - 1}}}",
    re.DOTALL,
)
_JOINING: Final = re.compile(rf"[\r{_INITIAL}{JOINED}\U00010000-\U0010ffff]")


def is_plain(text: str) -> bool:
    """Tell whether each code point of a text is surely a character of its own."""
    if text.isascii():
        return "\r" not in text
    return _JOINING.search(text) is None


def clusters(text: str) -> list[str]:
    """Return the characters of a text as a reader counts them. Joined, they are the text."""
    return _CLUSTERS.findall(text)
