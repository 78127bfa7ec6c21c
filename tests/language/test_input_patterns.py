"""Patterns of inputs: the same matches as Python's matcher, in bounded time."""

from __future__ import annotations

import random
import re
from time import perf_counter

import pytest

from streamstack.language.inputs.patterns import compile_pattern

#: Long enough that none of them is left to Python's matcher where it could take long.
LONG = 100_000

PATTERNS = [
    r"^[a-z0-9]+(-[a-z0-9]+)*$",
    r"^(a+)+$",
    r"(a|a)*b",
    r"^(\w+\s?)*$",
    r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
    r"(?i)^(ab[C-E]{2,3}x?)+$",
    r"^(a*)*$",
    r"([^\d\s]{2})+",
    r"^x*$|y",
    r"(^a|b$)+",
    r"^(a|b$)*$",
    r"(a?){0,3}(b|c)*(?:[ab]{2,}|\$)",
    r"(?s:(.)+)a(.)+$",
    r"(\.|-)*[.-]*c$",
    r"(x*y*|z)*A",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_automaton_agrees_with_python(pattern: str) -> None:
    """What the automaton matches, Python's own matcher does, and nothing else."""
    matches = compile_pattern(pattern, LONG)
    assert "Automaton" in matches.__qualname__
    python = re.compile(pattern.replace("$", r"\Z").replace(r"\\Z", r"\$"))
    pick = random.Random(pattern)  # noqa: S311
    for _ in range(1500):
        text = "".join(pick.choice("abcxyzABC-@. \n1$é") for _ in range(pick.randrange(9)))
        assert bool(matches(text)) == bool(python.search(text)), text


@pytest.mark.parametrize("pattern", PATTERNS)
def test_time_is_bounded(pattern: str) -> None:
    """No text of a hundred thousand characters takes long."""
    matches = compile_pattern(pattern, LONG)
    for text in ("a" * LONG, "ab" * (LONG // 2), "a-" * (LONG // 2), "x" * (LONG - 1) + "!"):
        began = perf_counter()
        matches(text)
        assert perf_counter() - began < 2


def test_plain_patterns_are_left_to_python() -> None:
    """A pattern that can't cost much is run by the faster matcher."""
    matches = compile_pattern(r"^[a-z]+$", 1000)
    assert "Pattern" in matches.__qualname__


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"^[a-z]+$", "abc\n", False),
        (r"^a\$$", "a$", True),
        (r"^[$]$", "$", True),
        (r"^[]$]$", "$", True),
        (r"b", "abc", True),
        (r"(?m)^b$", "a\nb\nc", True),
        (r"^(?=a)\w{1,3}$", "abc", True),
        (r"", "", True),
        (r"^$", "", True),
        (r"^(a+)*$", "", True),
    ],
)
def test_patterns_match_as_in_json_schema(pattern: str, text: str, expected: bool) -> None:  # noqa: FBT001
    """A pattern matches anywhere unless anchored; `$` is the very end."""
    assert bool(compile_pattern(pattern)(text)) is expected


@pytest.mark.parametrize(
    "pattern", [r"^((a+)+)\2$", r"(?=(a+)+)b", r"^(\b\w+\b ?)+$", "(a{1,99}){1,99}"]
)
def test_what_can_not_be_bounded_is_refused(pattern: str) -> None:
    """A pattern that could take for ever, and that no automaton can follow, is refused."""
    with pytest.raises(ValueError, match="declare a smaller `maxLength`, or write it without"):
        compile_pattern(pattern)


def test_pattern_that_does_not_parse_is_refused() -> None:
    """What is no pattern is told so."""
    with pytest.raises(ValueError, match="does not parse"):
        compile_pattern("(a")


@pytest.mark.parametrize("pattern", ["[+--]", "[[a]", "[a&&b]"])
def test_a_set_that_python_wonders_about_is_compiled(pattern: str) -> None:
    """Python warns of sets whose meaning may change one day; no author's pattern ends as an error for it."""
    assert compile_pattern(pattern, 10)("+Aa[")
