"""Readers who come back: they get what they have not had, once, or learn what is missing."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from streamstack.language.settings import Resume
from streamstack.runtime.run import Run
from tests.server.authenticating import BY_SECRET, SECRET, claims, project, signed
from tests.server.resuming import EIGHT, NONE, contents, counting, events, in_pieces
from tests.server.serving import Client, Emitting, Reply, endpoint, parse, serving


async def test_a_reader_who_was_cut_anywhere_gets_the_rest(tmp_path: Path) -> None:
    """Wherever the bytes broke off: what was read and what is asked for after the last id make the whole, once."""
    async with project(tmp_path, NONE, counting()) as server:
        whole = await server.get("/count")
        name = whole.headers["x-stream-id"]
        assert contents(whole.body) == EIGHT
        for cut in range(len(whole.body) + 1):
            had = events(whole.body[:cut])
            if not had:
                continue
            last = had[-1]["id"]
            for path in (f"/_streams/{name}", "/count"):
                rest = await server.get(path, Last_Event_ID=last)
                if had[-1].get("event") == "done":
                    assert (rest.status, rest.body) == (204, b"")
                else:
                    assert rest.complete
                    assert had + events(rest.body) == events(whole.body)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_a_run_goes_on_while_its_reader_is_away(tmp_path: Path, accept: str) -> None:
    """A reader whose connection broke off comes back while the run goes on, many times over."""
    async with project(tmp_path, NONE, counting(times=40)) as server:
        parts = await asyncio.gather(*(in_pieces(server, accept, size) for size in range(1, 400, 23)))
    for numbers, contents_ in parts:
        assert numbers == list(range(len(numbers)))
        assert contents_[:40] == [f"{{{n}}}" for n in range(1, 41)]


async def test_the_position_stands_in_header_or_query(tmp_path: Path) -> None:
    """The header counts before the query, since an EventSource keeps the address it began with."""
    async with project(tmp_path, NONE, counting()) as server:
        whole = await server.get("/count")
        name = whole.headers["x-stream-id"]
        path = f"/_streams/{name}"
        assert contents((await server.get(path)).body) == EIGHT
        assert contents((await server.get(f"{path}?after=5")).body) == EIGHT[6:]
        assert contents((await server.get(f"{path}?after={name}/5")).body) == EIGHT[6:]
        assert contents((await server.get(f"{path}?lastEventId={name}%2F6")).body) == EIGHT[7:]
        assert contents((await server.get(f"/count?lastEventId={name}/6")).body) == EIGHT[7:]
        both = await server.get(f"{path}?after=1", Last_Event_ID=f"{name}/6")
        assert contents(both.body) == EIGHT[7:]
        wrong = await server.get(f"{path}?after=soon")
        assert wrong.status == 400
        assert json.loads(wrong.body)["errors"][0]["name"] == "after"
        head = await server.ask("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]


async def test_what_there_is_not_is_told_alike(tmp_path: Path) -> None:
    """An id that never was, one of another, and what is not an id get the same answer; a repeated request, too."""
    async with project(tmp_path, NONE, counting() + "---" + counting("/other")) as server:
        name = (await server.get("/count")).headers["x-stream-id"]
        never = "A" * 22
        answers = [
            await server.get(f"/_streams/{never}"),
            await server.get("/_streams/x"),
            await server.ask("DELETE", f"/_streams/{never}"),
            await server.get(f"/_streams/{name}", Last_Event_ID=f"{never}/3"),
        ]
        assert {(each.status, each.body) for each in answers} == {(404, answers[0].body)}
        problem = json.loads(answers[0].body)
        assert problem["code"] == "unknown-stream"
        for last in (f"{never}/3", "3", "x", f"{name}/x"):
            again = await server.get("/count", Last_Event_ID=last)
            assert (again.status, json.loads(again.body)["code"]) == (404, "unknown-stream")
        elsewhere = await server.get("/other", Last_Event_ID=f"{name}/3")
        assert elsewhere.status == 404
        assert (await server.get("/count", Last_Event_ID="")).status == 200


async def test_only_who_began_a_stream_has_it(tmp_path: Path) -> None:
    """The same caller by the same authentication may read and stop it; to anyone else there is none."""
    definition = counting().replace("path:", "authentication: [jwt, key]\npath:")
    keys = (
        "authentication:\n  jwt: {type: jwt, secret: << env.JWT_SECRET >>}\n"
        "  key: {type: apiKey, header: X-Key, keys: {ann: 0123456789abcdef0123456789abcdef}}\n"
    )

    def bearer(subject: str) -> str:
        return f"Bearer {signed(claims(sub=subject))}"

    async with project(tmp_path, keys, definition) as server:
        began = await server.get("/count", Authorization=bearer("ann"))
        path = f"/_streams/{began.headers['x-stream-id']}"
        unknown = await server.get("/_streams/" + "A" * 22)
        assert unknown.status == 404
        for headers in (
            {},
            {"Authorization": bearer("bob")},
            {"Authorization": "Bearer nonsense"},
            {"X_Key": "0123456789abcdef0123456789abcdef"},
        ):
            for method in ("GET", "DELETE", "HEAD"):
                other = await server.ask(method, path, b"", **headers)
                assert other.status == 404
                if method != "HEAD":
                    assert other.body == unknown.body
                    assert other.headers.keys() == unknown.headers.keys()
        again = await server.get(path, Authorization=bearer("ann"))
        assert contents(again.body) == EIGHT
        last = f"{began.headers['x-stream-id']}/2"
        foreign = await server.get("/count", Authorization=bearer("bob"), Last_Event_ID=last)
        assert foreign.status == 404


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("iat", -30, 200),
        ("exp", 120, 200),
        ("nbf", -30, 200),
        ("auth_time", -500, 200),
        ("jti", "another", 200),
        ("client", "other", 404),
        ("scope", "more", 404),
    ],
)
async def test_tokens_without_a_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, status: int
) -> None:
    """Two tokens of one caller differ in their times and their own id; another claim is another caller."""
    monkeypatch.setenv("JWT_SECRET", SECRET)
    definition = counting().replace("path:", "authentication: jwt\npath:")
    first = claims(sub=None, client="shop", scope="read", jti="one")
    changed = value if isinstance(value, str) else int(time.time()) + value
    async with project(tmp_path, BY_SECRET, definition) as server:
        began = await server.get("/count", Authorization=f"Bearer {signed(first)}")
        path = f"/_streams/{began.headers['x-stream-id']}"
        other = signed(first | {name: changed})
        again = await server.get(path, Authorization=f"Bearer {other}")
    assert began.status == 200
    assert again.status == status


async def test_delete_stops_the_run(tmp_path: Path) -> None:
    """Its readers receive the error, what it opened is closed, and `after` runs as of a cancelled run."""
    definition = counting(times=10_000, streaming="resume: true, format: ndjson").replace(
        "functionStack:", "functionStack:\n  - after: {do: [{counter.add: {key: << run.outcome >>}}]}"
    )
    ask = """
