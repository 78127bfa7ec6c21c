"""The client of a test: sends one request over a real socket, and records the answer as it comes.

Times are those of the running loop, in seconds since the request was begun.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from multidict import CIMultiDict
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import CloseCode
from websockets.typing import Subprotocol
from yarl import URL

from streamstack.connections.http_client import UpstreamResponse
from streamstack.errors import RunError
from streamstack.language.cases import CaseClient, CaseRequest, Piece
from streamstack.language.values import MISSING, to_text
from streamstack.testing.responses import MESSAGE, NOTHING, AnswerPart, AnswerReader, parsed, parts_of_message

#: Bytes and chunks of one answer, at most: a stream without end stops here.
LARGEST: Final = 64 * 1024 * 1024
MOST_CHUNKS: Final = 100_000
#: Bytes that a slow client has room for before it reads them.
_SLOW_BUFFER: Final = 4096
#: The properties of a chunk that has more than content (`formats/plain.py`, `shape`).
_SHAPE: Final = frozenset({"content", "metadata", "event", "id"})


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as the client received it. ``text`` is its content as it was sent; ``at`` is in seconds."""

    content: Any
    text: str
    at: float
    event: str | None = None
    id: str | None = None
    metadata: Any = MISSING


@dataclass(slots=True)
class ReceivedAnswer:
    """What one client received.

    Args:
        whole: The answer came to its proper end.
        left: The client closed the connection before.
        acted: The client left or stopped the stream, after the chunks that its test says.
        error: What the client was told: the problem document, or the error in place of the rest.
        done: The data of the end marker; MISSING without one.
        gaps: What the client was told to be missing.
        events: The names of all events in order, `message` for those without one.
        began: When the request was begun, by the clock of the loop.
        ended: When the last of it came, in seconds since then.
        close: The close code of a WebSocket.
        failure: Why there is no answer, or no end of it.
    """

    status: int | None = None
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    format: str = ""
    chunks: list[Chunk] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    done: Any = MISSING
    error: dict[str, Any] | None = None
    gaps: list[Any] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    whole: bool = False
    left: bool = False
    acted: bool = False
    close: int | None = None
    began: float = 0.0
    ended: float = 0.0
    failure: str = ""

    @property
    def run(self) -> str:
        """The id of the run that answered, "" if none did."""
        return str(self.headers.get("X-Run-Id", ""))

    @property
    def text(self) -> str:
        """The contents of all chunks, joined."""
        return "".join(chunk.text for chunk in self.chunks)

    def shown(self) -> dict[str, Any]:
        """Return the answer as the paths of later requests see it."""
        return {
            "status": self.status,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.value(),
            "chunks": [chunk.content for chunk in self.chunks],
            "done": None if self.done is MISSING else self.done,
        }

    def value(self) -> Any:
        """Return the body: the value of a JSON document, else its text."""
        text = self.body.decode("utf-8", "replace")
        value = parsed(text) if self.format == "json" else NOTHING
        return text if value is NOTHING else value


async def send(
    address: str,
    request: CaseRequest,
    client: CaseClient,
    credentials: Mapping[str, str],
    dialect: str = "",
    *,
    client_timeout: float | None = None,
    answer: ReceivedAnswer | None = None,
) -> ReceivedAnswer:
    """Send a request and read the answer as the client of the test does.

    Args:
        address: The URL of the server.
        request: The request.
        client: How the client behaves.
        credentials: Further headers.
        dialect: The format of the endpoint, which may be a model provider's protocol.
        client_timeout: Seconds after which the client leaves in any case.
        answer: What the answer is recorded in while it comes. Default: a new one.
    """
    conversation = _Conversation(address, request, client, credentials, dialect)
    if answer is not None:
        answer.began, conversation.answer = conversation.answer.began, answer
    if client.leave_after == 0:
        await conversation.leave_at_once()
    else:
        try:
            async with asyncio.timeout(client_timeout):
                await conversation.run()
        except TimeoutError:
            conversation.leave()
    return conversation.answer


