"""Test files: what their values become. What is wrong with one is in cases/invalid."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.language.analysis.cases import answers, check_cases, find_endpoint
from streamstack.language.cases import FAULTS, Case, Expected, Match, ModelAnswer, Piece, Place, Respond
from streamstack.language.nodes import Mapping, Node, Sequence, plain
from streamstack.language.paths import parameters
from streamstack.language.project import read_project, read_tests, validate
from streamstack.language.settings import Streaming
from streamstack.language.source import read
from streamstack.language.test_files import TESTS, read_test_file
from streamstack.spec import Field
from tests.language.test_mutations import check
from tests.mutations import mutate_characters, mutate_nodes

VALID = Path(__file__).parent.parent / "cases" / "valid"
EVERY = VALID / "every-key.test.yaml"
TEXT = EVERY.read_text("utf-8")


def cases(text: str, folder: Path = VALID) -> tuple[Case, ...]:
    """Return the tests of a file without findings."""
    file, findings = read_test_file(folder / "a.test.yaml", "a.test.yaml", text)
    assert findings == []
    return file.tests


def case(line: str) -> Case:
    """Return one test, whose keys are those of a flow mapping."""
    request = "" if "request" in line else "request: {path: /}, "
    return cases(f"tests: [{{name: a, {request}{line}}}]\n")[0]


def responds(line: str) -> Respond:
    """Return a response of an upstream."""
    return case(f"upstreams: [{{url: '*', respond: {{{line}}}}}]").upstreams[0].responds[0]


def test_every_key_has_an_example() -> None:
    """The valid case has every key that is declared, so that all of them are read, and fit the editor's schema."""

    def keys(node: Node) -> set[str]:
        if isinstance(node, Mapping):
            return {key.text for key, _ in node.items}.union(*(keys(value) for _, value in node.items))
        return set().union(*map(keys, node.items)) if isinstance(node, Sequence) else set()

    def declared(fields: tuple[Field, ...]) -> set[str]:
        inner = [declared(group.parameters) for field in fields for group in field.type.inner_groups]
        return {field.name for field in fields}.union(*inner)

    assert declared(TESTS) - keys(read(TEXT, "f")[0][0].root) == set()


@pytest.mark.parametrize(
    ("written", "method", "body", "media"),
    [
        ("body: {a: 1}", "POST", b'{"a":1}', "application/json"),
        ("body: text", "POST", b'"text"', "application/json"),
        (r"body: 'a \<< b'", "POST", b'"a << b"', "application/json"),
        ("body: {a: 1}, method: PUT, headers: {content-type: a/b}", "PUT", b'{"a":1}', "a/b"),
        ("form: {a: 1.50, b: [x, y z], c: {d: 1}}", "POST", b"a=1.5&b=x&b=y+z&c=%7B%22d%22%3A1%7D", "x-www-form"),
        ("text: 1.50", "POST", b"1.50", "text/plain"),
        ("file: fixtures/people.csv", "POST", b"id,name\n1,Ada\n", "text/csv"),
        (
            "multipart: {a: [1, 'é'], f: {file: fixtures/people.csv, filename: 'a\"b.csv'}}",
            "POST",
            '--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
            '--B\r\nContent-Disposition: form-data; name="a"\r\n\r\né\r\n'
            '--B\r\nContent-Disposition: form-data; name="f"; filename="a%22b.csv"\r\n'
            "Content-Type: text/csv; charset=utf-8\r\n\r\nid,name\n1,Ada\n\r\n--B--\r\n".encode(),
            "multipart/form-data; boundary=",
        ),
        ("query: {a: [1, 2]}", "GET", None, ""),
    ],
)
def test_bodies_are_encoded(written: str, method: str, body: bytes | None, media: str) -> None:
    """A body becomes bytes, with its Content-Type unless one is written, and with a method that takes one."""
    request = case(f"request: {{path: /, {written}}}").exchanges[0].request
    (content_type,) = [value for name, value in request.headers if name.lower() == "content-type"] or [""]
    boundary = content_type.partition("boundary=")[2].encode() or b"\0"
    found = request.body and request.body.replace(boundary, b"B")
    assert (request.method, found) == (method, body)
    assert media in content_type


