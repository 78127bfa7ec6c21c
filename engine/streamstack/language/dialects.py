"""What the dialects of model providers carry: text, and the items of a model's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streamstack.language.suggest import did_you_mean
from streamstack.language.values import MISSING, kind

#: The formats that speak as a model provider's own API does.
DIALECTS: Final = ("openai", "anthropic", "aiSdk")

#: What an item of a model's answer can be.
ITEMS: Final = ("text", "toolCall", "usage", "finish")
#: Why an answer ended. `refusal` is the model's own, `contentFilter` the provider's.
REASONS: Final = ("stop", "length", "toolCalls", "contentFilter", "refusal", "other")
#: What was used: `cachedTokens` are among the input's, `reasoningTokens` among the output's.
FIGURES: Final = ("inputTokens", "outputTokens", "totalTokens", "cachedTokens", "reasoningTokens")


def refuse(content: Any) -> str | None:
    """Return why no dialect can carry a content, None where each can.

    Parts of an object that are MISSING are not known yet, and pass.
    """
    if isinstance(content, str) or content is MISSING:
        return None
    if not isinstance(content, Mapping):
        return _other(content)
    item = content.get("type")
    if item is MISSING:
        return None
    if item == "text":
        return _refuse_text(content.get("text"))
    if item == "toolCall":
        return _refuse_call(content)
    if item == "usage":
        return _refuse_usage(content)
    if item == "finish":
        return _refuse_reason(content.get("reason"))
    listed = ", ".join(ITEMS)
    if item is None:
        return f"is an object without `type`: write `| toJson`, or an item whose type is {listed}"
    meant = did_you_mean(item, ITEMS) if isinstance(item, str) else ""
    return f"has a `type` that is none of {listed}{meant}"


def _other(content: Any) -> str:
    name = kind(content)
    if name in ("list", "object"):
        return f"is {_a(name)}: write `forEach` to send its items, or `| toJson`"
    if name == "bytes":
        return "is bytes: write `| base64`"
    return f"is {_a(name)}: write `| toText`"


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _refuse_text(text: Any) -> str | None:
    if isinstance(text, str) or text is MISSING:
        return None
    return f"is an item of type text whose `text` is {_what(text)}"


def _refuse_call(item: Mapping[str, Any]) -> str | None:
    for key in ("id", "name"):
        value = item.get(key)
        if value is not None and value is not MISSING and not isinstance(value, str):
            return f"is a tool call whose `{key}` is {_what(value)}: it is a text"
    arguments = item.get("arguments")
    if arguments is None or arguments is MISSING or isinstance(arguments, (str, Mapping)):
        return None
    return f"is a tool call whose `arguments` are {_what(arguments)}: give an object, or its JSON"


def _refuse_usage(item: Mapping[str, Any]) -> str | None:
    for key in FIGURES:
        value = item.get(key)
        if value is None or value is MISSING:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            return f"is an item of type usage whose `{key}` is {_what(value)}: give a whole number"
    return None


def _refuse_reason(reason: Any) -> str | None:
    if reason is MISSING or (isinstance(reason, str) and reason in REASONS):
        return None
    meant = did_you_mean(reason, REASONS) if isinstance(reason, str) else ""
    return f"is an item of type finish whose `reason` is none of {', '.join(REASONS)}{meant}"


def _what(value: Any) -> str:
    name = kind(value)
    return name if name in ("null", "bytes") else _a(name)
