"""`streamstack.application`: mounted, wrapped, called by aiohttp's test client, and run by gunicorn."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

import streamstack
from streamstack.server.app import SERVICE
from tests.server.declared import eventually
from tests.server.processes import until

ROOT = Path(__file__).parent.parent.parent
DEFINITIONS = """
method: GET
path: /hello/{name}
inputParameters: {name: {type: text}}
functionStack:
  - stream: Hello
  - stream: << input.name >>
---
method: GET
path: /sum
responseType: json
inputParameters: {a: {type: integer}, b: {type: integer}}
functionStack: []
response: << input.a + input.b >>
---
method: GET
path: /quiet
streaming: {keepAlive: 100ms}
functionStack:
  - wait: 1h
  - stream: never
---
method: GET
path: /where
responseType: json
functionStack: []
response: << request.path >>
---
method: GET
path: /long
streaming: {resume: {keep: 1m}}
functionStack:
  - forEach:
      in: << range(5) >>
      as: n
      do:
        - stream: << n >>
        - wait: 20ms
---
method: POST
path: /size
responseType: json
inputParameters: {text: {type: text, required: true}}
functionStack: []
response: << input.text | length >>
---
method: POST
path: /lines
inputParameters: {rows: {type: stream, decode: lines}}
functionStack:
  - forEach: {in: << input.rows >>, as: row, do: [{stream: << row >>}]}
---
method: GET
path: /ending
functionStack:
  - stream: begun
  - wait: 1h
"""


def write(folder: Path, settings: str = "", definitions: str = DEFINITIONS) -> Path:
    """Write a project."""
    (folder / "all.yaml").write_text(definitions)
    if settings:
        (folder / "streamstack.yaml").write_text(settings)
    return folder


@asynccontextmanager
async def calling(application: web.Application, **options: Any) -> AsyncIterator[TestClient[Any, Any]]:
    """Call an application with aiohttp's test client."""
    async with TestClient(TestServer(application, **options)) as client:
        yield client


def mounted(application: web.Application, prefix: str = "/api/v1") -> web.Application:
    """Mount an application under another, which has a page of its own."""
    host = web.Application()

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="the host's")

    host.router.add_get("/page", page)
    host.add_subapp(prefix, application)
    return host


