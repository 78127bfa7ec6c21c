"""How answers in the dialects fail: before their start, in mid-stream, for content without words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.runtime.run import Run
from tests.formats.dialects import STREAM, Event, events, post, say, speaking
from tests.server.serving import Emitting, serving

DIALECTS = ("openai", "anthropic", "aiSdk")
WHOLE = ("openai", "anthropic")

TIRED = RunError("model-tired", "asleep", status=503)


async def test_failing_in_mid_stream() -> None:
    """The error is in the stream as the SDK raises it, and nothing after it looks like a good end."""
    error = {"message": "asleep", "type": "server_error", "code": "model-tired", "param": None}
    reply = await say("openai", "a", TIRED)
    assert reply.status == 200
    *chunks, failure, done = events(reply.body)
    assert (failure.data, done.data) == ({"error": error}, "[DONE]")
    assert [each.data["choices"][0]["finish_reason"] for each in chunks] == [None, None]
    reply = await say("anthropic", "a", TIRED)
    failure = events(reply.body)[-1]
    assert failure == Event(
        "error",
        {
            "type": "error",
            "error": {"type": "overloaded_error", "message": "asleep", "code": "model-tired"},
            "request_id": reply.headers["x-run-id"],
        },
    )
    assert b"message_stop" not in reply.body
    reply = await say("aiSdk", "a", TIRED)
    assert events(reply.body)[-2].data == {"type": "error", "errorText": "asleep"}
    assert b"finish" not in reply.body


@pytest.mark.parametrize("stream", [True, False])
async def test_failing_before_the_start(stream: bool) -> None:  # noqa: FBT001
    """The status is true, the body is as the SDK reads it; the UI stream has a problem document."""
    body = {"stream": stream}
    reply = await say("openai", TIRED, body=body)
    assert (reply.status, reply.headers["content-type"]) == (503, "application/json; charset=utf-8")
    assert reply.headers["x-request-id"] == reply.headers["x-run-id"]
    assert json.loads(reply.body)["error"]["type"] == "server_error"
    reply = await say("anthropic", TIRED, body=body)
    assert (reply.status, json.loads(reply.body)["error"]["type"]) == (503, "overloaded_error")
    reply = await say("aiSdk", TIRED, body=body)
    assert (reply.status, reply.headers["content-type"]) == (503, "application/problem+json")


@pytest.mark.parametrize("dialect", WHOLE)
async def test_a_whole_answer_keeps_its_status_however_late_it_fails(dialect: str) -> None:
    """Nothing is sent before the end, so an error after text is an error still."""
    reply = await say(dialect, "text", TIRED, body={})
    assert reply.status == 503
    assert json.loads(reply.body)["error"]["message"] == "asleep"


@pytest.mark.parametrize(
    ("status", "openai", "anthropic"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "authentication_error", "authentication_error"),
        (403, "permission_error", "permission_error"),
        (404, "invalid_request_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (504, "server_error", "timeout_error"),
    ],
)
async def test_types_of_errors(status: int, openai: str, anthropic: str) -> None:
    """Each status has its type in each dialect."""
    error = RunError("own", "a message", status=status)
    for dialect, kind in (("openai", openai), ("anthropic", anthropic)):
        reply = await say(dialect, error)
        assert (reply.status, json.loads(reply.body)["error"]["type"]) == (status, kind)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_inside_is_told_under_dev_alone(dialect: str) -> None:
    """What describes the project's inside is a general sentence to clients."""
    for contents in ((5,), ("a", 5)):
        reply = await say(dialect, *contents)
        assert b"toText" not in reply.body
        assert b"The server could not complete this request." in reply.body
        assert b"toText" in (await say(dialect, *contents, wire={"dev": True})).body


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (5, "an integer: write `| toText`"),
        (True, "a boolean: write `| toText`"),
        (["a"], "a list: write `forEach`"),
        ({"a": 1}, "an object without `type`: write `| toJson`"),
        ({"type": "txt", "text": "a"}, "none of text, reasoning, toolCall, usage, finish"),
        ({"type": ["text"]}, "none of text, reasoning, toolCall, usage, finish"),
        ({"type": "text"}, "`text` is null"),
        ({"type": "text", "text": 5}, "`text` is an integer"),
        ({"type": "finish", "reason": "end_turn"}, "`reason` is none of stop, length"),
        ({"type": "finish", "reason": ["stop"]}, "`reason` is none of stop, length"),
        ({"type": "usage", "inputTokens": -1}, "`inputTokens` is an integer: give a whole number"),
        ({"type": "usage", "outputTokens": True}, "`outputTokens` is a boolean"),
        ({"type": "toolCall", "id": 7, "name": "f"}, "`id` is an integer"),
        ({"type": "toolCall", "arguments": "{}"}, "lacks the call's `name`"),
        ({"type": "toolCall", "name": "f", "arguments": [1]}, "`arguments` is a list"),
        (b"bytes", "bytes: write `| base64`"),
    ],
)
async def test_content_without_words_in_a_dialect(dialect: str, content: Any, message: str) -> None:
    """Anything but text and the items of an answer is refused, and the message says what to write."""
    reply = await say(dialect, content, wire={"dev": True})
    assert reply.status == 500
    assert b"not-in-dialect" in reply.body
    fields = json.loads(reply.body)
    assert message in (fields.get("detail") or fields["error"]["message"])


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_null_is_refused_as_everywhere(dialect: str) -> None:
    """Null is not content in any format."""
    reply = await say(dialect, None, wire={"dev": True})
    assert b"the content is null" in reply.body


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_what_fails_after_done_has_failed(dialect: str) -> None:
    """The end is sent when the run has ended: no client takes a failure for a success."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        await Emitting(run)("x")
        run.sink.done()
        raise RunError("not-saved", "lost", status=500)

    async with serving(speaking(dialect, stack)) as server:
        reply = await post(server, STREAM)
    assert b"lost" in reply.body
    for word in (b'"stop"', b"message_stop", b'"finish"'):
        assert word not in reply.body
