"""What is sent to each provider: the words of its own interface, checked against the types of its own client."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming as AnthropicParams
from google.genai import types as google
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as ChatParams
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming as ResponsesParams
from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from streamstack.errors import RunError
from streamstack.functions import REGISTRY
from streamstack.functions.llm import FUNCTIONS
from streamstack.language.settings import Model
from streamstack.runtime.run import Context, Run
from tests.collector import Collector
from tests.runtime.providers.asking import PROVIDERS, SSE, ask, wire
from tests.stacks import plan_of
from tests.upstreams import Upstream, answer

MORE = [each for each in FUNCTIONS if each.name not in REGISTRY]
PIXEL = "iVBORw0KGgo="
#: A conversation with everything in it.
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "In metres."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Where is this?"},
            {"type": "image", "data": PIXEL, "contentType": "image/png"},
        ],
    },
    {
        "role": "assistant",
        "content": "Let me see.",
        "toolCalls": [
            {"id": "call_a", "name": "weather", "arguments": {"city": "Gent"}},
            {"id": "call_b", "name": "time", "arguments": {}},
        ],
        "finishReason": "toolCalls",
        "usage": None,
    },
    {"role": "tool", "toolCallId": "call_a", "content": {"degrees": 21}},
    {"role": "tool", "toolCallId": "call_b", "content": "noon"},
    {"role": "user", "content": "And?"},
]
TOOL = {
    "name": "weather",
    "description": "How the weather is",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
GIVEN: dict[str, Any] = {"messages": TALK, "system": "Be brief.", "tools": [TOOL], "max_tokens": 50, "temperature": 0.5}
SENT: dict[str, Any] = {
    "openai": {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "In metres."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Where is this?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                ],
            },
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {
                        "id": "call_a",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Gent"}'},
                    },
                    {"id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "call_a", "content": '{"degrees":21}'},
            {"role": "tool", "tool_call_id": "call_b", "content": "noon"},
            {"role": "user", "content": "And?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 50,
        "temperature": 0.5,
        "tools": [{"type": "function", "function": TOOL}],
    },
    "openaiResponses": {
        "model": "gpt-5",
        "input": [
            {"role": "system", "content": "In metres."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Where is this?"},
                    {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
                ],
            },
            {"role": "assistant", "content": "Let me see."},
            {"type": "function_call", "call_id": "call_a", "name": "weather", "arguments": '{"city":"Gent"}'},
            {"type": "function_call", "call_id": "call_b", "name": "time", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_a", "output": '{"degrees":21}'},
            {"type": "function_call_output", "call_id": "call_b", "output": "noon"},
            {"role": "user", "content": "And?"},
        ],
        "stream": True,
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "temperature": 0.5,
        "tools": [{"type": "function", **TOOL, "strict": False}],
    },
    "anthropic": {
        "model": "claude-sonnet-4-5",
        "max_tokens": 50,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Where is this?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Gent"}},
                    {"type": "tool_use", "id": "call_b", "name": "time", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_a", "content": '{"degrees":21}'},
                    {"type": "tool_result", "tool_use_id": "call_b", "content": "noon"},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
        "stream": True,
        "system": "Be brief.\n\nIn metres.",
        "temperature": 0.5,
        "tools": [{"name": "weather", "description": "How the weather is", "input_schema": TOOL["parameters"]}],
    },
    "gemini": {
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "Where is this?"}, {"inlineData": {"mimeType": "image/png", "data": PIXEL}}],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "Let me see."},
                    {"functionCall": {"id": "call_a", "name": "weather", "args": {"city": "Gent"}}},
                    {"functionCall": {"id": "call_b", "name": "time", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "call_a", "name": "weather", "response": {"degrees": 21}}},
                    {"functionResponse": {"id": "call_b", "name": "time", "response": {"result": "noon"}}},
                    {"text": "And?"},
                ],
            },
        ],
        "systemInstruction": {"parts": [{"text": "Be brief.\n\nIn metres."}]},
        "generationConfig": {"maxOutputTokens": 50, "temperature": 0.5},
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "weather", "description": "How the weather is", "parametersJsonSchema": TOOL["parameters"]}
                ]
            }
        ],
    },
}


@with_config(ConfigDict(extra="forbid"))
class GeminiParams(TypedDict, total=False):
    """The body of generateContent, of the types of Google's client, which has none for the whole."""

    contents: list[google.Content]
    systemInstruction: google.Content
    generationConfig: google.GenerationConfig
    safetySettings: list[google.SafetySetting]
    tools: list[google.Tool]


TYPES: dict[str, TypeAdapter[Any]] = {
    "openai": TypeAdapter(ChatParams),
    "openaiResponses": TypeAdapter(ResponsesParams),
    "anthropic": TypeAdapter(AnthropicParams),
    "gemini": TypeAdapter(GeminiParams),
}


