"""A client for the streams of a streamstack server, on aiohttp: it resumes, cancels, and detects truncated streams.

async with Stream("http://localhost:8080/api/story", json={"topic": "rivers"}, idempotent=True) as story:
async for chunk in story:
print(chunk.text, end="")
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from json import dumps
from json import loads as _load
from typing import Any, Final, Literal, Self, TypeAlias
from uuid import uuid4

import aiohttp
from aiohttp import hdrs
from yarl import URL

from streamstack.errors import RunError
from streamstack.runtime.decoders import Options, decoder_for, read_content_type
from streamstack.runtime.decoders.decoder import Decoder
from streamstack.runtime.decoders.sse import SseDecoder

__all__ = ["Chunk", "Stream", "StreamError"]

#: Formats that mark the end of a stream come first: a response that a proxy has cut off is never taken for a whole one.
_ACCEPT: Final = "text/event-stream, application/x-ndjson;q=0.9, text/plain;q=0.8"
#: Seconds: the longest delay before a retry, and the most that a response of an error may take.
_LONGEST_DELAY: Final = 30.0
#: Bytes of one event, at most.
_LARGEST: Final = 64 * 1024 * 1024

Headers: TypeAlias = "Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]] | None"
State: TypeAlias = Literal["new", "connecting", "streaming", "waiting", "done", "stopped", "failed"]


class StreamError(Exception):
    """A failed stream or request.

    Attributes:
        code: The code of the server's error, `stream-lost` for a stream that ended early, or `http-status`.
        status: The HTTP status of a refused request.
        errors: The faults of inputs, each {in, name, message}.
        run: The id of the run.
        again: Whether the request may be sent again.
        after: Seconds that the server asks to wait before that.
    """

    def __init__(self, code: str, message: str, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        about = fields or {}
        self.code = code
        self.message = message
        self.status: int | None = about.get("status")
        self.errors: list[dict[str, str]] = about.get("errors") or []
        self.run: str | None = about.get("run")
        self.again = False
        self.after = 0.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk.

    Attributes:
        content: What the step sent. Over SSE, an object or a list without metadata is parsed; other values are text.
        text: The content as text, unchanged.
        event: The event's name. `gap` reports missing chunks: its content is {from, to}.
        id: The chunk's id.
        metadata: The chunk's metadata.
    """

    content: Any
    text: str
    event: str | None = None
    id: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(eq=False, kw_only=True)
