"""Upstreams of tests, as the project's own functions see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from yarl import URL

from streamstack.errors import Mark, RunError
from streamstack.language.cases import Expected, Match, ModelAnswer, Piece, Place, Respond, Upstream
from streamstack.language.settings import HttpSettings
from streamstack.runtime.run import Address
from streamstack.testing.answers import Fault
from streamstack.testing.calls import Call, fits_url
from streamstack.testing.upstreams import LocalUpstreams
from tests.stacks import run_stack
from tests.upstreams import Upstream as Server
from tests.upstreams import answer

MARK = Mark("a.test.yaml", 1, 1)
API = "https://api.example.org/v1"
SSE = (("Content-Type", "text/event-stream"),)
NDJSON = (("Content-Type", "application/x-ndjson"),)


def respond(**parts: Any) -> Respond:
    """Return an answer."""
    return Respond(MARK, **parts)


def upstream(*responds: Respond, **match: Any) -> Upstream:
    """Return an upstream that answers one after the other."""
    return Upstream(MARK, Match(**match), responds)


@dataclass
class Seen:
    """What came of a stack: the chunks that it emitted, its result, its error, and the calls."""

    chunks: list[Any]
    result: Any
    error: RunError | None
    calls: list[Call]
    times: list[float] = field(default_factory=list)

    @property
    def code(self) -> str | None:
        return self.error.code if self.error is not None else None


async def run(
    stack: str,
    *upstreams: Upstream,
    faults: Mapping[int, Fault] | None = None,
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Seen:
    """Run a stack whose calls lead to upstreams."""
    async with LocalUpstreams(upstreams) as mock:
        for number, fault in (faults or {}).items():
            mock.overlay(number, fault)
        http = HttpSettings(redirect=mock.redirect, **(settings or {}))
        outcome = await run_stack(stack, inputs, http=http)
        await asyncio.sleep(0.01)  # the server notices that it was left
        return Seen(outcome.contents, outcome.result, outcome.error, mock.calls)


def relay(**parts: Any) -> str:
    """Return a stack that emits what a stream gives."""
    return (
        f"- http.stream: {json.dumps({'url': API, **parts})}\n  as: items\n"
        "- forEach: {in: << items >>, do: [{stream: << item.data | default(item) >>}]}"
    )


ASK = f"- http.request: {API}/people\n  as: reply\n- return: << [reply.status, reply.body] >>"


def fails(value: Any) -> bool:
    """Fail, as a binding can."""
    raise RunError("template", "no")


THREE = b"data: one\n\ndata: two\n\ndata: thr\xc3\xa9e\n\n"


# ------------------------------------------------------------------------------- whole answers


async def test_whole_answers() -> None:
    """Status, headers and body are as written; https is verified, and the call is recorded as it was meant."""
    stack = f"""
- http.request: {{url: '{API}/people?b=1&a=x%20y', method: POST, json: {{name: Ada}}, headers: {{X-Key: k}}}}
  as: reply
- return: << [reply.status, reply.headers["x-a"], reply.headers["content-type"], reply.body] >>
"""
    answer = respond(status=201, headers=(("X-A", "b"),), body=b'{"id": 7}')
    seen = await run(stack, upstream(answer, method="POST", url=f"{API}/*"))
    assert seen.result == [201, "b", "application/json", {"id": 7}]
    (call,) = seen.calls
    assert (call.number, call.method, str(call.url)) == (1, "POST", f"{API}/people?b=1&a=x%20y")
    assert (call.body, call.document) == (b'{"name":"Ada"}', {"name": "Ada"})
    assert (call.headers["host"], call.headers["x-key"]) == ("api.example.org", "k")
    assert not [name for name in call.headers if "test" in name.lower()]
    assert call.arrived is not None
    assert call.ended is not None
    assert call.ended >= call.arrived
    assert not call.closed_early


async def test_answers_follow_one_another() -> None:
    """The last answer is that of all further calls; each upstream counts its own."""
    stack = f"""
- repeat:
    times: 4
    do:
      - http.request: {{url: 'http://a.example.org/', allowStatus: [4xx]}}
        as: reply
      - stream: << reply.body >>
- http.request: {API}
  as: reply
