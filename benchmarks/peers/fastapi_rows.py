"""FastAPI and asyncpg on uvicorn with uvloop and httptools: a cursor in a StreamingResponse, a line a row."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from events import row
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

SQL = "SELECT id, device, temperature, price, active, at FROM readings ORDER BY id"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


async def _rows(pool: asyncpg.Pool) -> AsyncIterator[bytes]:
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        async for record in connection.cursor(SQL, prefetch=1000):
            yield row(record)


@app.get("/rows")
async def rows(request: Request) -> StreamingResponse:
    return StreamingResponse(_rows(request.app.state.pool), media_type="application/x-ndjson")


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
