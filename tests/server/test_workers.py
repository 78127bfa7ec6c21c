"""`streamstack serve --workers N`: one port, several processes, one view of them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import asyncpg
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from prometheus_client.parser import text_string_to_metric_families

from streamstack.connections.database.postgres import PostgresDatabase as Database
from streamstack.functions import REGISTRY
from streamstack.language.project import read_project
from streamstack.server.context import make_context, warm_databases
from streamstack.server.reloading import unshared
from streamstack.server.supervisor import Channel
from tests.server.declarations import GUARDED, HELLO, SLOW
from tests.server.processes import Process, gone, refused, serving, settled, start, until
from tests.server.serving import Client

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")

#: The figures are open to all here.
OPEN = "server: {metrics: {open: true}}"


def sockets_of(pid: int) -> int:
    """Return how many sockets a process has open."""
    found = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(each.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue
    return found


async def figures(server: Process) -> dict[str, float]:
    """Ask for the figures, on a connection of its own."""
    reply = await server.ask("GET", "/_metrics")
    assert reply.status == 200
    lines = [line for line in reply.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def streams_of(server: Process, count: int) -> list[Client]:
    """Ask for streams."""
    clients = [await server.connect() for _ in range(count)]
    for client in clients:
        client.ask("/slow")
    return clients


async def streams(server: Process, count: int) -> list[Client]:
    """Open streams and wait until each has begun."""
    clients = await streams_of(server, count)
    for client in clients:
        assert b" 200 " in await client.head()
    return clients


async def test_all_workers_serve_one_port(tmp_path: Path) -> None:
    """The project is checked and told once, its port is one, and connections are spread over the workers."""
    spare = HELLO.replace("/hello", "/spare") + "  - set: {unused: 1}\n"
    async with serving(tmp_path, "--workers", "3", hello=HELLO, slow=SLOW, spare=spare) as server:
        assert len(server.workers()) == 3
        idle = {pid: sockets_of(pid) for pid in server.workers()}
        clients = await streams(server, 60)
        busy = [sockets_of(pid) - idle[pid] for pid in server.workers()]
        assert sum(busy) == 60
        assert all(busy), busy
        assert (await server.ask("GET", "/_ready")).status == 200
        for client in clients:
            client.close()
        assert await server.stop() == 0
    said = "\n".join(server.lines)
    assert said.count("warning: unused-variable") == 1
    assert said.count("/hello ") == 1
    assert said.count("3 endpoints by 3 workers") == 1
    assert "Traceback" not in said


async def test_workers_of_the_settings(tmp_path: Path) -> None:
    """`server.workers` says how many there are, and the option says otherwise."""
    settings = "server: {workers: 2}"
    async with serving(tmp_path, streamstack=settings, hello=HELLO) as server:
        assert len(server.workers()) == 2
        assert await server.stop() == 0
    async with serving(tmp_path, "--workers", "1") as server:
        assert server.workers() == []
        assert (await server.ask("GET", "/hello")).status == 200
        assert await server.stop() == 0


async def test_a_dead_worker_is_replaced(tmp_path: Path) -> None:
    """A worker that is killed is reported, and another one takes its place."""
    async with serving(tmp_path, "--workers", "2", hello=HELLO) as server:
        first = server.workers()
        os.kill(first[0], signal.SIGKILL)
        await server.said(rf"process {first[0]}\) died: killed by SIGKILL; another takes its place")
        await until(lambda: len(server.workers()) == 2)
        assert set(server.workers()) != set(first)
        replies = [await server.ask("GET", "/hello") for _ in range(20)]
        assert {reply.status for reply in replies} == {200}
        assert await server.stop() == 0


async def test_who_waits_for_a_dead_worker_is_served(tmp_path: Path) -> None:
    """Connections that a worker had not taken yet when it was killed are its successor's."""
    async with serving(tmp_path, "--workers", "2", hello=HELLO) as server:
        stopped = server.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        asked = [asyncio.ensure_future(server.ask("GET", "/hello")) for _ in range(30)]
        await asyncio.sleep(0.5)
        waiting = sum(not each.done() for each in asked)
        os.kill(stopped, signal.SIGKILL)
        replies = await asyncio.gather(*asked)
        assert {reply.status for reply in replies} == {200}
        assert 0 < waiting < 30
        assert await server.stop() == 0


