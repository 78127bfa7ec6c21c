"""Bug reports of similar systems, as cases: a definition, a request, and the bytes that must come back.

Each YAML document beside this file is a case:

    report: Repository and number at GitHub: owner/name#number.
    fact: What must hold here, in our own words.
    definition: The definition's text; its path is unique among all cases.
    upstream: The body that an upstream at {env.UPSTREAM}/NAME sends, or a list of its parts, sent one by one;
        NAME is `name-number` of the report. `type` is its Content-Type.
    model: A provider. `models:` then has NAME, which asks that upstream.
    request: Request line, headers, empty line and body. Host, Connection and Content-Length are added.
    raw: true sends the request as it is, with CR LF after each line of the head.
    times: Repeats the body. `gzip: true` compresses it.
    status, headers, body, contains, lacks, code: What is expected; `code` is that of an error.
    broken: Why it is not so yet.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.server.serving import Reply, parse

HERE = Path(__file__).parent
ENGINE = HERE.parent.parent / "engine"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One report."""

    report: str
    fact: str
    definition: str
    request: str
    upstream: str | bytes | list[str | bytes] | None = None
    type: str = "text/event-stream"
    model: str = ""
    raw: bool = False
    times: int = 1
    gzip: bool = False
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    contains: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    code: str = ""
    broken: str = ""

    @property
    def name(self) -> str:
        return self.report.rpartition("/")[2].replace("#", "-")


CASES = [
    Case(**document) for file in sorted(HERE.glob("*.yaml")) for document in yaml.safe_load_all(file.read_text("utf-8"))
]
PARTS = {
    case.name: [
        part.encode() if isinstance(part, str) else part
        for part in (case.upstream if isinstance(case.upstream, list) else [case.upstream])
    ]
    for case in CASES
    if case.upstream is not None
}
TYPES = {case.name: case.type for case in CASES}


class Upstream(BaseHTTPRequestHandler):
    """Sends what the case of the path's first segment says, each part in a chunk and a packet of its own."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = self.path.split("?")[0].split("/")[1]
        self.send_response(200)
        self.send_header("Content-Type", TYPES[name])
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        for part in (*PARTS[name], b""):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.flush()
            time.sleep(0.005)
        self.close_connection = True

    do_POST = do_GET  # noqa: N815  (the names that http.server calls)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve all cases in one process."""
    folder = tmp_path_factory.mktemp("public")
    for number, case in enumerate(CASES):
        (folder / f"{number}.yaml").write_text(case.definition, "utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    models = {
        case.name: {"provider": case.model, "model": "m", "apiKey": "k", "baseUrl": f"{address}/{case.name}"}
        for case in CASES
        if case.model
    }
    settings = {"server": {"cors": {"origins": ["https://app.example"]}, "maxBodySize": "1MB"}, "models": models}
    (folder / "streamstack.yaml").write_text(json.dumps(settings), "utf-8")
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-c", "from streamstack.cli import main; main()", "serve", str(folder), "--port", "0"],
        env={**os.environ, "PYTHONPATH": str(ENGINE), "UPSTREAM": address},
        stderr=log,
    )
    try:
        for _ in range(600):
            said = (folder / "log").read_text("utf-8")
            if found := re.search(r"http://127.0.0.1:(\d+)", said):
                break
            assert process.poll() is None, said
            time.sleep(0.05)
        assert found, said
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(20)
        log.close()
        server.shutdown()
        server.server_close()


def ask(port: int, case: Case) -> Reply:
    """Send a case's request, and read the response to its end."""
    head, _, body = case.request.partition("\n\n")
    lines, data = head.rstrip("\n").split("\n"), body.encode() * case.times
    if case.gzip:
        data = gzip.compress(data)
    if not case.raw:
        first, *others = lines
        lines = [f"{first} HTTP/1.1", "Host: test", "Connection: close", *others]
        if data:
            lines.append(f"Content-Length: {len(data)}")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode() + data)
        raw = b""
        while piece := client.recv(65536):
            raw += piece
    return parse(raw)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.report)
def test_report(case: Case, port: int, request: pytest.FixtureRequest) -> None:
    """What was reported of another system does not happen here."""
    if case.broken:
        request.applymarker(pytest.mark.xfail(strict=True, reason=case.broken))
    reply = ask(port, case)
    text = reply.body.decode()
    assert reply.status == case.status, text
    for name, value in case.headers.items():
        assert reply.headers.get(name.lower()) == value
    if case.code:
        assert json.loads(text)["code"] == case.code
    if case.body is not None:
        assert text == case.body
    for part in case.contains:
        assert part in text
    for part in case.lacks:
        assert part not in text


def test_there_are_enough() -> None:
    """At least 60 reports, each once."""
    assert len({case.report for case in CASES}) == len(CASES) >= 60
