"""Who answers for api.example.org, which the examples of functions call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from streamstack.connections.http import Route, UpstreamRequest
from streamstack.language.settings import HttpSettings

HOST = "api.example.org"

_PRICES = """\
id: 1
event: price
data: {"symbol": "A", "price": 1.5}

id: 2
event: price
data: {"symbol": "B", "price": 2}

"""
_HELLO = """\
data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}]}

data: {"choices": [{"index": 0, "delta": {"content": "lo"}}]}

data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}

data: [DONE]

"""
#: Content-Type and body by path.
_ANSWERS = {
    "/people/7": ("application/json", '{"name": "Ada", "city": "London"}'),
    "/v1/chat/completions": ("text/event-stream", _HELLO),
    "/prices": ("text/event-stream", _PRICES),
    "/log": ("application/x-ndjson", '{"level": "info"}\noops\n{"level": "error"}\n'),
    "/export": ("application/json", '{"data": {"items": [{"id": 1}, {"id": 2}]}}'),
}


async def _handle(request: web.BaseRequest) -> web.StreamResponse:
    if request.path == "/feed":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        topic = (await socket.receive_json())["subscribe"]
        for number in (1, 2):
            await socket.send_json({"topic": topic, "number": number})
        return socket
    if request.path == "/people" and request.method == "POST":
        return web.json_response(await request.json() | {"id": 8}, status=201)
    if request.path not in _ANSWERS:
        return web.json_response({"error": "no such thing"}, status=404)
    content_type, text = _ANSWERS[request.path]
    return web.Response(text=text, content_type=content_type)


@asynccontextmanager
async def example_upstream() -> AsyncIterator[HttpSettings]:
    """Serve what examples call; give the settings under which they reach it."""
    runner = web.ServerRunner(web.Server(_handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()

    async def redirect(request: UpstreamRequest) -> Route | None:
        plain = "ws" if request.url.scheme == "wss" else "http"
        return Route(request.url.with_scheme(plain).with_host("127.0.0.1").with_port(site.port))

    try:
        yield HttpSettings(redirect=redirect)
    finally:
        await runner.cleanup()
