"""`/_openapi.json`: who may read it; and odd streams, against the document that is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamstack.formats import BY_MEDIA_TYPE
from streamstack.functions import REGISTRY
from streamstack.language.openapi.document import make_document
from streamstack.language.project import validate
from streamstack.language.settings import Settings, Streaming
from tests.contract import Contract
from tests.server.declarations import HELLO
from tests.server.declared import declared
from tests.server.processes import serving


@pytest.mark.parametrize(
    ("settings", "dev", "forwarded", "status"),
    [
        ("", True, False, 200),
        ("", True, True, 404),
        ("", False, False, 404),
        ("server: {openapi: true}", False, True, 200),
        ("server: {openapi: {serve: false}}", True, False, 404),
    ],
)
async def test_the_document_is_served(tmp_path: Path, settings: str, dev: bool, forwarded: bool, status: int) -> None:  # noqa: FBT001
    """With `--dev` to this machine only; to all if the settings say so."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    (tmp_path / "streamstack.yaml").write_text(settings)
    async with serving(tmp_path, *(["--dev"] if dev else [])) as server:
        extra = "X-Forwarded-For: 203.0.113.7\r\n" if forwarded else ""
        reply = await server.ask("GET", "/_openapi.json", extra=extra)
        assert reply.status == status
        if status == 200:
            assert list(json.loads(reply.body)["paths"]) == ["/hello"]
            assert reply.headers["content-type"].startswith("application/json")
            assert (await server.ask("POST", "/_openapi.json", extra=extra)).status == 405


#: Streams in which something is unusual.
ODD = """
path: /names
method: GET
inputParameters: {n: {type: text, default: error}}
functionStack:
  - stream: {content: {a: 1}, event: << input.n >>, metadata: {m: 1}}
  - stream: {content: plain, event: done}
  - stream: {content: << "a" if stream.count else 1 >>, event: 'x-<< stream.count >>'}
---
path: /ids
method: GET
functionStack:
  - stream: {content: a, id: mine}
  - stream: {content: [1, null, 2.5]}
  - done: {content: END, metadata: {left: << none >>}}
---
path: /ended
method: GET
streaming: {done: false, ids: false}
functionStack:
  - stream: {content: << now() >>, event: message}
  - stream: {content: << today() >>}
  - done: text
---
path: /fails
method: GET
streaming: {resume: true}
functionStack:
  - stream: {content: {deep: [{a: {b: 1}}], any: << request.query >>}}
  - throw: {code: broken, status: 418}
---
path: /records
method: GET
functionStack:
  - stream: {content: '<< [{"a": 1}, {"a": 2, "b": true}] >>', split: {by: records}}
---
path: /html
method: GET
streaming: {format: text}
headers: {Content-Type: text/html}
functionStack:
  - stream: <p>
---
path: /value
method: GET
responseType: json
functionStack:
  - return: {at: << now() >>, list: [1, a], none: << none >>}
"""


async def test_odd_streams_are_as_their_document_says() -> None:
    """Names of the stream's own events, ids of the author's, values of several types, failures, in each format."""
    project, findings = validate({"a.yaml": ODD}, REGISTRY, Streaming())
    assert [each for each in findings if each.severity == "error"] == []
    contract = Contract(make_document(project, Settings()).document)
    async with declared(ODD) as (server, _):
        for path, item in contract.document["paths"].items():
            if path.startswith("/_"):
                continue
            media = item["get"]["responses"]["200"]["content"]
            for accept in [each for each in media if each in BY_MEDIA_TYPE] or ["*/*"]:
                if (path, accept) in {("/records", "text/csv"), ("/names", "text/csv")}:
                    continue  # rows need the same columns
                reply = await server.get(path, Accept=accept)
                assert reply.status == (418 if (path, accept) == ("/fails", "application/json") else 200), reply.body
                assert contract.check("GET", path, reply) > 0, (path, accept)


def test_a_reply_that_breaks_the_contract_is_found() -> None:
    """The check itself: a wrong type of what the data of an event holds."""
    project, _ = validate({"a.yaml": ODD}, REGISTRY, Streaming())
    contract = Contract(make_document(project, Settings()).document)
    schema = contract.document["paths"]["/fails"]["get"]["responses"]["200"]["content"]["text/event-stream"][
        "itemSchema"
    ]
    good = {"data": '{"deep":[{"a":{"b":1}}],"any":{}}', "id": "a/0"}
    assert contract.fits(schema, good) == []
    for bad in (
        {**good, "data": '{"deep":[{"a":{"b":"1"}}],"any":{}}'},
        {**good, "data": "text"},
        {**good, "event": "other"},
        {"data": good["data"]},
        {"event": "error", "data": "{}"},
    ):
        assert contract.fits(schema, bad) != []
