"""Virtual time: projects that are served over real sockets, whose waits end at exact times and take no time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

import aiohttp
import orjson
import pytest
from aiohttp import web

import streamstack
from streamstack import clock
from streamstack.testing.virtual_time import VirtualTimeError, virtual_time
from tests.databases import *  # noqa: F403  (fixtures)
from tests.upstreams import Script, Upstream, Wire

T = TypeVar("T")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Answer:
    """An answer to one request. ``lines`` are those of the body that are not empty, with seconds since the request."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    lines: list[tuple[float, str]] = field(default_factory=list)
    end: float = 0.0

    def only(self, start: str) -> list[tuple[float, str]]:
        """Return the lines that begin so, without that."""
        return [(at, line.removeprefix(start)) for at, line in self.lines if line.startswith(start)]


class Client:
    """Requests to a project that is served in virtual time."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.began = clock.monotonic()

    def at(self) -> float:
        """Return the seconds since the test began."""
        return round(clock.monotonic() - self.began, 6)

    async def get(self, path: str = "/s", *, leave_after: int = -1, **headers: Any) -> Answer:
        began, answer = self.at(), Answer()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(path, headers=sent) as response:
            answer.status, answer.headers = response.status, response.headers
            async for line in response.content:
                if text := line.decode().strip():
                    answer.lines.append((round(self.at() - began, 6), text))
                if len(answer.only("data: ")) == leave_after:
                    break
        answer.end = round(self.at() - began, 6)
        return answer


@asynccontextmanager
async def serving(folder: Path, definitions: str, settings: str = "") -> AsyncIterator[Client]:
    """Serve definitions on a free port."""
    (folder / "endpoints.yaml").write_text(dedent(definitions))
    (folder / "streamstack.yaml").write_text(dedent(settings) or "{}")
    runner = web.AppRunner(streamstack.application(folder, environment={}))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url, timeout = f"http://127.0.0.1:{site.port}", aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(url, timeout=timeout) as session:
            yield Client(session)
    finally:
        await runner.cleanup()


def run(
    folder: Path, definitions: str, work: Callable[[Client], Awaitable[T]], settings: str = "", *scripts: Script
) -> T:
    """Serve definitions in virtual time, and do some work with them. An upstream's URL stands for UPSTREAM."""

    async def main() -> T:
        async with Upstream(*scripts) as upstream:
            text = definitions.replace("UPSTREAM", upstream.url)
            async with serving(folder, text, settings.replace("UPSTREAM", upstream.url)) as client:
                return await work(client)

    with virtual_time(START) as runner:
        return runner.run(main())


def get(client: Client) -> Awaitable[Answer]:
    """Read all of the stream."""
    return client.get()


STREAM = "method: GET\npath: /s\nfunctionStack:\n"


def test_minutes_of_a_stream_pass_at_once(tmp_path: Path) -> None:
    """Nine and a half minutes of chunks and heartbeats are read at exact times, in little time of the CPU."""
    text = STREAM.replace("functionStack", "streaming: {keepAlive: 15s}\nfunctionStack")
    text += "  - forEach: {in: << range(20) >>, do: [{stream: << item >>}, {wait: 28500ms}]}\n"
    before = time.process_time()
    answer = run(tmp_path, text, get)
    assert time.process_time() - before < 1.5
    assert answer.only("data: ")[:-1] == [(28.5 * number, str(number)) for number in range(20)]
    assert [at for at, _ in answer.only(":")] == [28.5 * number + 15 for number in range(20)]
    assert answer.end == 570


async def trickle(wire: Wire) -> None:
    """Send three events, the first after 0.1 s, then every 1.25 s."""
    await wire.head("Content-Type: text/event-stream")
    for number in range(3):
        await asyncio.sleep(1.25 if number else 0.1)
        await wire.chunk(f"data: {number}\n\n")
    await wire.chunk("")


async def never(wire: Wire) -> None:
    """Send one event, then nothing more."""
    await wire.events("0")
    await wire.left()


RELAY = """
  - http.stream: UPSTREAM
    as: answer
  - forEach: {in: << answer >>, do: [{stream: << item.data >>}]}
"""


