"""Files that change are served again, and what is broken is not."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from streamstack.functions import REGISTRY
from streamstack.language.project import read_project
from streamstack.server import reloading
from streamstack.server.reloading import BrokenError, FileChanges, first_edition, next_edition
from tests.server.authenticating import BY_SECRET, SECRET, claims, signed
from tests.server.declarations import both
from tests.server.processes import Process, gone, serving, settled, start

HELLO = """
path: /hello
method: GET
responseType: json
functionStack:
  - return: first
"""
SLOW = """
path: /slow
method: GET
functionStack:
  - repeat:
      times: 30
      do:
        - stream: {content: old, delay: 50ms}
"""


async def says(server: Process, text: str, path: str = "/hello") -> None:
    """Wait until an endpoint answers a text, from every worker."""

    async def everywhere() -> bool:
        replies = [await server.ask("GET", path) for _ in range(8)]
        return {reply.body for reply in replies} == {f'"{text}"'.encode()}

    await settled(everywhere)


@both
async def test_what_changes_is_served(tmp_path: Path, workers: str) -> None:
    """A file that changes, comes or goes is served so; a stream that runs ends on what it began with."""
    options = ("--reload", "--workers", workers)
    async with serving(tmp_path, *options, hello=HELLO, slow=SLOW) as server:
        client = await server.connect()
        client.ask("/slow")
        await client.head()
        pids = server.workers()
        (tmp_path / "hello.yaml").write_text(HELLO.replace("first", "second"))
        (tmp_path / "slow.yaml").write_text(SLOW.replace("old", "new"))
        await says(server, "second")
        streamed = await client.rest()
        assert streamed.count(b"data: old") >= 20
        assert b"new" not in streamed
        client.ask("/slow")
        await client.head()
        assert b"data: new" in await client.chunk()
        client.close()
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / "more.yaml").write_text(HELLO.replace("/hello", "/more"))
        await says(server, "first", "/more")
        (tmp_path / "below" / "more.yaml").unlink()
        await server.said(r"reloaded: 2 endpoints \(.*below/more\.yaml\)")

        async def away() -> bool:
            return {(await server.ask("GET", "/more")).status for _ in range(8)} == {404}

        await settled(away)
        assert server.workers() == pids
        assert await server.stop() == 0
    assert "Traceback" not in "\n".join(server.lines)


@both
async def test_what_is_broken_is_told_and_not_served(tmp_path: Path, workers: str) -> None:
    """The place is reported, the last good version of the whole project stays, and the next good one is served."""
    options = ("--reload", "--workers", workers)
    async with serving(tmp_path, *options, hello=HELLO, slow=SLOW) as server:
        (tmp_path / "hello.yaml").write_text(HELLO.replace("first", "<< nowhere >>"))
        await server.said(r"hello\.yaml:6:\d+: error: unbound-name")
        await server.said("not served: what was served last stays")
        await says(server, "first")
        (tmp_path / "hello.yaml").write_text("path: [")
        await server.said(r"hello\.yaml:1:\d+: error: yaml-syntax")
        await says(server, "first")
        # What is not served is not a project, either.
        for name in ("hello", "slow"):
            (tmp_path / f"{name}.yaml").unlink()
        await server.said("no endpoints found")
        await says(server, "first")
        (tmp_path / "hello.yaml").write_text(HELLO.replace("first", "mended"))
        await says(server, "mended")
        assert await server.stop() == 0
    assert "Traceback" not in "\n".join(server.lines)


@both
async def test_settings_are_served_anew(tmp_path: Path, workers: str) -> None:
    """What can change does; what is opened once needs a restart, which is said once, and the rest is served."""
    hello = HELLO.replace("first", "<< settings.word >>")
    options = ("--reload", "--workers", workers)
    file = tmp_path / "streamstack.yaml"
    before = "server: {shutdownTimeout: 3s}\nsettings: {word: first}\n"
    origin = "Origin: https://a.example\r\n"
    async with serving(tmp_path, *options, streamstack=before, hello=hello) as server:
        await says(server, "first")
        file.write_text(f"# About words.\n{before.replace('first', 'second')}streaming: {{ids: false}}\n")
        await says(server, "second")
        opened = before.replace("3s", "4s, cors: https://a.example")
        file.write_text(opened.replace("first", "third"))
        await server.said(r"streamstack\.yaml: `server` can't change while it is served: restart")
        await says(server, "third")
        replies = [await server.ask("GET", "/hello", extra=origin) for _ in range(8)]
        allowed = {reply.headers.get("access-control-allow-origin") for reply in replies}
        assert allowed == {"https://a.example"}
        file.write_text(opened.replace("first", "fourth"))
        await says(server, "fourth")
        file.write_text(f"{opened.replace('first', 'fifth')}state: {{prefix: shop}}\n")
        await server.said(r"`server` and `state` can't change")
        await says(server, "fifth")
        file.write_text(before.replace("first", "sixth"))
        await says(server, "sixth")
        assert await server.stop() == 0
    assert sum("can't change" in line for line in server.lines) == 2


@both
async def test_authentication_and_request_settings_are_reloaded(tmp_path: Path, workers: str) -> None:
    """Keys are rotated, authentications come and go, without a restart; so do limits and trusted proxies."""
    hello = HELLO.replace("first", "<< request.ip >>").replace(
        "functionStack", "authentication: partners\nfunctionStack"
    )

    def keys(*words: str, more: str = "") -> str:
        hashes = [f"sha256:{sha256(word.encode()).hexdigest()}" for word in words]
        return f"authentication: {{partners: {{type: apiKey, keys: {json.dumps(hashes)}}}{more}}}\n"

    async def answers(server: Process, wanted: dict[str, int | str]) -> None:
        async def everywhere() -> bool:
            found: dict[str, set[int | str]] = {header: set() for header in wanted}
            for header, value in wanted.items():
                for _ in range(6):
                    extra = f"X-Forwarded-For: 192.0.2.7\r\n{header}\r\n"
                    reply = await server.ask("GET", "/hello", extra=extra)
                    found[header].add(reply.status if isinstance(value, int) else reply.body.decode().strip('"'))
            return found == {header: {value} for header, value in wanted.items()}

        await settled(everywhere)

    file = tmp_path / "streamstack.yaml"
    options = ("--reload", "--workers", workers)
    async with serving(tmp_path, *options, streamstack=keys("one"), hello=hello) as server:
        await answers(server, {"X-API-Key: one": "127.0.0.1", "X-API-Key: two": 401})
        file.write_text("server: {trustedProxies: [127.0.0.1]}\n" + keys("one", "two"))
        await answers(server, {"X-API-Key: one": "192.0.2.7", "X-API-Key: two": "192.0.2.7"})
        file.write_text(keys("two", more=f", jwt: {{type: jwt, secret: '{SECRET}'}}"))
        (tmp_path / "hello.yaml").write_text(hello.replace(": partners", ": [partners, jwt]"))
        token = f"Authorization: Bearer {signed(claims(sub='ann'))}"
        await answers(server, {"X-API-Key: one": 401, "X-API-Key: two": "127.0.0.1", token: 200})
        (tmp_path / "hello.yaml").write_text(hello.replace(": partners", ": jwt"))
        file.write_text(f"authentication: {{jwt: {{type: jwt, secret: '{SECRET}'}}}}\n")
        await answers(server, {"X-API-Key: two": 401, token: 200})
        assert await server.stop() == 0
    assert not [line for line in server.lines if "can't change" in line or "Traceback" in line]


RESUMING = """
path: /report
method: GET
streaming: {resume: true}
functionStack:
  - repeat:
      times: 30
      do:
        - stream: {content: << loop.index >>, delay: 50ms}
