"""Whatever a provider does wrong is the documented error, before the first item and after."""

from __future__ import annotations

import asyncio
import json
from time import perf_counter
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.functions.llm import FUNCTIONS
from streamstack.language.settings import HttpSettings
from streamstack.runtime.run import Context, Run
from tests.collector import Collector
from tests.runtime.providers.asking import PROVIDERS, SSE, answered, ask, send_events, stream_of, wire
from tests.stacks import plan_of
from tests.upstreams import END, Script, Upstream, Wire, answer

JSON = "Content-Type: application/json"
MORE = [each for each in FUNCTIONS if each.name not in REGISTRY]
#: The first piece of text of each provider.
FIRST = {
    "openai": b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n',
    "openaiResponses": b'data: {"type":"response.output_text.delta","delta":"Hel"}\n\n',
    "anthropic": b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}\n\n',
    "gemini": b'data: {"candidates":[{"content":{"parts":[{"text":"Hel"}]}}]}\n\n',
}
#: How each provider tells an error in an answer that began well, and the word of it that is shown.
TOLD: dict[str, list[tuple[Any, str, bool]]] = {
    "openai": [
        ({"error": {"message": "m", "type": "server_error", "code": None}}, "server_error", True),
        (
            {"error": {"message": "m", "type": "invalid_request_error", "code": "too_long"}},
            "invalid_request_error",
            False,
        ),
        ({"error": "out of memory"}, "", False),
        ({"error": {"code": 502, "message": "Provider returned error"}}, "502", True),
        ({"error": {"type": "<b>", "message": "m"}}, "", False),
    ],
    "openaiResponses": [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "m", "param": None}, "rate_limit_exceeded", True),
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "m"}}},
            "server_error",
            True,
        ),
    ],
    "anthropic": [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded_error", True),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "m"}}, "invalid_request_error", False),
    ],
    "gemini": [
        ({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}, "UNAVAILABLE", True),
        ({"error": {"code": 400, "message": "bad key", "status": "INVALID_ARGUMENT"}}, "INVALID_ARGUMENT", False),
    ],
}
EVERY = list(PROVIDERS)


@pytest.mark.parametrize("provider", EVERY)
@pytest.mark.parametrize(
    ("status", "lines", "final", "retry_after"),
    [
        ("400 Bad Request", [], True, None),
        ("401 Unauthorized", [], True, None),
        ("404 Not Found", [], True, None),
        ("429 Too Many Requests", [], False, None),
        ("429 Too Many Requests", ["Retry-After: 7"], False, 7),
        ("429 Too Many Requests", ["retry-after-ms: 250", "Retry-After: 1"], False, 0.25),
        ("500 Internal Server Error", [], False, None),
        ("529 Overloaded", ["Retry-After: 2"], False, 2),
    ],
)
async def test_status_is_told(
    provider: str, status: str, lines: list[str], *, final: bool, retry_after: float | None
) -> None:
    """With the provider's own words in the details, and what it says about trying again."""
    body = '{"error":{"message":"Incorrect API key provided: sk-secret","type":"x"}}'
    async with Upstream(answer(body, JSON, *lines, status=status)) as upstream:
        said = await ask(upstream, provider, api_key="sk-secret")
    assert said.error is not None
    assert (said.code, said.error.status, said.items) == ("http-status", 502, [])
    assert said.error.details["status"] == int(status[:3])
    assert said.error.details["body"]["error"]["type"] == "x"
    assert "sk-secret" not in said.error.public
    assert said.error.retry_after == retry_after
    assert said.error.final is final
    assert said.stream["status"] == int(status[:3])


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("provider", "data", "word", "passing"), [(provider, *told) for provider, each in TOLD.items() for told in each]
)
async def test_error_in_an_answer_that_began_well(
    provider: str, data: dict[str, Any], word: str, *, passing: bool, after: bool
) -> None:
    """It is an error, never the end: before the first item and after, with what came kept."""
    event = b"event: error\n" if data.get("type") == "error" else b""
    body = (FIRST[provider] if after else b"") + event + f"data: {json.dumps(data)}\n\n".encode()
    said = await answered(body + wire(f"{provider}-text"), provider)
    assert said.error is not None
    assert said.code == "http-status"
    assert said.error.final is not passing
    assert said.error.message.endswith(f"reported an error in its response{': ' + word if word else ''}")
    assert said.error.details["body"] == data
    assert said.error.details["status"] == 200
    assert said.text == ("Hel" if after else "")
    assert said.message["content"] == ("Hel" if after else "")
    assert said.message["finishReason"] is None


