"""The bytes of the formats beside server-sent events."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from streamstack.runtime.run import Run
from streamstack.server.response_options import ResponseOptions
from tests.server.declared import declared
from tests.server.serving import Emitting, Reply, endpoint, serving


class Everywhere:
    """Shapes of a stack whose `row` events have metadata."""

    def has_metadata(self, event: str | None) -> bool:
        return event == "row"


async def ask(format_: str, *chunks: dict[str, Any], done: Any = None, **options: Any) -> Reply:
    """Emit chunks in one format."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        emit = Emitting(run)
        for chunk in chunks:
            await emit(**chunk)
        if done is not None:
            run.sink.done(**done)

    async with serving(endpoint(stack, wire=ResponseOptions(format_, **options))) as server:
        return await server.get()


async def test_ndjson() -> None:
    """One value a line: the content, or an object where there is more to say."""
    reply = await ask(
        "ndjson",
        {"content": "Zoë\n"},
        {"content": {"a": 1}},
        {"content": b"\xff"},
        {"content": "x", "event": "tick"},
        {"content": "x", "id": 7},
        {"content": 1, "event": "row", "metadata": {"i": 0}},
        {"content": 2, "event": "row", "id": "k"},
        {"content": 3, "event": ""},
        {"content": "lone \ud83d"},
        shapes=Everywhere(),
    )
    assert reply.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    assert reply.complete
    assert reply.body.decode().splitlines() == [
        '"Zoë\\n"',
        '{"a":1}',
        '"/w=="',
        '{"event":"tick","content":"x"}',
        '{"id":"7","content":"x"}',
        '{"event":"row","content":1,"metadata":{"i":0}}',
        '{"event":"row","id":"k","content":2,"metadata":null}',
        "3",
        '"lone \ufffd"',
    ]


@pytest.mark.parametrize(
    ("done", "line"),
    [
        ({}, {"chunks": 1, "elapsedMs": 0}),
        ({"metadata": {"completed": True}}, {"chunks": 1, "elapsedMs": 0, "completed": True}),
        ({"content": "[DONE]"}, "[DONE]"),
        ({"content": "[DONE]", "metadata": {"a": 1}}, {"content": "[DONE]", "metadata": {"a": 1}}),
    ],
)
async def test_ndjson_done(done: dict[str, Any], line: Any) -> None:
    """`done` is a last line, and only where it was called."""
    reply = await ask("ndjson", {"content": 1}, done=done)
    last = json.loads(reply.body.splitlines()[-1])["done"]
    if isinstance(last, dict) and "elapsedMs" in last:
        last["elapsedMs"] = 0
    assert last == line


async def test_text() -> None:
    """The contents and nothing else: objects as JSON, bytes as base64, metadata and events not."""
    reply = await ask(
        "text",
        {"content": "a\r\nb "},
        {"content": {"é": 1}, "event": "e", "id": 1, "metadata": {"m": 1}},
        {"content": True},
        {"content": Decimal("1.50")},
        {"content": b"\xff"},
        {"content": datetime(2030, 1, 2, tzinfo=UTC)},
        {"content": "lone \udc00"},
        done={"content": "[DONE]"},
    )
    assert reply.body.decode() == 'a\r\nb {"é":1}true1.50/w==2030-01-02T00:00:00Zlone \ufffd'
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.complete


async def test_csv() -> None:
    """The header is the first record's names; cells are quoted as RFC 4180 says."""
    reply = await ask(
        "csv",
        {"content": {"id": 1, "name": 'Ada, "the first"', "note": None}},
        {"content": [{"id": 2, "name": "two\nlines"}, {"note": "é", "id": 2.5}]},
        {"content": {"id": True, "name": {"a": 1}, "note": ""}, "metadata": {"x": 1}},
        done={},
    )
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.body.decode() == (
        'id,name,note\r\n1,"Ada, ""the first""",\r\n2,"two\nlines",\r\n2.5,,é\r\ntrue,"{""a"":1}",\r\n'
    )


@pytest.mark.parametrize(
    ("contents", "body"),
    [
        (["a", "b,c"], 'content\r\na\r\n"b,c"\r\n'),
        ([[["a", 1], ["b", None]]], "a,1\r\nb,\r\n"),
        ([[1, 2]], "content\r\n1\r\n2\r\n"),
        ([[]], ""),
        ([[[""]]], '""\r\n'),
        ([{"a": None}], 'a\r\n""\r\n'),
        ([b"\xff"], "content\r\n/w==\r\n"),
    ],
)
async def test_csv_of_other_contents(contents: list[Any], body: str) -> None:
    """A list is rows; cells without names have no header; anything else is one column."""
    reply = await ask("csv", *({"content": content} for content in contents))
    assert reply.body.decode() == body
    assert reply.complete


async def test_csv_leaves_nothing_out_in_silence() -> None:
    """A later record with one more column ends the stream as an answer cut short."""
    reply = await ask("csv", {"content": {"a": 1}}, {"content": [{"a": 2}, {"a": 3, "b": 4}]})
    assert reply.body == b"a\r\n1\r\n"
    assert not reply.complete


