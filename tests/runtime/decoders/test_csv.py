from __future__ import annotations

import csv
import io
from time import thread_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstack.runtime.decoders.csv import CsvDecoder
from tests.runtime.decoders.cutting import decode, items_of


def bare() -> CsvDecoder:
    """Return a decoder of records without a header."""
    return CsvDecoder(header=False)


def test_records_are_objects_by_the_header() -> None:
    """The first record names the columns; every value is a text; empty lines are skipped."""
    text = b'\xef\xbb\xbfid,name\r\n1,a\r\n\r\n2,"b,\r\n""c"""\r\n\n3,'
    assert items_of(CsvDecoder, text) == [
        {"id": "1", "name": "a"},
        {"id": "2", "name": 'b,\r\n"c"'},
        {"id": "3", "name": ""},
    ]


@pytest.mark.parametrize(
    ("options", "items"),
    [
        ({"header": False}, [["a", "b", "c"], ["1", "2", "3"]]),
        (
            {"header": False, "columns": ("x", "y", "z")},
            [{"x": "a", "y": "b", "z": "c"}, {"x": "1", "y": "2", "z": "3"}],
        ),
        ({"columns": ("c", "a")}, [{"c": "3", "a": "1"}]),
        ({"delimiter": ";"}, [{"a,b,c": "1,2,3"}]),
    ],
)
def test_columns_are_named_or_chosen(options: dict[str, Any], items: list[Any]) -> None:
    """Without a header `columns` are the names, with one they choose."""
    assert items_of(lambda: CsvDecoder(**options), b"a,b,c\n1,2,3\n") == items


def test_delimiter_may_be_any_character() -> None:
    """Tabs, and characters that are several bytes."""
    assert items_of(lambda: CsvDecoder(header=False, delimiter="\t"), b'a\t"b\tc"\n') == [["a", "b\tc"]]
    text = 'a→"b→c"→d"e\n'.encode()
    assert items_of(lambda: CsvDecoder(header=False, delimiter="→"), text) == [["a", "b→c", 'd"e']]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a,b\n1\n", "has 1 field, and there are 2 columns"),
        (b"a,b\n1,2,3\n", "has 3 fields, and there are 2 columns"),
        (b'a,b\n1,"2\n3\n', "a quoted field has no end"),
        (b"a,b\n1,\xff\n", "is not UTF-8"),
        (b"a,b\n1,\r2\n", "is not CSV"),
        (b"a,a\n1,2\n", "names the column a twice"),
        (b'a,b\n"1"x,2\n', "is not CSV"),
        (b'a,b\n1,"2" \n', "is not CSV"),
        (b"\xff,b\n1,2\n", "is not UTF-8, and it is the header"),
        (b'"a"x,b\n1,2\n', ", and it is the header"),
    ],
)
def test_faults_are_told(text: bytes, told: str) -> None:
    """A record that does not fit the columns, or is not CSV, is an invalid chunk."""
    items, _, _, failure = decode(CsvDecoder, text)
    assert items == []
    assert failure[0] == "invalid-chunk"
    assert told in failure[1]


