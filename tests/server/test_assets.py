"""The files that a server has of its own: the client for browsers."""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path

from tests.server.declarations import HELLO
from tests.server.processes import serving

CLIENT = files("streamstack").joinpath("browser/streamstack.js").read_bytes()


async def test_the_client_is_served(tmp_path: Path) -> None:
    """To pages of any origin, compressed on request, and once: 304 for the entity tag."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    async with serving(tmp_path) as server:
        plain = await server.ask("GET", "/_client.js")
        assert (plain.status, plain.body) == (200, CLIENT)
        assert plain.headers["content-type"] == "text/javascript; charset=utf-8"
        assert plain.headers["access-control-allow-origin"] == "*"
        packed = await server.ask("GET", "/_client.js", extra="Accept-Encoding: gzip, br\r\n")
        assert packed.headers["content-encoding"] == "gzip"
        again = await server.ask("GET", "/_client.js", extra=f"If-None-Match: {plain.headers['etag']}\r\n")
        assert (again.status, again.body) == (304, b"")
        assert (await server.ask("POST", "/_client.js")).status == 405


def test_the_client_is_small() -> None:
    """Comments and types aside, it is about 3 KB for a page to load."""
    assert len(gzip.compress(CLIENT)) < 4000
