"""What each provider puts on the wire, as it is documented, read the same however it is cut."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from streamstack.formats.items import ITEMS, Item
from streamstack.functions import llm
from streamstack.runtime.providers import PROVIDERS
from streamstack.runtime.providers.provider import AnswerDecoder
from streamstack.runtime.run import Context
from tests.runtime.providers.asking import SSE, answered, ask, pieces, stream_of, wire
from tests.upstreams import Upstream, Wire

USAGE = {"inputTokens": 19, "outputTokens": 10, "totalTokens": 29, "cachedTokens": 4, "reasoningTokens": 3}
CALLS = [{"name": "weather", "arguments": {"city": "Gent"}}, {"name": "time", "arguments": {}}]
TEXT = "Grüße, 世界 🌍"
#: Name of the wire: the text, the calls, what was used, the reason, the provider's own word for it.
SAID: dict[str, tuple[str, list[Any], dict[str, int] | None, str, str | None]] = {
    "openai-text": (TEXT, [], USAGE, "stop", "stop"),
    "openai-tools": ("", [{"id": "call_a", **CALLS[0]}, {"id": "call_b", **CALLS[1]}], None, "toolCalls", "tool_calls"),
    "openai-refusal": ("I can't help.", [], None, "refusal", "stop"),
    "openai-other-servers": (
        "Yes",
        [{"id": "x1", "name": "a", "arguments": {"n": 1}}, {"id": "x2", "name": "b", "arguments": '{"n":2'}],
        {"inputTokens": 1, "outputTokens": 7, "totalTokens": 8},
        "toolCalls",
        "stop",
    ),
    "openaiResponses-text": (TEXT, [], USAGE, "stop", "completed"),
    "openaiResponses-tools": (
        "",
        [{"id": "call_a", **CALLS[0]}, {"id": "call_b", **CALLS[1]}],
        None,
        "toolCalls",
        "completed",
    ),
    "openaiResponses-cut": (
        "Half",
        [],
        {"inputTokens": 2, "outputTokens": 1, "totalTokens": 3},
        "length",
        "max_output_tokens",
    ),
    "openaiResponses-refusal": ("I can't help.", [], None, "refusal", "completed"),
    "anthropic-text": (
        TEXT,
        [],
        {"inputTokens": 19, "outputTokens": 10, "totalTokens": 29, "cachedTokens": 4},
        "stop",
        "end_turn",
    ),
    "anthropic-tools": (
        "Okay.",
        [{"id": "toolu_a", **CALLS[0]}, {"id": "toolu_b", **CALLS[1]}],
        {"inputTokens": 472, "outputTokens": 89, "totalTokens": 561},
        "toolCalls",
        "tool_use",
    ),
    "anthropic-refusal": ("", [], {"inputTokens": 5, "outputTokens": 1, "totalTokens": 6}, "refusal", "refusal"),
    "gemini-text": (TEXT, [], USAGE, "stop", "STOP"),
    "gemini-tools": (
        "",
        [{"id": "fc-a", **CALLS[0], "signature": "CiQB"}, {"id": "fc-b", **CALLS[1]}],
        {"inputTokens": 50, "outputTokens": 12, "totalTokens": 62},
        "toolCalls",
        "STOP",
    ),
    "gemini-blocked": ("", [], {"inputTokens": 7, "totalTokens": 7}, "contentFilter", "PROHIBITED_CONTENT"),
    "gemini-safety": ("Half", [], None, "contentFilter", "SAFETY"),
}
#: The reasoning that some of them begin with.
REASONING = {"anthropic-text": "A greeting, then.", "gemini-text": "Let me think", "openai-other-servers": "Hm"}
#: What an event looks like that says why the answer ended.
SAYS_WHY = re.compile(rb'"(finish_reason|stop_reason|finishReason|blockReason)": ?"')


def after_text(name: str) -> list[Item]:
    """Return the items that follow the text."""
    _, calls, usage, reason, said = SAID[name]
    items: list[Item] = [{"type": "toolCall", "text": "", "index": index, **call} for index, call in enumerate(calls)]
    if usage is not None:
        items.append({"type": "usage", "text": "", **usage})
    return [*items, {"type": "finish", "text": "", "reason": reason, "providerReason": said}]


def check(name: str, items: list[Item]) -> None:
    """Compare items with what a wire says; the text may come in any pieces."""
    for kind, whole in (("text", SAID[name][0]), ("reasoning", REASONING.get(name, ""))):
        texts = [item["text"] for item in items if item["type"] == kind and "signature" not in item]
        assert "".join(texts) == whole
        assert "" not in texts
    assert [item for item in items if item["type"] not in ("text", "reasoning")] == after_text(name)


@pytest.mark.parametrize("name", SAID)
async def test_answer_is_read(name: str) -> None:
    """Text, calls, figures and reason, in the shape that is the same for every provider."""
    text, calls, usage, reason, _ = SAID[name]
    provider = name.partition("-")[0]
    said = await answered(wire(name), provider)
    assert said.error is None
    check(name, said.items)
    message = dict(said.message)
    message.pop("providerState", None)
    assert message == {
        "role": "assistant",
        "content": text,
        "reasoning": REASONING.get(name, ""),
        "toolCalls": calls,
        "finishReason": reason,
        "usage": usage,
    }
    assert (said.stream["status"], said.stream["finished"]) == (200, True)
    assert said.stream["headers"]["content-type"] == "text/event-stream"
    assert (said.stream["count"], said.stream["skipped"]) == (len(said.items), 0)


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("name", SAID)
def test_answer_is_the_same_however_it_is_cut(name: str, ends: bytes) -> None:
    """Cut in two at every byte, and into single bytes; with each end of lines that events may have."""
    data = wire(name).replace(b"\n", ends)
    for at in [*range(len(data)), None]:
        cut = [data[:at], data[at:]] if at is not None else pieces(data, 1)
        reader = PROVIDERS[name.partition("-")[0]].reader("x.example", 1 << 20)
        decoder = AnswerDecoder(reader, "fail", 1 << 20)
        items: list[Item] = []
        for found in [*map(decoder.feed, cut), decoder.finish()]:
            items += found
        assert decoder.failure is None
        if not reader.ended:
            reader.close(items, marked=decoder.ended)
        check(name, items)


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("name", ["openai-text", "anthropic-tools", "gemini-text"])
async def test_answer_comes_in_pieces_over_the_socket(name: str, size: int) -> None:
    """Characters, lines and JSON cut in two on their way are whole again."""

    async def script(to: Wire) -> None:
        await to.head(SSE)
        for piece in pieces(wire(name), size):
            await to.chunk(piece)
        await to.send(b"0\r\n\r\n")

    async with Upstream(script) as upstream:
        said = await ask(upstream, name.partition("-")[0])
    assert said.error is None
    check(name, said.items)


@pytest.mark.parametrize("name", SAID)
async def test_every_answer_cut_before_its_end_is_lost(name: str) -> None:
    """Wherever the events stop before the reason, the end is premature, and what came before is sent; after it, not."""
    blocks = wire(name).split(b"\n\n")[:-1]
    provider = name.partition("-")[0]
    for kept in range(len(blocks)):
        body = b"".join(block + b"\n\n" for block in blocks[:kept])
        said = await answered(body, provider)
        if SAYS_WHY.search(body):
            assert said.error is None
            assert said.message["finishReason"] == SAID[name][3]
            continue
        assert said.code == "stream-lost", kept
        assert not any(item["type"] in ("finish", "usage") for item in said.items)
        assert said.message["finishReason"] is None
        assert not said.stream["finished"]


@pytest.mark.parametrize("cut", [b"", b"data: [DONE]", b"event: message_stop"])
@pytest.mark.parametrize("name", ["openai-text", "anthropic-text", "gemini-text"])
async def test_reading_stops_at_the_end(name: str, cut: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that leaves the connection open after its marker, or after the reason, does not delay the run."""
    monkeypatch.setattr(llm, "_GRACE", 0.1)

    async def script(to: Wire) -> None:
        await to.head(SSE)
        await to.chunk(wire(name).partition(cut)[0] if cut else wire(name))
        await to.left()

    async with Upstream(script) as upstream:
        began = asyncio.get_running_loop().time()
        said = await ask(upstream, name.partition("-")[0])
        assert asyncio.get_running_loop().time() - began < 0.5
    assert said.error is None
    assert said.items[-1]["type"] == "finish"


