"""The examples work: their definitions validate, and their clients read a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread

import httpx
import pytest

from streamstack.functions import REGISTRY
from streamstack.language.project import find_root, read_project
from streamstack.server.app import serving_locally

EXAMPLES = Path(__file__).parent.parent / "examples"
STORIES = sorted(path.name for path in EXAMPLES.iterdir() if (path / "definitions").is_dir())
CLIENTS = {
    "curl": ["sh", "read.sh"],
    "httpx": [sys.executable, "read.py"],
    "fetch": ["node", "read-fetch.mjs"],
    "https": ["node", "read-https.mjs"],
}

#: Reads a stream with the page's module, and prints what it got.
READ = """
import { readEvents, readWithFetch } from "./poem.js";

const url = process.argv[1];
let text = "";
const end = await readWithFetch(url, { body: { pause: 0 }, onChunk: ({ content }) => { text += content; } });
const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
const all = async (pieces) => {
  const events = [];
  const body = new ReadableStream({
    start(controller) { pieces.forEach((piece) => controller.enqueue(piece)); controller.close(); },
  });
  for await (const event of readEvents(body)) events.push(event);
  return JSON.stringify(events);
};
const whole = await all([bytes]);
for (let cut = 1; cut < bytes.length; cut += 1) {
  if (await all([bytes.slice(0, cut), bytes.slice(cut)]) !== whole) throw new Error(`cut at ${cut}`);
}
let refused = "";
await readWithFetch(url, { body: { pause: -1 }, onChunk() {} }).catch((error) => { refused = error.message; });
const stop = new AbortController();
let stopped = "", seen = 0;
await readWithFetch(url, { body: { pause: 40 }, signal: stop.signal, onChunk() { if (++seen === 2) stop.abort(); } })
  .catch((error) => { stopped = error.name; });
console.log(JSON.stringify({ text, end, events: JSON.parse(whole).length, refused, stopped, seen }));
"""


@contextmanager
def served(name: str) -> Iterator[str]:
    """Serve an example; give its address."""
    checked = read_project(find_root(EXAMPLES / name / "definitions"), REGISTRY, os.environ)
    with serving_locally(checked, os.environ, dev=False) as address:
        yield address


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a client in its folder."""
    assert shutil.which(command[0]), f"the examples are tested with {command[0]}: install it"
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", STORIES)
def test_example_is_sound_and_explained(name: str) -> None:
    """Each example has definitions without any finding, and says how to run it."""
    checked = read_project(find_root(EXAMPLES / name / "definitions"), REGISTRY, os.environ)
    assert checked.findings == []
    assert f"make serve DIR=examples/{name}/definitions" in (EXAMPLES / name / "README.md").read_text("utf-8")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("query", "code", "chunks", "complaint"),
    [
        ("steps=3&pause=5", 0, 3, ""),
        ("steps=3&pause=5&failAt=3", 1, 2, "out-of-steam"),
        ("failAt=1", 1, 0, "out-of-steam"),
        ("steps=0", 1, 0, "invalid-input"),
    ],
)
def test_client_tells_the_ends_of_a_stream_apart(
    client: str, query: str, code: int, chunks: int, complaint: str
) -> None:
    """Every client prints each chunk, and exits with 0 for a whole stream, 1 for a failed one."""
    with served("clients") as address:
        done = run([*CLIENTS[client], f"{address}/api/steps?{query}"], EXAMPLES / "clients")
    assert done.returncode == code, done.stderr
    assert len(done.stdout.splitlines()) == chunks
    assert complaint in done.stderr
    assert bool(done.stderr) == bool(complaint)


class Cutting(BaseRequestHandler):
    """Sends a head and one chunk, then closes: without the last chunk of HTTP, or with it."""

    last = b""

    def handle(self) -> None:
        asked = self.request.recv(65536)
        events = b"text/event-stream" in asked
        kind = b"text/event-stream" if events else b"application/x-ndjson"
        value = b'{"step":1,"of":3}'
        chunk = b"data: %b\n\n" % value if events else b"%b\n" % value
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: %b\r\n\r\n" % kind
        self.request.sendall(head + b"%x\r\n%b\r\n%b" % (len(chunk), chunk, self.last))


class Ending(Cutting):
    """Ends the answer in good order, and says neither `done` nor `error`."""

    last = b"0\r\n\r\n"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("server", [Cutting, Ending])
def test_client_notices_a_stream_that_was_cut(client: str, server: type[Cutting]) -> None:
    """A stream that ends without `done` is reported apart from a whole one, however the connection ended."""
    with TCPServer(("127.0.0.1", 0), server) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{listening.server_address[1]}"
        done = run([*CLIENTS[client], f"{address}/api/steps"], EXAMPLES / "clients")
        listening.shutdown()
    assert done.returncode == 2, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "lost" in done.stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_client_notices_a_server_that_is_not_there(client: str) -> None:
    """A refused connection is not a whole stream either."""
    with served("clients") as address:
        gone = address
    done = run([*CLIENTS[client], f"{gone}/api/steps"], EXAMPLES / "clients")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_page_reads_the_poem() -> None:
    """The page's module gives the same events however the bytes are cut, tells errors, and stops."""
    with served("poem-page") as address:
        done = run(["node", "--input-type=module", "-e", READ, f"{address}/api/poem"], EXAMPLES / "poem-page")
        assert done.returncode == 0, done.stderr
        found = httpx.Response(200, text=done.stdout).json()
    assert found["text"].startswith("The kettle starts before the kitchen light,\n")
    assert found["text"].count("\n") == 9
    assert found["end"].items() >= {"chunks": 9, "completed": True}.items()
    assert found["events"] == 10
    assert found["refused"] == "invalid-input: pause must be between 0 and 5000"
    assert (found["stopped"], found["seen"]) == ("AbortError", 2)


def test_page_may_read_from_its_origin() -> None:
    """The page's own origin may read the stream, with its preflight; another's may not."""
    with served("poem-page") as address, httpx.Client(base_url=address) as client:
        for origin, allowed in (("http://localhost:8000", True), ("http://localhost:9000", False)):
            asked = client.options("/api/poem", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
            read = client.get("/api/poem?pause=0", headers={"Origin": origin})
            for answer in (asked, read):
                assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