def conforms(provider: str, body: Mapping[str, Any]) -> None:
    """Check a body against the types of the provider's own client."""
    exhaust(TYPES[provider].validate_python(body))


def exhaust(value: Any) -> None:
    """Look at everything in a value: lists are checked only when they are read."""
    if isinstance(value, Mapping):
        for each in value.values():
            exhaust(each)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for each in value:
            exhaust(each)


async def sent(provider: str, **given: Any) -> tuple[Any, dict[str, str], str]:
    """Ask, and return the body, the headers and the path that the provider got."""
    async with Upstream(answer(wire(f"{provider}-text"), SSE)) as upstream:
        said = await ask(upstream, provider, **given)
    assert said.error is None, said.error
    (asked,) = upstream.asked
    assert asked.method == "POST"
    body = json.loads(asked.body)
    conforms(provider, body)
    return body, asked.headers, asked.target


@pytest.mark.parametrize("provider", SENT)
async def test_everything_is_said_in_the_providers_words(provider: str) -> None:
    """System, pictures, calls and their answers, tools, limits."""
    body, headers, _ = await sent(provider, **GIVEN)
    assert body == SENT[provider]
    assert headers["content-type"] == "application/json"
    assert headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_little_is_said_with_little(provider: str) -> None:
    """A text alone is the user's; nothing else is sent."""
    body, headers, _ = await sent(provider, messages="Hi")
    extra = {
        "openai": {"stream", "stream_options", "model", "messages"},
        "openaiResponses": {"stream", "model", "input"},
        "anthropic": {"stream", "model", "messages", "max_tokens"},
        "gemini": {"contents"},
    }
    assert set(body) == extra[provider]
    assert not {"authorization", "x-api-key", "x-goog-api-key"} & headers.keys()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_answer_is_part_of_the_next_question(provider: str) -> None:
    """`reply.message` is taken as it is, with its calls and what the provider wants back."""
    for name in (f"{provider}-text", f"{provider}-tools"):
        async with Upstream(answer(wire(name), SSE)) as upstream:
            said = await ask(upstream, provider)
        results = [
            {"role": "tool", "toolCallId": call["id"], "content": {"ok": True}} for call in said.message["toolCalls"]
        ]
        messages = [{"role": "user", "content": "Hi"}, said.message, *results]
        body, _, _ = await sent(provider, messages=messages)
        text = json.dumps(body, ensure_ascii=False)
        if name.endswith("tools"):
            for call in said.message["toolCalls"]:
                assert text.count(f'"{call["id"]}"') == 2
            assert ("CiQB" in text) is (provider == "gemini")
        else:
            assert "Grüße, 世界 🌍" in text
            assert ("EqQB" in text) is (provider == "anthropic")
            assert ("gAAA" in text) is (provider == "openaiResponses")


async def test_an_answer_of_one_provider_goes_to_another() -> None:
    """Without what only the first would understand."""
    async with Upstream(answer(wire("anthropic-text"), SSE)) as upstream:
        said = await ask(upstream, "anthropic")
    for provider in ("openai", "openaiResponses", "gemini"):
        body, _, _ = await sent(provider, messages=[{"role": "user", "content": "Hi"}, said.message])
        assert "EqQB" not in json.dumps(body)


async def test_calls_without_ids_get_some() -> None:
    """Gemini need not name its calls; what we made up is not sent back."""
    data = {"parts": [{"functionCall": {"name": "time", "args": {}}}] * 2}
    chunk = {"candidates": [{"content": data, "finishReason": "STOP"}], "usageMetadata": {}}
    body = f"data: {json.dumps(chunk | {'usageMetadata': {'promptTokenCount': 1}})}\n\n"
    async with Upstream(answer(body, SSE)) as upstream:
        said = await ask(upstream, "gemini")
    first, second = said.message["toolCalls"]
    assert first["id"] != second["id"]
    messages = [
        {"role": "user", "content": "Hi"},
        said.message,
        {"role": "tool", "toolCallId": first["id"], "content": "1"},
    ]
    request, _, _ = await sent("gemini", messages=messages)
    assert first["id"] not in json.dumps(request)
    (answered,) = request["contents"][2]["parts"]
    assert answered == {"functionResponse": {"name": "time", "response": {"result": "1"}}}


