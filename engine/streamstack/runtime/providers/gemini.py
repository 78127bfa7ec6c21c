"""Google's Gemini.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from streamstack.formats.items import CONTENT_FILTER, LENGTH, OTHER, STOP, TOOL_CALLS, Item
from streamstack.language.values import to_json
from streamstack.runtime.providers.conversation import Attachment, ToolCall, Turn, attachments_apart, read_arguments
from streamstack.runtime.providers.provider import MADE, AnswerReader, Chat, Provider, made_id, part, parts, string

_REASONS: Final = {
    "STOP": STOP,
    "MAX_TOKENS": LENGTH,
    "FUNCTION_CALL": TOOL_CALLS,  # of compatible servers
    "SAFETY": CONTENT_FILTER,
    "RECITATION": CONTENT_FILTER,
    "BLOCKLIST": CONTENT_FILTER,
    "PROHIBITED_CONTENT": CONTENT_FILTER,
    "SPII": CONTENT_FILTER,
    "IMAGE_SAFETY": CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": CONTENT_FILTER,
    "IMAGE_RECITATION": CONTENT_FILTER,
}
_NO_REASON: Final = frozenset({"", "FINISH_REASON_UNSPECIFIED"})


def _path(url: str, model: str) -> str:
    version = "" if re.search(r"/v\d\w*$", url) else "/v1beta"
    name = quote(model if "/" in model else f"models/{model}", safe="/:@")
    return f"{version}/{name}:streamGenerateContent?alt=sse"


def _headers(key: str | None) -> dict[str, str]:
    return {"x-goog-api-key": key} if key else {}


def _body(chat: Chat) -> dict[str, Any]:
    body: dict[str, Any] = {"contents": _contents(chat.turns)}
    system = chat.system_text()
    if system:
        body["systemInstruction"] = {"parts": [{"text": system}]}
    settings: dict[str, Any] = {}
    if chat.max_tokens is not None:
        settings["maxOutputTokens"] = chat.max_tokens
    if chat.temperature is not None:
        settings["temperature"] = chat.temperature
    if settings:
        body["generationConfig"] = settings
    if chat.tools:
        declared = [
            {"name": tool.name, "description": tool.description or tool.name, "parametersJsonSchema": tool.schema}
            for tool in chat.tools
        ]
        body["tools"] = [{"functionDeclarations": declared}]
    return body


def _contents(turns: tuple[Turn, ...]) -> list[dict[str, Any]]:
    """Return the contents: turns of one role are one, as the answers to several calls have to be."""
    contents: list[dict[str, Any]] = []
    for turn in attachments_apart(turns):
        if turn.role in ("system", "developer"):
            continue
        role = "model" if turn.role == "assistant" else "user"
        found = _parts(turn)
        if not found:
            continue
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += found
        else:
            contents.append({"role": role, "parts": found})
    return contents


def _parts(turn: Turn) -> list[dict[str, Any]]:
    if turn.role == "tool":
        result = read_arguments(turn.text)
        answer: dict[str, Any] = {
            "name": turn.name or turn.answers,
            "response": {"result": result} if isinstance(result, str) else result,
        }
        return [{"functionResponse": _with_id(turn.answers, answer)}]
    state = [dict(each) for each in turn.state("gemini") if isinstance(each, Mapping)]
    said = "".join(string(each, "text") for each in state)
    called = [string(part(each, "functionCall"), "name") for each in state if "functionCall" in each]
    if state and said == turn.text and called == [call.name for call in turn.calls]:
        return state  # each signature belongs to its part
    found: list[dict[str, Any]] = []
    for each in turn.parts:
        if not isinstance(each, Attachment):
            if each:
                found.append({"text": each})
        elif each.url is not None:
            found.append({"fileData": {"fileUri": each.url, **({"mimeType": each.media} if each.media else {})}})
        else:
            found.append({"inlineData": {"mimeType": each.media, "data": each.data}})
    return found + [_call_part(call) for call in turn.calls]


def _call_part(call: ToolCall) -> dict[str, Any]:
    said = {"functionCall": _with_id(call.id, {"name": call.name, "args": call.object})}
    return said if call.signature is None else {**said, "thoughtSignature": call.signature}


def _with_id(id_: str, about: dict[str, Any]) -> dict[str, Any]:
    return about if not id_ or id_.startswith(MADE) else {"id": id_, **about}


class GeminiReader(AnswerReader):
    """Reads `GenerateContentResponse` to the end of the body: there is no end marker.

    A finish reason is none: tools that Gemini runs itself have one midway, and gateways put one into every chunk.
    """

    provider = "gemini"

    def __init__(self, host: str, largest: int) -> None:
        super().__init__(host, largest)
        self._parts: list[dict[str, Any]] = []
        self._plain: list[str] = []  # the text since the last of them
        self._blocked = False

    def take(self, data: Mapping[str, Any], items: list[Item]) -> None:
        if data.get("error"):
            raise self.fail(data, data["error"])
        usage = part(data, "usageMetadata")
        if usage:
            self._note(usage)
        blocked = string(part(data, "promptFeedback"), "blockReason")
        if blocked not in ("", "BLOCK_REASON_UNSPECIFIED"):
            self._blocked, self.said = True, blocked
        for candidate in parts(data, "candidates"):
            if candidate.get("index") not in (0, None):
                continue
            for each in parts(part(candidate, "content"), "parts"):
                self._take_part(each, items)
            said = string(candidate, "finishReason")
            if said not in _NO_REASON:
                self.said = said

    def _take_part(self, raw: Mapping[str, Any], items: list[Item]) -> None:
        call, signature = part(raw, "functionCall"), string(raw, "thoughtSignature")
        text = string(raw, "text")
        if call:
            id_ = string(call, "id") or made_id()
            self.reply.add_call(id_, string(call, "name"), part(call, "args"), items, signature or None)
        elif raw.get("thought") is True:
            self.reply.add_reasoning(text, items)
            return  # not wanted back
        else:
            self.reply.add_text(text, items)
        if raw.keys() == {"text"}:
            self._plain.append(text)
            return
        self.reply.count(to_json(raw).decode())
        self._end_plain()
        self._parts.append(dict(raw))

    def _end_plain(self) -> None:
        """Put the text that nothing is signed with into one part."""
        if self._plain:
            self._parts.append({"text": "".join(self._plain)})
            self._plain = []

    def _note(self, usage: Mapping[str, Any]) -> None:
        thoughts = usage.get("thoughtsTokenCount")
        known = [count for count in (thoughts, usage.get("candidatesTokenCount")) if isinstance(count, int)]
        self.reply.note_usage(
            inputTokens=usage.get("promptTokenCount"),
            outputTokens=sum(known) if known else None,
            totalTokens=usage.get("totalTokenCount"),
            cachedTokens=usage.get("cachedContentTokenCount"),
            reasoningTokens=thoughts,
        )

    def finish(self, items: list[Item]) -> None:
        self.ended = True
        self._end_plain()
        if any("functionCall" not in each and each.keys() != {"text"} for each in self._parts):
            self.reply.blocks += self._parts
        reason = CONTENT_FILTER if self._blocked else _REASONS.get(self.said or "", OTHER)
        self.reply.finish(reason, self.said, items)


PROVIDER: Final = Provider(
    name="gemini",
    url="https://generativelanguage.googleapis.com",
    keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    addresses=("GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"),
    path=_path,
    headers=_headers,
    body=_body,
    reader=GeminiReader,
)
