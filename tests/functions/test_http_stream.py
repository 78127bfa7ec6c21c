from __future__ import annotations

import asyncio
import gzip
import json
import resource
import zlib
from time import perf_counter
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest

from streamstack.errors import RunError
from streamstack.functions.http import http_stream
from streamstack.functions.http_upstream import Watchdog
from streamstack.language.settings import HttpSettings
from streamstack.runtime.run import Run
from streamstack.runtime.values import Stream
from tests.collector import Collector
from tests.functions.calling import context_of, run_calling, take
from tests.upstreams import END, Script, Upstream, Wire, answer, answers

SSE = "Content-Type: text/event-stream"
NDJSON = "Content-Type: application/x-ndjson"


def datas(items: list[Any]) -> list[Any]:
    """Return the data of events."""
    return [item["data"] for item in items]


async def opened(**arguments: Any) -> Stream:
    """Return a stream that is being read, in a context of its own."""
    assert http_stream.run is not None
    async with context_of() as context:
        stream: Stream = http_stream.run(Run(Collector(), context), **arguments)
        return stream.consume()


# ---------------------------------------------------------------------------------- as it comes


async def test_loop_runs_while_the_upstream_is_open() -> None:
    """From YAML to the wire: each event is a turn of the loop before the next one has been sent."""
    turn = asyncio.Event()
    seen = []

    async def script(wire: Wire) -> None:
        await wire.events('{"n": 1}')
        async with asyncio.timeout(5):
            await turn.wait()
        await wire.events('{"n": 2}', head=False)
        await wire.send(END)

    async with Upstream(script) as upstream, context_of() as context:
        stream = http_stream.run(Run(Collector(), context), url=upstream.url)  # type: ignore[misc]
        assert (stream["status"], stream["headers"], stream["skipped"]) == (None, None, None)
        assert upstream.asked == []
        stream.consume()
        while batch := await stream.batch():
            seen += datas(batch)
            turn.set()
        assert seen == [{"n": 1}, {"n": 2}]
        assert (stream["status"], stream["count"], stream["skipped"]) == (200, 2, 0)
        assert stream["headers"]["content-type"] == "text/event-stream"
        assert stream["finished"] is True
        await stream.close()


async def test_stack_relays_a_stream() -> None:
    """An endpoint's stack: events in, chunks out."""
    async with Upstream(answer("event: a\nid: 7\ndata: Hello\n\ndata: 5\n\n", SSE)) as upstream:
        ran = await run_calling(
            """
            - http.stream: << input.url >>
              as: events
            - forEach:
                in: << events >>
                as: event
                do:
                  - stream: {content: << event.data >>, event: << event.event >>, id: << event.id >>}
            - return: << [events.status, events.count, events.skipped, events.finished] >>
            """,
            {"url": upstream.url},
        )
    assert ran.error is None
    assert ran.contents == ["Hello", "5"]
    assert ran.result == [200, 2, 0, True]
    assert upstream.asked[0].headers["accept"].startswith("text/event-stream")
    assert upstream.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("lines", "body", "arguments", "items"),
    [
        ([NDJSON], '{"a":1}\n{"a":2}', {}, [{"a": 1}, {"a": 2}]),
        (["Content-Type: application/json"], '[{"a":1}, 2]', {}, [{"a": 1}, 2]),
        ([], '{"d": {"x": [1, 2]}}', {"decode": "json", "path": "d.x"}, [1, 2]),
        ([], '{"d.e": [3]}', {"decode": "json", "path": ["d.e"]}, [3]),
        (["Content-Type: text/csv; charset=latin1"], b"a,b\n1,\xe9\n", {}, [{"a": "1", "b": "é"}]),
        (
            [],
            "1;2\n3;4\n",
            {"decode": "csv", "header": False, "delimiter": ";", "columns": ["x", "y"]},
            [{"x": "1", "y": "2"}, {"x": "3", "y": "4"}],
        ),
        (["Content-Type: text/plain"], "héllo", {}, ["héllo"]),
        (["Content-Type: text/plain"], "a\r\nb\n", {"decode": "lines"}, ["a", "b"]),
        ([], b"\0\xff", {}, [b"\0\xff"]),
        (
            ["Content-Type: text/plain"],
            'data: {"a":1}\n\ndata: [DONE]\n\ndata: {"a":2}\n\n',
            {"decode": "sseJson"},
            [{"event": None, "id": None, "data": {"a": 1}}],
        ),
        ([SSE], "", {}, []),
    ],
)
async def test_items_are_decoded(
    lines: list[str], body: str | bytes, arguments: dict[str, Any], items: list[Any]
) -> None:
    """By the Content-Type, or as the author says."""
    async with Upstream(answer(body, *lines)) as upstream:
        taken = await take("http.stream", url=upstream.url, **arguments)
    assert taken.error is None
    assert taken.items == items
    assert taken.stream.finished