---
method: GET
path: /cancelled
responseType: json
functionStack: [{counter.add: {key: cancelled, by: 0}, as: n}, {return: << n >>}]
"""
    async with project(tmp_path, NONE, definition + ask) as server:
        client = await server.connect()
        client.ask("/count")
        head = await client.head()
        name = re.findall(rb"X-Stream-Id: (\S+)", head)[0].decode()
        first = await client.chunk()
        stopped = await server.ask("DELETE", f"/_streams/{name}")
        assert stopped.status == 204
        rest = first + await client.rest()
        last = json.loads(rest.splitlines()[-1])
        assert last["error"]["code"] == "stopped"
        assert last["id"].startswith(name)
        assert (await server.get("/cancelled")).body == b"1"
        assert not server.service.timers
        # Again it is not an error, and a client that resumes gets the same end.
        assert (await server.ask("DELETE", f"/_streams/{name}")).status == 204
        back = await server.get(f"/_streams/{name}?after={int(last['id'].partition('/')[2]) - 1}")
        assert json.loads(back.body)["error"]["code"] == "stopped"
        assert (await server.get(f"/_streams/{name}", Last_Event_ID=last["id"])).status == 204


async def test_two_readers_have_the_same(tmp_path: Path) -> None:
    """Two tabs of one stream: both get all of it, and one that leaves takes nothing from the other."""
    async with project(tmp_path, NONE, counting(times=60)) as server:
        client = await server.connect()
        client.ask("/count", extra="Connection: close\r\n")
        head = await client.head()
        name = re.findall(rb"X-Stream-Id: (\S+)", head)[0].decode()
        others = [asyncio.create_task(server.get(f"/_streams/{name}")) for _ in range(5)]
        third = await server.connect()
        third.ask(f"/_streams/{name}")
        await third.chunk() if await third.head() else None
        third.close()
        body = await client.rest()
        for each in others:
            assert (await each).body == body
        assert len(contents(body)) == 61


async def test_a_failure_is_kept(tmp_path: Path) -> None:
    """A client that resumes a failed stream gets its error, as the first reader was."""
    definition = """
