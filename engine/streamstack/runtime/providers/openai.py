"""OpenAI's chat completions, and all servers that speak like it.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamstack.formats.items import CONTENT_FILTER, LENGTH, OTHER, REFUSAL, STOP, TOOL_CALLS, Item
from streamstack.runtime.providers.conversation import Image, Turn
from streamstack.runtime.providers.provider import AnswerReader, Chat, Provider, lost, part, parts, word

_REASONS: Final = {
    "stop": STOP,
    "length": LENGTH,
    "tool_calls": TOOL_CALLS,
    "function_call": TOOL_CALLS,
    "content_filter": CONTENT_FILTER,
}


def bearer(key: str | None) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def _body(chat: Chat) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    if chat.system:
        messages.append({"role": "system", "content": chat.system})
    messages += map(_message, chat.turns)
    body: dict[str, Any] = {
        "model": chat.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if chat.max_tokens is not None:
        # OpenAI's reasoning models refuse the old name, many other servers don't know the new one.
        body["max_completion_tokens" if chat.own else "max_tokens"] = chat.max_tokens
    if chat.temperature is not None:
        body["temperature"] = chat.temperature
    if chat.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    **({"description": tool.description} if tool.description else {}),
                    "parameters": tool.schema,
                },
            }
            for tool in chat.tools
        ]
    return body


def _message(turn: Turn) -> dict[str, Any]:
    if turn.role == "tool":
        return {"role": "tool", "tool_call_id": turn.answers, "content": turn.text}
    message: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.has_images:
        message["content"] = [
            {"type": "image_url", "image_url": {"url": each.address}}
            if isinstance(each, Image)
            else {"type": "text", "text": each}
            for each in turn.parts
        ]
    if turn.calls:
        message["content"] = message["content"] or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.json}}
            for call in turn.calls
        ]
    return message


class _Call:
    """A tool call that is on its way."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments: list[str] = []


class OpenAIReader(AnswerReader):
    """Reads `chat.completion.chunk` up to `[DONE]`."""

    provider = "openai"

    def __init__(self, host: str, largest: int) -> None:
        super().__init__(host, largest)
        self._calls: dict[int, _Call] = {}
        self._said: str | None = None
        self._refused = False

    def take(self, data: Mapping[str, Any], items: list[Item]) -> None:
        if data.get("error"):
            raise self.fail(data, data["error"])
        if data.get("usage"):
            self._note(part(data, "usage"))
        choices = data.get("choices")
        for choice in choices if type(choices) is list else ():
            if type(choice) is not dict or choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta")
            if type(delta) is dict:
                text = delta.get("content")
                if type(text) is str:
                    self.reply.add_text(text, items)
                # Most hold a piece of the text and nothing else.
                if text is None or len(delta) > 1:
                    self._take_more(delta, items)
            if choice.get("finish_reason"):
                self._said = word(choice, "finish_reason") or self._said
        if self._said is not None:
            self._give_calls(items)

    def piece(self, data: Mapping[str, Any]) -> str | None:
        if self._said is not None or data.get("error") or data.get("usage"):
            return None
        choices = data.get("choices")
        if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
            return None
        choice = choices[0]
        delta = choice.get("delta")
        if choice.get("index", 0) != 0 or choice.get("finish_reason") or type(delta) is not dict:
            return None
        text = delta.get("content")
        return text if type(text) is str and len(delta) == 1 else None

    def _note(self, usage: Mapping[str, Any]) -> None:
        self.reply.note_usage(
            inputTokens=usage.get("prompt_tokens"),
            outputTokens=usage.get("completion_tokens"),
            totalTokens=usage.get("total_tokens"),
            cachedTokens=part(usage, "prompt_tokens_details").get("cached_tokens"),
            reasoningTokens=part(usage, "completion_tokens_details").get("reasoning_tokens"),
        )

    def _take_more(self, delta: Mapping[str, Any], items: list[Item]) -> None:
        refusal = word(delta, "refusal")
        if refusal:
            self._refused = True
            self.reply.add_text(refusal, items)
        for each in parts(delta, "tool_calls"):
            self._take_call(each)

    def _take_call(self, delta: Mapping[str, Any]) -> None:
        id_, index = word(delta, "id"), delta.get("index")
        if not isinstance(index, int):  # some servers remove it
            last = max(self._calls, default=-1)
            known = last >= 0 and (not id_ or self._calls[last].id == id_)
            index = last if known else last + 1
        call = self._calls.setdefault(index, _Call())
        function = part(delta, "function")
        call.id = call.id or id_
        call.name = call.name or word(function, "name")
        arguments = word(function, "arguments")
        self.reply.count(arguments)
        call.arguments.append(arguments)

    def _give_calls(self, items: list[Item]) -> None:
        for index in sorted(self._calls):
            call = self._calls[index]
            self.reply.add_call(call.id, call.name, "".join(call.arguments), items)
        self._calls.clear()

    def close(self, items: list[Item], *, marked: bool) -> None:
        if not marked:
            raise lost(self.host)
        self.ended = True
        self._give_calls(items)
        reason = _REASONS.get(self._said or "", OTHER)
        if self._refused and reason == STOP:
            reason = REFUSAL
        self.reply.finish(reason, self._said, items)


PROVIDER: Final = Provider(
    name="openai",
    url="https://api.openai.com/v1",
    keys=("OPENAI_API_KEY",),
    addresses=("OPENAI_BASE_URL",),
    path=lambda *_: "/chat/completions",
    headers=bearer,
    body=_body,
    reader=OpenAIReader,
)
