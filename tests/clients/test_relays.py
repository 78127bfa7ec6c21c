"""`llm.chat` asks one provider's API, and its answer is relayed as another's: the SDKs see no difference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.clients import test_anthropic, test_npm, test_openai
from tests.clients.speaking import speaking


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve."""
    with speaking() as address:
        yield address


@pytest.fixture
def as_openai(address: str) -> Iterator[openai.OpenAI]:
    """Give OpenAI's client, which asks a model of Anthropic's."""
    url = f"{address}/from-anthropic/v1"
    with openai.OpenAI(api_key="none", base_url=url, max_retries=0) as client:
        yield client


@pytest.fixture
def as_anthropic(address: str) -> Iterator[anthropic.Anthropic]:
    """Give Anthropic's client, which asks a model of OpenAI's."""
    url = f"{address}/from-openai"
    with anthropic.Anthropic(api_key="none", base_url=url, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("answer", [test_openai.whole, test_openai.assembled])
def test_openai_before_anthropic(as_openai: openai.OpenAI, answer: Any) -> None:
    """Text, calls, usage and reasons pass through both dialects; a failure in mid-stream raises."""
    (choice,) = answer(as_openai, "text").choices
    assert (choice.message.content, choice.finish_reason) == (test_npm.SKY, "stop")
    completion = answer(as_openai, "items")
    assert completion.choices[0].finish_reason == "length"
    used = completion.usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (11, 4, 15)
    (choice,) = answer(as_openai, "tools").choices
    assert choice.finish_reason == "tool_calls"
    assert [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls] == [
        ("weather", {"city": "Paris"}),
        ("clock", {}),
        ("add", {"a": 1, "b": [2, 3]}),
    ]
    for wish in ("fails", "done-then-fails"):
        with pytest.raises(openai.APIError, match="reported an error in its response"):
            answer(as_openai, wish)


@pytest.mark.parametrize("answer", [test_anthropic.whole, test_anthropic.streamed])
def test_anthropic_before_openai(as_anthropic: anthropic.Anthropic, answer: Any) -> None:
    """Text, calls, usage and reasons pass through both dialects; a failure in mid-stream raises."""
    message = answer(as_anthropic, "text")
    assert (message.content[0].text, message.stop_reason) == (test_npm.SKY, "end_turn")
    message = answer(as_anthropic, "items")
    assert message.stop_reason == "max_tokens"
    used = message.usage
    assert (used.input_tokens, used.cache_read_input_tokens, used.output_tokens) == (8, 3, 4)
    message = answer(as_anthropic, "tools")
    assert message.stop_reason == "tool_use"
    assert [(call.name, call.input) for call in message.content[1:]] == [
        ("weather", {"city": "Paris"}),
        ("clock", {}),
        ("add", {"a": 1, "b": [2, 3]}),
    ]
    for wish in ("fails", "done-then-fails"):
        with pytest.raises(anthropic.APIStatusError, match="reported an error in its response"):
            answer(as_anthropic, wish)


def test_the_ai_sdk_before_openai(address: str) -> None:
    """A page's chat with a model of OpenAI's: text, calls, usage, and what fails in mid-stream."""
    if test_npm.missing():
        pytest.skip(test_npm.missing())
    told = test_npm.run("ai.mjs", f"{address}/from-openai")
    assert test_npm.answer(told, "text")["parts"][0]["text"] == test_npm.SKY
    tools = test_npm.answer(told, "tools")
    assert [each["type"] for each in tools["parts"]] == ["text", "tool-weather", "tool-clock", "tool-add"]
    assert tools["metadata"]["usage"]["totalTokens"] == 27
    assert told["fails"]["value"]["status"] == "error"
    assert told["done-then-fails"]["value"]["status"] == "error"
