"""What readers at random read: definitions whose chunks tell their numbers, and an upstream that breaks off."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from dataclasses import dataclass, field

#: Streams that count, at several paces, and one that relays an upstream that may break off.
DEFINITIONS = """
method: GET
path: /count
inputParameters:
  times: {type: integer, required: true}
  delay: {type: integer, default: 0}
  size: {type: integer, default: 10}
streaming: {resume: {keep: KEEP}, keepAlive: 1s}
functionStack:
  - set: {filling: "<< 'x' * input.size >>"}
  - repeat:
      times: << input.times >>
      do:
        - stream: {content: "<< loop.index0 >> << filling >>", delay: << input.delay >>}
---
method: GET
path: /relay
inputParameters: {upstream: {type: integer, required: true}, times: {type: integer, required: true}}
streaming: {resume: {keep: KEEP}, keepAlive: 1s}
functionStack:
  - http.stream: {url: "http://127.0.0.1:<< input.upstream >>/<< input.times >>", decode: lines}
    as: lines
  - forEach:
      in: << lines >>
      as: line
      do: [{stream: "<< line >> x"}]
"""

#: For a longer look: rows of a database, and runs that a key begins once.
_MORE = """
---
method: GET
path: /rows
inputParameters: {times: {type: integer, required: true}, size: {type: integer, default: 10}}
streaming: {resume: {keep: KEEP}, keepAlive: 1s}
functionStack:
  - db.stream:
      sql: >-
        SELECT n || ' ' || repeat('x', << input.size >>::int) AS line
        FROM generate_series(0, << input.times >>::int - 1) AS n
      batch: 20
    as: rows
  - forEach:
      in: << rows >>
      as: row
      do: [{stream: {content: << row.line >>, delay: 2}}]
---
method: POST
path: /once
inputParameters:
  upstream: {type: integer, required: true}
  times: {type: integer, required: true}
  key: {type: text, required: true}
streaming: {resume: {keep: KEEP}, keepAlive: 1s}
functionStack:
  - http.stream:
      url: "http://127.0.0.1:<< input.upstream >>/<< input.times >>/<< input.key >>"
      decode: lines
    as: lines
  - forEach:
      in: << lines >>
      as: line
      do: [{stream: "<< line >> x"}]
"""
MORE = DEFINITIONS + _MORE


@dataclass
class Upstream:
    """Sends lines; each second request, about, is broken off in the middle."""

    chance: random.Random
    port: int = 0
    server: asyncio.Server | None = None
    runs: Counter[str] = field(default_factory=Counter)

    async def start(self) -> None:
        """Listen."""
        self.server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more."""
        assert self.server is not None
        self.server.close()
        await self.server.wait_closed()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.match(rb"GET /(\d+)(?:/(\w+))?", head)
            assert found is not None
            if found[2] is not None:
                self.runs[found[2].decode()] += 1
            times = int(found[1])
            last = self.chance.randrange(times) if self.chance.random() < 0.5 else times
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(last):
                line = b"%d\n" % number
                writer.write(b"%x\r\n%b\r\n" % (len(line), line))
                await writer.drain()
                await asyncio.sleep(0.005)
            if last == times:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            else:
                writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
