"""A request as this server makes it: aiohttp's, with what each answer asks of it known ahead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiohttp import StreamReader, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

if TYPE_CHECKING:
    from streamstack.server.connection import Connection

#: Where a request has no writer and no task of its own: answers are written to the transport.
_NONE: Final[Any] = None


class Request(web.BaseRequest):
    """One request of a connection."""

    # Instead of aiohttp's, which makes room for what a proxy's or a test's request has besides.
    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.connection = connection
        self._message = message
        self._protocol = connection
        self._payload_writer = _NONE
        self._payload = payload
        self._headers = message.headers
        self._method = message.method
        self._version = message.version
        # What aiohttp's properties keep once they were asked.
        self._cache: dict[str, Any] = {
            "headers": message.headers,
            "method": message.method,
            "version": message.version,
            "raw_path": message.path,
            "keep_alive": not message.should_close,
            "content": payload,
            "body_exists": payload is not EMPTY_PAYLOAD,
        }
        url = message.url
        if url.absolute:
            if url.scheme:
                # The caller writes what it likes there: the connection knows better.
                url = url.with_scheme("https" if connection.ssl_context else "http")
            self._cache["url"] = url
            self._cache["host"] = url.host
            url = url.relative()
        self._rel_url = url
        self._state: dict[Any, Any] = {}
        self._task = _NONE
        # The endpoint's own limit is checked while the body is read; aiohttp's would come before.
        self._client_max_size = 0
        self._client_max_fields = 0
        self._loop = loop
        self._transport_sslcontext = connection.ssl_context
        self._transport_peername = connection.peername
        self._transport_sockname = connection.sockname
