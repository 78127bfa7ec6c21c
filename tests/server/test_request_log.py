"""The request log: one line for each request, which says how it ended."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.declarations import HELLO, both
from tests.server.processes import Process, serving, until

STREAM = """
path: /stream/{times}
method: GET
inputParameters: {times: integer}
functionStack:
  - repeat:
      times: << input.times >>
      do:
        - stream: {content: x, delay: 20ms}
"""
FAILING = """
path: /failing
method: GET
inputParameters: {after: {type: integer, default: 0}}
functionStack:
  - repeat:
      times: << input.after >>
      do:
        - stream: x
  - throw: {code: broken, message: It broke., status: 500}
"""
SLOW = """
path: /late
method: GET
streaming: {firstChunkTimeout: 200ms}
functionStack:
  - wait: 5s
  - stream: x
"""


def requests(server: Process) -> list[dict[str, Any]]:
    """Return the lines of the request log so far."""
    found = [json.loads(line) for line in server.lines if line.startswith("{")]
    return [line for line in found if line["event"] == "request"]


async def logged(server: Process, count: int = 1) -> list[dict[str, Any]]:
    """Wait until so many requests are logged; return them."""
    await until(lambda: len(requests(server)) >= count)
    await asyncio.sleep(0.1)
    found = requests(server)
    assert len(found) == count, found
    return found


@both
async def test_a_completed_request(tmp_path: Path, workers: str) -> None:
    """Endpoint, outcome, status, what was sent, and how long it took; of streams and of JSON alike."""
    settings = "server: {metrics: {open: true}}"
    options = ("--workers", workers)
    async with serving(tmp_path, *options, streamstack=settings, stream=STREAM, hello=HELLO) as server:
        assert (await server.ask("GET", "/stream/3?secret=1")).status == 200
        (line,) = await logged(server)
        run = line.pop("run")
        assert len(run) > 8
        assert 40 <= line.pop("ms") < 10_000
        assert line.pop("bytes") > 3
        assert line.pop("timestamp").endswith("Z")
        assert line == {
            "event": "request",
            "level": "info",
            "endpoint": "GET /stream/{times}",
            "outcome": "completed",
            "status": 200,
            "chunks": 3,
        }
        assert (await server.ask("GET", "/hello")).status == 200
        assert (await server.ask("GET", "/_metrics")).status == 200
        assert (await logged(server, 2))[1]["endpoint"] == "GET /hello"
        assert await server.stop() == 0


async def test_a_failed_request(tmp_path: Path) -> None:
    """Code, file and line; whether or not something was sent before."""
    async with serving(tmp_path, failing=FAILING) as server:
        await server.ask("GET", "/failing")
        await server.ask("GET", "/failing?after=2")
        first, second = await logged(server, 2)
        assert await server.stop() == 0
    for line in (first, second):
        assert line["outcome"] == "failed"
        assert line["code"] == "broken"
        assert line["place"].endswith("failing.yaml:10")
    assert (first["status"], first["chunks"]) == (500, 0)
    assert (second["status"], second["chunks"]) == (200, 2)


@both
async def test_requests_that_are_rejected(tmp_path: Path, workers: str) -> None:
    """A 400 for inputs is not a failed run; what no endpoint takes is logged by its path, without its query."""
    settings = "server: {metrics: {open: true}}"
    options = ("--workers", workers)
    async with serving(tmp_path, *options, streamstack=settings, stream=STREAM) as server:
        assert (await server.ask("GET", "/stream/many")).status == 400
        assert (await server.ask("GET", "/nowhere?password=abc")).status == 404
        assert (await server.ask("POST", "/stream/1")).status == 405
        inputs, unknown, method = await logged(server, 3)
        text = (await server.ask("GET", "/_metrics")).body.decode()
        assert await server.stop() == 0
    assert inputs["outcome"] == unknown["outcome"] == method["outcome"] == "rejected"
    assert (inputs["status"], inputs["code"]) == (400, "invalid-input")
    assert inputs["endpoint"] == "GET /stream/{times}"
    assert (unknown["status"], unknown["code"]) == (404, "not-found")
    assert (unknown["method"], unknown["path"]) == ("GET", "/nowhere")
    assert (method["status"], method["method"]) == (405, "POST")
    assert "abc" not in "\n".join(server.lines)
    title = 'endpoint="GET /stream/{times}"'
    assert f'streamstack_runs_total{{{title},outcome="rejected"}} 1' in text
    assert 'outcome="failed"' not in text


@pytest.mark.parametrize("resume", ["", "streaming: {resume: {keep: 200ms}}\n"])
async def test_a_client_that_leaves(tmp_path: Path, resume: str) -> None:
    """The run is cancelled by its client."""
    async with serving(tmp_path, stream=STREAM.replace("input", f"{resume}input", 1)) as server:
        client = await server.connect()
        client.ask("/stream/1000")
        await client.head()
        await client.chunk()
        client.close()
        (line,) = await logged(server)
        assert await server.stop() == 0
    assert line["outcome"] == "cancelled"
    assert line["status"] == 200
    assert 0 < line["chunks"] < 1000


async def test_requests_without_a_run_of_their_own(tmp_path: Path) -> None:
    """HEAD, OPTIONS, and clients that come back: each has its line, the run has one of its own."""
    resumed = STREAM.replace("input", "streaming: {resume: true}\ninput", 1)
    async with serving(tmp_path, stream=resumed) as server:
        first = await server.ask("GET", "/stream/3")
        name = first.headers["x-stream-id"]
        await logged(server)
        assert (await server.ask("GET", f"/_streams/{name}")).status == 200
        again = await server.ask("GET", "/stream/3", extra=f"Last-Event-ID: {name}/1\r\n")
        assert again.status == 200
        assert (await server.ask("HEAD", "/stream/3")).status == 200
        assert (await server.ask("OPTIONS", "/stream/3")).status == 204
        assert (await server.ask("GET", "/_streams/unknown")).status == 404
        assert (await server.ask("GET", "/_ready")).status == 200
        lines = await logged(server, 6)
        assert await server.stop() == 0
    assert lines[0]["endpoint"] == "GET /stream/{times}"
    assert [(line["method"], line["path"], line["outcome"]) for line in lines[1:]] == [
        ("GET", f"/_streams/{name}", "completed"),
        ("GET", "/stream/3", "completed"),
        ("HEAD", "/stream/3", "completed"),
        ("OPTIONS", "/stream/3", "completed"),
        ("GET", "/_streams/unknown", "rejected"),
    ]


@both
async def test_a_server_that_stops(tmp_path: Path, workers: str) -> None:
    """What still runs at the end of its time is ended by the shutdown."""
    settings = "server: {shutdownTimeout: 100ms}"
    options = ("--workers", workers)
    async with serving(tmp_path, *options, streamstack=settings, stream=STREAM) as server:
        client = await server.connect()
        client.ask("/stream/1000")
        await client.head()
        assert await server.stop() == 0
        assert b"producer-lost" in await client.rest()
        client.close()
        (line,) = await logged(server)
    assert (line["outcome"], line["code"]) == ("shutdown", "producer-lost")


@pytest.mark.parametrize("resume", ["", "resume: true, "])
async def test_a_run_that_takes_too_long(tmp_path: Path, resume: str) -> None:
    """A limit of the stream was reached; the timeout of a step is a failure."""
    step = """
