"""The AI SDK's UI message stream, version 1: parts of a message for `useChat`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from streamstack.errors import RunError
from streamstack.formats import schemas
from streamstack.formats.dialect import DialectBlock, DialectEncoder, fault_of
from streamstack.formats.items import FIGURES
from streamstack.formats.spec import Format
from streamstack.language.values import to_json

_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "toolCalls": "tool-calls",
    "contentFilter": "content-filter",
    "refusal": "content-filter",
    "other": "other",
}

_DONE: Final = b"data: [DONE]\n\n"


class AiSdkEncoder(DialectEncoder):
    """Writes unnamed events, a part each. It is always a stream.

    The protocol has no place for what was used: it stands in the message's metadata, as `usage`,
    beside what the author's `done` gives.
    """

    dialect = "aiSdk"
    buffers_arguments = True

    __slots__ = ()

    def start(self) -> bytes:
        # An answer that goes on with a message keeps its id, or the page would show a second one.
        name = self.requested.continued or f"msg_{self.response.run}"
        return _part("start", messageId=name)

    def open_block(self, block: DialectBlock) -> bytes:
        if block.name:
            return _part("tool-input-start", toolCallId=block.id, toolName=block.name)
        kind = _kind(block)
        self._before = b'data: {"type":"%b-delta","id":"%d","delta":' % (kind.encode(), block.number)
        self._after = b"}\n\n"
        return _part(f"{kind}-start", id=str(block.number))

    def arguments(self, block: DialectBlock, text: str) -> bytes:
        return _part("tool-input-delta", toolCallId=block.id, inputTextDelta=text)

    def close_block(self, block: DialectBlock) -> bytes:
        if not block.name:
            signed = {"signature": block.signature, "redactedData": block.redacted}
            return _part(f"{_kind(block)}-end", id=str(block.number), **_beside("anthropic", signed))
        named: dict[str, Any] = {"toolCallId": block.id, "toolName": block.name}
        named |= _beside("google", {"thoughtSignature": block.signature})
        text = self.text_of_block(block)
        try:
            return _part("tool-input-available", **named, input=orjson.loads(text or "{}"))
        except orjson.JSONDecodeError:
            fault = "the arguments of the call are not JSON"
            return _part("tool-input-error", **named, input=text, errorText=fault)

    def finish(self) -> bytes:
        final_metadata: dict[str, Any] = {}
        if self._usage is not None:
            final_metadata["usage"] = {name: self._usage[name] for name in FIGURES if self._usage.get(name) is not None}
        if isinstance(self._metadata, Mapping):
            final_metadata.update(self._metadata)
        elif self._metadata is not None:
            final_metadata["metadata"] = self._metadata
        more = {"messageMetadata": final_metadata} if final_metadata else {}
        return _part("finish", finishReason=_REASONS[self.reason], **more) + _DONE

    def error_end(self, error: RunError, fields: Mapping[str, Any], number: int) -> bytes:
        return _part("error", errorText=fault_of(error, fields)) + _DONE


def _kind(block: DialectBlock) -> str:
    return "reasoning" if block.reasoning else "text"


def _beside(provider: str, known: Mapping[str, str]) -> dict[str, Any]:
    """Return what a provider needs back: pages send it with the message."""
    known = {name: value for name, value in known.items() if value}
    return {"providerMetadata": {provider: known}} if known else {}


def _part(kind: str, **more: Any) -> bytes:
    return b"data: %b\n\n" % to_json({"type": kind, **more})


AI_SDK: Final = Format(
    name="aiSdk",
    content_type="text/event-stream; charset=utf-8",
    encoder=AiSdkEncoder,
    allowed_types=("text/event-stream",),
    carries=frozenset({"done.metadata"}),
    heartbeats=True,
    dialect=True,
    schemas=schemas.AI_SDK,
    headers=(("X-Vercel-AI-UI-Message-Stream", "v1"),),
)
