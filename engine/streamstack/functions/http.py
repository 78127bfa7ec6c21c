"""The HTTP family: requests, and upstream streams over HTTP and WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from multidict import CIMultiDict
from yarl import URL

from streamstack import clock
from streamstack.connections.http import ACCEPTED, UpstreamRequest, loggable, parse_url
from streamstack.errors import RunError
from streamstack.functions.content import COUNTS, CSV, DECODE, DECODES, MAX_EVENT_SIZE, ON_INVALID, PATH, options_of
from streamstack.functions.http_upstream import (
    EVENT_STREAM,
    EXPECT,
    EXPECT_ITEM,
    HEADERS_PARAMETER,
    LIMITS,
    PARAMETERS,
    RECONNECT,
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
from streamstack.language.definition import Effects, Example, JsonSchema, Parameter, Property, function
from streamstack.language.kinds import Kind
from streamstack.language.values import to_json, to_text
from streamstack.runtime.decoders import Options, decoder_for, format_of, read_content_type, to_utf_8
from streamstack.runtime.decoders.decoder import Decoder, NotJsonError, OnInvalid, excerpt, parse_json
from streamstack.runtime.decoders.sse import SseDecoder
from streamstack.runtime.run import Run
from streamstack.runtime.values import Stream
from streamstack.spec import Bound, Constant

if TYPE_CHECKING:
    from streamstack.connections.http_client import HttpClient, UpstreamResponse, WebSocket


_ACCEPT: Final = {
    "auto": "text/event-stream, application/x-ndjson, application/json;q=0.9, */*;q=0.8",
    "sse": EVENT_STREAM,
    "sseJson": EVENT_STREAM,
    "ndjson": "application/x-ndjson, application/jsonl, */*;q=0.5",
    "json": "application/json",
    "csv": "text/csv, */*;q=0.5",
    "lines": "text/plain, */*;q=0.5",
    "text": "text/plain, */*;q=0.5",
}


@function(
    "http.request",
    *PARAMETERS,
    Parameter(
        "timeout",
        Bound(Kind.DURATION),
        "Time limit for the whole request, including redirects and the body. Default: `http.timeouts.total` of "
        "the settings, 60s.",
    ),
    Parameter(
        "decode",
        Constant(choices=DECODES),
        "How to decode the body. `auto`: chosen by the Content-Type. `json`: a value. `text`, `bytes`: the whole "
        "body. The others: a list of items.",
        default="auto",
    ),
    EXPECT,
    effects=Effects(gives="value", result="{status: integer, headers: {..., *: text?}, body: expect}"),
    examples=[
        Example(
            "send a GET request",
            "- http.request: https://api.example.org/people/7\n  as: reply\n- return: << reply.body.name >>",
            result="Ada",
        ),
        Example(
            "send JSON",
            "- http.request:\n    url: https://api.example.org/people\n    method: POST\n    json: {name: Grace}\n"
            "    headers: {Authorization: 'Bearer << env.API_KEY | default(\"none\") >>'}\n    timeout: 5s\n"
            "  retry: {times: 3}\n  as: reply\n- return: << [reply.status, reply.body.id] >>",
            result=[201, 8],
        ),
        Example(
            "accept a 404",
            "- http.request: {url: https://api.example.org/people/9, allowStatus: [404]}\n  as: reply\n"
            "- return: << reply.status >>",
            result=404,
        ),
        Example(
            "declare the response",
            "- http.request:\n    url: https://api.example.org/people/7\n    expect:\n      type: object\n"
            "      required: [name]\n      properties: {name: {type: string}}\n  as: reply\n"
            "- return: << reply.body.name | upper >>",
            result="ADA",
        ),
        Example(
            "an unexpected status", "- http.request: https://api.example.org/people/9\n  as: reply", fails="http-status"
        ),
    ],
)
async def http_request(
    run: Run,
    *,
    url: str,
    allow_status: list[Any] | None = None,
    timeout: float | None = None,
    decode: str = "auto",
    expect: JsonSchema | None = None,
    **parts: Any,
) -> dict[str, Any]:
    """Send a request and wait for the complete response: {status, headers, body}.

    Header names are in lower case. An empty body is null. A status of 400 or above fails with `http-status`,
    with {status, headers, body} in `error.details`, unless it is in `allowStatus`. A failed connection fails
    with `http-connection`, a truncated body with `stream-lost`, and a body that can't be decoded with
    `invalid-chunk`, as does one that does not match `expect`, with the `faults` in `error.details`. For long
    bodies or live streams use `http.stream`.

    With `retry`, temporary statuses (408, 409, 425, 429, 500, 502, 503, 504) are retried, no sooner than the
    response's `Retry-After`. If that is longer than `maxDelay`, the step fails immediately.
    """
    client = run.context.resource(open_http)
    accept = "application/json, */*;q=0.9" if decode == "auto" else _ACCEPT.get(decode, "*/*")
    request = make_request(run.context.address.of(url), accept=accept, **parts)
    seconds = (client.settings.total if timeout is None else timeout) or None
    try:
        try:
            async with asyncio.timeout(seconds):
                answer = await client.send(request)
                try:
                    if not is_allowed(answer.status, allow_status, 400):
                        raise await status_error(answer)
                    data = await _read(answer, client.settings.max_body_size)
                finally:
                    answer.close()
        except TimeoutError:
            host = request.url.host
            raise RunError("timeout", f"{host} took longer than {seconds:g} s to answer") from None
        body = _decode(answer, data, decode) if data else None
        if expect is not None:
            _check_body(answer, expect, body)
        return {"status": answer.status, "headers": headers_of(answer), "body": body}
    except RunError as error:
        error.about.setdefault("url", loggable(request.url))
        raise


async def _read(answer: UpstreamResponse, limit: int) -> bytes:
    data = bytearray()
    while piece := await answer.read():
        data += piece
        if len(data) > limit:
            raise RunError(
                "limit-reached",
                f"the answer of {answer.host} has over {limit} bytes: raise `http.maxBodySize`, or use http.stream",
            )
    return bytes(data)


def _decode(answer: UpstreamResponse, data: bytes, decode: str) -> Any:
    """Return what a body holds.

    Raises RunError ``invalid-chunk``.
    """
    media, charset = read_content_type(answer.headers.get("Content-Type"))
    name = format_of(media) if decode == "auto" else decode
    if name == "bytes":
        return data
    if name == "json":
        try:
            return parse_json(to_utf_8(data, charset).removeprefix(b"\xef\xbb\xbf"))
        except NotJsonError as error:
            said = f" (its Content-Type is {media[:60]})" if media and format_of(media) != "json" else ""
            raise RunError(
                "invalid-chunk",
                f"the answer of {answer.host} {error}{said}",
                details={"status": answer.status, "text": data[:1000].decode("utf-8", "replace")},
            ) from None
    decoder = decoder_for(name, Options(charset=charset, largest=len(data)))
    items = decoder.feed(data) + decoder.finish()
    if decoder.failure is not None:
        raise decoder.failure
    return "".join(items) if name == "text" else items


def _check_body(answer: UpstreamResponse, expect: JsonSchema, body: Any) -> None:
    """Check what a response holds. Raises RunError ``invalid-chunk``."""
    faults = [f"{name or 'the body'} {message}" for name, message in expect.find_faults(body)]
    if faults:
        message = f"the answer of {answer.host} is not what was expected"
        error = RunError("invalid-chunk", message, details={"status": answer.status, "faults": faults})
        error.about["faults"] = faults[:_LOGGED]
        raise error


#: How many faults of a response the log names.
_LOGGED: Final = 10
_EVENTS: Final = frozenset({"sse", "sseJson"})
#: Media types that can't be the format that was asked for, and so are an error in disguise.
_CONTRADICTIONS: Final = {
    "sse": frozenset({"text/html", "application/json", "application/problem+json"}),
    "sseJson": frozenset({"text/html", "application/json", "application/problem+json"}),
    "ndjson": frozenset({"text/html", "text/event-stream", "application/problem+json"}),
    "json": frozenset({"text/html", "text/event-stream"}),
    "csv": frozenset({"text/html", "application/json", "text/event-stream"}),
}


@function(
    "http.stream",
    *PARAMETERS,
    DECODE,
    PATH,
    *CSV,
    ON_INVALID,
    MAX_EVENT_SIZE,
    EXPECT_ITEM,
    *LIMITS,
    RECONNECT,
    effects=Effects(
        gives="stream",
        result="stream of (any if onInvalid = give else {event: text?, id: text?, data: expect, ...} if decode = sse "
        "else any if decode = auto else {event: text?, id: text?, data: any, ...} if decode = sseJson "
        "else expect)",
        properties=(
            Property("status", "Status of the response; null before it has arrived.", "integer~"),
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
    allow_status: list[Any] | None = None,
    timeout: float | None = None,
    decode: str = "auto",
    path: Any = None,
    header: bool = True,
    delimiter: str = ",",
    columns: list[Any] | None = None,
    on_invalid: OnInvalid = "fail",
    max_event_size: int | None = None,
    expect: JsonSchema | None = None,
    first_chunk_timeout: float | None = None,
    idle_timeout: float | None = None,
    reconnect: Mapping[str, Any] | None = None,
    **parts: Any,
) -> Stream:
    """Send a request and stream the items of the response as they arrive.

    The request is sent when the stream is first read. The connection is closed as soon as reading ends, for any
    reason. An item of `sse` and `sseJson` is {event, id, data}: the event name or null, the last event id or
    null, and the data. With `sse`, data is a value if it is a JSON object or array, otherwise the unchanged
    text; with `sseJson` it is always a value. A record of `csv` is an object of texts.

    Errors: `http-connection` (connection failed), `http-status` (with {status, headers, body} in
    `error.details`), `timeout`, `stream-lost` (the response was truncated), `invalid-chunk` (also a
    Content-Type that contradicts `decode`, an event larger than `maxEventSize`, and an item that does not match
    `expect`). `retry` applies up to the
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
        accept=_ACCEPT.get(decode, "*/*"),
        # Servers that compress tend to hold events back until there is enough to compress.
        encoding="identity" if decode in ("auto", *_EVENTS) else ACCEPTED,
        **parts,
    )
    times = StreamTimeouts.of(settings, first_chunk_timeout, idle_timeout, timeout)
    stream = HttpStream(run, client, request, decode, options, allow_status, times, reconnect)
    stream.expect = expect
    return Stream(
        stream.batches,
        {"status": lambda: stream.status, "headers": lambda: stream.headers, "skipped": lambda: stream.skipped},
    )


