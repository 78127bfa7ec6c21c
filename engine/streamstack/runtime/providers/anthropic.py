"""Anthropic's messages.

Source: https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamstack.formats.items import LENGTH, OTHER, REFUSAL, STOP, TOOL_CALLS, Item
from streamstack.runtime.providers.conversation import Image, Turn
from streamstack.runtime.providers.provider import AnswerReader, Chat, Provider, part, word

#: The version of the interface that is spoken here.
VERSION: Final = "2023-06-01"
#: Tokens of an answer where the author says nothing: the interface wants a number, and every model allows this one.
TOKENS: Final = 4096

_REASONS: Final = {
    "end_turn": STOP,
    "stop_sequence": STOP,
    "max_tokens": LENGTH,
    "model_context_window_exceeded": LENGTH,
    "tool_use": TOOL_CALLS,
    "refusal": REFUSAL,
}
_REASONING: Final = frozenset({"thinking", "redacted_thinking"})


def _headers(key: str | None) -> dict[str, str]:
    return {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}


def _body(chat: Chat) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": chat.model,
        "max_tokens": chat.max_tokens if chat.max_tokens is not None else TOKENS,
        "messages": _messages(chat.turns),
        "stream": True,
    }
    system = chat.system_text()
    if system:
        body["system"] = system
    if chat.temperature is not None:
        body["temperature"] = chat.temperature
    if chat.tools:
        body["tools"] = [
            {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "input_schema": tool.schema,
            }
            for tool in chat.tools
        ]
    return body


def _messages(turns: tuple[Turn, ...]) -> list[dict[str, Any]]:
    """Return the messages: turns of one role are one, as the answers to several calls have to be."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        if turn.role in ("system", "developer"):
            continue
        role = "assistant" if turn.role == "assistant" else "user"
        blocks = _blocks(turn)
        if not blocks:  # an empty message is refused
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": role, "content": blocks})
    for message in messages:
        content = message["content"]
        if len(content) == 1 and content[0]["type"] == "text":
            message["content"] = content[0]["text"]
    return messages


def _blocks(turn: Turn) -> list[dict[str, Any]]:
    if turn.role == "tool":
        return [{"type": "tool_result", "tool_use_id": turn.answers, "content": turn.text}]
    provider, reasoning = turn.reasoning
    blocks: list[dict[str, Any]] = []
    if provider == "anthropic":
        blocks += [dict(block) for block in reasoning if isinstance(block, Mapping)]
    for each in turn.parts:
        if isinstance(each, Image):
            source = (
                {"type": "url", "url": each.url}
                if each.url is not None
                else {"type": "base64", "media_type": each.media, "data": each.data}
            )
            blocks.append({"type": "image", "source": source})
        elif each:
            blocks.append({"type": "text", "text": each})
    blocks += [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.object} for call in turn.calls]
    return blocks


class AnthropicReader(AnswerReader):
    """Reads `message_start` to `message_stop`."""

    provider = "anthropic"
    has_heartbeats = True

    def __init__(self, host: str, largest: int) -> None:
        super().__init__(host, largest)
        self._block: dict[str, Any] = {}
        self._json: list[str] = []
        self._said: str | None = None
        self._input = {"input_tokens": 0, "cache_read_input_tokens": 0}
        self._input["cache_creation_input_tokens"] = 0

    def is_heartbeat(self, data: Mapping[str, Any]) -> bool:
        return data.get("type") == "ping"

    def take(self, data: Mapping[str, Any], items: list[Item]) -> None:
        what = data.get("type")
        if what == "content_block_delta":
            self._take_delta(part(data, "delta"), items)
        elif what == "content_block_start":
            self._block = dict(part(data, "content_block"))
            self._json = []
            self.reply.add_text(self._text_of_block(), items)
        elif what == "content_block_stop":
            self._end_block(items)
        elif what == "message_start":
            self._note(part(part(data, "message"), "usage"))
        elif what == "message_delta":
            self._said = word(part(data, "delta"), "stop_reason") or self._said
            self._note(part(data, "usage"))
        elif what == "message_stop":
            self.ended = True
            self.reply.finish(_REASONS.get(self._said or "", OTHER), self._said, items)
        elif what == "error" or (what is None and data.get("error")):
            raise self.fail(data, data.get("error"))

    def _text_of_block(self) -> str:
        return word(self._block, "text") if self._block.get("type") == "text" else ""

    def _take_delta(self, delta: Mapping[str, Any], items: list[Item]) -> None:
        what = delta.get("type")
        if what == "text_delta":
            self.reply.add_text(word(delta, "text"), items)
        elif what == "input_json_delta":
            self.reply.count(word(delta, "partial_json"))
            self._json.append(word(delta, "partial_json"))
        elif what == "thinking_delta":
            self.reply.count(word(delta, "thinking"))
            self._json.append(word(delta, "thinking"))
        elif what == "signature_delta":
            self._block["signature"] = word(self._block, "signature") + word(delta, "signature")

    def _end_block(self, items: list[Item]) -> None:
        block, self._block = self._block, {}
        text = "".join(self._json)
        what = word(block, "type")
        if what == "tool_use":
            whole = part(block, "input")  # some servers give it at once
            self.reply.add_call(word(block, "id"), word(block, "name"), text or whole, items)
        elif what in _REASONING:
            if what == "thinking":
                block["thinking"] = word(block, "thinking") + text
            self.reply.reasoning.append(block)

    def _note(self, usage: Mapping[str, Any]) -> None:
        """Take figures: those of the input exclude what came from the cache or went there."""
        for name in self._input:
            if isinstance(usage.get(name), int):
                self._input[name] = usage[name]
        if usage:
            self.reply.note_usage(
                inputTokens=sum(self._input.values()),
                outputTokens=usage.get("output_tokens"),
                cachedTokens=self._input["cache_read_input_tokens"] or None,
            )


PROVIDER: Final = Provider(
    name="anthropic",
    url="https://api.anthropic.com",
    keys=("ANTHROPIC_API_KEY",),
    addresses=("ANTHROPIC_BASE_URL",),
    path=lambda url, _: "/messages" if url.endswith("/v1") else "/v1/messages",
    headers=_headers,
    body=_body,
    reader=AnthropicReader,
)
