"""Uploaded files over a real socket: on disk when large, refused when too large, gone when the run is over."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest

from tests.server.serving import Server
from tests.server.test_request_streams import answer_of, problem, served

HEAD = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\n'
TAIL = b"\r\n--XX--\r\n"
FORM = "Content-Type: multipart/form-data; boundary=XX\r\n"

COUNTED = """
method: POST
path: /s
responseType: json
inputParameters: {file: {type: file, required: true, maxSize: 4MB}}
functionStack:
  - csv.read: << input.file >>
    as: rows
  - set: {count: 0}
  - forEach: {in: << rows >>, do: [{set: {count: << count + 1 >>}}]}
response: '<< {"rows": count, "bytes": rows.bytes, "size": rows.size} >>'
"""


def _nameless() -> set[str]:
    """Return what this process holds open that has no name in the file system."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.add(str(each.readlink()))
    return {each for each in found if each.endswith("(deleted)")}


#: What pytest itself holds open.
_BEFORE = _nameless()


def open_files() -> set[str]:
    """Return the uploads that are on disk."""
    return _nameless() - _BEFORE


async def until(*, files: bool) -> None:
    """Wait until an upload is on disk, or none: nothing but the file system tells."""
    for _ in range(1000):
        if bool(open_files()) is files:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def none_left() -> None:
    """Wait until no upload is on disk."""
    await until(files=False)


async def upload(server: Server, data: bytes) -> tuple[int, dict[str, int]]:
    """Send a file in a form; return the status and the document."""
    client = await server.connect()
    body = HEAD + data + TAIL
    client.ask("/s", "POST", extra=f"{FORM}Content-Length: {len(body)}\r\n")
    client.writer.write(body)
    return problem(await answer_of(client))


async def test_upload_is_read_record_by_record() -> None:
    """Small in memory or large on disk, it is read to its end, and deleted."""
    async with served(COUNTED) as server:
        for count in (3, 200_000):
            data = b"a,b\n" + b"1,longer\n" * count
            size = len(data)
            assert await upload(server, data) == (200, {"rows": count, "bytes": size, "size": size})
            await none_left()


async def test_too_large_a_file_is_refused_while_it_comes() -> None:
    """413 is sent before the client has sent all, and nothing of it is kept."""
    async with served(COUNTED) as server:
        client = await server.connect()
        client.ask("/s", "POST", extra=f"{FORM}Transfer-Encoding: chunked\r\n")
        client.writer.write(b"%x\r\n%b\r\n" % (len(HEAD), HEAD))
        block = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(70):
            client.writer.write(block)
        status, document = problem(await answer_of(client))
        assert status == 413
        assert document["errors"] == [{"in": "body", "name": "file", "message": "must have at most 4MB"}]
        await none_left()


@pytest.mark.parametrize("way", ["abort", "half"])
async def test_upload_that_breaks_off_is_deleted(way: str) -> None:
    """Whether the client is gone or ends in the middle."""
    async with served(COUNTED) as server:
        client = await server.connect()
        client.ask("/s", "POST", extra=f"{FORM}Content-Length: 4000000\r\n")
        client.writer.write(HEAD + b"x" * 3_000_000)
        await client.writer.drain()
        await until(files=True)
        if way == "half":
            client.writer.write_eof()
        else:
            client.close()
        await none_left()


@pytest.mark.parametrize("failing", ["throw: failed", "wait: 1h"])
async def test_file_is_deleted_however_the_run_ends(failing: str) -> None:
    """By an error, or because its reader has left; what comes `after` can still read it."""
    text = f"""
    method: POST
    path: /s
    streaming: {{format: text}}
    inputParameters: {{file: {{type: file, maxSize: 4MB}}}}
    functionStack:
      - after:
          do:
            - file.read: {{from: << input.file >>, decode: lines}}
              as: lines
            - streams.take: {{in: << lines >>, count: 1}}
              as: first
            - collect: << first >>
              as: all
            - precondition: << all == ["one"] >>
      - stream: begun
      - {failing}
    """
    async with served(text) as server:
        client = await server.connect()
        body = HEAD + b"one\n" + b"x" * 2_000_000 + TAIL
        client.ask("/s", "POST", extra=f"{FORM}Content-Length: {len(body)}\r\n")
        client.writer.write(body)
        assert b" 200 OK" in await client.head()
        if failing == "wait: 1h":
            assert open_files()
        client.close()
        await none_left()


async def test_bad_file_is_the_clients_fault() -> None:
    """A record that can't be read is a 400 with its number and line."""
    async with served(COUNTED) as server:
        status, document = await upload(server, b"a,b\n1,2\n\n3\n")
        assert status == 400
        assert "chunk 2 of the stream (line 4) has 1 field" in json.dumps(document)
