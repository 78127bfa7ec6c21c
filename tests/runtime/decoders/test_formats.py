from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamstack.errors import RunError
from streamstack.runtime.decoders import FORMATS, Options, decoded, decoder_for, format_of, read_content_type
from streamstack.runtime.decoders.decoder import Decoder
from tests.runtime.decoders.cutting import decode, items_of


def maker(name: str, **options: Any) -> Callable[[], Decoder]:
    """Return what makes decoders of a format."""
    return lambda: decoder_for(name, Options(**options))


# ------------------------------------------------------------------------------------- NDJSON


def test_ndjson_is_a_value_a_line() -> None:
    """Lines end in LF or CR LF, empty ones are skipped, the last may have no end."""
    text = b'\xef\xbb\xbf{"a":1}\r\n\n  \r\n[2]\n"\xc3\xa9\xe2\x80\xa8"\n12345678901234567890123\nnull'
    assert items_of(maker("ndjson"), text) == [{"a": 1}, [2], "é\u2028", 12345678901234567890123, None]


def test_invalid_lines_are_skipped_given_or_fail() -> None:
    """What is before an invalid line is always given."""
    text = b'{"a":1}\n{"a":\n{"a":3}\n<p>\xff\n{"a":5}\n{"a'
    items, skipped, _, _ = decode(maker("ndjson", on_invalid="skip"), text)
    assert ([item["a"] for item in items], skipped) == ([1, 3, 5], 3)
    items, _, _, _ = decode(maker("ndjson", on_invalid="give"), text)
    assert [item.get("a") or item["invalid"]["number"] for item in items] == [1, 2, 3, 4, 5, 6]
    assert items[3]["invalid"]["text"] == "<p>\ufffd"
    items, _, _, failure = decode(maker("ndjson"), text)
    assert items == [{"a": 1}]
    assert failure[2]["number"] == 2


# ------------------------------------------------------------------------- lines, text, bytes


def test_lines_end_as_anywhere() -> None:
    """CR, LF and CR LF end a line, nothing else does; empty lines are lines."""
    text = "\ufeffa\r\nb\n\nc\rd\u2028e\x85f\x0b\n\r\ng".encode()
    assert items_of(maker("lines"), text) == ["a", "b", "", "c", "d\u2028e\x85f\x0b", "", "g"]


def test_line_that_is_not_utf_8_is_invalid() -> None:
    """The lines around it are given."""
    items, skipped, _, _ = decode(maker("lines", on_invalid="skip"), b"a\n\xff\nb\n\xc3\n")
    assert (items, skipped) == (["a", "b"], 2)


@given(st.text())
def test_text_tears_no_character(text: str) -> None:
    """Parts of a text are texts, whichever bytes they were cut at."""
    data = text.encode("utf-8", "replace")
    items, *_ = decode(maker("text"), data, pieces=True)
    assert "".join(items) == data.decode("utf-8-sig")


def test_text_that_is_cut_off_ends_in_a_replacement() -> None:
    """Half a character at the end is U+FFFD, and so is what is not UTF-8."""
    items, *_ = decode(maker("text"), b"a\xffb\xc3", pieces=True)
    assert "".join(items) == "a\ufffdb\ufffd"


def test_bytes_are_left_alone() -> None:
    """Even a byte order mark."""
    items, *_ = decode(maker("bytes"), b"\xef\xbb\xbf\xff\0", pieces=True)
    assert b"".join(items) == b"\xef\xbb\xbf\xff\0"


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1252", "utf-16", "UTF-8"])
def test_other_charsets_are_read(charset: str) -> None:
    """Lines and CSV come in the charset that the Content-Type names."""
    text = "a,é\r\nb,ü\n".encode(charset)
    assert items_of(maker("lines", charset=charset), text) == ["a,é", "b,ü"]
    assert items_of(maker("csv", header=False, charset=charset), text) == [["a", "é"], ["b", "ü"]]


@pytest.mark.parametrize("charset", ["klingon", "base64", "hex", "\0"])
def test_unknown_charset_is_refused(charset: str) -> None:
    """It is the upstream's fault, told as such."""
    with pytest.raises(RunError, match="charset") as caught:
        decoder_for("text", Options(charset=charset))
    assert caught.value.code == "invalid-chunk"


