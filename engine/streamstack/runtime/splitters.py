"""Splitting content into pieces: characters, words, sentences, lines, records.

Pieces joined are the content exactly, and no piece tears a character apart. The rules:

- *characters* are grapheme clusters (UAX #29), as the `regex` library knows them: an emoji family, a letter with its
  accents, a Devanagari conjunct, CR LF are one.
- A *word* is what stands between white space, with the white space before it (" world"), as models
  write their tokens; a no-break space is part of a word. White space after the last word stays with
  it, so that there are as many pieces as words divided by the size. Chinese and Japanese, written
  without spaces, count a character as a word; its punctuation stays with it.
- A *sentence* ends in `.`, `!`, `?` or their like, with closing quotes, before white space; after
  `.` only where no small letter follows and no initial, title or list number stands before. Chinese
  and Japanese full stops need no space. A blank line ends one too. White space as with words.
- A *line* ends in LF, CR LF or CR, which belong to it.
- *records* split a list into lists.

One scanner does both the whole and the incremental: a run of letters that input cuts in two is two
runs to it, and its state is the same after both. So each character is looked at once, and what is
held back is only what more input could still change.
"""
# ruff: noqa: RUF001  (look-alike punctuation of many scripts is what this is about)

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Protocol

import regex

from streamstack.errors import RunError
from streamstack.language.values import kind, to_text

#: What text can be split by; a list is split by records.
TEXT_UNITS: Final = ("characters", "words", "sentences", "lines")
#: Larger sizes are as good as this one: no text has so many units, and no pattern counts further.
_LARGEST: Final = 1 << 31


class Splitter(Protocol):
    """Splits a text that arrives in parts; gives the pieces of the whole, however it was parted."""

    def feed(self, text: str) -> list[str]:
        """Take the next part of the text; return the pieces that nothing can change any more."""

    def end(self) -> list[str]:
        """Return what is left: one last piece, or none."""


def splitter(by: str, size: int) -> Splitter:
    """Return a splitter of text into pieces of ``size`` characters, words, sentences or lines.

    Raises RunError ``template`` for any other unit, and for a size that is not an integer from 1.
    """
    size = _checked(size)
    found = _SPLITTERS.get(by) if type(by) is str else None
    if found is None:
        raise RunError(
            "template",
            f"text can't be split by {to_text(by)}: write characters, words, sentences or lines"
            + ("; `streams.batch` gathers items into lists" if by == "records" else ""),
        )
    return found(size)


def split_content(content: Any, by: str, size: int) -> list[Any]:
    """Split content into pieces of ``size`` units; joined, they are the content.

    Text is split by characters, words, sentences or lines, a list by records. Numbers, booleans,
    dates and timestamps are split as their text.
    Raises RunError ``template`` for content that has no such units, and for a wrong unit or size.
    """
    if by == "records":
        size = _checked(size)
        if not isinstance(content, (list, tuple)):
            raise RunError(
                "template",
                f"only a list can be split by records, and the content is {_a(content)}: "
                "write characters, words, sentences or lines for text",
            )
        return [content[at : at + size] for at in range(0, len(content), size)]
    splitting = splitter(by, size)
    if type(content) is not str:
        if content is None or kind(content) not in _TEXTUAL:
            raise RunError(
                "template",
                f"only text can be split by {by}, and the content is {_a(content)}: "
                "write `by: records` for a list, `| toJson` for an object's text",
            )
        content = to_text(content)
    pieces = splitting.feed(content)
    pieces += splitting.end()
    return pieces


_TEXTUAL: Final = frozenset({"text", "integer", "decimal", "boolean", "timestamp", "date"})


def _a(value: Any) -> str:
    name = kind(value)
    if name in ("null", "bytes"):
        return name
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _checked(size: Any) -> int:
    if type(size) is not int or size < 1:
        raise RunError("template", f"the size of a split must be an integer from 1, not {to_text(size)}")
    return min(size, _LARGEST)


# ---------------------------------------------------------------------------------- characters


#: Code points in one cluster. More marks than that on one letter is noise (UAX #15 allows 30), and a bound keeps what
#: waits for the next input small.
LONGEST: Final = 128
_CLUSTER: Final = regex.compile(r"\X")


def _class(properties: str, points: Iterable[int]) -> str:
    """Return the code points with one of some properties as ranges for a character class of `re`.

    `regex` knows the properties, `re` is twice as fast and counts as far as one likes.
    """
    runs = regex.findall(f"[{properties}]+", "".join(map(chr, points)))
    return "".join(f"{run[0]}-{run[-1]}" for run in runs)


