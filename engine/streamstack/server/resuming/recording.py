"""How far the store is with the streams of this process, and for how long it keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streamstack.language.streaming_settings import Resume
from streamstack.server.resuming.journal import Journal

#: Seconds a stream that is neither written nor ended is kept, beyond what its limits allow.
_SPARE: Final = 900.0


@dataclass(eq=False, slots=True)
class Record:
    """How far the store is with one journal. ``have``: the chunk it needs next; ``offset``: the bytes it has had.

    ``lasting`` are the seconds that the stream may be silent.
    """

    journal: Journal
    lasting: float
    key: bytes = b""
    value: str = ""
    opened: bool = False
    headed: bool = False
    waiting: asyncio.TimerHandle | None = None  # when its first chunk has waited long enough
    have: int = 0
    offset: int = 0

    @property
    def due(self) -> bool:
        """Whether there is something to write."""
        journal = self.journal
        return (
            not self.opened
            or self.have < journal.next
            or journal.end is not None
            or (journal.head is not None and not self.headed)
        )


def fields_of(record: Record, worker: str) -> Mapping[str, bytes | str | int]:
    """Return what the store is told of a stream when it begins; ``worker`` is the process that writes it."""
    origin = record.journal.origin
    return {
        "endpoint": origin.endpoint,
        "owner": origin.owner,
        "format": origin.format,
        "run": origin.run,
        "cancels": int(origin.cancels),
        "buffer": origin.buffer,
        "keep": str(origin.resume.keep),
        "chunks": origin.resume.max_chunks,
        "size": origin.resume.max_size,
        "worker": worker,
        "key": record.value,
        "terms": origin.terms.text,
        "next": record.have,
    }


def lasting_of(resume: Resume, silences: tuple[float, ...]) -> float:
    """Return the seconds that a stream is kept without a word of it; ``silences`` are its limits, 0 for none."""
    if not all(silences):
        return 7 * 86_400.0
    return max(silences) + 2 * resume.keep + _SPARE


def spare_of(resume: Resume) -> float:
    """Return the seconds that the store keeps a stream longer than it is to be kept from its end on.

    Most readers leave within them: from then on it is kept, and the store need not be told of each.
    """
    return min(1.0, resume.keep / 8)
