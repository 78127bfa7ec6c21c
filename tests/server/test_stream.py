"""When bytes leave, what a reader's leaving does, and how much a slow one can hold back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from itertools import pairwise
from time import perf_counter
from typing import Any

import pytest

from streamstack.runtime.run import Run
from streamstack.server.response_options import GATHERED, Limits, ResponseOptions
from tests.server.serving import AUTO, Client, Emitting, endpoint, serving

TEXT = ResponseOptions("text")


async def reads(client: Client) -> list[tuple[float, bytes]]:
    """Read until the end, as the bytes come."""
    found = []
    while data := await asyncio.wait_for(client.reader.read(1 << 20), 10):
        found.append((perf_counter(), data))
    return found


async def test_paced_chunks_leave_one_by_one() -> None:
    """A chunk that is alone leaves at once: each is a chunk of HTTP of its own, in its own time."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        for n in range(5):
            await Emitting(run)(f"{n}")
            await asyncio.sleep(0.04)

    async with serving(endpoint(stack, wire=TEXT)) as server:
        client = await server.connect()
        client.ask(extra="Connection: close\r\n")
        await client.head()
        times = []
        for n in range(5):
            assert await client.chunk() == b"%d" % n
            times.append(perf_counter())
        assert await client.chunk() == b""
        client.close()
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(gap > 0.02 for gap in gaps), gaps


async def test_burst_leaves_together() -> None:
    """Chunks made in one turn leave in few writes, the first with the head."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        for n in range(10_000):
            await Emitting(run)(f"{n},")

    async with serving(endpoint(stack, wire=TEXT)) as server:
        reply = await server.get()
    assert reply.body == "".join(f"{n}," for n in range(10_000)).encode()
    assert reply.chunks[0] == b"0,"
    assert len(reply.chunks) <= 3 + len(reply.body) // (GATHERED // 2)


async def test_chunk_never_splits_a_character() -> None:
    """Every chunk of HTTP is valid UTF-8 by itself."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        for _ in range(20_000):
            await Emitting(run)("日本🎈é")

    async with serving(endpoint(stack, wire=TEXT)) as server:
        reply = await server.get()
    assert [chunk.decode() for chunk in reply.chunks]
    assert reply.body.decode() == "日本🎈é" * 20_000


async def test_reader_who_leaves_ends_the_run() -> None:
    """The run stops soon after, its `finally` and then its `after` see to it."""
    ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    later: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        async def note() -> None:
            assert run.outcome is not None
            later.set_result(run.outcome)

        run.after(note, 5)
        try:
            await Emitting(run)("x")
            await asyncio.sleep(60)
        finally:
            ended.set_result(perf_counter())

    async with serving(endpoint(stack)) as server:
        client = await server.connect()
        client.ask()
        await client.head()
        left = perf_counter()
        client.close()
        took = await asyncio.wait_for(ended, 5) - left
        assert await asyncio.wait_for(later, 5) == "cancelled"
    assert took < 1, "50 ms on a machine that is not loaded"


async def test_reader_who_says_goodbye_ends_the_run() -> None:
    """A close in good order counts as leaving, also before the first chunk."""
    ended = asyncio.Event()

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with serving(endpoint(stack)) as server:
        client = await server.connect()
        client.ask()
        await asyncio.sleep(0.05)
        client.writer.close()
        await asyncio.wait_for(ended.wait(), 5)


async def test_reader_who_leaves_a_busy_run() -> None:
    """A run that computes without waiting is ended when it next breathes."""
    ended = asyncio.Event()

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        try:
            while True:
                await Emitting(run)("x" * 100)
                if perf_counter() > run.slice_ends:
                    await run.yield_to_loop()
        finally:
            ended.set()

    async with serving(endpoint(stack)) as server:
        client = await server.connect()
        client.ask()
        await client.head()
        client.close()
        await asyncio.wait_for(ended.wait(), 5)
        assert not server.service.timers


async def test_run_can_outlive_its_reader() -> None:
    """With `onDisconnect: finish` the run goes on to its end."""
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        async def note() -> None:
            done.set_result(f"{run.outcome} {run.sink.count}")

        run.after(note, 5)
        for _ in range(10):
            await Emitting(run)("x" * 100_000)
            await asyncio.sleep(0.01)

    async with serving(endpoint(stack, outlives=True)) as server:
        client = await server.connect(limit=4096)
        client.ask()
        await client.head()
        client.close()
        assert await asyncio.wait_for(done, 5) == "completed 10"


