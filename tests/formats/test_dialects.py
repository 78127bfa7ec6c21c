"""The bytes of the dialects: what every one of them does, and what each does in its own way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamstack.errors import RunError
from streamstack.formats.items import call_item, finish_item, reasoning_item, text_item, usage_item
from streamstack.runtime.run import Run
from streamstack.server.response_options import Limits
from tests.formats.dialects import (
    HEARD,
    STREAM,
    Event,
    events,
    heard_ai_sdk,
    heard_anthropic,
    heard_openai,
    post,
    say,
    speaking,
)
from tests.server.declared import declared
from tests.server.serving import Emitting, serving

DIALECTS = ("openai", "anthropic", "aiSdk")
WHOLE = ("openai", "anthropic")
USAGE = {"stream": True, "stream_options": {"include_usage": True}}

CALL = [
    call_item(0, "c1", "weather", '{"city"'),
    call_item(0, "c1", "weather", ':"Paris"}'),
    call_item(1, "c2", "now", ""),
    {"type": "toolCall", "name": "add", "arguments": {"a": [1, 2]}},
]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_of_text(dialect: str) -> None:
    """Texts and items of text are deltas of one run of text; breaks, quotes and lone surrogates are JSON's."""
    reply = await say(dialect, "Hé", text_item(' "x"\r\n'), "", "☁ \ud83d", {"type": "text", "text": "!"})
    assert (reply.status, reply.complete) == (200, True)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache, no-transform"
    assert reply.headers["x-accel-buffering"] == "no"
    said = HEARD[dialect](reply.body)
    assert said.blocks == ['Hé "x"\r\n☁ \ufffd!']
    assert said.reason == {"anthropic": "end_turn"}.get(dialect, "stop")
    assert b"\\u" not in reply.body


async def test_headers_of_each_dialect() -> None:
    """Each SDK finds the run's id where it looks for it; the UI stream names its version."""
    for dialect, name in (("openai", "x-request-id"), ("anthropic", "request-id")):
        for body in (STREAM, {}):
            reply = await say(dialect, "x", body=body)
            assert reply.headers[name] == reply.headers["x-run-id"]
    reply = await say("aiSdk", "x")
    assert reply.headers["x-vercel-ai-ui-message-stream"] == "v1"


async def test_chunks_of_openai() -> None:
    """Every chunk has the same id, time and model; the role comes first, the reason last, then [DONE]."""
    reply = await say("openai", "Hi")
    *chunks, last = events(reply.body)
    assert last == Event("", "[DONE]")
    run = reply.headers["x-run-id"]
    for chunk in chunks:
        assert chunk.name == ""
        assert chunk.data["id"] == f"chatcmpl-{run}"
        assert (chunk.data["object"], chunk.data["model"]) == ("chat.completion.chunk", "m")
        assert isinstance(chunk.data["created"], int)
        assert "usage" not in chunk.data
    choices = [chunk.data["choices"][0] for chunk in chunks]
    assert [each["delta"] for each in choices] == [{"role": "assistant", "content": ""}, {"content": "Hi"}, {}]
    assert [each["finish_reason"] for each in choices] == [None, None, "stop"]


