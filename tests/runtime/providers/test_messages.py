"""Messages in the forms of OpenAI, Anthropic and the AI SDK, and uploaded pictures, sent to each provider."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from streamstack.errors import RunError
from tests.runtime.providers.asking import PROVIDERS, SSE, ask, wire
from tests.runtime.providers.test_requests import conforms, sent
from tests.server.declared import declared
from tests.upstreams import Upstream, answer

PIXEL = "iVBORw0KGgo="
CALL = {"id": "call_a", "name": "weather", "arguments": {"city": "Gent"}}
#: One conversation in each form: a picture, a call, its result, an answer, a question.
FORMS: dict[str, list[dict[str, Any]]] = {
    "own": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where?"},
                {"type": "image", "data": PIXEL, "contentType": "image/png"},
            ],
        },
        {"role": "assistant", "content": "Let me look.", "toolCalls": [CALL]},
        {"role": "tool", "toolCallId": "call_a", "content": {"degrees": 21}},
        {"role": "assistant", "content": "In Gent."},
        {"role": "user", "content": "And?"},
    ],
    "openai": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Let me look.",
            "refusal": None,
            "tool_calls": [
                {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Gent"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_a", "content": '{"degrees":21}'},
        {"role": "assistant", "content": [{"type": "text", "text": "In Gent."}]},
        {"role": "user", "content": "And?"},
    ],
    "anthropic": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Gent"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "call_a",
                    "content": [{"type": "text", "text": '{"degrees":21}'}],
                }
            ],
        },
        {"role": "assistant", "content": "In Gent."},
        {"role": "user", "content": [{"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}}]},
    ],
    "AI SDK, UI messages": [
        {
            "id": "1",
            "role": "user",
            "parts": [
                {"type": "text", "text": "Where?"},
                {"type": "file", "mediaType": "image/png", "url": f"data:image/png;base64,{PIXEL}"},
            ],
        },
        {
            "id": "2",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {"type": "text", "text": "Let me look.", "state": "done"},
                {
                    "type": "tool-weather",
                    "toolCallId": "call_a",
                    "state": "output-available",
                    "input": {"city": "Gent"},
                    "output": {"degrees": 21},
                },
                {"type": "tool-weather", "toolCallId": "call_b", "state": "input-streaming"},
                {"type": "step-start"},
                {"type": "source-url", "sourceId": "s", "url": "https://example.org"},
                {"type": "data-progress", "data": 3},
                {"type": "text", "text": "In Gent.", "state": "done"},
            ],
        },
        {"id": "3", "role": "user", "parts": [{"type": "text", "text": "And?"}]},
    ],
    "AI SDK 4, UI messages": [
        {
            "id": "1",
            "role": "user",
            "content": "Where?",
            "parts": [{"type": "text", "text": "Where?"}, {"type": "file", "mimeType": "image/png", "data": PIXEL}],
        },
        {
            "id": "2",
            "role": "assistant",
            "content": "Let me look.In Gent.",
            "parts": [
                {"type": "text", "text": "Let me look."},
                {
                    "type": "tool-invocation",
                    "toolInvocation": {
                        "state": "result",
                        "toolCallId": "call_a",
                        "toolName": "weather",
                        "args": {"city": "Gent"},
                        "result": {"degrees": 21},
                    },
                },
                {"type": "text", "text": "In Gent."},
            ],
        },
        {"id": "3", "role": "user", "content": "And?"},
    ],
    "AI SDK, model messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where?"},
                {"type": "image", "image": PIXEL, "mediaType": "image/png"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me look."},
                {"type": "tool-call", "toolCallId": "call_a", "toolName": "weather", "input": {"city": "Gent"}},
            ],
        },
        {
            "role": "tool",
            "content": [
                {
                    "type": "tool-result",
                    "toolCallId": "call_a",
                    "toolName": "weather",
                    "output": {"type": "json", "value": {"degrees": 21}},
                }
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "In Gent."}]},
        {"role": "user", "content": [{"type": "text", "text": "And?"}]},
    ],
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("form", FORMS)
async def test_every_form_says_the_same(form: str, provider: str) -> None:
    """Whatever library wrote a conversation, each provider receives what it receives of our own form."""
    body, _, _ = await sent(provider, messages=FORMS[form])
    own, _, _ = await sent(provider, messages=FORMS["own"])
    assert body == own


#: Reasoning in messages: the form, the messages, and for each provider what of it is sent.
THINKING = {"type": "thinking", "thinking": "Hm", "signature": "EqQB"}
REDACTED = {"type": "redacted_thinking", "data": "EmwK"}
USE = {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Gent"}}
RESULT = {"type": "tool_result", "tool_use_id": "call_a", "content": "No such city", "is_error": True}
REASONED: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    (
        "Anthropic, blocks in their order",
        [
            {"role": "assistant", "content": [THINKING, REDACTED, {"type": "text", "text": "Wait."}, USE]},
            {"role": "user", "content": [RESULT]},
        ],
        {"anthropic": [THINKING, REDACTED, {"type": "text", "text": "Wait."}, USE], "openai": None, "gemini": None},
    ),
    (
        "AI SDK, what Anthropic signed",
        [
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "text": "Hm", "providerMetadata": {"anthropic": {"signature": "EqQB"}}},
                    {"type": "reasoning", "text": "", "providerMetadata": {"anthropic": {"redactedData": "EmwK"}}},
                    {
                        "type": "dynamic-tool",
                        "toolName": "weather",
                        "toolCallId": "call_a",
                        "state": "output-error",
                        "input": {"city": "Gent"},
                        "errorText": "No such city",
                    },
                ],
            }
        ],
        {"anthropic": [THINKING, REDACTED, USE], "openai": None, "gemini": None},
    ),
    (
        "AI SDK, unsigned reasoning",
        [
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "text": "Hm"},
                    {
                        "type": "tool-weather",
                        "toolCallId": "call_a",
                        "state": "output-error",
                        "input": {"city": "Gent"},
                        "errorText": "No such city",
                    },
                ],
            }
        ],
        {"anthropic": [USE], "openai": "Hm", "gemini": None},
    ),
    (
        "DeepSeek",
        [
            {
                "role": "assistant",
                "content": "",
                "reasoning_content": "Hm",
                "tool_calls": [
                    {
                        "id": "call_a",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Gent"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_a", "content": "No such city"},
        ],
        {"anthropic": [USE], "openai": "Hm", "gemini": None},
    ),
]


@pytest.mark.parametrize(("messages", "wanted"), [each[1:] for each in REASONED], ids=[each[0] for each in REASONED])
async def test_reasoning_of_clients_goes_where_it_is_understood(messages: Any, wanted: dict[str, Any]) -> None:
    """Signed to the provider that signed it, plain to servers that want it as text, nowhere else."""
    for provider, said in wanted.items():
        async with Upstream(answer(wire(f"{provider}-text"), SSE)) as upstream:
            await ask(upstream, provider, messages=[{"role": "user", "content": "Hi"}, *messages])
        body = json.loads(upstream.asked[0].body)
        if provider == "anthropic":
            assert body["messages"][1]["content"] == said
            assert body["messages"][2]["content"][0]["content"] == "No such city"
            conforms(provider, body)
        elif provider == "openai":
            assert body["messages"][1].get("reasoning_content") == said
        else:
            assert "Hm" not in json.dumps(body)


async def test_pictures_that_tools_return() -> None:
    """Anthropic takes them within the result, the others in a message after it."""
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    result = {"type": "tool_result", "tool_use_id": "call_a", "content": [{"type": "text", "text": "Here"}, picture]}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [USE]},
        {"role": "user", "content": [result]},
    ]
    for provider in PROVIDERS:
        body, _, _ = await sent(provider, messages=messages)
        if provider == "anthropic":
            assert body["messages"][2]["content"] == [result]
        elif provider == "openai":
            assert body["messages"][2]["content"] == "Here"
            assert body["messages"][3]["content"][0]["image_url"]["url"].endswith(PIXEL)
        assert json.dumps(body).count(PIXEL) == 1


DOCUMENT = base64.b64encode(b"%PDF-1.7\n%").decode()
DOCUMENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "own": ({"type": "document", "data": DOCUMENT, "name": "a.pdf"}, DOCUMENT, "a.pdf"),
    "own, at a URL": ({"type": "document", "url": "https://a.example/a.pdf"}, "https://a.example/a.pdf", ""),
    "OpenAI": (
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{DOCUMENT}"}},
        DOCUMENT,
        "a.pdf",
    ),
    "Responses": (
        {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{DOCUMENT}"},
        DOCUMENT,
        "a.pdf",
    ),
    "Responses, at a URL": ({"type": "input_file", "file_url": "https://a.example/b"}, "https://a.example/b", ""),
    "Anthropic": (
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": DOCUMENT},
            "title": "a.pdf",
        },
        DOCUMENT,
        "a.pdf",
    ),
    "Anthropic, text": (
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
        "Grüße",
        "",
    ),
    "AI SDK": (
        {
            "type": "file",
            "mediaType": "application/pdf",
            "filename": "a.pdf",
            "url": f"data:application/pdf;base64,{DOCUMENT}",
        },
        DOCUMENT,
        "a.pdf",
    ),
    "AI SDK, text": ({"type": "file", "mediaType": "text/csv", "data": "YSxiCg=="}, "a,b\n", ""),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("part", "content", "name"), DOCUMENTS.values(), ids=DOCUMENTS)
async def test_documents(provider: str, part: dict[str, Any], content: str, name: str) -> None:
    """A PDF in any form reaches each provider as its API takes it; another document is sent as its text."""
    body, _, _ = await sent(provider, messages=[{"role": "user", "content": [{"type": "text", "text": "This:"}, part]}])
    conforms(provider, body)
    text = json.dumps(body, ensure_ascii=False)
    assert json.dumps(content, ensure_ascii=False).strip('"') in text
    assert name in text or provider == "gemini"
    kinds = {"openai": '"file"', "openaiResponses": '"input_file"', "anthropic": '"document"', "gemini": "pdf"}
    assert (kinds[provider] in text) == (content == DOCUMENT or content.startswith("https:"))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "document"}, "`messages[0].content[0]` needs `url`, `from` with a file"),
        ({"type": "document", "data": "?"}, "not base64"),
        ({"type": "document", "data": "AAAA"}, "not a document that models read: PDF and text"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "needs `url`"),
        ({"type": "file", "mediaType": "text/plain", "data": "/w=="}, "is not UTF-8"),
    ],
)
async def test_what_is_no_document_is_refused(part: dict[str, Any], message: str) -> None:
    """With what is understood."""
    with pytest.raises(RunError) as caught:
        await ask("http://127.0.0.1:9", "openai", messages=[{"role": "user", "content": [part]}])
    assert message in caught.value.message


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [
    {"name": "weather", "description": "How it is", "parameters": SCHEMA},
    {"type": "function", "function": {"name": "weather", "description": "How it is", "parameters": SCHEMA}},
    {"type": "function", "name": "weather", "description": "How it is", "parameters": SCHEMA, "strict": True},
    {"name": "weather", "description": "How it is", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}},
]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_tools_and_system_of_clients(provider: str) -> None:
    """As OpenAI's and Anthropic's clients send them, for each provider."""
    blocks = [
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "In metres."},
    ]
    bodies = [await sent(provider, messages="Hi", tools=[tool], system=blocks) for tool in TOOLS]
    own, _, _ = await sent(provider, messages="Hi", tools=TOOLS[:1], system="Be brief.\n\nIn metres.")
    assert [body for body, _, _ in bodies] == [own] * len(TOOLS)
    for wrong in ({"tools": [{"type": "web_search"}]}, {"tools": [5]}, {"system": [5]}, {"system": 5}):
        with pytest.raises(RunError) as caught:
            await ask("http://127.0.0.1:9", provider, **wrong)
        assert (caught.value.code, caught.value.parameter) == ("template", next(iter(wrong)))


# ---------------------------------------------------------------------------- uploads

PNG = base64.b64decode(PIXEL) + b"\0" * 40
UPLOAD = """
method: POST
path: /look
inputParameters:
  picture: {type: file, maxSize: 1MB}
  kind: {type: text, default: image}
  url: {type: url, required: true}
  provider: {type: text, required: true}
