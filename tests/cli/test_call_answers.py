"""Answers taken apart: the same parts however the bytes are cut."""

from __future__ import annotations

import pytest

from streamstack.cli.call import problem_lines, shown
from streamstack.testing.responses import AnswerPart as Part
from streamstack.testing.responses import AnswerReader

EVENTS = (
    "\ufeff: a comment\n\n"
    "data: Hello\n\n"
    "event: tick\r\nid: 1\r\nretry: 10\r\ndata: a\r\ndata\r\ndata:  b\r\n\r\n"
    "data:é😀\r\rdata\n\n"
    "event: lost\n\n:\n"
    'nonsense\n:data: no\ndata: {"a":\ndata: 1}\n\n'
    'event: error\ndata: {"code":"x"}\n\n'
    'data: {"error":{"message":"x","type":"y"}}\n\n'
    'data: {"type":"error","errorText":"x"}\n\n'
    "event: done\ndata: {}\n\n"
    "data: [DONE]\n\n"
    "data: never ended\n"
).encode()

EVENT_PARTS = [
    Part("chunk", "Hello"),
    Part("chunk", "a\n\n b", "tick"),
    Part("chunk", "é😀"),
    Part("chunk", ""),
    Part("chunk", '{"a":\n1}'),
    Part("error", '{"code":"x"}', "error"),
    Part("error", '{"error":{"message":"x","type":"y"}}'),
    Part("error", '{"type":"error","errorText":"x"}'),
    Part("done", "{}", "done"),
    Part("done", "[DONE]"),
]

LINES = '"é"\n{"content":1,"error":2}\r\n\n{"error":{"code":"x"}}\n{"done":{"n":1}}\n[1'.encode()

LINE_PARTS = [
    Part("chunk", '"é"', json=True),
    Part("chunk", '{"content":1,"error":2}', json=True),
    Part("error", '{"code":"x"}', json=True),
    Part("done", '{"n":1}', json=True),
    Part("chunk", "[1", json=True),
]


SSE, NDJSON, JSON, TEXT = ("text/event-stream; charset=utf-8", "application/x-ndjson", "Application/JSON", "text/csv")


def read(content_type: str, pieces: list[bytes]) -> list[Part]:
    """Feed all pieces, and the end."""
    reader = AnswerReader(content_type)
    return [part for piece in pieces for part in reader.feed(piece)] + reader.close()


@pytest.mark.parametrize(("reader", "data", "parts"), [(SSE, EVENTS, EVENT_PARTS), (NDJSON, LINES, LINE_PARTS)])
def test_any_cut_gives_the_same_parts(reader: str, data: bytes, parts: list[Part]) -> None:
    """Whole, byte by byte, and cut in two at every byte: the parts are the same."""
    assert read(reader, [data]) == parts
    assert read(reader, [data[at : at + 1] for at in range(len(data))]) == parts
    for at in range(len(data)):
        assert read(reader, [data[:at], b"", data[at:]]) == parts


def test_text_comes_as_it_arrives() -> None:
    """Each piece of text is a chunk; a character that is cut comes with its rest."""
    data = "aé".encode()
    assert read(TEXT, [data[:2], data[2:]]) == [Part("chunk", "a"), Part("chunk", "é")]
    assert read(TEXT, [b"a\xc3"]) == [Part("chunk", "a"), Part("chunk", "\ufffd")]


@pytest.mark.parametrize(
    ("document", "parts"),
    [
        (
            '{"chunks": ["a", {"content": 1}], "metadata": {"n": 2}}',
            [
                Part("chunk", '"a"', json=True),
                Part("chunk", '{"content":1}', json=True),
                Part("done", '{"n":2}', json=True),
            ],
        ),
        (' {"a": 1}\n', [Part("chunk", '{"a": 1}', json=True)]),
        ("no JSON", [Part("chunk", "no JSON", json=True)]),
        ("", []),
    ],
)
def test_documents_are_read_whole(document: str, parts: list[Part]) -> None:
    """The fall-back of one document shows its chunks; any other document is one."""
    data = document.encode()
    assert read(JSON, [data[:3], data[3:]]) == parts


@pytest.mark.parametrize(
    ("content_type", "parts"),
    [
        ("application/jsonl", [Part("chunk", "1", json=True), Part("chunk", "2", json=True)]),
        ("application/problem+json", [Part("chunk", "1\n2", json=True)]),
        ("text/plain", [Part("chunk", "1\n"), Part("chunk", "2")]),
        ("", [Part("chunk", "1\n"), Part("chunk", "2")]),
    ],
)
def test_content_type_chooses_the_reader(content_type: str, parts: list[Part]) -> None:
    """What an answer is follows from its Content-Type; what is not known is text."""
    assert read(content_type, [b"1\n", b"2"]) == parts


def test_parts_are_shown_on_one_line() -> None:
    """White space is seen, and JSON is left as it is."""
    assert shown(Part("chunk", " a\n")) == '" a\\n"'
    assert shown(Part("chunk", '{"a":\n1}')) == '{"a": 1}'
    assert shown(Part("chunk", "5")) == '"5"'


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("123", "123"),
        ("true", "true"),
        ("null", "null"),
        ("1.10", "1.10"),
        ('"a \\"b\\""', '"a \\"b\\""'),
        ("no JSON", '"no JSON"'),
    ],
)
def test_json_is_shown_as_it_was_sent(written: str, seen: str) -> None:
    """A line of NDJSON and a document are JSON: values are not quoted, texts are not quoted twice."""
    for reader in (NDJSON, JSON):
        assert [shown(part) for part in read(reader, [written.encode()])] == [seen]
    assert shown(Part("chunk", '"a"')) == '"a"'


def test_problems_are_told_line_by_line() -> None:
    """An error is its code and detail, each fault with its place, and where it was raised."""
    problem = (
        b'{"code": "invalid-input", "detail": "a is required",'
        b' "errors": [{"in": "body", "name": "a", "message": "is required"},'
        b' {"in": "body", "name": "", "message": "must be JSON"}],'
        b' "place": {"file": "a.yaml", "line": 3, "column": 5, "step": "Ask"}}'
    )
    assert problem_lines(problem) == [
        "invalid-input: a is required",
        "  a (in the body) is required",
        "  the body must be JSON",
        "  at a.yaml:3:5, step Ask",
    ]
    assert problem_lines(b"<html>") == ["<html>"]
    assert problem_lines(b'{"a": 1}') == ['{"a": 1}']
    assert problem_lines(b"") == []