@pytest.mark.parametrize(
    ("stack", "options", "scripts", "expected"),
    [
        pytest.param(
            "  - forEach: {in: << range(4) >>, do: [{stream: {content: << item >>, delay: 30ms}}]}",
            "",
            (),
            [(0, "0"), (0.03, "1"), (0.06, "2"), (0.09, "3")],
            id="delay",
        ),
        pytest.param(
            "  - stream: {content: abc, split: {by: characters}, pace: {mode: fixed, interval: 70ms}}",
            "",
            (),
            [(0, "a"), (0.07, "b"), (0.14, "c")],
            id="fixed pace",
        ),
        pytest.param(
            "  - forEach:\n      in: [a, bbb, cc]\n"
            "      do: [{stream: {content: << item >>, pace: {mode: adaptive, interval: 100ms}}}]",
            "",
            (),
            [(0, "a"), (0.1, "bbb"), (0.25, "cc")],
            id="adaptive pace",
        ),
        pytest.param(
            "  - streams.interval: {every: 20s, limit: 3}\n    as: ticks\n"
            "  - forEach: {in: << ticks >>, do: [{stream: << now() | date('%H:%M:%S') >>}]}",
            "",
            (),
            [(0, "12:00:00"), (20, "12:00:20"), (40, "12:00:40")],
            id="interval and now",
        ),
        pytest.param(
            "  - streams.interval: {every: 35s, limit: 2}\n    as: ticks\n"
            "  - streams.window: {in: << ticks >>, within: 10s, every: 10s, compute: {n: {op: count}}}\n"
            "    as: counts\n"
            "  - forEach: {in: << counts >>, do: [{stream: << item.n >>}]}",
            "",
            (),
            [(10, "1"), (20, "0"), (30, "0"), (35, "1")],
            id="windows",
        ),
        pytest.param(
            "  - stream: a\n  - wait: 7s\n  - stream: << run.elapsedMs >>\n  - wait: 100ms\n"
            "  - stream: << run.elapsedMs >>\n",
            "",
            (),
            [(0, "a"), (7, "7000"), (7.1, "7100")],
            id="elapsedMs",
        ),
        pytest.param(
            "  - stream: a\n  - wait: 7h\n  - stream: b",
            "streaming: {maxDuration: 2h, keepAlive: 0s, idleTimeout: 0s}\n",
            (),
            [(0, "a"), (7200, '{"code":"timeout"')],
            id="maxDuration",
        ),
        pytest.param(
            "  - stream: a\n  - wait: 20s\n  - stream: b\n  - wait: 40s",
            "streaming: {idleTimeout: 30s, keepAlive: 0s}\n",
            (),
            [(0, "a"), (20, "b"), (50, '{"code":"timeout"')],
            id="idleTimeout",
        ),
        pytest.param(RELAY, "", (trickle,), [(0.1, "0"), (1.35, "1"), (2.6, "2")], id="relay"),
        pytest.param(
            RELAY.replace("UPSTREAM", "{url: UPSTREAM, idleTimeout: 45s}"),
            "",
            (never,),
            [(0, "0"), (45, '{"code":"timeout"')],
            id="idle upstream",
        ),
    ],
)
def test_times_are_exact(
    tmp_path: Path, stack: str, options: str, scripts: tuple[Script, ...], expected: list[tuple[float, str]]
) -> None:
    """Whatever waits ends at the time that the definition says, to the microsecond."""
    text = STREAM.replace("functionStack", options + "functionStack")
    answer = run(tmp_path, text + stack, get, "", *scripts)
    found = [(at, line.partition(",")[0]) for at, line in answer.only("data: ")]
    assert (found if "code" in found[-1][1] else found[:-1]) == expected


