"""The definitions of this repository, served by the command and read on a socket: what the project exists for."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp
import asyncpg
import pytest
import pytest_asyncio
from click.testing import CliRunner

from streamstack.cli import main
from tests.server.processes import Process, serving
from tests.server.serving import parse

DEFINITIONS = Path(__file__).parent.parent / "definitions"


@pytest.fixture(autouse=True)
def database(shared_postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the definitions use a database of the tests: that of this checkout may be in use."""
    monkeypatch.setenv("DATABASE_URL", shared_postgres)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Process]:
    """Serve definitions/ as `make serve` does."""
    async with serving(DEFINITIONS) as process:
        yield process


def events(body: bytes) -> list[dict[str, str]]:
    """Take an SSE body apart, naively: it is our own bytes that are looked at."""
    found = []
    for block in body.decode().split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, colon, value = line.partition(": ")
            if colon:
                fields[name] = fields[name] + "\n" + value if name in fields else value
        if fields:
            found.append(fields)
    return found


async def poem(server: Process, **options: int) -> list[dict[str, str]]:
    """Ask for the poem over SSE."""
    body = json.dumps({"streamOptions": options}).encode()
    reply = await server.ask("POST", "/api/stream-poem", body, "Accept: text/event-stream\r\n")
    assert (reply.status, reply.complete) == (200, True)
    return events(reply.body)


async def test_the_poem_is_recited(server: Process) -> None:
    """Each chunk has its index, the total and a time; the end marker has the figures."""
    *chunks, end = await poem(server, chunkSize=2)
    data = [json.loads(chunk["data"]) for chunk in chunks]
    assert [chunk["id"] for chunk in chunks] == ["0", "1", "2", "3", "4"]
    assert [each["metadata"]["chunkIndex"] for each in data] == [0, 1, 2, 3, 4]
    assert {each["metadata"]["totalChunks"] for each in data} == {5}
    assert all(re.fullmatch(r"\S+T\S+Z", each["metadata"]["timestamp"]) for each in data)
    assert "".join(each["content"] for each in data).count("\n") == 9
    assert end["event"] == "done"
    final = json.loads(end["data"])
    assert final["content"] == "[DONE]"
    assert final["metadata"]["completed"] is True
    assert final["metadata"]["totalChunks"] == 5
    assert final["metadata"]["processingTime"] >= 0


