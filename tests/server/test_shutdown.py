"""How a server stops: told first, heard to the end, nothing cut in silence."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import pytest

from tests.server.declarations import HELLO, KEPT, SLOW, both
from tests.server.processes import Process, serving, start
from tests.server.serving import Client, parse

#: Some of these are over before the server loses its patience, others are not.
MIXED = """
path: /mixed/{times}
method: GET
inputParameters: {times: {type: integer, required: true}}
functionStack:
  - repeat:
      times: << input.times >>
      do:
        - stream: {content: << loop.index >>, delay: 50ms}
"""
AFTER = """
path: /after
method: GET
functionStack:
  - after:
      do:
        - wait: 300ms
        - log: "after ran: << run.outcome >>"
  - repeat:
      times: 1000
      do:
        - stream: {content: << loop.index >>, delay: 50ms}
"""


async def answer(client: Client, path: str) -> tuple[bytes, bytes]:
    """Ask for something small on an open connection; return its head and its body."""
    client.ask(path)
    head = await client.head()
    return head, await client.rest()


@both
async def test_balancers_are_told_first(tmp_path: Path, workers: str) -> None:
    """During `shutdownDelay` the server is not ready, takes requests still, and lets connections go."""
    settings = "server: {shutdownDelay: 2s}"
    options = ("--workers", workers)
    async with serving(tmp_path, *options, streamstack=settings, hello=HELLO) as server:
        kept = await server.connect()
        head, _ = await answer(kept, "/hello")
        assert b"connection: close" not in head.lower()
        server.process.send_signal(signal.SIGTERM)
        await server.said("stopping")
        async with asyncio.timeout(1.5):
            while (ready := await server.ask("GET", "/_ready")).status == 200:
                pass
        assert ready.body == b'{"status":"draining"}'
        assert (await server.ask("GET", "/_health")).status == 200
        assert (await server.ask("GET", "/hello")).status == 200
        head, chunk = await answer(kept, "/hello")
        assert b" 200 " in head
        assert b"connection: close" in head.lower()
        assert b"Hello" in chunk
        assert await kept.reader.read() == b""
        kept.close()
        assert await asyncio.wait_for(server.process.wait(), 10) == 0
        with pytest.raises(OSError, match=r"refused|reset|Connect"):
            await server.connect()


@both
async def test_a_second_signal_ends_the_delay(tmp_path: Path, workers: str) -> None:
    """A second signal ends the wait, that for balancers too."""
    settings = "server: {shutdownDelay: 60s}"
    options = ("--workers", workers)
    async with serving(tmp_path, *options, streamstack=settings, slow=SLOW) as server:
        client = await server.connect()
        client.ask("/slow")
        await client.head()
        began = perf_counter()
        server.process.send_signal(signal.SIGTERM)
        await server.said("stopping")
        server.process.send_signal(signal.SIGTERM)
        raw = await asyncio.wait_for(client.reader.read(), 10)
        assert b'event: error\ndata: {"code":"producer-lost"' in raw
        assert await asyncio.wait_for(server.process.wait(), 10) == 0
        assert perf_counter() - began < 20
        client.close()


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_who_asks_again_and_again_gets_no_failure(tmp_path: Path, workers: str, number: signal.Signals) -> None:
    """However often it is signalled to end, and be it in its last moments: the exit code is 0."""
    async with serving(tmp_path, "--workers", workers, hello=HELLO) as server:
        with suppress(ProcessLookupError):
            while server.process.returncode is None:
                # Not `send_signal`, which may take the exit code away from who waits for it.
                os.kill(server.process.pid, number)
                await asyncio.sleep(0.002)
        assert await asyncio.wait_for(server.process.wait(), 10) == 0
        assert "Traceback" not in "".join(server.lines)


@both
async def test_idle_connections_are_closed_at_once(tmp_path: Path, workers: str) -> None:
    """They are closed while a stream still runs; so is one that has never asked for anything, soon."""
    options = ("--workers", workers)
    long = SLOW.replace("times: 20", "times: 60")
    async with serving(tmp_path, *options, slow=long, hello=HELLO) as server:
        idle, new, busy = [await server.connect() for _ in range(3)]
        await answer(idle, "/hello")
        busy.ask("/slow")
        await busy.head()
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(idle.reader.read(), 10) == b""
        assert server.process.returncode is None
        raw = await asyncio.wait_for(busy.reader.read(), 10)
        assert b"event: done" in raw
        assert raw.endswith(b"0\r\n\r\n")
        assert await asyncio.wait_for(new.reader.read(), 10) == b""
        assert await asyncio.wait_for(server.process.wait(), 10) == 0
        for client in (idle, new, busy):
            client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="depends on how the system queues connections")
@both
async def test_who_was_connected_is_heard(tmp_path: Path, workers: str) -> None:
    """Requests that were under way when the server was told to stop are answered, be they not even looked at yet."""
    async with serving(tmp_path, "--workers", workers, hello=HELLO) as server:
        processes = server.workers() or [server.process.pid]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        clients = [await server.connect() for _ in range(20)]
        for client in clients:
            client.ask("/hello")
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        for client in clients:
            reply = parse(await asyncio.wait_for(client.reader.read(), 10))
            assert (reply.status, reply.complete) == (200, True)
            client.close()
        assert await asyncio.wait_for(server.process.wait(), 10) == 0


async def read_stream(server: Process, times: int, begun: asyncio.Event) -> bytes:
    """Read one stream to the end of its connection."""
    client = await server.connect()
    try:
        client.ask(f"/mixed/{times}")
        head = await client.head()
        first = await client.chunk()
        begun.set()
        return head + b"%x\r\n%b\r\n" % (len(first), first) + await client.reader.read()
    finally:
        client.close()


@both
async def test_five_hundred_streams_are_all_told(tmp_path: Path, workers: str) -> None:
    """SIGTERM amid 500 streams: each is complete, or ends with its error event; none is cut in silence."""
    settings = "server: {shutdownTimeout: 2s}"
    options = ("--workers", workers)
    async with serving(tmp_path, *options, streamstack=settings, mixed=MIXED) as server:
        begun = [asyncio.Event() for _ in range(500)]
        asked = [
            asyncio.ensure_future(read_stream(server, 20 if number % 2 else 2000, begun[number]))
            for number in range(500)
        ]
        async with asyncio.timeout(60):
            for each in begun:
                await each.wait()
        server.process.send_signal(signal.SIGTERM)
        replies = [parse(raw) for raw in await asyncio.wait_for(asyncio.gather(*asked), 60)]
        assert await asyncio.wait_for(server.process.wait(), 20) == 0
    complete = failed = 0
    for reply in replies:
        assert reply.status == 200
        assert reply.complete
        text = reply.body.decode()
        numbers = [int(each) for each in re.findall(r"^data: (\d+)$", text, re.MULTILINE)]
        assert numbers == list(range(1, len(numbers) + 1))
        if "event: done\n" in text:
            complete += 1
            assert len(numbers) == 20
        else:
            failed += 1
            assert 'event: error\ndata: {"code":"producer-lost"' in text
    assert (complete + failed, failed >= 250) == (500, True)


@both
async def test_what_comes_after_is_done(tmp_path: Path, workers: str) -> None:
    """`after` runs to its end, also for a run that was stopped with the server; its outcome is reported."""
    settings = "server: {shutdownTimeout: 200ms}"
    options = ("--workers", workers)
    async with serving(tmp_path, *options, streamstack=settings, after=AFTER) as server:
        client = await server.connect()
        client.ask("/after")
        await client.head()
        assert await server.stop() == 0
        client.close()
    assert [line for line in server.lines if "after ran: failed" in line]


async def test_a_slow_reader_has_its_rest(tmp_path: Path) -> None:
    """What was written for a reader who is behind leaves before the server ends."""
    burst = """
