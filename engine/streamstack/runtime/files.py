"""An uploaded file: in memory while small, on disk when large, gone when the run is over."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncGenerator
from io import FileIO
from typing import Any, Final

import structlog

from streamstack.errors import RunError
from streamstack.language.values import Opaque

log = structlog.get_logger("streamstack.run")

#: Bytes that are kept in memory; a larger file goes to disk.
IN_MEMORY: Final = 1024 * 1024
#: Bytes read from disk at once.
PIECE: Final = 256 * 1024


class File(Opaque):
    """A file as a client sent it. ``name`` is its last part only, and no place to store it under.

    In expressions it has `name`, `contentType` and `size` (bytes). It is written once, then read as often as needed.
    """

    kind = "file"
    remedy = "read it with `collect` and `into: bytes`, or its lines or records with `file.read`"
    __slots__ = ("_closed", "_disk", "_lock", "_memory", "_stored", "content_type", "name", "size")

    def __init__(self, name: str, content_type: str) -> None:
        self.name = _last_part(name)
        self.content_type = content_type
        self.size = 0
        self._memory = bytearray()  # the end, as far as it is not on disk
        self._stored = 0  # bytes on disk
        self._closed = False
        self._disk: FileIO | None = None
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Any:
        if name == "name":
            return self.name
        if name == "contentType":
            return self.content_type
        if name == "size":
            return self.size
        raise KeyError(name)

    @property
    def in_memory(self) -> int:
        """The bytes that are not on disk."""
        return len(self._memory)

    async def write(self, data: bytes | bytearray) -> None:
        """Add bytes at the end.

        Raises RunError ``unavailable`` (503) where the disk is full, or there are too many files.
        """
        self.size += len(data)
        self._memory += data
        if len(self._memory) <= IN_MEMORY:
            return
        # One thread's turn for many pieces: it costs as much as the writing of one.
        held, self._memory = self._memory, bytearray()
        try:
            await asyncio.to_thread(self._write_to_disk, held)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            log.error("upload-not-kept", reason=reason)  # noqa: TRY400  (a full disk has no traceback)
            raise RunError("unavailable", "the file can't be stored at the moment") from error

    def _write_to_disk(self, data: bytes | bytearray) -> None:
        with self._lock:
            if self._closed:
                return  # the upload was given up meanwhile
            if self._disk is None:
                # Without a name in the file system it is gone with the process, whatever happens.
                self._disk = tempfile.TemporaryFile(prefix="streamstack-", buffering=0)  # noqa: SIM115
            self._disk.seek(0, 2)
            rest = memoryview(data)
            while rest:
                rest = rest[self._disk.write(rest) :]
            self._stored += len(data)

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
        if at >= self._stored:
            begin = at - self._stored
            return bytes(self._memory[begin : begin + size])
        data = await asyncio.to_thread(self._read_from_disk, at, min(size, self._stored - at))
        if at + len(data) == self._stored:
            data += bytes(self._memory[: size - len(data)])
        return data

    def _read_from_disk(self, at: int, size: int) -> bytes:
        with self._lock:
            if self._closed or self._disk is None:
                return b""
            self._disk.seek(at)
            return self._disk.read(size)

    def close(self) -> None:
        """Delete the file. Does nothing the second time."""
        with self._lock:
            self._closed = True
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
