from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from time import process_time
from typing import Any
from unicodedata import category

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamstack.errors import RunError
from streamstack.runtime.splitters import LONGEST, TEXT_UNITS, graphemes, split_content, splitter

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
WAVE = "\U0001f44b\U0001f3fd"
GERMANY, FRANCE = "\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"
SCOTLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"

# What texts are made of where splitting is hard, beside any text at all.
FRAGMENTS = st.sampled_from(
    [
        *("\r", "\n", "\r\n", " ", "  ", "\t", "\n\n", "\u00a0", "\u3000", "\u2028", "\x85"),
        *("\u0301", "\ufe0f", "\u200d", "\u200c", "\u20e3", "\u093f", "\U000e0067", "\U0001d165"),
        *(FAMILY, WAVE, GERMANY, FRANCE, SCOTLAND, "\U0001f1e6", "\U0001f3fd", "\u2764\ufe0f"),
        *("a", "Word", "e", "I", "1", "12", "Dr", "e.g.", ".", "!", "?", "…", "...", '"', "'", ")"),
        *("你", "好", "。", "「", "」", "か", "っ", "ー", "\u1112", "\u1161", "\u11ab", "한", "ไ", "ำ"),
    ]
)
TEXTS = st.one_of(st.text(), st.lists(FRAGMENTS, max_size=40).map("".join))
SIZES = st.integers(min_value=1, max_value=7)


def is_torn(before: str, after: str) -> bool:
    """Whether a cut between two texts tears what a reader sees as one character."""
    last, first = before[-1], after[0]
    if last == "\r" and first == "\n":
        return True
    if category(last) in ("Cc", "Zl", "Zp"):
        return False
    if category(first).startswith("M") or first in "\u200c\u200d\uff9e":
        return True
    if "\U0001f3fb" <= first <= "\U0001f3ff" or "\U000e0020" <= first <= "\U000e007f":
        return True
    if "\u1100" <= last <= "\u11ff" and "\u1160" <= first <= "\u11ff":
        return True
    if last == "\u200d" and len(before) > 1:
        return before[-2] >= "\U0001f300" and first >= "\U0001f300"
    flags = len(before) - len(before.rstrip("".join(map(chr, range(0x1F1E6, 0x1F200)))))
    return flags % 2 == 1 and "\U0001f1e6" <= first <= "\U0001f1ff"


@pytest.mark.parametrize("by", TEXT_UNITS)
@settings(deadline=None)
@given(text=TEXTS, size=SIZES)
def test_pieces_joined_are_the_content(by: str, text: str, size: int) -> None:
    """No unit loses, adds or changes a character, and no piece is empty."""
    pieces = split_content(text, by, size)
    assert "".join(pieces) == text
    assert all(pieces)


@pytest.mark.parametrize("by", TEXT_UNITS)
@settings(deadline=None)
@given(text=TEXTS, size=SIZES)
def test_no_piece_tears_a_character(by: str, text: str, size: int) -> None:
    """Marks, selectors, joiners, flags and CR LF stay with what they belong to."""
    pieces = split_content(text, by, size)
    at = 0
    for piece in pieces[:-1]:
        at += len(piece)
        assert not is_torn(text[:at], text[at:]), (text[:at], text[at:])


@pytest.mark.parametrize("by", TEXT_UNITS)
@settings(deadline=None)
@given(text=TEXTS, size=SIZES, data=st.data())
@example(text="a  b", size=1, data=None)
@example(text="Ok. \n\n 1. X. e.g. y?) he", size=1, data=None)
def test_the_way_a_text_arrives_changes_no_piece(by: str, text: str, size: int, data: Any) -> None:
    """However a text is parted, and however finely, its pieces are those of the whole."""
    whole = split_content(text, by, size)
    places = data.draw(st.lists(st.integers(0, len(text)))) if data else []
    bounds = [0, *sorted(places), len(text)]
    for parts in ([text[a:b] for a, b in pairwise(bounds)], list(text)):
        splitting = splitter(by, size)
        pieces = [piece for part in parts for piece in splitting.feed(part)]
        assert pieces + splitting.end() == whole