- stream: << reply.body >>
"""
    seen = await run(
        stack,
        upstream(*(respond(body=each) for each in (b"one", b"two", b"three")), url="http://a.example.org"),
        upstream(respond(body=b"other")),
    )
    assert seen.chunks == ["one", "two", "three", "three", "other"]
    assert [call.number for call in seen.calls] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("status", "headers", "code"), [(204, (), None), (404, (), "http-status"), (599, (), "http-status")]
)
async def test_statuses(status: int, headers: tuple[tuple[str, str], ...], code: str | None) -> None:
    """Any status can be answered; 204 has no body."""
    seen = await run(ASK, upstream(respond(status=status, headers=headers, body=b"{}")))
    assert seen.code == code


async def test_retry_after() -> None:
    """`retry` waits as long as the answer says."""
    busy = respond(status=429, headers=(("retry-after-ms", "30"),), body=b"{}")
    seen = await run(f"- http.request: {API}\n  retry: {{times: 1}}\n  as: r", upstream(busy, respond(body=b"{}")))
    first, second = seen.calls
    assert first.ended is not None
    assert second.arrived is not None
    assert second.arrived - first.ended >= 0.03


# ------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("delay", [0.0, 0.002])
@pytest.mark.parametrize(
    ("parts", "chunks"),
    [
        ({"body": THREE, "headers": SSE}, ["one", "two", "thrée"]),
        ({"body": b'{"data": 1}\n{"data": 2}\n', "headers": NDJSON}, [1, 2]),
        ({"body": b'{"data": 1}\n{"data": 2}\n'}, [1, 2]),
        ({"body": THREE}, ["one", "two", "thrée"]),
        ({"pieces": (Piece(b"data: o"), Piece(b"ne\n", 0.002), Piece(b"\ndata: two\n\n"))}, ["one", "two"]),
        ({"pieces": ()}, []),
    ],
)
async def test_streams(delay: float, parts: dict[str, Any], chunks: list[Any]) -> None:
    """Events, lines and pieces arrive as written, with a delay between them too."""
    seen = await run(relay(), upstream(respond(delay=delay, **parts)))
    assert (seen.error, seen.chunks) == (None, chunks)


async def test_times() -> None:
    """The head, each piece and each event take the time that is written."""
    pieces = (Piece(b"data: 1\n\n", 0.02), Piece(b"data: 2\n\n", 0.03))
    seen = await run(relay(), upstream(respond(headers=SSE, pieces=pieces, first_after=0.05)))
    (call,) = seen.calls
    assert call.arrived is not None
    assert call.ended is not None
    assert 0.1 <= call.ended - call.arrived < 0.6
    assert (call.sent, call.events, call.chunks) == (2, 2, 2)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("delay", [0.0, 0.001])
@pytest.mark.parametrize(
    ("place", "chunks"),
    [
        (Place("events", 0), []),
        (Place("events", 1), ["one"]),
        (Place("events", 1, "event"), ["one"]),
        (Place("events", 3), ["one", "two", "thrée"]),
        (Place("events", 2, "character"), ["one", "two"]),
        (Place("bytes", 12), ["one"]),
        (Place("characters", 23), ["one", "two"]),
        (Place("chunks", 1), None),
    ],
)
async def test_cuts(place: Place, chunks: list[str] | None, delay: float, *, reset: bool) -> None:
    """What came before a cut is read, and the stream is lost."""
    seen = await run(relay(), upstream(respond(headers=SSE, body=THREE, delay=delay, cut_after=place, reset=reset)))
    assert seen.code == "stream-lost"
    if chunks is None:
        chunks = ["one"] if delay else ["one", "two", "thrée"]
    assert seen.chunks == chunks
    (call,) = seen.calls
    assert (call.events, call.closed_early, call.ended is None) == (3, False, False)


@pytest.mark.parametrize("reset", [False, True])
async def test_cut_of_a_whole_answer(*, reset: bool) -> None:
    """It has the length of the whole body, of which only the beginning comes."""
    cut = Place("bytes", 4)
    seen = await run(ASK, upstream(respond(body=b'{"id": 7}', cut_after=cut, reset=reset)))
    assert seen.code == "stream-lost"


async def test_stalls() -> None:
    """Nothing more comes though the connection stays, until the project closes it."""
    stall = respond(headers=SSE, body=THREE, stall_after=Place("events", 2))
    seen = await run(relay(idleTimeout="60ms"), upstream(stall))
    assert (seen.code, seen.chunks) == ("timeout", ["one", "two"])
    assert seen.calls[0].closed_early
    assert seen.calls[0].ended is None


@pytest.mark.parametrize("stack", [ASK, relay()])
async def test_refused(stack: str) -> None:
    """The connection is refused, though another one to the host is open."""
    first = f"- http.request: {API}\n  as: first\n"
    seen = await run(first + stack, upstream(respond(body=b"{}"), respond(refuse=True)))
    assert seen.code == "http-connection"
    assert "api.example.org refused the connection" in str(seen.error)


async def test_places_that_an_answer_lacks() -> None:
    """The call fails with what to write instead."""
    for place in (Place("events", 4), Place("events", 3, "event"), Place("bytes", 33, "character")):
        seen = await run(relay(), upstream(respond(body=THREE, cut_after=place)))
        assert seen.code == "http-connection"
        assert seen.calls[0].problem
        assert seen.calls[0].problem in str(seen.error)


async def test_early_close_is_recorded() -> None:
    """The project closes the connection as soon as it reads no more."""
    stack = f"- http.stream: {API}\n  as: items\n- forEach: {{in: << items >>, do: [{{break: null}}]}}\n- wait: 20ms"
    seen = await run(stack, upstream(respond(headers=SSE, body=THREE, delay=0.5)))
    (call,) = seen.calls
    assert call.closed_early
    assert call.arrived is not None
    assert call.closed is not None
    assert call.closed - call.arrived < 0.4
    assert call.sent == 1


# ------------------------------------------------------------------------------- who answers


@pytest.mark.parametrize(
    ("pattern", "url", "means"),
    [
        ("https://a.example.org", "https://a.example.org/?x=1", True),
        ("https://a.example.org/v1/*/end", "https://a.example.org:443/v1/a/b/end", True),
        ("https://a.example.org/v1", "https://a.example.org:444/v1", False),
        ("https://a.example.org/v1", "http://a.example.org/v1", False),
        ("https://*.example.org/*", "https://b.example.org/anything?y", True),
        ("https://a.example.org/?x=1&y=*", "https://a.example.org/?y=anything&x=1", True),
        ("https://a.example.org/?x=1", "https://a.example.org/?x=1&y=2", False),
        ("https://a.example.org/a b", "https://a.example.org/a%20b", True),
        ("https://a.example.org/é", "https://a.example.org/%C3%A9", True),
        ("wss://a.example.org/*", "wss://a.example.org/feed", True),
    ],
)
def test_urls_of_match(pattern: str, url: str, *, means: bool) -> None:
    """`*` is any text, a query that is not written is any query."""
    assert fits_url(pattern, URL(url, encoded=True)) is means


@pytest.mark.parametrize(
    ("match", "answers"),
    [
        ({}, True),
        ({"method": "post"}, True),
        ({"method": "GET"}, False),
        ({"headers": {"x-key": "k", "X-None": None}}, True),
        ({"headers": {"x-key": None}}, False),
        ({"headers": {"content-type": Expected("", MARK, lambda value: "json" in value)}}, True),
        ({"body": {"a": {"b": 1}}}, True),
        ({"body": {"a": {"b": True}}}, False),
        ({"body": {"c": [1, Expected("", MARK, lambda value: value > 1)]}}, True),
        ({"body": {"c": [1]}}, False),
        ({"body": {"c": Expected("", MARK, fails)}}, False),
        ({"body": {"d": None}}, True),
        ({"body": {"a": None}}, False),
    ],
)
async def test_match(match: dict[str, Any], *, answers: bool) -> None:
    """Headers and objects are compared by the keys that are written; an unmatched call tells what to write."""
    stack = (
        f"- http.request: {{url: '{API}', method: POST, headers: {{X-Key: k}}, json: {{a: {{b: 1, x: 2}}, c: [1, 2]}}}}"
    )
    seen = await run(stack, upstream(respond(body=b"ok"), **match))
    assert (seen.error is None) is answers
    if not answers:
        assert f"no upstream of this test answers POST {API}: add `- match: " in str(seen.error)
        assert seen.calls[0].upstream is None


async def test_body_that_is_read_as_it_is_sent() -> None:
    """It is matched once it has arrived."""
    parts = {"field": "x", "file": {"content": "y" * 10, "filename": "a.txt", "contentType": "text/plain"}}
    stack = f"- http.request: {json.dumps({'url': API, 'method': 'POST', 'multipart': parts})}\n  as: r"
    ours = upstream(respond(body=b"ok"), body=Expected("", MARK, lambda value: "yyyy" in value))
    seen = await run(stack, upstream(respond(refuse=True), body={"no": 1}), ours)
    assert seen.error is None
    assert seen.calls[0].upstream is ours


async def test_network_settings_hold() -> None:
    """Hosts are judged by their names, addresses by the networks, as in production."""
    ours = upstream(respond(body=b"ok"))
    for url, error in (
        (API, None),
        ("https://evil.example.net/", "by `http.allowHosts`"),
        ("http://10.0.0.7/", "in a network"),
        ("http://127.0.0.1/", "by `http.allowHosts`"),
    ):
        settings = {"allow_hosts": ("*.example.org", "10.0.0.7"), "deny_private_networks": True}
        settings["allow_hosts"] = ("*.example.org",) if error != "in a network" else None
        seen = await run(f"- http.request: {url}\n  as: r", ours, settings=settings)
        assert (seen.error is None) == (error is None)
        assert error is None or (error in str(seen.error) and seen.calls == [])


@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]:8443", "bücher.example", "localhost:1", "a.b.c.example"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_hosts_of_every_kind(scheme: str, host: str) -> None:
    """Addresses and other ports lead here too, past a proxy."""
    settings = {"proxy": "http://user:secret@proxy.example:3128"}
    seen = await run(f"- http.request: '{scheme}://{host}/'\n  as: r", upstream(respond(body=b"ok")), settings=settings)
    assert seen.error is None
    assert seen.calls[0].url.scheme == scheme


async def test_own_address_is_not_redirected() -> None:
    """Paths of the project itself lead to the project."""
    project = Server(answer("own", "Content-Type: text/plain"))
    async with project, LocalUpstreams(address=Address()) as mock:
        mock.address = Address(project.url)
        stack = f"- http.request: {project.url}/own\n  as: reply\n- return: << reply.body >>"
        outcome = await run_stack(stack, http=HttpSettings(redirect=mock.redirect))
    assert (outcome.error, outcome.result, mock.calls) == (None, "own", [])


async def test_many_calls_at_once() -> None:
    """A hundred calls are answered, each with its own answer."""
    stack = f"""