# --------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("text/event-stream;charset=UTF-8", "sse"),
        ("Application/X-NDJSON", "ndjson"),
        ("application/jsonl", "ndjson"),
        ("application/json; charset=utf-8", "json"),
        ("application/problem+json", "json"),
        ("text/csv", "csv"),
        ("text/plain", "text"),
        ("image/svg+xml", "text"),
        ("application/octet-stream", "bytes"),
        ("", "bytes"),
        (None, "bytes"),
        (";;;", "bytes"),
    ],
)
def test_content_type_tells_the_format(header: str | None, name: str) -> None:
    """`auto` follows the Content-Type; what it does not know is bytes."""
    assert format_of(read_content_type(header)[0]) == name


def test_charset_is_read_from_the_content_type() -> None:
    """With or without quotes."""
    assert read_content_type('text/csv; header=present; charset="ISO-8859-1"')[1] == "iso-8859-1"
    assert read_content_type("text/csv")[1] is None


async def _source(*parts: bytes, read: list[bytes] | None = None) -> AsyncGenerator[bytes, None]:
    for part in parts:
        if read is not None:
            read.append(part)
        yield part


async def test_items_come_as_their_bytes_do() -> None:
    """The items of each part are given before the next part is asked for; the fault comes after them."""
    source = _source(b"1\n2", b"3\n", b"\n4\nx\n", b"5\n")
    batches = decoded(source, decoder_for("ndjson"))
    assert [await anext(batches) for _ in range(3)] == [[1], [23], [4]]
    with pytest.raises(RunError) as caught:
        await anext(batches)
    assert caught.value.code == "invalid-chunk"


async def test_end_marker_ends_the_reading() -> None:
    """After `[DONE]` nothing is read any more, and the source is closed."""
    read: list[bytes] = []
    source = _source(b"data: 1\n\ndata: [DONE]\n\n", b"data: 2\n\n", read=read)
    decoder = decoder_for("sseJson")
    assert [item["data"] async for batch in decoded(source, decoder) for item in batch] == [1]
    assert len(read) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(source)


MEGABYTES = 10
LONG: dict[str, bytes] = {
    "sse": b"data: " + b"x" * (MEGABYTES << 20),
    "sseJson": b"data: " + b"x" * (MEGABYTES << 20),
    "ndjson": b'"' + b"x" * (MEGABYTES << 20),
    "json": b'[{"a": "' + b"\\n" * (MEGABYTES << 19),
    "csv": b'a\n"' + b"x" * (MEGABYTES << 20),
    "lines": b"x" * (MEGABYTES << 20),
    "text": b"x" * (MEGABYTES << 20),
    "bytes": b"x" * (MEGABYTES << 20),
}


@pytest.mark.parametrize("name", FORMATS)
def test_event_of_ten_megabytes_takes_linear_time(name: str) -> None:
    """One event of 10 MB in small reads is taken in, and refused at the size that is set, in linear time."""
    data = LONG[name]

    def seconds(upto: int, largest: int) -> float:
        decoder = decoder_for(name, Options(largest=largest))
        started = process_time()
        for at in range(0, upto, 1000):
            decoder.feed(data[at : at + 1000])
        return process_time() - started

    # The best of three each: others use this machine too.
    whole = min(seconds(len(data), 2 * len(data)) for _ in range(3))
    tenth = max(min(seconds(len(data) // 10, 2 * len(data)) for _ in range(3)), 0.005)
    assert whole < 40 * tenth
    assert whole < 5
    decoder = decoder_for(name, Options(largest=1 << 20))
    for at in range(0, len(data), 65536):
        decoder.feed(data[at : at + 65536])
    if name not in ("text", "bytes"):
        assert decoder.failure is not None
        assert f"more than {1 << 20} bytes" in decoder.failure.message


def test_many_small_records_take_linear_time() -> None:
    """Ten times the records take about ten times as long, whatever their nesting."""
    record = json.dumps({"id": 1, "in": [{"id": [{"id": 1}]}] * 3}, separators=(",", ":")).encode()
    data = b"[" + b",".join([record] * 40_000) + b"]"

    def seconds(upto: int) -> float:
        decoder = decoder_for("json")
        started = process_time()
        for at in range(0, upto, 16384):
            decoder.feed(data[at : at + 16384])
        assert decoder.failure is None
        return process_time() - started

    # The best of three each: others use this machine too.
    whole = min(seconds(len(data)) for _ in range(3))
    tenth = min(seconds(len(data) // 10) for _ in range(3))
    assert whole < 40 * max(tenth, 0.005)
