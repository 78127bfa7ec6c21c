"""Cutting content into pieces: characters, words, sentences, lines, records.

Pieces joined are the content exactly, and no piece tears a character apart (letters). The rules:

- *characters* are what a reader counts: an emoji family, a letter with its accents, CR LF are one.
- A *word* is what stands between white space, with the white space before it (" world"), as models
  write their tokens; a no-break space is part of a word. White space after the last word stays with
  it, so that there are as many pieces as words divided by the size. Chinese and Japanese, written
  without spaces, count a character as a word; its punctuation stays with it.
- A *sentence* ends in `.`, `!`, `?` or their like, with closing quotes, before white space; after
  `.` only where no small letter follows and no initial, title or list number stands before. Chinese
  and Japanese full stops need no space. A blank line ends one too. White space as with words.
- A *line* ends in LF, CR LF or CR, which belong to it.
- *records* cut a list into lists.

One scanner does both the whole and the incremental: a run of letters that input cuts in two is two
runs to it, and its state is the same after both. So each character is looked at once, and what is
held back is only what more input could still change.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, Protocol

from streamstack.errors import RunError
from streamstack.language.values import kind, to_text
from streamstack.runtime.letters import clusters, is_plain
from streamstack.runtime.sentences import Sentences
from streamstack.runtime.words import Words

#: What text can be cut by; a list is cut by records.
TEXT_UNITS: Final = ("characters", "words", "sentences", "lines")
UNITS: Final = (*TEXT_UNITS, "records")


class Cutter(Protocol):
    """Cuts a text that arrives in parts; gives the pieces of the whole, however it was parted."""

    def feed(self, text: str) -> list[str]:
        """Take the next part of the text; return the pieces that nothing can change any more."""

    def end(self) -> list[str]:
        """Return what is left: one last piece, or none."""


def cutter(by: str, size: int) -> Cutter:
    """Return a cutter of text into pieces of ``size`` characters, words, sentences or lines.

    Raises RunError ``template`` for any other unit, and for a size that is no integer from 1.
    """
    _check_size(size)
    found = _CUTTERS.get(by) if type(by) is str else None
    if found is None:
        raise RunError(
            "template",
            f"text can't be split by {to_text(by)}: write characters, words, sentences or lines"
            + ("; `streams.batch` gathers items into lists" if by == "records" else ""),
        )
    return found(size)


def cut(content: Any, by: str, size: int) -> list[Any]:
    """Cut content into pieces of ``size`` units; joined, they are the content.

    Text is cut by characters, words, sentences or lines, a list by records. Numbers, booleans,
    dates and timestamps are cut as their text.
    Raises RunError ``template`` for content that has no such units, and for a wrong unit or size.
    """
    if by == "records":
        _check_size(size)
        if not isinstance(content, (list, tuple)):
            raise RunError(
                "template",
                f"only a list can be split by records, and the content is {_a(content)}: "
                "write characters, words, sentences or lines for text",
            )
        return [content[at : at + size] for at in range(0, len(content), size)]
    cutting = cutter(by, size)
    if type(content) is not str:
        if content is None or kind(content) not in _TEXTUAL:
            raise RunError(
                "template",
                f"only text can be split by {by}, and the content is {_a(content)}: "
                "write `by: records` for a list, `| toJson` for an object's text",
            )
        content = to_text(content)
    pieces = cutting.feed(content)
    pieces += cutting.end()
    return pieces


_TEXTUAL: Final = frozenset({"text", "integer", "decimal", "boolean", "timestamp", "date"})


def _a(value: Any) -> str:
    name = kind(value)
    if name in ("null", "bytes"):
        return name
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _check_size(size: Any) -> None:
    if type(size) is not int or size < 1:
        raise RunError(
            "template", f"the size of a split must be an integer from 1, not {to_text(size)}"
        )


# ---------------------------------------------------------------------------------- characters


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
        units: str | list[str] = text if is_plain(text) else clusters(text)
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


_CUTTERS: Final[dict[str, type[_Characters | _Lines | Words | Sentences]]] = {
    "characters": _Characters,
    "words": Words,
    "sentences": Sentences,
    "lines": _Lines,
}
