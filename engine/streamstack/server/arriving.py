"""A request's body as a stream: read while the request is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from streamstack.errors import RunError
from streamstack.language.definition import Input
from streamstack.runtime.decoders.decoder import OnInvalid
from streamstack.runtime.decoders.formats import (
    Options,
    decoded,
    decoder_for,
    format_of,
    read_content_type,
)
from streamstack.runtime.input_faults import invalid
from streamstack.runtime.sources import CLIENTS_FAULT
from streamstack.runtime.values import About, Batches, Stream
from streamstack.server.bodies import too_long
from streamstack.server.content_decoding import CodingError

if TYPE_CHECKING:
    from streamstack.server.request import Request
    from streamstack.server.writers.answer import Answer


class Arriving:
    """The body of one request, to be read once. ``most`` and ``largest`` (record) are bytes.

    Nothing is read before the run asks for it, so a slow run holds its client back. ``lost`` tells that the body broke
    off: what had come is given, then the error `stream-lost`.
    """

    __slots__ = (
        "_answer",
        "_content",
        "_failed",
        "_most",
        "_request",
        "read",
        "size",
        "stream",
    )

    def __init__(self, request: Request, declared: Input, *, most: int, largest: int) -> None:
        self._request = request
        self._content = request.content
        self._most = most
        self._answer: Answer | None = None
        self._failed = False
        self.read = 0
        coding = request.headers.get("Content-Encoding", "").strip().lower()
        # The length is that of the body as it was sent.
        self.size = request.content_length if coding in ("", "identity") else None
        self.stream = self._stream(declared, largest)

    def _stream(self, declared: Input, largest: int) -> Stream:
        """Return the items of the body. Raises RunError ``invalid-input`` (415) for what can't be a stream."""
        header = self._request.headers.get("Content-Type", "")
        media, charset = read_content_type(header)
        if media.startswith("multipart/"):
            raise _unsupported("must be sent as the body itself, not in a form")
        name = declared.decode or format_of(media)
        options = Options(
            on_invalid=cast("OnInvalid", declared.on_invalid),
            largest=largest,
            charset=charset,
            status=CLIENTS_FAULT,
        )
        try:
            decoder = decoder_for(name, options)
        except RunError as error:
            raise _unsupported(error.message) from None
        return Stream(
            lambda: decoded(self._pieces(), decoder),
            {
                "skipped": lambda: decoder.skipped,
                "bytes": lambda: self.read,
                "size": lambda: self.size,
            },
            About(self.size, header if name == "bytes" else "", CLIENTS_FAULT),
        )

    def begin(self, answer: Answer) -> None:
        """Let the body arrive: from now on the client may send it, and is heard."""
        self._answer = answer

    @property
    def lost(self) -> bool:
        """Whether the body broke off."""
        return self._failed or self._request.broke_off

    def end(self) -> None:
        """Take no more notice of the body."""
        self._request.ignore_body()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """Give the bytes as they come.

        Raises RunError ``stream-lost`` where they break off, ``invalid-input`` (413) for more than there may be.
        """
        answer = self._answer
        assert answer is not None
        now = asyncio.get_running_loop().time
        content = self._content
        try:
            while True:
                try:
                    answer.waits_since = now()
                    data = await content.readany()
                except (web.RequestPayloadError, ConnectionError, RuntimeError) as error:
                    if isinstance(error, CodingError) and not self.lost:
                        self._failed = True
                        told = "can't be read: its Content-Encoding is malformed"
                        raise invalid([{"in": "body", "name": "", "message": told}]) from error
                    self._failed = True
                    raise _lost() from error
                finally:
                    answer.waits_since = 0.0
                if not data:
                    if self.lost:
                        raise _lost()
                    return
                answer.heard_at = now()
                self.read += len(data)
                if self.read > self._most:
                    raise too_long(self._most)
                yield data
        finally:
            self.end()


def nothing() -> Stream:
    """Return the stream that a request without a body is: one without items."""

    async def batches() -> Batches:
        none: list[list[Any]] = []
        for items in none:
            yield items

    return Stream(
        batches, {"skipped": lambda: 0, "bytes": lambda: 0, "size": lambda: 0}, About(size=0)
    )


def _lost() -> RunError:
    return RunError("stream-lost", "the request's body broke off", status=CLIENTS_FAULT)


def _unsupported(message: str) -> RunError:
    return invalid([{"in": "body", "name": "", "message": message}], status=415)
