"""The built-in provider: deterministic answers without a key and without a network."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.language.settings import Model, load_settings
from tests.runtime.providers.asking import SSE, Said, ask, wire
from tests.upstreams import Upstream, answer

WEATHER = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"enum": ["C", "F"]},
            "days": {"type": "integer", "minimum": 2},
            "note": {"default": "none"},
            "more": {"type": "string"},
        },
        "required": ["city", "unit", "days", "note"],
    },
}


async def simulated(messages: Any = "Good morning, Ada", own: dict[str, Any] | None = None, **given: Any) -> Said:
    """Ask the simulator, without delays where none are set."""
    models = {"chat": Model("simulator", "demo", options={"every": 0} | (own or {}))}
    return await ask(None, None, models=models, model="chat", messages=messages, **given)


async def test_the_answer_repeats_the_message_word_by_word() -> None:
    """It has the items of every provider, and is the same each time."""
    said, again = await simulated(), await simulated()
    assert said.items == again.items
    assert (said.error, said.stream["status"]) == (None, 200)
    assert said.text.startswith("You said: \u201cGood morning, Ada\u201d This is a simulated answer in place of demo.")
    texts = [item["text"] for item in said.items if item["type"] == "text"]
    assert texts[:3] == ["You", " said:", " \u201cGood"]
    assert [len(batch) for batch in said.batches[:-1]] == [1] * len(texts)
    usage, finish = said.batches[-1]
    assert usage == {
        "type": "usage",
        "text": "",
        "inputTokens": 3,
        "outputTokens": len(texts),
        "totalTokens": len(texts) + 3,
    }
    assert finish == {"type": "finish", "text": "", "reason": "stop"}
    assert said.message["content"] == said.text


@pytest.mark.parametrize(
    ("options", "given", "types", "text", "reason"),
    [
        ({"text": "a b c"}, {}, "text text text usage finish", "a b c", "stop"),
        ({"text": "abcd", "by": "characters", "size": 3}, {}, "text text usage finish", "abcd", "stop"),
        ({"text": ""}, {}, "usage finish", "", "stop"),
        ({"text": 12}, {}, "text usage finish", "12", "stop"),
        ({"text": "a", "reasoning": "so so"}, {}, "reasoning reasoning text usage finish", "a", "stop"),
        ({"text": "a b c"}, {"max_tokens": 2}, "text text usage finish", "a b", "length"),
        ({"text": "a", "finishReason": "contentFilter"}, {}, "text usage finish", "a", "contentFilter"),
        ({"text": "a b"}, {"only": "text"}, "text text", "a b", "stop"),
        ({"text": "a b"}, {"options": {"text": "c", "every": None}}, "text usage finish", "c", "stop"),
    ],
)
async def test_options(options: dict[str, Any], given: dict[str, Any], types: str, text: str, reason: str) -> None:
    """Options of the model set the answer; those of the step take precedence."""
    said = await simulated(own=options, **given)
    assert [item["type"] for item in said.items] == types.split()
    assert (said.text, said.message["finishReason"]) == (text, reason)


async def test_pieces_arrive_apart() -> None:
    """`firstAfter` delays the first piece, `every` the others; time-outs apply to them."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    said = await simulated(own={"text": "a b c", "firstAfter": "40ms", "every": "30ms"})
    assert said.error is None
    assert loop.time() - began >= 0.099
    assert (await simulated(own={"text": "a", "firstAfter": "1h"}, first_chunk_timeout=0.01)).code == "timeout"
    assert (await simulated(own={"text": "a b", "every": "1h"}, idle_timeout=0.01)).code == "timeout"


@pytest.mark.parametrize(
    ("options", "text", "code", "final"),
    [
        ({"text": "a b c", "failAfter": 2}, "a b", "stream-lost", False),
        ({"text": "a b c", "failAfter": 0}, "", "stream-lost", False),
        ({"text": "a", "failAfter": 9}, "a", "stream-lost", False),
        ({"status": 429}, "", "http-status", False),
        ({"status": 401}, "", "http-status", True),
    ],
)
async def test_failures(options: dict[str, Any], text: str, code: str, *, final: bool) -> None:
    """An answer that breaks off, and an HTTP status in its place."""
    said = await simulated(own=options)
    assert said.error is not None
    assert (said.text, said.code, said.error.final) == (text, code, final)
    assert (said.error.details or {}).get("status") == options.get("status")
    assert said.message["finishReason"] is None