async def test_end_marker_ends_the_stream_at_once() -> None:
    """After `[DONE]` the run does not wait for the upstream to close; the connection is closed instead."""

    async def script(wire: Wire) -> None:
        await wire.events("1", "[DONE]")
        await wire.left()

    async with Upstream(script) as upstream:
        started = perf_counter()
        taken = await take("http.stream", url=upstream.url, decode="sseJson")
        assert perf_counter() - started < 1
    assert datas(taken.items) == [1]
    assert taken.stream.finished


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
async def test_compressed_events_come_as_they_are_flushed(coding: str) -> None:
    """An event is there before the next one is compressed."""
    turn = asyncio.Event()

    def flush(packer: Any, data: bytes) -> bytes:
        if coding == "br":
            return bytes(packer.process(data) + packer.flush())
        return bytes(packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))

    async def script(wire: Wire) -> None:
        packer: Any = brotli.Compressor() if coding == "br" else zlib.compressobj(wbits=31 if coding == "gzip" else 15)
        await wire.head(NDJSON, f"Content-Encoding: {coding}")
        await wire.chunk(flush(packer, b"1\n"))
        async with asyncio.timeout(5):
            await turn.wait()
        await wire.chunk(flush(packer, b"2\n"))
        await wire.chunk(packer.finish() if coding == "br" else packer.flush())
        await wire.send(END)

    async with Upstream(script) as upstream, context_of() as context:
        assert http_stream.run is not None
        stream = http_stream.run(Run(Collector(), context), url=upstream.url).consume()
        assert await stream.batch() == [1]
        turn.set()
        assert await stream.batch() == [2]
        assert await stream.batch() == []
        await stream.close()