class _Conversation:
    def __init__(
        self, address: str, request: CaseRequest, client: CaseClient, credentials: Mapping[str, str], dialect: str
    ) -> None:
        self._text_of = _TEXTS.get(dialect)
        self.answer = ReceivedAnswer()
        self._url = URL(address + _target(request), encoded=True)
        self._request = request
        self._client = client
        self._headers = CIMultiDict([*request.headers, *credentials.items()])
        self._headers.setdefault("Accept-Encoding", "identity")
        self._loop = asyncio.get_running_loop()
        self._began = self.answer.began = self._loop.time()
        self._last_id = ""

    @property
    def _now(self) -> float:
        return self._loop.time() - self._began

    async def run(self) -> None:
        slow = self._client.read_delay > 0
        connector = aiohttp.TCPConnector(socket_factory=_slow_socket if slow else None)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_SLOW_BUFFER // 2 if slow else 1 << 16,
        ) as session:
            await self._send(session, self._client.resume_after)
            if self.answer.left and self._client.resume_after is not None:
                self.answer.left = False
                await asyncio.sleep(self._client.resume_delay)
                self._headers["Last-Event-ID"] = self._last_id
                await self._send(session, None)
            if self._client.rating is not None:
                await self._rate(session, self._client.rating)

    async def _rate(self, session: aiohttp.ClientSession, rating: Mapping[str, Any]) -> None:
        """Rate the run, as a client does with `POST /_runs/{run}/rating`."""
        headers = {name: value for name, value in self._headers.items() if name.lower() != "content-type"}
        url = self._url.origin() / "_runs" / (self.answer.run or "none") / "rating"
        async with session.post(url, headers=headers, json=rating) as response:
            if response.status >= 400:
                self.answer.failure = f"the client could not rate the run: {await response.text()}"

    def leave(self) -> None:
        """Record that the client has left."""
        self.answer.left, self.answer.ended = True, self._now

    async def leave_at_once(self) -> None:
        """Send the whole request, and close the connection."""
        host, port = self._url.host, self._url.port
        _, writer = await asyncio.open_connection(host, port)
        self._headers.setdefault("Host", f"{host}:{port}")
        body = self._request.body or b"".join(piece.data for piece in self._request.pieces or ())
        if body:
            self._headers["Content-Length"] = str(len(body))
        lines = [f"{self._request.method} {self._url.raw_path_qs} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        self.answer.left = True

    async def _send(self, session: aiohttp.ClientSession, leave_after: int | None) -> None:
        answer = self.answer
        if self._request.messages is not None:
            await self._converse(session, self._client.leave_after if leave_after is None else leave_after)
            return
        try:
            response = await session.request(
                self._request.method,
                self._url,
                headers=self._headers,
                data=self._request.body if self._request.pieces is None else self._pieces(),
                allow_redirects=False,
                skip_auto_headers=("Content-Type", "User-Agent"),
            )
        except (aiohttp.ClientError, OSError) as error:
            answer.failure = f"the server closed the connection without an answer: {str(error) or type(error).__name__}"
            answer.ended = self._now
            return
        try:
            answer.status = response.status
            answer.headers = CIMultiDict(response.headers)
            await self._read(session, response, self._client.leave_after if leave_after is None else leave_after)
        finally:
            response.close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        for piece in self._request.pieces or ():
            await asyncio.sleep(piece.after)
            yield piece.data

    async def _read(self, session: aiohttp.ClientSession, raw: aiohttp.ClientResponse, leave_after: int | None) -> None:
        """Read an answer; stop, and close the connection, after some chunks."""
        answer = self.answer
        response = UpstreamResponse(raw, "the server")
        reader = AnswerReader(raw.headers.get("Content-Type", ""))
        answer.format = reader.format
        leave = None if leave_after is None else len(answer.chunks) + leave_after
        while True:
            try:
                piece = await response.read()
            except RunError:
                answer.failure = "the connection was closed before the end of the answer"
                break
            answer.body += piece
            parts = reader.feed(piece) if piece else reader.close()
            if response.status >= 400:
                parts = []
            for part in parts:
                self._add(part)
                if leave is not None and len(answer.chunks) >= leave:
                    answer.left = answer.acted = True
                    return
                stops = self._client.stop_after == len(answer.chunks) and part.kind == "chunk"
                if stops and not await self._stop(session):
                    return
            if not piece:
                answer.whole = True
                break
            if len(answer.body) > LARGEST or len(answer.chunks) > MOST_CHUNKS:
                answer.failure = "the answer has no end in sight: let the client leave with `client: {leaveAfter: ...}`"
                return
            if self._client.read_delay:
                await asyncio.sleep(self._client.read_delay)
        answer.ended = self._now
        if response.status >= 400:
            answer.error = _problem(answer)

    # ------------------------------------------------------------- over a WebSocket

    async def _converse(self, session: aiohttp.ClientSession, leave_after: int | None) -> None:
        """Open a WebSocket, send the messages, and read those of the server until it closes."""
        answer, slow = self.answer, self._client.read_delay > 0
        offered = ",".join(self._headers.getall("Sec-WebSocket-Protocol", [])).split(",")
        left_out = ("accept-encoding", "sec-websocket-protocol")
        headers = [each for each in self._headers.items() if each[0].lower() not in left_out]
        try:
            connection = await connect(
                str(self._url.with_scheme("ws")),
                additional_headers=headers,
                subprotocols=[Subprotocol(each.strip()) for each in offered if each.strip()] or None,
                user_agent_header=None,
                compression=None,
                proxy=None,
                max_size=LARGEST,
                max_queue=1 if slow else 16,
                open_timeout=None,
                ping_interval=None,
                sock=await _connected(self._url, slow=slow),
            )
        except InvalidStatus as refused:
            response = refused.response
            answer.status, answer.headers = response.status_code, CIMultiDict(response.headers.raw_items())
            answer.body += response.body or b""
            answer.whole, answer.ended = True, self._now
            answer.error = _problem(answer)
            return
        except (InvalidHandshake, OSError) as error:
            answer.failure = f"the server opened no WebSocket: {error}"
            return
        assert connection.response is not None
        answer.status, answer.format = connection.response.status_code, "websocket"
        answer.headers = CIMultiDict(connection.response.headers.raw_items())
        # A client that comes back has sent them.
        sending = asyncio.create_task(self._send_messages(connection, () if self._last_id else self._request.messages))
        try:
            await self._receive(connection, session, leave_after)
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await sending
            await connection.close()

    async def _send_messages(self, connection: ClientConnection, messages: Sequence[Piece] | None) -> None:
        for piece in messages or ():
            await asyncio.sleep(piece.after)
            await connection.send(piece.data, text=not piece.binary)
        if self._client.close_after is not None:
            await asyncio.sleep(self._client.close_after)
            self.answer.left = True
            await connection.close()

    async def _receive(
        self, connection: ClientConnection, session: aiohttp.ClientSession, leave_after: int | None
    ) -> None:
        answer = self.answer
        leave = None if leave_after is None else len(answer.chunks) + leave_after
        try:
            while True:
                text = (await connection.recv(decode=False)).decode("utf-8", "replace")
                answer.body += text.encode() + b"\n"
                for part in parts_of_message(text):
                    self._add(part)
                    if leave is not None and len(answer.chunks) >= leave:
                        answer.left = answer.acted = True
                        await connection.close(CloseCode.GOING_AWAY)
                        return
                    stops = self._client.stop_after == len(answer.chunks) and part.kind == "chunk"
                    if stops and not await self._stop(session):
                        return
                if len(answer.body) > LARGEST or len(answer.chunks) > MOST_CHUNKS:
                    answer.failure = "the answer has no end in sight: let the client leave with `client: {leaveAfter}`"
                    return
                if self._client.read_delay:
                    await asyncio.sleep(self._client.read_delay)
        except ConnectionClosed as closed:
            answer.ended = self._now
            if closed.rcvd is None:
                answer.failure = "the connection was closed before the end of the answer"
            else:
                answer.close, answer.whole = closed.rcvd.code, True

    async def _stop(self, session: aiohttp.ClientSession) -> bool:
        """Stop the stream, as a client does with `DELETE /_streams/{id}`; return whether it could be stopped."""
        stream = self.answer.headers.get("X-Stream-Id")
        self.answer.acted = True
        if stream is None:
            self.answer.failure = "the client can't stop this stream: its endpoint needs `streaming: {resume: ...}`"
            return False
        headers = {name: value for name, value in self._headers.items() if name.lower() != "content-type"}
        async with session.delete(self._url.origin() / "_streams" / stream, headers=headers) as response:
            if response.status >= 400:
                self.answer.failure = f"the client could not stop the stream: {await response.text()}"
        return not self.answer.failure

    def _add(self, part: AnswerPart) -> None:
        answer = self.answer
        answer.ended = self._now
        self._last_id = part.id or self._last_id
        answer.events.append(part.event or ("message" if part.kind == "chunk" else part.kind))
        if part.kind == "error":
            answer.error = _in_band(part)
        elif part.kind == "done":
            value = parsed(part.text)
            answer.done = part.text if value is NOTHING else value
        elif (gap := _gap(part)) is not None:
            answer.events[-1] = "gap"
            answer.gaps.append(gap)
        else:
            chunk = _chunk(part, self._now)
            if self._text_of is not None:
                chunk = replace(chunk, text=self._text_of(chunk.content))
            self._last_id = chunk.id or self._last_id
            answer.events[-1] = chunk.event or "message"
            answer.chunks.append(chunk)


def _target(request: CaseRequest) -> str:
    """Return path and query."""
    fields = [
        (name, to_text(item))
        for name, value in request.query.items()
        for item in (value if isinstance(value, (list, tuple)) else (value,))
    ]
    path = URL(request.path).raw_path_qs
    return path + (("&" if "?" in path else "?") + urlencode(fields) if fields else "")


async def _connected(url: URL, *, slow: bool) -> socket.socket:
    """Return a socket that is connected to the server."""
    made = socket.socket()
    made.setblocking(False)
    if slow:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
    await asyncio.get_running_loop().sock_connect(made, (url.host, url.port))
    return made


def _slow_socket(address: Any) -> socket.socket:
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
    return made


def _chunk(part: AnswerPart, at: float) -> Chunk:
    value = parsed(part.text)
    if part.event == MESSAGE:
        value = {"metadata": MISSING, **value}
        return Chunk(
            value["content"], to_text(value["content"]), at, value.get("event"), value.get("id"), value["metadata"]
        )
    if not part.json and not isinstance(value, (dict, list)):
        value = part.text  # outside of JSON, text and numbers are the same
    chunk = Chunk(value, part.text, at, part.event or None, part.id or None)
    if not isinstance(value, dict) or "content" not in value or len(value) < 2 or not value.keys() <= _SHAPE:
        return chunk if not (part.json and isinstance(value, str)) else replace(chunk, content=value, text=value)
    if not part.json and value.keys() != {"content", "metadata"}:
        return chunk
    content = value["content"]
    return Chunk(
        content,
        to_text(content),
        at,
        value.get("event", chunk.event),
        value.get("id", chunk.id),
        value.get("metadata", MISSING),
    )


def _openai_text(event: Any) -> str:
    choices = event.get("choices") if isinstance(event, dict) else None
    return "".join(each.get("delta", {}).get("content") or "" for each in choices or ())


def _anthropic_text(event: Any) -> str:
    delta = event.get("delta") if isinstance(event, dict) else None
    return str(delta.get("text") or "") if isinstance(delta, dict) else ""


def _ai_sdk_text(event: Any) -> str:
    return str(event.get("delta", "")) if isinstance(event, dict) and event.get("type") == "text-delta" else ""


#: What the text of an event is, by the protocol of a model's provider.
_TEXTS: Final = {"openai": _openai_text, "anthropic": _anthropic_text, "aiSdk": _ai_sdk_text}


def _gap(part: AnswerPart) -> Any:
    """Return what a chunk says of missing ones; None for an ordinary chunk."""
    value = parsed(part.text)
    if not isinstance(value, dict):
        return None
    if part.json and "gap" in value and value.keys() <= {"gap", "id"}:
        return value["gap"]
    return value if part.event == "gap" and value.keys() in ({"dropped"}, {"from", "to"}) else None


def _in_band(part: AnswerPart) -> dict[str, Any]:
    """Return the error of a stream: `code` and `message`, whatever the dialect calls them."""
    value = parsed(part.text)
    if not isinstance(value, dict):
        return {"message": part.text}
    inner = value.get("error")
    if isinstance(inner, dict):
        return inner
    return value | {"message": value["errorText"]} if "errorText" in value else value


def _problem(answer: ReceivedAnswer) -> dict[str, Any]:
    """Return an error answer: its JSON, with `status` and `message`."""
    value = parsed(answer.body.decode("utf-8", "replace"))
    if not isinstance(value, dict):
        return {"status": answer.status, "message": answer.body.decode("utf-8", "replace")}
    inner = value.get("error")
    fields = inner if isinstance(inner, dict) else value
    return {**fields, "status": answer.status, "message": fields.get("detail", fields.get("message"))}


def pieces_of(answer: ReceivedAnswer, sizes: list[int]) -> list[Chunk]:
    """Cut the text of an answer without chunks of its own (text, bytes) at the sizes of those that are expected.

    Pieces that leave at the same time arrive together, so their borders can't be seen; each is as late as the last
    of its characters, and the last one holds the rest.
    """
    arrived = []
    end = 0
    for chunk in answer.chunks:
        end += len(chunk.text)
        arrived.append((end, chunk.at))
    text = answer.text
    cuts = [0]
    for size in sizes:
        cuts.append(min(cuts[-1] + size, len(text)))
    if len(cuts) > 1:
        cuts[-1] = len(text)
    found = []
    for begin, until in pairwise(cuts):
        if begin < until:
            at = next(when for reached, when in arrived if reached >= until)
            found.append(Chunk(text[begin:until], text[begin:until], at))
    return found