async def test_workers_that_die_at_once_are_given_up(tmp_path: Path) -> None:
    """Where no worker lives to serve, the server says so and ends with an error, not in a loop."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    server = Process(await start(str(tmp_path), "--port", "0", "--workers", "2"))
    listening = asyncio.ensure_future(server.listen())
    async with asyncio.timeout(60):
        while not listening.done():
            for pid in server.workers():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.002)
        assert await server.process.wait() == 2
    last = server.lines[-1]
    assert re.search(r"^streamstack: worker .*killed by SIGKILL; workers die as soon as", last)
    assert sum("another takes its place" in line for line in server.lines) >= 3


async def test_a_worker_that_dies_again_and_again_hinders_nobody(tmp_path: Path) -> None:
    """Others serve meanwhile, it is tried ever less often, and when it lives it has its share again."""
    async with serving(tmp_path, "--workers", "2", hello=HELLO) as server, asyncio.timeout(60):
        healthy = server.workers()[0]

        def others() -> list[int]:
            return [pid for pid in server.workers() if pid != healthy]

        for _ in range(5):
            # Before it listens, where that is possible.
            await until(others, pause=0.001)
            killed = others()[0]
            os.kill(killed, signal.SIGKILL)
            await server.said(rf"process {killed}\) died")
        replies = [await server.ask("GET", "/hello") for _ in range(10)]
        assert {reply.status for reply in replies} == {200}
        assert (await server.said(r"in (\S+) s$"))[1] == "0.2"
        await until(others)
        (pid,) = others()
        idle = sockets_of(pid)

        async def shared() -> bool:
            clients = [await server.connect() for _ in range(30)]
            for client in clients:
                client.ask("/hello")
            heads = [await client.head() for client in clients]
            taken = sockets_of(pid) - idle
            for client in clients:
                client.close()
            assert all(b" 200 " in head for head in heads)
            return taken > 0

        await settled(shared)
        assert await server.stop() == 0


#: A loop without end, begun by a signal.
BUSY = """
import signal
def hang(*_):
    while True:
        pass
