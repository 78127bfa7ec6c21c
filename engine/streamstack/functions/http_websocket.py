"""websocket.stream: the messages that a WebSocket sends."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from streamstack.connections.http import HttpClient, Request, parse_url
from streamstack.errors import RunError
from streamstack.functions.decoding import COUNTS, MAX_EVENT_SIZE, ON_INVALID
from streamstack.functions.http_upstream import (
    HEADERS_PARAMETER,
    LIMITS,
    RECONNECT,
    TRANSIENT_STATUSES,
    StreamTimeouts,
    Upstream,
    make_headers,
    open_http,
)
from streamstack.language.declare import Effects, Example, Parameter, function
from streamstack.language.values import to_json, to_text
from streamstack.runtime.decoders.decoder import OnInvalid, excerpt
from streamstack.runtime.decoders.parsing import NotJsonError, parse_json
from streamstack.runtime.run import Run
from streamstack.runtime.values import Stream
from streamstack.spec import Bound, Constant, Kind

#: Seconds that a peer has to say goodbye: whoever leaves does not wait.
GOODBYE: Final = 0.02
#: Codes that end a stream well (RFC 6455, 7.4.1): it is done, or no reason was given.
_WELL: Final = frozenset({1000, 1005})
_TOO_BIG: Final = 1009


@function(
    "websocket.stream",
    Parameter("url", Bound(Kind.URL), "Where: ws:// or wss://.", required=True, main=True),
    HEADERS_PARAMETER,
    Parameter(
        "send",
        Bound(),
        "What is sent once connected, and again at each reconnection: a text, or any value as JSON; "
        "a list is sent item by item.",
    ),
    Parameter(
        "decode",
        Constant(choices=("auto", "json", "text", "bytes")),
        "What an item is. `auto`: a text message is JSON where it parses, else text, and a binary one bytes.",
        default="auto",
    ),
    ON_INVALID,
    MAX_EVENT_SIZE,
    *LIMITS,
    RECONNECT,
    effects=Effects(gives="stream", properties=COUNTS),
    examples=[
        Example(
            "subscribe and listen",
            "- websocket.stream: {url: wss://api.example.org/feed, send: {subscribe: trades}}\n  as: trades\n"
            "- forEach: {in: << trades >>, do: [{stream: << item.topic ~ item.number >>}]}",
            chunks=("trades1", "trades2"),
        ),
    ],
)
def websocket_stream(  # noqa: PLR0913  (a stream has that many parts)
    run: Run,
    *,
    url: str,
    headers: Mapping[str, Any] | None = None,
    send: Any = None,
    decode: str = "auto",
    on_invalid: OnInvalid = "fail",
    max_event_size: int | None = None,
    first_chunk_timeout: float | None = None,
    idle_timeout: float | None = None,
    timeout: float | None = None,
    reconnect: Mapping[str, Any] | None = None,
) -> Stream:
    """Connect to a WebSocket and give its messages as they come.

    It connects when the stream is first read, and is closed at once when the reading ends, however it ends. The stream
    ends when the server closes with code 1000 or none; any other end is the error `stream-lost`, or with `reconnect` a
    new connection. The errors are those of `http.stream`.
    """
    client = run.context.resource(open_http)
    socket = WebSocketStream(
        run,
        client,
        parse_url(url, web="ws"),
        headers=make_headers(headers),
        messages=[
            _message(each)
            for each in (send if isinstance(send, list) else [send])
            if each is not None
        ],
        decode=decode,
        on_invalid=on_invalid,
        largest=max_event_size or client.settings.max_event_size,
        times=StreamTimeouts.of(client.settings, first_chunk_timeout, idle_timeout, timeout),
        reconnect=reconnect,
    )
    return Stream(socket.batches, {"skipped": lambda: socket.skipped})


def _message(value: Any) -> str | bytes:
    if isinstance(value, (str, bytes)):
        return value
    return to_json(value).decode() if isinstance(value, (list, Mapping)) else to_text(value)


class WebSocketStream(Upstream):
    """A stream of a WebSocket."""

    def __init__(  # noqa: PLR0913  (what a stream is made of)
        self,
        run: Run,
        client: HttpClient,
        url: URL,
        *,
        headers: CIMultiDict[str],
        messages: list[str | bytes],
        decode: str,
        on_invalid: OnInvalid,
        largest: int,
        times: StreamTimeouts,
        reconnect: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(run, url, times, reconnect)
        self.skipped: int | None = None
        self._client = client
        self._url = url
        self._headers = headers
        self._messages = messages
        self._decode = decode
        self._on_invalid = on_invalid
        self._largest = largest
        self._number = 0
        self._connection: aiohttp.ClientWebSocketResponse[bool] | None = None

    async def open(self) -> None:
        try:
            connection = await self._client.connect(
                Request("GET", self._url, self._headers),
                max_msg_size=self._largest,
                timeout=aiohttp.ClientWSTimeout(ws_close=GOODBYE),
                decode_text=False,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise self._refused(error) from error
        self._connection = connection
        self.skipped = self.skipped or 0
        try:
            for message in self._messages:
                if isinstance(message, bytes):
                    await connection.send_bytes(message)
                else:
                    await connection.send_str(message)
        except (aiohttp.ClientError, OSError) as error:
            raise RunError("stream-lost", f"{self.host} broke off") from error

    def _refused(self, error: aiohttp.WSServerHandshakeError) -> RunError:
        status = error.status
        if status == 101:
            return RunError(
                "http-connection", f"{self.host} answered in something that is no WebSocket"
            )
        phrase = next((each.phrase for each in HTTPStatus if each == status), "")
        return RunError(
            "http-status",
            f"{self.host} answered {status} {phrase}".rstrip(),
            details={"status": status},
            final=status not in TRANSIENT_STATUSES,
        )

    async def items(self) -> list[Any]:
        connection = self._connection
        assert connection is not None
        items: list[Any] = []
        while not items:
            message = await connection.receive()
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self._number += 1
                self._take(message, items)
            else:
                self._end(connection, message)
                break
        return items

    def _take(self, message: Any, items: list[Any]) -> None:
        """Decode a message.

        Raises RunError ``invalid-chunk`` where that is what the author asked for.
        """
        data: bytes = message.data
        is_text = message.type is aiohttp.WSMsgType.TEXT
        if self._decode == "bytes" or (self._decode == "auto" and not is_text):
            items.append(data)
            return
        try:
            if self._decode != "text":
                try:
                    items.append(parse_json(data))
                except NotJsonError:
                    if self._decode == "json":
                        raise
                else:
                    return
            items.append(data.decode())
        except ValueError as error:
            self._refuse(items, data, str(error) if self._decode == "json" else "is not UTF-8")

    def _refuse(self, items: list[Any], data: bytes, message: str) -> None:
        if self._on_invalid == "skip":
            self.skipped = (self.skipped or 0) + 1
        elif self._on_invalid == "give":
            text = data.decode("utf-8", "replace")
            items.append({"invalid": {"number": self._number, "text": text, "message": message}})
        else:
            raise RunError(
                "invalid-chunk",
                f"message {self._number} of {self.host} {message}",
                details={"number": self._number, "text": excerpt(data), "message": message},
            )

    def _end(self, connection: aiohttp.ClientWebSocketResponse[bool], last: Any) -> None:
        """Raise a RunError for an end that is none."""
        code = connection.close_code
        if code in _WELL:
            return
        if code == _TOO_BIG and last.type is aiohttp.WSMsgType.ERROR:
            told = f"message {self._number + 1} of {self.host} has more than {self._largest} bytes"
            raise RunError("invalid-chunk", f"{told}, the largest that is read")
        told = "broke off" if code in (None, 1006) else f"closed the connection with code {code}"
        raise RunError("stream-lost", f"{self.host} {told}", details={"code": code})

    def goes_on(self) -> bool:
        return False

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
