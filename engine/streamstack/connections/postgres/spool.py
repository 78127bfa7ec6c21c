"""Rows on disk, between a cursor that must end soon and a reader who takes his time."""

from __future__ import annotations

import asyncio
import pickle
import tempfile
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any


class Spool:
    """A file of batches, read while it is still being written. It has no name: it is gone with the process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._file = tempfile.TemporaryFile(prefix="streamstack-rows-")  # noqa: SIM115
        self._end = 0
        self._sizes: deque[int] = deque()  # of the batches that were not read yet
        self._ended = False
        self._bell = asyncio.Event()
        self._turn = asyncio.Lock()

    async def put(self, rows: list[Any]) -> bool:
        """Add a batch; False where the file would have more bytes than it may."""
        data = await asyncio.to_thread(pickle.dumps, rows, pickle.HIGHEST_PROTOCOL)
        if self._end + len(data) > self._most:
            return False
        async with self._turn:
            await asyncio.to_thread(self._write, self._end, data)
        self._end += len(data)
        self._sizes.append(len(data))
        self._bell.set()
        return True

    def end(self) -> None:
        """Take note that no more batches come."""
        self._ended = True
        self._bell.set()

    async def batches(self) -> AsyncGenerator[list[Any], None]:
        """Give the batches in their order, as soon as they are there; then close the file."""
        at = 0
        try:
            while True:
                while not self._sizes:
                    if self._ended:
                        return
                    self._bell.clear()
                    await self._bell.wait()
                size = self._sizes.popleft()
                async with self._turn:
                    data = await asyncio.to_thread(self._read, at, size)
                at += size
                # Our own rows, from a file that nobody else can open.
                yield pickle.loads(data)  # noqa: S301
        finally:
            self.close()

    def _write(self, at: int, data: bytes) -> None:
        self._file.seek(at)
        self._file.write(data)

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        return self._file.read(size)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
