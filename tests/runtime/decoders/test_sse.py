from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamstack.runtime.decoders.sse import SseDecoder
from tests.runtime.decoders.cutting import decode, items_of, outcome

BOM = "\ufeff"


def event(data: Any, name: str | None = None, last: str | None = None) -> dict[str, Any]:
    """Return an event as the decoder gives it."""
    return {"event": name, "id": last, "data": data}


def datas(text: str | bytes) -> list[Any]:
    """Return the data of the events in a text, however it is cut."""
    data = text.encode() if isinstance(text, str) else text
    return [item["data"] for item in items_of(SseDecoder, data)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The examples of the specification.
        ("data: YHOO\ndata: +2\ndata: 10\n\n", ["YHOO\n+2\n10"]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
            ["first event", "second event"],
        ),
        ("data\n\ndata\ndata\n\ndata:", ["", "\n"]),
        ("data:test\n\ndata: test\n\n", ["test", "test"]),
        # The tests of web-platform-tests, eventsource/format-*.
        (BOM + "data:a\n\n" + BOM + "data:b\n\ndata:c\n\n", ["a", "c"]),
        (BOM + BOM + "data:a\n\ndata:b\n\ndata:c\n\n", ["b", "c"]),
        (f"data:a\r:\0\n:\r\ndata:b\n:{'x' * 200}\rdata:c\n:data:fail\r:{'x' * 200}\ndata:d\n\n", ["a\nb\nc\nd"]),
        ("data:\n\ndata\ndata\n\ndata:end\n\n", ["", "\n", "end"]),
        (
            (
                "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\n"
                "data:3\rdata:\r\n data:32\ndata:4\n\n"
            ),
            ["\0\n 2\n1\n3\n\n4"],
        ),
        ("data:\ttest\rdata: \ndata:test\n\n", ["\ttest\n\ntest"]),
        ("data:test\r\ndata\ndata:test\r\n\r", ["test\n\ntest"]),
        ("data:a\0b\n\n\n\n", ["a\0b"]),
        ("data:ok…\n\n", ["ok…"]),
        (b"data:\xff\xe2\x82z\xf0\x9f\x98\n\n", ["\ufffd\ufffdz\ufffd"]),
        # Ends of lines that are none to Unicode, and those that are to SSE.
        ("data:a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n", ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"]),
        ("data:a\r\rdata:b\r\n\r\ndata:c\n\r\n", ["a", "b", "c"]),
        ("data:a\r\n\n\ndata:b\n\r", ["a", "b"]),
        # Field names are case-sensitive, and nothing is trimmed but one space.
        ("DATA:a\n data:b\ndata :c\n\n", []),
        ("event:x\n\ndata:a\n\n", ["a"]),
        ("data:a", []),
        ("data:a\n", []),
        ("", []),
        ("\n\n\r\r\n", []),
    ],
)
def test_events_are_those_of_the_specification(text: str | bytes, expected: list[Any]) -> None:
    """The specification's own examples and those of the browsers' test suite come out as they say."""
    assert datas(text) == expected


def test_id_persists_and_an_empty_one_resets_it() -> None:
    """The id of an event is the last one that was set; one with NUL is ignored, an empty one is none."""
    text = "id: 1\ndata:a\n\ndata:b\n\nid:x\0y\ndata:c\n\nid\ndata:d\n\nid: 2 \ndata:e\n\n"
    assert [item["id"] for item in items_of(SseDecoder, text.encode())] == ["1", "1", "1", None, "2 "]


def test_id_without_data_counts_for_a_reconnection() -> None:
    """The id is taken at the blank line, with data or without; that of an unfinished event is not."""
    decoder = SseDecoder()
    assert decoder.feed(b"id: 7\n\nid: 8\ndata: x\n") == []
    assert decoder.last_id == "7"
    decoder.feed(b"\n")
    assert decoder.last_id == "8"


def test_event_name_is_for_one_event() -> None:
    """The name is that of the one event; empty or absent it is null."""
    text = b"event: a\nevent: b\ndata: x\n\ndata: y\n\nevent:\ndata: z\n\nevent: c\n\ndata: u\n\n"
    assert [item["event"] for item in items_of(SseDecoder, text)] == ["b", None, None, None]


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [("1500", 1500), ("0", 0), ("1s", None), ("-1", None), ("", None), ("١", None), ("1 ", None)],
)
def test_retry_is_ascii_digits(value: str, milliseconds: int | None) -> None:
    """The time to reconnect is taken from ASCII digits only."""
    decoder = SseDecoder()
    decoder.feed(f"retry: {value}\n".encode())
    assert decoder.retry == milliseconds


