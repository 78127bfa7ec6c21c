"""OpenAI's Responses.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamstack.formats.items import CONTENT_FILTER, LENGTH, OTHER, REFUSAL, STOP, Item
from streamstack.runtime.providers.conversation import Image, Turn
from streamstack.runtime.providers.openai import PROVIDER as OPENAI
from streamstack.runtime.providers.openai import bearer
from streamstack.runtime.providers.provider import AnswerReader, Chat, Provider, part, word

_INCOMPLETE: Final = {"max_output_tokens": LENGTH, "content_filter": CONTENT_FILTER}


def _body(chat: Chat) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": chat.model,
        "input": [item for turn in chat.turns for item in _items(turn)],
        "stream": True,
    }
    if chat.system:
        body["instructions"] = chat.system
    if chat.max_tokens is not None:
        body["max_output_tokens"] = chat.max_tokens
    if chat.temperature is not None:
        body["temperature"] = chat.temperature
    if chat.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "parameters": tool.schema,
                # Left out, it is true here, and most schemas are refused.
                "strict": False,
            }
            for tool in chat.tools
        ]
    return body


def _items(turn: Turn) -> Iterator[dict[str, Any]]:
    if turn.role == "tool":
        yield {"type": "function_call_output", "call_id": turn.answers, "output": turn.text}
        return
    provider, blocks = turn.reasoning
    if provider == "openaiResponses":
        yield from (dict(block) for block in blocks if isinstance(block, Mapping))
    if turn.has_images:
        content = [
            {"type": "input_image", "image_url": each.address, "detail": "auto"}
            if isinstance(each, Image)
            else {"type": "input_text", "text": each}
            for each in turn.parts
        ]
        yield {"role": turn.role, "content": content}
    elif turn.parts or not turn.calls:
        yield {"role": turn.role, "content": turn.text}
    for call in turn.calls:
        yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.json}


class ResponsesReader(AnswerReader):
    """Reads `response.*` up to completed, incomplete or failed."""

    provider = "openaiResponses"

    def __init__(self, host: str, largest: int) -> None:
        super().__init__(host, largest)
        self._refused = False

    def take(self, data: Mapping[str, Any], items: list[Item]) -> None:
        what = word(data, "type")
        if what == "response.output_text.delta":
            self.reply.add_text(word(data, "delta"), items)
        elif what == "response.refusal.delta":
            self._refused = True
            self.reply.add_text(word(data, "delta"), items)
        elif what == "response.output_item.done":
            self._take_item(part(data, "item"), items)
        elif what in ("response.completed", "response.incomplete"):
            self._end(what, part(data, "response"), items)
        elif what == "response.failed":
            raise self.fail(data, part(data, "response").get("error") or {})
        elif what == "error" or (not what and data.get("error")):
            raise self.fail(data, data.get("error") or data)

    def _take_item(self, item: Mapping[str, Any], items: list[Item]) -> None:
        if item.get("type") == "function_call":
            arguments = word(item, "arguments")
            self.reply.count(arguments)
            self.reply.add_call(word(item, "call_id") or word(item, "id"), word(item, "name"), arguments, items)
        elif item.get("type") == "reasoning" and item.get("encrypted_content"):
            self.reply.reasoning.append(dict(item))

    def _end(self, what: str, response: Mapping[str, Any], items: list[Item]) -> None:
        usage = part(response, "usage")
        self.reply.note_usage(
            inputTokens=usage.get("input_tokens"),
            outputTokens=usage.get("output_tokens"),
            totalTokens=usage.get("total_tokens"),
            cachedTokens=part(usage, "input_tokens_details").get("cached_tokens"),
            reasoningTokens=part(usage, "output_tokens_details").get("reasoning_tokens"),
        )
        said = word(response, "status") or what.removeprefix("response.")
        reason = REFUSAL if self._refused else STOP
        if what == "response.incomplete" or said != "completed":
            said = word(part(response, "incomplete_details"), "reason") or said
            reason = _INCOMPLETE.get(said, OTHER)
        self.ended = True
        self.reply.finish(reason, said, items)


PROVIDER: Final = Provider(
    name="openaiResponses",
    url=OPENAI.url,
    keys=OPENAI.keys,
    addresses=OPENAI.addresses,
    path=lambda *_: "/responses",
    headers=bearer,
    body=_body,
    reader=ResponsesReader,
)
