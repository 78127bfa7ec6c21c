"""How much of a stream is kept, for how long, and what its run waits for."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.server.authenticating import project
from tests.server.resuming import NONE, contents, counting, drop_after, events, until


async def test_a_run_whose_reader_does_not_come_back_is_cancelled(tmp_path: Path) -> None:
    """It waits for `keep`; a late client learns that it was stopped, for as long as that is stored."""
    definition = counting(times=10_000, streaming="resume: {keep: 300ms}")
    async with project(tmp_path, NONE, definition) as server:
        had = await drop_after(server, "/count", 200)
        name = events(had)[0]["id"].partition("/")[0]
        assert len(server.service.timers) == 1
        await asyncio.sleep(0.1)
        assert len(server.service.timers) == 1
        await until(lambda: not len(server.service.timers))
        assert not server.service.timers
        late = await server.get(f"/_streams/{name}", Last_Event_ID=events(had)[-1]["id"])
        assert contents(late.body)[-1] == "error"
        assert json.loads(events(late.body)[-1]["data"])["code"] == "stopped"
        await until(lambda: not len(server.service.streams))
        assert (await server.get(f"/_streams/{name}")).status == 404
        assert server.service.streams.size == 0


async def test_a_run_that_is_to_finish_is_not_cancelled(tmp_path: Path) -> None:
    """With `onDisconnect: finish` it goes on to its end without any reader."""
    definition = counting(times=100, streaming="resume: {keep: 5s}, onDisconnect: finish")
    async with project(tmp_path, NONE, definition) as server:
        had = await drop_after(server, "/count", 200)
        name = events(had)[0]["id"].partition("/")[0]
        await until(lambda: not server.service.timers)
        rest = await server.get(f"/_streams/{name}", Last_Event_ID=events(had)[-1]["id"])
        assert [*contents(had), *contents(rest.body)] == [f"{{{n}}}" for n in range(1, 101)] + ["done"]


async def test_a_gap_is_told(tmp_path: Path) -> None:
    """Chunks that are no longer stored are reported by their numbers, before those that are."""
    definition = counting(times=50, delay="0ms", streaming="resume: {maxChunks: 10}")
    async with project(tmp_path, NONE, definition) as server:
        whole = await server.get("/count")
        name = whole.headers["x-stream-id"]
        assert len(contents(whole.body)) == 51
        rest = events((await server.get(f"/_streams/{name}?after=19")).body)
        assert rest[0]["event"] == "gap"
        assert json.loads(rest[0]["data"]) == {"from": 20, "to": 40}
        assert rest[0]["id"] == f"{name}/40"
        assert [each.get("data") for each in rest[1:-1]] == [f"{{{n}}}" for n in range(42, 51)]
        lines = await server.get("/count", Accept="application/x-ndjson")
        assert len(lines.body.splitlines()) == 50
        name = lines.headers["x-stream-id"]
        told_ = (await server.get(f"/_streams/{name}")).body.splitlines()
        assert json.loads(told_[0]) == {"gap": {"from": 0, "to": 39}, "id": f"{name}/39"}
        assert len(told_) == 11


async def test_without_a_reader_a_run_waits_before_it_outruns_what_is_kept(tmp_path: Path) -> None:
    """A run that would be cancelled does not drop what its reader has not had: who comes back gets everything."""
    definition = counting(times=5000, delay="0ms", streaming="resume: {maxChunks: 40, keep: 5s}")
    definition = definition.replace("{<< loop.index >>}", "{<< loop.index >>}" + "x" * 4000)
    async with project(tmp_path, NONE, definition) as server:
        had = await drop_after(server, "/count", 20_000)
        numbers = [int(each["id"].rpartition("/")[2]) for each in events(had)]
        name = events(had)[0]["id"].partition("/")[0]
        await asyncio.sleep(0.2)
        (stream,) = server.service.streams
        assert stream.log.end is None
        assert stream.log.next < 5000
        rest = await server.get(f"/_streams/{name}", Last_Event_ID=f"{name}/{numbers[-1]}")
        kinds = [each.get("event", "chunk") for each in events(rest.body)]
        # What had been written to the first connection and was never read may be gone: that is reported.
        assert kinds.count("gap") <= 1
        later = [int(each["id"].rpartition("/")[2]) for each in events(rest.body) if "event" not in each]
        assert later == list(range(later[0], 5000))
        if "gap" not in kinds:
            assert later[0] == numbers[-1] + 1


async def test_a_slow_reader_holds_the_run_back_and_misses_nothing(tmp_path: Path) -> None:
    """However little is kept: while a reader is there, nothing is dropped that it has not had."""
    definition = counting(times=3000, delay="0ms", streaming="resume: {maxChunks: 5}, buffer: 16KB")
    definition = definition.replace("{<< loop.index >>}", "{<< loop.index >>}" + "x" * 4000)
    async with project(tmp_path, NONE, definition) as server:
        client = await server.connect(limit=4096)
        client.ask("/count", extra="Connection: close\r\n")
        await client.head()
        await asyncio.sleep(0.3)
        (stream,) = server.service.streams
        assert stream.log.next < 3000
        held = stream.log.next
        await asyncio.sleep(0.1)
        assert stream.log.next == held
        body = await client.rest()
        assert len(contents(body)) == 3001


async def test_too_many_readers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream has a limited number of readers; who was refused may come when one has gone."""
    monkeypatch.setattr("streamstack.server.resume.requests.MOST_READERS", 2)
    async with project(tmp_path, NONE, counting(times=1000)) as server:
        client = await server.connect()
        client.ask("/count")
        name = re.findall(rb"X-Stream-Id: (\S+)", await client.head())[0].decode()
        second = await server.connect()
        second.ask(f"/_streams/{name}")
        await second.head()
        third = await server.get(f"/_streams/{name}")
        assert (third.status, json.loads(third.body)["code"]) == (429, "rate-limited")
        second.close()
        for _ in range(100):
            fourth = await server.connect()
            fourth.ask(f"/_streams/{name}")
            if b" 200 " in await fourth.head():
                break
            fourth.close()
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("no client was admitted")


