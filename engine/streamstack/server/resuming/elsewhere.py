"""Streams of other processes, as the store has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from streamstack.language.streaming_settings import Resume
from streamstack.server.resuming.journal import End, Origin
from streamstack.server.resuming.terms import read_terms


def write_end(end: End) -> bytes:
    """Return an end as the store has it."""
    whole = None if end.whole is None else end.whole.decode()
    return orjson.dumps({"cut": end.cut, "whole": whole, "lost": end.lost})


def read_end(data: bytes) -> End:
    """Return the end that the store has."""
    told = orjson.loads(data)
    whole = told["whole"]
    return End(told["cut"], None if whole is None else whole.encode(), told["lost"])


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A stream that another process began: where it comes from, who writes it, what its key stands for."""

    origin: Origin
    worker: str
    value: str = ""
    next: int = 0
    end: End | None = None
    status: int = 200
    lines: bytes | None = None

    @property
    def fingerprint(self) -> str:
        """The request that its key stands for."""
        return self.value.partition(" ")[2]


def read_fields(name: str, fields: Mapping[str, bytes]) -> Elsewhere | None:
    """Return a stream as the store has it; None where it has none that can be read here."""
    if "next" not in fields:
        return None
    text = {key: value.decode("utf-8", "replace") for key, value in fields.items()}
    try:
        origin = Origin(
            name,
            text["endpoint"],
            text["owner"],
            text["format"],
            text["run"],
            Resume(float(text["keep"]), int(text["chunks"]), int(text["size"])),
            text["cancels"] == "1",
            int(text["buffer"]),
            read_terms(text["terms"]),
        )
        end = fields.get("end")
        return Elsewhere(
            origin,
            text["worker"],
            text["key"],
            int(text["next"]),
            None if end is None else read_end(end),
            int(text.get("status", "200")),
            fields.get("lines"),
        )
    except (ValueError, KeyError, TypeError):
        return None  # another version wrote it: nobody here knows how it is read, and who may