signal.signal(signal.SIGUSR1, hang)
"""
HANGS = "server: {workerTimeout: 1s, metrics: {open: true}}"


async def test_a_stopped_worker_is_replaced(tmp_path: Path) -> None:
    """A worker that gives no sign of life is killed after a bound, told in the log and in the metrics."""
    async with serving(tmp_path, "--workers", "2", streamstack=HANGS, hello=HELLO) as server:
        stopped, other = server.workers()
        os.kill(stopped, signal.SIGSTOP)
        await server.said(rf"process {stopped}\) hangs: no sign of life for 1 s \(server.workerT")
        await server.said(rf"process {stopped}\) died: killed by SIGKILL; another takes its place")
        await until(lambda: len(server.workers()) == 2)
        assert other in server.workers()
        replies = [await server.ask("GET", "/hello") for _ in range(20)]
        assert {reply.status for reply in replies} == {200}
        view = await figures(server)
        assert view["streamstack_worker_hangs_total"] == 1
        assert view["streamstack_worker_restarts_total"] == 1
        assert await server.stop() == 0


async def test_a_busy_worker_is_replaced(tmp_path: Path) -> None:
    """A loop without end is reported with the place where it hangs."""
    options = ("--workers", "2")
    async with serving(tmp_path, *options, before=BUSY, streamstack=HANGS, hello=HELLO) as server:
        busy = server.workers()[0]
        os.kill(busy, signal.SIGUSR1)
        await server.said(rf"process {busy}\) hangs: no sign of life")
        await server.said(r"line \d+ in hang$")
        await server.said(rf"process {busy}\) died: killed by SIGKILL; another takes its place")
        await until(lambda: len(server.workers()) == 2)
        assert (await server.ask("GET", "/hello")).status == 200
        assert await server.stop() == 0


async def test_a_server_that_was_stopped_as_a_whole_goes_on(tmp_path: Path) -> None:
    """Where the supervisor had no CPU either, its workers hang no more than it does; 0 is for ever."""
    async with serving(tmp_path, "--workers", "2", streamstack=HANGS, slow=SLOW) as server:
        workers = server.workers()
        (client,) = await streams(server, 1)
        everyone = (server.process.pid, *workers)
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(3)
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)
        assert b"event: done" in await client.rest()
        client.close()
        assert server.workers() == workers
        assert await server.stop() == 0
    never = HANGS.replace("1s", "0s")
    async with serving(tmp_path, "--workers", "2", streamstack=never) as server:
        workers = server.workers()
        os.kill(workers[0], signal.SIGSTOP)
        await asyncio.sleep(3)
        assert server.workers() == workers
        os.kill(workers[0], signal.SIGCONT)
        assert await server.stop() == 0


async def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    """No process is left where the supervisor is killed, and its port is free again."""
    async with serving(tmp_path, "--workers", "2", hello=HELLO) as server:
        workers = server.workers()
        server.process.kill()
        await until(lambda: all(map(gone, workers)))
    async with serving(tmp_path, "--workers", "2", port=server.port) as again:
        assert (await again.ask("GET", "/hello")).status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_all_is_one_signal(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and systemd's stop reach every process: streams finish all the same."""
    async with serving(tmp_path, "--workers", "2", slow=SLOW) as server:
        clients = await streams(server, 6)
        for pid in (*server.workers(), server.process.pid):
            os.kill(pid, number)
        for client in clients:
            rest = await asyncio.wait_for(client.reader.read(), 10)
            assert b"event: done" in rest
            assert rest.endswith(b"0\r\n\r\n")
            client.close()
        assert await asyncio.wait_for(server.process.wait(), 10) == 0
    assert not [line for line in server.lines if "takes its place" in line]


async def test_one_worker_alone_can_be_sent_away(tmp_path: Path) -> None:
    """SIGTERM to a worker lets its streams finish, while another one already serves in its place."""
    settings = "server: {metrics: {open: true}, shutdownDelay: 500ms}"
    async with serving(tmp_path, "--workers", "2", slow=SLOW, streamstack=settings) as server:
        clients = await streams(server, 20)
        first = server.workers()
        os.kill(first[0], signal.SIGTERM)
        await until(lambda: len(server.workers()) == 3)
        assert not gone(first[0])
        assert (await server.ask("GET", "/_ready")).status == 200
        for client in clients:
            assert b"event: done" in await client.rest()
            client.close()
        await until(lambda: gone(first[0]))
        # The one that left did not shut the door behind it: many may wait at once.
        for pid in server.workers():
            os.kill(pid, signal.SIGSTOP)
        waiting = await asyncio.wait_for(streams_of(server, 200), 10)
        for pid in server.workers():
            os.kill(pid, signal.SIGCONT)
        for client in waiting:
            assert b" 200 " in await client.head()
            client.close()
        assert (await figures(server))["streamstack_worker_restarts_total"] == 0
        assert await server.stop() == 0


async def test_workers_sent_away_again_and_again_leave_somebody_who_serves(tmp_path: Path) -> None:
    """However many are leaving, there is one for new requests: the oldest end their streams for it."""
    endless = SLOW.replace("times: 20", "times: 2000")
    async with serving(tmp_path, "--workers", "2", slow=endless, hello=HELLO) as server:
        oldest, clients = server.workers(), []
        for _ in range(3):
            clients += await streams(server, 20)
            here = server.workers()
            for pid in here[-2:]:
                os.kill(pid, signal.SIGTERM)
            await until(lambda here=here: set(server.workers()) - set(here), 10)  # type: ignore[misc]
            assert (await server.ask("GET", "/hello")).status == 200
        await until(lambda: all(map(gone, oldest)))
        assert b"producer-lost" in await clients[0].rest()
        for client in clients:
            client.close()
        assert await server.stop() == 0


