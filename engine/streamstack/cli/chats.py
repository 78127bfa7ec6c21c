"""Requests to language models, recognised by their URL and body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult

from streamstack.cli.curl import CurlRequest

#: How the paths of each provider end, and the key of its body that holds the conversation.
_PATHS: Final = (
    ("openai", re.compile(r"(.*)/chat/completions"), "messages"),
    ("openaiResponses", re.compile(r"(.*)/responses"), "input"),
    ("anthropic", re.compile(r"(.*)/v1/messages"), "messages"),
    ("gemini", re.compile(r"(.*)/models/([^/:]+):(?:streamGenerateContent|generateContent)"), "contents"),
)
#: Keys of a body that are parameters of `llm.chat`.
_PARAMETERS: Final = {
    "max_tokens": "maxTokens",
    "max_completion_tokens": "maxTokens",
    "max_output_tokens": "maxTokens",
    "temperature": "temperature",
}
_OWN_KEYS: Final = frozenset({"stream", "stream_options"})
_KEY_HEADERS: Final = ("Authorization", "x-api-key", "api-key", "x-goog-api-key")
_KNOWN_HEADERS: Final = frozenset(
    {*(name.lower() for name in _KEY_HEADERS), "content-type", "accept", "anthropic-version", "user-agent"}
)


@dataclass(slots=True)
class Chat:
    """A request to a model, by the parameters of `llm.chat`.

    Args:
        provider, model, base_url: Who is asked, and where.
        key: The API key as the command writes it.
        messages: The conversation.
        parameters: Further parameters of the step.
        options: Keys of the body that are none.
        notes: What was left out.
    """

    provider: str
    model: str
    base_url: str
    key: str | None
    messages: Any
    system: Any = None
    parameters: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_chat(url: SplitResult, request: CurlRequest, body: Mapping[str, Any]) -> Chat | None:
    """Return what is asked of a model; None where a request is none, or has what `llm.chat` can't send."""
    query = {name: value for name, value in request.query if (name, value) != ("alt", "sse")}
    if query.keys() - {"key"} or request.header("anthropic-beta"):
        return None
    for provider, pattern, conversation in _PATHS:
        found = pattern.fullmatch(url.path)
        model = body.get("model") if provider != "gemini" else found and found[2]
        if found is None or not isinstance(model, str) or not body.get(conversation):
            continue
        base = url._replace(path=found[1]).geturl()
        if provider == "gemini":
            base = base.removesuffix("/v1beta")
        chat = Chat(provider, model, base, _key(request, query), deepcopy(body[conversation]))
        rest = {name: value for name, value in body.items() if name not in ("model", conversation, *_OWN_KEYS)}
        fits = _read_gemini(chat, rest) if provider == "gemini" else _read_body(chat, rest)
        if not fits:
            return None
        _shorten(chat)
        left = [name for name, _ in request.headers if name.lower() not in _KNOWN_HEADERS]
        chat.notes += [f"the header `{name}` was left out: llm.chat does not send it" for name in left]
        if not body.get("stream") and provider != "gemini":
            chat.notes.append("the command waits for the whole answer; the endpoint sends it as it is written")
        return chat
    return None


def _key(request: CurlRequest, query: Mapping[str, str]) -> str | None:
    found = next(filter(None, map(request.header, _KEY_HEADERS)), None) or query.get("key")
    return re.sub(r"^bearer\s+", "", found, flags=re.IGNORECASE) if found else None


def _read_body(chat: Chat, rest: dict[str, Any]) -> bool:
    """Sort the keys of a body in the form of OpenAI or Anthropic."""
    chat.system = rest.pop("system", rest.pop("instructions", None))
    tools = rest.get("tools")
    if isinstance(tools, list) and all(_is_function(tool) for tool in tools):
        chat.parameters["tools"] = rest.pop("tools")
    if rest.pop("n", 1) != 1:
        chat.notes.append("`n` was left out: one call returns one answer")
    for name, parameter in _PARAMETERS.items():
        if name in rest:
            chat.parameters[parameter] = rest.pop(name)
    chat.options = rest
    messages = chat.messages
    if isinstance(messages, list) and chat.system is None and messages and isinstance(messages[0], dict):
        first = messages[0]
        if first.get("role") in ("system", "developer") and isinstance(first.get("content"), str):
            chat.system = first["content"]
            del messages[0]
    return isinstance(messages, (str, list)) and bool(messages)


def _is_function(tool: Any) -> bool:
    """Tell a function of the caller's from a tool that the provider runs itself."""
    return isinstance(tool, dict) and ("input_schema" in tool or tool.get("type") == "function")


def _read_gemini(chat: Chat, rest: dict[str, Any]) -> bool:
    """Sort the keys of a body of Gemini's; False where a message has more than text."""
    system = rest.pop("systemInstruction", rest.pop("system_instruction", None))
    contents = chat.messages if isinstance(chat.messages, list) else [chat.messages]
    messages = []
    for content in contents:
        text = _gemini_text(content)
        if text is None:
            return False
        messages.append({"role": "assistant" if content.get("role") == "model" else "user", "content": text})
    chat.messages = messages
    chat.system = _gemini_text(system) if system is not None else None
    settings = rest.get("generationConfig")
    if isinstance(settings, dict):
        for name, parameter in (("maxOutputTokens", "maxTokens"), ("temperature", "temperature")):
            if name in settings:
                chat.parameters[parameter] = settings.pop(name)
        if not settings:
            del rest["generationConfig"]
    chat.options = rest
    return system is None or chat.system is not None


def _gemini_text(content: Any) -> str | None:
    parts = content.get("parts") if isinstance(content, dict) else None
    parts = [parts] if isinstance(parts, dict) else parts
    if not isinstance(parts, list) or not all(isinstance(each, dict) and each.keys() == {"text"} for each in parts):
        return None
    return "".join(each["text"] for each in parts)


def _shorten(chat: Chat) -> None:
    """Write a conversation of one message as its text."""
    only = chat.messages[0] if isinstance(chat.messages, list) and len(chat.messages) == 1 else None
    if isinstance(only, dict) and only.keys() == {"role", "content"} and only["role"] == "user":
        content = only["content"]
        if isinstance(content, str) and content:
            chat.messages = content


def find_message(messages: Any) -> tuple[str | None, tuple[str | int, ...]]:
    """Return the text of the last message, where it is the user's, and its place in {messages}; else None."""
    if isinstance(messages, str) and messages:
        return messages, ("messages",)
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "user":
        return None, ()
    place = ("messages", len(messages) - 1, "content")
    content = last.get("content")
    if isinstance(content, str) and content:
        return content, place
    parts = content if isinstance(content, list) else []
    texts = [at for at, part in enumerate(parts) if isinstance(part, dict) and isinstance(part.get("text"), str)]
    found = parts[texts[0]]["text"] if len(texts) == 1 else ""
    return (found, (*place, texts[0], "text")) if found else (None, ())