@pytest.mark.parametrize("text", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_input_has_no_records(text: bytes) -> None:
    """Neither a file without a byte nor one of empty lines is a fault."""
    assert items_of(CsvDecoder, text) == items_of(bare, text) == []


@pytest.mark.parametrize("on_invalid", ["skip", "give"])
@pytest.mark.parametrize("header", [b"\xff,b", b'"a"x,b', b'"a,b', b"a," + b"b" * 50])
def test_no_other_record_stands_in_for_the_header(on_invalid: Any, header: bytes) -> None:
    """Where the header can't be read, nothing is, though records may be skipped."""
    items, _, _, failure = decode(lambda: CsvDecoder(on_invalid, 40), header + b"\n1,2\n3,4\n")
    assert items == []
    assert failure is not None


def test_nothing_is_altered_in_silence() -> None:
    """Text behind a closing quote is reported with its line; a quote within a field is a character of it."""
    text = b'a,b\n1,"2"\n"3"x,4\n5" pipe,6\n'
    items, skipped, _, _ = decode(lambda: CsvDecoder("skip"), text)
    assert (items, skipped) == ([{"a": "1", "b": "2"}, {"a": '5" pipe', "b": "6"}], 1)
    items, _, _, _ = decode(lambda: CsvDecoder("give"), text)
    assert (items[1]["invalid"]["number"], items[1]["invalid"]["line"]) == (2, 3)


def test_lines_may_end_in_cr() -> None:
    """All of them: what old spreadsheets write. In quotes a CR of other files stays."""
    assert items_of(CsvDecoder, b'a,b\r1,2\r"3\r",4\r') == [{"a": "1", "b": "2"}, {"a": "3\n", "b": "4"}]
    assert items_of(CsvDecoder, b"a\r1\r\r2") == [{"a": "1"}, {"a": "2"}]
    assert items_of(CsvDecoder, b"a\r") == []
    assert items_of(CsvDecoder, b'"a",b\n"1\r2",3\n') == [{"a": "1\r2", "b": "3"}]


@pytest.mark.parametrize("line", [b"sep=;\n", b'"sep=;"\r\n', b"sep=;\r"])
def test_excel_names_the_delimiter(line: bytes) -> None:
    """A first line `sep=;` is not a header."""
    end = line[-1:]
    assert items_of(CsvDecoder, line + b"a;b" + end + b"1;2" + end) == [{"a": "1", "b": "2"}]
    assert items_of(bare, line + b"1;2" + end) == [["1", "2"]]
    items, _, _, failure = decode(CsvDecoder, line + b"a;b" + end + b"1" + end)
    assert items == []
    assert failure[2]["line"] == 3


def test_stray_quotes_cost_linear_time() -> None:
    """Quotes that mislead the count of them are looked at once more, not again and again."""

    def seconds(lines: int) -> float:
        text = b'a"","b\n' * lines + b'c"d,"e"x\n' * lines
        started = thread_time()
        decoder = CsvDecoder("skip", header=False)
        for at in range(0, len(text), 1000):
            decoder.feed(text[at : at + 1000])
        decoder.finish()
        return thread_time() - started

    seconds(10)
    assert min(seconds(20_000) for _ in range(2)) < 40 * min(seconds(2_000) for _ in range(2))


def test_column_that_is_missing_fails_at_once() -> None:
    """A column that was asked for and is not there is no matter of single records."""
    _, _, _, failure = decode(lambda: CsvDecoder("skip", columns=("a", "x")), b"a,b\n1,2\n")
    assert "has no column x in its header" in failure[1]


def test_invalid_records_are_skipped_or_given() -> None:
    """The records around them are read."""
    text = b"a,b\n1,2\n3\n5,6\n\xff,8\n9,10\n"
    items, skipped, _, _ = decode(lambda: CsvDecoder("skip"), text)
    assert ([item["a"] for item in items], skipped) == (["1", "5", "9"], 2)
    items, _, _, _ = decode(lambda: CsvDecoder("give"), text)
    assert items[1]["invalid"] == {
        "number": 2,
        "line": 3,
        "text": "3",
        "message": "has 1 field, and there are 2 columns",
    }


def test_record_over_the_largest_is_refused() -> None:
    """One long line, or a quoted field that goes on and on: refused, and read on with the next line."""
    long = b"1," + b"x" * 40
    endless = b'1,"x\n' + b"y\n" * 12
    for text in (long + b"\n", endless):
        items, skipped, _, _ = decode(lambda: CsvDecoder("skip", 20, header=False), b"a,b\n" + text + b"c,d\n")
        assert items[0] == ["a", "b"]
        assert items[-1] == ["c", "d"]
        assert skipped == 1


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('ab,;" \n\r\té'), max_size=30), st.sampled_from([",", ";", "\t", "é"]))
def test_any_text_is_read_as_the_library_reads_it(text: str, delimiter: str) -> None:
    """Records are those of the standard library over the whole text, however it is cut."""
    # A CR that ends no line is an error to us, and to the library only sometimes.
    text = text.replace("\r", "\r\n").replace("\r\n\n", "\r\n")
    if text.count('"') and _open_at_end(text, delimiter):
        return
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    found = items_of(lambda: CsvDecoder(header=False, delimiter=delimiter), text.encode())
    assert found == [row for row in rows if row]


def _open_at_end(text: str, delimiter: str) -> bool:
    try:
        list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error) or "expected after" in str(error)
    return False


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), min_size=1, max_size=5))
def test_what_is_written_is_read(rows: list[list[str]]) -> None:
    """Whatever the library writes comes out as it was."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows(rows)
    assert items_of(bare, buffer.getvalue().encode("utf-8", "replace")) == [
        [value.encode("utf-8", "replace").decode() for value in row] for row in rows
    ]