# ------------------------------------------------------------------------------------ its faults

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(text: str) -> bytes:
    """Return a text as one chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(text), text.encode())


THREE = b"".join(chunk(f'data: {{"n": {n}}}\n\n') for n in range(3))


async def reset_before_the_head(wire: Wire) -> None:
    """Break off at byte 0."""
    wire.reset()


def reset_after(data: bytes) -> Script:
    """Return a script that sends some bytes and breaks off."""

    async def script(wire: Wire) -> None:
        await wire.send(data)
        await asyncio.sleep(0.03)
        wire.reset()

    return script


def stall_after(data: bytes) -> Script:
    """Return a script that sends some bytes, and then nothing for ever."""

    async def script(wire: Wire) -> None:
        await wire.send(data)
        await wire.left()

    return script


async def endless_line(wire: Wire) -> None:
    """Send an event that never ends."""
    await wire.send(CHUNKED)
    await wire.chunk("data: 0\n\n")
    while True:
        await wire.chunk(b"x" * 10_000)


async def heartbeats(wire: Wire) -> None:
    """Send an event, then only comments."""
    await wire.events("0")
    while True:
        await wire.chunk(":\n\n")
        await asyncio.sleep(0.02)


TRUNCATED = gzip.compress(b"".join(b"data: %d\n\n" % n for n in range(3)) + b"x" * 500)[:-10]


@pytest.mark.parametrize(
    ("script", "arguments", "given", "code", "told"),
    [
        (reset_before_the_head, {}, 0, "http-connection", "broke off before it answered"),
        (reset_after(HEAD[:20]), {}, 0, "http-connection", "broke off before it answered"),
        (reset_after(CHUNKED), {}, 0, "stream-lost", "broke off"),
        (reset_after(CHUNKED + THREE), {}, 3, "stream-lost", "broke off"),
        (reset_after(CHUNKED + THREE + THREE[:9]), {}, 3, "stream-lost", "broke off"),
        (reset_after(HEAD + b"\r\ndata: 0\n\n"), {}, 1, "stream-lost", "broke off"),
        (answers(CHUNKED + THREE), {}, 3, "stream-lost", "broke off"),
        (answers(HEAD + b"Content-Length: 50\r\n\r\ndata: 0\n\n"), {}, 1, "stream-lost", "broke off"),
        (answers(CHUNKED, THREE, b"zz\r\n", every=0.02), {}, 3, "stream-lost", "broke off"),
        (answer("no", status="401 Unauthorized"), {}, 0, "http-status", "401 Unauthorized"),
        (answer("no", status="429 Too Many Requests"), {}, 0, "http-status", "429 Too Many"),
        (answer("no", status="500 Oops"), {}, 0, "http-status", "500 Internal Server Error"),
        (answer("<p>Log in</p>", "Content-Type: text/html"), {"decode": "sse"}, 0, "invalid-chunk", "text/html"),
        (answer("<p>", "Content-Type: text/html"), {"decode": "json"}, 0, "invalid-chunk", "text/html"),
        (answer("<p>"), {"decode": "ndjson"}, 0, "invalid-chunk", "not JSON"),
        (
            answer('{"error": {"message": "quota"}}', "Content-Type: application/json"),
            {"decode": "sseJson"},
            0,
            "invalid-chunk",
            "answered with application/json, which is not sseJson",
        ),
        (answer(TRUNCATED, SSE, "Content-Encoding: gzip"), {}, 3, "stream-lost", "middle of its encoding"),
        (answer("plain", SSE, "Content-Encoding: gzip"), {}, 0, "invalid-chunk", "gzip, and is not"),
        (stall_after(b""), {"first_chunk_timeout": 0.1}, 0, "timeout", "gave nothing within 0.1 s"),
        (stall_after(CHUNKED), {"first_chunk_timeout": 0.1}, 0, "timeout", "gave nothing within 0.1 s"),
        (stall_after(CHUNKED + THREE), {"idle_timeout": 0.1}, 3, "timeout", "gave nothing within 0.1 s"),
        (heartbeats, {"idle_timeout": 0.1}, 1, "timeout", "gave nothing within 0.1 s"),
        (heartbeats, {"timeout": 0.1}, 1, "timeout", "took longer than 0.1 s"),
        (endless_line, {"max_event_size": 100_000}, 1, "invalid-chunk", "more than 100000 bytes"),
        (answer("data: x\n\n", SSE), {"decode": "sseJson"}, 0, "invalid-chunk", "chunk 1 of the stream"),
    ],
)
async def test_fault_of_an_upstream_has_its_code(
    script: Script, arguments: dict[str, Any], given: int, code: str, told: str
) -> None:
    """Each fault is its documented code, with every item that came before it given."""
    async with Upstream(script) as upstream:
        started = perf_counter()
        taken = await take("http.stream", url=upstream.url + "/?key=secret", **arguments)
        assert perf_counter() - started < 3
    assert taken.error is not None
    assert (taken.code, len(taken.items)) == (code, given)
    assert told in taken.error.message
    assert "secret" not in taken.error.message
    assert not taken.stream.finished


@pytest.mark.parametrize("broken", [True, False])
async def test_answer_cut_at_any_byte_is_never_whole(*, broken: bool) -> None:
    """Ended or reset at byte n: no answer within the head, lost after it, with every event that had come."""
    whole = CHUNKED + THREE + END

    async def cut(at: int) -> tuple[str | None, int]:
        part = whole[:at]
        async with Upstream(reset_after(part) if broken else answers(part)) as upstream:
            taken = await take("http.stream", url=upstream.url)
        return taken.code, len(taken.items)

    cuts = range(len(whole))
    found = [each for begin in cuts[::20] for each in await asyncio.gather(*map(cut, cuts[begin : begin + 20]))]
    for at, (code, given) in zip(cuts, found, strict=True):
        assert code == ("http-connection" if at < len(CHUNKED) else "stream-lost"), at
        # An event is there once its blank line is.
        assert given == whole[len(CHUNKED) : at].count(b"\n\n"), at
    assert await cut(len(whole)) == (None, 3) or broken


async def test_refused_connection_is_told() -> None:
    """Connections to it are refused."""
    async with Upstream(answer("")) as upstream:
        pass
    taken = await take("http.stream", url=upstream.url)
    assert (taken.code, taken.items) == ("http-connection", [])


async def test_items_before_a_break_reach_a_slow_reader() -> None:
    """What came before the connection broke is given, though the reader looks at it only afterwards."""
    async with Upstream(reset_after(CHUNKED + THREE)) as upstream, context_of() as context:
        assert http_stream.run is not None
        stream = http_stream.run(Run(Collector(), context), url=upstream.url).consume()
        items = await stream.batch()
        await asyncio.sleep(0.1)
        if len(items) < 3:
            items += await stream.batch()
        with pytest.raises(RunError) as caught:
            await stream.batch()
        await stream.close()
    assert len(items) == 3
    assert caught.value.code == "stream-lost"


@pytest.mark.parametrize(
    ("on_invalid", "values", "skipped", "code"),
    [
        ("skip", [1, 3], 1, None),
        ("give", [1, {"number": 2, "text": "x", "message": "is not JSON: "}, 3], 0, None),
        ("fail", [1], 0, "invalid-chunk"),
    ],
)
async def test_invalid_chunks_are_as_the_author_says(
    on_invalid: str, values: list[Any], skipped: int, code: str | None
) -> None:
    """Skipped and counted, given, or the end."""
    async with Upstream(answer('{"a":1}\nx\n{"a":3}\n', NDJSON)) as upstream:
        taken = await take("http.stream", url=upstream.url, on_invalid=on_invalid)
    found = [item.get("a") or item["invalid"] for item in taken.items]
    for item in found:
        if isinstance(item, dict):
            item["message"] = item["message"][:13]
    assert found == values
    assert (taken.stream["skipped"], taken.code) == (skipped, code)


async def test_allowed_status_is_a_stream() -> None:
    """Where the author says so, the body of an error is read like any other."""
    script = answer('{"a":1}\n', NDJSON, status="409 Conflict")
    async with Upstream(script) as upstream:
        taken = await take("http.stream", url=upstream.url, allow_status=[409])
    assert (taken.items, taken.stream["status"]) == ([{"a": 1}], 409)


async def test_204_is_an_end() -> None:
    """No content is not an item, whatever was to be decoded."""
    async with Upstream(answers(b"HTTP/1.1 204 No Content\r\n\r\n")) as upstream:
        taken = await take("http.stream", url=upstream.url, decode="json")
    assert (taken.items, taken.error, taken.stream.finished) == ([], None, True)


# ------------------------------------------------------------------------------------- try again


async def test_retry_goes_up_to_the_first_item() -> None:
    """The step's `retry` asks again, waiting as the upstream says, until an item has come."""
    busy = answer("", "retry-after-ms: 120", status="429 Busy")
    scripts = (busy, reset_after(CHUNKED), answer("data: a\n\n", SSE))
    async with Upstream(*scripts) as upstream:
        started = perf_counter()
        ran = await run_calling(
            """
            - http.stream: {url: << input.url >>}
              retry: {times: 3, delay: 1ms}
              as: events
            - forEach: {in: << events >>, as: e, do: [{stream: << e.data >>}]}
            - return: << events.status >>
            """,
            {"url": upstream.url},
        )
        assert perf_counter() - started > 0.11
    assert ran.error is None
    assert ran.contents == ["a"]
    assert ran.result == 200
    assert len(upstream.asked) == 3


