"""The Python client: complete streams through random faults, errors, stop; truncated streams fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from yarl import URL

from streamstack.client import Stream, StreamError
from tests.clients.speaking import speaking
from tests.clients.test_browser_client import DEFINITIONS, KEY, SETTINGS

Fault = dict[str, Any]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve what the JavaScript client reads too."""
    folder: Path = tmp_path_factory.mktemp("python")
    (folder / "all.yaml").write_text(DEFINITIONS, "utf-8")
    (folder / "streamstack.yaml").write_text(SETTINGS, "utf-8")
    with speaking(folder, {"KEY": KEY}) as address:
        yield address


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until it is."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def proxy(address: str, fault: Callable[[], Fault]) -> AsyncIterator[str]:
    """Stand before the server; each connection meets {refuse}, {status}, {cut: bytes} or {}, as `fault()` says."""
    target = URL(address)

    running: set[asyncio.Task[Any]] = set()

    async def forward(client: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
        while data := await client.read(65536):
            other.write(data)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wanted: Fault) -> None:
        if wanted.get("status"):
            await reader.read(65536)
            writer.write(b"HTTP/1.1 %d Bad\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbad" % wanted["status"])
            return
        back, to = await asyncio.open_connection(target.host, target.port)
        sending = asyncio.create_task(forward(reader, to))
        try:
            left = wanted.get("cut", 10**9)
            while left > 0 and (data := await back.read(65536)):
                writer.write(data[:left])
                left -= len(data)
                await writer.drain()
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            await close(to)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        wanted = fault()
        try:
            with suppress(OSError):
                if not wanted.get("refuse"):
                    await answer(reader, writer, wanted)
                if wanted.get("clean"):
                    await writer.drain()
        finally:
            if not wanted.get("clean"):
                writer.transport.abort()
            await close(writer)
            running.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for each in [*running]:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def chunks_of(url: str, **options: Any) -> list[tuple[Any, ...]]:
    """Return what a stream has, to its end."""
    async with Stream(url, **options) as reader:
        return [(chunk.event, chunk.content, chunk.metadata) async for chunk in reader]


@pytest.mark.parametrize(
    ("path", "options"),
    [("/mixed", {}), ("/mixed", {"accept": "application/x-ndjson"}), ("/posted", {"json": {"count": 20}})],
    ids=["sse", "ndjson", "post"],
)
async def test_random_faults_lose_and_repeat_nothing(address: str, path: str, options: Any) -> None:
    """Cuts at any byte, refused connections and a proxy's 502 to 504 leave the stream as it is without them."""
    whole = await chunks_of(address + path, **options)
    assert len(whole) >= 20
    faults = 0

    async def one(seed: int) -> list[tuple[Any, ...]]:
        chance = Random(seed)  # noqa: S311
        broken = 0

        def fault() -> Fault:
            nonlocal broken, faults
            if broken > 6 or chance.random() < 0.1:
                return {}
            broken += 1
            faults += 1
            kind = chance.random()
            if kind < 0.1:
                return {"refuse": True}
            if kind < 0.2:
                return {"status": chance.choice([502, 503, 504])}
            return {"cut": chance.randrange(1, 1500), "clean": chance.random() < 0.5}

        async with proxy(address, fault) as url:
            return await chunks_of(url + path, **options, idempotent=True, retries=50, retry_delay=0.005)

    seen = await asyncio.gather(*map(one, range(30)))
    assert [number for number, each in enumerate(seen) if each != whole] == []
    assert faults > 100


@pytest.mark.parametrize("path", ["/plain", "/text"])
async def test_a_response_cut_short_fails(address: str, path: str) -> None:
    """A stream that can't be resumed never looks complete when its connection is lost."""
    seen = []
    async with proxy(address, lambda: {"cut": 500, "clean": True}) as url, Stream(url + path, retries=0) as reader:
        with pytest.raises(StreamError) as failed:
            seen.extend([chunk async for chunk in reader])
        assert (failed.value.code, reader.state) == ("stream-lost", "failed")


async def test_counter_progress_and_errors(address: str) -> None:
    """Counter, progress and end; a 400 with its faults; an error after the first chunk; a 401 renewed once."""
    async with Stream(f"{address}/posted", json={"count": 4}) as reader:
        seen = [(chunk.text, reader.count, reader.progress) async for chunk in reader]
        assert seen == [("1", 1, 0.25), ("2", 2, 0.5), ("3", 3, 0.75), ("4", 4, 1.0)]
        assert (reader.state, (reader.end or {})["chunks"]) == ("done", 4)
        assert reader.first_chunk_time is not None
    async with Stream(f"{address}/text") as reader:
        assert await reader.text() == "words " * 60
    async with Stream(f"{address}/posted", json={"count": "x"}) as reader:
        with pytest.raises(StreamError, match="count must be an integer") as refused:
            await reader.text()
        assert (refused.value.status, refused.value.errors[0]["name"]) == (400, "count")
    async with Stream(f"{address}/failing") as reader:
        with pytest.raises(StreamError, match="no more") as failed:
            await reader.text()
        assert failed.value.code == "too-late"
    keys = iter(["old", KEY])
    renewing: Any = {"headers": lambda: {"X-Api-Key": next(keys)}, "on_unauthorized": lambda: True}
    async with Stream(f"{address}/keyed", **renewing) as reader:
        assert await reader.text() == "welcome"


async def test_stop_and_continue(address: str) -> None:
    """`stop` cancels the run and ends the iteration; a stream's id continues it from its first chunk."""
    async with Stream(f"{address}/slow") as reader:
        seen = []
        async for chunk in reader:
            seen.append(chunk.text)
            if len(seen) == 2:
                await reader.stop()
        assert (seen, reader.state) == (["1", "2"], "stopped")
    async with Stream(f"{address}/slow", id=reader.id) as again:
        with pytest.raises(StreamError) as stopped:
            await again.text()
        assert (again.count, stopped.value.code) == (2, "stopped")


async def test_a_silent_server_is_a_lost_connection() -> None:
    """Neither chunk nor heartbeat within `stall_timeout`."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n")
        await reader.read()
        await close(writer)
        closed.set()

    closed = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with (
        server,
        Stream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", retries=0, stall_timeout=0.1) as reader,
    ):
        with pytest.raises(StreamError, match="silent"):
            await reader.text()
        assert reader.count == 1
    await closed.wait()
