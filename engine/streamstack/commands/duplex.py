"""A connection that sends what is left of a request while its answer is read.

An answer may come before the whole body has gone: a refusal, or what an endpoint makes of the first items of a stream.
Whoever only sends would not see it, and would wait for good for a server that waits for its reader.
"""

from __future__ import annotations

import io
import queue
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

#: Pieces of the body that are read ahead.
_AHEAD: Final = 2


class Feed:
    """A body that is read in a thread of its own: a pipe or a terminal may take its time.

    ``fileno`` can be read when there may be a piece.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._read: queue.Queue[bytes | Exception | None] = queue.Queue(_AHEAD)
        self._ear, self._rope = socket.socketpair()
        self._closed = False
        threading.Thread(target=self._fill, name="body", daemon=True).start()

    def fileno(self) -> int:
        return self._ear.fileno()

    def take(self) -> bytes | None:
        """Return the next piece, None at the end.

        Raises BlockingIOError where it is not there yet, and what reading raises.
        """
        try:
            found = self._read.get_nowait()
        except queue.Empty:
            raise BlockingIOError from None
        self._ear.recv(1)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """Read no more. Who waits for a pipe that is silent waits on; nobody waits for him."""
        self._closed = True
        with suppress(queue.Empty):
            while True:
                self._read.get_nowait()
        self._ear.close()

    def _fill(self) -> None:
        end: Exception | None = None
        try:
            for piece in self._pieces:
                if self._closed:
                    break
                self._put(piece)
        except Exception as error:  # noqa: BLE001  (raised again where the body is sent)
            end = error
        self._put(end)
        self._rope.close()

    def _put(self, piece: bytes | Exception | None) -> None:
        self._read.put(piece)
        with suppress(OSError):
            self._rope.send(b"\0")


class Duplex(io.RawIOBase):
    """The answer's side of a connection, to be read; meanwhile the pieces of a body are sent.

    ``timeout``: the seconds without any progress, but for those in which the body is waited for. ``ended``: the other
    side has sent all that it will. Raises TimeoutError, OSError, and what reading the body raises.
    """

    def __init__(
        self, connection: socket.socket, pieces: Iterator[bytes] | None, timeout: float | None
    ) -> None:
        super().__init__()
        self._socket = connection
        self._timeout = timeout
        self._feed = None if pieces is None else Feed(pieces)
        self._left = memoryview(b"")
        self.ended = False
        connection.setblocking(False)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return itself as a file, as http.client asks a socket for it."""
        return io.BufferedReader(self, 64 * 1024)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io.BufferedReader gives one
        while True:
            went = self._send()
            wanted = selectors.EVENT_READ
            try:
                count = self._socket.recv_into(buffer)
                self.ended = not count
                return count
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            except ssl.SSLWantWriteError:
                wanted |= selectors.EVENT_WRITE
            if not went:
                self._wait(wanted)

    def _send(self) -> bool:
        """Send some of the body; return whether that went."""
        if self._feed is None:
            return False
        try:
            if not self._left:
                piece = self._feed.take()
                if piece is None:
                    self._stop()
                    return True
                self._left = memoryview(piece)
            self._left = self._left[self._socket.send(self._left) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return False
        except (ConnectionError, ssl.SSLEOFError):
            # Whoever does not want to read it all may have said why. TLS has a word of its own for who is gone.
            self._stop()
        return True

    def _wait(self, wanted: int) -> None:
        """Wait until there is something to read, to send, or to be sent."""
        timeout = self._timeout
        with selectors.DefaultSelector() as selector:
            if self._left:
                wanted |= selectors.EVENT_WRITE
            elif self._feed is not None:
                selector.register(self._feed, selectors.EVENT_READ)
                timeout = None
            selector.register(self._socket, wanted)
            if not selector.select(timeout):
                raise TimeoutError

    def _stop(self) -> None:
        """Send no more."""
        if self._feed is not None:
            self._feed.close()
        self._feed = None
        self._left = memoryview(b"")

    def close(self) -> None:
        """Read no more, and send no more; the connection itself is another's."""
        self._stop()
        super().close()
