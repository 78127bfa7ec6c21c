"""FastAPI on uvicorn with uvloop and httptools: StreamingResponse, and a pydantic model for JSON."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import uvicorn
from events import DONE, HEADERS, event, quote
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

app = FastAPI()


class Order(BaseModel):
    """What is asked for."""

    article: Annotated[str, Field(min_length=1, max_length=100)]
    quantity: Annotated[int, Field(ge=1, le=1000)]
    express: bool = False


class Quote(BaseModel):
    """What is answered."""

    article: str
    quantity: int
    express: bool
    total: float


async def _burst(count: int) -> AsyncIterator[bytes]:
    for index in range(count):
        yield event(index, count)
    yield DONE


async def _paced(count: int, interval: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    due = loop.time()
    for index in range(count):
        if index:
            due += interval
            await asyncio.sleep(due - loop.time())
        yield event(index, count)
    yield DONE


@app.get("/burst")
async def burst(count: int = 1000) -> StreamingResponse:
    return StreamingResponse(_burst(count), headers=HEADERS)


@app.get("/paced")
async def paced(count: int = 10, interval: int = 1000) -> StreamingResponse:
    return StreamingResponse(_paced(count, interval / 1000), headers=HEADERS)


@app.post("/quote")
async def small(order: Order) -> Quote:
    return Quote(**quote(order.article, order.quantity, express=order.express))


uvicorn.run(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    loop="uvloop",
    http="httptools",
    log_level="warning",
    access_log=False,
    backlog=4096,
)
