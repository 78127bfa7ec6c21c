"""Models as simulated by another project (@copilotkit/aimock), asked by `llm.chat`: every provider, every fault."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.runtime.providers.asking import PROVIDERS, Said, ask
from tests.runtime.providers.test_requests import TOOL

HERE = Path(__file__).parent
TEXT = "The sky is blüe, 世界 🌍, and it stays so for the whole of this answer."
#: What follows the address, for each provider and for servers that speak like one.
PATHS = {"openai": "/v1", "openaiResponses": "/v1", "anthropic": "", "gemini": ""}
EVERY = list(PROVIDERS)


def missing() -> str:
    """Return what is lacking, "" for nothing."""
    if shutil.which("node") is None:
        return "node is not installed (Debian: apt-get install nodejs npm)"
    if not (HERE / "node_modules" / "@copilotkit" / "aimock").exists():
        return "aimock is not installed: `make test` does it"
    return ""


@pytest_asyncio.fixture
async def address() -> AsyncIterator[str]:
    """Start the models, where there is a Node."""
    if missing():
        pytest.skip(missing())
    process = await asyncio.create_subprocess_exec(
        "node", HERE / "aimock.mjs", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.communicate(), 10)


async def said_by(address: str, provider: str, question: str, **given: Any) -> Said:
    """Ask one of the models."""
    url = address + PATHS[provider]
    given = {"messages": question, "api_key": "k"} | given
    return await ask(url, provider, **given)


@pytest.mark.parametrize("provider", EVERY)
async def test_answers(address: str, provider: str) -> None:
    """Text in pieces as it is written, what was used, why it ended; reasoning is not text."""
    said = await said_by(address, provider, "text")
    assert (said.code, said.text, said.message["finishReason"]) == (None, TEXT, "stop")
    assert said.items[-1]["type"] == "finish"
    assert sum(item["type"] == "text" for item in said.items) > 4
    assert said.message["usage"] is not None

    slow = await said_by(address, provider, "slow")
    assert slow.text == TEXT
    assert sum(1 for batch in slow.batches if batch[0]["type"] == "text") > 4

    reasoned = await said_by(address, provider, "reasons")
    assert (reasoned.code, reasoned.text) == (None, TEXT)
    # Its chat completions have no reasoning, as OpenAI's have none.
    assert reasoned.message["reasoning"].startswith("It was asked") is (provider != "openai")
    if provider == "anthropic":
        block, said_then = reasoned.message["providerState"]["blocks"]
        assert (block["thinking"], said_then["text"]) == (reasoned.message["reasoning"], TEXT)

    cut = await said_by(address, provider, "cut")
    # Of OpenAI's responses it says that they are incomplete, and not why.
    assert cut.message["finishReason"] == ("other" if provider == "openaiResponses" else "length")


@pytest.mark.parametrize("provider", EVERY)
async def test_tools(address: str, provider: str) -> None:
    """Calls come whole; their answers go back in the provider's words, and it goes on."""
    said = await said_by(address, provider, "tools", tools=[TOOL])
    assert (said.code, said.text) == (None, "Let me see.")
    assert said.message["finishReason"] == "toolCalls"
    calls = said.message["toolCalls"]
    assert [(call["name"], call["arguments"]) for call in calls] == [
        ("weather", {"city": "Gent", "unit": "C"}),
        ("clock", {}),
    ]
    messages = [
        {"role": "user", "content": "tools"},
        said.message,
        *({"role": "tool", "toolCallId": call["id"], "content": "21"} for call in calls),
    ]
    again = await said_by(address, provider, "", messages=messages)
    assert (again.code, again.text) == (None, "It is 21 degrees.")


@pytest.mark.parametrize("provider", EVERY)
async def test_faults(address: str, provider: str) -> None:
    """Refusals with their status, answers that break off as lost, nonsense as such: never an end."""
    for question, status, final in (
        ("too often", 429, False),
        ("limits", 429, False),
        ("broken", 500, False),
        ("drops", 500, False),
        ("no key", 401, True),
    ):
        said = await said_by(address, provider, question)
        assert said.error is not None, question
        assert (said.code, said.items) == ("http-status", []), question
        assert said.error.details["status"] == status, question
        assert said.error.final is final, question
        if status == 429:
            assert said.error.retry_after == (3 if question == "too often" else 1)
    for question in ("truncated", "disconnected"):
        said = await said_by(address, provider, question)
        assert said.code == "stream-lost", question
        assert TEXT.startswith(said.text)
        assert said.text != TEXT
        assert said.message["content"] == said.text
        assert said.message["finishReason"] is None
    assert (await said_by(address, provider, "hangs up")).code == "http-connection"
    assert (await said_by(address, provider, "malformed")).code == "invalid-chunk"


@pytest.mark.parametrize("path", ["/api/v1", "/api/v3", "/openai/deployments/gpt-4o"])
async def test_servers_that_speak_like_openai(address: str, path: str) -> None:
    """OpenRouter, BytePlus and Azure, as `openai` with another address."""
    said = await ask(address + path, "openai", messages="text", api_key="k")
    assert (said.code, said.text, said.message["finishReason"]) == (None, TEXT, "stop")
