"""The JavaScript client in Node: complete streams through random faults, errors, stop, reload."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.speaking import CLIENTS, speaking
from tests.clients.test_npm import Told, missing, run

DEFINITIONS = """
path: /mixed
method: GET
functionStack:
  - set:
      values:
        - "two\\nlines"
        - "\\r\\n carriage returns \\r"
        - "[1, 2]"
        - " {"
        - 5
        - false
        - {content: 1, other: 2}
        - [1, "ü😀"]
        - ""
        - "data: x"
        - ": not a comment"
  - forEach:
      in: << values >>
      as: value
      do:
        - stream: << value >>
        - stream: {event: named, content: << value >>, metadata: {index: << loop.index0 >>}}
        - wait: 1ms
---
path: /posted
method: POST
inputParameters: {count: {type: integer, required: true, minimum: 0}}
functionStack:
  - repeat:
      times: << input.count >>
      do:
        - stream: {content: << loop.index >>, metadata: {totalChunks: << input.count >>}}
        - wait: 1ms
---
path: /plain
method: GET
streaming: {resume: false}
functionStack:
  - repeat: {times: 60, do: [stream: "no end"]}
---
path: /text
method: GET
streaming: {format: text}
functionStack:
  - repeat: {times: 60, do: [stream: "words "]}
---
path: /failing
method: GET
functionStack:
  - stream: one
  - throw: {code: too-late, message: no more}
---
path: /keyed
method: GET
authentication: key
functionStack:
  - stream: welcome
---
path: /slow
method: GET
functionStack:
  - repeat: {times: 5, do: [stream: << loop.index >>, wait: 60ms]}
"""
KEY = "k-0123456789-0123456789"
SETTINGS = """
streaming: {resume: {keep: 1m}}
authentication: {key: {type: apiKey, header: X-Api-Key, keys: << env.KEY >>}}
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Return what the client does."""
    if missing():
        pytest.skip(missing())
    folder: Path = tmp_path_factory.mktemp("browser")
    (folder / "all.yaml").write_text(DEFINITIONS, "utf-8")
    (folder / "streamstack.yaml").write_text(SETTINGS, "utf-8")
    with speaking(folder, {"KEY": KEY}) as address:
        yield run("reading.mjs", address, "1", "50")


@pytest.mark.parametrize("name", ["sse", "ndjson", "post"])
def test_random_faults_lose_and_repeat_nothing(told: Told, name: str) -> None:
    """Cuts at any byte, refused connections and a proxy's 502 to 504 leave the stream as it is without them."""
    seen: dict[str, Any] = told[name]["value"]
    assert seen["wrong"] == []
    assert seen["faults"] > 150
    assert len(seen["whole"]) >= 20


def test_values_keep_their_form(told: Told) -> None:
    """NDJSON keeps the type of each value; SSE keeps objects, lists, text, and what stands beside metadata."""
    ndjson = [content for _, content, _ in told["ndjson"]["value"]["whole"]]
    assert ndjson[::2] == ndjson[1::2]
    assert ndjson[::2] == [
        *("two\nlines", "\r\n carriage returns \r", "[1, 2]", " {", 5, False),
        *({"content": 1, "other": 2}, [1, "ü😀"], "", "data: x", ": not a comment"),
    ]
    sse = told["sse"]["value"]["whole"]
    assert [content for event, content, _ in sse if event] == ndjson[1::2]
    assert sse[0] == [None, "two\nlines", None]
    assert sse[1] == ["named", "two\nlines", {"index": 0}]


@pytest.mark.parametrize("path", ["/plain", "/text"])
def test_a_response_cut_short_fails(told: Told, path: str) -> None:
    """A stream that can't be resumed never looks complete when its connection is lost."""
    seen = told["truncated"]["value"][path]
    assert (seen["state"], seen["code"]) == ("failed", "stream-lost")
    assert seen["chunks"]


def test_counter_progress_and_states(told: Told) -> None:
    """Callbacks see the count and the progress of each chunk, and each state."""
    assert told["facts"]["value"] == {
        "chunks": 4,
        "count": 4,
        "first": True,
        "seen": [[1, 0.25], [2, 0.5], [3, 0.75], [4, 1]],
        "states": ["connecting", "streaming", "done"],
    }
    assert told["text"]["value"] == "words " * 60


def test_errors_of_the_server(told: Told) -> None:
    """A 400 names the faults; an error after the first chunk keeps its code."""
    refused = told["refused"]["value"]
    assert (refused["name"], refused["code"], refused["status"]) == ("StreamError", "invalid-input", 400)
    assert [fault["name"] for fault in refused["errors"]] == ["count", "more"]
    failed = told["failed"]["value"]
    assert (failed["chunks"], failed["code"], failed["message"]) == (["one"], "too-late", "no more")


def test_a_401_asks_for_new_headers_once(told: Told) -> None:
    """`onUnauthorized` may renew a token; without it, a 401 is an error."""
    seen = told["unauthorized"]["value"]
    assert seen["asked"] == [401]
    assert seen["chunks"] == [[None, "welcome", None]]
    assert (seen["without"]["code"], seen["without"]["status"]) == ("unauthorized", 401)


def test_resume_after_a_reload(told: Told) -> None:
    """The store has the id while the stream is open; after a reload the stream is read from its beginning."""
    assert told["reload"]["value"] == {"again": list("12345"), "held": 1, "left": 0, "nothing": None}


def test_stop_cancels_the_run(told: Told) -> None:
    """`stop` ends the iteration without an error and cancels a resumable run; abort rejects, as with `fetch`."""
    seen = told["stopped"]["value"]
    assert (seen["seen"], seen["state"], seen["left"]) == (["1", "2"], "stopped", 0)
    assert '"code":"stopped"' in seen["stored"]
    aborted = told["aborted"]["value"]
    assert (aborted["name"], aborted["state"]) == ("AbortError", "failed")


def test_a_silent_server_is_a_lost_connection(told: Told) -> None:
    """Neither chunk nor heartbeat within `stallTimeout`."""
    seen = told["silent"]["value"]
    assert (seen["chunks"], seen["code"]) == (["one"], "stream-lost")
    assert "silent" in seen["message"]


def test_types(tmp_path: Path) -> None:
    """The declared types accept the documented use and refuse misspelt options."""
    if missing():
        pytest.skip(missing())
    source = """
import { resume, stream, StreamError, type Chunk } from "CLIENT";
const onChunk = (chunk: Chunk<string>) => chunk.content.length;
const reader = stream<string>("/api", { body: { a: 1 }, store: sessionStorage, onChunk });
for await (const chunk of reader) console.log(chunk.text, chunk.metadata?.total, reader.count, reader.progress ?? 0);
const later = resume("/api", { store: sessionStorage });
await later?.stop();
const headers = async () => ({ Authorization: "x" });
try {
  await stream("/api", { headers }).finished();
} catch (error) {
  if (error instanceof StreamError) console.log(error.code);
}
// @ts-expect-error
stream("/api", { onChunks() {} });
// @ts-expect-error
resume("/api", {});
"""
    client = CLIENTS.parents[1] / "engine/streamstack/browser/streamstack.js"
    (tmp_path / "use.mts").write_text(source.replace("CLIENT", client.as_posix()), "utf-8")
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable"]
    command: list[str | Path] = [CLIENTS / "node_modules/.bin/tsc", *options, tmp_path / "use.mts"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "")
