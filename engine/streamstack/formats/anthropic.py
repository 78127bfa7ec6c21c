"""Anthropic's messages: events of blocks that end with `message_stop`, or one message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from streamstack.errors import RunError
from streamstack.formats import schemas
from streamstack.formats.dialect import DialectBlock, DialectEncoder, fault_of
from streamstack.formats.spec import Format
from streamstack.language.values import to_json

_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "toolCalls": "tool_use",
    "contentFilter": "refusal",
    "refusal": "refusal",
    "other": "end_turn",
}

#: The types of errors by status; of others, the caller's are below 500.
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class AnthropicEncoder(DialectEncoder):
    """Writes named events: what has no name, its SDK passes over."""

    dialect = "anthropic"
    whole_by_default = True
    pulse = b'event: ping\ndata: {"type":"ping"}\n\n'

    __slots__ = ()

    def start(self) -> bytes:
        message = {**self._named(), "content": [], "stop_reason": None, "stop_sequence": None}
        usage = {**self._figures(), "output_tokens": 0}  # what it will be, the end tells
        return _event("message_start", {"message": {**message, "usage": usage}})

    def open_block(self, block: DialectBlock) -> bytes:
        kind = b"thinking" if block.reasoning else b"text"
        self._before = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b_delta","%b":' % (block.number, kind, kind)
        )
        self._after = b"}}\n\n"
        return _event("content_block_start", {"index": block.number, "content_block": _block(block)})

    def arguments(self, block: DialectBlock, text: str) -> bytes:
        delta = {"type": "input_json_delta", "partial_json": text}
        return _event("content_block_delta", {"index": block.number, "delta": delta})

    def close_block(self, block: DialectBlock) -> bytes:
        data = b""
        if block.reasoning and block.signature:
            delta = {"type": "signature_delta", "signature": block.signature}
            data = _event("content_block_delta", {"index": block.number, "delta": delta})
        return data + _event("content_block_stop", {"index": block.number})

    def finish(self) -> bytes:
        delta = {"stop_reason": _REASONS[self.reason], "stop_sequence": None}
        usage = self._figures()
        if self._usage is None:
            del usage["input_tokens"]  # not known: it stays what the start said
        ending = _event("message_delta", {"delta": delta, "usage": usage})
        return ending + _event("message_stop", {})

    def document(self) -> dict[str, Any]:
        return {
            **self._named(),
            "content": [_block(each.block, each.text, self.signature_of(each.block)) for each in self._blocks],
            "stop_reason": _REASONS[self.reason],
            "stop_sequence": None,
            "usage": self._figures(),
        }

    def _error(self, error: RunError, fields: Mapping[str, Any]) -> dict[str, Any]:
        usual = "invalid_request_error" if error.status < 500 else "api_error"
        body = {"type": _TYPES.get(error.status, usual), "message": fault_of(error, fields), "code": error.code}
        return {"type": "error", "error": body, "request_id": self.response.run}

    def problem(self, error: RunError, fields: Mapping[str, Any]) -> bytes:
        return to_json(self._error(error, fields))

    def error_end(self, error: RunError, fields: Mapping[str, Any], number: int) -> bytes:
        return b"event: error\ndata: %b\n\n" % to_json(self._error(error, fields))

    def _named(self) -> dict[str, Any]:
        return {"id": f"msg_{self.response.run}", "type": "message", "role": "assistant", "model": self.model}

    def _figures(self) -> dict[str, int]:
        """Return what was used in Anthropic's words, where what came from a cache is apart."""
        used = self._usage or {}
        cached = used.get("cachedTokens")
        figures = {
            "input_tokens": max((used.get("inputTokens") or 0) - (cached or 0), 0),
            "output_tokens": used.get("outputTokens") or 0,
        }
        return figures if cached is None else {**figures, "cache_read_input_tokens": cached}


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), to_json({"type": name, **data}))


def _block(block: DialectBlock, text: str = "", signature: str = "") -> dict[str, Any]:
    if block.redacted:
        return {"type": "redacted_thinking", "data": block.redacted}
    if block.reasoning:
        return {"type": "thinking", "thinking": text, "signature": signature}
    if not block.name:
        return {"type": "text", "text": text}
    try:
        arguments = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        raise RunError(
            "not-in-dialect",
            f"the arguments of the tool call {block.name} are not JSON: "
            "a message of `format: anthropic` has them as an object",
        ) from None
    return {"type": "tool_use", "id": block.id, "name": block.name, "input": arguments}


ANTHROPIC: Final = Format(
    name="anthropic",
    content_type="text/event-stream; charset=utf-8",
    encoder=AnthropicEncoder,
    allowed_types=("text/event-stream",),
    heartbeats=True,
    dialect=True,
    schemas=schemas.ANTHROPIC,
    id_header=b"request-id",
)
