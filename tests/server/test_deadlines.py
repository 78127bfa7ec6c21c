"""How long runs last, and what is asked of the system for connections."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

import pytest

from streamstack.language.settings import Settings
from tests.server.declared import declared, small_reader
from tests.server.serving import Server

ENDLESS = """
method: GET
path: /s
streaming: {maxDuration: %s, keepAlive: 0}
functionStack:
  - while: {condition: true, limit: 100000000, do: [{stream: {content: tick, delay: 10ms}}]}
"""


async def lengths(text: str, readers: int) -> list[int]:
    """Return how many chunks each of many streams had when its time was over."""
    async with declared(text) as (server, _):
        replies = await asyncio.gather(*(server.get() for _ in range(readers)))
    for reply in replies:
        event = reply.body.decode().split("\n\n")[-2]
        name, data = event.split("\n")
        assert name == "event: error"
        told = json.loads(data.removeprefix("data: "))
        assert told["code"] == "timeout"
        assert reply.complete, "an error that was told ends in good order, and EventSource connects again"
    return [reply.body.count(b"data: tick") for reply in replies]


async def test_streams_opened_together_do_not_end_together() -> None:
    """`maxDuration` is shorter at random, by its jitter at most."""
    counts = await lengths(ENDLESS % "{limit: 600ms, jitter: 90%}", 30)
    assert min(counts) < max(counts) / 2
    assert max(counts) < 200


async def test_without_jitter_they_do() -> None:
    """`jitter: 0` makes it exact, as far as a machine is."""
    counts = await lengths(ENDLESS % "{limit: 400ms, jitter: 0}", 10)
    assert max(counts) < 200
    assert min(counts) >= max(counts) / 2


def options(server: Server) -> list[tuple[int, int, int]]:
    """Return of each connection what may be unsent, the patience (ms), and whether the system probes."""
    found = []
    for connection in server.runner.server.connections:  # type: ignore[union-attr]
        assert connection.transport is not None
        sock: Any = connection.transport.get_extra_info("socket")
        found.append(
            (
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT),
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            )
        )
    return found


LIVES = """
method: GET
path: /long
streaming: {idleTimeout: 10m, buffer: 64KB}
functionStack: [{stream: long}]
---
method: GET
path: /short
streaming: {idleTimeout: 1s}
functionStack: [{stream: short}]
---
method: GET
path: /endless
streaming: {idleTimeout: 0}
functionStack: [{stream: endless}]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the options are Linux's")
async def test_the_system_knows_how_long_to_wait_for_a_peer() -> None:
    """Each stream on a connection sets the patience of its endpoint, 30 seconds at least; unsent bytes are bounded."""
    async with declared(LIVES) as (server, _):
        client = await server.connect()
        await asyncio.sleep(0.05)
        assert options(server) == [(128 * 1024, 300_000, 1)]
        for path, expected in (
            ("/long", (64 * 1024, 600_000, 1)),
            ("/short", (128 * 1024, 30_000, 1)),
            ("/endless", (128 * 1024, 300_000, 1)),
        ):
            client.ask(path)
            await client.head()
            await client.rest()
            assert options(server) == [expected]


@pytest.mark.skipif(sys.platform != "linux", reason="the option is Linux's")
async def test_what_the_system_holds_unsent_is_bounded() -> None:
    """A run whose reader does not read stops soon: not megabytes later, when the system's buffers are full."""
    text = """
    method: GET
    path: /s
    streaming: {buffer: 64KB, format: text}
    functionStack:
      - set: {filling: '<< "x" * 1000 >>'}
      - forEach:
          in: << range(100000) >>
          do: [{stream: '<< filling >>'}, {test.note: << stream.count >>}]
    """
    async with declared(text) as (server, noted):
        await small_reader(server, "/s")
        before = -1
        while before != len(noted):
            before = len(noted)
            await asyncio.sleep(0.2)
    # 64 KB of ours, 64 KB unsent, what the reader's own system took, and one large piece of the system's on top.
    assert before < 400


def test_settings_have_the_defaults() -> None:
    """An hour, up to a tenth less."""
    streaming = Settings().streaming
    assert (streaming.max_duration, streaming.jitter) == (3600.0, 0.1)
