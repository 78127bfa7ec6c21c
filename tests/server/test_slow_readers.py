"""Readers who take less than their run sends: waited for, cut off, or told what they missed."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from streamstack.language.settings import Streaming
from streamstack.runtime.run import Run
from streamstack.server.response import Backlog
from streamstack.server.response_options import Limits, ResponseOptions
from tests.server.declared import declared, eventually, small_reader
from tests.server.serving import Server, endpoint, parse, serving

#: Sends numbered lines of 1 KB as fast as it may; `sent` is noted at the end.
FAST = """
method: GET
path: /s
streaming: {%s}
functionStack:
  - after: {do: [{test.note: '<< run.outcome >>'}]}
  - set: {filling: '<< "x" * 1000 >>'}
  - repeat: {times: %d, do: [{stream: '<< filling >>'}]}
  - test.note: << stream.count >>
"""


async def until(noted: list[Any], count: int = 1) -> list[Any]:
    """Wait until so much has been noted."""
    await eventually(lambda: len(noted) >= count)
    return noted


def held(server: Server) -> int:
    """Return the bytes that the transports of all connections hold."""
    total = 0
    for connection in server.runner.server.connections:  # type: ignore[union-attr]
        transport = connection.transport
        total += 0 if transport is None else transport.get_write_buffer_size()
    return total


async def test_disconnect_cuts_off_a_reader_who_takes_nothing() -> None:
    """Its connection is reset, the run ends as if it had left, and the log tells why."""
    text = FAST % ("slowClient: {mode: disconnect, grace: 200ms}, buffer: 64KB", 100_000)
    with capture_logs() as logs:
        async with declared(text) as (server, noted):
            client = await small_reader(server, "/s")
            assert await until(noted) == ["cancelled"]
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(client.reader.read(), 10)
            assert not server.service.timers
    (told,) = [each for each in logs if each["event"] == "reader-dropped"]
    assert (told["code"], told["path"], told["log_level"]) == ("slow-client", "/s", "warning")
    assert told["chunks"] > 0


async def test_disconnect_leaves_a_reader_who_reads() -> None:
    """A run that is faster than its reader is not a reason to cut it off: only a buffer that stays full is."""
    text = FAST % ("slowClient: disconnect, buffer: 16KB, format: ndjson", 5_000)
    async with declared(text) as (server, noted):
        reply = await server.get()
        assert await until(noted, 2) == [5_000, "completed"]
    assert reply.complete
    assert reply.body.count(b"\n") == 5_000


async def test_disconnect_does_not_wait_for_the_rest_either() -> None:
    """Where the run is over, a reader who does not take the rest has the same grace."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        run.sink.emit("x" * 5_000_000, None, None, None)

    served = endpoint(stack, limits=Limits(closing=0.2), wire=ResponseOptions("text", slow="disconnect"))
    async with serving(served) as server:
        await small_reader(server, "/s")
        await asyncio.sleep(0.05)
        assert held(server)
        await eventually(lambda: not server.service.timers and not held(server))


@pytest.mark.parametrize("buffer", ["16KB", "256KB"])
async def test_drop_oldest_never_holds_the_run_back(buffer: str) -> None:
    """The run comes to its end without a reader; what is stored is bounded by `buffer`."""
    text = FAST % (f"slowClient: dropOldest, buffer: {buffer}", 20_000)
    async with declared(text) as (server, noted):
        client = await small_reader(server, "/s", "Connection: close\r\n")
        assert await until(noted) == [20_000]
        assert held(server) <= int(buffer[:-2]) * 1024 + 4096
        raw = await asyncio.wait_for(client.reader.read(), 20)
        assert await until(noted, 2) == [20_000, "completed"]
    assert parse(raw).complete


