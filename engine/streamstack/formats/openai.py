"""OpenAI's chat completions: chunks that end with `[DONE]`, or one completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamstack.errors import RunError
from streamstack.formats import schemas
from streamstack.formats.dialect import DialectBlock, DialectEncoder, fault_of
from streamstack.formats.items import Item
from streamstack.formats.spec import Format
from streamstack.language.values import to_json

_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "toolCalls": "tool_calls",
    "contentFilter": "content_filter",
    "refusal": "content_filter",
    "other": "stop",
}

#: The types of errors by status; of others, the caller's are below 500.
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_DONE: Final = b"data: [DONE]\n\n"


class OpenaiEncoder(DialectEncoder):
    """Writes unnamed events, a delta each. Usage is sent where the request asks for it."""

    dialect = "openai"
    whole_by_default = True

    __slots__ = ("_lead", "_trail")

    def start(self) -> bytes:
        head = to_json(self._named("chat.completion.chunk"))[:-1]
        self._lead = b'data: %b,"choices":[' % head
        # Where usage is asked for, OpenAI's chunks before the last have it as null.
        self._trail = b'],"usage":null}\n\n' if self.requested.usage else b"]}\n\n"
        self._after = b'},"logprobs":null,"finish_reason":null}' + self._trail
        return self._delta({"role": "assistant", "content": ""})

    def open_block(self, block: DialectBlock) -> bytes:
        if not block.name:
            # The name that DeepSeek, vLLM and others gave it: OpenAI's own API has no place for reasoning.
            self._before = self._lead + b'{"index":0,"delta":{"%b":' % (
                b"reasoning_content" if block.reasoning else b"content"
            )
            return b""
        return self._delta({"tool_calls": [{"index": block.call, **_call(block, "")}]})

    def arguments(self, block: DialectBlock, text: str) -> bytes:
        return self._delta({"tool_calls": [{"index": block.call, "function": {"arguments": text}}]})

    def close_block(self, block: DialectBlock) -> bytes:
        # Callers parse the arguments as JSON: none are an empty object.
        return self.arguments(block, "{}") if block.name and not block.spoken else b""

    def finish(self) -> bytes:
        ending = self._delta({}, _REASONS[self.reason])
        if self.requested.usage and self._usage is not None:
            usage = to_json(_usage(self._usage))
            ending += b'%b],"usage":%b}\n\n' % (self._lead, usage)
        return ending + _DONE

    def document(self) -> dict[str, Any]:
        texts = [each.text for each in self._blocks if not each.block.name and not each.block.reasoning]
        message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None, "refusal": None}
        if thoughts := "".join(each.text for each in self._blocks if each.block.reasoning):
            message["reasoning_content"] = thoughts
        calls = [_call(each.block, each.text or "{}") for each in self._blocks if each.block.name]
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _REASONS[self.reason]}
        document = {**self._named("chat.completion"), "choices": [choice]}
        if self._usage is not None:
            document["usage"] = _usage(self._usage)
        return document

    def _error(self, error: RunError, fields: Mapping[str, Any]) -> dict[str, Any]:
        named = ""
        if error.code == "invalid-input" and isinstance(error.details, list):
            named = next((each["name"] for each in error.details), "")
        usual = "invalid_request_error" if error.status < 500 else "server_error"
        return {
            "error": {
                "message": fault_of(error, fields),
                "type": _TYPES.get(error.status, usual),
                "code": error.code,
                "param": named or None,
            }
        }

    def problem(self, error: RunError, fields: Mapping[str, Any]) -> bytes:
        return to_json(self._error(error, fields))

    def error_end(self, error: RunError, fields: Mapping[str, Any], number: int) -> bytes:
        return b"data: %b\n\n%b" % (to_json(self._error(error, fields)), _DONE)

    def _named(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.response.run}",
            "object": kind,
            "created": int(self.response.started.timestamp()),
            "model": self.model,
        }

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._lead + to_json(choice) + self._trail


def _call(block: DialectBlock, arguments: str) -> dict[str, Any]:
    call: dict[str, Any] = {
        "id": block.id,
        "type": "function",
        "function": {"name": block.name, "arguments": arguments},
    }
    if block.signature:  # as Gemini's compatible API has it
        call["extra_content"] = {"google": {"thought_signature": block.signature}}
    return call


def _usage(used: Item) -> dict[str, Any]:
    """Return what was used in OpenAI's words; what is not known is 0."""
    put, got = used.get("inputTokens") or 0, used.get("outputTokens") or 0
    total = used.get("totalTokens")
    usage: dict[str, Any] = {
        "prompt_tokens": put,
        "completion_tokens": got,
        "total_tokens": put + got if total is None else total,
    }
    if (cached := used.get("cachedTokens")) is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if (thought := used.get("reasoningTokens")) is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return usage


OPENAI: Final = Format(
    name="openai",
    content_type="text/event-stream; charset=utf-8",
    encoder=OpenaiEncoder,
    allowed_types=("text/event-stream",),
    heartbeats=True,
    dialect=True,
    schemas=schemas.OPENAI,
    id_header=b"x-request-id",
)