def _item_check(expect: JsonSchema, *, of_events: bool) -> Callable[[Any], list[str]]:
    """Return what checks an item, or the data of an event."""

    def check(item: Any) -> list[str]:
        faults = expect.find_faults(item["data"] if of_events else item)
        return [f"{name or 'it'} {message}" for name, message in faults[:_LOGGED]]

    return check


class HttpStream(Upstream):
    """A stream of HTTP."""

    function = "http.stream"

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
        self.expect: JsonSchema | None = None
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
        if self.expect is not None:
            decoder.check = _item_check(self.expect, of_events=name in _EVENTS)
        self._skipped = self.skipped or 0
        self._decoder = decoder
        self._complete = False

    async def items(self) -> list[Any] | None:
        answer, decoder, run = self._answer, self._decoder, self.run
        assert answer is not None
        assert decoder is not None
        while True:
            if decoder.failure is not None:
                raise decoder.failure
            if decoder.ended or self._complete:
                return None
            data = await answer.read()
            if answer.waited:
                run.begin_slice()
            if data:
                items = decoder.feed(data)
            else:
                self._complete = True
                items = decoder.finish() if answer.status != 204 else []
            if items:
                return items
            if clock.perf_counter() > run.slice_ends:
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

    function = "websocket.stream"

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
        self._connection: WebSocket | None = None

    async def open(self) -> None:
        request = UpstreamRequest("GET", self._url, self._headers)
        self._connection = await self._client.connect(request, self._largest)
        self.skipped = self.skipped or 0
        await self._connection.send(self._messages)

    async def items(self) -> list[Any] | None:
        assert self._connection is not None
        items: list[Any] = []
        while not items:
            message = await self._connection.receive()
            if message is None:
                return None
            self._number += 1
            self._take(*message, items)
        return items

    def _take(self, data: bytes, is_text: bool, items: list[Any]) -> None:  # noqa: FBT001
        """Decode a message.

        Raises RunError ``invalid-chunk`` where that is what the author asked for.
        """
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
        number = self._number
        if self._on_invalid == "skip":
            self.skipped = (self.skipped or 0) + 1
        elif self._on_invalid == "give":
            text = data.decode("utf-8", "replace")
            items.append({"invalid": {"number": number, "text": text, "message": message}})
        else:
            raise RunError(
                "invalid-chunk",
                f"message {number} of {self.host} {message}",
                details={"number": number, "text": excerpt(data), "message": message},
            )

    def goes_on(self) -> bool:
        return False

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


FUNCTIONS = (http_request, http_stream, websocket_stream)
