"""A request's body whose Content-Encoding is undone as it is read.

aiohttp would undo it as it arrives: then a body that is refused after its first bytes is inflated to its end all the
same, and one that was cut short passes for whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from aiohttp import StreamReader, web

from streamstack.connections.content_coding import Coding, undo
from streamstack.errors import RunError

#: The codings that are undone; one at a time, since each on top of another multiplies what a small body can become.
CODINGS: Final = frozenset({"gzip", "deflate", "br"})
#: Bytes that may wait to be read: far more than there ever are, since one piece is decoded at a time.
_LIMIT: Final = 1 << 20


class CodingError(web.RequestPayloadError):
    """A body that is not encoded as it says, or that ends in the middle of its coding."""


class _Connection:
    """What a reader asks of its connection: nothing, since the bytes as they arrive have a reader of their own."""

    _reading_paused = False

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self, *, resume_parser: bool = True) -> None:
        """Do nothing."""


class Decoded(StreamReader):
    """Reads what a body says once its coding is undone. ``wire`` is the body as it arrives."""

    __slots__ = ("_begun", "_coding", "_pieces", "wire")

    def __init__(self, wire: StreamReader, coding: str, loop: asyncio.AbstractEventLoop) -> None:
        connection: Any = _Connection()
        super().__init__(connection, _LIMIT, loop=loop)
        self.wire = wire
        self._coding: Coding = undo(coding)[0]
        self._pieces: Iterator[bytes] = iter(())
        self._begun = False

    async def _wait(self, func_name: str) -> None:
        """Have one piece more to read, or the end. Raises CodingError, and what breaks the body off."""
        try:
            piece = next(self._pieces, None)
            if piece is not None:
                await asyncio.sleep(0)  # much may come of little: others have their turn
                self.feed_data(piece)
                return
            data = await self.wire.readany()
            if data:
                self._begun = True
                self._pieces = self._coding.feed(data)
                self.feed_data(next(self._pieces, b""))
                return
        except RunError as error:
            raise self._broken() from error
        if self._begun and not self._coding.complete:
            raise self._broken()
        self.feed_eof()

    def _broken(self) -> CodingError:
        error = CodingError("the body is not encoded as it says")
        self.set_exception(error)
        return error


def wire_of(content: StreamReader) -> StreamReader:
    """Return a body as it arrives."""
    return content.wire if isinstance(content, Decoded) else content
