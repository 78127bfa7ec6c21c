"""Addresses that a caller or an upstream chooses: none leads to a machine's credentials or around the settings."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamstack.errors import RunError
from streamstack.language.settings import HttpSettings
from tests.functions.calling import call, take
from tests.server.authenticating import project
from tests.upstreams import Upstream, answer

METADATA = "169.254.169.254"
REFUSED = "in a network that is not allowed"


async def refused(function: str = "http.request", **arguments: Any) -> RunError:
    """Return the error of a call that must fail."""
    settings = arguments.pop("settings", HttpSettings())
    if function != "http.request":
        taken = await take(function, settings, **arguments)
        assert taken.error is not None
        return taken.error
    with pytest.raises(RunError) as caught:
        await call(function, settings, **arguments)
    return caught.value


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names of the test's own: each asking takes the next address, the last one again and again."""
    known: dict[str, list[str]] = {}
    resolve: Callable[..., Any] = socket.getaddrinfo

    def look_up(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        addresses = known.get(host)
        if addresses is None:
            return resolve(host, port, *more, **options)
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        where = (address, port, 0, 0) if ":" in address else (address, port)
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.mark.parametrize(
    "host",
    [
        METADATA,
        "169.254.169.254.",
        "169.254.170.2",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "0000000251.254.169.254",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[0:0:0:0:0:ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "100.100.100.200",
        "168.63.129.16",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "instance-data",
        "user:password@169.254.169.254",
        "①⑥⑨.②⑤④.①⑥⑨.②⑤④",
        "169。254。169。254",
    ],
)
@pytest.mark.parametrize("function", ["http.request", "http.stream", "websocket.stream"])
async def test_metadata_in_every_spelling(host: str, function: str) -> None:
    """Whatever way it is written, no connection is made, and it is not tried again."""
    scheme = "ws" if function == "websocket.stream" else "http"
    error = await refused(function, url=f"{scheme}://{host}/latest/meta-data/")
    assert error.code in ("http-connection", "template")
    assert REFUSED in error.message or "resolve" in error.message or error.code == "template"


async def test_name_that_leads_there(names: dict[str, list[str]]) -> None:
    """A name is judged by every address it has."""
    names["rebound.example"] = [METADATA]
    error = await refused(url="http://rebound.example/")
    assert REFUSED in error.message


async def test_name_that_leads_elsewhere_later(names: dict[str, list[str]]) -> None:
    """The address that is connected to is the one that is judged: rebinding gains nothing."""
    async with Upstream(answer("ok", "Content-Type: text/plain", "Connection: close")) as upstream:
        names["rebound.example"] = ["127.0.0.1", METADATA]
        url = f"http://rebound.example:{upstream.port}/"
        assert (await call("http.request", url=url))["body"] == "ok"
        error = await refused(url=url)  # a client of its own: nothing is remembered of the first
        assert REFUSED in error.message
        assert len(upstream.asked) == 1


@pytest.mark.parametrize(
    "location",
    [
        f"http://{METADATA}/latest/",
        f"//{METADATA}/latest/",
        "http://0xa9fea9fe/",
        "http://[::ffff:169.254.169.254]/",
        "http://rebound.example/",
        "http://metadata.google.internal/computeMetadata/v1/",
    ],
)
async def test_redirect_there(names: dict[str, list[str]], location: str) -> None:
    """Each redirect is judged again."""
    names["rebound.example"] = [METADATA]
    async with Upstream(answer("", f"Location: {location}", status="302 Found")) as upstream:
        for function in ("http.request", "http.stream"):
            error = await refused(function, url=upstream.url)
            assert REFUSED in error.message


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "0", "[::1]", "[::ffff:127.0.0.1]", "near.example"],
)
async def test_private_networks_in_every_spelling(names: dict[str, list[str]], host: str) -> None:
    """With `http.denyPrivateNetworks` not even this machine is in reach; without, it is."""
    names["near.example"] = ["127.0.0.1"]
    settings = HttpSettings(deny_private_networks=True)
    async with Upstream(answer("ok", "Content-Type: text/plain")) as upstream:
        error = await refused(settings=settings, url=f"http://{host}:{upstream.port}/")
        assert error.code in ("http-connection", "template")  # some are not a host of a URL
        assert upstream.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://a\r\nX-Evil: 1/",
        "http://127.0.0.1:{port}/a\r\nX-Evil: 1",
        "http://127.0.0.1:{port}/a b\r\n\r\nGET /evil",
    ],
)
async def test_line_breaks_in_a_url(url: str) -> None:
    """They are quoted, or it is not a URL: no header and no second request comes of it."""
    async with Upstream(answer("ok", "Content-Type: text/plain")) as upstream:
        try:
            await call("http.request", url=url.format(port=upstream.port))
        except RunError as error:
            assert error.code in ("template", "http-connection")  # noqa: PT017  (either is right)
        for asked in upstream.asked:
            assert "x-evil" not in asked.headers
            assert "\r" not in asked.target
        assert len(upstream.asked) <= 1


@pytest.mark.parametrize(
    "given",
    [
        {"headers": {"X-A": "a\r\nX-Evil: 1"}},
        {"headers": {"X-A\r\nX-Evil": "1"}},
        {"headers": {"X-A": "a\nX-Evil: 1"}},
        {"headers": {"X-A": "a\0b"}},
        {"method": "GET / HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET"},
        {"headers": {"Host": "a\r\nX-Evil: 1"}},
    ],
)
async def test_line_breaks_in_headers_of_a_call(given: dict[str, Any]) -> None:
    """Nothing is sent."""
    async with Upstream(answer("ok")) as upstream:
        error = await refused(url=upstream.url, **given)
        assert error.code == "template"
        assert upstream.asked == []


CHAT = """
method: POST
path: /chat
inputParameters: {host: text}
functionStack:
  - llm.chat:
      provider: openai
      model: m
      apiKey: k
      baseUrl: http://<< input.host >>/v1
      messages: [{role: user, content: Hi}]
    as: reply
  - forEach: {in: << reply >>, as: part, do: [{stream: << part >>}]}
---
method: GET
path: /kept
responseType: json
authentication: jwt
functionStack: [{return: 1}]
"""


async def test_models_and_keys_of_tokens(tmp_path: Path) -> None:
    """`baseUrl` and `jwksUrl` are asked by the same client: neither gets there."""
    settings = f"authentication: {{jwt: {{type: jwt, algorithms: [RS256], jwksUrl: 'https://{METADATA}/keys'}}}}"
    token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.e30.AAAA"
    async with project(tmp_path, settings, CHAT) as server:
        chat = await server.ask("POST", "/chat", b'{"host": "169.254.169.254"}', Content_Type="application/json")
        kept = await server.get("/kept", Authorization=f"Bearer {token}")
    assert chat.status == 502
    assert REFUSED.encode() in chat.body
    assert kept.status == 503
