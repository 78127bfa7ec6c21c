"""aiohttp and asyncpg by hand: a cursor, a line a row."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

import asyncpg
import uvloop
from aiohttp import web
from events import row

SQL = "SELECT id, device, temperature, price, active, at FROM readings ORDER BY id"
POOL = web.AppKey("pool", asyncpg.Pool)


async def open_pool(app: web.Application) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as pool:
        app[POOL] = pool
        yield


async def rows(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "application/x-ndjson; charset=utf-8", "Cache-Control": "no-cache"}
    )
    async with request.app[POOL].acquire() as connection, connection.transaction(readonly=True):
        await response.prepare(request)
        async for record in connection.cursor(SQL, prefetch=1000):
            await response.write(row(record))
    await response.write_eof()
    return response


def main() -> None:
    app = web.Application()
    app.cleanup_ctx.append(open_pool)
    app.router.add_get("/rows", rows)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
        backlog=4096,
    )


main()
