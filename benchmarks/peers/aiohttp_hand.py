"""aiohttp as one writes it by hand: uvloop, no access log, a write per chunk."""

from __future__ import annotations

import asyncio
import sys

import orjson
import uvloop
from aiohttp import web
from events import DONE, HEADERS, event, quote


def _number(request: web.Request, name: str, otherwise: int) -> int:
    try:
        return int(request.query.get(name, otherwise))
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name} must be a whole number") from None


async def burst(request: web.Request) -> web.StreamResponse:
    count = _number(request, "count", 1000)
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    for index in range(count):
        await response.write(event(index, count))
    await response.write(DONE)
    await response.write_eof()
    return response


async def paced(request: web.Request) -> web.StreamResponse:
    count = _number(request, "count", 10)
    interval = _number(request, "interval", 1000) / 1000
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    due = loop.time()
    for index in range(count):
        if index:
            due += interval
            await asyncio.sleep(due - loop.time())
        await response.write(event(index, count))
    await response.write(DONE)
    await response.write_eof()
    return response


async def small(request: web.Request) -> web.Response:
    try:
        body = orjson.loads(await request.read())
    except ValueError:
        raise web.HTTPBadRequest(text="the body must be JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body must be an object")
    article, quantity = body.get("article"), body.get("quantity")
    express = body.get("express", False)
    if not isinstance(article, str) or not 1 <= len(article) <= 100:
        raise web.HTTPBadRequest(text="article must be a text of 1 to 100 characters")
    if type(quantity) is not int or not 1 <= quantity <= 1000:
        raise web.HTTPBadRequest(text="quantity must be a whole number from 1 to 1000")
    if not isinstance(express, bool):
        raise web.HTTPBadRequest(text="express must be true or false")
    return web.Response(body=orjson.dumps(quote(article, quantity, express=express)), content_type="application/json")


def main() -> None:
    app = web.Application()
    app.router.add_get("/burst", burst)
    app.router.add_get("/paced", paced)
    app.router.add_post("/quote", small)
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
