"""FastAPI and httpx on uvicorn with uvloop and httptools: the upstream's lines, one after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import orjson
import uvicorn
from events import DONE, HEADERS, piece, question, text_of
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

URL = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
KEY = os.environ["OPENAI_API_KEY"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=httpx.Timeout(60),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
    ) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


class Asked(BaseModel):
    """What is asked for."""

    message: Annotated[str, Field(min_length=1)]


async def _pieces(upstream: httpx.Response) -> AsyncIterator[bytes]:
    index = 0
    try:
        async for line in upstream.aiter_lines():
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                break
            text = text_of(orjson.loads(data))
            if text:
                yield piece(text, index)
                index += 1
        yield DONE
    finally:
        await upstream.aclose()


@app.post("/relay")
async def relay(asked: Asked, request: Request) -> StreamingResponse:
    client: httpx.AsyncClient = request.app.state.client
    upstream = await client.send(client.build_request("POST", URL, json=question(asked.message)), stream=True)
    if upstream.status_code != 200:
        await upstream.aclose()
        raise HTTPException(502)
    return StreamingResponse(_pieces(upstream), headers=HEADERS)


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
