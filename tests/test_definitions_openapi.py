"""The OpenAPI document of the definitions of this repository, against what they answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from click.testing import CliRunner

from streamstack.cli import main
from streamstack.formats import BY_MEDIA_TYPE
from tests.contract import Contract
from tests.server.processes import Process, serving
from tests.server.serving import Reply, parse
from tests.test_definitions import DEFINITIONS
from tests.test_definitions_models import LEADING

JSON = "Content-Type: application/json\r\n"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
READINGS = b"".join(b'{"sensor": "a", "value": %d}\n' % number for number in (1, 200, 3))
FILE = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nname,city\r\nAda,London\r\nGrace\r\n'
    b"\r\n--x--\r\n"
)
#: Requests to each operation: method, path of the document, what is sent, and the status.
REQUESTS: list[tuple[str, str, str, bytes, str, int]] = [
    ("POST", "/_runs/{run}/rating", "none/rating", b'{"rating": "up"}', JSON, 404),
    ("POST", "/api/read-aloud", "", b'{"text": "The quick brown fox"}', JSON, 200),
    ("GET", "/api/ratings", "", b"", "", 200),
    ("POST", "/api/stream-chat", "", b'{"message": "Hi", "streamOptions": {"includeMetadata": true}}', JSON, 200),
    ("POST", "/api/stream-chat", "", b"{}", JSON, 400),
    ("POST", "/api/broadcasts", "", b'{"title": "News", "text": "Hi"}', JSON, 200),
    ("POST", "/api/broadcasts", "", b"{}", JSON, 400),
    ("POST", "/api/broadcasts/received", "", b"{}", JSON, 200),
    ("GET", "/api/conversations", "", b"", "", 200),
    ("GET", "/api/conversations/{conversation}", "7d444840-9dc0-11d1-b245-5ffdce74fad2", b"", "", 404),
    ("GET", "/api/conversations/{conversation}", "no-uuid", b"", "", 400),
    ("GET", "/api/countdown", "?from=3&beat=0", b"", "", 200),
    ("GET", "/api/countdown", "?from=0", b"", "", 400),
    ("POST", "/api/csv-import", "", FILE, "Content-Type: multipart/form-data; boundary=x\r\n", 200),
    ("POST", "/api/csv-import", "", b"a", "Content-Type: text/plain\r\n", 415),
    ("GET", "/api/dashboard", "?beat=1&count=30", b"", "", 200),
    ("GET", "/api/fails-midway", "", b"", "", 200),
    ("GET", "/api/fails-midway", "?after=0", b"", "", 409),
    ("GET", "/api/fair-share", "?words=1", b"", "", 200),
    ("POST", "/api/imports", "", b'{"pages": 1}', JSON, 202),
    ("POST", "/api/imports", "", b'{"pages": 0}', JSON, 400),
    ("GET", "/api/imports/{id}", "unknown", b"", "", 404),
    ("GET", "/api/glossary", "?term=stream", b"", "", 200),
    ("GET", "/api/glossary", "?term=s", b"", "", 400),
    ("GET", "/api/live-feed", "?limit=3", b"", "", 200),
    ("GET", "/api/long-report", "?pages=2&beat=0", b"", "", 200),
    ("GET", "/api/long-report", "?lastEventId=none/1", b"", "", 404),
    ("POST", "/api/orders", "", b'{"product": 7}', JSON, 201),
    ("POST", "/api/orders", "", b'{"product": 2147483647}', JSON, 409),
    ("GET", "/api/partners/prices", "", b"", "X-Partner: acme\r\n", 200),
    ("GET", "/api/partners/prices", "", b"", "", 403),
    ("GET", "/api/partners/status", "", b"", "", 200),
    ("GET", "/api/private-stream", "", b"", "Authorization: Bearer {token}\r\n", 200),
    ("GET", "/api/private-stream", "", b"", "", 401),
    ("GET", "/api/private-stream", "", b"", "Authorization: Bearer {poor}\r\n", 403),
    ("GET", "/api/products/search", "?text=oak&pageSize=3", b"", "", 200),
    ("GET", "/api/products/cursor", "?category=office", b"", "", 200),
    ("GET", "/api/products/pages", "?pageSize=5&limit=12", b"", "", 200),
    ("POST", "/api/sensor-webhook", "", READINGS, "Content-Type: application/x-ndjson\r\n", 200),
    ("POST", "/api/split-text", "", b"text=one+two", "Content-Type: application/x-www-form-urlencoded\r\n", 200),
    ("POST", "/api/stream-poem", "", b"", "", 200),
    ("POST", "/api/text-statistics", "", b'{"text": "To be"}', JSON, 200),
    ("GET", "/api/two-models", "?question=Hi&right=gemini", b"", "", 200),
    *(
        ("POST", f"/simulator/{path}", "", json.dumps({**HELLO, **asked}).encode(), JSON, 200)
        for path in ("openai/v1/chat/completions", "anthropic/v1/messages")
        for asked in ({"stream": True, "stream_options": {"include_usage": True}}, {})
    ),
    ("POST", "/simulator/openai/v1/chat/completions", "", b'{"messages": []}', JSON, 400),
    (
        "POST",
        "/simulator/gemini/{version}/models/{call}",
        "",
        b'{"contents": [{"parts": [{"text": "Hi"}]}]}',
        JSON,
        200,
    ),
    ("GET", "/simulator/catalogue", "?page=2", b"", "", 200),
    ("PUT", "/api/price-board/{symbol}", "ACME", b'{"price": 1.5}', JSON, 200),
    ("GET", "/simulator/prices", "?perConnection=3&beat=0", b"", "", 200),
]
#: Operations that need another one first.
LATER = {
    ("get", "/api/orders/live"),
    ("get", "/api/price-board"),
    ("get", "/api/shop-board"),
    ("get", "/api/rooms/{room}"),
    ("get", "/api/broadcasts/live"),
    ("get", "/_streams/{id}"),
    ("delete", "/_streams/{id}"),
}


@pytest.fixture
def machine(shared_postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a database, and no model: the simulator answers."""
    for name in LEADING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", shared_postgres)
    monkeypatch.setenv("JWT_SECRET", "x" * 40)