@pytest.mark.parametrize(
    ("message", "calls"),
    [
        ("What is the weather?", {"city": "text", "unit": "C", "days": 2, "note": "none"}),
        ('Weather, please: {"city": "Bonn", "days": 5}', {"city": "Bonn", "days": 5}),
        ("weather {in Bonn}", {"city": "text", "unit": "C", "days": 2, "note": "none"}),
        ("What are weathermen?", None),
    ],
)
async def test_a_tool_is_called_where_the_message_names_it(message: str, calls: dict[str, Any] | None) -> None:
    """With the JSON of the message, else with arguments that fit its schema."""
    said = await simulated(message, tools=[WEATHER])
    found = [(call["name"], call["arguments"]) for call in said.message["toolCalls"]]
    assert found == ([] if calls is None else [("weather", calls)])
    assert said.message["finishReason"] == ("stop" if calls is None else "toolCalls")
    assert bool(said.text) == (calls is None)


@pytest.mark.parametrize("options", [{}, {"toolCalls": [{"name": "weather", "arguments": {"city": "Bonn"}}]}])
async def test_a_tool_loop_ends(options: dict[str, Any]) -> None:
    """The result of a tool is answered with a text that holds it."""
    asked = [{"role": "user", "content": "The weather?"}]
    first = await simulated(asked, options, tools=[WEATHER])
    (call,) = first.message["toolCalls"]
    result = {"role": "tool", "toolCallId": call["id"], "content": "21 degrees"}
    second = await simulated([*asked, first.message, result], options, tools=[WEATHER])
    assert second.text == "The tool weather returned 21 degrees."
    assert second.message["toolCalls"] == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"txt": "a"}, "`options` has no `txt`, did you mean `text`?"),
        ({"every": "soon"}, "`options.every`: write a duration"),
        ({"by": "lines"}, "`options.by`: must be one of words, characters"),
        ({"size": 0}, "`options.size`: must be an integer from 1 to 10000"),
        ({"toolCalls": [{"arguments": {}}]}, "`options.toolCalls` requires `name`."),
    ],
)
async def test_wrong_options_are_explained(options: dict[str, Any], told: str) -> None:
    """In a step when it runs, in the settings by `validate`."""
    with pytest.raises(RunError) as caught:
        await simulated(own={"text": "a"}, options=options)
    assert caught.value.code == "template"
    assert caught.value.message.startswith(told)
    text = f"models: {{chat: {{provider: simulator, options: {json.dumps(options)}}}}}"
    _, findings = load_settings(text, "streamstack.yaml", {})
    assert findings[0].message.startswith(told.partition(":")[0].replace("`options", "`models.chat.options"))


async def test_it_stands_in_while_a_key_is_missing() -> None:
    """With a key the provider is asked, with the options of the model and the step."""
    models = {"chat": Model("openai", "m", without_key="simulator", options={"seed": 1, "user": "a", "top_p": 1})}
    given: dict[str, Any] = {"models": models, "model": "chat", "options": {"seed": 2, "top_p": None}}
    said = await ask(None, None, **given)
    assert said.text.startswith("You said: \u201cHi\u201d This is a simulated answer in place of m.")
    async with Upstream(answer(wire("openai-text"), SSE)) as upstream:
        assert (await ask(upstream, None, env={"OPENAI_API_KEY": "k"}, **given)).text == "Grüße, 世界 🌍"
    body = json.loads(upstream.asked[0].body)
    assert (body["seed"], body["user"], body.get("top_p")) == (2, "a", None)


def test_settings() -> None:
    """The simulator needs no model; a key's stand-in is an address, or its name."""
    text = (
        "models:\n  a: {provider: simulator}\n  b: {provider: openai, model: m, withoutKey: simulator}\n"
        "  c: {provider: openai, model: m, withoutKey: simulater}\n  d: {provider: openai}\n"
        "  e: {provider: openai, model: << env.MISSING >>}\n"
    )
    settings, findings = load_settings(text, "streamstack.yaml", {})
    assert settings.models["a"].model == "simulator"
    assert settings.models["b"].without_key == "simulator"
    assert set(settings.models) == {"a", "b"}
    assert [(each.code, each.mark.line) for each in findings] == [("bad-setting", 4), ("missing-parameter", 5)]
    assert findings[0].hint == "write simulator"
