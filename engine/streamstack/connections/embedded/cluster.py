"""The folder that holds a PostgreSQL's data: made once, whole or not at all, and then checked.

Part of the launcher: the standard library only.
"""

from __future__ import annotations

import locale
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streamstack.connections.embedded.faults import EmbeddedError
from streamstack.connections.embedded.identity import LINUX, Identity, identities
from streamstack.connections.embedded.nameless import copy_programs

#: Appended to the postgresql.conf that initdb writes; what stands later there wins.
SETTINGS: Final = """
# ---- streamstack: a small database beside a small server. Yours to change; made once.
timezone = 'UTC'
log_timezone = 'UTC'
max_connections = 100
shared_buffers = '64MB'
huge_pages = off
wal_level = minimal
max_wal_senders = 0
min_wal_size = '32MB'
max_wal_size = '256MB'
log_checkpoints = off
log_line_prefix = '%m [%p] '
jit = off
"""
#: Only over the socket, whose folder is closed to anybody else.
ACCESS: Final = (
    "# streamstack: whoever reaches the socket may come in; nobody else can.\nlocal all all trust\n"
)
_VERSION: Final = re.compile(r"\(PostgreSQL\) (\d+)(\S*)")
#: Below this a machine's shared memory is too small for what a query may ask of it (bytes).
_SHARED: Final = 256 * 1024 * 1024
_LINES: Final = 12
INSTEAD: Final = (
    "name a database of your own in streamstack.yaml: `databases: {main: {url: postgresql://...}}`"
)


@dataclass(frozen=True, slots=True)
class Programs:
    """PostgreSQL's programs, and the user that can run them here."""

    folder: Path
    identity: Identity
    version: str

    @property
    def major(self) -> int:
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]  # found by _VERSION


def choose(bin_folder: Path, folder: Path) -> Programs:
    """Find the user that can both run the programs and reach the folder where the data lies.

    Raises EmbeddedError, with what was tried.
    """
    tried = []
    for identity in identities(folder.parent.stat().st_uid):
        try:
            _try_to_own(identity, folder)
            code, printed = identity.run([str(bin_folder / "postgres"), "-V"], check=folder)
        except OSError as error:
            tried.append(f"as {identity.what}: {error}")
            continue
        found = _VERSION.search(printed)
        if code == 0 and found:
            return Programs(bin_folder, identity, found[1] + found[2])
        tried.append(f"as {identity.what}: {last_lines(printed) or f'exit code {code}'}")
    raise EmbeddedError(
        f"PostgreSQL's programs in {bin_folder} can't be run with data in {folder}; {INSTEAD}"
        + "".join(f"\n  {each}" for each in tried)
    )


def prepare(programs: Programs, data: Path) -> None:
    """Make the data folder if there is none yet; check it if there is.

    Raises EmbeddedError for data of another version or user, and where initdb fails.
    """
    try:
        found = (data / "PG_VERSION").read_text("ascii").strip()
    except FileNotFoundError:
        if data.exists() and any(data.iterdir()):
            raise EmbeddedError(
                f"{data} holds something, but no data of PostgreSQL: move it away"
            ) from None
        _make(programs, data)
        return
    except PermissionError:
        raise EmbeddedError(
            f"{data} belongs to another user: start the server as that one, or {INSTEAD}"
        ) from None
    if found != str(programs.major):
        fitting = f"`databases: {{main: {{bin: /usr/lib/postgresql/{found}/bin}}}}`"
        raise EmbeddedError(
            f"the data in {data} was written by PostgreSQL {found}, and the programs in {programs.folder} are"
            f" {programs.version}, which can't read it: use programs of PostgreSQL {found} ({fitting}), or move the"
            " data over with pg_dump, or delete that folder if nothing in it is needed"
        )
    programs.identity.own(data)
    if data.stat().st_uid != programs.identity.uid:
        raise EmbeddedError(
            f"{data} belongs to another user (number {data.stat().st_uid}): start the server as that one,"
            f" or {INSTEAD}"
        )


def _make(programs: Programs, data: Path) -> None:
    identity = programs.identity
    new = data.with_name(data.name + ".new")
    copies = data.with_name(data.name + ".programs")
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(copies, ignore_errors=True)
    try:
        new.mkdir(mode=0o700)
        identity.own(new)
        try:
            folder = programs.folder
            if not identity.named:
                folder = copy_programs(folder, copies) or folder
            command = [str(folder / "initdb"), "-D", str(new), *_options(programs.major)]
            code, printed = identity.run(command, check=new)
        except OSError as error:
            code, printed = 1, str(error)
        if code != 0:
            raise EmbeddedError(_explain(programs, data, printed))
        with (new / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(SETTINGS + ("io_method = sync\n" if programs.major >= 18 else ""))
            file.flush()
            os.fsync(file.fileno())
        (new / "pg_hba.conf").write_text(ACCESS, "utf-8")
        if data.exists():
            data.rmdir()
        new.rename(data)
    except OSError as error:
        raise EmbeddedError(
            f"no database can be made in {data.parent}: {error}; or {INSTEAD}"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(copies, ignore_errors=True)


def _try_to_own(identity: Identity, folder: Path) -> None:
    """Raise OSError where files in a folder can't be given to a user, as on some network disks."""
    if os.geteuid() == 0:
        probe = folder / "postgres.probe"
        try:
            probe.touch()
            identity.own(probe)
        finally:
            probe.unlink(missing_ok=True)


def _options(major: int) -> list[str]:
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        name = "C.UTF-8"
    except locale.Error:
        name = "C"
    options = [
        "--username=postgres",
        "--encoding=UTF8",
        f"--locale={name}",
        "--auth-local=trust",
        "--auth-host=reject",
    ]
    if major >= 16:
        # Else it takes what is there, however small.
        options += ["--set", f"dynamic_shared_memory_type={shared_memory()}"]
    if major >= 17:
        # The same order and the same upper case on every machine, whatever its library knows.
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return options


def _explain(programs: Programs, data: Path, printed: str) -> str:
    if not programs.identity.named:
        uid = programs.identity.uid
        return (
            f"no database can be made in {data.parent}, since user {uid} has no name: add a line such as"
            f" `app:x:{uid}:{programs.identity.gid}::/:/bin/sh` to /etc/passwd (in a Dockerfile: `RUN useradd -u {uid}"
            f" app`), or {INSTEAD}\n{last_lines(printed)}"
        )
    return f"no database could be made in {data.parent}; initdb said:\n{last_lines(printed)}\nElse {INSTEAD}"


def shared_memory() -> str:
    """Return where parallel queries share memory: on disk where the machine, often a container, has little."""
    try:
        there = os.statvfs("/dev/shm")  # noqa: S108 (it is asked for its size)
    except OSError:
        return "mmap" if LINUX else "posix"
    roomy = there.f_bavail * there.f_frsize >= _SHARED and os.access("/dev/shm", os.W_OK)  # noqa: S108
    return "posix" if roomy else "mmap"


def last_lines(printed: str) -> str:
    """Return the end of what a program printed, where it says why it failed."""
    return "\n".join(printed.strip().splitlines()[-_LINES:])
