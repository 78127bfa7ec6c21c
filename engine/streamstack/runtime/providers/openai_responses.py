"""OpenAI's Responses.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamstack.formats.items import CONTENT_FILTER, LENGTH, OTHER, REFUSAL, STOP, Item
from streamstack.language.values import to_json
from streamstack.runtime.providers.conversation import Attachment, Turn, attachments_apart
from streamstack.runtime.providers.openai import PROVIDER as OPENAI
from streamstack.runtime.providers.openai import bearer
from streamstack.runtime.providers.provider import AnswerReader, Chat, Provider, made_id, part, parts, string, usage_of

_INCOMPLETE: Final = {"max_output_tokens": LENGTH, "content_filter": CONTENT_FILTER}


def _body(chat: Chat) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": chat.model,
        "input": [item for turn in attachments_apart(chat.turns) for item in _items(turn)],
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
    # Each item of reasoning has to precede what it led to: a message, or the call whose id is noted.
    thoughts: dict[str, list[dict[str, Any]]] = {}
    for block in turn.state("openaiResponses"):
        if isinstance(block, Mapping) and isinstance(block.get("item"), Mapping):
            thoughts.setdefault(string(block, "before"), []).append(dict(block["item"]))
    ids = {call.id for call in turn.calls}
    for before, items in thoughts.items():
        if before not in ids:
            yield from items
    if turn.attachments:
        yield {"role": turn.role, "content": [_content_part(each) for each in turn.parts]}
    elif turn.parts or not turn.calls:
        yield {"role": turn.role, "content": turn.text}
    for call in turn.calls:
        yield from thoughts.get(call.id, ())
        yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.json}


def _content_part(part: str | Attachment) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "input_text", "text": part}
    if not part.is_document:
        return {"type": "input_image", "image_url": part.address, "detail": "auto"}
    if part.url is not None:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "filename": part.name or "document.pdf", "file_data": part.address}


class ResponsesReader(AnswerReader):
    """Reads `response.*` up to completed, incomplete or failed.

    Compatible servers omit events: the arguments of a call may come in pieces, in an event that closes them, in the
    item, or in the response alone.
    """

    provider = "openaiResponses"

    def __init__(self, host: str, largest: int) -> None:
        super().__init__(host, largest)
        self._refused = False
        self._reason = OTHER
        self._arguments: dict[str, list[str]] = {}  # by the item's id
        self._seen: set[str] = set()  # ids of the items that are read
        self._waiting: list[dict[str, Any]] = []  # reasoning whose successor is not known yet

    def take(self, data: Mapping[str, Any], items: list[Item]) -> None:
        what = string(data, "type")
        if what == "response.output_text.delta":
            self.reply.add_text(string(data, "delta"), items)
        elif what == "response.refusal.delta":
            self._refused = True
            self.reply.add_text(string(data, "delta"), items)
        elif what in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self.reply.add_reasoning(string(data, "delta"), items)
        elif what == "response.reasoning_summary_part.added" and self.reply.reasoning:
            self.reply.add_reasoning("\n\n", items)
        elif what == "response.function_call_arguments.delta":
            self.reply.count(string(data, "delta"))
            self._arguments.setdefault(string(data, "item_id"), []).append(string(data, "delta"))
        elif what == "response.function_call_arguments.done" and string(data, "arguments"):
            self._arguments[string(data, "item_id")] = [string(data, "arguments")]
        elif what == "response.output_item.done":
            self._take_item(part(data, "item"), items)
        elif what in ("response.completed", "response.incomplete"):
            self._end(what, part(data, "response"), items)
        elif what == "response.failed":
            raise self.fail(data, part(data, "response").get("error") or {})
        elif what == "error" or (not what and data.get("error")):
            raise self.fail(data, data.get("error") or data)

    def _take_item(self, item: Mapping[str, Any], items: list[Item]) -> None:
        name = string(item, "id") or string(item, "call_id")
        if name and name in self._seen:
            return
        self._seen.add(name)
        what = item.get("type")
        if what == "function_call":
            arguments = item.get("arguments") or "".join(self._arguments.get(string(item, "id"), ()))
            if isinstance(arguments, str):
                self.reply.count(arguments)
            call_id = string(item, "call_id") or string(item, "id") or made_id()
            self.reply.add_call(
                call_id, string(item, "name"), arguments if isinstance(arguments, (str, dict)) else "", items
            )
            self._place_reasoning(call_id)
        elif what == "reasoning" and item.get("encrypted_content"):
            self.reply.count(to_json(item).decode())
            self._waiting.append(dict(item))
        elif what == "message":
            self._place_reasoning("")
            if not self.reply.text:
                for each in parts(item, "content"):
                    self._refused = self._refused or "refusal" in each
                    self.reply.add_text(string(each, "text") or string(each, "refusal"), items)

    def _place_reasoning(self, before: str) -> None:
        self.reply.blocks += ({"before": before, "item": item} for item in self._waiting)
        self._waiting = []

    def _end(self, what: str, response: Mapping[str, Any], items: list[Item]) -> None:
        for item in parts(response, "output"):
            self._take_item(item, items)
        self._place_reasoning("")
        self.reply.note_usage(**usage_of(part(response, "usage")))
        self.said = string(response, "status") or what.removeprefix("response.")
        self._reason = REFUSAL if self._refused else STOP
        if what == "response.incomplete" or self.said != "completed":
            self.said = string(part(response, "incomplete_details"), "reason") or self.said
            self._reason = _INCOMPLETE.get(self.said, OTHER)
        self.finish(items)

    def finish(self, items: list[Item]) -> None:
        self.ended = True
        self.reply.finish(self._reason, self.said, items)


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
