"""OpenAI's chat completions, and all servers that are compatible with them.

Source: https://platform.openai.com/docs/api-reference/chat-streaming

Compatible servers differ: tool calls without index or id, usage in other places, reasoning under several names, a whole
message in place of pieces. Each difference that is read here has a case in tests/runtime/providers/shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from streamstack.formats.items import CONTENT_FILTER, LENGTH, OTHER, REFUSAL, STOP, TOOL_CALLS, Item
from streamstack.language.values import to_json
from streamstack.runtime.providers.conversation import Attachment, Turn, attachments_apart
from streamstack.runtime.providers.provider import (
    AnswerReader,
    Chat,
    Provider,
    lost,
    made_id,
    part,
    parts,
    string,
    usage_of,
)

#: Reasons in small letters: OpenAI's first, then those of compatible servers.
_REASONS: Final = {
    "stop": STOP,
    "length": LENGTH,
    "tool_calls": TOOL_CALLS,
    "function_call": TOOL_CALLS,
    "content_filter": CONTENT_FILTER,
    "end_turn": STOP,
    "eos": STOP,
    "eos_token": STOP,
    "stop_sequence": STOP,
    "max_tokens": LENGTH,
    "model_length": LENGTH,
    "tool_use": TOOL_CALLS,
    "safety": CONTENT_FILTER,
    "sensitive": CONTENT_FILTER,
    "refusal": REFUSAL,
}
#: Where servers put the reasoning as text. It goes back under the same name.
_THOUGHTS: Final = ("reasoning_content", "reasoning")
#: Where gateways put reasoning in blocks, some of them signed or encrypted. They go back as they are.
_BLOCKS: Final = ("reasoning_details", "thinking_blocks")
#: Fields of such a block that come in pieces.
_GROWING: Final = frozenset({"text", "summary", "thinking", "data", "signature"})


def bearer(key: str | None) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def _body(chat: Chat) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    if chat.system:
        messages.append({"role": "system", "content": chat.system})
    messages += (_message(turn, own=chat.own) for turn in attachments_apart(chat.turns))
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


def _message(turn: Turn, *, own: bool) -> dict[str, Any]:
    if turn.role == "tool":
        return {"role": "tool", "tool_call_id": turn.answers, "content": turn.text}
    message: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.attachments:
        message["content"] = [_content_part(each) for each in turn.parts]
    if turn.calls:
        message["content"] = message["content"] or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.json}}
            for call in turn.calls
        ]
    if not own:  # OpenAI sends none of it, and refuses fields that it does not know
        _restore(message, next(iter(turn.state("openai")), None), turn.thoughts)
    return message


def _content_part(part: str | Attachment) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if part.is_document:
        return {"type": "file", "file": {"filename": part.name or "document.pdf", "file_data": part.address}}
    return {"type": "image_url", "image_url": {"url": part.address}}


def _restore(message: dict[str, Any], state: Any, thoughts: str) -> None:
    """Put what a server sent beside its answer back into the message."""
    calls = message.get("tool_calls", [])
    state = state if isinstance(state, Mapping) else {}
    if thoughts and not any(name in state for name in _BLOCKS):
        state = {"reasoning_content": thoughts, **state}
    for name in ("extra_content", *_BLOCKS, *_THOUGHTS):
        # Reasoning as text is required beside tool calls (DeepSeek, Moonshot), and refused elsewhere by some.
        if name in state and (calls or name not in _THOUGHTS):
            message[name] = state[name]
    extras = part(state, "calls")
    for call in calls:
        if call["id"] in extras:
            call["extra_content"] = extras[call["id"]]


class _Call:
    """A tool call that is on its way."""

    __slots__ = ("extra", "id", "index", "name", "pieces")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = self.name = ""
        self.pieces: list[str] = []
        self.extra: Any = None

    @property
    def arguments(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are a whole JSON object by now."""
        text = self.arguments.rstrip()
        if not text.endswith("}"):
            return False
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            return False
        return True

    def add(self, arguments: Any, *, whole: bool) -> str:
        """Add arguments: a piece of their JSON, all of it, or the object. Return what was added."""
        if isinstance(arguments, (dict, list)):
            text, whole = to_json(arguments).decode() if arguments else "", True
        else:
            text = arguments if isinstance(arguments, str) else ""
        # No JSON goes on with `{` after `}`: the event that closes a call repeats them.
        repeated = text.lstrip()[:1] == "{" and self.is_complete
        if text and (whole or repeated):
            self.pieces = [text]
        elif text:
            self.pieces.append(text)
        return text