"""


async def test_workers_take_no_stream_that_only_one_would_know(tmp_path: Path) -> None:
    """What they could not be started with, they are not changed to, either."""
    options = ("--reload", "--workers", "2")
    async with serving(tmp_path, *options, hello=HELLO) as server:
        (tmp_path / "report.yaml").write_text(RESUMING)
        await server.said(r"report\.yaml:\d+:\d+: `resume` .*redis://")
        await server.said("not served: what was served last stays")
        assert (await server.ask("GET", "/report")).status == 404
        assert await server.stop() == 0


async def test_streams_are_shared_from_the_first_that_is_kept(tmp_path: Path, redis_url: str) -> None:
    """An endpoint that comes by a reload is resumed at any worker, as it is from the start."""
    settings = f"state: {{url: {redis_url}}}"
    options = ("--reload", "--workers", "2")
    async with serving(tmp_path, *options, streamstack=settings, hello=HELLO) as server:
        (tmp_path / "report.yaml").write_text(RESUMING)
        await server.said("reloaded: 2 endpoints")

        async def there() -> bool:
            replies = [await server.ask("HEAD", "/report") for _ in range(8)]
            return {reply.status for reply in replies} == {200}

        await settled(there)
        client = await server.connect()
        client.ask("/report")
        found = re.search(rb"(?i)x-stream-id: (\S+)", await client.head())
        assert found
        await client.chunk()
        client.close()
        # Connections are spread over the workers: one of these is the other's.
        for _ in range(6):
            reply = await server.ask("GET", f"/_streams/{found[1].decode()}")
            assert reply.status == 200
            assert re.findall(rb"^data: (\d+)$", reply.body, re.MULTILINE) == [
                b"%d" % number for number in range(1, 31)
            ]
        assert await server.stop() == 0


async def test_streams_of_what_is_gone_are_read_to_their_end(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that goes leaves its streams to those who began them, at every worker, and to no others."""
    monkeypatch.setenv("JWT_SECRET", SECRET)
    settings = f"state: {{url: {redis_url}}}\n{BY_SECRET}"
    report = RESUMING.replace("path:", "authentication: jwt\npath:").replace("30", "200")
    options = ("--reload", "--workers", "2")
    ann, bob = (f"Authorization: Bearer {signed(claims(sub=name))}\r\n" for name in ("ann", "bob"))
    async with serving(tmp_path, *options, streamstack=settings, hello=HELLO, report=report) as server:
        client = await server.connect()
        client.ask("/report", extra=ann)
        found = re.search(rb"(?i)x-stream-id: (\S+)", await client.head())
        assert found
        path = f"/_streams/{found[1].decode()}"
        await client.chunk()
        (tmp_path / "report.yaml").unlink()

        async def away() -> bool:
            replies = [await server.ask("PUT", "/report") for _ in range(8)]
            return {reply.status for reply in replies} == {404}  # it was 405

        await settled(away)
        # Connections are spread over the workers: some of these are the other's.
        readers = []
        for _ in range(6):
            assert (await server.ask("GET", path, extra=bob)).status == 404
            assert (await server.ask("DELETE", path)).status == 404
            reader = await server.connect()
            readers.append(reader)
            reader.ask(path, extra=ann)
            assert b" 200 " in await reader.head()
            assert await reader.chunk()
        assert {(await server.ask("HEAD", path, extra=ann)).status for _ in range(8)} == {200}
        assert (await server.ask("DELETE", path, extra=ann)).status == 204
        whole = await client.rest()
        assert b'"code":"stopped"' in whole
        for reader in readers:
            assert b'"code":"stopped"' in await reader.rest()
            reader.close()
        for _ in range(6):
            assert (await server.ask("DELETE", path, extra=ann)).status == 204
        client.close()
        assert await server.stop() == 0