async def test_retry_ends_with_the_first_item() -> None:
    """After an item was given nothing is asked twice."""
    async with Upstream(reset_after(CHUNKED + THREE)) as upstream:
        ran = await run_calling(
            """
            - http.stream: {url: << input.url >>, method: POST}
              retry: {times: 3, delay: 1ms}
              as: events
            - forEach: {in: << events >>, as: e, do: [{stream: << e.data.n >>}]}
            """,
            {"url": upstream.url},
        )
    assert ran.error is not None
    assert ran.error.code == "stream-lost"
    assert ran.contents == [0, 1, 2]
    assert len(upstream.asked) == 1


async def test_timeout_of_the_step_is_for_the_first_item() -> None:
    """The modifier `timeout` limits the opening, not the stream."""

    async def script(wire: Wire) -> None:
        await wire.events("0")
        await asyncio.sleep(0.25)
        await wire.events("1", head=False)
        await wire.send(END)

    stack = """
    - http.stream: {url: << input.url >>}
      timeout: 150ms
      as: events
    - forEach: {in: << events >>, as: e, do: [{stream: << e.data >>}]}
    """
    async with Upstream(script) as upstream:
        ran = await run_calling(stack, {"url": upstream.url})
    assert (ran.error, ran.contents) == (None, ["0", "1"])
    async with Upstream(stall_after(CHUNKED)) as upstream:
        ran = await run_calling(stack, {"url": upstream.url})
    assert ran.error is not None
    assert ran.error.code == "timeout"


