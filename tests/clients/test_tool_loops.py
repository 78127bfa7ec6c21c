"""SDKs run a tool and ask again through our endpoints: what the provider needs back arrives there unchanged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.clients import test_npm
from tests.clients.speaking import CLIENTS
from tests.runtime.providers.asking import SSE, wire
from tests.runtime.providers.test_requests import conforms
from tests.server.declared import declared
from tests.upstreams import Upstream, answer

PIXEL = "iVBORw0KGgo="
RELAY = """
method: POST
path: {path}
streaming: {{format: {dialect}}}
inputParameters:
  messages: {{type: list, items: {{type: object}}, required: true}}
  system: {{type: json}}
  tools: {{type: list, items: {{type: object}}, default: []}}
functionStack:
  - llm.chat:
      provider: {provider}
      model: m
      apiKey: k
      baseUrl: "{url}"
      system: << input.system >>
      messages: << input.messages >>
      tools: << input.tools >>
    as: reply
  - forEach: {{in: << reply >>, do: [{{stream: << item >>}}]}}
"""
THINKING = [
    {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Which city?"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "EmwK"}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"city":"Gent"}'},
    },
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]
REASONING = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None, "reasoning_content": "Which city?"}}]},
    {
        "choices": [
            {
                "index": 0,
                "delta": {
                    "tool_calls": [
                        {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city":"Gent"}'}}
                    ]
                },
                "finish_reason": "tool_calls",
            }
        ]
    },
]
#: What each provider says first.
FIRST: dict[str, list[Any]] = {"anthropic": THINKING, "openai": REASONING}
#: What it wants back of this.
BLOCKS = [
    {"type": "thinking", "thinking": "Which city?", "signature": "EqQB"},
    {"type": "redacted_thinking", "data": "EmwK"},
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Gent"}},
]


@asynccontextmanager
async def relaying(provider: str, dialect: str, path: str) -> AsyncIterator[tuple[str, Upstream]]:
    """Serve a dialect before a provider that calls a tool, and answers when it is asked again."""
    said = "".join(f"data: {json.dumps(event)}\n\n" for event in FIRST[provider])
    async with Upstream(answer(said, SSE), answer(wire(f"{provider}-text"), SSE)) as upstream:
        text = RELAY.format(path=path, dialect=dialect, provider=provider, url=upstream.url)
        async with declared(text) as (server, _):
            yield f"http://127.0.0.1:{server.port}", upstream


def second(upstream: Upstream) -> list[dict[str, Any]]:
    """Return the messages that the provider got when it was asked again."""
    messages: list[dict[str, Any]] = json.loads(upstream.asked[1].body)["messages"]
    return messages


@pytest.mark.parametrize("provider", FIRST)
async def test_anthropics_client(provider: str) -> None:
    """Thinking, calls, results and pictures pass the endpoint in both directions."""
    async with relaying(provider, "anthropic", "/v1/messages") as (address, upstream):
        client = AsyncAnthropic(api_key="none", base_url=address, max_retries=0)
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
        talk: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Weather here?"}, picture]}]
        schema: Any = {"type": "object", "properties": {"city": {"type": "string"}}}
        asked: dict[str, Any] = {
            "model": "m",
            "max_tokens": 99,
            "system": [{"type": "text", "text": "Be brief."}],
            "tools": [{"name": "weather", "description": "How it is", "input_schema": schema}],
        }
        async with client.messages.stream(**asked, messages=talk) as stream:
            message = await stream.get_final_message()
        (use,) = (block for block in message.content if block.type == "tool_use")
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "21 degrees"}
        talk += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        last = (await client.messages.create(**asked, messages=talk)).content[-1]
        assert (last.type == "text" and last.text) == "Grüße, 世界 🌍"
        await client.close()
    body = upstream.asked[1].body
    assert b"Be brief." in body
    assert json.dumps(schema, separators=(",", ":")).encode() in body
    sent = [message for message in second(upstream) if message["role"] != "system"]
    assert PIXEL in json.dumps(sent[0])
    if provider == "anthropic":
        assert sent[1]["content"] == BLOCKS
        assert sent[2]["content"] == [result]
        conforms(provider, json.loads(upstream.asked[1].body))
    else:
        assert sent[1]["reasoning_content"] == "Which city?"
        assert sent[2] == {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"}


async def test_openais_client() -> None:
    """Its message goes back as it came, with the reasoning that DeepSeek and Moonshot require."""
    async with relaying("openai", "openai", "/v1/chat/completions") as (address, upstream):
        client = AsyncOpenAI(api_key="none", base_url=f"{address}/v1", max_retries=0)
        talk: list[Any] = [{"role": "user", "content": "Weather?"}]
        message = (await client.chat.completions.create(model="m", messages=talk)).choices[0].message
        assert message.tool_calls
        talk += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "21 degrees"}]
        last = await client.chat.completions.create(model="m", messages=talk)
        assert last.choices[0].message.content == "Grüße, 世界 🌍"
        await client.close()
    sent = second(upstream)
    assert sent[1]["reasoning_content"] == "Which city?"
    assert sent[2]["content"] == "21 degrees"


@pytest.mark.parametrize("provider", FIRST)
async def test_the_ai_sdk(provider: str) -> None:
    """A page runs the tool, and its message with parts goes on."""
    if test_npm.missing():
        pytest.skip(test_npm.missing())
    async with relaying(provider, "aiSdk", "/api/chat") as (address, upstream):
        process = await asyncio.create_subprocess_exec(
            "node", str(CLIENTS / "ai.mjs"), address, "continued", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        chat = json.loads(out)["continued"]["value"]
        assert (chat["status"], chat["messages"][1]["parts"][-1]["text"]) == ("ready", "Grüße, 世界 🌍")
    sent = second(upstream)
    if provider == "anthropic":
        assert sent[1]["content"] == BLOCKS
        assert sent[2]["content"] == [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}]
    else:
        assert sent[1]["reasoning_content"] == "Which city?"
        assert sent[2]["content"] == "sunny"