class OpenAIReader(AnswerReader):
    """Reads `chat.completion.chunk` up to `[DONE]`, or to the end of the body after a finish reason."""

    provider = "openai"

    def __init__(self, host: str, largest: int) -> None:
        super().__init__(host, largest)
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._refused = False
        self._thoughts = ""  # the field that the reasoning comes in
        self._blocks: dict[str, list[dict[str, Any]]] = {}
        self._extra: Any = None
        self._cumulative = False  # messages, and deltas as well if it was asked for, hold all that has come so far
        self._whole_deltas = False

    def begin(self, body: Mapping[str, Any]) -> None:
        # Alibaba Cloud's Model Studio (DashScope); false is the default of some of its models' own API.
        self._whole_deltas = self._cumulative = body.get("incremental_output") is False

    def take(self, data: Mapping[str, Any], items: list[Item]) -> None:
        if data.get("error"):
            raise self.fail(data, data["error"])
        choices = data.get("choices")
        if choices is None and (data.get("object") == "error" or (string(data, "message") and "code" in data)):
            raise self.fail(data, {**data, "type": data.get("type") or "error"})
        for choice in choices if type(choices) is list else ():
            if type(choice) is dict and choice.get("index") in (0, None):
                self._take_choice(choice, items)
        for usage in _usages(data):
            self.reply.note_usage(**usage_of(usage))

    def _take_choice(self, choice: Mapping[str, Any], items: list[Item]) -> None:
        said = string(choice, "finish_reason").removeprefix("null")  # as DashScope writes it
        if choice.get("error") or said == "error":
            raise self.fail(choice, choice.get("error") or {"type": "error"})
        delta = choice.get("delta")
        if type(delta) is dict and delta and self._whole_deltas:
            self._take_message(delta, items, final=bool(said), whole=True)
        elif type(delta) is dict and delta:
            text = delta.get("content")
            # Most hold a piece of the text and nothing else.
            if len(delta) > 1 or type(text) is not str:
                self._take_more(delta, items)
            if type(text) is str:
                self.reply.add_text(text, items)
        else:
            self._take_message(part(choice, "message"), items, final=bool(said))
        if said:
            self.said = said

    def _take_message(self, message: Mapping[str, Any], items: list[Item], *, final: bool, whole: bool = False) -> None:
        """Read a message in place of a delta: a piece like any other, or all that has come so far."""
        for field, now in (("content", self.reply.text), *((name, self.reply.reasoning) for name in _THOUGHTS)):
            text = string(message, field)
            if now and text.startswith(now) and (final or self._cumulative or len(text) > len(now)):
                self._cumulative = True
                message = {**message, field: text[len(now) :]}
        if message:
            self._take_more(message, items, whole=final or whole)
            self.reply.add_text(string(message, "content"), items)

    def piece(self, data: Mapping[str, Any]) -> str | None:
        if self.said is not None or self._whole_deltas or data.get("error") or data.get("usage"):
            return None
        choices = data.get("choices")
        if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
            return None
        choice = choices[0]
        delta = choice.get("delta")
        if choice.get("index") not in (0, None) or not isinstance(delta, dict) or len(delta) != 1:
            return None
        if any(choice.get(name) for name in ("finish_reason", "error", "usage")):
            return None
        text = delta.get("content")
        return text if type(text) is str else None

    def _take_more(self, delta: Mapping[str, Any], items: list[Item], *, whole: bool = False) -> None:
        """Read what a delta holds beside a text."""
        self._take_reasoning(delta, items)
        content = delta.get("content")
        if isinstance(content, (list, dict)):
            self._take_parts(parts({"parts": content if isinstance(content, list) else [content]}, "parts"), items)
        refusal = string(delta, "refusal")
        if refusal:
            self._refused = True
            self.reply.add_text(refusal, items)
        self._extra = delta.get("extra_content") or self._extra
        for each in parts(delta, "tool_calls"):
            self._take_call(each, whole=whole)
        call = part(delta, "function_call")
        if call:
            self._take_call({"function": call, "index": 0}, whole=whole)

    def _take_parts(self, content: list[Mapping[str, Any]], items: list[Item]) -> None:
        for each in content:
            what = each.get("type", "text")
            if what in ("thinking", "reasoning"):
                self.reply.add_reasoning(_text_of(each), items)
            elif what in ("text", "output_text", "refusal"):
                self._refused = self._refused or what == "refusal"
                self.reply.add_text(string(each, "text") or string(each, "refusal"), items)

    def _take_reasoning(self, delta: Mapping[str, Any], items: list[Item]) -> None:
        """Read the reasoning, which may stand in several fields at once."""
        for name in (*_THOUGHTS, *_BLOCKS):
            text = _text_of(delta[name]) if delta.get(name) else ""
            if not text:
                continue
            if name in _THOUGHTS:
                self._thoughts = self._thoughts or name
            if name in _THOUGHTS or not self._thoughts:
                self.reply.add_reasoning(text, items)
            break
        for name in _BLOCKS:
            for piece in parts(delta, name):
                self.reply.count("".join(value for value in piece.values() if isinstance(value, str)))
                _grow(self._blocks.setdefault(name, []), piece)

    def _take_call(self, raw: Mapping[str, Any], *, whole: bool) -> None:
        id_ = string(raw, "id")
        function = part(raw, "function") or raw
        name, arguments = string(function, "name"), function.get("arguments")
        index = raw.get("index")
        index = index if isinstance(index, int) else None
        call = self._find(id_, index, name, arguments)
        if call is None:
            call = _Call(index)
            self._calls.append(call)
            if index is not None:
                self._by_index[index] = call
        call.id, call.name = call.id or id_, call.name or name
        if id_:
            self._by_id.setdefault(id_, call)
        call.extra = raw.get("extra_content") or call.extra
        self.reply.count(call.add(arguments, whole=whole))

    def _find(self, id_: str, index: int | None, name: str, arguments: Any) -> _Call | None:
        """Return the call that a piece belongs to, None for a new one.

        Servers number each call 0, omit the index, the id or both, repeat the name with each piece, or give each piece
        another id.
        """
        known = self._by_id.get(id_)
        call = self._by_index.get(index) if index is not None else known or next(reversed(self._calls), None)
        if call is None or not name:
            return call
        if id_ and call.id:
            return known if known is not None and known.index == index else None
        if not call.name:
            return call
        return None if call.name != name or (arguments and call.is_complete) else call

    def finish(self, items: list[Item]) -> None:
        self.ended = True
        extras = {}
        for call in self._calls:
            call.id = call.id or made_id()
            self.reply.add_call(call.id, call.name, call.arguments, items)
            if call.extra:
                extras[call.id] = call.extra
        state: dict[str, Any] = {name: [_whole(block) for block in blocks] for name, blocks in self._blocks.items()}
        state |= {"calls": extras, "extra_content": self._extra}
        if self._thoughts and not self._blocks:
            state[self._thoughts] = self.reply.reasoning
        state = {name: value for name, value in state.items() if value}
        if state:
            self.reply.blocks.append(state)
        reason = _REASONS.get((self.said or "").lower(), OTHER)
        if self._refused and reason == STOP:
            reason = REFUSAL
        self.reply.finish(reason, self.said, items)

    def close(self, items: list[Item], *, marked: bool) -> None:
        if not marked and self.said is None:
            raise lost(self.host)
        self.finish(items)


