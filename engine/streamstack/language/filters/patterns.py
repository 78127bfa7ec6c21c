"""Regular expressions that an author wrote, run over text that a client sent.

Python's `re` goes back and tries again. A repeat over a part of variable length can take twice as
long with each further character; repeats one behind the other, a power of the length. The first
are refused. For the others, the length of the text is bounded by how many there are.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

from streamstack.errors import RunError

#: Characters of a pattern.
MAX_PATTERN: Final = 1_000
#: Characters of the text, by how many repeats can share them: each about 0.2 seconds at worst.
MAX_SUBJECT: Final = (1_000_000, 1_000_000, 20_000, 1_000, 200)
_MANY: Final = 20
_REPEATS: Final = frozenset({codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT})
_SINGLE: Final = frozenset({codes.LITERAL, codes.NOT_LITERAL, codes.IN, codes.ANY})
#: Stand for all characters where two parts are compared: ASCII, and one of each other sort.
_SAMPLE: Final = frozenset(range(128)) | {0xE9, 0xC9, 0x4E2D, 0x2003, 0x663, 0x1F600}
_EXPLOSIVE: Final = (
    "the pattern repeats a part of variable length, as in `(a+)+` or `(a|ab)*`, which can take for "
    "ever; write one repeat, as in `a+`, or begin the part with a character of its own, as in "
    "`(,\\d+)*`"
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern, and the longest text it may search."""

    compiled: re.Pattern[str]
    longest: int


