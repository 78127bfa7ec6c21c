"""The files that a server serves of itself: the client for browsers, and the page that shows the metrics."""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from aiohttp import hdrs

from streamstack.server.replies import Sent, send
from streamstack.server.request import Request

#: Path -> file of the package, and its media type.
ASSETS: Final = {
    "/_client.js": ("browser/streamstack.js", "text/javascript; charset=utf-8"),
    "/_console": ("browser/console.html", "text/html; charset=utf-8"),
}
#: The page reads the metrics of its own server, and may do nothing else.
_POLICY: Final = (
    "Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\n"
)


@cache
def _load(path: str) -> tuple[bytes, bytes, str]:
    """Return a file, the same compressed, and its entity tag."""
    data = files("streamstack").joinpath(ASSETS[path][0]).read_bytes()
    return data, gzip.compress(data, mtime=0), f'W/"{sha256(data).hexdigest()[:16]}"'


def send_asset(request: Request, path: str) -> Sent:
    """Answer with a file, or 304 where the client has it (RFC 9110, section 13.1.2).

    Pages of any origin may import the client: it is the same for everyone, and needs no credentials.
    """
    data, compressed, tag = _load(path)
    shared = "Access-Control-Allow-Origin: *\r\n" if path == "/_client.js" else _POLICY
    lines = (
        f"Cache-Control: public, max-age=300\r\n{shared}Vary: Accept-Encoding\r\n"
        f"Content-Type: {ASSETS[path][1]}\r\nETag: {tag}\r\n"
    )
    if tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        return send(request, 304, lines.encode(), b"")
    if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
        return send(request, 200, lines.encode() + b"Content-Encoding: gzip\r\n", compressed)
    return send(request, 200, lines.encode(), data)
