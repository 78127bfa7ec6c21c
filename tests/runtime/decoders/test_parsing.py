"""JSON in all decoders: how deep it may nest, halves of surrogate pairs in two chunks."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from time import thread_time
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamstack.runtime.decoders.decoder import DEEPEST, Decoder, NotJsonError, SurrogateJoiner, is_deep, parse_json
from streamstack.runtime.decoders.json import JsonDecoder
from streamstack.runtime.decoders.lines import NdjsonDecoder
from streamstack.runtime.decoders.sse import SseDecoder
from tests.runtime.decoders.cutting import decode, items_of, outcome

Write = Callable[[list[bytes]], bytes]

FORMATS: list[tuple[Callable[..., Decoder], Write]] = [
    (NdjsonDecoder, lambda records: b"".join(record + b"\n" for record in records)),
    (JsonDecoder, lambda records: b"[" + b", ".join(records) + b"]"),
    (
        lambda *given: SseDecoder(*given, data="json"),
        lambda records: b"".join(b"data: " + record + b"\n\n" for record in records),
    ),
    (SseDecoder, lambda records: b"".join(b"data: " + record + b"\n\n" for record in records)),
]


def data_of(items: list[Any]) -> list[Any]:
    """Return what the records hold, without the event around it."""
    return [
        item["data"] if isinstance(item, dict) and item.keys() == {"event", "id", "data"} else item for item in items
    ]


@pytest.mark.parametrize(("make", "write"), FORMATS[:3])
@pytest.mark.parametrize("levels", [DEEPEST + 1, 500, 1_000, 1_024, 1_025, 5_000])
@pytest.mark.parametrize("pair", [b"[]", b"{}"])
def test_deep_records_are_invalid(make: Callable[..., Decoder], write: Write, levels: int, pair: bytes) -> None:
    """A record nested deeper than what can be written again is an invalid chunk; those around it are read."""
    opening = b"[" if pair == b"[]" else b'{"a":'
    deep = opening * (levels - 1) + pair + pair[1:] * (levels - 1)
    records = [b'{"n":1}', b'{"n":2}', deep, b'{"n":3}']
    items, _, _, failure = outcome(make, [write(records)])
    assert data_of(items) == [{"n": 1}, {"n": 2}]
    assert failure is not None
    assert failure[0] == "invalid-chunk"
    assert failure[1] == "chunk 3 of the stream " * ("line" not in failure[1]) + (f"is nested more than {DEEPEST} deep")
    items, skipped, _, failure = outcome(lambda: make("skip"), [write(records)])
    assert (data_of(items), skipped, failure) == ([{"n": 1}, {"n": 2}, {"n": 3}], 1, None)


@pytest.mark.parametrize(("make", "write"), FORMATS)
def test_the_deepest_records_are_taken(make: Callable[..., Decoder], write: Write) -> None:
    """What can be written again is read, alone and among others."""
    deep = b"[" * DEEPEST + b"]" * DEEPEST
    items = outcome(make, [write([deep, b"[1]", deep] + [b"[1]"] * 300)])[0]
    assert len(items) == 303
    assert orjson.dumps([[items[0]]])


def test_depth_is_found_whatever_the_texts_hold() -> None:
    """Brackets in texts neither hide depth nor make it."""
    flat = orjson.dumps(["[" * 1_000, "{" * 300, "]" * 10])
    assert not is_deep(flat, orjson.loads(flat))
    deep = b"[" * 251 + b'"]]]]"' + b"]" * 251
    assert is_deep(deep, orjson.loads(deep))
    wide = orjson.dumps([[[[i]]] for i in range(10_000)])
    assert not is_deep(wide, orjson.loads(wide))


def test_looking_for_depth_costs_little() -> None:
    """Less than the reading itself."""
    text = orjson.dumps([{"id": i, "tags": ["a"], "size": {"w": 1}, "name": f"x{i}"} for i in range(20_000)])

    def seconds(work: Callable[[], object]) -> float:
        started = thread_time()
        work()
        return thread_time() - started

    value = orjson.loads(text)
    looking = min(seconds(lambda: is_deep(text, value)) for _ in range(5))
    assert looking < min(seconds(lambda: orjson.loads(text)) for _ in range(5))


@pytest.mark.parametrize(("make", "write"), FORMATS)
def test_halves_are_joined_where_they_meet(make: Callable[..., Decoder], write: Write) -> None:
    """A character of which each of two records has a half is whole in the second, however the input is cut."""
    records = [rb'{"t":"a\ud83d","n":1}', rb'{"t":"\ude00b\ud83d","n":2}', rb'{"t":"\ude01"}']
    assert data_of(items_of(make, write([*records, b'{"t":"c"}']))) == [
        {"t": "a", "n": 1},
        {"t": "😀b", "n": 2},
        {"t": "😁"},
        {"t": "c"},
    ]


@pytest.mark.parametrize(("make", "write"), FORMATS)
def test_halves_alone_are_replaced(make: Callable[..., Decoder], write: Write) -> None:
    """A half that nothing completes is U+FFFD; nothing else is changed, and what waits comes at the end."""
    records = [rb'{"t":"\ud83d","u":["\ud83d"]}', rb'{"u":["\ude00"],"t":"x\ude00"}', rb'["\uD83D"]']
    assert data_of(items_of(make, write(records))) == [
        {"t": "\ufffd", "u": [""]},
        {"u": ["😀"], "t": "x\ufffd"},
        ["\ufffd"],
    ]


@pytest.mark.parametrize(("make", "write"), FORMATS[:3])
def test_other_escapes_stay_invalid(make: Callable[..., Decoder], write: Write) -> None:
    """Only halves are forgiven."""
    for record in (rb'["\ud83d", NaN]', rb'["\ud83d\x"]', rb'["\ud83d",]'):
        _, _, _, failure = (
            decode(make, write([record])) if make is not JsonDecoder else outcome(make, [write([record])])
        )
        assert failure is not None
        assert "is not JSON" in failure[1]


def test_a_record_waits_only_while_a_half_is_open() -> None:
    """What ends in a half waits for the next record; nothing else does."""
    decoder = NdjsonDecoder()
    assert decoder.feed(b'"a"\n"b\\ud83d"\n') == ["a"]
    assert decoder.feed(b'"c"\n') == ["b\ufffd", "c"]
    assert decoder.feed(b'"d"\n') == ["d"]
    assert decoder.feed(b'"\\ud83d"\n') == []
    assert decoder.finish() == ["\ufffd"]
    assert decoder.yielded == 5


def test_numbers_beside_halves_are_those_of_all_json() -> None:
    """Integers over 64 bits are what they are in other records."""
    text = rb'["\ud83d", 18446744073709551615, 18446744073709551616, 1.10]'
    assert parse_json(text)[1:] == orjson.loads(text.replace(rb"\ud83d", b""))[1:]


@example("-9999999999999999999", "", FORMATS[0])
@example("9007199254740993.5", "", FORMATS[1])
@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?", fullmatch=True),
    st.sampled_from(["", "e2", "E-3", "e+15"]),
    st.sampled_from(FORMATS),
)
def test_numbers_keep_their_digits(number: str, exponent: str, form: tuple[Callable[..., Decoder], Write]) -> None:
    """However long it is, a number has the value that its digits say, in every format that holds JSON."""
    make, write = form
    decoder = make()
    items = decoder.feed(write([f'{{"n": {number}{exponent}}}'.encode()])) + decoder.finish()
    found = items[0].get("data", items[0])["n"]
    assert Decimal(repr(found) if isinstance(found, float) else found) == Decimal(number + exponent)


def test_parsing_one_document() -> None:
    """A document alone: halves are replaced, depth is bounded."""
    assert parse_json(rb'{"\ud83da":"\ude00\ud83d\ude00"}') == {"\ufffda": "\ufffd😀"}
    with pytest.raises(NotJsonError, match="is nested more than 250 deep"):
        parse_json(b"[" * 300 + b"]" * 300)
    with pytest.raises(NotJsonError, match="is not JSON: "):
        parse_json(b"[1,,2]")


def test_joiner_goes_by_place() -> None:
    """Halves in other places do not meet."""
    joiner = SurrogateJoiner()
    assert joiner.add({"a": "\ud83d"}) == []
    assert joiner.add({"b": "\ude00"}) == [{"a": "\ufffd"}, {"b": "\ufffd"}]
    assert joiner.add([1, ["\ud83d"]]) == []
    assert joiner.add([1, ["\ude00", 2]]) == [[1, [""]], [1, ["😀", 2]]]
    assert joiner.is_empty