async def test_where_no_worker_can_be_started_the_others_go_on(tmp_path: Path) -> None:
    """What the system refuses for a moment is asked for again, and ends no streams."""
    async with serving(tmp_path, "--workers", "2", slow=SLOW, hello=HELLO) as server:
        pid = server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
        os.kill(server.workers()[0], signal.SIGKILL)
        await server.said("worker 1 can't be started: Too many open files; .* in 0.2 s$")
        (client,) = await streams(server, 1)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        await until(lambda: len(server.workers()) == 2)
        assert b"event: done" in await client.rest()
        client.close()
        assert await server.stop() == 0


async def test_an_address_in_use_is_told_once(tmp_path: Path) -> None:
    """A port that another has, be it another server with workers, is reported once, and nothing is served."""
    async with serving(tmp_path, "--workers", "2", hello=HELLO) as server:
        code, said = await refused(tmp_path, "--workers", "2", "--port", str(server.port))
        assert await server.stop() == 0
    assert code == 2
    assert said.count("is in use already") == 1
    assert "Traceback" not in said


async def test_workers_have_one_secret(tmp_path: Path) -> None:
    """A secret that the server made itself is the same in every worker."""
    settings = """
authentication:
  jwt: {type: jwt, secret: '<< env.NOT_SET_ANYWHERE | default("") >>'}
"""
    async with serving(tmp_path, "--workers", "3", streamstack=settings, mine=GUARDED) as server:
        secret = (tmp_path / ".streamstack" / "secrets" / "jwt").read_text().strip()
        claims = {"sub": "me", "exp": int(time()) + 60}
        token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret))
        asked = [await server.ask("GET", "/mine", extra=f"Authorization: Bearer {token}\r\n") for _ in range(20)]
        assert {reply.status for reply in asked} == {200}
        assert await server.stop() == 0
    assert sum("has no secret of its own" in line for line in server.lines) == 1


ROWS = """
path: /rows
method: GET
responseType: json
functionStack:
  - db.value: SELECT count(*) FROM visits
    as: count
  - db.execute: INSERT INTO visits VALUES (1)
response: << count >>
"""


async def test_workers_share_the_embedded_database(tmp_path: Path) -> None:
    """One PostgreSQL, of the supervisor: it outlives workers, is started again, and ends with the last of them."""
    (tmp_path / "schema.sql").write_text("CREATE TABLE visits (id int)")
    settings = "databases: {main: {setup: schema.sql}}"
    lock = tmp_path / ".streamstack" / "postgres.lock"
    async with serving(tmp_path, "--workers", "2", streamstack=settings, rows=ROWS) as server:
        counted = [json.loads((await server.ask("GET", "/rows")).body) for _ in range(10)]
        assert counted == list(range(10))
        assert json.loads(lock.read_text())["pid"] == server.process.pid
        postmaster = int((tmp_path / ".streamstack" / "postgres" / "postmaster.pid").read_text().split()[0])
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        assert json.loads((await server.ask("GET", "/rows")).body) == 10
        assert not gone(postmaster)
        # It was killed itself: it comes back, and requests meanwhile fail, or wait.
        os.kill(postmaster, signal.SIGKILL)

        async def answers() -> bool:
            return (await server.ask("GET", "/rows")).status == 200

        await settled(answers)
        assert json.loads(lock.read_text())["pid"] == server.process.pid
        assert await server.stop() == 0
    assert sum("database-embedded" in line for line in server.lines) <= 1
    async with serving(tmp_path, "--workers", "2") as server:
        assert json.loads((await server.ask("GET", "/rows")).body) > 10
        postmaster = json.loads(lock.read_text())["postmaster"]
        server.process.kill()
        await until(lambda: gone(postmaster))