path: /burst
method: GET
streaming: {format: text, buffer: 1MB}
functionStack:
  - repeat:
      times: 400
      do:
        - stream: << "x" * 1000 >>
"""
    async with serving(tmp_path, burst=burst) as server:
        client = await server.connect()
        client.ask("/burst")
        await client.head()
        server.process.send_signal(signal.SIGTERM)
        await server.said("stopping")
        await asyncio.sleep(0.5)
        raw = await asyncio.wait_for(client.reader.read(), 10)
        assert raw.count(b"x") == 400_000
        assert raw.endswith(b"0\r\n\r\n")
        assert await asyncio.wait_for(server.process.wait(), 10) == 0
        client.close()


async def test_a_stream_that_has_ended_is_read_to_its_end(tmp_path: Path) -> None:
    """No other process has it: a reader who is behind has `shutdownTimeout` as one of a running stream has."""
    settings = "server: {shutdownTimeout: 20s}"
    async with serving(tmp_path, streamstack=settings, kept=KEPT) as server:
        client = await server.connect()
        head, whole = await answer(client, "/kept")
        client.close()
        slow = await server.connect()
        name = re.findall(rb"X-Stream-Id: (\S+)", head)[0].decode()
        slow.ask(f"/_streams/{name}")
        await slow.head()
        server.process.send_signal(signal.SIGTERM)
        await server.said("stopping")
        await asyncio.sleep(3)  # longer than what was sent is waited for
        body = await slow.rest()
        slow.close()
        assert body == whole
        assert await asyncio.wait_for(server.process.wait(), 10) == 0


async def test_who_is_behind_at_the_end_sees_that_there_was_more(tmp_path: Path) -> None:
    """A client that could not be informed in time is cut off by a reset: in HTTP/1.0 a close is a good end."""
    settings = "server: {shutdownTimeout: 100ms}"
    async with serving(tmp_path, streamstack=settings, kept=KEPT) as server:
        client = await server.connect()
        client.ask("/kept", version="1.0")
        await client.head()
        assert await server.stop() == 0
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client.reader.read(), 10)
        client.close()


SLOW_NAMES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
typedef int (*lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
  if (host && strstr(host, "slow.example")) { sleep(60); return EAI_AGAIN; }
  return ((lookup)dlsym(RTLD_NEXT, "getaddrinfo"))(host, port, hints, found);
}
"""
ASKING = """
method: GET
path: /ask
responseType: json
functionStack:
  - %s
    as: found
  - return: << found >>
"""


