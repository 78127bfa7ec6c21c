"""Records the answers of real upstreams, piece by piece with their times."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final

from aiohttp import WSMsgType, web
from multidict import CIMultiDict

from streamstack.connections.http import UpstreamRequest
from streamstack.connections.http_client import HttpClient
from streamstack.errors import RunError
from streamstack.language.cases import Piece, Upstream
from streamstack.language.names import is_framing
from streamstack.language.settings import HttpSettings
from streamstack.testing.answers import Sender, Written, disconnect
from streamstack.testing.calls import Call
from streamstack.testing.upstreams import LocalUpstreams

#: Headers of answers that definitions read; others identify an account, a session or a server.
_HEADERS: Final = re.compile(
    r"content-type|content-language|content-disposition|retry-after(-ms)?|location|link|etag|last-modified|"
    r"x-ratelimit-.*|anthropic-ratelimit-.*",
    re.IGNORECASE,
)
_LARGEST_MESSAGE: Final = 100 * 1024 * 1024


@dataclass(slots=True)
class Recording:
    """The answer of a real upstream to one call.

    Args:
        call: The call.
        status: The status, 101 of a WebSocket.
        headers: Those that definitions read.
        first_after: Seconds until the head came.
        pieces: The body, or the messages of a WebSocket, each with the seconds since the one before.
        whole: The body was sent with its length.
        fault: Why the answer has no end, or did not come.
    """

    call: Call
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    first_after: float = 0.0
    pieces: list[Piece] = field(default_factory=list)
    whole: bool = False
    fault: str = ""


class Recorder(LocalUpstreams):
    """Sends the calls that no upstream of a test answers to the hosts that they name, and records the answers."""

    def __init__(self, upstreams: Sequence[Upstream], settings: HttpSettings, *, dev: bool = False) -> None:
        super().__init__(upstreams)
        self.recordings: list[Recording] = []
        self._client = HttpClient(replace(settings, redirect=None), dev=dev)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        await self._client.aclose()

    def _unanswered(self, call: Call) -> Sender:
        recording = Recording(call)
        self.recordings.append(recording)
        return _Relay(self._client, recording)


@dataclass(slots=True)
class _Relay:
    """Sends a call on, and its answer back."""

    client: HttpClient
    recording: Recording

    @property
    def events(self) -> int:
        return 0

    @property
    def chunks(self) -> int:
        return 0

    async def send(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Send the answer while it is recorded. See `Sender.send`."""
        headers = CIMultiDict((name, value) for name, value in call.headers.items() if not is_framing(name))
        for name in ("Host", "Content-Length"):
            headers.popall(name, None)
        headers["Accept-Encoding"] = "identity"  # a fixture is to be read
        outgoing = UpstreamRequest(call.method, call.url, headers, call.body or None, redirects=0)
        try:
            relay = self._relay_messages if call.url.scheme in ("ws", "wss") else self._relay_body
            response = await relay(request, call, outgoing)
        except RunError as error:
            self.recording.fault = error.message
            if request.transport is not None:
                disconnect(request.transport, reset=False)
            response = Written(keep=False)
        call.ended = asyncio.get_running_loop().time()
        return response

    async def _relay_body(self, request: web.BaseRequest, call: Call, outgoing: UpstreamRequest) -> web.StreamResponse:
        recording, clock = self.recording, _Clock()
        answer = await self.client.send(outgoing)
        try:
            recording.status, recording.first_after = answer.status, clock.lap()
            recording.headers = [(name, value) for name, value in answer.headers.items() if _HEADERS.fullmatch(name)]
            recording.whole = "Content-Length" in answer.headers
            relayed = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if not is_framing(name) and name.lower() not in ("content-length", "content-encoding"):
                    relayed.headers.add(name, value)
            await relayed.prepare(request)
            while data := await answer.read():
                recording.pieces.append(Piece(data, clock.lap()))
                call.sent += 1
                await relayed.write(data)
            await relayed.write_eof()
        finally:
            answer.close()
        return relayed

    async def _relay_messages(
        self, request: web.BaseRequest, call: Call, outgoing: UpstreamRequest
    ) -> web.StreamResponse:
        recording, clock = self.recording, _Clock()
        remote = await self.client.connect(outgoing, _LARGEST_MESSAGE)
        recording.status, recording.first_after = 101, clock.lap()
        local = web.WebSocketResponse(decode_text=False)
        await local.prepare(request)

        async def forward() -> None:
            async for message in local:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    text = message.type is WSMsgType.TEXT
                    call.received.append(message.data.decode() if text else message.data)
                    await remote.send([call.received[-1]])

        forwarding = asyncio.create_task(forward())
        try:
            while (received := await remote.receive()) is not None:
                data, is_text = received
                recording.pieces.append(Piece(data, clock.lap(), binary=not is_text))
                call.sent += 1
                await (local.send_str(data.decode()) if is_text else local.send_bytes(data))
            await local.close()
        finally:
            forwarding.cancel()
            with suppress(asyncio.CancelledError):
                await forwarding
            await remote.close()
        return local


class _Clock:
    """Measures the time between one event and the next."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time()

    def lap(self) -> float:
        """Return the seconds since the last one, to the millisecond."""
        before, self._at = self._at, self._loop.time()
        return round(self._at - before, 3)
