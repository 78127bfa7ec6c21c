"""The bytes of server-sent events."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.runtime.run import Run
from streamstack.server.response_options import ResponseOptions
from tests.server.serving import Emitting, endpoint, serving


class Everywhere:
    """Shapes of a stack whose `row` events have metadata."""

    def has_metadata(self, event: str | None) -> bool:
        return event == "row"


async def body_of(*chunks: dict[str, Any], **options: Any) -> bytes:
    """Emit chunks; return the body without the end."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        emit = Emitting(run)
        for chunk in chunks:
            await emit(**chunk)

    async with serving(endpoint(stack, wire=ResponseOptions("sse", done=False, **options))) as server:
        reply = await server.get()
    assert reply.status == 200
    assert reply.complete
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    return reply.body


@pytest.mark.parametrize(
    ("content", "data"),
    [
        ("Hello", "data: Hello"),
        ("", "data: "),
        (" two  blanks ", "data:  two  blanks "),
        ("a\nb\rc\r\nd\n", "data: a\ndata: b\ndata: c\ndata: d\ndata: "),
        ("\r\n\r\n", "data: \ndata: \ndata: "),
        ("a\u2028b\x85c\x0bd", "data: a\u2028b\x85c\x0bd"),
        ("Zoë 日本 🎈", "data: Zoë 日本 🎈"),
        ("lone \ud83d!", "data: lone \ufffd!"),
        ("pair \ud83c\udf88", "data: pair 🎈"),
        ({"a": "é", "b": [1, None]}, 'data: {"a":"é","b":[1,null]}'),
        ({"text": "a\nb"}, 'data: {"text":"a\\nb"}'),
        ([1, 2], "data: [1,2]"),
        (True, "data: true"),
        (0, "data: 0"),
        (1.5, "data: 1.5"),
        (float("nan"), "data: null"),
        (Decimal("1.10"), "data: 1.10"),
        (b"\xff\x00", 'data: "/wA="'),
        (datetime(2030, 1, 2, tzinfo=UTC), 'data: "2030-01-02T00:00:00Z"'),
        (2**70, f"data: {2**70}"),
    ],
)
async def test_content(content: Any, data: str) -> None:
    """Text stands as it is, its line breaks are lines of data; anything else is JSON."""
    assert await body_of({"content": content}) == f"{data}\nid: 0\n\n".encode()


async def test_fields() -> None:
    """A chunk's event and id stand before its data; the id is its index unless it has its own."""
    body = await body_of(
        {"content": "a", "event": "tick"},
        {"content": "b", "id": "x-1"},
        {"content": "c", "event": "", "id": 7},
        {"content": "d", "event": "a: b"},
    )
    assert body == (
        b"event: tick\ndata: a\nid: 0\n\ndata: b\nid: x-1\n\ndata: c\nid: 7\n\nevent: a: b\ndata: d\nid: 3\n\n"
    )


async def test_shape_is_decided_for_the_event() -> None:
    """Events of a name where any step gives metadata all have it, null where there is none."""
    body = await body_of(
        {"content": "a", "event": "row", "metadata": {"i": 0}},
        {"content": "b", "event": "row"},
        {"content": "c"},
        shapes=Everywhere(),
    )
    assert body == (
        b'event: row\ndata: {"content":"a","metadata":{"i":0}}\nid: 0\n\n'
        b'event: row\ndata: {"content":"b","metadata":null}\nid: 1\n\n'
        b"data: c\nid: 2\n\n"
    )


async def test_ids_can_be_left_out() -> None:
    """With `ids: false` only an author's own id is written."""
    body = await body_of({"content": "a"}, {"content": "b", "event": "e"}, {"content": "c", "id": "i"}, ids=False)
    assert body == b"data: a\n\nevent: e\ndata: b\n\ndata: c\nid: i\n\n"


async def test_retry_stands_in_the_first_event_only() -> None:
    """`retry:` is a line of the first event, for SDKs that choke on one of its own."""
    body = await body_of({"content": "a"}, {"content": "b"}, retry=3000)
    assert body == b"retry: 3000\ndata: a\nid: 0\n\ndata: b\nid: 1\n\n"


async def test_many_ids() -> None:
    """Ids go on past the ready-made ones."""
    body = await body_of(*({"content": "x"} for _ in range(5000)))
    ids = [int(line[4:]) for line in body.split(b"\n") if line.startswith(b"id: ")]
    assert ids == list(range(5000))