# ------------------------------------------------------------------------------------- reconnect

AGAIN = {"times": 2, "delay": 0.01}


async def test_lost_stream_goes_on_after_its_last_event() -> None:
    """The last id is sent along, the server's own wait is kept, and skipped chunks add up."""
    first = reset_after(CHUNKED + chunk("retry: 120\nid: 7\ndata: a\n\nid: 8\ndata: b"))
    second = reset_after(CHUNKED + chunk("id: 9\ndata: c\n\n  "))
    third = answer("data: d\n\n", SSE)
    last = answers(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with Upstream(first, second, third, last) as upstream:
        started = perf_counter()
        taken = await take("http.stream", url=upstream.url, reconnect=AGAIN, headers={"X-Key": "k"})
        assert perf_counter() - started > 0.3
    assert taken.error is None
    assert [(item["id"], item["data"]) for item in taken.items] == [("7", "a"), ("9", "c"), ("9", "d")]
    assert [asked.headers.get("last-event-id") for asked in upstream.asked] == [None, "7", "9", "9"]
    assert {asked.headers["x-key"] for asked in upstream.asked} == {"k"}
    assert taken.stream.finished


async def test_reconnection_has_an_end() -> None:
    """So many times in a row without an item; then the last error counts."""
    async with Upstream(reset_after(CHUNKED + THREE), answer("", status="503 Busy")) as upstream:
        taken = await take("http.stream", url=upstream.url, reconnect=AGAIN)
    assert (taken.code, len(taken.items), len(upstream.asked)) == ("http-status", 3, 3)


async def test_stream_that_ends_well_again_and_again_ends_well() -> None:
    """An end of `sse` is followed by a new connection; where that gives nothing more, the end is one."""
    async with Upstream(answer("data: 1\n\n", SSE), answer("", SSE)) as upstream:
        taken = await take("http.stream", url=upstream.url, reconnect=AGAIN)
    assert (taken.error, datas(taken.items), len(upstream.asked)) == (None, ["1"], 3)


async def test_other_formats_go_on_after_a_loss_only() -> None:
    """The end of an NDJSON answer is the end."""
    lost = reset_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n")
    async with Upstream(lost, answer("2\n")) as upstream:
        taken = await take("http.stream", url=upstream.url, decode="ndjson", reconnect=AGAIN)
    assert (taken.error, taken.items, len(upstream.asked)) == (None, [1, 2], 2)


@pytest.mark.parametrize(
    "second",
    [
        answer("", status="401 Unauthorized"),
        answer("", "Retry-After: 3600", status="429 Busy"),
        answer("x\n", "Content-Type: text/html"),
    ],
)
async def test_what_no_connection_can_mend_is_an_end(second: Script) -> None:
    """401, a wait that is too long, a page where events were asked for: no third attempt."""
    async with Upstream(reset_after(CHUNKED + THREE), second) as upstream:
        taken = await take("http.stream", url=upstream.url, decode="sse", reconnect=AGAIN)
    assert taken.error is not None
    assert len(upstream.asked) == 2


async def test_first_connection_is_not_made_again() -> None:
    """`reconnect` goes on with what was open; the first request is `retry`'s."""
    async with Upstream(answer("", status="503 Busy")) as upstream:
        taken = await take("http.stream", url=upstream.url, reconnect=AGAIN)
    assert (taken.code, len(upstream.asked)) == ("http-status", 1)


async def test_idle_upstream_is_left_for_a_new_connection() -> None:
    """A stall is a loss, too."""
    async with Upstream(stall_after(CHUNKED + THREE), answer("data: 3\n\n", SSE)) as upstream:
        taken = await take("http.stream", url=upstream.url, idle_timeout=0.1, reconnect=AGAIN, upto=4)
    assert (taken.error, len(taken.items)) == (None, 4)


async def test_reconnection_is_for_get() -> None:
    """Any other request might do its work twice."""
    with pytest.raises(RunError, match="`reconnect` is for GET"):
        await take("http.stream", url="http://127.0.0.1:9", method="POST", reconnect={})


# ------------------------------------------------------------------------------------ its closing


async def close_after(batches: int, script: Script, **arguments: Any) -> float:
    """Read some batches, leave, and return the seconds until the upstream saw it."""
    async with Upstream(script) as upstream, context_of() as context:
        assert http_stream.run is not None
        stream = http_stream.run(Run(Collector(), context), url=upstream.url, **arguments).consume()
        task = asyncio.create_task(_read(stream, batches))
        await (asyncio.wait_for(task, 5) if batches else asyncio.sleep(0.1))
        left = asyncio.get_running_loop().time()
        if batches:
            await stream.close()
        else:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return await asyncio.wait_for(upstream.wires[0].gone, 5) - left


async def _read(stream: Stream, batches: int) -> None:
    for _ in range(batches or 1):
        await stream.batch()


@pytest.mark.parametrize(
    ("batches", "data"),
    [
        (0, b""),  # before the head
        (0, CHUNKED),  # before the first event
        (1, CHUNKED + THREE),  # in the middle
        (1, CHUNKED + THREE * 3000),  # with more in the buffers than was read
    ],
)
async def test_leaving_closes_the_upstream_at_once(batches: int, data: bytes) -> None:
    """Whether the run is cancelled or the loop left: the upstream sees it within 50 ms."""
    assert await close_after(batches, stall_after(data)) < 0.05


async def test_break_closes_the_upstream_at_once() -> None:
    """`break` in YAML does so, too, while the run goes on."""
    async with Upstream(stall_after(CHUNKED + THREE)) as upstream:
        ran = await run_calling(
            """
            - http.stream: << input.url >>
              as: events
            - forEach: {in: << events >>, as: e, do: [{stream: << e.data.n >>}, break]}
            - wait: 100ms
            - return: << events.finished >>
            """,
            {"url": upstream.url},
        )
        assert (ran.error, ran.contents, ran.result) == (None, [0], False)
        left_at = upstream.wires[0].left_at
        assert left_at is not None
        assert asyncio.get_running_loop().time() - left_at > 0.05


async def test_stream_that_nobody_reads_asks_nothing() -> None:
    """Nothing is fetched before the first iteration."""
    async with Upstream(answer("")) as upstream:
        stack = "- http.stream: << input.url >>\n  as: events\n- return: << events.status >>"
        ran = await run_calling(stack, {"url": upstream.url})
    assert (ran.error, ran.result, upstream.asked) == (None, None, [])


# ------------------------------------------------------------------------------------- its weight


async def test_memory_is_flat_while_a_reader_is_slow() -> None:
    """An upstream that offers all it can fills nothing here: what is not read waits on its side."""
    sent = 0

    async def pouring(wire: Wire) -> None:
        nonlocal sent
        await wire.head(NDJSON)
        line = json.dumps({"text": "x" * 1000}).encode() + b"\n"
        while True:
            await wire.chunk(line * 60)
            sent += 60 * len(line)

    async with Upstream(pouring) as upstream, context_of() as context:
        assert http_stream.run is not None
        stream = http_stream.run(Run(Collector(), context), url=upstream.url).consume()
        read = 0
        before = 0
        for turn in range(30):
            read += sum(len(item["text"]) for item in await stream.batch())
            await asyncio.sleep(0.02)
            if turn == 5:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        await stream.close()
    assert grown < 8 * 1024  # kilobytes
    # The system's own buffers on both sides hold a few megabytes.
    assert sent - read < 16 << 20


async def test_bomb_goes_through_in_small_pieces() -> None:
    """What is huge once decoded is refused by the largest event, and passes as bytes piece by piece."""
    bomb = gzip.compress(b"\0" * (30 << 20))
    async with Upstream(answer(bomb, "Content-Encoding: gzip")) as upstream:
        taken = await take("http.stream", url=upstream.url, decode="lines", max_event_size=1 << 20)
        assert taken.code == "invalid-chunk"
        taken = await take("http.stream", url=upstream.url, decode="bytes")
    assert max(map(len, taken.items)) <= 64 * 1024
    assert sum(map(len, taken.items)) == 30 << 20


async def test_settings_are_the_defaults() -> None:
    """Time-outs and the largest event come from the settings where the step says nothing."""
    settings = HttpSettings(first_chunk=0.1, idle=0.05, max_event_size=50)
    async with Upstream(stall_after(CHUNKED)) as upstream:
        taken = await take("http.stream", settings, url=upstream.url)
        assert taken.error is not None
        assert "within 0.1 s" in taken.error.message
    async with Upstream(stall_after(CHUNKED + THREE)) as upstream:
        taken = await take("http.stream", settings, url=upstream.url)
        assert taken.error is not None
        assert "within 0.05 s" in taken.error.message
    async with Upstream(answer(b"x" * 60, "Content-Type: text/csv")) as upstream:
        taken = await take("http.stream", settings, url=upstream.url)
        assert taken.code == "invalid-chunk"


async def test_events_are_asked_past_caches() -> None:
    """As EventSource does, unless the author says otherwise."""
    async with Upstream(answer("data: 1\n\n", SSE)) as upstream:
        await take("http.stream", url=upstream.url, decode="sse")
        await take("http.stream", url=upstream.url, decode="sse", headers={"cache-control": "max-age=1"})
        await take("http.stream", url=upstream.url, decode="lines")
    asked = [each.headers.get("cache-control") for each in upstream.asked]
    assert asked == ["no-cache", "max-age=1", None]


async def test_error_in_place_of_events_ends_the_stream() -> None:
    """Also with `reconnect`: another connection would bring it again."""
    async with Upstream(answer('error: {"message": "no"}\n\n', SSE)) as upstream:
        taken = await take("http.stream", url=upstream.url, decode="sse", reconnect=AGAIN)
    assert (taken.code, len(upstream.asked)) == ("http-status", 1)


async def test_error_knows_its_url_without_secrets() -> None:
    """What the log tells: where, and nothing of the query or the user."""
    async with Upstream(answer("", status="503 Busy")) as upstream:
        url = upstream.url.replace("//", "//user:pass@") + "/prices?key=secret"
        taken = await take("http.stream", url=url)
        ran = await run_calling("- http.request: << input.url >>\n  as: reply", {"url": url})
    for error, more in ((taken.error, {"stream": "http.stream"}), (ran.error, {})):
        assert error is not None
        assert error.about == {"url": upstream.url + "/prices", **more}


async def test_one_timer_limits_many_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that end in time set no timer of their own; one that does not ends then, whichever task waits."""
    loop, watchdog, timers = asyncio.get_running_loop(), Watchdog(), []
    call_at = loop.call_at

    def counted(due: float, callback: Any, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        if callback == watchdog._check:  # noqa: SLF001
            timers.append(due)
        return call_at(due, callback, *arguments, **options)

    monkeypatch.setattr(loop, "call_at", counted)
    for _ in range(100):
        await watchdog.limit(lambda: asyncio.sleep(0), loop.time() + 0.1)
    assert len(timers) == 1
    for shorter in (0.3, 0.01):
        began = loop.time()
        with pytest.raises(TimeoutError):
            await asyncio.create_task(watchdog.limit(lambda: asyncio.sleep(5), began + shorter))
        assert shorter - 0.002 <= loop.time() - began < shorter + 0.2
    task = asyncio.create_task(watchdog.limit(lambda: asyncio.sleep(5), loop.time() + 5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watchdog.close()
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