method: GET
path: /fails
streaming: {resume: true}
functionStack:
  - stream: one
  - throw: {code: out-of-luck, message: There was none left}
"""
    async with project(tmp_path, NONE, definition) as server:
        first = await server.get("/fails")
        name = first.headers["x-stream-id"]
        assert contents(first.body) == ["one", "error"]
        back = await server.get(f"/_streams/{name}", Last_Event_ID=f"{name}/0")
        assert events(back.body) == events(first.body)[1:]
        assert (await server.get(f"/_streams/{name}", Last_Event_ID=f"{name}/1")).status == 204


async def test_a_failed_stream_without_an_end_of_its_own_is_cut_for_each_reader(tmp_path: Path) -> None:
    """With `done: false` a good end has no mark, so what failed must look cut short to its reader."""
    definition = """
method: GET
path: /fails
streaming: {resume: true, done: false}
functionStack:
  - stream: one
  - throw: {code: out-of-luck}
"""
    async with project(tmp_path, NONE, definition) as server:
        first = await server.get("/fails")
        name = first.headers["x-stream-id"]
        back = await server.get(f"/_streams/{name}")
        assert not first.complete
        assert not back.complete
        assert first.body == back.body


async def test_other_formats_run_without_coming_back(tmp_path: Path) -> None:
    """What the request chose has no ids: it is sent as without `resume`, and ends with its reader."""
    async with project(tmp_path, NONE, counting()) as server:
        plain = await server.get("/count", Accept="text/plain")
        assert "x-stream-id" not in plain.headers
        assert plain.body == b"".join(b"{%d}" % n for n in range(1, 9))
        document = await server.get("/count", Accept="application/json")
        assert len(json.loads(document.body)["chunks"]) == 8
        assert not len(server.service.streams)


async def test_a_stream_is_read_in_the_format_it_began_with(tmp_path: Path) -> None:
    """Another is not to be had of it; both names of NDJSON are one format."""
    async with project(tmp_path, NONE, counting()) as server:
        lines = await server.get("/count", Accept="application/jsonl")
        path = f"/_streams/{lines.headers['x-stream-id']}"
        assert (await server.get(path, Accept="text/event-stream")).status == 406
        assert (await server.get(path, Accept="application/x-ndjson")).body == lines.body
        assert (await server.get(path, Accept="*/*")).body == lines.body


async def test_other_origins_may_come_back(tmp_path: Path) -> None:
    """Pages of allowed origins read the id, come back, and stop, with what preflights ask."""
    settings = "server: {cors: {origins: ['https://app.example']}}\n"
    async with project(tmp_path, settings, counting()) as server:
        origin = "https://app.example"
        first = await server.get("/count", Origin=origin)
        assert "X-Stream-Id" in first.headers["access-control-expose-headers"]
        path = f"/_streams/{first.headers['x-stream-id']}"
        asked = await server.ask("OPTIONS", path, Origin=origin, Access_Control_Request_Method="DELETE")
        assert asked.status == 204
        assert "DELETE" in asked.headers["access-control-allow-methods"]
        assert "Last-Event-ID" in asked.headers["access-control-allow-headers"]
        for reply in (
            await server.get(path, Origin=origin),
            await server.get(f"{path}?after=8", Origin=origin),
            await server.get("/_streams/x", Origin=origin),
            await server.ask("DELETE", path, Origin=origin),
        ):
            assert reply.headers["access-control-allow-origin"] == origin
        wrong = await server.ask("POST", path)
        assert (wrong.status, wrong.headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS")


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_an_id_of_the_authors_own_is_refused_at_run_time_too(accept: str) -> None:
    """The chunks' ids say where a reader is: an error that is sent, and not a chunk that no client can resume at."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("one")
        await Emitting(run)("two", id="mine")

    async with serving(endpoint(stack, resume=Resume())) as server:
        reply = await server.get(Accept=accept)
    assert b"one" in reply.body
    assert b'"code":"template"' in reply.body
    assert b"two" not in reply.body