_BASIC: Final = (*range(0x300, 0x3400), *range(0xA600, 0xD800), *range(0xF900, 0x10000))
_HIGH: Final = (*range(0x10000, 0x12000), *range(0x16A00, 0x20000), *range(0xE0000, 0xE1000))
_EXTENDING: Final = r"\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}\p{GCB=V}\p{GCB=T}"
#: What never stands first in a piece, since it belongs to what is before it: a character class without its brackets.
_JOINED: Final = _class(_EXTENDING, _BASIC)
#: The same beyond the basic plane: a pattern, whose look-ahead spares other text a hundred ranges.
_JOINED_HIGH: Final = f"(?=[\U00010000-\U0010ffff])[{_class(_EXTENDING, _HIGH)}]"
_JOINING: Final = re.compile("[\r\U00010000-\U0010ffff" + _JOINED + _class(r"\p{GCB=L}\p{GCB=Prepend}", _BASIC) + "]")


def is_plain(text: str) -> bool:
    """Tell whether each code point of a text is surely a character of its own."""
    if text.isascii():
        return "\r" not in text
    return _JOINING.search(text) is None


def graphemes(text: str) -> list[str]:
    """Return the characters of a text as a reader counts them. Joined, they are the text."""
    found: list[str] = _CLUSTER.findall(text)
    if len(text) <= LONGEST or max(map(len, found)) <= LONGEST:
        return found
    short = []
    for cluster in found:
        start = 0
        while len(cluster) - start > LONGEST:
            # What is behind the bound is read again, as if it were the beginning of a text.
            first = _CLUSTER.match(cluster[start : start + LONGEST + 1])[0][:LONGEST]
            short.append(first)
            start += len(first)
        short += _CLUSTER.findall(cluster[start:])
    return short