async def test_events_of_anthropic() -> None:
    """Every event has its name; the message begins without content and ends with its reason."""
    reply = await say("anthropic", "Hi")
    named = [event.name for event in events(reply.body)]
    assert named == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message = events(reply.body)[0].data["message"]
    assert message == {
        "id": f"msg_{reply.headers['x-run-id']}",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


async def test_parts_of_the_ai_sdk() -> None:
    """The parts are those of the UI message stream, version 1."""
    reply = await say("aiSdk", "Hi")
    assert [event.data for event in events(reply.body)] == [
        {"type": "start", "messageId": f"msg_{reply.headers['x-run-id']}"},
        {"type": "text-start", "id": "0"},
        {"type": "text-delta", "id": "0", "delta": "Hi"},
        {"type": "text-end", "id": "0"},
        {"type": "finish", "finishReason": "stop"},
        "[DONE]",
    ]


async def test_an_answer_of_the_ai_sdk_that_goes_on_keeps_the_id_of_its_message() -> None:
    """After a tool's result the page's last message is the assistant's: the answer goes on with it."""
    message = {"id": "msg-7", "role": "assistant", "parts": []}
    reply = await say("aiSdk", "Hi", body={"messages": [{"role": "user"}, message]})
    assert events(reply.body)[0].data == {"type": "start", "messageId": "msg-7"}
    reply = await say("aiSdk", "Hi", body={"messages": [message, {"id": "u", "role": "user"}]})
    assert events(reply.body)[0].data["messageId"] == f"msg_{reply.headers['x-run-id']}"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_tool_calls(dialect: str) -> None:
    """A call in pieces, one without arguments, one whole, and text on both sides."""
    reply = await say(dialect, "Let me see.", *CALL, "So:")
    said = HEARD[dialect](reply.body)
    run = reply.headers["x-run-id"]
    calls = [("c1", "weather", {"city": "Paris"}), ("c2", "now", {}), (f"call_{run[:16]}_2", "add", {"a": [1, 2]})]
    if dialect == "openai":
        assert said.blocks == ["Let me see.So:", *calls]
    else:
        assert said.blocks == ["Let me see.", *calls, "So:"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_answer_that_ends_with_a_call_ends_for_it(dialect: str) -> None:
    """Where no item tells the reason, the last block does."""
    said = HEARD[dialect]((await say(dialect, *CALL)).body)
    assert said.reason == {"openai": "tool_calls", "anthropic": "tool_use"}.get(dialect, "tool-calls")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("stop", ("stop", "end_turn", "stop")),
        ("length", ("length", "max_tokens", "length")),
        ("toolCalls", ("tool_calls", "tool_use", "tool-calls")),
        ("contentFilter", ("content_filter", "refusal", "content-filter")),
        ("refusal", ("content_filter", "refusal", "content-filter")),
        ("other", ("stop", "end_turn", "other")),
    ],
)
async def test_reasons(reason: str, words: tuple[str, ...]) -> None:
    """The reason of the end, in the words of each; it stands at the end whenever it comes."""
    for dialect, word in zip(DIALECTS, words, strict=True):
        said = HEARD[dialect]((await say(dialect, finish_item(reason), "x")).body)
        assert said.reason == word
        assert said.blocks == ["x"]


async def test_usage() -> None:
    """What was used is reported in each dialect's words; of answers relayed as one, the sum."""
    used = usage_item(inputTokens=11, outputTokens=4, cachedTokens=3, reasoningTokens=1)
    more = usage_item(inputTokens=5, outputTokens=2)
    openai = {
        "prompt_tokens": 16,
        "completion_tokens": 6,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    anthropic = {"input_tokens": 13, "output_tokens": 6, "cache_read_input_tokens": 3}
    assert heard_openai((await say("openai", used, "x", more, body=USAGE)).body).usage == openai
    assert heard_anthropic((await say("anthropic", used, "x", more)).body).usage == anthropic
    assert heard_ai_sdk((await say("aiSdk", used, "x", more)).body).usage == {
        "inputTokens": 16,
        "outputTokens": 6,
        "totalTokens": 22,
        "cachedTokens": 3,
        "reasoningTokens": 1,
    }
    whole = json.loads((await say("openai", used, "x", more, body={})).body)
    assert whole["usage"] == openai
    whole = json.loads((await say("anthropic", used, "x", more, body={})).body)
    assert whole["usage"] == anthropic


async def test_usage_of_openai_is_for_who_asks() -> None:
    """A chunk without choices breaks clients that did not ask for one; nothing is made up either."""
    used = usage_item(inputTokens=1, outputTokens=2)
    assert heard_openai((await say("openai", "x", used)).body).usage is None
    reply = await say("openai", "x", body=USAGE)
    assert heard_openai(reply.body).usage is None
    assert all(event.data["usage"] is None for event in events(reply.body)[:-1])
    assert "usage" not in json.loads((await say("openai", "x", body={})).body)


async def test_a_whole_completion() -> None:
    """Unless a stream is asked for, one object answers."""
    reply = await say("openai", "Let me", " see", *CALL, body={"model": "m"})
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    document = json.loads(reply.body)
    run = reply.headers["x-run-id"]
    assert isinstance(document.pop("created"), int)
    assert document == {
        "id": f"chatcmpl-{run}",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Let me see",
                    "refusal": None,
                    "tool_calls": [
                        _function("c1", "weather", '{"city":"Paris"}'),
                        _function("c2", "now", "{}"),
                        _function(f"call_{run[:16]}_2", "add", '{"a":[1,2]}'),
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
    }
    empty = json.loads((await say("openai", body={})).body)
    assert empty["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": None}
    assert empty["model"] == "streamstack"


def _function(name: str, function: str, arguments: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": function, "arguments": arguments}}


async def test_a_whole_message() -> None:
    """Blocks in their order, arguments as objects."""
    reply = await say("anthropic", "Let me", " see", *CALL, finish_item("length"), body={"model": "m"})
    run = reply.headers["x-run-id"]
    assert json.loads(reply.body) == {
        "id": f"msg_{run}",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "text", "text": "Let me see"},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}},
            {"type": "tool_use", "id": "c2", "name": "now", "input": {}},
            {"type": "tool_use", "id": f"call_{run[:16]}_2", "name": "add", "input": {"a": [1, 2]}},
        ],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