async def test_no_database_keeps_a_worker_from_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a database does when a worker begins, also what its library never says, the worker begins."""
    (tmp_path / "rows.yaml").write_text(ROWS)
    checked = read_project(tmp_path, REGISTRY, {})
    asked = []

    async def fail(self: Database) -> None:
        asked.append(self.name)
        raise asyncpg.InternalClientError("cannot switch to state 12")

    monkeypatch.setattr(Database, "open", fail)
    context = make_context(checked, {}, dev=False, joins=True, starts=False)
    await warm_databases(checked.project, context)
    assert asked == ["main"]


async def test_what_workers_do_not_share_is_told(tmp_path: Path) -> None:
    """State in memory is each worker's own, and the author learns what to do about it."""
    counting = """
path: /count
method: POST
responseType: json
functionStack:
  - counter.add: {key: visits}
    as: n
response: << n >>
"""
    async with serving(tmp_path, "--workers", "2", count=counting) as server:
        assert await server.stop() == 0
    told = next(line for line in server.lines if "of its own" in line)
    assert told.startswith("each worker has counters of its own")
    assert "redis://" in told
    async with serving(tmp_path) as server:
        assert await server.stop() == 0
    assert not [line for line in server.lines if "of its own" in line]


def test_streams_that_are_resumed_need_shared_state(tmp_path: Path) -> None:
    """Several workers are refused where only one of them would know a stream; not with Redis, nor when it is off."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    checked = read_project(tmp_path, REGISTRY, {})
    (endpoint,) = checked.project.endpoints
    on: Any = True
    resuming = replace(endpoint, streaming=replace(endpoint.streaming, resume=on))
    project = replace(checked.project, endpoints=(resuming,))
    refused, warned = unshared(replace(checked, project=project))
    assert warned == []
    assert len(refused) == 1
    assert re.search(r"hello\.yaml:\d+:\d+: `resume` .*redis://", refused[0])
    off = replace(checked.project, endpoints=(replace(resuming, disabled=True),))
    assert unshared(replace(checked, project=off)) == ([], [])
    (tmp_path / "streamstack.yaml").write_text("state: {url: redis://127.0.0.1:1}")
    shared = read_project(tmp_path, REGISTRY, {})
    assert unshared(replace(shared, project=project)) == ([], [])


# ---------------------------------------------------------------------------------- /_metrics


async def test_figures_of_all_workers(tmp_path: Path) -> None:
    """Whichever worker is asked tells the same sums: requests, runs, chunks, bytes, times."""
    bad = """
path: /bad
method: GET
inputParameters: {x: text}
functionStack:
  - precondition: {that: << input.x is defined and input.x is not none >>, code: no, status: 409}
  - stream: x
