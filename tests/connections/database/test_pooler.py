"""Behind a transaction pooler: statements of one client run on whichever connection of the server is free."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from streamstack.language.settings import Database
from tests.postgres import query
from tests.stacks import Outcome, run_stack

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed (apt-get install pgbouncer)")


@pytest.fixture
def pooler(postgres: str) -> Iterator[str]:
    """The URL of a database behind PgBouncer in transaction mode, with two connections to the server."""
    assert PGBOUNCER is not None
    parts = urlsplit(postgres)
    folder = Path(tempfile.mkdtemp(prefix="streamstack-pooler-"))
    folder.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # PgBouncer refuses to be root, and the socket's folder is closed to others: it is handed over open.
    as_root = os.geteuid() == 0
    sockets = parse_qs(parts.query)["host"][0]
    opened = os.open(sockets, os.O_RDONLY | os.O_DIRECTORY)
    host = f"/proc/self/fd/{opened}" if as_root else sockets
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={host} port=5432 user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\n"
    )
    process = subprocess.Popen(
        [PGBOUNCER, str(folder / "pgbouncer.ini")],
        user="nobody" if as_root else None,
        extra_groups=[] if as_root else None,
        pass_fds=(opened,),
        cwd="/",
        stderr=subprocess.DEVNULL,
    )
    os.close(opened)
    deadline = time.monotonic() + 20
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        assert time.monotonic() < deadline, "pgbouncer did not start"
        assert process.poll() is None, "pgbouncer ended"
        time.sleep(0.05)
    yield f"postgresql://postgres@127.0.0.1:{port}{parts.path}?sslmode=disable"
    process.terminate()
    process.wait()
    shutil.rmtree(folder)


async def run(url: str, stack: str, mode: str = "transaction", **inputs: Any) -> Outcome:
    """Run a stack on a database behind the pooler."""
    settings = Database(url=url, pool_mode=mode, pool_size=6)
    return await run_stack(stack, inputs, databases={"main": settings})


WORK = """
- streams.map:
    in: << range(40) | list >>
    as: n
    concurrency: 6
    do:
      - db.insert: {table: t, values: {id: << n >>, at: << now() >>, data: {n: << n >>}}}
        as: row
      - db.query: SELECT id, at, data FROM t WHERE id = << n >>
        as: found
      - db.value: SELECT count(*) FROM t WHERE id = ANY(<< [n, n + 1000] >>)
        as: count
      - db.update: {table: t, set: {name: "<< n >>"}, where: {id: << n >>}}
      - db.transaction:
          do:
            - db.execute: UPDATE t SET name = name || '!' WHERE id = << n >>
            - db.first: SELECT name FROM t WHERE id = << n >>
              as: first
      - return: << [found[0].data.n, count, first.name] >>
  as: all
- collect: << all >>
  as: got
- db.stream: {sql: SELECT id FROM t ORDER BY id, batch: 7}
  as: rows
- collect: << rows >>
  as: ids
- db.transaction:
    do:
      - db.stream: {sql: SELECT id FROM t ORDER BY id, batch: 7}
        as: more
      - forEach: {in: << more >>, as: one, do: [break]}
- db.execute: ALTER TABLE t ADD COLUMN extra integer
- db.get: {table: t, where: {id: 3}, select: [id, extra]}
  as: changed
- return: << [got, ids | map(attribute='id') | list, changed] >>
"""


async def test_all_statements_work_in_transaction_mode(pooler: str, postgres: str) -> None:
    """Reads, writes, transactions, cursors and a changed table, six clients on two connections."""
    query(postgres, "CREATE TABLE t (id integer PRIMARY KEY, at timestamptz, data jsonb, name text)")
    outcome = await run(pooler, WORK)
    assert outcome.error is None, outcome.error.full
    assert outcome.result[0] == [[n, 1, f"{n}!"] for n in range(40)]
    assert outcome.result[1] == list(range(40))
    assert outcome.result[2] == [{"id": 3, "extra": None}]


async def test_setup_files_work_in_transaction_mode(pooler: str, postgres: str, tmp_path: Path) -> None:
    """They take a lock of their transaction, not of a session."""
    (tmp_path / "a.sql").write_text("CREATE TABLE made (id integer)")
    settings = Database(url=pooler, pool_mode="transaction", setup=(tmp_path / "a.sql",))
    stack = "- db.value: SELECT count(*) FROM made\n  as: n\n- return: << n >>"
    outcomes = await asyncio.gather(*(run_stack(stack, {}, databases={"main": settings}) for _ in range(4)))
    assert [each.result for each in outcomes] == [0] * 4
    assert query(postgres, "SELECT 1 FROM pg_locks WHERE locktype = $1", "advisory") == []


async def test_listening_is_refused_with_the_reason(pooler: str) -> None:
    """A pooler gives no connection of one's own."""
    outcome = await run(pooler, "- db.listen: a\n  as: n\n- forEach: {in: << n >>, as: x, do: []}")
    assert outcome.error is not None
    assert "past the pooler" in outcome.error.details["message"]


async def test_session_mode_behind_a_pooler_says_what_to_set(pooler: str, postgres: str) -> None:
    """What fails then names the setting."""
    query(postgres, "CREATE TABLE t (id integer PRIMARY KEY, at timestamptz, data jsonb, name text)")
    outcome = await run(pooler, WORK, mode="session")
    assert outcome.error is not None
    assert "poolMode: transaction" in outcome.error.full
