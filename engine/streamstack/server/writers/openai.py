"""OpenAI's chat completions: chunks that end with `[DONE]`, or one completion."""

from __future__ import annotations

from typing import Any, Final

from streamstack.errors import RunError
from streamstack.language.values import to_json
from streamstack.runtime.messages import Item
from streamstack.server.writers.dialect import Block, DialectSink, told

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


class OpenaiSink(DialectSink):
    """Writes unnamed events, a delta each. What was used is told to who asks for it."""

    dialect = "openai"
    gives_whole = True
    id_header = b"x-request-id"

    __slots__ = ("_lead", "_trail")

    def start(self) -> bytes:
        head = to_json(self._named("chat.completion.chunk"))[:-1]
        self._lead = b'data: %b,"choices":[' % head
        # Where usage is asked for, OpenAI's chunks before the last have it as null.
        self._trail = b'],"usage":null}\n\n' if self.ask().usage else b"]}\n\n"
        self._before = self._lead + b'{"index":0,"delta":{"content":'
        self._after = b'},"logprobs":null,"finish_reason":null}' + self._trail
        return self._delta({"role": "assistant", "content": ""})

    def open_block(self, block: Block) -> bytes:
        if not block.name:
            return b""
        call = {
            "index": block.call,
            "id": block.id,
            "type": "function",
            "function": {"name": block.name, "arguments": ""},
        }
        return self._delta({"tool_calls": [call]})

    def arguments(self, block: Block, text: str) -> bytes:
        return self._delta({"tool_calls": [{"index": block.call, "function": {"arguments": text}}]})

    def close_block(self, block: Block) -> bytes:
        # Who calls reads the arguments as JSON: none are an empty object.
        return self.arguments(block, "{}") if block.name and not block.spoken else b""

    def end(self) -> bytes:
        ending = self._delta({}, _REASONS[self.reason])
        if self.ask().usage and self._usage is not None:
            usage = to_json(_usage(self._usage))
            ending += b'%b],"usage":%b}\n\n' % (self._lead, usage)
        return ending + _DONE

    def document(self) -> dict[str, Any]:
        texts = [each.text for each in self._kept if not each.block.name]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(texts) if texts else None,
            "refusal": None,
        }
        calls = [
            {
                "id": each.block.id,
                "type": "function",
                "function": {"name": each.block.name, "arguments": each.text or "{}"},
            }
            for each in self._kept
            if each.block.name
        ]
        if calls:
            message["tool_calls"] = calls
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _REASONS[self.reason],
        }
        document = {**self._named("chat.completion"), "choices": [choice]}
        if self._usage is not None:
            document["usage"] = _usage(self._usage)
        return document

    def refusal(self, error: RunError) -> dict[str, Any]:
        named = ""
        if error.code == "invalid-input" and isinstance(error.details, list):
            named = next((each["name"] for each in error.details), "")
        usual = "invalid_request_error" if error.status < 500 else "server_error"
        return {
            "error": {
                "message": told(error, dev=self.wire.dev),
                "type": _TYPES.get(error.status, usual),
                "code": error.code,
                "param": named or None,
            }
        }

    def error_end(self, error: RunError) -> bytes:
        return b"data: %b\n\n%b" % (to_json(self.refusal(error)), _DONE)

    def _named(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.run.id}",
            "object": kind,
            "created": int(self.run.started.timestamp()),
            "model": self.model,
        }

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._lead + to_json(choice) + self._trail


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