@settings(deadline=None)
@given(text=TEXTS, size=SIZES)
def test_each_piece_but_the_last_has_its_number_of_units(text: str, size: int) -> None:
    """A larger size gathers the units of size one."""
    for by in TEXT_UNITS:
        ones = split_content(text, by, 1)
        gathered = ["".join(ones[at : at + size]) for at in range(0, len(ones), size)]
        assert split_content(text, by, size) == gathered


@settings(deadline=None)
@given(st.lists(st.integers()), SIZES)
def test_records_cut_a_list_into_lists(records: list[int], size: int) -> None:
    """All are full but the last."""
    pieces = split_content(records, "records", size)
    assert [record for piece in pieces for record in piece] == records
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(pieces)


@pytest.mark.parametrize(
    ("by", "size", "text", "pieces"),
    [
        ("characters", 2, "Hello", ["He", "ll", "o"]),
        ("characters", 1, "a\r\nb", ["a", "\r\n", "b"]),
        ("characters", 1, "e\u0301" + FAMILY + WAVE, ["e\u0301", FAMILY, WAVE]),
        ("characters", 1, GERMANY + FRANCE + SCOTLAND, [GERMANY, FRANCE, SCOTLAND]),
        ("characters", 1, "\u1112\u1161\u11ab글", ["\u1112\u1161\u11ab", "글"]),
        ("characters", 1, "क्षत्रिय", ["क्ष", "त्रि", "य"]),
        ("characters", 1, "\u0600\u0661a", ["\u0600\u0661", "a"]),
        ("words", 1, "नमस्ते दुनिया।", ["नमस्ते", " दुनिया।"]),
        ("words", 1, "Hello world", ["Hello", " world"]),
        ("words", 2, "one two three four five", ["one two", " three four", " five"]),
        ("words", 1, "  two\n\nwords \n", ["  two", "\n\nwords \n"]),
        ("words", 1, "10\u00a0000 €", ["10\u00a0000", " €"]),
        ("words", 1, "don't, (yet) 3.14", ["don't,", " (yet)", " 3.14"]),
        ("words", 1, "你好，世界。", ["你", "好，", "世", "界。"]),
        ("words", 1, "使用Python「3」です", ["使", "用", "Python", "「3」", "で", "す"]),
        ("words", 1, "한국어 문장", ["한국어", " 문장"]),
        ("words", 1, " \n", [" \n"]),
        ("sentences", 1, "One. Two!  Three?", ["One.", " Two!", "  Three?"]),
        ("sentences", 2, "One. Two! Three? ", ["One. Two!", " Three? "]),
        ("sentences", 1, "Pi is 3.14. E.g. this, i.e. that.", ["Pi is 3.14.", " E.g. this, i.e. that."]),
        ("sentences", 1, "Dr. Doe and J. R. Roe. So am I. Yes", ["Dr. Doe and J. R. Roe.", " So am I.", " Yes"]),
        ("sentences", 1, "Well... yes. No... But", ["Well... yes.", " No...", " But"]),
        ("sentences", 1, '"Why?" he asked. "So!" Done.', ['"Why?" he asked.', ' "So!"', " Done."]),
        ("sentences", 1, "really? yes! ok", ["really?", " yes!", " ok"]),
        ("sentences", 1, "1. First\n2. Second. Third", ["1. First\n2. Second.", " Third"]),
        ("sentences", 1, "# Title\n\nText over\ntwo lines.", ["# Title", "\n\nText over\ntwo lines."]),
        ("sentences", 1, "你好。「是！」再见", ["你好。", "「是！」", "再见"]),
        ("lines", 1, "a\nb\r\nc\rd", ["a\n", "b\r\n", "c\r", "d"]),
        ("lines", 2, "a\n\nb\n", ["a\n\n", "b\n"]),
        ("lines", 1, "a\x0bb\u2028c", ["a\x0bb\u2028c"]),
    ],
)
def test_units_are_what_a_reader_expects(by: str, size: int, text: str, pieces: list[str]) -> None:
    """Each unit, in the cases that are easily got wrong."""
    assert split_content(text, by, size) == pieces


