"""Inputs over a real socket: where a request holds them, how much of it is read, what is refused."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest

from streamstack.language.definition import STRICT, InputRules
from streamstack.runtime.run import Run
from streamstack.runtime.values import File
from streamstack.server.endpoints import Reader, close_inputs
from streamstack.server.response_options import ResponseOptions
from tests.declaring import compile_yaml
from tests.server.serving import Reply, Server, endpoint, serving

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


async def answer(run: Run, inputs: dict[str, Any]) -> Any:
    """Answer with the inputs, files taken apart, and the request."""

    async def show(value: Any) -> Any:
        if isinstance(value, File):
            data = await value.read()
            return [value.name, value.content_type, value.size, data[:100].decode()]
        return [await show(one) for one in value] if isinstance(value, list) else value

    shown = {name: await show(value) for name, value in inputs.items()}
    sent = [name for name in inputs if name in inputs]
    request = dict(run.request())
    request["body"] = request["body"].decode("latin-1")
    close_inputs(inputs)
    return {"input": shown, "sent": sent, "request": request}


@asynccontextmanager
async def served(
    yaml: str,
    *,
    method: str = "POST",
    path: str = "/s",
    rules: InputRules = STRICT,
    max_body: int = 1_000_000,
    reads_body: bool = False,
) -> AsyncIterator[Server]:
    """Serve one endpoint with these inputs, which answers with what it read."""
    reader = Reader(compile_yaml(yaml, rules), max_body=max_body, reads_body=reads_body)
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    made = endpoint(
        answer,
        path,
        method,
        wire=ResponseOptions("value"),
        read=reader.read,
        show=reader.show,
        max_body=reader.most(method, names),
    )
    async with serving(made) as server:
        yield server


def inputs_of(reply: Reply) -> Any:
    """Return the inputs that an endpoint answered with."""
    assert reply.status == 200, reply
    return json.loads(reply.body)["input"]


def faults_of(reply: Reply, status: int = 400) -> list[tuple[str, str, str]]:
    """Return place, name and message of the faults in a problem document."""
    assert reply.status == status, reply
    assert reply.headers["content-type"].startswith("application/problem+json")
    document = json.loads(reply.body)
    assert document["code"] == "invalid-input"
    assert document["status"] == status
    return [(each["in"], each["name"], each["message"]) for each in document["errors"]]


async def test_each_place_holds_its_inputs() -> None:
    """Path, query, header, cookie and body of one request, each converted to its type."""
    yaml = """
    id: integer
    limit: {type: integer, in: query}
    tag: {type: list, items: text, in: query}
    xToken: {type: text, in: header, aliases: [X-Token]}
    langs: {type: list, items: text, in: header, aliases: [Accept-Language]}
    session: {type: uuid, in: cookie}
    message: text
    """
    async with served(yaml, method="PUT", path="/a/{id}") as server:
        reply = await server.ask(
            "PUT",
            "/a/7?limit=5&tag=a&tag=b%20c&utm_source=x",
            b'{"message": "hi"}',
            Content_Type="Application/JSON; charset=utf-8",
            x_token="t",
            Accept_Language="de, en",
            Cookie="a=b; session=0B8E5D1C-3F6A-4C57-9D0E-2F4B8A6C1E90",
        )
        assert inputs_of(reply) == {
            "id": 7,
            "limit": 5,
            "tag": ["a", "b c"],
            "xToken": "t",
            "langs": ["de", "en"],
            "session": "0b8e5d1c-3f6a-4c57-9d0e-2f4b8a6c1e90",
            "message": "hi",
        }
        told = faults_of(await server.ask("PUT", "/a/x?limit=y", b'{"message": 1}'))
        assert [each[:2] for each in told] == [("path", "id"), ("query", "limit"), ("body", "message")]


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        ("1e400", {"integer": "must be between", "text": "must be a text, not a decimal", "decimal": 10**400}),
        (
            "-1e401",
            {"decimal": "must be a decimal with an exponent of at most 400", "boolean": "must be true or false"},
        ),
        ("1" + "0" * 350, {"integer": "must be between", "decimal": 10**350, "json": 10**350}),
        ("0." + "1" * 9_000, {"decimal": "0." + "1" * 9_000}),
        ("0." + "1" * 10_001, {"decimal": "must be a decimal with at most 10000 digits"}),
        ("1.10", {"decimal": "1.10", "json": 1.1}),
    ],
)
async def test_numbers_of_any_size_are_read_or_refused_by_name(sent: str, answers: dict[str, Any]) -> None:
    """A number beyond floats is a decimal, or a fault of its input, alike in a body and in a form."""
    for type_, wanted in answers.items():
        async with served(f"n: {type_}") as server:
            for media, body in ((JSON, f'{{"n": {sent}}}'), (FORM, f"n={sent}")):
                reply = await server.ask("POST", "/s", body.encode(), Content_Type=media)
                if isinstance(wanted, str) and wanted.startswith("must"):
                    if type_ != "text" or media == JSON:
                        ((_, name, message),) = faults_of(reply)
                        assert name == "n"
                        assert message.startswith(wanted if media == JSON else "must be")
                else:
                    text = reply.body.partition(b'"n":')[2].partition(b"}")[0].decode()
                    assert text == wanted if isinstance(wanted, str) else Decimal(text) == Decimal(str(wanted)), reply


@pytest.mark.parametrize("key", ["price[0]", "price[]", "cost[3]"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_input_that_is_no_list_is_not_sent_as_one(key: str, method: str) -> None:
    """It is neither ignored nor taken for another name: the fault names the input."""
    async with served("price: {type: decimal, required: true, aliases: [cost]}", method=method) as server:
        if method == "GET":
            reply = await server.ask("GET", f"/s?{quote(key)}=1")
        else:
            reply = await server.ask("POST", "/s", f"{quote(key)}=1".encode(), Content_Type=FORM)
    ((_, name, message),) = faults_of(reply)
    assert (name, message) == ("price", "is sent as the item of a list, and is not one: write price=...")


@pytest.mark.parametrize(
    ("charset", "encoding", "status"),
    [
        ("utf-8", "utf-8", 200),
        ("UTF8", "utf-8", 200),
        ("utf-16", "utf-16", 200),
        ("iso-8859-1", "latin-1", 200),
        ("windows-1252", "cp1252", 200),
        ("utf-16", "utf-8", 400),
        ("x-unknown", "utf-8", 415),
        ("utf-7", "utf-7", 415),
    ],
)
async def test_json_in_another_charset_is_decoded_or_refused(charset: str, encoding: str, status: int) -> None:
    """RFC 8259 has JSON in UTF-8: what says that it is not is decoded, or 415."""
    body = '{"name": "Zoë!"}'.encode(encoding)
    async with served("name: text") as server:
        reply = await server.ask("POST", "/s", body, Content_Type=f"application/json; charset={charset}")
    assert reply.status == status, reply
    if status == 200:
        assert inputs_of(reply) == {"name": "Zoë!"}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_query_is_where_no_body_is_expected(method: str) -> None:
    """For GET and DELETE inputs come from the query; a body is ignored."""
    async with served("a: integer", method=method) as server:
        reply = await server.ask(method, "/s?a=5", b'{"b": 1}', Content_Type=JSON)
        assert inputs_of(reply) == {"a": 5}


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("a=1&a=2", ("a", "is sent 2 times: send it once")),
        ("b=%ff", ("", "must be percent-encoded UTF-8")),
        ("b=%ED%A0%80", ("", "must be percent-encoded UTF-8")),
        ("&".join(f"x{n}=1" for n in range(1001)), ("", "must have at most 1000 fields")),
    ],
)
async def test_malformed_query_is_a_fault(query: str, told: tuple[str, str]) -> None:
    """A repeated scalar, bytes that are not UTF-8, and too many names are each reported."""
    async with served("a: integer\nb: text", method="GET") as server:
        assert faults_of(await server.ask("GET", f"/s?{query}")) == [("query", *told)]


async def test_header_that_is_no_utf8_is_a_fault() -> None:
    """Bytes in headers and cookies that are not UTF-8 are reported, not passed on."""
    async with served("a: {type: text, in: header}\nb: {type: text, in: cookie}", method="GET") as server:
        raw = b"GET /s HTTP/1.1\r\nHost: t\r\nConnection: close\r\nA: \xff\r\nCookie: b=\xfe\r\n\r\n"
        answered = await server.raw(raw)
        assert b" 400 " in answered[:20]
        assert answered.count(b"must be UTF-8") >= 2


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b'{"a": 5, "b": ["x", "y"]}'),
        ("application/vnd.api+json", b'\xef\xbb\xbf{"a": 5, "b": ["x", "y"]}'),
        ("", b'{"a": 5, "b": ["x", "y"]}'),
        (FORM, b"a=5&b=x&b=y"),
        ("multipart/form-data; boundary=B", "multipart"),
    ],
)
async def test_body_is_read_by_its_type(content_type: str, body: Any) -> None:
    """JSON, a form and a multipart form hold the same inputs."""
    if body == "multipart":
        body = multipart(("a", "5"), ("b", "x"), ("b", "y"))
    async with served("a: integer\nb: {type: list, items: text}") as server:
        headers = {"Content_Type": content_type} if content_type else {}
        reply = await server.ask("POST", "/s", body, **headers)
        assert inputs_of(reply) == {"a": 5, "b": ["x", "y"]}


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "nonsense", "image/png"])
async def test_other_types_are_refused(content_type: str) -> None:
    """A body of a type that is not taken is answered 415, with those that are."""
    async with served("a: integer") as server:
        reply = await server.ask("POST", "/s", b"a", Content_Type=content_type)
        told = faults_of(reply, 415)
        assert "application/json" in told[0][2]


async def test_json_sent_as_a_form_is_told() -> None:
    """For what `curl -d` sends without a header the message says what is missing."""
    async with served("a: {type: integer, required: true}") as server:
        reply = await server.ask("POST", "/s", b'{"a": 5}', Content_Type=FORM)
        assert "Content-Type: application/json" in faults_of(reply)[0][2]


async def test_bodyless_request_has_the_defaults() -> None:
    """Without a body the inputs have their defaults, or are named as required."""
    async with served("a: {type: integer, default: 3}") as server:
        assert inputs_of(await server.ask("POST", "/s")) == {"a": 3}
    async with served("a: {type: integer, required: true}") as server:
        assert faults_of(await server.ask("POST", "/s")) == [("body", "a", "is required")]


@pytest.mark.parametrize(
    ("declaration", "content_type", "body", "value"),
    [
        ("{type: json, in: wholeBody}", JSON, b"[1, 2]", [1, 2]),
        ("{type: list, items: integer, in: wholeBody}", JSON, b"[1, 2]", [1, 2]),
        ("{type: json, in: wholeBody}", FORM, b"a=5&b=x&b=y", {"a": "5", "b": ["x", "y"]}),
        ("{in: wholeBody, properties: {a: integer}}", FORM, b"a=5", {"a": 5}),
        ("{type: text, in: wholeBody}", "text/csv", "ä,b".encode(), "ä,b"),
        ("{type: text, in: wholeBody}", "text/plain; charset=iso-8859-1", b"\xe4", "ä"),
        ("{type: integer, in: wholeBody}", "text/plain", b"5", 5),
        ("{type: file, in: wholeBody}", "text/csv", b"a,b", ["", "text/csv", 3, "a,b"]),
        ("{type: text, in: wholeBody, default: x}", "text/plain", b"", "x"),
    ],
)
async def test_whole_body_is_one_value(declaration: str, content_type: str, body: bytes, value: Any) -> None:
    """`wholeBody` takes the body as one value; the other inputs come from the query."""
    async with served(f"x: {declaration}\nn: integer") as server:
        reply = await server.ask("POST", "/s?n=1", body, Content_Type=content_type)
        assert inputs_of(reply) == {"x": value, "n": 1}


async def test_whole_body_faults_have_no_name() -> None:
    """Faults of the whole body are named from its inside."""
    async with served("x: {type: list, items: integer, in: wholeBody, required: true}") as server:
        reply = await server.ask("POST", "/s", b'[1, "a"]', Content_Type=JSON)
        assert faults_of(reply) == [("body", "[1]", "must be an integer, not a text")]
        assert faults_of(await server.ask("POST", "/s")) == [("body", "", "is required")]
        reply = await server.ask("POST", "/s", b"a", Content_Type="text/plain")
        assert faults_of(reply, 415)


async def test_body_past_the_limit_is_refused_at_once() -> None:
    """A body that says it is too long is refused before it is sent, one that does not while it is."""
    async with served("a: text", max_body=1000) as server:
        head = b"POST /s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        client = await server.connect()
        client.writer.write(head + b"Content-Length: 1000000\r\n\r\n")
        assert b" 413 " in await client.head()
        client.close()
        client = await server.connect()
        client.writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        reading = asyncio.create_task(client.head())
        for _ in range(20):
            client.writer.write(b"64\r\n" + b"a" * 100 + b"\r\n")
            await asyncio.sleep(0.002)
        assert b" 413 " in await reading
        client.close()
        fits = json.dumps({"a": "a" * 900}).encode()
        assert inputs_of(await server.ask("POST", "/s", fits, Content_Type=JSON))["a"] == "a" * 900


async def test_packed_body_is_measured_unpacked() -> None:
    """A body that is small only while it is packed is refused."""
    async with served("a: text", max_body=10_000) as server:
        packed = gzip.compress(json.dumps({"a": "a" * 5_000_000}).encode())
        assert len(packed) < 10_000
        reply = await server.ask("POST", "/s", packed, Content_Type=JSON, Content_Encoding="gzip")
        assert reply.status == 413
        small = gzip.compress(b'{"a": "b"}')
        reply = await server.ask("POST", "/s", small, Content_Type=JSON, Content_Encoding="gzip")
        assert inputs_of(reply) == {"a": "b"}
        reply = await server.ask("POST", "/s", small, Content_Type=JSON, Content_Encoding="x-gzip")
        assert inputs_of(reply) == {"a": "b"}
        reply = await server.ask("POST", "/s", b"abc", Content_Type=JSON, Content_Encoding="gzip")
        assert reply.status == 400


async def test_chunked_body_is_taken_however_it_is_cut() -> None:
    """A body cut at every byte gives the same inputs."""
    body = '{"a": "héllo", "b": 1.50}'.encode()
    async with served("a: text\nb: decimal") as server:
        head = b"POST /s HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        cut = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        answered = await server.raw(head + cut + b"0\r\n\r\n")
        assert '"a":"héllo","b":1.50'.encode() in answered


@pytest.mark.parametrize("reads_body", [False, True])
async def test_files_are_uploaded(reads_body: bool) -> None:  # noqa: FBT001
    """A file comes with its name, type and size; texts and JSON stand beside it."""
    yaml = """
    upload: {type: file, required: true, maxSize: 5MB, contentTypes: [text/*]}
    more: {type: list, items: file}
    title: text
    options: {properties: {n: integer}}
    """
    large = "x" * 3_000_000
    parts = [
        ("title", "Ä b"),
        ("options", '{"n": 5}', "", JSON),
        ("upload", large, "../a b.csv", "text/csv"),
        ("more", "1", "1.txt", "text/plain"),
        ("more", "2", "2.txt", ""),
    ]
    async with served(yaml, max_body=4_000_000, reads_body=reads_body) as server:
        reply = await send_multipart(server, *parts)
        assert inputs_of(reply) == {
            "upload": ["a b.csv", "text/csv", 3_000_000, "x" * 100],
            "more": [["1.txt", "text/plain", 1, "1"], ["2.txt", "application/octet-stream", 1, "2"]],
            "title": "Ä b",
            "options": {"n": 5},
        }
        held = json.loads(reply.body)["request"]["body"]
        assert (len(held) > 3_000_000) is reads_body


@pytest.mark.parametrize(
    ("part", "status", "told"),
    [
        (("upload", "a" * 2000, "a.txt", "text/plain"), 413, ("upload", "must have at most 1KB")),
        (("upload", "a", "a.png", "image/png"), 400, ("upload", "must be of type text/plain or text/csv")),
        (("upload", "", "", "application/octet-stream"), 400, ("upload", "is required")),
        (("title", "a", "a.txt", "text/plain"), 400, ("title", "must be a text, not a file")),
        (("other", "a", "a.txt", "text/plain"), 400, ("other", "is not known here")),
    ],
)
async def test_files_are_refused(part: Any, status: int, told: tuple[str, str]) -> None:
    """A file that is too long, of another type, empty or not declared is named."""
    yaml = "upload: {type: file, required: true, maxSize: 1KB, contentTypes: [text/plain, text/csv]}\ntitle: text"
    async with served(yaml) as server:
        parts = [part] if part[0] == "upload" else [part, ("upload", "a", "a.txt", "text/plain")]
        reply = await send_multipart(server, *parts)
        assert faults_of(reply, status) == [("body", *told)]


async def test_file_may_be_larger_than_other_bodies() -> None:
    """A file's own maxSize counts, not the limit of all bodies; the rest of the form keeps that."""
    async with served("f: {type: file, maxSize: 2MB}\na: text", max_body=1000) as server:
        reply = await send_multipart(server, ("f", "x" * 2_000_000, "a", ""))
        assert inputs_of(reply)["f"][2] == 2_000_000
        reply = await send_multipart(server, ("a", "x" * 2_000_000))
        assert reply.status == 413


MALFORMED = [
    b"",
    b"nonsense",
    b"--B\r\n",
    b"--B\r\n\r\n\r\n--B--",
    b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n5',
    b"--B\r\nContent-Disposition: form-data\r\n\r\n5\r\n--B--\r\n",
    b'--B\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64\r\n\r\nNQ==\r\n--B--\r\n',
    b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--B--\r\n',
    b"--B\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\n5\r\n--C--\r\n--B--\r\n",
    b'--B\r\nContent-Disposition: form-data; name="_charset_"\r\n\r\nnonsense-8\r\n--B--\r\n',
    b"--B\r\n" + b"X: y\r\n" * 500 + b"\r\n5\r\n--B--\r\n",
    b"--B\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n5\r\n--B--\r\n",
    b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n5\r\n' * 1100 + b"--B--\r\n",
]


@pytest.mark.parametrize("number", range(len(MALFORMED)))
@pytest.mark.parametrize("reads_body", [False, True])
async def test_malformed_multipart_is_refused(number: int, reads_body: bool) -> None:  # noqa: FBT001
    """A malformed form is a fault of the client, never of the server."""
    async with served("a: {type: integer, required: true}", reads_body=reads_body) as server:
        reply = await server.ask("POST", "/s", MALFORMED[number], Content_Type="multipart/form-data; boundary=B")
        assert faults_of(reply)


async def test_what_is_wrong_with_a_form_repeats_nothing_of_it() -> None:
    """Bytes of a part's header that are not UTF-8 are not in the answer."""
    body = b'--B\r\nContent-Disposition: form-data; name="a"\r\nX-Secret\xff: 1\r\n\r\nx\r\n--B--\r\n'
    async with served("a: text") as server:
        reply = await server.ask("POST", "/s", body, Content_Type="multipart/form-data; boundary=B")
    assert "the header of a part is not UTF-8" in faults_of(reply)[0][2]
    assert b"Secret" not in reply.body


async def test_multipart_without_boundary_is_refused() -> None:
    """A multipart body has a boundary that is worth the name."""
    async with served("a: text") as server:
        for content_type in ("multipart/form-data", "multipart/form-data; boundary=" + "x" * 80):
            reply = await server.ask("POST", "/s", b"abc", Content_Type=content_type)
            told = faults_of(reply)[0][2]
            assert "is not well-formed multipart/form-data: " in told or "must have a boundary" in told


async def test_multipart_is_read_however_it_is_cut() -> None:
    """A form that arrives byte by byte holds what it holds."""
    body = multipart(("a", "5"), ("f", "x\r\n--yB\r\n", "n.txt", "text/plain"))
    async with served("a: integer\nf: file") as server:
        head = (
            b"POST /s HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=B\r\n\r\n"
        )
        cut = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        answered = await server.raw(head + cut + b"0\r\n\r\n")
        assert b'"a":5,"f":["n.txt","text/plain",9,' in answered


async def test_raw_body_of_a_webhook_is_let_be() -> None:
    """Where no input is in the body and the definition reads it raw, it may be anything."""
    async with served("n: {type: integer, in: query}", reads_body=True) as server:
        for content_type in (JSON, "text/xml", FORM, "multipart/form-data; boundary=B"):
            reply = await server.ask("POST", "/s?n=1", b'{"a": ', Content_Type=content_type)
            assert inputs_of(reply) == {"n": 1}
            assert json.loads(reply.body)["request"]["body"] == '{"a": '
        reply = await server.ask("POST", "/s?n=x", b"abc")
        assert reply.status == 400


async def test_body_is_refused_where_nothing_is_declared() -> None:
    """An endpoint without inputs refuses properties, unless it ignores what it does not know."""
    async with served("{}") as server:
        assert (await server.ask("POST", "/s", b"{}", Content_Type=JSON)).status == 200
        assert (await server.ask("POST", "/s", b"x", Content_Type="text/plain")).status == 200
        reply = await server.ask("POST", "/s", b'{"a": 1}', Content_Type=JSON)
        assert faults_of(reply) == [("body", "a", "is not known here")]
    async with served("{}", rules=InputRules(unknown="ignore")) as server:
        assert (await server.ask("POST", "/s", b'{"a": 1}', Content_Type=JSON)).status == 200


async def test_request_is_shown_to_definitions() -> None:
    """`request` has method, path, query, headers, cookies, body, ip and id."""
    async with served("a: json", path="/ä/{id}", rules=InputRules(unknown="ignore"), reads_body=True) as server:
        reply = await server.ask(
            "POST",
            f"/{quote('ä')}/a%2Fb?x=1&y=2&y=3&z",
            b'{"a": 1}',
            X_Twice="1",
            x_twice="2",
            Cookie="s=abc; t=d",
            X_Request_Id="r-1",
        )
        shown = json.loads(reply.body)["request"]
        assert shown["method"] == "POST"
        assert shown["path"] == "/ä/a/b"
        assert shown["parameters"] == {"id": "a/b"}
        assert shown["query"] == {"x": "1", "y": ["2", "3"], "z": ""}
        assert shown["headers"]["x-twice"] == "1, 2"
        assert shown["cookies"] == {"s": "abc", "t": "d"}
        assert shown["body"] == '{"a": 1}'
        assert shown["ip"] == "127.0.0.1"
        assert shown["id"] == "r-1"


async def test_sent_inputs_are_told_from_absent_ones() -> None:
    """`"x" in input` holds for what was sent only."""
    async with served("a: text\nb: {type: text, default: x}\nc: {type: text, in: query}") as server:
        reply = await server.ask("POST", "/s?c=1", b'{"a": "b"}')
        assert json.loads(reply.body)["sent"] == ["a", "c"]


def multipart(*parts: tuple[str, ...]) -> bytes:
    """Write a form of (name, value) and (name, value, filename, type)."""
    body = b""
    for name, value, *rest in parts:
        filename = f'; filename="{rest[0]}"' if rest and (rest[0] or rest[1] != JSON) else ""
        media = f"\r\nContent-Type: {rest[1]}" if rest and rest[1] else ""
        head = f'--B\r\nContent-Disposition: form-data; name="{name}"{filename}{media}\r\n\r\n'
        body += head.encode() + value.encode() + b"\r\n"
    return body + b"--B--\r\n"


async def send_multipart(server: Server, *parts: tuple[str, ...]) -> Reply:
    """Send a form to the endpoint."""
    content_type = "multipart/form-data; boundary=B"
    return await server.ask("POST", "/s", multipart(*parts), Content_Type=content_type)
