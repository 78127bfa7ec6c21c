"""A project that is attacked: served for real, with a well-behaved reader beside, and looked over afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from tests.server.authenticating import project
from tests.server.serving import Client, Server

#: Seconds that a chunk of the well-behaved stream may be late: far more than any machine's noise.
LATE = 5.0

SETTINGS = """
server: {maxBodySize: 1MB}
authentication:
  key: {type: apiKey, header: X-Key, keys: [a-key-of-the-tests-that-is-long-enough]}
  jwt: {type: jwt, secret: << env.JWT_SECRET >>, from: [header, {cookie: session}, {query: token}]}
"""

PROJECT = """
method: GET
path: /hello/{name}
inputParameters:
  name: {type: text, required: true}
  q: {type: text}
  n: {type: integer}
  d: {type: decimal}
  h: {type: text, in: header}
  c: {type: text, in: cookie}
headers: {X-Name: << input.name >>}
functionStack:
  - respond:
      headers: {X-Query: << input.q >>}
      cookies: {seen: << input.q >>, other: {value: x, path: << "/" ~ (input.q | default("") | urlEncode) >>}}
  - stream:
      content: '<< [input, request.path, request.query, request.headers, request.cookies] >>'
---
method: POST
path: /json
responseType: json
inputParameters:
  n: integer
  d: decimal
  t: text
  l: {type: list}
  o: {type: object}
  j: json
  f: {type: list, items: {type: decimal}}
functionStack:
  - return: << input >>
---
method: POST
path: /form
responseType: json
inputParameters:
  file: {type: file, maxSize: 1MB}
  files: {type: list, items: {type: file}}
  t: text
functionStack:
  - file.read: {from: << input.file >>, decode: text}
    when: << input.file is not none >>
    as: read
  - collect: {in: << read >>, into: text}
    when: << input.file is not none >>
    as: held
  - return: << [input.t, input.file.name if input.file else null, held] >>
---
method: POST
path: /rows
inputParameters: {rows: {type: stream, decode: ndjson}}
functionStack:
  - forEach: {in: << input.rows >>, as: row, do: [{stream: << row >>}]}
---
method: POST
path: /raw
responseType: json
inputParameters: {q: {type: text, in: query}}
functionStack:
  - return: '<< {"size": request.body | length, "headers": request.headers} >>'
---
method: POST
path: /whole
responseType: json
inputParameters: {data: {type: text, in: wholeBody}}
functionStack:
  - return: << input.data | default("") | length >>
---
method: GET
path: /kept
responseType: json
authentication: [key, jwt]
functionStack:
  - return: << auth >>
---
method: GET
path: /ticks
streaming: {format: ndjson}
functionStack:
  - streams.interval: 20ms
    as: ticks
  - forEach: {in: << ticks >>, as: tick, do: [{stream: << loop.index >>}]}
"""


@dataclass
class Attacked:
    """A server under attack. ``gaps`` are the seconds between two chunks of the reader beside."""

    server: Server
    gaps: list[float] = field(default_factory=list)
    logged: list[Any] = field(default_factory=list)
    complaints: list[Any] = field(default_factory=list)

    async def throw(self, data: bytes, *, seconds: float = 20.0, end: bool = False) -> bytes:
        """Send bytes on a connection of their own; return all that comes back until it is closed.

        Raises TimeoutError where it stays open. ``end``: the client closes its side.
        """
        client = await self.server.connect()
        try:
            return await self.throw_on(client, data, seconds=seconds, end=end)
        finally:
            client.close()

    async def throw_on(self, client: Client, data: bytes, *, seconds: float = 20.0, end: bool = False) -> bytes:
        """Do as `throw` on a connection that is there."""
        answer = b""
        try:
            client.writer.write(data)
            if end:
                client.writer.write_eof()
            async with asyncio.timeout(seconds):
                while piece := await client.reader.read(1 << 16):
                    answer += piece
        except ConnectionError:
            pass  # closed is an answer, too
        return answer


@asynccontextmanager
async def attacked(folder: Path, *, settings: str = SETTINGS) -> AsyncIterator[Attacked]:
    """Serve the project; afterwards nothing of the attack may be left, and the reader beside have been on time."""
    loop = asyncio.get_running_loop()
    with capture_logs() as logged:
        async with project(folder, settings, PROJECT) as server:
            attack = Attacked(server, logged=logged)
            loop.set_exception_handler(lambda _, context: attack.complaints.append(context))
            beside = await server.connect()
            beside.ask("/ticks")
            await beside.head()
            await beside.chunk()
            files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (it holds one open itself)
            tasks = len(asyncio.all_tasks())
            reading = asyncio.create_task(_read_on(beside, attack.gaps))
            try:
                yield attack
                for client in server.clients:
                    if client is not beside:
                        client.close()
                await _until(lambda: len(server.service.timers) == 1)
                await _until(lambda: len(asyncio.all_tasks()) <= tasks + 2)
                await _until(lambda: len(os.listdir("/proc/self/fd")) <= files)  # noqa: PTH208
                await _until(lambda: attack.gaps)  # an attack may be over before the next chunk is due
                assert not reading.done(), reading
            finally:
                beside.close()  # its reader reads no end of it
                await asyncio.wait([reading])
                assert isinstance(reading.exception(), asyncio.IncompleteReadError)
    alarms = [each for each in logged if each["log_level"] in ("error", "critical")]
    assert not attack.complaints, attack.complaints
    assert not alarms, alarms
    assert attack.gaps, "the reader beside has read nothing"
    assert max(attack.gaps) < LATE, max(attack.gaps)


async def _read_on(client: Client, gaps: list[float]) -> None:
    """Read a stream's chunks, and write down how long each took to come."""
    now = asyncio.get_running_loop().time
    while True:
        before = now()
        await client.chunk()
        gaps.append(now() - before)


async def _until(done: Any) -> None:
    for _ in range(1500):
        if done():
            return
        await asyncio.sleep(0.01)
    assert done(), "something of the attack is left"


def status_of(answer: bytes) -> int:
    """Return the status of the first answer; 0 where there is none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.") else 0


def request(line: bytes = b"GET /hello/x", *headers: bytes, body: bytes = b"", host: bytes = b"x") -> bytes:
    """Return a request that is answered on a connection that is then closed."""
    lines = [line + b" HTTP/1.1", b"Host: " + host, b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(path: bytes, kind: bytes, body: bytes, *headers: bytes) -> bytes:
    """Return a POST with a body of some type."""
    length = b"Content-Length: %d" % len(body)
    return request(b"POST " + path, b"Content-Type: " + kind, length, *headers, body=body)


def json(body: bytes, *headers: bytes) -> bytes:
    """Return a POST of JSON."""
    return post(b"/json", b"application/json", body, *headers)


def chunked(body: bytes, path: bytes = b"/json") -> bytes:
    """Return a POST whose chunks are given as they are."""
    return request(b"POST " + path, b"Content-Type: application/json", b"Transfer-Encoding: chunked", body=body)


def form(*parts: bytes, end: bytes = b"--XX--\r\n") -> bytes:
    """Return a POST of a multipart form; a part is its headers and its content."""
    body = b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + end
    return post(b"/form", b"multipart/form-data; boundary=XX", body)


def part(content: bytes, disposition: bytes = b'name="t"', *headers: bytes) -> bytes:
    """Return a part of a form."""
    lines = [b"Content-Disposition: form-data; " + disposition, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + content
