r"""Regular expressions that authors write, matched by RE2 in time that grows with the text and no faster.

Every pattern of the language goes through here: the `pattern` of an input and the filters `regexMatch`,
`regexFind` and `regexReplace`, whether the pattern is a constant or bound at run time. The syntax is RE2's
(https://github.com/google/re2/wiki/Syntax), which has no look-around and no back-references.
What differs from Python's `re`:

- `\d`, `\w`, `\s` and `\b` know ASCII only, as in JSON Schema; `\p{L}` and `\p{Nd}` are the letters and digits of
  all scripts.
- `$` is the very end of the text, also before a last line break. `(?m)` makes it the end of each line.
- `(?P<name>...)` and `(?<name>...)` are both named groups. Flags may stand anywhere: `(?i)`, `(?m)`, `(?s)`, `(?U)`.
- A repeat counts to 1,000 at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from time import perf_counter, thread_time
from typing import Any, Final

import re2

#: Characters of a pattern.
MAX_PATTERN: Final = 1_000
#: The longest text (characters) of an input with a pattern and without `maxLength`.
LONGEST: Final = 10_000
#: Bytes that RE2 may use for one pattern, compiled and with the states it remembers.
_MAX_MEMORY: Final = 1 << 20
#: Characters of the text times instructions of the pattern, for one search: half a second at worst.
_MAX_STEPS: Final = 100_000_000
#: So many groups that are looked for make a search take twice as long.
_GROUPS: Final = 16
#: Seconds of processor time for replacing all matches of a text. Each search is linear, all of them together need
#: not be: `a.*b|a` looks through the rest of the text at each `a`.
_MAX_SECONDS: Final = 2.0

#: What RE2 does not support, or understands in another way than its author, and what to write instead.
_FOREIGN: Final = (
    (
        r"\(\?<?[=!]",
        "look-ahead and look-behind are not supported: match more and take a group, or write two conditions",
    ),
    (r"\\[1-9k]|\(\?P=", "back-references are not supported: take the groups with `regexFind` and compare them"),
    (
        r"\(\?>|(?:[*+?]|\{[0-9,]+\})\+",
        "atomic groups and possessive repeats are not supported (and not needed): write `(?:...)` and `a+`",
    ),
    (r"\(\?\(", "conditional groups are not supported: write both cases, as in `(?:ab|c)`"),
    (
        r"\(\?(?:#|[imsU-]*[xaLu])",
        "comments and the flags x, a, L and u are not supported: write the pattern without them",
    ),
    (r"\\Z", r"`\Z` is not supported: write `\z`, the end of the text"),
    (r"\\[uUN]", r"`\u`, `\U` and `\N` are not supported: write the character itself, or its number as in `\x{00e9}`"),
    (r"\{,[0-9]", "a repeat needs its smallest number: write `{0,3}` instead of `{,3}`"),
    (r"\\C", r"`\C` is a byte, and a text has none: write `(?s:.)`"),
)
#: Finds them; passes over texts between `\Q` and `\E`, classes without them, and other escapes.
_PARTS: Final = re.compile(
    "|".join(f"({source})" for source, _ in _FOREIGN)
    + r"|\\Q.*?(?:\\E|\Z)|\[\^?\]?(?:\\[^1-9kZuUNC]|\[:\^?[a-z]+:\]|[^\]\\])*\]|\\?.",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(?:g<([^<>]*)>|([1-9][0-9]?)|(.?))", re.DOTALL)
_ESCAPED: Final = {"\\": b"\\", "n": b"\n", "r": b"\r", "t": b"\t"}


class Pattern:
    """A compiled pattern.

    Texts are given to RE2 as bytes: a half of a surrogate pair is a character like others, and no offset has to be
    counted in characters.
    """

    __slots__ = ("_compiled", "_groups", "_longest_of_groups", "longest", "source")

    def __init__(self, source: str, compiled: Any, groups: Any) -> None:
        self.source = source
        self._compiled = compiled
        self._groups = groups
        #: The most characters of a text that may be searched.
        self.longest = _MAX_STEPS // groups.programsize
        self._longest_of_groups = self.longest * _GROUPS // (_GROUPS + groups.groups)

    def matches(self, text: str) -> bool:
        """Tell whether the pattern is found anywhere in a text. Raises ValueError for a text that is too long."""
        return self._compiled.search(self._encode(text, self.longest)) is not None

    def find(self, text: str, group: int | str = 0) -> str | None:
        """Return the first match or a group of it; None where there is none.

        Raises:
            ValueError: The text is too long.
            IndexError: The pattern has no such group.
        """
        index = self._index(group)
        if index:
            found = self._groups.search(self._encode(text, self._longest_of_groups))
        else:
            found = self._compiled.search(self._encode(text, self.longest))
        part = None if found is None else found[index]
        return None if part is None else part.decode("utf-8", "surrogatepass")

    def replace(self, text: str, replacement: str, count: int, most_added: int) -> str:
        r"""Return a text with its matches replaced.

        Args:
            text: The text to search.
            replacement: What to write; `\1` and `\g<name>` are groups, `\\`, `\n`, `\r` and `\t` signs.
            count: How many matches to replace; 0 for all.
            most_added: The most bytes the result may be longer than the text.

        Raises:
            ValueError: The text or the result is too long, the replacement is not valid, or it takes too long.
        """
        template = self._template(replacement)
        only = template[0]
        fixed = only if len(template) == 1 and isinstance(only, bytes) else None
        compiled = self._groups if fixed is None else self._compiled
        data = self._encode(text, self._longest_of_groups if fixed is None else self.longest)
        pieces: list[bytes] = []
        room = len(data) + most_added
        end = 0
        for match in islice(_iterate(compiled, data), count or None):
            start, stop = match.span()
            new = b"".join(_expand(template, match, room)) if fixed is None else fixed
            room -= start - end + len(new)
            if room < len(data) - stop:
                raise ValueError(f"the result would be too long: more than {most_added:,} characters are added")
            pieces += (data[end:start], new)
            end = stop
        pieces.append(data[end:])
        return b"".join(pieces).decode("utf-8", "surrogatepass")

    def _encode(self, text: str, longest: int) -> bytes:
        if len(text) > longest:
            raise ValueError(
                f"the text is longer than the {longest:,} characters that a pattern of this size may search"
            )
        return text.encode("utf-8", "surrogatepass")

    def _index(self, group: int | str) -> int:
        if isinstance(group, str):
            index = self._groups.groupindex.get(group.encode("utf-8", "surrogatepass"), -1)
        else:
            index = group
        if not 0 <= index <= self._groups.groups:
            raise IndexError(f"the pattern has no group {str(group)[:40]}".rstrip())
        return int(index)

    def _template(self, replacement: str) -> list[bytes | int]:
        """Split a replacement into bytes and numbers of groups."""
        parts: list[bytes | int] = []
        literal = b""
        end = 0
        for found in _ESCAPE.finditer(replacement):
            literal += replacement[end : found.start()].encode("utf-8", "surrogatepass")
            end = found.end()
            name, number, sign = found.groups()
            if sign is None:
                group = number if name is None else name
                few = group.isdecimal() and len(group) < 9
                try:
                    index = self._index(int(group) if few else group)
                except IndexError as error:
                    raise ValueError(f"the replacement is not valid: {error}") from None
                parts += (literal, index)
                literal = b""
            elif sign in _ESCAPED:
                literal += _ESCAPED[sign]
            elif sign.isalnum() or not sign:
                raise ValueError(
                    f"the replacement is not valid: unknown escape `\\{sign}`; write `\\\\` for a backslash, "
                    "`\\1` or `\\g<name>` for a group"
                )
            else:
                literal += found[0].encode("utf-8", "surrogatepass")
        parts.append(literal + replacement[end:].encode("utf-8", "surrogatepass"))
        return parts


def _expand(template: list[bytes | int], match: Any, room: int) -> Iterator[bytes]:
    for part in template:
        new = part if isinstance(part, bytes) else match[part] or b""
        room -= len(new)
        if room < 0:
            # Enough for the caller to refuse it: nothing larger is made.
            yield new
            return
        yield new


def _iterate(compiled: Any, data: bytes) -> Iterator[Any]:
    """Yield the matches of a text, in bounded time."""
    last = (-1, -1)
    until = thread_time() + _MAX_SECONDS
    # The clock of the thread is slow to read: it can't be over before the clock on the wall is.
    look = perf_counter() + _MAX_SECONDS
    for match in compiled.finditer(data):
        span = match.span()
        start, stop = span
        # An empty match is found again where the search goes on, and inside a character of several bytes.
        if start != stop or (span != last and (start == len(data) or data[start] & 0b11000000 != 0b10000000)):
            yield match
        last = span
        if perf_counter() > look:
            left = until - thread_time()
            if left > 0:
                look = perf_counter() + left
                continue
            raise ValueError(
                f"replacing the matches in this text takes more than {_MAX_SECONDS:g} seconds: pass a shorter text or "
                "a `count`, or write a pattern that need not look through the rest of the text at each match"
            )


@lru_cache(maxsize=128)
def compile_pattern(source: str, flags: str = "") -> Pattern:
    """Return a compiled pattern.

    Args:
        source: The pattern.
        flags: Letters: i (any case), m (`^` and `$` at each line), s (a dot is any character).

    Raises:
        ValueError: It is not a pattern, or one that can't be matched in linear time; says what to write instead.
    """
    if len(source) > MAX_PATTERN:
        raise ValueError(f"the pattern is longer than {MAX_PATTERN:,} characters")
    unknown = sorted(set(flags) - set("ims"))
    if unknown:
        raise ValueError(f"unknown flag `{unknown[0]}`; there are i, m and s")
    try:
        encoded = (f"(?{flags})" if flags else "").encode() + source.encode()
    except UnicodeEncodeError:
        raise ValueError("the pattern is not valid: it holds half a surrogate pair") from None
    for part in _PARTS.finditer(source):
        if part.lastindex is not None:
            raise ValueError(f"{_FOREIGN[part.lastindex - 1][1]} (at character {part.start() + 1})")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        groups = re2.compile(encoded, options)
        options.never_capture = True
        return Pattern(source, re2.compile(encoded, options), groups)
    except re2.error as error:
        reason = error.args[0]
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"the pattern is not valid: {reason}") from None


def check_pattern(source: str, longest: int | None) -> None:
    """Check the pattern of an input.

    Args:
        source: The pattern.
        longest: The most characters a client may send (`maxLength`).

    Raises:
        ValueError: It is not a pattern, or one too large for texts of this length.
    """
    compiled = compile_pattern(source)
    if longest is not None and longest > compiled.longest:
        raise ValueError(
            f"the pattern is too large to search {longest:,} characters: declare a `maxLength` of at most "
            f"{compiled.longest:,}, or write smaller repeats"
        )
