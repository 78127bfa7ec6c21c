"""How strictly inputs are checked: `inputs` of an endpoint and of the settings, from YAML to bytes on a socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from streamstack.functions import REGISTRY
from streamstack.language.project import read_project
from streamstack.server.app import serving_locally
from tests.server.declared import declared
from tests.server.serving import Reply

ENDPOINT = """
method: {method}
path: /s
responseType: json
inputs: {rules}
inputParameters:
  n: integer
  d: decimal
  b: boolean
  t: {{type: text, maxLength: 10}}
  when: timestamp
  mail: {{type: email, filters: [trim, lower]}}
  kind: {{type: enum, values: [red, 1], filters: [trim]}}
  tags: {{type: list, aliases: [labels], items: text}}
  o: {{type: object, properties: {{k: integer, l: {{type: integer, default: 4}}}}}}
  any: json
functionStack: []
response: '<< {{"sent": input | pick("n", "d", "b", "t", "mail", "kind", "tags", "o", "any") }} >>'
"""
FORM = "application/x-www-form-urlencoded"


async def ask(rules: str, body: Any, content_type: str = "application/json", method: str = "POST") -> Reply:
    """Ask an endpoint with these rules."""
    text = ENDPOINT.format(rules=rules, method=method)
    async with declared(text) as (server, _):
        if method == "GET":
            return await server.get(f"/s?{body}")
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await server.ask("POST", "/s", data, Content_Type=content_type)


def sent(reply: Reply) -> Any:
    """Return the inputs that are not null; the object is there in any case."""
    assert reply.status == 200, reply.body
    found = {name: value for name, value in json.loads(reply.body)["sent"].items() if value is not None}
    return {name: value for name, value in found.items() if (name, value) != ("o", {"k": None, "l": 4})}


def faults(reply: Reply) -> dict[str, str]:
    """Return the message of each fault by its name."""
    assert reply.status == 400, reply.body
    return {each["name"]: each["message"] for each in json.loads(reply.body)["errors"]}


@pytest.mark.parametrize(
    ("rules", "body", "expected"),
    [
        ("{convert: true}", {"n": "5", "d": "1.50", "b": "true", "t": 7}, {"n": 5, "d": 1.5, "b": True, "t": "7"}),
        ("{convert: true}", {"n": "", "b": 1, "t": "", "o": '{"k": "3"}'}, {"b": True, "t": "", "o": {"k": 3, "l": 4}}),
        ("{convert: true}", {"o": {"k": "3"}, "kind": "1"}, {"o": {"k": 3, "l": 4}, "kind": 1}),
        ("{convert: true}", {"tags": [1, True]}, {"tags": ["1", "true"]}),
        ("{convert: true}", {"any": "5", "tags": '["a"]'}, {"any": "5", "tags": ["a"]}),
        ("{nullMeansAbsent: true}", {"n": None, "o": {"k": None}, "any": None}, {}),
        ("{emptyMeansAbsent: true}", {"n": "", "t": "", "tags": "", "o": {"k": ""}}, {}),
        ("{unknown: ignore}", {"n": 1, "more": 2, "o": {"x": 1}}, {"n": 1}),
        ("{}", {"mail": " Ada@Example.com ", "kind": " red"}, {"mail": "ada@example.com", "kind": "red"}),
    ],
)  # fmt: skip
async def test_loose_rules(rules: str, body: Any, expected: Any) -> None:
    """What a rule allows is taken, converted to the declared type, at any depth."""
    assert sent(await ask(rules, body)) == expected


@pytest.mark.parametrize(
    ("rules", "body", "expected"),
    [
        ("{}", {"n": "5"}, {"n": "must be an integer, not a text"}),
        ("{}", {"n": None}, {"n": "must be an integer, not null"}),
        ("{}", {"more": 1}, {"more": "is not known here"}),
        ("{convert: true}", {"o": {"k": "x"}}, {"o.k": "must be an integer, not a text"}),
        ("{convert: true}", {"t": {"a": 1}}, {"t": "must be a text, not an object"}),
        ("{convert: true}", {"t": 12345678901}, {"t": "must have at most 10 characters"}),
        ("{nullMeansAbsent: true, emptyMeansAbsent: true}", {"n": "5"}, {"n": "must be an integer, not a text"}),
    ],
)  # fmt: skip
async def test_strict_where_no_rule_is_loose(rules: str, body: Any, expected: Any) -> None:
    """What no rule allows is refused, by name."""
    assert faults(await ask(rules, body)) == expected


@pytest.mark.parametrize(
    ("method", "body", "expected"),
    [
        ("GET", "tags[]=a&tags[]=b", ["a", "b"]),
        ("GET", "tags%5B%5D=a", ["a"]),
        ("GET", "tags[0]=a&tags[1]=b", ["a", "b"]),
        ("GET", "labels[]=a", ["a"]),
        ("GET", "tags=a&tags=b", ["a", "b"]),
        ("POST", b"tags[]=a&tags%5B%5D=b", ["a", "b"]),
        ("POST", b"tags[0]=a&tags[1]=b", ["a", "b"]),
    ],
)
async def test_lists_repeat_their_name(method: str, body: Any, expected: list[str]) -> None:
    """A list repeats its name, with or without brackets, in queries and forms."""
    assert sent(await ask("{}", body, FORM, method)) == {"tags": expected}


async def test_brackets_belong_to_lists() -> None:
    """Brackets behind the name of another type, and both spellings together, are refused."""
    no_list = {"n": "is sent as the item of a list, and is not one: write n=..."}
    assert faults(await ask("{}", b"n[]=1", FORM)) == faults(await ask("{}", b"n[0]=1", FORM)) == no_list
    assert faults(await ask("{}", b"tags=a&tags[]=b", FORM)) == {"tags[]": "is another name of tags: send one of them"}


@pytest.mark.parametrize(("text", "expected"), [("on", True), ("off", False), ("true", True), ("0", False)])
async def test_checkbox(text: str, expected: bool) -> None:  # noqa: FBT001
    """A form sends `on` for a checkbox."""
    assert sent(await ask("{}", f"b={text}".encode(), FORM)) == {"b": expected}


@pytest.mark.parametrize(
    ("head", "content", "expected"),
    [
        ('name="o"; filename="blob"\r\nContent-Type: application/json', '{"k": 3}', {"o": {"k": 3, "l": 4}}),
        ('name="o"; filename="o.json"\r\nContent-Type: application/json', '{"k": 3}', {"o": {"k": 3, "l": 4}}),
        ('name="o"\r\nContent-Type: application/vnd.api+json', '{"k": 3}', {"o": {"k": 3, "l": 4}}),
        ('name="t"; filename="blob"\r\nContent-Type: text/plain', "hi", {"t": "hi"}),
        ('name="tags[]"', "a", {"tags": ["a"]}),
        ('name="tags[0]"', "a", {"tags": ["a"]}),
    ],
)
async def test_parts_of_a_form(head: str, content: str, expected: Any) -> None:
    """A part that says it is JSON is JSON, and a Blob of text a text, whatever name a browser makes up for them."""
    body = f"--B\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n--B--\r\n".encode()
    assert sent(await ask("{}", body, "multipart/form-data; boundary=B")) == expected


@pytest.mark.parametrize(
    ("content_type", "told"),
    [
        ("multipart/form-data", "must have a boundary in its Content-Type: let the client write that header"),
        (
            "multipart/form-data; boundary=C",
            "begins with another boundary than its Content-Type names: let the client write that header with the body",
        ),
    ],
)
async def test_boundaries_are_named(content_type: str, told: str) -> None:
    """A form without a boundary, or with another one than its header names, gets an error that says so."""
    body = b'--B\r\nContent-Disposition: form-data; name="t"\r\n\r\na\r\n--B--\r\n'
    assert faults(await ask("{}", body, content_type)) == {"": told}


async def test_settings_are_defaults_of_endpoints(tmp_path: Path) -> None:
    """Endpoints take the rules of the settings, and change single ones; `unknownInputs` is short for one."""
    (tmp_path / "streamstack.yaml").write_text("inputs: {convert: true, unknown: ignore, nullMeansAbsent: true}\n")
    head = "method: POST\nresponseType: json\nfunctionStack: []\nresponse: 1\n"
    (tmp_path / "a.yaml").write_text(
        f"{head}path: /a\ninputs: {{convert: false}}\n---\n{head}path: /b\nunknownInputs: refuse\n---\n{head}path: /c\n"
        "inputs: {unknown: ignore}\nunknownInputs: refuse\n"
    )
    checked = read_project(tmp_path, REGISTRY, {})
    rules = {each.path: each.input_rules for each in checked.project.endpoints}
    assert {path: (each.convert, each.unknown, each.null_means_absent) for path, each in rules.items()} == {
        "/a": (False, "ignore", True),
        "/b": (True, "refuse", True),
    }
    assert [(each.code, each.message) for each in checked.findings] == [
        ("conflicting-parameters", "`unknownInputs` contradicts `unknown` of `inputs`")
    ]


SENT = """
method: {method}
path: /s/{{id}}
responseType: json
inputParameters:
  id: integer
  a: {{type: integer, default: 1, aliases: [x]}}
  b: {{type: text, nullable: true}}
  h: {{type: text, in: header, aliases: [x-h]}}
  o: {{type: object, properties: {{k: integer, l: {{type: integer, default: 4}}, deep: {{type: object, properties: {{m: integer}}}}}}}}
  l: {{type: list, items: {{type: object, properties: {{k: integer, l: integer}}}}}}