@pytest.mark.parametrize("name", ["openai-text", "anthropic-text", "gemini-text"])
async def test_each_piece_is_handed_on_as_it_comes(name: str) -> None:
    """The loop has a piece while the next is not written yet."""
    taken = asyncio.Event()

    async def script(to: Wire) -> None:
        await to.head(SSE)
        for block in wire(name).split(b"\n\n")[:-1]:
            await to.chunk(block + b"\n\n")
            if "Grüße".encode() in block:
                await asyncio.wait_for(taken.wait(), 2)
        await to.send(b"0\r\n\r\n")

    async with Upstream(script) as upstream:
        half = await ask(upstream, name.partition("-")[0], upto=1, only="text")
        assert half.items == [{"type": "text", "text": "Grüße"}]
        assert half.message["content"] == "Grüße"
        taken.set()


@pytest.mark.parametrize("only", ITEMS)
@pytest.mark.parametrize("name", ["openai-other-servers", "anthropic-tools"])
async def test_one_type_of_items(name: str, only: str) -> None:
    """`only` omits all others, and the message is complete; every item has a text."""
    every = await answered(wire(name), name.partition("-")[0])
    some = await answered(wire(name), name.partition("-")[0], only=only)
    assert some.items == [item for item in every.items if item["type"] == only]
    assert some.message == every.message
    assert all(isinstance(item["text"], str) for item in every.items)


