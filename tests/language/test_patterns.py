"""Patterns that authors write: RE2's syntax, matched in linear time, and what to write instead of what it lacks."""

from __future__ import annotations

import random
import re
from time import thread_time

import pytest

from streamstack.language import patterns
from streamstack.language.patterns import check_pattern, compile_pattern

ADDED = 10_000_000

#: Patterns that mean the same to Python's `re`; the first dozen keeps it busy for years.
SHARED = [
    r"^(\w+ ?){1,10}$",
    r"^(a+)+$",
    r"(a|a)*b",
    r"(a|ab|b)*c",
    r"^(\w+\s?)*$",
    r"(.*)*x",
    r"(a?a)*b",
    r"^(a*)*$",
    r"(?i)^(ab[C-E]{2,3}x?)+$",
    r"(a?){0,3}(b|c)*(?:[ab]{2,}|\$)",
    r"(?s:(.)+)a(.)+$",
    r"(x*y*|z)*A",
    r"^[a-z0-9]+(-[a-z0-9]+)*$",
    r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
    r"([^\d\s]{2})+",
    r"^x*$|y",
    r"(^a|b$)+",
    r"(\.|-)*[.-]*c$",
    r"(?m)^b$",
    "",
]


@pytest.mark.parametrize("pattern", SHARED)
def test_matches_are_those_of_python(pattern: str) -> None:
    """The same texts match, the same part of them is found and replaced, but for `$` before a last line break."""
    compiled = compile_pattern(pattern)
    source = pattern if "(?m)" in pattern else re.sub(r"(?<!\\)\$", r"\\Z", pattern)
    python = re.compile(source, re.ASCII)
    pick = random.Random(pattern)  # noqa: S311
    for _ in range(1000):
        text = "".join(pick.choice("abcxyzABC-@. \n1$é") for _ in range(pick.randrange(9)))
        found = python.search(text)
        assert compiled.matches(text) == (found is not None), text
        assert compiled.find(text) == (found and found[0]), text
        assert compiled.replace(text, "<>", 0, ADDED) == python.sub("<>", text), text
        assert compiled.replace(text, "<>", 2, ADDED) == python.sub("<>", text, count=2), text


@pytest.mark.parametrize("pattern", [*SHARED[:12], r"(a|b)*a(a|b){13}c", r"(?:a?){500}a{500}!"])
def test_time_grows_with_the_text(pattern: str) -> None:
    """A text ten times as long takes ten times as long, not more: those that Python's matcher takes years for too."""
    compiled = compile_pattern(pattern)

    def seconds(length: int) -> float:
        started = thread_time()
        for text in ("a" * length + "!", "ab" * (length // 2) + "!", "a b " * (length // 4) + "!"):
            compiled.matches(text)
        return thread_time() - started

    seconds(100)
    short = min(seconds(5_000) for _ in range(3))
    assert min(seconds(50_000) for _ in range(3)) < 60 * short + 0.05


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"^[a-z]+$", "abc\n", False),
        (r"^a\$$", "a$", True),
        (r"^[$]$", "$", True),
        (r"^[]$]$", "$", True),
        (r"b", "abc", True),
        (r"", "", True),
        (r"^$", "", True),
        (r"\d", "٣", False),
        (r"\p{Nd}", "٣", True),
        (r"\w", "é", False),
        (r"\pL", "é", True),
        (r"(?i)É", "é", True),
        (r"\s", "\u00a0", False),
        (r"a.c", "a\nc", False),
        (r"(?s)a.c", "a\nc", True),
        (r"^a.c$", "a😀c", True),
        (r"^a.c$", "a\ud83dc", True),
        (r"^a.c$", "a\0c", True),
        (r"\x{1f600}", "😀", True),
        (r"abc\z", "abc\n", False),
        (r"(?m)b$", "ab\ncd", True),
    ],
)
def test_syntax(pattern: str, text: str, expected: bool) -> None:  # noqa: FBT001
    """A pattern matches anywhere unless anchored; `$` is the very end; classes are ASCII; `.` is one character."""
    assert compile_pattern(pattern).matches(text) is expected


def test_flags() -> None:
    """Flags are letters."""
    assert compile_pattern("^A.b$", "is").matches("a\nB")
    assert compile_pattern("^b$", "m").matches("a\nb\nc")
    with pytest.raises(ValueError, match="unknown flag `x`; there are i, m and s"):
        compile_pattern("a", "x")


@pytest.mark.parametrize(
    ("pattern", "advice"),
    [
        (r"(?=a)b", "look-ahead and look-behind are not supported: match more and take a group"),
        (r"a(?!b)", "look-ahead"),
        (r"(?<=a)b", "look-behind"),
        (r"(?<!a)b", "look-behind"),
        (r"^((a+)+)\2$", r"back-references are not supported.*\(at character 9\)"),
        (r"(a)\10", "back-references"),
        (r"(?P<x>a)(?P=x)", "back-references"),
        (r"(?<x>a)\k<x>", "back-references"),
        (r"a++", r"possessive repeats are not supported"),
        (r"a{2}+", "possessive"),
        (r"(?>a+)b", "atomic groups"),
        (r"(a)?(?(1)b|c)", "conditional groups"),
        (r"(?x) a", "the flags x, a, L and u are not supported"),
        (r"(?ia)a", "the flags x, a, L and u are not supported"),
        (r"a(?#comment)", "comments"),
        (r"a\Z", r"write `\\z`"),
        (r"[\u00e9]", r"`\\x\{00e9\}`"),
        (r"a{,3}", r"write `\{0,3\}`"),
        (r"\C", r"`\\C` is a byte"),
        (r"a{1001}", "invalid repetition size"),
        (r"\pL{1000}", "too large"),
        (r"((a{100}){100}){100}", "invalid repetition size"),
        (r"(", r"the pattern is not valid: missing \)"),
        (r"[a", r"the pattern is not valid: missing \]"),
        (r"\h", r"invalid escape sequence: \\h"),
        ("\ud800", "half a surrogate pair"),
        ("a" * 1001, "longer than 1,000 characters"),
    ],
)
def test_what_is_not_supported_is_refused(pattern: str, advice: str) -> None:
    """What RE2 lacks, or takes for something else than its author, is refused with what to write instead."""
    with pytest.raises(ValueError, match=advice):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", [r"\++", r"[+]+", r"[*+{,3(?=]x", r"\Q(?=\E", r"\\Z", r"[^]\]]", "[[:alpha:]]", "a+?"]
)
def test_what_only_looks_like_it_is_taken(pattern: str) -> None:
    """Escaped signs, and signs in a class, are not syntax."""
    assert not compile_pattern(pattern).matches("")


