"""A file or a stream where a value is needed: an error that says what to write, in every function."""

from __future__ import annotations

from typing import Any

import pytest

from streamstack.language.settings import Database
from streamstack.runtime.values import Batches, File, Stream
from tests.postgres import query
from tests.stacks import run_stack

URL = "url: 'http://127.0.0.1:1/'"
MODEL = "provider: openai, baseUrl: 'http://127.0.0.1:1/', apiKey: x, model: m"
READ = "{in: << r >>, do: [{stream: << item >>}]}"
#: A step of each function, with something other than a value where one is needed.
STEPS = [
    "set: {x: << v | toJson >>}", "set: {x: 'a << v >>'}", "log: << v >>", "log: {message: a, fields: {a: << v >>}}",
    "switch: {value: << v >>, cases: {a: [{log: a}]}}", "repeat: {times: << v >>, do: [{log: a}]}", "wait: << v >>",
    "throw: {code: x, message: << v >>}", "stream: << v >>", "stream: {content: a, event: << v >>}",
    "streams.window: {in: [1], by: << v >>, compute: {a: {op: count}}}",
    "streams.window: {in: [1], compute: {a: {op: distinct, of: << v >>}}}",
    "streams.window: {in: [1], compute: {a: {op: min, of: << v >>}}}",
    "streams.changes: {in: [1], key: << v >>}",
    "streams.changes: {in: '<< [v] >>'}", "streams.split: {in: '<< [v] >>'}",
    "collect: {in: '<< [v] >>', into: text}", "collect: {in: '<< [v] >>', into: bytes}",
    "db.value: SELECT << v >>::text", "db.value: SELECT << v >>::bytea", "db.insert: {table: t, values: {b: << v >>}}",
    "db.insert: {table: t, values: {j: {x: [<< v >>]}}}", "db.insert: {table: t, rows: [{j: {x: << v >>}}]}",
    "db.update: {table: t, set: {b: << v >>}, where: {n: a}}", "db.get: {table: t, where: {n: {in: '<< [v] >>'}}}",
    "db.listen: << v >>", "cache.get: << v >>", "cache.set: {key: k, value: << v >>}",
    "counter.add: {key: k, by: << v >>}",
    "cache.set: {key: k, value: {a: << v >>}}", "cache.use: {key: k, ttl: 5s, do: [{return: << v >>}]}",
    "jwt.sign: {claims: {a: << v >>}, secret: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}", "password.hash: << v >>",
    "hmac.verify: {content: << v >>, signature: a, secret: b}", f"http.request: {{{URL}, method: POST, json: << v >>}}",
    f"http.request: {{{URL}, method: POST, form: {{a: << v >>}}}}", f"http.request: {{{URL}, query: {{a: << v >>}}}}",
    f"http.request: {{{URL}, headers: {{a: << v >>}}}}", "http.request: {url: 'http://127.0.0.1:1/<< v >>'}",
    "websocket.stream: {url: 'ws://127.0.0.1:1/', send: << v >>}",
    f"llm.chat: {{{MODEL}, system: << v >>, messages: a}}",
    f"llm.chat: {{{MODEL}, messages: [{{role: user, content: << v >>}}]}}",
]  # fmt: skip


def stream() -> Stream:
    """Return a stream of bytes in two pieces."""

    async def batches() -> Batches:
        yield [b"first"]
        yield [b"second"]

    return Stream(batches)


async def file_of(data: bytes) -> File:
    """Return an uploaded file."""
    file = File("a.bin", "application/octet-stream")
    await file.write(data)
    return file


@pytest.fixture
def databases(postgres: str) -> dict[str, Database]:
    """A table of texts, bytes and JSON."""
    query(postgres, "CREATE TABLE t (n text, b bytea, j jsonb)")
    return {"main": Database(url=postgres)}


@pytest.mark.parametrize("kind", ["file", "stream"])
async def test_no_first_piece_is_taken_for_the_value(databases: dict[str, Database], kind: str) -> None:
    """Every step fails with `template` and names the kind; nothing is stored."""
    for step in STEPS:
        makes_stream = step.startswith(("streams.", "websocket", "llm", "db.listen"))
        # By a variable: what is passed on as the client sent it would be the client's fault.
        stack = f"- set: {{v: << input.v >>}}\n- {step}\n"
        if makes_stream:
            stack += f"  as: r\n- forEach: {READ}"
        elif step.startswith(("db.", "cache.", "counter", "jwt", "password", "http", "collect")) and ".set" not in step:
            stack += "  as: r"
        value: Any = stream() if kind == "stream" else await file_of(b"data")
        outcome = await run_stack(stack, {"v": value}, databases=databases)
        assert outcome.error is not None, step
        assert outcome.error.code == "template", (step, outcome.error.message)
        assert kind in outcome.error.message, (step, outcome.error.message)
    assert query(databases["main"].url or "", "SELECT 1 FROM t WHERE $1", True) == []


async def test_a_large_file_becomes_one_value(databases: dict[str, Database]) -> None:
    """Longer than a piece: as bytes and as text; a stream of bytes likewise."""
    data = "grün ".encode() * 100_000
    stack = """
    - collect: {in: << input.v >>, into: bytes}
      as: whole
    - db.insert: {table: t, values: {b: << whole >>}}
      as: row
    - db.value: SELECT sha256(b) FROM t
      as: sum
    - return: << [whole | length, sum == input.sum] >>
    """
    query(databases["main"].url or "", "SELECT 1 WHERE $1", True)
    (digest,) = query(databases["main"].url or "", "SELECT sha256($1::bytea)", data)[0]
    file = await file_of(data)
    outcome = await run_stack(stack, {"v": file, "sum": digest}, databases=databases)
    assert (outcome.error, outcome.result) == (None, [len(data), True])
    text = "- collect: {in: << input.v >>, into: text}\n  as: r\n- return: << r >>"
    assert (await run_stack(text, {"v": file})).result == data.decode()
    pieces = "- file.read: {from: << input.v >>, decode: bytes}\n  as: p\n- collect: {in: << p >>, into: bytes}\n  as: r\n- return: << r >>"  # noqa: E501  (a stack)
    assert (await run_stack(pieces, {"v": file})).result == data


@pytest.mark.parametrize(
    ("step", "data", "code", "status"),
    [
        ("{in: << input.v >>, into: bytes, maxSize: 3}", b"data", "limit-reached", 500),
        ("{in: << input.v >>, into: text}", b"\xff", "invalid-chunk", 400),
        ("<< input.v >>", b"data", "template", 500),
    ],
)
async def test_a_file_that_is_no_such_value(step: str, data: bytes, code: str, status: int) -> None:
    """Too large, no text, no list."""
    outcome = await run_stack(f"- collect: {step}\n  as: r", {"v": await file_of(data)})
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.status) == (code, status)


async def test_bytes_are_no_text_and_size_is_bounded() -> None:
    """Bytes collected into a text would be base64 in pieces; a text or bytes have a maximum size."""
    for value, step, code in (
        ([b"a"], "{in: << input.v >>, into: text}", "template"),
        ([5], "{in: << input.v >>, into: bytes}", "template"),
        (["ab", "cd"], "{in: << input.v >>, into: text, maxSize: 3}", "limit-reached"),
        ([b"ab", "ü"], "{in: << input.v >>, into: bytes, maxSize: 3}", "limit-reached"),
    ):
        outcome = await run_stack(f"- collect: {step}\n  as: r", {"v": value})
        assert outcome.error is not None
        assert outcome.error.code == code