@pytest.mark.parametrize(
    "chunk",
    [
        {"event": "a\nid: 9"},
        {"event": "a\r"},
        {"event": "a\0"},
        {"id": "1\n2"},
        {"id": "\r"},
        {"id": "a\0b"},
        {"content": None},
    ],
)
async def test_what_can_not_be_written_is_refused(chunk: dict[str, Any]) -> None:
    """Line breaks in event and id, NUL and null content are the author's errors; nothing is sent."""
    seen: list[RunError] = []

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        try:
            run.sink.emit(**{"content": "x", "event": None, "id": None, "metadata": None, **chunk})
        except RunError as error:
            seen.append(error)
            raise

    async with serving(endpoint(stack)) as server:
        reply = await server.get()
    assert reply.status == 500
    assert [error.code for error in seen] == ["template"]
    assert b"data:" not in reply.body


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ({"metadata": {"completed": True}}, '{"chunks":1,"elapsedMs":0,"completed":true}'),
        ({"content": "[DONE]"}, "[DONE]"),
        ({"content": "a\nb"}, "a\ndata: b"),
        ({"content": {"a": 1}}, '{"a":1}'),
        (
            {"content": "[DONE]", "metadata": {"completed": True, "totalChunks": 1}},
            '{"content":"[DONE]","metadata":{"completed":true,"totalChunks":1}}',
        ),
        ({}, '{"chunks":1,"elapsedMs":0}'),
        ({"metadata": {"chunks": "all"}}, '{"chunks":"all","elapsedMs":0}'),
        ({"metadata": 5}, '{"chunks":1,"elapsedMs":0,"metadata":5}'),
    ],
)
async def test_done(given: dict[str, Any], data: str) -> None:
    """`done` is an event with the figures and the metadata, or with the author's content."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("x")
        run.sink.done(**given)

    async with serving(endpoint(stack)) as server:
        body = (await server.get()).body.decode()
    assert re.sub(r'"elapsedMs":\d+', '"elapsedMs":0', body) == (f"data: x\nid: 0\n\nevent: done\ndata: {data}\n\n")


async def _one(run: Run, inputs: dict[str, Any]) -> None:
    await Emitting(run)("x")


async def _none(run: Run, inputs: dict[str, Any]) -> None:
    return None


async def test_end_comes_by_itself() -> None:
    """Without `done` the stream ends with the event all the same, since a close means: reconnect."""
    async with serving(endpoint(_one), endpoint(_none, "/none")) as server:
        one = await server.get()
        reply = await server.get("/none")
    assert re.search(rb'\n\nevent: done\ndata: {"chunks":1,"elapsedMs":\d+}\n\n$', one.body)
    assert re.fullmatch(rb'event: done\ndata: {"chunks":0,"elapsedMs":\d+}\n\n', reply.body)
    assert reply.status == 200


async def test_end_can_be_left_out() -> None:
    """`streaming.done: false` leaves out the event that no author wrote."""
    async with serving(endpoint(_none, wire=ResponseOptions("sse", done=False))) as server:
        reply = await server.get()
    assert (reply.status, reply.body, reply.complete) == (200, b"", True)


async def test_nothing_follows_done() -> None:
    """A chunk after `done` is an error."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("x")
        run.sink.done()
        await Emitting(run)("y")

    async with serving(endpoint(stack)) as server:
        reply = await server.get()
    assert b"data: y" not in reply.body
    assert reply.body.split(b"\n\n")[-2].startswith(b'event: error\ndata: {"code":"template",')


async def test_counts() -> None:
    """`stream.count` and `stream.bytes` follow what was emitted."""
    seen: list[tuple[int, int]] = []

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        for _ in range(3):
            await Emitting(run)("x")
            seen.append((run.sink.count, run.sink.bytes))

    async with serving(endpoint(stack)) as server:
        await server.get()
    size = len(b"data: x\nid: 0\n\n")
    assert seen == [(1, size), (2, 2 * size), (3, 3 * size)]


@pytest.mark.parametrize("done", [True, False])
async def test_failed_stream_without_an_end_marker_is_cut(done: bool) -> None:  # noqa: FBT001
    """Where a good end has no mark, a failed stream must not end like one: it is cut after its error event."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("a")
        raise RunError("sold-out", "None left")

    async with serving(endpoint(stack, wire=ResponseOptions("sse", done=done))) as server:
        reply = await server.get()
    assert b"event: error\n" in reply.body
    assert reply.complete is done