async def first_chunk(server: Process, body: bytes) -> tuple[float, list[float]]:
    """Return the seconds to the first byte of content, and the times of every read after it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    began = perf_counter()
    writer.write(
        b"POST /api/stream-poem HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        b"Connection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    times = []
    while await reader.read(65536):
        times.append(perf_counter() - began)
    writer.close()
    return times[0], times


async def test_the_first_chunk_is_there_at_once_and_each_paced_one_by_itself(server: Process) -> None:
    """The first chunk within 100 ms (the median of nine); paced chunks in reads of their own, spread over time."""
    firsts = []
    for _ in range(9):
        first, times = await first_chunk(server, b'{"options": {"delay": 30}}')
        firsts.append(first)
        assert len(times) >= 9  # nine lines, nine reads at least; the end may come with the last
        assert times[-1] - times[0] >= 8 * 0.030 * 0.9
    assert median(firsts) < 0.1


async def test_without_a_stream_the_answer_is_one_document(server: Process) -> None:
    """A client that only takes JSON gets the whole poem at once."""
    reply = await server.ask("POST", "/api/stream-poem", b"{}", "Accept: application/json\r\n")
    document = json.loads(reply.body)
    assert len(document["chunks"]) == 9
    assert document["metadata"]["completed"] is True


async def test_the_poem_as_text(server: Process) -> None:
    """Text is the content and nothing else."""
    reply = await server.ask("POST", "/api/stream-poem", b"{}", "Accept: text/plain\r\n")
    assert reply.body.startswith(b"The river does not wait to be a river,\n")
    assert len(reply.body.splitlines()) == 9


async def test_the_countdown_counts(server: Process) -> None:
    """Events have names, and the beat is kept."""
    began = perf_counter()
    reply = await server.ask("GET", "/api/countdown?from=3&beat=40")
    assert perf_counter() - began >= 0.1
    *ticks, liftoff, done = events(reply.body)
    assert [(tick["event"], tick["data"]) for tick in ticks] == [("tick", "3"), ("tick", "2"), ("tick", "1")]
    assert (liftoff["event"], liftoff["data"]) == ("liftoff", "Lift-off!")
    assert json.loads(done["data"])["chunks"] == 4


async def test_a_text_is_split_every_way(server: Process) -> None:
    """Whatever it is cut by, the pieces joined are the text."""
    text = "First line, with words.\nSecond line! And a third sentence?  Yes.\n"
    for by in ("characters", "words", "sentences", "lines"):
        for mode in ("burst", "fixed", "adaptive", "natural"):
            asked = {"text": text, "by": by, "size": 1, "mode": mode, "interval": 1}
            reply = await server.ask(
                "POST", "/api/split-text", json.dumps(asked).encode(), "Accept: application/x-ndjson\r\n"
            )
            *pieces, done = [json.loads(line) for line in reply.body.splitlines()]
            assert "".join(piece["content"] for piece in pieces) == text, (by, mode)
            assert [p["metadata"]["piece"] for p in pieces] == list(range(len(pieces)))
            assert done["done"]["pieces"] == len(pieces) > 1


async def test_a_failure_is_told_on_either_side_of_the_commit_point(server: Process) -> None:
    """After three chunks an error event; before the first a status; in one document a status, too."""
    midway = await server.ask("GET", "/api/fails-midway", extra="Accept: text/event-stream\r\n")
    assert midway.status == 200
    *chunks, error = events(midway.body)
    assert [chunk["data"] for chunk in chunks] == ["Line 1", "Line 2", "Line 3"]
    assert error["event"] == "error"
    assert json.loads(error["data"])["code"] == "out-of-ink"

    text = await server.ask("GET", "/api/fails-midway", extra="Accept: text/plain\r\n")
    assert not text.complete

    early = await server.ask("GET", "/api/fails-midway?after=0")
    assert (early.status, json.loads(early.body)["code"]) == (409, "nothing-to-send")
    whole = await server.ask("GET", "/api/fails-midway", extra="Accept: application/json\r\n")
    assert (whole.status, json.loads(whole.body)["code"]) == (503, "out-of-ink")
    log = "\n".join(server.lines)
    assert "Traceback" not in log


async def test_statistics_are_one_answer(server: Process) -> None:
    """`responseType: json` answers its `response`; a bad request names every fault."""
    reply = await server.ask("POST", "/api/text-statistics", b'{"text": "To be, or not to be."}')
    assert json.loads(reply.body) == {"characters": 20, "words": 6, "readingTime": 1.8}
    bad = await server.ask("POST", "/api/text-statistics", b'{"perMinute": 0, "speed": 1}')
    faults = {(each["in"], each["name"]) for each in json.loads(bad.body)["errors"]}
    assert bad.status == 400
    assert faults == {("body", "text"), ("body", "perMinute"), ("body", "speed")}


async def test_a_csv_file_is_imported_with_its_progress(server: Process, shared_postgres: str) -> None:
    """Bad rows are reported and skipped, the others stored; each batch gives its progress, the end the sums."""
    rows = "".join(f"{n},x{n}\n" if n % 100 else f"{n}\n" for n in range(1, 1001))
    part = "--X\r\nContent-Disposition: form-data; name="
    body = f'{part}"file"; filename="a.csv"\r\n\r\nid,name\n{rows}\r\n{part}"batchSize"\r\n\r\n250\r\n--X--\r\n'
    client = await server.connect()
    client.ask(
        "/api/csv-import",
        "POST",
        extra=f"Content-Type: multipart/form-data; boundary=X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n",
    )
    client.writer.write(body.encode())
    reply = parse(await asyncio.wait_for(client.reader.read(), 10))
    client.close()
    assert (reply.status, reply.complete) == (200, True), reply.body
    found = [(each["event"], json.loads(each["data"])) for each in events(reply.body)]
    rejected = [data for event, data in found if event == "rejected"]
    assert [(each["number"], each["line"]) for each in rejected] == [(n, n + 1) for n in range(100, 1001, 100)]
    progress = [data for event, data in found if event == "progress"]
    assert [each["imported"] + each["rejected"] for each in progress] == [250, 500, 750, 1000]
    assert progress[-1]["percent"] == 100
    assert found[-1][0] == "done"
    assert (found[-1][1]["imported"], found[-1][1]["rejected"]) == (990, 10)
    stored = await asyncpg.connect(shared_postgres)
    count, last = await stored.fetchrow(
        "SELECT count(*), max((columns->>'id')::int) FROM imported WHERE import = $1::text::uuid",
        found[-1][1]["import"],
    )
    await stored.close()
    assert (count, last) == (990, 999)


async def test_a_webhook_is_answered_while_it_arrives(server: Process) -> None:
    """The figures of each reading come before the next one is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"POST /api/sensor-webhook?alarmAbove=5 HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    for value, mean in ((2, b'"mean":2'), (4, b'"mean":3'), (9, b'"mean":5')):
        line = b'{"sensor": "a", "value": %d}\n' % value
        writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        answer = await asyncio.wait_for(reader.readuntil(b'"value":%d,' % value), 10)
        answer += await asyncio.wait_for(reader.readuntil(b"}"), 10)
        assert b'"highest":%d' % value in answer
        assert mean in answer
    writer.write(b"5\r\noops\n\r\n0\r\n\r\n")
    rest = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10)
    assert b'"alarm"' in rest
    assert b'"readings":3,"skipped":1' in rest
    writer.close()