@both
async def test_hangup_serves_anew(tmp_path: Path, workers: str) -> None:
    """Without --reload nothing is reloaded by itself: SIGHUP asks for it."""
    async with serving(tmp_path, "--workers", workers, hello=HELLO) as server:
        (tmp_path / "hello.yaml").write_text(HELLO.replace("first", "second"))
        await asyncio.sleep(1.0)
        await says(server, "first")
        server.process.send_signal(signal.SIGHUP)
        await says(server, "second")
        assert await server.stop() == 0


@both
async def test_hangup_of_a_terminal_stops(tmp_path: Path, workers: str) -> None:
    """Where a person has started the server on a terminal, it goes when the terminal goes."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    leader, terminal = os.openpty()
    server = Process(await start(str(tmp_path), "--port", "0", "--workers", workers, stdin=terminal))
    listening = asyncio.ensure_future(server.listen())
    try:
        await server.said("serving 1 endpoint")
        server.process.send_signal(signal.SIGHUP)
        assert await asyncio.wait_for(server.process.wait(), 10) == 0
        await listening
    finally:
        os.close(leader)
        os.close(terminal)


def test_what_no_one_foresaw_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while files are compiled again is reported, and what is served goes on."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    checked = read_project(tmp_path, REGISTRY, {})
    edition = first_edition(checked, dev=False)

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(reloading, "compile_definitions", fail)
    with pytest.raises(BrokenError, match="can't be compiled: by accident"):
        next_edition(lambda: checked, edition, dev=False)


async def test_a_new_worker_has_the_new_files(tmp_path: Path) -> None:
    """Who takes a dead worker's place serves what was served last, not what was read first."""
    options = ("--reload", "--workers", "2")
    async with serving(tmp_path, *options, hello=HELLO) as server:
        (tmp_path / "hello.yaml").write_text(HELLO.replace("first", "second"))
        await says(server, "second")
        (tmp_path / "hello.yaml").write_text(": :")
        await server.said("not served")
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        await says(server, "second")
        assert not any(map(gone, server.workers()))
        assert await server.stop() == 0