async def test_a_stop_that_takes_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is slow to let go of what it holds: 202, as long as it does; 204 once it has ended."""
    monkeypatch.setattr("streamstack.server.resume.streams.STOPPING", 0.2)
    holding, free = asyncio.Event(), asyncio.Event()

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("one")
        try:
            await asyncio.sleep(60)
        finally:
            holding.set()
            await free.wait()

    async with serving(endpoint(stack, resume=Resume())) as server:
        client = await server.connect()
        client.ask("/s")
        name = re.findall(rb"X-Stream-Id: (\S+)", await client.head())[0].decode()
        for _ in range(2):
            asked = await server.ask("DELETE", f"/_streams/{name}")
            assert (asked.status, json.loads(asked.body)) == (202, {"status": "stopping"})
            assert asked.headers["cache-control"] == "no-store"
        assert holding.is_set()
        free.set()
        await client.rest()
        assert (await server.ask("DELETE", f"/_streams/{name}")).status == 204


async def test_http_1_0_and_kept_connections(tmp_path: Path) -> None:
    """A reader without chunked answers gets the bare stream; others keep their connection for the next request."""
    async with project(tmp_path, NONE, counting()) as server:
        raw = await server.raw(b"GET /count HTTP/1.0\r\n\r\n")
        reply = parse(raw)
        assert contents(reply.body) == EIGHT
        name = reply.headers["x-stream-id"]
        client: Client = await server.connect()
        for path in ("/count", f"/_streams/{name}", f"/_streams/{name}?after=2"):
            client.ask(path)
            assert b" 200 " in await client.head()
            body = await client.rest()
            assert contents(body)[-1] == "done"
        client.close()


async def test_an_error_before_the_first_chunk_keeps_its_status(tmp_path: Path) -> None:
    """It is a problem document, as without `resume`; so is what is wrong with the request."""
    definition = """
method: GET
path: /early
streaming: {resume: true}
inputParameters: {n: {type: integer}}
functionStack:
  - throw: {code: sold-out, message: All gone, status: 409}
    when: << input.n is none >>
  - stream: never
"""
    async with project(tmp_path, NONE, definition) as server:
        early: Reply = await server.get("/early")
        assert (early.status, json.loads(early.body)["code"]) == (409, "sold-out")
        assert early.headers["content-type"] == "application/problem+json"
        wrong = await server.get("/early?n=x")
        assert (wrong.status, json.loads(wrong.body)["code"]) == (400, "invalid-input")


async def test_status_and_headers_are_those_of_the_first_answer(tmp_path: Path) -> None:
    """Who comes back gets the status, the headers and the run's id that the first reader got."""
    definition = """
method: GET
path: /headed
streaming: {resume: true}
headers: {X-Kind: << input.kind >>}
inputParameters: {kind: {type: text, required: true}}
functionStack:
  - respond: {status: 202, headers: {X-More: yes}}
  - stream: one
"""
    async with project(tmp_path, NONE, definition) as server:
        first = await server.get("/headed?kind=a")
        back = await server.get(f"/_streams/{first.headers['x-stream-id']}")
        assert back.status == first.status == 202

        def lasting(reply: Reply) -> dict[str, Any]:
            return {key: value for key, value in reply.headers.items() if key != "date"}

        assert lasting(back) == lasting(first)
        assert (first.headers["x-kind"], first.headers["x-more"]) == ("a", "yes")