@pytest.mark.parametrize(
    ("dialect", "body", "faults"),
    [
        ("openai", {"stream": "true"}, {"stream": "must be true or false"}),
        ("openai", {"stream": 1, "model": []}, {"stream": "must be true or false", "model": "must be a text"}),
        (
            "openai",
            {"stream_options": {"include_usage": {}}},
            {"stream_options.include_usage": "must be true or false"},
        ),
        ("openai", {"stream_options": 1}, {"stream_options": "must be an object"}),
        ("openai", {"stream": None, "model": None, "stream_options": {"include_usage": None}}, {}),
        ("anthropic", {"stream": {}, "stream_options": 1}, {"stream": "must be true or false"}),
        ("aiSdk", {"stream": 1}, {}),
    ],
)
async def test_what_a_dialect_reads_is_checked(dialect: str, body: Any, faults: dict[str, str]) -> None:
    """A property of another type is a 400, as the document says, unless it is an input of the endpoint."""
    keys = f"method: POST\npath: /s\nresponseType: streaming\nstreaming: {{format: {dialect}}}\n"
    async with declared(f"{keys}functionStack: [{{stream: x}}]") as (server, _):
        reply = await post(server, body)
        assert reply.status == (400 if faults else 200)
        assert all(f"{name} {message}" in reply.body.decode() for name, message in faults.items()), reply.body
    async with declared(f"{keys}inputParameters: {{stream: json}}\nfunctionStack: [{{stream: x}}]") as (server, _):
        reply = await post(server, body)
        assert reply.status == (400 if faults.keys() - {"stream"} else 200)


@pytest.mark.parametrize("body", [{}, {"stream": False}, {"stream": "true"}, {"stream": 1}, [], 5])
async def test_only_true_asks_for_a_stream(body: Any) -> None:
    """Anything but `stream: true` in an object asks for the whole."""
    for dialect in WHOLE:
        reply = await say(dialect, "x", body=body)
        assert reply.headers["content-type"].startswith("application/json")
    reply = await say("aiSdk", "x", body=body)
    assert reply.headers["content-type"].startswith("text/event-stream")


async def test_a_whole_answer_is_json_whatever_its_author_calls_the_stream() -> None:
    """A Content-Type of the author's is the stream's; other headers, status and cookies are of both."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        run.sink.respond(201, {"X-A": "1", "content-type": "text/event-stream"}, {"c": "d"})
        run.sink.emit("x", None, None, None)

    own = {"headers": (("Content-Type", "text/event-stream"), ("X-B", "2"))}
    async with serving(speaking("openai", stack, wire=own)) as server:
        reply = await post(server, {})
        assert (reply.status, reply.headers["content-type"]) == (201, "application/json; charset=utf-8")
        assert (reply.headers["x-a"], reply.headers["x-b"]) == ("1", "2")
        assert reply.headers["set-cookie"].startswith("c=d")
        reply = await post(server, STREAM)
        assert (reply.status, reply.headers["content-type"]) == (201, "text/event-stream")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("between", ["text", call_item(1, "c2", "f", "{}")])
async def test_the_items_of_a_call_follow_one_another(dialect: str, between: Any) -> None:
    """A call that goes on after something else began can't be told in blocks."""
    reply = await say(dialect, call_item(0, "c1", "f", "{"), between, call_item(0, "c1", "f", "}"), wire={"dev": True})
    assert b"the tool call c1 goes on after something else began" in reply.body


