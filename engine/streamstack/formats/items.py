"""The items of a model's answer: what `llm.chat` gives, what the dialects of providers take.

Plain objects, since definitions read them, make them and hand them on:

- `{"type": "text", "text": "Hel"}`: the next piece of the answer.
- `{"type": "reasoning", "text": "A gr"}`: the next piece of what the model thinks before it answers. The provider's
  `signature` ends it, in an item without text; reasoning that it encrypted is `redacted`, also without text.
- `{"type": "toolCall", "index": 0, "id": "call_1", "name": "weather", "arguments": "{"}`: a tool
  call; `arguments` is the next piece of their JSON (an object is the whole of them). Each item of a
  call has its index (from 0 in the answer), id and name, and they follow one another: text, or
  another call, ends it. A call without arguments is one item, with "".
- `{"type": "usage", "inputTokens": 12, "outputTokens": 5, "totalTokens": 17}`, and `cachedTokens`
  of the input, `reasoningTokens` of the output, as far as they are known. One an answer, with its
  final figures: who relays two answers as one adds them up.
- `{"type": "finish", "reason": "stop"}`: one an answer, the last but for `usage`.

Every item of `llm.chat` has `text`, "" where it has none, so that a loop can read it without asking for the type.
Further keys are ignored. `refuse` says why a value is none of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from streamstack.language.names import did_you_mean
from streamstack.language.values import MISSING, kind

#: What an item of a model's answer can be.
ITEMS: Final = ("text", "reasoning", "toolCall", "usage", "finish")
#: What was used: `cachedTokens` are among the input's, `reasoningTokens` among the output's.
FIGURES: Final = ("inputTokens", "outputTokens", "totalTokens", "cachedTokens", "reasoningTokens")
#: Why an answer ended. `refusal` is the model's own, `contentFilter` the provider's; any other reason is `other`.
STOP: Final = "stop"
LENGTH: Final = "length"
TOOL_CALLS: Final = "toolCalls"
CONTENT_FILTER: Final = "contentFilter"
REFUSAL: Final = "refusal"
OTHER: Final = "other"
REASONS: Final = (STOP, LENGTH, TOOL_CALLS, CONTENT_FILTER, REFUSAL, OTHER)

Item = dict[str, Any]


def text_item(text: str) -> Item:
    """Return a piece of the text."""
    return {"type": "text", "text": text}


def reasoning_item(text: str, **signed: str) -> Item:
    """Return a piece of the reasoning, or the `signature` or the `redacted` data of it."""
    return {"type": "reasoning", "text": text, **signed}


def call_item(index: int, id: str, name: str, arguments: str) -> Item:  # noqa: A002
    """Return a piece of a tool call."""
    return {"type": "toolCall", "text": "", "index": index, "id": id, "name": name, "arguments": arguments}


def usage_item(**figures: int | None) -> Item:
    """Return what was used; figures that are None are not known. The total is made if it can be.

    Raises KeyError for a figure that has no name here.
    """
    known = {name: count for name, count in figures.items() if count is not None}
    if unknown := known.keys() - set(FIGURES):
        raise KeyError(*unknown)
    if "totalTokens" not in known and {"inputTokens", "outputTokens"} <= known.keys():
        known["totalTokens"] = known["inputTokens"] + known["outputTokens"]
    return {"type": "usage", "text": "", **{name: known[name] for name in FIGURES if name in known}}


def finish_item(reason: str) -> Item:
    """Return the end of an answer. A reason that is none of REASONS is `other`."""
    return {"type": "finish", "text": "", "reason": reason if reason in REASONS else OTHER}


def add_usage(first: Item | None, second: Item) -> Item:
    """Return what two answers used together; a total only where it is one of both."""
    if first is None:
        return second
    pairs = [[each.get(name) for each in (first, second)] for name in FIGURES]
    return usage_item(
        **{
            name: (one or 0) + (other or 0)
            for name, (one, other) in zip(FIGURES, pairs, strict=True)
            if (one is not None and other is not None)
            or (name != "totalTokens" and (one is not None or other is not None))
        }
    )


def refuse(content: Any) -> str | None:
    """Return why no dialect can carry a content, None where each can.

    Parts of an object that are MISSING are not known yet, and pass.
    """
    if isinstance(content, str) or content is MISSING:
        return None
    if not isinstance(content, Mapping):
        name = kind(content)
        advice = _INSTEAD.get(name, "write `| toText`")
        return f"is {_a(name)}: {advice}"
    item = content.get("type")
    if item is MISSING:
        return None
    if item is None:
        return f"is an object without `type`: write `| toJson`, or an item whose type is {', '.join(ITEMS)}"
    if item not in ITEMS:
        meant = did_you_mean(item, ITEMS) if isinstance(item, str) else ""
        return f"has a `type` that is none of {', '.join(ITEMS)}{meant}"
    if item == "finish":
        return _refuse_reason(content.get("reason"))
    for key, fits, wanted in _FIELDS[item]:
        value = content.get(key)
        if value is not MISSING and not fits(value):
            return f"is an item of type {item} whose `{key}` is {_a(kind(value))}: {wanted}"
    return None


def _refuse_reason(reason: Any) -> str | None:
    if reason is MISSING or (isinstance(reason, str) and reason in REASONS):
        return None
    meant = did_you_mean(reason, REASONS) if isinstance(reason, str) else ""
    return f"is an item of type finish whose `reason` is none of {', '.join(REASONS)}{meant}"


def _is_text_or_null(value: Any) -> bool:
    return value is None or isinstance(value, str)


_INSTEAD: Final = {"list": "write `forEach` to send its items, or `| toJson`", "bytes": "write `| base64`"}
#: What the keys of an item have to be, and the advice for what is something else.
_FIELDS: Final[dict[str, tuple[tuple[str, Callable[[Any], bool], str], ...]]] = {
    "text": (("text", lambda value: isinstance(value, str), "give a text"),),
    "reasoning": (
        ("text", lambda value: isinstance(value, str), "give a text"),
        *((key, _is_text_or_null, "give a text") for key in ("signature", "redacted")),
    ),
    "toolCall": (
        *((key, _is_text_or_null, "give a text") for key in ("id", "name", "signature")),
        ("arguments", lambda value: value is None or isinstance(value, (str, Mapping)), "give an object, or its JSON"),
    ),
    "usage": tuple(
        (
            key,
            lambda value: value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0),
            "give a whole number",
        )
        for key in FIGURES
    ),
}


def _a(name: str) -> str:
    return name if name in ("null", "bytes") else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
