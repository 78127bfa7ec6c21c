"""What is encoded as a provider answers is what its reader reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from google import genai
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from streamstack.formats.items import CONTENT_FILTER, LENGTH, STOP, TOOL_CALLS
from streamstack.language.cases import ModelAnswer
from streamstack.runtime.providers import PROVIDERS
from streamstack.runtime.providers.provider import AnswerDecoder
from streamstack.testing.models import Encoded, ModelRequest, encode, protocol_of

#: By provider: where it is asked for a stream, and for a whole answer.
URLS = {
    "openai": ("https://api.openai.com/v1/chat/completions",) * 2,
    "openaiResponses": ("https://api.openai.com/v1/responses",) * 2,
    "anthropic": ("https://api.anthropic.com/v1/messages",) * 2,
    "gemini": (
        "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse",
        "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
    ),
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.from_regex(r"(\w+ ?){1,6}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["weather", "clock"]), "arguments": st.dictionaries(st.text(max_size=4), JSON)}
    ),
    max_size=3,
)
COUNTS = st.integers(1, 10_000)


@st.composite
def answers(draw: st.DrawFn) -> ModelAnswer:
    """Draw an answer. That of tool calls ends for them."""
    calls = draw(CALLS)
    return ModelAnswer(
        text=draw(TEXT),
        by=draw(st.sampled_from(["characters", "words"])),
        size=draw(st.integers(1, 4)),
        reasoning=draw(TEXT),
        tool_calls=tuple({**call, "id": f"call_{index}"} for index, call in enumerate(calls)),
        usage=draw(st.just({}) | st.fixed_dictionaries({"inputTokens": COUNTS, "outputTokens": COUNTS})),
        finish_reason=None if calls else draw(st.sampled_from([None, STOP, LENGTH, CONTENT_FILTER])),
    )


def asking(provider: str, *, stream: bool = True) -> ModelRequest:
    """Return a request as the provider takes it."""
    body: dict[str, Any] = {"model": "m", "stream": stream, "stream_options": {"include_usage": True}}
    return ModelRequest(URL(URLS[provider][0 if stream else 1]), json.dumps(body).encode())


def read(provider: str, encoded: Encoded, size: int) -> dict[str, Any]:
    """Return the message that the provider's reader makes of a body in pieces of a size."""
    reader = PROVIDERS[provider].reader("host", 1_000_000)
    decoder = AnswerDecoder(reader, "fail", 1_000_000)
    data = b"".join(piece.data for piece in encoded.pieces)
    for at in range(0, len(data), size):
        decoder.feed(data[at : at + size])
    decoder.finish()
    assert decoder.failure is None
    if not reader.ended:
        reader.close([], marked=decoder.ended)
    return reader.reply.view


@pytest.mark.parametrize("provider", URLS)
@settings(max_examples=80, deadline=None)
@given(answer=answers(), size=st.sampled_from([7, 10_000]))
def test_reader_reads_what_is_encoded(provider: str, answer: ModelAnswer, size: int) -> None:
    """Text, reasoning, tool calls, usage and the reason come back, in the pieces that the answer asks for."""
    encoded = encode(answer, asking(provider))
    assert encoded is not None
    assert encoded.content_type.startswith("text/event-stream")
    message = read(provider, encoded, size)
    assert (message["content"], message["reasoning"]) == (answer.text, answer.reasoning)
    called = [{name: call[name] for name in ("name", "arguments", "id")} for call in message["toolCalls"]]
    assert called == list(answer.tool_calls)
    reason = TOOL_CALLS if answer.tool_calls else answer.finish_reason or STOP
    if provider == "anthropic" and reason == CONTENT_FILTER:
        reason = "refusal"  # it has no other word
    assert message["finishReason"] == reason
    if answer.usage:
        counted = {name: message["usage"][name] for name in answer.usage}
        assert counted == answer.usage


@pytest.mark.parametrize("provider", URLS)
def test_whole_answers(provider: str) -> None:
    """One object comes where no stream is asked for, as late as the last piece of a stream would."""
    call = {"name": "clock", "arguments": {"zone": "CET"}, "id": "c1"}
    answer = ModelAnswer(
        "Hi there", reasoning="hm", tool_calls=(call,), usage={"inputTokens": 3}, first_after=1.0, every=0.5
    )
    encoded = encode(answer, asking(provider, stream=False))
    assert encoded is not None
    (piece,) = encoded.pieces
    assert piece.after == 2.5
    text = json.dumps(json.loads(piece.data))
    assert all(part in text for part in ("Hi there", '"hm"', "clock", "CET"))