async def test_calls_are_told_apart_by_id_index_or_name() -> None:
    """A second answer counts its calls from 0 again; ids that are missing are made."""
    items = [
        {"type": "toolCall", "index": 0, "id": "a", "name": "f", "arguments": "{}"},
        {"type": "toolCall", "index": 0, "id": "b", "name": "f", "arguments": "{}"},
        {"type": "toolCall", "index": 1, "name": "f", "arguments": "{"},
        {"type": "toolCall", "index": 1, "arguments": "}"},
        {"type": "toolCall", "arguments": ""},
        {"type": "toolCall", "name": "g"},
        {"type": "toolCall", "name": "g", "arguments": {}},
        {"type": "toolCall", "name": "g", "arguments": {}},
    ]
    reply = await say("anthropic", *items)
    run = reply.headers["x-run-id"][:16]
    assert heard_anthropic(reply.body).blocks == [
        ("a", "f", {}),
        ("b", "f", {}),
        (f"call_{run}_2", "f", {}),
        (f"call_{run}_3", "g", {}),
        (f"call_{run}_4", "g", {}),
    ]


async def test_arguments_that_are_no_json() -> None:
    """They pass as text where they are text; the page gets an error; a whole message can't hold them."""
    broken = call_item(0, "c", "f", '{"a":')
    chunks = events((await say("openai", broken)).body)
    assert chunks[2].data["choices"][0]["delta"]["tool_calls"][0]["function"] == {"arguments": '{"a":'}
    parts = [event.data for event in events((await say("aiSdk", broken)).body)]
    assert parts[3] == {
        "type": "tool-input-error",
        "toolCallId": "c",
        "toolName": "f",
        "input": '{"a":',
        "errorText": "the arguments of the call are not JSON",
    }
    reply = await say("anthropic", broken, body={}, wire={"dev": True})
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (500, "not-in-dialect")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_event_id_and_metadata_have_no_place(dialect: str) -> None:
    """SDKs fail on ids and unknown events: a chunk's are left out."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("x", event="row", id=7, metadata={"a": 1})

    async with serving(speaking(dialect, stack, wire={"retry": 5, "ids": True})) as server:
        said = HEARD[dialect]((await post(server, STREAM)).body)
    assert said.blocks == ["x"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_without_chunks_is_an_empty_answer(dialect: str) -> None:
    """It begins and ends all the same."""
    said = HEARD[dialect]((await say(dialect)).body)
    assert (said.blocks, said.ended) == ([], True)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_end_is_the_dialects_own(dialect: str) -> None:
    """`done: false` and the content of `done` change nothing; its metadata is the message's."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("x")
        run.sink.done("bye", {"mood": "good"})
        with pytest.raises(RunError, match="nothing may follow"):
            run.sink.emit("y", None, None, None)

    async with serving(speaking(dialect, stack, wire={"done": False})) as server:
        reply = await post(server, STREAM)
    assert HEARD[dialect](reply.body).blocks == ["x"]
    assert b"bye" not in reply.body
    if dialect == "aiSdk":
        assert events(reply.body)[-2].data["messageMetadata"] == {"mood": "good"}


@pytest.mark.parametrize(
    ("dialect", "beat"),
    [("openai", b":\n"), ("anthropic", b'event: ping\ndata: {"type":"ping"}\n\n'), ("aiSdk", b":\n")],
)
async def test_heartbeats(dialect: str, beat: bytes) -> None:
    """Before the first chunk and after it, in the way that each SDK passes over; a whole answer has none."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await asyncio.sleep(0.08)
        await Emitting(run)("x")
        await asyncio.sleep(0.08)
        await Emitting(run)("y")

    speaker = speaking(dialect, stack, limits=Limits(keep_alive=0.03))
    async with serving(speaker) as server:
        reply = await post(server, STREAM)
        assert reply.chunks[0] == beat
        assert reply.chunks.count(beat) >= 2
        assert HEARD[dialect](reply.body).blocks == ["xy"]
        if dialect in WHOLE:
            assert json.loads((await post(server, {})).body)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_chunk_too_many_leaves_the_answer_sound(dialect: str) -> None:
    """What goes over `maxBytes` is not sent, and what its author sends instead stands in its place."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        emit = Emitting(run)
        await emit("x")
        for item in (call_item(0, "c", "f", '"' + "a" * 2000), "b" * 2000):
            with pytest.raises(RunError, match="maxBytes"):
                await emit(item)
        await emit("y")

    async with serving(speaking(dialect, stack, wire={"max_bytes": 1500})) as server:
        assert HEARD[dialect]((await post(server, STREAM)).body).blocks == ["xy"]
        if dialect in WHOLE:
            reply = await post(server, {})
            assert b'"xy"' in reply.body
            assert b"aaa" not in reply.body


