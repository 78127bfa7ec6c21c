"""Endpoints that speak a dialect, with hand-written stacks, and their answers taken apart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from streamstack.language.definition import InputRules
from streamstack.runtime.inputs import compile_inputs
from streamstack.runtime.run import Run
from streamstack.server.endpoints import EndpointHandler, Reader
from streamstack.server.response_options import Limits, ResponseOptions
from tests.server.serving import Emitting, Reply, Server, Stack, endpoint, parse, serving

STREAM = {"stream": True, "model": "m"}


def speaking(dialect: str, stack: Stack, **options: Any) -> EndpointHandler:
    """Return an endpoint that reads its body as the real ones do: for what it asks, not for inputs."""
    reader = Reader(compile_inputs((), InputRules(unknown="ignore")), max_body=1 << 20, reads_body=True)
    wire = ResponseOptions(dialect, **options.pop("wire", {}))
    return endpoint(
        stack, method="POST", wire=wire, read=reader.read, limits=options.pop("limits", Limits()), **options
    )


async def post(server: Server, body: Any, extra: str = "") -> Reply:
    """Ask with a JSON body."""
    data = json.dumps(body).encode()
    head = (
        "POST /s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\n{extra}Content-Length: {len(data)}\r\n\r\n"
    )
    return parse(await server.raw(head.encode() + data))


async def say(dialect: str, *contents: Any, body: Any = STREAM, **options: Any) -> Reply:
    """Emit contents, ask, and return the answer."""

    async def stack(run: Run, inputs: dict[str, Any]) -> None:
        emit = Emitting(run)
        for content in contents:
            if isinstance(content, Exception):
                raise content
            await emit(content)

    async with serving(speaking(dialect, stack, **options)) as server:
        return await post(server, body)


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event; data is JSON where it parses."""

    name: str
    data: Any


def events(body: bytes) -> list[Event]:
    """Take a body apart, strictly: no ids, no retry, no comments but whole lines `:`."""
    found = []
    *blocks, rest = body.decode().split("\n\n")
    assert rest == ""
    for block in blocks:
        name, data = "", None
        for line in block.split("\n"):
            if line == ":":
                continue
            field, _, value = line.partition(": ")
            assert field in ("event", "data"), block
            if field == "event":
                name = value
            else:
                assert data is None, block
                data = value
        assert data
        found.append(Event(name, data if data == "[DONE]" else json.loads(data)))
    return found


@dataclass
class Said:
    """What a client has understood: runs of text, calls and reasoning (an object) in order, and how it ended."""

    blocks: list[Any]
    reasoning: str = ""
    reason: str | None = None
    usage: Any = None
    ended: bool = False

    def text(self, piece: str, *, fresh: bool = False) -> None:
        if fresh or not self.blocks or not isinstance(self.blocks[-1], str):
            self.blocks.append("")
        self.blocks[-1] += piece


def heard_openai(body: bytes) -> Said:
    """Put the chunks of a completion together; texts are one, since its calls have no place among them."""
    said = Said([])
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    first, *chunks, last = events(body)
    assert last == Event("", "[DONE]")
    assert first.data["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    for event in chunks:
        assert (event.name, event.data["object"]) == ("", "chat.completion.chunk")
        if event.data.get("usage"):
            assert event.data["choices"] == []
            said.usage = event.data["usage"]
            continue
        assert said.usage is None
        choice = event.data["choices"][0]
        assert said.reason is None
        said.reason = choice["finish_reason"]
        texts += [choice["delta"]["content"]] if "content" in choice["delta"] else []
        said.reasoning += choice["delta"].get("reasoning_content", "")
        for call in choice["delta"].get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(calls)
                calls.append({"id": call["id"], "name": call["function"]["name"], "text": ""})
            calls[call["index"]]["text"] += call["function"]["arguments"]
    said.ended = True
    said.blocks = [*(["".join(texts)] if texts else []), *map(_call, calls)]
    return said


def _call(call: dict[str, Any]) -> tuple[str, str, Any]:
    return call["id"], call["name"], json.loads(call["text"])


def heard_anthropic(body: bytes) -> Said:
    """Put the events of a message together, and check that each comes in its place."""
    said = Said([])
    opened: dict[str, Any] | None = None
    text = ""
    first, *rest = [event for event in events(body) if event.name != "ping"]
    assert first.data["type"] == "message_start"
    number = -1
    for event in rest:
        assert event.name == event.data["type"]
        assert not said.ended
        match event.name:
            case "content_block_start":
                number += 1
                assert opened is None
                assert event.data["index"] == number
                opened, text = event.data["content_block"], ""
            case "content_block_delta":
                assert opened is not None
                assert event.data["index"] == number
                delta = event.data["delta"]
                if delta["type"] == "signature_delta":
                    opened["signature"] += delta["signature"]
                    continue
                field = {"tool_use": "partial_json"}.get(opened["type"], opened["type"])
                text += delta[field]
            case "content_block_stop":
                assert opened is not None
                if opened["type"] == "text":
                    said.blocks.append(text)
                elif opened["type"] == "redacted_thinking":
                    said.blocks.append({"redacted": opened["data"]})
                elif opened["type"] == "thinking":
                    said.blocks.append({"thought": text, "signature": opened["signature"]})
                else:
                    said.blocks.append((opened["id"], opened["name"], json.loads(text or "{}")))
                opened = None
            case "message_delta":
                assert opened is None
                said.reason, said.usage = event.data["delta"]["stop_reason"], event.data["usage"]
            case "message_stop":
                said.ended = True
            case other:
                raise AssertionError(other)
    assert said.ended
    return said


def heard_ai_sdk(body: bytes) -> Said:
    """Put the parts of a UI message together."""
    said = Said([])
    texts: dict[str, str] = {}
    calls: dict[str, str] = {}
    first, *parts, finish, last = events(body)
    assert (first.data["type"], last.data) == ("start", "[DONE]")
    for event in parts:
        part = event.data
        assert event.name == ""
        match part["type"]:
            case "text-start" | "reasoning-start":
                texts[part["id"]] = ""
            case "text-delta" | "reasoning-delta":
                texts[part["id"]] += part["delta"]
            case "reasoning-end":
                signed = part.get("providerMetadata", {"anthropic": {}})["anthropic"]
                if "redactedData" in signed:
                    said.blocks.append({"redacted": signed["redactedData"]})
                else:
                    said.blocks.append({"thought": texts[part["id"]], "signature": signed.get("signature", "")})
                del texts[part["id"]]
            case "text-end":
                said.blocks.append(texts.pop(part["id"]))
            case "tool-input-start":
                calls[part["toolCallId"]] = ""
            case "tool-input-delta":
                calls[part["toolCallId"]] += part["inputTextDelta"]
            case "tool-input-available":
                streamed = calls.pop(part["toolCallId"])
                assert json.loads(streamed or "{}") == part["input"]
                said.blocks.append((part["toolCallId"], part["toolName"], part["input"]))
            case other:
                raise AssertionError(other)
    assert not texts
    assert not calls
    said.reason = finish.data["finishReason"]
    said.usage = finish.data.get("messageMetadata", {}).get("usage")
    said.ended = True
    return said


HEARD = {"openai": heard_openai, "anthropic": heard_anthropic, "aiSdk": heard_ai_sdk}