functionStack:
  - llm.chat:
      provider: << input.provider >>
      model: m
      apiKey: k
      baseUrl: << input.url >>
      messages:
        - role: user
          content: [{type: text, text: What is it?}, {type: << input.kind >>, from: << input.picture >>}]
      only: text
    as: reply
    retry: {times: 1}
  - forEach: {in: << reply >>, do: [{stream: << item.text >>}]}
"""


async def upload(provider: str, *parts: tuple[str, str, bytes]) -> tuple[int, bytes, list[Any]]:
    """Send files; return status, body and what the provider was asked."""
    async with Upstream(answer(wire(f"{provider}-text"), SSE)) as upstream, declared(UPLOAD) as (server, _):
        form = b""
        for name, head, data in (*parts, ("url", "", upstream.url.encode()), ("provider", "", provider.encode())):
            form += b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (
                name.encode(),
                head.encode(),
                data,
            )
        reply = await server.ask(
            "POST", "/look", form + b"--b--\r\n", Content_Type="multipart/form-data; boundary=b", Accept="text/plain"
        )
        return reply.status, reply.body, [json.loads(asked.body) for asked in upstream.asked]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "text/plain"])
async def test_uploaded_picture_is_given_to_a_model(provider: str, kind: str) -> None:
    """As each provider wants it, with the type that its bytes say, whatever the client called it; also from disk."""
    picture = PNG * (20_000 if kind == "image/png" else 1)
    status, body, asked = await upload(provider, ("picture", f'; filename="p.png"\r\nContent-Type: {kind}', picture))
    assert (status, body.decode()) == (200, "Grüße, 世界 🌍")
    (request,) = asked
    conforms(provider, request)
    text = json.dumps(request)
    assert base64.b64encode(picture).decode() in text
    assert "image/png" in text


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_uploaded_document_is_given_to_a_model(provider: str) -> None:
    """A PDF goes out as one, with the name that the client gave it; a text as text."""
    for data, media in ((b"%PDF-1.7\n%", "application/octet-stream"), ("Grüße".encode(), "text/plain")):
        part = ("picture", f'; filename="a.pdf"\r\nContent-Type: {media}', data)
        status, _, asked = await upload(provider, part, ("kind", "", b"document"))
        assert status == 200
        conforms(provider, asked[0])
        text = json.dumps(asked[0], ensure_ascii=False)
        assert ("Grüße" if media == "text/plain" else base64.b64encode(data).decode()) in text


@pytest.mark.parametrize(
    ("parts", "message"),
    [([("picture", '; filename="a.pdf"\r\nContent-Type: application/pdf', b"%PDF-1.7")], "a.pdf"), ([], "from")],
)
async def test_what_is_no_picture_is_the_clients_error(parts: list[tuple[str, str, bytes]], message: str) -> None:
    """A document, or nothing at all."""
    status, body, asked = await upload("openai", *parts)
    assert (status, asked) == (400, [])
    assert message in body.decode()
