"""Many connections: as many as there may be, and no more than the system has room for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import sys
from pathlib import Path

import pytest

from tests.security.attacked import SETTINGS, attacked, request, status_of
from tests.server.serving import parse

ROOT = Path(__file__).parent.parent.parent
FEW = SETTINGS.replace("server: {", "server: {maxConnections: 5, ")


async def test_one_too_many_is_told_so(tmp_path: Path) -> None:
    """It gets 503 with Retry-After before it asks; those that are there are served on, and free places taken."""
    async with attacked(tmp_path, settings=FEW) as attack:
        held = [await attack.server.connect() for _ in range(4)]  # the reader beside is the fifth
        await asyncio.sleep(0.1)
        reply = parse(await attack.throw(b""))
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.headers["connection"] == "close"
        for _ in range(20):
            assert status_of(await attack.throw(b"")) == 503
        told = [each for each in attack.logged if each["event"] == "connections-full"]
        assert [each["most"] for each in told] == [5]
        assert status_of(await attack.throw_on(held[0], request())) == 200
        await asyncio.sleep(0.1)
        assert status_of(await attack.throw(request())) == 200
        for client in held:
            client.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_no_file_descriptors_left(loop: str) -> None:
    """The server neither dies nor spins: once there are some again, it answers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.security.exhausted", loop,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'engine'}:{ROOT}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        port = int(await process.stdout.readline())
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        await asyncio.sleep(2.5)
        process.stdin.write(b"\n")
        spent = float(await process.stdout.readline())
        for _, writer in held:
            writer.transport.abort()
        answer = b""
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /s HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                answer = await asyncio.wait_for(reader.read(12), 1)
            except (TimeoutError, ConnectionError):
                answer = b""
            writer.transport.abort()
            if answer:
                break
            await asyncio.sleep(0.1)
        process.stdin.write(b"\n")
        complaints = (await process.stderr.read()).decode()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    assert answer == b"HTTP/1.1 200"
    assert spent < 1.5, "it spins"
    assert complaints.count("Traceback") == 0, complaints
    assert complaints.count("\n") < 20, complaints


HELLO = "{method: GET, path: /hello, functionStack: [{stream: Hello}]}"


async def test_as_many_connections_as_there_are_files(tmp_path: Path) -> None:
    """`serve` tells that the system allows fewer than the settings do, and keeps to it."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from streamstack.cli import main; main()", "serve", str(tmp_path), "--port", "0",
        env=os.environ | {"PYTHONPATH": str(ROOT / "engine")},
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (120, 160)),
    )  # fmt: skip
    assert process.stderr is not None
    lines = ""
    try:
        while "serving 1 endpoint" not in lines:
            line = await asyncio.wait_for(process.stderr.readline(), 60)
            assert line, lines
            lines += line.decode()
        assert "64 connections are taken at once, not the 10000" in lines
        found = re.search(r"http://127\.0\.0\.1:(\d+)", lines)
        assert found is not None
        port = int(found[1])
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        await asyncio.sleep(0.5)
        refused = 0
        for reader, _ in held:
            with contextlib.suppress(TimeoutError):
                refused += (await asyncio.wait_for(reader.read(12), 0.01)) == b"HTTP/1.1 503"
        assert refused == 36
        for _, writer in held:
            writer.transport.abort()
        await asyncio.sleep(0.5)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"data: Hello" in await reader.read()
        writer.close()
    finally:
        process.terminate()
        await process.wait()
