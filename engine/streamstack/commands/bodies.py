"""The body of a request from the command line: read while it is sent, so that it may be larger than the memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO, Final

_PIECE: Final = 64 * 1024


class UnreadableError(Exception):
    """A file could not be sent as it was promised."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a body: bytes, a file by its name, or what is open already; ``size`` in bytes, None if not known."""

    source: bytes | Path | BinaryIO
    size: int | None

    def pieces(self) -> Iterator[bytes]:
        """Give the bytes, no more than were promised. Raises UnreadableError."""
        if isinstance(self.source, bytes):
            yield self.source
            return
        name = str(self.source) if isinstance(self.source, Path) else "the body"
        try:
            if isinstance(self.source, Path):
                with self.source.open("rb") as file:
                    yield from self._read(file, name)
            else:
                yield from self._read(self.source, name)
        except OSError as error:
            raise UnreadableError(f"{name}: {error.strerror or error}") from None

    def _read(self, file: BinaryIO, name: str) -> Iterator[bytes]:
        read = _reader(file)
        left = self.size
        while left is None or left > 0:
            piece = read(_PIECE if left is None else min(left, _PIECE))
            if not piece:
                break
            if left is not None:
                left -= len(piece)
            yield piece
        if left:
            raise UnreadableError(f"{name} became shorter while it was sent")


def _reader(file: BinaryIO) -> Callable[[int], bytes]:
    """Return what reads from a file: of a pipe, what has come.

    Not by its buffer, which can't be let go of while somebody waits for a pipe.
    """
    try:
        descriptor = file.fileno()
    except (OSError, AttributeError):
        return file.read
    return partial(os.read, descriptor)


@dataclass(frozen=True, slots=True)
class Body:
    """A body in parts, one behind the other."""

    parts: tuple[Part, ...]

    @property
    def length(self) -> int | None:
        """How many bytes it has; None where that is not known before the end."""
        sizes = [part.size for part in self.parts]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def pieces(self) -> Iterator[bytes]:
        """Give the bytes as they are read. Raises UnreadableError."""
        for part in self.parts:
            yield from part.pieces()


def of_bytes(data: bytes) -> Part:
    """Return bytes as a part."""
    return Part(data, len(data))


def of_file(path: Path) -> Part:
    """Return a file as a part; it is opened when it is sent. Raises OSError where it can't be."""
    status = path.stat()
    if S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return Part(path, _size(status))


def of_open(file: BinaryIO) -> Part:
    """Return what is left of an open file, a pipe or a terminal as a part."""
    try:
        size = _size(os.fstat(file.fileno()))
        return Part(file, size if size is None else max(0, size - file.tell()))
    except (OSError, AttributeError):
        return Part(file, None)


def _size(status: os.stat_result) -> int | None:
    # The kernel's own files (/proc) say 0 and hold something; a pipe says 0, too.
    return status.st_size if S_ISREG(status.st_mode) and status.st_size else None
