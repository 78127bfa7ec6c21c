"""Every response of a test is compared with the OpenAPI document of its project."""

from __future__ import annotations

from pathlib import Path

import pytest
from multidict import CIMultiDict

from streamstack.testing.client import ReceivedAnswer
from streamstack.testing.session import TestProject
from tests.testing.running import run_one, write

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


@pytest.mark.parametrize(
    ("media", "body", "fault"),
    [
        ("application/x-ndjson", b'1\n{"broken\n2\n', ["line 1 is not JSON"]),
        ("application/x-ndjson", b"\xff\n", ["line 0 is not JSON"]),
        ("application/json", b'{"broken', ["the body is not JSON"]),
        ("application/json", b"", []),
    ],
)
def test_what_is_not_json_breaks_its_document(tmp_path: Path, media: str, body: bytes, fault: list[str]) -> None:
    """A line or a body of a JSON media type that is not JSON is reported as such."""
    write(tmp_path, API, "")
    edition = TestProject.read(tmp_path).edition({})
    endpoint = edition.endpoint("POST", "/chunks")
    assert endpoint is not None
    headers = CIMultiDict({"Content-Type": media})
    answer = ReceivedAnswer(status=200, headers=headers, body=bytearray(body), whole=True)
    assert edition.contract.violations(endpoint, answer) == fault


ODD = """\
method: GET
path: /odd
responseType: streaming
streaming: {format: text}
inputParameters: {status: {type: integer, default: 200}, media: {type: text, default: text/plain}}
functionStack:
  - try:
      do: [{throw: {code: odd, status: << input.status >>}, when: << input.status >= 400 >>}]
      catch: {on: [other], do: [{log: caught}]}
  - respond: {headers: {Content-Type: << input.media >>}}
  - stream: a
"""


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("", ""),
        ("?status=418", "the status 418 is not documented: 200, "),
        ("?media=text/x-odd", "the media type text/x-odd is not documented for the status 200"),
    ],
)
def test_undocumented_responses_fail(tmp_path: Path, query: str, fault: str) -> None:
    """A status and a media type that the document does not have are found; they are known only when they come."""
    expect = "{error: odd}" if "status" in query else "{text: a}"
    found = run_one(tmp_path, ODD, f"request: {{path: '/odd{query}'}}\nexpect: {expect}")
    assert found.startswith(fault and f"the response is not as its OpenAPI document says: {fault}")
    assert bool(found) == bool(fault)
