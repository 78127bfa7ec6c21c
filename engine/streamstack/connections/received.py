"""Taking what has come of a body: all of it at once."""

from __future__ import annotations

from functools import cache
from typing import Any

import aiohttp


@cache
def is_known() -> bool:
    """Whether this aiohttp keeps what has come where `take_all` looks for it."""
    names = {"_buffer", "_buffer_offset", "_cursor", "_size", "_wait"}
    return names <= {*dir(aiohttp.StreamReader)}


async def take_all(content: Any) -> bytes:
    """Return all that has come of a body, once something has; nothing at its end. Raises what broke it.

    It does as `StreamReader.readany`, which has the parser look for more after each chunk of HTTP that it gives out:
    for each event, where a server sends each as such a chunk.
    """
    if not is_known() or content.exception() is not None or content.at_eof():
        return await _read_any(content)
    buffer = content._buffer
    if not buffer:
        await content._wait("readany")
    if len(buffer) < 2 or content._buffer_offset or content.exception() is not None:
        return await _read_any(content)
    last = buffer.pop()
    data = b"".join(buffer)
    buffer.clear()
    buffer.append(last)
    content._size -= len(data)
    content._cursor += len(data)
    # The last goes the usual way, which sees to what has to be done once for all of them.
    rest: bytes = content.read_nowait()
    return data + rest


async def _read_any(content: Any) -> bytes:
    data: bytes = await content.readany()
    return data