BURST = """
method: GET
path: /burst
functionStack:
  - repeat: {times: 10000, do: [{stream: << loop.index0 >>}]}
"""
TURNS = """
method: GET
path: /turns
responseType: json
functionStack:
  - set: {n: 0}
  - while:
      condition: << n < 1000000 >>
      limit: 1000000
      do: [{set: {n: << n + 1 >>}}]
response: << n >>
"""
QUICK = """
method: GET
path: /quick
responseType: json
functionStack: []
response: ok
"""
ENDLESS = """
method: GET
path: /endless
functionStack:
  - streams.interval: 20ms
    as: ticks
  - after: {do: [{log: {message: closed, fields: {outcome: << run.outcome >>, ticks: << ticks.finished >>}}}]}
  - forEach: {in: << ticks >>, do: [{stream: << item >>}]}
"""


async def test_a_burst_leaves_in_few_writes(tmp_path: Path) -> None:
    """Ten thousand chunks made at once are put together; none is lost, none is out of order."""
    async with serving(tmp_path, burst=BURST) as server:
        reply = await server.ask("GET", "/burst")
    assert len(reply.chunks) < 100  # frames of HTTP's chunked coding, of which each is one write
    assert [each["data"] for each in events(reply.body)[:-1]] == [str(n) for n in range(10000)]


async def test_a_million_turns_keep_nobody_waiting(tmp_path: Path) -> None:
    """While one run computes for seconds, another endpoint answers; its p99 is measured in benchmarks/."""
    async with serving(tmp_path, turns=TURNS, quick=QUICK) as server:
        started = perf_counter()
        turning = asyncio.create_task(server.ask("GET", "/turns"))
        await asyncio.sleep(0.05)
        times = []
        while not turning.done():
            began = perf_counter()
            assert (await server.ask("GET", "/quick")).body == b'"ok"'
            times.append(perf_counter() - began)
        assert (await turning).body == b"1000000"
        took = perf_counter() - started
    # Who is kept waiting waits for the whole run.
    assert len(times) >= 5
    assert median(times) < took / 5


async def test_a_reader_who_leaves_ends_the_run(tmp_path: Path) -> None:
    """The run ends soon after its reader has left, and what it registered with `after` runs."""
    async with serving(tmp_path, endless=ENDLESS) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"id: 2")
        writer.close()
        await asyncio.sleep(0.5)
        assert await server.stop() == 0
    ends = [line for line in server.lines if "closed" in line]
    assert len(ends) == 1
    assert "cancelled" in ends[0]