class Stream:
    """A stream of chunks: an asynchronous context, read once.

    Args:
        url: The endpoint.
        method: By default GET, with a body POST.
        json: A body that is sent as JSON.
        data: Any other body that aiohttp takes. It is sent again on a retry, so pass no iterator with ``idempotent``.
        headers: Headers of each request, or a function that returns them for each.
        accept: The `Accept` header.
        idempotent: Whether the first request may be repeated if its response was lost. By default for GET. Set it for
            a POST endpoint with `streaming.resume`: repeated requests have the same `Idempotency-Key`.
        retries: Failures in a row, without a chunk between them, before the stream fails.
        retry_delay: Seconds before the first retry; doubled for each one, up to 30, with full jitter. `retry:` of the
            server sets it.
        stall_timeout: Seconds without a byte before the connection counts as lost; None for no limit.
        done: False for an endpoint with `streaming: {done: false}`: a clean end of SSE is the stream's end.
        streams: The path of the server's streams, for an application that is mounted under a prefix.
        id: The id of a stream to continue from its first stored chunk, in place of a new one.
        on_unauthorized: Called for a 401; true sends the request once more, with new headers.
        session: Used for all requests; by default one of the stream's own.

    Attributes:
        id: The id of a resumable stream, once it is known.
        state: `waiting` is the delay before a retry.
        count: Chunks so far.
        first_chunk_time: Seconds from the request to the first chunk.
        progress: 0 to 1, if the metadata of chunks has `totalChunks` or `total`.
        end: What the end marker says, once the stream is complete.
    """

    url: str | URL = field(kw_only=False)
    method: str | None = None
    json: Any = None
    data: Any = None
    headers: Headers = None
    accept: str = _ACCEPT
    idempotent: bool | None = None
    retries: int = 10
    retry_delay: float = 1.0
    stall_timeout: float | None = 45.0
    done: bool = True
    streams: str = "/_streams"
    id: str | None = None
    on_unauthorized: Callable[[], bool | Awaitable[bool]] | None = None
    session: aiohttp.ClientSession | None = None

    state: State = field(default="new", init=False)
    count: int = field(default=0, init=False)
    first_chunk_time: float | None = field(default=None, init=False)
    progress: float | None = field(default=None, init=False)
    end: Mapping[str, Any] | None = field(default=None, init=False)
    _own_session: aiohttp.ClientSession | None = field(default=None, init=False)
    _key: str = field(default_factory=lambda: str(uuid4()), init=False)
    _last: str = field(default="", init=False)  # the id of the last chunk that was taken
    _next: int = field(default=0, init=False)  # the number that the next chunk has
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __post_init__(self) -> None:
        self.method = self.method or ("GET" if self.json is None and self.data is None else "POST")
        if self.idempotent is None:
            self.idempotent = self.method == "GET"

    async def __aenter__(self) -> Self:
        if self.session is None:
            self.session = self._own_session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._own_session is not None:
            await self._own_session.close()

    async def text(self) -> str:
        """Read to the end, and return the text of all chunks without an event name."""
        return "".join([chunk.text async for chunk in self if chunk.event is None])

    async def stop(self) -> None:
        """Cancel the run on the server, and end the iteration."""
        if self.state in ("done", "failed", "stopped"):
            return
        self.state = "stopped"
        self._stopping.set()
        if self.id is not None:
            async with await self._send("DELETE", self._own_url, {}):
                pass

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        if self.state != "new":
            raise RuntimeError("a stream can be read once")
        begun = time.monotonic()
        failures = 0
        try:
            while True:
                try:
                    async with aclosing(self._connect()) as chunks:
                        async for chunk in chunks:
                            failures = 0
                            self._count(chunk, begun)
                            yield chunk
                            if self._stopping.is_set():
                                return
                    if not self._stopping.is_set():
                        self.state = "done"
                    return
                except StreamError as error:
                    if self._stopping.is_set():
                        return
                    if not error.again or failures >= self.retries:
                        raise
                    self.state = "waiting"
                    longest = min(_LONGEST_DELAY, self.retry_delay * 2**failures)
                    failures += 1
                    with suppress(TimeoutError):
                        async with asyncio.timeout(max(error.after, random.random() * longest)):  # noqa: S311
                            await self._stopping.wait()
        except BaseException:
            if not self._stopping.is_set():
                self.state = "failed"
            raise

    def _count(self, chunk: Chunk, begun: float) -> None:
        if self.first_chunk_time is None:
            self.first_chunk_time = time.monotonic() - begun
        if chunk.event != "gap":
            self.count += 1
        about = chunk.metadata or {}
        total = about.get("totalChunks") or about.get("total")
        if isinstance(total, (int, float)):
            self.progress = min(1.0, self.count / total)

    async def _connect(self) -> AsyncGenerator[Chunk, None]:
        """Yield what one response has of the stream; raise StreamError where that is not all."""
        self.state = "connecting"
        try:
            async with await self._begin() as response:
                if response.status == HTTPStatus.NO_CONTENT:
                    return
                self.id = response.headers.get("X-Stream-Id", self.id)
                self.state = "streaming"
                media_type = read_content_type(response.headers.get(hdrs.CONTENT_TYPE))[0]
                sse = media_type == "text/event-stream"
                options = Options(largest=_LARGEST)
                decoder = (
                    SseDecoder(largest=_LARGEST, data="text")
                    if sse
                    else decoder_for("ndjson" if media_type.endswith("ndjson") else "text", options)
                )
                async for item in self._items(response, decoder):
                    for chunk in self._read_event(item) if sse else self._read_value(item):
                        yield chunk
                    if self.end is not None:
                        return
                # Of a stream that can be resumed, the server says whether it has ended: by 204.
                if self.id is not None or (sse and self.done):
                    raise self._lost("the response ended before the stream did")
                self.end = {}
        except (aiohttp.ClientError, TimeoutError, OSError, RunError) as error:
            raise self._lost(str(error) or "the server was silent for too long") from error

    def _lost(self, message: str) -> StreamError:
        error = StreamError("stream-lost", message)
        error.again = self.id is not None or (bool(self.idempotent) and not self.count)
        return error

    async def _items(self, response: aiohttp.ClientResponse, decoder: Decoder) -> AsyncIterator[Any]:
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            while True:
                reading = asyncio.ensure_future(response.content.readany())
                try:
                    await asyncio.wait(
                        (reading, stopped), timeout=self.stall_timeout, return_when=asyncio.FIRST_COMPLETED
                    )
                    if stopped.done():
                        return
                    if not reading.done():
                        raise TimeoutError
                    data = reading.result()
                finally:
                    reading.cancel()
                for item in decoder.feed(data) if data else ():
                    yield item
                if isinstance(decoder, SseDecoder) and decoder.retry is not None:
                    self.retry_delay = decoder.retry / 1000
                if not data:
                    return
        finally:
            stopped.cancel()

    @property
    def _own_url(self) -> URL:
        return URL(self.url).join(URL(f"{self.streams}/{self.id}"))

    async def _begin(self) -> aiohttp.ClientResponse:
        for attempt in (0, 1):
            headers = {"Accept": self.accept}
            if self.id is not None:
                if self._last:
                    headers["Last-Event-ID"] = self._last
                response = await self._send("GET", self._own_url, headers)
            else:
                if self.method != "GET":
                    headers["Idempotency-Key"] = self._key
                response = await self._send(str(self.method), URL(self.url), headers, json=self.json, data=self.data)
            if response.ok:
                return response
            async with response:
                if response.status == HTTPStatus.UNAUTHORIZED and not attempt and await self._renewed():
                    continue
                raise await self._refusal(response)
        raise AssertionError  # the second attempt returns or raises

    async def _renewed(self) -> bool:
        renew = self.on_unauthorized
        answer = renew() if renew is not None else False
        return answer if isinstance(answer, bool) else await answer

    async def _send(self, method: str, url: URL, headers: Mapping[str, str], **body: Any) -> aiohttp.ClientResponse:
        if self.session is None:
            raise RuntimeError("use the stream as a context: `async with Stream(...) as answer`")
        own = self.headers
        if callable(own):
            made = own()
            own = made if isinstance(made, Mapping) else await made
        # No time limit for the whole: streams are long.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self.stall_timeout)
        sent = self.session.request(method, url, headers={**headers, **(own or {})}, timeout=limits, **body)
        return await asyncio.wait_for(sent, self.stall_timeout)

    async def _refusal(self, response: aiohttp.ClientResponse) -> StreamError:
        problem: Any = None
        with suppress(ValueError, aiohttp.ClientError):
            problem = await response.json(content_type=None)
        about: Mapping[str, Any] = problem if isinstance(problem, Mapping) else {}
        status = response.status
        message = about.get("detail") or f"the server answered {status}"
        error = StreamError(about.get("code") or "http-status", message, {**about, "status": status})
        repeatable = self.id is not None or bool(self.idempotent)
        # 429 and 503 say that nothing has begun.
        error.again = status in (429, 503) or (status > HTTPStatus.INTERNAL_SERVER_ERROR and repeatable)
        error.after = _seconds(response.headers.get(hdrs.RETRY_AFTER, ""))
        return error

    def _read_event(self, item: Mapping[str, Any]) -> Iterator[Chunk]:
        text: str = item["data"]
        content: Any = text
        if text[:1] in ("{", "["):
            with suppress(ValueError):
                content = _load(text)
        if isinstance(content, dict) and [*content] == ["content", "metadata"]:
            inner = content["content"]
            return self._take(item["event"], inner, _as_text(inner), item["id"], content["metadata"])
        return self._take(item["event"], content, text, item["id"], None)

    def _read_value(self, value: Any) -> Iterator[Chunk]:
        names = [name for name in value if name != "id"] if isinstance(value, dict) else []
        if names in (["error"], ["done"], ["gap"]):
            return self._take(names[0], value[names[0]], "", value.get("id"), None)
        if "content" in names and {*names} <= {"event", "content", "metadata"}:
            content = value["content"]
            return self._take(value.get("event"), content, _as_text(content), value.get("id"), value.get("metadata"))
        return self._take(None, value, _as_text(value), None, None)

    def _take(self, event: str | None, content: Any, text: str, own_id: str | None, metadata: Any) -> Iterator[Chunk]:
        if event == "error":
            about = content if isinstance(content, Mapping) else {}
            raise StreamError(about.get("code", "error"), about.get("message", text), about)
        if event == "done":
            self.end = content if isinstance(content, Mapping) else {"content": content}
            return
        numbered = self.id is not None and own_id is not None and "/" in own_id
        if numbered and own_id is not None:
            number = int(own_id.rpartition("/")[2])
            if event == "gap":
                self._next = content["to"]
            else:
                # What the server no longer had when a stream was continued from its beginning.
                if number > self._next:
                    yield Chunk({"from": self._next, "to": number}, "", "gap")
                self._next = number + 1
        yield Chunk(content, text, event, own_id, metadata)
        if numbered and own_id is not None:
            self._last = own_id


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False, separators=(",", ":"))


def _seconds(value: str) -> float:
    """Return the seconds that `Retry-After` asks to wait: a number or a date (RFC 9110, section 10.2.3)."""
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return 0.0