"""
    options = ("--workers", "2")
    async with serving(tmp_path, *options, streamstack=OPEN, hello=HELLO, bad=bad) as server:
        sizes = [len((await server.ask("GET", "/hello")).body) for _ in range(30)]
        for _ in range(4):
            assert (await server.ask("GET", "/bad")).status == 409
        assert (await server.ask("GET", "/nowhere")).status == 404
        views = [await figures(server) for _ in range(12)]
        assert await server.stop() == 0
    for view in views:
        assert view['streamstack_requests_total{endpoint="GET /hello",status="2xx"}'] == 30
        assert view['streamstack_runs_total{endpoint="GET /hello",outcome="completed"}'] == 30
        assert view['streamstack_chunks_total{endpoint="GET /hello"}'] == 30
        assert 0 < view['streamstack_sent_bytes_total{endpoint="GET /hello"}'] <= sum(sizes)
        assert view['streamstack_first_chunk_seconds_count{endpoint="GET /hello"}'] == 30
        assert view['streamstack_requests_total{endpoint="GET /bad",status="4xx"}'] == 4
        assert view['streamstack_runs_total{endpoint="GET /bad",outcome="rejected"}'] == 4
        assert view['streamstack_run_seconds_count{endpoint="GET /hello"}'] == 30
        assert 'streamstack_runs_total{endpoint="GET /bad",outcome="failed"}' not in view
        assert view['streamstack_requests_total{endpoint="",status="4xx"}'] == 1
        assert view["streamstack_workers"] == 2
        memory = [view[name] for name in view if name.startswith("streamstack_worker_memory")]
        assert len(memory) == 2
        assert min(memory) > 1_000_000


async def test_chunk_intervals_and_reconnections(tmp_path: Path) -> None:
    """The time between chunks and that of whole streams is reported, and each client that came back."""
    resumed = SLOW.replace("functionStack", "streaming: {resume: true}\nfunctionStack")
    async with serving(tmp_path, streamstack=OPEN, slow=resumed, hello=HELLO) as server:
        (client,) = await streams(server, 1)
        await client.chunk()
        half = await figures(server)
        client.close()
        client = await server.connect()
        stream = 'endpoint="GET /slow"'
        client.ask("/slow", extra="Last-Event-ID: nothing-known\r\n")
        assert b" 404 " in await client.head()
        client.close()
        (client,) = await streams_of(server, 1)
        head = await client.head()
        found = re.search(rb"(?i)x-stream-id: (\S+)", head)
        assert found
        client.close()
        again = await server.ask("GET", f"/_streams/{found[1].decode()}")
        assert again.body.count(b"data:") >= 20
        await server.ask("GET", "/hello")
        view = await figures(server)
        assert await server.stop() == 0
    assert half[f"streamstack_chunk_interval_seconds_count{{{stream}}}"] >= 0
    assert view[f"streamstack_reconnections_total{{{stream}}}"] == 1
    intervals = view[f"streamstack_chunk_interval_seconds_count{{{stream}}}"]
    assert intervals >= 19
    mean = view[f"streamstack_chunk_interval_seconds_sum{{{stream}}}"] / intervals
    assert 0.03 < mean < 0.5
    assert view[f"streamstack_run_seconds_sum{{{stream}}}"] > 0.9
    assert view['streamstack_chunk_interval_seconds_count{endpoint="GET /hello"}'] == 0


async def test_running_streams_count(tmp_path: Path) -> None:
    """Open streams are counted, and what they have sent so far; nothing falls when a worker is killed."""
    long = SLOW.replace("times: 20", "times: 2000")
    async with serving(tmp_path, "--workers", "2", streamstack=OPEN, slow=long) as server:
        clients = await streams(server, 20)
        open_, chunks = (
            'streamstack_open_streams{endpoint="GET /slow"}',
            'streamstack_chunks_total{endpoint="GET /slow"}',
        )
        view: dict[str, float] = {}

        async def running() -> bool:
            view.update(await figures(server))
            return view[open_] == 20 and view[chunks] >= 40

        await settled(running)
        os.kill(server.workers()[0], signal.SIGKILL)
        await server.said("takes its place")
        after = await figures(server)
        assert after[chunks] >= view[chunks]
        assert after[open_] < 20
        assert after["streamstack_worker_restarts_total"] == 1
        for client in clients:
            client.close()

        async def closed() -> bool:
            return not (await figures(server))[open_]

        await settled(closed)
        last = await figures(server)
        assert last[chunks] >= after[chunks]
        assert last['streamstack_runs_total{endpoint="GET /slow",outcome="cancelled"}'] > 0
        assert await server.stop() == 0


async def test_figures_are_closed(tmp_path: Path) -> None:
    """Nothing tells that they are there, unless the settings admit a client."""
    async with serving(tmp_path, hello=HELLO) as server:
        there = await server.ask("GET", "/_metrics")
        nowhere = await server.ask("GET", "/_nowhere")
        assert (there.status, nowhere.status) == (404, 404)
        assert there.body == nowhere.body
        assert await server.stop() == 0


async def test_figures_for_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only clients with the token of the settings may see them; the token is in no log."""
    monkeypatch.setenv("METRICS_TOKEN", "a-very-secret-token")
    settings = "server: {metrics: {token: << env.METRICS_TOKEN >>}}"
    async with serving(tmp_path, streamstack=settings, hello=HELLO) as server:
        bare = await server.ask("GET", "/_metrics")
        wrong = await server.ask("GET", "/_metrics", extra="Authorization: Bearer no\r\n")
        basic = await server.ask("GET", "/_metrics", extra="Authorization: Basic a-very-secret-token\r\n")
        right = await server.ask("GET", "/_metrics", extra="Authorization: Bearer a-very-secret-token\r\n")
        posted = await server.ask("POST", "/_metrics", extra="Authorization: Bearer a-very-secret-token\r\n")
        assert await server.stop() == 0
    assert [each.status for each in (bare, wrong, basic, right, posted)] == [
        401, 401, 401, 200, 405,
    ]  # fmt: skip
    assert bare.headers["www-authenticate"] == "Bearer"
    assert right.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "a-very-secret-token" not in "\n".join(server.lines)


