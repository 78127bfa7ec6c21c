"""Answers of real upstreams become fixtures, with which a test runs as it did with the real ones."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from streamstack.cli import main
from streamstack.language import masking
from streamstack.language.cases import Case
from streamstack.language.settings import HttpSettings
from streamstack.language.test_files import read_test_file
from streamstack.testing.fixtures import add_upstreams, write_fixtures
from streamstack.testing.recorder import Recorder, Recording
from streamstack.testing.upstreams import LocalUpstreams
from tests.stacks import Outcome, run_stack
from tests.upstreams import END, Upstream, Wire, answer

KEY = "key-of-the-account-77"


@pytest.fixture(autouse=True)
def known_secret() -> Any:
    """The environment has a secret."""
    masking.learn({"API_KEY": KEY})
    yield
    masking.learn({})


def cases_of(path: Path, text: str) -> list[Case]:
    """Return the tests of a file that is written."""
    path.write_text(text)
    file, findings = read_test_file(path, path.name, text)
    assert findings == []
    return list(file.tests)


def texts_of(folder: Path) -> list[str]:
    """Return what the files in a folder hold."""
    return [each.read_text() for each in folder.rglob("*") if each.is_file()]


async def record(case: Case, stack: str) -> tuple[Outcome, list[Recording]]:
    """Run a stack with real upstreams."""
    async with Recorder(case.upstreams, HttpSettings()) as recorder:
        outcome = await run_stack(stack, http=HttpSettings(redirect=recorder.redirect))
    return outcome, recorder.recordings


async def replay(case: Case, stack: str) -> Outcome:
    """Run a stack with the upstreams of a test."""
    async with LocalUpstreams(case.upstreams) as mock:
        return await run_stack(stack, http=HttpSettings(redirect=mock.redirect))


async def events(wire: Wire) -> None:
    """Send events in odd pieces, with a secret, a cookie and a character that is cut."""
    await wire.head("Content-Type: text/event-stream", "Set-Cookie: session=abcdef", "X-RateLimit-Left: 4")
    for piece in (
        b"data: one\n",
        f"\ndata: {KEY[:8]}".encode(),
        f"{KEY[8:]}\n\ndata: \U0001f600 << caf\u00e9".encode()[:-1],
    ):
        await wire.chunk(piece)
    await wire.chunk(b"\xa9 >>\n\n")
    await wire.send(END)
    wire.writer.close()


async def cut(wire: Wire) -> None:
    """Send an event, and break off."""
    await wire.head("Content-Type: application/x-ndjson")
    await wire.chunk(b'{"n": 1}\n')


TESTS = """\
# What it says.
tests:
  - name: Reads & relays
    request: {path: /}  # the path
%s
  - name: another
    request: {path: /}
"""


@pytest.mark.parametrize(
    "present", ["", "    upstreams:\n      - url: https://a.example  # mine\n", "    upstreams: []\n"]
)
async def test_recording_is_replayed(tmp_path: Path, present: str) -> None:
    """The same chunks come from the fixtures, which hold no secret; comments of the test file stay."""
    path = tmp_path / "a.test.yaml"
    text = TESTS % present
    case, *_ = cases_of(path, text)
    whole = answer(json.dumps({"id": 7, "api_key": KEY}), "Content-Type: application/json", "Server: x")
    async with Upstream(events) as streaming, Upstream(whole) as asked, Upstream(cut) as broken:
        stack = f"""
- http.request: {{url: '{asked.url}/v1?key={KEY}', method: POST, headers: {{Authorization: 'Bearer {KEY}'}}}}
  as: reply
- stream: << reply.body.id >>
- http.stream: {streaming.url}
  as: items
- forEach: {{in: << items >>, do: [{{stream: << item.data >>}}]}}
- http.stream: {broken.url}
  as: items