- forEach:
    in: << range(100) >>
    concurrency: 100
    do:
      - http.request: {{url: '{API}/<< item >>'}}
        as: reply
      - stream: << reply.body.n == item >>
"""
    answered = [upstream(respond(body=b'{"n": %d}' % n, first_after=0.01), url=f"{API}/{n}") for n in range(100)]
    seen = await run(stack, *answered)
    assert seen.error is None
    assert seen.chunks == [True] * 100
    assert len(seen.calls) == 100
    assert all(call.ended is not None for call in seen.calls)


# ------------------------------------------------------------------------------- models

CHAT = """
- llm.chat: {provider: %s, model: m, apiKey: k, messages: Hi}
  as: reply
- forEach: {in: << reply >>, do: [{stream: << item >>}]}
- return: << reply.message >>
"""


@pytest.mark.parametrize("provider", ["openai", "openaiResponses", "anthropic", "gemini"])
async def test_models(provider: str) -> None:
    """A model's answer comes piece by piece in the protocol of the provider that is asked."""
    model = ModelAnswer(
        text="Hello big world",
        reasoning="Let me think",
        tool_calls=({"name": "weather", "arguments": {"city": "Gent"}}, {"name": "clock", "id": "mine"}),
        usage={"inputTokens": 7, "outputTokens": 9},
    )
    seen = await run(CHAT % provider, upstream(respond(model=model)))
    assert seen.error is None
    texts = [item["text"] for item in seen.chunks if item["type"] == "text"]
    assert texts == ["Hello", " big", " world"]
    message = seen.result
    assert (message["content"], message["reasoning"]) == ("Hello big world", "Let me think")
    assert [(call["id"], call["name"], call["arguments"]) for call in message["toolCalls"]] == [
        ("call_1_1", "weather", {"city": "Gent"}),
        ("mine", "clock", {}),
    ]
    assert message["finishReason"] == "toolCalls"
    assert message["usage"] == {"inputTokens": 7, "outputTokens": 9, "totalTokens": 16}


