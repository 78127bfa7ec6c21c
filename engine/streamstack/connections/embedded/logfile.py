"""The log of the embedded PostgreSQL: bounded, and its last lines at hand.

Part of the launcher: the standard library only.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Final

#: Bytes after which the log begins anew; the one before is kept.
LIMIT: Final = 4 * 1024 * 1024


class Logfile:
    """Writes what comes; at twice its limit the older half is gone."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._file = self._open()
        self._size = os.fstat(self._file).st_size
        self._recent: deque[bytes] = deque(maxlen=16)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Append bytes. A full disk loses them: the database goes on."""
        self._recent.append(data)
        try:
            if self._size > self._limit:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                # Where no new one can be opened, the number of the old one must not become another file's.
                before, self._file = self._file, self._open()
                os.close(before)
                self._size = 0
            self._size += os.write(self._file, data)
        except OSError:
            return

    def close(self) -> None:
        """Close the file; nothing can be written any more."""
        os.close(self._file)

    def recent(self) -> str:
        """Return what was written of late."""
        return b"".join(self._recent).decode("utf-8", "replace")
