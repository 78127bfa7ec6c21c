"""Files, bytes, texts and streams, read record by record, however they are cut."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.runtime.decoders.csv import CsvDecoder
from streamstack.runtime.operators import ByteSource
from streamstack.runtime.run import Context, Run
from streamstack.runtime.values import IN_MEMORY, File, Stream
from tests.collector import Collector
from tests.stacks import run_stack

TEXT = 'id,name\n1,"Ada\n""the first"""\r\n\n2\n3,Grace é\n'
GOOD = [{"id": "1", "name": 'Ada\n"the first"'}, {"id": "3", "name": "Grace é"}]


async def file_of(data: bytes, name: str = "a.csv", media: str = "text/csv") -> File:
    """Return an uploaded file."""
    file = File(name, media)
    await file.write(data)
    return file


def stream_of(items: list[Any]) -> Stream:
    """Return a stream that gives each item in a batch of its own."""

    async def batches() -> Any:
        for item in items:
            yield [item]

    return Stream(batches)


async def collect(step: str, value: Any, **more: Any) -> Any:
    """Read something with a step, whole; return the items and the properties."""
    stack = f"""
    - {step}
      as: items
    - collect: << items >>
      as: all
    - return: << [all, items.skipped, items.bytes, items.size, items.finished] >>
    """
    outcome = await run_stack(stack, {"from": value, **more})
    if outcome.error is not None:
        raise outcome.error
    return outcome.result


async def test_every_source_is_read_alike() -> None:
    """A file, bytes, a text, and lists and streams of these, cut at any byte."""
    step = "csv.read: {from: << input.from >>, onInvalid: skip}"
    data = TEXT.encode()
    size = len(data)
    file = await file_of(data)
    for value in (file, file, data, TEXT):
        assert await collect(step, value) == [GOOD, 1, size, size, True]
    for at in range(size + 1):
        parts = [data[:at], data[at:]]
        assert await collect(step, parts) == [GOOD, 1, size, None, True], at
        assert await collect(step, stream_of(parts)) == [GOOD, 1, size, None, True], at
    for at in range(len(TEXT) + 1):
        assert (await collect(step, [TEXT[:at], TEXT[at:]]))[0] == GOOD, at


async def test_large_file_is_read_from_disk() -> None:
    """Part of it on disk, the end still in memory: all of it comes, in order."""
    file = File("a.csv", "text/csv")
    await file.write(b"n\n")
    count = IN_MEMORY // 4
    for begin in range(0, count, 1000):
        await file.write(b"".join(b"%d\n" % n for n in range(begin, min(begin + 1000, count))))
    stack = """
    - csv.read: << input.from >>
      as: rows
    - set: {expected: 0, wrong: 0}
    - forEach:
        in: << rows >>
        as: row
        do:
          - if: {condition: << row.n | toInteger != expected >>, then: [{set: {wrong: << wrong + 1 >>}}]}
          - set: {expected: << expected + 1 >>}
    - return: << [expected, wrong, rows.bytes] >>
    """
    outcome = await run_stack(stack, {"from": file})
    assert outcome.result == [count, 0, file.size]
    file.close()


@pytest.mark.parametrize("lines", [20, 300, 3_000, 60_000])
async def test_progress_counts_what_was_given(lines: int) -> None:
    """Not what was read ahead: at each record it is at most one per cent too far, and complete at the end."""
    data = b"n\n" + b"".join(b"%07d\n" % n for n in range(lines))
    stack = """
    - csv.read: << input.from >>
      as: rows
    - set: {ahead: 0, at: 2}
    - forEach:
        in: << rows >>
        do:
          - set: {at: << at + 8 >>}
          - set: {ahead: '<< [ahead, rows.bytes - at] | max >>'}
    - return: << [ahead, rows.bytes, rows.size] >>
    """
    for value in (await file_of(data), data, data.decode()):
        outcome = await run_stack(stack, {"from": value})
        assert outcome.error is None
        ahead, read, size = outcome.result
        assert read == size == len(data)
        assert ahead <= max(len(data) / 100, 64)


@pytest.mark.parametrize(
    ("name", "media", "data", "items"),
    [
        ("a.csv", "application/vnd.ms-excel", b"a\n1\n", [{"a": "1"}]),
        ("a.txt", "text/csv; charset=windows-1252", b"a\n\xe9\n", [{"a": "é"}]),
        ("a.ndjson", "application/octet-stream", b"1\n2\n", [1, 2]),
        ("a", "application/json", b"[1, 2]", [1, 2]),
        ("a.LOG", "", b"x\ny\n", ["x\ny\n"]),
        ("a", "image/png", b"\x89", [b"\x89"]),
    ],
)
async def test_auto_follows_type_and_name(name: str, media: str, data: bytes, items: Any) -> None:
    """What the Content-Type says, or the name's ending where that says more."""
    found = await collect("file.read: << input.from >>", await file_of(data, name, media))
    assert found[0] == items