async def test_bytes() -> None:
    """Bytes go out as they are, text as UTF-8."""
    reply = await ask("bytes", {"content": b"\x00\xff\r\n"}, {"content": "é"})
    assert reply.body == b"\x00\xff\r\n\xc3\xa9"
    assert reply.headers["content-type"] == "application/octet-stream"


async def test_bytes_of_what_has_none() -> None:
    """An object has no bytes."""
    reply = await ask("bytes", {"content": {"a": 1}})
    assert reply.status == 500


async def test_bytes_have_the_authors_type() -> None:
    """The endpoint's own Content-Type says what the bytes are."""
    reply = await ask("bytes", {"content": b"ID3"}, headers=(("content-type", "audio/mpeg"),))
    assert reply.headers["content-type"] == "audio/mpeg"


LINES = """
method: GET
path: /s
streaming: {%sseparator: "\\n", end: "\\n[DONE]"}
functionStack:
  - forEach: {in: %s, as: item, do: [stream: << item >>]}
%s
"""


@pytest.mark.parametrize(
    ("items", "steps", "body"),
    [
        ("[one, two, three]", "", "one\ntwo\nthree\n[DONE]"),
        ('[one, {"n": 1}, ""]', "", 'one\n{"n":1}\n\n[DONE]'),
        ("[one, two]", "  - done", "one\ntwo\n[DONE]"),
        ("[one]", "", "one\n[DONE]"),
        ("[]", "", "\n[DONE]"),
    ],
)
@pytest.mark.parametrize("format_", ["format: text, ", ""])
async def test_text_with_a_separator(items: str, steps: str, body: str, format_: str) -> None:
    """`separator` stands between chunks and `end` after them, also where the request chooses text."""
    async with declared(LINES % (format_, items, steps)) as (server, _):
        reply = await server.get(Accept="text/plain")
    assert (reply.body.decode(), reply.complete) == (body, True)


async def test_a_failed_text_has_no_end() -> None:
    """The end is that of a good stream: one that fails is cut short, without it."""
    text = LINES % ("", "[one, two]", "  - wait: 20ms\n  - throw: {code: x, message: y}")
    async with declared(text) as (server, _):
        reply = await server.get(Accept="text/plain")
        other = await server.get(Accept="application/x-ndjson")
    assert (reply.body, reply.complete) == (b"one\ntwo", False)
    assert other.body.startswith(b'"one"\n"two"\n{"error":')


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/json, text/plain, */*", "text/event-stream; charset=utf-8"),
        ("*", "text/event-stream; charset=utf-8"),
        ("application/json", "application/json; charset=utf-8"),
        ("application/json, */*;q=0.1", "application/json; charset=utf-8"),
    ],
)
async def test_a_list_without_preference(accept: str, content_type: str) -> None:
    """What axios and SDKs send by themselves gets events; who asks for the document gets it."""
    async with declared(LINES % ("", "[one]", "")) as (server, _):
        reply = await server.get(Accept=accept)
    assert (reply.status, reply.headers["content-type"]) == (200, content_type)


async def test_document() -> None:
    """Who can't read streams gets all chunks as one document, with the end's metadata."""
    reply = await ask(
        "json",
        {"content": "a"},
        {"content": {"b": 1}, "event": "row"},
        done={"content": "[DONE]", "metadata": {"completed": True}},
        shapes=Everywhere(),
    )
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert re.sub(rb'"elapsedMs":\d+', b'"elapsedMs":0', reply.body) == (
        b'{"chunks":["a",{"event":"row","content":{"b":1},"metadata":null}],'
        b'"metadata":{"chunks":2,"elapsedMs":0,"completed":true},"done":"[DONE]"}'
    )


async def test_document_of_nothing() -> None:
    """A stream without chunks is a document without chunks."""
    assert json.loads((await ask("json")).body)["chunks"] == []


async def test_document_is_bounded() -> None:
    """A document that would grow too large is an error, with its own status."""
    reply = await ask("json", *({"content": "x" * 90} for _ in range(20)), max_bytes=1000)
    assert reply.status == 500
    assert json.loads(reply.body)["code"] == "limit-reached"


async def test_document_keeps_the_true_status() -> None:
    """An error after chunks is a true status, since nothing was sent yet."""
    reply = await ask("json", {"content": "a"}, {"content": None})
    assert reply.status == 500
    assert reply.headers["content-type"] == "application/problem+json"


async def test_value() -> None:
    """A json endpoint answers its value."""

    async def stack(run: Run, inputs: dict[str, Any]) -> Any:
        return {"é": [1, None]}

    async with serving(endpoint(stack, wire=ResponseOptions("value"))) as server:
        reply = await server.get(Accept="image/png")
    assert (reply.status, reply.body.decode()) == (200, '{"é":[1,null]}')
    assert "vary" not in reply.headers


async def test_value_can_not_stream() -> None:
    """A chunk emitted there is the author's error."""
    reply = await ask("value", {"content": "x"})
    assert reply.status == 500


async def test_max_bytes() -> None:
    """`maxBytes` ends a stream before the chunk that would go over it."""
    reply = await ask("text", *({"content": "x" * 10} for _ in range(20)), max_bytes=55)
    assert reply.body == b"x" * 50
    assert not reply.complete
