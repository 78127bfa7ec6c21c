"""What `validate` says to have no effect has none on the bytes; where it says nothing, there is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamstack.functions import REGISTRY
from streamstack.language.project import read_project
from tests.server.authenticating import project

ENDPOINT = """
method: POST
path: %s
unknownInputs: ignore
streaming: {format: %s%s}
functionStack:
  - stream: one
  - wait: 150ms
  - stream: two
"""
#: Each key with a value that would be seen.
KEYS = {"keepAlive": "20ms", "ids": "false", "done": "false", "compress": "true"}
#: The formats with the keys that change something in them.
EFFECTIVE: dict[str, set[str]] = {
    "sse": {"keepAlive", "ids", "done", "compress"},
    "ndjson": {"keepAlive", "compress"},
    "text": {"compress"},
    "csv": {"compress"},
    "bytes": {"compress"},
    "json": set(),
    "openai": {"keepAlive", "compress"},
    "anthropic": {"keepAlive", "compress"},
    "aiSdk": {"keepAlive", "compress"},
}
HEADERS = {"Content_Type": "application/json", "Accept_Encoding": "gzip"}


def steady(body: bytes) -> bytes:
    """Leave out what differs from run to run."""
    body = re.sub(rb'"(id|messageId)":"[^"]*"', b"", body)
    return re.sub(rb'"(elapsedMs|created)":[0-9]+', b"", body)


@pytest.mark.parametrize("format_", EFFECTIVE)
async def test_keys_have_an_effect_unless_it_is_said(tmp_path: Path, format_: str) -> None:
    """Two answers, one of an endpoint with the key and one without, are the same where there is a finding, else not."""
    paths = {key: f", {key}: {value}" for key, value in KEYS.items()} | {"without": ""}
    text = "---".join(ENDPOINT % (f"/{name}", format_, more) for name, more in paths.items())
    bodies = {}
    async with project(tmp_path, "settings: {}", text) as server:
        for name in paths:
            reply = await server.ask("POST", f"/{name}", b'{"stream": true}', **HEADERS)
            assert reply.status == 200, reply.body
            bodies[name] = steady(reply.body)
        found = read_project(tmp_path, REGISTRY, {}).findings
    told = {each.message.split("`")[1] for each in found if each.code == "no-effect"}
    assert {key for key in KEYS if bodies[key] != bodies["without"]} == EFFECTIVE[format_]
    assert told == KEYS.keys() - EFFECTIVE[format_]


DEFAULTS = """
streaming: {format: openai, ids: false, slowClient: {mode: disconnect, grace: 300ms}}
"""
TAKEN_BACK = """
method: POST
path: /ids
streaming: {format: ndjson, resume: true, ids: true}
functionStack: [{stream: 1}]
---
method: GET
path: /slow
streaming: {format: json, slowClient: block}
allow: [buffers-stream]
functionStack: [{stream: 1}]
---
method: POST
path: /json
responseType: json
inputParameters: {lines: {type: stream, decode: lines}}
functionStack:
  - collect: << input.lines >>
    as: all
  - return: << all >>
"""


async def test_what_takes_a_default_back_has_an_effect(tmp_path: Path) -> None:
    """A reader comes back by ids that the project leaves out elsewhere; a slow one has as long as without `grace`."""
    async with project(tmp_path, DEFAULTS, TAKEN_BACK):
        assert read_project(tmp_path, REGISTRY, {}).findings == []
    without = TAKEN_BACK.replace(", ids: true", "")
    (tmp_path / "endpoints.yaml").write_text(without)
    found = read_project(tmp_path, REGISTRY, {}).findings
    assert [each.code for each in found] == ["not-resumable"]


async def test_a_dialect_is_none_of_an_answer_in_one_piece(tmp_path: Path) -> None:
    """Where the project's format is a dialect, an endpoint that answers with JSON reads its body as it arrives."""
    async with project(tmp_path, DEFAULTS, TAKEN_BACK) as server:
        reply = await server.ask("POST", "/json", b"one\ntwo\n", Content_Type="text/plain")
        assert (reply.status, reply.body) == (200, b'["one","two"]')


async def test_resume_of_the_project_is_none_of_an_answer_in_one_piece(tmp_path: Path) -> None:
    """What does not go with `resume` goes with an answer in one piece, where it is reported to have no effect."""
    text = """
method: GET
path: /json
responseType: json
streaming: {ids: false, slowClient: dropOldest}
functionStack: [{return: 1}]
"""
    async with project(tmp_path, "streaming: {resume: true}", text) as server:
        assert (await server.get("/json")).body == b"1"
        found = read_project(tmp_path, REGISTRY, {}).findings
    assert [each.code for each in found] == ["no-effect", "no-effect"]
