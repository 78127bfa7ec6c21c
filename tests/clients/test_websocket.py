"""WebSockets of endpoints, as `ws` for Node and the browser's own WebSocket see them."""

from __future__ import annotations

from pathlib import Path

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
