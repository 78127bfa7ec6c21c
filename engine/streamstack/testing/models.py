"""Answers of models, encoded in the protocol of the provider that is asked.

The protocols of `formats` are written by their encoders; those that no endpoint speaks are written here.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from yarl import URL

from streamstack.formats.anthropic import AnthropicEncoder
from streamstack.formats.dialect import DialectEncoder
from streamstack.formats.items import (
    CONTENT_FILTER,
    LENGTH,
    REFUSAL,
    STOP,
    TOOL_CALLS,
    Item,
    finish_item,
    reasoning_item,
    text_item,
    usage_item,
)
from streamstack.formats.openai import OpenaiEncoder
from streamstack.formats.spec import EncoderOptions, ResponseContext
from streamstack.language.cases import ModelAnswer, Piece
from streamstack.language.values import to_json

EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
JSON: Final = "application/json; charset=utf-8"
#: A word with the space before it, as models write them; what follows the last one belongs to it.
_WORD: Final = re.compile(r"\s*\S+(?:\s+\Z)?|\s+")


@dataclass(frozen=True, slots=True)
class Encoded:
    """The body of an answer. It is ``whole`` where nothing is sent before all of it is known."""

    content_type: str
    pieces: tuple[Piece, ...]
    whole: bool = False


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A request to a provider: its URL, its body, and the number of the call, which makes the ids of the answer."""

    url: URL
    body: bytes
    number: int = 1

    @property
    def document(self) -> Mapping[str, Any]:
        """The body as an object; an empty one where it is none."""
        try:
            document = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return document if isinstance(document, dict) else {}

    @property
    def run(self) -> str:
        """What stands in the ids of the answer."""
        return f"test{self.number}"


class _Protocol(ABC):
    """Encodes one answer, item by item."""

    def __init__(self, request: ModelRequest) -> None:
        self.request = request

    @abstractmethod
    def encode(self, items: list[list[Item]]) -> Encoded:
        """Encode the items, of which each list is a piece; the last has what ends the answer."""


class _OfFormat(_Protocol):
    """A protocol that endpoints speak as well."""

    encoder: type[DialectEncoder]

    def encode(self, items: list[list[Item]]) -> Encoded:
        encoder = self.encoder(EncoderOptions(), ResponseContext(run=self.request.run, body=self.request.body))
        pieces = [b"".join(encoder.chunk(each, None, None, None, 0) for each in piece) for piece in items]
        pieces[-1] += encoder.end({}, 0, marked=False)
        return _encoded(pieces, whole=encoder.whole)


class _OpenAI(_OfFormat):
    encoder = OpenaiEncoder


class _Anthropic(_OfFormat):
    encoder = AnthropicEncoder


class _Gemini(_Protocol):
    """Google's `generateContent` and `streamGenerateContent`, as events or as a JSON array."""

    def encode(self, items: list[list[Item]]) -> Encoded:
        model = self.request.url.path.rpartition("/")[2].partition(":")[0]
        if not self.request.url.path.endswith(":streamGenerateContent"):
            every = [each for piece in items for each in piece]
            return _encoded([to_json(self._response(model, _joined(every)))], whole=True)
        responses = [to_json(self._response(model, piece)) for piece in items]
        if self.request.url.query.get("alt") == "sse":
            return _encoded([b"data: %b\r\n\r\n" % each for each in responses])
        leads = [b"[", *[b",\r\n"] * (len(responses) - 1)]
        pieces = [lead + each for lead, each in zip(leads, responses, strict=True)]
        pieces[-1] += b"]"
        return Encoded(JSON, tuple(map(Piece, pieces)))

    def _response(self, model: str, items: list[Item]) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": [*filter(None, map(_gemini_part, items))], "role": "model"}}
        response: dict[str, Any] = {"candidates": [candidate]}
        for item in items:
            if item["type"] == "finish":
                candidate["finishReason"] = _GEMINI_REASONS.get(item["reason"], "OTHER")
            elif item["type"] == "usage":
                response["usageMetadata"] = _gemini_usage(item)
        candidate["index"] = 0
        return {**response, "modelVersion": model, "responseId": self.request.run}


#: Gemini stops for tool calls as for any other end.
_GEMINI_REASONS: Final = {
    STOP: "STOP",
    TOOL_CALLS: "STOP",
    LENGTH: "MAX_TOKENS",
    CONTENT_FILTER: "SAFETY",
    REFUSAL: "SAFETY",
}


def _gemini_part(item: Item) -> dict[str, Any] | None:
    if item["type"] == "text":
        return {"text": item["text"]}
    if item["type"] == "reasoning":
        return {"text": item["text"], "thought": True}
    if item["type"] == "toolCall":
        return {"functionCall": {"id": item["id"], "name": item["name"], "args": item["arguments"]}}
    return None


