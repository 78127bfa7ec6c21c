"""sse-starlette's EventSourceResponse on uvicorn with uvloop and httptools."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import uvicorn
from events import payload
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route


async def _burst(count: int) -> AsyncIterator[ServerSentEvent]:
    for index in range(count):
        yield ServerSentEvent(data=payload(index, count).decode(), id=str(index), sep="\n")
    yield ServerSentEvent(data="[DONE]", event="done", sep="\n")


async def burst(request: Request) -> EventSourceResponse:
    return EventSourceResponse(_burst(int(request.query_params.get("count", 1000))))


uvicorn.run(
    Starlette(routes=[Route("/burst", burst)]),
    host="127.0.0.1",
    port=int(sys.argv[1]),
    loop="uvloop",
    http="httptools",
    log_level="warning",
    access_log=False,
    backlog=4096,
)