@pytest.mark.parametrize(
    ("written", "pieces", "media"),
    [
        (
            "chunks: ['data: 1', {data: '\\n\\n', after: 5ms}]",
            (Piece(b"data: 1"), Piece(b"\\n\\n", 0.005)),
            "text/event-stream",
        ),
        ("chunks: [{json: {a: 1}}, {json: b, after: 1s}]", (Piece(b'{"a":1}\n'), Piece(b'"b"\n', 1.0)), "x-ndjson"),
        ("chunks: [a]", (Piece(b"a"),), "text/plain"),
        (
            'events: ["a\\nb", {data: [1], event: e, id: 7, after: 2s}], delay: 1s',
            (Piece(b"data: a\ndata: b\n\n", 1.0), Piece(b"event: e\ndata: [1]\nid: 7\n\n", 2.0)),
            "text/event-stream",
        ),
        ("messages: [a, {json: {a: 1}}]", (Piece(b"a"), Piece(b'{"a":1}')), ""),
        ("messages: [{base64: AP8=, after: 1ms}]", (Piece(b"\x00\xff", 0.001, binary=True),), ""),
        (
            "chunks: fixtures/pieces.yaml",
            (Piece("data: é<<".encode()), Piece(b"\xc3", 0.5, binary=True)),
            "text/event-stream",
        ),
    ],
)
def test_pieces_of_answers(written: str, pieces: tuple[Piece, ...], media: str) -> None:
    """Chunks, events and messages are sent one by one, each with its time."""
    answer = responds(written)
    assert (answer.pieces or answer.messages) == pieces
    assert media in dict(answer.headers).get("Content-Type", "")


def test_answers_of_upstreams() -> None:
    """Each form of an answer is read; times are seconds, and what is not written has its default."""
    answer = responds("model: Hello, cutAfter: {events: 2, inside: event}, reset: true, firstAfter: 300ms, status: 429")
    assert answer.model == ModelAnswer("Hello")
    assert (answer.cut_after, answer.reset, answer.first_after) == (Place("events", 2, "event"), True, 0.3)
    assert (answer.status, answer.stall_after, answer.headers) == (429, None, ())
    assert responds("body: <html>").body == b"<html>"
    assert responds("json: x").body == b'"x"'
    answer = responds("file: fixtures/hello.sse, headers: {A: [1, b]}")
    assert answer.headers == (("A", "1"), ("A", "b"), ("Content-Type", "text/event-stream"))
    assert answer.body == (VALID / "fixtures" / "hello.sse").read_bytes()
    upstream, short, silent = case(
        "upstreams: [{match: '*a'}, {url: '*a', respond: [{}, {}]}, {url: http://b}]"
    ).upstreams
    assert upstream.match == short.match == Match(url="*a")
    assert (len(short.responds), silent.responds) == (2, (Respond(silent.mark),))


def expected(text: str) -> Any:
    """Return what `body` is expected to be."""
    return case(f"env: {{LIMIT: 3}}, expect: {{body: {text}}}").exchanges[0].expect.body


@pytest.mark.parametrize(
    ("written", "actual", "matches"),
    [
        ("<< value | length > 3 >>", "abcd", True),
        ("<< value | length > 3 >>", "abc", False),
        ("<< value == env.LIMIT >>", "3", True),
        ("<< env.LIMIT >>", "3", True),
        ("'at most << env.LIMIT >>'", "at most 3", True),
        ("'at most << env.LIMIT >>'", "at most 4", False),
        ("<< 0.1 >>", 0.1, True),
        ("'<< {\"a\": [1]} >>'", {"a": [1]}, True),
    ],
)
def test_bindings_are_expectations(written: str, actual: Any, *, matches: bool) -> None:
    """A binding is true of the actual value, or is equal to it."""
    value = expected(written)
    assert isinstance(value, Expected)
    assert value.text == written.strip("'")
    assert value.matches(actual) is matches


def test_expected_values() -> None:
    """What is written keeps its type; bindings stand anywhere in it, and say why they fail."""
    value = expected("{a: [1, 1.5, null, << value >>], b: true}")
    assert value["a"][:3] == [1, 1.5, None]
    assert isinstance(value["a"][3], Expected)
    with pytest.raises(RunError, match="length"):
        expected("<< value | length >>").matches(5)