def test_retry_of_many_digits_is_no_trap() -> None:
    """A number of thousands of digits is a long wait, not an error."""
    decoder = SseDecoder()
    decoder.feed(b"retry: " + b"9" * 5000 + b"\ndata: a\n\n")
    assert decoder.retry is not None
    assert decoder.retry > 10**12


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("[1]", [1]),
        ("  [1] ", [1]),
        ('{"a": 1.10, "b": 12345678901234567890123}', {"a": 1.1, "b": 12345678901234567890123}),
        ("[0.123456789012345678]", [Decimal("0.123456789012345678")]),
        ('["\\ud83d"]', ["\ufffd"]),
        ("5", "5"),
        ("1.10", "1.10"),
        ("true", "true"),
        ("null", "null"),
        ('"a"', '"a"'),
        (" 5", " 5"),
        ("5 ", "5 "),
        ("true ", "true "),
        ("[DONE]", "[DONE]"),
        ("{", "{"),
        ("Hello", "Hello"),
        ("NaN", "NaN"),
        ("", ""),
    ],
)
def test_data_is_a_value_where_it_is_an_object_or_array(text: str, value: Any) -> None:
    """Anything else stays the text that was sent: a relay must not turn 1.10 into 1.1, nor `null` into nothing."""
    (item,) = items_of(SseDecoder, f"data: {text}\n\n".encode())
    assert item["data"] == value
    assert type(item["data"]) is type(value)


def json_decoder() -> SseDecoder:
    """Return a decoder for `sseJson`."""
    return SseDecoder(data="json")


def test_done_ends_a_stream_of_json() -> None:
    """Nothing after `[DONE]` counts, not even what is not JSON."""
    text = b'data: {"a":1}\n\ndata: [DONE]\n\ndata: {"a":2}\n\ndata: x\n\n'
    items, skipped, ended, failure = decode(json_decoder, text)
    assert (items, skipped, ended, failure) == ([event({"a": 1})], 0, True, None)


def test_data_that_is_not_json_is_invalid() -> None:
    """Under sseJson it fails, with the events before it given and the text told in the details only."""
    items, _, _, failure = decode(json_decoder, b"data: 1\n\ndata: secret\n\ndata: 3\n\n")
    assert items == [event(1)]
    code, message, details = failure
    assert code == "invalid-chunk"
    assert "chunk 2 of the stream is not JSON" in message
    assert "secret" not in message
    assert (details["number"], details["text"]) == (2, "secret")


def test_invalid_events_are_skipped_or_given() -> None:
    """They are counted, or stand among the items."""
    text = b"data: 1\n\nevent: e\ndata: x\n\ndata: y\n\ndata: 4\n\n"
    items, skipped, _, _ = decode(lambda: SseDecoder("skip", data="json"), text)
    assert (items, skipped) == ([event(1), event(4)], 2)
    items, skipped, _, _ = decode(lambda: SseDecoder("give", data="json"), text)
    assert skipped == 0
    assert [item.get("data", item.get("invalid", {}).get("number")) for item in items] == [1, 2, 3, 4]
    assert items[1]["invalid"]["text"] == "x"


@pytest.mark.parametrize(
    "text",
    [
        b"data: 123456789012\n\n",  # one line over the largest
        b"data: 12345\ndata: 67890\ndata: z\n\n",  # several that are together
        b"data: 12345\ndata: 67890\ndata\ndata\n: c\nid: 2\n\n",
        b"data\n" * 20 + b"\n",  # without anything in them
        b":" + b"c" * 30 + b"\ndata: 1\n\n",  # a comment
    ],
)
def test_event_over_the_largest_is_refused_once(text: bytes) -> None:
    """It is one invalid chunk, the next event is read again, and the way the input was cut changes nothing."""
    around = b"data: a\n\n" + text + b"data: b\n\n"
    items, skipped, _, failure = decode(lambda: SseDecoder("skip", 10), around)
    assert [item["data"] for item in items] == ["a", "b"]
    assert (skipped, failure) == (1, None)
    items, _, _, failure = decode(lambda: SseDecoder("fail", 10), around)
    assert [item["data"] for item in items] == ["a"]
    assert "is an event of more than 10 bytes" in failure[1]


