"""OpenAI's own Python client reads an endpoint of `format: openai`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.clients.speaking import speaking


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve, and give the address as the client wants it."""
    with speaking() as address:
        yield f"{address}/v1"


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    """Give a client that asks once: it would ask again after some errors."""
    with OpenAI(api_key="none", base_url=address, max_retries=0) as client:
        yield client


def wish(text: str) -> dict[str, Any]:
    """Return the request for one of the answers in speak.yaml, with more than the endpoint declares."""
    return {"model": "our-own", "messages": [{"role": "user", "content": text}], "temperature": 0.5, "max_tokens": 100}


def stream(client: OpenAI, text: str) -> Iterator[ChatCompletionChunk]:
    """Ask for a stream, with the figures of its end."""
    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    yield from client.chat.completions.create(**wish(text), **options, stream=True)


def assembled(client: OpenAI, text: str) -> ChatCompletion:
    """Put a stream together as the client itself does, but for its own refusal of answers that are cut."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in stream(client, text):
        state.handle_chunk(chunk)
    return state.current_completion_snapshot


def whole(client: OpenAI, text: str) -> ChatCompletion:
    """Ask for one object."""
    completion: ChatCompletion = client.chat.completions.create(**wish(text))
    return completion


WAYS = pytest.mark.parametrize("answer", [whole, assembled], ids=["whole", "streamed"])


@WAYS
def test_text(client: OpenAI, answer: Any) -> None:
    """The text, the model, and why it ended."""
    completion = answer(client, "text")
    (choice,) = completion.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == 'The sky is "blüe"\n☁'
    assert (choice.finish_reason, completion.model) == ("stop", "our-own")
    assert completion.id.startswith("chatcmpl-")


@WAYS
def test_reasoning(client: OpenAI, answer: Any) -> None:
    """Beside the text, under the name that compatible servers use; a signature of Gemini's beside its call."""
    message = answer(client, "thinks").choices[0].message
    assert (message.reasoning_content, message.content) == ("Blue or grey?", "Blue.")
    assert message.tool_calls[0].extra_content == {"google": {"thought_signature": "CiQB"}}


@WAYS
def test_usage_and_reason(client: OpenAI, answer: Any) -> None:
    """What was used, and that the answer is cut."""
    completion = answer(client, "items")
    assert completion.choices[0].finish_reason == "length"
    assert completion.choices[0].message.content == "Once upon a time"
    used = completion.usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (11, 4, 15)
    assert used.prompt_tokens_details.cached_tokens == 3
    assert used.completion_tokens_details.reasoning_tokens == 1


@WAYS
def test_tool_calls(client: OpenAI, answer: Any) -> None:
    """Calls in pieces, without arguments, and with an object."""
    (choice,) = answer(client, "tools").choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    calls = choice.message.tool_calls
    assert [call.function.name for call in calls] == ["weather", "clock", "add"]
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Paris"}, {}, {"a": 1, "b": [2, 3]}]
    assert [call.id for call in calls[:2]] == ["call_a", "call_b"]
    assert len({call.id for call in calls}) == 3


def test_the_streaming_helper(client: OpenAI) -> None:
    """The client's helper tells when content and calls are done."""
    with client.chat.completions.stream(**wish("tools")) as helped:
        kinds = [event.type for event in helped]
        message = helped.get_final_completion().choices[0].message
    assert kinds.count("tool_calls.function.arguments.done") == 3
    assert "content.done" in kinds
    assert message.tool_calls is not None
    assert len(message.tool_calls) == 3


def test_heartbeats_are_passed_over(client: OpenAI) -> None:
    """Silences before and between chunks leave the text as it is."""
    for text, said in (("late", "Late"), ("slow", "One two")):
        assert assembled(client, text).choices[0].message.content == said


@WAYS
def test_an_empty_answer(client: OpenAI, answer: Any) -> None:
    """A stack that emits nothing answers nothing, in good order."""
    (choice,) = answer(client, "silent").choices
    assert (choice.message.content or "", choice.finish_reason) == ("", "stop")


@pytest.mark.parametrize(
    ("text", "message", "before"),
    [
        ("fails", "The model went to sleep", "This is going"),
        ("done-then-fails", "The answer could not be saved", "All is well"),
        ("number", "The server could not complete this request.", "Two and two is"),
    ],
)
def test_failing_in_mid_stream_raises(client: OpenAI, text: str, message: str, before: str) -> None:
    """The text up to there, then the client's error with our message and code."""
    heard = ""
    with pytest.raises(openai.APIError, match=message) as raised:  # noqa: PT012
        for chunk in stream(client, text):
            heard += chunk.choices[0].delta.content or ""
            assert chunk.choices[0].finish_reason is None
    assert heard == before
    assert raised.value.code in ("model-tired", "not-saved", "not-in-dialect")
    with pytest.raises(openai.APIError), client.chat.completions.stream(**wish(text)) as helped:
        helped.until_done()


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("text", "kind", "status", "code"),
    [("refuses", openai.RateLimitError, 429, "quota-used-up"), ("no such", openai.NotFoundError, 404, "unknown-wish")],
)
def test_failing_before_the_start_raises_by_status(
    client: OpenAI, text: str, kind: type[openai.APIStatusError], status: int, code: str, *, streamed: bool
) -> None:
    """The client's own error for the status, with message, code and the id of the run."""
    with pytest.raises(kind) as raised:
        client.chat.completions.create(**wish(text), stream=streamed)
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert raised.value.request_id == raised.value.response.headers["x-run-id"]


def test_a_whole_answer_that_fails_late_raises_by_status(client: OpenAI) -> None:
    """Nothing was sent, so the status is the error's."""
    with pytest.raises(openai.InternalServerError, match="went to sleep") as raised:
        whole(client, "fails")
    assert raised.value.status_code == 503


def test_invalid_input_names_the_parameter(client: OpenAI) -> None:
    """What the endpoint declares is checked, and told as OpenAI tells it."""
    with pytest.raises(openai.BadRequestError, match="messages must have at least 1") as raised:
        client.chat.completions.create(model="m", messages=[])
    assert (raised.value.param, raised.value.code) == ("messages", "invalid-input")
    assert raised.value.type == "invalid_request_error"


async def test_the_asynchronous_client(address: str) -> None:
    """It reads the same stream, and raises the same."""
    async with AsyncOpenAI(api_key="none", base_url=address, max_retries=0) as client:
        heard = ""
        async for chunk in await client.chat.completions.create(**wish("text"), stream=True):
            heard += chunk.choices[0].delta.content or ""
        assert heard == 'The sky is "blüe"\n☁'
        with pytest.raises(openai.APIError, match="went to sleep"):
            async for _ in await client.chat.completions.create(**wish("fails"), stream=True):
                pass