@pytest.mark.parametrize(
    ("written", "key", "value"),
    [
        ("chunks: [a, {content: b, at: 5ms}, {b: 1}, null, {}]", "chunks",
         [{"content": "a"}, {"content": "b", "at": 0.005}, {"content": {"b": 1}}, {"content": None}, {"content": {}}]),
        ("chunks: update", "chunks", None),
        ("chunks: ", "chunks", None),
        ("chunks: []", "chunks", []),
        ("error: lost", "error", {"code": "lost"}),
        ("error: {status: 502}", "error", {"status": 502}),
        ("error: false", "error", False),
        ("error: true", "error", {}),
        ("done: true", "done", True),
        ("headers: {A: 1, B: null, C: x}", "headers", {"A": "1", "B": None, "C": "x"}),
        ("log: started", "log", ({"message": "started"},)),
        ("log: [{level: info}]", "log", ({"level": "info"},)),
        ("elapsed: 1m", "elapsed", 60),
        ("text: update", "text", "update"),
    ],
)  # fmt: skip
def test_expectations(written: str, key: str, value: Any) -> None:
    """Short forms mean the long ones, and the place of each key is known."""
    expect = case(f"expect: {{{written}}}").exchanges[0].expect
    assert getattr(expect, key) == value
    assert expect.marks[key].column > 1


def test_defaults_of_a_file() -> None:
    """What stands beside the tests holds for each of them; what a test says itself wins or comes first."""
    text = (
        "env: {A: 1, B: 2}\nupstreams: [{url: '*'}]\nrows: {users: {id: 1}, logs: []}\nsql: SELECT 1\nseed: 5\n"
        "now: 2026-01-31T12:00:00+01:00\ntime: real\nfaults: all\ntests:\n"
        "- {name: a, request: {path: /}, env: {B: 3}, upstreams: [{url: http://own}], rows: {users: [{id: 2}]},"
        " sql: SELECT 2, seed: 6, time: virtual, faults: [cut]}\n- {name: b, request: {path: /}, faults: off}\n"
    )
    own, other = cases(text)
    assert own.env == {"A": "1", "B": "3"}
    assert [each.match.url for each in own.upstreams] == ["http://own", "*"]
    assert own.rows == {"users": ({"id": 1}, {"id": 2}), "logs": ()}
    assert (own.sql, own.seed, own.real_time, own.faults) == ("SELECT 1\nSELECT 2", 6, False, frozenset({"cut"}))
    assert (other.env, other.seed, other.real_time, other.faults) == ({"A": "1", "B": "2"}, 5, True, frozenset())
    assert own.now == other.now == datetime(2026, 1, 31, 11, tzinfo=UTC)
    assert case("faults: all").faults == frozenset(FAULTS)


@pytest.mark.parametrize(
    ("path", "request_path", "answered"),
    [
        ("/", "/", True),
        ("/", "/a", False),
        ("/a/{id}", "/a/5?x=/y", True),
        ("/a/{id}", "/a/b%2Fc", True),
        ("/a/{id}", "/a", False),
        ("/a/{id}.json", "/a/5.json", True),
        ("/a/{id}.json", "/a/5.xml", False),
        ("/a/{rest:path}", "/a/b/c/d", True),
        ("/a/{rest:path}", "/a", False),
    ],
)
def test_which_endpoint_answers(path: str, request_path: str, *, answered: bool) -> None:
    """Parameters match one segment or the rest, as they do when requests are served; literals win."""
    inputs = ", ".join(f"{name}: text" for name in parameters(path))
    text = f"method: GET\npath: {path}\ninputParameters: {{{inputs}}}\nfunctionStack: [{{stream: 1}}]\n"
    text += "---\nmethod: GET\npath: /a/{other}/c\ninputParameters: {other: text}\nfunctionStack: [{stream: 1}]\n"
    project, findings = validate({"f": text}, REGISTRY, Streaming())
    assert findings == []
    assert answers(project.endpoints[0], request_path) is answered
    found = find_endpoint(request_path, "HEAD", project.endpoints)
    assert (found is project.endpoints[0]) is answered
    assert find_endpoint(request_path, "POST", project.endpoints) is None


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        (".", "a folder, not a file: .", "write a path"),
        ("fixtures/..", "a folder, not a file: fixtures/..", "write a path"),
        ("fixtures", "a folder, not a file: fixtures", "write a path"),
        ("''", "must be a text", "write a value"),
        ("fixtures/pipe", "not a regular file: fixtures/pipe", "write a path"),
        ("fixtures/dota", "no such file: fixtures/dota", "did you mean `fixtures/data`?"),
        ("x" * 5000, "file name too long: " + "x" * 200, "write a path"),
        ("/", "an absolute path: /", "move the file"),
        ("/dev/zero", "an absolute path: /dev/zero", "move the file"),
        (r"'C:\\data'", "an absolute path: C:\\\\data", "move the file"),
        ("../../../etc/passwd", "outside the project's folder: ../../../etc/passwd", "move the file"),
        ("fixtures/link", "outside the project's folder: fixtures/link", "move the file"),
        ("..", "a folder, not a file: ..", "write a path"),
    ],
)
@pytest.mark.parametrize(
    "key",
    [
        "request: {path: /, file: %s}",
        "request: {path: /, multipart: {part: {file: %s}}}",
        "request: {path: /, chunks: %s}",
        "request: {path: /}, upstreams: [{url: '*', respond: {messages: %s}}]",
    ],
)
def test_files_that_a_test_names_are_regular_ones_of_the_project(
    tmp_path: Path, key: str, written: str, message: str, hint: str
) -> None:
    """Folders, devices, absolute paths and those that leave the project are reported, for every key of files."""
    project, outside = tmp_path / "project", tmp_path / "secret"
    fixtures = project / "definitions" / "fixtures"
    fixtures.mkdir(parents=True)
    outside.write_text("secret")
    (fixtures / "data").write_text("[a]")
    (fixtures / "link").symlink_to(outside)
    os.mkfifo(fixtures / "pipe")
    text = f"tests: [{{name: a, {key % written}}}]\n"
    _, (finding,) = read_test_file(project / "definitions" / "a.test.yaml", "a.test.yaml", text, project)
    assert finding.message.endswith(f"`: {message}"), finding
    assert finding.hint.startswith(hint)


