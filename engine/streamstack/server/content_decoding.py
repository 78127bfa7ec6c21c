"""A request's body whose Content-Encoding is undone as it is read.

aiohttp can undo it as it arrives: then a body that is refused after its first bytes is inflated to its end all the
same, and one that was cut short passes for whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from aiohttp import StreamReader, web

from streamstack.connections.http_client import Coding, decoders_for
from streamstack.errors import RunError

#: The codings that are undone; one at a time, since each on top of another multiplies what a small body can become.
CODINGS: Final = frozenset({"gzip", "deflate", "br"})


class CodingError(web.RequestPayloadError):
    """A body that is not encoded as it says, or that ends in the middle of its coding."""


class DecodedBody:
    """Reads what a body says once its coding is undone; ``wire`` is the body as it arrives.

    Where aiohttp has undone the coding already, as in most host applications, the bytes pass as they are.
    """

    __slots__ = ("_begun", "_coding", "_data", "_error", "_name", "_over", "_pieces", "_wire")

    def __init__(self, wire: StreamReader, coding: str) -> None:
        self._data = bytearray()
        self._wire = wire
        self._name = coding
        self._coding: Coding | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._begun = False
        self._over = False
        self._error: CodingError | None = None

    async def readany(self) -> bytes:
        """Return what is there, waiting for something; nothing at the end."""
        while not self._data and await self.more():
            pass
        return self._take(len(self._data))

    async def read(self, size: int = -1) -> bytes:
        """Return up to so many bytes, waiting for some; nothing at the end."""
        while (size < 0 or not self._data) and await self.more():
            pass
        return self._take(len(self._data) if size < 0 else size)

    async def more(self) -> bool:
        """Add one piece to read. Raises CodingError, and what breaks the body off."""
        if self._over:
            return False
        if self._error is not None:
            raise self._error
        try:
            piece = next(self._pieces, None)
            if piece is not None:
                await asyncio.sleep(0)  # much may come of little: others have their turn
                self._data += piece
                return True
            data = await self._wire.readany()
            if data:
                if not self._begun:
                    self._begin()
                if self._coding is None:
                    self._data += data
                    return True
                self._pieces = self._coding.feed(data)
                self._data += next(self._pieces, b"")
                return True
        except RunError as error:
            raise self._broken() from error
        if self._coding is not None and not self._coding.complete:
            raise self._broken()
        self._over = True
        return False

    def _begin(self) -> None:
        self._begun = True
        if self._wire.total_compressed_bytes is None:
            self._coding = decoders_for(self._name)[0]

    def at_eof(self) -> bool:
        """Return whether everything was read."""
        return self._over and not self._data

    def _broken(self) -> CodingError:
        self._error = CodingError("the body is not encoded as it says")
        return self._error

    def _take(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken
