"""Compressing a stream while it is sent: gzip, each write complete by itself."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

#: How far back it looks for what it has seen (2 to this power, bytes), and the memory of its tables: 18 KB a
#: stream, where zlib's own choice takes 123 KB. It costs little: in a stream what is alike stands close together.
_WINDOW: Final = 11
_MEMORY: Final = 3
_LEVEL: Final = 6
_GZIP: Final = 16  # added to the window: gzip's head and tail (zlib manual, deflateInit2)

#: A longer header is no list of codings; it is read up to here.
_LONGEST: Final = 1000


class Compression:
    """One answer, compressed (RFC 1952). What is not ended is seen to be cut short."""

    __slots__ = ("_work",)

    def __init__(self) -> None:
        self._work = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP + _WINDOW, _MEMORY)

    def __call__(self, data: bytes, *, last: bool) -> bytes:
        """Return data compressed, as far as a reader needs it to have all of it; with ``last``, the end."""
        return self._work.compress(data) + self._work.flush(
            zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH
        )


def compresses(accepted: str | None, headers: Iterable[tuple[str, str]]) -> bool:
    """Tell whether an answer with these headers is compressed for a reader who takes these codings."""
    if not accepted or not _takes_gzip(accepted[:_LONGEST].lower()):
        return False
    return all(name.lower() != "content-encoding" for name, _ in headers)


@lru_cache(maxsize=256)
def _takes_gzip(accepted: str) -> bool:
    """Read an Accept-Encoding header (RFC 9110, section 12.5.3); a weight that is no number counts as 1."""
    weights: dict[str, float] = {}
    for part in accepted.split(","):
        name, _, parameters = part.partition(";")
        weight = 1.0
        for parameter in parameters.split(";"):
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 1.0
        weights[name.strip()] = weight
    for name in ("gzip", "x-gzip", "*"):
        if name in weights:
            return weights[name] > 0
    return False
