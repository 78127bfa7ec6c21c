"""JSON Schemas of what the dialects send and read beside the inputs that an endpoint declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}


@dataclass(frozen=True, slots=True)
class FormatSchemas:
    """What is sent in a dialect. ``reads`` are properties of the request's body that it reads itself.

    ``event`` is an event as a client receives it, with its data as text. ``document`` answers a request that does not
    ask for a stream.
    """

    event: Mapping[str, Any]
    document: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, Any] = field(default_factory=dict)


def record(**properties: Schema) -> Schema:
    """Return the schema of an object that has these properties, and perhaps others."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def json_text(schema: Mapping[str, Any]) -> Schema:
    """Return the schema of a text that is the JSON of a value."""
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": dict(schema)}


def _named(kind: str, **properties: Schema) -> Schema:
    return record(type={"const": kind}, **properties)


def _unnamed(*data: Schema) -> Schema:
    """Return the schema of events without a name, whose data is one of these."""
    return {
        "type": "object",
        "properties": {"data": data[0] if len(data) == 1 else {"oneOf": list(data)}},
        "required": ["data"],
    }


_STREAM: Final[Schema] = {
    "type": ["boolean", "null"],
    "default": False,
    "description": "Whether the response is a stream of events; otherwise it is one object.",
}
_MODEL: Final[Schema] = {"type": ["string", "null"], "description": "Name of the model, which the response repeats."}
_MARKER: Final[Schema] = {"const": "[DONE]"}

# -- OpenAI: https://platform.openai.com/docs/api-reference/chat-streaming

_OPENAI_ERROR: Final = record(error=record(message=_TEXT, type=_TEXT, code=_TEXT_OR_NULL, param=_TEXT_OR_NULL))
_OPENAI_USAGE: Final = record(prompt_tokens=_COUNT, completion_tokens=_COUNT, total_tokens=_COUNT)
_OPENAI_CALLS: Final[Schema] = {"type": "array", "items": {"type": "object"}}


def _openai(kind: str, part: str, message: Schema) -> Schema:
    choice = record(index=_COUNT, finish_reason=_TEXT_OR_NULL) | {}
    choice["properties"] = {**choice["properties"], part: message, "logprobs": {"type": "null"}}
    choice["required"] = [*choice["required"], part]
    found = record(
        id=_TEXT, object={"const": kind}, created=_COUNT, model=_TEXT, choices={"type": "array", "items": choice}
    )
    found["properties"]["usage"] = {"oneOf": [_OPENAI_USAGE, {"type": "null"}]}
    return found


def _openai_message(*required: str) -> Schema:
    names = {"role": {"const": "assistant"}, "content": _TEXT_OR_NULL, "refusal": _TEXT_OR_NULL}
    properties = {**names, "reasoning_content": _TEXT, "tool_calls": _OPENAI_CALLS}
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


OPENAI: Final = FormatSchemas(
    event=_unnamed(
        json_text(_openai("chat.completion.chunk", "delta", _openai_message())), json_text(_OPENAI_ERROR), _MARKER
    ),
    document=_openai("chat.completion", "message", _openai_message("role", "content")),
    error=_OPENAI_ERROR,
    reads={
        "model": _MODEL,
        "stream": _STREAM,
        "stream_options": {"type": ["object", "null"], "properties": {"include_usage": {"type": ["boolean", "null"]}}},
    },
)

# -- Anthropic: https://docs.claude.com/en/api/messages-streaming

_ANTHROPIC_ERROR: Final = _named("error", error=record(type=_TEXT, message=_TEXT), request_id=_TEXT)
_ANTHROPIC_USAGE: Final[Schema] = {
    "type": "object",
    "properties": {"input_tokens": _COUNT, "output_tokens": _COUNT, "cache_read_input_tokens": _COUNT},
    "required": ["output_tokens"],
}
_ANTHROPIC_MESSAGE: Final = _named(
    "message",
    id=_TEXT,
    role={"const": "assistant"},
    model=_TEXT,
    content={"type": "array", "items": record(type=_TEXT)},
    stop_reason=_TEXT_OR_NULL,
    stop_sequence={"type": "null"},
    usage=_ANTHROPIC_USAGE,
)
_ANTHROPIC_DATA: Final[Mapping[str, Schema]] = {
    "message_start": _named("message_start", message=_ANTHROPIC_MESSAGE),
    "content_block_start": _named("content_block_start", index=_COUNT, content_block=record(type=_TEXT)),
    "content_block_delta": _named("content_block_delta", index=_COUNT, delta=record(type=_TEXT)),
    "content_block_stop": _named("content_block_stop", index=_COUNT),
    "message_delta": _named("message_delta", delta=record(stop_reason=_TEXT_OR_NULL), usage=_ANTHROPIC_USAGE),
    "message_stop": _named("message_stop"),
    "ping": _named("ping"),
    "error": _ANTHROPIC_ERROR,
}

ANTHROPIC: Final = FormatSchemas(
    event={
        "type": "object",
        "oneOf": [record(event={"const": name}, data=json_text(data)) for name, data in _ANTHROPIC_DATA.items()],
    },
    document=_ANTHROPIC_MESSAGE,
    error=_ANTHROPIC_ERROR,
    reads={"model": _MODEL, "stream": _STREAM},
)

# -- AI SDK: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol

_ID: Final[Mapping[str, Schema]] = {"id": _TEXT}
_TOOL: Final[Mapping[str, Schema]] = {"toolCallId": _TEXT, "toolName": _TEXT}
_PARTS: Final[tuple[Schema, ...]] = (
    _named("start", messageId=_TEXT),
    *(_named(f"{kind}-{end}", **_ID) for kind in ("text", "reasoning") for end in ("start", "end")),
    *(_named(f"{kind}-delta", **_ID, delta=_TEXT) for kind in ("text", "reasoning")),
    _named("tool-input-start", **_TOOL),
    _named("tool-input-delta", toolCallId=_TEXT, inputTextDelta=_TEXT),
    _named("tool-input-available", **_TOOL, input={}),
    _named("tool-input-error", **_TOOL, input={}, errorText=_TEXT),
    _named("finish", finishReason=_TEXT),
    _named("error", errorText=_TEXT),
)
AI_SDK: Final = FormatSchemas(event=_unnamed(json_text({"oneOf": list(_PARTS)}), _MARKER))
