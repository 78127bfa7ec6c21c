"""The launcher: a process of its own between the server and PostgreSQL.

It does what would block the server's loop, and outlives it for the moment that PostgreSQL needs to end cleanly: when
the server stops, and when it is killed, the pipe from it closes. Should the launcher be killed too, the kernel tells
PostgreSQL (on Linux). Standard library only, so that it starts fast and small.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from streamstack.connections.embedded.claim import claim, describe, give, make_folder, read
from streamstack.connections.embedded.cluster import INSTEAD, Programs, choose, prepare
from streamstack.connections.embedded.faults import EmbeddedError
from streamstack.connections.embedded.identity import stay
from streamstack.connections.embedded.logfile import Logfile
from streamstack.connections.embedded.postmaster import Postmaster

#: sun_path of unix(7), less the byte that ends it; macOS has 104.
_LONGEST: Final = 107 if sys.platform == "linux" else 103
_SOCKET: Final = ".s.PGSQL.5432"
_TEMPORARY: Final = "streamstack-postgres-"
_INLET: Final = 0


def main() -> None:
    """Run PostgreSQL as the first argument says (JSON), as long as standard input is open.

    Prints one line of JSON: what to connect to, or what is wrong.
    """
    stay()
    task = json.loads(sys.argv[1])
    try:
        _run(task)
    except (EmbeddedError, OSError) as error:
        _say({"error": str(error)})
        sys.exit(1)


def _run(task: Mapping[str, Any]) -> None:
    folder, parent = Path(task["folder"]), task["parent"]
    data = folder / "postgres"

    def leaving() -> bool:
        # Told so, or the pipe has no other end, or the parent is gone (its forked workers may hold that end too).
        return bool(select.select([_INLET], [], [], 0)[0]) or os.getppid() != parent

    make_folder(folder)
    # Taken here and not in the server: of that one's forked workers none keeps it.
    lock = claim(folder, parent)
    _clear_temporary(read(lock).get("host"))
    describe(lock, parent, {})
    programs = choose(Path(task["bin"]), folder)
    prepare(programs, data)
    log = Logfile(folder / "postgres.log")
    give(folder / "postgres.log", folder)
    sockets, passing = _socket_folder(folder, programs)
    try:
        postmaster = Postmaster(
            programs, data, sockets, log=log, lock=lock, settings=task["settings"]
        )
        if postmaster.wait_until_ready(leaving):
            reached = {"host": str(sockets), "port": 5432}
            describe(lock, parent, reached | task["roles"])
            _say({**reached, "pid": postmaster.pid})
            postmaster.watch(leaving, _INLET)
        postmaster.shut_down()
        os.ftruncate(lock, 0)
    finally:
        if passing:
            _clear_temporary(str(sockets))


def _socket_folder(folder: Path, programs: Programs) -> tuple[Path, bool]:
    """Make the folder of the socket, closed to all others; tell whether it goes with the server.

    It lies beside the data, or in a temporary folder where a path is too long for a socket or the disk holds none.
    """
    beside = folder / "postgres.socket"
    beside.mkdir(mode=0o700, exist_ok=True)
    if _holds_sockets(beside):
        programs.identity.own(beside)
        beside.chmod(0o700)
        return beside, False
    for place in (None, "/tmp", "/var/tmp"):  # noqa: S108 (mkdtemp makes it ours alone)
        with suppress(OSError):
            made = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=place))
            if _holds_sockets(made):
                programs.identity.own(made)
                return made, True
            made.rmdir()
    raise EmbeddedError(
        f"neither {beside} nor a temporary folder can hold a socket: set TMPDIR to a folder with a short path,"
        f" or {INSTEAD}"
    )


def _clear_temporary(sockets: Any) -> None:
    """Remove a temporary folder of sockets, also one that a launcher which was killed has left."""
    if not isinstance(sockets, str) or not Path(sockets).name.startswith(_TEMPORARY):
        return
    with suppress(OSError):
        for file in Path(sockets).glob(_SOCKET + "*"):
            file.unlink()
        Path(sockets).rmdir()


def _holds_sockets(folder: Path) -> bool:
    path = folder / _SOCKET
    # PostgreSQL puts a file of the same name with `.lock` beside it.
    if len(os.fsencode(path)) > _LONGEST:
        return False
    try:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError:
        return False
    return True


def _say(what: Mapping[str, Any]) -> None:
    with suppress(OSError):
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