@pytest_asyncio.fixture
async def server(machine: None) -> AsyncIterator[Process]:
    """Serve definitions/ under `--dev`."""
    async with serving(DEFINITIONS, "--dev") as process:
        yield process


async def ask(server: Process, method: str, path: str, body: bytes, headers: str) -> Reply:
    """Send a request with a body of any type."""
    client = await server.connect()
    client.ask(path, method, extra=f"Connection: close\r\nContent-Length: {len(body)}\r\n{headers}")
    client.writer.write(body)
    try:
        return parse(await asyncio.wait_for(client.reader.read(), 20))
    finally:
        client.close()


async def begin(server: Process, path: str) -> Reply:
    """Return the first event of a stream without an end."""
    client = await server.connect()
    client.ask(path, extra="Accept: text/event-stream\r\n")
    raw = b""
    try:
        while b"\n\n" not in raw:
            raw += await asyncio.wait_for(client.reader.read(65_536), 20)
        return parse(raw)
    finally:
        client.close()


def run(*arguments: str) -> str:
    """Return what a command prints."""
    found = CliRunner().invoke(main, list(arguments))
    assert found.exit_code == 0, found.output
    return found.stdout


def target(path: str, more: str) -> str:
    """Return the path of a request to an operation."""
    if path.startswith("/simulator/gemini"):
        return "/simulator/gemini/v1beta/models/gemini:streamGenerateContent?alt=sse"
    return path.partition("{")[0] + more


async def test_answers_are_as_the_document_says(server: Process) -> None:
    """Every operation, in each format that it has, and its errors."""
    found = await server.ask("GET", "/_openapi.json")
    contract = Contract(json.loads(found.body))
    tokens = {
        name: run("token", "--auth", "jwt", "--claim", "sub=ada", "--scope", scope, "--dir", str(DEFINITIONS)).strip()
        for name, scope in (("token", "chat"), ("poor", "other"))
    }
    waiting = []
    for method, path, more, body, headers, status in REQUESTS:
        responses = contract.document["paths"][path][method.lower()]["responses"]
        media = contract.resolve(responses[str(status)])["content"]
        # Three requests in ten seconds are the limit of one of them.
        once = status != 200 or path == "/api/fair-share"
        for accept in ["*/*"] if once else [each for each in media if each in BY_MEDIA_TYPE]:
            extra = f"{headers.format(**tokens)}Accept: {accept}\r\n"
            waiting.append((method, path, status, accept, ask(server, method, target(path, more), body, extra)))
    replies = await asyncio.gather(*(each[-1] for each in waiting))
    for (method, path, status, accept, _), reply in zip(waiting, replies, strict=True):
        # A document is not begun before its run has ended.
        wanted = 503 if (path, accept) == ("/api/fails-midway", "application/json") else status
        assert reply.status == wanted, (path, accept, reply.body[:500])
        assert contract.check(method, path, reply) > 0
    paths = contract.document["paths"]
    every = {(method, path) for path, item in paths.items() for method in item if method != "parameters"}
    assert every - {(method.lower(), path) for method, path, *_ in REQUESTS} == LATER
    listening = asyncio.create_task(ask(server, "GET", "/api/orders/live?limit=1", b"", ""))
    while not (await asyncio.wait({listening}, timeout=0.1))[0]:
        await ask(server, "POST", "/api/orders", b'{"product": 8}', JSON)
    assert contract.check("GET", "/api/orders/live", listening.result()) == 2
    assert contract.check("GET", "/api/price-board", await begin(server, "/api/price-board")) == 1
    assert contract.check("GET", "/api/shop-board", await begin(server, "/api/shop-board")) >= 1
    assert contract.check("GET", "/api/rooms/{room}", await begin(server, "/api/rooms/tea?name=ann")) == 1
    listening = asyncio.create_task(ask(server, "GET", "/api/broadcasts/live?limit=1", b"", ""))
    while not (await asyncio.wait({listening}, timeout=0.1))[0]:
        await ask(server, "POST", "/api/broadcasts", b'{"title": "News", "text": "Hi"}', JSON)
    assert contract.check("GET", "/api/broadcasts/live", listening.result()) == 2
    begun = next(each for (_, path, *_), each in zip(waiting, replies, strict=True) if path == "/api/long-report")
    stream = begun.headers["x-stream-id"]
    for method, path, status in (
        ("GET", f"{stream}?after=0", 200),
        ("GET", f"{stream}?after=99", 204),
        ("GET", f"{stream}?after=none", 400),
        ("DELETE", stream, 204),
        ("DELETE", "none", 404),
    ):
        reply = await ask(server, method, f"/_streams/{path}", b"", "")
        contract.check(method, "/_streams/{id}", reply)
        assert reply.status == status
