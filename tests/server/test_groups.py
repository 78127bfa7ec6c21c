"""Groups: what the endpoints of a folder have in common, from the file to the bytes on a socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamstack.functions import REGISTRY
from streamstack.language.project import validate
from streamstack.language.settings import Streaming
from tests.server.authenticating import BY_SECRET, claims, project, signed

FILES = {
    "api/group.yaml": """
kind: group
path: /api/{tenant}
authentication: jwt
rateLimit: 2/minute
headers: {X-Api: outer, X-Kept: "1"}
streaming: {format: ndjson, done: false}
before: [{function: find, with: {name: << input.tenant >>}, as: found}]
after: record
""",
    "api/functions.yaml": """
kind: function
name: find
inputParameters: {name: {type: text, required: true}}
functionStack:
  - precondition: {that: '<< input.name != "bad" >>', code: bad-tenant, status: 403}
  - return: found <<input.name>> for <<auth.sub>>
---
kind: function
name: record
functionStack: [{counter.add: {key: <<run.outcome>>}}]
""",
    "api/a.yaml": """
method: GET
path: /a
inputParameters: {tenant: text}
functionStack: [{stream: <<found>>}]
""",
    "api/inner/group.yaml": """
kind: group
path: /inner
authentication: none
headers: {x-api: inner}
rateLimit: none
before: none
""",
    "api/inner/deep/b.yaml": """
method: GET
path: /
inputParameters: {tenant: text}
streaming: {done: true, format: sse}
functionStack: [{stream: b}]
""",
    "count.yaml": """
method: GET
path: /count/{of}
responseType: json
inputParameters: {of: text}
functionStack: [{counter.add: {key: <<input.of>>, by: 0}, as: n}, {return: <<n>>}]
""",
}


def findings(**changes: str) -> list[str]:
    """Return the findings of the files with some changed: `api_group` is api/group.yaml."""
    files = FILES | {f"{name.replace('_', '/')}.yaml": text for name, text in changes.items()}
    _, found = validate(files, REGISTRY, Streaming(), None, {"authentication": ("jwt",)})
    return [f"{each.mark} {each.code}: {each.message}" for each in found]


async def test_a_folder_shares_its_keys(tmp_path: Path) -> None:
    """Prefixes join, the nearest group and the endpoint itself win, headers and `streaming` are merged."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    token = {"Authorization": f"Bearer {signed(claims())}"}
    async with project(tmp_path, BY_SECRET, FILES["count.yaml"].replace("/count", "/counts")) as server:
        assert (await server.get("/api/x/a")).status == 401
        reply = await server.get("/api/x/a", **token)
        assert (reply.status, reply.body) == (200, b'"found x for ada"\n')
        assert [reply.headers[each] for each in ("x-api", "x-kept")] == ["outer", "1"]
        refused = await server.get("/api/bad/a", **token)
        assert (refused.status, json.loads(refused.body)["code"]) == (403, "bad-tenant")
        assert (await server.get("/api/x/a", **token)).status == 429
        for _ in range(3):
            inner = await server.get("/api/x/inner")
            assert inner.status == 200
        assert inner.body.startswith(b"data: b\n")
        assert b"event: done" in inner.body
        assert [inner.headers[each] for each in ("x-api", "x-kept")] == ["inner", "1"]
        # `after` is inherited where the nearest group does not have it; refused requests have no run.
        assert [(await server.get(f"/count/{each}")).body for each in ("completed", "failed")] == [b"4", b"1"]


def test_a_sound_project_has_no_findings() -> None:
    """Not every endpoint has to read what `before` binds."""
    assert findings() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"api_group": "kind: group\nauthentication: jwtt\nbefore: [nope]\nafter: {function: find}\n"},
            [
                "api/a.yaml:5:28 unbound-name: `found` is not bound",
                "api/group.yaml:2:17 unknown-authentication: the settings have no authentication `jwtt`",
                "api/group.yaml:3:10 unknown-function: the project has no function `nope`",
                "api/group.yaml:4:8 missing-parameter: the function `find` needs the input `name`",
            ],
        ),
        (
            {
                "api_group": "kind: group\nrateLimt: 1/day\nbefore: [{functon: record}]\n"
                "headers: {Connection: a}\nstreaming: 1"
            },
            [
                "api/group.yaml:2:1 unknown-key: unknown key `rateLimt` in a group",
                "api/group.yaml:3:11 unknown-key: unknown key `functon` in `before`",
                "api/group.yaml:4:11 bad-name: the header `Connection` can't be set: HTTP itself needs it",
                "api/group.yaml:5:12 wrong-type: `streaming` of a group must be a mapping, not the integer 1",
            ],
        ),
        (
            {"api_more": "kind: group\npath: /x\n"},
            ["api/more.yaml:1:1 duplicate-name: the folder `api` has a group in api/group.yaml:2:1 too"],
        ),
        (
            {"api_a": "method: GET\npath: /{tenant}\ninputParameters: {tenant: text}\nfunctionStack: [{stream: 1}]"},
            ["api/a.yaml:2:7 bad-path: with the prefix of its group: the path names the parameter `tenant` twice"],
        ),
        (
            {"api_a": "method: GET\npath: /a\nfunctionStack: [{stream: 1}]"},
            ["api/a.yaml:2:7 undeclared-path-parameter: ", "api/group.yaml:8:49 unknown-property: "],
        ),
    ],
)
def test_findings_of_groups(changes: dict[str, str], expected: list[str]) -> None:
    """What is wrong with a group is reported once, in its file, with or without endpoints."""
    found = findings(**changes)
    assert len(found) == len(expected), found
    assert all(one.startswith(each) for one, each in zip(found, expected, strict=True)), found