async def test_the_dashboard_sends_only_what_changed(server: Process) -> None:
    """A client that applies the changes has the figures of the last ten requests; most measurements change none."""
    ndjson = "Accept: application/x-ndjson\r\n"
    reply = await server.ask("GET", "/api/dashboard?beat=1&count=60", extra=ndjson)
    *changes, done = [json.loads(line) for line in reply.body.splitlines()]
    assert done["done"]["measured"] == 60
    assert len(changes) == done["done"]["sent"] < 40
    shown: dict[str, dict[str, Any]] = {}
    for each in changes:
        service, changed = each["content"]["service"], each["content"]["changed"]
        assert (each["event"] == "service") == (service not in shown)
        board = shown.setdefault(service, {})
        assert changed
        for name, change in changed.items():
            assert change["previous"] == board.get(name)
            if name in board:
                assert change["delta"] == change["value"] - board[name] != 0
                assert change["trend"] == ("up" if change["delta"] > 0 else "down")
            board[name] = change["value"]
    assert set(shown) == {"shop", "search", "mail"}
    for service, board in shown.items():
        place = ["shop", "search", "mail"].index(service)
        mine = [tick for tick in range(1, 61) if tick % 3 == place][-10:]
        times = sorted(40 + tick * 7919 % 4 * 20 for tick in mine)
        assert board == {
            "slowest": times[-1],
            # Nine tenths of the way along ten numbers lies a tenth of the way from the ninth to the tenth.
            "p90": times[8] + (times[9] - times[8]) / 10,
            "failed": sum(tick % 8 == 0 for tick in mine),
        }


ROLLING = """
method: GET
path: /rolling
functionStack:
  - streams.interval: {every: 40ms, limit: 4}
    as: ticks
  - streams.window: {in: << ticks >>, size: 2, compute: {mean: {op: mean}, all: {op: count}}}
    as: figures
  - forEach: {in: << figures >>, do: [{stream: << item >>}]}
---
method: GET
path: /quiet
functionStack:
  - streams.interval: {every: 1h}
    as: ticks
  - streams.window: {in: << ticks >>, within: 30ms, every: 30ms, compute: {came: {op: count}}}
    as: figures
  - streams.take: {in: << figures >>, count: 4}
    as: few
  - forEach: {in: << few >>, do: [{stream: << item >>}]}
"""


async def test_figures_leave_as_they_are_made(tmp_path: Path) -> None:
    """Each in bytes of its own, while the items after it have not come yet; those of a timer though nothing comes."""
    async with serving(tmp_path, rolling=ROLLING) as server:
        for path, expected in (
            ("/rolling", [(1.0, 1), (1.5, 2), (2.5, 2), (3.5, 2)]),
            ("/quiet", [(1,), (0,), (0,), (0,)]),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(
                b"GET %s HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n"
                b"Connection: close\r\n\r\n" % path.encode()
            )
            await reader.readuntil(b"\r\n\r\n")
            began, times, told = perf_counter(), [], []
            for _ in expected:
                line = await asyncio.wait_for(reader.readuntil(b"}\n"), 10)
                told.append(tuple(json.loads(line[line.index(b"{") :]).values()))
                times.append(perf_counter() - began)
            writer.close()
            assert told == expected
            assert times[-1] > times[0] + 0.06


CACHED = """
method: GET
path: /cached
responseType: json
functionStack:
  - cache.use:
      key: slow
      ttl: 1m
      do:
        - counter.add: made
          as: made
        - wait: 200ms
        - return: << made >>
    as: value
  - counter.add: asked
    as: asked
response: {value: << value >>, asked: << asked >>}
"""


async def test_callers_share_what_is_cached(tmp_path: Path) -> None:
    """Twenty at once have the value made once; a caller who leaves while making it hands over to another."""
    async with serving(tmp_path, cached=CACHED) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /cached HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.05)
        asking = [asyncio.create_task(server.ask("GET", "/cached")) for _ in range(20)]
        await asyncio.sleep(0.05)
        writer.close()
        replies = [json.loads((await each).body) for each in asking]
        assert {reply["value"] for reply in replies} == {2}
        assert sorted(reply["asked"] for reply in replies) == list(range(1, 21))
        assert json.loads((await server.ask("GET", "/cached")).body) == {"value": 2, "asked": 21}