@pytest.fixture
def slow_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that takes a minute, for processes that are started."""
    if shutil.which("cc") is None:
        pytest.skip("a C compiler is missing: apt-get install gcc")
    library = str(tmp_path / "slow.so")
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-", "-ldl"]
    subprocess.run(command, input=SLOW_NAMES, text=True, check=True)
    monkeypatch.setenv("LD_PRELOAD", library)


@both
@pytest.mark.parametrize(
    ("settings", "step", "serves"),
    [
        ('databases: {main: {url: "postgresql://u:p@slow.example/db"}}', "db.query: SELECT 1 AS one", False),
        ("state: {url: redis://slow.example}", "counter.add: asked", True),
    ],
)
async def test_a_slow_name_server_does_not_delay_the_end(
    tmp_path: Path, slow_names: None, workers: str, settings: str, step: str, *, serves: bool
) -> None:
    """Names that are still looked up, by whatever library and thread, hold nothing up: while it starts, and later."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "streamstack.yaml").write_text(f"server: {{shutdownTimeout: 1s}}\n{settings}\n")
    (project / "ask.yaml").write_text(ASKING % step)
    server = Process(await start(str(project), "--port", "0", "--workers", workers))
    listening = asyncio.ensure_future(server.listen())
    if serves:
        server.port = int((await server.said(r"http://127\.0\.0\.1:(\d+)$"))[1])
        assert (await server.ask("GET", "/ask")).status == 503
        asking = [asyncio.ensure_future(server.ask("GET", "/ask")) for _ in range(4)]
        await asyncio.sleep(0.3)
    else:
        asking = []
        await asyncio.sleep(3)  # it looks the database up
    began = perf_counter()
    assert await server.stop() == 0
    assert perf_counter() - began < 5
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.wait_for(listening, 10)
    assert ("stopped before anything was served" in server.lines) is not serves
