"""As whom PostgreSQL's programs run: they refuse to be root, and root's folders may be closed to anybody else.

Part of the launcher: the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

#: From linux/prctl.h, linux/capability.h and linux/sched.h; they are the same on every architecture.
_SET_DEATH_SIGNAL: Final = 1
_SET_SECURE_BITS: Final = 28
_SET_SUBREAPER: Final = 36
_AMBIENT: Final = 47
_AMBIENT_RAISE: Final = 2
_CAPABILITY_VERSION: Final = 0x20080522
#: Capabilities stay over a change of user, and access(2) goes by them as open(2) does.
_NO_SETUID_FIXUP: Final = 1 << 2
_NEW_USER_NAMESPACE: Final = 0x10000000
_DAC_OVERRIDE: Final = 1
_DAC_READ_SEARCH: Final = 2

LINUX: Final = sys.platform == "linux"
#: What the launcher does not heed, so that it outlives the server; its children do.
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


@dataclass(frozen=True, slots=True)
class Identity:
    """A user that programs run as. Files that they write belong to ``uid`` and ``gid``.

    ``become`` turns a new process into that user; ``named`` tells whether /etc/passwd has a name for it there,
    without which initdb does not start.
    """

    what: str
    uid: int
    gid: int
    become: Callable[[], None] | None = field(default=None, repr=False)
    named: bool = True

    def spawn(
        self,
        command: Sequence[str],
        *,
        output: int | IO[bytes],
        keep: Sequence[int] = (),
        check: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program that ends with this process. ``check`` is a folder that must be open to it.

        Where the user can't be taken on, or can't enter that folder, it prints why and ends with code 126.

        Raises OSError where the program can't be reached.
        """
        parent = os.getpid()

        def prepare() -> None:
            for number in _IGNORED:
                signal.signal(number, signal.SIG_DFL)
            try:
                if self.become is not None:
                    self.become()
                if check is not None:
                    (check / ".").stat()
            except OSError as error:
                os.write(1, f"{error}\n".encode())
                os._exit(126)
            os.umask(0o077)
            if LINUX:
                # Last, since a change of user clears it. SIGINT is PostgreSQL's fast shutdown.
                _prctl(_SET_DEATH_SIGNAL, signal.SIGINT)
                if os.getppid() != parent:
                    os._exit(1)

        return subprocess.Popen(  # noqa: S603 (paths of ours, no shell)
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
            cwd="/",
            pass_fds=keep,
            start_new_session=True,
            # The launcher has one thread, so nothing can be locked in the child.
            preexec_fn=prepare,  # noqa: PLW1509
        )

    def run(self, command: Sequence[str], *, check: Path | None = None) -> tuple[int, str]:
        """Run a program to its end; return its exit code and what it printed. Raises as ``spawn`` does."""
        with self.spawn(command, output=subprocess.PIPE, check=check) as process:
            printed, _ = process.communicate()
        return process.returncode, printed.decode("utf-8", "replace")

    def own(self, path: Path) -> None:
        """Make a file, or a folder with all in it, belong to this user where it does not yet. Raises OSError."""
        if path.stat().st_uid == self.uid or os.geteuid() != 0:
            return
        for parent, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.lchown(os.path.join(parent, name), self.uid, self.gid)  # noqa: PTH118 (thousands)
        # Last: whoever is cut off in the middle begins again.
        os.chown(path, self.uid, self.gid)


def environment() -> Mapping[str, str]:
    """Return the environment of PostgreSQL's programs: nothing in it may change what they do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return kept | {"LC_ALL": "C", "LANG": "C", "TZ": "UTC"}


def identities(owner: int) -> Iterator[Identity]:
    """Give the users to try, the least powerful first. ``owner`` is the user whose project it is."""
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        yield Identity("this user", uid, gid, named=_name_of(uid) is not None)
        return
    if owner != 0 and (entry := _name_of(owner)) is not None:
        yield _other("the project's owner", entry)
    nobody = _nobody()
    if nobody is not None:
        yield _other("nobody", nobody)
        if LINUX:
            # Folders above are closed to nobody. One of root's capabilities opens them: to look, if we have that one.
            yield _other("nobody who may read", nobody, _DAC_READ_SEARCH)
            yield _other("nobody who may look into folders", nobody, _DAC_OVERRIDE)
    if LINUX:
        yield _renamed(uid, gid)


def stay() -> None:
    """Ignore what ends the server: whoever stops that one stops this process too, but only after it."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)


def adopt_orphans() -> None:
    """Become the parent of what the children of this process leave behind (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if LINUX:
        _prctl(_SET_SUBREAPER, 1)


def _name_of(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _nobody() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        return next((entry for entry in pwd.getpwall() if entry.pw_uid != 0), None)


def _other(what: str, entry: pwd.struct_passwd, capability: int | None = None) -> Identity:
    uid, gid = entry.pw_uid, entry.pw_gid

    def become() -> None:
        if capability is not None:
            _prctl(_SET_SECURE_BITS, _NO_SETUID_FIXUP)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        if capability is not None:
            _keep(capability)

    return Identity(what, uid, gid, become)


def _renamed(uid: int, gid: int) -> Identity:
    entry = _nobody()
    inside_uid, inside_gid = (entry.pw_uid, entry.pw_gid) if entry else (65534, 65534)

    def become() -> None:
        with suppress(PermissionError):
            os.setgroups([])
        _call("unshare", _NEW_USER_NAMESPACE)
        # user_namespaces(7): one line maps this user; groups only once setgroups is given up.
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{inside_uid} {uid} 1"),
            ("gid_map", f"{inside_gid} {gid} 1"),
        ):
            Path("/proc/self", name).write_text(text, "ascii")

    return Identity("root under another number", uid, gid, become, named=entry is not None)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _keep(capability: int) -> None:
    """Keep one capability, and nothing but it, over exec (capabilities(7), ambient set)."""
    bit = 1 << capability
    both = (_Capabilities * 2)(_Capabilities(bit, bit, bit), _Capabilities(0, 0, 0))
    _call("capset", ctypes.byref(_CapabilityHeader(_CAPABILITY_VERSION, 0)), both)
    _prctl(_AMBIENT, _AMBIENT_RAISE, capability)


def _prctl(option: int, *values: int) -> None:
    padded = (*values, 0, 0, 0, 0)[:4]
    _call("prctl", option, *(ctypes.c_ulong(value) for value in padded))


def _call(name: str, *values: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc[name](*values) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
