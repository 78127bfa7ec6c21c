"""What stands in a resumable stream beside its chunks: its end, its failure, a gap."""

from __future__ import annotations

import re
from typing import Any, Final

from streamstack.language.values import to_json
from streamstack.server.writers.text import encode

#: Formats whose chunks have ids, and so a way back. `jsonl` is NDJSON by another name.
FORMATS: Final = frozenset({"sse", "ndjson", "jsonl"})

#: The number of what stands after everything: 15 digits, as many as are read.
LAST: Final = 999_999_999_999_999
#: What readers are told of a stream whose server is gone.
LOST: Final = "The server that ran this stopped before its end."

_BREAKS: Final = re.compile(r"\r\n|\r|\n")


def frame(format_: str, stream: str, number: int, name: str, data: Any) -> bytes:
    """Return an event of the stream itself, as the format writes it. Its id says that it was read, too."""
    if format_ != "sse":
        return to_json({name: data, "id": f"{stream}/{number}"}) + b"\n"
    written = encode(_BREAKS.sub("\ndata: ", data)) if isinstance(data, str) else to_json(data)
    return b"event: %b\nid: %b/%d\ndata: %b\n\n" % (name.encode(), stream.encode(), number, written)


def gap(format_: str, stream: str, first: int, last: int) -> bytes:
    """Return what tells a reader that chunks are kept no more: from the first to the last of them."""
    return frame(format_, stream, last, "gap", {"from": first, "to": last})


def lost(format_: str, stream: str, run: str) -> bytes:
    """Return what tells a reader that nobody writes the stream any more. Its number is beyond all others."""
    told = {"code": "producer-lost", "message": LOST, "run": run}
    return frame(format_, stream, LAST, "error", told)


def pulse(format_: str) -> bytes:
    """Return a heartbeat, which is no line of its own to anyone."""
    return b":\n" if format_ == "sse" else b" "