def _usages(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the usage from where servers put it: beside the choices, in one, or in a field of their own."""
    if data.get("usage"):
        yield part(data, "usage")
    for choice in parts(data, "choices"):
        if "usage" in choice:  # Moonshot
            yield part(choice, "usage")
    for name in ("x_groq", "amazon-bedrock-invocationMetrics", "timings"):
        found = part(data, name)
        if name == "timings" and found:  # llama.cpp
            cached, read = found.get("cache_n"), found.get("prompt_n")
            counts = [count for count in (cached, read) if isinstance(count, int)]
            yield {"input_tokens": sum(counts), "output_tokens": found.get("predicted_n"), "cached_tokens": cached}
        elif found:
            yield part(found, "usage") or found


def _text_of(value: Any) -> str:
    """Return the text of reasoning: a text, or blocks with it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_text_of, value))
    if not isinstance(value, dict):
        return ""
    return next((text for name in ("text", "thinking", "summary") if (text := _text_of(value.get(name)))), "")


class _Pieces(list[str]):
    """A text of a block that comes in pieces."""


def _grow(blocks: list[dict[str, Any]], piece: Mapping[str, Any]) -> None:
    """Add a piece to the block that it continues, or as a block of its own."""
    last = blocks[-1] if blocks else {}
    continues = bool(blocks) and all(last.get(name) == piece.get(name) for name in ("type", "index"))
    named = not piece.get("id") or last.get("id") in (None, piece.get("id"))
    signature = last.get("signature")
    signed = isinstance(signature, _Pieces) and any(piece.get(name) for name in _GROWING - {"signature"})
    if not continues or not named or signed:
        last = {}
        blocks.append(last)
    for name, value in piece.items():
        if name in _GROWING and isinstance(value, str):
            if value or name != "signature":
                last.setdefault(name, _Pieces())
            if isinstance(last.get(name), _Pieces):
                last[name].append(value)
        elif value is not None:
            last[name] = value


def _whole(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block with the texts that its pieces make."""
    return {name: "".join(value) if isinstance(value, _Pieces) else value for name, value in block.items()}


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
