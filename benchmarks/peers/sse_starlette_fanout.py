"""Fan-out by sse-starlette: a queue a subscriber, as its documentation shows, on uvicorn with uvloop and httptools."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import orjson
import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

#: Messages that wait for a subscriber; of more, a slow one loses the newest.
MOST = 1000
queues: set[asyncio.Queue[str]] = set()


async def _messages() -> AsyncIterator[ServerSentEvent]:
    queue: asyncio.Queue[str] = asyncio.Queue(MOST)
    queues.add(queue)
    try:
        while True:
            yield ServerSentEvent(data=await queue.get(), sep="\n")
    finally:
        queues.discard(queue)


async def subscribe(request: Request) -> EventSourceResponse:
    return EventSourceResponse(_messages())


async def publish(request: Request) -> Response:
    data = orjson.dumps(orjson.loads(await request.body())).decode()
    for queue in queues:
        if not queue.full():
            queue.put_nowait(data)
    return Response(b'{"published":true}', media_type="application/json")


uvicorn.run(
    Starlette(routes=[Route("/fanout", subscribe), Route("/fanout", publish, methods=["POST"])]),
    host="127.0.0.1",
    port=int(sys.argv[1]),
    loop="uvloop",
    http="httptools",
    log_level="warning",
    access_log=False,
    backlog=4096,
)