def test_times_of_pieces() -> None:
    """The first piece takes `firstAfter`, each further one `every`; a piece has as many words as `size` says."""
    answer = ModelAnswer("one two three\n four ", size=2, first_after=0.4, every=0.1)
    encoded = encode(answer, asking("gemini"))
    assert encoded is not None
    assert [piece.after for piece in encoded.pieces] == [0.4, 0.1]
    assert [b"one two" in piece.data for piece in encoded.pieces] == [True, False]


@pytest.mark.parametrize(
    ("url", "body", "named"),
    [
        ("https://x.example/openai/deployments/d/chat/completions?api-version=1", {}, "_OpenAI"),
        ("https://x.example/anything", {"messages": []}, "_OpenAI"),
        ("https://x.example/anything", {"contents": []}, "_Gemini"),
        ("https://x.example/anything", {"input": "Hi"}, "_Responses"),
        ("https://gateway.example/anthropic/v1/messages", {}, "_Anthropic"),
        ("https://x.example/anything", {"prompt": "Hi"}, None),
    ],
)
def test_protocol_is_recognised(url: str, body: dict[str, Any], named: str | None) -> None:
    """By the path of the request, or else by its body."""
    found = protocol_of(ModelRequest(URL(url), json.dumps(body).encode()))
    assert (found and found.__name__) == named


# ------------------------------------------------------------------------------- the providers' own clients

SPOKEN = ModelAnswer(
    "Hello big world",
    reasoning="Let me think",
    tool_calls=({"name": "weather", "arguments": {"city": "Gent"}},),
    usage={"inputTokens": 7, "outputTokens": 9},
)
#: Text, calls with their arguments, and the tokens of the answer.
Understood = tuple[str, list[tuple[str, Any]], int]


def respond(library: Any) -> Any:
    """Return a client of an HTTP library that gets the answer to each of its requests."""

    def handle(request: Any) -> Any:
        encoded = encode(SPOKEN, ModelRequest(URL(str(request.url)), request.read()))
        assert encoded is not None
        body = b"".join(piece.data for piece in encoded.pieces)
        return library.Response(200, headers={"Content-Type": encoded.content_type}, content=body)

    return library.Client(transport=library.MockTransport(handle))


def ask_openai(*, stream: bool) -> Understood:
    """Ask for a chat completion."""
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    with openai.OpenAI(api_key="k", http_client=respond(httpx)) as client:
        if stream:
            with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
                completion: Any = events.get_final_completion()
        else:
            completion = client.chat.completions.create(**asked)
    message = completion.choices[0].message
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
    return message.content, calls, completion.usage.completion_tokens


def ask_responses(*, stream: bool) -> Understood:
    """Ask for a response."""
    with openai.OpenAI(api_key="k", http_client=respond(httpx)) as client:
        if stream:
            with client.responses.stream(model="m", input="Hi") as events:
                events.until_done()
                response: Any = events.get_final_response()
        else:
            response = client.responses.create(model="m", input="Hi")
    calls = [(each.name, json.loads(each.arguments)) for each in response.output if each.type == "function_call"]
    return response.output_text, calls, response.usage.output_tokens


def ask_anthropic(*, stream: bool) -> Understood:
    """Ask for a message."""
    asked: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    with anthropic.Anthropic(api_key="k", http_client=respond(httpx2)) as client:
        if stream:
            with client.messages.stream(**asked) as events:
                message: Any = events.get_final_message()
        else:
            message = client.messages.create(**asked)
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    return text, calls, message.usage.output_tokens


def ask_gemini(*, stream: bool) -> Understood:
    """Ask for content."""
    asked: Any = {"model": "gemini-2.5-flash", "contents": "Hi"}
    options = genai.types.HttpOptions(httpx_client=respond(httpx))
    with genai.Client(api_key="k", http_options=options) as client:
        models = client.models
        responses = list(models.generate_content_stream(**asked)) if stream else [models.generate_content(**asked)]
    found: list[Any] = [part for each in responses for part in (each.candidates or [])[0].content.parts]  # type: ignore[union-attr]
    text = "".join(part.text for part in found if part.text and not part.thought)
    calls = [(part.function_call.name, part.function_call.args) for part in found if part.function_call]
    return text, calls, responses[-1].usage_metadata.candidates_token_count  # type: ignore[union-attr,return-value]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("ask", [ask_openai, ask_responses, ask_anthropic, ask_gemini])
def test_sdks_understand_answers(ask: Callable[..., Understood], *, stream: bool) -> None:
    """The providers' own clients read the answers, as streams and whole."""
    assert ask(stream=stream) == ("Hello big world", [("weather", {"city": "Gent"})], 9)
