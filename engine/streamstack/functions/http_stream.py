"""http.stream: the items of an answer while it is on its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any, Final

from streamstack.connections.content_coding import ACCEPTED
from streamstack.connections.http import Answer, HttpClient, Request
from streamstack.errors import RunError
from streamstack.functions.decoding import (
    COUNTS,
    CSV,
    DECODE,
    MAX_EVENT_SIZE,
    ON_INVALID,
    PATH,
    options_of,
)
from streamstack.functions.http_upstream import (
    LIMITS,
    PARAMETERS,
    RECONNECT,
    StreamTimeouts,
    Upstream,
    content_error,
    headers_of,
    is_allowed,
    make_request,
    open_http,
    status_error,
)
from streamstack.language.declare import Effects, Example, Property, function
from streamstack.runtime.decoders.decoder import Decoder, OnInvalid
from streamstack.runtime.decoders.formats import Options, decoder_for, format_of, read_content_type
from streamstack.runtime.decoders.sse import SseDecoder
from streamstack.runtime.run import Run
from streamstack.runtime.values import Stream

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
        properties=(
            Property("status", "The status of the answer; null before it has come."),
            Property("headers", "Its headers, by names in small letters."),
            *COUNTS,
        ),
    ),
    examples=[
        Example(
            "events, each as it comes",
            "- http.stream: https://api.example.org/prices\n  as: prices\n- forEach:\n    in: << prices >>\n"
            "    as: event\n    do:\n      - stream: << event.data.symbol ~ '=' ~ event.data.price >>",
            chunks=("A=1.5", "B=2"),
        ),
        Example(
            "what can't be decoded is counted",
            "- http.stream: {url: https://api.example.org/log, decode: ndjson, onInvalid: skip}\n  as: lines\n"
            "- forEach: {in: << lines >>, as: line, do: [{stream: << line.level >>}]}\n- return: << lines.skipped >>",
            result=1,
            chunks=("info", "error"),
        ),
        Example(
            "an array within a document, record by record",
            "- http.stream: {url: https://api.example.org/export, decode: json, path: data.items}\n  as: items\n"
            "- forEach: {in: << items >>, do: [{stream: << item.id >>}]}",
            chunks=(1, 2),
        ),
        Example(
            "a live feed that is connected again when it is lost",
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
    """Send a request and give the items of its answer as they come.

    The request is sent when the stream is first read, and its connection is closed at once when the reading ends,
    however it ends. An item of `sse` and `sseJson` is {event, id, data}: the event's name or null, the last id that was
    set or null, and the data: of `sse` a value where it is a JSON object or array, else the text, unchanged; of
    `sseJson` a value. A record of `csv` is an object of texts.

    Errors: `http-connection` (no answer), `http-status` (with {status, headers, body} in `error.details`), `timeout`,
    `stream-lost` (the answer broke off), `invalid-chunk` (also a Content-Type that contradicts `decode`, and an event
    over `maxEventSize`). `retry` tries again up to the first item; `reconnect`, for GET, goes on afterwards, with the
    last event's id as Last-Event-ID. As with EventSource, an end of `sse` is followed by a new connection too, unless
    that is answered by 204; of the other formats only a loss is.
    """
    client = run.context.resource(open_http)
    settings = client.settings
    if reconnect is not None and method.strip().upper() != "GET":
        raise RunError(
            "template",
            "`reconnect` is for GET: any other request might do its work twice",
            final=True,
        )
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
        {
            "status": lambda: stream.status,
            "headers": lambda: stream.headers,
            "skipped": lambda: stream.skipped,
        },
    )


class HttpStream(Upstream):
    """A stream of HTTP."""

    def __init__(
        self,
        run: Run,
        client: HttpClient,
        request: Request,
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
        self._answer: Answer | None = None
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
