"""A model's answer as a stream: the request, the events, the items."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress
from time import perf_counter
from typing import Any, Final

from streamstack.connections.http import Answer, HttpClient, Request
from streamstack.errors import RunError
from streamstack.functions.http_requests import (
    content_error,
    headers_of,
    read_retry_after,
    status_error,
)
from streamstack.functions.http_upstream import Times, Upstream
from streamstack.runtime.decoders.decoder import OnInvalid
from streamstack.runtime.decoders.formats import read_content_type
from streamstack.runtime.providers.events import AnswerDecoder
from streamstack.runtime.providers.provider import AnswerReader, Provider, told_error
from streamstack.runtime.run import Run
from streamstack.runtime.values import Batches

#: Media types that can't be a stream of events, and so are an error in disguise.
_CONTRADICTIONS: Final = frozenset({"text/html", "application/json", "application/problem+json"})
#: Seconds that the end of the body has after the end marker, so that the connection can be used again.
_LAST_BYTES: Final = 0.005
#: Stands for events that give no item: the model is at work.
_SIGN: Final = object()


class ModelStream(Upstream):
    """One answer of a model."""

    def __init__(
        self,
        run: Run,
        client: HttpClient,
        provider: Provider,
        model: str,
        request: Request,
        times: Times,
        on_invalid: OnInvalid,
        largest: int,
    ) -> None:
        super().__init__(run, request.url, times, None, model=model)
        self.status: int | None = None
        self.headers: dict[str, Any] | None = None
        self._client = client
        self._provider = provider
        self._request = request
        self._on_invalid = on_invalid
        self._largest = largest
        self._answer: Answer | None = None
        self._decoder: AnswerDecoder | None = None
        self._reader: AnswerReader | None = None

    @property
    def message(self) -> dict[str, Any] | None:
        """What has come so far; None before the stream opens."""
        return self._reader.reply.view if self._reader is not None else None

    @property
    def skipped(self) -> int | None:
        """How many events were skipped; None before the stream opens."""
        return self._decoder.skipped if self._decoder is not None else None

    async def batches(self) -> Batches:
        """Give the items. Events without any show that the model is at work, and go no further."""
        settings = self._client.settings
        self._reader = self._provider.reader(self.host, settings.max_body_size)
        self._decoder = AnswerDecoder(self._reader, self._on_invalid, self._largest)
        async with aclosing(super().batches()) as batches:
            async for batch in batches:
                if batch[0] is not _SIGN:
                    yield batch

    async def open(self) -> None:
        answer = self._answer = await self._client.send(self._request)
        self.status, self.headers = answer.status, headers_of(answer)
        if not 200 <= answer.status < 300:
            error = await status_error(answer)
            if answer.status > 500:  # 529 is Anthropic's, 52x are those of the proxies before it
                error.final, error.retry_after = False, read_retry_after(answer)
            raise error
        media, _ = read_content_type(answer.headers.get("Content-Type"))
        if media in _CONTRADICTIONS:
            error = await content_error(answer, media, "a stream of events")
            raise self._told(error) or error

    def _told(self, error: RunError) -> RunError | None:
        """Return the provider's error that came as JSON where a stream was asked for, None where it is none."""
        body = error.details.get("body")
        about = body[0] if isinstance(body, list) and body else body
        if not isinstance(about, Mapping) or not about.get("error"):
            return None
        return self._detailed(told_error(self.host, about, about["error"]))

    def _detailed(self, error: RunError) -> RunError:
        if error.code == "http-status":
            error.details = {"status": self.status, "headers": self.headers, **error.details}
        return error

    async def items(self) -> list[Any]:
        assert self._answer is not None
        assert self._decoder is not None
        assert self._reader is not None
        decoder, reader = self._decoder, self._reader
        while True:
            if decoder.failure is not None:
                raise self._detailed(decoder.failure)
            if reader.ended:
                await self._read_end(self._answer)
                return []
            decoder.alive = False
            items = _decode(await self._answer.read(), decoder, reader)
            if items:
                return items
            if decoder.alive:
                return [_SIGN]

    async def _read_end(self, answer: Answer) -> None:
        """Read what is left where it is there already: a connection read to its end can be used again."""
        due = perf_counter() + _LAST_BYTES
        with suppress(TimeoutError, RunError):
            async with asyncio.timeout(_LAST_BYTES):
                while perf_counter() < due and await answer.read():
                    pass

    def goes_on(self) -> bool:
        return False

    async def close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()


def _decode(data: bytes, decoder: AnswerDecoder, reader: AnswerReader) -> list[Any]:
    """Return the items of what came; of nothing, those of the end."""
    items = decoder.feed(data) if data else decoder.finish()
    if decoder.failure is None and not reader.ended and (decoder.ended or not data):
        try:
            reader.close(items, marked=decoder.ended)
        except RunError as error:
            decoder.failure = error
    return items
