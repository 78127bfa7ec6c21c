"""What a misspelt word may have meant."""

from __future__ import annotations

import random

import pytest

from streamstack.language import names as module
from streamstack.language.names import did_you_mean, nearest

WORDS = ("stream", "forEach", "streams.split", "http.stream", "maxBodySize", "set", "if", "llm.chat")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("steam", "stream"),
        ("straem", "stream"),
        ("foreach", "forEach"),
        ("for_each", "forEach"),
        ("ForEach", "forEach"),
        ("max-body-size", "maxBodySize"),
        ("maxBodySiz", "maxBodySize"),
        ("max_body", "maxBodySize"),
        ("stream.split", "streams.split"),
        ("split", "streams.split"),
        ("chat", "llm.chat"),
        ("fi", "if"),
        ("ste", "set"),
        ("iff", "if"),
    ],
)
def test_the_nearest_word_is_found(word: str, meant: str) -> None:
    """Slips, swaps, case, separators, beginnings and last parts lead to the word that was meant."""
    assert nearest(word, WORDS) == meant


@pytest.mark.parametrize("word", ["", "x", "banana", "database", "a" * 200, "_", "ab"])
def test_a_far_word_suggests_nothing(word: str) -> None:
    """A suggestion that is not near would mislead."""
    assert nearest(word, WORDS) is None
    assert did_you_mean(word, WORDS) == ""


def test_the_suggestion_reads_on_from_a_sentence() -> None:
    """It begins with a comma."""
    assert did_you_mean("steam", WORDS) == ", did you mean `stream`?"


def test_equal_distances_take_the_first_in_the_alphabet() -> None:
    """The answer does not depend on the order of the candidates."""
    assert nearest("cat", ["hat", "bat"]) == nearest("cat", ["bat", "hat"]) == "bat"


def test_nothing_to_choose_from_suggests_nothing() -> None:
    """No candidates, no suggestion; the word itself is none either."""
    assert nearest("a", []) is None
    assert nearest("stream", ["stream"]) is None


def test_most_candidates_are_not_compared_letter_by_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand misspelt names among a thousand others took half a minute: the letters tell most words apart."""
    pick = random.Random(7)  # noqa: S311
    names = ["".join(pick.choices("abcdefghijklmnopqrstuvwxyz", k=12)) for _ in range(300)]
    rows = 0

    def counted(*values: int) -> int:
        nonlocal rows
        rows += 1
        return builtin(*values)

    builtin = min
    monkeypatch.setattr(module, "min", counted, raising=False)
    for name in names:
        assert nearest(name[1] + name[0] + name[2:-1], names) == name
    # Each cell of a comparison asks for a minimum: 90,000 comparisons would be 13 million.
    assert rows < 1_300_000


def test_distance_is_bounded() -> None:
    """Up to three slips are counted; more are many."""
    pick = random.Random(1)  # noqa: S311
    for _ in range(3_000):
        word, other = ("".join(pick.choices("abc", k=pick.randrange(1, 8))) for _ in range(2))
        exact = _slow_distance(word, other)
        found = module._distance(word, other)  # noqa: SLF001
        assert found == exact or (found > 3 and exact > 3), (word, other)


def _slow_distance(word: str, other: str) -> int:
    table = [[max(i, j) if not min(i, j) else 0 for j in range(len(other) + 1)] for i in range(len(word) + 1)]
    for i in range(1, len(word) + 1):
        for j in range(1, len(other) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (word[i - 1] != other[j - 1])
            )
            if i > 1 and j > 1 and word[i - 1] == other[j - 2] and word[i - 2] == other[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]