@both
async def test_figures_go_on(tmp_path: Path, workers: str) -> None:
    """An endpoint keeps its figures over a reload, and a new one has its own."""
    settings = "server: {metrics: {open: true}}"
    options = ("--reload", "--workers", workers)
    async with serving(tmp_path, *options, streamstack=settings, hello=HELLO) as server:
        await says(server, "first")
        (tmp_path / "earlier.yaml").write_text(HELLO.replace("/hello", "/earlier"))
        await says(server, "first", "/earlier")
        text = (await server.ask("GET", "/_metrics")).body.decode()
        assert await server.stop() == 0
    counts = dict(re.findall(r'requests_total\{endpoint="GET (\S+)",status="2xx"\} (\d+)', text))
    assert int(counts["/hello"]) == 8
    assert int(counts["/earlier"]) >= 8


# ------------------------------------------------------------------------------ seeing changes


@contextmanager
def watching(root: Path) -> Iterator[list[str]]:
    """Watch a project; yield the list to which the names of changed files are added."""
    seen: list[str] = []
    stopped = threading.Event()
    files = FileChanges(read_project(root, REGISTRY, {}))

    def work() -> None:
        while not stopped.wait(0.02):
            seen.extend(Path(name).name for name in files.take())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        thread.join(10)
    assert not thread.is_alive()


async def quiet(seen: list[str]) -> list[str]:
    """Wait until nothing has come for a while that is longer than the pause between two looks."""
    count = -1
    while count < len(seen):
        count = len(seen)
        await asyncio.sleep(0.5)
    found, seen[:] = list(seen), []
    return found


async def test_how_editors_save(tmp_path: Path) -> None:
    """A file is seen to change however it is written: in place, moved into place, with its times kept."""
    file = tmp_path / "a.yaml"
    file.write_text("one")
    with watching(tmp_path) as seen:
        file.write_text("two")
        assert await quiet(seen) == ["a.yaml"]
        draft = tmp_path / ".a.yaml.swp"
        draft.write_text("six")
        assert await quiet(seen) == []
        times = file.stat()
        os.utime(draft, ns=(times.st_atime_ns, times.st_mtime_ns))
        draft.replace(file)
        assert await quiet(seen) == ["a.yaml"]
        kept = file.stat()
        file.write_text("ten")
        os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
        assert await quiet(seen) == ["a.yaml"]
        file.touch()
        assert await quiet(seen) == ["a.yaml"]


async def test_half_written_files_are_waited_for(tmp_path: Path) -> None:
    """While a file grows, or is away because it is being replaced, nothing is reported; afterwards all at once."""
    first, second = tmp_path / "a.yaml", tmp_path / "b.yml"
    first.write_text("1")
    with watching(tmp_path) as seen:
        for length in range(2, 8):
            first.write_text("1" * length)
            await asyncio.sleep(0.01)
        first.unlink()
        await asyncio.sleep(0.01)
        first.write_text("other")
        second.write_text("new")
        assert await quiet(seen) == ["a.yaml", "b.yml"]


