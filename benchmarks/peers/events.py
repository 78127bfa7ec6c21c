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
            "metadata": {
                "chunkIndex": index,
                "totalChunks": total,
                "timestamp": datetime.now(UTC),
            },
        },
        option=orjson.OPT_UTC_Z,
    )


def event(index: int, total: int) -> bytes:
    """Return one whole event, its id the index."""
    return b"id: %d\ndata: %b\n\n" % (index, payload(index, total))


def quote(article: str, quantity: int, *, express: bool) -> dict[str, Any]:
    """Return what the small JSON endpoint answers."""
    total = quantity * 12.5
    if express:
        total += 9.5
    return {"article": article, "quantity": quantity, "express": express, "total": total}
