"""`Idempotency-Key`: a request that is sent again gets the answer of the run that it began the first time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.server.authenticating import claims, project, signed
from tests.server.resuming import NONE, contents, counting, events, until
from tests.server.serving import Server

#: Counts its runs, and tells which one this is.
ORDER = """
method: POST
path: /order
streaming: {resume: {keep: 5s}}
inputParameters:
  item: {type: text, required: true}
  file: {type: file}
functionStack:
  - counter.add: {key: runs}
    as: turn
  - repeat:
      times: 5
      do:
        - stream: {content: "run << turn >>: << input.item >> << loop.index >>", delay: 10ms}
---
method: GET
path: /runs
responseType: json
functionStack: [{counter.add: {key: runs, by: 0}, as: n}, {return: << n >>}]
"""
JSON = {"Content_Type": "application/json"}


def chunks(item: str, run: int = 1) -> list[str]:
    """Return what a run sends."""
    return [f"run {run}: {item} {n}" for n in range(1, 6)] + ["done"]


async def runs(server: Server) -> int:
    """Return how many runs there were."""
    return int((await server.get("/runs")).body)


async def test_a_request_sent_again_gets_the_same_run(tmp_path: Path) -> None:
    """While it runs and after its end; the key may be quoted, as the draft has it."""
    async with project(tmp_path, NONE, ORDER) as server:
        body = b'{"item": "tea"}'
        first = await server.ask("POST", "/order", body, **JSON, Idempotency_Key='"k1"')
        again = await server.ask("POST", "/order", body, **JSON, Idempotency_Key="k1")
        assert contents(first.body) == chunks("tea")
        assert again.body == first.body
        assert again.headers["x-stream-id"] == first.headers["x-stream-id"]
        assert await runs(server) == 1
        other = await server.ask("POST", "/order", body, **JSON, Idempotency_Key="k2")
        assert contents(other.body) == chunks("tea", 2)


async def test_many_at_once_begin_one_run(tmp_path: Path) -> None:
    """However many come at the same moment."""
    async with project(tmp_path, NONE, ORDER) as server:
        replies = await asyncio.gather(
            *(server.ask("POST", "/order", b'{"item": "tea"}', **JSON, Idempotency_Key="k") for _ in range(20))
        )
        assert {reply.body for reply in replies} == {replies[0].body}
        assert contents(replies[0].body) == chunks("tea")
        assert await runs(server) == 1


async def test_the_same_key_with_another_request_is_refused(tmp_path: Path) -> None:
    """Another body, another query: 422, and nothing is run. The form of the body does not matter, what it says does."""
    async with project(tmp_path, NONE, ORDER) as server:
        key = {"Idempotency_Key": "k"}
        await server.ask("POST", "/order", b'{"item": "tea"}', **JSON, **key)
        other = await server.ask("POST", "/order", b'{"item": "coffee"}', **JSON, **key)
        assert (other.status, json.loads(other.body)["code"]) == (422, "idempotency-key-reused")
        query = await server.ask("POST", "/order?x=1", b'{"item": "tea"}', **JSON, **key)
        assert query.status == 422
        spaced = await server.ask("POST", "/order", b' { "item" : "tea" } ', **JSON, **key)
        assert spaced.status == 200
        assert await runs(server) == 1


async def test_files_are_compared_by_their_content(tmp_path: Path) -> None:
    """A form has another boundary each time it is sent: only what is in it counts."""

    def form(boundary: str, content: str) -> bytes:
        lines = [
            f"--{boundary}",
            'Content-Disposition: form-data; name="item"',
            "",
            "tea",
            f"--{boundary}",
            'Content-Disposition: form-data; name="file"; filename="a.txt"',
            "",
            content,
            f"--{boundary}--",
            "",
        ]
        return "\r\n".join(lines).encode()

    async with project(tmp_path, NONE, ORDER) as server:
        found = []
        for boundary, content in (("one", "same"), ("two", "same"), ("three", "else")):
            kind = f"multipart/form-data; boundary={boundary}"
            reply = await server.ask("POST", "/order", form(boundary, content), Content_Type=kind, Idempotency_Key="k")
            found.append(reply.status)
        assert found == [200, 200, 422]
        assert await runs(server) == 1


async def test_a_key_is_its_owners_and_its_endpoints(tmp_path: Path) -> None:
    """Another caller with the same key begins a run of its own, and so does another endpoint."""
    definition = ORDER.replace("path: /order", "path: /order\nauthentication: jwt")
    async with project(tmp_path, definitions=definition) as server:
        for subject, run in (("ann", 1), ("bob", 2), ("ann", 1)):
            reply = await server.ask(
                "POST",
                "/order",
                b'{"item": "tea"}',
                **JSON,
                Authorization=f"Bearer {signed(claims(sub=subject))}",
                Idempotency_Key="k",
            )
            assert contents(reply.body) == chunks("tea", run)
        assert await runs(server) == 2


async def test_a_key_and_a_position(tmp_path: Path) -> None:
    """A request that is sent again with the id of its last chunk goes on from there."""
    async with project(tmp_path, NONE, ORDER) as server:
        body = b'{"item": "tea"}'
        first = await server.ask("POST", "/order", body, **JSON, Idempotency_Key="k")
        last = events(first.body)[2]["id"]
        rest = await server.ask("POST", "/order", body, **JSON, Idempotency_Key="k", Last_Event_ID=last)
        assert events(rest.body) == events(first.body)[3:]


async def test_a_run_waits_for_its_key_to_come_back(tmp_path: Path) -> None:
    """With a key, a reader can come back who left before the first chunk."""
    definition = ORDER.replace("  - repeat:", "  - wait: 300ms\n  - repeat:")
    async with project(tmp_path, NONE, definition) as server:
        client = await server.connect()
        body = '{"item": "tea"}'
        lines = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nIdempotency-Key: k\r\n"
        client.ask("/order", "POST", extra=lines)
        client.writer.write(body.encode())
        await until(lambda: len(server.service.streams) == 1)
        client.close()
        await asyncio.sleep(0.05)
        reply = await server.ask("POST", "/order", body.encode(), **JSON, Idempotency_Key="k")
        assert contents(reply.body) == chunks("tea")
        assert await runs(server) == 1


async def test_a_failure_is_the_answer_each_time(tmp_path: Path) -> None:
    """The error of the run is sent again; what was wrong with the request keeps no key."""
    definition = ORDER.replace(
        "  - repeat:", "  - throw: {code: sold-out, status: 409}\n    when: << turn == 1 >>\n  - repeat:"
    )
    async with project(tmp_path, NONE, definition) as server:
        wrong = await server.ask("POST", "/order", b"{}", **JSON, Idempotency_Key="k")
        assert wrong.status == 400
        first = await server.ask("POST", "/order", b'{"item": "tea"}', **JSON, Idempotency_Key="k")
        again = await server.ask("POST", "/order", b'{"item": "tea"}', **JSON, Idempotency_Key="k")
        assert (first.status, json.loads(first.body)["code"]) == (409, "sold-out")
        assert (again.status, again.body) == (first.status, first.body)
        assert await runs(server) == 1


@pytest.mark.parametrize("key", ['""', "x" * 256, "a\tb", ""])
async def test_what_is_no_key_is_refused(tmp_path: Path, key: str) -> None:
    """It is reported with the header's name."""
    async with project(tmp_path, NONE, ORDER) as server:
        reply = await server.ask("POST", "/order", b'{"item": "tea"}', **JSON, Idempotency_Key=key)
        assert reply.status == 400
        (fault,) = json.loads(reply.body)["errors"]
        assert (fault["in"], fault["name"]) == ("header", "Idempotency-Key")
        assert await runs(server) == 0


async def test_a_key_where_nothing_can_be_read_again(tmp_path: Path) -> None:
    """A format without ids can't replay a run: the request is refused. Without `resume` the key is not looked at."""
    plain = "---" + counting("/plain", streaming="format: sse").replace("GET", "POST")
    async with project(tmp_path, NONE, ORDER + plain) as server:
        reply = await server.ask("POST", "/order", b'{"item": "a"}', **JSON, Idempotency_Key="k", Accept="text/plain")
        assert reply.status == 400
        assert "Idempotency-Key" in reply.body.decode()
        ignored = await server.ask("POST", "/plain", Idempotency_Key="")
        assert ignored.status == 200
