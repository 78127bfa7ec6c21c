"""Anthropic's messages.

Source: https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamstack.formats.items import LENGTH, OTHER, REFUSAL, STOP, TOOL_CALLS, Item
from streamstack.language.values import to_json
from streamstack.runtime.providers.conversation import Attachment, ToolCall, Turn, read_arguments
from streamstack.runtime.providers.provider import AnswerReader, Chat, Provider, made_id, part, string, usage_of

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
#: Deltas that say themselves what kind of block they belong to.
_BEGUN: Final = {"text_delta": "text", "thinking_delta": "thinking"}


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
        content = [_part(each) for each in turn.parts] if turn.attachments else turn.text
        result = {"type": "tool_result", "tool_use_id": turn.answers, "content": content}
        return [{**result, "is_error": True} if turn.failed else result]
    state = [dict(block) for block in turn.state("anthropic") if isinstance(block, Mapping)]
    said = "".join(string(block, "text") for block in state if block.get("type") == "text")
    called = [block.get("id") for block in state if block.get("type") == "tool_use"]
    if state and said == turn.text and called == [call.id for call in turn.calls]:
        return state  # signatures hold for this order only
    blocks = [block for block in state if block.get("type") in _REASONING]
    blocks += [_part(each) for each in turn.parts if each]
    blocks += [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.object} for call in turn.calls]
    return blocks


def _part(raw: str | Attachment) -> dict[str, Any]:
    if isinstance(raw, str):
        return {"type": "text", "text": raw}
    source = {"type": "base64", "media_type": raw.media, "data": raw.data}
    if raw.url is not None:
        source = {"type": "url", "url": raw.url}
    title = {"title": raw.name} if raw.is_document and raw.name else {}
    return {"type": "document" if raw.is_document else "image", "source": source, **title}


class _Block:
    """A block of the answer that is open: what began it, and the pieces of what it holds."""

    __slots__ = ("about", "pieces")

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        self.pieces: list[str] = []


class AnthropicReader(AnswerReader):
    """Reads `message_start` to `message_stop`.

    Gateways leave blocks open, interleave them, omit their start or put all of one into it.
    """

    provider = "anthropic"
    has_heartbeats = True

    def __init__(self, host: str, largest: int) -> None:
        super().__init__(host, largest)
        self._open: dict[Any, _Block] = {}
        self._last: Any = None  # the index of the block that was opened last
        self._done: list[tuple[Any, dict[str, Any]]] = []
        self._input = {"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}

    def is_heartbeat(self, data: Mapping[str, Any]) -> bool:
        return data.get("type") == "ping"

    def take(self, data: Mapping[str, Any], items: list[Item]) -> None:
        what = data.get("type")
        if what == "content_block_delta":
            self._take_delta(data, part(data, "delta"), items)
        elif what == "content_block_start":
            self._start_block(data, part(data, "content_block"), items)
        elif what == "content_block_stop":
            self._end_block(self._index_of(data), part(data, "content_block"), items)
        elif what == "message_start":
            self._note(part(part(data, "message"), "usage"))
        elif what == "message_delta":
            self.said = string(part(data, "delta"), "stop_reason") or self.said
            self._note(part(data, "usage"))
        elif what == "message_stop":
            metrics = part(data, "amazon-bedrock-invocationMetrics")
            if metrics and not any(self._input.values()):
                self.reply.note_usage(**usage_of(metrics))
            self.finish(items)
        elif what == "error" or (what is None and data.get("error")):
            raise self.fail(data, data.get("error"))

    def _index_of(self, data: Mapping[str, Any]) -> Any:
        index = data.get("index")
        return index if isinstance(index, int) else self._last

    def _start_block(self, data: Mapping[str, Any], about: Mapping[str, Any], items: list[Item]) -> None:
        index = data.get("index")
        self._last = index if isinstance(index, int) else len(self._done) + len(self._open)
        if self._last in self._open:
            self._end_block(self._last, {}, items)
        self._open[self._last] = block = _Block(about)
        if about.get("type") not in ("text", "thinking"):
            self.reply.count(to_json(about).decode())
        self._add(block, "text", items)
        self._add(block, "thinking", items)

    def _add(self, block: _Block, field: str, items: list[Item], source: Mapping[str, Any] | None = None) -> None:
        """Add a piece of a text or of reasoning."""
        text = string(block.about if source is None else source, field)
        if field == "text" and (source is not None or block.about.get("type") == "text"):
            self.reply.add_text(text, items)
        elif field == "thinking":
            self.reply.add_reasoning(text, items)
        if source is not None and block.about.get("type") == field:
            block.pieces.append(text)

    def _take_delta(self, data: Mapping[str, Any], delta: Mapping[str, Any], items: list[Item]) -> None:
        what = string(delta, "type")
        index = self._index_of(data)
        block = self._open.get(index)
        if block is None and what in _BEGUN:
            self._start_block({"index": index}, {"type": _BEGUN[what]}, items)
            block = self._open[self._last]
        if block is None:
            return
        if what in _BEGUN:
            self._add(block, _BEGUN[what], items, delta)
        elif what == "input_json_delta":
            self.reply.count(string(delta, "partial_json"))
            block.pieces.append(string(delta, "partial_json"))
        elif what == "signature_delta":
            self.reply.count(string(delta, "signature"))
            block.about["signature"] = string(block.about, "signature") + string(delta, "signature")

    def _end_block(self, index: Any, closing: Mapping[str, Any], items: list[Item]) -> None:
        """Close a block; some gateways put the arguments of a call into the event that closes it."""
        block = self._open.pop(index, None)
        if block is None:
            return
        about, text = block.about, "".join(block.pieces)
        what = string(about, "type")
        if what in ("text", "thinking"):
            about[what] = string(about, what) + text
            self.reply.sign_reasoning(items, signature=string(about, "signature"))
        elif what == "redacted_thinking":
            self.reply.sign_reasoning(items, redacted=string(about, "data"))
        elif what == "tool_use":
            # Some servers send the arguments at once, as an object or as its JSON.
            raw = about.get("input") or closing.get("input")
            arguments = text or (raw if isinstance(raw, (str, dict)) else "")
            id_ = string(about, "id") or made_id()
            self.reply.add_call(id_, string(about, "name"), arguments, items)
            about |= {"id": id_, "input": ToolCall("", "", self.reply.calls[-1]["arguments"]).object}
        elif text:
            about["input"] = read_arguments(text)  # of a tool that the provider runs itself
        self._done.append((index, about))

    def _note(self, usage: Mapping[str, Any]) -> None:
        """Note token counts: those of the input exclude what was read from the cache or written to it."""
        for name in self._input:
            if type(usage.get(name)) is int and usage[name] > 0:
                self._input[name] = usage[name]
        if usage:
            self.reply.note_usage(
                inputTokens=sum(self._input.values()),
                outputTokens=usage.get("output_tokens"),
                cachedTokens=self._input["cache_read_input_tokens"] or None,
            )

    def finish(self, items: list[Item]) -> None:
        self.ended = True
        for index in sorted(self._open, key=str):
            self._end_block(index, {}, items)
        blocks = [about for _, about in sorted(self._done, key=lambda each: each[0])]
        if any(about.get("type") not in ("text", "tool_use") for about in blocks):
            self.reply.blocks += [about for about in blocks if about.get("type") != "text" or about.get("text")]
        self.reply.finish(_REASONS.get(self.said or "", OTHER), self.said, items)


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