def _gemini_usage(item: Item) -> dict[str, int]:
    thought = item.get("reasoningTokens")
    put, got = item.get("inputTokens") or 0, item.get("outputTokens") or 0
    usage = {"promptTokenCount": put, "candidatesTokenCount": got - (thought or 0)}
    if thought is not None:
        usage["thoughtsTokenCount"] = thought
    if (cached := item.get("cachedTokens")) is not None:
        usage["cachedContentTokenCount"] = cached
    return {**usage, "totalTokenCount": item.get("totalTokens") or put + got}


class _Responses(_Protocol):
    """OpenAI's Responses: events of output items, or one response."""

    def __init__(self, request: ModelRequest) -> None:
        super().__init__(request)
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open: tuple[str, dict[str, Any], list[str]] | None = None

    def encode(self, items: list[list[Item]]) -> Encoded:
        named = {
            "id": f"resp_{self.request.run}",
            "object": "response",
            "created_at": 0,
            "model": self.request.document.get("model") or "streamstack",
        }
        begun: dict[str, Any] = {
            **named,
            "status": "in_progress",
            "output": [],
            "usage": None,
            "incomplete_details": None,
        }
        opening = self._event("response.created", response=begun)
        opening += self._event("response.in_progress", response=begun)
        pieces = [b"".join(map(self._item, piece)) for piece in items]
        pieces[0] = opening + pieces[0]
        closing = self._close()
        last = {each["type"]: each for each in items[-1]}
        reason = last["finish"]["reason"]
        cut = {LENGTH: "max_output_tokens", CONTENT_FILTER: "content_filter"}.get(reason)
        response = {
            **named,
            "status": "completed" if cut is None else "incomplete",
            "incomplete_details": None if cut is None else {"reason": cut},
            "output": self._output,
            "usage": _responses_usage(last["usage"]) if "usage" in last else None,
        }
        if self.request.document.get("stream") is not True:
            return _encoded([to_json(response)], whole=True)
        pieces[-1] += closing + self._event(f"response.{response['status']}", response=response)
        return _encoded(pieces)

    def _event(self, name: str, **data: Any) -> bytes:
        event = {"type": name, "sequence_number": self._sequence, **data}
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), to_json(event))

    def _item(self, item: Item) -> bytes:
        if item["type"] == "toolCall":
            return self._call(item)
        if item["type"] not in ("text", "reasoning"):
            return b""
        kind = item["type"]
        data = b""
        if self._open is None or self._open[0] != kind:
            data = self._close() + self._begin(kind)
        assert self._open is not None
        _, about, texts = self._open
        texts.append(item["text"])
        place = {"item_id": about["id"], "output_index": len(self._output), "delta": item["text"]}
        if kind == "text":
            return data + self._event("response.output_text.delta", content_index=0, logprobs=[], **place)
        return data + self._event("response.reasoning_summary_text.delta", summary_index=0, **place)

    def _begin(self, kind: str) -> bytes:
        index = len(self._output)
        place = {"output_index": index, "item_id": f"{'msg' if kind == 'text' else 'rs'}_{self.request.run}_{index}"}
        about: dict[str, Any] = {"id": place["item_id"], "type": "reasoning", "summary": []}
        if kind == "text":
            about = {**about, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
            del about["summary"]
        self._open = (kind, about, [])
        data = self._event("response.output_item.added", output_index=index, item=about)
        if kind == "text":
            part = {"type": "output_text", "text": "", "annotations": []}
            return data + self._event("response.content_part.added", content_index=0, part=part, **place)
        part = {"type": "summary_text", "text": ""}
        return data + self._event("response.reasoning_summary_part.added", summary_index=0, part=part, **place)

    def _close(self) -> bytes:
        """Return the end of the item that is open."""
        if self._open is None:
            return b""
        kind, about, texts = self._open
        self._open = None
        text = "".join(texts)
        place = {"item_id": about["id"], "output_index": len(self._output)}
        if kind == "text":
            part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
            done = {**about, "status": "completed", "content": [part]}
            data = self._event("response.output_text.done", content_index=0, text=text, logprobs=[], **place)
            data += self._event("response.content_part.done", content_index=0, part=part, **place)
        else:
            part = {"type": "summary_text", "text": text}
            done = {**about, "summary": [part]}
            data = self._event("response.reasoning_summary_text.done", summary_index=0, text=text, **place)
            data += self._event("response.reasoning_summary_part.done", summary_index=0, part=part, **place)
        data += self._event("response.output_item.done", output_index=len(self._output), item=done)
        self._output.append(done)
        return data

    def _call(self, item: Item) -> bytes:
        data = self._close()
        index = len(self._output)
        arguments = to_json(item["arguments"]).decode()
        about = {
            "id": f"fc_{self.request.run}_{index}",
            "type": "function_call",
            "status": "in_progress",
            "call_id": item["id"],
            "name": item["name"],
            "arguments": "",
        }
        place = {"item_id": about["id"], "output_index": index}
        done = {**about, "status": "completed", "arguments": arguments}
        self._output.append(done)
        return (
            data
            + self._event("response.output_item.added", output_index=index, item=about)
            + self._event("response.function_call_arguments.delta", delta=arguments, **place)
            + self._event("response.function_call_arguments.done", arguments=arguments, **place)
            + self._event("response.output_item.done", output_index=index, item=done)
        )


def _responses_usage(item: Item) -> dict[str, Any]:
    put, got = item.get("inputTokens") or 0, item.get("outputTokens") or 0
    usage: dict[str, Any] = {
        "input_tokens": put,
        "output_tokens": got,
        "total_tokens": item.get("totalTokens") or put + got,
    }
    if (cached := item.get("cachedTokens")) is not None:
        usage["input_tokens_details"] = {"cached_tokens": cached}
    if (thought := item.get("reasoningTokens")) is not None:
        usage["output_tokens_details"] = {"reasoning_tokens": thought}
    return usage


def _joined(items: list[Item]) -> list[Item]:
    """Return items where neighbours of text are one, and of reasoning."""
    joined: list[Item] = []
    for item in items:
        last = joined[-1]["type"] if joined else None
        if item["type"] == last and last in ("text", "reasoning"):
            joined[-1] = {**item, "text": joined[-1]["text"] + item["text"]}
        else:
            joined.append(item)
    return joined


def _encoded(pieces: list[bytes], *, whole: bool = False) -> Encoded:
    if whole:
        return Encoded(JSON, (Piece(b"".join(pieces)),), whole=True)
    return Encoded(EVENT_STREAM, tuple(map(Piece, pieces)))


#: The protocols, and how a request is recognised: by its path, or by what its body holds beside the model.
_PROTOCOLS: Final[tuple[tuple[type[_Protocol], str, Callable[[Mapping[str, Any]], bool]], ...]] = (
    (_OpenAI, r"/chat/completions$", lambda _: False),
    (_Responses, r"/responses$", lambda body: "input" in body),
    (_Anthropic, r"/messages$", lambda body: "max_tokens" in body and "messages" in body and "system" in body),
    (_Gemini, r":(?:streamG|g)enerateContent$", lambda body: "contents" in body),
    (_OpenAI, r"(?!)", lambda body: "messages" in body),
)


def protocol_of(request: ModelRequest) -> type[_Protocol] | None:
    """Return the protocol that a request is in, None where it is none of them."""
    path, body = request.url.path.rstrip("/"), request.document
    by_path = (protocol for protocol, pattern, _ in _PROTOCOLS if re.search(pattern, path))
    by_body = (protocol for protocol, _, speaks in _PROTOCOLS if speaks(body))
    return next(by_path, None) or next(by_body, None)


def encode(answer: ModelAnswer, request: ModelRequest) -> Encoded | None:
    """Encode an answer in the protocol of the request, None where it is in none."""
    protocol = protocol_of(request)
    if protocol is None:
        return None
    items = list(_items(answer, request.number))
    encoded = protocol(request).encode(items)
    if encoded.whole:
        after = answer.first_after + answer.every * (len(items) - 1)
        return Encoded(encoded.content_type, (Piece(encoded.pieces[0].data, after),), whole=True)
    times = [answer.first_after, *[answer.every] * (len(items) - 1)]
    pieces = [Piece(each.data, after) for each, after in zip(encoded.pieces, times, strict=True)]
    return Encoded(encoded.content_type, tuple(pieces))


def _items(answer: ModelAnswer, number: int) -> Iterator[list[Item]]:
    """Yield the items of each piece; what ends the answer belongs to the last."""
    pieces: list[list[Item]] = [[reasoning_item(each)] for each in _split(answer, answer.reasoning)]
    pieces += ([text_item(each)] for each in _split(answer, answer.text))
    pieces += ([_call_item(call, index, number)] for index, call in enumerate(answer.tool_calls))
    ending: list[Item] = []
    if answer.usage:
        ending.append(usage_item(**answer.usage))
    reason = answer.finish_reason or (TOOL_CALLS if answer.tool_calls else STOP)
    ending.append(finish_item(reason))
    yield from pieces[:-1]
    yield [*(pieces[-1] if pieces else ()), *ending]


def _call_item(call: Mapping[str, Any], index: int, number: int) -> Item:
    arguments = call.get("arguments")
    return {
        "type": "toolCall",
        "text": "",
        "index": index,
        "id": call.get("id") or f"call_{number}_{index + 1}",
        "name": call["name"],
        "arguments": {} if arguments is None else arguments,
    }


def _split(answer: ModelAnswer, text: str) -> list[str]:
    parts = list(text) if answer.by == "characters" else _WORD.findall(text)
    size = max(answer.size, 1)
    return ["".join(parts[at : at + size]) for at in range(0, len(parts), size)]
