"""What the Python peers send: one event of a burst or of a paced stream, encoded with orjson."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
DONE = b"event: done\ndata: [DONE]\n\n"


def payload(index: int, total: int) -> bytes:
    """Return the data of one event."""
    return orjson.dumps(
        {
            "content": f"Chunk {index} of a stream, as long as a line of text is.",
            "metadata": {"chunkIndex": index, "totalChunks": total, "timestamp": datetime.now(UTC)},
        },
        option=orjson.OPT_UTC_Z,
    )


def event(index: int, total: int) -> bytes:
    """Return one whole event, its id the index."""
    return b"data: %b\nid: %d\n\n" % (payload(index, total), index)


def quote(article: str, quantity: int, *, express: bool) -> dict[str, Any]:
    """Return what the small JSON endpoint answers."""
    total = quantity * 12.5
    if express:
        total += 9.5
    return {"article": article, "quantity": quantity, "express": express, "total": total}


def message_of(body: bytes) -> str:
    """Return the message that a relay's request holds; raise ValueError where there is none."""
    asked = orjson.loads(body)
    message = asked.get("message") if isinstance(asked, dict) else None
    if not isinstance(message, str) or not message:
        raise ValueError("message must be a text")
    return message


def question(message: str) -> dict[str, Any]:
    """Return what a model is asked."""
    return {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": message}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def text_of(chunk: dict[str, Any]) -> str | None:
    """Return the piece of text in a `chat.completion.chunk`; the usage's chunk has no choice."""
    choices = chunk["choices"]
    return choices[0]["delta"].get("content") if choices else None


def piece(text: str, index: int) -> bytes:
    """Return one whole event of a relayed answer."""
    data = orjson.dumps({"content": text, "metadata": {"index": index}})
    return b"data: %b\nid: %d\n\n" % (data, index)


def row(record: Any) -> bytes:
    """Return a row of the database as a line; its decimals are numbers."""
    return orjson.dumps(dict(record), default=float, option=orjson.OPT_UTC_Z) + b"\n"