async def refuse(wire: Wire) -> None:
    """Answer that it is busy, for 9 seconds."""
    await wire.send(b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


async def fail(wire: Wire) -> None:
    """Answer with 500."""
    await wire.send(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def test_retries_wait_as_they_say(tmp_path: Path) -> None:
    """Backoff and `Retry-After` pass in virtual time; a response that never begins meets its `firstChunkTimeout`."""
    called = []

    def noted(script: Script) -> Script:
        async def answer(wire: Wire) -> None:
            called.append(clock.monotonic())
            await script(wire)

        return answer

    text = STREAM + RELAY.replace("UPSTREAM", "UPSTREAM\n    retry: {times: 5, delay: 2s}")
    answer = run(tmp_path, text, get, "", noted(fail), noted(refuse), noted(trickle))
    assert answer.only("data: ")[:-1] == [(11.1, "0"), (12.35, "1"), (13.6, "2")]
    assert [round(at - called[0], 6) for at in called] == [0, 2, 11]


SETTINGS = """
authentication: {users: {type: jwt, secret: 0123456789abcdef0123456789abcdef, clockSkew: 0s}}
"""
SEVERAL = """
method: GET
path: /cached
responseType: json
functionStack:
  - cache.use: {key: k, ttl: 10m, do: [{return: << run.startedAt | date('%H:%M') >>}]}
    as: made
response: << made >>
---
method: GET
path: /limited
responseType: json
rateLimit: 2/hour
functionStack: []
response: 1
---
method: GET
path: /token
responseType: json
functionStack:
  - jwt.sign: {authentication: users, claims: {sub: ada}, expiresIn: 30m}
    as: token
response: << token >>
---
method: GET
path: /user
authentication: users
responseType: json
functionStack: []
response: << auth.sub >>
---
method: GET
path: /kept
streaming: {resume: {keep: 5m}}
functionStack:
  - forEach: {in: << range(4) >>, do: [{stream: << item >>}, {wait: 1m}]}
---
method: GET
path: /slow/{each}
inputParameters: {each: {type: integer}}
functionStack:
  - forEach: {in: << range(100) >>, do: [{wait: "<< input.each >>ms"}, {stream: << item >>}]}
"""


def test_what_expires_does_so_in_virtual_time(tmp_path: Path) -> None:
    """Cached values, windows of rate limits, tokens, and streams that are kept for clients who come back."""

    async def work(client: Client) -> None:
        async def body(path: str, **headers: Any) -> Any:
            answer = await client.get(path, **headers)
            text = "".join(line for _, line in answer.lines)
            return orjson.loads(text) if answer.status == 200 else answer.status

        bearer = f"Bearer {await body('/token')}"
        assert [await body("/cached"), await body("/limited"), await body("/limited")] == ["12:00", 1, 1]
        assert (await client.get("/limited")).headers["Retry-After"] == "3600"
        await asyncio.sleep(599)
        assert await body("/cached") == "12:00"
        await asyncio.sleep(1)
        assert await body("/cached") == "12:10"
        await asyncio.sleep(1199)
        assert await body("/user", Authorization=bearer) == "ada"
        await asyncio.sleep(1)
        assert await body("/user", Authorization=bearer) == 401
        assert await body("/limited") == 429
        await asyncio.sleep(1800)
        assert await body("/limited") == 1

        left = await client.get("/kept", leave_after=2)
        assert left.only("data: ") == [(0, "0"), (60, "1")]
        stream = f"/_streams/{left.headers['X-Stream-Id']}?after=1"
        await asyncio.sleep(30)
        answer = await client.get(stream)
        assert answer.only("data: ")[:-1] == [(30, "2"), (90, "3")]
        await asyncio.sleep(299)
        assert (await client.get(stream)).status == 200
        await asyncio.sleep(301)
        assert (await client.get(stream)).status == 404

    run(tmp_path, SEVERAL, work, SETTINGS)


def test_runs_side_by_side_have_one_time(tmp_path: Path) -> None:
    """Each of several streams has its own exact times, whatever the others do."""

    async def work(client: Client) -> list[Answer]:
        return await asyncio.gather(*(client.get(f"/slow/{each}") for each in (20, 30, 70, 11)))

    for each, answer in zip((20, 30, 70, 11), run(tmp_path, SEVERAL, work, SETTINGS), strict=True):
        expected = [(round(each * (number + 1) / 1000, 6), str(number)) for number in range(100)]
        assert answer.only("data: ")[:-1] == expected


DATABASE = """
method: GET
path: /s
functionStack:
  - parallel:
      branches:
        ticks: [{forEach: {in: << range(3) >>, do: [{stream: << item >>}, {wait: 10s}]}}]
        rows:
          - db.query: SELECT pg_sleep(0.3)
          - stream: slept
          - db.transaction:
              do:
                - db.query: CREATE TABLE t AS SELECT 1 AS n
                - wait: 15s
                - db.query: SELECT pg_notify('news', 'done')
          - stream: committed
---
method: GET
path: /news
functionStack:
  - db.listen: news
    as: news
  - streams.take: {in: << news >>, count: 1}
    as: one
  - forEach: {in: << one >>, do: [{stream: << item.payload >>}]}
"""


def test_time_stands_still_while_a_database_is_at_work(tmp_path: Path, postgres: str) -> None:
    """Statements take no time, though real ones; a wait within a transaction does; a notice comes when it is sent."""

    async def work(client: Client) -> tuple[Answer, Answer]:
        news = asyncio.create_task(client.get("/news"))
        await asyncio.sleep(5)
        return await client.get(), await news

    answer, news = run(tmp_path, DATABASE, work, f"databases: {{main: {{url: {postgres}}}}}")
    expected = [(0, "0"), (0, "slept"), (10, "1"), (15, "committed"), (20, "2")]
    assert sorted(answer.only("data: ")[:-1]) == expected
    assert news.only("data: ")[:-1] == [(20, "done")]


def test_an_endless_wait_is_reported() -> None:
    """Where no timer is left, the test fails after some real seconds, and says where its tasks wait."""

    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with (
        pytest.raises(
            VirtualTimeError, match=r"no timer is set, at [\d.]+ s of virtual time; waiting are:\n.*wait_for_ever"
        ),
        virtual_time(stall_limit=0.1) as runner,
    ):
        runner.run(wait_for_ever())
    assert clock.monotonic is time.monotonic


@pytest.mark.parametrize("pause", [0, 1])
def test_an_endless_test_is_ended(pause: int) -> None:
    """Where something always happens, be it by timers, the real time of the test is limited."""

    async def work() -> None:
        for _ in count():
            await asyncio.sleep(pause)

    expected = pytest.raises(
        VirtualTimeError, match=r"after 0\.2 s of real time, at [\d.]+ s of virtual time; waiting are:"
    )
    with expected, virtual_time(limit=0.2) as runner:
        runner.run(work())


def test_threads_are_waited_for() -> None:
    """Work in a thread takes no virtual time."""

    async def work() -> float:
        began = clock.monotonic()
        async with asyncio.timeout(0.05):
            await asyncio.to_thread(time.sleep, 0.2)
        return clock.monotonic() - began

    with virtual_time(START) as runner:
        assert runner.run(work()) == 0
