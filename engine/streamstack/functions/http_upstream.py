"""Shared code of functions that call upstreams: requests, response errors, time-outs, reconnection."""

from __future__ import annotations

import asyncio
import random
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from secrets import token_hex
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from urllib.parse import urlencode

import structlog
from multidict import CIMultiDict
from yarl import URL

from streamstack import clock
from streamstack.connections.http import (
    ACCEPTED,
    TRANSIENT_STATUSES,
    UpstreamRequest,
    describe_status,
    loggable,
    parse_url,
)
from streamstack.errors import RunError
from streamstack.language.definition import Parameter
from streamstack.language.kinds import Kind
from streamstack.language.names import CONTROL_CHARACTERS, ForwardedHeaders
from streamstack.language.settings import HttpSettings
from streamstack.language.values import kind, to_json, to_text
from streamstack.runtime.decoders.decoder import NotJsonError, excerpt, parse_json
from streamstack.runtime.run import Context, Run
from streamstack.runtime.values import Batches, File
from streamstack.spec import Bound, Constant, Group, SchemaOf

if TYPE_CHECKING:
    from streamstack.connections.http_client import HttpClient, UpstreamResponse

EVENT_STREAM: Final = "text/event-stream"
#: Bytes of an error's body that are read for its details, and seconds that this may take.
ERROR_BODY: Final = 64 * 1024
ERROR_BODY_TIMEOUT: Final = 5.0
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STATUS_CLASS: Final = re.compile(r"[1-5](?:xx|XX)")


def _no_method(value: Any) -> tuple[str, str] | None:
    """Return the problem with a constant for a method, if there is one."""
    if _TOKEN.fullmatch(value) and value.upper() != "CONNECT":
        return None
    return "an HTTP method", "write GET, POST, PUT, PATCH or DELETE"


def _no_statuses(value: Any) -> tuple[str, str] | None:
    """Return the problem with a constant for allowed statuses, if there is one."""
    if all(isinstance(each, int) or _STATUS_CLASS.fullmatch(str(each)) for each in value):
        return None
    return "a list of numbers such as 404 and classes such as 4xx", "write it like [404, 5xx]"


URL_PARAMETER: Final = Parameter(
    "url",
    Bound(Kind.URL),
    "URL: http:// or https://. A path alone is a path of this server. A binding in the path or query string is "
    "percent-encoded, unless its last filter is `safe` or `urlEncode`.",
    required=True,
    main=True,
)
HEADERS_PARAMETER: Final = Parameter(
    "headers",
    Bound(Kind.HEADERS),
    "Request headers by name: a text, or a list of values. Null omits a header. If a whole object is bound, such "
    "as `<< request.headers >>`, `Host`, `Content-Length`, `Accept-Encoding` and the other connection and "
    "framing headers are omitted. A name or value that HTTP forbids, such as a text with a line break, fails with "
    "`invalid-input` (400) if it comes from the client, otherwise with `template` (500).",
)
PARAMETERS: Final = (
    URL_PARAMETER,
    Parameter("method", Bound(Kind.TEXT, refuses=_no_method), "HTTP method.", default="GET"),
    HEADERS_PARAMETER,
    Parameter(
        "query", Bound(Kind.OBJECT), "Query parameters to add to the URL. A list repeats its parameter, null omits it."
    ),
    Parameter("json", Bound(), "Request body, sent as JSON."),
    Parameter(
        "form",
        Bound(Kind.OBJECT),
        "Request body, sent as a URL-encoded form. Lists and null are handled as in `query`.",
    ),
    Parameter(
        "multipart",
        Bound(Kind.OBJECT),
        "Request body, sent as a multipart form: texts, files, bytes, or {content, filename, contentType} by "
        "name. Any other object is sent as JSON, a list repeats its field, null omits it.",
    ),
    Parameter("body", Bound(), "Request body, sent unchanged: a text, bytes or a file."),
    Parameter(
        "redirects",
        Bound(Kind.INTEGER, minimum=0, maximum=50),
        "Maximum number of redirects. Credentials are not sent to another host. With 0, the redirect itself is "
        "the response.",
        default=10,
    ),
    Parameter(
        "allowStatus",
        Bound(Kind.LIST, refuses=_no_statuses),
        "Statuses that are not errors: numbers, or classes such as `4xx`.",
    ),
)

EXPECT: Final = Parameter(
    "expect", SchemaOf(), "JSON Schema (2020-12) that the decoded body must match, whatever the status."
)

