"""What a misspelt word may have meant."""

from __future__ import annotations

import pytest

from streamstack.language.suggest import did_you_mean, nearest

WORDS = (
    "stream",
    "forEach",
    "streams.split",
    "http.stream",
    "maxBodySize",
    "set",
    "if",
    "llm.chat",
)


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