def events(body: bytes) -> list[tuple[str, int, Any]]:
    """Return event, id (-1 for none) and data of each event of a stream."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event", ""), int(fields.get("id", -1)), fields["data"]))
    return found


async def test_drop_oldest_tells_what_is_missing() -> None:
    """Each gap stands where the chunks are missing and has their number; the first chunk and the end are there."""
    text = FAST % ("slowClient: dropOldest, buffer: 32KB", 20_000)
    async with declared(text) as (server, noted):
        client = await small_reader(server, "/s", "Connection: close\r\n")
        await until(noted)
        raw = await asyncio.wait_for(client.reader.read(), 20)
    reply = parse(raw)
    assert reply.complete
    told = events(reply.body)
    expected, dropped = 0, 0
    for event, number, data in told[:-1]:
        if event == "gap":
            missing = json.loads(data)["dropped"]
            assert missing > 0
            expected += missing
            dropped += missing
        else:
            assert number == expected
            assert data == "x" * 1000
            expected += 1
    assert expected == 20_000
    assert told[0][1] == 0, "the first chunk"
    assert dropped > 10_000
    end = json.loads(told[-1][2])
    assert (told[-1][0], end["chunks"], end["dropped"]) == ("done", 20_000, dropped)
    # A gap is sent once: two never follow one another.
    assert not any(a[0] == b[0] == "gap" for a, b in pairwise(told))


async def test_drop_oldest_gives_what_is_new_once_there_is_room() -> None:
    """A reader who reads on gets the newest chunks, while the run goes on."""
    text = """
    method: GET
    path: /s
    streaming: {slowClient: dropOldest, buffer: 16KB, format: ndjson}
    functionStack:
      - while:
          condition: true
          limit: 100000000
          do: [{stream: '<< loop.index ~ "x" * 500 >>'}, {when: << loop.index % 50 == 0 >>, wait: 2ms}]
    """
    async with declared(text) as (server, _):
        client = await small_reader(server, "/s")
        await asyncio.sleep(0.5)
        data = b""
        async with asyncio.timeout(20):
            while data.count(b'{"gap"') < 2:
                data += await client.reader.read(1 << 16)
    lines = re.findall(rb'^(?:"(\d+)x+"|\{"gap":\{"dropped":(\d+)\}\})$', data, re.MULTILINE)
    expected = 1
    for number, dropped in lines[:-1]:
        if dropped:
            expected += int(dropped)
        else:
            assert int(number) == expected
            expected += 1
    assert expected > 100


async def test_drop_oldest_never_drops_the_error() -> None:
    """A run that fails while its reader is behind tells so at the end of what is left."""
    text = """
    method: GET
    path: /s
    streaming: {slowClient: dropOldest, buffer: 16KB, done: false}
    functionStack:
      - after: {do: [{test.note: '<< run.outcome >>'}]}
      - set: {filling: '<< "x" * 1000 >>'}
      - repeat: {times: 10000, do: [{stream: '<< filling >>'}]}
      - test.note: failing
      - throw: {code: out-of-tea, message: None left}
    """
    async with declared(text) as (server, noted):
        client = await small_reader(server, "/s", "Connection: close\r\n")
        assert await until(noted) == ["failing"]
        raw = await asyncio.wait_for(client.reader.read(), 20)
        assert await until(noted, 2) == ["failing", "failed"]
    reply = parse(raw)
    assert not reply.complete, "without an end marker a failed stream is cut short"
    assert b"event: gap" in reply.body
    assert reply.body.rstrip().split(b"event: ")[-1].startswith(b"error\ndata: {")
    assert b'"out-of-tea"' in reply.body


async def test_drop_oldest_of_a_reader_who_keeps_up_drops_nothing() -> None:
    """There is no gap, and no word of one at the end."""
    text = """
    method: GET
    path: /s
    streaming: {slowClient: dropOldest}
    functionStack:
      - repeat: {times: 50, do: [{stream: {content: tick, delay: 1ms}}]}
    """
    async with declared(text) as (server, _):
        reply = await server.get()
    assert [number for event, number, _ in events(reply.body)] == [*range(50), -1]
    assert b"gap" not in reply.body
    assert b"dropped" not in reply.body


async def test_drop_oldest_drops_a_reader_who_never_reads() -> None:
    """After `idleTimeout` without a byte taken it is cut off, though the run goes on sending."""
    text = """
    method: GET
    path: /s
    streaming: {slowClient: dropOldest, buffer: 16KB, idleTimeout: 300ms}
    functionStack:
      - after: {do: [{test.note: '<< run.outcome >>'}]}
      - set: {filling: '<< "x" * 10000 >>'}
      - while: {condition: true, limit: 100000000, do: [{stream: '<< filling >>'}, {wait: 1ms}]}
    """
    with capture_logs() as logs:
        async with declared(text) as (server, noted):
            await small_reader(server, "/s")
            assert await until(noted) == ["cancelled"]
    assert [each["code"] for each in logs if each["event"] == "reader-dropped"] == ["slow-client"]


@pytest.mark.parametrize("accept", ["text/plain", "text/csv"])
async def test_what_can_not_tell_of_a_gap_has_none(accept: str) -> None:
    """Where the reader chose a format without a word for it, the run is held back: nothing is left out in silence."""
    text = FAST % ("slowClient: dropOldest, buffer: 16KB", 5_000)
    async with declared(text) as (server, noted):
        client = await small_reader(server, "/s", f"Accept: {accept}\r\nConnection: close\r\n")
        await asyncio.sleep(0.3)
        assert noted == []
        reply = parse(await asyncio.wait_for(client.reader.read(), 20))
        assert await until(noted, 2) == [5_000, "completed"]
    assert reply.body.count(b"x" * 1000) == 5_000


async def test_a_default_of_the_project_is_for_who_can_tell() -> None:
    """An endpoint of a format without a word for gaps is served under such a default, and holds its run back."""
    text = FAST % ("format: text, buffer: 16KB", 5_000)
    async with declared(text, Streaming(slow_client="dropOldest")) as (server, noted):
        client = await small_reader(server, "/s", "Connection: close\r\n")
        await asyncio.sleep(0.2)
        assert noted == []
        reply = parse(await asyncio.wait_for(client.reader.read(), 20))
    assert len(reply.body) == 5_000_000


async def test_slow_readers_cost_their_buffer_and_no_more() -> None:
    """However fast the runs are, what is kept for readers who read nothing is bounded by `buffer` each."""
    text = FAST % ("buffer: 64KB", 1_000_000)
    readers = 30
    async with declared(text) as (server, _):
        for _ in range(readers):
            await small_reader(server, "/s")
        before = -1
        while before != (now := held(server)):
            before = now
            await asyncio.sleep(0.2)
        assert 0 < now <= readers * 66 * 1024


async def test_others_are_on_time_while_readers_do_not_read() -> None:
    """Paced streams beside fast runs without readers keep their order and lose nothing."""
    paced = """
    ---
    method: GET
    path: /paced
    functionStack:
      - repeat: {times: 20, do: [{stream: {content: tick, pace: {mode: fixed, interval: 20ms}}}]}
    """
    for mode in ("block", "dropOldest"):
        text = FAST % (f"buffer: 64KB, slowClient: {mode}", 20_000)
        async with declared(text.rstrip() + "\n" + paced.replace("\n    ", "\n")) as (server, _):
            for _ in range(10):
                await small_reader(server, "/s")
            replies = await asyncio.gather(*(server.get("/paced") for _ in range(20)))
        for reply in replies:
            assert reply.complete
            assert [number for _, number, _ in events(reply.body)] == [*range(20), -1]


def test_the_newest_chunk_stays_however_large() -> None:
    """A chunk larger than the whole backlog is held, alone; the next one drops it."""
    backlog = Backlog(1000)
    assert backlog.hold([b"a" * 100, b"b" * 100]) == 0
    assert backlog.hold([b"c" * 5000]) == 2
    assert backlog.hold([b"d" * 10]) == 1
    assert (backlog.lately, backlog.take()) == (3, b"d" * 10)
    assert backlog.hold([b"e" * 5000]) == 0
    assert (backlog.lately, backlog.take(), backlog.take()) == (0, b"e" * 5000, b"")