path: /step
method: GET
responseType: json
functionStack:
  - wait: 5s
    timeout: 100ms
"""
    late = SLOW.replace("firstChunkTimeout", f"{resume}firstChunkTimeout")
    async with serving(tmp_path, late=late, step=step) as server:
        await server.ask("GET", "/late")
        await server.ask("GET", "/step")
        limit, failed = await logged(server, 2)
        assert await server.stop() == 0
    assert (limit["outcome"], limit["code"]) == ("timeout", "timeout")
    assert (failed["outcome"], failed["code"]) == ("failed", "timeout")
    assert failed["place"].endswith("step.yaml:6")


async def test_a_body_that_takes_too_long(tmp_path: Path) -> None:
    """A request whose body does not come is timed out before its run."""
    upload = """
path: /upload
method: POST
streaming: {firstChunkTimeout: 200ms}
inputParameters: {name: text}
functionStack:
  - stream: x
"""
    async with serving(tmp_path, upload=upload) as server:
        client = await server.connect()
        client.ask("/upload", "POST", extra="Content-Type: application/json\r\nContent-Length: 100\r\n")
        (line,) = await logged(server)
        client.close()
        assert await server.stop() == 0
    assert (line["outcome"], line["status"], line["code"]) == ("timeout", 408, "timeout")


async def test_the_log_can_be_set(tmp_path: Path) -> None:
    """Without `access` no request is logged; `format: text` is for people; `level` leaves out what is less grave."""
    settings = "log: {access: false, level: error}"
    async with serving(tmp_path, streamstack=settings, failing=FAILING, hello=HELLO) as server:
        await server.ask("GET", "/hello")
        await server.ask("GET", "/failing")
        await server.said("run-failed")
        assert await server.stop() == 0
    assert requests(server) == []
    settings = "log: {format: text, level: error}"
    async with serving(tmp_path, streamstack=settings) as server:
        await server.ask("GET", "/hello")
        await server.said(r"request .*endpoint='GET /hello'.*outcome=completed")
        assert await server.stop() == 0
    assert not [line for line in server.lines if line.startswith("{")]


async def test_a_log_that_nobody_reads_hinders_no_request(tmp_path: Path) -> None:
    """Where the standard error is closed or full, requests are answered."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    async with serving(tmp_path) as server:
        assert server.process.stderr is not None
        transport = server.process.stderr._transport  # type: ignore[attr-defined]  # noqa: SLF001
        transport.close()
        for _ in range(3):
            assert (await server.ask("GET", "/hello")).status == 200
        server.process.kill()
