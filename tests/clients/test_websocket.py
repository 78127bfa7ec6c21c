"""WebSockets of endpoints, as `ws` for Node and the browser's own WebSocket see them."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import pytest

from tests.clients.speaking import speaking
from tests.clients.test_npm import missing, run

ECHO = """
method: GET
path: {path}
streaming: {{compress: {compress}, webSocket: {{subprotocols: [v2, v1]}}}}
inputParameters:
  messages: {{type: stream, decode: json}}
functionStack:
  - forEach: {{in: << input.messages >>, as: message, do: [{{stream: << message >>}}]}}
---
"""
OTHERS = """
method: GET
path: /count
inputParameters:
  times: {type: integer, minimum: 0, default: 3}
functionStack:
  - repeat: {times: << input.times >>, do: [{stream: << loop.index >>}]}
  - done: {content: "[DONE]"}
---
method: GET
path: /quiet
streaming: {keepAlive: 50ms}
functionStack:
  - wait: 300ms
  - stream: late
"""


def test_ws(tmp_path: Path) -> None:
    """`ws` reads messages and sends them, whole, in fragments and compressed, and sees the right close codes."""
    if missing():
        pytest.skip(missing())
    echo = "".join(ECHO.format(path=path, compress=on) for path, on in (("/echo", "false"), ("/compressed", "true")))
    (tmp_path / "all.yaml").write_text(echo + OTHERS, "utf-8")
    with speaking(tmp_path) as address:
        told = run("websocket.mjs", address)
    seen = {name: each.get("value", each) for name, each in told.items()}
    assert seen["echo"]["messages"] == [{"content": "a"}, {"content": {"b": [1, None]}}, {"content": 3}]
    assert seen["compressed"]["messages"] == [100_000, 100_000, 3]
    assert "permessage-deflate" in seen["compressed"]["extensions"]
    assert (seen["not compressed"]["messages"], seen["not compressed"]["extensions"]) == ([{"content": "a"}], "")
    assert seen["fragments"]["messages"] == [{"content": {"a": "ü"}}]
    assert seen["subprotocol"]["protocol"] == "v1"
    assert seen["count"]["messages"] == [{"content": 1}, {"content": 2}, {"content": 3}, {"done": "[DONE]"}]
    for name in ("echo", "compressed", "fragments", "subprotocol", "count", "pings"):
        assert seen[name]["code"] == 1000, name
    assert seen["no subprotocol in common"]["code"] == 1006  # as browsers do, it gives up
    assert seen["refused"] == {"status": 400}
    assert seen["pings"]["pings"] >= 3
    assert seen["invalid JSON"]["messages"][0]["error"]["code"] == "invalid-chunk"
    assert seen["invalid JSON"]["code"] == 1007
    assert seen["too large"]["code"] == 1009


PAGE = """
method: GET
path: /page
streaming: {format: text}
headers: {Content-Type: text/html}
functionStack:
  - stream: |
      <script>
      const talk = (url, protocols = [], act = () => {}) => new Promise((resolve) => {
        const seen = [], socket = new WebSocket(url, protocols);
        socket.onmessage = (event) => { seen.push(JSON.parse(event.data).content); act(socket, seen); };
        socket.onopen = () => act(socket, seen);
        socket.onclose = (event) => resolve([seen, event.code, socket.protocol]);
      });
      const here = `ws://${location.host}`, other = here.replace("127.0.0.1", "localhost");
      const report = async () => ({
        echo: await talk(`${here}/compressed`, ["v1"], (socket, seen) =>
          seen.length == 2 ? socket.close(1000) : socket.send(JSON.stringify(["a", {b: 1}][seen.length]))),
        count: await talk(`${here}/count`),
        refused: await talk(`${here}/count?times=x`),
        "no subprotocol in common": await talk(`${here}/count`, ["v9"]),
        "other origin": await talk(`${other}/count`),
      });
      report().then((found) =>
        fetch(location.hash.slice(1), {method: "POST", mode: "no-cors", body: JSON.stringify(found)}));
      </script>
"""


def test_chromium(tmp_path: Path) -> None:
    """A page in Chromium talks, both ways and compressed; it can't from another origin."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    reports: Queue[bytes] = Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reports.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  (the library's name)
            """Log nothing."""

    project = tmp_path / "project"
    project.mkdir()
    (project / "all.yaml").write_text(ECHO.format(path="/compressed", compress="true") + OTHERS + "---" + PAGE, "utf-8")
    with speaking(project) as address, ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        serving = threading.Thread(target=receiver.serve_forever, daemon=True)
        serving.start()
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
        page = f"{address}/page#http://127.0.0.1:{receiver.server_port}"
        process = subprocess.Popen(
            [browser, *options, f"--user-data-dir={tmp_path / 'browser'}", page],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            found = json.loads(reports.get(timeout=60))
        finally:
            process.terminate()
            process.wait(20)
            receiver.shutdown()
            serving.join(5)
    assert found == {
        "echo": [["a", {"b": 1}], 1000, "v1"],
        "count": [[1, 2, 3, None], 1000, ""],
        "refused": [[], 1006, ""],
        "no subprotocol in common": [[], 1006, ""],
        "other origin": [[], 1006, ""],
    }
