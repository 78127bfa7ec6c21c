"""The lock on a project's `.streamstack` folder: one embedded PostgreSQL, and who has it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from streamstack.connections.postgres.faults import EmbeddedError

#: Seconds for a server whose parent was killed to end.
ENDING: Final = 20.0
#: Seconds that ``look`` surely needs less than.
LOOKING: Final = 0.2
_FILE: Final = "postgres.lock"


def make_folder(folder: Path) -> None:
    """Make the `.streamstack` folder, which no version control takes in.

    Raises EmbeddedError where it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        give(folder, folder.parent)
        ignored = folder / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*\n", "utf-8")
            give(ignored, folder)
    except OSError as error:
        raise EmbeddedError(
            f"the embedded PostgreSQL keeps its data in {folder}, which can't be made: {error.strerror}; let this user"
            " write there, or name a database in streamstack.yaml: `databases: {main: {url: postgresql://...}}`"
        ) from error


def give(path: Path, like: Path) -> None:
    """Let a file belong to whom another belongs to, where root made it: that user may run the server next."""
    if os.geteuid() == 0:
        owner = like.stat()
        with suppress(OSError):
            os.chown(path, owner.st_uid, owner.st_gid)


def claim(folder: Path) -> int:
    """Lock the folder, and write into the lock who has it. The lock lasts until its file is closed everywhere.

    Blocks while a server ends whose parent was killed. Raises EmbeddedError where another process has it.
    """
    make_folder(folder)
    try:
        lock = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise EmbeddedError(
            f"{folder / _FILE} can't be opened: {error.strerror}; start the server as the user whose file it is"
        ) from error
    try:
        give(folder / _FILE, folder)
        begun = time.monotonic()
        while not _take(lock):
            holder = _read(lock).get("pid")
            waited = time.monotonic() - begun
            # At first it may be one who only looks.
            if waited > ENDING or (waited > LOOKING and _lives(holder)):
                raise EmbeddedError(
                    f"another server (process {holder or 'unknown'}) has its database in {folder}: stop that one, or"
                    " serve a copy of the project in another folder, or name another database in streamstack.yaml:"
                    " `databases: {main: {url: postgresql://...}}`"
                )
            time.sleep(0.05)
        describe(lock, {})
        return lock
    except BaseException:
        os.close(lock)
        raise


def describe(lock: int, connection: Mapping[str, Any]) -> None:
    """Write into the lock who has it and how to connect, for the other commands."""
    text = json.dumps({"pid": os.getpid(), **connection}) + "\n"
    os.ftruncate(lock, 0)
    os.pwrite(lock, text.encode(), 0)


def release(lock: int) -> None:
    """Give the lock up, as far as this process goes."""
    os.ftruncate(lock, 0)
    os.close(lock)


def look(folder: Path) -> Mapping[str, Any] | None:
    """Return what stands in the lock while a living process has it, else None."""
    try:
        lock = os.open(folder / _FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _take(lock, fcntl.LOCK_SH):
            return None
        found = _read(lock)
        return found if "pid" not in found or _lives(found["pid"]) else None
    finally:
        os.close(lock)


def _take(lock: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(lock: int) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(os.pread(lock, 65536, 0))
        if isinstance(found, dict):
            return found
    return {}


def _lives(pid: Any) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
