"""Content-Encoding undone as the bytes come: gzip, deflate, br.

What comes out is handed on in pieces of bounded size, so an answer that is small on the wire and huge in memory fills
nothing: whoever keeps what he is given has a limit of his own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import brotli  # type: ignore[import-untyped]

from streamstack.errors import RunError

#: Bytes of a piece, at most (br: about).
PIECE: Final = 64 * 1024
#: What a request accepts.
ACCEPTED: Final = "gzip, deflate, br"
#: Codings one upon the other; more is nobody's honest answer.
_MOST: Final = 3


class Coding(Protocol):
    """Undoes one coding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give what some bytes decode to, in pieces; they must all be taken before the next are fed.

        Raises RunError ``invalid-chunk`` for bytes that are not in this coding.
        """

    @property
    def complete(self) -> bool:
        """Whether the end of the coding has come."""


def undo(header: str | None) -> list[Coding]:
    """Return what undoes a Content-Encoding, in the order to be used.

    Raises RunError ``invalid-chunk`` for a coding that was not asked for.
    """
    names = [name.strip().lower() for name in (header or "").split(",")]
    names = [name for name in names if name not in ("", "identity")]
    codings: list[Coding] = []
    for name in reversed(names):
        make = _CODINGS.get(name)
        if make is None or len(names) > _MOST:
            raise RunError(
                "invalid-chunk",
                f"the answer is encoded as {', '.join(names)[:60]}, which is not read: "
                f"{ACCEPTED} are",
            )
        codings.append(make())
    return codings


def through(codings: list[Coding], data: bytes) -> Iterator[bytes]:
    """Give what some bytes are once all codings are undone."""
    if not codings:
        yield data
        return
    for piece in codings[0].feed(data):
        yield from through(codings[1:], piece)


class _Zlib:
    """gzip (RFC 1952, several members too) and deflate, with or without zlib's frame (RFC 1950, 1951)."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._inflate = zlib.decompressobj(31) if gzip else None
        self._opening = b""
        self._drained = True  # nothing is held back for want of room
        self.complete = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            self._opening += data
            if len(self._opening) < 2:
                return
            data, self._opening = self._opening, b""
            framed = data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0
            self._inflate = zlib.decompressobj(15 if framed else -15)
        while data or not self._drained:
            if self.complete:
                if not (self._gzip and data[:1] == b"\x1f"):
                    return  # padding after the end
                self._inflate = zlib.decompressobj(31)
                self.complete = False
            try:
                piece = self._inflate.decompress(data, PIECE)
            except zlib.error as error:
                raise _broken("gzip" if self._gzip else "deflate") from error
            self._drained = len(piece) < PIECE
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:
                self.complete = True
                data = self._inflate.unused_data
            if piece:
                yield piece


class _Brotli:
    """br (RFC 7932)."""

    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()

    @property
    def complete(self) -> bool:
        return bool(self._decompressor.is_finished())

    def feed(self, data: bytes) -> Iterator[bytes]:
        process = self._decompressor.process
        try:
            piece = process(data, output_buffer_limit=PIECE)
            # It says that it can take more while it still holds some back: so it is asked until it is empty.
            while piece or not self._decompressor.can_accept_more_data():
                yield piece
                piece = process(b"", output_buffer_limit=PIECE)
        except brotli.error as error:
            raise _broken("br") from error


def _broken(name: str) -> RunError:
    return RunError("invalid-chunk", f"the answer says that it is encoded as {name}, and is not")


_CODINGS: Final[dict[str, Callable[[], Coding]]] = {
    "gzip": lambda: _Zlib(gzip=True),
    "x-gzip": lambda: _Zlib(gzip=True),
    "deflate": lambda: _Zlib(gzip=False),
    "br": _Brotli,
}
