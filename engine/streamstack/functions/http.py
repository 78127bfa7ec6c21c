"""The HTTP family: requests and complete responses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from streamstack.connections.http import UpstreamResponse, loggable
from streamstack.errors import RunError
from streamstack.functions.content import DECODES
from streamstack.functions.http_stream import http_stream, websocket_stream
from streamstack.functions.http_upstream import (
    PARAMETERS,
    headers_of,
    is_allowed,
    make_request,
    open_http,
    status_error,
)
from streamstack.language.definition import Effects, Example, Parameter, function
from streamstack.runtime.decoders.decoder import NotJsonError, parse_json
from streamstack.runtime.decoders.formats import Options, decoder_for, format_of, read_content_type
from streamstack.runtime.run import Run
from streamstack.spec import Bound, Constant, Kind


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
    effects=Effects(gives="value", result="{status: integer, headers: {..., *: text?}, body: any}"),
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
            "an unexpected status", "- http.request: https://api.example.org/people/9\n  as: reply", fails="http-status"
        ),
    ],
)
async def http_request(  # noqa: PLR0913  (a request has that many parts)
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
) -> dict[str, Any]:
    """Send a request and wait for the complete response: {status, headers, body}.

    Header names are in lower case. An empty body is null. A status of 400 or above fails with `http-status`,
    with {status, headers, body} in `error.details`, unless it is in `allowStatus`. A failed connection fails
    with `http-connection`, a truncated body with `stream-lost`, and a body that can't be decoded with
    `invalid-chunk`. For long bodies or live streams use `http.stream`.

    With `retry`, temporary statuses (408, 409, 425, 429, 500, 502, 503, 504) are retried, no sooner than the
    response's `Retry-After`. If that is longer than `maxDelay`, the step fails immediately.
    """
    client = run.context.resource(open_http)
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
    )
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
        return {
            "status": answer.status,
            "headers": headers_of(answer),
            "body": _decode(answer, data, decode) if data else None,
        }
    except RunError as error:
        error.about.setdefault("url", loggable(request.url))
        raise


_ACCEPT = {
    "json": "application/json",
    "sse": "text/event-stream",
    "sseJson": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "auto": "application/json, */*;q=0.9",
}


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
            return parse_json(data.removeprefix(b"\xef\xbb\xbf"))
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


FUNCTIONS = (http_request, http_stream, websocket_stream)