async def test_the_private_stream_is_for_those_who_have_a_token(server: Process) -> None:
    """Without a token 401, without the scope 403; with both the stream, by a token of `streamstack token`."""
    command = ["token", "--auth", "jwt", "--dir", str(DEFINITIONS), "--claim", "sub=ada"]
    plain, scoped = (
        CliRunner().invoke(main, [*command, *more]).stdout.strip()
        for more in ([], ["--scope", "chat", "--scope", "read"])
    )
    nobody = await server.ask("GET", "/api/private-stream")
    lacking = await server.ask("GET", "/api/private-stream", b"", f"Authorization: Bearer {plain}\r\n")
    reply = await server.ask("GET", "/api/private-stream", b"", f"Authorization: Bearer {scoped}\r\n")
    assert (nobody.status, lacking.status, reply.status) == (401, 403, 200)
    first, second, end = events(reply.body)
    assert (first["data"], second["data"]) == ("ada may chat.", "ada may read.")
    assert json.loads(end["data"])["subject"] == "ada"


async def test_nobody_has_too_much_of_the_fair_share(tmp_path: Path) -> None:
    """Three calls in ten seconds, two streams at once; a client over its limit learns when to come again."""
    text = (DEFINITIONS / "fair-share.yaml").read_text("utf-8")
    async with serving(tmp_path, fair=text) as server:
        readers = [await server.connect() for _ in range(3)]
        heads = []
        for each in readers:
            each.ask("/api/fair-share")
            heads.append(await each.head())
        assert [head.split(b" ")[1] for head in heads] == [b"200", b"200", b"429"]
        assert b"Retry-After: 1\r\n" in heads[2]
        assert b"RateLimit-Remaining: 1\r\n" in heads[1]
        for each in readers:
            each.close()
        await asyncio.sleep(0.2)
        reply = await server.ask("GET", "/api/fair-share?words=2")
        assert [each["data"] for each in events(reply.body)][:2] == ["word 1", "word 2"]
        refused = await server.ask("GET", "/api/fair-share?words=2")
        assert (refused.status, json.loads(refused.body)["code"]) == (429, "rate-limited")
        assert 5 <= int(refused.headers["retry-after"]) <= 10


async def test_the_long_report_waits_for_its_reader(server: Process) -> None:
    """A reader whose connection breaks off comes back with the id of his last page, and reads on."""
    client = await server.connect()
    client.ask("/api/long-report?pages=30&beat=20")
    await client.head()
    had = b""
    while had.count(b"event: page") < 3:
        had += await client.chunk()
    client.close()
    last = events(had)[-1]["id"]
    rest = await server.ask("GET", "/api/long-report", extra=f"Last-Event-ID: {last}\r\n")
    read = events(had) + events(rest.body)
    assert [each["data"] for each in read[:-1]] == [f"Page {n} of 30" for n in range(1, 31)]
    assert read[-1]["event"] == "done"
    again = await server.ask("GET", f"/_streams/{last.partition('/')[0]}")
    assert events(again.body) == read


async def test_an_announcement_reaches_every_destination(server: Process) -> None:
    """Readers over SSE and WebSocket get it, and the response has the outcome of each destination."""
    address = f"http://127.0.0.1:{server.port}/api/broadcasts"
    reading = asyncio.create_task(
        server.ask("GET", "/api/broadcasts/live?limit=1", b"", "Accept: text/event-stream\r\n")
    )
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{address}/live?limit=1") as socket:
        await asyncio.sleep(0.2)
        async with session.post(address, json={"title": "News", "text": "We are open."}) as answer:
            *sent, end = events(await answer.read())
        message = await socket.receive_json(timeout=5)
    outcomes = {each["destination"]: each["result"] for each in (json.loads(one["data"]) for one in sent)}
    assert {each["event"] for each in sent} == {"sent"}
    assert outcomes.keys() == {"readers", "database", "webhook", "mail"}
    assert (outcomes["webhook"], outcomes["mail"]) == (1, ["news@example.org", "ada@example.org", "grace@example.org"])
    assert end["event"] == "done"
    (read, _) = events((await reading).body)
    announcement = {"id": outcomes["database"], "title": "News", "text": "We are open."}
    assert (json.loads(read["data"]), message["content"]) == (announcement, announcement)
