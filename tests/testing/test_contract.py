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
    ("stack", "request_", "expect"),
    [
        ("- respond: {status: << input.n >>}", "{n: 418}", "{status: 418, body: {a: 1}}"),
        ("- throw: {code: own, message: no, status: << input.n >>}", "{n: 418}", "{error: {code: own, status: 418}}"),
        ("- throw: {code: << input.t >>, message: no, status: 418}", "{n: 1, t: own}", "{error: {code: own}}"),
        (
            "- respond: {status: << input.n >>}\n  - precondition: {that: false, code: own, status: << input.n >>}",
            "{n: 451}",
            "{error: {code: own, status: 451}}",
        ),
        ("- respond: {headers: {Content-Type: << input.t >>}}", "{n: 1, t: application/x-own}", "{status: 200}"),
        ("- respond: {headers: {Content-Type: application/x-own}}", "{n: 1}", "{status: 200}"),
    ],
)
def test_statuses_and_media_types_of_bindings_are_documented(
    tmp_path: Path, stack: str, request_: str, expect: str
) -> None:
    """What a step sets by a binding does not break the document, which has no name for it."""
    api = f"""\
method: GET
path: /x
responseType: json
inputParameters: {{n: {{type: integer, default: 400}}, t: {{type: text, default: own}}}}
functionStack:
  {stack}
response: {{a: 1}}
"""
    assert run_one(tmp_path, api, f"request: {{path: /x, query: {request_}}}\nexpect: {expect}") == ""


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


@pytest.mark.parametrize(
    ("status", "media", "fault"),
    [
        (200, "text/event-stream", ""),
        (418, "application/problem+json", "the status 418 is not documented: 200, "),
        (200, "text/x-odd", "the media type text/x-odd is not documented for the status 200"),
        (400, "text/event-stream", "the media type text/event-stream is not documented for the status 400"),
    ],
)
def test_undocumented_responses_fail(tmp_path: Path, status: int, media: str, fault: str) -> None:
    """A status and a media type that the document does not have are found."""
    write(tmp_path, API, "")
    edition = TestProject.read(tmp_path).edition({})
    endpoint = edition.endpoint("POST", "/chunks")
    assert endpoint is not None
    answer = ReceivedAnswer(
        status=status, headers=CIMultiDict({"Content-Type": media}), body=bytearray(b"\n"), whole=True
    )
    found = edition.contract.violations(endpoint, answer)
    assert [each[: len(fault)] for each in found] == ([fault] if fault else [])