EXPECT_ITEM: Final = replace(
    EXPECT,
    description="JSON Schema (2020-12) that each item must match; of events, their `data`. An item that does not "
    "match is handled as `onInvalid` says.",
)


def open_http(context: Context) -> HttpClient:
    """Make the one client of a process; `run.context.resource(open_http)` returns it."""
    # `validate` needs no client, and aiohttp takes longer to import than a small project to be checked.
    from streamstack.connections.http_client import HttpClient  # noqa: PLC0415

    return HttpClient(context.http, dev=context.dev)


def make_request(  # noqa: PLR0913  (a request has that many parts)
    url: str,
    *,
    accept: str,
    encoding: str = ACCEPTED,
    method: str = "GET",
    headers: Mapping[str, Any] | None = None,
    query: Mapping[str, Any] | None = None,
    json: Any = None,
    form: Mapping[str, Any] | None = None,
    multipart: Mapping[str, Any] | None = None,
    body: Any = None,
    redirects: int = 10,
) -> UpstreamRequest:
    """Return the request that the `PARAMETERS` of a step make.

    Raises RunError ``template`` for parameters that don't go together, and for what HTTP forbids.
    """
    sent = make_headers(headers)
    method = method.strip().upper()
    if not _TOKEN.fullmatch(method) or method == "CONNECT":
        message = "`method` must be an HTTP method such as GET or POST"
        raise RunError("template", message, final=True, parameter="method")
    bodies = [
        name
        for name, value in (("json", json), ("form", form), ("multipart", multipart), ("body", body))
        if value is not None
    ]
    if len(bodies) > 1:
        raise RunError("template", f"`{bodies[0]}` and `{bodies[1]}` are both bodies: give one")
    content, length, media = _body(json, form, multipart, body)
    if isinstance(headers, ForwardedHeaders) and body is None:
        sent.popall("Content-Type", None)  # of another body
    if media is not None:
        sent.setdefault("Content-Type", media)
    sent.setdefault("Accept", accept)
    if accept == EVENT_STREAM:
        sent.setdefault("Cache-Control", "no-cache")  # as EventSource asks
    sent.setdefault("Accept-Encoding", encoding)
    parts = {
        name: [to_text(each) for each in value] if isinstance(value, list) else to_text(value)
        for name, value in (query or {}).items()
        if value is not None
    }
    return UpstreamRequest(method, parse_url(url, parts), sent, content, redirects, length)


def make_headers(headers: Mapping[str, Any] | None) -> CIMultiDict[str]:
    """Return headers as they are sent: each value of a list apart, none for null.

    Raises RunError ``template`` for what HTTP forbids in them. The message does not hold the value: it may be a key.
    """
    sent: CIMultiDict[str] = CIMultiDict()
    for name, value in (headers or {}).items():
        if not _TOKEN.fullmatch(name):
            raise RunError("template", f"`{name[:40]}` is not a valid header name", final=True, parameter="headers")
        for each in value if isinstance(value, list) else [value]:
            text = "" if each is None else to_text(each).strip()
            if CONTROL_CHARACTERS.search(text):
                message = f"the header `{name}` contains a line break or another control character"
                raise RunError("template", message, final=True, parameter="headers")
            if each is not None:
                sent.add(name, text)
    return sent


_Content = bytes | AsyncIterator[bytes] | None


def _body(
    json: Any, form: Mapping[str, Any] | None, multipart: Mapping[str, Any] | None, body: Any
) -> tuple[_Content, int | None, str | None]:
    """Return the content of a body, its length where the content comes in pieces, and its media type."""
    if json is not None:
        return to_json(json), None, "application/json"
    if form is not None:
        pairs = [(name, to_text(each)) for name, each in _pairs(form)]
        return urlencode(pairs).encode(), None, "application/x-www-form-urlencoded"
    if multipart is not None:
        boundary = token_hex(16)
        content, length = _join(list(_multipart(multipart, boundary)))
        return content, length, f"multipart/form-data; boundary={boundary}"
    if body is None:
        return None, None, None
    if isinstance(body, bytes):
        return body, None, "application/octet-stream"
    if isinstance(body, File):
        return *_join([body]), body.content_type
    if isinstance(body, (list, Mapping)):
        message = f"`body` must be a text, bytes or a file, not a {kind(body)}: write `json`"
        raise RunError("template", message, parameter="body")
    return to_text(body).encode(), None, "text/plain; charset=utf-8"