async def test_the_first_chunk_leaves_at_once() -> None:
    """Start and first text are one write, before the run goes on."""
    go = asyncio.Event()

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("first")
        await go.wait()

    for dialect in DIALECTS:
        go.clear()
        async with serving(speaking(dialect, stack)) as server:
            client = await server.connect()
            data = json.dumps(STREAM).encode()
            client.ask(method="POST", extra=f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n")
            client.writer.write(data)
            await client.head()
            assert b"first" in await client.chunk()
            go.set()
            await client.rest()


TEXT = st.text(max_size=8)
WORDS = st.builds(text_item, TEXT) | TEXT
JSON_TEXT = st.dictionaries(TEXT, st.integers() | TEXT, max_size=2).map(json.dumps)


@st.composite
def calls(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A tool call in pieces, cut anywhere."""
    name, text = draw(st.uuids()).hex, draw(JSON_TEXT | st.just(""))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return [call_item(0, name, "tool", piece) for piece in pieces]


@st.composite
def thoughts(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Reasoning in pieces, signed or not, or encrypted."""
    if draw(st.integers(0, 4)) == 0:
        return [reasoning_item("", redacted=draw(st.uuids()).hex)]
    items = [reasoning_item(text) for text in draw(st.lists(TEXT, min_size=1, max_size=3))]
    return [*items, *draw(st.sampled_from([[], [reasoning_item("", signature="EqQB")]]))]


ANSWERS = st.lists(
    WORDS.map(lambda word: [word])
    | calls()
    | thoughts()
    | st.builds(usage_item, inputTokens=st.integers(0, 9)).map(lambda item: [item]),
    max_size=6,
).map(lambda groups: [item for group in groups for item in group])


#: What a block of a whole message says.
OF_BLOCK: dict[str, Any] = {
    "text": lambda block: block["text"],
    "tool_use": lambda block: (block["id"], block["name"], block["input"]),
    "thinking": lambda block: {"thought": block["thinking"], "signature": block["signature"]},
    "redacted_thinking": lambda block: {"redacted": block["data"]},
}


@given(items=ANSWERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_any_answer_is_understood(items: list[Any]) -> None:
    """Whatever is emitted, streams put together are the whole objects, and what was meant."""
    meant: list[Any] = []
    for item in items:
        kind = "text" if isinstance(item, str) else item["type"]
        if kind == "text":
            piece = item if isinstance(item, str) else item["text"]
            if meant and isinstance(meant[-1], str):
                meant[-1] += piece
            else:
                meant.append(piece)
        elif kind == "reasoning" and "redacted" in item:
            meant.append({"redacted": item["redacted"]})
        elif kind == "reasoning":
            if not meant or not isinstance(meant[-1], dict) or meant[-1].get("signature", "no"):
                meant.append({"thought": "", "signature": ""})
            meant[-1]["thought"] += item["text"]
            meant[-1]["signature"] = item.get("signature", "")
        elif kind == "toolCall":
            if meant and isinstance(meant[-1], list) and meant[-1][0] == item["id"]:
                meant[-1][2] += item["arguments"]
            else:
                meant.append([item["id"], item["name"], item["arguments"]])
    blocks = [(each[0], each[1], json.loads(each[2] or "{}")) if isinstance(each, list) else each for each in meant]
    assert heard_anthropic((await say("anthropic", *items)).body).blocks == blocks
    assert heard_ai_sdk((await say("aiSdk", *items)).body).blocks == blocks
    whole = json.loads((await say("anthropic", *items, body={})).body)["content"]
    assert [OF_BLOCK[each["type"]](each) for each in whole] == blocks
    texts = [each for each in blocks if isinstance(each, str)]
    joined = [*(["".join(texts)] if texts else []), *(b for b in blocks if isinstance(b, tuple))]
    reasoning = "".join(each.get("thought", "") for each in blocks if isinstance(each, dict))
    heard = heard_openai((await say("openai", *items)).body)
    assert (heard.blocks, heard.reasoning) == (joined, reasoning)
    message = json.loads((await say("openai", *items, body={})).body)["choices"][0]["message"]
    assert message.get("reasoning_content", "") == reasoning
    assert message["content"] == ("".join(texts) if texts else None)
