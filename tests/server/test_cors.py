"""CORS from the settings: one header whatever a definition sets, and a line in the log for each origin refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from tests.server.authenticating import project

ENDPOINTS = """
method: GET
path: /x
responseType: json
headers: {Access-Control-Allow-Origin: https://else.example, X-Own: a}
functionStack:
  - respond: {headers: {access-control-allow-origin: "*", Access-Control-Allow-Credentials: << request.headers.c >>}}
    when: << "c" in request.headers >>
response: 1
---
method: GET
path: /s
headers: {Access-Control-Allow-Origin: "*"}
functionStack: [{stream: 1}]
"""
SETTINGS = "server: {cors: https://app.example}"


@pytest.mark.parametrize("path", ["/x", "/s"])
@pytest.mark.parametrize("more", [{}, {"c": "true"}])
async def test_settings_win(path: str, more: dict[str, str], tmp_path: Path) -> None:
    """With `server.cors` there is one header, and none for other origins, whatever a definition sets."""
    async with project(tmp_path, SETTINGS, ENDPOINTS) as server:
        reply = await server.get(path, Origin="https://app.example", **more)
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-credentials" not in reply.headers
        reply = await server.get(path, Origin="https://evil.example", **more)
        assert not [name for name in reply.headers if name.startswith("access-control-")]


async def test_without_settings_definitions_have_their_way(tmp_path: Path) -> None:
    """Without `server.cors` what a definition sets is sent."""
    async with project(tmp_path, "{}", ENDPOINTS) as server:
        reply = await server.get("/x", Origin="https://app.example", c="true")
        assert reply.headers["access-control-allow-origin"] == "*"
        assert reply.headers["access-control-allow-credentials"] == "true"


async def test_refused_origins_are_logged_once(tmp_path: Path) -> None:
    """A line names the origin and the setting; pages of the server's own origin, and allowed ones, have none."""
    with structlog.testing.capture_logs() as logged:
        async with project(tmp_path, SETTINGS, ENDPOINTS) as server:
            for origin in ("https://a.example", "https://a.example", "https://app.example", "http://test", "null"):
                await server.get("/x", Origin=origin)
            await server.ask("OPTIONS", "/x", Origin="https://b.example", Access_Control_Request_Method="GET")
            await server.get("/nowhere", Origin="https://c.example")
            for number in range(200):
                await server.get("/x", Origin=f"https://{number}.example")
    lines = [(each["origin"], each["hint"]) for each in logged if each["event"] == "origin-refused"]
    hint = "add it to server.cors.origins"
    assert lines[:4] == [(f"https://{name}.example", hint) for name in "a"] + [
        ("null", hint),
        ("https://b.example", hint),
        ("https://c.example", hint),
    ]
    assert len(lines) == 100


async def test_preflight_without_settings_is_logged(tmp_path: Path) -> None:
    """Where `server.cors` is missing altogether, a preflight request tells that it is needed."""
    with structlog.testing.capture_logs() as logged:
        async with project(tmp_path, "{}", ENDPOINTS) as server:
            await server.get("/x", Origin="https://a.example")
            await server.ask("OPTIONS", "/x", Origin="https://a.example", Access_Control_Request_Method="GET")
    assert [each["origin"] for each in logged if each["event"] == "origin-refused"] == ["https://a.example"]


@pytest.mark.parametrize(
    ("content_type", "streaming", "expected"),
    [
        ("text/plain", "{}", b"ab"),
        ("text/plain; charset=utf-8", "{format: auto}", b"ab"),
        ("application/x-ndjson", "{}", b'"a"\n"b"\n'),
        ("text/event-stream", "{done: false, ids: false}", b"data: a\n\ndata: b\n\n"),
    ],
)
async def test_content_type_chooses_the_format(
    content_type: str, streaming: str, expected: bytes, tmp_path: Path
) -> None:
    """A Content-Type of a known format among the headers chooses it, whatever the request accepts."""
    definition = f"""
method: GET
path: /s
headers: {{Content-Type: {content_type}}}
streaming: {streaming}
functionStack: [{{stream: a}}, {{stream: b}}]
"""
    settings = "streaming: {resume: true}" if content_type.startswith("text/plain") else "{}"
    async with project(tmp_path, settings, definition) as server:
        reply = await server.get("/s", Accept="application/json")
        assert (reply.headers["content-type"], reply.body) == (content_type, expected)
