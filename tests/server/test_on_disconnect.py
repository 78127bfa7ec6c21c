"""`onDisconnect: finish`: a run that goes on to its end when its reader has left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.server.authenticating import project
from tests.server.resuming import NONE, until
from tests.server.serving import Server

#: Sends, notes in `after` how it ended and what it was given, and can be asked for that.
UPLOAD = """
method: POST
path: /upload
streaming: {onDisconnect: finish, RESUME}
inputParameters: {file: {type: file, required: true}}
functionStack:
  - after:
      do:
        - file.read: {from: << input.file >>, decode: text}
          as: read
        - collect: {in: << read >>, into: text}
          as: text
        - cache.set: {key: told, value: "<< run.outcome >> << text >> << stream.count >>"}
  - repeat:
      times: 20
      do:
        - stream: {content: << loop.index >>, delay: 20ms}
---
method: GET
path: /told
responseType: json
functionStack: [{cache.get: {key: told}, as: told}, {return: << told >>}]
"""


async def leave_early(server: Server, body: str = "0123456789") -> None:
    """Send a file, read the beginning of the answer, and go."""
    client = await server.connect()
    form = f'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n{body}\r\n--b--\r\n'
    lines = f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(form)}\r\n"
    client.ask("/upload", "POST", extra=lines)
    client.writer.write(form.encode())
    await client.head()
    client.close()


@pytest.mark.parametrize("resume", ["resume: false", "resume: true"])
async def test_the_run_completes_without_its_reader(tmp_path: Path, resume: str) -> None:
    """Its `after` sees `completed`; its files stay until then, and are gone afterwards."""
    async with project(tmp_path, NONE, UPLOAD.replace("RESUME", resume)) as server:
        await leave_early(server)
        await asyncio.sleep(0.05)
        assert (await server.get("/told")).body == b"null"
        await until(lambda: not server.service.timers)
        await asyncio.sleep(0.05)
        assert (await server.get("/told")).body == b'"completed 0123456789 20"'


@pytest.mark.parametrize("resume", ["resume: false", "resume: true"])
async def test_shutting_down_waits_for_such_a_run(tmp_path: Path, resume: str) -> None:
    """Within `shutdownTimeout`: then it ends as any other, with `producer-lost`."""
    async with project(tmp_path, NONE, UPLOAD.replace("RESUME", resume)) as server:
        await leave_early(server)
        assert len(server.service.timers) == 1
        await server.service.drain(5)
        assert not server.service.timers
        await server.service.settle(5)
        server.service.draining = False
        assert (await server.get("/told")).body == b'"completed 0123456789 20"'
        await leave_early(server)
        await server.service.drain(0.05)
        await server.service.settle(5)
        server.service.draining = False
        assert b"failed" in (await server.get("/told")).body


async def test_by_default_the_run_ends_with_its_reader(tmp_path: Path) -> None:
    """`onDisconnect: cancel`, without `resume`."""
    definition = UPLOAD.replace("onDisconnect: finish, RESUME", "onDisconnect: cancel")
    async with project(tmp_path, NONE, definition) as server:
        await leave_early(server)
        await until(lambda: not server.service.timers)
        await asyncio.sleep(0.05)
        assert (await server.get("/told")).body.startswith(b'"cancelled 0123456789')