async def test_model_of_no_provider() -> None:
    """`model` answers requests in the protocol of a provider alone."""
    seen = await run(ASK, upstream(respond(model=ModelAnswer("Hi"))))
    assert "`model` answers requests in the protocol of a provider" in str(seen.error)


# ------------------------------------------------------------------------------- faults


THIRD = Piece(b'\ndata: {"data":3}\n\n')
BUSY = Respond(MARK, status=429, headers=(("Retry-After", "1"),), body=b"{}")


@pytest.mark.parametrize(
    ("fault", "code", "chunks"),
    [
        (Fault(refuse=True), "http-connection", []),
        (Fault(respond=BUSY), "http-status", []),
        (Fault(cut_after=Place("events", 1)), "stream-lost", [1]),
        (Fault(cut_after=Place("events", 1, "event"), reset=True), "stream-lost", [1]),
        (Fault(stall_after=Place("events", 2)), "timeout", [1, 2]),
        (Fault(invalid_after=0), "invalid-chunk", []),
        (Fault(invalid_after=2), "invalid-chunk", [1, 2]),
        (Fault(invalid_after=3), "invalid-chunk", [1, 2, 3]),
    ],
)
@pytest.mark.parametrize(
    "answered",
    [
        respond(headers=NDJSON, body=b'{"data":1}\n{"data":2}\n{"data":3}\n', delay=0.001),
        respond(
            headers=SSE, pieces=(Piece(b'data: {"data":1}\n\ndata: {"data":2}\n'), Piece(b'\ndata: {"data":3}\n\n'))
        ),
    ],
)
async def test_overlays(answered: Respond, fault: Fault, code: str, chunks: list[int]) -> None:
    """A fault is laid over the answer of one call, and of no other."""
    stack = f"""
- http.request: {API}
  as: first
- http.stream: {{url: '{API}', decode: auto, idleTimeout: 60ms}}
  as: items
- forEach: {{in: << items >>, do: [{{stream: << item.data.data if item.data is mapping else item.data >>}}]}}
"""
    seen = await run(stack, upstream(respond(body=b"{}"), answered), faults={2: fault})
    if code == "invalid-chunk" and answered.headers == SSE:
        assert seen.code is None  # data that is not JSON is a text
        assert '{"broken' in seen.chunks
        return
    assert (seen.code, seen.chunks) == (code, chunks)
    assert seen.calls[1].events in (0, 1, 3, 4)