functionStack:
  - if: {{condition: << "a" in sent >>, then: [{{set: {{has: true}}}}], else: [{{set: {{has: false}}}}]}}
  - forEach: {{in: [1], do: [{{set: {{inner: << sent.b >>}}}}]}}
response: '<< {{"sent": sent, "keys": sent | keys, "has": has, "inner": inner}} >>'
"""  # noqa: E501


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {}),
        ({"x": 5, "b": "y"}, {"a": 5, "b": "y"}),
        ({"o": {}}, {"o": {}}),
        ({"o": {"k": 1}}, {"o": {"k": 1}}),
        ({"o": {"deep": {}}}, {"o": {"deep": {}}}),
        ({"l": [{"k": 1}, {"l": 2}]}, {"l": [{"k": 1}, {"l": 2}]}),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_sent_is_what_was_sent(method: str, body: Any, expected: Any) -> None:
    """`sent` has what the client sent, converted, by declared names, at any depth; no path, no defaults."""
    async with declared(SENT.format(method=method)) as (server, _):
        if method == "POST":
            reply = await server.ask("POST", "/s/7", json.dumps(body).encode(), Content_Type="application/json")
        else:
            repeated = [(name, one) for name, value in body.items() for one in (value if name == "l" else [value])]
            texts = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in repeated]
            reply = await server.get(f"/s/7?{urlencode(texts)}")
        told = json.loads(reply.body)
        assert (told["sent"], told["keys"], told["has"]) == (expected, list(expected), "a" in expected), told
        assert told["inner"] == expected.get("b")


async def test_null_that_is_sent_is_in_sent() -> None:
    """A PATCH that sets a column to null sends null."""
    async with declared(SENT.format(method="POST")) as (server, _):
        reply = await server.ask("POST", "/s/7", b'{"b": null}', Content_Type="application/json", x_h="y")
        assert json.loads(reply.body)["sent"] == {"b": None, "h": "y"}


def test_sent_of_a_function_is_what_it_is_given(tmp_path: Path) -> None:
    """Where one stack calls another, `sent` has what stands under `with`."""
    (tmp_path / "a.yaml").write_text(
        """
