"""OpenAPI documents: what endpoints declare, and what is inferred of what they send."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, OpenAPIV32SpecValidator

from streamstack.functions import REGISTRY
from streamstack.language.openapi.changes import compare
from streamstack.language.openapi.document import Api, make_document
from streamstack.language.project import names_of, validate
from streamstack.language.settings import load_settings
from tests.contract import Contract

VALIDATORS = {"3.1": OpenAPIV31SpecValidator, "3.2": OpenAPIV32SpecValidator}
SETTINGS = """
server: {openapi: {title: Shop, version: 2.0.1, url: https://example.org/v1/, description: All of it}}
authentication:
  jwt: {type: jwt, secret: a-secret-of-the-tests-that-is-long-enough, from: [header, {cookie: token}, {query: t}]}
  cookie: {type: jwt, secret: a-secret-of-the-tests-that-is-long-enough, from: {cookie: c}}
  keys: {type: apiKey, keys: ['sha256:%s']}
""" % ("0" * 64)


def make(text: str, version: str = "3.2", settings: str = "") -> Api:
    """Return the document of endpoints; each is valid OpenAPI of its version."""
    read, found = load_settings(settings or None, "streamstack.yaml", {})
    assert [each for each in found if each.severity == "error"] == []
    project, findings = validate({"a.yaml": dedent(text)}, REGISTRY, read.streaming, None, names_of(read))
    assert [each for each in findings if each.severity == "error"] == []
    api = make_document(project, read, version)
    assert list(VALIDATORS[version](api.document).iter_errors()) == []
    return api


def endpoint(keys: str, stack: str = "[{stream: x}]") -> str:
    """Return an endpoint at POST /a with further keys."""
    return f"method: POST\npath: /a\n{dedent(keys)}\nfunctionStack: {stack}\n"


def operation(keys: str, stack: str = "[{stream: x}]", settings: str = "", version: str = "3.2") -> Any:
    """Return the operation of an endpoint, with its references followed once."""
    contract = Contract(make(endpoint(keys, stack), version, settings).document)
    found = next(each for path, each in contract.document["paths"].items() if not path.startswith("/_"))
    found = dict(next(iter(found.values())))
    found["responses"] = {status: contract.resolve(each) for status, each in found["responses"].items()}
    found["parameters"] = [contract.resolve(each) for each in found.get("parameters", ())]
    return found


SHOWN = {"format", "minimum", "maximum", "maxItems", "pattern", "default", "enum", "const", "contentMediaType"}


def brief(schema: Any) -> str:
    """Return a schema in one line: `{a: integer, b?: string|null}`."""
    if not isinstance(schema, dict):
        return str(schema)
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for keyword, sign in (("anyOf", " or "), ("allOf", " and ")):
        if keyword in schema:
            return sign.join(map(brief, schema[keyword]))
    if "contentSchema" in schema:
        return f"json({brief(schema['contentSchema'])})"
    types = schema.get("type", [])
    text = "|".join([types] if isinstance(types, str) else types)
    if "properties" in schema:
        required = schema.get("required", ())
        fields = [
            f"{name}{'' if name in required else '?'}: {brief(each)}" for name, each in schema["properties"].items()
        ]
        open_ = [] if schema.get("additionalProperties", True) is False else ["..."]
        text = "{" + ", ".join([*fields, *open_]) + "}"
    elif "items" in schema:
        text = f"[{brief(schema['items'])}]"
    shown = {
        key: each
        for key, each in schema.items()
        if key
        in ("format", "minimum", "maximum", "maxItems", "pattern", "default", "enum", "const", "contentMediaType")
    }
    if (shown.get("minimum"), shown.get("maximum")) == (-(2**63), 2**63 - 1):
        shown = {"format": "int64"}
    return text + (f"({', '.join(f'{key} {each}' for key, each in shown.items())})" if shown else "")


# ------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize(
    ("declared", "place", "schema", "description"),
    [
        ("{type: integer}", "query", "integer(format int64)", None),
        (
            "{type: integer, minimum: 1, maximum: 9, default: 2, description: How many.}",
            "query",
            "integer(minimum 1, maximum 9, default 2, format int64)",
            "How many",
        ),
        ("{type: uuid, required: true}", "header", "string(format uuid)", None),
        (
            "{type: text, pattern: '^a+$', aliases: [y, z]}",
            "cookie",
            "string(pattern ^a+$)",
            "Also accepted as `y`, `z`",
        ),
        ("{type: enum, values: [1, a], nullable: true}", "query", "(enum [1, 'a', None])", None),
        ("{type: list, items: {type: date}, maxItems: 3}", "query", "[string(format date)](maxItems 3)", None),
        ("{type: list, items: {type: object}}", "query", "[json(object)]", None),
        ("{type: object, properties: {b: boolean}}", "query", "json {b?: boolean}", None),
        ("{type: json, schema: {type: array, maxItems: 2}}", "header", "json array(maxItems 2)", None),
    ],
)
def test_inputs_outside_of_the_body_are_parameters(
    declared: str, place: str, schema: str, description: str | None
) -> None:
    """With type, bounds, default and description; values other than texts are JSON."""
    (found,) = operation(f"inputParameters: {{x: {declared[:-1]}, in: {place}}}}}")["parameters"]
    assert (found["name"], found["in"], found.get("description")) == ("x", place, description)
    assert found["required"] is ("required: true" in declared)
    inner = found.get("content", {}).get("application/json")
    assert (brief(found["schema"]) if inner is None else f"json {brief(inner['schema'])}") == schema


@pytest.mark.parametrize(
    ("declared", "empty"),
    [
        ("type: integer", True),
        ("type: text", False),
        ("type: integer, required: true", False),
        ('type: enum, values: ["", b]', False),
        ("type: list, items: integer", True),
        ("type: list, items: text", False),
    ],
)
def test_parameters_whose_empty_text_counts_as_not_sent_allow_it(declared: str, empty: object) -> None:
    """The document allows what the server takes: `?a=`."""
    (found,) = operation(f"inputParameters: {{a: {{in: query, {declared}}}}}")["parameters"]
    assert found.get("allowEmptyValue", False) is empty


def test_patterns_of_re2_are_told_in_words() -> None:
    """JSON Schema has another syntax."""
    (found,) = operation("inputParameters: {x: {type: text, in: query, pattern: '(?i)^a'}}")["parameters"]
    assert found["schema"] == {"type": "string", "description": "It matches the RE2 pattern (?i)^a"}


def test_parameters_of_the_path_are_required() -> None:
    """One that takes the rest of the path has a plain name in the document."""
    inputs = "inputParameters: {id: integer, day: date, rest: text}"
    document = make(endpoint(inputs).replace("/a", "/{id}/x-{day}/{rest:path}")).document
    ((path, item),) = document["paths"].items()
    assert path == "/{id}/x-{day}/{rest}"
    assert item["post"]["operationId"] == "postByIdXByDayByRest"
    found = item["post"]["parameters"]
    assert [(each["name"], each["in"], each["required"]) for each in found] == [
        ("id", "path", True),
        ("day", "path", True),
        ("rest", "path", True),
    ]
    assert found[2]["description"] == "It may contain slashes"


JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"


@pytest.mark.parametrize(
    ("inputs", "required", "content"),
    [
        (
            "{a: text, b: {type: integer, minimum: 1, maximum: 9, required: true}}",
            True,
            dict.fromkeys((JSON, FORM), "{a?: string, b: integer(minimum 1, maximum 9, format int64)}"),
        ),
        ("{a: {type: object, properties: {b: text}}, c: json}", False, {JSON: "{a?: {b?: string}, c?: }"}),
        ("{a: {type: text, in: wholeBody, required: true}}", True, dict.fromkeys((JSON, "text/plain"), "string")),
        ("{a: {type: stream, decode: csv, required: true}}", True, {"text/csv": ""}),
        ("{a: {type: stream, decode: ndjson}}", False, {"application/x-ndjson": ""}),
        (
            "{a: {type: file, required: true, maxSize: 1MB, contentTypes: [a/b, c/d]}, o: object}",
            True,
            {MULTIPART: "{o?: object, a: string(format binary, contentMediaType application/octet-stream)}"},
        ),
        (
            "{a: {type: list, items: {type: file, contentTypes: [a/b]}, maxItems: 2}, o: text}",
            False,
            {
                **dict.fromkeys((JSON, FORM), "{o?: string}"),
                MULTIPART: "{o?: string, a?: [string(format binary, contentMediaType a/b)](maxItems 2)}",
            },
        ),
    ],
)
@pytest.mark.parametrize("unknown", ["refuse", "ignore"])
def test_inputs_in_the_body_are_the_request_body(
    inputs: str, required: object, content: dict[str, str], unknown: str
) -> None:
    """JSON, a form where it is flat, multipart where there are files, the body as a whole, or a stream."""
    found = operation(f"unknownInputs: {unknown}\ninputParameters: {inputs}")["requestBody"]
    assert found["required"] is required
    schemas = {media: brief(each.get("schema", {})) for media, each in found["content"].items()}
    assert schemas == {
        media: each.replace("}", ", ...}") if unknown == "ignore" else each for media, each in content.items()
    }
    encoding = found["content"].get(MULTIPART, {}).get("encoding")
    if "o: object" in inputs:
        assert encoding == {"o": {"contentType": JSON}, "a": {"contentType": "a/b, c/d"}}


@pytest.mark.parametrize(
    ("authentication", "security"),
    [
        ("jwt", [{"jwt": []}, {"jwt-cookie-token": []}, {"jwt-query-t": []}]),
        ("{keys: {scopes: [a, b]}}", [{"keys": ["a", "b"]}]),
        ("[keys, {cookie: {scopes: [a], optional: true}}]", [{"keys": []}, {"cookie": ["a"]}, {}]),
    ],
)
def test_authentication_is_security(authentication: str, security: list[Any]) -> None:
    """One scheme for each place of the credentials; a public operation has none."""
    found = operation(f"authentication: {authentication}", settings=SETTINGS)
    assert found["security"] == security
    assert "WWW-Authenticate" in found["responses"]["401"]["headers"]
    assert operation("")["security"] == []


def test_settings_describe_the_api() -> None:
    """Title, version, description and base URL; the schemes stand where they are used."""
    document = make(
        endpoint("{authentication: jwt, tags: [b, a]}"[1:-1].replace(", t", "\nt")), settings=SETTINGS
    ).document
    assert document["info"] == {"title": "Shop", "version": "2.0.1", "description": "All of it"}
    assert document["servers"] == [{"url": "https://example.org/v1"}]
    assert document["tags"] == [{"name": "a"}, {"name": "b"}]
    assert document["components"]["securitySchemes"] == {
        "jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "jwt-cookie-token": {"type": "apiKey", "in": "cookie", "name": "token"},
        "jwt-query-t": {"type": "apiKey", "in": "query", "name": "t"},
    }


# ----------------------------------------------------------------------------------------- responses


SSE, NDJSON, JSONL = "text/event-stream", "application/x-ndjson", "application/jsonl"


@pytest.mark.parametrize(
    ("keys", "media"),
    [
        ("", [SSE, NDJSON, JSONL, "text/plain", "text/csv", JSON]),
        ("streaming: {format: sse}", [SSE]),
        ("streaming: {format: json}", [JSON]),
        ("streaming: {format: bytes}", ["application/octet-stream"]),
        ("streaming: {format: text}\nheaders: {Content-Type: text/html}", ["text/html"]),
        ("streaming: {format: openai}", [SSE, JSON]),
        ("streaming: {format: anthropic}", [SSE, JSON]),
        ("streaming: {format: aiSdk}", [SSE]),
        ("responseType: json\nresponse: 1", [JSON]),
    ],
)
def test_formats_are_media_types(keys: str, media: list[str]) -> None:
    """All that a request can choose among, or the fixed one; 3.1 has no schemas of items."""
    stack = "[{log: a}]" if "json\n" in keys else "[{stream: x}]"
    for version in VALIDATORS:
        found = operation(keys, stack, version=version)["responses"]
        content = found["200"]["content"]
        assert sorted(content) == sorted(media)
        items = [each for each, inner in content.items() if "itemSchema" in inner]
        assert items == ([each for each in content if each in (SSE, NDJSON, JSONL)] if version == "3.2" else [])
        assert ("406" in found) is (keys == "")


@pytest.mark.parametrize(
    ("stack", "status", "description"),
    [
        ("{throw: {code: no-ink, message: Buy some, status: 507}}", 507, "`no-ink`: Buy some"),
        ("{throw: not-found}", 404, "`not-found`."),
        (
            "{precondition: {that: << run.id == 'a' >>, code: late, status: 410}}",
            410,
            "`late`: A precondition of this request is not met.",
        ),
        ("{try: {do: [{throw: {code: a, status: 418}}], catch: {do: [{log: x}]}}}", 418, None),
        ("{try: {do: [{throw: {code: a, status: 418}}], catch: {on: [b], do: [{log: x}]}}}", 418, "`a`."),
        ("{http.request: 'https://example.org'}", 502, "An upstream failed, or sent something that can't be read."),
        ("{log: x}", 502, None),
        ("{log: x}", 409, None),
        ("{log: x}", 500, "The server could not complete the request."),
        ("{db.execute: DELETE FROM a}", 409, "The run was stopped, or the database has a conflicting row."),
    ],
)
def test_errors_that_can_happen_are_responses(stack: str, status: int, description: str | None) -> None:
    """Those that steps throw and do not catch, and those of the functions; no others."""
    responses = operation(
        "allow: [unreachable]", f"[{stack}, {{stream: x}}]".replace("[{throw", "[{stream: x}, {throw")
    )["responses"]
    assert responses.get(str(status), {}).get("description") == description


def test_resumable_endpoints_have_a_path_to_resume_and_cancel() -> None:
    """With ids, keys and gaps; a POST takes Idempotency-Key."""
    found = operation("streaming: {resume: true}\nrateLimit: 5/minute")
    assert [each["name"] for each in found["parameters"]] == ["Last-Event-ID", "lastEventId", "Idempotency-Key"]
    assert {"204", "404", "422", "429"} <= found["responses"].keys()
    assert {"X-Stream-Id", "RateLimit-Limit"} <= found["responses"]["200"]["headers"].keys()
    document = make(endpoint("streaming: {resume: true}")).document
    streams = document["paths"]["/_streams/{id}"]
    assert sorted(streams) == ["delete", "get", "parameters"]
    assert list(streams["get"]["responses"]["200"]["content"]) == [
        "text/event-stream",
        "application/x-ndjson",
        "application/jsonl",
    ]
    assert "/_streams/{id}" not in make(endpoint("")).document["paths"]


def test_cached_endpoints_can_answer_304() -> None:
    """Where an answer is sent in one piece; others tell their age alone."""
    text = "method: GET\npath: /a\ncache: 5m\nstreaming: {{format: {}}}\nfunctionStack: [{{stream: x}}]\n"
    for format_, validated in (("auto", True), ("json", True), ("sse", False)):
        responses = make(text.format(format_)).document["paths"]["/a"]["get"]["responses"]
        assert ("304" in responses, "ETag" in responses["200"]["headers"]) == (validated, validated)
        assert {"Age", "Cache-Status"} <= responses["200"]["headers"].keys()


def test_respond_sets_statuses_and_headers() -> None:
    """Always, or sometimes."""
    always = operation("", "[{respond: {status: 201, headers: {X-A: b}}}, {stream: x}]")["responses"]
    sometimes = operation("", "[{respond: {status: 206}, when: << run.id == 'a' >>}, {stream: x}]")["responses"]
    assert [status for status in always if status < "3"] == ["201"]
    assert "X-A" in always["201"]["headers"]
    assert [status for status in sometimes if status < "3"] == ["200", "206"]


# ------------------------------------------------------------------------------------------- emissions


READ = "{csv.read: {from: 'a,b', onInvalid: give}, as: r}, "
COMPUTED = "{c: {op: count}, m: {op: mean}, l: {op: last}}"
WINDOW = f"{{streams.window: {{in: << range(input.n) >>, by: << item >>, compute: {COMPUTED}}}, as: w}}, "
FIGURES = "chunks: integer(minimum 0), elapsedMs: integer(minimum 0), dropped?: integer(minimum 0)"


def events(text: str) -> dict[str, str]:
    """Return the data of the events of GET /a, by name."""
    contract = Contract(make(text).document)
    item = contract.document["paths"]["/a"]["get"]["responses"]["200"]["content"][SSE]["itemSchema"]
    found = {}
    for branch in map(contract.resolve, item["oneOf"]):
        data = branch["properties"]["data"]
        schema = data.get("contentSchema", {})
        shown = brief(contract.resolve(schema)) if "properties" in contract.resolve(schema) else brief(data)
        found[branch["properties"]["event"].get("const", "*")] = shown
    return found


@pytest.mark.parametrize(
    ("stack", "name", "data"),
    [
        ("{stream: Hello}", "message", "string"),
        ("{stream: << 1 + 1 >>}", "message", "json(integer)"),
        ("{stream: << input.n >>}", "message", "json(integer)"),
        ("{stream: << now() >>}", "message", "json(string(format date-time))"),
        ("{stream: << input.id >>}", "message", "string(format uuid)"),
        ("{stream: {content: {a: 1}, event: tick}}", "tick", "{a: integer}"),
        ("{stream: {content: a, event: << 'x' if input.n > 1 else 'y' >>}}", "y", "string"),
        ("{stream: {content: a, event: 'x-<< input.id >>'}}", "*", "string"),
        ("{stream: {content: a, event: done}}", "done", "string or json(StreamSummary)"),
        (
            "{if: {condition: << input.n >>, then: [{stream: a}], else: [{stream: 1}]}}",
            "message",
            "string or json(getA.message)",
        ),
        ("{stream: {content: a b, split: {by: words}}}", "message", "string"),
        ("{call: {function: f, with: {name: left, value: 1}}}", "left-x", "json(integer)"),
        (
            "{stream: {content: a, metadata: {n: << input.n >>}}}",
            "message",
            "{content: string, metadata: {n: integer}}",
        ),
        ("{stream: a}, {done: done}", "done", "json(StreamSummary and {metadata?: string, ...})"),
        ("{stream: a}, {done: {metadata: {n: 1}}}", "done", f"{{{FIGURES}, n: integer, ...}}"),
        ("{stream: a}, {done: {content: '[DONE]'}}", "done", "string"),
        (
            "{stream: a}, {done: {content: << input.n >>, metadata: {n: 1}}}",
            "done",
            "{content: integer, metadata: {n: integer}}",
        ),
        (
            WINDOW + "{forEach: {in: << w >>, do: [{stream: << item >>}]}}",
            "message",
            "{key: integer, c: integer, m?: number|null, l?: integer|null}",
        ),
        (
            READ + "{forEach: {in: << r >>, do: [{stream: << item.invalid >>}]}}",
            "message",
            "{number: integer, line: integer, text: string, message: string}",
        ),
    ],
)
def test_the_types_of_events_are_inferred(stack: str, name: str, data: str) -> None:
    """Of literals, inputs, functions and calls; a name is tied to its data."""
    text = f"""
        method: GET
        path: /a
        inputParameters: {{n: {{type: integer, default: 1}}, id: {{type: uuid, required: true}}}}
        functionStack: [{stack}]
        ---
        kind: function
        name: f
        inputParameters: {{name: {{type: text, required: true}}, value: json}}
        functionStack: [{{stream: {{content: << input.value >>, event: '<< input.name >>-x'}}}}]
        """
    found = events(text)
    assert found[name] == data
    error = "{code: string, message: string, run: string, ...}"
    assert found["error"] == (error if name != "*" else "string or json(StreamError)")


def test_declared_types_win_and_unknown_ones_are_counted() -> None:
    """A declaration stands for what is not known; the place of what remains is named."""
    text = """
        method: POST
        path: /a
        inputParameters: {a: json}
        chunks: {known: {type: object, properties: {n: {type: integer, required: true}}}}
        functionStack:
          - stream: {content: << input.a >>, event: known}
          - stream: {content: << input.a >>, event: unknown}
          - stream: {content: {n: << input.a >>, m: 1}}
          - done: {metadata: {x: << input.a >>}}
        ---
        method: GET
        path: /b
        responseType: json
        functionStack: [{db.query: SELECT 1, as: rows}, {return: << rows >>}]
        """
    api = make(text)
    assert api.document["components"]["schemas"]["postA.known"]["properties"] == {"n": {"type": "integer"}}
    assert (api.emissions, [str(each) for each in api.unknown]) == (
        5,
        ["a.yaml:8", "a.yaml:9 (n)", "a.yaml:10 (metadata.x)", "a.yaml:12 ([].*)"],
    )


# -------------------------------------------------------------------------------------------- changes

BASE = """
method: POST
path: /a
inputParameters: {n: {type: integer, maximum: 9}, kind: {type: enum, values: [a, b]}, t: {type: text, in: query}}
functionStack:
  - stream: {content: {a: 1, b: text}, event: row}
  - stream: {content: 1, event: other}
"""


PLACES = {"BODY": "of the request body", "ROW": "of the event `row` in the response 200", "EVENTS": "the response 200"}
PARAMETER = "t: {type: text, in: query}"


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("POST", "PUT", "breaking: removed"),
        ("kind: {", "new: {type: text, required: true}, kind: {", "breaking: new required property `new` BODY"),
        ("kind: {", "new: text, kind: {", "fine: new property `new` BODY"),
        ("{type: integer,", "{required: true, type: integer,", "breaking: the property `n` BODY is now required"),
        (PARAMETER, PARAMETER[:-1] + ", required: true}", "breaking: the query parameter `t` is now required"),
        (PARAMETER, "", "breaking: the query parameter `t` was removed"),
        (
            PARAMETER,
            PARAMETER + ", u: {type: text, required: true, in: query}",
            "breaking: new required query parameter `u`",
        ),
        (
            "t: {type: text",
            "t: {type: integer",
            "breaking: the type of the query parameter `t` changed from `string` to `integer`",
        ),
        (
            "t: {type: text",
            "t: {type: uuid",
            "breaking: the format of the query parameter `t` changed from any to uuid",
        ),
        ("type: integer, max", "type: decimal, max", "fine: the type of `n` BODY is now `number`"),
        ("maximum: 9", "maximum: 8", "breaking: maximum of `n` BODY changed from `9` to `8`"),
        ("maximum: 9", "maximum: 10", "fine: maximum of `n` BODY changed from `9` to `10`"),
        ("[a, b]", "[a]", "breaking: `kind` BODY no longer takes `b`"),
        ("[a, b]", "[a, b, c]", "fine: `kind` BODY now takes `c`"),
        ("b: text}", "b: text, c: 1}", "fine: new field `c` ROW"),
        (", b: text}", "}", "breaking: the field `b` ROW was removed"),
        ("a: 1", "a: x", "breaking: the type of `a` ROW changed from `integer` to `string`"),
        (
            "a: 1",
            "a: '<< 1 if input.n else none >>'",
            "breaking: the type of `a` ROW changed from `integer` to `integer`, `null`",
        ),
        ("event: other", "event: more", "breaking: EVENTS is never the event `other`"),
        (
            "event: row}\n",
            "event: row}\n  - stream: {content: 1, event: more}\n",
            "fine: EVENTS may now be the event `more`",
        ),
        (
            "path: /a",
            "path: /a\nstreaming: {format: sse}",
            "breaking: the response 200 no longer has the format text/csv",
        ),
        ("path: /a", "path: /a\nheaders: {X-A: b}", "fine: new response header `X-A`"),
        ("path: /a", "path: /a\nauthentication: jwt", "breaking: authentication is now required"),
        ("path: /a", "path: /a\nauthentication: {jwt: {optional: true}}", "fine: new response 401"),
        (
            "content: 1",
            "content: x",
            "breaking: the type of the event `other` in the response 200 changed from JSON to text",
        ),
        ("path: /a", "path: /a\nsummary: Another", ""),
    ],
)
def test_changes_are_found(before: str, after: str, change: str) -> None:
    """What breaks a client of the earlier document, and what only adds to it."""
    old = make(BASE, settings=SETTINGS).document
    new = make(BASE.replace(before, after), settings=SETTINGS).document
    for short, place in PLACES.items():
        change = change.replace(short, place)
    found = [f"{'breaking' if each.breaking else 'fine'}: {each.message}" for each in compare(old, new)]
    assert any(each.partition(" (")[0] == change for each in found) if change else found == [], found
    assert any(each.startswith("breaking") for each in found) is change.startswith("breaking")


def test_scopes_that_are_new_break_clients() -> None:
    """A scheme may be called otherwise."""
    documents = [
        make(BASE + f"authentication: {each}", settings=settings).document
        for each, settings in (
            ("{keys: {scopes: [a]}}", SETTINGS),
            ("{other: {scopes: [a]}}", SETTINGS.replace("keys: {type", "other: {type")),
            ("{keys: {scopes: [a, b]}}", SETTINGS),
            ("jwt", SETTINGS),
        )
    ]
    assert [str(each) for each in compare(documents[0], documents[1])] == []
    assert [str(each) for each in compare(documents[0], documents[2])] == [
        "POST /a: the authentication `keys` now needs the scope `b`"
    ]
    assert [str(each) for each in compare(documents[0], documents[3])] == [
        "POST /a: no longer accepts the authentication `keys`"
    ]
    assert all(not each.breaking for each in compare(documents[2], documents[0]))


def test_a_document_does_not_differ_from_itself_in_another_version() -> None:
    """3.1 has other names for the same."""
    text = BASE + "streaming: {resume: true}"
    assert compare(make(text).document, make(text, "3.1").document) == []


# ------------------------------------------------------------------- schemas of authors with references

TREE = """
inputParameters:
  v:
    type: json%s
    schema:
      $id: https://example.org/tree
      type: object
      required: [n%s]
      properties:
        n: {$ref: '#/$defs/pattern', description: How many}
        next: {$ref: '#'}
        same: {$ref: 'https://example.org/tree#/properties/n'}
      $defs: {pattern: {type: %s, maximum: %s}}
"""


@pytest.mark.parametrize("version", VALIDATORS)
@pytest.mark.parametrize("more", ["", ", nullable: true", ", in: wholeBody", ", in: query"])
def test_references_of_authors_lead_into_the_document(version: str, more: str) -> None:
    """A schema with references is a component: `#` and `#/...` lead to it, from any place."""
    keys = TREE.replace("%s", more and more.replace(", ", "\n    "), 1) % ("", "integer", "5")
    api = make(endpoint(keys), version)
    assert api.left_out == ()
    contract = Contract(api.document)
    schema = {"$ref": "#/components/schemas/postA_v"}
    assert contract.fits(schema, {"n": 5, "next": {"n": 1, "same": 2}}) == []
    assert contract.fits(schema, {"n": 5, "next": {"n": 6, "same": "x"}}) != []
    found = api.document["paths"]["/a"]["post"]
    where = found["parameters"][0]["content"] if "query" in more else found["requestBody"]["content"]
    inner = where["application/json"]["schema"]
    inner = inner["properties"]["v"] if "properties" in inner else inner
    assert inner == ({"anyOf": [schema, {"type": "null"}]} if "null" in more else schema)


@pytest.mark.parametrize(
    ("after", "messages"),
    [
        (("", "integer", "4"), {"maximum of `n` of `v` of the request body changed from `5` to `4`"}),
        (("", "integer", "6"), set()),
        ((", z", "integer", "5"), {"the property `z` of `v` of the request body is now required"}),
        (("", "string", "5"), {"the type of `n` of `v` of the request body changed from `integer` to `string`"}),
    ],
)
def test_changes_behind_references_break(after: tuple[str, ...], messages: set[str]) -> None:
    """The comparison looks into the schemas of authors."""
    old, new = (make(endpoint(TREE % ("", *each))).document for each in (("", "integer", "5"), after))
    found = {each.message.partition(" (")[0] for each in compare(old, new) if each.breaking}
    assert messages <= found
    assert bool(found) is bool(messages)


@pytest.mark.parametrize(
    ("before", "after", "breaking"),
    [
        ("{}", "{uniqueItems: true}", True),
        ("{not: {type: 'null'}}", "{}", False),
        ("{}", "{additionalProperties: false}", True),
        ("{maxProperties: 3}", "{maxProperties: 2}", True),
        ("{}", "{allOf: [{type: object}]}", True),
        ("{allOf: [{type: object}]}", "{allOf: [{type: [object, array]}]}", False),
    ],
)
def test_changes_of_any_keyword_are_seen(before: str, after: str, *, breaking: bool) -> None:
    """A keyword that is not looked into breaks clients where it is new or another."""
    old, new = (
        make(endpoint(f"inputParameters: {{v: {{type: json, schema: {each}}}}}")).document for each in (before, after)
    )
    found = compare(old, new)
    assert found
    assert any(each.breaking for each in found) is breaking


@pytest.mark.parametrize("schema", ["{$ref: '#x', $defs: {a: {$anchor: x}}}", "{items: {$dynamicRef: '#'}}"])
def test_schemas_that_can_not_be_moved_are_told(schema: str) -> None:
    """What leads to a place by its name has no such place in the document."""
    api = make(endpoint(f"inputParameters: {{v: {{type: json, schema: {schema}}}}}"))
    assert [str(each).rpartition(" ")[2] for each in api.left_out] == ["(v)"]
    assert "schemas" not in api.document["components"] or "postA_v" not in api.document["components"]["schemas"]


def test_promises_have_references_too() -> None:
    """Of responses as of requests."""
    schema = "{$ref: '#/$defs/x', $defs: {x: {type: string}}}"
    keys = f"responseType: json\nresponseSchema: {{type: json, schema: {schema}}}"
    document = make(endpoint(keys, "[{return: << request.text | fromJson >>}]")).document
    content = document["paths"]["/a"]["post"]["responses"]["200"]["content"]["application/json"]
    reference = content["schema"]["$ref"].removeprefix("#/components/schemas/")
    assert document["components"]["schemas"][reference]["$defs"] == {"x": {"type": "string"}}