@pytest.mark.parametrize("provider", EVERY)
@pytest.mark.parametrize(
    ("body", "lines", "code"),
    [
        ("<html>Sign in</html>", ["Content-Type: text/html"], "invalid-chunk"),
        ('{"object":"chat.completion","choices":[]}', [JSON], "invalid-chunk"),
        ('{"error":{"type":"server_error","message":"x"}}', [JSON], "http-status"),
        ('[{"error":{"status":"UNAVAILABLE","message":"x"}}]', [JSON], "http-status"),
        ("", [SSE], "stream-lost"),
        ("", [], "stream-lost"),
        ("Bad gateway", ["Content-Type: text/plain"], "stream-lost"),
        ("data: {oops\n\n", [SSE], "invalid-chunk"),
        ("data: [1]\n\n", [SSE], "invalid-chunk"),
        ('data: "text"\n\n', [SSE], "invalid-chunk"),
        ("data: " + "x" * 3000 + "\n\n", [SSE], "invalid-chunk"),
        ("x" * 3000, [SSE], "invalid-chunk"),
    ],
)
async def test_what_is_no_stream_is_told(provider: str, body: str, lines: list[str], code: str) -> None:
    """HTML, JSON, nothing, what does not parse, what is too large."""
    async with Upstream(answer(body, *lines)) as upstream:
        said = await ask(upstream, provider, max_event_size=2000)
    assert (said.code, said.items) == (code, [])


@pytest.mark.parametrize("provider", EVERY)
async def test_connection_that_breaks(provider: str) -> None:
    """Refused, reset before the head, after it, in the middle of an event: each with what came before."""

    async def before_the_head(to: Wire) -> None:
        to.reset()

    async def after_the_head(to: Wire) -> None:
        await to.head(SSE)
        to.reset()

    async def in_an_event(to: Wire) -> None:
        await send_events(to, FIRST[provider] + b'data: {"cho')
        await asyncio.sleep(0.05)
        to.reset()

    async def ends_early(to: Wire) -> None:
        await send_events(to, FIRST[provider] + b'data: {"cho')
        await to.send(END)

    expected: list[tuple[Script, str, str]] = [
        (before_the_head, "http-connection", ""),
        (after_the_head, "stream-lost", ""),
        (in_an_event, "stream-lost", "Hel"),
        (ends_early, "stream-lost", "Hel"),
    ]
    for script, code, text in expected:
        async with Upstream(script) as upstream:
            said = await ask(upstream, provider)
        assert (said.code, said.text) == (code, text), script.__name__
    said = await ask("http://127.0.0.1:9", provider)
    assert said.code == "http-connection"


@pytest.mark.parametrize("provider", EVERY)
async def test_stall(provider: str) -> None:
    """After the head it is the first event that is missing, after a piece the next; heartbeats don't count."""

    def silent(data: bytes) -> Script:
        async def script(to: Wire) -> None:
            await send_events(to, data)
            while True:
                await asyncio.sleep(0.03)
                await to.chunk(b": beat\n\n" + ping)

        return script

    ping = b'event: ping\ndata: {"type": "ping"}\n\n' if provider == "anthropic" else b""
    async with Upstream(silent(b": open\n\n")) as upstream:
        said = await ask(upstream, provider, first_chunk_timeout=0.15, idle_timeout=9)
    assert (said.code, said.items) == ("timeout", [])
    async with Upstream(silent(FIRST[provider])) as upstream:
        said = await ask(upstream, provider, idle_timeout=0.15)
    assert (said.code, said.text) == ("timeout", "Hel")
    async with Upstream(silent(b": open\n\n")) as upstream:
        said = await ask(upstream, provider, timeout=0.15)
    assert said.code == "timeout"


async def test_reasoning_is_no_stall() -> None:
    """Events without an item show that the model is at work."""

    async def script(to: Wire) -> None:
        await to.head(SSE)
        for block in wire("anthropic-text").split(b"\n\n")[:-1]:
            await to.chunk(block + b"\n\n")
            await asyncio.sleep(0.05)
        await to.send(END)

    async with Upstream(script) as upstream:
        said = await ask(upstream, "anthropic", first_chunk_timeout=0.3, idle_timeout=0.3)
    assert (said.code, said.text) == (None, "Grüße, 世界 🌍")


async def test_invalid_events_are_skipped_if_asked() -> None:
    """And counted."""
    first, rest = wire("openai-text").split(b"\n\n", 1)
    body = first + b"\n\ndata: {oops\n\n" + rest
    said = await answered(body, on_invalid="skip")
    assert (said.code, said.text, said.stream["skipped"]) == (None, "Grüße, 世界 🌍", 1)


@pytest.mark.parametrize("provider", EVERY)
@pytest.mark.parametrize("when", ["before the head", "after the head", "after a piece"])
async def test_reader_who_leaves_is_felt_at_once(provider: str, when: str) -> None:
    """The provider sees its connection closed within 50 ms, whatever it was doing."""
    ready, gone = asyncio.Event(), asyncio.Event()

    async def script(to: Wire) -> None:
        if when != "before the head":
            await send_events(to, FIRST[provider] if when == "after a piece" else b": open\n\n")
        ready.set()
        await to.left()
        gone.set()

    async with Upstream(script) as upstream:
        context = Context()
        stream = stream_of(context, provider, base_url=upstream.url).consume()
        if when == "after a piece":
            assert await stream.batch()
        reading = asyncio.create_task(stream.batch())
        await asyncio.wait_for(ready.wait(), 2)
        await asyncio.sleep(0.02)
        clock = asyncio.get_running_loop().time
        left = clock()
        reading.cancel()
        await asyncio.wait([reading])
        await stream.close()
        await asyncio.wait_for(gone.wait(), 1)
        assert upstream.wires[0].left_at is not None
        assert upstream.wires[0].left_at - left < 0.05
        await context.aclose()