async def test_slow_reader_is_waited_for() -> None:
    """What waits for a slow reader is bounded, however much the run would send."""
    emitted = 0
    wire = ResponseOptions("bytes", buffer=128 * 1024)

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        nonlocal emitted
        emit = Emitting(run)
        for _ in range(100_000):
            await emit(b"x" * 1024)
            emitted += 1

    async with serving(endpoint(stack, wire=wire)) as server:
        client = await server.connect(limit=4096)
        client.ask()
        await client.head()
        before = -1
        while before != emitted:
            before = emitted
            await asyncio.sleep(0.15)
        # The system's own socket buffers take some megabytes of it (tcp_wmem, tcp_rmem).
        assert emitted < 20_000
        (connection,) = server.runner.server.connections  # type: ignore[union-attr]
        assert connection.transport is not None
        waiting = connection.transport.get_write_buffer_size()
        assert waiting <= 128 * 1024 + 2048
        # Reading again lets it go on.
        for _ in range(40):
            await client.reader.readexactly(65536)
        await asyncio.sleep(0.1)
        assert emitted > before
        client.close()


async def test_slow_reader_of_paced_chunks_is_waited_for() -> None:
    """Chunks that leave one by one are held back too, once the transport is full."""
    wire = ResponseOptions("bytes", buffer=16 * 1024)
    emitted = 0

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        nonlocal emitted
        for _ in range(100_000):
            await Emitting(run)(b"x" * 8192)
            emitted += 1
            await asyncio.sleep(0)

    async with serving(endpoint(stack, wire=wire)) as server:
        client = await server.connect(limit=4096)
        client.ask()
        await client.head()
        before = -1
        while before != emitted:
            before = emitted
            await asyncio.sleep(0.15)
        (connection,) = server.runner.server.connections  # type: ignore[union-attr]
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() <= 4 * 16 * 1024
        client.close()


async def test_slow_reader_hinders_nobody_else() -> None:
    """While one reader does not read, another is served."""

    async def endless(run: Run, inputs: dict[str, Any]) -> None:
        while True:
            await Emitting(run)("x" * 10_000)
            if perf_counter() > run.slice_ends:
                await run.yield_to_loop()

    async def short(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("hello")

    async with serving(endpoint(endless), endpoint(short, "/short")) as server:
        client = await server.connect(limit=4096)
        client.ask()
        await client.head()
        reply = await asyncio.wait_for(server.get("/short"), 5)
        client.close()
    assert b"hello" in reply.body


async def test_several_wait_for_the_reader() -> None:
    """Branches that emit at once all wait, and one that is cancelled takes no other with it."""
    outcome: list[str] = []

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        async def branch(name: str) -> None:
            try:
                for _ in range(3000):
                    await Emitting(run)(b"x" * 8192)
            except asyncio.CancelledError:
                outcome.append(f"{name} cancelled")
                raise
            outcome.append(name)

        async with asyncio.TaskGroup() as group:
            first = group.create_task(branch("a"))
            group.create_task(branch("b"))
            await asyncio.sleep(0.3)
            first.cancel()

    async with serving(endpoint(stack, wire=ResponseOptions("bytes"))) as server:
        client = await server.connect()
        client.ask(extra="Connection: close\r\n")
        await client.head()
        await asyncio.sleep(0.6)
        await reads(client)
        client.close()
    assert outcome == ["a cancelled", "b"]


async def test_reader_who_never_reads_is_dropped() -> None:
    """A reader who takes nothing for `idleTimeout` is let go, and the run with it."""
    ended = asyncio.Event()

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        try:
            while True:
                await Emitting(run)(b"x" * 65536)
        finally:
            ended.set()

    served = endpoint(stack, wire=ResponseOptions("bytes"), limits=Limits(idle=0.3))
    async with serving(served) as server:
        client = await server.connect(limit=4096)
        client.ask()
        await client.head()
        await asyncio.wait_for(ended.wait(), 5)
        client.close()


async def test_reader_who_never_reads_the_rest_is_dropped() -> None:
    """The same holds when the run has ended and only the rest is left."""

    async def stack(run: Run, inputs: dict[str, Any]) -> Any:
        return "x" * 20_000_000

    served = endpoint(stack, wire=ResponseOptions("value"), limits=Limits(idle=0.3))
    async with serving(served) as server:
        client = await server.connect(limit=4096)
        client.ask()
        await client.head()
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not server.runner.server.connections:  # type: ignore[union-attr]
                break
        assert not server.runner.server.connections  # type: ignore[union-attr]
        client.close()


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        (Limits(first_chunk=0.05), "firstChunkTimeout"),
        (Limits(longest=0.05), "maxDuration"),
        (Limits(keep_alive=0.02, first_chunk=0.1), None),
    ],
)
async def test_silence_before_the_first_chunk(limits: Limits, key: str | None) -> None:
    """A run that does not begin is ended: 504, or in band after a heartbeat."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await asyncio.sleep(60)

    async with serving(endpoint(stack, limits=limits)) as server:
        reply = await server.get()
    if key is None:
        assert reply.body.startswith(b":\n:\n")
        assert b"firstChunkTimeout" in reply.body
        assert reply.complete
    else:
        assert reply.status == 504
        assert key in reply.body.decode()


@pytest.mark.parametrize(("limits", "key"), [(Limits(idle=0.08), "idleTimeout"), (Limits(longest=0.1), "maxDuration")])
async def test_silence_between_chunks(limits: Limits, key: str) -> None:
    """A run that falls silent, or goes on for too long, ends with the error event."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("a")
        await asyncio.sleep(0.04)
        await Emitting(run)("b")
        await asyncio.sleep(60)

    async with serving(endpoint(stack, limits=limits)) as server:
        reply = await server.get()
    events = reply.body.split(b"\n\n")
    assert events[:2] == [b"data: a\nid: 0", b"data: b\nid: 1"]
    assert events[2].startswith(b'event: error\ndata: {"code":"timeout"')
    assert key in events[2].decode()
    assert reply.complete


