"""Upstream streams over HTTP and WebSocket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from streamstack.connections.http import ACCEPTED, HttpClient, UpstreamRequest, UpstreamResponse, parse_url
from streamstack.errors import RunError
from streamstack.functions.content import COUNTS, CSV, DECODE, MAX_EVENT_SIZE, ON_INVALID, PATH, options_of
from streamstack.functions.http_upstream import (
    HEADERS_PARAMETER,
    LIMITS,
    PARAMETERS,
    RECONNECT,
    TRANSIENT_STATUSES,
    StreamTimeouts,
    Upstream,
    content_error,
    headers_of,
    is_allowed,
    make_headers,
    make_request,
    open_http,
    status_error,
)
from streamstack.language.definition import Effects, Example, Parameter, Property, function
from streamstack.language.values import to_json, to_text
from streamstack.runtime.decoders.decoder import Decoder, NotJsonError, OnInvalid, excerpt, parse_json
from streamstack.runtime.decoders.formats import Options, decoder_for, format_of, read_content_type
from streamstack.runtime.decoders.sse import SseDecoder
from streamstack.runtime.run import Run
from streamstack.runtime.values import Stream
from streamstack.spec import Bound, Constant, Kind

_EVENTS: Final = frozenset({"sse", "sseJson"})
#: Media types that can't be the format that was asked for, and so are an error in disguise.
_CONTRADICTIONS: Final = {
    "sse": frozenset({"text/html", "application/json", "application/problem+json"}),
    "sseJson": frozenset({"text/html", "application/json", "application/problem+json"}),
    "ndjson": frozenset({"text/html", "text/event-stream", "application/problem+json"}),
    "json": frozenset({"text/html", "text/event-stream"}),
    "csv": frozenset({"text/html", "application/json", "text/event-stream"}),
}
_ACCEPT: Final = {
    "auto": "text/event-stream, application/x-ndjson, application/json;q=0.9, */*;q=0.8",
    "sse": "text/event-stream",
    "sseJson": "text/event-stream",
    "ndjson": "application/x-ndjson, application/jsonl, */*;q=0.5",
    "json": "application/json",
    "csv": "text/csv, */*;q=0.5",
    "lines": "text/plain, */*;q=0.5",
    "text": "text/plain, */*;q=0.5",
}


@function(
    "http.stream",
    *PARAMETERS,
    DECODE,
    PATH,
    *CSV,
    ON_INVALID,
    MAX_EVENT_SIZE,
    *LIMITS,
    RECONNECT,
    effects=Effects(
        gives="stream",
        result="stream of ({event: text?, id: text?, data: any, ...} if decode = sse else any)",
        properties=(
            Property("status", "Status of the response; null before it has arrived."),
            Property("headers", "Response headers, by lower-case name."),
            *COUNTS,
        ),
    ),
    examples=[
        Example(
            "read events",
            "- http.stream: https://api.example.org/prices\n  as: prices\n- forEach:\n    in: << prices >>\n"
            "    as: event\n    do:\n      - stream: << event.data.symbol ~ '=' ~ event.data.price >>",
            chunks=("A=1.5", "B=2"),
        ),
        Example(
            "skip and count invalid lines",
            "- http.stream: {url: https://api.example.org/log, decode: ndjson, onInvalid: skip}\n  as: lines\n"
            "- forEach: {in: << lines >>, as: line, do: [{stream: << line.level >>}]}\n- return: << lines.skipped >>",
            result=1,
            chunks=("info", "error"),
        ),
        Example(
            "stream the items of a nested array",
            "- http.stream: {url: https://api.example.org/export, decode: json, path: data.items}\n  as: items\n"
            "- forEach: {in: << items >>, do: [{stream: << item.id >>}]}",
            chunks=(1, 2),
        ),
        Example(
            "reconnect to a live feed",
            "- http.stream:\n    url: https://api.example.org/prices\n    decode: sse\n    idleTimeout: 1m\n"
            "    reconnect: {times: 5, delay: 1s, maxDelay: 30s}\n  retry: {times: 3}\n  as: prices\n"
            "- streams.take: {in: << prices >>, count: 1}\n  as: one\n"
            "- forEach: {in: << one >>, do: [{stream: << item.id >>}]}",
            chunks=("1",),
        ),
    ],
)
def http_stream(  # noqa: PLR0913  (a stream has that many parts)
    run: Run,
    *,
    url: str,
    method: str = "GET",
    headers: Mapping[str, Any] | None = None,
    query: Mapping[str, Any] | None = None,
    json: Any = None,
    form: Mapping[str, Any] | None = None,
    multipart: Mapping[str, Any] | None = None,
    body: Any = None,
    redirects: int = 10,
    allow_status: list[Any] | None = None,
    timeout: float | None = None,
    decode: str = "auto",
    path: Any = None,
    header: bool = True,
    delimiter: str = ",",
    columns: list[Any] | None = None,
    on_invalid: OnInvalid = "fail",
    max_event_size: int | None = None,
    first_chunk_timeout: float | None = None,
    idle_timeout: float | None = None,
    reconnect: Mapping[str, Any] | None = None,
) -> Stream:
    """Send a request and stream the items of the response as they arrive.

    The request is sent when the stream is first read. The connection is closed as soon as reading ends, for any
    reason. An item of `sse` and `sseJson` is {event, id, data}: the event name or null, the last event id or
    null, and the data. With `sse`, data is a value if it is a JSON object or array, otherwise the unchanged
    text; with `sseJson` it is always a value. A record of `csv` is an object of texts.

    Errors: `http-connection` (connection failed), `http-status` (with {status, headers, body} in
    `error.details`), `timeout`, `stream-lost` (the response was truncated), `invalid-chunk` (also a
    Content-Type that contradicts `decode`, and an event larger than `maxEventSize`). `retry` applies up to the
    first item. `reconnect`, for GET only, applies afterwards and sends the last event id as Last-Event-ID. As
    in EventSource, `sse` also reconnects when the response ends normally, unless the upstream responds with
    204; other formats reconnect only after a lost connection.
    """
    client = run.context.resource(open_http)
    settings = client.settings
    if reconnect is not None and method.strip().upper() != "GET":
        raise RunError("template", "`reconnect` is for GET: any other request might do its work twice", final=True)
    options = options_of(
        on_invalid,
        max_event_size or settings.max_event_size,
        path=path,
        header=header,
        delimiter=delimiter,
        columns=columns,
    )
    request = make_request(
        run.context.address.of(url),
        method=method,
        headers=headers,
        query=query,
        json=json,
        form=form,
        multipart=multipart,
        body=body,
        redirects=redirects,
        accept=_ACCEPT.get(decode, "*/*"),
        # Servers that compress tend to hold events back until there is enough to compress.
        encoding="identity" if decode in ("auto", *_EVENTS) else ACCEPTED,
    )
    if decode in _EVENTS:
        request.headers.setdefault("Cache-Control", "no-cache")  # as EventSource asks
    times = StreamTimeouts.of(settings, first_chunk_timeout, idle_timeout, timeout)
    stream = HttpStream(run, client, request, decode, options, allow_status, times, reconnect)
    return Stream(
        stream.batches,
        {"status": lambda: stream.status, "headers": lambda: stream.headers, "skipped": lambda: stream.skipped},
    )


class HttpStream(Upstream):
    """A stream of HTTP."""

    def __init__(
        self,
        run: Run,
        client: HttpClient,
        request: UpstreamRequest,
        decode: str,
        options: Options,
        allowed: list[Any] | None,
        times: StreamTimeouts,
        reconnect: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(run, request.url, times, reconnect)
        self.status: int | None = None
        self.headers: dict[str, Any] | None = None
        self._client = client
        self._request = request
        self._decode = decode
        self._options = options
        self._allowed = allowed
        self._answer: UpstreamResponse | None = None
        self._decoder: Decoder | None = None
        self._skipped = 0  # in the connections before
        self._complete = False

    @property
    def skipped(self) -> int | None:
        """How many chunks were skipped; None before the stream opens."""
        if self._decoder is None:
            return None
        return self._skipped + self._decoder.skipped

    async def open(self) -> None:
        before = self._decoder
        request, options = self._request, self._options
        if isinstance(before, SseDecoder) and before.last_id:
            options = replace(options, last_id=before.last_id)
            request = replace(request, headers=request.headers.copy())
            request.headers["Last-Event-ID"] = before.last_id
        answer = self._answer = await self._client.send(request)
        self.status, self.headers = answer.status, headers_of(answer)
        if not is_allowed(answer.status, self._allowed, 300):
            raise await status_error(answer)
        media, charset = read_content_type(answer.headers.get("Content-Type"))
        name = format_of(media) if self._decode == "auto" else self._decode
        if media in _CONTRADICTIONS.get(name, ()) and answer.status != 204:
            raise await content_error(answer, media, name)
        decoder = decoder_for(name, replace(options, charset=charset))
        self._skipped = self.skipped or 0
        self._decoder = decoder
        self._complete = False

    async def items(self) -> list[Any]:
        answer, decoder, run = self._answer, self._decoder, self.run
        assert answer is not None
        assert decoder is not None
        while True:
            if decoder.failure is not None:
                raise decoder.failure
            if decoder.ended or self._complete:
                return []
            data = await answer.read()
            if data:
                items = decoder.feed(data)
            else:
                self._complete = True
                items = decoder.finish() if answer.status != 204 else []
            if items:
                return items
            if perf_counter() > run.slice_ends:
                await run.yield_to_loop()

    def goes_on(self) -> bool:
        decoder = self._decoder
        return isinstance(decoder, SseDecoder) and not decoder.ended and self.status != 204

    async def close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()
        if isinstance(self._decoder, SseDecoder) and self._decoder.retry is not None:
            self.retry_delay = self._decoder.retry / 1000


#: Seconds that a peer has to say goodbye: whoever leaves does not wait.
GOODBYE: Final = 0.02
#: Codes that end a stream well (RFC 6455, 7.4.1): it is done, or no reason was given.
_WELL: Final = frozenset({1000, 1005})
_TOO_BIG: Final = 1009


@function(
    "websocket.stream",
    Parameter("url", Bound(Kind.URL), "URL: ws:// or wss://.", required=True, main=True),
    HEADERS_PARAMETER,
    Parameter(
        "send",
        Bound(),
        "Message to send after each connection and reconnection: a text, or any value as JSON. The items of a "
        "list are sent one by one.",
    ),
    Parameter(
        "decode",
        Constant(choices=("auto", "json", "text", "bytes")),
        "How to decode messages. `auto`: a text message is parsed as JSON if it is valid JSON, otherwise it is a "
        "text; a binary message is bytes.",
        default="auto",
    ),
    ON_INVALID,
    MAX_EVENT_SIZE,
    *LIMITS,
    RECONNECT,
    effects=Effects(gives="stream", properties=COUNTS),
    examples=[
        Example(
            "subscribe to a feed",
            "- websocket.stream: {url: wss://api.example.org/feed, send: {subscribe: trades}}\n  as: trades\n"
            "- forEach: {in: << trades >>, do: [{stream: << item.topic ~ item.number >>}]}",
            chunks=("trades1", "trades2"),
        )
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
    """Connect to a WebSocket and stream its messages as they arrive.

    The connection is opened when the stream is first read, and closed as soon as reading ends, for any reason.
    The stream ends when the server closes the connection with code 1000 or without a code. Any other close
    fails with `stream-lost`, or reconnects with `reconnect`. The errors are those of `http.stream`.
    """
    client = run.context.resource(open_http)
    socket = WebSocketStream(
        run,
        client,
        parse_url(url, web="ws"),
        headers=make_headers(headers),
        messages=[_message(each) for each in (send if isinstance(send, list) else [send]) if each is not None],
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
                UpstreamRequest("GET", self._url, self._headers),
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
            return RunError("http-connection", f"{self.host} answered in something that is not a WebSocket")
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
