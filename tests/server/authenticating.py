"""Projects with authentication on a real socket, tokens as anybody could make them, and a server of keys."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from streamstack.functions import REGISTRY
from streamstack.language.project import read_project
from streamstack.runtime.plan import compile_project
from streamstack.server.connection import HttpServer
from streamstack.server.context import make_context
from streamstack.server.endpoints import make_cors, make_endpoints
from streamstack.server.service import Service
from tests.server.serving import Server
from tests.upstreams import Script, Wire

SECRET = "a-secret-of-the-tests-with-32-bytes-or-more"
AnyKey = RSAKey | ECKey | OKPKey

#: One endpoint that tells who calls, whatever the authentication.
WHO = """
method: GET
path: /who
responseType: json
authentication: jwt
functionStack: [{return: << auth >>}]
"""
BY_SECRET = """
authentication:
  jwt: {type: jwt, secret: << env.JWT_SECRET >>}
"""


@asynccontextmanager
async def project(
    folder: Path, settings: str = BY_SECRET, definitions: str = WHO, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """Serve a project as `serve` does: read, checked, compiled, with its settings."""
    environment = {"JWT_SECRET": SECRET} if environment is None else environment
    (folder / "streamstack.yaml").write_text(settings)
    (folder / "endpoints.yaml").write_text(definitions)
    checked = read_project(folder, REGISTRY, environment, check_environment=True)
    assert [each for each in checked.findings if each.severity == "error"] == []
    endpoints = make_endpoints(compile_project(checked.project), checked.settings, dev=False)
    context = make_context(checked, environment, dev=False)
    cors = make_cors(checked.settings.server.cors)
    async with Service(endpoints, context=context, cors=cors, max_memory=checked.settings.server.max_memory) as service:
        limits = checked.settings.server
        listening = HttpServer(service, most=limits.max_connections, head_timeout=limits.head_timeout)
        runner = web.ServerRunner(listening, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server = Server(service, site.port, runner)
        try:
            yield server
        finally:
            for client in server.clients:
                client.close()
            await runner.cleanup()
            service.abandon()
            await asyncio.sleep(0.01)


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a token that is valid for a minute; None leaves one out."""
    now = int(time.time())
    made = {"sub": "ada", "iat": now, "exp": now + 60} | changes
    return {name: value for name, value in made.items() if value is not None}


def signed(
    payload: Mapping[str, Any] | bytes | None = None,
    key: AnyKey | str = SECRET,
    algorithm: str = "HS256",
    **header: Any,
) -> str:
    """Sign a payload under a header, whatever they hold."""
    if payload is None:
        payload = claims()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    top = {"alg": algorithm, **header}
    content = f"{part(json.dumps(top).encode())}.{part(body)}"
    if isinstance(key, str):
        signature = hmac.digest(key.encode(), content.encode(), f"sha{algorithm[2:]}")
    else:
        signature = jws.JWSRegistry.algorithms[algorithm].sign(content.encode(), key)
    return f"{content}.{part(signature)}"


def part(data: bytes) -> str:
    """Return bytes as a part of a token."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def bearer(token: str) -> dict[str, str]:
    """Return the header that a token is sent in."""
    return {"Authorization": f"Bearer {token}"}


def told(body: bytes) -> dict[str, Any]:
    """Return a JSON document."""
    document: dict[str, Any] = json.loads(body)
    return document


class Publisher:
    """What a server of keys publishes: it can turn its keys, and be away."""

    def __init__(self, *keys: AnyKey) -> None:
        self.keys = list(keys)
        self.away = False
        self.delay = 0.0
        self.asked = 0
        self.headers: tuple[str, ...] = ()

    @property
    def script(self) -> Script:
        """The script of a connection: one answer."""
        return self._answer

    async def _answer(self, wire: Wire) -> None:
        self.asked += 1
        await asyncio.sleep(self.delay)
        if self.away:
            await wire.send(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        data = json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()
        lines = ["HTTP/1.1 200 OK", "Content-Type: application/jwk-set+json", *self.headers]
        lines += [f"Content-Length: {len(data)}", "Connection: close"]
        await wire.send("\r\n".join([*lines, "", ""]).encode() + data)