async def test_only_what_is_served_is_watched(tmp_path: Path) -> None:
    """Tests, hidden folders and other files are not; the settings above, their setup files and their .env are."""
    settings = tmp_path / "streamstack.yaml"
    settings.write_text("databases: {main: {setup: sql/schema.sql}}")
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "schema.sql").write_text("SELECT 0")
    folder = tmp_path / "definitions"
    (folder / ".hidden").mkdir(parents=True)
    with watching(folder) as seen:
        (folder / "a.test.yaml").write_text("x")
        (folder / "a.txt").write_text("x")
        (folder / ".hidden" / "a.yaml").write_text("x")
        assert await quiet(seen) == []
        settings.write_text("settings: {}")
        assert await quiet(seen) == ["streamstack.yaml"]
        (tmp_path / "sql" / "schema.sql").write_text("SELECT 1")
        (tmp_path / ".env").write_text("A=1")
        assert await quiet(seen) == [".env", "schema.sql"]


async def test_folders_that_come_and_go_are_watched(tmp_path: Path) -> None:
    """A folder is watched from when it is there, be it made or moved into place with files in it."""
    with watching(tmp_path) as seen:
        (tmp_path / "new" / "deep").mkdir(parents=True)
        (tmp_path / "new" / "deep" / "a.yaml").write_text("x")
        assert await quiet(seen) == ["a.yaml"]
        (tmp_path / "new" / "deep" / "a.yaml").write_text("xy")
        assert await quiet(seen) == ["a.yaml"]
        outside = tmp_path / ".outside"
        (tmp_path / "new").rename(outside)
        assert await quiet(seen) == ["a.yaml"]
        outside.rename(tmp_path / "again")
        assert await quiet(seen) == ["a.yaml"]


@both
async def test_only_regular_files_are_read(tmp_path: Path, workers: str) -> None:
    """A pipe named as a definition is reported, and hinders no request."""
    options = ("--reload", "--workers", workers)
    async with serving(tmp_path, *options, hello=HELLO) as server:
        os.mkfifo(tmp_path / "pipe.yaml")
        await server.said(r"pipe\.yaml:1:1: error: yaml-syntax: this is not a regular file")
        await says(server, "first")
        (tmp_path / "pipe.yaml").unlink()
        (tmp_path / "hello.yaml").write_text(HELLO.replace("first", "second"))
        await says(server, "second")
        assert await server.stop() == 0


ITEMS = """
path: /items
method: GET
responseType: json
functionStack:
  - db.value: SELECT string_agg(name, ',') FROM items
    as: names
response: << names >>
"""


@both
async def test_setup_files_run_when_they_change(tmp_path: Path, workers: str) -> None:
    """What is added to schema.sql is there without a restart; what is broken in it is reported."""
    schema = tmp_path / "schema.sql"
    schema.write_text("CREATE TABLE IF NOT EXISTS items (name text); INSERT INTO items VALUES ('a')")
    settings = "databases: {main: {setup: schema.sql}}"
    options = ("--reload", "--workers", workers)
    async with serving(tmp_path, *options, streamstack=settings, items=ITEMS) as server:
        await says(server, "a", "/items")
        schema.write_text("INSERT INTO items VALUES ('b')")
        await says(server, "a,b", "/items")
        schema.write_text("INSERT INTO nowhere VALUES ('c')")
        await server.said(r"schema\.sql:1: ")
        await says(server, "a,b", "/items")
        assert await server.stop() == 0


@both
async def test_the_env_file_is_read_again(tmp_path: Path, workers: str) -> None:
    """A variable of `.env` that changes is reloaded, in settings and in bindings."""
    hello = HELLO.replace("first", "<< settings.word >><< env.OTHER >>")
    settings = "settings: {word: << env.WORD >>}"
    file = tmp_path / ".env"
    file.write_text("WORD=fi\nOTHER=rst\n")
    options = ("--reload", "--workers", workers)
    async with serving(tmp_path, *options, streamstack=settings, hello=hello) as server:
        await says(server, "first")
        file.write_text("WORD=sec\nOTHER=ond\n")
        await says(server, "second")
        assert await server.stop() == 0
