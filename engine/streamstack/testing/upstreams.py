"""The upstreams of a test: one local server that takes the place of every host that the project calls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from streamstack.connections.http import Route, UpstreamRequest
from streamstack.errors import RunError
from streamstack.language.cases import Upstream
from streamstack.runtime.run import Address
from streamstack.testing.answers import AnswerError, Fault, Sender, Written, disconnect, make_answer
from streamstack.testing.calls import Call, fits
from streamstack.testing.certificates import authority
from streamstack.testing.messages import MessageAnswer
from streamstack.testing.models import ModelRequest

#: Tells the server which call a request is. It is not among the headers of the call.
_CALL: Final = "X-Streamstack-Test-Call"
_HOST: Final = "127.0.0.1"


class LocalUpstreams:
    """Serves the upstreams of a test on 127.0.0.1, in the running event loop.

    `redirect` belongs into `HttpSettings.redirect`. Requests to ``address``, the project's own, are not redirected.
    """

    def __init__(self, upstreams: Sequence[Upstream] = (), *, address: Address | None = None) -> None:
        self.upstreams = tuple(upstreams)
        self.address = address
        self.calls: list[Call] = []
        self._answered = [0] * len(self.upstreams)
        self._faults: dict[int, Fault] = {}
        self._senders: dict[int, Sender] = {}  # by number of the call
        self._ports: dict[str, int] = {}  # by host; "" without TLS
        self._servers: list[asyncio.Server] = []
        self._handlers: web.Server | None = None
        self._closed_port = socket.socket()
        self._closing = False

    async def __aenter__(self) -> Self:
        self._closed_port.bind((_HOST, 0))  # it does not listen: connections are refused
        self._handlers = web.Server(self._handle, handler_cancellation=True, access_log=None, auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._closed_port.close()
        for server in self._servers:
            server.close()
        assert self._handlers is not None
        await self._handlers.shutdown(0)
        for server in self._servers:
            await server.wait_closed()

    def overlay(self, number: int, fault: Fault) -> None:
        """Change the answer of the call with a number."""
        self._faults[number] = fault

    # ------------------------------------------------------------- the client's side

    async def redirect(self, request: UpstreamRequest) -> Route | None:
        """Record a call, and return where it is sent: to this server, or where the connection is refused.

        Raises RunError ``http-connection`` for a call that no upstream answers, or not in the way it is written.
        """
        own = self.address.url if self.address is not None else None
        if own is not None and request.url.origin() == URL(own).origin():
            return None
        headers = request.headers.copy()
        call = Call(len(self.calls) + 1, request.method, request.url, headers)
        self.calls.append(call)
        # A body that is read as it is sent is known when it has arrived.
        if request.body is None or isinstance(request.body, bytes):
            call.body = request.body or b""
            self._choose(call)
        elif not any(fits(each.match, call, with_body=False) for each in self.upstreams):
            self._choose(call)
        port = self._closed_port.getsockname()[1]
        secure = request.url.scheme in ("https", "wss")
        if call.respond is None or not call.respond.refuse:
            port = await self._port(request.url.raw_host or "" if secure else "")
        url = request.url.with_host(_HOST).with_port(port)
        return Route(url, {_CALL: str(call.number)}, authority().client if secure else None)

    def _choose(self, call: Call) -> Sender:
        """Choose the answer of a call.

        Raises RunError ``http-connection`` where no upstream answers it, or not in the way it is written.
        """
        index = next((index for index, each in enumerate(self.upstreams) if fits(each.match, call)), None)
        try:
            sender = self._unanswered(call) if index is None else self._answer(call, index)
        except AnswerError as error:
            call.problem = str(error)
            raise RunError("http-connection", str(error), final=True) from error
        call.events, call.chunks = sender.events, sender.chunks
        self._senders[call.number] = sender
        return sender

    def _answer(self, call: Call, index: int) -> Sender:
        """Return the next answer of an upstream."""
        call.upstream = upstream = self.upstreams[index]
        respond = upstream.responds[min(self._answered[index], len(upstream.responds) - 1)]
        self._answered[index] += 1
        fault = self._faults.get(call.number)
        call.respond = respond = respond if fault is None else fault.change(respond)
        if call.url.scheme in ("ws", "wss") and respond.messages is not None:
            return MessageAnswer.of(respond)
        return make_answer(respond, ModelRequest(call.url, call.body, call.number), call.method)

    def _unanswered(self, call: Call) -> Sender:
        """Return what answers a call that no upstream does. Raises AnswerError if nothing does."""
        url = call.url.with_query(None).with_user(None)
        raise AnswerError(
            f"no upstream of this test answers {call.method} {url}: "
            f"add `- match: {{method: {call.method}, url: {url}}}` with its `respond`"
        )

    async def _port(self, host: str) -> int:
        """Return the port on which a host is answered for with its certificate; "" is every host without TLS."""
        if host not in self._ports:
            plug = socket.create_server((_HOST, 0), backlog=1024)
            # Noted before others run: all first calls of a host lead to one port.
            self._ports[host] = plug.getsockname()[1]
            assert self._handlers is not None
            tls = authority().server(host) if host else None
            server = await asyncio.get_running_loop().create_server(self._handlers, sock=plug, ssl=tls)
            self._servers.append(server)
        return self._ports[host]

    # ------------------------------------------------------------- the server's side

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        number = request.headers.get(_CALL, "")
        if not number.isdecimal() or int(number) > len(self.calls):
            return web.Response(status=404, text="This is the server of a test's upstreams.\n")
        call = self.calls[int(number) - 1]
        call.headers = CIMultiDict((name, value) for name, value in request.headers.items() if name != _CALL)
        loop = asyncio.get_running_loop()
        try:
            call.body = b"".join([piece async for piece in request.content.iter_any()])
            call.arrived = loop.time()
            sender = self._senders.get(call.number) or self._choose(call)
            if call.respond is not None and call.respond.refuse and request.transport is not None:
                call.ended = loop.time()
                disconnect(request.transport, reset=True)
                return Written(keep=False)
            return await sender.send(request, call)
        except RunError as error:  # of an answer that was chosen now
            raise ConnectionAbortedError(error.message) from error
        except (ConnectionError, asyncio.CancelledError):
            if not self._closing and call.ended is None:
                call.closed = loop.time()
            raise
