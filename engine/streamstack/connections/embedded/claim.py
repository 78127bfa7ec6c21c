"""The lock on a project's `.streamstack` folder: one embedded PostgreSQL, and who has it.

Part of the launcher, which takes it and hands it on to PostgreSQL: the standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from streamstack.connections.embedded.faults import EmbeddedError

if sys.platform != "win32":
    import fcntl

#: Seconds for a server to end whose parent was killed.
ENDING: Final = 25.0
#: Seconds that ``look`` surely needs less than.
LOOKING: Final = 0.2
_FILE: Final = "postgres.lock"


def make_folder(folder: Path) -> None:
    """Make the `.streamstack` folder, which no version control takes in.

    Raises EmbeddedError where it can't be made.
    """
    try:
        # Where root serves, PostgreSQL is another user and has to pass through, but nobody has to look around.
        folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
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


def claim(folder: Path, server: int) -> int:
    """Lock the folder for a server, by its process id, until the file returned is closed everywhere.

    Blocks while a server ends whose parent was killed. Raises EmbeddedError where another server has it.
    """
    try:
        lock = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise EmbeddedError(
            f"{folder / _FILE} can't be opened: {error.strerror}; start the server as the user whose file it is"
        ) from error
    give(folder / _FILE, folder)
    begun = time.monotonic()
    while not _take(lock):
        holder = read(lock)
        waited = time.monotonic() - begun
        # At first it may be one who only looks.
        if waited > ENDING or (waited > LOOKING and _is_held(holder)):
            raise EmbeddedError(
                f"another server (process {holder.get('pid', 'unknown')}) has its database in {folder}: stop that"
                " one, or serve a copy of the project in another folder, or name another database in"
                " streamstack.yaml: `databases: {main: {url: postgresql://...}}`"
            )
        time.sleep(0.05)
    return lock


def describe(lock: int, server: int, connection: Mapping[str, Any]) -> None:
    """Write into the lock who has it and how to connect, for the other commands."""
    text = json.dumps({"pid": server, "launcher": os.getpid(), **connection}) + "\n"
    os.ftruncate(lock, 0)
    os.pwrite(lock, text.encode(), 0)


def read(lock: int) -> Mapping[str, Any]:
    """Return what stands in the lock: of whoever has it, or had it and was killed; else nothing."""
    with suppress(ValueError):
        found = json.loads(os.pread(lock, 65536, 0))
        if isinstance(found, dict):
            return found
    return {}


def look(folder: Path) -> Mapping[str, Any] | None:
    """Return what stands in the lock while a living server has it, else None."""
    try:
        lock = os.open(folder / _FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _take(lock, exclusive=False):
            return None
        found = read(lock)
        return found if not found or _is_held(found) else None
    finally:
        os.close(lock)


def _take(lock: int, *, exclusive: bool = True) -> bool:
    try:
        fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(holder: Mapping[str, Any]) -> bool:
    """Tell whether both the server and its launcher live: else PostgreSQL is about to end."""
    return all(_lives(holder.get(name)) for name in ("pid", "launcher"))


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
