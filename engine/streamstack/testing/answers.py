"""What an upstream of a test sends, byte by byte: framing, times, cuts, stalls and resets."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final, Protocol

import orjson
from aiohttp import web

from streamstack.language.cases import Piece, Place, Respond
from streamstack.server import replies
from streamstack.server.headers import BODILESS, status_line
from streamstack.testing.calls import Call
from streamstack.testing.models import ModelRequest, encode

#: The end of an event: one blank line or more.
_BLANK: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2,}")
_LINE: Final = re.compile(rb"\r\n|\n|\r(?!\n)")
#: The first byte of a character that has several.
_LEAD: Final = re.compile(rb"[\xc2-\xf4]")
#: What a body that is sent without a Content-Type begins with, if it consists of events.
_SSE: Final = re.compile(rb"(?:data|event|id|retry|):")
#: The beginning of a JSON text that has no end.
INVALID: Final = b'{"broken'


class AnswerError(Exception):
    """An answer that can't be sent as the author wrote it."""


class Sender(Protocol):
    """Answers one call. ``events`` and ``chunks`` are how many the whole answer has."""

    @property
    def events(self) -> int: ...

    @property
    def chunks(self) -> int: ...

    async def send(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Send the answer, and record in the call how far that got.

        Raises ConnectionError, or is cancelled, where the other side closes before the end.
        """


@dataclass(frozen=True, slots=True)
class Fault:
    """What a sweep changes in one answer.

    Args:
        respond: Replaces the answer.
        refuse: The connection is refused.
        cut_after: Where the connection ends, with ``reset`` by RST.
        end_after: Where the answer ends in good order, with less than it should have.
        stall_after: Where nothing more comes.
        invalid_after: How many events are followed by one that can't be read.
    """

    respond: Respond | None = None
    refuse: bool = False
    cut_after: Place | None = None
    end_after: Place | None = None
    stall_after: Place | None = None
    reset: bool = False
    invalid_after: int | None = None

    def change(self, respond: Respond) -> Respond:
        """Return the answer as it is sent."""
        if self.respond is not None:
            return self.respond
        if self.refuse:
            return replace(respond, refuse=True)
        if self.invalid_after is not None:
            return replace(respond, invalid_after=self.invalid_after)
        if self.end_after is not None:
            return replace(respond, end_after=self.end_after)
        if self.cut_after is None and self.stall_after is None:
            return respond
        return replace(respond, cut_after=self.cut_after, stall_after=self.stall_after, reset=self.reset)


class Body:
    """The body of an answer: its pieces, and where its events, pieces and characters end."""

    def __init__(self, pieces: tuple[Piece, ...], content_type: str) -> None:
        self.pieces = pieces
        self.data = b"".join(piece.data for piece in pieces)
        self.content_type = content_type
        self.event_ends = _event_ends(self.data, content_type)

    def split(self, delay: float) -> Body:
        """Return the same body sent event by event."""
        starts = [0, *self.event_ends]
        pieces = [Piece(self.data[start:end], delay) for start, end in zip(starts, self.event_ends, strict=False)]
        if pieces:
            pieces[0] = replace(pieces[0], after=0.0)
        return Body(tuple(pieces), self.content_type)

    def offset(self, place: Place) -> int:
        """Return the byte that a place is at.

        Raises AnswerError where the body has no such place.
        """
        start = self._end_of(place)
        if place.inside == "event":
            after = bisect_right(self.event_ends, start)
            if after == len(self.event_ends) or self.event_ends[after] - start < 2:
                raise AnswerError(f"no event begins after {place.count} {place.unit} of the answer: lower the number")
            return start + (self.event_ends[after] - start) // 2
        if place.inside == "character":
            lead = _LEAD.search(self.data, start)
            if lead is None:
                raise AnswerError(
                    f"no character of several bytes comes after {place.count} {place.unit} of the answer: "
                    "put one such as `é` into it"
                )
            return lead.start() + 1
        return start

    def _end_of(self, place: Place) -> int:
        """Return where so many events, pieces, bytes or characters end."""
        if place.count <= 0:
            return 0
        ends: Sequence[int] = range(1, len(self.data) + 1)
        if place.unit == "events":
            ends = self.event_ends
        elif place.unit == "chunks":
            ends = list(accumulate(len(piece.data) for piece in self.pieces))
        elif place.unit == "characters":
            ends = list(accumulate(len(each.encode(errors="surrogateescape")) for each in self._text))
        if place.count > len(ends):
            raise AnswerError(f"the answer has {len(ends)} {place.unit}, and {place.count} were asked for")
        return ends[place.count - 1]

    @property
    def _text(self) -> str:
        return self.data.decode(errors="surrogateescape")

    def insert(self, events: int, data: bytes) -> Body:
        """Return the body with more data after some events."""
        at = self.event_ends[events - 1] if events else 0
        pieces, passed = [], 0
        for piece in self.pieces:
            if passed <= at < passed + len(piece.data):
                pieces.append(replace(piece, data=piece.data[: at - passed] + data))
                pieces.append(Piece(piece.data[at - passed :]))
            else:
                pieces.append(piece)
            passed += len(piece.data)
        if at >= passed:
            pieces.append(Piece(data))
        return Body(tuple(pieces), self.content_type)

    def until(self, end: int) -> tuple[Piece, ...]:
        """Return the pieces up to a byte."""
        pieces, passed = [], 0
        for piece in self.pieces:
            if passed >= end:
                break
            pieces.append(replace(piece, data=piece.data[: end - passed]))
            passed += len(piece.data)
        return tuple(pieces)


def _event_ends(data: bytes, content_type: str) -> list[int]:
    """Return where the events of a body end, or its lines; a JSON document is one event."""
    if content_type.startswith("application/json"):
        return [len(data)] if data else []
    pattern = _BLANK if content_type.startswith("text/event-stream") else _LINE
    ends = [found.end() for found in pattern.finditer(data)]
    return [*ends, len(data)] if data and (not ends or ends[-1] < len(data)) else ends


def _sniffed(data: bytes) -> str:
    """Return the Content-Type of a body whose author wrote none."""
    if _SSE.match(data):
        return "text/event-stream; charset=utf-8"
    for content_type, documents in (("application/json", [data]), ("application/x-ndjson", data.splitlines())):
        try:
            if all(type(orjson.loads(each)) in (dict, list) for each in documents if each.strip()):
                return content_type
        except orjson.JSONDecodeError:
            continue
    return "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """An answer as it is sent.

    ``ending`` is how it ends: in good order, by closing the connection, by a reset, or never. ``events`` and ``chunks``
    are how many the whole answer has.
    """

    head: bytes
    pieces: tuple[Piece, ...]
    first_after: float
    chunked: bool
    keep: bool
    ending: str = "end"
    events: int = 0
    chunks: int = 0

    async def send(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Send it. See `Sender.send`."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the other side has closed")
        # What is written has left when `drain` returns.
        transport.set_write_buffer_limits(high=1, low=0)
        drain: Callable[[], Awaitable[None]] = request.writer.drain
        await _sleep(self.first_after)
        last = _LAST_CHUNK if self.ending == "end" and self.chunked else b""
        held = self.head
        for number, piece in enumerate(self.pieces or (Piece(b""),), 1):
            if number > 1 or piece.after:
                await _write(transport, held, drain)
                held = b""
                await _sleep(piece.after)
            held += self._framed(piece.data) + (last if number >= len(self.pieces) else b"")
            await _write(transport, held, drain)
            held = b""
            call.sent = min(number, len(self.pieces))
        loop = asyncio.get_running_loop()
        if self.ending == "stall":
            await loop.create_future()
        call.ended = loop.time()
        if self.ending != "end":
            disconnect(transport, reset=self.ending == "reset")
        return Written(keep=self.keep and self.ending == "end")

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked and data else data


_LAST_CHUNK: Final = b"0\r\n\r\n"


async def _sleep(seconds: float) -> None:
    """Wait; without a time, let others run, so that pieces arrive one by one."""
    await asyncio.sleep(max(seconds, 0))


async def _write(transport: asyncio.WriteTransport, data: bytes, drain: Callable[[], Awaitable[None]]) -> None:
    if data:
        transport.write(data)
        await drain()


def disconnect(transport: asyncio.WriteTransport, *, reset: bool) -> None:
    """Close a connection, with ``reset`` by RST."""
    if reset:
        replies.reset(transport)
    else:
        transport.close()


class Written(web.StreamResponse):
    """The response that aiohttp gets of an answer that was written already."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self._keep = keep

    @property
    def keep_alive(self) -> bool:
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do nothing: all is sent."""

    async def write_eof(self, data: bytes | bytearray | memoryview = b"") -> None:
        """Do nothing: all is sent."""


def ending_of(respond: Respond) -> tuple[Place | None, str]:
    """Return where an answer stops before its end, None if it does not, and its ``ending``."""
    if respond.end_after is not None:
        return respond.end_after, "end"
    if respond.cut_after is None and respond.stall_after is not None:
        return respond.stall_after, "stall"
    if respond.reset:
        return respond.cut_after, "reset"
    return respond.cut_after, "end" if respond.cut_after is None else "close"


def make_answer(respond: Respond, request: ModelRequest, method: str) -> UpstreamAnswer:
    """Return what is sent for an answer.

    Raises AnswerError for one that can't be sent as it is written.
    """
    headers = list(respond.headers)
    names = {name.lower() for name, _ in headers}
    body, whole = _body(respond, request, _value(headers, "content-type"))
    if respond.invalid_after is not None:
        body = body.insert(respond.invalid_after, _invalid_event(body.content_type))
    empty = method == "HEAD" or respond.status in BODILESS or respond.status < 200
    if "content-type" not in names and body.data:
        headers.insert(0, ("Content-Type", body.content_type))
    chunked = "chunked" in (_value(headers, "transfer-encoding") or "").lower()
    closes = "close" in (_value(headers, "connection") or "").lower()
    if not empty and not chunked and "content-length" not in names and not closes:
        chunked = not whole
        headers.append(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body.data))))
    stop, ending = ending_of(respond)
    pieces = body.pieces if stop is None else body.until(body.offset(stop))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
    return UpstreamAnswer(
        head=status_line(respond.status) + lines.encode("utf-8", "surrogateescape"),
        pieces=() if empty else pieces,
        first_after=respond.first_after,
        chunked=chunked and not empty,
        keep=not closes,
        ending="close" if ending == "end" and closes else ending,
        events=0 if empty else len(body.event_ends),
        chunks=0 if empty else len(body.pieces),
    )


def _body(respond: Respond, request: ModelRequest, content_type: str | None) -> tuple[Body, bool]:
    """Return the body of an answer, and whether it is sent at once, with its length."""
    if respond.messages is not None:
        raise AnswerError("`messages` answer a WebSocket, and this is an HTTP request: write `body` or `chunks`")
    if respond.model is not None:
        encoded = encode(respond.model, request)
        if encoded is None:
            raise AnswerError(
                f"`model` answers requests in the protocol of a provider, and {request.url} is in none: "
                "write `body` or `chunks`"
            )
        return Body(encoded.pieces, content_type or encoded.content_type), encoded.whole
    if respond.pieces is not None:
        data = b"".join(piece.data for piece in respond.pieces)
        return Body(respond.pieces, content_type or _sniffed(data)), False
    data = respond.body or b""
    body = Body((Piece(data),) if data else (), content_type or _sniffed(data))
    if respond.delay:
        return body.split(respond.delay), False
    return body, not body.content_type.startswith("text/event-stream")


def _invalid_event(content_type: str) -> bytes:
    """Return an event of a stream that is not JSON, though it begins so."""
    return b"data: %b\n\n" % INVALID if content_type.startswith("text/event-stream") else INVALID + b"\n"


def _value(headers: list[tuple[str, str]], name: str) -> str | None:
    return next((value for each, value in headers if each.lower() == name), None)