async def test_figures_for_the_author(tmp_path: Path) -> None:
    """With --dev who works on this machine may see them, but not who comes through a proxy on it."""
    async with serving(tmp_path, "--dev", hello=HELLO) as server:
        near = await server.ask("GET", "/_metrics")
        for told in ("X-Forwarded-For: 203.0.113.9", "X-Real-IP: 203.0.113.9", "Via: 1.1 proxy"):
            proxied = await server.ask("GET", "/_metrics", extra=f"{told}\r\n")
            assert proxied.status == 404, told
        assert await server.stop() == 0
    assert near.status == 200


async def test_figures_are_prometheus_text(tmp_path: Path) -> None:
    """Each family is announced once, buckets only grow, and labels are quoted."""
    odd = HELLO.replace("/hello", "/{a}/b").replace("functionStack", "inputParameters: {a: text}\nfunctionStack")
    async with serving(tmp_path, streamstack=OPEN, odd=odd) as server:
        assert (await server.ask("GET", "/a/b")).status == 200
        text = (await server.ask("GET", "/_metrics")).body.decode()
        assert await server.stop() == 0
    lines = text.splitlines()
    assert text.endswith("\n")
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    sample = re.compile(r'([a-z_]+)(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z]+="[^"]*")*\})? [0-9.]+')
    for line in lines:
        if not line.startswith("#"):
            found = sample.fullmatch(line)
            assert found, line
            assert re.sub(r"_(bucket|sum|count)$", "", found[1]) in names
    buckets = [float(line.split()[-1]) for line in lines if "first_chunk_seconds_bucket" in line]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 1
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["streamstack_requests"].type == "counter"
    assert families["streamstack_first_chunk_seconds"].type == "histogram"
    assert families["streamstack_chunk_interval_seconds"].type == "histogram"


def test_nobody_at_the_other_end_is_no_fault() -> None:
    """What is said to a worker that has just died is lost: the supervisor goes on."""
    ours, theirs = map(Channel, socket.socketpair())
    ours.send(do="stop")
    assert theirs.receive() == [{"do": "stop"}]
    assert theirs.receive() == []
    theirs.close()
    ours.send(do="stop")
    ours.send(do="stop")
    assert ours.receive() is None
    ours.close()
    ours.send(do="stop")


def test_a_line_that_nobody_reads_is_cut() -> None:
    """What does not go through in time is not left half said: the other side sees the end of the line."""
    ours, theirs = map(Channel, socket.socketpair())
    ours.send(do="reload", titles=["x" * 10_000_000])
    told = b"".join(iter(lambda: theirs._end.recv(1 << 20), b""))  # noqa: SLF001 (all that came)
    assert b"\n" not in told
    ours.close()
    theirs.close()


def test_no_socket_is_left_listening() -> None:
    """Binding for workers leaves nothing behind where it fails half-way."""
    from streamstack.server.sockets import AddressError, bind  # noqa: PLC0415

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match="in use"):
            bind("127.0.0.1", port, 4)
    for each in (socks := bind("localhost", 0, 3)):
        assert len({sock.getsockname()[1] for sock in each}) == 1
        assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for sock in each)
    for each in socks:
        for sock in each:
            sock.close()