async def test_what_is_kept_of_all_streams_is_bounded(tmp_path: Path) -> None:
    """What has ended longest goes first, then the oldest chunks of what grows."""
    settings = "state: {maxSize: 40KB}\n"
    definition = counting(times=10, delay="0ms").replace("{<< loop.index >>}", "x" * 1000)
    async with project(tmp_path, settings, definition) as server:
        names = [(await server.get("/count")).headers["x-stream-id"] for _ in range(6)]
        assert server.service.streams.size <= 40 * 1024
        found = [(await server.get(f"/_streams/{name}")).status for name in names]
        assert found == [404, 404, 404, 200, 200, 200]


async def test_heartbeats_reach_those_who_came_back(tmp_path: Path) -> None:
    """A silent run sends heartbeats to each of its readers, and begins the answer with one."""
    definition = """
method: GET
path: /silent
streaming: {resume: true, keepAlive: 60ms}
functionStack:
  - wait: 300ms
  - stream: late
  - wait: 300ms
"""
    async with project(tmp_path, NONE, definition) as server:
        client = await server.connect()
        client.ask("/silent")
        name = re.findall(rb"X-Stream-Id: (\S+)", await client.head())[0].decode()
        other = await server.get(f"/_streams/{name}")
        assert other.body.startswith(b":\n")
        assert other.body.count(b":\n") >= 3
        assert contents(other.body.replace(b":\n", b"")) == ["late", "done"]
        client.close()


async def test_a_reader_who_left_before_the_stream_began_ends_the_run(tmp_path: Path) -> None:
    """No client knows its id: none could come back."""
    definition = """
method: GET
path: /late
streaming: {resume: true}
functionStack:
  - wait: 10s
  - stream: late
"""
    async with project(tmp_path, NONE, definition) as server:
        client = await server.connect()
        client.ask("/late")
        await until(lambda: bool(server.service.timers))
        client.close()
        await until(lambda: not len(server.service.timers))
        assert not server.service.timers


async def test_shutting_down_ends_streams_with_an_error(tmp_path: Path) -> None:
    """Readers receive `producer-lost`; a run that only waits for its reader is not waited for."""
    async with project(tmp_path, NONE, counting(times=100_000)) as server:
        had = await drop_after(server, "/count", 200)
        assert had
        client = await server.connect()
        client.ask("/count")
        await client.head()
        await server.service.drain(0.2)
        body = await client.rest()
        assert json.loads(events(body)[-1]["data"])["code"] == "producer-lost"
        assert not server.service.timers
        refused = await server.get("/_streams/" + "A" * 22)
        assert refused.status == 503


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_slow_reader_is_cut_off_in_the_open(tmp_path: Path, version: str) -> None:
    """He sees a broken connection, in HTTP/1.0 as well, where any other end would look like a good one."""
    streaming = "resume: true, buffer: 8KB, slowClient: {mode: disconnect, grace: 200ms}"
    definition = counting(times=3000, delay="0ms", streaming=streaming)
    definition = definition.replace("{<< loop.index >>}", "<< 'x' * 4000 >>")
    async with project(tmp_path, NONE, definition) as server:
        client = await server.connect(limit=2048)
        client.ask("/count", version=version)
        assert b" 200 " in await client.head()
        await asyncio.sleep(1)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client.reader.read(), 10)