method: GET
path: /s
responseType: json
inputParameters: {a: integer}
functionStack:
  - call: {function: f, with: {a: << input.a >>}}
    as: found
response: << found >>
---
kind: function
name: f
inputParameters: {a: integer, b: {type: integer, default: 2}}
functionStack: [return: << sent >>]
"""
    )
    with serving_locally(read_project(tmp_path, REGISTRY, {}), {}) as url, urlopen(f"{url}/s?a=5") as reply:  # noqa: S310
        assert json.load(reply) == {"a": 5}


@pytest.mark.parametrize(
    ("read", "message"),
    [
        ("sent.more", "`sent` has no `more`"),
        ("sent.id", "`sent` has no `id`, which is in the path"),
        ("sent.o.x", "`sent.o` has no `x`"),
    ],
)
def test_sent_is_analysed(tmp_path: Path, read: str, message: str) -> None:
    """What `sent` never has is found at load."""
    text = "method: POST\npath: /s/{id}\nresponseType: json\ninputParameters:\n  id: integer\n"
    text += f"  o: {{properties: {{k: integer}}}}\nfunctionStack: [return: << {read} >>]\n"
    (tmp_path / "a.yaml").write_text(text)
    found = read_project(tmp_path, REGISTRY, {}).findings
    assert [each.message for each in found if each.code == "unknown-property"] == [message]