def _pairs(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a form: list items repeat the name, null is omitted."""
    for name, value in fields.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                yield name, each


def _multipart(fields: Mapping[str, Any], boundary: str) -> Iterator[bytes | File]:
    """Yield the bytes and files of a multipart form (RFC 7578).

    Raises RunError ``template`` for a Content-Type that HTTP forbids.
    """
    for name, each in _pairs(fields):
        content, filename, media = each, None, None
        if isinstance(each, Mapping) and "content" in each and set(each) <= _PART:
            content, filename, media = (each.get(key) for key in ("content", "filename", "contentType"))
        if isinstance(content, File):
            filename, media = filename or content.name or name, media or content.content_type
        elif isinstance(content, bytes):
            filename, media = filename or name, media or "application/octet-stream"
        elif isinstance(content, (list, Mapping)):
            content, media = to_json(content), media or "application/json"
        else:
            content = to_text(content).encode()
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
        if filename is not None:
            head += f'; filename="{_quoted(to_text(filename))}"'
        if media is not None:
            if CONTROL_CHARACTERS.search(to_text(media)):
                message = f"`contentType` of `{name[:40]}` contains a control character"
                raise RunError("template", message, final=True, parameter="multipart")
            head += f"\r\nContent-Type: {to_text(media)}"
        yield f"{head}\r\n\r\n".encode()
        yield content
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


_PART: Final = frozenset({"content", "filename", "contentType"})


def _quoted(name: str) -> str:
    # WHATWG HTML, multipart/form-data encoding algorithm.
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _join(parts: list[bytes | File]) -> tuple[bytes | AsyncIterator[bytes], int | None]:
    """Return parts as one content, read as it is sent where there are files, and then its length."""
    texts = [part for part in parts if isinstance(part, bytes)]
    if len(texts) == len(parts):
        return b"".join(texts), None

    async def pieces() -> AsyncIterator[bytes]:
        for part in parts:
            if isinstance(part, bytes):
                yield part
            else:
                remaining = part.size
                async for piece in part.pieces():
                    remaining -= len(piece)
                    yield piece
                if remaining:  # its length has been sent, and the server would wait for the rest
                    raise RunError("template", f"the file {part.name} was deleted while it was sent")

    return pieces(), sum(len(part) if isinstance(part, bytes) else part.size for part in parts)


def is_allowed(status: int, allowed: list[Any] | None, upto: int) -> bool:
    """Return whether a status is accepted: from 200 to below ``upto``, or allowed by the step.

    Raises RunError ``template`` for what can't be a status.
    """
    for each in allowed or ():
        if isinstance(each, str) and _STATUS_CLASS.fullmatch(each):
            if status // 100 == int(each[0]):
                return True
        elif not isinstance(each, int) or isinstance(each, bool):
            message = "`allowStatus` holds numbers such as 404, or classes such as 4xx"
            raise RunError("template", message, parameter="allowStatus")
        elif each == status:
            return True
    return 200 <= status < upto


async def status_error(answer: UpstreamResponse) -> RunError:
    """Return the error of an answer's status, with the beginning of its body in the details; close the answer."""
    data = await read_beginning(answer)
    return RunError(
        "http-status",
        f"{answer.host} answered {describe_status(answer.status)}",
        details={"status": answer.status, "headers": headers_of(answer), "body": _readable(data)},
        final=answer.status not in TRANSIENT_STATUSES,
        retry_after=read_retry_after(answer) if answer.status in TRANSIENT_STATUSES else None,
    )


async def content_error(answer: UpstreamResponse, media: str, name: str) -> RunError:
    """Return the error of an answer that can't be what was asked for; close the answer."""
    data = await read_beginning(answer)
    return RunError(
        "invalid-chunk",
        f"{answer.host} answered with {media}, which is not {name}",
        details={"status": answer.status, "headers": headers_of(answer), "body": _readable(data)},
    )


async def read_beginning(answer: UpstreamResponse) -> bytes:
    """Return the beginning of an answer's body, as much as comes soon; close the answer."""
    data = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_TIMEOUT):
            while len(data) < ERROR_BODY and (piece := await answer.read()):
                data += piece
    except (TimeoutError, RunError):
        pass  # the status says what is wrong; the body would only have said more
    finally:
        answer.close()
    return bytes(data[:ERROR_BODY])


def _readable(data: bytes) -> Any:
    """Return a body as JSON where it parses, else the beginning of its text; null where there is none."""
    if not data:
        return None
    try:
        return parse_json(data)
    except NotJsonError:
        return excerpt(data, 2000)


