"""Names that are looked up: a slow name server holds up nothing else."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
import uvloop
from multidict import CIMultiDict

from streamstack.connections.http import UpstreamRequest, parse_url
from streamstack.connections.http_client import LOOKUPS, HttpClient, Resolver
from streamstack.errors import RunError
from streamstack.language.settings import HttpSettings
from tests.upstreams import Upstream, Wire


@pytest.fixture(name="slow")
def slow_server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Answer names that end in `slow.example` only once the test has ended, and those in `.invalid` never."""
    answers, lookups = threading.Event(), []
    look_up = socket.getaddrinfo

    def getaddrinfo(host: str, *others: Any, **options: Any) -> Any:
        if host.endswith("slow.example"):
            lookups.append(host)
            answers.wait(60)
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *others, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield lookups
    answers.set()


async def answer(wire: Wire) -> None:
    """Answer with nothing."""
    await wire.head("Content-Length: 0", chunked=False)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_slow_name_server_stops_neither_other_calls_nor_the_end(loop: Any, slow: list[str]) -> None:
    """Calls to addresses and to names that are found go on, and the event loop ends at once."""

    async def call() -> float:
        client = HttpClient(HttpSettings(connect=5))
        waiting = [
            asyncio.ensure_future(client.send(request(f"http://n{number}.slow.example/"))) for number in range(20)
        ]
        while len(slow) < 20:  # noqa: ASYNC110  (a thread counts them)
            await asyncio.sleep(0.01)
        began = time.monotonic()
        async with Upstream(answer) as upstream:
            for host in ("127.0.0.1", "localhost"):
                (await client.send(request(upstream.url.replace("127.0.0.1", host)))).close()
        took = time.monotonic() - began
        for each in waiting:
            each.cancel()
        await client.aclose()
        return took

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(call()) < 1
        began = time.monotonic()
    assert time.monotonic() - began < 1


async def test_lookups_are_limited_and_end_in_time(slow: list[str]) -> None:
    """However many names are asked for, there are so many threads; a wait for longer than `connect` fails."""
    client = HttpClient(HttpSettings(connect=0.3))
    asked = [client.send(request(f"http://n{number}.slow.example/")) for number in range(LOOKUPS + 20)]
    errors = await asyncio.gather(*asked, return_exceptions=True)
    await client.aclose()
    assert {getattr(each, "code", each) for each in errors} == {"timeout"}
    assert len(slow) == LOOKUPS


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("host", ["nothing.invalid", "a..invalid", "x" * 70 + ".example"])
async def test_names_that_are_none(host: str) -> None:
    """A name that does not exist, or can't, is an error of the connection."""
    client = HttpClient(HttpSettings())
    with pytest.raises(RunError) as caught:
        await client.send(request(f"http://{host}/"))
    await client.aclose()
    assert (caught.value.code, "can't be resolved" in caught.value.message) == ("http-connection", True)


async def test_addresses_of_a_name() -> None:
    """Each has its family and port; a scope of IPv6 stays."""
    found = await Resolver().resolve("localhost", 80, socket.AF_UNSPEC)
    assert {(each["hostname"], each["port"]) for each in found} == {("localhost", 80)}
    assert {each["host"] for each in found} <= {"127.0.0.1", "::1"}


def request(url: str) -> UpstreamRequest:
    """Return a request without anything."""
    return UpstreamRequest("GET", parse_url(url), CIMultiDict())