async def test_options_lie_over_the_body() -> None:
    """Deeply; null takes a key out."""
    body, _, _ = await sent(
        "gemini", temperature=0.1, options={"generationConfig": {"topP": 0.9}, "safetySettings": [], "contents": None}
    )
    assert body == {"generationConfig": {"temperature": 0.1, "topP": 0.9}, "safetySettings": []}
    body, _, _ = await sent("openai", max_tokens=5, options={"stream_options": None, "n": 1})
    assert "stream_options" not in body
    assert body["n"] == 1


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        5,
        [None],
        ["Hi"],
        [{}],
        [{"role": "bot", "content": "x"}],
        [{"role": "user", "content": {"a": 1}}],
        [{"role": "user", "content": [{"type": "video"}]}],
        [{"role": "user", "content": [{"type": "image"}]}],
        [{"role": "tool", "content": "x"}],
        [{"role": "assistant", "toolCalls": [{"id": "x"}]}],
    ],
)
async def test_what_is_no_message_is_refused(messages: Any) -> None:
    """It says where and what to write; where a client wrote it, it is the client's error."""
    with pytest.raises(Exception, match="messages") as caught:
        await ask("http://127.0.0.1:9", messages=messages)
    assert (getattr(caught.value, "code", None), getattr(caught.value, "parameter", None)) == ("template", "messages")


# ------------------------------------------------------------------------------ where, with what


ENV = {"OPENAI_API_KEY": "ok", "ANTHROPIC_API_KEY": "ak", "GEMINI_API_KEY": "gk"}
BASES = {
    "openai": ("OPENAI_BASE_URL", "/v1", "/v1/chat/completions"),
    "openaiResponses": ("OPENAI_BASE_URL", "/v1/", "/v1/responses"),
    "anthropic": ("ANTHROPIC_BASE_URL", "", "/v1/messages"),
    "gemini": ("GEMINI_BASE_URL", "", "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_environment_gives_address_and_key(provider: str) -> None:
    """The variables of the providers' own clients count, where the step says nothing."""
    name, below, path = BASES[provider]
    async with Upstream(answer(wire(f"{provider}-text"), SSE)) as upstream:
        said = await ask(None, provider, env={**ENV, name: upstream.url + below})
    assert said.error is None
    (asked,) = upstream.asked
    assert asked.target == path
    keys = [asked.headers.get(each) for each in ("authorization", "x-api-key", "x-goog-api-key")]
    assert [key for key in keys if key] == [
        {"openai": "Bearer ok", "openaiResponses": "Bearer ok", "anthropic": "ak", "gemini": "gk"}[provider]
    ]
    assert asked.headers.get("anthropic-version") == ("2023-06-01" if provider == "anthropic" else None)


async def test_step_goes_before_the_settings_and_these_before_the_environment() -> None:
    """For the key; a model of the settings is asked by its own name."""
    async with Upstream(answer(wire("openai-text"), SSE)) as upstream:
        models = {"chat": Model("openai", "llama", upstream.url, "mk")}
        tried: list[tuple[dict[str, Any], str]] = [({}, "mk"), ({"api_key": "sk"}, "sk")]
        for given, key in tried:
            said = await ask(None, None, model="chat", models=models, env=ENV, **given)
            assert said.error is None
            assert upstream.asked[-1].headers["authorization"] == f"Bearer {key}"
        assert json.loads(upstream.asked[-1].body)["model"] == "llama"


async def test_stand_in_is_asked_only_without_a_key() -> None:
    """`withoutKey` makes a definition work on a machine that has none."""
    async with (
        Upstream(answer(wire("openai-text"), SSE)) as upstream,
        Upstream(answer(wire("openai-text"), SSE)) as real,
    ):
        models = {"chat": Model("openai", "m", without_key=upstream.url + "/stand-in")}
        said = await ask(None, None, model="chat", models=models)
        assert said.error is None
        assert upstream.asked[0].target == "/stand-in/chat/completions"
        assert "authorization" not in upstream.asked[0].headers
        env = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": real.url}
        await ask(None, None, model="chat", models=models, env=env)
        await ask(None, None, model="chat", models=models, env={"OPENAI_BASE_URL": real.url})
        assert (len(upstream.asked), len(real.asked)) == (1, 2)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"provider": None, "model": "chta", "models": {"chat": Model("openai", "m")}}, "chat"),
        ({"provider": "openai"}, "OPENAI_API_KEY"),
        ({"provider": "gemini"}, "GEMINI_API_KEY"),
        ({"provider": "openai", "base_url": "ftp://x", "api_key": "k"}, "url"),
        ({"provider": "openai", "base_url": "/own", "api_key": "k"}, "does not listen"),
        ({"provider": "openai", "api_key": "k", "tools": ["gone"]}, "unknown function `gone`"),
    ],
)
async def test_what_cannot_be_asked_is_told(given: dict[str, Any], told: str) -> None:
    """Before anything is sent."""
    with pytest.raises(Exception, match=told) as caught:
        await ask(None, **given)
    assert getattr(caught.value, "code", None) == "template"


# --------------------------------------------------------------------------------------- tools


