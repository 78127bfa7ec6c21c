"""The npm clients of OpenAI, Anthropic and Vercel read our endpoints: each script beside this file is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.clients.speaking import CLIENTS, speaking

#: What a script was seen to do, by scenario.
Told = dict[str, dict[str, Any]]

SKY = 'The sky is "blüe"\n☁'


@cache
def missing() -> str:
    """Return what the scripts lack, "" for nothing."""
    if shutil.which("node") is None:
        return "node is not installed (Debian: apt-get install nodejs npm)"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < 20:
        return f"the npm clients need Node 20 or newer, and this is {version.strip()}"
    if not (CLIENTS / "node_modules" / "ai").exists():
        return "the npm clients are not installed: `make test` does it"
    return ""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve, where there is a Node that can ask."""
    if missing():
        pytest.skip(missing())
    with speaking() as address:
        yield address


def run(script: str, *addresses: str) -> Told:
    """Run a script and return what it tells."""
    done = subprocess.run(["node", CLIENTS / script, *addresses], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    told: Told = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module")
def openai(address: str) -> Told:
    """Return what OpenAI's client does."""
    return run("openai.mjs", address)


@pytest.fixture(scope="module")
def anthropic(address: str) -> Told:
    """Return what Anthropic's client does."""
    return run("anthropic.mjs", address)


@pytest.fixture(scope="module")
def ai(address: str) -> Told:
    """Return what the AI SDK's chat does."""
    return run("ai.mjs", address)


# ------------------------------------------------------------------------------------------ openai


def test_openai_reads_text(openai: Told) -> None:
    """Whole, streamed, and put together by its helper; heartbeats are skipped."""
    for way in ("whole", "helped"):
        (choice,) = openai[f"{way} text"]["value"]["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (SKY, "stop")
    assert openai["streamed text"]["seen"] == {"text": SKY, "reasons": ["stop"]}
    assert openai["streamed slow"]["seen"]["text"] == "One two"
    assert openai["streamed late"]["seen"]["text"] == "Late"


def test_openai_reads_usage_and_reason(openai: Told) -> None:
    """What was used, and that the answer is cut."""
    whole, streamed = openai["whole items"]["value"], openai["streamed items"]["seen"]
    assert whole["choices"][0]["finish_reason"] == "length"
    assert streamed["reasons"] == ["length"]
    assert whole["usage"] == streamed["usage"]
    assert whole["usage"]["total_tokens"] == 15


@pytest.mark.parametrize("way", ["whole", "helped"])
def test_openai_reads_tool_calls(openai: Told, way: str) -> None:
    """Calls in pieces, without arguments, and with an object."""
    (choice,) = openai[f"{way} tools"]["value"]["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"]["tool_calls"]
    ] == [("weather", {"city": "Paris"}), ("clock", {}), ("add", {"a": 1, "b": [2, 3]})]


@pytest.mark.parametrize("way", ["streamed", "helped"])
@pytest.mark.parametrize(
    ("wish", "message", "code"),
    [
        ("fails", "The model went to sleep", "model-tired"),
        ("done-then-fails", "The answer could not be saved", "not-saved"),
    ],
)
def test_openai_raises_what_fails_in_mid_stream(openai: Told, way: str, wish: str, message: str, code: str) -> None:
    """Its own error with our message and code, and no reason of an end before it."""
    told = openai[f"{way} {wish}"]
    assert (told["error"]["name"], told["error"]["message"]) == ("APIError", message)
    assert told["error"]["code"] == code
    assert not told["seen"].get("reasons")


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_openai_raises_by_status_before_the_start(openai: Told, way: str) -> None:
    """Its own class for the status, with our message, code and run."""
    error = openai[f"{way} refuses"]["error"]
    assert error.pop("id")
    assert error == {
        "name": "RateLimitError",
        "message": "429 Nothing is left of the quota",
        "status": 429,
        "code": "quota-used-up",
        "type": "rate_limit_error",
    }
    assert openai["whole fails"]["error"]["status"] == 503
    assert openai["invalid"]["error"]["name"] == "BadRequestError"
    assert openai["invalid"]["error"]["param"] == "messages"


# --------------------------------------------------------------------------------------- anthropic


def test_anthropic_reads_text(anthropic: Told) -> None:
    """Whole, streamed, and put together by its helper; pings are skipped."""
    for way in ("whole", "helped"):
        message = anthropic[f"{way} text"]["value"]
        assert message["content"] == [{"type": "text", "text": SKY}]
        assert message["stop_reason"] == "end_turn"
    assert anthropic["streamed text"]["seen"]["text"] == SKY
    assert anthropic["streamed slow"]["seen"]["text"] == "One two"
    assert anthropic["helped late"]["value"]["content"][0]["text"] == "Late"


@pytest.mark.parametrize("way", ["whole", "helped"])
def test_anthropic_reads_usage_reason_and_tool_calls(anthropic: Told, way: str) -> None:
    """What was used, why it ended, and calls in blocks of their own."""
    message = anthropic[f"{way} items"]["value"]
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"] == {"input_tokens": 8, "output_tokens": 4, "cache_read_input_tokens": 3}
    message = anthropic[f"{way} tools"]["value"]
    assert message["stop_reason"] == "tool_use"
    assert [(each.get("name"), each.get("input")) for each in message["content"]] == [
        (None, None),
        ("weather", {"city": "Paris"}),
        ("clock", {}),
        ("add", {"a": 1, "b": [2, 3]}),
    ]


def test_anthropic_reads_reasoning(anthropic: Told) -> None:
    """A block of its own with its signature, and one that is encrypted."""
    thought, redacted, *_ = anthropic["helped thinks"]["value"]["content"]
    assert thought == {"type": "thinking", "thinking": "Blue or grey?", "signature": "EqQB"}
    assert redacted == {"type": "redacted_thinking", "data": "EmwK"}


@pytest.mark.parametrize("way", ["streamed", "helped"])
@pytest.mark.parametrize(
    ("wish", "message", "type_"),
    [
        ("fails", "The model went to sleep", "overloaded_error"),
        ("done-then-fails", "The answer could not be saved", "api_error"),
    ],
)
def test_anthropic_raises_what_fails_in_mid_stream(
    anthropic: Told, way: str, wish: str, message: str, type_: str
) -> None:
    """Its own error with our message and type, and no end of a message before it."""
    told = anthropic[f"{way} {wish}"]
    assert (told["error"]["name"], told["error"]["type"]) == ("APIError", type_)
    assert message in told["error"]["message"]
    assert "message_delta" not in told["seen"].get("types", ())


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_anthropic_raises_by_status_before_the_start(anthropic: Told, way: str) -> None:
    """Its own class for the status, with our type, message and run."""
    error = anthropic[f"{way} refuses"]["error"]
    assert (error["name"], error["status"]) == ("RateLimitError", 429)
    assert error["type"] == "rate_limit_error"
    assert error["id"]
    assert "Nothing is left of the quota" in error["message"]
    assert anthropic["whole fails"]["error"]["status"] == 503
    assert anthropic["invalid"]["error"]["name"] == "BadRequestError"


# -------------------------------------------------------------------------------------------- ai


def answer(told: Told, wish: str) -> dict[str, Any]:
    """Return the assistant's message of a chat that went well."""
    chat = told[wish]["value"]
    assert (chat["status"], chat["failed"]) == ("ready", False)
    question, message = chat["messages"]
    assert (question["role"], message["role"]) == ("user", "assistant")
    found: dict[str, Any] = message
    return found


@pytest.mark.parametrize(("wish", "text"), [("text", SKY), ("slow", "One two"), ("late", "Late")])
def test_the_ai_sdk_reads_text(ai: Told, wish: str, text: str) -> None:
    """A text part that is done; the message has the run's id; heartbeats are skipped."""
    message = answer(ai, wish)
    assert message["parts"] == [{"type": "text", "text": text, "state": "done"}]
    assert message["id"].startswith("msg_")
    assert ai[wish]["value"]["reason"] == "stop"


def test_the_ai_sdk_reads_tool_calls_usage_and_metadata(ai: Told) -> None:
    """Calls are parts whose input is available; figures are the message's metadata."""
    parts = answer(ai, "tools")["parts"]
    assert [(each["type"], each["state"], each.get("input")) for each in parts] == [
        ("text", "done", None),
        ("tool-weather", "input-available", {"city": "Paris"}),
        ("tool-clock", "input-available", {}),
        ("tool-add", "input-available", {"a": 1, "b": [2, 3]}),
    ]
    assert ai["tools"]["value"]["reason"] == "tool-calls"
    assert answer(ai, "items")["metadata"]["usage"]["outputTokens"] == 4
    assert ai["items"]["value"]["reason"] == "length"
    assert answer(ai, "figures")["metadata"] == {"chunks": 1}
    assert answer(ai, "silent")["parts"] == []


def test_the_ai_sdk_reads_reasoning(ai: Told) -> None:
    """Parts of their own, with what providers need back beside them."""
    thought, redacted, text, call = answer(ai, "thinks")["parts"]
    assert (thought["type"], thought["text"], thought["state"]) == ("reasoning", "Blue or grey?", "done")
    assert thought["providerMetadata"] == {"anthropic": {"signature": "EqQB"}}
    assert redacted["providerMetadata"] == {"anthropic": {"redactedData": "EmwK"}}
    assert text["text"] == "Blue."
    assert call["callProviderMetadata"] == {"google": {"thoughtSignature": "CiQB"}}


def test_the_ai_sdk_goes_on_with_a_message(ai: Told) -> None:
    """The result of a tool that the page ran is sent, and its answer joins the same message."""
    message = answer(ai, "continued")
    states = {each["type"]: each["state"] for each in message["parts"]}
    assert states["tool-weather"] == "output-available"
    assert message["parts"][-1]["text"] == "Once upon a time"


@pytest.mark.parametrize(
    ("wish", "error"), [("fails", "The model went to sleep"), ("done-then-fails", "The answer could not be saved")]
)
def test_the_ai_sdk_fails_with_what_fails_in_mid_stream(ai: Told, wish: str, error: str) -> None:
    """The chat is in error with our message, and its last text is not done."""
    chat = ai[wish]["value"]
    assert (chat["status"], chat["failed"], chat["error"]) == ("error", True, error)
    assert chat["messages"][1]["parts"][0]["state"] == "streaming"
    assert "reason" not in chat


def test_the_ai_sdk_fails_with_what_fails_before_the_start(ai: Told) -> None:
    """The chat's error is the problem document."""
    chat = ai["refuses"]["value"]
    assert (chat["status"], chat["failed"]) == ("error", True)
    assert json.loads(chat["error"])["code"] == "quota-used-up"
    assert len(chat["messages"]) == 1