def headers_of(answer: UpstreamResponse) -> dict[str, Any]:
    """Return an answer's headers by their names in small letters.

    Several of one name are joined; `set-cookie`, whose values can't be (RFC 9110, 5.3), is a list.
    """
    headers: dict[str, Any] = {}
    for written, value in answer.headers.items():
        name = written.lower()
        if name == "set-cookie":
            headers.setdefault(name, []).append(value)
        else:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def read_retry_after(answer: UpstreamResponse) -> float | None:
    """Return the seconds that an answer asks to wait: `retry-after-ms`, else `Retry-After` (seconds or a date)."""
    try:
        milliseconds = answer.headers.get("retry-after-ms")
        if milliseconds is not None:
            return _seconds(float(milliseconds) / 1000)
        value = answer.headers.get("Retry-After", "").strip()
        if not value:
            return None
        if value.replace(".", "", 1).isdecimal():
            return _seconds(float(value))
        moment = parsedate_to_datetime(value)
        now = parsedate_to_datetime(answer.headers["Date"]) if "Date" in answer.headers else None
        return _seconds((moment - (now or clock.now())).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(value: float) -> float | None:
    return max(value, 0.0) if value < float("inf") else None


log = structlog.get_logger("streamstack.run")

T = TypeVar("T")

#: Errors that a new connection may mend.
_RECONNECTABLE: Final = frozenset({"http-connection", "http-status", "stream-lost", "timeout"})

RECONNECT: Final = Parameter(
    "reconnect",
    Group(
        (
            Parameter(
                "times",
                Bound(Kind.INTEGER, minimum=1),
                "Maximum number of consecutive attempts without an item in between.",
                default=10,
            ),
            Parameter(
                "delay",
                Bound(Kind.DURATION, minimum=0),
                "Delay before the first attempt. The server's own `retry:` takes precedence.",
                default=1.0,
            ),
            Parameter(
                "backoff",
                Constant(choices=("fixed", "exponential")),
                "Whether the delay stays the same, or doubles each time and is randomized.",
                default="exponential",
            ),
            Parameter("maxDelay", Bound(Kind.DURATION, minimum=0), "Maximum delay.", default=30.0),
        )
    ),
    "Reconnect when an open connection is lost.",
)
LIMITS: Final = (
    Parameter(
        "firstChunkTimeout",
        Bound(Kind.DURATION),
        "Time-out for the first item, from the start of the request. Default: `http.timeouts.firstChunk` of the "
        "settings, 60s.",
    ),
    Parameter(
        "idleTimeout",
        Bound(Kind.DURATION),
        "Time-out between items. Bytes without an item, such as heartbeats, do not reset it. Default: "
        "`http.timeouts.idle` of the settings, 5m.",
    ),
    Parameter("timeout", Bound(Kind.DURATION), "Time limit for the whole stream. Default: none."),
)


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a lost connection is made again. Delays are seconds."""

    times: int = 10
    delay: float = 1.0
    backoff: str = "exponential"
    max_delay: float = 30.0

    def wait(self, attempt: int, wanted: float | None, retry_after: float | None) -> float:
        """Return the seconds before an attempt, counted from 0; ``wanted`` by the server's `retry:`."""
        delay = min(self.delay if wanted is None else wanted, self.max_delay)
        if attempt and self.backoff == "exponential":
            delay = min(delay * 2 ** min(attempt, 30), self.max_delay)
            delay *= 1 if clock.exact else random.random()  # noqa: S311  (no secret)
        return delay if retry_after is None else max(delay, retry_after)


@dataclass(frozen=True, slots=True)
class StreamTimeouts:
    """The limits of a stream in seconds, None for none: to the first item, between items, in all."""

    first: float | None
    idle: float | None
    total: float | None

    @classmethod
    def of(cls, settings: HttpSettings, first: float | None, idle: float | None, total: float | None) -> StreamTimeouts:
        """Return what a step says, else the settings; 0 means no limit."""
        return cls(
            (settings.first_chunk if first is None else first) or None,
            (settings.idle if idle is None else idle) or None,
            total or None,
        )


class Watchdog:
    """Limits the time of one wait after the other, with one timer.

    `asyncio.timeout` sets and cancels a timer each time. Of a stream that sends a token at a time, that would be the
    largest part of what reading costs.
    """

    def __init__(self) -> None:
        self._due = 0.0  # by the loop's clock
        self._task: asyncio.Task[Any] | None = None  # that waits
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None  # at `_due`, or before it
        self._set_for = 0.0  # what `_due` was then: uvloop's `TimerHandle.when` is rounded

    async def limit(self, work: Callable[[], Awaitable[T]], due: float) -> T:
        """Do some work until a time of the loop's clock.

        Raises TimeoutError.
        """
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        self._task, self._due, self._expired = task, due, False
        if self._timer is None or self._set_for > due:
            self._set_timer()
        try:
            return await work()
        except asyncio.CancelledError:
            if self._expired and task.uncancel() <= cancelling:
                raise TimeoutError from None
            raise
        finally:
            self._task = None

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self.close()
        self._set_for = self._due
        self._timer = asyncio.get_running_loop().call_at(self._due, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if asyncio.get_running_loop().time() < self._due:
            self._set_timer()
        else:
            self._expired = True
            self._task.cancel()


class Upstream(ABC):
    """One stream: its connection, and those that follow it. ``function`` is the step that it is made by."""

    function: ClassVar[str]

    def __init__(
        self, run: Run, url: URL, times: StreamTimeouts, reconnect: Mapping[str, Any] | None, **about: Any
    ) -> None:
        self.run = run
        self.host = url.host or ""
        # The place of an error is the step that reads the stream.
        self._about = {"stream": self.function, "url": loggable(url), **about}
        self.retry_delay: float | None = None  # seconds to wait, by the server's `retry:`
        self._times = times
        self._reconnect = Reconnect(**reconnect) if reconnect is not None else None
        self._opened = False
        self._attempts = 0  # connections in a row that gave nothing
        self._deadline: float | None = None
        self._watchdog = Watchdog()

    @abstractmethod
    async def open(self) -> None:
        """Connect; raise a RunError where that fails."""

    @abstractmethod
    async def items(self) -> list[Any] | None:
        """Return the next items, or none where the upstream is at work; None at the end of the connection.

        Raises RunError for an end that is an error.
        """

    @abstractmethod
    def goes_on(self) -> bool:
        """Whether a connection that has come to its end is to be followed by another."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection, if there is one."""

    async def batches(self) -> Batches:
        """Yield the items, reconnecting as needed."""
        loop_time = asyncio.get_running_loop().time
        started = loop_time()
        if self._times.total is not None:
            self._deadline = started + self._times.total
        first, idle = self._times.first, self._times.idle
        try:
            while True:
                lost = None
                try:
                    await self._limited(self.open, first, loop_time())
                    # The first item of all has what the head left of its time.
                    limit, since = (first, started) if not self._opened else (idle, loop_time())
                    self._opened = True
                    while (batch := await self._limited(self.items, limit, since)) is not None:
                        if batch:
                            self._attempts = 0
                            yield batch
                        limit, since = idle, loop_time()
                except RunError as error:
                    if self._is_final(error):
                        raise
                    lost = error
                await self.close()
                if lost is None and not self._may_follow():
                    return
                await self._pause(lost)
        except RunError as error:
            error.about = self._about | error.about
            raise
        finally:
            self._watchdog.close()
            await self.close()

    async def _limited(self, work: Callable[[], Awaitable[T]], seconds: float | None, since: float) -> T:
        """Do some work within some seconds since a moment, and within the time of the whole stream.

        Raises RunError ``timeout``.
        """
        due = None if seconds is None else since + seconds
        total = self._deadline is not None and (due is None or self._deadline < due)
        if total:
            due = self._deadline
        if due is None:
            return await work()
        try:
            return await self._watchdog.limit(work, due)
        except TimeoutError:
            if total:
                message = f"the stream of {self.host} took longer than {self._times.total:g} s"
            else:
                message = f"{self.host} gave nothing within {seconds:g} s"
            raise RunError("timeout", message) from None

    def _is_final(self, error: RunError) -> bool:
        """Whether an error ends the stream; else another connection follows."""
        policy = self._reconnect
        if policy is None or not self._opened or error.final or error.code not in _RECONNECTABLE:
            return True
        if error.retry_after is not None and error.retry_after > policy.max_delay:
            return True
        late = self._deadline is not None and asyncio.get_running_loop().time() >= self._deadline
        return late or self._attempts >= policy.times

    def _may_follow(self) -> bool:
        policy = self._reconnect
        return policy is not None and self._attempts < policy.times and self.goes_on()

    async def _pause(self, lost: RunError | None) -> None:
        assert self._reconnect is not None
        retry_after = lost.retry_after if lost is not None else None
        wait = self._reconnect.wait(self._attempts, self.retry_delay, retry_after)
        self._attempts += 1
        log.info(
            "reconnect",
            run=self.run.id,
            host=self.host,
            attempt=self._attempts,
            reason=lost.message if lost is not None else "the answer ended",
        )
        await self._limited(lambda: asyncio.sleep(wait), None, 0.0)
