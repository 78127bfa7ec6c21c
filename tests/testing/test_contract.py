"""Every response of a test is compared with the OpenAPI document of its project."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.running import run_one

API = """\
method: POST
path: /chunks
responseType: streaming
inputParameters: {value: json}
chunks: {message: integer, row: {type: object, properties: {n: {type: integer, required: true}}}}
functionStack:
  - stream: << input.value >>
  - stream: {event: row, content: << input.value >>}
    when: << input.value is mapping >>
---
method: POST
path: /whole/{rest:path}
responseType: json
inputParameters: {value: json, rest: text}
responseSchema: {type: list, items: text}
functionStack:
  - return: << input.value >>
"""


@pytest.mark.parametrize(
    ("path", "accept", "value", "fault"),
    [
        ("/chunks", "text/event-stream", "1", ""),
        ("/chunks", "text/event-stream", "'1'", ""),
        ("/chunks", "text/event-stream", "a", "event 0: fits none of its 4 alternatives: data must be JSON"),
        (
            "/chunks",
            "text/event-stream",
            "[1]",
            "event 0: fits none of its 4 alternatives: data must be an integer, not a list",
        ),
        ("/chunks", "application/x-ndjson", "[1]", "line 0: must be an integer or an object, not a list"),
        ("/chunks", "application/json", "[1]", "the body: `chunks[0]` must be an integer or an object, not a list"),
        ("/whole/a/b", "application/json", "[a, b]", ""),
        ("/whole/a/b", "application/json", "[a, 1]", "the body: `[1]` must be a text, not an integer"),
        ("/whole/a", "application/json", "{a: 1}", "the body: must be a list, not an object"),
    ],
)
def test_responses_that_break_their_document_fail(
    tmp_path: Path, path: str, accept: str, value: str, fault: str
) -> None:
    """Whatever the test expects; in each format, by the part that does not fit."""
    request = f"{{method: POST, path: {path}, headers: {{Accept: {accept}}}, body: {{value: {value}}}}}"
    found = run_one(tmp_path, API, f"request: {request}\nexpect: {{status: 200}}")
    assert found == (fault and f"the response is not as its OpenAPI document says: {fault}")
