from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamstack.runtime.decoders.json import JsonDecoder
from tests.runtime.decoders.cutting import decode, items_of, outcome

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.sampled_from('ab"\\{}[],: \n\u2028é\U0001f600'), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.sampled_from('ab"\\'), max_size=2), inner, max_size=4)
    ),
    max_leaves=8,
)
WRITTEN = st.sampled_from(
    [{"separators": (",", ":")}, {}, {"indent": 2}, {"ensure_ascii": False, "separators": (" ,\r\n", "\t: ")}]
)
RECORDS = [{"id": number, "in": [{"id": 0}, {"id": 1}], "t": "},{"} for number in range(6)]


@settings(max_examples=150, deadline=None)
@given(st.lists(VALUES, max_size=6), WRITTEN)
@example(RECORDS, {"separators": (",", ":")})
@example(RECORDS, {"indent": 2})
@example(["a", "b", '","', "\\", "c,d", "]"], {"separators": (",", ":")})
@example([1, 2, 30, 4.5, -6e7], {})
@example([[1], [2, [3]], [], [[4]]], {"separators": (",", ":")})
def test_array_comes_record_by_record(values: list[Any], form: dict[str, Any]) -> None:
    """Every item of an array comes out as it is, however it is written and cut."""
    assert items_of(JsonDecoder, json.dumps(values, **form).encode()) == values


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    st.lists(VALUES, max_size=4),
    st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    WRITTEN,
)
def test_path_leads_into_a_document(
    before: dict[str, Any], values: list[Any], after: dict[str, Any], form: dict[str, Any]
) -> None:
    """The array at a path comes record by record; what stands around it is skipped."""
    for each in (before, after):
        each.pop("data", None)
    document = before | {"data": [[], {"x": before, "rows": values, "y": after}]} | after
    text = json.dumps(document, **form).encode()
    assert items_of(lambda: JsonDecoder(path=("data", "1", "rows")), text) == values


@pytest.mark.parametrize(
    ("text", "path", "items"),
    [
        (b'{"a": 1}', (), [{"a": 1}]),
        (b" 12 ", (), [12]),
        (b"12", (), [12]),
        (b'"x"', (), ["x"]),
        (b"null", (), []),
        (b"[null]", (), [None]),
        (b"[]", (), []),
        (b"\xef\xbb\xbf[1]", (), [1]),
        (b'{"a": {"b": {"c": 1}}}', ("a", "b"), [{"c": 1}]),
        (b'{"a": null}', ("a",), []),
        (b'{"a": "t"}', ("a",), ["t"]),
        (b'{"b": [9], "a": [1, 2], "a": [3]}', ("a",), [1, 2]),
        (b'{"\\u0061": [1]}', ("a",), [1]),
        (b'{"0": [1]}', ("0",), [1]),
        (b"[123456789012345678901234567890, 1e400, 1e9999]", (), [123456789012345678901234567890, Decimal("1e400")]),
    ],
)
def test_document_that_is_no_plain_array(text: bytes, path: tuple[str, ...], items: list[Any]) -> None:
    """A value that is not an array is the one item, null is none; numbers are read as everywhere else."""
    found, _, _, failure = decode(lambda: JsonDecoder("skip", path=path), text)
    assert (found, failure) == (items, None)


@pytest.mark.parametrize(
    ("text", "path", "items", "told"),
    [
        (b"", (), [], "ends before its JSON does"),
        (b"[1,", (), [1], "ends before its JSON does"),
        (b"[1,,2]", (), [1], "a value is missing"),
        (b"[1, 2,,3]", (), [1, 2], "a value is missing"),
        (b"[1, 2, 3,,4]", (), [1, 2, 3], "a value is missing"),
        (b'[{"a":1},{"a":2},,{"a":3}]', (), [{"a": 1}, {"a": 2}], "a value is missing"),
        (b'[1, {"a": "', (), [1], "ends before its JSON does"),
        (b"[1] x", (), [1], "goes on after the end"),
        (b"[1][2]", (), [1], "goes on after the end"),
        (b"[1,]", (), [1], "a comma before the end"),
        (b"[,1]", (), [], "a value is missing"),
        (b"[1 2]", (), [1], "a comma is missing"),
        (b'["a""b"]', (), ["a"], "a comma is missing"),
        (b'<html lang="en">', (), [], "goes on after the end"),
        (b'{"a": {}}', ("b",), [], "has nothing at the path b"),
        (b'{"a": [1]}', ("a", "b"), [], "has nothing at the path a.b"),
        (b'{"a": {"b": 1}, "c"}', ("c",), [], "a colon is missing"),
        (b'{"a": 1, 2}', ("c",), [], "a name is missing"),
        (b'{"a": [1, 2], "b', ("a",), [1, 2], "ends before its JSON does"),
    ],
)
def test_broken_document_fails_however_it_is_asked(
    text: bytes, path: tuple[str, ...], items: list[Any], told: str
) -> None:
    """What comes before the break is given; skipping can't help, for nothing after it can be told apart."""
    found, _, _, failure = decode(lambda: JsonDecoder("skip", path=path), text)
    assert found == items
    assert told in failure[1]


def test_invalid_records_are_skipped_given_or_fail() -> None:
    """A record that is not JSON between sound ones is one invalid chunk."""
    text = b'[{"a":1},{"a":tru},{"a":3},{"a":"\\x"},{"a":5}]'
    items, skipped, _, _ = decode(lambda: JsonDecoder("skip"), text)
    assert (items, skipped) == ([{"a": 1}, {"a": 3}, {"a": 5}], 2)
    items, _, _, _ = decode(lambda: JsonDecoder("give"), text)
    assert [item.get("a") or item["invalid"]["number"] for item in items] == [1, 2, 3, 4, 5]
    items, _, _, failure = decode(JsonDecoder, text)
    assert items == [{"a": 1}]
    assert failure[2]["text"] == '{"a":tru}'


def test_record_over_the_largest_is_refused() -> None:
    """It is not kept while it comes, and the records after it are read."""
    text = json.dumps([{"a": "x"}, {"a": "x" * 50}, [{"b": {}}] * 20, {"a": "y"}]).encode()
    items, skipped, _, _ = decode(lambda: JsonDecoder("skip", 20), text)
    assert (items, skipped) == ([{"a": "x"}, {"a": "y"}], 2)
    _, _, _, failure = decode(lambda: JsonDecoder("fail", 20), text)
    assert "is a record of more than 20 bytes" in failure[1]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([*b'[]{},:"\\', *(ord(c) for c in "1a ")]), max_size=14).map(bytes),
    st.sampled_from([(), ("a",), ("1",)]),
)
def test_any_input_comes_out_the_same_however_it_is_cut(text: bytes, path: tuple[str, ...]) -> None:
    """Sound or broken, an input has one outcome; and where it is JSON, that is what the library says."""
    items, _, _, failure = decode(lambda: JsonDecoder(path=path), text)
    try:
        value = json.loads(text)
    except ValueError:
        return
    if not path:
        assert failure is None
        assert items == (value if isinstance(value, list) else [value] * (value is not None))


def test_runs_of_records_are_read_in_any_sizes() -> None:
    """Long arrays, read by runs, are the same as read one by one."""
    records = [{"id": n, "tags": [{"id": n}] * (n % 3), "text": "},{" * (n % 5)} for n in range(3000)]
    data = json.dumps(records, separators=(",", ":")).encode()
    for size in (17, 100, 4096, 65536, len(data)):
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        items, _, _, failure = outcome(JsonDecoder, parts)
        assert failure is None
        assert items == records
