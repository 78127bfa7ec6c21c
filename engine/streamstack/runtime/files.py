"""An uploaded file: in memory while small, on disk when large, gone when the run is over."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncGenerator
from typing import IO, Any, Final

from streamstack.language.values import Opaque

#: Bytes that are kept in memory; a larger file goes to disk.
IN_MEMORY: Final = 1024 * 1024
#: Bytes read from disk at once.
PIECE: Final = 256 * 1024


class File(Opaque):
    """A file as a client sent it. ``name`` is its last part only, and no place to store it under.

    In expressions it has `name`, `contentType` and `size` (bytes). It is written once, then read as often as needed.
    """

    kind = "file"
    __slots__ = ("_disk", "_lock", "_memory", "content_type", "name", "size")

    def __init__(self, name: str, content_type: str) -> None:
        self.name = _last_part(name)
        self.content_type = content_type
        self.size = 0
        self._memory = bytearray()
        self._disk: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Any:
        if name == "name":
            return self.name
        if name == "contentType":
            return self.content_type
        if name == "size":
            return self.size
        raise KeyError(name)

    async def write(self, data: bytes | bytearray) -> None:
        """Add bytes at the end."""
        self.size += len(data)
        if self._disk is None and self.size <= IN_MEMORY:
            self._memory += data
            return
        await asyncio.to_thread(self._write_to_disk, bytes(data))

    def _write_to_disk(self, data: bytes) -> None:
        with self._lock:
            if self._disk is None:
                # Without a name in the file system it is gone with the process, whatever happens.
                self._disk = tempfile.TemporaryFile(prefix="streamstack-")  # noqa: SIM115
                self._disk.write(self._memory)
                self._memory = bytearray()
            self._disk.seek(0, 2)
            self._disk.write(data)

    async def pieces(self, size: int = PIECE) -> AsyncGenerator[bytes, None]:
        """Give the bytes from the beginning, at most ``size`` at once. Several readers may do so at the same time."""
        at = 0
        while at < self.size:
            piece = await self._read(at, size)
            if not piece:
                return
            at += len(piece)
            yield piece

    async def read(self) -> bytes:
        """Return all the bytes."""
        return await self._read(0, self.size)

    async def _read(self, at: int, size: int) -> bytes:
        if self._disk is None:
            return bytes(self._memory[at : at + size])
        return await asyncio.to_thread(self._read_from_disk, at, size)

    def _read_from_disk(self, at: int, size: int) -> bytes:
        with self._lock:
            if self._disk is None or self._disk.closed:
                return b""
            self._disk.seek(at)
            return self._disk.read(size)

    def close(self) -> None:
        """Delete the file. Does nothing the second time."""
        with self._lock:
            if self._disk is not None:
                self._disk.close()
            self._memory = bytearray()

    def __del__(self) -> None:
        # A run that forgets its file deletes it.
        if self._disk is not None:
            self._disk.close()


def _last_part(name: str) -> str:
    """Return a file's name without folders and control characters, at most 255 characters of it."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(each for each in last if each.isprintable())[:255]