def data_of(text: str) -> list[str]:
    """Return the data of the chunks of a stream."""
    return re.findall(r"^data: (?!{)(.*)\nid: ", text, re.MULTILINE)


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_answers_wherever_it_is(tmp_path: Path, prefix: str) -> None:
    """Streams, values, errors, health and OPTIONS, at the root or below a path of another application."""
    application = streamstack.application(write(tmp_path))
    assert isinstance(application, web.Application)
    async with calling(mounted(application, prefix) if prefix else application) as client:

        async def get(path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
            async with client.request(method, prefix + path, headers=headers) as reply:
                return reply.status, await reply.text()

        status, text = await get("/hello/W%C3%B6rld%2Fx")
        assert (status, data_of(text)) == (200, ["Hello", "Wörld/x"])
        assert "event: done" in text
        assert await get("/sum?a=1&b=2") == (200, "3")
        status, text = await get("/sum?a=x")
        assert (status, json.loads(text)["code"]) == (400, "invalid-input")
        status, text = await get("/nowhere")
        assert (status, json.loads(text)["code"]) == (404, "not-found")
        assert (await get("/sum", "DELETE"))[0] == 405
        assert (await get("/sum", "HEAD")) == (200, "")
        assert (await get("/sum", "OPTIONS"))[0] == 204
        assert await get("/_health") == (200, '{"status":"ok"}')
        assert await get("/where") == (200, json.dumps(f"{prefix}/where"))
        status, text = await get("/hello/x", Accept="application/x-ndjson")
        assert [json.loads(line) for line in text.splitlines()][:2] == ["Hello", "x"] or "Hello" in text
        if prefix:
            assert (await client.get("/page")).status == 200
            assert (await client.get("/nowhere")).status == 404


@pytest.mark.parametrize("path", ["/%61pi/v1/where", "/api/%761/where", "/api/v1/%77here"])
async def test_prefix_may_be_percent_encoded(tmp_path: Path, path: str) -> None:
    """A path names the same endpoint however its characters are written, the prefix included."""
    async with (
        calling(mounted(streamstack.application(write(tmp_path)))) as client,
        client.get(URL(path, encoded=True)) as reply,
    ):
        assert (reply.status, await reply.json()) == (200, "/api/v1/where")


@pytest.mark.parametrize("prefix", ["", "/below"])
async def test_bodies(tmp_path: Path, prefix: str) -> None:
    """JSON, a body that is encoded, one that is refused before it is sent, and one that is read as it arrives."""
    application = streamstack.application(write(tmp_path, "server: {maxBodySize: 1KB}\n"))
    async with calling(mounted(application, prefix) if prefix else application) as client:
        url = f"{prefix}/size"
        assert await (await client.post(url, json={"text": "abc"})).json() == 3
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        data = gzip.compress(b'{"text": "abcd"}')
        assert await (await client.post(url, data=data, headers=headers)).json() == 4
        bomb = gzip.compress(json.dumps({"text": "x" * 100_000}).encode())
        assert (await client.post(url, data=bomb, headers=headers)).status == 413
        assert (await client.post(url, json={"text": "x" * 5000}, expect100=True)).status == 413
        assert await (await client.post(url, json={"text": "ab"}, expect100=True)).json() == 2

        async def rows() -> AsyncIterator[bytes]:
            for number in range(3):
                yield b"row %d\n" % number
                await asyncio.sleep(0.01)

        text = await (await client.post(f"{prefix}/lines", data=rows())).text()
        assert data_of(text) == ["row 0", "row 1", "row 2"]


async def test_streams_that_can_be_resumed(tmp_path: Path) -> None:
    """`/_streams/{id}` stands below the same path as the endpoints."""
    application = streamstack.application(write(tmp_path))
    async with calling(mounted(application)) as client:
        async with client.get("/api/v1/long") as reply:
            name = reply.headers["X-Stream-Id"]
            assert await reply.content.readline() == b"data: 0\n"
        async with client.get(f"/api/v1/_streams/{name}") as reply:
            assert data_of(await reply.text()) == ["0", "1", "2", "3", "4"]
        last = {"Last-Event-ID": f"{name}/2"}
        async with client.get("/api/v1/long", headers=last) as reply:
            assert data_of(await reply.text()) == ["3", "4"]


@pytest.mark.parametrize("cancels", [True, False])
async def test_reader_who_leaves(tmp_path: Path, *, cancels: bool) -> None:
    """Its run is cancelled, whether or not the host's server cancels handlers; heartbeats come until then."""
    application = streamstack.application(write(tmp_path))
    service = application[SERVICE]
    host = mounted(application)
    runner = web.AppRunner(host, handler_cancellation=cancels, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET /api/v1/quiet HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert b" 200 OK" in head
        assert await asyncio.wait_for(reader.readuntil(b":\n\r\n"), 10)
        assert len(service.timers) == 1
        writer.close()
        await eventually(lambda: not service.timers)
    finally:
        await runner.cleanup()


async def test_middlewares_and_signals_of_the_host(tmp_path: Path) -> None:
    """They see the request, can answer in its place, and add headers and cookies: to streams by signals."""

    @web.middleware
    async def wrap(request: web.Request, handler: Any) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            raise web.HTTPUnauthorized
        response: web.StreamResponse = await handler(request)
        if not response.prepared:
            response.headers["X-Kind"] = response.headers["Content-Type"]
            response.set_cookie("seen", "yes")
        return response

    async def sign(_: web.Request, response: web.StreamResponse) -> None:
        await asyncio.sleep(0)
        response.headers["X-Signed"] = "yes"

    host = mounted(streamstack.application(write(tmp_path)))
    host.middlewares.append(wrap)
    host.on_response_prepare.append(sign)
    async with calling(host) as client:
        assert (await client.get("/api/v1/sum?a=1&b=2")).status == 401
        headers = {"Authorization": "Bearer x"}
        async with client.get("/api/v1/sum?a=1&b=2", headers=headers) as reply:
            assert await reply.json() == 3
            assert reply.headers.getall("X-Signed") == ["yes"]
            assert reply.headers.getall("Content-Type") == ["application/json; charset=utf-8"]
            assert reply.headers["X-Kind"] == "application/json; charset=utf-8"
            assert reply.cookies["seen"].value == "yes"
        async with client.get("/api/v1/hello/x", headers=headers) as reply:
            assert reply.headers.getall("X-Signed") == ["yes"]
            assert data_of(await reply.text()) == ["Hello", "x"]


async def test_slow_reader_holds_its_run_back(tmp_path: Path) -> None:
    """Also where another server listens: no more than the buffer waits for it."""
    text = """
    method: GET
    path: /much
    streaming: {format: text, buffer: 64KB}
    functionStack:
      - set: {line: << "x" * 1000 >>}
      - repeat: {times: 100000, do: [{stream: << line >>}]}
    """
    application = streamstack.application(write(tmp_path, definitions=re.sub("^    ", "", text, flags=re.MULTILINE)))
    service = application[SERVICE]
    async with calling(application) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port, limit=1024)
        writer.write(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await eventually(lambda: any(life.answer.blocked for life in service.timers))
        (life,) = service.timers
        assert life.answer.count < 50_000
        count = life.answer.count
        for _ in range(200):
            await reader.readexactly(60_000)
        await eventually(lambda: life.answer.count > count)
        writer.close()
        await eventually(lambda: not service.timers)


async def test_streams_are_ended_when_the_host_stops(tmp_path: Path) -> None:
    """They have `shutdownTimeout`, then their clients receive an error."""
    application = streamstack.application(write(tmp_path, "server: {shutdownTimeout: 200ms}\n"))
    runner = web.AppRunner(mounted(application), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session:
        reply = await session.get(f"http://127.0.0.1:{site.port}/api/v1/ending")
        assert await reply.content.readline() == b"data: begun\n"
        await runner.cleanup()
        assert '"code":"producer-lost"' in await reply.text()


def test_errors_of_a_project_are_told(tmp_path: Path) -> None:
    """As a report, when the application is made."""
    with pytest.raises(streamstack.ProjectError, match="no endpoints found"):
        streamstack.application(tmp_path)
    write(tmp_path, definitions="{method: GET, path: /x, functionStack: [{strem: x}]}")
    with pytest.raises(streamstack.ProjectError, match="strem") as caught:
        streamstack.application(tmp_path)
    assert [each.file.rpartition("/")[2] for each in caught.value.findings] == ["all.yaml"]


GUNICORN = """
import streamstack
app = streamstack.application({folder!r})
"""


@asynccontextmanager
async def gunicorn(folder: Path, *options: str) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """Run an application by gunicorn's worker of aiohttp, and give its port."""
    (folder / "served.py").write_text(GUNICORN.format(folder=str(folder)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gunicorn", "served:app",
        "--worker-class", "aiohttp.GunicornWebWorker", "--bind", "127.0.0.1:0", *options,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'engine'}:{folder}"},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    lines: list[str] = []

    async def listen() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            lines.append(line.decode())  # noqa: PERF401  (as it comes)

    listening = asyncio.ensure_future(listen())
    found: list[str] = []

    def is_ready() -> bool:
        found[:] = re.findall(r"Listening at: http://127\.0\.0\.1:(\d+)", "".join(lines))
        return bool(found)

    try:
        await until(is_ready, 60)
        yield int(found[0]), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs a system that can fork")
async def test_run_by_gunicorn(tmp_path: Path) -> None:
    """Real requests to two workers; SIGTERM lets running streams be told, and ends all."""
    write(tmp_path, "server: {shutdownTimeout: 200ms}\n")
    async with gunicorn(tmp_path, "--workers", "2") as (port, process):
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session:

            async def text(path: str, **options: Any) -> str:
                method = options.pop("method", "GET")
                async with session.request(method, url + path, **options) as reply:
                    return await reply.text()

            assert await text("/sum?a=20&b=22") == "42"
            assert data_of(await text("/hello/x")) == ["Hello", "x"]
            answers = await asyncio.gather(*(text(f"/sum?a={n}&b=1") for n in range(50)))
            assert answers == [str(n + 1) for n in range(50)]
            data: Mapping[str, str] = {"text": "abc"}
            assert await text("/size", method="POST", json=data) == "3"
            reply = await session.get(f"{url}/ending")
            assert await reply.content.readline() == b"data: begun\n"
            process.send_signal(signal.SIGTERM)
            assert '"code":"producer-lost"' in await asyncio.wait_for(reply.text(), 20)
        assert await asyncio.wait_for(process.wait(), 20) == 0


def test_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/how-to/production.md shows runs as it stands."""
    page = (ROOT / "docs" / "how-to" / "production.md").read_text("utf-8")
    section = page.partition("## Inside an aiohttp application")[2].partition("\n## ")[0]
    examples = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "definitions").mkdir()
    write(tmp_path / "definitions")
    monkeypatch.chdir(tmp_path)
    run: list[tuple[web.Application, dict[str, Any]]] = []
    monkeypatch.setattr(web, "run_app", lambda app, **options: run.append((app, options)))
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "docs/how-to/production.md", "exec"), names)  # noqa: S102  (our own page)
    ((host, options),) = run
    assert options == {"handler_cancellation": True}
    assert isinstance(names["app"], web.Application)

    async def call() -> None:
        async with calling(host) as client:
            assert await (await client.get("/api/sum?a=1&b=2")).json() == 3

    asyncio.run(call())


@pytest.mark.parametrize("prefix", ["", "/below"])
async def test_websockets(tmp_path: Path, prefix: str) -> None:
    """A hosted application takes WebSockets, too; a refused handshake is answered over HTTP."""
    definition = """
method: GET
path: /echo
inputParameters: {name: text, messages: {type: stream, decode: json}}
functionStack:
  - precondition: {that: << input.name is not none >>, status: 409}
  - forEach: {in: << input.messages >>, as: message, do: [{stream: << message >>}]}
"""
    application = streamstack.application(write(tmp_path, definitions=definition))
    async with calling(mounted(application, prefix) if prefix else application) as client:
        async with client.ws_connect(f"{prefix}/echo?name=Ada") as opened:
            for value in (1, {"a": "ü"}):
                await opened.send_json(value)
                assert await opened.receive_json() == {"content": value}
        assert opened.close_code == 1000
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{prefix}/echo")
        assert refused.value.status == 409