async def test_charset_can_be_said() -> None:
    """It goes before what the Content-Type says; one that is not known is an error."""
    step = "csv.read: {from: << input.from >>, charset: << input.charset >>}"
    file = await file_of("a\né\n".encode("utf-16"), media="text/csv; charset=utf-8")
    assert (await collect(step, file, charset="utf-16"))[0] == [{"a": "é"}]
    with pytest.raises(RunError, match="is not known"):
        await collect(step, file, charset="klingon")


async def test_bad_record_tells_number_and_line() -> None:
    """As an item under `give`, in message and details of the error under `fail`: 400, since a client sent it."""
    items, skipped, *_ = await collect("csv.read: {from: << input.from >>, onInvalid: give}", TEXT)
    told = {"number": 2, "line": 5, "message": "has 1 field, and there are 2 columns"}
    assert items[1] == {"invalid": told | {"text": "2"}}
    assert skipped == 0
    for value, status in ((TEXT, 400), (TEXT.encode(), 400), (await file_of(TEXT.encode()), 400)):
        with pytest.raises(RunError, match=r"chunk 2 of the stream \(line 5\)") as caught:
            await collect("csv.read: << input.from >>", value)
        assert (caught.value.code, caught.value.status) == ("invalid-chunk", status)
        assert caught.value.details["line"] == 5


@pytest.mark.parametrize(
    ("value", "told"),
    [({"a": 1}, "not an object"), (5, "not an integer"), ([{"a": 1}], "an item is an object: `decode: bytes`")],
)
async def test_what_holds_no_bytes_is_refused(value: Any, told: str) -> None:
    """The message says what to give instead."""
    with pytest.raises(RunError, match=told) as caught:
        await collect("csv.read: {from: << input.from >>}", value)
    assert caught.value.code == "template"


async def test_leaving_closes_what_is_read() -> None:
    """A stream that feeds it is closed at once when the reading ends early."""
    closed = []

    async def batches() -> Any:
        try:
            while True:
                yield [b"a\n1\n"]
        finally:
            closed.append(True)

    stack = """
    - csv.read: {from: << input.from >>, header: false}
      as: rows
    - streams.take: {in: << rows >>, count: 1}
      as: one
    - collect: << one >>
      as: all
    - return: << all >>
    """
    outcome = await run_stack(stack, {"from": Stream(batches)})
    assert outcome.result == [["a"]]
    assert closed == [True]


async def test_long_texts_come_in_pieces() -> None:
    """Nothing of unbounded size is handed on at once."""
    pieces = [each async for each in ByteSource("x" * 1_000_000).pieces(Run(Collector(), Context()))]
    assert max(map(len, pieces)) <= 256 * 1024
    assert sum(map(len, pieces)) == 1_000_000


def test_rows_of_other_widths_are_told_wherever_they_stand() -> None:
    """Read at once or one by one, the same records are given and the same lines are reported."""
    text = b'a,b\n1,2\n3\n"4\n5",6\n\n7,8,9\n"x",y\n'
    for pieces in ([text], [text[at : at + 1] for at in range(len(text))]):
        decoder = CsvDecoder("give")
        items = [item for piece in pieces for item in decoder.feed(piece)] + decoder.finish()
        bad = [items[1]["invalid"], items[3]["invalid"]]
        assert items[0] == {"a": "1", "b": "2"}
        assert items[2] == {"a": "4\n5", "b": "6"}
        assert items[4] == {"a": "x", "b": "y"}
        assert [(each["number"], each["line"]) for each in bad] == [(2, 3), (4, 7)]


@pytest.mark.parametrize("columns", [1, 3, 250])
def test_wide_records_are_objects_too(columns: int) -> None:
    """However many columns there are, and whichever are picked."""
    names = [f"c{n}" for n in range(columns)]
    rows = [[f"{row}.{n}" for n in range(columns)] for row in range(5)]
    out = io.StringIO()
    csv.writer(out).writerows([names, *rows])
    decoder = CsvDecoder(columns=tuple(reversed(names)))
    items = decoder.feed(out.getvalue().encode()) + decoder.finish()
    assert decoder.failure is None
    assert json.dumps(items) == json.dumps([{name: row[names.index(name)] for name in reversed(names)} for row in rows])