@pytest.mark.parametrize(
    ("settings", "below_project"), [("streamstack.yaml", True), ("definitions/streamstack.yaml", True), (".git", False)]
)
def test_files_may_lie_anywhere_in_the_project(tmp_path: Path, settings: str, *, below_project: bool) -> None:
    """The project is the folder with the settings, or else the repository."""
    project = tmp_path / "a" / "project"
    (project / "definitions").mkdir(parents=True)
    (tmp_path / "a" / "near").write_text("near")
    (project / "data").write_text("data")
    marker = project / settings if below_project else tmp_path / "a" / settings
    if below_project:
        marker.write_text("{}")
    else:
        marker.mkdir()
    text = "tests: [{name: a, request: {path: /, file: ../data}}, {name: b, request: {path: /, file: ../../near}}]\n"
    test = project / "definitions" / "a.test.yaml"
    test.write_text(text)
    _, findings, _ = read_tests(read_project(project / "definitions", REGISTRY, {}), [test])
    outside = [each.message for each in findings if each.code == "wrong-type"]
    assert outside == (["`request.file`: outside the project's folder: ../../near"] if below_project else [])


def test_a_file_of_pieces_that_is_no_yaml_is_reported_by_its_message(tmp_path: Path) -> None:
    """The finding quotes the message of the YAML reader."""
    (tmp_path / "bin").write_bytes(b"a\0b")
    _, (finding,) = read_test_file(tmp_path / "f", "f", "tests: [{name: a, request: {path: /, chunks: bin}}]")
    assert finding.message == "`request.chunks`: bin:1:2: The file holds a NUL character: it may not be text in UTF-8."


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "---\n", "tests:\n"])
def test_a_file_without_tests_is_an_error(text: str) -> None:
    """An empty file is an error, as `tests:` without a value is."""
    _, (finding,) = read_test_file(Path("f"), "f", text)
    assert (finding.code, finding.severity) == ("missing-parameter", "error")


def test_changed_files_are_reported(tmp_path: Path) -> None:
    """300 test files changed at random, and hostile names of files, are reported; nothing is raised."""
    project, _ = validate({"f": "method: GET\npath: /a\nfunctionStack: [{stream: 1}]\n"}, REGISTRY, Streaming())
    random_ = random.Random(20261130)  # noqa: S311  (no secret)
    documents = [plain(read(TEXT, "f")[0][0].root)]
    texts = [
        mutate_nodes(random_, documents) if number % 2 else mutate_characters(random_, [TEXT]) for number in range(1000)
    ]
    names = ("", "a\\0b", "x" * 5000, "..", "/dev/zero", "/proc/self/mem", "~", "\\uD800", "C:\\\\x", "fixtures")
    texts += [f'tests: [{{name: a, request: {{path: /, file: "{name}"}}}}]' for name in names]
    wrong = 0
    for text in texts:
        try:
            file, findings = read_test_file(tmp_path / "a.test.yaml", "f", text)
            findings = sorted({*findings, *check_cases(file, project, {"databases": ()})})
            check(text, findings)
        except BaseException as error:
            error.add_note(text)
            raise
        wrong += any(each.severity == "error" for each in findings)
    assert wrong > 150
