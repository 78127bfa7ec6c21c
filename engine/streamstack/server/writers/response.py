"""A response in chunks on a connection: head, framing, compression and end, of live and of resumed streams alike."""

from __future__ import annotations

import asyncio
import zlib
from functools import lru_cache
from typing import Final

from streamstack.server.heads import date_line
from streamstack.server.replies import CLOSE, KEEP, Sent, connection_line, reset
from streamstack.server.request import Request

#: How far back it looks for what it has seen (2 to this power, bytes), and the memory of its tables: 18 KB a
#: stream, where zlib's own choice takes 123 KB. It costs little: in a stream what is alike stands close together.
_WINDOW: Final = 11
_MEMORY: Final = 3
_LEVEL: Final = 6
_GZIP: Final = 16  # added to the window: gzip's head and tail (zlib manual, deflateInit2)

#: A longer header is no list of codings; it is read up to here.
_LONGEST: Final = 1000


#: The last chunk of a body (RFC 9112, section 7.1).
_LAST: Final = b"0\r\n\r\n"


class ChunkedResponseWriter:
    """Writes one response of HTTP: in chunks, or until the connection is closed where the client speaks HTTP/1.0.

    The head is sent together with the first data. What has no transport any more is not written.
    """

    __slots__ = (
        "_bare",
        "_chunked",
        "_compression",
        "_head",
        "_keep",
        "_request",
        "_transport",
        "begun",
        "complete",
    )

    def __init__(self, request: Request) -> None:
        self._request = request
        self._transport = request.transport
        self._chunked = request.version >= (1, 1)
        self._bare = request.method == "HEAD"  # no body, whatever is written
        self._compression: Compression | None = None
        self._head = b""  # made, and not sent yet
        self._keep = False
        self.begun = False  # the head is made: the status stands
        self.complete = False  # all of it was written, with a good end

    @property
    def full(self) -> bool:
        """Whether the connection takes no more for now."""
        return self._request.writing_paused

    @property
    def pending(self) -> bool:
        """Whether the head is made, and not sent yet."""
        return bool(self._head)

    def begin(
        self, start: bytes, *, keep: bool, compress: bool, buffer: int, unsent: int, patience: float
    ) -> None:
        """Make the head, and set how much may wait in it for the client.

        Args:
            start: the status line and the header lines, but those of the connection.
            keep: whether the connection is of further use after the response.
            compress: whether the body is compressed for a client that takes it.
            buffer: bytes that may wait for a slow client altogether.
            unsent: those of them that wait in the transport.
            patience: seconds that the client may take nothing.
        """
        request, transport = self._request, self._transport
        framing = b""
        if self._chunked and not self._bare:
            framing = b"Transfer-Encoding: chunked\r\n"
            if (
                compress
                and accepts_gzip(request.headers.get("Accept-Encoding"))
                and b"\r\ncontent-encoding:" not in start.lower()  # the author's own
            ):
                self._compression = Compression()
                framing = b"Content-Encoding: gzip\r\n" + framing
        self._keep = keep and self._chunked and request.keep_alive
        connection = connection_line(request, keep=self._keep)
        self._head = b"".join((start, framing, date_line(), connection, request.extra, b"\r\n"))
        self.begun = True
        if transport is not None and not transport.is_closing():
            transport.set_write_buffer_limits(high=max(unsent, 1))
            self._request.bound_unsent(buffer, patience)

    def write(self, data: bytes, end: bytes = b"") -> None:
        """Write data as one chunk of HTTP (RFC 9112, section 7.1); ``end`` is the last chunk."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        head, self._head = self._head, b""
        if self._compression is not None and (data or end):
            data = self._compression(data, last=bool(end))
        if self._bare:
            data = head
        elif not self._chunked:
            data = head + data
        elif data:
            data = b"%b%x\r\n%b\r\n%b" % (head, len(data), data, end)
        else:
            data = head + end
        if data:
            transport.write(data)

    def finish(self, data: bytes = b"") -> Sent:
        """Write the last data, and end the response well."""
        self.write(data, _LAST)
        self.complete = True
        return KEEP if self._keep else CLOSE

    def cut(self, data: bytes = b"") -> Sent:
        """End the response without its last chunk, so that every client sees it cut short."""
        if data or self._head:
            self.write(data)
        if self._transport is not None and not self._transport.is_closing():
            self.stop()
        return CLOSE

    def stop(self) -> None:
        """Let a response that the server takes no further be seen to be cut short, though its connection is closed."""
        if not self._chunked and not self.complete and self._transport is not None:
            # Such a response ends with its connection: only a reset tells that it failed.
            reset(self._transport)

    def abort(self) -> None:
        """Give the connection up, so that its client sees a failure, in HTTP/1.0 too."""
        if self._transport is not None:
            reset(self._transport)

    async def room(self, patience: float) -> bool:
        """Wait until the connection takes more; False where it took nothing for some seconds, and was given up."""
        if not self.full:
            return True
        try:
            async with asyncio.timeout(patience):
                await self._request.room()
        except TimeoutError:
            self.abort()
            return False
        return True


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


def accepts_gzip(accepted: str | None) -> bool:
    """Tell whether a client with this Accept-Encoding header takes gzip (RFC 9110, section 12.5.3)."""
    return accepted is not None and _takes_gzip(accepted[:_LONGEST].lower())


@lru_cache(maxsize=256)
def _takes_gzip(accepted: str) -> bool:
    """Read an Accept-Encoding header; a weight that is no number counts as 1."""
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