# ------------------------------------------------------------------------------- WebSockets

SOCKET = """
- websocket.stream: {url: 'wss://feed.example.org/live', send: {subscribe: a}}
  as: messages
- forEach: {in: << messages >>, do: [{stream: << item >>}]}
"""
MESSAGES = (Piece(b'{"n": 1}'), Piece(b'{"n": 2}', 0.01), Piece("dr\u00e9i".encode()))


@pytest.mark.parametrize(
    ("parts", "code", "count"),
    [
        ({}, None, 3),
        ({"cut_after": Place("events", 1)}, "stream-lost", 1),
        ({"cut_after": Place("events", 2), "reset": True}, "stream-lost", 2),
        ({"cut_after": Place("events", 1, "event")}, "stream-lost", 1),
        ({"status": 401, "messages": None, "body": b"{}"}, "http-status", 0),
        ({"refuse": True}, "http-connection", 0),
        ({"cut_after": Place("events", 4)}, "http-connection", 0),
    ],
)
async def test_websockets(parts: dict[str, Any], code: str | None, count: int) -> None:
    """Messages come as written, with their times, and end well, by a cut, or not at all."""
    answer = respond(**{"messages": MESSAGES, **parts})
    seen = await run(SOCKET, upstream(answer, url="wss://feed.example.org/*"))
    assert (seen.code, len(seen.chunks)) == (code, count)
    if code is None:
        (call,) = seen.calls
        assert (call.document, call.sent, call.closed_early) == ([{"subscribe": "a"}], 3, False)
