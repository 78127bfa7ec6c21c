"""Experiments on a server: what a caller gets, and how figures and log lines tell the variants apart."""

from __future__ import annotations

import json
from pathlib import Path

from tests.server.processes import serving

SETTINGS = """
server: {metrics: {open: true}}
experiments:
  size: {by: << input.user >>, variants: {small: {words: 1}, large: {words: 2}}}
  tone: {by: << request.headers["x-key"] | default(null) >>, variants: {warm: {}, cold: {}}}
"""
#: A stream that can be resumed, one that calls a function, and an endpoint that is answered at once.
API = """
method: GET
path: /resumed
streaming: {resume: true}
inputParameters: {user: {type: text, required: true}}
functionStack:
  - forEach: {in: << range(experiment.size.words) >>, do: [{stream: << experiment.size.variant >>}]}
---
method: GET
path: /called
headers: {X-Variant: << experiment.size.variant >>}
inputParameters: {user: {type: text, required: true}}
functionStack:
  - call: {function: words}
---
kind: function
name: words
functionStack:
  - stream: << experiment.size.words ~ " " ~ experiment.tone.variant >>
---
method: GET
path: /json
responseType: json
inputParameters: {user: {type: text, required: true}}
functionStack: [{return: << experiment >>}]
---
method: GET
path: /plain
responseType: json
functionStack: [{return: 1}]
"""


async def test_callers_get_their_variant(tmp_path: Path) -> None:
    """A key has one variant in every endpoint, in headers and in functions; metrics and log lines tell it."""
    async with serving(tmp_path, api=API, streamstack=SETTINGS) as server:
        sizes = {}
        for user in ("ann", "bob", "cay", "dan", "eve"):
            called = await server.ask("GET", f"/called?user={user}", extra="X-Key: 1\r\nAccept: text/plain\r\n")
            size = sizes[user] = called.headers["x-variant"]
            words = 1 if size == "small" else 2
            assert b"".join(called.chunks).startswith(b"%d " % words)
            resumed = await server.ask("GET", f"/resumed?user={user}", extra="Accept: text/event-stream\r\n")
            assert b"".join(resumed.chunks).count(f"data: {size}\n".encode()) == words
            value = json.loads((await server.ask("GET", f"/json?user={user}", extra="X-Key: 1\r\n")).body)
            assert value["size"] == {"words": words, "variant": size}
            assert value["tone"]["variant"].encode() in b"".join(called.chunks)
        assert set(sizes.values()) == {"small", "large"}
        await server.ask("GET", "/plain")
        await server.ask("GET", "/called")
        tones = {json.loads((await server.ask("GET", "/json?user=ann")).body)["tone"]["variant"] for _ in range(20)}
        assert tones == {"warm", "cold"}, "a key of null is another one each time"
        figures = (await server.ask("GET", "/_metrics")).body.decode()
        small = list(sizes.values()).count("small")
        for line in (
            f'runs_total{{endpoint="GET /resumed",experiment="size",variant="small",outcome="completed"}} {small}',
            f'chunks_total{{endpoint="GET /resumed",experiment="size",variant="large"}} {2 * (5 - small)}',
            'runs_total{endpoint="GET /called",outcome="rejected"} 1',
            'requests_total{endpoint="GET /plain",status="2xx"} 1',
        ):
            assert f"streamstack_{line}\n" in figures, line
        assert 'endpoint="GET /called",experiment="size,tone",variant="small,' in figures
        logged = [json.loads(line) for line in server.lines if '"run"' in line]
        told = [each.get("experiment") for each in logged if each["endpoint"] == "GET /resumed"]
        assert told == [{"size": size} for size in sizes.values()]
        assert all("experiment" not in each for each in logged if each["endpoint"] == "GET /plain")
