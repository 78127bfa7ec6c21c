"""What the body of a request in a dialect asks for, beside the inputs that an endpoint declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Asked:
    """``continued`` is the id of the assistant's message that the answer goes on with (aiSdk)."""

    stream: bool = False
    model: str = ""
    usage: bool = False  # OpenAI's `stream_options.include_usage`
    continued: str = ""


def read_asked(body: bytes) -> Asked:
    """Read it from a body; of one that is no JSON object, nothing is known."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Asked()
    if not isinstance(document, dict):
        return Asked()
    model, options = document.get("model"), document.get("stream_options")
    return Asked(
        stream=document.get("stream") is True,
        model=model if isinstance(model, str) else "",
        usage=isinstance(options, dict) and options.get("include_usage") is True,
        continued=_continued(document.get("messages")),
    )


def _continued(messages: Any) -> str:
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return ""
    name = last.get("id")
    return name if isinstance(name, str) else ""
