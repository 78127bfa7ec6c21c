"""The items of a model's answer: what `llm.chat` gives, what the dialect writers take.

Plain objects, since definitions read them, make them and hand them on:

- `{"type": "text", "text": "Hel"}`: the next piece of the answer.
- `{"type": "toolCall", "index": 0, "id": "call_1", "name": "weather", "arguments": "{"}`: a tool
  call; `arguments` is the next piece of their JSON (an object is the whole of them). Each item of a
  call has its index (from 0 in the answer), id and name, and they follow one another: text, or
  another call, ends it. A call without arguments is one item, with "".
- `{"type": "usage", "inputTokens": 12, "outputTokens": 5, "totalTokens": 17}`, and `cachedTokens`
  of the input, `reasoningTokens` of the output, as far as they are known. One an answer, with its
  final figures: who relays two answers as one adds them up.
- `{"type": "finish", "reason": "stop"}`: one an answer, the last but for `usage`.

Further keys are let be. `language.dialects` tells what is none of these.
"""

from __future__ import annotations

from typing import Any, Final

from streamstack.language.dialects import FIGURES, REASONS

#: Reasons that a provider has a word for; any other is `other`.
STOP: Final = "stop"
LENGTH: Final = "length"
TOOL_CALLS: Final = "toolCalls"
CONTENT_FILTER: Final = "contentFilter"
REFUSAL: Final = "refusal"
OTHER: Final = "other"

Item = dict[str, Any]


def text_item(text: str) -> Item:
    """Return a piece of the text."""
    return {"type": "text", "text": text}


def call_item(index: int, id: str, name: str, arguments: str) -> Item:  # noqa: A002
    """Return a piece of a tool call."""
    return {"type": "toolCall", "index": index, "id": id, "name": name, "arguments": arguments}


def usage_item(**figures: int | None) -> Item:
    """Return what was used; figures that are None are not known. The total is made if it can be.

    Raises KeyError for a figure that has no name here.
    """
    known = {name: count for name, count in figures.items() if count is not None}
    if unknown := known.keys() - set(FIGURES):
        raise KeyError(*unknown)
    if "totalTokens" not in known and {"inputTokens", "outputTokens"} <= known.keys():
        known["totalTokens"] = known["inputTokens"] + known["outputTokens"]
    return {"type": "usage", **{name: known[name] for name in FIGURES if name in known}}


def finish_item(reason: str) -> Item:
    """Return the end of an answer. A reason that is none of REASONS is `other`."""
    return {"type": "finish", "reason": reason if reason in REASONS else OTHER}


def add_usage(first: Item | None, second: Item) -> Item:
    """Return what two answers used together; a total only where it is one of both."""
    if first is None:
        return second
    given = [[each.get(name) for each in (first, second)] for name in FIGURES]
    return usage_item(
        **{
            name: (one or 0) + (other or 0)
            for name, (one, other) in zip(FIGURES, given, strict=True)
            if (one is not None and other is not None)
            or (name != "totalTokens" and (one is not None or other is not None))
        }
    )
