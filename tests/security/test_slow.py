"""Clients that send a byte now and then, or take none: each has its time, and then the connection is closed."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from streamstack.errors import RunError
from streamstack.server import replies
from tests.functions.calling import call
from tests.security.attacked import SETTINGS, Attacked, attacked, request, status_of

HASTY = SETTINGS.replace("server: {", "server: {headTimeout: 500ms, ").rstrip() + (
    "\nstreaming: {firstChunkTimeout: 500ms, idleTimeout: 5s}\n"
)


async def drip(attack: Attacked, first: bytes, drops: bytes) -> tuple[bytes, int]:
    """Send a beginning, then a byte every 10 ms until an answer comes; return the last one, and the bytes it took."""
    client = await attack.server.connect()
    client.writer.write(first)
    taken, came, answer = 0, b"", b""
    for drop in drops:
        client.writer.write(bytes([drop]))
        taken += 1
        try:
            came = await asyncio.wait_for(client.reader.read(1 << 16), 0.01)
        except TimeoutError:
            continue
        except ConnectionError:
            came = b""
        answer += came
        if not came or b" 408 " in answer:
            break
    return answer, taken


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"GET /hello/", b"x"),
        (b"GET /hello/x HTTP/1.1\r\nHost: x\r\nA: ", b"b"),
        (b"GET /hello/x HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n"),
        (request(b"GET /hello/x").replace(b"Connection: close\r\n", b"") + b"GET /hel", b"l"),
        (b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n", b" "),
        (b"POST /json HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"POST /json HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (b"POST /json HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"POST /json HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
        (
            b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 900000\r\n\r\n",
            b"\x1f\x8b\x08" + b"\0" * 7 + b"\x00\x00\x00\xff\xff" * 1000,
        ),
        (
            (
                b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n"
                b"Content-Type: multipart/form-data; boundary=X\r\n\r\n--X\r\n"
            ),
            b"A: b\r\n",
        ),
    ],
)
async def test_what_drips_is_ended(tmp_path: Path, first: bytes, drop: bytes) -> None:
    """A head or a body that never ends is answered with 408 when its time is over, however often a byte comes."""
    async with attacked(tmp_path, settings=HASTY) as attack:
        answer, taken = await drip(attack, first, (drop * 3000)[:3000])
    assert answer.rpartition(b"HTTP/1.1 ")[2][:3] == b"408", answer
    assert b"Connection: close\r\n" in answer
    assert taken < 2500


async def test_connection_that_says_nothing_is_closed(tmp_path: Path) -> None:
    """Without an answer, as browsers hold such connections ready; an empty line is nothing, too."""
    async with attacked(tmp_path, settings=HASTY) as attack:
        assert await attack.throw(b"") == b""
        assert await attack.throw(b"\r\n") == b""


async def test_head_that_takes_its_time_is_served(tmp_path: Path) -> None:
    """Within the limit, byte by byte; then the body has a limit of its own."""
    settings = HASTY.replace("500ms", "20s")
    async with attacked(tmp_path, settings=settings) as attack:
        client = await attack.server.connect()
        for byte in request(b"POST /json", b"Content-Type: application/json", b"Content-Length: 2"):
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert status_of(await attack.throw_on(client, b"{}")) == 200


async def test_next_request_has_its_own_time(tmp_path: Path) -> None:
    """An idle connection is kept longer than a head may take: only what has begun is timed."""
    async with attacked(tmp_path, settings=HASTY) as attack:
        client = await attack.server.connect()
        for _ in range(2):
            client.ask("/hello/x")
            await client.head()
            await client.rest()
            await asyncio.sleep(0.8)
        client.writer.write(b"GET /hello/x HT")
        assert status_of(await attack.throw_on(client, b"")) == 408


async def test_last_bytes_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed connection whose reader takes nothing is dropped; one that has nothing left to send is ignored."""
    monkeypatch.setattr(replies, "LAST_BYTES", 0.01)

    class Transport:
        def __init__(self, size: int) -> None:
            self.size = size
            self.aborted = False

        def get_write_buffer_size(self) -> int:
            return self.size

        def abort(self) -> None:
            self.aborted = True

    full, empty, kept = Transport(10), Transport(0), Transport(10)
    body = StreamReader(BaseProtocol(asyncio.get_running_loop()), 1)
    for transport in (full, empty, kept):
        request: Any = SimpleNamespace(
            protocol=SimpleNamespace(transport=transport, writing_paused=False),
            raw=SimpleNamespace(content=body),
            under=None,
        )
        await replies.Streamed(request, 200, keep=transport is kept).write_eof()
    await asyncio.sleep(0.1)
    assert (full.aborted, empty.aborted, kept.aborted) == (True, False, False)


async def test_readers_who_take_nothing(tmp_path: Path) -> None:
    """They hold their own runs back and no others: the reader beside stays on time."""
    async with attacked(tmp_path) as attack:

        async def leave_unread() -> None:
            client = await attack.server.connect(limit=1)
            cast("asyncio.Transport", client.writer.transport).pause_reading()
            client.writer.write(b"GET /hello/x HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
            await asyncio.sleep(1)
            client.close()

        waiting: list[Awaitable[None]] = [leave_unread() for _ in range(20)]
        await asyncio.gather(*waiting)


def _continue_for_ever(listener: socket.socket) -> None:
    """Answer each request with interim responses alone."""
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                while True:
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000)


async def _longest_pause(work: Awaitable[object]) -> float:
    """Return how long the event loop was busy without a pause while some work was done, at most, in seconds."""
    waiting, longest = asyncio.ensure_future(work), 0.0
    while not waiting.done():
        before = perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, perf_counter() - before)
    await asyncio.wait([waiting])
    return longest


@pytest.mark.skipif(sys.platform != "linux", reason="other systems can't undo the limit of what is read at once")
async def test_interim_responses_for_ever_hold_up_nothing_else() -> None:
    """An upstream that sends `100 Continue` for ever fails its own request; others wait for milliseconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_continue_for_ever, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        pauses = []
        for _ in range(3):  # a busy machine may be late once
            request = asyncio.create_task(call("http.request", url=url, timeout=0.5))
            pauses.append(await _longest_pause(request))
            assert isinstance(request.exception(), RunError)
        assert min(pauses) < 0.25, pauses
        listener.shutdown(socket.SHUT_RDWR)
