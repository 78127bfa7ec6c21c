"""Charsets other than UTF-8, as their bytes come."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstack.runtime.decoders import Options, decoder_for
from streamstack.runtime.decoders.decoder import transcoder
from tests.runtime.decoders.cutting import items_of, outcome


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        ("utf-16", "hé".encode("utf-16"), "hé"),
        ("utf-16", "\ufeffhé".encode("utf-16-be"), "hé"),
        ("utf-16", b"\x00\xd8a\x00", "\ufffda"),
        ("utf-32", b"a\0\0\0", "a"),
        ("latin-1", b"\xe9", "é"),
        ("auto", "ab€é".encode(), "ab€é"),
        ("auto", b"ab \x80 \xe9", "ab € é"),
        ("auto", b"\xe9", "é"),
        ("auto", "é".encode() + b"\xe9", "é\ufffd"),
        ("Auto", b"plain", "plain"),
    ],
)
def test_a_charset_is_read_wherever_it_is_cut(charset: str, data: bytes, text: str) -> None:
    """Without a byte order mark UTF-16 is little-endian; nothing an upstream sends is an error of ours."""
    for cut in range(len(data) + 1):
        transcode = transcoder(charset)
        taken = transcode(data[:cut], False) + transcode(data[cut:], False) + transcode(b"", True)
        assert taken.decode("utf-8", "replace") == text


@pytest.mark.parametrize("charset", [None, "auto", "windows-1252", "utf-8", "utf-16-be"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_a_byte_order_mark_counts_for_more(charset: str | None, encoding: str) -> None:
    """UTF-16 and UTF-8 with a mark are read as such, whatever was said."""
    data = "\ufeffname\r\nZoë €\r\n".encode(encoding)
    options = Options(charset=charset)
    assert items_of(lambda: decoder_for("csv", options), data) == [{"name": "Zoë €"}]
    assert items_of(lambda: decoder_for("lines", options), data) == ["name", "Zoë €"]


ENCODINGS = {"utf-8": "aé€😀", "utf-8-sig": "aé€😀", "windows-1252": "aé€", "iso-8859-2": "ač", "utf-16": "aé€😀"}
TABLES = st.lists(
    st.lists(st.text(st.sampled_from('PQRST ,;"\n\t'), max_size=6), min_size=2, max_size=2), min_size=1, max_size=6
)


def written(rows: list[list[str]], delimiter: str, line_end: str) -> str:
    """Return rows as a spreadsheet writes them."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_MINIMAL).writerows(rows)
    return buffer.getvalue()


@settings(max_examples=400, deadline=None)
@given(TABLES, st.sampled_from([*ENCODINGS]), st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"]), st.data())
def test_a_table_of_any_program_is_read(
    rows: list[list[str]], encoding: str, delimiter: str, line_end: str, data: st.DataObject
) -> None:
    """Whatever the encoding, delimiter, line end and `sep=` line are, each value is what was written."""
    rows = [[data.draw(st.sampled_from([ENCODINGS[encoding], ""])) + each for each in row] for row in rows]
    named = data.draw(st.booleans()) and delimiter != "\t"
    text = (f"sep={delimiter}{line_end}" if named else "") + written(rows, delimiter, line_end)
    charsets: dict[str, list[str | None]] = {
        "iso-8859-2": [encoding],
        "windows-1252": ["auto", encoding],
        "utf-8": ["auto", None],
    }
    charset = data.draw(st.sampled_from(charsets.get(encoding, [None, "auto", "windows-1252"])))
    options = Options(header=False, charset=charset, delimiter="," if named else delimiter)
    encoded, size = text.encode(encoding), data.draw(st.integers(1, 40))
    items, skipped, _, failure = outcome(
        lambda: decoder_for("csv", options), [encoded[at : at + size] for at in range(0, len(encoded), size)]
    )
    assert (items, skipped, failure) == (rows, 0, None)


@settings(max_examples=600, deadline=None)
@given(
    TABLES, st.lists(st.tuples(st.integers(0, 60), st.sampled_from([b'"', b"\xff", b"\x81", b"\r", b'""', b","]))),
    st.sampled_from([None, "auto", "windows-1252", "utf-8"]),
)  # fmt: skip
def test_a_damaged_table_loses_nothing(
    rows: list[list[str]], damages: list[tuple[int, bytes]], charset: str | None
) -> None:
    """Every letter of a file is in a record, or in an invalid one that has a number, a line and a message."""
    text = written(rows, ",", "\n").encode()
    for at, damage in damages:
        text = text[:at] + damage + text[at:]
    items, skipped, _, failure = outcome(
        lambda: decoder_for("csv", Options("give", charset=charset)), [b"number,name\n", text]
    )
    assert (skipped, failure) == (0, None)
    told = [item["invalid"] for item in items if "invalid" in item]
    assert all(each["number"] >= 1 and each["line"] >= 2 and each["message"] for each in told)
    shown = "".join([*(each["text"] for each in told), *(v for i in items if "invalid" not in i for v in i.values())])
    for letter in "PQRST":
        assert shown.count(letter) == text.count(letter.encode()), items