FUNCTION = """
kind: function
name: weather
description: How the weather is in a city
inputParameters:
  city: {type: text, required: true, minLength: 1, description: Which city}
  unit: {type: enum, values: [C, F], default: C}
  days: {type: list, items: {type: integer, minimum: 0}, maxItems: 7}
  about: {type: object, properties: {wind: {type: boolean, required: true}}}
  on: {type: date, nullable: true}
  tree: {type: json, schema: {$ref: '#/$defs/a', $defs: {a: {type: array, items: {$ref: '#'}}}}}
functionStack:
  - return: << input.city ~ " 21 " ~ input.unit >>
"""
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"description": "Which city", "type": "string", "minLength": 1},
        "unit": {"enum": ["C", "F"], "type": "string", "default": "C"},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 7},
        "about": {
            "type": "object",
            "properties": {"wind": {"type": "boolean"}},
            "additionalProperties": False,
            "required": ["wind"],
        },
        "on": {"type": ["string", "null"], "format": "date"},
        "tree": {"$ref": "#/$defs/tree"},
    },
    "additionalProperties": False,
    "required": ["city"],
    "$defs": {
        "tree": {"$ref": "#/$defs/tree/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    },
}


async def test_function_of_the_project_is_a_tool() -> None:
    """The model receives its inputs; the author calls it with what the model wrote, and asks again."""
    tools = wire("openai-tools").replace(b'"time"', b'"weather"').replace(b'"{}"', b'"{}"')
    async with Upstream(answer(tools, SSE), answer(wire("openai-text"), SSE)) as upstream:
        plan = plan_of(
            """
            - set: {talk: [{role: user, content: Weather?}], more: true}
            - while:
                condition: << more >>
                limit: 4
                do:
                  - llm.chat:
                      provider: openai
                      model: m
                      baseUrl: << input.url >>
                      messages: << talk >>
                      tools: [weather]
                    as: reply
                  - set: {results: []}
                  - forEach:
                      in: << reply >>
                      do:
                        - switch:
                            value: << item.type >>
                            cases:
                              text: [{stream: << item.text >>}]
                              toolCall:
                                - try:
                                    do:
                                      - call: {function: << item.name >>, oneOf: [weather], with: << item.arguments >>}
                                        as: given
                                    catch:
                                      as: problem
                                      do: [{set: {given: << problem.message >>}}]
                                - append:
                                    to: results
                                    value: {role: tool, toolCallId: << item.id >>, content: << given >>}
                  - set:
                      talk: << talk + [reply.message] + results >>
                      more: << results != [] >>
            """,
            also=FUNCTION,
            functions=MORE,
        )
        sink, context = Collector(), Context()
        await plan.start(Run(sink, context), {"url": upstream.url})
        await context.aclose()
    assert "".join(chunk.content for chunk in sink.chunks) == "Grüße, 世界 🌍"
    first, second = (json.loads(asked.body) for asked in upstream.asked)
    (tool,) = first["tools"]
    assert tool["function"] == {"name": "weather", "description": "How the weather is in a city", "parameters": SCHEMA}
    conforms("openai", second)
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool", "tool"]
    assert second["messages"][2]["content"] == "Gent 21 C"
    assert "don't fit" in second["messages"][3]["content"]


async def test_stream_keeps_its_properties_in_a_function() -> None:
    """A function relays an answer that it is handed, reads its message, and gives it back."""
    async with Upstream(answer(wire("openai-text"), SSE)) as upstream:
        plan = plan_of(
            """
            - llm.chat: {provider: openai, model: m, baseUrl: << input.url >>, messages: Hi, only: text}
              as: reply
            - call: {function: relay, with: {answer: << reply >>}}
              as: used
            - return: '<< [used, reply.message.finishReason] >>'
            """,
            also="""
            kind: function
            name: relay
            inputParameters: {answer: {type: stream, required: true}}
            functionStack:
              - forEach: {in: << input.answer >>, do: [{stream: << item.text >>}]}
              - return: << input.answer.message.usage.totalTokens >>
            """,
            functions=MORE,
        )
        sink, context = Collector(), Context()
        given = await plan.start(Run(sink, context), {"url": upstream.url})
        await context.aclose()
    assert given == [29, "stop"]
    assert "".join(chunk.content for chunk in sink.chunks) == "Grüße, 世界 🌍"


@pytest.mark.parametrize(
    ("provider", "options", "message"),
    [
        ("openai", {"n": 2}, "one response"),
        ("gemini", {"generationConfig": {"candidateCount": 2}}, "one response"),
        ("anthropic", {"stream": False}, "stream"),
    ],
)
async def test_options_that_are_no_stream_of_one_answer(provider: str, options: dict[str, Any], message: str) -> None:
    """They are refused before anything is sent, with what to write instead."""
    with pytest.raises(RunError, match=message) as caught:
        await ask("http://127.0.0.1:9", provider, options=options)
    assert (caught.value.code, caught.value.final) == ("template", True)
