from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from streamstack.connections.received import is_known, take_all

LIMIT = 1 << 16


class Protocol:
    """Counts how often a reader asks its connection to go on."""

    connected = True

    def __init__(self) -> None:
        self.resumed = 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self, *, resume_parser: bool = True) -> None:
        self.resumed += resume_parser


def reader_of(*chunks: bytes) -> tuple[aiohttp.StreamReader, Protocol]:
    """Return a reader to which these chunks of HTTP have come."""
    protocol: Any = Protocol()
    reader = aiohttp.StreamReader(protocol, LIMIT, loop=asyncio.get_running_loop())
    for chunk in chunks:
        reader.begin_http_chunk_receiving()
        reader.feed_data(chunk)
        reader.end_http_chunk_receiving()
    return reader, protocol


async def test_the_reader_is_known() -> None:
    """The pinned aiohttp keeps what has come where we take it from."""
    assert is_known()


@pytest.mark.parametrize("count", [1, 2, 300])
async def test_all_is_taken_at_once(count: int) -> None:
    """It gives what `readany` gives, leaves the reader as that does, and asks the connection to go on once."""
    chunks = [b"data: %d\n\n" % number for number in range(count)]
    ours, protocol = reader_of(*chunks)
    theirs, _ = reader_of(*chunks)
    assert await take_all(ours) == await theirs.readany() == b"".join(chunks)
    assert protocol.resumed == 1
    for name in ("_buffer", "_size", "_cursor", "_http_chunk_splits", "total_bytes"):
        assert getattr(ours, name) == getattr(theirs, name), name
    ours.feed_data(b"more")
    assert await take_all(ours) == b"more"
    ours.feed_eof()
    assert await take_all(ours) == b""


async def test_it_waits_for_the_first_bytes() -> None:
    """Where nothing has come yet, it gives what comes next."""
    reader, _ = reader_of()
    waiting = asyncio.ensure_future(take_all(reader))
    await asyncio.sleep(0)
    assert not waiting.done()
    reader.feed_data(b"a")
    reader.feed_data(b"b")
    assert await waiting == b"ab"


async def test_what_broke_the_body_is_raised() -> None:
    """The reader's own error reaches whoever takes, also one who waits."""
    reader, _ = reader_of()
    waiting = asyncio.ensure_future(take_all(reader))
    await asyncio.sleep(0)
    reader.set_exception(aiohttp.ClientPayloadError("gone"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await waiting
    with pytest.raises(aiohttp.ClientPayloadError):
        await take_all(reader)