async def test_message_is_null_before_the_stream_opens() -> None:
    """From then on it is an object, whatever happens."""
    stream = stream_of(Context(), api_key="k")
    properties = ("message", "status", "headers", "skipped")
    assert [stream[name] for name in properties] == [None] * 4
    assert (stream["count"], stream["finished"]) == (0, False)
    said = await ask("http://127.0.0.1:9", api_key="k")
    assert said.code == "http-connection"
    assert (said.message["content"], said.message["toolCalls"], said.message["finishReason"]) == ("", [], None)


@pytest.mark.parametrize(
    ("text", "items", "code", "message"),
    [
        ("data: 1\n\n", 1, "invalid-chunk", "not an object"),
        ("data: x\n\n", 1, "invalid-chunk", "chunk 2 of the stream is not JSON"),
        ('data: {"error": {"type": "server_error"}}\n\n', 1, "http-status", "server_error"),
        ("data: [DONE]\n\ndata: x\n\n", 1, None, ""),
    ],
)
def test_what_came_before_a_failure_is_given(text: str, items: int, code: str | None, message: str) -> None:
    """A bad event ends the answer, not what was said before; nothing after the marker counts."""
    said = b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'
    data = said + text.encode() + said
    for at in range(len(said), len(data)):
        reader = PROVIDERS["openai"].reader("x.example", 1 << 20)
        decoder = AnswerDecoder(reader, "fail", 1 << 20)
        found = [*decoder.feed(data[:at]), *decoder.feed(data[at:]), *decoder.finish()]
        assert found == [{"type": "text", "text": "Hi"}] * items
        assert (decoder.failure.code if decoder.failure else None) == code
        assert message in str(decoder.failure)
        assert decoder.ended is (code is None)


def test_invalid_events_of_an_answer_are_skipped_and_counted() -> None:
    """Under `skip` what is not JSON is skipped, among events that came with it and alone."""
    said = b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'
    reader = PROVIDERS["openai"].reader("x.example", 1 << 20)
    decoder = AnswerDecoder(reader, "skip", 1 << 20)
    found = [*decoder.feed(said + b"data: x\n\n" + said), *decoder.feed(b"data: {\n\n" + said)]
    assert [item["text"] for item in found] == ["Hi"] * 3
    assert decoder.skipped == 2
