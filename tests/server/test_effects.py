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