def test_endless_line_fails_before_its_end() -> None:
    """A line without an end is refused as soon as it is over the largest, not kept."""
    decoder = SseDecoder("fail", 1000)
    for _ in range(100):
        decoder.feed(b"x" * 100)
        if decoder.failure is not None:
            break
    assert decoder.failure is not None
    assert decoder.failure.code == "invalid-chunk"


def test_data_may_be_left_as_text() -> None:
    """A reader that only shows events takes the data as it came."""
    text = b'data: {"a":1}\n\ndata: 5\n\ndata: \xff\n\n'
    items, *_ = decode(lambda: SseDecoder(data="text"), text)
    assert [item["data"] for item in items] == ['{"a":1}', "5", "\ufffd"]


def test_reconnection_goes_on_with_the_last_id() -> None:
    """The id that the first connection ended with holds until the second one sets another."""
    decoder = SseDecoder(last_id="7")
    assert [item["id"] for item in decoder.feed(b"data: a\n\nid: 8\ndata: b\n\n")] == ["7", "8"]


# ------------------------------------------------------------------------- against the grammar


def read_by_the_letter(data: bytes) -> list[dict[str, Any]]:
    """Read a whole stream as the specification's steps say, without a thought for anything else."""
    text = data.decode("utf-8", "replace").removeprefix(BOM)
    lines = re.split("\r\n|\r|\n", text)[:-1]
    events, buffer, name, last = [], "", "", ""
    for line in lines:
        if line == "":
            if buffer != "":
                events.append(event(read_data(buffer.removesuffix("\n")), name or None, last or None))
            buffer, name = "", ""
        elif line.startswith(":"):
            continue
        else:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                buffer += value + "\n"
            elif field == "id" and "\0" not in value:
                last = value
    return events


def read_data(text: str) -> Any:
    """Return data that is a JSON object or array as its value, else as text."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, (dict, list)) else text


PARTS = st.sampled_from(
    [
        *(b"data", b"data:", b"data: ", b"id:", b"id: 1", b"event: e", b"retry: 5", b":", b": c"),
        *(b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"x", b"5", b"{}", b"[1", b"]", b'"a"', b"true"),
        *("\ufeff".encode(), "é".encode(), "\u2028".encode(), b"\xe2\x82", b"\xff", b"\0", b"\t"),
    ]
)


@pytest.mark.parametrize(
    "text",
    [
        'data: {"a": 1}\n\nerror: {"message": "overloaded"}\n\n',
        '{"error": {"message": "overloaded"}}',
        '{\n  "error": {"message": "overloaded"}\n}\n',
    ],
)
def test_error_in_place_of_events_is_a_failure(text: str) -> None:
    """Servers that fail may say so as a field `error:`, or as plain JSON: no new connection mends that."""
    decoder = SseDecoder()
    decoder.feed(text.encode())
    decoder.finish()
    assert decoder.failure is not None
    assert (decoder.failure.code, decoder.failure.final) == ("http-status", True)
    assert "overloaded" in str(decoder.failure.details["body"])


def test_no_data_is_read_over() -> None:
    """An event with an empty `data:` holds no JSON, and is not a fault."""
    items, *_ = outcome(json_decoder, [b'data:\n\ndata: {"a": 1}\n\ndata: \n\ndata: [DONE]\n\n'])
    assert [item["data"] for item in items] == [{"a": 1}]


@settings(max_examples=400, deadline=None)
@given(st.lists(PARTS, max_size=25).map(b"".join))
def test_any_input_is_read_by_the_letter(data: bytes) -> None:
    """What a plain reading of the specification gives, the decoder gives, however the input is cut."""
    assert items_of(SseDecoder, data) == read_by_the_letter(data)


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, max_size=25).map(b"".join), st.sampled_from(["skip", "give", "fail"]), st.integers(1, 12))
def test_faults_do_not_depend_on_cuts(data: bytes, on_invalid: Any, largest: int) -> None:
    """Too large and unparsable events come out the same, however the input is cut."""
    decode(lambda: SseDecoder(on_invalid, largest, data="json"), data)


@given(st.lists(st.recursive(st.none() | st.booleans() | st.text(), st.lists, max_leaves=5)))
def test_json_goes_through(values: list[Any]) -> None:
    """Any JSON that is sent as data comes out as it was."""
    text = "".join(f"data: {json.dumps(value)}\n\n" for value in values).encode()
    items, *_ = outcome(json_decoder, [text])
    assert [item["data"] for item in items] == values