@lru_cache(maxsize=512)
def compile_pattern(pattern: str, flags: str = "") -> Pattern:
    """Return a compiled pattern. Flags are letters: i (any case), m (lines), s (dot matches all).

    Raises ValueError, in the author's words, for what is no pattern or can take for ever.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"the pattern is longer than {MAX_PATTERN:,} characters")
    unknown = sorted(set(flags) - set("ims"))
    if unknown:
        raise ValueError(f"there is no flag `{unknown[0]}`; there are i, m and s")
    bits = 0
    for letter in set(flags):
        bits |= re.RegexFlag[letter.upper()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(pattern, bits).data
            compiled = re.compile(pattern, bits)
    except re.error as error:
        at = "" if error.pos is None else f" at character {error.pos + 1}"
        raise ValueError(f"the pattern is not valid: {error.msg}{at}") from None
    except (RecursionError, OverflowError, MemoryError):
        raise ValueError("the pattern is too large") from None
    signs = _Signs(_SAMPLE | {ord(sign) for sign in pattern})
    _refuse_explosive(tree, signs)
    anchored = bool(tree) and tree[0] in (
        (codes.AT, codes.AT_BEGINNING),
        (codes.AT, codes.AT_BEGINNING_STRING),
    )
    shared = _longest_chain(_flat(tree), signs) + (not anchored or "m" in flags)
    longest = MAX_SUBJECT[min(shared, len(MAX_SUBJECT) - 1)]
    # Python repeats a single character or class by a tight loop, and a group by a slow one.
    slow = shared > 1 and _repeats_group(tree)
    return Pattern(compiled, longest // 4 if slow else longest)


def checked(pattern: str, flags: str, subject: str, name: str) -> re.Pattern[str]:
    """Return a compiled pattern for a subject; raises RunError ``template``."""
    try:
        found = compile_pattern(pattern, flags)
    except ValueError as error:
        raise RunError("template", f"`{name}`: {error}") from None
    if len(subject) > found.longest:
        raise RunError(
            "template",
            f"`{name}`: the text is longer than the {found.longest:,} characters that this pattern "
            "may search",
        )
    return found.compiled


class _Signs:
    """Which characters of a sample a part of a pattern can match."""

    def __init__(self, sample: Iterable[int]) -> None:
        self.sample = frozenset(sample)

    def of(self, tree: Iterable[Any]) -> frozenset[int]:
        found: frozenset[int] = frozenset()
        for code, argument in tree:
            if code is codes.LITERAL:
                either = chr(argument)
                found |= {argument, *map(ord, either.lower()), *map(ord, either.upper())}
            elif code is codes.IN:
                found |= {sign for sign in self.sample if _in_class(argument, sign)}
            elif code in (codes.AT, codes.ASSERT, codes.ASSERT_NOT, codes.FAILURE):
                continue
            elif (inner := _inside(code, argument)) is not None:
                found = found.union(*(self.of(part) for part in inner))
            else:
                found |= self.sample
        return found


def _inside(code: Any, argument: Any) -> list[Any] | None:
    """Return the parts inside a part, or None for one that matches a character itself."""
    if code in _REPEATS:
        return [argument[2].data]
    if code is codes.BRANCH:
        return [branch.data for branch in argument[1]]
    if code is codes.SUBPATTERN:
        return [argument[3].data]
    if code is codes.ATOMIC_GROUP:
        return [argument.data]
    if code in (codes.ASSERT, codes.ASSERT_NOT):
        return [argument[1].data]
    return None


def _in_class(items: list[Any], character: int) -> bool:
    sign = chr(character)
    word = sign.isalnum() or sign == "_"
    categories = {
        codes.CATEGORY_DIGIT: sign.isdigit(),
        codes.CATEGORY_NOT_DIGIT: not sign.isdigit(),
        codes.CATEGORY_SPACE: sign.isspace(),
        codes.CATEGORY_NOT_SPACE: not sign.isspace(),
        codes.CATEGORY_WORD: word,
        codes.CATEGORY_NOT_WORD: not word,
    }
    found = False
    for code, argument in items:
        if code is codes.LITERAL:
            found = found or argument == character
        elif code is codes.RANGE:
            found = found or argument[0] <= character <= argument[1]
        elif code is codes.CATEGORY:
            found = found or categories.get(argument, True)
    return found != (bool(items) and items[0][0] is codes.NEGATE)


def _refuse_explosive(tree: list[Any], signs: _Signs) -> None:
    for code, argument in tree:
        inner = _inside(code, argument) or []
        if code in _REPEATS and _is_many(argument):
            part = _flat(inner[0])
            if _is_variable(part, signs) and (
                not _is_delimited(part, signs) or _is_ambiguous(part, signs)
            ):
                raise ValueError(_EXPLOSIVE)
        for one in inner:
            _refuse_explosive(one, signs)


def _is_many(repeat: Any) -> bool:
    return bool(repeat[1] == codes.MAXREPEAT or repeat[1] > _MANY)


def _repeats_group(tree: list[Any]) -> bool:
    return any(
        (code in _REPEATS and _is_many(argument) and argument[2].data[0][0] not in _SINGLE)
        or any(map(_repeats_group, _inside(code, argument) or []))
        for code, argument in tree
    )


def _flat(tree: list[Any]) -> list[Any]:
    """Return a tree without its groups."""
    found: list[Any] = []
    for code, argument in tree:
        if code is codes.SUBPATTERN:
            found += _flat(argument[3].data)
        else:
            found.append((code, argument))
    return found


def _is_variable(tree: list[Any], signs: _Signs) -> bool:
    """Tell whether a part can match texts of several lengths, or one text in several ways."""
    for code, argument in tree:
        inner = _inside(code, argument) or []
        if (code in _REPEATS and argument[0] != argument[1]) or code is codes.GROUPREF:
            return True
        if code is codes.BRANCH and _branches_overlap(inner, signs):
            return True
        if any(_is_variable(_flat(one), signs) for one in inner):
            return True
    return False


def _branches_overlap(branches: list[Any], signs: _Signs) -> bool:
    starts = [signs.of(_flat(branch)[:1]) for branch in branches]
    return not all(starts) or len(frozenset().union(*starts)) < sum(map(len, starts))


def _is_ambiguous(tree: list[Any], signs: _Signs) -> bool:
    """Tell whether a part may match one and the same text in several ways."""
    if _longest_chain(tree, signs, every=True) > 1:
        return True
    for code, argument in tree:
        inner = [_flat(one) for one in _inside(code, argument) or []]
        if code is codes.BRANCH and (
            _branches_overlap(inner, signs) or any(_is_ambiguous(one, signs) for one in inner)
        ):
            return True
        if code in _REPEATS and _is_variable(inner[0], signs):
            return True
    return False


def _is_delimited(tree: list[Any], signs: _Signs) -> bool:
    """Tell whether a part begins or ends with what nothing else in it can match."""
    if len(tree) < 2:
        return False
    for end, rest in ((tree[:1], tree[1:]), (tree[-1:], tree[:-1])):
        code, argument = end[0]
        # Of `(a+b)*` the a's are as good an end as one of them, since a b must follow.
        needed = code in (codes.LITERAL, codes.IN) or (
            code in _REPEATS
            and argument[0] >= 1
            and not _is_variable(argument[2].data, signs)
            and any(_is_needed(*node) for node in rest)
        )
        if needed and not signs.of(end) & signs.of(rest):
            return True
    return False


def _is_needed(code: Any, argument: Any) -> bool:
    return code in _SINGLE or (code in _REPEATS and argument[0] >= 1)


def _longest_chain(tree: list[Any], signs: _Signs, *, every: bool = False) -> int:
    """Count the long repeats (or every one) that can share characters, one behind the other."""
    longest, chain, shared = 0, 0, frozenset[int]()
    for code, argument in tree:
        own = signs.of([(code, argument)])
        if code in _REPEATS and (_is_many(argument) or (every and argument[0] != argument[1])):
            chain = chain + 1 if own & shared else 1
            shared = own if chain == 1 else shared | own
        elif code is codes.BRANCH:
            inner = max(
                _longest_chain(_flat(one), signs, every=every)
                for one in _inside(code, argument) or [[]]
            )
            chain = chain + inner if own & shared else inner
            shared = shared | own if chain > inner else own
        elif own and not own & shared and not (code in _REPEATS and argument[0] == 0):
            chain, shared = 0, frozenset()
        longest = max(longest, chain)
    return longest