class _Characters:
    __slots__ = ("_count", "_last", "_parts", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[str] = []
        self._count = 0  # characters in the parts
        self._last = ""  # the last character, which the next code point may still join

    def feed(self, text: str) -> list[str]:
        text = self._last + text
        if not text:
            return []
        units: str | list[str] = text if is_plain(text) else graphemes(text)
        self._last = last = "" if text[-1] == "\n" else units[-1]
        return self._group(units[: len(units) - 1] if last else units)

    def end(self) -> list[str]:
        last, self._last = self._last, ""
        pieces = self._group([last] if last else [])
        if self._count:
            pieces.append("".join(self._parts))
            self._parts, self._count = [], 0
        return pieces

    def _group(self, units: str | list[str]) -> list[str]:
        size, total = self._size, len(units)
        missing = size - self._count
        if total < missing:
            if total:
                self._parts.append("".join(units))
                self._count += total
            return []
        pieces = ["".join((*self._parts, *units[:missing]))]
        full = missing + (total - missing) // size * size
        if isinstance(units, str):
            pieces += [units[at : at + size] for at in range(missing, full, size)]
        else:
            pieces += ["".join(units[at : at + size]) for at in range(missing, full, size)]
        self._parts, self._count = ["".join(units[full:])], total - full
        return pieces


# --------------------------------------------------------------------------------------- words

#: White space that separates; the no-break spaces do not.
_SPACE: Final = r"\t-\r\x1c-\x20\x85\u1680\u2000-\u2006\u2008-\u200a\u2028\u2029\u205f\u3000"
#: Han, kana, bopomofo: written without spaces between words.
_IDEOGRAPH: Final = (
    r"\u3041-\u3096\u30a1-\u30fa\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
_OPENING: Final = r"「『（【《〈〔［｛"
#: Stays with the word before it: marks, closing punctuation, small kana and sound marks.
_TRAILING: Final = (
    _JOINED + r"、。，．！？：；」』）】》〉〕］｝…—～·ー々ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ"
    r"!%'\"),.:;?\]}”’»"
)
#: White space, then a run of one class, the number of whose group is the class; or the end.
_WORD_RUNS: Final = re.compile(
    rf"([{_SPACE}]*+)"
    rf"(?:((?:[{_TRAILING}]|{_JOINED_HIGH})+)|([{_IDEOGRAPH}])|([{_OPENING}]+)|([^{_SPACE}{_IDEOGRAPH}{_OPENING}]+)|\Z)"
)
_NOTHING, _TRAIL, _IDEO, _OPEN, _OTHER = 1, 2, 3, 4, 5
#: The classes between which a word begins without white space.
_BEGINS: Final = frozenset({(_IDEO, _IDEO), (_OTHER, _IDEO), (_IDEO, _OPEN), (_OTHER, _OPEN), (_IDEO, _OTHER)})
_SPACELESS: Final = re.compile(f"[{_IDEOGRAPH}{_OPENING}]")


@lru_cache(64)
def _spaced(size: int) -> re.Pattern[str]:
    """Return what matches ``size`` words of spaced writing with one more after them."""
    return re.compile(rf"(?:[{_SPACE}]*+[^{_SPACE}]++){{{size}}}(?=[{_SPACE}]++[^{_SPACE}])")


class _Words:
    """Split a text into pieces of ``size`` words."""

    __slots__ = ("_count", "_gap", "_last", "_parts", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[str] = []
        self._gap: list[str] = []  # white space after the parts: whose it is, the next text shows
        self._count = 0  # words begun in the parts
        self._last = _NOTHING  # the class that the last word ends in

    def feed(self, text: str) -> list[str]:
        pieces: list[str] = []
        if self._last == _NOTHING and not self._gap and (text.isascii() or _SPACELESS.search(text) is None):
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
        for run in _WORD_RUNS.finditer(text):
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


# ----------------------------------------------------------------------------------- sentences

_FULL: Final = r"。！？｡．"  # needs no white space after it
_STOPS: Final = rf".!?…؟۔।॥։።{_FULL}"
#: Belongs to the stop before it.
_CLOSING: Final = _JOINED + r"\"'”’»)\]}」』）】》"
#: The number of the group is the class: white space, stops, what may close them, other text.
_SENTENCE_RUNS: Final = re.compile(
    rf"([{_SPACE}]+)|([{_STOPS}]+)|((?:[{_CLOSING}]|{_JOINED_HIGH})+)"
    rf"|([^{_SPACE}{_STOPS}]++(?>(?:[ \t]++[^{_SPACE}{_STOPS}]++)*))"
)
_GAP, _STOP, _CLOSE = 1, 2, 3
#: Before a single `.` these end no sentence: an initial (but the English I), a title, a letter of an
#: abbreviation, the number of a list's item.
_ABBREVIATED: Final = re.compile(r"(?:^|\W)(?:(?!I)[^\W\d_]|Mrs?|Ms|Dr|Prof|St|vs)$|(?:^|\n)\s*\d{1,3}$")
_REMEMBERED: Final = 16  # code points before a stop, enough for _ABBREVIATED


class _Sentences:
    """Split a text into pieces of ``size`` sentences."""

    __slots__ = ("_before", "_begun", "_closed", "_count", "_gap", "_parts", "_recent", "_size", "_stop")

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
        for run in _SENTENCE_RUNS.finditer(text):
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


# --------------------------------------------------------------------------------------- lines

_LINE_ENDS: Final = re.compile(r"\r\n?|\n")


@lru_cache(64)
def _whole_lines(size: int) -> re.Pattern[str]:
    return re.compile(rf"(?:[^\r\n]*+(?:\r\n?+|\n)){{{size}}}")


class _Lines:
    __slots__ = ("_count", "_parts", "_return", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[str] = []
        self._count = 0  # ended lines in the parts
        self._return = False  # whether a CR is held back: LF may follow

    def feed(self, text: str) -> list[str]:
        if self._return and text:
            text = "\r" + text
            self._return = False
        if text.endswith("\r"):
            text = text[:-1]
            self._return = True
        pieces: list[str] = []
        at = 0
        if self._parts:
            first = _whole_lines(self._size - self._count).match(text)
            if first is None:
                self._count += len(_LINE_ENDS.findall(text))
                self._parts.append(text)
                return pieces
            pieces.append("".join((*self._parts, first[0])))
            at = first.end()
        match = _whole_lines(self._size).match
        while found := match(text, at):
            pieces.append(found[0])
            at = found.end()
        rest = text[at:]
        self._parts = [rest] if rest else []
        self._count = len(_LINE_ENDS.findall(rest))
        return pieces

    def end(self) -> list[str]:
        rest = "".join(self._parts) + ("\r" if self._return else "")
        self._parts, self._count, self._return = [], 0, False
        return [rest] if rest else []


_SPLITTERS: Final[dict[str, type[_Characters | _Lines | _Words | _Sentences]]] = {
    "characters": _Characters,
    "words": _Words,
    "sentences": _Sentences,
    "lines": _Lines,
}
