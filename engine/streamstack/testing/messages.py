"""What an upstream of a test sends over a WebSocket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self

from aiohttp import WSMsgType, web

from streamstack.language.cases import Piece, Place, Respond
from streamstack.testing.answers import INVALID, AnswerError, disconnect, ending_of
from streamstack.testing.calls import Call


@dataclass(frozen=True, slots=True)
class MessageAnswer:
    """The messages of a WebSocket, and how it ends: ``ending`` as an `UpstreamAnswer` has it.

    ``partial`` is the beginning of a frame that is never completed.
    """

    messages: tuple[Piece, ...]
    headers: tuple[tuple[str, str], ...]
    first_after: float
    ending: str
    partial: bytes
    events: int

    @property
    def chunks(self) -> int:
        """How many messages the whole answer has."""
        return self.events

    @classmethod
    def of(cls, respond: Respond) -> Self:
        """Return how an answer with ``messages`` is sent.

        Raises AnswerError for one that can't be sent as it is written.
        """
        messages = list(respond.messages or ())
        if respond.invalid_after is not None:
            messages.insert(respond.invalid_after, Piece(INVALID))
        stop, ending = ending_of(respond)
        partial = b""
        whole = len(messages)
        if stop is not None:
            partial = _partial(messages, stop)
            messages = messages[: stop.count]
        return cls(tuple(messages), respond.headers, respond.first_after, ending, partial, whole)

    async def send(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Open the WebSocket, send the messages, and receive those of the other side.

        Raises ConnectionError, or is cancelled, where the other side closes before the end.
        """
        await asyncio.sleep(self.first_after)
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        opened = web.WebSocketResponse(
            protocols=[name.strip() for name in offered.split(",") if name.strip()], decode_text=False
        )
        opened.headers.extend(self.headers)
        await opened.prepare(request)
        sending = asyncio.create_task(self._send(opened, request, call))
        try:
            async for message in opened:
                if message.type is WSMsgType.TEXT:
                    call.received.append(message.data.decode())
                elif message.type is WSMsgType.BINARY:
                    call.received.append(message.data)
            if call.ended is None:
                raise ConnectionResetError("the other side has closed")
            await sending
        finally:
            sending.cancel()
        return opened

    async def _send(self, opened: web.WebSocketResponse[bool], request: web.BaseRequest, call: Call) -> None:
        loop = asyncio.get_running_loop()
        for message in self.messages:
            await asyncio.sleep(message.after)
            if message.binary:
                await opened.send_bytes(message.data)
            else:
                await opened.send_str(message.data.decode())
            call.sent += 1
        transport = request.transport
        if transport is None:
            return
        transport.write(self.partial)
        if self.ending == "stall":
            await loop.create_future()
        call.ended = loop.time()
        if self.ending == "end":
            await opened.close()
        else:
            disconnect(transport, reset=self.ending == "reset")


def _partial(messages: list[Piece], stop: Place) -> bytes:
    """Return the beginning of the frame that a cut lies inside of.

    Raises AnswerError where the answer has too few messages.
    """
    if stop.unit not in ("events", "chunks"):
        raise AnswerError(f"a WebSocket is cut after messages, not after {stop.unit}: write `events`")
    if stop.count > len(messages):
        raise AnswerError(f"the answer has {len(messages)} messages, and {stop.count} were asked for")
    if not stop.inside:
        return b""
    if stop.count == len(messages):
        raise AnswerError(f"no message begins after {stop.count} messages of the answer: lower the number")
    message = messages[stop.count]
    size = len(message.data)
    # RFC 6455, 5.2: the final frame of a text (1) or of bytes (2), with a length of 64 bits.
    head = bytes((0x82 if message.binary else 0x81, 127)) + size.to_bytes(8)
    return head + message.data[: size // 2]