def test_groups() -> None:
    """Groups are taken by number or name; one that took no part is null."""
    compiled = compile_pattern(r"(?P<year>\d+)-(?<month>\d+)(é)?")
    assert compiled.find("in 2026-01") == "2026-01"
    assert compiled.find("in 2026-01", 1) == compiled.find("in 2026-01", "year") == "2026"
    assert compiled.find("ä 2026-01é", "month") == "01"
    assert compiled.find("ä 2026-01é", 3) == "é"
    assert compiled.find("2026-01", 3) is None
    assert compiled.find("x", 3) is None
    for group in (4, -1, "day"):
        with pytest.raises(IndexError, match=f"the pattern has no group {group}"):
            compiled.find("x", group)


@pytest.mark.parametrize(
    ("pattern", "text", "replacement", "expected"),
    [
        (r"(\d+)-(?P<n>\d+)", "1-2 é 3-4", r"\g<n>.\1.\g<0>", "2.1.1-2 é 4.3.3-4"),
        (r"\s+", "a  b", r"\n\t\\", "a\n\t\\b"),
        (r"a|(b)", "ab", r"[\1]", "[][b]"),
        (r"\b", "hi you", "|", "|hi| |you|"),
        (r"$", "abc", "!", "abc!"),
        (r"", "aé😀", "-", "-a-é-😀-"),
        (r"x*", "abxd", "-", "-a-b--d-"),
        (r"é", "é\ud83dé", r"\.$1", r"\.$1" + "\ud83d" + r"\.$1"),
    ],
)
def test_replacing(pattern: str, text: str, replacement: str, expected: str) -> None:
    r"""Groups, escapes, empty matches: as Python's `re.sub` has them."""
    assert compile_pattern(pattern).replace(text, replacement, 0, ADDED) == expected


@pytest.mark.parametrize("replacement", [r"\2", r"\g<x>", r"\g<9>", r"\g<>", rf"\g<{'9' * 5000}>", r"\q", "a\\"])
def test_replacement_is_checked(replacement: str) -> None:
    """Invalid groups and escapes are reported."""
    with pytest.raises(ValueError, match="the replacement is not valid"):
        compile_pattern("(a)").replace("a", replacement, 0, ADDED)


def test_result_is_bounded() -> None:
    """A replacement that repeats what was matched is refused before the result is made."""
    compiled = compile_pattern("(a+)")
    assert len(compiled.replace("a" * 1000, r"\1" * 10, 0, 9_000)) == 10_000
    with pytest.raises(ValueError, match="more than 8,999 characters are added"):
        compiled.replace("a" * 1000, r"\1" * 10, 0, 8_999)
    with pytest.raises(ValueError, match="the result would be too long"):
        compiled.replace("a" * 1_000_000, r"\1" * 1_000_000, 0, ADDED)
    # What comes out shorter makes room for what comes out longer.
    assert compile_pattern("b*").replace("b" * 100 + "a", "c" * 50, 0, 50) == "c" * 50 * 2 + "a" + "c" * 50


def test_size_of_pattern_and_text_bound_each_other() -> None:
    """A large pattern may search short texts only; a declaration that allows longer ones is refused at load."""
    large = r"[a-zé]{999}\pL?"
    assert compile_pattern("a").longest > 10 * compile_pattern(large).longest
    with pytest.raises(ValueError, match=r"the text is longer than the .* characters that a pattern"):
        compile_pattern(large).matches("a" * 1_000_000)
    check_pattern(large, 1_000)
    with pytest.raises(ValueError, match="declare a `maxLength` of at most"):
        check_pattern(large, 1_000_000)


def test_matches_that_look_through_the_rest_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches are linear, all of them together need not be: they are given up."""
    monkeypatch.setattr(patterns, "_MAX_SECONDS", 0.1)
    with pytest.raises(ValueError, match=r"more than 0\.1 seconds"):
        compile_pattern("a.*b|a").replace("a" * 1_000_000, "x", 0, ADDED)


def test_groups_cost() -> None:
    """Where groups are looked for, a pattern with many may search less text: each step copies where they are."""
    compiled = compile_pattern("()" * 440 + "(.*)1.{9}x")
    text = "1" * (compiled.longest // 20)
    assert compiled.find(text) is None
    assert compiled.replace(text, "y", 0, ADDED) == text
    with pytest.raises(ValueError, match="the text is longer than"):
        compiled.find(text, 1)
    with pytest.raises(ValueError, match="the text is longer than"):
        compiled.replace(text, r"\1", 0, ADDED)
    few = compile_pattern("(a)(b)?c")
    assert few.find("x" * (few.longest // 2) + "ac", 1) == "a"