- forEach: {{in: << items >>, do: [{{stream: << item.n >>}}]}}
"""
        outcome, recordings = await record(case, stack)
        assert asked.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert outcome.contents == [7, "one", KEY, "\U0001f600 << café >>", 1]
    assert outcome.error is not None
    assert outcome.error.code == "stream-lost"
    written = add_upstreams(text, [(case, write_fixtures(case, recordings, tmp_path))])
    replayed, other = cases_of(path, written)
    assert (other.upstreams, len(replayed.upstreams)) == ((), len(case.upstreams) + 3)
    assert "# What it says." in written
    assert "# the path" in written
    assert ("# mine" in present) == ("# mine" in written)
    again = await replay(replayed, stack)
    masked = [masking.MASK if each == KEY else each for each in outcome.contents]
    assert (again.contents, again.error and again.error.code) == (masked, "stream-lost")
    files = texts_of(tmp_path)
    assert len(files) == 4
    everything = "".join(files)
    assert not [secret for secret in (KEY, "session", "abcdef", "Server") if secret in everything]
    assert "X-RateLimit-Left" in everything


async def test_upstreams_of_the_test_answer_first(tmp_path: Path) -> None:
    """Only calls that no upstream of the test answers leave the machine; an unreachable host leaves no fixture."""
    (case,) = cases_of(
        tmp_path / "a.test.yaml",
        "tests: [{name: a, request: {path: /}, upstreams: [{url: 'https://a.example/', respond: {json: 1}}]}]",
    )
    stack = "- http.request: https://a.example/\n  as: r\n- http.request: http://127.0.0.1:9/\n  as: r"
    outcome, recordings = await record(case, stack)
    assert outcome.error is not None
    assert outcome.error.code == "http-connection"
    assert [(each.call.number, each.fault) for each in recordings] == [(2, "127.0.0.1 refused the connection")]
    assert write_fixtures(case, recordings, tmp_path) == []


async def test_websocket_is_recorded(tmp_path: Path) -> None:
    """Messages are recorded with their kind, and sent by the fixture in the same order."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        opened = web.WebSocketResponse()
        await opened.prepare(request)
        topic = (await opened.receive_json())["topic"]
        await opened.send_str(f'{{"topic": "{topic}"}}')
        await opened.send_bytes(b"\x00\xff")
        await opened.close()
        return opened

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (case,) = cases_of(tmp_path / "a.test.yaml", "tests: [{name: a, request: {path: /}}]\n")
    stack = f"""
- websocket.stream: {{url: 'ws://127.0.0.1:{site.port}/', send: {{topic: t}}}}
  as: messages
- forEach: {{in: << messages >>, do: [{{stream: << item | string >>}}]}}
"""
    try:
        outcome, recordings = await record(case, stack)
    finally:
        await runner.cleanup()
    assert outcome.error is None
    assert len(outcome.contents) == 2
    assert recordings[0].call.document == [{"topic": "t"}]
    (text,) = texts_of(tmp_path)
    text = add_upstreams(text, [(case, write_fixtures(case, recordings, tmp_path))])
    (replayed,) = cases_of(tmp_path / "a.test.yaml", text)
    assert (await replay(replayed, stack)).contents == outcome.contents


class Words(BaseHTTPRequestHandler):
    """Sends events to clients that have the key."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        known = self.headers["Authorization"] == f"Bearer {KEY}"
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for word in ("Hello", "World", KEY) if known else ():
            self.wfile.write(f"data: {word}\n\n".encode())
            sleep(0.02)

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`streamstack test --record` writes fixtures with the keys of the environment; then tests pass without both."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Words) as server:
        Thread(target=server.serve_forever).start()
        (tmp_path / "api.yaml").write_text(
            f"""
method: GET
path: /words
responseType: streaming
functionStack:
  - http.stream:
      url: http://127.0.0.1:{server.server_port}/words?key=<< env.WORDS_KEY >>
      headers: {{Authorization: "Bearer << env.WORDS_KEY >>"}}
    as: words
  - forEach: {{in: << words >>, do: [{{stream: << item.data >>}}]}}
"""
        )
        (tmp_path / "api.test.yaml").write_text(
            "tests:\n  - name: relays\n    env: {WORDS_KEY: none}\n    request: {path: /words}\n"
            "    expect: {chunks: [Hello, World, '***']}\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("WORDS_KEY", KEY)
        try:
            recorded = CliRunner().invoke(main, ["test", "--record"])
        finally:
            server.shutdown()
    monkeypatch.delenv("WORDS_KEY")
    again = CliRunner().invoke(main, ["test", "--record"])
    assert (recorded.exit_code, again.exit_code) == (0, 0), recorded.output + again.output
    assert (
        f"api.test.yaml:2:5: GET http://127.0.0.1:{server.server_port}/words was recorded: status 200"
        in recorded.output
    )
    assert "nothing to record" in again.output
    assert KEY not in "".join(texts_of(tmp_path))
