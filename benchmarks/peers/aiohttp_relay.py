"""aiohttp as one writes it by hand, as server and as client: the upstream's events are parsed as they come."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

import orjson
import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from events import DONE, HEADERS, message_of, piece, question, text_of

URL = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
KEY = os.environ["OPENAI_API_KEY"]
SESSION = web.AppKey("session", ClientSession)


async def open_session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(
        connector=TCPConnector(limit=0),
        timeout=ClientTimeout(total=None, sock_read=60),
        headers={"Authorization": f"Bearer {KEY}"},
        json_serialize=lambda value: orjson.dumps(value).decode(),
    ) as session:
        app[SESSION] = session
        yield


async def relay(request: web.Request) -> web.StreamResponse:
    try:
        message = message_of(await request.read())
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    async with request.app[SESSION].post(URL, json=question(message)) as upstream:
        if upstream.status != 200:
            raise web.HTTPBadGateway
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        index = 0
        async for line in upstream.content:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                break
            text = text_of(orjson.loads(data))
            if text:
                await response.write(piece(text, index))
                index += 1
        await response.write(DONE)
        await response.write_eof()
        return response


def main() -> None:
    app = web.Application()
    app.cleanup_ctx.append(open_session)
    app.router.add_post("/relay", relay)
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
