"""Serving endpoints written in YAML on a real socket, and readers of them that do not read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from textwrap import dedent
from typing import Any

from streamstack.functions import REGISTRY
from streamstack.language.definition import Endpoint, Parameter, Project, Registry, function
from streamstack.language.kinds import Kind
from streamstack.language.loading.documents import load
from streamstack.language.settings import Settings, Streaming
from streamstack.language.source import read
from streamstack.runtime.plan import compile_project
from streamstack.runtime.run import Run
from streamstack.server.endpoints import make_endpoints
from streamstack.server.headers import CorsHeaders
from streamstack.spec import Bound
from tests.server.serving import Client, Server, serving


@asynccontextmanager
async def declared(
    text: str, defaults: Streaming | None = None, cors: CorsHeaders | None = None
) -> AsyncIterator[tuple[Server, list[Any]]]:
    """Serve the endpoints of a text; give the server and what their `test.note` noted."""
    noted: list[Any] = []

    @function("test.note", Parameter("value", Bound(Kind.ANY), "What to note.", required=True, main=True))
    def note(run: Run, value: Any) -> None:
        """Note a value."""
        noted.append(value)

    registry = Registry([*REGISTRY.values(), note])
    documents, findings = read(dedent(text), "test.yaml")
    assert findings == [], findings
    endpoints = []
    for document in documents:
        definition, findings = load(document, registry, defaults or Streaming())
        assert findings == [], findings
        assert isinstance(definition, Endpoint)
        endpoints.append(definition)
    plans = compile_project(Project(tuple(endpoints), {}))
    async with serving(*make_endpoints(plans, Settings(), dev=False), cors=cors) as server:
        yield server, noted


async def eventually(told: Callable[[], Any]) -> None:
    """Wait until something holds."""
    for _ in range(2000):
        if told():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be so")


async def small_reader(server: Server, path: str, extra: str = "") -> Client:
    """Ask for a stream with a socket that holds little, and read nothing of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    client = Client(reader, writer)
    server.clients.append(client)
    client.ask(path, extra=extra)
    return client
