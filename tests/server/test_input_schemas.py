"""JSON Schemas of inputs and of upstreams' responses, over a real socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.authenticating import project
from tests.server.test_inputs import faults_of, served
from tests.upstreams import Upstream, answer

ORDER = """
  order:
    type: json
    schema:
      type: object
      required: [items]
      additionalProperties: false
      properties:
        items:
          type: array
          items: {type: object, required: [id], properties: {id: {type: integer}, price: {type: number, minimum: 0}}}
        note: {type: string, pattern: "^(a+)+$"}
  exact: decimal
"""


@pytest.mark.parametrize(
    ("order", "faults"),
    [
        ({"items": [{"id": 1, "price": 1.25}], "note": "aa"}, []),
        (
            {"items": [{"id": 1}, {"id": "1"}, {"price": -1}], "itms": 1},
            [
                ("order.itms", "is not known here, did you mean `items`?"),
                ("order.items[1].id", "must be an integer, not a text"),
                ("order.items[2].id", "is required"),
                ("order.items[2].price", "must be at least 0"),
            ],
        ),
        ([], [("order", "must be an object, not a list")]),
        (None, [("order", "must be an object, not null")]),
        ({"items": [], "note": "a" * 9_000 + "b"}, [("order.note", "must match the pattern ^(a+)+$")]),
        ({"items": [{}] * 500}, [(f"order.items[{n}].id", "is required") for n in range(50)]),
    ],
)
async def test_a_body_is_checked_by_its_schema(order: Any, faults: list[tuple[str, str]]) -> None:
    """One 400 names each fault by its path, beside a decimal that makes the body be read exactly, and in a form."""
    async with served(ORDER) as server:
        for body in ({"order": order}, {"order": order, "exact": 1.10}):
            reply = await server.ask("POST", "/s", json.dumps(body).encode(), Content_Type="application/json")
            if faults:
                assert [each[1:] for each in faults_of(reply)] == faults
            else:
                assert json.loads(reply.body)["input"]["order"] == order
        if order is not None:
            form = f"order={json.dumps(order)}".encode()
            reply = await server.ask("POST", "/s", form, Content_Type="application/x-www-form-urlencoded")
            assert [each[1:] for each in faults_of(reply)] == faults if faults else reply.status == 200


CALL = """
method: GET
path: /s
responseType: json
functionStack:
  - http.request: {url: "%s", expect: {type: object, required: [name], properties: {name: {type: string}}}}
    as: reply
  - return: << reply.body.name >>
"""
STREAM = """
method: GET
path: /s
responseType: json
functionStack:
  - http.stream: {url: "%s", onInvalid: ACTION, expect: {type: object, properties: {n: {type: integer}}}}
    as: items
  - collect: << items >>
    as: all
  - return: << [all, items.skipped] >>
"""


@pytest.mark.parametrize(("body", "status"), [('{"name": "Ada"}', 200), ('{"name": 5}', 502), ("[1]", 502), ("", 502)])
async def test_a_response_is_checked_by_its_schema(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], body: str, status: int
) -> None:
    """What does not match `expect` is a 502; the client is not told what the upstream sent, the log is."""
    async with (
        Upstream(answer(body, "Content-Type: application/json")) as upstream,
        project(tmp_path, "{}", CALL % upstream.url, {}) as server,
    ):
        reply = await server.ask("GET", "/s")
    assert reply.status == status
    logged = "".join(capfd.readouterr())
    if status == 200:
        assert reply.body == b'"Ada"'
    else:
        problem = json.loads(reply.body)
        assert problem["code"] == "invalid-chunk"
        assert problem["detail"] == "the answer of 127.0.0.1 is not what was expected"
        assert "name must be a text, not an integer" in logged or "the body must be an object" in logged


EVENTS = ("Content-Type: text/event-stream", 'data: {"n": 1}\n\ndata: {"n": "x"}\n\ndata: {"n": 3}\n\n')
LINES = ("Content-Type: application/x-ndjson", '{"n": 1}\n{"n": "x"}\n{"n": 3}\n')


@pytest.mark.parametrize("format_", [EVENTS, LINES])
@pytest.mark.parametrize("action", ["fail", "skip", "give"])
async def test_items_are_checked_by_their_schema(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], format_: tuple[str, str], action: str
) -> None:
    """An item that does not match is an invalid chunk, with its number, and `onInvalid` says what becomes of it."""
    media, body = format_
    async with (
        Upstream(answer(body, media)) as upstream,
        project(tmp_path, "{}", (STREAM % upstream.url).replace("ACTION", action), {}) as server,
    ):
        reply = await server.ask("GET", "/s")
    document = json.loads(reply.body)
    if action == "fail":
        assert (reply.status, document["code"]) == (502, "invalid-chunk")
        assert document["detail"] == "chunk 2 of the stream is not what was expected"
        assert "n must be an integer, not a text" in "".join(capfd.readouterr())
        return
    items, skipped = document
    assert [each.get("data", each).get("n") for each in items] == ([1, 3] if action == "skip" else [1, None, 3])
    assert skipped == (1 if action == "skip" else 0)
    if action == "give":
        invalid = items[1]["invalid"]
        assert (invalid["number"], invalid["faults"]) == (2, ["n must be an integer, not a text"])
