"""Anthropic's own Python client reads an endpoint of `format: anthropic`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message

from tests.clients.speaking import speaking


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve, and give the address."""
    with speaking() as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Anthropic]:
    """Give a client that asks once: it would ask again after some errors."""
    with Anthropic(api_key="none", base_url=address, max_retries=0) as client:
        yield client


def wish(text: str) -> dict[str, Any]:
    """Return the request for one of the answers in speak.yaml."""
    return {"model": "our-own", "max_tokens": 100, "system": "Speak.", "messages": [{"role": "user", "content": text}]}


def whole(client: Anthropic, text: str) -> Message:
    """Ask for one object."""
    message: Message = client.messages.create(**wish(text))
    return message


def streamed(client: Anthropic, text: str) -> Message:
    """Ask for a stream, and put it together as the client does."""
    with client.messages.stream(**wish(text)) as stream:
        return stream.get_final_message()


WAYS = pytest.mark.parametrize("answer", [whole, streamed])


@WAYS
def test_text(client: Anthropic, answer: Any) -> None:
    """The text, the model, and why it ended."""
    message = answer(client, "text")
    assert [(block.type, block.text) for block in message.content] == [("text", 'The sky is "blüe"\n☁')]
    assert (message.role, message.stop_reason, message.model) == ("assistant", "end_turn", "our-own")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (0, 0)


@WAYS
def test_reasoning(client: Anthropic, answer: Any) -> None:
    """A thinking block with its signature, and one that is encrypted."""
    thought, redacted, text, _ = answer(client, "thinks").content
    assert (thought.type, thought.thinking, thought.signature) == ("thinking", "Blue or grey?", "EqQB")
    assert (redacted.type, redacted.data) == ("redacted_thinking", "EmwK")
    assert text.text == "Blue."


@WAYS
def test_usage_and_reason(client: Anthropic, answer: Any) -> None:
    """What was used, and that the answer is cut; what came from a cache is apart."""
    message = answer(client, "items")
    assert (message.content[0].text, message.stop_reason) == ("Once upon a time", "max_tokens")
    used = message.usage
    assert (used.input_tokens, used.cache_read_input_tokens, used.output_tokens) == (8, 3, 4)


@WAYS
def test_tool_calls(client: Anthropic, answer: Any) -> None:
    """Calls in pieces, without arguments, and with an object, in blocks of their own."""
    message = answer(client, "tools")
    text, *calls = message.content
    assert (text.text, message.stop_reason) == ("Let me look.", "tool_use")
    assert [(call.type, call.name, call.input) for call in calls] == [
        ("tool_use", "weather", {"city": "Paris"}),
        ("tool_use", "clock", {}),
        ("tool_use", "add", {"a": 1, "b": [2, 3]}),
    ]
    assert [call.id for call in calls[:2]] == ["call_a", "call_b"]


def test_texts_as_they_come(client: Anthropic) -> None:
    """Each chunk is a piece of text of its own."""
    with client.messages.stream(**wish("text")) as stream:
        assert list(stream.text_stream) == ["The", " sky", " is", ' "blüe"', "\n", "☁"]


def test_heartbeats_are_passed_over(client: Anthropic) -> None:
    """Pings before and between chunks leave the text as it is."""
    for text, said in (("late", "Late"), ("slow", "One two")):
        assert streamed(client, text).content[0].text == said  # type: ignore[union-attr]


@WAYS
def test_an_empty_answer(client: Anthropic, answer: Any) -> None:
    """A stack that emits nothing answers nothing, in good order."""
    message = answer(client, "silent")
    assert (message.content, message.stop_reason) == ([], "end_turn")


@pytest.mark.parametrize(
    ("text", "message", "before"),
    [
        ("fails", "The model went to sleep", "This is going"),
        ("done-then-fails", "The answer could not be saved", "All is well"),
        ("number", "The server could not complete this request.", "Two and two is"),
    ],
)
def test_failing_in_mid_stream_raises(client: Anthropic, text: str, message: str, before: str) -> None:
    """The text up to there, then the client's error with our message."""
    heard: list[str] = []
    stream = client.messages.stream(**wish(text))
    with pytest.raises(anthropic.APIStatusError, match=message), stream as pieces:
        heard.extend(pieces.text_stream)
    assert "".join(heard) == before
    kinds: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match=message) as raised:
        kinds.extend(event.type for event in client.messages.create(**wish(text), stream=True))
    assert raised.value.body["type"] == "error"  # type: ignore[index]
    assert not {"message_delta", "message_stop"} & set(kinds)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("text", "kind", "status", "type_"),
    [
        ("refuses", anthropic.RateLimitError, 429, "rate_limit_error"),
        ("no such", anthropic.NotFoundError, 404, "not_found_error"),
    ],
)
def test_failing_before_the_start_raises_by_status(
    client: Anthropic, text: str, kind: type[anthropic.APIStatusError], status: int, type_: str, *, stream: bool
) -> None:
    """The client's own error for the status, with type, message and the id of the run."""
    with pytest.raises(kind) as raised:
        client.messages.create(**wish(text), stream=stream)
    error = raised.value
    assert (error.status_code, error.body["error"]["type"]) == (status, type_)  # type: ignore[index]
    assert error.request_id == error.response.headers["x-run-id"]


def test_a_whole_answer_that_fails_late_raises_by_status(client: Anthropic) -> None:
    """Nothing was sent, so the status is the error's."""
    with pytest.raises(anthropic.APIStatusError, match="went to sleep") as raised:
        whole(client, "fails")
    assert raised.value.status_code == 503


def test_invalid_input_names_every_fault(client: Anthropic) -> None:
    """What the endpoint declares is checked, and told as Anthropic tells it."""
    with pytest.raises(anthropic.BadRequestError, match="messages must have at least 1"):
        client.messages.create(model="m", max_tokens=1, messages=[])


async def test_the_asynchronous_client(address: str) -> None:
    """It reads the same stream, and raises the same."""
    async with AsyncAnthropic(api_key="none", base_url=address, max_retries=0) as client:
        async with client.messages.stream(**wish("text")) as stream:
            assert await stream.get_final_text() == 'The sky is "blüe"\n☁'
        with pytest.raises(anthropic.APIStatusError, match="went to sleep"):
            async with client.messages.stream(**wish("fails")) as stream:
                await stream.until_done()