@pytest.mark.parametrize(
    ("by", "parts", "given_at_once"),
    [
        ("characters", ["ab", "c"], [["a"], ["b"]]),
        ("characters", ["a\n", "b"], [["a", "\n"], []]),
        ("words", ["Hel", "lo", " ", "wor"], [[], [], [], ["Hello"]]),
        ("words", ["你", "好", "，世"], [[], ["你"], ["好，"]]),
        ("sentences", ["Yes.", " ", "N", "o."], [[], [], ["Yes."], []]),
        ("sentences", ["好", "。", "是"], [[], [], ["好。"]]),
        ("lines", ["a\nb", "\r", "\nc\n"], [["a\n"], [], ["b\r\n", "c\n"]]),
    ],
)
def test_a_piece_leaves_when_nothing_can_change_it(by: str, parts: list[str], given_at_once: list[list[str]]) -> None:
    """A word leaves when the next begins, a line when it ends, a character when the next comes."""
    splitting = splitter(by, 1)
    assert [splitting.feed(part) for part in parts] == given_at_once


@pytest.mark.parametrize("by", TEXT_UNITS)
def test_a_cutter_can_be_used_again_after_its_end(by: str) -> None:
    """The end leaves nothing behind."""
    splitting = splitter(by, 2)
    for _ in range(2):
        assert splitting.feed("One. Two\r") + splitting.end() == split_content("One. Two\r", by, 2)
    assert splitting.end() == []


def test_marks_without_end_are_cut() -> None:
    """What waits for the next input is bounded, also against a hostile text."""
    assert {len(cluster) for cluster in graphemes("a" + "\u0301" * 10 * LONGEST)} <= {LONGEST, 1}
    splitting = splitter("characters", 1)
    assert len(splitting.feed("a" + "\u0301" * 10 * LONGEST)) > 5


@pytest.mark.parametrize("by", TEXT_UNITS)
@pytest.mark.parametrize("unit", ["a", " ", "\u0301", ".", "好", '"'])
def test_a_text_that_comes_in_crumbs_costs_linear_time(by: str, unit: str) -> None:
    """32 times the crumbs cost some 32 times the time, not 1000, be it one long unit or many."""

    def spent(count: int) -> float:
        splitting = splitter(by, 3)
        began = process_time()
        for _ in range(count):
            splitting.feed(unit)
        splitting.end()
        return process_time() - began

    small = max(spent(2000) for _ in range(2))
    assert spent(64_000) < 250 * small


@pytest.mark.parametrize("by", TEXT_UNITS)
def test_any_size_is_taken(by: str) -> None:
    """A size that no text has is one piece."""
    for size in (1 << 31, 1 << 32, 10**30):
        assert split_content("One. Two\nThree e\u0301", by, size) == ["One. Two\nThree e\u0301"]


def test_other_values_are_cut_as_their_text() -> None:
    """Numbers, booleans and timestamps have a text; null, lists and objects have none."""
    assert split_content(12345, "characters", 2) == ["12", "34", "5"]
    assert split_content(True, "words", 1) == ["true"]
    assert split_content(datetime(2026, 1, 2, tzinfo=UTC), "characters", 10)[0] == "2026-01-02"


@pytest.mark.parametrize(
    ("content", "by", "size", "says"),
    [
        ("text", "records", 1, "write characters, words, sentences or lines"),
        (None, "words", 1, "the content is null"),
        ([1], "words", 1, "`by: records`"),
        ({"a": 1}, "lines", 1, "the content is an object"),
        (b"x", "lines", 1, "the content is bytes"),
        ("text", "letters", 1, "can't be split by letters"),
        ("text", ["words"], 1, "can't be split by"),
        ("text", "words", 0, "an integer from 1, not 0"),
        ("text", "words", True, "an integer from 1, not true"),
        ([1], "records", 1.5, "an integer from 1, not 1.5"),
    ],
)
def test_what_cannot_be_cut_says_what_to_write(content: Any, by: str, size: Any, says: str) -> None:
    """The error is the author's, with the words that are allowed."""
    with pytest.raises(RunError) as caught:
        split_content(content, by, size)
    assert caught.value.code == "template"
    assert says in caught.value.message