async def test_memory_is_bounded() -> None:
    """A provider that never ends is cut off at `http.maxBodySize` characters."""
    said = await answered(FIRST["openai"] * 400, settings=HttpSettings(max_body_size=1000))
    assert said.code == "limit-reached"
    assert 900 < len(said.text) <= 1000
    call = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"12345"}}]}}]}\n\n'
    said = await answered(call * 400, settings=HttpSettings(max_body_size=1000))
    assert (said.code, said.items) == ("limit-reached", [])


async def test_provider_is_not_waited_for_by_a_slow_reader() -> None:
    """Who does not read holds the provider back: nothing piles up between them."""
    sent = 0

    async def script(to: Wire) -> None:
        nonlocal sent
        await to.head(SSE)
        for _ in range(20_000):
            await to.chunk(FIRST["openai"] * 20)
            sent += len(FIRST["openai"]) * 20

    async with Upstream(script) as upstream:
        context = Context()
        stream = stream_of(context, base_url=upstream.url).consume()
        assert await stream.batch()
        await asyncio.sleep(0.5)
        assert sent < 8 << 20  # what the sockets of the system hold
        await stream.close()
        await context.aclose()


# ------------------------------------------------------------------------------ in a definition


async def run(stack: str, upstream: Upstream) -> tuple[Any, RunError | None, list[Any]]:
    """Run a stack; `input.url` is where the model is."""
    plan = plan_of(stack, functions=MORE)
    sink = Collector()
    context = Context()
    try:
        result = await plan.start(Run(sink, context), {"url": upstream.url})
        return result, None, [chunk.content for chunk in sink.chunks]
    except RunError as error:
        return None, error, [chunk.content for chunk in sink.chunks]
    finally:
        await context.aclose()


ASK = "llm.chat: {provider: openai, model: m, baseUrl: << input.url >>, messages: Hi}\n  as: reply\n"
RELAY = "- forEach: {in: << reply >>, do: [{stream: << item.text >>, when: << item.type == 'text' >>}]}\n"


async def test_retry_waits_as_long_as_the_provider_asks() -> None:
    """A 429 with `retry-after-ms` is followed by another try no sooner; its answer counts."""
    refused = answer("{}", JSON, "retry-after-ms: 200", status="429 Too Many Requests")
    async with Upstream(refused, answer(wire("openai-text"), SSE)) as upstream:
        began = perf_counter()
        _, error, contents = await run(
            f"- {ASK}  retry: {{times: 1, delay: 1ms}}\n{RELAY}- return: << reply.message.content >>", upstream
        )
        took = perf_counter() - began
    assert error is None
    assert contents == ["Grüße", ", 世界 🌍"]
    assert 0.2 <= took < 1
    assert len(upstream.asked) == 2


async def test_nothing_is_asked_again_once_an_item_was_given() -> None:
    """What the loop had can't be taken back."""
    async with Upstream(answer(FIRST["openai"], SSE)) as upstream:
        _, error, contents = await run(f"- {ASK}  retry: {{times: 3, delay: 1ms}}\n{RELAY}", upstream)
    assert error is not None
    assert (error.code, contents, len(upstream.asked)) == ("stream-lost", ["Hel"], 1)


async def test_error_is_caught_where_the_stream_is_read() -> None:
    """With its code, its status and the provider's words; `message` has what came before."""
    told = f"data: {json.dumps(TOLD['openai'][0][0])}\n\n".encode()
    async with Upstream(answer(FIRST["openai"] + told, SSE)) as upstream:
        result, error, contents = await run(
            f"- {ASK}- try:\n    do:\n      {RELAY}"
            "    catch:\n      on: [http-status]\n      do:\n        - return: >-\n"
            "            << [error.code, error.details.body.error.type, reply.message.content] >>",
            upstream,
        )
    assert error is None
    assert contents == ["Hel"]
    assert result == ["http-status", "server_error", "Hel"]


async def test_loop_that_breaks_closes_the_connection() -> None:
    """At once, not when the answer has come to its end."""
    left = 0.0

    async def script(to: Wire) -> None:
        nonlocal left
        await send_events(to, FIRST["openai"])
        left = await to.left()

    async with Upstream(script) as upstream:
        result, error, _ = await run(
            f"- {ASK}- forEach: {{in: << reply >>, do: [{{break: }}]}}\n- wait: 100ms\n"
            "- return: << [reply.count, reply.finished] >>",
            upstream,
        )
        assert error is None
        assert result == [1, False]
        assert 0 < left < asyncio.get_running_loop().time() - 0.05