async def test_limits_count_from_the_last_chunk() -> None:
    """Chunks that keep coming keep the idle limit and the heartbeat away."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        for _ in range(15):
            await Emitting(run)("x")
            await asyncio.sleep(0.02)

    limits = Limits(keep_alive=0.15, idle=0.15)
    async with serving(endpoint(stack, limits=limits)) as server:
        reply = await server.get()
    assert reply.body.count(b"data: x") == 15
    assert b":\n" not in reply.body.replace(b"data:", b"")
    assert b"event: done" in reply.body


async def test_heartbeats_in_a_pause() -> None:
    """A pause is filled with single lines; they begin no event of their own."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("a")
        await asyncio.sleep(0.2)
        await Emitting(run)("b")

    wire = ResponseOptions("sse", done=False, retry=100)
    async with serving(endpoint(stack, wire=wire, limits=Limits(keep_alive=0.04))) as server:
        reply = await server.get()
    beats = reply.body.count(b"\n:\n") + reply.body.count(b":\n:\n")
    assert beats >= 2
    assert reply.body.replace(b":\n", b"") == b"retry: 100\ndata: a\nid: 0\n\ndata: b\nid: 1\n\n"


async def test_heartbeat_of_ndjson_is_a_blank() -> None:
    """In NDJSON a heartbeat is white space before the next value, which stays one line."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await asyncio.sleep(0.1)
        await Emitting(run)({"a": 1})

    served = endpoint(stack, wire=ResponseOptions("ndjson"), limits=Limits(keep_alive=0.03))
    async with serving(served) as server:
        reply = await server.get()
    assert reply.body.lstrip(b" ") == b'{"a":1}\n'
    assert reply.body.startswith(b" ")


async def test_many_streams_at_once() -> None:
    """A thousand silent streams cost one timer each and end together."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("x")
        await asyncio.sleep(60)

    async with serving(endpoint(stack, wire=AUTO)) as server:
        clients = [await server.connect(limit=4096) for _ in range(300)]
        for client in clients:
            client.ask()
        for client in clients:
            await client.head()
        assert len(server.service.timers) == 300
        for client in clients:
            client.close()
        for _ in range(100):
            await asyncio.sleep(0.02)
            if not server.service.timers:
                break
        assert not server.service.timers


async def test_greedy_run_is_fair() -> None:
    """A run that never waits lets others in every few milliseconds."""

    async def greedy(run: Run, inputs: dict[str, Any]) -> None:
        for _ in range(2_000_000):
            if perf_counter() > run.slice_ends:
                await run.yield_to_loop()

    async def quick(run: Run, inputs: dict[str, Any]) -> Any:
        return 1

    async with serving(endpoint(greedy), endpoint(quick, "/v", wire=ResponseOptions("value"))) as server:
        busy = asyncio.create_task(server.get())
        await asyncio.sleep(0.05)
        began = perf_counter()
        reply = await server.get("/v")
        took = perf_counter() - began
        assert reply.status == 200
        assert took < 0.5
        assert not busy.done(), "the greedy run was over before the quick one was asked"
        busy.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await busy
    gc.collect()
